//! The small executor: what runs the library's `async fn`s.
//!
//! A blocking call drives its own future on its caller's thread ([`block_on`]); there are no
//! helper threads. Of several threads that wait at once, one leads: it does the I/O for all, and
//! hands the lead on when its own future is ready. Knows nothing of sockets or the protocol: that
//! is behind [`Reactor`].

mod agenda;
#[cfg(test)]
pub mod count;
mod join;
mod tasks;
mod timers;
mod turns;
mod wait;

pub use agenda::{Completion, Hold};
pub use join::{join, try_for_each_concurrent};
pub use tasks::{Budget, Share, Tasks};
pub use timers::{TimerId, Timers};
pub use turns::{Gate, IndexHold, IndexLocks, Quiet};
pub use wait::WaitList;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::net::WakeFd;
use crate::sync::{Condvar, Mutex, MutexGuard, thread_local, wait_at_most};

/// Locks, also after a panic in another thread: every state here is valid between statements.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waits for I/O and timers, and wakes futures.
pub trait Reactor {
    fn lead(&self) -> &Lead;

    /// The asynchronous requests beside the blocking ones.
    fn tasks(&self) -> &Tasks;

    /// Waits until something happened, handles it, and wakes whom it concerns. Called by one
    /// thread at a time, the leader. `alone`: no other thread is inside [`block_on`]. Returns
    /// at once where `me` has been woken already, and early when it is.
    fn turn(&self, me: &Parker, alone: bool) -> Turn;

    /// The leader has left what happened to somebody else; whether anybody saw to it.
    fn left(&self, _seen_to: bool) {}
}

/// What came of a leader's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Done,
    /// Something happened that is another thread's to handle, which is about to come.
    Leave,
}

/// How long a leader leaves what happened to another thread.
const COURTESY: Duration = Duration::from_millis(10);

/// Who leads, and who waits meanwhile.
#[derive(Default)]
pub struct Lead {
    state: Mutex<LeadState>,
}

#[derive(Default)]
struct LeadState {
    led: bool,
    /// Threads inside `block_on`.
    users: usize,
    followers: VecDeque<Arc<Parker>>,
    /// Who waits for threads to leave.
    waiters: WaitList,
}

impl Lead {
    /// Takes the lead if nobody has it; else `parker` will be woken when it is free.
    fn take(&self, parker: &Arc<Parker>) -> bool {
        let mut state = lock(&self.state);
        if state.led {
            if !state.followers.iter().any(|p| Arc::ptr_eq(p, parker)) {
                state.followers.push_back(parker.clone());
            }
            return false;
        }
        state.led = true;
        // From when it left the lead to others.
        state.followers.retain(|p| !Arc::ptr_eq(p, parker));
        true
    }

    /// Takes the lead if nobody has it, until the term is dropped.
    pub fn try_take(&self) -> Option<Term<'_>> {
        let mut state = lock(&self.state);
        if state.led {
            return None;
        }
        state.led = true;
        Some(Term(self))
    }

    fn give_up(&self) {
        let next = {
            let mut state = lock(&self.state);
            state.led = false;
            state.followers.pop_front()
        };
        if let Some(parker) = next {
            parker.nudge();
        }
    }

    /// Gives the lead up to whoever comes, and to no follower; `parker` is the next of these.
    fn leave_free(&self, parker: &Arc<Parker>) {
        let mut state = lock(&self.state);
        state.led = false;
        state.followers.push_front(parker.clone());
    }

    fn enter(&self) {
        lock(&self.state).users += 1;
    }

    /// A thread leaves `block_on`. It may have been nudged to lead and not need to any more, so
    /// the next one is nudged in its place.
    fn leave(&self, parker: &Arc<Parker>) {
        let (next, waiters) = {
            let mut state = lock(&self.state);
            state.users -= 1;
            state.followers.retain(|p| !Arc::ptr_eq(p, parker));
            let next = if state.led { None } else { state.followers.pop_front() };
            (next, state.waiters.take())
        };
        if let Some(parker) = next {
            parker.nudge();
        }
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Waits until no more than `own` threads are inside [`block_on`], which are those of whoever
    /// waits.
    pub async fn left(&self, own: usize) {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.users <= own {
                return Poll::Ready(());
            }
            state.waiters.register(cx);
            Poll::Pending
        })
        .await;
    }

    fn alone(&self) -> bool {
        lock(&self.state).users == 1
    }
}

/// A thread that waits for its future to be woken.
#[derive(Default)]
pub struct Parker {
    state: Mutex<ParkState>,
    changed: Condvar,
}

