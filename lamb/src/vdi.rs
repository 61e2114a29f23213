//! Cluster operations on VDIs: look up, create, freeze, clone, delete, lock, list (4.2, 4.9 to 4.12).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sheepdog_proto::attr::AttrHeader;
use sheepdog_proto::btree::EMPTY_ROOT;
use sheepdog_proto::hash::vid_of_name;
use sheepdog_proto::header::{VdiArm, VdiReply};
use sheepdog_proto::inode::{INODE_LEN, MAP_OFFSET, STORE_ARRAY, STORE_BTREE, max_size};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{FLAG_WRITE, LOCK_NORMAL, LOCK_SHARED};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{
    InodeHeader, NAME_LEN, Oid, Request, SdResult, VDI_BITMAP_LEN, Vid, erasure_strips, field_text,
};

use crate::cluster::{Cluster, Lock, State, Vdi, count, disk, object_len};
use crate::config::now;
use crate::request::{Answer, Out};
use crate::store::CHUNK;
use crate::{lock, read, write};

/// VDIs that are announced between two starts at most.
const MAX_ANNOUNCED: u64 = 1 << 16;
/// VDI ids in a row from which on it is remembered how they go on.
const LONG_RUN: u32 = 32;

/// VDI ids in use one after the other, from the hash of a name on.
#[derive(Clone)]
pub struct Run {
    /// Those that are not deleted, oldest first.
    vdis: Vec<Arc<Vdi>>,
    /// The first id that is not in use; None if every one is.
    end: Option<Vid>,
}

/// What a client looks for: a working VDI, or a snapshot by its tag or its number.
struct Query {
    name: [u8; NAME_LEN],
    tag: [u8; NAME_LEN],
    snap_id: u32,
}

/// What a working lookup found, and the number of the name's next inode (3.4).
struct Working {
    vdi: Result<Arc<Vdi>, SdResult>,
    next_snap_id: u32,
}

impl Cluster {
    pub fn get_vdi_info(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let _order = lock(&self.order);
        let vdi = self.look_up(&Query::parse(request, payload)?)?;
        Ok(reply_about(&vdi))
    }

    pub fn lock_vdi(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let _order = lock(&self.order);
        let vdi = self.look_up(&Query::parse(request, payload)?)?;
        let mut answer = reply_about(&vdi);
        if !self.locks_vdis() {
            return Ok(answer);
        }
        let mut locks = lock(&self.locks);
        // The lock belongs to this node, not to a connection, so there is nobody to share with:
        // a second lock of either type conflicts with the first (4.10).
        match (request.vdi().lock_type.get(), locks.contains_key(&vdi.vid)) {
            (LOCK_NORMAL, false) => _ = locks.insert(vdi.vid, Lock::Normal),
            (LOCK_SHARED, false) => _ = locks.insert(vdi.vid, Lock::Shared),
            _ => answer.result = SdResult::VDI_LOCKED,
        }
        Ok(answer)
    }

    /// Anybody may release; what is not locked, or locked otherwise, stays as it is (4.10).
    pub fn release_vdi(&self, request: &Request) -> Result<Answer, SdResult> {
        let arm = request.vdi();
        let kind = match arm.lock_type.get() {
            LOCK_NORMAL => Lock::Normal,
            LOCK_SHARED => Lock::Shared,
            _ => return Ok(Answer::OK),
        };
        let mut locks = lock(&self.locks);
        if let Some(vid) = Vid::new(arm.base_vdi_id.get()).filter(|v| locks.get(v) == Some(&kind)) {
            locks.remove(&vid);
        }
        Ok(Answer::OK)
    }

    pub fn read_vdis(
        &self,
        out: &mut Out,
        which: impl Fn(&State) -> bool,
    ) -> Result<Answer, SdResult> {
        if out.room() != VDI_BITMAP_LEN {
            return Err(SdResult::INVALID_PARMS);
        }
        let bitmap = out.grow(VDI_BITMAP_LEN)?;
        bitmap.fill(0);
        for vdi in self.all_vdis().iter().filter(|vdi| which(&read(&vdi.state))) {
            if let Some(byte) = bitmap.get_mut(vdi.vid.get() as usize / 8) {
                *byte |= 1 << (vdi.vid.get() % 8);
            }
        }
        Ok(Answer::OK)
    }

