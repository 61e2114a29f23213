//! The one way in: handles, pointers and panics.
//!
//! Handles are numbers, never addresses: the index of a slot, and the generation of its use. What
//! a program passes is looked up, so that a handle that is stale, closed or garbage is an error.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::cluster::sd_t;
use super::program::{self, Forked};
use super::vdi::{off_t, sd_inode, sd_vdi_t};
use super::{fork, last, wake};
use crate::cluster::Op;
use crate::error::{Error, Result};
use crate::net::{self, Access};
use crate::vdi::{Client, Name, Vdi, Which};

/// Runs the body of a C function: its result as a code. No panic leaves it, nor prints anything.
pub fn enter(body: impl FnOnce() -> Result<()>) -> c_int {
    fork::prepare();
    let _uncancelled = program::Uncancelled::new();
    let outer = last::begin();
    let result = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) if payload.is::<Forked>() => Err(BAD_SD),
        Err(_) => Err(Error::Internal("panic")),
    };
    last::end(outer, result)
}

/// An open VDI, as a C program holds it.
#[derive(Clone)]
pub struct VdiHandle {
    pub client: Arc<Client>,
    pub vdi: Arc<Vdi>,
}

impl VdiHandle {
    /// The same, to read from.
    pub fn for_reading(self) -> VdiHandle {
        let vdi = self.client.to_read(self.vdi);
        VdiHandle { client: self.client, vdi }
    }
}

/// A connection, as a C program holds it.
#[derive(Clone)]
struct Connection {
    client: Arc<Client>,
    /// It is being closed, and is good for nothing but for what that needs.
    closing: bool,
}

static CLIENTS: Table<Connection> = Table::new(Kind::Client);
static VDIS: Table<VdiHandle> = Table::new(Kind::Vdi);

const BAD_SD: Error = Error::Invalid("not an open sd_t");
const BAD_VDI: Error = Error::Invalid("not an open sd_vdi_t of this sd_t");
const NULL: Error = Error::Invalid("a pointer is NULL");

pub fn new_client(client: Arc<Client>) -> Result<sd_t> {
    let bell = client.cluster.bell();
    let handle = CLIENTS.insert(Connection { client, closing: false })?;
    if let Err(error) = wake::hang(handle, bell) {
        CLIENTS.remove(handle);
        return Err(error);
    }
    Ok(handle as *mut c_void)
}

pub fn client(sd: sd_t) -> Result<Arc<Client>> {
    last::about_sd(sd as usize);
    let open = CLIENTS.get(sd as usize).filter(|connection| !connection.closing);
    Ok(open.ok_or(BAD_SD)?.client)
}

/// A client to do the work of: also of one that is being closed.
pub fn client_at_work(sd: sd_t) -> Result<Arc<Client>> {
    last::about_sd(sd as usize);
    Ok(CLIENTS.get(sd as usize).ok_or(BAD_SD)?.client)
}

/// From now on a client is being closed, and the handles of its VDIs are gone.
pub fn begin_close(sd: sd_t) -> Result<Arc<Client>> {
    let begin = |connection: &mut Connection| {
        let begins = !std::mem::replace(&mut connection.closing, true);
        begins.then(|| connection.client.clone())
    };
    let client = CLIENTS.change(sd as usize, begin).ok_or(BAD_SD)?;
    remove_vdis(&client);
    Ok(client)
}

/// Takes a client out of the table that nobody is closing, and with it the handles of its VDIs.
pub fn remove_client(sd: sd_t) -> Result<Owned<Arc<Client>>> {
    let open = CLIENTS.remove_if(sd as usize, |connection| !connection.closing);
    let client = match open.ok_or(BAD_SD)? {
        Owned::Here(connection) => Owned::Here(connection.client),
        Owned::ByParent(connection) => Owned::ByParent(connection.client),
    };
    wake::take_down(sd as usize);
    let (Owned::Here(the) | Owned::ByParent(the)) = &client;
    remove_vdis(the);
    Ok(client)
}

