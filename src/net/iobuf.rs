//! Memory of the caller's that requests send from and receive into.
//!
//! A C caller lends its buffer for the length of a call (or until a callback). Inside the library
//! that loan is a value, [`SendBuf`] or [`RecvBuf`]: sliced and cloned like a slice, but free of
//! lifetimes, since a request outlives no stack frame that the compiler could name. The promise
//! that makes it sound is given once, where the value is made from raw pointers, and kept by one
//! rule: a request that ends, by reply or by cancellation, drops its buffers before its caller is
//! told.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

/// How many pieces one gather or scatter call uses at most: as many as kernels take (IOV_MAX).
const MAX_IOVECS: usize = 1024;
/// How many of them take no memory of their own.
const FEW_IOVECS: usize = 64;

/// There is no memory for a copy, or for a list of pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

#[derive(Clone, Copy)]
struct Span<P> {
    base: P,
    len: usize,
    /// Bytes of the spans before it.
    start: usize,
}

// SAFETY: a span is an address and a length; whoever built it promised that the memory may be
// used from any thread until the last clone is gone.
unsafe impl<P> Send for Span<P> {}
// SAFETY: as above. Concurrent writes into one RecvBuf are excluded by its owner, the one request
// that it belongs to, which runs under the lock of its connection.
unsafe impl<P> Sync for Span<P> {}

#[derive(Clone)]
enum Memory<P> {
    None,
    One(Span<P>),
    /// None of them is empty.
    Many(Arc<Vec<Span<P>>>),
    Owned(Arc<Vec<u8>>),
    /// As many as are asked for.
    Zeros,
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Bytes to send.
#[derive(Clone)]
pub struct SendBuf {
    memory: Memory<*const u8>,
    start: usize,
    len: usize,
}

/// Room to receive into.
#[derive(Clone)]
pub struct RecvBuf {
    memory: Memory<*mut u8>,
    start: usize,
    len: usize,
}

/// The part `[start, start + len)` of a row of spans, as (span number, range within it).
fn parts<P>(
    spans: &[Span<P>],
    start: usize,
    len: usize,
) -> impl Iterator<Item = (&Span<P>, Range<usize>)> {
    // There can be very many of them, and this is asked for each part that a socket takes.
    let first = spans.partition_point(|span| span.start + span.len <= start);
    let end = start + len;
    spans[first..].iter().take_while(move |span| span.start < end).map(move |span| {
        let from = start.saturating_sub(span.start);
        (span, from..span.len.min(end - span.start))
    })
}

/// The pieces that are not empty, and how long they are together.
fn spans<P>(pieces: impl Iterator<Item = (P, usize)>) -> Result<(Vec<Span<P>>, usize), NoMemory> {
    let (mut spans, mut start) = (Vec::new(), 0);
    for (base, len) in pieces.filter(|(_, len)| *len > 0) {
        spans.try_reserve(1).map_err(|_| NoMemory)?;
        spans.push(Span { base, len, start });
        start += len;
    }
    Ok((spans, start))
}

impl SendBuf {
    pub const EMPTY: SendBuf = SendBuf { memory: Memory::None, start: 0, len: 0 };

    /// # Safety
    /// `len` bytes at `base` must stay readable, and unwritten, until the value and all its
    /// clones and slices are gone.
    pub unsafe fn from_raw(base: *const u8, len: usize) -> SendBuf {
        SendBuf { memory: Memory::One(Span { base, len, start: 0 }), start: 0, len }
    }

    /// # Safety
    /// As [`SendBuf::from_raw`], for each of the pieces. Their lengths must not add up to more
    /// than `usize::MAX`.
    pub unsafe fn from_raw_vectored(
        pieces: impl Iterator<Item = (*const u8, usize)>,
    ) -> Result<SendBuf, NoMemory> {
        let (spans, len) = spans(pieces)?;
        Ok(SendBuf { memory: Memory::Many(Arc::new(spans)), start: 0, len })
    }

