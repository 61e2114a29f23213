//! What `dog` asks (4.13, 4.15, 6.2), versions and opcodes (4.1).

mod common;

use common::{Client, Lamb, OBJECT, vid};
use sheepdog_proto::admin::{
    self, ClusterInfo, EpochLog, NodeId, SdNode, SdStat, VdiState, lock_state, status,
};
use sheepdog_proto::header::{ClusterArm, VdiStateArm};
use sheepdog_proto::op::{self, FLAG_PIGGYBACK, FLAG_WRITE, cluster_flag};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{Oid, Request, SdResult, field_text};

const OK: SdResult = SdResult::SUCCESS;
const BAD: SdResult = SdResult::INVALID_PARMS;

fn plain(opcode: u8, room: u32) -> Request {
    Request::new(opcode, 0, [0; 32]).with_length(room)
}

fn get(c: &mut Client, request: Request) -> Vec<u8> {
    let (response, data) = c.call(request, &[]);
    assert_eq!(response.result(), OK);
    data
}

#[test]
fn versions_and_opcodes_are_checked_before_anything_else() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let with = |opcode, proto_ver, len| Request { proto_ver, ..plain(opcode, len) };
    for version in [0, 1, 2] {
        assert_eq!(c.result(with(op::GET_CLUSTER_DEFAULT, version, 0), &[]), OK);
    }
    assert_eq!(c.result(with(op::GET_CLUSTER_DEFAULT, 3, 0), &[]), SdResult::VER_MISMATCH);
    assert_eq!(c.result(with(0x60, 3, 0), &[]), SdResult::VER_MISMATCH);
    assert_eq!(c.result(with(op::STAT, 2, 120), &[]), SdResult::VER_MISMATCH);
    assert_eq!(c.result(with(0x60, 1, 0), &[]), BAD);
    assert_eq!(c.result(with(0xff, 10, 0), &[]), BAD);
    // A payload is consumed, whatever becomes of its request.
    assert_eq!(c.result(with(0x60, 3, 0), &[1; 1000]), SdResult::VER_MISMATCH);
    assert_eq!(c.result(with(0x60, 1, 0), &[1; 100_000]), BAD);
    assert_eq!(c.result(with(op::GET_CLUSTER_DEFAULT, 1, 0), &[]), OK);
}

#[test]
fn the_epoch_is_that_of_a_formatted_cluster() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let (response, _) = c.call(plain(op::GET_CLUSTER_DEFAULT, 0), &[]);
    assert_eq!(response.epoch.get(), 1);
    let defaults = response.cluster_default();
    assert_eq!((defaults.nr_copies, defaults.copy_policy, defaults.block_size_shift), (1, 0, 22));
}

#[test]
fn the_node_is_where_the_client_found_it() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let (response, data) = c.call(admin::get_node_list(), &[]);
    assert_eq!((response.result(), response.node().nr_nodes.get()), (OK, 1));
    let nodes: Vec<&SdNode> = admin::nodes(&data).collect();
    assert_eq!((nodes.len(), data.len()), (1, 80));
    assert_eq!(nodes[0].nid.address(), lamb.address());
    assert_eq!((nodes[0].nr_vnodes.get(), nodes[0].zone.get()), (128, 0x0100_007f));
    assert!(nodes[0].space.get() > 0);
    assert_eq!(c.result(plain(op::GET_NODE_LIST, 79), &[]), SdResult::BUFFER_SMALL);
}

