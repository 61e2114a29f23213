//! Whole sessions with a lamb: several connections, on which requests are pipelined, come in pieces,
//! are broken off, or are given up; and the server ends and starts again on its store, which lies in
//! memory where there is /dev/shm.
//!
//! The input is a byte of options, and then what happens, each with a byte before it: what (3 bits),
//! on which connection (2), and how (3). Requests are headers as they go over the wire, of which
//! only the id is set here, and the first bytes of their payloads, with their number before them.
//!
//! What holds: each request is answered once, with its id and opcode, with no more than there is
//! room for, and a read that succeeds with just as much as was asked for; what was asked for before
//! the end of a connection is answered before it ends; the server has no more memory than it was
//! given; it ends when it is to end; and its store says the same after the next start.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamb::{LEAST_MEMORY, Options, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{self, FLAG_PIGGYBACK, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{MAX_DATA_OBJECTS, Oid, Request, Response, SdResult, VDI_BITMAP_LEN};

use crate::memory::Account;
use crate::script::Script;

const MAX_STEPS: usize = 64;
const CONNECTIONS: usize = 4;
/// A payload that is longer ends its connection.
const MAX_PAYLOAD: usize = 16 << 20;
/// Of all payloads of an input, for the sake of time.
const MAX_SENT: usize = 24 << 20;
/// Of an answer; more takes long, and shows no more.
const MAX_ROOM: u32 = 64 << 20;
/// Objects are no larger than 2 to the power of this.
const MAX_SHIFT: u8 = 24;
/// What this module takes itself: room to receive into, and the answers that are kept.
const OWN_MEMORY: usize = 4 << 20;
/// Nothing takes so long that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects that are looked at before and after a start.
const WITNESSES: usize = 8;

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let options = script.u8();
    let account = Account::open();
    {
        let mut session = Session::start(options);
        for _ in 0..MAX_STEPS {
            if script.is_over() {
                break;
            }
            session.step(&mut script);
        }
        session.restart();
    }
    let allowed = LEAST_MEMORY + OWN_MEMORY;
    assert!(account.peak() <= allowed, "{} bytes of memory", account.peak());
}

struct Session {
    options: Options,
    server: Option<Server>,
    connections: [Option<Connection>; CONNECTIONS],
    next_id: u32,
    sent: usize,
    /// A connection was given up, or cut, and what it asked for may be done at any time.
    loose: bool,
    /// There may be a VDI without a name, which the next start takes for a deleted one as a real
    /// server does (protocol.md 0.7); with that one's hazards clients may write names away.
    nameless: bool,
    witnesses: Vec<(Oid, u32)>,
    room: Box<[u8]>,
    /// Its directory, which goes with it.
    _store: Store,
}

/// A directory that goes when this is dropped.
struct Store(PathBuf);

impl Store {
    fn make() -> Store {
        let base = std::env::var_os("FUZZ_STORE").map_or_else(
            || match Path::new("/dev/shm") {
                memory if memory.is_dir() => memory.to_owned(),
                _ => std::env::temp_dir(),
            },
            PathBuf::from,
        );
        let store = Store(base.join(format!("sheepdog-fuzz-{}", std::process::id())));
        store.remove();
        store
    }

    fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.remove();
    }
}

struct Connection {
    socket: UnixStream,
    out: VecDeque<Piece>,
    asked: HashMap<u32, Asked>,
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// The payload that is coming: what of it is left.
    left: usize,
    /// Payloads are kept.
    keeps: bool,
    /// The last answer: id, result, and, where it is kept, the payload.
    answer: Option<(u32, SdResult, Vec<u8>)>,
    /// It has sent what ends it at once.
    broken: bool,
    /// It sends nothing more.
    shut: bool,
    /// It has asked the server to end.
    last: bool,
    ended: bool,
}

/// What stands for bytes.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().fold(0, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, (*byte).into()))
}

enum Piece {
    Bytes(Vec<u8>),
    Fill(u8, usize),
    End,
}

struct Asked {
    opcode: u8,
    /// Bytes of the answer at most, and just as many where a read succeeds.
    room: usize,
    witness: Option<(Oid, u32)>,
}

impl Session {
    fn start(flags: u8) -> Session {
        let store = Store::make();
        let mut options = Options::new(&store.0);
        options.listen.clear();
        options.sync = false;
        options.memory = LEAST_MEMORY;
        options.use_lock = flags & 1 != 0;
        options.mimic = flags & 0xc0 == 0xc0;
        let server = Some(Server::start(&options).expect("an empty directory"));
        Session {
            nameless: options.mimic,
            options,
            server,
            connections: [const { None }; CONNECTIONS],
            next_id: 0,
            sent: 0,
            loose: false,
            witnesses: Vec::new(),
            room: vec![0; 64 << 10].into(),
            _store: store,
        }
    }

