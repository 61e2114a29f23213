//! The connection of a command, and what a signal makes of what is under way.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use sheepdog::ConnectOptions;
use sheepdog::aio::{Cluster, Snapshot, Vdi};

use crate::cli::Connection;
use crate::failure::{Failure, Result};
use crate::place::Target;
use crate::signals::Interrupts;

pub struct Session {
    pub cluster: Cluster,
    interrupts: Interrupts,
}

/// What can be read from.
#[derive(Clone)]
pub enum Readable {
    Vdi(Vdi),
    Snapshot(Snapshot),
}

impl Session {
    pub fn new(connection: &Connection) -> Result<Session> {
        let interrupts = Interrupts::watch().map_err(|error| Failure::io("signals", error))?;
        let address = match &connection.unix {
            Some(path) => format!("unix:{path}"),
            None => connection.addr.clone(),
        };
        let timeout = Some(connection.timeout).filter(|timeout| *timeout != Duration::ZERO);
        let options = ConnectOptions::new().timeout(timeout).buffer_limit(usize::MAX);
        let cluster = Cluster::new_unconnected_with(&address, &options).map_err(|error| {
            let failure = Failure::from(error);
            Failure::usage(failure.message)
        })?;
        let session = Session { cluster, interrupts };
        // At once, so that where nobody is it does not take all the time there is to find out.
        session.run("connecting", "", async { Ok(session.cluster.connect().await?) })?;
        Ok(session)
    }

    /// Runs `work` to its end, or until a signal comes: what is under way then is cancelled, and what
    /// that leaves is said.
    pub fn run<T>(
        &self,
        doing: &str,
        left: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.run_until(work, |signal| {
            let colon = if left.is_empty() { "" } else { ": " };
            Failure::interrupted(signal, format!("interrupted while {doing}{colon}{left}"))
        })
    }

    /// As [`Session::run`], with words that are known only then.
    pub fn run_until<T>(
        &self,
        work: impl Future<Output = Result<T>>,
        say: impl FnOnce(i32) -> Failure,
    ) -> Result<T> {
        let raced = self.cluster.block_on(async {
            match select(pin!(self.interrupts.wait()), pin!(work)).await {
                Either::Left((signal, _)) => Err(signal),
                Either::Right((result, _)) => Ok(result),
            }
        });
        raced.unwrap_or_else(|signal| Err(say(signal)))
    }

    /// Closes the connection: locks are given back, also those of what was interrupted.
    pub fn end(&self, result: Result<()>) -> Result<()> {
        let closed = self.cluster.block_on(self.cluster.close());
        result.and(closed.map_err(Failure::from))
    }

    /// Opens a VDI or snapshot for reading, whoever writes to it.
    pub async fn open_readable(&self, target: &Target) -> Result<Readable> {
        Ok(match &target.snapshot {
            None => Readable::Vdi(self.cluster.open_read_only(&target.name).await?),
            Some(snapshot) => Readable::Snapshot(
                self.cluster.open_snapshot(&target.name, snapshot.clone()).await?,
            ),
        })
    }
}

macro_rules! either {
    ($it:expr, $handle:ident => $call:expr) => {
        match $it {
            Readable::Vdi($handle) => $call,
            Readable::Snapshot($handle) => $call,
        }
    };
}

impl Readable {
    pub fn size(&self) -> u64 {
        either!(self, handle => handle.size())
    }

    pub async fn info(&self) -> Result<sheepdog::Info> {
        Ok(either!(self, handle => handle.info()).await?)
    }

    pub async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<sheepdog::Extent>> {
        Ok(either!(self, handle => handle.block_status(offset, len)).await?)
    }

    pub async fn read_at(&self, buf: Vec<u8>, offset: u64) -> sheepdog::aio::Buffered {
        either!(self, handle => handle.read_at(buf, offset)).await
    }
}
