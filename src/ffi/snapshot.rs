//! Snapshots and clones.

use std::ffi::{c_char, c_int, c_void};

use super::cluster::sd_t;
use super::entry::{self, Out, enter};
use super::vdi::{off_t, sd_vdi_read, sd_vdi_t};
use crate::error::{Error, Result};
use crate::vdi::Which;

/// Makes what `vdi` holds now a snapshot called `tag`; `vdi` goes on as the working VDI. Waits for
/// writes under way in other threads. A non-NULL `snap_vdi` opens the snapshot.
///
/// Where another client takes a snapshot at the same time, one of the two puts right what the server
/// makes of that; an extra snapshot without a tag may stay.
///
/// A tag that is a number is better avoided: other tools take it for the id of a snapshot.
///
/// Errors: SD_RES_VDI_EXIST (the VDI has a snapshot with that tag), SD_RES_INVALID_PARMS (the tag
/// is empty or longer than 255 bytes), SD_RES_READONLY (`vdi` is a snapshot).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_create(
    sd: sd_t,
    vdi: sd_vdi_t,
    tag: *const c_char,
    snap_vdi: *mut sd_vdi_t,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        // SAFETY: the caller passes pointers as the header says.
        let (tag, out) = unsafe { (entry::tag(tag)?, Out::optional(snap_vdi)) };
        let (client, vdi) = (&handle.client, &handle.vdi);
        let opened = client.cluster.run(async |op| {
            let vid = client.snapshot(op, vdi, tag).await?;
            Ok(match out {
                Some(out) => Some((out, client.open_snapshot_vid(op, *vdi.name(), vid).await?)),
                None => None,
            })
        })?;
        if let Some((out, snapshot)) = opened {
            out.set(entry::new_vdi(client, snapshot)?);
        }
        Ok(())
    })
}

/// Opens a snapshot of the VDI `name` for reading: that with `tag` where it is neither NULL nor "",
/// else that with the id `idx`. To be closed with sd_vdi_close().
///
/// Errors: SD_RES_NO_VDI, SD_RES_NO_TAG, SD_RES_INVALID_PARMS (neither tag nor id).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_open(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    snap_vdi: *mut sd_vdi_t,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let (name, which, out) =
            unsafe { (entry::name(name)?, snapshot(tag, idx)?, Out::new(snap_vdi)?) };
        let opened = client.cluster.run(async |op| client.open_snapshot(op, name, which).await)?;
        out.set(entry::new_vdi(&client, opened)?);
        Ok(())
    })
}

/// # Safety
/// As [`entry::which`].
unsafe fn snapshot(tag: *const c_char, idx: c_int) -> Result<Which> {
    // SAFETY: as the caller promises.
    let which = unsafe { entry::which(tag, idx)? };
    which.ok_or(Error::Invalid("neither a tag nor an id of a snapshot"))
}

/// Makes the working VDI of the snapshot's name a copy of the snapshot `vdi`: what was written
/// since is gone. The servers do it in one step. Handles of this `sd` that are open on the working
/// VDI go on, on the new content.
///
/// Errors: SD_RES_INVALID_PARMS (`vdi` is not a snapshot), SD_RES_VDI_LOCKED (a handle of this `sd`
/// is open on the working VDI, which has another object size: it could not go on).
#[unsafe(no_mangle)]
pub extern "C" fn sd_snapshot_rollback(sd: sd_t, vdi: sd_vdi_t) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        let client = &handle.client;
        client.cluster.run(async |op| client.rollback(op, &handle.vdi).await)
    })
}

/// Reads from a snapshot: as sd_vdi_read().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_read(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *mut c_void,
    size: usize,
    offset: off_t,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    unsafe { sd_vdi_read(sd, vdi, data, size, offset) }
}

/// Deletes a snapshot of the VDI `name`, named as for sd_snapshot_open(). The working VDI, other
/// snapshots and clones keep what they share with it. That another client reads it does not keep it
/// from that.
///
/// Errors: SD_RES_NO_VDI, SD_RES_NO_TAG, SD_RES_VDI_LOCKED (a handle of this `sd` is open on it).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_delete(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let (name, which) = unsafe { (entry::name(name)?, snapshot(tag, idx)?) };
        client.cluster.run(async |op| client.delete_snapshot(op, name, which).await)
    })
}

/// Creates the VDI `dst_name` as a copy of a snapshot, whose objects it shares until it writes to
/// them. The snapshot is the one of `src_vdi`'s name with `tag`, or with the id `idx` where the tag
/// is NULL or ""; with neither, `src_vdi` is the snapshot itself. `copies` 0 is as many as the
/// snapshot has. A non-NULL `dst_vdi` opens the clone.
///
/// Errors: SD_RES_VDI_EXIST, SD_RES_NO_TAG, SD_RES_INVALID_PARMS (`src_vdi` is a working VDI, and
/// neither tag nor id is given).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_clone(
    sd: sd_t,
    src_vdi: sd_vdi_t,
    dst_name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    copies: c_int,
    dst_vdi: *mut sd_vdi_t,
) -> c_int {
    enter(|| {
        let source = entry::vdi(sd, src_vdi)?;
        // SAFETY: the caller passes pointers as the header says.
        let (name, which, out) =
            unsafe { (entry::name(dst_name)?, entry::which(tag, idx)?, Out::optional(dst_vdi)) };
        let copies = u8::try_from(copies).map_err(|_| Error::Invalid("copies is not in 0..31"))?;
        let client = &source.client;
        let opened = client.cluster.run(async |op| {
            client.clone_vdi(op, &source.vdi, which, name, copies).await?;
            Ok(match out {
                Some(out) => Some((out, client.open(op, name).await?)),
                None => None,
            })
        })?;
        if let Some((out, vdi)) = opened {
            out.set(entry::new_vdi(client, vdi)?);
        }
        Ok(())
    })
}