    fn step(&mut self, script: &mut Script) {
        let tag = script.u8();
        let (on, how) = (usize::from(tag >> 3 & 3), tag >> 5);
        match tag & 7 {
            0..=3 => self.request(script, on, how),
            4 => {
                self.connection(on).end();
                self.pump(|session| session.is_over(on));
                self.connections[on] = None;
            }
            5 => {
                self.loose = true;
                self.connections[on] = None;
            }
            6 => self.broken_off(script, on),
            _ if how == 0 => self.restart(),
            _ => self.pump(|session| session.is_idle(on)),
        }
    }

    fn connection(&mut self, on: usize) -> &mut Connection {
        let path = self.options.dir.join("sock");
        self.connections[on].get_or_insert_with(|| {
            let socket = UnixStream::connect(path).expect("the server listens");
            socket.set_nonblocking(true).expect("a socket");
            Connection {
                socket,
                out: VecDeque::new(),
                asked: HashMap::new(),
                header: [0; HEADER_LEN],
                header_len: 0,
                left: 0,
                keeps: false,
                answer: None,
                broken: false,
                shut: false,
                last: false,
                ended: false,
            }
        })
    }

    fn header(&mut self, script: &mut Script) -> Request {
        let mut request =
            Request::read_from_bytes(&script.array::<HEADER_LEN>()).expect("48 bytes");
        self.next_id += 1;
        request.id = self.next_id.into();
        let shift = match request.opcode {
            op::NEW_VDI => Some(15),
            op::MAKE_FS => Some(28),
            op::NOTIFY_VDI_ADD | op::ALTER_VDI_COPY => Some(11),
            _ => None,
        };
        if let Some(at) = shift
            && request.arm[at] > MAX_SHIFT
        {
            request.arm[at] = 20 + request.arm[at] % 5;
        }
        if request.payload_len() == 0 && request.data_length.get() > MAX_ROOM {
            request.data_length = (request.data_length.get() % MAX_ROOM).into();
        }
        request
    }

    fn request(&mut self, script: &mut Script, on: usize, how: u8) {
        let request = self.header(script);
        let len = request.payload_len() as usize;
        let first = if len > 0 { script.counted() } else { &[] };
        let first = &first[..first.len().min(len)];
        let stops = matches!(request.opcode, op::SHUTDOWN | op::KILL_NODE);
        if stops {
            // So that nobody has to wait for an answer that will not come.
            self.settle();
            self.connections = [const { None }; CONNECTIONS];
        }
        self.nameless |=
            request.opcode == op::NEW_VDI && first.first().is_none_or(|byte| *byte == 0);
        let whole = len > MAX_PAYLOAD || self.sent + len <= MAX_SENT;
        let conn = self.connection(on);
        if conn.shut || conn.broken {
            self.pump(|session| session.is_over(on));
            self.connections[on] = None;
        }
        let conn = self.connection(on);
        conn.last = stops;
        let mut bytes = [request.as_bytes(), first].concat();
        if how & 2 != 0 {
            // In pieces.
            let at = usize::from(how & 4) + 1;
            let later = bytes.split_off(at.min(bytes.len()));
            conn.out.push_back(Piece::Bytes(bytes));
            bytes = later;
        }
        conn.out.push_back(Piece::Bytes(bytes));
        if len > MAX_PAYLOAD || !whole {
            // The answers to what comes before may be lost with it.
            conn.broken = true;
            conn.end();
            self.loose = true;
            return;
        }
        let fill = if how & 4 == 0 { 0 } else { request.id.get() as u8 };
        conn.out.push_back(Piece::Fill(fill, len - first.len()));
        let room = match request.flags.get() & (FLAG_WRITE | FLAG_PIGGYBACK) {
            FLAG_WRITE => 0,
            _ => request.data_length.get() as usize,
        };
        let arm = request.obj();
        let stores = matches!(request.opcode, op::WRITE_OBJ | op::CREATE_AND_WRITE_OBJ);
        let witness = stores.then(|| (Oid(arm.oid.get()), arm.offset.get()));
        let asked = Asked { opcode: request.opcode, room, witness };
        conn.asked.insert(request.id.get(), asked);
        self.sent += len;
        if how & 1 != 0 {
            self.pump(|session| session.is_idle(on));
        }
        if stops {
            self.pump(|session| session.is_idle(on));
            let conn = self.connections[on].take();
            let answer = conn.and_then(|conn| conn.answer).expect("it is answered");
            if answer.1 == SdResult::SUCCESS {
                self.server.take().expect("it runs").wait();
                self.server = Some(Server::start(&self.options).expect("the store is sound"));
            }
        }
    }

