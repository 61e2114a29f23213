//! What generation the servers are of, as far as it changes what they may be asked (7.1).

use std::sync::OnceLock;

use sheepdog_proto::header::VdiArm;
use sheepdog_proto::{
    DEFAULT_BLOCK_SIZE_SHIFT, INTERNAL_VERSION, OLDER_INTERNAL_VERSION, Request, SdResult, op,
};

use super::Client;
use super::inode::unless;
use super::removal::Removals;
use super::strays::Strays;
use crate::cluster::{Call, Op};
use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// 1.0, with the object size of its new VDIs.
    Current { default_shift: u8 },
    /// 0.8 or 0.9: all objects have 4 MiB.
    Older,
}

impl Generation {
    /// The object size of new VDIs, as a shift. The size limit depends on it, so a server is not
    /// left to choose (4.13).
    pub fn default_shift(self) -> u8 {
        match self {
            Generation::Current { default_shift } => default_shift,
            Generation::Older => DEFAULT_BLOCK_SIZE_SHIFT,
        }
    }

    pub fn internal_version(self) -> u8 {
        match self {
            Generation::Current { .. } => INTERNAL_VERSION,
            Generation::Older => OLDER_INTERNAL_VERSION,
        }
    }
}

/// What a client has found out about its servers, and what they have still to do for it.
#[derive(Default)]
pub struct Servers {
    generation: OnceLock<Generation>,
    pub removals: Removals,
    pub strays: Strays,
}

impl Servers {
    /// Whether they are known to be of 0.8 or 0.9.
    pub fn are_older(&self) -> bool {
        self.generation.get() == Some(&Generation::Older)
    }
}

impl Client {
    /// Asks for what only 1.0 servers know, once.
    pub(super) async fn generation(&self, op: &Op) -> Result<Generation> {
        if let Some(generation) = self.servers.generation.get() {
            return Ok(*generation);
        }
        let request = Request::new(op::GET_CLUSTER_DEFAULT, 0, VdiArm::default());
        let reply = self.cluster.call(op, Call::new(request).resendable()).await;
        let reply = unless(reply, SdResult::INVALID_PARMS)?;
        let generation = match reply.map(|reply| reply.header.cluster_default().block_size_shift) {
            None => Generation::Older,
            Some(0) => Generation::Current { default_shift: DEFAULT_BLOCK_SIZE_SHIFT },
            Some(default_shift @ 9..=31) => Generation::Current { default_shift },
            Some(_) => return Err(Error::BadReply("an object size that cannot be")),
        };
        Ok(*self.servers.generation.get_or_init(|| generation))
    }
}
