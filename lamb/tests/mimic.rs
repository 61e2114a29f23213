//! `--mimic-1.0` has the hazards of the real server (3.7, 0.5, 4.2, 4.11).

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Lamb, obj};
use sheepdog_proto::inode::{Gref, gref_offset, map_entry_offset};
use sheepdog_proto::op;
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{Oid, Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;

fn start() -> Lamb {
    Lamb::with(|options| options.mimic = true)
}

/// (generation, count) of the first entries.
fn grefs(c: &mut Client, vid: Vid, n: u32) -> Vec<(i32, i32)> {
    let bytes = c.read(vid.inode(), gref_offset(0), 8 * n).unwrap();
    let grefs = <[Gref]>::ref_from_bytes(&bytes).unwrap();
    grefs.iter().map(|gref| (gref.generation.get(), gref.count.get())).collect()
}

fn ledger(c: &mut Client, oid: Oid) -> Option<[i32; 3]> {
    let bytes = c.read(oid.ledger(), 0, 12).ok()?;
    let entry = |i: usize| i32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap());
    Some([entry(0), entry(1), entry(2)])
}

/// Waits for what happens after the answer.
fn eventually(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A VDI with three objects, snapshotted.
fn snapshotted(c: &mut Client) -> (Vid, Vid) {
    let v = c.vdi("sn1", 16);
    (0..3).for_each(|i| c.allocate(v, i, &[1]));
    let w = c.snapshot("sn1", v, "s");
    (v, w)
}

/// The table below appendix A.
#[test]
fn references_evolve_as_observed() {
    let lamb = start();
    let mut c = lamb.client();
    let (v, w) = snapshotted(&mut c);
    assert_eq!(grefs(&mut c, v, 4), [(0, 1), (0, 1), (0, 1), (0, 0)]);
    assert_eq!(grefs(&mut c, w, 4), [(1, 0), (1, 0), (1, 0), (0, 0)]);
    assert_eq!(c.create_cow(w.data(0), v.data(0), 0, &[2]), OK);
    assert_eq!(c.map(w, 0, &[w]), OK);
    assert_eq!(grefs(&mut c, w, 3), [(0, 0), (1, 0), (1, 0)]);
    eventually(|| ledger(&mut c, v.data(0)) == Some([1, -1, 0]));
    let x = c.branch("x", v, 0).unwrap();
    assert_eq!(grefs(&mut c, v, 3), [(0, 2); 3]);
    assert_eq!(grefs(&mut c, x, 3), [(1, 0); 3]);
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    eventually(|| ledger(&mut c, v.data(0)) == Some([0, 1, 0]));
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.map(x, 0, &[Vid::NONE]), OK);
    eventually(|| c.read(v.data(0), 0, 1) == Err(SdResult::NO_OBJ));
    assert_eq!(ledger(&mut c, v.data(0)), None);
}

#[test]
fn a_range_over_an_inherited_entry_loses_the_snapshot_s_object() {
    let lamb = start();
    let mut c = lamb.client();
    let (v, w) = snapshotted(&mut c);
    for i in [0, 2] {
        assert_eq!(c.create_cow(w.data(i), v.data(i), 0, &[2]), OK);
    }
    assert_eq!(c.map(w, 0, &[w, v, w]), OK);
    assert_eq!(c.create_cow(w.data(1), v.data(1), 0, &[2]), OK);
    assert_eq!(c.map(w, 1, &[w]), OK);
    eventually(|| c.read(v.data(1), 0, 1) == Err(SdResult::NO_OBJ));
}

#[test]
fn a_map_update_sent_twice_gives_up_twice() {
    let lamb = start();
    let mut c = lamb.client();
    let v = c.vdi("sn1", 64);
    (0..64).for_each(|i| c.allocate(v, i, &[1]));
    let w = c.snapshot("sn1", v, "s");
    let x = c.branch("x", v, 0).unwrap();
    let entry = w.get().to_le_bytes();
    // Both see the old entry if they meet, which they need not do at the first try.
    let twice = (0..64).find(|&i| {
        assert_eq!(c.create_cow(w.data(i), v.data(i), 0, &[2]), OK);
        for _ in 0..2 {
            c.send(obj(op::WRITE_OBJ, 0, w.inode(), map_entry_offset(i)), &entry);
        }
        for _ in 0..2 {
            assert_eq!(c.receive().unwrap().0.result(), OK);
        }
        // One thread removes in order: what came before is over when this is.
        assert_eq!(c.create(w.data(63), 0, &[]), OK);
        assert_eq!(c.map(w, 63, &[Vid::NONE]), OK);
        assert_eq!(c.map(w, 63, &[w]), OK);
        assert_eq!(c.map(w, 63, &[Vid::NONE]), OK);
        eventually(|| c.read(w.data(63), 0, 1) == Err(SdResult::NO_OBJ));
        ledger(&mut c, v.data(i)) == Some([1, -2, 0])
    });
    let i = twice.expect("two map updates meet");
    assert_eq!(c.map(v, i, &[Vid::NONE]), OK);
    eventually(|| c.read(v.data(i), 0, 1) == Err(SdResult::NO_OBJ));
    assert_eq!(c.entries(x, 64)[i as usize], v.get(), "the clone has lost it");
}

