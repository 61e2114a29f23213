//! NEW_VDI, lookups, DEL_VDI, locks, lists (4.2, 4.9 to 4.12, 6.3).

mod common;

use common::{Lamb, OBJECT, SHIFT, vid};
use sheepdog_proto::header::{VdiArm, VdiStateArm};
use sheepdog_proto::inode::{INODE_LEN, MAP_OFFSET, STORE_BTREE, TAG_OFFSET};
use sheepdog_proto::op::{self, FLAG_WRITE, LOCK_NORMAL, LOCK_SHARED};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{InodeHeader, Request, SdResult, Vid, btree, erasure_policy, name_field};

const OK: SdResult = SdResult::SUCCESS;
const BAD: SdResult = SdResult::INVALID_PARMS;

#[test]
fn a_new_vdi_is_what_was_asked_for() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(v, vid(0xed202b));
    let header = c.header(v);
    assert_eq!((header.name(), header.tag()), (&b"alpha"[..], &b""[..]));
    assert_eq!(header.vdi_size.get(), 16 * OBJECT);
    assert_eq!((header.nr_copies, header.block_size_shift), (1, SHIFT));
    assert_eq!((header.snap_id.get(), header.vid(), header.parent_vdi_id.get()), (1, Some(v), 0));
    assert!(header.create_time.get() != 0 && !header.is_snapshot());
    assert_eq!(c.entries(v, 16), [0; 16]);
    assert_eq!(c.read(v.inode(), INODE_LEN - 1, 1), Ok(vec![0]));
    assert_eq!(c.new_vdi("alpha", VdiArm::default()), Err(SdResult::VDI_EXIST));
}

#[test]
fn geometry_is_checked() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let arm = |size: u64, shift, store_policy| VdiArm {
        vdi_size: size.into(),
        block_size_shift: shift,
        store_policy,
        ..VdiArm::default()
    };
    for (size, shift, store) in
        [(0, 8, 0), (0, 32, 0), ((1 << 42) + 1, 22, 0), (1, 22, 2), ((1 << 54) + 1, 22, 1)]
    {
        assert_eq!(c.new_vdi("a", arm(size, shift, store)), Err(BAD), "{size} {shift} {store}");
    }
    assert!(c.new_vdi("largest", arm(1 << 42, 22, 0)).is_ok());
    assert!(c.new_vdi("hyper", arm(1 << 54, 22, 1)).is_ok());

    let coded = |copies, copy_policy| VdiArm { copies, copy_policy, ..VdiArm::default() };
    // A policy without parity ends the real server (4.2).
    assert_eq!(c.new_vdi("b", coded(1, 0x20)), Err(BAD));
    let v = c.new_vdi("coded", coded(1, erasure_policy(4, 2).unwrap())).unwrap();
    assert_eq!((c.header(v).nr_copies, c.header(v).copy_policy), (6, 0x22));
    let v = c.new_vdi("ignored", coded(0, 0x20)).unwrap();
    assert_eq!((c.header(v).nr_copies, c.header(v).copy_policy), (1, 0));
}

#[test]
fn names_end_within_their_field() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let longest = "x".repeat(255);
    let v = c.vdi(&longest, 1);
    assert_eq!(c.info(&longest, "", 0), Ok(v));
    assert_eq!(c.vdi_op(op::NEW_VDI, VdiArm::default(), &[b'x'; 256]), Err(BAD));
    assert_eq!(c.vdi_op(op::NEW_VDI, VdiArm::default(), b"short"), Err(BAD));
    assert_eq!(c.vdi_op(op::NEW_VDI, VdiArm::default(), &[0; 257]), Err(BAD));
    let mut junk = name_field(b"alpha").unwrap();
    junk[10] = b'!';
    let v = c.vdi_op(op::NEW_VDI, VdiArm::default(), &junk).unwrap();
    assert_eq!(c.info("alpha", "", 0), Ok(v), "what follows the name's end does not count");
    assert_eq!(c.header(v).name, name_field(b"alpha").unwrap());
    assert_eq!(c.info("", "", 0), Err(SdResult::NO_VDI));
}

