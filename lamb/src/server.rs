//! The server: its directory, its listeners, its connections coming and going.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::buf::Spares;
use crate::cluster::Cluster;
use crate::conn::{Connection, Shared};
use crate::lock;
use crate::pool::Pool;
use crate::request::Peer;

/// Connections at a time; each has a thread.
const MAX_CONNECTIONS: usize = 1024;
/// Objects kept open at most, where the system lets us.
const MAX_OPEN_FILES: usize = 8192;
/// How long a client may take to read its last answers when the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Made if missing.
    pub dir: PathBuf,
    pub listen: Vec<SocketAddr>,
    /// `sock` in the directory if None.
    pub unix: Option<PathBuf>,
    /// Acknowledge only what survives the end of the machine, not just of the process.
    pub sync: bool,
    /// Enforce the locks of LOCK_VDI (4.10).
    pub use_lock: bool,
    /// Listen on addresses that others can reach, too.
    pub allow_remote: bool,
    /// Do as a 1.0 server does, also where that loses data; for tests of clients.
    pub mimic: bool,
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
    connections: Arc<Connections>,
    socket: PathBuf,
    /// Locked as long as the server runs.
    _lock: File,
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

struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    changed: Condvar,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Opens the directory and serves it, in threads of its own, until it is stopped or a client
    /// sends SHUTDOWN or KILL_NODE.
    pub fn start(options: &Options) -> Result<Server> {
        for address in &options.listen {
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
        let lock = lock_dir(dir)?;
        let open_files = raise_open_files();
        let cluster = Cluster::open(options, open_files)
            .with_context(|| format!("cannot open the store in {}", dir.display()))?;

        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &options.listen {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            // A client may be gone between the event and the accept, which must not wait then.
            listener.set_nonblocking(true)?;
            addresses.push(Address::Tcp(listener.local_addr()?));
            listeners.push(Listener::Tcp(listener));
        }
        let socket = options.unix.clone().unwrap_or_else(|| dir.join("sock"));
        let listener =
            bind_unix(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        addresses.push(Address::Unix(socket.clone()));
        listeners.push(Listener::Unix(listener));

        let shared = Arc::new(Shared { cluster, pool: Pool::new(), spares: Spares::default() });
        let connections = Arc::new(Connections { open: Mutex::default(), changed: Condvar::new() });
        let (watched, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let stopper = Stopper(Arc::new(Mutex::new(Some(stop))));
        let acceptor = Acceptor {
            node: node_address(&addresses),
            listeners,
            shared,
            connections: connections.clone(),
            stopper: stopper.clone(),
        };
        let acceptor = thread::Builder::new()
            .name("lamb-accept".into())
            .spawn(move || acceptor.run(&watched))?;
        let acceptor = Some(acceptor);
        Ok(Server { addresses, stopper, acceptor, connections, socket, _lock: lock })
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
        let Some(acceptor) = self.acceptor.take() else { return };
        if acceptor.join().is_err() {
            log::error!("the acceptor panicked");
        }
        let _ = fs::remove_file(&self.socket);
        self.connections.end();
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
    connections: Arc<Connections>,
    stopper: Stopper,
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
                    log::warn!("cannot take a connection: {err}");
                    // Mostly too many open files: wait for some of them to be closed.
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn accept(&self, listener: &Listener, id: u64) -> io::Result<()> {
        let Some((socket, node)) = listener.accept(self.node)? else { return Ok(()) };
        let connections = self.connections.clone();
        let connection = Arc::new(Connection::new(socket, Peer { node }, self.shared.clone()));
        {
            let mut open = lock(&connections.open);
            if open.len() >= MAX_CONNECTIONS {
                return Err(io::Error::other("too many connections"));
            }
            open.insert(id, connection.clone());
        }
        let stopper = self.stopper.clone();
        let registered = self.connections.clone();
        let thread = thread::Builder::new().name("lamb-conn".into()).spawn(move || {
            if connection.serve() {
                stopper.stop();
            }
            drop(connection);
            registered.remove(id);
        });
        if thread.is_err() {
            connections.remove(id);
        }
        thread.map(drop)
    }
}

impl Connections {
    fn remove(&self, id: u64) {
        lock(&self.open).remove(&id);
        self.changed.notify_all();
    }

    /// Ends all connections, after what they have asked for was done and answered.
    fn end(&self) {
        let deadline = Instant::now() + GRACE;
        let mut open = lock(&self.open);
        let mut how = Shutdown::Read;
        while !open.is_empty() {
            open.values().for_each(|connection| connection.shut(how));
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                how = Shutdown::Both;
            }
            let pause = left.max(Duration::from_millis(50));
            (open, _) =
                self.changed.wait_timeout(open, pause).unwrap_or_else(PoisonError::into_inner);
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
    sockopt::set_socket_keepalive(stream, true)?;
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

/// Listens on a Unix socket that is the owner's alone from its first moment.
fn bind_unix(path: &Path) -> Result<UnixListener> {
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
    listen(&socket, 128)?;
    Ok(UnixListener::from(socket))
}

/// Lets the process open as many files as it may, and says how many of them objects may be.
fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let free = now.map_or(usize::MAX, |n| n as usize).saturating_sub(MAX_CONNECTIONS);
    (free / 2).clamp(64, MAX_OPEN_FILES)
}
