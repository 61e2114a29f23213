//! Operations on ranges other than reading and writing: discard, zeroes, block status, resize
//! (5.5, 5.6).

use std::pin::pin;
use std::time::Duration;

use sheepdog_proto::inode::{STORE_ARRAY, VDI_SIZE_OFFSET, max_size, object_count};
use sheepdog_proto::{Oid, Request, SdResult, Vid};

use super::inode::{self, answered};
use super::io::{Piece, Standing, Written, pieces, standing};
use super::lifecycle::empty_map;
use super::stale::{Cause, Retries};
use super::{Client, Vdi, View, Which, btree};
use crate::clock::Instant;
use crate::cluster::{Call, Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{lock, try_for_each_concurrent};
use crate::net::SendBuf;
use crate::wire::Dest;

/// How long the removal of a discarded object may take before it is taken for stuck.
pub(super) const REMOVAL_LIMIT: Duration = Duration::from_secs(10);
/// After this, servers older than 1.0 are taken for those of 0.8, which remove nothing (7.1).
const REMOVAL_LIMIT_OLDER: Duration = Duration::from_secs(1);
/// How long an operation that caused removals waits for their end.
const REMOVAL_LIMIT_AFTER: Duration = Duration::from_secs(2);
/// The waits between two looks at an object that is being removed.
const REMOVAL_POLL: Duration = Duration::from_millis(2);

/// A part of a VDI of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
    pub kind: ExtentKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    /// Reads as zeros.
    Hole,
    /// The VDI has objects of its own.
    Allocated,
    /// The objects are those of a parent.
    Shared,
}

impl Vdi {
    /// Makes a range read as zeros, and frees the objects wholly inside it. The last object of the
    /// VDI counts as inside when the range reaches the VDI's end.
    pub async fn discard(&self, cluster: &Cluster, op: &Op, offset: u64, len: u64) -> Result<()> {
        if self.which != Which::WORKING {
            return Err(Error::Refused(Refusal::ReadOnly));
        }
        let _change = self.changes.begin();
        let view = self.view_of_range(cluster, op, offset, len).await?;
        let len = usize::try_from(len).map_err(|_| Error::Invalid("the length"))?;
        // What is known as a hole is left alone: it must be known of the right VDI.
        if let Standing::Frozen = standing(cluster, op, view.vid, 0).await? {
            self.follow(cluster, op).await?;
        }
        try_for_each_concurrent(
            pieces(offset, len, view.shift).map(|piece| self.discard_piece(cluster, op, piece)),
        )
        .await?;
        self.wait_for_removals(cluster, op).await
    }

    /// Frees the object that a piece is, or writes zeros to the piece where it is only part of one.
    async fn discard_piece(&self, cluster: &Cluster, op: &Op, piece: Piece) -> Result<()> {
        let mut retries = Retries::default();
        loop {
            let pass = self.gate.pass().await;
            let view = self.view();
            let start = u64::from(piece.index) << view.shift;
            let end = start + u64::from(piece.offset) + piece.range.len() as u64;
            // The last object ends with the VDI.
            let whole = piece.offset == 0 && end >= view.size.min(start + (1 << view.shift));
            let result = if whole {
                self.discard_once(cluster, op, &view, piece.index).await
            } else {
                self.zero_once(cluster, op, &view, &piece).await
            };
            drop(pass);
            let Some(cause) = Cause::of(result, piece.index)? else { return Ok(()) };
            self.refresh(cluster, op, &view, cause, &mut retries).await?;
        }
    }

    /// Writes zeros to a piece, unless it reads as zeros anyway.
    async fn zero_once(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        piece: &Piece,
    ) -> Result<Written> {
        {
            // Held, so that no write to the object is under way whose data would come after.
            let mut hold = self.indexes.exclusive(piece.index).await;
            self.clear_up(cluster, op, view, &mut hold).await?;
            if self.entry(cluster, op, view, piece.index).await? == 0 {
                return Ok(Written::Stable);
            }
        }
        let zeros = SendBuf::zeros(piece.range.len());
        self.write_once(cluster, op, view, piece.index, piece.offset, &zeros).await
    }

