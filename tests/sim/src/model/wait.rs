//! Waiting in the model: for one's turn, and for what peers answer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A lock that is given in the order in which it was asked for.
#[derive(Default)]
pub struct Turns(RefCell<VecDeque<(u64, Option<Waker>)>>, Cell<u64>);

/// Holds the turn, or the place in the queue, until it is dropped: also with its task.
pub struct Turn(Rc<Turns>, u64);

impl Turns {
    pub async fn take(self: &Rc<Self>) -> Turn {
        let number = self.1.replace(self.1.get() + 1);
        self.0.borrow_mut().push_back((number, None));
        let turn = Turn(self.clone(), number);
        poll_fn(|context| {
            let mut queue = self.0.borrow_mut();
            if queue.front().is_some_and(|(first, _)| *first == number) {
                return Poll::Ready(());
            }
            if let Some((_, waker)) = queue.iter_mut().find(|(waiting, _)| *waiting == number) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.0.0.borrow_mut();
        queue.retain(|(number, _)| *number != self.1);
        let next = queue.front_mut().and_then(|(_, waker)| waker.take());
        drop(queue);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// A flag that one task waits for.
#[derive(Default)]
pub struct Signal(Cell<bool>, RefCell<Option<Waker>>);

impl Signal {
    pub fn set(&self) {
        self.0.set(true);
        let waker = self.1.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.0.get() {
                return Poll::Ready(());
            }
            *self.1.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
