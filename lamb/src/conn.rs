//! One connection: frames in, requests to their execution, frames out.
//!
//! A connection is served by a thread of the crew while its peer has something to say, and by none
//! while it waits: for the peer, for memory, for requests of its own (see [`Wait`]). So neither the
//! number of connections nor what a peer does or leaves undone takes threads from others.
//!
//! A client that waits for each answer is served by that thread, with one receive and one send per
//! request. What a client pipelines goes to the [`Pool`] where it may have to wait for a disk, so
//! that it is executed side by side; but a request never overtakes an earlier one of its connection
//! that concerns the same bytes, as it would on the real server (0.5).
//!
//! A peer that does not read its answers is not read from.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{self, FLAG_COW};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{MAX_DATA_OBJECTS, Oid, Request};

use crate::budget::{Account, Charge, POCKET};
use crate::buf::{Buf, SMALL};
use crate::lock;
use crate::object::Part;
use crate::outbox::{Frame, Outbox, Sent};
use crate::request::{Peer, Progress, Wish, room};
use crate::server::Shared;
use crate::store::{Data, Spool};

/// Requests of one connection that run at a time.
const MAX_RUNNING: usize = 128;
/// Bytes from which on the answer to a READ is sent piece by piece.
const STREAM_FROM: usize = 4 << 20;
/// Bytes of such a piece, and of those in which the largest payloads are received.
const PIECE: usize = 1 << 20;
/// Bytes from which on a payload is received into a file: more than any that is not an object's.
const SPOOL_FROM: usize = 16 << 20;
/// Bytes that a request takes besides its payload and its answer.
const OVERHEAD: usize = 512;
/// Bytes of answers that the crew leaves to others to send before it waits for them.
const MAX_UNSENT: usize = 4 * SMALL;
/// Requests that must find the connection idle before its thread executes slow ones itself again.
const PATIENCE: u8 = 8;

pub struct Connection {
    pub id: u64,
    socket: OwnedFd,
    peer: Peer,
    shared: Arc<Shared>,
    account: Arc<Account>,
    outbox: Outbox,
    traffic: Mutex<Traffic>,
    /// Whoever serves the connection has it.
    reader: Mutex<Reader>,
    /// When bytes last went either way: [`Shared::clock`].
    moved: AtomicU32,
}

#[derive(Default)]
struct Traffic {
    running: Vec<(u64, Claims)>,
    /// Requests that have run, and whose answers are not in the outbox yet.
    finishing: usize,
    next: u64,
    /// Requests that have ended, and answers that are gone.
    ended: u64,
    /// What keeps the connection from being served; None while it is.
    waits: Option<Wait>,
    /// Memory that it waited for.
    granted: Option<Charge>,
}

impl Traffic {
    /// Whether no answer is to come from a request that the pool has had.
    fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.finishing == 0
    }
}

/// What a connection that nobody serves waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// For a request: it is idle.
    Request,
    /// For the rest of one.
    Rest,
    /// For its answers to be sent.
    Output,
    /// For one of its own requests to end, after so many.
    Turn(u64),
    /// For so many bytes of the budget.
    Memory(usize),
    /// For all that has begun, to end then.
    End,
}

/// How a request is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// By the connection's own thread.
    Inline,
    /// The same; it has happened already, since the data was in memory.
    Cached,
    /// Its answer piece by piece, with nothing else running.
    Streamed,
    /// By the pool, while the connection goes on.
    Pooled,
    /// The same, slice by slice, since it takes long.
    Long,
}

/// What a request reads and writes: at most three objects.
type Claims = [Option<Claim>; 3];

#[derive(Clone, PartialEq, Eq, Debug)]
struct Claim {
    oid: u64,
    range: Range<u64>,
    writes: bool,
    /// It makes a request wait for earlier ones, but none wait for it.
    yields: bool,
}

/// A request that the pool executes.
struct Task {
    id: u64,
    request: Request,
    payload: Payload,
    out: Buf,
    progress: Progress,
    charge: Option<Charge>,
}

