//! [`Wire`] beside a model of what it should do, with a peer that takes and gives bytes in any
//! portions, and with callers that change their minds at any time.

#![allow(unsafe_code)] // loans of the tests' memory

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use proptest::collection::vec;
use proptest::prelude::*;
use sheepdog_proto::header::ObjArm;
use sheepdog_proto::{SdResult, op};

use super::*;

/// What fills memory that is not lent any more: whoever uses it nevertheless is found out.
const RETURNED: u8 = 0xee;
/// What fills room that nothing was received into.
const UNTOUCHED: u8 = 0xaa;

/// A caller's memory.
struct Memory(Rc<[Cell<u8>]>);

impl Memory {
    fn new(bytes: impl Iterator<Item = u8>) -> Memory {
        Memory(bytes.map(Cell::new).collect())
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(Cell::get).collect()
    }

    fn take_back(&self) {
        self.0.iter().for_each(|byte| byte.set(RETURNED));
    }

    /// The memory in pieces of `piece` bytes.
    fn pieces(&self, piece: usize) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        self.0.chunks(piece.max(1)).map(|chunk| (chunk.as_ptr() as *mut u8, chunk.len()))
    }

    fn lend_to_send(&self, piece: usize) -> SendBuf {
        let pieces = self.pieces(piece).map(|(base, len)| (base.cast_const(), len));
        // SAFETY: the memory outlives the wire; that it is written to once the wire has given it
        // back is what the tests are about.
        unsafe { SendBuf::from_raw_vectored(pieces) }.unwrap()
    }

    fn lend_to_receive(&self, piece: usize) -> RecvBuf {
        // SAFETY: as above; cells may be written to through shared pointers.
        unsafe { RecvBuf::from_raw_vectored(self.pieces(piece)) }.unwrap()
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What a request carries and expects.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Neither payload nor reply.
    Bare,
    /// A payload: in the library's memory, or in pieces of the caller's.
    Write { len: usize, piece: Option<usize> },
    /// A reply into the library's memory.
    Bytes { len: usize },
    /// A reply into pieces of the caller's memory.
    User { len: usize, piece: usize },
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit(Kind),
    /// The socket takes up to so many bytes.
    Send(usize),
    /// The peer answers one of the requests whose header it has.
    Answer {
        which: usize,
        success: bool,
        len: usize,
    },
    /// The socket gives up to so many bytes, directly where the wire wants that.
    Receive {
        len: usize,
        direct: bool,
    },
    /// A caller polls its request.
    Poll(usize),
    /// A caller gives its request up.
    Abandon(usize),
    /// The connection ends.
    Lose,
}

struct Answer {
    result: SdResult,
    data: Vec<u8>,
    /// Where it ends in the stream of replies.
    end: usize,
}

enum Caller {
    Waits,
    Told,
    Gone,
}

/// One request as the model knows it.
struct Asked {
    id: Id,
    kind: Kind,
    /// Header and payload as the peer has to see them.
    bytes: Vec<u8>,
    /// How much of that the peer has.
    sent: usize,
    source: Option<Memory>,
    target: Option<Memory>,
    answer: Option<Answer>,
    caller: Caller,
    polled: bool,
    flag: Arc<Flag>,
}

impl Asked {
    fn room(&self) -> usize {
        match self.kind {
            Kind::Bare | Kind::Write { .. } => 0,
            Kind::Bytes { len } | Kind::User { len, .. } => len,
        }
    }

    fn waits(&self) -> bool {
        matches!(self.caller, Caller::Waits)
    }

    /// The caller has its memory again, and uses it for something else.
    fn take_back(&self) {
        self.source.iter().chain(&self.target).for_each(Memory::take_back);
    }
}

struct Model {
    wire: Wire,
    asked: Vec<Asked>,
    /// Requests that the peer does not have completely, in order.
    queue: VecDeque<usize>,
    /// What the peer says.
    replies: Vec<u8>,
    received: usize,
    lost: Option<Option<Corrupt>>,
}

impl Model {
    fn new() -> Model {
        Model {
            wire: Wire::new(),
            asked: Vec::new(),
            queue: VecDeque::new(),
            replies: Vec::new(),
            received: 0,
            lost: None,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Poll(which) => self.poll(which),
            Step::Abandon(which) => self.abandon(which),
            // The owner of a wire does nothing with a connection that is gone.
            _ if self.lost.is_some() => {}
            Step::Submit(kind) => self.submit(kind),
            Step::Send(len) => self.send(len),
            Step::Answer { which, success, len } => self.answer(which, success, len),
            Step::Receive { len, direct } => self.receive(len, direct),
            Step::Lose => self.lose(None),
        }
    }

