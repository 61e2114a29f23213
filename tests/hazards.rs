//! What servers and networks do to clients, and what careless clients lose by it (docs/protocol.md
//! 0.5, 3.7, 5.15, 7.3): connections break at the worst moment, requests arrive late, answers are
//! short or wrong. Each test makes it happen, on a lamb with a real server's hazards.
//!
//! Rules that a library breaks without anybody's doing are in the model test.

mod common;

use std::io::{Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sheepdog_proto::header::ObjArm;
use sheepdog_proto::inode::{MAP_OFFSET, gref_offset};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Oid, Request, Response, SdResult, op};
use wolf::{Fate, Flock, Wolf};

use common::api::{Code, Sd, Vdi, Which};
use common::rules::Rules;
use common::server::Server;

const OBJECT: u64 = 4 << 20;
const SIZE: u64 = 4 * OBJECT;

/// A lamb with a wolf before it.
struct Pasture {
    server: Server,
    wolf: Wolf,
}

impl Pasture {
    /// With a real server's hazards.
    fn new(flock: Arc<dyn Flock>) -> Pasture {
        Pasture::on(&["--mimic-1.0"], flock)
    }

    fn on(arguments: &[&str], flock: Arc<dyn Flock>) -> Pasture {
        let server = Server::lamb(arguments);
        let wolf = Wolf::start(server.socket_address(), flock).expect("a port");
        Pasture { server, wolf }
    }

    /// A client that the wolf can get at.
    fn prey(&self) -> Sd {
        Sd::connect(&self.wolf.address().to_string()).expect("a connection")
    }

    /// One that it cannot.
    fn safe(&self) -> Sd {
        Sd::connect(&self.server.address(0)).expect("a connection")
    }
}

fn create(sd: &Sd, name: &str) -> Vdi {
    sd.create(name, SIZE, None, false, true).unwrap().expect("a handle")
}

fn content(sd: &Sd, vdi: Vdi, len: usize, offset: u64) -> Vec<u8> {
    let mut buf = vec![0xa5; len];
    sd.read(vdi, &mut buf, offset).unwrap();
    buf
}

fn oid(request: &Request) -> Oid {
    Oid(request.obj().oid.get())
}

fn is_map_update(request: &Request) -> bool {
    request.opcode == op::WRITE_OBJ
        && oid(request).kind() == Some(OidKind::Inode)
        && request.obj().offset.get() >= MAP_OFFSET
}

fn is_data(request: &Request, opcode: u8) -> bool {
    request.opcode == opcode && oid(request).kind() == Some(OidKind::Data)
}

/// Takes the connection away under the next request of a kind. The server gets the request when a
/// careless client has made the worst of that, or after a while: sooner than a client may take it
/// for over (5.15).
struct Late {
    which: fn(&Request) -> bool,
    worst: Worst,
    hunting: AtomicBool,
    /// Requests that count for the worst.
    seen: Arc<(Mutex<usize>, Condvar)>,
}

#[derive(PartialEq)]
enum Worst {
    /// The request has been sent again: both are carried out at once.
    Beside,
    /// It was sent again, and a later write has been answered: it overwrites both.
    Afterwards,
}

/// Long enough for a careless client, and short of the time that servers are given.
const LATE: Duration = Duration::from_millis(400);

impl Late {
    fn new(which: fn(&Request) -> bool, worst: Worst) -> Arc<Late> {
        Arc::new(Late { which, worst, hunting: AtomicBool::new(false), seen: Arc::default() })
    }

    fn hunt(&self) {
        self.hunting.store(true, Ordering::Relaxed);
    }

    fn see(&self) {
        *self.seen.0.lock().unwrap() += 1;
        self.seen.1.notify_all();
    }
}

impl Flock for Late {
    fn request(&self, _: usize, request: &Request, payload: &[u8]) -> Fate {
        // An empty write only asks.
        if !(self.which)(request) || payload.is_empty() {
            return Fate::Pass;
        }
        if self.hunting.swap(false, Ordering::Relaxed) {
            let (seen, enough) =
                (self.seen.clone(), if self.worst == Worst::Beside { 1 } else { 2 });
            *seen.0.lock().unwrap() = 0;
            return Fate::CutAndDeliver(Box::new(move || {
                let count = seen.0.lock().unwrap();
                let waited = seen.1.wait_timeout_while(count, LATE, |count| *count < enough);
                drop(waited.unwrap());
            }));
        }
        if self.worst == Worst::Beside {
            self.see();
        }
        Fate::Pass
    }

