//! The memory that requests may hold: one budget for the process, shared fairly.
//!
//! Whoever holds little gets more before whoever holds much: a share is a part of what is free. And
//! a part of all is only for connections that hold nothing yet, so that they find room for small
//! requests however much others have taken. What needs more than there is waits in a queue for
//! memory to come back, and has it in its turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::buf::SMALL;
use crate::lock;

/// Bytes that one connection holds at most, except for a single request that needs more.
const MAX_HELD: usize = 32 << 20;
/// A connection may hold as much as this part of what is free.
const SHARE: usize = 4;
/// This part of all is for the first needs of connections.
const RESERVE: usize = 4;
/// Bytes of the buffers that a connection has while it is served: those needs.
pub const POCKET: usize = 3 * SMALL;

pub struct Budget {
    total: usize,
    used: AtomicUsize,
    /// The length of `queue`, to be asked without its lock.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Waiter>>,
}

struct Waiter {
    account: Arc<Account>,
    bytes: usize,
    granted: Box<dyn FnOnce(Charge) + Send>,
}

/// What one connection holds of the budget.
pub struct Account {
    budget: Arc<Budget>,
    held: AtomicUsize,
}

/// Memory that is given back when this is dropped.
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Budget {
    pub fn new(total: usize) -> Arc<Budget> {
        let (used, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Budget { total, used, waiting, queue: Mutex::default() })
    }

    /// Whether there is somebody who waits for others to give memory back.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Bytes that those who wait need more than are free.
    pub fn lacks(&self) -> usize {
        let wanted: usize =
            lock(&self.queue).iter().map(|waiter| waiter.bytes.min(self.total)).sum();
        wanted.saturating_sub(self.total.saturating_sub(self.used.load(Ordering::Acquire)))
    }

    fn take(&self, bytes: usize, enough: impl Fn(usize) -> bool) -> bool {
        let take = |used| {
            let free = self.total.saturating_sub(used);
            (bytes <= free && enough(free)).then_some(used + bytes)
        };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Lets those go on whose turn it is.
    fn grant(&self) {
        loop {
            let (waiter, charge) = {
                let mut queue = lock(&self.queue);
                match queue.front() {
                    // What is more than there is at all goes alone.
                    Some(waiter) if self.take(waiter.bytes.min(self.total), |_| true) => {}
                    _ => return,
                }
                let Some(waiter) = queue.pop_front() else { return };
                self.waiting.store(queue.len(), Ordering::Release);
                let bytes = waiter.bytes.min(self.total);
                waiter.account.held.fetch_add(bytes, Ordering::AcqRel);
                let charge = Charge { account: waiter.account, bytes };
                (waiter.granted, charge)
            };
            waiter(charge);
        }
    }
}

impl Account {
    pub fn new(budget: Arc<Budget>) -> Arc<Account> {
        Arc::new(Account { budget, held: AtomicUsize::new(0) })
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Memory for a request, if the connection may have so much more now.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let held = self.held();
        if held > 0 && held + bytes > MAX_HELD || bytes > SMALL && self.budget.is_short() {
            return None;
        }
        let first = held == 0 && bytes <= POCKET;
        let reserve = self.budget.total / RESERVE;
        let fair = |free: usize| first || held + bytes <= free.saturating_sub(reserve) / SHARE;
        self.budget.take(bytes, fair).then(|| {
            self.held.fetch_add(bytes, Ordering::AcqRel);
            Charge { account: self.clone(), bytes }
        })
    }

    /// Calls `granted` with the memory once it is this one's turn to have it, maybe at once.
    pub fn wait(self: &Arc<Self>, bytes: usize, granted: impl FnOnce(Charge) + Send + 'static) {
        let budget = self.budget.clone();
        {
            let mut queue = lock(&budget.queue);
            let granted = Box::new(granted);
            queue.push_back(Waiter { account: self.clone(), bytes, granted });
            budget.waiting.store(queue.len(), Ordering::Release);
        }
        budget.grant();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::AcqRel);
        let budget = &self.account.budget;
        // Both are ordered with what `wait` and `grant` do in the opposite order.
        budget.used.fetch_sub(self.bytes, Ordering::SeqCst);
        if budget.waiting.load(Ordering::SeqCst) > 0 {
            budget.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn however_many_take_all_they_can_a_small_request_has_room() {
        let budget = Budget::new(256 << 20);
        let hogs: Vec<_> = (0..200)
            .map(|_| {
                let account = Account::new(budget.clone());
                let first = account.take(POCKET).unwrap();
                let more: Vec<_> = std::iter::from_fn(|| account.take(4096)).collect();
                (first, more)
            })
            .collect();
        let [first, second] = [0, 1].map(|i| hogs[i].1.len());
        assert!(second > first / 2 && first < (48 << 20) / 4096, "{first} {second}");
        assert!(Account::new(budget).take(POCKET).is_some());
    }

    #[test]
    fn what_is_large_waits_for_its_turn_and_has_it() {
        let budget = Budget::new(32 << 20);
        let [a, b, c] = [(); 3].map(|()| Account::new(budget.clone()));
        let held = a.take(3 << 20).unwrap();
        assert!(b.take(30 << 20).is_none());
        let (sender, granted) = channel();
        let other = sender.clone();
        b.wait(30 << 20, move |charge| sender.send(('b', charge)).unwrap());
        c.wait(100 << 20, move |charge| other.send(('c', charge)).unwrap());
        assert!(granted.try_recv().is_err() && budget.is_short());
        assert!(c.take(SMALL + 1).is_none(), "others have come before");
        assert!(c.take(SMALL).is_some());
        drop(held);
        let (who, charge) = granted.try_recv().unwrap();
        assert_eq!((who, b.held()), ('b', 30 << 20));
        assert!(granted.try_recv().is_err());
        drop(charge);
        let (who, charge) = granted.try_recv().unwrap();
        assert_eq!((who, c.held(), budget.is_short()), ('c', 32 << 20, false));
        drop(charge);
        assert_eq!((c.held(), budget.used.load(Ordering::Acquire)), (0, 0));
    }
}
