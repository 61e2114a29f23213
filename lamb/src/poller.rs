//! Waits for many connections at once: for those that nobody serves, and for sockets that are full.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::conn::Connection;

/// Events that are taken at a time.
const EVENTS: usize = 256;
/// How often somebody looks after the connections.
const TICK: Duration = Duration::from_secs(1);
/// What a connection never has as its id.
const STOP: u64 = 0;

/// Connections that wait for one thing, each until it comes the next time.
pub struct Poller {
    epoll: OwnedFd,
    events: EventFlags,
}

impl Poller {
    pub fn readable() -> io::Result<Poller> {
        Poller::new(EventFlags::IN)
    }

    pub fn writable() -> io::Result<Poller> {
        Poller::new(EventFlags::OUT)
    }

    fn new(events: EventFlags) -> io::Result<Poller> {
        let events = events | EventFlags::ONESHOT;
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events })
    }

    /// Waits for a connection once.
    pub fn arm(&self, conn: &Connection) -> io::Result<()> {
        let data = EventData::new_u64(conn.id);
        match epoll::modify(&self.epoll, conn.socket(), data, self.events) {
            Err(Errno::NOENT) => Ok(epoll::add(&self.epoll, conn.socket(), data, self.events)?),
            result => Ok(result?),
        }
    }

    /// Calls `each` for every connection that what it waits for has come for, and `tick` from time
    /// to time, until `stop` is closed at its other end.
    pub fn run(&self, stop: &OwnedFd, each: impl Fn(u64), tick: impl Fn()) -> io::Result<()> {
        epoll::add(&self.epoll, stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let mut events = Vec::with_capacity(EVENTS);
        let mut ticked = Instant::now();
        loop {
            let timeout = Timespec::try_from(TICK).map_err(|_| io::ErrorKind::InvalidInput)?;
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return Ok(()),
                    id => each(id),
                }
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                tick();
            }
        }
    }
}
