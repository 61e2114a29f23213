//! Snapshots: taking, opening, listing, rolling back, deleting them, and cloning (5.8 to 5.12).

use std::pin::pin;
use std::sync::Arc;

use sheepdog_proto::header::VdiArm;
use sheepdog_proto::inode::{STORE_ARRAY, TAG_OFFSET, VDI_SIZE_OFFSET};
use sheepdog_proto::{InodeHeader, MAX_COPIES, SdResult, Vid, field_text};

use super::displaced::{Family, MAX_ATTEMPTS, OVERTAKEN, PUT_BACK, at_once, is_going};
use super::entries::scan;
use super::inode::{self, Name, NewVdi, Which, answered, unless, unless_gone};
use super::{Client, Opened, UNDO_LIMIT, Vdi, list};
use crate::clock::Instant;
use crate::cluster::Op;
use crate::error::{Error, Refusal, Result};
use crate::exec::lock;

impl Client {
    /// Makes what `vdi` holds now a snapshot with `tag`; `vdi` goes on as the working VDI. Returns
    /// the snapshot's VDI id. Ends by the operation's deadline by itself, but for what a NEW_VDI that
    /// was sent by then needs to be put right.
    pub async fn snapshot(&self, op: &Op, vdi: &Vdi, tag: &[u8]) -> Result<Vid> {
        vdi.check_writable()?;
        if tag.is_empty() {
            return Err(Error::Invalid("the tag is empty"));
        }
        let wanted = Which::snapshot(tag, 0)?;
        let cluster = &self.cluster;
        let begin = pin!(async {
            self.tag_is_free(op, &vdi.name, &wanted).await?;
            // A 1.0 server overwrites map updates that come in while it takes a snapshot (4.2).
            Ok(vdi.still().await)
        });
        let _still = cluster.bounded(op, begin).await?;
        let longer = &op.extended(UNDO_LIMIT);
        let family = Family { cluster, op: longer, name: &vdi.name };
        for _ in 0..MAX_ATTEMPTS {
            let (vid, header) = cluster.bounded(op, pin!(vdi.catch_up(cluster, op))).await?;
            if header.store_policy != STORE_ARRAY {
                // Servers do not count the references of a hypervolume (3.9).
                return Err(Error::Refused(Refusal::NoSupport));
            }
            let arm = VdiArm { snapid: 1.into(), ..inode::derived(&header, vid) };
            let new = match inode::new_vdi(cluster, longer, &vdi.name, arm, Some(vid)).await {
                Ok(NewVdi::Made(new)) => new,
                // Another client's it has its tag soon; two that took it for theirs would overwrite
                // each other's.
                Ok(NewVdi::Found(new)) => {
                    cluster.sleep_until(longer, Instant::now() + PUT_BACK).await?;
                    new
                }
                result if answered(&result, SdResult::VDI_EXIST) => continue,
                Err(error) => return Err(error),
            };
            let stray = inode::made(&arm, vdi.name, new, Instant::now());
            let guard = self.servers.strays.guard(stray);
            let (old, made) = family.read_both(vid, new).await?;
            if old.snap_ctime != made.create_time
                && let Some(displaced) = family.displaced_by(&made).await?
            {
                // Another client was faster: this was none of the VDI that we wanted.
                guard.keep();
                Box::pin(family.put_back(new, displaced)).await?;
                Box::pin(self.discard_wrong(longer, &vdi.name, new)).await?;
                continue;
            }
            family.keep_size(arm.vdi_size.get(), &old, (new, &made)).await?;
            guard.keep();
            let end = pin!(async {
                vdi.switch_to(cluster, op, new).await?;
                self.tag(op, &vdi.name, vid, &wanted).await
            });
            if cluster.bounded(op, end).await? {
                return Ok(vid);
            }
        }
        Err(OVERTAKEN)
    }

