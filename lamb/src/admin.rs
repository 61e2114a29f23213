//! What `dog` asks about the node and the cluster (4.13, 4.15).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::LevelFilter;
use sheepdog_proto::admin::{
    CLUSTER_INFO_LEN, ClusterInfo, EpochLog, MD_DISKS, MD_INFO_LEN, MdInfo, NodeId, RecoveryState,
    RecoveryThrottling, SdNode, SdStat, VdiState, lock_state, participant_state, status,
};
use sheepdog_proto::header::{ClusterDefaultReply, HashReply, NodeReply};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::zerocopy::little_endian::U64;
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{DEFAULT_BLOCK_SIZE_SHIFT, INTERNAL_VERSION, Oid, Request, SdResult, Vid};

use crate::cluster::{Cluster, Lock, disk, object_len};
use crate::config::Config;
use crate::refs::Refs;
use crate::request::{Answer, EPOCH, Out, Peer, Progress};
use crate::store::{CHUNK, Object};
use crate::{lock, read, write};

/// Number of the node's places on the ring, as `dog` expects of a node (6.2).
const VNODES: u16 = 128;
/// Copies of a cluster that is formatted without saying how many (4.15).
const FORMAT_COPIES: u8 = 3;

/// Bytes of an object that are hashed before others have their turn.
const HASHED_AT_A_TIME: u64 = 4 << 20;
/// Objects of OIDS_EXIST that are looked for before others have theirs.
const OIDS_AT_A_TIME: usize = 4096;

/// An object that is being hashed.
pub struct Hashing {
    object: Arc<Object>,
    sha1: sha1_smol::Sha1,
    at: u64,
}

impl Cluster {
    pub fn get_cluster_default(&self) -> Result<Answer, SdResult> {
        let config = read(&self.config);
        Ok(Answer::success(ClusterDefaultReply {
            nr_copies: config.copies,
            copy_policy: config.copy_policy,
            block_size_shift: config.block_size_shift,
            ..ClusterDefaultReply::default()
        }))
    }

    pub fn get_node_list(&self, peer: Peer, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(self.node(peer).as_bytes())?;
        Ok(Answer::success(NodeReply { nr_nodes: 1.into(), ..NodeReply::default() }))
    }

    fn node(&self, peer: Peer) -> SdNode {
        let nid = NodeId::of(peer.node);
        let [.., a, b, c, d] = nid.addr;
        let space = self.size_at_start;
        SdNode {
            nid,
            nr_vnodes: VNODES.into(),
            zone: u32::from_le_bytes([a, b, c, d]).into(),
            space: space.into(),
            ..SdNode::default()
        }
    }

    /// Removes everything and starts anew (4.15).
    pub fn make_fs(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let arm = request.cluster();
        let store = match sheepdog_proto::field_text(payload) {
            b"plain" => "plain",
            b"tree" => "tree",
            _ => return Err(SdResult::NO_STORE),
        };
        let block_size_shift = match arm.block_size_shift {
            0 => DEFAULT_BLOCK_SIZE_SHIFT,
            shift => shift,
        };
        let copies = match arm.copies {
            0 => FORMAT_COPIES,
            copies => copies,
        };
        if object_len(block_size_shift).is_none() {
            return Err(SdResult::INVALID_PARMS);
        }
        let mut config = Config {
            copies,
            copy_policy: arm.copy_policy,
            block_size_shift,
            store: store.to_owned(),
            wiping: true,
            mimic: self.mimic.is_some(),
            ..Config::default()
        };
        if arm.ctime.get() != 0 {
            config.ctime = arm.ctime.get();
        }
        config.set_flags(arm.flags.get());

        let _format = write(&self.format);
        let _order = lock(&self.order);
        // Whatever needs space comes first: after that nothing is left that could fail usually.
        let dir = self.store.dir();
        let next = Config { wiping: false, ..config.clone() };
        let fresh = self
            .store
            .with_reserve(|| {
                next.write_aside(dir, Config::NEXT)?;
                config.write_aside(dir, Config::TEMP)?;
                self.store.prepare_wipe()
            })
            .map_err(disk)?;
        // Said before it is begun, so that the next start finishes it after a crash; and never is
        // anything acknowledged in between that the next start would remove.
        let wiped = Config::put_in_place(dir, Config::TEMP)
            .and_then(|()| self.store.wipe(fresh))
            .and_then(|()| Config::put_in_place(dir, Config::NEXT));
        if let Err(err) = wiped {
            crate::end_for(format_args!("formatting failed halfway: {err}"));
        }
        self.store.keep_reserve();
        write(&self.vdis).clear();
        lock(&self.runs).clear();
        self.announced.store(0, Ordering::Relaxed);
        *lock(&self.refs) = Refs::default();
        lock(&self.locks).clear();
        let config = next;
        self.note_shift(config.block_size_shift);
        log::info!("formatted: {config:?}");
        *write(&self.config) = config;
        Ok(Answer::OK)
    }