    fn answer(&self, _: usize, request: &Request, _: &mut Response, _: &mut Vec<u8>) {
        let is_write =
            is_data(request, op::WRITE_OBJ) || is_data(request, op::CREATE_AND_WRITE_OBJ);
        if self.worst == Worst::Afterwards && is_write && request.payload_len() > 0 {
            self.see();
        }
    }
}

/// Executed twice it releases the base's object twice, and the clone loses it (3.7, hazard 2).
#[test]
fn a_map_update_is_not_sent_again_beside_the_lost_one() {
    type Change = fn(&Sd, Vdi);
    let changes: [Change; 2] = [
        |sd, vdi| sd.write(vdi, b"later", 0, 0).unwrap(),
        |sd, vdi| sd.discard(vdi, 0, OBJECT).unwrap(),
    ];
    for change in changes {
        let late = Late::new(is_map_update, Worst::Beside);
        let pasture = Pasture::new(late.clone());
        let (sd, safe) = (pasture.prey(), pasture.safe());
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        let snapshot = sd.snapshot(vdi, "tag", true).unwrap().expect("a handle");
        sd.clone_vdi(snapshot, "clone", Which::Handle, false).unwrap();
        sd.close(snapshot).unwrap();

        late.hunt();
        change(&sd, vdi);
        sd.delete_snapshot("a", Which::Tag("tag")).unwrap();
        drop(sd);
        pasture.wolf.settle();
        // What is released is removed after the answer.
        thread::sleep(Duration::from_millis(100));
        let clone = safe.open("clone").unwrap();
        assert_eq!(content(&safe, clone, 5, 0), b"first");
    }
}

/// A CREATE replaces what it finds: the lost one must not come after writes to its object (0.5).
#[test]
fn an_object_is_not_written_to_before_a_lost_create_is_over() {
    let creation = |request: &Request| is_data(request, op::CREATE_AND_WRITE_OBJ);
    let late = Late::new(creation, Worst::Afterwards);
    let pasture = Pasture::new(late.clone());
    let (sd, safe) = (pasture.prey(), pasture.safe());
    let vdi = create(&sd, "a");

    late.hunt();
    sd.write(vdi, b"first", 0, 0).unwrap();
    sd.write(vdi, b"second", 4096, 0).unwrap();
    drop(sd);
    pasture.wolf.settle();
    let vdi = safe.open("a").unwrap();
    assert_eq!(content(&safe, vdi, 5, 0), b"first");
    assert_eq!(content(&safe, vdi, 6, 4096), b"second");
}

/// A write may be sent again, but a later one must not be overtaken by the lost one (5.15).
#[test]
fn a_write_is_not_undone_by_an_earlier_one_that_was_lost() {
    let late = Late::new(|request| is_data(request, op::WRITE_OBJ), Worst::Afterwards);
    let pasture = Pasture::new(late.clone());
    let (sd, safe) = (pasture.prey(), pasture.safe());
    let vdi = create(&sd, "a");
    sd.write(vdi, b"zeroth", 0, 0).unwrap();

    late.hunt();
    sd.write(vdi, b"first", 0, 0).unwrap();
    sd.write(vdi, b"second", 0, 0).unwrap();
    drop(sd);
    pasture.wolf.settle();
    let vdi = safe.open("a").unwrap();
    assert_eq!(content(&safe, vdi, 6, 0), b"second");
}

/// Carried out twice it takes two snapshots, and a creation fails by its own success (5.15).
#[test]
fn a_vdi_is_made_once_though_the_answer_is_lost() {
    let late = Late::new(|request| request.opcode == op::NEW_VDI, Worst::Beside);
    let pasture = Pasture::new(late.clone());
    let (sd, safe) = (pasture.prey(), pasture.safe());
    late.hunt();
    let vdi = create(&sd, "a");
    sd.write(vdi, b"first", 0, 0).unwrap();
    late.hunt();
    sd.snapshot(vdi, "tag", false).unwrap();
    sd.write(vdi, b"later", 0, 0).unwrap();
    drop(sd);
    pasture.wolf.settle();
    assert_eq!(safe.list().unwrap(), ["a"]);
    let tags = safe.snapshots("a", |handle| safe.info(handle).unwrap().tag).unwrap();
    assert_eq!(tags, ["tag"]);
    let vdi = safe.open("a").unwrap();
    assert_eq!(content(&safe, vdi, 5, 0), b"later");
}

/// Keeps the next request of a kind back until a snapshot has been taken.
struct Overtaken {
    which: fn(&Request) -> bool,
    hunting: AtomicBool,
    /// A request is kept back; a snapshot has been taken.
    state: (Mutex<(bool, bool)>, Condvar),
}

