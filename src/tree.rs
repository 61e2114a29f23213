//! The index of a hypervolume as data: what of it is known, what must be read to know more, and which
//! writes change it (protocol.md 3.9). No I/O: that is vdi/btree.rs.

use std::collections::HashMap;

use sheepdog_proto::btree::{
    self, BadNode, Child, EMPTY_ROOT, Leaf, MAX_CHILDREN, MAX_LEAVES, Node,
};
use sheepdog_proto::inode::{BTREE_COUNTER_OFFSET, MAP_OFFSET};
use sheepdog_proto::{Oid, Vid, op};

/// Bytes of the inode between the start of the btree counter and the root.
pub const GAP_LEN: usize = (MAP_OFFSET - BTREE_COUNTER_OFFSET) as usize;
/// The least that a write to the root takes with it from below the map area.
const MARGIN: usize = 4;
/// Leaves that are looked at for one run.
const MAX_RUN: usize = 1024;

/// How many entries a node has room for.
#[derive(Clone, Copy)]
pub struct Fanout {
    pub leaves: usize,
    pub children: usize,
}

pub const FANOUT: Fanout = Fanout { leaves: MAX_LEAVES, children: MAX_CHILDREN };

/// What is known of a tree as it is stored.
pub struct Tree {
    /// The inode from the btree counter to the root. Besides the counter it is nobody's: it is
    /// written as it was read.
    gap: Box<[u8; GAP_LEN]>,
    pub root: Root,
    /// The nodes that were read.
    pub nodes: HashMap<Oid, Vec<Leaf>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Root {
    Leaves(Vec<Leaf>),
    /// At least one, all of them nodes of the VDI.
    Children(Vec<Child>),
}

/// What is stored is no tree of that VDI.
#[derive(Debug)]
pub struct Damaged;

impl From<BadNode> for Damaged {
    fn from(why: BadNode) -> Damaged {
        log::warn!("the index of a hypervolume: {why}");
        Damaged
    }
}

/// What must be read before a question can be answered: the root, or a node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Unread {
    Root,
    Node(Oid),
}

/// Why a change cannot be made.
#[derive(PartialEq, Debug)]
pub enum Obstacle {
    Unread(Unread),
    /// There is no room for another node.
    Full,
}

/// A part of the tree as it is to be stored.
#[derive(PartialEq, Debug)]
pub struct Write {
    pub opcode: u8,
    pub oid: Oid,
    pub offset: u32,
    pub bytes: Vec<u8>,
}

/// How a tree is to change.
pub struct Plan {
    nodes: Vec<PlannedNode>,
    root: Option<Root>,
    counter: u32,
}

struct PlannedNode {
    oid: Oid,
    leaves: Vec<Leaf>,
    /// Nothing names it before the root does.
    is_new: bool,
}

impl Tree {
    /// The tree of `vid`, from the inode's bytes from the btree counter on.
    pub fn parse(vid: Vid, bytes: &[u8]) -> Result<Tree, Damaged> {
        let (gap, node) = bytes.split_first_chunk().ok_or(Damaged)?;
        let root = match Node::parse(node)? {
            Node::Leaves(leaves) => Root::Leaves(leaves.to_vec()),
            Node::Children([]) => Root::Leaves(Vec::new()),
            Node::Children(children) => Root::Children(children.to_vec()),
        };
        if let Root::Children(children) = &root
            && children.iter().any(|child| Oid(child.oid.get()).vid() != vid)
        {
            return Err(Damaged);
        }
        Ok(Tree { gap: Box::new(*gap), root, nodes: HashMap::new() })
    }

    /// The VDI that holds the object at `idx`.
    pub fn find(&self, idx: u32) -> Result<Vid, Unread> {
        let leaves = match &self.root {
            Root::Leaves(leaves) => leaves,
            Root::Children(children) => {
                let Some(oid) = btree::find_child(children, idx) else { return Ok(Vid::NONE) };
                self.nodes.get(&oid).ok_or(Unread::Node(oid))?
            }
        };
        Ok(btree::find_leaf(leaves, idx))
    }

