//! Results that a server answers with (2.4).

/// A result code as it travels: any 32-bit value a server may send, 0 being success.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SdResult(pub u32);

use std::ffi::CStr;

const fn c_str(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a result's text holds a NUL"),
    }
}

macro_rules! results {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl SdResult {
            $(#[doc = $text] pub const $name: SdResult = SdResult($code);)*

            /// Every code that servers are known to send, with its name and its meaning.
            pub const ALL: &'static [(SdResult, &'static str, &'static str)] =
                &[$((SdResult::$name, stringify!($name), $text)),*];

            /// What the code means, or None where no known server sends it.
            pub const fn text(self) -> Option<&'static str> {
                match self.0 { $($code => Some($text),)* _ => None }
            }

            /// [`SdResult::text`] for C.
            pub const fn c_text(self) -> Option<&'static CStr> {
                match self.0 { $($code => Some(c_str(concat!($text, "\0"))),)* _ => None }
            }

            /// The name of the code, or None where no known server sends it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($code => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

results! {
    SUCCESS = 0x00, "Success";
    UNKNOWN = 0x01, "Unknown error";
    NO_OBJ = 0x02, "No object found";
    EIO = 0x03, "I/O error";
    VDI_EXIST = 0x04, "VDI exists already";
    INVALID_PARMS = 0x05, "Invalid parameters";
    SYSTEM_ERROR = 0x06, "System error";
    VDI_LOCKED = 0x07, "VDI is already locked";
    NO_VDI = 0x08, "No VDI found";
    NO_BASE_VDI = 0x09, "No base VDI found";
    VDI_READ = 0x0a, "Failed to read from the requested VDI";
    VDI_WRITE = 0x0b, "Failed to write to the requested VDI";
    BASE_VDI_READ = 0x0c, "Failed to read from the base VDI";
    BASE_VDI_WRITE = 0x0d, "Failed to write to the base VDI";
    NO_TAG = 0x0e, "No snapshot with the requested tag or id";
    STARTUP = 0x0f, "The cluster is still starting";
    VDI_NOT_LOCKED = 0x10, "VDI is not locked";
    SHUTDOWN = 0x11, "The cluster is shutting down";
    NO_MEM = 0x12, "Out of memory";
    FULL_VDI = 0x13, "The maximum number of VDIs is in use";
    VER_MISMATCH = 0x14, "Protocol version mismatch";
    NO_SPACE = 0x15, "The server has no space for new objects";
    WAIT_FOR_FORMAT = 0x16, "The cluster is not formatted";
    WAIT_FOR_JOIN = 0x17, "The cluster waits for other nodes to join";
    JOIN_FAILED = 0x18, "A node failed to join the cluster";
    HALT = 0x19, "The cluster has too few nodes to serve requests";
    READONLY = 0x1a, "The object is read-only";
    INCOMPLETE_0_9 = 0x1b, "The node has incomplete information (0.9)";
    COLLECTING_CINFO_0_9 = 0x1c, "The node is collecting cluster information (0.9)";
    INODE_INVALIDATED = 0x1d, "The inode was invalidated by another client";
    OLD_NODE_VER = 0x81, "The request has an old epoch";
    NEW_NODE_VER = 0x82, "The request has a new epoch";
    NOT_FORMATTED = 0x83, "The node is not formatted";
    INVALID_CTIME = 0x84, "The creation times of the clusters differ";
    INVALID_EPOCH = 0x85, "Invalid epoch";
    NETWORK_ERROR = 0x86, "Network error between nodes";
    NO_CACHE = 0x87, "No object cache found";
    BUFFER_SMALL = 0x88, "The buffer is too small";
    FORCE_RECOVER = 0x89, "The cluster needs a forced recovery";
    NO_STORE = 0x8a, "No such backing store";
    NO_SUPPORT = 0x8b, "Operation not supported";
    NODE_IN_RECOVERY = 0x8c, "The node is in recovery";
    KILLED = 0x8d, "The node is killed";
    OID_EXIST = 0x8e, "The object id exists already";
    AGAIN = 0x8f, "Try again";
    STALE_OBJ = 0x90, "The object may be stale";
    CLUSTER_ERROR = 0x91, "Cluster driver error";
    VDI_NOT_EMPTY = 0x92, "VDI is not empty";
    NOT_FOUND = 0x93, "Not found";
    INCOMPLETE = 0x94, "The node has incomplete information";
    COLLECTING_CINFO = 0x95, "The node is collecting cluster information";
    GATEWAY_MODE = 0x97, "The node is a gateway only";
    INVALID_VNODES_STRATEGY = 0x98, "Invalid vnodes strategy";
    NO_CHECKPOINT_ENTRY = 0x99, "No checkpoint entry";
}

impl SdResult {
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Debug for SdResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

impl std::fmt::Display for SdResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "Unknown result {:#04x}", self.0),
        }
    }
}

impl From<SdResult> for zerocopy::little_endian::U32 {
    fn from(result: SdResult) -> Self {
        result.0.into()
    }
}
