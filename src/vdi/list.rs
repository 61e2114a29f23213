//! What VDIs there are, and what one is (5.13).

use std::collections::BTreeSet;
use std::sync::Mutex;

use sheepdog_proto::inode::{InodeHeader, STORE_ARRAY};
use sheepdog_proto::oid::vids_in;
use sheepdog_proto::{SdResult, Vid, op};

use super::entries::scan;
use super::generation::Generation;
use super::inode::{self, unless};
use super::{Client, Vdi, Which, btree};
use crate::cluster::{Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{lock, try_for_each_concurrent};

/// What a VDI is, as the servers know it now.
pub struct Info {
    pub header: InodeHeader,
    pub vid: Vid,
    /// Bytes of the objects that its map names.
    pub allocated: u64,
}

impl Client {
    /// The names of the working VDIs, sorted, each once.
    pub async fn list(&self, op: &Op) -> Result<Vec<Vec<u8>>> {
        let inodes = inodes(self, op).await?;
        let working = inodes.iter().filter(|(_, header)| !header.is_snapshot());
        let names: BTreeSet<_> = working.map(|(_, header)| header.name().to_vec()).collect();
        Ok(names.into_iter().collect())
    }
}

/// The headers of all inodes that are not deleted, snapshots included, in no order.
pub(super) async fn inodes(client: &Client, op: &Op) -> Result<Vec<(Vid, InodeHeader)>> {
    let cluster = &client.cluster;
    let used = inode::read_bitmap(cluster, op, op::READ_VDIS).await?;
    // Older servers do not have it, and some do not survive it; the empty names tell, too.
    let deleted = match client.generation(op).await? {
        Generation::Current { .. } => inode::read_bitmap(cluster, op, op::READ_DEL_VDIS).await?,
        Generation::Older => vec![0; used.len()],
    };
    let headers = Mutex::new(Vec::new());
    try_for_each_concurrent(vids_in(&used, &deleted).map(|vid| {
        let headers = &headers;
        async move {
            // None: announced by a cluster snapshot that is being loaded, or deleted just now.
            let header = unless(inode::read_header(cluster, op, vid).await, SdResult::NO_OBJ);
            header.map(|header| {
                let header = header.filter(|header| !header.is_deleted());
                lock(headers).extend(header.map(|header| (vid, header)));
            })
        }
    }))
    .await?;
    Ok(headers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

impl Vdi {
    pub async fn info(&self, cluster: &Cluster, op: &Op) -> Result<Info> {
        let vid = self.view().vid;
        let header = match self.read_again(cluster, op).await {
            // Frozen by another's snapshot: the next write will find out, and this is no write.
            Err(Error::Refused(Refusal::NoVdi)) if self.which == Which::WORKING => {
                self.servers.strays.put_right(cluster, op).await;
                let vid = inode::lookup(cluster, op, &self.name, &self.which).await?;
                Vdi::read_checked(cluster, op, vid, &self.name, &self.which).await?
            }
            result => result?,
        };
        let vid = header.vid().unwrap_or(vid);
        let mut used = 0;
        if header.store_policy == STORE_ARRAY {
            for (first, len) in scan(0..inode::objects(&header)) {
                let entries = inode::read_entries(cluster, op, vid, first, len).await?;
                used += entries.iter().filter(|entry| **entry != 0).count() as u64;
            }
        } else {
            used = btree::count(cluster, op, vid).await?;
        }
        Ok(Info { header, vid, allocated: used << header.block_size_shift })
    }
}
