//! The asynchronous form: operations that are started, and told of by futures.
//!
//! It needs no runtime, and has none. The methods have the names of the blocking form and start what
//! they say at once; what comes of it is a future, [`Operation`]. Somebody has to *drive* the
//! connection: whenever its one [descriptor](Cluster#impl-AsFd-for-Cluster) is readable there is
//! work, and [`dispatch`](Cluster::dispatch) does it without blocking and wakes whom it concerns.
//! Futures may be polled by any executor in any thread.
//!
//! - Without a runtime: [`Cluster::block_on`] drives the connection while it waits for a future.
//! - In an event loop of one's own: watch the descriptor, as with `poll`.
//! - With a thread: `while cluster.wait(None).is_ok() {}`.
//! - With tokio: a task that waits for the descriptor. `examples/tokio.rs` is a whole program.
//!
//! ```no_run
//! # use sheepdog::aio::Cluster;
//! use tokio::io::{Interest, unix::AsyncFd};
//!
//! async fn drive(cluster: Cluster) -> std::io::Result<()> {
//!     // SAFETY: the descriptor stays the same, and open, as long as there is a value of the cluster's.
//!     let fd = unsafe { AsyncFd::register_with_interest(cluster, Interest::READABLE)? };
//!     while !fd.get_ref().is_closed() {
//!         let mut ready = fd.readable().await?;
//!         fd.get_ref().dispatch();
//!         if !fd.get_ref().has_work() {
//!             ready.clear_ready();
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Blocking and asynchronous operations of one connection go together: [`Cluster::blocking`] and
//! [`crate::Cluster::aio`] are views of the same. Operations in flight at the same time have no order
//! between them.
//!
//! Buffers go into an operation and come back with its result, also after an error: so none is
//! borrowed by a future that is dropped or leaked.
//!
//! Handles that are dropped here are closed in the background, by whoever drives. The connection
//! itself is closed when the last handle goes, which blocks for some milliseconds, and for five
//! seconds at most where a cluster does not answer: a program that must not block awaits
//! [`close`](Cluster::close) before.

use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connect::ConnectOptions;
use super::session::{Handle, Session, about};
use super::types::{CreateOptions, Info, Name, SnapshotId};
use super::{Error, Result, blocking, lent, ops};
use crate::cluster::Op;
use crate::error as core;
use crate::vdi::{Client, Extent, Space};

pub use super::operation::Operation;

/// A connection to a cluster; clones are the same one.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/doc.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = doc::server();
/// # let address = server.address();
/// use sheepdog::aio::Cluster;
///
/// let cluster = Cluster::new_unconnected(address)?;
/// cluster.block_on(async {
///     cluster.connect().await?;
///     cluster.create("disk", 64 << 20).await?;
///     let vdi = cluster.open("disk").await?;
///     // All at once.
///     let writes: Vec<_> = (0..16).map(|n| vdi.write_at(vec![n; 4096], 4096 * n as u64)).collect();
///     for write in writes {
///         let (result, _buffer) = write.await;
///         result?;
///     }
///     let (result, bytes) = vdi.read_at(vec![0; 4096], 4096 * 7).await;
///     result?;
///     assert!(bytes.iter().all(|byte| *byte == 7));
///     vdi.close().await?;
///     cluster.close().await
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster {
    session: Arc<Session>,
    fd: RawFd,
}

/// A VDI that is open; clones are the same handle.
#[derive(Clone)]
pub struct Vdi(Owner);

/// A snapshot that is open, to be read; clones are the same handle.
#[derive(Clone)]
pub struct Snapshot(Owner);

/// What a buffer was used for, and the buffer.
pub type Buffered = (Result<()>, Vec<u8>);

impl Cluster {
    pub(super) fn new(session: Arc<Session>) -> Result<Cluster> {
        let fd = session.client.cluster.events_fd();
        let fd = fd.map_err(|error| session.error(String::new(), error))?;
        Ok(Cluster { session, fd })
    }

    /// A cluster to [`connect`](Cluster::connect) to, with the addresses of
    /// [`crate::Cluster::connect`]. Does not wait, and asks nobody.
    ///
    /// Errors: `InvalidInput` (malformed address), `OutOfMemory` (no file descriptor left).
    pub fn new_unconnected(address: impl AsRef<[u8]>) -> Result<Cluster> {
        Cluster::new_unconnected_with(address, &ConnectOptions::new())
    }

    /// As [`new_unconnected`](Cluster::new_unconnected), with options.
    pub fn new_unconnected_with(
        address: impl AsRef<[u8]>,
        options: &ConnectOptions,
    ) -> Result<Cluster> {
        let address = address.as_ref();
        let about = || String::from_utf8_lossy(address).into_owned();
        let client = options.client(address).map_err(|error| Error::new(about(), error, None))?;
        Cluster::new(Session::new(Arc::new(client)))
    }

