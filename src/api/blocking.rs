//! The form that waits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::connect::{ConnectOptions, milliseconds};
use super::session::{Handle, Session};
use super::types::{CreateOptions, Info, Name, SnapshotId};
use super::{Error, Result, aio, lent, ops};
use crate::vdi::{Extent, Space};

/// A connection to a cluster.
///
/// All methods may be called from all threads at once; clones are the same connection. Every
/// operation takes as long as the [timeout](Cluster::set_timeout) says at most.
///
/// The connection is closed by [`close`](Cluster::close), or when the last of its clones, VDIs and
/// snapshots is dropped: then what is wrong with the close goes to the [`log`] alone.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/doc.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = doc::server();
/// # let address = server.address();
/// use sheepdog::{Cluster, ErrorKind};
///
/// let cluster = Cluster::connect(address)?; // "127.0.0.1:7000", "unix:/run/sheep.sock", ...
/// cluster.create("greeting", 64 << 20)?;
/// let vdi = cluster.open("greeting")?;
/// vdi.write_at(b"hello, sheep", 4096)?;
/// vdi.flush()?;
///
/// let mut text = [0; 12];
/// vdi.read_at(&mut text, 4096)?;
/// assert_eq!(&text, b"hello, sheep");
///
/// let error = cluster.create("greeting", 64 << 20).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::AlreadyExists);
/// vdi.close()?;
/// cluster.delete("greeting")?;
/// cluster.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster(Arc<Session>);

/// A VDI that is open.
///
/// Clones are the same handle; handles that one connection has on a VDI share its lock, and see each
/// other's writes. The handle is closed by [`close`](Vdi::close), or when its last clone is dropped:
/// then it is not told where the lock could not be given back, which the close of the connection
/// tries once more. No write that has returned is lost by it, and none is made stable, either: see
/// [`flush`](Vdi::flush).
#[derive(Clone)]
pub struct Vdi(Arc<Handle>);

/// A snapshot that is open, to be read. Clones are the same handle, which goes with the last of them.
#[derive(Clone)]
pub struct Snapshot(Arc<Handle>);

impl Cluster {
    pub(super) fn of(session: Arc<Session>) -> Cluster {
        Cluster(session)
    }

    /// Connects to a cluster through the gateways at `address`: `host[:port]`,
    /// `[v6-address][:port]` or `unix:path`, several of one cluster separated by commas; "" is
    /// 127.0.0.1:7000. URIs without a VDI, as `sheepdog://host:port`, name the same.
    ///
    /// Makes one exchange with the server, so a wrong port or a cluster that is not formatted is an
    /// error here and not later.
    ///
    /// Errors: `InvalidInput` (malformed address), `NotConnected`, `TimedOut`, `Protocol` (no
    /// Sheepdog server listens there), `NotFormatted`.
    pub fn connect(address: impl AsRef<[u8]>) -> Result<Cluster> {
        Cluster::connect_with(address, &ConnectOptions::new())
    }

    /// Connects as `options` say.
    pub fn connect_with(address: impl AsRef<[u8]>, options: &ConnectOptions) -> Result<Cluster> {
        let address = address.as_ref();
        let connect = || {
            let client = Arc::new(options.client(address)?);
            client.cluster.start()?;
            Ok(client)
        };
        let about = || String::from_utf8_lossy(address).into_owned();
        let client = connect().map_err(|error| Error::new(about(), error, None))?;
        Ok(Cluster(Session::new(client)))
    }

    /// The same connection in its asynchronous form.
    ///
    /// Errors: `OutOfMemory` (no file descriptor left).
    pub fn aio(&self) -> Result<aio::Cluster> {
        aio::Cluster::new(self.0.clone())
    }

    /// Bounds the time that each later operation may take; None waits for ever. It is 30 seconds at
    /// first. An operation that timed out may have been carried out, or not, or in part.
    pub fn set_timeout(&self, time: Option<Duration>) {
        self.0.client.cluster.set_timeout_ms(milliseconds(time));
    }

    /// The names of the working VDIs, sorted, each once.
    pub fn list(&self) -> Result<Vec<Name>> {
        ops::list(&self.0).wait()
    }

    /// The snapshots of the VDI `name`, in the order of their ids.
    ///
    /// Errors: `NotFound` (neither a working VDI nor a snapshot has the name).
    pub fn snapshots(&self, name: impl AsRef<[u8]>) -> Result<Vec<Info>> {
        ops::snapshots(&self.0, name.as_ref()).wait()
    }

    /// Creates the VDI `name` of `size` bytes.
    ///
    /// Errors: `AlreadyExists`, `InvalidInput` (size 0 or too large, a name that is empty or longer
    /// than 255 bytes), `NoSpace`.
    pub fn create(&self, name: impl AsRef<[u8]>, size: u64) -> Result<()> {
        self.create_with(name, &CreateOptions::new(size))
    }