    pub fn stat_sheep(&self) -> Result<Answer, SdResult> {
        let (size, free) = self.store.space().map_err(disk)?;
        Ok(Answer::success(NodeReply {
            store_size: size.into(),
            store_free: free.into(),
            ..NodeReply::default()
        }))
    }

    pub fn stat_cluster(
        &self,
        request: &Request,
        peer: Peer,
        out: &mut Out,
    ) -> Result<Answer, SdResult> {
        if out.room() < size_of::<EpochLog>() {
            return Ok(Answer::OK);
        }
        let flags = self.flags();
        let config = read(&self.config);
        let mut log = EpochLog {
            ctime: config.ctime.into(),
            epoch: EPOCH.into(),
            disable_recovery: config.disable_recovery.into(),
            nr_copies: config.copies,
            copy_policy: config.copy_policy,
            flags: flags.into(),
            drv_name: store_name(&config),
            ..EpochLog::default()
        };
        if request.cluster().nodes_nr.get() == 0 {
            out.push(log.as_bytes())?;
            return Ok(Answer::OK);
        }
        log.time = (config.ctime >> 32).into();
        log.nr_nodes = 1.into();
        // A record has room for as many nodes as the client says; one is used (4.15).
        let nodes = request.cluster().nodes_nr.get() as usize;
        let rest = (nodes - 1).saturating_mul(size_of::<SdNode>());
        if out.room() >= rest.saturating_add(size_of::<EpochLog>() + size_of::<SdNode>()) {
            out.push(log.as_bytes())?;
            out.push(self.node(peer).as_bytes())?;
            out.zeros(rest)?;
        }
        Ok(Answer::OK)
    }

    pub fn cluster_info(&self, peer: Peer, out: &mut Out) -> Result<Answer, SdResult> {
        if out.room() < CLUSTER_INFO_LEN {
            return Err(SdResult::BUFFER_SMALL);
        }
        let flags = self.flags();
        let config = read(&self.config);
        let info = ClusterInfo {
            proto_ver: INTERNAL_VERSION,
            disable_recovery: config.disable_recovery.into(),
            nr_nodes: 1.into(),
            epoch: EPOCH.into(),
            ctime: config.ctime.into(),
            flags: flags.into(),
            nr_copies: config.copies,
            copy_policy: config.copy_policy,
            status: status::OK,
            block_size_shift: config.block_size_shift,
            default_store: store_name(&config),
            ..ClusterInfo::default()
        };
        out.push(info.as_bytes())?;
        out.push(self.node(peer).as_bytes())?;
        let used = size_of::<ClusterInfo>() + size_of::<SdNode>();
        out.zeros(CLUSTER_INFO_LEN - used)?;
        Ok(Answer::OK)
    }

    pub fn get_store_list(&self, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(b"tree plain \0")?;
        Ok(Answer::OK)
    }

    pub fn get_epoch(
        &self,
        request: &Request,
        peer: Peer,
        out: &mut Out,
    ) -> Result<Answer, SdResult> {
        if request.obj().tgt_epoch.get() != EPOCH {
            return Err(SdResult::NO_TAG);
        }
        let time = read(&self.config).ctime >> 32;
        out.push(self.node(peer).as_bytes())?;
        out.push(&time.to_le_bytes())?;
        Ok(Answer::OK)
    }

    pub fn get_obj_list(&self, out: &mut Out) -> Result<Answer, SdResult> {
        let mut list = Vec::new();
        list.extend(self.store.inodes().map_err(disk)?.iter().map(|vid| vid.inode().0));
        for (kind, build) in [
            (OidKind::Data, Vid::data as fn(Vid, u32) -> Oid),
            (OidKind::Vmstate, Vid::vmstate),
            (OidKind::Attr, Vid::attr),
            (OidKind::Btree, Vid::btree),
        ] {
            for vid in self.store.vids(kind).map_err(disk)? {
                let indexes = self.store.indexes(kind, vid).map_err(disk)?;
                list.extend(indexes.into_iter().map(|index| build(vid, index).0));
            }
        }
        for oid in list {
            out.push(&oid.to_le_bytes())?;
        }
        Ok(Answer::OK)
    }

