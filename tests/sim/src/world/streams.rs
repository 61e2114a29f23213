//! Connections between clients and gateways: bytes on their way, what the kernels at both ends keep
//! of them, frames where a server reads them, and the faults that meet a request or its answer.
//!
//! Towards the server bytes lie in the client's send buffer until there is room at the other end,
//! where they wait for the server to run; it takes them as they come, and each whole request
//! becomes a task. Towards the client they come in pieces, in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Oid, Request, Response, SdResult, op};

use super::draw::{self, mix, mix_bytes};
use super::{OUTLIVE, Origin, Said, World};
use crate::fault::{ClientId, Fault, Kind, When};
use crate::host::NodeId;
use crate::net::Interest;

pub type StreamId = usize;

/// How long a client's kernel hears nothing, or cannot send, before it gives a connection up: the
/// library sets TCP_USER_TIMEOUT and keepalive so.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// What the kernels keep at most, at either end; which of these, is drawn.
const BUFFERS: [usize; 4] = [1 << 10, 16 << 10, 128 << 10, 1 << 20];

pub(super) enum Event {
    /// The answer to a connect is there.
    Connected,
    /// Bytes get to the server's kernel.
    Arrive,
    /// Bytes, or the end, get to the client's kernel.
    Deliver,
    /// Since then the client's kernel could not send, or heard nothing.
    GiveUp(Duration),
}

pub(super) struct Stream {
    client: ClientId,
    node: NodeId,
    name: u64,
    state: State,
    server: Server,
    /// How long a blocking receive waits.
    tick: Duration,

    /// Bytes sent, but for the requests that the server has taken whole.
    sent: Vec<u8>,
    /// Whole requests among them, and their bytes.
    requests: VecDeque<Sent>,
    requests_len: usize,
    /// Of those, how many are in the server's kernel or were, and how many the server has read.
    received: usize,
    read: usize,
    send_buffer: usize,
    window: usize,
    arrive_due: bool,
    /// Since when nothing of the send buffer could go.
    stuck: Option<Duration>,
    /// Since when no packet gets through.
    silent: Option<Duration>,
    /// How often a request came on this connection, by what it asks.
    seen: BTreeMap<u64, u64>,
    /// Requests that are being carried out.
    executing: usize,
    /// The client sends nothing more.
    last_sent: bool,

    /// On their way to the client, and when they get there.
    coming: VecDeque<(Duration, Coming)>,
    deliver_due: bool,
    /// In the client's kernel.
    pieces: VecDeque<Piece>,
    /// When the client was told of the end, by FIN or RST.
    end_seen: Option<Duration>,
    made: u64,
}

/// The client's end.
enum State {
    Connecting,
    Up,
    /// The server's end has gone: after what is there already, an end or an error.
    Ended(Option<ErrorKind>),
    Closed,
}

/// The server's end.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Open,
    /// Reads and answers nothing any more; ends when its requests have.
    Mute,
    Closed,
}

enum Coming {
    Piece(Piece),
    /// FIN, or RST.
    End(Option<ErrorKind>),
}

/// A part of what a server sent.
struct Piece {
    bytes: Rc<Vec<u8>>,
    range: Range<usize>,
}

/// A request that is wholly sent.
struct Sent {
    number: u64,
    len: usize,
    plan: Plan,
}

/// What the faults make of one request.
#[derive(Default)]
struct Plan {
    cut: Option<When>,
    /// Carried out so much later.
    late: Option<Duration>,
    /// Answered with this; whether it is carried out.
    answer: Option<(SdResult, bool)>,
    slow: Duration,
}

impl Stream {
    fn room(&self) -> usize {
        self.send_buffer.saturating_sub(self.sent.len() - self.received)
    }

    fn window_left(&self) -> usize {
        self.window - (self.received - self.read)
    }

    /// A name for something that happens on it.
    fn next_name(&mut self) -> u64 {
        self.made += 1;
        mix(self.name, self.made)
    }
}

