//! The state of everything: configuration, VDIs, references, locks, over the store.
//!
//! What a crash can leave half done is finished here, when the store is opened.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use sheepdog_proto::admin::RecoveryThrottling;
use sheepdog_proto::inode::{MAP_END, MAP_OFFSET, SNAP_CTIME_OFFSET, STORE_ARRAY};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::cluster_flag;
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::zerocopy::little_endian::U32;
use sheepdog_proto::{InodeHeader, Oid, SdResult, Vid};

use crate::Options;
use crate::config::Config;
use crate::mimic::Mimic;
use crate::refs::Refs;
use crate::store::{CHUNK, Object, Store};
use crate::vdi::Run;
use crate::{lock, read, write};

pub struct Cluster {
    pub store: Arc<Store>,
    pub config: RwLock<Config>,
    /// Every VDI id in use: working VDIs, snapshots, deleted ones, announced ones (4.12).
    ///
    /// No other lock is taken under this one.
    pub vdis: RwLock<HashMap<Vid, Arc<Vdi>>>,
    /// What is known of long rows of ids, so that a name that was deleted and created many times
    /// is found as fast as another one.
    pub runs: Mutex<HashMap<Vid, Run>>,
    /// VDIs that were announced since the start.
    pub announced: AtomicU64,
    pub refs: Mutex<Refs>,
    /// Who holds which VDI (4.10). In memory only, as on the real server.
    pub locks: Mutex<HashMap<Vid, Lock>>,
    /// Held by each cluster operation, since those are serialised (0.5).
    pub order: Mutex<()>,
    /// Held for reading by every request, for writing by the one that removes everything.
    pub format: RwLock<()>,
    pub throttling: Mutex<RecoveryThrottling>,
    pub stat: Stat,
    /// As SET_LOGLEVEL last said it: a level of syslog.
    pub log_level: AtomicI32,
    /// Locks are enforced whatever the cluster was formatted with.
    use_lock: bool,
    /// Present with `--mimic-1.0`.
    pub mimic: Option<Mimic>,
    /// Bytes that objects may take, as the node list says them: as they were at the start.
    pub size_at_start: u64,
    /// Bytes of the largest object that any VDI has had.
    largest: AtomicU64,
}

/// A VDI id in use.
pub struct Vdi {
    pub vid: Vid,
    /// Held for reading while a request depends on what the VDI is; held for writing to freeze,
    /// delete or copy it, or to change its header. So whoever holds it for writing knows that
    /// neither a map update nor a write to the VDI's data is under way.
    pub state: RwLock<State>,
    /// Held while entries of the map are compared and replaced (6.4).
    pub map: Mutex<()>,
}

pub struct State {
    pub header: InodeHeader,
    /// Whether there is an inode. NOTIFY_VDI_ADD announces VDIs that have none yet (6.2).
    pub present: bool,
    /// Set by DEL_VDI; after a start, told from an empty name (4.12).
    pub deleted: bool,
    /// Announced: whatever its inode says, objects may be created until the next start (6.2).
    pub loading: bool,
}

impl State {
    /// Whether clients must not change what the VDI's map and data say (4.5).
    pub fn is_frozen(&self) -> bool {
        self.header.is_snapshot() || (self.deleted && self.header.is_deleted())
    }

    pub fn has_array(&self) -> bool {
        self.header.store_policy == STORE_ARRAY
    }

    /// Bytes of the VDI's data objects; None where the inode says nothing sensible.
    pub fn object_len(&self) -> Option<u64> {
        object_len(self.header.block_size_shift)
    }
}

/// Bytes of an object, for a shift that a VDI may have (6.3).
pub fn object_len(block_size_shift: u8) -> Option<u64> {
    (9..=31).contains(&block_size_shift).then(|| 1 << block_size_shift)
}

/// Who holds a VDI (4.10): with one gateway there is only "this one".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    Normal,
    Shared,
}

/// Counters since the start (3.11).
#[derive(Default)]
pub struct Stat {
    pub active: AtomicU64,
    pub total: AtomicU64,
    pub rx: AtomicU64,
    pub tx: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub removes: AtomicU64,
    pub flushes: AtomicU64,
}

pub fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// What a failure of the disk is to a client.
pub fn disk(err: io::Error) -> SdResult {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            log::warn!("no space: {err}");
            SdResult::NO_SPACE
        }
        io::ErrorKind::OutOfMemory => SdResult::NO_MEM,
        _ => {
            log::error!("disk: {err}");
            SdResult::EIO
        }
    }
}

impl Vdi {
    pub fn new(vid: Vid, header: InodeHeader) -> Vdi {
        let state = State { header, present: true, deleted: false, loading: false };
        Vdi { vid, state: RwLock::new(state), map: Mutex::new(()) }
    }
}

