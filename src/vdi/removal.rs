//! Objects on their way out (3.7, hazard 4): a 1.0 server removes a discarded object some time after
//! the discard was acknowledged, and would remove a new one in its place.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sheepdog_proto::{Oid, SdResult, Vid};

use super::generation::Servers;
use super::inode::{self, answered, exists, standing};
use super::outcome::Step;
use crate::clock::Instant;
use crate::cluster::{Call, Cluster, Op};
use crate::error::{Error, Result};
use crate::exec::{lock, try_for_each_concurrent};

/// How long the removal of a discarded object may take before it is taken for stuck.
const LIMIT: Duration = Duration::from_secs(10);
/// After so long a recovery has brought it back, if there is one.
const BROUGHT_BACK: Duration = Duration::from_secs(1);
/// How long nodes may be busy with the recovery that follows each change of the epoch.
const RECOVERY: Duration = Duration::from_secs(60);
/// The waits between two removals of an object that a recovery keeps bringing back.
const REMOVE_AGAIN: Duration = Duration::from_millis(100);
/// After this, servers older than 1.0 are taken for those of 0.8, which remove nothing (7.1).
const LIMIT_OLDER: Duration = Duration::from_secs(1);
/// How long an operation that caused removals waits for their end.
const LIMIT_AFTER: Duration = Duration::from_secs(2);
/// The waits between two looks at an object that is being removed.
const POLL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq)]
struct Removal {
    /// Of the discard: an object that is gone says nothing of one that was discarded later.
    number: u64,
    /// The server is at it. Else it may be, or come to it.
    begun: bool,
    since: Instant,
}

/// What a client has discarded and not seen gone. It outlives every handle and every refresh:
/// neither ends a removal.
#[derive(Default)]
pub struct Removals {
    table: Mutex<(BTreeMap<Oid, Removal>, u64)>,
    /// Objects that no map names stay: the servers are of 0.8 (7.1).
    never: AtomicBool,
}

impl Removals {
    /// Before an update that lets go of the VDI's own object: it may be carried out even if its
    /// answer never comes.
    pub fn add(&self, oid: Oid) {
        let (table, last) = &mut *lock(&self.table);
        *last += 1;
        table.insert(oid, Removal { number: *last, begun: false, since: Instant::now() });
    }

    /// The updates that let go of these objects were acknowledged.
    pub fn begun(&self, oids: impl IntoIterator<Item = Oid>) {
        let table = &mut lock(&self.table).0;
        for oid in oids {
            table.entry(oid).and_modify(|removal| removal.begun = true);
        }
    }

    /// The update was not carried out, and will not be.
    pub fn cancel(&self, oid: Oid) {
        lock(&self.table).0.remove(&oid);
    }

    fn get(&self, oid: Oid) -> Option<Removal> {
        lock(&self.table).0.get(&oid).copied()
    }

    /// The objects of a VDI that the servers are removing.
    pub fn of(&self, vid: Vid) -> Vec<Oid> {
        let (table, _) = &*lock(&self.table);
        let all = table.range(vid.data(0)..=vid.data(u32::MAX));
        all.filter(|(_, removal)| removal.begun).map(|(oid, _)| *oid).collect()
    }

    fn gone(&self, oid: Oid, seen: Removal) {
        let table = &mut lock(&self.table).0;
        if table.get(&oid).is_some_and(|removal| removal.number == seen.number) {
            table.remove(&oid);
        }
    }

    /// It takes longer than anybody waits, except for who needs the place.
    fn stuck(&self, oid: Oid) {
        lock(&self.table).0.entry(oid).and_modify(|removal| removal.begun = false);
    }

    fn never(&self) -> bool {
        self.never.load(Ordering::Relaxed)
    }
}

impl Servers {
    /// Before an object is created: waits until its discarded predecessor is gone. One that does
    /// not go is in use or stuck: then the write fails, rather than losing its data later.
    ///
    /// For an index that nobody else is at work on, and whose stored entry is not the object's.
    pub async fn await_removal(&self, cluster: &Cluster, op: &Op, oid: Oid) -> Step<()> {
        let Some(discard) = self.removals.get(oid) else { return Ok(()) };
        let begin = Instant::now();
        if self.wait(cluster, op, oid, BROUGHT_BACK).await? {
            return Ok(());
        }
        // The recovery of a node that has come back puts back what is removed meanwhile. It is
        // removed again until that is over; nobody names it. Without a recovery it is the server's
        // own removal that is late, and it would meet the new object.
        while cluster.epoch_changed().is_some_and(|at| at + RECOVERY > discard.since) {
            standing(cluster, op, oid.vid(), oid.index()).await?;
            match cluster.call(op, Call::new(inode::remove_request(oid))).await {
                // Said as well where one of several copies was there.
                result if answered(&result, SdResult::NO_OBJ) => {}
                Err(error) if !error.is_ambiguous() => return Err(error.into()),
                _ => {}
            }
            if self.wait(cluster, op, oid, REMOVE_AGAIN).await? {
                return Ok(());
            }
        }
        match self.wait(cluster, op, oid, LIMIT.saturating_sub(Instant::now() - begin)).await? {
            true => Ok(()),
            false => Err(Error::Io("a discarded object is not removed").into()),
        }
    }

    /// False where the object is still there after `limit`.
    async fn wait(&self, cluster: &Cluster, op: &Op, oid: Oid, limit: Duration) -> Result<bool> {
        let older = self.are_older();
        let limit = Instant::now() + if older { limit.min(LIMIT_OLDER) } else { limit };
        loop {
            let Some(discard) = self.removals.get(oid).filter(|_| !self.removals.never()) else {
                return Ok(true);
            };
            if !exists(cluster, op, oid).await? {
                self.removals.gone(oid, discard);
            } else if Instant::now() < limit {
                cluster.sleep_until(op, Instant::now() + POLL).await?;
            } else if older {
                self.removals.never.store(true, Ordering::Relaxed);
            } else {
                return Ok(false);
            }
        }
    }

    /// Waits for removals, for a limited time, so that whoever else has the VDI open, or opens it
    /// next, need not know of them.
    pub async fn await_removals(&self, cluster: &Cluster, op: &Op, oids: Vec<Oid>) -> Result<()> {
        let limit = Instant::now() + LIMIT_AFTER;
        try_for_each_concurrent(oids.into_iter().map(|oid| async move {
            let left = limit.saturating_duration_since(Instant::now());
            if !self.wait(cluster, op, oid, left).await? {
                self.removals.stuck(oid);
            }
            Ok(())
        }))
        .await
    }

    /// Waits until the objects that a deleted VDI alone had are gone, for a limited time: until
    /// then whoever has it open writes to them with success. The VDI is deleted whatever comes of
    /// this.
    pub async fn await_deletion(&self, cluster: &Cluster, op: &Op, own: Vec<Oid>) -> Result<()> {
        let limit = if self.are_older() { LIMIT_OLDER } else { LIMIT_AFTER };
        let op = &op.until(Instant::now() + limit);
        let all = pin!(try_for_each_concurrent(own.into_iter().map(|oid| async move {
            while !self.removals.never() && exists(cluster, op, oid).await? {
                cluster.sleep_until(op, Instant::now() + POLL).await?;
            }
            Ok(())
        })));
        match cluster.bounded(op, all).await {
            Err(error) if !matches!(error, Error::Canceled) => {
                log::info!("deleted; its objects may be there for a while: {error}");
                Ok(())
            }
            result => result,
        }
    }
}
