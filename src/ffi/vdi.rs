//! VDIs: create, open, read, write, delete.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::pin::pin;

use sheepdog_proto::{NAME_LEN, time_to_ns};

use super::cluster::sd_t;
use libc::iovec;

use super::aio::SD_WRITE_NOCOPY;
use super::entry::{self, Out, Owned, VdiHandle, enter};
use super::form::{Begun, Form, nothing, sd_callback_fn};
use super::program;
use crate::cluster::Op;
use crate::error::{Error, Result};
use crate::net::{RecvBuf, SendBuf};
use crate::vdi::{Client, CreateOptions, Extent, ExtentKind, Space, UNDO_LIMIT, Vdi};

/// cbindgen:ignore
#[repr(C)]
pub struct sd_inode {
    _opaque: [u8; 0],
}

/// cbindgen:ignore
pub type sd_vdi_t = *mut sd_inode;

/// Of 64 bits, whatever the libc crate has on a 32-bit target: the header makes sure that the
/// program sees it the same way.
///
/// cbindgen:ignore
pub type off_t = i64;

/// For what writes: the data is stable when the call returns, as after sd_vdi_flush().
pub const SD_WRITE_FUA: c_int = 1;
/// For writing zeros: objects that are there stay, and are written to, so that later writes take no
/// new space.
pub const SD_WRITE_KEEP: c_int = 4;

/// What a VDI is. Grows only at its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sd_vdi_info {
    /// NUL-terminated.
    pub name: [c_char; 256],
    /// NUL-terminated; empty unless it is a snapshot with a tag.
    pub tag: [c_char; 256],
    /// Bytes.
    pub size: u64,
    /// Bytes of one object.
    pub object_size: u64,
    /// Bytes of the objects that the VDI names, those shared with others included.
    pub allocated: u64,
    /// Nanoseconds since the Unix epoch.
    pub create_time_ns: u64,
    /// Nanoseconds since the Unix epoch; 0 unless it is a snapshot.
    pub snap_time_ns: u64,
    pub vdi_id: u32,
    /// 0 where it has none.
    pub parent_vdi_id: u32,
    pub snap_id: u32,
    /// Copies of each object.
    pub copies: u8,
    /// 0, or the erasure code: data strips / 2 in the high half, parity strips in the low one.
    pub copy_policy: u8,
    /// 0, or 1 for a hypervolume.
    pub store_policy: u8,
    pub is_snapshot: bool,
    /// Bytes: the sector of the disk that a VDI stands for. Reads and writes need not keep to it.
    pub io_min: u32,
    /// Bytes: what lies between two multiples of it is one request to the servers, and one object.
    pub io_opt: u32,
    /// The most bytes of one read or write: what memory can hold, in multiples of `io_min`. What is
    /// asynchronous takes no more than sd_set_buffer_limit() allows, either.
    pub max_io: u64,
}

// Every byte is part of a member, so that the next one starts where this ends.
const _: () = assert!(size_of::<sd_vdi_info>() == offset_of!(sd_vdi_info, max_io) + 8);

/// Bytes of a sector.
const IO_MIN: u32 = 512;

/// Creates the VDI `name` of `size` bytes (1 to 2^20 objects: 4 TiB where objects have the usual
/// 4 MiB), with `copies` copies of each object, 0 for the cluster's default. `prealloc` allocates
/// all objects now instead of each at its first write; where that fails the VDI is deleted again, which
/// may take ten seconds beyond sd_set_timeout(). A non-NULL `vdi` opens it as sd_vdi_open().
///
/// Errors: SD_RES_INVALID_PARMS (size 0 or too large, copies not in 0..31, a name that is empty or
/// longer than 255 bytes), SD_RES_VDI_EXIST, SD_RES_NO_SPACE, SD_RES_FULL_VDI. Where `vdi` is not
/// NULL and only opening failed, the VDI exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_create(
    sd: sd_t,
    name: *const c_char,
    size: usize,
    copies: c_int,
    prealloc: bool,
    vdi: *mut sd_vdi_t,
) -> c_int {
    enter(|| {
        let options = plain_options(size, copies, prealloc)?;
        // SAFETY: the caller passes pointers as the header says.
        unsafe { create(sd, name, options, vdi, Form::Blocking) }
    })
}

