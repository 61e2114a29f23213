//! One request and its answer, whichever connections they take.

use std::future::{Future, poll_fn};
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use sheepdog_proto::{Request, Vid, op};

use super::pending::{Blocked, CallId, Entry, Touches};
use super::{Backoff, Class, Cluster, Core, LinkId, Op, Timer, classify};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::lock;
use crate::net::SendBuf;
use crate::wire::{Dest, Failure, Id, Lost, Reply};

/// How often a gateway is asked whether another one, which vanished, is dead.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A request with what belongs to it.
pub struct Call {
    request: Request,
    payload: SendBuf,
    dest: Dest,
    resend: bool,
    keep_late: bool,
    also: Option<Vid>,
    /// Given once a copy of it is pending; 0 until then.
    id: AtomicU64,
}

impl Call {
    pub fn new(request: Request) -> Call {
        let (payload, dest) = (SendBuf::EMPTY, Dest::None);
        let id = AtomicU64::new(0);
        Call { request, payload, dest, resend: false, keep_late: false, also: None, id }
    }

    pub fn payload(mut self, payload: impl Into<SendBuf>) -> Call {
        self.payload = payload.into();
        self
    }

    pub fn dest(mut self, dest: Dest) -> Call {
        self.dest = dest;
        self
    }

    /// May be sent again after the connection broke under it: executed twice, or late, it does no
    /// harm (5.15). Without this the caller must look first what came of it.
    pub fn resendable(mut self) -> Call {
        self.resend = true;
        self
    }

    /// Its success is kept for [`Cluster::take_late`] where it comes after the call was given up.
    pub fn keep_late(mut self) -> Call {
        self.keep_late = true;
        self
    }

    /// Changes a VDI that the request does not name.
    pub fn changes(mut self, vid: Option<Vid>) -> Call {
        self.also = vid;
        self
    }

    fn touches(&self) -> Touches {
        Touches::of(&self.request, &self.payload, self.also)
    }

    fn id(&self) -> CallId {
        self.id.load(Ordering::Relaxed)
    }
}

impl Cluster {
    /// As [`Cluster::call_any`], for an answer that is a success. Any other result is
    /// [`Error::Server`].
    pub fn call<'a>(&'a self, op: &'a Op, call: Call) -> Calling<'a> {
        Calling { cluster: self, op, any: false, call, state: CallState::Begin }
    }

    /// Sends a request and gives its answer. Waits for a gateway where there is none, and for what
    /// may still happen to the same thing; repeats what is refused only for the moment, and what a
    /// broken connection left open where that is safe.
    pub fn call_any<'a>(&'a self, op: &'a Op, call: Call) -> Calling<'a> {
        Calling { cluster: self, op, any: true, call, state: CallState::Begin }
    }

    /// A call that met anything but a gateway that takes it and answers for good. `failed`: why it
    /// is to be tried again.
    async fn call_slowly(&self, op: &Op, call: Call, mut failed: Option<Error>) -> Result<Reply> {
        let mut backoff = Backoff::default();
        loop {
            if let Some(error) = failed.take() {
                if op.first {
                    return Err(error);
                }
                if !backoff.wait(self, op).await? {
                    // Whether the connection or the time ran out first is all the same by now.
                    return Err(match error {
                        Error::Lost(_) => Error::TimedOut(self.delay(op)),
                        error => error,
                    });
                }
            }
            let link = self.uplink(op).await?;
            let Some(exchange) = self.exchange(op, link, &call) else {
                self.clear(op, call.touches(), call.id()).await?;
                continue;
            };
            match self.judge(op, link, &call, exchange.await) {
                Ok(result) => return result,
                Err(error) => failed = Some(error),
            }
        }
    }