    /// Connects. Operations that are started before connect as well: this is to find out that it works.
    pub fn connect(&self) -> Operation<Result<()>> {
        ops::connect(&self.session, b"").start(nothing)
    }

    /// The same connection in its blocking form.
    pub fn blocking(&self) -> blocking::Cluster {
        blocking::Cluster::of(self.session.clone())
    }

    /// Does the work that there is, without waiting for more, and wakes those whose operations have
    /// ended. May be called from any thread, at any time.
    pub fn dispatch(&self) {
        self.session.client.cluster.dispatch();
    }

    /// Whether the descriptor is readable now: there is work for [`dispatch`](Cluster::dispatch). For
    /// event loops that tell of changes alone.
    pub fn has_work(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// Waits for work and does it; false where there was none within `timeout`. None waits until the
    /// connection is closed.
    ///
    /// Errors: `Canceled` (it is closed), `OutOfMemory`.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let result = self.session.client.cluster.wait(timeout);
        result.map_err(|error| self.session.error(String::new(), error))
    }

    /// Runs `future` to its end in this thread, and drives the connection meanwhile. Not to be called
    /// in a future that an executor runs: it blocks.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let client = self.session.client.clone();
        let ringer =
            Arc::new(Ringer { client, thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(ringer.clone());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            while !ringer.woken.swap(false, Ordering::AcqRel) {
                // Closed, there is nothing to drive. What it waits for is another's.
                if self.wait(None).is_err() {
                    thread::park();
                }
            }
        }
    }

    /// Whether a [`close`](Cluster::close) has come to its end: nothing is left to be driven.
    pub fn is_closed(&self) -> bool {
        self.session.is_over()
    }

    /// As [`crate::Cluster::list`].
    pub fn list(&self) -> Operation<Result<Vec<Name>>> {
        ops::list(&self.session).start(same)
    }

    /// As [`crate::Cluster::snapshots`].
    pub fn snapshots(&self, name: impl AsRef<[u8]>) -> Operation<Result<Vec<Info>>> {
        ops::snapshots(&self.session, name.as_ref()).start(same)
    }

    /// As [`crate::Cluster::create`].
    pub fn create(&self, name: impl AsRef<[u8]>, size: u64) -> Operation<Result<()>> {
        self.create_with(name, &CreateOptions::new(size))
    }

    /// As [`crate::Cluster::create_with`].
    pub fn create_with(
        &self,
        name: impl AsRef<[u8]>,
        options: &CreateOptions,
    ) -> Operation<Result<()>> {
        ops::create(&self.session, name.as_ref(), *options).start(nothing)
    }

    /// As [`crate::Cluster::open`].
    pub fn open(&self, name: impl AsRef<[u8]>) -> Operation<Result<Vdi>> {
        ops::open(&self.session, name.as_ref(), false).start(|handle| Vdi(Owner::new(handle)))
    }

    /// As [`crate::Cluster::open_read_only`].
    pub fn open_read_only(&self, name: impl AsRef<[u8]>) -> Operation<Result<Vdi>> {
        ops::open(&self.session, name.as_ref(), true).start(|handle| Vdi(Owner::new(handle)))
    }

    /// As [`crate::Cluster::open_snapshot`].
    pub fn open_snapshot(
        &self,
        name: impl AsRef<[u8]>,
        snapshot: impl Into<SnapshotId>,
    ) -> Operation<Result<Snapshot>> {
        let open = ops::open_snapshot(&self.session, name.as_ref(), &snapshot.into());
        open.start(|handle| Snapshot(Owner::new(handle)))
    }

    /// As [`crate::Cluster::delete`].
    pub fn delete(&self, name: impl AsRef<[u8]>) -> Operation<Result<()>> {
        ops::delete(&self.session, name.as_ref()).start(nothing)
    }

    /// As [`crate::Cluster::delete_snapshot`].
    pub fn delete_snapshot(
        &self,
        name: impl AsRef<[u8]>,
        snapshot: impl Into<SnapshotId>,
    ) -> Operation<Result<()>> {
        ops::delete_snapshot(&self.session, name.as_ref(), &snapshot.into()).start(nothing)
    }

    /// As [`crate::Cluster::break_lock`].
    pub fn break_lock(&self, name: impl AsRef<[u8]>) -> Operation<Result<()>> {
        ops::break_lock(&self.session, name.as_ref()).start(nothing)
    }

