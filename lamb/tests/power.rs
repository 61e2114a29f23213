//! What is there after a power loss: of a file system in an image, the image as it is.

mod common;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::load::{self, Load};
use common::{Dice, Mount, Program, obj};
use sheepdog_proto::{SdResult, op};

/// What a disk would hold if the power went now, with the server stopped meanwhile.
fn cut_power(program: &Program, image: &Path, copy: &Path) {
    program.signal("-STOP");
    // The system may be writing what it has for the disk, in its own time.
    let same = |a: &Path, b: &Path| Command::new("cmp").arg("-s").args([a, b]).status().unwrap();
    loop {
        let mut copying = Command::new("cp");
        copying.arg("--sparse=always").args([image, copy]);
        assert!(copying.status().unwrap().success());
        if same(image, copy).success() {
            return;
        }
    }
}

/// How often: LAMB_POWER_LOSSES times, or a few.
#[test]
fn acknowledged_writes_survive_power_losses() {
    let rounds = load::rounds("LAMB_POWER_LOSSES", 2);
    let dir = tempfile::tempdir().unwrap();
    let image = |round: u64| dir.path().join(format!("image{round}"));
    let Some(mut disk) = Mount::image(&image(0)) else { return };
    let mut program = Program::start(&disk.path().join("store"), &[]);
    let mut load = Load::begin(&program);
    let mut dice = Dice(rounds);
    for round in 0..rounds {
        let pause = Duration::from_millis(200 + dice.roll(600) as u64);
        load.run(&program, round, || {
            thread::sleep(pause);
            cut_power(&program, &image(round), &image(round + 1));
            program.signal("-KILL");
        });
        program.kill();
        drop(disk);
        std::fs::remove_file(image(round)).unwrap();
        disk = Mount::image(&image(round + 1)).unwrap();
        let store = disk.path().join("store");
        program = Program::start(&store, &[]);
        load.verify(&program);
        load::verify_store(&store);
    }
    println!("{rounds} rounds, nothing lost");
    load.assert_busy();
    drop(program);
}

/// Of what was written a moment ago, the system has brought nothing to the disk by itself.
#[test]
fn what_was_flushed_survives_a_power_loss_without_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    let Some(disk) = Mount::image(&image) else { return };
    let program = Program::start(&disk.path().join("store"), &["--no-sync"]);
    let mut c = program.client();
    let v = c.vdi("alpha", 16);
    for i in 0..4 {
        c.allocate(v, i, &[1; 4096]);
        assert_eq!(c.write(v.data(i), 8192, &[2; 4096]), SdResult::SUCCESS);
    }
    assert_eq!(c.result(obj(op::FLUSH_VDI, 0, v.inode(), 0), &[]), SdResult::SUCCESS);
    cut_power(&program, &image, &copy);
    program.signal("-CONT");
    let after = Mount::image(&copy).unwrap();
    let store = after.path().join("store");
    let other = Program::start(&store, &["--no-sync"]);
    let mut c = other.client();
    for i in 0..4 {
        assert_eq!(c.read(v.data(i), 4095, 4098), Ok([&[1][..], &[0; 4096], &[2]].concat()));
    }
    load::verify_store(&store);
}

/// Cluster operations are rare, and what they say must not depend on when somebody flushes.
#[test]
fn cluster_operations_are_durable_without_sync() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let Some(disk) = Mount::image(&image) else { return };
    let program = Program::start(&disk.path().join("store"), &["--no-sync"]);
    let mut c = program.client();
    let mut known: Vec<(String, u32)> = Vec::new();
    for round in 0..4u32 {
        let name = format!("vdi{round}");
        let v = c.vdi(&name, 16);
        c.allocate(v, 0, &[1]);
        let w = c.snapshot(&name, v, "s");
        known.push((name, w.get()));
        let copy = dir.path().join("copy");
        cut_power(&program, &image, &copy);
        program.signal("-CONT");
        let after = Mount::image(&copy).unwrap();
        let program = Program::start(&after.path().join("store"), &["--no-sync"]);
        let mut c = program.client();
        for (name, working) in &known {
            assert_eq!(c.info(name, "", 0).map(|vid| vid.get()), Ok(*working), "{name}");
            assert!(c.info(name, "s", 0).is_ok() || c.info(name, "", 1).is_ok(), "{name}");
        }
        drop(program);
        drop(after);
        std::fs::remove_file(copy).unwrap();
    }
    for (name, working) in &known[..2] {
        assert_eq!(c.delete(name, "", 0).map(|vid| vid.get()), Ok(*working));
    }
    let copy = dir.path().join("copy");
    cut_power(&program, &image, &copy);
    program.signal("-CONT");
    let after = Mount::image(&copy).unwrap();
    let other = Program::start(&after.path().join("store"), &["--no-sync"]);
    let mut c = other.client();
    for (i, (name, _)) in known.iter().enumerate() {
        let found = c.info(name, "", 0).map(|_| ());
        assert_eq!(found, if i < 2 { Err(SdResult::NO_VDI) } else { Ok(()) });
    }
}
