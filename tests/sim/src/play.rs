//! Plays a schedule: the programs. Each client is the library's own, its operations are started by
//! spawn, and dispatch runs when its descriptor says so. Then everybody closes, somebody new looks
//! at everything, and deletes it.

// Buffers of reads are lent as C programs lend theirs.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{InodeHeader, Oid, Vid};

use crate::check::{
    self, ClientId, Frame, Inode, Kind, Of, Outcome, Phase, Record, Rest, Seen, Violation,
};
use crate::cluster::{Cluster, Op as Bounds, Options};
use crate::error::{Error, Result};
use crate::exec::Completion;
use crate::fault::Fault;
use crate::model;
use crate::net::{self, EventSet, RecvBuf, SendBuf, WakeFd};
use crate::ops::{Action, Number, Op, OpId, SECTOR, Schedule, Start, Which, contents, value};
use crate::rules::Rules;
use crate::vdi::{self, Client, CreateOptions, ExtentKind, Key, Name, Space, UNDO_LIMIT, Vdi};
use crate::world::{World, WorldConfig};

/// More than this, and something turns for ever.
const MAX_EVENTS: u64 = 1_000_000;
/// Operations end so soon after faults have stopped, or when they began, which is later.
const HANG: Duration = Duration::from_secs(60);
/// What may still happen after faults have stopped is over after this.
const SETTLE: Duration = Duration::from_secs(15);
/// And after a connection vanished, for which nobody can tell.
const SETTLE_VANISHED: Duration = Duration::from_secs(130);
/// The numbers of the operations that come after the schedule's.
const AFTER: OpId = 1_000_000;

/// What came of a schedule.
pub struct Report {
    /// A request outlived its connection: nothing was judged.
    pub beyond: bool,
    pub violations: Vec<Violation>,
    pub records: Vec<Record>,
    pub trace: Vec<String>,
    pub hash: u64,
    pub events: u64,
    /// Virtual.
    pub time: Duration,
}

pub fn play(schedule: &Schedule, trace: bool) -> Report {
    let config = &schedule.config;
    let hazards = match config.hazards {
        // Nothing of that was ever seen of real servers.
        true => model::Hazards { late_knowledge: false, ..model::Hazards::all() },
        false => model::Hazards::none(),
    };
    let world = World::new(WorldConfig {
        seed: config.seed,
        nodes: config.nodes,
        delays: config.delays,
        faults: schedule.faults.clone(),
        model: model::Config {
            nodes: config.nodes,
            copies: config.copies as u8,
            use_lock: config.lock,
            recycle: config.recycle,
            hazards,
            ..model::Config::default()
        },
    });
    let _entered = world.enter();
    if trace {
        world.start_trace();
    }
    world.quiesce_faults(config.quiesce);
    let player = Player::new(schedule, world.clone());
    CURRENT.with_borrow_mut(|current| *current = Some(player.clone()));
    let played = catch_unwind(AssertUnwindSafe(|| player.run()));
    let mut violations = player.violations.take();
    match played {
        Ok(Ok(())) => {}
        Ok(Err(Stuck(what))) => violations.push(Violation { kind: Kind::Hang, what }),
        Err(panic) => {
            drop(panic);
            let what = LAST_PANIC.take();
            violations.push(Violation { kind: Kind::Panic, what });
        }
    }
    // More than the library can bear, and than servers do.
    let beyond = world.outlived().is_some();
    if beyond {
        violations.clear();
    }
    let report = Report {
        beyond,
        violations,
        records: player.records.take(),
        trace: world.take_trace(),
        hash: world.hash(),
        events: player.events.get(),
        time: world.now(),
    };
    CURRENT.with_borrow_mut(|current| *current = None);
    world.set_idle_hook(Rc::new(|| false));
    player.places.iter().for_each(Place::forget);
    report
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Player>>> = const { RefCell::new(None) };
}

fn current() -> Option<Rc<Player>> {
    CURRENT.with_borrow(Option::clone)
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics kept for the report instead of printed.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|panic| LAST_PANIC.set(panic.to_string())));
}

/// It does not go on, and why.
struct Stuck(String);

struct Player {
    world: Rc<World>,
    schedule: Schedule,
    places: Vec<Place>,
    /// Operations that start when another has ended.
    followers: RefCell<BTreeMap<OpId, Vec<(Op, Duration)>>>,
    /// Operations that start at a time, and the order in which that was known.
    timed: RefCell<BTreeMap<(Duration, u64), Op>>,
    due: RefCell<VecDeque<(Op, Phase)>>,
    records: RefCell<Vec<Record>>,
    tick: Cell<u64>,
    events: Cell<u64>,
    clients: Cell<ClientId>,
    /// Operations of the schedule that have not ended.
    left: Cell<usize>,
    next_after: Cell<OpId>,
    violations: RefCell<Vec<Violation>>,
    rules: Rc<Rules>,
    /// Its timer ends waits of the world.
    alarm: EventSet,
    /// Until when nothing is asked for.
    wait: Cell<Option<Duration>>,
}

