//! What is stored: inodes, attributes, lists of nodes, and the nodes of a hypervolume's index, as
//! they are decoded, and that index as it is changed.
//!
//! The first byte says which. An index that is taken for sound is searched as a plain list says,
//! and changes of it, in nodes of a few entries so that they split, are what a plain map says; each
//! write that they make is a sound node.

use std::collections::BTreeMap;

use sheepdog_proto::btree::{self, HEADER_LEN, Leaf, Node};
use sheepdog_proto::inode::{InodeHeader, MAP_OFFSET, max_size};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{Oid, Vid, admin, attr};
use sim::tree::{Fanout, GAP_LEN, Obstacle, Tree, Unread};
use sim::vdi::inode::{self, Name, Which};

use crate::script::Script;

const FEW: Fanout = Fanout { leaves: 4, children: 3 };

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.u8() % 5 {
        0 => header(script.rest()),
        1 => node(script.rest()),
        2 => tree(&mut script),
        3 => attribute(script.rest()),
        _ => {
            for node in admin::nodes(script.rest()) {
                let _ = node.nid.address();
            }
        }
    }
}

fn header(bytes: &[u8]) {
    let Ok((header, _)) = InodeHeader::read_from_prefix(bytes) else { return };
    let Ok(name) = Name::new(header.name()) else { return };
    let Some(vid) = header.vid() else { return };
    let snapshot = Which::snapshot(header.tag(), header.snap_id.get());
    for which in [Ok(Which::WORKING), snapshot].into_iter().flatten() {
        if inode::check(&header, vid, &name, &which).is_ok() {
            let size = header.vdi_size.get();
            assert!(size <= max_size(header.store_policy, header.block_size_shift));
            let objects = u64::from(inode::objects(&header));
            assert!(objects << header.block_size_shift >= size);
        }
    }
}

fn node(bytes: &[u8]) {
    let node = Node::parse(bytes);
    let encoded = match node {
        Err(error) => return drop(error.to_string()),
        Ok(Node::Leaves(leaves)) => {
            for leaf in leaves {
                let idx = leaf.idx.get();
                assert_eq!(btree::find_leaf(leaves, idx).get(), leaf.vdi_id.get());
                let next = leaves.iter().find(|leaf| leaf.idx.get() == idx.wrapping_add(1));
                let next = next.map_or(0, |leaf| leaf.vdi_id.get());
                assert_eq!(btree::find_leaf(leaves, idx.wrapping_add(1)).get(), next);
            }
            btree::encode_leaves(leaves)
        }
        Ok(Node::Children(children)) => {
            for child in children {
                let idx = child.max_idx.get();
                assert_eq!(btree::find_child(children, idx), Some(Oid(child.oid.get())));
            }
            btree::encode_children(children)
        }
    };
    assert_eq!(bytes[..encoded.len()], encoded);
    assert_eq!(btree::encoded_len(&bytes[..HEADER_LEN]), Ok(encoded.len()));
}

fn tree(script: &mut Script) {
    let Some(vid) = Vid::new(script.u32()).filter(|vid| !vid.is_none()) else { return };
    let root = script.counted();
    let gap = [0x5a; GAP_LEN];
    let Ok(mut tree) = Tree::parse(vid, &[&gap, root].concat()) else { return };
    // A node is numbered by the counter: none but those of the root is there.
    let mut expected = BTreeMap::new();
    let mut known = true;
    if let Ok(Node::Leaves(leaves)) = Node::parse(root) {
        expected.extend(leaves.iter().map(|leaf| (leaf.idx.get(), leaf.vdi_id.get())));
    } else {
        known = false;
    }
    for _ in 0..64 {
        if script.is_over() {
            break;
        }
        let changes: Vec<_> = (0..=script.u8() % 4)
            .map(|_| {
                let idx = script.u8();
                // Far apart, or side by side.
                let idx = if idx >= 0x80 { u32::from(idx) << 24 } else { idx.into() };
                (idx, Vid::new(script.u8().into()).unwrap_or(Vid::NONE))
            })
            .collect();
        let plan = match tree.plan(vid, &changes, FEW) {
            Ok(plan) => plan,
            Err(Obstacle::Full) => return,
            Err(Obstacle::Unread(Unread::Root)) => panic!("the root is there"),
            Err(Obstacle::Unread(Unread::Node(oid))) => {
                let bytes = script.counted();
                let leaves: Vec<Leaf> = match Node::parse(bytes) {
                    Ok(Node::Leaves(leaves)) => leaves.to_vec(),
                    _ => Vec::new(),
                };
                tree.nodes.insert(oid, leaves);
                continue;
            }
        };
        for write in plan.writes(&tree, vid) {
            let at = if write.oid == vid.inode() { MAP_OFFSET - write.offset } else { 0 };
            let node = Node::parse(&write.bytes[at as usize..]);
            assert!(node.is_ok(), "{write:?}: {node:?}");
        }
        let _ = tree.marks(vid, &changes, &plan);
        tree.apply(plan);
        for (idx, owner) in changes {
            expected.insert(idx, owner.get());
        }
        for (idx, owner) in &expected {
            match tree.find(*idx) {
                Ok(found) if known => assert_eq!(found.get(), *owner, "at {idx}"),
                Ok(_) => {}
                Err(unread) => assert!(!known, "{unread:?}"),
            }
            let end = tree.run(*idx, |entry| entry == *owner);
            assert!(end >= u64::from(*idx), "at {idx}");
            if known {
                let differs = expected.range(idx..).find(|(_, other)| *other != owner);
                assert!(differs.is_none_or(|(first, _)| end <= u64::from(*first)), "at {idx}");
            }
        }
    }
}

fn attribute(bytes: &[u8]) {
    let Some((header, value)) = attr::parse(bytes) else { return };
    let _ = (header.is_deleted(), header.oid(header.first_id()));
    assert!(header.same_key(header));
    let encoded = attr::encode(*header, value).expect("no value is too long");
    let (_, again) = attr::parse(&encoded).expect("it is whole");
    assert_eq!(again, value);
}