    pub fn get_vdi_copies(&self, peer: Peer, out: &mut Out) -> Result<Answer, SdResult> {
        let locks = lock(&self.locks).clone();
        let mut vdis = self.all_vdis();
        vdis.sort_by_key(|vdi| vdi.vid);
        for vdi in vdis {
            let state = read(&vdi.state);
            let header = &state.header;
            let mut record = VdiState {
                vid: vdi.vid.get().into(),
                nr_copies: header.nr_copies,
                snapshot: header.is_snapshot().into(),
                deleted: state.deleted.into(),
                copy_policy: header.copy_policy,
                block_size_shift: header.block_size_shift,
                parent_vid: header.parent_vdi_id,
                lock_state: lock_state::UNLOCKED.into(),
                ..VdiState::default()
            };
            match locks.get(&vdi.vid) {
                Some(Lock::Normal) => {
                    record.lock_state = lock_state::LOCKED.into();
                    record.lock_owner = NodeId::of(peer.node);
                }
                Some(Lock::Shared) => {
                    record.lock_state = lock_state::SHARED.into();
                    record.nr_participants = 1.into();
                    record.participants_state[0] = participant_state::MODIFIED.into();
                    record.participants[0] = NodeId::of(peer.node);
                }
                None => {}
            }
            out.push(record.as_bytes())?;
        }
        Ok(Answer::OK)
    }

    pub fn md_info(&self, out: &mut Out) -> Result<Answer, SdResult> {
        if out.room() != MD_INFO_LEN {
            return Err(SdResult::INVALID_PARMS);
        }
        let (size, free) = self.store.space().map_err(disk)?;
        let mut disk = MdInfo {
            free: free.into(),
            used: size.saturating_sub(free).into(),
            ..MdInfo::default()
        };
        let path = self.store.dir().as_os_str().as_encoded_bytes();
        let len = path.len().min(disk.path.len() - 1);
        disk.path[..len].copy_from_slice(&path[..len]);
        out.push(disk.as_bytes())?;
        out.zeros((MD_DISKS - 1) * size_of::<MdInfo>())?;
        out.push(&1u64.to_le_bytes())?;
        Ok(Answer::OK)
    }

    pub fn exist(&self, request: &Request) -> Result<Answer, SdResult> {
        match self.store.exists(Oid(request.obj().oid.get())).map_err(disk)? {
            true => Ok(Answer::OK),
            false => Err(SdResult::NO_OBJ),
        }
    }

    /// Answers those of the objects that are missing (4.15).
    pub fn oids_exist(
        &self,
        payload: &[u8],
        progress: &mut Progress,
        out: &mut Out,
    ) -> Result<Option<Answer>, SdResult> {
        let (mut at, mut missing) = match progress {
            Progress::Exist(at, missing) => (*at, *missing),
            _ => (0, false),
        };
        let rest = payload.get(at..).unwrap_or_default();
        for bytes in rest.chunks_exact(8).take(OIDS_AT_A_TIME) {
            let oid = U64::read_from_bytes(bytes).map_or(0, U64::get);
            if !self.store.exists(Oid(oid)).map_err(disk)? {
                missing = true;
                out.push(bytes)?;
            }
            at += 8;
        }
        *progress = Progress::Exist(at, missing);
        let answer = if missing { SdResult::NO_OBJ.into() } else { Answer::OK };
        Ok((payload.len() - at < 8).then_some(answer))
    }

    pub fn get_hash(
        &self,
        request: &Request,
        progress: &mut Progress,
    ) -> Result<Option<Answer>, SdResult> {
        if !matches!(progress, Progress::Hash(_)) {
            let object = self.store.get(Oid(request.obj().oid.get())).map_err(disk)?;
            let object = object.ok_or(SdResult::NO_OBJ)?;
            let sha1 = sha1_smol::Sha1::new();
            *progress = Progress::Hash(Box::new(Hashing { object, sha1, at: 0 }));
        }
        let Progress::Hash(hashing) = progress else { return Err(SdResult::SYSTEM_ERROR) };
        let Hashing { object, sha1, at } = &mut **hashing;
        let end = object.len().min(*at + HASHED_AT_A_TIME);
        let mut buf = vec![0; CHUNK];
        while *at < end {
            let len = CHUNK.min((end - *at) as usize);
            let chunk = buf.get_mut(..len).unwrap_or_default();
            object.read(chunk, *at).map_err(disk)?;
            sha1.update(chunk);
            *at += len as u64;
        }
        if *at < object.len() {
            return Ok(None);
        }
        let digest = sha1.digest().bytes();
        Ok(Some(Answer::success(HashReply { digest, ..HashReply::default() })))
    }