#[test]
fn the_cluster_is_described_as_formatted() {
    let lamb = Lamb::with(|options| options.use_lock = true);
    let mut c = lamb.client();
    let data = get(&mut c, admin::cluster_info());
    assert_eq!(data.len(), 491_568);
    let (info, rest) = ClusterInfo::ref_from_prefix(&data).unwrap();
    assert_eq!((info.proto_ver, info.nr_nodes.get(), info.epoch.get()), (10, 1, 1));
    assert_eq!(info.flags.get(), cluster_flag::AUTO_VNODES | cluster_flag::USE_LOCK);
    assert_eq!((info.nr_copies, info.block_size_shift, info.status), (1, 22, status::OK));
    assert_ne!(info.ctime.get(), 0);
    assert_eq!(field_text(&info.default_store), b"plain");
    assert_eq!(admin::nodes(rest).next().unwrap().nid.address(), lamb.address());
    assert_eq!(c.result(plain(op::CLUSTER_INFO, 48), &[]), SdResult::BUFFER_SMALL);

    let log = get(&mut c, admin::stat_cluster(1, 0));
    let log = EpochLog::read_from_bytes(&log).unwrap();
    assert_eq!((log.ctime, log.time.get(), log.nr_nodes.get()), (info.ctime, 0, 0));
    let data = get(&mut c, admin::stat_cluster(1, 1));
    let (log, rest) = EpochLog::ref_from_prefix(&data).unwrap();
    assert_eq!((log.epoch.get(), log.nr_nodes.get(), rest.len()), (1, 1, 80));
    assert_eq!(log.time.get(), info.ctime.get() >> 32);
    // Room for more epochs than there are, and for more nodes.
    assert_eq!(get(&mut c, admin::stat_cluster(5, 1)).len(), 128);
    assert_eq!(get(&mut c, admin::stat_cluster(1, 3)).len(), 48 + 3 * 80);
    assert_eq!(get(&mut c, plain(op::STAT_CLUSTER, 47)).len(), 0);
    let arm = ClusterArm { nodes_nr: u32::MAX.into(), ..ClusterArm::default() };
    assert_eq!(get(&mut c, Request::new(op::STAT_CLUSTER, 0, arm).with_length(48)).len(), 0);
}

#[test]
fn formatting_starts_anew() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let arm = ClusterArm {
        ctime: (7 << 32).into(),
        copies: 3,
        flags: (cluster_flag::USE_LOCK | cluster_flag::DISKMODE).into(),
        block_size_shift: 24,
        ..ClusterArm::default()
    };
    let format = Request::new(op::MAKE_FS, FLAG_WRITE, arm);
    assert_eq!(c.result(format, b"farm\0"), SdResult::NO_STORE);
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.result(format, b"tree\0"), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(c.vdis(op::READ_VDIS), []);
    for restarted in [false, true] {
        if restarted {
            lamb.restart();
        }
        let mut c = lamb.client();
        let data = get(&mut c, admin::cluster_info());
        let (info, _) = ClusterInfo::ref_from_prefix(&data).unwrap();
        assert_eq!((info.ctime.get(), info.nr_copies, info.block_size_shift), (7 << 32, 3, 24));
        assert_eq!(info.flags.get(), cluster_flag::AUTO_VNODES | cluster_flag::USE_LOCK);
        assert_eq!(field_text(&info.default_store), b"tree");
    }
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!((c.header(v).nr_copies, c.header(v).block_size_shift), (3, 24));
}

#[test]
fn formatting_does_not_spoil_what_comes_after() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let format =
        Request::new(op::MAKE_FS, FLAG_WRITE, ClusterArm { copies: 1, ..Default::default() });
    for i in 0..20 {
        let v = c.vdi("alpha", 16);
        c.allocate(v, 0, &[i]);
        let w = c.snapshot("alpha", v, "s");
        assert_eq!(c.read(w.inode(), 0, 5), Ok(b"alpha".to_vec()));
        assert_eq!(c.result(format, b"plain\0"), OK);
    }
    assert_eq!(lamb.data_objects(), []);
}

#[test]
fn objects_can_be_asked_for() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[]);
    let exist = |oid| admin::of_object(op::EXIST, oid, 1);
    assert_eq!(c.result(exist(v.data(0)), &[]), OK);
    assert_eq!(c.result(exist(v.data(1)), &[]), SdResult::NO_OBJ);

    let (response, _) = c.call(admin::of_object(op::GET_HASH, v.data(0), 1), &[]);
    // SHA-1 of 4 MiB of zeros (4.15).
    let hex: String = response.hash().digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "2bccbd2f38f15c13eb7d5a89fd9d85f595e23bc3");
    assert_eq!(c.result(admin::of_object(op::GET_HASH, v.data(1), 1), &[]), SdResult::NO_OBJ);

    let ask = |c: &mut Client, oids: &[u64]| {
        let payload: Vec<u8> = oids.iter().flat_map(|oid| oid.to_le_bytes()).collect();
        let request = Request::new(op::OIDS_EXIST, FLAG_WRITE | FLAG_PIGGYBACK, [0; 32]);
        let (response, data) = c.call(request, &payload);
        (response.result(), data)
    };
    assert_eq!(ask(&mut c, &[v.data(0).0, v.inode().0]), (OK, vec![]));
    let missing = v.data(9).0;
    let answer = ask(&mut c, &[v.data(0).0, missing]);
    assert_eq!(answer, (SdResult::NO_OBJ, missing.to_le_bytes().to_vec()));

    let list = get(&mut c, plain(op::GET_OBJ_LIST, 4096));
    let mut list: Vec<u64> =
        list.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
    list.sort_unstable();
    assert_eq!(list, [v.data(0).0, v.inode().0]);
    assert_eq!(c.result(plain(op::GET_OBJ_LIST, 8), &[]), SdResult::BUFFER_SMALL);
}

