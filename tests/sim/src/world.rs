//! A world in one thread: virtual time, servers' tasks on nodes that can stop and die, and
//! connections to them (`streams`).
//!
//! Time moves only when nothing can run. Every delay is a function of the seed and of the name of
//! what is delayed, not of what came before: to leave an operation or a fault out of a schedule
//! disturbs nothing else. Knows nothing of what servers do ([`crate::model`]) but to hand them
//! requests.
//!
//! Nothing here holds a borrow while code of the model or of a client runs.

mod draw;
mod streams;

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::future::Future;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sheepdog_proto::{Request, Response};

use crate::cluster::address::Gateway;
use crate::host::{Host, NodeId, Task};
use crate::model;
use crate::net::{Interest, endpoint};
use draw::mix;
use streams::Stream;

pub use crate::fault::{ClientId, Delays, Fault, Kind, When};
pub use streams::StreamId;

/// Names a world among those of the process; of no influence on what happens in it.
pub type WorldId = u64;
/// What [`crate::net::EventSet`] gives as its descriptor.
pub type SetId = RawFd;
type TaskId = usize;

/// A world that has not come to rest after so many steps turns in a circle.
pub const STEP_LIMIT: u64 = 10_000_000;
/// Clients that have had work so often, and no time has passed, will always have some.
const TURN_LIMIT: u32 = 100_000;
/// How long the cluster takes at most to notice that a node died.
const NOTICE: Duration = Duration::from_millis(500);
/// What is left of a request that its client saw the connection end under is over after this time:
/// the library counts on it (protocol.md 5.15).
const OUTLIVE: Duration = Duration::from_secs(2);

pub struct WorldConfig {
    pub seed: u64,
    pub nodes: usize,
    pub delays: Delays,
    pub faults: Vec<Fault>,
    pub model: model::Config,
}

pub struct World {
    id: WorldId,
    me: Weak<World>,
    seed: u64,
    delays: Delays,
    servers: OnceCell<Rc<model::Cluster>>,
    now: Cell<Duration>,
    events: RefCell<Events>,
    nodes: RefCell<Vec<Node>>,
    epoch: Cell<u32>,
    tasks: RefCell<Vec<Option<TaskSlot>>>,
    /// The task that is being polled.
    running: Cell<Option<TaskId>>,
    woken: Woken,
    /// Pauses that nobody's task asked for.
    pauses: Cell<u64>,
    faults: Vec<Fault>,
    /// Of each fault that is about a request: how many of its kind there were.
    matched: RefCell<Vec<u32>>,
    /// Faults have stopped.
    healed: Cell<bool>,
    partitions: RefCell<Vec<Partition>>,
    streams: RefCell<Vec<Stream>>,
    sets: RefCell<BTreeMap<SetId, Set>>,
    next_set: Cell<SetId>,
    idle_hook: RefCell<Option<Rc<dyn Fn() -> bool>>>,
    observer: RefCell<Option<Rc<dyn Observer>>>,
    tamper: RefCell<Option<Rc<dyn Tamper>>>,
    /// Requests that clients have sent.
    requests: Cell<u64>,
    steps: Cell<u64>,
    turns: Cell<u32>,
    hash: Cell<u64>,
    outlived: RefCell<Option<String>>,
    lost_lock: Cell<bool>,
    lines: RefCell<Option<Vec<String>>>,
}

/// Who is told of every request, and when. It must not call the world.
pub trait Observer {
    /// A client has sent the last byte of a request, which has this number from now on.
    fn sent(&self, now: Duration, number: u64, from: ClientId, request: &Request, payload: &[u8]);

    /// It has been answered, or nobody will go on with it.
    fn over(&self, now: Duration, number: u64);
}

/// Servers that do not keep to the protocol: it has the last word on what they send. It must not call
/// the world.
pub trait Tamper {
    /// What goes out in the place of an answer, in this order, and how long after what came before.
    fn answer(&self, response: Response, payload: Vec<u8>) -> Vec<(Duration, Said)>;
}

/// What a server does on a connection.
pub enum Said {
    Bytes(Vec<u8>),
    /// FIN, or RST.
    End(Option<ErrorKind>),
}

/// A request that is being carried out, in as many tasks as share this.
struct Origin {
    world: Weak<World>,
    number: u64,
    stream: StreamId,
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(world) = self.world.upgrade() {
            world.over(self.number);
        }
    }
}