/// Where a client is, and what its program knows.
struct Place {
    number: usize,
    client: RefCell<Option<Arc<Client>>>,
    id: Cell<ClientId>,
    fd: Cell<RawFd>,
    /// A blocking call of it is on the stack.
    busy: Cell<bool>,
    working: RefCell<BTreeMap<Number, Vec<Handle>>>,
    slots: RefCell<BTreeMap<Number, Handle>>,
    /// Opens and closes under way.
    moving: RefCell<BTreeMap<Number, usize>>,
}

#[derive(Clone)]
struct Handle {
    vdi: Arc<Vdi>,
    opened_by: OpId,
    of: Option<Of>,
}

/// What an operation gives: what was seen, and a handle that it opened.
type Given = (Seen, Option<Arc<Vdi>>);

impl Place {
    fn new(number: usize) -> Place {
        Place {
            number,
            client: RefCell::default(),
            id: Cell::default(),
            fd: Cell::new(-1),
            busy: Cell::default(),
            working: RefCell::default(),
            slots: RefCell::default(),
            moving: RefCell::default(),
        }
    }

    /// Its program forgets the handles; then the client goes.
    fn forget(&self) {
        self.working.take();
        self.slots.take();
        self.moving.take();
        drop(self.client.take());
    }

    fn working(&self, name: Number) -> Option<Handle> {
        self.working.borrow().get(&name).and_then(|handles| handles.last().cloned())
    }

    fn is_moving(&self, name: Number) -> bool {
        self.moving.borrow().get(&name).is_some_and(|count| *count > 0)
    }
}

/// The future of an operation, which is given what bounds it.
macro_rules! task {
    (|$op:ident| $body:expr) => {
        Box::new(move |bounds: Bounds| -> Run {
            Box::pin(async move {
                let $op = &bounds;
                $body
            })
        })
    };
}

impl Player {
    fn new(schedule: &Schedule, world: Rc<World>) -> Rc<Player> {
        // One place more, for who comes afterwards.
        let places = (0..=schedule.config.clients).map(Place::new).collect();
        let rules = Rc::new(Rules::new(world.servers().clone()));
        let player = Player {
            world,
            schedule: schedule.clone(),
            places,
            followers: RefCell::default(),
            timed: RefCell::default(),
            due: RefCell::default(),
            records: RefCell::default(),
            tick: Cell::default(),
            events: Cell::default(),
            clients: Cell::default(),
            left: Cell::new(schedule.ops.len()),
            next_after: Cell::new(AFTER),
            violations: RefCell::default(),
            rules,
            alarm: EventSet::new(&WakeFd::new().expect("a flag")).expect("a number"),
            wait: Cell::default(),
        };
        let player = Rc::new(player);
        player.world.set_idle_hook(Rc::new(|| current().is_some_and(|player| player.pump())));
        player.world.set_observer(player.rules.clone());
        player
    }

    // --- Time ---

    fn tick(&self) -> u64 {
        self.tick.set(self.tick.get() + 1);
        self.tick.get()
    }

    fn run(self: &Rc<Self>) -> std::result::Result<(), Stuck> {
        for place in &self.places[..self.schedule.config.clients] {
            self.renew(place);
        }
        for op in &self.schedule.ops {
            match op.start {
                Start::At(at) => self.at(at, op.clone()),
                Start::After(id, plus) => {
                    self.followers.borrow_mut().entry(id).or_default().push((op.clone(), plus));
                }
            }
        }
        let quiesce = self.schedule.config.quiesce;
        self.until(|| self.left.get() == 0, quiesce)?;
        self.afterwards()
    }

    /// Goes on until `over`; an error where nothing can happen, or too much does.
    fn until(
        self: &Rc<Self>,
        over: impl Fn() -> bool,
        from: Duration,
    ) -> std::result::Result<(), Stuck> {
        loop {
            self.pump();
            if over() {
                return Ok(());
            }
            let limit = from.max(self.last_start()) + HANG + self.vanished();
            if self.world.now() > limit {
                return Err(self.stuck("an operation does not end"));
            }
            if self.events.get() > MAX_EVENTS {
                return Err(self.stuck("there is no end of events"));
            }
            if !self.step() {
                self.pump();
                if over() {
                    return Ok(());
                }
                return Err(self.stuck("nothing can happen any more"));
            }
        }
    }

    /// What nobody can tell the end of is waited for longer.
    fn vanished(&self) -> Duration {
        let vanishes = |fault: &Fault| matches!(fault, Fault::Partition { .. });
        match self.schedule.faults.iter().any(vanishes) {
            true => SETTLE_VANISHED,
            false => Duration::ZERO,
        }
    }

    fn step(&self) -> bool {
        self.events.set(self.events.get() + 1);
        self.world.step()
    }

