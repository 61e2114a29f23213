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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exec::count::Count;

    #[test]
    fn every_waiter_is_woken_once_however_often_it_registered() {
        let mut list = WaitList::default();
        let counts: [Arc<Count>; 3] = Default::default();
        let wakers = counts.each_ref().map(|count| Waker::from(count.clone()));
        for _ in 0..5 {
            wakers.iter().for_each(|waker| list.register(&Context::from_waker(waker)));
        }
        list.take().into_iter().for_each(Waker::wake);
        assert_eq!(counts.each_ref().map(|count| count.get()), [1; 3]);
        assert!(list.take().is_empty(), "they register again if they still wait");
    }
}
