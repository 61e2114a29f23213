//! Why this thread's last call failed, in words.
//!
//! A call that succeeds pays some stores for this: what it is about is noted as the numbers and
//! pointers that it was given, and looked at only if it fails.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;

use super::entry;
use crate::error::{Error, Result};

thread_local! {
    /// What the call is about that this thread is in.
    static SUBJECT: Cells = const { Cells::new() };
    /// Whether there is something in `LAST`: that one is not touched for nothing.
    static FAILED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Last> = const { RefCell::new(Last { failure: None, text: None }) };
}

struct Last {
    failure: Option<Failure>,
    /// What the program has been given of it.
    text: Option<CString>,
}

/// As the program passed them; 0 and NULL where a call has nothing of the kind. The pointers are
/// good for as long as the call.
#[derive(Clone, Copy)]
pub struct Subject {
    sd: usize,
    vdi: usize,
    address: *const c_char,
    name: *const c_char,
    tag: *const c_char,
    snap_id: c_int,
}

impl Subject {
    const NONE: Subject = Subject {
        sd: 0,
        vdi: 0,
        address: std::ptr::null(),
        name: std::ptr::null(),
        tag: std::ptr::null(),
        snap_id: 0,
    };
}

struct Cells {
    sd: Cell<usize>,
    vdi: Cell<usize>,
    address: Cell<*const c_char>,
    name: Cell<*const c_char>,
    tag: Cell<*const c_char>,
    snap_id: Cell<c_int>,
}

impl Cells {
    const fn new() -> Cells {
        Cells {
            sd: Cell::new(0),
            vdi: Cell::new(0),
            address: Cell::new(std::ptr::null()),
            name: Cell::new(std::ptr::null()),
            tag: Cell::new(std::ptr::null()),
            snap_id: Cell::new(0),
        }
    }

    fn get(&self) -> Subject {
        Subject {
            sd: self.sd.get(),
            vdi: self.vdi.get(),
            address: self.address.get(),
            name: self.name.get(),
            tag: self.tag.get(),
            snap_id: self.snap_id.get(),
        }
    }

    fn set(&self, subject: Subject) {
        self.sd.set(subject.sd);
        self.vdi.set(subject.vdi);
        self.address.set(subject.address);
        self.name.set(subject.name);
        self.tag.set(subject.tag);
        self.snap_id.set(subject.snap_id);
    }
}

pub fn about_sd(sd: usize) {
    SUBJECT.with(|subject| subject.sd.set(sd));
}

pub fn about_vdi(vdi: usize) {
    SUBJECT.with(|subject| subject.vdi.set(vdi));
}

pub fn about_address(address: *const c_char) {
    SUBJECT.with(|subject| subject.address.set(address));
}

pub fn about_name(name: *const c_char) {
    SUBJECT.with(|subject| subject.name.set(name));
}

pub fn about_snapshot(tag: *const c_char, snap_id: c_int) {
    SUBJECT.with(|subject| {
        subject.tag.set(tag);
        subject.snap_id.set(snap_id);
    });
}

/// A call begins: what the one is about that it is made in, where a callback makes it.
pub fn begin() -> Subject {
    SUBJECT.with(|subject| {
        let outer = subject.get();
        subject.set(Subject::NONE);
        outer
    })
}

/// The call ends that had begun in `outer`: its code.
pub fn end(outer: Subject, result: Result<()>) -> c_int {
    let code = match result {
        Ok(()) => succeed(),
        Err(error) => fail(SUBJECT.with(Cells::get), error),
    };
    SUBJECT.with(|subject| subject.set(outer));
    code
}

/// What a request is about, for when it has ended and the call that made it is over.
pub struct Kept {
    sd: usize,
    vdi: usize,
    /// Where there are names.
    about: Option<Box<str>>,
}

/// What the call is about that this thread is in. Takes memory only where that has names.
pub fn keep() -> Kept {
    let subject = SUBJECT.with(Cells::get);
    let Subject { sd, vdi, address, name, tag, snap_id } = subject;
    let nameless = address.is_null() && name.is_null() && tag.is_null() && snap_id == 0;
    Kept { sd, vdi, about: (!nameless).then(|| about(subject).into()) }
}

