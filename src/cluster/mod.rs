//! Gateways: connect, choose, reconnect, resend, deadlines (protocol.md 5.1, 5.14, 5.15).
//!
//! Gives the rooms above one primitive, [`Cluster::call`]: a request and its answer, whichever
//! connection they take. Knows nothing of VDIs, only which requests may be repeated.

pub mod address;
mod connect;
mod events;
mod reactor;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sheepdog_proto::{Request, SdResult};
use slab::Slab;

use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::{self, Budget, Lead, Tasks, Timers, WaitList, lock};
use crate::net::{Endpoint, IoVecs, SendBuf, Socket, WakeFd, is_retry};
use crate::wire::{Corrupt, Dest, Id, Lost, Reply, Wire};

use events::{Events, Watched};
use reactor::Inbox;

/// How long a whole request may take unless the program says otherwise.
const DEFAULT_TIMEOUT_MS: u32 = 30_000;
/// Waits between repetitions grow from the first to the second (5.14).
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a close waits for its own requests.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long servers are given to finish what they received on a connection that broke (5.15).
const GRACE: Duration = Duration::from_secs(1);

/// A program's access to one sheepdog cluster: what an `sd_t` stands for.
pub struct Cluster {
    gateways: Vec<Endpoint>,
    core: Mutex<Core>,
    lead: Lead,
    /// Interrupts a wait in poll.
    wake: Arc<WakeFd>,
    /// The leader's receive buffer.
    inbox: Mutex<Inbox>,
    /// Asynchronous operations, and the memory they may take.
    tasks: Arc<Tasks>,
    pub budget: Arc<Budget>,
    timeout_ms: AtomicU32,
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
    next_serial: u64,
    /// Until when the leader waits in poll, where it does.
    polling: Option<Instant>,
    /// When a link last ended, to which gateway, and why.
    last_loss: Option<(Instant, usize, String)>,
    closing: bool,
    /// A gateway has answered once: trying again later makes sense.
    was_connected: bool,
    /// What an event loop watches, once there is one.
    events: Option<Events>,
    /// Dispatches under way, which send what was queued meanwhile when they end.
    dispatching: usize,
}

/// One connection to one gateway. Stays in the table after its end until the last request on it
/// has been told.
struct Link {
    serial: u64,
    gateway: usize,
    socket: Arc<Socket>,
    wire: Wire,
    state: LinkState,
    last_received: Instant,
    /// The peer takes no more for now.
    stuck: bool,
    watched: Watched,
}

enum LinkState {
    /// The connect is under way; who waits for it.
    Connecting(WaitList),
    Up,
    Down(Arc<str>),
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Broken(String),
    /// The peer broke the protocol.
    #[error("{}", .0.0)]
    Corrupt(Corrupt),
}

/// Names a link; a later one in its place has another serial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LinkId {
    key: usize,
    serial: u64,
}

/// Names a request that its caller gave up while a server may still be executing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ghost {
    link: LinkId,
    id: Id,
}

#[cfg(test)]
impl Ghost {
    /// Ghosts that can be told apart, for tests of what becomes of them.
    pub fn numbered(serial: u64) -> Ghost {
        let id = Wire::new().submit(Request::default(), SendBuf::EMPTY, Dest::None);
        Ghost { link: LinkId { key: 0, serial }, id: id.expect("a new wire has room") }
    }
}

/// Requests that were given up while a server may still have been at them: kept by whoever must not
/// go on before they are over.
#[derive(Default, Debug)]
pub struct Ghosts(Mutex<Vec<Ghost>>);

impl Ghosts {
    pub fn take(&self) -> Vec<Ghost> {
        std::mem::take(&mut lock(&self.0))
    }

