//! Delays as functions of names.

use std::time::Duration;

/// Stirs `value` into `state`.
pub fn mix(state: u64, value: u64) -> u64 {
    let mut h = (state ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (h ^ (h >> 29)).wrapping_add(state.rotate_left(17))
}

/// Of many bytes, some.
pub fn mix_bytes(mut state: u64, bytes: &[u8]) -> u64 {
    const WORDS: usize = 128;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words.iter().step_by(words.len().div_ceil(WORDS).max(1)) {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(state, u64::from_le_bytes(last)), bytes.len() as u64)
}

/// A number for that purpose.
pub fn number(seed: u64, name: u64, purpose: &str) -> u64 {
    mix(mix_bytes(mix(seed, name), purpose.as_bytes()), 1)
}

/// Up to `max`; each order of magnitude is as likely as the others.
pub fn delay(seed: u64, name: u64, purpose: &str, max: Duration) -> Duration {
    let h = number(seed, name, purpose);
    let scale = max.as_nanos() as u64 >> (h & 7);
    let part = ((scale >> 8) * (h >> 40)) >> 16;
    Duration::from_nanos(1000 + part)
}

/// Whether this is the one step of sixteen that takes longer.
pub fn is_long(seed: u64, name: u64, step: &str) -> bool {
    number(seed, mix(name, 2), step) & 15 == 0
}
