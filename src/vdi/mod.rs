//! VDIs: what operations on them mean in objects (protocol.md 3, 5).
//!
//! A [`Client`] is a cluster and the VDIs that a program has open on it; a [`Vdi`] is one open
//! VDI, shared by its handles, so that they see each other's allocations. Every operation is an
//! `async fn` that reads from top to bottom. Knows nothing of C, of sockets, or of which gateway
//! a request takes.

mod attr;
mod btree;
mod generation;
pub mod inode;
mod io;
mod lifecycle;
mod list;
mod map;
mod range;
mod snapshot;
mod stale;

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use sheepdog_proto::{InodeHeader, Vid};

pub use attr::Key;
pub use inode::{Name, Which};
pub use lifecycle::CreateOptions;
pub use list::Info;
pub use range::{Extent, ExtentKind};

use crate::cluster::{Cluster, Ghosts, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{WaitList, lock};
use btree::Tree;
use generation::Servers;
use map::{Changes, Gate, IndexLocks, Pages, Removing};

/// A program's view of one cluster: what an `sd_t` stands for.
pub struct Client {
    pub cluster: Cluster,
    open: Mutex<OpenVdis>,
    /// Changes of maps that were given up, by the VDI: nobody may change that map before they are
    /// over (3.7, hazard 2).
    ghosts: Mutex<HashMap<Vid, Arc<Ghosts>>>,
    /// Locks that are to be released and could not be so far.
    stray_locks: Mutex<Vec<Vid>>,
    servers: Arc<Servers>,
}

#[derive(Default)]
struct OpenVdis {
    /// In an order, so that a close is the same each time.
    working: BTreeMap<Name, Opened>,
    /// Handles of snapshots, by their VDI ids.
    snapshots: HashMap<Vid, usize>,
    waiters: WaitList,
}

/// A working VDI of which handles are open, or are being opened, closed, or kept from it.
enum Opened {
    /// Some operation is opening, closing or deleting it: the others wait.
    InTransition,
    Open {
        vdi: Arc<Vdi>,
        handles: usize,
    },
}

/// An open VDI.
pub struct Vdi {
    name: Name,
    which: Which,
    state: Mutex<State>,
    changes: Changes,
    gate: Gate,
    indexes: IndexLocks,
    servers: Arc<Servers>,
    /// Its one index is held by whoever reads the tree of a hypervolume, or changes it.
    tree_lock: IndexLocks,
}

/// What is known of the VDI on the servers.
struct State {
    header: InodeHeader,
    vid: Vid,
    /// The VDI ids whose locks we hold: not always just the current one (5.16).
    locked: Vec<Vid>,
    pages: Pages,
    /// The index of a hypervolume, instead of the pages.
    tree: Option<Tree>,
    /// Indexes whose own object may still be on its way out (3.7, hazard 4).
    removing: Removing,
    /// Counts the times that this was read anew. Changes only while the gate is closed.
    version: u64,
}

/// The part of the state that an operation starts from.
#[derive(Clone, Copy)]
struct View {
    vid: Vid,
    version: u64,
    size: u64,
    shift: u8,
    store_policy: u8,
}

impl Client {
    pub fn new(cluster: Cluster) -> Client {
        let (ghosts, stray_locks) = (Mutex::default(), Mutex::default());
        Client { cluster, open: Mutex::default(), ghosts, stray_locks, servers: Arc::default() }
    }

    /// The changes of a VDI's map that were given up.
    fn ghosts_of(&self, vid: Vid) -> Arc<Ghosts> {
        let mut table = lock(&self.ghosts);
        table.retain(|_, ghosts| !ghosts.is_empty() || Arc::strong_count(ghosts) > 1);
        table.entry(vid).or_default().clone()
    }

    async fn release_strays(&self, op: &Op) -> Result<()> {
        loop {
            let Some(vid) = lock(&self.stray_locks).last().copied() else { return Ok(()) };
            inode::release(&self.cluster, op, vid).await?;
            lock(&self.stray_locks).retain(|other| *other != vid);
        }
    }

    /// Opens the working VDI `name` for reading and writing, or shares it where it is open.
    pub async fn open(&self, op: &Op, name: Name) -> Result<Arc<Vdi>> {
        let turn = match self.turn(name).await {
            Turn::Shared(vdi) => return Ok(vdi),
            Turn::Mine(turn) => turn,
        };
        let vdi = Arc::new(self.open_working(op, name).await?);
        turn.finish(Some(Opened::Open { vdi: vdi.clone(), handles: 1 }));
        Ok(vdi)
    }

    /// Closes one handle of a VDI; the last one waits for its writes and releases its lock.
    pub async fn close(&self, op: &Op, vdi: Arc<Vdi>) -> Result<()> {
        if vdi.which != Which::WORKING {
            self.close_snapshot(&vdi);
            return Ok(());
        }
        {
            let mut open = lock(&self.open);
            match open.working.get_mut(&vdi.name) {
                Some(Opened::Open { handles, .. }) if *handles > 1 => {
                    *handles -= 1;
                    return Ok(());
                }
                Some(entry @ Opened::Open { .. }) => *entry = Opened::InTransition,
                _ => return Ok(()),
            }
        }
        let _turn = MyTurn { client: self, name: Box::new(vdi.name), end: None };
        let closing = Closing { client: self, vdi: &vdi };
        vdi.changes.ended().await;
        let _quiet = vdi.gate.close().await;
        vdi.wait_for_removals(&self.cluster, op).await?;
        drop(closing);
        self.release_strays(op).await
    }

    /// Closes one handle of a snapshot.
    pub fn close_snapshot(&self, vdi: &Vdi) {
        let vid = vdi.view().vid;
        let mut open = lock(&self.open);
        if let Some(handles) = open.snapshots.get_mut(&vid) {
            *handles -= 1;
            if *handles == 0 {
                open.snapshots.remove(&vid);
            }
        }
    }

    /// Closes all VDIs, whatever handles they have: the program closes the connection.
    pub async fn close_all(&self, op: &Op) {
        let vdis: Vec<Arc<Vdi>> = {
            let open = lock(&self.open);
            let vdis = open.working.values().filter_map(|entry| match entry {
                Opened::Open { vdi, .. } => Some(vdi.clone()),
                Opened::InTransition => None,
            });
            vdis.collect()
        };
        for vdi in vdis {
            drop(Closing { client: self, vdi: &vdi });
        }
        if let Err(error) = self.release_strays(op).await {
            log::warn!("locks may remain: {error}");
        }
    }

    /// Locks and reads a working VDI (5.2).
    async fn open_working(&self, op: &Op, name: Name) -> Result<Vdi> {
        let cluster = &self.cluster;
        self.generation(op).await?;
        let vid = inode::lock(cluster, op, &name).await?;
        let guard = LockGuard { client: self, vid: Some(vid) };
        self.ghosts_of(vid).settle(cluster, op).await?;
        match Vdi::read_checked(cluster, op, vid, &name, &Which::WORKING).await {
            Ok(header) => Ok(Vdi::new(self, name, Which::WORKING, header, vid, guard.keep())),
            Err(error) => {
                drop(guard);
                if let Err(e) = self.release_strays(op).await {
                    log::warn!("VDI {name}: its lock may remain: {e}");
                }
                Err(error)
            }
        }
    }

    /// Waits until nobody opens, closes or deletes the VDI `name`. Then a handle of the open VDI,
    /// or the right to be the one who does.
    async fn turn(&self, name: Name) -> Turn<'_> {
        poll_fn(|cx| {
            let mut open = lock(&self.open);
            match open.working.get_mut(&name) {
                Some(Opened::InTransition) => {
                    open.waiters.register(cx);
                    Poll::Pending
                }
                Some(Opened::Open { vdi, handles }) => {
                    *handles += 1;
                    Poll::Ready(Turn::Shared(vdi.clone()))
                }
                None => {
                    open.working.insert(name, Opened::InTransition);
                    let name = Box::new(name);
                    Poll::Ready(Turn::Mine(MyTurn { client: self, name, end: None }))
                }
            }
        })
        .await
    }

    /// As [`Client::turn`], for an operation that no open handle must see.
    async fn turn_if_closed(&self, op: &Op, name: Name) -> Result<MyTurn<'_>> {
        match self.turn(name).await {
            Turn::Mine(turn) => Ok(turn),
            Turn::Shared(vdi) => {
                self.close(op, vdi).await?;
                Err(Error::Refused(Refusal::Open))
            }
        }
    }
}

