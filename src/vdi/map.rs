//! The map of an open VDI: which VDI's object each index names, as far as it is known, and who is
//! at work on which index (protocol.md 3.6, 5.4).
//!
//! The map is sparse and lazy: a page of entries is read when one of them is first needed.
//!
//! Entries are the server's stored ones: a change is made here only once the server has
//! acknowledged it. Whoever is about to change an entry holds its index exclusively, from before
//! the CREATE to after the map update: so there are never two creates of one object nor two
//! updates of one entry in flight (0.5, 3.7), and whoever writes to the object meanwhile waits,
//! and so is never told of a success that a crash could take back. In the words of 5.4: UNALLOC
//! and INHERITED are entries other than the own id; CREATING and MAPPING are such entries whose
//! index is held; OWNED is an entry equal to the own id.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use sheepdog_proto::Vid;

use crate::cluster::{Ghost, Ghosts};
use crate::exec::{WaitList, lock};

/// Entries of a page: 4 KiB on the wire, the map of 4 GiB of 4 MiB objects.
pub const PAGE: u32 = 1024;

/// The known part of a map.
#[derive(Default)]
pub struct Pages(HashMap<u32, Box<[u32]>>);

impl Pages {
    /// The entry of `index`, if its page is known.
    pub fn get(&self, index: u32) -> Option<u32> {
        self.0.get(&(index / PAGE))?.get((index % PAGE) as usize).copied()
    }

    /// Takes a page that was read, unless it is known by now, with changes made since.
    pub fn insert(&mut self, page: u32, entries: Vec<u32>) {
        self.0.entry(page).or_insert_with(|| entries.into());
    }

    /// Notes a change that the server has stored.
    pub fn set(&mut self, index: u32, value: u32) {
        if let Some(page) = self.0.get_mut(&(index / PAGE)) {
            page[(index % PAGE) as usize] = value;
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Indexes whose own object is on its way out, or may be, each with the number of its discard:
/// an object that is gone says nothing of one that was discarded later.
#[derive(Default)]
pub struct Removing {
    discards: HashMap<u32, u64>,
    last: u64,
}

impl Removing {
    pub fn add(&mut self, index: u32) {
        self.last += 1;
        self.discards.insert(index, self.last);
    }

    /// The discard of an index that is not known to be over.
    pub fn get(&self, index: u32) -> Option<u64> {
        self.discards.get(&index).copied()
    }

    /// The object of this discard is gone.
    pub fn gone(&mut self, index: u32, discard: u64) {
        if self.get(index) == Some(discard) {
            self.discards.remove(&index);
        }
    }

    pub fn indexes(&self) -> Vec<u32> {
        let mut indexes: Vec<u32> = self.discards.keys().copied().collect();
        indexes.sort_unstable();
        indexes
    }

    pub fn clear(&mut self) {
        self.discards.clear();
    }
}

/// Locks of single indexes: shared by writers of an owned object, exclusive for whoever changes
/// the entry.
#[derive(Default)]
pub struct IndexLocks(Mutex<HashMap<u32, Busy>>);

/// An index that somebody is at work on, or was. No entry: nobody, and nothing left behind.
#[derive(Default)]
struct Busy {
    sharers: usize,
    exclusive: bool,
    waiters: WaitList,
    /// Requests that were given up and that a server may still execute.
    ghosts: Vec<Ghost>,
    /// An update of the entry was given up: the stored entry may be another.
    doubtful: bool,
}

/// A held index.
pub struct IndexHold<'a> {
    locks: &'a IndexLocks,
    pub index: u32,
    exclusive: bool,
    /// What earlier holders left behind; taken up by this one.
    pub inherited_ghosts: Vec<Ghost>,
    /// The stored entry must be read before anything is done: an update of it was given up.
    pub doubtful: bool,
    /// Collects the requests of this holder that are given up.
    pub ghosts: Ghosts,
}

impl IndexLocks {
    pub async fn shared(&self, index: u32) -> IndexHold<'_> {
        self.acquire(index, false).await
    }

    pub async fn exclusive(&self, index: u32) -> IndexHold<'_> {
        self.acquire(index, true).await
    }

