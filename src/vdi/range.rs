//! Operations on ranges other than reading and writing: discard, zeroes, block status, resize
//! (5.5, 5.6).

use std::ops::Range;

use sheepdog_proto::inode::{STORE_ARRAY, VDI_SIZE_OFFSET, max_size, object_count};

use super::entries::empty_map;
use super::inode::{self, standing};
use super::io::{Piece, objects, piece};
use super::outcome::{Outcome, Step};
use super::stale::Retries;
use super::{Vdi, View, btree, closed};
use crate::cluster::{Cluster, Op};
use crate::error::{Error, Result};
use crate::exec::try_for_each_concurrent;
use crate::net::SendBuf;

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

/// What becomes of the objects of a range that is made to read as zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// That of the objects wholly inside is freed. The last object of the VDI counts as inside when
    /// the range reaches the VDI's end.
    Freed,
    /// The VDI keeps those that it has, and gets its own where they are a parent's.
    Kept,
}

impl Vdi {
    /// Makes a range read as zeros.
    pub async fn zero(
        &self,
        cluster: &Cluster,
        op: &Op,
        offset: u64,
        len: u64,
        space: Space,
    ) -> Result<()> {
        let _patient = cluster.be_patient(op);
        self.check_writable()?;
        let _operation = self.operations.pass().await.ok_or_else(closed)?;
        let view = self.view_of_range(cluster, op, offset, len).await?;
        let len = usize::try_from(len).map_err(|_| Error::Invalid("the length"))?;
        // What is known as a hole is left alone: it must be known of the right VDI.
        match standing(cluster, op, view.vid, 0).await {
            Err(Outcome::Failed(error)) => return Err(error),
            Err(_) => self.follow(cluster, op).await?,
            Ok(_) => {}
        }
        let objects = objects(offset, len as u64, view.shift);
        let mut runs = Runs { left: objects.clone(), steps: 0 };
        let mut retries = Retries::default();
        while !runs.left.is_empty() {
            let mut named = Vec::new();
            while !runs.left.is_empty() && named.len() < MAX_BATCH {
                let view = self.view();
                match runs.next(self, cluster, op, &view).await {
                    Ok((ExtentKind::Hole, _)) => {}
                    Ok((_, run)) => named.extend(run),
                    Err(outcome) => {
                        self.refresh(cluster, op, &view, outcome, &mut retries).await?;
                    }
                }
            }
            try_for_each_concurrent(named.into_iter().map(|index| {
                let piece = piece(index, offset, len, view.shift);
                self.zero_piece(cluster, op, piece, space)
            }))
            .await?;
        }
        let mut going = self.servers.removals.of(self.view().vid);
        going.retain(|oid| objects.contains(&oid.index().into()));
        self.servers.await_removals(cluster, op, going).await
    }

    /// Frees the object that a piece is, or writes zeros to the piece where it is only part of one,
    /// or the space is kept.
    async fn zero_piece(
        &self,
        cluster: &Cluster,
        op: &Op,
        piece: Piece,
        space: Space,
    ) -> Result<()> {
        let mut retries = Retries::default();
        loop {
            let pass = self.pieces.pass().await.ok_or_else(closed)?;
            let view = self.view();
            let start = u64::from(piece.index) << view.shift;
            let end = start + u64::from(piece.offset) + piece.range.len() as u64;
            // The last object ends with the VDI.
            let whole = piece.offset == 0 && end >= view.size.min(start + (1 << view.shift));
            let step = if whole && space == Space::Freed {
                self.discard_once(cluster, op, &view, piece.index).await
            } else {
                self.zero_once(cluster, op, &view, &piece).await
            };
            drop(pass);
            let Err(outcome) = step else { return Ok(()) };
            self.refresh(cluster, op, &view, outcome, &mut retries).await?;
        }
    }

    /// Writes zeros to a piece, unless it reads as zeros anyway.
    async fn zero_once(&self, cluster: &Cluster, op: &Op, view: &View, piece: &Piece) -> Step<()> {
        {
            // Held, so that nobody creates the object just now.
            let _hold = self.indexes.shared(piece.index).await;
            if self.entry(cluster, op, view, piece.index).await? == 0 {
                return Ok(());
            }
        }
        let zeros = SendBuf::zeros(piece.range.len());
        self.write_once(cluster, op, view, piece.index, piece.offset, &zeros).await
    }

    async fn discard_once(&self, cluster: &Cluster, op: &Op, view: &View, index: u32) -> Step<()> {
        let hold = self.indexes.exclusive(index).await;
        let entry = self.entry(cluster, op, view, index).await?;
        if entry == 0 {
            return Ok(());
        }
        // Servers let the update into a snapshot (7.2), and it cannot be taken back: what is asked
        // first is all that can be done, and leaves one round trip.
        standing(cluster, op, view.vid, index).await?;
        self.let_go(cluster, op, view, &hold, entry).await?;
        if entry == view.vid.get() && view.store_policy != STORE_ARRAY {
            btree::remove_object(cluster, op, view.vid.data(index)).await?;
        }
        standing(cluster, op, view.vid, index).await.map(drop)
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
                Ok(extents) => return Ok(extents),
                Err(Outcome::Failed(error)) => return Err(error),
                // A snapshot by now: what goes on under the name is asked for.
                Err(_) => self.follow(cluster, op).await?,
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
    ) -> Step<Vec<Extent>> {
        let view = self.view_of_range(cluster, op, offset, len).await?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut runs = Runs { left: objects(offset, len, view.shift), steps: 0 };
        while !runs.left.is_empty() {
            let (kind, run) = runs.next(self, cluster, op, &view).await?;
            let at = (run.start << view.shift).max(offset);
            let len = (run.end << view.shift).min(offset + len) - at;
            match extents.last_mut() {
                Some(last) if last.kind == kind => last.len += len,
                _ => extents.push(Extent { offset: at, len, kind }),
            }
        }
        Ok(extents)
    }