impl Cluster {
    /// Opens the cluster in the directory that `options` name, or formats it there.
    pub fn open(options: &Options, open_files: usize) -> io::Result<Cluster> {
        let (dir, mimic) = (options.dir.as_path(), options.mimic);
        let config = Config::load(dir)?;
        let fresh = config.is_none();
        if fresh {
            check_unused(dir)?;
        }
        let mut config = config.unwrap_or_else(|| Config { mimic, ..Config::default() });
        if config.mimic != mimic {
            // Each would take the other's objects for unreferenced.
            let usual = if config.mimic { "only with" } else { "without" };
            return Err(io::Error::other(format!("it was made {usual} --mimic-1.0")));
        }
        if fresh {
            // Before anything else, so that the directory is known as ours from now on.
            config.save(dir)?;
        }
        let store = Arc::new(Store::open(dir, options.sync, open_files)?);
        if config.wiping {
            store.wipe(store.with_reserve(|| store.prepare_wipe())?)?;
            config.wiping = false;
            config.save(dir)?;
        }
        store.keep_reserve();
        let cluster = Cluster {
            store: store.clone(),
            config: RwLock::new(config),
            vdis: RwLock::default(),
            runs: Mutex::default(),
            announced: AtomicU64::new(0),
            refs: Mutex::default(),
            locks: Mutex::default(),
            order: Mutex::default(),
            format: RwLock::default(),
            throttling: Mutex::default(),
            stat: Stat::default(),
            log_level: AtomicI32::new(6),
            use_lock: options.use_lock,
            mimic: mimic.then(|| Mimic::start(store.clone())).transpose()?,
            size_at_start: store.space()?.0,
            largest: AtomicU64::new(0),
        };
        let shift = read(&cluster.config).block_size_shift;
        cluster.note_shift(shift);
        cluster.load_inodes()?;
        if !mimic {
            cluster.finish_snapshots()?;
            cluster.count_refs()?;
            cluster.reclaim()?;
            cluster.reclaim_attrs()?;
            cluster.recycle_all().map_err(|err| io::Error::other(err.to_string()))?;
        }
        Ok(cluster)
    }

    fn load_inodes(&self) -> io::Result<()> {
        let mut vdis = write(&self.vdis);
        for vid in self.store.inodes()? {
            let Some(object) = self.store.get(vid.inode())? else { continue };
            let broken = |err: io::Error| io::Error::new(err.kind(), format!("inode {vid}: {err}"));
            let header = read_header(&object).map_err(broken)?;
            self.note_shift(header.block_size_shift);
            let vdi = Vdi::new(vid, header);
            write(&vdi.state).deleted = header.is_deleted();
            vdis.insert(vid, Arc::new(vdi));
        }
        Ok(())
    }

    /// NEW_VDI stores the successor first and freezes its predecessor then. Of two working VDIs of
    /// one name and with successive numbers, the older is one that a crash kept from being frozen.
    fn finish_snapshots(&self) -> io::Result<()> {
        let vdis = read(&self.vdis);
        let working = |vdi: &&Arc<Vdi>| {
            let header = read(&vdi.state).header;
            !header.is_deleted() && !header.is_snapshot()
        };
        let key = |vdi: &Vdi, next: u32| {
            let header = read(&vdi.state).header;
            (header.name().to_vec(), header.snap_id.get().wrapping_add(next))
        };
        let predecessors: HashMap<_, _> =
            vdis.values().filter(working).map(|vdi| (key(vdi, 1), vdi)).collect();
        for vdi in vdis.values().filter(working) {
            if let Some(old) = predecessors.get(&key(vdi, 0)) {
                log::warn!("{}: finishing its snapshot, {} takes over", old.vid, vdi.vid);
                let time = read(&vdi.state).header.create_time.get();
                self.freeze(old.vid, &mut write(&old.state), time)?;
            }
        }
        Ok(())
    }

    /// Turns a working VDI into a snapshot, for good.
    pub fn freeze(&self, vid: Vid, state: &mut State, time: u64) -> io::Result<()> {
        let object = self.store.get(vid.inode())?.ok_or(io::ErrorKind::NotFound)?;
        let time = time.max(1);
        self.store.write_for_good(&object, &time.to_le_bytes(), SNAP_CTIME_OFFSET.into())?;
        state.header.snap_ctime = time.into();
        Ok(())
    }

    fn count_refs(&self) -> io::Result<()> {
        let mut refs = lock(&self.refs);
        for vdi in read(&self.vdis).values() {
            let state = read(&vdi.state);
            if state.deleted || !state.has_array() {
                continue;
            }
            self.read_map_in_runs(vdi.vid, |index, owner, len| refs.add_run(owner, index, len))?;
        }
        Ok(())
    }

