//! The program's functions: all of them are called here.

use std::panic::resume_unwind;

use super::fork;

/// Ends a call of the library in a child process that was forked in a callback: `enter` gets it.
pub struct Forked;

/// Calls a function of the program's. No lock is held.
///
/// A child that was forked in there does not come back to what called it: that is the parent's,
/// down to the C function that the program called.
pub fn call<R>(function: impl FnOnce() -> R) -> R {
    let process = fork::process();
    let result = function();
    if fork::process() != process {
        resume_unwind(Box::new(Forked));
    }
    result
}
