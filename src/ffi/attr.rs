//! Attributes.

use std::ffi::{c_char, c_int, c_void};

use super::cluster::sd_t;
use super::entry::{self, Out, enter};
use crate::error::{Error, Result};
use crate::vdi::Key;

use sheepdog_proto::SdResult;

/// # Safety
/// As [`entry::text`].
unsafe fn key(name: *const c_char, key: *const c_char) -> Result<Key> {
    // SAFETY: as the caller promises.
    unsafe { Key::new(&entry::name(name)?, entry::text(key)?) }
}

/// Gives the VDI `name` an attribute: `value_len` bytes (0 to 65536) under `key` (1 to 255 bytes).
/// Replaces the value where the key exists. Attributes belong to the name: snapshots do not change
/// them.
///
/// Errors: SD_RES_NO_VDI, SD_RES_INVALID_PARMS (key or value too long, key empty).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_setattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *const c_void,
    value_len: usize,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        entry::check_buffer(value, value_len)?;
        // SAFETY: the caller passes pointers as the header says, and `value_len` bytes.
        let (key, value) = unsafe {
            let value = match value_len {
                0 => &[],
                len => std::slice::from_raw_parts(value.cast::<u8>(), len),
            };
            (self::key(name, key)?, value)
        };
        client.cluster.run(async |op| client.set_attr(op, &key, value).await)
    })
}

/// Copies the value of an attribute to `value`, which has room for `value_len` bytes.
/// sd_vdi_attr_size() tells how long it is.
///
/// Errors: SD_RES_NO_VDI, SD_RES_NO_OBJ (no such key), SD_RES_BUFFER_SMALL (nothing is copied).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_getattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *mut c_void,
    value_len: usize,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        entry::check_buffer(value, value_len)?;
        // SAFETY: the caller passes pointers as the header says.
        let key = unsafe { self::key(name, key)? };
        let found = client.cluster.run(async |op| client.get_attr(op, &key, value_len).await);
        let (bytes, len) = found?;
        if len > value_len {
            return Err(Error::Server {
                opcode: sheepdog_proto::op::GET_VDI_ATTR,
                result: SdResult::BUFFER_SMALL,
            });
        }
        if len > 0 {
            // SAFETY: `value` is not NULL and has room for `value_len` bytes, no fewer than these.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast(), len) };
        }
        Ok(())
    })
}

/// Tells how many bytes the value of an attribute has.
///
/// Errors: as sd_vdi_getattr().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_attr_size(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    size: *mut usize,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let (key, out) = unsafe { (self::key(name, key)?, Out::new(size)?) };
        let (_, len) = client.cluster.run(async |op| client.get_attr(op, &key, 0).await)?;
        out.set(len);
        Ok(())
    })
}

/// Deletes an attribute.
///
/// Errors: SD_RES_NO_VDI, SD_RES_NO_OBJ (no such key).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_delattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let key = unsafe { self::key(name, key)? };
        client.cluster.run(async |op| client.delete_attr(op, &key).await)
    })
}
