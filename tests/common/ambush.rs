//! Lies in wait for a request and makes trouble of one kind: a [`Flock`] for tests in which
//! something is given up, or overtaken, at one certain request. What is kept back goes on when the
//! test says so, or when the wait has become so long that the test has failed.

use std::env;
use std::fmt::{self, Debug, Formatter};
use std::net::ToSocketAddrs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sheepdog_proto::inode::{MAP_OFFSET, TAG_OFFSET, VDI_SIZE_OFFSET};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{self, FLAG_ATTR_CREAT, FLAG_ATTR_DEL};
use sheepdog_proto::{Oid, Request, Response, SdResult};
use wolf::{Fate, Flock, Tame, Wait, Wolf};

use super::api::{Code, Sd};
use super::server::Server;

/// No test waits so long unless it fails.
pub const STUCK: Duration = Duration::from_secs(60);

/// Milliseconds, for sd_set_timeout(): what an operation has that is to be given up once it is
/// stuck, what one has that may be, and what one has that must not be.
pub const SHORT: u32 = 1500;
pub const SOME: u32 = 3000;
pub const LONG: u32 = 30_000;

pub type Which = fn(&Request) -> bool;

/// What becomes of the request that was waited for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Trap {
    /// The gateway stops at it.
    Stall,
    /// It alone does not get on.
    Hold,
    /// As `Hold`, and so do all others of its kind.
    HoldAll,
    /// It is carried out, and its answer does not get on.
    HoldAnswer,
    /// It is carried out, and the connection is gone without an answer.
    Lose,
    /// It is refused, and so are all others of its kind, until released.
    Refuse(SdResult),
}

/// Where a test makes trouble, and of what kind, with a name for messages.
#[derive(Clone, Copy)]
pub struct Step(pub &'static str, pub Trap, pub Which);

impl Debug for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.0, self.1)
    }
}

/// Changes answers.
pub type Tamper = fn(&Request, &mut Response, &mut Vec<u8>);

#[derive(Default)]
pub struct Ambush {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    trap: Option<(Trap, Which)>,
    /// Requests that may pass before the one that is waited for.
    spared: usize,
    /// An answer to be held: of this connection, and this request.
    awaited: Option<(usize, u32)>,
    /// Requests that were met.
    met: usize,
    /// Counts the times that what was kept back was let go.
    releases: usize,
    tamper: Option<Tamper>,
    /// All requests that came and were answered since a trap was laid, in this order.
    came: Vec<Request>,
    answered: Vec<Request>,
}

impl Ambush {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for the next request that `which` names.
    pub fn lay(&self, trap: Trap, which: Which) {
        self.lay_after(0, trap, which);
    }

    /// Waits for the one after as many such requests.
    pub fn lay_after(&self, spared: usize, trap: Trap, which: Which) {
        let mut state = self.state();
        state.trap = Some((trap, which));
        state.spared = spared;
        state.met = 0;
        state.came.clear();
        state.answered.clear();
    }

    /// Changes all answers from now on.
    pub fn tamper(&self, tamper: Tamper) {
        self.state().tamper = Some(tamper);
    }

    fn wait(&self, limit: Duration, what: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), limit, |state| !what(state));
        !waited.unwrap().1.timed_out()
    }

    /// Waits until the request has come.
    pub fn await_prey(&self) {
        assert!(self.wait(STUCK, |state| state.met > 0), "there was no such request");
    }

    pub fn met(&self) -> usize {
        self.state().met
    }

    /// Whether such a request has come since the trap was laid, or does within `limit`.
    pub fn await_request(&self, limit: Duration, which: Which) -> bool {
        self.wait(limit, |state| state.came.iter().any(which))
    }

    /// As [`Ambush::await_request`], and has been answered.
    pub fn await_answer(&self, limit: Duration, which: Which) -> bool {
        self.wait(limit, |state| state.answered.iter().any(which))
    }

    /// Lets go what was kept back, and takes the trap away.
    pub fn release(&self) {
        let mut state = self.state();
        state.trap = None;
        state.awaited = None;
        state.releases += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Ends with the next release.
    fn until_released(self: &Arc<Self>, state: &State) -> Wait {
        let (ambush, releases) = (self.clone(), state.releases);
        Box::new(move || _ = ambush.wait(STUCK, |state| state.releases > releases))
    }
}

/// An [`Ambush`] for one wolf.
pub struct Hidden(pub Arc<Ambush>);

