//! Names of hosts, looked up by the system.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

/// What finds the addresses of a host, in the order in which they are to be tried.
pub type Resolver = fn(host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

/// getaddrinfo(3).
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// A lookup under way. It has a thread of its own, the only kind that the library starts: the system
/// waits for servers of names for as long as it likes, and cannot be told to stop.
pub struct Lookup(Arc<Mutex<Option<io::Result<Vec<SocketAddr>>>>>);

impl Lookup {
    pub fn start(resolver: Resolver, host: Arc<str>, port: u16) -> io::Result<Lookup> {
        let found = Arc::new(Mutex::new(None));
        let place = found.clone();
        let work = move || {
            let result = resolver(&host, port);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        };
        without_signals(|| std::thread::Builder::new().spawn(work))?;
        Ok(Lookup(found))
    }

    /// What was found, once there is something.
    pub fn take(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A thread that is started in `start` gets none of the program's signals.
fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sets of signals, which the functions write before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        started
    }
}
