//! Connections.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{self, Out, Owned, enter};
use super::form::{self, Notice, sd_callback_fn};
use super::{fork, last};
use crate::cluster::address::{self, Gateway};
use crate::cluster::{Closer, Cluster, Op, Options};
use crate::error::{Error, Result};
use crate::exec::Completion;
use crate::loops;
use crate::vdi::Client;

/// cbindgen:ignore
pub type sd_t = *mut c_void;

/// # Safety
/// As [`entry::text`]; NULL is "".
unsafe fn address_text<'a>(addr: *const c_char) -> Result<&'a [u8]> {
    last::about_address(addr);
    // SAFETY: as the caller promises.
    if addr.is_null() { Ok(&[]) } else { unsafe { entry::text(addr) } }
}

fn cluster(gateways: Vec<Gateway>) -> Result<Cluster> {
    Cluster::new(gateways, Options::default())
}

fn connect(cluster: Cluster) -> Result<sd_t> {
    fork::watch()?;
    cluster.start()?;
    entry::new_client(Arc::new(Client::new(cluster)))
}

/// Connects to a cluster through the gateways at `addr`: `host[:port]`, `[v6-address][:port]` or, for a
/// unix socket, `unix:path`; several of one cluster separated by commas, which are tried in that order,
/// and again whenever the one in use fails, or owes answers and says nothing for some seconds: that
/// one is used again when it answers. NULL or "" is 127.0.0.1:7000. All of it may also be a URI without
/// a VDI: `sheepdog://host:port`, `sheepdog+tcp://host:port`, `sheepdog+unix:///path`.
///
/// A host's name is looked up whenever it is connected to, in a thread that lives as long as that
/// takes and takes no signals; numbers need none. Of several addresses each is tried when those before
/// it have failed or not answered for 250 ms, IPv6 and IPv4 in turn, and the first that answers is used.
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
        let (out, addr) = unsafe { (Out::new(sd)?, address_text(addr)?) };
        out.set(connect(cluster(address::parse(addr)?)?)?);
        Ok(())
    })
}

/// Connects to a cluster through the unix socket `path` of a server on this machine.
///
/// Otherwise as sd_init().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_init_unix(path: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        last::about_address(path);
        // SAFETY: the caller passes pointers as the header says.
        let (out, path) = unsafe { (Out::new(sd)?, entry::text(path)?) };
        out.set(connect(cluster(address::parse_unix(path)?)?)?);
        Ok(())
    })
}

fn start_connect(cluster: Cluster) -> Result<sd_t> {
    fork::watch()?;
    let client = Arc::new(Client::new(cluster));
    let connecting = client.clone();
    client.cluster.spawn(
        move |op| async move { connecting.cluster.connect(&op).await },
        // The first call tells what went wrong.
        |_| None,
    )?;
    entry::new_client(client)
}

/// Starts to connect as sd_init(), without waiting. The first call on `*sd` reports what went
/// wrong, if anything did. Never waits, whatever the address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_ainit(addr: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, addr) = unsafe { (Out::new(sd)?, address_text(addr)?) };
        out.set(start_connect(cluster(address::parse(addr)?)?)?);
        Ok(())
    })
}

/// For sd_init_opts: connect as sd_ainit(), without waiting.
pub const SD_INIT_ASYNC: u32 = 1;
/// For sd_init_opts: send everything through the gateways named, as this version does anyway.
pub const SD_INIT_NO_ROUTING: u32 = 2;

/// What sd_init_ex() can be told. Zeroed, it is what sd_init() does. Grows only at its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sd_init_opts {
    /// Milliseconds that one gateway may take until it is found, connected to and has answered once,
    /// at the beginning and whenever it is connected to again. 0: 5000, or all the time of the call
    /// where there is only one.
    pub connect_timeout_ms: u32,
    /// As sd_set_timeout(). 0: 30000; UINT32_MAX: for ever.
    pub timeout_ms: u32,
    /// Milliseconds that sd_close() waits at most. 0: 5000.
    pub close_timeout_ms: u32,
    /// Must be 0.
    pub reserved: u32,
    /// As sd_set_buffer_limit(). 0: 256 MiB.
    pub buffer_limit: u64,
    /// Of SD_INIT_ASYNC and SD_INIT_NO_ROUTING.
    pub flags: u32,
    /// Must be 0.
    pub reserved2: u32,
}

