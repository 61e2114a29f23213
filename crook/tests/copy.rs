//! crook cp: both ways, sparse, broken off.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use common::{Ended, Flock, MIB, end, pattern, signal, text};

/// Data, a hole, data, and an end that is no multiple of anything.
fn sparse(flock: &Flock, name: &str) -> (String, Vec<u8>) {
    let mut bytes = vec![0; 40 * MIB + 777];
    bytes[..5 * MIB].copy_from_slice(&pattern(1, 5 * MIB));
    let end = bytes.len();
    bytes[33 * MIB + 100..end].copy_from_slice(&pattern(2, end - 33 * MIB - 100));
    let path = flock.path(name);
    let file = fs::File::create(&path).unwrap();
    file.set_len(end as u64).unwrap();
    file.write_all_at(&bytes[..5 * MIB], 0).unwrap();
    file.write_all_at(&bytes[33 * MIB..], 33 * MIB as u64).unwrap();
    (text(&path), bytes)
}

#[test]
fn files_go_there_and_back_and_stay_sparse() {
    let flock = Flock::new();
    let (path, bytes) = sparse(&flock, "file");
    let said = flock.json(&["cp", &path, "vdi:disk"]);
    assert_eq!((&said["copied"], &said["to"]), (&json!(bytes.len()), &json!("vdi:disk")));
    assert!(said["data"].as_u64().unwrap() < 14 * MIB as u64, "{said}");
    assert!(said["bytes_per_second"].as_f64().unwrap() > 0.0);
    let info = flock.json(&["info", "disk"]);
    assert_eq!(info["size"], json!(bytes.len()));
    // Of 11 objects.
    assert_eq!(info["allocated"], json!(5 * 4 * MIB));
    assert!(flock.contents("disk") == bytes);
    let back = text(&flock.path("back"));
    flock.ok(&["cp", "vdi:disk", &back]);
    assert!(fs::read(&back).unwrap() == bytes);
    let used = |path: &str| fs::metadata(path).unwrap().blocks() * 512;
    assert!(used(&back) <= used(&path) + MIB as u64, "{} and {}", used(&back), used(&path));
    // What it was before is gone, what it had beyond the end as well.
    fs::write(&back, vec![9; 50 * MIB]).unwrap();
    flock.ok(&["cp", "vdi:disk", &back]);
    assert!(fs::read(&back).unwrap() == bytes);

    // From VDI to VDI, and without holes.
    flock.ok(&["cp", "vdi:disk", "vdi:copy"]);
    assert!(flock.contents("copy") == bytes);
    assert_eq!(flock.json(&["info", "copy"])["allocated"], json!(5 * 4 * MIB));
    flock.ok(&["cp", "--no-sparse", "vdi:disk", "vdi:full"]);
    assert!(flock.contents("full") == bytes);
    assert_eq!(flock.json(&["info", "full"])["allocated"], json!(11 * 4 * MIB));
    flock.ok(&["cp", "--no-sparse", "vdi:disk", &back]);
    assert!(used(&back) >= bytes.len() as u64 && fs::read(&back).unwrap() == bytes);
}

#[test]
fn a_vdi_that_exists_becomes_the_source_and_zeros() {
    let flock = Flock::new();
    let old = flock.write("old", &pattern(3, 50 * MIB));
    flock.ok(&["cp", &old, "vdi:disk"]);
    let (path, mut bytes) = sparse(&flock, "file");
    flock.ok(&["cp", &path, "vdi:disk"]);
    bytes.resize(50 * MIB, 0);
    assert!(flock.contents("disk") == bytes);
    assert_eq!(flock.json(&["info", "disk"])["allocated"], json!(5 * 4 * MIB));

    flock.ok(&["create", "small", "1M"]);
    let said = flock.fails(2, &["cp", &path, "vdi:small"]);
    assert!(said.contains("1.0 MiB"), "{said}");
    flock.ok(&["cp", "--size", "60M", &path, "vdi:large"]);
    assert_eq!(flock.json(&["info", "large"])["size"], json!(60 * MIB));
    bytes.resize(60 * MIB, 0);
    assert!(flock.contents("large") == bytes);
    let back = text(&flock.path("back"));
    fs::write(&back, "x").unwrap();
    flock.fails(4, &["cp", "-n", "vdi:disk", &back]);
    assert_eq!(fs::read(&back).unwrap(), b"x");
}

