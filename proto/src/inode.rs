//! The inode: what a VDI is, and which VDI holds each of its objects (3.5, 3.6).

use std::mem::offset_of;
use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::wire;
use crate::{MAX_DATA_OBJECTS, MAX_HYPERVOLUME_SIZE, NAME_LEN, Vid, field_text};

/// Bytes from the inode's start to its map, and so the length of [`InodeHeader`] plus what 0.8
/// and older kept behind it.
pub const MAP_OFFSET: u32 = 4664;
/// Where the map ends and the reference counts begin: the inode without them.
pub const MAP_END: u32 = MAP_OFFSET + 4 * MAX_DATA_OBJECTS;
/// Bytes of a whole inode, 0.9 and later.
pub const INODE_LEN: u32 = MAP_END + 8 * MAX_DATA_OBJECTS;

const _: () = assert!(MAP_END == 4_198_968 && INODE_LEN == 12_587_576);

/// `store_policy` of a VDI whose map is an array.
pub const STORE_ARRAY: u8 = 0;
/// `store_policy` of a hypervolume, whose map is a btree (3.9).
pub const STORE_BTREE: u8 = 1;

wire! {
    /// The part of an inode that is not its map (3.5).
    InodeHeader = 572; {
        /// NUL padded; empty once the VDI is deleted.
        name: [u8; NAME_LEN],
        tag: [u8; NAME_LEN],
        create_time: U64,
        /// 0: a working VDI; otherwise a snapshot.
        snap_ctime: U64,
        vm_clock_nsec: U64,
        /// Bytes.
        vdi_size: U64,
        vm_state_size: U64,
        copy_policy: u8,
        store_policy: u8,
        nr_copies: u8,
        block_size_shift: u8,
        snap_id: U32,
        vdi_id: U32,
        parent_vdi_id: U32,
        /// Number of the next btree node of a hypervolume.
        btree_counter: U32,
    }
}

wire! {
    /// An inode's reference to the object at one index, kept by 1.0 servers alone (3.7).
    Gref = 8; {
        generation: I32,
        count: I32,
    }
}

/// Offsets of single fields that clients write on their own.
pub const TAG_OFFSET: u32 = offset_of!(InodeHeader, tag) as u32;
pub const SNAP_CTIME_OFFSET: u32 = offset_of!(InodeHeader, snap_ctime) as u32;
pub const VDI_SIZE_OFFSET: u32 = offset_of!(InodeHeader, vdi_size) as u32;
pub const BTREE_COUNTER_OFFSET: u32 = offset_of!(InodeHeader, btree_counter) as u32;

const _: () = {
    assert!(TAG_OFFSET == 256 && SNAP_CTIME_OFFSET == 520 && VDI_SIZE_OFFSET == 536);
    assert!(offset_of!(InodeHeader, copy_policy) == 552);
    assert!(offset_of!(InodeHeader, block_size_shift) == 555);
    assert!(offset_of!(InodeHeader, snap_id) == 556 && BTREE_COUNTER_OFFSET == 568);
};

impl InodeHeader {
    pub fn name(&self) -> &[u8] {
        field_text(&self.name)
    }

    pub fn tag(&self) -> &[u8] {
        field_text(&self.tag)
    }

    pub fn is_snapshot(&self) -> bool {
        self.snap_ctime.get() != 0
    }

    /// Deletion empties the name and leaves the inode (3.5).
    pub fn is_deleted(&self) -> bool {
        self.name[0] == 0
    }

    /// The VDI's own id; None where the field is not one.
    pub fn vid(&self) -> Option<Vid> {
        Vid::new(self.vdi_id.get()).filter(|vid| !vid.is_none())
    }
}

/// Where map entry `index` of an array inode lies.
pub const fn map_entry_offset(index: u32) -> u32 {
    MAP_OFFSET + 4 * index
}

/// Where the reference of map entry `index` lies (3.5); never for clients to write.
pub const fn gref_offset(index: u32) -> u32 {
    MAP_END + 8 * index
}

/// Number of objects that `size` bytes occupy, whatever an inode says of theirs.
pub const fn object_count(size: u64, block_size_shift: u8) -> u64 {
    match 1u64.checked_shl(block_size_shift as u32) {
        Some(len) => size.div_ceil(len),
        None => (size > 0) as u64,
    }
}

/// Largest size in bytes of a VDI with this index and object size (2.5).
pub const fn max_size(store_policy: u8, block_size_shift: u8) -> u64 {
    if store_policy == STORE_ARRAY {
        (MAX_DATA_OBJECTS as u64) << block_size_shift
    } else {
        MAX_HYPERVOLUME_SIZE
    }
}
