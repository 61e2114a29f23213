//! Requests that are given up while a server may still carry them out (docs/protocol.md 5.15): the
//! gateway is stopped and goes on later, or one request is only slow. Whatever is newer and was
//! acknowledged stays; what has nothing to do with them goes on meanwhile.
//!
//! Each test makes it happen, on a lamb with a real server's hazards behind two gateways.

mod common;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sheepdog_proto::inode::SNAP_CTIME_OFFSET;
use sheepdog_proto::{NAME_LEN, SdResult, op};
use wolf::{Fate, Flock, Wolf};

use common::ambush::{
    Fold, LONG, SHORT, SOME, STUCK, Step, Trap, Which as Request, attempt, each, is_attr_creation,
    is_attr_deletion, is_attr_write, is_creation, is_deletion, is_inode_read, is_lock, is_lookup,
    is_map_update, is_new_vdi, is_release, is_size_write, is_tag_write, is_write, oid,
};
use common::api::{Code, Sd, Vdi, Which, last_error};
use common::server::Server;

const OBJECT: u64 = 4 << 20;
const SIZE: u64 = 4 * OBJECT;

/// What is promised to take 5 s, on a machine that does much else.
const SOON: Duration = Duration::from_secs(10);
/// Not a hang.
const BOUND: Duration = Duration::from_secs(20);

/// The gateway stops, or is only slow with one request.
const TROUBLES: [Trap; 2] = [Trap::Stall, Trap::Hold];

fn create(sd: &Sd, name: &str) -> Vdi {
    sd.create(name, SIZE, None, false, true).unwrap().expect("a handle")
}

fn content(sd: &Sd, vdi: Vdi, len: usize, offset: u64) -> Vec<u8> {
    let mut buf = vec![0xa5; len];
    sd.read(vdi, &mut buf, offset).unwrap();
    buf
}

/// What is stored, as a client sees it that knows nothing.
fn stored(fold: &Fold, name: &str, len: usize, offset: u64) -> String {
    let other = fold.other();
    let vdi = other.open(name).unwrap();
    String::from_utf8_lossy(&content(&other, vdi, len, offset)).into_owned()
}

fn stored_in_snapshot(fold: &Fold, tag: &str, len: usize, offset: u64) -> String {
    let other = fold.other();
    let snapshot = other.open_snapshot("a", Which::Tag(tag)).unwrap();
    String::from_utf8_lossy(&content(&other, snapshot, len, offset)).into_owned()
}

fn tags(fold: &Fold) -> Vec<String> {
    let other = fold.other();
    other.snapshots("a", |handle| other.info(handle).unwrap().tag).unwrap()
}