    /// Grows or shrinks the VDI. What is cut off is freed first, so that it neither leaks nor
    /// comes back when the VDI grows again (5.6).
    pub async fn resize(&self, cluster: &Cluster, op: &Op, size: u64) -> Result<()> {
        let _patient = cluster.be_patient(op);
        self.check_writable()?;
        if size == 0 {
            return Err(Error::Invalid("the size is 0"));
        }
        let _still = self.still().await;
        for _ in 0..MAX_ATTEMPTS {
            match self.resize_once(cluster, op, size).await {
                Ok(()) => {
                    let going = self.servers.removals.of(self.view().vid);
                    return self.servers.await_removals(cluster, op, going).await;
                }
                Err(Outcome::Failed(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Err(Error::Io("the VDI changes faster than it can be followed"))
    }

    /// While nobody is at work.
    async fn resize_once(&self, cluster: &Cluster, op: &Op, size: u64) -> Step<()> {
        let (vid, header) = self.catch_up(cluster, op).await?;
        // The writer of the VDI may be another client: what is known of the map is not enough to
        // decide what is cut off.
        self.forget_map();
        if size > max_size(header.store_policy, header.block_size_shift) {
            return Err(Error::Invalid("the size passes what the object size allows").into());
        }
        let old = header.vdi_size.get();
        if size < old {
            self.cut_off(cluster, op, old, size).await?;
        }
        // Neither into a snapshot, if it has become one.
        standing(cluster, op, vid, 0).await?;
        // Only the size: the rest of the header may be changing under others' hands (5.6).
        let bytes = size.to_le_bytes().to_vec();
        inode::write_header(cluster, op, vid, VDI_SIZE_OFFSET, bytes).await?;
        standing(cluster, op, vid, 0).await?;
        self.set_size(size);
        Ok(())
    }

    /// While nobody is at work: frees what lies between two sizes.
    async fn cut_off(&self, cluster: &Cluster, op: &Op, old: u64, new: u64) -> Step<()> {
        let view = self.view();
        let (first, end) = (object_count(new, view.shift), object_count(old, view.shift));
        let within = new & ((1 << view.shift) - 1);
        // Counted in 64 bits: a hypervolume can have 2^32 objects.
        let last = first.saturating_sub(1) as u32;
        if within != 0 && self.entry(cluster, op, &view, last).await? != 0 {
            let len = ((1u64 << view.shift) - within).min(old - new) as usize;
            let zeros = SendBuf::zeros(len);
            self.write_once(cluster, op, &view, last, within as u32, &zeros).await?;
        }
        if view.store_policy != STORE_ARRAY {
            return Ok(self.cut_off_tree(cluster, op, first).await?);
        }
        let (first, end) = (first as u32, end as u32);
        // However far this comes, nothing that is known afterwards is outdated.
        let _outdated = Outdated(self);
        // What is ours and goes must be gone before it is created again.
        let (removals, mut own) = (&self.servers.removals, Vec::new());
        let add = |oid| {
            removals.add(oid);
            own.push(oid);
        };
        empty_map(cluster, op, view.vid, first..end, true, add).await?;
        removals.begun(own);
        Ok(())
    }
}

/// What readers learn of the map meanwhile is to be forgotten, however that ends.
struct Outdated<'a>(&'a Vdi);

impl Drop for Outdated<'_> {
    fn drop(&mut self) {
        self.0.forget_map();
    }
}

/// The objects of a range, in runs of one kind: as far as they are known, so that a hole takes as
/// many steps as it has pages or nodes of the index, and not as it has objects.
struct Runs {
    left: Range<u64>,
    steps: usize,
}

impl Runs {
    /// The next run, of which there must be one.
    async fn next(
        &mut self,
        vdi: &Vdi,
        cluster: &Cluster,
        op: &Op,
        view: &View,
    ) -> Step<(ExtentKind, Range<u64>)> {
        self.steps += 1;
        if self.steps.is_multiple_of(MAX_STEPS) {
            cluster.give_way(op).await?;
        }
        let index = self.left.start as u32;
        let kind = kind(vdi.entry(cluster, op, view, index).await?, view);
        let known = vdi.known_run(view, index, |entry| self::kind(entry, view) == kind);
        let run = self.left.start..known.clamp(self.left.start + 1, self.left.end);
        self.left.start = run.end;
        Ok((kind, run))
    }
}

fn kind(entry: u32, view: &View) -> ExtentKind {
    match entry {
        0 => ExtentKind::Hole,
        entry if entry == view.vid.get() => ExtentKind::Allocated,
        _ => ExtentKind::Shared,
    }
}

/// Steps along the map, of a page of entries each at most, before everything else has a turn.
const MAX_STEPS: usize = 1024;
/// Objects to be discarded that are gathered at once, with those of a last run.
const MAX_BATCH: usize = 1024;
/// How often an operation starts again because somebody took a snapshot meanwhile.
const MAX_ATTEMPTS: usize = 100;