impl Connection {
    pub fn new(id: u64, socket: OwnedFd, peer: Peer, shared: Arc<Shared>) -> Connection {
        Connection {
            id,
            socket,
            peer,
            account: Account::new(shared.budget.clone()),
            moved: AtomicU32::new(shared.now()),
            shared,
            outbox: Outbox::default(),
            traffic: Mutex::default(),
            reader: Mutex::new(Reader::new()),
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Begins to wait for requests.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        lock(&self.traffic).waits = Some(Wait::Request);
        self.shared.readable.arm(self)
    }

    /// Serves the connection until it has to wait.
    fn serve(self: &Arc<Self>) {
        let mut reader = lock(&self.reader);
        loop {
            let wait = reader.run(self).unwrap_or_else(|err| {
                log::debug!("connection cut: {err}");
                self.cut();
                reader.end();
                Wait::End
            });
            if !self.comes(wait, &mut reader) {
                return;
            }
        }
    }

    /// Whether what the connection is to wait for is here already. If not, it is left to be woken.
    fn comes(self: &Arc<Self>, wait: Wait, reader: &mut Reader) -> bool {
        reader.rest(wait, !self.outbox.is_idle());
        let mut traffic = lock(&self.traffic);
        // From here on it may be woken, as soon as the lock is free.
        traffic.waits = Some(wait);
        let done = |traffic: &Traffic| {
            traffic.is_quiet() && (self.outbox.is_idle() || self.outbox.is_lost())
        };
        let comes = match wait {
            Wait::Output => self.outbox.is_idle() || self.outbox.is_lost(),
            Wait::Turn(ended) => traffic.ended != ended || self.outbox.is_lost(),
            Wait::End => done(&traffic),
            Wait::Request | Wait::Rest | Wait::Memory(_) => false,
        };
        if comes {
            traffic.waits = None;
        }
        drop(traffic);
        match wait {
            Wait::End if comes => {
                self.cut();
                self.shared.remove(self.id, reader.wish);
                return false;
            }
            Wait::Request | Wait::Rest => {
                if let Err(err) = self.shared.readable.arm(self) {
                    log::error!("cannot wait for a peer: {err}");
                    self.cut();
                    self.wake();
                }
            }
            Wait::Memory(bytes) => {
                let conn = self.clone();
                self.account.wait(bytes, move |charge| conn.grant(charge));
            }
            Wait::Output | Wait::Turn(_) | Wait::End => {}
        }
        comes
    }

    /// Has the connection served again, whatever it waits for.
    pub fn wake(self: &Arc<Self>) {
        self.wake_from(&mut lock(&self.traffic), |_| true);
    }

    fn wake_from(self: &Arc<Self>, traffic: &mut Traffic, which: impl FnOnce(Wait) -> bool) {
        if traffic.waits.is_some_and(which) {
            traffic.waits = None;
            let conn = self.clone();
            self.shared.crew.run(self.id, move || conn.serve());
        }
    }

    fn grant(self: &Arc<Self>, charge: Charge) {
        let mut traffic = lock(&self.traffic);
        if matches!(traffic.waits, Some(Wait::Memory(_))) {
            traffic.granted = Some(charge);
            self.wake_from(&mut traffic, |_| true);
        } else {
            // It has ended meanwhile. What is given back may be granted to others, and so to
            // connections whose locks somebody has to wait for.
            drop(traffic);
            drop(charge);
        }
    }

    /// Goes on with what is left to send, now that the socket has room.
    pub fn resume(self: &Arc<Self>) {
        // The peer has read something.
        self.note_moved();
        let sent = self.outbox.resume(&self.socket, &self.shared.spares);
        self.note_sent(sent);
        self.relieve();
    }

    /// Ends the connection from outside, in the given direction.
    pub fn shut(&self, how: Shutdown) {
        let _ = shutdown(&self.socket, how);
    }

    /// Ends the connection at once, whatever is left to send.
    pub fn cut(&self) {
        self.outbox.lose();
        self.shut(Shutdown::Both);
    }

    /// Since when the connection is idle, if it is.
    pub fn idle_since(&self) -> Option<u32> {
        self.is_idle(&lock(&self.traffic)).then(|| self.moved.load(Ordering::Relaxed))
    }

    /// Takes an idle connection out of service; false if it is none any more.
    pub fn retire(&self) -> bool {
        let mut traffic = lock(&self.traffic);
        let idle = self.is_idle(&traffic);
        if idle {
            traffic.waits = None;
        }
        idle
    }

    fn is_idle(&self, traffic: &Traffic) -> bool {
        matches!(traffic.waits, Some(Wait::Request | Wait::Rest)) && self.account.held() == 0
    }

    /// Since when it is the peer's turn to go on, while the connection holds memory that others
    /// may need, and how much.
    pub fn holds_since(&self) -> Option<(u32, usize)> {
        let waits = lock(&self.traffic).waits;
        let stuck = waits == Some(Wait::Rest) || self.outbox.is_stuck();
        let held = self.account.held();
        (stuck && held > 0).then(|| (self.moved.load(Ordering::Relaxed), held))
    }

    fn note_moved(&self) {
        self.moved.store(self.shared.now(), Ordering::Relaxed);
    }

    fn note_sent(self: &Arc<Self>, sent: Sent) {
        match sent {
            Sent::Taken => self.note_moved(),
            Sent::Stuck => {
                if let Err(err) = self.shared.writable.arm(self) {
                    log::error!("cannot wait for a peer: {err}");
                    self.cut();
                    self.wake();
                }
            }
            Sent::Lost => self.shut(Shutdown::Both),
        }
    }

    /// Lets the connection go on where it waited for answers to be gone, and for their memory.
    fn relieve(self: &Arc<Self>) {
        let mut traffic = lock(&self.traffic);
        traffic.ended += 1;
        let which = |wait| matches!(wait, Wait::Output | Wait::Turn(_) | Wait::End);
        self.wake_from(&mut traffic, which);
    }

    /// Whether a request may run now, and is the only one; or what it has to wait for.
    ///
    /// That is the whole of the ordering: the connection is read no further before, and well-behaved
    /// clients never make it wait.
    fn admit(&self, claims: &Claims, alone: bool) -> Result<bool, Wait> {
        let traffic = lock(&self.traffic);
        let conflicts = |(_, other): &(u64, Claims)| conflict(claims, other);
        let n = traffic.running.len();
        let full = if alone { !traffic.is_quiet() } else { n >= MAX_RUNNING };
        if full || traffic.running.iter().any(conflicts) {
            return Err(Wait::Turn(traffic.ended));
        }
        Ok(n == 0)
    }

    /// Memory for `bytes`, or what to wait for.
    fn take(&self, bytes: usize) -> Result<Charge, Wait> {
        let (granted, ended, busy) = {
            let mut traffic = lock(&self.traffic);
            (traffic.granted.take(), traffic.ended, !traffic.is_quiet())
        };
        if let Some(charge) = granted.or_else(|| self.account.take(bytes)) {
            return Ok(charge);
        }
        match busy || !self.outbox.is_idle() {
            true => Err(Wait::Turn(ended)),
            false => Err(Wait::Memory(bytes)),
        }
    }

    /// Lets the pool execute a request.
    fn hand_over(self: &Arc<Self>, mut task: Task, claims: Claims, way: Way) {
        {
            let mut traffic = lock(&self.traffic);
            traffic.next += 1;
            task.id = traffic.next;
            traffic.running.push((task.id, claims));
        }
        let conn = self.clone();
        match way {
            Way::Long => self.shared.pool.run_long(self.id, move || conn.execute_slice(task)),
            _ => self.shared.pool.run(self.id, move || conn.execute(task)),
        }
    }

    fn execute(self: &Arc<Self>, mut task: Task) {
        let shared = &self.shared;
        if room(&task.request) > SMALL {
            task.out = shared.spares.take(room(&task.request).min(STREAM_FROM) + HEADER_LEN);
        }
        if let Some(mimic) = &shared.cluster.mimic {
            mimic.dawdle(&task.request);
        }
        let data = task.payload.data(None);
        shared.cluster.execute(&task.request, data, self.peer, &mut task.out);
        self.finish(task);
    }

    /// Executes a part of a request, and sees to the rest when others have had their turns.
    fn execute_slice(self: &Arc<Self>, mut task: Task) {
        let shared = &self.shared;
        if shared.is_ending() {
            self.cut();
            return self.finish(task);
        }
        let Task { request, payload, progress, out, .. } = &mut task;
        let data = payload.data(None);
        if shared.cluster.execute_slice(request, data, self.peer, progress, out) {
            return self.finish(task);
        }
        let conn = self.clone();
        shared.pool.run_long(self.id, move || conn.execute_slice(task));
    }

    /// Sends the answer to a request that the pool has executed.
    fn finish(self: &Arc<Self>, task: Task) {
        {
            let mut traffic = lock(&self.traffic);
            traffic.running.retain(|(other, _)| *other != task.id);
            traffic.finishing += 1;
            traffic.ended += 1;
            self.wake_from(&mut traffic, |wait| matches!(wait, Wait::Turn(_)));
        }
        task.payload.recycle(&self.shared);
        let frame = Frame::new(task.out, task.charge);
        let sent = self.outbox.send(&self.socket, frame, &self.shared.spares);
        self.note_sent(sent);
        lock(&self.traffic).finishing -= 1;
        self.relieve();
    }

    /// Sends what this connection's own thread has to say.
    fn flush(self: &Arc<Self>, out: &mut Buf) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let sent = self.outbox.flush(&self.socket, out, &self.shared.spares);
        self.note_sent(sent);
        if sent == Sent::Lost { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

/// What serves a connection: receives requests, and executes those that need not wait.
struct Reader {
    input: Input,
    /// Answers that were made here and are not sent yet.
    out: Buf,
    /// For these two.
    pocket: Option<Charge>,
    pace: Pace,
    stage: Stage,
    wish: Wish,
}

/// How far the present request is.
enum Stage {
    Header,
    Payload(Request, Arrival),
    Ready(Request, Payload, Option<Charge>),
    /// The part of an object that is still to be sent.
    Stream(Part, Option<Charge>),
    End,
}

/// A payload that has yet to arrive.
enum Arrival {
    /// Into the input, or nothing of it yet.
    Begins,
    Memory(Buf, Charge),
    File(Spool, Buf, Charge),
}

/// The payload of a request that has arrived.
enum Payload {
    /// So many bytes at the start of the input.
    Small(usize),
    Large(Buf),
    File(Spool),
}

impl Payload {
    /// Bytes that are still part of the input.
    fn buffered(&self) -> usize {
        match self {
            Payload::Small(len) => *len,
            Payload::Large(_) | Payload::File(_) => 0,
        }
    }

    fn data<'a>(&'a self, input: Option<&'a Input>) -> Data<'a> {
        match self {
            Payload::Small(len) => Data::Bytes(input.map(|i| i.peek(*len)).unwrap_or_default()),
            Payload::Large(buf) => Data::Bytes(buf),
            Payload::File(spool) => Data::File(spool),
        }
    }

    fn recycle(self, shared: &Shared) {
        if let Payload::Large(buf) = self
            && buf.len() > SMALL
        {
            shared.spares.give(buf);
        }
    }
}

/// Tells clients that wait for each answer from those that pipeline.
#[derive(Default)]
struct Pace {
    /// Above 0: the client pipelines.
    eager: u8,
    /// The last request was executed here and took its time: others may have come meanwhile.
    probe: bool,
}

impl Pace {
    /// Notes a request; true if it can be executed here without holding up others.
    fn is_alone(&mut self, idle: bool, more: bool) -> bool {
        if more {
            self.eager = PATIENCE;
        } else if idle {
            self.eager = self.eager.saturating_sub(1);
        }
        idle && !more && self.eager == 0
    }
}

/// What came of receiving.
enum Came {
    Bytes,
    End,
    Wait(Wait),
}

impl Reader {
    fn new() -> Reader {
        Reader {
            input: Input::default(),
            out: Buf::default(),
            pocket: None,
            pace: Pace::default(),
            stage: Stage::Header,
            wish: Wish::Nothing,
        }
    }

    fn end(&mut self) {
        self.stage = Stage::End;
        self.input = Input::default();
        self.out = Buf::default();
    }

    /// Gives back what is not needed while the connection waits.
    fn rest(&mut self, wait: Wait, unsent: bool) {
        match wait {
            Wait::Request | Wait::Rest | Wait::End => {
                self.input.shrink();
                self.out = Buf::default();
                // What has arrived of a header is next to nothing.
                if self.input.len() < HEADER_LEN && !unsent {
                    self.pocket = None;
                }
            }
            Wait::Output | Wait::Turn(_) | Wait::Memory(_) => {}
        }
    }

    /// Goes on until there is something to wait for.
    fn run(&mut self, conn: &Arc<Connection>) -> io::Result<Wait> {
        loop {
            if conn.outbox.is_lost() {
                self.end();
            }
            if self.pocket.is_none() && !matches!(self.stage, Stage::End) {
                match conn.take(POCKET) {
                    Ok(charge) => self.pocket = Some(charge),
                    Err(wait) => return Ok(wait),
                }
            }
            let waits = match std::mem::replace(&mut self.stage, Stage::End) {
                Stage::Header => self.header(conn)?,
                Stage::Payload(request, arrival) => self.payload(conn, request, arrival)?,
                Stage::Ready(request, payload, charge) => {
                    self.execute(conn, request, payload, charge)?
                }
                Stage::Stream(part, charge) => self.stream(conn, part, charge)?,
                Stage::End => {
                    if !conn.outbox.is_lost() {
                        conn.flush(&mut self.out)?;
                    }
                    return Ok(Wait::End);
                }
            };
            if let Some(wait) = waits {
                return Ok(wait);
            }
        }
    }

    /// Receives more, for `stage` to go on; says what to wait for where nothing has come.
    fn receive(
        &mut self,
        conn: &Arc<Connection>,
        into: Option<(&mut Buf, usize)>,
    ) -> io::Result<Came> {
        conn.flush(&mut self.out)?;
        if conn.outbox.is_full(MAX_UNSENT) {
            return Ok(Came::Wait(Wait::Output));
        }
        // Where others wait to be served, this thread must not wait for a peer that may be idle.
        let flags = match conn.shared.crew.is_pressed() {
            true => RecvFlags::DONTWAIT,
            false => RecvFlags::empty(),
        };
        let received = match into {
            None => self.input.fill(&conn.socket, flags)?,
            // Grown only as bytes arrive.
            Some((buf, len)) => {
                let have = buf.len();
                let room = buf.grow((len - have).min(have.max(SMALL)));
                let n = receive(&conn.socket, room, flags)?;
                buf.truncate(have + n.unwrap_or(0));
                n
            }
        };
        match received {
            Some(0) => Ok(Came::End),
            Some(_) => {
                conn.note_moved();
                Ok(Came::Bytes)
            }
            None => Ok(Came::Wait(Wait::Rest)),
        }
    }

    /// Goes on to the next request.
    fn header(&mut self, conn: &Arc<Connection>) -> io::Result<Option<Wait>> {
        if std::mem::take(&mut self.pace.probe) && self.input.len() < HEADER_LEN {
            match self.input.fill(&conn.socket, RecvFlags::DONTWAIT)? {
                Some(n) if n > 0 => self.pace.eager = PATIENCE,
                _ => {}
            }
        }
        while self.input.len() < HEADER_LEN {
            match self.receive(conn, None)? {
                Came::Bytes => {}
                Came::End => return Ok(None),
                Came::Wait(wait) => {
                    self.stage = Stage::Header;
                    let idle = wait == Wait::Rest && self.input.len() == 0;
                    return Ok(Some(if idle { Wait::Request } else { wait }));
                }
            }
        }
        if let Some(request) = self.input.take_header() {
            let len = request.payload_len() as usize;
            if len > conn.shared.cluster.max_payload() {
                let text = format!("{} with a payload of {len} bytes", op::name(request.opcode));
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            self.stage = match len <= self.input.len() {
                true => Stage::Ready(request, Payload::Small(len), None),
                false => Stage::Payload(request, Arrival::Begins),
            };
        }
        Ok(None)
    }

    /// Receives the payload of a request.
    fn payload(
        &mut self,
        conn: &Arc<Connection>,
        request: Request,
        arrival: Arrival,
    ) -> io::Result<Option<Wait>> {
        let len = request.payload_len() as usize;
        let mut arrival = arrival;
        loop {
            let came = match &mut arrival {
                Arrival::Begins if self.input.len() < len.min(SMALL / 2) || len <= SMALL => {
                    if self.input.len() >= len {
                        self.stage = Stage::Ready(request, Payload::Small(len), None);
                        return Ok(None);
                    }
                    self.receive(conn, None)?
                }
                // Memory is for peers that have sent something to put there.
                Arrival::Begins => {
                    let need = if len > SPOOL_FROM { PIECE } else { len };
                    match conn.take(need + answer_cost(&request)) {
                        Err(wait) => Came::Wait(wait),
                        Ok(charge) => {
                            let buf = conn.shared.spares.take(need);
                            arrival = match len > SPOOL_FROM {
                                true => {
                                    Arrival::File(conn.shared.cluster.store.spool(), buf, charge)
                                }
                                false => Arrival::Memory(buf, charge),
                            };
                            Came::Bytes
                        }
                    }
                }
                Arrival::Memory(buf, _) => {
                    if self.input.move_to(buf, len) {
                        let (buf, charge) = match arrival {
                            Arrival::Memory(buf, charge) => (buf, charge),
                            _ => return Ok(None),
                        };
                        self.stage = Stage::Ready(request, Payload::Large(buf), Some(charge));
                        return Ok(None);
                    }
                    self.receive(conn, Some((buf, len)))?
                }
                Arrival::File(spool, buf, _) => {
                    let left = len - spool.len() as usize;
                    if self.input.move_to(buf, left.min(PIECE)) {
                        spool.append(buf);
                        buf.clear();
                        if spool.len() as usize == len {
                            let Arrival::File(spool, buf, charge) = arrival else {
                                return Ok(None);
                            };
                            conn.shared.spares.give(buf);
                            self.stage = Stage::Ready(request, Payload::File(spool), Some(charge));
                            return Ok(None);
                        }
                        continue;
                    }
                    self.receive(conn, Some((buf, left.min(PIECE))))?
                }
            };
            match came {
                Came::Bytes => {}
                Came::End => return Err(ErrorKind::UnexpectedEof.into()),
                Came::Wait(wait) => {
                    self.stage = Stage::Payload(request, arrival);
                    return Ok(Some(wait));
                }
            }
        }
    }

    /// Executes a request here, or sees to it that the pool does.
    fn execute(
        &mut self,
        conn: &Arc<Connection>,
        request: Request,
        payload: Payload,
        mut charge: Option<Charge>,
    ) -> io::Result<Option<Wait>> {
        let shared = &conn.shared;
        let cluster = &shared.cluster;
        let mimic = cluster.mimic.is_some();
        let claims = claims(&request, !mimic);
        let streamed = request.opcode == op::READ_OBJ && room(&request) > STREAM_FROM;
        let buffered = payload.buffered();
        let more = self.input.len() > buffered;
        let idle = match conn.admit(&claims, streamed) {
            Ok(idle) => idle,
            Err(wait) => return self.put_off(conn, request, payload, charge, wait),
        };
        let ends = matches!(request.opcode, op::SHUTDOWN | op::KILL_NODE);
        let mut alone = self.pace.is_alone(idle, more) && !mimic;
        let mut way = match () {
            () if streamed => Way::Streamed,
            () if cluster.is_long(&request) => Way::Long,
            () if alone || ends || cluster.is_quick(&request) => Way::Inline,
            () if cluster.read_cached(&request, &mut self.out) => Way::Cached,
            () => Way::Pooled,
        };
        alone &= way == Way::Inline;
        let small = payload.buffered() + room(&request) <= SMALL;
        let charged = match way {
            Way::Cached => false,
            Way::Inline => !small,
            Way::Streamed | Way::Pooled | Way::Long => true,
        };
        if charged && charge.is_none() {
            let answer = if streamed { PIECE } else { answer_cost(&request) };
            match conn.take(buffered + answer) {
                Ok(taken) => charge = Some(taken),
                // With nothing else to wait for, what is small finds room in the pocket.
                Err(Wait::Memory(_)) if small && way == Way::Pooled => way = Way::Inline,
                Err(wait) => return self.put_off(conn, request, payload, charge, wait),
            }
        }
        match way {
            Way::Cached => {}
            Way::Inline => {
                let data = payload.data(Some(&self.input));
                self.wish = cluster.execute(&request, data, conn.peer, &mut self.out);
                self.pace.probe = alone && cluster.may_wait(&request);
            }
            Way::Streamed => {
                let part = cluster.begin_stream(&request, &mut self.out);
                conn.flush(&mut self.out)?;
                self.input.skip(buffered);
                self.stage = part.map_or(Stage::Header, |part| Stage::Stream(part, charge));
                return Ok(None);
            }
            Way::Pooled | Way::Long => {
                let payload = match payload {
                    Payload::Small(len) => Payload::Large(Buf::from(self.input.peek(len))),
                    payload => payload,
                };
                let (out, progress) = (Buf::default(), Progress::default());
                let task = Task { id: 0, request, payload, out, progress, charge };
                conn.hand_over(task, claims, way);
                self.input.skip(buffered);
                self.stage = Stage::Header;
                return Ok(None);
            }
        }
        self.input.skip(buffered);
        payload.recycle(shared);
        self.stage = if self.wish == Wish::Stop { Stage::End } else { Stage::Header };
        if self.out.len() > SMALL || ends {
            let frame = Frame::new(std::mem::take(&mut self.out), charge);
            let sent = conn.outbox.send(&conn.socket, frame, &shared.spares);
            conn.note_sent(sent);
        }
        Ok(None)
    }

    /// Lets a request wait, after what came before it is answered.
    fn put_off(
        &mut self,
        conn: &Arc<Connection>,
        request: Request,
        payload: Payload,
        charge: Option<Charge>,
        wait: Wait,
    ) -> io::Result<Option<Wait>> {
        self.stage = Stage::Ready(request, payload, charge);
        conn.flush(&mut self.out)?;
        Ok(Some(wait))
    }

    /// Sends one more piece of an object.
    fn stream(
        &mut self,
        conn: &Arc<Connection>,
        mut part: Part,
        charge: Option<Charge>,
    ) -> io::Result<Option<Wait>> {
        if !conn.outbox.is_idle() {
            self.stage = Stage::Stream(part, charge);
            return Ok(Some(Wait::Output));
        }
        if part.len == 0 {
            self.stage = Stage::Header;
            return Ok(None);
        }
        let len = PIECE.min(part.len);
        let mut out = conn.shared.spares.take(len);
        // The header promised the data: if the disk fails now, all that is left is to cut.
        part.object.read(out.grow(len), part.offset)?;
        part.offset += len as u64;
        part.len -= len;
        self.stage = Stage::Stream(part, charge);
        let frame = Frame::new(out, None);
        let sent = conn.outbox.send(&conn.socket, frame, &conn.shared.spares);
        conn.note_sent(sent);
        Ok(None)
    }
}

/// Bytes of the budget that a request takes besides its payload.
fn answer_cost(request: &Request) -> usize {
    room(request).min(STREAM_FROM) + OVERHEAD
}

/// The bytes received and not yet consumed.
#[derive(Default)]
struct Input {
    /// Grows to [`SMALL`] when it is used.
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Input {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn peek(&self, n: usize) -> &[u8] {
        self.bytes.get(self.range.start..self.range.start + n).unwrap_or_default()
    }

    fn skip(&mut self, n: usize) {
        self.range.start = (self.range.start + n).min(self.range.end);
    }

    fn take_header(&mut self) -> Option<Request> {
        let request = Request::read_from_bytes(self.peek(HEADER_LEN)).ok()?;
        self.skip(HEADER_LEN);
        Some(request)
    }

    /// Receives more; None where that would have to wait and `flags` forbid it, 0 at the end.
    fn fill(&mut self, socket: &OwnedFd, flags: RecvFlags) -> io::Result<Option<usize>> {
        if self.range.is_empty() {
            self.range = 0..0;
        } else if self.range.start > 0 {
            self.bytes.copy_within(self.range.clone(), 0);
            self.range = 0..self.range.len();
        }
        if self.bytes.len() < SMALL {
            self.bytes.resize(SMALL, 0);
        }
        let room = self.bytes.get_mut(self.range.end..).unwrap_or_default();
        let n = receive(socket, room, flags)?;
        self.range.end += n.unwrap_or(0);
        Ok(n)
    }

    /// Moves what there is of `len` bytes to `buf`; true if it holds all of them then.
    fn move_to(&mut self, buf: &mut Buf, len: usize) -> bool {
        let n = self.len().min(len - buf.len());
        buf.push(self.peek(n));
        self.skip(n);
        buf.len() == len
    }

    /// Keeps only as much memory as there are bytes.
    fn shrink(&mut self) {
        self.bytes = self.peek(self.len()).to_vec();
        self.range = 0..self.bytes.len();
    }
}

fn receive(socket: &OwnedFd, room: &mut [u8], flags: RecvFlags) -> io::Result<Option<usize>> {
    loop {
        match recv(socket, &mut *room, flags) {
            Ok((n, _)) => return Ok(Some(n)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(err) => return Err(err.into()),
        }
    }
}

/// What a request reads and writes, as far as the order of requests depends on it: that of cluster
/// operations always, that of operations on objects if `objects_too`.
fn claims(request: &Request, objects_too: bool) -> Claims {
    const ALL: Range<u64> = 0..u64::MAX;
    let arm = request.obj();
    let start = u64::from(arm.offset.get());
    let part = start..start + u64::from(request.data_length.get());
    let claim = |oid: u64, range, writes| {
        objects_too.then_some(Claim { oid, range, writes, yields: false })
    };
    let oid = arm.oid.get();
    // Where the VDI's map says whether there is the object: nothing is created there before what
    // the map named has been given up.
    let entry = |writes| {
        let oid = Oid(oid);
        let data = oid.kind() == Some(OidKind::Data) && oid.index() < MAX_DATA_OBJECTS;
        let at = data.then(|| u64::from(map_entry_offset(oid.index())))?;
        let claim = claim(oid.vid().inode().0, at..at + 4, writes)?;
        Some(Claim { yields: !writes, ..claim })
    };
    match request.opcode {
        op::READ_OBJ => [claim(oid, part, false), None, None],
        op::WRITE_OBJ => [claim(oid, part, true), None, None],
        op::CREATE_AND_WRITE_OBJ if request.flags.get() & FLAG_COW != 0 => {
            [claim(oid, ALL, true), claim(arm.cow_oid.get(), ALL, false), entry(false)]
        }
        op::CREATE_AND_WRITE_OBJ | op::REMOVE_OBJ => [claim(oid, ALL, true), entry(false), None],
        op::DISCARD_OBJ => [claim(oid, ALL, true), entry(true), None],
        // Serialised with each other by the cluster, in arrival order by this (0.5).
        op::NEW_VDI..=op::GET_VDI_INFO | op::DEL_VDI | op::GET_VDI_ATTR | op::NOTIFY_VDI_ADD => {
            [Some(Claim { oid: 0, range: ALL, writes: true, yields: false }), None, None]
        }
        _ => [None, None, None],
    }
}

/// Whether a request has to wait for an earlier one.
fn conflict(later: &Claims, earlier: &Claims) -> bool {
    let overlap = |a: &Claim, b: &Claim| {
        a.oid == b.oid
            && !b.yields
            && (a.writes || b.writes)
            && a.range.start < b.range.end
            && b.range.start < a.range.end
    };
    later.iter().flatten().any(|a| earlier.iter().flatten().any(|b| overlap(a, b)))
}

#[cfg(test)]
mod tests {
    use sheepdog_proto::Vid;
    use sheepdog_proto::header::ObjArm;

    use super::*;

    fn request(opcode: u8, flags: u16, oid: Oid, cow_oid: Oid, offset: u32, len: u32) -> Claims {
        let arm = ObjArm {
            oid: oid.0.into(),
            cow_oid: cow_oid.0.into(),
            offset: offset.into(),
            ..ObjArm::default()
        };
        claims(&Request::new(opcode, flags, arm).with_length(len), true)
    }

    #[test]
    fn only_what_concerns_the_same_bytes_keeps_its_order() {
        let vid = Vid::new(7).unwrap();
        let (a, b, none) = (vid.data(1), vid.data(2), Oid(0));
        let read = |oid, at, len| request(op::READ_OBJ, 0, oid, none, at, len);
        let write = |oid, at, len| request(op::WRITE_OBJ, 0, oid, none, at, len);
        let create = |oid| request(op::CREATE_AND_WRITE_OBJ, 0, oid, none, 0, 1);
        let copy = |oid, from| request(op::CREATE_AND_WRITE_OBJ, FLAG_COW, oid, from, 0, 1);
        let discard = |oid| request(op::DISCARD_OBJ, 0, oid, none, 0, 0);
        let cluster = |opcode| request(opcode, 0, none, none, 0, 256);
        for (first, second, expected) in [
            (read(a, 0, 100), read(a, 0, 100), false),
            (read(a, 0, 100), write(a, 99, 1), true),
            (read(a, 0, 100), write(a, 100, 1), false),
            (read(a, 0, 100), write(b, 0, 100), false),
            (write(a, 0, u32::MAX), write(a, u32::MAX - 1, 9), true),
            (create(a), read(a, 1 << 21, 1), true),
            (create(a), create(b), false),
            (copy(a, b), write(b, 77, 1), true),
            (copy(a, b), read(b, 77, 1), false),
            (discard(a), create(a), true),
            (discard(a), write(vid.inode(), 4668, 4), true),
            (discard(a), read(b, 0, 1), false),
            (discard(a), write(vid.inode(), 0, 4668), false),
            (write(vid.inode(), 4664, 8), create(b), false),
            (write(vid.inode(), 4664, 8), write(a, 0, 1), false),
            (cluster(op::NEW_VDI), cluster(op::GET_VDI_INFO), true),
            (cluster(op::LOCK_VDI), cluster(op::GET_VDI_ATTR), true),
            (cluster(op::NEW_VDI), cluster(op::READ_VDIS), false),
        ] {
            assert_eq!(conflict(&first, &second), expected, "{first:?} {second:?}");
            assert_eq!(conflict(&second, &first), expected, "{second:?} {first:?}");
        }
        // Nothing is created before what was there is given up; the map may be told before.
        assert!(conflict(&create(a), &write(vid.inode(), 4664, 8)));
        assert!(!conflict(&write(vid.inode(), 4664, 8), &create(a)));
    }

    #[test]
    fn a_client_that_waits_is_told_from_one_that_pipelines() {
        let mut pace = Pace::default();
        assert!(pace.is_alone(true, false), "at first");
        assert!(!pace.is_alone(true, true), "another request is here already");
        assert!(!pace.is_alone(false, false), "another one is running");
        for _ in 1..PATIENCE {
            assert!(!pace.is_alone(true, false), "it may pipeline still");
        }
        assert!(pace.is_alone(true, false));
    }
}
