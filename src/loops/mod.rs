//! The program's event loop: watches the descriptor of a handle in it.
//!
//! One file per event library holds what that one is told; here is what they have in common: which
//! handle is attached, and how a watcher ends. Knows nothing of C handles or requests: a watcher
//! calls its [`Source`], and touches nothing of it afterwards.
//!
//! A loop is used by the thread that runs it and by no other, and nobody but the loop knows which
//! one that is. So a watcher is taken out of its loop by the loop: its descriptor stays readable
//! once it is detached, and it stops itself when it is called, or goes with its loop.

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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::error::{Error, Result};
use crate::exec::lock;
use crate::net::Tap;

/// Whose work the loop does.
pub trait Source: Send + Sync {
    /// There is work, or the loop cannot tell. May attach and detach.
    fn ready(&self);
}

/// The source's side of a watcher, which outlives it.
pub struct Link {
    key: usize,
    /// What is watched. Stays open for as long as the loop watches it.
    tap: Tap,
    source: Weak<dyn Source>,
    /// Detached: the watcher stops when the loop calls it next.
    retired: AtomicBool,
}

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

    /// # Safety
    /// The thread is one that [`Watcher::stop`] names, and whoever has the watcher is the only one.
    unsafe fn stop(self) {
        // SAFETY: as the caller promises.
        unsafe { (self.stop)(self.node) }
    }
}

enum Entry {
    /// Somebody is attaching.
    Reserved,
    Attached(Arc<Link>, Watcher, Arc<dyn Source>),
}

/// What is attached, by the number of its handle.
static TABLE: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());

/// What is detached, until its loop has let go. Whoever takes a watcher out of here stops it.
static RETIRED: Mutex<Vec<(Arc<Link>, Watcher)>> = Mutex::new(Vec::new());

/// Memory that the program had an event library let go of: that library may still use it, for a time
/// that nobody can tell.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept {
    _memory: *mut c_void,
}

// SAFETY: never used again.
unsafe impl Send for Kept {}

fn keep(memory: *mut c_void) {
    lock(&KEPT).push(Kept { _memory: memory });
}

/// The right to attach a handle, which one caller has at a time.
pub struct Place {
    key: usize,
}

impl Place {
    /// Fails where the handle is attached already.
    pub fn reserve(key: usize) -> Result<Place> {
        sweep();
        let mut table = lock(&TABLE);
        let over = match table.get(&key) {
            None => None,
            Some(Entry::Attached(_, watcher, _)) if watcher.is_over() => table.remove(&key),
            Some(_) => return Err(Error::Invalid("attached to an event loop already")),
        };
        table.insert(key, Entry::Reserved);
        drop(table);
        end(over);
        Ok(Place { key })
    }

