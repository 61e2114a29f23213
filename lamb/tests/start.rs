//! What a start finds: it counts who names what.

mod common;

use std::time::Instant;

use common::{Program, load};
use sheepdog_proto::inode::MAP_OFFSET;
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{InodeHeader, MAX_DATA_OBJECTS, SdResult};

/// A full map and its snapshots: LAMB_SNAPSHOTS of them, or a few. How long the start takes is said,
/// not judged: machines differ.
#[test]
fn a_start_counts_every_map() {
    let snapshots = load::rounds("LAMB_SNAPSHOTS", 3) as u32;
    let entries = if snapshots > 3 { MAX_DATA_OBJECTS } else { 50_000 };
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &["--no-sync"]);
    let mut c = program.client();
    let v = c.vdi("alpha", entries.into());
    let header = c.header(v);
    c.allocate(v, 0, &[7]);
    let mut inode = vec![0; MAP_OFFSET as usize];
    inode[..size_of::<InodeHeader>()].copy_from_slice(header.as_bytes());
    inode.extend(v.get().to_le_bytes().repeat(entries as usize));
    assert_eq!(c.create(v.inode(), 0, &inode), SdResult::SUCCESS);
    let mut working = v;
    for i in 0..snapshots {
        working = c.snapshot("alpha", working, &format!("s{i}"));
    }
    program.kill();
    let start = Instant::now();
    program = Program::start(dir.path(), &["--no-sync"]);
    println!("{snapshots} snapshots of {entries} entries: started in {:?}", start.elapsed());
    let mut c = program.client();
    assert_eq!(c.delete("alpha", "", 0), Ok(working));
    for i in 0..snapshots {
        assert_eq!(c.read(v.data(0), 0, 1), Ok(vec![7]));
        assert!(c.delete("alpha", &format!("s{i}"), 0).is_ok());
    }
    assert_eq!(c.read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
}
