//! The index of a hypervolume (3.9): nodes of a tree of at most two levels.
//!
//! The root lies in the inode where other VDIs have their map. While it has room its entries are
//! leaves; then they point to node objects, which hold the leaves. The client maintains the tree,
//! so a node is as trustworthy as whoever wrote it last: everything is checked when it is parsed.

use std::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::wire;
use crate::oid::OidKind;
use crate::{Oid, Vid};

/// Bytes of a node object, and of the part of an inode that holds the root.
pub const NODE_LEN: u32 = 4 << 20;
/// Leaf entries that a node has room for.
pub const MAX_LEAVES: usize = (NODE_LEN as usize - HEADER_LEN) / size_of::<Leaf>();
/// Indirect entries that a node has room for.
pub const MAX_CHILDREN: usize = (NODE_LEN as usize - HEADER_LEN) / size_of::<Child>();
/// The root of a hypervolume that has no objects yet.
pub const EMPTY_ROOT: [u8; HEADER_LEN] = [0x74, 0x62, DEPTH_LEAVES as u8, 0, 0, 0, 0, 0];
/// Bytes of a node before its entries.
pub const HEADER_LEN: usize = size_of::<NodeHeader>();

const MAGIC: u16 = 0x6274;
const DEPTH_LEAVES: u16 = 1;
const DEPTH_CHILDREN: u16 = 2;

const _: () = assert!(MAX_LEAVES == 524_287 && MAX_CHILDREN == 262_143);

wire! {
    NodeHeader = 8; {
        magic: U16,
        /// 1: leaves follow; 2: children follow.
        depth: U16,
        entries: U32,
    }
}

wire! {
    /// Which VDI holds the object at an index.
    Leaf = 8; {
        idx: U32,
        /// 0 is left behind by discard: the object is unallocated.
        vdi_id: U32,
    }
}

wire! {
    /// Which node object has the leaves up to an index.
    Child = 16; {
        max_idx: U32,
        pad: U32,
        oid: U64,
    }
}

const _: () = {
    assert!(offset_of!(NodeHeader, depth) == 2 && offset_of!(NodeHeader, entries) == 4);
    assert!(offset_of!(Leaf, vdi_id) == 4 && offset_of!(Child, oid) == 8);
};

/// A node that was found to be sound: sorted, without duplicates, naming only what can exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node<'a> {
    Leaves(&'a [Leaf]),
    Children(&'a [Child]),
}

/// Why bytes are not a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadNode {
    /// The bytes end before the entries that the header counts.
    Short,
    Magic(u16),
    Depth(u16),
    /// More entries than a node has room for.
    Count(u32),
    /// The entry's index is not greater than the one before.
    Order(usize),
    /// The entry names no VDI, or no node object.
    Entry(usize),
}

impl std::fmt::Display for BadNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadNode::Short => f.write_str("btree node ends before its entries"),
            BadNode::Magic(magic) => write!(f, "btree node with magic {magic:#06x}"),
            BadNode::Depth(depth) => write!(f, "btree node of depth {depth}"),
            BadNode::Count(n) => write!(f, "btree node with {n} entries"),
            BadNode::Order(i) => write!(f, "btree node with entry {i} out of order"),
            BadNode::Entry(i) => write!(f, "btree node with entry {i} naming nothing"),
        }
    }
}

impl std::error::Error for BadNode {}

/// Bytes of a node with the header in `bytes`, so that a reader can fetch just those.
pub fn encoded_len(bytes: &[u8]) -> Result<usize, BadNode> {
    let (header, entry, _) = header(bytes)?;
    Ok(HEADER_LEN + header.entries.get() as usize * entry)
}

/// The header, the bytes of an entry, and how many entries fit.
fn header(bytes: &[u8]) -> Result<(&NodeHeader, usize, usize), BadNode> {
    let (header, _) = NodeHeader::ref_from_prefix(bytes).map_err(|_| BadNode::Short)?;
    if header.magic.get() != MAGIC {
        return Err(BadNode::Magic(header.magic.get()));
    }
    let (entry, most) = match header.depth.get() {
        DEPTH_LEAVES => (size_of::<Leaf>(), MAX_LEAVES),
        DEPTH_CHILDREN => (size_of::<Child>(), MAX_CHILDREN),
        depth => return Err(BadNode::Depth(depth)),
    };
    if header.entries.get() as usize > most {
        return Err(BadNode::Count(header.entries.get()));
    }
    Ok((header, entry, most))
}

