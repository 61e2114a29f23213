//! What the executor's threads share their state through: the standard library's here. tests/loom
//! compiles the same executor with a model checker's in place of it.

pub use std::sync::{Condvar, Mutex, MutexGuard};
pub use std::thread_local;

use std::sync::PoisonError;
use std::time::Duration;

/// Waits for a notification, for `time` at most.
pub fn wait_at_most<'a, T>(
    condvar: &Condvar,
    _: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
}
