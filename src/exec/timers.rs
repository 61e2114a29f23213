//! Deadlines in order of time. Knows no clock: `now` comes in as an argument.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::clock::Instant;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

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
