//! Schedules from seeds: of everything, and of what is known to go wrong.

use std::time::Duration;

use crate::fault::{Delays, Fault, Kind, When};
use crate::ops::{Action, Config, Number, Op, OpId, Place, Schedule, Start, Which};
use crate::rng::Rng;

/// A generator of schedules.
pub struct Shape {
    pub name: &'static str,
    make: fn(&mut Build),
}

/// Those that a run without a name goes through.
pub const SHAPES: &[Shape] = &[
    Shape { name: "solo", make: solo },
    Shape { name: "kills", make: kills },
    Shape { name: "turns", make: turns },
    Shape { name: "drops", make: drops },
    Shape { name: "cuts", make: cuts },
    Shape { name: "locks", make: locks },
    Shape { name: "mix", make: mix },
    Shape { name: "hot", make: hot },
    Shape { name: "pair", make: pair },
    Shape { name: "s0", make: s0_gateway_hangs },
    Shape { name: "s1", make: s1_stalled_with_a_write },
    Shape { name: "s2", make: s2_shrink_times_out },
    Shape { name: "s3", make: s3_given_up },
    Shape { name: "s4", make: s4_close_times_out },
    Shape { name: "s5", make: s5_lock_goes_on },
    Shape { name: "s6", make: s6_refresh_forgets_removals },
    Shape { name: "s7", make: s7_lock_is_lost },
    Shape { name: "s8", make: s8_discard_fails },
    Shape { name: "s9", make: s9_two_snapshots },
    Shape { name: "s9-tag", make: s9_one_tag },
    Shape { name: "s9-writer", make: s9_a_writer },
    Shape { name: "s9-open", make: s9_an_open },
    Shape { name: "s9-breaks", make: s9_one_breaks_off },
    Shape { name: "s10", make: s10_snapshot_goes },
    Shape { name: "s10-made", make: s10_something_is_made },
    Shape { name: "s11", make: s11_stale_handle },
    Shape { name: "s12", make: s12_hypervolume_in_turn },
    Shape { name: "s13", make: s13_size_of_a_snapshot },
    Shape { name: "s14", make: s14_torn_write },
    Shape { name: "s15", make: s15_deleted_twice },
];

impl Shape {
    pub fn named(name: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    pub fn schedule(&self, seed: u64) -> Schedule {
        let mut build = Build::new(seed);
        (self.make)(&mut build);
        build.schedule
    }
}

const MS: Duration = Duration::from_millis(1);
const SHIFT: u8 = 20;
/// Sectors of an object of 1 MiB.
const OBJECT: u64 = 1 << (SHIFT - 9);
const A: Number = 0;

struct Build {
    rng: Rng,
    schedule: Schedule,
    /// How often operations get a time limit, and are dropped: once in so many; 0: never.
    limits: u64,
    drops: u64,
    objects: u64,
    /// Leaves out what today goes wrong without any fault beside other operations of the client: a
    /// refresh (s6), a deletion of a snapshot that is being deleted (s15).
    careful: bool,
    /// No tag is used twice.
    own_tags: bool,
    tags: Number,
}

impl Build {
    fn new(seed: u64) -> Build {
        let mut rng = Rng::new(seed);
        let nodes = rng.between(1, 3) as usize;
        let config = Config {
            seed,
            nodes,
            copies: rng.between(1, nodes as u64) as usize,
            clients: 1,
            lock: false,
            recycle: false,
            hazards: true,
            delays: Delays::default(),
            quiesce: Duration::ZERO,
            prompt: false,
        };
        let objects = rng.between(1, 6);
        let schedule = Schedule { config, ops: Vec::new(), faults: Vec::new() };
        Build {
            rng,
            schedule,
            limits: 0,
            drops: 0,
            objects,
            careful: false,
            own_tags: false,
            tags: 0,
        }
    }

    fn nodes(&mut self, nodes: usize, copies: usize) {
        (self.schedule.config.nodes, self.schedule.config.copies) = (nodes, copies);
    }

    /// What servers do that nobody can prevent is half of the time left out.
    fn clients(&mut self, clients: usize) {
        self.schedule.config.clients = clients;
        self.schedule.config.hazards = self.rng.one_in(2);
    }

    /// An operation as it is, after everything that ended in `after`.
    fn op(&mut self, client: Place, start: Start, action: Action) -> OpId {
        let id = self.schedule.ops.len() as OpId;
        let op = Op { id, client, start, deadline: 0, drop_at: None, action };
        self.schedule.ops.push(op);
        id
    }

    fn then(&mut self, client: Place, before: OpId, action: Action) -> OpId {
        self.op(client, Start::After(before, Duration::ZERO), action)
    }

    fn later(&mut self, client: Place, before: OpId, plus: Duration, action: Action) -> OpId {
        self.op(client, Start::After(before, plus), action)
    }

    fn limit(&mut self, id: OpId, from: u64, to: u64) -> OpId {
        let ms = self.rng.between(from, to) as u32;
        self.schedule.ops[id as usize].deadline = ms;
        id
    }

    /// After something was given up: what finds out that the gateway says nothing any more.
    fn find_out(&mut self, client: Place, before: OpId) -> OpId {
        let id = self.then(client, before, Action::GetAttr { name: A, key: 3 });
        self.limit(id, 50, 400)
    }

    /// An operation that is given up in its time limit, or whose request is given up with the
    /// connection, since another operation gets no answer on it: what comes next.
    fn give_up(&mut self, client: Place, before: OpId, action: Action) -> OpId {
        let id = self.then(client, before, action);
        if self.rng.one_in(2) {
            self.limit(id, 100, 1500);
            return self.find_out(client, id);
        }
        let plus = self.rng.ms(10, 300);
        let other = self.later(client, before, plus, Action::GetAttr { name: A, key: 3 });
        self.limit(other, 50, 400);
        id
    }