/// A lock that was just taken, to be released unless the VDI is opened.
struct LockGuard<'a> {
    client: &'a Client,
    vid: Option<Vid>,
}

impl LockGuard<'_> {
    fn keep(mut self) -> Option<Vid> {
        self.vid.take()
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        lock(&self.client.stray_locks).extend(self.vid.take());
    }
}

/// The close of a VDI: what it leaves behind, however far it comes, is the client's.
struct Closing<'a> {
    client: &'a Client,
    vdi: &'a Vdi,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let (vid, locked) = {
            let mut state = lock(&self.vdi.state);
            (state.vid, std::mem::take(&mut state.locked))
        };
        lock(&self.client.stray_locks).extend(locked);
        let mut ghosts = self.vdi.indexes.take_ghosts();
        ghosts.append(&mut self.vdi.tree_lock.take_ghosts());
        if !ghosts.is_empty() {
            self.client.ghosts_of(vid).add(ghosts);
        }
    }
}

enum Turn<'a> {
    Mine(MyTurn<'a>),
    Shared(Arc<Vdi>),
}

/// The right to open, close or delete a working VDI, which one operation has at a time.
struct MyTurn<'a> {
    client: &'a Client,
    name: Box<Name>,
    /// What the VDI is in the end; closed unless said otherwise.
    end: Option<Opened>,
}

