//! What servers do in a second: `bench ADDRESS...` measures each in turns, five times, and prints
//! the medians, and how many times the last one's those of the others are.
//!
//! Each server gets a VDI of its own, which is deleted afterwards. ONLY in the environment says a
//! part of the names of what to measure.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sheepdog_proto::header::{ObjArm, VdiArm};
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::op::{self, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{NAME_LEN, Oid, Request, Response, SdResult, Vid, name_field};

const OBJECTS: u32 = 64;
const OBJECT: u64 = 4 << 20;
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(400);

struct Server {
    stream: TcpStream,
    vid: Vid,
    name: [u8; NAME_LEN],
    created: u32,
}

#[derive(Clone, Copy)]
enum Work {
    Read { len: u32, depth: u32 },
    Write { len: u32, depth: u32 },
    Create,
}

const WORKS: [(&str, Work); 7] = [
    ("read 4 KiB, depth 1", Work::Read { len: 4096, depth: 1 }),
    ("read 4 KiB, depth 32", Work::Read { len: 4096, depth: 32 }),
    ("read 1 MiB, depth 8", Work::Read { len: 1 << 20, depth: 8 }),
    ("write 4 KiB, depth 1", Work::Write { len: 4096, depth: 1 }),
    ("write 4 KiB, depth 32", Work::Write { len: 4096, depth: 32 }),
    ("write 1 MiB, depth 8", Work::Write { len: 1 << 20, depth: 8 }),
    ("create and map, depth 16", Work::Create),
];

impl Server {
    fn open(address: &str) -> Server {
        let stream = TcpStream::connect(address).expect("the server is there");
        stream.set_nodelay(true).expect("a TCP socket");
        let name = format!("bench-{}", std::process::id());
        let name = name_field(name.as_bytes()).expect("short");
        let mut server = Server { stream, vid: Vid::NONE, name, created: OBJECTS };
        let size = OBJECT * (1 << 19);
        let arm = VdiArm { vdi_size: size.into(), copies: 1, ..VdiArm::default() };
        server.send(Request::new(op::NEW_VDI, FLAG_WRITE, arm), &name);
        server.vid = server.receive().vdi().vid().expect("an id");
        for index in 0..OBJECTS {
            server.allocate(index, &vec![1; OBJECT as usize]);
            server.receive();
            server.receive();
        }
        server
    }

    fn send(&mut self, request: Request, payload: &[u8]) {
        let request = match payload.len() {
            0 => request,
            len => request.with_length(len as u32),
        };
        self.stream.write_all(request.as_bytes()).expect("sent");
        self.stream.write_all(payload).expect("sent");
    }

    fn receive(&mut self) -> Response {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).expect("an answer");
        let response = Response::read_from_bytes(&header).expect("a header");
        assert_eq!(response.result(), SdResult::SUCCESS, "{response:?}");
        let mut rest = vec![0; response.data_length.get() as usize];
        self.stream.read_exact(&mut rest).expect("its payload");
        response
    }

    fn allocate(&mut self, index: u32, data: &[u8]) {
        let (vid, oid) = (self.vid, self.vid.data(index));
        self.send(request(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, oid, 0), data);
        let entry = vid.get().to_le_bytes();
        self.send(request(op::WRITE_OBJ, FLAG_WRITE, vid.inode(), map_entry_offset(index)), &entry);
    }

    fn begin(&mut self, work: Work, n: u32) {
        let oid = self.vid.data(n % OBJECTS);
        let offset = |len: u32| (n.wrapping_mul(0x9e37_79b9) >> 10) % (OBJECT as u32 / len) * len;
        match work {
            Work::Read { len, .. } => self.send(Request::read(oid, offset(len), len), &[]),
            Work::Write { len, .. } => {
                let data = vec![n as u8; len as usize];
                self.send(request(op::WRITE_OBJ, FLAG_WRITE, oid, offset(len)), &data);
            }
            Work::Create => {
                self.created += 1;
                self.allocate(self.created, &[1; 4096]);
            }
        }
    }

    /// Operations in a second.
    fn measure(&mut self, work: Work) -> f64 {
        let (depth, answers) = match work {
            Work::Read { depth, .. } | Work::Write { depth, .. } => (depth, 1),
            Work::Create => (16, 2),
        };
        let start = Instant::now();
        (0..depth).for_each(|n| self.begin(work, n));
        let mut done = 0;
        while start.elapsed() < TIME {
            (0..answers).for_each(|_| _ = self.receive());
            done += 1;
            self.begin(work, depth + done);
        }
        let rate = f64::from(done) / start.elapsed().as_secs_f64();
        (0..depth * answers).for_each(|_| _ = self.receive());
        rate
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let payload = [self.name, [0; NAME_LEN]].concat();
        self.send(Request::new(op::DEL_VDI, FLAG_WRITE, VdiArm::default()), &payload);
        self.receive();
    }
}

fn request(opcode: u8, flags: u16, oid: Oid, offset: u32) -> Request {
    let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..ObjArm::default() };
    Request::new(opcode, flags, arm)
}

fn main() {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let mut servers: Vec<Server> = addresses.iter().map(|address| Server::open(address)).collect();
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, work) in WORKS.into_iter().filter(|(name, _)| name.contains(&only)) {
        let mut rates = vec![Vec::new(); servers.len()];
        for _ in 0..ROUNDS {
            for (server, rates) in servers.iter_mut().zip(&mut rates) {
                rates.push(server.measure(work));
            }
        }
        let medians: Vec<f64> = rates
            .into_iter()
            .map(|mut rates| {
                rates.sort_by(f64::total_cmp);
                rates[ROUNDS / 2]
            })
            .collect();
        let last = medians.last().copied().unwrap_or(1.0);
        let columns: Vec<String> =
            medians.iter().map(|rate| format!("{rate:>10.0}/s {:>5.2}", rate / last)).collect();
        println!("{name:<26}{}", columns.join("  "));
    }
}
