//! The server: its directory, its listeners, its connections coming and going.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::budget::Budget;
use crate::buf::Spares;
use crate::cluster::Cluster;
use crate::conn::Connection;
use crate::lock;
use crate::passed::Passed;
use crate::poller::Poller;
use crate::pool::Pool;
use crate::request::{Peer, Wish};

/// Connections at a time, where the system lets us.
const MAX_CONNECTIONS: usize = 16 << 10;
/// Bytes of the longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;
/// Objects kept open at most, where the system lets us.
const MAX_OPEN_FILES: usize = 8192;
/// Descriptors for everything else: listeners, directories, objects that are being created.
const OTHER_FILES: usize = 96;
/// Threads for requests: enough to let one sync of the disk serve many of them, as all that have
/// begun when it begins have a part in it.
const POOL: usize = 64;
/// Those of them that long requests may take.
const POOL_LONG: usize = 4;
/// Threads that serve connections.
const CREW: usize = 256;
/// How long a thread stays with a connection that says nothing.
const PATIENCE: Duration = Duration::from_millis(250);
/// Seconds after which a peer that does not go on loses the memory that others wait for.
const STALLED: u32 = 3;
/// How long a client may take to read its last answers when the server ends.
const GRACE: Duration = Duration::from_secs(2);
/// How long the server takes to end at most, whatever it is doing.
const BOUND: Duration = Duration::from_secs(10);
/// The usual limit for the memory of the process.
pub const MEMORY: usize = 256 << 20;
/// The least that works: the largest payload, an inode's, has to find room.
pub const LEAST_MEMORY: usize = 64 << 20;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Made if missing.
    pub dir: PathBuf,
    pub listen: Vec<SocketAddr>,
    /// `sock` in the directory if None, and no Unix socket was passed.
    pub unix: Option<PathBuf>,
    /// Acknowledge only what survives the end of the machine, not just of the process.
    pub sync: bool,
    /// Enforce the locks of LOCK_VDI (4.10).
    pub use_lock: bool,
    /// Listen on addresses that others can reach, too.
    pub allow_remote: bool,
    /// Do as a 1.0 server does, also where that loses data; for tests of clients.
    pub mimic: bool,
    /// Bytes of memory that the process is to use.
    pub memory: usize,
}

impl Options {
    /// A safe server in `dir`, on a free port of the loopback interface.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            unix: None,
            sync: true,
            use_lock: false,
            allow_remote: false,
            mimic: false,
            memory: MEMORY,
        }
    }
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A running server. Dropping it stops it.
pub struct Server {
    addresses: Vec<Address>,
    stopper: Stopper,
    acceptor: Option<JoinHandle<()>>,
    pollers: Vec<JoinHandle<()>>,
    /// Closed to end the pollers.
    end_of_pollers: Option<OwnedFd>,
    shared: Option<Arc<Shared>>,
    /// The Unix socket that it has made.
    socket: Option<PathBuf>,
    /// Locked as long as the server runs.
    lock: Option<File>,
}

/// Ends a server from anywhere.
#[derive(Clone)]
pub struct Stopper(Arc<Mutex<Option<OwnedFd>>>);

impl Stopper {
    /// Makes [`Server::wait`] return, soon.
    pub fn stop(&self) {
        // The acceptor watches the other end of this pipe.
        lock(&self.0).take();
    }
}

/// What connections share.
pub struct Shared {
    pub cluster: Cluster,
    /// For requests.
    pub pool: Pool,
    /// For connections.
    pub crew: Pool,
    pub spares: Spares,
    pub budget: Arc<Budget>,
    /// Connections that nobody serves until their peers have said something.
    pub readable: Poller,
    /// Connections whose peers have to read something first.
    pub writable: Poller,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    max_connections: usize,
    /// A connection has ended.
    changed: Condvar,
    stopper: Stopper,
    /// Seconds since the start.
    clock: AtomicU32,
    /// When something was said last that happens again and again.
    complained: AtomicU32,
    ending: AtomicBool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Opens the directory and serves it, in threads of its own, until it is stopped or a client
    /// sends SHUTDOWN or KILL_NODE.
    pub fn start(options: &Options) -> Result<Server> {
        Server::start_with(options, Passed::default())
    }

