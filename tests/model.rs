//! Two clients and a model: random sequences of all operations, through the C functions, must do
//! what a plain vector of bytes for each VDI and snapshot says.
//!
//! A VDI has one writing client at a time; the other one meanwhile takes snapshots, clones,
//! resizes, rolls back, deletes snapshots, and reads, after a refresh where contents have changed
//! since it looked. The model also knows which objects there must be, so that none is lost and
//! none leaks.
//!
//! Runs on a lamb of its own, or on the cluster at SD_TEST_ADDR (`make soak`), which must not
//! enforce locks and which nobody else must use if SD_TEST_STORE_DIR tells where to count objects.
//! SD_SEED repeats a case, SD_SOAK_STEPS and SD_SOAK_SECONDS say how long to go on.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use common::api::{Code, Extent, Info, Result as Sd_, Sd, Vdi, Which};
use common::server::{self, Objects, Server};

const MIB: u64 = 1 << 20;
/// The largest VDI.
const MAX_SIZE: u64 = 9 * MIB / 2;
const TAGS: [&str; 3] = ["one", "two", "dreißig"];
const KEYS: [&str; 2] = ["owner", "Schlüssel"];
/// What clients and names are called in reports.
const CLIENTS: [&str; 2] = ["A", "B"];
const LETTERS: [&str; 3] = ["a", "b", "c"];
const FUA: i32 = 1;
/// Steps between two checks of everything.
const CHECK_EVERY: usize = 10;
/// Steps of a run, unless the environment says otherwise.
const STEPS: usize = 2000;
/// Handles that a client has on one working VDI.
const MAX_HANDLES: usize = 2;

// --- Steps: what proptest generates and shrinks ---

/// What is to be done, by whom, to the VDI with which name. A step that needs an open handle, or a
/// VDI, makes them: so every sequence makes sense, and those that shrinking leaves do too.
#[derive(Clone)]
struct Step {
    client: usize,
    name: usize,
    action: Action,
}

/// On one line, also where proptest asks for more.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", CLIENTS[self.client], LETTERS[self.name], self.action)
    }
}

#[derive(Clone, Debug)]
enum Action {
    Create { size: u64, prealloc: bool, open: bool },
    Open,
    Close,
    Delete,
    Read { at: u64, len: u64, vectored: bool },
    Write { at: u64, len: u64, vectored: bool, fua: bool },
    Zero { at: u64, len: u64, discard: bool },
    BlockStatus { at: u64, len: u64 },
    Resize { size: u64 },
    Flush,
    Refresh,
    Info,
    List,
    Snapshot { tag: usize, open: bool },
    SnapshotOpen { nth: usize, by_tag: bool },
    SnapshotClose { nth: usize },
    SnapshotRead { nth: usize, at: u64, len: u64 },
    SnapshotDelete { nth: usize, by_tag: bool },
    SnapshotMissing,
    Rollback { nth: usize },
    Clone { nth: usize, by: By, to: usize, open: bool },
    SetAttr { key: usize, len: usize },
    GetAttr { key: usize, room: usize },
    DeleteAttr { key: usize },
    Invalid,
}

/// How a clone names its source.
#[derive(Clone, Copy, Debug)]
enum By {
    Handle,
    Tag,
    Id,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Most of what happens, happens to one name: so that much comes together.
    let name = prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2usize)];
    let step = (0..2usize, name, action());
    let step = step.prop_map(|(client, name, action)| Step { client, name, action });
    prop::collection::vec(step, 1..120)
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    // Positions and lengths at objects' borders, near them, and anywhere.
    let near = || (0..5 * MIB, 0..7u64).prop_map(|(n, by)| (n / MIB * MIB + by).saturating_sub(3));
    let at = || prop_oneof![near(), 0..5 * MIB, (0..5u64).prop_map(|n| n * MIB)];
    let len = || prop_oneof![0..5000u64, near(), (0..5u64).prop_map(|n| n * MIB)];
    let size = || at().prop_map(|size| size.clamp(1, MAX_SIZE));
    let by = || prop_oneof![Just(By::Handle), Just(By::Tag), Just(By::Id)];
    let nth = || 0..3usize;
    let bit = any::<bool>;
    prop_oneof![
        3 => (size(), prop::bool::weighted(0.2), bit())
            .prop_map(|(size, prealloc, open)| Create { size, prealloc, open }),
        2 => Just(Open),
        3 => Just(Close),
        2 => Just(Delete),
        6 => (at(), len(), bit()).prop_map(|(at, len, vectored)| Read { at, len, vectored }),
        20 => (at(), len(), bit(), prop::bool::weighted(0.1))
            .prop_map(|(at, len, vectored, fua)| Write { at, len, vectored, fua }),
        8 => (at(), len(), bit()).prop_map(|(at, len, discard)| Zero { at, len, discard }),
        2 => (at(), len()).prop_map(|(at, len)| BlockStatus { at, len }),
        6 => size().prop_map(|size| Resize { size }),
        1 => Just(Flush),
        2 => Just(Refresh),
        1 => Just(Info),
        1 => Just(List),
        10 => (0..3usize, bit()).prop_map(|(tag, open)| Snapshot { tag, open }),
        2 => (nth(), bit()).prop_map(|(nth, by_tag)| SnapshotOpen { nth, by_tag }),
        2 => nth().prop_map(|nth| SnapshotClose { nth }),
        3 => (nth(), at(), len()).prop_map(|(nth, at, len)| SnapshotRead { nth, at, len }),
        5 => (nth(), bit()).prop_map(|(nth, by_tag)| SnapshotDelete { nth, by_tag }),
        1 => Just(SnapshotMissing),
        4 => nth().prop_map(|nth| Rollback { nth }),
        5 => (nth(), by(), 0..3usize, bit())
            .prop_map(|(nth, by, to, open)| Clone { nth, by, to, open }),
        2 => (0..2usize, 0..70_000usize).prop_map(|(key, len)| SetAttr { key, len }),
        2 => (0..2usize, 0..70_000usize).prop_map(|(key, room)| GetAttr { key, room }),
        1 => (0..2usize).prop_map(|key| DeleteAttr { key }),
        2 => Just(Invalid),
    ]
}

