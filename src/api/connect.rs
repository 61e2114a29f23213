//! How a program connects.

use std::time::Duration;

use crate::cluster::{self, Cluster, address};
use crate::error::Result;
use crate::vdi::Client;

/// What a program may say of how it connects.
///
/// ```
/// use std::time::Duration;
/// let options = sheepdog::ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct ConnectOptions {
    connect_timeout: Option<Duration>,
    timeout: Option<Option<Duration>>,
    close_timeout: Option<Duration>,
    buffer_limit: Option<usize>,
}

impl ConnectOptions {
    /// What [`Cluster::connect`](crate::Cluster::connect) does.
    pub fn new() -> ConnectOptions {
        ConnectOptions::default()
    }

    /// How long one gateway may take until it is found, connected to and has answered once. As it
    /// is: five seconds, or all the time of the operation where there is only one gateway.
    pub fn connect_timeout(mut self, time: Duration) -> ConnectOptions {
        self.connect_timeout = Some(time);
        self
    }

    /// How long each operation may take, with all its requests and over reconnects; None: for ever.
    /// As it is: 30 seconds. What takes the longer the larger a VDI is may go on for as long as
    /// answers come.
    pub fn timeout(mut self, time: Option<Duration>) -> ConnectOptions {
        self.timeout = Some(time);
        self
    }

    /// How long a close waits at most. As it is: five seconds.
    pub fn close_timeout(mut self, time: Duration) -> ConnectOptions {
        self.close_timeout = Some(time);
        self
    }

    /// The memory of asynchronous operations in flight: the sizes of their buffers, and 4 KiB for
    /// each. What would pass it fails. As it is: 256 MiB.
    pub fn buffer_limit(mut self, bytes: usize) -> ConnectOptions {
        self.buffer_limit = Some(bytes);
        self
    }

    /// A client that is not connected yet.
    pub(super) fn client(&self, addr: &[u8]) -> Result<Client> {
        let default = cluster::Options::default();
        let options = cluster::Options {
            connect_timeout: self.connect_timeout,
            timeout_ms: self.timeout.map_or(default.timeout_ms, milliseconds),
            close_timeout: self.close_timeout.unwrap_or(default.close_timeout),
            ..default
        };
        let cluster = Cluster::new(address::parse(addr)?, options)?;
        if let Some(limit) = self.buffer_limit {
            cluster.budget.set_limit(limit);
        }
        Ok(Client::new(cluster))
    }
}

/// As the core counts, where 0 is no bound.
pub(super) fn milliseconds(time: Option<Duration>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1))
}