#[test]
fn an_empty_name_makes_a_vdi_that_the_next_start_forgets() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("", 1);
    assert_eq!(v, vid(0x222325));
    assert_eq!(c.info("", "", 0), Err(SdResult::NO_VDI));
    assert_eq!(c.vdis(op::READ_DEL_VDIS), []);
    lamb.restart();
    assert_eq!(lamb.client().vdis(op::READ_DEL_VDIS), [v.get()]);
}

#[test]
fn ids_follow_the_hash_and_pass_over_used_ones() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    assert_eq!(c.vdi("alpha", 1), vid(0xed202b));
    assert_eq!(c.vdi("vol7646017", 1), vid(0xed202c));
    assert_eq!(c.vdi("vol31448154", 1), vid(1));
    assert_eq!(c.vdi("vol21720182", 1), vid(0xffffff));
    // Past the end they go on at 1, which is taken.
    assert_eq!(c.snapshot("vol21720182", vid(0xffffff), "s"), vid(2));
    assert_eq!(c.snapshot("alpha", vid(0xed202b), "s"), vid(0xed202d));
    assert_eq!(c.info("alpha", "", 0), Ok(vid(0xed202d)));
    assert_eq!(c.info("alpha", "s", 0), Ok(vid(0xed202b)));
    assert_eq!(c.info("vol7646017", "", 0), Ok(vid(0xed202c)));
    assert_eq!(c.info("vol21720182", "", 0), Ok(vid(2)));
    assert_eq!(c.info("vol21720182", "", 1), Ok(vid(0xffffff)));
    // Not even a deleted one is used again.
    assert_eq!(c.delete("alpha", "", 0), Ok(vid(0xed202d)));
    assert_eq!(c.vdi("alpha", 1), vid(0xed202e));
}

#[test]
fn snapshots_are_found_by_tag_or_number() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let first = c.vdi("alpha", 1);
    assert_eq!(c.info("alpha", "s1", 0), Err(SdResult::NO_TAG));
    assert_eq!(c.info("beta", "s1", 0), Err(SdResult::NO_VDI));
    let second = c.snapshot("alpha", first, "s1");
    let third = c.snapshot("alpha", second, "s2");
    let fourth = c.snapshot("alpha", third, "s1");
    assert_eq!(c.header(fourth).snap_id.get(), 4);
    assert_eq!(c.info("alpha", "s2", 0), Ok(second));
    assert_eq!(c.info("alpha", "s1", 0), Ok(third), "of two the newest");
    assert_eq!(c.info("alpha", "", 1), Ok(first));
    assert_eq!(c.info("alpha", "none", 2), Ok(second), "either is enough");
    assert_eq!(c.info("alpha", "none", 9), Err(SdResult::NO_TAG));
    assert_eq!(c.info("alpha", "", 4), Err(SdResult::NO_TAG), "the working VDI is no snapshot");
    assert_eq!(c.delete("alpha", "", 0), Ok(fourth));
    assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
    assert_eq!(c.info("alpha", "none", 0), Err(SdResult::NO_VDI));
    assert_eq!(c.info("alpha", "s2", 0), Ok(second));
    let fresh = c.vdi("alpha", 1);
    assert_eq!(c.header(fresh).snap_id.get(), 4, "numbers can repeat a deleted one");
}

#[test]
fn lookups_take_a_name_with_or_without_a_tag() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    let name = name_field(b"alpha").unwrap();
    for opcode in [op::GET_VDI_INFO, op::LOCK_VDI] {
        assert_eq!(c.vdi_op(opcode, VdiArm::default(), &name), Ok(v));
        for len in [0, 255, 257, 511, 513] {
            let mut payload = name.to_vec();
            payload.resize(len, 0);
            assert_eq!(c.vdi_op(opcode, VdiArm::default(), &payload), Err(BAD), "{len}");
        }
        assert_eq!(c.result(Request::new(opcode, 0, [0; 32]).with_length(512), &[]), BAD);
    }
}

