//! One thread that has everything meet: it takes what the rings have, has the disk do it, and gives
//! it back. Sleeps where there is nothing, in one epoll over the listener, the frontend, the rings'
//! kick descriptors, the cluster's descriptor and the signals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::control::{Connection, Session};
use crate::device::{Disk, Outcome};
use crate::request::{Status, StatusByte};
use crate::ring::Taken;

const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Who is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Ready {
    Listener,
    Frontend,
    Ring,
    Cluster,
    Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    End,
    Measure,
}

/// What was under way.
enum Ended {
    Request {
        ring: usize,
        head: u16,
        status: StatusByte,
        outcome: Outcome,
    },
    /// Whether the disk has another size now.
    Measured(sheepdog::Result<bool>),
}

type Running = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// What is under way, and where it goes on.
pub struct Work {
    pub disk: Disk,
    running: FuturesUnordered<Running>,
    /// There was no memory for a request: nothing is taken until another one ends.
    pub full: bool,
    woken: Arc<Woken>,
    epoll: Arc<OwnedFd>,
}

/// What a guest kicks, as long as it is watched: to close it does not end that, as the frontend has
/// it, too.
pub struct Kick {
    descriptor: File,
    epoll: Arc<OwnedFd>,
}

impl Drop for Kick {
    fn drop(&mut self) {
        let _ = epoll::delete(&self.epoll, &self.descriptor);
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    fn new(disk: Disk, epoll: Arc<OwnedFd>) -> Work {
        let woken = Arc::new(Woken::default());
        Work { disk, running: FuturesUnordered::new(), full: false, woken, epoll }
    }

    /// Has the server wake up whenever the guest kicks: each time it does, so that nobody has to
    /// read the descriptor.
    pub fn watch(&self, kick: File) -> io::Result<Kick> {
        add(&self.epoll, &kick, Ready::Ring, EventFlags::IN | EventFlags::ET)?;
        Ok(Kick { descriptor: kick, epoll: self.epoll.clone() })
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// A request that has ended, if there is one; begins those that have not begun.
    fn next(&mut self) -> Option<Ended> {
        let waker = Waker::from(self.woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            match self.running.poll_next_unpin(&mut context) {
                Poll::Ready(ended) => return ended,
                // It may stop to let others run.
                Poll::Pending if self.woken.0.load(Ordering::Relaxed) => {}
                Poll::Pending => return None,
            }
        }
    }
}

impl Session {
    /// Does what there is; whether there is nothing more.
    fn turn(&mut self) -> bool {
        self.wakes();
        self.submit();
        self.reap();
        self.work.disk.cluster.dispatch();
        self.reap();
        self.signal();
        self.sleeps()
    }

    /// Takes what is new in the rings.
    pub fn submit(&mut self) {
        let (limits, stable) = (self.work.disk.limits(), self.writes_through());
        for (index, ring) in self.rings.iter_mut().enumerate() {
            while !self.work.full
                && let Some(Taken { head, request }) = ring.take(&self.memory, limits)
            {
                match request {
                    Ok(request) => {
                        ring.in_flight += 1;
                        let carried_out = self.work.disk.carry_out(request.action, stable);
                        let status = request.status;
                        self.work.running.push(Box::pin(async move {
                            let outcome = carried_out.await;
                            Ended::Request { ring: index, head, status, outcome }
                        }));
                    }
                    Err(malformed) => {
                        log::error!("a request that is none: {}", malformed.0);
                        ring.finish(&self.memory, head, 0);
                    }
                }
            }
        }
    }

    /// Looks how large the VDI is, and tells the guest where that has changed.
    fn measure(&mut self) {
        let measured = self.work.disk.measure();
        self.work.running.push(Box::pin(async move { Ended::Measured(measured.await) }));
    }

    /// Gives back what has ended.
    pub fn reap(&mut self) {
        while let Some(ended) = self.work.next() {
            let (ring, head, status, outcome) = match ended {
                Ended::Request { ring, head, status, outcome } => (ring, head, status, outcome),
                Ended::Measured(Ok(is_new)) => {
                    if is_new {
                        self.tell_of_change();
                    }
                    continue;
                }
                Ended::Measured(Err(error)) => {
                    log::error!("{error}");
                    continue;
                }
            };
            // Of a frontend that is gone.
            let Some(ring) = self.rings.get_mut(ring).filter(|ring| ring.in_flight > 0) else {
                continue;
            };
            ring.in_flight -= 1;
            let (told, len) = match outcome {
                Outcome::NoMemory if !self.work.running.is_empty() => {
                    ring.put_back(head);
                    self.work.full = true;
                    continue;
                }
                // There is never as much.
                Outcome::NoMemory => (Status::Failed, 0),
                Outcome::Told(told, len) => (told, len),
            };
            self.work.full = false;
            status.put(told);
            ring.finish(&self.memory, head, len + 1);
        }
    }

    /// Tells the guest, once for each ring that has something for it.
    pub fn signal(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.signal(&self.memory));
    }

    /// Whether there is nothing to be taken; the guest kicks then.
    fn sleeps(&mut self) -> bool {
        let mut more = false;
        for ring in &mut self.rings {
            more |= ring.sleep(&self.memory);
        }
        // What ends wakes us.
        !more || self.work.full
    }

    fn wakes(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.wake(&self.memory));
    }
}