    fn submit(&mut self, kind: Kind) {
        let n = self.asked.len();
        let (opcode, flags) = match kind {
            Kind::Bare => (op::FLUSH_VDI, 0),
            Kind::Write { .. } => (op::WRITE_OBJ, op::FLAG_WRITE),
            Kind::Bytes { .. } | Kind::User { .. } => (op::READ_OBJ, 0),
        };
        let arm = ObjArm { oid: (n as u64).into(), ..Default::default() };
        let mut header = Request::new(opcode, flags, arm);
        let (mut source, mut target, mut data) = (None, None, Vec::new());
        let (mut payload, mut dest) = (SendBuf::EMPTY, Dest::None);
        match kind {
            Kind::Bare => {}
            Kind::Write { len, piece } => {
                data = (0..len).map(|at| (at * 7 + n) as u8).collect();
                payload = match piece {
                    None => data.clone().into(),
                    Some(piece) => {
                        source.insert(Memory::new(data.iter().copied())).lend_to_send(piece)
                    }
                };
            }
            Kind::Bytes { len } => dest = Dest::Bytes(len),
            Kind::User { len, piece } => {
                let memory = target.insert(Memory::new(std::iter::repeat_n(UNTOUCHED, len)));
                dest = Dest::User(memory.lend_to_receive(piece));
            }
        }
        let length = if data.is_empty() { dest.len() } else { data.len() };
        let id = self.wire.submit(header, payload, dest).unwrap();
        assert!(self.asked.iter().all(|asked| asked.id != id), "an id names one request");
        header.id = id.0.into();
        header.data_length = (length as u32).into();
        assert_eq!(header.payload_len() as usize, data.len(), "as the peer will frame it");
        let bytes = [header.as_bytes(), &data].concat();
        self.queue.push_back(n);
        self.asked.push(Asked {
            id,
            kind,
            bytes,
            sent: 0,
            source,
            target,
            answer: None,
            caller: Caller::Waits,
            polled: false,
            flag: Arc::default(),
        });
    }

    fn send(&mut self, len: usize) {
        let chunk = outgoing(&self.wire);
        assert_eq!(chunk.is_empty(), self.queue.is_empty());
        assert_eq!(self.wire.has_outgoing(), !self.queue.is_empty());
        let unsent = self.queue.iter().map(|n| self.asked[*n].bytes.len() - self.asked[*n].sent);
        assert_eq!(self.wire.queued(), (self.queue.len(), unsent.sum()));
        let len = len.min(chunk.len());
        for byte in &chunk[..len] {
            let asked = &mut self.asked[self.queue[0]];
            assert_eq!(*byte, asked.bytes[asked.sent], "byte {} of {}", asked.sent, asked.id.0);
            asked.sent += 1;
            if asked.sent == asked.bytes.len() {
                self.queue.pop_front();
            }
        }
        self.wire.sent(len);
    }

    fn answer(&mut self, which: usize, success: bool, len: usize) {
        let open = |asked: &&mut Asked| asked.sent >= HEADER_LEN && asked.answer.is_none();
        let mut open: Vec<&mut Asked> = self.asked.iter_mut().filter(open).collect();
        let count = open.len();
        if count == 0 {
            return;
        }
        let asked = &mut open[which % count];
        let result = if success { SdResult::SUCCESS } else { SdResult::NO_OBJ };
        let len = len % (asked.room() + 1);
        let data: Vec<u8> = (0..len).map(|at| (at * 5 + which) as u8).collect();
        self.replies.extend(reply(asked.id.0, asked.bytes[1], result, len).as_bytes());
        self.replies.extend(&data);
        asked.answer = Some(Answer { result, data, end: self.replies.len() });
    }

    fn receive(&mut self, len: usize, direct: bool) {
        let len = len.min(self.replies.len() - self.received);
        let mut bytes = &self.replies[self.received..][..len];
        self.received += len;
        while direct
            && !bytes.is_empty()
            && let Some((buf, range)) = self.wire.direct()
        {
            let (now, later) = bytes.split_at(bytes.len().min(range.len()));
            assert!(range.end <= buf.len());
            buf.write_at(range.start, now);
            self.wire.filled(now.len());
            bytes = later;
        }
        self.wire.feed(bytes).unwrap();
        self.wake();
    }

