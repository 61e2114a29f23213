//! The disk, as a guest sees it and as the cluster has it: features, the configuration space, and
//! what each request means for the VDI. Knows no rings.

#![allow(unsafe_code)] // that the configuration space is bytes

use std::time::Duration;

use sheepdog::aio::{Cluster, Operation, Vdi};
use sheepdog::{ConnectOptions, ErrorKind, Info};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_ID_BYTES, virtio_blk_config,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::ByteValued;

use crate::request::{Action, Limits, MAX_RANGES, Range, SECTOR, Status};

/// Buffers of one request at most, as QEMU has it with queues of 128.
const MAX_SEGMENTS: u32 = 126;
/// Bytes that one range of a request discards at most, and zeroes: both go on for as long as the
/// cluster answers, but a guest waits for them.
const MAX_DISCARD: u64 = 1 << 30;
const MAX_ZERO: u64 = 64 << 20;
/// A guest that aligns to it has pages that do not cross.
const PHYSICAL_EXPONENT: u8 = 3;

/// What a disk is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub addr: String,
    pub vdi: String,
    pub queues: u16,
    pub read_only: bool,
    /// The name of the VDI where there is none.
    pub serial: Option<String>,
    pub timeout: Option<Duration>,
}

/// An open VDI.
pub struct Disk {
    pub cluster: Cluster,
    vdi: Vdi,
    read_only: bool,
    queues: u16,
    serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    object_size: u64,
}

/// The configuration space, little-endian.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Config(virtio_blk_config);

// SAFETY: integers alone, in a packed structure.
unsafe impl ByteValued for Config {}

/// What a disk's request ends in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With so many bytes for the guest, beside the status.
    Told(Status, u32),
    /// There was no memory for it just now, and nothing was done.
    NoMemory,
}

/// How many bytes of the name or number a guest sees fit.
fn serial(text: &str) -> [u8; VIRTIO_BLK_ID_BYTES as usize] {
    let mut serial = [0; VIRTIO_BLK_ID_BYTES as usize];
    let len = text.len().min(serial.len());
    serial[..len].copy_from_slice(&text.as_bytes()[..len]);
    serial
}

impl Disk {
    /// Connects, and opens the VDI: for as long as this lives, whatever frontends come and go.
    pub fn open(options: &Options) -> sheepdog::Result<Disk> {
        let connect = ConnectOptions::new().timeout(options.timeout);
        let cluster = Cluster::new_unconnected_with(&options.addr, &connect)?;
        let opened = cluster.block_on(async {
            cluster.connect().await?;
            let vdi = match options.read_only {
                true => cluster.open_read_only(&options.vdi).await?,
                false => cluster.open(&options.vdi).await?,
            };
            let info: Info = vdi.info().await?;
            Ok((vdi, info))
        });
        let (vdi, info) = opened?;
        Ok(Disk {
            cluster,
            vdi,
            read_only: options.read_only,
            queues: options.queues,
            serial: serial(options.serial.as_deref().unwrap_or(&options.vdi)),
            object_size: info.object_size,
        })
    }

    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// What a guest may use, as bits.
    pub fn features(&self) -> u64 {
        let always = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_MQ,
        ];
        let more: &[u32] = match self.read_only {
            true => &[VIRTIO_BLK_F_RO],
            false => &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES],
        };
        always.iter().chain(more).fold(0, |bits, bit| bits | 1 << bit)
    }

    pub fn limits(&self) -> Limits {
        Limits { size: self.vdi.size(), read_only: self.read_only }
    }

    pub fn config(&self) -> Config {
        let sectors = |bytes: u64| ((bytes / SECTOR) as u32).to_le();
        Config(virtio_blk_config {
            capacity: (self.vdi.size() / SECTOR).to_le(),
            seg_max: MAX_SEGMENTS.to_le(),
            blk_size: (SECTOR as u32).to_le(),
            physical_block_exp: PHYSICAL_EXPONENT,
            min_io_size: (1u16 << PHYSICAL_EXPONENT).to_le(),
            opt_io_size: sectors(self.object_size),
            num_queues: self.queues.to_le(),
            max_discard_sectors: sectors(MAX_DISCARD),
            max_discard_seg: (MAX_RANGES as u32).to_le(),
            discard_sector_alignment: sectors(self.object_size),
            max_write_zeroes_sectors: sectors(MAX_ZERO),
            max_write_zeroes_seg: (MAX_RANGES as u32).to_le(),
            write_zeroes_may_unmap: 1,
            ..Default::default()
        })
    }

    /// Carries a request out; `stable` where a write that has ended must outlast a power failure,
    /// as a guest expects that has not taken on to flush.
    pub fn carry_out(&self, action: Action, stable: bool) -> impl Future<Output = Outcome> + use<> {
        let vdi = self.vdi.clone();
        let (read_only, serial) = (self.read_only, self.serial);
        async move {
            match action {
                Action::Read { offset, into } => {
                    let len = into.len() as u32;
                    end(vdi.read_into(into, offset), len).await
                }
                Action::Write { offset, from } => {
                    let outcome = end(vdi.write_from(from, offset), 0).await;
                    if !stable || outcome != Outcome::Told(Status::Done, 0) {
                        return outcome;
                    }
                    end(vdi.flush(), 0).await
                }
                Action::Flush if read_only => Outcome::Told(Status::Done, 0),
                Action::Flush => end(vdi.flush(), 0).await,
                Action::Identify(place) => {
                    place.put(&serial);
                    Outcome::Told(Status::Done, place.len().min(serial.len()) as u32)
                }
                Action::Zero(ranges) => {
                    for Range { offset, len, free } in ranges {
                        let operation = match free {
                            true => vdi.discard(offset, len),
                            false => vdi.write_zeroes(offset, len),
                        };
                        let outcome = end(operation, 0).await;
                        // Those before it can be zeroed once more.
                        if outcome != Outcome::Told(Status::Done, 0) {
                            return outcome;
                        }
                    }
                    match stable {
                        true => end(vdi.flush(), 0).await,
                        false => Outcome::Told(Status::Done, 0),
                    }
                }
                Action::Refuse(status) => Outcome::Told(status, 0),
            }
        }
    }

    /// Asks the cluster how large the VDI is now; whether that is another size than before.
    pub fn measure(&self) -> impl Future<Output = sheepdog::Result<bool>> + use<> {
        let (vdi, before) = (self.vdi.clone(), self.vdi.size());
        async move {
            vdi.refresh().await?;
            Ok(vdi.size() != before)
        }
    }

    /// Makes everything stable and closes.
    pub fn close(self) -> sheepdog::Result<()> {
        let Disk { cluster, vdi, read_only, .. } = self;
        cluster.block_on(async {
            let flushed = if read_only { Ok(()) } else { vdi.flush().await };
            vdi.close().await?;
            cluster.close().await?;
            flushed
        })
    }
}

async fn end(operation: Operation<sheepdog::Result<()>>, len: u32) -> Outcome {
    match operation.await {
        Ok(()) => Outcome::Told(Status::Done, len),
        Err(error) if error.kind() == ErrorKind::OutOfMemory => Outcome::NoMemory,
        Err(error) => {
            log::warn!("{error}");
            Outcome::Told(Status::Failed, 0)
        }
    }
}