#[test]
fn a_snapshot_freezes_and_its_successor_inherits() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    c.allocate(v, 9, &[9]);
    let w = c.snapshot("alpha", v, "s");
    let (old, new) = (c.header(v), c.header(w));
    assert_eq!(old.tag(), b"s");
    assert_eq!(old.snap_ctime, new.create_time);
    assert_eq!((new.tag(), new.parent_vdi_id.get(), new.snap_ctime.get()), (&b""[..], v.get(), 0));
    assert_eq!(new.vdi_size, old.vdi_size);
    let mut map = [0; 16];
    (map[0], map[9]) = (v.get(), v.get());
    assert_eq!(c.entries(v, 16), map);
    assert_eq!(c.entries(w, 16), map);
}

#[test]
fn a_base_gives_what_the_request_leaves_out() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let arm = VdiArm { vdi_size: 4096.into(), block_size_shift: 20, ..VdiArm::default() };
    let v = c.new_vdi("alpha", arm).unwrap();
    let bare = |base: Vid, snapid: u32| VdiArm {
        base_vdi_id: base.get().into(),
        snapid: snapid.into(),
        ..VdiArm::default()
    };
    let w = c.new_vdi("alpha", bare(v, 1)).unwrap();
    assert_eq!((c.header(w).vdi_size.get(), c.header(w).block_size_shift), (4096, 20));
    let x = c.new_vdi("gamma", bare(v, 0)).unwrap();
    assert_eq!((c.header(x).vdi_size.get(), c.header(x).block_size_shift), (4096, 20));
    let other = VdiArm { block_size_shift: 22, ..bare(v, 0) };
    assert_eq!(c.new_vdi("delta", other), Err(BAD), "objects of another size");
}

#[test]
fn only_snapshots_can_be_cloned() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 3, &[3]);
    assert_eq!(c.branch("gamma", v, 0), Err(BAD));
    c.snapshot("alpha", v, "s");
    let x = c.branch("gamma", v, 0).unwrap();
    assert_eq!(c.entries(x, 4), [0, 0, 0, v.get()]);
    assert_eq!((c.header(x).snap_id.get(), c.header(x).parent_vdi_id.get()), (1, v.get()));
    assert_eq!(c.branch("gamma", v, 0), Err(SdResult::VDI_EXIST));
    let missing = VdiArm { base_vdi_id: 0x123456.into(), ..VdiArm::default() };
    assert_eq!(c.new_vdi("delta", missing), Err(SdResult::BASE_VDI_READ));
    let wild = VdiArm { base_vdi_id: u32::MAX.into(), ..VdiArm::default() };
    assert_eq!(c.new_vdi("delta", wild), Err(SdResult::BASE_VDI_READ));
    assert_eq!(c.info("delta", "", 0), Err(SdResult::NO_VDI), "nothing was created");
    assert_eq!(c.delete("alpha", "s", 0), Ok(v));
    assert_eq!(c.branch("delta", v, 0), Err(SdResult::BASE_VDI_READ), "deleted");
    // The clone's objects outlive the snapshot's name.
    assert_eq!(c.read(v.data(3), 0, 1), Ok(vec![3]));
    assert_eq!(
        c.new_vdi("nothing", VdiArm { snapid: 1.into(), ..VdiArm::default() }),
        Err(SdResult::NO_VDI)
    );
}