    pub fn new_vdi(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let arm = *request.vdi();
        let name: [u8; NAME_LEN] = payload.try_into().map_err(|_| SdResult::INVALID_PARMS)?;
        let name = proper_name(&name).ok_or(SdResult::INVALID_PARMS)?;

        let _order = lock(&self.order);
        let working = self.working(field_text(&name));
        let current = match (arm.snapid.get(), working.vdi) {
            (0, Ok(_)) => return Err(SdResult::VDI_EXIST),
            (0, Err(_)) => None,
            (_, found) => Some(found?),
        };
        let base = match arm.base_vdi_id.get() {
            0 if current.is_none() => None,
            vid => {
                let base = Vid::new(vid).and_then(|vid| self.vdi(vid));
                Some(base.ok_or(SdResult::BASE_VDI_READ)?)
            }
        };
        let vid = self.free_vid(&name).ok_or(SdResult::FULL_VDI)?;
        let header = InodeHeader {
            name,
            create_time: now().max(1).into(),
            snap_id: working.next_snap_id.into(),
            vdi_id: vid.get().into(),
            parent_vdi_id: arm.base_vdi_id,
            ..InodeHeader::default()
        };
        let header = match self.mimic {
            None => self.store_successor(current.as_deref(), base.as_deref(), header, &arm)?,
            Some(_) => {
                let header = self.geometry(header, &arm, None)?;
                self.mimic_new_vdi(current.as_deref(), base.as_deref(), header)?;
                header
            }
        };
        self.note_shift(header.block_size_shift);
        write(&self.vdis).insert(vid, Arc::new(Vdi::new(vid, header)));
        if base.is_none() && self.mimic.is_none() {
            // What an earlier VDI of that name left behind is not this one's; only what belongs to
            // snapshots that are still there stays.
            let first = working.next_snap_id == 1;
            let left = |attr: &AttrHeader| first || attr.tag[0] == 0 && attr.snap_id.get() == 0;
            if let Err(result) = self.remove_attrs(&header, left) {
                log::warn!("{vid}: attributes of an earlier VDI are still there: {result}");
            }
        }
        Ok(reply(vid, header.nr_copies, header.block_size_shift))
    }

    /// Stores the inode of a new VDI with the map of its base, and freezes the VDI that it takes
    /// over from; all of it or nothing. Returns the header that it got.
    fn store_successor(
        &self,
        current: Option<&Vdi>,
        base: Option<&Vdi>,
        header: InodeHeader,
        arm: &VdiArm,
    ) -> Result<InodeHeader, SdResult> {
        // Held for writing: no map update and no write is under way in what is frozen or copied.
        let mut frozen = current.map(|vdi| write(&vdi.state));
        let copied = match (base, current) {
            (Some(base), Some(current)) if base.vid == current.vid => None,
            (Some(base), _) => Some(write(&base.state)),
            (None, _) => None,
        };
        if let Some(state) = copied.as_deref() {
            check_base(state)?;
        }
        let header = self.geometry(header, arm, copied.as_deref().or(frozen.as_deref()))?;
        let vid = Vid::new(header.vdi_id.get()).ok_or(SdResult::FULL_VDI)?;

        // The successor is stored before its predecessor is frozen: a crash in between is
        // recognised by two working VDIs of one name, see Cluster::finish_snapshots.
        let mut named = Vec::new();
        self.store
            .create_for_good(vid.inode(), INODE_LEN.into(), |inode| {
                inode.fill(header.as_bytes(), 0)?;
                if header.store_policy == STORE_BTREE {
                    return inode.fill(&EMPTY_ROOT, MAP_OFFSET.into());
                }
                let Some(base) = base else { return Ok(()) };
                self.copy_map(base.vid, inode, |index, owner| named.push(owner.data(index)))
            })
            .map_err(|err| failed(err, SdResult::VDI_WRITE))?;
        {
            // What the base names is not removed meanwhile: the base is held.
            let mut refs = lock(&self.refs);
            named.iter().for_each(|&oid| refs.add(oid));
        }
        if let (Some(current), Some(state)) = (current, frozen.as_deref_mut())
            && let Err(err) = self.freeze(current.vid, state, header.create_time.get())
        {
            let _ = self.store.remove(vid.inode(), true);
            self.release_all(&named)?;
            return Err(failed(err, SdResult::BASE_VDI_WRITE));
        }
        Ok(header)
    }

