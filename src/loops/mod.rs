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
mod library;
pub mod libuv;
#[cfg(test)]
mod shape;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

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
            Some(entry @ Entry::Reserved) => *entry = Entry::Attached(link.clone(), watcher),
            _ => {
                drop(table);
                link.end(watcher);
                return Err(Error::Invalid("closed or detached meanwhile"));
            }
        }
        drop(table);
        // So that the thread that runs the loop, which may be another one, is known from its first
        // turn on.
        link.source.nudge();
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

/// In the child of a fork: takes a watcher of the parent's out of this thread's copy of the loop.
/// Whether no loop has it any more. That of another thread may be half changed: it is left alone.
pub fn detach_copy(key: usize) -> bool {
    let entry = lock(&TABLE).remove(&key);
    let Some(Entry::Attached(link, watcher)) = entry else { return true };
    let runs_here = link.runner.try_lock().is_ok_and(|runner| {
        HERE.try_with(|here| std::ptr::eq(runner.as_ptr(), Arc::as_ptr(here))).unwrap_or(false)
    });
    if !runs_here {
        return false;
    }
    link.state.store(STOPPED, Ordering::Release);
    // SAFETY: this is the thread that runs the loop, and whoever took the watcher out of the table
    // is the only one who stops it. What is watched is no descriptor of the parent's any more
    // (net::Held::part), so that the parent's loop keeps what it watches.
    unsafe { (watcher.stop)(watcher.node) }
    true
}

/// The table of what is attached, for the time of a fork.
pub struct Held {
    _table: MutexGuard<'static, BTreeMap<usize, Entry>>,
    _kept: MutexGuard<'static, Vec<libuv::Kept>>,
}

pub fn hold() -> Held {
    Held { _table: lock(&TABLE), _kept: lock(&libuv::KEPT) }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A source that counts, and a watcher of it that counts its ends.
    #[derive(Default)]
    struct Count {
        ready: AtomicUsize,
        nudged: AtomicUsize,
    }

    impl Source for Count {
        fn fd(&self) -> RawFd {
            -1
        }
        fn ready(&self) {
            self.ready.fetch_add(1, Ordering::Relaxed);
        }
        fn nudge(&self) {
            self.nudged.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Fake {
        stopped: AtomicUsize,
        over: AtomicUsize,
    }

    impl Fake {
        fn watcher(&self) -> Watcher {
            unsafe fn stop(node: *mut c_void) {
                // SAFETY: a Fake, which lives as long as its test.
                unsafe { &*node.cast::<Fake>() }.stopped.fetch_add(1, Ordering::Relaxed);
            }
            unsafe fn is_over(node: *mut c_void) -> bool {
                // SAFETY: likewise.
                unsafe { &*node.cast::<Fake>() }.over.load(Ordering::Relaxed) > 0
            }
            Watcher { node: (&raw const *self).cast_mut().cast(), stop, is_over }
        }

        fn stopped(&self) -> usize {
            self.stopped.load(Ordering::Relaxed)
        }
    }

    /// Attaches `fake` under `key`; the link that its watcher would hold.
    fn attach(key: usize, source: &Arc<Count>, fake: &Fake) -> Result<Arc<Link>> {
        let mut kept = None;
        Place::reserve(key)?.attach(source.clone(), |link| {
            kept = Some(link);
            Ok(fake.watcher())
        })?;
        Ok(kept.unwrap())
    }

    #[test]
    fn a_handle_is_attached_once_at_a_time() {
        let (source, fake) = (Arc::default(), Fake::default());
        let link = attach(1, &source, &fake).unwrap();
        assert!(attach(1, &source, &fake).is_err());
        assert!(!link.fire());
        assert_eq!(source.ready.load(Ordering::Relaxed), 1);
        detach(1);
        detach(1);
        assert_eq!(fake.stopped(), 1);
        assert!(!link.fire(), "it is gone already");
        assert_eq!(source.ready.load(Ordering::Relaxed), 1, "nobody is called any more");
        attach(1, &source, &fake).unwrap();
        fake.over.store(1, Ordering::Relaxed);
        attach(1, &source, &fake).expect("its loop is gone");
        assert_eq!(fake.stopped(), 2);
        detach(1);
    }

    #[test]
    fn a_failed_attach_leaves_nothing() {
        let (source, fake) = (Arc::default(), Fake::default());
        let place = Place::reserve(2).unwrap();
        assert!(Place::reserve(2).is_err());
        let source_of_place: Arc<Count> = Arc::clone(&source);
        assert!(place.attach(source_of_place, |_| Err(Error::NoMem("a test"))).is_err());
        assert_eq!(Arc::strong_count(&source), 1);
        attach(2, &source, &fake).unwrap();
        detach(2);
    }

    #[test]
    fn a_handle_that_is_closed_while_it_is_attached_is_not() {
        let (source, fake) = (Arc::new(Count::default()), Fake::default());
        let attached = Place::reserve(3).unwrap().attach(source.clone(), |_| {
            detach(3);
            Ok(fake.watcher())
        });
        assert!(attached.is_err());
        assert_eq!(fake.stopped(), 1);
    }

    #[test]
    fn only_the_thread_that_runs_the_loop_stops_the_watcher() {
        let (source, fake) = (Arc::new(Count::default()), Fake::default());
        let link = attach(4, &source, &fake).unwrap();
        std::thread::scope(|scope| scope.spawn(|| detach(4)).join().unwrap());
        assert_eq!((fake.stopped(), source.nudged.load(Ordering::Relaxed)), (0, 2));
        assert!(link.fire(), "told to stop, once");
        assert!(!link.fire());
        assert_eq!(source.ready.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn where_the_thread_that_ran_the_loop_is_no_more_any_other_stops_the_watcher() {
        let (source, fake) = (Arc::new(Count::default()), Fake::default());
        let link = attach(5, &source, &fake).unwrap();
        std::thread::spawn(move || assert!(!link.fire())).join().unwrap();
        detach(5);
        assert_eq!((fake.stopped(), source.nudged.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn a_loop_that_ends_detaches() {
        let (source, fake) = (Arc::default(), Fake::default());
        let link = attach(6, &source, &fake).unwrap();
        link.loop_ends();
        let again = attach(6, &source, &fake).unwrap();
        link.loop_ends();
        assert!(Place::reserve(6).is_err(), "the later one stays");
        again.loop_ends();
        detach(6);
        assert_eq!(fake.stopped(), 0, "whoever says that it ends stops it");
    }
}
