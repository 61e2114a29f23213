//! Schedules as data: operations of the API, when they start, and the faults that meet them.
//!
//! A schedule is one line of text and back, so that a failure can be printed, shrunk and kept.
//! Knows nothing of how operations are run (play) or judged (check).

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{Delays, Fault};

/// Bytes of a sector: the unit in which contents are written, read and compared.
pub const SECTOR: u64 = 512;

/// Names an operation, for good: what it writes carries it, and shrinking keeps it.
pub type OpId = u32;

/// The client that an operation is of: a place, in which one client can follow another.
pub type Place = usize;

#[derive(Clone, PartialEq, Debug)]
pub struct Schedule {
    pub config: Config,
    pub ops: Vec<Op>,
    pub faults: Vec<Fault>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Of the delays.
    pub seed: u64,
    pub nodes: usize,
    pub copies: usize,
    pub clients: usize,
    /// The cluster enforces locks.
    pub lock: bool,
    pub recycle: bool,
    /// The servers have the hazards that no client can prevent, and are slow to tell each other.
    pub hazards: bool,
    pub delays: Delays,
    /// When faults stop.
    pub quiesce: Duration,
    /// Reads must end within seconds, whatever hangs: nothing that they touch is pending.
    pub prompt: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Op {
    pub id: OpId,
    pub client: Place,
    pub start: Start,
    /// Milliseconds; 0: none.
    pub deadline: u32,
    /// The future is dropped when it waits for that time, counted from 1.
    pub drop_at: Option<u32>,
    pub action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    At(Duration),
    /// So much after another operation has ended.
    After(OpId, Duration),
}

/// The number of a name, a tag, a key, a place for the handle of a snapshot.
pub type Number = u8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Tag(Number),
    Id(u32),
}

/// Ranges are in sectors. What works on a handle uses the client's last one on that name, and is
/// left out where it has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Create {
        name: Number,
        sectors: u64,
        shift: u8,
        hyper: bool,
        prealloc: bool,
    },
    Open {
        name: Number,
    },
    Close {
        name: Number,
    },
    Read {
        name: Number,
        at: u64,
        len: u64,
    },
    Write {
        name: Number,
        at: u64,
        len: u64,
    },
    /// Also what zeroes are written by.
    Discard {
        name: Number,
        at: u64,
        len: u64,
    },
    Flush {
        name: Number,
    },
    Resize {
        name: Number,
        sectors: u64,
    },
    Status {
        name: Number,
    },
    Refresh {
        name: Number,
    },
    Info {
        name: Number,
    },
    List,
    Snapshot {
        name: Number,
        tag: Number,
    },
    OpenSnap {
        name: Number,
        which: Which,
        slot: Number,
    },
    ReadSnap {
        slot: Number,
        at: u64,
        len: u64,
    },
    CloseSnap {
        slot: Number,
    },
    Snapshots {
        name: Number,
    },
    DeleteSnap {
        name: Number,
        which: Which,
    },
    Rollback {
        slot: Number,
    },
    Clone {
        slot: Number,
        name: Number,
    },
    Delete {
        name: Number,
    },
    SetAttr {
        name: Number,
        key: Number,
    },
    GetAttr {
        name: Number,
        key: Number,
    },
    DelAttr {
        name: Number,
        key: Number,
    },
    /// Closes the client, with all that is under way, and puts a new one in its place.
    Renew,
}

impl Action {
    /// The name that it is about, where its text says so.
    pub fn name(&self) -> Option<Number> {
        use Action::*;
        match *self {
            Create { name, .. }
            | Open { name }
            | Close { name }
            | Read { name, .. }
            | Write { name, .. }
            | Discard { name, .. }
            | Flush { name }
            | Resize { name, .. }
            | Status { name }
            | Refresh { name }
            | Info { name }
            | Snapshot { name, .. }
            | OpenSnap { name, .. }
            | Snapshots { name }
            | DeleteSnap { name, .. }
            | Clone { name, .. }
            | Delete { name }
            | SetAttr { name, .. }
            | GetAttr { name, .. }
            | DelAttr { name, .. } => Some(name),
            List | ReadSnap { .. } | CloseSnap { .. } | Rollback { .. } | Renew => None,
        }
    }
}