    /// Indexes where something was left behind that must be cleared up.
    pub fn uncleared(&self) -> Vec<u32> {
        let table = lock(&self.0);
        let left = table.iter().filter(|(_, busy)| busy.doubtful || !busy.ghosts.is_empty());
        let mut indexes: Vec<u32> = left.map(|(index, _)| *index).collect();
        indexes.sort_unstable();
        indexes
    }

    /// Takes everything that was left behind, where nobody is at work any more.
    pub fn take_ghosts(&self) -> Vec<Ghost> {
        lock(&self.0).drain().flat_map(|(_, busy)| busy.ghosts).collect()
    }

    async fn acquire(&self, index: u32, exclusive: bool) -> IndexHold<'_> {
        poll_fn(|cx| {
            let mut table = lock(&self.0);
            let busy = table.entry(index).or_default();
            // What was left behind is cleared up by one holder, while nobody else is there.
            let exclusive = exclusive || busy.doubtful || !busy.ghosts.is_empty();
            if busy.exclusive || exclusive && busy.sharers > 0 {
                busy.waiters.register(cx);
                return Poll::Pending;
            }
            if exclusive {
                busy.exclusive = true;
            } else {
                busy.sharers += 1;
            }
            Poll::Ready(IndexHold {
                locks: self,
                index,
                exclusive,
                inherited_ghosts: std::mem::take(&mut busy.ghosts),
                doubtful: std::mem::take(&mut busy.doubtful),
                ghosts: Ghosts::default(),
            })
        })
        .await
    }
}

impl IndexHold<'_> {
    /// Whether earlier holders left something behind.
    pub fn needs_clearing(&self) -> bool {
        self.doubtful || !self.inherited_ghosts.is_empty()
    }

    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

impl Drop for IndexHold<'_> {
    fn drop(&mut self) {
        let wakers = {
            let mut table = lock(&self.locks.0);
            let Some(busy) = table.get_mut(&self.index) else { return };
            if self.exclusive {
                busy.exclusive = false;
            } else {
                busy.sharers -= 1;
            }
            busy.ghosts.append(&mut self.inherited_ghosts);
            busy.ghosts.append(&mut self.ghosts.take());
            busy.doubtful |= self.doubtful;
            let wakers = busy.waiters.take();
            let idle = !busy.exclusive && busy.sharers == 0;
            if idle && busy.ghosts.is_empty() && !busy.doubtful {
                table.remove(&self.index);
            }
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Counts the operations that may change a VDI, from their first piece to their last.
#[derive(Default)]
pub struct Changes(Mutex<(usize, WaitList)>);

/// An operation under way.
pub struct Change<'a>(&'a Changes);

impl Changes {
    pub fn begin(&self) -> Change<'_> {
        lock(&self.0).0 += 1;
        Change(self)
    }

    /// Waits until none is under way.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            let (count, waiters) = &mut *lock(&self.0);
            if *count == 0 {
                return Poll::Ready(());
            }
            waiters.register(cx);
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let wakers = {
            let (count, waiters) = &mut *lock(&self.0.0);
            *count -= 1;
            if *count == 0 { waiters.take() } else { Vec::new() }
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Who may change a VDI: many writers at a time, or one operation that needs them to stand still.
#[derive(Default)]
pub struct Gate(Mutex<GateState>);

#[derive(Default)]
struct GateState {
    writers: usize,
    closed: bool,
    /// Operations that wait to close the gate: no new writers meanwhile.
    closing: usize,
    waiters: WaitList,
}

/// A writer's pass.
pub struct Pass<'a>(&'a Gate);

/// The gate is closed: no writer is under way.
pub struct Quiet<'a>(&'a Gate);

impl Gate {
    pub async fn pass(&self) -> Pass<'_> {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.closed || state.closing > 0 {
                state.waiters.register(cx);
                return Poll::Pending;
            }
            state.writers += 1;
            Poll::Ready(Pass(self))
        })
        .await
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

