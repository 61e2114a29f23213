//! Everything at once, for as long as one likes: gateways are stopped and go on while verified
//! writers are at work, and two clients snapshot one VDI beside its writers. No acknowledged byte
//! may be lost or undone, and what has nothing to do with a stopped gateway goes on.
//!
//! On a lamb behind two wolves, which are stopped in its place; that takes some seconds. On the
//! cluster at SD_TEST_ADDR (gateways with commas between) the gateways' processes are stopped: their
//! ids in SD_TEST_PIDS, in the same order. Those of gateways without objects (`sheep -g`), or one
//! at a time: whatever is on a node that stands still cannot be had through others either.
//! SD_TORTURE_SECONDS, SD_TORTURE_STALL (the longest stop, in seconds), SD_TORTURE_AT_ONCE (stops),
//! SD_TORTURE_GAP (how long nothing may get on), SD_TORTURE_ROUNDS (of snapshots), SD_SEED.

mod common;

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use sheepdog_proto::Request;
use wolf::{Fate, Flock, Tame, Wolf};

use common::ambush::{is_lookup, is_new_vdi, is_tag_write};
use common::api::{Code, Sd, Vdi, Which};
use common::server::Server;

const OBJECT: u64 = 4 << 20;
const SECTOR: usize = 512;
/// Sectors of an object that are used: few, so that they are used again and again.
const SECTORS: u64 = 64;
/// Milliseconds that an operation has while gateways are being stopped, and in the short form.
const PATIENCE: u32 = 3000;
const LESS_PATIENCE: u32 = 500;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}"))
}

/// Random numbers: splitmix64.
struct Dice(u64);

impl Dice {
    fn new(purpose: u64) -> Dice {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = setting("SD_SEED", time.as_nanos() as u64);
        Dice(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(0..n) == 0
    }
}

/// What went wrong; nothing ends before all of it is known.
#[derive(Default)]
struct Faults(Mutex<Vec<String>>);

impl Faults {
    fn add(&self, what: String) {
        let mut faults = self.0.lock().unwrap();
        if faults.len() < 20 {
            eprintln!("torture: {what}");
        }
        faults.push(what);
    }

    fn assert_none(&self) {
        let faults = self.0.lock().unwrap();
        assert!(faults.is_empty(), "{} faults, the first: {}", faults.len(), faults[0]);
    }
}

/// Something that can be stopped, and goes on at the latest when this is dropped.
enum Stop {
    Process(Pid),
    Wolf(Box<Wolf>),
}

impl Stop {
    fn stop(&self) {
        match self {
            Stop::Process(pid) => kill_process(*pid, Signal::STOP).expect("a gateway's process"),
            Stop::Wolf(wolf) => wolf.stall(),
        }
    }

    fn go_on(&self) {
        match self {
            Stop::Process(pid) => _ = kill_process(*pid, Signal::CONT),
            Stop::Wolf(wolf) => wolf.go_on(),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.go_on();
    }
}

struct Gateways {
    addresses: Vec<String>,
    stops: Vec<Stop>,
    /// Whether this is the short form.
    is_small: bool,
    /// Of the short form.
    _server: Option<Server>,
}

impl Gateways {
    /// None, and a word about it, where there is a cluster whose gateways cannot be stopped.
    fn find(needs_pids: bool) -> Option<Gateways> {
        let Ok(addresses) = env::var("SD_TEST_ADDR") else { return Some(Gateways::small()) };
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        let pids = env::var("SD_TEST_PIDS").unwrap_or_default();
        let pids = pids.split(',').filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        let stops: Vec<Stop> = pids.map(Stop::Process).collect();
        if needs_pids && (stops.len() != addresses.len() || stops.len() < 2) {
            println!("torture: skipped: SD_TEST_PIDS must name a process for each of SD_TEST_ADDR");
            return None;
        }
        Some(Gateways { addresses, stops, is_small: false, _server: None })
    }

    fn small() -> Gateways {
        let server = Server::lamb(&["--mimic-1.0"]);
        let wolves = [0, 1].map(|_| Wolf::start(server.socket_address(), Arc::new(Tame)));
        let wolves = wolves.map(|wolf| Box::new(wolf.expect("a port")));
        let addresses = wolves.iter().map(|wolf| wolf.address().to_string()).collect();
        let stops = wolves.into_iter().map(Stop::Wolf).collect();
        Gateways { addresses, stops, is_small: true, _server: Some(server) }
    }