/// What is to happen, in order of time, and of its making within the same instant.
#[derive(Default)]
struct Events {
    queue: BinaryHeap<Reverse<(Duration, u64, Entry)>>,
    made: u64,
}

/// Equal to all others: they are ordered by what stands before them.
struct Entry(Event);

impl PartialEq for Entry {
    fn eq(&self, _: &Entry) -> bool {
        true
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, _: &Entry) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

enum Event {
    /// A fault that has a time of its own begins.
    Fault(usize),
    /// A stop may be over.
    Continue(NodeId),
    /// The cluster notices that this life of the node has ended.
    Notice(NodeId, u32),
    Restart(NodeId),
    /// A partition may be over.
    Reunite(ClientId, NodeId),
    /// Faults stop.
    Heal,
    /// A step of a server has taken its time.
    Pause(Rc<PauseState>),
    Stream(StreamId, streams::Event),
}

#[derive(Default)]
struct Node {
    /// Raised when it dies.
    life: u32,
    dead: bool,
    /// The cluster counts it in.
    member: bool,
    /// SIGSTOP, until then.
    stopped: Option<Duration>,
    /// What became due while it was stopped.
    held: Vec<Held>,
}

enum Held {
    Task(TaskId),
    Pause(Rc<PauseState>),
}

struct Partition {
    client: ClientId,
    node: NodeId,
    until: Duration,
}

/// A task of a node. Its place is not used again.
struct TaskSlot {
    node: NodeId,
    name: u64,
    /// Pauses and tasks that it has made: they are named by it.
    made: u64,
    /// The request that it is for.
    origin: Option<Rc<Origin>>,
    /// None while it is being polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

type Woken = Arc<Mutex<VecDeque<TaskId>>>;

struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    woken: Woken,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
        }
    }
}

struct PauseState {
    node: NodeId,
    life: u32,
    name: u64,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A step that takes its time.
struct Pause(Rc<PauseState>);

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.over.get() {
            return Poll::Ready(());
        }
        *self.0.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What one client waits for.
struct Set {
    signal: Arc<AtomicBool>,
    timer: Option<Duration>,
    watched: BTreeMap<StreamId, Interest>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    static WORLDS: Cell<WorldId> = const { Cell::new(0) };
}

/// Makes the world that was the thread's before its world again.
pub struct Entered(Option<Rc<World>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        // A thread that ends has none any more.
        let left = CURRENT.try_with(|current| current.replace(before));
        drop(left);
    }
}

impl World {
    pub fn new(config: WorldConfig) -> Rc<World> {
        let id = WORLDS.get() + 1;
        WORLDS.set(id);
        let node = || Node { member: true, ..Node::default() };
        let world = Rc::new_cyclic(|me| World {
            id,
            me: me.clone(),
            seed: config.seed,
            delays: config.delays,
            servers: OnceCell::new(),
            now: Cell::default(),
            events: RefCell::default(),
            nodes: RefCell::new((0..config.nodes).map(|_| node()).collect()),
            epoch: Cell::new(1),
            tasks: RefCell::default(),
            running: Cell::default(),
            woken: Woken::default(),
            pauses: Cell::default(),
            matched: RefCell::new(vec![0; config.faults.len()]),
            faults: config.faults,
            healed: Cell::default(),
            partitions: RefCell::default(),
            streams: RefCell::default(),
            sets: RefCell::default(),
            next_set: Cell::new(1000),
            idle_hook: RefCell::default(),
            observer: RefCell::default(),
            tamper: RefCell::default(),
            requests: Cell::default(),
            steps: Cell::default(),
            turns: Cell::default(),
            hash: Cell::new(config.seed),
            outlived: RefCell::default(),
            lost_lock: Cell::default(),
            lines: RefCell::default(),
        });
        let host = Rc::new(Ground(world.me.clone()));
        let servers = model::Cluster::new(host, config.model);
        assert!(world.servers.set(servers).is_ok());
        for (at, fault) in world.faults.iter().enumerate() {
            let (Fault::Stall { at: time, .. }
            | Fault::Kill { at: time, .. }
            | Fault::Partition { at: time, .. }) = fault
            else {
                continue;
            };
            world.at(*time, Event::Fault(at));
        }
        world
    }