    /// A time limit, or a drop, as often as it is to be.
    fn risk(&mut self, id: OpId) -> OpId {
        if self.limits > 0 && self.rng.one_in(self.limits) {
            let scale = self.rng.pick(&[5, 30, 200, 1000, 4000]);
            self.limit(id, 1, scale);
        }
        if self.drops > 0 && self.rng.one_in(self.drops) {
            let k = self.rng.between(1, 12) as u32;
            self.schedule.ops[id as usize].drop_at = Some(k);
        }
        id
    }

    /// Creates the VDI, opens it as `client`: what that ends with.
    fn begin(&mut self, client: Place, name: Number) -> OpId {
        let created = self.create(client, Start::At(Duration::ZERO), name);
        self.then(client, created, Action::Open { name })
    }

    fn create(&mut self, client: Place, start: Start, name: Number) -> OpId {
        let sectors = self.objects * OBJECT;
        let action = Action::Create { name, sectors, shift: SHIFT, hyper: false, prealloc: false };
        self.op(client, start, action)
    }

    /// A few sectors that many operations meet.
    fn range(&mut self) -> (u64, u64) {
        let object = self.rng.below(self.objects);
        if self.rng.one_in(3) {
            return (object * OBJECT + 1, 1);
        }
        if object > 0 && self.rng.one_in(4) {
            return (object * OBJECT - 1, self.rng.between(2, 4));
        }
        let at = self.rng.pick(&[0, 1, 2, OBJECT / 2, OBJECT - 4]);
        (object * OBJECT + at, self.rng.between(1, 4))
    }

    fn write(&mut self, name: Number) -> Action {
        let (at, len) = self.range();
        Action::Write { name, at, len }
    }

    fn read(&mut self, name: Number) -> Action {
        let (at, len) = self.range();
        Action::Read { name, at, len }
    }

    fn discard(&mut self, name: Number) -> Action {
        let object = self.rng.below(self.objects);
        match self.rng.below(3) {
            0 => {
                let (at, len) = self.range();
                Action::Discard { name, at, len }
            }
            1 => Action::Discard { name, at: object * OBJECT, len: OBJECT },
            _ => {
                let end = self.rng.between(object + 1, self.objects);
                Action::Discard { name, at: object * OBJECT, len: (end - object) * OBJECT }
            }
        }
    }

    fn resize(&mut self, name: Number) -> Action {
        let sectors = self.rng.between(1, self.objects) * OBJECT - self.rng.pick(&[0, 0, 3]);
        Action::Resize { name, sectors }
    }

    /// The tag of a new snapshot: one of few, or where several are taken at a time one of its own.
    fn tag(&mut self) -> Number {
        if !self.own_tags {
            return self.rng.below(3) as Number;
        }
        self.tags += 1;
        self.tags - 1
    }

    /// Something that the one who writes to a VDI does.
    fn writers(&mut self, name: Number) -> Action {
        match self.rng.below(24) {
            0..=8 => self.write(name),
            9..=13 => self.read(name),
            14..=16 => self.discard(name),
            17 => Action::Flush { name },
            18 => self.resize(name),
            19 => Action::Status { name },
            20 if !self.careful => Action::Refresh { name },
            20 | 21 => Action::Info { name },
            22 => Action::Resize { name, sectors: self.objects * OBJECT },
            _ => Action::Snapshot { name, tag: self.tag() },
        }
    }

    /// Something that is done to VDIs from outside.
    fn admins(&mut self, name: Number) -> Action {
        let (tag, slot, key) =
            (self.rng.below(3) as Number, self.rng.below(2) as Number, self.rng.below(2) as Number);
        let which = match self.rng.one_in(3) {
            true => Which::Id(self.rng.between(1, 4) as u32),
            false => Which::Tag(tag),
        };
        let other = self.rng.between(1, 2) as Number;
        let (at, len) = self.range();
        match self.rng.below(30) {
            0..=3 => Action::Snapshot { name, tag: self.tag() },
            4..=7 => Action::OpenSnap { name, which, slot },
            8..=13 => Action::ReadSnap { slot, at, len },
            14 => Action::CloseSnap { slot },
            15..=16 if !self.careful => Action::DeleteSnap { name, which },
            17..=18 => Action::Rollback { slot },
            19..=20 => Action::Clone { slot, name: other },
            21 => Action::Delete { name: other },
            22..=23 => Action::Open { name: other },
            24 => Action::Close { name: other },
            25..=26 => Action::SetAttr { name, key },
            27 => Action::GetAttr { name, key },
            28 => Action::DelAttr { name, key },
            // They read four megabytes.
            _ if self.rng.one_in(8) => Action::Snapshots { name },
            _ if self.rng.one_in(8) => Action::List,
            _ => Action::Info { name },
        }
    }

    /// Several operations of a client at a time, each lane in its order, then all have ended.
    fn lanes(
        &mut self,
        client: Place,
        after: OpId,
        lanes: u64,
        count: u64,
        mut what: impl FnMut(&mut Build) -> Action,
    ) -> Vec<OpId> {
        let mut last = vec![after; lanes as usize];
        for _ in 0..count {
            let lane = self.rng.below(lanes) as usize;
            let action = what(self);
            let plus = if self.rng.one_in(2) { Duration::ZERO } else { self.rng.ms(0, 20) };
            let id = self.later(client, last[lane], plus, action);
            last[lane] = self.risk(id);
        }
        last
    }

    // --- Faults ---

