//! Snapshots and clones.

use std::ffi::{c_char, c_int, c_void};
use std::pin::pin;

use super::cluster::sd_t;
use super::entry::{self, Out, VdiHandle, enter};
use super::form::{Form, nothing, sd_callback_fn};
use super::vdi::{off_t, sd_vdi_read, sd_vdi_t};
use crate::error::{Error, Result};
use crate::vdi::{Name, UNDO_LIMIT, Which};

/// Makes what `vdi` holds now a snapshot called `tag`; `vdi` goes on as the working VDI. Waits for
/// writes under way in other threads. A non-NULL `snap_vdi` opens the snapshot.
///
/// Where another client takes a snapshot at the same time, one of the two puts right what the
/// server makes of that; an extra snapshot without a tag may stay. Putting it right may take ten
/// seconds beyond sd_set_timeout().
///
/// A tag that is a number is better avoided: other tools take it for the id of a snapshot.
///
/// Errors: SD_RES_VDI_EXIST (the VDI has a snapshot with that tag), SD_RES_INVALID_PARMS (the tag
/// is empty or longer than 255 bytes), SD_RES_READONLY (`vdi` is a snapshot), SD_RES_NO_SUPPORT (a
/// hypervolume: servers do not count who shares its objects).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_create(
    sd: sd_t,
    vdi: sd_vdi_t,
    tag: *const c_char,
    snap_vdi: *mut sd_vdi_t,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { create(sd, vdi, tag, snap_vdi, Form::Blocking) })
}

/// Takes a snapshot as sd_snapshot_create(), without waiting, and tells as sd_vdi_aopen(). Writes
/// that are in flight when this is called may be in the snapshot or not; they end as they would
/// have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_acreate(
    sd: sd_t,
    vdi: sd_vdi_t,
    tag: *const c_char,
    snap_vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { create(sd, vdi, tag, snap_vdi, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn create(
    sd: sd_t,
    vdi: sd_vdi_t,
    tag: *const c_char,
    snap_vdi: *mut sd_vdi_t,
    form: Form,
) -> Result<()> {
    let VdiHandle { client, vdi } = entry::vdi(sd, vdi)?;
    // SAFETY: as the caller promises.
    let (tag, out) = unsafe { (entry::tag(tag)?.to_vec(), Out::optional(snap_vdi)) };
    let wanted = out.is_some();
    form.begin(&client, 0)?.beyond(UNDO_LIMIT).run(
        move |op| async move {
            let vid = client.snapshot(&op, &vdi, &tag).await?;
            if !wanted {
                return Ok(None);
            }
            let opened = pin!(async {
                let snapshot = client.open_snapshot_vid(&op, *vdi.name(), vid).await?;
                entry::new_vdi(&client, &op, snapshot).await
            });
            client.cluster.bounded(&op, opened).await.map(Some)
        },
        move |handle| entry::give(handle, out),
    )
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
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { open(sd, name, tag, idx, snap_vdi, Form::Blocking) })
}

/// Opens as sd_snapshot_open(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_aopen(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    snap_vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let form = Form::asynchronous(sd, r#fn, opaque)?;
        // SAFETY: the caller passes pointers as the header says.
        unsafe { open(sd, name, tag, idx, snap_vdi, form) }
    })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn open(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    snap_vdi: *mut sd_vdi_t,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let (name, which, out) =
        unsafe { (entry::name(name)?, snapshot(tag, idx)?, Out::new(snap_vdi)?) };
    form.begin(&client, 0)?.run(
        move |op| async move {
            let vdi = client.open_snapshot(&op, name, which).await?;
            entry::new_vdi(&client, &op, vdi).await
        },
        move |handle| entry::give(Some(handle), Some(out)),
    )
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
    enter(|| rollback(entry::vdi(sd, vdi)?, Form::Blocking))
}

/// Rolls back as sd_snapshot_rollback(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_arollback(
    sd: sd_t,
    vdi: sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| rollback(entry::vdi(sd, vdi)?, Form::asynchronous(sd, r#fn, opaque)?))
}

fn rollback(handle: VdiHandle, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    form.begin(&client, 0)?.run(move |op| async move { client.rollback(&op, &vdi).await }, nothing)
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
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, tag, idx, Form::Blocking) })
}

/// Deletes as sd_snapshot_delete(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_adelete(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, tag, idx, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn delete(
    sd: sd_t,
    name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let (name, which) = unsafe { (entry::name(name)?, snapshot(tag, idx)?) };
    form.begin(&client, 0)?
        .run(move |op| async move { client.delete_snapshot(&op, name, which).await }, nothing)
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
        // SAFETY: the caller passes pointers as the header says.
        let target = unsafe { Target::new(dst_name, tag, idx, copies, dst_vdi)? };
        clone(entry::vdi(sd, src_vdi)?, target, Form::Blocking)
    })
}

/// Clones as sd_vdi_clone(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aclone(
    sd: sd_t,
    src_vdi: sd_vdi_t,
    dst_name: *const c_char,
    tag: *const c_char,
    idx: c_int,
    copies: c_int,
    dst_vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let target = unsafe { Target::new(dst_name, tag, idx, copies, dst_vdi)? };
        clone(entry::vdi(sd, src_vdi)?, target, Form::asynchronous(sd, r#fn, opaque)?)
    })
}

/// What is to be made of which snapshot.
struct Target {
    which: Option<Which>,
    name: Name,
    copies: u8,
    out: Option<Out<sd_vdi_t>>,
}

impl Target {
    /// # Safety
    /// As the header says of the pointers.
    unsafe fn new(
        name: *const c_char,
        tag: *const c_char,
        idx: c_int,
        copies: c_int,
        vdi: *mut sd_vdi_t,
    ) -> Result<Target> {
        let copies = u8::try_from(copies).map_err(|_| Error::Invalid("copies is not in 0..31"))?;
        // SAFETY: as the caller promises.
        unsafe {
            let (which, name) = (entry::which(tag, idx)?, entry::name(name)?);
            Ok(Target { which, name, copies, out: Out::optional(vdi) })
        }
    }
}

fn clone(source: VdiHandle, target: Target, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = source;
    let Target { which, name, copies, out } = target;
    let wanted = out.is_some();
    form.begin(&client, 0)?.run(
        move |op| async move {
            client.clone_vdi(&op, &vdi, which, name, copies).await?;
            if !wanted {
                return Ok(None);
            }
            let vdi = client.open(&op, name).await?;
            entry::new_vdi(&client, &op, vdi).await.map(Some)
        },
        move |handle| entry::give(handle, out),
    )
}
