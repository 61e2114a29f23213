//! What protocol.md says can happen on the servers does happen in the model, in some order of its
//! steps, and does not where a hazard is turned off.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use sheepdog_proto::header::{ObjArm, VdiArm};
use sheepdog_proto::inode::map_entry_offset;
use sheepdog_proto::{Oid, Request, SdResult, Vid, name_field, op};
use sim::host::{Host, NodeId, Task};
use sim::model::{Cluster, Config, Hazards};

const SEEDS: u32 = 300;

/// A world in which any pause may be the next to end.
#[derive(Default)]
struct Shuffled {
    state: Cell<u64>,
    nodes: RefCell<Vec<NodeId>>,
    epoch: Cell<u32>,
    tasks: RefCell<Vec<(NodeId, Task)>>,
    pauses: RefCell<Vec<Rc<Cell<bool>>>>,
}

impl Host for Shuffled {
    fn pause(&self, _: NodeId, _: &'static str) -> Task {
        let over = Rc::new(Cell::new(false));
        self.pauses.borrow_mut().push(over.clone());
        Box::pin(std::future::poll_fn(move |_| match over.get() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }))
    }

    fn spawn(&self, at: NodeId, task: Task) {
        if self.nodes.borrow().contains(&at) {
            self.tasks.borrow_mut().push((at, task));
        }
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    fn members(&self) -> Vec<NodeId> {
        self.nodes.borrow().clone()
    }
}

impl Shuffled {
    fn roll(&self, sides: usize) -> usize {
        let mut x = self.state.get();
        (0..3).for_each(|_| x = (x ^ (x << 13)).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (x >> 7));
        self.state.set(x);
        (x >> 33) as usize % sides
    }

    /// Lets every task run on, and ends a pause; false where there is nothing left to do.
    fn step(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        let open = tasks.into_iter().filter_map(|(node, mut task)| {
            task.as_mut().poll(&mut context).is_pending().then_some((node, task))
        });
        let open: Vec<_> = open.collect();
        self.tasks.borrow_mut().extend(open);
        self.pauses.borrow_mut().retain(|pause| Rc::strong_count(pause) > 1);
        let pauses = self.pauses.borrow().clone();
        let Some(pause) = pauses.get(self.roll(pauses.len().max(1))) else {
            return !self.tasks.borrow().is_empty();
        };
        pause.set(true);
        self.pauses.borrow_mut().retain(|other| !Rc::ptr_eq(other, pause));
        true
    }

    fn kill(&self, node: NodeId) {
        self.nodes.borrow_mut().retain(|member| *member != node);
        self.epoch.set(self.epoch.get() + 1);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        let (dead, alive): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(at, _)| *at == node);
        self.tasks.borrow_mut().extend(alive);
        drop(dead);
    }
}

struct Servers {
    host: Rc<Shuffled>,
    model: Rc<Cluster>,
}

type Sent = Rc<Cell<Option<SdResult>>>;

impl Servers {
    fn new(seed: u32, nodes: usize, hazards: Hazards) -> Servers {
        let host = Rc::new(Shuffled::default());
        host.state.set(u64::from(seed) * 2 + 1);
        host.epoch.set(1);
        host.nodes.borrow_mut().extend(0..nodes);
        let config = Config { nodes, copies: nodes as u8, hazards, ..Config::default() };
        let model = Cluster::new(host.clone(), config);
        Servers { host, model }
    }

    fn send(&self, gateway: NodeId, (request, payload): (Request, Vec<u8>)) -> Sent {
        let sent = Sent::default();
        let (answer, model) = (sent.clone(), self.model.clone());
        let task = async move {
            let (response, _) = model.serve(gateway, request, payload).await;
            answer.set(Some(response.result()));
        };
        self.host.spawn(gateway, Box::pin(task));
        sent
    }

    fn finish(&self) {
        let mut steps = 0;
        while self.host.step() {
            steps += 1;
            assert!(steps < 100_000, "the servers do not come to an end");
        }
    }

