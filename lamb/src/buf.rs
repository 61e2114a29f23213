//! Byte buffers that are zeroed once, not at every use, and a few large ones kept for reuse.

use std::ops::Deref;
use std::sync::Mutex;

use crate::lock;

/// Bytes up to which a connection keeps a buffer to itself; larger ones come from [`Spares`].
pub const SMALL: usize = 64 << 10;

/// Bytes of the largest buffer that [`Spares`] keeps: a whole object of the usual size and its
/// header.
const LARGEST: usize = (4 << 20) + 4096;
const KEPT: usize = 8;

/// Grows like a `Vec<u8>`; what was cleared is handed out again without being zeroed.
#[derive(Default)]
pub struct Buf {
    bytes: Vec<u8>,
    len: usize,
}

impl Buf {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub fn push(&mut self, data: &[u8]) {
        self.grow(data.len()).copy_from_slice(data);
    }

    /// Appends `n` bytes of unspecified content, for the caller to overwrite.
    pub fn grow(&mut self, n: usize) -> &mut [u8] {
        let start = self.len;
        self.len += n;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        &mut self.bytes[start..self.len]
    }

    /// The bytes from `start` on.
    pub fn tail_mut(&mut self, start: usize) -> &mut [u8] {
        let start = start.min(self.len);
        &mut self.bytes[start..self.len]
    }
}

impl From<&[u8]> for Buf {
    fn from(data: &[u8]) -> Buf {
        Buf { bytes: data.to_vec(), len: data.len() }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Large buffers between two uses: few enough to bound the memory of any number of connections.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Buf>>);

impl Spares {
    /// A buffer for about so many bytes: never one that is much larger, since others account for
    /// what they hold by what they put in.
    pub fn take(&self, len: usize) -> Buf {
        let mut spares = lock(&self.0);
        let fits = |buf: &Buf| (len..=2 * len).contains(&buf.bytes.len());
        let mut buf = match spares.iter().rposition(fits) {
            Some(at) => spares.swap_remove(at),
            None => Buf::default(),
        };
        buf.clear();
        buf
    }

    pub fn give(&self, buf: Buf) {
        let mut spares = lock(&self.0);
        if buf.bytes.len() <= LARGEST && spares.len() < KEPT {
            spares.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_what_was_put_in() {
        let mut buf = Buf::default();
        buf.push(b"hello ");
        buf.grow(5).copy_from_slice(b"world");
        assert_eq!(&*buf, b"hello world");
        buf.truncate(5);
        buf.tail_mut(4).fill(b'!');
        assert_eq!(&*buf, b"hell!");
        buf.clear();
        assert!(buf.is_empty() && buf.tail_mut(3).is_empty());
        buf.push(b"new");
        assert_eq!(&*buf, b"new");
    }

    #[test]
    fn few_spares_are_kept_and_no_giants() {
        let spares = Spares::default();
        let sized = |n| {
            let mut buf = Buf::default();
            buf.grow(n);
            buf
        };
        (0..100).for_each(|_| spares.give(sized(10)));
        spares.give(sized(LARGEST + 1));
        assert_eq!(lock(&spares.0).len(), KEPT);
        assert!(spares.take(10).is_empty() && spares.take(100).is_empty());
        assert_eq!(lock(&spares.0).len(), KEPT - 1, "only one of them had the right size");
    }
}