/// Takes a client out of the table whose close has come to its end.
pub fn forget_client(sd: sd_t) {
    CLIENTS.remove(sd as usize);
    wake::take_down(sd as usize);
}

/// Takes the handles of a client's VDIs out of the table.
pub fn remove_vdis(client: &Arc<Client>) {
    VDIS.remove_all(|handle| Arc::ptr_eq(&handle.client, client));
}

/// A handle that is to be given to the program.
#[repr(transparent)]
pub struct Handle(pub sd_vdi_t);

// SAFETY: a handle is a number, never followed as a pointer.
unsafe impl Send for Handle {}

/// A handle of a VDI that was opened. Where there can be none, the VDI is closed again.
pub async fn new_vdi(client: &Arc<Client>, op: &Op, vdi: Arc<Vdi>) -> Result<Handle> {
    let handle = match VDIS.insert(VdiHandle { client: client.clone(), vdi: vdi.clone() }) {
        Ok(handle) => handle,
        Err(error) => {
            let _ = client.close(op, vdi).await;
            return Err(error);
        }
    };
    // A close that has looked at the table before sees to the VDI, and looks at the table again.
    if client.cluster.is_closing() {
        VDIS.remove(handle);
        return Err(Error::Canceled);
    }
    Ok(Handle(handle as *mut sd_inode))
}

/// Gives the program a handle where it wants one, unless `sd` was closed since.
pub fn give(handle: Option<Handle>, out: Option<Out<sd_vdi_t>>) -> Result<()> {
    if let (Some(Handle(handle)), Some(out)) = (handle, out) {
        VDIS.get(handle as usize).ok_or(Error::Canceled)?;
        out.set(handle);
    }
    Ok(())
}

/// A VDI handle that belongs to `sd`.
pub fn vdi(sd: sd_t, vdi: sd_vdi_t) -> Result<VdiHandle> {
    let client = client(sd)?;
    last::about_vdi(vdi as usize);
    let handle = VDIS.get(vdi as usize).ok_or(BAD_VDI)?;
    if Arc::ptr_eq(&handle.client, &client) { Ok(handle) } else { Err(BAD_VDI) }
}

/// As [`vdi`], to read from.
pub fn readable(sd: sd_t, vdi: sd_vdi_t) -> Result<VdiHandle> {
    self::vdi(sd, vdi).map(VdiHandle::for_reading)
}

/// A VDI handle of any `sd_t`, and which that is.
pub fn any_vdi(vdi: sd_vdi_t) -> Result<(VdiHandle, sd_t)> {
    last::about_vdi(vdi as usize);
    let handle = VDIS.get(vdi as usize).ok_or(BAD_VDI)?;
    let sd = CLIENTS
        .find(|connection| Arc::ptr_eq(&connection.client, &handle.client))
        .ok_or(BAD_VDI)?;
    Ok((handle, sd as sd_t))
}

/// For the words of an error: the name of a handle's VDI.
pub fn name_of(vdi: usize) -> Option<String> {
    let handle = VDIS.get(vdi)?;
    Some(handle.vdi.name().to_string())
}

/// For the words of an error: the client of an `sd_t`.
pub fn client_of(sd: usize) -> Option<Arc<Client>> {
    CLIENTS.get(sd).map(|connection| connection.client)
}

/// For the words of an error: the client of a VDI handle.
pub fn client_of_vdi(vdi: usize) -> Option<Arc<Client>> {
    VDIS.get(vdi).map(|handle| handle.client)
}

pub fn remove_vdi(vdi: sd_vdi_t) -> Result<Owned<VdiHandle>> {
    VDIS.remove(vdi as usize).ok_or(BAD_VDI)
}

