//! The library's core, src/cluster and src/vdi with what they stand on, compiled with sockets and a
//! clock of a simulated world in the place of the real ones: whole schedules of clients, servers
//! and faults run in one thread, in virtual time, each a function of its seed.
//!
//! - [`clock`], [`net`]: what the core sees of the world.
//! - [`world`]: time, nodes, connections; [`fault`]: what goes wrong in it, as data.
//! - [`host`], [`model`]: what the servers do, and all that they know of the world.
//! - [`ops`], [`shapes`], [`play`]: what programs do, as data, from seeds, and done.
//! - [`check`], [`rules`]: what they may see, and what their library may ask of servers.
//! - [`shrink`]: the shortest way to a failure.

// The core's own unit tests are for the real one.
#![cfg(not(test))]
// What is public here for programs of tests/sim is not in the library.
#![allow(clippy::len_without_is_empty, clippy::new_without_default)]

pub mod clock;
pub mod net;

#[path = "../../../src/sync.rs"]
pub mod sync;

#[path = "../../../src/exec/mod.rs"]
pub mod exec;

#[path = "../../../src/wire/mod.rs"]
pub mod wire;

#[path = "../../../src/cluster/mod.rs"]
pub mod cluster;

#[path = "../../../src/tree.rs"]
pub mod tree;

#[path = "../../../src/vdi/mod.rs"]
pub mod vdi;

#[path = "../../../src/error.rs"]
pub mod error;

pub mod check;
pub mod fault;
pub mod host;
pub mod model;
pub mod ops;
pub mod play;
pub mod rng;
pub mod rules;
pub mod shapes;
pub mod shrink;
pub mod world;
