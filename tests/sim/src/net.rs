//! In the place of src/net: sockets of the thread's world, and waits that let its time go on.
//!
//! Endpoints are those of [`endpoint`]: an address names the client that uses it, too.

#![allow(unsafe_code)] // iobuf: the loans of callers

#[path = "../../../src/net/iobuf.rs"]
mod iobuf;

pub use iobuf::{IoVecs, NoMemory, RecvBuf, SendBuf};

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{BitAnd, BitOr, Range};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault::ClientId;
use crate::host::NodeId;
use crate::world::{SetId, StreamId, World, WorldId};

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

/// A node as a gateway of that client.
pub fn endpoint(client: ClientId, node: NodeId) -> Endpoint {
    let byte = |n: usize| u8::try_from(n).expect("an address has a byte for it");
    let ip = Ipv4Addr::new(10, 0, byte(client), byte(node + 1));
    Endpoint::Tcp((ip, sheepdog_proto::DEFAULT_PORT).into())
}

fn parties(endpoint: &Endpoint) -> io::Result<(ClientId, NodeId)> {
    match endpoint {
        Endpoint::Tcp(SocketAddr::V4(addr)) => match addr.ip().octets() {
            [10, 0, client, node @ 1..=255] => Ok((client.into(), NodeId::from(node) - 1)),
            _ => Err(ErrorKind::HostUnreachable.into()),
        },
        _ => Err(ErrorKind::HostUnreachable.into()),
    }
}

pub struct Socket {
    world: WorldId,
    stream: StreamId,
}

impl Socket {
    pub fn start_connect(endpoint: &Endpoint) -> io::Result<Socket> {
        let (client, node) = parties(endpoint)?;
        let world = World::current();
        Ok(Socket { world: world.id(), stream: world.connect(client, node)? })
    }

    pub fn finish_connect(&self, tick: Duration) -> io::Result<()> {
        World::current().finish_connect(self.stream, tick)
    }

    pub fn send(&self, bytes: &IoVecs<'_>) -> io::Result<usize> {
        World::current().send(self.stream, bytes.as_slices())
    }

    pub fn recv(&self, buf: &mut [u8], blocking: bool) -> io::Result<usize> {
        let world = World::current();
        if blocking {
            let until = world.now() + world.tick(self.stream);
            world.wait(Some(until), || !self.ready(&world, Interest::IN).is_empty());
        }
        world.recv(self.stream, &mut [IoSliceMut::new(buf)])
    }

    pub fn recv_scattered(
        &self,
        buf: &mut RecvBuf,
        range: Range<usize>,
        tail: &mut [u8],
    ) -> io::Result<usize> {
        buf.scatter(range, tail, |iov| World::current().recv(self.stream, iov))
    }

    pub fn end(&self) {
        World::current().end_of_requests(self.stream);
    }

    pub fn shutdown(&self) {
        World::current().close(self.stream);
    }

    fn ready(&self, world: &World, interest: Interest) -> Interest {
        world.readiness(self.stream, interest)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(world) = World::get(self.world) {
            world.close(self.stream);
            world.unwatch(self.stream);
        }
    }
}

/// A flag in the place of an eventfd.
#[derive(Default)]
pub struct WakeFd(Arc<AtomicBool>);

impl WakeFd {
    pub fn new() -> io::Result<WakeFd> {
        Ok(WakeFd::default())
    }

