//! One connection: frames in, requests to their execution, frames out.
//!
//! A client that waits for each answer is served by the connection's own thread, with one receive
//! and one send per request. What a client pipelines goes to the [`Pool`] where it may have to wait
//! for a disk, so that it is executed side by side; but a request never overtakes an earlier one
//! of its connection that concerns the same bytes, as it would on the real server (0.5).
//!
//! Nothing that a peer does holds up others: only the connection's own threads wait for it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::op::{self, FLAG_COW};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{Oid, Request};

use crate::buf::{Buf, SMALL, Spares};
use crate::cluster::Cluster;
use crate::lock;
use crate::pool::Pool;
use crate::request::{Peer, Wish, room};

/// Requests of one connection that run at a time.
const MAX_RUNNING: usize = 128;
/// Bytes of payload, in both directions, that the requests of one connection hold at a time.
const MAX_BYTES: usize = 32 << 20;
/// Bytes from which on the answer to a READ is sent piece by piece.
const STREAM_FROM: usize = 4 << 20;
/// Bytes of such a piece.
const PIECE: usize = 1 << 20;
/// Requests that must find the connection idle before its thread executes slow ones itself again.
const PATIENCE: u8 = 8;

/// What connections share.
pub struct Shared {
    pub cluster: Cluster,
    pub pool: Pool,
    pub spares: Spares,
}

pub struct Connection {
    socket: OwnedFd,
    peer: Peer,
    shared: Arc<Shared>,
    traffic: Mutex<Traffic>,
    changed: Condvar,
}

#[derive(Default)]
struct Traffic {
    running: Vec<(u64, Claims)>,
    next: u64,
    /// Of requests that are running or whose answer is not sent.
    bytes: usize,
    answers: VecDeque<Frame>,
    /// Somebody is sending; whoever it is goes on until `answers` is empty.
    sending: bool,
    closed: bool,
    /// Threads that wait for a change of any of this; mostly there are none to wake.
    waiting: usize,
}

/// An answer on its way.
struct Frame {
    buf: Buf,
    sent: usize,
    /// To be taken off `Traffic::bytes`.
    cost: usize,
}

/// What a request reads and writes: at most two objects.
type Claims = [Option<Claim>; 2];

#[derive(Clone, PartialEq, Eq, Debug)]
struct Claim {
    oid: u64,
    range: Range<u64>,
    writes: bool,
}

impl Connection {
    pub fn new(socket: OwnedFd, peer: Peer, shared: Arc<Shared>) -> Connection {
        let (traffic, changed) = (Mutex::default(), Condvar::new());
        Connection { socket, peer, shared, traffic, changed }
    }

    /// Serves the connection until its end. True if the client wants the server to end, too.
    pub fn serve(self: &Arc<Self>) -> bool {
        let end = Reader::new(self).run();
        if let Err(err) = &end {
            log::debug!("connection cut: {err}");
            self.shut(Shutdown::Both);
        }
        // Requests that arrived are executed and answered, however the connection ends (0.2).
        let mut traffic = lock(&self.traffic);
        while !traffic.running.is_empty() || traffic.sending {
            traffic = self.wait(traffic);
        }
        drop(traffic);
        self.shut(Shutdown::Both);
        matches!(end, Ok(Wish::Stop))
    }

    /// Ends the connection from outside, in the given direction.
    pub fn shut(&self, how: Shutdown) {
        let _ = shutdown(&self.socket, how);
    }

    /// Waits until a request may run; returns whether no other one is running.
    ///
    /// That is the whole of the ordering: this thread reads no further before, and well-behaved
    /// clients never make it wait.
    fn admit(&self, claims: &Claims, cost: usize, out: &mut Buf) -> io::Result<bool> {
        let may_run = |traffic: &Traffic| {
            let conflicts = |(_, other): &(u64, Claims)| conflict(claims, other);
            !traffic.running.iter().any(conflicts)
                && traffic.running.len() < MAX_RUNNING
                && (traffic.bytes == 0 || traffic.bytes + cost <= MAX_BYTES)
                || traffic.closed
        };
        let traffic = lock(&self.traffic);
        if may_run(&traffic) {
            return Ok(traffic.running.is_empty());
        }
        drop(traffic);
        self.flush(out)?;
        let mut traffic = lock(&self.traffic);
        while !may_run(&traffic) {
            traffic = self.wait(traffic);
        }
        Ok(traffic.running.is_empty())
    }

