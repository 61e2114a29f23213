//! What is there after a power loss: of a file system in an image, the image as it is.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Mount, Program};
use sheepdog_proto::SdResult;

/// What a disk would hold if the power went now.
fn cut_power(image: &Path, copy: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([image, copy]).status().unwrap();
    assert!(copied.success());
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
        cut_power(&image, &copy);
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
    cut_power(&image, &copy);
    let after = Mount::image(&copy).unwrap();
    let other = Program::start(&after.path().join("store"), &["--no-sync"]);
    let mut c = other.client();
    for (i, (name, _)) in known.iter().enumerate() {
        let found = c.info(name, "", 0).map(|_| ());
        assert_eq!(found, if i < 2 { Err(SdResult::NO_VDI) } else { Ok(()) });
    }
}
