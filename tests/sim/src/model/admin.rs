//! Admin and listing operations (4.12, 4.13, 4.15): what a node says of itself and the cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use sheepdog_proto::admin::{
    CLUSTER_INFO_LEN, ClusterInfo, EpochLog, NodeId as Address, SdNode, VdiState, lock_state,
    participant_state, status,
};
use sheepdog_proto::header::{ClusterDefaultReply, NodeReply};
use sheepdog_proto::op::cluster_flag;
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{INTERNAL_VERSION, Oid, Request, SdResult, VDI_BITMAP_LEN, op};

use super::{Answer, Cluster, Lock, Participant};
use crate::host::NodeId;

/// The port that every node listens on; node n has the address 10.0.0.n+1.
const PORT: u16 = 7000;

impl Cluster {
    pub(super) fn admin(
        self: &Rc<Self>,
        _gateway: NodeId,
        request: &Request,
        payload: &[u8],
        arm: &mut [u8; 28],
        data: &mut Vec<u8>,
    ) -> Answer<()> {
        let room = request.data_length.get() as usize;
        let formatted = self.formatted.get().is_some();
        match request.opcode {
            op::READ_VDIS => *data = bitmap(self.in_use.borrow().iter(), room)?,
            op::READ_DEL_VDIS => *data = bitmap(self.deleted.borrow().iter(), room)?,
            op::GET_CLUSTER_DEFAULT => {
                let config = self.config.borrow();
                let mut reply = ClusterDefaultReply::default();
                if formatted {
                    (reply.nr_copies, reply.block_size_shift) = (config.copies, config.shift);
                }
                *arm = reply.into();
            }
            op::GET_NODE_LIST => {
                let nodes = self.host.members();
                *data = nodes.iter().flat_map(|n| node(*n).as_bytes().to_vec()).collect();
                let nr_nodes = (nodes.len() as u32).into();
                *arm = NodeReply { nr_nodes, ..Default::default() }.into();
            }
            op::CLUSTER_INFO => *data = self.cluster_info(),
            op::STAT_CLUSTER => *data = self.epochs(request)?,
            op::GET_VDI_COPIES => {
                let vdis = self.vdis.borrow();
                if room < vdis.len() * size_of::<VdiState>() {
                    return Err(SdResult::BUFFER_SMALL);
                }
                let states = vdis.keys().map(|vid| self.vdi_state(*vid));
                *data = states.flat_map(|state| state.as_bytes().to_vec()).collect();
            }
            op::MAKE_FS => self.format(request, payload)?,
            op::EXIST => {
                let oid = Oid(request.obj().oid.get());
                self.objects.borrow().get(&oid).ok_or(SdResult::NO_OBJ)?;
            }
            op::OIDS_EXIST => {
                let objects = self.objects.borrow();
                let oids = payload.as_chunks::<8>().0.iter();
                let gone = oids.filter(|o| !objects.contains_key(&Oid(u64::from_le_bytes(**o))));
                *data = gone.flatten().copied().collect();
                if !data.is_empty() {
                    return Err(SdResult::NO_OBJ);
                }
            }
            op::FLUSH_DEL_CACHE | op::DELETE_CACHE => {}
            _ => return Err(SdResult::NO_SUPPORT),
        }
        Ok(())
    }

    fn flags(&self) -> u16 {
        let config = self.config.borrow();
        let flag = |set, flag| if set { flag } else { 0 };
        cluster_flag::AUTO_VNODES
            | flag(config.use_lock, cluster_flag::USE_LOCK)
            | flag(config.recycle, cluster_flag::RECYCLE_VID)
    }

    fn cluster_info(&self) -> Vec<u8> {
        let config = self.config.borrow();
        let nodes = self.host.members();
        let mut info = ClusterInfo {
            proto_ver: INTERNAL_VERSION,
            flags: self.flags().into(),
            status: status::WAIT,
            ..Default::default()
        };
        if let Some(ctime) = self.formatted.get() {
            info.nr_nodes = (nodes.len() as u16).into();
            info.epoch = self.host.epoch().into();
            info.ctime = ctime.into();
            info.nr_copies = config.copies;
            info.status = status::OK;
            info.block_size_shift = config.shift;
            info.default_store[..5].copy_from_slice(b"plain");
        }
        let mut data = info.as_bytes().to_vec();
        data.extend(nodes.iter().flat_map(|n| node(*n).as_bytes().to_vec()));
        data.resize(CLUSTER_INFO_LEN, 0);
        data
    }