/// The VDI that a stored map entry names; None where it names none.
pub fn owner(entry: u32) -> Result<Option<Vid>, crate::error::Error> {
    let vid = Vid::new(entry).ok_or(crate::error::Error::Io("a map entry that is no VDI id"))?;
    Ok((!vid.is_none()).then_some(vid))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

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
            self.count.0.store(0, Ordering::Relaxed);
            let waker = Waker::from(self.count.clone());
            match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }

        fn is_woken(&self) -> bool {
            self.count.0.load(Ordering::Relaxed) > 0
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

    fn names(ghosts: &[Ghost]) -> Vec<String> {
        ghosts.iter().map(|ghost| format!("{ghost:?}")).collect()
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
    fn what_a_holder_leaves_behind_goes_to_one_exclusive_holder() {
        let locks = IndexLocks::default();
        let ghosts = [Ghost::numbered(1), Ghost::numbered(2)];
        let (mut a, mut b) = (at_once(locks.shared(7)), at_once(locks.shared(7)));
        a.inherited_ghosts.push(ghosts[0]);
        a.doubtful = true;
        b.inherited_ghosts.push(ghosts[1]);
        drop(a);
        assert_eq!(locks.uncleared(), [7]);
        let mut next = [Waiting::new(locks.shared(7)), Waiting::new(locks.shared(7))];
        assert!(next[0].now().is_none(), "it must be alone with them");
        assert!(next[1].now().is_none());
        drop(b);
        let mut heir = next[0].if_woken().unwrap();
        assert!(heir.is_exclusive() && heir.doubtful);
        assert_eq!(names(&heir.inherited_ghosts), names(&ghosts));
        heir.doubtful = false;
        assert!(next[1].if_woken().is_none() && locks.uncleared().is_empty());
        // It clears up one and gives up before the other is over.
        heir.inherited_ghosts.remove(0);
        drop(heir);
        let mut heir = next[1].if_woken().unwrap();
        assert!(heir.is_exclusive());
        assert_eq!(names(&heir.inherited_ghosts), names(&ghosts[1..]));
        heir.inherited_ghosts.clear();
        drop(heir);
        assert!(is_idle(&locks));
        assert!(!at_once(locks.shared(7)).is_exclusive());
    }

    #[test]
    fn doubt_stays_until_a_holder_resolves_it() {
        let locks = IndexLocks::default();
        at_once(locks.exclusive(3)).doubtful = true;
        assert_eq!(locks.uncleared(), [3]);
        let hold = at_once(locks.shared(3));
        assert!(hold.doubtful && hold.is_exclusive());
        drop(hold);
        let mut hold = at_once(locks.exclusive(3));
        assert!(hold.doubtful);
        hold.doubtful = false;
        drop(hold);
        assert!(is_idle(&locks) && locks.uncleared().is_empty());
        assert!(!at_once(locks.shared(3)).doubtful);
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

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Acquire { index: u32, exclusive: bool },
        Drop { which: usize, leave_ghost: bool, leave_doubt: bool },
        GiveUp(usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..3u32, any::<bool>())
                .prop_map(|(index, exclusive)| Step::Acquire { index, exclusive }),
            4 => (0..100usize, prop::bool::weighted(0.3), prop::bool::weighted(0.2)).prop_map(
                |(which, leave_ghost, leave_doubt)| Step::Drop { which, leave_ghost, leave_doubt }
            ),
            1 => (0..100usize).prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn locks_exclude_and_lose_nothing_in_any_schedule(schedule in vec(steps(), 0..80)) {
            let locks = IndexLocks::default();
            let (mut held, mut waiting) = (Vec::<IndexHold<'_>>::new(), Vec::new());
            let (mut left, mut ghosts, mut doubts) = ([0usize; 3], 0, [false; 3]);
            for step in schedule {
                match step {
                    Step::Acquire { index, exclusive } => {
                        let mut future = match exclusive {
                            true => Waiting::new(locks.exclusive(index)),
                            false => Waiting::new(locks.shared(index)),
                        };
                        match future.now() {
                            Some(hold) => held.push(hold),
                            None => waiting.push(future),
                        }
                    }
                    Step::Drop { which, leave_ghost, leave_doubt } if !held.is_empty() => {
                        let mut hold = held.swap_remove(which % held.len());
                        let index = hold.index as usize;
                        if hold.is_exclusive() {
                            prop_assert_eq!(hold.inherited_ghosts.len(), left[index]);
                            prop_assert_eq!(hold.doubtful, doubts[index]);
                            hold.inherited_ghosts.clear();
                            (left[index], doubts[index]) = (0, leave_doubt);
                            hold.doubtful = leave_doubt;
                        } else {
                            prop_assert!(hold.inherited_ghosts.is_empty() && !hold.doubtful);
                        }
                        if leave_ghost {
                            ghosts += 1;
                            hold.inherited_ghosts.push(Ghost::numbered(ghosts));
                            left[index] += 1;
                        }
                    }
                    Step::GiveUp(which) if !waiting.is_empty() => {
                        waiting.swap_remove(which % waiting.len());
                    }
                    _ => {}
                }
                // Those who were woken look again, and whoever could go on was woken.
                let mut still = Vec::new();
                for mut future in waiting {
                    match future.if_woken() {
                        Some(hold) => held.push(hold),
                        None => still.push(future),
                    }
                }
                waiting = still;
                for future in &waiting {
                    prop_assert!(!future.is_woken());
                }
                for index in 0..3 {
                    let holds = held.iter().filter(|hold| hold.index == index);
                    let exclusive = holds.clone().filter(|hold| hold.is_exclusive()).count();
                    prop_assert!(exclusive == 0 || holds.count() == 1);
                }
                if held.is_empty() {
                    prop_assert!(waiting.is_empty(), "somebody waits for nobody");
                }
            }
            drop(held);
            drop(waiting);
            for index in 0..3u32 {
                let mut hold = at_once(locks.exclusive(index));
                prop_assert!(hold.inherited_ghosts.len() == left[index as usize]);
                prop_assert_eq!(hold.doubtful, doubts[index as usize]);
                hold.inherited_ghosts.clear();
                hold.doubtful = false;
            }
            prop_assert!(is_idle(&locks));
        }
    }

    #[test]
    fn a_closing_gate_waits_for_its_writers_and_keeps_others_out() {
        let gate = Gate::default();
        let (a, b) = (at_once(gate.pass()), at_once(gate.pass()));
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
        drop(late.if_woken().unwrap());
        at_once(gate.close());
    }

    #[test]
    fn operations_on_the_gate_that_are_given_up_leave_nothing() {
        let gate = Gate::default();
        let writer = at_once(gate.pass());
        let mut close = Waiting::new(gate.close());
        let mut pass = Waiting::new(gate.pass());
        let mut other = Waiting::new(gate.pass());
        assert!(close.now().is_none() && pass.now().is_none() && other.now().is_none());
        drop(other);
        drop(close);
        drop(pass.if_woken().unwrap());
        drop(writer);
        // Given up before its first poll, it has not wished for anything.
        drop(gate.close());
        at_once(gate.pass());
        drop(at_once(gate.close()));
        let state = lock(&gate.0);
        assert!(state.writers == 0 && !state.closed && state.closing == 0);
    }

    #[test]
    fn a_page_that_is_known_is_not_replaced_by_an_older_copy() {
        let mut pages = Pages::default();
        pages.set(PAGE + 1, 5);
        assert_eq!(pages.get(PAGE + 1), None, "of an unknown page nothing is known");
        pages.insert(1, vec![0; PAGE as usize]);
        pages.set(PAGE + 1, 7);
        pages.insert(1, vec![0; PAGE as usize]);
        assert_eq!((pages.get(PAGE), pages.get(PAGE + 1)), (Some(0), Some(7)));
        assert_eq!(pages.get(PAGE - 1), None);
        pages.clear();
        assert_eq!(pages.get(PAGE), None);
    }

    #[test]
    fn a_map_entry_past_the_vdi_ids_is_refused() {
        assert!(owner(0).unwrap().is_none());
        assert_eq!(owner(0xff_ffff).unwrap().map(Vid::get), Some(0xff_ffff));
        assert!(owner(0x0100_0000).is_err());
    }
}
