//! One stream socket to a gateway, and the eventfd that interrupts a wait.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, recvmsg, sendmsg, shutdown, socket_with,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::{Descriptors, IoVecs, RecvBuf, descriptors, memory};

/// Where a gateway listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(addr) => addr.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How long sent bytes may go unacknowledged before the connection counts as lost: so much less
/// than the default time of a request that another gateway can still be asked.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS: u32 = 20_000;

pub struct Socket(OwnedFd);

impl Socket {
    /// Starts to connect. The socket becomes writable when [`Socket::finish_connect`] can tell
    /// how that ended.
    pub fn start_connect(endpoint: &Endpoint) -> io::Result<Socket> {
        let family = match endpoint {
            Endpoint::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
            Endpoint::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
            Endpoint::Unix(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        let started = match endpoint {
            Endpoint::Tcp(addr) => connect(&fd, addr),
            Endpoint::Unix(path) => connect(&fd, &SocketAddrUnix::new(path)?),
        };
        match started {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Socket(fd)),
            Err(e) => Err(e.into()),
        }
    }

    /// After the socket has become writable: the connection's result. On success the socket is in
    /// blocking mode, and a blocking receive on it returns after `tick` at the latest.
    pub fn finish_connect(&self, tick: Duration) -> io::Result<()> {
        sockopt::socket_error(&self.0)??;
        let domain = sockopt::socket_domain(&self.0)?;
        if domain == AddressFamily::INET || domain == AddressFamily::INET6 {
            sockopt::set_tcp_nodelay(&self.0, true)?;
            // A peer that vanished without a word is found out by keepalive, not by waiting.
            sockopt::set_socket_keepalive(&self.0, true)?;
            sockopt::set_tcp_keepidle(&self.0, Duration::from_secs(10))?;
            sockopt::set_tcp_keepintvl(&self.0, Duration::from_secs(5))?;
            sockopt::set_tcp_keepcnt(&self.0, 4)?;
            // Keepalive does not probe while sent bytes are unacknowledged: that has a limit of
            // its own, of a quarter of an hour unless it is set.
            #[cfg(target_os = "linux")]
            sockopt::set_tcp_user_timeout(&self.0, UNACKNOWLEDGED_MS)?;
        }
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(tick))?;
        rustix::io::ioctl_fionbio(&self.0, false)?;
        Ok(())
    }

    /// Sends what the peer has room for, without waiting.
    pub fn send(&self, bytes: &IoVecs<'_>) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(sendmsg(&self.0, bytes.as_slices(), &mut SendAncillaryBuffer::default(), flags)?)
    }

