//! The index of a hypervolume: a tree of at most two levels, which clients keep (protocol.md 3.9).
//!
//! The root lies in the inode, where other VDIs have their map; once it is full its leaves move to
//! node objects, to which it points then. A node is read when it is first needed, and stays known.
//!
//! Servers know nothing of what a change to the tree means. So one operation at a time has the
//! right to make one; it stores new nodes first and the root last, in one write each, and a crash
//! leaves nodes or objects behind that nothing names, but never a tree with a hole. Whatever was
//! sent must be over before the next write: executed late, an older root would undo newer ones.
//!
//! Every write to the root starts below the map area: where one starts inside, a 1.0 server takes
//! its bytes for map entries, and removes the objects that it makes of them (4.5).

use std::mem;

use sheepdog_proto::btree::{self, Leaf};
use sheepdog_proto::inode::BTREE_COUNTER_OFFSET;
use sheepdog_proto::{Oid, SdResult, Vid};

use super::inode::{answered, read_object, remove_request, repeat, unless, write_request};
use super::{Vdi, View};
use crate::cluster::{Call, Cluster, Op};
use crate::error::{Error, Result};
use crate::exec::{lock, try_for_each_concurrent};
use crate::tree::{Damaged, FANOUT, GAP_LEN, Obstacle, Root, Tree, Unread, Write, parse_leaves};

/// Bytes of a node that are read before its length is known: enough for 1023 leaves.
const FIRST_READ: u32 = 8192;
/// Objects that are removed beside one cut of the tree: so many can be left behind, or entries
/// without them, where the work is broken off.
const REMOVE_RUN: usize = 32;
/// Node numbers below the counter that are looked for when the VDI is deleted. A full tree has
/// 16385 nodes, and every one of them came from a split, which leaves one behind.
const MAX_NODES: u32 = 1 << 16;

const DAMAGED: Error = Error::Io("the index of the hypervolume is damaged");

impl From<Damaged> for Error {
    fn from(_: Damaged) -> Error {
        DAMAGED
    }
}

async fn read_tree(cluster: &Cluster, op: &Op, vid: Vid) -> Result<Tree> {
    let bytes =
        read_node_at(cluster, op, vid.inode(), BTREE_COUNTER_OFFSET, GAP_LEN as u32).await?;
    Ok(Tree::parse(vid, &bytes)?)
}

/// Reads from `offset` of an object: `before` bytes, and the node behind them. In one request, so
/// that the node's header and its entries belong together.
async fn read_node_at(
    cluster: &Cluster,
    op: &Op,
    oid: Oid,
    offset: u32,
    before: u32,
) -> Result<Vec<u8>> {
    let mut len = before + FIRST_READ;
    loop {
        let result = read_object(cluster, op, oid, offset, len).await;
        if answered(&result, SdResult::NO_OBJ) && before == 0 {
            return Err(Error::Io("a node of the hypervolume's index is gone"));
        }
        let bytes = result?;
        let node = bytes.get(before as usize..).unwrap_or_default();
        let needed = before + btree::encoded_len(node).map_err(Damaged::from)? as u32;
        if needed <= len {
            return Ok(bytes);
        }
        len = needed;
    }
}

async fn read_leaves(cluster: &Cluster, op: &Op, oid: Oid) -> Result<Vec<Leaf>> {
    Ok(parse_leaves(&read_node_at(cluster, op, oid, 0, 0).await?)?)
}

impl Vdi {
    /// The stored entry of an index of a hypervolume, as it is now.
    pub(super) async fn tree_entry(&self, cluster: &Cluster, op: &Op, index: u32) -> Result<u32> {
        let known = || match &lock(&self.state).tree {
            Some(tree) => tree.find(index),
            None => Err(Unread::Root),
        };
        if let Ok(owner) = known() {
            return Ok(owner.get());
        }
        let _turn = self.tree_lock.exclusive(0).await;
        loop {
            match known() {
                Ok(owner) => return Ok(owner.get()),
                Err(unread) => self.read_more(cluster, op, unread).await?,
            }
        }
    }

