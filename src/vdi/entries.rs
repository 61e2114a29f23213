//! Runs of map entries: storing them once and exactly once, and emptying maps (3.7, 5.12).

use std::ops::Range;

use sheepdog_proto::{Oid, Vid};

use super::inode::{self, standing};
use super::outcome::Step;
use crate::cluster::{Backoff, Cluster, Op};
use crate::error::Result;

/// Entries of one read while a map is scanned: 256 KiB.
pub const SCAN: u32 = 64 * 1024;
/// Nonzero entries that one write empties: servers release them one by one, and clients have
/// always sent this many (5.12).
const EMPTY_RUN: usize = 128;

/// A range of a map's entries in the pieces in which it is scanned: the first of each, and how many.
pub fn scan(range: Range<u32>) -> impl Iterator<Item = (u32, u32)> {
    let end = range.end;
    range.step_by(SCAN as usize).map(move |first| (first, SCAN.min(end - first)))
}

/// Zeroes a range of a map's entries: the server releases the objects they name. Broken off at any
/// point it can be begun again. `own` is told the VDI's own objects before they are released.
/// Nothing is done to what has become a snapshot where the map is to be that of a `working` VDI.
pub async fn empty_map(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    range: Range<u32>,
    working: bool,
    mut own: impl FnMut(Oid),
) -> Step<()> {
    for (first, len) in scan(range) {
        let entries = inode::read_entries(cluster, op, vid, first, len).await?;
        for (start, len) in runs(&entries, EMPTY_RUN) {
            let at = first + start as u32;
            if working {
                // Servers would let the update into the snapshot (7.2).
                standing(cluster, op, vid, at).await?;
            }
            let run = (at..).zip(&entries[start..start + len]);
            run.filter(|(_, entry)| **entry == vid.get()).for_each(|(i, _)| own(vid.data(i)));
            write_run(cluster, op, vid, at, &vec![0; len]).await?;
        }
    }
    Ok(())
}

/// The nonzero entries as runs (start, length) from one nonzero entry to another, of at most `max`
/// nonzero ones each. Zeros inside stay zero, which releases nothing.
fn runs(entries: &[u32], max: usize) -> Vec<(usize, usize)> {
    let used = entries.iter().enumerate().filter(|(_, entry)| **entry != 0);
    let used: Vec<usize> = used.map(|(at, _)| at).collect();
    used.chunks(max).map(|run| (run[0], run[run.len() - 1] - run[0] + 1)).collect()
}

/// Stores a run of entries that all change, of a map that nobody else changes.
pub async fn write_run(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    first: u32,
    entries: &[u32],
) -> Result<()> {
    let mut backoff = Backoff::default();
    loop {
        match inode::write_entries(cluster, op, vid, first, entries).await {
            Ok(()) => return Ok(()),
            Err(error) => backoff.wait_after(error, cluster, op).await?,
        }
        // Never repeated beside the lost attempt, nor after it was carried out (3.7, hazard 2):
        // the read waits until that is over.
        let stored = inode::read_entries(cluster, op, vid, first, entries.len() as u32).await?;
        if stored == entries {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_and_end_with_entries_and_hold_no_more_than_asked() {
        assert_eq!(runs(&[], 2), []);
        assert_eq!(runs(&[0, 0], 2), []);
        assert_eq!(runs(&[0, 7, 0, 7, 0, 0, 7, 0], 2), [(1, 3), (6, 1)]);
        assert_eq!(runs(&[7; 5], 2), [(0, 2), (2, 2), (4, 1)]);
    }
}
