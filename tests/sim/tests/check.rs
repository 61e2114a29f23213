//! The checker, on histories made by hand: good ones pass, and each kind of bad one fails.

use sim::check::{
    ClientId, Frame, Inode, Kind, Of, Outcome, Phase, Record, Rest, Seen, Tick, check,
};
use sim::error::code;
use sim::ops::{Action, OpId, Value, Which};

const A: u8 = 0;
const SNAP: Of = Of { name: A, vid: 7, tag: Some(0) };

/// A history, which everything that is added comes after.
struct History {
    records: Vec<Record>,
    rest: Rest,
    frame: Frame,
    now: Tick,
}

impl History {
    /// One client has created and opened a VDI of 8 sectors.
    fn new() -> History {
        let (rest, frame) = (Rest::default(), Frame { clients: 2, ..Frame::default() });
        let mut history = History { records: Vec::new(), rest, frame, now: 0 };
        let inode = Inode { vid: 8, name: A, tag: None, is_snapshot: false, hidden: false };
        history.rest.inodes.push(inode);
        let create =
            Action::Create { name: A, sectors: 8, shift: 20, hyper: false, prealloc: false };
        history.done(1, create, Seen::Nothing);
        history.done(1, Action::Open { name: A }, Seen::Nothing).alone = true;
        history
    }

    fn tick(&mut self) -> Tick {
        self.now += 10;
        self.now
    }

    fn add(&mut self, client: ClientId, action: Action, outcome: Outcome) -> &mut Record {
        let (begin, end) = (self.tick(), self.tick());
        let opened =
            self.records.iter().rev().find(|record| {
                record.client == client && matches!(record.action, Action::Open { .. })
            });
        let handle = opened.map(|record| record.id);
        let id = self.records.len() as OpId;
        self.records.push(Record {
            id,
            client,
            action,
            begin,
            end: Some(end),
            began_at: Default::default(),
            ended_at: Default::default(),
            outcome,
            handle,
            of: None,
            alone: false,
            phase: Phase::Schedule,
        });
        self.records.last_mut().expect("just added")
    }

    fn done(&mut self, client: ClientId, action: Action, seen: Seen) -> &mut Record {
        self.add(client, action, Outcome::Done(seen))
    }

    fn lost(&mut self, client: ClientId, action: Action) -> OpId {
        self.add(client, action, Outcome::Failed(code::TIMEDOUT, "late".into())).id
    }

    fn write(&mut self, client: ClientId, at: u64, len: u64) -> OpId {
        self.done(client, Action::Write { name: A, at, len }, Seen::Nothing).id
    }

    fn read(&mut self, client: ClientId, at: u64, value: Value) -> &mut Record {
        let seen = Seen::Sectors(vec![(at, value)]);
        self.done(client, Action::Read { name: A, at, len: 1 }, seen)
    }

    fn snapshot(&mut self, client: ClientId) -> OpId {
        let inode = Inode { vid: 7, name: A, tag: Some(0), is_snapshot: true, hidden: false };
        self.rest.inodes.push(inode);
        self.done(client, Action::Snapshot { name: A, tag: 0 }, Seen::Vid(7)).id
    }

    fn read_snapshot(&mut self, client: ClientId, sectors: &[(u64, Value)]) {
        let at = sectors.first().map_or(0, |(at, _)| *at);
        let action = Action::ReadSnap { slot: 0, at, len: sectors.len() as u64 };
        self.done(client, action, Seen::Sectors(sectors.to_vec())).of = Some(SNAP);
    }

    fn open(&mut self, client: ClientId) {
        self.done(client, Action::Open { name: A }, Seen::Nothing).alone = true;
    }

    fn close(&mut self, client: ClientId) {
        self.done(client, Action::Close { name: A }, Seen::Nothing).alone = true;
    }

    /// The operation began before that other one ended, and ended after it.
    fn beside(&mut self, id: OpId, other: OpId) {
        let (begin, end) = (self.records[other as usize].begin, self.records[other as usize].end);
        let record = &mut self.records[id as usize];
        record.begin = begin + 1;
        record.end = end.map(|end| end + 1);
    }

    fn kinds(&self) -> Vec<Kind> {
        let found = check(&self.records, &self.rest, self.frame);
        found.iter().map(|violation| violation.kind).collect()
    }

    #[track_caller]
    fn passes(&self) {
        let found = check(&self.records, &self.rest, self.frame);
        assert!(found.is_empty(), "{found:?}");
    }

    #[track_caller]
    fn fails(&self, kind: Kind) {
        assert!(self.kinds().contains(&kind), "{:?}", self.kinds());
    }
}

