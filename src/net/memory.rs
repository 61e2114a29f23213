//! Whether memory that a program lends is there.

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The program has lent memory that was not there.
static SUSPECT: AtomicBool = AtomicBool::new(false);

pub(super) fn suspect() {
    SUSPECT.store(true, Ordering::Relaxed);
}

/// Whether memory of the program's is worth to be looked at: only once some of it was not there.
/// To look costs a tenth of the time that it takes to send it.
pub fn is_suspect() -> bool {
    SUSPECT.load(Ordering::Relaxed)
}

/// What the memory is to be used for.
#[derive(Clone, Copy)]
pub enum Access {
    Read,
    Write,
}

/// Whether `len` bytes at `base` are there, as far as this kernel tells: from Linux 5.14 on. Addresses
/// that are not mapped are not, nor pages of a file past its end.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn is_there(base: *const u8, len: usize, access: Access) -> bool {
    // MADV_POPULATE_READ and _WRITE: touches each page, and tells instead of a signal.
    let advice = match access {
        Access::Read => 22,
        Access::Write => 23,
    };
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1);
    let skip = base.addr() % page;
    let Some(whole) = len.checked_add(skip) else { return false };
    let start = base.wrapping_sub(skip).cast_mut();
    // SAFETY: changes no memory, whatever is there.
    let result = unsafe { libc::madvise(start.cast(), whole, advice) };
    if result == 0 {
        return true;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EFAULT | libc::ENOMEM) => false,
        // Memory that must not be used so; but memory of a device as well, or a kernel that does
        // not know the advice.
        Some(libc::EINVAL) => is_there_by_pages(base, len, page, access).unwrap_or(true),
        // It says nothing about the memory.
        _ => true,
    }
}

/// As [`is_there`], found out by the use of a byte of each page, which stays as it is; for Access::Write
/// the memory is lent to be written to. None where there is no descriptor left to do that with.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_there_by_pages(base: *const u8, len: usize, page: usize, access: Access) -> Option<bool> {
    let mut ends = [-1; 2];
    // SAFETY: room for two numbers.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return None;
    }
    let [out, into] = ends;
    // SAFETY: just opened, and nobody else's.
    let _ends = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let mut at = 0;
    while at < len {
        let byte = base.wrapping_add(at).cast_mut().cast();
        let mut other = 0u8;
        // SAFETY: the kernel looks whether the byte is there; `other` is.
        let is_there = unsafe {
            libc::write(into, byte, 1) == 1
                && match access {
                    Access::Read => libc::read(out, (&raw mut other).cast(), 1) == 1,
                    Access::Write => libc::read(out, byte, 1) == 1,
                }
        };
        if !is_there {
            return Some(false);
        }
        // To the next page's beginning.
        at += page - base.wrapping_add(at).addr() % page;
    }
    Some(true)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn is_there(_: *const u8, _: usize, _: Access) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_there_is_told_from_memory_that_is_not() {
        let bytes = vec![1u8; 300_000];
        for access in [Access::Read, Access::Write] {
            assert!(is_there(bytes[123..].as_ptr(), 200_000, access));
            assert!(!is_there(std::ptr::without_provenance(4096), 100_000, access));
            assert!(!is_there(bytes.as_ptr(), usize::MAX, access));
        }
        assert!(bytes.iter().all(|b| *b == 1));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn memory_is_there_for_what_it_may_be_used_for_alone() {
        const LEN: usize = 1 << 20;
        let map = |protection| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: new memory.
            let map = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, flags, -1, 0) };
            assert_ne!(map, libc::MAP_FAILED);
            map.cast::<u8>()
        };
        let (none, read) = (map(libc::PROT_NONE), map(libc::PROT_READ));
        let all = map(libc::PROT_READ | libc::PROT_WRITE);
        for (base, access, there) in [
            (none, Access::Read, false),
            (none, Access::Write, false),
            (read, Access::Read, true),
            (read, Access::Write, false),
            (all, Access::Write, true),
        ] {
            for (skip, len) in [(0, LEN), (5000, 100_000), (LEN - 1, 1)] {
                let base = base.wrapping_add(skip);
                assert_eq!(is_there(base, len, access), there);
                assert_eq!(is_there_by_pages(base, len, 4096, access), Some(there));
            }
        }
        for map in [none, read, all] {
            // SAFETY: of this test, and used no more.
            unsafe { libc::munmap(map.cast(), LEN) };
        }
    }
}