// --- The model ---

/// A working VDI or a snapshot.
#[derive(Clone)]
struct Inode {
    /// A number of its own: that of the inode which made an object is the object's.
    owner: u32,
    snap_id: u32,
    /// Empty: a working VDI.
    tag: &'static str,
    object_size: u64,
    /// Whose object each index has.
    map: Vec<Option<u32>>,
    data: Vec<u8>,
}

impl Inode {
    fn new(owner: u32, snap_id: u32, size: u64, object_size: u64, prealloc: bool) -> Inode {
        let map = vec![prealloc.then_some(owner); size.div_ceil(object_size) as usize];
        Inode { owner, snap_id, tag: "", object_size, map, data: vec![0; size as usize] }
    }

    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// A working VDI that starts as a copy.
    fn derive(&self, owner: u32, snap_id: u32) -> Inode {
        Inode { owner, snap_id, tag: "", ..self.clone() }
    }

    /// A range cut to what fits.
    fn clip(&self, at: u64, len: u64) -> Range<u64> {
        let at = if at > self.size() { at % (self.size() + 1) } else { at };
        at..at + len.min(self.size() - at)
    }

    fn bytes(&self, range: &Range<u64>) -> &[u8] {
        &self.data[range.start as usize..range.end as usize]
    }

    /// The objects that a range touches: index, part of the range, and whether that is all of it.
    fn objects(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (usize, Range<u64>, bool)> + use<> {
        let (range, object, size) = (range.clone(), self.object_size, self.size());
        let end = if range.is_empty() { 0 } else { range.end.div_ceil(object) };
        (range.start / object..end).map(move |index| {
            let (start, end) = (index * object, ((index + 1) * object).min(size));
            let part = range.start.max(start)..range.end.min(end);
            let whole = part == (start..end);
            (index as usize, part, whole)
        })
    }

    fn write(&mut self, range: &Range<u64>, data: &[u8]) {
        for (index, ..) in self.objects(range) {
            self.map[index] = Some(self.owner);
        }
        self.data[range.start as usize..range.end as usize].copy_from_slice(data);
    }

    fn zero(&mut self, range: &Range<u64>) {
        for (index, _, whole) in self.objects(range) {
            let entry = &mut self.map[index];
            *entry = entry.and((!whole).then_some(self.owner));
        }
        self.data[range.start as usize..range.end as usize].fill(0);
    }

    fn resize(&mut self, size: u64) {
        // The rest of the last object is zeroed, which takes an object of its own.
        if size < self.size() && !size.is_multiple_of(self.object_size) {
            let entry = &mut self.map[(size / self.object_size) as usize];
            *entry = entry.and(Some(self.owner));
        }
        self.map.resize(size.div_ceil(self.object_size) as usize, None);
        self.data.resize(size as usize, 0);
    }

    fn extents(&self, range: &Range<u64>) -> Vec<(u64, u64, Extent)> {
        let mut extents: Vec<(u64, u64, Extent)> = Vec::new();
        for (index, part, _) in self.objects(range) {
            let kind = match self.map[index] {
                None => Extent::Hole,
                Some(owner) if owner == self.owner => Extent::Allocated,
                Some(_) => Extent::Shared,
            };
            match extents.last_mut() {
                Some(last) if last.2 == kind => last.1 += part.end - part.start,
                _ => extents.push((part.start, part.end - part.start, kind)),
            }
        }
        extents
    }

    fn info(&self, name: &str) -> Info {
        Info {
            name: name.to_owned(),
            tag: self.tag.to_owned(),
            size: self.size(),
            object_size: self.object_size,
            allocated: self.map.iter().flatten().count() as u64 * self.object_size,
            snap_id: self.snap_id,
            is_snapshot: !self.tag.is_empty(),
        }
    }
}

/// What has one name.
#[derive(Default)]
struct Family {
    working: Option<Inode>,
    /// In the order of their ids.
    snapshots: Vec<Inode>,
    attrs: BTreeMap<&'static str, Vec<u8>>,
    /// The client that writes, until it closes its last handle.
    writer: Option<usize>,
}

impl Family {
    fn next_snap_id(&self) -> u32 {
        self.working.iter().chain(&self.snapshots).map(|inode| inode.snap_id).max().unwrap_or(0) + 1
    }

    /// A snapshot, if there is any.
    fn snapshot(&self, nth: usize) -> Option<&Inode> {
        self.snapshots.get(nth % self.snapshots.len().max(1))
    }

    /// What asking for a snapshot gives that does not exist.
    fn no_snapshot(&self) -> Code {
        if self.working.is_some() { Code::NO_TAG } else { Code::NO_VDI }
    }
}

/// What a client has open.
struct Client {
    sd: Sd,
    /// Handles on the working VDI of each name.
    handles: [Vec<Vdi>; 3],
    /// Whether the other client has changed contents, or at least the inode, since this one looked.
    stale: [Staleness; 3],
    /// Handles on snapshots: the name, the snapshot's owner number.
    snapshots: Vec<(usize, u32, Vdi)>,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Staleness {
    Current,
    Inode,
    Contents,
}

// --- Playing a sequence ---

type Check<T = ()> = Result<T, TestCaseError>;

struct Game<'a> {
    server: &'a Server,
    names: [String; 3],
    families: [Family; 3],
    clients: [Client; 2],
    /// Looks at what the servers have, through a handle of its own each time.
    observer: Sd,
    /// The cluster's object size.
    default_size: u64,
    last_owner: u32,
    steps: usize,
    /// What has been done, for the report.
    log: Vec<String>,
    /// Objects in the store at the start.
    objects_before: Objects,
}

fn fail<T>(what: impl Into<String>) -> Check<T> {
    Err(TestCaseError::fail(what.into()))
}

/// Compares two buffers, and tells where they begin to differ.
fn same(what: &str, got: &[u8], want: &[u8], at: u64) -> Check {
    if got == want {
        return Ok(());
    }
    let differ = |i: &usize| got[*i] != want[*i];
    let (first, count) = ((0..want.len()).find(differ), (0..want.len()).filter(differ).count());
    let first = first.unwrap_or(0);
    let (got, want, at) = (got[first], want[first], at + first as u64);
    fail(format!("{what}: byte {at} is {got:#x}, not {want:#x}; {count} bytes differ"))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Check {
    if got == want { Ok(()) } else { fail(format!("{what}: got {got:?}, expected {want:?}")) }
}

/// Random bytes, any part of which differs from any other part.
fn noise() -> &'static [u8] {
    static NOISE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| {
        let mut state = 1u64;
        let words = (0..(MAX_SIZE + MIB) / 8).flat_map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state ^ state >> 29).to_le_bytes()
        });
        words.collect()
    })
}