/// Repeats an operation that can succeed only a little later.
fn soon<T>(operation: impl Fn() -> Result<T, Code>) -> T {
    let limit = Instant::now() + SOON;
    loop {
        match operation() {
            Ok(value) => return value,
            Err(code) => assert!(Instant::now() < limit, "{code} still"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// An operation that is given up, and a newer one that would be undone by it.
#[derive(Clone, Copy)]
struct Pair {
    what: &'static str,
    trap: Trap,
    which: Request,
    prepare: fn(&Sd) -> Vdi,
    first: fn(&Sd, Vdi) -> Result<(), Code>,
    later: fn(&Sd, Vdi) -> Result<(), Code>,
    /// Panics where the newer one's effect is not there.
    check: fn(&Fold),
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.what, self.trap)
    }
}

impl Pair {
    const fn new(what: &'static str, which: Request) -> Pair {
        Pair {
            what,
            trap: Trap::Stall,
            which,
            prepare: with_object,
            first: |sd, vdi| sd.write(vdi, b"first", 0, 0),
            later: |sd, vdi| sd.write(vdi, b"later", 0, 0),
            check: |fold| assert_eq!(stored(fold, "a", 5, 0), "later"),
        }
    }

    fn run(self) {
        let fold = Fold::new();
        let sd = fold.sd();
        let vdi = (self.prepare)(&sd);
        fold.give_up(&sd, self.trap, self.which, || (self.first)(&sd, vdi));
        let done = attempt(&sd, || (self.later)(&sd, vdi));
        fold.release();
        if !done {
            (self.later)(&sd, vdi).expect("nothing is in its way any more");
        }
        assert!(fold.first.await_idle(STUCK));
        // What servers remove, they remove after the answer.
        thread::sleep(Duration::from_millis(100));
        (self.check)(&fold);
    }
}

/// Runs each pair with both kinds of trouble.
fn none_is_undone(pairs: &[Pair]) {
    let cases: Vec<Pair> =
        pairs.iter().flat_map(|pair| TROUBLES.map(|trap| Pair { trap, ..*pair })).collect();
    each(&cases, Pair::run);
}

fn with_hole(sd: &Sd) -> Vdi {
    create(sd, "a")
}

fn with_object(sd: &Sd) -> Vdi {
    let vdi = create(sd, "a");
    sd.write(vdi, b"zeroth", 0, 0).unwrap();
    vdi
}

/// The object is a snapshot's and a clone's as well.
fn with_shared_object(sd: &Sd) -> Vdi {
    let vdi = with_object(sd);
    let snapshot = sd.snapshot(vdi, "tag", true).unwrap().expect("a handle");
    sd.clone_vdi(snapshot, "clone", Which::Handle, false).unwrap();
    sd.close(snapshot).unwrap();
    vdi
}

/// Released once too often, the object would be gone with the snapshot (3.7, hazard 2).
fn check_clone(fold: &Fold) {
    fold.other().delete_snapshot("a", Which::Tag("tag")).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(stored(fold, "clone", 6, 0), "zeroth");
    assert_eq!(stored(fold, "a", 5, 0), "later");
}

#[test]
fn a_write_that_was_given_up_does_not_undo_a_later_one() {
    let shared =
        Pair { prepare: with_shared_object, check: check_clone, ..Pair::new("", is_write) };
    none_is_undone(&[
        Pair::new("overwriting", is_write),
        Pair { prepare: with_hole, ..Pair::new("creating", is_creation) },
        Pair { prepare: with_hole, ..Pair::new("mapping", is_map_update) },
        Pair { what: "copying", which: is_creation, ..shared },
        Pair { what: "mapping a copy", which: is_map_update, ..shared },
        // The later one concerns other bytes of the object.
        Pair {
            prepare: with_hole,
            later: |sd, vdi| sd.write(vdi, b"later", 4096, 0),
            check: |fold| assert_eq!(stored(fold, "a", 5, 4096), "later"),
            ..Pair::new("creating, elsewhere", is_creation)
        },
    ]);
}

#[test]
fn whoever_waits_for_what_was_given_up_is_told_what_that_is() {
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = with_object(&sd);
    fold.give_up(&sd, Trap::Stall, is_write, || sd.write(vdi, b"first", 0, 0));
    sd.set_timeout(SOME);
    assert_eq!(sd.write(vdi, b"later", 0, 0), Err(Code::TIMEDOUT));
    let error = last_error();
    for part in ["VDI \"a\"", "WRITE_OBJ was given up", "127.0.0.1:"] {
        assert!(error.contains(part), "{error}");
    }
    sd.set_timeout(LONG);
    fold.release();
    assert_eq!(sd.write(vdi, b"later", 0, 0), Ok(()));
    assert_eq!(last_error(), "");
}

#[test]
fn zeros_that_were_given_up_do_not_undo_a_later_write() {
    none_is_undone(&[
        Pair {
            first: |sd, vdi| sd.discard(vdi, 0, OBJECT),
            ..Pair::new("a discard", is_map_update)
        },
        Pair { first: |sd, vdi| sd.write_zeroes(vdi, 0, 4096, 0), ..Pair::new("zeros", is_write) },
        Pair {
            prepare: with_shared_object,
            check: check_clone,
            first: |sd, vdi| sd.discard(vdi, 0, OBJECT),
            ..Pair::new("a discard of what is shared", is_map_update)
        },
    ]);
}

fn at_the_end(sd: &Sd) -> Vdi {
    let vdi = create(sd, "a");
    sd.write(vdi, b"zeroth", 3 * OBJECT, 0).unwrap();
    vdi
}

#[test]
fn a_shrink_that_was_given_up_takes_nothing_that_came_later() {
    none_is_undone(&[Pair {
        prepare: at_the_end,
        first: |sd, vdi| sd.resize(vdi, 2 * OBJECT),
        later: |sd, vdi| sd.write(vdi, b"later", 3 * OBJECT, 0),
        check: |fold| assert_eq!(stored(fold, "a", 5, 3 * OBJECT), "later"),
        ..Pair::new("", is_map_update)
    }]);
}

/// A snapshot that was taken while a shrink may still happen does not change afterwards.
#[test]
fn a_snapshot_is_not_changed_by_a_shrink_that_was_given_up() {
    each(&TROUBLES, |trap| {
        let fold = Fold::new();
        let sd = fold.sd();
        let vdi = at_the_end(&sd);
        fold.give_up(&sd, trap, is_map_update, || sd.resize(vdi, 2 * OBJECT));
        let done = attempt(&sd, || sd.snapshot(vdi, "tag", false));
        let before = done.then(|| stored_in_snapshot(&fold, "tag", 6, 3 * OBJECT));
        fold.release();
        thread::sleep(Duration::from_millis(100));
        if let Some(before) = before {
            assert_eq!(stored_in_snapshot(&fold, "tag", 6, 3 * OBJECT), before);
        }
    });
}

#[test]
fn a_resize_that_was_given_up_does_not_undo_a_later_one() {
    none_is_undone(&[
        Pair {
            prepare: with_object,
            first: |sd, vdi| sd.resize(vdi, 2 * OBJECT),
            later: |sd, vdi| {
                sd.resize(vdi, 6 * OBJECT)?;
                sd.write(vdi, b"later", 5 * OBJECT, 0)
            },
            check: |fold| assert_eq!(stored(fold, "a", 5, 5 * OBJECT), "later"),
            ..Pair::new("smaller", is_size_write)
        },
        Pair {
            prepare: with_object,
            first: |sd, vdi| sd.resize(vdi, 8 * OBJECT),
            later: |sd, vdi| sd.resize(vdi, 2 * OBJECT),
            check: |fold| {
                let other = fold.other();
                let vdi = other.open("a").unwrap();
                assert_eq!(other.info(vdi).unwrap().size, 2 * OBJECT);
            },
            ..Pair::new("larger", is_size_write)
        },
    ]);
}

fn take_monday(sd: &Sd, vdi: Vdi) -> Result<(), Code> {
    sd.snapshot(vdi, "monday", false).map(drop)
}

/// Tuesday's snapshot is there and exact, and nothing that was written is gone.
fn check_tuesday(fold: &Fold) {
    let found = tags(fold);
    assert!(found.iter().filter(|tag| *tag == "tuesday").count() == 1, "{found:?}");
    assert_eq!(stored_in_snapshot(fold, "tuesday", 6, 0), "second");
    assert_eq!(stored(fold, "a", 5, 0), "later");
}

#[test]
fn a_snapshot_that_was_given_up_neither_renames_another_nor_takes_writes_back() {
    let later = |sd: &Sd, vdi| {
        sd.write(vdi, b"second", 0, 0)?;
        match sd.snapshot(vdi, "tuesday", false) {
            // Of an attempt before this one.
            Ok(_) | Err(Code::VDI_EXIST) => {}
            Err(code) => return Err(code),
        }
        sd.write(vdi, b"later", 0, 0)
    };
    let pair = Pair { first: take_monday, later, check: check_tuesday, ..Pair::new("", is_write) };
    none_is_undone(&[
        Pair { what: "the tag", which: is_tag_write, ..pair },
        Pair { what: "the VDI", which: is_new_vdi, ..pair },
    ]);
}

#[test]
fn a_rollback_that_was_given_up_takes_no_later_write_back() {
    none_is_undone(&[Pair {
        prepare: with_shared_object,
        first: |sd, _| {
            let snapshot = sd.open_snapshot("a", Which::Tag("tag"))?;
            sd.rollback(snapshot)
        },
        ..Pair::new("", is_new_vdi)
    }]);
}

#[test]
fn a_deletion_that_was_given_up_does_not_reach_the_next_vdi_of_the_name() {
    each(&TROUBLES.map(|trap| [(trap, false), (trap, true)]).concat(), |(trap, empty)| {
        let fold = Fold::new();
        let sd = fold.sd();
        let vdi = create(&sd, "a");
        sd.close(vdi).unwrap();
        fold.give_up(&sd, trap, is_deletion, || sd.delete("a"));
        let again = || match sd.delete("a") {
            Ok(()) | Err(Code::NO_VDI) => sd.create("a", SIZE, None, false, true),
            Err(code) => Err(code),
        };
        sd.set_timeout(SOME);
        let next = (0..2).find_map(|_| again().ok());
        sd.set_timeout(LONG);
        let write = |vdi| if empty { Ok(()) } else { sd.write(vdi, b"data", 0, 0) };
        if let Some(vdi) = next {
            write(vdi.expect("a handle")).unwrap();
        }
        fold.release();
        if next.is_none() {
            write(soon(again).expect("a handle")).unwrap();
        }
        assert_eq!(fold.other().list().unwrap(), ["a"]);
        assert_eq!(stored(&fold, "a", 4, 0), if empty { "\0\0\0\0" } else { "data" });
    });
}

/// Frees the lock of nobody but who asked for it.
#[test]
fn a_release_that_was_given_up_does_not_free_the_lock_of_a_later_open() {
    each(&TROUBLES, |trap| {
        let Some(fold) = Fold::with_locks() else { return };
        let (sd, other) = (fold.sd(), fold.other());
        let (vdi, another) = (create(&sd, "a"), create(&sd, "b"));
        fold.give_up(&sd, trap, is_release, || sd.close(vdi));
        sd.set_timeout(SOME);
        let _ = sd.close(another);
        let open = || sd.open("a");
        let opened = (0..2).any(|_| open().is_ok());
        sd.set_timeout(LONG);
        fold.release();
        if !opened {
            soon(open);
        }
        assert_eq!(other.open("a").err(), Some(Code::VDI_LOCKED));
    });
}

#[test]
fn an_attribute_does_not_become_what_it_was_to_be_before() {
    let with_attr = |sd: &Sd| {
        let vdi = create(sd, "a");
        sd.set_attr("a", "key", b"zeroth").unwrap();
        vdi
    };
    let pair = Pair {
        prepare: with_attr,
        first: |sd, _| sd.set_attr("a", "key", b"first"),
        later: |sd, _| sd.set_attr("a", "key", b"later"),
        check: |fold| {
            let mut value = [0; 5];
            let other = fold.other();
            assert_eq!(other.attr_size("a", "key"), Ok(5));
            other.get_attr("a", "key", &mut value).unwrap();
            assert_eq!(&value, b"later");
        },
        ..Pair::new("replaced", is_attr_write)
    };
    none_is_undone(&[
        pair,
        Pair { what: "created", which: is_attr_creation, prepare: with_hole, ..pair },
        Pair {
            what: "deleted",
            which: is_attr_deletion,
            first: |sd, _| sd.delete_attr("a", "key"),
            ..pair
        },
    ]);
}

/// Writes that a close does not wait for: they end as they would have without it, and what is
/// acknowledged is there, also by whoever opens the VDI meanwhile.
#[test]
fn a_close_that_times_out_leaves_its_writers_alone() {
    const BORDER: u64 = OBJECT - 3;
    let cases = [
        Step("overwriting", Trap::Hold, is_write),
        Step("creating", Trap::Hold, is_creation),
        Step("mapping", Trap::Hold, is_map_update),
    ];
    each(&cases, |Step(what, trap, which)| {
        let prepare = if what == "overwriting" { with_object } else { with_hole };
        let fold = Fold::new();
        let sd = fold.sd();
        let vdi = prepare(&sd);
        sd.write(vdi, b"data", OBJECT, 0).unwrap();
        fold.ambush.lay(trap, which);
        thread::scope(|scope| {
            let first = scope.spawn(|| sd.write(vdi, b"first", 0, 0));
            fold.ambush.await_prey();
            // Its first half goes to the same object, and waits for that; the second one does not.
            let second = scope.spawn(|| sd.write(vdi, b"second", BORDER, 0));
            let begun = |request: &_| is_write(request) && oid(request).index() == 1;
            assert!(fold.ambush.await_request(STUCK, begun));
            sd.set_timeout(SHORT);
            let closed = sd.close(vdi);
            assert_eq!(closed, Err(Code::TIMEDOUT), "{what}");
            sd.set_timeout(SOME);
            let third = sd.open("a").and_then(|vdi| sd.write(vdi, b"third", 8192, 0));
            sd.set_timeout(LONG);
            let released = Instant::now();
            fold.ambush.release();
            let ended = [first, second].map(|writer| writer.join().unwrap());
            assert!(released.elapsed() < BOUND, "{what}: {ended:?} after a hang");
            assert_eq!(ended, [Ok(()), Ok(())], "{what}");
            assert_eq!(stored(&fold, "a", 5, 0), "first", "{what}");
            assert_eq!(stored(&fold, "a", 6, BORDER), "second", "{what}");
            if third.is_ok() {
                assert_eq!(stored(&fold, "a", 5, 8192), "third", "{what}");
            }
        });
        // And nothing is left that would be in the way.
        let vdi = sd.open("a").unwrap();
        sd.write(vdi, b"fourth", 0, 0).unwrap();
        sd.close(vdi).unwrap();
        assert_eq!(stored(&fold, "a", 6, 0), "fourth", "{what}");
    });
}

/// How the client lets go of a VDI.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Leave {
    Close,
    Disconnect,
}

/// Who has the lock next must not lose what it writes: the lock stays as long as writes may come.
#[test]
fn a_lock_is_not_released_before_writes_that_were_given_up() {
    use Leave::{Close, Disconnect};
    let cases = TROUBLES.map(|trap| [(trap, Close), (trap, Disconnect)]).concat();
    each(&cases, |(trap, leave)| {
        let Some(fold) = Fold::with_locks() else { return };
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = with_object(&sd);
        fold.give_up(&sd, trap, is_write, || sd.write(vdi, b"first", 0, 0));
        sd.set_timeout(SOME);
        let (sd, left) = match leave {
            Close => {
                let left = sd.close(vdi);
                (Some(sd), left)
            }
            Disconnect => (None, sd.disconnect()),
        };
        match other.open("a") {
            Ok(vdi) => {
                other.write(vdi, b"other", 0, 0).unwrap();
                fold.release();
                assert_eq!(stored_by(&other, vdi), "other");
            }
            Err(code) => {
                assert_eq!((code, left), (Code::VDI_LOCKED, Err(Code::TIMEDOUT)));
                fold.release();
                let Some(sd) = sd else { return };
                // It can be given back now, by whoever has it.
                let vdi = soon(|| sd.open("a"));
                soon(|| sd.close(vdi));
                soon(|| other.open("a"));
            }
        }
    });
}

fn stored_by(sd: &Sd, vdi: Vdi) -> String {
    sd.refresh(vdi).unwrap();
    String::from_utf8_lossy(&content(sd, vdi, 5, 0)).into_owned()
}

/// It reads to the end what servers have to say, and they say it to who only stopped sending.
#[test]
fn closing_the_connection_waits_for_what_still_happens() {
    let Some(fold) = Fold::with_locks() else { return };
    let (sd, other) = (fold.sd(), fold.other());
    let vdi = with_object(&sd);
    fold.give_up(&sd, Trap::Hold, is_write, || sd.write(vdi, b"first", 0, 0));
    thread::scope(|scope| {
        let closing = scope.spawn(|| sd.disconnect());
        let limit = Instant::now() + Duration::from_millis(500);
        while Instant::now() < limit {
            assert_eq!(other.open("a"), Err(Code::VDI_LOCKED), "before the write is over");
        }
        fold.ambush.release();
        assert_eq!(closing.join().unwrap(), Ok(()));
    });
    let vdi = other.open("a").unwrap();
    other.write(vdi, b"other", 0, 0).unwrap();
    assert!(fold.first.await_idle(STUCK));
    assert_eq!(stored_by(&other, vdi), "other");
}

#[test]
fn a_close_of_a_connection_that_gets_no_answer_ends() {
    let Some(fold) = Fold::with_locks() else { return };
    let sd = fold.sd();
    let vdi = with_object(&sd);
    fold.give_up(&sd, Trap::Stall, is_write, || sd.write(vdi, b"first", 0, 0));
    let begun = Instant::now();
    assert_eq!(sd.disconnect(), Err(Code::TIMEDOUT), "the lock cannot be released");
    assert!(begun.elapsed() < BOUND);
}

/// A discard whose object is removed late; what is known of that outlasts a refresh.
#[test]
fn a_write_after_a_discard_and_a_refresh_stays() {
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = create(&sd, "a");
    // The removal comes 10 ms after the update: sooner, in most rounds, than what is held up by it.
    for round in 0..10 {
        sd.write(vdi, b"first", 0, 0).unwrap();
        fold.give_up(&sd, Trap::Hold, is_map_update, || sd.discard(vdi, 0, OBJECT));
        thread::scope(|scope| {
            let next = scope.spawn(|| {
                sd.refresh(vdi).unwrap();
                sd.write(vdi, b"later", 0, 0).unwrap();
            });
            fold.ambush.release();
            next.join().unwrap();
        });
        thread::sleep(Duration::from_millis(50));
        let mut found = [0; 5];
        assert_eq!((sd.read(vdi, &mut found, 0), &found), (Ok(()), b"later"), "round {round}");
        assert_eq!(stored(&fold, "a", 5, 0), "later", "round {round}");
    }
}

#[test]
fn an_open_that_was_given_up_does_not_lock_us_out() {
    let cases =
        [Trap::HoldAnswer, Trap::Hold, Trap::Stall].map(|trap| [(trap, false), (trap, true)]);
    each(&cases.concat(), |(trap, by_another)| {
        let Some(fold) = Fold::with_locks() else { return };
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = with_object(&sd);
        sd.close(vdi).unwrap();
        fold.give_up(&sd, trap, is_lock, || sd.open("a"));
        fold.release();
        // Whoever opens it: the lock that came too late is nobody's.
        if by_another {
            assert_eq!(sd.disconnect(), Ok(()));
            soon(|| other.open("a"));
        } else {
            let vdi = soon(|| sd.open("a"));
            assert_eq!(other.open("a").err(), Some(Code::VDI_LOCKED));
            sd.close(vdi).unwrap();
            other.open("a").unwrap();
        }
    });
}

/// Nothing tells it from another client's on the same gateway (5.15): two holders would be worse
/// than none.
/// A rollback that has found the VDI open takes no lock for it once that is closed.
#[test]
fn a_rollback_beside_closes_leaves_no_lock() {
    let Some(fold) = Fold::with_locks() else { return };
    let sd = fold.other();
    let vdi = with_object(&sd);
    sd.snapshot(vdi, "tag", false).unwrap();
    sd.close(vdi).unwrap();
    let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();
    for round in 0..12 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let Ok(vdi) = sd.open("a") else { return };
                let _ = sd.write(vdi, b"later", 0, 0);
                sd.close(vdi).unwrap();
            });
            (0..3).for_each(|_| _ = sd.rollback(snapshot));
        });
        let other = fold.other();
        let opened = other.open("a");
        assert!(opened.is_ok(), "round {round}: nobody holds the lock");
    }
}

