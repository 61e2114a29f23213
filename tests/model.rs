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

use std::collections::HashSet;
use std::env;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use common::api::{self, Code, Info, Sd, Vdi, Which};
use common::family::{Family, Inode};
use common::rules::Rules;
use common::server::{self, Objects, Server};
use common::steps::{Action, By, CLIENTS, LETTERS, MAX_SIZE, MIB, Step, steps};
use wolf::Wolf;

const TAGS: [&str; 3] = ["one", "two", "dreißig"];
const KEYS: [&str; 2] = ["owner", "Schlüssel"];
const FUA: i32 = 1;
/// Steps between two checks of lists and of the store, beyond the contents.
const CHECK_EVERY: usize = 10;
/// Steps of a run, unless the environment says otherwise.
const STEPS: usize = 2000;
/// Cases that are played under the eyes of [`Rules`].
const WATCHED_CASES: u64 = 5;
/// Handles that a client has on one working VDI.
const MAX_HANDLES: usize = 2;

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
            if self.steps.is_multiple_of(CHECK_EVERY) {
                self.check_all()?;
            } else {
                self.check_contents(None)?;
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
        got: api::Result<T>,
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
    fn ok<T>(&mut self, c: usize, what: String, got: api::Result<T>) -> Check<T> {
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
        let which = snapshot.which(by_tag);
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
        let (which, want) = (snapshot.which(by_tag), busy.then_some(Code::VDI_LOCKED));
        let got = self.clients[c].sd.delete_snapshot(&self.names[n], which);
        let what = format!("delete snapshot of {}, {which}", LETTERS[n]);
        if self.call(c, what, want, got)?.is_some() {
            self.families[n].snapshots.retain(|other| other.owner != snapshot.owner);
        }
        Ok(())
    }

    /// Tags and ids that no snapshot has: that of the working VDI, and the one after it.
    fn missing_snapshots(&mut self, c: usize, n: usize) -> Check {
        let (family, next) = (&self.families[n], self.families[n].next_snap_id());
        let missing = if family.working.is_some() { Code::NO_TAG } else { Code::NO_VDI };
        let working = family.working.as_ref().map(|vdi| Which::Id(vdi.snap_id));
        for which in [Which::Tag("none"), Which::Id(next)].into_iter().chain(working) {
            let (sd, name) = (&self.clients[c].sd, &self.names[n]);
            let (opened, deleted) =
                (sd.open_snapshot(name, which), sd.delete_snapshot(name, which));
            let what = format!("snapshot of {}, {which}", LETTERS[n]);
            self.call(c, format!("open {what}"), Some(missing), opened)?;
            self.call(c, format!("delete {what}"), Some(missing), deleted)?;
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
            By::Tag => (self.handle(c, n)?, snapshot.which(true)),
            By::Id => (self.handle(c, n)?, snapshot.which(false)),
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
                let opened = sd.open_snapshot(&self.names[n], want.which(true));
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
        self.check_list(turn % 2)?;
        self.check_contents(Some(turn % 3))?;
        self.check_objects()
    }

    /// Compares everything that there is; the snapshots of one name, `listed`, through a list,
    /// which costs megabytes.
    fn check_contents(&self, listed: Option<usize>) -> Check {
        for n in 0..3 {
            self.check_working(n)?;
            self.check_snapshots(self.steps / CHECK_EVERY % 2, n, listed == Some(n))?;
        }
        Ok(())
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

#[test]
fn no_request_breaks_a_rule_of_the_servers() {
    if Server::from_env().is_some() {
        return;
    }
    let server = Server::lamb(&["--mimic-1.0"]);
    let rules = Arc::new(Rules::new(server.socket_address()));
    let wolf = Wolf::start(server.socket_address(), rules.clone()).expect("a port");
    let server = server.behind(wolf.address());
    let default_size = default_object_size(&server);
    for seed in 1..=WATCHED_CASES {
        play_case(&server, default_size, seed);
        assert_eq!(rules.broken(), [""; 0], "SD_SEED={seed}");
    }
}
