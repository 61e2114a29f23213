//! One connection's protocol state without its socket: requests in, bytes out; bytes in, replies
//! out (protocol.md 0.3, 0.5, 5.1).
//!
//! Matches replies to requests by id, keeps the order of outgoing bytes, and holds the loans of
//! callers' buffers for exactly as long as a request lives. Knows no socket, clock or thread:
//! every schedule of bytes can be tested. Whoever owns a [`Wire`] calls [`Wire::gather`] and
//! [`Wire::sent`] when the socket takes bytes, [`Wire::feed`] (or [`Wire::direct`] and
//! [`Wire::filled`]) when it gives some, and wakes the wakers that come out of them.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use sheepdog_proto::header::{HEADER_LEN, Request, Response};
use sheepdog_proto::zerocopy::{FromBytes, FromZeros, IntoBytes};
use slab::Slab;

use crate::net::{IoVecs, NoMemory, RecvBuf, SendBuf};

/// Where a reply's payload goes.
#[derive(Clone)]
pub enum Dest {
    /// None is expected.
    None,
    /// Memory of the library's, up to so many bytes.
    Bytes(usize),
    /// Memory of the caller's.
    User(RecvBuf),
}

impl Dest {
    fn len(&self) -> usize {
        match self {
            Dest::None => 0,
            Dest::Bytes(len) => *len,
            Dest::User(buf) => buf.len(),
        }
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Reply {
    pub header: Response,
    /// The payload of a request with [`Dest::Bytes`].
    pub bytes: Vec<u8>,
}

/// Names a request of one connection; never reused while a late reply could still match it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id(u32);

/// The connection ended before the reply came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// A server may have seen the request.
    pub sent: bool,
    /// It ended because the peer broke the protocol, and so.
    pub corrupt: Option<Corrupt>,
}

/// Why there is no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    Lost(Lost),
    /// The caller's memory is not there to be sent from, or received into. No server carries the
    /// request out, unless it is one that only reads.
    Fault,
    /// No memory for the reply.
    NoMemory,
}

/// Why a stream is not one of ours, or no longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt(pub &'static str);

enum State {
    Waiting(Option<Waker>),
    /// The caller is gone; only that there was a reply is still told.
    Abandoned,
    Done(Result<Reply, Failure>),
}

struct Slot {
    id: u32,
    opcode: u8,
    /// Bytes of payload the request has room for.
    room: usize,
    dest: Dest,
    /// Whether a byte of it has been handed to the socket.
    sent: bool,
    state: State,
}

struct Outgoing {
    id: u32,
    header: Request,
    payload: SendBuf,
}

impl Outgoing {
    fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }
}

/// The payload that is being received.
struct Body {
    /// The slot it belongs to.
    key: usize,
    header: Response,
    bytes: Vec<u8>,
    filled: usize,
    len: usize,
    /// Why it is received into nothing, where somebody waits for it.
    failure: Option<Failure>,
}

/// Slots that ids can tell apart; the rest of an id is a generation.
const KEY_BITS: u32 = 20;
pub const MAX_REQUESTS: usize = 1 << KEY_BITS;

pub struct Wire {
    slots: Slab<Slot>,
    outgoing: VecDeque<Outgoing>,
    /// Bytes of the first outgoing request that are sent.
    sent: usize,
    /// Bytes of all outgoing requests.
    queued_bytes: usize,
    /// Requests of which a reply is on its way, as far as we know.
    awaiting: usize,
    header: [u8; HEADER_LEN],
    header_filled: usize,
    body: Option<Body>,
    generation: u32,
    woken: Vec<Waker>,
    /// Abandoned requests whose reply came, with its header.
    late: Vec<(Id, Response)>,
    /// The cluster's epoch in the last reply (8).
    epoch: u32,
    cut: Option<&'static str>,
}

impl Wire {
    pub fn new() -> Wire {
        Wire {
            slots: Slab::new(),
            outgoing: VecDeque::new(),
            sent: 0,
            queued_bytes: 0,
            awaiting: 0,
            header: [0; HEADER_LEN],
            header_filled: 0,
            body: None,
            generation: 0,
            woken: Vec::new(),
            late: Vec::new(),
            epoch: 0,
            cut: None,
        }
    }

