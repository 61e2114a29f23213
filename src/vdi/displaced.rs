//! Two snapshots at once, and what comes of it (4.2, 5.7).
//!
//! A NEW_VDI that takes a snapshot freezes what the name stands for, and makes a new working VDI of
//! the one that the request names. Where another client's came between, these are two: what that
//! one made is displaced, and the new one lacks what was written to it. Nothing is lost, it was
//! frozen, without a tag; and nothing could be asked of the server that would have kept it from
//! this. The client that displaced it puts it back before it tells anybody of its snapshot; others
//! wait for that, and do it themselves where it does not happen.
//!
//! A rollback displaces what was current as well. It is told to be one once that has lost its size.

use std::time::Duration;

use sheepdog_proto::header::VdiArm;
use sheepdog_proto::inode::VDI_SIZE_OFFSET;
use sheepdog_proto::{InodeHeader, SdResult, Vid, field_text};

use super::inode::{self, Name, Which, unless, unless_gone};
use crate::clock::Instant;
use crate::cluster::{Cluster, Op};
use crate::error::{Error, Result};
use crate::exec::join;

/// How long whoever has displaced something has to put it back, and how often we look.
pub const PUT_BACK: Duration = Duration::from_secs(2);
const PUT_BACK_POLL: Duration = Duration::from_millis(50);
/// How often something is begun again because other clients were faster.
pub const MAX_ATTEMPTS: usize = 10;
pub const OVERTAKEN: Error = Error::Io("other clients take snapshots all the time");
/// VDIs of a line that are looked at.
const MAX_LINE: usize = 10_000;
/// NEW_VDIs that meet each other are sent within this time, in seconds of the servers' clocks. What
/// was made later of an older state was meant to be.
const AT_ONCE: u64 = 120;

/// The VDIs of one name.
pub struct Family<'a> {
    pub cluster: &'a Cluster,
    pub op: &'a Op,
    pub name: &'a Name,
}

/// The VDIs that one comes from, itself first, each the parent of the one before. A deletion leaves
/// that in the inode (3.5).
pub struct Line {
    pub vids: Vec<Vid>,
    /// Those that were made of another one than they displaced.
    bent: Vec<InodeHeader>,
}

/// What was displaced.
pub type Lost = (Vid, InodeHeader);

