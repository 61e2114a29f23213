//! Object operations (4.3 to 4.8), and what a write to an inode's map means (6.4).

use std::borrow::Cow;
use std::sync::Arc;

use sheepdog_proto::attr::ATTR_LEN;
use sheepdog_proto::inode::{
    INODE_LEN, MAP_END, MAP_OFFSET, SNAP_CTIME_OFFSET, STORE_ARRAY, map_entry_offset,
};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{FLAG_COW, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{InodeHeader, MAX_DATA_OBJECTS, Oid, Request, SdResult, Vid};

use crate::change::Change;
use crate::cluster::{Cluster, State, Vdi, count, disk, entries, object_len, read_header};
use crate::request::{Answer, Out, room};
use crate::store::{Data, Object};
use crate::{lock, read, write};

/// Bytes of an inode that are updated at a time where they are part of its map.
const MAP_SLICE: u64 = 256 << 10;
/// Bytes of a btree node object (3.2).
const BTREE_LEN: u64 = 4 << 20;

/// The part of an object that a READ is about.
pub struct Part {
    pub object: Arc<Object>,
    pub offset: u64,
    pub len: usize,
}

impl Cluster {
    pub fn read_object(&self, request: &Request, out: &mut Out) -> Result<Answer, SdResult> {
        count(&self.stat.reads, 1);
        let part = self.part_to_read(request)?;
        part.object.read(out.grow(part.len)?, part.offset).map_err(disk)?;
        Ok(Answer::OK)
    }

    /// Checks a READ and finds what it reads.
    pub fn part_to_read(&self, request: &Request) -> Result<Part, SdResult> {
        if request.flags.get() & FLAG_WRITE != 0 {
            return Err(SdResult::INVALID_PARMS);
        }
        let object = self.object(oid_of(request)?)?;
        let (offset, len) = (offset_of(request)?, room(request));
        check_end(offset, len, object.len())?;
        Ok(Part { object, offset, len })
    }

    pub fn create_object(&self, request: &Request, data: Data) -> Result<Answer, SdResult> {
        count(&self.stat.writes, 1);
        check_payload(request)?;
        let (oid, offset) = (oid_of(request)?, offset_of(request)?);
        let cow = request.flags.get() & FLAG_COW != 0;
        let kind = oid.kind().ok_or(SdResult::INVALID_PARMS)?;
        if kind == OidKind::Inode {
            if cow {
                return Err(SdResult::INVALID_PARMS);
            }
            let data = data.bytes().ok_or(SdResult::INVALID_PARMS)?;
            return self.create_inode(oid.vid(), offset, data);
        }
        let vdi = self.vdi(oid.vid());
        let state = vdi.as_ref().map(|vdi| read(&vdi.state));
        let len = match kind {
            OidKind::Attr => ATTR_LEN as u64,
            OidKind::Btree => BTREE_LEN,
            _ => self.data_len(oid, state.as_deref())?,
        };
        let frozen = |state: &State| match self.mimic {
            // Nothing keeps objects from being created for a VDI that was deleted (4.4).
            Some(_) => state.header.is_snapshot(),
            None => state.is_frozen(),
        };
        if kind == OidKind::Data && state.is_some_and(|s| frozen(&s) && !s.loading) {
            return Err(SdResult::READONLY);
        }
        check_end(offset, data.len(), len)?;
        // A payload that covers the whole object leaves nothing of the base: it is not read (4.4).
        let base = match cow && data.len() as u64 != len {
            true => Some(self.object(Oid(request.obj().cow_oid.get()))?),
            false => None,
        };
        self.store
            .create(oid, len, |object| {
                if let Some(base) = base {
                    object.fill_from(&base)?;
                }
                object.store(data, offset)
            })
            .map_err(disk)?;
        Ok(Answer::OK)
    }

    pub fn write_object(&self, request: &Request, data: Data) -> Result<Answer, SdResult> {
        count(&self.stat.writes, 1);
        check_payload(request)?;
        let (oid, offset) = (oid_of(request)?, offset_of(request)?);
        if oid.kind() == Some(OidKind::Inode) {
            let data = data.bytes().ok_or(SdResult::INVALID_PARMS)?;
            return self.write_inode(oid.vid(), offset, data);
        }
        let vdi = match oid.kind() {
            Some(OidKind::Data) => self.vdi(oid.vid()),
            _ => None,
        };
        // Held until the data is stored: a snapshot waits for the writes that came before it.
        let state = vdi.as_ref().map(|vdi| read(&vdi.state));
        if state.as_ref().is_some_and(|state| state.header.is_snapshot()) {
            return Err(SdResult::READONLY);
        }
        let object = self.object(oid)?;
        check_end(offset, data.len(), object.len())?;
        self.store.write_data(oid, &object, data, offset).map_err(disk)?;
        Ok(Answer::OK)
    }

    /// Without regard to maps and references, as on the real server (4.6), but never an inode:
    /// its VDI would be in use and gone.
    pub fn remove_object(&self, request: &Request) -> Result<Answer, SdResult> {
        count(&self.stat.removes, 1);
        let oid = oid_of(request)?;
        if oid.kind() == Some(OidKind::Inode) {
            return Err(SdResult::INVALID_PARMS);
        }
        match self.store.remove(oid, true).map_err(disk)? {
            true => Ok(Answer::OK),
            false => Err(SdResult::NO_OBJ),
        }
    }

    pub fn discard_object(&self, request: &Request) -> Result<Answer, SdResult> {
        let oid = oid_of(request)?;
        if oid.kind() != Some(OidKind::Data) || oid.index() >= MAX_DATA_OBJECTS {
            return Err(SdResult::INVALID_PARMS);
        }
        let vdi = self.vdi(oid.vid()).ok_or(SdResult::NO_OBJ)?;
        let state = read(&vdi.state);
        let inode = self.object(oid.vid().inode())?;
        if !state.has_array() {
            // The index of a hypervolume is the client's alone (3.9).
            return Err(SdResult::INVALID_PARMS);
        }
        let offset = map_entry_offset(oid.index()).into();
        if let Some(mimic) = &self.mimic {
            let mut entry = [0; 4];
            inode.read(&mut entry, offset).map_err(disk)?;
            if entry != [0; 4] {
                drop(state);
                self.mimic_write_inode(mimic, &vdi, &inode, offset, &[0; 4])?;
                self.store.remove(oid, false).map_err(disk)?;
            }
            return Ok(Answer::OK);
        }
        // Where the map names another VDI's object, one of this VDI that is there nevertheless stays
        // (4.7): it may be one that another client has just created and is about to map.
        self.update_map(&vdi, &state, &inode, offset, &[0; 4])?;
        Ok(Answer::OK)
    }

    /// With sync, every acknowledged write is durable already. Without, this makes them so, and
    /// clients must keep asking; INVALID_PARMS would tell them to stop (4.8).
    pub fn flush(&self, request: &Request) -> Result<Answer, SdResult> {
        count(&self.stat.flushes, 1);
        oid_of(request)?;
        if self.mimic.is_some() {
            return Err(SdResult::INVALID_PARMS);
        }
        if !self.store.syncs() {
            self.store.sync_all().map_err(disk)?;
        }
        Ok(Answer::OK)
    }

    /// An inode written as a whole, as `dog cluster snapshot load` does (4.4, 6.2).
    fn create_inode(&self, vid: Vid, offset: u64, data: &[u8]) -> Result<Answer, SdResult> {
        check_end(offset, data.len(), INODE_LEN.into())?;
        if vid.is_none() {
            return Err(SdResult::INVALID_PARMS);
        }
        let _order = lock(&self.order);
        let mut bytes = [0; size_of::<InodeHeader>()];
        overlay(&mut bytes, 0, data, offset);
        let header = InodeHeader::read_from_bytes(&bytes).map_err(|_| SdResult::INVALID_PARMS)?;
        let vdi = self.vdi(vid).unwrap_or_else(|| {
            let vdi = Vdi::new(vid, header);
            write(&vdi.state).present = false;
            Arc::new(vdi)
        });
        let mut state = write(&vdi.state);

        if state.present && !state.deleted && !state.loading && self.mimic.is_none() {
            check_identity(&state.header, &header)?;
        }
        let mut before = Vec::new();
        if state.present && state.has_array() && !state.deleted && self.mimic.is_none() {
            self.read_map(vid, |index, owner| before.push(owner.data(index))).map_err(disk)?;
        }
        let mut change = Change::new(self);
        if header.store_policy == STORE_ARRAY && !header.is_deleted() && self.mimic.is_none() {
            let (first, map) = map_part(offset, data);
            for (index, entry) in (first..).zip(entries(map)).filter(|(_, entry)| *entry != 0) {
                let owner = Vid::new(entry).ok_or(SdResult::INVALID_PARMS)?;
                change.gain(owner.data(index));
            }
        }
        let create = || {
            let fill = |inode: &Object| inode.fill(data, offset);
            self.store.create_for_good(vid.inode(), INODE_LEN.into(), fill)
        };
        // An object appears complete or not at all.
        change.store(create, || true)?.settle(|| Ok(()))?;
        self.note_shift(header.block_size_shift);
        state.header = header;
        state.present = true;
        state.deleted = header.is_deleted();
        drop(state);
        write(&self.vdis).entry(vid).or_insert(vdi);
        // What was deleted may have a name again.
        lock(&self.runs).clear();
        self.release_all(&before)?;
        Ok(Answer::OK)
    }

    fn write_inode(&self, vid: Vid, offset: u64, data: &[u8]) -> Result<Answer, SdResult> {
        check_end(offset, data.len(), INODE_LEN.into())?;
        let vdi = self.vdi(vid).ok_or(SdResult::NO_OBJ)?;
        if let Some(mimic) = &self.mimic {
            let inode = self.object(vid.inode())?;
            self.mimic_write_inode(mimic, &vdi, &inode, offset, data)?;
            return Ok(Answer::OK);
        }
        // The inode is opened under the lock: deletion puts another file in its place.
        if offset >= size_of::<InodeHeader>() as u64 {
            let state = read(&vdi.state);
            let inode = self.object(vid.inode())?;
            self.write_beyond_header(&vdi, &state, &inode, offset, data)?;
            return Ok(Answer::OK);
        }
        let mut state = write(&vdi.state);
        let inode = self.object(vid.inode())?;
        let mut data = Cow::Borrowed(data);
        if state.header.is_snapshot() {
            // A snapshot never thaws, also where a client writes back a header that it read before
            // the snapshot was taken, as `dog vdi resize` does (7.3).
            let time = state.header.snap_ctime.get().to_le_bytes();
            overlay(data.to_mut(), offset, &time, SNAP_CTIME_OFFSET.into());
        }
        let mut header = state.header;
        overlay(header.as_mut_bytes(), 0, &data, offset);
        check_identity(&state.header, &header)?;
        self.write_beyond_header(&vdi, &state, &inode, offset, &data)?;
        state.header = read_header(&inode).map_err(disk)?;
        Ok(Answer::OK)
    }

    fn write_beyond_header(
        &self,
        vdi: &Vdi,
        state: &State,
        inode: &Object,
        offset: u64,
        data: &[u8],
    ) -> Result<(), SdResult> {
        let end = offset + data.len() as u64;
        let touches_map = offset < MAP_END.into() && end > MAP_OFFSET.into() && !data.is_empty();
        if touches_map && state.has_array() {
            self.update_map(vdi, state, inode, offset, data)
        } else {
            self.store.write(vdi.vid.inode(), inode, data, offset).map_err(disk)
        }
    }

    /// Writes to an inode's array, and removes what no inode names any more (6.4).
    fn update_map(
        &self,
        vdi: &Vdi,
        state: &State,
        inode: &Object,
        offset: u64,
        data: &[u8],
    ) -> Result<(), SdResult> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            // Whole entries each time, as MAP_SLICE is a multiple of theirs.
            let len = (MAP_SLICE - at % MAP_SLICE).min(rest.len() as u64);
            let (part, others) = rest.split_at(len as usize);
            self.update_part_of_map(vdi, state, inode, at, part)?;
            (at, rest) = (at + len, others);
        }
        Ok(())
    }

    fn update_part_of_map(
        &self,
        vdi: &Vdi,
        state: &State,
        inode: &Object,
        offset: u64,
        data: &[u8],
    ) -> Result<(), SdResult> {
        // Whole entries, however the client cut its write.
        let end = offset + data.len() as u64;
        let first = offset.clamp(MAP_OFFSET.into(), MAP_END.into()) & !3;
        let last = (end.clamp(MAP_OFFSET.into(), MAP_END.into()) + 3) & !3;
        let mut old = vec![0; (last - first) as usize];
        let index = ((first - u64::from(MAP_OFFSET)) / 4) as u32;
        let mut change = Change::new(self);
        let stored = {
            let _map = lock(&vdi.map);
            inode.read(&mut old, first).map_err(disk)?;
            let mut new = old.clone();
            overlay(&mut new, first, data, offset);
            let pairs = entries(&old).zip(entries(&new));
            for (index, (old, new)) in (index..).zip(pairs).filter(|(_, (old, new))| old != new) {
                if new != 0 {
                    change.gain(Vid::new(new).ok_or(SdResult::INVALID_PARMS)?.data(index));
                }
                // What a deleted VDI named was given up with it.
                let named = Vid::new(old).filter(|owner| !owner.is_none() && !state.deleted);
                if let Some(owner) = named {
                    change.lose(owner.data(index));
                }
            }
            if change.gains() && state.is_frozen() {
                return Err(SdResult::READONLY);
            }
            // An entry that is 0 already may be so in a hole, which needs no space to stay one.
            let inside = offset >= MAP_OFFSET.into() && end <= MAP_END.into();
            let needless = inside && change.is_empty();
            let fill = || if needless { Ok(()) } else { inode.fill(data, offset) };
            let unchanged = || {
                let mut now = vec![0; old.len()];
                inode.read(&mut now, first).is_ok() && now == old
            };
            change.store(fill, unchanged)?
        };
        // Outside the lock, so that updates of other entries share one sync.
        stored.settle(|| self.store.sync(vdi.vid.inode(), inode))
    }

    /// An object that a client may know of: reference counts are no objects here (6.2).
    fn object(&self, oid: Oid) -> Result<Arc<Object>, SdResult> {
        if oid.kind() == Some(OidKind::Ledger) && self.mimic.is_none() {
            return Err(SdResult::NO_OBJ);
        }
        self.store.get(oid).map_err(disk)?.ok_or(SdResult::NO_OBJ)
    }

    /// Bytes of a data or vmstate object to be created.
    fn data_len(&self, oid: Oid, state: Option<&State>) -> Result<u64, SdResult> {
        match state {
            Some(state) if state.has_array() && oid.index() >= MAX_DATA_OBJECTS => None,
            Some(state) => state.object_len(),
            // A VDI that nobody knows has the cluster's geometry (3.2).
            None => object_len(read(&self.config).block_size_shift),
        }
        .ok_or(SdResult::INVALID_PARMS)
    }
}

