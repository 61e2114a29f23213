//! A single-node Sheepdog server over a directory.
//!
//! ```text
//! main       the program: arguments, signals                     log    never waits for a reader
//! server     listeners, connections coming and going             poller connections that wait
//!  passed    sockets that somebody else listens on already
//! conn       one connection: frames in, order                    pool   threads, fair shares
//!  outbox    frames out                                          budget memory, fair shares
//! cluster    the state of everything, opened from the store      config what MAKE_FS said
//!  request   one request to its operation, and the answer
//!  object    READ, CREATE, WRITE, REMOVE, DISCARD; map updates   refs   who names which object
//!  change    what a map gains and loses, in a safe order
//!  vdi       NEW, DEL, lookup, lock, list
//!  attr      GET_VDI_ATTR
//!  admin     what dog asks about node and cluster
//!  mimic     the real server's dangers, for tests of clients
//! store      objects as files                                    buf    buffers
//! ```
//!
//! Everything here follows `docs/protocol.md`, whose sections the comments cite. Where the real
//! server is unsafe, this one does what 6.3 calls a safe superset.
//!
//! A panic anywhere is a defect, never an answer to a peer: the program then ends, and starts
//! again from a store that is sound at every moment.

mod admin;
mod attr;
mod budget;
mod buf;
mod change;
mod cluster;
mod config;
mod conn;
mod mimic;
mod object;
mod outbox;
mod passed;
mod poller;
mod pool;
mod refs;
mod request;
mod server;
mod store;
mod vdi;

pub use passed::Passed;
pub use server::{Address, LEAST_MEMORY, Options, Server, Stopper};

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Ends the program where going on would lose data that is acknowledged later. The next start
/// finishes what was begun.
fn end_for(reason: std::fmt::Arguments<'_>) -> ! {
    log::error!("{reason}: ending");
    log::logger().flush();
    std::process::exit(1)
}

// Poisoning is of no use to a program that ends at its first panic.

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
