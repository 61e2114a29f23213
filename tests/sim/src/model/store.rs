//! What a cluster stores: bytes by object. Sparse, and cheap to copy, as inodes are copied whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

pub const SECTOR: u64 = 512;

/// Bytes of which most are zero; a copy costs nothing until one of them changes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sparse(Rc<BTreeMap<u32, Sector>>);

type Sector = Rc<[u8; SECTOR as usize]>;

impl Sparse {
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        for (start, sector) in self.sectors(offset..offset + len) {
            let (from, to) = (start.max(offset), (start + SECTOR).min(offset + len));
            bytes[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, mut data: &[u8]) {
        let mut at = offset;
        while !data.is_empty() {
            let within = (at % SECTOR) as usize;
            let (part, rest) = data.split_at(data.len().min(SECTOR as usize - within));
            self.write_in((at / SECTOR) as u32, within, part);
            at += part.len() as u64;
            data = rest;
        }
    }

    fn write_in(&mut self, number: u32, within: usize, part: &[u8]) {
        let zero = part.iter().all(|&byte| byte == 0);
        if zero && !self.0.contains_key(&number) {
            return;
        }
        let sectors = Rc::make_mut(&mut self.0);
        let sector = sectors.entry(number).or_insert_with(|| Rc::new([0; SECTOR as usize]));
        Rc::make_mut(sector)[within..within + part.len()].copy_from_slice(part);
        if zero && sector.iter().all(|&byte| byte == 0) {
            sectors.remove(&number);
        }
    }

    pub fn zero(&mut self, range: Range<u64>) {
        let touched: Vec<u64> = self.sectors(range.clone()).map(|(start, _)| start).collect();
        for start in touched {
            let part = start.max(range.start)..(start + SECTOR).min(range.end);
            let zeros = [0; SECTOR as usize];
            self.write(part.start, &zeros[..(part.end - part.start) as usize]);
        }
    }

    /// The sectors that a range touches and that are not all zero, with where they begin.
    pub fn sectors(
        &self,
        range: Range<u64>,
    ) -> impl Iterator<Item = (u64, &[u8; SECTOR as usize])> {
        let numbers = (range.start / SECTOR) as u32..range.end.div_ceil(SECTOR) as u32;
        let numbers = if range.is_empty() { 0..0 } else { numbers };
        self.0.range(numbers).map(|(&number, sector)| (u64::from(number) * SECTOR, &**sector))
    }

    /// The nonzero words of an aligned range, with their places.
    pub fn words(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u32)> {
        self.sectors(range.clone())
            .flat_map(|(start, sector)| {
                (start..)
                    .step_by(4)
                    .zip(sector.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)))
            })
            .filter(move |(at, word)| range.contains(at) && *word != 0)
    }

    pub fn word(&self, offset: u64) -> u32 {
        self.words(offset..offset + 4).next().map_or(0, |(_, word)| word)
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}
