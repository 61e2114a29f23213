//! A real guest: Linux in QEMU, without hardware's help, with the disk as /dev/vda. What it needs is
//! made by tools/machine.sh; without that these tests say so and do nothing.

mod common;

use std::io::{BufRead, BufReader, Lines, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{MIB, Random, Stall};

/// QEMU with a guest that runs a script and powers off.
struct Machine {
    child: Child,
    lines: Lines<BufReader<PipeReader>>,
    said: Vec<String>,
}

/// Where tools/machine.sh has put it.
fn directory() -> Option<PathBuf> {
    let built = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../build/machine"));
    let directory = std::env::var_os("VHOST_MACHINE").map_or_else(built, PathBuf::from);
    if !directory.join("made").exists() {
        eprintln!("skipped: there is no virtual machine; `make test-vhost` makes one");
        return None;
    }
    Some(directory)
}

impl Machine {
    fn start(stall: &Stall, directory: &Path, queues: u16, script: &str) -> Machine {
        let script = base64(script.as_bytes());
        let socket = stall.socket();
        // What QEMU says itself goes with what the guest says.
        let (output, input) = std::io::pipe().unwrap();
        let child = Command::new(directory.join("qemu"))
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-machine", "pc,accel=tcg,memory-backend=memory", "-m", "256", "-smp", "2"])
            .args(["-object", "memory-backend-memfd,id=memory,size=256M,share=on"])
            .arg("-chardev")
            .arg(format!("socket,id=disk,path={},reconnect=1", socket.display()))
            .arg("-device")
            .arg(format!("vhost-user-blk-pci,chardev=disk,num-queues={queues}"))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(directory.join("kernel"))
            .arg("-initrd")
            .arg(directory.join("initrd.gz"))
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 script={script}")])
            .stdin(Stdio::null())
            .stdout(input.try_clone().unwrap())
            .stderr(input)
            .spawn()
            .unwrap();
        let lines = BufReader::new(output).lines();
        Machine { child, lines, said: Vec::new() }
    }

    /// Waits until the guest says that.
    fn await_line(&mut self, wanted: &str) {
        for line in self.lines.by_ref() {
            let line = line.unwrap_or_default();
            self.said.push(line.clone());
            if line.trim_end() == wanted {
                return;
            }
        }
        panic!("the guest has ended before it said \"{wanted}\":\n{}", self.said.join("\n"));
    }

    /// Waits until it has powered off.
    fn end(mut self) {
        self.await_line("guest: done");
        self.lines.by_ref().for_each(drop);
        assert!(self.child.wait().unwrap().success(), "{}", self.said.join("\n"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - bytes.len()));
        let digits = (0..=bytes.len()).map(move |n| DIGITS[(word >> (18 - 6 * n) & 63) as usize]);
        digits.chain([b'='; 3]).take(4).map(char::from).collect::<Vec<_>>()
    };
    bytes.chunks(3).flat_map(group).collect()
}

const LEN: usize = 8 << 20;

/// A disk that ends with so many bytes of no pattern, for guests to copy.
fn stall() -> (Stall, Vec<u8>) {
    let stall = Stall::new();
    let mut random = Random(1);
    let bytes: Vec<u8> = (0..LEN).map(|_| random.below(256) as u8).collect();
    let cluster = sheepdog::Cluster::connect(stall.lamb.socket()).unwrap();
    cluster.open("disk").unwrap().write_at(&bytes, 64 * MIB - LEN as u64).unwrap();
    (stall, bytes)
}

#[test]
fn a_guest_boots_writes_compares_discards_and_sees_the_disk_grow() {
    let Some(directory) = directory() else { return };
    let (stall, bytes) = stall();
    let program = stall.serve(&["--queues", "2", "--serial", "sheep-no-1"]);
    let script = r#"
        set -e
        is() { [ "$2" = "$3" ] || { echo "guest: $1 is $2 and not $3"; exit 1; }; }
        is serial "$(cat /sys/block/vda/serial)" sheep-no-1
        is size "$(cat /sys/block/vda/size)" 131072
        is queues "$(ls /sys/block/vda/mq | wc -l)" 2
        is cache "$(cat /sys/block/vda/queue/write_cache)" "write back"
        is object "$(cat /sys/block/vda/queue/optimal_io_size)" 4194304
        dd if=/dev/vda of=/bytes bs=1M skip=56 2>/dev/null
        dd if=/bytes of=/dev/vda bs=64k seek=16 conv=fsync 2>/dev/null
        dd if=/bytes of=/dev/vda bs=1M seek=32 oflag=direct 2>/dev/null
        echo 3 >/proc/sys/vm/drop_caches
        dd if=/dev/vda bs=1M skip=1 count=8 2>/dev/null | cmp - /bytes
        dd if=/dev/vda bs=4k skip=8192 count=2048 iflag=direct 2>/dev/null | cmp - /bytes
        blkdiscard -o 33554432 -l 4194304 /dev/vda
        dd if=/dev/vda bs=1M skip=32 count=4 iflag=direct 2>/dev/null | cmp -n 4194304 - /dev/zero
        echo "guest: written"
        while [ "$(cat /sys/block/vda/size)" = 131072 ]; do sleep 0.1; done
        is "new size" "$(cat /sys/block/vda/size)" 163840
        dd if=/bytes of=/dev/vda bs=1M seek=64 oflag=direct 2>/dev/null
        echo "guest: done"
    "#;
    let mut machine = Machine::start(&stall, &directory, 2, script);
    machine.await_line("guest: written");
    let cluster = sheepdog::Cluster::connect(stall.lamb.socket()).unwrap();
    cluster.open("disk").unwrap().resize(80 * MIB).unwrap();
    program.signal("HUP");
    machine.end();
    assert!(stall.contents(MIB, LEN) == bytes);
    assert!(stall.contents(32 * MIB, LEN / 2).iter().all(|byte| *byte == 0));
    assert!(stall.contents(36 * MIB, LEN / 2) == bytes[LEN / 2..]);
    assert!(stall.contents(64 * MIB, LEN) == bytes);
    program.end();
}

#[test]
fn a_guest_goes_on_where_its_server_was_killed() {
    let Some(directory) = directory() else { return };
    let (stall, bytes) = stall();
    let program = stall.serve(&["--queues", "2"]);
    let script = r#"
        set -e
        dd if=/dev/vda of=/bytes bs=1M skip=56 2>/dev/null
        for n in 0 1 2 3; do
            dd if=/bytes of=/dev/vda bs=4k seek=$((n * 2048)) conv=fsync 2>/dev/null &
        done
        echo "guest: writes"
        wait
        echo 3 >/proc/sys/vm/drop_caches
        for n in 0 1 2 3; do
            dd if=/dev/vda bs=64k skip=$((n * 128)) count=128 2>/dev/null | cmp - /bytes
        done
        echo "guest: done"
    "#;
    let mut machine = Machine::start(&stall, &directory, 2, script);
    machine.await_line("guest: writes");
    // So that it has requests in flight.
    common::signal(stall.lamb.pid(), "STOP");
    program.kill();
    common::signal(stall.lamb.pid(), "CONT");
    let program = stall.serve(&["--queues", "2"]);
    machine.end();
    assert!((0..4).all(|n| stall.contents(n * 8 * MIB, LEN) == bytes));
    program.end();
}
