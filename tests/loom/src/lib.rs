//! The library's executor, src/exec, compiled with loom's mutexes and condition variables in the
//! place of the standard library's: tests/handover.rs runs it through every order of its threads'
//! steps, up to a bound on preemptions: a step is what lies between two operations on those.

// The executor's own unit tests are for the real one.
#![cfg(not(test))]

/// In the place of src/sync.rs.
pub mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};

    /// A wait that ends by itself at any time.
    pub fn wait_at_most<'a, T>(
        _: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        _: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        drop(guard);
        loom::thread::yield_now();
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// loom's does not take constant initializers.
    macro_rules! local {
        ($(#[$doc:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
            loom::thread_local! {
                $(#[$doc])*
                static $name: $type = $value;
            }
        };
    }
    pub(crate) use local as thread_local;
}

/// In the place of src/net: what the executor needs of it.
pub mod net {
    use std::sync::{Arc, PoisonError};

    use crate::sync::{Condvar, Mutex, MutexGuard};

    /// An eventfd that threads of a model wait for; a clone is the same one.
    #[derive(Clone, Default)]
    pub struct WakeFd(Arc<(Mutex<bool>, Condvar)>);

    impl WakeFd {
        fn lock(&self) -> MutexGuard<'_, bool> {
            self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn set(&self) {
            *self.lock() = true;
            self.0.1.notify_all();
        }

        pub fn clear(&self) {
            *self.lock() = false;
        }

        pub fn is_set(&self) -> bool {
            *self.lock()
        }

        /// What poll(2) does without a time limit.
        pub fn wait(&self) {
            let mut set = self.lock();
            while !*set {
                set = self.0.1.wait(set).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[path = "../../../src/clock.rs"]
pub mod clock;

#[path = "../../../src/exec/mod.rs"]
pub mod exec;
