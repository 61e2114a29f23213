//! What operations take and give.

use std::fmt;
use std::time::{Duration, SystemTime};

use sheepdog_proto::time_to_ns;

use crate::error::Result;
use crate::vdi::{self, Which};

/// The name of a VDI, or the tag of a snapshot: 1 to 255 bytes, of any kind but NUL. Mostly UTF-8,
/// and displayed as such; bytes that are not come out as U+FFFD.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    pub(super) fn new(bytes: &[u8]) -> Name {
        Name(bytes.to_vec())
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// Which snapshot of a VDI: by its tag, or by the number that the servers gave it. `"tag".into()` and
/// `3.into()` make one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotId {
    /// The latest one with this tag.
    Tag(Name),
    /// The one with this id: from 1.
    Id(u32),
}

impl From<&str> for SnapshotId {
    fn from(tag: &str) -> SnapshotId {
        SnapshotId::Tag(Name::new(tag.as_bytes()))
    }
}

impl From<&[u8]> for SnapshotId {
    fn from(tag: &[u8]) -> SnapshotId {
        SnapshotId::Tag(Name::new(tag))
    }
}

impl From<u32> for SnapshotId {
    fn from(id: u32) -> SnapshotId {
        SnapshotId::Id(id)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotId::Tag(tag) => write!(f, "\"{tag}\""),
            SnapshotId::Id(id) => id.fmt(f),
        }
    }
}

impl SnapshotId {
    pub(super) fn which(&self) -> Result<Which> {
        match self {
            SnapshotId::Tag(tag) => Which::snapshot(tag.as_bytes(), 0),
            SnapshotId::Id(id) => Which::snapshot(&[], *id),
        }
    }
}

/// What kind of VDI is to be made.
///
/// ```
/// let options = sheepdog::CreateOptions::new(64 << 20).copies(2).preallocate(true);
/// ```
#[derive(Clone, Copy)]
pub struct CreateOptions(pub(super) vdi::CreateOptions);

impl CreateOptions {
    /// One of `size` bytes: 1 to 2^20 objects, 4 TiB where objects have the usual 4 MiB. Everything
    /// else as the cluster has it.
    pub fn new(size: u64) -> CreateOptions {
        CreateOptions(vdi::CreateOptions { size, ..Default::default() })
    }

    /// Copies of each object: 1 to 31.
    pub fn copies(mut self, copies: u8) -> CreateOptions {
        self.0.copies = copies;
        self
    }

    /// An erasure code instead of copies: 2, 4, 8 or 16 data strips and 1 to 15 parity strips.
    pub fn erasure_code(mut self, data: u8, parity: u8) -> CreateOptions {
        self.0.erasure_code = Some((data, parity));
        self
    }

    /// Bytes of an object: a power of two, 1 MiB to 2 GiB.
    pub fn object_size(mut self, bytes: u64) -> CreateOptions {
        self.0.object_size = Some(bytes);
        self
    }

    /// Allocate all objects now instead of each at its first write.
    pub fn preallocate(mut self, preallocate: bool) -> CreateOptions {
        self.0.prealloc = preallocate;
        self
    }

    /// A hypervolume: up to 16 PiB, without snapshots.
    pub fn hypervolume(mut self, hypervolume: bool) -> CreateOptions {
        self.0.hypervolume = hypervolume;
        self
    }
}

impl fmt::Debug for CreateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        f.debug_struct("CreateOptions")
            .field("size", &options.size)
            .field("copies", &options.copies)
            .field("erasure_code", &options.erasure_code)
            .field("object_size", &options.object_size)
            .field("preallocate", &options.prealloc)
            .field("hypervolume", &options.hypervolume)
            .finish()
    }
}

/// What a VDI or snapshot is, as the servers knew it when they were asked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The name.
    pub name: Name,
    /// Of a snapshot, its tag, if it has one.
    pub tag: Option<Name>,
    /// Bytes.
    pub size: u64,
    /// Bytes of one object.
    pub object_size: u64,
    /// Bytes of the objects that it names, those shared with others included.
    pub allocated: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When it became a snapshot; None where it is none.
    pub snapshot_taken: Option<SystemTime>,
    /// The id that the servers know it by.
    pub vdi_id: u32,
    /// The id of what it was made from, if it was made from anything.
    pub parent_vdi_id: Option<u32>,
    /// Of a snapshot, the number that [`SnapshotId::Id`] takes.
    pub snapshot_id: u32,
    /// Copies of each object; strips, where it has an erasure code.
    pub copies: u8,
    /// Data and parity strips, where it has an erasure code.
    pub erasure_code: Option<(u8, u8)>,
    /// Whether it is a hypervolume.
    pub hypervolume: bool,
    /// Whether it is a snapshot.
    pub is_snapshot: bool,
}

impl Info {
    pub(super) fn new(info: &vdi::Info) -> Info {
        let header = &info.header;
        let is_snapshot = header.is_snapshot();
        // A tag on a working VDI is what an interrupted snapshot left (protocol.md 5.8).
        let tag = is_snapshot.then(|| header.tag()).filter(|tag| !tag.is_empty());
        let time = |time| SystemTime::UNIX_EPOCH + Duration::from_nanos(time_to_ns(time));
        let policy = header.copy_policy;
        Info {
            name: Name::new(header.name()),
            tag: tag.map(Name::new),
            size: header.vdi_size.get(),
            object_size: 1 << header.block_size_shift,
            allocated: info.allocated,
            created: time(header.create_time.get()),
            snapshot_taken: is_snapshot.then(|| time(header.snap_ctime.get())),
            vdi_id: info.vid.get(),
            parent_vdi_id: Some(header.parent_vdi_id.get()).filter(|id| *id != 0),
            snapshot_id: header.snap_id.get(),
            copies: header.nr_copies,
            erasure_code: (policy != 0).then_some(((policy >> 4) * 2, policy & 15)),
            hypervolume: header.store_policy != 0,
            is_snapshot,
        }
    }
}
