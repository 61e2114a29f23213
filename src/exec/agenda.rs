//! What an event loop has to be told of, and when: the one state behind a handle's descriptor.
//!
//! There is work for a dispatch while a completion is to be delivered, or something waits to be
//! sent. Whoever does that work holds the agenda. The rule: **the descriptor is readable exactly
//! while there is work that nobody holds**, judged anew whenever somebody lets go: at the end of a
//! dispatch, and before each callback, since the program's code may wait there for the very work
//! that is left. (Sockets and timers make the loop's descriptor readable by themselves.)

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::lock;
use crate::net::WakeFd;
use crate::sync::{Condvar, Mutex, thread_local};

/// A finished request, to be told to the program. Called exactly once, or dropped by a program
/// that is no more.
pub type Completion = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub struct Agenda {
    state: Mutex<State>,
    /// A callback has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Completions to be delivered.
    finished: VecDeque<Completion>,
    /// A request waits to be sent together with others.
    unsent: bool,
    /// Those who do what there is, or let go of it.
    holders: usize,
    /// Callbacks under way.
    callbacks: usize,
    /// To be delivered after everything else, when no callback is under way.
    last: Option<Completion>,
    /// The end has begun: nobody begins to call functions of the program's but completions, and
    /// whoever waits is to find that out.
    ending: bool,
    /// Threads that wait since before that.
    waiting: usize,
    /// Nothing is waited for any more.
    closing: bool,
    descriptor: Option<Arc<WakeFd>>,
    readable: bool,
}

impl State {
    /// The rule. While somebody holds the agenda a readable descriptor may stay so: that costs
    /// other threads a turn, and making it unreadable would cost two system calls.
    fn judge(&mut self) {
        let Some(descriptor) = &self.descriptor else { return };
        let last = self.last.is_some() && self.callbacks == 0;
        let work = self.unsent || !self.finished.is_empty() || last;
        let over = self.closing || self.ending && self.waiting > 0;
        let readable = over || work && self.holders == 0;
        if readable && !self.readable {
            descriptor.set();
        } else if !work && !over && self.readable {
            descriptor.clear();
        } else {
            return;
        }
        self.readable = readable;
    }
}

thread_local! {
    /// Whose callbacks this thread is in, the innermost last.
    static CALLBACKS: RefCell<Vec<*const Agenda>> = const { RefCell::new(Vec::new()) };
}

/// In the child of a fork: the thread is in no callback of the child's.
pub(super) fn part_from_parent() {
    let _ = CALLBACKS.try_with(|all| all.borrow_mut().clear());
}

impl Agenda {
    /// From now on `descriptor` tells of the work.
    pub fn tell(&self, descriptor: Arc<WakeFd>) {
        let mut state = lock(&self.state);
        state.descriptor = Some(descriptor);
        state.judge();
    }

    pub fn finish(&self, completion: Completion) {
        let mut state = lock(&self.state);
        state.finished.push_back(completion);
        state.judge();
    }

    /// For the completion that is delivered after all others.
    pub fn finish_last(&self, completion: Completion) {
        let mut state = lock(&self.state);
        state.last = Some(completion);
        state.judge();
    }

    /// Whether something waits to be sent. Called under the lock of that, so that it stays true.
    pub fn set_unsent(&self, unsent: bool) {
        let mut state = lock(&self.state);
        state.unsent = unsent;
        state.judge();
    }