/// The callback of a request is about to run: the request's code.
pub fn of_request(kept: Kept, result: Result<()>) -> c_int {
    let Kept { sd, vdi, about } = kept;
    let subject = Subject { sd, vdi, ..Subject::NONE };
    match result {
        Ok(()) => succeed(),
        Err(error) => {
            let about = about.map_or_else(|| self::about(subject), String::from);
            fail_about(about, subject, error)
        }
    }
}

fn succeed() -> c_int {
    if FAILED.replace(false) {
        let _ = LAST.try_with(|last| *last.borrow_mut() = Last { failure: None, text: None });
    }
    0
}

fn fail(subject: Subject, error: Error) -> c_int {
    fail_about(about(subject), subject, error)
}

fn fail_about(about: String, subject: Subject, error: Error) -> c_int {
    let code = error.code();
    let failure = Failure { about, more: more(subject, &error), error };
    log::debug!("{failure}");
    FAILED.set(true);
    let last = Last { failure: Some(failure), text: None };
    let _ = LAST.try_with(|place| *place.borrow_mut() = last);
    code
}

struct Failure {
    /// "" where there is nothing to say.
    about: String,
    error: Error,
    /// As `about`.
    more: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { about, error, more } = self;
        let colon = if about.is_empty() { "" } else { ": " };
        write!(f, "{about}{colon}{error}{more}")
    }
}

/// What the call was about.
fn about(subject: Subject) -> String {
    let handle = if subject.vdi == 0 { None } else { entry::name_of(subject.vdi) };
    // SAFETY: the program's strings, which stay as they are for the call that is about to end.
    let (address, name, tag) =
        unsafe { (text(subject.address), text(subject.name), text(subject.tag)) };
    if let Some(address) = address {
        return address;
    }
    let snapshot = match (tag, subject.snap_id) {
        (Some(tag), _) => format!("snapshot \"{tag}\" of "),
        (None, 0) => String::new(),
        (None, snap_id) => format!("snapshot {snap_id} of "),
    };
    match (name, handle) {
        (None, None) => String::new(),
        (Some(name), None) | (None, Some(name)) => format!("{snapshot}VDI \"{name}\""),
        (Some(name), Some(source)) => format!("VDI \"{name}\" from {snapshot}VDI \"{source}\""),
    }
}

/// The beginning of a string argument; None where it is NULL or "".
///
/// # Safety
/// `text` is NULL or a C string.
unsafe fn text(text: *const c_char) -> Option<String> {
    const MOST: usize = 256;
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into())
}

/// Which gateway it was.
fn more(subject: Subject, error: &Error) -> String {
    let client = match subject {
        Subject { vdi: 0, sd: 0, .. } => None,
        Subject { vdi: 0, sd, .. } => entry::client_of(sd),
        Subject { vdi, .. } => entry::client_of_vdi(vdi),
    };
    client.and_then(|client| client.cluster.whence(error)).unwrap_or_default()
}

/// Why this thread's last call of the library failed, in words: what it was about, what a server or
/// the system said, and which one; of a request that timed out behind something that was given up
/// before, what that is. In a callback, until it calls the library itself: why its request failed. ""
/// after a success; never NULL. The string stays until this thread's next call of the library, or its
/// end: in destructors of thread-specific data, and of the main thread in those that exit() runs, there
/// may be none any more.
///
/// For people: what it says may be another text in another release. sd_strerror(),
/// sd_result_to_errno(), sd_version() and this function leave it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn sd_last_error() -> *const c_char {
    const NOTHING: *const c_char = c"".as_ptr();
    if !FAILED.get() {
        return NOTHING;
    }
    let text = LAST.try_with(|last| {
        let Last { failure, text } = &mut *last.borrow_mut();
        let Some(failure) = failure else { return NOTHING };
        let write = || CString::new(failure.to_string().replace('\0', " ")).unwrap_or_default();
        text.get_or_insert_with(write).as_ptr()
    });
    text.unwrap_or(NOTHING)
}
