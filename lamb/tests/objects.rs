//! READ, CREATE, WRITE, REMOVE, DISCARD and map updates (4.3 to 4.8, 6.3).

mod common;

use common::{Lamb, OBJECT, obj, vid};
use sheepdog_proto::header::{ObjArm, VdiArm};
use sheepdog_proto::inode::{INODE_LEN, MAP_END, SNAP_CTIME_OFFSET, VDI_SIZE_OFFSET};
use sheepdog_proto::op::{self, FLAG_WRITE};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{MAX_DATA_OBJECTS, Oid, Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;

#[test]
fn a_created_object_reads_as_zeros_around_what_was_written() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(c.read(v.data(0), 0, 4096), Err(SdResult::NO_OBJ));
    assert_eq!(c.create(v.data(0), 4096, &[b'A'; 512]), OK);
    assert_eq!(c.write(v.data(0), 4608, &[b'B'; 512]), OK);
    let data = c.read(v.data(0), 4096, 1536).unwrap();
    assert_eq!(data, [[b'A'; 512], [b'B'; 512], [0; 512]].concat());
    assert_eq!(c.read(v.data(0), OBJECT as u32 - 7, 7), Ok(vec![0; 7]));
    assert_eq!(c.read(v.data(0), 0, 0), Ok(vec![]));
}

#[test]
fn a_create_replaces_the_whole_object() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(c.create(v.data(0), 0, &[1; 8192]), OK);
    assert_eq!(c.create(v.data(0), 4096, &[2; 4096]), OK);
    assert_eq!(c.read(v.data(0), 0, 8192), Ok([[0; 4096], [2; 4096]].concat()));
    assert_eq!(c.create(v.data(0), 0, &[]), OK);
    assert_eq!(c.read(v.data(0), 4096, 1), Ok(vec![0]));
}

#[test]
fn copy_on_write_overlays_the_payload() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    let mut content: Vec<u8> = (0..OBJECT).map(|i| (i / 512) as u8).collect();
    c.allocate(v, 0, &content);
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.create_cow(w.data(0), v.data(0), 1000, &[7; 3000]), OK);
    content[1000..4000].fill(7);
    assert!(c.read(w.data(0), 0, OBJECT as u32).unwrap() == content);
    assert_eq!(c.read(v.data(0), 1000, 1), Ok(vec![1]));
    // Nothing is created from a base that is missing, except where nothing of it is needed.
    assert_eq!(c.create_cow(w.data(1), v.data(1), 0, &[1]), SdResult::NO_OBJ);
    assert_eq!(c.create_cow(w.data(1), Oid(0), 0, &[1]), SdResult::NO_OBJ);
    assert_eq!(c.read(w.data(1), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(c.create_cow(w.data(1), v.data(1), 0, &vec![3; OBJECT as usize]), OK);
}

#[test]
fn copy_on_write_keeps_holes_and_what_is_around_them() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[]);
    assert_eq!(c.write(v.data(0), 1 << 20, &[5; 100]), OK);
    assert_eq!(c.write(v.data(0), OBJECT as u32 - 1, &[6]), OK);
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[9]), OK);
    let data = c.read(w.data(0), 0, OBJECT as u32).unwrap();
    assert_eq!((data[0], data[1], data[(1 << 20) + 99], data[(1 << 20) + 100]), (9, 0, 5, 0));
    assert_eq!(data[OBJECT as usize - 1], 6);
    assert_eq!(data.iter().filter(|&&b| b != 0).count(), 102);
}

#[test]
fn nothing_reaches_beyond_an_object() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[]);
    let bad = SdResult::INVALID_PARMS;
    assert_eq!(c.read(v.data(0), OBJECT as u32, 1), Err(bad));
    assert_eq!(c.read(v.data(0), 1, OBJECT as u32), Err(bad));
    assert_eq!(c.read(v.data(0), u32::MAX, u32::MAX), Err(bad));
    assert_eq!(c.write(v.data(0), OBJECT as u32, &[1]), bad);
    assert_eq!(c.create(v.data(1), OBJECT as u32, &[1]), bad);
    assert_eq!(c.write(v.inode(), INODE_LEN, &[1]), bad);
    assert_eq!(c.create(v.data(MAX_DATA_OBJECTS), 0, &[1]), bad);
    assert_eq!(c.create(v.data(MAX_DATA_OBJECTS - 1), 0, &[1]), OK);
    let mut arm = ObjArm { oid: v.data(0).0.into(), ..ObjArm::default() };
    arm.offset_high = 1.into();
    assert_eq!(c.result(Request::new(op::WRITE_OBJ, FLAG_WRITE, arm), &[1]), bad);
}

