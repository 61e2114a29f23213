//! The 48-byte request and response headers (1).

use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute, transmute_ref};

use crate::op::{FLAG_WRITE, is_internal};
use crate::{CLIENT_VERSION, INTERNAL_VERSION, Oid, SdResult, Vid};

/// Bytes of every request and response header.
pub const HEADER_LEN: usize = 48;

/// Derives what every wire struct needs and asserts its size.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident = $size:expr; { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        const _: () = assert!(size_of::<$name>() == $size);

        impl Default for $name {
            fn default() -> Self {
                <Self as zerocopy::FromZeros>::new_zeroed()
            }
        }
    };
}
pub(crate) use wire;

wire! {
    /// A request header (1.1). `arm` is one of the arms below, by opcode.
    Request = HEADER_LEN; {
        proto_ver: u8,
        opcode: u8,
        flags: U16,
        /// Clients send 0; a gateway overwrites it.
        epoch: U32,
        /// Echoed in the response.
        id: U32,
        /// With [`FLAG_WRITE`] the bytes of payload that follow; without, the bytes of response
        /// payload the client has room for.
        data_length: U32,
        arm: [u8; 32],
    }
}

wire! {
    /// Request arm of object operations (1.2).
    ObjArm = 32; {
        oid: U64,
        cow_oid: U64,
        /// 0: as many as the VDI has.
        copies: u8,
        copy_policy: u8,
        ec_index: u8,
        reserved: u8,
        tgt_epoch: U32,
        /// Bytes from the object's start.
        offset: U32,
        /// High half of a 64-bit offset on 0.7 and older.
        offset_high: U32,
    }
}

wire! {
    /// Request arm of VDI operations (1.2).
    VdiArm = 32; {
        vdi_size: U64,
        /// RELEASE_VDI: the VDI id to release.
        base_vdi_id: U32,
        copies: u8,
        copy_policy: u8,
        store_policy: u8,
        block_size_shift: u8,
        snapid: U32,
        lock_type: U32,
        pad: [u8; 8],
    }
}

wire! {
    /// Request arm of MAKE_FS, STAT_CLUSTER and ALTER_CLUSTER_COPY (1.2).
    ClusterArm = 32; {
        oid: U64,
        ctime: U64,
        copies: u8,
        copy_policy: u8,
        flags: U16,
        tag: U32,
        nodes_nr: U32,
        block_size_shift: u8,
        reserved: [u8; 3],
    }
}

wire! {
    /// Request arm of NOTIFY_VDI_ADD and ALTER_VDI_COPY (1.2).
    VdiStateArm = 32; {
        old_vid: U32,
        new_vid: U32,
        copies: u8,
        set_bitmap: u8,
        copy_policy: u8,
        block_size_shift: u8,
        pad: [u8; 20],
    }
}

wire! {
    /// Request arm of INODE_COHERENCE (1.2).
    InodeCoherenceArm = 32; {
        vid: U32,
        validate: U32,
        pad: [u8; 24],
    }
}

wire! {
    /// A response header (1.3). `arm` is one of the arms below, by opcode.
    Response = HEADER_LEN; {
        proto_ver: u8,
        opcode: u8,
        flags: U16,
        /// The cluster's epoch: 0 before format, 1 on a fresh single-node cluster.
        epoch: U32,
        id: U32,
        /// Bytes of payload that follow, whatever the result (0.3).
        data_length: U32,
        result: U32,
        arm: [u8; 28],
    }
}

wire! {
    /// Response arm of object operations (1.4).
    ObjReply = 28; {
        copies: u8,
        pad: [u8; 3],
        /// Start of a trimmed read within the requested window (0.6 and 0.7 only, 4.3).
        offset: U64,
        rest: [u8; 16],
    }
}

wire! {
    /// Response arm of VDI operations (1.4). Garbage unless the result is success.
    VdiReply = 28; {
        reserved: U32,
        vdi_id: U32,
        attr_id: U32,
        copies: u8,
        block_size_shift: u8,
        rest: [u8; 14],
    }
}

wire! {
    /// Response arm of GET_NODE_LIST and STAT_SHEEP (1.4).
    NodeReply = 28; {
        nr_nodes: U32,
        pad: [u8; 8],
        store_size: U64,
        store_free: U64,
    }
}

wire! {
    /// Response arm of GET_HASH (1.4).
    HashReply = 28; {
        pad: [u8; 4],
        /// SHA-1 of the stored object.
        digest: [u8; 20],
        rest: [u8; 4],
    }
}