impl<'a> Node<'a> {
    /// Parses and checks a node; bytes after its entries are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Node<'a>, BadNode> {
        let (header, _, _) = header(bytes)?;
        let count = header.entries.get() as usize;
        let entries = bytes.get(HEADER_LEN..).unwrap_or_default();
        if header.depth.get() == DEPTH_LEAVES {
            let (leaves, _) =
                <[Leaf]>::ref_from_prefix_with_elems(entries, count).map_err(|_| BadNode::Short)?;
            check(leaves, |leaf| leaf.idx.get(), |leaf| Vid::new(leaf.vdi_id.get()).is_some())?;
            Ok(Node::Leaves(leaves))
        } else {
            let (children, _) = <[Child]>::ref_from_prefix_with_elems(entries, count)
                .map_err(|_| BadNode::Short)?;
            let is_node = |child: &Child| Oid(child.oid.get()).kind() == Some(OidKind::Btree);
            check(children, |child| child.max_idx.get(), is_node)?;
            Ok(Node::Children(children))
        }
    }
}

fn check<T>(
    entries: &[T],
    index: impl Fn(&T) -> u32,
    names_something: impl Fn(&T) -> bool,
) -> Result<(), BadNode> {
    if let Some(i) = entries.iter().position(|entry| !names_something(entry)) {
        return Err(BadNode::Entry(i));
    }
    match entries.windows(2).position(|w| matches!(w, [a, b] if index(a) >= index(b))) {
        Some(i) => Err(BadNode::Order(i + 1)),
        None => Ok(()),
    }
}

/// The VDI that holds the object at `idx`; [`Vid::NONE`] where it is unallocated.
pub fn find_leaf(leaves: &[Leaf], idx: u32) -> Vid {
    let found = leaves.binary_search_by_key(&idx, |leaf| leaf.idx.get()).ok();
    let leaf = found.and_then(|i| leaves.get(i));
    leaf.and_then(|leaf| Vid::new(leaf.vdi_id.get())).unwrap_or(Vid::NONE)
}

/// The node object that has, or would have, the leaf of `idx`.
///
/// An index beyond them all belongs to the last child. None where there are no children.
pub fn find_child(children: &[Child], idx: u32) -> Option<Oid> {
    let i = children.partition_point(|child| child.max_idx.get() < idx);
    children.get(i).or(children.last()).map(|child| Oid(child.oid.get()))
}

/// Sets the VDI that holds the object at `idx`, in its place; false where the node is full.
pub fn set_leaf(leaves: &mut Vec<Leaf>, idx: u32, vid: Vid) -> bool {
    let leaf = Leaf { idx: idx.into(), vdi_id: vid.get().into() };
    match leaves.binary_search_by_key(&idx, |leaf| leaf.idx.get()) {
        Ok(i) => leaves[i] = leaf,
        Err(_) if leaves.len() >= MAX_LEAVES => return false,
        Err(i) => leaves.insert(i, leaf),
    }
    true
}

/// A node of leaves as it is stored.
pub fn encode_leaves(leaves: &[Leaf]) -> Vec<u8> {
    encode(DEPTH_LEAVES, leaves.len(), leaves.as_bytes())
}

/// A root that points to nodes, as it is stored.
pub fn encode_children(children: &[Child]) -> Vec<u8> {
    encode(DEPTH_CHILDREN, children.len(), children.as_bytes())
}

/// The header of a node of so many leaves: over one that has more it cuts off the rest.
pub fn leaves_header(count: usize) -> [u8; HEADER_LEN] {
    header_bytes(DEPTH_LEAVES, count)
}

/// The header of a root that points to so many nodes.
pub fn children_header(count: usize) -> [u8; HEADER_LEN] {
    header_bytes(DEPTH_CHILDREN, count)
}

fn encode(depth: u16, count: usize, entries: &[u8]) -> Vec<u8> {
    [&header_bytes(depth, count), entries].concat()
}

