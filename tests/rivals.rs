//! Two clients that do not know of each other (docs/protocol.md 4.2, 5.7, 5.8): servers order
//! nothing between the requests of one operation, and another client's fall in between. Each test
//! keeps one request back until the other client is done, on a lamb with a real server's hazards.

mod common;

use std::fmt;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use sheepdog_proto::SdResult;

use common::ambush::{
    Fold, SHORT, Step, Trap, Which as Request, each, is_change, is_inode_read, is_lookup,
    is_new_vdi, is_tag_write,
};
use common::api::{Code, Sd, Vdi, Which};

const OBJECT: u64 = 4 << 20;
const SIZE: u64 = 4 * OBJECT;

fn create(sd: &Sd, name: &str) -> Vdi {
    sd.create(name, SIZE, None, false, true).unwrap().expect("a handle")
}

fn content(sd: &Sd, vdi: Vdi, len: usize, offset: u64) -> Result<String, Code> {
    let mut buf = vec![0xa5; len];
    sd.read(vdi, &mut buf, offset)?;
    Ok(String::from_utf8_lossy(&buf).into_owned())
}

/// What is stored, as a client sees it that knows nothing.
fn stored(fold: &Fold, name: &str, len: usize, offset: u64) -> String {
    let other = fold.other();
    let vdi = other.open(name).unwrap();
    content(&other, vdi, len, offset).unwrap()
}

fn stored_in_snapshot(fold: &Fold, tag: &str, len: usize, offset: u64) -> Result<String, Code> {
    let other = fold.other();
    let snapshot = other.open_snapshot("a", Which::Tag(tag))?;
    content(&other, snapshot, len, offset)
}

/// The name stands for another VDI as soon as the one that was found is frozen.
#[test]
fn a_vdi_is_opened_though_another_client_takes_a_snapshot_of_it() {
    let fold = Fold::new();
    let (sd, other) = (fold.sd(), fold.other());
    let seen = create(&other, "a");
    let opened = meanwhile(
        &fold,
        Trap::Hold,
        is_inode_read,
        || sd.open("a").map(drop),
        || _ = other.snapshot(seen, "tag", false).unwrap(),
    );
    assert_eq!(opened, Ok(()));
}

/// How many snapshots have the tag.
fn tagged(fold: &Fold, tag: &str) -> usize {
    let other = fold.other();
    let tags = other.snapshots("a", |handle| other.info(handle).unwrap().tag).unwrap();
    tags.iter().filter(|found| *found == tag).count()
}

/// Does something while an operation is held up at a request; the operation's result.
fn meanwhile<T: Send>(
    fold: &Fold,
    trap: Trap,
    which: Request,
    operation: impl FnOnce() -> Result<T, Code> + Send,
    rival: impl FnOnce(),
) -> Result<T, Code> {
    fold.ambush.lay(trap, which);
    let (result, met) = fold.race(operation, rival);
    assert!(met, "there was no such request");
    result
}

/// Where a snapshot can be overtaken.
const STEPS: [Step; 4] = [
    Step("tag", Trap::Hold, is_tag_write),
    Step("tag", Trap::HoldAnswer, is_tag_write),
    Step("NEW_VDI", Trap::Hold, is_new_vdi),
    Step("NEW_VDI", Trap::HoldAnswer, is_new_vdi),
];

