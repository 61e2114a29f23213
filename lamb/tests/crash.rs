//! Whatever was acknowledged is there after a kill -9, and nothing half made is (6.2, 6.4).

mod common;

use std::thread;
use std::time::Duration;

use common::load::{self, Load, OBJECTS};
use common::{Dice, Program};
use sheepdog_proto::op;
use sheepdog_proto::{Oid, SdResult};

/// How often to kill: LAMB_KILLS times, or a few.
fn kill_again_and_again(args: &[&str], rounds: u64) {
    let rounds = load::rounds("LAMB_KILLS", rounds);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let mut dice = Dice(rounds);
    let mut program = Program::start(&dir, args);
    let mut load = Load::begin(&program);
    for round in 0..rounds {
        // The load runs until the server dies under it, at a moment of its own each time.
        let pause = Duration::from_millis(100 + dice.roll(300) as u64);
        load.run(&program, round, || {
            thread::sleep(pause);
            program.signal("-KILL");
        });
        program.kill();
        program = Program::start(&dir, args);
        load.verify(&program);
        load::verify_store(&dir);
    }
    println!("{rounds} rounds, nothing lost");
    load.assert_busy();
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    kill_again_and_again(&[], 4);
}

#[test]
fn acknowledged_writes_survive_a_kill_without_sync() {
    kill_again_and_again(&["--no-sync"], 6);
}

#[test]
fn what_a_crash_left_behind_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let mut program = Program::start(&dir, &["--no-sync"]);
    let mut c = program.client();
    let v = c.vdi("alpha", OBJECTS.into());
    c.allocate(v, 0, &[1]);
    program.kill();
    std::fs::write(dir.join("temp/17"), "half an object").unwrap();
    std::fs::create_dir(dir.join("data/123456")).unwrap();
    std::fs::write(dir.join("data/123456/00000001"), "").unwrap();
    std::fs::write(dir.join("data").join(v.to_string()).join("00000001"), "").unwrap();
    std::fs::write(dir.join("data/notes.txt"), "not ours").unwrap();
    let program = Program::start(&dir, &["--no-sync"]);
    let mut c = program.client();
    assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![1]));
    assert_eq!(c.read(v.data(1), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(c.read(Oid(0x12_3456 << 32 | 1), 0, 1), Err(SdResult::NO_OBJ));
    assert!(dir.join("data/notes.txt").exists());
    assert_eq!(std::fs::read_dir(dir.join("temp")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_format_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let mut program = Program::start(&dir, &[]);
    let v = program.client().vdi("alpha", 1);
    program.kill();
    let config = std::fs::read_to_string(dir.join("cluster")).unwrap();
    std::fs::write(dir.join("cluster"), config.replace("wiping 0", "wiping 1")).unwrap();
    let program = Program::start(&dir, &[]);
    let mut c = program.client();
    assert_eq!(c.vdis(op::READ_VDIS), []);
    assert_eq!(c.read(v.inode(), 0, 1), Err(SdResult::NO_OBJ));
    assert_eq!(std::fs::read_to_string(dir.join("cluster")).unwrap(), config);
}