    /// Requests that somebody has still to be told of: those without a reply yet, abandoned ones
    /// included, and those whose wakers wait to be taken.
    pub fn in_flight(&self) -> usize {
        self.slots.len() + self.woken.len()
    }

    /// Queues a request. `data_length` and `id` of `header` are set here: the payload's length
    /// where it has one, else the room for the reply (0.3).
    pub fn submit(&mut self, header: Request, payload: SendBuf, dest: Dest) -> Option<Id> {
        self.queue(header, payload, dest, State::Waiting(None))
    }

    /// Queues a request of which only matters that there is a reply.
    pub fn notify(&mut self, header: Request) {
        self.queue(header, SendBuf::EMPTY, Dest::None, State::Abandoned);
    }

    fn queue(
        &mut self,
        mut header: Request,
        payload: SendBuf,
        dest: Dest,
        state: State,
    ) -> Option<Id> {
        if self.slots.len() >= MAX_REQUESTS {
            return None;
        }
        let room = dest.len();
        let length = if payload.len() > 0 { payload.len() } else { room };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        let id = self.generation << KEY_BITS | key as u32;
        header.id = id.into();
        header.data_length = u32::try_from(length).ok()?.into();
        let opcode = header.opcode;
        entry.insert(Slot { id, opcode, room, dest, sent: false, state });
        let outgoing = Outgoing { id, header, payload };
        self.queued_bytes += outgoing.len();
        self.outgoing.push_back(outgoing);
        Some(Id(id))
    }

    /// The reply to `id`, once. Until it is there, `waker` will be told.
    pub fn poll_reply(&mut self, id: Id, waker: &Waker) -> Poll<Result<Reply, Failure>> {
        const LOST: Failure = Failure::Lost(Lost { sent: true, corrupt: None });
        let Some(key) = self.key_of(id) else {
            return Poll::Ready(Err(LOST));
        };
        if let State::Waiting(registered) = &mut self.slots[key].state {
            match registered {
                Some(w) => w.clone_from(waker),
                None => *registered = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        match self.slots.remove(key).state {
            State::Done(result) => Poll::Ready(result),
            // Only a caller that abandoned its own request could ask for it again.
            State::Waiting(_) | State::Abandoned => Poll::Ready(Err(LOST)),
        }
    }

    /// Whether a byte of the request has been handed to the socket.
    pub fn is_sent(&self, id: Id) -> bool {
        self.key_of(id).is_some_and(|key| self.slots[key].sent)
    }

    /// The caller of `id` is gone: its buffers are given back before this returns. A request that
    /// is not sent yet is forgotten; one that is half sent goes on from a copy, since the stream
    /// must not break; the reply to a sent one is received into nothing.
    ///
    /// Returns whether a server may have seen the request, and so still be at it.
    pub fn abandon(&mut self, id: Id) -> bool {
        let Some(key) = self.key_of(id) else {
            return false;
        };
        let slot = &mut self.slots[key];
        if let State::Done(result) = &slot.state {
            // A loss that its caller never heard of leaves as much open as one that it did.
            let open = matches!(result, Err(Failure::Lost(Lost { sent: true, .. })));
            self.slots.remove(key);
            return open;
        }
        if !slot.sent {
            if let Some(at) = self.outgoing.iter().position(|out| out.id == id.0) {
                self.queued_bytes -= self.outgoing[at].len();
                self.outgoing.remove(at);
            }
            self.slots.remove(key);
            return false;
        }
        slot.dest = Dest::None;
        slot.state = State::Abandoned;
        self.end_loan_of(id.0);
        true
    }

    /// What is left to send of a request goes out from memory that its caller does not get back.
    fn end_loan_of(&mut self, id: u32) {
        let Some(out) = self.outgoing.front_mut().filter(|out| out.id == id) else { return };
        match out.payload.to_owned() {
            Ok(payload) => out.payload = payload,
            Err(NoMemory) => self.cut("no memory for what was half sent"),
        }
    }

    /// Sends nothing more: the stream has to end with a request that is not complete, and that no
    /// server carries out.
    fn cut(&mut self, why: &'static str) {
        self.outgoing.clear();
        self.sent = 0;
        self.queued_bytes = 0;
        self.cut = Some(why);
    }

    /// Why the stream has to end, where it does.
    pub fn is_cut(&self) -> Option<&'static str> {
        self.cut
    }

    /// The first request cannot be sent, since its memory is not there. It ends as that, and the
    /// others go on where nothing of it has been sent.
    pub fn fault(&mut self) {
        let Some(front) = self.outgoing.front() else { return };
        let (id, len) = (Id(front.id), front.len());
        if self.sent == 0 {
            self.queued_bytes -= len;
            self.outgoing.pop_front();
        } else {
            // Whatever followed the header would be written.
            self.cut("memory of the program's that was half sent is gone");
        }
        if let Some(key) = self.key_of(id) {
            self.finish(key, Err(Failure::Fault));
        }
    }

    /// The payload that is being received cannot be put where it belongs. The rest of it is
    /// received into nothing.
    pub fn fault_body(&mut self) {
        let Some(body) = &mut self.body else { return };
        body.failure = Some(Failure::Fault);
        self.slots[body.key].dest = Dest::None;
    }

    fn key_of(&self, id: Id) -> Option<usize> {
        let key = id.0 as usize & (MAX_REQUESTS - 1);
        self.slots.get(key).filter(|slot| slot.id == id.0).map(|_| key)
    }

    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Requests that were sent, at least in part, and not answered.
    pub fn awaiting(&self) -> usize {
        self.awaiting
    }

    /// Requests that are not wholly sent, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.outgoing.len(), self.queued_bytes - self.sent)
    }

