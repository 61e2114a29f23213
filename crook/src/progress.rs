//! How far something has come: a bar on a terminal, and lines, few of them, anywhere else.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{self, Output};

pub struct Progress {
    how: How,
    doing: &'static str,
    /// Bytes, where it is known how many there are.
    total: Option<u64>,
    done: u64,
    started: Instant,
}

enum How {
    Not,
    Bar(ProgressBar),
    /// The next line is due at so many bytes.
    Lines(u64),
}

/// Lines are as far from each other as this, where nobody knows how many bytes there will be.
const STEP: u64 = 1 << 30;
/// A line for each of so many parts.
const PARTS: u64 = 10;
/// What is done within this time needs no lines.
const SHORT: Duration = Duration::from_secs(2);

impl Progress {
    pub fn new(output: &Output, doing: &'static str, total: Option<u64>) -> Progress {
        let how = if output.quiet || output.json {
            How::Not
        } else if io::stderr().is_terminal() {
            How::Bar(bar(doing, total))
        } else {
            How::Lines(total.map_or(STEP, |total| total / PARTS))
        };
        Progress { how, doing, total, done: 0, started: Instant::now() }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        match &mut self.how {
            How::Not => {}
            How::Bar(bar) => bar.inc(bytes),
            How::Lines(next) if self.done < *next => {}
            How::Lines(next) => {
                let step = self.total.map_or(STEP, |total| (total / PARTS).max(1));
                *next = (self.done / step + 1) * step;
                let time = self.started.elapsed();
                if time >= SHORT {
                    let line = line(self.doing, self.done, self.total, time);
                    let _ = writeln!(io::stderr(), "crook: {line}");
                }
            }
        }
    }

    /// Takes the bar away, so that something else can be said.
    pub fn end(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn bar(doing: &'static str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    let template = match total {
        Some(_) => {
            "{msg} {wide_bar} {percent:>3} % {binary_bytes} of {binary_total_bytes} \
             {binary_bytes_per_sec} {eta} left"
        }
        None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
    };
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(doing)
}

fn line(doing: &str, done: u64, total: Option<u64>, time: Duration) -> String {
    let rate = output::rate(done, time);
    let size = output::size(done);
    match total {
        Some(total) if done > 0 => {
            let left = time.mul_f64((total.saturating_sub(done)) as f64 / done as f64).as_secs();
            let percent = done * 100 / total.max(1);
            format!(
                "{doing}: {percent} %, {size} of {}, {rate}, {left} s left",
                output::size(total)
            )
        }
        _ => format!("{doing}: {size}, {rate}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let time = Duration::from_secs(5);
        let said = line("copying", 1 << 30, Some(4 << 30), time);
        assert_eq!(said, "copying: 25 %, 1.0 GiB of 4.0 GiB, 204.8 MiB/s, 15 s left");
        assert_eq!(line("copying", 0, Some(1), time), "copying: 0 B, 0 B/s");
    }
}
