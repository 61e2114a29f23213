//! `--mimic-1.0`: what the real server does where this one is safer, so that a careless client
//! loses data here as it would there.
//!
//! - References are counted in the inodes and in ledgers (3.7), with every hazard listed there.
//! - What is no longer named is removed late, after the answer; nothing orders it after a CREATE.
//! - Requests of one connection run in any order, also on one object (0.5).
//! - A snapshot overwrites map updates that race with it (4.2); its inode stays writable (4.5).
//! - DEL_VDI of a VDI whose map is not empty succeeds, hides the VDI, and deletes nothing (4.11).
//! - Objects may be created for a VDI that was deleted (4.4).
//! - FLUSH_VDI fails with INVALID_PARMS (4.8); attributes and VM states outlive their VDI.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sheepdog_proto::inode::{
    Gref, INODE_LEN, MAP_END, MAP_OFFSET, SNAP_CTIME_OFFSET, gref_offset, object_count,
};
use sheepdog_proto::op::is_internal;
use sheepdog_proto::zerocopy::little_endian::I32;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{InodeHeader, NAME_LEN, Oid, Request, SdResult, Vid};

use crate::cluster::{Cluster, Vdi, disk, entries};
use crate::store::{Object, Store};
use crate::{lock, write};

/// How long after the answer an object is removed: long enough for a client to create it again.
const LATE: Duration = Duration::from_millis(10);
/// How long two map updates, or a map update and a snapshot, have to meet.
const MEETING: Duration = Duration::from_millis(1);
/// Generations that a ledger has room for here.
const GENERATIONS: usize = 1024;
/// Bytes of a ledger object (3.2).
const LEDGER_LEN: u64 = 4 << 20;

/// A reference that was given up.
struct Given {
    oid: Oid,
    gref: Gref,
    due: Instant,
}

pub struct Mimic {
    /// None while it is being dropped.
    late: Option<Sender<Given>>,
    thread: Option<JoinHandle<()>>,
    dice: AtomicU64,
}

impl Mimic {
    pub fn start(store: Arc<Store>) -> io::Result<Mimic> {
        let (late, given) = channel();
        let thread = thread::Builder::new()
            .name("lamb-late".into())
            .spawn(move || remove_late(&store, &given))?;
        Ok(Mimic { late: Some(late), thread: Some(thread), dice: AtomicU64::new(0) })
    }

    /// Lets requests that came together overtake each other.
    pub fn dawdle(&self, request: &Request) {
        if is_internal(request.opcode) || request.opcode >= sheepdog_proto::op::NEW_VDI {
            return;
        }
        // Weyl sequence: evenly spread, and different from one run of threads to the next.
        let dice = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        if dice >> 63 == 0 {
            thread::sleep(Duration::from_micros(dice >> 56));
        }
    }

    fn give(&self, oid: Oid, gref: Gref) {
        if let Some(late) = &self.late {
            let _ = late.send(Given { oid, gref, due: Instant::now() + LATE });
        }
    }
}

