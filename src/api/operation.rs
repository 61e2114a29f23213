//! An asynchronous operation, as a program waits for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::exec::lock;

/// An operation under way: a future of what comes of it.
///
/// It was started by the call that gave it, and makes progress whenever somebody drives the
/// connection (see the [module](super::aio)), whether it is polled or not. To drop it does not
/// end the operation: that goes on, with the buffer it has, and what comes of it is dropped.
#[must_use = "what came of the operation is found out by awaiting it"]
pub struct Operation<T>(Arc<Mutex<State<T>>>);

enum State<T> {
    Running(Option<Waker>),
    Done(Option<T>),
    /// Nobody waits for it any more.
    Dropped,
}

/// Where the result of an operation goes.
pub(super) struct Promise<T>(Arc<Mutex<State<T>>>);

impl<T> Operation<T> {
    pub(super) fn new() -> (Operation<T>, Promise<T>) {
        let state = Arc::new(Mutex::new(State::Running(None)));
        (Operation(state.clone()), Promise(state))
    }

    /// One that has ended before it began.
    pub(super) fn ready(output: T) -> Operation<T> {
        Operation(Arc::new(Mutex::new(State::Done(Some(output)))))
    }

    /// Whether it has ended: then awaiting it does not wait.
    pub fn is_done(&self) -> bool {
        matches!(&*lock(&self.0), State::Done(_))
    }
}

impl<T> Promise<T> {
    pub(super) fn keep(self, output: T) {
        let old = {
            let mut state = lock(&self.0);
            match &*state {
                State::Dropped => return drop_outside(state, output),
                _ => std::mem::replace(&mut *state, State::Done(Some(output))),
            }
        };
        if let State::Running(Some(waker)) = old {
            waker.wake();
        }
    }
}

/// What nobody waits for may be a handle, whose end is no business of whoever holds the lock.
fn drop_outside<T>(state: std::sync::MutexGuard<'_, State<T>>, output: T) {
    drop(state);
    drop(output);
}

impl<T> Future for Operation<T> {
    type Output = T;

    /// Panics where it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *lock(&self.0) {
            State::Done(output) => Poll::Ready(output.take().expect("polled after it was ready")),
            State::Running(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Dropped => unreachable!("by the drop of this value"),
        }
    }
}

impl<T> Drop for Operation<T> {
    fn drop(&mut self) {
        let old = std::mem::replace(&mut *lock(&self.0), State::Dropped);
        drop(old);
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*lock(&self.0) {
            State::Running(_) => "running",
            State::Done(_) | State::Dropped => "done",
        };
        write!(f, "Operation({state})")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::exec::count::Count;

    #[test]
    fn who_waits_is_woken_once_and_gets_what_came() {
        let (operation, promise) = Operation::new();
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut operation = pin!(operation);
        for count in [&first, &last] {
            let waker = Waker::from(count.clone());
            assert!(operation.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        promise.keep(7);
        let counts = [&first, &last].map(|count| count.get());
        assert_eq!(counts, [0, 1], "the one that polled last");
        assert!(operation.is_done());
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(operation.as_mut().poll(&mut context), Poll::Ready(7));
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let value = Arc::new(());
        let (operation, promise) = Operation::new();
        drop(operation);
        promise.keep(value.clone());
        assert_eq!(Arc::strong_count(&value), 1);
        let (operation, promise) = Operation::new();
        promise.keep(value.clone());
        drop(operation);
        assert_eq!(Arc::strong_count(&value), 1);
        let operation = Operation::ready(value.clone());
        drop(operation);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