#[test]
fn a_read_gives_what_was_written_last() {
    let mut h = History::new();
    h.read(1, 0, Value::Zero);
    let (first, second) = (h.write(1, 0, 2), h.write(1, 1, 1));
    h.read(1, 0, Value::Of(first));
    h.read(1, 1, Value::Of(second));
    h.passes();
    h.read(1, 1, Value::Of(first));
    h.fails(Kind::Content);
}

#[test]
fn zeros_in_the_place_of_a_write_are_a_loss() {
    let mut h = History::new();
    h.write(1, 0, 1);
    h.read(1, 0, Value::Zero);
    h.fails(Kind::Content);
}

#[test]
fn what_nobody_wrote_is_garbage() {
    let mut h = History::new();
    h.read(1, 0, Value::Garbage);
    h.fails(Kind::Garbage);
    let mut h = History::new();
    h.read(1, 0, Value::Of(77));
    h.fails(Kind::Content);
}

#[test]
fn of_two_writes_at_once_either_may_win() {
    let mut h = History::new();
    let (first, second) = (h.write(1, 0, 1), h.write(1, 0, 1));
    h.beside(second, first);
    h.read(1, 0, Value::Of(first));
    h.read(1, 0, Value::Of(second));
    h.passes();
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    let mut h = History::new();
    let before = h.write(1, 0, 1);
    let write = h.write(1, 0, 1);
    for value in [Value::Of(before), Value::Of(write)] {
        let read = h.read(1, 0, value).id;
        h.beside(read, write);
    }
    h.passes();
    let read = h.read(1, 0, Value::Zero).id;
    h.beside(read, write);
    h.fails(Kind::Content);
}

#[test]
fn a_write_that_was_given_up_may_come_until_a_newer_one_begins() {
    let mut h = History::new();
    let lost = h.lost(1, Action::Write { name: A, at: 0, len: 1 });
    h.read(1, 0, Value::Zero);
    h.read(1, 0, Value::Of(lost));
    let newer = h.write(1, 0, 1);
    h.read(1, 0, Value::Of(newer));
    h.passes();
    h.read(1, 0, Value::Of(lost));
    h.fails(Kind::Content);
}

#[test]
fn towards_others_a_write_that_was_given_up_may_come_for_ever() {
    let mut h = History::new();
    let lost = h.lost(1, Action::Write { name: A, at: 0, len: 1 });
    h.open(2);
    h.write(2, 0, 1);
    h.read(2, 0, Value::Of(lost));
    h.passes();
}

#[test]
fn a_close_is_the_end_of_what_was_given_up() {
    let mut h = History::new();
    let lost = h.lost(1, Action::Write { name: A, at: 0, len: 1 });
    h.close(1);
    h.open(2);
    h.write(2, 0, 1);
    h.read(2, 0, Value::Of(lost));
    h.fails(Kind::Content);
}

#[test]
fn the_lock_of_another_is_the_end_of_what_was_given_up() {
    let mut h = History::new();
    h.frame.lock = true;
    let lost = h.lost(1, Action::Write { name: A, at: 0, len: 1 });
    h.open(2);
    h.write(2, 0, 1);
    h.read(2, 0, Value::Of(lost));
    h.fails(Kind::Content);
}

#[test]
fn a_stale_reader_knows_nothing_of_others_until_it_refreshes() {
    let mut h = History::new();
    h.open(2);
    h.write(1, 0, 1);
    h.read(2, 0, Value::Zero);
    h.passes();
    h.done(2, Action::Refresh { name: A }, Seen::Nothing);
    h.read(2, 0, Value::Zero);
    h.fails(Kind::Content);
}

#[test]
fn what_was_discarded_or_cut_off_is_zeros() {
    let mut h = History::new();
    let write = h.write(1, 4, 1);
    h.done(1, Action::Resize { name: A, sectors: 4 }, Seen::Nothing);
    h.done(1, Action::Resize { name: A, sectors: 8 }, Seen::Nothing);
    h.read(1, 4, Value::Zero);
    h.passes();
    h.read(1, 4, Value::Of(write));
    h.fails(Kind::Content);
    let mut h = History::new();
    let write = h.write(1, 4, 1);
    h.done(1, Action::Discard { name: A, at: 4, len: 2 }, Seen::Nothing);
    h.read(1, 4, Value::Of(write));
    h.fails(Kind::Content);
}

#[test]
fn a_hole_is_zeros() {
    let mut h = History::new();
    h.done(1, Action::Status { name: A }, Seen::Holes(vec![(0, 8)]));
    h.write(1, 3, 1);
    h.done(1, Action::Status { name: A }, Seen::Holes(vec![(0, 3), (4, 4)]));
    h.passes();
    h.done(1, Action::Status { name: A }, Seen::Holes(vec![(0, 8)]));
    h.fails(Kind::Content);
}