#[test]
fn ids_that_name_nothing_are_refused() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    for oid in [Oid(0), Oid(5), Vid::NONE.inode()] {
        assert_eq!(c.create(oid, 0, &[1]), SdResult::NO_OBJ, "{oid}");
        assert_eq!(c.read(oid, 0, 1), Err(SdResult::NO_OBJ), "{oid}");
    }
    for oid in
        [Oid((3 << 62) | (1 << 32)), Oid((1 << 56) | (1 << 32)), Oid((1 << 63) | (1 << 32) | 1)]
    {
        assert_eq!(c.create(oid, 0, &[1]), SdResult::INVALID_PARMS, "{oid}");
        assert_eq!(c.read(oid, 0, 1), Err(SdResult::INVALID_PARMS), "{oid}");
    }
    assert_eq!(c.result(obj(op::FLUSH_VDI, 0, vid(7).inode(), 0), &[]), OK);
    let ledger = vid(7).data(0).ledger();
    assert_eq!(c.read(ledger, 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn a_length_without_a_payload_is_refused() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[]);
    for opcode in [op::WRITE_OBJ, op::CREATE_AND_WRITE_OBJ] {
        let request = obj(opcode, 0, v.data(0), 0).with_length(512);
        assert_eq!(c.result(request, &[]), SdResult::INVALID_PARMS);
    }
    assert_eq!(c.write(v.data(0), 0, &[1]), OK);
}

#[test]
fn data_of_a_snapshot_is_read_only_and_the_rest_is_not() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    c.snapshot("alpha", v, "s");
    assert_eq!(c.write(v.data(0), 0, &[2]), SdResult::READONLY);
    assert_eq!(c.create(v.data(1), 0, &[2]), SdResult::READONLY);
    assert_eq!(c.create(v.vmstate(0), 0, &[2]), OK);
    assert_eq!(c.write(v.vmstate(0), 1, &[2]), OK);
    assert_eq!(c.write(v.inode(), VDI_SIZE_OFFSET, &8u64.to_le_bytes()), OK);
    assert_eq!(c.header(v).vdi_size.get(), 8);
}

#[test]
fn a_snapshot_takes_no_new_entries_but_gives_its_own_up() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.map(v, 1, &[v]), SdResult::READONLY);
    assert_eq!(c.map(v, 0, &[w]), SdResult::READONLY);
    assert_eq!(c.map(v, 0, &[v, Vid::NONE]), OK, "an entry's own value is no change");
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]), "the successor still names it");
    assert_eq!(c.map(w, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn a_snapshot_never_thaws() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    let before = c.header(v);
    c.snapshot("alpha", v, "s");
    let time = c.header(v).snap_ctime;
    assert_eq!(c.write(v.inode(), 0, before.as_bytes()), OK);
    assert_eq!(c.header(v).snap_ctime, time);
    assert_eq!(c.write(v.inode(), SNAP_CTIME_OFFSET + 2, &[0; 4]), OK);
    assert_eq!(c.header(v).snap_ctime, time);
    assert_eq!(c.create(v.data(0), 0, &[1]), SdResult::READONLY);
}

#[test]
fn map_entries_name_vdis() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    let entry = |value: u32| value.to_le_bytes();
    assert_eq!(c.write(v.inode(), 4664, &entry(0x0100_0000)), SdResult::INVALID_PARMS);
    assert_eq!(c.entries(v, 1), [0]);
}

#[test]
fn a_map_update_may_be_cut_anywhere() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    c.allocate(v, 1, &[1]);
    // Two bytes of entry 0, all of the header before it, and then the last byte of entry 1.
    let mut head = c.read(v.inode(), 0, 4666).unwrap();
    assert_eq!(c.write(v.inode(), 0, &head), OK);
    assert_eq!(c.entries(v, 2), [v.get(); 2]);
    head[4664..].fill(0);
    let third = vid(v.get() & 0xff_0000);
    assert_eq!(c.write(v.inode(), 0, &head), OK);
    assert_eq!(c.entries(v, 2), [third.get(), v.get()]);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ), "named by nobody any more");
    assert_eq!(c.read(v.data(1), 0, 1), Ok(vec![1]));
    // Across the end of the map, into the reference counts that this server does not use.
    assert_eq!(c.write(v.inode(), MAP_END - 4, &[0, 0, 0, 0, 9, 9]), OK);
    assert_eq!(c.read(v.inode(), MAP_END, 2), Ok(vec![9, 9]));
}

#[test]
fn a_discard_frees_the_object_and_leaves_zeros() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(c.discard(vid(0x123456).data(0)), SdResult::NO_OBJ, "no inode");
    // Unmapped: nothing happens, not even to a stray object.
    assert_eq!(c.create(v.data(3), 0, &[1]), OK);
    assert_eq!(c.discard(v.data(3)), OK);
    assert_eq!(c.read(v.data(3), 0, 1), Ok(vec![1]));
    c.allocate(v, 0, &[1]);
    assert_eq!(c.discard(v.data(0)), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(c.entries(v, 1), [0]);
    // At once another object may take its place (3.7, hazard 4).
    for i in 0..50 {
        c.allocate(v, 0, &[i]);
        assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
        c.allocate(v, 0, &[i]);
        assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![i]));
        assert_eq!(c.discard(v.data(0)), OK);
    }
}