#[derive(Default)]
struct ParkState {
    /// The future is to be polled.
    woken: bool,
    /// The lead may be free.
    nudged: bool,
    /// The thread waits for one of them: to notify a thread that does not is a system call.
    waiting: bool,
    /// Set while the thread waits in a poll that this interrupts.
    polling: Option<Arc<WakeFd>>,
}

impl Parker {
    fn take_woken(&self) -> bool {
        std::mem::take(&mut lock(&self.state).woken)
    }

    fn nudge(&self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.nudged = true;
            state.waiting
        };
        if waiting {
            self.changed.notify_one();
        }
    }

    /// Waits to be woken or nudged.
    fn wait(&self) {
        let mut state = lock(&self.state);
        state.waiting = true;
        while !state.woken && !state.nudged {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        state.nudged = false;
    }

    /// As [`Parker::wait`], for `time` at most. Whether it was woken or nudged.
    fn wait_at_most(&self, time: Duration) -> bool {
        let mut state = lock(&self.state);
        if !state.woken && !state.nudged {
            state.waiting = true;
            state = wait_at_most(&self.changed, &self.state, state, time);
            state.waiting = false;
        }
        state.woken || std::mem::take(&mut state.nudged)
    }

    pub fn is_woken(&self) -> bool {
        lock(&self.state).woken
    }

    /// Runs `wait`, a wait that `interrupt` ends, unless the thread has been woken already.
    pub fn interruptible(&self, interrupt: &Arc<WakeFd>, wait: impl FnOnce()) {
        {
            let mut state = lock(&self.state);
            if state.woken {
                return;
            }
            state.polling = Some(interrupt.clone());
        }
        wait();
        lock(&self.state).polling = None;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (waiting, polling) = {
            let mut state = lock(&self.state);
            state.woken = true;
            (state.waiting, state.polling.clone())
        };
        if waiting {
            self.changed.notify_one();
        }
        if let Some(fd) = polling {
            fd.set();
        }
    }
}

thread_local! {
    /// The thread's parker and its waker, while no `block_on` of the thread uses them.
    static PARKER: RefCell<Option<(Arc<Parker>, Waker)>> = const { RefCell::new(None) };
}

/// Counts the forks between the process that loaded the library and this one.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Tells a process from its parent. Not the process id: to ask for that is a system call.
pub fn process() -> u32 {
    PROCESS.load(Ordering::Relaxed)
}

/// In the child of a fork: tells it from its parent, and lets go of the thread's parker where a
/// thread of the parent may have been waking it, and so have locked it. What else has it is never
/// freed.
pub fn part_from_parent() {
    PROCESS.fetch_add(1, Ordering::Relaxed);
    agenda::part_from_parent();
    let _ = PARKER.try_with(|kept| match kept.take() {
        // Itself, and its waker.
        Some(own) if Arc::strong_count(&own.0) == 2 => drop(kept.replace(Some(own))),
        other => std::mem::forget(other),
    });
}

/// Runs a future to its end on this thread, doing I/O through `reactor` as needed.
pub fn block_on<F: Future>(reactor: &impl Reactor, future: F) -> F::Output {
    // A program may still call in while its thread is being torn down, from an atexit handler.
    let kept = PARKER.try_with(RefCell::take).ok().flatten();
    let (parker, waker) = kept.unwrap_or_else(|| {
        let parker = Arc::new(Parker::default());
        (parker.clone(), Waker::from(parker))
    });
    *lock(&parker.state) = ParkState::default();
    let session = Session { lead: reactor.lead(), parker: &parker };
    session.lead.enter();
    let mut future = pin!(future);
    let mut context = Context::from_waker(&waker);
    let output = loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            break output;
        }
        loop {
            reactor.tasks().run_woken();
            if parker.take_woken() {
                break;
            }
            if session.lead.take(&parker) {
                let term = Term(session.lead);
                let mut turn = Turn::Done;
                while turn == Turn::Done && !parker.is_woken() {
                    turn = reactor.turn(&parker, session.lead.alone());
                    reactor.tasks().run_woken();
                }
                match turn {
                    Turn::Done => drop(term),
                    Turn::Leave => {
                        std::mem::forget(term);
                        session.lead.leave_free(&parker);
                        reactor.left(parker.wait_at_most(COURTESY));
                    }
                }
            } else {
                parker.wait();
            }
        }
    };
    drop(session);
    reactor.tasks().run_woken();
    let _ = PARKER.try_with(|kept| kept.replace(Some((parker, waker))));
    output
}

/// A stay in `block_on`; ends also when a poll panics.
struct Session<'a> {
    lead: &'a Lead,
    parker: &'a Arc<Parker>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.lead.leave(self.parker);
    }
}

/// A time as leader; ends also when a turn panics.
pub struct Term<'a>(&'a Lead);

impl Drop for Term<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

#[cfg(test)]
mod tests;
