//! Getting a connection to some gateway, and knowing that a formatted cluster is behind it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sheepdog_proto::admin::{self, SdNode};
use sheepdog_proto::{INTERNAL_VERSION, OLDER_INTERNAL_VERSION, Request, SdResult, op};

use super::health::{is_well, probe};
use super::{Backoff, Call, Class, Cluster, Core, Link, LinkId, LinkState, Op, classify};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::{WaitList, lock};
use crate::net::{Endpoint, Socket, is_retry};
use crate::wire::{Dest, Lost, Reply, Wire};

/// How long one gateway may take to connect and to answer the first request while others are
/// there to be tried.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How often a server is tried whose queue of connections is full.
const FULL: Duration = Duration::from_millis(20);

impl Cluster {
    /// Sees to it that there is a connection.
    pub async fn connect(&self, op: &Op) -> Result<()> {
        self.uplink(op).await.map(drop)
    }

    /// A link that requests can go out on: the current one, or a new one to the first gateway
    /// that can be reached.
    pub(super) async fn uplink(&self, op: &Op) -> Result<LinkId> {
        match self.current(op)? {
            Some(link) => Ok(link),
            // Rare, and much larger than what usually happens.
            None => Box::pin(self.new_uplink(op)).await,
        }
    }

    async fn new_uplink(&self, op: &Op) -> Result<LinkId> {
        let _turn = self.connecting_turn(op).await?;
        self.log_loss();
        let mut backoff = Backoff::default();
        loop {
            if let Some(link) = self.current(op)? {
                return Ok(link);
            }
            let mut error = Error::NotConnected("".into());
            for _ in 0..self.gateways.len() {
                match self.connect_next(op).await {
                    Ok(link) => return Ok(link),
                    Err(e @ (Error::Canceled | Error::TimedOut(_))) => return Err(e),
                    Err(e) => error = error.beside(e),
                }
            }
            let wait = !op.first && lock(&self.core).was_connected && is_worth_waiting(&error);
            if !wait || !backoff.wait(self, op).await? {
                return Err(error);
            }
        }
    }

    /// Says why there is no connection any more; not where it ended, under a lock, since the log
    /// is the program's code.
    fn log_loss(&self) {
        let loss = lock(&self.core).last_loss.clone();
        if let Some((gateway, why)) = loss {
            log::warn!("connection to gateway {} ended: {why}", self.gateways[gateway]);
        }
    }

    fn current(&self, op: &Op) -> Result<Option<LinkId>> {
        let mut core = lock(&self.core);
        if core.closing && !op.closing {
            return Err(Error::Canceled);
        }
        let current = core.current;
        Ok(current.filter(|link| core.up(*link).is_some()))
    }