    fn quiesce(&mut self, from: u64, to: u64) {
        self.schedule.config.quiesce = self.rng.ms(from, to);
    }

    fn fault(&mut self, fault: Fault) {
        self.schedule.faults.push(fault);
    }

    /// A request of the kind is late by more than a connection lives.
    fn late(&mut self, client: Place, matches: Kind, nth: u64) {
        let by = self.rng.ms(2500, 9000);
        self.fault(Fault::Late { client, nth: nth as u32, matches, by });
    }

    fn random_fault(&mut self, clients: usize) {
        let nodes = self.schedule.config.nodes as u64;
        let client = self.rng.below(clients as u64) as Place;
        let node = self.rng.below(nodes) as usize;
        let at = self.rng.ms(20, 1500);
        let nth = self.rng.below(12) as u32;
        let matches = self.rng.pick(Kind::ALL);
        let fault = match self.rng.below(10) {
            0 | 1 => {
                let length = (!self.rng.one_in(4)).then(|| self.rng.ms(50, 12_000));
                Fault::Stall { node, at, length }
            }
            2 => {
                let restart = Some(self.rng.ms(100, 5000));
                Fault::Kill { node, at, restart }
            }
            3 => Fault::Partition { client, node, at, length: self.rng.ms(500, 25_000) },
            4 | 5 => Fault::Cut { client, nth, matches, when: self.rng.pick(When::ALL) },
            6 => Fault::Late { client, nth, matches, by: self.rng.ms(100, 1400) },
            7 => Fault::Late { client, nth, matches, by: self.rng.ms(1600, 9000) },
            8 => {
                // EIO, NO_SPACE, HALT, NETWORK_ERROR.
                let result = self.rng.pick(&[0x03, 0x10, 0x1a, 0x81, 0x86]);
                Fault::Answer { client, nth, matches, result, executed: self.rng.one_in(2) }
            }
            _ => Fault::Slow { client, nth, matches, by: self.rng.ms(20, 3000) },
        };
        self.fault(fault);
    }
}

// --- Of everything ---

fn everything(b: &mut Build, count: u64) {
    let opened = b.begin(0, A);
    let lanes = b.rng.between(1, 3);
    b.own_tags = lanes > 1;
    b.careful &= lanes > 1;
    b.lanes(0, opened, lanes, count, |b| match b.rng.one_in(3) {
        true => b.admins(A),
        false => {
            let name = if b.rng.one_in(5) { 1 } else { A };
            b.writers(name)
        }
    });
}

/// One client, and nothing goes wrong.
fn solo(b: &mut Build) {
    b.schedule.config.lock = b.rng.one_in(3);
    b.schedule.config.recycle = b.rng.one_in(8);
    b.careful = true;
    let count = b.rng.between(8, 30);
    everything(b, count);
}

/// One client, and gateways die.
fn kills(b: &mut Build) {
    b.nodes(3, 3);
    b.careful = true;
    let count = b.rng.between(8, 30);
    everything(b, count);
    for _ in 0..b.rng.between(1, 3) {
        let (node, at) = (b.rng.below(3) as usize, b.rng.ms(20, 2000));
        let restart = Some(b.rng.ms(500, 5000));
        b.fault(Fault::Kill { node, at, restart });
    }
    b.quiesce(8000, 9000);
}

/// Clients that write in turn, each with what it has opened for it; nothing goes wrong.
fn turns(b: &mut Build) {
    let clients = b.rng.between(2, 3) as usize;
    b.clients(clients);
    b.schedule.config.lock = b.rng.one_in(2);
    let mut last = b.create(0, Start::At(Duration::ZERO), A);
    for turn in 0..b.rng.between(2, 5) {
        let client = turn as usize % b.schedule.config.clients;
        let opened = b.then(client, last, Action::Open { name: A });
        last = opened;
        for _ in 0..b.rng.between(1, 6) {
            let action = b.writers(A);
            last = b.then(client, last, action);
        }
        last = b.then(client, last, Action::Close { name: A });
    }
}

/// One client that drops what it waits for; nothing else goes wrong.
fn drops(b: &mut Build) {
    b.drops = 3;
    let count = b.rng.between(6, 20);
    everything(b, count);
}

/// One client whose connections break under what it asks for, which may still be carried out.
fn cuts(b: &mut Build) {
    b.objects = b.rng.between(1, 3);
    let count = b.rng.between(6, 20);
    everything(b, count);
    for _ in 0..b.rng.between(1, 3) {
        let matches = b.rng.pick(&[
            Kind::Create,
            Kind::Write,
            Kind::MapUpdate,
            Kind::HeaderWrite,
            Kind::NewVdi,
            Kind::DelVdi,
            Kind::Attr,
        ]);
        let nth = b.rng.below(4) as u32;
        let fault = match b.rng.one_in(2) {
            true => Fault::Late { client: 0, nth, matches, by: b.rng.ms(20, 1400) },
            false => Fault::Cut { client: 0, nth, matches, when: b.rng.pick(When::ALL) },
        };
        b.fault(fault);
    }
    b.quiesce(6000, 10_000);
}

/// What one client has locked another wants.
fn locks(b: &mut Build) {
    b.schedule.config.lock = true;
    b.clients(2);
    let mut last = b.begin(0, A);
    for tag in 0..b.rng.between(1, 3) as Number {
        let action = b.write(A);
        last = b.then(0, last, action);
        last = match b.rng.below(3) {
            0 => b.then(0, last, Action::Refresh { name: A }),
            _ => b.then(0, last, Action::Snapshot { name: A, tag }),
        };
        let plus = b.rng.ms(0, 40);
        b.later(1, last, plus, Action::Open { name: A });
    }
    for _ in 0..b.rng.between(1, 3) {
        let (action, plus) = (b.write(A), b.rng.ms(0, 20));
        last = b.later(0, last, plus, action);
    }
    last = b.then(0, last, Action::Close { name: A });
    b.then(1, last, Action::Open { name: A });
}

/// One client, and everything goes wrong.
fn mix(b: &mut Build) {
    b.schedule.config.lock = b.rng.one_in(4);
    b.limits = b.rng.pick(&[0, 1, 1, 3]);
    b.drops = b.rng.pick(&[0, 0, 6]);
    let count = b.rng.between(6, 24);
    everything(b, count);
    for _ in 0..b.rng.between(1, 3) {
        b.random_fault(1);
    }
    b.quiesce(6000, 20_000);
}

/// One client with time limits, few sectors, and gateways that stop and go on.
fn hot(b: &mut Build) {
    let nodes = b.rng.between(2, 3) as usize;
    b.nodes(nodes, 1);
    b.objects = b.rng.between(1, 3);
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT + 1, len: 1 });
    }
    (b.limits, b.own_tags) = (1, true);
    let (lanes, count) = (b.rng.between(1, 3), b.rng.between(8, 24));
    b.lanes(0, last, lanes, count, |b| {
        let at = b.rng.below(b.objects) * OBJECT + 1;
        match b.rng.below(12) {
            0..=6 => Action::Write { name: A, at, len: 1 },
            7..=8 => Action::Read { name: A, at, len: 1 },
            9 => b.writers(A),
            10 => Action::Discard { name: A, at: at - 1, len: OBJECT },
            _ => b.admins(A),
        }
    });
    for _ in 0..b.rng.between(1, 3) {
        let (node, at) = (b.rng.below(nodes as u64) as usize, b.rng.ms(30, 3000));
        let length = Some(b.rng.ms(200, 9000));
        b.fault(Fault::Stall { node, at, length });
    }
    b.quiesce(14_000, 15_000);
}

