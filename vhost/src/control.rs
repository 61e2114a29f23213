//! What a frontend says: whose memory, which rings, from where on. Each message is answered before
//! the next one is read; one that ends a ring waits for what that has in flight.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use vhost::vhost_user::message::{
    BackendReq, FrontendReq, VhostTransferStateDirection, VhostTransferStatePhase,
    VhostUserConfigFlags, VhostUserInflight, VhostUserLog, VhostUserMemoryRegion,
    VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{ByteValued, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::device::Disk;
use crate::inflight::{self, Area};
use crate::ring::Ring;
use crate::server::Work;

/// What one message can name, with a file descriptor each.
const MAX_MEMORY_REGIONS: u64 = 509;
const HEADER_LEN: usize = 12;

/// A frontend that is connected, or none: what it has said.
pub struct Session {
    pub work: Work,
    pub memory: Arc<GuestMemoryMmap>,
    pub rings: Vec<Ring>,
    /// As the frontend has it at its own addresses, with which it names the rings.
    regions: Vec<Region>,
    features: u64,
    area: Option<Area>,
    /// Where the frontend listens to us.
    channel: Option<UnixStream>,
}

#[derive(Clone, Copy)]
struct Region {
    guest: u64,
    user: u64,
    len: u64,
}

/// The socket of a frontend.
pub struct Connection {
    handler: BackendReqHandler<Mutex<Session>>,
    stream: UnixStream,
    session: Arc<Mutex<Session>>,
}

impl Connection {
    pub fn new(stream: UnixStream, session: &Arc<Mutex<Session>>) -> std::io::Result<Connection> {
        let handler = BackendReqHandler::from_stream(stream.try_clone()?, session.clone());
        Ok(Connection { handler, stream, session: session.clone() })
    }

    /// Reads one message and does what it says. An error ends the connection.
    pub fn handle(&mut self) -> Result<()> {
        let channel = self.offered_channel();
        match self.handler.handle_request() {
            // The frontend has been told, where it wanted to know.
            Err(Error::InvalidOperation(why)) => log::error!("the frontend: {why}"),
            result => result?,
        }
        if let Some(channel) = channel {
            crate::server::lock(&self.session).channel = Some(channel);
        }
        Ok(())
    }

    /// The socket that the next message brings for ours to the frontend: the crate can send some of
    /// those, but not that the configuration has changed, and so we look first.
    fn offered_channel(&self) -> Option<UnixStream> {
        let mut header = [0; HEADER_LEN];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut into = [std::io::IoSliceMut::new(&mut header)];
        recvmsg(&self.stream, &mut into, &mut ancillary, flags).ok()?;
        let files = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let file: Option<OwnedFd> = files.flatten().next();
        let code = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        file.filter(|_| code == FrontendReq::SET_BACKEND_REQ_FD as u32).map(UnixStream::from)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Session {
    pub fn new(work: Work) -> Session {
        let rings = (0..work.disk.queues()).map(|_| Ring::new()).collect();
        Session {
            work,
            memory: Arc::new(GuestMemoryMmap::new()),
            rings,
            regions: Vec::new(),
            features: 0,
            area: None,
            channel: None,
        }
    }

    fn disk(&self) -> &Disk {
        &self.work.disk
    }

    /// Whether a write is to be stable when it ends: the guest has not taken on to flush.
    pub fn writes_through(&self) -> bool {
        self.features & 1 << VIRTIO_BLK_F_FLUSH == 0
    }

    /// The frontend is gone, and with it its rings and its memory. What is in flight goes on, and is
    /// told nobody.
    pub fn leave(&mut self) {
        self.rings.iter_mut().for_each(|ring| *ring = Ring::new());
        self.memory = Arc::new(GuestMemoryMmap::new());
        self.regions.clear();
        self.features = 0;
        self.area = None;
        self.channel = None;
        self.work.full = false;
    }

    /// Tells the guest that the disk is of another size now.
    pub fn tell_of_change(&self) {
        let Some(channel) = &self.channel else { return };
        // Without a body, and without an answer.
        let mut message = [0; HEADER_LEN];
        message[..4].copy_from_slice(&(BackendReq::CONFIG_CHANGE_MSG as u32).to_ne_bytes());
        message[4..8].copy_from_slice(&1u32.to_ne_bytes());
        if let Err(error) = send(channel, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            log::error!("the frontend is not told of the new size: {error}");
        }
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        self.rings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    /// Where the guest has what the frontend has at `user`.
    fn guest_address(&self, user: u64) -> Result<GuestAddress> {
        let at = |region: &Region| {
            let offset = user.checked_sub(region.user).filter(|offset| *offset < region.len)?;
            region.guest.checked_add(offset).map(GuestAddress)
        };
        let address = self.regions.iter().find_map(at);
        address.ok_or(Error::InvalidOperation("a queue outside the memory"))
    }

    fn start_ring(&mut self, index: usize) -> Result<()> {
        let size = self.rings[index].size();
        let notes = match &self.area {
            None => None,
            Some(area) => Some(
                area.notes(index, size)
                    .ok_or(Error::InvalidOperation("the inflight area is too small"))?,
            ),
        };
        let ring = &mut self.rings[index];
        let started = ring.start(&self.memory, notes);
        started.map_err(|_| Error::InvalidOperation("a queue cannot be started"))
    }

    /// Stops a ring, and waits for what it has in flight.
    fn stop_ring(&mut self, index: usize) {
        self.rings[index].stop();
        self.drain(|session| session.rings[index].is_drained());
        self.rings[index].forget();
    }

    /// Stops all rings, and waits until nothing is under way, of a frontend that has gone either.
    pub fn stop_all(&mut self) {
        self.rings.iter_mut().for_each(Ring::stop);
        self.drain(|session| session.work.is_idle() && session.rings.iter().all(Ring::is_drained));
        self.rings.iter_mut().for_each(Ring::forget);
    }

    fn drain(&mut self, is_over: impl Fn(&Session) -> bool) {
        loop {
            self.submit();
            self.reap();
            if is_over(self) {
                break;
            }
            // What there was no memory for, until the last one ended just now.
            if self.work.is_idle() {
                continue;
            }
            if let Err(error) = self.work.disk.cluster.wait(None) {
                log::error!("{error}");
                break;
            }
        }
        self.signal();
    }

    fn set_memory(&mut self, memory: GuestMemoryMmap, regions: Vec<Region>) {
        self.memory = Arc::new(memory);
        self.regions = regions;
    }
}

const NO_MAPPING: Error = Error::InvalidOperation("a memory region that cannot be used");

fn map(region: &VhostUserMemoryRegion, file: File) -> Result<(GuestRegionMmap, Region)> {
    let mapped = region.mmap_region(file).map_err(|_| NO_MAPPING)?;
    let mapped =
        GuestRegionMmap::new(mapped, GuestAddress(region.guest_phys_addr)).ok_or(NO_MAPPING)?;
    let (guest, user, len) = (region.guest_phys_addr, region.user_addr, region.memory_size);
    Ok((mapped, Region { guest, user, len }))
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.disk().features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidOperation("features that were not offered"));
        }
        self.features = features;
        let has_protocol = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0;
        for ring in &mut self.rings {
            ring.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            // There is a message to enable them, or they need none.
            if !has_protocol {
                ring.set_enabled(true);
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let mapped = regions.iter().zip(files).map(|(region, file)| map(region, file));
        let mapped: Vec<_> = mapped.collect::<Result<_>>()?;
        let (mut mapped, regions): (Vec<_>, Vec<_>) = mapped.into_iter().unzip();
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region).0);
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(|_| NO_MAPPING)?;
        self.set_memory(memory, regions);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let set = self.ring(index)?.set_size(num);
        set.map_err(|_| Error::InvalidOperation("the size of a queue"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        if flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG) {
            return Err(Error::InvalidOperation("changes of memory are not logged"));
        }
        let [table, available, used] =
            [descriptor, available, used].map(|user| self.guest_address(user));
        let (table, available, used) = (table?, available?, used?);
        let set = self.ring(index)?.set_addresses(table, available, used);
        set.map_err(|_| Error::InvalidOperation("the alignment of a queue"))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base);
        let base = base.map_err(|_| Error::InvalidOperation("the base of a queue"))?;
        self.ring(index)?.set_base(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.ring(index)?;
        self.stop_ring(index as usize);
        let base = self.ring(index)?.base();
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let fd = fd.ok_or(Error::InvalidOperation("a queue that is polled"))?;
        let index = usize::from(index);
        let ring = self.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        let kick = self.work.watch(fd);
        ring.set_kick(kick.map_err(|_| Error::InvalidOperation("a kick descriptor"))?);
        if ring.is_started() { Ok(()) } else { self.start_ring(index) }
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _: Option<File>) -> Result<()> {
        self.ring(index.into()).map(|_| ())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        use VhostUserProtocolFeatures as Features;
        Ok(Features::MQ
            | Features::REPLY_ACK
            | Features::BACKEND_REQ
            | Features::CONFIG
            | Features::INFLIGHT_SHMFD
            | Features::RESET_DEVICE
            | Features::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_protocol_features()?.bits() != 0 {
            return Err(Error::InvalidOperation("features that were not offered"));
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.set_enabled(enable);
        Ok(())
    }

    /// As many bytes as were asked for: a frontend that knows of more fields than we do has zeros
    /// there.
    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let config = self.disk().config();
        let mut bytes: Vec<u8> = config.as_slice().iter().copied().skip(offset as usize).collect();
        bytes.resize(size as usize, 0);
        Ok(bytes)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("nothing of the configuration can be set"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_OFFERED)
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let created = inflight::create(asked.num_queues, asked.queue_size);
        let (what, file) = created.map_err(|_| Error::MemFdCreateError)?;
        Ok((what, file))
    }

    fn set_inflight_fd(&mut self, what: &VhostUserInflight, file: File) -> Result<()> {
        let area = Area::map(what, file);
        self.area = Some(area.ok_or(Error::InvalidOperation("the inflight area"))?);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_MEMORY_REGIONS)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        let (mapped, region) = map(region, file)?;
        let memory = self.memory.insert_region(Arc::new(mapped)).map_err(|_| NO_MAPPING)?;
        let regions = self.regions.iter().copied().chain([region]).collect();
        self.set_memory(memory, regions);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, len) = (region.guest_phys_addr, region.memory_size);
        let removed = self.memory.remove_region(GuestAddress(guest), len);
        let (memory, _) = removed.map_err(|_| NO_MAPPING)?;
        let left = self.regions.iter().copied().filter(|region| region.guest != guest).collect();
        self.set_memory(memory, left);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(NOT_OFFERED)
    }
}

const NOT_OFFERED: Error = Error::InvalidOperation("what was not offered");
