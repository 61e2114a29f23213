//! Asynchronous requests: futures that no thread waits for.
//!
//! A future that was woken is polled by whatever thread is in the library next: one that
//! dispatches, one that waits in a blocking call, the one that submits. What it ends with is a
//! [`Completion`](super::Completion), and that is delivered by a thread that dispatches, and by no
//! other. So a blocking call made inside a callback can wait for what asynchronous requests hold.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use async_task::Runnable;
use pin_project_lite::pin_project;

use super::agenda::{Agenda, Completion, Hold};
use super::{WaitList, lock};
use crate::sync::Mutex;

#[derive(Default)]
pub struct Tasks {
    running: Mutex<Running>,
    /// What they have ended in, until it is delivered.
    pub agenda: Agenda,
}

#[derive(Default)]
struct Running {
    /// To be polled.
    woken: VecDeque<Runnable>,
    /// Futures that have not ended.
    live: usize,
    /// Nothing is started any more.
    closed: bool,
    /// Who waits for their end.
    waiters: WaitList,
}

impl Tasks {
    /// Starts a request: polls it once, in this thread. `done` makes its completion of what the
    /// future ends in, None where that is a panic; there is none where nobody is to be told. False
    /// where nothing is started any more.
    pub fn spawn<F, D>(self: &Arc<Self>, future: F, done: D) -> bool
    where
        F: Future + Send + 'static,
        D: FnOnce(Option<F::Output>) -> Option<Completion> + Send + 'static,
    {
        {
            let mut running = lock(&self.running);
            if running.closed {
                return false;
            }
            running.live += 1;
        }
        self.start(future, |agenda, output| {
            if let Some(completion) = done(output) {
                agenda.finish(completion);
            }
        });
        true
    }

    /// Starts the last request of all: has nothing started any more, and its completion is
    /// delivered once nothing else is left to be told.
    pub fn spawn_last<F, D>(self: &Arc<Self>, future: F, done: D)
    where
        F: Future + Send + 'static,
        D: FnOnce(Option<F::Output>) -> Completion + Send + 'static,
    {
        {
            let mut running = lock(&self.running);
            running.closed = true;
            running.live += 1;
        }
        self.start(future, |agenda, output| agenda.finish_last(done(output)));
    }

    /// Polls a future that has been counted.
    fn start<F, D>(self: &Arc<Self>, future: F, done: D)
    where
        F: Future + Send + 'static,
        D: FnOnce(&Agenda, Option<F::Output>) + Send + 'static,
    {
        let request = Request { future, done: Some(done), ended: Ended(self.clone()) };
        let tasks = self.clone();
        let (runnable, task) = async_task::spawn(request, move |runnable| tasks.woke(runnable));
        task.detach();
        runnable.run();
    }

    fn woke(&self, runnable: Runnable) {
        let waiters = {
            let mut running = lock(&self.running);
            running.woken.push_back(runnable);
            // Whoever wakes a future need not be one who polls it.
            running.waiters.take()
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Whether there are any.
    pub fn are_there(&self) -> bool {
        lock(&self.running).live > 0
    }

    /// Polls the futures that were woken.
    pub fn run_woken(&self) {
        loop {
            let Some(runnable) = lock(&self.running).woken.pop_front() else { return };
            runnable.run();
        }
    }

    /// Delivers up to `limit` completions as `hold`; how many it were.
    pub fn deliver(&self, hold: &mut Hold<'_>, limit: usize) -> usize {
        let mut delivered = 0;
        while delivered < limit
            && let Some(completion) = hold.take_next()
        {
            completion();
            delivered += 1;
            self.run_woken();
        }
        delivered
    }

    /// Has nothing started any more.
    pub fn refuse(&self) {
        lock(&self.running).closed = true;
    }

    /// Waits until no more than `own` futures are left, which are those of whoever waits.
    pub async fn ended(&self, own: usize) {
        poll_fn(|cx| {
            let mut running = lock(&self.running);
            if running.live <= own {
                return Poll::Ready(());
            }
            running.waiters.register(cx);
            Poll::Pending
        })
        .await;
    }
}

pin_project! {
    /// A future and what comes of it: not an async block, which would keep what it begins with
    /// beside what that becomes.
    struct Request<F, D> {
        #[pin]
        future: F,
        done: Option<D>,
        ended: Ended,
    }
}

impl<F: Future, D: FnOnce(&Agenda, Option<F::Output>)> Future for Request<F, D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let poll = AssertUnwindSafe(|| this.future.poll(cx));
        let output = catch_unwind(poll).map_or(Some(None), |poll| match poll {
            Poll::Ready(output) => Some(Some(output)),
            Poll::Pending => None,
        });
        let Some(output) = output else { return Poll::Pending };
        if let Some(done) = this.done.take() {
            done(&this.ended.0.agenda, output);
        }
        Poll::Ready(())
    }
}

/// Counts a future out, also when it panics or is dropped.
struct Ended(Arc<Tasks>);

impl Drop for Ended {
    fn drop(&mut self) {
        let waiters = {
            let mut running = lock(&self.0.running);
            running.live -= 1;
            running.waiters.take()
        };
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// The memory that asynchronous requests may take: the sizes of their buffers, and a fixed cost
/// for each (api.md).
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// What one request takes of the budget; given back when it is dropped.
pub struct Share {
    budget: Arc<Budget>,
    size: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { limit: AtomicUsize::new(Budget::DEFAULT_LIMIT), used: AtomicUsize::new(0) }
    }
}

impl Budget {
    /// What a request costs besides its data: its future, its slot, its place in the queues.
    pub const PER_REQUEST: usize = 4096;
    pub const DEFAULT_LIMIT: usize = 256 << 20;

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes what a request with `data` bytes costs, if it is there.
    pub fn take(self: &Arc<Self>, data: usize) -> Option<Share> {
        let size = data.checked_add(Budget::PER_REQUEST)?;
        let limit = self.limit();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(size).filter(|sum| *sum <= limit)
            })
            .ok()?;
        Some(Share { budget: self.clone(), size })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_exact_and_comes_back() {
        let budget = Arc::new(Budget::default());
        budget.set_limit(2 * (Budget::PER_REQUEST + 10));
        let first = budget.take(10).unwrap();
        let second = budget.take(10).unwrap();
        assert_eq!(budget.used(), budget.limit());
        assert!(budget.take(0).is_none());
        drop(first);
        assert!(budget.take(11).is_none());
        assert!(budget.take(usize::MAX).is_none());
        drop(budget.take(10).unwrap());
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_completion_waits_for_delivery_and_comes_once() {
        let tasks = Arc::new(Tasks::default());
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let count = count.clone();
            tasks.spawn(async {}, move |_| {
                let completion: Completion = Box::new(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                Some(completion)
            });
        }
        tasks.run_woken();
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let mut hold = tasks.agenda.hold();
        assert_eq!(tasks.deliver(&mut hold, 2), 2);
        assert_eq!(tasks.deliver(&mut hold, 2), 1);
        assert_eq!(tasks.deliver(&mut hold, 2), 0);
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