    /// The same, listening on these sockets as well.
    pub fn start_with(options: &Options, passed: Passed) -> Result<Server> {
        let passed_tcp = passed.tcp.iter().map(TcpListener::local_addr);
        let passed_tcp = passed_tcp.collect::<io::Result<Vec<_>>>()?;
        for address in options.listen.iter().chain(&passed_tcp) {
            if !address.ip().is_loopback() && !options.allow_remote {
                bail!(
                    "refusing to listen on {address}: the Sheepdog protocol has no authentication, \
                     so whoever reaches this address can read, change and delete every VDI; \
                     --allow-remote says that you mean it"
                );
            }
        }
        let dir = &options.dir;
        make_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = Some(lock_dir(dir)?);
        let limits = Limits::raise();
        let cluster = Cluster::open(options, limits.open_files)
            .with_context(|| format!("cannot open the store in {}", dir.display()))?;

        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        let mut tcp = passed.tcp;
        for &address in &options.listen {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            tcp.push(listener);
        }
        for listener in tcp {
            // A client may be gone between the event and the accept, which must not wait then.
            listener.set_nonblocking(true)?;
            addresses.push(Address::Tcp(listener.local_addr()?));
            listeners.push(Listener::Tcp(listener));
        }
        let default = || passed.unix.is_empty().then(|| dir.join("sock"));
        let socket = options.unix.clone().or_else(default);
        let mut unix = passed.unix;
        if let Some(socket) = &socket {
            let listener = bind_unix(socket)
                .with_context(|| format!("cannot listen on {}", socket.display()))?;
            unix.push(listener);
        }
        for listener in unix {
            listener.set_nonblocking(true)?;
            addresses.push(Address::Unix(name_of(&listener)?));
            listeners.push(Listener::Unix(listener));
        }

        let (watched, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let stopper = Stopper(Arc::new(Mutex::new(Some(stop))));
        let shared = Arc::new(Shared {
            cluster,
            pool: Pool::start("lamb-pool", POOL, POOL_LONG)?,
            crew: Pool::start("lamb-conn", CREW, 1)?,
            spares: Spares::default(),
            // The rest is for threads, VDIs, references, and what allocators keep.
            budget: Budget::new(options.memory / 2),
            readable: Poller::readable()?,
            writable: Poller::writable()?,
            connections: Mutex::default(),
            max_connections: limits.connections,
            changed: Condvar::new(),
            stopper: stopper.clone(),
            clock: AtomicU32::new(0),
            complained: AtomicU32::new(0),
            ending: AtomicBool::new(false),
        });
        let (ended, end_of_pollers) = pipe_with(PipeFlags::CLOEXEC)?;
        let ended = Arc::new(ended);
        let mut server = Server {
            stopper,
            acceptor: None,
            pollers: Vec::new(),
            end_of_pollers: Some(end_of_pollers),
            shared: Some(shared.clone()),
            socket,
            addresses,
            lock,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(work)
        };
        let (readers, stop) = (shared.clone(), ended.clone());
        let work = move || {
            let wake = |id| readers.with(id, Connection::wake);
            report(readers.readable.run(&stop, wake, || readers.tick()));
        };
        server.pollers.push(spawn("lamb-readable", Box::new(work))?);
        let writers = shared.clone();
        let work = move || {
            let resume = |id| writers.with(id, Connection::resume);
            report(writers.writable.run(&ended, resume, || {}));
        };
        server.pollers.push(spawn("lamb-writable", Box::new(work))?);
        let acceptor = Acceptor { node: node_address(&server.addresses), listeners, shared };
        let work = Box::new(move || acceptor.run(&watched));
        server.acceptor = Some(spawn("lamb-accept", work)?);
        Ok(server)
    }

    /// Where it listens, ports filled in.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until the server was stopped and everything that had begun has ended.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            log::error!("the acceptor panicked");
        }
        // From when it ends, not from when somebody began to wait for that.
        let deadline = Instant::now() + BOUND;
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
        shared.end(deadline);
        drop(self.end_of_pollers.take());
        for poller in self.pollers.drain(..) {
            let _ = poller.join();
        }
        // Threads that have done their last work have yet to let go of it.
        while Arc::strong_count(&shared) > 1 {
            if Instant::now() >= deadline {
                log::warn!("ending with requests under way");
                // They still use the directory: it is not for others as long as this process is.
                std::mem::forget(self.lock.take());
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn report(result: io::Result<()>) {
    if let Err(err) = result {
        log::error!("cannot wait for peers: {err}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        self.join();
    }
}

/// The thread that waits for connections.
struct Acceptor {
    listeners: Vec<Listener>,
    node: SocketAddr,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn run(self, stop: &OwnedFd) {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(
            self.listeners.iter().map(|l| PollFd::from_borrowed_fd(l.as_fd(), PollFlags::IN)),
        );
        let mut next = 0;
        loop {
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(err) => {
                    log::error!("cannot wait for connections: {err}");
                    return;
                }
            }
            let mut events = fds.iter().map(PollFd::revents);
            if events.next().is_some_and(|stop| !stop.is_empty()) {
                return;
            }
            for (listener, events) in self.listeners.iter().zip(events) {
                if events.is_empty() {
                    continue;
                }
                next += 1;
                if let Err(err) = self.accept(listener, next) {
                    if self.shared.may_complain() {
                        log::warn!("cannot take a connection: {err}");
                    }
                    // Mostly too many open files: wait for some of them to be closed.
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn accept(&self, listener: &Listener, id: u64) -> io::Result<()> {
        let shared = &self.shared;
        let (socket, node) = match listener.accept(self.node) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Ok(()),
            Err(err) => {
                shared.shed();
                return Err(err);
            }
        };
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let conn = Arc::new(Connection::new(id, socket, Peer { node }, shared.clone()));
        let n = {
            let mut connections = lock(&shared.connections);
            connections.insert(id, conn.clone());
            connections.len()
        };
        if n > shared.max_connections && !shared.shed() {
            shared.remove(id, Wish::Nothing);
            return Err(io::Error::other("too many connections that are in use"));
        }
        conn.start().inspect_err(|_| shared.remove(id, Wish::Nothing))
    }
}

impl Shared {
    /// Seconds since the start.
    pub fn now(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// A connection has ended.
    pub fn remove(&self, id: u64, wish: Wish) {
        let conn = lock(&self.connections).remove(&id);
        drop(conn);
        self.changed.notify_all();
        if wish == Wish::Stop {
            self.stopper.stop();
        }
    }

    fn with(&self, id: u64, what: impl FnOnce(&Arc<Connection>)) {
        let conn = lock(&self.connections).get(&id).cloned();
        if let Some(conn) = conn {
            what(&conn);
        }
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).values().cloned().collect()
    }

    /// Ends the connection that has been idle for longest; false if none is.
    fn shed(&self) -> bool {
        let idle = self.all().into_iter().filter_map(|conn| Some((conn.idle_since()?, conn)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|(since, conn)| (*since, conn.id));
        let Some((since, conn)) = idle.into_iter().find(|(_, conn)| conn.retire()) else {
            return false;
        };
        self.remove(conn.id, Wish::Nothing);
        if self.may_complain() {
            let idle = self.now().saturating_sub(since);
            log::warn!("too many connections: ending those that are idle, one of {idle} s");
        }
        true
    }

    /// Whether something may be said that happens again and again: once a second at most.
    fn may_complain(&self) -> bool {
        let now = self.now() + 1;
        self.complained.swap(now, Ordering::Relaxed) != now
    }

    /// Looks after connections, once a second.
    fn tick(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.budget.is_short() {
            return;
        }
        let holders = self.all().into_iter().filter_map(|conn| Some((conn.holds_since()?, conn)));
        let stalled = |since: u32| now.saturating_sub(since) >= STALLED;
        let mut holders: Vec<_> = holders.filter(|((since, _), _)| stalled(*since)).collect();
        holders.sort_by_key(|((since, _), conn)| (*since, conn.id));
        let mut lacks = self.budget.lacks();
        for ((_, held), conn) in holders {
            // What the ones before have held may be enough. It comes back when they are served.
            if lacks == 0 {
                break;
            }
            lacks = lacks.saturating_sub(held);
            if self.may_complain() {
                log::warn!("memory is short: ending connections whose peers do not go on");
            }
            conn.cut();
            conn.wake();
        }
    }

    /// Ends all connections, after what they have asked for was done and answered, by the deadline.
    fn end(&self, deadline: Instant) {
        let grace = Instant::now() + GRACE;
        self.ending.store(true, Ordering::Relaxed);
        loop {
            let patient = Instant::now() < grace;
            for conn in self.all() {
                if patient {
                    conn.shut(Shutdown::Read);
                } else {
                    conn.cut();
                    conn.wake();
                }
            }
            let connections = lock(&self.connections);
            if connections.is_empty() || Instant::now() >= deadline {
                return;
            }
            let until = if patient { grace } else { Instant::now() + Duration::from_millis(50) };
            let left = until.saturating_duration_since(Instant::now());
            let changed = self.changed.wait_timeout(connections, left);
            drop(changed.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }

    /// The next connection, and the address under which its client sees this node.
    fn accept(&self, node: SocketAddr) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
        let gone = |err: io::Error| match err.kind() {
            // The client has left again before we came.
            ErrorKind::WouldBlock | ErrorKind::ConnectionAborted => Ok(None),
            _ => Err(err),
        };
        match self {
            Listener::Tcp(listener) => match listener.accept() {
                Ok((stream, _)) => {
                    let node = tune(&stream).unwrap_or(node);
                    Ok(Some((stream.into(), node)))
                }
                Err(err) => gone(err),
            },
            Listener::Unix(listener) => match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    Ok(Some((stream.into(), node)))
                }
                Err(err) => gone(err),
            },
        }
    }
}

/// Prepares a connection; a client that is gone already will be noticed when it is served.
fn tune(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // A peer whose machine is gone does not stay for ever.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    let address = stream.local_addr()?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// The address that clients of the Unix socket are told (6.2).
fn node_address(addresses: &[Address]) -> SocketAddr {
    let tcp = addresses.iter().find_map(|address| match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    });
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match tcp {
        Some(address) if address.ip().is_unspecified() => {
            SocketAddr::new(localhost, address.port())
        }
        Some(address) => address,
        None => SocketAddr::new(localhost, sheepdog_proto::DEFAULT_PORT),
    }
}

/// Makes the directory exist, for its owner alone, and for good.
fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for dir in missing {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Makes sure that no other server uses the directory, as long as the file is open.
fn lock_dir(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!("{} is in use by another lamb", dir.display()),
        Err(err) => Err(err).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The path of a Unix socket, or how one without a path is usually written.
fn name_of(listener: &UnixListener) -> io::Result<PathBuf> {
    let address = listener.local_addr()?;
    Ok(match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.to_owned(),
        (None, name) => format!("@{}", name.unwrap_or_default().escape_ascii()).into(),
    })
}

/// Listens on a Unix socket that is the owner's alone from its first moment.
fn bind_unix(path: &Path) -> Result<UnixListener> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        bail!(
            "its path has {len} bytes, of which a socket's has {MAX_SOCKET_PATH} at most; --unix \
             says another one"
        );
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => bail!("it exists and is not a socket"),
        Ok(_) if UnixStream::connect(path).is_ok() => bail!("another program listens there"),
        // Left behind by a server that did not end in order.
        Ok(_) => fs::remove_file(path)?,
        Err(err) if err.kind() == ErrorKind::NotFound => {}
        Err(err) => return Err(err.into()),
    }
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode that the socket has before it is bound. Others may not, so it
    // is set again below, before anybody can connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listen(&socket, 1024)?;
    Ok(UnixListener::from(socket))
}

/// What descriptors are for.
struct Limits {
    connections: usize,
    open_files: usize,
}

impl Limits {
    /// Lets the process open as many files as it may, and shares them out, so that connections
    /// never take what objects need.
    fn raise() -> Limits {
        let limit = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let now = match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        let all = now.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let free = all.saturating_sub(OTHER_FILES);
        let open_files = (free / 3).clamp(16, MAX_OPEN_FILES);
        let connections = free.saturating_sub(open_files).clamp(8, MAX_CONNECTIONS);
        Limits { connections, open_files }
    }
}
