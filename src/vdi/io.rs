//! Reading and writing: ranges of a VDI as pieces of objects (5.3, 5.4, 5.5), and what happens to
//! one index of the map:
//!
//! ```text
//! UNKNOWN --read, once nothing is pending there--> HOLE | INHERITED | OWNED
//! HOLE, INHERITED --create--> CREATING --answer--> MAPPING --answer, still current--> OWNED
//! CREATING --given up--> as before; the next CREATE waits for the lost one
//! MAPPING --given up--> UNKNOWN
//! OWNED --entry becomes 0--> UNKNOWN --answer--> HOLE; the next CREATE waits for the removal
//! any --READONLY--> UNKNOWN, of the VDI that the name stands for by then
//! ```
//!
//! HOLE, INHERITED and OWNED are entries that are 0, another's and the VDI's own; CREATING and
//! MAPPING are steps of whoever holds the index exclusively. What was given up is pending in the
//! cluster, which keeps whatever touches the same from going out.

use std::mem;
use std::ops::Range;

use sheepdog_proto::header::ObjArm;
use sheepdog_proto::inode::STORE_ARRAY;
use sheepdog_proto::{Oid, Request, SdResult, op};

use super::inode::{self, answered, repeat, standing, unless, write_request};
use super::map::{Missing, PAGE, owner};
use super::outcome::{Outcome, Step};
use super::stale::Retries;
use super::{Vdi, View, Which, closed};
use crate::cluster::{Backoff, Call, Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{IndexHold, lock, try_for_each_concurrent};
use crate::net::{RecvBuf, SendBuf};
use crate::wire::Dest;

/// The part of a range that lies in one object.
pub(super) struct Piece {
    pub index: u32,
    /// Within the object.
    pub offset: u32,
    /// Within the caller's buffer.
    pub range: Range<usize>,
}

/// The objects that `len` bytes at `offset` lie in. Counted in 64 bits: a hypervolume can have 2^32.
pub(super) fn objects(offset: u64, len: u64, shift: u8) -> Range<u64> {
    let end = if len == 0 { 0 } else { ((offset + len - 1) >> shift) + 1 };
    offset >> shift..end
}

/// The part of `len` bytes at `offset` that lies in the object at `index`: I/O must not cross the
/// borders of objects, and servers do not check (0.6).
pub(super) fn piece(index: u64, offset: u64, len: usize, shift: u8) -> Piece {
    let start = (index << shift).max(offset);
    let end = ((index + 1) << shift).min(offset + len as u64);
    let within = start & ((1 << shift) - 1);
    let range = (start - offset) as usize..(end - offset) as usize;
    Piece { index: index as u32, offset: within as u32, range }
}

fn pieces(offset: u64, len: usize, shift: u8) -> impl Iterator<Item = Piece> {
    objects(offset, len as u64, shift).map(move |index| piece(index, offset, len, shift))
}

pub(super) const BEYOND: Error = Error::Invalid("the range passes the end of the VDI");

/// The piece that a range is, where it lies in one object: the usual case, which needs no list.
fn only_piece(offset: u64, len: usize, shift: u8) -> Option<Piece> {
    let within = offset & ((1 << shift) - 1);
    let is_one = len > 0 && within + len as u64 <= 1 << shift;
    is_one.then(|| Piece { index: (offset >> shift) as u32, offset: within as u32, range: 0..len })
}

impl View {
    /// Itself, where a range lies inside.
    fn spanning(self, offset: u64, len: u64) -> Option<View> {
        let end = offset.checked_add(len)?;
        (end <= self.size).then_some(self)
    }
}

impl Vdi {
    /// The view for an operation on `len` bytes at `offset`, which must lie inside the VDI: as it
    /// is known, or as it has become by another client's resize.
    pub(super) async fn view_of_range(
        &self,
        cluster: &Cluster,
        op: &Op,
        offset: u64,
        len: u64,
    ) -> Result<View> {
        let view = self.view();
        if let Some(view) = view.spanning(offset, len) {
            return Ok(view);
        }
        if self.which == Which::WORKING {
            match Box::pin(self.read_again(cluster, op)).await {
                Ok(header) => {
                    let mut state = lock(&self.state);
                    if state.version == view.version {
                        state.header.vdi_size = header.vdi_size;
                    }
                }
                // Frozen by a snapshot: what goes on under the name may be larger.
                Err(Error::Refused(Refusal::NoVdi)) => Box::pin(self.follow(cluster, op)).await?,
                Err(error) => return Err(error),
            }
        }
        self.view().spanning(offset, len).ok_or(BEYOND)
    }

    pub async fn read(
        &self,
        cluster: &Cluster,
        op: &Op,
        buf: &mut RecvBuf,
        offset: u64,
    ) -> Result<()> {
        let len = buf.len() as u64;
        let view = match self.view().spanning(offset, len) {
            Some(view) => view,
            None => Box::pin(self.view_of_range(cluster, op, offset, len)).await?,
        };
        if let Some(p) = only_piece(offset, buf.len(), view.shift) {
            return self.read_piece(cluster, op, p.index, p.offset, buf).await;
        }
        let buf = &*buf;
        let piece = async |p: Piece| {
            self.read_piece(cluster, op, p.index, p.offset, &mut buf.slice(p.range)).await
        };
        let all = pieces(offset, buf.len(), view.shift).map(piece);
        Box::pin(try_for_each_concurrent(all)).await
    }

    async fn read_piece(
        &self,
        cluster: &Cluster,
        op: &Op,
        index: u32,
        offset: u32,
        buf: &mut RecvBuf,
    ) -> Result<()> {
        let mut view = self.view();
        let Err(mut outcome) = self.read_once(cluster, op, &view, index, offset, buf).await else {
            return Ok(());
        };
        // Seldom, and large.
        Box::pin(async {
            let mut retries = Retries::default();
            loop {
                self.refresh(cluster, op, &view, outcome, &mut retries).await?;
                view = self.view();
                let step = self.read_once(cluster, op, &view, index, offset, buf).await;
                let Err(again) = step else { return Ok(()) };
                outcome = again;
            }
        })
        .await
    }

    async fn read_once(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
        offset: u32,
        buf: &mut RecvBuf,
    ) -> Step<()> {
        let entry = match self.known_entry(view, index) {
            Some(entry) => entry,
            None => Box::pin(self.entry(cluster, op, view, index)).await?,
        };
        let Some(owner) = owner(entry)? else {
            buf.zero_from(0);
            return Ok(());
        };
        let request = Request::read(owner.data(index), offset, buf.len() as u32);
        let call = Call::new(request).dest(Dest::User(buf.clone())).resendable();
        match cluster.call(op, call).await {
            Ok(reply) => {
                // What a server leaves off is zero (5.3).
                buf.zero_from((reply.header.data_length.get() as usize).min(buf.len()));
                Ok(())
            }
            result if answered(&result, SdResult::NO_OBJ) => Err(Outcome::Gone { index, entry }),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn write(
        &self,
        cluster: &Cluster,
        op: &Op,
        buf: &SendBuf,
        offset: u64,
    ) -> Result<()> {
        self.check_writable()?;
        let _operation = self.operations.pass().await.ok_or_else(closed)?;
        let len = buf.len() as u64;
        let view = match self.view().spanning(offset, len) {
            Some(view) => view,
            None => Box::pin(self.view_of_range(cluster, op, offset, len)).await?,
        };
        if let Some(p) = only_piece(offset, buf.len(), view.shift) {
            return self.write_piece(cluster, op, p.index, p.offset, buf).await;
        }
        let piece = async |p: Piece| {
            self.write_piece(cluster, op, p.index, p.offset, &buf.slice(p.range)).await
        };
        let all = pieces(offset, buf.len(), view.shift).map(piece);
        Box::pin(try_for_each_concurrent(all)).await
    }

    async fn write_piece(
        &self,
        cluster: &Cluster,
        op: &Op,
        index: u32,
        offset: u32,
        buf: &SendBuf,
    ) -> Result<()> {
        let mut retries = Retries::default();
        loop {
            let pass = self.pieces.pass().await.ok_or_else(closed)?;
            let view = self.view();
            // Cut off meanwhile: written now, it would come back when the VDI grows again.
            let end = (u64::from(index) << view.shift) + u64::from(offset) + buf.len() as u64;
            if end > view.size {
                return Err(BEYOND);
            }
            let step = self.write_once(cluster, op, &view, index, offset, buf).await;
            // Whoever refreshes must close the gate, with this writer outside.
            drop(pass);
            let Err(outcome) = step else { return Ok(()) };
            Box::pin(self.refresh(cluster, op, &view, outcome, &mut retries)).await?;
        }
    }

    /// Writes a piece to the VDI as `view` shows it.
    pub(super) async fn write_once(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
        offset: u32,
        buf: &SendBuf,
    ) -> Step<()> {
        let mut hold = self.indexes.shared(index).await;
        let mut asked = false;
        loop {
            let entry = match self.known_entry(view, index) {
                Some(entry) => entry,
                None => Box::pin(self.entry(cluster, op, view, index)).await?,
            };
            let is_own = entry == view.vid.get();
            if is_own && !hold.is_exclusive() {
                return overwrite(cluster, op, view.vid.data(index), offset, buf).await;
            }
            if is_own {
                // By another writer meanwhile. All who waited with us write side by side then.
                drop(hold);
                hold = self.indexes.shared(index).await;
            } else if hold.is_exclusive() {
                // Another client's resize may have made an object of our own there, which a CREATE
                // would replace: the stored entry decides.
                if !mem::replace(&mut asked, true) && view.store_policy == STORE_ARRAY {
                    let read = inode::read_entries(cluster, op, view.vid, index, 1);
                    let stored = Box::pin(read).await?[0];
                    if stored != entry {
                        // Ours, though we did not know: of a VDI that is no more it may be what
                        // another thread of ours has stored in vain.
                        if stored == view.vid.get() {
                            Box::pin(standing(cluster, op, view.vid, index)).await?;
                        }
                        lock(&self.state).pages.set(index, stored);
                        continue;
                    }
                }
                let allocate = self.allocate(cluster, op, view, &hold, entry, offset, buf);
                return Box::pin(allocate).await;
            } else {
                drop(hold);
                hold = self.indexes.exclusive(index).await;
                asked = false;
            }
        }
    }

    /// Creates an object of our own for an index that has none, with what the index read as until
    /// now around the piece, and maps it: data first, then the entry, so that a crash between
    /// them leaves an orphan and not a hole (5.4).
    #[expect(clippy::too_many_arguments)]
    async fn allocate(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &IndexHold<'_>,
        entry: u32,
        offset: u32,
        buf: &SendBuf,
    ) -> Step<()> {
        let (index, oid) = (hold.index, view.vid.data(hold.index));
        let base = owner(entry)?.map(|owner| owner.data(index));
        // Nobody else writes to it, and no map names it.
        let create = write_request(op::CREATE_AND_WRITE_OBJ, oid, base, offset);
        self.servers.await_removal(cluster, op, oid).await?;
        match repeat(cluster, op, create, buf.clone()).await {
            result if base.is_some() && answered(&result, SdResult::NO_OBJ) => {
                return Err(Outcome::Gone { index, entry });
            }
            result => result?,
        }
        self.map_and_confirm(cluster, op, view, hold, entry).await
    }

    /// Maps an object that was just created, and makes sure that it counts.
    async fn map_and_confirm(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &IndexHold<'_>,
        entry: u32,
    ) -> Step<()> {
        let (index, own) = (hold.index, view.vid.get());
        self.update_entry(cluster, op, view, hold, entry, own).await?;
        let now = match standing(cluster, op, view.vid, index).await {
            Ok(now) => now,
            Err(outcome) => {
                // Else the next write would take the object for ours, and be acknowledged.
                lock(&self.state).pages.doubt(index);
                return Err(match outcome {
                    Outcome::Frozen => Outcome::Stray { index, entry, mapped: true },
                    outcome => outcome,
                });
            }
        };
        if u64::from(index) << view.shift >= now.size {
            // Another client has cut it off: left there, it would come back one day.
            self.let_go(cluster, op, view, hold, own).await?;
            self.set_size(now.size);
            return Err(Outcome::Failed(BEYOND));
        }
        if now.object { Ok(()) } else { Err(Outcome::Gone { index, entry: own }) }
    }

    /// Empties the entry of the held index, which is `old`: its object is released, and is on its
    /// way out where it is the VDI's own.
    pub(super) async fn let_go(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &IndexHold<'_>,
        old: u32,
    ) -> Step<()> {
        let oid = view.vid.data(hold.index);
        if old == view.vid.get() && view.store_policy == STORE_ARRAY {
            self.servers.removals.add(oid);
        }
        let result = self.update_entry(cluster, op, view, hold, old, 0).await;
        if result.is_ok() {
            self.servers.removals.begun([oid]);
        } else if lock(&self.state).pages.get(hold.index) == Ok(view.vid.get()) {
            self.servers.removals.cancel(oid);
        }
        result
    }

    /// Stores a new entry for the held index, once and exactly once. An update that may have been
    /// carried out is never repeated blindly (3.7, hazard 2): the stored entry tells.
    pub(super) async fn update_entry(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &IndexHold<'_>,
        old: u32,
        new: u32,
    ) -> Step<()> {
        let (vid, index) = (view.vid, hold.index);
        if view.store_policy != STORE_ARRAY {
            let new = owner(new)?.unwrap_or(sheepdog_proto::Vid::NONE);
            return Ok(Box::pin(self.change_tree(cluster, op, view, &[(index, new)])).await?);
        }
        let mut refused = false;
        let mut backoff = Backoff::default();
        loop {
            let doubt = Doubt::new(self, index);
            let update = inode::write_entries(cluster, op, vid, index, std::slice::from_ref(&new));
            let error = match update.await {
                Ok(()) => {
                    doubt.resolve(new);
                    return Ok(());
                }
                Err(error @ (Error::Lost(_) | Error::Server { .. })) => error,
                Err(error) => return Err(error.into()),
            };
            // Once the lost attempt is over.
            let stored = inode::read_entries(cluster, op, vid, index, 1).await?[0];
            doubt.resolve(stored);
            if stored == new {
                return Ok(());
            }
            if stored != old {
                // By whoever deletes what another's rollback has displaced, perhaps.
                standing(cluster, op, vid, index).await?;
                let why = "another client changes the same part of the map";
                return Err(Error::Io(why).into());
            }
            let outcome = Outcome::from(error);
            let error = match outcome {
                Outcome::Failed(error) => error,
                _ if new == vid.get() => {
                    return Err(Outcome::Stray { index, entry: old, mapped: false });
                }
                outcome => return Err(outcome),
            };
            if error.is_ambiguous() {
                backoff.wait_after(error, cluster, op).await?;
            } else if mem::replace(&mut refused, true) {
                return Err(error.into());
            }
            // Time has passed: servers would let the update into a snapshot (7.2).
            standing(cluster, op, vid, index).await?;
        }
    }

    /// The map entry of an index, where it was read before.
    fn known_entry(&self, view: &View, index: u32) -> Option<u32> {
        let state = lock(&self.state);
        let is_known = view.store_policy == STORE_ARRAY && state.version == view.version;
        if is_known { state.pages.get(index).ok() } else { None }
    }

    /// The stored map entry of an index.
    pub(super) async fn entry(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
    ) -> Step<u32> {
        if view.store_policy != STORE_ARRAY {
            return Ok(Box::pin(self.tree_entry(cluster, op, index)).await?);
        }
        loop {
            let missing = {
                let state = lock(&self.state);
                match state.pages.get(index) {
                    Ok(entry) if state.version == view.version => return Ok(entry),
                    Ok(_) => Missing::Page,
                    Err(missing) => missing,
                }
            };
            let (first, count) = match missing {
                Missing::Page => (index - index % PAGE, PAGE),
                Missing::Entry(_) => (index, 1),
            };
            let entries = Box::pin(self.read_map(cluster, op, view, first, count)).await?;
            let entry = entries[(index - first) as usize];
            let mut state = lock(&self.state);
            if state.version != view.version {
                return Ok(entry);
            }
            match missing {
                Missing::Page => state.pages.insert(index / PAGE, entries),
                Missing::Entry(_) => state.pages.insert_entry(index, missing, entry),
            }
        }
    }

    /// Up to which index the entries from `index` on are known to be like it.
    pub(super) fn known_run(&self, view: &View, index: u32, is_like: impl Fn(u32) -> bool) -> u64 {
        let state = lock(&self.state);
        match &state.tree {
            _ if state.version != view.version => 0,
            Some(tree) => tree.run(index, is_like),
            None => state.pages.run(index, is_like),
        }
    }

    /// A part of the map, read from what is still the VDI that it was. Of one that has become a
    /// snapshot, and of a snapshot that is being deleted, which empties its map, it would say
    /// nothing.
    async fn read_map(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        first: u32,
        count: u32,
    ) -> Step<Vec<u32>> {
        let entries = inode::read_entries(cluster, op, view.vid, first, count).await?;
        // Afterwards: what it was then, it was when the map was read.
        let header = inode::read_header(cluster, op, view.vid).await?;
        if self.which != Which::WORKING {
            inode::check(&header, view.vid, &self.name, &self.which)?;
        } else if header.is_snapshot() || header.is_deleted() {
            return Err(Outcome::Frozen);
        }
        Ok(entries)
    }

    /// Makes every completed write stable, and final: nothing that was given up can happen to the
    /// VDI any more (5.5, 5.15).
    pub async fn flush(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        let vid = self.view().vid;
        cluster.settle(op, vid).await?;
        if cluster.flush_is_needless() {
            return Ok(());
        }
        let arm = ObjArm { oid: vid.inode().0.into(), ..Default::default() };
        let call = Call::new(Request::new(op::FLUSH_VDI, 0, arm)).resendable();
        if unless(cluster.call(op, call).await, SdResult::INVALID_PARMS)?.is_none() {
            // The server's way to say that writes are stable when acknowledged (4.8).
            cluster.set_flush_is_needless();
        }
        Ok(())
    }
}

/// An entry that may change: unknown as long as it is not known what came of that.
struct Doubt<'a> {
    vdi: &'a Vdi,
    index: u32,
}

impl Doubt<'_> {
    fn new(vdi: &Vdi, index: u32) -> Doubt<'_> {
        lock(&vdi.state).pages.doubt(index);
        Doubt { vdi, index }
    }

    fn resolve(self, entry: u32) {
        lock(&self.vdi.state).pages.set(self.index, entry);
        mem::forget(self);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        lock(&self.vdi.state).pages.doubt(self.index);
    }
}

