//! Connections.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::entry::{self, Out, Owned, enter};
use super::fork;
use super::form::{self, Notice, sd_callback_fn};
use crate::cluster::{Closer, Cluster, Op, address};
use crate::error::Result;
use crate::exec::Completion;
use crate::loops;
use crate::net::Endpoint;
use crate::vdi::Client;

/// cbindgen:ignore
pub type sd_t = *mut c_void;

fn connect(gateways: Vec<Endpoint>) -> Result<sd_t> {
    fork::watch()?;
    let cluster = Cluster::new(gateways)?;
    cluster.start()?;
    entry::new_client(Arc::new(Client::new(cluster)))
}

/// Connects to a cluster through the gateways at `addr`: `host[:port]` or `[v6-address][:port]`,
/// several of one cluster separated by commas, which are tried in that order, and again whenever
/// the one in use fails, or owes answers and says nothing for some seconds: that one is used again
/// when it answers. NULL or "" is 127.0.0.1:7000.
///
/// Makes one exchange with the server, so a wrong port or a cluster that is not formatted is an
/// error here and not later. On success `*sd` is a handle to pass to all other functions, from any
/// thread, until sd_close().
///
/// Errors: SD_RES_INVALID_PARMS (malformed address), SD_RES_NOT_CONNECTED, SD_RES_TIMEDOUT,
/// SD_RES_BAD_REPLY (no sheepdog server listens there), SD_RES_WAIT_FOR_FORMAT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_init(addr: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, addr) =
            unsafe { (Out::new(sd)?, if addr.is_null() { &[] } else { entry::text(addr)? }) };
        out.set(connect(address::parse(addr)?)?);
        Ok(())
    })
}

/// Connects to a cluster through the unix socket `path` of a server on this machine.
///
/// Otherwise as sd_init().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_init_unix(path: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, path) = unsafe { (Out::new(sd)?, entry::text(path)?) };
        out.set(connect(address::parse_unix(path)?)?);
        Ok(())
    })
}

fn start_connect(gateways: Vec<Endpoint>) -> Result<sd_t> {
    fork::watch()?;
    let client = Arc::new(Client::new(Cluster::new(gateways)?));
    let connecting = client.clone();
    client.cluster.spawn(
        move |op| async move { connecting.cluster.connect(&op).await },
        // The first call tells what went wrong.
        |_| None,
    )?;
    entry::new_client(client)
}

/// Starts to connect as sd_init(), without waiting. The first call on `*sd` reports what went
/// wrong, if anything did. Looks host names up, which can take a while; addresses as numbers never
/// do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_ainit(addr: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, addr) =
            unsafe { (Out::new(sd)?, if addr.is_null() { &[] } else { entry::text(addr)? }) };
        out.set(start_connect(address::parse(addr)?)?);
        Ok(())
    })
}

/// Starts to connect as sd_init_unix(), without waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_ainit_unix(path: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, path) = unsafe { (Out::new(sd)?, entry::text(path)?) };
        out.set(start_connect(address::parse_unix(path)?)?);
        Ok(())
    })
}

/// Closes a connection and everything that belongs to it, and sets `*sd` to NULL.
///
/// Calls that other threads are in, sd_wait() included, end with SD_RES_CANCELED, and so do
/// asynchronous requests in flight. When this returns each callback has been called and none runs
/// any more, in whatever thread: what they use may be freed. So no callback of another thread may
/// wait for the thread that closes. Legal inside a callback, which is then the one that still runs.
/// The attached event loop is detached. The VDIs opened through it are closed
/// and their locks released; a write that has returned is not affected.
///
/// Waits, for 5 seconds at most, until nothing can happen any more that was asked for through `sd`
/// and given up, by a timeout or by this call. The handle is gone whatever this returns.
///
/// Errors: SD_RES_TIMEDOUT (a server that does not answer may still carry out what it was asked
/// for; the locks of the VDIs concerned are not released).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_close(sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes a pointer to a handle, as the header says.
        let (out, handle) = unsafe { (Out::new(sd)?, sd.read()) };
        let client = match entry::remove_client(handle)? {
            Owned::Here(client) => client,
            Owned::ByParent(copy) => {
                fork::give_back(copy, loops::detach_copy(handle as usize));
                out.set(std::ptr::null_mut());
                return Ok(());
            }
        };
        loops::detach(handle as usize);
        let result = client.cluster.close(async |op| client.close_all(op).await);
        // What others have opened just before it began.
        entry::remove_vdis(&client);
        out.set(std::ptr::null_mut());
        result
    })
}

/// Closes a connection as sd_close(), without waiting, inside a callback or outside. `*sd` is NULL
/// when this returns 0, and its VDIs are closed; what is in flight ends with SD_RES_CANCELED. `fn`
/// is the last callback of `sd`: it is called, with what `sd` was, the result of sd_close() and
/// `opaque`, once all others have returned, from sd_dispatch() or the attached event loop. So no
/// callback may wait for it. The event loop has let go of `sd` by then, and after `fn` nothing of
/// `sd` is left.
///
/// Until `fn` is called the connection still needs somebody to dispatch. An attached event loop
/// goes on with that. For everybody else a copy of the handle, made before, remains good for
/// sd_get_fd(), sd_dispatch() and sd_wait(), and for nothing else. Calls of other threads that wait
/// already, sd_wait() included, end with SD_RES_CANCELED. `fn` is also where a program that watches
/// the descriptor has to stop: it is closed after that.
///
/// Where this returns anything but 0, `*sd` is as it was, and `fn` will not be called:
/// SD_RES_INVALID_PARMS, SD_RES_NO_MEM (the request would pass sd_set_buffer_limit()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_aclose(
    sd: *mut sd_t,
    r#fn: sd_callback_fn,
    opaque: *mut c_void,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes a pointer to a handle, as the header says.
        let (out, handle) = unsafe { (Out::new(sd)?, sd.read()) };
        let notice = Notice::new(handle, r#fn, opaque)?;
        let client = entry::client(handle)?;
        let share = form::share(&client, 0)?;
        // All that can fail comes before the handle goes.
        client.cluster.events_fd()?;
        entry::begin_close(handle)?;
        out.set(std::ptr::null_mut());
        let closed = client.clone();
        let completion = move |result: Result<()>| -> Completion {
            Box::new(move || {
                loops::detach(notice.sd() as usize);
                entry::forget_client(notice.sd());
                entry::remove_vdis(&closed);
                closed.cluster.end_waits();
                drop(share);
                notice.give(result);
            })
        };
        client.cluster.spawn_end(
            {
                let client = client.clone();
                move || async move {
                    let last = async |op: &Op| client.close_all(op).await;
                    client.cluster.end(Closer::Task, last).await
                }
            },
            completion,
        );
        Ok(())
    })
}

/// Bounds the time that each later call on `sd` may take, with all its requests and over
/// reconnects, in milliseconds; a call that takes longer returns SD_RES_TIMEDOUT. 0 waits for
/// ever. The default is 30000: a cluster that recovers from the loss of a node can take that long.
///
/// A call that timed out may have been carried out, or not, or in part, and the servers may still
/// be at it. Until that is known whatever touches the same waits, and times out in its turn, so
/// that nothing older undoes what a later call was told of; everything else goes on.
#[unsafe(no_mangle)]
pub extern "C" fn sd_set_timeout(sd: sd_t, ms: c_uint) -> c_int {
    enter(|| {
        entry::client(sd)?.cluster.set_timeout_ms(ms);
        Ok(())
    })
}
