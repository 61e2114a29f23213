//! Object operations (4.3 to 4.7), map updates and the references that they release (3.7).

use std::rc::Rc;

use sheepdog_proto::attr::ATTR_LEN;
use sheepdog_proto::inode::{INODE_LEN, MAP_END, MAP_OFFSET, gref_offset, map_entry_offset};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{Oid, Request, SdResult, Vid, btree, op};

use super::peers::PeerOp;
use super::store::Sparse;
use super::wait::{Turn, Turns};
use super::{Answer, Cluster, Lock, Participant};
use crate::host::NodeId;

/// The length of the read that makes a gateway's copy of an inode valid again (4.3).
const REFRESH: u32 = MAP_END;

/// Where a snapshot's time lies in the inode.
const SNAP_CTIME: std::ops::Range<u64> = 520..528;

impl Cluster {
    pub(super) async fn object_io(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: Vec<u8>,
    ) -> Answer<Vec<u8>> {
        let payload: Rc<[u8]> = payload.into();
        loop {
            let answer = match request.opcode {
                op::READ_OBJ => self.read_object(gateway, request).await,
                op::WRITE_OBJ => self.write_object(gateway, request, &payload).await,
                op::CREATE_AND_WRITE_OBJ => self.create_object(gateway, request, &payload).await,
                op::REMOVE_OBJ => {
                    let oid = Oid(request.obj().oid.get());
                    self.ask(gateway, oid, PeerOp::Remove).await.map(|_| Vec::new())
                }
                _ => self.discard_object(gateway, request).await,
            };
            match answer {
                // Gateways begin the whole request again (2.4).
                Err(SdResult::OLD_NODE_VER) => self.next_epoch(gateway).await,
                answer => return answer,
            }
        }
    }

    async fn read_object(self: &Rc<Self>, gateway: NodeId, request: &Request) -> Answer<Vec<u8>> {
        let arm = request.obj();
        let (oid, offset) = (Oid(arm.oid.get()), arm.offset.get());
        let len = request.data_length.get();
        let refresh = oid.kind() == Some(OidKind::Inode) && offset == 0 && len == REFRESH;
        if refresh {
            self.refresh(gateway, oid.vid());
        } else {
            self.check_valid(gateway, request, oid)?;
        }
        let bytes = self.ask(gateway, oid, PeerOp::Read).await?;
        let header = u64::from(offset) < SNAP_CTIME.end;
        if oid.kind() == Some(OidKind::Inode)
            && header
            && !bytes.read(520, 8).iter().all(|b| *b == 0)
        {
            let seen = (request.epoch.get(), oid.vid().get());
            self.seen_frozen.borrow_mut().insert(seen);
        }
        Ok(bytes.read(offset.into(), len.into()))
    }

    async fn write_object(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &Rc<[u8]>,
    ) -> Answer<Vec<u8>> {
        let arm = request.obj();
        let (oid, offset) = (Oid(arm.oid.get()), arm.offset.get());
        self.check_change(gateway, request, oid)?;
        let end = u64::from(offset) + payload.len() as u64;
        let inode = oid.kind() == Some(OidKind::Inode);
        if inode && offset >= MAP_OFFSET && end <= u64::from(MAP_END) && !payload.is_empty() {
            self.check_late_update(request, oid.vid(), payload)?;
            self.update_map(gateway, oid.vid(), offset, payload).await?;
        } else {
            let write = PeerOp::Write { offset: offset.into(), data: payload.clone() };
            self.ask_once(gateway, oid, write).await?;
        }
        Ok(Vec::new())
    }

    async fn create_object(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: &Rc<[u8]>,
    ) -> Answer<Vec<u8>> {
        let arm = request.obj();
        let (oid, offset) = (Oid(arm.oid.get()), u64::from(arm.offset.get()));
        self.check_change(gateway, request, oid)?;
        let whole = offset == 0 && payload.len() as u64 >= self.size_of(oid);
        let mut content = match request.flags.get() & op::FLAG_COW != 0 && !whole {
            true => self.ask(gateway, Oid(arm.cow_oid.get()), PeerOp::Read).await?,
            false => Sparse::default(),
        };
        content.write(offset, payload);
        self.ask_once(gateway, oid, PeerOp::Create(content)).await?;
        Ok(Vec::new())
    }