/// Creates as sd_vdi_create(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_acreate(
    sd: sd_t,
    name: *const c_char,
    size: usize,
    copies: c_int,
    prealloc: bool,
    vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let options = plain_options(size, copies, prealloc)?;
        // SAFETY: the caller passes pointers as the header says.
        unsafe { create(sd, name, options, vdi, Form::asynchronous(sd, r#fn, opaque)?) }
    })
}

fn plain_options(size: usize, copies: c_int, prealloc: bool) -> Result<CreateOptions> {
    let copies = u8::try_from(copies).map_err(|_| Error::Invalid("copies is not in 0..31"))?;
    Ok(CreateOptions { size: size as u64, copies, prealloc, ..Default::default() })
}

/// What sd_vdi_create_ex() can be told. Zeroed, it is what sd_vdi_create() does. Grows only at its
/// end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sd_create_opts {
    /// Bytes of an object, a power of two from 2^20 to 2^31; 0 for the cluster's default.
    pub object_size: u64,
    /// Copies of each object; 0 for the cluster's default.
    pub copies: u8,
    /// An erasure code instead of copies: 2, 4, 8 or 16 data strips, ...
    pub ec_data: u8,
    /// ... and 1 to 15 parity strips. Both 0: none.
    pub ec_parity: u8,
    /// Allocate all objects now.
    pub prealloc: bool,
    /// A hypervolume, which can have up to 16 PiB with objects of 4 MiB.
    pub hypervolume: bool,
    /// Must be 0.
    pub reserved: [u8; 3],
}

// Every byte has a name, so that none is left to chance.
const _: () = assert!(size_of::<sd_create_opts>() == offset_of!(sd_create_opts, reserved) + 3);

/// Creates a VDI as `opts` says; NULL is all zeros. `sizeof_opts` is `sizeof(struct
/// sd_create_opts)` as the program was compiled. Otherwise as sd_vdi_create().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_create_ex(
    sd: sd_t,
    name: *const c_char,
    size: usize,
    opts: *const sd_create_opts,
    sizeof_opts: usize,
    vdi: *mut sd_vdi_t,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        unsafe {
            let options = create_options(size, opts, sizeof_opts)?;
            create(sd, name, options, vdi, Form::Blocking)
        }
    })
}

/// Creates as sd_vdi_create_ex(), without waiting, and tells as sd_vdi_aopen(). `*opts` is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_acreate_ex(
    sd: sd_t,
    name: *const c_char,
    size: usize,
    opts: *const sd_create_opts,
    sizeof_opts: usize,
    vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        unsafe {
            let options = create_options(size, opts, sizeof_opts)?;
            create(sd, name, options, vdi, Form::asynchronous(sd, r#fn, opaque)?)
        }
    })
}

