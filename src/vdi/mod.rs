//! VDIs: what operations on them mean in objects (protocol.md 3, 5).
//!
//! A [`Client`] is a cluster and the VDIs that a program has open on it; a [`Vdi`] is one open
//! VDI, shared by its handles, so that they see each other's allocations. Every operation is an
//! `async fn` that reads from top to bottom. Knows nothing of C, of sockets, or of which gateway
//! a request takes.

mod attr;
mod btree;
mod displaced;
mod entries;
mod generation;
pub mod inode;
mod io;
mod lifecycle;
mod list;
mod map;
mod open;
mod outcome;
mod range;
mod removal;
mod snapshot;
mod stale;
mod strays;

use std::sync::{Arc, Mutex};

use sheepdog_proto::{InodeHeader, Vid};

pub use attr::Key;
pub use inode::{Name, Which};
pub use lifecycle::{CreateOptions, UNDO_LIMIT};
pub use list::Info;
pub use range::{Extent, ExtentKind, Space};

use crate::cluster::{Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{Gate, IndexLocks, Quiet, lock};
use crate::tree::Tree;
use generation::Servers;
use map::Pages;
use open::{OpenVdis, Opened};

/// A program's view of one cluster: what an `sd_t` stands for.
pub struct Client {
    pub cluster: Cluster,
    open: Mutex<OpenVdis>,
    /// VDIs and snapshots that are being deleted, by their ids.
    deletions: IndexLocks,
    servers: Arc<Servers>,
}

/// An open VDI.
pub struct Vdi {
    name: Name,
    which: Which,
    /// Opened for reading, without a lock: another client may be writing to it.
    read_only: bool,
    state: Mutex<State>,
    /// Passed by operations that change the VDI, from their first piece to their last.
    operations: Gate,
    /// Passed by each piece of them while it relies on what is known.
    pieces: Gate,
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
    /// It is being closed: no lock is taken any more.
    closed: bool,
    pages: Pages,
    /// The index of a hypervolume, instead of the pages.
    tree: Option<Tree>,
    /// Counts the times that this was read anew. Changes only while no piece is under way.
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

/// What an operation is told of a VDI that is being closed.
fn closed() -> Error {
    Error::Invalid("the VDI is closed")
}

impl Client {
    pub fn new(cluster: Cluster) -> Client {
        let (open, deletions) = (Mutex::default(), IndexLocks::default());
        Client { cluster, open, deletions, servers: Arc::default() }
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

    fn new(client: &Client, name: Name, which: Which, header: InodeHeader, vid: Vid) -> Vdi {
        let (locked, pages) = (Vec::new(), Pages::default());
        let state = State { header, vid, locked, closed: false, pages, tree: None, version: 0 };
        Vdi {
            name,
            which,
            read_only: false,
            state: Mutex::new(state),
            operations: Gate::default(),
            pieces: Gate::default(),
            indexes: IndexLocks::default(),
            tree_lock: IndexLocks::default(),
            servers: client.servers.clone(),
        }
    }

    /// Bytes, as far as it is known.
    pub fn size(&self) -> u64 {
        self.view().size
    }

    fn check_writable(&self) -> Result<()> {
        match self.read_only || self.which != Which::WORKING {
            true => Err(Error::Refused(Refusal::ReadOnly)),
            false => Ok(()),
        }
    }

    /// Waits until no operation is under way, and keeps others out: for whoever needs the VDI to
    /// be as it is known.
    async fn still(&self) -> (Quiet<'_>, Quiet<'_>) {
        (self.operations.close().await, self.pieces.close().await)
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