    /// Up to which index those from `index` on are known to be like it: as far as its node. Looks
    /// at a bounded number of leaves.
    pub fn run(&self, index: u32, is_like: impl Fn(u32) -> bool) -> u64 {
        const NONE: &[Leaf] = &[];
        let (leaves, last) = match &self.root {
            Root::Leaves(leaves) => (&leaves[..], u32::MAX),
            Root::Children(children) => {
                let at = child_at(children, index);
                let leaves = self.nodes.get(&Oid(children[at].oid.get()));
                let is_last = at + 1 == children.len();
                let last = if is_last { u32::MAX } else { children[at].max_idx.get() };
                // Of a node that was not read nothing is known.
                (leaves.map_or(NONE, |leaves| leaves), if leaves.is_some() { last } else { index })
            }
        };
        let first = leaves.partition_point(|leaf| leaf.idx.get() < index);
        let mut end = u64::from(index);
        for (n, leaf) in leaves[first..].iter().enumerate() {
            let idx = u64::from(leaf.idx.get());
            // What no leaf names is a hole.
            if n == MAX_RUN || end < idx && !is_like(0) {
                return end;
            }
            if !is_like(leaf.vdi_id.get()) {
                return idx;
            }
            end = idx + 1;
        }
        if is_like(0) { u64::from(last) + 1 } else { end }
    }

    /// How to make each of the indexes name that VDI.
    pub fn plan(&self, vid: Vid, changes: &[(u32, Vid)], fanout: Fanout) -> Result<Plan, Obstacle> {
        let plan = Plan { nodes: Vec::new(), root: None, counter: self.counter() };
        let mut draft = Draft { tree: self, vid, fanout, plan };
        for (idx, owner) in changes {
            draft.set(*idx, *owner)?;
        }
        Ok(draft.plan)
    }

    /// Notes what was stored.
    pub fn apply(&mut self, plan: Plan) {
        self.nodes.extend(plan.nodes.into_iter().map(|node| (node.oid, node.leaves)));
        self.gap[..4].copy_from_slice(&plan.counter.to_le_bytes());
        if let Some(root) = plan.root {
            self.root = root;
            // Nodes that were split are nobody's any more.
            match &self.root {
                Root::Leaves(_) => self.nodes.clear(),
                Root::Children(children) => {
                    self.nodes
                        .retain(|oid, _| children.iter().any(|child| child.oid.get() == oid.0));
                }
            }
        }
    }

    /// The number that the next node gets.
    pub fn counter(&self) -> u32 {
        u32::from_le_bytes([self.gap[0], self.gap[1], self.gap[2], self.gap[3]])
    }

    /// The parts of what is stored that a plan relies on: the root's header with the counter, and
    /// all of each node that it replaces, the root included. Another client may have changed an
    /// entry without the length of its node.
    pub fn marks(&self, vid: Vid, changes: &[(u32, Vid)], plan: &Plan) -> Vec<(Oid, u32, Vec<u8>)> {
        let (header, all) = match &self.root {
            Root::Leaves(leaves) => {
                (btree::leaves_header(leaves.len()), btree::encode_leaves(leaves))
            }
            Root::Children(children) => {
                (btree::children_header(children.len()), btree::encode_children(children))
            }
        };
        let root = if plan.root.is_some() { all } else { header.to_vec() };
        let root = [&self.gap[..], &root].concat();
        let mut marks = vec![(vid.inode(), BTREE_COUNTER_OFFSET, root)];
        if let Root::Children(children) = &self.root {
            let nodes = changes.iter().filter_map(|(idx, _)| btree::find_child(children, *idx));
            let mut nodes: Vec<_> = nodes.collect();
            nodes.dedup();
            marks.extend(
                nodes
                    .into_iter()
                    .filter_map(|oid| Some((oid, 0, btree::encode_leaves(self.nodes.get(&oid)?)))),
            );
        }
        marks
    }

