//! The program's event loop: watches the descriptor of a handle in it.
//!
//! One file per event library holds what that one is told; here is what they have in common: which
//! handle is attached, and how a watcher ends. Knows nothing of C handles or requests: a watcher
//! calls its [`Source`], and touches nothing of it afterwards.
//!
//! A loop is used by the thread that runs it and by no other. So a watcher is taken out of its loop
//! by that thread: at once, where it is the one that detaches (or is no more), else the next time
//! that the watcher is called, which the source is asked to bring about.

#![allow(unsafe_code)] // the functions of the event libraries

pub mod libev;
pub mod libevent;
pub mod libuv;
mod library;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::error::{Error, Result};
use crate::exec::lock;

/// What is watched.
pub trait Source: Send + Sync {
    /// Stays open as long as the source lives, which is as long as the loop watches it.
    fn fd(&self) -> RawFd;
    /// The descriptor is readable, or the loop cannot tell. May attach and detach.
    fn ready(&self);
    /// Makes the descriptor readable.
    fn nudge(&self);
}

/// The source's side of a watcher, which outlives it.
pub struct Link {
    key: usize,
    source: Arc<dyn Source>,
    state: AtomicU8,
    /// The thread that runs the loop, as far as we have seen.
    runner: Mutex<Weak<()>>,
}

/// The loop calls the watcher.
const ATTACHED: u8 = 0;
/// Detached: the thread that runs the loop has to stop the watcher.
const RETIRED: u8 = 1;
/// The watcher is gone, or about to be.
const STOPPED: u8 = 2;

/// A watcher in a loop, as its library's file made it.
pub struct Watcher {
    node: *mut c_void,
    /// Takes the watcher out of its loop, unless that has happened, and frees it. The thread is
    /// the one that runs the loop, or there is none.
    stop: unsafe fn(node: *mut c_void),
    /// Whether the loop has let go of the watcher, because the program has destroyed it.
    is_over: unsafe fn(node: *mut c_void) -> bool,
}

// SAFETY: a pointer; the threads that use it are those that `Watcher::stop` names.
unsafe impl Send for Watcher {}

impl Watcher {
    fn is_over(&self) -> bool {
        // SAFETY: the watcher has not been stopped.
        unsafe { (self.is_over)(self.node) }
    }
}

enum Entry {
    /// Somebody is attaching.
    Reserved,
    Attached(Arc<Link>, Watcher),
}

/// What is attached, by the number of its handle.
static TABLE: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Names the thread, and tells others when it ends.
    static HERE: Arc<()> = Arc::new(());
}

/// The right to attach a handle, which one caller has at a time.
pub struct Place {
    key: usize,
}

impl Place {
    /// Fails where the handle is attached already.
    pub fn reserve(key: usize) -> Result<Place> {
        let mut table = lock(&TABLE);
        let over = match table.get(&key) {
            None => None,
            Some(Entry::Attached(_, watcher)) if watcher.is_over() => table.remove(&key),
            Some(_) => return Err(Error::Invalid("attached to an event loop already")),
        };
        table.insert(key, Entry::Reserved);
        drop(table);
        if let Some(Entry::Attached(link, watcher)) = over {
            link.end(watcher);
        }
        Ok(Place { key })
    }

    /// Watches `source` as `start` does it. It is attached once all of this has succeeded.
    pub fn attach(
        self,
        source: Arc<dyn Source>,
        start: impl FnOnce(Arc<Link>) -> Result<Watcher>,
    ) -> Result<()> {
        let runner = Mutex::new(HERE.try_with(Arc::downgrade).unwrap_or_default());
        let state = AtomicU8::new(ATTACHED);
        let link = Arc::new(Link { key: self.key, source, state, runner });
        let watcher = start(link.clone())?;
        let mut table = lock(&TABLE);
        match table.get_mut(&self.key) {
            Some(entry @ Entry::Reserved) => *entry = Entry::Attached(link, watcher),
            _ => {
                drop(table);
                link.end(watcher);
                return Err(Error::Invalid("closed or detached meanwhile"));
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&TABLE);
        if let Some(Entry::Reserved) = table.get(&self.key) {
            table.remove(&self.key);
        }
    }
}

/// Detaches a handle, if it is attached: its source is not called from the loop again, except by a
/// thread that is about to call it.
pub fn detach(key: usize) {
    let entry = lock(&TABLE).remove(&key);
    if let Some(Entry::Attached(link, watcher)) = entry {
        link.end(watcher);
    }
}

impl Link {
    pub fn fd(&self) -> RawFd {
        self.source.fd()
    }

    /// Called by the watcher in the loop. True where it has to stop itself now; otherwise it may
    /// be gone, and nothing of it must be touched any more.
    #[must_use]
    fn fire(&self) -> bool {
        let _ = HERE.try_with(|here| {
            let mut runner = lock(&self.runner);
            if !std::ptr::eq(runner.as_ptr(), Arc::as_ptr(here)) {
                *runner = Arc::downgrade(here);
            }
        });
        if self.state.load(Ordering::Acquire) == ATTACHED {
            self.source.ready();
        }
        let (acquire, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        self.state.compare_exchange(RETIRED, STOPPED, acquire, relaxed).is_ok()
    }

    /// Called where the loop is being destroyed: the watcher has to stop itself now.
    fn loop_ends(self: &Arc<Link>) {
        self.state.store(STOPPED, Ordering::Release);
        let mut table = lock(&TABLE);
        let mine = matches!(table.get(&self.key), Some(Entry::Attached(link, _))
            if Arc::ptr_eq(link, self));
        let entry = if mine { table.remove(&self.key) } else { None };
        drop(table);
        drop(entry);
    }

    /// Ends the watcher, which is in the table no more.
    fn end(&self, watcher: Watcher) {
        if self.runs_here() || watcher.is_over() {
            self.state.store(STOPPED, Ordering::Release);
            // SAFETY: no other thread runs the loop, and whoever took the watcher out of the table
            // is the only one who stops it.
            unsafe { (watcher.stop)(watcher.node) }
        } else {
            self.state.store(RETIRED, Ordering::Release);
            self.source.nudge();
        }
    }

    /// Whether this thread runs the loop, or the one that did is no more.
    fn runs_here(&self) -> bool {
        let runner = lock(&self.runner);
        let here = HERE.try_with(|here| std::ptr::eq(runner.as_ptr(), Arc::as_ptr(here)));
        here.unwrap_or(false) || runner.strong_count() == 0
    }
}