impl Flock for Hidden {
    fn request(&self, client: usize, request: &Request, _: &[u8]) -> Fate {
        let mut state = self.0.state();
        state.came.push(*request);
        self.0.changed.notify_all();
        let Some((trap, _)) = state.trap.filter(|(_, which)| which(request)) else {
            return Fate::Pass;
        };
        if let Some(less) = state.spared.checked_sub(1) {
            state.spared = less;
            return Fate::Pass;
        }
        state.met += 1;
        if !matches!(trap, Trap::HoldAll | Trap::Refuse(_)) {
            state.trap = None;
        }
        match trap {
            Trap::Stall => Fate::Stall,
            Trap::Hold | Trap::HoldAll => Fate::Hold(self.0.until_released(&state)),
            Trap::HoldAnswer => {
                state.awaited = Some((client, request.id.get()));
                Fate::Pass
            }
            Trap::Lose => Fate::CutAndDeliver(Box::new(|| {})),
            Trap::Refuse(result) => Fate::Refuse(result),
        }
    }

    fn answer(&self, _: usize, request: &Request, answer: &mut Response, payload: &mut Vec<u8>) {
        let mut state = self.0.state();
        state.answered.push(*request);
        let tamper = state.tamper;
        drop(state);
        self.0.changed.notify_all();
        if let Some(tamper) = tamper {
            tamper(request, answer, payload);
        }
    }

    fn hold_answer(&self, client: usize, request: &Request) -> Option<Wait> {
        let state = self.0.state();
        let held = state.awaited == Some((client, request.id.get()));
        held.then(|| self.0.until_released(&state))
    }
}

