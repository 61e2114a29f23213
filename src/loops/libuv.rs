//! libuv: a poll handle.
//!
//! The memory of a handle is libuv's until its close callback, which comes from a later turn of
//! the loop. A program that closes all handles of its loop, as uv_walk() makes easy, closes ours
//! with a callback of its own: then nobody tells us when, and the memory is kept.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::library::library;
use super::{Link, Watcher, keep};
use crate::error::{Error, Result};

library!(
    "libuv",
    "sheepdog_libuv",
    5,
    ["uv_poll_init", "uv_poll_start", "uv_close", "uv_is_closing", "uv_handle_size"],
    &[c"libuv.so.1"]
);

/// uv_handle_type.
const UV_POLL: c_uint = 8;
/// uv_poll_event.
const UV_READABLE: c_int = 1;
/// libuv's errors are negative errno values.
const UV_ENOMEM: c_int = -libc::ENOMEM;

type PollCallback = unsafe extern "C" fn(handle: *mut Handle, status: c_int, events: c_int);
type CloseCallback = unsafe extern "C" fn(handle: *mut Handle);

type PollInit =
    unsafe extern "C" fn(event_loop: *mut c_void, handle: *mut Handle, fd: c_int) -> c_int;
type PollStart =
    unsafe extern "C" fn(handle: *mut Handle, events: c_int, callback: PollCallback) -> c_int;
type Close = unsafe extern "C" fn(handle: *mut Handle, callback: CloseCallback);
type IsClosing = unsafe extern "C" fn(handle: *const Handle) -> c_int;
type HandleSize = unsafe extern "C" fn(kind: c_uint) -> usize;

/// How every handle begins: with the word that is the user's.
#[repr(C)]
struct Handle {
    data: *mut c_void,
}

struct Node {
    handle: *mut Handle,
    close: Close,
    is_closing: IsClosing,
    link: Arc<Link>,
}

/// Watches the link's descriptor in `event_loop`.
///
/// # Safety
/// `event_loop` is a `uv_loop_t *` that no other thread is using.
pub unsafe fn start(event_loop: *mut c_void, link: Arc<Link>) -> Result<Watcher> {
    let [poll_init, poll_start, close, is_closing, handle_size] = LIBRARY.find()?;
    // SAFETY: libuv's functions, with their types.
    let (poll_init, poll_start, close, is_closing, handle_size) = unsafe {
        (
            std::mem::transmute::<*mut c_void, PollInit>(poll_init),
            std::mem::transmute::<*mut c_void, PollStart>(poll_start),
            std::mem::transmute::<*mut c_void, Close>(close),
            std::mem::transmute::<*mut c_void, IsClosing>(is_closing),
            std::mem::transmute::<*mut c_void, HandleSize>(handle_size),
        )
    };
    // SAFETY: any number will do; memory of the size that a poll handle has.
    let handle: *mut Handle = unsafe { libc::calloc(1, handle_size(UV_POLL)) }.cast();
    if handle.is_null() {
        return Err(Error::NoMem("a uv_poll_t"));
    }
    // SAFETY: the caller's loop; a handle's memory.
    let status = unsafe { poll_init(event_loop, handle, link.fd()) };
    if status != 0 {
        // SAFETY: from calloc; the loop does not know it.
        unsafe { libc::free(handle.cast()) };
        return Err(refused("uv_poll_init", status));
    }
    let node = Box::into_raw(Box::new(Node { handle, close, is_closing, link }));
    // SAFETY: an initialised handle, whose user data is ours.
    unsafe {
        (*handle).data = node.cast();
        let status = poll_start(handle, UV_READABLE, on_ready);
        if status != 0 {
            stop(node.cast());
            return Err(refused("uv_poll_start", status));
        }
    }
    Ok(Watcher { node: node.cast(), stop, is_over })
}

fn refused(function: &'static str, status: c_int) -> Error {
    log::error!("libuv: {function} failed: {}", std::io::Error::from_raw_os_error(-status));
    if status == UV_ENOMEM { Error::NoMem(function) } else { Error::Internal(function) }
}

/// As [`Watcher::stop`].
unsafe fn stop(node: *mut c_void) {
    // SAFETY: a node of `start`, which is stopped only once, in the thread that runs the loop.
    unsafe {
        let over = is_over(node);
        let node = Box::from_raw(node.cast::<Node>());
        if over {
            keep(node.handle.cast());
        } else {
            (node.close)(node.handle, on_close);
        }
    }
}

/// As [`Watcher::is_over`].
unsafe fn is_over(node: *mut c_void) -> bool {
    // SAFETY: a node of `start` that has not been stopped.
    unsafe { ((*node.cast::<Node>()).is_closing)((*node.cast::<Node>()).handle) != 0 }
}

unsafe extern "C" fn on_ready(handle: *mut Handle, _status: c_int, _events: c_int) {
    // Readable, or an error: then the work itself finds out what is wrong.
    // SAFETY: the loop calls handles that nobody has closed.
    let (node, link) = unsafe {
        let node: *mut Node = (*handle).data.cast();
        (node, (*node).link.clone())
    };
    if link.fire() {
        // SAFETY: retired, and not stopped yet; this thread runs the loop.
        unsafe { stop(node.cast()) }
    }
}

unsafe extern "C" fn on_close(handle: *mut Handle) {
    // SAFETY: from calloc; libuv has done with it.
    unsafe { libc::free(handle.cast()) };
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use libuv_sys2 as sys;

    use super::super::shape::{Function, of, of_callback};
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_header() {
        let poll_init: unsafe extern "C" fn(_, _, _) -> _ = sys::uv_poll_init;
        let poll_start: unsafe extern "C" fn(_, _, _) -> _ = sys::uv_poll_start;
        let close: unsafe extern "C" fn(_, _) = sys::uv_close;
        let is_closing: unsafe extern "C" fn(_) -> _ = sys::uv_is_closing;
        let handle_size: unsafe extern "C" fn(_) -> _ = sys::uv_handle_size;
        assert_eq!(of(poll_init), PollInit::shape());
        assert_eq!(of(poll_start), PollStart::shape());
        assert_eq!(of(close), Close::shape());
        assert_eq!(of(is_closing), IsClosing::shape());
        assert_eq!(of(handle_size), HandleSize::shape());
        let (poll, close): (sys::uv_poll_cb, sys::uv_close_cb) = (None, None);
        assert_eq!(of_callback(poll), PollCallback::shape());
        assert_eq!(of_callback(close), CloseCallback::shape());
    }

    #[test]
    fn the_constants_and_the_handle_are_those_of_the_header() {
        assert_eq!(UV_POLL, sys::uv_handle_type_UV_POLL);
        assert_eq!(UV_READABLE as u32, sys::uv_poll_event_UV_READABLE);
        assert_eq!(UV_ENOMEM, sys::uv_errno_t_UV_ENOMEM);
        let handle = MaybeUninit::<sys::uv_poll_t>::zeroed();
        let base = handle.as_ptr();
        // SAFETY: addresses only.
        let data = unsafe { &raw const (*base).data };
        assert_eq!(data as usize, base as usize);
        // SAFETY: any number will do.
        let size = unsafe { sys::uv_handle_size(UV_POLL as _) };
        assert_eq!(size as usize, size_of::<sys::uv_poll_t>());
        assert!(LIBRARY.find().is_ok(), "it is in this process");
    }
}
