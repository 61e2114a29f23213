//! What goes wrong in a world, and how long things take in it: plain data, a line of text each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sheepdog_proto::inode::MAP_OFFSET;
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{Oid, Request, op};

use crate::host::NodeId;

/// The number of a client, as its gateways' addresses have it.
pub type ClientId = usize;

/// `client`, `nth` and `matches` name a request: the one of its kind with so many of them before
/// it, counted as the client sends them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGSTOP, and SIGCONT after `length`: the node's kernel goes on accepting connections and
    /// bytes, nothing of it executes. None: until faults stop.
    Stall { node: NodeId, at: Duration, length: Option<Duration> },
    /// Its connections end, its tasks are gone, its store survives. What its peers have begun for
    /// it goes on. None: until faults stop.
    Kill { node: NodeId, at: Duration, restart: Option<Duration> },
    /// Packets between the two vanish without a word. Connections that the client's kernel hears
    /// nothing on for 20 s are lost (ETIMEDOUT); others go on where they were.
    Partition { client: ClientId, node: NodeId, at: Duration, length: Duration },
    /// The connection breaks at a request.
    Cut { client: ClientId, nth: u32, matches: Kind, when: When },
    /// The request is carried out so much later. Up to [`Fault::LATE_LIMIT`] the connection breaks
    /// at once, as of a server that its peers outlive; beyond that it goes silent, and ends after
    /// the execution.
    Late { client: ClientId, nth: u32, matches: Kind, by: Duration },
    /// The server gives this result, having carried the request out or not.
    Answer { client: ClientId, nth: u32, matches: Kind, result: u32, executed: bool },
    /// The answer comes so much later, on a connection that works.
    Slow { client: ClientId, nth: u32, matches: Kind, by: Duration },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Nobody will carry it out.
    Before,
    /// It is carried out all the same.
    AfterReceived,
    /// Its answer is lost.
    AfterExecuted,
}

impl Fault {
    /// Both servers close a connection only after its requests have ended, or are dead themselves;
    /// what their peers are still at is over within 2 s (protocol.md 5.15).
    pub const LATE_LIMIT: Duration = Duration::from_millis(1500);

    /// Which request it is about, where it is about one: client, kind, and how many of them come
    /// before it.
    pub fn request(&self) -> Option<(ClientId, Kind, u32)> {
        match *self {
            Fault::Stall { .. } | Fault::Kill { .. } | Fault::Partition { .. } => None,
            Fault::Cut { client, nth, matches, .. }
            | Fault::Late { client, nth, matches, .. }
            | Fault::Answer { client, nth, matches, .. }
            | Fault::Slow { client, nth, matches, .. } => Some((client, matches, nth)),
        }
    }
}

/// Makes an enum whose variants are words.
macro_rules! words {
    ($name:ident: $($variant:ident = $word:literal),* $(,)?) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word),* })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<$name, String> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!(concat!("{:?} is no ", stringify!($name)), word)),
                }
            }
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }
    };
}

words!(When: Before = "before", AfterReceived = "received", AfterExecuted = "executed");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Any,
    Create,
    Write,
    MapUpdate,
    HeaderWrite,
    NewVdi,
    DelVdi,
    Lock,
    Release,
    Attr,
    Read,
    InodeRead,
    Lookup,
    Remove,
}

words!(Kind: Any = "any", Create = "create", Write = "write", MapUpdate = "map",
    HeaderWrite = "header", NewVdi = "new", DelVdi = "del", Lock = "lock", Release = "release",
    Attr = "attr", Read = "read", InodeRead = "inode", Lookup = "lookup", Remove = "remove");

impl Kind {
    /// Any for what has no kind of its own.
    pub fn of(request: &Request) -> Kind {
        let oid = Oid(request.obj().oid.get());
        // What every connection begins with is no part of what a client does.
        if oid.vid().is_none() && request.opcode == op::READ_OBJ {
            return Kind::Any;
        }
        match (request.opcode, oid.kind()) {
            (op::READ_OBJ, Some(OidKind::Inode)) => Kind::InodeRead,
            (op::READ_OBJ | op::WRITE_OBJ, Some(OidKind::Attr)) => Kind::Attr,
            (op::READ_OBJ, _) => Kind::Read,
            (op::WRITE_OBJ, Some(OidKind::Inode)) => {
                let in_map = request.obj().offset.get() >= MAP_OFFSET;
                if in_map { Kind::MapUpdate } else { Kind::HeaderWrite }
            }
            (op::WRITE_OBJ, Some(OidKind::Btree)) => Kind::MapUpdate,
            (op::WRITE_OBJ, _) => Kind::Write,
            (op::DISCARD_OBJ, _) => Kind::MapUpdate,
            (op::CREATE_AND_WRITE_OBJ, _) => Kind::Create,
            (op::REMOVE_OBJ, _) => Kind::Remove,
            (op::NEW_VDI, _) => Kind::NewVdi,
            (op::DEL_VDI, _) => Kind::DelVdi,
            (op::LOCK_VDI, _) => Kind::Lock,
            (op::RELEASE_VDI, _) => Kind::Release,
            (op::GET_VDI_ATTR, _) => Kind::Attr,
            (op::GET_VDI_INFO | op::READ_VDIS | op::READ_DEL_VDIS, _) => Kind::Lookup,
            _ => Kind::Any,
        }
    }