    /// A request of which not all comes.
    fn broken_off(&mut self, script: &mut Script, on: usize) {
        let n = usize::from(script.u16());
        let request = self.header(script);
        let len = (request.payload_len() as usize).min(1 << 16);
        let whole = [request.as_bytes(), &vec![0; len]].concat();
        // One byte is always missing.
        let n = n.min(HEADER_LEN + (request.payload_len() as usize).min(len) - 1);
        let conn = self.connection(on);
        if !conn.shut && !conn.broken {
            conn.out.push_back(Piece::Bytes(whole[..n].to_vec()));
            // The end of a connection inside of a payload is no end in order.
            conn.broken = n >= HEADER_LEN;
            conn.end();
            self.loose |= n >= HEADER_LEN;
        }
        self.pump(|session| session.is_over(on));
        self.connections[on] = None;
    }

    fn is_idle(&self, on: usize) -> bool {
        let is_idle = |conn: &Connection| match conn.shut || conn.broken {
            true => conn.ended,
            false => {
                let quiet = conn.out.is_empty() && conn.asked.is_empty() && conn.is_between();
                conn.ended || quiet
            }
        };
        self.connections[on].as_ref().is_none_or(is_idle)
    }

    fn is_over(&self, on: usize) -> bool {
        self.connections[on].as_ref().is_none_or(|conn| conn.ended)
    }

    /// Waits until all is answered.
    fn settle(&mut self) {
        self.pump(|session| (0..CONNECTIONS).all(|on| session.is_idle(on)));
    }

    /// Sends and receives until `over`.
    fn pump(&mut self, over: impl Fn(&Session) -> bool) {
        loop {
            let mut moved = false;
            for conn in self.connections.iter_mut().flatten() {
                moved |= conn.send();
                moved |= conn.receive(&mut self.room, &mut self.witnesses);
            }
            if over(self) {
                return;
            }
            if moved {
                continue;
            }
            let open = self.connections.iter().flatten().filter(|conn| !conn.ended);
            let mut fds: Vec<_> = open
                .map(|conn| {
                    let mut events = PollFlags::IN;
                    events.set(PollFlags::OUT, !conn.out.is_empty());
                    PollFd::from_borrowed_fd(conn.socket.as_fd(), events)
                })
                .collect();
            let timeout = Timespec::try_from(PATIENCE).expect("some seconds");
            match poll(&mut fds, Some(&timeout)) {
                // By the fuzzer's clock.
                Err(Errno::INTR) => {}
                ready => assert!(ready.expect("it waits") > 0, "no answer"),
            }
        }
    }

    /// What a client says on a connection of its own: the result, and what stands for the payload.
    fn ask(&mut self, mut request: Request) -> (SdResult, u64) {
        self.next_id += 1;
        request.id = self.next_id.into();
        let conn = self.connection(0);
        conn.keeps = true;
        conn.out.push_back(Piece::Bytes(request.as_bytes().to_vec()));
        let room = request.data_length.get() as usize;
        let asked = Asked { opcode: request.opcode, room, witness: None };
        conn.asked.insert(request.id.get(), asked);
        self.pump(|session| session.is_idle(0));
        let answer = self.connection(0).answer.take();
        let (id, result, payload) = answer.expect("it is answered");
        assert_eq!(id, self.next_id);
        (result, hash(&payload))
    }

    /// What must be the same after the next start: which VDIs there are, and parts of inodes and of
    /// objects that a map names. Others need not survive it.
    fn look(&mut self) -> Vec<(Oid, SdResult, u64)> {
        let mut seen = Vec::new();
        for opcode in [op::READ_VDIS, op::READ_DEL_VDIS] {
            let request = Request::new(opcode, 0, [0; 32]);
            let (result, hash) = self.ask(request.with_length(VDI_BITMAP_LEN as u32));
            if opcode == op::READ_VDIS || !self.nameless {
                seen.push((Oid(opcode.into()), result, hash));
            }
        }
        for (oid, at) in self.witnesses.clone() {
            let is_kept = match oid.kind() {
                Some(OidKind::Inode) => true,
                Some(OidKind::Data) if oid.index() < MAX_DATA_OBJECTS => {
                    let entry = map_entry_offset(oid.index());
                    let (result, owner) = self.ask(Request::read(oid.vid().inode(), entry, 4));
                    result.is_success() && owner == hash(&oid.vid().get().to_le_bytes())
                }
                _ => false,
            };
            if is_kept {
                let (result, hash) = self.ask(Request::read(oid, at, 512));
                seen.push((oid, result, hash));
            }
        }
        seen
    }