    async fn discard_once(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
    ) -> Result<Written> {
        let mut hold = self.indexes.exclusive(index).await;
        self.clear_up(cluster, op, view, &mut hold).await?;
        let entry = self.entry(cluster, op, view, index).await?;
        if entry == 0 {
            return Ok(Written::Stable);
        }
        // Servers let the update into a snapshot (7.2), and it cannot be taken back: what is asked
        // first is all that can be done, and leaves one round trip.
        if let Standing::Frozen = standing(cluster, op, view.vid, index).await? {
            return Ok(Written::Frozen);
        }
        let is_array = view.store_policy == STORE_ARRAY;
        if entry == view.vid.get() && is_array {
            // Before the update: it may be carried out even if its answer never comes.
            lock(&self.state).removing.add(index);
        }
        match self.update_entry(cluster, op, view, &mut hold, entry, 0).await {
            Ok(()) => {}
            result if answered(&result, SdResult::READONLY) => return Ok(Written::Frozen),
            Err(error) => return Err(error),
        }
        if entry == view.vid.get() && !is_array {
            btree::remove_object(cluster, op, view.vid.data(index), &hold.ghosts).await?;
        }
        Ok(match standing(cluster, op, view.vid, index).await? {
            Standing::Current { .. } => Written::Stable,
            Standing::Frozen => Written::Frozen,
        })
    }

    /// Before an object is created whose index was discarded: waits until its predecessor is gone.
    ///
    /// A 1.0 server removes it some time after the discard was acknowledged, and would remove a
    /// new one in its place (3.7, hazard 4). An object that does not go is in use or stuck: then
    /// the write fails, rather than losing its data later.
    pub(super) async fn wait_for_removal(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
        limit: Duration,
    ) -> Result<()> {
        let older = self.servers.are_older();
        let limit = Instant::now() + if older { limit.min(REMOVAL_LIMIT_OLDER) } else { limit };
        loop {
            let discard = lock(&self.state).removing.get(index);
            let Some(discard) = discard.filter(|_| !self.servers.keep_discarded()) else {
                return Ok(());
            };
            if !exists(cluster, op, view.vid.data(index)).await? {
                lock(&self.state).removing.gone(index, discard);
            } else if Instant::now() < limit {
                cluster.sleep_until(op, Instant::now() + REMOVAL_POLL).await?;
            } else if older {
                self.servers.set_keep_discarded();
            } else {
                return Err(Error::Io("a discarded object is not removed"));
            }
        }
    }

    /// Waits for removals, for a limited time, so that whoever else has the VDI open, or opens it
    /// next, need not know of them.
    pub(super) async fn wait_for_removals(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        let removing = lock(&self.state).removing.indexes();
        let limit = Instant::now() + REMOVAL_LIMIT_AFTER;
        let view = self.view();
        try_for_each_concurrent(removing.into_iter().map(|index| async move {
            let left = limit.saturating_duration_since(Instant::now());
            match self.wait_for_removal(cluster, op, &view, index, left).await {
                Err(Error::Io(_)) => Ok(()),
                result => result,
            }
        }))
        .await
    }