    /// Sends and waits for the answer alone, not for what the servers do after it.
    fn ask(&self, request: (Request, Vec<u8>)) -> SdResult {
        let sent = self.send(0, request);
        while sent.get().is_none() {
            assert!(self.host.step() || sent.get().is_some(), "no answer");
        }
        sent.get().expect("just seen")
    }

    /// A VDI with one object.
    fn vdi(&self) -> Vid {
        assert_eq!(self.ask(new_vdi(None)), SdResult::SUCCESS);
        let vid = Vid::new(*self.model.in_use().first().expect("a VDI")).expect("24 bits");
        assert_eq!(self.ask(create(vid.data(0), 0, 1)), SdResult::SUCCESS);
        assert_eq!(self.ask(map(vid, vid.get())), SdResult::SUCCESS);
        self.finish();
        vid
    }

    fn byte(&self, oid: Oid, offset: u64) -> Option<u8> {
        self.model.objects().get(&oid.0).map(|object| object.read(offset, 1)[0])
    }

    fn entry(&self, vid: Vid) -> u32 {
        self.model.inode(vid.get()).and_then(|i| i.map.get(&0).copied()).unwrap_or(0)
    }
}

fn new_vdi(base: Option<Vid>) -> (Request, Vec<u8>) {
    let arm = VdiArm {
        vdi_size: (1 << 22).into(),
        base_vdi_id: base.map_or(0, Vid::get).into(),
        snapid: u32::from(base.is_some()).into(),
        ..Default::default()
    };
    let name = name_field(b"alpha").expect("short").to_vec();
    (Request::new(op::NEW_VDI, op::FLAG_WRITE, arm).with_length(256), name)
}

fn object(opcode: u8, oid: Oid, offset: u32, data: Vec<u8>) -> (Request, Vec<u8>) {
    let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..Default::default() };
    (Request::new(opcode, op::FLAG_WRITE, arm).with_length(data.len() as u32), data)
}

fn create(oid: Oid, offset: u32, byte: u8) -> (Request, Vec<u8>) {
    object(op::CREATE_AND_WRITE_OBJ, oid, offset, vec![byte; 512])
}

fn map(vid: Vid, entry: u32) -> (Request, Vec<u8>) {
    object(op::WRITE_OBJ, vid.inode(), map_entry_offset(0), entry.to_le_bytes().to_vec())
}

/// In how many orders of the steps something happens.
fn times(happens: impl Fn(u32) -> bool) -> u32 {
    (0..SEEDS).map(|seed| u32::from(happens(seed))).sum()
}

#[test]
fn of_two_creates_one_loses_its_data() {
    let lost = times(|seed| {
        let servers = Servers::new(seed, 1, Hazards::all());
        let vid = servers.vdi();
        let both = [create(vid.data(1), 0, 7), create(vid.data(1), 512, 7)];
        let both = both.map(|request| servers.send(0, request));
        servers.finish();
        assert!(both.iter().all(|sent| sent.get() == Some(SdResult::SUCCESS)));
        servers.byte(vid.data(1), 0) != servers.byte(vid.data(1), 512)
    });
    assert_eq!(lost, SEEDS);
}

#[test]
fn a_map_update_beside_its_copy_releases_twice() {
    let twice = times(|seed| {
        let servers = Servers::new(seed, 1, Hazards::all());
        let base = servers.vdi();
        servers.ask(new_vdi(Some(base)));
        let vid = Vid::new(base.get() + 1).expect("24 bits");
        (0..2).for_each(|_| _ = servers.send(0, map(vid, vid.get())));
        servers.finish();
        let ledger = servers.model.ledgers().remove(&base.data(0).0);
        assert!([Some(vec![1, -1]), Some(vec![1, -2])].contains(&ledger), "{ledger:?}");
        ledger == Some(vec![1, -2])
    });
    assert!((1..SEEDS).contains(&twice), "{twice}");
}