    pub fn counting() -> io::Result<WakeFd> {
        Ok(WakeFd::default())
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub fn fd(&self) -> RawFd {
        -1
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one client waits for: sockets, a timer, a signal. Its descriptor is but a number.
pub struct EventSet {
    world: WorldId,
    set: SetId,
}

impl EventSet {
    pub fn new(signal: &WakeFd) -> io::Result<EventSet> {
        let world = World::current();
        Ok(EventSet { world: world.id(), set: world.new_set(signal.0.clone()) })
    }

    pub fn fd(&self) -> RawFd {
        self.set
    }

    pub fn add(&self, socket: &Socket, interest: Interest) -> io::Result<()> {
        World::current().watch(self.set, socket.stream, Some(interest));
        Ok(())
    }

    pub fn modify(&self, socket: &Socket, interest: Interest) -> io::Result<()> {
        self.add(socket, interest)
    }

    pub fn remove(&self, socket: &Socket) {
        World::current().watch(self.set, socket.stream, None);
    }

    pub fn set_timer(&self, delay: Option<Duration>) {
        World::current().set_timer(self.set, delay);
    }

    pub fn wait(&self, bell: &WakeFd, timeout: Option<Duration>) -> io::Result<[bool; 2]> {
        let world = World::current();
        let until = timeout.and_then(|timeout| world.now().checked_add(timeout));
        world.wait(until, || world.is_ready(self.set) || bell.is_set());
        Ok([world.is_ready(self.set), bell.is_set()])
    }
}

/// What finds the addresses of a host: nobody here.
pub type Resolver = fn(host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

pub fn resolve(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
    Err(ErrorKind::HostUnreachable.into())
}

/// The world has no names.
pub struct Lookup(Resolver);

impl Lookup {
    pub fn start(resolver: Resolver, _: Arc<str>, _: u16) -> io::Result<Lookup> {
        Ok(Lookup(resolver))
    }

    pub fn take(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        Some(self.0("", 0))
    }
}

/// No event loop watches anything here.
pub struct Tap;

impl Tap {
    pub fn new(_: &EventSet) -> io::Result<Tap> {
        Ok(Tap)
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        if let Some(world) = World::get(self.world) {
            world.drop_set(self.set);
        }
    }
}

/// There is no fork here that would need them.
pub struct Descriptors;

impl Descriptors {
    pub fn new() -> Descriptors {
        Descriptors
    }

    pub fn keep_socket(&self, _: &Socket) {}

    pub fn keep_wake(&self, _: &WakeFd) {}

    pub fn keep_set(&self, _: &EventSet) {}

    pub fn close_copies(&self) {}
}

/// Whether the client whose descriptor that is has work for a dispatch.
pub fn is_ready(fd: RawFd) -> bool {
    World::current().is_ready(fd)
}

/// What poll(2) watches and tells: the part of rustix's flags that the core uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(u8);

impl Interest {
    pub const IN: Interest = Interest(1);
    pub const OUT: Interest = Interest(2);

    pub const fn empty() -> Interest {
        Interest(0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn set(&mut self, other: Interest, on: bool) {
        self.0 = if on { self.0 | other.0 } else { self.0 & !other.0 };
    }
}

impl BitAnd for Interest {
    type Output = Interest;

    fn bitand(self, other: Interest) -> Interest {
        Interest(self.0 & other.0)
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// Which of the sockets are ready, in their order; `wake`, set, ends the wait and is cleared.
pub fn poll_sockets<'a>(
    wake: &WakeFd,
    sockets: impl Iterator<Item = (&'a Socket, Interest)>,
    timeout: Duration,
) -> io::Result<Vec<Interest>> {
    let world = World::current();
    let sockets: Vec<_> = sockets.collect();
    let until = world.now().checked_add(timeout);
    world.wait(until, || {
        wake.is_set() || sockets.iter().any(|(socket, i)| !socket.ready(&world, *i).is_empty())
    });
    wake.clear();
    Ok(sockets.iter().map(|(socket, interest)| socket.ready(&world, *interest)).collect())
}

/// Whether an I/O error only means "nothing now".
pub fn is_retry(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// All memory is there.
pub fn is_fault(_: &io::Error) -> bool {
    false
}

/// What a poll should report for a socket.
pub fn interest(read: bool, write: bool) -> Interest {
    let mut flags = Interest::empty();
    flags.set(Interest::IN, read);
    flags.set(Interest::OUT, write);
    flags
}