#[test]
fn two_clients_that_snapshot_one_vdi_lose_neither_snapshots_nor_writes() {
    each(&STEPS, |Step(what, trap, which)| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        let seen = other.open("a").unwrap();
        let taken = meanwhile(
            &fold,
            trap,
            which,
            || sd.snapshot(vdi, "ours", false),
            || {
                other.snapshot(seen, "theirs", false).unwrap();
                other.write(seen, b"later", 0, 0).unwrap();
            },
        );
        assert_eq!(stored(&fold, "a", 5, 0), "later", "{what}: {taken:?}");
        assert_eq!(tagged(&fold, "theirs"), 1, "{what}: {taken:?}");
        assert_eq!(stored_in_snapshot(&fold, "theirs", 5, 0).as_deref(), Ok("first"), "{what}");
        // One that failed may be there, and another one may not.
        let found = tagged(&fold, "ours");
        assert!(found == 1 || found == 0 && taken.is_err(), "{what}: {taken:?}, {found} found");
        if found == 1 {
            let ours = stored_in_snapshot(&fold, "ours", 5, 0).unwrap();
            assert!(["first", "later"].contains(&&*ours), "{what}: {ours}");
        }
        // Both go on as the same VDI.
        other.write(seen, b"more", OBJECT, 0).unwrap();
        sd.write(vdi, b"most", 2 * OBJECT, 0).unwrap();
        assert_eq!(stored(&fold, "a", 4, OBJECT), "more", "{what}");
        assert_eq!(stored(&fold, "a", 4, 2 * OBJECT), "most", "{what}");
        assert_eq!(stored(&fold, "a", 5, 0), "later", "{what}");
    });
}

#[test]
fn of_two_clients_that_take_one_tag_one_has_it() {
    each(&STEPS, |Step(what, trap, which)| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        let seen = other.open("a").unwrap();
        let mut theirs = Ok(None);
        let ours = meanwhile(
            &fold,
            trap,
            which,
            || sd.snapshot(vdi, "tag", false),
            || {
                theirs = other.snapshot(seen, "tag", false);
                other.write(seen, b"later", 0, 0).unwrap();
            },
        );
        let result = format!("{what}: {ours:?}, {theirs:?}");
        assert_eq!(tagged(&fold, "tag"), 1, "{result}");
        assert_eq!([ours, theirs].iter().filter(|taken| taken.is_ok()).count(), 1, "{result}");
        assert_eq!(stored_in_snapshot(&fold, "tag", 5, 0).as_deref(), Ok("first"), "{result}");
        assert_eq!(stored(&fold, "a", 5, 0), "later", "{result}");
    });
}

#[test]
fn of_two_threads_that_take_one_tag_one_has_it() {
    let fold = Fold::new();
    let sd = fold.sd();
    let vdi = create(&sd, "a");
    for round in 0..5 {
        let tag = format!("tag {round}");
        fold.ambush.lay(Trap::HoldAnswer, is_lookup);
        let start = Barrier::new(2);
        let taken = thread::scope(|scope| {
            let threads = [0, 1].map(|_| {
                scope.spawn(|| {
                    start.wait();
                    sd.snapshot(vdi, &tag, false)
                })
            });
            fold.ambush.await_prey();
            // The other one has asked as well by then, if it does not wait for the first.
            fold.ambush.await_answer(Duration::from_millis(300), is_lookup);
            fold.ambush.release();
            threads.map(|thread| thread.join().unwrap().map(drop))
        });
        assert_eq!(tagged(&fold, &tag), 1, "{taken:?}");
        let loser = taken.iter().position(Result::is_err);
        let loser = loser.unwrap_or_else(|| panic!("round {round}: both succeed"));
        assert_eq!(taken[loser], Err(Code::VDI_EXIST));
        assert_eq!(taken[1 - loser], Ok(()));
    }
}

/// A snapshot with "first" in each of two objects, of which the working VDI shares the second.
fn with_snapshot(sd: &Sd) -> Vdi {
    let vdi = create(sd, "a");
    for offset in [0, OBJECT] {
        sd.write(vdi, b"first", offset, 0).unwrap();
    }
    sd.snapshot(vdi, "tag", false).unwrap();
    sd.write(vdi, b"later", 0, 0).unwrap();
    vdi
}

fn assert_exact_or_error(found: &Result<String, Code>) {
    assert!(found.as_ref().map_or(true, |found| found == "first"), "{found:?}");
}

/// The same of the snapshot of [`with_snapshot`], however it is opened.
fn assert_whole_or_not_there(fold: &Fold) {
    let other = fold.other();
    for which in [Which::Tag("tag"), Which::Id(1)] {
        let Ok(snapshot) = other.open_snapshot("a", which) else { continue };
        for offset in [0, OBJECT] {
            assert_exact_or_error(&content(&other, snapshot, 5, offset));
        }
        other.close(snapshot).unwrap();
    }
}

