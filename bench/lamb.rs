//! What servers do in a second: `bench-lamb SERVER...`, each an address and, after a comma, the
//! process id of the server, for its processor time. Measures each in turns, ROUNDS times (5) for
//! MILLISECONDS (300), and prints the medians, how many times those of the last one they are, and
//! the microseconds of processor time that an operation takes.
//!
//! The client is one thread and one connection on raw sockets. Each server gets a VDI of its own,
//! which is deleted afterwards. ONLY in the environment says a part of the names of what to measure.

use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use sheepdog_proto::header::{HEADER_LEN, ObjArm, VdiArm};
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::op::{self, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{NAME_LEN, Oid, Request, Response, SdResult, Vid, name_field};

const OBJECTS: u32 = 64;
const OBJECT: u64 = 4 << 20;
/// Objects that a round creates at most: servers may take the space of each as a whole.
const MOST_CREATED: u32 = 1000;
/// Seconds of a tick of /proc/PID/stat, which Linux has had since 2.6.
const TICK: f64 = 0.01;

struct Server {
    stream: TcpStream,
    pid: Option<String>,
    vid: Vid,
    name: [u8; NAME_LEN],
    received: Vec<u8>,
    /// Of those, the bytes that have yet to be looked at.
    start: usize,
    end: usize,
    /// Of a payload that is on its way.
    skip: usize,
    data: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
    /// CREATE_AND_WRITE of objects that are not there.
    Create,
    /// The same, and the write to the map of each.
    Map,
}

type Work = (Kind, u32, u32);

/// What is done, the bytes of it, and how many at a time.
const WORKS: [Work; 17] = [
    (Kind::Read, 4 << 10, 1),
    (Kind::Read, 4 << 10, 8),
    (Kind::Read, 4 << 10, 32),
    (Kind::Read, 64 << 10, 1),
    (Kind::Read, 64 << 10, 8),
    (Kind::Read, 1 << 20, 1),
    (Kind::Read, 1 << 20, 8),
    (Kind::Write, 4 << 10, 1),
    (Kind::Write, 4 << 10, 8),
    (Kind::Write, 4 << 10, 32),
    (Kind::Write, 64 << 10, 1),
    (Kind::Write, 64 << 10, 8),
    (Kind::Write, 1 << 20, 8),
    (Kind::Create, 4 << 10, 1),
    (Kind::Create, 4 << 10, 16),
    (Kind::Create, 1 << 20, 4),
    (Kind::Map, 4 << 10, 16),
];

fn name_of((kind, len, depth): Work) -> String {
    let kind = match kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Create => "create",
        Kind::Map => "create and map",
    };
    let len =
        if len < 1 << 20 { format!("{} KiB", len >> 10) } else { format!("{} MiB", len >> 20) };
    format!("{kind} {len}, depth {depth}")
}

impl Server {
    fn open(argument: &str) -> Server {
        let (address, pid) = match argument.split_once(',') {
            Some((address, pid)) => (address, Some(pid.to_owned())),
            None => (argument, None),
        };
        let stream = TcpStream::connect(address).expect("the server is there");
        stream.set_nodelay(true).expect("a TCP socket");
        let name = format!("bench-{}", std::process::id());
        let name = name_field(name.as_bytes()).expect("short");
        let (received, data) = (vec![0; 256 << 10], vec![1; OBJECT as usize]);
        let (vid, start, end, skip) = (Vid::NONE, 0, 0, 0);
        let mut server = Server { stream, pid, vid, name, received, start, end, skip, data };
        let size = OBJECT * (1 << 19);
        let arm = VdiArm { vdi_size: size.into(), copies: 1, ..VdiArm::default() };
        server.send(
            &[Request::new(op::NEW_VDI, FLAG_WRITE, arm).with_length(NAME_LEN as u32)],
            &name,
        );
        server.vid = server.receive().vdi().vid().expect("an id");
        // An entry of a map begins what is written, and objects may begin with whatever it is.
        server.data[..4].copy_from_slice(&server.vid.get().to_le_bytes());
        for index in 0..OBJECTS {
            let requests = server.requests((Kind::Map, OBJECT as u32, 1), index);
            server.begin(requests);
            server.receive();
            server.receive();
        }
        server
    }

    /// Sends requests, each with as much of `data` as it says, at once.
    fn send(&mut self, requests: &[Request], data: &[u8]) {
        let mut parts = Vec::with_capacity(2 * requests.len());
        for request in requests {
            parts.push(IoSlice::new(request.as_bytes()));
            if request.flags.get() & FLAG_WRITE != 0 {
                parts.push(IoSlice::new(&data[..request.data_length.get() as usize]));
            }
        }
        let mut parts = &mut parts[..];
        while !parts.is_empty() {
            let n = self.stream.write_vectored(&parts[..parts.len().min(1024)]).expect("sent");
            IoSlice::advance_slices(&mut parts, n);
        }
    }

    /// The next answer, of whose payload nothing is kept.
    fn receive(&mut self) -> Response {
        loop {
            let n = self.skip.min(self.end - self.start);
            (self.start, self.skip) = (self.start + n, self.skip - n);
            if let Some(header) = self.received[self.start..self.end].get(..HEADER_LEN) {
                let response = Response::read_from_bytes(header).expect("a header");
                assert_eq!(response.result(), SdResult::SUCCESS, "{response:?}");
                self.start += HEADER_LEN;
                self.skip = response.data_length.get() as usize;
                // An answer is here when all of it is.
                while self.skip > self.end - self.start {
                    self.skip -= self.end - self.start;
                    (self.start, self.end) = (0, self.fill(0));
                }
                return response;
            }
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.end = self.fill(self.end);
        }
    }