    /// When the last operation began, or the next one does.
    fn last_start(&self) -> Duration {
        let begun = self.records.borrow().last().map_or(Duration::ZERO, |record| record.began_at);
        let next = self.timed.borrow().last_key_value().map_or(Duration::ZERO, |((at, _), _)| *at);
        begun.max(next)
    }

    fn stuck(&self, why: &str) -> Stuck {
        let records = self.records.borrow();
        let open = records.iter().filter(|record| record.outcome == Outcome::Open);
        let open: Vec<String> =
            open.map(|record| format!("{} {}", record.id, record.action)).collect();
        Stuck(format!("{why} at {:?}: {}", self.world.now(), open.join(", ")))
    }

    fn pass_time(self: &Rc<Self>, until: Duration) -> std::result::Result<(), Stuck> {
        self.wait.set(Some(until));
        while self.world.now() < until {
            self.pump();
            if self.events.get() > MAX_EVENTS {
                return Err(self.stuck("there is no end of events"));
            }
            if !self.step() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Has time stop where the next operation begins.
    fn set_alarm(&self) {
        let next = self.timed.borrow().first_key_value().map(|((at, _), _)| *at);
        let next =
            next.into_iter().chain(self.wait.get()).filter(|at| *at > self.world.now()).min();
        self.alarm.set_timer(next.map(|at| at - self.world.now()));
    }

    fn at(&self, at: Duration, op: Op) {
        let at = at.max(self.world.now());
        let order = self.tick();
        self.timed.borrow_mut().insert((at, order), op);
    }

    /// Does what can be done now, without waiting; whether there was anything.
    fn pump(self: &Rc<Self>) -> bool {
        let mut worked = false;
        loop {
            let mut idle = true;
            loop {
                let now = self.world.now();
                let mut timed = self.timed.borrow_mut();
                match timed.first_entry() {
                    Some(first) if first.key().0 <= now => {
                        self.due.borrow_mut().push_back((first.remove(), Phase::Schedule));
                    }
                    _ => break,
                }
            }
            let mut postponed = Vec::new();
            loop {
                let Some((op, phase)) = self.due.borrow_mut().pop_front() else { break };
                if self.places[op.client].busy.get() {
                    postponed.push((op, phase));
                    continue;
                }
                idle = false;
                self.start(op, phase);
            }
            self.due.borrow_mut().extend(postponed);
            for place in &self.places {
                let ready =
                    !place.busy.get() && place.fd.get() >= 0 && net::is_ready(place.fd.get());
                let client = if ready { place.client.borrow().clone() } else { None };
                if let Some(client) = client {
                    idle = false;
                    self.world.turn();
                    client.cluster.dispatch();
                }
            }
            if idle {
                self.set_alarm();
                return worked;
            }
            worked = true;
        }
    }

    // --- Operations ---

    fn renew(self: &Rc<Self>, place: &Place) {
        self.clients.set(self.clients.get() + 1);
        place.id.set(self.clients.get());
        // Not all of them begin with the same.
        let mut gateways = self.world.gateways(place.number);
        let nodes = gateways.len();
        gateways.rotate_left(place.number % nodes);
        let cluster = Cluster::new(gateways, Options::default()).expect("there is a gateway");
        place.fd.set(cluster.events_fd().expect("a descriptor"));
        let client = Arc::new(Client::new(cluster));
        *place.client.borrow_mut() = Some(client.clone());
        let connecting = client.clone();
        let spawned = client.cluster.spawn(
            move |op| async move { connecting.cluster.connect(&op).await },
            // The first operation tells what went wrong.
            |_: Result<()>| None,
        );
        spawned.expect("a descriptor");
    }

    /// Closes the client: a blocking call, in which the others go on.
    fn close_client(self: &Rc<Self>, place: &Place) {
        let Some(client) = place.client.take() else { return };
        place.working.take();
        place.slots.take();
        place.moving.take();
        place.busy.set(true);
        client.cluster.set_timeout_ms(30_000);
        // What it leaves open is over by the end, or held against it then.
        let _ = client.cluster.close(async |op| client.close_all(op).await);
        place.busy.set(false);
        place.fd.set(-1);
    }

    fn start(self: &Rc<Self>, op: Op, phase: Phase) {
        let place = &self.places[op.client];
        let now = self.world.now();
        let mut record = Record {
            id: op.id,
            client: place.id.get(),
            action: op.action,
            begin: self.tick(),
            end: None,
            began_at: now,
            ended_at: now,
            outcome: Outcome::Open,
            handle: None,
            of: None,
            alone: false,
            phase,
        };
        let handle = match op.action {
            Action::ReadSnap { slot, .. }
            | Action::Rollback { slot }
            | Action::Clone { slot, .. } => place.slots.borrow().get(&slot).cloned(),
            Action::CloseSnap { slot } => place.slots.borrow_mut().remove(&slot),
            Action::Close { name } => place.working.borrow_mut().get_mut(&name).and_then(Vec::pop),
            action => action.name().and_then(|name| place.working(name)),
        };
        if let Some(handle) = &handle {
            record.handle = Some(handle.opened_by);
            record.of = handle.of;
        }
        match op.action {
            Action::Open { name } => {
                record.alone = place.working(name).is_none() && !place.is_moving(name);
                record.handle = None;
                *place.moving.borrow_mut().entry(name).or_default() += 1;
            }
            Action::Close { name } => {
                record.alone = place.working(name).is_none() && !place.is_moving(name);
                *place.moving.borrow_mut().entry(name).or_default() += 1;
            }
            _ => {}
        }
        self.world.trace(|| format!("{op}"));
        self.records.borrow_mut().push(record);
        let client = place.client.borrow().clone();
        let (Some(client), Some(work)) = (client.clone(), self.work(&op, client, handle)) else {
            return self.ended(op.id, None);
        };
        if op.action == Action::Renew {
            // Not held while it goes.
            drop((work, client));
            self.close_client(place);
            self.renew(place);
            return self.ended(op.id, Some(Ok((Seen::Nothing, None))));
        }
        client.cluster.set_timeout_ms(op.deadline);
        let (id, drop_at) = (op.id, op.drop_at);
        // It keeps to its time limit by itself, but for what it undoes.
        let creates = matches!(op.action, Action::Create { .. } | Action::Snapshot { .. });
        let bounded = client.clone();
        let spawned = client.cluster.spawn(
            move |bounds: Bounds| async move {
                let mut work = DropAt { left: drop_at, work: Some(work(bounds)) };
                let bounds = if creates { bounds.extended(UNDO_LIMIT) } else { bounds };
                bounded.cluster.bounded(&bounds, pin!(&mut work)).await
            },
            move |result| {
                let told: Completion = Box::new(move || {
                    if let Some(player) = current() {
                        player.ended(id, Some(result));
                    }
                });
                Some(told)
            },
        );
        spawned.expect("a descriptor");
    }

    /// The program is told what came of an operation; None: there was nothing to do it to.
    fn ended(self: &Rc<Self>, id: OpId, result: Option<Result<Given>>) {
        let mut records = self.records.borrow_mut();
        let record = records.iter_mut().rev().find(|record| record.id == id).expect("it was begun");
        let place = self.places.iter().find(|place| place.id.get() == record.client);
        record.end = Some(self.tick());
        record.ended_at = self.world.now();
        if let Action::Open { name } | Action::Close { name } = record.action
            && let Some(place) = place
            && let Some(count) = place.moving.borrow_mut().get_mut(&name)
        {
            *count = count.saturating_sub(1);
        }
        record.outcome = match result {
            None => Outcome::Skipped,
            Some(Err(error)) => Outcome::Failed(error.code(), error.to_string()),
            Some(Ok((seen, opened))) => {
                if let (Some(vdi), Some(place)) = (opened, place) {
                    let opened_by = id;
                    match (record.action, &seen) {
                        (Action::Open { name }, _) => {
                            let handle = Handle { vdi, opened_by, of: None };
                            place.working.borrow_mut().entry(name).or_default().push(handle);
                        }
                        (Action::OpenSnap { name, slot, .. }, Seen::Info { vid, tag, .. }) => {
                            let of = Of { name, vid: *vid, tag: *tag };
                            record.of = Some(of);
                            let handle = Handle { vdi, opened_by, of: Some(of) };
                            let before = place.slots.borrow_mut().insert(slot, handle);
                            if let (Some(before), Some(client)) = (before, &*place.client.borrow())
                            {
                                client.close_snapshot(&before.vdi);
                            }
                        }
                        _ => {}
                    }
                }
                Outcome::Done(seen)
            }
        };
        let (outcome, phase) = (record.outcome.clone(), record.phase);
        drop(records);
        self.world.trace(|| format!("{id} ends: {}", brief(&outcome)));
        if phase == Phase::Schedule {
            self.left.set(self.left.get() - 1);
        }
        let followers = self.followers.borrow_mut().remove(&id);
        for (op, plus) in followers.into_iter().flatten() {
            self.at(self.world.now() + plus, op);
        }
    }

    /// What an operation does; None where it has nothing to do it to.
    fn work(&self, op: &Op, client: Option<Arc<Client>>, handle: Option<Handle>) -> Option<Work> {
        let client = client?;
        let id = op.id;
        let vdi = handle.map(|handle| handle.vdi);
        Some(match op.action {
            Action::Create { name, sectors, shift, hyper, prealloc } => {
                let options = CreateOptions {
                    size: sectors * SECTOR,
                    object_size: (!hyper).then_some(1 << shift),
                    prealloc,
                    hypervolume: hyper,
                    ..CreateOptions::default()
                };
                task!(|op| client.create(op, vdi_name(name), &options).await.map(nothing))
            }
            Action::Open { name } => task!(|op| {
                let vdi = client.open(op, vdi_name(name)).await?;
                Ok((Seen::Nothing, Some(vdi)))
            }),
            Action::Close { .. } | Action::CloseSnap { .. } => {
                let vdi = vdi?;
                task!(|op| client.close(op, vdi).await.map(nothing))
            }
            Action::Read { at, len, .. } | Action::ReadSnap { at, len, .. } => {
                let vdi = vdi?;
                task!(|op| read(&client, op, &vdi, at, len).await)
            }
            Action::Write { at, len, .. } => {
                let vdi = vdi?;
                task!(|op| {
                    let buf = SendBuf::from(contents(id, at, len));
                    vdi.write(&client.cluster, op, &buf, at * SECTOR).await.map(nothing)
                })
            }
            Action::Discard { at, len, .. } => {
                let vdi = vdi?;
                task!(|op| {
                    let (offset, len) = (at * SECTOR, len * SECTOR);
                    let zeros = vdi.zero(&client.cluster, op, offset, len, Space::Freed);
                    zeros.await.map(nothing)
                })
            }
            Action::Flush { .. } => {
                let vdi = vdi?;
                task!(|op| vdi.flush(&client.cluster, op).await.map(nothing))
            }
            Action::Resize { sectors, .. } => {
                let vdi = vdi?;
                task!(|op| vdi.resize(&client.cluster, op, sectors * SECTOR).await.map(nothing))
            }
            Action::Status { .. } => {
                let vdi = vdi?;
                task!(|op| holes(&client, op, &vdi).await)
            }
            Action::Refresh { .. } => {
                let vdi = vdi?;
                task!(|op| vdi.reload(&client.cluster, op).await.map(nothing))
            }
            Action::Info { .. } => {
                let vdi = vdi?;
                task!(|op| Ok((info(&client, op, &vdi).await?, None)))
            }
            Action::List => task!(|op| {
                let names = client.list(op).await?;
                let names = names.iter().filter_map(|name| number(name, b'a'));
                Ok((Seen::Names(names.collect()), None))
            }),
            Action::Snapshot { tag, .. } => {
                let vdi = vdi?;
                task!(|op| {
                    let vid = client.snapshot(op, &vdi, tag_text(tag).as_bytes()).await?;
                    Ok((Seen::Vid(vid.get()), None))
                })
            }
            Action::OpenSnap { name, which, .. } => task!(|op| {
                let vdi = client.open_snapshot(op, vdi_name(name), vdi_which(which)).await?;
                let mut opened = Opened(&client, vec![vdi.clone()]);
                let info = info(&client, op, &vdi).await?;
                opened.1.clear();
                Ok((info, Some(vdi)))
            }),
            Action::Snapshots { name } => task!(|op| {
                let opened = client.snapshots(op, vdi_name(name)).await?;
                let opened = Opened(&client, opened);
                let mut all = Vec::new();
                for vdi in &opened.1 {
                    if let Seen::Info { vid, tag, .. } = info(&client, op, vdi).await? {
                        all.push(Of { name, vid, tag });
                    }
                }
                Ok((Seen::Snapshots(all), None))
            }),
            Action::DeleteSnap { name, which } => task!(|op| {
                client.delete_snapshot(op, vdi_name(name), vdi_which(which)).await.map(nothing)
            }),
            Action::Rollback { .. } => {
                let vdi = vdi?;
                task!(|op| client.rollback(op, &vdi).await.map(nothing))
            }
            Action::Clone { name, .. } => {
                let vdi = vdi?;
                task!(|op| {
                    client.clone_vdi(op, &vdi, None, vdi_name(name), 0).await.map(nothing)
                })
            }
            Action::Delete { name } => {
                task!(|op| client.delete(op, vdi_name(name)).await.map(nothing))
            }
            Action::SetAttr { name, key } => task!(|op| {
                client.set_attr(op, &key_of(name, key)?, &id.to_le_bytes()).await.map(nothing)
            }),
            Action::GetAttr { name, key } => task!(|op| {
                let (bytes, _) = client.get_attr(op, &key_of(name, key)?, 4).await?;
                let setter = <[u8; 4]>::try_from(&bytes[..]).map_or(u32::MAX, u32::from_le_bytes);
                Ok((Seen::Attr(Some(setter)), None))
            }),
            Action::DelAttr { name, key } => {
                task!(|op| client.delete_attr(op, &key_of(name, key)?).await.map(nothing))
            }
            Action::Renew => task!(|_op| Ok(nothing(()))),
        })
    }

    // --- Afterwards ---

    /// One operation in a world where all is well, to its end.
    fn ask(
        self: &Rc<Self>,
        client: usize,
        action: Action,
        phase: Phase,
    ) -> std::result::Result<Outcome, Stuck> {
        let id = self.next_after.get();
        self.next_after.set(id + 1);
        let start = Start::At(self.world.now());
        let op = Op { id, client, start, deadline: 0, drop_at: None, action };
        self.due.borrow_mut().push_back((op, phase));
        let outcome = || {
            let records = self.records.borrow();
            records.iter().rev().find(|record| record.id == id).map(|record| record.outcome.clone())
        };
        let ended = || outcome().is_some_and(|outcome| outcome != Outcome::Open);
        self.until(ended, self.world.now())?;
        Ok(outcome().unwrap_or(Outcome::Skipped))
    }

    fn afterwards(self: &Rc<Self>) -> std::result::Result<(), Stuck> {
        let config = &self.schedule.config;
        let settle = SETTLE + self.vanished();
        self.pass_time(self.world.now().max(config.quiesce) + settle)?;
        let rounds = (0..config.clients).collect::<Vec<_>>();
        for place in &rounds {
            self.ask_handles(*place)?;
        }
        for place in &rounds {
            self.ask_opens(*place)?;
        }
        for place in &self.places {
            self.close_client(place);
        }
        let fresh = config.clients;
        self.renew(&self.places[fresh]);
        self.pass_time(self.world.now() + Duration::from_secs(1))?;
        let mut rest = self.look_around(fresh)?;
        rest.missing = self.missing();
        rest.locks = self.world.servers().locks().keys().copied().collect();
        let judged = self.records.borrow().len();
        self.delete_all(fresh, &mut rest)?;
        let mut violations = check::check(&self.records.borrow()[..judged], &rest, self.frame());
        for record in &self.records.borrow()[judged..] {
            if let Outcome::Failed(_, error) = &record.outcome {
                let what = format!("{} {}: {error}", record.id, record.action);
                violations.push(Violation { kind: Kind::Refused, what });
            }
        }
        violations.extend(self.rules.judge(&self.records.borrow()[..judged], self.frame()));
        self.violations.borrow_mut().extend(violations);
        Ok(())
    }

    fn frame(&self) -> Frame {
        let config = &self.schedule.config;
        let kills = |fault: &Fault| matches!(fault, Fault::Kill { .. });
        let readonly = sheepdog_proto::SdResult::READONLY.0;
        let lies = |fault: &Fault| matches!(fault, Fault::Answer { result, executed: true, .. } if *result == readonly);
        Frame {
            lock: config.lock,
            // Each object is on a node that answers.
            prompt: config.prompt && config.nodes > 1 && config.copies == config.nodes,
            faults: !self.schedule.faults.is_empty(),
            kills: self.schedule.faults.iter().any(kills),
            clients: config.clients,
            hazards: config.hazards,
            lies: self.schedule.faults.iter().any(lies),
            lost_lock: self.world.lost_lock(),
            slow_servers: config.delays.step.max(config.delays.tail) > Duration::from_millis(100),
        }
    }

    /// The handles that a client still has: everything is read through them, then they are closed.
    fn ask_handles(self: &Rc<Self>, place: usize) -> std::result::Result<(), Stuck> {
        let names: Vec<Number> = self.places[place].working.borrow().keys().copied().collect();
        for name in names {
            while let Some(handle) = self.places[place].working(name) {
                drop(handle);
                for (at, len) in self.ranges(name) {
                    self.ask(place, Action::Read { name, at, len }, Phase::After)?;
                }
                self.ask(place, Action::Close { name }, Phase::After)?;
            }
        }
        let slots: Vec<Number> = self.places[place].slots.borrow().keys().copied().collect();
        for slot in slots {
            self.ask(place, Action::CloseSnap { slot }, Phase::After)?;
        }
        Ok(())
    }

    /// Every VDI can be opened again by those who had it open.
    fn ask_opens(self: &Rc<Self>, place: usize) -> std::result::Result<(), Stuck> {
        let client = self.places[place].id.get();
        for inode in self.inodes().into_iter().filter(|inode| !inode.is_snapshot) {
            let name = inode.name;
            let knows =
                self.records.borrow().iter().any(|record| {
                    record.client == client && record.action == Action::Open { name }
                });
            if knows
                && let Outcome::Done(_) = self.ask(place, Action::Open { name }, Phase::After)?
            {
                self.ask(place, Action::Close { name }, Phase::After)?;
            }
        }
        Ok(())
    }

    /// The ranges of a name that were written to, and lie in it as it is now.
    fn ranges(&self, name: Number) -> BTreeSet<(u64, u64)> {
        let family: BTreeSet<Number> = self
            .records
            .borrow()
            .iter()
            .filter_map(|record| match (record.action, record.of) {
                (Action::Clone { name: to, .. }, Some(of)) if to == name => Some(of.name),
                _ => None,
            })
            .chain([name])
            .collect();
        let size = self.size(name);
        let records = self.records.borrow();
        let written = records.iter().filter_map(|record| match record.action {
            Action::Write { name: n, at, len } if family.contains(&n) => Some((at, len)),
            _ => None,
        });
        written.filter(|(at, len)| at + len <= size).collect()
    }

    /// Sectors of the working VDI.
    fn size(&self, name: Number) -> u64 {
        let mut inodes =
            self.inodes().into_iter().filter(|inode| !inode.is_snapshot && inode.name == name);
        let last = inodes.next_back().and_then(|inode| self.header(inode.vid));
        last.map_or(0, |header| sectors(&header))
    }

    fn header(&self, vid: u32) -> Option<InodeHeader> {
        self.world.servers().stored_header(vid)
    }

    fn inodes(&self) -> Vec<Inode> {
        let cluster = self.world.servers();
        let (vids, deleted) = (cluster.in_use(), cluster.deleted());
        let inodes = vids.into_iter().filter_map(|vid| {
            let header = self.header(vid)?;
            let name = number(header.name(), b'a')?;
            let tag = tag_of(&header);
            let (is_snapshot, hidden) = (header.is_snapshot(), deleted.contains(&vid));
            Some(Inode { vid, name, tag, is_snapshot, hidden })
        });
        inodes.collect()
    }

    /// A client that knows nothing looks at everything.
    fn look_around(self: &Rc<Self>, fresh: usize) -> std::result::Result<Rest, Stuck> {
        let inodes = self.inodes();
        for inode in &inodes {
            let name = inode.name;
            if !inode.is_snapshot {
                let open = self.ask(fresh, Action::Open { name }, Phase::Fresh)?;
                if !matches!(open, Outcome::Done(_)) {
                    continue;
                }
                self.ask(fresh, Action::Info { name }, Phase::Fresh)?;
                for (at, len) in self.ranges(name) {
                    self.ask(fresh, Action::Read { name, at, len }, Phase::Fresh)?;
                }
                self.ask(fresh, Action::Close { name }, Phase::Fresh)?;
                for key in self.keys(name) {
                    self.ask_attr(fresh, name, key)?;
                }
            } else {
                // Without a size: its deletion has begun.
                let header = self.header(inode.vid).filter(|header| header.vdi_size.get() != 0);
                let Some(header) = header else { continue };
                let (which, slot) = (Which::Id(header.snap_id.get()), 0);
                self.ask(fresh, Action::OpenSnap { name, which, slot }, Phase::Fresh)?;
                let size = sectors(&header);
                for (at, len) in self.snapshot_ranges(name, size) {
                    self.ask(fresh, Action::ReadSnap { slot, at, len }, Phase::Fresh)?;
                }
                self.ask(fresh, Action::CloseSnap { slot }, Phase::Fresh)?;
            }
        }
        Ok(Rest { inodes, ..Rest::default() })
    }

    fn snapshot_ranges(&self, name: Number, size: u64) -> BTreeSet<(u64, u64)> {
        let records = self.records.borrow();
        let written = records.iter().filter_map(|record| match record.action {
            Action::Write { name: n, at, len } if n == name => Some((at, len)),
            _ => None,
        });
        written.filter(|(at, len)| at + len <= size).collect()
    }

    fn keys(&self, name: Number) -> BTreeSet<Number> {
        let records = self.records.borrow();
        let keys = records.iter().filter_map(|record| match record.action {
            Action::SetAttr { name: n, key } if n == name => Some(key),
            _ => None,
        });
        keys.collect()
    }

    /// An attribute may be missing, which is an answer.
    fn ask_attr(
        self: &Rc<Self>,
        fresh: usize,
        name: Number,
        key: Number,
    ) -> std::result::Result<(), Stuck> {
        self.ask(fresh, Action::GetAttr { name, key }, Phase::Fresh)?;
        let mut records = self.records.borrow_mut();
        if let Some(record) = records.last_mut()
            && let Outcome::Failed(code, _) = record.outcome
            && code == sheepdog_proto::SdResult::NO_OBJ.0 as i32
        {
            record.outcome = Outcome::Done(Seen::Attr(None));
        }
        Ok(())
    }

    /// Entries of live maps whose objects are not there.
    fn missing(&self) -> Vec<String> {
        let cluster = self.world.servers();
        let mut missing = Vec::new();
        for inode in self.inodes() {
            // Nobody looks into a snapshot whose deletion has begun.
            let doomed = inode.is_snapshot
                && self.header(inode.vid).is_some_and(|header| header.vdi_size.get() == 0);
            let Some(view) = cluster.inode(inode.vid).filter(|_| !doomed) else { continue };
            for (index, owner) in view.map {
                let oid = Vid::new(owner).map(|vid| vid.data(index));
                if !oid.is_some_and(|oid| cluster.has_object(oid)) {
                    let letter = (b'a' + inode.name) as char;
                    missing.push(format!(
                        "{:06x} of {letter} names {owner:06x} for object {index}, which is not there",
                        inode.vid
                    ));
                }
            }
        }
        missing
    }

    /// Deletes what there is, in an order of the seed's; what remains must stay whole.
    fn delete_all(
        self: &Rc<Self>,
        fresh: usize,
        rest: &mut Rest,
    ) -> std::result::Result<(), Stuck> {
        let mut inodes = rest.inodes.clone();
        let turn = self.schedule.config.seed as usize % inodes.len().max(1);
        inodes.rotate_left(turn);
        if !rest.missing.is_empty() {
            return Ok(());
        }
        for inode in inodes {
            let Some(header) = self.header(inode.vid) else { continue };
            let name = inode.name;
            let action = match inode.is_snapshot {
                true => Action::DeleteSnap { name, which: Which::Id(header.snap_id.get()) },
                false => Action::Delete { name },
            };
            self.ask(fresh, action, Phase::Fresh)?;
            for what in self.missing() {
                rest.missing.push(format!("when {:06x} was deleted: {what}", inode.vid));
            }
        }
        self.close_client(&self.places[fresh]);
        self.pass_time(self.world.now() + Duration::from_secs(10))?;
        let inodes = self.inodes().into_iter();
        rest.left = inodes.map(|inode| format!("{:06x} is not deleted", inode.vid)).collect();
        for oid in self.world.servers().objects().into_keys().map(Oid) {
            let is_named = || {
                let inode = self.world.servers().inode(oid.vid().get());
                inode.is_some_and(|inode| inode.map.contains_key(&oid.index()))
            };
            match oid.kind() {
                Some(OidKind::Data) if !is_named() => {
                    rest.unnamed.push(format!("{oid} is left, and nothing names it"));
                }
                Some(OidKind::Data | OidKind::Ledger | OidKind::Btree) => {
                    rest.left.push(format!("{oid} is left"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(code, error) => format!("{code:#x} {error}"),
        Outcome::Done(Seen::Nothing) => "success".into(),
        Outcome::Done(seen) => format!("{seen:?}"),
        outcome => format!("{outcome:?}"),
    }
}

// --- What operations consist of ---

type Run = Pin<Box<dyn Future<Output = Result<Given>> + Send>>;
type Work = Box<dyn FnOnce(Bounds) -> Run + Send>;

fn nothing(_: ()) -> Given {
    (Seen::Nothing, None)
}

/// Snapshots that were opened for an operation, closed again with it unless they are taken out.
struct Opened<'a>(&'a Client, Vec<Arc<Vdi>>);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|vdi| self.0.close_snapshot(vdi));
    }
}

/// Drops the future when it waits for the last time that it may.
struct DropAt {
    left: Option<u32>,
    work: Option<Run>,
}

impl Future for DropAt {
    type Output = Result<Given>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Given>> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Error::Canceled)) };
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.work = None;
                return Poll::Ready(Err(Error::Canceled));
            }
        }
        Poll::Pending
    }
}

