//! The Rust API on a lamb: both forms, who closes what, and what is told of failures.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sheepdog::{Cluster, ConnectOptions, CreateOptions, ErrorKind, ExtentKind, aio};

include!("common/doc.rs");

const MIB: u64 = 1 << 20;

/// A lamb with locks, so that an open VDI is noticed by others.
fn lamb() -> doc::Server {
    doc::server_with(&["--use-lock", "--no-sync"])
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect()
}

#[test]
fn what_a_vdi_does_it_does_in_both_forms() {
    let server = lamb();
    let cluster = Cluster::connect(server.socket()).unwrap();
    cluster.create_with("disk", &CreateOptions::new(64 * MIB).copies(1)).unwrap();
    assert_eq!(cluster.list().unwrap(), ["disk"]);
    let vdi = cluster.open("disk").unwrap();
    vdi.write_at(&pattern(1, 9 << 20), 3 * MIB).unwrap();
    let snapshot = vdi.snapshot("one").unwrap();
    vdi.write_at(&pattern(2, 4096), 3 * MIB).unwrap();
    vdi.discard(8 * MIB, 4 * MIB).unwrap();
    vdi.flush().unwrap();

    let mut bytes = vec![0; 9 << 20];
    snapshot.read_at(&mut bytes, 3 * MIB).unwrap();
    assert!(bytes == pattern(1, 9 << 20));
    let extents = vdi.block_status(0, 64 * MIB).unwrap();
    let kinds: Vec<_> = extents.iter().map(|extent| (extent.kind, extent.len / MIB)).collect();
    let (own, shared, hole) = (ExtentKind::Allocated, ExtentKind::Shared, ExtentKind::Hole);
    assert_eq!(kinds, [(own, 4), (shared, 4), (hole, 56)]);
    let info = snapshot.info().unwrap();
    assert_eq!(info.tag.as_ref().unwrap(), "one");
    assert!(info.is_snapshot && info.snapshot_taken >= Some(info.created));
    assert_eq!((info.size, info.object_size, info.allocated), (64 * MIB, 4 * MIB, 12 * MIB));
    assert_eq!(cluster.snapshots("disk").unwrap(), std::slice::from_ref(&info));

    // The same, once more, without waiting, on the same connection.
    let asynchronous = cluster.aio().unwrap();
    asynchronous.block_on(async {
        let vdi = vdi.aio().unwrap();
        let (result, bytes) = vdi.read_at(vec![0; 4096], 3 * MIB).await;
        result.unwrap();
        assert!(bytes == pattern(2, 4096));
        let snapshot = asynchronous.open_snapshot("disk", info.snapshot_id).await.unwrap();
        snapshot.clone_to("copy").await.unwrap();
        let copy = asynchronous.open("copy").await.unwrap();
        let (result, bytes) = copy.read_at(vec![0; 9 << 20], 3 * MIB).await;
        result.unwrap();
        assert!(bytes == pattern(1, 9 << 20));
        let own = copy.info().await.unwrap();
        assert_eq!(own.parent_vdi_id, Some(info.vdi_id));
        copy.resize(65 * MIB).await.unwrap();
        assert_eq!(copy.size(), 65 * MIB);
        copy.close().await.unwrap();
        snapshot.roll_back().await.unwrap();
        let (result, bytes) = vdi.read_at(vec![0; 4096], 3 * MIB).await;
        result.unwrap();
        assert!(bytes == pattern(1, 4096));
        asynchronous.delete("copy").await.unwrap();
        asynchronous.set_attribute("disk", "owner", "me").await.unwrap();
    });
    assert_eq!(cluster.attribute("disk", "owner").unwrap(), b"me");
    cluster.remove_attribute("disk", "owner").unwrap();
    assert_eq!(cluster.attribute("disk", "owner").unwrap_err().kind(), ErrorKind::NotFound);
    drop(snapshot);
    cluster.delete_snapshot("disk", "one").unwrap();
    vdi.close().unwrap();
    cluster.delete("disk").unwrap();
    assert_eq!(cluster.list().unwrap(), [""; 0]);
    cluster.close().unwrap();
}

#[test]
fn failures_say_why() {
    let server = lamb();
    let cluster = Cluster::connect(server.address()).unwrap();
    let error = cluster.open("nothing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = error.to_string();
    assert!(said.starts_with("VDI \"nothing\": ") && said.contains(server.address()), "{said}");
    assert_eq!(cluster.open("").unwrap_err().kind(), ErrorKind::InvalidInput);
    let error = cluster.open_snapshot("nothing", "tag").unwrap_err();
    assert!(error.to_string().starts_with("snapshot \"tag\" of VDI \"nothing\": "), "{error}");
    assert_eq!(Cluster::connect("a b").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(Cluster::connect("unix:/nowhere").unwrap_err().kind(), ErrorKind::NotConnected);

    cluster.create("disk", MIB).unwrap();
    assert_eq!(cluster.create("disk", MIB).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let reader = cluster.open_read_only("disk").unwrap();
    let error = reader.write_at(b"x", 0).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::ReadOnly, 30));
    assert_eq!(reader.read_at(&mut [0], MIB).unwrap_err().kind(), ErrorKind::InvalidInput);

    let asynchronous = aio::Cluster::new_unconnected("unix:/nowhere").unwrap();
    let error = asynchronous.block_on(asynchronous.connect()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::TimedOut), "{error}");
}