    /// Lets the pool execute a request.
    fn hand_over(self: &Arc<Self>, request: Request, payload: Buf, claims: Claims, cost: usize) {
        let id = {
            let mut traffic = lock(&self.traffic);
            traffic.next += 1;
            traffic.bytes += cost;
            let id = traffic.next;
            traffic.running.push((id, claims));
            id
        };
        let conn = self.clone();
        self.shared.pool.run(move || {
            let spares = &conn.shared.spares;
            let mut buf = if room(&request) > SMALL { spares.take() } else { Buf::default() };
            if let Some(mimic) = &conn.shared.cluster.mimic {
                mimic.dawdle(&request);
            }
            conn.shared.cluster.execute(&request, &payload, conn.peer, &mut buf);
            if payload.len() > SMALL {
                spares.give(payload);
            }
            conn.finish(id, Frame { buf, sent: 0, cost });
        });
    }

    /// Sends the answer to a request that the pool has executed, without waiting for the client.
    fn finish(self: &Arc<Self>, id: u64, mut frame: Frame) {
        {
            let mut traffic = lock(&self.traffic);
            traffic.running.retain(|(other, _)| *other != id);
            self.wake(&traffic);
            if traffic.closed {
                traffic.bytes -= frame.cost;
                return;
            }
            if traffic.sending {
                traffic.answers.push_back(frame);
                return;
            }
            traffic.sending = true;
        }
        loop {
            match self.send(&mut frame, SendFlags::DONTWAIT) {
                Ok(()) => {}
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) => self.close(&err),
            }
            match self.next_frame(frame) {
                Some(next) => frame = next,
                None => return,
            }
        }
        // The client does not read as fast as we answer: a thread of its own waits for it.
        lock(&self.traffic).answers.push_front(frame);
        let conn = self.clone();
        let thread = thread::Builder::new().name("lamb-sender".into()).spawn(move || conn.drain());
        if let Err(err) = thread {
            log::warn!("no thread to send from: {err}");
            self.drain();
        }
    }

    /// Sends what is left to send, waiting for the client. The caller has the turn to send.
    fn drain(&self) {
        let mut last = Frame { buf: Buf::default(), sent: 0, cost: 0 };
        while let Some(mut frame) = self.next_frame(last) {
            if let Err(err) = self.send(&mut frame, SendFlags::empty()) {
                self.close(&err);
            }
            last = frame;
        }
    }

    /// Takes the next answer to send; None ends the caller's turn.
    fn next_frame(&self, sent: Frame) -> Option<Frame> {
        let mut traffic = lock(&self.traffic);
        traffic.bytes -= sent.cost;
        if traffic.closed {
            let dropped: usize = traffic.answers.drain(..).map(|frame| frame.cost).sum();
            traffic.bytes -= dropped;
        }
        let next = traffic.answers.pop_front();
        traffic.sending = next.is_some();
        self.wake(&traffic);
        drop(traffic);
        if sent.buf.len() > SMALL {
            self.shared.spares.give(sent.buf);
        }
        next
    }

    /// Sends what this connection's own thread has to say, and waits until it is sent.
    fn flush(&self, out: &mut Buf) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let mut traffic = lock(&self.traffic);
        while traffic.sending && !traffic.closed {
            traffic = self.wait(traffic);
        }
        if traffic.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        traffic.sending = true;
        drop(traffic);
        let mut frame = Frame { buf: std::mem::take(out), sent: 0, cost: 0 };
        let result = self.send(&mut frame, SendFlags::empty());
        if let Err(err) = &result {
            self.close(err);
        }
        self.drain();
        *out = frame.buf;
        out.clear();
        result
    }

    /// Answers a READ that is too long for one buffer, with nothing else running meanwhile.
    fn stream(&self, request: &Request) -> io::Result<()> {
        let mut traffic = lock(&self.traffic);
        while !traffic.running.is_empty() {
            traffic = self.wait(traffic);
        }
        drop(traffic);
        let mut out = self.shared.spares.take();
        let part = self.shared.cluster.begin_stream(request, &mut out);
        self.flush(&mut out)?;
        if let Some(part) = part {
            let mut at = part.offset;
            let end = part.offset + part.len as u64;
            while at < end {
                let len = PIECE.min((end - at) as usize);
                // The header promised the data: if the disk fails now, all that is left is to cut.
                part.object.read(out.grow(len), at)?;
                self.flush(&mut out)?;
                at += len as u64;
            }
        }
        self.shared.spares.give(out);
        Ok(())
    }

    fn send(&self, frame: &mut Frame, flags: SendFlags) -> io::Result<()> {
        while let Some(rest) = frame.buf.get(frame.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest, flags | SendFlags::NOSIGNAL) {
                Ok(n) => frame.sent += n,
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    fn close(&self, err: &io::Error) {
        log::debug!("connection lost: {err}");
        let mut traffic = lock(&self.traffic);
        traffic.closed = true;
        self.wake(&traffic);
        drop(traffic);
        self.shut(Shutdown::Both);
    }

    fn wait<'a>(&self, mut traffic: MutexGuard<'a, Traffic>) -> MutexGuard<'a, Traffic> {
        traffic.waiting += 1;
        traffic = self.changed.wait(traffic).unwrap_or_else(PoisonError::into_inner);
        traffic.waiting -= 1;
        traffic
    }

    fn wake(&self, traffic: &Traffic) {
        if traffic.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

/// The connection's own thread: receives requests, and executes those that need not wait.
struct Reader<'a> {
    conn: &'a Arc<Connection>,
    input: Input,
    /// Answers that this thread made and has not sent yet.
    out: Buf,
    pace: Pace,
}