    /// Makes it the thread's world until the guard is dropped.
    pub fn enter(self: &Rc<World>) -> Entered {
        Entered(CURRENT.with(|current| current.replace(Some(self.clone()))))
    }

    /// The thread's world.
    pub fn current() -> Rc<World> {
        CURRENT.with(|current| current.borrow().clone()).expect("the thread is in a world")
    }

    /// The thread's world, where it is that one.
    pub(crate) fn get(id: WorldId) -> Option<Rc<World>> {
        let current = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
        current.filter(|world| world.id == id)
    }

    pub(crate) fn id(&self) -> WorldId {
        self.id
    }

    /// Virtual time since the world began.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// The servers, for a look at what they hold.
    pub fn servers(&self) -> &Rc<model::Cluster> {
        self.servers.get().expect("a world has servers")
    }

    /// The nodes as gateways of a client.
    pub fn gateways(&self, client: ClientId) -> Vec<Gateway> {
        (0..self.nodes.borrow().len()).map(|node| Gateway::At(endpoint(client, node))).collect()
    }

    /// From then on nothing goes wrong any more: nodes go on or are started again, partitions end,
    /// the faults that are left are void.
    pub fn quiesce_faults(&self, at: Duration) {
        self.at(at, Event::Heal);
    }

    /// Called while a blocking call waits, before time goes on: dispatches the other clients, and
    /// says whether one of them had work.
    pub fn set_idle_hook(&self, hook: Rc<dyn Fn() -> bool>) {
        *self.idle_hook.borrow_mut() = Some(hook);
    }

    pub fn set_observer(&self, observer: Rc<dyn Observer>) {
        *self.observer.borrow_mut() = Some(observer);
    }

    pub fn set_tamper(&self, tamper: Rc<dyn Tamper>) {
        *self.tamper.borrow_mut() = Some(tamper);
    }

    fn over(&self, number: u64) {
        if let Some(observer) = &*self.observer.borrow() {
            observer.over(self.now(), number);
        }
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// A client has work.
    pub fn turn(&self) {
        self.turns.set(self.turns.get() + 1);
        assert!(self.turns.get() < TURN_LIMIT, "a client goes round in a circle");
    }

    /// Over all that happened: the same for the same seed, program and faults.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    pub(crate) fn stir(&self, value: u64) {
        self.hash.set(mix(self.hash.get(), value));
    }

    /// Where something of a request was carried out more than two seconds after its client had
    /// seen the connection end: more than the library has to bear.
    pub fn outlived(&self) -> Option<String> {
        self.outlived.borrow().clone()
    }

    /// Whether the answer to a LOCK_VDI got lost: then nobody can tell whose the lock is (5.15).
    pub fn lost_lock(&self) -> bool {
        self.lost_lock.get()
    }

    /// Keeps a readable account from here on.
    pub fn start_trace(&self) {
        *self.lines.borrow_mut() = Some(Vec::new());
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.lines.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds a line to the account, where one is kept.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.lines.borrow().is_none() {
            return;
        }
        let line = format!("{:12.6} {}", self.now().as_secs_f64(), line());
        if let Some(lines) = &mut *self.lines.borrow_mut() {
            lines.push(line);
        }
    }

    fn at(&self, time: Duration, event: Event) {
        let mut events = self.events.borrow_mut();
        events.made += 1;
        let entry = Reverse((time.max(self.now()), events.made, Entry(event)));
        events.queue.push(entry);
    }

    /// Handles the next event. False: there is none.
    pub fn step(&self) -> bool {
        self.advance(None)
    }

    /// Handles the next event, or has the time pass until then.
    fn advance(&self, limit: Option<Duration>) -> bool {
        self.steps.set(self.steps() + 1);
        self.turns.set(0);
        assert!(self.steps() < STEP_LIMIT, "the world does not come to rest");
        if self.run_woken() {
            return true;
        }
        let event_at = self.events.borrow().queue.peek().map(|Reverse((at, ..))| *at);
        // Timers of clients that are due are for the clients' dispatch.
        let timers = self.sets.borrow();
        let timer_at =
            timers.values().filter_map(|set| set.timer).filter(|at| *at > self.now()).min();
        drop(timers);
        let next = [event_at, timer_at, limit].into_iter().flatten().min();
        let Some(next) = next else { return false };
        self.now.set(next);
        if event_at == Some(next) {
            let popped = self.events.borrow_mut().queue.pop();
            if let Some(Reverse((_, number, Entry(event)))) = popped {
                self.stir(next.as_nanos() as u64);
                self.stir(number);
                self.handle(event);
                self.run_woken();
            }
        }
        true
    }

