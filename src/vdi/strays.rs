//! What operations of ours leave behind that are given up, or that fail (4.10, 5.15, 5.16): locks
//! that nobody needs, and VDIs that are not yet as they should be.

use std::sync::Mutex;
use std::time::Duration;

use sheepdog_proto::{SdResult, Vid, op};

use super::displaced::Family;
use super::inode::{self, Name, answered, late_vdi};
use crate::clock::Instant;
use crate::cluster::{Cluster, Op};
use crate::error::Result;
use crate::exec::lock;

/// After this what another client has done to a VDI since is worth more than what we know of it.
const FRESH: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// Of an open that failed, or was given up before the answer to its LOCK_VDI came.
    Lock(Name, Vid),
    /// Made of `base` by a NEW_VDI that named this size, and was not compared with it yet.
    Made { name: Name, vid: Vid, base: Vid, size: u64, since: Instant },
}

#[derive(Default)]
pub struct Strays(Mutex<Vec<Stray>>);

impl Strays {
    /// The one to take care of first.
    fn gather(&self, cluster: &Cluster) -> Option<Stray> {
        let late = cluster.take_late();
        let mut strays = lock(&self.0);
        strays.extend(late.iter().filter_map(late_vdi));
        strays.last().copied()
    }

    /// Takes the lock of a working VDI; one that an earlier attempt of ours has got after all is
    /// given back first.
    pub async fn lock(&self, cluster: &Cluster, op: &Op, name: &Name) -> Result<Vid> {
        self.release(cluster, op).await?;
        let result = inode::lock(cluster, op, name).await;
        // It had to wait for what became of that attempt.
        if answered(&result, SdResult::VDI_LOCKED) && self.gather(cluster).is_some() {
            self.release(cluster, op).await?;
            return inode::lock(cluster, op, name).await;
        }
        result
    }

    /// As [`Strays::release`], for whoever has other things to do.
    pub async fn put_right(&self, cluster: &Cluster, op: &Op) {
        if let Err(error) = Box::pin(self.release(cluster, op)).await {
            log::warn!("what was left by an operation that was given up stays for now: {error}");
        }
    }

    /// Gives back the locks that nobody needs, and puts VDIs right.
    pub async fn release(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        while let Some(stray) = self.gather(cluster) {
            match stray {
                Stray::Lock(name, vid) => {
                    inode::release(cluster, op, &name, vid, op::LOCK_NORMAL).await?;
                }
                Stray::Made { name, vid, base, size, since } => {
                    let family = Family { cluster, op, name: &name };
                    if since + FRESH > Instant::now()
                        && let Err(error) = Box::pin(family.keep_size_late(size, base, vid)).await
                    {
                        if error.server_result().is_none() {
                            return Err(error);
                        }
                        log::warn!("VDI {name}: the size of {vid} may be an older one: {error}");
                    }
                }
            }
            lock(&self.0).retain(|other| *other != stray);
        }
        Ok(())
    }

    /// Notes what becomes a stray unless somebody [takes care](StrayGuard::keep) of it.
    pub fn guard(&self, stray: impl Into<Option<Stray>>) -> StrayGuard<'_> {
        StrayGuard { strays: self, stray: stray.into() }
    }
}

pub struct StrayGuard<'a> {
    strays: &'a Strays,
    stray: Option<Stray>,
}

impl StrayGuard<'_> {
    pub fn keep(mut self) {
        self.stray = None;
    }
}

impl Drop for StrayGuard<'_> {
    fn drop(&mut self) {
        lock(&self.strays.0).extend(self.stray.take());
    }
}
