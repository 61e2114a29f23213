//! Deadlines in order of time. Knows no clock: `now` comes in as an argument.

use std::collections::VecDeque;
use std::task::Waker;

use crate::clock::Instant;

/// Nearly all deadlines are as far away as those before them: a new one goes to the end, and the
/// first to go are at the front. What is cancelled in between leaves its place until then.
#[derive(Default)]
pub struct Timers {
    queue: VecDeque<Entry>,
    /// Those of the queue that were not cancelled.
    live: usize,
    next: u64,
}

struct Entry {
    id: TimerId,
    waker: Option<Waker>,
}

/// Names a timer until it fires or is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerId(Instant, u64);

impl Timers {
    /// Places of cancelled timers that do not matter.
    const FEW: usize = 64;

    pub fn add(&mut self, at: Instant, waker: Waker) -> TimerId {
        self.next += 1;
        let id = TimerId(at, self.next);
        let entry = Entry { id, waker: Some(waker) };
        match self.queue.back() {
            Some(last) if last.id > id => {
                let place = self.queue.partition_point(|other| other.id < id);
                self.queue.insert(place, entry);
            }
            _ => self.queue.push_back(entry),
        }
        self.live += 1;
        id
    }

    fn find(&mut self, id: TimerId) -> Option<&mut Entry> {
        let place = self.queue.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.queue.get_mut(place).filter(|entry| entry.waker.is_some())
    }

    /// False where the timer has fired.
    pub fn update(&mut self, id: TimerId, waker: &Waker) -> bool {
        let registered = self.find(id).and_then(|entry| entry.waker.as_mut());
        registered.map(|registered| registered.clone_from(waker)).is_some()
    }

    pub fn cancel(&mut self, id: TimerId) {
        let Some(entry) = self.find(id) else { return };
        entry.waker = None;
        self.live -= 1;
        if self.queue.len() > Timers::FEW + 2 * self.live {
            self.queue.retain(|entry| entry.waker.is_some());
        }
        self.tidy();
    }

    /// The front is one that was not cancelled.
    fn tidy(&mut self) {
        while self.queue.front().is_some_and(|first| first.waker.is_none()) {
            self.queue.pop_front();
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.queue.front().map(|first| first.id.0)
    }

    /// Takes the wakers of all timers that are due.
    pub fn take_due(&mut self, now: Instant, into: &mut Vec<Waker>) {
        while self.queue.front().is_some_and(|first| first.id.0 <= now)
            && let Some(entry) = self.queue.pop_front()
        {
            self.live -= usize::from(entry.waker.is_some());
            into.extend(entry.waker);
        }
        self.tidy();
    }

    /// Takes the wakers of all timers: something happened that everybody must look at.
    pub fn take_all(&mut self, into: &mut Vec<Waker>) {
        self.live = 0;
        into.extend(self.queue.drain(..).filter_map(|entry| entry.waker));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::exec::count::Count;

    /// Fires what is due at `now`; how many timers that were.
    fn fire(timers: &mut Timers, now: Instant) -> usize {
        let mut due = Vec::new();
        timers.take_due(now, &mut due);
        let count = due.len();
        due.into_iter().for_each(Waker::wake);
        count
    }

    #[test]
    fn timers_fire_in_order_of_time_each_once() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |n| start + Duration::from_secs(n);
        let counts: [Arc<Count>; 4] = Default::default();
        for (count, n) in counts.iter().zip([3, 1, 2, 1]) {
            timers.add(at(n), count.clone().into());
        }
        assert_eq!(timers.next_at(), Some(at(1)));
        assert_eq!(fire(&mut timers, start), 0);
        assert_eq!(fire(&mut timers, at(1)), 2, "both of the same instant");
        assert_eq!(counts.each_ref().map(|count| count.take()), [0, 1, 0, 1]);
        assert_eq!(timers.next_at(), Some(at(2)));
        assert_eq!(fire(&mut timers, at(9)), 2);
        assert_eq!(counts.each_ref().map(|count| count.take()), [1, 0, 1, 0]);
        assert_eq!((fire(&mut timers, at(9)), timers.next_at()), (0, None));
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_cancelling_a_fired_one_harms_no_other() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        let count = Arc::new(Count::default());
        let first = timers.add(now, count.clone().into());
        timers.cancel(first);
        assert_eq!((fire(&mut timers, now), timers.next_at()), (0, None));
        let fired = timers.add(now, count.clone().into());
        assert_eq!(fire(&mut timers, now), 1);
        timers.add(now, count.clone().into());
        timers.cancel(fired);
        timers.cancel(first);
        assert_eq!((fire(&mut timers, now), count.take()), (1, 2));
    }

    #[test]
    fn an_update_replaces_the_waker_unless_the_timer_has_fired() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let id = timers.add(now, old.clone().into());
        assert!(timers.update(id, &new.clone().into()));
        assert_eq!(fire(&mut timers, now), 1);
        assert_eq!((old.take(), new.take()), (0, 1));
        assert!(!timers.update(id, &new.clone().into()));
    }

    #[test]
    fn taking_all_leaves_none_to_fire_or_update() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        let count = Arc::new(Count::default());
        let id = timers.add(now + Duration::from_secs(1), count.clone().into());
        timers.add(now, count.clone().into());
        let mut all = Vec::new();
        timers.take_all(&mut all);
        assert_eq!((all.len(), timers.next_at()), (2, None));
        assert!(!timers.update(id, &count.into()));
    }
}