    /// Stores new entries of a hypervolume, for a writer who holds their indexes: all of them, or
    /// some where it fails.
    pub(super) async fn change_tree(
        &self,
        cluster: &Cluster,
        op: &Op,
        view: &View,
        changes: &[(u32, Vid)],
    ) -> Result<()> {
        let _turn = self.tree_lock.exclusive(0).await;
        let (mut is_fresh, mut refused) = (false, false);
        loop {
            let planned = match &lock(&self.state).tree {
                None => Err(Obstacle::Unread(Unread::Root)),
                Some(tree) => tree.plan(view.vid, changes, FANOUT).map(|plan| {
                    let marks = tree.marks(view.vid, changes, &plan);
                    let writes = plan.writes(tree, view.vid);
                    (plan, marks, writes)
                }),
            };
            let (plan, marks, writes) = match planned {
                Ok(planned) => planned,
                Err(Obstacle::Unread(unread)) => {
                    is_fresh |= unread == Unread::Root;
                    self.read_more(cluster, op, unread).await?;
                    continue;
                }
                Err(Obstacle::Full) => return Err(Error::Io("the hypervolume's index is full")),
            };
            // Whoever changed it meanwhile would lose everything: this writes whole nodes.
            if !is_fresh && !are_stored(cluster, op, marks).await? {
                lock(&self.state).tree = None;
                continue;
            }
            is_fresh = true;
            if plan.is_empty() {
                return Ok(());
            }
            let doubt = Doubt(self);
            match store_all(cluster, op, writes).await {
                Ok(()) => {
                    if let Some(tree) = &mut lock(&self.state).tree {
                        tree.apply(plan);
                    }
                    mem::forget(doubt);
                    return Ok(());
                }
                Err(Error::Server { .. }) if !refused => {
                    // What is stored is read again.
                    refused = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// While the gate is closed: frees the objects of a hypervolume from `first` on.
    pub(super) async fn cut_off_tree(&self, cluster: &Cluster, op: &Op, first: u64) -> Result<()> {
        let _turn = self.tree_lock.exclusive(0).await;
        // Nobody reads it before the turn is over.
        lock(&self.state).tree = None;
        remove_from(cluster, op, self.view().vid, first, Order::EntriesFirst).await.map(drop)
    }

    async fn read_more(&self, cluster: &Cluster, op: &Op, unread: Unread) -> Result<()> {
        let view = self.view();
        match unread {
            Unread::Root => {
                let tree = read_tree(cluster, op, view.vid).await?;
                let mut state = lock(&self.state);
                if state.version == view.version {
                    state.tree = Some(tree);
                }
            }
            Unread::Node(oid) => {
                let leaves = read_leaves(cluster, op, oid).await?;
                let mut state = lock(&self.state);
                if state.version == view.version
                    && let Some(tree) = &mut state.tree
                {
                    tree.nodes.insert(oid, leaves);
                }
            }
        }
        Ok(())
    }
}

/// A tree that is being changed: it is read again unless all was stored.
struct Doubt<'a>(&'a Vdi);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).tree = None;
    }
}