/// A writer, and others who administrate; everything goes wrong.
fn pair(b: &mut Build) {
    let clients = b.rng.between(2, 3) as usize;
    b.clients(clients);
    b.limits = b.rng.pick(&[0, 0, 4]);
    b.own_tags = true;
    let opened = b.begin(0, A);
    let count = b.rng.between(4, 12);
    b.lanes(0, opened, 2, count, |b| b.writers(A));
    for client in 1..clients {
        let here = b.then(client, opened, Action::Open { name: A });
        let count = b.rng.between(2, 8);
        b.lanes(client, here, 1, count, |b| b.admins(A));
    }
    for _ in 0..b.rng.below(3) {
        b.random_fault(clients);
    }
    b.quiesce(6000, 20_000);
}

// --- What is known to go wrong ---

/// While a gateway hangs, others answer.
fn s0_gateway_hangs(b: &mut Build) {
    b.nodes(3, 3);
    b.schedule.config.prompt = true;
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT, len: 2 });
    }
    for object in 0..b.objects {
        last = b.then(0, last, Action::Read { name: A, at: object * OBJECT, len: 2 });
    }
    b.fault(Fault::Stall { node: 0, at: 3000 * MS, length: None });
    for _ in 0..b.rng.between(1, 6) {
        let (at, start) = (b.rng.below(b.objects) * OBJECT, b.rng.ms(2990, 8000));
        b.op(0, Start::At(start), Action::Read { name: A, at, len: 1 });
    }
    b.schedule.config.quiesce = 30_000 * MS;
}

/// A write lies in a stopped gateway's socket, and newer ones go through another.
fn s1_stalled_with_a_write(b: &mut Build) {
    let nodes = b.rng.between(2, 3) as usize;
    b.nodes(nodes, 1);
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT, len: 2 });
    }
    last = b.then(0, last, Action::Snapshot { name: A, tag: 0 });
    last = b.then(0, last, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 0 });
    let action = b.write(A);
    b.then(0, last, action);
    let length = Some(b.rng.ms(3000, 9000));
    b.fault(Fault::Stall { node: 0, at: 3000 * MS, length });
    let at = b.rng.below(b.objects) * OBJECT;
    let first = match b.rng.below(4) {
        0 => Action::Rollback { slot: 0 },
        1 => Action::Snapshot { name: A, tag: 1 },
        _ => Action::Write { name: A, at, len: 1 },
    };
    // What begins with other requests is to have come to the one that matters.
    let start = match first {
        Action::Write { .. } => b.rng.ms(2990, 3050),
        _ => b.rng.ms(2980, 2999),
    };
    let given_up = b.op(0, Start::At(start), first);
    let mut last = b.limit(given_up, 50, 800);
    for _ in 0..b.rng.between(1, 3) {
        last = b.then(0, last, Action::Write { name: A, at, len: 1 });
    }
    b.then(0, last, Action::Read { name: A, at, len: 1 });
    b.quiesce(16_000, 16_001);
}

/// A shrink is given up, and its requests are carried out later.
fn s2_shrink_times_out(b: &mut Build) {
    b.objects = b.objects.max(2);
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT + 1, len: 1 });
    }
    let kind = b.rng.pick(&[Kind::MapUpdate, Kind::HeaderWrite, Kind::Write]);
    let nth = if kind == Kind::MapUpdate { b.objects } else { 0 };
    let extra = b.rng.below(2);
    b.late(0, kind, nth + extra);
    let sectors = b.rng.between(1, b.objects - 1) * OBJECT;
    let shrink = b.then(0, last, Action::Resize { name: A, sectors });
    b.limit(shrink, 100, 1500);
    last = b.find_out(0, shrink);
    for _ in 0..b.rng.between(1, 5) {
        let at = b.rng.below(b.objects) * OBJECT + 1;
        let action = match b.rng.below(5) {
            0 => Action::Snapshot { name: A, tag: 0 },
            1 => Action::Resize { name: A, sectors: b.objects * OBJECT },
            _ => Action::Write { name: A, at, len: 1 },
        };
        last = b.then(0, last, action);
    }
    let opened = b.then(0, last, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 0 });
    for object in 0..b.objects {
        let (at, len) = (object * OBJECT + 1, 1);
        b.then(0, opened, Action::ReadSnap { slot: 0, at, len });
    }
    b.quiesce(16_000, 16_001);
}

