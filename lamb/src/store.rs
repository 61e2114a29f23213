//! Objects as files: one sparse file per object, of the object's full size from its first moment.
//!
//! Knows names, descriptors and durability; nothing of VDIs, maps or requests.
//!
//! ```text
//! DIR/inode/VID           DIR/data/VID/INDEX      DIR/vmstate/VID/INDEX
//! DIR/attr/HASH/ATTR-ID   DIR/btree/VID/NODE      DIR/ledger/VID/INDEX
//! DIR/temp/N              objects on their way to one of these names
//! DIR/trash/N             directories full of objects that are no longer wanted
//! DIR/reserve             space for what frees space, when there is none
//! ```
//!
//! Two rules make every crash harmless: an object appears under its name only when all of it is on
//! the disk (written aside, synced, renamed, directory synced), and what is acknowledged was synced
//! before. Without `sync` the second rule holds against the end of the process, not of the machine.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::fs::{
    CWD, FallocateFlags, RenameFlags, SeekFrom, copy_file_range, fallocate, ioctl_ficlone,
    renameat_with, seek, statvfs, syncfs,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{Oid, Vid};

use crate::buf::Buf;
use crate::lock;

/// Directory of each kind of object.
const KINDS: [(OidKind, &str); 6] = [
    (OidKind::Inode, "inode"),
    (OidKind::Data, "data"),
    (OidKind::Vmstate, "vmstate"),
    (OidKind::Attr, "attr"),
    (OidKind::Btree, "btree"),
    (OidKind::Ledger, "ledger"),
];
/// Space that is kept for what frees space.
const RESERVE: &str = "reserve";
const RESERVE_LEN: usize = 256 << 10;
const TEMP: &str = "temp";
const TRASH: &str = "trash";

/// Parts of the table of open files, each with its own lock.
const SHARDS: usize = 64;

/// Bytes that move through one buffer when a file is copied or hashed.
pub const CHUNK: usize = 64 << 10;

pub struct Store {
    dir: PathBuf,
    sync: bool,
    shards: Box<[Mutex<Shard>]>,
    open_per_shard: usize,
    next_temp: AtomicU64,
    /// Directories of single VDIs that are known to exist and to survive a crash.
    dirs: Mutex<HashSet<PathBuf>>,
    reaper: Reaper,
}

/// A lock covers both the names of its objects and their open files, so the two never disagree:
/// names change, and missing files are opened, under the lock.
#[derive(Default)]
struct Shard {
    open: HashMap<Oid, Slot>,
    clock: u64,
    /// Names that somebody watches.
    watched: HashMap<Oid, Watched>,
}

#[derive(Default)]
struct Watched {
    watches: usize,
    /// How often another object has come in the place of the one there was.
    replaced: u64,
}

/// The object that had a name at some moment, or its absence.
pub struct Watch<'a> {
    store: &'a Store,
    oid: Oid,
    replaced: u64,
}

impl Watch<'_> {
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// Removes that object, if there still is one, and no other one of its name. A crash of the
    /// machine may bring it back.
    pub fn remove(self) -> io::Result<()> {
        let mut shard = self.store.shard(self.oid);
        let watched = shard.watched.get(&self.oid).map_or(0, |watched| watched.replaced);
        if watched == self.replaced {
            self.store.remove_in(&mut shard, self.oid)?;
        }
        Ok(())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut shard = self.store.shard(self.oid);
        if let Some(watched) = shard.watched.get_mut(&self.oid) {
            watched.watches -= 1;
            if watched.watches == 0 {
                shard.watched.remove(&self.oid);
            }
        }
    }
}

struct Slot {
    object: Arc<Object>,
    used: u64,
}

/// An open object. It stays readable and writable after the object was replaced or removed; such
/// writes then happened before the replacement.
pub struct Object {
    file: File,
    len: u64,
    /// Whether the name would survive a crash: false between rename and sync of the directory.
    settled: AtomicBool,
}

/// What is to be stored: in memory, or in a file where that is too much.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    Bytes(&'a [u8]),
    File(&'a Spool),
}

impl<'a> Data<'a> {
    pub fn len(self) -> usize {
        match self {
            Data::Bytes(bytes) => bytes.len(),
            Data::File(spool) => spool.len as usize,
        }
    }

    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Data::Bytes(bytes) => Some(bytes),
            Data::File(_) => None,
        }
    }
}