    /// What an exchange means for its call: the result, or why to try again.
    fn judge(
        &self,
        op: &Op,
        link: LinkId,
        call: &Call,
        result: Result<Reply>,
    ) -> std::result::Result<Result<Reply>, Error> {
        match result {
            Ok(reply) => {
                self.progress(op);
                let (opcode, result) = (call.request.opcode, reply.header.result());
                let class = classify(result);
                if class == Class::GoingAway {
                    self.drop_link(link, "the gateway is going away");
                }
                // Refused, as far as one node knows: another may have carried it out.
                if class == Class::Final || !call.resend {
                    return Ok(Ok(reply));
                }
                let error = Error::Server { opcode, result };
                log::info!("{error}; trying again");
                Err(error)
            }
            Err(error @ Error::Lost(lost)) if !lost.sent || call.resend => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }

    /// One request on one link; None where something is pending that it must wait for.
    pub(super) fn exchange<'a>(
        &'a self,
        op: &Op,
        link: LinkId,
        call: &'a Call,
    ) -> Option<Exchange<'a>> {
        Some(Exchange { cluster: self, call, sent: self.submit(op, link, call)? })
    }

    fn submit(&self, op: &Op, link: LinkId, call: &Call) -> Option<Sent> {
        let mut woken = Vec::new();
        let state = {
            let mut core = lock(&self.core);
            if !core.pending.is_empty() && core.pending.blocks(&call.touches(), call.id()).is_some()
            {
                return None;
            }
            match core.up(link) {
                None => SentState::Failed(Error::Lost(Lost { sent: false, corrupt: None })),
                Some(entry) => {
                    let (payload, dest) = (call.payload.clone(), call.dest.clone());
                    match entry.submit(op, call.request, payload, dest) {
                        None => SentState::Failed(Error::NoMem("too many requests in flight")),
                        Some(id) => {
                            self.send(&mut core, link, op.lazy, &mut woken);
                            SentState::Waiting(id)
                        }
                    }
                }
            }
        };
        woken.into_iter().for_each(Waker::wake);
        Some(Sent { link, closing: op.closing, state })
    }

    /// Waits until nothing of ours can happen to a VDI any more that its caller has given up.
    pub async fn settle(&self, op: &Op, vid: Vid) -> Result<()> {
        if lock(&self.core).pending.is_empty() {
            return Ok(());
        }
        Box::pin(self.clear(op, Touches::vdi(vid), 0)).await
    }

    /// Waits until nothing is pending at all.
    pub async fn settle_all(&self, op: &Op) -> Result<()> {
        self.clear(op, Touches::everything(), 0).await
    }

    /// Waits until nothing is pending that meets `touches`, the earlier copies of `call` left out.
    async fn clear(&self, op: &Op, touches: Touches, call: CallId) -> Result<()> {
        let mut _waiting = None;
        loop {
            let Some(blocked) = self.blocked(op, &touches, call)? else { return Ok(()) };
            _waiting.get_or_insert_with(|| Waiting::new(self, op, touches, call));
            let mut until = blocked.until;
            if let Some((address, epoch)) = blocked.vanished {
                self.ask_for(op, address, epoch).await?;
                until = until.min(Instant::now() + ASK_AGAIN);
            }
            let mut timer = Timer::new(self, until);
            poll_fn(|cx| {
                lock(&self.core).pending.waiters.register(cx);
                match self.blocked(op, &touches, call) {
                    Ok(Some(now)) if now == blocked => timer.poll(cx).map(Ok),
                    changed => Poll::Ready(changed.map(drop)),
                }
            })
            .await?;
        }
    }

    /// What an operation whose time has run out was waiting for, as far as that can be told.
    pub(super) fn delay(&self, op: &Op) -> Option<Arc<str>> {
        let core = lock(&self.core);
        let ago = |at: Instant| Instant::now().saturating_duration_since(at).as_secs();
        if let Some(entry) = core.pending.waited_for(op.started) {
            let (what, ago) = (op::name(entry.opcode), ago(entry.since));
            let gateway = &self.gateways[entry.gateway];
            return Some(
                format!("{what} was given up {ago} s ago, and {gateway} may still carry it out")
                    .into(),
            );
        }
        let owing = core.links.iter().filter(|(_, link)| link.wire.awaiting() > 0);
        if let Some((_, link)) = owing.min_by_key(|(_, link)| link.last_received) {
            let (gateway, since) =
                (&self.gateways[link.gateway], link.asked.max(link.last_received));
            return Some(format!("{gateway} has said nothing for {} s", ago(since)).into());
        }
        let (gateway, why) = core.last_loss.as_ref().filter(|_| core.connecting)?;
        Some(
            format!("no connection; the last, to {}, ended: {why}", self.gateways[*gateway]).into(),
        )
    }

    /// What an error's words lack: which gateway it comes from.
    pub fn whence(&self, error: &Error) -> Option<String> {
        let core = lock(&self.core);
        match error {
            Error::Server { .. } | Error::BadReply(_) => {
                let link = core.links.get(core.current?.key)?;
                Some(format!(" (gateway {})", self.gateways[link.gateway]))
            }
            Error::Lost(_) => {
                let (gateway, why) = core.last_loss.as_ref()?;
                Some(format!(" (gateway {}: {why})", self.gateways[*gateway]))
            }
            _ => None,
        }
    }

    /// What is in the way now.
    fn blocked(&self, op: &Op, touches: &Touches, call: CallId) -> Result<Option<Blocked>> {
        let (blocked, forgotten, waiters) = {
            let mut core = lock(&self.core);
            if core.closing && !op.closing {
                return Err(Error::Canceled);
            }
            let forgotten = core.pending.expire(Instant::now());
            let waiters = match forgotten.is_empty() {
                true => Vec::new(),
                false => core.pending.waiters.take(),
            };
            (core.pending.blocks(touches, call), forgotten, waiters)
        };
        for opcode in forgotten {
            let name = op::name(opcode);
            log::error!("{name}: a gateway never answered; taken for never to be carried out");
        }
        waiters.into_iter().for_each(Waker::wake);
        Ok(blocked)
    }

    /// Asks whether a gateway that vanished, whose last epoch was `epoch`, is still a member.
    async fn ask_for(&self, op: &Op, address: Option<SocketAddr>, epoch: u32) -> Result<()> {
        let link = self.uplink(op).await?;
        let alive = match self.is_member(op, link, address).await {
            Ok(Some((now, is_member))) => is_member || now <= epoch,
            Ok(None) => true,
            Err(error @ (Error::Canceled | Error::TimedOut(_))) => return Err(error),
            Err(_) => true,
        };
        if let (false, Some(address)) = (alive, address) {
            let waiters = {
                let mut core = lock(&self.core);
                core.pending.dead(address, epoch, Instant::now());
                core.pending.waiters.take()
            };
            waiters.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }
}

