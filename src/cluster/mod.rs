//! Gateways: connect, choose, reconnect, resend, deadlines (protocol.md 5.1, 5.14, 5.15).
//!
//! Gives the rooms above one primitive, [`Cluster::call`]: a request and its answer, whichever
//! connection they take. Knows nothing of VDIs, only which requests may be repeated.

pub mod address;
mod call;
mod connect;
mod events;
mod health;
mod patience;
mod pending;
mod reactor;

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sheepdog_proto::SdResult;
use slab::Slab;

use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::{self, Budget, Lead, Tasks, Timers, WaitList, lock};
use crate::net::{Descriptors, IoVecs, Resolver, Socket, WakeFd, is_fault, is_retry, resolve};
use crate::wire::{Corrupt, Wire};

pub use call::Call;
pub use pending::Late;

use address::Gateway;
use events::{Events, Watched};
use patience::Patience;
use pending::Pending;
use reactor::Inbox;

/// How long a whole request may take unless the program says otherwise.
const DEFAULT_TIMEOUT_MS: u32 = 30_000;
/// Waits between repetitions grow from the first to the second (5.14).
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a close waits for its own requests.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What a program may say of how it connects.
#[derive(Clone)]
pub struct Options {
    /// How long one gateway may take to be found, connected to and heard of.
    pub connect_timeout: Option<Duration>,
    /// Of each operation, in milliseconds; 0 is no bound.
    pub timeout_ms: u32,
    /// Of the close.
    pub close_timeout: Duration,
    pub resolver: Resolver,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: None,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            close_timeout: CLOSE_LIMIT,
            resolver: resolve,
        }
    }
}

/// A program's access to one sheepdog cluster: what an `sd_t` stands for.
pub struct Cluster {
    gateways: Vec<Gateway>,
    options: Options,
    core: Mutex<Core>,
    lead: Lead,
    /// Interrupts a wait in poll.
    wake: Arc<WakeFd>,
    /// Ends a [`Cluster::wait`].
    bell: WakeFd,
    descriptors: Descriptors,
    /// The leader's receive buffer.
    inbox: Mutex<Inbox>,
    /// Asynchronous operations, and the memory they may take.
    tasks: Arc<Tasks>,
    pub budget: Arc<Budget>,
    timeout_ms: AtomicU32,
    /// How many operations are patient.
    patient: AtomicUsize,
    /// Counts them.
    dispatches: AtomicUsize,
    /// From which of them on a leader leaves to them what they are there for.
    courteous_from: AtomicUsize,
    /// What that grew by, where none came.
    missed: AtomicUsize,
    /// The server has said that its writes are stable when acknowledged (4.8).
    flush_is_needless: AtomicBool,
}

struct Core {
    links: Slab<Link>,
    /// The link that requests go out on.
    current: Option<LinkId>,
    /// The gateway to try next.
    next_gateway: usize,
    /// Somebody is connecting; the others wait for the outcome.
    connecting: bool,
    connect_waiters: WaitList,
    timers: Timers,
    /// Of links and of calls.
    next_serial: u64,
    /// What was given up and may still happen.
    pending: Pending,
    /// The operations whose deadlines move.
    patience: Vec<Patience>,
    /// The latest epoch that a gateway has told of, and when it replaced an earlier one.
    epoch: u32,
    epoch_changed: Option<Instant>,
    /// Until when the leader waits in poll, where it does.
    polling: Option<Instant>,
    /// To which gateway a link last ended, and why.
    last_loss: Option<(usize, Arc<str>)>,
    closing: bool,
    /// The close has done all it can.
    closed: bool,
    /// A gateway has answered once: trying again later makes sense.
    was_connected: bool,
    /// What an event loop watches, once there is one.
    events: Option<Events>,
    /// Something waits to be sent by a dispatch.
    unsent: bool,
}

/// One connection to one gateway. Stays in the table after its end until the last request on it
/// has been told.
struct Link {
    serial: u64,
    gateway: usize,
    /// Where that is; None for a unix socket.
    address: Option<SocketAddr>,
    socket: Arc<Socket>,
    wire: Wire,
    state: LinkState,
    last_received: Instant,
    /// Since when it has owed answers, at least.
    asked: Instant,
    /// When it was probed, if nothing came since.
    probed: Option<Instant>,
    /// The probe was not answered in time: other gateways are asked until something comes. Never
    /// taken for dead: what it has it may carry out at any time.
    silent: bool,
    /// It is not known yet what is behind it: whoever connects has it, and its end.
    greeting: bool,
    /// The peer takes no more for now.
    stuck: bool,
    watched: Watched,
}