    /// Wakes whom the wire says, and checks that it says everybody.
    fn wake(&mut self) {
        let mut woken = Vec::new();
        self.wire.take_woken(&mut woken);
        woken.into_iter().for_each(Waker::wake);
        for asked in self.asked.iter().filter(|asked| asked.waits() && asked.polled) {
            if self.lost.is_some() || self.is_answered(asked) {
                assert!(asked.flag.take(), "a caller with an answer is woken");
            } else {
                assert!(!asked.flag.take(), "a caller without one is not");
            }
        }
        for asked in &mut self.asked {
            asked.polled &= self.lost.is_none()
                && asked.answer.as_ref().is_none_or(|answer| answer.end > self.received);
        }
    }

    /// Whether the whole answer has come in.
    fn is_answered(&self, asked: &Asked) -> bool {
        asked.answer.as_ref().is_some_and(|answer| answer.end <= self.received)
    }

    /// One of the requests whose callers wait.
    fn waiting(&self, which: usize) -> Option<usize> {
        let waiting: Vec<usize> =
            (0..self.asked.len()).filter(|n| self.asked[*n].waits()).collect();
        waiting.get(which % waiting.len().max(1)).copied()
    }

    fn poll(&mut self, which: usize) {
        let Some(n) = self.waiting(which) else { return };
        let answered = self.is_answered(&self.asked[n]);
        let asked = &mut self.asked[n];
        let waker = Waker::from(asked.flag.clone());
        let result = match self.wire.poll_reply(asked.id, &waker) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                assert!(!answered && self.lost.is_none());
                asked.polled = true;
                return;
            }
        };
        asked.caller = Caller::Told;
        match (result, &asked.answer, self.lost) {
            (Ok(reply), Some(answer), _) if answered => {
                assert_eq!(reply.header.id.get(), asked.id.0);
                assert_eq!(reply.header.result(), answer.result);
                let used = if answer.result.is_success() { &answer.data[..] } else { &[] };
                match &asked.target {
                    None => assert_eq!(reply.bytes, used),
                    Some(memory) => {
                        let bytes = memory.bytes();
                        let (filled, rest) = bytes.split_at(used.len());
                        assert_eq!(filled, used);
                        assert!(rest.iter().all(|byte| *byte == UNTOUCHED));
                        assert!(reply.bytes.is_empty());
                    }
                }
            }
            (Err(lost), _, Some(corrupt)) if !answered => {
                assert_eq!(lost, Failure::Lost(Lost { sent: asked.sent > 0, corrupt }));
            }
            (result, ..) => panic!("{result:?}, where answered is {answered}"),
        }
        asked.take_back();
    }

    fn abandon(&mut self, which: usize) {
        let Some(n) = self.waiting(which) else { return };
        let answered = self.is_answered(&self.asked[n]);
        let asked = &mut self.asked[n];
        let at_work = self.wire.abandon(asked.id);
        assert_eq!(at_work, asked.sent > 0 && !answered, "whether a server may be at it");
        asked.take_back();
        asked.caller = Caller::Gone;
        if asked.sent == 0 {
            self.queue.retain(|queued| *queued != n);
        }
    }

    fn lose(&mut self, corrupt: Option<Corrupt>) {
        self.wire.lose(corrupt);
        self.lost = Some(corrupt);
        self.wake();
    }

    /// Carries on to the end: everybody is told what the model says, and nothing remains.
    fn finish(mut self) {
        if self.lost.is_none() {
            while !self.queue.is_empty() {
                self.send(usize::MAX);
            }
            for n in 0..self.asked.len() {
                self.answer(n, true, n * 31);
            }
            self.receive(usize::MAX, true);
        }
        for _ in 0..self.asked.len() {
            self.poll(0);
        }
        assert!(self.asked.iter().all(|asked| !asked.waits()));
        assert!(!self.wire.has_outgoing());
        assert_eq!(self.wire.in_flight(), 0);
        for memory in self.asked.iter().filter_map(|asked| asked.target.as_ref()) {
            let intact = memory.bytes().iter().all(|byte| *byte == RETURNED);
            assert!(intact, "memory was written to after it was given back");
        }
    }
}