    /// Runs the tasks that can run, whether there were any.
    fn run_woken(&self) -> bool {
        let mut ran = false;
        loop {
            let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(task) = woken else { return ran };
            ran = true;
            self.run(task);
        }
    }

    /// What a blocking call does: until `ready`, or the time has come; None waits for ever. Whether
    /// it is ready.
    pub(crate) fn wait(&self, until: Option<Duration>, ready: impl Fn() -> bool) -> bool {
        self.turn();
        loop {
            if ready() {
                return true;
            }
            if until.is_some_and(|until| until <= self.now()) {
                return false;
            }
            let hook = self.idle_hook.borrow().clone();
            if hook.is_some_and(|hook| hook()) {
                continue;
            }
            assert!(self.advance(until), "a call waits for what will never be");
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Fault(at) => self.begin(at),
            Event::Continue(node) => {
                let due = |until: Duration| until <= self.now();
                if self.nodes.borrow()[node].stopped.is_some_and(due) {
                    self.go_on(node);
                }
            }
            Event::Notice(node, life) => self.notice(node, life),
            Event::Restart(node) => self.restart(node),
            Event::Reunite(client, node) => self.reunite(client, node),
            Event::Heal => self.heal(),
            Event::Pause(pause) => self.pause_over(pause),
            Event::Stream(stream, event) => self.stream_event(stream, event),
        }
    }
}

/// Faults that have a time.
impl World {
    fn begin(&self, at: usize) {
        if self.healed.get() {
            return;
        }
        let fault = self.faults[at];
        self.trace(|| format!("fault: {fault}"));
        match fault {
            Fault::Stall { node, length, .. } => self.stop(node, length),
            Fault::Kill { node, restart, .. } => self.kill(node, restart),
            Fault::Partition { client, node, length, .. } => self.part(client, node, length),
            Fault::Cut { .. } | Fault::Late { .. } | Fault::Answer { .. } | Fault::Slow { .. } => {}
        }
    }

    fn stop(&self, node: NodeId, length: Option<Duration>) {
        let until = length.map_or(Duration::MAX, |length| self.now() + length);
        let mut nodes = self.nodes.borrow_mut();
        let Some(slot) = nodes.get_mut(node).filter(|slot| !slot.dead) else { return };
        slot.stopped = Some(slot.stopped.map_or(until, |earlier| earlier.max(until)));
        drop(nodes);
        if length.is_some() {
            self.at(until, Event::Continue(node));
        }
    }

    /// SIGCONT. What became due meanwhile happens soon, in any order.
    fn go_on(&self, node: NodeId) {
        let held = {
            let mut nodes = self.nodes.borrow_mut();
            nodes[node].stopped = None;
            std::mem::take(&mut nodes[node].held)
        };
        self.trace(|| format!("node {node} goes on"));
        for held in held {
            match held {
                Held::Task(task) => self.wake(task),
                Held::Pause(pause) => {
                    let delay = self.draw(pause.name, "goes on", self.delays.step);
                    self.at(self.now() + delay, Event::Pause(pause));
                }
            }
        }
        self.read_all(node);
    }

    fn kill(&self, node: NodeId, restart: Option<Duration>) {
        let life = {
            let mut nodes = self.nodes.borrow_mut();
            let Some(slot) = nodes.get_mut(node).filter(|slot| !slot.dead) else { return };
            *slot =
                Node { life: slot.life + 1, dead: true, member: slot.member, ..Node::default() };
            slot.life
        };
        let mut lost = Vec::new();
        for slot in self.tasks.borrow_mut().iter_mut() {
            if slot.as_ref().is_some_and(|task| task.node == node) {
                lost.push(slot.take());
            }
        }
        self.reset_all(node);
        // What they let go of may be what tasks of other nodes wait for.
        drop(lost);
        let name = mix(mix(self.seed, node as u64), life.into());
        let delay = self.draw(name, "is missed", NOTICE);
        self.at(self.now() + delay, Event::Notice(node, life));
        if let Some(restart) = restart {
            self.at(self.now() + restart, Event::Restart(node));
        }
    }