    /// As [`crate::Cluster::attribute`].
    pub fn attribute(
        &self,
        name: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Operation<Result<Vec<u8>>> {
        ops::attribute(&self.session, name.as_ref(), key.as_ref()).start(same)
    }

    /// As [`crate::Cluster::set_attribute`].
    pub fn set_attribute(
        &self,
        name: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Operation<Result<()>> {
        ops::set_attribute(&self.session, name.as_ref(), key.as_ref(), value.as_ref())
            .start(nothing)
    }

    /// As [`crate::Cluster::remove_attribute`].
    pub fn remove_attribute(
        &self,
        name: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Operation<Result<()>> {
        ops::remove_attribute(&self.session, name.as_ref(), key.as_ref()).start(nothing)
    }

    /// Closes the connection, for all its clones and for the blocking form, as
    /// [`crate::Cluster::close`]. Operations in flight end as `Canceled`. Until this has ended, the
    /// connection is to be driven.
    pub fn close(&self) -> Operation<Result<()>> {
        self.session.start_close()
    }
}

impl AsFd for Cluster {
    /// The descriptor that is readable when there is work for [`Cluster::dispatch`]. Not to be read
    /// from. It stays the same until the last handle of the connection is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        lent::descriptor(&self.session.client.cluster, self.fd)
    }
}

impl AsRawFd for Cluster {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// Ends a wait of [`Cluster::block_on`].
struct Ringer {
    client: Arc<Client>,
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        // Itself, when it dispatches, looks before it waits again.
        if self.thread.id() != thread::current().id() {
            self.client.cluster.ring();
            self.thread.unpark();
        }
    }
}

fn same<T>(value: T) -> T {
    value
}

fn nothing(_: ()) {}

/// A handle whose end is left to whoever drives the connection.
#[derive(Clone)]
struct Owner(Option<Arc<Handle>>);

impl Owner {
    fn new(handle: Arc<Handle>) -> Owner {
        Owner(Some(handle))
    }

    fn close(&self) -> Operation<Result<()>> {
        self.end().map_or_else(|| Operation::ready(Ok(())), |end| end.start(nothing))
    }

    fn read_at(&self, buf: Vec<u8>, offset: u64) -> Operation<Buffered> {
        match self.readable() {
            Ok(vdi) => self.start(buf, |client, op, buf| async move {
                Ok(lent::read_owned(&client.cluster, &op, &vdi, buf, offset).await)
            }),
            Err(error) => Operation::ready((Err(self.error(error)), buf)),
        }
    }

    fn write_at(&self, buf: Vec<u8>, offset: u64) -> Operation<Buffered> {
        match self.open().cloned() {
            Ok(vdi) => self.start(buf, |client, op, buf| async move {
                Ok(lent::write_owned(&client.cluster, &op, &vdi, buf, offset).await)
            }),
            Err(error) => Operation::ready((Err(self.error(error)), buf)),
        }
    }

    /// Starts what uses a buffer.
    fn start<F>(
        &self,
        buf: Vec<u8>,
        work: impl FnOnce(Arc<Client>, Op, Vec<u8>) -> F,
    ) -> Operation<Buffered>
    where
        F: Future<Output = core::Result<(core::Result<()>, Vec<u8>)>> + Send + 'static,
    {
        let session = &self.session;
        let (operation, promise) = Operation::new();
        let (client, vdi) = (session.client.clone(), self.vdi.clone());
        let error = move |error| Error::new(about(&vdi), error, Some(&client));
        let done = move |result: core::Result<(core::Result<()>, Vec<u8>)>| {
            // Where it has panicked, the buffer is gone with it.
            let (result, buf) = result.unwrap_or_else(|error| (Err(error), Vec::new()));
            promise.keep((result.map_err(error), buf));
        };
        let client = session.client.clone();
        let bytes = buf.len();
        let mut kept = Some(buf);
        let begin = |op| work(client, op, kept.take().unwrap_or_default());
        match session.spawn(bytes, begin, done) {
            Ok(()) => operation,
            Err(error) => Operation::ready((Err(self.error(error)), kept.unwrap_or_default())),
        }
    }
}

impl std::ops::Deref for Owner {
    type Target = Arc<Handle>;

    fn deref(&self) -> &Arc<Handle> {
        self.0.as_ref().expect("only a drop takes it")
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(handle) = self.0.take().and_then(Arc::into_inner) else { return };
        if let Some(end) = handle.end() {
            drop(end.start(nothing));
        }
    }
}

fn with_events(handle: &Arc<Handle>) -> Result<Owner> {
    let events = handle.session.client.cluster.events_fd();
    events.map_err(|error| handle.error(error))?;
    Ok(Owner::new(handle.clone()))
}

impl Vdi {
    pub(super) fn of(handle: &Arc<Handle>) -> Result<Vdi> {
        with_events(handle).map(Vdi)
    }

    /// The same handle in the blocking form.
    pub fn blocking(&self) -> blocking::Vdi {
        blocking::Vdi::of((*self.0).clone())
    }

    /// The name.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    /// Bytes, as far as it is known: no server is asked.
    pub fn size(&self) -> u64 {
        self.0.vdi.size()
    }

    /// As [`crate::Vdi::info`].
    pub fn info(&self) -> Operation<Result<Info>> {
        ops::info(&self.0).start(same)
    }

    /// Reads as many bytes as `buf` has at byte `offset`, as [`crate::Vdi::read_at`]. Gives `buf`
    /// back.
    pub fn read_at(&self, buf: Vec<u8>, offset: u64) -> Operation<Buffered> {
        self.0.read_at(buf, offset)
    }

    /// Writes all of `buf` at byte `offset`, as [`crate::Vdi::write_at`]. Gives `buf` back.
    pub fn write_at(&self, buf: Vec<u8>, offset: u64) -> Operation<Buffered> {
        self.0.write_at(buf, offset)
    }

    /// As [`crate::Vdi::flush`]: covers the writes whose operations have ended before this call.
    pub fn flush(&self) -> Operation<Result<()>> {
        ops::flush(&self.0).start(nothing)
    }

    /// As [`crate::Vdi::discard`].
    pub fn discard(&self, offset: u64, len: u64) -> Operation<Result<()>> {
        ops::zero(&self.0, offset, len, Space::Freed).start(nothing)
    }

    /// As [`crate::Vdi::write_zeroes`].
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Operation<Result<()>> {
        ops::zero(&self.0, offset, len, Space::Kept).start(nothing)
    }

    /// As [`crate::Vdi::resize`].
    pub fn resize(&self, size: u64) -> Operation<Result<()>> {
        ops::resize(&self.0, size).start(nothing)
    }

    /// As [`crate::Vdi::block_status`].
    pub fn block_status(&self, offset: u64, len: u64) -> Operation<Result<Vec<Extent>>> {
        ops::block_status(&self.0, offset, len).start(same)
    }

    /// As [`crate::Vdi::refresh`].
    pub fn refresh(&self) -> Operation<Result<()>> {
        ops::refresh(&self.0).start(nothing)
    }

    /// As [`crate::Vdi::snapshot`].
    pub fn snapshot(&self, tag: impl AsRef<[u8]>) -> Operation<Result<Snapshot>> {
        ops::take_snapshot(&self.0, tag.as_ref()).start(|handle| Snapshot(Owner::new(handle)))
    }

    /// As [`crate::Vdi::close`]; operations in flight on it end as they would have.
    pub fn close(self) -> Operation<Result<()>> {
        self.0.close()
    }
}

impl Snapshot {
    pub(super) fn of(handle: &Arc<Handle>) -> Result<Snapshot> {
        with_events(handle).map(Snapshot)
    }

    /// The same handle in the blocking form.
    pub fn blocking(&self) -> blocking::Snapshot {
        blocking::Snapshot::of((*self.0).clone())
    }

    /// The name of its VDI.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.vdi.size()
    }

    /// As [`crate::Snapshot::info`].
    pub fn info(&self) -> Operation<Result<Info>> {
        ops::info(&self.0).start(same)
    }

    /// As [`Vdi::read_at`].
    pub fn read_at(&self, buf: Vec<u8>, offset: u64) -> Operation<Buffered> {
        self.0.read_at(buf, offset)
    }

    /// As [`crate::Vdi::block_status`].
    pub fn block_status(&self, offset: u64, len: u64) -> Operation<Result<Vec<Extent>>> {
        ops::block_status(&self.0, offset, len).start(same)
    }

    /// As [`crate::Snapshot::roll_back`].
    pub fn roll_back(&self) -> Operation<Result<()>> {
        ops::roll_back(&self.0).start(nothing)
    }

    /// As [`crate::Snapshot::clone_to`].
    pub fn clone_to(&self, name: impl AsRef<[u8]>) -> Operation<Result<()>> {
        ops::clone(&self.0, name.as_ref(), 0).start(nothing)
    }

    /// As [`crate::Snapshot::clone_with_copies`].
    pub fn clone_with_copies(&self, name: impl AsRef<[u8]>, copies: u8) -> Operation<Result<()>> {
        ops::clone(&self.0, name.as_ref(), copies).start(nothing)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("fd", &self.fd).finish_non_exhaustive()
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
