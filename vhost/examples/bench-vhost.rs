//! usage: bench-vhost ADDRESS PROGRAM SECONDS ROUNDS
//!
//! Reads and writes of 4 KiB, 32 at a time, anywhere in a VDI that has all its objects: through
//! PROGRAM and libblkio, and with the library alone, in turn. Prints the requests in a second of
//! each, best of the rounds, and the one as a part of the other, as the median of the rounds has it.

#![allow(unsafe_code)] // buffers of another library's

use std::future::poll_fn;
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::Poll;
use std::time::{Duration, Instant};

use blkio::{Blkio, Completion, ReqFlags};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sheepdog::{Cluster, CreateOptions, aio};

const BLOCK: usize = 4096;
const DEPTH: usize = 32;
const SIZE: u64 = 64 << 20;

struct Random(u64);

impl Random {
    fn block(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % (SIZE / BLOCK as u64) * BLOCK as u64
    }
}

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

fn library(vdi: &aio::Vdi, cluster: &aio::Cluster, way: Way, time: Duration) -> f64 {
    let mut random = Random(1);
    type Running = Pin<Box<dyn Future<Output = aio::Buffered>>>;
    let mut begin = |buffer| -> Running {
        let at = random.block();
        match way {
            Way::Read => Box::pin(vdi.read_at(buffer, at)),
            Way::Write => Box::pin(vdi.write_at(buffer, at)),
        }
    };
    let mut running: FuturesUnordered<Running> =
        (0..DEPTH).map(|_| begin(vec![1; BLOCK])).collect();
    let (start, mut done) = (Instant::now(), 0u32);
    cluster.block_on(poll_fn(|cx| {
        while let Poll::Ready(Some((result, buffer))) = running.poll_next_unpin(cx) {
            result.unwrap();
            done += 1;
            if start.elapsed() < time {
                running.push(begin(buffer));
            }
        }
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }));
    f64::from(done) / start.elapsed().as_secs_f64()
}

fn through(socket: &str, way: Way, time: Duration) -> f64 {
    let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
    blkio.set_str("path", socket).unwrap();
    blkio.connect().unwrap();
    let mut queue = blkio.start().unwrap().queues.remove(0);
    let memory = blkio.alloc_mem_region(DEPTH * BLOCK).unwrap();
    blkio.map_mem_region(&memory).unwrap();
    let mut random = Random(1);
    let mut begin = |queue: &mut blkio::Blkioq, slot: usize| {
        let (buffer, at) = ((memory.addr + slot * BLOCK) as *mut u8, random.block());
        match way {
            Way::Read => queue.read(at, buffer, BLOCK, slot, ReqFlags::empty()),
            Way::Write => queue.write(at, buffer, BLOCK, slot, ReqFlags::empty()),
        }
    };
    (0..DEPTH).for_each(|slot| begin(&mut queue, slot));
    let (start, mut done, mut running) = (Instant::now(), 0u32, DEPTH);
    while running > 0 {
        let mut completions = [const { MaybeUninit::<Completion>::uninit() }; DEPTH];
        let ended = queue.do_io(&mut completions, 1, None, None).unwrap();
        for completion in &completions[..ended] {
            // SAFETY: as many as it says are there.
            let completion = unsafe { completion.assume_init_ref() };
            assert_eq!(completion.ret, 0);
            done += 1;
            match start.elapsed() < time {
                true => begin(&mut queue, completion.user_data),
                false => running -= 1,
            }
        }
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, program, seconds, rounds] = &args[..] else {
        eprintln!("usage: bench-vhost ADDRESS PROGRAM SECONDS ROUNDS");
        std::process::exit(2);
    };
    let time = Duration::from_secs_f64(seconds.parse().unwrap());
    let rounds: usize = rounds.parse().unwrap();
    let cluster = Cluster::connect(address).unwrap();
    let name = format!("bench-vhost-{}", std::process::id());
    cluster.create_with(&name, &CreateOptions::new(SIZE).preallocate(true)).unwrap();
    let socket = std::env::temp_dir().join(&name).into_os_string().into_string().unwrap();
    let mut server = Command::new(program)
        .args(["--addr", address, "--vdi", &name, "--socket", &socket])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("listening")));
    // Else it waits, in the end, for somebody to read what it says.
    std::thread::spawn(move || lines.for_each(drop));

    let asynchronous = cluster.aio().unwrap();
    for (way, what) in [(Way::Read, "read"), (Way::Write, "write")] {
        let (mut alone, mut served, mut parts) = (0f64, 0f64, Vec::new());
        for _ in 0..rounds {
            let vdi = asynchronous.block_on(asynchronous.open(&name)).unwrap();
            let one = library(&vdi, &asynchronous, way, time);
            asynchronous.block_on(vdi.close()).unwrap();
            let other = through(&socket, way, time);
            (alone, served) = (alone.max(one), served.max(other));
            parts.push(other / one);
        }
        parts.sort_by(f64::total_cmp);
        let part = parts[rounds / 2];
        println!("{what} library {alone:.0} vhost {served:.0} part {part:.2}");
    }
    let _ = server.kill();
    let _ = server.wait();
    let _ = std::fs::remove_file(&socket);
    cluster.delete(&name).unwrap();
}
