//! Futures that wait for a state to change.

use std::task::{Context, Waker};

/// Who is to be polled again when the state beside this list has changed.
///
/// Kept under the lock of that state. Every waiter is woken at every change and looks for itself:
/// a waiter that is dropped meanwhile leaves nothing behind but a wake-up for nobody.
#[derive(Default)]
pub struct WaitList(Vec<Waker>);

impl WaitList {
    pub fn register(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|w| w.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    /// The waiters, to be woken once the lock is released.
    #[must_use]
    pub fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.0)
    }
}