/// A string argument; NULL is an error.
///
/// # Safety
/// `text` is NULL or a C string that stays as it is for the call.
pub unsafe fn text<'a>(text: *const c_char) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(NULL);
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A VDI name.
///
/// # Safety
/// As [`text`].
pub unsafe fn name(name: *const c_char) -> Result<Name> {
    last::about_name(name);
    // SAFETY: as the caller promises.
    Name::new(unsafe { text(name) }?)
}

/// A snapshot's tag.
///
/// # Safety
/// As [`text`].
pub unsafe fn tag<'a>(tag: *const c_char) -> Result<&'a [u8]> {
    last::about_snapshot(tag, 0);
    // SAFETY: as the caller promises.
    unsafe { text(tag) }
}

/// Which snapshot: by its tag where that is neither NULL nor "", else by its id. None where the
/// program names neither.
///
/// # Safety
/// `tag` is NULL or a C string that stays as it is for the call.
pub unsafe fn which(tag: *const c_char, idx: c_int) -> Result<Option<Which>> {
    last::about_snapshot(tag, idx);
    // SAFETY: as the caller promises.
    let tag = if tag.is_null() { &[] } else { unsafe { text(tag)? } };
    if tag.is_empty() && idx == 0 {
        return Ok(None);
    }
    let idx = if tag.is_empty() { idx } else { 0 };
    let idx = u32::try_from(idx).map_err(|_| Error::Invalid("the snapshot id is negative"))?;
    Which::snapshot(tag, idx).map(Some)
}

/// Where a result goes, once there is one.
pub struct Out<T>(*mut T);

// SAFETY: the program lends the place until it is told of the result, and one thread writes to it.
unsafe impl<T> Send for Out<T> {}

impl<T> Out<T> {
    /// # Safety
    /// `to` is NULL or may be written to for the call, or until its callback.
    pub unsafe fn new(to: *mut T) -> Result<Out<T>> {
        // SAFETY: as the caller promises.
        unsafe { Out::optional(to) }.ok_or(NULL)
    }

    /// # Safety
    /// As [`Out::new`].
    pub unsafe fn optional(to: *mut T) -> Option<Out<T>> {
        (!to.is_null()).then_some(Out(to))
    }

    pub fn set(self, value: T) {
        // SAFETY: not NULL, and writable: the promise given to `new`. Written without reading,
        // since it may be uninitialised.
        unsafe { self.0.write(value) }
    }
}

/// The bytes of a structure of options that grows at its end: what the program's version of it lacks
/// is 0, and what it has beyond ours must be. NULL is all zeros.
///
/// # Safety
/// `opts` is NULL or points to `len` bytes.
pub unsafe fn options<const KNOWN: usize>(opts: *const c_void, len: usize) -> Result<[u8; KNOWN]> {
    let mut bytes = [0u8; KNOWN];
    if opts.is_null() {
        return Ok(bytes);
    }
    // SAFETY: `len` bytes are there, as the caller promises.
    let given = unsafe { std::slice::from_raw_parts(opts.cast::<u8>(), len) };
    if len > KNOWN && given[KNOWN..].iter().any(|b| *b != 0) {
        return Err(Error::Invalid("an option of a later version of the library"));
    }
    let len = len.min(KNOWN);
    bytes[..len].copy_from_slice(&given[..len]);
    Ok(bytes)
}

/// A byte offset argument.
pub fn offset(offset: off_t) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Error::Invalid("the offset is negative"))
}

/// Checks an argument pair that names a buffer; with length 0 the pointer does not matter.
pub fn check_buffer(base: *const c_void, len: usize) -> Result<()> {
    if base.is_null() && len > 0 {
        return Err(NULL);
    }
    if isize::try_from(len).is_err() {
        return Err(Error::Invalid("the length is more than memory can hold"));
    }
    Ok(())
}

/// Checks a buffer that is sent from: as [`check_buffer`]; and of a program that has lent memory
/// before which is not there, that a large one is.
///
/// A kernel that finds out while it sends has sent a part by then, and the connection must end, which
/// others notice: once, and not each time. A page or two is sent at once or not at all.
pub fn check_readable(base: *const c_void, len: usize) -> Result<()> {
    check_there(base, len, Access::Read)
}

