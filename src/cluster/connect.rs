//! Getting a connection to some gateway, and knowing that a formatted cluster is behind it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sheepdog_proto::admin::{self, SdNode};
use sheepdog_proto::{INTERNAL_VERSION, OLDER_INTERNAL_VERSION, Request, SdResult, op};

use super::address::Gateway;
use super::health::{is_well, probe};
use super::{Backoff, Call, Class, Cluster, Core, Link, LinkId, LinkState, Op, Timer, classify};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::exec::{WaitList, lock};
use crate::net::{Endpoint, Lookup, Socket, is_retry};
use crate::wire::{Dest, Lost, Reply, Wire};

/// How long one gateway may take to connect and to answer the first request while others are
/// there to be tried.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long an address of a gateway is tried alone (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);

/// How often it is looked whether a name has been found: at first, and later.
const LOOKUP_MIN: Duration = Duration::from_millis(1);
const LOOKUP_MAX: Duration = Duration::from_millis(20);

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

    pub(super) fn current(&self, op: &Op) -> Result<Option<LinkId>> {
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
        let number = lock(&self.core).take_next_gateway(self.gateways.len());
        let gateway = &self.gateways[number];
        let until = match self.options.connect_timeout {
            Some(timeout) => Some(Instant::now() + timeout),
            // Nobody else to try: it has all the time of the operation.
            None if self.gateways.len() == 1 && op.deadline.is_some() => None,
            None => Some(Instant::now() + ATTEMPT),
        };
        let attempt_op = until.map_or(*op, |until| op.until(until));
        let attempt = pin!(async {
            let endpoints = self.endpoints(op, gateway).await?;
            self.connect_to_any(op, number, &endpoints).await
        });
        let attempt = pin!(self.unless_back(attempt));
        let connected = self.bounded(&attempt_op, attempt).await.and_then(|link| {
            // It may have broken right after it answered.
            let greeted = lock(&self.core).greeted(link);
            Ok((link, greeted.map_err(|why| unreachable(gateway, &why))?))
        });
        match connected {
            Ok((link, number)) => {
                log::info!("connected to gateway {}", self.gateways[number]);
                Ok(link)
            }
            Err(error) => {
                log::warn!("gateway {gateway}: {error}");
                match error {
                    Error::TimedOut(_) if self.deadline(op).is_none_or(|d| Instant::now() < d) => {
                        Err(unreachable(gateway, &"no answer in time"))
                    }
                    error => Err(error),
                }
            }
        }
    }

    /// Where a gateway listens now, in the order in which that is to be tried.
    async fn endpoints(&self, op: &Op, gateway: &Gateway) -> Result<Vec<Endpoint>> {
        let (host, port) = match gateway {
            Gateway::At(endpoint) => return Ok(vec![endpoint.clone()]),
            Gateway::Named(host, port) => (host, *port),
        };
        let unknown = |e: std::io::Error| unreachable(gateway, &e);
        let lookup = Lookup::start(self.options.resolver, host.clone(), port).map_err(unknown)?;
        // Nobody in here is to be told by a thread that knows nothing of the cluster.
        let mut wait = LOOKUP_MIN;
        let addresses = loop {
            match lookup.take() {
                Some(found) => break found.map_err(unknown)?,
                None => self.sleep_until(op, Instant::now() + wait).await?,
            }
            wait = (wait * 2).min(LOOKUP_MAX);
        };
        if addresses.is_empty() {
            return Err(unreachable(gateway, &"it has no address"));
        }
        Ok(in_turn(addresses).into_iter().map(Endpoint::Tcp).collect())
    }

    /// A connection to one of the endpoints of a gateway: each is tried beside those before it when
    /// these have failed or are slow, and the first that answers has it (RFC 8305, 5).
    async fn connect_to_any(
        &self,
        op: &Op,
        gateway: usize,
        endpoints: &[Endpoint],
    ) -> Result<LinkId> {
        let mut left = endpoints.iter();
        let mut running = Vec::new();
        let mut error = Error::NotConnected("".into());
        loop {
            let Some(next) = left.next() else { return Err(error) };
            running.push(Box::pin(self.connect_to(op, gateway, next)));
            let mut timer = Timer::new(self, Instant::now() + STAGGER);
            let connected = poll_fn(|cx| {
                let mut failed = false;
                let mut at = 0;
                while let Some(attempt) = running.get_mut(at) {
                    match attempt.as_mut().poll(cx) {
                        Poll::Pending => at += 1,
                        Poll::Ready(Ok(link)) => return Poll::Ready(Ok(Some(link))),
                        Poll::Ready(Err(Error::Canceled)) => {
                            return Poll::Ready(Err(Error::Canceled));
                        }
                        Poll::Ready(Err(e)) => {
                            drop(running.swap_remove(at));
                            let before = std::mem::replace(&mut error, Error::TimedOut(None));
                            error = before.beside(e);
                            failed = true;
                        }
                    }
                }
                match (left.len() > 0, running.is_empty()) {
                    (_, true) => Poll::Ready(Ok(None)),
                    (true, _) if failed => Poll::Ready(Ok(None)),
                    (true, _) => timer.poll(cx).map(|()| Ok(None)),
                    (false, _) => Poll::Pending,
                }
            });
            if let Some(link) = connected.await? {
                return Ok(link);
            }
        }
    }

    /// Connects to one endpoint of a gateway, and finds out whether it is well.
    async fn connect_to(&self, op: &Op, gateway: usize, endpoint: &Endpoint) -> Result<LinkId> {
        let socket = loop {
            match Socket::start_connect(endpoint) {
                // The server's queue is full, and a Unix socket does not wait for room there as
                // TCP does by itself.
                Err(e) if is_retry(&e) => self.sleep_until(op, Instant::now() + FULL).await?,
                started => break started.map_err(|e| unreachable(endpoint, &e))?,
            }
        };
        let link = self.add_link(gateway, endpoint, socket);
        let guard = LinkGuard { cluster: self, link: Some(link) };
        self.connected(op, link).await?.map_err(|why| unreachable(endpoint, &why))?;
        self.greet(op, link).await.map_err(|error| match error {
            Error::Lost(Lost { corrupt: Some(corrupt), .. }) => {
                let why = format!("{endpoint} is no sheepdog server: {}", corrupt.0);
                Error::NoSheep(why.into())
            }
            Error::Lost(_) => unreachable(endpoint, &"closed without an answer"),
            error => error,
        })?;
        guard.keep();
        Ok(link)
    }

    fn add_link(&self, gateway: usize, endpoint: &Endpoint, socket: Socket) -> LinkId {
        let address = match endpoint {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        };
        let mut core = lock(&self.core);
        core.next_serial += 1;
        let serial = core.next_serial;
        self.descriptors.keep_socket(&socket);
        let socket = Arc::new(socket);
        let now = Instant::now();
        let link = Link {
            serial,
            gateway,
            address,
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
        address: Option<SocketAddr>,
    ) -> Result<Option<(u32, bool)>> {
        // Of a unix socket nobody knows whose it is.
        let Some(address) = address else { return Ok(None) };
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

/// Addresses of both families in turn, otherwise in their order, each once: if one family leads
/// nowhere the other one's turn is not far (RFC 8305, 4).
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut those): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let mut sorted = Vec::new();
    while let Some(address) = these.pop_front() {
        if !sorted.contains(&address) {
            sorted.push(address);
        }
        if !those.is_empty() {
            std::mem::swap(&mut these, &mut those);
        }
    }
    sorted
}

