//! One connection of the library without its socket, `src/wire`: requests that come and are given
//! up at any moment, a socket that takes and gives any number of bytes, a peer that answers in any
//! order, or whatever it likes.
//!
//! What holds: the bytes that go out are whole requests with their payloads; each request ends once,
//! with the answer that the peer gave to it; a buffer that was lent is the caller's again once the
//! request has ended or was given up, from when it is freed here, so that the address sanitizer
//! tells of whoever uses it still.

use std::collections::HashMap;
use std::task::{Poll, Waker};

use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Request, Response, SdResult, op};
use sim::net::{IoVecs, RecvBuf, SendBuf};
use sim::wire::{Dest, Id, Wire};

use crate::memory::Account;
use crate::script::Script;

const MAX_STEPS: usize = 400;

pub fn run(data: &[u8]) {
    let account = Account::open();
    Play::new().run(&mut Script::new(data));
    assert!(account.peak() < 64 << 20, "{} bytes", account.peak());
    assert_eq!(account.left(), 0, "it is not given back");
}

/// What the program knows of a request.
struct Asked {
    id: Id,
    number: u32,
    opcode: u8,
    room: usize,
    /// Lent to the request.
    out: Option<Box<[u8]>>,
    into: Option<Box<[u8]>>,
    /// What its peer has begun to answer.
    reply: Option<Vec<u8>>,
}

struct Play {
    wire: Wire,
    asked: Vec<Asked>,
    /// Payloads by the numbers that the requests have on the wire, in the first eight bytes of
    /// their arms.
    payloads: HashMap<u64, Vec<u8>>,
    made: u64,
    /// All that went out.
    out: Vec<u8>,
    /// Requests in it, and where the first begins that is not whole.
    parsed: usize,
    /// On the wire, of requests that have come whole, and were not answered yet.
    open: Vec<Request>,
    /// What the peer has yet to send.
    coming: Vec<u8>,
    /// It has sent something else.
    wild: bool,
}

/// Bytes that nobody takes for others.
fn pattern(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize ^ at ^ (at >> 8)) as u8).collect()
}

impl Play {
    fn new() -> Play {
        Play {
            wire: Wire::new(),
            asked: Vec::new(),
            payloads: HashMap::new(),
            made: 0,
            out: Vec::new(),
            parsed: 0,
            open: Vec::new(),
            coming: Vec::new(),
            wild: false,
        }
    }

    fn run(mut self, script: &mut Script) {
        for _ in 0..MAX_STEPS {
            if script.is_over() {
                break;
            }
            match script.u8() % 12 {
                0 | 1 => self.submit(script),
                2 => self.send(script.u8() % 8 + 1, script.u16().into()),
                3 => self.answer(script),
                4 => {
                    let n = script.u16().into();
                    if self.receive(n).is_err() {
                        break;
                    }
                }
                5 => {
                    self.coming.extend_from_slice(script.counted());
                    self.wild = true;
                }
                6 => {
                    if let Some(at) = self.pick(script) {
                        self.poll(at);
                    }
                }
                7 => {
                    if let Some(at) = self.pick(script) {
                        let asked = self.asked.swap_remove(at);
                        let sent = self.wire.is_sent(asked.id);
                        let open = self.wire.abandon(asked.id);
                        assert!(!open || sent, "what was not sent is seen by nobody");
                        // The loans end here.
                        drop(asked);
                    }
                }
                8 => {
                    let arm = self.number();
                    self.wire.notify(Request::new(op::FLUSH_VDI, 0, arm));
                }
                9 => {
                    self.wire.fault();
                    self.settle();
                }
                10 => {
                    self.wire.fault_body();
                    self.wild = true;
                }
                _ => {
                    self.wire.wake_all();
                    self.wire.take_woken(&mut Vec::new());
                }
            }
            let (queued, bytes) = self.wire.queued();
            assert!(queued > 0 || bytes == 0);
            assert_eq!(queued > 0, self.wire.has_outgoing());
            assert!(self.wire.awaiting() <= self.wire.in_flight());
        }
        self.end();
    }

    /// The number of a request, in its arm.
    fn number(&mut self) -> [u8; 32] {
        self.made += 1;
        let mut arm = [0; 32];
        arm[..8].copy_from_slice(&self.made.to_le_bytes());
        arm
    }

    fn pick(&self, script: &mut Script) -> Option<usize> {
        let n = usize::from(script.u8());
        (!self.asked.is_empty()).then(|| n % self.asked.len())
    }

    fn submit(&mut self, script: &mut Script) {
        let opcode = script.u8();
        let (kind, payload, room) = (script.u8(), script.u16().into(), script.u16().into());
        let arm = self.number();
        let mut out = None;
        let payload = match kind & 3 {
            0 => SendBuf::EMPTY,
            1 => {
                self.payloads.insert(self.made, pattern(self.made, payload));
                SendBuf::from(pattern(self.made, payload))
            }
            2 => {
                self.payloads.insert(self.made, vec![0; payload]);
                SendBuf::zeros(payload)
            }
            _ => {
                let bytes = out.insert(pattern(self.made, payload).into_boxed_slice());
                self.payloads.insert(self.made, bytes.to_vec());
                // In two pieces.
                let (a, b) = bytes.split_at(payload / 3);
                let pieces = [(a.as_ptr(), a.len()), (b.as_ptr(), b.len())];
                // SAFETY: they live until the request has ended.
                unsafe { SendBuf::from_raw_vectored(pieces.into_iter()) }.expect("memory")
            }
        };
        let mut into = None;
        let dest = match kind >> 2 & 3 {
            0 => Dest::None,
            1 => Dest::Bytes(room),
            _ => {
                let bytes = into.insert(vec![0xa5; room].into_boxed_slice());
                // SAFETY: it lives until the request has ended.
                Dest::User(unsafe { RecvBuf::from_raw(bytes.as_mut_ptr(), room) })
            }
        };
        let room = if matches!(dest, Dest::None) { 0 } else { room };
        let flags = if payload.len() > 0 { op::FLAG_WRITE } else { 0 };
        let id = self.wire.submit(Request::new(opcode, flags, arm), payload, dest);
        let id = id.expect("there are not so many");
        let number = self.made as u32;
        self.asked.push(Asked { id, number, opcode, room, out, into, reply: None });
    }

