//! What a frontend may say and a guest may ask for, one behaviour each, with a driver that lays out
//! its rings by hand: libblkio and QEMU do the usual things alone.

mod common;
#[path = "common/guest.rs"]
mod guest;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{MIB, Program, Stall, signal};
use guest::*;
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, MemoryRegionAddress};

fn started(args: &[&str]) -> (Stall, Program, Guest, Frontend) {
    let stall = Stall::new();
    let program = stall.serve(args);
    let mut guest = Guest::new(1);
    let frontend = guest.connect(&stall.socket());
    (stall, program, guest, frontend)
}

#[test]
fn a_guest_sees_the_serial_number_and_the_shape_of_the_disk() {
    let (stall, program, mut guest, mut frontend) =
        started(&["--serial", "sheep-no-1", "--queues", "3"]);
    assert_eq!(guest.ask(IDENTIFY, 0, &[(DATA, 20, true)]), (OK, 21));
    assert_eq!(guest.bytes(DATA, 20), b"sheep-no-1\0\0\0\0\0\0\0\0\0\0");
    let short = config(&mut frontend, 36);
    assert_eq!(short[..8], (64 * MIB / 512).to_le_bytes());
    assert_eq!(short[34..36], 3u16.to_le_bytes(), "queues");
    let long = config(&mut frontend, 200);
    assert_eq!(long[..36], short);
    assert_eq!(long[36..40], (2u32 << 20).to_le_bytes(), "sectors of a discard");
    assert!(long[100..].iter().all(|byte| *byte == 0));
    assert_eq!(frontend.get_queue_num().unwrap(), 3);
    drop(frontend);
    program.end();
    // The name, where nothing else is said.
    let program = stall.serve(&[]);
    let mut guest = Guest::new(1);
    let _frontend = guest.connect(&stall.socket());
    assert_eq!(guest.ask(IDENTIFY, 0, &[(DATA, 8, true)]), (OK, 9));
    assert_eq!(guest.bytes(DATA, 8), b"disk\0\0\0\0");
    program.end();
}

#[test]
fn buffers_may_be_cut_anywhere_and_cross_regions_of_memory() {
    let (stall, program, mut guest, _frontend) = started(&[]);
    let at = BORDER - 1000;
    let bytes = guest.fill(at, 8192, 7);
    // The header with the data behind it, in one buffer; all of it in a table of its own.
    let (header, status) = guest.header(0, 0, WRITE, 8 * 1024 - 8);
    let copied = guest.bytes(header.0, 16);
    guest.memory.write_slice(&copied, GuestAddress(at - 16)).unwrap();
    let head =
        guest.offer_indirect(0, &[(at - 16, 16 + 3000, false), (at + 3000, 5192, false), status]);
    guest.kick(0);
    assert_eq!(guest.wait(0), (head, 1));
    assert_eq!(guest.status(0, 0), OK);
    // Over the border of two objects as well.
    assert_eq!(stall.contents(4 * MIB - 4096, 8192), bytes);
    // The status behind the data in one buffer, the header in two.
    let (header, _) = guest.header(0, 1, READ, 8 * 1024 - 8);
    guest.memory.write_slice(&[0; 8193], GuestAddress(at)).unwrap();
    guest.memory.write_obj(NONE, GuestAddress(at + 8192)).unwrap();
    let head = guest.offer(0, &[(header.0, 5, false), (header.0 + 5, 11, false), (at, 8193, true)]);
    guest.kick(0);
    assert_eq!(guest.wait(0), (head, 8193));
    assert_eq!(guest.bytes(at, 8192), bytes);
    assert_eq!(guest.bytes(at + 8192, 1), [OK]);
    program.end();
}