    /// `len` zeros, which take no memory.
    pub fn zeros(len: usize) -> SendBuf {
        SendBuf { memory: Memory::Zeros, start: 0, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The part at `range`, which must lie inside.
    pub fn slice(&self, range: Range<usize>) -> SendBuf {
        assert!(range.start <= range.end && range.end <= self.len);
        SendBuf {
            memory: self.memory.clone(),
            start: self.start + range.start,
            len: range.end - range.start,
        }
    }

    /// The bytes, copied into memory of the library's own: ends the loan.
    pub fn to_owned(&self) -> Result<SendBuf, NoMemory> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(self.len).map_err(|_| NoMemory)?;
        self.for_each(0, |bytes| {
            copy.extend_from_slice(bytes);
            true
        });
        Ok(copy.into())
    }

    /// The first bytes, and zeros where it has fewer.
    pub fn head<const N: usize>(&self) -> [u8; N] {
        let mut head = [0; N];
        let mut filled = 0;
        self.for_each(0, |bytes| {
            let take = bytes.len().min(N - filled);
            head[filled..][..take].copy_from_slice(&bytes[..take]);
            filled += take;
            filled < N
        });
        head
    }

    /// Calls `f` with each contiguous part from `skip` on, until it returns false.
    fn for_each<'a>(&'a self, skip: usize, mut f: impl FnMut(&'a [u8]) -> bool) {
        debug_assert!(skip <= self.len);
        let (start, len) = (self.start + skip, self.len - skip);
        let spans = match &self.memory {
            Memory::None => &[],
            Memory::Owned(bytes) => {
                f(&bytes[start..start + len]);
                return;
            }
            Memory::Zeros => {
                let mut left = len;
                while left > 0 && f(&ZEROS[..left.min(ZEROS.len())]) {
                    left -= left.min(ZEROS.len());
                }
                return;
            }
            Memory::One(span) => std::slice::from_ref(span),
            Memory::Many(spans) => spans,
        };
        for (span, range) in parts(spans, start, len) {
            // SAFETY: `range` lies inside the span, which is readable and unwritten for as long
            // as `self` lives: the promise of `from_raw`.
            let bytes =
                unsafe { std::slice::from_raw_parts(span.base.add(range.start), range.len()) };
            if !f(bytes) {
                return;
            }
        }
    }

    /// Adds what follows the first `skip` bytes to a gather list; false when the list is full.
    pub fn gather<'a>(&'a self, skip: usize, out: &mut IoVecs<'a>) -> bool {
        let mut fits = true;
        self.for_each(skip, |bytes| {
            fits = out.push(bytes);
            fits
        });
        fits
    }
}

impl From<Vec<u8>> for SendBuf {
    fn from(bytes: Vec<u8>) -> SendBuf {
        let len = bytes.len();
        SendBuf { memory: Memory::Owned(Arc::new(bytes)), start: 0, len }
    }
}

impl RecvBuf {
    /// # Safety
    /// `len` bytes at `base` must stay writable, and unused by others, until the value and all
    /// its clones and slices are gone. They need not be initialised.
    pub unsafe fn from_raw(base: *mut u8, len: usize) -> RecvBuf {
        RecvBuf { memory: Memory::One(Span { base, len, start: 0 }), start: 0, len }
    }