#[test]
fn a_rebase_freezes_the_working_vdi_and_starts_from_a_snapshot() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[2]), OK);
    assert_eq!(c.map(w, 0, &[w]), OK);
    c.allocate(w, 1, &[3]);
    let x = c.branch("alpha", v, 1).unwrap();
    assert_eq!(c.entries(x, 2), [v.get(), 0]);
    assert!(c.header(w).is_snapshot());
    assert_eq!(c.header(x).snap_id.get(), 3);
    assert_eq!(c.info("alpha", "", 0), Ok(x));
    assert_eq!(c.info("alpha", "", 2), Ok(w));
    // The working state before it survives, until it is deleted by its number (5.10).
    assert_eq!(c.read(w.data(1), 0, 1), Ok(vec![3]));
    assert_eq!(c.delete("alpha", "", 2), Ok(w));
    assert_eq!(c.read(w.data(1), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(lamb.data_objects(), [(v.get(), 0)]);
}

#[test]
fn a_deleted_vdi_is_gone_with_everything_that_was_its_own() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    (0..5).for_each(|i| c.allocate(v, i, &[1]));
    assert_eq!(c.create(v.data(7), 0, &[1]), OK, "never mapped");
    assert_eq!(c.create(v.vmstate(0), 0, &[1]), OK);
    let header = c.header(v);
    assert_eq!(c.delete("alpha", "", 0), Ok(v));
    assert_eq!(c.delete("alpha", "", 0), Err(SdResult::NO_VDI));
    assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
    assert_eq!(lamb.data_objects(), []);
    assert_eq!(c.read(v.vmstate(0), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!((c.vdis(op::READ_VDIS), c.vdis(op::READ_DEL_VDIS)), (vec![v.get()], vec![v.get()]));
    // What stays of the inode (3.5).
    let left = InodeHeader { name: [0; 256], vdi_size: 0.into(), ..header };
    assert_eq!(c.header(v), left);
    assert_eq!(c.entries(v, 16), [0; 16]);
    assert_eq!(c.create(v.data(0), 0, &[1]), SdResult::READONLY, "for whom");
    assert_eq!(c.map(v, 0, &[v]), SdResult::READONLY);
}

#[test]
fn deleting_a_snapshot_spares_what_others_need() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    (0..3).for_each(|i| c.allocate(v, i, &[i as u8]));
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[9]), OK);
    assert_eq!(c.map(w, 0, &[w, Vid::NONE]), OK);
    assert_eq!(c.delete("alpha", "s", 0), Ok(v));
    assert_eq!(lamb.data_objects(), [(v.get(), 2), (w.get(), 0)]);
    assert_eq!(c.delete("alpha", "", 0), Ok(w));
    assert_eq!(lamb.data_objects(), []);
}