enum LinkState {
    /// The connect is under way; who waits for it.
    Connecting(WaitList),
    Up,
    /// Given up by us. Its end is awaited: only then it is known that nothing happens any more.
    Draining(Arc<str>),
    Down(Arc<str>, pending::End),
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The gateway closed it.
    #[error("closed by the gateway")]
    Closed,
    /// Nothing comes through any more.
    #[error("{0}")]
    Vanished(io::Error),
    /// The peer broke the protocol.
    #[error("{}", .0.0)]
    Corrupt(Corrupt),
    /// We do not want it any more.
    #[error("{0}")]
    Unwanted(&'static str),
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> End {
        match e.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Closed,
            _ => End::Vanished(e),
        }
    }
}

/// Names a link; a later one in its place has another serial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LinkId {
    key: usize,
    serial: u64,
}

/// One operation of the program: what bounds the requests that it consists of.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    started: Instant,
    deadline: Option<Instant>,
    /// Part of an operation, with a deadline of its own.
    bounded: bool,
    /// Goes on while the cluster is being closed: it is part of the close.
    closing: bool,
    /// Connects to each gateway once, instead of until the deadline.
    first: bool,
    /// Asynchronous: a dispatch will send what it queues.
    lazy: bool,
}

impl Op {
    /// The same operation, for a part of it that ends at a time of its own if that comes first.
    pub fn until(&self, at: Instant) -> Op {
        // A whole operation's deadline that has passed is one that has moved.
        let is_later = |deadline| at >= deadline && (self.bounded || deadline > Instant::now());
        if self.deadline.is_some_and(is_later) {
            return *self;
        }
        Op { deadline: Some(at), bounded: true, ..*self }
    }

    /// The same operation, with so much more time.
    pub fn extended(&self, time: Duration) -> Op {
        Op { deadline: self.deadline.map(|deadline| deadline + time), ..*self }
    }
}

/// Who runs the end of a close: does not wait for itself.
#[derive(Clone, Copy, Debug)]
pub enum Closer {
    /// A request, for a close that is told of by a callback.
    Task,
    /// The thread that is in the close.
    Thread,
}

/// What to do about a server's result (5.14).
#[derive(PartialEq, Eq, Debug)]
enum Class {
    Final,
    Transient,
    GoingAway,
}

fn classify(result: SdResult) -> Class {
    match result {
        SdResult::STARTUP
        | SdResult::WAIT_FOR_JOIN
        | SdResult::HALT
        | SdResult::COLLECTING_CINFO
        | SdResult::COLLECTING_CINFO_0_9
        | SdResult::INCOMPLETE_0_9
        | SdResult::AGAIN
        | SdResult::NETWORK_ERROR
        | SdResult::OLD_NODE_VER
        | SdResult::NEW_NODE_VER
        | SdResult::CLUSTER_ERROR => Class::Transient,
        SdResult::SHUTDOWN | SdResult::KILLED => Class::GoingAway,
        _ => Class::Final,
    }
}

impl Error {
    /// Whether the same may succeed later without anybody's doing (5.14).
    pub fn is_transient(&self) -> bool {
        self.server_result().is_some_and(|result| classify(result) != Class::Final)
    }

    /// Whether it is open what came of a request that must not be repeated blindly.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Error::Lost(_)) || self.is_transient()
    }
}

/// Waits that grow: for repeating what a cluster cannot do just now.
pub struct Backoff {
    next: Duration,
    /// The first wait began.
    since: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: BACKOFF_MIN, since: None }
    }
}

impl Backoff {
    /// Waits; false where the operation's deadline does not leave the time for it.
    pub async fn wait(&mut self, cluster: &Cluster, op: &Op) -> Result<bool> {
        let now = Instant::now();
        let (since, until) = (*self.since.get_or_insert(now), now + self.next);
        let too_late = |deadline| deadline <= until;
        // Answers alone, to the same question again and again, are no progress.
        if cluster.deadline(op).is_some_and(too_late)
            || cluster.allowance(op).is_some_and(|allowance| too_late(since + allowance))
        {
            return Ok(false);
        }
        self.next = (self.next * 2).min(BACKOFF_MAX);
        cluster.sleep_until(op, until).await?;
        Ok(true)
    }

