//! What comes of a step on a VDI as it was known, where it is not what was hoped for.

use sheepdog_proto::SdResult;

use crate::error::Error;

/// Why a step was not done. Whoever meets anything but `Failed` finds out what the VDI is now, and
/// goes on with that (5.7).
#[derive(Debug)]
pub enum Outcome {
    /// The VDI is a snapshot by now, or gone.
    Frozen,
    /// And that was found out after an object had been created for `index`, to replace `entry`: the
    /// map took it, or refused it.
    Stray {
        index: u32,
        entry: u32,
        mapped: bool,
    },
    /// The object that `entry` names for `index` does not exist.
    Gone {
        index: u32,
        entry: u32,
    },
    Failed(Error),
}

pub type Step<T> = Result<T, Outcome>;

impl From<Error> for Outcome {
    /// Servers say READONLY of the objects of a snapshot, and of nothing else.
    fn from(error: Error) -> Outcome {
        match error.server_result() {
            Some(SdResult::READONLY) => Outcome::Frozen,
            _ => Outcome::Failed(error),
        }
    }
}