#[test]
fn a_lock_whose_answer_was_lost_is_not_taken_for_ours() {
    let Some(fold) = Fold::with_locks() else { return };
    let (sd, other) = (fold.sd(), fold.other());
    let vdi = with_object(&sd);
    sd.close(vdi).unwrap();
    fold.ambush.lay(Trap::Lose, is_lock);
    assert_eq!(sd.open("a").err(), Some(Code::VDI_LOCKED));
    fold.ambush.await_prey();
    assert_eq!(other.open("a").err(), Some(Code::VDI_LOCKED));
}

#[test]
fn a_discard_that_failed_does_not_slow_down_those_after_it() {
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = sd.create("a", 16 * OBJECT, None, false, true).unwrap().expect("a handle");
    for index in 0..16 {
        sd.write(vdi, b"data", index * OBJECT, 0).unwrap();
    }
    fold.ambush.lay(Trap::Refuse(SdResult::EIO), is_map_update);
    assert!(sd.discard(vdi, 0, OBJECT).is_err());
    fold.ambush.release();
    let begun = Instant::now();
    for index in 1..16 {
        sd.discard(vdi, index * OBJECT, OBJECT).unwrap();
    }
    sd.close(vdi).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(stored(&fold, "a", 4, 0), "data");
}

#[test]
fn a_preallocation_that_ran_out_of_time_does_not_stay_half_made() {
    let cases =
        [Step("creating", Trap::Hold, is_creation), Step("mapping", Trap::Hold, is_map_update)];
    each(&cases, |Step(_, trap, which)| {
        let fold = Fold::new();
        let sd = fold.sd();
        fold.give_up(&sd, trap, which, || sd.create("a", SIZE, None, true, false));
        fold.release();
        let whole = |sd: &Sd| {
            let vdi = sd.open("a")?;
            let info = sd.info(vdi)?;
            sd.close(vdi)?;
            Ok::<_, Code>(info.allocated == SIZE)
        };
        // It may have been made, or not, but not in part.
        soon(|| match sd.create("a", SIZE, None, true, false) {
            Err(Code::VDI_EXIST) if whole(&sd) == Ok(true) => Ok(None),
            result => result,
        });
        assert_eq!(whole(&sd), Ok(true));
    });
}