    /// Waits until nobody else is connecting.
    async fn connecting_turn(&self, op: &Op) -> Result<ConnectingTurn<'_>> {
        poll_fn(|cx| {
            let mut core = lock(&self.core);
            if core.closing && !op.closing {
                return Poll::Ready(Err(Error::Canceled));
            }
            if core.connecting {
                core.connect_waiters.register(cx);
                return Poll::Pending;
            }
            core.connecting = true;
            Poll::Ready(Ok(ConnectingTurn(self)))
        })
        .await
    }

    /// Tries the next gateway of the list, once.
    async fn connect_next(&self, op: &Op) -> Result<LinkId> {
        let gateway = lock(&self.core).take_next_gateway(self.gateways.len());
        let endpoint = &self.gateways[gateway];
        let unreachable =
            |why: &dyn std::fmt::Display| Error::NotConnected(format!("{endpoint}: {why}").into());
        let attempt = pin!(async {
            let socket = loop {
                match Socket::start_connect(endpoint) {
                    // The server's queue is full, and a Unix socket does not wait for room there as
                    // TCP does by itself.
                    Err(e) if is_retry(&e) => self.sleep_until(op, Instant::now() + FULL).await?,
                    started => break started.map_err(|e| unreachable(&e))?,
                }
            };
            let link = self.add_link(gateway, socket);
            let guard = LinkGuard { cluster: self, link: Some(link) };
            self.connected(op, link).await?.map_err(|why| unreachable(&why))?;
            self.greet(op, link).await?;
            guard.keep();
            Ok(link)
        });
        let attempt = pin!(self.unless_back(attempt));
        let mut until = Instant::now() + ATTEMPT;
        if self.gateways.len() == 1 {
            // Nobody else to try: it has all the time of the operation.
            until = op.deadline.unwrap_or(until);
        }
        let attempt_op = Op { deadline: Some(until), ..*op };
        match self.within(&attempt_op, attempt).await {
            Ok(link) => {
                // It may have broken right after it answered.
                let gateway = lock(&self.core).greeted(link).map_err(|why| unreachable(&why))?;
                log::info!("connected to gateway {}", self.gateways[gateway]);
                Ok(link)
            }
            Err(error) => {
                let error = match error {
                    Error::Lost(Lost { corrupt: Some(corrupt), .. }) => {
                        let why = format!("{endpoint} is no sheepdog server: {}", corrupt.0);
                        Error::NoSheep(why.into())
                    }
                    Error::Lost(_) => unreachable(&"closed without an answer"),
                    error => error,
                };
                log::warn!("gateway {endpoint}: {error}");
                match error {
                    Error::TimedOut(_) if op.deadline.is_none_or(|d| Instant::now() < d) => {
                        Err(unreachable(&"no answer in time"))
                    }
                    error => Err(error),
                }
            }
        }
    }

    fn add_link(&self, gateway: usize, socket: Socket) -> LinkId {
        let mut core = lock(&self.core);
        core.next_serial += 1;
        let serial = core.next_serial;
        self.descriptors.keep_socket(&socket);
        let socket = Arc::new(socket);
        let now = Instant::now();
        let link = Link {
            serial,
            gateway,
            socket,
            wire: Wire::new(),
            state: LinkState::Connecting(WaitList::default()),
            last_received: now,
            asked: now,
            probed: None,
            silent: false,
            greeting: true,
            stuck: false,
            watched: None,
        };
        let key = core.links.insert(link);
        core.watch(key);
        if core.polling.is_some() {
            self.wake.set();
        }
        LinkId { key, serial }
    }

    /// Waits for the connect of a link to end.
    async fn connected(&self, op: &Op, id: LinkId) -> Result<Result<(), Arc<str>>> {
        poll_fn(|cx| {
            let mut core = lock(&self.core);
            if core.closing && !op.closing {
                return Poll::Ready(Err(Error::Canceled));
            }
            match core.get(id).map(|link| &mut link.state) {
                None => Poll::Ready(Ok(Err("closed".into()))),
                Some(LinkState::Up) => Poll::Ready(Ok(Ok(()))),
                Some(LinkState::Draining(why) | LinkState::Down(why, _)) => {
                    Poll::Ready(Ok(Err(why.clone())))
                }
                Some(LinkState::Connecting(waiters)) => {
                    waiters.register(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The output of `attempt`, or a link that was passed over and is heard of again meanwhile.
    async fn unless_back(
        &self,
        mut attempt: Pin<&mut impl Future<Output = Result<LinkId>>>,
    ) -> Result<LinkId> {
        poll_fn(|cx| {
            {
                let mut core = lock(&self.core);
                if let Some(link) = core.current {
                    return Poll::Ready(Ok(link));
                }
                core.connect_waiters.register(cx);
            }
            attempt.as_mut().poll(cx)
        })
        .await
    }

    /// One cheap exchange: a peer that is no sheep, or a cluster that is not formatted, is found
    /// out here.
    async fn greet(&self, op: &Op, link: LinkId) -> Result<()> {
        let call = Call::new(probe());
        let result = self.ask(op, link, &call).await?.header.result();
        if is_well(result) { Ok(()) } else { Err(Error::Server { opcode: op::FLUSH_VDI, result }) }
    }

    /// A request of the library's own that touches nothing.
    async fn ask(&self, op: &Op, link: LinkId, call: &Call) -> Result<Reply> {
        match self.exchange(op, link, call) {
            Some(exchange) => exchange.await,
            None => Err(Error::Internal("a question that must wait")),
        }
    }

    /// What the gateway behind `link` knows of another: the epoch, and whether it is a member of
    /// it. None where it does not say.
    pub(super) async fn is_member(
        &self,
        op: &Op,
        link: LinkId,
        gateway: usize,
    ) -> Result<Option<(u32, bool)>> {
        // Of a unix socket nobody knows whose it is.
        let Endpoint::Tcp(address) = self.gateways[gateway] else { return Ok(None) };
        for proto_ver in [INTERNAL_VERSION, OLDER_INTERNAL_VERSION] {
            let request = Request { proto_ver, ..admin::get_node_list() };
            let room = Dest::Bytes(request.data_length.get() as usize);
            let reply = self.ask(op, link, &Call::new(request).dest(room)).await?;
            match reply.header.result() {
                SdResult::VER_MISMATCH => {}
                result if result.is_success() => {
                    let mut nodes = admin::nodes(&reply.bytes);
                    let is_it = |node: &SdNode| node.nid.address() == address;
                    return Ok(Some((reply.header.epoch.get(), nodes.any(is_it))));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Core {
    /// The gateway to try, and the next time another one. One that is known to say nothing is
    /// passed over while there are others.
    fn take_next_gateway(&mut self, gateways: usize) -> usize {
        let is_silent =
            |gateway| self.links.iter().any(|(_, link)| link.gateway == gateway && link.silent);
        let mut order = (0..gateways).map(|n| (self.next_gateway + n) % gateways);
        let gateway = order.find(|gateway| !is_silent(*gateway));
        let gateway = gateway.unwrap_or(self.next_gateway % gateways);
        self.next_gateway = (gateway + 1) % gateways;
        gateway
    }

    /// A link is one to a gateway, which one, and may be used; or why it is down.
    fn greeted(&mut self, id: LinkId) -> Result<usize, Arc<str>> {
        self.was_connected = true;
        let link = self.get(id).ok_or("closed")?;
        link.greeting = false;
        let gateway = link.gateway;
        let end = match &link.state {
            LinkState::Draining(why) | LinkState::Down(why, _) => Err(why.clone()),
            LinkState::Connecting(_) | LinkState::Up => Ok(gateway),
        };
        if end.is_ok() && self.current.is_none() {
            self.make_current(id);
        }
        self.forget_if_done(id.key);
        end
    }

    /// Requests go out on this link from now on. The list is tried from its start again once it is
    /// gone.
    pub(super) fn make_current(&mut self, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        self.next_gateway = if link.gateway == 0 { 1 } else { 0 };
        self.current = Some(id);
    }
}

impl Error {
    /// What to say of two gateways that failed: of all that were not reached, or what the later
    /// one was.
    fn beside(self, later: Error) -> Error {
        match (self, later) {
            (Error::NotConnected(first), Error::NotConnected(second)) if !first.is_empty() => {
                Error::NotConnected(format!("{first}; {second}").into())
            }
            (_, later) => later,
        }
    }
}

/// Whether a failed attempt may succeed later without anybody's doing.
fn is_worth_waiting(error: &Error) -> bool {
    match error {
        Error::NotConnected(_) | Error::NoSheep(_) | Error::Lost(_) => true,
        Error::Server { result, .. } => classify(*result) != Class::Final,
        _ => false,
    }
}

/// The right to connect, which one operation has at a time.
struct ConnectingTurn<'a>(&'a Cluster);

impl Drop for ConnectingTurn<'_> {
    fn drop(&mut self) {
        let waiters = {
            let mut core = lock(&self.0.core);
            core.connecting = false;
            core.connect_waiters.take()
        };
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// Takes a link down again unless it is kept: its operation may give up at any await.
struct LinkGuard<'a> {
    cluster: &'a Cluster,
    link: Option<LinkId>,
}

impl LinkGuard<'_> {
    fn keep(mut self) {
        self.link = None;
    }
}

impl Drop for LinkGuard<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            self.cluster.drop_link(link, "given up");
        }
    }
}