#[test]
fn a_discard_of_an_inherited_object_spares_it() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let w = c.snapshot("alpha", v, "s");
    // Another client may have created this, and be about to map it.
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[2]), OK);
    assert_eq!(c.discard(w.data(0)), OK);
    assert_eq!(c.read(w.data(0), 0, 1), Ok(vec![2]));
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.entries(w, 1), [0]);
    assert_eq!(c.map(w, 0, &[w]), OK);
    assert_eq!(c.read(w.data(0), 0, 1), Ok(vec![2]));
}

#[test]
fn updating_a_map_twice_takes_a_reference_back_once() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let w = c.snapshot("alpha", v, "s");
    let x = c.branch("gamma", v, 0).unwrap();
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[2]), OK);
    for _ in 0..3 {
        assert_eq!(c.map(w, 0, &[w]), OK);
    }
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]), "the clone names it");
    assert_eq!(c.map(x, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn unchanged_entries_in_a_range_keep_their_references() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    (0..3).for_each(|i| c.allocate(v, i, &[1]));
    let w = c.snapshot("alpha", v, "s");
    for i in [0, 2] {
        assert_eq!(c.create_cow(w.data(i), v.data(i), 0, &[2]), OK);
    }
    // The real server then removes the middle object together with the next change (3.7).
    assert_eq!(c.map(w, 0, &[w, v, w]), OK);
    assert_eq!(c.create_cow(w.data(1), v.data(1), 0, &[2]), OK);
    assert_eq!(c.map(w, 1, &[w]), OK);
    for i in 0..3 {
        assert_eq!(c.read(v.data(i), 0, 1), Ok(vec![1]));
    }
}

#[test]
fn removal_needs_an_object_and_spares_inodes() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    assert_eq!(c.remove(v.data(0)), OK);
    assert_eq!(c.remove(v.data(0)), SdResult::NO_OBJ);
    assert_eq!(c.remove(v.inode()), SdResult::INVALID_PARMS);
}

#[test]
fn an_unknown_vdi_has_the_cluster_s_objects() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let oid = vid(0x123456).data(2);
    assert_eq!(c.create(oid, 0, &[1]), OK);
    assert_eq!(c.read(oid, OBJECT as u32 - 1, 1), Ok(vec![0]));
    assert_eq!(c.read(oid, OBJECT as u32, 1), Err(SdResult::INVALID_PARMS));
}

#[test]
fn objects_have_the_size_that_their_vdi_says() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    for shift in [9u8, 20, 26] {
        let arm = VdiArm { vdi_size: 4096.into(), block_size_shift: shift, ..VdiArm::default() };
        let v = c.new_vdi(&format!("shift{shift}"), arm).unwrap();
        let len = 1u32 << shift;
        assert_eq!(c.create(v.data(0), len - 1, &[1]), OK);
        assert_eq!(c.read(v.data(0), len - 1, 1), Ok(vec![1]));
        assert_eq!(c.write(v.data(0), len, &[1]), SdResult::INVALID_PARMS);
        assert_eq!(c.create(v.vmstate(0), len - 1, &[1]), OK);
    }
}

#[test]
fn an_object_larger_than_any_buffer_is_read_whole() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let arm = VdiArm { vdi_size: (1 << 26).into(), block_size_shift: 26, ..VdiArm::default() };
    let v = c.new_vdi("large", arm).unwrap();
    let content: Vec<u8> = (0..1u32 << 26).map(|i| (i >> 12) as u8 ^ i as u8).collect();
    assert_eq!(c.create(v.data(0), 0, &content), OK);
    assert!(c.read(v.data(0), 0, 1 << 26).unwrap() == content);
    assert!(c.read(v.data(0), 12345, 9 << 20).unwrap() == content[12345..12345 + (9 << 20)]);
    assert_eq!(c.read(v.data(0), 1, 1 << 26), Err(SdResult::INVALID_PARMS));
    assert_eq!(c.read(v.data(1), 0, 1 << 26), Err(SdResult::NO_OBJ));
}

#[test]
fn an_inode_can_be_written_whole() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    let mut image = c.read(v.inode(), 0, INODE_LEN).unwrap();
    image[MAP_END as usize] = 77;
    image[0..5].copy_from_slice(b"omega");
    let w = vid(0x42);
    assert_eq!(c.create(w.inode(), 0, &image), OK);
    assert_eq!(c.read(w.inode(), MAP_END, 1), Ok(vec![77]), "as it was stored");
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]), "named by the new inode");
    assert_eq!(c.create(w.inode(), 0, &image[..4664]), OK);
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ), "replaced by one without map");
}

#[test]
fn flush_succeeds_so_that_clients_go_on_flushing() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(c.result(obj(op::FLUSH_VDI, 0, v.inode(), 0), &[]), OK);
}