    pub fn stat(&self, out: &mut Out) -> Result<Answer, SdResult> {
        let of = |counter: &AtomicU64| U64::new(counter.load(Ordering::Relaxed));
        let stat = SdStat {
            gateway_active: of(&self.stat.active),
            gateway_total: of(&self.stat.total),
            gateway_rx: of(&self.stat.rx),
            gateway_tx: of(&self.stat.tx),
            gateway_removes: of(&self.stat.removes),
            gateway_reads: of(&self.stat.reads),
            gateway_writes: of(&self.stat.writes),
            gateway_flushes: of(&self.stat.flushes),
            ..SdStat::default()
        };
        out.push(stat.as_bytes())?;
        Ok(Answer::OK)
    }

    pub fn stat_recovery(&self, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(RecoveryState::default().as_bytes())?;
        Ok(Answer::OK)
    }

    pub fn get_recovery(&self, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(lock(&self.throttling).as_bytes())?;
        Ok(Answer::OK)
    }

    /// Remembered, though there is never anything to recover.
    pub fn set_recovery(&self, payload: &[u8]) -> Result<Answer, SdResult> {
        let throttling = RecoveryThrottling::read_from_bytes(payload);
        *lock(&self.throttling) = throttling.map_err(|_| SdResult::INVALID_PARMS)?;
        Ok(Answer::OK)
    }

    pub fn get_loglevel(&self, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(&self.log_level.load(Ordering::Relaxed).to_le_bytes())?;
        Ok(Answer::OK)
    }

    /// The level is one of syslog, of which there are more than we have.
    pub fn set_loglevel(&self, payload: &[u8]) -> Result<Answer, SdResult> {
        let level = payload.try_into().map(i32::from_le_bytes);
        let level = level.map_err(|_| SdResult::INVALID_PARMS)?;
        log::set_max_level(match level {
            0..=3 => LevelFilter::Error,
            4 | 5 => LevelFilter::Warn,
            6 => LevelFilter::Info,
            7 => LevelFilter::Debug,
            _ => return Err(SdResult::INVALID_PARMS),
        });
        self.log_level.store(level, Ordering::Relaxed);
        Ok(Answer::OK)
    }

    pub fn get_vnodes(&self, out: &mut Out) -> Result<Answer, SdResult> {
        out.push(&i32::from(VNODES).to_le_bytes())?;
        Ok(Answer::OK)
    }

    pub fn alter_cluster_copy(&self, request: &Request) -> Result<Answer, SdResult> {
        let arm = request.cluster();
        if arm.copies == 0 {
            return Err(SdResult::INVALID_PARMS);
        }
        let mut config = write(&self.config);
        let changed = Config { copies: arm.copies, copy_policy: arm.copy_policy, ..config.clone() };
        changed.save(self.store.dir()).map_err(disk)?;
        *config = changed;
        Ok(Answer::OK)
    }

    /// `dog` has written the number of copies to the inode already (6.1): nothing is stored twice
    /// here, so there is nothing to do about it.
    pub fn alter_vdi_copy(&self, request: &Request) -> Result<Answer, SdResult> {
        let vid = Vid::new(request.vdi_state().new_vid.get());
        vid.and_then(|vid| self.vdi(vid)).ok_or(SdResult::NO_VDI)?;
        Ok(Answer::OK)
    }

    pub fn disable_recovery(&self, disable: bool) -> Result<Answer, SdResult> {
        let mut config = write(&self.config);
        let changed = Config { disable_recovery: disable, ..config.clone() };
        changed.save(self.store.dir()).map_err(disk)?;
        *config = changed;
        Ok(Answer::OK)
    }
}

fn store_name(config: &Config) -> [u8; 16] {
    let mut name = [0; 16];
    name.iter_mut().zip(config.store.bytes()).for_each(|(to, from)| *to = from);
    name
}