    /// # Safety
    /// As [`RecvBuf::from_raw`], for each of the pieces, which must not overlap. Their lengths
    /// must not add up to more than `usize::MAX`.
    pub unsafe fn from_raw_vectored(
        pieces: impl Iterator<Item = (*mut u8, usize)>,
    ) -> Result<RecvBuf, NoMemory> {
        let (spans, len) = spans(pieces)?;
        Ok(RecvBuf { memory: Memory::Many(Arc::new(spans)), start: 0, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The part at `range`, which must lie inside.
    pub fn slice(&self, range: Range<usize>) -> RecvBuf {
        assert!(range.start <= range.end && range.end <= self.len);
        RecvBuf {
            memory: self.memory.clone(),
            start: self.start + range.start,
            len: range.end - range.start,
        }
    }

    fn spans(&self) -> &[Span<*mut u8>] {
        match &self.memory {
            Memory::One(span) => std::slice::from_ref(span),
            Memory::Many(spans) => spans,
            Memory::None | Memory::Owned(_) | Memory::Zeros => &[],
        }
    }

    /// Copies `bytes` to `at`; they must fit.
    pub fn write_at(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at);
        let mut rest = bytes;
        for (span, range) in parts(self.spans(), self.start + at, bytes.len()) {
            let (now, later) = rest.split_at(range.len());
            // SAFETY: `range` lies inside the span, which is ours to write: the promise of
            // `from_raw`. `now` is the library's memory or another loan, never this one.
            unsafe {
                std::ptr::copy_nonoverlapping(now.as_ptr(), span.base.add(range.start), now.len());
            }
            rest = later;
        }
    }

    /// Fills with zeros from `at` to the end.
    pub fn zero_from(&mut self, at: usize) {
        assert!(at <= self.len);
        for (span, range) in parts(self.spans(), self.start + at, self.len - at) {
            // SAFETY: as in `write_at`.
            unsafe { std::ptr::write_bytes(span.base.add(range.start), 0, range.len()) };
        }
    }

    /// Calls `f` with a scatter list of the bytes in `range` followed by `tail`.
    ///
    /// The slices are for a system call to write to: they may be uninitialised memory of a C
    /// caller, and the only code that gets them is the socket's.
    pub(super) fn scatter<R>(
        &mut self,
        range: Range<usize>,
        tail: &mut [u8],
        f: impl FnOnce(&mut [IoSliceMut<'_>]) -> R,
    ) -> R {
        assert!(range.start <= range.end && range.end <= self.len);
        let parts = || parts(self.spans(), self.start + range.start, range.len());
        let mut few: [IoSliceMut<'_>; FEW_IOVECS] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut many = Vec::new();
        let mut list = &mut few[..];
        let count = parts().take(MAX_IOVECS).count() + 1;
        // Without memory the list is shorter.
        if count > list.len() && many.try_reserve_exact(count).is_ok() {
            many.resize_with(count.min(MAX_IOVECS), || IoSliceMut::new(&mut []));
            list = &mut many;
        }
        let (mut used, mut all) = (0, true);
        for (span, part) in parts() {
            if used == list.len() - 1 {
                all = false;
                break;
            }
            // SAFETY: `part` lies inside the span, which is ours to write while `self` lives;
            // the spans of one buffer do not overlap.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(span.base.add(part.start), part.len()) };
            list[used] = IoSliceMut::new(bytes);
            used += 1;
        }
        // Bytes may go to the tail only when everything before it is in the list.
        if all && !tail.is_empty() {
            list[used] = IoSliceMut::new(tail);
            used += 1;
        }
        f(&mut list[..used])
    }
}

/// A gather list of bounded length.
pub struct IoVecs<'a> {
    few: [IoSlice<'a>; FEW_IOVECS],
    used: usize,
    /// All of them, once they are more than a few.
    many: Vec<IoSlice<'a>>,
}

impl<'a> IoVecs<'a> {
    pub fn new() -> IoVecs<'a> {
        IoVecs { few: [IoSlice::new(&[]); FEW_IOVECS], used: 0, many: Vec::new() }
    }

    /// False when the list is full and `bytes` did not fit.
    pub fn push(&mut self, bytes: &'a [u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.used < FEW_IOVECS {
            self.few[self.used] = IoSlice::new(bytes);
            self.used += 1;
            return true;
        }
        if self.many.is_empty() {
            // Without memory the list is shorter.
            if self.many.try_reserve_exact(MAX_IOVECS).is_err() {
                return false;
            }
            self.many.extend_from_slice(&self.few);
        }
        if self.many.len() == MAX_IOVECS {
            return false;
        }
        self.many.push(IoSlice::new(bytes));
        true
    }

    pub fn as_slices(&self) -> &[IoSlice<'a>] {
        if self.many.is_empty() { &self.few[..self.used] } else { &self.many }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(buf: &SendBuf, skip: usize) -> Vec<u8> {
        let mut iov = IoVecs::new();
        assert!(buf.gather(skip, &mut iov));
        iov.as_slices().iter().flat_map(|bytes| bytes.iter().copied()).collect()
    }

    #[test]
    fn a_slice_of_a_vectored_buffer_gathers_its_bytes_across_pieces() {
        let (a, b, c) = (b"abc", b"", b"defgh");
        let pieces = [&a[..], &b[..], &c[..]];
        // SAFETY: the arrays outlive the buffer.
        let buf =
            unsafe { SendBuf::from_raw_vectored(pieces.iter().map(|p| (p.as_ptr(), p.len()))) };
        let buf = buf.unwrap();
        assert_eq!(collect(&buf, 0), b"abcdefgh");
        assert_eq!(collect(&buf.slice(2..7), 0), b"cdefg");
        assert_eq!(collect(&buf.slice(2..7), 3), b"fg");
        assert_eq!(collect(&buf.slice(1..5).to_owned().unwrap().slice(1..3), 0), b"cd");
    }

    #[test]
    fn a_list_takes_as_many_pieces_as_kernels_do_and_goes_on_where_it_ended() {
        let bytes: Vec<u8> = (0..3 * MAX_IOVECS).map(|n| n as u8).collect();
        // SAFETY: the vector outlives the buffer.
        let buf = unsafe { SendBuf::from_raw_vectored(bytes.iter().map(|b| (&raw const *b, 1))) };
        let buf = buf.unwrap();
        let (mut sent, mut calls) = (0, 0);
        while sent < buf.len() {
            let mut iov = IoVecs::new();
            let all = buf.gather(sent, &mut iov);
            let now: Vec<u8> = iov.as_slices().iter().flat_map(|b| b.iter().copied()).collect();
            assert_eq!(now, &bytes[sent..][..now.len()]);
            sent += now.len();
            calls += 1;
            assert_eq!(all, sent == buf.len());
        }
        assert_eq!(calls, 3);
        let mut into = vec![0u8; 3 * MAX_IOVECS];
        let pieces = into.iter_mut().map(|b| (&raw mut *b, 1));
        // SAFETY: the vector outlives the buffer and is not used meanwhile.
        let mut buf = unsafe { RecvBuf::from_raw_vectored(pieces) }.unwrap();
        let all = 0..buf.len();
        assert_eq!(buf.scatter(all, &mut [0], |iov| iov.len()), MAX_IOVECS - 1);
        assert_eq!(buf.scatter(100..300, &mut [0], |iov| iov.len()), 201);
        buf.write_at(MAX_IOVECS, &bytes[..MAX_IOVECS]);
        drop(buf);
        assert_eq!(into[MAX_IOVECS..2 * MAX_IOVECS], bytes[..MAX_IOVECS]);
        assert!(into[2 * MAX_IOVECS..].iter().all(|b| *b == 0));
    }

    #[test]
    fn zeros_are_as_many_as_asked_for() {
        for len in [0, 1, 65536, 65537, 200_000] {
            assert_eq!(collect(&SendBuf::zeros(len), 0), vec![0; len]);
        }
    }

    #[test]
    fn writes_into_a_vectored_buffer_land_where_its_slices_say() {
        let (mut a, mut b) = ([1u8; 3], [1u8; 4]);
        let pieces = [(a.as_mut_ptr(), 3), (b.as_mut_ptr(), 4)];
        // SAFETY: the arrays outlive the buffer and are not used meanwhile.
        let mut buf =
            unsafe { RecvBuf::from_raw_vectored(pieces.into_iter()) }.unwrap().slice(1..7);
        buf.write_at(1, b"xyz");
        buf.slice(0..5).zero_from(4);
        let mut tail = [0u8; 2];
        let lens =
            buf.scatter(1..6, &mut tail, |iov| iov.iter().map(|s| s.len()).collect::<Vec<_>>());
        assert_eq!(lens, [1, 4, 2]);
        drop(buf);
        assert_eq!((&a, &b), (&[1, 1, b'x'], &[b'y', b'z', 0, 1]));
    }
}
