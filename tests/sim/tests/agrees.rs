//! The model of the servers answers as a server does: the same random requests, one at a time, to
//! both, and the answers compared, with all that is stored at the end of each round.
//!
//! `SIM_AGREES_WITH=host:port` names a real server, which is formatted anew for each round (more of
//! them, separated by commas: the gateways of one cluster); without it `LAMB` is started with
//! `--mimic-1.0`, and spared what it is known to do otherwise. `SIM_AGREES_SEED` and
//! `SIM_AGREES_ROUNDS` choose others than the usual ones, `SIM_AGREES_TRACE` prints every request.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sheepdog_proto::admin::VdiState;
use sheepdog_proto::attr::{self, ATTR_LEN, AttrHeader};
use sheepdog_proto::header::{ClusterArm, ObjArm, VdiArm};
use sheepdog_proto::inode::{INODE_LEN, MAP_END, MAP_OFFSET, gref_offset, map_entry_offset};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::cluster_flag::{AUTO_VNODES, RECYCLE_VID, USE_LOCK};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Oid, Request, Response, SdResult, VDI_BITMAP_LEN, Vid, name_field, op};
use sim::host::{NodeId, Still};
use sim::model::{Cluster, Config, Sparse};

/// Of the cluster's objects: small, as all of them are read in the end.
const SHIFT: u8 = 20;
/// Indexes that requests are about, and one at the map's end.
const INDEXES: u32 = 10;
const REQUESTS: u32 = 400;
/// Within which a server has done what it leaves for after its answer.
const PATIENCE: Duration = Duration::from_secs(3);

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "vol7646017"];
const TAGS: [&str; 3] = ["", "s1", "s2"];

#[test]
fn the_model_answers_as_a_server_does() {
    let lamb;
    let addresses = match (std::env::var("SIM_AGREES_WITH"), std::env::var("LAMB")) {
        (Ok(addresses), _) => addresses.split(',').map(str::to_owned).collect(),
        (_, Ok(program)) => {
            lamb = Lamb::start(&program);
            vec![lamb.address.clone()]
        }
        _ => {
            eprintln!("agrees: SKIPPED: neither SIM_AGREES_WITH nor LAMB is set");
            return;
        }
    };
    let is_lamb = std::env::var("SIM_AGREES_WITH").is_err();
    let number = |name, usual| std::env::var(name).map_or(usual, |n| n.parse().expect("a number"));
    let seed = number("SIM_AGREES_SEED", 1);
    let rounds = number("SIM_AGREES_ROUNDS", if is_lamb { 3 } else { 12 });
    let mut requests = 0;
    let mut differences = Vec::new();
    for seed in seed..seed + rounds {
        let mut round = Round::new(&addresses, seed, is_lamb);
        differences.extend(round.run().err().inspect(|what| eprintln!("agrees: {what}")));
        requests += round.count;
    }
    eprintln!("agrees: {requests} requests, {} of {rounds} rounds differ", differences.len());
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// A server of the project's own, for as long as this lives.
struct Lamb {
    child: Child,
    address: String,
    store: std::path::PathBuf,
}

impl Lamb {
    fn start(program: &str) -> Lamb {
        let store = std::env::temp_dir().join(format!("agrees-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("a directory for the store");
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--mimic-1.0"]).arg(&store);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("LAMB can be started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut addresses = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("lamb: listening on ").map(str::to_owned));
        let address = addresses.find(|a| !a.contains('/')).expect("it listens");
        Lamb { child, address, store }
    }
}

impl Drop for Lamb {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(sides)) as u32
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u32) as usize]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.roll(100) < percent
    }
}

/// A freshly formatted server, and the model in the same state.
struct Round {
    dice: Dice,
    seed: u64,
    sockets: Vec<TcpStream>,
    host: Rc<Still>,
    model: Rc<Cluster>,
    count: u32,
    /// Ids that NEW_VDI gave, of VDIs whose object size the requests keep to.
    vids: Vec<u32>,
    recycle: bool,
    /// lamb does not recycle ids, clones of a working VDI leave that writable, a NEW_VDI that fails
    /// leaves nothing behind, the parent that it knows of a VDI after a rebase is the inode's, an
    /// object that does not exist has no ledger, a deletion takes the lock along, deleted VDIs are
    /// not found by the empty name, and deleted attributes have no value.
    is_lamb: bool,
}

