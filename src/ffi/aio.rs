//! Asynchronous requests.

use std::ffi::{c_int, c_void};

use libc::iovec;

use super::cluster::sd_t;
use super::entry::{self, enter};
use super::form::{Form, sd_callback_fn};
use super::vdi::{self, SD_WRITE_FUA, SD_WRITE_KEEP, flush, off_t, read, sd_vdi_t, write, zero};
use crate::net::{RecvBuf, SendBuf};

/// For asynchronous writes: the library borrows the data until the callback instead of copying it.
pub const SD_WRITE_NOCOPY: c_int = 2;

/// Reads as sd_vdi_read(), without waiting: `fn` is called with `sd`, the result and `opaque` once
/// the read has ended, from sd_dispatch() or the attached event loop, never from inside this call.
/// `data` is the library's until then.
///
/// Where this returns anything but 0 nothing was started, and `fn` will not be called:
/// SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()), SD_RES_INVALID_PARMS. Requests in
/// flight at the same time have no order between them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aread(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *mut c_void,
    size: usize,
    offset: off_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::readable(sd, vdi)?;
        entry::check_writable(data, size)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        // SAFETY: the caller lends the buffer until the callback, and the future that holds the
        // loan has ended before that.
        let buf = unsafe { RecvBuf::from_raw(data.cast(), size) };
        read(handle, buf, offset, form)
    })
}

/// Writes as sd_vdi_write(), without waiting, and tells as sd_vdi_aread(). `data` is copied, unless
/// `flag` has SD_WRITE_NOCOPY: then it is the library's until the callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_awrite(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *const c_void,
    size: usize,
    offset: off_t,
    flag: c_int,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        entry::check_readable(data, size)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        // SAFETY: the caller lends the buffer until the callback, or until it is copied below.
        let buf = unsafe { SendBuf::from_raw(data.cast(), size) };
        write(handle, buf, offset, flag, form)
    })
}

/// Reads as sd_vdi_readv(), and tells as sd_vdi_aread(). `iov` itself may go when this returns, the
/// buffers that it names not before the callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_areadv(
    sd: sd_t,
    vdi: sd_vdi_t,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::readable(sd, vdi)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        // SAFETY: the caller passes buffers as the header says, and lends them until the callback.
        let buf = unsafe {
            RecvBuf::from_raw_vectored(entry::iovecs(iov, iovcnt, entry::check_writable)?)?
        };
        read(handle, buf, offset, form)
    })
}

/// Writes as sd_vdi_writev(), and tells as sd_vdi_awrite().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_awritev(
    sd: sd_t,
    vdi: sd_vdi_t,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
    flag: c_int,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        // SAFETY: the caller lends the buffers until the callback, or until they are copied below.
        let buf = unsafe {
            let buffers = entry::iovecs(iov, iovcnt, entry::check_readable)?;
            SendBuf::from_raw_vectored(buffers.map(|(base, len)| (base.cast_const(), len)))?
        };
        write(handle, buf, offset, flag, form)
    })
}

/// Flushes as sd_vdi_flush(), and tells as sd_vdi_aread(): covers the writes whose callbacks have
/// been called, or whose calls have returned, before this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_aflush(
    sd: sd_t,
    vdi: sd_vdi_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        flush(handle, Form::asynchronous(sd, r#fn, opaque)?)
    })
}

/// Discards as sd_vdi_discard(), and tells as sd_vdi_aread().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_adiscard(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        zero(handle, offset, len, 0, form)
    })
}

/// Writes zeros as sd_vdi_write_zeroes(), and tells as sd_vdi_aread().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_awrite_zeroes(
    sd: sd_t,
    vdi: sd_vdi_t,
    offset: off_t,
    len: usize,
    flag: c_int,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let handle = entry::vdi(sd, vdi)?;
        let (offset, form) = (entry::offset(offset)?, Form::asynchronous(sd, r#fn, opaque)?);
        vdi::check_flag(flag, SD_WRITE_FUA | SD_WRITE_NOCOPY | SD_WRITE_KEEP)?;
        zero(handle, offset, len, flag, form)
    })
}

/// Reads from a snapshot: as sd_vdi_aread().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_aread(
    sd: sd_t,
    vdi: sd_vdi_t,
    data: *mut c_void,
    size: usize,
    offset: off_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    unsafe { sd_vdi_aread(sd, vdi, data, size, offset, r#fn, opaque) }
}

/// Bounds the memory of asynchronous requests in flight: the sizes of their buffers, and 4 KiB for
/// each. A submission that would pass it returns SD_RES_NO_MEM and does nothing. The default is 256
/// MiB. Shrinking it below what is used refuses new requests until enough of the old have ended.
#[unsafe(no_mangle)]
pub extern "C" fn sd_set_buffer_limit(sd: sd_t, limit: usize) -> c_int {
    enter(|| {
        entry::client(sd)?.cluster.budget.set_limit(limit);
        Ok(())
    })
}

/// Tells the limit of sd_set_buffer_limit().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_get_buffer_limit(sd: sd_t, limit: *mut usize) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes a pointer as the header says.
        let out = unsafe { entry::Out::new(limit)? };
        out.set(client.cluster.budget.limit());
        Ok(())
    })
}

/// Tells how much of the limit is used now: 0 where no request is in flight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_get_buffer_usage(sd: sd_t, used: *mut usize) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes a pointer as the header says.
        let out = unsafe { entry::Out::new(used)? };
        out.set(client.cluster.budget.used());
        Ok(())
    })
}
