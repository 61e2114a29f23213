//! Deadlines in order of time. Knows no clock: `now` comes in as an argument.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

#[derive(Default)]
pub struct Timers {
    queue: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

/// Names a timer until it fires or is cancelled.
#[derive(Clone, Copy, Debug)]
pub struct TimerId(Instant, u64);

impl Timers {
    pub fn add(&mut self, at: Instant, waker: Waker) -> TimerId {
        self.next += 1;
        self.queue.insert((at, self.next), waker);
        TimerId(at, self.next)
    }

    /// False where the timer has fired.
    pub fn update(&mut self, id: TimerId, waker: &Waker) -> bool {
        match self.queue.get_mut(&(id.0, id.1)) {
            Some(registered) => {
                registered.clone_from(waker);
                true
            }
            None => false,
        }
    }

    pub fn cancel(&mut self, id: TimerId) {
        self.queue.remove(&(id.0, id.1));
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the wakers of all timers that are due.
    pub fn take_due(&mut self, now: Instant, into: &mut Vec<Waker>) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                return;
            }
            into.push(entry.remove());
        }
    }

    /// Takes the wakers of all timers: something happened that everybody must look at.
    pub fn take_all(&mut self, into: &mut Vec<Waker>) {
        into.extend(std::mem::take(&mut self.queue).into_values());
    }
}