/// Requests about headers, names, locks and attributes are given up.
fn s3_given_up(b: &mut Build) {
    b.objects = b.objects.max(2);
    let mut last = b.begin(0, A);
    let action = b.write(A);
    last = b.then(0, last, action);
    let lock = b.rng.one_in(4);
    b.schedule.config.lock = lock;
    if lock {
        b.clients(2);
        b.late(0, Kind::Release, 0);
        last = b.give_up(0, last, Action::Close { name: A });
        last = b.then(0, last, Action::Open { name: A });
        b.then(0, last, Action::Write { name: A, at: 0, len: 1 });
        let tries = b.rng.ms(3000, 10_000);
        b.later(1, last, tries, Action::Open { name: A });
        b.quiesce(16_000, 16_001);
        return;
    }
    match b.rng.below(6) {
        0 => {
            b.late(0, Kind::HeaderWrite, 0);
            let sectors = b.rng.between(1, 2 * b.objects) * OBJECT;
            last = b.give_up(0, last, Action::Resize { name: A, sectors });
            let sectors = b.rng.between(b.objects, 2 * b.objects) * OBJECT;
            last = b.then(0, last, Action::Resize { name: A, sectors });
            b.then(0, last, Action::Write { name: A, at: sectors - 1, len: 1 });
        }
        1 => {
            b.late(0, Kind::HeaderWrite, 0);
            last = b.give_up(0, last, Action::Snapshot { name: A, tag: 0 });
            last = b.then(0, last, Action::Snapshot { name: A, tag: 1 });
            b.then(0, last, Action::Write { name: A, at: 0, len: 1 });
        }
        2 => {
            b.late(0, Kind::DelVdi, 0);
            last = b.then(0, last, Action::Close { name: A });
            last = b.give_up(0, last, Action::Delete { name: A });
            last = b.then(0, last, Action::Delete { name: A });
            last = b.create(0, Start::After(last, Duration::ZERO), A);
            if b.rng.one_in(2) {
                last = b.then(0, last, Action::Open { name: A });
                b.then(0, last, Action::Write { name: A, at: 0, len: 1 });
            }
        }
        3 => {
            last = b.then(0, last, Action::Snapshot { name: A, tag: 0 });
            last = b.then(0, last, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 0 });
            b.late(0, Kind::NewVdi, 2);
            let action = match b.rng.below(3) {
                0 => Action::Rollback { slot: 0 },
                1 => Action::Snapshot { name: A, tag: 1 },
                _ => Action::Clone { slot: 0, name: 1 },
            };
            last = b.give_up(0, last, action);
            if let Action::Clone { .. } = action {
                last = b.create(0, Start::After(last, Duration::ZERO), 1);
                last = b.then(0, last, Action::Open { name: 1 });
                b.then(0, last, Action::Write { name: 1, at: 0, len: 1 });
            } else {
                for _ in 0..b.rng.between(1, 3) {
                    last = b.then(0, last, Action::Write { name: A, at: 0, len: 1 });
                }
            }
        }
        _ => {
            last = b.then(0, last, Action::SetAttr { name: A, key: 0 });
            let nth = b.rng.pick(&[2, 3, 4, 4, 4]);
            b.late(0, Kind::Attr, nth);
            last = b.give_up(0, last, Action::SetAttr { name: A, key: 0 });
            let action = match b.rng.one_in(3) {
                true => Action::DelAttr { name: A, key: 0 },
                false => Action::SetAttr { name: A, key: 0 },
            };
            last = b.then(0, last, action);
            b.later(0, last, 9000 * MS, Action::GetAttr { name: A, key: 0 });
        }
    }
    b.quiesce(16_000, 16_001);
}

/// A close gives up while writes are under way, and the VDI is opened again.
fn s4_close_times_out(b: &mut Build) {
    let opened = b.begin(0, A);
    let kind = b.rng.pick(&[Kind::Create, Kind::MapUpdate, Kind::Write]);
    let nth = b.rng.below(3) as u32;
    let by = b.rng.ms(300, 6000);
    let fault = match b.rng.one_in(2) {
        true => Fault::Slow { client: 0, nth, matches: kind, by },
        false => Fault::Late { client: 0, nth, matches: kind, by: by.max(1600 * MS) },
    };
    b.fault(fault);
    let at = b.rng.below(b.objects) * OBJECT;
    for _ in 0..b.rng.between(2, 5) {
        let plus = b.rng.ms(0, 150);
        b.later(0, opened, plus, Action::Write { name: A, at, len: 1 });
    }
    let plus = b.rng.ms(5, 250);
    let close = b.later(0, opened, plus, Action::Close { name: A });
    b.limit(close, 20, 1000);
    let mut last = b.then(0, close, Action::Open { name: A });
    for _ in 0..b.rng.between(1, 4) {
        last = b.then(0, last, Action::Write { name: A, at, len: 1 });
    }
    b.then(0, last, Action::Read { name: A, at, len: 1 });
    b.quiesce(16_000, 16_001);
}

