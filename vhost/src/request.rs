//! What a guest asks for: a chain of descriptors, taken apart and checked. Does nothing of it, and
//! knows neither rings nor a VDI.
//!
//! The layout is virtio 1.2, 5.2.6: sixteen bytes that say what and where, then data, and a byte for
//! the status at the very end. How those are spread over descriptors is the guest's choice (2.7.4).

#![allow(unsafe_code)] // of guest memory, which is mapped as long as its guard is held

use std::sync::Arc;

use sheepdog::aio::Memory;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

/// Of all addresses and lengths, whatever the block size.
pub const SECTOR: u64 = 512;

/// Ranges that one request discards or zeroes at most.
pub const MAX_RANGES: usize = 32;

const HEADER_LEN: usize = 16;
const RANGE_LEN: usize = 16;

/// How a request has ended, as the guest is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Done,
    Failed,
    Unsupported,
}

/// What is to be done. Offsets and lengths are bytes, and lie inside the disk.
pub enum Action {
    Read {
        offset: u64,
        into: Pieces,
    },
    Write {
        offset: u64,
        from: Pieces,
    },
    Flush,
    /// The serial number is to be put there.
    Identify(Pieces),
    Zero(Vec<Range>),
    /// Nothing: the guest is told this.
    Refuse(Status),
}

/// What is to read as zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub offset: u64,
    pub len: u64,
    /// Its space is to be freed.
    pub free: bool,
}

/// A request of a guest.
pub struct Request {
    pub action: Action,
    pub status: StatusByte,
}

/// What chains of this disk are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the disk.
    pub size: u64,
    pub read_only: bool,
}

/// Why a chain is no request, not even one that can be refused: there is no byte for the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// Guest memory, and what keeps it mapped.
pub struct Pieces {
    list: Vec<(*mut u8, usize)>,
    _guard: Arc<GuestMemoryMmap>,
}

// SAFETY: addresses of memory that any thread may use; see `Memory` below.
unsafe impl Send for Pieces {}

// SAFETY: the guard keeps the memory mapped, for reading and writing, where it is; nobody here makes
// references to it, the guest is another process, and the list does not change.
unsafe impl Memory for Pieces {
    fn pieces(&self) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        self.list.iter().copied()
    }
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.list.iter().map(|(_, len)| len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Puts as much of `bytes` there as fits.
    pub fn put(&self, mut bytes: &[u8]) {
        for (at, len) in &self.list {
            // SAFETY: mapped, as the guard is held.
            let piece: VolatileSlice<'_> = unsafe { VolatileSlice::new(*at, *len) };
            let (now, later) = bytes.split_at(bytes.len().min(*len));
            piece.copy_from(now);
            bytes = later;
        }
    }
}

/// Where the guest looks for how it ended.
pub struct StatusByte {
    at: *mut u8,
    _guard: Arc<GuestMemoryMmap>,
}

// SAFETY: as of `Pieces`.
unsafe impl Send for StatusByte {}

impl StatusByte {
    pub fn put(&self, status: Status) {
        let status = match status {
            Status::Done => VIRTIO_BLK_S_OK,
            Status::Failed => VIRTIO_BLK_S_IOERR,
            Status::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        // SAFETY: mapped, as the guard is held.
        let byte: VolatileSlice<'_> = unsafe { VolatileSlice::new(self.at, 1) };
        byte.copy_from(&[status as u8]);
    }
}

/// Takes the chain that begins at `head` in the table of `queue_size` descriptors at `table`.
pub fn take(
    memory: &Arc<GuestMemoryMmap>,
    table: GuestAddress,
    queue_size: u16,
    head: u16,
    limits: Limits,
) -> Result<Request, Malformed> {
    let mut readable = Segments::default();
    let mut writable = Segments::default();
    walk(memory, table, queue_size, head, |descriptor| {
        let (segments, access) = match descriptor.is_write_only() {
            true => (&mut writable, Permissions::Write),
            // What is to be read comes first (2.7.4.2).
            false if writable.0.is_empty() => (&mut readable, Permissions::Read),
            false => return Err(Malformed("a buffer to read behind one to write")),
        };
        let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
        for slice in slices.map_err(|_| OUTSIDE)? {
            segments.0.push(slice.map_err(|_| OUTSIDE)?);
        }
        Ok(())
    })?;
    let status = writable.cut_last().ok_or(Malformed("no byte for the status"))?;
    let status = StatusByte { at: status, _guard: memory.clone() };
    let action = action(memory, readable, writable, limits).unwrap_or_else(Action::Refuse);
    Ok(Request { action, status })
}

const OUTSIDE: Malformed = Malformed("a buffer outside the memory");

/// Calls `f` with each descriptor of a chain. As `virtio_queue::DescriptorChain`, which ends at what
/// is wrong as if the chain had ended there, and begins nowhere but at the available ring.
fn walk(
    memory: &GuestMemoryMmap,
    table: GuestAddress,
    queue_size: u16,
    head: u16,
    mut f: impl FnMut(Descriptor) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let (mut table, mut size, mut index) = (table, u32::from(queue_size), u32::from(head));
    let mut indirect = false;
    // A chain has no more descriptors than its table, or it runs in a circle.
    let mut left = size;
    let mut bytes = 0u32;
    loop {
        if index >= size || left == 0 {
            return Err(Malformed("a chain without an end"));
        }
        left -= 1;
        let offset = u64::from(index) * size_of::<Descriptor>() as u64;
        let at = table.0.checked_add(offset).ok_or(OUTSIDE)?;
        let descriptor: Descriptor = memory.read_obj(GuestAddress(at)).map_err(|_| OUTSIDE)?;
        if descriptor.refers_to_indirect_table() {
            let len = descriptor.len();
            // Of the flags beside it only NEXT would be wrong (2.7.5.3.1).
            if indirect || descriptor.has_next() || !len.is_multiple_of(16) {
                return Err(Malformed("an indirect table where none may be"));
            }
            (table, size, index) = (descriptor.addr(), len / 16, 0);
            (indirect, left) = (true, size.min(u32::from(u16::MAX)));
            continue;
        }
        // No more in all (2.7.4.2), so that lengths can be added.
        bytes = bytes.checked_add(descriptor.len()).ok_or(Malformed("more than 4 GiB"))?;
        f(descriptor)?;
        if !descriptor.has_next() {
            return Ok(());
        }
        index = u32::from(descriptor.next());
    }
}

/// Buffers one after the other.
#[derive(Default)]
struct Segments<'a>(Vec<VolatileSlice<'a>>);