impl Family<'_> {
    /// The line of `vid`, as far as `to`.
    pub async fn line(&self, vid: Vid, header: &InodeHeader, to: Vid) -> Result<Line> {
        let mut line = Line { vids: vec![vid], bent: Vec::new() };
        let mut child = *header;
        while line.vids.len() < MAX_LINE
            && line.vids.last() != Some(&to)
            && let Some((vid, header)) = self.parent(&child).await?
        {
            line.vids.push(vid);
            if header.snap_ctime != child.create_time {
                line.bent.push(child);
            }
            child = header;
        }
        Ok(line)
    }

    /// What the last of a line lacks.
    pub async fn lost_of(&self, line: &Line) -> Result<Option<Lost>> {
        for made in &line.bent {
            if let Some(lost) = self.lost_by(made).await? {
                return Ok(Some(lost));
            }
        }
        Ok(None)
    }

    /// The working VDI and what it lacks, where that was displaced last.
    pub async fn lacking(&self) -> Result<Option<(Vid, Lost)>> {
        let Some(now) = self.lookup(&Which::WORKING).await? else { return Ok(None) };
        let lost = self.lost_by(&self.read(now).await?).await?;
        Ok(lost.map(|lost| (now, lost)))
    }

    /// What was displaced where `made` was made, and is newer than what that was made of.
    pub async fn lost_by(&self, made: &InodeHeader) -> Result<Option<Lost>> {
        let Some((parent, header)) = self.parent(made).await? else { return Ok(None) };
        if header.snap_ctime == made.create_time
            || !near(made.create_time.get(), header.snap_ctime.get())
        {
            return Ok(None);
        }
        let Some((vid, header)) = self.displaced_by(made).await? else { return Ok(None) };
        let is_newer = self.line(vid, &header, parent).await?.vids.contains(&parent);
        Ok(is_newer.then_some((vid, header)))
    }

    /// What was current where `made` was made, unless it is being deleted.
    pub async fn displaced_by(&self, made: &InodeHeader) -> Result<Option<Lost>> {
        let which = Which::snap_id(made.snap_id.get().wrapping_sub(1));
        let Some(vid) = self.lookup(&which).await? else { return Ok(None) };
        let header = self.read(vid).await?;
        let is_it = header.snap_ctime == made.create_time;
        Ok((is_it && !is_going(&header)).then_some((vid, header)))
    }

    /// Leaves it to others for a while to put back what the working VDI `vid` lacks. False where it
    /// is to stay as it is: servers that are `older` do not tell a rollback from this.
    pub async fn restore(&self, vid: Vid, lost: Lost, limit: Instant, older: bool) -> Result<bool> {
        if Instant::now() < limit {
            self.cluster.sleep_until(self.op, Instant::now() + PUT_BACK_POLL).await?;
            return Ok(true);
        }
        if older {
            return Ok(false);
        }
        // Seldom needed, and large.
        Box::pin(self.put_back(vid, lost)).await.map(|()| true)
    }

    /// Has the name stand again for what was displaced, instead of for `vid`.
    pub async fn put_back(&self, mut vid: Vid, mut lost: Lost) -> Result<()> {
        let (cluster, op, name) = (self.cluster, self.op, self.name);
        for _ in 0..MAX_ATTEMPTS {
            if self.lookup(&Which::WORKING).await? != Some(vid) {
                // Others did.
                return Ok(());
            }
            let (base, header) = lost;
            let arm = VdiArm { snapid: 1.into(), ..inode::derived(&header, base) };
            let back = inode::new_vdi(cluster, op, name, arm, Some(vid)).await?.vid();
            let (base_now, made) = self.read_both(base, back).await?;
            self.keep_size(arm.vdi_size.get(), &base_now, (back, &made)).await?;
            let next = match is_going(&base_now) {
                // By a rollback, and what that has made is not to be displaced.
                true => self.displaced_by(&made).await?,
                false => self.lost_by(&made).await?,
            };
            let Some(next) = next else {
                log::warn!("VDI {name}: {base}, displaced by {vid}, goes on as {back}");
                return Ok(());
            };
            (vid, lost) = (back, next);
        }
        Err(OVERTAKEN)
    }

    /// Gives the working VDI `vid` a successor where it takes no writes and no inode says why: the
    /// NEW_VDI that was to do so has failed halfway, or has died with its gateway (4.2).
    pub async fn thaw(&self, vid: Vid) -> Result<()> {
        log::warn!("VDI {}: {vid} takes no writes; it stays as a snapshot", self.name);
        let arm = VdiArm { snapid: 1.into(), ..inode::derived(&self.read(vid).await?, vid) };
        inode::new_vdi(self.cluster, self.op, self.name, arm, Some(vid)).await.map(drop)
    }

    /// The inodes of a VDI and of what was made of it, after that.
    pub async fn read_both(&self, base: Vid, made: Vid) -> Result<(InodeHeader, InodeHeader)> {
        let (base, made) = join(self.read(base), self.read(made)).await;
        Ok((base?, made?))
    }

    /// What a VDI was made of, unless that has another name: then it is a clone.
    pub async fn parent(&self, header: &InodeHeader) -> Result<Option<Lost>> {
        let Some(vid) = Vid::new(header.parent_vdi_id.get()).filter(|vid| !vid.is_none()) else {
            return Ok(None);
        };
        // A recycling cluster removes inodes (3.3).
        let Some(parent) = unless(self.read(vid).await, SdResult::NO_OBJ)? else {
            return Ok(None);
        };
        // A deleted one has no name.
        let is_ours = parent.is_deleted() || parent.name() == field_text(self.name.field());
        Ok(is_ours.then_some((vid, parent)))
    }

    /// Another client may have resized `base` just before a NEW_VDI, which named `size`, made `vid`
    /// of it, and was told so.
    pub async fn keep_size(
        &self,
        size: u64,
        base: &InodeHeader,
        (vid, made): (Vid, &InodeHeader),
    ) -> Result<()> {
        let real = base.vdi_size.get();
        if is_going(base) || real == size || made.vdi_size.get() != size {
            return Ok(());
        }
        let real = real.to_le_bytes().to_vec();
        inode::write_header(self.cluster, self.op, vid, VDI_SIZE_OFFSET, real).await
    }

    /// The same where that NEW_VDI was given up, or the look at what came of it. What was displaced
    /// goes by other rules.
    pub async fn keep_size_late(&self, size: u64, base: Vid, vid: Vid) -> Result<()> {
        let (old, made) = self.read_both(base, vid).await?;
        if old.snap_ctime != made.create_time {
            return Ok(());
        }
        self.keep_size(size, &old, (vid, &made)).await
    }

    pub async fn lookup(&self, which: &Which) -> Result<Option<Vid>> {
        unless_gone(inode::lookup(self.cluster, self.op, self.name, which).await)
    }

    async fn read(&self, vid: Vid) -> Result<InodeHeader> {
        inode::read_header(self.cluster, self.op, vid).await
    }
}

/// Whether a VDI is deleted, or a snapshot that is being deleted.
pub fn is_going(header: &InodeHeader) -> bool {
    header.is_deleted() || inode::is_doomed(header)
}

/// Whether two snapshots may have been taken by operations that met each other.
pub fn at_once(one: &InodeHeader, other: &InodeHeader) -> bool {
    near(one.snap_ctime.get(), other.snap_ctime.get())
}

/// Times have their seconds in the upper half (0.7).
fn near(one: u64, other: u64) -> bool {
    (one >> 32).abs_diff(other >> 32) <= AT_ONCE
}
