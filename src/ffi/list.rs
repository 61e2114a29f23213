//! Lists, and the iterators that go through them.
//!
//! The functions of an iterator take no argument (spec.md), so each live iterator has function
//! addresses of its own: one out of [`POOL`] of them, compiled ahead.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Mutex;

use super::cluster::sd_t;
use super::entry::{self, Handle, Out, Owned, enter};
use crate::error::{Error, Result};
use crate::exec::lock;

/// An iterator, as spec.md has it; written out in the header by hand for its unions.
///
/// cbindgen:ignore
#[repr(C)]
pub struct sd_list_iter {
    opaque: *mut c_void,
    has_next: extern "C" fn() -> bool,
    next: extern "C" fn() -> *mut c_void,
    destroy: extern "C" fn(),
}

/// What an iterator goes through.
struct List {
    items: Items,
    next: usize,
}

enum Items {
    Names(Vec<CString>),
    /// Handles that the iterator owns, where the program gets pointers to them.
    Snapshots(Vec<Handle>),
}

impl Items {
    fn len(&self) -> usize {
        match self {
            Items::Names(names) => names.len(),
            Items::Snapshots(handles) => handles.len(),
        }
    }

    fn get(&mut self, index: usize) -> Option<*mut c_void> {
        match self {
            Items::Names(names) => Some(names.get(index)?.as_ptr().cast_mut().cast()),
            Items::Snapshots(handles) => Some((&raw mut handles.get_mut(index)?.0).cast()),
        }
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        if let Items::Snapshots(handles) = self {
            for Handle(handle) in handles {
                // Closed already where the program did that itself, or closed the sd_t.
                if let Ok(Owned::Here(handle)) = entry::remove_vdi(*handle) {
                    handle.client.close_snapshot(&handle.vdi);
                }
            }
        }
    }
}

/// How many iterators can be alive at once.
const POOL: usize = 256;

static LISTS: [Mutex<Option<List>>; POOL] = [const { Mutex::new(None) }; POOL];

extern "C" fn has_next<const N: usize>() -> bool {
    let mut result = false;
    enter(|| {
        result = lock(&LISTS[N]).as_ref().is_some_and(|list| list.next < list.items.len());
        Ok(())
    });
    result
}

extern "C" fn next<const N: usize>() -> *mut c_void {
    let mut result = std::ptr::null_mut();
    enter(|| {
        let mut slot = lock(&LISTS[N]);
        let Some(list) = slot.as_mut() else { return Ok(()) };
        if let Some(item) = list.items.get(list.next) {
            result = item;
            list.next += 1;
        }
        Ok(())
    });
    result
}

extern "C" fn destroy<const N: usize>() {
    enter(|| {
        let list = lock(&LISTS[N]).take();
        drop(list);
        Ok(())
    });
}

type Functions = (extern "C" fn() -> bool, extern "C" fn() -> *mut c_void, extern "C" fn());

/// The functions of all slots: sixteen rows of sixteen.
static FUNCTIONS: [[Functions; 16]; 16] = {
    macro_rules! row {
        ($row:literal: $($n:literal)*) => {
            [$((
                has_next::<{ $row * 16 + $n }>,
                next::<{ $row * 16 + $n }>,
                destroy::<{ $row * 16 + $n }>,
            )),*]
        };
    }
    macro_rules! rows {
        ($($row:literal)*) => { [$(row!($row: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
    }
    rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
};

const _: () = assert!(POOL == 16 * 16);

/// An iterator through `items`, in a free slot of the pool.
fn iterate(items: Items) -> Result<sd_list_iter> {
    let mut list = Some(List { items, next: 0 });
    for (slot, functions) in LISTS.iter().zip(FUNCTIONS.iter().flatten()) {
        // One that is in use, or was when this process was forked, is not free.
        let Ok(mut slot) = slot.try_lock() else { continue };
        if slot.is_none() {
            *slot = list.take();
            let (has_next, next, destroy) = *functions;
            return Ok(sd_list_iter { opaque: std::ptr::null_mut(), has_next, next, destroy });
        }
    }
    Err(Error::NoMem("256 list iterators are alive"))
}

/// Lists the names of the working VDIs, sorted, each once, as they are now.
///
/// On success `*iter` is an iterator of its own, to be used by one thread at a time: has_next()
/// tells whether next_string() has another name to give. A name belongs to the iterator and is
/// valid until destory() (or destroy(), the same function) frees it; nothing of the iterator may
/// be called after that. At least 256 iterators can be alive at once in a process; SD_RES_NO_MEM
/// past that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_vdi_list(sd: sd_t, iter: *mut sd_list_iter) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let out = unsafe { Out::new(iter)? };
        let names = client.cluster.run(async |op| client.list(op).await)?;
        let names = names.into_iter().filter_map(|name| CString::new(name).ok()).collect();
        out.set(iterate(Items::Names(names))?);
        Ok(())
    })
}

/// Lists the snapshots of the VDI `name`, in the order of their ids, as they are now.
///
/// As sd_vdi_list(), but with next_snapshot(), which gives a pointer to a handle that the iterator
/// owns: to be used, in sd_vdi_get_info() or sd_snapshot_read() for example, until destory().
///
/// Errors: SD_RES_NO_VDI (neither a working VDI nor a snapshot has the name).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sd_snapshot_list(
    sd: sd_t,
    name: *const c_char,
    iter: *mut sd_list_iter,
) -> c_int {
    enter(|| {
        let client = entry::client(sd)?;
        // SAFETY: the caller passes pointers as the header says.
        let (name, out) = unsafe { (entry::name(name)?, Out::new(iter)?) };
        let items = client.cluster.run(async |op| {
            let mut handles = Vec::new();
            let mut failed = None;
            for vdi in client.snapshots(op, name).await? {
                match entry::new_vdi(&client, op, vdi).await {
                    Ok(handle) => handles.push(handle),
                    Err(error) => failed = Some(error),
                }
            }
            // Owned from here on: an error gives them back.
            let items = Items::Snapshots(handles);
            failed.map_or(Ok(items), Err)
        })?;
        out.set(iterate(items)?);
        Ok(())
    })
}
