//! The clock of deadlines and waits. tests/sim compiles the same rooms with one of its own.

pub use std::time::Instant;