/// No test waits so long unless it fails.
const STUCK: Duration = Duration::from_secs(60);

impl Overtaken {
    fn new(which: fn(&Request) -> bool) -> Arc<Overtaken> {
        Arc::new(Overtaken { which, hunting: AtomicBool::new(false), state: Default::default() })
    }

    fn hunt(&self) {
        *self.state.0.lock().unwrap() = (false, false);
        self.hunting.store(true, Ordering::Relaxed);
    }

    /// Waits until a request is kept back.
    fn await_prey(&self) {
        let state = self.state.0.lock().unwrap();
        let waited = self.state.1.wait_timeout_while(state, STUCK, |state| !state.0).unwrap();
        assert!(!waited.1.timed_out(), "there was no such request");
    }
}

impl Flock for Overtaken {
    fn request(&self, _: usize, request: &Request, _: &[u8]) -> Fate {
        if (self.which)(request) && self.hunting.swap(false, Ordering::Relaxed) {
            let mut state = self.state.0.lock().unwrap();
            state.0 = true;
            self.state.1.notify_all();
            drop(self.state.1.wait_timeout_while(state, STUCK, |state| !state.1).unwrap());
        }
        Fate::Pass
    }

    fn answer(&self, _: usize, request: &Request, _: &mut Response, _: &mut Vec<u8>) {
        if request.opcode == op::NEW_VDI {
            self.state.0.lock().unwrap().1 = true;
            self.state.1.notify_all();
        }
    }
}

/// The working VDI does not have the update then, whether the server took it or not (4.2, 7.2).
#[test]
fn a_map_update_that_a_snapshot_overtook_is_done_again() {
    let flock = Overtaken::new(is_map_update);
    let pasture = Pasture::new(flock.clone());
    let (sd, other, safe) = (pasture.prey(), pasture.prey(), pasture.safe());
    let vdi = create(&sd, "a");
    sd.write(vdi, b"first", 0, 0).unwrap();
    sd.snapshot(vdi, "before", false).unwrap();
    for offset in [0, OBJECT] {
        let seen = other.open("a").unwrap();
        flock.hunt();
        thread::scope(|scope| {
            let writer = scope.spawn(|| sd.write(vdi, b"later", offset, 0));
            flock.await_prey();
            other.snapshot(seen, &format!("at {offset}"), false).unwrap();
            writer.join().unwrap().unwrap();
        });
        other.close(seen).unwrap();
        let found = safe.open("a").unwrap();
        assert_eq!(content(&safe, found, 5, offset), b"later");
        safe.close(found).unwrap();
    }
}

/// The object that the update should have named is removed then, and nothing else.
#[test]
fn a_map_update_that_a_snapshot_refused_leaves_no_object() {
    let flock = Overtaken::new(is_map_update);
    let pasture = Pasture::on(&[], flock.clone());
    let (sd, other, safe) = (pasture.prey(), pasture.prey(), pasture.safe());
    let vdi = create(&sd, "a");
    sd.write(vdi, b"first", 0, 0).unwrap();
    sd.snapshot(vdi, "before", false).unwrap();
    let seen = other.open("a").unwrap();
    flock.hunt();
    thread::scope(|scope| {
        let writer = scope.spawn(|| sd.write(vdi, b"later", 0, 0));
        flock.await_prey();
        other.snapshot(seen, "tag", false).unwrap();
        writer.join().unwrap().unwrap();
    });
    for tag in ["before", "tag"] {
        let snapshot = safe.open_snapshot("a", Which::Tag(tag)).unwrap();
        assert_eq!(content(&safe, snapshot, 5, 0), b"first");
    }
    assert_eq!(content(&sd, vdi, 5, 0), b"later");
    let found = pasture.server.await_objects(|found| found.data == 2);
    assert!(found.is_ok(), "{found:?}, but there are two contents");
}

/// Undoes a map update that came after a snapshot when it is answered, as it is in one copy of the
/// inode where the snapshot writes that back (4.2).
struct Undone {
    overtaken: Arc<Overtaken>,
    server: SocketAddr,
}

impl Flock for Undone {
    fn request(&self, connection: usize, request: &Request, data: &[u8]) -> Fate {
        self.overtaken.request(connection, request, data)
    }