/// What a VDI is called, and how its objects are found, are not for its clients to change: no client
/// does, and objects would be lost or taken for others.
fn check_identity(old: &InodeHeader, new: &InodeHeader) -> Result<(), SdResult> {
    let same = old.name() == new.name()
        && old.vdi_id == new.vdi_id
        && old.store_policy == new.store_policy
        && old.block_size_shift == new.block_size_shift;
    if same { Ok(()) } else { Err(SdResult::INVALID_PARMS) }
}

/// The object that the request is about, if its id can be one.
fn oid_of(request: &Request) -> Result<Oid, SdResult> {
    let oid = Oid(request.obj().oid.get());
    match oid.kind() {
        // No VDI has the id 0 (2.5), so none of its objects can be.
        Some(_) if oid.vid().is_none() => Err(SdResult::NO_OBJ),
        Some(OidKind::Inode) if oid.index() != 0 => Err(SdResult::INVALID_PARMS),
        Some(_) => Ok(oid),
        None => Err(SdResult::INVALID_PARMS),
    }
}

fn offset_of(request: &Request) -> Result<u64, SdResult> {
    match request.obj().offset_high.get() {
        0 => Ok(request.obj().offset.get().into()),
        _ => Err(SdResult::INVALID_PARMS),
    }
}

/// The real server neither refuses nor survives what lies beyond an object's end (0.6, 6.3).
fn check_end(offset: u64, len: usize, object_len: u64) -> Result<(), SdResult> {
    if offset + len as u64 <= object_len { Ok(()) } else { Err(SdResult::INVALID_PARMS) }
}

