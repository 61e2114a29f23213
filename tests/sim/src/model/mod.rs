//! Independent model of the servers of generation 1.0, from protocol.md: what they answer, in
//! which steps they carry requests out, and what can go wrong between two steps.
//!
//! An operation is a future that pauses where the real server lets go. It runs as a task of the
//! gateway that got it, and has the nodes that hold an object do their part in tasks of their own.

mod admin;
mod ledger;
mod objects;
mod peers;
mod store;
mod vdis;
mod wait;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use sheepdog_proto::inode::{INODE_LEN, MAP_END, MAP_OFFSET};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{
    CLIENT_VERSION_MAX, INTERNAL_VERSION, InodeHeader, Oid, Request, Response, SdResult, Vid, attr,
    btree, op,
};

use crate::host::{Host, NodeId};
use wait::Turns;

pub use store::Sparse;

type Answer<T> = Result<T, SdResult>;

/// Unix time at which the world begins.
const BIRTH: Duration = Duration::from_secs(1_700_000_000);

/// What the servers do and no client can prevent; each can be turned off.
#[derive(Clone, Debug)]
pub struct Hazards {
    /// A snapshot writes the whole base inode back, over map updates made since it read it (4.2).
    /// The references that these replaced are released all the same, and updates that began
    /// before the freeze may end up in the frozen inode. Off: a snapshot and the map updates of
    /// its base exclude each other, and a frozen inode refuses nonzero entries (6.3).
    pub overwritten_updates: bool,
    /// Gateways other than the one that took a snapshot hear of it later.
    pub late_knowledge: bool,
    /// A write that was found writable before a snapshot is carried out after it, in the frozen
    /// VDI. Off: the nodes that hold the object look once more.
    pub late_writes: bool,
    /// Frozen inodes take zeros (7.2), also of a discard whose client does not know yet that the
    /// VDI is frozen. Off: they are refused to a client (told by the epoch in the request, which
    /// servers ignore) that has not read the inode's header since.
    pub late_discards: bool,
}

impl Hazards {
    pub fn all() -> Hazards {
        Hazards {
            overwritten_updates: true,
            late_knowledge: true,
            late_writes: true,
            late_discards: true,
        }
    }

    pub fn none() -> Hazards {
        Hazards {
            overwritten_updates: false,
            late_knowledge: false,
            late_writes: false,
            late_discards: false,
        }
    }
}

impl Default for Hazards {
    fn default() -> Hazards {
        Hazards::all()
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub nodes: usize,
    pub copies: u8,
    pub use_lock: bool,
    pub recycle: bool,
    /// Of the objects of VDIs that do not say: their size is 1 << shift.
    pub shift: u8,
    pub hazards: Hazards,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nodes: 1,
            copies: 1,
            use_lock: false,
            recycle: false,
            shift: 22,
            hazards: Hazards::default(),
        }
    }
}

/// What the nodes have in memory of a VDI.
#[derive(Clone, Debug, Default)]
struct Known {
    copies: u8,
    copy_policy: u8,
    shift: u8,
    parent: u32,
    snapshot: bool,
    lock: Lock,
}

