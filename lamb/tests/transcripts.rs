//! Recorded sessions of real clients with the real server, sent again to this one.

mod common;

use std::path::Path;
use std::process::Command;

use common::Lamb;

/// `replay.py` compares every answer with the recorded one; its head says what it leaves out.
fn replay(session: &str, superset: bool, mimic: bool) {
    let lamb = Lamb::with(|options| options.mimic = mimic);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts");
    let output = Command::new("python3")
        .arg(dir.join("replay.py"))
        .args(superset.then_some("--superset"))
        .arg(lamb.address().to_string())
        .arg(dir.join(session))
        .output()
        .expect("python3 runs replay.py");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{session}: {text}");
    assert!(text.ends_with(" passed, 0 failed\n"), "{session}: {text}");
}

#[test]
fn dog() {
    for session in ["dog-basic.jsonl", "dog-errors.jsonl", "dog-admin.jsonl"] {
        replay(session, false, false);
    }
    replay("dog-geometry.jsonl", true, false);
}

#[test]
fn qemu() {
    replay("qemu.jsonl", true, false);
}

#[test]
fn tgt() {
    replay("tgt.jsonl", false, false);
}

/// Nothing of what the real server does has to be excused here.
#[test]
fn mimicked() {
    for client in ["dog-basic", "dog-errors", "dog-admin", "dog-geometry", "qemu", "tgt"] {
        replay(&format!("{client}.jsonl"), false, true);
    }
}
