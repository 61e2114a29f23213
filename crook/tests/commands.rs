//! The commands but for cp: what they do, what they print, and with which code they fail.

mod common;

use std::process::Stdio;

use serde_json::{Value, json};
use sheepdog::Cluster;

use common::{Flock, MIB, command, end, pattern};

#[test]
fn vdis_are_made_shown_resized_and_deleted() {
    let flock = Flock::new();
    assert_eq!(flock.json(&["ls"]), json!([]));
    let made = flock.json(&["create", "disk", "64M", "--copies", "1", "--object-size", "4M"]);
    assert_eq!(made, json!({ "created": "disk", "size": 64 * MIB }));
    flock.ok(&["create", "full", "8M", "--preallocate"]);
    let info = flock.json(&["info", "full"]);
    assert_eq!((&info["size"], &info["allocated"]), (&json!(8 * MIB), &json!(8 * MIB)));
    assert_eq!((&info["snapshot"], &info["tag"]), (&json!(false), &Value::Null));
    assert!(info["created"].as_f64().unwrap() > 1e9);
    let listed = flock.json(&["ls"]);
    assert_eq!(listed[1], info);
    assert_eq!(flock.json(&["ls", "--names"]), json!(["disk", "full"]));
    assert_eq!(flock.ok(&["ls", "-1"]), "disk\nfull\n");
    let table = flock.ok(&["ls"]);
    let row = table.lines().nth(2).unwrap();
    assert!(row.starts_with("full") && row.contains("8.0 MiB"), "{table}");
    assert!(flock.ok(&["info", "disk"]).contains("64.0 MiB (67108864 bytes)"));

    let resized = flock.json(&["resize", "disk", "+1M"]);
    assert_eq!(resized, json!({ "resized": "disk", "from": 64 * MIB, "to": 65 * MIB }));
    assert!(flock.fails(2, &["resize", "disk", "1M"]).contains("--shrink"));
    assert_eq!(flock.json(&["resize", "disk", "-60M", "--shrink"])["to"], json!(5 * MIB));
    flock.fails(2, &["resize", "disk", "-60M", "--shrink"]);

    assert_eq!(flock.json(&["rm", "full", "disk"]), json!({ "deleted": ["full", "disk"] }));
    assert_eq!(flock.json(&["ls"]), json!([]));
    assert_eq!(flock.ok(&["rm", "-f", "disk"]), "nothing deleted\n");
}