#[test]
fn a_snapshot_that_another_client_deleted_never_reads_as_zeros() {
    each(&[true, false], |map_is_known| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        with_snapshot(&other);
        let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();
        if map_is_known {
            assert_eq!(content(&sd, snapshot, 5, 0).as_deref(), Ok("first"));
        }
        other.delete_snapshot("a", Which::Tag("tag")).unwrap();
        thread::sleep(Duration::from_millis(100));
        for offset in [0, OBJECT] {
            assert_exact_or_error(&content(&sd, snapshot, 5, offset));
        }
        // Nor does it look like a hole.
        let extents = sd.block_status(snapshot, 0, SIZE);
        let extents = extents.map(|extents| extents.len());
        assert!(extents.is_err() || map_is_known, "{extents:?}");
    });
}

/// Before and after each request by which a deletion changes anything, one after the other.
fn at_each_change(test: impl Fn(&Fold, Trap, usize) -> bool + Sync) {
    each(&[Trap::Hold, Trap::HoldAnswer], |trap| {
        let met = (0..100).take_while(|nth| test(&Fold::new(), trap, *nth)).count();
        assert!((1..100).contains(&met), "{met} changes");
    });
}

#[test]
fn a_snapshot_that_is_being_deleted_never_reads_as_zeros() {
    at_each_change(|fold, trap, nth| {
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = with_snapshot(&other);
        fold.ambush.lay_after(nth, trap, is_change);
        let delete = || sd.delete_snapshot("a", Which::Tag("tag"));
        let (deleted, met) = fold.race(delete, || {
            assert_whole_or_not_there(fold);
            // A rollback or a clone has the whole snapshot, or none of it.
            let Ok(snapshot) = other.open_snapshot("a", Which::Id(1)) else { return };
            if other.clone_vdi(snapshot, "clone", Which::Handle, false).is_ok() {
                assert_eq!(stored(fold, "clone", 5, 0), "first", "{trap:?} {nth}");
            }
            let rolled_back = other.rollback(snapshot);
            let found = content(&other, vdi, 5, 0);
            let want = if rolled_back.is_ok() { "first" } else { "later" };
            assert_eq!(found.as_deref(), Ok(want), "{trap:?} {nth}: {rolled_back:?}");
            other.close(snapshot).unwrap();
        });
        assert_eq!(deleted, Ok(()), "{trap:?} {nth}");
        // What is removed is removed late.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(stored(fold, "a", 5, OBJECT), "first", "{trap:?} {nth}");
        met
    });
}

/// Whatever is left is the snapshot, at whichever request the deletion broke off.
#[test]
fn a_deletion_that_breaks_off_leaves_no_half_of_a_snapshot() {
    at_each_change(|fold, trap, nth| {
        let (sd, other) = (fold.sd(), fold.other());
        with_snapshot(&other);
        fold.ambush.lay_after(nth, trap, is_change);
        sd.set_timeout(SHORT);
        let deleted = sd.delete_snapshot("a", Which::Tag("tag"));
        let met = fold.ambush.met() > 0;
        fold.ambush.lay(Trap::Refuse(SdResult::EIO), |_| true);
        drop(sd);
        fold.release();
        assert_whole_or_not_there(fold);
        // Once more, where there is something left to be deleted.
        match other.delete_snapshot("a", Which::Tag("tag")) {
            Ok(()) | Err(Code::NO_TAG) => {}
            Err(code) => panic!("{trap:?} {nth}: {code} after {deleted:?}"),
        }
        assert_eq!(tagged(fold, "tag"), 0);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(stored(fold, "a", 5, 0), "later");
        assert_eq!(stored(fold, "a", 5, OBJECT), "first");
        met
    });
}

