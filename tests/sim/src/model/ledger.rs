//! Ledgers: how many references of each generation a data object has left (3.7).

use super::store::Sparse;

pub fn of_a_new_object() -> Sparse {
    let mut book = Sparse::default();
    book.write(0, &1i32.to_le_bytes());
    book
}

/// Takes back the reference (generation, count): its holder's own, and adds those made from it.
pub fn release(book: &mut Sparse, generation: i32, count: i32) {
    add(book, generation, -1);
    add(book, generation.wrapping_add(1), count);
}

fn add(book: &mut Sparse, generation: i32, count: i32) {
    let at = 4 * u64::from(generation as u32);
    let value = (book.word(at) as i32).wrapping_add(count);
    book.write(at, &value.to_le_bytes());
}

/// Entries up to the last that is not zero.
pub fn entries(book: &Sparse) -> Vec<i32> {
    let mut entries = Vec::new();
    for (at, word) in book.words(0..1 << 22) {
        entries.resize(at as usize / 4, 0);
        entries.push(word as i32);
    }
    entries
}
