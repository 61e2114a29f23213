//! Which requests a ring has taken and not answered yet, in memory that the frontend keeps: a server
//! that comes after one that was killed does those again, and no others. Knows what it notes and in
//! what order, and nothing of what is done.
//!
//! The layout and the order of the steps are those of the vhost-user specification, "Inflight I/O
//! tracking", for split virtqueues: for each queue sixteen bytes, and sixteen for each descriptor.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicInteger, FileOffset, MmapRegion, VolatileMemory};

const VERSION: u16 = 1;

// Of a queue.
const VERSION_AT: usize = 8;
const SIZE_AT: usize = 10;
const LAST_AT: usize = 12;
const USED_AT: usize = 14;
const HEADER_LEN: usize = 16;
// Of a descriptor.
const TAKEN_AT: usize = 0;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;
const ENTRY_LEN: usize = 16;

/// Bytes of one queue.
fn queue_len(queue_size: u16) -> usize {
    (HEADER_LEN + ENTRY_LEN * usize::from(queue_size)).next_multiple_of(64)
}

/// The memory of all queues.
#[derive(Clone)]
pub struct Area {
    region: Arc<MmapRegion>,
    queues: usize,
    queue_size: u16,
}

/// What one ring notes in it.
pub struct Notes {
    area: Area,
    at: usize,
    /// Of the next request: they are done again in their order.
    counter: u64,
}

/// Memory for `queues` queues, and how the frontend has it.
pub fn create(queues: u16, queue_size: u16) -> rustix::io::Result<(VhostUserInflight, File)> {
    let len = (queue_len(queue_size) * usize::from(queues)) as u64;
    let memory: OwnedFd = memfd_create("inflight", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, len)?;
    Ok((VhostUserInflight::new(len, 0, queues, queue_size), memory.into()))
}

impl Area {
    /// What the frontend has kept; None where it is not as this says.
    pub fn map(what: &VhostUserInflight, file: File) -> Option<Area> {
        let (queues, queue_size) = (usize::from(what.num_queues), what.queue_size);
        let len = queue_len(queue_size) * queues;
        let there = file.metadata().ok()?.len();
        let is_there = what.mmap_offset.checked_add(len as u64)? <= there;
        if (len as u64) > what.mmap_size || !is_there {
            return None;
        }
        let region = MmapRegion::from_file(FileOffset::new(file, what.mmap_offset), len).ok()?;
        Some(Area { region: Arc::new(region), queues, queue_size })
    }

    /// Those of a ring of so many descriptors; None where it has no room there.
    pub fn notes(&self, index: usize, queue_size: u16) -> Option<Notes> {
        if index >= self.queues || queue_size > self.queue_size {
            return None;
        }
        let at = index * queue_len(self.queue_size);
        let notes = Notes { area: self.clone(), at, counter: 0 };
        if notes.get::<AtomicU16>(VERSION_AT) == 0 {
            notes.set::<AtomicU16>(SIZE_AT, self.queue_size);
            notes.set::<AtomicU16>(VERSION_AT, VERSION);
        }
        (notes.get::<AtomicU16>(VERSION_AT) == VERSION).then_some(notes)
    }
}

impl Notes {
    fn get<A: AtomicInteger>(&self, at: usize) -> A::V {
        self.word::<A>(at).load(Ordering::Acquire)
    }

    fn set<A: AtomicInteger>(&self, at: usize, value: A::V) {
        self.word::<A>(at).store(value, Ordering::Release);
    }

    fn word<A: AtomicInteger>(&self, at: usize) -> &A {
        let word = self.area.region.get_atomic_ref(self.at + at);
        word.expect("the area has room for its queues, at multiples of their size")
    }

    fn entry(&self, head: u16, at: usize) -> usize {
        HEADER_LEN + ENTRY_LEN * usize::from(head) + at
    }

    fn has(&self, head: u16) -> bool {
        head < self.area.queue_size
    }

