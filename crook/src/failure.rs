//! Why crook ends without success, and with which exit code. The codes stay as they are.

use std::fmt;
use std::io;

use serde::Serialize;
use sheepdog::ErrorKind;

pub type Result<T> = std::result::Result<T, Failure>;

/// Named in `--json` as here, in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Failed,
    Usage,
    NotFound,
    Exists,
    Unreachable,
    Locked,
    TimedOut,
    NoSpace,
    Damaged,
    Interrupted,
}

#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    /// The exit code, where it is not the kind's.
    signal: Option<i32>,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), signal: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    pub fn interrupted(signal: i32, message: impl Into<String>) -> Failure {
        Failure { signal: Some(signal), ..Failure::new(Kind::Interrupted, message) }
    }

    /// Of a file or pipe.
    pub fn io(what: impl fmt::Display, error: io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::AlreadyExists => Kind::Exists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            _ => Kind::Failed,
        };
        Failure::new(kind, format!("{what}: {error}"))
    }

    /// The same, with more to be said.
    pub fn and(mut self, more: impl fmt::Display) -> Failure {
        self.message = format!("{}; {more}", self.message);
        self
    }

    pub fn code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Exists => 4,
            Kind::Unreachable => 5,
            Kind::Locked => 6,
            Kind::TimedOut => 7,
            Kind::NoSpace => 8,
            Kind::Damaged => 9,
            Kind::Interrupted => 128 + self.signal.unwrap_or(2) as u8,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<sheepdog::Error> for Failure {
    fn from(error: sheepdog::Error) -> Failure {
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::AlreadyExists => Kind::Exists,
            ErrorKind::Locked => Kind::Locked,
            ErrorKind::TimedOut => Kind::TimedOut,
            ErrorKind::NoSpace => Kind::NoSpace,
            ErrorKind::NotConnected
            | ErrorKind::Protocol
            | ErrorKind::NotFormatted
            | ErrorKind::Unavailable => Kind::Unreachable,
            _ => Kind::Failed,
        };
        Failure::new(kind, error.to_string())
    }
}
