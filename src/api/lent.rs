//! Memory of Rust programs that goes through the core, which knows no lifetimes: see net/iobuf.rs.

#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, RawFd};
use std::pin::pin;

use crate::cluster::{Cluster, Op};
use crate::error::Result;
use crate::net::{RecvBuf, SendBuf};
use crate::vdi::Vdi;

/// Reads as much as `buf` has room for.
pub(super) async fn read(
    cluster: &Cluster,
    op: &Op,
    vdi: &Vdi,
    buf: &mut [u8],
    offset: u64,
) -> Result<()> {
    // SAFETY: borrowed for as long as this future is not dropped, and when it ends, by its result or
    // by being dropped, every loan has ended: a request that is given up drops its buffers at once,
    // under the lock under which they are received into. Who never drops it keeps the borrow, or
    // never gets it back: both callers, below and in `ops`, see to that.
    let mut loan = unsafe { RecvBuf::from_raw(buf.as_mut_ptr(), buf.len()) };
    vdi.read(cluster, op, &mut loan, offset).await
}

/// Writes all of `buf`.
pub(super) async fn write(
    cluster: &Cluster,
    op: &Op,
    vdi: &Vdi,
    buf: &[u8],
    offset: u64,
) -> Result<()> {
    // SAFETY: as in `read`.
    let loan = unsafe { SendBuf::from_raw(buf.as_ptr(), buf.len()) };
    vdi.write(cluster, op, &loan, offset).await
}

/// Reads into a buffer that belongs to the operation, and gives it back. A future that is leaked
/// leaks the buffer with it.
pub(super) async fn read_owned(
    cluster: &Cluster,
    op: &Op,
    vdi: &Vdi,
    mut buf: Vec<u8>,
    offset: u64,
) -> (Result<()>, Vec<u8>) {
    let result = {
        let read = pin!(read(cluster, op, vdi, &mut buf, offset));
        cluster.bounded(op, read).await
    };
    (result, buf)
}

/// As [`read_owned`].
pub(super) async fn write_owned(
    cluster: &Cluster,
    op: &Op,
    vdi: &Vdi,
    buf: Vec<u8>,
    offset: u64,
) -> (Result<()>, Vec<u8>) {
    let result = {
        let write = pin!(write(cluster, op, vdi, &buf, offset));
        cluster.bounded(op, write).await
    };
    (result, buf)
}

/// The descriptor of `cluster`, which has it for as long as it lives.
pub(super) fn descriptor(_: &Cluster, fd: RawFd) -> BorrowedFd<'_> {
    // SAFETY: of the cluster's events, which live as long as the cluster, whose borrow this takes on.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