    pub fn del_vdi(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let order = lock(&self.order);
        let vdi = self.look_up(&Query::parse(request, payload)?)?;
        let vid = vdi.vid;
        if self.mimic.is_some() {
            self.mimic_del_vdi(&vdi)?;
            return Ok(reply(vid, 0, 0));
        }
        let mut state = write(&vdi.state);
        let before = state.header;
        let mut named = Vec::new();
        if state.has_array() {
            self.read_map(vid, |index, owner| named.push(owner.data(index))).map_err(disk)?;
        }
        // What stays of a deleted inode keeps the VDI id in use (3.3, 3.5). It is deleted by what
        // needs no space and cannot be done by halves: there may be no space left.
        let header = InodeHeader { name: [0; NAME_LEN], vdi_size: 0.into(), ..before };
        let inode = self.store.get(vid.inode()).map_err(disk)?.ok_or(SdResult::NO_VDI)?;
        self.store
            .write_for_good(&inode, &header.name, 0)
            .map_err(|err| failed(err, SdResult::VDI_WRITE))?;
        let rest = inode
            .fill(header.as_bytes(), 0)
            .and_then(|()| inode.punch(size_of::<InodeHeader>() as u64..INODE_LEN.into()));
        if let Err(err) = rest {
            log::warn!("{vid}: deleted, but its inode still says what it was: {err}");
        }
        state.header = header;
        state.deleted = true;
        drop(state);
        lock(&self.locks).remove(&vid);

        // From here on nothing can fail for the client: the VDI is deleted, and what a failure or
        // a crash leaves behind is removed at the next start.
        let attrs = self.remove_attrs_of_deleted(&before);
        // Others need not wait for what no longer concerns them.
        drop(order);
        let objects = self.remove_objects_of_deleted(&before, vid, named);
        let freed = attrs.and(objects).and_then(|()| match self.recycles() {
            // Not before everything of the id is gone.
            true => {
                let _order = lock(&self.order);
                self.recycle(vid)
            }
            false => Ok(()),
        });
        if let Err(result) = freed {
            log::warn!("{vid}: deleted, but some of its objects are still there: {result}");
        }
        Ok(reply(vid, 0, 0))
    }

    /// Gives up what a deleted VDI named, and removes what was its own.
    fn remove_objects_of_deleted(
        &self,
        deleted: &InodeHeader,
        vid: Vid,
        named: Vec<Oid>,
    ) -> Result<(), SdResult> {
        let hypervolume = deleted.store_policy != STORE_ARRAY;
        let (own, others): (Vec<Oid>, Vec<Oid>) = named.into_iter().partition(|o| o.vid() == vid);
        self.release_all(&others)?;
        let unneeded: Vec<Oid> = {
            let mut refs = lock(&self.refs);
            own.into_iter().filter(|&oid| refs.release(oid)).collect()
        };
        count(&self.stat.removes, unneeded.len());
        if hypervolume || !lock(&self.refs).any_of(vid) {
            self.store.trash(OidKind::Data, vid).map_err(disk)?;
        } else {
            // Also those that were created and never mapped.
            self.remove_all(OidKind::Data, vid, |oid| !lock(&self.refs).contains(oid))
                .map_err(disk)?;
        }
        self.store.trash(OidKind::Vmstate, vid).map_err(disk)?;
        self.store.trash(OidKind::Btree, vid).map_err(disk)
    }

    /// Removes the attributes that no longer belong to anything.
    ///
    /// Those of a working VDI stay while the name has snapshots: `dog vdi rollback` deletes the
    /// working VDI and creates it again from one of them (5.10).
    fn remove_attrs_of_deleted(&self, deleted: &InodeHeader) -> Result<(), SdResult> {
        let last = !self.knows_name(deleted.name());
        self.remove_attrs(deleted, |attr| {
            let tagged = !deleted.tag().is_empty() && field_text(&attr.tag) == deleted.tag();
            let numbered = attr.snap_id == deleted.snap_id && attr.snap_id.get() != 0;
            last || deleted.is_snapshot() && (tagged || numbered)
        })
    }

    /// Reads a base's map into the inode that is being created from it.
    fn copy_map(
        &self,
        base: Vid,
        inode: &crate::store::Object,
        mut each: impl FnMut(u32, Vid),
    ) -> std::io::Result<()> {
        // Entries are gathered into runs, so that the copy costs what the map holds.
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0u32;
        let flush = |start: u32, run: &mut Vec<u8>| {
            let at = u64::from(MAP_OFFSET) + 4 * u64::from(start);
            let result = inode.fill(run, at);
            run.clear();
            result
        };
        let mut result = Ok(());
        self.read_map(base, |index, owner| {
            if run.len() >= CHUNK || start + (run.len() / 4) as u32 != index {
                if let Err(err) = flush(start, &mut run) {
                    result = Err(err);
                }
                start = index;
            }
            run.extend_from_slice(&owner.get().to_le_bytes());
            each(index, owner);
        })?;
        result.and(flush(start, &mut run))
    }