    /// For client number `client`: each begins with another gateway.
    fn connect(&self, client: usize) -> Sd {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(client % self.addresses.len());
        Sd::connect(&addresses.join(",")).expect("a connection")
    }

    /// Stops some of them, never all, for some time each, until there is an end to it.
    fn keep_stopping(&self, longest: Duration, done: &AtomicBool) {
        let mut dice = Dice::new(1);
        let mut until: Vec<Option<Instant>> = vec![None; self.stops.len()];
        let most = setting("SD_TORTURE_AT_ONCE", self.stops.len() - 1);
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let now = Instant::now();
            for (stop, until) in self.stops.iter().zip(&mut until) {
                if until.is_some_and(|until| until <= now) {
                    stop.go_on();
                    *until = None;
                }
            }
            let stopped = until.iter().flatten().count();
            let which = dice.roll(0..self.stops.len() as u64) as usize;
            if stopped < most && until[which].is_none() && dice.one_in(10) {
                let shortest = longest.as_millis() as u64 / 60;
                let time = dice.roll(shortest..longest.as_millis() as u64);
                self.stops[which].stop();
                until[which] = Some(now + Duration::from_millis(time));
                count += 1;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.stops.iter().for_each(Stop::go_on);
        println!("torture: gateways were stopped {count} times");
    }
}

/// A sector of this version: whoever reads it can tell that it is whole, and its own.
fn sector(at: u64, version: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if version > 0 {
        for (n, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = if n == 0 { version } else { version ^ at.rotate_left(32) ^ n as u64 };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// The version of a sector; None where it is none.
fn version(at: u64, bytes: &[u8]) -> Option<u64> {
    let version = u64::from_le_bytes(bytes.first_chunk().copied()?);
    (sector(at, version) == bytes).then_some(version)
}

/// A sector that a writer owns: what it may hold.
#[derive(Clone, Default)]
struct Register {
    acknowledged: u64,
    /// Versions whose writes were given up since.
    possible: Vec<u64>,
}

impl Register {
    fn may_hold(&self, version: u64) -> bool {
        self.acknowledged == version || self.possible.contains(&version)
    }
}

/// Runs of sectors that one thread writes to and nobody else.
struct Land {
    vdi: Vdi,
    /// The first sector of each run, and what its sectors hold.
    runs: Vec<(u64, Vec<Register>)>,
    /// Runs with writes that were given up: others there may have to wait for those.
    tainted: Vec<bool>,
    next_version: u64,
}

impl Land {
    fn new(vdi: Vdi, runs: impl IntoIterator<Item = Range<u64>>) -> Land {
        let new = |run: Range<u64>| (run.start, vec![Register::default(); run.count()]);
        let runs: Vec<_> = runs.into_iter().map(new).collect();
        let tainted = vec![false; runs.len()];
        Land { vdi, runs, tainted, next_version: 1 }
    }

    /// Writes to part of a run; whether that was acknowledged.
    fn write(&mut self, sd: &Sd, run: usize, part: Range<usize>, faults: &Faults) -> bool {
        let version = self.next_version;
        self.next_version += 1;
        let (first, registers) = &mut self.runs[run];
        let start = *first + part.start as u64;
        let sectors = (start..).take(part.len());
        let data: Vec<u8> = sectors.flat_map(|at| sector(at, version)).collect();
        let result = sd.write(self.vdi, &data, start * SECTOR as u64, 0);
        self.tainted[run] = Land::note(&result, &mut registers[part], version, faults);
        result.is_ok()
    }

    /// Discards the object that a run is in, of which nobody else has a part.
    fn discard(&mut self, sd: &Sd, run: usize, faults: &Faults) {
        let (first, registers) = &mut self.runs[run];
        let result = sd.discard(self.vdi, *first * SECTOR as u64, OBJECT);
        self.tainted[run] = Land::note(&result, registers, 0, faults);
    }

    /// Whether it is open what came of it.
    fn note(
        result: &Result<(), Code>,
        registers: &mut [Register],
        version: u64,
        faults: &Faults,
    ) -> bool {
        for register in registers {
            match result {
                Ok(()) => *register = Register { acknowledged: version, possible: Vec::new() },
                Err(_) => register.possible.push(version),
            }
        }
        if let Err(code) = result
            && *code != Code::TIMEDOUT
        {
            faults.add(format!("a write: {code}"));
        }
        result.is_err()
    }

    /// Reads a run, and looks whether it is as it must be; whether it could be read.
    fn verify(&self, sd: &Sd, vdi: Vdi, run: usize, when: &str, faults: &Faults) -> bool {
        let (first, registers) = &self.runs[run];
        let mut data = vec![0; registers.len() * SECTOR];
        match sd.read(vdi, &mut data, first * SECTOR as u64) {
            Ok(()) => {}
            Err(Code::TIMEDOUT) => return false,
            Err(code) => {
                faults.add(format!("a read {when}: {code}"));
                return false;
            }
        }
        for ((at, register), found) in (*first..).zip(registers).zip(data.chunks(SECTOR)) {
            let found = version(at, found);
            if !found.is_some_and(|found| register.may_hold(found)) {
                let Register { acknowledged, possible } = register;
                faults.add(format!(
                    "sector {at} {when}: version {found:?} instead of {acknowledged} or {possible:?}"
                ));
            }
        }
        true
    }

    /// Works until there is an end to it: writes, reads, discards; mostly where it is not in the
    /// way of its own past.
    fn work(&mut self, sd: &Sd, purpose: u64, done: &AtomicBool, faults: &Faults) -> u64 {
        let mut dice = Dice::new(purpose);
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let mut run = dice.roll(0..self.runs.len() as u64) as usize;
            let clean = (0..self.runs.len()).map(|n| (run + n) % self.runs.len());
            if !dice.one_in(4)
                && let Some(other) = clean.into_iter().find(|run| !self.tainted[*run])
            {
                run = other;
            }
            let len = self.runs[run].1.len() as u64;
            if dice.one_in(3) {
                self.verify(sd, self.vdi, run, "meanwhile", faults);
            } else if dice.one_in(40) && len == SECTORS {
                self.discard(sd, run, faults);
            } else {
                let start = dice.roll(0..len);
                let end = dice.roll(start + 1..(start + 17).min(len + 1));
                self.write(sd, run, start as usize..end as usize, faults);
            }
            count += 1;
        }
        count
    }

    fn verify_all(&self, sd: &Sd, vdi: Vdi, when: &str, faults: &Faults) {
        for run in 0..self.runs.len() {
            if !self.verify(sd, vdi, run, when, faults) {
                faults.add(format!("a read {when} that ends in no time"));
            }
        }
    }
}

/// The sectors of an object that are used.
fn of_object(index: u64) -> Range<u64> {
    let first = index * OBJECT / SECTOR as u64;
    first..first + SECTORS
}

/// The longest time between two successes.
struct Gap(Mutex<(Instant, Duration)>);

impl Gap {
    fn note(&self) {
        let mut gap = self.0.lock().unwrap();
        gap.1 = gap.1.max(gap.0.elapsed());
        gap.0 = Instant::now();
    }
}

/// Operations that meet nothing of what was given up: reads, which never do, and writes to objects
/// without such writes.
fn probe(sd: &Sd, land: &mut Land, purpose: u64, gap: &Gap, done: &AtomicBool, faults: &Faults) {
    let mut dice = Dice::new(purpose);
    while !done.load(Ordering::Relaxed) {
        let clean: Vec<usize> = (0..land.runs.len()).filter(|run| !land.tainted[*run]).collect();
        let run = dice.roll(0..clean.len().max(1) as u64) as usize;
        let success = match clean.get(run) {
            Some(run) if dice.one_in(2) => land.write(sd, *run, 0..1, faults),
            Some(run) => land.verify(sd, land.vdi, *run, "meanwhile", faults),
            None => land.verify(sd, land.vdi, run, "meanwhile", faults),
        };
        if success {
            gap.note();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn delete_all(sd: &Sd, name: &str) {
    for id in sd.snapshots(name, |handle| sd.info(handle).unwrap().snap_id).unwrap_or_default() {
        sd.delete_snapshot(name, Which::Id(id)).unwrap();
    }
    match sd.delete(name) {
        Ok(()) | Err(Code::NO_VDI) => {}
        Err(code) => panic!("{name}: {code}"),
    }
}

#[test]
fn gateways_that_stop_and_go_on_cost_no_acknowledged_byte() {
    const CLIENTS: usize = 2;
    const WRITERS: u64 = 4;
    const PROBERS: u64 = 2;
    /// Objects that one writer has for itself, that all writers share, and that a prober has.
    const OWN: u64 = 6;
    const SHARED: u64 = 4;
    const PROBED: u64 = 24;
    const SIZE: u64 = (WRITERS * OWN + SHARED + PROBERS * PROBED) * OBJECT;
    let Some(gateways) = Gateways::find(true) else { return };
    let time = Duration::from_secs(setting("SD_TORTURE_SECONDS", 10));
    let longest = if gateways.is_small { 4 } else { 60.min(time.as_secs() / 2) };
    let longest = Duration::from_secs(setting("SD_TORTURE_STALL", longest));
    let limit = Duration::from_secs(setting("SD_TORTURE_GAP", 10));
    let (faults, done) = (Faults::default(), AtomicBool::new(false));

    let names: Vec<String> = (0..CLIENTS).map(|client| format!("torture-{client}")).collect();
    let clients: Vec<Sd> = (0..CLIENTS).map(|client| gateways.connect(client)).collect();
    let mut lands = Vec::new();
    for (sd, name) in clients.iter().zip(&names) {
        delete_all(sd, name);
        let vdi = sd.create(name, SIZE, None, false, true).unwrap().expect("a handle");
        let writers = (0..WRITERS).map(|writer| {
            let own = (writer * OWN..(writer + 1) * OWN).map(of_object);
            let shared = (WRITERS * OWN..WRITERS * OWN + SHARED).map(|index| {
                let part = SECTORS / WRITERS;
                let first = of_object(index).start + writer * part;
                first..first + part
            });
            Land::new(vdi, own.chain(shared))
        });
        let probers = (0..PROBERS).map(|prober| {
            let first = WRITERS * OWN + SHARED + prober * PROBED;
            Land::new(vdi, (first..first + PROBED).map(of_object))
        });
        lands.push((writers.collect::<Vec<_>>(), probers.collect::<Vec<_>>()));
        sd.set_timeout(if gateways.is_small { LESS_PATIENCE } else { PATIENCE });
    }
    let gaps = [(); CLIENTS].map(|()| Gap(Mutex::new((Instant::now(), Duration::ZERO))));
    let count = thread::scope(|scope| {
        let (gateways, faults, done) = (&gateways, &faults, &done);
        scope.spawn(move || gateways.keep_stopping(longest, done));
        let mut threads = Vec::new();
        for (n, ((sd, lands), gap)) in clients.iter().zip(&mut lands).zip(&gaps).enumerate() {
            let purpose = move |m: usize| 10 + (100 * n + m) as u64;
            for (m, land) in lands.0.iter_mut().enumerate() {
                threads.push(scope.spawn(move || land.work(sd, purpose(m), done, faults)));
            }
            for (m, land) in lands.1.iter_mut().enumerate() {
                scope.spawn(move || probe(sd, land, purpose(50 + m), gap, done, faults));
            }
        }
        thread::sleep(time);
        gaps.iter().for_each(Gap::note);
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });

    // Everything goes on: what was given up happens, or not, and no more after that.
    for (sd, lands) in clients.iter().zip(&lands) {
        sd.set_timeout(60_000);
        for land in lands.0.iter().chain(&lands.1) {
            land.verify_all(sd, land.vdi, "at the end", &faults);
        }
    }
    for sd in clients {
        if let Err(code) = sd.disconnect() {
            faults.add(format!("sd_close: {code}"));
        }
    }
    for gateway in 0..gateways.addresses.len() {
        let sd = gateways.connect(gateway);
        for (name, lands) in names.iter().zip(&lands) {
            let vdi = sd.open(name).unwrap();
            for land in lands.0.iter().chain(&lands.1) {
                land.verify_all(&sd, vdi, "after everything", &faults);
            }
            sd.close(vdi).unwrap();
        }
    }
    let gaps = gaps.map(|gap| gap.0.into_inner().unwrap().1);
    println!("torture: {count} operations; at most {gaps:?} without one that is in nobody's way");
    for gap in gaps {
        if gap > limit {
            faults.add(format!("nothing got on for {gap:?}"));
        }
    }
    faults.assert_none();
    let sd = gateways.connect(0);
    names.iter().for_each(|name| delete_all(&sd, name));
}

/// Makes the requests of a snapshot come late.
struct Slow(Mutex<Dice>);

impl Flock for Slow {
    fn request(&self, _: usize, request: &Request, _: &[u8]) -> Fate {
        if !is_tag_write(request) && !is_new_vdi(request) && !is_lookup(request) {
            return Fate::Pass;
        }
        let time = Duration::from_millis(self.0.lock().unwrap().roll(0..30));
        Fate::Hold(Box::new(move || thread::sleep(time)))
    }
}

/// A sector of the VDI that two clients snapshot: whatever is read of it was begun by then, and is
/// no older than what had been acknowledged before.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

const TWIN: &str = "torture-twin";
const TWIN_OBJECTS: u64 = 12;
/// Sectors of each object that are used.
const TWIN_SECTORS: u64 = 8;

/// All sectors that are used.
fn twin_sectors() -> impl Iterator<Item = u64> {
    (0..TWIN_OBJECTS).flat_map(|index| of_object(index).take(TWIN_SECTORS as usize))
}

fn twin_versions(sd: &Sd, vdi: Vdi) -> Result<Vec<Option<u64>>, Code> {
    let mut versions = Vec::new();
    for index in 0..TWIN_OBJECTS {
        let sectors = of_object(index).take(TWIN_SECTORS as usize);
        let mut data = vec![0; TWIN_SECTORS as usize * SECTOR];
        sd.read(vdi, &mut data, index * OBJECT)?;
        versions.extend(sectors.zip(data.chunks(SECTOR)).map(|(at, found)| version(at, found)));
    }
    Ok(versions)
}

/// A snapshot that was acknowledged, and what it holds.
struct Taken {
    tag: String,
    versions: Vec<Option<u64>>,
}

/// Takes a snapshot and looks whether it holds what it must. None: it failed.
fn take(sd: &Sd, vdi: Vdi, tag: String, table: &[Progress], faults: &Faults) -> Option<Taken> {
    let load = |field: fn(&Progress) -> &AtomicU64| -> Vec<u64> {
        table.iter().map(|progress| field(progress).load(Ordering::SeqCst)).collect()
    };
    let least = load(|progress| &progress.acknowledged);
    if let Err(code) = sd.snapshot(vdi, &tag, false) {
        println!("torture: snapshot {tag}: {code}");
        return None;
    }
    let most = load(|progress| &progress.begun);
    let opened = sd.open_snapshot(TWIN, Which::Tag(&tag));
    let versions = opened.and_then(|snapshot| {
        let versions = twin_versions(sd, snapshot);
        sd.close(snapshot).unwrap();
        versions
    });
    let versions = match versions {
        Ok(versions) => versions,
        Err(code) => {
            faults.add(format!("snapshot {tag} was acknowledged: {code}"));
            return None;
        }
    };
    for (at, ((found, least), most)) in twin_sectors().zip(versions.iter().zip(&least).zip(&most)) {
        if !found.is_some_and(|found| (*least..=*most).contains(&found)) {
            faults.add(format!("snapshot {tag}, sector {at}: {found:?} of {least} to {most}"));
        }
    }
    Some(Taken { tag, versions })
}

/// Every one of them is there, once, and as it was.
fn verify_snapshots(sd: &Sd, taken: &[Taken], faults: &Faults) {
    let tags = sd.snapshots(TWIN, |handle| sd.info(handle).unwrap().tag).unwrap();
    for Taken { tag, versions } in taken {
        let count = tags.iter().filter(|found| *found == tag).count();
        if count != 1 {
            faults.add(format!("{count} snapshots {tag}"));
            continue;
        }
        let snapshot = sd.open_snapshot(TWIN, Which::Tag(tag)).unwrap();
        match twin_versions(sd, snapshot) {
            Ok(found) => {
                let pairs = twin_sectors().zip(versions.iter().zip(&found));
                for (at, (then, now)) in pairs.filter(|(_, (then, now))| then != now) {
                    faults.add(format!("snapshot {tag}, sector {at}: {then:?}, now {now:?}"));
                }
            }
            Err(code) => faults.add(format!("snapshot {tag} is lost: {code}")),
        }
        sd.close(snapshot).unwrap();
    }
}

/// Writes to its part of the objects, and reads them.
fn write_twin(
    sd: &Sd,
    vdi: Vdi,
    writer: u64,
    table: &[Progress],
    done: &AtomicBool,
    faults: &Faults,
) {
    let mut dice = Dice::new(1000 + writer);
    let mut version = 0;
    while !done.load(Ordering::Relaxed) {
        let index = dice.roll(0..TWIN_OBJECTS / WRITERS_OF_TWIN) * WRITERS_OF_TWIN + writer;
        let nth = dice.roll(0..TWIN_SECTORS);
        let (at, progress) =
            (of_object(index).start + nth, &table[(index * TWIN_SECTORS + nth) as usize]);
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        let mut found = [0; SECTOR];
        match sd.read(vdi, &mut found, at * SECTOR as u64) {
            Ok(()) if self::version(at, &found) == Some(acknowledged) => {}
            result => {
                let found = self::version(at, &found);
                faults.add(format!("sector {at}: {found:?} is not {acknowledged}; {result:?}"));
                return;
            }
        }
        version += 1;
        progress.begun.store(version, Ordering::SeqCst);
        match sd.write(vdi, &sector(at, version), at * SECTOR as u64, 0) {
            Ok(()) => progress.acknowledged.store(version, Ordering::SeqCst),
            Err(code) => return faults.add(format!("a write to sector {at}: {code}")),
        }
    }
}

const WRITERS_OF_TWIN: u64 = 3;

#[test]
fn two_clients_that_snapshot_one_vdi_for_long_lose_nothing() {
    let Some(gateways) = Gateways::find(false) else { return };
    let rounds: u64 = setting("SD_TORTURE_ROUNDS", 1000);
    let limit = Duration::from_secs(if gateways.is_small { 8 } else { 24 * 3600 });
    let begun = Instant::now();
    let faults = Faults::default();
    let wolves: Vec<Wolf> = (0..2)
        .map(|client| {
            let address = &gateways.addresses[client % gateways.addresses.len()];
            let gateway: SocketAddr = address.to_socket_addrs().unwrap().next().unwrap();
            let slow = Slow(Mutex::new(Dice::new(2000 + client as u64)));
            Wolf::start(gateway, Arc::new(slow)).expect("a port")
        })
        .collect();
    let connect = |wolf: &Wolf| Sd::connect(&wolf.address().to_string()).expect("a connection");
    let clients: Vec<Sd> = wolves.iter().map(connect).collect();
    let writer = gateways.connect(0);
    delete_all(&writer, TWIN);
    let vdi = writer.create(TWIN, TWIN_OBJECTS * OBJECT, None, false, true).unwrap();
    let vdi = vdi.expect("a handle");
    let seen: Vec<Vdi> = clients.iter().map(|sd| sd.open(TWIN).unwrap()).collect();
    let table: Vec<Progress> = twin_sectors().map(|_| Progress::default()).collect();

    let (mut total, mut tried) = (0, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (faults, table, done, writer) = (&faults, &table, &done, &writer);
        for n in 0..WRITERS_OF_TWIN {
            scope.spawn(move || write_twin(writer, vdi, n, table, done, faults));
        }
        let mut alive: Vec<Taken> = Vec::new();
        for round in 0..rounds {
            let taken: Vec<Option<Taken>> = thread::scope(|scope| {
                let pairs = clients.iter().zip(&seen).zip(["left", "right"]);
                let threads: Vec<_> = pairs
                    .map(|((sd, vdi), side)| {
                        let tag = format!("{side} {round}");
                        scope.spawn(move || take(sd, *vdi, tag, table, faults))
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            alive.extend(taken.into_iter().flatten());
            tried += 2;
            let last = round + 1 == rounds
                || begun.elapsed() > limit
                || faults.0.lock().unwrap().len() > 20;
            // Each lookup looks at all of them.
            if alive.len() > 40 || last {
                verify_snapshots(&clients[0], &alive, faults);
                total += alive.len();
                for Taken { tag, .. } in alive.drain(..) {
                    if let Err(code) = clients[1].delete_snapshot(TWIN, Which::Tag(&tag)) {
                        faults.add(format!("deletion of snapshot {tag}: {code}"));
                    }
                }
            }
            if last {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let fresh = gateways.connect(1);
    let now = fresh.open(TWIN).unwrap();
    let versions = twin_versions(&fresh, now).unwrap();
    for ((at, found), progress) in twin_sectors().zip(versions).zip(&table) {
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        if found != Some(acknowledged) && found != Some(progress.begun.load(Ordering::SeqCst)) {
            faults.add(format!("sector {at} at the end: {found:?} instead of {acknowledged}"));
        }
    }
    println!("torture: {total} snapshots of {tried}");
    faults.assert_none();
    assert!(2 * total >= tried, "more than half of all snapshots fail");
    drop(clients);
    drop(writer);
    fresh.close(now).unwrap();
    delete_all(&fresh, TWIN);
}