/// The server of one disk.
pub struct Server {
    epoll: Arc<OwnedFd>,
    listener: UnixListener,
    session: Arc<Mutex<Session>>,
    connection: Option<Connection>,
    /// The next frontend may come.
    listening: bool,
}

fn add(epoll: &OwnedFd, fd: impl AsFd, ready: Ready, flags: EventFlags) -> io::Result<()> {
    Ok(epoll::add(epoll, fd, EventData::new_u64(ready as u64), flags)?)
}

impl Server {
    /// With signals that can be read from `signals`.
    pub fn new(disk: Disk, listener: UnixListener, signals: impl AsFd) -> io::Result<Server> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        listener.set_nonblocking(true)?;
        add(&epoll, &listener, Ready::Listener, EventFlags::IN)?;
        add(&epoll, &disk.cluster, Ready::Cluster, EventFlags::IN)?;
        add(&epoll, signals, Ready::Signal, EventFlags::IN)?;
        let session = Arc::new(Mutex::new(Session::new(Work::new(disk, epoll.clone()))));
        Ok(Server { epoll, listener, session, connection: None, listening: true })
    }

    /// Serves frontends, one after the other, until it is asked to end; the disk is given back then,
    /// with nothing under way.
    pub fn run(mut self, mut ask: impl FnMut() -> Option<Ask>) -> io::Result<Disk> {
        let mut events = Vec::with_capacity(16);
        loop {
            // The frontend and the signals are heard however busy the guest is.
            let timeout = if lock(&self.session).turn() { None } else { Some(&NONE) };
            self.listen_again()?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let Event { data, .. } = *event;
                match data.u64() {
                    ready if ready == Ready::Listener as u64 => self.accept()?,
                    ready if ready == Ready::Frontend as u64 => self.hear(),
                    ready if ready == Ready::Signal as u64 => match ask() {
                        Some(Ask::End) => return Ok(self.end()),
                        Some(Ask::Measure) => lock(&self.session).measure(),
                        None => {}
                    },
                    // What they have is looked at anyway.
                    _ => {}
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            // It has gone again.
            Err(error) => {
                log::warn!("accept: {error}");
                return Ok(());
            }
        };
        stream.set_nonblocking(false)?;
        add(&self.epoll, &stream, Ready::Frontend, EventFlags::IN)?;
        epoll::delete(&self.epoll, &self.listener)?;
        self.listening = false;
        self.connection = Some(Connection::new(stream, &self.session)?);
        log::info!("a frontend has come");
        Ok(())
    }

    /// What the frontend says.
    fn hear(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let Err(error) = connection.handle() else { return };
        match error {
            vhost::vhost_user::Error::Disconnected => log::info!("the frontend has gone"),
            error => log::error!("the frontend is left: {error}"),
        }
        let _ = epoll::delete(&self.epoll, &*connection);
        self.connection = None;
        lock(&self.session).leave();
    }

    /// The next frontend is heard once nothing of the last one is under way: a write of that one
    /// could come after its own otherwise.
    fn listen_again(&mut self) -> io::Result<()> {
        if self.listening || self.connection.is_some() {
            return Ok(());
        }
        if lock(&self.session).work.is_idle() {
            add(&self.epoll, &self.listener, Ready::Listener, EventFlags::IN)?;
            self.listening = true;
        }
        Ok(())
    }

    fn end(self) -> Disk {
        let Server { session, connection, .. } = self;
        lock(&session).stop_all();
        drop(connection);
        let session = Arc::into_inner(session).expect("the connection had the other one");
        let session = session.into_inner().unwrap_or_else(PoisonError::into_inner);
        session.work.disk
    }
}
