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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    open: Arc<Mutex<Vec<TcpStream>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wolf {
    /// Listens on a free port of 127.0.0.1 for clients of `gateway`.
    pub fn start(gateway: SocketAddr, flock: Arc<dyn Flock>) -> io::Result<Wolf> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let open = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (tracked, stop) = (open.clone(), ended.clone());
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { continue };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(gateway) = TcpStream::connect(gateway) else { continue };
                let streams = [client.try_clone(), gateway.try_clone()];
                lock(&tracked).extend(streams.into_iter().flatten());
                let _ = connect(number, client, gateway, flock.clone());
            }
        });
        Ok(Wolf { address, ended, open })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Wolf {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The listening thread looks up.
        let _ = TcpStream::connect(self.address);
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Requests that the gateway has not answered, by id.
type Pending = Arc<Mutex<HashMap<u32, Request>>>;

fn connect(
    number: usize,
    client: TcpStream,
    gateway: TcpStream,
    flock: Arc<dyn Flock>,
) -> io::Result<()> {
    for stream in [&client, &gateway] {
        stream.set_nodelay(true)?;
    }
    let pending = Pending::default();
    let (back, answers) = (client.try_clone()?, gateway.try_clone()?);
    let (asked, watching) = (pending.clone(), flock.clone());
    thread::spawn(move || {
        let _ = pass_answers(number, answers, &back, &asked, &*watching);
        let _ = back.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = pass_requests(number, &client, &gateway, &pending, &*flock);
        let _ = client.shutdown(Shutdown::Both);
        // The gateway carries out what it has, and its answers are read: see pass_answers().
        let _ = gateway.shutdown(Shutdown::Write);
    });
    Ok(())
}

fn pass_requests(
    number: usize,
    mut client: &TcpStream,
    mut gateway: &TcpStream,
    pending: &Pending,
    flock: &dyn Flock,
) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER_LEN];
        client.read_exact(&mut header)?;
        let request = Request::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; request.payload_len() as usize];
        client.read_exact(&mut payload)?;
        let last = match flock.request(number, &request, &payload) {
            Fate::Pass => false,
            Fate::Cut => return Ok(()),
            Fate::CutAndDeliver(wait) => {
                client.shutdown(Shutdown::Both)?;
                wait();
                true
            }
        };
        lock(pending).insert(request.id.get(), request);
        gateway.write_all(&[&header, &*payload].concat())?;
        if last {
            return Ok(());
        }
    }
}

/// Until the gateway closes: it does so once it has answered everything.
fn pass_answers(
    number: usize,
    mut gateway: TcpStream,
    mut client: &TcpStream,
    pending: &Pending,
    flock: &dyn Flock,
) -> io::Result<()> {
    let mut gone = false;
    loop {
        let mut header = [0; HEADER_LEN];
        gateway.read_exact(&mut header)?;
        let mut answer =
            Response::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; answer.data_length.get() as usize];
        gateway.read_exact(&mut payload)?;
        if let Some(request) = lock(pending).remove(&answer.id.get()) {
            flock.answer(number, &request, &mut answer, &mut payload);
        }
        answer.data_length = (payload.len() as u32).into();
        gone = gone || client.write_all(&[answer.as_bytes(), &payload].concat()).is_err();
    }
}