    /// The socket takes up to `n` bytes.
    fn send(&mut self, most: u8, n: usize) {
        let mut out = IoVecs::new();
        self.wire.gather(most.into(), &mut out);
        let before = self.out.len();
        for part in out.as_slices() {
            let left = before + n - self.out.len();
            self.out.extend_from_slice(&part[..left.min(part.len())]);
        }
        drop(out);
        self.wire.sent(self.out.len() - before);
        self.parse();
    }

    /// Finds whole requests in what went out.
    fn parse(&mut self) {
        while let Ok((request, rest)) = Request::read_from_prefix(&self.out[self.parsed..]) {
            let number = u64::from_le_bytes(request.arm[..8].try_into().expect("8 bytes"));
            let expected = self.payloads.get(&number).map_or(&[][..], |payload| payload);
            let len = request.payload_len() as usize;
            assert_eq!(len, expected.len(), "the length of request {number}");
            let have = rest.len().min(len);
            assert!(rest[..have] == expected[..have], "the payload of request {number}");
            if have < len {
                return;
            }
            self.parsed += HEADER_LEN + len;
            self.open.push(request);
        }
    }

    /// The peer answers a request, or almost.
    fn answer(&mut self, script: &mut Script) {
        let (which, how) = (usize::from(script.u8()), script.u8());
        let (len, other) = (usize::from(script.u16()), script.u8());
        if self.open.is_empty() {
            return;
        }
        let request = self.open.swap_remove(which % self.open.len());
        let number = u64::from_le_bytes(request.arm[..8].try_into().expect("8 bytes"));
        let asked = self.asked.iter_mut().find(|asked| u64::from(asked.number) == number);
        let room = asked.as_ref().map_or(0, |asked| asked.room);
        let result = if how & 1 == 0 { SdResult::SUCCESS } else { SdResult(other.into()) };
        let mut response = Response::to(&request, 1, result);
        let mut payload = pattern(!number, if room == 0 { 0 } else { len % (room + 1) });
        match how >> 1 & 15 {
            0 => response.opcode ^= other,
            1 => response.id = (response.id.get() ^ u32::from(other)).into(),
            2 => payload = pattern(number, len),
            _ => {}
        }
        self.wild |=
            response.opcode != request.opcode || response.id != request.id || payload.len() > room;
        response.data_length = (payload.len() as u32).into();
        self.coming.extend_from_slice(response.as_bytes());
        self.coming.extend_from_slice(&payload);
        if let Some(asked) = asked {
            asked.reply = Some(if result.is_success() { payload } else { Vec::new() });
        }
    }

    /// Up to `n` bytes of the peer's come in, where they belong without a copy if they can.
    fn receive(&mut self, n: usize) -> Result<(), ()> {
        let n = n.min(self.coming.len());
        let rest = self.coming.split_off(n);
        let now = std::mem::replace(&mut self.coming, rest);
        let mut bytes = &now[..];
        let direct = bytes.len() & 1 == 0;
        if direct && let Some((buf, range)) = self.wire.direct() {
            let (here, later) = bytes.split_at(range.len().min(bytes.len()));
            buf.write_at(range.start, here);
            self.wire.filled(here.len());
            bytes = later;
        }
        if let Err(corrupt) = self.wire.feed(bytes) {
            assert!(self.wild, "{}", corrupt.0);
            self.wire.lose(Some(corrupt));
            return Err(());
        }
        Ok(())
    }

    fn poll(&mut self, at: usize) -> bool {
        let asked = &self.asked[at];
        let Poll::Ready(result) = self.wire.poll_reply(asked.id, Waker::noop()) else {
            return false;
        };
        let asked = self.asked.swap_remove(at);
        if let Ok(reply) = result
            && !self.wild
        {
            assert_eq!(reply.header.opcode, asked.opcode);
            let expected = asked.reply.expect("the peer has answered it");
            match &asked.into {
                Some(into) => {
                    let (have, rest) = into.split_at(expected.len());
                    assert!(*have == expected[..], "another payload");
                    assert!(reply.bytes.is_empty() && rest.iter().all(|byte| *byte == 0xa5));
                }
                None => assert!(reply.bytes == expected, "another payload"),
            }
        }
        drop(asked.out);
        true
    }

    /// Takes note of all requests that have ended.
    fn settle(&mut self) {
        let mut at = 0;
        while at < self.asked.len() {
            if !self.poll(at) {
                at += 1;
            }
        }
    }

    fn end(mut self) {
        self.wire.lose(None);
        self.settle();
        assert!(self.asked.is_empty(), "a request does not end");
        let mut woken = Vec::new();
        self.wire.take_woken(&mut woken);
        let _ = self.wire.take_late();
        assert_eq!((self.wire.in_flight(), self.wire.awaiting()), (0, 0));
    }
}
