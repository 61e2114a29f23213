//! What people and scripts are told.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};

pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Output {
        Output { json, quiet }
    }

    /// The result of a command: `value` for scripts, `text` for people.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json {
            let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
            text.push('\n');
            text
        } else {
            text()
        };
        self.print(text.as_bytes())
    }

    /// What was done, where a command has no other result.
    pub fn done(&self, value: Value, text: &str) -> Result<()> {
        if !self.json && self.quiet {
            return Ok(());
        }
        self.result(&value, || format!("{text}\n"))
    }

    /// As [`Output::done`], on standard error.
    pub fn aside(&self, value: Value, text: &str) -> Result<()> {
        if self.json {
            let _ = writeln!(io::stderr(), "{value}");
        } else if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
        Ok(())
    }

    pub fn print(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| Failure::io("standard output", error)),
        }
    }

    pub fn failure(&self, failure: &Failure) {
        let text = match self.json {
            true => {
                let error = json!({
                    "kind": failure.kind, "code": failure.code(), "message": failure.message,
                });
                json!({ "error": error }).to_string()
            }
            false => format!("crook: {failure}"),
        };
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// As people read sizes: of 1024, with one digit behind the point.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Bytes in a time.
pub fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(1e-9);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// Seconds since the Unix epoch, and below.
pub fn unix_time(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// As people read times: UTC, as the servers of a cluster may be anywhere.
pub fn date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Columns as wide as what is in them; those after the first to the right where `right` says so.
pub fn table(head: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            let _ = match right {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a VDI or snapshot is, for scripts.
pub fn info(info: &sheepdog::Info) -> Value {
    json!({
        "name": info.name.to_string(),
        "snapshot": info.is_snapshot,
        "tag": info.tag.as_ref().map(ToString::to_string),
        "snapshot_id": info.is_snapshot.then_some(info.snapshot_id),
        "size": info.size,
        "allocated": info.allocated,
        "object_size": info.object_size,
        "copies": info.erasure_code.is_none().then_some(info.copies),
        "erasure_code": info.erasure_code.map(|(data, parity)| {
            json!({ "data": data, "parity": parity })
        }),
        "hypervolume": info.hypervolume,
        "created": unix_time(info.created),
        "snapshot_taken": info.snapshot_taken.map(unix_time),
        "vdi_id": info.vdi_id,
        "parent_vdi_id": info.parent_vdi_id,
    })
}

/// Copies, or strips, in short.
pub fn redundancy(info: &sheepdog::Info) -> String {
    match info.erasure_code {
        Some((data, parity)) => format!("{data}:{parity}"),
        None => info.copies.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns() {
        let rows = [vec!["a".into(), "1".into()], vec!["größe".into(), "123".into()]];
        let text = table(&["NAME", "N"], &[false, true], &rows);
        assert_eq!(text, "NAME     N\na        1\ngröße  123\n");
    }
}
