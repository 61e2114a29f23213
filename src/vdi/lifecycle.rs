//! Creating and deleting VDIs (4.2, 5.12).

use std::pin::pin;
use std::time::Duration;

use sheepdog_proto::header::VdiArm;
use sheepdog_proto::inode::{STORE_ARRAY, STORE_BTREE, VDI_SIZE_OFFSET, max_size, object_count};
use sheepdog_proto::{
    DEFAULT_BLOCK_SIZE_SHIFT, InodeHeader, MAX_COPIES, Oid, SdResult, Vid, erasure_policy, op,
};

use super::displaced::Family;
use super::entries::{SCAN, empty_map, scan, write_run};
use super::generation::Generation;
use super::inode::{self, Name, NewVdi, Which, unless, unless_gone, write_request};
use super::outcome::{Outcome, Step};
use super::{Client, Vdi, btree};
use crate::clock::Instant;
use crate::cluster::{Backoff, Call, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{lock, try_for_each_concurrent};

/// How long the undoing of a creation may take.
pub const UNDO_LIMIT: Duration = Duration::from_secs(10);
/// After so long without a change a deletion is taken for one that was broken off.
const BROKEN_OFF: Duration = Duration::from_secs(2);
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
    /// Ends by the operation's deadline by itself, but for the undoing of what was made by then.
    pub async fn create(&self, op: &Op, name: Name, options: &CreateOptions) -> Result<()> {
        let _patient = if options.prealloc { self.cluster.be_patient(op) } else { None };
        if options.size == 0 {
            return Err(Error::Invalid("the size is 0"));
        }
        if options.copies > MAX_COPIES {
            return Err(Error::Invalid("more than 31 copies"));
        }
        let (copy_policy, copies) = match options.erasure_code {
            None => (0, options.copies),
            Some(_) if options.copies != 0 => {
                return Err(Error::Invalid("both copies and an erasure code"));
            }
            Some((data, parity)) => {
                let policy = erasure_policy(data, parity).ok_or(Error::Invalid(
                    "an erasure code has 2, 4, 8 or 16 data strips and 1 to 15 parity strips",
                ))?;
                // Without copies a server takes the cluster's policy (4.2).
                (policy, data + parity)
            }
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
        let arm = VdiArm {
            vdi_size: options.size.into(),
            copies,
            copy_policy,
            store_policy,
            block_size_shift: shift,
            ..Default::default()
        };
        // Until all is allocated nobody of this program opens it.
        let cluster = &self.cluster;
        let turn = pin!(self.turn_if_closed(op, name));
        let _turn = match cluster.bounded(op, turn).await {
            Err(Error::Refused(Refusal::Open)) => return Err(inode::IN_USE),
            turn => turn?,
        };
        let made = pin!(async {
            self.name_is_free(op, &name).await?;
            inode::new_vdi(cluster, op, &name, arm, None).await.map(NewVdi::vid)
        });
        let vid = cluster.bounded(op, made).await?;
        if !options.prealloc {
            return Ok(());
        }
        let all = pin!(self.preallocate(op, name, vid));
        let result = cluster.bounded(op, all).await;
        if result.is_err() {
            // Nobody asked for half of it. It takes time of its own.
            let op = op.extended(UNDO_LIMIT);
            let mut undo = Box::pin(self.delete_found(&op, &name, &Which::WORKING, vid));
            if let Err(e) = cluster.bounded(&op, undo.as_mut()).await {
                log::warn!("VDI {name}: preallocated in part, and not deleted: {e}");
            }
        }
        result
    }

    /// Before a NEW_VDI for a name that has no working VDI: it must be known to be free, so that
    /// what is there after a lost answer is ours.
    pub(super) async fn name_is_free(&self, op: &Op, name: &Name) -> Result<()> {
        let found = inode::lookup(&self.cluster, op, name, &Which::WORKING).await;
        let Some(vid) = unless(found, SdResult::NO_VDI)? else { return Ok(()) };
        // A recycling cluster answers with a snapshot (3.4).
        let header = inode::read_header(&self.cluster, op, vid).await?;
        if header.is_snapshot() { Ok(()) } else { Err(inode::IN_USE) }
    }

    /// Deletes the working VDI `name`; its snapshots stay.
    pub async fn delete(&self, op: &Op, name: Name) -> Result<()> {
        let _patient = self.cluster.be_patient(op);
        let _turn = self.turn_if_closed(op, name).await?;
        if lock(&self.open).is_read(&name) {
            return Err(Error::Refused(Refusal::Open));
        }
        let vid = inode::lookup(&self.cluster, op, &name, &Which::WORKING).await?;
        self.delete_found(op, &name, &Which::WORKING, vid).await
    }

    /// Creates all objects of a new VDI, as zeros, and maps them.
    async fn preallocate(&self, op: &Op, name: Name, vid: Vid) -> Result<()> {
        let cluster = &self.cluster;
        let which = Which::WORKING;
        let header = Vdi::read_checked(cluster, op, vid, &name, &which).await?;
        let vdi = Vdi::new(self, name, which, header, vid);
        let view = vdi.view();
        let count = object_count(view.size, view.shift);
        for first in (0..count).step_by(PREALLOC_RUN as usize) {
            let first = first as u32;
            let len = PREALLOC_RUN.min((count - u64::from(first)) as u32);
            let run = (0..len).map(|i| first + i);
            try_for_each_concurrent(run.clone().map(|index| async move {
                let create = write_request(op::CREATE_AND_WRITE_OBJ, vid.data(index), None, 0);
                // Created twice it is zeros all the same: nobody writes to it yet.
                cluster.call(op, Call::new(create).resendable()).await.map(drop)
            }))
            .await?;
            if view.store_policy == STORE_ARRAY {
                // Every entry of the run changes, from 0, which has no reference to release.
                write_run(cluster, op, vid, first, &vec![vid.get(); len as usize]).await?;
            } else {
                let entries: Vec<(u32, Vid)> = run.map(|index| (index, vid)).collect();
                vdi.change_tree(cluster, op, &view, &entries).await?;
            }
        }
        Ok(())
    }

    /// Deletes the VDI or snapshot that a lookup has found: empties its map, since servers from
    /// 0.9 on count references by that and 1.0 ones do not delete otherwise (4.11), then removes
    /// the name, and sees what is left.
    pub(super) async fn delete_found(
        &self,
        op: &Op,
        name: &Name,
        which: &Which,
        vid: Vid,
    ) -> Result<()> {
        let cluster = &self.cluster;
        // Two at once would release everything twice (3.7, hazard 2).
        let _turn = self.deletions.exclusive(vid.get()).await;
        let header = inode::read_header(cluster, op, vid).await?;
        if header.is_deleted() && *which != Which::WORKING {
            return Err(inode::NO_TAG);
        }
        inode::check_any(&header, vid, name, which)?;
        // By its id: two snapshots can have one tag.
        let which = match header.is_snapshot() {
            true => Which::snap_id(header.snap_id.get()),
            false => Which::WORKING,
        };
        if header.store_policy != STORE_ARRAY && which != Which::WORKING {
            // Nobody counts who shares its objects (3.9).
            return Err(Error::Refused(Refusal::NoSupport));
        }
        let mut doomed = Doomed { name, which, vid, header };
        if which != Which::WORKING {
            self.doom(op, &doomed).await?;
        }
        let mut backoff = Backoff::default();
        let mut own = Vec::new();
        for attempt in 1..=MAX_ATTEMPTS {
            let removed = match self.empty(op, &doomed, &mut own).await {
                Ok(()) => self.remove_name(op, &doomed).await?,
                Err(Outcome::Failed(error)) => return Err(error),
                // Another client has taken a snapshot. What it holds stays from here on.
                Err(_) => false,
            };
            match self.what_is_left(op, &doomed).await? {
                Left::Nothing if which != Which::WORKING => return Ok(()),
                Left::Nothing => {
                    return self.servers.await_deletion(cluster, op, own).await;
                }
                Left::Same if removed => {}
                Left::Same if attempt == MAX_ATTEMPTS / 2 && which == Which::WORKING => {
                    Family { cluster, op, name }.thaw(vid).await?;
                }
                Left::Same => {
                    if !backoff.wait(cluster, op).await? {
                        return Err(Error::TimedOut(None));
                    }
                }
                Left::Successor(vid, header) => {
                    doomed = Doomed { vid, header: *header, ..doomed };
                    own.clear();
                }
            }
        }
        Err(Error::Io("another client writes to the VDI that is being deleted"))
    }

    /// Makes a snapshot one that nobody opens, clones or goes back to any more, before it loses its
    /// first object: however far the deletion comes, what is left of it is not taken for whole. It
    /// stays under its name, so that the deletion can be repeated.
    async fn doom(&self, op: &Op, doomed: &Doomed<'_>) -> Result<()> {
        let (cluster, vid) = (&self.cluster, doomed.vid);
        // Of 0.8 nobody knows whether it removes the objects of a VDI without a size.
        if self.generation(op).await? == Generation::Older {
            return Ok(());
        }
        if inode::is_doomed(&doomed.header) {
            return self.leave_to_another(op, doomed).await;
        }
        // A map that cannot be read is none that can be emptied: then the snapshot stays.
        for (first, len) in scan(0..inode::objects(&doomed.header)) {
            inode::read_entries(cluster, op, vid, first, len).await?;
        }
        inode::write_header(cluster, op, vid, VDI_SIZE_OFFSET, vec![0; 8]).await?;
        // Whoever derives a VDI from the snapshot writes all of its inode back (4.2). It is over
        // once a later operation of the cluster is.
        if inode::lookup(cluster, op, doomed.name, &doomed.which).await? != vid {
            return Err(inode::NO_VDI);
        }
        match inode::is_doomed(&inode::read_header(cluster, op, vid).await?) {
            true => Ok(()),
            false => Err(Error::Io("another client uses the snapshot that is being deleted")),
        }
    }

    /// A snapshot is being deleted already. Where another client is at it, nobody else must be:
    /// what both let go of would be released twice (3.7, hazard 2). Where nothing happens any more
    /// it was broken off, and we go on with it.
    async fn leave_to_another(&self, op: &Op, doomed: &Doomed<'_>) -> Result<()> {
        let (cluster, vid) = (&self.cluster, doomed.vid);
        let mut last = (Instant::now(), Vec::new());
        while Instant::now() < last.0 + BROKEN_OFF {
            if inode::lookup(cluster, op, doomed.name, &doomed.which).await? != vid {
                return Err(inode::NO_TAG);
            }
            let entries = inode::read_entries(cluster, op, vid, 0, SCAN).await?;
            if entries != last.1 {
                last = (Instant::now(), entries);
            }
            cluster.sleep_until(op, Instant::now() + BROKEN_OFF / 20).await?;
        }
        Ok(())
    }

    /// Lets go of all that a VDI names; its own objects are added to `own`.
    async fn empty(&self, op: &Op, doomed: &Doomed<'_>, own: &mut Vec<Oid>) -> Step<()> {
        let (cluster, vid) = (&self.cluster, doomed.vid);
        if doomed.header.store_policy != STORE_ARRAY {
            return Ok(btree::remove_all(cluster, op, vid).await?);
        }
        let all = 0..inode::objects(&doomed.header);
        let working = doomed.which == Which::WORKING;
        empty_map(cluster, op, vid, all, working, |oid| own.push(oid)).await
    }

    /// DEL_VDI. False where nobody knows what came of it.
    async fn remove_name(&self, op: &Op, doomed: &Doomed<'_>) -> Result<bool> {
        let Doomed { name, which, vid, .. } = doomed;
        match unless_gone(inode::del_vdi(&self.cluster, op, name, which, *vid).await) {
            // None: somebody else was faster, or an attempt of ours whose answer was lost.
            Ok(_) => Ok(true),
            Err(error) if error.is_ambiguous() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A 1.0 server reports success, too, where an entry was stored meanwhile, and only hides the
    /// VDI then (4.11).
    async fn what_is_left(&self, op: &Op, doomed: &Doomed<'_>) -> Result<Left> {
        let cluster = &self.cluster;
        let found = inode::lookup(cluster, op, doomed.name, &doomed.which).await;
        let now = match unless_gone(found)? {
            Some(found) if found == doomed.vid => return Ok(Left::Same),
            Some(found) if doomed.which == Which::WORKING => found,
            _ => return Ok(Left::Nothing),
        };
        let header = inode::read_header(cluster, op, doomed.vid).await?;
        if !header.is_snapshot() || header.is_deleted() {
            // Somebody has created it anew since.
            return Ok(Left::Nothing);
        }
        // By a snapshot of the one we were at.
        let header = inode::read_header(cluster, op, now).await?;
        inode::check_any(&header, now, doomed.name, &doomed.which)?;
        Ok(Left::Successor(now, Box::new(header)))
    }
}

/// What is being deleted.
struct Doomed<'a> {
    name: &'a Name,
    /// WORKING, or a snapshot by its id.
    which: Which,
    vid: Vid,
    header: InodeHeader,
}

/// What a name stands for after its VDI was deleted.
enum Left {
    Nothing,
    /// The VDI is still there.
    Same,
    /// The name went on as another one.
    Successor(Vid, Box<InodeHeader>),
}

/// How often a deletion finds that entries were stored meanwhile.
const MAX_ATTEMPTS: usize = 10;