    /// Size, copies and object size of a new VDI; zeros stand for the base's or the cluster's.
    fn geometry(
        &self,
        header: InodeHeader,
        arm: &VdiArm,
        base: Option<&State>,
    ) -> Result<InodeHeader, SdResult> {
        let config = read(&self.config);
        let base = base.map(|state| &state.header);
        let shift = match (arm.block_size_shift, base) {
            (0, Some(base)) => base.block_size_shift,
            (0, None) => config.block_size_shift,
            (shift, _) => shift,
        };
        let (copies, copy_policy) = match (arm.copies, arm.copy_policy) {
            (0, _) => (config.copies, config.copy_policy),
            (copies, 0) => (copies, 0),
            (_, policy) => {
                let (data, parity) = erasure_strips(policy).ok_or(SdResult::INVALID_PARMS)?;
                (data + parity, policy)
            }
        };
        let vdi_size = match (arm.vdi_size.get(), base) {
            (0, Some(base)) => base.vdi_size,
            _ => arm.vdi_size,
        };
        let known = matches!(arm.store_policy, STORE_ARRAY | STORE_BTREE);
        let fits =
            object_len(shift).is_some() && vdi_size.get() <= max_size(arm.store_policy, shift);
        // Objects of another size, or an index of another kind, would be read as garbage (5.9).
        // A hypervolume's objects are not counted, so they cannot be shared (3.9).
        let alike = base.is_none_or(|base| {
            base.block_size_shift == shift
                && base.store_policy == STORE_ARRAY
                && arm.store_policy == STORE_ARRAY
        });
        if !known || !fits || !alike {
            return Err(SdResult::INVALID_PARMS);
        }
        Ok(InodeHeader {
            vdi_size,
            copy_policy,
            store_policy: arm.store_policy,
            nr_copies: copies,
            block_size_shift: shift,
            ..header
        })
    }

    /// The first VDI id at or after the name's hash that is not in use (3.3).
    fn free_vid(&self, name: &[u8; NAME_LEN]) -> Option<Vid> {
        self.run_from(vid_of_name(name)).end
    }

    /// Every VDI that can have this name, newest first (3.4).
    fn run(&self, name: &[u8]) -> Vec<Arc<Vdi>> {
        let mut run = self.run_from(vid_of_name(name)).vdis;
        run.reverse();
        run
    }

    /// The VDIs from an id on, without those that are deleted.
    fn run_from(&self, start: Vid) -> Run {
        if self.recycles() {
            return self.run_of_all();
        }
        let mut runs = lock(&self.runs);
        let mut run =
            runs.get(&start).cloned().unwrap_or(Run { vdis: Vec::new(), end: Some(start) });
        {
            let vdis = read(&self.vdis);
            while let Some(vid) = run.end
                && let Some(vdi) = vdis.get(&vid)
            {
                run.vdis.push(vdi.clone());
                run.end = Some(next(vid)).filter(|&vid| vid != start);
            }
        }
        run.vdis.retain(|vdi| !read(&vdi.state).header.is_deleted());
        // Ids are never free again: what was found once is so the next time, and more may follow.
        // What is found quickly anyhow need not be kept.
        let far = run.end.is_none_or(|end| end.get().wrapping_sub(start.get()) > LONG_RUN);
        if far {
            runs.insert(start, run.clone());
        }
        run
    }

    /// Where ids are recycled, any may be a name's: the lowest free one is the next, so it is not
    /// ids that say what is newer, but the numbers of the inodes of one name.
    fn run_of_all(&self) -> Run {
        let vdis = read(&self.vdis);
        let mut end = Some(FIRST);
        while let Some(vid) = end
            && vdis.contains_key(&vid)
        {
            end = Some(next(vid)).filter(|&vid| vid != FIRST);
        }
        let vdis: Vec<_> = vdis.values().cloned().collect();
        let number = |vdi: &Arc<Vdi>| {
            let header = read(&vdi.state).header;
            (!header.is_deleted()).then_some((header.snap_id.get(), vdi.vid))
        };
        let mut vdis: Vec<_> =
            vdis.into_iter().filter_map(|vdi| Some((number(&vdi)?, vdi))).collect();
        vdis.sort_by_key(|(number, _)| *number);
        Run { vdis: vdis.into_iter().map(|(_, vdi)| vdi).collect(), end }
    }