#[test]
fn snapshots_are_taken_shown_gone_back_to_and_cloned() {
    let flock = Flock::new();
    let old = pattern(1, 5 * MIB);
    let path = flock.write("old", &old);
    flock.ok(&["cp", &path, "vdi:disk"]);
    let made = flock.json(&["snap", "create", "disk", "monday"]);
    assert_eq!(made, json!({ "created": "disk@monday", "snapshot_id": 1 }));
    let new = pattern(2, 5 * MIB);
    let path = flock.write("new", &new);
    flock.ok(&["cp", &path, "vdi:disk"]);
    flock.ok(&["snap", "create", "disk", "tuesday"]);
    let list = flock.json(&["snap", "ls", "disk"]);
    let tags: Vec<&str> =
        list.as_array().unwrap().iter().map(|s| s["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["monday", "tuesday"]);
    let shown = flock.ok(&["ls", "-s"]);
    let names: Vec<&str> = shown.lines().skip(1).map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["disk@monday", "disk@tuesday", "disk"]);

    assert!(flock.contents("disk@monday") == old && flock.contents("disk@2") == new);
    flock.ok(&["clone", "disk@1", "copy"]);
    assert!(flock.contents("copy") == old);
    let parent = &flock.json(&["info", "copy"])["parent_vdi_id"];
    assert_eq!(*parent, flock.json(&["info", "disk@monday"])["vdi_id"]);
    flock.ok(&["snap", "rollback", "disk@monday"]);
    assert!(flock.contents("disk") == old);

    let map = flock.json(&["map", "copy"]);
    assert_eq!(map, json!([{ "offset": 0, "length": 5 * MIB, "kind": "shared" }]));
    assert!(flock.ok(&["map", "disk@1"]).contains("5242880  5.0 MiB"));

    assert!(flock.fails(2, &["clone", "disk", "more"]).contains("names no snapshot"));
    flock.fails(2, &["snap", "rm", "disk"]);
    flock.fails(2, &["snap", "rollback", "disk"]);
    flock.fails(3, &["clone", "disk@friday", "more"]);
    flock.fails(4, &["clone", "disk@1", "copy"]);
    flock.fails(4, &["snap", "create", "disk", "monday"]);
    flock.ok(&["snap", "rm", "disk@1"]);
    flock.fails(3, &["snap", "rm", "disk@monday"]);
    flock.ok(&["snap", "rm", "--force", "disk@monday"]);
    let gone = flock.json(&["rm", "--snapshots", "disk"]);
    assert_eq!(gone, json!({ "deleted": ["disk@2", "disk"] }));
    assert!(flock.contents("copy") == old);
    flock.fails(3, &["rm", "--snapshots", "disk"]);
}

#[test]
fn attributes_are_bytes() {
    let flock = Flock::new();
    flock.ok(&["create", "disk", "1M"]);
    flock.ok(&["attr", "set", "disk", "owner", "jane"]);
    assert_eq!(flock.ok(&["attr", "get", "disk", "owner"]), "jane");
    assert_eq!(flock.json(&["attr", "get", "disk", "owner"])["value"], json!("jane"));
    let bytes = [0xff, 0, b'\n'];
    assert_eq!(flock.run_with_input(&["attr", "set", "disk", "raw", "-"], &bytes).code, 0);
    assert_eq!(flock.run(&["attr", "get", "disk", "raw"]).out, bytes);
    let value = flock.json(&["attr", "get", "disk", "raw"]);
    assert_eq!((&value["value"], &value["bytes"]), (&Value::Null, &json!(bytes)));
    let long = vec![1; (64 << 10) + 1];
    assert_eq!(flock.run_with_input(&["attr", "set", "disk", "long", "-"], &long).code, 1);
    flock.ok(&["attr", "rm", "disk", "owner"]);
    flock.fails(3, &["attr", "get", "disk", "owner"]);
    flock.fails(3, &["attr", "rm", "disk", "owner"]);
    flock.fails(3, &["attr", "get", "nothing", "owner"]);
}

#[test]
fn who_has_the_lock_is_noticed_and_can_lose_it() {
    let flock = Flock::new();
    flock.ok(&["create", "disk", "1M"]);
    assert_eq!(flock.json(&["lock", "show", "disk"])["locked"], json!(false));
    let other = Cluster::connect(flock.address()).unwrap();
    let held = other.open("disk").unwrap();
    assert_eq!(flock.json(&["lock", "show", "disk"])["locked"], json!(true));
    assert!(flock.ok(&["lock", "show", "disk"]).contains("another client"));
    flock.fails(6, &["resize", "disk", "2M"]);
    let path = flock.write("file", &[1; 5]);
    flock.fails(6, &["cp", &path, "vdi:disk"]);
    // Reading takes no lock.
    assert!(flock.contents("disk") == vec![0; MIB]);
    flock.ok(&["lock", "break", "disk"]);
    flock.ok(&["resize", "disk", "2M"]);
    flock.fails(3, &["lock", "show", "nothing"]);
    flock.fails(3, &["lock", "break", "nothing"]);
    drop(held);
}

#[test]
fn failures_have_codes_and_are_json_where_that_is_asked_for() {
    let flock = Flock::new();
    flock.ok(&["create", "disk", "1M"]);
    for (code, kind, args) in [
        (3, "not_found", &["info", "nothing"][..]),
        (3, "not_found", &["rm", "nothing"]),
        (3, "not_found", &["cp", "vdi:nothing", "-"]),
        (3, "not_found", &["cp", "/nowhere/file", "vdi:x"]),
        (4, "exists", &["create", "disk", "1M"]),
        (4, "exists", &["cp", "-n", "/dev/null", "vdi:disk"]),
        (1, "failed", &["create", "zero", "0"]),
        (2, "usage", &["cp", "a", "b"]),
        (2, "usage", &["cp", "a", "vdi:disk@1"]),
        (2, "usage", &["cp", "vdi:disk", "vdi:disk"]),
        (2, "usage", &["cp", "--size", "10", env!("CARGO_MANIFEST_PATH"), "vdi:x"]),
    ] {
        flock.fails(code, args);
        let ended = flock.run(&[&["--json"], args].concat());
        let error: Value = serde_json::from_str(&ended.err).unwrap();
        assert_eq!(error["error"]["kind"], json!(kind), "{args:?}");
        assert_eq!((ended.code, &error["error"]["code"]), (code, &json!(code)), "{args:?}");
        assert!(ended.out.is_empty());
    }
    for args in [&["create", "x"][..], &["create", "x", "10X"], &["nonsense"], &[]] {
        assert_eq!(flock.run(args).code, 2, "{args:?}");
    }
    let partly = flock.fails(3, &["rm", "disk", "nothing"]);
    assert!(partly.contains("deleted before that: disk"), "{partly}");
}

#[test]
fn a_cluster_that_is_not_there_is_said_so() {
    let nobody = |args: &[&str]| end(command("unix:/nowhere/sock", args).output().unwrap());
    let ended = nobody(&["ls"]);
    assert_eq!(ended.code, 5, "{}", ended.err);
    assert!(ended.err.contains("/nowhere/sock"), "{}", ended.err);
    assert_eq!(nobody(&["--addr", "127.0.0.1:1", "ls"]).code, 5);
    assert_eq!(nobody(&["--unix", "/nowhere", "info", "x"]).code, 5);
    let ended = nobody(&["--addr", "a b", "ls"]);
    assert_eq!(ended.code, 2, "{}", ended.err);
    // It says what it can do without one.
    assert_eq!(nobody(&["--help"]).code, 0);
    for shell in ["bash", "zsh", "fish"] {
        let ended = nobody(&["completions", shell]);
        assert!(ended.code == 0 && ended.out.windows(6).any(|part| part == b"resize"));
    }
}

#[test]
fn the_option_goes_before_the_environment() {
    let flock = Flock::new();
    flock.ok(&["create", "disk", "1M"]);
    let socket = flock.address();
    for args in [["--addr", &socket], ["--unix", socket.strip_prefix("unix:").unwrap()]] {
        let ended =
            command("unix:/nowhere", &[&args[..], &["ls", "-1"]].concat()).output().unwrap();
        assert_eq!(ended.stdout, b"disk\n");
    }
}

#[test]
fn a_check_finds_what_is_gone() {
    let mut flock = Flock::new();
    let path = flock.write("file", &pattern(1, 14 * MIB));
    flock.ok(&["cp", &path, "vdi:disk"]);
    flock.ok(&["snap", "create", "disk", "one"]);
    let fine = flock.json(&["check", "disk"]);
    let expected = json!({ "name": "disk", "objects": 4, "read": 14 * MIB, "errors": [] });
    assert_eq!(fine, expected);
    assert_eq!(flock.json(&["check", "--quick", "disk@one"])["read"], json!(4 * 512));
    assert!(flock.ok(&["check", "disk"]).contains("0 errors"));

    let id = flock.json(&["info", "disk@one"])["vdi_id"].as_u64().unwrap();
    flock.server.restart(&["--no-sync"], |store| {
        std::fs::remove_file(store.join(format!("data/{id:06x}/00000002"))).unwrap();
    });
    for vdi in ["disk", "disk@one"] {
        let ended = flock.run(&["--json", "check", vdi]);
        assert_eq!(ended.code, 9, "{}", ended.err);
        let found: Value = serde_json::from_slice(&ended.out).unwrap();
        assert_eq!(found["errors"].as_array().unwrap().len(), 1);
        assert_eq!(found["errors"][0]["offset"], json!(8 * MIB));
        assert_eq!(found["read"], json!(10 * MIB));
    }
    flock.fails(9, &["check", "--quick", "disk"]);
    flock.fails(3, &["check", "nothing"]);
}

#[test]
fn a_bench_measures_and_leaves_nothing() {
    let flock = Flock::new();
    let quick = ["bench", "--seconds", "0.1", "--size", "8M"];
    let measured = flock.json(&quick);
    assert_eq!(measured["operation"], json!("read"));
    let requests = measured["requests"].as_u64().unwrap();
    assert!(requests >= 16, "{measured}");
    let latency = &measured["latency_us"];
    assert!(latency["median"].as_f64().unwrap() <= latency["max"].as_f64().unwrap());
    let measured =
        flock.json(&[&quick[..], &["--write", "--sequential", "--block", "1M"]].concat());
    assert_eq!((&measured["order"], &measured["block"]), (&json!("sequential"), &json!(MIB)));
    assert_eq!(flock.json(&["ls"]), json!([]));
    flock.fails(3, &["bench", "nothing"]);
}

#[test]
fn a_reader_that_goes_is_no_failure() {
    let flock = Flock::new();
    for n in 0..20 {
        flock.ok(&["create", &format!("disk{n}"), "1M"]);
    }
    let mut child = flock.command(&["ls"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