/// Whether these bytes are what is stored at these places.
async fn are_stored(cluster: &Cluster, op: &Op, marks: Vec<(Oid, u32, Vec<u8>)>) -> Result<bool> {
    for (oid, offset, bytes) in marks {
        if read_object(cluster, op, oid, offset, bytes.len() as u32).await? != bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn store_all(cluster: &Cluster, op: &Op, writes: Vec<Write>) -> Result<()> {
    for write in writes {
        store(cluster, op, write).await?;
    }
    Ok(())
}

/// Stores a part of the tree, never beside a lost attempt to store anything of it. Twice the same
/// does no harm.
async fn store(cluster: &Cluster, op: &Op, write: Write) -> Result<()> {
    let request = write_request(write.opcode, write.oid, None, write.offset);
    repeat(cluster, op, request, write.bytes.into()).await
}

/// Removes an object that nothing names any more, or will when the caller is done. Servers do not
/// count the references of hypervolumes, so nobody else does it.
pub(super) async fn remove_object(cluster: &Cluster, op: &Op, oid: Oid) -> Result<()> {
    let call = Call::new(remove_request(oid)).resendable();
    unless(cluster.call(op, call).await, SdResult::NO_OBJ).map(drop)
}

/// What is gone first: it matters where the work is broken off.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Nothing leaks: the work can be begun again.
    ObjectsFirst,
    /// No entry names an object that is gone; a few objects that nothing names may stay.
    EntriesFirst,
}

/// Removes all objects of a hypervolume, and its tree except for the root, which is empty then.
/// 1.0 servers would do it as well when they delete the VDI, but all others wait meanwhile, and
/// the nodes stay (4.11).
pub(super) async fn remove_all(cluster: &Cluster, op: &Op, vid: Vid) -> Result<()> {
    let counter = remove_from(cluster, op, vid, 0, Order::ObjectsFirst).await?;
    let nodes = 0..counter.min(MAX_NODES);
    try_for_each_concurrent(nodes.map(|n| remove_object(cluster, op, vid.btree(n)))).await
}

/// Cuts the tree off at `first` and removes the objects behind, from the end on, so that what is
/// stored is a sound tree all the time. Returns the number that the next node would have got.
async fn remove_from(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    first: u64,
    order: Order,
) -> Result<u32> {
    let mut tree = read_tree(cluster, op, vid).await?;
    loop {
        let (node, mut leaves) = match &mut tree.root {
            Root::Leaves(leaves) => (None, mem::take(leaves)),
            Root::Children(children) => {
                let Some(last) = children.last() else { return Err(DAMAGED) };
                let oid = Oid(last.oid.get());
                (Some(oid), read_leaves(cluster, op, oid).await?)
            }
        };
        loop {
            let keep = leaves.partition_point(|leaf| u64::from(leaf.idx.get()) < first);
            if keep == leaves.len() {
                break;
            }
            let cut = leaves.split_off(keep.max(leaves.len().saturating_sub(REMOVE_RUN)));
            let write = tree.cut_leaves(vid, node, leaves.len());
            if order == Order::EntriesFirst {
                store(cluster, op, write).await?;
                remove_objects(cluster, op, vid, &cut).await?;
            } else {
                remove_objects(cluster, op, vid, &cut).await?;
                store(cluster, op, write).await?;
            }
        }
        let Some(oid) = node.filter(|_| leaves.is_empty()) else { break };
        store(cluster, op, tree.pop_child(vid)).await?;
        remove_object(cluster, op, oid).await?;
    }
    Ok(tree.counter())
}

/// Removes the objects that these leaves name, unless they are another VDI's.
async fn remove_objects(cluster: &Cluster, op: &Op, vid: Vid, leaves: &[Leaf]) -> Result<()> {
    let own = leaves.iter().filter(|leaf| leaf.vdi_id.get() == vid.get());
    let objects = own.map(|leaf| remove_object(cluster, op, vid.data(leaf.idx.get())));
    try_for_each_concurrent(objects).await
}

/// Number of objects that a hypervolume has.
pub(super) async fn count(cluster: &Cluster, op: &Op, vid: Vid) -> Result<u64> {
    let used = |leaves: &[Leaf]| leaves.iter().filter(|leaf| leaf.vdi_id.get() != 0).count() as u64;
    match read_tree(cluster, op, vid).await?.root {
        Root::Leaves(leaves) => Ok(used(&leaves)),
        Root::Children(children) => {
            let mut sum = 0;
            for child in children {
                sum += used(&read_leaves(cluster, op, Oid(child.oid.get())).await?);
            }
            Ok(sum)
        }
    }
}