    /// Takes the work upon this thread.
    pub fn hold(&self) -> Hold<'_> {
        lock(&self.state).holders += 1;
        Hold { agenda: self, calling: false, process: super::process() }
    }

    /// For another function of the program's than a completion: as long as what this gives is kept,
    /// it counts as a callback. None where the close has begun.
    pub fn call(&self) -> Option<Hold<'_>> {
        let mut state = lock(&self.state);
        if state.ending {
            return None;
        }
        let _ = CALLBACKS.try_with(|all| all.borrow_mut().push(self));
        state.callbacks += 1;
        Some(Hold { agenda: self, calling: true, process: super::process() })
    }

    /// Whether this thread is in a callback: whoever dispatches may wait there for itself.
    pub fn is_calling_here(&self) -> bool {
        let own = |all: &RefCell<Vec<*const Agenda>>| {
            all.borrow().iter().any(|one| std::ptr::eq(*one, self))
        };
        CALLBACKS.try_with(own).unwrap_or(false)
    }

    /// For a thread that waits for the descriptor, as long as what this gives is kept.
    pub fn wait(&self) -> Waiting<'_> {
        let mut state = lock(&self.state);
        let counted = !state.ending;
        state.waiting += usize::from(counted);
        Waiting { agenda: self, counted, process: super::process() }
    }

    /// The end begins: threads that wait are to stop, and the descriptor is readable until they
    /// have.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.ending = true;
        state.judge();
    }

    /// The descriptor stays readable from now on.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.ending = true;
        state.closing = true;
        state.judge();
    }

    /// Delivers what there is, and waits for the end of the callbacks of other threads: from then
    /// on none runs, but those that this thread is in.
    pub fn deliver_last(&self) {
        let mut hold = self.hold();
        while let Some(completion) = hold.take_next() {
            completion();
        }
        drop(hold);
        let own = CALLBACKS.try_with(|all| all.borrow().iter().filter(|one| **one == self).count());
        let own = own.unwrap_or(0);
        let mut state = lock(&self.state);
        while state.callbacks > own {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A thread that does what there is to do. Ends also where a callback unwinds.
pub struct Hold<'a> {
    agenda: &'a Agenda,
    /// Has let go, for a callback.
    calling: bool,
    /// A child that was forked in the callback has a copy, whose agenda others may have locked, and
    /// whose descriptor is the parent's.
    process: u32,
}

impl Hold<'_> {
    /// The next completion, to be called at once: the agenda is let go for it. None where there is
    /// none left.
    pub fn take_next(&mut self) -> Option<Completion> {
        let mut state = lock(&self.agenda.state);
        self.take_back(&mut state);
        let completion = match state.finished.pop_front() {
            None if state.callbacks == 0 => state.last.take()?,
            next => next?,
        };
        self.calling = true;
        let _ = CALLBACKS.try_with(|all| all.borrow_mut().push(self.agenda));
        state.callbacks += 1;
        state.holders -= 1;
        state.judge();
        Some(completion)
    }

    /// The callback is over.
    fn take_back(&mut self, state: &mut State) {
        if std::mem::take(&mut self.calling) {
            state.holders += 1;
            state.callbacks -= 1;
            let _ = CALLBACKS.try_with(|all| all.borrow_mut().pop());
            if state.closing {
                self.agenda.changed.notify_all();
            }
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.process != super::process() {
            return;
        }
        let mut state = lock(&self.agenda.state);
        self.take_back(&mut state);
        state.holders -= 1;
        state.judge();
    }
}

/// A thread that waits for the descriptor.
pub struct Waiting<'a> {
    agenda: &'a Agenda,
    /// Since before the end began.
    counted: bool,
    process: u32,
}