#[test]
fn a_hypervolume_starts_with_an_empty_tree_and_ends_completely() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let arm =
        VdiArm { vdi_size: (8u64 << 40).into(), store_policy: STORE_BTREE, ..VdiArm::default() };
    let v = c.new_vdi("hyper", arm).unwrap();
    assert_eq!(c.read(v.inode(), MAP_OFFSET, 8), Ok(btree::EMPTY_ROOT.to_vec()));
    let far = 1 << 21;
    assert_eq!(c.create(v.data(far), 0, &[1]), OK);
    let mut leaves = Vec::new();
    btree::set_leaf(&mut leaves, far, v);
    let mut image = c.read(v.inode(), 0, MAP_OFFSET).unwrap();
    image.extend(btree::encode_leaves(&leaves));
    assert_eq!(c.write(v.inode(), 0, &image), OK);
    assert_eq!(c.create(v.btree(0), 0, &btree::EMPTY_ROOT), OK);
    assert_eq!(c.read(v.data(far), 0, 1), Ok(vec![1]));
    assert_eq!(c.discard(v.data(far)), BAD, "its tree is the client's");
    assert_eq!(c.branch("hyper", v, 1), Err(BAD), "its objects cannot be shared");
    assert_eq!(c.delete("hyper", "", 0), Ok(v));
    assert_eq!(lamb.data_objects(), []);
    assert_eq!(c.read(v.btree(0), 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn everything_but_locks_survives_a_restart() {
    let mut lamb = Lamb::with(|options| options.use_lock = true);
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let w = c.snapshot("alpha", v, "s");
    let gone = c.vdi("gone", 1);
    assert_eq!(c.delete("gone", "", 0), Ok(gone));
    let arm = VdiArm { store_policy: STORE_BTREE, ..VdiArm::default() };
    let hyper = c.new_vdi("hyper", arm).unwrap();
    assert_eq!(c.create(hyper.data(5), 0, &[1]), OK);
    // Orphans, for which nobody can come back after the server has ended.
    assert_eq!(c.create(w.data(1), 0, &[1]), OK);
    assert_eq!(c.create(gone.vmstate(0), 0, &[1]), OK);
    assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "", 0), Ok(w));
    let before = (c.vdis(op::READ_VDIS), c.vdis(op::READ_DEL_VDIS), c.header(v), c.header(w));
    lamb.restart();
    let mut c = lamb.client();
    let after = (c.vdis(op::READ_VDIS), c.vdis(op::READ_DEL_VDIS), c.header(v), c.header(w));
    assert_eq!(before, after);
    assert_eq!(lamb.data_objects(), [(hyper.get(), 5), (v.get(), 0)]);
    assert_eq!(c.read(gone.vmstate(0), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(c.create(v.data(1), 0, &[1]), SdResult::READONLY);
    assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "", 0), Ok(w));
    // References were counted again.
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.map(w, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn locks_exclude_each_other() {
    let lamb = Lamb::with(|options| options.use_lock = true);
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    let mut lock = |kind: u32| {
        let payload = [name_field(b"alpha").unwrap(), [0; 256]].concat();
        let arm = VdiArm { lock_type: kind.into(), ..VdiArm::default() };
        let request = Request::new(op::LOCK_VDI, FLAG_WRITE, arm);
        let (response, _) = c.call(request, &payload);
        assert_eq!(response.vdi().vdi_id.get(), v.get(), "also where it is locked");
        response.result()
    };
    let mut other = lamb.client();
    let mut release = |vid: u32, kind: u32| {
        let arm = VdiArm { base_vdi_id: vid.into(), lock_type: kind.into(), ..VdiArm::default() };
        assert_eq!(other.result(Request::new(op::RELEASE_VDI, 0, arm), &[]), OK);
    };
    let locked = SdResult::VDI_LOCKED;
    assert_eq!([lock(LOCK_NORMAL), lock(LOCK_NORMAL), lock(LOCK_SHARED)], [OK, locked, locked]);
    release(v.get(), LOCK_SHARED);
    release(0x123456, LOCK_NORMAL);
    release(v.get(), 7);
    assert_eq!(lock(LOCK_NORMAL), locked, "released otherwise, or another one");
    release(v.get(), LOCK_NORMAL);
    assert_eq!([lock(LOCK_SHARED), lock(LOCK_SHARED), lock(LOCK_NORMAL)], [OK, locked, locked]);
    release(v.get(), LOCK_SHARED);
    assert_eq!(lock(7), locked, "no such type");
    assert_eq!(lock(LOCK_NORMAL), OK);
}

#[test]
fn a_snapshot_keeps_the_lock_and_its_successor_has_none() {
    let lamb = Lamb::with(|options| options.use_lock = true);
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "", 0), Ok(v));
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "", 0), Ok(w));
    assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "s", 0), Err(SdResult::VDI_LOCKED));
    assert_eq!(c.delete("alpha", "", 0), Ok(w), "locks are advisory");
}

#[test]
fn without_locking_a_lock_is_a_lookup() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    for _ in 0..2 {
        assert_eq!(c.look_up(op::LOCK_VDI, "alpha", "", 0), Ok(v));
    }
    assert_eq!(c.look_up(op::LOCK_VDI, "beta", "", 0), Err(SdResult::NO_VDI));
}

#[test]
fn lists_want_exactly_their_length() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    for opcode in [op::READ_VDIS, op::READ_DEL_VDIS] {
        for len in [0, 2_097_151, 2_097_153] {
            let request = Request::new(opcode, 0, [0; 32]).with_length(len);
            assert_eq!(c.result(request, &[]), BAD);
        }
        assert_eq!(c.vdis(opcode), []);
    }
}