/// A length without the flag that announces a payload is a client's mistake (4.5).
fn check_payload(request: &Request) -> Result<(), SdResult> {
    let has_flag = request.flags.get() & FLAG_WRITE != 0;
    if has_flag || request.data_length.get() == 0 { Ok(()) } else { Err(SdResult::INVALID_PARMS) }
}

/// Copies `data`, which lies at `at`, over that part of `bytes`, which lies at `start`, that it
/// overlaps.
fn overlay(bytes: &mut [u8], start: u64, data: &[u8], at: u64) {
    let skip = start.saturating_sub(at) as usize;
    let to = at.saturating_sub(start) as usize;
    if let (Some(from), Some(to)) = (data.get(skip..), bytes.get_mut(to..)) {
        let n = to.len().min(from.len());
        to[..n].copy_from_slice(&from[..n]);
    }
}

/// The whole map entries in `data`, which lies at `offset` of an inode, and the first one's index.
fn map_part(offset: u64, data: &[u8]) -> (u32, &[u8]) {
    let first = (offset.max(MAP_OFFSET.into()) + 3) & !3;
    let last = (offset + data.len() as u64).min(MAP_END.into());
    let range = first.saturating_sub(offset) as usize..last.saturating_sub(offset) as usize;
    (((first - u64::from(MAP_OFFSET)) / 4) as u32, data.get(range).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_overlaps_is_copied() {
        for (start, at, expected) in [
            (10, 10, [1, 2, 3, 0]),
            (10, 8, [3, 0, 0, 0]),
            (10, 12, [0, 0, 1, 2]),
            (10, 7, [0; 4]),
            (10, 14, [0; 4]),
            (0, u64::from(u32::MAX), [0; 4]),
        ] {
            let mut bytes = [0; 4];
            overlay(&mut bytes, start, &[1, 2, 3], at);
            assert_eq!(bytes, expected, "{start} {at}");
        }
    }

    #[test]
    fn the_map_is_found_in_whatever_part_of_an_inode() {
        let data: Vec<u8> = (0..40).collect();
        let map = u64::from(MAP_OFFSET);
        assert_eq!(map_part(map - 10, &data), (0, &data[10..]));
        assert_eq!(map_part(map, &data), (0, &data[..]));
        assert_eq!(map_part(map + 4, &data), (1, &data[..]));
        assert_eq!(map_part(map + 5, &data), (2, &data[3..]));
        assert_eq!(map_part(0, &data).1, b"");
        assert_eq!(map_part(u64::from(MAP_END) - 8, &data).1, &data[..8]);
        assert_eq!(map_part(u64::from(MAP_END) + 8, &data).1, b"");
    }
}
