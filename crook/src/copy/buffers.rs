//! Buffers that are used again: fresh ones cost a page fault for each page.

use async_channel::{Receiver, Sender, unbounded};

#[derive(Clone)]
pub struct Buffers {
    give: Sender<Vec<u8>>,
    take: Receiver<Vec<u8>>,
}

impl Buffers {
    pub fn new() -> Buffers {
        let (give, take) = unbounded();
        Buffers { give, take }
    }

    /// One of `len` bytes, of which nothing is known.
    pub fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.take.try_recv().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    pub fn give(&self, buffer: Vec<u8>) {
        // Held by itself, the channel stays.
        let _ = self.give.try_send(buffer);
    }
}
