//! An independent client: libblkio's driver for vhost-user. It has many requests in flight in two
//! queues, and knows what each block holds.

#![allow(unsafe_code)] // buffers of another library's

mod common;

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use blkio::{Blkio, Blkioq, Completion, MemoryRegion, ReqFlags};
use common::{MIB, Random, Stall, signal};
use sheepdog_proto::Request;
use wolf::{Fate, Flock, Wolf};

const BLOCK: usize = 4096;
const DEPTH: usize = 32;
const QUEUES: usize = 2;
/// Blocks of the largest request.
const MOST: usize = 64;
/// No request takes so long unless the test has failed.
const STUCK: Duration = Duration::from_secs(100);

/// Keeps `blkio` for as long as its queues are used.
struct Client {
    blkio: Blkio,
    lanes: Vec<Lane>,
}

/// A queue, and the part of the disk that it has.
struct Lane {
    queue: Blkioq,
    memory: MemoryRegion,
    /// Its first block, and how many it has.
    first: usize,
    blocks: usize,
    /// What its blocks hold: the number of the write, or none.
    model: HashMap<usize, u32>,
    writes: u32,
    random: Random,
    running: HashMap<usize, Running>,
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write(u32),
    Zero,
    Flush,
}

struct Running {
    kind: Kind,
    block: usize,
    count: usize,
    /// The client looks at them when there is room in its queue.
    _pieces: Pieces,
}