#[test]
fn a_discarded_object_takes_its_successor_along() {
    let lamb = start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 64);
    // The removal may be over before the successor is there, which it need not be at each try.
    let lost = (2..64).find(|&i| {
        c.allocate(v, i, &[1]);
        assert_eq!(c.map(v, i, &[Vid::NONE]), OK);
        c.allocate(v, i, &[2]);
        // One thread removes in order: what came before is over when this is.
        c.allocate(v, 0, &[1]);
        assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
        eventually(|| c.read(v.data(0), 0, 1) == Err(SdResult::NO_OBJ));
        c.read(v.data(i), 0, 1) == Err(SdResult::NO_OBJ)
    });
    let i = lost.expect("a removal meets the successor");
    assert_eq!(c.entries(v, 64)[i as usize], v.get());
    // What a careful client does (5.5): it waits until the removal is over.
    c.allocate(v, 1, &[1]);
    assert_eq!(c.map(v, 1, &[Vid::NONE]), OK);
    eventually(|| c.read(v.data(1), 0, 1) == Err(SdResult::NO_OBJ));
    c.allocate(v, 1, &[2]);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(c.read(v.data(1), 0, 1), Ok(vec![2]));
}

#[test]
fn pipelined_requests_overtake_each_other() {
    let lamb = start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[0]);
    let overtaken = (0..5000).any(|i| {
        let i = i as u8;
        c.send(obj(op::WRITE_OBJ, 0, v.data(0), 0), &[i]);
        let read = c.send(Request::read(v.data(0), 0, 1), &[]);
        let answers = [c.receive().unwrap(), c.receive().unwrap()];
        answers.iter().any(|(response, data)| response.id.get() == read && *data != [i])
    });
    assert!(overtaken);
}

#[test]
fn a_snapshot_can_lose_a_map_update() {
    let lamb = start();
    let mut c = lamb.client();
    let mut v = c.vdi("alpha", 64);
    let mut other = lamb.client();
    let lost = (0..100).any(|_| {
        (0..64).for_each(|i| assert_eq!(c.create(v.data(i), 0, &[1]), OK));
        let (w, updates) = thread::scope(|scope| {
            let snapshot = scope.spawn(|| other.branch("alpha", v, 1).unwrap());
            let mut updates = 0;
            while updates < 64 && !snapshot.is_finished() {
                assert_eq!(c.map(v, updates, &[v]), OK, "also a frozen inode takes it");
                updates += 1;
            }
            (snapshot.join().unwrap(), updates)
        });
        let lost = c.entries(v, updates).iter().any(|entry| *entry != v.get());
        v = w;
        lost
    });
    assert!(lost);
}

#[test]
fn deleting_a_vdi_with_objects_only_hides_it() {
    let lamb = start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1]);
    assert_eq!(c.delete("alpha", "", 0), Ok(v));
    assert_eq!(c.vdis(op::READ_DEL_VDIS), [v.get()]);
    assert_eq!(c.info("alpha", "", 0), Ok(v));
    assert_eq!(c.new_vdi("alpha", Default::default()), Err(SdResult::VDI_EXIST));
    assert_eq!(c.write(v.data(0), 0, &[2]), OK);
    assert_eq!(c.map(v, 0, &[Vid::NONE]), OK);
    assert_eq!(c.delete("alpha", "", 0), Ok(v));
    assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
    assert_ne!(c.vdi("alpha", 16), v);
}

#[test]
fn the_rest_is_the_real_server_s_too() {
    let lamb = start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 16);
    assert_eq!(c.result(obj(op::FLUSH_VDI, 0, v.inode(), 0), &[]), SdResult::INVALID_PARMS);
    c.allocate(v, 0, &[1]);
    assert!(c.branch("clone", v, 0).is_ok(), "of a working VDI");
    c.allocate(v, 1, &[1]);
    assert_eq!(c.discard(v.data(1)), OK);
    assert_eq!(c.read(v.data(1), 0, 1), Err(SdResult::NO_OBJ));
    let w = c.snapshot("alpha", v, "s");
    assert_eq!(c.map(v, 5, &[w]), OK);
    assert_eq!(c.create(v.data(5), 0, &[1]), SdResult::READONLY);
}

#[test]
fn a_store_is_for_one_of_the_two() {
    let mut lamb = start();
    drop(lamb.server.take());
    lamb.options.mimic = false;
    let err = lamb::Server::start(&lamb.options).err().unwrap();
    assert!(format!("{err:#}").contains("only with --mimic-1.0"), "{err:#}");
    lamb.options.mimic = true;
    assert!(lamb::Server::start(&lamb.options).is_ok());
}
