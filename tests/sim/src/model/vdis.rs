//! Cluster operations: VDIs, locks, attributes (3.3, 3.4, 4.2, 4.9 to 4.11, 4.14).

use std::cell::RefMut;
use std::rc::Rc;

use sheepdog_proto::attr::AttrHeader;
use sheepdog_proto::header::{VdiArm, VdiReply};
use sheepdog_proto::inode::{
    INODE_LEN, MAP_END, MAP_OFFSET, STORE_ARRAY, STORE_BTREE, VDI_SIZE_OFFSET, map_entry_offset,
    object_count,
};
use sheepdog_proto::zerocopy::little_endian::U64;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{
    InodeHeader, NAME_LEN, Request, SdResult, VID_SPACE, Vid, btree, field_text, hash, op,
};

use super::peers::PeerOp;
use super::store::Sparse;
use super::{Answer, Cluster, Known, Lock, Participant};
use crate::host::NodeId;

const HEADER: u64 = size_of::<InodeHeader>() as u64;
const MAP: u64 = MAP_OFFSET as u64;
const GREF: u64 = MAP_END as u64;

/// What a lookup of a name found (3.4).
enum Found {
    Vid(u32),
    /// No working VDI. The next one of that name gets this number, after this snapshot if any.
    Next(u32, u32),
}

impl Cluster {
    pub(super) async fn vdi_operation(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
        arm: &mut [u8; 28],
    ) -> Answer<()> {
        let mut reply = VdiReply::default();
        let result = match request.opcode {
            op::NEW_VDI => self.new_vdi(gateway, request, payload, &mut reply).await,
            op::DEL_VDI => self.del_vdi(gateway, request, payload, &mut reply).await,
            op::RELEASE_VDI => {
                self.unlock(gateway, request.vdi());
                Ok(())
            }
            op::GET_VDI_ATTR => self.attribute(gateway, request, payload, &mut reply).await,
            _ => self.find_vdi(gateway, request, payload, &mut reply).await,
        };
        *arm = reply.into();
        result
    }

    /// GET_VDI_INFO and LOCK_VDI.
    async fn find_vdi(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
        reply: &mut VdiReply,
    ) -> Answer<()> {
        let vid = self.resolve(gateway, request, payload).await?;
        let mut vdi = self.known(vid);
        reply.vdi_id = vid.into();
        reply.copies = vdi.copies;
        reply.block_size_shift = vdi.shift;
        match request.opcode == op::LOCK_VDI && self.config.borrow().use_lock {
            true => lock(&mut vdi.lock, gateway, request.vdi().lock_type.get()),
            false => Ok(()),
        }
    }

    /// The VDI that a payload of name, or of name and tag, means.
    async fn resolve(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
    ) -> Answer<u32> {
        if ![NAME_LEN, 2 * NAME_LEN].contains(&payload.len()) {
            return Err(SdResult::INVALID_PARMS);
        }
        let (name, tag) = payload.split_at(NAME_LEN);
        let snapid = request.vdi().snapid.get();
        match self.look_up(gateway, field_text(name), field_text(tag), snapid).await? {
            Found::Vid(vid) => Ok(vid),
            Found::Next(..) => Err(SdResult::NO_VDI),
        }
    }

    /// Goes through the inodes that may have that name, the newest first (3.4).
    async fn look_up(
        self: &Rc<Self>,
        gateway: NodeId,
        name: &[u8],
        tag: &[u8],
        snapid: u32,
    ) -> Answer<Found> {
        let recycle = self.config.borrow().recycle;
        let mut seen_working = false;
        for vid in self.candidates(name) {
            let oid = Vid::new(vid).expect("in use").inode();
            let inode = self.ask(gateway, oid, PeerOp::Read).await?;
            let header = header(&inode);
            if header.name() != name {
                continue;
            }
            if tag.is_empty() && snapid == 0 {
                return Ok(match header.is_snapshot() && !recycle {
                    true => Found::Next(header.snap_id.get().wrapping_add(1), vid),
                    false => Found::Vid(vid),
                });
            }
            let tagged = !tag.is_empty() && header.tag() == tag;
            if !header.is_snapshot() {
                seen_working = true;
            } else if tagged || header.snap_id.get() == snapid {
                return Ok(Found::Vid(vid));
            }
        }
        match (tag.is_empty() && snapid == 0, seen_working) {
            (true, _) => Ok(Found::Next(1, 0)),
            (_, true) => Err(SdResult::NO_TAG),
            (_, false) => Err(SdResult::NO_VDI),
        }
    }