impl Core {
    /// Notes a request of a link that its caller has given up, or that was lost.
    fn leave(&mut self, link: LinkId, id: Id, call: &Call) {
        let touches = call.touches();
        if !touches.change_anything() {
            return;
        }
        if call.id() == 0 {
            self.next_serial += 1;
            call.id.store(self.next_serial, Ordering::Relaxed);
        }
        let end = self.end_of(link);
        let gateway = self.get(link).map_or(0, |link| link.gateway);
        let (opcode, since) = (call.request.opcode, Instant::now());
        let sent = call.keep_late.then(|| (call.request, call.payload.clone()));
        self.pending.add(Entry {
            touches,
            call: call.id(),
            opcode,
            link,
            gateway,
            id,
            since,
            end,
            sent,
        });
    }
}

/// An operation that waits for what is pending: it says so for as long as it does.
struct Waiting<'a> {
    cluster: &'a Cluster,
    started: Instant,
}

impl Waiting<'_> {
    fn new<'a>(cluster: &'a Cluster, op: &Op, touches: Touches, call: CallId) -> Waiting<'a> {
        lock(&cluster.core).pending.waiting.push((op.started, touches, call));
        Waiting { cluster, started: op.started }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = &mut lock(&self.cluster.core).pending.waiting;
        if let Some(at) = waiting.iter().position(|(started, ..)| *started == self.started) {
            waiting.swap_remove(at);
        }
    }
}

/// A call under way. Nearly always it is one exchange, and takes no more memory than that needs.
pub struct Calling<'a> {
    cluster: &'a Cluster,
    op: &'a Op,
    /// Whatever the answer is, it is one.
    any: bool,
    call: Call,
    state: CallState<'a>,
}

enum CallState<'a> {
    Begin,
    Usual(Sent),
    Slow(Pin<Box<dyn Future<Output = Result<Reply>> + Send + 'a>>),
}