    pub fn includes(self, kind: Kind) -> bool {
        self == Kind::Any || self == kind
    }
}

/// How long things take, at most: each delay is drawn for itself, small ones as often as large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delays {
    /// Bytes from one end of a connection to the other.
    pub network: Duration,
    /// A step of a server.
    pub step: Duration,
    /// One step of sixteen, instead.
    pub tail: Duration,
}

impl Delays {
    pub const NONE: Delays =
        Delays { network: Duration::ZERO, step: Duration::ZERO, tail: Duration::ZERO };
}

impl Default for Delays {
    fn default() -> Delays {
        let ms = Duration::from_millis;
        Delays { network: ms(2), step: ms(4), tail: ms(60) }
    }
}

/// A duration in whole microseconds; None is a dash.
struct Micros(Option<Duration>);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => write!(f, "{}", duration.as_micros()),
            None => f.write_str("-"),
        }
    }
}

fn micros(duration: Duration) -> Micros {
    Micros(Some(duration))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Stall { node, at, length } => {
                write!(f, "stall {node} {} {}", micros(at), Micros(length))
            }
            Fault::Kill { node, at, restart } => {
                write!(f, "kill {node} {} {}", micros(at), Micros(restart))
            }
            Fault::Partition { client, node, at, length } => {
                write!(f, "partition {client} {node} {} {}", micros(at), micros(length))
            }
            Fault::Cut { client, nth, matches, when } => {
                write!(f, "cut {client} {nth} {matches} {when}")
            }
            Fault::Late { client, nth, matches, by } => {
                write!(f, "late {client} {nth} {matches} {}", micros(by))
            }
            Fault::Answer { client, nth, matches, result, executed } => {
                write!(f, "answer {client} {nth} {matches} {result} {executed}")
            }
            Fault::Slow { client, nth, matches, by } => {
                write!(f, "slow {client} {nth} {matches} {}", micros(by))
            }
        }
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", micros(self.network), micros(self.step), micros(self.tail))
    }
}

/// The words of a line, one after the other.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Words<'a> {
        Words(line.split_whitespace())
    }

    fn word(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a word is missing".to_string())
    }

    fn get<T: FromStr<Err: fmt::Display>>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|e| format!("{word:?}: {e}"))
    }

    fn time(&mut self) -> Result<Duration, String> {
        self.get().map(Duration::from_micros)
    }

    fn optional_time(&mut self) -> Result<Option<Duration>, String> {
        match self.0.clone().next() {
            Some("-") => self.word().map(|_| None),
            _ => self.time().map(Some),
        }
    }

    fn end<T>(mut self, value: T) -> Result<T, String> {
        match self.0.next() {
            None => Ok(value),
            Some(word) => Err(format!("{word:?} is one word too many")),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(line: &str) -> Result<Fault, String> {
        let mut w = Words::of(line);
        let word = w.word()?;
        let fault = match word {
            "stall" => Fault::Stall { node: w.get()?, at: w.time()?, length: w.optional_time()? },
            "kill" => Fault::Kill { node: w.get()?, at: w.time()?, restart: w.optional_time()? },
            "partition" => {
                let (client, node) = (w.get()?, w.get()?);
                Fault::Partition { client, node, at: w.time()?, length: w.time()? }
            }
            _ => {
                let (client, nth, matches) = (w.get()?, w.get()?, w.get()?);
                match word {
                    "cut" => Fault::Cut { client, nth, matches, when: w.get()? },
                    "late" => Fault::Late { client, nth, matches, by: w.time()? },
                    "slow" => Fault::Slow { client, nth, matches, by: w.time()? },
                    "answer" => {
                        let (result, executed) = (w.get()?, w.get()?);
                        Fault::Answer { client, nth, matches, result, executed }
                    }
                    _ => return Err(format!("{word:?} is no fault")),
                }
            }
        };
        w.end(fault)
    }
}

impl FromStr for Delays {
    type Err = String;

    fn from_str(line: &str) -> Result<Delays, String> {
        let mut w = Words::of(line);
        let delays = Delays { network: w.time()?, step: w.time()?, tail: w.time()? };
        w.end(delays)
    }
}