    /// The VIDs to visit, in order; none where the first is not in use.
    fn candidates(&self, name: &[u8]) -> Vec<u32> {
        let in_use = self.in_use.borrow();
        if self.config.borrow().recycle {
            return in_use.iter().rev().copied().collect();
        }
        let mut vids = Vec::new();
        let mut vid = hash::vid_of_name(name).get();
        while in_use.contains(&vid) && vids.len() < in_use.len() {
            vids.push(vid);
            vid = if vid + 1 == VID_SPACE { 1 } else { vid + 1 };
        }
        vids.reverse();
        vids
    }

    /// The VID of a new inode of that name (3.3).
    fn free_vid(&self, name: &[u8]) -> Option<u32> {
        let in_use = self.in_use.borrow();
        if in_use.len() as u32 == VID_SPACE - 1 {
            return None;
        }
        let recycle = self.config.borrow().recycle;
        let mut vid = if recycle { 1 } else { hash::vid_of_name(name).get() };
        while in_use.contains(&vid) {
            vid = if vid + 1 == VID_SPACE { 1 } else { vid + 1 };
        }
        Some(vid)
    }

    async fn new_vdi(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
        reply: &mut VdiReply,
    ) -> Answer<()> {
        let name: [u8; NAME_LEN] = payload.try_into().map_err(|_| SdResult::INVALID_PARMS)?;
        let arm = request.vdi();
        let base = arm.base_vdi_id.get();
        let found = self.look_up(gateway, field_text(&name), b"", 0).await?;
        let (current, snap_id, newest) = match (found, arm.snapid.get()) {
            // On recycling clusters also where there are only snapshots (3.4).
            (Found::Vid(_), 0) => return Err(SdResult::VDI_EXIST),
            (Found::Next(snap_id, newest), 0) => (None, snap_id, newest),
            (Found::Vid(vid), _) => {
                let snap_id = self.header(gateway, vid).await?.snap_id.get();
                (Some(vid), snap_id.wrapping_add(1), vid)
            }
            (Found::Next(..), _) => return Err(SdResult::NO_VDI),
        };
        let vid = self.free_vid(field_text(&name)).ok_or(SdResult::FULL_VDI)?;
        let known = self.settings(arm);
        reply.vdi_id = vid.into();
        reply.copies = known.copies;
        reply.block_size_shift = known.shift;

        let mut new = Sparse::default();
        let time = self.time();
        let inode = InodeHeader {
            name,
            create_time: time.into(),
            vdi_size: arm.vdi_size,
            copy_policy: known.copy_policy,
            store_policy: arm.store_policy,
            nr_copies: known.copies,
            block_size_shift: known.shift,
            snap_id: snap_id.into(),
            vdi_id: vid.into(),
            parent_vdi_id: base.into(),
            ..Default::default()
        };
        new.write(0, inode.as_bytes());
        // Nothing of a name is kept behind its end.
        new.zero(field_text(&name).len().min(NAME_LEN - 1) as u64..NAME_LEN as u64);
        if arm.store_policy == STORE_BTREE {
            new.write(MAP, &btree::EMPTY_ROOT);
        }

        // (a) In memory.
        let _turns = (
            self.turn_of(base).await,
            self.turn_of(current.filter(|current| *current != base).unwrap_or(0)).await,
        );
        // What is frozen is the working VDI, or the source of a clone, though that goes on as
        // a working VDI in the store.
        let frozen = current.unwrap_or(base);
        let parent = if frozen == 0 { newest } else { frozen };
        self.add(vid, Known { parent, ..known });
        if frozen != 0 {
            self.freeze(gateway, frozen);
        }
        // (b) to (d) In the store.
        if base != 0 || current.is_some() {
            self.derive(gateway, base, current, time, &mut new).await?;
        }
        let oid = Vid::new(vid).expect("24 bits").inode();
        let created = self.ask(gateway, oid, PeerOp::Create(new)).await;
        created.map_err(|_| SdResult::VDI_WRITE)?;
        // (e)
        self.host.pause(gateway, "marks the id in use").await;
        self.in_use.borrow_mut().insert(vid);
        self.deleted.borrow_mut().remove(&vid);
        Ok(())
    }

