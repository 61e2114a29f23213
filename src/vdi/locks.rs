//! Locks of working VDIs on the servers, and those that nobody of ours needs (4.10, 5.15, 5.16).

use std::sync::Mutex;

use sheepdog_proto::{SdResult, Vid, op};

use super::Name;
use super::inode::{self, answered, late_lock};
use crate::cluster::{Cluster, Op};
use crate::error::Result;
use crate::exec::lock;

/// Locks that are to be released: of an open that failed, or was given up before the answer to its
/// LOCK_VDI came.
#[derive(Default)]
pub struct Strays(Mutex<Vec<(Name, Vid)>>);

impl Strays {
    /// False where there is none.
    fn gather(&self, cluster: &Cluster) -> bool {
        let late = cluster.take_late();
        let mut strays = lock(&self.0);
        strays.extend(late.iter().filter_map(late_lock));
        !strays.is_empty()
    }

    /// Takes the lock of a working VDI; one that an earlier attempt of ours has got after all is
    /// given back first.
    pub async fn lock(&self, cluster: &Cluster, op: &Op, name: &Name) -> Result<Vid> {
        self.release(cluster, op).await?;
        let result = inode::lock(cluster, op, name).await;
        // It had to wait for what became of that attempt.
        if answered(&result, SdResult::VDI_LOCKED) && self.gather(cluster) {
            self.release(cluster, op).await?;
            return inode::lock(cluster, op, name).await;
        }
        result
    }

    /// Gives back the locks that nobody needs.
    pub async fn release(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        while self.gather(cluster) {
            let Some((name, vid)) = lock(&self.0).last().copied() else { break };
            inode::release(cluster, op, &name, vid, op::LOCK_NORMAL).await?;
            lock(&self.0).retain(|other| *other != (name, vid));
        }
        Ok(())
    }
}

/// A lock that was just taken, to be released unless somebody has use for it.
pub struct LockGuard<'a> {
    strays: &'a Strays,
    lock: Option<(Name, Vid)>,
}

impl<'a> LockGuard<'a> {
    pub fn new(strays: &'a Strays, name: Name, vid: Vid) -> LockGuard<'a> {
        LockGuard { strays, lock: Some((name, vid)) }
    }

    pub fn keep(mut self) {
        self.lock = None;
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        lock(&self.strays.0).extend(self.lock.take());
    }
}