    fn notice(&self, node: NodeId, life: u32) {
        {
            let mut nodes = self.nodes.borrow_mut();
            let slot = &mut nodes[node];
            if slot.life != life || !slot.member || !slot.dead {
                return;
            }
            slot.member = false;
        }
        self.raise_epoch(&format!("node {node} is missed"));
        self.servers().killed(node);
    }

    fn restart(&self, node: NodeId) {
        let life = {
            let nodes = self.nodes.borrow();
            if !nodes[node].dead {
                return;
            }
            nodes[node].life
        };
        self.notice(node, life);
        {
            let mut nodes = self.nodes.borrow_mut();
            let slot = &mut nodes[node];
            // Another life: that the last one ended is no news any more.
            slot.life += 1;
            (slot.dead, slot.member) = (false, true);
        }
        self.raise_epoch(&format!("node {node} has joined"));
        self.servers().restarted(node);
    }

    fn raise_epoch(&self, why: &str) {
        self.epoch.set(self.epoch.get() + 1);
        self.trace(|| format!("epoch {}: {why}", self.epoch.get()));
    }

    fn part(&self, client: ClientId, node: NodeId, length: Duration) {
        let until = self.now() + length;
        self.partitions.borrow_mut().push(Partition { client, node, until });
        self.at(until, Event::Reunite(client, node));
        self.silence(client, node);
    }

    fn parted(&self, client: ClientId, node: NodeId) -> bool {
        let partitions = self.partitions.borrow();
        partitions.iter().any(|p| (p.client, p.node) == (client, node))
    }

    fn reunite(&self, client: ClientId, node: NodeId) {
        self.partitions.borrow_mut().retain(|p| p.until > self.now());
        if !self.parted(client, node) {
            self.trace(|| format!("client {client} and node {node} hear each other again"));
            self.unsilence(client, node);
        }
    }

    fn heal(&self) {
        self.trace(|| "faults stop".into());
        self.healed.set(true);
        let parted: Vec<Partition> = self.partitions.take();
        for Partition { client, node, .. } in parted {
            self.unsilence(client, node);
        }
        let nodes = self.nodes.borrow().len();
        for node in 0..nodes {
            let (dead, stopped) = {
                let nodes = self.nodes.borrow();
                (nodes[node].dead, nodes[node].stopped.is_some())
            };
            if dead {
                self.restart(node);
            } else if stopped {
                self.go_on(node);
            }
        }
    }

    fn is_dead(&self, node: NodeId) -> bool {
        self.nodes.borrow().get(node).is_none_or(|node| node.dead)
    }

    /// Whether the node's processes execute.
    fn runs(&self, node: NodeId) -> bool {
        self.nodes.borrow().get(node).is_some_and(|node| !node.dead && node.stopped.is_none())
    }
}

