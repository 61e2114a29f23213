//! Why something failed, as Rust programs are told.

use std::fmt;
use std::io;

use sheepdog_proto::SdResult;

use crate::error::{self as core, Refusal};
use crate::vdi::Client;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was, for programs to decide by. There may be more kinds one day.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such VDI, snapshot or attribute.
    NotFound,
    /// The name or tag is in use.
    AlreadyExists,
    /// Another client has the lock of the VDI, or this connection has it open.
    Locked,
    /// An argument is wrong: a range past the end, a name that is too long, a malformed address.
    InvalidInput,
    /// A write to what was opened for reading, or to a snapshot.
    ReadOnly,
    /// This kind of VDI, or this server, does not have that.
    Unsupported,
    /// The cluster has no space left, or no VDI ids.
    NoSpace,
    /// Nothing came within the time limit. It is open whether it was carried out.
    TimedOut,
    /// The connection was closed by this program.
    Canceled,
    /// No gateway can be reached.
    NotConnected,
    /// What answers is no Sheepdog server, or breaks the protocol.
    Protocol,
    /// The cluster has not been formatted.
    NotFormatted,
    /// The cluster cannot serve just now: it starts, stops, or has lost too many nodes.
    Unavailable,
    /// No memory, no file descriptor, or the buffer limit.
    OutOfMemory,
    /// Data that should exist does not, or cannot be read or written.
    Io,
    /// Anything else.
    Other,
}

/// Why an operation failed: what it was about, what a server or the system said, and which gateway.
///
/// The text is that of the C function `sd_last_error()`: for people, and another one in another
/// release. Programs use [`kind`](Error::kind), or [`code`](Error::code).
#[derive(Clone)]
pub struct Error(Box<Failure>);

#[derive(Clone)]
struct Failure {
    /// "" where there is nothing to say.
    about: String,
    error: core::Error,
    /// As `about`.
    more: String,
}

impl Error {
    pub(super) fn new(about: String, error: core::Error, client: Option<&Client>) -> Error {
        let more = client.and_then(|client| client.cluster.whence(&error)).unwrap_or_default();
        Error(Box::new(Failure { about, error, more }))
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind::*;
        match &self.0.error {
            core::Error::Invalid(_) | core::Error::Fault => InvalidInput,
            core::Error::Refused(Refusal::Open) => Locked,
            core::Error::Refused(Refusal::NoVdi) => NotFound,
            core::Error::Refused(Refusal::ReadOnly) => ReadOnly,
            core::Error::Refused(Refusal::NoSupport | Refusal::NoEventLibrary) => Unsupported,
            core::Error::TimedOut(_) => TimedOut,
            core::Error::Canceled => Canceled,
            core::Error::BadReply(_) | core::Error::NoSheep(_) => Protocol,
            core::Error::Lost(lost) if lost.corrupt.is_some() => Protocol,
            core::Error::NotConnected(_) | core::Error::Lost(_) => NotConnected,
            core::Error::NoMem(_) => OutOfMemory,
            core::Error::Io(_) => Io,
            core::Error::Internal(_) => Other,
            core::Error::Server { result, .. } => match *result {
                SdResult::VDI_EXIST | SdResult::OID_EXIST => AlreadyExists,
                SdResult::INVALID_PARMS => InvalidInput,
                SdResult::VDI_LOCKED => Locked,
                SdResult::NO_VDI
                | SdResult::NO_BASE_VDI
                | SdResult::NO_TAG
                | SdResult::NO_OBJ
                | SdResult::NOT_FOUND => NotFound,
                SdResult::NO_MEM => OutOfMemory,
                SdResult::NO_SPACE | SdResult::FULL_VDI => NoSpace,
                SdResult::READONLY => ReadOnly,
                SdResult::WAIT_FOR_FORMAT => NotFormatted,
                SdResult::VER_MISMATCH => Protocol,
                SdResult::NO_SUPPORT => Unsupported,
                SdResult::EIO => Io,
                _ if self.0.error.is_transient() => Unavailable,
                _ => Other,
            },
        }
    }

    /// The result that a C program gets: one of `SD_RES_*`, never 0.
    pub fn code(&self) -> i32 {
        self.0.error.code()
    }

    /// The errno for a driver that speaks errno; never 0.
    pub fn errno(&self) -> i32 {
        core::errno(self.code())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { about, error, more } = &*self.0;
        let colon = if about.is_empty() { "" } else { ": " };
        write!(f, "{about}{colon}{error}{more}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind())
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Of the kind that fits best; the error itself is its source.
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::NotConnected => io::ErrorKind::NotConnected,
            ErrorKind::Protocol => io::ErrorKind::InvalidData,
            ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_that_a_driver_tells_apart_has_a_kind_of_its_own() {
        let of =
            |result| Error::new(String::new(), core::Error::Server { opcode: 1, result }, None);
        for (result, kind) in [
            (SdResult::NO_VDI, ErrorKind::NotFound),
            (SdResult::NO_TAG, ErrorKind::NotFound),
            (SdResult::VDI_EXIST, ErrorKind::AlreadyExists),
            (SdResult::VDI_LOCKED, ErrorKind::Locked),
            (SdResult::FULL_VDI, ErrorKind::NoSpace),
            (SdResult::HALT, ErrorKind::Unavailable),
            (SdResult::SHUTDOWN, ErrorKind::Unavailable),
            (SdResult::SYSTEM_ERROR, ErrorKind::Other),
        ] {
            assert_eq!(of(result).kind(), kind, "{result}");
            assert_eq!(of(result).code(), result.0 as i32);
        }
    }

    #[test]
    fn what_is_said_begins_with_what_it_is_about() {
        let error = Error::new("VDI \"a\"".into(), core::Error::Refused(Refusal::ReadOnly), None);
        assert_eq!(error.to_string(), "VDI \"a\": the handle is read-only");
        assert_eq!(format!("{error:?}"), "ReadOnly(VDI \"a\": the handle is read-only)");
        assert_eq!(error.errno(), libc::EROFS);
        let io: io::Error = error.into();
        assert_eq!(io.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(io.get_ref().is_some_and(|inner| inner.is::<Error>()));
    }
}