    /// A map update to 0, and the object itself goes at once (4.7).
    async fn discard_object(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
    ) -> Answer<Vec<u8>> {
        let oid = Oid(request.obj().oid.get());
        let inode = self.ask(gateway, oid.vid().inode(), PeerOp::Read).await?;
        let offset = map_entry_offset(oid.index());
        if inode.word(offset.into()) != 0 {
            let zero: Rc<[u8]> = Rc::new([0; 4]);
            self.check_late_update(request, oid.vid(), &zero)?;
            self.update_map(gateway, oid.vid(), offset, &zero).await?;
            let _ = self.ask(gateway, oid, PeerOp::Remove).await;
        }
        Ok(Vec::new())
    }

    /// A write to the map, in the steps of 4.5.
    async fn update_map(
        self: &Rc<Self>,
        gateway: NodeId,
        vid: Vid,
        offset: u32,
        data: &Rc<[u8]>,
    ) -> Answer<()> {
        let _turn = self.inode_turn(vid).await;
        self.refuse_frozen(vid, data)?;
        self.invalidate(gateway, vid);
        let oid = vid.inode();
        let first = (offset - MAP_OFFSET) / 4;
        let count = data.len() as u32 / 4;
        let before = self.ask(gateway, oid, PeerOp::Read).await?;
        let write = PeerOp::Write { offset: offset.into(), data: data.clone() };
        self.ask_once(gateway, oid, write).await?;

        let grefs = u64::from(gref_offset(first));
        let zeros = PeerOp::Write { offset: grefs, data: vec![0; 8 * count as usize].into() };
        self.ask(gateway, oid, zeros).await?;

        let replaced = released(&before, first, data);
        if self.config.borrow().recycle {
            self.clone().release(gateway, replaced).await;
        } else if !replaced.is_empty() {
            self.host.spawn(gateway, Box::pin(self.clone().release(gateway, replaced)));
        }
        Ok(())
    }

    /// Takes back references to objects; the objects go with the last.
    async fn release(self: Rc<Self>, gateway: NodeId, references: Vec<(Oid, i32, i32)>) {
        for (oid, generation, count) in references {
            self.host.pause(gateway, "releases a reference").await;
            let gone = if (generation, count) == (0, 0) {
                true
            } else {
                let release = PeerOp::Release { generation, count };
                let _ = self.ask(gateway, oid, release).await;
                !self.objects.borrow().contains_key(&oid.ledger())
            };
            if gone {
                let _ = self.ask(gateway, oid, PeerOp::Remove).await;
            }
        }
    }

    /// Data of a snapshot is not written (4.5), nor is anything through an outdated copy.
    fn check_change(&self, gateway: NodeId, request: &Request, oid: Oid) -> Answer<()> {
        if request.flags.get() & op::FLAG_WRITE == 0 && request.data_length.get() != 0 {
            return Err(SdResult::INVALID_PARMS);
        }
        let vid = oid.vid().get();
        let known = self.vdis.borrow().get(&vid).is_some_and(|vdi| vdi.snapshot)
            && !self.unaware.borrow().contains(&(gateway, vid));
        if oid.kind() == Some(OidKind::Data) && known {
            return Err(SdResult::READONLY);
        }
        self.check_valid(gateway, request, oid)
    }

