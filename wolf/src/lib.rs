//! A proxy between a Sheepdog client and its gateway that watches what they say to each other, and
//! does harm where a test wants it: cuts a connection at a chosen request, keeps a request back and
//! lets it arrive late, changes or holds answers.
//!
//! A test gives a [`Flock`], which is asked about every request and every answer. It is asked by
//! the connection's own threads, so while it waits for something that connection stands still.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Request, Response};

/// What becomes of a request.
pub enum Fate {
    /// It goes to the gateway.
    Pass,
    /// The client loses the connection, and the gateway never sees the request.
    Cut,
    /// The client loses the connection. The gateway gets the request once this has returned, and
    /// carries it out.
    CutAndDeliver(Box<dyn FnOnce()>),
}

/// Who is asked.
pub trait Flock: Send + Sync {
    /// `client` numbers the connections; a request's id is its own only within one.
    fn request(&self, client: usize, request: &Request, payload: &[u8]) -> Fate {
        let _ = (client, request, payload);
        Fate::Pass
    }

    /// May change the answer; the length of its payload is put right afterwards.
    fn answer(
        &self,
        client: usize,
        request: &Request,
        answer: &mut Response,
        payload: &mut Vec<u8>,
    ) {
        let _ = (client, request, answer, payload);
    }
}

/// A running proxy; ends with its connections when it is dropped.
pub struct Wolf {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    open: Arc<Open>,
}

/// Connections that are not over.
#[derive(Default)]
struct Open {
    connections: Mutex<HashMap<usize, [TcpStream; 2]>>,
    changed: Condvar,
}

/// Of a client and the gateway; over once both threads have let go of it.
struct Connection {
    number: usize,
    client: TcpStream,
    gateway: TcpStream,
    open: Arc<Open>,
    /// Requests that the gateway has not answered, by id.
    pending: Mutex<HashMap<u32, Request>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wolf {
    /// Listens on a free port of 127.0.0.1 for clients of `gateway`.
    pub fn start(gateway: SocketAddr, flock: Arc<dyn Flock>) -> io::Result<Wolf> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let open = Arc::new(Open::default());
        let ended = Arc::new(AtomicBool::new(false));
        let (tracked, stop) = (open.clone(), ended.clone());
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // A client whose gateway is not there loses the connection.
                if let Ok(gateway) = TcpStream::connect(gateway) {
                    let _ = connect(number, client, gateway, &tracked, &flock);
                }
            }
        });
        Ok(Wolf { address, ended, open })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Once its clients are gone: waits until the gateway has carried out all that came from them.
    pub fn settle(&self) {
        let mut connections = lock(&self.open.connections);
        while !connections.is_empty() {
            let waited = self.open.changed.wait(connections);
            connections = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Wolf {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The listening thread looks up.
        let _ = TcpStream::connect(self.address);
        for stream in lock(&self.open.connections).values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.open.connections).remove(&self.number);
        self.open.changed.notify_all();
    }
}

/// Runs when a thread ends, also by a panic of the flock's.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn connect(
    number: usize,
    client: TcpStream,
    gateway: TcpStream,
    open: &Arc<Open>,
    flock: &Arc<dyn Flock>,
) -> io::Result<()> {
    for stream in [&client, &gateway] {
        stream.set_nodelay(true)?;
    }
    let streams = [client.try_clone()?, gateway.try_clone()?];
    lock(&open.connections).insert(number, streams);
    let (open, pending) = (open.clone(), Mutex::default());
    let connection = Arc::new(Connection { number, client, gateway, open, pending });
    let (of, watching) = (connection.clone(), flock.clone());
    thread::spawn(move || {
        let _end = Finally(|| {
            let _ = of.client.shutdown(Shutdown::Both);
            let _ = of.gateway.shutdown(Shutdown::Both);
        });
        let _ = of.pass_answers(&*watching);
    });
    let flock = flock.clone();
    thread::spawn(move || {
        let _end = Finally(|| {
            let _ = connection.client.shutdown(Shutdown::Both);
            // The gateway carries out what it has, and its answers are read.
            let _ = connection.gateway.shutdown(Shutdown::Write);
        });
        let _ = connection.pass_requests(&*flock);
    });
    Ok(())
}

impl Connection {
    fn pass_requests(&self, flock: &dyn Flock) -> io::Result<()> {
        let (mut client, mut gateway) = (&self.client, &self.gateway);
        loop {
            let mut header = [0; HEADER_LEN];
            client.read_exact(&mut header)?;
            let request =
                Request::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
            let mut payload = vec![0; request.payload_len() as usize];
            client.read_exact(&mut payload)?;
            let last = match flock.request(self.number, &request, &payload) {
                Fate::Pass => false,
                Fate::Cut => return Ok(()),
                Fate::CutAndDeliver(wait) => {
                    client.shutdown(Shutdown::Both)?;
                    wait();
                    true
                }
            };
            lock(&self.pending).insert(request.id.get(), request);
            gateway.write_all(&[&header, &*payload].concat())?;
            if last {
                return Ok(());
            }
        }
    }

    /// Until the gateway closes: it does so once it has answered everything.
    fn pass_answers(&self, flock: &dyn Flock) -> io::Result<()> {
        let (mut client, mut gateway) = (&self.client, &self.gateway);
        let mut gone = false;
        loop {
            let mut header = [0; HEADER_LEN];
            gateway.read_exact(&mut header)?;
            let mut answer =
                Response::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
            let mut payload = vec![0; answer.data_length.get() as usize];
            gateway.read_exact(&mut payload)?;
            let asked = lock(&self.pending).remove(&answer.id.get());
            if let Some(request) = asked {
                flock.answer(self.number, &request, &mut answer, &mut payload);
            }
            answer.data_length = (payload.len() as u32).into();
            let bytes = [answer.as_bytes(), &payload].concat();
            gone = gone || client.write_all(&bytes).is_err();
        }
    }
}