#[test]
fn a_lock_goes_with_the_last_clone_of_its_handle() {
    let server = lamb();
    let [one, other] = [(); 2].map(|()| Cluster::connect(server.address()).unwrap());
    one.create("disk", MIB).unwrap();
    let locked = || other.open("disk").map(drop).err().map(|error| error.kind());
    let vdi = one.open("disk").unwrap();
    let clone = vdi.clone();
    drop(vdi);
    assert_eq!(locked(), Some(ErrorKind::Locked));
    drop(clone);
    assert_eq!(locked(), None);

    // Closed explicitly, it is closed for its clones.
    let vdi = one.open("disk").unwrap();
    let clone = vdi.clone();
    vdi.close().unwrap();
    assert_eq!(clone.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(locked(), None);

    // An asynchronous handle is closed by whoever drives.
    let asynchronous = one.aio().unwrap();
    let vdi = asynchronous.block_on(asynchronous.open("disk")).unwrap();
    assert_eq!(locked(), Some(ErrorKind::Locked));
    drop(vdi);
    while locked().is_some() {
        asynchronous.wait(Some(Duration::from_millis(10))).unwrap();
    }

    // The connection's end is that of all its handles.
    let vdi = one.open("disk").unwrap();
    assert_eq!(locked(), Some(ErrorKind::Locked));
    one.clone().close().unwrap();
    assert_eq!(locked(), None);
    assert_eq!(vdi.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::Canceled);
    assert_eq!(one.list().unwrap_err().kind(), ErrorKind::Canceled);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_nobody_waits_for_goes_on_and_what_is_lost_is_told() {
    let server = lamb();
    let cluster = aio::Cluster::new_unconnected(server.address()).unwrap();
    let vdi = cluster.block_on(async {
        cluster.create("disk", 64 * MIB).await.unwrap();
        cluster.open("disk").await.unwrap()
    });
    // Dropped, some before anything of them was sent.
    for n in 0..100 {
        drop(vdi.write_at(pattern(n, 8192), 8192 * u64::from(n)));
    }
    // Those that were started later may be earlier.
    let closed = cluster.block_on(async {
        let name = vdi.name();
        vdi.close().await.unwrap();
        cluster.open(name).await
    });
    let vdi = closed.unwrap();
    for n in 0..100 {
        let (result, bytes) = cluster.block_on(vdi.read_at(vec![0; 8192], 8192 * u64::from(n)));
        result.unwrap();
        assert!(bytes == pattern(n, 8192), "{n}");
    }

    // A future that is polled by an executor of others, while nobody drives.
    let mut read = pin!(vdi.read_at(vec![7; 4096], 0));
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    assert!(read.as_mut().poll(&mut context).is_pending());
    assert!(cluster.wait(None).unwrap());
    while count.0.load(Ordering::Relaxed) == 0 {
        cluster.wait(None).unwrap();
    }
    let Poll::Ready((Ok(()), bytes)) = read.as_mut().poll(&mut context) else { panic!() };
    assert!(bytes == pattern(0, 4096));

    // In flight when it closes.
    let reads: Vec<_> = (0..10).map(|_| vdi.read_at(vec![0; 4096], 0)).collect();
    cluster.block_on(cluster.close()).unwrap();
    assert!(cluster.is_closed());
    for read in reads {
        let (result, bytes) = cluster.block_on(read);
        assert_eq!(bytes.len(), 4096, "the buffer comes back");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Canceled);
        }
    }
    let (result, bytes) = cluster.block_on(vdi.read_at(vec![0; 5], 0));
    assert_eq!((result.unwrap_err().kind(), bytes.len()), (ErrorKind::Canceled, 5));
}

#[test]
fn buffers_come_back_from_a_server_that_is_gone() {
    let mut server = lamb();
    let options = ConnectOptions::new().timeout(Some(Duration::from_millis(300)));
    let cluster = aio::Cluster::new_unconnected_with(server.address(), &options).unwrap();
    let vdi = cluster.block_on(async {
        cluster.create("disk", 64 * MIB).await.unwrap();
        cluster.open("disk").await.unwrap()
    });
    server.end();
    let (result, bytes) = cluster.block_on(vdi.write_at(pattern(1, 1 << 20), 0));
    let kind = result.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::NotConnected), "{kind:?}");
    assert!(bytes == pattern(1, 1 << 20));
}

#[test]
fn the_buffer_limit_refuses_and_gives_back() {
    let server = lamb();
    let options = ConnectOptions::new().buffer_limit(1 << 20);
    let cluster = aio::Cluster::new_unconnected_with(server.address(), &options).unwrap();
    cluster.block_on(async {
        cluster.create("disk", 64 * MIB).await.unwrap();
        let vdi = cluster.open("disk").await.unwrap();
        let first = vdi.write_at(vec![1; 600_000], 0);
        let (result, bytes) = vdi.write_at(vec![2; 600_000], 0).await;
        assert_eq!((result.unwrap_err().kind(), bytes.len()), (ErrorKind::OutOfMemory, 600_000));
        first.await.0.unwrap();
        vdi.write_at(vec![2; 600_000], 0).await.0.unwrap();
    });
}

#[test]
fn many_threads_share_a_handle() {
    let server = lamb();
    let cluster = Cluster::connect(server.address()).unwrap();
    cluster.create("disk", 64 * MIB).unwrap();
    let vdi = cluster.open("disk").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let vdi = vdi.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let at = (u64::from(thread) * 20 + n) * 5000;
                    vdi.write_at(&pattern(thread, 5000), at).unwrap();
                    let mut bytes = vec![0; 5000];
                    vdi.read_at(&mut bytes, at).unwrap();
                    assert!(bytes == pattern(thread, 5000));
                }
            });
        }
    });
}