    /// What is to be sent next, as much as fits a gather list: of up to `most` requests. Nothing
    /// where the stream has to end: it would be taken for the rest of what was half sent.
    pub fn gather<'a>(&'a self, most: usize, out: &mut IoVecs<'a>) {
        if self.cut.is_some() {
            return;
        }
        let mut skip = self.sent;
        for request in self.outgoing.iter().take(most) {
            let header = request.header.as_bytes();
            let fits = out.push(&header[skip.min(HEADER_LEN)..])
                && request.payload.gather(skip.saturating_sub(HEADER_LEN), out);
            if !fits {
                return;
            }
            skip = 0;
        }
    }

    /// The socket took `n` bytes of what [`Wire::gather`] gave.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        while let Some(front) = self.outgoing.front() {
            let (id, len) = (Id(front.id), front.len());
            if self.sent > 0
                && let Some(key) = self.key_of(id)
                && !std::mem::replace(&mut self.slots[key].sent, true)
            {
                self.awaiting += 1;
            }
            if self.sent < len {
                return;
            }
            self.sent -= len;
            self.queued_bytes -= len;
            self.outgoing.pop_front();
        }
    }

    /// Bytes came in. After an error the connection is of no more use.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Corrupt> {
        while !bytes.is_empty() {
            bytes = match self.body {
                Some(_) => self.feed_body(bytes),
                None => self.feed_header(bytes)?,
            };
        }
        Ok(())
    }

    fn feed_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Corrupt> {
        let take = bytes.len().min(HEADER_LEN - self.header_filled);
        self.header[self.header_filled..][..take].copy_from_slice(&bytes[..take]);
        self.header_filled += take;
        if self.header_filled == HEADER_LEN {
            self.header_filled = 0;
            self.start_body()?;
        }
        Ok(&bytes[take..])
    }

    fn start_body(&mut self) -> Result<(), Corrupt> {
        let header = Response::read_from_bytes(&self.header).unwrap_or(Response::new_zeroed());
        let key = self.key_of(Id(header.id.get())).ok_or(Corrupt("reply to no request"))?;
        let slot = &mut self.slots[key];
        if !slot.sent || matches!(slot.state, State::Done(_)) {
            return Err(Corrupt("reply to a request that was not sent"));
        }
        if slot.opcode != header.opcode {
            return Err(Corrupt("reply to another operation"));
        }
        self.epoch = header.epoch.get();
        let len = header.data_length.get() as usize;
        if len > slot.room {
            return Err(Corrupt("reply is longer than the room for it"));
        }
        // The payload of a failed request is drained and never used: it can be junk (0.3).
        if !header.result().is_success() {
            slot.dest = Dest::None;
        }
        let (mut bytes, mut failure) = (Vec::new(), None);
        if let Dest::Bytes(_) = slot.dest
            && bytes.try_reserve_exact(len).is_err()
        {
            slot.dest = Dest::None;
            failure = Some(Failure::NoMemory);
        }
        let id = slot.id;
        self.body = Some(Body { key, header, bytes, filled: 0, len, failure });
        self.end_loan_of(id);
        if len == 0 {
            self.finish_body();
        }
        Ok(())
    }

    fn feed_body<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(body) = &mut self.body else { return bytes };
        let (now, later) = bytes.split_at(bytes.len().min(body.len - body.filled));
        match &mut self.slots[body.key].dest {
            Dest::None => {}
            Dest::Bytes(_) => body.bytes.extend_from_slice(now),
            Dest::User(buf) => buf.write_at(body.filled, now),
        }
        self.filled(now.len());
        later
    }

    /// Where the next bytes may be received without a copy, if that is a caller's buffer: the
    /// buffer and the part of it that is still to come.
    pub fn direct(&mut self) -> Option<(&mut RecvBuf, std::ops::Range<usize>)> {
        let body = self.body.as_ref()?;
        match &mut self.slots[body.key].dest {
            Dest::User(buf) => Some((buf, body.filled..body.len)),
            Dest::None | Dest::Bytes(_) => None,
        }
    }

    /// The socket put `n` bytes where [`Wire::direct`] said.
    pub fn filled(&mut self, n: usize) {
        let Some(body) = &mut self.body else { return };
        body.filled += n;
        debug_assert!(body.filled <= body.len);
        if body.filled >= body.len {
            self.finish_body();
        }
    }

    fn finish_body(&mut self) {
        let Some(Body { key, header, bytes, failure, .. }) = self.body.take() else { return };
        self.finish(key, failure.map_or(Ok(Reply { header, bytes }), Err));
    }

    fn finish(&mut self, key: usize, result: Result<Reply, Failure>) {
        let slot = &mut self.slots[key];
        // The loan ends here: before anybody can be told.
        slot.dest = Dest::None;
        if slot.sent && !matches!(slot.state, State::Done(_)) {
            self.awaiting -= 1;
        }
        match std::mem::replace(&mut slot.state, State::Done(result)) {
            State::Waiting(waker) => self.woken.extend(waker),
            State::Abandoned => {
                if let State::Done(Ok(reply)) = &slot.state {
                    self.late.push((Id(slot.id), reply.header));
                }
                self.slots.remove(key);
            }
            State::Done(first) => slot.state = State::Done(first),
        }
    }

    /// The connection is over: every request without a reply ends as lost, every loan with it.
    pub fn lose(&mut self, corrupt: Option<Corrupt>) {
        self.outgoing.clear();
        self.sent = 0;
        self.queued_bytes = 0;
        self.body = None;
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let sent = self.slots[key].sent;
            self.finish(key, Err(Failure::Lost(Lost { sent, corrupt })));
        }
    }

    /// Wakes everybody who waits for a reply, whether or not it is there.
    pub fn wake_all(&mut self) {
        for (_, slot) in &mut self.slots {
            if let State::Waiting(waker) = &mut slot.state {
                self.woken.extend(waker.take());
            }
        }
    }

    /// Whether there is something to take: of [`Wire::take_late`] or [`Wire::take_woken`].
    pub fn has_news(&self) -> bool {
        !self.late.is_empty() || !self.woken.is_empty()
    }

    /// Takes the abandoned requests that have been answered since.
    pub fn take_late(&mut self) -> Vec<(Id, Response)> {
        std::mem::take(&mut self.late)
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Adds wakers to those of the requests that ended.
    pub fn add_woken(&mut self, wakers: Vec<Waker>) {
        self.woken.extend(wakers);
    }

    /// Takes the wakers of the requests that ended; to be called without a lock held.
    pub fn take_woken(&mut self, into: &mut Vec<Waker>) {
        into.append(&mut self.woken);
    }
}

#[cfg(test)]
mod tests;