#[test]
fn a_size_that_was_given_up_does_not_come_back() {
    let info = |sectors| Seen::Info { vid: 8, sectors, tag: None };
    let mut h = History::new();
    h.done(1, Action::Info { name: A }, info(8));
    h.lost(1, Action::Resize { name: A, sectors: 4 });
    h.done(1, Action::Info { name: A }, info(4));
    h.done(1, Action::Resize { name: A, sectors: 16 }, Seen::Nothing);
    h.done(1, Action::Info { name: A }, info(16));
    h.passes();
    h.done(1, Action::Info { name: A }, info(4));
    h.fails(Kind::Size);
}

#[test]
fn another_clients_resize_is_not_undone() {
    let mut h = History::new();
    h.open(2);
    h.done(2, Action::Resize { name: A, sectors: 16 }, Seen::Nothing);
    h.snapshot(1);
    h.done(1, Action::Info { name: A }, Seen::Info { vid: 8, sectors: 8, tag: None });
    h.fails(Kind::Size);
}

#[test]
fn a_snapshot_is_what_was_there_and_stays_that() {
    let mut h = History::new();
    let before = h.write(1, 0, 1);
    h.snapshot(1);
    h.write(1, 0, 1);
    h.read_snapshot(2, &[(0, Value::Of(before)), (1, Value::Zero)]);
    h.passes();
    let mut later = History { records: h.records.clone(), rest: h.rest.clone(), ..h };
    let after = later.write(1, 0, 1);
    later.read_snapshot(2, &[(0, Value::Of(after))]);
    later.fails(Kind::Snapshot);
}

#[test]
fn zeros_of_a_snapshot_that_is_being_deleted_are_a_lie() {
    let mut h = History::new();
    let write = h.write(1, 0, 1);
    h.snapshot(1);
    h.read_snapshot(2, &[(0, Value::Of(write))]);
    h.lost(1, Action::DeleteSnap { name: A, which: Which::Tag(0) });
    h.read_snapshot(2, &[(0, Value::Zero)]);
    h.fails(Kind::Snapshot);
}

#[test]
fn a_change_of_another_client_may_reach_a_snapshot_that_it_meets() {
    let mut h = History::new();
    h.open(2);
    let write = h.write(2, 0, 1);
    let taken = h.snapshot(1);
    h.beside(write, taken);
    h.read_snapshot(1, &[(0, Value::Zero)]);
    h.read_snapshot(1, &[(0, Value::Of(write))]);
    h.passes();
}

#[test]
fn a_write_is_not_torn_by_the_clients_own_snapshot() {
    let mut h = History::new();
    let old = h.write(1, 0, 2);
    let write = h.write(1, 0, 2);
    let taken = h.snapshot(1);
    h.beside(write, taken);
    let mut torn = History { records: h.records.clone(), rest: h.rest.clone(), ..h };
    torn.read_snapshot(1, &[(0, Value::Of(write)), (1, Value::Of(old))]);
    torn.fails(Kind::Torn);
    let mut whole = History::new();
    whole.write(1, 0, 2);
    let write = whole.write(1, 0, 2);
    let taken = whole.snapshot(1);
    whole.beside(write, taken);
    whole.read_snapshot(1, &[(0, Value::Of(write)), (1, Value::Of(write))]);
    whole.passes();
}

#[test]
fn a_rollback_brings_back_what_the_snapshot_holds() {
    let mut h = History::new();
    let before = h.write(1, 0, 1);
    h.snapshot(1);
    let after = h.write(1, 0, 1);
    h.done(1, Action::Rollback { slot: 0 }, Seen::Nothing).of = Some(SNAP);
    h.read(1, 0, Value::Of(before));
    h.passes();
    h.read(1, 0, Value::Of(after));
    h.fails(Kind::Content);
}

#[test]
fn a_rollback_that_was_given_up_does_not_undo_a_later_write() {
    let mut h = History::new();
    let before = h.write(1, 0, 1);
    h.snapshot(1);
    h.lost(1, Action::Rollback { slot: 0 });
    h.records.last_mut().expect("a record").of = Some(SNAP);
    h.write(1, 0, 1);
    h.read(1, 0, Value::Of(before));
    h.fails(Kind::Content);
}

#[test]
fn a_clone_begins_as_the_snapshot() {
    let mut h = History::new();
    let before = h.write(1, 0, 1);
    h.snapshot(1);
    h.write(1, 0, 1);
    h.done(1, Action::Clone { slot: 0, name: 1 }, Seen::Nothing).of = Some(SNAP);
    h.rest.inodes.push(Inode { vid: 9, name: 1, tag: None, is_snapshot: false, hidden: false });
    let read = Action::Read { name: 1, at: 0, len: 1 };
    h.done(1, read, Seen::Sectors(vec![(0, Value::Of(before))]));
    h.passes();
    h.done(1, read, Seen::Sectors(vec![(0, Value::Zero)]));
    h.fails(Kind::Content);
}

