//! What the executor's threads share their state through: the standard library's here. tests/loom
//! compiles the same executor with a model checker's in place of it.

pub use std::sync::{Condvar, Mutex, MutexGuard};
pub use std::thread_local;