struct Pieces(#[expect(dead_code)] Vec<libc::iovec>);

// SAFETY: addresses of buffers that go with them.
unsafe impl Send for Pieces {}

impl Client {
    fn connect(stall: &Stall, read_only: bool) -> Client {
        let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
        blkio.set_str("path", stall.socket().to_str().unwrap()).unwrap();
        blkio.set_bool("read-only", read_only).unwrap();
        blkio.connect().unwrap();
        let queues = blkio.get_i32("max-queues").unwrap().min(QUEUES as i32);
        blkio.set_i32("num-queues", queues).unwrap();
        let started = blkio.start().unwrap();
        let blocks = blkio.get_u64("capacity").unwrap() as usize / BLOCK / queues as usize;
        let lanes = started.queues.into_iter().enumerate().map(|(n, queue)| {
            let memory = blkio.alloc_mem_region(DEPTH * MOST * BLOCK).unwrap();
            blkio.map_mem_region(&memory).unwrap();
            let (first, random) = (n * blocks, Random(n as u64 + 1));
            let (model, running) = (HashMap::new(), HashMap::new());
            Lane { queue, memory, first, blocks, model, writes: 0, random, running }
        });
        let lanes = lanes.collect();
        Client { blkio, lanes }
    }

    /// So many requests in each queue, at the same time.
    fn work(&mut self, requests: usize) {
        std::thread::scope(|scope| {
            for lane in &mut self.lanes {
                scope.spawn(|| lane.work(requests));
            }
        });
    }

    /// What was written is there, also by another way.
    fn verify(&mut self, stall: &Stall) {
        let disk = stall.contents(0, (64 * MIB) as usize);
        for lane in &mut self.lanes {
            let disk = disk.chunks(BLOCK).skip(lane.first).take(lane.blocks);
            disk.enumerate().for_each(|(block, bytes)| lane.check(block, bytes));
        }
    }
}

impl Lane {
    fn buffer(&self, slot: usize) -> *mut u8 {
        (self.memory.addr + slot * MOST * BLOCK) as *mut u8
    }

    fn check(&self, block: usize, bytes: &[u8]) {
        let first = self.first + block;
        match self.model.get(&block) {
            None => assert_eq!(bytes, [0; BLOCK], "block {first}"),
            Some(write) => assert_eq!(bytes, stamp(first, *write), "block {first}"),
        }
    }

    fn work(&mut self, requests: usize) {
        let mut left = requests;
        while left > 0 || !self.running.is_empty() {
            left -= self.begin_all(left);
            self.finish(1);
        }
    }

    /// Begins so many if there is room for them, and waits for none: how many.
    fn begin_all(&mut self, most: usize) -> usize {
        let free = (0..DEPTH).filter(|slot| !self.running.contains_key(slot)).take(most);
        let free: Vec<usize> = free.collect();
        free.iter().for_each(|slot| self.begin(*slot));
        self.finish(0);
        free.len()
    }

    /// Begins something on blocks that nothing else is under way on.
    fn begin(&mut self, slot: usize) {
        let (block, count) = loop {
            // Mostly small, sometimes across the border of objects.
            let most = if self.random.below(8) == 0 { MOST } else { 1 };
            let count = 1 + self.random.below(most as u64) as usize;
            let block = self.random.below((self.blocks - count) as u64) as usize;
            let is_free = |running: &Running| {
                block + count <= running.block || running.block + running.count <= block
            };
            if self.running.values().all(is_free) {
                break (block, count);
            }
        };
        let kind = match self.random.below(20) {
            0 => Kind::Flush,
            1 | 2 => Kind::Zero,
            n if n < 11 => Kind::Read,
            _ => {
                self.writes += 1;
                Kind::Write(self.writes)
            }
        };
        let (start, len) = (((self.first + block) * BLOCK) as u64, count * BLOCK);
        let buffer = self.buffer(slot);
        // SAFETY: the slot's, which nothing else uses until it is free again.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
        let none = ReqFlags::empty();
        let pieces = (0..count).map(|n| libc::iovec {
            iov_base: buffer.wrapping_add(n * BLOCK).cast(),
            iov_len: BLOCK,
        });
        let pieces: Vec<_> = pieces.collect();
        match kind {
            Kind::Read => {
                bytes.fill(0xaa);
                self.queue.readv(start, pieces.as_ptr(), pieces.len() as u32, slot, none);
            }
            Kind::Write(write) => {
                for (n, bytes) in bytes.chunks_mut(BLOCK).enumerate() {
                    bytes.copy_from_slice(&stamp(self.first + block + n, write));
                }
                self.queue.write(start, buffer, len, slot, none);
            }
            Kind::Zero if slot.is_multiple_of(2) => {
                self.queue.discard(start, len as u64, slot, none)
            }
            Kind::Zero => self.queue.write_zeroes(start, len as u64, slot, none),
            Kind::Flush => self.queue.flush(slot, none),
        }
        self.running.insert(slot, Running { kind, block, count, _pieces: Pieces(pieces) });
    }

    /// Tells the server what was begun, waits until at least so many have ended, and looks at them.
    fn finish(&mut self, least: usize) {
        let least = least.min(self.running.len());
        let mut limit = STUCK;
        let mut completions: [MaybeUninit<Completion>; DEPTH] =
            [const { MaybeUninit::uninit() }; DEPTH];
        let ended = self.queue.do_io(&mut completions, least, Some(&mut limit), None);
        let ended = ended.unwrap_or_else(|error| panic!("nothing has ended: {error}"));
        for completion in &completions[..ended] {
            // SAFETY: as many as it says are there.
            let completion = unsafe { completion.assume_init_ref() };
            assert_eq!(completion.ret, 0);
            let slot = completion.user_data;
            let Running { kind, block, count, .. } = self.running.remove(&slot).unwrap();
            for n in 0..count {
                match kind {
                    Kind::Read => {
                        let at = self.buffer(slot).wrapping_add(n * BLOCK);
                        // SAFETY: the slot's, and what it was for has ended.
                        self.check(block + n, unsafe { std::slice::from_raw_parts(at, BLOCK) });
                    }
                    Kind::Write(write) => _ = self.model.insert(block + n, write),
                    Kind::Zero => _ = self.model.remove(&(block + n)),
                    Kind::Flush => {}
                }
            }
        }
    }
}

/// What a block holds after a write.
fn stamp(block: usize, write: u32) -> Vec<u8> {
    let word = (block as u64) << 32 | u64::from(write);
    (0..BLOCK as u64 / 8).flat_map(|n| (word ^ n << 56).to_le_bytes()).collect()
}

#[test]
fn what_is_written_in_two_queues_is_read_again() {
    let stall = Stall::new();
    let program = stall.serve(&["--queues", "2"]);
    let mut client = Client::connect(&stall, false);
    assert_eq!(client.lanes.len(), QUEUES);
    client.work(3000);
    assert_eq!(client.blkio.get_u64("capacity").unwrap(), 64 * MIB);
    client.verify(&stall);
    program.end();
}

#[test]
fn what_is_written_is_there_though_the_connection_breaks() {
    let stall = Stall::new();
    let unruly = Arc::new(Unruly::default());
    let wolf = Wolf::start(stall.lamb.address().parse().unwrap(), unruly.clone()).unwrap();
    let program = stall.serve_through(&wolf.address().to_string(), &["--queues", "2"]);
    let mut client = Client::connect(&stall, false);
    unruly.loose.store(true, Ordering::Relaxed);
    client.work(1500);
    assert!(unruly.cuts.load(Ordering::Relaxed) > 3);
    client.verify(&stall);
    program.end();
}

#[test]
fn what_is_written_is_there_though_the_server_stops_for_a_while() {
    let stall = Stall::new();
    let program = stall.serve(&["--queues", "2"]);
    let mut client = Client::connect(&stall, false);
    for _ in 0..5 {
        client.work(200);
        signal(stall.lamb.pid(), "STOP");
        client.lanes.iter_mut().for_each(|lane| _ = lane.begin_all(DEPTH));
        signal(stall.lamb.pid(), "CONT");
        client.work(200);
    }
    client.verify(&stall);
    program.end();
}

/// Cuts a connection at some requests, before or after they are carried out.
#[derive(Default)]
struct Unruly {
    loose: AtomicBool,
    requests: AtomicUsize,
    cuts: AtomicUsize,
}

impl Flock for Unruly {
    fn request(&self, _: usize, _: &Request, _: &[u8]) -> Fate {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.loose.load(Ordering::Relaxed) || number % 401 != 400 {
            return Fate::Pass;
        }
        let cuts = self.cuts.fetch_add(1, Ordering::Relaxed);
        if cuts.is_multiple_of(2) { Fate::Cut } else { Fate::CutAndDeliver(Box::new(|| {})) }
    }
}
