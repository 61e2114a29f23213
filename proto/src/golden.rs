//! The golden vectors of appendix A and B, against what this crate builds and parses.
//!
//! The bytes are read from the document itself: captures of a real server, in the order in which
//! they were taken, ids counting from 1.

use std::net::SocketAddr;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::admin::{self, ClusterInfo, EpochLog, NodeId, SdNode, VdiState, lock_state, status};
use crate::attr::{ATTR_LEN, get_vdi_attr};
use crate::header::{
    ClusterArm, ClusterDefaultReply, HEADER_LEN, ObjArm, ObjReply, VdiArm, VdiReply, VdiStateArm,
};
use crate::inode::{InodeHeader, TAG_OFFSET, map_entry_offset};
use crate::op::{self, FLAG_ATTR_CREAT, FLAG_ATTR_DEL, FLAG_ATTR_EXCL, FLAG_COW, FLAG_DIRECT};
use crate::{Oid, Request, Response, SdResult, VDI_BITMAP_LEN, Vid, hash};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// One exchange of appendix A: the headers as captured, and what was asked there in our words.
struct Exchange {
    request: Request,
    result: SdResult,
    arm: [u8; 28],
    data_length: u32,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The lines of appendix A that start with `mark`, as headers.
fn headers(mark: &str) -> Vec<[u8; HEADER_LEN]> {
    let (_, appendix) = DOCUMENT.split_once("## Appendix A Golden vectors\n").unwrap();
    let (appendix, _) = appendix.split_once("## Appendix B").unwrap();
    let lines = appendix.lines().filter_map(|line| line.strip_prefix(mark));
    lines.map(|line| hex(line).try_into().unwrap()).collect()
}

fn vid(vid: u32) -> Vid {
    Vid::new(vid).unwrap()
}

fn exchanges() -> Vec<Exchange> {
    use SdResult as R;
    let alpha = hash::vid_of_name(b"alpha");
    let (successor, gamma) = (vid(0xed202c), vid(0x6ba96a));
    let obj = |oid: Oid, offset: u32| ObjArm {
        oid: oid.0.into(),
        offset: offset.into(),
        ..ObjArm::default()
    };
    // `dog` and the capture's client state version 2 for the operations of the client protocol.
    let client = |opcode, flags, arm: [u8; 32], len| {
        let request = Request::new(opcode, flags, arm).with_length(len);
        Request { proto_ver: 2, ..request }
    };
    let about = |opcode| client(opcode, op::FLAG_WRITE, [0; 32], 512);
    let read = |oid, offset, len| Request { proto_ver: 2, ..Request::read(oid, offset, len) };
    let write = |flags, oid, offset, len| {
        client(op::WRITE_OBJ, op::FLAG_WRITE | flags, obj(oid, offset).into(), len)
    };
    let create = |flags, arm: ObjArm| {
        client(op::CREATE_AND_WRITE_OBJ, op::FLAG_WRITE | FLAG_DIRECT | flags, arm.into(), 512)
    };
    let new_vdi = |arm: VdiArm| {
        let arm = VdiArm { vdi_size: (64 << 20).into(), ..arm };
        client(op::NEW_VDI, op::FLAG_WRITE, arm.into(), 256)
    };
    let from_alpha = VdiArm {
        base_vdi_id: alpha.get().into(),
        copies: 1,
        block_size_shift: 22,
        ..VdiArm::default()
    };
    let attr = |flags| get_vdi_attr(flags, 0);

    let none = [0; 28];
    let found = |vid: Vid| -> [u8; 28] {
        let vdi_id = vid.get().into();
        VdiReply { vdi_id, copies: 1, block_size_shift: 22, ..VdiReply::default() }.into()
    };
    let slot = |attr_id: u32| -> [u8; 28] {
        let (vdi_id, attr_id) = (alpha.get().into(), attr_id.into());
        VdiReply { vdi_id, attr_id, copies: 1, ..VdiReply::default() }.into()
    };
    let defaults = ClusterDefaultReply {
        nr_copies: 1,
        block_size_shift: 22,
        ..ClusterDefaultReply::default()
    };
    // A failed NEW_VDI returns bytes that nobody wrote (1.4).
    let garbage =
        VdiReply { vdi_id: 0x7fab.into(), copies: 1, block_size_shift: 22, ..VdiReply::default() };
    let deleted = VdiReply { vdi_id: successor.get().into(), ..VdiReply::default() };

    let table: [(Request, SdResult, [u8; 28], u32); 34] = [
        (client(op::GET_CLUSTER_DEFAULT, 0, none32(), 0), R::SUCCESS, defaults.into(), 0),
        (new_vdi(VdiArm::default()), R::SUCCESS, found(alpha), 0),
        (new_vdi(VdiArm::default()), R::VDI_EXIST, garbage.into(), 0),
        (about(op::GET_VDI_INFO), R::SUCCESS, found(alpha), 0),
        (about(op::GET_VDI_INFO), R::NO_TAG, none, 0),
        (about(op::GET_VDI_INFO), R::NO_VDI, none, 0),
        (about(op::LOCK_VDI), R::SUCCESS, found(alpha), 0),
        (read(alpha.inode(), 0, 4664), R::SUCCESS, none, 4664),
        (read(alpha.data(0), 0, 4096), R::NO_OBJ, none, 0),
        (create(0, obj(alpha.data(0), 4096)), R::SUCCESS, none, 0),
        (write(FLAG_DIRECT, alpha.inode(), map_entry_offset(0), 4), R::SUCCESS, none, 0),
        (write(FLAG_DIRECT, alpha.data(0), 4608, 512), R::SUCCESS, none, 0),
        (read(alpha.data(0), 4096, 1536), R::SUCCESS, none, 1536),
        (write(0, alpha.inode(), TAG_OFFSET, 256), R::SUCCESS, none, 0),
        (new_vdi(VdiArm { snapid: 1.into(), ..from_alpha }), R::SUCCESS, found(successor), 0),
        (write(0, alpha.data(0), 0, 512), R::READONLY, none, 0),
        (
            create(
                FLAG_COW,
                ObjArm { cow_oid: alpha.data(0).0.into(), ..obj(successor.data(0), 0) },
            ),
            R::SUCCESS,
            none,
            0,
        ),
        (write(FLAG_DIRECT, successor.inode(), map_entry_offset(0), 4), R::SUCCESS, none, 0),
        (about(op::GET_VDI_INFO), R::SUCCESS, found(alpha), 0),
        (new_vdi(from_alpha), R::SUCCESS, found(gamma), 0),
        (client(op::DISCARD_OBJ, 0, obj(successor.data(0), 0).into(), 0), R::SUCCESS, none, 0),
        (client(op::FLUSH_VDI, 0, obj(successor.inode(), 0).into(), 0), R::INVALID_PARMS, none, 0),
        (
            client(
                op::RELEASE_VDI,
                0,
                VdiArm { base_vdi_id: successor.get().into(), ..VdiArm::default() }.into(),
                0,
            ),
            R::SUCCESS,
            none,
            0,
        ),
        (attr(FLAG_ATTR_CREAT), R::SUCCESS, slot(0x4e21358d), 0),
        (attr(0), R::SUCCESS, slot(0x4e21358d), 0),
        (attr(FLAG_ATTR_CREAT | FLAG_ATTR_EXCL), R::VDI_EXIST, slot(0x4e21358d), 0),
        (attr(FLAG_ATTR_DEL), R::SUCCESS, slot(0x4e21358d), 0),
        (attr(0), R::NO_OBJ, slot(0x4e21358e), 0),
        (about(op::DEL_VDI), R::SUCCESS, deleted.into(), 0),
        (about(op::DEL_VDI), R::NO_VDI, none, 0),
        (
            client(op::READ_VDIS, 0, none32(), VDI_BITMAP_LEN as u32),
            R::SUCCESS,
            none,
            VDI_BITMAP_LEN as u32,
        ),
        (client(0x60, 0, none32(), 0), R::INVALID_PARMS, none, 0),
        (Request { proto_ver: 3, ..about(op::GET_VDI_INFO) }, R::VER_MISMATCH, none, 0),
        (
            Request {
                proto_ver: 2,
                ..Request::new(op::GET_NODE_LIST, 0, none32()).with_length(800)
            },
            R::VER_MISMATCH,
            none,
            0,
        ),
    ];
    let numbered = table.into_iter().zip(1u32..);
    numbered
        .map(|((request, result, arm, data_length), id)| Exchange {
            request: Request { id: id.into(), ..request },
            result,
            arm,
            data_length,
        })
        .collect()
}

fn none32() -> [u8; 32] {
    [0; 32]
}

#[test]
fn requests_are_built_as_captured() {
    let captured = headers("> ");
    let built = exchanges();
    assert_eq!(captured.len(), built.len());
    for (captured, exchange) in captured.iter().zip(built) {
        let id = exchange.request.id.get();
        assert_eq!(exchange.request.as_bytes(), captured, "request {id}");
        assert_eq!(Request::read_from_bytes(captured).unwrap(), exchange.request, "request {id}");
    }
}

#[test]
fn responses_are_parsed_as_captured() {
    for (captured, exchange) in headers("< ").iter().zip(exchanges()) {
        let id = exchange.request.id;
        let response = Response::read_from_bytes(captured).unwrap();
        assert_eq!(response.id, id);
        assert_eq!(response.opcode, exchange.request.opcode, "response {id}");
        assert_eq!(response.result(), exchange.result, "response {id}");
        assert_eq!(response.arm, exchange.arm, "response {id}");
        assert_eq!(response.data_length.get(), exchange.data_length, "response {id}");

        let mut built = Response::to(&exchange.request, 1, exchange.result);
        built.data_length = exchange.data_length.into();
        built.arm = exchange.arm;
        assert_eq!(built.as_bytes(), captured, "response {id}");
    }
}

#[test]
fn payload_follows_only_where_it_is_announced() {
    for exchange in exchanges() {
        let announced = match exchange.request.opcode {
            op::NEW_VDI => 256,
            op::GET_VDI_INFO | op::LOCK_VDI | op::DEL_VDI => 512,
            op::CREATE_AND_WRITE_OBJ | op::WRITE_OBJ => exchange.request.data_length.get(),
            op::GET_VDI_ATTR => ATTR_LEN as u32,
            _ => 0,
        };
        assert_eq!(exchange.request.payload_len(), announced, "{}", exchange.request.id);
    }
}

#[test]
fn arms_are_seen_through_their_accessors() {
    let response = |id: usize| Response::read_from_bytes(&headers("< ")[id - 1]).unwrap();
    assert_eq!(response(1).cluster_default().block_size_shift, 22);
    assert_eq!(response(2).vdi().vid(), Some(vid(0xed202b)));
    assert_eq!(response(6).vdi().vid(), None);
    assert_eq!(*response(13).obj(), ObjReply::default());
    let request = Request::read_from_bytes(&headers("> ")[16]).unwrap();
    assert_eq!(Oid(request.obj().cow_oid.get()), vid(0xed202b).data(0));
    assert_eq!(request.obj().offset.get(), 0);
}

/// The nonzero parts of the inode header below appendix A.
#[test]
fn the_captured_inode_header_is_understood() {
    let mut bytes = [0; size_of::<InodeHeader>()];
    for (at, part) in [
        (0x000, "616c706861"),
        (0x200, "486e3901 cfbb026b"),
        (0x218, "00000004 00000000"),
        (0x228, "00 00 01 16"),
        (0x22c, "01000000 2b20ed00 00000000"),
    ] {
        let part = hex(part);
        bytes[at..at + part.len()].copy_from_slice(&part);
    }
    let header = InodeHeader::read_from_bytes(&bytes).unwrap();
    assert_eq!(header.name(), b"alpha");
    assert_eq!(crate::time_to_ns(header.create_time.get()) / 1_000_000_000, 0x6b02_bbcf);
    assert_eq!(header.vdi_size.get(), 64 << 20);
    assert_eq!((header.copy_policy, header.store_policy), (0, 0));
    assert_eq!((header.nr_copies, header.block_size_shift), (1, 22));
    assert_eq!((header.snap_id.get(), header.vid()), (1, Some(vid(0xed202b))));
    assert!(!header.is_snapshot() && !header.is_deleted());
}

/// "Failed erasure-coded read": a failed response with a payload of junk.
#[test]
fn a_failed_read_can_have_a_payload() {
    let request = Request::read(vid(1).data(0), 0, 5);
    let mut response = Response::to(&request, 1, SdResult::SYSTEM_ERROR);
    response.data_length = 5.into();
    assert_eq!(response.as_bytes()[12..20], hex("05000000 06000000"));
}

#[test]
fn the_dumped_node_is_understood() {
    let mut bytes = hex("01000000 00000000 00000000 00000000 00000000 00000000");
    bytes.extend(hex("00000000 00000000 00000000 7f000001 d01b"));
    bytes.extend([0; 22]);
    bytes.extend(hex("8000 0000 7f000001 00901fc6 12000000"));
    let node = SdNode::read_from_bytes(&bytes).unwrap();
    let address: SocketAddr = "127.0.0.1:7120".parse().unwrap();
    assert_eq!(node.nid, NodeId::of(address));
    assert_eq!(node.nid.address(), address);
    assert_eq!(node.nr_vnodes.get(), 128);
    assert_eq!(node.zone.as_bytes(), [127, 0, 0, 1]);
    assert_eq!(node.space.get(), 0x12_c61f_9000);
    assert_eq!(admin::nodes(&bytes).count(), 1);
}

#[test]
fn the_dumped_epoch_is_understood() {
    let mut bytes = hex("5002bc28 17ba026b 00000000 00000000 01000000 00000000");
    bytes.extend(hex("00 02 00 000000 0500 706c6169 6e000000 00000000 00000000"));
    let log = EpochLog::read_from_bytes(&bytes).unwrap();
    assert_eq!(log.ctime.get() >> 32, 0x6b02_ba17);
    assert_eq!((log.time.get(), log.epoch.get(), log.nr_nodes.get()), (0, 1, 0));
    assert_eq!((log.disable_recovery, log.nr_copies, log.copy_policy), (0, 2, 0));
    assert_eq!(log.flags.get(), op::cluster_flag::STRICT | op::cluster_flag::AUTO_VNODES);
    assert_eq!(crate::field_text(&log.drv_name), b"plain");
}

#[test]
fn the_dumped_cluster_infos_are_understood() {
    let mut bytes = hex("0a 00 0100 01000000 d875f331 beb8026b 0c00 01 00 01 16 000000");
    bytes.extend(b"plain");
    bytes.resize(48, 0);
    let info = ClusterInfo::read_from_bytes(&bytes).unwrap();
    assert_eq!((info.proto_ver, info.nr_nodes.get(), info.epoch.get()), (0x0a, 1, 1));
    assert_eq!(info.ctime.get() >> 32, 0x6b02_b8be);
    assert_eq!(info.flags.get(), op::cluster_flag::AUTO_VNODES | op::cluster_flag::USE_LOCK);
    assert_eq!((info.nr_copies, info.status, info.block_size_shift), (1, status::OK, 22));
    assert_eq!(crate::field_text(&info.default_store), b"plain");

    let mut bytes = hex("0a00 0000 00000000 00000000 00000000 0400 00 00 02 00");
    bytes.resize(48, 0);
    let info = ClusterInfo::read_from_bytes(&bytes).unwrap();
    assert_eq!((info.ctime.get(), info.status), (0, status::WAIT));
}

#[test]
fn admin_requests_are_built_as_dumped() {
    let format = ClusterArm {
        copies: 1,
        flags: op::cluster_flag::AUTO_VNODES.into(),
        ..ClusterArm::default()
    };
    let arm: [u8; 32] = format.into();
    assert_eq!(arm[..8], [0; 8]);
    assert_eq!(arm[16..], hex("01 00 0400 00000000 00000000 00 000000"));

    let load = VdiStateArm {
        new_vid: 0x6a5c63.into(),
        copies: 1,
        set_bitmap: 1,
        block_size_shift: 22,
        ..VdiStateArm::default()
    };
    let arm: [u8; 32] = load.into();
    assert_eq!(arm[..12], hex("00000000 635c6a00 01 01 00 16"));

    assert_eq!(admin::get_node_list().data_length.get(), 491_520);
    assert_eq!(admin::cluster_info().data_length.get(), 491_568);
    assert_eq!(admin::md_info().data_length.get(), 263_688);
    assert_eq!(admin::stat().data_length.get(), 120);
    assert_eq!(admin::stat_cluster(1, 0).data_length.get(), 48);
    assert_eq!(admin::stat_cluster(1, 1).data_length.get(), 128);
    assert_eq!(admin::of_object(op::EXIST, vid(1).data(2), 1).obj().tgt_epoch.get(), 1);
}

#[test]
fn the_dumped_lock_is_understood() {
    let mut state = VdiState { vid: 0xa452e3.into(), ..VdiState::default() };
    state.lock_state = lock_state::LOCKED.into();
    let mut owner = vec![0; 12];
    owner.extend(hex("7f000001 c61b"));
    owner.resize(40, 0);
    state.lock_owner = NodeId::read_from_bytes(&owner).unwrap();
    assert_eq!(state.lock_owner.address(), "127.0.0.1:7110".parse().unwrap());
    assert_eq!(state.as_bytes()[..4], hex("e352a400"));
    assert_eq!(state.as_bytes()[16..20], U32::new(2).to_bytes());
}
