//! The log, on stderr: written by a thread of its own, so that serving never waits for whoever
//! reads it, or does not.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait to be written; more than these are dropped.
const LINES: usize = 1024;
/// How long the end of the program waits for the last of them.
const PATIENCE: Duration = Duration::from_millis(500);

struct Stderr {
    lines: SyncSender<String>,
    /// Lines on their way.
    waiting: AtomicUsize,
    dropped: AtomicUsize,
}

/// The logger, with its thread running.
pub fn start() -> io::Result<&'static dyn log::Log> {
    let (lines, written) = sync_channel(LINES);
    let (waiting, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let log: &'static Stderr = Box::leak(Box::new(Stderr { lines, waiting, dropped }));
    thread::Builder::new().name("lamb-log".into()).spawn(move || log.write(&written))?;
    Ok(log)
}

impl Stderr {
    fn write(&self, lines: &Receiver<String>) {
        for line in lines {
            let _ = writeln!(io::stderr().lock(), "{line}");
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let _ = writeln!(io::stderr().lock(), "lamb: warn: {dropped} lines were lost");
            }
        }
    }
}

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = record.level().as_str().to_ascii_lowercase();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(format!("lamb: {level}: {}", record.args())).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let start = Instant::now();
        while self.waiting.load(Ordering::Acquire) > 0 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
