//! Event loops: the descriptor that every loop can watch.

use std::ffi::c_int;
use std::time::Duration;

use super::cluster::sd_t;
use super::entry::{self, enter};
use crate::error::Error;

/// The file descriptor that is readable when there is work for sd_dispatch(); -1 where `sd` is not
/// valid. It stays the same until sd_close(), over reconnects too. To be watched for reading, level
/// triggered, in any event loop; nothing else may be done with it.
#[unsafe(no_mangle)]
pub extern "C" fn sd_get_fd(sd: sd_t) -> c_int {
    let mut fd = -1;
    enter(|| {
        fd = entry::client(sd)?.cluster.events_fd()?;
        Ok(())
    });
    fd
}

/// Does the work that there is: receives, sends, and calls the callbacks of requests that have
/// ended. Never blocks. Any callback may close `sd`.
#[unsafe(no_mangle)]
pub extern "C" fn sd_dispatch(sd: sd_t) -> c_int {
    enter(|| {
        entry::client(sd)?.cluster.dispatch();
        Ok(())
    })
}

/// Waits up to `timeout_ms` milliseconds, or for ever where that is negative, for work, and does
/// it. SD_RES_TIMEDOUT where there was none.
#[unsafe(no_mangle)]
pub extern "C" fn sd_wait(sd: sd_t, timeout_ms: c_int) -> c_int {
    enter(|| {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        match entry::client(sd)?.cluster.wait(timeout)? {
            true => Ok(()),
            false => Err(Error::TimedOut),
        }
    })
}