    /// A write of the root's bytes that takes `margin` bytes before it along, which stay as they
    /// are.
    fn root_write(&self, vid: Vid, margin: usize, root: &[u8]) -> Write {
        let bytes = [&self.gap[GAP_LEN - margin..], root].concat();
        let offset = MAP_OFFSET - margin as u32;
        Write { opcode: op::WRITE_OBJ, oid: vid.inode(), offset, bytes }
    }

    /// The write that leaves a node its first `len` leaves: the root, or the node `oid`.
    pub fn cut_leaves(&self, vid: Vid, oid: Option<Oid>, len: usize) -> Write {
        let header = btree::leaves_header(len);
        match oid {
            None => self.root_write(vid, MARGIN, &header),
            Some(oid) => Write { opcode: op::WRITE_OBJ, oid, offset: 0, bytes: header.to_vec() },
        }
    }

    /// Takes the last node out of the root, and tells the write that does so. Without nodes the root
    /// is an empty one of leaves.
    pub fn pop_child(&mut self, vid: Vid) -> Write {
        let header = match &mut self.root {
            Root::Children(children) if children.len() > 1 => {
                children.pop();
                btree::children_header(children.len())
            }
            root => {
                *root = Root::Leaves(Vec::new());
                EMPTY_ROOT
            }
        };
        self.root_write(vid, MARGIN, &header)
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.root.is_none()
    }

    /// The writes that carry it out, in their order: at any point between them what is stored is a
    /// sound tree.
    pub fn writes(&self, tree: &Tree, vid: Vid) -> Vec<Write> {
        let nodes = self.nodes.iter().map(|node| Write {
            opcode: if node.is_new { op::CREATE_AND_WRITE_OBJ } else { op::WRITE_OBJ },
            oid: node.oid,
            offset: 0,
            bytes: btree::encode_leaves(&node.leaves),
        });
        let root = self.root.as_ref().map(|root| {
            let root = match root {
                Root::Leaves(leaves) => btree::encode_leaves(leaves),
                Root::Children(children) => btree::encode_children(children),
            };
            if self.counter == tree.counter() {
                return tree.root_write(vid, MARGIN, &root);
            }
            let mut write = tree.root_write(vid, GAP_LEN, &root);
            write.bytes[..4].copy_from_slice(&self.counter.to_le_bytes());
            write
        });
        nodes.chain(root).collect()
    }
}

/// A plan that is being made.
struct Draft<'a> {
    tree: &'a Tree,
    vid: Vid,
    fanout: Fanout,
    plan: Plan,
}

/// What becomes of an entry in a node.
enum Seat {
    /// It is there.
    Taken,
    /// There is room for it, or for another value of it.
    Free,
    /// The node must be split first.
    Full,
}