    /// Frees the ids of a VDI and of all that it has a parent or a child of, if all of them are
    /// deleted (3.3).
    fn recycle(&self, vid: Vid) -> Result<(), SdResult> {
        let all = self.all_vdis();
        let parent = |vdi: &Vdi| Vid::new(read(&vdi.state).header.parent_vdi_id.get());
        let mut family = HashSet::from([vid]);
        let mut grown = true;
        while grown {
            grown = false;
            for vdi in &all {
                let parent = parent(vdi).filter(|parent| !parent.is_none());
                let related = parent.is_some_and(|parent| family.contains(&parent));
                if related || family.contains(&vdi.vid) {
                    grown |= family.insert(vdi.vid);
                    grown |= parent.is_some_and(|parent| family.insert(parent));
                }
            }
        }
        let members: Vec<_> = all.iter().filter(|vdi| family.contains(&vdi.vid)).collect();
        let needed =
            |vdi: &&Arc<Vdi>| !read(&vdi.state).deleted || lock(&self.refs).any_of(vdi.vid);
        if members.iter().copied().any(|vdi| needed(&vdi)) {
            return Ok(());
        }
        for vdi in members {
            self.store.remove(vdi.vid.inode(), true).map_err(disk)?;
            write(&self.vdis).remove(&vdi.vid);
        }
        Ok(())
    }

    /// Frees the ids that a crash kept from being freed.
    pub fn recycle_all(&self) -> Result<(), SdResult> {
        let deleted = self.all_vdis().into_iter().filter(|vdi| read(&vdi.state).deleted);
        for vdi in deleted.filter(|_| self.recycles()) {
            if self.vdi(vdi.vid).is_some() {
                self.recycle(vdi.vid)?;
            }
        }
        Ok(())
    }

    /// Whether any VDI or snapshot has this name.
    pub fn knows_name(&self, name: &[u8]) -> bool {
        self.run(name).iter().any(|vdi| read(&vdi.state).header.name() == name)
    }

    fn working(&self, name: &[u8]) -> Working {
        for vdi in self.run(name) {
            let header = read(&vdi.state).header;
            if header.name() == name {
                let snapshot = header.is_snapshot();
                return Working {
                    vdi: if snapshot { Err(SdResult::NO_VDI) } else { Ok(vdi) },
                    next_snap_id: header.snap_id.get().saturating_add(1),
                };
            }
        }
        Working { vdi: Err(SdResult::NO_VDI), next_snap_id: 1 }
    }

    fn look_up(&self, query: &Query) -> Result<Arc<Vdi>, SdResult> {
        let (name, tag) = (field_text(&query.name), field_text(&query.tag));
        if name.is_empty() {
            return Err(SdResult::NO_VDI);
        }
        if tag.is_empty() && query.snap_id == 0 {
            let found = self.working(name).vdi;
            // Without a working VDI the newest snapshot is found there (3.4).
            return match self.recycles() {
                true => found.or_else(|result| {
                    let named = |vdi: &Arc<Vdi>| read(&vdi.state).header.name() == name;
                    self.run(name).into_iter().find(named).ok_or(result)
                }),
                false => found,
            };
        }
        let mut seen_working = false;
        for vdi in self.run(name) {
            let header = read(&vdi.state).header;
            if header.name() != name {
                continue;
            }
            let tagged = !tag.is_empty() && header.tag() == tag;
            let numbered = query.snap_id != 0 && header.snap_id.get() == query.snap_id;
            if !header.is_snapshot() {
                seen_working = true;
            } else if tagged || numbered {
                return Ok(vdi);
            }
        }
        Err(if seen_working { SdResult::NO_TAG } else { SdResult::NO_VDI })
    }

    /// Resolves a VDI for an attribute operation, whose caller serialises (4.14).
    pub fn resolve(
        &self,
        name: [u8; NAME_LEN],
        tag: [u8; NAME_LEN],
        snap_id: u32,
    ) -> Result<Arc<Vdi>, SdResult> {
        self.look_up(&Query { name, tag, snap_id })
    }