/// # Safety
/// `opts` is NULL or points to `len` bytes.
unsafe fn create_options(
    size: usize,
    opts: *const sd_create_opts,
    len: usize,
) -> Result<CreateOptions> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { entry::options::<{ size_of::<sd_create_opts>() }>(opts.cast(), len)? };
    if bytes[offset_of!(sd_create_opts, reserved)..].iter().any(|b| *b != 0) {
        return Err(Error::Invalid("a reserved option is not 0"));
    }
    let u64_at = |at| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    let object_size = u64_at(offset_of!(sd_create_opts, object_size));
    let strips =
        (bytes[offset_of!(sd_create_opts, ec_data)], bytes[offset_of!(sd_create_opts, ec_parity)]);
    Ok(CreateOptions {
        size: size as u64,
        copies: bytes[offset_of!(sd_create_opts, copies)],
        erasure_code: (strips != (0, 0)).then_some(strips),
        object_size: (object_size != 0).then_some(object_size),
        prealloc: bytes[offset_of!(sd_create_opts, prealloc)] != 0,
        hypervolume: bytes[offset_of!(sd_create_opts, hypervolume)] != 0,
    })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn create(
    sd: sd_t,
    name: *const c_char,
    options: CreateOptions,
    vdi: *mut sd_vdi_t,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let (name, out) = unsafe { (entry::name(name)?, Out::optional(vdi)) };
    let wanted = out.is_some();
    form.begin(&client, 0)?.beyond(UNDO_LIMIT).run(
        move |op| async move {
            let _patient = if options.prealloc { client.cluster.be_patient(&op) } else { None };
            client.create(&op, name, &options).await?;
            if !wanted {
                return Ok(None);
            }
            let open = pin!(client.open(&op, name));
            let vdi = client.cluster.bounded(&op, open).await?;
            entry::new_vdi(&client, &op, vdi).await.map(Some)
        },
        move |handle| entry::give(handle, out),
    )
}

/// Opens the working VDI `name` for reading and writing. Takes its lock where the cluster has
/// locks; handles of one `sd` on the same VDI share it, and see each other's writes.
///
/// A VDI has one writing `sd` at a time. On success `*vdi` is valid, in any thread, until
/// sd_vdi_close() or sd_close().
///
/// Where the cluster has no locks, which is how servers format one unless they are told otherwise, a
/// second writer is not kept out, and nobody is told. What both write may be lost then: of an object that both write to for the first
/// time one has the data, and space may stay taken that no VDI uses any more. What one wrote alone,
/// and to objects that were there, stays.
///
/// Errors: SD_RES_NO_VDI, SD_RES_VDI_LOCKED (another client holds the lock), SD_RES_NO_SUPPORT (a
/// kind of VDI that this library cannot write).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_open(sd: sd_t, name: *const c_char, vdi: *mut sd_vdi_t) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { open(sd, name, vdi, false, Form::Blocking) })
}

/// Opens as sd_vdi_open(), without waiting. `fn` is called with `sd`, the result and `opaque` once
/// that has ended, from sd_dispatch() or the attached event loop, never from inside this call.
/// `*vdi` is written before that, on success alone, and belongs to the library until then; all
/// other arguments may go when this returns.
///
/// Where this returns anything but 0 nothing was started, and `fn` will not be called:
/// SD_RES_INVALID_PARMS, SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()). What is
/// found out later `fn` is told, a name that does not exist for example.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aopen(
    sd: sd_t,
    name: *const c_char,
    vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { open(sd, name, vdi, false, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn open(
    sd: sd_t,
    name: *const c_char,
    vdi: *mut sd_vdi_t,
    read_only: bool,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let (name, out) = unsafe { (entry::name(name)?, Out::new(vdi)?) };
    form.begin(&client, 0)?.run(
        move |op| async move {
            let vdi = match read_only {
                true => client.open_read_only(&op, name).await?,
                false => client.open(&op, name).await?,
            };
            entry::new_vdi(&client, &op, vdi).await
        },
        move |handle| entry::give(Some(handle), Some(out)),
    )
}

/// Opens the working VDI `name` for reading alone, whoever has it open and locked: takes no lock,
/// and keeps nobody from taking it. What writes gives SD_RES_READONLY.
///
/// It sees what handles of the same `sd` write. Of what another client writes it sees what went
/// to objects that were there when it opened the VDI; the rest, and the VDI that goes on where
/// that client takes a snapshot or rolls back, after sd_vdi_refresh().
///
/// Errors: SD_RES_NO_VDI, SD_RES_NO_SUPPORT (a kind of VDI that this library cannot read).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_open_ro(
    sd: sd_t,
    name: *const c_char,
    vdi: *mut sd_vdi_t,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { open(sd, name, vdi, true, Form::Blocking) })
}