    /// Creates the VDI `name` as `options` say. Where a preallocation fails the VDI is deleted again,
    /// which may take ten seconds beyond the timeout.
    pub fn create_with(&self, name: impl AsRef<[u8]>, options: &CreateOptions) -> Result<()> {
        ops::create(&self.0, name.as_ref(), *options).wait()
    }

    /// Opens the working VDI `name` for reading and writing, and takes its lock where the cluster
    /// has locks.
    ///
    /// Errors: `NotFound`, `Locked` (another client has it).
    pub fn open(&self, name: impl AsRef<[u8]>) -> Result<Vdi> {
        ops::open(&self.0, name.as_ref(), false).wait().map(Vdi)
    }

    /// Opens the working VDI `name` for reading alone, whoever has it open and locked. Of what
    /// another client writes it sees all after a [`refresh`](Vdi::refresh).
    pub fn open_read_only(&self, name: impl AsRef<[u8]>) -> Result<Vdi> {
        ops::open(&self.0, name.as_ref(), true).wait().map(Vdi)
    }

    /// Opens a snapshot of the VDI `name`: `"tag"` or its number.
    ///
    /// Errors: `NotFound`.
    pub fn open_snapshot(
        &self,
        name: impl AsRef<[u8]>,
        snapshot: impl Into<SnapshotId>,
    ) -> Result<Snapshot> {
        ops::open_snapshot(&self.0, name.as_ref(), &snapshot.into()).wait().map(Snapshot)
    }

    /// Deletes the working VDI `name` and all its data; its snapshots stay. Broken off, it can be
    /// repeated. A lock of another client does not keep it from that.
    ///
    /// Errors: `NotFound`, `Locked` (this connection has it open).
    pub fn delete(&self, name: impl AsRef<[u8]>) -> Result<()> {
        ops::delete(&self.0, name.as_ref()).wait()
    }

    /// Deletes a snapshot of the VDI `name`. Everything else keeps what it shares with it.
    ///
    /// Errors: `NotFound`, `Locked` (this connection has it open).
    pub fn delete_snapshot(
        &self,
        name: impl AsRef<[u8]>,
        snapshot: impl Into<SnapshotId>,
    ) -> Result<()> {
        ops::delete_snapshot(&self.0, name.as_ref(), &snapshot.into()).wait()
    }

    /// Gives the lock of the working VDI `name` back, whoever holds it: for the lock of a client that
    /// is no more. One that goes on after all writes as before, beside whoever takes the lock next.
    ///
    /// Errors: `NotFound`.
    pub fn break_lock(&self, name: impl AsRef<[u8]>) -> Result<()> {
        ops::break_lock(&self.0, name.as_ref()).wait()
    }

    /// The value of the attribute `key` of the VDI `name`.
    ///
    /// Errors: `NotFound` (no such VDI, or no such key).
    pub fn attribute(&self, name: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        ops::attribute(&self.0, name.as_ref(), key.as_ref()).wait()
    }

    /// Gives the VDI `name` the attribute `key` (1 to 255 bytes), or another value (64 KiB at most).
    pub fn set_attribute(
        &self,
        name: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        ops::set_attribute(&self.0, name.as_ref(), key.as_ref(), value.as_ref()).wait()
    }

    /// Takes the attribute `key` from the VDI `name`.
    ///
    /// Errors: `NotFound` (no such VDI, or no such key).
    pub fn remove_attribute(&self, name: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<()> {
        ops::remove_attribute(&self.0, name.as_ref(), key.as_ref()).wait()
    }

    /// Closes the connection, for all its clones: what other threads are in ends as `Canceled`, and
    /// so does what comes later. VDIs are closed and their locks given back. Waits, for some seconds
    /// at most, until nothing can happen any more that was asked for and given up.
    ///
    /// Errors: `TimedOut` (a server may still carry out what it was asked for; the locks of the VDIs
    /// concerned are not given back).
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

impl Vdi {
    pub(super) fn of(handle: Arc<Handle>) -> Vdi {
        Vdi(handle)
    }

    /// The same handle in the asynchronous form.
    ///
    /// Errors: `OutOfMemory` (no file descriptor left).
    pub fn aio(&self) -> Result<aio::Vdi> {
        aio::Vdi::of(&self.0)
    }

    /// The name.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    /// Bytes, as far as it is known: no server is asked.
    pub fn size(&self) -> u64 {
        self.0.vdi.size()
    }

    /// What it is, as the servers know it now.
    pub fn info(&self) -> Result<Info> {
        ops::info(&self.0).wait()
    }

    /// Reads as many bytes as `buf` has at byte `offset`. What was never written reads as zeros.
    ///
    /// Errors: `InvalidInput` (beyond the end), `Io` (data that should exist does not). After an
    /// error the contents of `buf` mean nothing.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_at(&self.0, buf, offset)
    }

    /// Writes all of `buf` at byte `offset`. Later reads give these bytes, and no crash of this
    /// program takes them back; [`flush`](Vdi::flush) makes them outlast a power failure.
    ///
    /// Errors: `InvalidInput` (beyond the end), `NoSpace`, `Io`, `ReadOnly`. After an error the range
    /// may hold old data, new data, or some of both.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let handle = &self.0;
        let write = |vdi: &Arc<_>| {
            let cluster = &handle.session.client.cluster;
            cluster.run(async |op| lent::write(cluster, op, vdi, buf, offset).await)
        };
        handle.open().and_then(write).map_err(|error| handle.error(error))
    }

