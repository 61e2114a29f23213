//! Peers that want much, in number or in bytes: the server stays within its limits, and others are
//! served meanwhile.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use common::{Client, OBJECT, Program, obj, vid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sheepdog_proto::header::VdiArm;
use sheepdog_proto::op::{self, FLAG_PIGGYBACK, FLAG_WRITE};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;
/// Bytes of an inode.
const INODE: u32 = 12_587_576;
/// What lamb uses by default at most.
const MEMORY: usize = 256 << 20;

fn start(by: &[&str], args: &[&str]) -> (tempfile::TempDir, Program) {
    let dir = tempfile::tempdir().unwrap();
    let args = [&["--no-sync"], args].concat();
    let program = Program::run(Program::command_within(by, dir.path(), &args));
    (dir, program)
}

/// A VDI of the largest objects there are, and its first one, which holds next to nothing.
fn giant(c: &mut Client) -> Vid {
    let size = (8u64 << 31).into();
    let arm = VdiArm { vdi_size: size, block_size_shift: 31, ..VdiArm::default() };
    let v = c.new_vdi("giant", arm).unwrap();
    c.allocate(v, 0, &[1]);
    v
}

#[test]
fn no_length_field_chooses_an_allocation() {
    let (_dir, mut program) = start(&["prlimit", "--as=3221225472"], &[]);
    program.client().vdi("alpha", 4);
    let formats = [op::SHUTDOWN, op::KILL_NODE, op::MAKE_FS];
    for opcode in (0..=255).filter(|opcode| !formats.contains(opcode)) {
        for flags in [0, FLAG_WRITE, FLAG_PIGGYBACK, FLAG_WRITE | FLAG_PIGGYBACK] {
            // Each field of the arm at its largest, one of them at a time and all at once.
            let arms = (0..8).map(|i| {
                let mut arm = [0; 32];
                arm[4 * i..4 * i + 4].fill(0xff);
                arm
            });
            let nodes = {
                let mut arm = [0; 32];
                arm[8..12].copy_from_slice(&50_000_000u32.to_le_bytes());
                arm[12..16].copy_from_slice(&50_000_000u32.to_le_bytes());
                arm
            };
            let mut stream = TcpStream::connect(program.address).unwrap();
            for arm in arms.chain([[0xff; 32], nodes]) {
                let mut request = Request::new(opcode, flags, arm).with_length(u32::MAX);
                request.proto_ver = if op::is_internal(opcode) { 0x0a } else { 2 };
                if stream.write_all(request.as_bytes()).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = vec![0; 1 << 16];
            while stream.read(&mut answer).is_ok_and(|n| n > 0) {}
        }
    }
    program.assert_alive();
}

/// Sends the same request until the server does not take any more; returns how many it took.
fn flood(stream: &mut UnixStream, request: Request, most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let batch = request.as_bytes().repeat(1000);
    let mut sent = 0;
    while sent < most * 48 {
        let rest = &batch[sent % batch.len()..];
        match stream.write(rest) {
            Ok(n) => sent += n,
            Err(_) => return sent / 48,
        }
    }
    panic!("it reads on, though nobody reads its answers");
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let (dir, mut program) = start(&[], &[]);
    let v = program.client().vdi("alpha", 4);
    let before = program.memory();
    for (opcode, data_length) in [(op::EXIST, 0), (op::FLUSH_VDI, 0), (0x7f, 0), (op::READ_OBJ, 8)]
    {
        let mut request = obj(opcode, 0, v.inode(), 0).with_length(data_length);
        request.proto_ver = if op::is_internal(opcode) { 0x0a } else { 2 };
        let mut stream = UnixStream::connect(dir.path().join("sock")).unwrap();
        let n = flood(&mut stream, request, 1 << 20);
        let used = program.memory().saturating_sub(before);
        assert!(used < 32 << 20, "{used} bytes for {}", op::name(opcode));
        // It begins to read, and has an answer to each.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answers = vec![0; n * (48 + data_length as usize)];
        stream.read_exact(&mut answers).unwrap();
    }
    program.assert_alive();
}

#[test]
fn memory_is_bounded_for_all_peers_together() {
    let (_dir, mut program) = start(&[], &[]);
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &vec![1; OBJECT as usize]);
    // Some want to read and do not; some want to write and do not.
    let read = Request::read(v.data(0), 0, OBJECT as u32);
    let mut deaf: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(program.address).unwrap();
            stream.write_all(&read.as_bytes().repeat(64)).unwrap();
            stream
        })
        .collect();
    let write = obj(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, vid(7).data(0), 0).with_length(16 << 20);
    let half: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(program.address).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            stream.write_all(write.as_bytes()).unwrap();
            let _ = stream.write_all(&vec![1; 15 << 20]);
            stream
        })
        .collect();
    // Who wants little is served, and who wants much in its turn.
    for i in 0..20 {
        assert_eq!(c.create(v.data(1), 0, &[i; 5000]), OK);
        assert_eq!(c.read(v.data(1), 0, 1), Ok(vec![i]));
    }
    assert_eq!(c.create(v.data(2), 0, &vec![7; OBJECT as usize]), OK);
    assert_eq!(c.read(v.data(2), 0, OBJECT as u32).unwrap().len() as u64, OBJECT);
    let used = program.memory();
    assert!(used < MEMORY, "{used} bytes");
    deaf.clear();
    drop(half);
    program.assert_alive();
}