#[test]
fn vdi_states_come_in_order() {
    let lamb = Lamb::with(|options| options.use_lock = true);
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    let w = c.snapshot("alpha", v, "s");
    c.vdi("zero", 1);
    c.delete("zero", "", 0).unwrap();
    c.look_up(op::LOCK_VDI, "alpha", "", 0).unwrap();
    let data = get(&mut c, plain(op::GET_VDI_COPIES, 731_136));
    let states = <[VdiState]>::ref_from_bytes(&data).unwrap();
    let mut sorted = states.to_vec();
    sorted.sort_by_key(|state| state.vid.get());
    assert_eq!(states, sorted);
    let of = |vid: u32| states.iter().find(|state| state.vid.get() == vid).unwrap();
    let (old, new) = (of(v.get()), of(w.get()));
    assert_eq!((old.snapshot, old.deleted, old.lock_state.get()), (1, 0, lock_state::UNLOCKED));
    assert_eq!((new.snapshot, new.parent_vid.get()), (0, v.get()));
    assert_eq!(new.lock_state.get(), lock_state::LOCKED);
    assert_eq!(new.lock_owner, NodeId::of(lamb.address()));
    assert_eq!(states.iter().filter(|state| state.deleted == 1).count(), 1);
    assert_eq!(c.result(plain(op::GET_VDI_COPIES, 1428), &[]), SdResult::BUFFER_SMALL);
}

#[test]
fn the_node_tells_about_itself() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1; 1000]);
    c.read(v.data(0), 0, 500).unwrap();
    let stat = get(&mut c, admin::stat());
    let stat = SdStat::read_from_bytes(&stat).unwrap();
    assert_eq!((stat.gateway_reads.get(), stat.gateway_writes.get()), (1, 2));
    assert_eq!((stat.gateway_rx.get(), stat.gateway_tx.get()), (1004, 500));
    let (total, active) = (stat.gateway_total.get(), stat.gateway_active.get());
    assert_eq!((total, active), (3, 0), "what is asked about the node is not counted");
    let (response, _) = c.call(plain(op::STAT_SHEEP, 0), &[]);
    let node = response.node();
    assert!(node.store_size.get() > OBJECT && node.store_free.get() <= node.store_size.get());
    let md = get(&mut c, admin::md_info());
    assert_eq!(md[md.len() - 8..], 1u64.to_le_bytes());
    assert_eq!(field_text(&md[24..4120]), lamb.options.dir.to_str().unwrap().as_bytes());
    assert_eq!(c.result(plain(op::MD_INFO, 4120), &[]), BAD);
    assert_eq!(get(&mut c, plain(op::GET_STORE_LIST, 512)), b"tree plain \0");
    assert_eq!(get(&mut c, plain(op::STAT_RECOVERY, 24)), [0; 24]);
    assert_eq!(get(&mut c, plain(op::GET_VNODES, 4)), 128u32.to_le_bytes());
    let mut throttling = [0; 24];
    throttling[0] = 9;
    assert_eq!(c.result(plain(op::SET_RECOVERY, 0), &throttling), OK);
    assert_eq!(get(&mut c, plain(op::GET_RECOVERY, 24)), throttling);
    let set_vnodes = Request::new(op::SET_VNODES, FLAG_WRITE, [0; 32]);
    assert_eq!(c.result(set_vnodes, &[1, 0, 0, 0]), SdResult::INVALID_VNODES_STRATEGY);
}