impl Calling<'_> {
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let (cluster, op) = (self.cluster, self.op);
        if let CallState::Begin = self.state {
            let link = cluster.current(op)?;
            match link.and_then(|link| cluster.submit(op, link, &self.call)) {
                Some(sent) => self.state = CallState::Usual(sent),
                None => self.go_on(None),
            }
        }
        if let CallState::Usual(sent) = &mut self.state {
            let result = ready!(sent.poll(cluster, &self.call, cx));
            match cluster.judge(op, sent.link, &self.call, result) {
                Ok(result) => return Poll::Ready(result),
                Err(error) => {
                    sent.abandon(cluster, &self.call);
                    self.go_on(Some(error));
                }
            }
        }
        match &mut self.state {
            CallState::Slow(slow) => slow.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }

    fn go_on(&mut self, failed: Option<Error>) {
        // What the answer is judged by stays.
        let shadow = Call::new(self.call.request);
        let call = mem::replace(&mut self.call, shadow);
        let slow = self.cluster.call_slowly(self.op, call, failed);
        self.state = CallState::Slow(Box::pin(slow));
    }
}

impl Future for Calling<'_> {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let opcode = self.call.request.opcode;
        self.poll_any(cx).map(|reply| match reply {
            Ok(reply) if !self.any && !reply.header.result().is_success() => {
                Err(Error::Server { opcode, result: reply.header.result() })
            }
            reply => reply,
        })
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if let CallState::Usual(sent) = &mut self.state {
            sent.abandon(self.cluster, &self.call);
        }
    }
}

/// One request under way. Dropped early, it gives its buffers back, and is pending from then on.
pub(super) struct Exchange<'a> {
    cluster: &'a Cluster,
    call: &'a Call,
    sent: Sent,
}

impl Future for Exchange<'_> {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let (cluster, call) = (self.cluster, self.call);
        self.sent.poll(cluster, call, cx)
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.sent.abandon(self.cluster, self.call);
    }
}

/// A request that was given to a link.
struct Sent {
    link: LinkId,
    closing: bool,
    state: SentState,
}

enum SentState {
    Waiting(Id),
    Failed(Error),
    Over,
}

impl Sent {
    fn poll(
        &mut self,
        cluster: &Cluster,
        call: &Call,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reply>> {
        let id = match mem::replace(&mut self.state, SentState::Over) {
            SentState::Waiting(id) => id,
            SentState::Failed(error) => return Poll::Ready(Err(error)),
            SentState::Over => return Poll::Ready(Err(Error::Internal("polled too often"))),
        };
        let mut core = lock(&cluster.core);
        let canceled = core.closing && !self.closing;
        let Some(link) = core.get(self.link) else {
            return Poll::Ready(Err(Error::Lost(Lost { sent: true, corrupt: None })));
        };
        match link.wire.poll_reply(id, cx.waker()) {
            Poll::Ready(result) => {
                let result = result.map_err(|failure| {
                    if let Failure::Lost(Lost { sent: true, .. }) = failure {
                        core.leave(self.link, id, call);
                    }
                    if canceled { Error::Canceled } else { failure.into() }
                });
                core.forget_if_done(self.link.key);
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.state = SentState::Waiting(id);
                if canceled {
                    return Poll::Ready(Err(Error::Canceled));
                }
                let sent = link.wire.is_sent(id);
                // Another gateway takes it, unless it must not be sent twice.
                if link.silent && cluster.gateways.len() > 1 && (call.resend || !sent) {
                    return Poll::Ready(Err(Error::Lost(Lost { sent, corrupt: None })));
                }
                Poll::Pending
            }
        }
    }

    /// Gives up what it waits for.
    fn abandon(&mut self, cluster: &Cluster, call: &Call) {
        if let SentState::Waiting(id) = mem::replace(&mut self.state, SentState::Over) {
            let mut core = lock(&cluster.core);
            let Some(link) = core.get(self.link) else { return };
            let open = link.wire.abandon(id);
            let cut = link.wire.is_cut();
            if open {
                core.leave(self.link, id, call);
            }
            core.forget_if_done(self.link.key);
            drop(core);
            if let Some(why) = cut {
                cluster.drop_link(self.link, why);
            }
        }
    }
}