/// A peer that begins to write an inode's worth of data, and goes on to `sent` bytes of it.
fn half_written(program: &Program, sent: usize) -> TcpStream {
    let write = obj(op::WRITE_OBJ, FLAG_WRITE, vid(7).inode(), 0).with_length(INODE);
    let mut stream = TcpStream::connect(program.address).unwrap();
    stream.write_all(write.as_bytes()).unwrap();
    stream.write_all(&vec![1; sent]).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn is_served(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|err| err.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn who_announces_much_and_sends_little_holds_nothing() {
    let (_dir, program) = start(&[], &["--memory", "64M"]);
    let mut quiet: Vec<TcpStream> = (0..16).map(|_| half_written(&program, 1000)).collect();
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    for i in 0..8 {
        assert_eq!(c.create(v.data(i), 0, &vec![7; OBJECT as usize]), OK);
        assert_eq!(c.read(v.data(i), 0, OBJECT as u32).unwrap().len() as u64, OBJECT);
    }
    assert!(quiet.iter_mut().all(is_served), "it was cut off, as if it held something");
}

#[test]
fn of_those_who_stall_no_more_are_cut_off_than_it_takes() {
    let (_dir, program) = start(&[], &["--memory", "64M"]);
    // Of 32 MiB these two take 24, and the third has to wait for one of them.
    let mut stalled = [0; 2].map(|_| half_written(&program, INODE as usize - 1));
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    let inode = c.read(v.inode(), 0, INODE).unwrap();
    assert_eq!(c.write(v.inode(), 0, &inode), OK);
    let served = stalled.each_mut().map(is_served);
    assert_eq!(served.iter().filter(|served| **served).count(), 1, "{served:?}");
}

#[test]
fn the_largest_payloads_take_little_memory() {
    let (_dir, program) = start(&[], &["--memory", "64M"]);
    let mut c = program.client();
    let v = giant(&mut c);
    let data: Vec<u8> = (0..40u32 << 18).flat_map(u32::to_le_bytes).collect();
    assert_eq!(c.write(v.data(0), 4096, &data), OK);
    assert_eq!(c.create(v.data(1), 8192, &data), OK);
    let len = data.len() as u32;
    assert!(c.read(v.data(0), 4096, len) == Ok(data.clone()));
    assert!(c.read(v.data(1), 8192, len) == Ok(data));
    assert_eq!(c.read(v.data(1), 8191, 1), Ok(vec![0]));
    let used = program.memory();
    assert!(used < 64 << 20, "{used} bytes");
}

/// A hash of an object of 2 GiB takes seconds, and a hundred take minutes.
#[test]
fn long_work_holds_up_nobody_and_ends_with_the_server() {
    let (_dir, mut program) = start(&[], &[]);
    let mut c = program.client();
    let v = giant(&mut c);
    let mut hog = program.client();
    let mut hash = obj(op::GET_HASH, 0, v.data(0), 0);
    hash.proto_ver = 0x0a;
    (0..128).for_each(|_| _ = hog.send(hash, &[]));
    let w = c.vdi("alpha", 16);
    for i in 0..4 {
        c.allocate(w, i, &[1; 4096]);
        c.send(obj(op::WRITE_OBJ, 0, w.data(i), 0), &[2; 512]);
        c.send(obj(op::WRITE_OBJ, 0, w.data(i), 512), &[3; 512]);
        assert_eq!(c.receive().unwrap().0.result(), OK);
        assert_eq!(c.receive().unwrap().0.result(), OK);
    }
    // Formatting waits for nothing that long, nor does anybody behind it.
    let format = Request::new(op::MAKE_FS, FLAG_WRITE, [0; 32]);
    assert_eq!(program.client().result(format, b"plain\0"), OK);
    assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
    c.vdi("beta", 1);
    hog.stream.set_nonblocking(true).unwrap();
    let mut answers = vec![0; 128 * 48];
    let early = hog.stream.read(&mut answers).unwrap_or(0);
    assert!(early < answers.len(), "the hashes took no time at all");
    program.terminate();
}

fn raise_open_files(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        eprintln!("SKIPPED: no more than {:?} files may be open here", limit.maximum);
        return false;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok()
}

#[test]
fn ten_thousand_idle_peers_and_two_hundred_busy_ones() {
    if !raise_open_files(11_000) {
        return;
    }
    let (dir, mut program) = start(&[], &[]);
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &[1; 65536]);
    let idle: Vec<UnixStream> =
        (0..10_000).map(|_| UnixStream::connect(dir.path().join("sock")).unwrap()).collect();
    let mut busy: Vec<Client> = (0..200).map(|_| program.client()).collect();
    for round in 0..10 {
        for (i, c) in busy.iter_mut().enumerate() {
            c.send(Request::read(v.data(0), 4096 * (i as u32 % 16), 4096), &[]);
            let data = [round; 512];
            c.send(obj(op::WRITE_OBJ, 0, v.data(0), 65536 + 512 * i as u32), &data);
        }
        for c in &mut busy {
            assert_eq!(c.receive().unwrap().0.result(), OK);
            assert_eq!(c.receive().unwrap().0.result(), OK);
        }
    }
    let used = program.memory();
    assert!(used < MEMORY, "{used} bytes");
    // They are served as soon as they say something.
    for mut stream in idle.iter().step_by(100) {
        let request = Request::read(v.data(0), 0, 1);
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 49]).unwrap();
    }
    program.assert_alive();
    drop(idle);
    program.terminate();
}

