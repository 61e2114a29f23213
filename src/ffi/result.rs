//! Results and their names, and the version.
//!
//! The constants are for the header: the library itself uses the types they stand for.

#![allow(dead_code)]

use std::ffi::{c_char, c_int};

use crate::error;

/// Success.
pub const SD_RES_SUCCESS: c_int = 0x00;
/// Unknown error.
pub const SD_RES_UNKNOWN: c_int = 0x01;
/// No object found.
pub const SD_RES_NO_OBJ: c_int = 0x02;
/// I/O error.
pub const SD_RES_EIO: c_int = 0x03;
/// VDI exists already.
pub const SD_RES_VDI_EXIST: c_int = 0x04;
/// Invalid parameters.
pub const SD_RES_INVALID_PARMS: c_int = 0x05;
/// System error.
pub const SD_RES_SYSTEM_ERROR: c_int = 0x06;
/// VDI is already locked.
pub const SD_RES_VDI_LOCKED: c_int = 0x07;
/// No VDI found.
pub const SD_RES_NO_VDI: c_int = 0x08;
/// No base VDI found.
pub const SD_RES_NO_BASE_VDI: c_int = 0x09;
/// Failed to read from the requested VDI.
pub const SD_RES_VDI_READ: c_int = 0x0a;
/// Failed to write to the requested VDI.
pub const SD_RES_VDI_WRITE: c_int = 0x0b;
/// Failed to read from the base VDI.
pub const SD_RES_BASE_VDI_READ: c_int = 0x0c;
/// Failed to write to the base VDI.
pub const SD_RES_BASE_VDI_WRITE: c_int = 0x0d;
/// No snapshot with the requested tag or id.
pub const SD_RES_NO_TAG: c_int = 0x0e;
/// The cluster is still starting.
pub const SD_RES_STARTUP: c_int = 0x0f;
/// VDI is not locked.
pub const SD_RES_VDI_NOT_LOCKED: c_int = 0x10;
/// The cluster is shutting down.
pub const SD_RES_SHUTDOWN: c_int = 0x11;
/// Out of memory.
pub const SD_RES_NO_MEM: c_int = 0x12;
/// The maximum number of VDIs is in use.
pub const SD_RES_FULL_VDI: c_int = 0x13;
/// Protocol version mismatch.
pub const SD_RES_VER_MISMATCH: c_int = 0x14;
/// The server has no space for new objects.
pub const SD_RES_NO_SPACE: c_int = 0x15;
/// The cluster is not formatted.
pub const SD_RES_WAIT_FOR_FORMAT: c_int = 0x16;
/// The cluster waits for other nodes to join.
pub const SD_RES_WAIT_FOR_JOIN: c_int = 0x17;
/// A node failed to join the cluster.
pub const SD_RES_JOIN_FAILED: c_int = 0x18;
/// The cluster has too few nodes to serve requests.
pub const SD_RES_HALT: c_int = 0x19;
/// The object is read-only.
pub const SD_RES_READONLY: c_int = 0x1a;
/// The node has incomplete information (0.9).
pub const SD_RES_INCOMPLETE_0_9: c_int = 0x1b;
/// The node is collecting cluster information (0.9).
pub const SD_RES_COLLECTING_CINFO_0_9: c_int = 0x1c;
/// The inode was invalidated by another client.
pub const SD_RES_INODE_INVALIDATED: c_int = 0x1d;
/// The request has an old epoch.
pub const SD_RES_OLD_NODE_VER: c_int = 0x81;
/// The request has a new epoch.
pub const SD_RES_NEW_NODE_VER: c_int = 0x82;
/// The node is not formatted.
pub const SD_RES_NOT_FORMATTED: c_int = 0x83;
/// The creation times of the clusters differ.
pub const SD_RES_INVALID_CTIME: c_int = 0x84;
/// Invalid epoch.
pub const SD_RES_INVALID_EPOCH: c_int = 0x85;
/// Network error between nodes.
pub const SD_RES_NETWORK_ERROR: c_int = 0x86;
/// No object cache found.
pub const SD_RES_NO_CACHE: c_int = 0x87;
/// The buffer is too small.
pub const SD_RES_BUFFER_SMALL: c_int = 0x88;
/// The cluster needs a forced recovery.
pub const SD_RES_FORCE_RECOVER: c_int = 0x89;
/// No such backing store.
pub const SD_RES_NO_STORE: c_int = 0x8a;
/// Operation not supported.
pub const SD_RES_NO_SUPPORT: c_int = 0x8b;
/// The node is in recovery.
pub const SD_RES_NODE_IN_RECOVERY: c_int = 0x8c;
/// The node is killed.
pub const SD_RES_KILLED: c_int = 0x8d;
/// The object id exists already.
pub const SD_RES_OID_EXIST: c_int = 0x8e;
/// Try again.
pub const SD_RES_AGAIN: c_int = 0x8f;
/// The object may be stale.
pub const SD_RES_STALE_OBJ: c_int = 0x90;
/// Cluster driver error.
pub const SD_RES_CLUSTER_ERROR: c_int = 0x91;
/// VDI is not empty.
pub const SD_RES_VDI_NOT_EMPTY: c_int = 0x92;
/// Not found.
pub const SD_RES_NOT_FOUND: c_int = 0x93;
/// The node has incomplete information.
pub const SD_RES_INCOMPLETE: c_int = 0x94;
/// The node is collecting cluster information.
pub const SD_RES_COLLECTING_CINFO: c_int = 0x95;
/// The node is a gateway only.
pub const SD_RES_GATEWAY_MODE: c_int = 0x97;
/// Invalid vnodes strategy.
pub const SD_RES_INVALID_VNODES_STRATEGY: c_int = 0x98;
/// No checkpoint entry.
pub const SD_RES_NO_CHECKPOINT_ENTRY: c_int = 0x99;
/// The call took longer than sd_set_timeout() allows.
pub const SD_RES_TIMEDOUT: c_int = 0x100;
/// sd_close() ended the call.
pub const SD_RES_CANCELED: c_int = 0x101;
/// The peer broke the protocol: it is no sheepdog server.
pub const SD_RES_BAD_REPLY: c_int = 0x102;
/// No gateway reachable, or the connection broke where repeating could do harm.
pub const SD_RES_NOT_CONNECTED: c_int = 0x103;

