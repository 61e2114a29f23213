//! libsheepdog: a client of the Sheepdog distributed block store, for C programs.
//!
//! The way of data, and the map of the house; each room knows only the one below it:
//!
//! - `ffi`: the C boundary. The header is generated from it.
//! - [`vdi`]: what an operation on a VDI means in objects.
//! - [`cluster`]: which gateway takes a request; reconnecting, repeating, deadlines.
//! - `wire`: bytes in, replies out; requests in, bytes out.
//! - `net`: sockets, and the callers' memory that goes through them.
//!
//! Beside them: `exec`, which runs the `async fn`s that operations are, `loops`, which has the
//! program's event loop call them, `tree`, the index of a hypervolume as data, [`error`], and the crate
//! `sheepdog-proto`, the only place that knows an offset. What the servers do and what a client owes
//! them stands in `docs/protocol.md`, which comments cite by section.

mod clock;
pub mod cluster;
pub mod error;
mod exec;
mod ffi;
mod loops;
mod net;
mod sync;
mod tree;
pub mod vdi;
mod wire;
