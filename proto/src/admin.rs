//! Records of the admin operations (3.11, 4.15): what `dog` asks a node about itself and the
//! cluster.
//!
//! The operations take no more in their request than [`Request`] and its arms can say; what they
//! answer is one of these records or an array of them.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{ClusterArm, ObjArm, wire};
use crate::{Oid, Request, op};

/// Nodes that a node list has room for (2.5).
pub const MAX_NODES: usize = 6144;
/// Slots for the participants of a shared lock in a [`VdiState`] (3.11).
pub const MAX_PARTICIPANTS: usize = 31;
/// Disks that an answer to MD_INFO has room for (3.11).
pub const MD_DISKS: usize = 64;
/// Payload of MD_INFO: the disks, how many of them are meant, padding (3.11).
pub const MD_INFO_LEN: usize = MD_DISKS * size_of::<MdInfo>() + 8;
/// Payload of CLUSTER_INFO: [`ClusterInfo`] and the nodes (3.11). A 1.0 server writes all of it,
/// however small the buffer that the request offers.
pub const CLUSTER_INFO_LEN: usize = size_of::<ClusterInfo>() + MAX_NODES * size_of::<SdNode>();

const _: () = assert!(MD_INFO_LEN == 263_688 && CLUSTER_INFO_LEN == 491_568);

wire! {
    /// How a node is reached (3.11).
    NodeId = 40; {
        /// An IPv6 address; of an IPv4 address the last four bytes, behind zeros.
        addr: [u8; 16],
        port: U16,
        io_addr: [u8; 16],
        io_port: U16,
        pad: [u8; 4],
    }
}

wire! {
    /// A node of the cluster (3.11), on clusters without [`op::cluster_flag::DISKMODE`].
    SdNode = 80; {
        /// The sender's own pointers, possibly garbage.
        opaque: [u8; 24],
        nid: NodeId,
        nr_vnodes: U16,
        pad: [u8; 2],
        zone: U32,
        /// Bytes that the node gives to the cluster.
        space: U64,
    }
}

wire! {
    /// What CLUSTER_INFO answers, without the nodes that follow it (3.11).
    ClusterInfo = 48; {
        proto_ver: u8,
        disable_recovery: u8,
        nr_nodes: U16,
        epoch: U32,
        /// 0: not formatted.
        ctime: U64,
        /// [`op::cluster_flag`].
        flags: U16,
        nr_copies: u8,
        copy_policy: u8,
        /// [`status`].
        status: u8,
        block_size_shift: u8,
        pad: [u8; 3],
        default_store: [u8; 16],
        pad2: [u8; 7],
    }
}

/// Cluster status in [`ClusterInfo`] (2.6).
pub mod status {
    pub const OK: u8 = 1;
    pub const WAIT: u8 = 2;
    pub const SHUTDOWN: u8 = 3;
    pub const KILLED: u8 = 4;
}

wire! {
    /// One epoch of the cluster as STAT_CLUSTER answers it, followed by its nodes (3.11).
    ///
    /// Only the newest record has more than `epoch`, `nr_nodes` and `time`.
    EpochLog = 48; {
        ctime: U64,
        /// Unix seconds.
        time: U64,
        epoch: U32,
        nr_nodes: U32,
        disable_recovery: u8,
        nr_copies: u8,
        copy_policy: u8,
        pad: [u8; 3],
        flags: U16,
        drv_name: [u8; 16],
    }
}

wire! {
    /// What a node knows of a VDI, as GET_VDI_COPIES answers it (3.11).
    VdiState = 1428; {
        vid: U32,
        nr_copies: u8,
        snapshot: u8,
        deleted: u8,
        copy_policy: u8,
        block_size_shift: u8,
        pad: [u8; 3],
        parent_vid: U32,
        /// [`lock_state`].
        lock_state: U32,
        lock_owner: NodeId,
        nr_participants: U32,
        /// [`participant_state`].
        participants_state: [U32; MAX_PARTICIPANTS],
        participants: [NodeId; MAX_PARTICIPANTS],
    }
}

