//! The event-loop side: one descriptor that tells when there is work, and the call that does it.

use std::future::Future;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cluster, Core, Link, LinkState, Op};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::{Completion, Hold, lock};
use crate::net::{EventSet, Interest, Tap, WakeFd, interest};

/// Callbacks of one dispatch, so that a busy handle does not starve the program's other events.
const MAX_CALLBACKS: usize = 1024;

const PANIC: Error = Error::Internal("panic");
const NO_FD: Error = Error::NoMem("no file descriptor left");

/// What an event loop watches.
pub(super) struct Events {
    set: Arc<EventSet>,
    /// When the set's timer fires.
    armed: Option<Instant>,
}

impl Cluster {
    /// The descriptor that is readable when there is work for [`Cluster::dispatch`]. It stays the
    /// same as long as the cluster lives.
    pub fn events_fd(&self) -> Result<RawFd> {
        Ok(self.events()?.fd())
    }

    /// A descriptor of its own for one event loop, which is readable when that one is.
    pub fn tap(&self) -> Result<Tap> {
        let set = self.events()?;
        Tap::new(&set).map_err(|_| NO_FD)
    }

    fn events(&self) -> Result<Arc<EventSet>> {
        let mut core = lock(&self.core);
        if let Some(events) = &core.events {
            return Ok(events.set.clone());
        }
        let descriptor = Arc::new(WakeFd::new().map_err(|_| NO_FD)?);
        let set = Arc::new(EventSet::new(&descriptor).map_err(|_| NO_FD)?);
        self.descriptors.keep_wake(&descriptor);
        self.descriptors.keep_set(&set);
        core.events = Some(Events { set: set.clone(), armed: None });
        let keys: Vec<usize> = core.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            core.watch(key);
        }
        let next = core.next_at();
        core.set_timer(next, Instant::now());
        drop(core);
        self.tasks.agenda.tell(descriptor);
        Ok(set)
    }

    /// Starts an asynchronous operation. `work` runs with the operation it is given; what comes of
    /// it goes to `done`, and the completion that makes is delivered by a dispatch.
    pub fn spawn<T, F>(
        &self,
        work: impl FnOnce(Op) -> F,
        done: impl FnOnce(Result<T>) -> Option<Completion> + Send + 'static,
    ) -> Result<()>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // There must be a descriptor to tell of the end.
        self.events()?;
        let op = Op { lazy: true, ..self.op() };
        let started = self.tasks.spawn(work(op), |result| done(result.unwrap_or(Err(PANIC))));
        if !started {
            return Err(Error::Canceled);
        }
        self.tasks.run_woken();
        Ok(())
    }

    /// Begins to end everything, as [`Cluster::close`] does, without waiting. `end` makes that of
    /// [`Cluster::end`]; what comes of it goes to `done`, and the completion that makes is
    /// delivered after all others, by a dispatch.
    pub fn spawn_end<F>(
        &self,
        end: impl FnOnce() -> F,
        done: impl FnOnce(Result<()>) -> Completion + Send + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.cancel_all();
        self.tasks.agenda.end();
        self.tasks.spawn_last(end(), |result| done(result.unwrap_or(Err(PANIC))));
        self.tasks.run_woken();
    }

    /// The right to call a function of the program's, which a close waits for.
    pub fn calling(&self) -> Result<Hold<'_>> {
        self.tasks.agenda.call().ok_or(Error::Canceled)
    }

    /// Does the work that there is: I/O, timers, callbacks. Never blocks.
    pub fn dispatch(&self) {
        self.dispatches.fetch_add(1, Ordering::Relaxed);
        let mut hold = self.tasks.agenda.hold();
        match self.lead.try_take() {
            Some(_term) => self.turn_now(),
            // Whoever leads receives. The timer that may have called us is not left as it is: the
            // descriptor would stay readable.
            None => self.look_at_the_time(),
        }
        self.tasks.run_woken();
        self.tasks.deliver(&mut hold, MAX_CALLBACKS);
        self.send_all();
        self.tasks.run_woken();
    }

    /// Waits for work and does it, or for the bell; false where there was neither within `timeout`.
    /// None waits for ever, or until the cluster is closed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let events = self.events()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let [work, rung] = {
                let waiting = self.tasks.agenda.wait();
                let ready = events.wait(&self.bell, left);
                if waiting.is_over() {
                    return Err(Error::Canceled);
                }
                ready.map_err(|_| Error::NoMem("poll"))?
            };
            // Another thread may have taken it.
            let rung = rung && self.bell.take();
            if work {
                self.dispatch();
            }
            if work || rung {
                return Ok(true);
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(false);
            }
        }
    }

    /// Ends one wait.
    pub fn ring(&self) {
        self.bell.set();
    }

    /// The descriptor of the bell: an eventfd, each unit of which ends one wait.
    pub fn bell(&self) -> RawFd {
        self.bell.fd()
    }
}

impl Core {
    /// Tells the event loop what to watch of a link.
    pub(super) fn watch(&mut self, key: usize) {
        let Some(events) = &self.events else { return };
        let link = &mut self.links[key];
        let wanted = match link.state {
            LinkState::Connecting(_) => Some(interest(false, true)),
            LinkState::Up => Some(interest(true, link.stuck)),
            LinkState::Draining(_) => Some(interest(true, false)),
            LinkState::Down(..) => None,
        };
        if link.watched == wanted {
            return;
        }
        let done = match (link.watched, wanted) {
            (None, Some(interest)) => events.set.add(&link.socket, interest),
            (Some(_), Some(interest)) => events.set.modify(&link.socket, interest),
            (_, None) => {
                events.set.remove(&link.socket);
                Ok(())
            }
        };
        match done {
            Ok(()) => link.watched = wanted,
            // Out of memory: requests end by their deadlines.
            Err(e) => log::error!("epoll: {e}"),
        }
    }

    /// Makes the event loop wake up for what is due at `at`, and for what is due earlier.
    pub(super) fn arm_timer(&mut self, at: Instant, now: Instant) {
        let Some(events) = &mut self.events else { return };
        // A timer that fires too early costs a wake-up; one for each request, a system call each.
        let next = match events.armed {
            Some(armed) if armed > now && armed <= at => return,
            Some(armed) if armed > now => Some(at),
            _ => self.next_at(),
        };
        self.set_timer(next, now);
    }

    fn set_timer(&mut self, next: Option<Instant>, now: Instant) {
        let Some(events) = &mut self.events else { return };
        events.armed = next;
        events.set.set_timer(next.map(|at| at.saturating_duration_since(now)));
    }

    /// After the event loop's timer may have fired: it is no longer armed for the past.
    pub(super) fn timer_fired(&mut self, now: Instant) {
        let Some(events) = &mut self.events else { return };
        if events.armed.is_some_and(|armed| armed <= now) {
            let next = self.next_at();
            self.set_timer(next, now);
        }
    }
}

/// What a link's socket is watched for.
pub(super) type Watched = Option<Interest>;

impl Link {
    /// Whether a request of an asynchronous operation may wait to be sent together with others:
    /// as long as replies are on their way, a dispatch is sure to come.
    pub(super) fn may_wait(&self) -> bool {
        const MAX_REQUESTS: usize = 32;
        const MAX_BYTES: usize = 256 * 1024;
        let (requests, bytes) = self.wire.queued();
        requests < MAX_REQUESTS && bytes < MAX_BYTES && self.wire.awaiting() > 0
    }
}
