//! How a C function is called, to compare our declarations with those of a library's own header.

use std::ffi::{c_int, c_void};

/// What an argument or a result is, as far as calling goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    None,
    Pointer,
    Signed(usize),
    Unsigned(usize),
}

pub trait Argument {
    const KIND: Kind;
}

macro_rules! argument {
    ($($type:ty => $kind:expr),+) => { $(impl Argument for $type { const KIND: Kind = $kind; })+ };
}
argument! {
    () => Kind::None,
    i16 => Kind::Signed(2), c_int => Kind::Signed(4), i64 => Kind::Signed(8),
    u32 => Kind::Unsigned(4), u64 => Kind::Unsigned(8),
    usize => Kind::Unsigned(size_of::<usize>())
}

impl<T> Argument for *mut T {
    const KIND: Kind = Kind::Pointer;
}
impl<T> Argument for *const T {
    const KIND: Kind = Kind::Pointer;
}
/// A function pointer, which C may pass as NULL.
impl<T: Function> Argument for Option<T> {
    const KIND: Kind = Kind::Pointer;
}

/// A C function: its result, then its arguments.
pub trait Function {
    fn shape() -> Vec<Kind>;
}

macro_rules! function {
    ($(($($argument:ident),*))+) => { $(
        impl<R: Argument, $($argument: Argument),*> Function
            for unsafe extern "C" fn($($argument),*) -> R
        {
            fn shape() -> Vec<Kind> {
                vec![R::KIND, $($argument::KIND),*]
            }
        }
        impl<R: Argument, $($argument: Argument),*> Argument
            for unsafe extern "C" fn($($argument),*) -> R
        {
            const KIND: Kind = Kind::Pointer;
        }
    )+ };
}
function! { () (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }

/// The shape of a function, or of a callback, by example.
pub fn of<T: Function>(_: T) -> Vec<Kind> {
    T::shape()
}

/// The shape of the callback type that a header declares as a pointer that may be NULL.
pub fn of_callback<T: Function>(_: Option<T>) -> Vec<Kind> {
    T::shape()
}

#[test]
fn shapes_tell_functions_apart() {
    type First = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    type Second = unsafe extern "C" fn(*mut c_void, u32) -> c_int;
    assert_eq!(First::shape(), [Kind::Signed(4), Kind::Pointer, Kind::Signed(4)]);
    assert_ne!(First::shape(), Second::shape());
}