/// The client's end: what sockets do.
impl World {
    pub(crate) fn connect(&self, client: ClientId, node: NodeId) -> io::Result<StreamId> {
        if node >= self.nodes.borrow().len() {
            return Err(ErrorKind::HostUnreachable.into());
        }
        let mut streams = self.streams.borrow_mut();
        let id = streams.len();
        let before = streams.iter().filter(|s| (s.client, s.node) == (client, node)).count();
        let name = mix(mix(client as u64, node as u64), before as u64);
        let buffer = |what| BUFFERS[draw::number(self.seed, name, what) as usize % BUFFERS.len()];
        let silent = self.parted(client, node).then(|| self.now());
        streams.push(Stream {
            client,
            node,
            name,
            state: State::Connecting,
            server: Server::Open,
            tick: Duration::ZERO,
            sent: Vec::new(),
            requests: VecDeque::new(),
            requests_len: 0,
            received: 0,
            read: 0,
            send_buffer: buffer("send buffer"),
            window: buffer("window"),
            arrive_due: false,
            stuck: None,
            silent,
            seen: BTreeMap::new(),
            executing: 0,
            last_sent: false,
            coming: VecDeque::new(),
            deliver_due: false,
            pieces: VecDeque::new(),
            end_seen: None,
            made: 0,
        });
        let delay = self.draw(name, "connects", self.delays.network);
        drop(streams);
        self.trace(|| format!("client {client} -> node {node}: connect #{id}"));
        self.at(self.now() + 2 * delay, super::Event::Stream(id, Event::Connected));
        Ok(id)
    }

    pub(crate) fn finish_connect(&self, id: StreamId, tick: Duration) -> io::Result<()> {
        let stream = &mut self.streams.borrow_mut()[id];
        match stream.state {
            State::Ended(Some(kind)) => Err(kind.into()),
            State::Connecting | State::Closed => Err(ErrorKind::NotConnected.into()),
            State::Up | State::Ended(None) => {
                stream.tick = tick;
                Ok(())
            }
        }
    }

    pub(crate) fn tick(&self, id: StreamId) -> Duration {
        self.streams.borrow()[id].tick
    }

    pub(crate) fn send(&self, id: StreamId, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut streams = self.streams.borrow_mut();
        let stream = &mut streams[id];
        let wanted: usize = bytes.iter().map(|part| part.len()).sum();
        match stream.state {
            State::Up => {}
            State::Connecting => return Err(ErrorKind::WouldBlock.into()),
            // What is sent after the peer's FIN is answered with RST, later.
            State::Ended(None) => return Ok(wanted),
            State::Ended(Some(kind)) => return Err(kind.into()),
            State::Closed => return Err(ErrorKind::BrokenPipe.into()),
        }
        let taken = wanted.min(stream.room());
        if taken == 0 && wanted > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = taken;
        for part in bytes {
            let part = &part[..left.min(part.len())];
            stream.sent.extend_from_slice(part);
            left -= part.len();
        }
        self.note_sent(stream);
        if stream.server == Server::Closed {
            // Nobody gets it, though the client does not know that yet.
            stream.requests.drain(..).for_each(|lost| self.over(lost.number));
            (stream.sent, stream.requests_len) = (Vec::new(), 0);
        }
        self.schedule_arrival(id, stream);
        Ok(taken)
    }

    /// Finds the requests in what was sent, and what the faults have in mind for them.
    fn note_sent(&self, stream: &mut Stream) {
        while let Some((request, payload)) = first_request(&stream.sent[stream.requests_len..]) {
            let number = self.requests.get() + 1;
            self.requests.set(number);
            if let Some(observer) = &*self.observer.borrow() {
                observer.sent(self.now(), number, stream.client, &request, payload);
            }
            let len = HEADER_LEN + payload.len();
            let plan = self.plan(stream.client, Kind::of(&request));
            stream.requests.push_back(Sent { number, len, plan });
            stream.requests_len += len;
        }
    }