    pub fn add(&self, ghosts: Vec<Ghost>) {
        lock(&self.0).extend(ghosts);
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Waits until they are over, as far as anybody can know. Given up, it forgets none of those
    /// that are not.
    pub async fn settle(&self, cluster: &Cluster, op: &Op) -> Result<()> {
        loop {
            let Some(ghost) = lock(&self.0).last().copied() else { return Ok(()) };
            cluster.settled(op, ghost).await?;
            lock(&self.0).retain(|other| *other != ghost);
        }
    }
}

/// One operation of the program: what bounds the requests that it consists of.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    started: Instant,
    deadline: Option<Instant>,
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
        Op { deadline: Some(self.deadline.map_or(at, |deadline| deadline.min(at))), ..*self }
    }
}

/// A request with what belongs to it.
pub struct Call<'a> {
    request: Request,
    payload: SendBuf,
    dest: Dest,
    resend: bool,
    ghosts: Option<&'a Ghosts>,
}

impl<'a> Call<'a> {
    pub fn new(request: Request) -> Call<'a> {
        Call { request, payload: SendBuf::EMPTY, dest: Dest::None, resend: false, ghosts: None }
    }

    pub fn payload(mut self, payload: impl Into<SendBuf>) -> Call<'a> {
        self.payload = payload.into();
        self
    }

    pub fn dest(mut self, dest: Dest) -> Call<'a> {
        self.dest = dest;
        self
    }

    /// May be sent again after the connection broke under it: executed twice, or late, it does no
    /// harm (5.15). Without this the caller must look first what came of it.
    pub fn resendable(mut self) -> Call<'a> {
        self.resend = true;
        self
    }

    /// Notes the request in `ghosts` where it is given up while a server may be at it.
    pub fn tracked(mut self, ghosts: &'a Ghosts) -> Call<'a> {
        self.ghosts = Some(ghosts);
        self
    }
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
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(BACKOFF_MIN)
    }
}

impl Backoff {
    /// Waits; false where the operation's deadline does not leave the time for it.
    pub async fn wait(&mut self, cluster: &Cluster, op: &Op) -> Result<bool> {
        let until = Instant::now() + self.0;
        if op.deadline.is_some_and(|deadline| deadline <= until) {
            return Ok(false);
        }
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        cluster.sleep_until(op, until).await?;
        Ok(true)
    }
}

