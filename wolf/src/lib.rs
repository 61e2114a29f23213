//! A proxy between a Sheepdog client and its gateway that watches what they say to each other, and
//! does harm where a test wants it: cuts a connection at a chosen request, keeps a request back and
//! lets it arrive late, refuses it, changes or holds answers. And it stalls as a gateway does that
//! was stopped: it closes nothing, and what it was sent meanwhile is carried out when it goes on,
//! whoever has left by then.
//!
//! A test gives a [`Flock`], which is asked about every request and every answer. It is asked by
//! the connection's own threads, so while it waits for something that connection stands still.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Request, Response, SdResult};

/// Returns once something may go on.
pub type Wait = Box<dyn FnOnce() + Send>;

/// What becomes of a request.
pub enum Fate {
    /// It goes to the gateway.
    Pass,
    /// The client loses the connection, and the gateway never sees the request.
    Cut,
    /// The client loses the connection. The gateway gets the request once this has returned, and
    /// carries it out.
    CutAndDeliver(Wait),
    /// The gateway gets the request once this has returned; the connection goes on meanwhile.
    Hold(Wait),
    /// The client is given this result, and the gateway never sees the request.
    Refuse(SdResult),
    /// As [`Wolf::stall`], with this request as the first that waits.
    Stall,
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

    /// What the answer waits for, while others of its connection pass.
    fn hold_answer(&self, client: usize, request: &Request) -> Option<Wait> {
        let _ = (client, request);
        None
    }
}

/// Lets everything through.
pub struct Tame;

impl Flock for Tame {}

/// A running proxy; ends with its connections when it is dropped.
pub struct Wolf {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    open: Arc<Open>,
}

/// Connections that are not over, and whether anything gets on.
#[derive(Default)]
struct Open {
    connections: Mutex<HashMap<usize, Tracked>>,
    changed: Condvar,
    road: Mutex<Road>,
    free: Condvar,
}

#[derive(Default)]
struct Road {
    stalled: bool,
    /// Requests that wait for its end.
    waiting: usize,
}

struct Tracked {
    client: TcpStream,
    gateway: TcpStream,
    traffic: Arc<Mutex<Traffic>>,
}

#[derive(Default)]
struct Traffic {
    /// Requests that came and whose answers have not gone, by id.
    pending: HashMap<u32, Request>,
    /// A request is being received.
    receiving: bool,
}

/// Of a client and the gateway; over once its threads have let go of it.
struct Connection {
    number: usize,
    client: TcpStream,
    gateway: TcpStream,
    open: Arc<Open>,
    traffic: Arc<Mutex<Traffic>>,
    /// Frames must not mix.
    to_client: Mutex<()>,
}

/// The way to the gateway, which learns of its end when nobody has it any more: it carries out what
/// it got, and its answers are read.
struct ToGateway {
    connection: Arc<Connection>,
    turn: Mutex<()>,
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

    /// From now on nothing passes, on any connection, in either direction, and nothing is closed:
    /// what a client sees of a gateway that was stopped.
    pub fn stall(&self) {
        self.open.stall();
    }

    /// Ends that: what came meanwhile is carried out, also for clients that have left.
    pub fn go_on(&self) {
        lock(&self.open.road).stalled = false;
        self.open.free.notify_all();
    }