    fn answer(&self, n: usize, request: &Request, response: &mut Response, data: &mut Vec<u8>) {
        self.overtaken.answer(n, request, response, data);
        let both = |state: &mut (bool, bool)| *state == (true, true) && mem::take(state).0;
        if is_map_update(request) && both(&mut self.overtaken.state.0.lock().unwrap()) {
            let inode = oid(request);
            let was = [[0; 4], (inode.vid().get() - 1).to_le_bytes()].concat();
            // Neither is a map update to the server: they begin before the map, or end behind it.
            self.store(inode, MAP_OFFSET - 4, &was);
            self.store(inode, gref_offset(0), &[1, 1].map(i32::to_le_bytes).concat());
        }
    }
}

impl Undone {
    fn store(&self, oid: Oid, offset: u32, data: &[u8]) {
        let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..Default::default() };
        let mut request = Request::new(op::WRITE_OBJ, op::FLAG_WRITE, arm);
        request.data_length = (data.len() as u32).into();
        let mut stream = TcpStream::connect(self.server).unwrap();
        stream.write_all(&[request.as_bytes(), data].concat()).unwrap();
        let mut response = [0; size_of::<Response>()];
        stream.read_exact(&mut response).unwrap();
        let response = Response::read_from_bytes(&response).unwrap();
        assert_eq!(response.result(), SdResult::SUCCESS);
    }
}

/// Other gateways have the copy that names the new object: it stays, and the update is made once more
/// in all of them.
#[test]
fn a_map_update_that_a_snapshot_undid_in_one_copy_is_made_again_in_all() {
    let server = Server::lamb(&["--mimic-1.0"]);
    let overtaken = Overtaken::new(is_map_update);
    let flock = Undone { overtaken: overtaken.clone(), server: server.socket_address() };
    let wolf = Wolf::start(server.socket_address(), Arc::new(flock)).expect("a port");
    let pasture = Pasture { server, wolf };
    let (sd, other, safe) = (pasture.prey(), pasture.prey(), pasture.safe());
    let vdi = sd.create_with_copies("a", SIZE, 2).unwrap();
    sd.write(vdi, b"first", 0, 0).unwrap();
    sd.snapshot(vdi, "before", false).unwrap();
    let seen = other.open("a").unwrap();
    overtaken.hunt();
    thread::scope(|scope| {
        let writer = scope.spawn(|| sd.write(vdi, b"later", 0, 0));
        overtaken.await_prey();
        other.snapshot(seen, "tag", false).unwrap();
        writer.join().unwrap().unwrap();
    });
    let read = |tag| {
        let snapshot = safe.open_snapshot("a", Which::Tag(tag)).unwrap();
        let content = content(&safe, snapshot, 5, 0);
        safe.close(snapshot).unwrap();
        content
    };
    // It was under way when the snapshot was taken, and is there now, wherever that is read.
    assert_eq!(read("tag"), b"later");
    assert_eq!(content(&sd, vdi, 5, 0), b"later");
    // References are counted so that nobody loses anything by a deletion.
    safe.delete_snapshot("a", Which::Tag("tag")).unwrap();
    assert_eq!(read("before"), b"first");
    assert_eq!(content(&sd, vdi, 5, 0), b"later");
}

/// A deletion goes on with what the name stands for then; what is a snapshot by now stays (7.2).
#[test]
fn a_deletion_that_a_snapshot_overtook_spares_the_snapshot() {
    let is_map_read = |request: &Request| {
        request.opcode == op::READ_OBJ
            && oid(request).kind() == Some(OidKind::Inode)
            && request.obj().offset.get() >= MAP_OFFSET
    };
    let flock = Overtaken::new(is_map_read);
    let pasture = Pasture::new(flock.clone());
    let (sd, other, safe) = (pasture.prey(), pasture.prey(), pasture.safe());
    let vdi = create(&safe, "a");
    safe.write(vdi, b"first", 0, 0).unwrap();
    safe.close(vdi).unwrap();
    let seen = other.open("a").unwrap();
    flock.hunt();
    thread::scope(|scope| {
        let deleter = scope.spawn(|| sd.delete("a"));
        flock.await_prey();
        other.snapshot(seen, "tag", false).unwrap();
        deleter.join().unwrap().unwrap();
    });
    assert_eq!(safe.open("a").err(), Some(Code::NO_VDI));
    let snapshot = safe.open_snapshot("a", Which::Tag("tag")).unwrap();
    assert_eq!(content(&safe, snapshot, 5, 0), b"first");
}

/// A node comes back, and its recovery brings back an object that was discarded meanwhile: it is
/// there until a client removes it. Where no node has come back it is only the server's own removal
/// that takes its time, and another one would not make it safe to create the object anew.
struct BroughtBack {
    epochs: bool,
    discarded: AtomicBool,
    /// When it was first looked at after that.
    seen: Mutex<Option<Instant>>,
    removed: AtomicBool,
}

