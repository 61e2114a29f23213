//! Attributes.

use std::ffi::{c_char, c_int, c_void};

use super::cluster::sd_t;
use super::entry::{self, Out, enter};
use super::form::{Form, nothing, sd_callback_fn};
use crate::error::{Error, Result};
use crate::net::RecvBuf;
use crate::vdi::Key;

use sheepdog_proto::attr::VALUE_LEN;
use sheepdog_proto::{SdResult, op};

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
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { set(sd, name, key, value, value_len, Form::Blocking) })
}

/// Sets an attribute as sd_vdi_setattr(), without waiting, and tells as sd_vdi_aopen(). The value
/// is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_asetattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *const c_void,
    value_len: usize,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let form = Form::asynchronous(sd, r#fn, opaque)?;
        // SAFETY: the caller passes pointers as the header says.
        unsafe { set(sd, name, key, value, value_len, form) }
    })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn set(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *const c_void,
    value_len: usize,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    entry::check_buffer(value, value_len)?;
    if value_len > VALUE_LEN {
        return Err(Error::Invalid("the value is longer than 64 KiB"));
    }
    // SAFETY: as the caller promises.
    let (key, value) = unsafe {
        let value = match value_len {
            0 => &[],
            len => std::slice::from_raw_parts(value.cast::<u8>(), len),
        };
        (self::key(name, key)?, value)
    };
    let begun = form.begin(&client, value_len)?;
    let value = value.to_vec();
    begun.run(move |op| async move { client.set_attr(&op, &key, &value).await }, nothing)
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
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { get(sd, name, key, value, value_len, Form::Blocking) })
}

/// Gets an attribute as sd_vdi_getattr(), without waiting, and tells as sd_vdi_aopen(). `value` is
/// the library's until then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_agetattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *mut c_void,
    value_len: usize,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        let form = Form::asynchronous(sd, r#fn, opaque)?;
        // SAFETY: the caller passes pointers as the header says.
        unsafe { get(sd, name, key, value, value_len, form) }
    })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn get(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    value: *mut c_void,
    value_len: usize,
    form: Form,
) -> Result<()> {
    let client = entry::client(sd)?;
    entry::check_buffer(value, value_len)?;
    // SAFETY: as the caller promises; the buffer is lent until the end of the operation.
    let (key, mut to) =
        unsafe { (self::key(name, key)?, RecvBuf::from_raw(value.cast(), value_len)) };
    form.begin(&client, value_len.min(VALUE_LEN))?.run(
        move |op| async move {
            let (bytes, len) = client.get_attr(&op, &key, value_len).await?;
            if len > value_len {
                let (opcode, result) = (op::GET_VDI_ATTR, SdResult::BUFFER_SMALL);
                return Err(Error::Server { opcode, result });
            }
            Ok(bytes)
        },
        move |bytes| {
            to.write_at(0, &bytes);
            Ok(())
        },
    )
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
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, key, Form::Blocking) })
}

/// Deletes an attribute as sd_vdi_delattr(), without waiting, and tells as sd_vdi_aopen().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_adelattr(
    sd: sd_t,
    name: *const c_char,
    key: *const c_char,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes pointers as the header says.
    enter(|| unsafe { delete(sd, name, key, Form::asynchronous(sd, r#fn, opaque)?) })
}

/// # Safety
/// As the header says of the pointers.
unsafe fn delete(sd: sd_t, name: *const c_char, key: *const c_char, form: Form) -> Result<()> {
    let client = entry::client(sd)?;
    // SAFETY: as the caller promises.
    let key = unsafe { self::key(name, key)? };
    form.begin(&client, 0)?
        .run(move |op| async move { client.delete_attr(&op, &key).await }, nothing)
}