async fn overwrite(cluster: &Cluster, op: &Op, oid: Oid, offset: u32, buf: &SendBuf) -> Step<()> {
    let request = write_request(op::WRITE_OBJ, oid, None, offset);
    match cluster.call(op, Call::new(request).payload(buf.clone()).resendable()).await {
        // Not created again: what it held is lost, and the caller must know (5.4).
        result if answered(&result, SdResult::NO_OBJ) => {
            Err(Outcome::Gone { index: oid.index(), entry: oid.vid().get() })
        }
        result => Ok(result.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(offset: u64, len: usize, shift: u8) -> Vec<(u32, u32, Range<usize>)> {
        pieces(offset, len, shift).map(|p| (p.index, p.offset, p.range)).collect()
    }

    #[test]
    fn ranges_are_cut_at_object_borders() {
        assert_eq!(list(0, 0, 22), []);
        assert_eq!(list(5, 3, 22), [(0, 5, 0..3)]);
        assert_eq!(list((1 << 22) - 1, 2, 22), [(0, (1 << 22) - 1, 0..1), (1, 0, 1..2)]);
        assert_eq!(list(1 << 20, 1 << 20, 20), [(1, 0, 0..1 << 20)]);
        assert_eq!(list(100, 2500, 10).len(), 3);
        assert_eq!(list(1 << 31, 1, 31), [(1, 0, 0..1)]);
        for (offset, len) in [(0, 0), (5, 3), (1 << 10, 1 << 10), (1023, 1), (1023, 2), (9, 4000)] {
            let all = list(offset, len, 10);
            let only = only_piece(offset, len, 10).map(|p| (p.index, p.offset, p.range));
            assert_eq!(only, (all.len() == 1).then(|| all[0].clone()));
        }
    }
}