impl Draft<'_> {
    fn set(&mut self, idx: u32, owner: Vid) -> Result<(), Obstacle> {
        loop {
            let room = self.fanout.leaves;
            match self.plan.root.as_ref().unwrap_or(&self.tree.root) {
                Root::Leaves(leaves) => match seat(leaves, idx, owner, room) {
                    Seat::Taken => return Ok(()),
                    Seat::Free => {
                        if let Root::Leaves(leaves) = self.root() {
                            set_leaf(leaves, idx, owner);
                        }
                        return Ok(());
                    }
                    Seat::Full => {
                        let leaves = leaves.clone();
                        let max = leaves.last().ok_or(Obstacle::Full)?.idx.get();
                        let halves = self.split(leaves, max)?;
                        *self.root() = Root::Children(halves.into());
                    }
                },
                Root::Children(children) => {
                    let at = child_at(children, idx);
                    let (oid, max) = (Oid(children[at].oid.get()), children[at].max_idx.get());
                    let full = children.len() >= self.fanout.children;
                    match seat(self.leaves(oid)?, idx, owner, room) {
                        Seat::Taken => return Ok(()),
                        Seat::Free => {
                            set_leaf(self.leaves_mut(oid)?, idx, owner);
                            if max < idx
                                && let Root::Children(children) = self.root()
                            {
                                children[at].max_idx = idx.into();
                            }
                            return Ok(());
                        }
                        Seat::Full if full => return Err(Obstacle::Full),
                        Seat::Full => {
                            // Both halves are new nodes: as long as the old root is stored, its
                            // nodes stay what they are.
                            let below = at.checked_sub(1).map(|before| children[before].max_idx);
                            let is_last = at + 1 == children.len();
                            let mut leaves = std::mem::take(self.leaves_mut(oid)?);
                            self.plan.nodes.retain(|node| node.oid != oid);
                            // What is out of the node's range is found by nobody, and would put the
                            // root out of order. But the last one takes in what a writer that died
                            // has left without the root's knowledge.
                            leaves.retain(|leaf| {
                                below.is_none_or(|below| below.get() < leaf.idx.get())
                                    && (is_last || leaf.idx.get() <= max)
                            });
                            let max = leaves.last().map_or(max, |leaf| leaf.idx.get().max(max));
                            let halves = self.split(leaves, max)?;
                            if let Root::Children(children) = self.root() {
                                children.splice(at..=at, halves);
                            }
                        }
                    }
                }
            }
        }
    }

    fn root(&mut self) -> &mut Root {
        self.plan.root.get_or_insert_with(|| self.tree.root.clone())
    }

    fn leaves(&self, oid: Oid) -> Result<&Vec<Leaf>, Obstacle> {
        let planned = self.plan.nodes.iter().find(|node| node.oid == oid).map(|node| &node.leaves);
        let leaves = planned.or_else(|| self.tree.nodes.get(&oid));
        leaves.ok_or(Obstacle::Unread(Unread::Node(oid)))
    }

    fn leaves_mut(&mut self, oid: Oid) -> Result<&mut Vec<Leaf>, Obstacle> {
        let at = match self.plan.nodes.iter().position(|node| node.oid == oid) {
            Some(at) => at,
            None => {
                let leaves = self.leaves(oid)?.clone();
                self.plan.nodes.push(PlannedNode { oid, leaves, is_new: false });
                self.plan.nodes.len() - 1
            }
        };
        Ok(&mut self.plan.nodes[at].leaves)
    }

    /// Two new nodes in place of one whose greatest index is, or may be, `max`.
    fn split(&mut self, mut low: Vec<Leaf>, max: u32) -> Result<[Child; 2], Obstacle> {
        let high = low.split_off(low.len() / 2);
        let low_max = low.last().ok_or(Obstacle::Full)?.idx;
        Ok([self.add(low, low_max.get())?, self.add(high, max)?])
    }

    fn add(&mut self, leaves: Vec<Leaf>, max: u32) -> Result<Child, Obstacle> {
        // The counter is behind where a 0.8 client kept it elsewhere (3.5).
        let used = match self.plan.root.as_ref().unwrap_or(&self.tree.root) {
            Root::Leaves(_) => None,
            Root::Children(children) => children.iter().map(|c| Oid(c.oid.get()).index()).max(),
        };
        let number = self.plan.counter.max(used.map_or(0, |n| n.saturating_add(1)));
        self.plan.counter = number.checked_add(1).ok_or(Obstacle::Full)?;
        let oid = self.vid.btree(number);
        self.plan.nodes.push(PlannedNode { oid, leaves, is_new: true });
        Ok(Child { max_idx: max.into(), pad: 0.into(), oid: oid.0.into() })
    }
}

/// The leaves of a node below the root.
pub fn parse_leaves(bytes: &[u8]) -> Result<Vec<Leaf>, Damaged> {
    match Node::parse(bytes)? {
        Node::Leaves(leaves) => Ok(leaves.to_vec()),
        Node::Children(_) => Err(Damaged),
    }
}

/// Which of at least one child an index belongs to: beyond them all, the last one.
fn child_at(children: &[Child], idx: u32) -> usize {
    children.partition_point(|child| child.max_idx.get() < idx).min(children.len() - 1)
}