/// Tasks and their pauses.
impl World {
    fn spawn(&self, node: NodeId, name: u64, origin: Option<Rc<Origin>>, task: Task) {
        if self.is_dead(node) {
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.len();
        let (queued, woken) = (AtomicBool::new(false), self.woken.clone());
        let waker = Arc::new(TaskWaker { task: id, queued, woken });
        waker.clone().wake();
        tasks.push(Some(TaskSlot { node, name, made: 0, origin, task: Some(task), waker }));
    }

    fn wake(&self, task: TaskId) {
        if let Some(slot) = &self.tasks.borrow()[task] {
            slot.waker.clone().wake();
        }
    }

    fn run(&self, id: TaskId) {
        let (mut task, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(slot) = &mut tasks[id] else { return };
            slot.waker.queued.store(false, Ordering::Relaxed);
            if !self.runs(slot.node) {
                self.nodes.borrow_mut()[slot.node].held.push(Held::Task(id));
                return;
            }
            if let Some(origin) = &slot.origin {
                self.note_outlived(origin.stream);
            }
            let Some(task) = slot.task.take() else { return };
            (task, Waker::from(slot.waker.clone()))
        };
        self.running.set(Some(id));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        self.running.set(None);
        let ended = match (polled, &mut self.tasks.borrow_mut()[id]) {
            (Poll::Pending, Some(slot)) => {
                slot.task = Some(task);
                None
            }
            (_, slot) => slot.take(),
        };
        drop(ended);
    }

    /// A name for what the running task makes now, and the request that it is for.
    fn next_name(&self) -> (u64, Option<Rc<Origin>>) {
        if let Some(running) = self.running.get()
            && let Some(slot) = &mut self.tasks.borrow_mut()[running]
        {
            slot.made += 1;
            return (mix(slot.name, slot.made), slot.origin.clone());
        }
        self.pauses.set(self.pauses.get() + 1);
        (mix(self.seed, self.pauses.get()), None)
    }

    fn pause_for(&self, node: NodeId, name: u64, length: Duration) -> Pause {
        let life = self.nodes.borrow()[node].life;
        let (over, waker) = (Cell::new(false), RefCell::default());
        let state = Rc::new(PauseState { node, life, name, over, waker });
        self.at(self.now() + length, Event::Pause(state.clone()));
        Pause(state)
    }

    fn pause_over(&self, pause: Rc<PauseState>) {
        // Nobody waits for it any more.
        if Rc::strong_count(&pause) == 1 {
            return;
        }
        let mut nodes = self.nodes.borrow_mut();
        let node = &mut nodes[pause.node];
        if node.life != pause.life {
            return;
        }
        if node.stopped.is_some() {
            node.held.push(Held::Pause(pause));
            return;
        }
        drop(nodes);
        pause.over.set(true);
        let waker = pause.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How long a step takes.
    fn step_length(&self, name: u64, step: &str) -> Duration {
        let long = draw::is_long(self.seed, name, step);
        let max = if long { self.delays.tail } else { self.delays.step };
        self.draw(name, step, max)
    }

    fn draw(&self, name: u64, purpose: &str, max: Duration) -> Duration {
        draw::delay(self.seed, name, purpose, max)
    }
}

/// What the servers stand on.
struct Ground(Weak<World>);

impl Host for Ground {
    fn pause(&self, at: NodeId, step: &'static str) -> Task {
        let Some(world) = self.0.upgrade() else { return Box::pin(std::future::pending()) };
        let (name, _) = world.next_name();
        let length = world.step_length(name, step);
        Box::pin(world.pause_for(at, name, length))
    }

    fn spawn(&self, at: NodeId, task: Task) {
        if let Some(world) = self.0.upgrade() {
            let (name, origin) = world.next_name();
            world.spawn(at, name, origin, task);
        }
    }

    fn now(&self) -> Duration {
        self.0.upgrade().map_or(Duration::ZERO, |world| world.now())
    }

    fn epoch(&self) -> u32 {
        self.0.upgrade().map_or(0, |world| world.epoch.get())
    }

    fn members(&self) -> Vec<NodeId> {
        let Some(world) = self.0.upgrade() else { return Vec::new() };
        let nodes = world.nodes.borrow();
        nodes.iter().enumerate().filter(|(_, node)| node.member).map(|(at, _)| at).collect()
    }
}

/// What clients wait for.
impl World {
    pub(crate) fn new_set(&self, signal: Arc<AtomicBool>) -> SetId {
        let id = self.next_set.get();
        self.next_set.set(id + 1);
        let set = Set { signal, timer: None, watched: BTreeMap::new() };
        self.sets.borrow_mut().insert(id, set);
        id
    }

    pub(crate) fn drop_set(&self, set: SetId) {
        self.sets.borrow_mut().remove(&set);
    }

    pub(crate) fn watch(&self, set: SetId, stream: StreamId, interest: Option<Interest>) {
        if let Some(set) = self.sets.borrow_mut().get_mut(&set) {
            match interest {
                Some(interest) => set.watched.insert(stream, interest),
                None => set.watched.remove(&stream),
            };
        }
    }

    pub(crate) fn unwatch(&self, stream: StreamId) {
        for set in self.sets.borrow_mut().values_mut() {
            set.watched.remove(&stream);
        }
    }

    pub(crate) fn set_timer(&self, set: SetId, delay: Option<Duration>) {
        let at = delay.and_then(|delay| self.now().checked_add(delay));
        if let Some(set) = self.sets.borrow_mut().get_mut(&set) {
            set.timer = at;
        }
    }

    pub(crate) fn is_ready(&self, set: SetId) -> bool {
        let sets = self.sets.borrow();
        let Some(set) = sets.get(&set) else { return false };
        let readable =
            |(stream, i): (&StreamId, &Interest)| !self.readiness(*stream, *i).is_empty();
        set.signal.load(Ordering::Relaxed)
            || set.timer.is_some_and(|at| at <= self.now())
            || set.watched.iter().any(readable)
    }
}