#[test]
fn what_lies_outside_or_is_unknown_is_refused() {
    let (stall, program, mut guest, _frontend) = started(&[]);
    let end = 64 * MIB / 512;
    let data = |len, is_written| [(DATA, len, is_written)];
    guest.fill(DATA, 4096, 3);
    assert_eq!(guest.ask(WRITE, end - 1, &data(512, false)), (OK, 1));
    for (kind, sector, len) in [
        (WRITE, end - 1, 1024),
        (WRITE, end, 512),
        (WRITE, u64::MAX, 512),
        (WRITE, u64::MAX / 512, 512),
        (WRITE, 0, 100),
    ] {
        assert_eq!(guest.ask(kind, sector, &data(len, false)).0, FAILED, "{sector} {len}");
        assert_eq!(guest.ask(READ, sector, &data(len, true)).0, FAILED, "{sector} {len}");
    }
    assert_eq!(guest.ask(77, 0, &data(512, false)).0, UNSUPPORTED);
    assert_eq!(guest.ask(FLUSH, 0, &[]), (OK, 1));
    let mut range = |kind, sector: u64, count: u32, flags: u32| {
        let bytes =
            [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat();
        guest.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        guest.ask(kind, 0, &[(DATA, 16, false)]).0
    };
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(range(kind, 0, 8, 0), OK);
        assert_eq!(range(kind, end - 8, 9, 0), FAILED);
        assert_eq!(range(kind, u64::MAX / 256, 8, 0), FAILED);
        assert_eq!(range(kind, 0, 8, 2), UNSUPPORTED);
    }
    assert_eq!(range(DISCARD, 0, 8, 1), UNSUPPORTED, "a discard has no flags");
    assert_eq!(range(WRITE_ZEROES, end - 1, 1, 1), OK);
    for len in [0, 15, 16 * 33] {
        assert_eq!(guest.ask(DISCARD, 0, &data(len, false)).0, FAILED);
    }
    assert_eq!(stall.contents(64 * MIB - 512, 512), [0; 512]);
    program.end();
}

#[test]
fn a_chain_that_is_no_request_is_given_back_and_the_next_one_is_served() {
    let (_stall, program, mut guest, _frontend) = started(&[]);
    let (header, status) = guest.header(0, 0, READ, 0);
    let outside = 2 * BORDER - 100;
    for chain in [
        vec![header],
        vec![header, (outside, 512, true), status],
        vec![header, (u64::MAX - 100, 512, true), status],
        vec![status, header],
        vec![header, (DATA, u32::MAX, true), status],
    ] {
        let head = guest.offer(0, &chain);
        guest.kick(0);
        assert_eq!(guest.wait(0), (head, 0), "{chain:?}");
    }
    // In a circle, out of the table, and a table in a table.
    for descriptor in [
        Descriptor::new(DATA, 16, 1, 63),
        Descriptor::new(DATA, 16, 1, 64),
        Descriptor::new(DATA, 24, 4, 0),
        Descriptor::new(DATA, 16, 4, 0),
        Descriptor::new(DATA, 0, 4, 0),
        Descriptor::new(DATA, 16, 5, 0),
    ] {
        guest.memory.write_obj(Descriptor::new(DATA, 16, 4, 0), GuestAddress(DATA)).unwrap();
        guest.set_descriptor(0, 63, descriptor);
        guest.forget_used(0);
        guest.publish(0, 63);
        // What the guest frees then.
        guest.kick(0);
        while guest.used_index(0) != guest.available(0) {
            guest.await_call(0);
        }
    }
    guest.forget_used(0);
    assert_eq!(guest.status(0, 0), NONE);
    assert_eq!(guest.ask(READ, 0, &[(DATA, 512, true)]), (OK, 513));
    program.end();
}

#[test]
fn a_disk_to_be_read_alone_takes_no_writes() {
    let (_stall, program, mut guest, frontend) = started(&["--read-only"]);
    let features = frontend.get_features().unwrap();
    assert_eq!(features >> 5 & 1, 1);
    assert_eq!(features >> 13 & 3, 0, "nothing to discard");
    assert_eq!(guest.ask(WRITE, 0, &[(DATA, 512, false)]), (FAILED, 1));
    assert_eq!(guest.ask(DISCARD, 0, &[(DATA, 16, false)]), (FAILED, 1));
    assert_eq!(guest.ask(READ, 0, &[(DATA, 512, true)]), (OK, 513));
    assert_eq!(guest.ask(FLUSH, 0, &[]), (OK, 1));
    program.end();
}

/// Stops the lamb, and has the guest begin writes of a block each, which the server takes.
fn stuck(stall: &Stall, frontend: &mut Frontend, guest: &mut Guest, count: u16) -> Vec<u16> {
    signal(stall.lamb.pid(), "STOP");
    let begin = |n: u16| {
        let at = DATA + u64::from(n) * 4096;
        guest.fill(at, 4096, n.into());
        guest.begin(0, n, WRITE, u64::from(n) * 8, &[(at, 4096, false)])
    };
    let heads = (0..count).map(begin).collect();
    // It looks at the rings before it reads the second one.
    (0..2).for_each(|_| _ = frontend.get_queue_num().unwrap());
    heads
}

fn all_written(stall: &Stall, count: u16) {
    for n in 0..count {
        assert_eq!(stall.contents(u64::from(n) * 4096, 4096), pattern(4096, n.into()), "{n}");
    }
}