/// A lamb with a real server's hazards and two gateways to it, of which the first has an ambush. Or
/// the cluster at SD_TEST_ADDR, for one test at a time, which it must have to itself.
pub struct Fold {
    server: Server,
    pub ambush: Arc<Ambush>,
    pub first: Wolf,
    pub second: Wolf,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Fold {
    pub fn new() -> Fold {
        match Server::from_env() {
            Some(server) => Fold::on_cluster(server),
            None => Fold::on(Server::lamb(&["--mimic-1.0"]), None),
        }
    }

    /// One that locks VDIs. None, and a word about it, where a cluster does not: SD_TEST_LOCKS=1
    /// says that it does.
    pub fn with_locks() -> Option<Fold> {
        match Server::from_env() {
            Some(server) if env::var("SD_TEST_LOCKS").is_ok() => Some(Fold::on_cluster(server)),
            Some(_) => {
                println!("skipped: SD_TEST_LOCKS does not say that the cluster locks VDIs");
                None
            }
            None => Some(Fold::on(Server::lamb(&["--mimic-1.0", "--use-lock"]), None)),
        }
    }

    /// On an empty cluster.
    fn on_cluster(server: Server) -> Fold {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let fold = Fold::on(server, Some(turn));
        let sd = fold.other();
        for name in ["a", "b", "clone"] {
            // Attributes outlive their VDI (4.11).
            let _ = sd.delete_attr(name, "key");
            let ids = sd.snapshots(name, |handle| sd.info(handle).unwrap().snap_id);
            for id in ids.unwrap_or_default() {
                let _ = sd.delete_snapshot(name, super::api::Which::Id(id));
            }
            let _ = sd.delete(name);
        }
        assert_eq!(sd.list().unwrap(), [""; 0], "the cluster is not empty");
        fold
    }

    fn on(server: Server, turn: Option<MutexGuard<'static, ()>>) -> Fold {
        let ambush = Arc::<Ambush>::default();
        let start = |gateway, flock: Arc<dyn Flock>| {
            let address = server.gateway(gateway).to_socket_addrs().expect("an address").next();
            Wolf::start(address.expect("an address"), flock).expect("a port")
        };
        let first = start(0, Arc::new(Hidden(ambush.clone())));
        let second = start(1, Arc::new(Tame));
        Fold { server, ambush, first, second, _turn: turn }
    }

    /// A client of both gateways, which begins with the first.
    pub fn sd(&self) -> Sd {
        let both = format!("{},{}", self.first.address(), self.second.address());
        Sd::connect(&both).expect("a connection")
    }

    /// A client of the server itself.
    pub fn other(&self) -> Sd {
        Sd::connect(&self.server.address(2)).expect("a connection")
    }

    /// Runs an operation that cannot end, since a request of it gets into `trap`.
    pub fn give_up<T: Debug>(
        &self,
        sd: &Sd,
        trap: Trap,
        which: Which,
        operation: impl FnOnce() -> Result<T, Code>,
    ) {
        self.ambush.lay(trap, which);
        sd.set_timeout(SHORT);
        let result = operation();
        sd.set_timeout(LONG);
        assert_eq!(result.map(|_| ()), Err(Code::TIMEDOUT), "with {trap:?}");
        self.ambush.await_prey();
    }

    /// Runs an operation, and a rival once the operation is held up by the trap that was laid. Its
    /// result, and whether it was.
    pub fn race<T: Send>(
        &self,
        operation: impl FnOnce() -> T + Send,
        rival: impl FnOnce(),
    ) -> (T, bool) {
        thread::scope(|scope| {
            let held = scope.spawn(operation);
            let step = Duration::from_millis(10);
            while !held.is_finished() && !self.ambush.wait(step, |state| state.met > 0) {}
            let met = self.ambush.met() > 0;
            let result = met.then(|| catch_unwind(AssertUnwindSafe(rival)));
            self.release();
            if let Some(Err(panic)) = result {
                resume_unwind(panic);
            }
            (held.join().unwrap(), met)
        })
    }

    /// What was kept back goes on, and is over when this returns.
    pub fn release(&self) {
        self.ambush.release();
        self.first.go_on();
        assert!(self.first.await_idle(STUCK), "the gateway does not answer");
    }
}

/// Tries an operation that may have to wait until the release: whether it succeeded.
pub fn attempt<T: Debug>(sd: &Sd, operation: impl Fn() -> Result<T, Code>) -> bool {
    sd.set_timeout(SOME);
    let done = (0..2).any(|_| match operation() {
        Ok(_) => true,
        Err(code) => {
            assert_eq!(code, Code::TIMEDOUT, "of what waits");
            false
        }
    });
    sd.set_timeout(LONG);
    done
}

/// Runs a test for each of the cases, side by side, and tells which fail.
pub fn each<C: Copy + Debug + Send>(cases: &[C], test: impl Fn(C) + Sync) {
    let failed: Vec<C> = thread::scope(|scope| {
        let test = &test;
        let run = |&case: &C| {
            scope.spawn(move || catch_unwind(AssertUnwindSafe(|| test(case))).err().map(|_| case))
        };
        let threads: Vec<_> = cases.iter().map(run).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "failed: {failed:?}");
}

pub fn oid(request: &Request) -> Oid {
    Oid(request.obj().oid.get())
}

fn is(request: &Request, opcode: u8, kind: OidKind) -> bool {
    request.opcode == opcode && oid(request).kind() == Some(kind)
}

fn is_inode_write(request: &Request, at: std::ops::Range<u32>) -> bool {
    let changes = request.payload_len() > 0;
    changes
        && is(request, op::WRITE_OBJ, OidKind::Inode)
        && at.contains(&request.obj().offset.get())
}

pub fn is_write(request: &Request) -> bool {
    is(request, op::WRITE_OBJ, OidKind::Data) && request.payload_len() > 0
}

pub fn is_creation(request: &Request) -> bool {
    is(request, op::CREATE_AND_WRITE_OBJ, OidKind::Data)
}

pub fn is_map_update(request: &Request) -> bool {
    is_inode_write(request, MAP_OFFSET..u32::MAX)
}

pub fn is_tag_write(request: &Request) -> bool {
    is_inode_write(request, TAG_OFFSET..TAG_OFFSET + 1)
}

pub fn is_size_write(request: &Request) -> bool {
    is_inode_write(request, VDI_SIZE_OFFSET..VDI_SIZE_OFFSET + 1)
}

/// Of an inode's, its map, or what VDIs there are.
pub fn is_change(request: &Request) -> bool {
    is_inode_write(request, 0..u32::MAX) || is_deletion(request) || is_new_vdi(request)
}

pub fn is_deletion(request: &Request) -> bool {
    request.opcode == op::DEL_VDI
}

pub fn is_new_vdi(request: &Request) -> bool {
    request.opcode == op::NEW_VDI
}

pub fn is_lookup(request: &Request) -> bool {
    request.opcode == op::GET_VDI_INFO
}

pub fn is_lock(request: &Request) -> bool {
    request.opcode == op::LOCK_VDI
}

pub fn is_release(request: &Request) -> bool {
    request.opcode == op::RELEASE_VDI
}

pub fn is_inode_read(request: &Request) -> bool {
    is(request, op::READ_OBJ, OidKind::Inode)
}

pub fn is_attr_write(request: &Request) -> bool {
    is(request, op::WRITE_OBJ, OidKind::Attr)
}

pub fn is_attr_creation(request: &Request) -> bool {
    request.opcode == op::GET_VDI_ATTR && request.flags.get() & FLAG_ATTR_CREAT != 0
}

pub fn is_attr_deletion(request: &Request) -> bool {
    request.opcode == op::GET_VDI_ATTR && request.flags.get() & FLAG_ATTR_DEL != 0
}