/// Checks a buffer that is received into: as [`check_readable`].
pub fn check_writable(base: *const c_void, len: usize) -> Result<()> {
    check_there(base, len, Access::Write)
}

fn check_there(base: *const c_void, len: usize, access: Access) -> Result<()> {
    check_buffer(base, len)?;
    let look = len >= LARGE && net::is_suspect();
    if !look || net::is_there(base.cast(), len, access) { Ok(()) } else { Err(Error::Fault) }
}

/// Bytes of a buffer that is worth a system call.
const LARGE: usize = 64 * 1024;

/// The buffers of a vectored call, checked by `check`: their addresses and lengths.
///
/// # Safety
/// `iov` is NULL or points to `iovcnt` of them, which stay as they are for the call.
pub unsafe fn iovecs<'a>(
    iov: *const libc::iovec,
    iovcnt: c_int,
    check: impl Fn(*const c_void, usize) -> Result<()>,
) -> Result<impl Iterator<Item = (*mut u8, usize)> + 'a> {
    let count = usize::try_from(iovcnt).map_err(|_| Error::Invalid("iovcnt is negative"))?;
    let iovecs = match count {
        0 => &[],
        _ if iov.is_null() => return Err(NULL),
        // SAFETY: not NULL, and `count` long as the caller promises.
        count => unsafe { std::slice::from_raw_parts(iov, count) },
    };
    let mut total = 0usize;
    for iovec in iovecs {
        check(iovec.iov_base, iovec.iov_len)?;
        total = total.checked_add(iovec.iov_len).ok_or(Error::Invalid("the length"))?;
    }
    if isize::try_from(total).is_err() {
        return Err(Error::Invalid("the length is more than memory can hold"));
    }
    Ok(iovecs.iter().map(|iovec| (iovec.iov_base.cast(), iovec.iov_len)))
}

/// The tables of handles, for the time of a fork.
pub struct Held {
    _clients: RwLockWriteGuard<'static, Slots<Connection>>,
    _vdis: RwLockWriteGuard<'static, Slots<VdiHandle>>,
}

pub fn hold() -> Held {
    Held { _clients: CLIENTS.write(), _vdis: VDIS.write() }
}

/// What a handle stood for, and whose it is.
pub enum Owned<T> {
    Here(T),
    /// A copy, which this process got when it was forked: good for nothing but to be freed.
    ByParent(T),
}

#[derive(Clone, Copy)]
enum Kind {
    Client = 1,
    Vdi = 3,
}

/// Handle numbers: `generation | index | kind`. The kinds are odd, so that no number is the
/// address of an object that a program could mistake for a handle, nor NULL.
const KIND_BITS: u32 = 2;
pub const INDEX_BITS: u32 = if usize::BITS == 64 { 24 } else { 12 };

/// The index of the slot that a handle names.
pub fn index_of(handle: usize) -> usize {
    handle >> KIND_BITS & ((1 << INDEX_BITS) - 1)
}

struct Table<T> {
    kind: Kind,
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

struct Slot<T> {
    generation: usize,
    /// The process that the handle is of.
    process: u32,
    value: Option<T>,
}

impl<T: Clone> Table<T> {
    const fn new(kind: Kind) -> Table<T> {
        let slots = RwLock::new(Slots { slots: Vec::new(), free: Vec::new() });
        Table { kind, slots }
    }

    fn insert(&self, value: T) -> Result<usize> {
        let mut table = self.write();
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() >= 1 << INDEX_BITS => {
                return Err(Error::NoMem("too many open handles"));
            }
            None => {
                table.slots.push(Slot { generation: 0, process: 0, value: None });
                table.slots.len() - 1
            }
        };
        let slot = &mut table.slots[index];
        slot.generation = (slot.generation + 1) & (usize::MAX >> (INDEX_BITS + KIND_BITS));
        slot.generation = slot.generation.max(1);
        slot.process = fork::process();
        slot.value = Some(value);
        Ok(self.number(index, slot.generation))
    }