    async fn header(self: &Rc<Self>, gateway: NodeId, vid: u32) -> Answer<InodeHeader> {
        let oid = Vid::new(vid).ok_or(SdResult::NO_VDI)?.inode();
        Ok(header(&self.ask(gateway, oid, PeerOp::Read).await?))
    }

    async fn turn_of(&self, vid: u32) -> Option<super::wait::Turn> {
        let vid = Vid::new(vid).filter(|vid| !vid.is_none())?;
        self.inode_turn(vid).await
    }

    /// What a new VDI gets where the request does not say (4.2).
    fn settings(&self, arm: &VdiArm) -> Known {
        let config = self.config.borrow();
        let (mut copies, mut copy_policy) = (arm.copies, arm.copy_policy);
        if copies == 0 {
            (copies, copy_policy) = (config.copies, 0);
        }
        if copy_policy != 0 {
            copies = (copy_policy >> 4) * 2 + (copy_policy & 15);
        }
        let shift = if arm.block_size_shift == 0 { config.shift } else { arm.block_size_shift };
        Known { copies, copy_policy, shift, ..Default::default() }
    }

    /// A VDI that was known before, though it did not exist, keeps its parent and its lock.
    fn add(&self, vid: u32, known: Known) {
        let mut vdi = self.known(vid);
        let parent = if known.parent == 0 { vdi.parent } else { known.parent };
        *vdi = Known { parent, lock: std::mem::take(&mut vdi.lock), ..known };
    }