impl Schedule {
    /// Without the operations and faults that `keep` refuses. What started after one that goes
    /// starts when that would have.
    pub fn filtered(&self, op: impl Fn(OpId) -> bool, fault: impl Fn(usize) -> bool) -> Schedule {
        let find = |id: OpId| self.ops.iter().find(|op| op.id == id);
        let rebase = |mut start: Start| loop {
            let Start::After(id, plus) = start else { return start };
            match find(id) {
                Some(_) if op(id) => return start,
                Some(gone) => {
                    start = match gone.start {
                        Start::At(at) => Start::At(at + plus),
                        Start::After(before, more) => Start::After(before, more + plus),
                    }
                }
                None => return Start::At(plus),
            }
        };
        let ops = self.ops.iter().filter(|o| op(o.id));
        let faults = self.faults.iter().enumerate().filter(|(i, _)| fault(*i));
        Schedule {
            config: self.config.clone(),
            ops: ops.map(|op| Op { start: rebase(op.start), ..op.clone() }).collect(),
            faults: faults.map(|(_, fault)| *fault).collect(),
        }
    }
}

// --- Contents ---

/// What a sector holds, as far as it matters: whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    Zero,
    Of(OpId),
    /// What nobody wrote there.
    Garbage,
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Zero => f.write_str("zeros"),
            Value::Of(id) => write!(f, "what {id} wrote"),
            Value::Garbage => f.write_str("garbage"),
        }
    }
}

const MAGIC: u64 = 0x5ec7_0000_0000_0000;

/// What `id` writes to `len` sectors at `at`.
pub fn contents(id: OpId, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((len * SECTOR) as usize);
    for sector in at..at + len {
        let words = u128::from(sector) << 64 | u128::from(MAGIC | u64::from(id));
        for _ in 0..SECTOR / 16 {
            bytes.extend_from_slice(&words.to_le_bytes());
        }
    }
    bytes
}

/// What the sector `at` holds.
pub fn value(bytes: &[u8], at: u64) -> Value {
    let mut words =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let (first, second) = (words.next().unwrap_or(1), words.next().unwrap_or(1));
    if first == 0 && second == 0 && words.clone().all(|word| word == 0) {
        return Value::Zero;
    }
    let whole = words.enumerate().all(|(i, word)| word == if i % 2 == 0 { first } else { second });
    match whole && first & !0xffff_ffff == MAGIC && second == at {
        true => Value::Of(first as OpId),
        false => Value::Garbage,
    }
}

// --- Text ---

fn letter(number: Number) -> char {
    (b'a' + number) as char
}

impl Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Tag(tag) => write!(f, "t{tag}"),
            Which::Id(id) => write!(f, "#{id}"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Action::*;
        match *self {
            Create { name, sectors, shift, hyper, prealloc } => {
                write!(f, "create {} {sectors} {shift}", letter(name))?;
                f.write_str(if hyper { " hyper" } else { "" })?;
                f.write_str(if prealloc { " prealloc" } else { "" })
            }
            Open { name } => write!(f, "open {}", letter(name)),
            Close { name } => write!(f, "close {}", letter(name)),
            Read { name, at, len } => write!(f, "read {} {at} {len}", letter(name)),
            Write { name, at, len } => write!(f, "write {} {at} {len}", letter(name)),
            Discard { name, at, len } => write!(f, "discard {} {at} {len}", letter(name)),
            Flush { name } => write!(f, "flush {}", letter(name)),
            Resize { name, sectors } => write!(f, "resize {} {sectors}", letter(name)),
            Status { name } => write!(f, "status {}", letter(name)),
            Refresh { name } => write!(f, "refresh {}", letter(name)),
            Info { name } => write!(f, "info {}", letter(name)),
            List => f.write_str("list"),
            Snapshot { name, tag } => write!(f, "snapshot {} t{tag}", letter(name)),
            OpenSnap { name, which, slot } => {
                write!(f, "opensnap {} {which} s{slot}", letter(name))
            }
            ReadSnap { slot, at, len } => write!(f, "readsnap s{slot} {at} {len}"),
            CloseSnap { slot } => write!(f, "closesnap s{slot}"),
            Snapshots { name } => write!(f, "snapshots {}", letter(name)),
            DeleteSnap { name, which } => write!(f, "delsnap {} {which}", letter(name)),
            Rollback { slot } => write!(f, "rollback s{slot}"),
            Clone { slot, name } => write!(f, "clone s{slot} {}", letter(name)),
            Delete { name } => write!(f, "delete {}", letter(name)),
            SetAttr { name, key } => write!(f, "setattr {} k{key}", letter(name)),
            GetAttr { name, key } => write!(f, "getattr {} k{key}", letter(name)),
            DelAttr { name, key } => write!(f, "delattr {} k{key}", letter(name)),
            Renew => f.write_str("renew"),
        }
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} c{} ", self.id, self.client)?;
        match self.start {
            Start::At(at) => write!(f, "@{}", at.as_micros())?,
            Start::After(id, Duration::ZERO) => write!(f, ">{id}")?,
            Start::After(id, plus) => write!(f, ">{id}+{}", plus.as_micros())?,
        }
        if self.deadline != 0 {
            write!(f, " d{}", self.deadline)?;
        }
        if let Some(k) = self.drop_at {
            write!(f, " x{k}")?;
        }
        write!(f, " {}", self.action)
    }
}