#[test]
fn pipes_of_any_length_make_vdis_of_that_length() {
    let flock = Flock::new();
    for (name, len) in [("byte", 1), ("part", 3 * MIB + 5), ("grown", 70 * MIB + 1)] {
        let bytes = pattern(len as u32, len);
        let ended = flock.run_with_input(&["cp", "-", &format!("vdi:{name}")], &bytes);
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert_eq!(flock.json(&["info", name])["size"], json!(len));
        assert!(flock.contents(name) == bytes);
    }
    // Zeros are found in a pipe.
    let ended = flock.run_with_input(&["cp", "-", "vdi:zeros"], &vec![0; 9 * MIB]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(flock.json(&["info", "zeros"])["allocated"], json!(0));
    // A VDI that is there does not grow.
    let ended = flock.run_with_input(&["cp", "-", "vdi:byte"], &[7; 5]);
    assert_eq!(ended.code, 8, "{}", ended.err);
    assert!(ended.err.contains("is not whole"), "{}", ended.err);
    let ended = flock.run_with_input(&["cp", "-", "vdi:nothing"], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("VDI \"nothing\" was created"), "{}", ended.err);
}

#[test]
fn snapshots_are_copied_as_they_were() {
    let flock = Flock::new();
    let old = pattern(1, 9 * MIB);
    let path = flock.write("old", &old);
    flock.ok(&["cp", &path, "vdi:disk"]);
    flock.ok(&["snap", "create", "disk", "one"]);
    let path = flock.write("new", &pattern(2, 9 * MIB));
    flock.ok(&["cp", &path, "vdi:disk"]);
    flock.ok(&["cp", "vdi:disk@one", "vdi:copy"]);
    assert!(flock.contents("copy") == old);
    let back = text(&flock.path("back"));
    flock.ok(&["cp", "vdi:disk@1", &back]);
    assert!(fs::read(&back).unwrap() == old);
}

#[test]
fn what_is_said_keeps_out_of_the_pipe() {
    let flock = Flock::new();
    let path = flock.write("file", b"sheep");
    assert!(flock.ok(&["cp", &path, "vdi:disk"]).starts_with("copied 5 B, 5 B of them data"));
    assert_eq!(flock.ok(&["cp", "--quiet", &path, "vdi:disk"]), "");
    let ended = flock.run(&["cp", "vdi:disk", "-"]);
    assert_eq!(ended.out, b"sheep");
    assert!(ended.err.starts_with("copied 5 B"), "{}", ended.err);
    let ended = flock.run(&["--json", "cp", "vdi:disk", "-"]);
    assert_eq!(ended.out, b"sheep");
    let said: Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(said["copied"], json!(5));
}

/// Waits until `is_so`, for as long as a slow machine may take.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A copy from a pipe that does not end, interrupted when some of it has come.
fn interrupt(flock: &Flock, name: &str, args: &[&str], with: &str) -> Ended {
    let target = format!("vdi:{name}");
    let mut child = flock
        .command(&[args, &["cp", "-", &target]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&pattern(1, 20 * MIB)).unwrap();
    until("20 MiB are there", || {
        let map = flock.run(&["--json", "info", name]);
        let info: Value = serde_json::from_slice(&map.out).unwrap_or_default();
        info["allocated"].as_u64() >= Some(20 * MIB as u64)
    });
    signal(&child, with);
    let ended = end(child.wait_with_output().unwrap());
    drop(pipe);
    ended
}

#[test]
fn a_copy_that_is_interrupted_says_what_it_leaves() {
    let flock = Flock::new();
    let ended = interrupt(&flock, "new", &[], "INT");
    assert_eq!(ended.code, 130, "{}", ended.err);
    let said = "crook: interrupted; VDI \"new\" was created: vdi:new is not whole, ";
    assert!(ended.err.starts_with(said) && ended.err.contains("of - were copied"), "{}", ended.err);
    // The lock is given back.
    assert_eq!(flock.json(&["lock", "show", "new"])["locked"], json!(false));
    assert!(flock.contents("new")[..16 * MIB] == pattern(1, 16 * MIB));
    flock.ok(&["rm", "new"]);

    flock.ok(&["create", "old", "64M"]);
    let ended = interrupt(&flock, "old", &["--json"], "TERM");
    assert_eq!(ended.code, 143, "{}", ended.err);
    let error: Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(error["error"]["kind"], json!("interrupted"));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("VDI \"old\" was written to"), "{message}");
}

#[test]
fn a_copy_to_a_reader_that_goes_fails_and_says_so() {
    let flock = Flock::new();
    let path = flock.write("file", &pattern(1, 30 * MIB));
    flock.ok(&["cp", &path, "vdi:disk"]);
    let mut child = flock
        .command(&["cp", "vdi:disk", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = end(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("standard output") && ended.err.contains("not whole"),
        "{}",
        ended.err
    );
}

#[test]
fn a_server_that_goes_meanwhile_is_told_of() {
    let mut flock = Flock::new();
    flock.ok(&["create", "disk", "64M"]);
    let mut child = flock
        .command(&["--timeout", "1", "cp", "-", "vdi:disk"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&pattern(1, 8 * MIB)).unwrap();
    until("4 MiB are there", || {
        let info = flock.json(&["info", "disk"]);
        info["allocated"].as_u64() >= Some(4 * MIB as u64)
    });
    flock.server.end();
    let _ = pipe.write_all(&pattern(2, 8 * MIB));
    drop(pipe);
    let ended = end(child.wait_with_output().unwrap());
    assert!([5, 7].contains(&ended.code), "{}: {}", ended.code, ended.err);
    assert!(ended.err.contains("VDI \"disk\" was written to"), "{}", ended.err);
}