type Exchange = (Request, Vec<u8>);
type Reply = (Response, Vec<u8>);
type Checked<T> = Result<T, String>;

impl Round {
    fn new(addresses: &[String], seed: u64, is_lamb: bool) -> Round {
        let connect = |address: &String| {
            let socket = TcpStream::connect(address).expect("the server accepts");
            socket.set_nodelay(true).expect("a TCP socket");
            socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
            socket
        };
        let nodes = addresses.len();
        let host = Rc::new(Still::new(nodes));
        let config = Config { nodes, shift: SHIFT, ..Config::default() };
        Round {
            dice: Dice(seed),
            seed,
            sockets: addresses.iter().map(connect).collect(),
            model: Cluster::new(host.clone(), config),
            host,
            count: 0,
            vids: Vec::new(),
            recycle: seed % 4 == 3 && !is_lamb,
            is_lamb,
        }
    }

    fn run(&mut self) -> Checked<()> {
        let mut flags = AUTO_VNODES;
        flags |= if self.seed % 2 == 1 { USE_LOCK } else { 0 };
        flags |= if self.recycle { RECYCLE_VID } else { 0 };
        let arm = ClusterArm {
            ctime: 1.into(),
            copies: (1 + self.seed / 2 % self.sockets.len() as u64) as u8,
            flags: flags.into(),
            block_size_shift: SHIFT,
            ..Default::default()
        };
        let format = Request::new(op::MAKE_FS, op::FLAG_WRITE, arm).with_length(6);
        self.both(0, (format, b"plain\0".to_vec()))?;
        for _ in 0..REQUESTS {
            let gateway = self.dice.roll(self.sockets.len() as u32) as usize;
            for exchange in self.next() {
                let deletes = exchange.0.opcode == op::DEL_VDI;
                let (response, _) = self.both(gateway, exchange)?;
                if self.is_lamb && deletes && response.result().is_success() {
                    self.unlock(response.vdi().vdi_id.get())?;
                }
            }
        }
        self.compare_stores()
    }

    fn unlock(&mut self, vid: u32) -> Checked<()> {
        for lock_type in [op::LOCK_NORMAL, op::LOCK_SHARED] {
            let lock_type = lock_type.into();
            let arm = VdiArm { base_vdi_id: vid.into(), lock_type, ..Default::default() };
            self.both(0, (Request::new(op::RELEASE_VDI, 0, arm), Vec::new()))?;
        }
        Ok(())
    }