/// A client closes what a request of its own may still happen to; the next one has the lock.
fn s5_lock_goes_on(b: &mut Build) {
    let nodes = b.rng.between(1, 2) as usize;
    b.nodes(nodes, 1);
    b.schedule.config.lock = true;
    b.clients(2);
    let mut last = b.begin(0, A);
    let at = b.rng.below(b.objects) * OBJECT;
    for _ in 0..b.rng.between(1, 2) {
        last = b.then(0, last, Action::Write { name: A, at, len: 1 });
    }
    let (kind, nth) = b.rng.pick(&[(Kind::Write, 0), (Kind::Write, 1), (Kind::MapUpdate, 1)]);
    b.late(0, kind, nth);
    let action = match b.rng.one_in(4) {
        true => Action::Discard { name: A, at, len: OBJECT },
        false => Action::Write { name: A, at, len: 1 },
    };
    last = b.give_up(0, last, action);
    last = b.then(0, last, Action::Close { name: A });
    if b.rng.one_in(2) {
        b.limit(last, 500, 3000);
    }
    for _ in 0..3 {
        let opened = b.then(1, last, Action::Open { name: A });
        last = b.then(1, opened, Action::Write { name: A, at, len: 1 });
    }
    b.quiesce(16_000, 16_001);
}

/// A discarded object goes slowly; a refresh, and a write in its place.
fn s6_refresh_forgets_removals(b: &mut Build) {
    let nodes = b.rng.between(1, 3) as usize;
    b.nodes(nodes, 1);
    b.schedule.config.delays.tail = b.rng.ms(500, 6000);
    let mut last = b.begin(0, A);
    for _ in 0..b.rng.between(1, 3) {
        let object = b.rng.below(b.objects);
        let (at, len) = (object * OBJECT, 1);
        last = b.then(0, last, Action::Write { name: A, at, len });
        last = b.then(0, last, Action::Discard { name: A, at, len: OBJECT });
        if !b.rng.one_in(3) {
            b.limit(last, 10, 200);
        }
        last = b.then(0, last, Action::Refresh { name: A });
        last = b.then(0, last, Action::Write { name: A, at, len });
        last = b.later(0, last, 7000 * MS, Action::Read { name: A, at, len });
    }
}

/// The answer to a lock is lost, or an open is given up.
fn s7_lock_is_lost(b: &mut Build) {
    b.schedule.config.lock = true;
    let created = b.create(0, Start::At(Duration::ZERO), A);
    let mut last = created;
    if b.rng.one_in(2) {
        last = b.then(0, last, Action::Open { name: A });
        last = b.then(0, last, Action::Close { name: A });
    }
    let nth = b.rng.below(2) as u32;
    let matches = b.rng.pick(&[Kind::Lock, Kind::Lock, Kind::InodeRead, Kind::Release]);
    let fault = match b.rng.below(3) {
        0 => Fault::Cut { client: 0, nth, matches, when: When::AfterExecuted },
        1 => Fault::Slow { client: 0, nth, matches, by: b.rng.ms(500, 4000) },
        _ => Fault::Late { client: 0, nth, matches, by: b.rng.ms(200, 6000) },
    };
    b.fault(fault);
    for _ in 0..b.rng.between(1, 3) {
        last = b.then(0, last, Action::Open { name: A });
        if b.rng.one_in(2) {
            b.limit(last, 20, 1000);
        }
        let action = b.write(A);
        last = b.then(0, last, action);
        if b.rng.one_in(2) {
            last = b.then(0, last, Action::Close { name: A });
        }
    }
    b.quiesce(10_000, 10_001);
}

/// A discard fails, and later ones must not suffer; or a preallocation runs out of time.
fn s8_discard_fails(b: &mut Build) {
    if b.rng.one_in(4) {
        let nth = b.rng.below(b.objects) as u32;
        let by = b.rng.ms(2500, 4000);
        b.fault(Fault::Slow { client: 0, nth, matches: Kind::Create, by });
        let sectors = b.objects * OBJECT;
        let action =
            Action::Create { name: A, sectors, shift: SHIFT, hyper: false, prealloc: true };
        let created = b.op(0, Start::At(Duration::ZERO), action);
        b.limit(created, 1500, 2000);
        b.quiesce(16_000, 16_001);
        return;
    }
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT, len: 1 });
    }
    let nth = b.objects as u32;
    let fault = match b.rng.below(2) {
        0 => Fault::Cut { client: 0, nth, matches: Kind::MapUpdate, when: When::Before },
        _ => Fault::Answer {
            client: 0,
            nth,
            matches: Kind::MapUpdate,
            result: 0x03,
            executed: false,
        },
    };
    b.fault(fault);
    b.fault(Fault::Answer {
        client: 0,
        nth: nth + 1,
        matches: Kind::MapUpdate,
        result: 0x03,
        executed: false,
    });
    let at = b.rng.below(b.objects) * OBJECT;
    last = b.then(0, last, Action::Discard { name: A, at, len: OBJECT });
    if b.rng.one_in(2) {
        b.limit(last, 20, 500);
    }
    for _ in 0..b.rng.below(3) {
        let action = b.discard(A);
        last = b.then(0, last, action);
    }
    b.quiesce(10_000, 10_001);
}

/// Two clients snapshot one VDI, one of them or both, or a third one, writing sectors of their own.
fn s9_two_snapshots(b: &mut Build) {
    let (third, same_tag) = (b.rng.below(2), b.rng.one_in(3));
    two_snapshots(b, third, same_tag);
}

/// Both want one tag.
fn s9_one_tag(b: &mut Build) {
    two_snapshots(b, 0, true);
}

/// Somebody writes meanwhile.
fn s9_a_writer(b: &mut Build) {
    two_snapshots(b, 1, false);
}

