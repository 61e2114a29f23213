//! The Rust boundary: the same operations as the C boundary, over the same core.
//!
//! Each operation is stated once, in `ops`, and run in the form that the program has called: waited
//! for ([`blocking`]), or started and told of by a future ([`aio`]).

#![deny(missing_docs)]

pub mod aio;
mod blocking;
mod connect;
mod error;
mod lent;
mod operation;
mod ops;
mod session;
mod types;

pub use blocking::{Cluster, Snapshot, Vdi};
pub use connect::ConnectOptions;
pub use error::{Error, ErrorKind, Result};
pub use types::{CreateOptions, Info, Name, SnapshotId};

pub use crate::vdi::{Extent, ExtentKind};
