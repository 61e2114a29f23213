//! Who may be at work, and who waits for that: the locks of single indexes, and a gate that many pass
//! and one can close. Given up like any wait, by dropping its future.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::{WaitList, lock};
use crate::sync::Mutex;

/// Locks of single indexes: shared by writers of an owned object, exclusive for whoever changes
/// the entry. Nobody passes another who waits: else writers that follow each other would keep one
/// who needs the index alone out for ever. So whoever holds an index must not wait for it again.
#[derive(Default)]
pub struct IndexLocks(Mutex<BTreeMap<u32, Busy>>);

/// An index that somebody is at work on, or waits for. No entry: nobody.
#[derive(Default)]
struct Busy {
    sharers: usize,
    exclusive: bool,
    /// In the order of their tickets. The first one has been woken if it can go on.
    queue: VecDeque<Waiter>,
}

struct Waiter {
    ticket: u64,
    exclusive: bool,
    waker: Waker,
}

/// A held index.
pub struct IndexHold<'a> {
    locks: &'a IndexLocks,
    pub index: u32,
    exclusive: bool,
}

/// A wish to hold an index, also given up when its operation is.
struct Wish<'a> {
    locks: &'a IndexLocks,
    index: u32,
    exclusive: bool,
    /// While it is in the queue.
    ticket: Option<u64>,
}

impl Busy {
    fn has_room(&self, exclusive: bool) -> bool {
        !self.exclusive && (!exclusive || self.sharers == 0)
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }

    /// Who is to be woken after a change. One is enough: who goes on by it makes the next change.
    fn next(&self) -> Option<Waker> {
        let first = self.queue.front().filter(|waiter| self.has_room(waiter.exclusive));
        first.map(|waiter| waiter.waker.clone())
    }
}

impl IndexLocks {
    pub async fn shared(&self, index: u32) -> IndexHold<'_> {
        self.acquire(index, false).await
    }

    pub async fn exclusive(&self, index: u32) -> IndexHold<'_> {
        self.acquire(index, true).await
    }

    async fn acquire(&self, index: u32, exclusive: bool) -> IndexHold<'_> {
        let mut wish = Wish { locks: self, index, exclusive, ticket: None };
        poll_fn(|cx| wish.poll(cx)).await;
        IndexHold { locks: self, index, exclusive }
    }

    /// Makes a change that somebody who waits may go on by.
    fn change(&self, index: u32, f: impl FnOnce(&mut Busy)) {
        let next = {
            let mut table = lock(&self.0);
            let Entry::Occupied(mut entry) = table.entry(index) else { return };
            let busy = entry.get_mut();
            f(busy);
            let next = busy.next();
            if busy.has_room(true) && busy.queue.is_empty() {
                entry.remove();
            }
            next
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl Wish<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let next = {
            let mut table = lock(&self.locks.0);
            let busy = table.entry(self.index).or_default();
            // Without a ticket it is the first where nobody has one.
            let is_first = busy.queue.front().map(|waiter| waiter.ticket) == self.ticket;
            if !is_first || !busy.has_room(self.exclusive) {
                self.wait(busy, cx);
                return Poll::Pending;
            }
            if self.ticket.take().is_some() {
                busy.queue.pop_front();
            }
            match self.exclusive {
                true => busy.exclusive = true,
                false => busy.sharers += 1,
            }
            busy.next()
        };
        if let Some(waker) = next {
            waker.wake();
        }
        Poll::Ready(())
    }

    fn wait(&mut self, busy: &mut Busy, cx: &Context<'_>) {
        if let Some(at) = self.ticket.and_then(|ticket| busy.position(ticket)) {
            busy.queue[at].waker.clone_from(cx.waker());
            return;
        }
        let ticket = busy.queue.back().map_or(0, |last| last.ticket + 1);
        let (exclusive, waker) = (self.exclusive, cx.waker().clone());
        busy.queue.push_back(Waiter { ticket, exclusive, waker });
        self.ticket = Some(ticket);
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.locks.change(self.index, |busy| {
            busy.position(ticket).map(|at| busy.queue.remove(at));
        });
    }
}

