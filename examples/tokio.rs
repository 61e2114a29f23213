//! Writes and reads on tokio: a task drives the connection, all others await what they ask for.
//!
//! usage: tokio [ADDRESS]

use std::io;

use sheepdog::ErrorKind;
use sheepdog::aio::Cluster;
use tokio::io::{Interest, unix::AsyncFd};

#[allow(unsafe_code)]
async fn drive(cluster: Cluster) -> io::Result<()> {
    // SAFETY: the descriptor stays the same, and open, as long as there is a value of the cluster's.
    let fd = unsafe { AsyncFd::register_with_interest(cluster, Interest::READABLE)? };
    while !fd.get_ref().is_closed() {
        let mut ready = fd.readable().await?;
        fd.get_ref().dispatch();
        // Tokio tells of changes: what is left is done before it is waited for.
        if !fd.get_ref().has_work() {
            ready.clear_ready();
        }
    }
    Ok(())
}

async fn work(cluster: &Cluster) -> sheepdog::Result<()> {
    cluster.connect().await?;
    match cluster.create("greeting", 64 << 20).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // from the last time
        result => result?,
    }
    let vdi = cluster.open("greeting").await?;
    let writer = {
        let vdi = vdi.clone();
        tokio::spawn(async move { vdi.write_at(b"hello, sheep".to_vec(), 4096).await.0 })
    };
    writer.await.expect("it does not panic")?;
    vdi.flush().await?;
    let (result, text) = vdi.read_at(vec![0; 12], 4096).await;
    result?;
    println!("{}", String::from_utf8_lossy(&text));
    vdi.close().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let cluster = Cluster::new_unconnected(address)?;
    let driver = tokio::spawn(drive(cluster.clone()));
    work(&cluster).await?;
    cluster.close().await?;
    driver.await??;
    Ok(())
}
