//! The program's functions: all of them are called here. And its threads, while they are in the
//! library.

use std::ffi::c_int;
use std::panic::resume_unwind;

use super::fork;

/// Ends a call of the library in a child process that was forked in a callback: `enter` gets it.
pub struct Forked;

/// Calls a function of the program's. No lock is held.
///
/// It returns, or the process ends: whatever unwinds out of it, an exception of another language or
/// the end of its thread, would leave requests half done that others wait for.
///
/// A child that was forked in there does not come back to what called it: that is the parent's,
/// down to the C function that the program called.
pub fn call<R>(function: impl FnOnce() -> R) -> R {
    let process = fork::process();
    let returns = Returns;
    let result = function();
    std::mem::forget(returns);
    if fork::process() != process {
        resume_unwind(Box::new(Forked));
    }
    result
}

/// Dropped only where something unwinds.
struct Returns;

impl Drop for Returns {
    fn drop(&mut self) {
        // Nothing is printed, and the program's log is its code as well.
        std::process::abort();
    }
}

/// While it lives its thread is not cancelled: what it is at, others may wait for.
pub struct Uncancelled(c_int);

impl Uncancelled {
    pub fn new() -> Uncancelled {
        Uncancelled(set_cancel_state(PTHREAD_CANCEL_DISABLE))
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        set_cancel_state(self.0);
    }
}

#[cfg(not(target_vendor = "apple"))]
const PTHREAD_CANCEL_DISABLE: c_int = 1;
#[cfg(target_vendor = "apple")]
const PTHREAD_CANCEL_DISABLE: c_int = 0;

/// What it was before.
#[cfg(not(target_os = "android"))]
fn set_cancel_state(state: c_int) -> c_int {
    unsafe extern "C" {
        // Of POSIX, and not in the crate libc for every system that has it.
        fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    }
    let mut old = state;
    // SAFETY: a place to write to.
    unsafe { pthread_setcancelstate(state, &raw mut old) };
    old
}

/// There is no cancellation.
#[cfg(target_os = "android")]
fn set_cancel_state(state: c_int) -> c_int {
    state
}