/// The lock of a VDI (4.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    #[default]
    Unlocked,
    Locked(NodeId),
    /// Gateways that share it, each with what the copy of the inode there is worth.
    Shared(Vec<(NodeId, Participant)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Participant {
    Modified,
    Shared,
    Invalidated,
}

/// A cluster of servers.
pub struct Cluster {
    host: Rc<dyn Host>,
    config: RefCell<Config>,
    formatted: Cell<Option<u64>>,
    objects: RefCell<BTreeMap<Oid, Sparse>>,
    /// The bitmaps of READ_VDIS and READ_DEL_VDIS.
    in_use: RefCell<BTreeSet<u32>>,
    deleted: RefCell<BTreeSet<u32>>,
    vdis: RefCell<BTreeMap<u32, Known>>,
    /// VDIs that a gateway does not know to be snapshots yet.
    unaware: RefCell<BTreeSet<(NodeId, u32)>>,
    /// Objects for which a node has a temporary file (4.4).
    creating: RefCell<BTreeSet<(NodeId, Oid)>>,
    /// Clients that have read a frozen inode's header: see `Hazards::late_discards`.
    seen_frozen: RefCell<BTreeSet<(u32, u32)>>,
    /// Cluster operations are carried out one at a time (0.5).
    order: Rc<Turns>,
    /// See `Hazards::overwritten_updates`.
    inodes: RefCell<BTreeMap<u32, Rc<Turns>>>,
    dead: RefCell<BTreeSet<NodeId>>,
    last_time: Cell<u64>,
}

/// An inode as it lies in the store.
pub struct InodeView {
    pub header: InodeHeader,
    /// Entries that are not 0. Of a hypervolume: those of the leaves.
    pub map: BTreeMap<u32, u32>,
    /// (generation, count) where one is not 0.
    pub gref: BTreeMap<u32, (i32, i32)>,
}

impl Cluster {
    /// A formatted cluster without VDIs.
    pub fn new(host: Rc<dyn Host>, config: Config) -> Rc<Cluster> {
        let cluster = Cluster {
            host,
            config: RefCell::new(config),
            formatted: Cell::default(),
            objects: RefCell::default(),
            in_use: RefCell::default(),
            deleted: RefCell::default(),
            vdis: RefCell::default(),
            unaware: RefCell::default(),
            creating: RefCell::default(),
            seen_frozen: RefCell::default(),
            order: Rc::default(),
            inodes: RefCell::default(),
            dead: RefCell::default(),
            last_time: Cell::default(),
        };
        cluster.formatted.set(Some(cluster.time()));
        Rc::new(cluster)
    }

    /// Carries out what a gateway got, as a task of it.
    pub async fn serve(
        self: Rc<Self>,
        gateway: NodeId,
        request: Request,
        payload: Vec<u8>,
    ) -> (Response, Vec<u8>) {
        let mut response = Response::default();
        let mut data = Vec::new();
        let result = match self.check(&request) {
            Ok(()) => self.dispatch(gateway, &request, payload, &mut response.arm, &mut data).await,
            refused => refused,
        };
        let result = result.err().unwrap_or(SdResult::SUCCESS);
        let epoch = if self.formatted.get().is_some() { self.host.epoch() } else { 0 };
        let arm = response.arm;
        let data_length = (data.len() as u32).into();
        (Response { arm, data_length, ..Response::to(&request, epoch, result) }, data)
    }

    /// What is checked before anything else, in its order (4.1).
    fn check(&self, request: &Request) -> Answer<()> {
        let version = request.proto_ver;
        let fits = match op::is_internal(request.opcode) {
            true => version == INTERNAL_VERSION,
            false => version <= CLIENT_VERSION_MAX,
        };
        if !fits {
            return Err(SdResult::VER_MISMATCH);
        }
        if op::name(request.opcode) == "unknown operation" {
            return Err(SdResult::INVALID_PARMS);
        }
        let always = [
            op::READ_VDIS,
            op::READ_DEL_VDIS,
            op::GET_CLUSTER_DEFAULT,
            op::GET_NODE_LIST,
            op::CLUSTER_INFO,
            op::GET_VDI_COPIES,
            op::MAKE_FS,
        ];
        if self.formatted.get().is_none() && !always.contains(&request.opcode) {
            return Err(SdResult::WAIT_FOR_FORMAT);
        }
        Ok(())
    }

    async fn dispatch(
        self: &Rc<Self>,
        gateway: NodeId,
        request: &Request,
        payload: Vec<u8>,
        arm: &mut [u8; 28],
        data: &mut Vec<u8>,
    ) -> Answer<()> {
        match request.opcode {
            op::CREATE_AND_WRITE_OBJ
            | op::READ_OBJ
            | op::WRITE_OBJ
            | op::REMOVE_OBJ
            | op::DISCARD_OBJ => {
                *data = self.object_io(gateway, request, payload).await?;
                Ok(())
            }
            op::FLUSH_VDI => Err(SdResult::INVALID_PARMS),
            op::NEW_VDI
            | op::DEL_VDI
            | op::GET_VDI_INFO
            | op::LOCK_VDI
            | op::RELEASE_VDI
            | op::GET_VDI_ATTR => {
                let _turn = self.order.take().await;
                self.host.pause(gateway, "begins a cluster operation").await;
                self.vdi_operation(gateway, request, &payload, arm).await
            }
            _ => {
                self.host.pause(gateway, "asks the node").await;
                self.admin(gateway, request, &payload, arm, data)
            }
        }
    }

    /// Time as it is stored; no two are the same, as NEW_VDIs follow one another.
    fn time(&self) -> u64 {
        let now = sheepdog_proto::time_from_unix(BIRTH + self.host.now());
        let time = now.max(self.last_time.get() + 1000);
        self.last_time.set(time);
        time
    }

    /// The node died. What it had in memory is the others' as well, and gone with the last of them.
    pub fn killed(&self, node: NodeId) {
        self.dead.borrow_mut().insert(node);
        self.creating.borrow_mut().retain(|(holder, _)| *holder != node);
        if self.dead.borrow().len() == self.config.borrow().nodes {
            self.forget();
        }
    }

    /// The node joined again: it learns everything that the others know.
    pub fn restarted(&self, node: NodeId) {
        self.dead.borrow_mut().remove(&node);
        self.unaware.borrow_mut().retain(|(unaware, _)| *unaware != node);
    }

    /// What is in memory alone is rebuilt from the inodes: all locks are open (4.10), what was
    /// hidden is listed again (4.12).
    fn forget(&self) {
        let mut known = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for vid in self.inode_vids() {
            let header = self.inode(vid).expect("just listed").header;
            if header.is_deleted() {
                deleted.insert(vid);
            }
            let vdi = Known {
                copies: header.nr_copies,
                copy_policy: header.copy_policy,
                shift: header.block_size_shift,
                parent: header.parent_vdi_id.get(),
                snapshot: header.is_snapshot(),
                lock: Lock::Unlocked,
            };
            known.insert(vid, vdi);
        }
        *self.in_use.borrow_mut() = known.keys().copied().collect();
        *self.deleted.borrow_mut() = deleted;
        *self.vdis.borrow_mut() = known;
        self.unaware.borrow_mut().clear();
    }

    fn inode_vids(&self) -> Vec<u32> {
        let objects = self.objects.borrow();
        let inodes = objects.keys().filter(|oid| oid.kind() == Some(OidKind::Inode));
        inodes.map(|oid| oid.vid().get()).collect()
    }

    /// Inodes and attributes are as much objects as data is.
    pub fn objects(&self) -> BTreeMap<u64, Sparse> {
        self.objects.borrow().iter().map(|(oid, bytes)| (oid.0, bytes.clone())).collect()
    }

    pub fn has_object(&self, oid: Oid) -> bool {
        self.objects.borrow().contains_key(&oid)
    }

    /// The first part of an inode.
    pub fn stored_header(&self, vid: u32) -> Option<InodeHeader> {
        let objects = self.objects.borrow();
        let bytes = objects.get(&Vid::new(vid)?.inode())?;
        let head = bytes.read(0, size_of::<InodeHeader>() as u64);
        Some(InodeHeader::read_from_bytes(&head).expect("as many bytes"))
    }

    pub fn inode(&self, vid: u32) -> Option<InodeView> {
        let header = self.stored_header(vid)?;
        let objects = self.objects.borrow();
        let bytes = objects.get(&Vid::new(vid)?.inode())?;
        let (map, end) = (u64::from(MAP_OFFSET), u64::from(MAP_END));
        let entry = |(at, vid)| (((at - map) / 4) as u32, vid);
        let mut gref = BTreeMap::new();
        for (at, word) in bytes.words(end..u64::from(INODE_LEN)) {
            let (generation, count) = gref.entry(((at - end) / 8) as u32).or_insert((0, 0));
            *if (at - end) % 8 == 0 { generation } else { count } = word as i32;
        }
        let map = match header.store_policy {
            sheepdog_proto::inode::STORE_ARRAY => bytes.words(map..end).map(entry).collect(),
            _ => leaves(&objects, &bytes.read(map, u64::from(btree::NODE_LEN))),
        };
        Some(InodeView { header, map, gref })
    }

    /// The ledgers' entries, up to the last that is not 0, by data object.
    pub fn ledgers(&self) -> BTreeMap<u64, Vec<i32>> {
        let objects = self.objects.borrow();
        let books = objects.iter().filter(|(oid, _)| oid.kind() == Some(OidKind::Ledger));
        books.map(|(oid, book)| (oid.0 & !(1 << 59), ledger::entries(book))).collect()
    }

    /// The locks that are not open.
    pub fn locks(&self) -> BTreeMap<u32, Lock> {
        let vdis = self.vdis.borrow();
        let locked = vdis.iter().filter(|(_, vdi)| vdi.lock != Lock::Unlocked);
        locked.map(|(vid, vdi)| (*vid, vdi.lock.clone())).collect()
    }

    /// VDI ids in use, those of deleted ones among them.
    pub fn in_use(&self) -> BTreeSet<u32> {
        self.in_use.borrow().clone()
    }

    pub fn deleted(&self) -> BTreeSet<u32> {
        self.deleted.borrow().clone()
    }

    /// The attributes that are not deleted: header and value by object.
    pub fn attributes(&self) -> BTreeMap<u64, (attr::AttrHeader, Vec<u8>)> {
        let objects = self.objects.borrow();
        let attributes = objects.iter().filter(|(oid, _)| oid.kind() == Some(OidKind::Attr));
        let parsed = attributes.filter_map(|(oid, bytes)| {
            let bytes = bytes.read(0, attr::ATTR_LEN as u64);
            let (header, value) = attr::parse(&bytes)?;
            (!header.is_deleted()).then(|| (oid.0, (*header, value.to_vec())))
        });
        parsed.collect()
    }
}

/// What the tree of a hypervolume names (3.9); nothing where a node is not sound.
fn leaves(objects: &BTreeMap<Oid, Sparse>, node: &[u8]) -> BTreeMap<u32, u32> {
    match btree::Node::parse(node) {
        Ok(btree::Node::Leaves(leaves)) => {
            let live = leaves.iter().filter(|leaf| leaf.vdi_id.get() != 0);
            live.map(|leaf| (leaf.idx.get(), leaf.vdi_id.get())).collect()
        }
        Ok(btree::Node::Children(children)) => {
            let nodes = children.iter().filter_map(|child| objects.get(&Oid(child.oid.get())));
            let read = |node: &Sparse| node.read(0, u64::from(btree::NODE_LEN));
            nodes.flat_map(|node| leaves(objects, &read(node))).collect()
        }
        Err(_) => BTreeMap::new(),
    }
}