/// The payload of a request that has arrived.
enum Payload {
    /// So many bytes at the start of the input.
    Small(usize),
    Large(Buf),
}

impl Payload {
    /// Bytes that are still part of the input.
    fn buffered(&self) -> usize {
        match self {
            Payload::Small(len) => *len,
            Payload::Large(_) => 0,
        }
    }

    fn bytes<'a>(&'a self, input: &'a Input) -> &'a [u8] {
        match self {
            Payload::Small(len) => input.peek(*len),
            Payload::Large(buf) => buf,
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

impl<'a> Reader<'a> {
    fn new(conn: &'a Arc<Connection>) -> Reader<'a> {
        Reader { conn, input: Input::default(), out: Buf::default(), pace: Pace::default() }
    }

    fn run(mut self) -> io::Result<Wish> {
        while let Some(request) = self.header()? {
            let payload = self.payload(&request)?;
            if self.execute(&request, payload)? == Wish::Stop {
                return Ok(Wish::Stop);
            }
        }
        Ok(Wish::Nothing)
    }

    /// The next request, or None at the end.
    fn header(&mut self) -> io::Result<Option<Request>> {
        let socket = &self.conn.socket;
        if std::mem::take(&mut self.pace.probe) && self.input.len() < HEADER_LEN {
            match self.input.fill(socket, RecvFlags::DONTWAIT)? {
                Some(n) if n > 0 => self.pace.eager = PATIENCE,
                _ => {}
            }
        }
        while self.input.len() < HEADER_LEN {
            self.conn.flush(&mut self.out)?;
            if self.input.fill(socket, RecvFlags::empty())? == Some(0) {
                return Ok(None);
            }
        }
        Ok(self.input.take_header())
    }

    fn payload(&mut self, request: &Request) -> io::Result<Payload> {
        let (socket, shared) = (&self.conn.socket, &self.conn.shared);
        let len = request.payload_len() as usize;
        if len > shared.cluster.max_payload() {
            let text = format!("{} with a payload of {len} bytes", op::name(request.opcode));
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        if len > SMALL {
            self.conn.flush(&mut self.out)?;
            let buf = self.input.receive_large(socket, len, shared.spares.take())?;
            return Ok(Payload::Large(buf));
        }
        while self.input.len() < len {
            self.conn.flush(&mut self.out)?;
            if self.input.fill(socket, RecvFlags::empty())? == Some(0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Payload::Small(len))
    }

    /// Executes a request here, or sees to it that the pool does.
    fn execute(&mut self, request: &Request, payload: Payload) -> io::Result<Wish> {
        let (conn, cluster) = (self.conn, &self.conn.shared.cluster);
        let mimic = cluster.mimic.is_some();
        let claims = claims(request, !mimic);
        let cost = request.payload_len() as usize + room(request).min(STREAM_FROM);
        let idle = conn.admit(&claims, cost, &mut self.out)?;
        let buffered = payload.buffered();
        let alone = self.pace.is_alone(idle, self.input.len() > buffered) && !mimic;
        let ends = matches!(request.opcode, op::SHUTDOWN | op::KILL_NODE);

        let mut wish = Wish::Nothing;
        if request.opcode == op::READ_OBJ && room(request) > STREAM_FROM {
            conn.flush(&mut self.out)?;
            conn.stream(request)?;
        } else if alone || ends || cluster.is_quick(request) {
            let payload = payload.bytes(&self.input);
            wish = cluster.execute(request, payload, conn.peer, &mut self.out);
            self.pace.probe = alone && cluster.may_wait(request);
        } else if !cluster.read_cached(request, &mut self.out) {
            let payload = match payload {
                Payload::Small(len) => Buf::from(self.input.peek(len)),
                Payload::Large(buf) => buf,
            };
            conn.hand_over(*request, payload, claims, cost);
            self.input.skip(buffered);
            return Ok(wish);
        }
        self.input.skip(buffered);
        if let Payload::Large(buf) = payload {
            conn.shared.spares.give(buf);
        }
        if self.out.len() > SMALL || ends {
            conn.flush(&mut self.out)?;
            conn.shared.spares.give(std::mem::take(&mut self.out));
        }
        Ok(wish)
    }
}

/// The bytes received and not yet consumed.
struct Input {
    bytes: Box<[u8]>,
    range: Range<usize>,
}

impl Default for Input {
    fn default() -> Input {
        Input { bytes: vec![0; SMALL].into(), range: 0..0 }
    }
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
        let room = self.bytes.get_mut(self.range.end..).unwrap_or_default();
        let n = receive(socket, room, flags)?;
        self.range.end += n.unwrap_or(0);
        Ok(n)
    }

    /// Receives a payload that does not fit here, growing its buffer only as its bytes arrive.
    fn receive_large(&mut self, socket: &OwnedFd, len: usize, mut buf: Buf) -> io::Result<Buf> {
        let n = self.len().min(len);
        buf.push(self.peek(n));
        self.skip(n);
        while buf.len() < len {
            let have = buf.len();
            let room = buf.grow((len - have).min(have.max(SMALL)));
            let n = receive(socket, room, RecvFlags::empty())?.unwrap_or(0);
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            buf.truncate(have + n);
        }
        Ok(buf)
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
    let claim = |oid: u64, range, writes| objects_too.then_some(Claim { oid, range, writes });
    let oid = arm.oid.get();
    match request.opcode {
        op::READ_OBJ => [claim(oid, part, false), None],
        op::WRITE_OBJ => [claim(oid, part, true), None],
        op::CREATE_AND_WRITE_OBJ if request.flags.get() & FLAG_COW != 0 => {
            [claim(oid, ALL, true), claim(arm.cow_oid.get(), ALL, false)]
        }
        op::CREATE_AND_WRITE_OBJ | op::REMOVE_OBJ => [claim(oid, ALL, true), None],
        // The object and its map entry.
        op::DISCARD_OBJ => [claim(oid, ALL, true), claim(Oid(oid).vid().inode().0, ALL, true)],
        // Serialised with each other by the cluster, in arrival order by this (0.5).
        op::NEW_VDI..=op::GET_VDI_INFO | op::DEL_VDI | op::GET_VDI_ATTR | op::NOTIFY_VDI_ADD => {
            [Some(Claim { oid: 0, range: ALL, writes: true }), None]
        }
        _ => [None, None],
    }
}

fn conflict(a: &Claims, b: &Claims) -> bool {
    let overlap = |a: &Claim, b: &Claim| {
        a.oid == b.oid
            && (a.writes || b.writes)
            && a.range.start < b.range.end
            && b.range.start < a.range.end
    };
    a.iter().flatten().any(|a| b.iter().flatten().any(|b| overlap(a, b)))
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
            (discard(a), write(vid.inode(), 4664, 4), true),
            (discard(a), read(b, 0, 1), false),
            (cluster(op::NEW_VDI), cluster(op::GET_VDI_INFO), true),
            (cluster(op::LOCK_VDI), cluster(op::GET_VDI_ATTR), true),
            (cluster(op::NEW_VDI), cluster(op::READ_VDIS), false),
        ] {
            assert_eq!(conflict(&first, &second), expected, "{first:?} {second:?}");
            assert_eq!(conflict(&second, &first), expected, "{second:?} {first:?}");
        }
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