#[test]
fn too_many_peers_end_the_idle_ones_and_objects_stay_open() {
    let (dir, mut program) = start(&["prlimit", "--nofile=256"], &[]);
    let mut c = program.client();
    let v = c.vdi("alpha", 400);
    (0..400).for_each(|i| c.allocate(v, i, &[i as u8]));
    let idle: Vec<UnixStream> =
        (0..600).map(|_| UnixStream::connect(dir.path().join("sock")).unwrap()).collect();
    // All of them have come, and the first ones are gone again.
    let mut last = idle.last().unwrap();
    last.write_all(Request::read(v.data(0), 0, 1).as_bytes()).unwrap();
    last.read_exact(&mut [0; 49]).unwrap();
    for i in 0..400 {
        // Whoever is busy stays; whoever comes finds room.
        let mut c = program.client();
        assert_eq!(c.read(v.data(i), 0, 1), Ok(vec![i as u8]));
        assert_eq!(c.create(v.data(i), 0, &[7]), OK);
    }
    program.assert_alive();
}

#[test]
fn nobody_has_to_read_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Program::command(dir.path(), &["--no-sync"]);
    command.stderr(Stdio::piped());
    let mut program = Program::run(command);
    let mut c = program.client();
    let mut debug = Request::new(op::SET_LOGLEVEL, FLAG_WRITE, [0; 32]);
    debug.proto_ver = 0x0a;
    assert_eq!(c.result(debug, &7i32.to_le_bytes()), OK);
    // Each is worth a line; the pipe has room for fewer.
    for _ in 0..3000 {
        let mut stream = TcpStream::connect(program.address).unwrap();
        let request = Request::new(op::WRITE_OBJ, FLAG_WRITE, [0; 32]).with_length(u32::MAX);
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    }
    program.assert_alive();
    program.terminate();
}

#[test]
fn a_limit_of_threads_keeps_nobody_from_being_served() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(61_234), Some(61_234)).unwrap_or_default();
    // The limit counts what one user runs, and not for root.
    let by = ["setpriv", "--reuid=61234", "--clear-groups", "prlimit", "--nproc=14"];
    let runs = std::process::Command::new(by[0]).args(&by[1..]).arg("true").status();
    if !runs.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: it takes root to become somebody else");
        return;
    }
    // Where that one may read it.
    let copy = dir.path().join("lamb");
    std::fs::copy(env!("CARGO_BIN_EXE_lamb"), &copy).unwrap();
    let mut command = std::process::Command::new(by[0]);
    command.args(&by[1..]).arg(&copy).args(["--listen", "127.0.0.1:0", "--no-sync"]);
    command.arg(dir.path().join("store")).stderr(Stdio::null());
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut program = Program::run(command);
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    c.allocate(v, 0, &vec![1; OBJECT as usize]);
    let read = Request::read(v.data(0), 0, OBJECT as u32);
    let deaf: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = TcpStream::connect(program.address).unwrap();
            stream.write_all(&read.as_bytes().repeat(8)).unwrap();
            stream
        })
        .collect();
    for i in 0..50 {
        assert_eq!(c.create(v.data(1), 0, &[i; 5000]), OK);
        assert_eq!(c.read(v.data(1), 0, 1), Ok(vec![i]));
    }
    drop(deaf);
    program.assert_alive();
    program.terminate();
}
