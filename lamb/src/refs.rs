//! Which data objects are still named by an inode, and by how many.
//!
//! Sheepdog keeps these counts inside the inodes and in ledgers, where clients can corrupt them
//! (3.7). Here they are exact and kept in memory: an object may go when the last live inode whose
//! map names it stops doing so (6.3). They are counted once, when the store is opened, and then
//! follow every change of a map; writing to an object does not touch them.

use std::collections::HashMap;

use sheepdog_proto::{Oid, Vid};

/// Entries of a page.
const PAGE: usize = 1024;

#[derive(Default)]
pub struct Refs {
    /// Where the counts of a VDI's objects are, if any of them is named.
    owners: HashMap<Vid, usize>,
    counts: Vec<Counts>,
    /// Of those, the ones that belong to nobody.
    free: Vec<usize>,
    /// The owner that was looked for last: maps name the same one again and again.
    recent: Option<(Vid, usize)>,
}

/// How many inodes name each object of a VDI, by its index.
#[derive(Default)]
struct Counts {
    pages: Vec<Option<Box<[u32; PAGE]>>>,
    /// Counts that are not 0.
    named: usize,
}

impl Refs {
    pub fn add(&mut self, oid: Oid) {
        self.add_run(oid.vid(), oid.index(), 1);
    }

    /// Adds one reference to each of so many objects in a row.
    pub fn add_run(&mut self, owner: Vid, first: u32, len: usize) {
        let at = match self.find(owner) {
            Some(at) => at,
            None => self.begin(owner),
        };
        let Some(counts) = self.counts.get_mut(at) else { return };
        let (mut index, end) = (first as usize, first as usize + len);
        while index < end {
            let (page, entry) = (index / PAGE, index % PAGE);
            if counts.pages.len() <= page {
                counts.pages.resize_with(page + 1, || None);
            }
            let Some(page) = counts.pages.get_mut(page) else { return };
            let page = page.get_or_insert_with(|| Box::new([0; PAGE]));
            let n = (end - index).min(PAGE - entry);
            for count in page.iter_mut().skip(entry).take(n) {
                counts.named += usize::from(*count == 0);
                *count += 1;
            }
            index += n;
        }
    }

    /// Takes one reference back; true if it was the last one, so that the object may go.
    #[must_use]
    pub fn release(&mut self, oid: Oid) -> bool {
        let Some(at) = self.find(oid.vid()) else { return false };
        let Some(counts) = self.counts.get_mut(at) else { return false };
        let (page, entry) = place(oid);
        let Some(Some(page)) = counts.pages.get_mut(page) else { return false };
        let count = &mut page[entry];
        let last = *count == 1;
        *count = count.saturating_sub(1);
        counts.named -= usize::from(last);
        if counts.named == 0 {
            *counts = Counts::default();
            self.owners.remove(&oid.vid());
            self.free.push(at);
            self.recent = None;
        }
        last
    }

    pub fn contains(&self, oid: Oid) -> bool {
        let (page, entry) = place(oid);
        let counts = self.owners.get(&oid.vid()).and_then(|&at| self.counts.get(at));
        let page = counts.and_then(|counts| counts.pages.get(page)?.as_deref());
        page.is_some_and(|page| page[entry] > 0)
    }

    /// Whether any object of a VDI is named by any inode.
    pub fn any_of(&self, owner: Vid) -> bool {
        self.owners.contains_key(&owner)
    }

    fn find(&mut self, owner: Vid) -> Option<usize> {
        if let Some((_, at)) = self.recent.filter(|(recent, _)| *recent == owner) {
            return Some(at);
        }
        let at = *self.owners.get(&owner)?;
        self.recent = Some((owner, at));
        Some(at)
    }

    fn begin(&mut self, owner: Vid) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.counts.push(Counts::default());
            self.counts.len() - 1
        });
        self.owners.insert(owner, at);
        at
    }
}

fn place(oid: Oid) -> (usize, usize) {
    (oid.index() as usize / PAGE, oid.index() as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_reference_lets_an_object_go() {
        let (mut refs, oid) = (Refs::default(), Vid::new(9).unwrap().data(7));
        refs.add(oid);
        refs.add(oid);
        assert!(!refs.release(oid));
        assert!(refs.contains(oid));
        assert!(refs.release(oid));
        assert!(!refs.contains(oid));
        assert!(!refs.release(oid), "released more often than added");
    }

    #[test]
    fn a_vdi_has_objects_as_long_as_one_is_named() {
        let (mut refs, vid) = (Refs::default(), Vid::new(7).unwrap());
        for index in [1, 2, 2] {
            refs.add(vid.data(index));
        }
        assert!(refs.release(vid.data(1)) && refs.any_of(vid));
        assert!(!refs.release(vid.data(2)) && refs.any_of(vid));
        assert!(refs.release(vid.data(2)) && !refs.any_of(vid));
    }
}