/// Before each request of a snapshot: it is there and whole, or nothing is.
#[test]
fn a_snapshot_of_a_vdi_that_is_deleted_meanwhile_is_whole_or_not_there() {
    const LAST: usize = 30;
    let met = (0..LAST).take_while(|nth| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        fold.ambush.lay_after(*nth, Trap::Hold, |_| true);
        let snapshot = || sd.snapshot(vdi, "tag", false);
        let (taken, met) = fold.race(snapshot, || other.delete("a").unwrap());
        let found = fold.other().list().unwrap();
        if !met {
            assert!(taken.is_ok(), "{taken:?}");
            return false;
        }
        assert_eq!(found, [""; 0], "request {nth}: {taken:?}");
        let tags = other.snapshots("a", |handle| other.info(handle).unwrap().tag);
        let want: &[&str] = if taken.is_ok() { &["tag"] } else { &[] };
        assert_eq!(tags.unwrap_or_default(), want, "request {nth}: {taken:?}");
        if taken.is_ok() {
            assert_eq!(stored_in_snapshot(&fold, "tag", 5, 0).as_deref(), Ok("first"));
        }
        true
    });
    assert!((5..LAST).contains(&met.count()));
}

#[test]
fn a_clone_of_a_snapshot_that_is_deleted_meanwhile_fails() {
    let fold = Fold::new();
    let (sd, other) = (fold.sd(), fold.other());
    with_snapshot(&other);
    let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();
    let cloned = meanwhile(
        &fold,
        Trap::Hold,
        is_new_vdi,
        || sd.clone_vdi(snapshot, "clone", Which::Handle, false).map(drop),
        || other.delete_snapshot("a", Which::Tag("tag")).unwrap(),
    );
    assert!(cloned.is_err(), "it is {:?}", stored(&fold, "clone", 5, 0));
    assert_eq!(fold.other().list().unwrap(), ["a"]);
}

#[test]
fn a_rollback_to_a_snapshot_that_is_deleted_meanwhile_changes_nothing() {
    each(&[true, false], |is_open| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        with_snapshot(&other);
        let vdi = is_open.then(|| sd.open("a").unwrap());
        let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();
        let rolled_back = meanwhile(
            &fold,
            Trap::Hold,
            is_new_vdi,
            || sd.rollback(snapshot),
            || other.delete_snapshot("a", Which::Tag("tag")).unwrap(),
        );
        // What is removed is removed late.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(stored(&fold, "a", 5, 0), "later", "{rolled_back:?}");
        assert_eq!(stored(&fold, "a", 5, OBJECT), "first", "{rolled_back:?}");
        assert!(rolled_back.is_err());
        if let Some(vdi) = vdi {
            assert_eq!(content(&sd, vdi, 5, 0).as_deref(), Ok("later"));
            sd.write(vdi, b"more", 0, 0).unwrap();
            assert_eq!(stored(&fold, "a", 4, 0), "more");
        }
    });
}

