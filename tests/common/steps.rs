//! Random sequences of operations: what proptest generates and shrinks.

use std::fmt;

use proptest::prelude::*;

pub const MIB: u64 = 1 << 20;
/// The largest VDI.
pub const MAX_SIZE: u64 = 9 * MIB / 2;
/// What clients and names are called in reports.
pub const CLIENTS: [&str; 2] = ["A", "B"];
pub const LETTERS: [&str; 3] = ["a", "b", "c"];

/// What is to be done, by whom, to the VDI with which name. A step that needs an open handle, or a
/// VDI, makes them: so every sequence makes sense, and those that shrinking leaves do too.
#[derive(Clone)]
pub struct Step {
    pub client: usize,
    pub name: usize,
    pub action: Action,
}

/// On one line, also where proptest asks for more.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", CLIENTS[self.client], LETTERS[self.name], self.action)
    }
}

#[derive(Clone, Debug)]
pub enum Action {
    Create { size: u64, prealloc: bool, open: bool },
    Open,
    Close,
    Delete,
    Read { at: u64, len: u64, vectored: bool },
    Write { at: u64, len: u64, vectored: bool, fua: bool },
    Zero { at: u64, len: u64, discard: bool },
    BlockStatus { at: u64, len: u64 },
    Resize { size: u64 },
    Flush,
    Refresh,
    Info,
    List,
    Snapshot { tag: usize, open: bool },
    SnapshotOpen { nth: usize, by_tag: bool },
    SnapshotClose { nth: usize },
    SnapshotRead { nth: usize, at: u64, len: u64 },
    SnapshotDelete { nth: usize, by_tag: bool },
    SnapshotMissing,
    Rollback { nth: usize },
    Clone { nth: usize, by: By, to: usize, open: bool },
    SetAttr { key: usize, len: usize },
    GetAttr { key: usize, room: usize },
    DeleteAttr { key: usize },
    Invalid,
}

/// How a clone names its source.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Handle,
    Tag,
    Id,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Most of what happens, happens to one name: so that much comes together.
    let name = prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2usize)];
    let step = (0..2usize, name, action());
    let step = step.prop_map(|(client, name, action)| Step { client, name, action });
    prop::collection::vec(step, 1..120)
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    // Positions and lengths at objects' borders, near them, and anywhere.
    let near = || (0..5 * MIB, 0..7u64).prop_map(|(n, by)| (n / MIB * MIB + by).saturating_sub(3));
    let at = || prop_oneof![near(), 0..5 * MIB, (0..5u64).prop_map(|n| n * MIB)];
    let len = || prop_oneof![0..5000u64, near(), (0..5u64).prop_map(|n| n * MIB)];
    let size = || at().prop_map(|size| size.clamp(1, MAX_SIZE));
    let by = || prop_oneof![Just(By::Handle), Just(By::Tag), Just(By::Id)];
    let nth = || 0..3usize;
    let bit = any::<bool>;
    prop_oneof![
        3 => (size(), prop::bool::weighted(0.2), bit())
            .prop_map(|(size, prealloc, open)| Create { size, prealloc, open }),
        2 => Just(Open),
        3 => Just(Close),
        2 => Just(Delete),
        6 => (at(), len(), bit()).prop_map(|(at, len, vectored)| Read { at, len, vectored }),
        20 => (at(), len(), bit(), prop::bool::weighted(0.1))
            .prop_map(|(at, len, vectored, fua)| Write { at, len, vectored, fua }),
        8 => (at(), len(), bit()).prop_map(|(at, len, discard)| Zero { at, len, discard }),
        2 => (at(), len()).prop_map(|(at, len)| BlockStatus { at, len }),
        6 => size().prop_map(|size| Resize { size }),
        1 => Just(Flush),
        2 => Just(Refresh),
        1 => Just(Info),
        1 => Just(List),
        10 => (0..3usize, bit()).prop_map(|(tag, open)| Snapshot { tag, open }),
        2 => (nth(), bit()).prop_map(|(nth, by_tag)| SnapshotOpen { nth, by_tag }),
        2 => nth().prop_map(|nth| SnapshotClose { nth }),
        3 => (nth(), at(), len()).prop_map(|(nth, at, len)| SnapshotRead { nth, at, len }),
        5 => (nth(), bit()).prop_map(|(nth, by_tag)| SnapshotDelete { nth, by_tag }),
        1 => Just(SnapshotMissing),
        4 => nth().prop_map(|nth| Rollback { nth }),
        5 => (nth(), by(), 0..3usize, bit())
            .prop_map(|(nth, by, to, open)| Clone { nth, by, to, open }),
        2 => (0..2usize, 0..70_000usize).prop_map(|(key, len)| SetAttr { key, len }),
        2 => (0..2usize, 0..70_000usize).prop_map(|(key, room)| GetAttr { key, room }),
        1 => (0..2usize).prop_map(|key| DeleteAttr { key }),
        2 => Just(Invalid),
    ]
}