impl Segments<'_> {
    fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// Takes the last byte off.
    fn cut_last(&mut self) -> Option<*mut u8> {
        let last = self.0.pop()?;
        // None is empty: that of no bytes has no slice.
        let (rest, byte) = last.split_at(last.len().checked_sub(1)?).ok()?;
        if !rest.is_empty() {
            self.0.push(rest);
        }
        Some(byte.ptr_guard_mut().as_ptr())
    }

    /// Takes the first `N` bytes off; None where there are fewer.
    fn cut_first<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut first = [0; N];
        let mut filled = 0;
        while filled < N {
            let segment = self.0.first_mut()?;
            let count = segment.copy_to(&mut first[filled..]);
            filled += count;
            if count == segment.len() {
                self.0.remove(0);
            } else {
                *segment = segment.offset(count).ok()?;
            }
        }
        Some(first)
    }

    fn pieces(self, memory: &Arc<GuestMemoryMmap>) -> Pieces {
        let list = self.0.iter().map(|slice| (slice.ptr_guard_mut().as_ptr(), slice.len()));
        Pieces { list: list.collect(), _guard: memory.clone() }
    }
}

fn action(
    memory: &Arc<GuestMemoryMmap>,
    mut readable: Segments<'_>,
    writable: Segments<'_>,
    limits: Limits,
) -> Result<Action, Status> {
    let header = readable.cut_first::<HEADER_LEN>().ok_or(Status::Failed)?;
    let kind = le32(&header, 0);
    let sector = le64(&header, 8);
    if limits.read_only
        && !matches!(kind, VIRTIO_BLK_T_IN | VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID)
    {
        return Err(Status::Failed);
    }
    match kind {
        VIRTIO_BLK_T_IN => {
            let offset = inside(limits, sector, writable.len() as u64)?;
            Ok(Action::Read { offset, into: writable.pieces(memory) })
        }
        VIRTIO_BLK_T_OUT => {
            let offset = inside(limits, sector, readable.len() as u64)?;
            Ok(Action::Write { offset, from: readable.pieces(memory) })
        }
        VIRTIO_BLK_T_FLUSH => Ok(Action::Flush),
        VIRTIO_BLK_T_GET_ID => Ok(Action::Identify(writable.pieces(memory))),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
            let count = readable.len() / RANGE_LEN;
            if count == 0 || count > MAX_RANGES || !readable.len().is_multiple_of(RANGE_LEN) {
                return Err(Status::Failed);
            }
            let is_discard = kind == VIRTIO_BLK_T_DISCARD;
            let ranges = (0..count).map(|_| {
                let range = readable.cut_first::<RANGE_LEN>().ok_or(Status::Failed)?;
                zero_range(&range, is_discard, limits)
            });
            Ok(Action::Zero(ranges.collect::<Result<_, _>>()?))
        }
        _ => Err(Status::Unsupported),
    }
}

fn zero_range(range: &[u8; RANGE_LEN], is_discard: bool, limits: Limits) -> Result<Range, Status> {
    let flags = le32(range, 12);
    // That of a discard has none, not even that one (5.2.6.2).
    let known = if is_discard { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
    if flags & !known != 0 {
        return Err(Status::Unsupported);
    }
    let len = u64::from(le32(range, 8)) * SECTOR;
    let offset = inside(limits, le64(range, 0), len)?;
    Ok(Range { offset, len, free: is_discard || flags != 0 })
}

/// The offset of `len` bytes at `sector`, which must lie inside the disk and be whole sectors.
fn inside(limits: Limits, sector: u64, len: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR).ok_or(Status::Failed)?;
    let end = offset.checked_add(len).ok_or(Status::Failed)?;
    if end > limits.size || !len.is_multiple_of(SECTOR) {
        return Err(Status::Failed);
    }
    Ok(offset)
}

fn le32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn le64(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