    fn check_valid(&self, gateway: NodeId, request: &Request, oid: Oid) -> Answer<()> {
        if request.flags.get() & op::FLAG_TGT == 0 {
            return Ok(());
        }
        match self.vdis.borrow().get(&oid.vid().get()).map(|vdi| &vdi.lock) {
            Some(Lock::Shared(list)) if list.contains(&(gateway, Participant::Invalidated)) => {
                Err(SdResult::INODE_INVALIDATED)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_late_write(&self, oid: Oid) -> Answer<()> {
        let frozen = self.vdis.borrow().get(&oid.vid().get()).is_some_and(|vdi| vdi.snapshot);
        let late = oid.kind() == Some(OidKind::Data) && frozen;
        match late && !self.config.borrow().hazards.late_writes {
            true => Err(SdResult::READONLY),
            false => Ok(()),
        }
    }

    fn check_late_update(&self, request: &Request, vid: Vid, data: &[u8]) -> Answer<()> {
        let zero = data.iter().all(|byte| *byte == 0);
        let frozen = self.vdis.borrow().get(&vid.get()).is_some_and(|vdi| vdi.snapshot);
        if self.config.borrow().hazards.late_discards || !zero || !frozen {
            return Ok(());
        }
        match self.seen_frozen.borrow().contains(&(request.epoch.get(), vid.get())) {
            true => Ok(()),
            false => Err(SdResult::READONLY),
        }
    }

    fn refuse_frozen(&self, vid: Vid, data: &[u8]) -> Answer<()> {
        let frozen = self.vdis.borrow().get(&vid.get()).is_some_and(|vdi| vdi.snapshot);
        let zero = data.iter().all(|byte| *byte == 0);
        match frozen && !zero && !self.config.borrow().hazards.overwritten_updates {
            true => Err(SdResult::READONLY),
            false => Ok(()),
        }
    }

    pub(super) async fn inode_turn(&self, vid: Vid) -> Option<Turn> {
        if self.config.borrow().hazards.overwritten_updates {
            return None;
        }
        let turns: Rc<Turns> = self.inodes.borrow_mut().entry(vid.get()).or_default().clone();
        Some(turns.take().await)
    }

    /// The inode was changed through this gateway: where it takes part in the lock, the others'
    /// copies are outdated (4.10).
    fn invalidate(&self, gateway: NodeId, vid: Vid) {
        if let Some(vdi) = self.vdis.borrow_mut().get_mut(&vid.get())
            && let Lock::Shared(list) = &mut vdi.lock
            && list.iter().any(|(node, _)| *node == gateway)
        {
            for (node, state) in list {
                let own = *node == gateway;
                *state = if own { Participant::Modified } else { Participant::Invalidated };
            }
        }
    }

    /// The inode was read anew through this gateway (4.10).
    fn refresh(&self, gateway: NodeId, vid: Vid) {
        if let Some(vdi) = self.vdis.borrow_mut().get_mut(&vid.get())
            && let Lock::Shared(list) = &mut vdi.lock
            && list.contains(&(gateway, Participant::Invalidated))
        {
            for (node, state) in list {
                if *node == gateway || *state != Participant::Invalidated {
                    *state = Participant::Shared;
                }
            }
        }
    }

    /// Bytes that an object of this kind has.
    fn size_of(&self, oid: Oid) -> u64 {
        match oid.kind() {
            Some(OidKind::Inode) => INODE_LEN.into(),
            Some(OidKind::Attr) => ATTR_LEN as u64,
            Some(OidKind::Btree | OidKind::Ledger) => btree::NODE_LEN.into(),
            _ => {
                let known = self.vdis.borrow().get(&oid.vid().get()).map(|vdi| vdi.shift);
                let shift = known.unwrap_or(self.config.borrow().shift);
                1u64.checked_shl(shift.into()).unwrap_or(u64::MAX)
            }
        }
    }

    pub(super) fn copies_of(&self, oid: Oid) -> u8 {
        let known = self.vdis.borrow().get(&oid.vid().get()).map(|vdi| vdi.copies);
        known.unwrap_or(self.config.borrow().copies)
    }
}

/// The references that a map update replaces: those of entries that change (4.5).
fn released(before: &Sparse, first: u32, data: &[u8]) -> Vec<(Oid, i32, i32)> {
    let start = u64::from(map_entry_offset(first));
    let old = before.words(start..start + data.len() as u64 / 4 * 4);
    let changed = old.filter_map(|(at, old)| {
        let within = (at - start) as usize;
        let new = u32::from_le_bytes(data[within..within + 4].try_into().expect("four bytes"));
        let index = first + within as u32 / 4;
        let gref = u64::from(gref_offset(index));
        let reference = (before.word(gref) as i32, before.word(gref + 4) as i32);
        let oid = Vid::new(old & 0xff_ffff)?.data(index);
        (old != new).then_some((oid, reference.0, reference.1))
    });
    changed.collect()
}