impl Waiting<'_> {
    /// Whether it is to stop.
    pub fn is_over(&self) -> bool {
        let state = lock(&self.agenda.state);
        state.closing || state.ending && self.counted
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.counted || self.process != super::process() {
            return;
        }
        let mut state = lock(&self.agenda.state);
        state.waiting -= 1;
        state.judge();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    struct Told {
        agenda: Agenda,
        descriptor: Arc<WakeFd>,
    }

    impl Told {
        fn new() -> Told {
            let (agenda, descriptor) = (Agenda::default(), Arc::new(WakeFd::new().unwrap()));
            agenda.tell(descriptor.clone());
            Told { agenda, descriptor }
        }

        fn readable(&self) -> bool {
            let fd = self.descriptor.as_fd();
            crate::net::wait_readable([fd], Some(Duration::ZERO)).unwrap() == [true]
        }
    }

    #[test]
    fn it_is_readable_exactly_while_there_is_work_that_nobody_holds() {
        let told = Told::new();
        assert!(!told.readable());
        told.agenda.set_unsent(true);
        assert!(told.readable());
        let hold = told.agenda.hold();
        told.agenda.set_unsent(false);
        told.agenda.finish(Box::new(|| ()));
        drop(hold);
        assert!(told.readable(), "the completion is left");
        let mut hold = told.agenda.hold();
        told.agenda.set_unsent(true);
        let completion = hold.take_next().unwrap();
        assert!(told.readable(), "for whoever waits in the callback");
        completion();
        assert!(hold.take_next().is_none());
        told.agenda.set_unsent(false);
        drop(hold);
        assert!(!told.readable());
    }

    #[test]
    fn whoever_waits_in_a_callback_is_told_of_the_next_one() {
        let told = Told::new();
        let outer = told.agenda.hold();
        for _ in 0..2 {
            told.agenda.finish(Box::new(|| ()));
        }
        assert!(!told.readable(), "somebody is at it");
        let mut outer = outer;
        outer.take_next().unwrap()();
        assert!(told.readable());
        let mut inner = told.agenda.hold();
        inner.take_next().unwrap()();
        assert!(inner.take_next().is_none());
        drop(inner);
        assert!(!told.readable());
        assert!(outer.take_next().is_none());
    }

    #[test]
    fn after_a_close_it_stays_readable() {
        let told = Told::new();
        told.agenda.close();
        drop(told.agenda.hold());
        assert!(told.readable());
    }

    #[test]
    fn the_last_completion_waits_for_all_others_and_for_every_callback() {
        let told = Told::new();
        told.agenda.finish_last(Box::new(|| ()));
        told.agenda.finish(Box::new(|| ()));
        let (mut hold, mut nested) = (told.agenda.hold(), told.agenda.hold());
        hold.take_next().unwrap()();
        assert!(nested.take_next().is_none(), "a callback is under way");
        drop(nested);
        assert!(!told.readable(), "so it would be in vain to come");
        drop(hold);
        assert!(told.readable());
        let call = told.agenda.call().unwrap();
        assert!(told.agenda.hold().take_next().is_none());
        drop(call);
        let mut hold = told.agenda.hold();
        hold.take_next().unwrap()();
        assert!(hold.take_next().is_none());
        drop(hold);
        assert!(!told.readable());
    }

    #[test]
    fn the_end_sends_away_who_waits_and_nobody_who_comes_later() {
        let told = Told::new();
        let before = told.agenda.wait();
        assert!(!before.is_over() && !told.readable());
        told.agenda.end();
        let after = told.agenda.wait();
        assert!(before.is_over() && !after.is_over() && told.readable());
        assert!(told.agenda.call().is_none());
        drop(before);
        drop(told.agenda.hold());
        assert!(!told.readable());
        told.agenda.close();
        assert!(after.is_over() && told.readable());
    }

    #[test]
    fn what_is_asked_beside_a_dispatch_leaves_nothing_behind() {
        const ROUNDS: usize = 20_000;
        let told = Told::new();
        let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ask = || {
            for round in 1..=ROUNDS {
                while started.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                told.agenda.set_unsent(true);
                ended.store(round, Ordering::Release);
            }
        };
        let mut wrong = 0;
        std::thread::scope(|scope| {
            scope.spawn(ask);
            for round in 1..=ROUNDS {
                started.store(round, Ordering::Release);
                while ended.load(Ordering::Acquire) < round {
                    let hold = told.agenda.hold();
                    told.agenda.set_unsent(false);
                    drop(hold);
                    std::thread::yield_now();
                }
                let hold = told.agenda.hold();
                told.agenda.set_unsent(false);
                drop(hold);
                // Without an assertion here, which would leave the other thread waiting.
                wrong += usize::from(told.readable());
            }
        });
        assert_eq!(wrong, 0, "an event loop would turn for ever");
    }
}
