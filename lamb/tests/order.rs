//! Pipelined requests: all answered, in any order, but executed in order where it matters
//! (0.5, 6.3).

mod common;

use std::collections::HashMap;

use common::{Client, Lamb, OBJECT, obj};
use sheepdog_proto::op;
use sheepdog_proto::{Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;

/// The answers to so many requests, by id.
fn answers(c: &mut Client, n: usize) -> HashMap<u32, (SdResult, Vec<u8>)> {
    let one = |_| {
        let (response, data) = c.receive().unwrap();
        (response.id.get(), (response.result(), data))
    };
    let answers: HashMap<_, _> = (0..n).map(one).collect();
    assert_eq!(answers.len(), n, "an id came twice");
    answers
}

fn both(test: impl Fn(&Lamb, &mut Client, Vid)) {
    for sync in [true, false] {
        let lamb = Lamb::with(|options| options.sync = sync);
        let mut c = lamb.client();
        let v = c.vdi("alpha", 64);
        test(&lamb, &mut c, v);
    }
}

#[test]
fn a_read_sees_the_write_before_it() {
    both(|_, c, v| {
        c.allocate(v, 0, &[]);
        for i in 0..100u8 {
            c.send(obj(op::WRITE_OBJ, 0, v.data(0), 0), &[i; 4096]);
            let read = c.send(Request::read(v.data(0), 4095, 1), &[]);
            // Something else in between must not let them meet.
            c.send(Request::read(v.inode(), 0, 100), &[]);
            assert_eq!(answers(c, 3)[&read], (OK, vec![i]));
        }
    });
}

#[test]
fn the_last_of_overlapping_writes_wins() {
    both(|_, c, v| {
        c.allocate(v, 0, &[]);
        for i in 0..50u8 {
            for j in 0..8 {
                c.send(obj(op::WRITE_OBJ, 0, v.data(0), u32::from(j) * 100), &[i ^ j; 1000]);
            }
            assert!(answers(c, 8).values().all(|answer| *answer == (OK, vec![])));
            for j in 0..8u8 {
                let last = if j == 7 { 999 } else { 50 };
                let at = u32::from(j) * 100 + last;
                assert_eq!(c.read(v.data(0), at, 1), Ok(vec![i ^ j]));
            }
        }
    });
}

#[test]
fn a_create_comes_before_what_follows_it() {
    both(|_, c, v| {
        for i in 0..40u8 {
            let index = u32::from(i);
            c.send(obj(op::CREATE_AND_WRITE_OBJ, 0, v.data(index), 0), &[1; 10]);
            c.send(obj(op::WRITE_OBJ, 0, v.data(index), 5), &[2; 10]);
            let read = c.send(Request::read(v.data(index), 0, 16), &[]);
            c.send(obj(op::CREATE_AND_WRITE_OBJ, 0, v.data(index), 15), &[3]);
            let again = c.send(Request::read(v.data(index), 0, 16), &[]);
            let answers = answers(c, 5);
            assert_eq!(answers[&read].1, [&[1; 5][..], &[2; 10], &[0]].concat());
            assert_eq!(answers[&again].1, [&[0; 15][..], &[3]].concat());
        }
    });
}

#[test]
fn a_new_object_never_meets_a_late_removal() {
    both(|_, c, v| {
        for i in 0..40u8 {
            c.allocate(v, 0, &[i]);
            c.send(obj(op::DISCARD_OBJ, 0, v.data(0), 0), &[]);
            c.send(obj(op::CREATE_AND_WRITE_OBJ, 0, v.data(0), 0), &[i + 100]);
            assert!(answers(c, 2).values().all(|(result, _)| *result == OK));
            assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![i + 100]));
        }
    });
}

#[test]
fn many_requests_at_once_are_all_answered() {
    both(|lamb, c, v| {
        (0..16).for_each(|i| c.allocate(v, i, &[i as u8; 8192]));
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                scope.spawn(move || {
                    let mut c = lamb.client();
                    let mut expected = HashMap::new();
                    for i in 0..600u32 {
                        let (index, at) = (i % 16, 4096 * (1 + thread));
                        let id = match i % 5 {
                            0 => c.send(obj(op::WRITE_OBJ, 0, v.data(index), at), &[9; 512]),
                            1 => c.send(obj(op::GET_CLUSTER_DEFAULT, 0, v.data(0), 0), &[]),
                            _ => c.send(Request::read(v.data(index), 0, 4096), &[]),
                        };
                        let data = if i % 5 > 1 { vec![index as u8; 4096] } else { vec![] };
                        expected.insert(id, (OK, data));
                    }
                    assert!(answers(&mut c, 600) == expected);
                });
            }
        });
    });
}

#[test]
fn large_and_small_answers_share_a_connection() {
    both(|_, c, v| {
        let content: Vec<u8> = (0..OBJECT).map(|i| (i >> 9) as u8).collect();
        c.allocate(v, 0, &content);
        for _ in 0..3 {
            let large: Vec<u32> =
                (0..12).map(|_| c.send(Request::read(v.data(0), 0, OBJECT as u32), &[])).collect();
            let small = c.send(Request::read(v.data(0), 512, 1), &[]);
            let answers = answers(c, 13);
            assert!(large.iter().all(|id| answers[id].1 == content));
            assert_eq!(answers[&small].1, [1]);
        }
    });
}
