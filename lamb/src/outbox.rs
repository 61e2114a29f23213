//! What a connection has to send, who may send it, and what of the budget it holds.
//!
//! Nobody ever waits for a peer here. Whoever has an answer sends it if nobody else is sending;
//! what the socket does not take stays, and goes on once the socket has room again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::budget::Charge;
use crate::buf::{Buf, SMALL, Spares};
use crate::lock;

/// An answer, or several in a row.
pub struct Frame {
    buf: Buf,
    sent: usize,
    /// Given back when the answer is sent, or never will be.
    charge: Option<Charge>,
}

impl Frame {
    /// Bytes that no charge accounts for.
    fn unaccounted(&self) -> usize {
        if self.charge.is_none() { self.buf.len() } else { 0 }
    }

    pub fn new(buf: Buf, charge: Option<Charge>) -> Frame {
        Frame { buf, sent: 0, charge }
    }
}

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It is sent, or whoever is sending goes on with it.
    Taken,
    /// The socket is full, which the caller is the first to learn: somebody has to call
    /// [`Outbox::resume`] when it has room again.
    Stuck,
    /// The connection is lost.
    Lost,
}

#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Whether something waits in the queue: what is mostly not so is asked without its lock.
    waits: AtomicBool,
    lost: AtomicBool,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes of them that no charge accounts for.
    bytes: usize,
    turn: Turn,
}

impl Queue {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.unaccounted();
        self.frames.push_back(frame);
    }
}

/// Who may send.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Turn {
    #[default]
    Free,
    /// Somebody, who goes on until there is nothing left.
    Taken,
    /// Nobody until the socket has room.
    Stuck,
    /// Nobody ever.
    Lost,
}

impl Outbox {
    /// Sends an answer after those that are there.
    pub fn send(&self, socket: &OwnedFd, frame: Frame, spares: &Spares) -> Sent {
        {
            let mut queue = lock(&self.queue);
            match queue.turn {
                Turn::Free => queue.turn = Turn::Taken,
                Turn::Lost => return Sent::Lost,
                Turn::Taken | Turn::Stuck => {
                    queue.push(frame);
                    self.waits.store(true, Ordering::Release);
                    return Sent::Taken;
                }
            }
        }
        self.go_on(socket, frame, spares)
    }

    /// Sends what is in `out`, which is empty afterwards, and mostly keeps its memory.
    pub fn flush(&self, socket: &OwnedFd, out: &mut Buf, spares: &Spares) -> Sent {
        {
            let mut queue = lock(&self.queue);
            match queue.turn {
                Turn::Free => queue.turn = Turn::Taken,
                Turn::Lost => return Sent::Lost,
                Turn::Taken | Turn::Stuck => {
                    queue.push(Frame::new(std::mem::take(out), None));
                    self.waits.store(true, Ordering::Release);
                    return Sent::Taken;
                }
            }
        }
        let mut frame = Frame::new(std::mem::take(out), None);
        let result = send_now(socket, &mut frame);
        if result.is_err() {
            return self.give_up(result, frame);
        }
        *out = frame.buf;
        out.clear();
        match self.next() {
            Some(frame) => self.go_on(socket, frame, spares),
            None => Sent::Taken,
        }
    }

    /// Goes on when the socket has room again.
    pub fn resume(&self, socket: &OwnedFd, spares: &Spares) -> Sent {
        {
            let mut queue = lock(&self.queue);
            match queue.turn {
                Turn::Stuck => queue.turn = Turn::Taken,
                Turn::Lost => return Sent::Lost,
                Turn::Free | Turn::Taken => return Sent::Taken,
            }
        }
        match self.next() {
            Some(frame) => self.go_on(socket, frame, spares),
            None => Sent::Taken,
        }
    }

    /// Whether there is nothing left to send.
    pub fn is_idle(&self) -> bool {
        lock(&self.queue).turn == Turn::Free
    }

    /// Whether there is so much to send that nothing should be added that is not accounted for.
    pub fn is_full(&self, max: usize) -> bool {
        if !self.waits.load(Ordering::Acquire) {
            return false;
        }
        let queue = lock(&self.queue);
        queue.turn == Turn::Stuck || queue.bytes > max
    }

    /// Whether the peer does not read.
    pub fn is_stuck(&self) -> bool {
        lock(&self.queue).turn == Turn::Stuck
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Drops what is left to send, for good.
    pub fn lose(&self) {
        let frames = {
            let mut queue = lock(&self.queue);
            queue.turn = Turn::Lost;
            queue.bytes = 0;
            self.lost.store(true, Ordering::Release);
            std::mem::take(&mut queue.frames)
        };
        drop(frames);
    }

    /// Sends all there is; the caller has the turn.
    fn go_on(&self, socket: &OwnedFd, mut frame: Frame, spares: &Spares) -> Sent {
        loop {
            let result = send_now(socket, &mut frame);
            if result.is_err() {
                return self.give_up(result, frame);
            }
            if frame.buf.len() > SMALL {
                spares.give(frame.buf);
            }
            match self.next() {
                Some(next) => frame = next,
                None => return Sent::Taken,
            }
        }
    }

    /// Takes the next answer to send; None ends the caller's turn.
    fn next(&self) -> Option<Frame> {
        let mut queue = lock(&self.queue);
        let next = queue.frames.pop_front();
        queue.bytes -= next.as_ref().map_or(0, Frame::unaccounted);
        if next.is_none() && queue.turn == Turn::Taken {
            queue.turn = Turn::Free;
            self.waits.store(false, Ordering::Release);
        }
        next
    }

    fn give_up(&self, result: io::Result<()>, frame: Frame) -> Sent {
        match result {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                let mut queue = lock(&self.queue);
                if queue.turn == Turn::Lost {
                    return Sent::Lost;
                }
                queue.bytes += frame.unaccounted();
                queue.frames.push_front(frame);
                queue.turn = Turn::Stuck;
                self.waits.store(true, Ordering::Release);
                Sent::Stuck
            }
            result => {
                log::debug!("connection lost: {result:?}");
                self.lose();
                Sent::Lost
            }
        }
    }
}

fn send_now(socket: &OwnedFd, frame: &mut Frame) -> io::Result<()> {
    while let Some(rest) = frame.buf.get(frame.sent..).filter(|rest| !rest.is_empty()) {
        match send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => frame.sent += n,
            Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn frame(byte: u8) -> Frame {
        Frame::new(Buf::from(&[byte; 100_000][..]), None)
    }

    #[test]
    fn what_a_full_socket_does_not_take_goes_later_and_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (socket, outbox, spares) = (OwnedFd::from(ours), Outbox::default(), Spares::default());
        let mut count = 0;
        while outbox.send(&socket, frame(count), &spares) != Sent::Stuck {
            count += 1;
        }
        assert!(outbox.is_stuck() && !outbox.is_idle());
        assert_eq!(outbox.send(&socket, frame(count + 1), &spares), Sent::Taken);
        let mut seen = vec![0; 100_000];
        for expected in 0..count + 2 {
            let _ = outbox.resume(&socket, &spares);
            theirs.read_exact(&mut seen).unwrap();
            assert!(seen.iter().all(|byte| *byte == expected));
        }
        assert_eq!(outbox.resume(&socket, &spares), Sent::Taken);
        assert!(outbox.is_idle());
        drop(theirs);
        assert_eq!(outbox.send(&socket, frame(0), &spares), Sent::Lost);
        assert!(outbox.is_lost());
    }
}
