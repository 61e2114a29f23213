//! Reading and writing: ranges of a VDI as pieces of objects (5.3, 5.4, 5.5).

use std::mem;
use std::ops::Range;

use sheepdog_proto::header::ObjArm;
use sheepdog_proto::inode::STORE_ARRAY;
use sheepdog_proto::{Request, SdResult, Vid, op};

use super::inode::{self, answered, write_request};
use super::map::{IndexHold, PAGE, owner};
use super::range::REMOVAL_LIMIT;
use super::stale::{Cause, Retries};
use super::{Vdi, View, Which};
use crate::cluster::{Backoff, Call, Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{join, lock, try_for_each_concurrent};
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

/// `len` bytes at `offset`, cut at the borders of objects: I/O must not cross them, and servers do
/// not check (0.6).
pub(super) fn pieces(offset: u64, len: usize, shift: u8) -> impl Iterator<Item = Piece> {
    let object_size = 1u64 << shift;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = at & (object_size - 1);
        let take = (object_size - within).min((len - done) as u64) as usize;
        let range = done..done + take;
        done += take;
        Some(Piece { index: (at >> shift) as u32, offset: within as u32, range })
    })
}

pub(super) const BEYOND: Error = Error::Invalid("the range passes the end of the VDI");

/// The piece that a range is, where it lies in one object: the usual case, which needs no list.
fn only_piece(offset: u64, len: usize, shift: u8) -> Option<Piece> {
    pieces(offset, len, shift).next().filter(|piece| piece.range.end == len)
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
        let end = offset.checked_add(len).ok_or(BEYOND)?;
        let view = self.view();
        if end <= view.size {
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
                Err(Error::Refused(Refusal::NoVdi)) => {
                    Box::pin(self.follow(cluster, op)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let view = self.view();
        if end <= view.size { Ok(view) } else { Err(BEYOND) }
    }

    pub async fn read(&self, cluster: &Cluster, op: &Op, buf: RecvBuf, offset: u64) -> Result<()> {
        let view = self.view_of_range(cluster, op, offset, buf.len() as u64).await?;
        let piece = |p: Piece| self.read_piece(cluster, op, p.index, p.offset, buf.slice(p.range));
        match only_piece(offset, buf.len(), view.shift) {
            Some(p) => piece(p).await,
            None => {
                let all = pieces(offset, buf.len(), view.shift).map(piece);
                Box::pin(try_for_each_concurrent(all)).await
            }
        }
    }

    async fn read_piece(
        &self,
        cluster: &Cluster,
        op: &Op,
        index: u32,
        offset: u32,
        mut buf: RecvBuf,
    ) -> Result<()> {
        let mut retries = Retries::default();
        loop {
            let view = self.view();
            let entry = match self.entry(cluster, op, &view, index).await {
                result if answered(&result, SdResult::READONLY) => {
                    let cause = Cause::Frozen;
                    Box::pin(self.refresh(cluster, op, &view, cause, &mut retries)).await?;
                    continue;
                }
                result => result?,
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
                    return Ok(());
                }
                result if answered(&result, SdResult::NO_OBJ) => {
                    let cause = Cause::Gone { index, entry };
                    Box::pin(self.refresh(cluster, op, &view, cause, &mut retries)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn write(&self, cluster: &Cluster, op: &Op, buf: SendBuf, offset: u64) -> Result<()> {
        if self.which != Which::WORKING {
            return Err(Error::Refused(Refusal::ReadOnly));
        }
        let _change = self.changes.begin();
        let view = self.view_of_range(cluster, op, offset, buf.len() as u64).await?;
        let piece = |p: Piece| self.write_piece(cluster, op, p.index, p.offset, buf.slice(p.range));
        match only_piece(offset, buf.len(), view.shift) {
            Some(p) => piece(p).await,
            None => {
                let all = pieces(offset, buf.len(), view.shift).map(piece);
                Box::pin(try_for_each_concurrent(all)).await
            }
        }
    }

    pub(super) async fn write_piece(
        &self,
        cluster: &Cluster,
        op: &Op,
        index: u32,
        offset: u32,
        buf: SendBuf,
    ) -> Result<()> {
        let mut retries = Retries::default();
        loop {
            let pass = self.gate.pass().await;
            let view = self.view();
            // Cut off meanwhile: written now, it would come back when the VDI grows again.
            let end = (u64::from(index) << view.shift) + u64::from(offset) + buf.len() as u64;
            if end > view.size {
                return Err(BEYOND);
            }
            let result = self.write_once(cluster, op, &view, index, offset, &buf).await;
            // Whoever refreshes must close the gate, with this writer outside.
            drop(pass);
            let Some(cause) = Cause::of(result, index)? else { return Ok(()) };
            Box::pin(self.refresh(cluster, op, &view, cause, &mut retries)).await?;
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
    ) -> Result<Written> {
        let mut hold = self.indexes.shared(index).await;
        let mut asked = false;
        loop {
            if hold.needs_clearing() {
                Box::pin(self.clear_up(cluster, op, view, &mut hold)).await?;
            }
            let entry = self.entry(cluster, op, view, index).await?;
            if entry == view.vid.get() {
                return overwrite(cluster, op, view, &hold, offset, buf).await;
            }
            if hold.is_exclusive() {
                // Another client's resize may have made an object of our own there, which a CREATE
                // would replace: the stored entry decides.
                if !mem::replace(&mut asked, true) && view.store_policy == STORE_ARRAY {
                    let read = inode::read_entries(cluster, op, view.vid, index, 1);
                    let stored = Box::pin(read).await?[0];
                    if stored != entry {
                        // Ours, though we did not know: of a VDI that is no more it may be what
                        // another thread of ours has stored in vain.
                        if stored == view.vid.get()
                            && let Standing::Frozen =
                                Box::pin(standing(cluster, op, view.vid, index)).await?
                        {
                            return Ok(Written::Frozen);
                        }
                        lock(&self.state).pages.set(index, stored);
                        continue;
                    }
                }
                let allocate = self.allocate(cluster, op, view, &mut hold, entry, offset, buf);
                return Box::pin(allocate).await;
            }
            drop(hold);
            hold = self.indexes.exclusive(index).await;
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
        hold: &mut IndexHold<'_>,
        entry: u32,
        offset: u32,
        buf: &SendBuf,
    ) -> Result<Written> {
        self.wait_for_removal(cluster, op, view, hold.index, REMOVAL_LIMIT).await?;
        let oid = view.vid.data(hold.index);
        let base = owner(entry)?.map(|owner| owner.data(hold.index));
        let request = write_request(op::CREATE_AND_WRITE_OBJ, oid, base, offset);
        let mut backoff = Backoff::default();
        loop {
            let call = Call::new(request).payload(buf.clone()).tracked(&hold.ghosts);
            match cluster.call(op, call).await {
                Ok(_) => break,
                // Nobody else writes to the object, and no map update names it: it may be created
                // again, but never beside the lost attempt (0.5).
                Err(error) if error.is_ambiguous() => {
                    hold.inherited_ghosts.append(&mut hold.ghosts.take());
                    self.clear_up(cluster, op, view, hold).await?;
                    if !backoff.wait(cluster, op).await? {
                        return Err(error);
                    }
                }
                Err(error) => match error.server_result() {
                    Some(SdResult::READONLY) => return Ok(Written::Frozen),
                    Some(SdResult::NO_OBJ) if base.is_some() => return Ok(Written::Gone(entry)),
                    _ => return Err(error),
                },
            }
        }
        match self.update_entry(cluster, op, view, hold, entry, view.vid.get()).await {
            Ok(()) => {}
            result if answered(&result, SdResult::READONLY) => return Ok(Written::Stray(entry)),
            Err(error) => return Err(error),
        }
        match standing(cluster, op, view.vid, hold.index).await? {
            Standing::Current { size, .. } if u64::from(hold.index) << view.shift >= size => {
                // Another client has cut it off: left there, it would come back one day.
                lock(&self.state).removing.add(hold.index);
                self.update_entry(cluster, op, view, hold, view.vid.get(), 0).await?;
                lock(&self.state).header.vdi_size = size.into();
                Err(BEYOND)
            }
            Standing::Current { object: true, .. } => Ok(Written::Stable),
            Standing::Current { object: false, .. } => Ok(Written::Gone(view.vid.get())),
            Standing::Frozen => {
                // Else the next write would take the object for ours, and be acknowledged.
                lock(&self.state).pages.set(hold.index, entry);
                Ok(Written::Stray(entry))
            }
        }
    }

    /// Stores a new entry for the held index, once and exactly once.
    ///
    /// An update that may have been carried out is never repeated blindly: executed twice, it
    /// releases the replaced object's reference twice, and so takes the object away from others
    /// (3.7, hazard 2). The stored entry tells.
    pub(super) async fn update_entry(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &mut IndexHold<'_>,
        old: u32,
        new: u32,
    ) -> Result<()> {
        if view.store_policy != STORE_ARRAY {
            let new = Vid::new(new).ok_or(Error::Internal("entry"))?;
            return Box::pin(self.change_tree(cluster, op, view, &[(hold.index, new)])).await;
        }
        let mut refused = false;
        let mut backoff = Backoff::default();
        loop {
            hold.doubtful = true;
            let update = inode::write_entries(
                cluster,
                op,
                view.vid,
                hold.index,
                std::slice::from_ref(&new),
                &hold.ghosts,
            );
            let error = match update.await {
                Ok(()) => break,
                Err(error @ (Error::Lost(_) | Error::Server { .. })) => error,
                Err(error) => return Err(error),
            };
            hold.inherited_ghosts.append(&mut hold.ghosts.take());
            self.clear_up(cluster, op, view, hold).await?;
            let stored = self.entry(cluster, op, view, hold.index).await?;
            if stored == new {
                return Ok(());
            }
            if stored != old {
                return Err(Error::Io("another client changes the same part of the map"));
            }
            if error.is_ambiguous() {
                if !backoff.wait(cluster, op).await? {
                    return Err(error);
                }
            } else if std::mem::replace(&mut refused, true) {
                return Err(error);
            }
            // Time has passed: servers would let the update into a snapshot (7.2).
            if let Standing::Frozen = standing(cluster, op, view.vid, hold.index).await? {
                let (opcode, result) = (op::WRITE_OBJ, SdResult::READONLY);
                return Err(Error::Server { opcode, result });
            }
        }
        lock(&self.state).pages.set(hold.index, new);
        hold.doubtful = false;
        Ok(())
    }

    /// Clears up every index; to be called while the gate is closed.
    pub(super) async fn clear_up_all(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        for index in self.indexes.uncleared() {
            let mut hold = self.indexes.exclusive(index).await;
            self.clear_up(cluster, op, &self.view(), &mut hold).await?;
        }
        Ok(())
    }

    /// Waits for what earlier holders of the index gave up, and reads the entry again where it
    /// may have been changed by that.
    pub(super) async fn clear_up(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        hold: &mut IndexHold<'_>,
    ) -> Result<()> {
        while let Some(ghost) = hold.inherited_ghosts.last() {
            cluster.settled(op, *ghost).await?;
            hold.inherited_ghosts.pop();
        }
        if hold.doubtful {
            let stored = inode::read_entries(cluster, op, view.vid, hold.index, 1).await?;
            lock(&self.state).pages.set(hold.index, stored[0]);
            hold.doubtful = false;
        }
        Ok(())
    }

    /// The stored map entry of an index.
    pub(super) async fn entry(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        index: u32,
    ) -> Result<u32> {
        if view.store_policy != STORE_ARRAY {
            return Box::pin(self.tree_entry(cluster, op, index)).await;
        }
        let known = |vdi: &Vdi| {
            let state = lock(&vdi.state);
            if state.version == view.version { state.pages.get(index) } else { None }
        };
        if let Some(entry) = known(self) {
            return Ok(entry);
        }
        let page = index / PAGE;
        let entries = Box::pin(self.read_page(cluster, op, view, page)).await?;
        let entry = entries[(index % PAGE) as usize];
        let mut state = lock(&self.state);
        if state.version == view.version {
            state.pages.insert(page, entries);
            return Ok(state.pages.get(index).unwrap_or(entry));
        }
        Ok(entry)
    }

    /// A page of the map, read from what is still the working VDI. Of one that has become a
    /// snapshot, and was perhaps deleted since, which empties its map, it would say nothing: that
    /// is [`SdResult::READONLY`], as if it had been written to.
    async fn read_page(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        page: u32,
    ) -> Result<Vec<u32>> {
        let entries = inode::read_entries(cluster, op, view.vid, page * PAGE, PAGE).await?;
        if self.which == Which::WORKING {
            // Afterwards: what it was then, it was when the page was read.
            let header = inode::read_header(cluster, op, view.vid).await?;
            if header.is_snapshot() || header.is_deleted() {
                let (opcode, result) = (op::READ_OBJ, SdResult::READONLY);
                return Err(Error::Server { opcode, result });
            }
        }
        Ok(entries)
    }

    /// Makes every completed write stable (5.5).
    pub async fn flush(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        if cluster.flush_is_needless() {
            return Ok(());
        }
        let arm = ObjArm { oid: self.view().vid.inode().0.into(), ..Default::default() };
        let call = Call::new(Request::new(op::FLUSH_VDI, 0, arm)).resendable();
        match cluster.call(op, call).await {
            Ok(_) => Ok(()),
            // The server's way to say that writes are stable when acknowledged (4.8).
            result if answered(&result, SdResult::INVALID_PARMS) => {
                cluster.set_flush_is_needless();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What came of a change to the VDI as it was known.
pub(super) enum Written {
    /// It is done, and no crash takes it back.
    Stable,
    /// The VDI has become a snapshot, or is gone.
    Frozen,
    /// And before that was found out an object was created there, to replace this entry.
    Stray(u32),
    /// The object that the entry names does not exist.
    Gone(u32),
}

/// What a VDI is after its map was changed.
pub(super) enum Standing {
    /// The working VDI; `object`: the index has an object of the VDI's own.
    Current { object: bool, size: u64 },
    /// A snapshot, or gone.
    Frozen,
}

/// Whether the VDI is still the working one, after an update of its map was acknowledged, and
/// whether it has an object of its own at `index`.
///
/// A 1.0 server that takes a snapshot reads the whole inode and writes it back: an update in
/// between is acknowledged and lost (4.2). It marks the VDI read-only before that; so where the
/// mark is not there yet, the update was in time. An empty write is refused like any other once
/// the mark is there. The header tells of a VDI that was deleted meanwhile, which servers do not
/// mark.
pub(super) async fn standing(cluster: &Cluster, op: &Op, vid: Vid, index: u32) -> Result<Standing> {
    let touch = write_request(op::WRITE_OBJ, vid.data(index), None, 0);
    let (touched, header) =
        join(cluster.call(op, Call::new(touch).resendable()), inode::read_header(cluster, op, vid))
            .await;
    let object = match touched {
        Ok(_) => true,
        result if answered(&result, SdResult::NO_OBJ) => false,
        result if answered(&result, SdResult::READONLY) => return Ok(Standing::Frozen),
        Err(error) => return Err(error),
    };
    let header = header?;
    let frozen = header.is_snapshot() || header.is_deleted();
    let size = header.vdi_size.get();
    Ok(if frozen { Standing::Frozen } else { Standing::Current { object, size } })
}

async fn overwrite(
    cluster: &Cluster,
    op: &Op,
    view: &View,
    hold: &IndexHold<'_>,
    offset: u32,
    buf: &SendBuf,
) -> Result<Written> {
    let request = write_request(op::WRITE_OBJ, view.vid.data(hold.index), None, offset);
    let call = Call::new(request).payload(buf.clone()).resendable().tracked(&hold.ghosts);
    match cluster.call(op, call).await {
        Ok(_) => Ok(Written::Stable),
        Err(error) => match error.server_result() {
            Some(SdResult::READONLY) => Ok(Written::Frozen),
            // Not created again: what it held is lost, and the caller must know (5.4).
            Some(SdResult::NO_OBJ) => Ok(Written::Gone(view.vid.get())),
            _ => Err(error),
        },
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
    }
}
