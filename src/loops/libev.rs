//! libev: an io watcher, and a cleanup watcher that tells when the loop is destroyed.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::library::library;
use super::{Link, Watcher};
use crate::error::{Error, Refusal, Result};

library!(
    "libev",
    "sheepdog_libev",
    5,
    ["ev_io_start", "ev_io_stop", "ev_cleanup_start", "ev_cleanup_stop", "ev_version_major"],
    &[c"libev.so.4"]
);

const EV_READ: c_int = 0x01;
/// What the macro ev_io_set adds: the descriptor is new.
const EV_IOFDSET: c_int = 0x80;
/// The version whose structures these are.
const VERSION: c_int = 4;

type EvIoFn = unsafe extern "C" fn(event_loop: *mut c_void, watcher: *mut EvIo);
type EvCleanupFn = unsafe extern "C" fn(event_loop: *mut c_void, watcher: *mut EvCleanup);

/// ev_io, as it is where EV_MULTIPLICITY and priorities are compiled in and EV_COMMON is not
/// changed: in every libev that a distribution has.
#[repr(C)]
struct EvIo {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    cb: unsafe extern "C" fn(event_loop: *mut c_void, watcher: *mut EvIo, revents: c_int),
    next: *mut c_void,
    fd: c_int,
    events: c_int,
}

/// ev_cleanup, likewise.
#[repr(C)]
struct EvCleanup {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    cb: unsafe extern "C" fn(event_loop: *mut c_void, watcher: *mut EvCleanup, revents: c_int),
}

struct Node {
    io: EvIo,
    cleanup: EvCleanup,
    event_loop: *mut c_void,
    io_stop: EvIoFn,
    cleanup_stop: EvCleanupFn,
    link: Arc<Link>,
}

/// Watches the link's descriptor in `event_loop`.
///
/// # Safety
/// `event_loop` is a `struct ev_loop *` that no other thread is using.
pub unsafe fn start(event_loop: *mut c_void, link: Arc<Link>) -> Result<Watcher> {
    let [io_start, io_stop, cleanup_start, cleanup_stop, version] = LIBRARY.find()?;
    // SAFETY: libev's functions, with their types.
    let (io_start, io_stop, cleanup_start, cleanup_stop, version) = unsafe {
        (
            std::mem::transmute::<*mut c_void, EvIoFn>(io_start),
            std::mem::transmute::<*mut c_void, EvIoFn>(io_stop),
            std::mem::transmute::<*mut c_void, EvCleanupFn>(cleanup_start),
            std::mem::transmute::<*mut c_void, EvCleanupFn>(cleanup_stop),
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(version),
        )
    };
    // SAFETY: takes nothing.
    let version = unsafe { version() };
    if version != VERSION {
        log::error!("libev: version {version} is not supported, only {VERSION} is");
        return Err(Error::Refused(Refusal::NoEventLibrary));
    }
    let (active, pending, priority) = (0, 0, 0);
    let data = std::ptr::null_mut();
    let (next, fd, events) = (std::ptr::null_mut(), link.fd(), EV_READ | EV_IOFDSET);
    let node = Box::into_raw(Box::new(Node {
        io: EvIo { active, pending, priority, data, cb: on_ready, next, fd, events },
        cleanup: EvCleanup { active, pending, priority, data, cb: on_cleanup },
        event_loop,
        io_stop,
        cleanup_stop,
        link,
    }));
    // SAFETY: the caller's loop; watchers that are initialised, and stay until they are stopped.
    unsafe {
        (*node).io.data = node.cast();
        (*node).cleanup.data = node.cast();
        io_start(event_loop, &raw mut (*node).io);
        cleanup_start(event_loop, &raw mut (*node).cleanup);
    }
    Ok(Watcher { node: node.cast(), stop, is_over })
}

/// As [`Watcher::stop`].
unsafe fn stop(node: *mut c_void) {
    let node: *mut Node = node.cast();
    // SAFETY: a node of `start`, which is stopped only once, in the thread that runs the loop.
    unsafe {
        ((*node).cleanup_stop)((*node).event_loop, &raw mut (*node).cleanup);
        ((*node).io_stop)((*node).event_loop, &raw mut (*node).io);
        drop(Box::from_raw(node));
    }
}

/// As [`Watcher::is_over`].
unsafe fn is_over(_node: *mut c_void) -> bool {
    // The cleanup watcher detaches where the loop ends.
    false
}

unsafe extern "C" fn on_ready(_loop: *mut c_void, watcher: *mut EvIo, _revents: c_int) {
    // Readable, or EV_ERROR: then the work itself finds out what is wrong.
    // SAFETY: the loop calls watchers that have not been stopped.
    let (node, link) = unsafe {
        let node: *mut Node = (*watcher).data.cast();
        (node, (*node).link.clone())
    };
    if link.fire() {
        // SAFETY: retired, and not stopped yet; this thread runs the loop.
        unsafe { stop(node.cast()) }
    }
}

unsafe extern "C" fn on_cleanup(_loop: *mut c_void, watcher: *mut EvCleanup, _revents: c_int) {
    // SAFETY: the loop calls watchers that have not been stopped.
    unsafe {
        let node: *mut Node = (*watcher).data.cast();
        let link = (*node).link.clone();
        link.loop_ends();
        stop(node.cast());
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// The same numbers stand in c-tests/libev-layout.c, which compares them with ev.h.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_structures_are_those_of_ev_h() {
        assert_eq!(size_of::<EvIo>(), 48);
        assert_eq!(size_of::<EvCleanup>(), 32);
        let common = [offset_of!(EvIo, active), offset_of!(EvIo, pending)];
        assert_eq!(common, [0, 4]);
        assert_eq!([offset_of!(EvIo, priority), offset_of!(EvIo, data)], [8, 16]);
        assert_eq!([offset_of!(EvIo, cb), offset_of!(EvIo, next)], [24, 32]);
        assert_eq!([offset_of!(EvIo, fd), offset_of!(EvIo, events)], [40, 44]);
        assert_eq!([offset_of!(EvCleanup, active), offset_of!(EvCleanup, pending)], [0, 4]);
        assert_eq!([offset_of!(EvCleanup, priority), offset_of!(EvCleanup, data)], [8, 16]);
        assert_eq!(offset_of!(EvCleanup, cb), 24);
    }
}