#[test]
fn a_server_that_is_killed_loses_no_request_and_repeats_none() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    // These are over, and must not come again.
    for n in 0..5 {
        assert_eq!(guest.ask(READ, n, &[(DATA, 512, true)]), (OK, 513));
    }
    let mut heads = stuck(&stall, &mut frontend, &mut guest, 12);
    // One that ends before those that were taken before it.
    let head = guest.begin(0, 20, IDENTIFY, 0, &[(BORDER, 20, true)]);
    assert_eq!(guest.wait(0), (head, 21));
    program.kill();
    drop(frontend);
    // And one that it has not taken.
    let n = 12;
    let at = DATA + n * 4096;
    guest.fill(at, 4096, n);
    heads.push(guest.begin(0, n as u16, WRITE, n * 8, &[(at, 4096, false)]));
    signal(stall.lamb.pid(), "CONT");
    let program = stall.serve(&[]);
    let mut frontend = guest.connect(&stall.socket());
    let mut ended: Vec<u16> = (0..13).map(|_| guest.wait(0).0).collect();
    ended.sort();
    heads.sort();
    assert_eq!(ended, heads);
    assert!((0..13).all(|n| guest.status(0, n) == OK));
    all_written(&stall, 13);
    // Nothing more comes, and the ring goes on.
    assert_eq!(guest.ask(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(frontend.get_vring_base(0).unwrap(), 5 + 14 + 1);
    guest.start(&mut frontend, 0);
    assert_eq!(guest.ask(FLUSH, 0, &[]), (OK, 1));
    program.end();
}

#[test]
fn a_frontend_that_goes_is_followed_by_the_next_one_once_its_requests_have_ended() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    stuck(&stall, &mut frontend, &mut guest, 4);
    drop(frontend);
    let mut eager = UnixStream::connect(stall.socket()).unwrap();
    eager.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    eager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut features = [0; 20];
    assert!(eager.read(&mut features).is_err(), "it is heard");
    signal(stall.lamb.pid(), "CONT");
    eager.set_read_timeout(Some(STUCK)).unwrap();
    eager.read_exact(&mut features).unwrap();
    drop(eager);
    let next = guest.connect(&stall.socket());
    // What the last one was not told, this one is.
    (0..4).for_each(|_| _ = guest.wait(0));
    all_written(&stall, 4);
    // Another guest, with nothing in flight: the same open VDI.
    drop(next);
    let mut other = Guest::new(1);
    let _frontend = other.connect(&stall.socket());
    assert_eq!(other.ask(READ, 8, &[(DATA, 4096, true)]), (OK, 4097));
    assert_eq!(other.bytes(DATA, 4096), pattern(4096, 1));
    program.end();
}

#[test]
fn a_queue_that_is_stopped_has_nothing_in_flight() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    stuck(&stall, &mut frontend, &mut guest, 6);
    let base = std::thread::scope(|scope| {
        let stop = scope.spawn(|| frontend.get_vring_base(0).unwrap());
        assert!(!stop.is_finished());
        signal(stall.lamb.pid(), "CONT");
        stop.join().unwrap()
    });
    assert_eq!((base, guest.used_index(0)), (6, 6));
    guest.start(&mut frontend, 0);
    (0..6).for_each(|_| _ = guest.wait(0));
    all_written(&stall, 6);
    program.end();
}

#[test]
fn a_server_that_is_to_end_ends_what_it_has_begun() {
    let (stall, mut program, mut guest, mut frontend) = started(&[]);
    stuck(&stall, &mut frontend, &mut guest, 6);
    program.signal("TERM");
    signal(stall.lamb.pid(), "CONT");
    program.await_end();
    assert_eq!(guest.used_index(0), 6);
    (0..6).for_each(|_| _ = guest.wait(0));
    assert!((0..6).all(|n| guest.status(0, n) == OK));
    all_written(&stall, 6);
    assert!(!stall.socket().exists());
}