    /// Has both carry it out, and waits until both have finished with it.
    fn both(&mut self, gateway: NodeId, exchange: Exchange) -> Checked<Reply> {
        let (request, payload) = &exchange;
        if request.opcode == op::READ_OBJ && self.is_untold(Oid(request.obj().oid.get())) {
            return Ok(Reply::default());
        }
        self.count += 1;
        let before = self.model.objects();
        let model = self.host.run(self.model.clone().serve(gateway, *request, payload.clone()));
        let end = Instant::now() + PATIENCE;
        let real = loop {
            let real = exchange_with(&mut self.sockets[gateway], &exchange)
                .map_err(|error| self.say(gateway, &exchange, &error.to_string()))?;
            let equal = difference(&exchange, &model, &real, self.is_lamb);
            match equal {
                None => break real,
                // What reads may wait for what the server is still doing.
                Some(_) if reads_only(request.opcode) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Some(what) => return Err(self.say(gateway, &exchange, &what)),
            }
        };
        if std::env::var_os("SIM_AGREES_TRACE").is_some() {
            let answer = format!("{:?} vid {:x}", real.0.result(), real.0.vdi().vdi_id.get());
            eprintln!("{}", self.say(gateway, &exchange, &answer));
        }
        if model.0.result().is_success() && request.opcode == op::NEW_VDI {
            self.vids.push(model.0.vdi().vdi_id.get());
        }
        let after = self.model.objects();
        let changed = before.keys().chain(after.keys()).collect::<BTreeSet<_>>();
        let releases = [op::WRITE_OBJ, op::DISCARD_OBJ].contains(&request.opcode);
        for &&oid in changed.iter().filter(|oid| releases && before.get(oid) != after.get(oid)) {
            let told = !self.is_untold(Oid(oid));
            if matches!(Oid(oid).kind(), Some(OidKind::Data | OidKind::Ledger)) && told {
                self.wait_for(Oid(oid), after.get(&oid), &exchange)?;
            }
        }
        if releases && Oid(request.obj().oid.get()).kind() == Some(OidKind::Inode) {
            // Of objects that do not exist the end of the removal cannot be seen.
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(real)
    }

    /// See `is_lamb`.
    fn is_untold(&self, oid: Oid) -> bool {
        let data = oid.0 & !(1 << 59);
        let ledger = oid.kind() == Some(OidKind::Ledger);
        self.is_lamb && ledger && !self.model.objects().contains_key(&data)
    }

    fn wait_for(&mut self, oid: Oid, bytes: Option<&Sparse>, of: &Exchange) -> Checked<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (response, data) =
                exchange_with(&mut self.sockets[0], &(Request::read(oid, 0, 4096), Vec::new()))
                    .map_err(|error| error.to_string())?;
            let equal = match bytes {
                Some(bytes) => response.result().is_success() && bytes.read(0, 4096) == data,
                None => response.result() == SdResult::NO_OBJ,
            };
            if equal {
                return Ok(());
            }
            if Instant::now() > end {
                let model = bytes.map(|bytes| words(&bytes.read(0, 64)));
                let server = (response.result(), words(&data[..data.len().min(64)]));
                return Err(self.say(0, of, &format!("then {oid}: {model:?}, server {server:?}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn say(&self, gateway: NodeId, exchange: &Exchange, what: &str) -> String {
        let request = &exchange.0;
        let (arm, object) = (request.vdi(), request.obj());
        let arm = match request.opcode {
            0x11..=0x14 | op::DEL_VDI | op::GET_VDI_ATTR => format!(
                "base {:06x} snapid {} size {:#x} copies {} policy {} shift {} type {}",
                arm.base_vdi_id.get(),
                arm.snapid.get(),
                arm.vdi_size.get(),
                arm.copies,
                arm.store_policy,
                arm.block_size_shift,
                arm.lock_type.get(),
            ),
            _ => format!(
                "{:016x} cow {:016x} offset {}",
                object.oid.get(),
                object.cow_oid.get(),
                object.offset.get()
            ),
        };
        let start = &exchange.1[..exchange.1.len().min(16)];
        let (name, flags) = (op::name(request.opcode), request.flags.get());
        format!(
            "seed {} request {} at {gateway}: {name} flags {flags:#x} {arm}; {} bytes: {}: {what}",
            self.seed,
            self.count,
            request.data_length.get(),
            start.escape_ascii()
        )
    }

    /// Everything that is stored, read from both.
    fn compare_stores(&mut self) -> Checked<()> {
        let mut requests = vec![
            Request::new(op::READ_VDIS, 0, [0; 32]).with_length(VDI_BITMAP_LEN as u32),
            Request::new(op::READ_DEL_VDIS, 0, [0; 32]).with_length(VDI_BITMAP_LEN as u32),
            Request::new(op::GET_VDI_COPIES, 0, [0; 32]).with_length(512 * 1428),
        ];
        let vids: BTreeSet<Vid> = self.vids.iter().filter_map(|vid| Vid::new(*vid)).collect();
        for vid in vids {
            let oid = vid.inode();
            requests.push(Request::read(oid, 0, map_entry_offset(INDEXES + 8)));
            requests.push(Request::read(oid, gref_offset(0), 8 * (INDEXES + 8)));
            requests.push(Request::read(oid, MAP_END - 64, 64));
            for index in (0..INDEXES).chain([sheepdog_proto::MAX_DATA_OBJECTS - 1]) {
                requests.push(Request::read(vid.data(index), 0, 1 << SHIFT));
                requests.push(Request::read(vid.data(index).ledger(), 0, 4096));
            }
        }
        for oid in self.model.objects().into_keys() {
            if Oid(oid).kind() == Some(OidKind::Attr) {
                requests.push(Request::read(Oid(oid), 0, ATTR_LEN as u32));
            }
        }
        for request in requests {
            self.both(0, (request, Vec::new()))?;
        }
        Ok(())
    }
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
}

fn exchange_with(socket: &mut TcpStream, (request, payload): &Exchange) -> std::io::Result<Reply> {
    socket.write_all(&[request.as_bytes(), payload].concat())?;
    let mut response = Response::default();
    socket.read_exact(response.as_mut_bytes())?;
    let mut data = vec![0; response.data_length.get() as usize];
    socket.read_exact(&mut data)?;
    Ok((response, data))
}

fn reads_only(opcode: u8) -> bool {
    use op::*;
    let changing = [
        CREATE_AND_WRITE_OBJ,
        WRITE_OBJ,
        REMOVE_OBJ,
        DISCARD_OBJ,
        NEW_VDI,
        DEL_VDI,
        LOCK_VDI,
        RELEASE_VDI,
        GET_VDI_ATTR,
        MAKE_FS,
    ];
    !changing.contains(&opcode)
}

/// How two answers to one request differ, in anything that means something.
fn difference(exchange: &Exchange, model: &Reply, real: &Reply, is_lamb: bool) -> Option<String> {
    let request = &exchange.0;
    if model.0.result() != real.0.result() {
        return Some(format!("{:?}, server {:?}", model.0.result(), real.0.result()));
    }
    if (real.0.id, real.0.opcode) != (request.id, request.opcode) {
        return Some("the server does not echo id or opcode".to_owned());
    }
    let vdi = |response: &Response| {
        let arm = response.vdi();
        (arm.vdi_id.get(), arm.attr_id.get(), arm.copies, arm.block_size_shift)
    };
    let with_vdi = [op::NEW_VDI, op::DEL_VDI, op::GET_VDI_INFO, op::LOCK_VDI, op::GET_VDI_ATTR];
    let told = model.0.result().is_success()
        || (request.opcode == op::GET_VDI_ATTR
            && model.0.result() != SdResult::NO_VDI
            && model.0.result() != SdResult::NO_TAG);
    if with_vdi.contains(&request.opcode) && told && vdi(&model.0) != vdi(&real.0) {
        return Some(format!("{:x?}, server {:x?}", vdi(&model.0), vdi(&real.0)));
    }
    if request.opcode == op::GET_CLUSTER_DEFAULT && model.0.arm != real.0.arm {
        return Some(format!("{:x?}, server {:x?}", model.0.arm, real.0.arm));
    }
    let masked = |data: &[u8]| masked(request, data, is_lamb);
    let (model, real) = (masked(&model.1), masked(&real.1));
    if model.len() != real.len() {
        return Some(format!("{} bytes, server {}", model.len(), real.len()));
    }
    let at = model.iter().zip(&real).position(|(a, b)| a != b)?;
    let near = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 16)]);
    Some(format!("byte {at}: {}, server {}", near(&model), near(&real)))
}

/// A payload without times and addresses; a time is told from none.
fn masked(request: &Request, payload: &[u8], is_lamb: bool) -> Vec<u8> {
    let mut data = payload.to_vec();
    let oid = Oid(request.obj().oid.get());
    let times: &[u64] = match (request.opcode, oid.kind()) {
        (op::READ_OBJ, Some(OidKind::Inode)) => &[512, 520],
        (op::READ_OBJ, Some(OidKind::Attr)) => &[512],
        _ => &[],
    };
    let base = u64::from(request.obj().offset.get());
    for time in times {
        let range = time.saturating_sub(base) as usize..(time + 8).saturating_sub(base) as usize;
        if let Some(bytes) = data.get_mut(range) {
            let set = bytes.iter().any(|byte| *byte != 0);
            bytes.fill(set.into());
        } else if base < time + 8 && base + data.len() as u64 > *time {
            data.clear();
        }
    }
    if is_lamb && oid.kind() == Some(OidKind::Attr) && base == 0 && data.first() == Some(&0) {
        data.truncate(size_of::<AttrHeader>());
    }
    if request.opcode == op::GET_VDI_COPIES {
        for state in data.chunks_exact_mut(size_of::<VdiState>()) {
            let state = VdiState::mut_from_bytes(state).expect("as many bytes");
            state.lock_owner = Default::default();
            if is_lamb {
                state.parent_vid = 0.into();
            }
            // What participants of a lock were is left where they were.
            if state.lock_state.get() != 3 {
                state.nr_participants = 0.into();
                state.participants_state = Default::default();
            }
            state.participants = Default::default();
        }
    }
    data
}

// --- Random requests ---

impl Round {
    /// One request, or some that belong together.
    fn next(&mut self) -> Vec<Exchange> {
        match self.dice.roll(100) {
            0..6 => vec![self.new_vdi()],
            6..14 => self.snapshot(),
            14..18 => vec![self.clone_or_rebase()],
            18..36 => self.write(),
            36..48 => vec![self.map_update()],
            48..54 => vec![self.create()],
            54..60 => vec![self.write_data()],
            60..64 => vec![self.header_write()],
            64..67 => vec![self.on_data(op::DISCARD_OBJ)],
            67..69 => vec![self.on_data(op::REMOVE_OBJ)],
            69..72 => self.delete(),
            72..80 => vec![self.read()],
            80..88 => vec![self.lookup()],
            88..95 => vec![self.attribute()],
            _ => vec![self.other()],
        }
    }

