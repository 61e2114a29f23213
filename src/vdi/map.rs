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
        left.map(|(index, _)| *index).collect()
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