#[test]
fn what_follows_a_discard_is_removed_with_it() {
    for (recycle, expected) in [(false, 1..SEEDS), (true, 0..1)] {
        let lost = times(|seed| {
            let mut servers = Servers::new(seed, 1, Hazards::all());
            let config = Config { recycle, ..Config::default() };
            servers.model = Cluster::new(servers.host.clone(), config);
            let vid = servers.vdi();
            let steps = [map(vid, 0), create(vid.data(0), 0, 2), map(vid, vid.get())];
            for request in steps {
                assert_eq!(servers.ask(request), SdResult::SUCCESS);
            }
            servers.finish();
            servers.byte(vid.data(0), 0).is_none()
        });
        assert!(expected.contains(&lost), "{lost}");
    }
}

#[test]
fn a_snapshot_undoes_a_map_update_beside_it() {
    for (hazards, expected) in [(Hazards::all(), 1..SEEDS), (Hazards::none(), 0..1)] {
        let undone = times(|seed| {
            let servers = Servers::new(seed, 2, hazards.clone());
            let base = servers.vdi();
            servers.ask(new_vdi(Some(base)));
            let vid = Vid::new(base.get() + 1).expect("24 bits");
            let update = servers.send(1, map(vid, vid.get()));
            let snapshot = servers.send(0, new_vdi(Some(vid)));
            servers.finish();
            assert_eq!(snapshot.get(), Some(SdResult::SUCCESS));
            let next = Vid::new(vid.get() + 1).expect("24 bits");
            update.get() == Some(SdResult::SUCCESS) && servers.entry(next) != vid.get()
        });
        assert!(expected.contains(&undone), "{undone}");
    }
}

#[test]
fn a_write_found_writable_reaches_the_snapshot() {
    for (hazards, expected) in [(Hazards::all(), 1..SEEDS), (Hazards::none(), 0..1)] {
        let late = times(|seed| {
            let servers = Servers::new(seed, 2, hazards.clone());
            let vid = servers.vdi();
            servers.send(0, new_vdi(Some(vid)));
            (0..servers.host.roll(20)).for_each(|_| _ = servers.host.step());
            let write = servers.send(1, object(op::WRITE_OBJ, vid.data(0), 0, vec![9; 512]));
            while !servers.model.inode(vid.get()).expect("its inode").header.is_snapshot() {
                servers.host.step();
            }
            let before = servers.byte(vid.data(0), 0);
            servers.finish();
            write.get() == Some(SdResult::SUCCESS) && servers.byte(vid.data(0), 0) != before
        });
        assert!(expected.contains(&late), "{late}");
    }
}

#[test]
fn peers_carry_out_what_a_dead_gateway_asked_for() {
    let carried_out = times(|seed| {
        let servers = Servers::new(seed, 3, Hazards::all());
        let vid = servers.vdi();
        let write = servers.send(0, object(op::WRITE_OBJ, vid.data(0), 0, vec![9; 512]));
        (0..servers.host.roll(6)).for_each(|_| _ = servers.host.step());
        let answered = write.get().is_some();
        servers.host.kill(0);
        servers.model.killed(0);
        servers.finish();
        let written = servers.byte(vid.data(0), 0) == Some(9);
        assert!(written || !answered);
        written && !answered
    });
    assert!((1..SEEDS).contains(&carried_out), "{carried_out}");
}

#[test]
fn gateways_survive_the_death_of_holders() {
    for seed in 0..SEEDS {
        let servers = Servers::new(seed, 3, Hazards::all());
        let vid = servers.vdi();
        let requests = [
            servers.send(0, object(op::WRITE_OBJ, vid.data(0), 0, vec![9; 512])),
            servers.send(0, create(vid.data(1), 0, 3)),
            servers.send(0, map(vid, 0)),
        ];
        (0..servers.host.roll(8)).for_each(|_| _ = servers.host.step());
        servers.host.kill(1);
        servers.model.killed(1);
        servers.finish();
        assert!(requests.iter().all(|sent| sent.get().is_some()));
        assert_eq!(requests[1].get(), Some(SdResult::SUCCESS));
        assert_eq!(servers.byte(vid.data(1), 0), Some(3));
    }
}