#[test]
fn a_guest_is_told_of_a_new_size() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    frontend.set_backend_request_fd(&theirs).unwrap();
    assert_eq!(guest.ask(READ, 64 * MIB / 512, &[(DATA, 512, true)]).0, FAILED);
    let cluster = sheepdog::Cluster::connect(stall.lamb.socket()).unwrap();
    cluster.open("disk").unwrap().resize(80 * MIB).unwrap();
    program.signal("HUP");
    ours.set_read_timeout(Some(STUCK)).unwrap();
    let mut message = [0; 12];
    ours.read_exact(&mut message).unwrap();
    assert_eq!(message, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(config(&mut frontend, 8), (80 * MIB / 512).to_le_bytes());
    assert_eq!(guest.ask(READ, 64 * MIB / 512, &[(DATA, 512, true)]), (OK, 513));
    // Of the same size nobody is told.
    program.signal("HUP");
    assert_eq!(guest.ask(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(frontend.get_queue_num().unwrap(), 1);
    drop(theirs);
    program.end();
    assert_eq!(ours.read(&mut message).unwrap(), 0);
}

#[test]
fn memory_comes_and_goes_under_requests() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    let (at, len) = (2 * BORDER, 1 << 20);
    let (region, info) = region(at, len);
    let bytes = pattern(4096, 5);
    region.write_slice(&bytes, MemoryRegionAddress(4096)).unwrap();
    assert_eq!(guest.ask(WRITE, 0, &[(at + 4096, 4096, false)]).1, 0, "it is not there yet");
    frontend.add_mem_region(&info).unwrap();
    assert!(frontend.add_mem_region(&info).is_err(), "twice");
    signal(stall.lamb.pid(), "STOP");
    guest.begin(0, 0, WRITE, 0, &[(at + 4096, 4096, false)]);
    // Taken before it looks at what comes now, for the second time.
    (0..2).for_each(|_| _ = frontend.get_queue_num().unwrap());
    frontend.remove_mem_region(&info).unwrap();
    signal(stall.lamb.pid(), "CONT");
    assert_eq!(guest.wait(0).1, 1);
    assert_eq!(guest.status(0, 0), OK);
    assert_eq!(stall.contents(0, 4096), bytes);
    assert_eq!(guest.ask(READ, 0, &[(at, 4096, true)]).1, 0, "it is gone");
    // All at once, as other frontends do it.
    guest.give_memory(&frontend);
    assert_eq!(guest.ask(READ, 0, &[(DATA, 4096, true)]), (OK, 4097));
    assert_eq!(guest.bytes(DATA, 4096), bytes);
    program.end();
}

#[test]
fn more_than_the_library_has_memory_for_waits() {
    let (stall, program, mut guest, _frontend) = started(&[]);
    signal(stall.lamb.pid(), "STOP");
    // 8 MiB each, into the same buffer.
    let count = 40;
    for n in 0..count {
        let (header, status) = guest.header(0, n, READ, 0);
        guest.offer_indirect(0, &[header, (BORDER, BORDER as u32, true), status]);
    }
    guest.kick(0);
    signal(stall.lamb.pid(), "CONT");
    for _ in 0..count {
        assert_eq!(guest.wait(0).1, BORDER as u32 + 1);
    }
    assert!((0..count).all(|n| guest.status(0, n) == OK));
    program.end();
}

#[test]
fn a_queue_that_is_stopped_has_nothing_left_that_waited_for_memory() {
    let (stall, program, mut guest, mut frontend) = started(&[]);
    signal(stall.lamb.pid(), "STOP");
    for n in 0..40 {
        let (header, status) = guest.header(0, n, READ, 0);
        guest.offer_indirect(0, &[header, (BORDER, BORDER as u32, true), status]);
    }
    guest.kick(0);
    (0..2).for_each(|_| _ = frontend.get_queue_num().unwrap());
    signal(stall.lamb.pid(), "CONT");
    let base = frontend.get_vring_base(0).unwrap();
    assert_eq!(base, u32::from(guest.used_index(0)));
    assert!(base >= 31, "as many as there is memory for");
    assert!((0..base as u16).all(|n| guest.status(0, n) == OK));
    program.end();
}

#[test]
fn a_guest_without_event_indexes_and_flushes_is_served_as_well() {
    let stall = Stall::new();
    let program = stall.serve(&[]);
    let mut guest = Guest::new(1);
    let _frontend = guest.connect_without(&stall.socket(), 1 << 29 | 1 << 9);
    for n in 0..20 {
        let bytes = guest.fill(DATA, 4096, n);
        assert_eq!(guest.ask(WRITE, n * 8, &[(DATA, 4096, false)]), (OK, 1));
        guest.fill(DATA, 4096, 0);
        assert_eq!(guest.ask(READ, n * 8, &[(DATA, 4096, true)]), (OK, 4097));
        assert_eq!(guest.bytes(DATA, 4096), bytes);
    }
    program.end();
}

#[test]
fn a_frontend_that_breaks_the_protocol_is_left_and_the_next_one_is_heard() {
    let stall = Stall::new();
    let program = stall.serve(&[]);
    for message in [&[0xff; 64][..], &[5, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[]] {
        let mut stream = UnixStream::connect(stall.socket()).unwrap();
        stream.write_all(message).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Reset, where it has not read all.
        let _ = stream.read(&mut [0; 16]);
    }
    let mut guest = Guest::new(1);
    let frontend = guest.connect(&stall.socket());
    // This one is told, and goes on.
    assert!(frontend.set_vring_num(0, 3).is_err());
    drop(frontend);
    let _frontend = Guest::new(1).connect(&stall.socket());
    program.end();
}