    fn vid(&mut self) -> Vid {
        let strange = self.dice.chance(4) || self.vids.is_empty();
        let vid = match strange {
            true => 0xabcdef + self.dice.roll(2),
            // Mostly the latest: they are the working ones.
            false => {
                let last = self.vids.len() as u32;
                let back = if self.dice.chance(70) { last.min(6) } else { last };
                self.vids[(last - 1 - self.dice.roll(back)) as usize]
            }
        };
        Vid::new(vid).expect("24 bits")
    }

    fn index(&mut self) -> u32 {
        match self.dice.chance(2) {
            true => sheepdog_proto::MAX_DATA_OBJECTS - 1,
            false => self.dice.roll(INDEXES),
        }
    }

    fn name(&mut self) -> [u8; 256] {
        let name = match self.dice.roll(40) {
            0 => "nobody",
            1 if !self.is_lamb => "",
            _ => self.dice.one_of(&NAMES),
        };
        let mut field = name_field(name.as_bytes()).expect("short");
        if self.dice.chance(3) {
            // Behind the end of a name anything may follow.
            field[40..50].copy_from_slice(b"irrelevant");
        }
        field
    }

    /// A snapshot's number with a payload of a name alone kills the real server.
    fn names(&mut self, snapid: u32) -> Vec<u8> {
        let mut payload = self.name().to_vec();
        match self.dice.roll(30) {
            0 => payload.truncate(100),
            1 => payload.resize(700, 0),
            2..8 if snapid == 0 => {}
            _ => payload.extend(self.tag()),
        }
        payload
    }