/// How long the server's own removal takes.
const TAKES_ITS_TIME: Duration = Duration::from_secs(3);

impl Flock for BroughtBack {
    fn request(&self, _: usize, request: &Request, _: &[u8]) -> Fate {
        if request.opcode == op::REMOVE_OBJ {
            self.removed.store(true, Ordering::Relaxed);
        }
        Fate::Pass
    }

    fn answer(&self, _: usize, request: &Request, answer: &mut Response, payload: &mut Vec<u8>) {
        if self.discarded.load(Ordering::Relaxed) && self.epochs {
            answer.epoch = (answer.epoch.get() + 1).into();
        }
        if !self.discarded.load(Ordering::Relaxed)
            || !is_data(request, op::READ_OBJ)
            || self.removed.load(Ordering::Relaxed)
        {
            return;
        }
        let since = *self.seen.lock().unwrap().get_or_insert_with(Instant::now);
        if self.epochs || since.elapsed() < TAKES_ITS_TIME {
            answer.result = SdResult::SUCCESS.0.into();
            answer.data_length = 1.into();
            *payload = vec![0];
        }
    }
}

#[test]
fn a_discarded_object_that_a_recovery_brings_back_is_removed_again() {
    for epochs in [true, false] {
        let flock = Arc::new(BroughtBack {
            epochs,
            discarded: AtomicBool::new(false),
            seen: Mutex::new(None),
            removed: AtomicBool::new(false),
        });
        let pasture = Pasture::new(flock.clone());
        let sd = pasture.prey();
        let vdi = create(&sd, "a");
        sd.write(vdi, b"first", 0, 0).unwrap();
        flock.discarded.store(true, Ordering::Relaxed);
        sd.discard(vdi, 0, OBJECT).unwrap();
        sd.write(vdi, b"later", 4096, 0).unwrap();
        assert_eq!(flock.removed.load(Ordering::Relaxed), epochs);
        flock.discarded.store(false, Ordering::Relaxed);
        let safe = pasture.safe();
        let found = safe.open("a").unwrap();
        assert_eq!(content(&safe, found, 5, 0), [0; 5]);
        assert_eq!(content(&safe, found, 5, 4096), b"later");
    }
}

/// Else servers lose count of references (4.2), and objects stay for ever.
#[test]
fn a_snapshot_of_ours_waits_for_our_writers() {
    const WRITERS: u64 = 4;
    let server = Server::lamb(&["--mimic-1.0"]);
    let sd = Sd::connect(&server.address(0)).unwrap();
    let vdi = create(&sd, "a");
    let done = AtomicBool::new(false);
    let results: Vec<_> = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (sd, done) = (&sd, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    sd.write(vdi, b"data", writer * OBJECT, 0).unwrap();
                }
            });
        }
        // Failures are told once the writers have ended.
        let results = (0..40).map(|n| sd.snapshot(vdi, &format!("tag {n}"), false)).collect();
        done.store(true, Ordering::Relaxed);
        results
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    sd.close(vdi).unwrap();
    delete_all(&sd, "a");
    let found = server.await_objects(|found| found.data == 0);
    assert!(found.is_ok(), "{found:?} left");
}

/// Keeps map updates from the server; notes whether a write ends nevertheless.
struct Unmapped {
    hunting: AtomicBool,
    ended: (Mutex<usize>, Condvar),
}

impl Flock for Unmapped {
    fn request(&self, _: usize, request: &Request, _: &[u8]) -> Fate {
        if is_map_update(request) && self.hunting.load(Ordering::Relaxed) {
            let ended = self.ended.0.lock().unwrap();
            drop(self.ended.1.wait_timeout_while(ended, LATE, |ended| *ended == 0).unwrap());
            return Fate::Cut;
        }
        Fate::Pass
    }
}

/// Before the map names the object, a crash takes away what was written to it: by the write that
/// created it, and by others that waited for that (5.4).
#[test]
fn no_write_ends_before_the_map_names_its_object() {
    let flock = Arc::new(Unmapped { hunting: AtomicBool::new(false), ended: Default::default() });
    let pasture = Pasture::new(flock.clone());
    let sd = pasture.prey();
    let vdi = create(&sd, "a");
    sd.set_timeout(1000);
    flock.hunting.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        for offset in [0, 4096] {
            let (sd, flock) = (&sd, &flock);
            scope.spawn(move || {
                if sd.write(vdi, b"data", offset, 0).is_ok() {
                    *flock.ended.0.lock().unwrap() += 1;
                    flock.ended.1.notify_all();
                }
            });
        }
    });
    assert_eq!(*flock.ended.0.lock().unwrap(), 0, "writes that a crash would undo");
    flock.hunting.store(false, Ordering::Relaxed);
    sd.set_timeout(30_000);
    sd.write(vdi, b"data", 0, 0).unwrap();
    assert_eq!(content(&sd, vdi, 4, 0), b"data");
}