/// Somebody opens it meanwhile, and writes.
fn s9_an_open(b: &mut Build) {
    b.clients(3);
    let opened = b.begin(0, A);
    let mut taken = [opened, b.then(1, opened, Action::Open { name: A })];
    for tag in 0..b.rng.between(2, 4) as Number {
        let (client, plus) = (usize::from(tag % 2 == 1), b.rng.ms(0, 25));
        let action = Action::Snapshot { name: A, tag };
        taken[client] = b.later(client as Place, taken[client], plus, action);
    }
    let plus = b.rng.ms(0, 120);
    let here = b.later(2, opened, plus, Action::Open { name: A });
    let plus = b.rng.ms(0, 60);
    b.later(2, here, plus, Action::Write { name: A, at: 1, len: 1 });
}

/// One of two snapshots does not come to its end for some time, or not at all.
fn s9_one_breaks_off(b: &mut Build) {
    let nodes = b.rng.between(1, 3) as usize;
    b.nodes(nodes, nodes);
    b.clients(2);
    let opened = b.begin(0, A);
    let here = b.then(1, opened, Action::Open { name: A });
    let mut last = opened;
    for tag in 0..b.rng.between(1, 3) as Number {
        let (at, plus) = (b.rng.below(b.objects) * OBJECT, b.rng.ms(0, 20));
        last = b.later(0, last, plus, Action::Write { name: A, at, len: 1 });
        let plus = b.rng.ms(0, 20);
        last = b.later(0, last, plus, Action::Snapshot { name: A, tag });
        let at = b.rng.below(b.objects) * OBJECT;
        last = b.then(0, last, Action::Write { name: A, at, len: 1 });
    }
    let plus = b.rng.ms(0, 60);
    let broken = b.later(1, here, plus, Action::Snapshot { name: A, tag: 7 });
    let (at, nth, by) = (b.rng.ms(15, 200), b.rng.below(8) as u32, b.rng.ms(500, 6000));
    let matches = b.rng.pick(&[Kind::NewVdi, Kind::Lookup, Kind::HeaderWrite]);
    match b.rng.below(4) {
        0 => b.schedule.ops[broken as usize].drop_at = Some(b.rng.between(4, 20) as u32),
        1 => b.fault(Fault::Late { client: 1, nth, matches, by }),
        2 => {
            let restart = Some(b.rng.ms(300, 3000));
            b.fault(Fault::Kill { node: nodes - 1, at, restart });
        }
        _ => {
            b.fault(Fault::Stall { node: nodes - 1, at, length: Some(by) });
        }
    }
    b.quiesce(6000, 10_000);
}

fn two_snapshots(b: &mut Build, third: u64, same_tag: bool) {
    b.clients(2 + third as usize);
    let pairs = b.objects.max(2) / 2;
    // Each writes to objects of its own.
    b.objects = 2 * pairs + third;
    let mut opened = b.begin(0, A);
    if third == 1 {
        // Before there is anything that will be displaced again.
        opened = b.then(2, opened, Action::Open { name: A });
    }
    let both = b.rng.one_in(2);
    let near = if same_tag { 30 } else { b.rng.pick(&[4, 10, 30]) };
    let here = b.then(1, opened, Action::Open { name: A });
    for client in 0..2 {
        let mut last = if client == 0 && near == 30 && !same_tag { opened } else { here };
        for round in 0..b.rng.between(1, 3) {
            if !same_tag && (client == 0 || both) {
                let at = (b.rng.below(pairs) * 2 + client) * OBJECT;
                let plus = b.rng.ms(0, near);
                last = b.later(client as Place, last, plus, Action::Write { name: A, at, len: 1 });
            }
            let tag = if same_tag { round } else { round * 2 + client } as Number;
            let plus = b.rng.ms(0, near);
            last = b.later(client as Place, last, plus, Action::Snapshot { name: A, tag });
        }
    }
    if third == 1 {
        let mut last = opened;
        for _ in 0..b.rng.between(3, 8) {
            let at = 2 * pairs * OBJECT + b.rng.below(2);
            let plus = b.rng.ms(0, 20);
            last = b.later(2, last, plus, Action::Write { name: A, at, len: 1 });
        }
    }
}

/// A snapshot is deleted while others use it.
fn s10_snapshot_goes(b: &mut Build) {
    let slow = b.rng.one_in(3);
    snapshot_goes(b, slow);
}

/// Something is made of it: between that the snapshot is there and that, time passes.
fn s10_something_is_made(b: &mut Build) {
    snapshot_goes(b, true);
}

fn snapshot_goes(b: &mut Build, slow: bool) {
    b.clients(2);
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT, len: 1 });
    }
    last = b.then(0, last, Action::Snapshot { name: A, tag: 0 });
    let at = b.rng.below(b.objects) * OBJECT;
    last = b.then(0, last, Action::Write { name: A, at, len: 1 });
    let mut here = b.then(1, last, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 0 });
    if slow {
        let by = b.rng.ms(5, 45);
        b.fault(Fault::Slow { client: 1, nth: 3, matches: Kind::InodeRead, by });
    }
    let plus = b.rng.ms(0, if slow { 10 } else { 40 });
    let deleted = b.later(0, here, plus, Action::DeleteSnap { name: A, which: Which::Tag(0) });
    match b.rng.below(4) {
        0 => {
            let k = b.rng.between(1, 12) as u32;
            b.schedule.ops[deleted as usize].drop_at = Some(k);
        }
        1 => drop(b.limit(deleted, 5, 60)),
        _ => {}
    }
    for first in [slow, false, false, false].into_iter().take(b.rng.between(1, 4) as usize) {
        let at = b.rng.below(b.objects) * OBJECT;
        let action = match b.rng.below(if first { 2 } else { 5 }) {
            0 => Action::Rollback { slot: 0 },
            1 => Action::Clone { slot: 0, name: 1 },
            _ => Action::ReadSnap { slot: 0, at, len: 1 },
        };
        let plus = b.rng.ms(0, if first { 5 } else { 60 });
        here = b.later(1, here, plus, action);
    }
    let again = b.then(1, here, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 1 });
    b.then(1, again, Action::ReadSnap { slot: 1, at, len: 1 });
}