fn seat(leaves: &[Leaf], idx: u32, owner: Vid, room: usize) -> Seat {
    match leaves.binary_search_by_key(&idx, |leaf| leaf.idx.get()) {
        Ok(at) if leaves[at].vdi_id.get() == owner.get() => Seat::Taken,
        Ok(_) => Seat::Free,
        Err(_) if owner.is_none() => Seat::Taken,
        Err(_) if leaves.len() < room => Seat::Free,
        Err(_) => Seat::Full,
    }
}

/// Sets an entry of a node that has room for it.
fn set_leaf(leaves: &mut Vec<Leaf>, idx: u32, owner: Vid) {
    let leaf = Leaf { idx: idx.into(), vdi_id: owner.get().into() };
    match leaves.binary_search_by_key(&idx, |leaf| leaf.idx.get()) {
        Ok(at) => leaves[at] = leaf,
        Err(at) => leaves.insert(at, leaf),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use sheepdog_proto::btree::HEADER_LEN;

    /// Nodes that a few changes fill.
    const SMALL: Fanout = Fanout { leaves: 4, children: 64 };
    /// Indexes that tests use: enough of them to split a node of nodes' worth several times.
    const INDEXES: u32 = 100;

    fn vid(vid: u32) -> Vid {
        Vid::new(vid).unwrap()
    }

    fn own() -> Vid {
        vid(0x5e9293)
    }

    /// What servers store of a tree.
    struct Stored {
        /// From the btree counter on.
        inode: Vec<u8>,
        nodes: HashMap<Oid, Vec<u8>>,
    }

    impl Stored {
        fn empty() -> Stored {
            let gap = [&[0; 4], &[0x5a; GAP_LEN - 4][..], &EMPTY_ROOT].concat();
            Stored { inode: gap, nodes: HashMap::new() }
        }

        fn write(&mut self, write: &Write) {
            let (object, at) = match write.opcode {
                op::CREATE_AND_WRITE_OBJ => {
                    assert!(!self.nodes.contains_key(&write.oid), "{} is in use", write.oid);
                    (self.nodes.entry(write.oid).or_default(), write.offset)
                }
                _ if write.oid == own().inode() => {
                    let range = BTREE_COUNTER_OFFSET..MAP_OFFSET;
                    assert!(range.contains(&write.offset), "{}", write.offset);
                    (&mut self.inode, write.offset - BTREE_COUNTER_OFFSET)
                }
                _ => (self.nodes.get_mut(&write.oid).unwrap(), write.offset),
            };
            let end = at as usize + write.bytes.len();
            object.resize(object.len().max(end), 0);
            object[at as usize..end].copy_from_slice(&write.bytes);
        }

        fn leaves(&self, oid: Oid) -> Vec<Leaf> {
            match Node::parse(&self.nodes[&oid]) {
                Ok(Node::Leaves(leaves)) => leaves.to_vec(),
                other => panic!("{oid}: {other:?}"),
            }
        }

        /// The tree with all its nodes.
        fn tree(&self) -> Tree {
            let mut tree = Tree::parse(own(), &self.inode).unwrap();
            if let Root::Children(children) = &tree.root {
                let oids = children.iter().map(|child| Oid(child.oid.get()));
                tree.nodes = oids.map(|oid| (oid, self.leaves(oid))).collect();
            }
            tree
        }

        /// What the tree says, once it is found to be sound.
        fn content(&self, fanout: Fanout) -> BTreeMap<u32, u32> {
            assert!(self.inode[4..GAP_LEN].iter().all(|byte| *byte == 0x5a), "not ours to write");
            let tree = self.tree();
            let mut content = BTreeMap::new();
            let mut add = |leaves: &[Leaf]| {
                assert!(leaves.len() <= fanout.leaves);
                content.extend(leaves.iter().map(|leaf| (leaf.idx.get(), leaf.vdi_id.get())));
            };
            match &tree.root {
                Root::Leaves(leaves) => add(leaves),
                Root::Children(children) => {
                    assert!(children.len() <= fanout.children);
                    let mut next = 0;
                    for (i, child) in children.iter().enumerate() {
                        let oid = Oid(child.oid.get());
                        assert!(oid.index() < tree.counter());
                        let (leaves, max) = (&tree.nodes[&oid], child.max_idx.get());
                        let last = i + 1 == children.len();
                        for leaf in leaves {
                            let idx = leaf.idx.get();
                            assert!(idx >= next && (idx <= max || last), "{idx} of {next}..={max}");
                        }
                        add(leaves);
                        next = max + 1;
                    }
                }
            }
            for (idx, owner) in &content {
                assert_eq!(tree.find(*idx), Ok(vid(*owner)));
            }
            content.retain(|_, owner| *owner != 0);
            content
        }
    }

    fn step(tree: &mut Tree, stored: &mut Stored, changes: &[(u32, Vid)]) {
        let Ok(plan) = tree.plan(own(), changes, SMALL) else { panic!("nothing is in the way") };
        plan.writes(tree, own()).iter().for_each(|write| stored.write(write));
        tree.apply(plan);
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<(u32, bool)>>> {
        vec(vec((0..INDEXES, prop::bool::weighted(0.8)), 1..12), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_stored_image_is_a_sound_tree_of_old_and_new_entries(batches in batches()) {
            let (mut stored, mut model) = (Stored::empty(), BTreeMap::new());
            let mut tree = stored.tree();
            for batch in batches {
                let changes: Vec<(u32, Vid)> = batch
                    .iter()
                    .map(|(idx, used)| (*idx, if *used { own() } else { Vid::NONE }))
                    .collect();
                let before = model.clone();
                for (idx, owner) in &changes {
                    match owner.is_none() {
                        true => model.remove(idx),
                        false => model.insert(*idx, owner.get()),
                    };
                }
                let Ok(plan) = tree.plan(own(), &changes, SMALL) else {
                    panic!("all is read, and there is room");
                };
                for write in plan.writes(&tree, own()) {
                    stored.write(&write);
                    let content = stored.content(SMALL);
                    for idx in 0..INDEXES {
                        let now = content.get(&idx);
                        prop_assert!(now == before.get(&idx) || now == model.get(&idx), "{}", idx);
                    }
                }
                tree.apply(plan);
                prop_assert_eq!(&stored.content(SMALL), &model);
                let read = stored.tree();
                prop_assert_eq!(&read.root, &tree.root);
                prop_assert_eq!(&read.nodes, &tree.nodes);
                prop_assert!(read.gap == tree.gap);
                for idx in 0..INDEXES {
                    let owner = model.get(&idx).copied().unwrap_or(0);
                    prop_assert_eq!(tree.find(idx), Ok(vid(owner)));
                }
            }
        }
    }

    #[test]
    fn a_run_of_holes_ends_at_a_leaf_or_with_its_node() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        let (hole, all) = (|entry| entry == 0, 1 << 32);
        assert_eq!((tree.run(0, hole), tree.run(u32::MAX, hole)), (all, all));
        for idx in [10, 11, 20, 30] {
            step(&mut tree, &mut stored, &[(idx, own())]);
        }
        step(&mut tree, &mut stored, &[(20, Vid::NONE)]);
        assert_eq!((tree.run(0, hole), tree.run(12, hole), tree.run(31, hole)), (10, 30, all));
        assert_eq!((tree.run(10, |entry| entry != 0), tree.run(11, |entry| entry != 0)), (12, 12));
        step(&mut tree, &mut stored, &[(40, own())]);
        let Root::Children(children) = &tree.root else { panic!("no children") };
        let (max, first) = (children[0].max_idx.get(), Oid(children[0].oid.get()));
        assert_eq!(max, 11);
        assert_eq!((tree.run(0, hole), tree.run(12, hole), tree.run(41, hole)), (10, 30, all));
        tree.nodes.remove(&first);
        assert_eq!((tree.run(0, hole), tree.run(12, hole)), (1, 30), "nothing is known of it");
    }

    #[test]
    fn a_full_root_is_split_where_dog_splits_it() {
        let mut tree = Stored::empty().tree();
        let leaf = |i: u32| Leaf { idx: (2 * i).into(), vdi_id: own().get().into() };
        tree.root = Root::Leaves((0..MAX_LEAVES as u32).map(leaf).collect());
        let plan = tree.plan(own(), &[(1001, own())], FANOUT).ok().unwrap();
        let Some(Root::Children(children)) = &plan.root else { panic!("no children") };
        let shape: Vec<_> = children.iter().map(|c| (c.max_idx.get(), c.oid.get())).collect();
        let (low, high) = (own().btree(0), own().btree(1));
        assert_eq!(shape, [(524_284, low.0), (1_048_572, high.0)]);
        let lengths: Vec<_> = plan.nodes.iter().map(|node| (node.oid, node.leaves.len())).collect();
        assert_eq!(lengths, [(low, 262_144), (high, 262_144)]);
        assert_eq!(plan.counter, 2);
        let writes = plan.writes(&tree, own());
        let order: Vec<_> = writes.iter().map(|w| (w.opcode, w.oid, w.offset)).collect();
        let create = op::CREATE_AND_WRITE_OBJ;
        let root = (op::WRITE_OBJ, own().inode(), BTREE_COUNTER_OFFSET);
        assert_eq!(order, [(create, low, 0), (create, high, 0), root]);
    }

    #[test]
    fn an_index_past_the_last_node_belongs_to_it() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..5).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        step(&mut tree, &mut stored, &[(u32::MAX, own())]);
        let Root::Children(children) = &tree.root else { panic!("no children") };
        assert_eq!(children.last().unwrap().max_idx.get(), u32::MAX);
        assert_eq!(stored.tree().find(u32::MAX), Ok(own()));
        assert_eq!(stored.tree().find(u32::MAX - 1), Ok(Vid::NONE));
    }

    #[test]
    fn what_writers_have_left_that_died_before_the_root_keeps_the_root_in_order() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..5).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        for round in 0..4 {
            let plan = stored.tree().plan(own(), &[(200 + round, own())], SMALL).ok().unwrap();
            let writes = plan.writes(&tree, own());
            let (_, nodes) = writes.split_last().unwrap();
            nodes.iter().for_each(|write| stored.write(write));
            let mut tree = stored.tree();
            step(&mut tree, &mut stored, &[(5 + round, own())]);
            let content = stored.content(SMALL);
            assert!((0..=5 + round).chain([200]).all(|idx| content.contains_key(&idx)));
        }
    }

    #[test]
    fn entries_out_of_the_range_of_their_node_do_not_put_the_root_out_of_order() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..9).for_each(|idx| step(&mut tree, &mut stored, &[(10 * idx, own())]));
        let Root::Children(children) = &tree.root else { panic!("no children") };
        let (oid, max) = (Oid(children[1].oid.get()), children[1].max_idx.get());
        let strays =
            [0, max, max + 1, max + 100].map(|idx| Leaf { idx: idx.into(), vdi_id: 7.into() });
        stored.nodes.insert(oid, btree::encode_leaves(&strays));
        let mut tree = stored.tree();
        let before: Vec<_> = (0..200).map(|idx| tree.find(idx)).collect();
        // Either is well: to refuse, or to keep what is found.
        if let Ok(plan) = tree.plan(own(), &[(max - 1, own())], SMALL) {
            plan.writes(&tree, own()).iter().for_each(|write| stored.write(write));
            tree.apply(plan);
        }
        let tree = Tree::parse(own(), &stored.inode).map(|_| stored.tree()).unwrap();
        for (idx, before) in (0..).zip(before).filter(|(idx, _)| *idx != max - 1) {
            assert_eq!(tree.find(idx), before, "{idx}");
        }
    }

    #[test]
    fn only_the_node_that_is_needed_must_be_read() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..20).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        let mut lazy = Tree::parse(own(), &stored.inode).unwrap();
        let Err(Unread::Node(oid)) = lazy.find(19) else { panic!("nothing was read") };
        let unread = Obstacle::Unread(Unread::Node(oid));
        assert!(lazy.plan(own(), &[(19, vid(7))], SMALL).is_err_and(|e| e == unread));
        lazy.nodes.insert(oid, stored.leaves(oid));
        assert_eq!(lazy.find(19), Ok(own()));
        let plan = lazy.plan(own(), &[(19, vid(7))], SMALL).ok().unwrap();
        assert_eq!(plan.writes(&lazy, own()).len(), 1, "the root stays as it is");
        assert!(lazy.find(0).is_err());
    }

    #[test]
    fn a_node_in_use_is_never_created_again() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..20).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        // As a client leaves it that keeps the counter elsewhere.
        stored.inode[..4].fill(0);
        tree = stored.tree();
        (20..40).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        assert_eq!(stored.content(SMALL).len(), 40);
    }

    #[test]
    fn a_root_without_room_takes_only_what_fits_its_nodes() {
        let fanout = Fanout { leaves: 4, children: 2 };
        let mut tree = Stored::empty().tree();
        let mut change = |idx| {
            let plan = tree.plan(own(), &[(idx, own())], fanout)?;
            tree.apply(plan);
            Ok(())
        };
        (0..6).for_each(|idx| assert!(change(10 * idx).is_ok()));
        assert!(change(51).is_err_and(|e: Obstacle| e == Obstacle::Full));
        assert!(change(1).is_ok() && change(2).is_ok());
        assert!(change(3).is_err_and(|e| e == Obstacle::Full));
        assert!(change(0).is_ok(), "it is there");
    }

    #[test]
    fn the_marks_tell_of_another_clients_changes() {
        let mut stored = Stored::empty();
        let mut tree = stored.tree();
        (0..5).for_each(|idx| step(&mut tree, &mut stored, &[(idx, own())]));
        let marks = |tree: &Tree| {
            let changes = [(7, own())];
            let plan = tree.plan(own(), &changes, FANOUT).ok().unwrap();
            tree.marks(own(), &changes, &plan)
        };
        let before = marks(&tree);
        assert_eq!(marks(&stored.tree()), before);
        // As long as before, with another content.
        step(&mut tree, &mut stored, &[(3, Vid::NONE)]);
        let changed = marks(&stored.tree());
        assert_ne!(changed, before);
        step(&mut tree, &mut stored, &[(8, own())]);
        assert_ne!(marks(&stored.tree()), changed);
    }

    #[test]
    fn a_tree_is_taken_down_from_its_end() {
        let (mut tree, mut stored) = (Stored::empty().tree(), Stored::empty());
        let changes: Vec<_> = (0..20).map(|idx| (idx, own())).collect();
        step(&mut tree, &mut stored, &changes);
        while let Root::Children(children) = &tree.root {
            let last = Oid(children.last().unwrap().oid.get());
            stored.write(&tree.cut_leaves(own(), Some(last), 0));
            assert!(parse_leaves(&stored.nodes[&last]).unwrap().is_empty());
            stored.write(&tree.pop_child(own()));
            assert_eq!(stored.tree().root, tree.root);
        }
        assert_eq!(tree.root, Root::Leaves(Vec::new()));
    }

    #[test]
    fn a_node_of_another_vdi_is_refused() {
        let child = |owner: Vid| {
            let child = Child { max_idx: 9.into(), pad: 0.into(), oid: owner.btree(0).0.into() };
            [&[0; GAP_LEN][..], &btree::encode_children(&[child])].concat()
        };
        assert!(Tree::parse(own(), &child(own())).is_ok());
        assert!(Tree::parse(own(), &child(vid(1))).is_err());
        assert!(Tree::parse(own(), &[0; GAP_LEN + HEADER_LEN]).is_err(), "emptied by dog");
        assert!(Tree::parse(own(), &[0; 9]).is_err());
    }
}