    /// Servers do not mind two snapshots with one tag (5.8). One whose deletion was broken off is
    /// deleted first.
    async fn tag_is_free(&self, op: &Op, name: &Name, wanted: &Which) -> Result<()> {
        // Of NO_VDI, too, the tag is not in use: the name has lost its working VDI.
        let found = unless_gone(inode::lookup(&self.cluster, op, name, wanted).await)?;
        let Some(vid) = found else { return Ok(()) };
        let header = inode::read_header(&self.cluster, op, vid).await?;
        if !inode::is_doomed(&header) {
            return Err(inode::IN_USE);
        }
        let which = Which::snap_id(header.snap_id.get());
        // None: another client was at it.
        unless_gone(Box::pin(self.delete_found(op, name, &which, vid)).await).map(drop)
    }

    /// Gives a snapshot of ours its tag: only now, since before it nobody knew whose snapshot it
    /// would be. False where it is another client's after all. Where another has used the tag
    /// meanwhile, it stays without one: another's map update that was on its way may have released
    /// an object that a deletion would release again (4.2).
    async fn tag(&self, op: &Op, name: &Name, vid: Vid, wanted: &Which) -> Result<bool> {
        let cluster = &self.cluster;
        let header = inode::read_header(cluster, op, vid).await?;
        if !header.tag().is_empty() {
            return Ok(false);
        }
        self.tag_is_free(op, name, wanted).await?;
        let tag = |tag: &[u8]| inode::write_header(cluster, op, vid, TAG_OFFSET, tag.to_vec());
        tag(wanted.tag()).await?;
        // The newest is found, and of those before it, which others may have been at at the same
        // time, one at least sees the other.
        let family = Family { cluster, op, name };
        // None: another client has given it a tag of its own.
        let Some(found) = family.lookup(wanted).await? else { return Ok(false) };
        let mut alone = found == vid;
        let mut last = header;
        while alone && let Some((_, parent)) = family.parent(&last).await? {
            if !at_once(&header, &parent) {
                break;
            }
            // A deletion leaves the tag (3.5).
            alone = parent.is_deleted() || parent.tag() != field_text(wanted.tag());
            last = parent;
        }
        if alone {
            return Ok(true);
        }
        tag(Which::WORKING.tag()).await?;
        Err(inode::IN_USE)
    }

    /// Deletes what a snapshot of ours made out of an older state, if nobody has used it: it is a
    /// snapshot by now.
    async fn discard_wrong(&self, op: &Op, name: &Name, vid: Vid) -> Result<()> {
        let wrong = inode::read_header(&self.cluster, op, vid).await?;
        if !wrong.is_snapshot() {
            return Ok(());
        }
        inode::check_any(&wrong, vid, name, &Which::snap_id(wrong.snap_id.get()))?;
        // What was written to it meanwhile must not be gone without a trace.
        if self.has_own(op, vid, &wrong).await? {
            log::error!("VDI {name}: {vid} was used meanwhile, and stays as a snapshot");
            return Ok(());
        }
        self.discard_old(op, name, vid, &wrong).await;
        Ok(())
    }

