//! The map of an open VDI: which VDI's object each index names, as far as it is known, and who is
//! at work on which index (protocol.md 3.6, 5.4).
//!
//! The map is sparse and lazy: a page of entries is read when one of them is first needed.
//!
//! Entries are the server's stored ones: a change is made here only once the server has
//! acknowledged it, and from before it is sent until then the entry counts as unknown. Whoever is
//! about to change an entry holds its index exclusively, from before the CREATE to after the map
//! update: so there are never two creates of one object nor two updates of one entry in flight
//! (0.5, 3.7), and whoever writes to the object meanwhile waits, and so is never told of a success
//! that a crash could take back.

use std::collections::BTreeMap;

use sheepdog_proto::Vid;

use crate::error::{Error, Result};

/// Entries of a page: 4 KiB on the wire, the map of 4 GiB of 4 MiB objects.
pub const PAGE: u32 = 1024;

/// Stands in a page for an entry that is not known; no VDI has this id.
const UNKNOWN: u32 = u32::MAX;

/// The known part of a map.
#[derive(Default)]
pub struct Pages {
    pages: BTreeMap<u32, Box<[u32]>>,
    /// How often it became doubtful what the entry is, of those that are not known again since.
    doubts: BTreeMap<u32, u64>,
}

/// How an entry was not known when somebody set out to read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// With its whole page.
    Page,
    /// Alone. The number changes when what was read meanwhile may be outdated.
    Entry(u64),
}

impl Pages {
    /// The entry of `index`, if it is known.
    pub fn get(&self, index: u32) -> Result<u32, Missing> {
        let page = self.pages.get(&(index / PAGE)).ok_or(Missing::Page)?;
        match page[(index % PAGE) as usize] {
            UNKNOWN => Err(Missing::Entry(self.doubts.get(&index).copied().unwrap_or(0))),
            entry => Ok(entry),
        }
    }

    /// Up to which index the entries from `index` on are known to be like it: as far as its page.
    pub fn run(&self, index: u32, is_like: impl Fn(u32) -> bool) -> u64 {
        let page = self.pages.get(&(index / PAGE)).map_or(&[][..], |page| page);
        let rest = page.get((index % PAGE) as usize..).unwrap_or_default();
        let like = rest.iter().take_while(|entry| **entry != UNKNOWN && is_like(**entry));
        u64::from(index) + like.count() as u64
    }

    /// Takes a page that was read, unless it is known by now, with changes made since.
    pub fn insert(&mut self, page: u32, mut entries: Vec<u32>) {
        entries.resize(PAGE as usize, UNKNOWN);
        self.pages.entry(page).or_insert_with(|| entries.into());
    }

    /// Takes an entry that was read, unless that may be outdated.
    pub fn insert_entry(&mut self, index: u32, missing: Missing, entry: u32) {
        if self.get(index) == Err(missing) {
            self.set(index, entry);
        }
    }

    /// Notes what the server has stored.
    pub fn set(&mut self, index: u32, entry: u32) {
        if let Some(page) = self.pages.get_mut(&(index / PAGE)) {
            page[(index % PAGE) as usize] = entry;
        }
        self.doubts.remove(&index);
    }

    /// The entry may change from now on, or may have.
    pub fn doubt(&mut self, index: u32) {
        if let Some(page) = self.pages.get_mut(&(index / PAGE)) {
            page[(index % PAGE) as usize] = UNKNOWN;
            *self.doubts.entry(index).or_default() += 1;
        }
    }

    pub fn clear(&mut self) {
        self.pages.clear();
        self.doubts.clear();
    }
}

/// The VDI that a stored map entry names; None where it names none.
pub fn owner(entry: u32) -> Result<Option<Vid>> {
    let vid = Vid::new(entry).ok_or(Error::Io("a map entry that is no VDI id"))?;
    Ok((!vid.is_none()).then_some(vid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_known_is_not_replaced_by_an_older_copy() {
        let mut pages = Pages::default();
        pages.set(PAGE + 1, 5);
        assert_eq!(pages.get(PAGE + 1), Err(Missing::Page), "of an unknown page nothing is known");
        pages.insert(1, vec![0; PAGE as usize]);
        pages.set(PAGE + 1, 7);
        pages.insert(1, vec![0; PAGE as usize]);
        assert_eq!((pages.get(PAGE), pages.get(PAGE + 1)), (Ok(0), Ok(7)));
        assert!(pages.get(PAGE - 1).is_err());
        pages.clear();
        assert!(pages.get(PAGE).is_err());
    }

    #[test]
    fn a_run_ends_where_another_kind_begins_or_nothing_is_known() {
        let mut pages = Pages::default();
        let hole = |entry| entry == 0;
        assert_eq!(pages.run(3, hole), 3);
        pages.insert(1, vec![0; PAGE as usize]);
        let (first, end) = (PAGE, u64::from(2 * PAGE));
        assert_eq!((pages.run(first, hole), pages.run(2 * PAGE - 1, hole)), (end, end));
        pages.doubt(first + 9);
        pages.set(first + 5, 7);
        assert_eq!(pages.run(first, hole), u64::from(first) + 5);
        assert_eq!(pages.run(first + 5, |entry| entry == 7), u64::from(first) + 6);
        assert_eq!(pages.run(first + 6, hole), u64::from(first) + 9);
    }

    #[test]
    fn an_entry_in_doubt_is_not_known_by_what_was_read_before_it_came_into_doubt() {
        let mut pages = Pages::default();
        pages.insert(0, vec![3; PAGE as usize]);
        pages.doubt(1);
        let begun = pages.get(1).unwrap_err();
        pages.insert(0, vec![3; PAGE as usize]);
        assert!(pages.get(1).is_err() && pages.get(2) == Ok(3));
        // The update is given up: it may still come.
        pages.doubt(1);
        pages.insert_entry(1, begun, 3);
        let since = pages.get(1).unwrap_err();
        assert_ne!(since, begun);
        pages.insert_entry(1, since, 4);
        assert_eq!(pages.get(1), Ok(4));
        pages.insert_entry(1, since, 5);
        assert_eq!(pages.get(1), Ok(4), "it is known by now");
    }

    #[test]
    fn a_map_entry_past_the_vdi_ids_is_refused() {
        assert!(owner(0).unwrap().is_none());
        assert_eq!(owner(0xff_ffff).unwrap().map(Vid::get), Some(0xff_ffff));
        assert!(owner(0x0100_0000).is_err());
    }
}