    fn tag(&mut self) -> [u8; 256] {
        name_field(self.dice.one_of(&TAGS).as_bytes()).expect("short")
    }

    fn size(&mut self) -> u64 {
        u64::from(self.dice.roll(INDEXES + 2) << SHIFT) + u64::from(self.dice.roll(3)) * 512
    }

    fn new_vdi(&mut self) -> Exchange {
        let arm = VdiArm {
            vdi_size: self.size().into(),
            copies: self.dice.roll(2) as u8,
            block_size_shift: self.dice.one_of(&[0, SHIFT, SHIFT + 1]),
            snapid: u32::from(self.dice.chance(5) && !self.is_lamb).into(),
            ..Default::default()
        };
        let mut name = self.name().to_vec();
        if self.dice.chance(4) {
            name.resize(self.dice.one_of(&[0, 100, 512]), 0);
        }
        written(op::NEW_VDI, arm, name)
    }

    /// A tag, and a new working VDI.
    fn snapshot(&mut self) -> Vec<Exchange> {
        let Some((vid, name, size, shift)) = self.working() else { return vec![self.new_vdi()] };
        let arm = VdiArm {
            vdi_size: size.into(),
            base_vdi_id: vid.get().into(),
            copies: 1,
            block_size_shift: shift,
            snapid: 1.into(),
            ..Default::default()
        };
        let tag = write(vid.inode(), 256, self.tag().to_vec());
        vec![tag, written(op::NEW_VDI, arm, name)]
    }

