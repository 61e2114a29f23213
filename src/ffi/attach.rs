//! Attaching to the program's event loop: include/sheepdog_libev.h, _libevent.h and _libuv.h, which
//! are written by hand, since they include the event library's header.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::cluster::sd_t;
use super::entry::{self, enter};
use super::fork;
use crate::error::{Error, Result};
use crate::loops::{self, Link, Place, Source, Watcher};
use crate::vdi::Client;

/// A client that a loop watches.
struct Events {
    client: Arc<Client>,
    /// A loop that goes on in a child of it calls nothing.
    process: u32,
}

impl Source for Events {
    fn ready(&self) {
        if self.process != fork::process() {
            return;
        }
        enter(|| {
            self.client.cluster.dispatch();
            Ok(())
        });
    }
}

fn attach(
    sd: sd_t,
    event_loop: *mut c_void,
    start: impl FnOnce(Arc<Link>) -> Result<Watcher>,
) -> Result<()> {
    if event_loop.is_null() {
        return Err(Error::Invalid("a pointer is NULL"));
    }
    entry::client(sd)?;
    let place = Place::reserve(sd as usize)?;
    // Looked up with the place reserved: a close from here on finds it, and has it given up.
    let client = entry::client(sd)?;
    let tap = client.cluster.tap()?;
    place.attach(Arc::new(Events { client, process: fork::process() }), tap, start)
}

/// Documented in include/sheepdog_libev.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_libev_attach(event_loop: *mut c_void, sd: sd_t) -> c_int {
    // SAFETY: the caller passes its loop, as the header says.
    enter(|| attach(sd, event_loop, |link| unsafe { loops::libev::start(event_loop, link) }))
}

/// Documented in include/sheepdog_libevent.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_libevent_attach(sd: sd_t, base: *mut c_void) -> c_int {
    // SAFETY: the caller passes its base, as the header says.
    enter(|| attach(sd, base, |link| unsafe { loops::libevent::start(base, link) }))
}

/// Documented in include/sheepdog_libuv.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_libuv_attach(sd: sd_t, event_loop: *mut c_void) -> c_int {
    // SAFETY: the caller passes its loop, as the header says.
    enter(|| attach(sd, event_loop, |link| unsafe { loops::libuv::start(event_loop, link) }))
}
