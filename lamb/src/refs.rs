//! Which data objects are still named by an inode, and by how many.
//!
//! Sheepdog keeps these counts inside the inodes and in ledgers, where clients can corrupt them
//! (3.7). Here they are exact and kept in memory: an object may go when the last live inode whose
//! map names it stops doing so (6.3). They are counted once, when the store is opened, and then
//! follow every change of a map; writing to an object does not touch them.

use std::collections::HashMap;

use sheepdog_proto::Oid;

#[derive(Default)]
pub struct Refs(HashMap<Oid, u32>);

impl Refs {
    pub fn add(&mut self, oid: Oid) {
        *self.0.entry(oid).or_default() += 1;
    }

    /// Takes one reference back; true if it was the last one, so that the object may go.
    #[must_use]
    pub fn release(&mut self, oid: Oid) -> bool {
        let Some(count) = self.0.get_mut(&oid) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(&oid);
        }
        last
    }

    pub fn contains(&self, oid: Oid) -> bool {
        self.0.contains_key(&oid)
    }

    pub fn clear(&mut self) {
        self.0 = HashMap::new();
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
}