    /// What a range consists of, in order, neighbours of one kind as one extent.
    pub async fn block_status(
        &self,
        cluster: &Cluster,
        op: &Op,
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>> {
        for _ in 0..MAX_ATTEMPTS {
            match self.block_status_once(cluster, op, offset, len).await {
                // A snapshot by now: what goes on under the name is asked for.
                result if answered(&result, SdResult::READONLY) => {
                    self.follow(cluster, op).await?;
                }
                result => return result,
            }
        }
        Err(Error::Io("the VDI changes faster than it can be followed"))
    }

    async fn block_status_once(
        &self,
        cluster: &Cluster,
        op: &Op,
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>> {
        let view = self.view_of_range(cluster, op, offset, len).await?;
        let len = usize::try_from(len).map_err(|_| Error::Invalid("the length"))?;
        let mut extents: Vec<Extent> = Vec::new();
        for piece in pieces(offset, len, view.shift) {
            let kind = match self.entry(cluster, op, &view, piece.index).await? {
                0 => ExtentKind::Hole,
                entry if entry == view.vid.get() => ExtentKind::Allocated,
                _ => ExtentKind::Shared,
            };
            let (at, len) = (offset + piece.range.start as u64, piece.range.len() as u64);
            match extents.last_mut() {
                Some(last) if last.kind == kind => last.len += len,
                _ => extents.push(Extent { offset: at, len, kind }),
            }
        }
        Ok(extents)
    }

    /// Grows or shrinks the VDI. What is cut off is freed first, so that it neither leaks nor
    /// comes back when the VDI grows again (5.6).
    pub async fn resize(&self, client: &Client, op: &Op, size: u64) -> Result<()> {
        let cluster = &client.cluster;
        if self.which != Which::WORKING {
            return Err(Error::Refused(Refusal::ReadOnly));
        }
        if size == 0 {
            return Err(Error::Invalid("the size is 0"));
        }
        let _quiet = self.gate.close().await;
        self.clear_up_all(cluster, op).await?;
        for _ in 0..MAX_ATTEMPTS {
            let (vid, header) = self.catch_up(cluster, op).await?;
            // The writer of the VDI may be another client: what is known of the map is not enough
            // to decide what is cut off.
            self.forget_map();
            if size > max_size(header.store_policy, header.block_size_shift) {
                return Err(Error::Invalid("the size passes what the object size allows"));
            }
            let old = header.vdi_size.get();
            if size < old {
                match self.cut_off(client, op, old, size).await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    result if answered(&result, SdResult::READONLY) => continue,
                    Err(error) => return Err(error),
                }
            }
            // Neither into a snapshot, if it has become one.
            let view = self.view();
            if let Standing::Frozen = standing(cluster, op, view.vid, 0).await? {
                continue;
            }
            // Only the size: the rest of the header may be changing under others' hands (5.6).
            let bytes = size.to_le_bytes().to_vec();
            inode::write_header(cluster, op, vid, VDI_SIZE_OFFSET, bytes).await?;
            if let Standing::Current { .. } = standing(cluster, op, view.vid, 0).await? {
                lock(&self.state).header.vdi_size = size.into();
                return self.wait_for_removals(cluster, op).await;
            }
        }
        Err(Error::Io("the VDI changes faster than it can be followed"))
    }

    /// While the gate is closed: frees what lies between two sizes. False where the VDI was frozen
    /// meanwhile.
    async fn cut_off(&self, client: &Client, op: &Op, old: u64, new: u64) -> Result<bool> {
        let (cluster, view) = (&client.cluster, self.view());
        let (first, end) = (object_count(new, view.shift), object_count(old, view.shift));
        let within = new & ((1 << view.shift) - 1);
        // Counted in 64 bits: a hypervolume can have 2^32 objects.
        let last = first.saturating_sub(1) as u32;
        if within != 0 && self.entry(cluster, op, &view, last).await? != 0 {
            let len = ((1u64 << view.shift) - within).min(old - new) as usize;
            let zeros = SendBuf::zeros(len);
            let written = self.write_once(cluster, op, &view, last, within as u32, &zeros).await?;
            if !matches!(written, Written::Stable) {
                return Ok(false);
            }
        }
        if view.store_policy != STORE_ARRAY {
            return self.cut_off_tree(cluster, op, first).await.map(|()| true);
        }
        let (first, end) = (first as u32, end as u32);
        // Before the first entry changes: however far this comes, nothing known is outdated.
        self.forget_map();
        let ghosts = client.ghosts_of(view.vid);
        ghosts.settle(cluster, op).await?;
        // What is ours and goes must be gone before it is created again.
        let note = |index| lock(&self.state).removing.add(index);
        empty_map(cluster, op, view.vid, first..end, true, note, &ghosts).await
    }
}

async fn exists(cluster: &Cluster, op: &Op, oid: Oid) -> Result<bool> {
    let call = Call::new(Request::read(oid, 0, 1)).dest(Dest::Bytes(1)).resendable();
    match cluster.call(op, call).await {
        Ok(_) => Ok(true),
        result if answered(&result, SdResult::NO_OBJ) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Client {
    /// Waits until the objects that a deleted VDI alone had are gone, for a limited time: until
    /// then whoever has it open writes to them with success. The VDI is deleted whatever comes of
    /// this.
    pub(super) async fn wait_for_deletion(&self, op: &Op, vid: Vid, own: &[u32]) -> Result<()> {
        let older = self.servers.are_older();
        let limit = if older { REMOVAL_LIMIT_OLDER } else { REMOVAL_LIMIT_AFTER };
        let op = &op.until(Instant::now() + limit);
        let all = pin!(try_for_each_concurrent(own.iter().map(|index| async move {
            while !self.servers.keep_discarded()
                && exists(&self.cluster, op, vid.data(*index)).await?
            {
                self.cluster.sleep_until(op, Instant::now() + REMOVAL_POLL).await?;
            }
            Ok(())
        })));
        match self.cluster.bounded(op, all).await {
            Err(Error::Canceled) => Err(Error::Canceled),
            Err(error) => {
                log::info!("{vid}: deleted; its objects may be there for a while: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// How often an operation starts again because somebody took a snapshot meanwhile.
const MAX_ATTEMPTS: usize = 100;
