//! A queue in guest memory: what comes out of it, and what goes back. Knows neither what requests
//! mean nor who carries them out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::inflight::Notes;
use crate::request::{self, Limits, Malformed, Request};
use crate::server::Kick;

/// Descriptors of a ring at most (virtio 1.2, 2.7).
const MAX_SIZE: u16 = 32768;

pub struct Ring {
    queue: Queue,
    /// What wakes us where there is something new.
    kick: Option<Kick>,
    /// What it is woken by; None where it looks by itself.
    call: Option<File>,
    enabled: bool,
    /// It is in use: from its kick descriptor until it is stopped.
    started: bool,
    notes: Option<Notes>,
    /// Taken before, and still to be done: what another server has left, or what there was no memory
    /// for.
    again: VecDeque<u16>,
    /// Requests that are being carried out.
    pub in_flight: usize,
    debt: Debt,
}

/// Whether the guest has been told of all that it was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Debt {
    #[default]
    Paid,
    /// Not of all. It may not want to know.
    Owed,
    /// It may not have been told by another server, or by another descriptor.
    Unknown,
}

/// What came out of a ring.
pub struct Taken {
    pub head: u16,
    pub request: Result<Request, Malformed>,
}

impl Ring {
    pub fn new() -> Ring {
        Ring {
            queue: Queue::new(MAX_SIZE).expect("a power of two"),
            kick: None,
            call: None,
            enabled: false,
            started: false,
            notes: None,
            again: VecDeque::new(),
            in_flight: 0,
            debt: Debt::Paid,
        }
    }

    pub fn set_size(&mut self, size: u32) -> Result<(), Error> {
        self.queue.try_set_size(u16::try_from(size).map_err(|_| Error::InvalidSize)?)
    }

    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    pub fn set_addresses(
        &mut self,
        table: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
    ) -> Result<(), Error> {
        self.queue.try_set_desc_table_address(table)?;
        self.queue.try_set_avail_ring_address(available)?;
        self.queue.try_set_used_ring_address(used)
    }

    pub fn set_base(&mut self, base: u16) {
        self.queue.set_next_avail(base);
    }

    pub fn base(&self) -> u16 {
        self.queue.next_avail()
    }

    pub fn set_event_idx(&mut self, enabled: bool) {
        self.queue.set_event_idx(enabled);
    }

    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub fn set_kick(&mut self, kick: Kick) {
        self.kick = Some(kick);
    }

    pub fn set_call(&mut self, call: Option<File>) {
        self.call = call;
        self.debt = Debt::Unknown;
    }

    pub fn is_started(&self) -> bool {
        self.started
    }

    /// Begins, where its memory is: with what another server has left undone, if that is noted.
    pub fn start(&mut self, memory: &GuestMemoryMmap, notes: Option<Notes>) -> Result<(), Error> {
        let used = self.queue.used_idx(memory, Ordering::Acquire)?.0;
        self.queue.set_ready(true);
        if !self.queue.is_valid(memory) {
            self.queue.set_ready(false);
            return Err(Error::QueueNotReady);
        }
        self.queue.set_next_used(used);
        self.again.clear();
        self.notes = notes;
        if let Some(notes) = &mut self.notes {
            self.again.extend(notes.unfinished(used));
            // All that was taken is told, or noted (vhost-user, "Inflight I/O tracking").
            self.queue.set_next_avail(used.wrapping_add(self.again.len() as u16));
        }
        self.started = true;
        self.debt = Debt::Unknown;
        Ok(())
    }

    /// Takes nothing more. What it has in flight goes on.
    pub fn stop(&mut self) {
        self.started = false;
    }

    /// After it was stopped, once nothing is in flight.
    pub fn forget(&mut self) {
        self.kick = None;
        self.call = None;
        self.notes = None;
        self.again.clear();
        self.queue.set_ready(false);
    }

    /// Whether nothing of it is to be done any more, once it is stopped.
    pub fn is_drained(&self) -> bool {
        // What is left of one that is not enabled stays noted.
        self.in_flight == 0 && (self.again.is_empty() || !self.enabled)
    }

    /// The next request.
    pub fn take(&mut self, memory: &Arc<GuestMemoryMmap>, limits: Limits) -> Option<Taken> {
        let head = self.next_head(memory)?;
        let table = GuestAddress(self.queue.desc_table());
        let request = request::take(memory, table, self.queue.size(), head, limits);
        Some(Taken { head, request })
    }

    fn next_head(&mut self, memory: &GuestMemoryMmap) -> Option<u16> {
        if !self.queue.ready() || !self.enabled {
            return None;
        }
        if let Some(head) = self.again.pop_front() {
            return Some(head);
        }
        if !self.started {
            return None;
        }
        let head = match self.queue.iter(memory) {
            Ok(mut available) => available.next()?.head_index(),
            Err(error) => {
                self.fail(&error);
                return None;
            }
        };
        if let Some(notes) = &mut self.notes {
            notes.take(head);
        }
        Some(head)
    }

    /// A guest that breaks its ring is left alone from then on.
    fn fail(&mut self, error: &Error) {
        log::error!("a queue is broken, and not looked at again: {error}");
        self.started = false;
    }

    /// What was taken cannot be done now.
    pub fn put_back(&mut self, head: u16) {
        self.again.push_back(head);
    }

    /// Gives the guest a request back, with `len` bytes of it written.
    pub fn finish(&mut self, memory: &GuestMemoryMmap, head: u16, len: u32) {
        if let Some(notes) = &mut self.notes {
            notes.finish(head);
        }
        if let Err(error) = self.queue.add_used(memory, head, len) {
            self.fail(&error);
        }
        if let Some(notes) = &mut self.notes {
            notes.told(head, self.queue.next_used());
        }
        self.debt = self.debt.max(Debt::Owed);
    }

    /// Tells the guest of what it was given since it was told last, if it wants to know.
    pub fn signal(&mut self, memory: &GuestMemoryMmap) {
        if self.debt == Debt::Paid || !self.queue.ready() {
            return;
        }
        let debt = std::mem::take(&mut self.debt);
        match self.wants_signal(memory) {
            Ok(wants) if wants || debt == Debt::Unknown => {}
            Ok(_) => return,
            Err(error) => return self.fail(&error),
        }
        // It has no room only where the guest has been told so often that it need not be again.
        if let Some(Err(error)) = self.call.as_mut().map(|call| call.write(&1u64.to_ne_bytes()))
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            log::error!("a queue's call descriptor: {error}");
        }
    }

    fn wants_signal(&mut self, memory: &GuestMemoryMmap) -> Result<bool, Error> {
        let wants = self.queue.needs_notification(memory)?;
        if self.queue.event_idx_enabled() {
            return Ok(wants);
        }
        // Of which the crate knows nothing.
        let at = GuestAddress(self.queue.avail_ring());
        let flags: u16 = memory.load(at, Ordering::Relaxed).map_err(Error::GuestMemory)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Has the guest kick when there is something new; true where there is already.
    pub fn sleep(&mut self, memory: &GuestMemoryMmap) -> bool {
        if !self.queue.ready() || !self.enabled {
            return false;
        }
        if !self.again.is_empty() || !self.started {
            return !self.again.is_empty();
        }
        self.queue.enable_notification(memory).unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    /// The guest need not kick: the ring is looked at anyway.
    pub fn wake(&mut self, memory: &GuestMemoryMmap) {
        if self.started
            && let Err(error) = self.queue.disable_notification(memory)
        {
            self.fail(&error);
        }
    }
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::new()
    }
}