    pub(crate) fn recv(&self, id: StreamId, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let stream = &mut self.streams.borrow_mut()[id];
        let mut total = 0;
        'all: for part in into {
            let mut part: &mut [u8] = part;
            while !part.is_empty() {
                let Some(piece) = stream.pieces.front_mut() else { break 'all };
                let n = piece.range.len().min(part.len());
                let (now, later) = part.split_at_mut(n);
                now.copy_from_slice(&piece.bytes[piece.range.start..][..n]);
                part = later;
                total += n;
                piece.range.start += n;
                if piece.range.is_empty() {
                    stream.pieces.pop_front();
                }
            }
        }
        match stream.state {
            _ if total > 0 => Ok(total),
            State::Connecting | State::Up => Err(ErrorKind::WouldBlock.into()),
            State::Ended(Some(kind)) => Err(kind.into()),
            State::Ended(None) | State::Closed => Ok(0),
        }
    }

    pub(crate) fn readiness(&self, id: StreamId, interest: Interest) -> Interest {
        let stream = &self.streams.borrow()[id];
        let (readable, writable) = match stream.state {
            State::Connecting => (false, false),
            State::Up => (!stream.pieces.is_empty(), stream.room() > 0),
            State::Ended(_) | State::Closed => (true, true),
        };
        let mut ready = Interest::empty();
        ready.set(Interest::IN, readable);
        ready.set(Interest::OUT, writable);
        ready & interest
    }

    /// The client is done with it; what it has sent may still get there.
    pub(crate) fn close(&self, id: StreamId) {
        let stream = &mut self.streams.borrow_mut()[id];
        if !matches!(stream.state, State::Closed) {
            stream.state = State::Closed;
            stream.coming.clear();
            stream.pieces.clear();
            self.trace(|| format!("client {} closes #{id}", stream.client));
        }
    }
}

/// The way between.
impl World {
    pub(super) fn stream_event(&self, id: StreamId, event: Event) {
        self.stir(id as u64);
        match event {
            Event::Connected => self.connected(id),
            Event::Arrive => self.arrive(id),
            Event::Deliver => self.deliver(id),
            Event::GiveUp(since) => self.give_up(id, since),
        }
    }

    fn connected(&self, id: StreamId) {
        let mut streams = self.streams.borrow_mut();
        let stream = &mut streams[id];
        if stream.silent.is_some() || !matches!(stream.state, State::Connecting) {
            return;
        }
        if self.is_dead(stream.node) {
            stream.state = State::Ended(Some(ErrorKind::ConnectionRefused));
            stream.server = Server::Closed;
        } else {
            stream.state = State::Up;
        }
    }

    fn schedule_arrival(&self, id: StreamId, stream: &mut Stream) {
        if stream.arrive_due || stream.sent.len() == stream.received {
            return;
        }
        stream.arrive_due = true;
        let name = stream.next_name();
        let delay = self.draw(name, "to the server", self.delays.network);
        self.at(self.now() + delay, super::Event::Stream(id, Event::Arrive));
    }

    fn arrive(&self, id: StreamId) {
        {
            let mut streams = self.streams.borrow_mut();
            let stream = &mut streams[id];
            stream.arrive_due = false;
            if stream.server == Server::Closed {
                // Sent before the client saw the end.
                stream.sent.clear();
                stream.requests_len = 0;
                stream.requests.drain(..).for_each(|lost| self.over(lost.number));
            }
            if stream.silent.is_some() || stream.server == Server::Closed {
                return;
            }
            let waiting = stream.sent.len() - stream.received;
            let fits = waiting.min(stream.window_left());
            stream.received += fits;
            if fits > 0 {
                stream.stuck = None;
            }
            if waiting > fits && fits == 0 && stream.stuck.is_none() {
                let now = self.now();
                stream.stuck = Some(now);
                self.at(now + SILENCE_LIMIT, super::Event::Stream(id, Event::GiveUp(now)));
            }
        }
        self.read(id);
    }