/// A VDI is deleted and made again while another client has it open, and may be writing.
fn s11_stale_handle(b: &mut Build) {
    b.clients(2);
    let mut last = b.begin(0, A);
    let (at, len) = b.range();
    let (write, read) = (Action::Write { name: A, at, len }, Action::Read { name: A, at, len });
    if b.rng.one_in(2) {
        last = b.then(0, last, write);
    }
    for _ in 0..b.rng.below(3) {
        let (action, plus) = (b.write(A), b.rng.ms(0, 30));
        b.later(0, last, plus, action);
    }
    last = b.then(1, last, Action::Delete { name: A });
    last = b.create(1, Start::After(last, Duration::ZERO), A);
    last = b.then(1, last, Action::Open { name: A });
    if b.rng.one_in(2) {
        last = b.then(1, last, write);
    }
    let mut stale = last;
    for _ in 0..b.rng.between(1, 3) {
        let action = if b.rng.one_in(2) { read } else { write };
        stale = b.then(0, stale, action);
    }
    b.then(1, stale, read);
}

/// Two clients write to a hypervolume in turn, without a refresh.
fn s12_hypervolume_in_turn(b: &mut Build) {
    b.clients(2);
    const LARGE: u64 = 1 << (22 - 9);
    let objects = b.rng.between(2, 8);
    let sectors = objects * LARGE;
    let action = Action::Create { name: A, sectors, shift: 22, hyper: true, prealloc: false };
    let mut last = b.op(0, Start::At(Duration::ZERO), action);
    for client in 0..2 {
        last = b.then(client, last, Action::Open { name: A });
    }
    for turn in 0..b.rng.between(2, 6) {
        let at = b.rng.below(objects) * LARGE;
        let action = match b.rng.one_in(5) {
            true => Action::Discard { name: A, at, len: LARGE },
            false => Action::Write { name: A, at, len: 1 },
        };
        last = b.then(turn as usize % 2, last, action);
    }
}

/// One client takes a snapshot while another changes the size.
fn s13_size_of_a_snapshot(b: &mut Build) {
    b.clients(2);
    let opened = b.begin(0, A);
    let here = b.then(1, opened, Action::Open { name: A });
    for tag in 0..b.rng.between(1, 2) {
        let plus = b.rng.ms(0, 40);
        b.later(0, here, plus, Action::Snapshot { name: A, tag: tag as Number });
    }
    for _ in 0..b.rng.between(1, 2) {
        let sectors = b.rng.between(1, 12) * OBJECT;
        let plus = b.rng.ms(0, 40);
        b.later(1, here, plus, Action::Resize { name: A, sectors });
    }
}

/// A write over several objects, and a snapshot of the same client. What tears it is another
/// client's snapshot, after which some of its pieces are written again, or that it has more pieces
/// than are written at a time.
fn s14_torn_write(b: &mut Build) {
    let large = b.rng.one_in(200);
    b.objects = if large { 35 } else { b.objects.max(2) };
    let border = if large { OBJECT } else { b.rng.between(1, b.objects - 1) * OBJECT };
    let len = if large { 33 * OBJECT + 2 } else { b.rng.between(2, 4) };
    if !large {
        b.clients(2);
    }
    let mut last = b.begin(0, A);
    if b.rng.one_in(2) {
        last = b.then(0, last, Action::Write { name: A, at: border, len: 1 });
    }
    if !large {
        let here = b.then(1, last, Action::Open { name: A });
        let plus = b.rng.ms(0, 20);
        b.later(1, here, plus, Action::Snapshot { name: A, tag: 1 });
    }
    let (plus, more) = (b.rng.ms(0, 20), b.rng.ms(0, 40));
    b.later(0, last, plus, Action::Write { name: A, at: border - 1, len });
    let taken = b.later(0, last, more, Action::Snapshot { name: A, tag: 0 });
    let opened = b.then(0, taken, Action::OpenSnap { name: A, which: Which::Tag(0), slot: 0 });
    b.then(0, opened, Action::ReadSnap { slot: 0, at: border - 1, len: 2 });
    let at = border + len - 2;
    b.then(0, opened, Action::ReadSnap { slot: 0, at, len: 1 });
}

/// A snapshot is deleted by two operations at once, of one client or of two.
fn s15_deleted_twice(b: &mut Build) {
    let others = b.rng.below(2) as usize;
    b.clients(1 + others);
    let mut last = b.begin(0, A);
    for object in 0..b.objects {
        last = b.then(0, last, Action::Write { name: A, at: object * OBJECT, len: 1 });
    }
    last = b.then(0, last, Action::Snapshot { name: A, tag: 0 });
    if b.rng.one_in(2) {
        let action = b.write(A);
        last = b.then(0, last, action);
        last = b.then(0, last, Action::Snapshot { name: A, tag: 1 });
    }
    for (client, which) in [(0, Which::Tag(0)), (others, Which::Id(1))] {
        let plus = b.rng.ms(0, 10 + 50 * client as u64);
        b.later(client, last, plus, Action::DeleteSnap { name: A, which });
    }
}
