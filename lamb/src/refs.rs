//! Which data objects are still named by an inode, and by how many.
//!
//! Sheepdog keeps these counts inside the inodes and in ledgers, where clients can corrupt them
//! (3.7). Here they are exact and kept in memory: an object may go when the last live inode whose
//! map names it stops doing so (6.3). They are counted once, when the store is opened, and then
//! follow every change of a map; writing to an object does not touch them.

use std::collections::HashMap;

use sheepdog_proto::{Oid, Vid};

#[derive(Default)]
pub struct Refs {
    /// How many inodes name an object; never 0.
    objects: HashMap<Oid, u32>,
    /// How many objects of a VDI are in `objects`; never 0.
    owners: HashMap<Vid, u32>,
}

impl Refs {
    pub fn add(&mut self, oid: Oid) {
        let count = self.objects.entry(oid).or_default();
        *count += 1;
        if *count == 1 {
            *self.owners.entry(oid.vid()).or_default() += 1;
        }
    }

    /// Takes one reference back; true if it was the last one, so that the object may go.
    #[must_use]
    pub fn release(&mut self, oid: Oid) -> bool {
        let last = decrement(&mut self.objects, &oid);
        if last {
            decrement(&mut self.owners, &oid.vid());
        }
        last
    }

    pub fn contains(&self, oid: Oid) -> bool {
        self.objects.contains_key(&oid)
    }

    /// Whether any object of a VDI is named by any inode.
    pub fn any_of(&self, owner: Vid) -> bool {
        self.owners.contains_key(&owner)
    }
}

/// Counts one down; true if that was the last one.
fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => counts.remove(key).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_reference_lets_an_object_go() {
        let (mut refs, oid) = (Refs::default(), Oid(7));
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