wire! {
    /// Response arm of GET_CLUSTER_DEFAULT (1.4).
    ClusterDefaultReply = 28; {
        nr_copies: u8,
        copy_policy: u8,
        block_size_shift: u8,
        rest: [u8; 25],
    }
}

const _: () = {
    assert!(offset_of!(Request, arm) == 16);
    assert!(16 + offset_of!(ObjArm, cow_oid) == 24);
    assert!(16 + offset_of!(ObjArm, copies) == 32);
    assert!(16 + offset_of!(ObjArm, tgt_epoch) == 36);
    assert!(16 + offset_of!(ObjArm, offset) == 40);
    assert!(16 + offset_of!(VdiArm, base_vdi_id) == 24);
    assert!(16 + offset_of!(VdiArm, copies) == 28);
    assert!(16 + offset_of!(VdiArm, block_size_shift) == 31);
    assert!(16 + offset_of!(VdiArm, snapid) == 32);
    assert!(16 + offset_of!(VdiArm, lock_type) == 36);
    assert!(16 + offset_of!(ClusterArm, ctime) == 24);
    assert!(16 + offset_of!(ClusterArm, copies) == 32);
    assert!(16 + offset_of!(ClusterArm, flags) == 34);
    assert!(16 + offset_of!(ClusterArm, nodes_nr) == 40);
    assert!(16 + offset_of!(ClusterArm, block_size_shift) == 44);
    assert!(16 + offset_of!(VdiStateArm, new_vid) == 20);
    assert!(16 + offset_of!(VdiStateArm, block_size_shift) == 27);
    assert!(offset_of!(Response, result) == 16);
    assert!(offset_of!(Response, arm) == 20);
    assert!(20 + offset_of!(ObjReply, offset) == 24);
    assert!(20 + offset_of!(VdiReply, vdi_id) == 24);
    assert!(20 + offset_of!(VdiReply, copies) == 32);
    assert!(20 + offset_of!(NodeReply, store_size) == 32);
    assert!(20 + offset_of!(NodeReply, store_free) == 40);
    assert!(20 + offset_of!(HashReply, digest) == 24);
};

/// Typed access to the opcode-specific part of a header.
macro_rules! arms {
    ($header:ident: $($name:ident -> $arm:ident),*) => {
        impl $header {
            $(
                pub fn $name(&self) -> &$arm {
                    transmute_ref!(&self.arm)
                }
            )*
        }

        $(
            impl From<$arm> for [u8; size_of::<$arm>()] {
                fn from(arm: $arm) -> Self {
                    transmute!(arm)
                }
            }
        )*
    };
}

arms!(Request: obj -> ObjArm, vdi -> VdiArm, cluster -> ClusterArm, vdi_state -> VdiStateArm,
    inode_coherence -> InodeCoherenceArm);
arms!(Response: obj -> ObjReply, vdi -> VdiReply, node -> NodeReply, hash -> HashReply,
    cluster_default -> ClusterDefaultReply);

impl Request {
    /// A request of `opcode` with the version that its protocol wants; `data_length` is 0.
    pub fn new(opcode: u8, flags: u16, arm: impl Into<[u8; 32]>) -> Request {
        let proto_ver = if is_internal(opcode) { INTERNAL_VERSION } else { CLIENT_VERSION };
        Request { proto_ver, opcode, flags: flags.into(), arm: arm.into(), ..Default::default() }
    }

    /// The same request, with `len` as its `data_length`.
    pub fn with_length(mut self, len: u32) -> Request {
        self.data_length = len.into();
        self
    }

    /// Reads `len` bytes of object `oid` from `offset`.
    pub fn read(oid: Oid, offset: u32, len: u32) -> Request {
        let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..Default::default() };
        Request::new(crate::op::READ_OBJ, 0, arm).with_length(len)
    }

    /// Bytes of payload that follow this header on the wire (0.3).
    pub fn payload_len(&self) -> u32 {
        if self.flags.get() & FLAG_WRITE != 0 { self.data_length.get() } else { 0 }
    }
}

impl Response {
    /// The answer to `request`, without payload, with an empty arm.
    pub fn to(request: &Request, epoch: u32, result: SdResult) -> Response {
        Response {
            opcode: request.opcode,
            epoch: epoch.into(),
            id: request.id,
            result: result.into(),
            ..Default::default()
        }
    }

    pub fn result(&self) -> SdResult {
        SdResult(self.result.get())
    }
}

impl VdiReply {
    /// The VDI id of a successful answer; None where the server sent no valid one.
    pub fn vid(&self) -> Option<Vid> {
        Vid::new(self.vdi_id.get()).filter(|vid| !vid.is_none())
    }
}