    /// Makes every write that has returned stable: it outlasts a power failure of the servers.
    pub fn flush(&self) -> Result<()> {
        ops::flush(&self.0).wait()
    }

    /// Makes `len` bytes at `offset` read as zeros, and frees the objects that lie wholly inside.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        ops::zero(&self.0, offset, len, Space::Freed).wait()
    }

    /// Makes `len` bytes at `offset` read as zeros. Objects that are there stay, so that later writes
    /// take no new space.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        ops::zero(&self.0, offset, len, Space::Kept).wait()
    }

    /// Makes it larger or smaller. What is cut off is freed.
    pub fn resize(&self, size: u64) -> Result<()> {
        ops::resize(&self.0, size).wait()
    }

    /// What `len` bytes at `offset` consist of, in order, neighbours of one kind as one.
    pub fn block_status(&self, offset: u64, len: u64) -> Result<Vec<Extent>> {
        ops::block_status(&self.0, offset, len).wait()
    }

    /// Forgets what is known of the contents, so that what another client has allocated is seen.
    pub fn refresh(&self) -> Result<()> {
        ops::refresh(&self.0).wait()
    }

    /// Makes what it holds now a snapshot called `tag`, and opens that; this handle goes on as the
    /// working VDI. May take ten seconds beyond the timeout.
    ///
    /// Errors: `AlreadyExists`, `InvalidInput` (the tag is empty or longer than 255 bytes),
    /// `ReadOnly`, `Unsupported` (a hypervolume).
    pub fn snapshot(&self, tag: impl AsRef<[u8]>) -> Result<Snapshot> {
        ops::take_snapshot(&self.0, tag.as_ref()).wait().map(Snapshot)
    }

    /// Closes the handle, for all its clones. The last handle of a VDI waits for writes under way,
    /// and gives the lock back.
    ///
    /// Errors: `TimedOut` (the lock is still held; the close of the connection tries once more).
    pub fn close(self) -> Result<()> {
        self.0.end().map_or(Ok(()), |end| end.wait())
    }
}

impl Snapshot {
    pub(super) fn of(handle: Arc<Handle>) -> Snapshot {
        Snapshot(handle)
    }

    /// The same handle in the asynchronous form.
    ///
    /// Errors: `OutOfMemory` (no file descriptor left).
    pub fn aio(&self) -> Result<aio::Snapshot> {
        aio::Snapshot::of(&self.0)
    }

    /// The name of its VDI.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.vdi.size()
    }

    /// What it is, as the servers know it now.
    pub fn info(&self) -> Result<Info> {
        ops::info(&self.0).wait()
    }

    /// Reads as [`Vdi::read_at`].
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_at(&self.0, buf, offset)
    }

    /// What it consists of, as [`Vdi::block_status`].
    pub fn block_status(&self, offset: u64, len: u64) -> Result<Vec<Extent>> {
        ops::block_status(&self.0, offset, len).wait()
    }

    /// Makes the working VDI of its name a copy of it: what was written since is gone. Handles of
    /// this connection on the working VDI go on, on the new content.
    pub fn roll_back(&self) -> Result<()> {
        ops::roll_back(&self.0).wait()
    }

    /// Creates the VDI `name` as a copy of it, whose objects it shares until it writes to them.
    ///
    /// Errors: `AlreadyExists`, `InvalidInput`.
    pub fn clone_to(&self, name: impl AsRef<[u8]>) -> Result<()> {
        ops::clone(&self.0, name.as_ref(), 0).wait()
    }

    /// As [`clone_to`](Snapshot::clone_to), with `copies` of each object that is written.
    pub fn clone_with_copies(&self, name: impl AsRef<[u8]>, copies: u8) -> Result<()> {
        ops::clone(&self.0, name.as_ref(), copies).wait()
    }
}

fn read_at(handle: &Handle, buf: &mut [u8], offset: u64) -> Result<()> {
    let read = |vdi: Arc<_>| {
        let cluster = &handle.session.client.cluster;
        cluster.run(async |op| lent::read(cluster, op, &vdi, buf, offset).await)
    };
    handle.readable().and_then(read).map_err(|error| handle.error(error))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl fmt::Debug for Vdi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vdi({:?})", self.name())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot(of {:?})", self.name())
    }
}