/// What meets nothing that is pending goes through the next gateway, and comes back.
#[test]
fn the_other_gateways_serve_while_one_is_silent() {
    const OBJECTS: u64 = 200;
    const SMALL: u64 = 1 << 20;
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = sd.create("a", OBJECTS * SMALL, Some(SMALL), true, true).unwrap();
    let vdi = vdi.expect("a handle");
    let next = std::sync::atomic::AtomicU64::new(1);
    let write = || {
        let object = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        sd.write(vdi, b"data", object * SMALL, 0)
    };
    // Operations begin all the time, until one of them gets through.
    let gets_through = |silent: &Wolf| {
        let begun = Instant::now();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        thread::scope(|scope| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) && begun.elapsed() < SOON {
                let done = done.clone();
                let write = &write;
                scope.spawn(move || {
                    if write().is_ok() {
                        done.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                });
                thread::sleep(Duration::from_millis(200));
            }
            let in_time = done.load(std::sync::atomic::Ordering::Relaxed);
            for _ in 0..if in_time { 30 } else { 0 } {
                assert_eq!(write(), Ok(()), "while one gateway is silent");
            }
            let all = begun.elapsed();
            silent.go_on();
            assert!(in_time && all < BOUND, "{in_time}, {all:?}");
        });
    };
    fold.ambush.lay(Trap::Stall, is_write);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| sd.write(vdi, b"stuck", 0, 0));
        fold.ambush.await_prey();
        gets_through(&fold.first);
        assert_eq!(stuck.join().unwrap(), Ok(()), "it goes on with its gateway");
    });
    fold.second.stall();
    gets_through(&fold.second);
    let written = next.load(std::sync::atomic::Ordering::Relaxed);
    for object in 1..written {
        assert_eq!(stored(&fold, "a", 4, object * SMALL), "data");
    }
    assert_eq!(stored(&fold, "a", 5, 0), "stuck");
}