/// Opens as sd_vdi_open_ro(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aopen_ro(
    sd: sd_t,
    name: *const c_char,
    vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { open(sd, name, vdi, true, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// Gives the lock of the working VDI `name` back, whoever holds it: for the lock of a client that
/// is no more. It is gone when this returns 0, or was not there.
///
/// Nothing else tells the servers that a client is no more. One that goes on after all writes as
/// before, beside whoever takes the lock next: what both write may be lost, and so may the VDI.
/// When it closes the VDI, it releases the lock of that other client. So make sure that it has
/// ended.
///
/// Locks that several clients share (not those of this library) are given back as far as they were
/// taken through the gateway in use: sd_vdi_open() tells whether any are left.
///
/// Errors: SD_RES_NO_VDI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_break_lock(sd: sd_t, name: *const c_char) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let name = unsafe { entry::name(name)? };
        client.cluster.run(async |op| client.break_lock(op, name).await)
    })
}

/// Closes a handle and sets `*vdi` to NULL. The last handle of a VDI waits for writes under way in
/// other threads, and for what was given up and may still happen to the VDI, and releases the lock.
/// The handle is gone even where that fails; then the next sd_vdi_open() of the VDI, or sd_close(),
/// comes to the end of it.
///
/// Errors: SD_RES_TIMEDOUT (the lock is still held).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_close(vdi: *mut sd_vdi_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes a pointer to a handle, as the header says.
        let (out, handle) = unsafe { (Out::new(vdi)?, vdi.read()) };
        let handle = entry::remove_vdi(handle)?;
        out.set(std::ptr::null_mut());
        let Owned::Here(handle) = handle else { return Ok(()) };
        let begun = Form::Blocking.begin(&handle.client, 0)?;
        close(handle, begun)
    })
}

/// Closes as sd_vdi_close(), without waiting, and tells as sd_vdi_aopen(), with the `sd` that the
/// VDI was opened through. `*vdi` is NULL, and the handle gone, when this returns 0; requests that
/// are in flight on it end as they would have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aclose(
    vdi: *mut sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes a pointer to a handle, as the header says.
        let (out, handle) = unsafe { (Out::new(vdi)?, vdi.read()) };
        let (vdi, sd) = entry::any_vdi(handle)?;
        let begun = Form::asynchronous(sd, r#fn, opaque)?.begin(&vdi.client, 0)?;
        // All that can fail comes before the handle goes.
        vdi.client.cluster.events_fd()?;
        entry::remove_vdi(handle)?;
        out.set(std::ptr::null_mut());
        close(vdi, begun)
    })
}

fn close(handle: VdiHandle, begun: Begun) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    begun.run(move |op| async move { client.close(&op, vdi).await }, nothing)
}

/// Reads `size` bytes at byte `offset` of a VDI into `data`. Parts that were never written read as
/// zeros. Any offset and length inside the VDI will do; beyond its end nothing is transferred.
///
/// Errors: SD_RES_INVALID_PARMS (range), SD_RES_EIO (data that should exist does not). After an
/// error the contents of `data` mean nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_read(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *mut c_void,
    size: usize,
    offset: off_t,
) -> c_int {
    enter(|| {
        let handle = entry::readable(sd, vdi)?;
        entry::check_writable(data, size)?;
        let offset = entry::offset(offset)?;
        // SAFETY: the caller lends the buffer for the call, and every loan of it has ended when
        // `run` returns: a request that is given up drops its buffers at once.
        let buf = unsafe { RecvBuf::from_raw(data.cast(), size) };
        read(handle, buf, offset, Form::Blocking)
    })
}

