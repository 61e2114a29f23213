//! sd_wake(), which may be called in a signal handler: whatever its thread is at, a lock it holds
//! included. So it finds the descriptor to write to without any, in a table beside that of the
//! handles.

use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::cluster::sd_t;
use super::entry::{INDEX_BITS, index_of};
use super::fork;
use crate::error::{Error, Result};

/// The table is made in parts, which stay.
const PART: usize = 1 << 10;
static PARTS: [AtomicPtr<[Bell; PART]>; (1 << INDEX_BITS) / PART] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; _];

/// The bell of the handle that has its index now.
struct Bell {
    /// 0 where there is none.
    handle: AtomicUsize,
    fd: AtomicUsize,
    process: AtomicU32,
    /// Those who may be about to use `fd`.
    users: AtomicUsize,
}

impl Bell {
    const fn new() -> Bell {
        Bell {
            handle: AtomicUsize::new(0),
            fd: AtomicUsize::new(0),
            process: AtomicU32::new(0),
            users: AtomicUsize::new(0),
        }
    }
}

fn bell(handle: usize) -> Option<&'static Bell> {
    let index = index_of(handle);
    let part = PARTS.get(index / PART)?.load(Ordering::Acquire);
    // SAFETY: NULL or a part, which is never freed.
    unsafe { part.as_ref() }.map(|part| &part[index % PART])
}

/// From now on sd_wake() of that handle rings `fd`, an eventfd.
pub fn hang(handle: usize, fd: RawFd) -> Result<()> {
    let part = &PARTS[index_of(handle) / PART];
    if part.load(Ordering::Acquire).is_null() {
        let new = Box::into_raw(Box::new([const { Bell::new() }; PART]));
        let (release, acquire) = (Ordering::AcqRel, Ordering::Acquire);
        if part.compare_exchange(std::ptr::null_mut(), new, release, acquire).is_err() {
            // SAFETY: of the box above, which nobody has seen.
            drop(unsafe { Box::from_raw(new) });
        }
    }
    let bell = bell(handle).ok_or(Error::NoMem("too many open handles"))?;
    if bell.process.load(Ordering::SeqCst) != fork::process() {
        // Those who are counted are threads of the parent's.
        bell.users.store(0, Ordering::SeqCst);
    }
    bell.fd.store(fd as usize, Ordering::SeqCst);
    bell.process.store(fork::process(), Ordering::SeqCst);
    bell.handle.store(handle, Ordering::SeqCst);
    Ok(())
}

/// Nobody uses the descriptor of that handle any more when this returns.
pub fn take_down(handle: usize) {
    let Some(bell) = bell(handle) else { return };
    bell.handle.store(0, Ordering::SeqCst);
    // Whoever comes after this finds no handle. In the child of a fork nobody is there of those who
    // are counted: the count starts anew.
    if bell.process.load(Ordering::SeqCst) != fork::process() {
        return bell.users.store(0, Ordering::SeqCst);
    }
    while bell.users.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}

/// Has one sd_wait() on `sd` return 0: one that another thread is in, or the next one; each call,
/// one. For a thread that waits there for the program's own events as well. May be called from any
/// thread, and in a signal handler: it takes no lock and no memory, leaves errno as it is, and
/// sd_last_error() too. Does nothing to event loops, which have wake-ups of their own.
///
/// Errors: SD_RES_INVALID_PARMS (`sd` is not valid).
#[unsafe(no_mangle)]
pub extern "C" fn sd_wake(sd: sd_t) -> c_int {
    let handle = sd as usize;
    let Some(bell) = bell(handle) else { return NO_HANDLE };
    let is_it = || {
        handle != 0
            && bell.handle.load(Ordering::SeqCst) == handle
            && bell.process.load(Ordering::SeqCst) == fork::process()
    };
    // Nobody is counted who has no handle of this process.
    if !is_it() {
        return NO_HANDLE;
    }
    bell.users.fetch_add(1, Ordering::SeqCst);
    let is_it = is_it();
    if is_it {
        ring(bell.fd.load(Ordering::SeqCst) as RawFd);
    }
    bell.users.fetch_sub(1, Ordering::SeqCst);
    if is_it { 0 } else { NO_HANDLE }
}

const NO_HANDLE: c_int = sheepdog_proto::SdResult::INVALID_PARMS.0 as c_int;

fn ring(fd: RawFd) {
    // SAFETY: an eventfd that stays open while it is used.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // Not by way of the C library, and so of errno. Where the count is at its end, there are enough.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}