    fn push(&self, id: StreamId, stream: &mut Stream, coming: Coming, delay: Duration) {
        if matches!(stream.state, State::Closed) {
            return;
        }
        let last = stream.coming.back().map_or(Duration::ZERO, |(at, _)| *at);
        let at = last.max(self.now() + delay);
        stream.coming.push_back((at, coming));
        self.schedule_delivery(id, stream);
    }

    fn schedule_delivery(&self, id: StreamId, stream: &mut Stream) {
        if let Some((at, _)) = stream.coming.front()
            && !stream.deliver_due
        {
            stream.deliver_due = true;
            self.at(*at, super::Event::Stream(id, Event::Deliver));
        }
    }

    fn deliver(&self, id: StreamId) {
        let mut streams = self.streams.borrow_mut();
        let stream = &mut streams[id];
        stream.deliver_due = false;
        if stream.silent.is_some() || !matches!(stream.state, State::Up) {
            return;
        }
        while let Some((at, _)) = stream.coming.front()
            && *at <= self.now()
        {
            match stream.coming.pop_front() {
                Some((_, Coming::Piece(piece))) => {
                    self.stir(piece.range.len() as u64);
                    stream.pieces.push_back(piece);
                }
                Some((_, Coming::End(kind))) => {
                    self.trace(|| format!("client {} sees #{id} end", stream.client));
                    stream.state = State::Ended(kind);
                    stream.end_seen = Some(self.now());
                    stream.coming.clear();
                }
                None => {}
            }
        }
        self.schedule_delivery(id, stream);
    }

    /// What the client's kernel has not got rid of is lost; what has got to the server is there.
    fn give_up(&self, id: StreamId, since: Duration) {
        let stream = &mut self.streams.borrow_mut()[id];
        if stream.stuck != Some(since) && stream.silent != Some(since) {
            return;
        }
        self.trace(|| format!("client {}'s kernel gives #{id} up", stream.client));
        stream.sent.truncate(stream.received);
        while stream.requests_len > stream.sent.len()
            && let Some(lost) = stream.requests.pop_back()
        {
            stream.requests_len -= lost.len;
            self.over(lost.number);
        }
        stream.coming.clear();
        if !matches!(stream.state, State::Closed) {
            stream.state = State::Ended(Some(ErrorKind::TimedOut));
        }
    }

    pub(super) fn silence(&self, client: ClientId, node: NodeId) {
        let now = self.now();
        for (id, stream) in self.streams.borrow_mut().iter_mut().enumerate() {
            if (stream.client, stream.node) == (client, node) && stream.silent.is_none() {
                stream.silent = Some(now);
                // A connect is the library's to give up.
                if matches!(stream.state, State::Up) || stream.sent.len() > stream.received {
                    self.at(now + SILENCE_LIMIT, super::Event::Stream(id, Event::GiveUp(now)));
                }
            }
        }
    }

    /// What was not delivered is sent again.
    pub(super) fn unsilence(&self, client: ClientId, node: NodeId) {
        for (id, stream) in self.streams.borrow_mut().iter_mut().enumerate() {
            if (stream.client, stream.node) != (client, node) || stream.silent.is_none() {
                continue;
            }
            stream.silent = None;
            let name = stream.next_name();
            let delay = self.draw(name, "comes again", self.delays.network);
            let at = self.now() + delay;
            match stream.state {
                State::Connecting => self.at(at, super::Event::Stream(id, Event::Connected)),
                _ => {
                    for (due, _) in &mut stream.coming {
                        *due = at.max(*due);
                    }
                    self.schedule_delivery(id, stream);
                    self.schedule_arrival(id, stream);
                }
            }
        }
    }
}

