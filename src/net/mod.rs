//! Sockets and the memory that goes through them: the only room below `wire`.
//!
//! Knows nothing of the protocol. Sockets stay in blocking mode once connected; each call says
//! with MSG_DONTWAIT whether it may block (docs: design, decision 1).

#![allow(unsafe_code)] // iobuf: the loans of C callers; descriptors: copies that nobody owns

mod descriptors;
mod iobuf;
mod lookup;
mod memory;
mod socket;

pub use descriptors::{Descriptors, Held, hold};
pub use iobuf::{IoVecs, NoMemory, RecvBuf, SendBuf};
pub use lookup::{Lookup, Resolver, resolve};
pub use memory::{Access, is_suspect, is_there};
pub use socket::{
    Endpoint, EventSet, Interest, Socket, Tap, WakeFd, interest, is_fault, is_retry, poll_sockets,
};
#[cfg(test)]
pub use socket::{poll_fds, wait_readable};