    /// STAT_CLUSTER: as many epochs as there is room for, the newest first.
    fn epochs(&self, request: &Request) -> Answer<Vec<u8>> {
        let room = request.cluster().nodes_nr.get() as usize;
        let record = size_of::<EpochLog>() + room * size_of::<SdNode>();
        let nodes = self.host.members();
        if room != 0 && room < nodes.len() {
            return Err(SdResult::BUFFER_SMALL);
        }
        let newest = self.host.epoch();
        let count = (request.data_length.get() as usize / record).min(newest as usize);
        let mut data = Vec::new();
        for (i, epoch) in (1..=newest).rev().take(count).enumerate() {
            let mut log = EpochLog { epoch: epoch.into(), ..Default::default() };
            if room != 0 {
                log.nr_nodes = (nodes.len() as u32).into();
            }
            if i == 0 {
                log.ctime = self.formatted.get().unwrap_or(0).into();
                log.nr_copies = self.config.borrow().copies;
                log.flags = self.flags().into();
                log.drv_name[..5].copy_from_slice(b"plain");
            }
            data.extend(log.as_bytes());
            if room != 0 {
                data.extend(nodes.iter().flat_map(|n| node(*n).as_bytes().to_vec()));
            }
            data.resize((i + 1) * record, 0);
        }
        Ok(data)
    }

    fn vdi_state(&self, vid: u32) -> VdiState {
        let vdis = self.vdis.borrow();
        let vdi = &vdis[&vid];
        let mut state = VdiState {
            vid: vid.into(),
            nr_copies: vdi.copies,
            snapshot: vdi.snapshot.into(),
            deleted: self.deleted.borrow().contains(&vid).into(),
            copy_policy: vdi.copy_policy,
            block_size_shift: vdi.shift,
            parent_vid: vdi.parent.into(),
            lock_state: lock_state::UNLOCKED.into(),
            ..Default::default()
        };
        match &vdi.lock {
            Lock::Unlocked => {}
            Lock::Locked(owner) => {
                state.lock_state = lock_state::LOCKED.into();
                state.lock_owner = address(*owner);
            }
            Lock::Shared(list) => {
                state.lock_state = lock_state::SHARED.into();
                state.nr_participants = (list.len() as u32).into();
                for (i, (node, what)) in list.iter().enumerate() {
                    state.participants[i] = address(*node);
                    state.participants_state[i] = match what {
                        Participant::Modified => participant_state::MODIFIED,
                        Participant::Shared => participant_state::SHARED,
                        Participant::Invalidated => participant_state::INVALIDATED,
                    }
                    .into();
                }
            }
        }
        state
    }

    fn format(&self, request: &Request, payload: &[u8]) -> Answer<()> {
        if ![&b"plain\0"[..], b"tree\0"].contains(&payload) {
            return Err(SdResult::NO_STORE);
        }
        let arm = request.cluster();
        let given = |value, default| if value == 0 { default } else { value };
        let mut config = self.config.borrow_mut();
        config.copies = given(arm.copies, 3);
        config.shift = given(arm.block_size_shift, sheepdog_proto::DEFAULT_BLOCK_SIZE_SHIFT);
        config.use_lock = arm.flags.get() & cluster_flag::USE_LOCK != 0;
        config.recycle = arm.flags.get() & cluster_flag::RECYCLE_VID != 0;
        self.formatted.set(Some(arm.ctime.get()));
        self.objects.borrow_mut().clear();
        self.in_use.borrow_mut().clear();
        self.forget();
        Ok(())
    }
}

fn bitmap<'a>(vids: impl Iterator<Item = &'a u32>, room: usize) -> Answer<Vec<u8>> {
    if room != VDI_BITMAP_LEN {
        return Err(SdResult::INVALID_PARMS);
    }
    let mut bits = vec![0; room];
    for vid in vids {
        bits[*vid as usize >> 3] |= 1 << (vid & 7);
    }
    Ok(bits)
}

fn address(node: NodeId) -> Address {
    Address::of(SocketAddr::from((Ipv4Addr::new(10, 0, 0, node as u8 + 1), PORT)))
}

fn node(node: NodeId) -> SdNode {
    SdNode { nid: address(node), nr_vnodes: 128.into(), ..Default::default() }
}