    /// What is known of a VDI; of one that does not exist, what is usual in the cluster.
    fn known(&self, vid: u32) -> RefMut<'_, Known> {
        let config = self.config.borrow();
        let usual = Known { copies: config.copies, shift: config.shift, ..Default::default() };
        RefMut::map(self.vdis.borrow_mut(), |vdis| vdis.entry(vid).or_insert(usual))
    }

    /// A VDI becomes a snapshot, in the memory of this gateway now, in that of others soon.
    fn freeze(self: &Rc<Self>, gateway: NodeId, vid: u32) {
        self.known(vid).snapshot = true;
        if !self.config.borrow().hazards.late_knowledge {
            return;
        }
        for node in self.host.members().into_iter().filter(|node| *node != gateway) {
            self.unaware.borrow_mut().insert((node, vid));
            let cluster = self.clone();
            let learn = async move {
                cluster.host.pause(node, "hears of a snapshot").await;
                cluster.unaware.borrow_mut().remove(&(node, vid));
            };
            self.host.spawn(node, Box::pin(learn));
        }
    }

    /// Reads the base, counts a reference more for each of its objects, writes all of it back,
    /// and gives the new inode the same map (4.2). What had that name becomes a snapshot.
    async fn derive(
        self: &Rc<Self>,
        gateway: NodeId,
        base: u32,
        current: Option<u32>,
        time: u64,
        new: &mut Sparse,
    ) -> Answer<()> {
        let base_oid = Vid::new(base).ok_or(SdResult::BASE_VDI_READ)?.inode();
        let read = self.ask(gateway, base_oid, PeerOp::Read).await;
        let mut inode = read.map_err(|_| SdResult::BASE_VDI_READ)?;
        match current {
            Some(current) if current == base => inode.write(520, &time.to_le_bytes()),
            Some(current) => {
                let oid = Vid::new(current).expect("found").inode();
                let data = time.to_le_bytes().into();
                let frozen = self.ask(gateway, oid, PeerOp::Write { offset: 520, data }).await;
                frozen.map_err(|_| SdResult::VDI_WRITE)?;
            }
            None => {}
        }
        if header(&inode).store_policy == STORE_ARRAY {
            let map: Vec<(u64, u32)> = inode.words(MAP..GREF).collect();
            for (at, vid) in map {
                let gref = GREF + (at - MAP) * 2;
                let generation = inode.word(gref).wrapping_add(1);
                let count = inode.word(gref + 4).wrapping_add(1);
                new.write(at, &vid.to_le_bytes());
                new.write(gref, &generation.to_le_bytes());
                inode.write(gref + 4, &count.to_le_bytes());
            }
        } else {
            new.zero(MAP..GREF);
            for (start, sector) in inode.sectors(MAP..GREF) {
                let from = start.max(MAP);
                let to = (start + super::store::SECTOR).min(GREF);
                new.write(from, &sector[(from - start) as usize..(to - start) as usize]);
            }
        }
        self.host.pause(gateway, "writes the base back").await;
        let written = self.ask(gateway, base_oid, PeerOp::Replace(inode)).await;
        written.map_err(|_| SdResult::BASE_VDI_WRITE)?;
        Ok(())
    }

    async fn del_vdi(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
        reply: &mut VdiReply,
    ) -> Answer<()> {
        let vid = self.resolve(gateway, request, payload).await?;
        let oid = Vid::new(vid).expect("found").inode();
        let mut inode = self.ask(gateway, oid, PeerOp::Read).await?;
        reply.vdi_id = vid.into();
        let header = header(&inode);
        let size = header.vdi_size.get();
        let shift = u32::from(header.block_size_shift.min(63));
        let count =
            object_count(size, shift as u8).min(u64::from(sheepdog_proto::MAX_DATA_OBJECTS));
        let end = u64::from(map_entry_offset(count as u32));
        let empty = inode.words(MAP..end).next().is_none();
        // The inode of a VDI with objects stays as it is, but is not listed any more (4.11).
        if empty || header.store_policy != STORE_ARRAY {
            inode.zero(0..NAME_LEN as u64);
            inode.zero(VDI_SIZE_OFFSET.into()..u64::from(VDI_SIZE_OFFSET) + 8);
            inode.zero(MAP..u64::from(INODE_LEN));
            self.host.pause(gateway, "blanks the inode").await;
            self.ask(gateway, oid, PeerOp::Replace(inode)).await?;
        }
        self.deleted.borrow_mut().insert(vid);
        if self.config.borrow().recycle {
            self.recycle(vid);
        }
        Ok(())
    }

    /// The ids of a family that is deleted as a whole are free again (3.3).
    fn recycle(&self, vid: u32) {
        let mut family = vec![vid];
        let mut vdis = self.vdis.borrow_mut();
        let mut seen = 0;
        while let Some(&member) = family.get(seen) {
            seen += 1;
            let related = vdis.iter().filter(|(vid, vdi)| {
                let child = vdi.parent == member;
                child || vdis.get(&member).is_some_and(|member| member.parent == **vid)
            });
            let related: Vec<u32> = related.map(|(vid, _)| *vid).collect();
            family.extend(
                related.into_iter().filter(|vid| !family.contains(vid)).collect::<Vec<_>>(),
            );
        }
        let mut deleted = self.deleted.borrow_mut();
        if family.iter().all(|vid| deleted.contains(vid)) {
            for vid in family {
                deleted.remove(&vid);
                vdis.remove(&vid);
                self.in_use.borrow_mut().remove(&vid);
                let oid = Vid::new(vid).expect("24 bits").inode();
                self.objects.borrow_mut().remove(&oid);
            }
        }
    }

    /// RELEASE_VDI (4.10): anyone may, and where there is nothing to release it succeeds.
    fn unlock(&self, gateway: NodeId, arm: &VdiArm) {
        if let Some(vdi) = self.vdis.borrow_mut().get_mut(&arm.base_vdi_id.get()) {
            match (&mut vdi.lock, arm.lock_type.get()) {
                (Lock::Locked(_), op::LOCK_NORMAL) => vdi.lock = Lock::Unlocked,
                (Lock::Shared(list), op::LOCK_SHARED) => {
                    list.retain(|(node, _)| *node != gateway);
                    if list.is_empty() {
                        vdi.lock = Lock::Unlocked;
                    }
                }
                _ => {}
            }
        }
    }

    /// GET_VDI_ATTR (4.14).
    async fn attribute(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &[u8],
        reply: &mut VdiReply,
    ) -> Answer<()> {
        let (key, _) =
            AttrHeader::read_from_prefix(payload).map_err(|_| SdResult::INVALID_PARMS)?;
        let (name, tag) = (field_text(&key.name), field_text(&key.tag));
        let snapid = request.vdi().snapid.get();
        let Found::Vid(vid) = self.look_up(gateway, name, tag, snapid).await? else {
            return Err(SdResult::NO_VDI);
        };
        // A recycling cluster that finds a snapshot instead of a working VDI tells no time.
        let header = self.header(gateway, vid).await?;
        let missed = header.is_snapshot() && tag.is_empty() && snapid == 0;
        let ctime = if missed { U64::ZERO } else { header.create_time };
        reply.vdi_id = hash::vid_of_name(name).get().into();
        reply.copies = self.copies_of(key.oid(0));

        let flag = |flag| request.flags.get() & flag != 0;
        let create = flag(op::FLAG_ATTR_CREAT);
        let (id, found) = match create && !flag(op::FLAG_ATTR_EXCL) {
            true => (key.first_id(), false),
            false => self.probe(gateway, &key).await?,
        };
        reply.attr_id = id.into();
        let oid = key.oid(id);
        match (found, create) {
            (true, _) if flag(op::FLAG_ATTR_EXCL) => Err(SdResult::VDI_EXIST),
            (_, true) => {
                let mut record = Sparse::default();
                record.write(0, payload);
                record.write(512, ctime.as_bytes());
                self.ask(gateway, oid, PeerOp::Create(record)).await.map(|_| ())
            }
            (false, false) => Err(SdResult::NO_OBJ),
            (true, false) if flag(op::FLAG_ATTR_DEL) => {
                let data = [0].into();
                self.ask(gateway, oid, PeerOp::Write { offset: 0, data }).await.map(|_| ())
            }
            (true, false) => Ok(()),
        }
    }

    /// Where an attribute is, or where there is none any more (3.8).
    async fn probe(self: &Rc<Self>, gateway: NodeId, key: &AttrHeader) -> Answer<(u32, bool)> {
        let mut id = key.first_id();
        loop {
            match self.ask(gateway, key.oid(id), PeerOp::Read).await {
                Ok(stored) if same_key(&stored, key) => return Ok((id, true)),
                Ok(_) => id = id.wrapping_add(1),
                Err(SdResult::NO_OBJ) => return Ok((id, false)),
                Err(error) => return Err(error),
            }
        }
    }
}

