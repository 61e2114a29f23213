//! Whether memory that a program lends is there.

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
    let Some(len) = len.checked_add(skip) else { return false };
    let start = base.wrapping_sub(skip).cast_mut();
    // SAFETY: changes no memory, whatever is there.
    let result = unsafe { libc::madvise(start.cast(), len, advice) };
    // Anything else says nothing about the memory: an older kernel, memory of a device.
    let error = std::io::Error::last_os_error().raw_os_error();
    result == 0 || !matches!(error, Some(libc::EFAULT | libc::ENOMEM))
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
}