impl Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        write!(f, "seed={} nodes={} copies={} clients={}", c.seed, c.nodes, c.copies, c.clients)?;
        let flags = [
            ("lock", c.lock),
            ("recycle", c.recycle),
            ("hazards", c.hazards),
            ("prompt", c.prompt),
        ];
        for (name, _) in flags.iter().filter(|(_, set)| *set) {
            write!(f, " {name}")?;
        }
        let delays = c.delays.to_string().replace(' ', ",");
        write!(f, " delays={delays} quiesce={}", c.quiesce.as_micros())?;
        self.ops.iter().try_for_each(|op| write!(f, " | {op}"))?;
        self.faults.iter().try_for_each(|fault| write!(f, " | !{fault}"))
    }
}

/// The words of one part of the line.
struct Words<'a> {
    text: &'a str,
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Words<'a> {
        Words { text, words: text.split_whitespace().peekable() }
    }

    fn wrong(&self) -> String {
        format!("cannot read {:?}", self.text.trim())
    }

    fn word(&mut self) -> Result<&'a str, String> {
        self.words.next().ok_or_else(|| self.wrong())
    }

    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        self.word()?.parse().map_err(|_| self.wrong())
    }

    /// A number after a mark.
    fn marked<T: FromStr>(&mut self, mark: char) -> Result<T, String> {
        let word = self.word()?;
        word.strip_prefix(mark).and_then(|n| n.parse().ok()).ok_or_else(|| self.wrong())
    }

    /// As [`Words::marked`], where that is next.
    fn optional<T: FromStr>(&mut self, mark: char) -> Result<Option<T>, String> {
        match self.words.peek() {
            Some(word)
                if word[1..].starts_with(|c: char| c.is_ascii_digit())
                    && word.starts_with(mark) =>
            {
                self.marked(mark).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        self.words.next_if(|word| *word == name).is_some()
    }

    fn name(&mut self) -> Result<Number, String> {
        match self.word()?.as_bytes() {
            [letter @ b'a'..=b'z'] => Ok(letter - b'a'),
            _ => Err(self.wrong()),
        }
    }

    fn which(&mut self) -> Result<Which, String> {
        match self.optional('t')? {
            Some(tag) => Ok(Which::Tag(tag)),
            None => self.marked('#').map(Which::Id),
        }
    }

    fn start(&mut self) -> Result<Start, String> {
        let word = self.word()?;
        let micros = |text: &str| text.parse().map(Duration::from_micros).ok();
        let start = match (word.strip_prefix('@'), word.strip_prefix('>')) {
            (Some(at), _) => micros(at).map(Start::At),
            (_, Some(after)) => {
                let (id, plus) = after.split_once('+').unwrap_or((after, "0"));
                id.parse().ok().zip(micros(plus)).map(|(id, plus)| Start::After(id, plus))
            }
            _ => None,
        };
        start.ok_or_else(|| self.wrong())
    }

    fn action(&mut self) -> Result<Action, String> {
        use Action::*;
        Ok(match self.word()? {
            "create" => Create {
                name: self.name()?,
                sectors: self.number()?,
                shift: self.number()?,
                hyper: self.flag("hyper"),
                prealloc: self.flag("prealloc"),
            },
            "open" => Open { name: self.name()? },
            "close" => Close { name: self.name()? },
            "read" => Read { name: self.name()?, at: self.number()?, len: self.number()? },
            "write" => Write { name: self.name()?, at: self.number()?, len: self.number()? },
            "discard" => Discard { name: self.name()?, at: self.number()?, len: self.number()? },
            "flush" => Flush { name: self.name()? },
            "resize" => Resize { name: self.name()?, sectors: self.number()? },
            "status" => Status { name: self.name()? },
            "refresh" => Refresh { name: self.name()? },
            "info" => Info { name: self.name()? },
            "list" => List,
            "snapshot" => Snapshot { name: self.name()?, tag: self.marked('t')? },
            "opensnap" => {
                OpenSnap { name: self.name()?, which: self.which()?, slot: self.marked('s')? }
            }
            "readsnap" => {
                ReadSnap { slot: self.marked('s')?, at: self.number()?, len: self.number()? }
            }
            "closesnap" => CloseSnap { slot: self.marked('s')? },
            "snapshots" => Snapshots { name: self.name()? },
            "delsnap" => DeleteSnap { name: self.name()?, which: self.which()? },
            "rollback" => Rollback { slot: self.marked('s')? },
            "clone" => Clone { slot: self.marked('s')?, name: self.name()? },
            "delete" => Delete { name: self.name()? },
            "setattr" => SetAttr { name: self.name()?, key: self.marked('k')? },
            "getattr" => GetAttr { name: self.name()?, key: self.marked('k')? },
            "delattr" => DelAttr { name: self.name()?, key: self.marked('k')? },
            "renew" => Renew,
            _ => return Err(self.wrong()),
        })
    }

    fn op(&mut self) -> Result<Op, String> {
        Ok(Op {
            id: self.number()?,
            client: self.marked('c')?,
            start: self.start()?,
            deadline: self.optional('d')?.unwrap_or(0),
            drop_at: self.optional('x')?,
            action: self.action()?,
        })
    }

    fn config(&mut self) -> Result<Config, String> {
        let mut config = Config {
            seed: 0,
            nodes: 1,
            copies: 1,
            clients: 1,
            lock: false,
            recycle: false,
            hazards: false,
            delays: Delays::default(),
            quiesce: Duration::ZERO,
            prompt: false,
        };
        while let Some(word) = self.words.next() {
            let (key, text) = word.split_once('=').unwrap_or((word, "0"));
            let number = text.parse::<u64>();
            match key {
                "lock" => config.lock = true,
                "recycle" => config.recycle = true,
                "hazards" => config.hazards = true,
                "prompt" => config.prompt = true,
                "delays" => {
                    let delays = text.replace(',', " ").parse();
                    config.delays = delays.map_err(|_| self.wrong())?;
                }
                _ => {
                    let number = number.map_err(|_| self.wrong())?;
                    match key {
                        "seed" => config.seed = number,
                        "nodes" => config.nodes = number as usize,
                        "copies" => config.copies = number as usize,
                        "clients" => config.clients = number as usize,
                        "quiesce" => config.quiesce = Duration::from_micros(number),
                        _ => return Err(self.wrong()),
                    }
                }
            }
        }
        Ok(config)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(line: &str) -> Result<Schedule, String> {
        let mut parts = line.split('|').map(str::trim);
        let config = Words::new(parts.next().unwrap_or_default()).config()?;
        let mut schedule = Schedule { config, ops: Vec::new(), faults: Vec::new() };
        for part in parts {
            match part.strip_prefix('!') {
                Some(fault) => {
                    let fault = fault.trim().parse();
                    schedule.faults.push(fault.map_err(|_| format!("cannot read {part:?}"))?);
                }
                None => {
                    let mut words = Words::new(part);
                    schedule.ops.push(words.op()?);
                    if words.words.next().is_some() {
                        return Err(words.wrong());
                    }
                }
            }
        }
        Ok(schedule)
    }
}