    /// A working VDI of the model's: id, name, size, shift.
    fn working(&mut self) -> Option<(Vid, Vec<u8>, u64, u8)> {
        let vid = self.vid();
        let header = self.model.inode(vid.get())?.header;
        let working = !header.is_deleted() && !header.is_snapshot();
        let name = header.name.to_vec();
        working.then(|| (vid, name, header.vdi_size.get(), header.block_size_shift))
    }

    fn clone_or_rebase(&mut self) -> Exchange {
        let (base, snapid) = (self.vid().get(), self.dice.roll(2));
        if self.is_lamb && !self.model.inode(base).is_some_and(|i| i.header.is_snapshot()) {
            return self.read();
        }
        let arm = VdiArm {
            vdi_size: self.size().into(),
            base_vdi_id: base.into(),
            copies: 1,
            block_size_shift: SHIFT,
            snapid: snapid.into(),
            ..Default::default()
        };
        written(op::NEW_VDI, arm, self.name().to_vec())
    }

    fn data(&mut self) -> (u32, Vec<u8>) {
        let len = self.dice.one_of(&[0, 1, 8, 512, 700, 5000]);
        let byte = self.dice.roll(4) as u8;
        (self.dice.one_of(&[0, 512, 1000, 70_000]), vec![byte; len])
    }

    /// As clients do it: copy-on-write where it is due, and the map's entry.
    fn write(&mut self) -> Vec<Exchange> {
        let Some((vid, ..)) = self.working() else { return vec![self.read()] };
        let index = self.index();
        let entry = self.model.inode(vid.get()).and_then(|i| i.map.get(&index).copied());
        let (offset, data) = self.data();
        let update = write(vid.inode(), map_entry_offset(index), vid.get().to_le_bytes().to_vec());
        match entry.and_then(Vid::new) {
            Some(owner) if owner == vid => vec![write(vid.data(index), offset, data)],
            owner => {
                let cow = owner.map(|owner| owner.data(index));
                vec![create(vid.data(index), cow, offset, data), update]
            }
        }
    }

    /// Any run of entries, within the map or over its ends.
    fn map_update(&mut self) -> Exchange {
        let vid = self.vid();
        let first = self.index();
        let last = sheepdog_proto::MAX_DATA_OBJECTS - 1;
        let count = self.dice.one_of(&[0, 1, 1, 1, 1, 2, 3, 8]).min(last - first + 1);
        let mut data = Vec::new();
        for index in first..first + count {
            let inode = self.model.inode(vid.get());
            let kept = inode.and_then(|inode| inode.map.get(&index).copied()).unwrap_or(0);
            let entry = match self.dice.roll(10) {
                0..4 => 0,
                4..6 => vid.get(),
                6..8 => kept,
                _ => self.vid().get(),
            };
            data.extend(entry.to_le_bytes());
        }
        match self.dice.roll(25) {
            // From the header on: stored as it is.
            0 => {
                data = [vec![0; 8], data].concat();
                write(vid.inode(), MAP_OFFSET - 8, data)
            }
            // References are bytes like others.
            1 => write(vid.inode(), MAP_END - 4, vec![0; 12]),
            _ => write(vid.inode(), map_entry_offset(first), data),
        }
    }