/// A write that goes on for long after a gateway was stopped, and others that were given up by
/// then: what is read is never older than what was acknowledged.
#[test]
fn reads_go_on_beside_writes_that_were_given_up() {
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = with_object(&sd);
    sd.write(vdi, b"zeroth", OBJECT, 0).unwrap();
    fold.give_up(&sd, Trap::Stall, is_write, || sd.write(vdi, b"first", 0, 0));
    sd.set_timeout(SOME);
    let mut found = [0; 6];
    // The first may have to find out that the gateway is silent.
    let done = (0..5).any(|_| sd.read(vdi, &mut found, OBJECT).is_ok());
    assert!(done && &found == b"zeroth");
    let done = (0..5).any(|_| sd.write(vdi, b"second", 2 * OBJECT, 0).is_ok());
    assert!(done, "a write that has nothing to do with it");
    fold.release();
    sd.set_timeout(LONG);
    sd.write(vdi, b"later", 0, 0).unwrap();
    assert_eq!(stored(&fold, "a", 5, 0), "later");
}

/// One write of many objects, of which servers hold up the first ones.
#[test]
fn a_snapshot_has_all_of_a_write_or_nothing() {
    const SMALL: u64 = 1 << 20;
    const LEN: usize = 40 * SMALL as usize;
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = sd.create("a", LEN as u64, Some(SMALL), false, true).unwrap().expect("a handle");
    sd.write(vdi, &vec![b'a'; LEN], 0, 0).unwrap();
    thread::scope(|scope| {
        fold.ambush.lay(Trap::HoldAll, is_write);
        let writer = scope.spawn(|| sd.write(vdi, &vec![b'b'; LEN], 0, 0));
        fold.ambush.await_prey();
        let taking = scope.spawn(|| sd.snapshot(vdi, "tag", false));
        assert!(fold.ambush.await_answer(STUCK, is_lookup));
        // It waits, for the writer to end.
        assert!(!fold.ambush.await_request(Duration::from_millis(300), is_tag_write));
        fold.ambush.release();
        writer.join().unwrap().unwrap();
        taking.join().unwrap().unwrap();
    });
    let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();
    let found = content(&sd, snapshot, LEN, 0);
    let new = found.chunks(SMALL as usize).filter(|object| object[0] == b'b').count();
    assert!(new == 0 || new == 40, "{new} of 40 objects are new");
}