impl Game<'_> {
    fn new(server: &Server, default_size: u64) -> Game<'_> {
        static GAMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let game = GAMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let client = |number| Sd::connect(&server.address(number)).expect("a server to connect to");
        let clients = [0, 1].map(|number| Client {
            sd: client(number),
            handles: Default::default(),
            stale: [Staleness::Current; 3],
            snapshots: Vec::new(),
        });
        let names = ["a", "b", "c"].map(|n| format!("model-{}-{game}-{n}", std::process::id()));
        Game {
            names,
            families: Default::default(),
            clients,
            observer: client(2),
            default_size,
            last_owner: 0,
            steps: 0,
            log: Vec::new(),
            objects_before: server.objects().unwrap_or_default(),
            server,
        }
    }

    fn play(&mut self, steps: &[Step]) -> Check {
        for step in steps {
            self.steps += 1;
            self.step(step.client, step.name, &step.action)?;
            self.check_working(step.name)?;
            if self.steps.is_multiple_of(CHECK_EVERY) {
                self.check_all()?;
            }
        }
        self.check_all()?;
        self.delete_all()
    }

    /// Notes a call and compares its result. Some: it has succeeded, as it should.
    fn call<T>(
        &mut self,
        c: usize,
        what: String,
        want: Option<Code>,
        got: Sd_<T>,
    ) -> Check<Option<T>> {
        let result = got.as_ref().map_or_else(Code::to_string, |_| "ok".to_owned());
        self.log.push(format!("{}: {what} -> {result}", CLIENTS[c]));
        match (got, want) {
            (Ok(value), None) => Ok(Some(value)),
            (Err(code), Some(want)) if code == want => Ok(None),
            (_, Some(want)) => fail(format!("{what}: expected {want}")),
            (_, None) => fail(format!("{what}: expected success")),
        }
    }

    /// A call that must succeed.
    fn ok<T>(&mut self, c: usize, what: String, got: Sd_<T>) -> Check<T> {
        self.call(c, what, None, got)?.map_or_else(|| fail("unreachable"), Ok)
    }

    fn new_owner(&mut self) -> u32 {
        self.last_owner += 1;
        self.last_owner
    }

    /// The working VDI of a name, which exists.
    fn working(&mut self, n: usize) -> &mut Inode {
        self.families[n].working.as_mut().expect("a working VDI")
    }

    /// `client` has changed the contents of a VDI, or its inode.
    fn changed(&mut self, client: usize, n: usize, how: Staleness) {
        let stale = &mut self.clients[1 - client].stale[n];
        if how > *stale {
            *stale = how;
        }
    }

    // Handles

    fn opened(&mut self, c: usize, n: usize, handle: Vdi) {
        let client = &mut self.clients[c];
        if client.handles[n].is_empty() {
            client.stale[n] = Staleness::Current;
        }
        client.handles[n].push(handle);
    }

    fn open(&mut self, c: usize, n: usize) -> Check {
        let want = if self.families[n].working.is_some() { None } else { Some(Code::NO_VDI) };
        let got = self.clients[c].sd.open(&self.names[n]);
        if let Some(handle) = self.call(c, format!("open {}", LETTERS[n]), want, got)? {
            self.opened(c, n, handle);
        }
        Ok(())
    }

    fn close(&mut self, c: usize, n: usize) -> Check {
        let Some(handle) = self.clients[c].handles[n].pop() else { return Ok(()) };
        let got = self.clients[c].sd.close(handle);
        self.ok(c, format!("close {}", LETTERS[n]), got)?;
        if self.clients[c].handles[n].is_empty() && self.families[n].writer == Some(c) {
            self.families[n].writer = None;
        }
        Ok(())
    }

    fn close_all(&mut self, c: usize, n: usize) -> Check {
        while !self.clients[c].handles[n].is_empty() {
            self.close(c, n)?;
        }
        Ok(())
    }

    /// A handle on the working VDI, opened and created where it has to be.
    fn handle(&mut self, c: usize, n: usize) -> Check<Vdi> {
        if self.families[n].working.is_none() {
            self.create(c, n, 5 * MIB / 2, false, true)?;
        }
        if self.clients[c].handles[n].is_empty() {
            self.open(c, n)?;
        }
        Ok(*self.clients[c].handles[n].last().expect("an open handle"))
    }

    /// As `handle`, of a client that knows the VDI at least as well as said.
    fn current_handle(&mut self, c: usize, n: usize, at_least: Staleness) -> Check<Vdi> {
        let handle = self.handle(c, n)?;
        if self.clients[c].stale[n] >= at_least {
            self.refresh(c, n)?;
        }
        Ok(handle)
    }

    fn refresh(&mut self, c: usize, n: usize) -> Check {
        let handle = self.handle(c, n)?;
        let got = self.clients[c].sd.refresh(handle);
        self.ok(c, format!("refresh {}", LETTERS[n]), got)?;
        self.clients[c].stale[n] = Staleness::Current;
        Ok(())
    }

    /// The client that may write, and its handle.
    fn writer(&mut self, c: usize, n: usize) -> Check<(usize, Vdi)> {
        let c = self.families[n].writer.unwrap_or(c);
        let handle = match self.families[n].writer {
            Some(_) => self.handle(c, n)?,
            None => self.current_handle(c, n, Staleness::Contents)?,
        };
        self.families[n].writer = Some(c);
        Ok((c, handle))
    }

    /// The handle of a snapshot, opened where it has to be. None: the name has no snapshot.
    fn snapshot_handle(&mut self, c: usize, n: usize, nth: usize) -> Check<Option<(Inode, Vdi)>> {
        let Some(snapshot) = self.families[n].snapshot(nth).cloned() else { return Ok(None) };
        let is_it = |(name, owner, _): &&(_, _, _)| (*name, *owner) == (n, snapshot.owner);
        if let Some((.., handle)) = self.clients[c].snapshots.iter().find(is_it) {
            return Ok(Some((snapshot, *handle)));
        }
        let handle = self.open_snapshot(c, n, &snapshot, true)?;
        Ok(Some((snapshot, handle)))
    }

    fn open_snapshot(&mut self, c: usize, n: usize, snapshot: &Inode, by_tag: bool) -> Check<Vdi> {
        let which = which(snapshot, by_tag);
        let got = self.clients[c].sd.open_snapshot(&self.names[n], which);
        let handle = self.ok(c, format!("open snapshot of {}, {which}", LETTERS[n]), got)?;
        self.clients[c].snapshots.push((n, snapshot.owner, handle));
        Ok(handle)
    }

    fn close_snapshot(&mut self, c: usize, at: usize) -> Check {
        let (n, _, handle) = self.clients[c].snapshots.remove(at);
        let got = self.clients[c].sd.close(handle);
        self.ok(c, format!("close a snapshot of {}", LETTERS[n]), got)
    }

    // Steps

    fn step(&mut self, c: usize, n: usize, action: &Action) -> Check {
        match *action {
            Action::Create { size, prealloc, open } => self.create(c, n, size, prealloc, open),
            Action::Open if self.clients[c].handles[n].len() >= MAX_HANDLES => self.close(c, n),
            Action::Open => self.open(c, n),
            Action::Close => self.close(c, n),
            Action::Delete => self.delete(c, n),
            Action::Read { at, len, vectored } => self.read(c, n, at, len, vectored),
            Action::Write { at, len, vectored, fua } => self.write(c, n, at, len, vectored, fua),
            Action::Zero { at, len, discard } => self.zero(c, n, at, len, discard),
            Action::BlockStatus { at, len } => self.block_status(c, n, at, len),
            Action::Resize { size } => self.resize(c, n, size),
            Action::Flush => {
                let handle = self.handle(c, n)?;
                let got = self.clients[c].sd.flush(handle);
                self.ok(c, format!("flush {}", LETTERS[n]), got)
            }
            Action::Refresh => self.refresh(c, n),
            Action::Info => {
                let handle = self.handle(c, n)?;
                let got = self.clients[c].sd.info(handle);
                let info = self.ok(c, format!("info of {}", LETTERS[n]), got)?;
                let want = self.families[n].working.as_ref().map(|vdi| vdi.info(&self.names[n]));
                equal("info", Some(info), want)
            }
            Action::List => self.check_list(c),
            Action::Snapshot { tag, open } => self.snapshot(c, n, TAGS[tag], open),
            Action::SnapshotOpen { nth, by_tag } => {
                let Some(snapshot) = self.families[n].snapshot(nth).cloned() else { return Ok(()) };
                self.open_snapshot(c, n, &snapshot, by_tag).map(drop)
            }
            Action::SnapshotClose { nth } => match self.clients[c].snapshots.len() {
                0 => Ok(()),
                count => self.close_snapshot(c, nth % count),
            },
            Action::SnapshotRead { nth, at, len } => {
                let Some((snapshot, handle)) = self.snapshot_handle(c, n, nth)? else {
                    return Ok(());
                };
                let range = snapshot.clip(at, len);
                let mut buf = vec![0xa5; (range.end - range.start) as usize];
                let got = self.clients[c].sd.snapshot_read(handle, &mut buf, range.start);
                let what = format!("read snapshot {} of {} {range:?}", snapshot.tag, LETTERS[n]);
                self.ok(c, what, got)?;
                same("snapshot", &buf, snapshot.bytes(&range), range.start)
            }
            Action::SnapshotDelete { nth, by_tag } => self.delete_snapshot(c, n, nth, by_tag),
            Action::SnapshotMissing => self.missing_snapshots(c, n),
            Action::Rollback { nth } => self.rollback(c, n, nth),
            Action::Clone { nth, by, to, open } => self.clone_vdi(c, n, nth, by, to, open),
            Action::SetAttr { key, len } => self.set_attr(c, n, KEYS[key], len),
            Action::GetAttr { key, room } => self.get_attr(c, n, KEYS[key], room),
            Action::DeleteAttr { key } => {
                let family = &mut self.families[n];
                let want = match (&family.working, family.attrs.remove(KEYS[key])) {
                    (None, _) => Some(Code::NO_VDI),
                    (_, None) => Some(Code::NO_OBJ),
                    _ => None,
                };
                let got = self.clients[c].sd.delete_attr(&self.names[n], KEYS[key]);
                self.call(c, format!("delattr {} {}", LETTERS[n], KEYS[key]), want, got).map(drop)
            }
            Action::Invalid => self.invalid_calls(c, n),
        }
    }

    fn create(&mut self, c: usize, n: usize, size: u64, prealloc: bool, open: bool) -> Check {
        let object_size = if n == 2 { None } else { Some(MIB) };
        let want = self.families[n].working.as_ref().map(|_| Code::VDI_EXIST);
        let got = self.clients[c].sd.create(&self.names[n], size, object_size, prealloc, open);
        let what = format!(
            "create {} of {size} bytes, objects of {object_size:?}{}{}",
            LETTERS[n],
            if prealloc { ", preallocated" } else { "" },
            if open { ", open" } else { "" },
        );
        if let Some(handle) = self.call(c, what, want, got)? {
            let (owner, family) = (self.new_owner(), &mut self.families[n]);
            let object_size = object_size.unwrap_or(self.default_size);
            let vdi = Inode::new(owner, family.next_snap_id(), size, object_size, prealloc);
            family.working = Some(vdi);
            if let Some(handle) = handle {
                self.opened(c, n, handle);
            }
        }
        Ok(())
    }

    fn delete(&mut self, c: usize, n: usize) -> Check {
        let busy = !self.clients[c].handles[n].is_empty();
        let exists = self.families[n].working.is_some();
        if exists && !busy {
            // Servers do not stop the deletion of what another client has open, and 1.0 ones keep
            // the attributes: neither is what this test is about.
            self.close_all(1 - c, n)?;
            while let Some((key, _)) = self.families[n].attrs.pop_first() {
                let got = self.clients[c].sd.delete_attr(&self.names[n], key);
                self.ok(c, format!("delattr {} {key}", LETTERS[n]), got)?;
            }
        }
        let want = match (busy, exists) {
            (true, _) => Some(Code::VDI_LOCKED),
            (false, false) => Some(Code::NO_VDI),
            (false, true) => None,
        };
        let got = self.clients[c].sd.delete(&self.names[n]);
        if self.call(c, format!("delete {}", LETTERS[n]), want, got)?.is_some() {
            self.families[n].working = None;
        }
        Ok(())
    }

    fn read(&mut self, c: usize, n: usize, at: u64, len: u64, vectored: bool) -> Check {
        let handle = self.current_handle(c, n, Staleness::Contents)?;
        let range = self.working(n).clip(at, len);
        let mut buf = vec![0xa5; (range.end - range.start) as usize];
        let sd = &self.clients[c].sd;
        let got = if vectored {
            let middle = len as usize % (buf.len() + 1);
            let (left, right) = buf.split_at_mut(middle);
            sd.readv(handle, &mut [IoSliceMut::new(left), IoSliceMut::new(right)], range.start)
        } else {
            sd.read(handle, &mut buf, range.start)
        };
        self.ok(c, format!("read {} {range:?}", LETTERS[n]), got)?;
        same("read", &buf, self.working(n).bytes(&range), range.start)
    }

    fn write(&mut self, c: usize, n: usize, at: u64, len: u64, vectored: bool, fua: bool) -> Check {
        let (c, handle) = self.writer(c, n)?;
        let range = self.working(n).clip(at, len);
        let start = self.steps * 4099 % MIB as usize;
        let data = &noise()[start..start + (range.end - range.start) as usize];
        let flag = if fua { FUA } else { 0 };
        let sd = &self.clients[c].sd;
        let got = if vectored {
            let (left, right) = data.split_at(len as usize % (data.len() + 1));
            sd.writev(handle, &[IoSlice::new(left), IoSlice::new(right)], range.start, flag)
        } else {
            sd.write(handle, data, range.start, flag)
        };
        let what = format!("write{} {} {range:?}", if fua { " FUA" } else { "" }, LETTERS[n]);
        self.ok(c, what, got)?;
        self.working(n).write(&range, data);
        self.changed(c, n, Staleness::Contents);
        self.read_back(c, n, handle, &range)
    }

    fn zero(&mut self, c: usize, n: usize, at: u64, len: u64, discard: bool) -> Check {
        let (c, handle) = self.writer(c, n)?;
        let mut range = self.working(n).clip(at, len);
        if self.clients[c].stale[n] == Staleness::Contents {
            // Whether the last object counts as whole depends on the size, which this client may
            // not know: only whole objects then.
            let object = self.working(n).object_size;
            range.end = (range.end / object * object).max(range.start);
        }
        let (sd, len) = (&self.clients[c].sd, range.end - range.start);
        let (what, got) = match discard {
            true => ("discard", sd.discard(handle, range.start, len)),
            false => ("write zeroes", sd.write_zeroes(handle, range.start, len, 0)),
        };
        self.ok(c, format!("{what} {} {range:?}", LETTERS[n]), got)?;
        self.working(n).zero(&range);
        self.changed(c, n, Staleness::Contents);
        self.read_back(c, n, handle, &range)
    }

    /// What a client has written it reads, whatever it knows of the rest.
    fn read_back(&mut self, c: usize, n: usize, handle: Vdi, range: &Range<u64>) -> Check {
        let mut buf = vec![0xa5; (range.end - range.start) as usize];
        let got = self.clients[c].sd.read(handle, &mut buf, range.start);
        self.ok(c, format!("read {} {range:?}", LETTERS[n]), got)?;
        same("read back", &buf, self.working(n).bytes(range), range.start)
    }

    fn block_status(&mut self, c: usize, n: usize, at: u64, len: u64) -> Check {
        let handle = self.current_handle(c, n, Staleness::Inode)?;
        let range = self.working(n).clip(at, len);
        let got = self.clients[c].sd.block_status(handle, range.start, range.end - range.start);
        let extents = self.ok(c, format!("block status of {} {range:?}", LETTERS[n]), got)?;
        equal("block status", extents, self.working(n).extents(&range))
    }

    fn resize(&mut self, c: usize, n: usize, size: u64) -> Check {
        let handle = self.handle(c, n)?;
        let got = self.clients[c].sd.resize(handle, size);
        self.ok(c, format!("resize {} to {size}", LETTERS[n]), got)?;
        self.working(n).resize(size);
        self.changed(c, n, Staleness::Contents);
        Ok(())
    }

    fn snapshot(&mut self, c: usize, n: usize, tag: &'static str, open: bool) -> Check {
        let handle = self.handle(c, n)?;
        let taken = self.families[n].snapshots.iter().any(|snapshot| snapshot.tag == tag);
        let want = taken.then_some(Code::VDI_EXIST);
        let got = self.clients[c].sd.snapshot(handle, tag, open);
        let Some(opened) = self.call(c, format!("snapshot {} as {tag}", LETTERS[n]), want, got)?
        else {
            return Ok(());
        };
        let (owner, id) = (self.new_owner(), self.families[n].next_snap_id());
        let successor = self.working(n).derive(owner, id);
        let mut snapshot = std::mem::replace(self.working(n), successor);
        snapshot.tag = tag;
        if let Some(handle) = opened {
            self.clients[c].snapshots.push((n, snapshot.owner, handle));
        }
        self.families[n].snapshots.push(snapshot);
        self.clients[c].stale[n] = Staleness::Current;
        self.changed(c, n, Staleness::Inode);
        Ok(())
    }

    fn delete_snapshot(&mut self, c: usize, n: usize, nth: usize, by_tag: bool) -> Check {
        let Some(snapshot) = self.families[n].snapshot(nth).cloned() else { return Ok(()) };
        let of_it = |(name, owner, _): &(_, _, _)| (*name, *owner) == (n, snapshot.owner);
        let busy = self.clients[c].snapshots.iter().any(of_it);
        while let Some(at) = self.clients[1 - c].snapshots.iter().position(of_it)
            && !busy
        {
            self.close_snapshot(1 - c, at)?;
        }
        let (which, want) = (which(&snapshot, by_tag), busy.then_some(Code::VDI_LOCKED));
        let got = self.clients[c].sd.delete_snapshot(&self.names[n], which);
        let what = format!("delete snapshot of {}, {which}", LETTERS[n]);
        if self.call(c, what, want, got)?.is_some() {
            self.families[n].snapshots.retain(|other| other.owner != snapshot.owner);
        }
        Ok(())
    }

    /// Tags and ids that no snapshot has.
    fn missing_snapshots(&mut self, c: usize, n: usize) -> Check {
        let want = Some(self.families[n].no_snapshot());
        let id = self.families[n].next_snap_id();
        for which in [Which::Tag("none"), Which::Id(id - 1), Which::Id(id)] {
            if self.families[n]
                .snapshots
                .iter()
                .any(|s| matches!(which, Which::Id(id) if id == s.snap_id))
            {
                continue;
            }
            if matches!(which, Which::Id(0)) {
                continue;
            }
            let (sd, name) = (&self.clients[c].sd, &self.names[n]);
            let (opened, deleted) =
                (sd.open_snapshot(name, which), sd.delete_snapshot(name, which));
            self.call(c, format!("open snapshot of {}, {which}", LETTERS[n]), want, opened)?;
            self.call(c, format!("delete snapshot of {}, {which}", LETTERS[n]), want, deleted)?;
        }
        Ok(())
    }

    fn rollback(&mut self, c: usize, n: usize, nth: usize) -> Check {
        let Some((snapshot, handle)) = self.snapshot_handle(c, n, nth)? else { return Ok(()) };
        if self.families[n].working.as_ref().is_some_and(|w| w.object_size != snapshot.object_size)
        {
            // An open VDI does not change its object size.
            self.close_all(0, n)?;
            self.close_all(1, n)?;
        }
        let got = self.clients[c].sd.rollback(handle);
        self.ok(c, format!("roll {} back to {}", LETTERS[n], snapshot.tag), got)?;
        let (owner, id) = (self.new_owner(), self.families[n].next_snap_id());
        self.families[n].working = Some(snapshot.derive(owner, id));
        self.clients[c].stale[n] = Staleness::Current;
        self.changed(c, n, Staleness::Contents);
        Ok(())
    }

    fn clone_vdi(
        &mut self,
        c: usize,
        n: usize,
        nth: usize,
        by: By,
        to: usize,
        open: bool,
    ) -> Check {
        let Some(snapshot) = self.families[n].snapshot(nth).cloned() else { return Ok(()) };
        let (source, which) = match by {
            By::Handle => match self.snapshot_handle(c, n, nth)? {
                Some((_, handle)) => (handle, Which::Handle),
                None => return Ok(()),
            },
            // Any handle of the name will do.
            By::Tag => (self.handle(c, n)?, which(&snapshot, true)),
            By::Id => (self.handle(c, n)?, which(&snapshot, false)),
        };
        let want = self.families[to].working.as_ref().map(|_| Code::VDI_EXIST);
        let got = self.clients[c].sd.clone_vdi(source, &self.names[to], which, open);
        let what = format!("clone {}@{} to {}, {which}", LETTERS[n], snapshot.tag, LETTERS[to]);
        if let Some(handle) = self.call(c, what, want, got)? {
            let (owner, id) = (self.new_owner(), self.families[to].next_snap_id());
            self.families[to].working = Some(snapshot.derive(owner, id));
            if let Some(handle) = handle {
                self.opened(c, to, handle);
            }
        }
        Ok(())
    }

    fn set_attr(&mut self, c: usize, n: usize, key: &'static str, len: usize) -> Check {
        let want = match self.families[n].working {
            _ if len > 65536 => Some(Code::INVALID_PARMS),
            None => Some(Code::NO_VDI),
            Some(_) => None,
        };
        let value = &noise()[self.steps..self.steps + len];
        let got = self.clients[c].sd.set_attr(&self.names[n], key, value);
        let what = format!("setattr {} {key}, {len} bytes", LETTERS[n]);
        if self.call(c, what, want, got)?.is_some() {
            self.families[n].attrs.insert(key, value.to_owned());
        }
        Ok(())
    }

    fn get_attr(&mut self, c: usize, n: usize, key: &'static str, room: usize) -> Check {
        let family = &self.families[n];
        let value = family.attrs.get(key).cloned().unwrap_or_default();
        let missing = match family.working {
            None => Some(Code::NO_VDI),
            Some(_) if !family.attrs.contains_key(key) => Some(Code::NO_OBJ),
            Some(_) => None,
        };
        let size = self.clients[c].sd.attr_size(&self.names[n], key);
        if let Some(size) =
            self.call(c, format!("attr_size {} {key}", LETTERS[n]), missing, size)?
        {
            equal("size of the attribute", size, value.len())?;
        }
        let mut buf = vec![0xa5; room];
        let got = self.clients[c].sd.get_attr(&self.names[n], key, &mut buf);
        let small = (room < value.len()).then_some(Code::BUFFER_SMALL);
        let what = format!("getattr {} {key}, room for {room}", LETTERS[n]);
        if self.call(c, what, missing.or(small), got)?.is_some() {
            return same("attribute", &buf[..value.len()], &value, 0);
        }
        equal("nothing is copied", buf.iter().all(|byte| *byte == 0xa5), true)
    }

    /// What must be refused, and change nothing.
    fn invalid_calls(&mut self, c: usize, n: usize) -> Check {
        let handle = self.current_handle(c, n, Staleness::Contents)?;
        let size = self.working(n).size();
        let object_size = self.working(n).object_size;
        let snapshot = self.snapshot_handle(c, n, 0)?.map(|(_, handle)| handle);
        let (sd, other) = (&self.clients[c].sd, &self.clients[1 - c].sd);
        let mut buf = [0xa5; 3];
        let parms = Code::INVALID_PARMS;
        let mut calls = vec![
            ("read past the end", parms, sd.read(handle, &mut buf, size - 1)),
            ("read at the end", parms, sd.read(handle, &mut buf, size)),
            ("read before the start", parms, sd.read(handle, &mut buf, u64::MAX)),
            ("write past the end", parms, sd.write(handle, &[1; 3], size - 1, 0)),
            ("write with unknown flag", parms, sd.write(handle, &[1], 0, 1 << 20)),
            ("discard past the end", parms, sd.discard(handle, size - 1, 2)),
            ("zeroes past the end", parms, sd.write_zeroes(handle, 0, size + 1, 0)),
            ("status past the end", parms, sd.block_status(handle, size, 1).map(drop)),
            ("resize to 0", parms, sd.resize(handle, 0)),
            ("resize to too much", parms, sd.resize(handle, (object_size << 20) + 1)),
            ("rollback of a working VDI", parms, sd.rollback(handle)),
            ("empty tag", parms, sd.snapshot(handle, "", false).map(drop)),
            (
                "clone of a working VDI",
                parms,
                sd.clone_vdi(handle, "model-none", Which::Handle, false).map(drop),
            ),
            ("another client's handle", parms, other.read(handle, &mut buf, 0)),
        ];
        if let Some(snapshot) = snapshot {
            let readonly = Code::READONLY;
            calls.extend([
                ("write to a snapshot", readonly, sd.write(snapshot, &[1], 0, 0)),
                ("discard in a snapshot", readonly, sd.discard(snapshot, 0, 1)),
                ("resize of a snapshot", readonly, sd.resize(snapshot, 1)),
                ("snapshot of a snapshot", readonly, sd.snapshot(snapshot, "x", false).map(drop)),
            ]);
        }
        for (what, want, got) in calls {
            self.call(c, format!("{what} ({})", LETTERS[n]), Some(want), got)?;
        }
        equal("a refused read writes nothing", buf, [0xa5; 3])
    }

    // Checks of everything

    /// Compares all of a VDI, by reads of an object each.
    fn compare(&self, what: &str, sd: &Sd, handle: Vdi, want: &Inode) -> Check {
        let mut buf = vec![0; want.object_size as usize];
        for (_, part, _) in want.objects(&(0..want.size())) {
            let buf = &mut buf[..(part.end - part.start) as usize];
            buf.fill(0xa5);
            if let Err(code) = sd.read(handle, buf, part.start) {
                return fail(format!("{what}: read of {part:?} gave {code}"));
            }
            same(what, buf, want.bytes(&part), part.start)?;
        }
        let got = (sd.info(handle), sd.block_status(handle, 0, want.size()));
        let (Ok(info), Ok(extents)) = got else { return fail(format!("{what}: no info")) };
        equal(what, Info { name: String::new(), ..info }, want.info(""))?;
        equal(what, extents, want.extents(&(0..want.size())))
    }

    /// Compares the working VDI of a name with what the servers have.
    fn check_working(&self, n: usize) -> Check {
        let Some(want) = &self.families[n].working else { return Ok(()) };
        let what = format!("{}, as another client sees it", LETTERS[n]);
        match self.observer.open(&self.names[n]) {
            Ok(handle) => {
                self.compare(&what, &self.observer, handle, want)?;
                let closed = self.observer.close(handle);
                closed.or_else(|code| fail(format!("{what}: close gave {code}")))
            }
            Err(code) => fail(format!("{what}: open gave {code}")),
        }
    }

    fn check_list(&self, c: usize) -> Check {
        let mut names = match self.clients[c].sd.list() {
            Ok(names) => names,
            Err(code) => return fail(format!("list gave {code}")),
        };
        names.retain(|name| self.names.contains(name));
        let want = self.names.iter().zip(&self.families).filter(|(_, f)| f.working.is_some());
        equal("list", names, want.map(|(name, _)| name.clone()).collect())
    }

    /// Compares the snapshots of a name, as they are listed or opened one by one.
    fn check_snapshots(&self, c: usize, n: usize, list: bool) -> Check {
        let (sd, family) = (&self.clients[c].sd, &self.families[n]);
        let compare = |handle, want: &Inode| {
            self.compare(&format!("snapshot {} of {}", want.tag, LETTERS[n]), sd, handle, want)
        };
        if !list {
            return family.snapshots.iter().try_for_each(|want| {
                let opened = sd.open_snapshot(&self.names[n], which(want, true));
                let handle = opened.or_else(|code| fail(format!("open {}: {code}", want.tag)))?;
                compare(handle, want)?;
                sd.close(handle).or_else(|code| fail(format!("close {}: {code}", want.tag)))
            });
        }
        let mut wanted = family.snapshots.iter();
        let listed = sd.snapshots(&self.names[n], |handle| match wanted.next() {
            Some(want) => compare(handle, want),
            None => fail("a snapshot too many"),
        });
        match listed {
            Ok(checks) => {
                equal("snapshots", checks.len(), family.snapshots.len())?;
                checks.into_iter().collect()
            }
            Err(Code::NO_VDI) if family.working.is_none() && family.snapshots.is_empty() => Ok(()),
            Err(code) => fail(format!("snapshot list of {} gave {code}", LETTERS[n])),
        }
    }

    fn check_all(&self) -> Check {
        let turn = self.steps / CHECK_EVERY;
        let client = turn % 2;
        self.check_list(client)?;
        for n in 0..3 {
            self.check_working(n)?;
            // A list costs megabytes.
            self.check_snapshots(client, n, turn % 3 == n)?;
        }
        self.check_objects()
    }

    /// Whether there are all objects that must be, and no other.
    fn check_objects(&self) -> Check {
        let mut objects = HashSet::new();
        for inode in self.families.iter().flat_map(|f| f.working.iter().chain(&f.snapshots)) {
            let owned = inode.map.iter().enumerate();
            objects.extend(owned.filter_map(|(index, owner)| Some((index, (*owner)?))));
        }
        let Objects { data, ledgers } = self.objects_before;
        let (want, nothing_left) = (data + objects.len(), objects.is_empty());
        let fits =
            |found: Objects| found.data == want && (found.ledgers == ledgers || !nothing_left);
        self.server.await_objects(fits).or_else(|found| {
            fail(format!(
                "{found:?} in the store, expected {want} data objects, {ledgers} ledgers at the end"
            ))
        })
    }

    /// Deletes what there is, in an order that depends on how the case went.
    fn delete_all(&mut self) -> Check {
        let c = self.steps % 2;
        for client in 0..2 {
            while !self.clients[client].snapshots.is_empty() {
                self.close_snapshot(client, 0)?;
            }
            for n in 0..3 {
                self.close_all(client, n)?;
            }
        }
        for turn in 0..6 {
            let (n, snapshots) = (turn % 3, (turn + self.steps).is_multiple_of(2));
            if snapshots {
                while !self.families[n].snapshots.is_empty() {
                    self.delete_snapshot(c, n, self.steps, turn < 3)?;
                    self.check_working(n)?;
                }
            } else if self.families[n].working.is_some() {
                self.delete(c, n)?;
                self.check_snapshots(c, n, true)?;
            }
        }
        self.check_all()
    }

    /// After a failure: so that the next sequence finds the servers as this one did.
    fn clean_up(self) {
        let names = self.names;
        drop(self.clients);
        for name in &names {
            let ids = self.observer.snapshots(name, |handle| self.observer.info(handle));
            for info in ids.into_iter().flatten().flatten() {
                let _ = self.observer.delete_snapshot(name, Which::Id(info.snap_id));
            }
            let _ = self.observer.delete(name);
        }
        let before = self.objects_before;
        let _ = self.server.await_objects(|found| found.data == before.data);
    }
}