/// Changes answers to requests of a kind.
struct Answers {
    hunting: AtomicBool,
    change: fn(&Request, &mut Response, &mut Vec<u8>),
}

impl Answers {
    fn new(change: fn(&Request, &mut Response, &mut Vec<u8>)) -> Arc<Answers> {
        Arc::new(Answers { hunting: AtomicBool::new(false), change })
    }

    fn hunt(&self, on: bool) {
        self.hunting.store(on, Ordering::Relaxed);
    }
}

impl Flock for Answers {
    fn answer(&self, _: usize, request: &Request, answer: &mut Response, payload: &mut Vec<u8>) {
        if self.hunting.load(Ordering::Relaxed) {
            (self.change)(request, answer, payload);
        }
    }
}

/// Older servers leave zeros off (4.3).
#[test]
fn what_a_short_answer_leaves_off_is_zero() {
    let flock = Answers::new(|request, _, payload| {
        if is_data(request, op::READ_OBJ) {
            let len = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            payload.truncate(len);
        }
    });
    let pasture = Pasture::new(flock.clone());
    let sd = pasture.prey();
    let vdi = create(&sd, "a");
    sd.write(vdi, b"data", 100, 0).unwrap();
    flock.hunt(true);
    let mut want = vec![0; 8000];
    want[100..104].copy_from_slice(b"data");
    assert_eq!(content(&sd, vdi, 8000, 0), want);
    assert_eq!(content(&sd, vdi, 500, 5000), [0; 500]);
}

/// The payload of a failure is no data (0.3).
#[test]
fn a_read_that_fails_is_an_error_and_leaves_the_buffer_alone() {
    let flock = Answers::new(|request, answer, _| {
        if is_data(request, op::READ_OBJ) {
            answer.result = SdResult::EIO.into();
        }
    });
    let pasture = Pasture::new(flock.clone());
    let sd = pasture.prey();
    let vdi = create(&sd, "a");
    sd.write(vdi, &[7; 8000], 0, 0).unwrap();
    flock.hunt(true);
    let mut buf = [0xa5; 8000];
    assert!(sd.read(vdi, &mut buf, 0).is_err());
    assert_eq!(buf, [0xa5; 8000]);
    flock.hunt(false);
    assert_eq!(content(&sd, vdi, 8000, 0), [7; 8000]);
}

/// A write that is refused has not happened, whatever the reason.
#[test]
fn a_write_that_fails_is_an_error() {
    let flock = Answers::new(|request, answer, _| {
        if is_data(request, op::WRITE_OBJ) || is_data(request, op::CREATE_AND_WRITE_OBJ) {
            answer.result = SdResult::NO_SPACE.into();
        }
    });
    let pasture = Pasture::new(flock.clone());
    let sd = pasture.prey();
    let vdi = create(&sd, "a");
    sd.write(vdi, b"data", 0, 0).unwrap();
    flock.hunt(true);
    for offset in [0, OBJECT] {
        assert!(sd.write(vdi, b"more", offset, 0).is_err(), "at {offset}");
    }
}

/// An inode that cannot be read says nothing about what it names: it is not taken for empty, or for
/// what the answer to the failure brought (7.3).
#[test]
fn what_cannot_read_the_inode_changes_nothing() {
    let flock = Answers::new(|request, answer, payload| {
        let is_read = request.opcode == op::READ_OBJ;
        if is_read && oid(request).kind() == Some(OidKind::Inode) {
            answer.result = SdResult::EIO.into();
            payload.fill(0);
        }
    });
    let pasture = Pasture::new(flock.clone());
    let (sd, safe) = (pasture.prey(), pasture.safe());
    let vdi = create(&safe, "a");
    safe.write(vdi, b"first", 0, 0).unwrap();
    safe.snapshot(vdi, "tag", false).unwrap();
    safe.write(vdi, b"later", 0, 0).unwrap();
    let snapshot = sd.open_snapshot("a", Which::Tag("tag")).unwrap();

    flock.hunt(true);
    sd.set_timeout(2000);
    assert!(sd.open("a").is_err());
    assert!(sd.rollback(snapshot).is_err());
    assert!(sd.delete("a").is_err());
    assert!(sd.close(snapshot).is_ok());
    assert!(sd.delete_snapshot("a", Which::Tag("tag")).is_err());
    assert!(sd.list().is_err());

    safe.refresh(vdi).unwrap();
    assert_eq!(content(&safe, vdi, 5, 0), b"later");
    let snapshot = safe.open_snapshot("a", Which::Tag("tag")).unwrap();
    assert_eq!(content(&safe, snapshot, 5, 0), b"first");
}