    /// Ends the server, and starts it again.
    fn restart(&mut self) {
        self.settle();
        self.connections = [const { None }; CONNECTIONS];
        let before = (!self.loose).then(|| self.look());
        self.connections[0] = None;
        drop(self.server.take());
        self.loose = false;
        self.server = Some(Server::start(&self.options).expect("the store is sound"));
        if let Some(before) = before {
            let after = self.look();
            self.connections[0] = None;
            assert_eq!(before, after);
        }
    }
}

impl Connection {
    fn end(&mut self) {
        if !self.shut {
            self.shut = true;
            self.out.push_back(Piece::End);
        }
    }

    /// Whether anything went.
    fn send(&mut self) -> bool {
        const FILL: usize = 64 << 10;
        let mut moved = false;
        while !self.ended {
            let Some(piece) = self.out.pop_front() else { break };
            let (sent, len) = match &piece {
                Piece::Bytes(bytes) => (self.socket.write(bytes), bytes.len()),
                Piece::Fill(_, 0) => continue,
                Piece::Fill(byte, len) => (self.socket.write(&vec![*byte; (*len).min(FILL)]), *len),
                Piece::End => {
                    let _ = self.socket.shutdown(Shutdown::Write);
                    moved = true;
                    continue;
                }
            };
            let n = match sent {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.out.push_front(piece);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                // The end that is to be read tells whether that is well.
                Err(_) => {
                    self.out.clear();
                    break;
                }
            };
            moved |= n > 0;
            if n < len {
                self.out.push_front(match piece {
                    Piece::Bytes(mut bytes) => Piece::Bytes(bytes.split_off(n)),
                    Piece::Fill(byte, len) => Piece::Fill(byte, len - n),
                    Piece::End => Piece::End,
                });
            }
        }
        moved
    }

    /// Whether anything came.
    fn receive(&mut self, room: &mut [u8], witnesses: &mut Vec<(Oid, u32)>) -> bool {
        let mut moved = false;
        while !self.ended {
            match self.socket.read(room) {
                Ok(n) if n > 0 => {
                    moved = true;
                    self.take(&room[..n], witnesses);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                end => {
                    let may_end = self.shut || self.last;
                    let in_order = may_end && self.asked.is_empty() && self.is_between();
                    assert!(self.broken || in_order, "{end:?} under {} requests", self.asked.len());
                    self.asked.clear();
                    self.out.clear();
                    self.ended = true;
                    return true;
                }
            }
        }
        moved
    }

    fn is_between(&self) -> bool {
        self.header_len == 0 && self.left == 0
    }

    fn take(&mut self, mut bytes: &[u8], witnesses: &mut Vec<(Oid, u32)>) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(bytes.len().min(self.left));
                if self.keeps
                    && let Some((_, _, payload)) = &mut self.answer
                {
                    payload.extend_from_slice(now);
                }
                self.left -= now.len();
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(HEADER_LEN - self.header_len));
            self.header[self.header_len..][..now.len()].copy_from_slice(now);
            self.header_len += now.len();
            bytes = later;
            if self.header_len == HEADER_LEN {
                self.header_len = 0;
                self.answered(witnesses);
            }
        }
    }

    fn answered(&mut self, witnesses: &mut Vec<(Oid, u32)>) {
        let response = Response::read_from_bytes(&self.header).expect("48 bytes");
        let asked = self.asked.remove(&response.id.get());
        let asked = asked.unwrap_or_else(|| panic!("nobody has asked for {response:?}"));
        assert_eq!(response.opcode, asked.opcode);
        assert_eq!((response.flags.get(), response.epoch.get()), (0, 1), "{response:?}");
        let len = response.data_length.get() as usize;
        assert!(len <= asked.room, "{response:?} for {} bytes", asked.room);
        if response.result().is_success() {
            let is_read = asked.opcode == op::READ_OBJ;
            assert!(!is_read || len == asked.room, "{response:?} for {} bytes", asked.room);
            if let Some(witness) = asked.witness
                && witnesses.len() < WITNESSES
            {
                witnesses.push(witness);
            }
        }
        let room = if self.keeps { len } else { 0 };
        self.answer = Some((response.id.get(), response.result(), Vec::with_capacity(room)));
        self.left = len;
    }
}
