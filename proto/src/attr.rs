//! The attribute object: a key and a value attached to a VDI's name (3.8).

use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{VdiArm, wire};
use crate::{NAME_LEN, Oid, Request, field_text, hash, op};

/// Bytes of the key field.
pub const KEY_LEN: usize = 256;
/// Bytes of the value field (2.5).
pub const VALUE_LEN: usize = 65536;
/// Bytes of an attribute object: header and value.
pub const ATTR_LEN: usize = size_of::<AttrHeader>() + VALUE_LEN;

wire! {
    /// An attribute without its value, which follows (3.8).
    AttrHeader = 784; {
        /// Of the VDI; first byte 0 once the attribute is deleted (4.14).
        name: [u8; NAME_LEN],
        tag: [u8; NAME_LEN],
        /// Filled in by the server: the VDI's creation time.
        ctime: U64,
        snap_id: U32,
        value_len: U32,
        key: [u8; KEY_LEN],
    }
}

const _: () = {
    assert!(ATTR_LEN == 66_320);
    assert!(offset_of!(AttrHeader, ctime) == 512 && offset_of!(AttrHeader, snap_id) == 520);
    assert!(offset_of!(AttrHeader, value_len) == 524 && offset_of!(AttrHeader, key) == 528);
};

impl AttrHeader {
    /// Whether both are the same attribute of the same VDI (4.14).
    ///
    /// Tag and snapshot id count on their own: one snapshot has different attributes by either.
    pub fn same_key(&self, other: &AttrHeader) -> bool {
        self.name == other.name
            && self.tag == other.tag
            && self.snap_id == other.snap_id
            && self.key == other.key
    }

    /// Deletion empties the name and leaves the object (4.14).
    pub fn is_deleted(&self) -> bool {
        self.name[0] == 0
    }

    /// Where the search for the attribute's object starts; collisions go on at the next id (3.8).
    pub fn first_id(&self) -> u32 {
        hash::attr_id(&self.name, &self.tag, self.snap_id.get(), &self.key)
    }

    /// The attribute's object under `attr_id`. Its VDI id is the hash of the name, not the VDI's.
    pub fn oid(&self, attr_id: u32) -> Oid {
        hash::vid_of_name(field_text(&self.name)).attr(attr_id)
    }
}

/// Splits an attribute object into its header and as much of its value as is valid.
///
/// None where there is no whole header. A value_len beyond what was sent is cut.
pub fn parse(object: &[u8]) -> Option<(&AttrHeader, &[u8])> {
    let (header, value) = AttrHeader::ref_from_prefix(object).ok()?;
    let len = (header.value_len.get() as usize).min(value.len()).min(VALUE_LEN);
    Some((header, &value[..len]))
}

/// An attribute object; `header.value_len` is set from `value`. None where the value is too long.
pub fn encode(mut header: AttrHeader, value: &[u8]) -> Option<Vec<u8>> {
    if value.len() > VALUE_LEN {
        return None;
    }
    header.value_len = (value.len() as u32).into();
    let mut object = Vec::with_capacity(ATTR_LEN);
    object.extend_from_slice(header.as_bytes());
    object.extend_from_slice(value);
    object.resize(ATTR_LEN, 0);
    Some(object)
}

/// GET_VDI_ATTR for a whole attribute object as its payload (4.14).
///
/// `flags` are those of [`op`] that start with `FLAG_ATTR`; `snapid` addresses the VDI.
pub fn get_vdi_attr(flags: u16, snapid: u32) -> Request {
    let arm = VdiArm { snapid: snapid.into(), ..Default::default() };
    Request::new(op::GET_VDI_ATTR, op::FLAG_WRITE | flags, arm).with_length(ATTR_LEN as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name_field;

    fn header(name: &str, key: &str) -> AttrHeader {
        let field = |text: &str| name_field(text.as_bytes()).unwrap();
        AttrHeader { name: field(name), key: field(key), ..Default::default() }
    }

    #[test]
    fn an_attribute_comes_back() {
        let object = encode(header("alpha", "k1"), b"value").unwrap();
        assert_eq!(object.len(), ATTR_LEN);
        let (header, value) = parse(&object).unwrap();
        assert_eq!((field_text(&header.key), value), (&b"k1"[..], &b"value"[..]));
        assert_eq!(header.oid(header.first_id()).0, 0x20ed_202b_4e21_358d);
    }

    #[test]
    fn a_length_that_lies_is_cut() {
        let mut lie = header("alpha", "k1");
        lie.value_len = u32::MAX.into();
        assert_eq!(parse(lie.as_bytes()).unwrap().1.len(), 0);
        let mut object = encode(lie, b"v").unwrap();
        object[524..528].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&object).unwrap().1.len(), VALUE_LEN);
        assert!(parse(&object[..783]).is_none());
        assert!(encode(lie, &vec![0; VALUE_LEN + 1]).is_none());
    }
}
