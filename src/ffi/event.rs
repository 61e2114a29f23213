//! Event loops: the descriptor that every loop can watch. Those that watch it by themselves have
//! headers of their own: `attach`.

use std::ffi::c_int;
use std::time::Duration;

use super::cluster::sd_t;
use super::entry::{self, enter};
use crate::error::Error;
use crate::loops;

/// The file descriptor that is readable when there is work for sd_dispatch(); -1 where `sd` is not
/// valid. It stays the same until sd_close() returns, or calls the function of sd_aclose(), over
/// reconnects too. To be watched for reading in any event loop; nothing else may be done with it.
///
/// Level triggered, that is all. Edge triggered (EPOLLET), each edge asks for sd_dispatch() again and
/// again until poll() says that the descriptor is not readable: one call does a bounded part of the
/// work, and what is left makes no other edge.
#[unsafe(no_mangle)]
pub extern "C" fn sd_get_fd(sd: sd_t) -> c_int {
    let mut fd = -1;
    enter(|| {
        fd = entry::client_at_work(sd)?.cluster.events_fd()?;
        Ok(())
    });
    fd
}

/// Does the work that there is: receives, sends, and calls the callbacks of requests that have
/// ended. Never blocks. Any callback may close `sd`.
#[unsafe(no_mangle)]
pub extern "C" fn sd_dispatch(sd: sd_t) -> c_int {
    enter(|| {
        entry::client_at_work(sd)?.cluster.dispatch();
        Ok(())
    })
}

/// Waits up to `timeout_ms` milliseconds, or for ever where that is negative, for work, and does
/// it. SD_RES_TIMEDOUT where there was none. Legal inside a callback, for other requests; so is
/// polling the descriptor there, as nested event loops do.
#[unsafe(no_mangle)]
pub extern "C" fn sd_wait(sd: sd_t, timeout_ms: c_int) -> c_int {
    enter(|| {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        match entry::client_at_work(sd)?.cluster.wait(timeout)? {
            true => Ok(()),
            false => Err(Error::TimedOut(None)),
        }
    })
}

/// Undoes sd_libev_attach(), sd_libevent_attach() or sd_libuv_attach(): the loop calls nothing of
/// `sd` any more, once the dispatch has ended that it may be in, and `sd` may be attached again.
/// Requests in flight go on, and end once something dispatches. Does nothing where `sd` is not
/// attached, or where its loop has been destroyed.
///
/// Only the loop itself takes out what it watches, whichever thread runs it: at the end of the
/// callback that this is called in, otherwise in its next turn, which this brings about. A loop that
/// has nothing else to do ends with that turn. One that does not run again may be destroyed as it
/// is, as it may before sd_detach(); libuv lets a loop be closed only after that turn.
#[unsafe(no_mangle)]
pub extern "C" fn sd_detach(sd: sd_t) -> c_int {
    enter(|| {
        entry::client(sd)?;
        loops::detach(sd as usize);
        Ok(())
    })
}