impl Drop for Mimic {
    fn drop(&mut self) {
        self.late = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove_late(store: &Store, given: &Receiver<Given>) {
    for given in given {
        thread::sleep(given.due.saturating_duration_since(Instant::now()));
        if let Err(err) = give_up(store, given.oid, given.gref) {
            log::warn!("{}: reference not given up: {err}", given.oid);
        }
    }
}

/// Gives one reference up; the object goes when its ledger says that it was the last (3.7).
fn give_up(store: &Store, oid: Oid, gref: Gref) -> io::Result<()> {
    let gone = match gref {
        gref if gref == Gref::default() => true,
        Gref { generation, count } => {
            let mut ledger = vec![I32::new(0); GENERATIONS];
            match store.get(oid.ledger())? {
                Some(object) => object.read(ledger.as_mut_bytes(), 0)?,
                None => ledger.iter_mut().take(1).for_each(|first| *first = 1.into()),
            }
            let mut add = |generation: i32, n: i32| {
                let at = usize::try_from(generation).ok();
                if let Some(entry) = at.and_then(|at| ledger.get_mut(at)) {
                    *entry = entry.get().wrapping_add(n).into();
                }
            };
            add(generation.get(), -1);
            add(generation.get().wrapping_add(1), count.get());
            store.create(oid.ledger(), LEDGER_LEN, |object| object.fill(ledger.as_bytes(), 0))?;
            ledger.iter().all(|entry| entry.get() == 0)
        }
    };
    if gone {
        store.remove(oid.ledger(), false)?;
        store.remove(oid, false)?;
    }
    Ok(())
}

impl Cluster {
    /// WRITE_OBJ on an inode: whoever writes, whatever it says.
    pub fn mimic_write_inode(
        &self,
        mimic: &Mimic,
        vdi: &Vdi,
        inode: &Object,
        offset: u64,
        data: &[u8],
    ) -> Result<(), SdResult> {
        let (oid, end) = (vdi.vid.inode(), offset + data.len() as u64);
        if offset < MAP_OFFSET.into() || end > MAP_END.into() {
            self.store.write(oid, inode, data, offset).map_err(disk)?;
            if offset < size_of::<InodeHeader>() as u64 {
                let mut state = write(&vdi.state);
                let frozen = state.header.snap_ctime;
                state.header = crate::cluster::read_header(inode).map_err(disk)?;
                // What is read-only stays so until the next start, whatever the inode says.
                if frozen.get() != 0 {
                    state.header.snap_ctime = frozen;
                }
            }
            return Ok(());
        }
        let first = (offset - u64::from(MAP_OFFSET)) / 4;
        let mut old = vec![0; data.len()];
        inode.read(&mut old, offset).map_err(disk)?;
        let mut grefs = vec![Gref::default(); data.len().div_ceil(4)];
        let at = gref_offset(first as u32).into();
        inode.read(grefs.as_mut_bytes(), at).map_err(disk)?;
        thread::sleep(MEETING);
        self.store.write(oid, inode, data, offset).map_err(disk)?;
        // Of the whole range, whether an entry has changed or not.
        self.store.write(oid, inode, &vec![0; 8 * grefs.len()], at).map_err(disk)?;
        let changes = entries(&old).zip(entries(data)).zip(grefs).zip(first as u32..);
        for (((old, new), gref), index) in changes {
            if let Some(owner) = Vid::new(old).filter(|owner| !owner.is_none() && old != new) {
                mimic.give(owner.data(index), gref);
            }
        }
        Ok(())
    }

    /// NEW_VDI, step by step as in 4.2, with time for others between the steps.
    pub fn mimic_new_vdi(
        &self,
        current: Option<&Vdi>,
        base: Option<&Vdi>,
        header: InodeHeader,
    ) -> Result<(), SdResult> {
        let vid = Vid::new(header.vdi_id.get()).unwrap_or(Vid::NONE);
        if let Some(current) = current {
            // Clients are told from now on; the inode follows.
            write(&current.state).header.snap_ctime = header.create_time;
            if base.is_none_or(|base| base.vid != current.vid) {
                let inode = self.inode(current.vid, SdResult::VDI_READ)?;
                let time = header.create_time.to_bytes();
                let at = SNAP_CTIME_OFFSET.into();
                self.store.write(current.vid.inode(), &inode, &time, at).map_err(disk)?;
            }
        }
        let mut successor = vec![0; INODE_LEN as usize];
        if let Some(base) = base {
            let inode = self.inode(base.vid, SdResult::BASE_VDI_READ)?;
            let mut image = vec![0; INODE_LEN as usize];
            inode
                .extents(0..INODE_LEN.into(), |part| {
                    let bytes = image.get_mut(part.start as usize..part.end as usize);
                    inode.read(bytes.unwrap_or_default(), part.start)
                })
                .map_err(disk)?;
            thread::sleep(MEETING);
            thread::sleep(MEETING);
            share(&mut image, &mut successor);
            if current.is_some_and(|current| current.vid == base.vid) {
                let at = SNAP_CTIME_OFFSET as usize;
                if let Some(field) = image.get_mut(at..at + 8) {
                    field.copy_from_slice(&header.create_time.to_bytes());
                }
            }
            self.create_sparse(base.vid.inode(), &image).map_err(disk)?;
        }
        if let Some(start) = successor.get_mut(..size_of::<InodeHeader>()) {
            start.copy_from_slice(header.as_bytes());
        }
        if header.store_policy == sheepdog_proto::inode::STORE_BTREE {
            let root = successor.get_mut(MAP_OFFSET as usize..).unwrap_or_default();
            root.iter_mut()
                .zip(sheepdog_proto::btree::EMPTY_ROOT)
                .for_each(|(to, from)| *to = from);
        }
        self.create_sparse(vid.inode(), &successor).map_err(disk)
    }

    fn inode(&self, vid: Vid, missing: SdResult) -> Result<Arc<Object>, SdResult> {
        self.store.get(vid.inode()).map_err(disk)?.ok_or(missing)
    }

    fn create_sparse(&self, oid: Oid, image: &[u8]) -> io::Result<()> {
        const BLOCK: usize = 4096;
        self.store.create(oid, image.len() as u64, |object| {
            for (at, block) in (0..).step_by(BLOCK).zip(image.chunks(BLOCK)) {
                if block.iter().any(|&byte| byte != 0) {
                    object.fill(block, at)?;
                }
            }
            Ok(())
        })
    }

    /// DEL_VDI: a VDI that still has objects is hidden, not deleted.
    pub fn mimic_del_vdi(&self, vdi: &Vdi) -> Result<(), SdResult> {
        let mut state = write(&vdi.state);
        let header = state.header;
        let used = object_count(header.vdi_size.get(), header.block_size_shift.min(63));
        let mut empty = true;
        if state.has_array() {
            self.read_map(vdi.vid, |index, _| empty &= u64::from(index) >= used).map_err(disk)?;
        }
        if empty {
            let header = InodeHeader { name: [0; NAME_LEN], vdi_size: 0.into(), ..header };
            self.store
                .create(vdi.vid.inode(), INODE_LEN.into(), |inode| inode.fill(header.as_bytes(), 0))
                .map_err(disk)?;
            state.header = header;
        }
        state.deleted = true;
        drop(state);
        lock(&self.locks).remove(&vdi.vid);
        Ok(())
    }
}

/// A base gains a reference to each of its objects, and the new inode starts a generation (3.7).
fn share(base: &mut [u8], new: &mut [u8]) {
    let (map, grefs) = (MAP_OFFSET as usize..MAP_END as usize, MAP_END as usize..);
    if let (Some(to), Some(from)) = (new.get_mut(map.clone()), base.get(map.clone())) {
        to.copy_from_slice(from);
    }
    let entries: Vec<u32> = entries(base.get(map).unwrap_or_default()).collect();
    let of = |bytes| <[Gref]>::mut_from_bytes(bytes).unwrap_or_default();
    let old = of(base.get_mut(grefs.clone()).unwrap_or_default());
    let new = of(new.get_mut(grefs).unwrap_or_default());
    for ((_, old), new) in entries.iter().zip(old).zip(new).filter(|((entry, _), _)| **entry != 0) {
        old.count = old.count.get().wrapping_add(1).into();
        new.generation = old.generation.get().wrapping_add(1).into();
    }
}
