//! The Sheepdog wire protocol as types: headers, opcodes, results, object ids, inodes.
//!
//! No I/O, no allocation policy, no behaviour of a client or a server: only what the bytes mean.
//! It is shared by the library, by the server `lamb` and by the test tools, and it is the only
//! place that knows an offset. Sections cited here are those of `docs/protocol.md`.
//!
//! All integers on the wire are little-endian (0.2); every struct here is byte-for-byte what
//! travels, checked by the assertions beside it.

pub mod admin;
pub mod attr;
pub mod btree;
pub mod hash;
pub mod header;
pub mod inode;
pub mod oid;
pub mod op;
pub mod result;

#[cfg(test)]
mod golden;

pub use header::{Request, Response};
pub use inode::InodeHeader;
pub use oid::{Oid, Vid};
pub use result::SdResult;

/// Re-exported so that users of these structs need no dependency of their own.
pub use zerocopy;

/// Default TCP port of a gateway (0.2).
pub const DEFAULT_PORT: u16 = 7000;
/// Protocol version that clients state for client operations (0.4).
///
/// Version 1 keeps 0.6 and 0.7 servers from trimming zero blocks off read replies (4.3).
pub const CLIENT_VERSION: u8 = 1;
/// Highest client protocol version a server accepts (0.4).
pub const CLIENT_VERSION_MAX: u8 = 2;
/// Version of the internal and admin operations on 1.0 servers (0.4).
pub const INTERNAL_VERSION: u8 = 0x0a;
/// That of 0.8 and 0.9 servers (0.4).
pub const OLDER_INTERNAL_VERSION: u8 = 0x09;
/// Bytes of the name and tag fields, of which the last must be NUL (0.7).
pub const NAME_LEN: usize = 256;
/// Number of VDI ids; 0 means "none" (2.5).
pub const VID_SPACE: u32 = 1 << 24;
/// Bytes of the bitmap that READ_VDIS and READ_DEL_VDIS return (2.5, 4.12).
pub const VDI_BITMAP_LEN: usize = VID_SPACE as usize / 8;
/// Data objects of a VDI whose index is an array (2.5).
pub const MAX_DATA_OBJECTS: u32 = 1 << 20;
/// Largest size of a hypervolume in bytes (2.5).
pub const MAX_HYPERVOLUME_SIZE: u64 = 1 << 54;
/// Largest number of copies that clients ask for (2.5).
pub const MAX_COPIES: u8 = 31;
/// Block size shift of a cluster that does not say (2.5): 4 MiB objects.
pub const DEFAULT_BLOCK_SIZE_SHIFT: u8 = 22;

/// A name or tag as its fixed, NUL-padded field, or None if it does not fit (0.7).
pub fn name_field(text: &[u8]) -> Option<[u8; NAME_LEN]> {
    if text.len() >= NAME_LEN || text.contains(&0) {
        return None;
    }
    let mut field = [0; NAME_LEN];
    field[..text.len()].copy_from_slice(text);
    Some(field)
}

/// The text of a NUL-padded field: bytes after the first NUL are ignored (0.7).
pub fn field_text(field: &[u8]) -> &[u8] {
    match field.iter().position(|&b| b == 0) {
        Some(end) => &field[..end],
        None => field,
    }
}

/// The erasure policy byte of `data`:`parity` strips, or None for a pair no server knows (2.5).
///
/// Zero parity would abort a 1.0 server (4.2), so it cannot be expressed.
pub fn erasure_policy(data: u8, parity: u8) -> Option<u8> {
    let known = matches!(data, 2 | 4 | 8 | 16) && (1..=15).contains(&parity);
    known.then(|| ((data / 2) << 4) + parity)
}

/// The (data, parity) strips of an erasure policy byte; None where it is 0 or malformed (2.5).
pub fn erasure_strips(policy: u8) -> Option<(u8, u8)> {
    let (data, parity) = ((policy >> 4) * 2, policy & 15);
    erasure_policy(data, parity).map(|_| (data, parity))
}

/// A protocol timestamp (seconds in the high half, nanoseconds in the low) in Unix nanoseconds (0.7).
pub fn time_to_ns(time: u64) -> u64 {
    (time >> 32).saturating_mul(1_000_000_000).saturating_add(time & 0xffff_ffff)
}

/// The protocol timestamp of a time since the Unix epoch (0.7).
pub fn time_from_unix(since_epoch: std::time::Duration) -> u64 {
    (since_epoch.as_secs() << 32) | (u64::from(since_epoch.subsec_micros()) * 1000)
}
