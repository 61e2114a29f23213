//! The program as it is run, on a lamb of the test's own.

#![allow(dead_code)] // each test program uses some of it

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

include!("../../../tests/common/doc.rs");

pub const MIB: u64 = 1 << 20;

/// A directory, and a lamb with a VDI of 64 MiB.
pub struct Stall {
    pub lamb: doc::Server,
    pub files: tempfile::TempDir,
}

impl Stall {
    pub fn new() -> Stall {
        let lamb = doc::server_with(&["--no-sync"]);
        let files = tempfile::tempdir().unwrap();
        sheepdog::Cluster::connect(lamb.socket()).unwrap().create("disk", 64 * MIB).unwrap();
        Stall { lamb, files }
    }

    pub fn socket(&self) -> PathBuf {
        self.files.path().join("vhost")
    }

    /// The program, once it listens.
    pub fn serve(&self, args: &[&str]) -> Program {
        self.serve_through(&self.lamb.socket(), args)
    }

    pub fn serve_through(&self, addr: &str, args: &[&str]) -> Program {
        let socket = self.socket();
        Program::start(addr, &socket, args)
    }

    /// What the VDI holds, by another way.
    pub fn contents(&self, offset: u64, len: usize) -> Vec<u8> {
        let cluster = sheepdog::Cluster::connect(self.lamb.socket()).unwrap();
        let mut bytes = vec![0xee; len];
        cluster.open_read_only("disk").unwrap().read_at(&mut bytes, offset).unwrap();
        bytes
    }
}

pub struct Program {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Program {
    pub fn start(addr: &str, socket: &Path, args: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sheepdog-vhost-user-blk"))
            .args(["--addr", addr, "--vdi", "disk", "--socket"])
            .arg(socket)
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut program = Program { child, lines };
        program.await_line("listening on");
        program
    }

    /// Waits until it says that.
    pub fn await_line(&mut self, part: &str) {
        let mut before = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return;
            }
            before.push(line);
        }
        panic!("it has ended before it said \"{part}\": {before:?}");
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an init does.
    pub fn end(mut self) {
        self.signal("TERM");
        self.await_end();
    }

    /// Waits until it has ended, as it should.
    pub fn await_end(&mut self) {
        let said: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{said:?}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Numbers that look random, the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}