    /// Whether a VDI has objects of its own.
    async fn has_own(&self, op: &Op, vid: Vid, header: &InodeHeader) -> Result<bool> {
        for (first, len) in scan(0..inode::objects(header)) {
            let entries = inode::read_entries(&self.cluster, op, vid, first, len).await?;
            if entries.contains(&vid.get()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes back a VDI that was made of a snapshot while another client was deleting that. What it
    /// names is let go of by nobody: the server may have counted it for the snapshot twice already
    /// (4.2), and would remove what others still have.
    async fn take_back(&self, op: &Op, name: &Name, which: &Which, vid: Vid) -> Result<()> {
        let cluster = &self.cluster;
        inode::write_header(cluster, op, vid, VDI_SIZE_OFFSET, vec![0; 8]).await?;
        unless_gone(inode::del_vdi(cluster, op, name, which, vid).await).map(drop)
    }

    /// Opens a snapshot for reading.
    pub async fn open_snapshot(&self, op: &Op, name: Name, which: Which) -> Result<Arc<Vdi>> {
        let vid = inode::lookup(&self.cluster, op, &name, &which).await?;
        self.open_snapshot_vid(op, name, vid).await
    }

    /// Opens the snapshot that is known by its VDI id.
    pub async fn open_snapshot_vid(&self, op: &Op, name: Name, vid: Vid) -> Result<Arc<Vdi>> {
        let header = inode::read_header(&self.cluster, op, vid).await?;
        let which = Which::snap_id(header.snap_id.get());
        inode::check(&header, vid, &name, &which)?;
        if !header.is_snapshot() {
            return Err(inode::NO_TAG);
        }
        *lock(&self.open).snapshots.entry(vid).or_default() += 1;
        Ok(Arc::new(Vdi::new(self, name, which, header, vid)))
    }

    /// The snapshots of the VDI `name`, in the order of their ids.
    pub async fn snapshots(&self, op: &Op, name: Name) -> Result<Vec<Arc<Vdi>>> {
        let mut family = list::inodes(self, op).await?;
        family.retain(|(_, header)| header.name() == field_text(name.field()));
        if family.is_empty() {
            return Err(Error::Refused(Refusal::NoVdi));
        }
        family.retain(|(_, header)| header.is_snapshot() && !inode::is_doomed(header));
        family.sort_unstable_by_key(|(vid, header)| (header.snap_id.get(), *vid));
        let mut open = lock(&self.open);
        let opened = family.into_iter().map(|(vid, header)| {
            *open.snapshots.entry(vid).or_default() += 1;
            Arc::new(Vdi::new(self, name, Which::snap_id(header.snap_id.get()), header, vid))
        });
        Ok(opened.collect())
    }

    /// Deletes a snapshot. Others, clones and the working VDI keep what they share with it.
    pub async fn delete_snapshot(&self, op: &Op, name: Name, which: Which) -> Result<()> {
        let _patient = self.cluster.be_patient(op);
        let family = Family { cluster: &self.cluster, op, name: &name };
        let limit = Instant::now() + PUT_BACK;
        let vid = loop {
            let vid = inode::lookup(&self.cluster, op, &name, &which).await?;
            if lock(&self.open).snapshots.contains_key(&vid) {
                return Err(Error::Refused(Refusal::Open));
            }
            let header = inode::read_header(&self.cluster, op, vid).await?;
            // Never the working VDI, whatever a server finds under a tag or an id.
            if !header.is_snapshot() {
                return Err(inode::NO_TAG);
            }
            let lacking = match header.tag().is_empty() {
                true => family.lacking().await?,
                false => None,
            };
            match lacking {
                // What another client's snapshot has displaced is no snapshot.
                Some((now, lost)) if lost.0 == vid => {
                    if !family.restore(now, lost, limit, self.servers.are_older()).await? {
                        break vid;
                    }
                }
                _ => break vid,
            }
        };
        self.delete_found(op, &name, &which, vid).await
    }

    /// Makes the working VDI of the snapshot's name a copy of the snapshot, in one operation of
    /// the server (5.10, method B); what the working VDI was is deleted then.
    pub async fn rollback(&self, op: &Op, snapshot: &Vdi) -> Result<()> {
        let _patient = self.cluster.be_patient(op);
        if snapshot.which == Which::WORKING {
            return Err(Error::Invalid("not the handle of a snapshot"));
        }
        let (cluster, name) = (&self.cluster, &snapshot.name);
        let base = snapshot.view().vid;
        let header = snapshot.read_again(cluster, op).await?;
        if header.store_policy != STORE_ARRAY {
            return Err(Error::Refused(Refusal::NoSupport));
        }
        let readers = self.readers_of(name);
        let is_another_kind = |vdi: &Vdi| {
            let view = vdi.view();
            (view.shift, view.store_policy) != (header.block_size_shift, STORE_ARRAY)
        };
        if readers.iter().any(|reader| is_another_kind(reader)) {
            // The handle could not go on.
            return Err(Error::Refused(Refusal::Open));
        }
        let open = match lock(&self.open).working.get(name) {
            Some(Opened::Open { vdi, .. }) => Some(vdi.clone()),
            Some(Opened::InTransition | Opened::Left(_)) | None => None,
        };
        let _still = match &open {
            Some(vdi) => {
                let still = vdi.still().await;
                if is_another_kind(vdi) {
                    return Err(Error::Refused(Refusal::Open));
                }
                Some(still)
            }
            None => None,
        };
        let family = Family { cluster, op, name };
        for _ in 0..MAX_ATTEMPTS {
            let before = inode::lookup(cluster, op, name, &Which::WORKING).await;
            let before = unless(before, SdResult::NO_VDI)?;
            // A recycling cluster answers with a snapshot (3.4).
            let is_there = match before {
                Some(vid) => !inode::read_header(cluster, op, vid).await?.is_snapshot(),
                None => false,
            };
            let arm =
                VdiArm { snapid: u32::from(is_there).into(), ..inode::derived(&header, base) };
            let new = inode::new_vdi(cluster, op, name, arm, before).await?.vid();
            let (source, made) = family.read_both(base, new).await?;
            let displaced = family.displaced_by(&made).await?;
            if is_going(&source) {
                // Another client was deleting the snapshot: nothing says how much of it was left.
                let which = match displaced {
                    Some(displaced) => {
                        Box::pin(family.put_back(new, displaced)).await?;
                        let wrong = inode::read_header(cluster, op, new).await?;
                        Which::snap_id(wrong.snap_id.get())
                    }
                    None => Which::WORKING,
                };
                self.take_back(op, name, &which, new).await?;
                return Err(inode::NO_TAG);
            }
            if let Some((vid, header)) = displaced {
                // Until it has lost its size others may take this for two snapshots at once.
                self.discard_old(op, name, vid, &header).await;
                if !is_going(&inode::read_header(cluster, op, vid).await?) {
                    return Err(Error::Io("what a rollback has displaced cannot be deleted"));
                }
                let now = inode::lookup(cluster, op, name, &Which::WORKING).await?;
                let header = inode::read_header(cluster, op, now).await?;
                let line = family.line(now, &header, new).await?;
                // Taken for two snapshots at once, and put back. Where another rollback came later,
                // that is what goes on.
                if !line.vids.contains(&new) && line.vids.contains(&vid) {
                    continue;
                }
            }
            if let Some(vdi) = &open {
                vdi.switch_to(cluster, op, new).await?;
            }
            self.have_readers_follow(op, name).await;
            return Ok(());
        }
        Err(OVERTAKEN)
    }

    /// Makes a VDI `name` that starts as a copy of a snapshot: that of the handle, or of the same
    /// name as the handle's and as `which` says.
    pub async fn clone_vdi(
        &self,
        op: &Op,
        source: &Vdi,
        which: Option<Which>,
        name: Name,
        copies: u8,
    ) -> Result<()> {
        if copies > MAX_COPIES {
            return Err(Error::Invalid("more than 31 copies"));
        }
        let cluster = &self.cluster;
        self.name_is_free(op, &name).await?;
        // Last: a deletion of the source is to be noticed.
        let (vid, header) = match which {
            Some(which) => {
                let vid = inode::lookup(cluster, op, &source.name, &which).await?;
                (vid, Vdi::read_checked(cluster, op, vid, &source.name, &which).await?)
            }
            None => (source.view().vid, source.read_again(cluster, op).await?),
        };
        // Servers do not check: a clone of a working VDI would share objects that change (4.2).
        if !header.is_snapshot() {
            return Err(Error::Invalid("the source of a clone is a snapshot"));
        }
        if header.store_policy != STORE_ARRAY {
            return Err(Error::Refused(Refusal::NoSupport));
        }
        let mut arm = inode::derived(&header, vid);
        if copies != 0 && header.copy_policy == 0 {
            arm.copies = copies;
        }
        let new = inode::new_vdi(cluster, op, &name, arm, None).await?.vid();
        let base = inode::read_header(cluster, op, vid).await?;
        if is_going(&base) {
            // Nothing says how much of it was left.
            self.take_back(op, &name, &Which::WORKING, new).await?;
            return Err(inode::NO_TAG);
        }
        Ok(())
    }

    /// Deletes what nobody has asked for: what a rolled-back VDI was, or what two clients made at
    /// once, which stays as a snapshot without a tag. Where this fails, space is what it costs.
    async fn discard_old(&self, op: &Op, name: &Name, vid: Vid, header: &InodeHeader) {
        let which = Which::snap_id(header.snap_id.get());
        let result = match inode::lookup(&self.cluster, op, name, &which).await {
            Ok(found) if found == vid => self.delete_found(op, name, &which, vid).await,
            Ok(_) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            log::warn!("VDI {name}: {vid} stays as a snapshot without a tag: {error}");
        }
    }
}