    /// What the last server has left, where the ring's index of used descriptors is `used`: heads of
    /// chains, in the order in which they were taken.
    pub fn unfinished(&mut self, used: u16) -> Vec<u16> {
        // It may have ended after it had told the guest, and before it had noted that.
        let told = used.wrapping_sub(self.get::<AtomicU16>(USED_AT));
        let mut head = self.get::<AtomicU16>(LAST_AT);
        for _ in 0..told.min(self.area.queue_size) {
            if !self.has(head) {
                break;
            }
            self.set::<AtomicU8>(self.entry(head, TAKEN_AT), 0);
            head = self.get::<AtomicU16>(self.entry(head, NEXT_AT));
        }
        self.set::<AtomicU16>(USED_AT, used);
        let taken = |head: &u16| self.get::<AtomicU8>(self.entry(*head, TAKEN_AT)) != 0;
        let mut heads: Vec<u16> = (0..self.area.queue_size).filter(taken).collect();
        let counter = |head: &u16| self.get::<AtomicU64>(self.entry(*head, COUNTER_AT));
        heads.sort_by_key(counter);
        self.counter = heads.last().map_or(0, |head| counter(head).wrapping_add(1));
        heads
    }

    /// A request is taken: before anything is done of it.
    pub fn take(&mut self, head: u16) {
        if self.has(head) {
            self.set::<AtomicU64>(self.entry(head, COUNTER_AT), self.counter);
            self.set::<AtomicU8>(self.entry(head, TAKEN_AT), 1);
            self.counter = self.counter.wrapping_add(1);
        }
    }

    /// The guest is about to be told of its end.
    pub fn finish(&mut self, head: u16) {
        if self.has(head) {
            let last = self.get::<AtomicU16>(LAST_AT);
            self.set::<AtomicU16>(self.entry(head, NEXT_AT), last);
            self.set::<AtomicU16>(LAST_AT, head);
        }
    }

    /// It has been told: the ring's index of used descriptors is `used` now.
    pub fn told(&mut self, head: u16, used: u16) {
        if self.has(head) {
            self.set::<AtomicU8>(self.entry(head, TAKEN_AT), 0);
        }
        self.set::<AtomicU16>(USED_AT, used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u16; 0] = [];

    fn area() -> (Area, impl Fn() -> Area) {
        let (what, file) = create(2, 8).unwrap();
        let again = file.try_clone().unwrap();
        let kept = what;
        let map = move || Area::map(&kept, again.try_clone().unwrap()).unwrap();
        (Area::map(&what, file).unwrap(), map)
    }

    #[test]
    fn what_was_taken_and_not_told_is_unfinished_in_its_order() {
        let (area, again) = area();
        let mut notes = area.notes(1, 8).unwrap();
        assert_eq!(notes.unfinished(0), NONE);
        for head in [5, 2, 7, 0] {
            notes.take(head);
        }
        notes.finish(2);
        notes.told(2, 1);
        let mut later = again().notes(1, 8).unwrap();
        assert_eq!(later.unfinished(1), [5, 7, 0]);
        assert_eq!(again().notes(0, 8).unwrap().unfinished(0), NONE, "another ring");
        // And so does the one after that, with what came in between.
        later.take(1);
        assert_eq!(again().notes(1, 8).unwrap().unfinished(1), [5, 7, 0, 1]);
    }

    #[test]
    fn what_the_guest_was_told_of_is_finished_though_it_was_not_noted() {
        let (area, again) = area();
        let mut notes = area.notes(0, 8).unwrap();
        notes.take(3);
        notes.take(4);
        notes.finish(3);
        // Killed before the guest could know of it, or just after.
        assert_eq!(again().notes(0, 8).unwrap().unfinished(0), [3, 4]);
        assert_eq!(again().notes(0, 8).unwrap().unfinished(1), [4]);
    }

    #[test]
    fn an_area_that_is_not_as_it_is_said_to_be_is_refused() {
        let (what, file) = create(2, 8).unwrap();
        let larger = VhostUserInflight { queue_size: 64, ..what };
        assert!(Area::map(&larger, file.try_clone().unwrap()).is_none());
        let further = VhostUserInflight { mmap_offset: 4096, ..what };
        assert!(Area::map(&further, file.try_clone().unwrap()).is_none());
        let area = Area::map(&what, file).unwrap();
        assert!(area.notes(2, 8).is_none() && area.notes(0, 16).is_none());
    }
}