#[test]
fn locking_by_option_outlasts_formatting_but_not_the_option() {
    let mut lamb = Lamb::with(|options| options.use_lock = true);
    let flags = |lamb: &Lamb| {
        let data = get(&mut lamb.client(), admin::cluster_info());
        ClusterInfo::ref_from_prefix(&data).unwrap().0.flags.get()
    };
    let arm = ClusterArm { copies: 1, ..ClusterArm::default() };
    let mut c = lamb.client();
    assert_eq!(c.result(Request::new(op::MAKE_FS, FLAG_WRITE, arm), b"plain\0"), OK);
    assert_eq!(c.result(plain(op::DISABLE_RECOVER, 0), &[]), OK);
    assert_eq!(flags(&lamb), cluster_flag::AUTO_VNODES | cluster_flag::USE_LOCK);
    lamb.options.use_lock = false;
    lamb.restart();
    assert_eq!(flags(&lamb), cluster_flag::AUTO_VNODES);
}

#[test]
fn the_log_level_is_what_was_set() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    for level in [3i32, 5, 6] {
        assert_eq!(c.result(plain(op::SET_LOGLEVEL, 0), &level.to_le_bytes()), OK);
        assert_eq!(get(&mut c, plain(op::GET_LOGLEVEL, 4)), level.to_le_bytes());
    }
    assert_eq!(c.result(plain(op::SET_LOGLEVEL, 0), &9i32.to_le_bytes()), BAD);
}

#[test]
fn the_only_epoch_can_be_asked_for() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let at = |epoch| admin::of_object(op::GET_EPOCH, Oid(0), epoch).with_length(500);
    let data = get(&mut c, at(1));
    assert_eq!(data.len(), 88);
    assert_eq!(admin::nodes(&data).next().unwrap().nid.address(), lamb.address());
    assert_eq!(c.result(at(2), &[]), SdResult::NO_TAG);
}

#[test]
fn settings_are_taken_and_kept() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let copies = ClusterArm { copies: 2, ..ClusterArm::default() };
    assert_eq!(c.result(Request::new(op::ALTER_CLUSTER_COPY, 0, copies), &[]), OK);
    assert_eq!(c.result(plain(op::DISABLE_RECOVER, 0), &[]), OK);
    lamb.restart();
    let mut c = lamb.client();
    let data = get(&mut c, admin::cluster_info());
    let (info, _) = ClusterInfo::ref_from_prefix(&data).unwrap();
    assert_eq!((info.nr_copies, info.disable_recovery), (2, 1));
    assert_eq!(c.result(plain(op::ENABLE_RECOVER, 0), &[]), OK);
    let v = c.vdi("alpha", 1);
    let alter = |vid: u32| {
        let arm = VdiStateArm { new_vid: vid.into(), copies: 2, ..VdiStateArm::default() };
        Request::new(op::ALTER_VDI_COPY, 0, arm)
    };
    assert_eq!(c.result(alter(v.get()), &[]), OK);
    assert_eq!(c.result(alter(vid(5).get()), &[]), SdResult::NO_VDI);
}

#[test]
fn what_there_is_nothing_to_do_for_succeeds() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    for opcode in [op::DELETE_CACHE, op::FLUSH_DEL_CACHE, op::REWEIGHT] {
        assert_eq!(c.result(plain(opcode, 0), &[]), OK, "{}", op::name(opcode));
    }
    assert_eq!(c.result(plain(op::REPAIR_REPLICA, 0), &[]), SdResult::NO_SUPPORT);
}

#[test]
fn a_client_can_end_the_server() {
    for opcode in [op::SHUTDOWN, op::KILL_NODE] {
        let mut lamb = Lamb::start();
        let mut c = lamb.client();
        let address = lamb.address();
        assert_eq!(c.result(plain(opcode, 0), &[]), OK);
        lamb.server.take().unwrap().wait();
        assert!(std::net::TcpStream::connect(address).is_err());
        lamb.server = Some(lamb::Server::start(&lamb.options).unwrap());
        assert_eq!(lamb.client().result(plain(op::GET_CLUSTER_DEFAULT, 0), &[]), OK);
    }
}