/// Writes `size` bytes from `data` to a VDI at byte `offset`, any offset and length inside the VDI.
/// `flag` is 0 or SD_WRITE_FUA. When it returns 0, later reads give these bytes, and no crash of
/// this program takes them back; sd_vdi_flush() makes them outlast a power failure of the servers.
///
/// Where another client has taken a snapshot of the VDI meanwhile, the data goes to the new working
/// VDI, and never into the snapshot.
///
/// Errors: SD_RES_INVALID_PARMS (range, flag), SD_RES_NO_SPACE, SD_RES_EIO, SD_RES_READONLY. After
/// an error the range may hold old data, new data, or some of both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_write(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *const c_void,
    size: usize,
    offset: off_t,
    flag: c_int,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        entry::check_readable(data, size)?;
        let offset = entry::offset(offset)?;
        // SAFETY: as in sd_vdi_read.
        let buf = unsafe { SendBuf::from_raw(data.cast(), size) };
        write(handle, buf, offset, flag, Form::Blocking)
    })
}

pub fn read(handle: VdiHandle, mut buf: RecvBuf, offset: u64, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    form.begin(&client.clone(), buf.len())?.run(
        move |op| async move { vdi.read(&client.cluster, &op, &mut buf, offset).await },
        nothing,
    )
}

pub fn write(handle: VdiHandle, buf: SendBuf, offset: u64, flag: c_int, form: Form) -> Result<()> {
    let copied = form.is_asynchronous() && flag & SD_WRITE_NOCOPY == 0;
    check_flag(flag, SD_WRITE_FUA | if form.is_asynchronous() { SD_WRITE_NOCOPY } else { 0 })?;
    let VdiHandle { client, vdi } = handle;
    // Before the copy is made, so that there is never more of them than the limit allows.
    let begun = form.begin(&client, buf.len())?;
    let buf = if copied { buf.to_owned()? } else { buf };
    begun.run(
        move |op| async move {
            vdi.write(&client.cluster, &op, &buf, offset).await?;
            flush_if(flag & SD_WRITE_FUA != 0, &client, &vdi, &op).await
        },
        nothing,
    )
}

async fn flush_if(wanted: bool, client: &Client, vdi: &Vdi, op: &Op) -> Result<()> {
    if wanted { vdi.flush(&client.cluster, op).await } else { Ok(()) }
}

pub fn check_flag(flag: c_int, known: c_int) -> Result<()> {
    if flag & !known == 0 { Ok(()) } else { Err(Error::Invalid("unknown flag")) }
}

/// Reads into `iovcnt` buffers one after the other; otherwise as sd_vdi_read(). The buffers must
/// not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_readv(
    sd: sd_t,
    vdi: sd_vdi_t,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
) -> c_int {
    enter(|| {
        let handle = entry::readable(sd, vdi)?;
        let offset = entry::offset(offset)?;
        // SAFETY: the caller passes buffers as the header says, and lends them for the call.
        let buf = unsafe {
            RecvBuf::from_raw_vectored(entry::iovecs(iov, iovcnt, entry::check_writable)?)?
        };
        read(handle, buf, offset, Form::Blocking)
    })
}

/// Writes from `iovcnt` buffers one after the other; otherwise as sd_vdi_write().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_writev(
    sd: sd_t,
    vdi: sd_vdi_t,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
    flag: c_int,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        let offset = entry::offset(offset)?;
        // SAFETY: the caller passes buffers as the header says, and lends them for the call.
        let buf = unsafe {
            let buffers = entry::iovecs(iov, iovcnt, entry::check_readable)?;
            SendBuf::from_raw_vectored(buffers.map(|(base, len)| (base.cast_const(), len)))?
        };
        write(handle, buf, offset, flag, Form::Blocking)
    })
}

/// Makes `len` bytes at `offset` read as zeros, and frees the objects that lie wholly inside; the
/// last object of the VDI counts as inside where the range reaches the VDI's end. Snapshots and
/// clones that share the objects keep them.
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_discard(sd: sd_t, vdi: sd_vdi_t, offset: off_t, len: usize) -> c_int {
    sd_vdi_discard_ex(sd, vdi, offset, len, 0)
}

