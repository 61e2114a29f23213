//! A disk without space: nothing that was acknowledged is lost, what frees space works without any,
//! and service goes on when there is some again.

mod common;

use std::path::Path;

use common::{Client, Mount, Program};
use sheepdog_proto::header::ClusterArm;
use sheepdog_proto::op::{self, FLAG_WRITE};
use sheepdog_proto::{Request, SdResult, Vid};

const OK: SdResult = SdResult::SUCCESS;
const FULL: SdResult = SdResult::NO_SPACE;

fn format() -> Request {
    let arm = ClusterArm { copies: 1, ..ClusterArm::default() };
    Request::new(op::MAKE_FS, FLAG_WRITE, arm)
}

/// Allocates objects of the VDI until there is no space; returns how many there are.
fn fill(c: &mut Client, v: Vid) -> u32 {
    for index in 0.. {
        match c.create(v.data(index), 0, &[index as u8 + 1; 300_000]) {
            OK => {}
            FULL => return index,
            result => panic!("{result:?}"),
        }
        match c.map(v, index, &[v]) {
            OK => {}
            FULL => return index,
            result => panic!("{result:?}"),
        }
    }
    unreachable!()
}

fn verify(c: &mut Client, v: Vid, n: u32) {
    for index in 0..n {
        let data = c.read(v.data(index), 0, 300_000).unwrap();
        assert!(data.iter().all(|byte| *byte == index as u8 + 1), "{index}");
    }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn what_frees_space_works_without_any() {
    let Some(disk) = Mount::tmpfs("size=12m") else { return };
    let store = disk.path().join("store");
    for args in [&[][..], &["--no-sync"]] {
        let mut program = Program::start(&store, args);
        let mut c = program.client();
        let (v, w) = (c.vdi("alpha", 64), c.vdi("beta", 64));
        for i in 0..4 {
            c.allocate(w, i, &[i as u8 + 1; 300_000]);
        }
        c.allocate(v, 63, &[9; 100]);
        let n = fill(&mut c, v);
        assert!(n > 10, "{n}");
        disk.fill();
        verify(&mut c, v, n);
        verify(&mut c, w, 4);
        // Nothing new fits, and nothing of it is there.
        assert_eq!(c.create(v.data(60), 0, &[1; 300_000]), FULL);
        assert!(c.read(v.data(60), 0, 1).is_err());
        assert_eq!(c.write(v.data(0), 2_000_000, &[1; 300_000]), FULL);
        assert!(c.branch("alpha", v, 1).is_err() && c.info("alpha", "", 0) == Ok(v));
        assert_eq!(files(&store.join("temp")), 0);
        // A discard, a deletion, and space is back; where there is nothing to discard, none is
        // needed to say so.
        assert_eq!(c.discard(v.data(900_000)), OK);
        assert_eq!(c.discard(v.data(63)), OK);
        assert_eq!(c.delete("beta", "", 0), Ok(w));
        disk.unfill();
        // What is deleted is gone at once, its space in time.
        while c.create(v.data(60), 0, &[61; 300_000]) == FULL {}
        assert_eq!(c.map(v, 60, &[v]), OK);
        program.kill();
        program = Program::start(&store, args);
        let mut c = program.client();
        verify(&mut c, v, n);
        assert_eq!(c.read(v.data(60), 0, 1), Ok(vec![61]));
        assert_eq!(c.read(v.data(63), 0, 1), Err(SdResult::NO_OBJ));
        assert_eq!(c.info("beta", "", 0), Err(SdResult::NO_VDI));
        // Formatting, too.
        disk.fill();
        assert_eq!(c.result(format(), b"plain\0"), OK);
        disk.unfill();
        assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
        c.vdi("gamma", 1);
        program.kill();
        let program = Program::start(&store, args);
        let mut c = program.client();
        let gamma = c.info("gamma", "", 0).unwrap();
        assert_eq!(c.delete("gamma", "", 0), Ok(gamma));
        drop(program);
        std::fs::remove_dir_all(&store).unwrap();
    }
}

/// What something is mounted on cannot be moved away, as all objects are at once.
#[test]
fn a_format_that_the_disk_ends_halfway_is_finished_by_the_next_start() {
    // The first and the last of what is moved.
    for place in ["inode", "ledger"] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(dir.path(), &["--no-sync"]);
        let mut c = program.client();
        let v = c.vdi("alpha", 16);
        c.allocate(v, 0, &[1]);
        let Some(pin) = Mount::over(&dir.path().join(place)) else { return };
        c.send(format(), b"plain\0");
        assert!(c.receive().is_err(), "answered, whatever the next start would do");
        assert!(!program.child.wait().unwrap().success());
        drop(pin);
        let program = Program::start(dir.path(), &["--no-sync"]);
        let mut c = program.client();
        assert_eq!(c.info("alpha", "", 0), Err(SdResult::NO_VDI));
        let w = c.vdi("alpha", 16);
        assert_eq!(c.read(w.data(0), 0, 1), Err(SdResult::NO_OBJ));
    }
}

/// However many files there may still be when the formatting begins: what is acknowledged after it,
/// whether it succeeded or not, is there at the next start.
#[test]
fn a_format_that_fails_wipes_nothing_that_comes_later() {
    let mut failed = 0;
    for free in 0..10 {
        let Some(disk) = Mount::tmpfs("size=12m,nr_inodes=100") else { return };
        let store = disk.path().join("store");
        let mut program = Program::start(&store, &["--no-sync"]);
        let mut c = program.client();
        let v = c.vdi("alpha", 16);
        c.allocate(v, 0, &[1]);
        // One more each time.
        let fillers: Vec<_> = (0..)
            .map(|i| disk.path().join(format!("filler{i}")))
            .take_while(|path| std::fs::write(path, "").is_ok())
            .collect();
        fillers[..free].iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let result = c.result(format(), b"plain\0");
        failed += usize::from(result != OK);
        fillers[free..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
        if program.child.try_wait().unwrap().is_none() {
            assert_eq!(c.info("alpha", "", 0).is_ok(), result != OK, "half a format");
            let w = c.vdi("beta", 16);
            c.allocate(w, 0, &[2]);
        }
        program.kill();
        let program = Program::start(&store, &["--no-sync"]);
        let mut c = program.client();
        assert_eq!(c.info("alpha", "", 0).is_ok(), result != OK);
        let w = c.info("beta", "", 0).expect("acknowledged after the format");
        assert_eq!(c.read(w.data(0), 0, 1), Ok(vec![2]));
    }
    assert!(failed > 0, "the disk was never full");
}