fn which(snapshot: &Inode, by_tag: bool) -> Which<'static> {
    if by_tag { Which::Tag(snapshot.tag) } else { Which::Id(snapshot.snap_id) }
}

// --- Running ---

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Plays one case after the other until there were enough steps, or time is up.
fn run(server: &Server) {
    let first = number("SD_SEED");
    let steps = number("SD_SOAK_STEPS");
    let time = number("SD_SOAK_SECONDS").map(Duration::from_secs);
    let limit = match (steps, time) {
        (None, None) => STEPS as u64,
        (steps, _) => steps.unwrap_or(u64::MAX),
    };
    let default_size = default_object_size(server);
    let (start, mut done, mut cases) = (Instant::now(), 0, 0);
    while done < limit && time.is_none_or(|time| start.elapsed() < time) {
        done += play_case(server, default_size, first.unwrap_or(1) + cases);
        cases += 1;
    }
    println!("model: {done} steps in {cases} cases, {:.1} s", start.elapsed().as_secs_f64());
}

/// Plays the case of a seed; the number of its steps.
fn play_case(server: &Server, default_size: u64, seed: u64) -> u64 {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: u32::MAX - 1,
        max_shrink_time: number("SD_SHRINK_SECONDS").unwrap_or(120) as u32 * 1000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let done = std::cell::Cell::new(0);
    let result = TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
        let mut game = Game::new(server, default_size);
        let result = game.play(&steps);
        done.set(game.steps as u64);
        result.map_err(|error| {
            let log = game.log.join("\n  ");
            game.clean_up();
            TestCaseError::fail(format!("{error}\n  {log}"))
        })
    });
    match result {
        Ok(()) => done.get(),
        Err(TestError::Fail(reason, steps)) => {
            panic!("SD_SEED={seed} fails; its shortest form:\n{reason}\nfrom the steps {steps:#?}")
        }
        Err(error) => panic!("SD_SEED={seed}: {error}"),
    }
}

fn default_object_size(server: &Server) -> u64 {
    let sd = Sd::connect(&server.address(0)).unwrap_or_else(|code| panic!("connect: {code}"));
    let name = format!("model-{}-probe", std::process::id());
    let probe = || {
        let vdi = sd.create(&name, MIB, None, false, true)?.expect("a handle");
        let info = sd.info(vdi)?;
        sd.close(vdi)?;
        sd.delete(&name)?;
        Ok(info.object_size)
    };
    probe().unwrap_or_else(|code: Code| panic!("{name}: {code}"))
}

#[test]
fn two_clients_do_what_the_model_says() {
    match Server::from_env() {
        Some(server) => run(&server),
        None => run(&Server::lamb(&[])),
    }
}

#[test]
fn a_server_that_mimics_sheepdog_1_0_is_no_worse() {
    if Server::from_env().is_some() || !server::lamb_knows("--mimic-1.0") {
        return;
    }
    run(&Server::lamb(&["--mimic-1.0"]));
}
