//! libevent: a persistent read event.
//!
//! The event is assigned into memory of our own, so that it can still be looked at once its base
//! is gone: event_base_free() deletes the events of a base, and tells nobody.

use std::ffi::{c_int, c_short, c_void};
use std::sync::Arc;

use super::library::{Functions, library};
use super::{Link, Watcher};
use crate::error::{Error, Refusal, Result};

// libev has an event_add and an event_del too.
library!(
    "libevent",
    "sheepdog_libevent",
    6,
    [
        "event_assign",
        "event_add",
        "event_del",
        "event_debug_unassign",
        "event_get_struct_event_size",
        "event_get_version_number",
    ],
    &[
        c"libevent_core-2.1.so.7",
        c"libevent-2.1.so.7",
        c"libevent_core-2.2.so.1",
        c"libevent-2.2.so.1",
    ]
);

const EV_READ: c_short = 0x02;
const EV_PERSIST: c_short = 0x10;
/// The first version whose events look as they do below, and the first that nobody knows yet.
const VERSIONS: std::ops::Range<u32> = 0x0201_0000..0x0203_0000;
/// EVLIST_TIMEOUT, _INSERTED, _ACTIVE, _ACTIVE_LATER of event2/event_struct.h: the base knows the
/// event.
const EVLIST_ANY: c_short = 0x01 | 0x02 | 0x08 | 0x20;

type Assign = unsafe extern "C" fn(
    event: *mut EventHead,
    base: *mut c_void,
    fd: c_int,
    events: c_short,
    callback: unsafe extern "C" fn(fd: c_int, events: c_short, opaque: *mut c_void),
    opaque: *mut c_void,
) -> c_int;
type Add = unsafe extern "C" fn(event: *mut EventHead, timeout: *const libc::timeval) -> c_int;
type Del = unsafe extern "C" fn(event: *mut EventHead) -> c_int;
type Unassign = unsafe extern "C" fn(event: *mut EventHead);
type Size = unsafe extern "C" fn() -> usize;
type Version = unsafe extern "C" fn() -> u32;

/// How a struct event begins (event2/event_struct.h): the list of active events, and ev_flags.
#[repr(C)]
struct EventHead {
    next: *mut c_void,
    prev: *mut c_void,
    flags: c_short,
}

struct Node {
    event: *mut EventHead,
    del: Del,
    unassign: Unassign,
    link: Arc<Link>,
}

/// Watches the link's descriptor in `base`.
///
/// # Safety
/// `base` is a `struct event_base *` that this thread may use.
pub unsafe fn start(base: *mut c_void, link: Arc<Link>) -> Result<Watcher> {
    let [assign, add, del, unassign, size, version] = LIBRARY.find()?;
    // SAFETY: libevent's functions, with their types.
    let (assign, add, del, unassign, size, version) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Assign>(assign),
            std::mem::transmute::<*mut c_void, Add>(add),
            std::mem::transmute::<*mut c_void, Del>(del),
            std::mem::transmute::<*mut c_void, Unassign>(unassign),
            std::mem::transmute::<*mut c_void, Size>(size),
            std::mem::transmute::<*mut c_void, Version>(version),
        )
    };
    // SAFETY: they take nothing.
    let (size, version) = unsafe { (size(), version()) };
    if !VERSIONS.contains(&version) {
        log::error!("libevent: version {version:#x} is not supported, only 2.1 and 2.2 are");
        return Err(Error::Refused(Refusal::NoEventLibrary));
    }
    // SAFETY: a size that is not 0; zeroed, since event_assign may look at the flags.
    let event: *mut EventHead = unsafe { libc::calloc(1, size) }.cast();
    if event.is_null() {
        return Err(Error::NoMem("an event"));
    }
    let fd = link.fd();
    let node = Box::into_raw(Box::new(Node { event, del, unassign, link }));
    let events = EV_READ | EV_PERSIST;
    // SAFETY: memory of an event's size, which stays until the event is deleted.
    unsafe {
        if assign(event, base, fd, events, on_ready, node.cast()) != 0 {
            drop(Box::from_raw(node));
            libc::free(event.cast());
            return Err(Error::Internal("event_assign failed"));
        }
        if add(event, std::ptr::null()) != 0 {
            stop(node.cast());
            return Err(Error::Internal("event_add failed"));
        }
    }
    Ok(Watcher { node: node.cast(), stop, is_over })
}

/// As [`Watcher::stop`].
unsafe fn stop(node: *mut c_void) {
    // SAFETY: a node of `start`, which is stopped only once, in the thread that runs the loop. The
    // base is there if it knows the event.
    unsafe {
        let known = !is_over(node);
        let node = Box::from_raw(node.cast::<Node>());
        if known {
            (node.del)(node.event);
        }
        (node.unassign)(node.event);
        libc::free(node.event.cast());
    }
}

/// As [`Watcher::is_over`].
unsafe fn is_over(node: *mut c_void) -> bool {
    // SAFETY: a node of `start` that has not been stopped. Volatile, since libevent writes there.
    let flags = unsafe { (&raw const (*(*node.cast::<Node>()).event).flags).read_volatile() };
    // A persistent event leaves its base when it is deleted and no sooner.
    flags & EVLIST_ANY == 0
}

unsafe extern "C" fn on_ready(_fd: c_int, _events: c_short, node: *mut c_void) {
    // Whatever the events are: the work itself finds out.
    // SAFETY: the loop calls events that have not been deleted.
    let link = unsafe { (*node.cast::<Node>()).link.clone() };
    if link.fire() {
        // SAFETY: retired, and not stopped yet; this thread runs the loop.
        unsafe { stop(node) }
    }
}