    /// A VDI id in use whose inode is yet to come (6.2).
    pub fn notify_vdi_add(&self, request: &Request) -> Result<Answer, SdResult> {
        let arm = request.vdi_state();
        let vid = Vid::new(arm.new_vid.get()).filter(|vid| !vid.is_none());
        let vid = vid.ok_or(SdResult::INVALID_PARMS)?;
        let _order = lock(&self.order);
        if let Some(old) = Vid::new(arm.old_vid.get()).and_then(|vid| self.vdi(vid)) {
            let mut state = write(&old.state);
            if state.present && !state.header.is_snapshot() {
                self.freeze(old.vid, &mut state, now()).map_err(disk)?;
            }
        }
        if arm.set_bitmap == 0 {
            return Ok(Answer::OK);
        }
        let shift = match arm.block_size_shift {
            0 => read(&self.config).block_size_shift,
            shift => shift,
        };
        let header = InodeHeader {
            nr_copies: arm.copies,
            copy_policy: arm.copy_policy,
            block_size_shift: shift,
            vdi_id: vid.get().into(),
            ..InodeHeader::default()
        };
        self.note_shift(shift);
        let announced = || {
            let vdi = Vdi::new(vid, header);
            write(&vdi.state).present = false;
            Arc::new(vdi)
        };
        if self.vdi(vid).is_none() && !self.announce() {
            log::warn!("{vid}: too many VDIs are announced and never come");
            return Err(SdResult::FULL_VDI);
        }
        let vdi = write(&self.vdis).entry(vid).or_insert_with(announced).clone();
        write(&vdi.state).loading = true;
        Ok(Answer::OK)
    }

    /// Whether one more VDI may be announced: whoever announces takes memory until the next start.
    fn announce(&self) -> bool {
        self.announced.fetch_add(1, Ordering::Relaxed) < MAX_ANNOUNCED
    }

    pub fn all_vdis(&self) -> Vec<Arc<Vdi>> {
        read(&self.vdis).values().cloned().collect()
    }
}

impl Query {
    /// Name and perhaps tag from the payload, the snapshot's number from the header (4.9).
    fn parse(request: &Request, payload: &[u8]) -> Result<Query, SdResult> {
        if request.flags.get() & FLAG_WRITE == 0 {
            return Err(SdResult::INVALID_PARMS);
        }
        let mut query =
            Query { name: [0; NAME_LEN], tag: [0; NAME_LEN], snap_id: request.vdi().snapid.get() };
        match payload.split_at_checked(NAME_LEN) {
            Some((name, tag)) if tag.is_empty() || tag.len() == NAME_LEN => {
                query.name.copy_from_slice(name);
                query.tag[..tag.len()].copy_from_slice(tag);
                Ok(query)
            }
            _ => Err(SdResult::INVALID_PARMS),
        }
    }
}

/// Only what nobody changes any more may be shared (5.9).
fn check_base(state: &State) -> Result<(), SdResult> {
    if !state.present || state.deleted {
        Err(SdResult::BASE_VDI_READ)
    } else if !state.header.is_snapshot() {
        Err(SdResult::INVALID_PARMS)
    } else {
        Ok(())
    }
}

/// The name without what follows its end; None for one that could not be found again (0.7).
///
/// An empty name is taken, as a recorded session of `dog` with the real server wants it: the VDI
/// is invisible, and the next start finds it deleted.
fn proper_name(field: &[u8; NAME_LEN]) -> Option<[u8; NAME_LEN]> {
    sheepdog_proto::name_field(field_text(field))
}

fn next(vid: Vid) -> Vid {
    Vid::new(vid.get() + 1).unwrap_or(FIRST)
}

/// VDI ids wrap to 1: 0 is none (3.3).
const FIRST: Vid = match Vid::new(1) {
    Some(vid) => vid,
    None => Vid::NONE,
};

fn failed(err: std::io::Error, otherwise: SdResult) -> SdResult {
    match disk(err) {
        SdResult::EIO => otherwise,
        result => result,
    }
}

fn reply_about(vdi: &Vdi) -> Answer {
    let header = read(&vdi.state).header;
    reply(vdi.vid, header.nr_copies, header.block_size_shift)
}

fn reply(vid: Vid, copies: u8, block_size_shift: u8) -> Answer {
    let vdi_id = vid.get().into();
    Answer::success(VdiReply { vdi_id, copies, block_size_shift, ..VdiReply::default() })
}