/// Version of this header; sd_version() tells that of the library.
pub const SD_VERSION_MAJOR: c_int = 1;
pub const SD_VERSION_MINOR: c_int = 0;
pub const SD_VERSION_PATCH: c_int = 0;

/// The meaning of a result code, in English, for any code at all. The string is constant.
#[unsafe(no_mangle)]
pub extern "C" fn sd_strerror(result: c_int) -> *const c_char {
    error::c_text(result).as_ptr()
}

/// The errno that says what a result code says, as a positive number, 0 for SD_RES_SUCCESS. EAGAIN
/// for a cluster that starts or recovers, ENXIO for one that is not formatted, EIO for whatever errno
/// has no better word for.
#[unsafe(no_mangle)]
pub extern "C" fn sd_result_to_errno(result: c_int) -> c_int {
    error::errno(result)
}

/// The version of the library, as "1.0.0". The string is constant.
#[unsafe(no_mangle)]
pub extern "C" fn sd_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepdog_proto::SdResult;

    /// The header's results, read from its text: (name, code).
    fn header() -> Vec<(&'static str, i32)> {
        let lines = include_str!("../../include/sheepdog.h").lines();
        let results =
            lines.filter_map(|line| line.strip_prefix("#define SD_RES_")?.split_once(' '));
        results.map(|(name, code)| (name, code.parse().unwrap())).collect()
    }

    #[test]
    fn the_header_has_every_result_of_the_servers_under_its_number() {
        let header = header();
        for (result, name, _) in SdResult::ALL {
            assert!(header.contains(&(name, result.0 as i32)), "{name}");
        }
        let own = [
            ("TIMEDOUT", error::code::TIMEDOUT),
            ("CANCELED", error::code::CANCELED),
            ("BAD_REPLY", error::code::BAD_REPLY),
            ("NOT_CONNECTED", error::code::NOT_CONNECTED),
        ];
        for own in own {
            assert!(header.contains(&own), "{own:?}");
        }
        assert_eq!(header.len(), SdResult::ALL.len() + own.len());
    }

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let header = format!("{SD_VERSION_MAJOR}.{SD_VERSION_MINOR}.{SD_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