/// Nor is a map that cannot be read: without it a deletion does not know what to release.
#[test]
fn a_deletion_that_cannot_read_the_map_deletes_nothing() {
    let flock = Answers::new(|request, answer, payload| {
        let is_map =
            oid(request).kind() == Some(OidKind::Inode) && request.obj().offset.get() >= MAP_OFFSET;
        if request.opcode == op::READ_OBJ && is_map {
            answer.result = SdResult::EIO.into();
            payload.fill(0);
        }
    });
    let pasture = Pasture::new(flock.clone());
    let (sd, safe) = (pasture.prey(), pasture.safe());
    let vdi = create(&safe, "a");
    safe.write(vdi, b"first", 0, 0).unwrap();
    safe.snapshot(vdi, "tag", false).unwrap();
    safe.write(vdi, b"later", 0, 0).unwrap();
    safe.close(vdi).unwrap();

    flock.hunt(true);
    assert!(sd.delete_snapshot("a", Which::Tag("tag")).is_err());
    assert!(sd.delete("a").is_err());
    // DEL_VDI of a VDI with objects would have hidden it (4.11).
    assert_eq!(safe.list().unwrap(), ["a"]);
    let snapshot = safe.open_snapshot("a", Which::Tag("tag")).unwrap();
    assert_eq!(content(&safe, snapshot, 5, 0), b"first");
    let vdi = safe.open("a").unwrap();
    assert_eq!(content(&safe, vdi, 5, 0), b"later");
}

/// A server without the inode that a lookup has named: an error, soon (7.3, tgt).
#[test]
fn an_inode_that_is_not_there_is_an_error() {
    let flock = Answers::new(|request, answer, payload| {
        let is_read = request.opcode == op::READ_OBJ;
        if is_read && oid(request).kind() == Some(OidKind::Inode) {
            answer.result = SdResult::NO_OBJ.into();
            payload.clear();
        }
    });
    let pasture = Pasture::new(flock.clone());
    let sd = pasture.prey();
    let vdi = create(&sd, "a");
    sd.close(vdi).unwrap();
    flock.hunt(true);
    assert!(!matches!(sd.open("a"), Ok(_) | Err(Code::TIMEDOUT)));
}

/// Lets a number of requests through, and then nothing any more.
#[derive(Default)]
struct End {
    hunting: AtomicBool,
    left: AtomicUsize,
}

impl Flock for End {
    fn request(&self, _: usize, _: &Request, _: &[u8]) -> Fate {
        if !self.hunting.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        let one_less = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Fate::Pass,
            Err(_) => Fate::Cut,
        }
    }
}

/// Runs an operation again and again, cut off after one request more each time, until it succeeds;
/// after each, `check` looks at what there is, with whether it succeeded.
fn break_off(
    prepare: impl Fn(&Sd),
    operation: impl Fn(&Sd) -> Result<(), Code>,
    check: impl Fn(&Sd, bool),
) {
    let flock = Arc::new(End::default());
    let pasture = Pasture::new(flock.clone());
    let safe = pasture.safe();
    for requests in 0.. {
        assert!(requests < 200, "it does not end");
        prepare(&safe);
        let sd = pasture.prey();
        // Later runs have more to do before they are cut off, whatever else the machine does.
        sd.set_timeout(200 + 20 * requests as u32);
        flock.left.store(requests, Ordering::Relaxed);
        flock.hunting.store(true, Ordering::Relaxed);
        let done = operation(&sd).is_ok();
        drop(sd);
        flock.hunting.store(false, Ordering::Relaxed);
        // Nothing goes on that was under way when the time ran out.
        pasture.wolf.settle();
        check(&safe, done);
        if done {
            assert!(requests > 0);
            return;
        }
    }
}

fn delete_all(sd: &Sd, name: &str) {
    let ids = sd.snapshots(name, |handle| sd.info(handle).unwrap().snap_id);
    for id in ids.unwrap_or_default() {
        sd.delete_snapshot(name, Which::Id(id)).unwrap();
    }
    match sd.delete(name) {
        Ok(()) | Err(Code::NO_VDI) => {}
        Err(code) => panic!("{name}: {code}"),
    }
}