/// The server's end.
impl World {
    /// A node that was stopped reads what has come meanwhile.
    pub(super) fn read_all(&self, node: NodeId) {
        let of_node = |(id, stream): (StreamId, &Stream)| (stream.node == node).then_some(id);
        let ids: Vec<_> = self.streams.borrow().iter().enumerate().filter_map(of_node).collect();
        ids.into_iter().for_each(|id| self.read(id));
    }

    /// The process is dead; its kernel tells the clients.
    pub(super) fn reset_all(&self, node: NodeId) {
        for (id, stream) in self.streams.borrow_mut().iter_mut().enumerate() {
            if stream.node == node && stream.server != Server::Closed {
                if stream.executing > 0 {
                    self.lost_lock.set(true);
                }
                stream.executing = 0;
                self.end(id, stream, Some(ErrorKind::ConnectionReset));
            }
        }
    }

    fn end(&self, id: StreamId, stream: &mut Stream, kind: Option<ErrorKind>) {
        stream.server = Server::Closed;
        stream.sent = Vec::new();
        (stream.received, stream.read, stream.stuck) = (0, 0, None);
        stream.requests_len = 0;
        stream.requests.drain(..).for_each(|lost| self.over(lost.number));
        let name = stream.next_name();
        let delay = self.draw(name, "ends", self.delays.network);
        self.push(id, stream, Coming::End(kind), delay);
    }

    /// The client's end of the stream; the server closes once it has answered what came before.
    pub(crate) fn end_of_requests(&self, id: StreamId) {
        let stream = &mut self.streams.borrow_mut()[id];
        stream.last_sent = true;
        self.trace(|| format!("client {} ends #{id}", stream.client));
        self.end_if_done(id, stream);
    }

    fn end_if_done(&self, id: StreamId, stream: &mut Stream) {
        let idle = stream.executing == 0 && stream.sent.is_empty() && self.runs(stream.node);
        if stream.last_sent && idle && stream.server == Server::Open {
            self.end(id, stream, None);
        }
    }

    /// Breaks the connection: the client sees one of the ends there are.
    fn cut(&self, id: StreamId, stream: &mut Stream) {
        let fin = draw::number(self.seed, stream.name, "how it ends") & 1 == 0;
        self.end(id, stream, (!fin).then_some(ErrorKind::ConnectionReset));
    }

    /// The server takes what has come, and starts whole requests.
    fn read(&self, id: StreamId) {
        loop {
            let (node, name, request, payload, sent) = {
                let mut streams = self.streams.borrow_mut();
                let stream = &mut streams[id];
                if !self.runs(stream.node) || stream.server != Server::Open {
                    return;
                }
                stream.read = stream.received;
                self.schedule_arrival(id, stream);
                if stream.requests.front().is_none_or(|sent| sent.len > stream.read) {
                    return;
                }
                let Some(sent) = stream.requests.pop_front() else { return };
                let Some((request, payload)) = first_request(&stream.sent) else { return };
                let payload = payload.to_vec();
                stream.sent.drain(..sent.len);
                stream.received -= sent.len;
                stream.read -= sent.len;
                stream.requests_len -= sent.len;
                let what = mix_bytes(u64::from(request.opcode), &request.arm);
                let times = stream.seen.entry(what).or_default();
                *times += 1;
                let name = mix(mix(stream.name, what), *times);
                stream.executing += 1;
                let (client, node) = (stream.client, stream.node);
                self.trace(|| format!("client {client} -> node {node} #{id}: {}", text(&request)));
                (node, name, request, payload, sent)
            };
            self.stir(mix_bytes(name, &payload));
            let plan = if self.healed.get() { Plan::default() } else { sent.plan };
            let origin = Origin { world: self.me.clone(), number: sent.number, stream: id };
            self.start(node, name, request, payload, plan, origin);
        }
    }