/// What one does with a handle; whether it succeeded.
#[derive(Clone, Copy)]
struct Use(&'static str, fn(&Sd, Vdi) -> Result<(), Code>);

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const USES: [Use; 9] = [
    Use("write", |sd, vdi| sd.write(vdi, b"stale", 0, 0)),
    Use("write to a hole", |sd, vdi| sd.write(vdi, b"stale", 2 * OBJECT, 0)),
    Use("zeros", |sd, vdi| sd.write_zeroes(vdi, 0, 4096, 0)),
    Use("discard", |sd, vdi| sd.discard(vdi, 0, OBJECT)),
    Use("resize", |sd, vdi| sd.resize(vdi, OBJECT)),
    Use("snapshot", |sd, vdi| sd.snapshot(vdi, "stale", false).map(drop)),
    Use("refresh and write", |sd, vdi| {
        sd.refresh(vdi)?;
        sd.write(vdi, b"stale", 0, 0)
    }),
    Use("refresh and read", |sd, vdi| {
        sd.refresh(vdi)?;
        content(sd, vdi, 5, 0).map(drop)
    }),
    Use("read", |sd, vdi| {
        let found = content(sd, vdi, 5, 0)?;
        assert_ne!(found, "other", "another VDI's data");
        Err(Code::NO_VDI)
    }),
];

/// A VDI that another client has deleted does not become the next one of its name.
#[test]
fn a_handle_does_not_follow_into_another_vdi_of_the_name() {
    each(&USES, |Use(what, stale)| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        other.delete("a").unwrap();
        let theirs = create(&other, "a");
        for offset in [0, 3 * OBJECT] {
            other.write(theirs, b"other", offset, 0).unwrap();
        }
        let result = stale(&sd, vdi);
        for offset in [0, 3 * OBJECT] {
            assert_eq!(stored(&fold, "a", 5, offset), "other", "{what}: {result:?}");
        }
        assert_eq!(stored(&fold, "a", 5, 2 * OBJECT), "\0\0\0\0\0", "{what}: {result:?}");
        assert_eq!(tagged(&fold, "stale"), 0, "{what}: {result:?}");
        assert!(result.is_err(), "{what}");
        // The other handle is not disturbed.
        other.write(theirs, b"more", OBJECT, 0).unwrap();
        assert_eq!(stored(&fold, "a", 4, OBJECT), "more", "{what}");
    });
}

/// The index is a tree, of which whole nodes are written: also those entries that another client
/// has changed.
#[test]
fn two_clients_that_write_to_a_hypervolume_in_turn_lose_nothing() {
    let fold = Fold::new();
    let clients = [fold.other(), fold.other()];
    let first = clients[0].create_hypervolume("a", 64 * OBJECT).unwrap();
    let vdis = [first, clients[1].open("a").unwrap()];
    let write = |turn: usize, index: u64| {
        let data = format!("at {index:02}");
        clients[turn].write(vdis[turn], data.as_bytes(), index * OBJECT, 0).unwrap();
    };
    // Entries that are there, and empty: changing them leaves the node as long as it was.
    (0..8).for_each(|index| write(0, index));
    clients[0].discard(first, 0, 4 * OBJECT).unwrap();
    for (sd, vdi) in clients.iter().zip(vdis) {
        // Both know the tree.
        assert_eq!(content(sd, vdi, 5, 0).as_deref(), Ok("\0\0\0\0\0"));
        assert_eq!(content(sd, vdi, 5, 7 * OBJECT).as_deref(), Ok("at 07"));
    }
    for index in 0..4 {
        write(1, index);
        write(0, 8 + index);
    }
    clients[1].discard(vdis[1], 4 * OBJECT, OBJECT).unwrap();
    write(0, 12);
    for index in 0..13 {
        let want = if index == 4 { "\0\0\0\0\0".into() } else { format!("at {index:02}") };
        assert_eq!(stored(&fold, "a", 5, index * OBJECT), want);
    }
}

#[test]
fn a_snapshot_does_not_undo_another_clients_resize() {
    each(&STEPS, |Step(what, trap, which)| {
        let fold = Fold::new();
        let (sd, other) = (fold.sd(), fold.other());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        let seen = other.open("a").unwrap();
        let taken = meanwhile(
            &fold,
            trap,
            which,
            || sd.snapshot(vdi, "tag", false),
            || {
                other.resize(seen, 6 * OBJECT).unwrap();
                other.write(seen, b"later", 5 * OBJECT, 0).unwrap();
            },
        );
        let reader = fold.other();
        let now = reader.open("a").unwrap();
        assert_eq!(reader.info(now).unwrap().size, 6 * OBJECT, "{what}: {taken:?}");
        assert_eq!(stored(&fold, "a", 5, 5 * OBJECT), "later", "{what}: {taken:?}");
        let ours = content(&sd, vdi, 5, 5 * OBJECT);
        assert_eq!(ours.as_deref(), Ok("later"), "{what}: {taken:?}");
        let found = tagged(&fold, "tag");
        assert!(found == 1 || found == 0 && taken.is_err(), "{what}: {taken:?}, {found} found");
    });
}