    /// Removes what no inode names: objects whose removal or whose first map update a crash
    /// prevented (6.3).
    fn reclaim(&self) -> io::Result<()> {
        let (vdis, refs) = (read(&self.vdis), lock(&self.refs));
        let live: HashSet<Vid> =
            vdis.values().filter(|vdi| !read(&vdi.state).deleted).map(|vdi| vdi.vid).collect();
        let mut removed = 0;
        for vid in self.store.vids(OidKind::Data)? {
            // The objects of a hypervolume are not counted (3.9): they go when it goes.
            let hypervolume = vdis.get(&vid).is_some_and(|vdi| !read(&vdi.state).has_array());
            if hypervolume && live.contains(&vid) {
                continue;
            }
            removed += self.remove_all(OidKind::Data, vid, |oid| !refs.contains(oid))?;
        }
        for kind in [OidKind::Vmstate, OidKind::Btree] {
            for vid in self.store.vids(kind)?.into_iter().filter(|vid| !live.contains(vid)) {
                removed += self.remove_all(kind, vid, |_| true)?;
            }
        }
        if removed > 0 {
            log::info!("removed {removed} objects that nothing names");
        }
        Ok(())
    }

    /// Removes those objects of one kind and VDI that `which` says, and counts them.
    pub fn remove_all(
        &self,
        kind: OidKind,
        vid: Vid,
        which: impl Fn(Oid) -> bool,
    ) -> io::Result<usize> {
        let mut removed = 0;
        for index in self.store.indexes(kind, vid)? {
            let oid = match kind {
                OidKind::Vmstate => vid.vmstate(index),
                OidKind::Btree => vid.btree(index),
                OidKind::Attr => vid.attr(index),
                _ => vid.data(index),
            };
            if which(oid) {
                removed += usize::from(self.store.remove(oid, false)?);
            }
        }
        self.store.remove_dir(kind, vid);
        Ok(removed)
    }

    /// Calls `each` with the index and the owner of every object that the inode's map names.
    pub fn read_map(&self, vid: Vid, mut each: impl FnMut(u32, Vid)) -> io::Result<()> {
        self.read_map_in_runs(vid, |index, owner, len| {
            (index..index + len as u32).for_each(|index| each(index, owner));
        })
    }

    /// The same for runs of so many entries with one owner, as most of a map is.
    ///
    /// Reads no more than what was ever written of the map.
    fn read_map_in_runs(&self, vid: Vid, mut each: impl FnMut(u32, Vid, usize)) -> io::Result<()> {
        let Some(inode) = self.store.get(vid.inode())? else { return Ok(()) };
        let mut buf = vec![0; CHUNK];
        inode.extents(MAP_OFFSET.into()..MAP_END.into(), |part| {
            // Extents are blocks of the file system: an entry is never cut by one.
            let mut at = part.start;
            while at < part.end {
                let len = CHUNK.min((part.end - at) as usize);
                let Some(chunk) = buf.get_mut(..len) else { break };
                inode.read(chunk, at)?;
                let mut index = ((at - u64::from(MAP_OFFSET)) / 4) as u32;
                let entries = <[U32]>::ref_from_bytes(chunk).unwrap_or_default();
                for run in entries.chunk_by(|a, b| a == b) {
                    let owner = run.first().and_then(|entry| Vid::new(entry.get()));
                    if let Some(owner) = owner.filter(|owner| !owner.is_none()) {
                        each(index, owner, run.len());
                    }
                    index += run.len() as u32;
                }
                at += len as u64;
            }
            Ok(())
        })
    }

    /// Bytes of the largest payload that a client may send: an inode, an object, or whatever has
    /// always been usual (0.6).
    pub fn max_payload(&self) -> usize {
        (self.largest.load(Ordering::Relaxed) as usize).max(16 << 20)
    }

    /// A VDI has objects of this size.
    pub fn note_shift(&self, block_size_shift: u8) {
        if let Some(len) = object_len(block_size_shift) {
            self.largest.fetch_max(len, Ordering::Relaxed);
        }
    }

    /// The cluster's flags (2.6) as clients are told.
    pub fn flags(&self) -> u16 {
        read(&self.config).flags | if self.use_lock { cluster_flag::USE_LOCK } else { 0 }
    }

    /// Whether LOCK_VDI locks (4.10).
    pub fn locks_vdis(&self) -> bool {
        self.flags() & cluster_flag::USE_LOCK != 0
    }

    /// Whether VDI ids are used again, and do not come from hashing (3.3).
    pub fn recycles(&self) -> bool {
        self.mimic.is_none() && read(&self.config).flags & cluster_flag::RECYCLE_VID != 0
    }

    pub fn vdi(&self, vid: Vid) -> Option<Arc<Vdi>> {
        read(&self.vdis).get(&vid).cloned()
    }
}

/// Refuses a directory that somebody else uses: starting there would remove files of theirs.
fn check_unused(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let harmless = name == "lock" || name == "lost+found" || name == Config::TEMP;
        if !harmless && !entry.file_type()?.is_socket() {
            let name = name.to_string_lossy();
            let text = format!("it is not empty ({name}), and not a store of lamb's");
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

/// The map entries in a piece of a map.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let whole = bytes.get(..bytes.len() & !3).unwrap_or_default();
    <[U32]>::ref_from_bytes(whole).unwrap_or_default().iter().map(|entry| entry.get())
}

pub fn read_header(inode: &Object) -> io::Result<InodeHeader> {
    let mut bytes = [0; size_of::<InodeHeader>()];
    inode.read(&mut bytes, 0)?;
    InodeHeader::read_from_bytes(&bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
