//! libevent: a persistent read event.
//!
//! The event is assigned into memory of our own, so that it can still be looked at once its base
//! is gone: event_base_free() deletes the events of a base, and tells nobody.

use std::ffi::{c_int, c_short, c_void};
use std::sync::Arc;

use super::library::library;
use super::{Link, Watcher, keep};
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
            drop(Box::from_raw(node));
            unassign(event);
            libc::free(event.cast());
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
        let over = is_over(node);
        let node = Box::from_raw(node.cast::<Node>());
        if over {
            // Another thread may be in event_base_free() still.
            return keep(node.event.cast());
        }
        (node.del)(node.event);
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

#[cfg(test)]
mod tests {
    use std::mem::{MaybeUninit, offset_of};

    use libevent_sys as sys;

    use super::super::shape::{Function, of, of_callback};
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_header() {
        type Callback = unsafe extern "C" fn(c_int, c_short, *mut c_void);
        let assign: unsafe extern "C" fn(_, _, _, _, _, _) -> _ = sys::event_assign;
        let add: unsafe extern "C" fn(_, _) -> _ = sys::event_add;
        let del: unsafe extern "C" fn(_) -> _ = sys::event_del;
        let unassign: unsafe extern "C" fn(_) = sys::event_debug_unassign;
        let size: unsafe extern "C" fn() -> _ = sys::event_get_struct_event_size;
        let version: unsafe extern "C" fn() -> _ = sys::event_get_version_number;
        assert_eq!(of(assign), Assign::shape());
        assert_eq!(of(add), Add::shape());
        assert_eq!(of(del), Del::shape());
        assert_eq!(of(unassign), Unassign::shape());
        assert_eq!(of(size), Size::shape());
        assert_eq!(of(version), Version::shape());
        let callback: sys::event_callback_fn = None;
        assert_eq!(of_callback(callback), Callback::shape());
    }

    #[test]
    fn the_constants_and_the_event_are_those_of_the_header() {
        assert_eq!(u32::try_from(EV_READ), Ok(sys::EV_READ));
        assert_eq!(u32::try_from(EV_PERSIST), Ok(sys::EV_PERSIST));
        let any = sys::EVLIST_TIMEOUT
            | sys::EVLIST_INSERTED
            | sys::EVLIST_ACTIVE
            | sys::EVLIST_ACTIVE_LATER;
        assert_eq!(u32::try_from(EVLIST_ANY), Ok(any));
        // Where the flags are: bindgen names them by way of a structure inside the event.
        let event = MaybeUninit::<sys::event>::zeroed();
        let base = event.as_ptr();
        // SAFETY: addresses only.
        let flags = unsafe { &raw const (*base).ev_evcallback.evcb_flags };
        assert_eq!(flags as usize - base as usize, offset_of!(EventHead, flags));
        // SAFETY: takes nothing.
        let (size, version) =
            unsafe { (sys::event_get_struct_event_size(), sys::event_get_version_number()) };
        assert_eq!(size as usize, size_of::<sys::event>());
        assert!(VERSIONS.contains(&version));
        assert!(LIBRARY.find().is_ok(), "it is in this process");
    }

    #[test]
    fn the_base_s_free_is_seen_in_the_event() {
        let mut fds = [0; 2];
        // SAFETY: the functions as their headers say.
        unsafe {
            assert_eq!(libc::pipe(fds.as_mut_ptr()), 0);
            let base = sys::event_base_new();
            let callback: sys::event_callback_fn = Some(never);
            unsafe extern "C" fn never(_: c_int, _: c_short, _: *mut c_void) {}
            let event = MaybeUninit::<sys::event>::zeroed();
            let flags = || (*event.as_ptr().cast::<EventHead>()).flags & EVLIST_ANY;
            let at = event.as_ptr().cast_mut();
            let events = EV_READ | EV_PERSIST;
            sys::event_assign(at, base, fds[0], events, callback, std::ptr::null_mut());
            assert_eq!(flags(), 0);
            sys::event_add(at, std::ptr::null());
            assert_ne!(flags(), 0);
            sys::event_base_free(base);
            assert_eq!(flags(), 0);
            for fd in fds {
                libc::close(fd);
            }
        }
    }
}
