//! A change of what maps name, in the only order that is safe.
//!
//! What is gained is counted before it is stored, so that nothing that a map names is ever removed.
//! What is lost is given up when the change is durable, so that no crash brings back a map that
//! names what is gone. And of what is lost, only that is removed which was there when the map
//! changed: what a client has created since, under the same name, is another object.

use std::io;

use sheepdog_proto::{Oid, SdResult};

use crate::cluster::{Cluster, count, disk};
use crate::lock;
use crate::store::Watch;

/// Objects whose references are given up before others have their turn at them.
const AT_A_TIME: usize = 4096;

/// A change that has yet to be stored.
pub struct Change<'a> {
    cluster: &'a Cluster,
    gained: Vec<Oid>,
    lost: Vec<Watch<'a>>,
}

/// A change that is stored, but may not be durable.
#[must_use = "what the map lost has yet to be removed"]
pub struct Stored<'a> {
    cluster: &'a Cluster,
    lost: Vec<Watch<'a>>,
}

impl<'a> Change<'a> {
    pub fn new(cluster: &'a Cluster) -> Change<'a> {
        Change { cluster, gained: Vec::new(), lost: Vec::new() }
    }

    pub fn gain(&mut self, oid: Oid) {
        self.gained.push(oid);
    }

    pub fn lose(&mut self, oid: Oid) {
        self.lost.push(self.cluster.store.watch(oid));
    }

    pub fn gains(&self) -> bool {
        !self.gained.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }

    /// Counts and stores. Where that fails and `unchanged` says that nothing was stored, nothing is
    /// counted; where it cannot say so, an object stays too long at worst.
    pub fn store(
        self,
        fill: impl FnOnce() -> io::Result<()>,
        unchanged: impl FnOnce() -> bool,
    ) -> Result<Stored<'a>, SdResult> {
        let Change { cluster, gained, lost } = self;
        cluster.count_named(&gained);
        if let Err(err) = fill() {
            if unchanged() {
                let mut refs = lock(&cluster.refs);
                gained.iter().for_each(|&oid| _ = refs.release(oid));
            }
            return Err(disk(err));
        }
        Ok(Stored { cluster, lost })
    }
}

impl Stored<'_> {
    /// Makes the change durable, and removes what no inode names any more, before the client hears
    /// of it: its next CREATE must not meet a late removal (3.7).
    pub fn settle(self, sync: impl FnOnce() -> io::Result<()>) -> Result<(), SdResult> {
        sync().map_err(disk)?;
        self.cluster.release(self.lost)
    }
}

impl Cluster {
    fn count_named(&self, oids: &[Oid]) {
        let mut refs = lock(&self.refs);
        oids.iter().for_each(|&oid| refs.add(oid));
    }

    /// Gives up references to objects that nobody creates meanwhile, as those of a snapshot.
    pub fn release_all(&self, oids: &[Oid]) -> Result<(), SdResult> {
        for oids in oids.chunks(AT_A_TIME) {
            self.release(oids.iter().map(|&oid| self.store.watch(oid)).collect())?;
        }
        Ok(())
    }

    /// Takes back one reference to each object, and removes those that nothing names any more.
    fn release(&self, mut objects: Vec<Watch>) -> Result<(), SdResult> {
        {
            let mut refs = lock(&self.refs);
            objects.retain(|object| refs.release(object.oid()));
        }
        count(&self.stat.removes, objects.len());
        for object in objects {
            // Not durably: after a crash of the machine the next start removes it again.
            object.remove().map_err(disk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use sheepdog_proto::Vid;

    use super::*;
    use crate::Options;

    fn cluster() -> (tempfile::TempDir, Cluster) {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::open(&Options::new(dir.path()), 64).unwrap();
        (dir, cluster)
    }

    fn gain(cluster: &Cluster, oid: Oid) -> Change<'_> {
        let mut change = Change::new(cluster);
        change.gain(oid);
        change
    }

    #[test]
    fn what_is_gained_is_counted_before_it_is_stored() {
        let (_dir, cluster) = cluster();
        let named = |oid| lock(&cluster.refs).contains(oid);
        let [a, b, c] = [1, 2, 3].map(|index| Vid::new(7).unwrap().data(index));
        let fill = || {
            assert!(named(a));
            Ok(())
        };
        gain(&cluster, a).store(fill, || false).unwrap().settle(|| Ok(())).unwrap();
        assert!(named(a));
        let full = || Err(ErrorKind::StorageFull.into());
        assert!(gain(&cluster, b).store(full, || true).is_err());
        assert!(!named(b), "nothing was stored");
        assert!(gain(&cluster, c).store(full, || false).is_err());
        assert!(named(c), "it may have been stored");
    }

    #[test]
    fn what_is_lost_goes_when_that_is_durable() {
        let (_dir, cluster) = cluster();
        let oid = Vid::new(7).unwrap().data(1);
        let there = || cluster.store.exists(oid).unwrap();
        cluster.store.create(oid, 4096, |_| Ok(())).unwrap();
        lock(&cluster.refs).add(oid);
        let lose = || {
            let mut change = Change::new(&cluster);
            change.lose(oid);
            change.store(|| Ok(()), || false).unwrap()
        };
        assert!(lose().settle(|| Err(ErrorKind::StorageFull.into())).is_err());
        assert!(there(), "after a crash, the map may name it still");
        let sync = || {
            assert!(there());
            Ok(())
        };
        lose().settle(sync).unwrap();
        assert!(!there());
    }
}
