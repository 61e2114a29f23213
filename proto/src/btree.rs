//! The index of a hypervolume (3.9): placeholder until the next commit.

/// The root of a hypervolume that has no objects.
pub const EMPTY_ROOT: [u8; 8] = [0x74, 0x62, 1, 0, 0, 0, 0, 0];