/// Lock state of a VDI in [`VdiState`] (2.6).
pub mod lock_state {
    pub const UNLOCKED: u32 = 1;
    pub const LOCKED: u32 = 2;
    pub const SHARED: u32 = 3;
}

/// State of one gateway that takes part in a shared lock (2.6).
pub mod participant_state {
    pub const MODIFIED: u32 = 1;
    pub const SHARED: u32 = 2;
    pub const INVALIDATED: u32 = 3;
}

wire! {
    /// A disk of a node (3.11). MD_INFO answers [`MD_DISKS`] of them and then, in eight bytes of
    /// which four are padding, how many are meant.
    MdInfo = 4120; {
        idx: I32,
        pad: [u8; 4],
        free: U64,
        used: U64,
        /// NUL padded.
        path: [u8; 4096],
    }
}

wire! {
    /// What STAT_RECOVERY answers (3.11).
    RecoveryState = 24; {
        in_recovery: u8,
        pad: [u8; 3],
        /// 0 preparing, 1 recovering, 2 notifying.
        state: U32,
        nr_finished: U64,
        nr_total: U64,
    }
}

wire! {
    /// What GET_RECOVERY answers and SET_RECOVERY takes (3.11).
    RecoveryThrottling = 24; {
        max_exec_count: U32,
        pad: [u8; 4],
        queue_work_interval: U64,
        throttling: u8,
        pad2: [u8; 7],
    }
}

wire! {
    /// Counters of a node since it started, as STAT answers them (3.11).
    SdStat = 120; {
        gateway_active: U64,
        peer_active: U64,
        gateway_total: U64,
        peer_total: U64,
        gateway_rx: U64,
        gateway_tx: U64,
        peer_rx: U64,
        peer_tx: U64,
        gateway_removes: U64,
        gateway_reads: U64,
        gateway_writes: U64,
        gateway_flushes: U64,
        peer_removes: U64,
        peer_reads: U64,
        peer_writes: U64,
    }
}

const _: () = {
    assert!(offset_of!(NodeId, port) == 16 && offset_of!(NodeId, io_addr) == 18);
    assert!(offset_of!(NodeId, io_port) == 34);
    assert!(offset_of!(SdNode, nid) == 24 && offset_of!(SdNode, nr_vnodes) == 64);
    assert!(offset_of!(SdNode, zone) == 68 && offset_of!(SdNode, space) == 72);
    assert!(offset_of!(ClusterInfo, nr_nodes) == 2 && offset_of!(ClusterInfo, epoch) == 4);
    assert!(offset_of!(ClusterInfo, ctime) == 8 && offset_of!(ClusterInfo, flags) == 16);
    assert!(offset_of!(ClusterInfo, nr_copies) == 18 && offset_of!(ClusterInfo, status) == 20);
    assert!(offset_of!(ClusterInfo, block_size_shift) == 21);
    assert!(offset_of!(ClusterInfo, default_store) == 25);
    assert!(offset_of!(EpochLog, time) == 8 && offset_of!(EpochLog, epoch) == 16);
    assert!(offset_of!(EpochLog, nr_nodes) == 20 && offset_of!(EpochLog, nr_copies) == 25);
    assert!(offset_of!(EpochLog, copy_policy) == 26 && offset_of!(EpochLog, flags) == 30);
    assert!(offset_of!(EpochLog, drv_name) == 32);
    assert!(offset_of!(VdiState, snapshot) == 5 && offset_of!(VdiState, deleted) == 6);
    assert!(offset_of!(VdiState, copy_policy) == 7 && offset_of!(VdiState, block_size_shift) == 8);
    assert!(offset_of!(VdiState, parent_vid) == 12 && offset_of!(VdiState, lock_state) == 16);
    assert!(offset_of!(VdiState, lock_owner) == 20 && offset_of!(VdiState, nr_participants) == 60);
    assert!(offset_of!(VdiState, participants_state) == 64);
    assert!(offset_of!(VdiState, participants) == 188);
    assert!(offset_of!(MdInfo, free) == 8 && offset_of!(MdInfo, used) == 16);
    assert!(offset_of!(MdInfo, path) == 24);
    assert!(offset_of!(RecoveryState, state) == 4 && offset_of!(RecoveryState, nr_total) == 16);
    assert!(offset_of!(RecoveryThrottling, queue_work_interval) == 8);
    assert!(offset_of!(RecoveryThrottling, throttling) == 16);
    assert!(offset_of!(SdStat, peer_total) == 24 && offset_of!(SdStat, gateway_reads) == 72);
};