// Every byte has a name, so that none is left to chance.
const _: () = assert!(size_of::<sd_init_opts>() == offset_of!(sd_init_opts, reserved2) + 4);

/// Connects as `opts` says; NULL is all zeros. `sizeof_opts` is `sizeof(struct sd_init_opts)` as the
/// program was compiled. `addr`, and the rest, as sd_init(), or as sd_ainit() with SD_INIT_ASYNC.
///
/// Errors: SD_RES_INVALID_PARMS (an option, flag or reserved member that this version does not know).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_init_ex(
    addr: *const c_char,
    opts: *const sd_init_opts,
    sizeof_opts: usize,
    sd: *mut sd_t,
) -> c_int {
    enter(|| {
        // SAFETY: the caller passes pointers as the header says.
        let (out, addr, opts) =
            unsafe { (Out::new(sd)?, address_text(addr)?, init_options(opts, sizeof_opts)?) };
        if opts.flags & !(SD_INIT_ASYNC | SD_INIT_NO_ROUTING) != 0 {
            return Err(Error::Invalid("unknown flag"));
        }
        if (opts.reserved, opts.reserved2) != (0, 0) {
            return Err(Error::Invalid("a reserved option is not 0"));
        }
        let milliseconds = |ms: u32| (ms != 0).then(|| Duration::from_millis(ms.into()));
        let default = Options::default();
        let options = Options {
            connect_timeout: milliseconds(opts.connect_timeout_ms),
            timeout_ms: match opts.timeout_ms {
                0 => default.timeout_ms,
                u32::MAX => 0,
                ms => ms,
            },
            close_timeout: milliseconds(opts.close_timeout_ms).unwrap_or(default.close_timeout),
            ..default
        };
        let cluster = Cluster::new(address::parse(addr)?, options)?;
        if opts.buffer_limit != 0 {
            cluster.budget.set_limit(usize::try_from(opts.buffer_limit).unwrap_or(usize::MAX));
        }
        let start = if opts.flags & SD_INIT_ASYNC != 0 { start_connect } else { connect };
        out.set(start(cluster)?);
        Ok(())
    })
}

/// # Safety
/// `opts` is NULL or points to `len` bytes.
unsafe fn init_options(opts: *const sd_init_opts, len: usize) -> Result<sd_init_opts> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { entry::options::<{ size_of::<sd_init_opts>() }>(opts.cast(), len)? };
    // SAFETY: numbers, of which any bytes make some.
    Ok(unsafe { bytes.as_ptr().cast::<sd_init_opts>().read_unaligned() })
}

/// Starts to connect as sd_init_unix(), without waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_ainit_unix(path: *const c_char, sd: *mut sd_t) -> c_int {
    enter(|| {
        last::about_address(path);
        // SAFETY: the caller passes pointers as the header says.
        let (out, path) = unsafe { (Out::new(sd)?, entry::text(path)?) };
        out.set(start_connect(cluster(address::parse_unix(path)?)?)?);
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
/// Takes as long as the callbacks that other threads are in, and the answers to what closing the VDIs
/// asks for; of a cluster that answers, some milliseconds. Waits, for 5 seconds or the
/// `close_timeout_ms` of sd_init_ex() at most, until nothing can happen any more that was asked for through `sd`
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
                loops::detach(handle as usize);
                fork::give_back(copy);
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
/// sd_get_fd(), sd_dispatch(), sd_wait() and sd_wake(), and for nothing else. Calls of other threads that wait
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
        let (closed, about) = (client.clone(), last::keep());
        let completion = move |result: Result<()>| -> Completion {
            Box::new(move || {
                loops::detach(notice.sd() as usize);
                entry::forget_client(notice.sd());
                entry::remove_vdis(&closed);
                closed.cluster.end_waits();
                drop(share);
                notice.give(about, result);
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
/// What takes the longer the larger a VDI is may go on for as long as answers come, and no longer
/// than this without one: sd_vdi_delete(), sd_vdi_resize(), discards and writes of zeros,
/// sd_snapshot_rollback(), sd_snapshot_delete(), and creating a VDI with all its objects.
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
