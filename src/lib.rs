//! A client of the Sheepdog distributed block store: virtual disks (VDIs), snapshots and clones in a
//! cluster, over TCP or a Unix socket.
//!
//! ```no_run
//! # fn main() -> sheepdog::Result<()> {
//! let cluster = sheepdog::Cluster::connect("127.0.0.1:7000")?;
//! cluster.create("disk", 20 << 30)?;
//! let vdi = cluster.open("disk")?;
//! vdi.write_at(b"hello, sheep", 4096)?;
//! vdi.flush()?;
//! let snapshot = vdi.snapshot("monday")?;
//! snapshot.clone_to("copy")?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Cluster`], [`Vdi`] and [`Snapshot`] wait for what they do, in any number of threads; [`aio`] has
//! them once more, asynchronously, for any executor or event loop. There are no threads of its own,
//! but to look up the name of a host.
//!
//! A process that forks must leave a connection and its handles alone in the child, and not drop
//! them there: the parent goes on with them. (What is spawned with `std::process` is no such child.)
//!
//! # The map of the house
//!
//! This is also what the C library is made of: `libsheepdog.so` and its header. The way of data; each
//! room knows only the one below it:
//!
//! - `ffi`: the C boundary. The header is generated from it. Beside it `api`, the Rust boundary.
//! - `vdi`: what an operation on a VDI means in objects.
//! - `cluster`: which gateway takes a request; reconnecting, repeating, deadlines.
//! - `wire`: bytes in, replies out; requests in, bytes out.
//! - `net`: sockets, and the callers' memory that goes through them.
//!
//! Beside them: `exec`, which runs the `async fn`s that operations are, `loops`, which has the
//! program's event loop call them, `tree`, the index of a hypervolume as data, `error`, and the crate
//! `sheepdog-proto`, the only place that knows an offset. What the servers do and what a client owes
//! them stands in `docs/protocol.md`, which comments cite by section.

// What the Rust API alone uses.
#![cfg_attr(not(feature = "rust"), allow(dead_code))]

#[cfg(feature = "rust")]
mod api;
mod clock;
mod cluster;
mod error;
mod exec;
mod ffi;
mod loops;
mod net;
mod sync;
mod tree;
mod vdi;
mod wire;

#[cfg(feature = "rust")]
pub use api::*;
