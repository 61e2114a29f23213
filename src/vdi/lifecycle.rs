//! Creating and deleting VDIs (4.2, 5.12).

use std::ops::Range;

use sheepdog_proto::header::VdiArm;
use sheepdog_proto::inode::{STORE_ARRAY, STORE_BTREE, max_size, object_count};
use sheepdog_proto::{DEFAULT_BLOCK_SIZE_SHIFT, MAX_COPIES, SdResult, Vid, erasure_policy, op};

use super::generation::Generation;
use super::inode::{self, Name, Which, answered, is_gone, write_request};
use super::io::{Standing, standing};
use super::{Client, Vdi, btree};
use crate::cluster::{Backoff, Call, Cluster, Ghosts, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::try_for_each_concurrent;

/// Entries of one read while a map is scanned: 256 KiB.
pub(super) const SCAN: u32 = 64 * 1024;
/// Nonzero entries that one write empties: servers release them one by one, and clients have
/// always sent this many (5.12).
const EMPTY_RUN: usize = 128;
/// Objects that are preallocated before their entries are stored together.
const PREALLOC_RUN: u32 = 128;

#[derive(Clone, Copy, Default)]
pub struct CreateOptions {
    /// Bytes.
    pub size: u64,
    /// 0: as the cluster has it.
    pub copies: u8,
    /// Data and parity strips instead of copies.
    pub erasure_code: Option<(u8, u8)>,
    /// Bytes of an object; None: as the cluster has it.
    pub object_size: Option<u64>,
    /// Allocate every object now.
    pub prealloc: bool,
    /// Index the objects by a btree instead of an array (3.9).
    pub hypervolume: bool,
}

impl Client {
    pub async fn create(&self, op: &Op, name: Name, options: &CreateOptions) -> Result<()> {
        if options.size == 0 {
            return Err(Error::Invalid("the size is 0"));
        }
        if options.copies > MAX_COPIES {
            return Err(Error::Invalid("more than 31 copies"));
        }
        let copy_policy = match options.erasure_code {
            None => 0,
            Some(_) if options.copies != 0 => {
                return Err(Error::Invalid("both copies and an erasure code"));
            }
            Some((data, parity)) => erasure_policy(data, parity).ok_or(Error::Invalid(
                "an erasure code has 2, 4, 8 or 16 data strips and 1 to 15 parity strips",
            ))?,
        };
        let shift = match options.object_size {
            // As in the cluster's default, since clients take it for granted (3.9).
            None if options.hypervolume => DEFAULT_BLOCK_SIZE_SHIFT,
            Some(size) if options.hypervolume && size != 1 << DEFAULT_BLOCK_SIZE_SHIFT => {
                return Err(Error::Invalid("the objects of a hypervolume have 4 MiB"));
            }
            None => self.generation(op).await?.default_shift(),
            Some(size) if size.is_power_of_two() && (1 << 20..=1 << 31).contains(&size) => {
                size.trailing_zeros() as u8
            }
            Some(_) => {
                return Err(Error::Invalid("the object size is no power of two, 1 MiB to 2 GiB"));
            }
        };
        // Servers accept more objects than their index holds (7.2).
        let store_policy = if options.hypervolume { STORE_BTREE } else { STORE_ARRAY };
        if options.size > max_size(store_policy, shift) {
            return Err(Error::Invalid("the size passes what the object size allows"));
        }
        if shift != DEFAULT_BLOCK_SIZE_SHIFT && self.generation(op).await? == Generation::Older {
            // It would take no notice (7.1).
            return Err(Error::Refused(Refusal::NoSupport));
        }
        let copies = match options.erasure_code {
            // Without copies a server takes the cluster's policy (4.2).
            Some((data, parity)) => data + parity,
            None => options.copies,
        };
        let arm = VdiArm {
            vdi_size: options.size.into(),
            copies,
            copy_policy,
            store_policy,
            block_size_shift: shift,
            ..Default::default()
        };
        // Until all is allocated nobody of this program opens it.
        let _turn = match self.turn_if_closed(op, name).await {
            Err(Error::Refused(Refusal::Open)) => return Err(inode::exists()),
            turn => turn?,
        };
        let vid = self.new_name(op, &name, arm).await?;
        if options.prealloc {
            let result = self.preallocate(op, name, vid).await;
            if result.is_err() {
                // Nobody asked for half of it.
                let undone = self.delete_found(op, &name, &Which::WORKING, vid).await;
                if let Err(e) = undone {
                    log::warn!("VDI {name}: preallocated in part, and not deleted: {e}");
                }
            }
            result?;
        }
        Ok(())
    }

    /// NEW_VDI for a name that has no working VDI.
    pub(super) async fn new_name(&self, op: &Op, name: &Name, arm: VdiArm) -> Result<Vid> {
        // Known to be free, so that what is there after a lost answer is ours.
        match inode::lookup(&self.cluster, op, name, &Which::WORKING).await {
            Ok(vid) => {
                // A recycling cluster answers with a snapshot (3.4).
                let header = inode::read_header(&self.cluster, op, vid).await?;
                if !header.is_snapshot() {
                    return Err(inode::exists());
                }
            }
            result if answered(&result, SdResult::NO_VDI) => {}
            Err(error) => return Err(error),
        }
        inode::new_vdi(&self.cluster, op, name, arm, None).await
    }

    /// Deletes the working VDI `name`; its snapshots stay.
    pub async fn delete(&self, op: &Op, name: Name) -> Result<()> {
        let _turn = self.turn_if_closed(op, name).await?;
        let vid = inode::lookup(&self.cluster, op, &name, &Which::WORKING).await?;
        self.delete_found(op, &name, &Which::WORKING, vid).await
    }
}

impl Client {
    /// Creates all objects of a new VDI, as zeros, and maps them.
    async fn preallocate(&self, op: &Op, name: Name, vid: Vid) -> Result<()> {
        let (cluster, ghosts) = (&self.cluster, &*self.ghosts_of(vid));
        let header = inode::read_header(cluster, op, vid).await?;
        let vdi = Vdi::new(self, name, Which::WORKING, header, vid, None);
        let view = vdi.view();
        let count = object_count(view.size, view.shift);
        for first in (0..count).step_by(PREALLOC_RUN as usize) {
            let first = first as u32;
            let len = PREALLOC_RUN.min((count - u64::from(first)) as u32);
            let run = (0..len).map(|i| first + i);
            try_for_each_concurrent(run.clone().map(|index| async move {
                let create = write_request(op::CREATE_AND_WRITE_OBJ, vid.data(index), None, 0);
                // Created twice it is zeros all the same: nobody writes to it yet.
                let call = Call::new(create).resendable().tracked(ghosts);
                cluster.call(op, call).await.map(drop)
            }))
            .await?;
            ghosts.settle(cluster, op).await?;
            if view.store_policy == STORE_ARRAY {
                // Every entry of the run changes, from 0, which has no reference to release.
                let entries = vec![vid.get(); len as usize];
                write_run(cluster, op, vid, first, &entries, ghosts).await?;
            } else {
                let entries: Vec<(u32, Vid)> = run.map(|index| (index, vid)).collect();
                vdi.change_tree(cluster, op, &view, &entries).await?;
            }
        }
        Ok(())
    }

    /// Deletes the VDI or snapshot that a lookup has found: empties its map, since servers from
    /// 0.9 on count references by that and 1.0 ones do not delete otherwise (4.11), then removes
    /// the name.
    pub(super) async fn delete_found(
        &self,
        op: &Op,
        name: &Name,
        which: &Which,
        vid: Vid,
    ) -> Result<()> {
        let cluster = &self.cluster;
        let mut vid = vid;
        let mut header = inode::read_header(cluster, op, vid).await?;
        inode::check(&header, vid, name, which)?;
        // By its id: two snapshots can have one tag.
        let is_snapshot = header.is_snapshot();
        let which = match is_snapshot {
            true => Which::snap_id(header.snap_id.get()),
            false => Which::WORKING,
        };
        if header.store_policy != STORE_ARRAY && is_snapshot {
            // Nobody counts who shares its objects (3.9).
            return Err(Error::Refused(Refusal::NoSupport));
        }
        let mut backoff = Backoff::default();
        let mut own = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            let ghosts = self.ghosts_of(vid);
            ghosts.settle(cluster, op).await?;
            let mut emptied = true;
            if header.store_policy != STORE_ARRAY {
                btree::remove_all(cluster, op, vid, &ghosts).await?;
            } else {
                // False: another client has taken a snapshot. What it holds stays from here on.
                let (all, note) = (0..inode::objects(&header), |index| own.push(index));
                emptied = empty_map(cluster, op, vid, all, !is_snapshot, note, &ghosts).await?;
            }
            if emptied {
                match inode::del_vdi(cluster, op, name, &which).await {
                    Ok(()) => {}
                    // Somebody else was faster, or an attempt of ours whose answer was lost.
                    result if is_gone(&result) => return Ok(()),
                    Err(error) if error.is_ambiguous() => {
                        if !backoff.wait(cluster, op).await? {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            // A 1.0 server says so, too, where an entry was stored meanwhile, and only hides the
            // VDI then (4.11).
            match inode::lookup(cluster, op, name, &which).await {
                Ok(found) if found == vid => {
                    if !emptied && !backoff.wait(cluster, op).await? {
                        return Err(Error::TimedOut);
                    }
                }
                // The name went on as another VDI: by a snapshot of the one we were at, or
                // because somebody has created it anew since.
                Ok(found) if !is_snapshot && was_frozen(cluster, op, vid).await? => {
                    (vid, header) = (found, inode::read_header(cluster, op, found).await?);
                    own.clear();
                }
                result if result.is_ok() || is_gone(&result) => {
                    // Those of a snapshot may be others' as well.
                    return match is_snapshot {
                        true => Ok(()),
                        false => self.wait_for_deletion(op, vid, &own).await,
                    };
                }
                result => return result.map(drop),
            }
        }
        Err(Error::Io("another client writes to the VDI that is being deleted"))
    }
}

async fn was_frozen(cluster: &Cluster, op: &Op, vid: Vid) -> Result<bool> {
    let header = inode::read_header(cluster, op, vid).await?;
    Ok(header.is_snapshot() && !header.is_deleted())
}

/// How often a deletion finds that entries were stored meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// Zeroes a range of a map's entries: the server releases the objects they name. Broken off at any
/// point it can be begun again. `own` is told the indexes whose objects are the VDI's own, before
/// they are released. False where the map is to be that of a `working` VDI, and is a snapshot's
/// meanwhile.
pub(super) async fn empty_map(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    range: Range<u32>,
    working: bool,
    mut own: impl FnMut(u32),
    ghosts: &Ghosts,
) -> Result<bool> {
    for first in range.clone().step_by(SCAN as usize) {
        let len = SCAN.min(range.end - first);
        let entries = inode::read_entries(cluster, op, vid, first, len).await?;
        for (start, len) in runs(&entries, EMPTY_RUN) {
            let at = first + start as u32;
            // Servers would let the update into the snapshot (7.2).
            if working && let Standing::Frozen = standing(cluster, op, vid, at).await? {
                return Ok(false);
            }
            let run = (at..).zip(&entries[start..start + len]);
            run.filter(|(_, entry)| **entry == vid.get()).for_each(|(index, _)| own(index));
            write_run(cluster, op, vid, at, &vec![0; len], ghosts).await?;
        }
    }
    Ok(true)
}

/// The nonzero entries as runs (start, length) from one nonzero entry to another, of at most `max`
/// nonzero ones each. Zeros inside stay zero, which releases nothing.
fn runs(entries: &[u32], max: usize) -> Vec<(usize, usize)> {
    let mut used = entries.iter().enumerate().filter(|(_, e)| **e != 0).map(|(i, _)| i).peekable();
    let mut runs = Vec::new();
    while let Some(start) = used.next() {
        let mut last = start;
        for _ in 1..max {
            last = used.next().unwrap_or(last);
        }
        runs.push((start, last - start + 1));
    }
    runs
}

/// Stores a run of entries that all change, of a map that nobody else changes.
async fn write_run(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    first: u32,
    entries: &[u32],
    ghosts: &Ghosts,
) -> Result<()> {
    let mut backoff = Backoff::default();
    loop {
        match inode::write_entries(cluster, op, vid, first, entries, ghosts).await {
            Err(error) if error.is_ambiguous() => {
                if !backoff.wait(cluster, op).await? {
                    return Err(error);
                }
            }
            result => return result,
        }
        // Never repeated beside the lost attempt, nor after it was carried out (3.7, hazard 2).
        ghosts.settle(cluster, op).await?;
        let stored = inode::read_entries(cluster, op, vid, first, entries.len() as u32).await?;
        if stored == entries {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_and_end_with_entries_and_hold_no_more_than_asked() {
        assert_eq!(runs(&[], 2), []);
        assert_eq!(runs(&[0, 0], 2), []);
        assert_eq!(runs(&[0, 7, 0, 7, 0, 0, 7, 0], 2), [(1, 3), (6, 1)]);
        assert_eq!(runs(&[7; 5], 2), [(0, 2), (2, 2), (4, 1)]);
    }
}
