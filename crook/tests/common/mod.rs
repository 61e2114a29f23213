//! crook as a script runs it, on a lamb of the test's own.

#![allow(dead_code)] // each test program uses some of it

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

include!("../../../tests/common/doc.rs");

pub const MIB: usize = 1 << 20;

pub struct Flock {
    pub server: doc::Server,
    pub files: tempfile::TempDir,
}

/// What came of a command.
pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Flock {
    /// With locks.
    pub fn new() -> Flock {
        let server = doc::server_with(&["--use-lock", "--no-sync"]);
        Flock { server, files: tempfile::tempdir().unwrap() }
    }

    pub fn address(&self) -> String {
        self.server.socket()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.address(), args)
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        end(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// What it prints, where it must not fail.
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.err);
        String::from_utf8(ended.out).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[&["--json"], args].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Fails with that code: what it says.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, code, "{args:?}: {}", ended.err);
        assert!(ended.err.starts_with("crook: ") || code == 2, "{args:?}: {}", ended.err);
        ended.err
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let ended = end(child.wait_with_output().unwrap());
        // Who fails need not have read it all.
        let _ = writer.join().unwrap();
        ended
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path)
    }

    /// What a VDI or snapshot holds, as crook reads it.
    pub fn contents(&self, vdi: &str) -> Vec<u8> {
        let ended = self.run(&["cp", "-q", &format!("vdi:{vdi}"), "-"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out
    }
}

pub fn command(address: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crook"));
    command.args(args).env("SHEEPDOG_ADDR", address);
    command
}

pub fn end(output: Output) -> Ended {
    let code = output.status.code().unwrap_or(-1);
    Ended { code, out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Bytes that differ everywhere.
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let words = (0..len.div_ceil(4)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    words.take(len).collect()
}