/// Discards as sd_vdi_discard(). `flag` is 0 or SD_WRITE_FUA.
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_discard_ex(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    flag: c_int,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        check_flag(flag, SD_WRITE_FUA)?;
        zero(handle, entry::offset(offset)?, len, flag, Form::Blocking)
    })
}

/// Writes zeros, without sending them: objects wholly inside the range are freed. `flag` is 0, or
/// has SD_WRITE_FUA or SD_WRITE_KEEP or both. With SD_WRITE_KEEP the zeros are sent, for the
/// objects that are there; where there are none nothing is allocated.
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_write_zeroes(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    flag: c_int,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        check_flag(flag, SD_WRITE_FUA | SD_WRITE_KEEP)?;
        zero(handle, entry::offset(offset)?, len, flag, Form::Blocking)
    })
}

pub fn zero(handle: VdiHandle, offset: u64, len: usize, flag: c_int, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    let space = if flag & SD_WRITE_KEEP != 0 { Space::Kept } else { Space::Freed };
    form.begin(&client, 0)?.run(
        move |op| async move {
            let _patient = client.cluster.be_patient(&op);
            vdi.zero(&client.cluster, &op, offset, len as u64, space).await?;
            flush_if(flag & SD_WRITE_FUA != 0, &client, &vdi, &op).await
        },
        nothing,
    )
}

/// Makes a VDI larger or smaller. What is cut off is freed, and reads as zeros if the VDI grows
/// again. Waits for writes under way in other threads; later ones beyond the new end are refused.
///
/// Errors: SD_RES_INVALID_PARMS (size 0 or too large, see sd_vdi_create()).
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_resize(sd: sd_t, vdi: sd_vdi_t, size: usize) -> c_int {
    enter(|| resize(entry::vdi(sd, vdi)?, size, Form::Blocking))
}

/// Resizes as sd_vdi_resize(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aresize(
    sd: sd_t,
    vdi: sd_vdi_t,
    size: usize,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| resize(entry::vdi(sd, vdi)?, size, Form::asynchronous(sd, r#fn, opaque)?))
}

fn resize(handle: VdiHandle, size: usize, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    form.begin(&client, 0)?
        .run(move |op| async move { vdi.resize(&client.cluster, &op, size as u64).await }, nothing)
}

/// Kinds of extents.
pub const SD_EXTENT_HOLE: c_int = 0;
pub const SD_EXTENT_ALLOCATED: c_int = 1;
/// The data is a parent's: a write makes a copy of the object.
pub const SD_EXTENT_SHARED: c_int = 2;

/// Tells what `len` bytes at `offset` consist of: calls `fn`, in this thread, for each extent in
/// turn, neighbours of one kind as one. Where `fn` returns anything but 0 the walk ends, with
/// success. `fn` may call the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_block_status(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    r#fn: sd_extent_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let (handle, extents) = (entry::readable(sd, vdi)?, Extents::new(r#fn, opaque)?);
        block_status(handle, entry::offset(offset)?, len, extents, Form::Blocking)
    })
}

/// Tells as sd_vdi_block_status(), without waiting: `extent_fn` is called in the thread that
/// dispatches, for all extents, then `fn` as for sd_vdi_aopen(), both with `opaque`. Where
/// `extent_fn` closes `sd`, it is not called again, and `fn` is told SD_RES_CANCELED after it has
/// returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_ablock_status(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    extent_fn: sd_extent_fn,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let (handle, extents) = (entry::readable(sd, vdi)?, Extents::new(extent_fn, opaque)?);
        let form = Form::asynchronous(sd, r#fn, opaque)?;
        block_status(handle, entry::offset(offset)?, len, extents, form)
    })
}

fn block_status(
    handle: VdiHandle,
    offset: u64,
    len: usize,
    extents: Extents,
    form: Form,
) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    let (begun, told) = (form.begin(&client, 0)?, client.clone());
    begun.run(
        move |op| async move { vdi.block_status(&client.cluster, &op, offset, len as u64).await },
        move |found| extents.tell(&told, &found),
    )
}

