//! Whose descriptors are open, for the child of a fork: it has copies of all of them, and closes
//! those of a handle without a look at anything that another thread of its parent may have left
//! half changed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::{EventSet, Socket, WakeFd};

static KEPT: Mutex<BTreeMap<RawFd, Kept>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy)]
struct Kept {
    owner: u64,
    /// The program's event loop watches it.
    watched: bool,
}

fn kept() -> MutexGuard<'static, BTreeMap<RawFd, Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors of one cluster, or of one event loop's tap.
pub struct Descriptors(u64);

impl Descriptors {
    pub fn new() -> Descriptors {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Descriptors(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub fn keep_socket(&self, socket: &Socket) {
        self.keep(socket.as_fd(), false);
    }

    pub fn keep_wake(&self, wake: &WakeFd) {
        self.keep(wake.as_fd(), false);
    }

    pub fn keep_set(&self, set: &EventSet) {
        self.keep(set.as_fd(), true);
        self.keep(set.timer(), false);
    }

    pub(super) fn keep_tap(&self, tap: BorrowedFd<'_>, signal: BorrowedFd<'_>) {
        self.keep(tap, true);
        self.keep(signal, false);
    }

    fn keep(&self, fd: BorrowedFd<'_>, watched: bool) {
        kept().insert(fd.as_raw_fd(), Kept { owner: self.0, watched });
    }

    /// In the child of a fork: closes its copies of these descriptors. What owns them must never be
    /// dropped.
    pub fn close_copies(&self) {
        kept().retain(|fd, kept| {
            let doomed = kept.owner == self.0;
            if doomed {
                // SAFETY: open, as it is in the table, and used by nobody: its owner is lost.
                unsafe { libc::close(*fd) };
            }
            !doomed
        });
    }
}

/// A descriptor is about to be closed by its owner.
pub(super) fn forget(fd: BorrowedFd<'_>) {
    kept().remove(&fd.as_raw_fd());
}

/// Nothing is opened or closed while this lives: for the time of a fork.
pub struct Held(MutexGuard<'static, BTreeMap<RawFd, Kept>>);

pub fn hold() -> Held {
    Held(kept())
}

impl Held {
    /// In the child of a fork: puts descriptors that never become readable in the place of those
    /// that event loops watch. An event loop that goes on in the child is not called for what its
    /// parent's are, and what it does to them does nothing to its parent's.
    pub fn part(&self) {
        for (fd, _) in self.0.iter().filter(|(_, kept)| kept.watched) {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let Ok(silent) = eventfd(0, flags) else { return };
            // SAFETY: the number stays with its owner, which never looks at what it stands for.
            unsafe { libc::dup3(silent.as_raw_fd(), *fd, libc::O_CLOEXEC) };
        }
    }
}