    fn create(&mut self) -> Exchange {
        let oid = self.vid().data(self.index());
        let cow = match self.dice.roll(3) {
            0 => None,
            1 => Some(self.vid().data(oid.index())),
            _ => Some(Oid(0)),
        };
        let (offset, data) = match self.dice.chance(3) {
            true => (0, vec![7; 1 << SHIFT]),
            false => self.data(),
        };
        let oid = if self.dice.chance(8) { oid.vid().vmstate(oid.index()) } else { oid };
        create(oid, cow, offset, data)
    }

    fn write_data(&mut self) -> Exchange {
        let (offset, data) = self.data();
        let oid = self.vid().data(self.index());
        let oid = if self.dice.chance(8) { oid.vid().vmstate(oid.index()) } else { oid };
        let (mut request, payload) = write(oid, offset, data);
        if self.dice.chance(20) {
            request.flags = (op::FLAG_WRITE | op::FLAG_TGT).into();
        }
        (request, payload)
    }

    fn header_write(&mut self) -> Exchange {
        let oid = self.vid().inode();
        match self.dice.roll(4) {
            0 => write(oid, 256, self.tag().to_vec()),
            1 => write(oid, 544, vec![1; 8]),
            2 => write(oid, 528, Vec::new()),
            _ => write(oid, 536, self.size().to_le_bytes().to_vec()),
        }
    }

    fn on_data(&mut self, opcode: u8) -> Exchange {
        (Request::new(opcode, 0, object(self.vid().data(self.index()), None, 0)), Vec::new())
    }

    /// With the map emptied before, or without. A recycling server may not survive it where there
    /// is no such VDI.
    fn delete(&mut self) -> Vec<Exchange> {
        let snapid = self.dice.one_of(&[0, 0, 1, 2]);
        let arm = VdiArm { snapid: snapid.into(), ..Default::default() };
        let mut requests = vec![match self.recycle {
            true => self.read(),
            false => written(op::DEL_VDI, arm, self.names(snapid)),
        }];
        let vid = self.vid();
        let inode = self.model.inode(vid.get());
        if let Some(header) = inode.map(|inode| inode.header).filter(|h| !h.is_deleted())
            && (self.recycle || self.dice.chance(70))
        {
            let snapid = if header.is_snapshot() { header.snap_id.get() } else { 0 };
            let arm = VdiArm { snapid: snapid.into(), ..Default::default() };
            let map = 4 * (INDEXES + 4) as usize;
            let empty = write(vid.inode(), MAP_OFFSET, vec![0; map]);
            requests = vec![empty, written(op::DEL_VDI, arm, [header.name, [0; 256]].concat())];
        }
        requests
    }

    fn read(&mut self) -> Exchange {
        let (vid, index) = (self.vid(), self.index());
        let (len, offset) = (self.dice.one_of(&[0, 1, 512, 6000]), self.dice.one_of(&[0, 900]));
        let request = match self.dice.roll(10) {
            0 => Request::read(vid.inode(), 0, MAP_END),
            1 => Request::read(vid.inode(), 0, INODE_LEN),
            2 => Request::read(vid.inode(), map_entry_offset(index), 4),
            3 => Request::read(vid.inode(), gref_offset(index), 8),
            4 => Request::read(vid.inode(), 0, 568),
            5 => Request::read(vid.data(index).ledger(), 0, 64),
            6 => Request::read(vid.vmstate(index), offset, len),
            _ => Request::read(vid.data(index), offset, len),
        };
        let flags = if self.dice.chance(30) { op::FLAG_TGT } else { 0 };
        (Request { flags: flags.into(), ..request }, Vec::new())
    }