    /// Waits until a request has come that does not get on; false where there is none in time.
    pub fn await_stalled(&self, limit: Duration) -> bool {
        let road = lock(&self.open.road);
        let waited = self.open.free.wait_timeout_while(road, limit, |road| road.waiting == 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits until everything that came from clients, whether they are there or gone, has been
    /// answered; false where that takes longer.
    pub fn await_idle(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut connections = lock(&self.open.connections);
        while !connections.values().all(Tracked::is_idle) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Bytes that come in tell nobody.
            let pause = left.min(Duration::from_millis(5));
            let waited = self.open.changed.wait_timeout(connections, pause);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Wolf {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The listening thread looks up.
        let _ = TcpStream::connect(self.address);
        for connection in lock(&self.open.connections).values() {
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.gateway.shutdown(Shutdown::Both);
        }
        self.go_on();
    }
}

impl Open {
    fn stall(&self) {
        lock(&self.road).stalled = true;
    }

    /// Waits while nothing gets on; `requests` wait here, or an answer.
    fn pass(&self, requests: usize) {
        let mut road = lock(&self.road);
        if !road.stalled {
            return;
        }
        road.waiting += requests;
        self.free.notify_all();
        while road.stalled {
            road = self.free.wait(road).unwrap_or_else(PoisonError::into_inner);
        }
        road.waiting -= requests;
    }
}

impl Tracked {
    fn is_idle(&self) -> bool {
        // In this order: what is read from the socket is noted before.
        let unread = ioctl_fionread(&self.client).unwrap_or(0);
        let traffic = lock(&self.traffic);
        unread == 0 && traffic.pending.is_empty() && !traffic.receiving
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.open.connections).remove(&self.number);
        self.open.changed.notify_all();
    }
}

impl Drop for ToGateway {
    fn drop(&mut self) {
        let _ = self.connection.gateway.shutdown(Shutdown::Write);
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
    let traffic = Arc::<Mutex<Traffic>>::default();
    let tracked = Tracked {
        client: client.try_clone()?,
        gateway: gateway.try_clone()?,
        traffic: traffic.clone(),
    };
    lock(&open.connections).insert(number, tracked);
    let (open, to_client) = (open.clone(), Mutex::default());
    let connection = Arc::new(Connection { number, client, gateway, open, traffic, to_client });
    let (of, watching) = (connection.clone(), flock.clone());
    thread::spawn(move || {
        let _end = Finally(|| {
            // Nor does a client learn of an end while nothing passes.
            of.open.pass(0);
            let _ = of.client.shutdown(Shutdown::Both);
            let _ = of.gateway.shutdown(Shutdown::Both);
        });
        let _ = of.pass_answers(&watching);
    });
    let flock = flock.clone();
    thread::spawn(move || {
        let to_gateway = Arc::new(ToGateway { connection, turn: Mutex::default() });
        let connection = &to_gateway.connection;
        // A panic of the flock's.
        let cut = Finally(|| _ = connection.client.shutdown(Shutdown::Both));
        let _ = connection.pass_requests(&to_gateway, &*flock);
        // A client may stop sending and read on: it is told the end with the last answer.
        std::mem::forget(cut);
        connection.open.pass(0);
    });
    Ok(())
}

impl Connection {
    /// Until the client sends no more.
    fn pass_requests(&self, to_gateway: &Arc<ToGateway>, flock: &dyn Flock) -> io::Result<()> {
        loop {
            // Seen before it is taken out of the socket.
            self.client.peek(&mut [0])?;
            lock(&self.traffic).receiving = true;
            let received = self.receive();
            let mut traffic = lock(&self.traffic);
            traffic.receiving = false;
            let (request, payload) = received?;
            let id = request.id.get();
            traffic.pending.insert(id, request);
            drop(traffic);
            let frame = [request.as_bytes(), &payload].concat();
            match flock.request(self.number, &request, &payload) {
                Fate::Pass => to_gateway.deliver(&frame)?,
                Fate::Cut => return self.client.shutdown(Shutdown::Both),
                Fate::CutAndDeliver(wait) => {
                    self.client.shutdown(Shutdown::Both)?;
                    wait();
                    return to_gateway.deliver(&frame);
                }
                Fate::Hold(wait) => {
                    let to_gateway = to_gateway.clone();
                    thread::spawn(move || {
                        wait();
                        to_gateway.deliver(&frame)
                    });
                }
                Fate::Refuse(result) => {
                    let opcode = request.opcode;
                    let mut answer = Response { opcode, id: id.into(), ..Response::default() };
                    answer.result = result.into();
                    self.answer(&answer, &[]);
                }
                Fate::Stall => {
                    self.open.stall();
                    to_gateway.deliver(&frame)?;
                }
            }
        }
    }

    fn receive(&self) -> io::Result<(Request, Vec<u8>)> {
        let mut client = &self.client;
        let mut header = [0; HEADER_LEN];
        client.read_exact(&mut header)?;
        let request = Request::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; request.payload_len() as usize];
        client.read_exact(&mut payload)?;
        Ok((request, payload))
    }

    /// Until the gateway closes: it does so once it has answered everything.
    fn pass_answers(self: &Arc<Self>, flock: &Arc<dyn Flock>) -> io::Result<()> {
        let mut gateway = &self.gateway;
        loop {
            let mut header = [0; HEADER_LEN];
            gateway.read_exact(&mut header)?;
            let mut answer =
                Response::read_from_bytes(&header).map_err(|_| io::ErrorKind::InvalidData)?;
            let mut payload = vec![0; answer.data_length.get() as usize];
            gateway.read_exact(&mut payload)?;
            let asked = lock(&self.traffic).pending.get(&answer.id.get()).copied();
            let mut held = None;
            if let Some(request) = asked {
                flock.answer(self.number, &request, &mut answer, &mut payload);
                held = flock.hold_answer(self.number, &request);
            }
            answer.data_length = (payload.len() as u32).into();
            let Some(wait) = held else {
                self.answer(&answer, &payload);
                continue;
            };
            let connection = self.clone();
            thread::spawn(move || {
                wait();
                connection.answer(&answer, &payload);
            });
        }
    }

    /// A client that is gone does not hear it.
    fn answer(&self, answer: &Response, payload: &[u8]) {
        self.open.pass(0);
        let frame = [answer.as_bytes(), payload].concat();
        let turn = lock(&self.to_client);
        let _ = (&self.client).write_all(&frame);
        drop(turn);
        lock(&self.traffic).pending.remove(&answer.id.get());
        self.open.changed.notify_all();
    }
}

impl ToGateway {
    fn deliver(&self, frame: &[u8]) -> io::Result<()> {
        self.connection.open.pass(1);
        let _turn = lock(&self.turn);
        (&self.connection.gateway).write_all(frame)
    }
}