impl IndexHold<'_> {
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

impl Drop for IndexHold<'_> {
    fn drop(&mut self) {
        self.locks.change(self.index, |busy| match self.exclusive {
            true => busy.exclusive = false,
            false => busy.sharers -= 1,
        });
    }
}

/// Who may be at work: many at a time, or one who needs them to stand still.
#[derive(Default)]
pub struct Gate(Mutex<GateState>);

#[derive(Default)]
struct GateState {
    writers: usize,
    closed: bool,
    /// For ever: no more writers.
    shut: bool,
    /// Operations that wait to close the gate: no new writers meanwhile.
    closing: usize,
    waiters: WaitList,
}

/// A writer's pass.
pub struct Pass<'a>(&'a Gate);

/// The gate is closed: no writer is under way.
pub struct Quiet<'a>(&'a Gate);

impl Gate {
    /// None where the gate is shut.
    pub async fn pass(&self) -> Option<Pass<'_>> {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.shut {
                return Poll::Ready(None);
            }
            if state.closed || state.closing > 0 {
                state.waiters.register(cx);
                return Poll::Pending;
            }
            state.writers += 1;
            Poll::Ready(Some(Pass(self)))
        })
        .await
    }

    /// Lets nobody in any more.
    pub fn shut(&self) {
        self.change(|state| state.shut = true);
    }

    /// Waits for the writers under way, and keeps others out.
    pub async fn close(&self) -> Quiet<'_> {
        let intent = Intent::new(self);
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.closed || state.writers > 0 {
                state.waiters.register(cx);
                return Poll::Pending;
            }
            state.closed = true;
            Poll::Ready(())
        })
        .await;
        drop(intent);
        Quiet(self)
    }

    fn change(&self, f: impl FnOnce(&mut GateState)) {
        let wakers = {
            let mut state = lock(&self.0);
            f(&mut state);
            state.waiters.take()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.writers -= 1);
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.closed = false);
    }
}

/// The wish to close the gate, also given up when its operation is.
struct Intent<'a>(&'a Gate);