/// cbindgen:ignore
pub type sd_extent_fn = Option<
    unsafe extern "C-unwind" fn(
        offset: off_t,
        len: usize,
        status: c_int,
        opaque: *mut c_void,
    ) -> c_int,
>;

/// Who is told of extents.
struct Extents {
    callback: sd_extent_fn,
    opaque: *mut c_void,
}

// SAFETY: the program's function and pointer, to be used in the thread of its call, or in the one
// that dispatches.
unsafe impl Send for Extents {}

impl Extents {
    fn new(callback: sd_extent_fn, opaque: *mut c_void) -> Result<Extents> {
        match callback {
            Some(_) => Ok(Extents { callback, opaque }),
            None => Err(Error::Invalid("a pointer is NULL")),
        }
    }

    fn tell(self, client: &Client, extents: &[Extent]) -> Result<()> {
        let Some(callback) = self.callback else { return Ok(()) };
        for extent in extents {
            let status = match extent.kind {
                ExtentKind::Hole => SD_EXTENT_HOLE,
                ExtentKind::Allocated => SD_EXTENT_ALLOCATED,
                ExtentKind::Shared => SD_EXTENT_SHARED,
            };
            let _calling = client.cluster.calling()?;
            // SAFETY: the program's function, called as the header says.
            let stop = program::call(|| unsafe {
                callback(extent.offset as off_t, extent.len as usize, status, self.opaque)
            });
            if stop != 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Forgets what is known of a VDI's contents, so that a reader sees the objects that another `sd`
/// has allocated since it opened.
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_refresh(sd: sd_t, vdi: sd_vdi_t) -> c_int {
    enter(|| {
        let handle = entry::readable(sd, vdi)?;
        let cluster = &handle.client.cluster;
        cluster.run(async |op| handle.vdi.reload(cluster, op).await)
    })
}

/// Makes every write that returned before this call stable: it outlasts a power failure. And final:
/// waits until nothing can happen to the VDI any more that was given up, or sent a second time
/// because a gateway said nothing. Before another client may write, it takes this, or the lock.
#[unsafe(no_mangle)]
pub extern "C" fn sd_vdi_flush(sd: sd_t, vdi: sd_vdi_t) -> c_int {
    enter(|| flush(entry::vdi(sd, vdi)?, Form::Blocking))
}

pub fn flush(handle: VdiHandle, form: Form) -> Result<()> {
    let VdiHandle { client, vdi } = handle;
    form.begin(&client, 0)?
        .run(move |op| async move { vdi.flush(&client.cluster, &op).await }, nothing)
}

/// Deletes the working VDI `name` and all its data; its snapshots stay. Takes as long as the VDI
/// has objects: see sd_set_timeout(). Broken off, it can be repeated.
///
/// A lock that another client holds does not keep it from that: that client's reads give zeros or
/// errors from then on, and what it writes is gone.
///
/// Errors: SD_RES_NO_VDI, SD_RES_VDI_LOCKED (a handle of this `sd` is open on it).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_delete(sd: sd_t, name: *const c_char) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, Form::Blocking) })
}

/// Deletes as sd_vdi_delete(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_adelete(
    sd: sd_t,
    name: *const c_char,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// # Safety
/// As the header says of the pointer.
unsafe fn delete(sd: sd_t, name: *const c_char, form: Form) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let name = unsafe { entry::name(name)? };
    form.begin(&client, 0)?.run(move |op| async move { client.delete(&op, name).await }, nothing)
}

/// Tells what a VDI is, as the servers know it now. `sizeof_info` is `sizeof(struct sd_vdi_info)`
/// as the program was compiled: that much of `*info` is written, with zeros for what this version
/// of the library does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_get_info(
    vdi: sd_vdi_t,
    info: *mut sd_vdi_info,
    sizeof_info: usize,
) -> c_int {
    enter(|| {
        let (handle, _) = entry::any_vdi(vdi)?;
        // SAFETY: the caller passes a pointer as the header says.
        unsafe { get_info(handle, info, sizeof_info, Form::Blocking) }
    })
}

