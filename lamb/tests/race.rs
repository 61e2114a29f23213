//! Clients that give objects up and create them anew, side by side.

mod common;

use common::{Client, Lamb, obj};
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::op;
use sheepdog_proto::{Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;

/// As soon as a client sees that an index is free it may create an object there, whatever became
/// of the one before.
#[test]
fn a_late_removal_spares_a_newer_object() {
    for sync in [true, false] {
        let lamb = Lamb::with(|options| options.sync = sync);
        let mut b = lamb.client();
        let v = b.vdi("alpha", 16);
        for round in 0..150u32 {
            let by_map = round % 2 == 0;
            b.allocate(v, 0, &[1]);
            let mut a = lamb.client();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let result = match by_map {
                        true => a.map(v, 0, &[Vid::NONE]),
                        false => a.discard(v.data(0)),
                    };
                    assert_eq!(result, OK);
                });
                while b.entries(v, 1) != [0] {}
                b.allocate(v, 0, &[2]);
            });
            assert_eq!(b.read(v.data(0), 0, 1), Ok(vec![2]), "round {round}");
        }
    }
}

/// The same by one client that does not wait for answers.
#[test]
fn what_is_pipelined_after_giving_up_stays() {
    for sync in [true, false] {
        let lamb = Lamb::with(|options| options.sync = sync);
        let mut c = lamb.client();
        let v = c.vdi("alpha", 16);
        for round in 0..100 {
            (0..4).for_each(|i| c.allocate(v, i, &[1]));
            for i in 0..4 {
                update(&mut c, v, i, Vid::NONE);
            }
            for i in 0..4 {
                c.send(obj(op::CREATE_AND_WRITE_OBJ, 0, v.data(i), 0), &[2]);
                update(&mut c, v, i, v);
            }
            for _ in 0..12 {
                assert_eq!(c.receive().unwrap().0.result(), OK);
            }
            for i in 0..4 {
                assert_eq!(c.read(v.data(i), 0, 1), Ok(vec![2]), "round {round}");
            }
        }
    }
}

fn update(c: &mut Client, v: Vid, index: u32, owner: Vid) {
    let request: Request = obj(op::WRITE_OBJ, 0, v.inode(), map_entry_offset(index));
    c.send(request, &owner.get().to_le_bytes());
}