    /// What the faults have in mind for a client's next request of that kind.
    fn plan(&self, client: ClientId, kind: Kind) -> Plan {
        let mut plan = Plan::default();
        let mut matched = self.matched.borrow_mut();
        for (fault, count) in self.faults.iter().zip(matched.iter_mut()) {
            let Some((whose, wanted, nth)) = fault.request() else { continue };
            if whose != client || !wanted.includes(kind) {
                continue;
            }
            *count += 1;
            if *count != nth + 1 || self.healed.get() {
                continue;
            }
            self.trace(|| format!("fault: {fault}"));
            match *fault {
                Fault::Cut { when, .. } => plan.cut = Some(when),
                Fault::Late { by, .. } => plan.late = Some(by),
                Fault::Answer { result, executed, .. } => {
                    plan.answer = Some((SdResult(result), executed));
                }
                Fault::Slow { by, .. } => plan.slow += by,
                Fault::Stall { .. } | Fault::Kill { .. } | Fault::Partition { .. } => {}
            }
        }
        plan
    }

    /// Has a request carried out by a task of its own: those of one connection have no order (0.5).
    fn start(
        &self,
        node: NodeId,
        name: u64,
        mut request: Request,
        payload: Vec<u8>,
        plan: Plan,
        origin: Origin,
    ) {
        let (id, number) = (origin.stream, origin.number);
        {
            let stream = &mut self.streams.borrow_mut()[id];
            if plan.cut == Some(When::Before) {
                // However late it was to be carried out: it never is.
                self.cut(id, stream);
                stream.executing -= 1;
                return;
            }
            if plan.late.is_some_and(|by| by > Fault::LATE_LIMIT) {
                stream.server = Server::Mute;
            } else if plan.late.is_some() || plan.cut == Some(When::AfterReceived) {
                self.cut(id, stream);
            }
        }
        // Servers ignore what a client sends there; the model tells clients apart by it.
        request.epoch = (self.streams.borrow()[id].client as u32).into();
        let (me, servers) = (self.me.clone(), self.servers().clone());
        let late = plan.late.unwrap_or_else(|| self.step_length(name, "receives"));
        let late = self.pause_for(node, mix(name, 1), late);
        let task = async move {
            late.await;
            let (response, payload) = match plan.answer {
                Some((result, false)) => (Response::to(&request, 0, result), Vec::new()),
                Some((result, true)) => {
                    if let Some(world) = me.upgrade() {
                        world.lost_lock.set(true);
                    }
                    let (response, _) = servers.serve(node, request, payload).await;
                    (Response::to(&request, response.epoch.get(), result), Vec::new())
                }
                None => servers.serve(node, request, payload).await,
            };
            if !plan.slow.is_zero()
                && let Some(world) = me.upgrade()
            {
                let pause = world.pause_for(node, mix(name, 2), plan.slow);
                drop(world);
                pause.await;
            }
            if let Some(world) = me.upgrade() {
                world.over(number);
                world.answer(id, name, response, payload, plan.cut == Some(When::AfterExecuted));
            }
        };
        self.spawn(node, name, Some(Rc::new(origin)), Box::pin(task));
    }

    fn answer(&self, id: StreamId, name: u64, mut response: Response, payload: Vec<u8>, cut: bool) {
        response.data_length = (payload.len() as u32).into();
        let is_lock = response.opcode == op::LOCK_VDI;
        let mut streams = self.streams.borrow_mut();
        let stream = &mut streams[id];
        stream.executing -= 1;
        if is_lock && (cut || stream.server != Server::Open) {
            self.lost_lock.set(true);
        }
        self.trace(|| {
            let result = response.result().name().unwrap_or("another result");
            let (node, client) = (stream.node, stream.client);
            let opcode = op::name(response.opcode);
            let closed = matches!(stream.state, State::Closed);
            let lost = if cut || closed || stream.server != Server::Open { " (lost)" } else { "" };
            format!("client {client} <- node {node} #{id}: {opcode}: {result}{lost}")
        });
        self.stir(mix(mix_bytes(name, &payload), response.result.get().into()));
        match stream.server {
            Server::Open if cut => self.cut(id, stream),
            Server::Open => {
                let tamper = self.tamper.borrow().clone();
                match tamper {
                    Some(tamper) => self.say(id, stream, tamper.answer(response, payload)),
                    None => self.reply(id, stream, name, &response, payload),
                }
                self.end_if_done(id, stream);
            }
            Server::Mute if stream.executing == 0 => self.end(id, stream, None),
            Server::Mute | Server::Closed => {}
        }
    }