impl NodeId {
    /// The id of a node that listens on `address`.
    pub fn of(address: SocketAddr) -> NodeId {
        let mut addr = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => addr[12..].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => addr = ip.octets(),
        }
        NodeId { addr, port: address.port().into(), ..Default::default() }
    }

    /// Where the node listens.
    pub fn address(&self) -> SocketAddr {
        let [zeros @ .., a, b, c, d] = self.addr;
        let ip = if zeros == [0; 12] {
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.addr))
        };
        SocketAddr::new(ip, self.port.get())
    }

    /// The bytes that placement hashes: address and port (8).
    pub fn ring_key(&self) -> [u8; 18] {
        let mut key = [0; 18];
        key[..16].copy_from_slice(&self.addr);
        key[16..].copy_from_slice(self.port.as_bytes());
        key
    }
}

/// Parses the nodes of a GET_NODE_LIST answer; a trailing partial record is ignored.
pub fn nodes(payload: &[u8]) -> impl Iterator<Item = &SdNode> {
    payload.chunks_exact(size_of::<SdNode>()).filter_map(|bytes| SdNode::ref_from_bytes(bytes).ok())
}

/// The node list, in a buffer for [`MAX_NODES`], as a 1.0 server needs it: it does not check.
pub fn get_node_list() -> Request {
    request(op::GET_NODE_LIST, MAX_NODES * size_of::<SdNode>())
}

/// The cluster's description, in a buffer of [`CLUSTER_INFO_LEN`].
pub fn cluster_info() -> Request {
    request(op::CLUSTER_INFO, CLUSTER_INFO_LEN)
}

/// The `records` newest epochs with room for `nodes` nodes in each.
pub fn stat_cluster(records: u32, nodes: u32) -> Request {
    let record = size_of::<EpochLog>() as u32 + nodes * size_of::<SdNode>() as u32;
    let arm = ClusterArm { nodes_nr: nodes.into(), ..Default::default() };
    Request::new(op::STAT_CLUSTER, 0, arm).with_length(records * record)
}

/// The disks of a node; the server insists on this length.
pub fn md_info() -> Request {
    request(op::MD_INFO, MD_INFO_LEN)
}

/// The counters of a node.
pub fn stat() -> Request {
    request(op::STAT, size_of::<SdStat>())
}

/// Whether the node holds `oid` (EXIST), or the SHA-1 of what it holds (GET_HASH), at `epoch`.
pub fn of_object(opcode: u8, oid: Oid, epoch: u32) -> Request {
    let arm = ObjArm { oid: oid.0.into(), tgt_epoch: epoch.into(), ..Default::default() };
    Request::new(opcode, 0, arm)
}

fn request(opcode: u8, room: usize) -> Request {
    Request::new(opcode, 0, [0; 32]).with_length(room as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_names_its_address() {
        for text in ["127.0.0.1:7120", "[2001:db8::1]:7000"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(NodeId::of(address).address(), address);
        }
    }

    #[test]
    fn a_partial_node_is_not_a_node() {
        assert_eq!(nodes(&[0; 80 * 2 + 79]).count(), 2);
    }
}