fn unreachable(who: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> Error {
    Error::NotConnected(format!("{who}: {why}").into())
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
    use sheepdog_proto::{Response, SdResult};

    use super::super::Options;
    use super::*;

    /// What the names of these tests stand for.
    static NAMES: Mutex<Vec<(String, Vec<SocketAddr>)>> = Mutex::new(Vec::new());

    fn resolver(host: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        let names = NAMES.lock().unwrap();
        let found = names.iter().rev().find(|(name, _)| name == host);
        Ok(found.map(|(_, addresses)| addresses.clone()).unwrap_or_default())
    }

    fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
        NAMES.lock().unwrap().push((name.into(), addresses.to_vec()));
        let timeout = Some(Duration::from_secs(20));
        let options = Options { connect_timeout: timeout, resolver, ..Options::default() };
        Cluster::new(vec![Gateway::Named(name.into(), 7000)], options).unwrap()
    }

    /// Where a listener is that takes connections and never says anything.
    fn silent() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Where something answers every request with a success, until the process ends.
    fn sheep() -> SocketAddr {
        let (listener, address) = silent();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut request = [0; 48];
                    while stream.read_exact(&mut request).is_ok() {
                        let request = Request::read_from_bytes(&request).unwrap();
                        let response = Response::to(&request, 1, SdResult::SUCCESS);
                        stream.write_all(response.as_bytes()).unwrap();
                    }
                });
            }
        });
        address
    }

    fn refusing() -> SocketAddr {
        silent().1
    }

    #[test]
    fn families_take_turns() {
        let v4 = |n| SocketAddr::from(([10, 0, 0, n], 1));
        let v6 = |n| SocketAddr::from(([1, 0, 0, 0, 0, 0, 0, n], 1));
        assert_eq!(in_turn(vec![]), []);
        let sorted = in_turn(vec![v6(1), v6(2), v6(1), v6(3), v4(1), v4(2)]);
        assert_eq!(sorted, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(in_turn(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
    }

    #[test]
    fn the_next_address_is_tried_beside_one_that_does_not_answer() {
        let (_listener, silent) = silent();
        let started = Instant::now();
        cluster("slow", &[silent, refusing(), sheep()]).start().unwrap();
        assert!(started.elapsed() >= STAGGER, "the first one has its time");
    }

    #[test]
    fn of_a_name_without_a_gateway_every_address_says_why() {
        let (one, two) = (refusing(), refusing());
        let error = cluster("down", &[one, two]).start().unwrap_err().to_string();
        for part in [one.to_string(), two.to_string(), "refused".into()] {
            assert!(error.contains(&part), "{error}");
        }
        let error = cluster("nothing", &[]).start().unwrap_err().to_string();
        assert!(error.contains("nothing:7000: it has no address"), "{error}");
    }

    #[test]
    fn a_name_is_looked_up_again_whenever_it_is_connected_to() {
        let cluster = cluster("moving", &[refusing()]);
        cluster.start().unwrap_err();
        NAMES.lock().unwrap().push(("moving".into(), vec![sheep()]));
        cluster.start().unwrap();
    }

    #[test]
    fn a_lookup_that_takes_long_ends_with_the_connect_timeout() {
        fn never(_: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
            loop {
                std::thread::park();
            }
        }
        let timeout = Some(Duration::from_millis(50));
        let options = Options { connect_timeout: timeout, resolver: never, ..Options::default() };
        let cluster = Cluster::new(vec![Gateway::Named("a".into(), 1)], options).unwrap();
        let error = cluster.start().unwrap_err();
        assert!(matches!(error, Error::NotConnected(_)), "{error}");
    }
}