/// Tells what a VDI is as sd_vdi_get_info(), without waiting, and that it has as sd_vdi_aopen(),
/// with the `sd` that the VDI was opened through.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aget_info(
    vdi: sd_vdi_t,
    info: *mut sd_vdi_info,
    sizeof_info: usize,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let (handle, sd) = entry::any_vdi(vdi)?;
        // SAFETY: the caller passes a pointer as the header says.
        unsafe { get_info(handle, info, sizeof_info, Form::asynchronous(sd, r#fn, opaque)?) }
    })
}

/// # Safety
/// As the header says of the pointer.
unsafe fn get_info(
    handle: VdiHandle,
    info: *mut sd_vdi_info,
    sizeof_info: usize,
    form: Form,
) -> Result<()> {
    entry::check_buffer(info.cast(), sizeof_info)?;
    if sizeof_info == 0 {
        return Err(Error::Invalid("sizeof_info is 0"));
    }
    // SAFETY: the caller lends so many bytes until the end of the operation.
    let mut to = unsafe { RecvBuf::from_raw(info.cast(), sizeof_info) };
    let VdiHandle { client, vdi } = handle.for_reading();
    form.begin(&client, 0)?.run(
        move |op| async move { describe(&vdi.info(&client.cluster, &op).await?) },
        move |known| {
            let len = sizeof_info.min(size_of::<sd_vdi_info>());
            // SAFETY: the structure has no padding.
            let bytes = unsafe { std::slice::from_raw_parts((&raw const known).cast(), len) };
            to.write_at(0, bytes);
            to.zero_from(len);
            Ok(())
        },
    )
}

/// Tells how many bytes a VDI has, as far as `vdi` knows: no server is asked. What another client
/// has made of it is known after sd_vdi_refresh(), or once anything has met it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_size(vdi: sd_vdi_t, size: *mut u64) -> c_int {
    enter(|| {
        let handle = entry::any_vdi(vdi)?.0.for_reading();
        // SAFETY: the caller passes a pointer as the header says.
        let out = unsafe { Out::new(size)? };
        out.set(handle.vdi.size());
        Ok(())
    })
}

fn describe(info: &crate::vdi::Info) -> Result<sd_vdi_info> {
    let header = &info.header;
    let is_snapshot = header.is_snapshot();
    // A tag on a working VDI is what an interrupted snapshot left (5.8): not its name.
    let tag = if is_snapshot { header.tag() } else { &[] };
    Ok(sd_vdi_info {
        name: c_field(header.name()),
        tag: c_field(tag),
        size: header.vdi_size.get(),
        object_size: 1 << header.block_size_shift,
        allocated: info.allocated,
        create_time_ns: time_to_ns(header.create_time.get()),
        snap_time_ns: time_to_ns(header.snap_ctime.get()),
        vdi_id: info.vid.get(),
        parent_vdi_id: header.parent_vdi_id.get(),
        snap_id: header.snap_id.get(),
        copies: header.nr_copies,
        copy_policy: header.copy_policy,
        store_policy: header.store_policy,
        is_snapshot,
        io_min: IO_MIN,
        io_opt: 1 << header.block_size_shift,
        max_io: isize::MAX as u64 / u64::from(IO_MIN) * u64::from(IO_MIN),
    })
}

/// A string in its field, NUL-terminated: cut to 255 bytes.
fn c_field(text: &[u8]) -> [c_char; NAME_LEN] {
    let mut field = [0; NAME_LEN];
    for (to, from) in field[..NAME_LEN - 1].iter_mut().zip(text) {
        *to = *from as c_char;
    }
    field
}