/// A node that hangs: gateways answer nothing that other nodes have a part in.
struct Hung;

impl Flock for Hung {
    fn request(&self, _: usize, request: &sheepdog_proto::Request, _: &[u8]) -> Fate {
        match request.opcode {
            op::READ_VDIS | op::GET_CLUSTER_DEFAULT | op::FLUSH_VDI => Fate::Pass,
            opcode if op::is_internal(opcode) && opcode != op::GET_VDI_ATTR => Fate::Pass,
            _ => Fate::Hold(Box::new(|| thread::sleep(STUCK))),
        }
    }
}

#[test]
fn a_hung_node_does_not_keep_clients_from_connecting() {
    let server = Server::lamb(&["--mimic-1.0"]);
    let wolf = Wolf::start(server.socket_address(), Arc::new(Hung)).expect("a port");
    let begun = Instant::now();
    let connected = Sd::connect(&wolf.address().to_string()).map(drop);
    assert!(begun.elapsed() < BOUND, "{connected:?} after {:?}", begun.elapsed());
    assert_eq!(connected, Ok(()));
}

/// A NEW_VDI that failed half-way leaves a VDI that lookups take for a snapshot, and whose inode
/// says that it is none.
#[test]
fn a_deletion_of_a_snapshot_never_deletes_the_working_vdi() {
    let fold = Fold::new();
    let (sd, other) = (fold.sd(), fold.other());
    let vdi = with_object(&other);
    other.snapshot(vdi, "tag", false).unwrap();
    other.write(vdi, b"later", OBJECT, 0).unwrap();
    fold.ambush.tamper(|request, _, payload| {
        let header = is_inode_read(request) && request.obj().offset.get() == 0;
        if let Some(field) = payload.get_mut(SNAP_CTIME_OFFSET as usize..).filter(|_| header) {
            field[..8].fill(0);
        }
    });
    let result = sd.delete_snapshot("a", Which::Tag("tag"));
    assert_eq!(fold.other().list().unwrap(), ["a"], "{result:?}");
    assert_eq!(stored(&fold, "a", 6, 0), "zeroth");
    assert_eq!(stored(&fold, "a", 5, OBJECT), "later");
    assert_eq!(stored_in_snapshot(&fold, "tag", 6, 0), "zeroth");
    assert!(result.is_err());
}

/// Other clients leave there what was in their memory.
#[test]
fn names_and_tags_end_with_their_first_zero_byte() {
    let fold = Fold::new();
    let (sd, other) = (fold.sd(), fold.other());
    let vdi = with_object(&other);
    other.snapshot(vdi, "tag", false).unwrap();
    fold.ambush.tamper(|request, _, payload| {
        if !is_inode_read(request) || request.obj().offset.get() != 0 {
            return;
        }
        for field in payload.chunks_mut(NAME_LEN).take(2) {
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(0);
            if end > 0 {
                field[end + 1..].fill(0xee);
            }
        }
    });
    assert_eq!(sd.list().unwrap(), ["a"]);
    let found = sd.snapshots("a", |handle| sd.info(handle).unwrap().tag);
    assert_eq!(found, Ok(vec!["tag".to_owned()]));
    let vdi = sd.open("a").unwrap();
    assert_eq!(sd.info(vdi).unwrap().name, "a");
    assert_eq!(sd.snapshot(vdi, "tag", false), Err(Code::VDI_EXIST));
    sd.snapshot(vdi, "more", false).unwrap();
    sd.delete_snapshot("a", Which::Tag("tag")).unwrap();
    assert_eq!(tags(&fold), ["more"]);
}
