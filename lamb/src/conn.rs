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
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::op::{self, FLAG_COW, is_internal};
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
        let end = self.receive();
        match &end {
            Ok(_) => {}
            Err(err) => {
                log::debug!("connection cut: {err}");
                self.shut(Shutdown::Both);
            }
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

    fn receive(self: &Arc<Self>) -> io::Result<Wish> {
        let cluster = &self.shared.cluster;
        let mut input = Input::default();
        // Answers that this thread made and has not sent yet.
        let mut out = Buf::default();
        // Above 0: the client pipelines.
        let mut eager = 0u8;
        let mut probe = false;
        loop {
            while input.len() < HEADER_LEN {
                if probe && input.fill(&self.socket, RecvFlags::DONTWAIT)?.is_some() {
                    eager = PATIENCE;
                }
                probe = false;
                if input.len() < HEADER_LEN {
                    self.flush(&mut out)?;
                    if input.fill(&self.socket, RecvFlags::empty())? == Some(0) {
                        return Ok(Wish::Nothing);
                    }
                }
            }
            let Some(request) = input.take_header() else { continue };
            let len = request.payload_len() as usize;
            if len > cluster.max_payload() {
                let name = op::name(request.opcode);
                let text = format!("{name} with a payload of {len} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            let mut large = None;
            if len > SMALL - HEADER_LEN {
                self.flush(&mut out)?;
                large = Some(input.receive_large(&self.socket, len, self.shared.spares.take())?);
            } else {
                while input.len() < len {
                    self.flush(&mut out)?;
                    if input.fill(&self.socket, RecvFlags::empty())? == Some(0) {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            let small = if large.is_some() { 0 } else { len };
            let mut claims = claims(&request);
            if cluster.mimic.is_some() {
                claims.iter_mut().for_each(|claim| *claim = claim.take().filter(|c| c.oid == 0));
            }
            let cost = len + room(&request).min(STREAM_FROM);
            let idle = self.admit(&claims, cost, &mut out)?;
            let more = input.len() > small;

            if request.opcode == op::READ_OBJ && room(&request) > STREAM_FROM {
                self.flush(&mut out)?;
                self.stream(&request)?;
                input.skip(small);
                continue;
            }
            if is_end(&request) {
                let wish = cluster.execute(&request, input.peek(small), self.peer, &mut out);
                self.flush(&mut out)?;
                input.skip(small);
                match wish {
                    Wish::Stop => return Ok(wish),
                    Wish::Nothing => continue,
                }
            }

            if !idle || more {
                eager = if more { PATIENCE } else { eager };
            } else {
                eager = eager.saturating_sub(1);
            }
            let alone = idle && !more && eager == 0 && cluster.mimic.is_none();
            if alone || cluster.is_quick(&request) {
                let payload = large.as_deref().unwrap_or(input.peek(small));
                cluster.execute(&request, payload, self.peer, &mut out);
                probe = alone;
            } else if !cluster.read_cached(&request, &mut out) {
                let payload = large.take().unwrap_or_else(|| Buf::from(input.peek(small)));
                self.hand_over(request, payload, claims, cost);
            }
            input.skip(small);
            if let Some(buf) = large {
                self.shared.spares.give(buf);
            }
            if out.len() > SMALL {
                self.flush(&mut out)?;
                self.shared.spares.give(std::mem::take(&mut out));
            }
        }
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
            self.changed.notify_all();
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
        self.changed.notify_all();
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
        lock(&self.traffic).closed = true;
        self.changed.notify_all();
        self.shut(Shutdown::Both);
    }

    fn wait<'a>(
        &self,
        traffic: std::sync::MutexGuard<'a, Traffic>,
    ) -> std::sync::MutexGuard<'a, Traffic> {
        self.changed.wait(traffic).unwrap_or_else(PoisonError::into_inner)
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

/// The operations after which the server ends.
fn is_end(request: &Request) -> bool {
    matches!(request.opcode, op::SHUTDOWN | op::KILL_NODE)
}

/// What a request reads and writes, as far as the order of requests depends on it.
fn claims(request: &Request) -> Claims {
    let arm = request.obj();
    let start = u64::from(arm.offset.get());
    let part = start..start + u64::from(request.data_length.get());
    let claim = |oid, range, writes| Some(Claim { oid, range, writes });
    match request.opcode {
        op::READ_OBJ => [claim(arm.oid.get(), part, false), None],
        op::WRITE_OBJ => [claim(arm.oid.get(), part, true), None],
        op::CREATE_AND_WRITE_OBJ if request.flags.get() & FLAG_COW != 0 => {
            [claim(arm.oid.get(), 0..u64::MAX, true), claim(arm.cow_oid.get(), 0..u64::MAX, false)]
        }
        // A discard also changes the inode, in an order of its own with other map updates (6.4).
        op::CREATE_AND_WRITE_OBJ | op::REMOVE_OBJ => {
            [claim(arm.oid.get(), 0..u64::MAX, true), None]
        }
        op::DISCARD_OBJ => [
            claim(arm.oid.get(), 0..u64::MAX, true),
            claim(Oid(arm.oid.get()).vid().inode().0, 0..u64::MAX, true),
        ],
        // Serialised with each other by the cluster, in arrival order by this (0.5).
        op::NEW_VDI..=op::GET_VDI_INFO | op::DEL_VDI | op::GET_VDI_ATTR | op::NOTIFY_VDI_ADD => {
            [claim(0, 0..1, true), None]
        }
        // Whoever flushes means everything written before.
        op::FLUSH_VDI => [None, None],
        opcode if is_internal(opcode) => [None, None],
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