fn header(inode: &Sparse) -> InodeHeader {
    InodeHeader::read_from_bytes(&inode.read(0, HEADER)).expect("as many bytes")
}

fn same_key(stored: &Sparse, key: &AttrHeader) -> bool {
    let bytes = stored.read(0, size_of::<AttrHeader>() as u64);
    AttrHeader::read_from_bytes(&bytes).is_ok_and(|stored| stored.same_key(key))
}

/// LOCK_VDI on a cluster with locks (4.10).
fn lock(lock: &mut Lock, gateway: NodeId, kind: u32) -> Answer<()> {
    match (&mut *lock, kind) {
        (Lock::Unlocked, op::LOCK_NORMAL) => *lock = Lock::Locked(gateway),
        (Lock::Unlocked, op::LOCK_SHARED) => {
            *lock = Lock::Shared(vec![(gateway, Participant::Modified)]);
        }
        (Lock::Shared(list), op::LOCK_SHARED) if list.iter().all(|(node, _)| *node != gateway) => {
            let modified = list.iter().any(|(_, state)| *state == Participant::Modified);
            list.push((
                gateway,
                match modified {
                    true => Participant::Invalidated,
                    false => Participant::Shared,
                },
            ));
        }
        _ => return Err(SdResult::VDI_LOCKED),
    }
    Ok(())
}