impl Cluster {
    /// A cluster behind `gateways`, of which there must be one; connects to none of them yet.
    pub fn new(gateways: Vec<Endpoint>) -> Result<Cluster> {
        assert!(!gateways.is_empty());
        let wake = WakeFd::new().map_err(|_| Error::NoMem("no file descriptor left"))?;
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
                polling: None,
                last_loss: None,
                closing: false,
                was_connected: false,
                events: None,
                dispatching: 0,
            }),
            lead: Lead::default(),
            wake: Arc::new(wake),
            inbox: Mutex::new(Inbox::new()),
            tasks: Arc::default(),
            budget: Arc::default(),
            timeout_ms: AtomicU32::new(DEFAULT_TIMEOUT_MS),
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
        Op { started, deadline, closing: false, first: false, lazy: false }
    }

    /// Runs an operation to its end on this thread: its result, or that time ran out.
    pub fn run<T>(&self, f: impl AsyncFnOnce(&Op) -> Result<T>) -> Result<T> {
        self.run_op(self.op(), f)
    }

    fn run_op<T>(&self, op: Op, f: impl AsyncFnOnce(&Op) -> Result<T>) -> Result<T> {
        let result = {
            let future = pin!(f(&op));
            exec::block_on(self, self.within(&op, future))
        };
        // What an operation that was given up let go of may be what others wait for.
        self.tasks.run_woken();
        result
    }

    /// Connects, and finds out whether a formatted cluster is there.
    pub fn start(&self) -> Result<()> {
        self.run_op(Op { first: true, ..self.op() }, async |op| self.connect(op).await)
    }

    /// Ends everything: operations under way end as cancelled, then `last` runs as the close's
    /// own operation, then the connections go.
    pub fn close(&self, last: impl AsyncFnOnce(&Op)) {
        let wakers = {
            let mut core = lock(&self.core);
            core.closing = true;
            core.all_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
        self.tasks.finish_all();
        // A cluster that does not answer any more must not hold up the end of the program.
        let limit = Instant::now() + CLOSE_LIMIT;
        let deadline = Some(self.op().deadline.map_or(limit, |deadline| deadline.min(limit)));
        let op = Op { deadline, closing: true, first: true, ..self.op() };
        let _ = self.run_op(op, async |op| {
            last(op).await;
            Ok(())
        });
        let wakers = {
            let mut core = lock(&self.core);
            let keys: Vec<usize> = core.links.iter().map(|(key, _)| key).collect();
            for key in keys {
                core.fail(key, End::Broken("closed by the program".into()));
            }
            core.all_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
        // The last callbacks: those of requests that this close has cancelled, and of those that
        // had ended before and were not told yet.
        self.tasks.deliver(usize::MAX);
    }

    /// As [`Cluster::call_any`], for an answer that is a success. Any other result is
    /// [`Error::Server`].
    pub async fn call(&self, op: &Op, call: Call<'_>) -> Result<Reply> {
        let opcode = call.request.opcode;
        let reply = self.call_any(op, call).await?;
        match reply.header.result() {
            result if result.is_success() => Ok(reply),
            result => Err(Error::Server { opcode, result }),
        }
    }

    /// Sends a request and gives its answer. Waits for a gateway where there is none, repeats what
    /// is refused only for the moment, and what a broken connection left open where that is safe.
    pub async fn call_any(&self, op: &Op, call: Call<'_>) -> Result<Reply> {
        let mut backoff = Backoff::default();
        loop {
            let link = self.uplink(op).await?;
            let error = match self.exchange(op, link, &call).await {
                Ok(reply) => {
                    let (opcode, result) = (call.request.opcode, reply.header.result());
                    let class = classify(result);
                    if class == Class::GoingAway {
                        self.drop_link(link, "the gateway is going away");
                    }
                    // Refused, as far as one node knows: another may have carried it out.
                    if class == Class::Final || !call.resend {
                        return Ok(reply);
                    }
                    let error = Error::Server { opcode, result };
                    log::info!("{error}; trying again");
                    error
                }
                Err(error @ Error::Lost(lost)) if !lost.sent || call.resend => error,
                Err(error) => return Err(error),
            };
            if op.first {
                return Err(error);
            }
            if !backoff.wait(self, op).await? {
                // Whether the connection or the time ran out first is all the same by now.
                return Err(if let Error::Lost(_) = error { Error::TimedOut } else { error });
            }
        }
    }

    /// One request on one link.
    fn exchange<'a>(&'a self, op: &Op, link: LinkId, call: &Call<'a>) -> Exchange<'a> {
        let (payload, dest) = (call.payload.clone(), call.dest.clone());
        let mut woken = Vec::new();
        let state = {
            let mut core = lock(&self.core);
            match core.up(link) {
                None => ExchangeState::Failed(Error::Lost(Lost { sent: false, corrupt: None })),
                Some(entry) => match entry.wire.submit(call.request, payload, dest) {
                    None => ExchangeState::Failed(Error::NoMem("too many requests in flight")),
                    Some(id) => {
                        self.send(&mut core, link, op.lazy, &mut woken);
                        ExchangeState::Waiting(id)
                    }
                },
            }
        };
        woken.into_iter().for_each(Waker::wake);
        Exchange { cluster: self, link, closing: op.closing, ghosts: call.ghosts, state }
    }

    /// Sends what waits on a link, or sees to it that a dispatch does.
    fn send(&self, core: &mut Core, link: LinkId, lazy: bool, woken: &mut Vec<Waker>) {
        if lazy && core.up(link).is_some_and(|link| link.may_wait()) {
            if core.dispatching == 0 {
                core.signal();
            }
            // A leader sends it, too, when it looks.
            if core.polling.is_some() {
                self.wake.set();
            }
            return;
        }
        core.flush(link.key);
        let entry = &mut core.links[link.key];
        entry.wire.take_woken(woken);
        // A leader that waits in poll must learn of a socket that takes no more.
        if entry.stuck && core.polling.is_some() {
            self.wake.set();
        }
    }

    /// Waits until no server is still executing `ghost`. Where the connection broke under it
    /// nobody can know; then a time has passed in which servers are done with what they had
    /// received (5.15), and the answer is false.
    pub async fn settled(&self, op: &Op, ghost: Ghost) -> Result<bool> {
        let alive = poll_fn(|cx| {
            let mut core = lock(&self.core);
            if core.closing && !op.closing {
                return Poll::Ready(Err(Error::Canceled));
            }
            match core.up(ghost.link) {
                None => Poll::Ready(Ok(false)),
                Some(link) => link.wire.poll_settled(ghost.id, cx.waker()).map(|()| Ok(true)),
            }
        })
        .await?;
        if !alive {
            let last_loss = lock(&self.core).last_loss.as_ref().map(|(at, ..)| *at);
            if let Some(at) = last_loss {
                self.sleep_until(op, at + GRACE).await?;
            }
        }
        Ok(alive)
    }

    /// The result of `future`, or `TimedOut` where the operation's deadline comes first.
    pub async fn bounded<T>(
        &self,
        op: &Op,
        future: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<T> {
        self.within(op, future).await
    }

    /// The result of `future`, or `TimedOut` where the operation's deadline comes first. A gateway
    /// that has said nothing at all since the operation began, though asked, is given up with it.
    async fn within<T>(
        &self,
        op: &Op,
        mut future: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<T> {
        let Some(deadline) = op.deadline else { return future.await };
        let mut timer = Timer { cluster: self, at: deadline, id: None };
        let result = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => timer.poll(cx).map(|()| None),
        })
        .await;
        result.unwrap_or_else(|| {
            self.drop_silent_link(op);
            Err(Error::TimedOut)
        })
    }

    fn drop_silent_link(&self, op: &Op) {
        let silent = {
            let mut core = lock(&self.core);
            let current = core.current;
            current.filter(|link| {
                core.up(*link)
                    .is_some_and(|link| link.wire.awaiting() > 0 && link.last_received < op.started)
            })
        };
        if let Some(link) = silent {
            self.drop_link(link, "no answer in time");
        }
    }

    pub async fn sleep_until(&self, op: &Op, at: Instant) -> Result<()> {
        let mut timer = Timer { cluster: self, at, id: None };
        poll_fn(|cx| {
            if !op.closing && lock(&self.core).closing {
                return Poll::Ready(Err(Error::Canceled));
            }
            timer.poll(cx).map(Ok)
        })
        .await
    }

    /// Takes a link down that is of no more use.
    fn drop_link(&self, link: LinkId, why: &str) {
        let mut woken = Vec::new();
        {
            let mut core = lock(&self.core);
            if core.get(link).is_some() {
                core.fail(link.key, End::Broken(why.into()));
                core.links[link.key].wire.take_woken(&mut woken);
                core.forget_if_done(link.key);
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
        while link.wire.has_outgoing() && !stuck {
            let mut iov = IoVecs::new();
            link.wire.gather(&mut iov);
            match link.socket.send(&iov) {
                Ok(n) => link.wire.sent(n),
                Err(e) if is_retry(&e) => stuck = true,
                Err(e) => return self.fail(key, End::Broken(e.to_string())),
            }
        }
        if link.stuck != stuck {
            link.stuck = stuck;
            self.watch(key);
        }
    }

    /// Ends a link. Its requests end as lost; their wakers wait in its wire.
    fn fail(&mut self, key: usize, end: End) {
        let link = &mut self.links[key];
        if let LinkState::Down(_) = link.state {
            return;
        }
        self.last_loss = Some((Instant::now(), link.gateway, end.to_string()));
        link.socket.shutdown();
        link.wire.lose(match end {
            End::Broken(_) => None,
            End::Corrupt(corrupt) => Some(corrupt),
        });
        let down = LinkState::Down(end.to_string().into());
        if let LinkState::Connecting(mut waiters) = std::mem::replace(&mut link.state, down) {
            link.wire.add_woken(waiters.take());
        }
        self.watch(key);
        if self.current.is_some_and(|current| current.key == key) {
            self.current = None;
        }
    }

    /// Removes a link that has ended, once nobody has to be told any more.
    fn forget_if_done(&mut self, key: usize) {
        let link = &self.links[key];
        if matches!(link.state, LinkState::Down(_)) && link.wire.in_flight() == 0 {
            self.links.remove(key);
        }
    }

    /// The wakers of everybody who waits for anything of this cluster.
    fn all_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = self.connect_waiters.take();
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

/// A request under way. Dropped early, it gives its buffers back and lets the reply go by.
struct Exchange<'a> {
    cluster: &'a Cluster,
    link: LinkId,
    closing: bool,
    ghosts: Option<&'a Ghosts>,
    state: ExchangeState,
}

enum ExchangeState {
    Waiting(Id),
    Failed(Error),
    Over,
}

impl Future for Exchange<'_> {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let this = &mut *self;
        let id = match std::mem::replace(&mut this.state, ExchangeState::Over) {
            ExchangeState::Waiting(id) => id,
            ExchangeState::Failed(error) => return Poll::Ready(Err(error)),
            ExchangeState::Over => return Poll::Ready(Err(Error::Internal("polled too often"))),
        };
        let mut core = lock(&this.cluster.core);
        let closing = core.closing;
        let Some(link) = core.get(this.link) else {
            return Poll::Ready(Err(Error::Lost(Lost { sent: true, corrupt: None })));
        };
        match link.wire.poll_reply(id, cx.waker()) {
            Poll::Ready(result) => {
                core.forget_if_done(this.link.key);
                Poll::Ready(result.map_err(|lost| {
                    if lost.sent {
                        this.leave_ghost(id);
                    }
                    if closing && !this.closing { Error::Canceled } else { Error::Lost(lost) }
                }))
            }
            Poll::Pending => {
                this.state = ExchangeState::Waiting(id);
                if closing && !this.closing {
                    drop(core);
                    return Poll::Ready(Err(Error::Canceled));
                }
                Poll::Pending
            }
        }
    }
}

impl Exchange<'_> {
    fn leave_ghost(&self, id: Id) {
        if let Some(ghosts) = self.ghosts {
            lock(&ghosts.0).push(Ghost { link: self.link, id });
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let ExchangeState::Waiting(id) = self.state {
            let mut core = lock(&self.cluster.core);
            if let Some(link) = core.get(self.link) {
                if link.wire.abandon(id) {
                    self.leave_ghost(id);
                }
                core.forget_if_done(self.link.key);
            }
        }
    }
}

/// A deadline that registers itself when it is first waited for.
struct Timer<'a> {
    cluster: &'a Cluster,
    at: Instant,
    id: Option<exec::TimerId>,
}

impl Timer<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if now >= self.at {
            return Poll::Ready(());
        }
        let mut core = lock(&self.cluster.core);
        match self.id {
            Some(id) if core.timers.update(id, cx.waker()) => {}
            _ => self.id = Some(core.timers.add(self.at, cx.waker().clone())),
        }
        // A leader that waits in poll must learn of an earlier deadline than it knew of.
        if core.polling.is_some_and(|until| self.at < until) {
            self.cluster.wake.set();
        }
        core.arm_timer(now);
        Poll::Pending
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            lock(&self.cluster.core).timers.cancel(id);
        }
    }
}