/// A file without a name for a payload that is too large for the memory. A failure to store it
/// shows when it is used, once the peer has sent all of it.
pub struct Spool {
    file: io::Result<Object>,
    len: u64,
}

impl Spool {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn append(&mut self, data: &[u8]) {
        if let Ok(object) = &self.file
            && let Err(err) = object.fill(data, self.len)
        {
            self.file = Err(err);
        }
        self.len += data.len() as u64;
    }

    fn object(&self) -> io::Result<&Object> {
        self.file.as_ref().map_err(|err| io::Error::new(err.kind(), err.to_string()))
    }
}

impl Object {
    /// Bytes of the object.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends `len` bytes from `offset` to `out`, if that takes no wait for a disk; otherwise
    /// false, `out` unchanged.
    pub fn read_now(&self, out: &mut Buf, offset: u64, len: usize) -> bool {
        let start = out.len();
        let room = out.grow(len);
        let read =
            preadv2(&self.file, &mut [IoSliceMut::new(room)], offset, ReadWriteFlags::NOWAIT);
        let whole = match read {
            // A file system in memory knows no other way to read.
            Err(Errno::OPNOTSUPP) => self.read(room, offset).is_ok(),
            read => read == Ok(len),
        };
        if !whole {
            out.truncate(start);
        }
        whole
    }

    pub fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Stores without making it durable: [`Store::create`] and [`Store::sync`] do that.
    pub fn fill(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Makes a part read as zeros and gives its space back, where the file system can.
    pub fn punch(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.file, flags, range.start, range.end - range.start).is_ok() {
            return Ok(());
        }
        self.extents(range, |part| {
            let zeros = [0; 4096];
            for at in part.clone().step_by(zeros.len()) {
                let len = zeros.len().min((part.end - at) as usize);
                self.fill(zeros.get(..len).unwrap_or_default(), at)?;
            }
            Ok(())
        })
    }

    /// The same, wherever the data is.
    pub fn store(&self, data: Data, offset: u64) -> io::Result<()> {
        match data {
            Data::Bytes(bytes) => self.fill(bytes, offset),
            Data::File(spool) => {
                self.copy_range(spool.object()?, 0..spool.len, offset, &mut Buf::default())
            }
        }
    }

    /// Calls `each` for the parts of `range` that hold data, in order; the rest reads as zeros.
    pub fn extents(
        &self,
        range: std::ops::Range<u64>,
        mut each: impl FnMut(std::ops::Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(err) => return Err(err.into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(start))?;
            let (start, end) = (start.max(at), end.min(range.end));
            if start >= end {
                break;
            }
            each(start..end)?;
            at = end;
        }
        Ok(())
    }

    /// Fills this new object with what `base` holds, holes staying holes.
    pub fn fill_from(&self, base: &Object) -> io::Result<()> {
        // Where the file system can share extents, copying on write costs nothing.
        if self.len == base.len && ioctl_ficlone(&self.file, &base.file).is_ok() {
            return Ok(());
        }
        let mut buf = Buf::default();
        base.extents(0..self.len.min(base.len), |part| {
            let to = part.start;
            self.copy_range(base, part, to, &mut buf)
        })
    }

    fn copy_range(
        &self,
        base: &Object,
        part: std::ops::Range<u64>,
        mut to: u64,
        buf: &mut Buf,
    ) -> io::Result<()> {
        let mut from = part.start;
        while from < part.end {
            let len = (part.end - from) as usize;
            match copy_file_range(&base.file, Some(&mut from), &self.file, Some(&mut to), len) {
                Ok(n) if n > 0 => {}
                // Not every file system can; the plain way also finds out what else is wrong.
                _ => {
                    let chunk = buf.grow(len.min(CHUNK));
                    base.read(chunk, from)?;
                    self.fill(chunk, to)?;
                    from += chunk.len() as u64;
                    to += chunk.len() as u64;
                    buf.clear();
                }
            }
        }
        Ok(())
    }
}