fn vdi_name(name: Number) -> Name {
    Name::new(&[b'a' + name]).expect("a letter is a name")
}

fn tag_text(tag: Number) -> String {
    format!("t{tag}")
}

fn vdi_which(which: Which) -> vdi::Which {
    match which {
        Which::Tag(tag) => vdi::Which::snapshot(tag_text(tag).as_bytes(), 0).expect("a tag"),
        Which::Id(id) => vdi::Which::snap_id(id),
    }
}

fn key_of(name: Number, key: Number) -> Result<Key> {
    Key::new(&vdi_name(name), format!("k{key}").as_bytes())
}

/// The number of a name that a schedule can have.
fn number(name: &[u8], first: u8) -> Option<Number> {
    match name {
        [letter] => letter.checked_sub(first),
        _ => None,
    }
}

fn tag_of(header: &InodeHeader) -> Option<Number> {
    std::str::from_utf8(header.tag()).ok()?.strip_prefix('t')?.parse().ok()
}

fn sectors(header: &InodeHeader) -> u64 {
    header.vdi_size.get() / SECTOR
}

async fn info(client: &Client, op: &Bounds, vdi: &Vdi) -> Result<Seen> {
    let info = vdi.info(&client.cluster, op).await?;
    let (sectors, tag) = (sectors(&info.header), tag_of(&info.header));
    Ok(Seen::Info { vid: info.vid.get(), sectors, tag })
}

