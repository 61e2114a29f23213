//! A frontend and its guest: memory in two regions, rings, and requests as a driver lays them out.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Nothing takes so long unless the test has failed.
pub const STUCK: Duration = Duration::from_secs(60);

pub const SIZE: u16 = 64;
/// Where one region ends and the next one begins, at other addresses of the frontend's.
pub const BORDER: u64 = 8 << 20;
/// From here on tests put their data.
pub const DATA: u64 = 1 << 20;

const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Headers and status bytes, as many as descriptors.
const HEADERS: u64 = 0x3000;
const STATUSES: u64 = 0x4000;
const INDIRECT: u64 = 0x5000;
const QUEUE: u64 = 0x10000;

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;
pub const FLUSH: u32 = 4;
pub const IDENTIFY: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
pub const UNSUPPORTED: u8 = 2;
/// What a status byte is before.
pub const NONE: u8 = 0xff;

pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub queues: Vec<Queue>,
    inflight: Option<(VhostUserInflight, File)>,
}

pub struct Queue {
    at: u64,
    free: Vec<u16>,
    available: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

/// A buffer: where, how long, and whether the device writes it.
pub type Buffer = (u64, u32, bool);

impl Guest {
    pub fn new(queues: usize) -> Guest {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, 2 * BORDER).unwrap();
        // The second one comes first in the file.
        let region = |guest: u64, offset: u64| {
            let file = FileOffset::new(file.try_clone().unwrap(), offset);
            let mapped = MmapRegion::from_file(file, BORDER as usize).unwrap();
            GuestRegionMmap::new(mapped, GuestAddress(guest)).unwrap()
        };
        let memory =
            GuestMemoryMmap::from_regions(vec![region(0, BORDER), region(BORDER, 0)]).unwrap();
        let queues = (0..queues as u64).map(|n| Queue {
            at: n * QUEUE,
            free: (0..SIZE).rev().collect(),
            available: 0,
            used: 0,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(0).unwrap(),
        });
        Guest { memory, queues: queues.collect(), inflight: None }
    }

    /// Connects, with the features in `wanted` that are offered, and has all queues started where
    /// they are.
    pub fn connect(&mut self, socket: &Path) -> Frontend {
        self.connect_without(socket, 0)
    }

    pub fn connect_without(&mut self, socket: &Path, unwanted: u64) -> Frontend {
        let mut frontend = Frontend::connect(socket, self.queues.len() as u64).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap() & !unwanted;
        frontend.set_features(features).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let mut wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::BACKEND_REQ;
        wanted &= protocol;
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let (asked, kept) = match self.inflight.take() {
            Some(kept) => kept,
            None => {
                let asked = VhostUserInflight::new(0, 0, self.queues.len() as u16, SIZE);
                frontend.get_inflight_fd(&asked).unwrap()
            }
        };
        frontend.set_inflight_fd(&asked, kept.as_raw_fd()).unwrap();
        self.inflight = Some((asked, kept));
        self.give_memory(&frontend);
        for index in 0..self.queues.len() {
            self.start(&mut frontend, index);
        }
        frontend
    }

    pub fn give_memory(&self, frontend: &Frontend) {
        let regions = self.memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
        let regions: Vec<_> = regions.map(Result::unwrap).collect();
        frontend.set_mem_table(&regions).unwrap();
    }

    /// Starts a queue, at what of it is used.
    pub fn start(&mut self, frontend: &mut Frontend, index: usize) {
        let queue = &self.queues[index];
        let user = |at| self.memory.get_host_address(GuestAddress(queue.at + at)).unwrap() as u64;
        frontend.set_vring_num(index, SIZE).unwrap();
        frontend.set_vring_base(index, self.used_index(index)).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: user(TABLE),
            used_ring_addr: user(USED),
            avail_ring_addr: user(AVAILABLE),
            log_addr: None,
        };
        frontend.set_vring_addr(index, &config).unwrap();
        frontend.set_vring_call(index, &queue.call).unwrap();
        frontend.set_vring_kick(index, &queue.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
    }