impl MyTurn<'_> {
    fn finish(mut self, end: Option<Opened>) {
        self.end = end;
    }
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        let wakers = {
            let mut open = lock(&self.client.open);
            match self.end.take() {
                Some(end) => open.working.insert(*self.name, end),
                None => open.working.remove(&self.name),
            };
            open.waiters.take()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Vdi {
    pub fn name(&self) -> &Name {
        &self.name
    }

    async fn read_checked(
        cluster: &Cluster,
        op: &Op,
        vid: Vid,
        name: &Name,
        which: &Which,
    ) -> Result<InodeHeader> {
        let header = inode::read_header(cluster, op, vid).await?;
        inode::check(&header, vid, name, which)?;
        Ok(header)
    }

    fn new(
        client: &Client,
        name: Name,
        which: Which,
        header: InodeHeader,
        vid: Vid,
        locked: Option<Vid>,
    ) -> Vdi {
        let (pages, removing) = (Pages::default(), Removing::default());
        let locked = locked.into_iter().collect();
        let state = State { header, vid, locked, pages, tree: None, removing, version: 0 };
        Vdi {
            name,
            which,
            state: Mutex::new(state),
            changes: Changes::default(),
            gate: Gate::default(),
            indexes: IndexLocks::default(),
            tree_lock: IndexLocks::default(),
            servers: client.servers.clone(),
        }
    }

    fn view(&self) -> View {
        let state = lock(&self.state);
        View {
            vid: state.vid,
            version: state.version,
            size: state.header.vdi_size.get(),
            shift: state.header.block_size_shift,
            store_policy: state.header.store_policy,
        }
    }

    /// The header as the server has it now; an error where this is no longer the same VDI.
    async fn read_again(&self, cluster: &Cluster, op: &Op) -> Result<InodeHeader> {
        Vdi::read_checked(cluster, op, self.view().vid, &self.name, &self.which).await
    }
}
