//! Files and pipes, each in a thread of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::thread::{self, JoinHandle};

use async_channel::{Receiver, Sender, bounded};
use rustix::fs::SeekFrom as Sought;
use rustix::io::Errno;

use super::buffers::Buffers;
use super::{Piece, Plan, is_zero};
use crate::failure::{Failure, Result};

/// What a file is made of at most where holes are found in it.
const BLOCK: usize = 64 << 10;

/// Bytes of what can be read at any place; None of a pipe.
pub fn size(file: &File) -> io::Result<Option<u64>> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Ok(None);
    }
    let mut file = file;
    file.seek(SeekFrom::End(0)).map(Some)
}

/// Starts to read: the pieces of a file, in order, its holes as zeros.
pub fn read(
    name: String,
    file: File,
    size: Option<u64>,
    plan: &Plan,
    buffers: Buffers,
) -> Receiver<Result<Piece>> {
    let (sender, receiver) = bounded(plan.requests);
    let request_size = plan.request_size;
    thread::spawn(move || {
        let out = Out { sender, buffers, request_size };
        let result = match size {
            Some(size) => out.read_file(&file, size),
            None => out.read_pipe(file),
        };
        if let Err(error) = result {
            let _ = out.sender.send_blocking(Err(Failure::io(name, error)));
        }
    });
    receiver
}

struct Out {
    sender: Sender<Result<Piece>>,
    buffers: Buffers,
    request_size: u64,
}

impl Out {
    /// False where nobody wants any more.
    fn send(&self, piece: Piece) -> bool {
        self.sender.send_blocking(Ok(piece)).is_ok()
    }

    fn read_file(&self, file: &File, size: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < size {
            let data = next_data(file, offset)?.unwrap_or(size).min(size);
            if data > offset && !self.send(Piece::Zeros { offset, len: data - offset }) {
                return Ok(());
            }
            let end = next_hole(file, data, size)?.min(size);
            offset = data;
            while offset < end {
                let len = (end - offset).min(self.request_size - offset % self.request_size);
                let mut bytes = self.buffers.take(len as usize);
                file.read_exact_at(&mut bytes, offset)?;
                if !self.send(Piece::Data { offset, bytes }) {
                    return Ok(());
                }
                offset += len;
            }
        }
        Ok(())
    }

    fn read_pipe(&self, mut pipe: File) -> io::Result<()> {
        let mut offset = 0;
        loop {
            let mut bytes = self.buffers.take(self.request_size as usize);
            let mut filled = 0;
            while filled < bytes.len() {
                match pipe.read(&mut bytes[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let ended = filled < bytes.len();
            bytes.truncate(filled);
            if filled > 0 && !self.send(Piece::Data { offset, bytes }) || ended {
                return Ok(());
            }
            offset += filled as u64;
        }
    }
}

/// Where data begins at or behind `offset`; None where there is none.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, Sought::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        // It does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

fn next_hole(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, Sought::Hole(offset)) {
        Ok(hole) => Ok(hole),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(size),
        Err(error) => Err(error.into()),
    }
}

/// A file or pipe that is written to.
pub struct Writer {
    pieces: Sender<Piece>,
    thread: JoinHandle<io::Result<()>>,
}

/// What it is.
#[derive(Clone, Copy, PartialEq)]
pub enum Sink {
    /// Holes are what is not written to.
    Sparse,
    Dense,
    Pipe,
}

impl Writer {
    pub fn start(file: File, sink: Sink, buffers: Buffers) -> Writer {
        // Where the reads are as many as they may be, the writer need not have more.
        let (pieces, receiver) = bounded(2);
        let thread = thread::spawn(move || write(file, sink, &receiver, &buffers));
        Writer { pieces, thread }
    }

    /// Where it has failed, its end says why.
    pub async fn put(&self, piece: Piece) -> Result<()> {
        let gone = |_| Failure::new(crate::failure::Kind::Failed, "nobody writes any more");
        self.pieces.send(piece).await.map_err(gone)
    }

    pub fn end(self) -> io::Result<()> {
        drop(self.pieces);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer has panicked")))
    }
}

fn write(file: File, sink: Sink, pieces: &Receiver<Piece>, buffers: &Buffers) -> io::Result<()> {
    let zeros = vec![0; BLOCK];
    let mut file = file;
    while let Ok(piece) = pieces.recv_blocking() {
        match piece {
            Piece::Data { offset, bytes } => {
                match sink {
                    Sink::Pipe => file.write_all(&bytes)?,
                    Sink::Dense => file.write_all_at(&bytes, offset)?,
                    Sink::Sparse => write_sparse(&file, &bytes, offset)?,
                }
                buffers.give(bytes);
            }
            Piece::Zeros { .. } if sink == Sink::Sparse => {}
            Piece::Zeros { mut offset, len } => {
                let mut left = len;
                while left > 0 {
                    let part = &zeros[..left.min(BLOCK as u64) as usize];
                    match sink {
                        Sink::Pipe => file.write_all(part)?,
                        Sink::Dense | Sink::Sparse => file.write_all_at(part, offset)?,
                    }
                    left -= part.len() as u64;
                    offset += part.len() as u64;
                }
            }
            Piece::Ask { .. } => {}
        }
    }
    Ok(())
}

/// Leaves blocks of zeros out.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let blocks = bytes.chunks(BLOCK).map(is_zero).collect::<Vec<_>>();
    for run in blocks.chunk_by(|one, other| one == other).scan(0, |at, run| {
        let start = *at;
        *at += run.len();
        Some((start, run))
    }) {
        let (start, kinds) = run;
        if !kinds[0] {
            let end = ((start + kinds.len()) * BLOCK).min(bytes.len());
            file.write_all_at(&bytes[start * BLOCK..end], offset + (start * BLOCK) as u64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_within_data_become_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let mut bytes = vec![0; (1 << 20) + 5];
        bytes[BLOCK * 3 + 7] = 1;
        bytes[BLOCK * 4] = 2;
        bytes[1 << 20] = 3;
        write_sparse(&file, &bytes, 4096).unwrap();
        let mut read = vec![1; bytes.len()];
        file.read_exact_at(&mut read, 4096).unwrap();
        assert!(read == bytes);
        let data = next_data(&file, 0).unwrap().unwrap();
        assert!(data == 0 || data == (BLOCK * 3) as u64 + 4096, "{data}");
    }
}
