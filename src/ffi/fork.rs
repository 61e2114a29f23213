//! fork(2). The child gets a copy of every handle, and shares the sockets that belong to them with
//! its parent: used by both, each would read what the other asked for. So a handle is of the process
//! that made it. In the child it is not valid, and closing it frees the child's copy.
//!
//! What other threads of the parent were changing stays half changed in the child, and what they
//! had locked stays locked. So the tables of the process, which the child goes on with, are held
//! during the fork; what belongs to a handle is not looked at in the child unless nobody was in it.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::{Arc, Mutex};

use super::{entry, log};
use crate::error::{Error, Result};
use crate::exec::{self, lock};
use crate::vdi::Client;
use crate::{loops, net};

pub use crate::exec::process;

/// Copies of the parent's that its other threads were in: nobody can tell what may be freed.
static LEFT: Mutex<Vec<Arc<Client>>> = Mutex::new(Vec::new());

/// Frees the child's copy of a client, which no event loop calls any more.
pub fn give_back(copy: Arc<Client>) {
    match Arc::try_unwrap(copy) {
        // No thread was in it, and nothing asynchronous was in flight: whoever is holds a count.
        // So nothing of it is locked or half changed, and to drop it sends nothing.
        Ok(client) => drop(client),
        Err(copy) => {
            copy.cluster.close_copies();
            lock(&LEFT).push(copy);
        }
    }
}

/// What is held during a fork, in this order.
struct Held {
    _handles: entry::Held,
    _loops: loops::Held,
    _log: log::Held,
    descriptors: net::Held,
}

thread_local! {
    /// While this thread forks.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

extern "C" fn before() {
    let _ = HELD.try_with(|held| {
        *held.borrow_mut() = Some(Held {
            _handles: entry::hold(),
            _loops: loops::hold(),
            _log: log::hold(),
            descriptors: net::hold(),
        });
    });
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(|held| drop(held.take()));
}

extern "C" fn in_child() {
    exec::part_from_parent();
    let _ = HELD.try_with(|held| {
        if let Some(held) = held.take() {
            held.descriptors.part();
        }
    });
}

unsafe extern "C" {
    // Of POSIX, and not in the crate libc for every system that has it.
    fn pthread_atfork(
        before: Option<extern "C" fn()>,
        in_parent: Option<extern "C" fn()>,
        in_child: Option<extern "C" fn()>,
    ) -> c_int;
}

/// From now on a fork is noticed. To be called before the first handle is made.
pub fn watch() -> Result<()> {
    static WATCHED: Mutex<bool> = Mutex::new(false);
    let mut watched = lock(&WATCHED);
    if !*watched {
        // SAFETY: functions that stay for as long as this library is loaded.
        let error = unsafe { pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if error != 0 {
            return Err(Error::NoMem("pthread_atfork"));
        }
        *watched = true;
    }
    Ok(())
}
