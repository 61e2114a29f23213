//! What there should be: VDIs and snapshots as vectors of bytes, and whose objects they share.
//!
//! Knows what the operations mean; calls nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::api::{Extent, Info, Which};

/// A working VDI or a snapshot.
#[derive(Clone)]
pub struct Inode {
    /// A number of its own: that of the inode which made an object is the object's.
    pub owner: u32,
    pub snap_id: u32,
    /// Empty: a working VDI.
    pub tag: &'static str,
    pub object_size: u64,
    /// Whose object each index has.
    pub map: Vec<Option<u32>>,
    pub data: Vec<u8>,
}

impl Inode {
    pub fn new(owner: u32, snap_id: u32, size: u64, object_size: u64, prealloc: bool) -> Inode {
        let map = vec![prealloc.then_some(owner); size.div_ceil(object_size) as usize];
        Inode { owner, snap_id, tag: "", object_size, map, data: vec![0; size as usize] }
    }

    /// How a function is told that this snapshot is meant.
    pub fn which(&self, by_tag: bool) -> Which<'static> {
        if by_tag { Which::Tag(self.tag) } else { Which::Id(self.snap_id) }
    }

    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// A working VDI that starts as a copy.
    pub fn derive(&self, owner: u32, snap_id: u32) -> Inode {
        Inode { owner, snap_id, tag: "", ..self.clone() }
    }

    /// A range cut to what fits.
    pub fn clip(&self, at: u64, len: u64) -> Range<u64> {
        let at = if at > self.size() { at % (self.size() + 1) } else { at };
        at..at + len.min(self.size() - at)
    }

    pub fn bytes(&self, range: &Range<u64>) -> &[u8] {
        &self.data[range.start as usize..range.end as usize]
    }

    /// The objects that a range touches: index, part of the range, and whether that is all of it.
    pub fn objects(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (usize, Range<u64>, bool)> + use<> {
        let (range, object, size) = (range.clone(), self.object_size, self.size());
        let end = if range.is_empty() { 0 } else { range.end.div_ceil(object) };
        (range.start / object..end).map(move |index| {
            let (start, end) = (index * object, ((index + 1) * object).min(size));
            let part = range.start.max(start)..range.end.min(end);
            let whole = part == (start..end);
            (index as usize, part, whole)
        })
    }

    pub fn write(&mut self, range: &Range<u64>, data: &[u8]) {
        for (index, ..) in self.objects(range) {
            self.map[index] = Some(self.owner);
        }
        self.data[range.start as usize..range.end as usize].copy_from_slice(data);
    }

    pub fn zero(&mut self, range: &Range<u64>) {
        for (index, _, whole) in self.objects(range) {
            let entry = &mut self.map[index];
            *entry = entry.and((!whole).then_some(self.owner));
        }
        self.data[range.start as usize..range.end as usize].fill(0);
    }

    pub fn resize(&mut self, size: u64) {
        // The rest of the last object is zeroed, which takes an object of its own.
        if size < self.size() && !size.is_multiple_of(self.object_size) {
            let entry = &mut self.map[(size / self.object_size) as usize];
            *entry = entry.and(Some(self.owner));
        }
        self.map.resize(size.div_ceil(self.object_size) as usize, None);
        self.data.resize(size as usize, 0);
    }

    pub fn extents(&self, range: &Range<u64>) -> Vec<(u64, u64, Extent)> {
        let mut extents: Vec<(u64, u64, Extent)> = Vec::new();
        for (index, part, _) in self.objects(range) {
            let kind = match self.map[index] {
                None => Extent::Hole,
                Some(owner) if owner == self.owner => Extent::Allocated,
                Some(_) => Extent::Shared,
            };
            match extents.last_mut() {
                Some(last) if last.2 == kind => last.1 += part.end - part.start,
                _ => extents.push((part.start, part.end - part.start, kind)),
            }
        }
        extents
    }

    pub fn info(&self, name: &str) -> Info {
        Info {
            name: name.to_owned(),
            tag: self.tag.to_owned(),
            size: self.size(),
            object_size: self.object_size,
            allocated: self.map.iter().flatten().count() as u64 * self.object_size,
            snap_id: self.snap_id,
            is_snapshot: !self.tag.is_empty(),
        }
    }
}

/// What has one name.
#[derive(Default)]
pub struct Family {
    pub working: Option<Inode>,
    /// In the order of their ids.
    pub snapshots: Vec<Inode>,
    pub attrs: BTreeMap<&'static str, Vec<u8>>,
    /// The client that writes, until it closes its last handle.
    pub writer: Option<usize>,
}

impl Family {
    pub fn next_snap_id(&self) -> u32 {
        self.working.iter().chain(&self.snapshots).map(|inode| inode.snap_id).max().unwrap_or(0) + 1
    }

    /// A snapshot, if there is any.
    pub fn snapshot(&self, nth: usize) -> Option<&Inode> {
        self.snapshots.get(nth % self.snapshots.len().max(1))
    }
}
