//! Somebody else changed the VDI under us: froze it by a snapshot, rolled it back, deleted it,
//! discarded parts of it (5.3, 5.7).

use sheepdog_proto::inode::STORE_ARRAY;
use sheepdog_proto::{InodeHeader, Vid, op};

use super::displaced::{Family, PUT_BACK, is_going};
use super::inode::{self, is_gone, unless_gone};
use super::map::owner;
use super::outcome::Outcome;
use super::strays::Stray;
use super::{Vdi, View, Which, closed};
use crate::clock::Instant;
use crate::cluster::{Backoff, Call, Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::lock;

/// How often one piece of I/O may find the VDI changed: as often as snapshots can follow each
/// other while it is repeated, and not for ever.
const MAX_RETRIES: usize = 1000;
/// How often a state that cannot last is looked at again.
const MAX_TRANSIENT: usize = 10;

/// What an operation has gone through already.
#[derive(Default)]
pub struct Retries {
    all: usize,
    /// In a row, without any change on the server that explains them.
    transient: usize,
}

impl Vdi {
    /// Finds out what the VDI is now. Success means that repeating the operation makes sense.
    pub(super) async fn refresh(
        &self,
        cluster: &Cluster,
        op: &Op,
        seen: &View,
        outcome: Outcome,
        retries: &mut Retries,
    ) -> Result<()> {
        let gone = match outcome {
            Outcome::Failed(error) => return Err(error),
            Outcome::Gone { index, entry } => Some((index, entry)),
            Outcome::Frozen | Outcome::Stray { .. } => None,
        };
        let result = self.find_out(cluster, op, seen, gone, retries).await;
        // Else the snapshot may still be under way, and change the map.
        let is_over = result.is_ok() || is_gone(&result);
        if let Outcome::Stray { index, entry, mapped } = outcome
            && is_over
            && let Err(e) = self.settle_stray(cluster, op, seen, index, entry, mapped).await
        {
            log::warn!("VDI {}: a write may be in its snapshot or not: {e}", self.name);
        }
        result
    }

    /// `gone`: an index whose object, that of the entry, is not there.
    async fn find_out(
        &self,
        cluster: &Cluster,
        op: &Op,
        seen: &View,
        gone: Option<(u32, u32)>,
        retries: &mut Retries,
    ) -> Result<()> {
        retries.all += 1;
        if retries.all > MAX_RETRIES {
            return Err(Error::Io("the VDI changes faster than it can be followed"));
        }
        if self.which != Which::WORKING {
            // The map of a snapshot does not change, except that deletion empties it.
            return Err(Error::Io("an object of the snapshot is gone"));
        }
        // Everything in flight finishes first: more of it may be refused.
        let _quiet = self.pieces.close().await;
        if lock(&self.state).version != seen.version {
            return Ok(());
        }
        let mut backoff = Backoff::default();
        loop {
            match self.successor(cluster, op).await {
                Ok((vid, header)) if vid != seen.vid => {
                    self.move_lock(cluster, op, vid).await?;
                    log::info!("VDI {}: now {vid}, was {}", self.name, seen.vid);
                    return self.install(vid, header, retries);
                }
                Ok((vid, header)) => {
                    if let Some((index, entry)) = gone {
                        let stored = self.stored_entry(cluster, op, vid, &header, index).await?;
                        if stored != entry {
                            return self.install(vid, header, retries);
                        }
                        // Discarded and written to again meanwhile, it is there again.
                        let object = owner(entry)?.map(|owner| owner.data(index));
                        return match object {
                            Some(oid) if inode::exists(cluster, op, oid).await? => Ok(()),
                            _ => Err(Error::Io("an object that the map names is gone")),
                        };
                    }
                }
                // The working VDI of a moment ago: frozen or deleted by now.
                Err(Error::Refused(Refusal::NoVdi)) => {}
                Err(error) => return Err(error),
            }
            retries.transient += 1;
            if retries.transient == MAX_TRANSIENT {
                Family { cluster, op, name: &self.name }.thaw(seen.vid).await?;
            } else if retries.transient > MAX_TRANSIENT || !backoff.wait(cluster, op).await? {
                return Err(Error::Io("the VDI is read-only, and nothing says why"));
            }
        }
    }

    /// What the name stands for now, if that goes on from the VDI that we have, or if another client
    /// has rolled that back.
    async fn successor(&self, cluster: &Cluster, op: &Op) -> Result<(Vid, InodeHeader)> {
        let (seen, known) = {
            let state = lock(&self.state);
            (state.vid, state.header)
        };
        let family = Family { cluster, op, name: &self.name };
        let limit = Instant::now() + PUT_BACK;
        // It may be of our own making, and not be right yet.
        self.servers.strays.put_right(cluster, op).await;
        loop {
            let vid = inode::lookup(cluster, op, &self.name, &self.which).await?;
            let header = Vdi::read_checked(cluster, op, vid, &self.name, &self.which).await?;
            if vid == seen {
                return Ok((vid, header));
            }
            let line = family.line(vid, &header, seen).await?;
            if let Some(lost) = family.lost_of(&line).await?
                && family.restore(vid, lost, limit, self.servers.are_older()).await?
            {
                continue;
            }
            if !line.vids.contains(&seen) {
                let ours = family.line(seen, &known, Vid::NONE).await?;
                if !ours.vids.iter().any(|vid| line.vids.contains(vid)) {
                    // Made anew under the same name: nobody has opened that.
                    return Err(inode::NO_VDI);
                }
            }
            return Ok((vid, header));
        }
    }

    /// An object was created to replace another one in the map of a VDI that was frozen or deleted
    /// meanwhile. What is not in the map goes again. Where the server took the update, though, a
    /// snapshot that writes the whole inode back (4.2) may have undone it, and that in some of the
    /// inode's copies only, if there are several, of which we see one: made once more it is in all
    /// of them. Where the entry tells neither, an object too many stays.
    async fn settle_stray(
        &self,
        cluster: &Cluster,
        op: &Op,
        seen: &View,
        index: u32,
        replaced: u32,
        mapped: bool,
    ) -> Result<()> {
        if seen.store_policy != STORE_ARRAY {
            return Ok(());
        }
        let (vid, own) = (seen.vid, seen.vid.get());
        let before = inode::read_entries(cluster, op, vid, index, 1).await?[0];
        // Afterwards: of a VDI that got the id of the old one (3.3) the entry says nothing.
        let header = inode::read_header(cluster, op, vid).await?;
        let entry = inode::read_entries(cluster, op, vid, index, 1).await?[0];
        if entry != before {
            // Whoever deletes it is at it.
            return Ok(());
        }
        if header.is_deleted() {
            // The server removes what the entry named. Nobody shares it: nothing can be derived
            // from a VDI that was deleted when the entry was stored.
            return match entry == own {
                true => inode::write_entries(cluster, op, vid, index, &[0]).await,
                false => Ok(()),
            };
        }
        if !header.is_snapshot() || is_going(&header) {
            return Ok(());
        }
        if mapped && header.nr_copies > 1 {
            // An update of a reference that is counted would have that forgotten (3.7, hazard 3);
            // whoever counted it has written the same to all copies. Older servers count otherwise.
            let is_open = entry == replaced
                || entry == own && !inode::is_inherited(cluster, op, vid, index).await?;
            if is_open && !self.servers.are_older() {
                return inode::write_entries(cluster, op, vid, index, &[own]).await;
            }
        } else if entry == replaced && replaced != 0 {
            // An empty entry could also be that of a snapshot which is being deleted, and whose
            // objects others have. Never sent again: later it might meet another object.
            let call = Call::new(inode::remove_request(vid.data(index)));
            return cluster.call(op, call).await.map(drop);
        }
        Ok(())
    }

    /// The entry of an index as it is stored now.
    async fn stored_entry(
        &self,
        cluster: &Cluster,
        op: &Op,
        vid: Vid,
        header: &InodeHeader,
        index: u32,
    ) -> Result<u32> {
        if header.store_policy != STORE_ARRAY {
            lock(&self.state).tree = None;
            return self.tree_entry(cluster, op, index).await;
        }
        Ok(inode::read_entries(cluster, op, vid, index, 1).await?[0])
    }

    fn install(&self, vid: Vid, header: InodeHeader, retries: &mut Retries) -> Result<()> {
        retries.transient = 0;
        let mut state = lock(&self.state);
        if header.block_size_shift != state.header.block_size_shift
            || header.store_policy != state.header.store_policy
        {
            return Err(Error::Io("the VDI was replaced by one of another kind"));
        }
        state.vid = vid;
        state.header = header;
        state.pages.clear();
        state.tree = None;
        state.version += 1;
        Ok(())
    }

    /// Goes on as what `other` is known to be, which was the same VDI.
    pub(super) fn adopt(&self, other: &Vdi) {
        let (vid, header) = {
            let state = lock(&other.state);
            (state.vid, state.header)
        };
        if let Err(error) = self.install(vid, header, &mut Retries::default()) {
            log::warn!("VDI {}: {error}", self.name);
        }
    }

    /// The size became another.
    pub(super) fn set_size(&self, size: u64) {
        lock(&self.state).header.vdi_size = size.into();
    }

    /// While the gate is closed: has the map read anew.
    pub(super) fn forget_map(&self) {
        let mut state = lock(&self.state);
        state.pages.clear();
        state.tree = None;
        state.version += 1;
    }

    /// While the gate is closed: makes sure that what is known is the working VDI as it is now.
    pub(super) async fn catch_up(&self, cluster: &Cluster, op: &Op) -> Result<(Vid, InodeHeader)> {
        for _ in 0..MAX_TRANSIENT {
            match self.successor(cluster, op).await {
                Ok((vid, header)) if vid == self.view().vid => {
                    lock(&self.state).header = header;
                    return Ok((vid, header));
                }
                Ok((vid, header)) => {
                    self.move_lock(cluster, op, vid).await?;
                    self.install(vid, header, &mut Retries::default())?;
                }
                // Frozen between the two requests.
                Err(Error::Refused(Refusal::NoVdi)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Io("the VDI changes faster than it can be followed"))
    }

    /// While the gate is closed: goes on as the VDI `vid`, which was just made the working one of
    /// the same name. One that is being closed meanwhile stays what it is.
    pub(super) async fn switch_to(&self, cluster: &Cluster, op: &Op, vid: Vid) -> Result<()> {
        let goes_on = async {
            let header = Vdi::read_checked(cluster, op, vid, &self.name, &self.which).await?;
            self.move_lock(cluster, op, vid).await?;
            self.install(vid, header, &mut Retries::default())
        };
        match goes_on.await {
            Err(_) if lock(&self.state).closed => Ok(()),
            // Frozen or deleted by another client since: whoever needs it next finds out.
            Err(Error::Refused(Refusal::NoVdi)) => Ok(()),
            result => unless_gone(result).map(drop),
        }
    }

    /// Goes on as what the name stands for now.
    pub(super) async fn follow(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        let _quiet = self.pieces.close().await;
        self.catch_up(cluster, op).await.map(drop)
    }

    /// Forgets what is known of the map, and reads the header again.
    pub async fn reload(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        let _quiet = self.pieces.close().await;
        if self.which == Which::WORKING {
            self.catch_up(cluster, op).await?;
        }
        let header = self.read_again(cluster, op).await?;
        self.install(self.view().vid, header, &mut Retries::default())
    }

    /// A lock stays on the VDI id it was taken for: where the cluster has locks, the new one must
    /// be taken, and the old one released (4.10, 5.7).
    async fn move_lock(&self, cluster: &Cluster, op: &Op, vid: Vid) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        if !lock(&self.state).locked.contains(&vid) {
            let locked = self.servers.strays.lock(cluster, op, &self.name).await?;
            let guard = self.servers.strays.guard(Stray::Lock(self.name, locked));
            let is_closed = {
                let mut state = lock(&self.state);
                if !state.closed {
                    state.locked.push(locked);
                }
                state.closed
            };
            if is_closed {
                // Nobody else would give it back.
                drop(guard);
                self.servers.strays.release(cluster, op).await?;
                return Err(closed());
            }
            guard.keep();
        }
        loop {
            let old = lock(&self.state).locked.iter().copied().find(|held| *held != vid);
            let Some(old) = old else { return Ok(()) };
            inode::release(cluster, op, &self.name, old, op::LOCK_NORMAL).await?;
            lock(&self.state).locked.retain(|held| *held != old);
        }
    }
}
