//! The library's messages, for programs that want them.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::entry::enter;
use super::program;
use crate::exec::lock;

/// Levels of sd_set_log().
#[allow(dead_code)]
pub const SD_LOG_OFF: c_int = 0;
pub const SD_LOG_ERROR: c_int = 1;
pub const SD_LOG_WARN: c_int = 2;
pub const SD_LOG_INFO: c_int = 3;
pub const SD_LOG_DEBUG: c_int = 4;
pub const SD_LOG_TRACE: c_int = 5;

/// cbindgen:ignore
type sd_log_fn =
    unsafe extern "C-unwind" fn(level: c_int, message: *const c_char, opaque: *mut c_void);

#[derive(Clone, Copy)]
struct Sink {
    call: sd_log_fn,
    opaque: *mut c_void,
}

// SAFETY: the program passes a function and a pointer that may be used from any thread: the
// header says so.
unsafe impl Send for Sink {}

static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Whom messages go to, for the time of a fork.
pub struct Held {
    _sink: MutexGuard<'static, Option<Sink>>,
}

pub fn hold() -> Held {
    Held { _sink: lock(&SINK) }
}

/// Has the library's messages come here.
pub fn install() {
    // Fails only where a Rust program that links the library has a logger of its own.
    let _ = log::set_logger(&Forward);
}

struct Forward;

impl Log for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Called without the lock, so that it can take its time.
        let Some(sink) = *lock(&SINK) else { return };
        let text = record.args().to_string().replace('\0', "\u{fffd}");
        let Ok(text) = CString::new(text) else { return };
        let level = match record.level() {
            Level::Error => SD_LOG_ERROR,
            Level::Warn => SD_LOG_WARN,
            Level::Info => SD_LOG_INFO,
            Level::Debug => SD_LOG_DEBUG,
            Level::Trace => SD_LOG_TRACE,
        };
        // SAFETY: the program's function, called as the header says.
        program::call(|| unsafe { (sink.call)(level, text.as_ptr(), sink.opaque) });
    }

    fn flush(&self) {}
}

/// Has `fn` called with every message of the library up to `level`, from whatever thread it comes
/// up in. For the whole process; NULL or SD_LOG_OFF ends it, as it was at the start.
///
/// `fn` must not call the library. A call of it that another thread is in when this returns may
/// still be under way.
#[unsafe(no_mangle)]
pub extern "C" fn sd_set_log(
    r#fn: Option<
        unsafe extern "C-unwind" fn(level: c_int, message: *const c_char, opaque: *mut c_void),
    >,
    level: c_int,
    opaque: *mut c_void,
) {
    enter(|| {
        let filter = match level {
            ..=SD_LOG_OFF => LevelFilter::Off,
            SD_LOG_ERROR => LevelFilter::Error,
            SD_LOG_WARN => LevelFilter::Warn,
            SD_LOG_INFO => LevelFilter::Info,
            SD_LOG_DEBUG => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        log::set_max_level(if r#fn.is_some() { filter } else { LevelFilter::Off });
        *lock(&SINK) = r#fn.map(|call| Sink { call, opaque });
        Ok(())
    });
}