    fn lookup(&mut self) -> Exchange {
        let opcode = self.dice.one_of(&[op::GET_VDI_INFO, op::LOCK_VDI, op::RELEASE_VDI]);
        let snapid = self.dice.one_of(&[0, 0, 0, 1, 2, 9]);
        let arm = VdiArm {
            base_vdi_id: self.vid().get().into(),
            snapid: snapid.into(),
            lock_type: self.dice.one_of(&[0, 0, 0, 1, 1, 7]).into(),
            ..Default::default()
        };
        match opcode {
            op::RELEASE_VDI => (Request::new(opcode, 0, arm), Vec::new()),
            _ => written(opcode, arm, self.names(snapid)),
        }
    }

    fn attribute(&mut self) -> Exchange {
        let (create, excl) = (op::FLAG_ATTR_CREAT, op::FLAG_ATTR_EXCL);
        let flags = self.dice.one_of(&[0, 0, create, create | excl, excl, op::FLAG_ATTR_DEL]);
        let header = AttrHeader {
            name: name_field(self.dice.one_of(&NAMES).as_bytes()).expect("short"),
            tag: self.tag(),
            snap_id: self.dice.one_of(&[0, 0, 1]).into(),
            key: name_field(self.dice.one_of(&["k1", "k2"]).as_bytes()).expect("short"),
            ..Default::default()
        };
        let value = vec![b'v'; self.dice.roll(40) as usize];
        let snapid = self.dice.one_of(&[0, 0, 0, 1]);
        (attr::get_vdi_attr(flags, snapid), attr::encode(header, &value).expect("short"))
    }

    fn other(&mut self) -> Exchange {
        let bitmap = self.dice.one_of(&[VDI_BITMAP_LEN as u32, VDI_BITMAP_LEN as u32, 4096]);
        let inode = object(self.vid().inode(), None, 0);
        let request = match self.dice.roll(9) {
            0 => Request::new(op::READ_VDIS, 0, [0; 32]).with_length(bitmap),
            1 => Request::new(op::READ_DEL_VDIS, 0, [0; 32]).with_length(bitmap),
            2 => Request::new(op::GET_CLUSTER_DEFAULT, 0, [0; 32]),
            3 => Request::new(op::FLUSH_VDI, 0, inode),
            4 => Request::new(op::GET_VDI_COPIES, 0, [0; 32])
                .with_length(self.dice.one_of(&[512 * 1428, 1428])),
            5 if self.sockets.len() == 1 => {
                Request::new(op::EXIST, 0, object(self.vid().data(self.index()), None, 0))
            }
            6 => Request::new(0x60, 0, [0; 32]),
            7 => Request { proto_ver: 3, ..Request::new(op::READ_OBJ, 0, inode) },
            _ => Request { proto_ver: 2, ..Request::new(op::GET_VDI_COPIES, 0, [0; 32]) },
        };
        (request, Vec::new())
    }
}

fn object(oid: Oid, cow: Option<Oid>, offset: u32) -> ObjArm {
    let cow_oid = cow.map_or(0, |oid| oid.0).into();
    ObjArm { oid: oid.0.into(), cow_oid, offset: offset.into(), ..Default::default() }
}

fn written(opcode: u8, arm: impl Into<[u8; 32]>, payload: Vec<u8>) -> Exchange {
    let flags = if payload.is_empty() { 0 } else { op::FLAG_WRITE };
    (Request::new(opcode, flags, arm).with_length(payload.len() as u32), payload)
}

fn write(oid: Oid, offset: u32, data: Vec<u8>) -> Exchange {
    written(op::WRITE_OBJ, object(oid, None, offset), data)
}

fn create(oid: Oid, cow: Option<Oid>, offset: u32, data: Vec<u8>) -> Exchange {
    let (mut request, payload) = written(op::CREATE_AND_WRITE_OBJ, object(oid, cow, offset), data);
    let flags = request.flags.get() | op::FLAG_WRITE;
    request.flags = (flags | if cow.is_some() { op::FLAG_COW } else { 0 }).into();
    (request, payload)
}