#[test]
fn an_announced_vdi_can_be_loaded_in_any_order() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let source = c.vdi("alpha", 4);
    c.allocate(source, 0, &[7]);
    c.snapshot("alpha", source, "s");
    let image = c.read(source.inode(), 0, INODE_LEN).unwrap();

    let mut target = Lamb::start();
    let mut c = target.client();
    let arm = VdiStateArm {
        new_vid: source.get().into(),
        copies: 1,
        set_bitmap: 1,
        block_size_shift: SHIFT,
        ..VdiStateArm::default()
    };
    assert_eq!(c.result(Request::new(op::NOTIFY_VDI_ADD, 0, arm), &[]), OK);
    assert_eq!(c.vdis(op::READ_VDIS), [source.get()]);
    assert_eq!(c.vdis(op::READ_DEL_VDIS), []);
    assert_eq!(c.info("alpha", "s", 0), Err(SdResult::NO_VDI));
    assert_eq!(c.read(source.inode(), 0, 1), Err(SdResult::NO_OBJ));
    // The inode before its data, though it says that the VDI is a snapshot.
    assert_eq!(c.create(source.inode(), 0, &image), OK);
    assert_eq!(c.create(source.data(0), 0, &[7]), OK);
    assert_eq!(c.info("alpha", "s", 0), Ok(source));
    target.restart();
    let mut c = target.client();
    assert_eq!(c.read(source.data(0), 0, 1), Ok(vec![7]));
    assert_eq!(c.create(source.data(1), 0, &[7]), SdResult::READONLY);
    lamb.restart();
}

#[test]
fn an_interrupted_snapshot_is_finished() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 4);
    c.allocate(v, 0, &[1]);
    assert_eq!(c.write(v.inode(), TAG_OFFSET, &name_field(b"s").unwrap()), OK);
    // The successor is there, the predecessor not yet frozen: what a crash can leave.
    let mut successor = c.header(v);
    (successor.tag, successor.snap_id) = ([0; 256], 2.into());
    successor.vdi_id = (v.get() + 1).into();
    successor.create_time = (5 << 32).into();
    let w = vid(v.get() + 1);
    assert_eq!(c.create(w.inode(), 0, successor.as_bytes()), OK);
    assert_eq!(c.map(w, 0, &[v]), OK);
    lamb.restart();
    let mut c = lamb.client();
    assert_eq!(c.info("alpha", "", 0), Ok(w));
    assert_eq!(c.info("alpha", "s", 0), Ok(v));
    assert_eq!(c.header(v).snap_ctime.get(), 5 << 32);
    assert_eq!(c.create(v.data(1), 0, &[1]), SdResult::READONLY);
}

/// What a VDI is called and how its objects are found is not for clients to change (6.3).
#[test]
fn a_header_keeps_what_objects_depend_on() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let whole = c.header(v);
    let spoiled = [
        InodeHeader { name: name_field(b"beta").unwrap(), ..whole },
        InodeHeader { name: [0; 256], ..whole },
        InodeHeader { store_policy: 1, ..whole },
        InodeHeader { block_size_shift: 20, ..whole },
        InodeHeader { vdi_id: 7.into(), ..whole },
    ];
    for header in spoiled {
        assert_eq!(c.write(v.inode(), 0, header.as_bytes()), SdResult::INVALID_PARMS);
        assert_eq!(c.create(v.inode(), 0, header.as_bytes()), SdResult::INVALID_PARMS);
    }
    assert_eq!(c.write(v.inode(), 0, &[0]), SdResult::INVALID_PARMS);
    assert_eq!(c.write(v.inode(), 553, &[1]), SdResult::INVALID_PARMS);
    assert_eq!(c.header(v).as_bytes(), whole.as_bytes());
    // What clients do change.
    let resized = InodeHeader { vdi_size: (20 * OBJECT).into(), nr_copies: 2, ..whole };
    assert_eq!(c.write(v.inode(), 0, resized.as_bytes()), SdResult::SUCCESS);
    assert_eq!(c.header(v).as_bytes(), resized.as_bytes());
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.delete("alpha", "", 0), Ok(v));
    assert_eq!(c.write(v.inode(), 0, whole.as_bytes()), SdResult::INVALID_PARMS, "it is deleted");
    assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
}