    fn word(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub fn used_index(&self, index: usize) -> u16 {
        self.word(self.queues[index].at + USED + 2)
    }

    /// Makes a chain available, and tells nobody.
    pub fn offer(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let queue = &mut self.queues[index];
        let heads: Vec<u16> = buffers.iter().map(|_| queue.free.pop().unwrap()).collect();
        for (n, (at, len, is_written)) in buffers.iter().enumerate() {
            let next = heads.get(n + 1);
            let flags = u16::from(next.is_some()) | u16::from(*is_written) << 1;
            let descriptor = Descriptor::new(*at, *len, flags, next.copied().unwrap_or(0));
            let at = queue.at + TABLE + u64::from(heads[n]) * 16;
            self.memory.write_obj(descriptor, GuestAddress(at)).unwrap();
        }
        self.publish(index, heads[0]);
        heads[0]
    }

    /// As `offer`, with a table of its own for the chain.
    pub fn offer_indirect(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let queue = &mut self.queues[index];
        let head = queue.free.pop().unwrap();
        let table = queue.at + INDIRECT + u64::from(head) * 16 * 16;
        for (n, (at, len, is_written)) in buffers.iter().enumerate() {
            let is_last = n + 1 == buffers.len();
            let flags = u16::from(!is_last) | u16::from(*is_written) << 1;
            let descriptor = Descriptor::new(*at, *len, flags, n as u16 + 1);
            self.memory.write_obj(descriptor, GuestAddress(table + n as u64 * 16)).unwrap();
        }
        let descriptor = Descriptor::new(table, buffers.len() as u32 * 16, 4, 0);
        let at = queue.at + TABLE + u64::from(head) * 16;
        self.memory.write_obj(descriptor, GuestAddress(at)).unwrap();
        self.publish(index, head);
        head
    }

    /// Puts any descriptor in a slot of the table.
    pub fn set_descriptor(&mut self, index: usize, slot: u16, descriptor: Descriptor) {
        let at = self.queues[index].at + TABLE + u64::from(slot) * 16;
        self.memory.write_obj(descriptor, GuestAddress(at)).unwrap();
    }

    pub fn publish(&mut self, index: usize, head: u16) {
        let queue = &mut self.queues[index];
        let slot = queue.at + AVAILABLE + 4 + u64::from(queue.available % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        queue.available = queue.available.wrapping_add(1);
        let at = GuestAddress(queue.at + AVAILABLE + 2);
        self.memory.store(queue.available, at, std::sync::atomic::Ordering::SeqCst).unwrap();
    }

    pub fn kick(&self, index: usize) {
        self.queues[index].kick.write(1).unwrap();
    }

    /// The header of a request, and where its status goes: those of slot `n`.
    pub fn header(&self, index: usize, n: u16, kind: u32, sector: u64) -> (Buffer, Buffer) {
        let queue = &self.queues[index];
        let (at, status) =
            (queue.at + HEADERS + u64::from(n) * 16, queue.at + STATUSES + u64::from(n));
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write_slice(&header, GuestAddress(at)).unwrap();
        self.memory.write_obj(NONE, GuestAddress(status)).unwrap();
        ((at, 16, false), (status, 1, true))
    }

    pub fn status(&self, index: usize, n: u16) -> u8 {
        let at = self.queues[index].at + STATUSES + u64::from(n);
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Begins a request with one buffer, with the header of slot `n`: its head.
    pub fn begin(&mut self, index: usize, n: u16, kind: u32, sector: u64, data: &[Buffer]) -> u16 {
        let (header, status) = self.header(index, n, kind, sector);
        let chain: Vec<_> = [header].iter().chain(data).chain([&status]).copied().collect();
        let head = self.offer(index, &chain);
        self.kick(index);
        head
    }

    /// What it ends in: the status, and the bytes that were written.
    pub fn ask(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let head = self.begin(0, 0, kind, sector, data);
        let (used, len) = self.wait(0);
        assert_eq!(used, head);
        (self.status(0, 0), len)
    }

    /// What ends next: its head, and the bytes that were written.
    pub fn wait(&mut self, index: usize) -> (u16, u32) {
        // As a driver that wants to be told of the very next one.
        let queue = &self.queues[index];
        let event = GuestAddress(queue.at + AVAILABLE + 4 + u64::from(SIZE) * 2);
        let order = std::sync::atomic::Ordering::SeqCst;
        self.memory.store(queue.used, event, order).unwrap();
        std::sync::atomic::fence(order);
        while self.used_index(index) == queue.used {
            self.await_call(index);
        }
        let slot = queue.at + USED + 4 + u64::from(queue.used % SIZE) * 8;
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let len = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        self.queues[index].used = queue.used.wrapping_add(1);
        self.release(index, head as u16);
        (head as u16, len)
    }

    pub fn await_call(&self, index: usize) {
        let call = &self.queues[index].call;
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, call.as_raw_fd(), event).unwrap();
        let ready = epoll.wait(STUCK.as_millis() as i32, &mut [event]).unwrap();
        assert_eq!(ready, 1, "the guest is told nothing");
        call.read().unwrap();
    }

    /// How many chains were made available.
    pub fn available(&self, index: usize) -> u16 {
        self.queues[index].available
    }

    /// Passes over what is used.
    pub fn forget_used(&mut self, index: usize) {
        self.queues[index].used = self.used_index(index);
        let event = GuestAddress(self.queues[index].at + AVAILABLE + 4 + u64::from(SIZE) * 2);
        self.memory
            .store(self.queues[index].used, event, std::sync::atomic::Ordering::SeqCst)
            .unwrap();
    }

    fn release(&mut self, index: usize, head: u16) {
        let queue = &mut self.queues[index];
        let mut slot = head;
        loop {
            queue.free.push(slot);
            let at = queue.at + TABLE + u64::from(slot) * 16;
            let descriptor: Descriptor = self.memory.read_obj(GuestAddress(at)).unwrap();
            if !descriptor.has_next() {
                break;
            }
            slot = descriptor.next();
        }
    }

    pub fn fill(&self, at: u64, len: usize, seed: u64) -> Vec<u8> {
        let bytes = pattern(len, seed);
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = crate::common::Random(seed);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// More memory for a guest, and how a frontend has it.
pub fn region(at: u64, len: usize) -> (GuestRegionMmap, VhostUserMemoryRegionInfo) {
    let file = File::from(memfd_create("more", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, len as u64).unwrap();
    let mapped = MmapRegion::from_file(FileOffset::new(file, 0), len).unwrap();
    let region = GuestRegionMmap::new(mapped, GuestAddress(at)).unwrap();
    let info = VhostUserMemoryRegionInfo::from_guest_region(&region).unwrap();
    (region, info)
}

/// The configuration space, as many bytes as are asked for.
pub fn config(frontend: &mut Frontend, len: usize) -> Vec<u8> {
    let buffer = vec![0xee; len];
    let flags = VhostUserConfigFlags::WRITABLE;
    frontend.get_config(0, len as u32, flags, &buffer).unwrap().1
}
