//! Object ids (3.1).

use std::fmt;

/// A VDI id: 24 bits, 0 meaning "none" or "unallocated".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vid(u32);

impl Vid {
    pub const NONE: Vid = Vid(0);

    /// None where the number does not fit the 24 bits of a VDI id.
    pub const fn new(vid: u32) -> Option<Vid> {
        if vid < crate::VID_SPACE { Some(Vid(vid)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The VDI (inode) object.
    pub const fn inode(self) -> Oid {
        Oid(Oid::INODE | self.base())
    }

    /// Data object number `index`.
    pub const fn data(self, index: u32) -> Oid {
        Oid(self.base() | index as u64)
    }

    /// Object number `index` of the saved VM state.
    pub const fn vmstate(self, index: u32) -> Oid {
        Oid(Oid::VMSTATE | self.base() | index as u64)
    }

    /// Btree node number `n` of a hypervolume's index (3.9).
    pub const fn btree(self, n: u32) -> Oid {
        Oid(Oid::BTREE | self.base() | n as u64)
    }

    /// The attribute object; `self` is here hash24(name), not the VDI's own id (3.8).
    pub const fn attr(self, attr_id: u32) -> Oid {
        Oid(Oid::ATTR | self.base() | attr_id as u64)
    }

    const fn base(self) -> u64 {
        (self.0 as u64) << 32
    }
}

/// The VDI ids whose bit is set in one bitmap of VDI ids and not in the other (4.12).
pub fn vids_in<'a>(used: &'a [u8], deleted: &'a [u8]) -> impl Iterator<Item = Vid> + 'a {
    let words = used.as_chunks().0.iter().zip(deleted.as_chunks().0);
    let words =
        words.map(|(used, deleted)| u64::from_le_bytes(*used) & !u64::from_le_bytes(*deleted));
    words.enumerate().filter(|(_, bits)| *bits != 0).flat_map(|(at, bits)| {
        (0..u64::BITS)
            .filter(move |bit| bits & 1 << bit != 0)
            .filter_map(move |bit| Vid::new(at as u32 * u64::BITS + bit))
            .filter(|vid| !vid.is_none())
    })
}

impl fmt::Debug for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// An object id: kind, VDI id, index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub u64);

/// What an object id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OidKind {
    Data,
    Inode,
    Vmstate,
    Attr,
    Btree,
    Ledger,
}

impl Oid {
    const LEDGER: u64 = 1 << 59;
    const BTREE: u64 = 1 << 60;
    const ATTR: u64 = 1 << 61;
    const VMSTATE: u64 = 1 << 62;
    const INODE: u64 = 1 << 63;

    /// The kind by its flag bits; None for combinations that name nothing.
    pub const fn kind(self) -> Option<OidKind> {
        match self.0 & 0xff << 56 {
            0 => Some(OidKind::Data),
            Oid::INODE => Some(OidKind::Inode),
            Oid::VMSTATE => Some(OidKind::Vmstate),
            Oid::ATTR => Some(OidKind::Attr),
            Oid::BTREE => Some(OidKind::Btree),
            Oid::LEDGER => Some(OidKind::Ledger),
            _ => None,
        }
    }

    pub const fn vid(self) -> Vid {
        Vid((self.0 >> 32) as u32 & 0xff_ffff)
    }

    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The object of reference counts that belongs to a data object (3.7).
    pub const fn ledger(self) -> Oid {
        Oid(Oid::LEDGER | self.0)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_are_built_as_the_protocol_says() {
        let vid = Vid::new(0xed202b).unwrap();
        assert_eq!(vid.inode().0, 0x80ed_202b_0000_0000);
        assert_eq!(vid.data(7).0, 0x00ed_202b_0000_0007);
        assert_eq!(vid.vmstate(7).0, 0x40ed_202b_0000_0007);
        assert_eq!(vid.attr(0xdd225355).0, 0x20ed_202b_dd22_5355);
        assert_eq!(vid.btree(u32::MAX).0, 0x10ed_202b_ffff_ffff);
        assert_eq!(vid.data(7).ledger().0, 0x08ed_202b_0000_0007);
    }

    #[test]
    fn kind_vid_and_index_come_back() {
        let vid = Vid::new(0xffffff).unwrap();
        for (oid, kind) in [
            (vid.inode(), OidKind::Inode),
            (vid.data(0), OidKind::Data),
            (vid.vmstate(0), OidKind::Vmstate),
            (vid.attr(0), OidKind::Attr),
            (vid.btree(0), OidKind::Btree),
            (vid.data(0).ledger(), OidKind::Ledger),
        ] {
            assert_eq!(oid.kind(), Some(kind));
            assert_eq!((oid.vid(), oid.index()), (vid, 0));
        }
        assert_eq!(Oid(vid.inode().0 | 1 << 62).kind(), None);
        assert_eq!(Oid(1 << 56).kind(), None);
        assert_eq!(Vid::new(1 << 24), None);
    }

    #[test]
    fn bits_become_vdi_ids_unless_deleted() {
        let ids = |used: u128, deleted: u128| {
            let (used, deleted) = (used.to_le_bytes(), deleted.to_le_bytes());
            vids_in(&used, &deleted).map(Vid::get).collect::<Vec<_>>()
        };
        assert_eq!(ids(1 << 127 | 1 << 64 | 0b11, 0), [1, 64, 127]);
        assert_eq!(ids(0xff0e, 0xff04), [1, 3]);
    }
}