/// Ids of a cluster that recycles them: the lowest ones that are free, and those of a family are
/// free again once all of it is deleted (3.3).
#[test]
fn ids_are_recycled_where_the_cluster_was_formatted_so() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let arm = sheepdog_proto::header::ClusterArm {
        copies: 1,
        flags: sheepdog_proto::op::cluster_flag::RECYCLE_VID.into(),
        ..Default::default()
    };
    assert_eq!(c.result(Request::new(op::MAKE_FS, FLAG_WRITE, arm), b"plain\0"), SdResult::SUCCESS);
    let (a, b) = (c.vdi("alpha", 16), c.vdi("beta", 16));
    assert_eq!((a.get(), b.get()), (1, 2));
    c.allocate(a, 0, &[1]);
    let a2 = c.snapshot("alpha", a, "s");
    assert_eq!(a2.get(), 3);
    assert_eq!(c.delete("beta", "", 0), Ok(b));
    assert_eq!(c.vdis(op::READ_VDIS), [1, 3]);
    // The new id may be lower than those of its snapshots.
    let a3 = c.snapshot("alpha", a2, "t");
    assert_eq!(a3.get(), 2);
    for restarted in [false, true] {
        if restarted {
            lamb.restart();
            c = lamb.client();
        }
        assert_eq!(c.info("alpha", "", 0), Ok(a3));
        assert_eq!((c.info("alpha", "s", 0), c.info("alpha", "t", 0)), (Ok(a), Ok(a2)));
        assert_eq!(c.read(a.data(0), 0, 1), Ok(vec![1]));
    }
    // As on the real server, without a working VDI the newest snapshot is found (3.4).
    assert_eq!(c.delete("alpha", "", 0), Ok(a3));
    assert_eq!(c.info("alpha", "", 0), Ok(a2));
    assert_eq!(c.delete("alpha", "t", 0), Ok(a2));
    assert_eq!(c.vdis(op::READ_VDIS), [1, 2, 3], "one of the family is left");
    assert_eq!(c.delete("alpha", "s", 0), Ok(a));
    assert_eq!(c.vdis(op::READ_VDIS), []);
    assert_eq!(c.read(a.inode(), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(lamb.data_objects(), []);
    assert_eq!(c.vdi("gamma", 16).get(), 1);
}

/// However often a name is deleted and created, it is found; and VDIs that are announced and never
/// come take no more memory than there is.
#[test]
fn a_name_may_come_and_go() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let first = c.vdi("alpha", 1).get();
    let s = c.snapshot("alpha", vid(first), "s");
    assert_eq!(c.delete("alpha", "", 0), Ok(s));
    for i in 2..100 {
        let v = c.vdi("alpha", 1);
        assert_eq!((v.get(), c.info("alpha", "", 0)), (first + i, Ok(v)));
        assert_eq!(c.info("alpha", "s", 0), Ok(vid(first)));
        assert_eq!(c.delete("alpha", "", 0), Ok(v));
        assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
        if i == 50 {
            lamb.restart();
            c = lamb.client();
        }
    }
    let announce = |new: u32| {
        let arm = VdiStateArm { new_vid: new.into(), set_bitmap: 1, ..VdiStateArm::default() };
        let mut request = Request::new(op::NOTIFY_VDI_ADD, 0, arm);
        request.proto_ver = 0x0a;
        request
    };
    let results: Vec<_> = (0..66_000)
        .map(|i| c.result(announce(1 + i), &[]))
        .skip_while(|result| *result == SdResult::SUCCESS)
        .collect();
    assert!(results.len() < 1000 && results.contains(&SdResult::FULL_VDI), "{}", results.len());
    assert_eq!(c.info("alpha", "s", 0), Ok(vid(first)));
}