/// A reply's header.
fn reply(id: u32, opcode: u8, result: SdResult, data_length: usize) -> Response {
    Response {
        opcode,
        id: id.into(),
        result: result.into(),
        data_length: (data_length as u32).into(),
        ..Default::default()
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let len = prop_oneof![3 => 1..40usize, 2 => 40..400usize];
    let piece = prop_oneof![Just(1), 2..50usize, Just(1000)];
    prop_oneof![
        1 => Just(Kind::Bare),
        3 => (len.clone(), prop::option::weighted(0.8, piece.clone()))
            .prop_map(|(len, piece)| Kind::Write { len, piece }),
        1 => (0..300usize).prop_map(|len| Kind::Bytes { len }),
        3 => (len, piece).prop_map(|(len, piece)| Kind::User { len, piece }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let len = prop_oneof![2 => 1..20usize, 2 => 20..600usize, 1 => Just(usize::MAX)];
    let which = 0..1000usize;
    prop_oneof![
        8 => kinds().prop_map(Step::Submit),
        8 => len.clone().prop_map(Step::Send),
        8 => (which.clone(), prop::bool::weighted(0.75), 0..500usize)
            .prop_map(|(which, success, len)| Step::Answer { which, success, len }),
        8 => (len, any::<bool>()).prop_map(|(len, direct)| Step::Receive { len, direct }),
        4 => which.clone().prop_map(Step::Poll),
        4 => which.prop_map(Step::Abandon),
    ]
}

proptest! {
    // A failure prints its smallest schedule; that becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_reply_reaches_its_request_in_every_schedule(schedule in vec(steps(), 0..150)) {
        let mut model = Model::new();
        schedule.into_iter().for_each(|step| model.run(step));
        model.finish();
    }

    #[test]
    fn a_connection_may_end_at_any_time(
        before in vec(steps(), 0..60),
        after in vec(steps(), 0..20),
    ) {
        let mut model = Model::new();
        before.into_iter().chain([Step::Lose]).chain(after).for_each(|step| model.run(step));
        model.finish();
    }

    #[test]
    fn a_reply_that_fits_no_request_is_corruption(
        schedule in vec(steps(), 0..60),
        which in 0..1000usize,
        id_xor in prop_oneof![Just(0), Just(1), Just(1 << KEY_BITS), any::<u32>()],
        opcode_xor in prop_oneof![3 => Just(0), 1 => 1..=255u8],
        longer in prop_oneof![Just(-1i64), 0..3i64, Just(i64::from(u32::MAX))],
    ) {
        let mut model = Model::new();
        schedule.into_iter().for_each(|step| model.run(step));
        model.receive(usize::MAX, false);
        let Some(asked) = model.asked.get(which % model.asked.len().max(1)) else { return Ok(()) };
        let id = asked.id.0 ^ id_xor;
        let opcode = asked.bytes[1] ^ opcode_xor;
        let len = (asked.room() as i64 + longer).clamp(0, i64::from(u32::MAX)) as usize;
        let fits = model.asked.iter().any(|asked| {
            let expected = asked.sent > 0 && asked.answer.is_none();
            expected && asked.id.0 == id && asked.bytes[1] == opcode && asked.room() >= len
        });
        let fed = model.wire.feed(reply(id, opcode, SdResult::SUCCESS, len).as_bytes());
        if fits {
            prop_assert_eq!(fed, Ok(()));
        } else {
            model.lose(Some(fed.unwrap_err()));
            model.finish();
        }
    }

    #[test]
    fn no_bytes_of_a_peer_make_it_panic(
        schedule in vec(steps(), 0..40),
        bytes in vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..400),
    ) {
        let mut model = Model::new();
        schedule.into_iter().for_each(|step| model.run(step));
        if let Err(corrupt) = model.wire.feed(&bytes) {
            model.wire.lose(Some(corrupt));
        }
    }
}

/// A wire with one request, and the id of that.
fn wire_with(header: Request, payload: SendBuf, dest: Dest) -> (Wire, Id) {
    let mut wire = Wire::new();
    let id = wire.submit(header, payload, dest).unwrap();
    (wire, id)
}

fn read_request() -> Request {
    Request::new(op::READ_OBJ, 0, ObjArm::default())
}

fn write_request() -> Request {
    Request::new(op::WRITE_OBJ, op::FLAG_WRITE, ObjArm::default())
}

fn outgoing(wire: &Wire) -> Vec<u8> {
    let mut iov = IoVecs::new();
    wire.gather(usize::MAX, &mut iov);
    iov.as_slices().iter().flat_map(|bytes| bytes.iter().copied()).collect()
}

fn poll(wire: &mut Wire, id: Id) -> Poll<Result<Reply, Failure>> {
    wire.poll_reply(id, Waker::noop())
}

#[test]
fn a_read_announces_its_room_and_gets_its_bytes() {
    let (mut wire, id) = wire_with(read_request(), SendBuf::EMPTY, Dest::Bytes(100));
    let sent = outgoing(&wire);
    assert_eq!((sent.len(), &sent[12..16]), (HEADER_LEN, &[100, 0, 0, 0][..]));
    wire.sent(HEADER_LEN);
    assert!(!wire.has_outgoing() && poll(&mut wire, id).is_pending());
    wire.feed(reply(id.0, op::READ_OBJ, SdResult::SUCCESS, 3).as_bytes()).unwrap();
    assert!(poll(&mut wire, id).is_pending(), "the payload is still to come");
    wire.feed(b"abc").unwrap();
    match poll(&mut wire, id) {
        Poll::Ready(Ok(reply)) => assert_eq!(reply.bytes, b"abc"),
        other => panic!("{other:?}"),
    }
    wire.take_woken(&mut Vec::new());
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn payload_of_a_failed_request_is_drained_and_does_not_touch_the_callers_memory() {
    let memory = Memory::new(std::iter::repeat_n(UNTOUCHED, 4));
    let dest = Dest::User(memory.lend_to_receive(4));
    let (mut wire, id) = wire_with(read_request(), SendBuf::EMPTY, dest);
    let next = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    wire.sent(2 * HEADER_LEN);
    let mut bytes = reply(id.0, op::READ_OBJ, SdResult::SYSTEM_ERROR, 4).as_bytes().to_vec();
    bytes.extend(b"junk");
    bytes.extend(reply(next.0, op::READ_OBJ, SdResult::SUCCESS, 0).as_bytes());
    wire.feed(&bytes[..HEADER_LEN]).unwrap();
    assert!(wire.direct().is_none(), "junk is not received into the caller's memory either");
    wire.feed(&bytes[HEADER_LEN..]).unwrap();
    assert!(matches!(poll(&mut wire, id), Poll::Ready(Ok(reply)) if reply.bytes.is_empty()));
    assert!(matches!(poll(&mut wire, next), Poll::Ready(Ok(_))), "the stream goes on");
    assert_eq!(memory.bytes(), [UNTOUCHED; 4]);
}

#[test]
fn a_half_sent_request_goes_on_from_a_copy_once_its_caller_is_gone() {
    let memory = Memory::new(b"payload".iter().copied());
    let (mut wire, id) = wire_with(write_request(), memory.lend_to_send(3), Dest::None);
    wire.sent(HEADER_LEN + 2);
    assert!(wire.abandon(id));
    memory.take_back();
    assert_eq!(outgoing(&wire), b"yload");
}

#[test]
fn a_request_answered_before_it_is_wholly_sent_goes_on_from_a_copy() {
    let memory = Memory::new(b"payload".iter().copied());
    let (mut wire, id) = wire_with(write_request(), memory.lend_to_send(3), Dest::None);
    wire.sent(HEADER_LEN + 2);
    wire.feed(reply(id.0, op::WRITE_OBJ, SdResult::NO_SPACE, 0).as_bytes()).unwrap();
    assert!(poll(&mut wire, id).is_ready());
    memory.take_back();
    assert_eq!(outgoing(&wire), b"yload");
    wire.sent(5);
    assert!(!wire.has_outgoing());
}

#[test]
fn an_unsent_request_that_is_given_up_never_reaches_the_peer() {
    let (mut wire, first) = wire_with(read_request(), SendBuf::EMPTY, Dest::None);
    let second = wire.submit(write_request(), b"x".to_vec().into(), Dest::None).unwrap();
    let third = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    wire.sent(10);
    assert!(!wire.abandon(second));
    let rest = outgoing(&wire);
    assert_eq!(rest.len(), HEADER_LEN - 10 + HEADER_LEN);
    assert_eq!(rest[HEADER_LEN - 10 + 8..][..4], third.0.to_le_bytes());
    assert!(poll(&mut wire, first).is_pending());
}

#[test]
fn a_request_whose_memory_is_gone_ends_alone_where_nothing_of_it_was_sent() {
    let (mut wire, first) = wire_with(write_request(), b"gone".to_vec().into(), Dest::None);
    let second = wire.submit(write_request(), b"here".to_vec().into(), Dest::None).unwrap();
    wire.fault();
    assert!(matches!(poll(&mut wire, first), Poll::Ready(Err(Failure::Fault))));
    assert_eq!((wire.is_cut(), wire.queued()), (None, (1, HEADER_LEN + 4)));
    let rest = outgoing(&wire);
    assert_eq!((&rest[8..12], &rest[HEADER_LEN..]), (&second.0.to_le_bytes()[..], &b"here"[..]));
    wire.sent(rest.len());
    assert_eq!(wire.awaiting(), 1);
}

#[test]
fn a_request_whose_memory_is_gone_halfway_is_the_last_of_its_stream() {
    let (mut wire, first) = wire_with(read_request(), SendBuf::EMPTY, Dest::None);
    let second = wire.submit(write_request(), b"gone".to_vec().into(), Dest::None).unwrap();
    let third = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    wire.sent(HEADER_LEN + HEADER_LEN + 2);
    wire.fault();
    assert!(wire.is_cut().is_some() && !wire.has_outgoing(), "no server gets a whole request");
    wire.lose(None);
    let lost = |sent| Failure::Lost(Lost { sent, corrupt: None });
    for (id, failure) in [(first, lost(true)), (second, Failure::Fault), (third, lost(false))] {
        match poll(&mut wire, id) {
            Poll::Ready(Err(got)) => assert_eq!(got, failure),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_goes_out_on_a_stream_that_has_to_end() {
    let (mut wire, _) = wire_with(write_request(), b"half".to_vec().into(), Dest::None);
    wire.sent(HEADER_LEN + 2);
    wire.fault();
    // It would be taken for the rest of the payload.
    wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    assert_eq!(outgoing(&wire), b"");
}

#[test]
fn a_reply_that_its_memory_does_not_take_is_received_into_nothing() {
    let memory = Memory::new(std::iter::repeat_n(UNTOUCHED, 4));
    let dest = Dest::User(memory.lend_to_receive(4));
    let (mut wire, id) = wire_with(read_request(), SendBuf::EMPTY, dest);
    let next = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    wire.sent(2 * HEADER_LEN);
    wire.feed(reply(id.0, op::READ_OBJ, SdResult::SUCCESS, 4).as_bytes()).unwrap();
    assert!(wire.direct().is_some());
    wire.fault_body();
    assert!(wire.direct().is_none());
    wire.feed(b"rest").unwrap();
    assert!(matches!(poll(&mut wire, id), Poll::Ready(Err(Failure::Fault))));
    wire.feed(reply(next.0, op::READ_OBJ, SdResult::SUCCESS, 0).as_bytes()).unwrap();
    assert!(matches!(poll(&mut wire, next), Poll::Ready(Ok(_))), "the stream goes on");
    assert_eq!(memory.bytes(), [UNTOUCHED; 4]);
}

#[test]
fn hostile_replies_are_corruption() {
    let mut cases: Vec<(&str, Response)> = Vec::new();
    let (wire, id) = wire_with(read_request(), SendBuf::EMPTY, Dest::Bytes(8));
    drop(wire);
    let (unsent_id, success) = (id.0 + 1 + (1 << KEY_BITS), SdResult::SUCCESS);
    cases.push(("unknown id", reply(id.0 ^ 1 << 31, op::READ_OBJ, success, 0)));
    cases.push(("id past all slots", reply(u32::MAX, op::READ_OBJ, success, 0)));
    cases.push(("other operation", reply(id.0, op::WRITE_OBJ, success, 0)));
    cases.push(("one byte too long", reply(id.0, op::READ_OBJ, success, 9)));
    cases.push(("longest", reply(id.0, op::READ_OBJ, SdResult::EIO, u32::MAX as usize)));
    cases.push(("not sent yet", reply(unsent_id, op::READ_OBJ, success, 0)));
    for (what, header) in cases {
        let (mut wire, same) = wire_with(read_request(), SendBuf::EMPTY, Dest::Bytes(8));
        let unsent = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
        assert_eq!((same, unsent.0), (id, unsent_id));
        wire.sent(HEADER_LEN);
        assert!(wire.feed(header.as_bytes()).is_err(), "{what}");
    }
}

#[test]
fn a_second_reply_to_one_request_is_corruption() {
    for collected in [false, true] {
        let (mut wire, id) = wire_with(read_request(), SendBuf::EMPTY, Dest::None);
        wire.sent(HEADER_LEN);
        let header = reply(id.0, op::READ_OBJ, SdResult::SUCCESS, 0);
        wire.feed(header.as_bytes()).unwrap();
        if collected {
            assert!(poll(&mut wire, id).is_ready());
        }
        assert!(wire.feed(header.as_bytes()).is_err());
    }
}

#[test]
fn an_id_of_the_past_names_nothing_even_where_its_slot_is_used_again() {
    let (mut wire, old) = wire_with(read_request(), SendBuf::EMPTY, Dest::None);
    assert!(!wire.abandon(old));
    let new = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    assert_eq!(old.0 & ((1 << KEY_BITS) - 1), new.0 & ((1 << KEY_BITS) - 1), "the same slot");
    assert!(!wire.abandon(old) && !wire.is_sent(old));
    assert!(matches!(poll(&mut wire, old), Poll::Ready(Err(_))));
    assert!(poll(&mut wire, new).is_pending());
    wire.sent(HEADER_LEN);
    assert!(wire.feed(reply(old.0, op::READ_OBJ, SdResult::SUCCESS, 0).as_bytes()).is_err());
}

#[test]
fn the_reply_to_a_given_up_request_is_told_of() {
    let (mut wire, id) = wire_with(write_request(), b"x".to_vec().into(), Dest::None);
    wire.sent(HEADER_LEN + 1);
    assert!(wire.is_sent(id) && wire.abandon(id));
    assert!(wire.take_late().is_empty());
    wire.feed(reply(id.0, op::WRITE_OBJ, SdResult::READONLY, 0).as_bytes()).unwrap();
    let late = wire.take_late();
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].0, late[0].1.result()), (id, SdResult::READONLY));
    assert!(wire.take_late().is_empty() && wire.in_flight() == 0);
}

#[test]
fn a_question_that_nobody_waits_for_counts_as_one_until_it_is_answered() {
    let mut wire = Wire::new();
    wire.notify(write_request());
    wire.sent(HEADER_LEN);
    assert_eq!((wire.awaiting(), wire.in_flight()), (1, 1));
    let id = wire.slots.iter().next().unwrap().1.id;
    wire.feed(reply(id, op::WRITE_OBJ, SdResult::SUCCESS, 0).as_bytes()).unwrap();
    assert_eq!((wire.awaiting(), wire.in_flight()), (0, 0));
}

#[test]
fn a_lost_request_that_is_given_up_unread_still_counts_as_one_a_server_may_be_at() {
    let (mut wire, sent) = wire_with(write_request(), b"x".to_vec().into(), Dest::None);
    wire.sent(HEADER_LEN + 1);
    let unsent = wire.submit(read_request(), SendBuf::EMPTY, Dest::None).unwrap();
    wire.lose(None);
    // Between the loss and the poll that would have told of it, the caller's time ran out.
    assert!(wire.abandon(sent), "it is lost, not answered");
    assert!(!wire.abandon(unsent));
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn a_wire_has_something_in_flight_until_the_last_waker_is_taken() {
    let (mut wire, id) = wire_with(write_request(), b"x".to_vec().into(), Dest::None);
    wire.sent(HEADER_LEN + 1);
    assert!(poll(&mut wire, id).is_pending());
    wire.lose(None);
    assert!(wire.abandon(id));
    // Whoever forgets an idle wire now would forget the waker with it.
    assert_ne!(wire.in_flight(), 0);
    let mut woken = Vec::new();
    wire.take_woken(&mut woken);
    assert_eq!((woken.len(), wire.in_flight()), (1, 0));
}

#[test]
fn requests_past_the_limit_are_refused_and_leave_nothing() {
    let mut wire = Wire::new();
    for _ in 0..MAX_REQUESTS {
        assert!(wire.submit(read_request(), SendBuf::EMPTY, Dest::None).is_some());
    }
    assert_eq!(wire.submit(read_request(), SendBuf::EMPTY, Dest::None), None);
    assert_eq!(wire.in_flight(), MAX_REQUESTS);
}
