//! crook beside `dog` on a real server: SD_TEST_DOG is the path of dog, and SD_TEST_ADDR HOST:PORT of
//! the server. Without them there is nothing to be tested here.

mod common;

use std::env;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::{Ended, MIB, command, end, pattern};

struct Beside {
    dog: String,
    address: String,
    name: String,
}

impl Beside {
    fn new(what: &str) -> Option<Beside> {
        let (Ok(dog), Ok(address)) = (env::var("SD_TEST_DOG"), env::var("SD_TEST_ADDR")) else {
            eprintln!("skipped: SD_TEST_DOG does not name the dog of the server at SD_TEST_ADDR");
            return None;
        };
        let address = address.split(',').next().unwrap_or_default().to_owned();
        let beside = Beside { dog, address, name: format!("crook-{what}-{}", std::process::id()) };
        Some(beside)
    }

    fn dog(&self, args: &[&str]) -> Ended {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let mut command = Command::new(&self.dog);
        command.args(&args[..2]).args(["-a", host, "-p", port]).args(&args[2..]);
        let ended = end(command.stdin(Stdio::null()).output().unwrap());
        assert_eq!(ended.code, 0, "dog {args:?}: {}", ended.err);
        ended
    }

    fn crook(&self, args: &[&str]) -> Vec<u8> {
        let ended = end(command(&self.address, args).stdin(Stdio::null()).output().unwrap());
        assert_eq!(ended.code, 0, "crook {args:?}: {}", ended.err);
        ended.out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.crook(&[&["--json"], args].concat())).unwrap()
    }
}

#[test]
fn what_crook_writes_dog_reads() {
    let Some(beside) = Beside::new("writes") else { return };
    let name = beside.name.as_str();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("file");
    let mut bytes = pattern(1, 18 * MIB);
    bytes[5 * MIB..13 * MIB].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    beside.crook(&["cp", path.to_str().unwrap(), &format!("vdi:{name}")]);
    assert!(beside.dog(&["vdi", "read", name]).out == bytes);
    beside.crook(&["snap", "create", name, "one"]);
    let listed = String::from_utf8(beside.dog(&["vdi", "list", "-r"]).out).unwrap();
    let of = |line: &&str| line.starts_with(&format!("s {name} "));
    let line = listed.lines().find(of).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("one"), "{line}");
    beside.crook(&["clone", &format!("{name}@one"), &format!("{name}-clone")]);
    assert!(beside.dog(&["vdi", "read", &format!("{name}-clone")]).out == bytes);
    beside.crook(&["rm", "-s", name, &format!("{name}-clone")]);
    let listed = String::from_utf8(beside.dog(&["vdi", "list", "-r"]).out).unwrap();
    assert!(!listed.contains(name), "{listed}");
}

#[test]
fn what_dog_makes_crook_lists_and_reads() {
    let Some(beside) = Beside::new("reads") else { return };
    let name = beside.name.as_str();
    beside.dog(&["vdi", "create", name, "16M"]);
    beside.dog(&["vdi", "snapshot", "-s", "tuesday", name]);
    let info = beside.json(&["info", name]);
    assert_eq!((&info["size"], &info["allocated"]), (&json!(16 * MIB), &json!(0)));
    let snapshots = beside.json(&["snap", "ls", name]);
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
    assert_eq!(snapshots[0]["tag"], json!("tuesday"));
    assert!(beside.crook(&["cp", &format!("vdi:{name}@tuesday"), "-"]) == vec![0; 16 * MIB]);
    let names = beside.json(&["ls", "--names"]);
    assert!(names.as_array().unwrap().contains(&json!(name)));
    assert_eq!(beside.json(&["check", name])["errors"], json!([]));
    beside.dog(&["vdi", "delete", "-s", "tuesday", name]);
    beside.dog(&["vdi", "delete", name]);
    let names = beside.json(&["ls", "--names"]);
    assert!(!names.as_array().unwrap().contains(&json!(name)));
}