    /// Watches `tap` for `source` as `start` does it. It is attached once all of this has succeeded.
    pub fn attach(
        self,
        source: Arc<dyn Source>,
        tap: Tap,
        start: impl FnOnce(Arc<Link>) -> Result<Watcher>,
    ) -> Result<()> {
        let (key, retired) = (self.key, AtomicBool::new(false));
        let link = Arc::new(Link { key, tap, source: Arc::downgrade(&source), retired });
        let watcher = start(link.clone())?;
        let mut table = lock(&TABLE);
        match table.get_mut(&self.key) {
            Some(entry @ Entry::Reserved) => *entry = Entry::Attached(link, watcher, source),
            _ => {
                drop(table);
                // SAFETY: the program attaches in the thread that runs the loop, or before any does.
                unsafe { watcher.stop() }
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
    sweep();
    let entry = lock(&TABLE).remove(&key);
    end(entry);
}

/// Ends the watcher of an entry, which is in the table no more.
fn end(entry: Option<Entry>) {
    let Some(Entry::Attached(link, watcher, _source)) = entry else { return };
    if watcher.is_over() {
        // SAFETY: no thread runs a loop that is no more.
        return unsafe { watcher.stop() };
    }
    let mut retired = lock(&RETIRED);
    retired.push((link.clone(), watcher));
    link.retired.store(true, Ordering::Release);
    drop(retired);
    link.tap.end();
}

/// Stops what is retired and will not be called any more, since its loop was destroyed.
fn sweep() {
    let over: Vec<_> = lock(&RETIRED).extract_if(.., |(_, watcher)| watcher.is_over()).collect();
    for (_link, watcher) in over {
        // SAFETY: no thread runs a loop that is no more.
        unsafe { watcher.stop() }
    }
}

/// The tables of what is attached, for the time of a fork.
pub struct Held {
    _table: MutexGuard<'static, BTreeMap<usize, Entry>>,
    _retired: MutexGuard<'static, Vec<(Arc<Link>, Watcher)>>,
    _kept: MutexGuard<'static, Vec<Kept>>,
}

pub fn hold() -> Held {
    Held { _table: lock(&TABLE), _retired: lock(&RETIRED), _kept: lock(&KEPT) }
}

impl Link {
    pub fn fd(&self) -> RawFd {
        self.tap.fd()
    }

    /// Called by the watcher in the loop. True where it has to stop itself now; otherwise it may
    /// be gone, and nothing of it must be touched any more.
    #[must_use]
    fn fire(self: &Arc<Link>) -> bool {
        let is_retired = || self.retired.load(Ordering::Acquire);
        if !is_retired()
            && let Some(source) = self.source.upgrade()
        {
            source.ready();
        }
        // A loop that was run inside the callback may have stopped it.
        is_retired() && self.take_retired().is_some()
    }

    /// Called where the loop is being destroyed: the watcher has to stop itself now.
    fn loop_ends(self: &Arc<Link>) {
        self.retired.store(true, Ordering::Release);
        let mut table = lock(&TABLE);
        let mine = matches!(table.get(&self.key), Some(Entry::Attached(link, ..))
            if Arc::ptr_eq(link, self));
        let entry = if mine { table.remove(&self.key) } else { None };
        drop(table);
        drop((entry, self.take_retired()));
    }

    fn take_retired(self: &Arc<Link>) -> Option<(Arc<Link>, Watcher)> {
        let mut retired = lock(&RETIRED);
        let at = retired.iter().position(|(link, _)| Arc::ptr_eq(link, self))?;
        Some(retired.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;
    use crate::net::{EventSet, WakeFd, wait_readable};

    /// A source that counts.
    #[derive(Default)]
    struct Count {
        ready: AtomicUsize,
    }

    impl Source for Count {
        fn ready(&self) {
            self.ready.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn ready(&self) -> usize {
            self.ready.load(Ordering::Relaxed)
        }
    }

    /// A watcher that counts its ends.
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

        /// What libev and libuv do where a watcher is called.
        fn call(&self, link: &Arc<Link>) {
            if link.fire() {
                self.stopped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A tap of a set that is never readable.
    fn tap() -> Tap {
        let wake = WakeFd::new().unwrap();
        Tap::new(&EventSet::new(&wake).unwrap()).unwrap()
    }

    fn is_readable(link: &Link) -> bool {
        // SAFETY: open as long as the link.
        let fd = unsafe { BorrowedFd::borrow_raw(link.fd()) };
        wait_readable([fd], Some(Duration::ZERO)).unwrap() == [true]
    }

    /// Attaches `fake` under `key`; the link that its watcher would hold.
    fn attach(key: usize, source: &Arc<Count>, fake: &Fake) -> Result<Arc<Link>> {
        let mut kept = None;
        Place::reserve(key)?.attach(source.clone(), tap(), |link| {
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
        fake.call(&link);
        assert_eq!((source.ready(), fake.stopped()), (1, 0));
        detach(1);
        detach(1);
        let again = attach(1, &source, &fake).expect("before the loop has let go");
        fake.call(&link);
        assert_eq!(
            (source.ready(), fake.stopped()),
            (1, 1),
            "it is not called any more, and stops"
        );
        fake.over.store(1, Ordering::Relaxed);
        attach(1, &source, &fake).expect("its loop is gone");
        assert_eq!(fake.stopped(), 2);
        detach(1);
        assert_eq!((fake.stopped(), Arc::strong_count(&again)), (3, 1));
    }

    #[test]
    fn a_failed_attach_leaves_nothing() {
        let (source, fake) = (Arc::default(), Fake::default());
        let place = Place::reserve(2).unwrap();
        assert!(Place::reserve(2).is_err());
        let source_of_place: Arc<Count> = Arc::clone(&source);
        let refused = place.attach(source_of_place, tap(), |_| Err(Error::NoMem("a test")));
        assert!(refused.is_err());
        assert_eq!(Arc::strong_count(&source), 1);
        attach(2, &source, &fake).unwrap();
        detach(2);
    }

    #[test]
    fn a_handle_that_is_closed_while_it_is_attached_is_not() {
        let (source, fake) = (Arc::new(Count::default()), Fake::default());
        let attached = Place::reserve(3).unwrap().attach(source.clone(), tap(), |_| {
            detach(3);
            Ok(fake.watcher())
        });
        assert!(attached.is_err());
        assert_eq!(fake.stopped(), 1);
    }

    #[test]
    fn only_the_loop_stops_the_watcher_and_is_told_of_it_until_it_has() {
        let (source, fake) = (Arc::new(Count::default()), Fake::default());
        let link = attach(4, &source, &fake).unwrap();
        assert!(!is_readable(&link));
        detach(4);
        assert_eq!((fake.stopped(), Arc::strong_count(&source)), (0, 1), "the source may go");
        assert!(is_readable(&link));
        fake.call(&link);
        fake.call(&link);
        assert_eq!((source.ready(), fake.stopped()), (0, 1), "once");
        assert_eq!(Arc::strong_count(&link), 1);
    }

    #[test]
    fn what_is_detached_goes_with_its_loop() {
        let (source, fake, other) = (Arc::default(), Fake::default(), Fake::default());
        let link = attach(5, &source, &fake).unwrap();
        detach(5);
        detach(5);
        assert_eq!(fake.stopped(), 0);
        fake.over.store(1, Ordering::Relaxed);
        attach(7, &source, &other).unwrap();
        assert_eq!((fake.stopped(), Arc::strong_count(&link)), (1, 1));
        detach(7);
    }

    #[test]
    fn a_loop_that_ends_detaches() {
        let (source, fake) = (Arc::default(), Fake::default());
        let link = attach(6, &source, &fake).unwrap();
        link.loop_ends();
        let again = attach(6, &source, &fake).unwrap();
        link.loop_ends();
        assert!(Place::reserve(6).is_err(), "the later one stays");
        detach(6);
        again.loop_ends();
        fake.call(&again);
        assert_eq!(fake.stopped(), 0, "whoever says that it ends stops it");
    }
}