impl Store {
    /// Opens the store in `dir`, creating what is missing and removing what a crash left behind.
    ///
    /// At most `open_files` objects are kept open. The caller has made sure that no other process
    /// uses the directory.
    pub fn open(dir: &Path, sync: bool, open_files: usize) -> io::Result<Store> {
        let store = Store {
            dir: dir.to_owned(),
            sync,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            open_per_shard: (open_files / SHARDS).max(1),
            next_temp: AtomicU64::new(0),
            dirs: Mutex::default(),
            reaper: Reaper::start(dir.join(TRASH))?,
        };
        match fs::remove_dir_all(dir.join(TEMP)) {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        store.make_dirs()?;
        store.reaper.wake();
        Ok(store)
    }

    fn make_dirs(&self) -> io::Result<()> {
        for name in KINDS.map(|(_, name)| name).into_iter().chain([TEMP, TRASH]) {
            match fs::create_dir(self.dir.join(name)) {
                Err(err) if err.kind() != ErrorKind::AlreadyExists => return Err(err),
                _ => {}
            }
        }
        self.sync_dir(&self.dir)?;
        lock(&self.dirs).insert(self.dir.join(kind_dir(OidKind::Inode)));
        Ok(())
    }

    /// Makes everything that removing every object needs.
    pub fn prepare_wipe(&self) -> io::Result<Fresh> {
        let fresh = Fresh(Temp::new(self).keep());
        fs::create_dir(&fresh.0)?;
        for (_, name) in KINDS {
            fs::create_dir(fresh.0.join(name))?;
        }
        self.sync_dir_for_good(&fresh.0)?;
        Ok(fresh)
    }

    /// Removes every object, without a need for space. Nobody else uses the store meanwhile.
    pub fn wipe(&self, fresh: Fresh) -> io::Result<()> {
        for (_, name) in KINDS {
            let (new, old) = (fresh.0.join(name), self.dir.join(name));
            match renameat_with(CWD, &new, CWD, &old, RenameFlags::EXCHANGE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    fs::rename(&old, fresh.0.join(format!("{name}.old")))?;
                    fs::rename(&new, &old)?;
                }
                result => result?,
            }
        }
        self.sync_dir_for_good(&self.dir)?;
        self.forget(|_| true);
        let mut dirs = lock(&self.dirs);
        dirs.clear();
        dirs.insert(self.dir.join(kind_dir(OidKind::Inode)));
        drop(dirs);
        self.throw_away(&fresh.0)
    }

    /// Does what frees space; if there is none to begin with, with what is kept for that.
    pub fn with_reserve<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let full = |err: &io::Error| {
            matches!(err.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        };
        match work() {
            Err(err) if full(&err) => {
                fs::remove_file(self.dir.join(RESERVE))?;
                // Some file systems have the space back only then.
                self.sync_dir_for_good(&self.dir)?;
                work()
            }
            result => result,
        }
    }

    /// Keeps a little space, if there is any.
    pub fn keep_reserve(&self) {
        let path = self.dir.join(RESERVE);
        if !path.exists()
            && let Err(err) = fs::write(&path, vec![1; RESERVE_LEN])
        {
            log::warn!("{}: {err}", path.display());
            let _ = fs::remove_file(&path);
        }
    }

    /// Removes all objects of one kind and VDI from their names at once; their space comes back
    /// later. Nobody creates such objects meanwhile.
    pub fn trash(&self, kind: OidKind, vid: Vid) -> io::Result<()> {
        let dir = self.dir.join(kind_dir(kind)).join(vid.to_string());
        lock(&self.dirs).remove(&dir);
        self.throw_away(&dir)?;
        self.forget(|oid| oid.vid() == vid && oid.kind() == Some(kind));
        Ok(())
    }

    /// Lets go of objects that have lost their names all at once.
    fn forget(&self, which: impl Fn(Oid) -> bool) {
        for shard in &self.shards {
            // Whoever opened one of them did so before, and under the lock.
            let mut shard = lock(shard);
            shard.open.retain(|&oid, _| !which(oid));
            let watched = shard.watched.iter_mut().filter(|(oid, _)| which(**oid));
            watched.for_each(|(_, watched)| watched.replaced += 1);
        }
    }

    fn throw_away(&self, dir: &Path) -> io::Result<()> {
        let n = self.next_temp.fetch_add(1, Ordering::Relaxed);
        // What an earlier run has left there may have the same number.
        let mut to = self.dir.join(TRASH).join(n.to_string());
        while to.exists() {
            to.as_mut_os_string().push("x");
        }
        match fs::rename(dir, to) {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
            // Not even space for a name: what is there goes here and now.
            Err(err) if err.kind() == ErrorKind::StorageFull => fs::remove_dir_all(dir),
            result => {
                self.reaper.wake();
                result
            }
        }
    }