    /// Receives into `buf`; blocking, it waits for one tick at most. 0 is the end of the stream.
    pub fn recv(&self, buf: &mut [u8], blocking: bool) -> io::Result<usize> {
        let flags = if blocking { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (filled, _) = recv(&self.0, buf, flags)?;
        Ok(filled)
    }

    /// Receives into `range` of `buf` and, where more has come than fits there, into `tail`,
    /// without waiting. 0 is the end of the stream.
    pub fn recv_scattered(
        &self,
        buf: &mut RecvBuf,
        range: Range<usize>,
        tail: &mut [u8],
    ) -> io::Result<usize> {
        buf.scatter(range, tail, |iov| {
            Ok(recvmsg(&self.0, iov, &mut Default::default(), RecvFlags::DONTWAIT)?.bytes)
        })
    }

    /// Sends nothing more; what comes in is still received, to the peer's end of the stream.
    pub fn end(&self) {
        let _ = shutdown(&self.0, rustix::net::Shutdown::Write);
    }

    /// Ends the stream both ways: whoever waits on the socket returns at once.
    pub fn shutdown(&self) {
        let _ = shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        descriptors::forget(self.as_fd());
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An eventfd: a wait that includes it can be interrupted from any thread.
pub struct WakeFd(OwnedFd);

impl WakeFd {
    pub fn new() -> io::Result<WakeFd> {
        Ok(WakeFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// One that counts how often it is set.
    pub fn counting() -> io::Result<WakeFd> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Ok(WakeFd(eventfd(0, flags)?))
    }

    pub fn set(&self) {
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes back one time that it was set, if it was.
    pub fn take(&self) -> bool {
        read(&self.0, &mut [0; 8]).is_ok()
    }

    pub fn clear(&self) {
        let _ = read(&self.0, &mut [0; 8]);
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for WakeFd {
    fn drop(&mut self) {
        descriptors::forget(self.as_fd());
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One pollable descriptor for all of a handle's sockets, its timers, and a signal: an epoll set.
pub struct EventSet {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl EventSet {
    /// `signal` makes the set readable.
    pub fn new(signal: &WakeFd) -> io::Result<EventSet> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for fd in [timer.as_fd(), signal.as_fd()] {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(EventSet { epoll, timer })
    }

    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub fn add(&self, socket: &Socket, interest: PollFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(0);
        Ok(epoll::add(&self.epoll, socket, data, epoll_flags(interest))?)
    }

    pub fn modify(&self, socket: &Socket, interest: PollFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(0);
        Ok(epoll::modify(&self.epoll, socket, data, epoll_flags(interest))?)
    }

    pub fn remove(&self, socket: &Socket) {
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Makes the set readable after `delay`, or never.
    pub fn set_timer(&self, delay: Option<Duration>) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = match delay {
            None => zero,
            // 0 would disarm it.
            Some(delay) => timespec(delay.max(Duration::from_nanos(1))),
        };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }
}

impl EventSet {
    /// Waits until the set is readable or the bell set, for `timeout` at most; None waits for ever.
    /// Whether each of them is.
    pub fn wait(&self, bell: &WakeFd, timeout: Option<Duration>) -> io::Result<[bool; 2]> {
        wait_readable([self.epoll.as_fd(), bell.as_fd()], timeout)
    }

    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        descriptors::forget(self.as_fd());
        descriptors::forget(self.timer());
    }
}

impl AsFd for EventSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// A descriptor that is readable when an [`EventSet`] is, until it is ended: then it is for good.
pub struct Tap {
    epoll: OwnedFd,
    signal: WakeFd,
}

impl Tap {
    pub fn new(set: &EventSet) -> io::Result<Tap> {
        let (epoll, signal) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, WakeFd::new()?);
        for fd in [set.as_fd(), signal.as_fd()] {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        // No copy of it is closed before whoever watches it has let go: it is no cluster's.
        Descriptors::new().keep_tap(epoll.as_fd(), signal.as_fd());
        Ok(Tap { epoll, signal })
    }

    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Has whoever watches it look, once and for all.
    pub fn end(&self) {
        self.signal.set();
        // In the child of a fork, where an eventfd is in its place (descriptors::Held::part). An
        // epoll set takes no bytes.
        let _ = write(&self.epoll, &1u64.to_ne_bytes());
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        descriptors::forget(self.epoll.as_fd());
    }
}

fn epoll_flags(interest: PollFlags) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.contains(PollFlags::IN));
    flags.set(epoll::EventFlags::OUT, interest.contains(PollFlags::OUT));
    flags
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as _, tv_nsec: duration.subsec_nanos() as _ }
}

/// Waits until one of `fds` is readable, for `timeout` at most, over signals too; None waits for
/// ever. Whether each of them is.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, left.map(timespec).as_ref()) {
            Ok(_) => return Ok(fds.map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

pub use rustix::event::PollFlags as Interest;

/// Which of the sockets are ready, in their order; `wake`, set, ends the wait and is cleared.
pub fn poll_sockets<'a>(
    wake: &WakeFd,
    sockets: impl Iterator<Item = (&'a Socket, Interest)>,
    timeout: Duration,
) -> io::Result<Vec<Interest>> {
    let mut fds = vec![PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
    fds.extend(sockets.map(|(socket, interest)| PollFd::new(socket, interest)));
    poll_fds(&mut fds, timeout)?;
    if !fds[0].revents().is_empty() {
        wake.clear();
    }
    Ok(fds[1..].iter().map(|fd| fd.revents()).collect())
}

/// poll(2), for `timeout` at most; an interrupted wait counts as one without events.
pub fn poll_fds(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    match poll(fds, Some(&timespec(timeout))) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether an I/O error only means "nothing now". A time limit of a receive gives WouldBlock;
/// TimedOut is a connection that the kernel has given up.
pub fn is_retry(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether an I/O error is about the caller's memory, and not about the connection.
pub fn is_fault(e: &io::Error) -> bool {
    let is_fault = e.raw_os_error() == Some(libc::EFAULT);
    if is_fault {
        memory::suspect();
    }
    is_fault
}

/// What a poll should report for a socket.
pub fn interest(read: bool, write: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    flags
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A connected socket and its peer.
    fn connected() -> (Socket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let socket = Socket::start_connect(&endpoint).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
        poll_fds(&mut fds, Duration::from_secs(60)).unwrap();
        socket.finish_connect(Duration::from_millis(1)).unwrap();
        (socket, peer)
    }

    #[test]
    fn a_receive_with_nothing_to_receive_means_nothing_now() {
        let (socket, _peer) = connected();
        for blocking in [false, true] {
            assert!(is_retry(&socket.recv(&mut [0; 8], blocking).unwrap_err()));
        }
    }

    #[test]
    fn a_connection_that_the_kernel_gave_up_is_not_taken_for_one_without_data() {
        assert!(!is_retry(&Errno::TIMEDOUT.into()));
        assert!(!is_retry(&Errno::CONNRESET.into()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_peer_that_vanishes_is_found_out_before_a_request_runs_out_of_time() {
        let (socket, _peer) = connected();
        assert_eq!(sockopt::tcp_user_timeout(&socket.0).unwrap(), UNACKNOWLEDGED_MS);
        assert!(sockopt::socket_keepalive(&socket.0).unwrap());
    }

    #[test]
    fn sockets_are_not_passed_on_to_other_programs() {
        let (socket, _peer) = connected();
        let wake = WakeFd::new().unwrap();
        for fd in [socket.as_fd(), wake.as_fd()] {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}
