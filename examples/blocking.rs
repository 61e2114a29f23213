//! Creates a VDI, writes, takes a snapshot, goes on writing, and reads both.
//!
//! usage: blocking [ADDRESS]

use sheepdog::{Cluster, ErrorKind};

fn main() -> sheepdog::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let cluster = Cluster::connect(address)?;
    cluster.create("diary", 64 << 20)?;
    let vdi = cluster.open("diary")?;
    vdi.write_at(b"monday", 0)?;
    vdi.flush()?;

    let snapshot = vdi.snapshot("yesterday")?;
    vdi.write_at(b"sunday", 0)?;

    let (mut then, mut now) = ([0; 6], [0; 6]);
    snapshot.read_at(&mut then, 0)?;
    vdi.read_at(&mut now, 0)?;
    println!("{} {}", String::from_utf8_lossy(&then), String::from_utf8_lossy(&now));

    match cluster.open("nothing") {
        Err(error) if error.kind() == ErrorKind::NotFound => eprintln!("as it should be: {error}"),
        Err(error) => return Err(error),
        Ok(_) => unreachable!("nobody has created it"),
    }
    Ok(())
}