    /// Waits after an error that leaves open what came of a request. Any other is given back, and
    /// one that leaves no time to wait.
    pub async fn wait_after(&mut self, error: Error, cluster: &Cluster, op: &Op) -> Result<()> {
        match error.is_ambiguous() && self.wait(cluster, op).await? {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// As [`Backoff::wait`]; false where it has come to waits longer than `most`.
    pub async fn wait_at_most(
        &mut self,
        most: Duration,
        cluster: &Cluster,
        op: &Op,
    ) -> Result<bool> {
        if self.next > most { Ok(false) } else { self.wait(cluster, op).await }
    }
}

impl Cluster {
    /// A cluster behind `gateways`, of which there must be one; connects to none of them yet.
    pub fn new(gateways: Vec<Gateway>, options: Options) -> Result<Cluster> {
        assert!(!gateways.is_empty());
        const NO_FD: Error = Error::NoMem("no file descriptor left");
        let wake = WakeFd::new().map_err(|_| NO_FD)?;
        let bell = WakeFd::counting().map_err(|_| NO_FD)?;
        let descriptors = Descriptors::new();
        descriptors.keep_wake(&wake);
        descriptors.keep_wake(&bell);
        Ok(Cluster {
            gateways,
            core: Mutex::new(Core {
                links: Slab::new(),
                current: None,
                next_gateway: 0,
                connecting: false,
                connect_waiters: WaitList::default(),
                timers: Timers::default(),
                next_serial: 0,
                pending: Pending::default(),
                patience: Vec::new(),
                epoch: 0,
                epoch_changed: None,
                polling: None,
                last_loss: None,
                closing: false,
                closed: false,
                was_connected: false,
                events: None,
                unsent: false,
            }),
            lead: Lead::default(),
            wake: Arc::new(wake),
            bell,
            descriptors,
            inbox: Mutex::new(Inbox::new()),
            tasks: Arc::default(),
            budget: Arc::default(),
            timeout_ms: AtomicU32::new(options.timeout_ms),
            patient: AtomicUsize::new(0),
            dispatches: AtomicUsize::new(0),
            courteous_from: AtomicUsize::new(0),
            missed: AtomicUsize::new(0),
            options,
            flush_is_needless: AtomicBool::new(false),
        })
    }

    /// Bounds every operation that starts from now on; 0 is no bound.
    pub fn set_timeout_ms(&self, ms: u32) {
        self.timeout_ms.store(ms, Ordering::Relaxed);
    }

    pub fn flush_is_needless(&self) -> bool {
        self.flush_is_needless.load(Ordering::Relaxed)
    }

    pub fn set_flush_is_needless(&self) {
        self.flush_is_needless.store(true, Ordering::Relaxed);
    }

    /// An operation that starts now.
    pub fn op(&self) -> Op {
        let ms = self.timeout_ms.load(Ordering::Relaxed);
        let started = Instant::now();
        let deadline = (ms > 0).then(|| started + Duration::from_millis(ms.into()));
        Op { started, deadline, bounded: false, closing: false, first: false, lazy: false }
    }

    /// Runs an operation to its end on this thread: its result, or that time ran out.
    pub fn run<T>(&self, f: impl AsyncFnOnce(&Op) -> Result<T>) -> Result<T> {
        self.run_op(self.op(), f)
    }

    /// As [`Cluster::run`], for an operation that keeps to its deadline by itself, and has some time
    /// beyond it for what must not stay as it is then.
    pub fn run_beyond<T>(
        &self,
        time: Duration,
        f: impl AsyncFnOnce(&Op) -> Result<T>,
    ) -> Result<T> {
        let op = self.op();
        self.run_op(op.extended(time), async |_| f(&op).await)
    }

    fn run_op<T>(&self, op: Op, f: impl AsyncFnOnce(&Op) -> Result<T>) -> Result<T> {
        let result = {
            let future = pin!(f(&op));
            exec::block_on(self, self.bounded(&op, future))
        };
        // What an operation that was given up let go of may be what others wait for.
        self.tasks.run_woken();
        result
    }

    /// Connects, and finds out whether a formatted cluster is there.
    pub fn start(&self) -> Result<()> {
        self.run_op(Op { first: true, ..self.op() }, async |op| self.connect(op).await)
    }

    /// Ends everything, in this order: nothing begins any more, and what is under way ends as
    /// cancelled; `last` runs as the close's own operation, once nobody else is in here; the
    /// connections go; the last callbacks are called, and those of other threads waited for. An
    /// error where it is open whether something of ours may still happen.
    pub fn close(&self, last: impl AsyncFnOnce(&Op) -> Result<()>) -> Result<()> {
        self.cancel_all();
        self.tasks.agenda.close();
        self.tasks.refuse();
        let result = exec::block_on(self, self.end(Closer::Thread, last));
        // Of requests that this close has cancelled, and of those that had ended before and were
        // not told yet.
        self.tasks.agenda.deliver_last();
        result
    }

    /// Has everything end as cancelled that is under way.
    fn cancel_all(&self) {
        let wakers = {
            let mut core = lock(&self.core);
            core.closing = true;
            core.all_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The rest of a close, once all is cancelled, up to the end of the connections.
    pub async fn end(
        &self,
        closer: Closer,
        last: impl AsyncFnOnce(&Op) -> Result<()>,
    ) -> Result<()> {
        let (tasks, threads) = match closer {
            Closer::Task => (1, 0),
            Closer::Thread => (0, 1),
        };
        self.tasks.ended(tasks).await;
        self.lead.left(threads).await;
        // A cluster that does not answer any more must not hold up the end of the program.
        let deadline = Some(Instant::now() + self.options.close_timeout);
        let op = Op { deadline, closing: true, first: true, ..self.op() };
        let all = pin!(async {
            let result = last(&op).await;
            self.settle_all(&op).await.and(result)
        });
        let result = self.bounded(&op, all).await;
        let wakers = {
            let mut core = lock(&self.core);
            core.closed = true;
            let keys: Vec<usize> = core.links.iter().map(|(key, _)| key).collect();
            for key in keys {
                core.fail(key, End::Unwanted("closed by the program"));
            }
            core.all_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
        match result {
            // Something of ours may still happen, or a lock remains.
            Err(error @ Error::TimedOut(_)) => Err(error),
            Err(error) => {
                log::warn!("close: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whoever waits for the descriptor finds that there is nothing to wait for any more.
    pub fn end_waits(&self) {
        self.tasks.agenda.close();
    }

    /// In the child of a fork, where this can be used for nothing else, and is never dropped: closes
    /// the child's copies of its descriptors.
    pub fn close_copies(&self) {
        self.descriptors.close_copies();
    }

    /// When nodes have last joined or left, as far as known: they move objects after that.
    pub fn epoch_changed(&self) -> Option<Instant> {
        lock(&self.core).epoch_changed
    }

    /// Whether the program has closed it.
    pub fn is_closing(&self) -> bool {
        lock(&self.core).closing
    }

    /// The successes of calls with [`Call::keep_late`] that came late.
    pub fn take_late(&self) -> Vec<Late> {
        std::mem::take(&mut lock(&self.core).pending.late)
    }

    /// Sends what waits on a link, or sees to it that a dispatch does.
    fn send(&self, core: &mut Core, link: LinkId, lazy: bool, woken: &mut Vec<Waker>) {
        if lazy && core.up(link).is_some_and(|link| link.may_wait()) {
            // A leader sends it, too, when it looks; it is not waked for each.
            self.ask_for_dispatch(core);
            return;
        }
        core.flush(link.key);
        let entry = &mut core.links[link.key];
        entry.wire.take_woken(woken);
        // A leader that waits in poll must learn of a socket that takes no more, and of a link that
        // will have been quiet for too long before it looks again.
        let late = entry.due().is_some_and(|due| core.polling.is_some_and(|until| due < until));
        if core.links[link.key].stuck && core.polling.is_some() || late {
            self.wake.set();
        }
    }

    /// The result of `future`, or `TimedOut` where the operation's deadline comes first. Where the
    /// gateway has said nothing at all since the operation began, though asked, others are tried
    /// from then on.
    pub async fn bounded<T>(
        &self,
        op: &Op,
        mut future: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<T> {
        let Some(deadline) = self.deadline(op) else { return future.await };
        let mut timer = Timer::new(self, deadline);
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            while timer.poll(cx).is_ready() {
                match self.deadline(op) {
                    Some(moved) if moved > timer.at => timer = Timer::new(self, moved),
                    _ => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await;
        result.unwrap_or_else(|| {
            self.pass_over_silent_link(op);
            Err(Error::TimedOut(self.delay(op)))
        })
    }

    fn pass_over_silent_link(&self, op: &Op) {
        let mut core = lock(&self.core);
        if let Some(id) = core.current
            && let Some(link) = core.up(id)
            && link.wire.awaiting() > 0
            && link.last_received < op.started
        {
            core.current = None;
        }
    }

    pub async fn sleep_until(&self, op: &Op, at: Instant) -> Result<()> {
        let mut timer = Timer::new(self, at);
        poll_fn(|cx| timer.poll_unless(cx, |core| !op.closing && core.closing)).await
    }

    /// Waits for nothing but its next turn. Work that never waits would hold up everything else that
    /// its thread, or the event loop, has to do, and would not see the operation's deadline.
    pub async fn give_way(&self, op: &Op) -> Result<()> {
        // A timer that is due: whoever looks at the time next wakes it.
        let mut timer = Timer::new(self, Instant::now());
        let mut had_turn = false;
        poll_fn(|cx| {
            let mut core = lock(&self.core);
            if !op.closing && core.closing {
                return Poll::Ready(Err(Error::Canceled));
            }
            if std::mem::replace(&mut had_turn, true) {
                return Poll::Ready(Ok(()));
            }
            timer.register(&mut core, cx, Instant::now());
            Poll::Pending
        })
        .await
    }

    /// Takes a link down that is of no more use.
    fn drop_link(&self, link: LinkId, why: &'static str) {
        let mut woken = Vec::new();
        {
            let mut core = lock(&self.core);
            if let Some(entry) = core.get(link) {
                entry.greeting = false;
                core.fail(link.key, End::Unwanted(why));
                core.collect(link.key, &mut woken);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Core {
    fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.key).filter(|link| link.serial == id.serial)
    }

    fn up(&mut self, id: LinkId) -> Option<&mut Link> {
        self.get(id).filter(|link| matches!(link.state, LinkState::Up))
    }

    /// Sends what a link's peer takes now.
    fn flush(&mut self, key: usize) {
        let link = &mut self.links[key];
        if !matches!(link.state, LinkState::Up) {
            return;
        }
        let mut stuck = false;
        let mut most = usize::MAX;
        let owed = link.wire.awaiting() > 0;
        while link.wire.has_outgoing() && link.wire.is_cut().is_none() && !stuck {
            let mut iov = IoVecs::new();
            link.wire.gather(most, &mut iov);
            match link.socket.send(&iov) {
                Ok(n) => link.wire.sent(n),
                Err(e) if is_retry(&e) => stuck = true,
                // Of one request among these: which, shows where they go one by one.
                Err(e) if is_fault(&e) && most > 1 => most = 1,
                Err(e) if is_fault(&e) => {
                    // A kernel copies some pages at a time, all of them or nothing: of a small
                    // request nothing has been sent, mostly. Of a large one a part has, and what
                    // is left cannot be made up: the server would write it. So the stream ends;
                    // from then on large buffers are looked at before (ffi::entry), and what is
                    // left are files that are cut off in between, kernels before 5.14, and sockets
                    // that had room for a part of a small one.
                    link.wire.fault();
                    most = usize::MAX;
                }
                Err(e) => return self.fail(key, e.into()),
            }
        }
        if let Some(why) = link.wire.is_cut() {
            return self.fail(key, End::Unwanted(why));
        }
        let owes = link.wire.awaiting() > 0;
        if link.stuck != stuck {
            link.stuck = stuck;
            self.watch(key);
        }
        let link = &self.links[key];
        if owes
            && !owed
            && self.events.is_some()
            && let Some(due) = link.due()
        {
            self.arm_timer(due, Instant::now());
        }
    }

    /// Ends a link. Its requests end as lost; their wakers wait in its wire.
    fn fail(&mut self, key: usize, end: End) {
        let link = &mut self.links[key];
        let why: Arc<str> = match &link.state {
            LinkState::Down(..) => return,
            LinkState::Draining(why) => why.clone(),
            LinkState::Connecting(_) | LinkState::Up => end.to_string().into(),
        };
        // Of what a gateway has in its socket nothing is revoked by a close of ours (5.15).
        let drain = matches!(end, End::Corrupt(_) | End::Unwanted(_))
            && (link.wire.awaiting() > 0 || matches!(link.state, LinkState::Draining(_)))
            && !self.closed;
        let id = LinkId { key, serial: link.serial };
        let ended = match &end {
            End::Vanished(_) => {
                pending::End::Vanished { address: link.address, epoch: link.wire.epoch() }
            }
            End::Closed | End::Corrupt(_) | End::Unwanted(_) => {
                pending::End::Closed(Instant::now())
            }
        };
        link.wire.lose(match end {
            End::Corrupt(corrupt) => Some(corrupt),
            End::Closed | End::Vanished(_) | End::Unwanted(_) => None,
        });
        let state = if drain {
            link.socket.end();
            LinkState::Draining(why.clone())
        } else {
            link.socket.shutdown();
            self.pending.ended(id, ended);
            LinkState::Down(why.clone(), ended)
        };
        if let LinkState::Connecting(mut waiters) = std::mem::replace(&mut link.state, state) {
            link.wire.add_woken(waiters.take());
        }
        link.wire.add_woken(self.pending.waiters.take());
        self.last_loss = Some((link.gateway, why));
        self.watch(key);
        if self.current == Some(id) {
            self.current = None;
        }
    }

    /// How a link ended that requests went out on.
    fn end_of(&mut self, id: LinkId) -> pending::End {
        match self.get(id).map(|link| &link.state) {
            Some(LinkState::Down(_, end)) => *end,
            _ => pending::End::Open,
        }
    }

    /// Removes a link that has ended, once nobody has to be told any more.
    fn forget_if_done(&mut self, key: usize) {
        let link = &self.links[key];
        let is_down = matches!(link.state, LinkState::Down(..));
        if is_down && !link.greeting && link.wire.in_flight() == 0 {
            self.links.remove(key);
        }
    }

    /// The wakers of everybody who waits for anything of this cluster.
    fn all_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = self.connect_waiters.take();
        wakers.append(&mut self.pending.waiters.take());
        self.timers.take_all(&mut wakers);
        for (_, link) in &mut self.links {
            link.wire.wake_all();
            link.wire.take_woken(&mut wakers);
            if let LinkState::Connecting(waiters) = &mut link.state {
                wakers.append(&mut waiters.take());
            }
        }
        wakers
    }
}

/// A deadline that registers itself when it is first waited for.
struct Timer<'a> {
    cluster: &'a Cluster,
    at: Instant,
    id: Option<exec::TimerId>,
}

impl Timer<'_> {
    fn new(cluster: &Cluster, at: Instant) -> Timer<'_> {
        Timer { cluster, at, id: None }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.poll_unless(cx, |_| false).map(drop)
    }

    /// Ends as cancelled where `canceled` says so, asked under the lock under which the timer is
    /// registered: whoever changes the answer wakes all timers.
    fn poll_unless(
        &mut self,
        cx: &Context<'_>,
        canceled: impl Fn(&Core) -> bool,
    ) -> Poll<Result<()>> {
        let now = Instant::now();
        let mut core = lock(&self.cluster.core);
        if canceled(&core) {
            return Poll::Ready(Err(Error::Canceled));
        }
        if now >= self.at {
            return Poll::Ready(Ok(()));
        }
        self.register(&mut core, cx, now);
        Poll::Pending
    }

    fn register(&mut self, core: &mut Core, cx: &Context<'_>, now: Instant) {
        match self.id {
            Some(id) if core.timers.update(id, cx.waker()) => {}
            _ => self.id = Some(core.timers.add(self.at, cx.waker().clone())),
        }
        // A leader that waits in poll must learn of an earlier deadline than it knew of.
        if core.polling.is_some_and(|until| self.at < until) {
            self.cluster.wake.set();
        }
        core.arm_timer(self.at, now);
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            lock(&self.cluster.core).timers.cancel(id);
        }
    }
}
