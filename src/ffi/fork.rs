//! fork(2). The child gets a copy of every handle, and shares the sockets that belong to them with
//! its parent: used by both, each would read what the other asked for. So a handle is of the process
//! that made it. In the child it is not valid, and closing it frees the child's copy.
//!
//! What other threads of the parent were changing stays half changed in the child, and what they
//! had locked stays locked. So the tables of the process, which the child goes on with, are held
//! during the fork; what belongs to a handle is not looked at in the child unless nobody was in it.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

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
    _setting_up: MutexGuard<'static, ()>,
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
        held.borrow_mut().get_or_insert_with(|| Held {
            _setting_up: lock(&SETTING_UP),
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

/// The handlers are there from when the library is loaded, before the program has a thread. Registered
/// later, in one thread while another is in the handlers of its fork already, they would be called
/// from the next fork on only, and that child find locked what the first call is at.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static ON_LOAD: extern "C" fn() = register;

static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Several threads may get here at once, and have the handlers called several times: the later ones
/// do nothing. None waits for another, which a fork might leave behind.
extern "C" fn register() {
    if !REGISTERED.load(Ordering::Acquire) {
        // SAFETY: functions that stay for as long as this library is loaded.
        let error = unsafe { pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        REGISTERED.store(error == 0, Ordering::Release);
    }
}

/// What the library sets up once in a process is set up, and a fork is noticed.
static READY: AtomicBool = AtomicBool::new(false);
static SETTING_UP: Mutex<()> = Mutex::new(());

/// The beginning of every call.
pub fn prepare() {
    if !READY.load(Ordering::Acquire) {
        set_up();
    }
}

#[cold]
fn set_up() {
    // Once more, should there have been no memory.
    register();
    let _setting_up = lock(&SETTING_UP);
    if READY.load(Ordering::Acquire) {
        return;
    }
    // The hook is the library's own, since its copy of the standard library is.
    #[cfg(not(test))]
    std::panic::set_hook(Box::new(|panic| ::log::error!("{panic}")));
    log::install();
    // Tried again by the next call, and a handle is not made before.
    READY.store(REGISTERED.load(Ordering::Acquire), Ordering::Release);
}

/// From now on a fork is noticed. To be called before the first handle is made.
pub fn watch() -> Result<()> {
    if READY.load(Ordering::Acquire) { Ok(()) } else { Err(Error::NoMem("pthread_atfork")) }
}