impl Intent<'_> {
    fn new(gate: &Gate) -> Intent<'_> {
        lock(&gate.0).closing += 1;
        Intent(gate)
    }
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.closing -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::exec::count::Count;

    /// A future in the middle of an operation, which only goes on when it is woken.
    struct Waiting<'a, T> {
        future: Pin<Box<dyn Future<Output = T> + 'a>>,
        count: Arc<Count>,
    }

    impl<'a, T> Waiting<'a, T> {
        fn new(future: impl Future<Output = T> + 'a) -> Waiting<'a, T> {
            Waiting { future: Box::pin(future), count: Arc::default() }
        }

        /// What it gives, polled now; None where it waits.
        fn now(&mut self) -> Option<T> {
            self.count.take();
            let waker = Waker::from(self.count.clone());
            match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }

        fn is_woken(&self) -> bool {
            self.count.get() > 0
        }

        /// What it gives if it is polled for being woken, and only for that.
        fn if_woken(&mut self) -> Option<T> {
            if self.is_woken() { self.now() } else { None }
        }
    }

    /// What the future gives at once.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn is_idle(locks: &IndexLocks) -> bool {
        lock(&locks.0).is_empty()
    }

    #[test]
    fn sharers_share_and_an_exclusive_holder_is_alone() {
        let locks = IndexLocks::default();
        let (a, b) = (at_once(locks.shared(1)), at_once(locks.shared(1)));
        assert!(!a.is_exclusive() && !b.is_exclusive());
        let mut exclusive = Waiting::new(locks.exclusive(1));
        assert!(exclusive.now().is_none());
        at_once(locks.exclusive(2));
        drop(a);
        assert!(exclusive.if_woken().is_none(), "another still shares");
        drop(b);
        let hold = exclusive.if_woken().unwrap();
        assert!(hold.is_exclusive());
        let (mut shared, mut second) =
            (Waiting::new(locks.shared(1)), Waiting::new(locks.exclusive(1)));
        assert!(shared.now().is_none() && second.now().is_none());
        drop(hold);
        let hold = shared.if_woken().unwrap();
        assert!(second.if_woken().is_none());
        drop(hold);
        drop(second.if_woken().unwrap());
        assert!(is_idle(&locks));
    }

    #[test]
    fn a_waiter_that_is_dropped_holds_nothing_up() {
        let locks = IndexLocks::default();
        let hold = at_once(locks.exclusive(1));
        let mut gone = Waiting::new(locks.exclusive(1));
        let mut stays = Waiting::new(locks.exclusive(1));
        assert!(gone.now().is_none() && stays.now().is_none());
        drop(gone);
        drop(hold);
        drop(stays.if_woken().unwrap());
        assert!(is_idle(&locks));
    }

    #[test]
    fn nobody_passes_one_who_waits_to_be_alone() {
        let locks = IndexLocks::default();
        let early = at_once(locks.shared(1));
        let mut alone = Waiting::new(locks.exclusive(1));
        assert!(alone.now().is_none());
        let (mut late, mut later) = (Waiting::new(locks.shared(1)), Waiting::new(locks.shared(1)));
        assert!(late.now().is_none() && later.now().is_none());
        drop(early);
        let hold = alone.if_woken().unwrap();
        assert!(late.if_woken().is_none() && later.if_woken().is_none());
        drop(hold);
        let holds = (late.if_woken().unwrap(), later.if_woken().unwrap());
        drop(holds);
        assert!(is_idle(&locks));
    }

    #[test]
    fn who_gives_up_lets_those_behind_go_on() {
        for is_woken in [false, true] {
            let locks = IndexLocks::default();
            let hold = at_once(locks.shared(1));
            let mut alone = Waiting::new(locks.exclusive(1));
            let mut late = Waiting::new(locks.shared(1));
            assert!(alone.now().is_none() && late.now().is_none());
            let hold = Some(hold).filter(|_| !is_woken);
            assert_eq!(alone.is_woken(), is_woken);
            drop(alone);
            drop(late.if_woken().unwrap());
            drop(hold);
            assert!(is_idle(&locks));
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Acquire {
            index: u32,
            exclusive: bool,
        },
        Drop(usize),
        GiveUp(usize),
        /// As one that is polled for another reason than that it can go on.
        Poll(usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..3u32, any::<bool>())
                .prop_map(|(index, exclusive)| Step::Acquire { index, exclusive }),
            4 => (0..100usize).prop_map(Step::Drop),
            1 => (0..100usize).prop_map(Step::GiveUp),
            1 => (0..100usize).prop_map(Step::Poll),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// The model: of each index those who hold it, and those who wait, in the order in which
        /// they came.
        #[test]
        fn locks_exclude_and_are_given_in_order_in_any_schedule(schedule in vec(steps(), 0..80)) {
            let locks = IndexLocks::default();
            let mut held = Vec::<IndexHold<'_>>::new();
            let mut waiting = Vec::<(u32, bool, Waiting<'_, IndexHold<'_>>)>::new();
            for step in schedule {
                match step {
                    Step::Acquire { index, exclusive } => {
                        let mut future = match exclusive {
                            true => Waiting::new(locks.exclusive(index)),
                            false => Waiting::new(locks.shared(index)),
                        };
                        let mut before = waiting.iter().map(|(index, ..)| *index);
                        let is_first = !before.any(|other| other == index);
                        match future.now() {
                            Some(hold) => {
                                prop_assert!(is_first, "somebody was passed");
                                held.push(hold);
                            }
                            None => waiting.push((index, exclusive, future)),
                        }
                    }
                    Step::Drop(which) if !held.is_empty() => {
                        held.swap_remove(which % held.len());
                    }
                    Step::GiveUp(which) if !waiting.is_empty() => {
                        waiting.remove(which % waiting.len());
                    }
                    Step::Poll(which) if !waiting.is_empty() => {
                        let at = which % waiting.len();
                        prop_assert!(waiting[at].2.now().is_none(), "it was not woken");
                    }
                    _ => {}
                }
                // Those who were woken look again.
                while let Some(at) = waiting.iter().position(|(.., future)| future.is_woken()) {
                    let index = waiting[at].0;
                    let first = waiting.iter().position(|(other, ..)| *other == index);
                    prop_assert_eq!(first, Some(at), "somebody is passed");
                    let (.., mut future) = waiting.remove(at);
                    let hold = future.now();
                    prop_assert!(hold.is_some(), "woken for nothing");
                    held.extend(hold);
                }
                for index in 0..3 {
                    let holds = held.iter().filter(|hold| hold.index == index);
                    let (all, alone) =
                        (holds.clone().count(), holds.filter(|hold| hold.is_exclusive()).count());
                    prop_assert!(alone == 0 || all == 1);
                    // Whoever could go on was woken.
                    let first = waiting.iter().find(|(other, ..)| *other == index);
                    let waits_for =
                        |exclusive: bool| if exclusive { all > 0 } else { alone > 0 };
                    prop_assert!(first.is_none_or(|(_, exclusive, _)| waits_for(*exclusive)));
                }
            }
            drop(held);
            drop(waiting);
            prop_assert!(is_idle(&locks));
        }
    }

    #[test]
    fn a_closing_gate_waits_for_its_writers_and_keeps_others_out() {
        let gate = Gate::default();
        let (a, b) = (at_once(gate.pass()).unwrap(), at_once(gate.pass()).unwrap());
        let mut close = Waiting::new(gate.close());
        assert!(close.now().is_none());
        let mut late = Waiting::new(gate.pass());
        assert!(late.now().is_none(), "new writers would keep it open for ever");
        drop(a);
        assert!(close.if_woken().is_none());
        drop(b);
        let quiet = close.if_woken().unwrap();
        assert!(late.if_woken().is_none());
        let mut second = Waiting::new(gate.close());
        assert!(second.now().is_none(), "one at a time");
        drop(quiet);
        let quiet = second.if_woken().unwrap();
        assert!(late.if_woken().is_none());
        drop(quiet);
        drop(late.if_woken().unwrap().unwrap());
        at_once(gate.close());
    }

    #[test]
    fn operations_on_the_gate_that_are_given_up_leave_nothing() {
        let gate = Gate::default();
        let writer = at_once(gate.pass()).unwrap();
        let mut close = Waiting::new(gate.close());
        let mut pass = Waiting::new(gate.pass());
        let mut other = Waiting::new(gate.pass());
        assert!(close.now().is_none() && pass.now().is_none() && other.now().is_none());
        drop(other);
        drop(close);
        drop(pass.if_woken().unwrap().unwrap());
        drop(writer);
        // Given up before its first poll, it has not wished for anything.
        drop(gate.close());
        at_once(gate.pass()).unwrap();
        drop(at_once(gate.close()));
        let state = lock(&gate.0);
        assert!(state.writers == 0 && !state.closed && state.closing == 0);
    }

    #[test]
    fn a_gate_that_is_shut_lets_nobody_in_and_those_inside_out() {
        let gate = Gate::default();
        let writer = at_once(gate.pass()).unwrap();
        let mut close = Waiting::new(gate.close());
        assert!(close.now().is_none());
        let mut late = Waiting::new(gate.pass());
        assert!(late.now().is_none());
        gate.shut();
        assert!(late.if_woken().unwrap().is_none() && at_once(gate.pass()).is_none());
        drop(writer);
        drop(close.if_woken().unwrap());
    }
}