fn header_bytes(depth: u16, count: usize) -> [u8; HEADER_LEN] {
    let header =
        NodeHeader { magic: MAGIC.into(), depth: depth.into(), entries: (count as u32).into() };
    zerocopy::transmute!(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid(vid: u32) -> Vid {
        Vid::new(vid).unwrap()
    }

    /// The example of 3.9.
    const THREE: [u8; 32] = [
        0x74, 0x62, 1, 0, 3, 0, 0, 0, // header
        0, 0, 0, 0, 0x6e, 0xea, 0xd8, 0, // object 0
        9, 0, 0, 0, 0x6e, 0xea, 0xd8, 0, // object 9
        0, 0, 0x10, 0, 0x6e, 0xea, 0xd8, 0, // object 1048576
    ];

    #[test]
    fn leaves_come_back() {
        let Node::Leaves(leaves) = Node::parse(&THREE).unwrap() else { panic!("no leaves") };
        assert_eq!(find_leaf(leaves, 9), vid(0xd8ea6e));
        assert_eq!(find_leaf(leaves, 1 << 20), vid(0xd8ea6e));
        assert_eq!(find_leaf(leaves, 10), Vid::NONE);
        assert_eq!(encode_leaves(leaves), THREE);
        assert_eq!(encoded_len(&THREE[..8]), Ok(THREE.len()));
        assert_eq!(Node::parse(&EMPTY_ROOT), Ok(Node::Leaves(&[])));
        assert_eq!(encode_leaves(&[]), EMPTY_ROOT);
        assert_eq!(leaves_header(3), THREE[..HEADER_LEN]);
    }

    #[test]
    fn leaves_are_set_in_order() {
        let mut leaves = Vec::new();
        for idx in [1 << 20, 0, 9, 9] {
            assert!(set_leaf(&mut leaves, idx, vid(0xd8ea6e)));
        }
        assert_eq!(encode_leaves(&leaves), THREE);
        set_leaf(&mut leaves, 9, Vid::NONE);
        assert_eq!(find_leaf(&leaves, 9), Vid::NONE);
    }

    #[test]
    fn a_full_node_takes_only_what_it_has() {
        let mut leaves: Vec<Leaf> = (0..MAX_LEAVES as u32)
            .map(|i| Leaf { idx: (2 * i).into(), vdi_id: 1.into() })
            .collect();
        assert!(!set_leaf(&mut leaves, 1, vid(2)));
        assert!(set_leaf(&mut leaves, 2, vid(2)));
        let bytes = encode_leaves(&leaves);
        assert_eq!(bytes.len(), NODE_LEN as usize);
        assert_eq!(Node::parse(&bytes), Ok(Node::Leaves(&leaves)));
    }

    #[test]
    fn children_lead_to_the_node_of_an_index() {
        let child = |max: u32, n| Child {
            max_idx: max.into(),
            pad: 0.into(),
            oid: vid(7).btree(n).0.into(),
        };
        let bytes = encode_children(&[child(99, 1), child(500, 2)]);
        let Node::Children(children) = Node::parse(&bytes).unwrap() else { panic!("no children") };
        for (idx, n) in [(0, 1), (99, 1), (100, 2), (500, 2), (501, 2)] {
            assert_eq!(find_child(children, idx), Some(vid(7).btree(n)), "{idx}");
        }
        assert_eq!(find_child(&[], 0), None);
        assert_eq!(children_header(2), bytes[..HEADER_LEN]);
    }

    #[test]
    fn what_is_not_a_node_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = THREE;
            bytes[at] = byte;
            Node::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 0), BadNode::Magic(0x6200));
        assert_eq!(with(2, 0), BadNode::Depth(0));
        assert_eq!(with(2, 3), BadNode::Depth(3));
        assert_eq!(with(4, 4), BadNode::Short);
        assert_eq!(with(7, 255), BadNode::Count(0xff00_0003));
        assert_eq!(with(16, 0), BadNode::Order(1));
        assert_eq!(with(15, 1), BadNode::Entry(0));
        assert_eq!(Node::parse(&THREE[..7]), Err(BadNode::Short));
        // A leaf's bytes are no child: their object id is not that of a node.
        let mut bytes =
            encode_children(&[Child { oid: vid(7).data(1).0.into(), ..Child::default() }]);
        assert_eq!(Node::parse(&bytes), Err(BadNode::Entry(0)));
        bytes[4..8].copy_from_slice(&(MAX_CHILDREN as u32 + 1).to_le_bytes());
        assert_eq!(Node::parse(&bytes), Err(BadNode::Count(MAX_CHILDREN as u32 + 1)));
    }
}