/// `dog` deletes the VDI first (7.3).
#[test]
fn a_rollback_that_breaks_off_leaves_the_vdi_as_it_was_or_as_it_should_be() {
    break_off(
        |safe| {
            delete_all(safe, "a");
            let vdi = create(safe, "a");
            safe.write(vdi, b"first", 0, 0).unwrap();
            safe.snapshot(vdi, "tag", false).unwrap();
            safe.write(vdi, b"later", 0, 0).unwrap();
            safe.close(vdi).unwrap();
        },
        |sd| {
            let snapshot = sd.open_snapshot("a", Which::Tag("tag"))?;
            sd.rollback(snapshot)
        },
        |safe, done| {
            let vdi = safe.open("a").unwrap();
            let found = content(safe, vdi, 5, 0);
            assert!(found == b"first" || (found == b"later" && !done), "{found:?}, done: {done}");
            safe.close(vdi).unwrap();
        },
    );
}

#[test]
fn a_snapshot_that_breaks_off_leaves_the_vdi_with_its_content() {
    break_off(
        |safe| {
            delete_all(safe, "a");
            let vdi = create(safe, "a");
            safe.write(vdi, b"data", 0, 0).unwrap();
            safe.close(vdi).unwrap();
        },
        |sd| {
            let vdi = sd.open("a")?;
            sd.snapshot(vdi, "tag", false).map(drop)
        },
        |safe, done| {
            let vdi = safe.open("a").unwrap();
            assert_eq!(content(safe, vdi, 4, 0), b"data");
            safe.close(vdi).unwrap();
            match safe.open_snapshot("a", Which::Tag("tag")) {
                Ok(snapshot) => {
                    assert_eq!(content(safe, snapshot, 4, 0), b"data");
                    safe.close(snapshot).unwrap();
                }
                Err(code) => assert!(!done && code == Code::NO_TAG, "{code}"),
            }
        },
    );
}

/// Broken off, a deletion can be repeated, and takes nothing that others share.
#[test]
fn a_deletion_that_breaks_off_can_be_repeated() {
    break_off(
        |safe| {
            delete_all(safe, "a");
            delete_all(safe, "clone");
            let vdi = create(safe, "a");
            safe.write(vdi, b"first", 0, 0).unwrap();
            let snapshot = safe.snapshot(vdi, "tag", true).unwrap().expect("a handle");
            safe.clone_vdi(snapshot, "clone", Which::Handle, false).unwrap();
            safe.close(snapshot).unwrap();
            safe.write(vdi, b"later", OBJECT, 0).unwrap();
            safe.close(vdi).unwrap();
        },
        |sd| {
            sd.delete("a")?;
            sd.delete_snapshot("a", Which::Tag("tag"))
        },
        |safe, done| {
            if !done {
                delete_all(safe, "a");
            }
            assert_eq!(safe.open("a").err(), Some(Code::NO_VDI));
            let clone = safe.open("clone").unwrap();
            assert_eq!(content(safe, clone, 5, 0), b"first");
            safe.close(clone).unwrap();
        },
    );
}

/// A snapshot gives the working VDI another id: the lock moves along, and each that was taken is
/// given back (4.10, 7.3).
#[test]
fn locks_move_with_the_working_vdi() {
    let server = Server::lamb(&["--mimic-1.0", "--use-lock"]);
    let rules = Arc::new(Rules::new(server.socket_address()));
    let wolf = Wolf::start(server.socket_address(), rules.clone()).expect("a port");
    let sd = Sd::connect(&wolf.address().to_string()).unwrap();
    let other = Sd::connect(&server.address(0)).unwrap();
    let vdi = create(&sd, "a");
    sd.write(vdi, b"first", 0, 0).unwrap();
    let snapshot = sd.snapshot(vdi, "tag", true).unwrap().expect("a handle");
    sd.write(vdi, b"later", 0, 0).unwrap();
    sd.rollback(snapshot).unwrap();
    assert_eq!(other.open("a").err(), Some(Code::VDI_LOCKED));
    assert_eq!(content(&sd, vdi, 5, 0), b"first");
    sd.close(vdi).unwrap();
    let vdi = other.open("a").unwrap();
    other.close(vdi).unwrap();
    sd.close(snapshot).unwrap();
    sd.delete_snapshot("a", Which::Tag("tag")).unwrap();
    sd.delete("a").unwrap();
    drop(sd);
    assert_eq!(rules.broken(), [""; 0]);
}
