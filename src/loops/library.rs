//! Finds the process's own copy of an event library. A loop that one copy made is no loop to any
//! other copy, so this one brings none and needs none: whoever calls attach has one.

use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;

use crate::error::{Error, Refusal, Result};

/// An event library, and the functions that are needed of it.
pub(super) struct Library<const N: usize> {
    pub name: &'static str,
    pub symbols: [&'static CStr; N],
    /// What the loader resolved of them when it loaded this library: weak references.
    pub linked: fn() -> Functions<N>,
    /// Names that the library goes by where it was loaded for somebody else alone.
    pub sonames: &'static [&'static CStr],
}

/// The addresses of a library's functions, in the order of its symbols; NULL where one is missing.
pub(super) type Functions<const N: usize> = [*mut c_void; N];

/// Declares `LIBRARY`, and the table of weak references that belongs to it.
///
/// A weak reference needs nobody to define it, and has a linker export the function from a program
/// that has the event library linked statically.
macro_rules! library {
    ($name:literal, $table:literal, $count:literal, [$($symbol:literal),+ $(,)?], $sonames:expr) => {
        #[cfg(not(target_vendor = "apple"))]
        std::arch::global_asm!(concat!(
            ".pushsection .data.rel.ro.", $table, ",\"aw\",%progbits\n",
            ".balign 8\n",
            ".globl ", $table, "\n",
            ".hidden ", $table, "\n",
            ".type ", $table, ",%object\n",
            $table, ":\n",
            $(".weak ", $symbol, "\n",
              // An address of this machine's size.
              crate::loops::library::address_directive!(), " ", $symbol, "\n",)+
            ".size ", $table, ", . - ", $table, "\n",
            ".popsection\n",
        ));

        fn linked() -> crate::loops::library::Functions<$count> {
            #[cfg(not(target_vendor = "apple"))]
            {
                unsafe extern "C" {
                    #[link_name = $table]
                    static TABLE: crate::loops::library::Functions<$count>;
                }
                // SAFETY: the table above, which the loader has filled in. Volatile, since a
                // compiler may take it that a function's address is never NULL.
                unsafe { (&raw const TABLE).read_volatile() }
            }
            #[cfg(target_vendor = "apple")]
            [std::ptr::null_mut(); $count]
        }

        const LIBRARY: crate::loops::library::Library<$count> = crate::loops::library::Library {
            name: $name,
            symbols: [$(
                match std::ffi::CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                    Ok(symbol) => symbol,
                    Err(_) => unreachable!(),
                }
            ),+],
            linked,
            sonames: $sonames,
        };
    };
}
pub(super) use library;

#[cfg(target_pointer_width = "64")]
macro_rules! address_directive {
    () => {
        ".quad"
    };
}
#[cfg(target_pointer_width = "32")]
macro_rules! address_directive {
    () => {
        ".long"
    };
}
pub(super) use address_directive;

impl<const N: usize> Library<N> {
    /// The library's functions, all of one copy.
    pub fn find(&self) -> Result<Functions<N>> {
        self.find_in(&self.sources())
    }

    /// Where they may be, best first.
    fn sources(&self) -> Vec<Functions<N>> {
        // The scope of this library, with what a plugin that needs it has loaded for itself alone:
        // dlopen(NULL) would not have that.
        let mut sources = vec![(self.linked)(), self.look_up(libc::RTLD_DEFAULT)];
        for soname in self.sonames {
            // SAFETY: a C string. Loads nothing.
            let library =
                unsafe { libc::dlopen(soname.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
            if !library.is_null() {
                sources.push(self.look_up(library));
                // SAFETY: from dlopen. The library stays: whoever made the loop has it loaded.
                unsafe { libc::dlclose(library) };
            }
        }
        sources
    }

    fn look_up(&self, scope: *mut c_void) -> Functions<N> {
        // SAFETY: a scope to look into, and a C string.
        self.symbols.map(|symbol| unsafe { libc::dlsym(scope, symbol.as_ptr()) })
    }

    fn find_in(&self, sources: &[Functions<N>]) -> Result<Functions<N>> {
        // The source that has most of them tells best what is missing.
        let mut missing = 0;
        let mut mixed = false;
        for functions in sources {
            match functions.iter().position(|function| function.is_null()) {
                None if of_one_object(functions) => return Ok(*functions),
                None => mixed = true,
                Some(index) => missing = missing.max(index),
            }
        }
        if mixed {
            log::error!("{}: its functions here are those of several libraries", self.name);
        } else {
            let symbol = self.symbols[missing].to_string_lossy();
            log::error!("{}: not in this process, or too old: no symbol {symbol}", self.name);
        }
        Err(Error::Refused(Refusal::NoEventLibrary))
    }
}

/// Whether the functions belong together: libev has some of libevent's names as well.
fn of_one_object(functions: &[*mut c_void]) -> bool {
    let mut objects = functions.iter().map(|function| {
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: any address will do; `info` is written where the result is not 0.
        unsafe {
            match libc::dladdr(*function, info.as_mut_ptr()) {
                0 => None,
                _ => Some(info.assume_init().dli_fbase as usize),
            }
        }
    });
    let first = objects.next();
    objects.all(|object| Some(object) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &CStr) -> *mut c_void {
        // SAFETY: a scope to look into, and a C string.
        let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        assert!(!function.is_null());
        function
    }

    fn library(symbols: [&'static CStr; 2]) -> Library<2> {
        let linked = || [std::ptr::null_mut(); 2];
        Library { name: "test", symbols, linked, sonames: &[] }
    }

    #[test]
    fn functions_are_taken_from_one_copy_only() {
        let library = library([c"first", c"second"]);
        let (none, here) = (std::ptr::null_mut(), function_of_this_program as *mut c_void);
        let (read, write) = (function(c"read"), function(c"write"));
        assert!(library.find_in(&[]).is_err());
        assert!(library.find_in(&[[none, none], [read, none], [none, write]]).is_err());
        assert!(library.find_in(&[[read, here]]).is_err());
        let found = library.find_in(&[[none, write], [here, write], [read, write], [here, here]]);
        assert_eq!(found.unwrap(), [read, write]);
    }

    fn function_of_this_program() {}

    #[test]
    fn a_library_in_the_process_is_found_whatever_was_linked() {
        assert!(library([c"read", c"write"]).find().is_ok());
        assert!(library([c"read", c"sd_no_such_function"]).find().is_err());
    }
}
