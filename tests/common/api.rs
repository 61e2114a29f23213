//! The C functions of the library, as a Rust test calls them.
//!
//! Only types are translated: whatever a function returns reaches the test, and no handle is
//! closed unless the test does it.

// The only way to the C functions.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::ptr::{null, null_mut};

// The symbols below are this crate's.
use sheepdog as _;

/// A result other than SD_RES_SUCCESS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub c_int);

pub type Result<T = ()> = std::result::Result<T, Code>;

impl Code {
    pub const NO_OBJ: Code = Code(2);
    pub const VDI_EXIST: Code = Code(4);
    pub const INVALID_PARMS: Code = Code(5);
    pub const VDI_LOCKED: Code = Code(7);
    pub const NO_VDI: Code = Code(8);
    pub const NO_TAG: Code = Code(14);
    pub const READONLY: Code = Code(26);
    pub const TIMEDOUT: Code = Code(0x100);
    pub const CANCELED: Code = Code(0x101);
    pub const BUFFER_SMALL: Code = Code(136);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the function takes any number and returns a constant C string.
        let text = unsafe { CStr::from_ptr(sd_strerror(self.0)) };
        write!(f, "{:#x} ({})", self.0, text.to_string_lossy())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An `sd_vdi_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vdi(*mut c_void);

/// An `sd_t`, closed when dropped.
pub struct Sd(*mut c_void);

// SAFETY: handles are numbers; every call may be made from every thread (sheepdog.h).
unsafe impl Send for Vdi {}
// SAFETY: as above.
unsafe impl Sync for Vdi {}
// SAFETY: as above.
unsafe impl Send for Sd {}
// SAFETY: as above.
unsafe impl Sync for Sd {}

/// What a VDI is, as far as the tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    pub name: String,
    pub tag: String,
    pub size: u64,
    pub object_size: u64,
    pub allocated: u64,
    pub snap_id: u32,
    pub is_snapshot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    Hole,
    Allocated,
    Shared,
}

fn check(code: c_int) -> Result {
    if code == 0 { Ok(()) } else { Err(Code(code)) }
}

/// Calls a C function.
macro_rules! sd {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: handles and numbers may have any value; all pointers here are to C strings,
        // buffers of the length beside them, or room for a result, and live as long as the call.
        check(unsafe { $function($($argument),*) })
    };
}

fn c(text: &str) -> CString {
    CString::new(text).expect("a string without NUL")
}

/// Calls with room for a handle, or with NULL.
fn opening(open: bool, call: impl FnOnce(*mut *mut c_void) -> Result) -> Result<Option<Vdi>> {
    let mut vdi = null_mut();
    call(if open { &raw mut vdi } else { null_mut() })?;
    Ok(open.then_some(Vdi(vdi)))
}

/// Lets the library set its panic hook, which says nothing on stderr, and takes it away again:
/// here it would hide the panics of the test, since both share one standard library.
fn keep_panics_loud() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        // SAFETY: NULL is refused.
        unsafe { sd_close(null_mut()) };
        std::panic::set_hook(hook);
    });
}

/// Why this thread's last call failed.
pub fn last_error() -> String {
    // SAFETY: a C string that stays for the moment.
    unsafe { CStr::from_ptr(sd_last_error()) }.to_string_lossy().into_owned()
}

impl Sd {
    pub fn connect(address: &str) -> Result<Sd> {
        keep_panics_loud();
        let mut sd = null_mut();
        sd!(sd_init(c(address).as_ptr(), &mut sd))?;
        Ok(Sd(sd))
    }

    /// What dropping it does, with its result.
    pub fn disconnect(self) -> Result {
        let mut sd = std::mem::ManuallyDrop::new(self).0;
        sd!(sd_close(&mut sd))
    }

    /// Milliseconds; 0: none.
    pub fn set_timeout(&self, ms: u32) {
        // SAFETY: a handle and a number.
        unsafe { sd_set_timeout(self.0, ms) };
    }

    /// `object_size` None: by sd_vdi_create(), as the cluster has it.
    pub fn create(
        &self,
        name: &str,
        size: u64,
        object_size: Option<u64>,
        prealloc: bool,
        open: bool,
    ) -> Result<Option<Vdi>> {
        let (name, size) = (c(name), size as usize);
        let Some(object_size) = object_size else {
            return opening(open, |vdi| {
                sd!(sd_vdi_create(self.0, name.as_ptr(), size, 0, prealloc, vdi))
            });
        };
        let options = CreateOpts { object_size, prealloc, ..CreateOpts::default() };
        opening(open, |vdi| {
            sd!(sd_vdi_create_ex(self.0, name.as_ptr(), size, &options, size_of_val(&options), vdi))
        })
    }

    pub fn create_with_copies(&self, name: &str, size: u64, copies: c_int) -> Result<Vdi> {
        let (name, size) = (c(name), size as usize);
        let vdi = opening(true, |vdi| {
            sd!(sd_vdi_create(self.0, name.as_ptr(), size, copies, false, vdi))
        });
        vdi.map(|vdi| vdi.expect("a handle"))
    }

    pub fn create_hypervolume(&self, name: &str, size: u64) -> Result<Vdi> {
        let (name, size) = (c(name), size as usize);
        let options = CreateOpts { hypervolume: true, ..CreateOpts::default() };
        let vdi = opening(true, |vdi| {
            sd!(sd_vdi_create_ex(self.0, name.as_ptr(), size, &options, size_of_val(&options), vdi))
        });
        vdi.map(|vdi| vdi.expect("a handle"))
    }

    pub fn open(&self, name: &str) -> Result<Vdi> {
        let mut vdi = null_mut();
        sd!(sd_vdi_open(self.0, c(name).as_ptr(), &mut vdi))?;
        Ok(Vdi(vdi))
    }

    pub fn close(&self, vdi: Vdi) -> Result {
        let mut vdi = vdi.0;
        sd!(sd_vdi_close(&mut vdi))?;
        assert!(vdi.is_null(), "sd_vdi_close() sets the handle to NULL");
        Ok(())
    }

    pub fn read(&self, vdi: Vdi, data: &mut [u8], offset: u64) -> Result {
        let (base, len) = (data.as_mut_ptr().cast(), data.len());
        sd!(sd_vdi_read(self.0, vdi.0, base, len, offset as i64))
    }

    pub fn snapshot_read(&self, vdi: Vdi, data: &mut [u8], offset: u64) -> Result {
        let (base, len) = (data.as_mut_ptr().cast(), data.len());
        sd!(sd_snapshot_read(self.0, vdi.0, base, len, offset as i64))
    }

    pub fn readv(&self, vdi: Vdi, data: &mut [IoSliceMut<'_>], offset: u64) -> Result {
        let (iov, count) = (data.as_mut_ptr().cast(), data.len() as c_int);
        sd!(sd_vdi_readv(self.0, vdi.0, iov, count, offset as i64))
    }

    pub fn write(&self, vdi: Vdi, data: &[u8], offset: u64, flag: c_int) -> Result {
        let (base, len) = (data.as_ptr().cast(), data.len());
        sd!(sd_vdi_write(self.0, vdi.0, base, len, offset as i64, flag))
    }

    pub fn writev(&self, vdi: Vdi, data: &[IoSlice<'_>], offset: u64, flag: c_int) -> Result {
        let (iov, count) = (data.as_ptr().cast(), data.len() as c_int);
        sd!(sd_vdi_writev(self.0, vdi.0, iov, count, offset as i64, flag))
    }

    pub fn discard(&self, vdi: Vdi, offset: u64, len: u64) -> Result {
        sd!(sd_vdi_discard(self.0, vdi.0, offset as i64, len as usize))
    }

    pub fn write_zeroes(&self, vdi: Vdi, offset: u64, len: u64, flag: c_int) -> Result {
        sd!(sd_vdi_write_zeroes(self.0, vdi.0, offset as i64, len as usize, flag))
    }

    pub fn resize(&self, vdi: Vdi, size: u64) -> Result {
        sd!(sd_vdi_resize(self.0, vdi.0, size as usize))
    }

    pub fn flush(&self, vdi: Vdi) -> Result {
        sd!(sd_vdi_flush(self.0, vdi.0))
    }

    pub fn refresh(&self, vdi: Vdi) -> Result {
        sd!(sd_vdi_refresh(self.0, vdi.0))
    }

    pub fn delete(&self, name: &str) -> Result {
        sd!(sd_vdi_delete(self.0, c(name).as_ptr()))
    }

    /// The extents, as (offset, length, kind).
    pub fn block_status(&self, vdi: Vdi, offset: u64, len: u64) -> Result<Vec<(u64, u64, Extent)>> {
        extern "C" fn push(offset: i64, len: usize, status: c_int, to: *mut c_void) -> c_int {
            let kind = [Extent::Hole, Extent::Allocated, Extent::Shared][status as usize];
            // SAFETY: the vector below, which nobody else touches during the call.
            let extents = unsafe { &mut *to.cast::<Vec<(u64, u64, Extent)>>() };
            extents.push((offset as u64, len as u64, kind));
            0
        }
        let mut extents = Vec::new();
        let to = (&raw mut extents).cast();
        sd!(sd_vdi_block_status(self.0, vdi.0, offset as i64, len as usize, push, to))?;
        Ok(extents)
    }

    pub fn info(&self, vdi: Vdi) -> Result<Info> {
        let mut info = VdiInfo::default();
        sd!(sd_vdi_get_info(vdi.0, &mut info, size_of::<VdiInfo>()))?;
        let text = |field: &[u8; 256]| {
            let text = CStr::from_bytes_until_nul(field).expect("a NUL-terminated field");
            text.to_str().expect("UTF-8, as the test has written it").to_owned()
        };
        Ok(Info {
            name: text(&info.name.0),
            tag: text(&info.tag.0),
            size: info.size,
            object_size: info.object_size,
            allocated: info.allocated,
            snap_id: info.snap_id,
            is_snapshot: info.is_snapshot,
        })
    }

    pub fn set_attr(&self, name: &str, key: &str, value: &[u8]) -> Result {
        let (base, len) = (value.as_ptr().cast(), value.len());
        sd!(sd_vdi_setattr(self.0, c(name).as_ptr(), c(key).as_ptr(), base, len))
    }

    pub fn get_attr(&self, name: &str, key: &str, room: &mut [u8]) -> Result {
        let (base, len) = (room.as_mut_ptr().cast(), room.len());
        sd!(sd_vdi_getattr(self.0, c(name).as_ptr(), c(key).as_ptr(), base, len))
    }

    pub fn attr_size(&self, name: &str, key: &str) -> Result<usize> {
        let mut size = 0;
        sd!(sd_vdi_attr_size(self.0, c(name).as_ptr(), c(key).as_ptr(), &mut size))?;
        Ok(size)
    }

    pub fn delete_attr(&self, name: &str, key: &str) -> Result {
        sd!(sd_vdi_delattr(self.0, c(name).as_ptr(), c(key).as_ptr()))
    }

    pub fn snapshot(&self, vdi: Vdi, tag: &str, open: bool) -> Result<Option<Vdi>> {
        let tag = c(tag);
        opening(open, |to| sd!(sd_snapshot_create(self.0, vdi.0, tag.as_ptr(), to)))
    }

    pub fn open_snapshot(&self, name: &str, which: Which<'_>) -> Result<Vdi> {
        let mut vdi = null_mut();
        which
            .with(|tag, idx| sd!(sd_snapshot_open(self.0, c(name).as_ptr(), tag, idx, &mut vdi)))?;
        Ok(Vdi(vdi))
    }

    pub fn rollback(&self, snapshot: Vdi) -> Result {
        sd!(sd_snapshot_rollback(self.0, snapshot.0))
    }

    pub fn delete_snapshot(&self, name: &str, which: Which<'_>) -> Result {
        which.with(|tag, idx| sd!(sd_snapshot_delete(self.0, c(name).as_ptr(), tag, idx)))
    }

    pub fn clone_vdi(
        &self,
        source: Vdi,
        to: &str,
        which: Which<'_>,
        open: bool,
    ) -> Result<Option<Vdi>> {
        let to = c(to);
        which.with(|tag, idx| {
            opening(open, |vdi| sd!(sd_vdi_clone(self.0, source.0, to.as_ptr(), tag, idx, 0, vdi)))
        })
    }

    pub fn list(&self) -> Result<Vec<String>> {
        let mut iter = ListIter::empty();
        sd!(sd_vdi_list(self.0, &mut iter))?;
        let names = iter.map(|name| {
            // SAFETY: an iterator of names gives C strings, which live until it is destroyed.
            unsafe { CStr::from_ptr(name.cast()) }.to_string_lossy().into_owned()
        });
        Ok(names)
    }

    /// Calls `each` with the handle of each snapshot, which is valid until it returns.
    pub fn snapshots<T>(&self, name: &str, mut each: impl FnMut(Vdi) -> T) -> Result<Vec<T>> {
        let mut iter = ListIter::empty();
        sd!(sd_snapshot_list(self.0, c(name).as_ptr(), &mut iter))?;
        // SAFETY: an iterator of snapshots gives pointers to handles.
        Ok(iter.map(|handle| each(Vdi(unsafe { *handle.cast::<*mut c_void>() }))))
    }
}

impl Drop for Sd {
    fn drop(&mut self) {
        // SAFETY: the pointer to the handle is valid.
        unsafe { sd_close(&mut self.0) };
    }
}

/// The tag and the id of a snapshot, as a function takes them.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    Tag(&'a str),
    Id(u32),
    /// Neither.
    Handle,
}

impl Which<'_> {
    fn with<T>(self, call: impl FnOnce(*const c_char, c_int) -> T) -> T {
        match self {
            Which::Tag(tag) => call(c(tag).as_ptr(), 0),
            Which::Id(id) => call(null(), id as c_int),
            Which::Handle => call(c"".as_ptr(), 0),
        }
    }
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Tag(tag) => write!(f, "tag {tag}"),
            Which::Id(id) => write!(f, "id {id}"),
            Which::Handle => write!(f, "no tag or id"),
        }
    }
}

#[repr(C)]
struct ListIter {
    opaque: *mut c_void,
    has_next: Option<extern "C" fn() -> bool>,
    next: Option<extern "C" fn() -> *mut c_void>,
    destroy: Option<extern "C" fn()>,
}

impl ListIter {
    fn empty() -> ListIter {
        ListIter { opaque: null_mut(), has_next: None, next: None, destroy: None }
    }

    fn map<T>(self, mut each: impl FnMut(*mut c_void) -> T) -> Vec<T> {
        let (has_next, next) = (self.has_next.unwrap(), self.next.unwrap());
        let mut items = Vec::new();
        while has_next() {
            items.push(each(next()));
        }
        assert!(next().is_null(), "an iterator past its end gives NULL");
        (self.destroy.unwrap())();
        items
    }
}

#[repr(C)]
#[derive(Default)]
struct CreateOpts {
    object_size: u64,
    copies: u8,
    ec_data: u8,
    ec_parity: u8,
    prealloc: bool,
    hypervolume: bool,
    reserved: [u8; 3],
}

#[repr(C)]
#[derive(Default)]
struct VdiInfo {
    name: Field,
    tag: Field,
    size: u64,
    object_size: u64,
    allocated: u64,
    create_time_ns: u64,
    snap_time_ns: u64,
    vdi_id: u32,
    parent_vdi_id: u32,
    snap_id: u32,
    copies: u8,
    copy_policy: u8,
    store_policy: u8,
    is_snapshot: bool,
}

#[repr(C)]
struct Field([u8; 256]);

impl Default for Field {
    fn default() -> Field {
        Field([0; 256])
    }
}

type ExtentFn = extern "C" fn(i64, usize, c_int, *mut c_void) -> c_int;
type Handle = *mut c_void;
type Text = *const c_char;

unsafe extern "C" {
    fn sd_strerror(result: c_int) -> Text;
    fn sd_last_error() -> Text;
    fn sd_init(addr: Text, sd: *mut Handle) -> c_int;
    fn sd_close(sd: *mut Handle) -> c_int;
    fn sd_set_timeout(sd: Handle, ms: u32) -> c_int;
    fn sd_vdi_create(
        sd: Handle,
        name: Text,
        size: usize,
        copies: c_int,
        prealloc: bool,
        vdi: *mut Handle,
    ) -> c_int;
    fn sd_vdi_create_ex(
        sd: Handle,
        name: Text,
        size: usize,
        opts: *const CreateOpts,
        sizeof_opts: usize,
        vdi: *mut Handle,
    ) -> c_int;
    fn sd_vdi_open(sd: Handle, name: Text, vdi: *mut Handle) -> c_int;
    fn sd_vdi_close(vdi: *mut Handle) -> c_int;
    fn sd_vdi_read(sd: Handle, vdi: Handle, to: *mut c_void, size: usize, offset: i64) -> c_int;
    fn sd_snapshot_read(
        sd: Handle,
        vdi: Handle,
        to: *mut c_void,
        size: usize,
        offset: i64,
    ) -> c_int;
    fn sd_vdi_readv(sd: Handle, vdi: Handle, iov: *const c_void, count: c_int, at: i64) -> c_int;
    fn sd_vdi_write(
        sd: Handle,
        vdi: Handle,
        data: *const c_void,
        size: usize,
        offset: i64,
        flag: c_int,
    ) -> c_int;
    fn sd_vdi_writev(
        sd: Handle,
        vdi: Handle,
        iov: *const c_void,
        count: c_int,
        offset: i64,
        flag: c_int,
    ) -> c_int;
    fn sd_vdi_discard(sd: Handle, vdi: Handle, offset: i64, len: usize) -> c_int;
    fn sd_vdi_write_zeroes(sd: Handle, vdi: Handle, at: i64, len: usize, flag: c_int) -> c_int;
    fn sd_vdi_resize(sd: Handle, vdi: Handle, size: usize) -> c_int;
    fn sd_vdi_flush(sd: Handle, vdi: Handle) -> c_int;
    fn sd_vdi_refresh(sd: Handle, vdi: Handle) -> c_int;
    fn sd_vdi_delete(sd: Handle, name: Text) -> c_int;
    fn sd_vdi_block_status(
        sd: Handle,
        vdi: Handle,
        offset: i64,
        len: usize,
        each: ExtentFn,
        opaque: *mut c_void,
    ) -> c_int;
    fn sd_vdi_get_info(vdi: Handle, info: *mut VdiInfo, sizeof_info: usize) -> c_int;
    fn sd_vdi_setattr(sd: Handle, name: Text, key: Text, value: *const c_void, len: usize)
    -> c_int;
    fn sd_vdi_getattr(sd: Handle, name: Text, key: Text, to: *mut c_void, len: usize) -> c_int;
    fn sd_vdi_attr_size(sd: Handle, name: Text, key: Text, size: *mut usize) -> c_int;
    fn sd_vdi_delattr(sd: Handle, name: Text, key: Text) -> c_int;
    fn sd_snapshot_create(sd: Handle, vdi: Handle, tag: Text, snap_vdi: *mut Handle) -> c_int;
    fn sd_snapshot_open(
        sd: Handle,
        name: Text,
        tag: Text,
        idx: c_int,
        snap_vdi: *mut Handle,
    ) -> c_int;
    fn sd_snapshot_rollback(sd: Handle, vdi: Handle) -> c_int;
    fn sd_snapshot_delete(sd: Handle, name: Text, tag: Text, idx: c_int) -> c_int;
    fn sd_vdi_clone(
        sd: Handle,
        source: Handle,
        name: Text,
        tag: Text,
        idx: c_int,
        copies: c_int,
        vdi: *mut Handle,
    ) -> c_int;
    fn sd_vdi_list(sd: Handle, iter: *mut ListIter) -> c_int;
    fn sd_snapshot_list(sd: Handle, name: Text, iter: *mut ListIter) -> c_int;
}