async fn read(client: &Client, op: &Bounds, vdi: &Vdi, at: u64, len: u64) -> Result<Given> {
    let mut bytes = vec![0xa5; (len * SECTOR) as usize];
    // SAFETY: the buffer is only looked at once the read is over, and outlives it where this
    // future is dropped: locals go in reverse order.
    let mut buf = unsafe { RecvBuf::from_raw(bytes.as_mut_ptr(), bytes.len()) };
    vdi.read(&client.cluster, op, &mut buf, at * SECTOR).await?;
    let sectors = (at..).zip(bytes.chunks_exact(SECTOR as usize));
    Ok((Seen::Sectors(sectors.map(|(at, bytes)| (at, value(bytes, at))).collect()), None))
}

async fn holes(client: &Client, op: &Bounds, vdi: &Vdi) -> Result<Given> {
    let Seen::Info { sectors, .. } = info(client, op, vdi).await? else {
        return Err(Error::Internal("info gives info"));
    };
    let extents = vdi.block_status(&client.cluster, op, 0, sectors * SECTOR).await?;
    let holes = extents.iter().filter(|extent| extent.kind == ExtentKind::Hole);
    Ok((Seen::Holes(holes.map(|hole| (hole.offset / SECTOR, hole.len / SECTOR)).collect()), None))
}