    /// Sends what is no answer, or not only.
    fn say(&self, id: StreamId, stream: &mut Stream, all: Vec<(Duration, Said)>) {
        let mut delay = Duration::ZERO;
        for (after, said) in all {
            delay += after;
            match said {
                Said::Bytes(bytes) if !bytes.is_empty() => {
                    let range = 0..bytes.len();
                    let piece = Piece { bytes: Rc::new(bytes), range };
                    self.push(id, stream, Coming::Piece(piece), delay);
                }
                Said::Bytes(_) => {}
                Said::End(kind) => return self.end(id, stream, kind),
            }
        }
    }

    /// Sends an answer in some pieces.
    fn reply(
        &self,
        id: StreamId,
        stream: &mut Stream,
        name: u64,
        response: &Response,
        payload: Vec<u8>,
    ) {
        const SMALL: usize = 16 << 10;
        let mut head = response.as_bytes().to_vec();
        let mut parts = Vec::with_capacity(2);
        if payload.len() <= SMALL {
            head.extend_from_slice(&payload);
            parts.push(head);
        } else {
            parts.extend([head, payload]);
        }
        let mut delay = Duration::ZERO;
        for (at, bytes) in parts.into_iter().enumerate() {
            let name = mix(name, at as u64);
            let h = draw::number(self.seed, name, "is cut");
            let len = bytes.len();
            let cut = if h & 1 == 0 { 0 } else { (h >> 1) as usize % len };
            let bytes = Rc::new(bytes);
            for range in [0..cut, cut..len] {
                if !range.is_empty() {
                    let name = mix(name, range.start as u64);
                    delay += self.draw(name, "to the client", self.delays.network);
                    let piece = Piece { bytes: bytes.clone(), range };
                    self.push(id, stream, Coming::Piece(piece), delay);
                }
            }
        }
    }

    /// A task for a request of that connection runs.
    pub(super) fn note_outlived(&self, id: StreamId) {
        let stream = &self.streams.borrow()[id];
        if let Some(seen) = stream.end_seen
            && self.now() > seen + OUTLIVE
            && self.outlived.borrow().is_none()
        {
            let (client, node) = (stream.client, stream.node);
            let what = format!("a request of client {client} to node {node} outlived #{id}");
            self.trace(|| what.clone());
            *self.outlived.borrow_mut() = Some(what);
        }
    }
}

/// The request that `bytes` begin with, where it is whole, and its payload.
fn first_request(bytes: &[u8]) -> Option<(Request, &[u8])> {
    let (request, rest) = Request::read_from_prefix(bytes).ok()?;
    Some((request, rest.get(..request.payload_len() as usize)?))
}

/// A request in a few words.
fn text(request: &Request) -> String {
    let name = op::name(request.opcode);
    let len = request.data_length.get();
    match request.opcode {
        op::CREATE_AND_WRITE_OBJ
        | op::READ_OBJ
        | op::WRITE_OBJ
        | op::REMOVE_OBJ
        | op::DISCARD_OBJ => {
            let arm = request.obj();
            let cow = match request.flags.get() & op::FLAG_COW {
                0 => String::new(),
                _ => format!(" from {}", Oid(arm.cow_oid.get())),
            };
            format!("{name} {}{cow} at {} of {len}", Oid(arm.oid.get()), arm.offset.get())
        }
        _ => {
            let arm = request.vdi();
            let (size, base, snapid) =
                (arm.vdi_size.get(), arm.base_vdi_id.get(), arm.snapid.get());
            format!("{name} size {size} vid {base:06x} snapid {snapid}")
        }
    }
}