    /// The slot that a handle names, if it is one of this table's.
    fn locate(&self, handle: usize) -> Option<(usize, usize)> {
        let index = index_of(handle);
        let kind = handle & ((1 << KIND_BITS) - 1);
        (kind == self.kind as usize).then_some((index, handle >> (INDEX_BITS + KIND_BITS)))
    }

    fn get(&self, handle: usize) -> Option<T> {
        let (index, generation) = self.locate(handle)?;
        let table = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = table.slots.get(index)?;
        let is_it = slot.generation == generation && slot.process == fork::process();
        if is_it { slot.value.clone() } else { None }
    }

    /// The handle of a value.
    fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let table = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let is_it = |slot: &Slot<T>| slot.value.as_ref().is_some_and(&is_it);
        let index = table.slots.iter().position(is_it)?;
        Some(self.number(index, table.slots[index].generation))
    }

    fn number(&self, index: usize, generation: usize) -> usize {
        generation << (INDEX_BITS + KIND_BITS) | index << KIND_BITS | self.kind as usize
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots<T>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `change` makes of a value of this process.
    fn change<R>(&self, handle: usize, change: impl FnOnce(&mut T) -> Option<R>) -> Option<R> {
        let (index, generation) = self.locate(handle)?;
        let mut table = self.write();
        let slot = table.slots.get_mut(index)?;
        let is_it = slot.generation == generation && slot.process == fork::process();
        if is_it { slot.value.as_mut().and_then(change) } else { None }
    }

    fn remove(&self, handle: usize) -> Option<Owned<T>> {
        self.remove_if(handle, |_| true)
    }

    /// `condition`: of a value of this process.
    fn remove_if(&self, handle: usize, condition: impl FnOnce(&T) -> bool) -> Option<Owned<T>> {
        let (index, generation) = self.locate(handle)?;
        let mut table = self.write();
        let slot = table.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        let here = slot.process == fork::process();
        let value = slot.value.take_if(|value| !here || condition(value))?;
        table.free.push(index);
        Some(if here { Owned::Here(value) } else { Owned::ByParent(value) })
    }

    fn remove_all(&self, doomed: impl Fn(&T) -> bool) {
        let mut removed = Vec::new();
        {
            let mut table = self.write();
            let Slots { slots, free } = &mut *table;
            for (index, slot) in slots.iter_mut().enumerate() {
                if slot.value.as_ref().is_some_and(&doomed) {
                    removed.extend(slot.value.take());
                    free.push(index);
                }
            }
        }
        // Dropped without the lock.
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_handles_of_the_right_kind_are_found() {
        let clients: Table<u32> = Table::new(Kind::Client);
        let vdis: Table<u32> = Table::new(Kind::Vdi);
        let (a, b) = (clients.insert(1).unwrap(), vdis.insert(2).unwrap());
        assert_eq!((clients.get(a), vdis.get(b)), (Some(1), Some(2)));
        assert_eq!((clients.get(b), vdis.get(a)), (None, None));
        for garbage in [0, 1, 2, 3, 4, usize::MAX, a ^ 1 << 30, a + 4, &raw const a as usize] {
            assert_eq!(clients.get(garbage), None, "{garbage:#x}");
        }
        assert!(matches!(clients.remove(a), Some(Owned::Here(1))));
        assert!(clients.get(a).is_none() && clients.remove(a).is_none());
        let again = clients.insert(3).unwrap();
        assert_ne!(again, a, "a slot is used again under another number");
        assert_eq!((clients.get(a), clients.get(again)), (None, Some(3)));
    }

    #[test]
    fn a_panic_becomes_a_result() {
        assert_eq!(enter(|| panic!("expected by this test")), 6);
    }
}