#[test]
fn an_acknowledged_tag_is_on_one_inode() {
    let mut h = History::new();
    h.snapshot(1);
    h.passes();
    h.rest.inodes.push(Inode { vid: 6, name: A, tag: Some(0), is_snapshot: true, hidden: false });
    h.fails(Kind::Tag);
    h.rest.inodes.retain(|inode| inode.vid == 8);
    h.fails(Kind::Tag);
    // Unless it may be deleted.
    h.lost(1, Action::DeleteSnap { name: A, which: Which::Tag(0) });
    h.passes();
}

#[test]
fn a_name_is_there_until_it_is_deleted() {
    let mut h = History::new();
    h.passes();
    let working = h.rest.inodes.clone();
    h.rest.inodes.clear();
    h.fails(Kind::Name);
    h.lost(1, Action::Delete { name: A });
    h.passes();
    h.rest.inodes = working;
    h.passes();
    h.done(1, Action::Delete { name: A }, Seen::Nothing);
    h.fails(Kind::Name);
}

#[test]
fn a_deletion_that_was_given_up_does_not_hide_the_next_vdi() {
    let mut h = History::new();
    h.close(1);
    h.lost(1, Action::Delete { name: A });
    let create = Action::Create { name: A, sectors: 8, shift: 20, hyper: false, prealloc: false };
    h.done(1, create, Seen::Nothing);
    h.passes();
    h.rest.inodes[0].hidden = true;
    h.fails(Kind::Name);
}

#[test]
fn an_attribute_has_its_last_value() {
    let key = 0;
    let mut h = History::new();
    h.add(1, Action::GetAttr { name: A, key }, Outcome::Failed(2, "none".into()));
    let first = h.done(1, Action::SetAttr { name: A, key }, Seen::Nothing).id;
    h.done(1, Action::GetAttr { name: A, key }, Seen::Attr(Some(first)));
    let second = h.done(1, Action::SetAttr { name: A, key }, Seen::Nothing).id;
    h.done(1, Action::GetAttr { name: A, key }, Seen::Attr(Some(second)));
    h.passes();
    h.done(1, Action::GetAttr { name: A, key }, Seen::Attr(Some(first)));
    h.fails(Kind::Attr);
    h.records.pop();
    h.add(1, Action::GetAttr { name: A, key }, Outcome::Failed(2, "none".into()));
    h.fails(Kind::Attr);
}

#[test]
fn a_stale_handle_does_not_follow_into_another_vdi() {
    let mut h = History::new();
    h.done(2, Action::Delete { name: A }, Seen::Nothing);
    let create = Action::Create { name: A, sectors: 8, shift: 20, hyper: false, prealloc: false };
    h.done(2, create, Seen::Nothing);
    h.open(2);
    let stale = h.write(1, 0, 1);
    h.read(2, 0, Value::Zero);
    h.passes();
    h.read(2, 0, Value::Of(stale));
    h.fails(Kind::Follow);
}

#[test]
fn errors_that_nothing_explains_are_told() {
    let eio = || Outcome::Failed(3, "EIO".into());
    let mut h = History::new();
    h.frame.clients = 1;
    h.add(1, Action::Read { name: A, at: 0, len: 1 }, eio());
    h.fails(Kind::Refused);
    h.frame.faults = true;
    h.passes();
    h.add(1, Action::Read { name: A, at: 0, len: 1 }, eio()).phase = Phase::After;
    h.fails(Kind::Refused);
}

#[test]
fn a_client_is_not_locked_out_of_its_own_vdi() {
    let locked = || Outcome::Failed(7, "locked".into());
    let mut h = History::new();
    h.frame.lock = true;
    h.close(1);
    h.add(1, Action::Open { name: A }, locked()).phase = Phase::After;
    h.fails(Kind::Lock);
    // Unless another may have it.
    h.records.pop();
    h.lost(2, Action::Open { name: A });
    h.add(1, Action::Open { name: A }, locked()).phase = Phase::After;
    h.passes();
}

#[test]
fn a_lock_is_one_clients_at_a_time() {
    let mut h = History::new();
    h.frame.lock = true;
    h.open(2);
    h.fails(Kind::Lock);
    let mut h = History::new();
    h.frame.lock = true;
    h.close(1);
    h.open(2);
    h.passes();
}

#[test]
fn objects_that_are_missing_or_left_over_are_told() {
    let mut h = History::new();
    h.rest.missing.push("an object".into());
    h.fails(Kind::Missing);
    let mut h = History::new();
    h.rest.left.push("an object".into());
    h.fails(Kind::Leak);
    // What was given up may leave some.
    h.lost(1, Action::Write { name: A, at: 0, len: 1 });
    h.passes();
}
