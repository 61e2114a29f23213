//! Opcodes (2.1, 2.2) and request flags (2.3).

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        $($(#[$doc])* pub const $name: u8 = $code;)*

        /// The name of an opcode, for messages.
        pub fn name(opcode: u8) -> &'static str {
            match opcode { $($code => stringify!($name),)* _ => "unknown operation" }
        }
    };
}

opcodes! {
    CREATE_AND_WRITE_OBJ = 0x01;
    READ_OBJ = 0x02;
    WRITE_OBJ = 0x03;
    REMOVE_OBJ = 0x04;
    DISCARD_OBJ = 0x05;
    NEW_VDI = 0x11;
    LOCK_VDI = 0x12;
    RELEASE_VDI = 0x13;
    GET_VDI_INFO = 0x14;
    READ_VDIS = 0x15;
    FLUSH_VDI = 0x16;
    DEL_VDI = 0x17;
    GET_CLUSTER_DEFAULT = 0x18;

    GET_NODE_LIST = 0x82;
    MAKE_FS = 0x84;
    SHUTDOWN = 0x85;
    STAT_SHEEP = 0x86;
    STAT_CLUSTER = 0x87;
    GET_VDI_ATTR = 0x89;
    FORCE_RECOVER = 0x8a;
    GET_STORE_LIST = 0x90;
    CLEANUP = 0x94;
    STAT_RECOVERY = 0x97;
    FLUSH_DEL_CACHE = 0x98;
    NOTIFY_VDI_DEL = 0x99;
    KILL_NODE = 0x9a;
    GET_OBJ_LIST = 0xa1;
    GET_EPOCH = 0xa2;
    ENABLE_RECOVER = 0xa8;
    DISABLE_RECOVER = 0xa9;
    GET_VDI_COPIES = 0xab;
    FLUSH_NODES = 0xad;
    FLUSH_PEER = 0xae;
    NOTIFY_VDI_ADD = 0xaf;
    DELETE_CACHE = 0xb0;
    MD_INFO = 0xb1;
    GET_HASH = 0xb4;
    REWEIGHT = 0xb5;
    STAT = 0xb8;
    GET_LOGLEVEL = 0xb9;
    SET_LOGLEVEL = 0xba;
    EXIST = 0xbd;
    CLUSTER_INFO = 0xbe;
    ALTER_CLUSTER_COPY = 0xbf;
    ALTER_VDI_COPY = 0xc0;
    DECREF_OBJ = 0xc1;
    REPAIR_REPLICA = 0xc5;
    OIDS_EXIST = 0xc6;
    INODE_COHERENCE = 0xc8;
    READ_DEL_VDIS = 0xc9;
    GET_RECOVERY = 0xca;
    SET_RECOVERY = 0xcb;
    SET_VNODES = 0xcc;
    GET_VNODES = 0xcd;
}

/// Whether an operation belongs to the internal protocol, with its own version number (0.4).
pub const fn is_internal(opcode: u8) -> bool {
    opcode >= 0x80
}

/// The request carries a payload.
pub const FLAG_WRITE: u16 = 0x0001;
/// With CREATE_AND_WRITE_OBJ: fill the new object from `cow_oid` first.
pub const FLAG_COW: u16 = 0x0002;
/// Write back through the server's object cache (0.4 to 0.9; ignored by 1.0).
pub const FLAG_CACHE: u16 = 0x0004;
/// Bypass the server's object cache (ignored by 1.0).
pub const FLAG_DIRECT: u16 = 0x0008;
/// A WRITE request that also expects a response payload.
pub const FLAG_PIGGYBACK: u16 = 0x0010;
/// iSCSI multipath client, subject to inode-invalidation checks.
pub const FLAG_TGT: u16 = 0x0020;
/// GET_VDI_ATTR: create or overwrite.
pub const FLAG_ATTR_CREAT: u16 = 0x0100;
/// GET_VDI_ATTR, with CREAT: fail where the key exists.
pub const FLAG_ATTR_EXCL: u16 = 0x0200;
/// GET_VDI_ATTR: delete.
pub const FLAG_ATTR_DEL: u16 = 0x0400;

/// Lock types of LOCK_VDI (2.6).
pub const LOCK_NORMAL: u32 = 0;
pub const LOCK_SHARED: u32 = 1;

/// Cluster flags (2.6).
pub mod cluster_flag {
    pub const STRICT: u16 = 0x01;
    pub const DISKMODE: u16 = 0x02;
    pub const AUTO_VNODES: u16 = 0x04;
    pub const USE_LOCK: u16 = 0x08;
    pub const RECYCLE_VID: u16 = 0x10;
    pub const AVOID_DISKFULL: u16 = 0x20;
}