    fn fill(&mut self, from: usize) -> usize {
        let n = self.stream.read(&mut self.received[from..]).expect("an answer");
        assert_ne!(n, 0, "the server has gone");
        from + n
    }

    /// Whether an answer has begun to come that was not looked at.
    fn has_more(&self) -> bool {
        self.end - self.start - self.skip.min(self.end - self.start) >= HEADER_LEN
    }

    fn begin(&mut self, requests: impl IntoIterator<Item = Request>) {
        let requests: Vec<Request> = requests.into_iter().collect();
        let data = std::mem::take(&mut self.data);
        self.send(&requests, &data);
        self.data = data;
    }

    fn requests(&self, (kind, len, _): Work, n: u32) -> Vec<Request> {
        let oid = self.vid.data(n % OBJECTS);
        let offset = (n.wrapping_mul(0x9e37_79b9) >> 10) % (OBJECT as u32 / len) * len;
        let create = |len| request(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, self.vid.data(n), 0, len);
        match kind {
            Kind::Read => vec![request(op::READ_OBJ, 0, oid, offset, len)],
            Kind::Write => vec![request(op::WRITE_OBJ, FLAG_WRITE, oid, offset, len)],
            Kind::Create => vec![create(len)],
            Kind::Map => {
                let (inode, at) = (self.vid.inode(), map_entry_offset(n));
                vec![create(len), request(op::WRITE_OBJ, FLAG_WRITE, inode, at, 4)]
            }
        }
    }

    /// Operations, and the seconds and the processor's seconds they took.
    fn measure(&mut self, work: Work, time: Duration) -> (u32, f64, f64) {
        let (kind, _, depth) = work;
        let answers = if kind == Kind::Map { 2 } else { 1 };
        let (mut begun, first) = match kind {
            Kind::Read | Kind::Write => (0, 0),
            Kind::Create | Kind::Map => (OBJECTS, OBJECTS),
        };
        let (cpu, start) = (self.cpu(), Instant::now());
        let (mut done, mut due) = (0, depth);
        loop {
            let next: Vec<Request> =
                (begun..begun + due).flat_map(|n| self.requests(work, n)).collect();
            (begun, due) = (begun + due, 0);
            self.begin(next);
            // All that has come, then as many new ones: as clients do.
            loop {
                (0..answers).for_each(|_| _ = self.receive());
                due += 1;
                if !self.has_more() || due == depth {
                    break;
                }
            }
            done += due;
            if start.elapsed() >= time || first > 0 && done >= MOST_CREATED {
                break;
            }
        }
        let took = (done, start.elapsed().as_secs_f64(), self.cpu() - cpu);
        (0..(begun - first - done) * answers).for_each(|_| _ = self.receive());
        (first > 0).then(|| self.remove(first..begun, kind));
        took
    }

    /// Removes objects that were created, for the next round to create them.
    fn remove(&mut self, indexes: Range<u32>, kind: Kind) {
        let (vid, indexes) = (self.vid, indexes.collect::<Vec<_>>());
        for some in indexes.chunks(64) {
            let unmap = |at| request(op::WRITE_OBJ, FLAG_WRITE, vid.inode(), at, 4);
            let requests = some.iter().map(|&index| match kind {
                Kind::Map => unmap(map_entry_offset(index)),
                _ => request(op::REMOVE_OBJ, 0, vid.data(index), 0, 0),
            });
            let requests: Vec<_> = requests.collect();
            self.send(&requests, &[0; 4]);
            requests.iter().for_each(|_| _ = self.receive());
        }
    }

    /// Seconds of processors that the server has used.
    fn cpu(&self) -> f64 {
        let stat =
            self.pid.as_ref().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")));
        let Some(Ok(stat)) = stat else { return 0.0 };
        // The name of the program may have spaces, and ends with the last bracket.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() * TICK
    }

    fn close(mut self) {
        let payload = [self.name, [0; NAME_LEN]].concat();
        let request = Request::new(op::DEL_VDI, FLAG_WRITE, VdiArm::default());
        self.send(&[request.with_length(payload.len() as u32)], &payload);
        self.receive();
    }
}

fn request(opcode: u8, flags: u16, oid: Oid, offset: u32, len: u32) -> Request {
    let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..ObjArm::default() };
    Request::new(opcode, flags, arm).with_length(len)
}

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut servers: Vec<Server> = arguments.iter().map(|a| Server::open(a)).collect();
    let only = std::env::var("ONLY").unwrap_or_default();
    let rounds = number("ROUNDS", 5).max(1);
    let time = Duration::from_millis(number("MILLISECONDS", 300).into());
    for (name, work) in WORKS.map(|work| (name_of(work), work)) {
        if !name.contains(&only) {
            continue;
        }
        let mut rates = vec![Vec::new(); servers.len()];
        let mut costs = vec![(0.0, 0.0); servers.len()];
        for round in 0..rounds {
            // Nobody is always the first, as what one leaves to be done may be done beside the next.
            let mut turns: Vec<usize> = (0..servers.len()).collect();
            turns.rotate_left(round as usize % servers.len());
            for at in turns {
                let (done, seconds, cpu) = servers[at].measure(work, time);
                rates[at].push(f64::from(done) / seconds);
                costs[at] = (costs[at].0 + f64::from(done), costs[at].1 + cpu);
            }
        }
        let medians: Vec<f64> = rates.into_iter().map(median).collect();
        let last = medians.last().copied().unwrap_or(1.0);
        let columns = medians.iter().zip(costs).map(|(rate, (done, cpu))| {
            format!("{rate:>9.0}/s {:>6.2} {:>7.1} us", rate / last, cpu / done * 1e6)
        });
        println!("{name:<30}{}", columns.collect::<Vec<_>>().join("  "));
    }
    servers.into_iter().for_each(Server::close);
}
