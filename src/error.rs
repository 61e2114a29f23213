//! The one error of the library: what was asked, of whom, and what came back.
//!
//! Knows the codes that C callers see and their errno; knows nothing of how errors come about.

use std::ffi::CStr;
use std::sync::Arc;

use sheepdog_proto::{SdResult, op};

use crate::net::NoMemory;
use crate::wire::{Failure, Lost};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Result codes of the library's own, above those of the servers.
pub mod code {
    pub const TIMEDOUT: i32 = 0x100;
    pub const CANCELED: i32 = 0x101;
    pub const BAD_REPLY: i32 = 0x102;
    pub const NOT_CONNECTED: i32 = 0x103;
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A server's definite answer.
    #[error("{}: {result} (result {code:#x})", op::name(*.opcode), code = .result.0)]
    Server { opcode: u8, result: SdResult },
    #[error("invalid parameter: {0}")]
    Invalid(&'static str),
    #[error("{0}")]
    Refused(Refusal),
    /// Why, where that is known.
    #[error("nothing came within the time limit{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    TimedOut(Option<Arc<str>>),
    #[error("canceled: the connection was closed by the program")]
    Canceled,
    /// The peer broke the protocol.
    #[error("malformed reply: {0}")]
    BadReply(&'static str),
    #[error("no gateway reachable: {0}")]
    NotConnected(Arc<str>),
    /// What answers is something else.
    #[error("{0}")]
    NoSheep(Arc<str>),
    /// The connection broke under a request.
    #[error("connection lost: {}", .0.corrupt.map_or("it broke", |c| c.0))]
    Lost(Lost),
    #[error("out of memory: {0}")]
    NoMem(&'static str),
    #[error("the buffer is not memory of this process (EFAULT)")]
    Fault,
    /// Data that the index promises is gone, or changed under us more often than we try.
    #[error("I/O error: {0}")]
    Io(&'static str),
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// What the library itself refuses, with the code a server would use for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the VDI is open in this program")]
    Open,
    #[error("no such VDI")]
    NoVdi,
    #[error("the handle is read-only")]
    ReadOnly,
    #[error("the VDI is of a kind for which this library does not do that")]
    NoSupport,
    #[error("the event library is not in this process")]
    NoEventLibrary,
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Error {
        Error::NoMem("a buffer")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Lost(lost) => Error::Lost(lost),
            Failure::Fault => Error::Fault,
            Failure::NoMemory => NoMemory.into(),
        }
    }
}

impl Error {
    /// The code that C callers get; never 0.
    pub fn code(&self) -> i32 {
        let result = match self {
            Error::Server { result, .. } if result.is_success() => SdResult::UNKNOWN,
            Error::Server { result, .. } => *result,
            Error::Invalid(_) | Error::Fault => SdResult::INVALID_PARMS,
            Error::Refused(Refusal::Open) => SdResult::VDI_LOCKED,
            Error::Refused(Refusal::NoVdi) => SdResult::NO_VDI,
            Error::Refused(Refusal::ReadOnly) => SdResult::READONLY,
            Error::Refused(Refusal::NoSupport | Refusal::NoEventLibrary) => SdResult::NO_SUPPORT,
            Error::NoMem(_) => SdResult::NO_MEM,
            Error::Io(_) => SdResult::EIO,
            Error::Internal(_) => SdResult::SYSTEM_ERROR,
            Error::TimedOut(_) => return code::TIMEDOUT,
            Error::Canceled => return code::CANCELED,
            Error::BadReply(_) | Error::NoSheep(_) | Error::Lost(Lost { corrupt: Some(_), .. }) => {
                return code::BAD_REPLY;
            }
            Error::NotConnected(_) | Error::Lost(_) => return code::NOT_CONNECTED,
        };
        // A server may send any 32-bit value; what does not fit a positive int is unknown to us.
        i32::try_from(result.0).unwrap_or(SdResult::UNKNOWN.0 as i32)
    }

    /// The result, if a server gave it.
    pub fn server_result(&self) -> Option<SdResult> {
        match self {
            Error::Server { result, .. } => Some(*result),
            _ => None,
        }
    }
}

/// The text of a result code, for `sd_strerror`.
pub fn c_text(result: i32) -> &'static CStr {
    match result {
        code::TIMEDOUT => c"Timed out",
        code::CANCELED => c"Canceled",
        code::BAD_REPLY => c"The peer broke the protocol",
        code::NOT_CONNECTED => c"No gateway reachable",
        _ => u32::try_from(result)
            .ok()
            .and_then(|result| SdResult(result).c_text())
            .unwrap_or(c"Unknown result"),
    }
}

/// The errno that a driver which speaks errno reports for a result code; 0 for success.
pub fn errno(result: i32) -> i32 {
    match result {
        code::TIMEDOUT => return libc::ETIMEDOUT,
        code::CANCELED => return libc::ECANCELED,
        code::BAD_REPLY => return libc::EPROTO,
        code::NOT_CONNECTED => return libc::ENOTCONN,
        _ => {}
    }
    match u32::try_from(result).map_or(SdResult::UNKNOWN, SdResult) {
        SdResult::SUCCESS => 0,
        SdResult::VDI_EXIST | SdResult::OID_EXIST => libc::EEXIST,
        SdResult::INVALID_PARMS => libc::EINVAL,
        SdResult::VDI_LOCKED => libc::EBUSY,
        SdResult::NO_VDI
        | SdResult::NO_BASE_VDI
        | SdResult::NO_TAG
        | SdResult::NO_OBJ
        | SdResult::NOT_FOUND => libc::ENOENT,
        SdResult::NO_MEM => libc::ENOMEM,
        SdResult::NO_SPACE | SdResult::FULL_VDI => libc::ENOSPC,
        SdResult::READONLY => libc::EROFS,
        // There is nothing behind the address yet, and it takes an administrator to change that.
        SdResult::WAIT_FOR_FORMAT => libc::ENXIO,
        SdResult::VER_MISMATCH => libc::EPROTONOSUPPORT,
        SdResult::NO_SUPPORT => libc::EOPNOTSUPP,
        SdResult::BUFFER_SMALL => libc::ERANGE,
        SdResult::VDI_NOT_EMPTY => libc::ENOTEMPTY,
        SdResult::STARTUP
        | SdResult::WAIT_FOR_JOIN
        | SdResult::HALT
        | SdResult::AGAIN
        | SdResult::COLLECTING_CINFO
        | SdResult::NODE_IN_RECOVERY => libc::EAGAIN,
        SdResult::SHUTDOWN | SdResult::KILLED => libc::ESHUTDOWN,
        _ => libc::EIO,
    }
}