    pub fn syncs(&self) -> bool {
        self.sync
    }

    /// Makes everything written so far survive a crash of the machine.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(syncfs(File::open(&self.dir)?)?)
    }

    /// Bytes that objects may take, all in all, as the real server counts them: those that they take
    /// and those that are free. This looks at every object there is.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let mut used = 0;
        for (_, name) in KINDS {
            used += used_in(&self.dir.join(name))?;
        }
        let free = self.free()?;
        Ok((used.saturating_add(free), free))
    }

    fn free(&self) -> io::Result<u64> {
        let s = statvfs(&self.dir)?;
        Ok(s.f_bavail.saturating_mul(s.f_frsize))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The object, or None where there is none.
    pub fn get(&self, oid: Oid) -> io::Result<Option<Arc<Object>>> {
        let mut shard = self.shard(oid);
        shard.clock += 1;
        let now = shard.clock;
        if let Some(slot) = shard.open.get_mut(&oid) {
            slot.used = now;
            return Ok(Some(slot.object.clone()));
        }
        let Some(path) = self.path(oid) else { return Ok(None) };
        let file = match self.open_file(OpenOptions::new().read(true).write(true), &path) {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let len = file.metadata()?.len();
        let object = Arc::new(Object { file, len, settled: AtomicBool::new(true) });
        shard.insert(oid, object.clone(), self.open_per_shard);
        Ok(Some(object))
    }

    pub fn exists(&self, oid: Oid) -> io::Result<bool> {
        if self.shard(oid).open.contains_key(&oid) {
            return Ok(true);
        }
        self.path(oid).map_or(Ok(false), |path| path.try_exists())
    }

    /// Creates or replaces an object of `len` bytes: what `fill` writes to it, zeros elsewhere.
    ///
    /// The object appears under its name complete, or, on an error, not at all.
    pub fn create(
        &self,
        oid: Oid,
        len: u64,
        fill: impl FnOnce(&Object) -> io::Result<()>,
    ) -> io::Result<()> {
        self.create_with(oid, len, self.sync, fill)
    }

    /// The same for good, whatever the server was told about syncing: for what clusters are made
    /// of, which changes rarely.
    pub fn create_for_good(
        &self,
        oid: Oid,
        len: u64,
        fill: impl FnOnce(&Object) -> io::Result<()>,
    ) -> io::Result<()> {
        self.create_with(oid, len, true, fill)
    }

    fn create_with(
        &self,
        oid: Oid,
        len: u64,
        sync: bool,
        fill: impl FnOnce(&Object) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(oid).ok_or(ErrorKind::InvalidInput)?;
        let mut temp = Temp::new(self);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = self.open_file(&options, &temp.path)?;
        file.set_len(len)?;
        let object = Arc::new(Object { file, len, settled: AtomicBool::new(!sync) });
        fill(&object)?;
        if sync {
            object.file.sync_all()?;
        }
        let dir = path.parent().unwrap_or(&self.dir);
        self.make_dir(dir, sync)?;
        {
            let mut shard = self.shard(oid);
            fs::rename(&temp.path, &path)?;
            temp.renamed = true;
            shard.insert(oid, object.clone(), self.open_per_shard);
            if let Some(watched) = shard.watched.get_mut(&oid) {
                watched.replaced += 1;
            }
        }
        if sync {
            self.sync_dir_for_good(dir)?;
            object.settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Opens a file, if need be in the place of objects that nobody uses right now.
    fn open_file(&self, options: &OpenOptions, path: &Path) -> io::Result<File> {
        let full = |err: &io::Error| {
            [Errno::MFILE, Errno::NFILE]
                .iter()
                .any(|no| err.raw_os_error() == Some(no.raw_os_error()))
        };
        match options.open(path) {
            Err(err) if full(&err) => {
                for shard in &self.shards {
                    // Whoever opens this file may hold the lock of its own one.
                    if let Ok(mut shard) = shard.try_lock() {
                        shard.open.retain(|_, slot| !slot.object.settled.load(Ordering::Acquire));
                    }
                }
                options.open(path)
            }
            result => result,
        }
    }

    /// A file for a payload that is yet to arrive.
    pub fn spool(&self) -> Spool {
        let temp = Temp::new(self);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = self.open_file(&options, &temp.path);
        let object = |file| Object { file, len: 0, settled: AtomicBool::new(true) };
        Spool { file: file.map(object), len: 0 }
    }

    /// Overwrites a part of an object, whatever is to be stored there.
    pub fn write_data(&self, oid: Oid, object: &Object, data: Data, offset: u64) -> io::Result<()> {
        match data {
            Data::Bytes(bytes) => self.write(oid, object, bytes, offset),
            data => {
                object.store(data, offset)?;
                self.sync(oid, object)
            }
        }
    }

    /// The same as [`Store::write`] and for good, whatever the server was told about syncing.
    pub fn write_for_good(&self, object: &Object, data: &[u8], offset: u64) -> io::Result<()> {
        object.fill(data, offset)?;
        object.file.sync_data()
    }

    /// Overwrites a part of an object.
    pub fn write(&self, oid: Oid, object: &Object, data: &[u8], offset: u64) -> io::Result<()> {
        if !self.sync {
            return object.fill(data, offset);
        }
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            // One call that writes and syncs this range: cheaper than pwrite and fdatasync, and
            // not held up by what other requests wrote to the same object.
            match pwritev2(&object.file, &[IoSlice::new(rest)], at, ReadWriteFlags::DSYNC)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        self.settle(oid, object)
    }

    /// Makes what [`Object::fill`] wrote durable.
    pub fn sync(&self, oid: Oid, object: &Object) -> io::Result<()> {
        if !self.sync {
            return Ok(());
        }
        object.file.sync_data()?;
        self.settle(oid, object)
    }

    /// Sees to it that an object whose creation another request is still syncing keeps its name.
    fn settle(&self, oid: Oid, object: &Object) -> io::Result<()> {
        if !object.settled.load(Ordering::Acquire) {
            self.sync_dir(self.path(oid).as_deref().and_then(Path::parent).unwrap_or(&self.dir))?;
        }
        Ok(())
    }

    /// Keeps an eye on whatever has this name now.
    pub fn watch(&self, oid: Oid) -> Watch<'_> {
        let mut shard = self.shard(oid);
        let watched = shard.watched.entry(oid).or_default();
        watched.watches += 1;
        let replaced = watched.replaced;
        Watch { store: self, oid, replaced }
    }

    /// Removes an object; false where there was none.
    ///
    /// The name is gone at once, but a crash of the machine may bring it back, unless `durably`.
    pub fn remove(&self, oid: Oid, durably: bool) -> io::Result<bool> {
        let removed = self.remove_in(&mut self.shard(oid), oid)?;
        if removed && durably {
            self.sync_dir(self.path(oid).as_deref().and_then(Path::parent).unwrap_or(&self.dir))?;
        }
        Ok(removed)
    }

    fn remove_in(&self, shard: &mut Shard, oid: Oid) -> io::Result<bool> {
        let Some(path) = self.path(oid) else { return Ok(false) };
        shard.open.remove(&oid);
        match fs::remove_file(&path) {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// The inodes there are.
    pub fn inodes(&self) -> io::Result<Vec<Vid>> {
        self.numbers(&self.dir.join(kind_dir(OidKind::Inode)), 6, Vid::new)
    }

    /// The VDI ids that have objects of a kind other than inode.
    pub fn vids(&self, kind: OidKind) -> io::Result<Vec<Vid>> {
        self.numbers(&self.dir.join(kind_dir(kind)), 6, Vid::new)
    }

    /// The indexes that a VDI has objects of a kind at.
    pub fn indexes(&self, kind: OidKind, vid: Vid) -> io::Result<Vec<u32>> {
        self.numbers(&self.dir.join(kind_dir(kind)).join(vid.to_string()), 8, Some)
    }

    /// Removes the directory of a VDI's objects of one kind if it is empty.
    pub fn remove_dir(&self, kind: OidKind, vid: Vid) {
        let dir = self.dir.join(kind_dir(kind)).join(vid.to_string());
        let mut dirs = lock(&self.dirs);
        if fs::remove_dir(&dir).is_ok() {
            dirs.remove(&dir);
        }
    }

    /// Names in `dir` that are hexadecimal numbers of `digits` digits, as the store writes them.
    fn numbers<T>(
        &self,
        dir: &Path,
        digits: usize,
        wrap: impl Fn(u32) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let entries = match fs::read_dir(dir) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let text = name.to_str().filter(|text| text.len() == digits);
            match text.and_then(|text| u32::from_str_radix(text, 16).ok()).and_then(&wrap) {
                Some(number) => found.push(number),
                None => log::warn!("{}: not an object, ignored", dir.join(name).display()),
            }
        }
        Ok(found)
    }

    fn shard(&self, oid: Oid) -> std::sync::MutexGuard<'_, Shard> {
        // Fibonacci hashing: neighbouring indexes and VDI ids spread over the shards.
        let hash = oid.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARDS.ilog2());
        lock(&self.shards[hash as usize % SHARDS])
    }

    /// None for an object id that names nothing.
    fn path(&self, oid: Oid) -> Option<PathBuf> {
        let kind = oid.kind()?;
        let mut path = self.dir.join(kind_dir(kind));
        path.push(oid.vid().to_string());
        if kind != OidKind::Inode {
            path.push(format!("{:08x}", oid.index()));
        } else if oid.index() != 0 {
            return None;
        }
        Some(path)
    }

    /// Makes a VDI's directory exist, for good.
    fn make_dir(&self, dir: &Path, sync: bool) -> io::Result<()> {
        let mut dirs = lock(&self.dirs);
        let known = dirs.contains(dir);
        // One that was made without syncing it does not count as known for what has to stay.
        if known && (self.sync || !sync) {
            return Ok(());
        }
        match fs::create_dir(dir) {
            Err(err) if err.kind() != ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        if sync {
            self.sync_dir_for_good(dir.parent().unwrap_or(&self.dir))?;
        }
        dirs.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.sync { self.sync_dir_for_good(dir) } else { Ok(()) }
    }

    fn sync_dir_for_good(&self, dir: &Path) -> io::Result<()> {
        self.open_file(OpenOptions::new().read(true), dir)?.sync_all()
    }
}

impl Shard {
    fn insert(&mut self, oid: Oid, object: Arc<Object>, capacity: usize) {
        self.clock += 1;
        self.open.insert(oid, Slot { object, used: self.clock });
        while self.open.len() > capacity {
            // An object whose name is not settled yet stays, so that writers to it can know.
            let old = self.open.iter().filter(|(_, s)| s.object.settled.load(Ordering::Acquire));
            let Some(oid) = old.min_by_key(|(_, slot)| slot.used).map(|(&oid, _)| oid) else {
                break;
            };
            self.open.remove(&oid);
        }
    }
}

/// Removes in the background what was thrown away; what it does not finish, the next start does.
struct Reaper {
    /// None while it is being dropped.
    calls: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    fn start(trash: PathBuf) -> io::Result<Reaper> {
        let (calls, called) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            for () in called {
                if let Err(err) = empty(&trash, &stopped) {
                    log::warn!("{}: {err}", trash.display());
                }
            }
        };
        let thread = thread::Builder::new().name("lamb-reaper".into()).spawn(work)?;
        Ok(Reaper { calls: Some(calls), stop, thread: Some(thread) })
    }

    fn wake(&self) {
        if let Some(calls) = &self.calls {
            let _ = calls.send(());
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bytes on the disk of the files in a directory, as far as they stay there meanwhile.
fn used_in(dir: &Path) -> io::Result<u64> {
    let mut used = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        used += match entry.metadata() {
            Ok(meta) if meta.is_dir() => used_in(&entry.path()).unwrap_or(0),
            Ok(meta) => 512 * meta.blocks(),
            Err(_) => 0,
        };
    }
    Ok(used)
}

/// Removes what is in a directory, as far as it gets before it is stopped.
fn empty(dir: &Path, stop: &AtomicBool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if entry.file_type()?.is_dir() {
            empty(&entry.path(), stop)?;
            // Not empty where it was stopped.
            let _ = fs::remove_dir(entry.path());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Empty directories, to take the places of those of a store.
pub struct Fresh(PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        // Mostly it is not there any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file that is removed unless it is renamed away.
struct Temp {
    path: PathBuf,
    renamed: bool,
}

impl Temp {
    fn new(store: &Store) -> Temp {
        let n = store.next_temp.fetch_add(1, Ordering::Relaxed);
        Temp { path: store.dir.join(TEMP).join(n.to_string()), renamed: false }
    }

    fn keep(mut self) -> PathBuf {
        self.renamed = true;
        std::mem::take(&mut self.path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn kind_dir(kind: OidKind) -> &'static str {
    KINDS.iter().find(|(k, _)| *k == kind).map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VID: Vid = match Vid::new(0xed202b) {
        Some(vid) => vid,
        None => Vid::NONE,
    };

    fn store(open_files: usize) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), true, open_files).unwrap();
        (dir, store)
    }

    fn put(store: &Store, oid: Oid, data: &[u8]) {
        store.create(oid, 8192, |object| object.fill(data, 0)).unwrap();
    }

    fn first(store: &Store, oid: Oid) -> Option<u8> {
        let object = store.get(oid).unwrap()?;
        let mut byte = [0];
        object.read(&mut byte, 0).unwrap();
        Some(byte[0])
    }

    #[test]
    fn objects_come_and_go_under_their_names() {
        let (dir, store) = store(64);
        for (oid, name) in [
            (VID.inode(), "inode/ed202b"),
            (VID.data(7), "data/ed202b/00000007"),
            (VID.vmstate(u32::MAX), "vmstate/ed202b/ffffffff"),
            (VID.attr(1), "attr/ed202b/00000001"),
            (VID.btree(2), "btree/ed202b/00000002"),
            (VID.data(7).ledger(), "ledger/ed202b/00000007"),
        ] {
            assert_eq!(first(&store, oid), None);
            put(&store, oid, &[1]);
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().len(), 8192);
            assert_eq!(first(&store, oid), Some(1));
            assert!(store.exists(oid).unwrap());
            assert!(store.remove(oid, true).unwrap() && !store.remove(oid, true).unwrap());
            assert!(first(&store, oid).is_none() && !store.exists(oid).unwrap());
        }
    }

    #[test]
    fn an_open_object_is_never_an_old_one() {
        let (_dir, store) = store(64);
        put(&store, VID.data(0), &[1]);
        let old = store.get(VID.data(0)).unwrap().unwrap();
        put(&store, VID.data(0), &[2]);
        assert_eq!(first(&store, VID.data(0)), Some(2));
        // Whoever still has the old one is not disturbed, and disturbs nobody.
        store.write(VID.data(0), &old, &[3], 0).unwrap();
        assert_eq!(first(&store, VID.data(0)), Some(2));
    }

    #[test]
    fn a_write_sees_to_the_name_of_its_object() {
        let (dir, store) = store(64);
        let oid = VID.data(0);
        put(&store, oid, &[1]);
        let object = store.get(oid).unwrap().unwrap();
        let [names, elsewhere] =
            ["data/ed202b", "data/elsewhere"].map(|name| dir.path().join(name));
        // As long as whoever creates it has not synced its directory, writers must, and say so where
        // they cannot.
        for (settled, expected) in [(false, false), (true, true)] {
            object.settled.store(settled, Ordering::Release);
            fs::rename(&names, &elsewhere).unwrap();
            assert_eq!(store.write(oid, &object, &[2], 0).is_ok(), expected);
            assert_eq!(store.sync(oid, &object).is_ok(), expected);
            fs::rename(&elsewhere, &names).unwrap();
        }
    }

    #[test]
    fn a_creation_that_fails_leaves_nothing() {
        let (dir, store) = store(64);
        put(&store, VID.data(0), &[1]);
        let fails = |_: &Object| Err(ErrorKind::StorageFull.into());
        assert!(store.create(VID.data(0), 8192, fails).is_err());
        assert!(store.create(VID.data(1), 8192, fails).is_err());
        assert_eq!(first(&store, VID.data(0)), Some(1));
        assert_eq!(first(&store, VID.data(1)), None);
        assert_eq!(fs::read_dir(dir.path().join(TEMP)).unwrap().count(), 0);
    }

    #[test]
    fn few_objects_are_kept_open() {
        let (_dir, store) = store(SHARDS);
        (0..500).for_each(|i| put(&store, VID.data(i), &i.to_le_bytes()));
        for i in 0..500 {
            assert_eq!(first(&store, VID.data(i)), Some(i as u8));
        }
        let open: usize = store.shards.iter().map(|shard| lock(shard).open.len()).sum();
        assert!(open <= SHARDS, "{open}");
    }

    #[test]
    fn an_object_stays_open_until_its_name_is_settled() {
        let (_dir, store) = store(SHARDS);
        put(&store, VID.data(0), &[1]);
        let object = store.get(VID.data(0)).unwrap().unwrap();
        let still = || Arc::ptr_eq(&object, &store.get(VID.data(0)).unwrap().unwrap());
        object.settled.store(false, Ordering::Release);
        (1..500).for_each(|i| put(&store, VID.data(i), &[1]));
        assert!(still(), "who writes to it would not know");
        object.settled.store(true, Ordering::Release);
        (1..500).for_each(|i| put(&store, VID.data(i), &[1]));
        assert!(!still());
    }

    #[test]
    fn an_unfinished_object_is_gone_after_a_start() {
        let (dir, store) = store(64);
        drop(store);
        fs::write(dir.path().join("temp/3"), "half").unwrap();
        Store::open(dir.path(), true, 64).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(TEMP)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_thrown_away_is_gone_at_once_and_removed_in_time() {
        let (dir, store) = store(64);
        let other = Vid::new(7).unwrap();
        (0..20).for_each(|i| put(&store, VID.data(i), &[1]));
        put(&store, VID.inode(), &[1]);
        put(&store, other.data(0), &[1]);
        store.trash(OidKind::Data, VID).unwrap();
        store.trash(OidKind::Vmstate, VID).unwrap();
        assert!((0..20).all(|i| first(&store, VID.data(i)).is_none()));
        assert_eq!((first(&store, VID.inode()), first(&store, other.data(0))), (Some(1), Some(1)));
        put(&store, VID.data(0), &[2]);
        assert_eq!(first(&store, VID.data(0)), Some(2));
        store.wipe(store.prepare_wipe().unwrap()).unwrap();
        assert_eq!(first(&store, VID.data(0)), None);
        let trash = dir.path().join(TRASH);
        while fs::read_dir(&trash).unwrap().count() > 0 {
            thread::yield_now();
        }
        drop(store);
        // What is left there by a run that was stopped goes with the next.
        fs::create_dir_all(trash.join("0/deep")).unwrap();
        fs::write(trash.join("0/deep/object"), "").unwrap();
        let store = Store::open(dir.path(), true, 64).unwrap();
        put(&store, VID.data(0), &[3]);
        store.trash(OidKind::Data, VID).unwrap();
        while fs::read_dir(&trash).unwrap().count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn extents_are_what_was_written() {
        let (_dir, store) = store(64);
        let len = 1 << 20;
        store
            .create(VID.data(0), len, |object| {
                object.fill(&[1; 10], 300_000)?;
                object.fill(&[2; 10], len - 10)
            })
            .unwrap();
        let object = store.get(VID.data(0)).unwrap().unwrap();
        let mut seen = Vec::new();
        object
            .extents(100..len, |part| {
                seen.push(part);
                Ok(())
            })
            .unwrap();
        for at in [300_000, 300_009, len - 10, len - 1] {
            assert!(seen.iter().any(|part| part.contains(&at)), "{at} in {seen:?}");
        }
        assert!(seen.iter().all(|part| part.start >= 100 && part.end <= len));
        assert!(seen.windows(2).all(|w| w[0].end <= w[1].start));
    }

    #[test]
    fn a_copy_has_what_the_base_has_and_its_own_length() {
        let (_dir, store) = store(64);
        store.create(VID.data(0), 1 << 20, |object| object.fill(&[1; 5000], 500_000)).unwrap();
        let base = store.get(VID.data(0)).unwrap().unwrap();
        for (index, len) in [(1, 1 << 20), (2, 1 << 19), (3, 1 << 21)] {
            store.create(VID.data(index), len, |object| object.fill_from(&base)).unwrap();
            let copy = store.get(VID.data(index)).unwrap().unwrap();
            assert_eq!(copy.len(), len);
            let mut bytes = vec![9; len as usize];
            copy.read(&mut bytes, 0).unwrap();
            let expected = |at: usize| u8::from((500_000..505_000).contains(&at));
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at)), "{len}");
        }
    }
}
