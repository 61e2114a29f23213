//! What a program may see: the history of a run is held against what was asked for.
//!
//! Everything is a register: each sector, the size, an attribute, whether a name stands for a VDI.
//! An operation has an effect on registers; what a read gives must be the effect of an operation
//! that nothing has replaced for certain. Where the rules are subtle, this allows. Knows the
//! operations and nothing of how they are carried out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use sheepdog_proto::SdResult;

use crate::error::code;
use crate::ops::{Action, Number, OpId, Value, Which};

/// A point of the program's own order: what ended at one point was known when what begins at a
/// later one began.
pub type Tick = u64;

/// Names a client, for good: one that follows another in its place is another.
pub type ClientId = u32;

/// An operation as the program saw it.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: OpId,
    pub client: ClientId,
    pub action: Action,
    pub begin: Tick,
    pub end: Option<Tick>,
    pub began_at: Duration,
    pub ended_at: Duration,
    pub outcome: Outcome,
    /// The operation that opened the handle which it works on.
    pub handle: Option<OpId>,
    /// The snapshot that it works on.
    pub of: Option<Of>,
    /// An open: the client had nothing of that name open. A close: it has nothing of it any more.
    pub alone: bool,
    /// After the faults, in a world where all is well.
    pub phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// As the schedule has it.
    Schedule,
    /// What a client that went through it all is asked afterwards.
    After,
    /// What a client is asked that knows of nothing.
    Fresh,
}

/// A snapshot that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Of {
    pub name: Number,
    pub vid: u32,
    /// None: it has none, or one of nobody's.
    pub tag: Option<Number>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Under way.
    Open,
    Done(Seen),
    /// The result code, and the error's text.
    Failed(i32, String),
    /// There was nothing to do it to.
    Skipped,
}

/// What a successful operation gave.
#[derive(Clone, PartialEq, Debug)]
pub enum Seen {
    Nothing,
    Sectors(Vec<(u64, Value)>),
    Vid(u32),
    /// An opened snapshot, or what info says: size in sectors.
    Info {
        vid: u32,
        sectors: u64,
        tag: Option<Number>,
    },
    Names(Vec<Number>),
    Snapshots(Vec<Of>),
    /// Whose value it is; None: there is no such attribute.
    Attr(Option<OpId>),
    /// The parts that are holes: first sector and length.
    Holes(Vec<(u64, u64)>),
}

/// What the servers have at rest.
#[derive(Clone, Default, Debug)]
pub struct Rest {
    /// Inodes with a name.
    pub inodes: Vec<Inode>,
    /// Entries of live maps whose objects are missing.
    pub missing: Vec<String>,
    /// What is left when everything was deleted.
    pub left: Vec<String>,
    /// Objects among that which the VDI that they were made for does not name.
    pub unnamed: Vec<String>,
    /// Locks that are held after every client was closed.
    pub locks: Vec<u32>,
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub vid: u32,
    pub name: Number,
    pub tag: Option<Number>,
    pub is_snapshot: bool,
    /// Lists leave it out (4.11).
    pub hidden: bool,
}

/// What else of a schedule the checks depend on.
#[derive(Clone, Copy, Default, Debug)]
pub struct Frame {
    pub lock: bool,
    pub prompt: bool,
    /// There are faults, so that requests may be sent twice.
    pub faults: bool,
    pub kills: bool,
    pub clients: usize,
    /// The servers have the hazards that no client can prevent.
    pub hazards: bool,
    /// A server refuses as of a snapshot what it has carried out.
    pub lies: bool,
    /// The answer to a LOCK_VDI may have been lost.
    pub lost_lock: bool,
    /// Steps of servers can take longer than what is slow.
    pub slow_servers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A read gives what it must not.
    Content,
    Garbage,
    /// A snapshot is not what was there, or does not stay what it is.
    Snapshot,
    /// A write is in a snapshot in part.
    Torn,
    Size,
    Tag,
    Name,
    Attr,
    /// A handle went on as a VDI that is another's.
    Follow,
    /// An error that nothing explains.
    Refused,
    Slow,
    Hang,
    /// A map names an object that is not there.
    Missing,
    Leak,
    Lock,
    /// Requests were at the servers together that must not be.
    Rule,
    Panic,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}

/// How long a read may take that meets nothing pending, whatever hangs.
const PROMPT: Duration = Duration::from_secs(6);
/// From here on an operation in a healthy world is slow.
const SLOW: Duration = Duration::from_millis(2500);

/// From here on a close of a client that is alone is: it waits for nothing.
const SLOW_CLOSE: Duration = Duration::from_secs(1);
/// After so long it is no NEW_VDI any more that a creation which gives up is at.
const CREATED: Duration = Duration::from_secs(1);

/// Whether any operation had a time limit that it met, or was dropped.
pub fn gave_up(records: &[Record]) -> bool {
    records.iter().any(|record| {
        matches!(&record.outcome, Outcome::Failed(code::TIMEDOUT | code::CANCELED, _))
    })
}

/// All that is wrong with a history.
pub fn check(records: &[Record], rest: &Rest, frame: Frame) -> Vec<Violation> {
    let mut judge = Judge::new(records, frame);
    judge.reads();
    judge.snapshots();
    judge.torn();
    judge.tags(rest);
    judge.names(rest);
    judge.halves(rest);
    judge.follows();
    judge.exclusive();
    judge.results();
    judge.rest(rest);
    judge.pardon();
    judge.violations
}

impl Record {
    fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_))
    }

    /// Refused before anything was done, or found to be done by another.
    fn is_definite(&self) -> bool {
        let Outcome::Failed(code, _) = self.outcome else { return self.is_done() };
        let single = !matches!(
            self.action,
            Action::Write { .. } | Action::Discard { .. } | Action::Resize { .. }
        );
        single && REFUSALS.iter().any(|refusal| refusal.0 as i32 == code)
    }

    fn end_or_never(&self) -> Tick {
        self.end.unwrap_or(Tick::MAX)
    }

    fn took(&self) -> Duration {
        self.ended_at.saturating_sub(self.began_at)
    }

    /// The working VDI's name that it is about.
    fn working(&self) -> Option<Number> {
        match self.action {
            Action::Rollback { .. } => self.of.map(|of| of.name),
            Action::OpenSnap { .. } | Action::DeleteSnap { .. } | Action::Snapshots { .. } => None,
            action => action.name(),
        }
    }
}

const REFUSALS: [SdResult; 7] = [
    SdResult::VDI_EXIST,
    SdResult::NO_VDI,
    SdResult::NO_TAG,
    SdResult::READONLY,
    SdResult::INVALID_PARMS,
    SdResult::VDI_LOCKED,
    SdResult::NO_SUPPORT,
];

/// What a register holds, as a number; sectors by [`Value`].
#[derive(Clone, Copy, PartialEq, Debug)]
enum Held {
    Sector(Value),
    /// A size, an attribute's setter (0: none), whether a name is there.
    Number(u64),
    /// What a snapshot holds there.
    CopyOf(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Register {
    Sector(Number, u64),
    Size(Number),
    Attr(Number, Number),
    Name(Number),
}

impl Register {
    fn name(&self) -> Number {
        match *self {
            Register::Sector(name, _)
            | Register::Size(name)
            | Register::Attr(name, _)
            | Register::Name(name) => name,
        }
    }
}

/// What an operation does to a register.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// Which record.
    by: usize,
    held: Held,
    /// It may have been made to a VDI that is no more: it need not be seen.
    weak: bool,
}

struct Judge<'a> {
    records: &'a [Record],
    frame: Frame,
    by_id: BTreeMap<OpId, usize>,
    /// Acknowledged snapshots by the ids of their inodes.
    taken: BTreeMap<u32, usize>,
    effects: RefCell<BTreeMap<Register, Rc<Vec<Effect>>>>,
    violations: Vec<Violation>,
}

/// When something is read, and by whom.
#[derive(Clone, Copy)]
struct Look {
    client: ClientId,
    begin: Tick,
    end: Tick,
    /// What others did before this is known to the reader.
    fresh: Tick,
}

impl<'a> Judge<'a> {
    fn new(records: &'a [Record], frame: Frame) -> Judge<'a> {
        let by_id = records.iter().enumerate().map(|(i, record)| (record.id, i)).collect();
        let taken = records.iter().enumerate().filter_map(|(i, record)| match record {
            Record {
                action: Action::Snapshot { .. },
                outcome: Outcome::Done(Seen::Vid(vid)),
                ..
            } => Some((*vid, i)),
            _ => None,
        });
        let taken = taken.collect();
        let effects = RefCell::default();
        Judge { records, frame, by_id, taken, effects, violations: Vec::new() }
    }

    fn fail(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }

    /// The open of the handle that an operation on a working VDI went through.
    fn opener(&self, record: &Record) -> Option<&'a Record> {
        use Action::*;
        let through_handle = matches!(
            record.action,
            Read { .. }
                | Write { .. }
                | Discard { .. }
                | Flush { .. }
                | Resize { .. }
                | Status { .. }
                | Refresh { .. }
                | Info { .. }
                | Snapshot { .. }
                | Close { .. }
        );
        record
            .handle
            .filter(|_| through_handle)
            .and_then(|id| self.by_id.get(&id))
            .map(|i| &self.records[*i])
    }

    // --- Effects ---

    fn effects(&self, register: Register) -> Rc<Vec<Effect>> {
        if let Some(effects) = self.effects.borrow().get(&register) {
            return effects.clone();
        }
        let found = self.records.iter().enumerate().filter_map(|(by, record)| {
            let held = self.effect(record, register)?;
            Some(Effect { by, held, weak: self.is_weak(record) })
        });
        let found = Rc::new(found.collect::<Vec<_>>());
        self.effects.borrow_mut().insert(register, found.clone());
        found
    }

    /// What the operation makes of a register, if it touches it.
    fn effect(&self, record: &Record, register: Register) -> Option<Held> {
        use Action::*;
        let never = !record.is_done() && record.is_definite() && !self.frame.faults;
        if never || record.outcome == Outcome::Skipped || record.working() != Some(register.name())
        {
            return None;
        }
        let copied = || record.of.map(|of| Held::CopyOf(of.vid));
        match register {
            Register::Sector(_, sector) => {
                let zero = Some(Held::Sector(Value::Zero));
                match record.action {
                    Write { at, len, .. } if (at..at + len).contains(&sector) => {
                        Some(Held::Sector(Value::Of(record.id)))
                    }
                    Discard { at, len, .. } if (at..at + len).contains(&sector) => zero,
                    Resize { sectors, .. } if sector >= sectors => zero,
                    Create { .. } | Delete { .. } => zero,
                    Rollback { .. } | Clone { .. } => copied(),
                    _ => None,
                }
            }
            Register::Size(_) => match record.action {
                Create { sectors, .. } | Resize { sectors, .. } => Some(Held::Number(sectors)),
                Rollback { .. } | Clone { .. } => copied(),
                _ => None,
            },
            Register::Attr(_, wanted) => match record.action {
                SetAttr { key, .. } if key == wanted => {
                    Some(Held::Number(u64::from(record.id) + 1))
                }
                DelAttr { key, .. } if key == wanted => Some(Held::Number(0)),
                _ => None,
            },
            Register::Name(_) => match record.action {
                Create { .. } | Rollback { .. } | Clone { .. } => Some(Held::Number(1)),
                Delete { .. } => Some(Held::Number(0)),
                _ => None,
            },
        }
    }

    /// Whether the handle that it went through may be that of a VDI which is deleted.
    fn is_weak(&self, record: &Record) -> bool {
        let (Some(opener), Some(name)) = (self.opener(record), record.working()) else {
            return false;
        };
        self.records.iter().any(|delete| {
            matches!(delete.action, Action::Delete { name: deleted } if deleted == name)
                && delete.outcome != Outcome::Skipped
                && (delete.is_done() || !delete.is_definite())
                && delete.begin < record.end_or_never()
                && !self.is_over(delete, opener)
        })
    }

    /// Whether nothing of `record` can happen any more once `later` has begun.
    fn is_over(&self, record: &Record, later: &Record) -> bool {
        let Some(end) = record.end.filter(|end| *end < later.begin) else { return false };
        if record.client == later.client {
            return true;
        }
        let settled = record.is_definite();
        if settled && !self.frame.faults {
            return true;
        }
        let Some(name) = record.working() else { return settled };
        let barrier = self.records.iter().any(|barrier| {
            let counts = match barrier.action {
                Action::Close { .. } => barrier.alone,
                Action::Flush { .. } => settled,
                _ => false,
            };
            counts
                && barrier.is_done()
                && barrier.client == record.client
                && barrier.working() == Some(name)
                && barrier.begin > end
                && barrier.end_or_never() < later.begin
        });
        barrier || self.is_locked_out(record, end, name, later)
    }

    /// Whether `later` goes through a handle that the cluster's lock gave to its client after
    /// `record` had ended, and so after the lock was let go of.
    fn is_locked_out(&self, record: &Record, end: Tick, name: Number, later: &Record) -> bool {
        let moves = |other: &Record| match other.action {
            Action::Snapshot { name: n, .. } => n == name,
            Action::Rollback { .. } => true,
            _ => false,
        };
        self.frame.lock
            && !self.frame.kills
            && self.opener(record).is_some()
            && !self.records.iter().any(moves)
            && self.opener(later).is_some_and(|open| {
                open.alone && open.is_done() && open.client != record.client && open.begin > end
            })
    }

    // --- Looking ---

    /// Whether the register can hold `value` for whoever looks.
    fn allows(&self, register: Register, value: Held, look: Look, depth: usize) -> bool {
        // Snapshots of rollbacks to snapshots of...: not worth more.
        if depth > 6 {
            return true;
        }
        let effects = self.effects(register);
        effects.iter().any(|effect| {
            let record = &self.records[effect.by];
            record.begin < look.end
                && self.can_be(effect.held, register, value, depth)
                && !effects.iter().any(|other| self.replaces(other, effect, look))
        })
    }

    /// Whether `other` is sure to have come after `effect`, and before the look.
    fn replaces(&self, other: &Effect, effect: &Effect, look: Look) -> bool {
        let (later, record) = (&self.records[other.by], &self.records[effect.by]);
        let known = if later.client == look.client { look.begin } else { look.fresh };
        // A discard leaves alone what it does not know of.
        let knew = !matches!(later.action, Action::Discard { .. })
            || record.client == later.client
            || record.end_or_never() < self.look_of(later).fresh;
        knew && other.by != effect.by
            && later.is_done()
            && !other.weak
            && later.end_or_never() < known
            && self.is_over(record, later)
    }

    fn can_be(&self, held: Held, register: Register, value: Held, depth: usize) -> bool {
        let Held::CopyOf(vid) = held else { return held == value };
        let Some(snapshot) = self.taken.get(&vid).map(|i| &self.records[*i]) else { return true };
        let Some(name) = snapshot.action.name() else { return true };
        let register = match register {
            Register::Sector(_, sector) => Register::Sector(name, sector),
            Register::Size(_) => Register::Size(name),
            other => other,
        };
        self.allows(register, value, self.look_of_snapshot(snapshot), depth + 1)
    }

    /// A snapshot shows what the servers have at some point between its begin and its end.
    fn look_of_snapshot(&self, record: &Record) -> Look {
        let (begin, end) = (record.begin, record.end_or_never());
        Look { client: record.client, begin, end, fresh: begin }
    }

    /// A read through a handle knows what others did before it was opened, or refreshed.
    fn look_of(&self, record: &Record) -> Look {
        let (begin, end) = (record.begin, record.end_or_never());
        let opened = self.opener(record).filter(|open| open.alone).map_or(0, |open| open.begin);
        let refreshed = self.records.iter().filter(|other| {
            matches!(other.action, Action::Refresh { .. })
                && other.is_done()
                && other.client == record.client
                && other.working() == record.working()
                && other.end_or_never() < begin
        });
        let fresh = refreshed.map(|other| other.begin).fold(opened, Tick::max);
        Look { client: record.client, begin, end, fresh }
    }

    // --- Reads of what changes ---

    fn reads(&mut self) {
        for record in self.records {
            let Outcome::Done(seen) = &record.outcome else {
                if let (Action::GetAttr { name, key }, Outcome::Failed(code, _)) =
                    (record.action, &record.outcome)
                    && *code == SdResult::NO_OBJ.0 as i32
                {
                    self.attribute(record, name, key, None);
                }
                continue;
            };
            match (record.action, seen) {
                (Action::Read { name, .. }, Seen::Sectors(sectors)) => {
                    for (sector, value) in sectors {
                        self.sector(record, name, *sector, *value);
                    }
                }
                (Action::Status { name }, Seen::Holes(holes)) => {
                    for (at, len) in holes {
                        for sector in self.touched(name).range(*at..at + len) {
                            self.sector(record, name, *sector, Value::Zero);
                        }
                    }
                }
                (Action::Info { name }, Seen::Info { sectors, .. }) => {
                    // While a snapshot is under way its new VDI has the size that the request
                    // named, which was asked for before.
                    let made = self.records.iter().filter(|made| {
                        matches!(made.action, Action::Snapshot { .. } | Action::Rollback { .. })
                            && made.working() == Some(name)
                            && made.begin < record.end_or_never()
                            && made.end_or_never() > record.begin
                    });
                    let begin = made.map(|made| made.begin).fold(record.begin, Tick::min);
                    let look = Look { begin, fresh: begin, ..self.look_of(record) };
                    let size = Held::Number(*sectors);
                    if !self.allows(Register::Size(name), size, look, 0) {
                        self.fail(Kind::Size, format!("{}: {sectors} sectors", text(record)));
                    }
                }
                (Action::GetAttr { name, key }, Seen::Attr(value)) => {
                    self.attribute(record, name, key, *value);
                }
                _ => {}
            }
        }
    }

    /// The sectors of a name that anything was written to, by number.
    fn touched(&self, name: Number) -> BTreeSet<u64> {
        let written = self.records.iter().filter_map(|record| match record.action {
            Action::Write { name: n, at, len } if n == name => Some(at..at + len),
            _ => None,
        });
        written.flatten().collect()
    }

    fn sector(&mut self, record: &Record, name: Number, sector: u64, value: Value) {
        if value == Value::Garbage {
            return self.fail(Kind::Garbage, format!("{}: sector {sector}", text(record)));
        }
        let register = Register::Sector(name, sector);
        if !self.allows(register, Held::Sector(value), self.look_of(record), 0) {
            let what = format!("{}: sector {sector} holds {value}", text(record));
            let possible = self.possible(register, self.look_of(record));
            self.fail(Kind::Content, format!("{what}; it may hold {possible}"));
        }
    }

    fn possible(&self, register: Register, look: Look) -> String {
        let effects = self.effects(register);
        let held = effects.iter().filter(|effect| {
            self.records[effect.by].begin < look.end
                && !effects.iter().any(|other| self.replaces(other, effect, look))
        });
        let held = held.map(|effect| match effect.held {
            Held::Sector(value) => value.to_string(),
            held => format!("{held:?}"),
        });
        held.collect::<Vec<_>>().join(", or ")
    }

    fn attribute(&mut self, record: &Record, name: Number, key: Number, value: Option<OpId>) {
        let number = value.map_or(0, |id| u64::from(id) + 1);
        let register = Register::Attr(name, key);
        let look = Look { fresh: record.begin, ..self.look_of(record) };
        // Before it is first set it is not there.
        let never = number == 0
            && !self.effects(register).iter().any(|effect| {
                let set = &self.records[effect.by];
                effect.held != Held::Number(0) && set.is_done() && set.end_or_never() < record.begin
            });
        if !never && !self.allows(register, Held::Number(number), look, 0) {
            let what = match value {
                Some(id) => format!("has the value that {id} set"),
                None => "is not there".into(),
            };
            self.fail(Kind::Attr, format!("{}: the attribute {what}", text(record)));
        }
    }

    // --- Snapshots ---

    fn snapshots(&mut self) {
        let mut first: BTreeMap<(u32, u64), (usize, Value)> = BTreeMap::new();
        for (i, record) in self.records.iter().enumerate() {
            let Outcome::Done(seen) = &record.outcome else { continue };
            let (Some(of), Action::ReadSnap { .. }, Seen::Sectors(sectors)) =
                (record.of, record.action, seen)
            else {
                if let (Some(of), Seen::Info { sectors, .. }) = (record.of, seen)
                    && let Some(taken) = self.taken.get(&of.vid).map(|i| &self.records[*i])
                {
                    let (size, look) = (Held::Number(*sectors), self.look_of_snapshot(taken));
                    if !self.allows(Register::Size(of.name), size, look, 0) {
                        let what = format!(
                            "{}: snapshot {} has {sectors} sectors",
                            text(record),
                            taken.id
                        );
                        self.fail(Kind::Size, what);
                    }
                }
                continue;
            };
            for (sector, value) in sectors.iter().copied() {
                self.snapshot_sector(record, of, sector, value);
                match first.get(&(of.vid, sector)) {
                    None => drop(first.insert((of.vid, sector), (i, value))),
                    Some((_, before)) if *before == value => {}
                    Some((_, before)) if self.may_change(of, sector, [*before, value]) => {}
                    Some((other, before)) => {
                        let other = text(&self.records[*other]);
                        let what =
                            format!("sector {sector} held {before} ({other}), and now {value}");
                        self.fail(Kind::Snapshot, format!("{}: {what}", text(record)));
                    }
                }
            }
        }
    }

    fn snapshot_sector(&mut self, record: &Record, of: Of, sector: u64, value: Value) {
        if value == Value::Garbage {
            return self.fail(Kind::Garbage, format!("{}: sector {sector}", text(record)));
        }
        let register = Register::Sector(of.name, sector);
        let (what, look) = match self.taken.get(&of.vid).map(|i| &self.records[*i]) {
            Some(taken) => (format!("of {}", taken.id), self.look_of_snapshot(taken)),
            // Nobody knows when it was taken. While it is deleted, it is emptied.
            None if of.tag.is_none() => return,
            None => {
                let end = record.end_or_never();
                ("that nobody was told of".into(), Look { client: 0, begin: 0, end, fresh: 0 })
            }
        };
        if !self.allows(register, Held::Sector(value), look, 0) {
            let possible = self.possible(register, look);
            let what = format!("the snapshot {what} holds {value} in sector {sector}");
            self.fail(Kind::Snapshot, format!("{}: {what}; it may hold {possible}", text(record)));
        }
    }

    /// Whether one of the values may have come to a snapshot that was there already: of another
    /// client's change that was under way when it was taken.
    fn may_change(&self, of: Of, sector: u64, values: [Value; 2]) -> bool {
        let takers: Vec<&Record> = match self.taken.get(&of.vid) {
            Some(i) => vec![&self.records[*i]],
            None if of.tag.is_none() => return true,
            None => {
                let takers = self.records.iter().filter(|record| match record.action {
                    Action::Snapshot { name, tag } => name == of.name && Some(tag) == of.tag,
                    _ => false,
                });
                takers.collect()
            }
        };
        let register = Register::Sector(of.name, sector);
        self.effects(register).iter().any(|effect| {
            let record = &self.records[effect.by];
            values.iter().any(|value| effect.held == Held::Sector(*value))
                && takers.iter().any(|taker| {
                    taker.client != record.client
                        && record.begin < taker.end_or_never()
                        && !self.is_over(record, taker)
                })
        })
    }

    /// A write of the client that takes a snapshot is in it, or is not.
    fn torn(&mut self) {
        let mut contents: BTreeMap<u32, BTreeMap<u64, Value>> = BTreeMap::new();
        for record in self.records {
            let Outcome::Done(Seen::Sectors(sectors)) = &record.outcome else { continue };
            if let Some(of) = record.of {
                contents.entry(of.vid).or_default().extend(sectors.iter().copied());
            }
        }
        for (vid, contents) in contents {
            let Some(taken) = self.taken.get(&vid).map(|i| &self.records[*i]) else { continue };
            for write in self.records {
                let Action::Write { name, at, len } = write.action else { continue };
                if Some(name) != taken.action.name()
                    || write.client != taken.client
                    || !write.is_done()
                {
                    continue;
                }
                let range = contents.range(at..at + len);
                let is_in = range.clone().find(|(_, value)| **value == Value::Of(write.id));
                let is_older = range.clone().find(|(sector, value)| {
                    **value != Value::Of(write.id) && self.is_older(name, **sector, **value, write)
                });
                if let (Some((new, _)), Some((old, value))) = (is_in, is_older) {
                    let what = format!(
                        "the snapshot of {} has sector {new} of {}, and in sector {old} {value}",
                        taken.id, write.id
                    );
                    self.fail(Kind::Torn, what);
                }
            }
        }
    }

    /// Whether everything that can have put `value` there was over when `write` began.
    fn is_older(&self, name: Number, sector: u64, value: Value, write: &Record) -> bool {
        let effects = self.effects(Register::Sector(name, sector));
        let mut of_value = effects.iter().filter(|effect| match effect.held {
            Held::CopyOf(_) => true,
            held => held == Held::Sector(value),
        });
        of_value.all(|effect| self.is_over(&self.records[effect.by], write))
    }

    // --- Tags and names ---

    fn tags(&mut self, rest: &Rest) {
        let taken: Vec<(u32, usize)> = self.taken.iter().map(|(vid, i)| (*vid, *i)).collect();
        for (vid, i) in taken {
            let record = &self.records[i];
            let Action::Snapshot { name, tag } = record.action else { continue };
            if self.may_be_deleted(record, name, tag) {
                continue;
            }
            let of_tag =
                |inode: &&Inode| inode.is_snapshot && inode.name == name && inode.tag == Some(tag);
            let all: Vec<u32> = rest.inodes.iter().filter(of_tag).map(|inode| inode.vid).collect();
            if !all.contains(&vid) {
                let what = format!("{}: {vid:06x} is no snapshot t{tag}", text(record));
                self.fail(Kind::Tag, what);
            }
            // Of others that nobody was told of one can be left.
            let unknown = self.records.iter().filter(|other| {
                matches!(other.action, Action::Snapshot { name: n, tag: t } if (n, t) == (name, tag))
                    && !other.is_definite()
                    && other.outcome != Outcome::Skipped
                    && !(other.client == record.client && self.is_over(other, record))
            });
            if all.len() > 1 + unknown.count() {
                let what = format!("{}: {all:06x?} have the tag t{tag}", text(record));
                self.fail(Kind::Tag, what);
            }
        }
    }

    fn may_be_deleted(&self, snapshot: &Record, name: Number, tag: Number) -> bool {
        self.records.iter().any(|delete| {
            let Action::DeleteSnap { name: n, which } = delete.action else { return false };
            let meant = match which {
                Which::Tag(t) => t == tag,
                Which::Id(_) => true,
            };
            n == name
                && meant
                && delete.outcome != Outcome::Skipped
                && (delete.is_done() || !delete.is_definite() || self.frame.faults)
                && !self.is_over(delete, snapshot)
        })
    }

    fn names(&mut self, rest: &Rest) {
        for record in self.records {
            let (client, fresh) = (record.client, record.begin);
            let look = Look { client, begin: fresh, end: record.end_or_never(), fresh };
            match (record.action, &record.outcome) {
                (Action::List, Outcome::Done(Seen::Names(names))) => {
                    for name in self.all_names() {
                        if !self.moves_beside(record, name) && !self.may_move(name, record) {
                            self.name(&text(record), name, names.contains(&name), look);
                        }
                    }
                }
                (Action::Open { name }, Outcome::Done(_)) if record.alone => {
                    self.name(&text(record), name, true, look);
                }
                (Action::Open { name }, Outcome::Failed(code, _))
                    if *code == SdResult::NO_VDI.0 as i32 && !self.moves_beside(record, name) =>
                {
                    self.name(&text(record), name, false, look);
                }
                _ => {}
            }
        }
        let names = self.all_names();
        let look = Look { client: 0, begin: Tick::MAX, end: Tick::MAX, fresh: Tick::MAX };
        for name in names {
            let mut of_name = rest.inodes.iter().filter(|i| i.name == name && !i.is_snapshot);
            let here = of_name.any(|inode| !inode.hidden);
            self.name("at rest", name, here, look);
        }
    }

    /// A gateway that dies between the two leaves a frozen VDI without a successor (5.8).
    fn may_have_no_successor(&self, name: Number) -> bool {
        self.frame.kills
            && self.records.iter().any(|record| {
                let freezes = matches!(
                    record.action,
                    Action::Snapshot { name: n, .. } if n == name
                ) || matches!(record.action, Action::Rollback { .. });
                freezes && record.outcome != Outcome::Skipped && !record.is_done()
            })
    }

    fn all_names(&self) -> BTreeSet<Number> {
        self.records.iter().filter_map(Record::working).collect()
    }

    /// Whether the name may go on as another VDI while `record` looks.
    fn moves_beside(&self, record: &Record, name: Number) -> bool {
        self.records.iter().any(|other| {
            let moves = match other.action {
                Action::Snapshot { name: n, .. } => n == name,
                Action::Rollback { .. } => other.working() == Some(name),
                _ => false,
            };
            moves
                && other.outcome != Outcome::Skipped
                && other.begin < record.end_or_never()
                && !self.is_over(other, record)
        })
    }

    /// Whether the name may go on as another VDI by what was given up: a list waits for nothing.
    fn may_move(&self, name: Number, record: &Record) -> bool {
        self.records.iter().any(|other| {
            let moves = match other.action {
                Action::Snapshot { name: n, .. } => n == name,
                Action::Rollback { .. } => other.working() == Some(name),
                _ => false,
            };
            moves && !other.is_definite() && other.begin < record.begin
        })
    }

    /// It is not there, and nothing that was told makes it be.
    fn never_made(&self, name: Number, here: bool, look: Look) -> bool {
        !here
            && !self.effects(Register::Name(name)).iter().any(|effect| {
                let record = &self.records[effect.by];
                effect.held == Held::Number(1)
                    && record.is_done()
                    && record.end_or_never() < look.begin
            })
    }

    fn name(&mut self, seen_by: &str, name: Number, here: bool, look: Look) {
        let number = Held::Number(u64::from(here));
        let explained = self.never_made(name, here, look)
            || !here && self.may_have_no_successor(name)
            || self.allows(Register::Name(name), number, look, 0);
        if !explained {
            let what = if here { "is there" } else { "is not there" };
            let letter = (b'a' + name) as char;
            self.fail(Kind::Name, format!("{seen_by}: {letter} {what}"));
        }
    }

    /// Of a creation that gave up while it preallocated nothing stays.
    fn halves(&mut self, rest: &Rest) {
        for record in self.records {
            let Action::Create { name, prealloc: true, .. } = record.action else { continue };
            let gave_up = matches!(record.outcome, Outcome::Failed(code::TIMEDOUT, _));
            let is_here = rest.inodes.iter().any(|i| i.name == name && !i.is_snapshot && !i.hidden);
            let only = !self.is_made_by_another(record, name);
            if gave_up && record.took() > CREATED && is_here && only && !self.frame.kills {
                self.fail(Kind::Name, format!("{}: half of it stays", text(record)));
            }
        }
    }

    /// Whether another operation may have made a VDI of the name before this one ended.
    fn is_made_by_another(&self, record: &Record, name: Number) -> bool {
        self.records.iter().any(|other| {
            let makes = matches!(
                other.action,
                Action::Create { .. } | Action::Clone { .. } | Action::Rollback { .. }
            );
            makes
                && other.id != record.id
                && other.working() == Some(name)
                && other.outcome != Outcome::Skipped
                && other.begin < record.end_or_never()
        })
    }

    /// Whether there was nothing that a name, or a tag, can have been in use by.
    fn is_free(&self, record: &Record) -> bool {
        match record.action {
            Action::Create { name, .. } | Action::Clone { name, .. } => {
                !self.is_made_by_another(record, name)
            }
            Action::Snapshot { name, tag } => {
                self.frame.clients == 1
                    && !self.records.iter().any(|other| {
                        matches!(
                            other.action,
                            Action::Snapshot { name: n, tag: t } if (n, t) == (name, tag)
                        ) && other.id != record.id
                            && other.outcome != Outcome::Skipped
                            && other.begin < record.end_or_never()
                    })
            }
            _ => false,
        }
    }

    /// Data that went from a VDI to another that has its name now.
    fn follows(&mut self) {
        let rolled: BTreeSet<Number> = self
            .records
            .iter()
            .filter(|record| matches!(record.action, Action::Rollback { .. }))
            .filter_map(Record::working)
            .collect();
        let of = |wanted: Number, made: bool| {
            self.records.iter().filter(move |record| {
                let makes = matches!(record.action, Action::Create { .. } | Action::Clone { .. });
                let deletes = matches!(record.action, Action::Delete { .. });
                record.is_done()
                    && record.working() == Some(wanted)
                    && if made { makes } else { deletes }
            })
        };
        let mut found = Vec::new();
        for read in self.records {
            let (Action::Read { name, .. }, Outcome::Done(Seen::Sectors(sectors))) =
                (read.action, &read.outcome)
            else {
                continue;
            };
            if rolled.contains(&name) {
                continue;
            }
            for (sector, value) in sectors {
                let Value::Of(id) = value else { continue };
                let Some(write) = self.by_id.get(id).map(|i| &self.records[*i]) else { continue };
                let (Some(reader), Some(writer)) = (self.opener(read), self.opener(write)) else {
                    continue;
                };
                // A stale handle, and one that was opened after the name was made again.
                let follows = |old: &Record, used: &Record, new: &Record| {
                    new.alone
                        && of(name, false).any(|delete| {
                            old.end_or_never() < delete.begin
                                && of(name, true).any(|made| {
                                    delete.end_or_never() < made.begin
                                        && made.end_or_never() < used.begin
                                        && made.end_or_never() < new.begin
                                })
                        })
                };
                if follows(writer, write, reader) || follows(reader, read, writer) {
                    found.push(format!(
                        "{}: sector {sector} holds {value}, of another VDI of the name",
                        text(read)
                    ));
                }
            }
        }
        for what in found {
            self.fail(Kind::Follow, what);
        }
    }

    /// The cluster's lock of a VDI is one client's at a time.
    fn exclusive(&mut self) {
        if !self.frame.lock || self.frame.kills {
            return;
        }
        for name in self.all_names() {
            let of_name = || self.records.iter().filter(move |r| r.working() == Some(name));
            let deletes = |record: &Record| {
                matches!(record.action, Action::Delete { .. }) && record.outcome != Outcome::Skipped
            };
            if of_name().any(deletes) {
                continue;
            }
            // The lock goes along with the holder's own snapshots; while they are taken, and with
            // those of others, it is nobody's for a moment.
            let moves = |first: &Record, second: &Record| {
                self.records.iter().any(|record| {
                    let moves = match record.action {
                        Action::Snapshot { name: n, .. } => n == name,
                        Action::Rollback { .. } => record.working() == Some(name),
                        _ => false,
                    };
                    let went_along = record.is_done()
                        && record.client == first.client
                        && record.end_or_never() < second.begin;
                    moves
                        && record.outcome != Outcome::Skipped
                        && record.begin < second.end_or_never()
                        && !went_along
                })
            };
            let opens = || {
                of_name()
                    .filter(|r| matches!(r.action, Action::Open { .. }) && r.alone && r.is_done())
            };
            for first in opens() {
                let lets_go = |record: &&Record| {
                    record.client == first.client
                        && record.begin > first.begin
                        && match record.action {
                            Action::Close { name: closed } => closed == name,
                            Action::Renew => true,
                            _ => false,
                        }
                };
                let held_until = self.records.iter().find(lets_go).map_or(Tick::MAX, |r| r.begin);
                for second in opens() {
                    if second.client != first.client
                        && second.begin > first.end_or_never()
                        && second.end_or_never() < held_until
                        && second.phase == Phase::Schedule
                        && !moves(first, second)
                    {
                        let what = format!("{} while {} has it", text(second), text(first));
                        self.violations.push(Violation { kind: Kind::Lock, what });
                    }
                }
            }
        }
    }

    // --- Results ---

    fn results(&mut self) {
        for record in self.records {
            let failed = match &record.outcome {
                Outcome::Failed(code, error) => Some((*code, error)),
                _ => None,
            };
            if self.frame.prompt
                && matches!(record.action, Action::Read { .. })
                && (failed.is_some() || record.took() > PROMPT)
            {
                let what = format!("{}: took {:?}", text(record), record.took());
                self.fail(Kind::Slow, what);
            }
            if let Some((code, error)) = failed
                && self.is_unexplained(record, code)
            {
                let kind = match code == SdResult::VDI_LOCKED.0 as i32 {
                    true => Kind::Lock,
                    false => Kind::Refused,
                };
                self.fail(kind, format!("{}: {error}", text(record)));
            }
            let alone = self.frame.clients == 1 && matches!(record.action, Action::Close { .. });
            if record.phase > Phase::Schedule
                && record.took() > if alone { SLOW_CLOSE } else { SLOW }
                && !self.frame.kills
                && !self.frame.slow_servers
                && failed.is_none()
            {
                let what = format!("{}: took {:?}", text(record), record.took());
                self.fail(Kind::Slow, what);
            }
        }
    }

    fn is_unexplained(&self, record: &Record, code: i32) -> bool {
        let locked = code == SdResult::VDI_LOCKED.0 as i32;
        match record.phase {
            Phase::Schedule => {
                let broken = match code {
                    code::TIMEDOUT | code::NOT_CONNECTED | code::BAD_REPLY => true,
                    code => {
                        let broken = [SdResult::EIO, SdResult::SYSTEM_ERROR, SdResult::UNKNOWN];
                        broken.iter().any(|result| result.0 as i32 == code)
                    }
                };
                broken && !self.frame.faults && self.frame.clients == 1 && !self.gave_up()
                    || code == SdResult::VDI_EXIST.0 as i32 && self.is_free(record)
            }
            // Its handles may be of what is no more, and the lock another's.
            Phase::After if locked => {
                record.working().is_some_and(|name| self.is_free_for(record, name))
            }
            Phase::After => {
                record.working().is_none_or(|name| !self.is_replaced(name))
                    && code != SdResult::INVALID_PARMS.0 as i32
                    && code != SdResult::NO_VDI.0 as i32
            }
            Phase::Fresh => !locked || self.all_let_go(),
        }
    }

    /// Whether any operation had a time limit that it met, or was dropped.
    fn gave_up(&self) -> bool {
        gave_up(self.records)
    }

    /// Whether a name has been more than one VDI.
    fn is_replaced(&self, name: Number) -> bool {
        let made = self.records.iter().filter(|record| {
            matches!(
                record.action,
                Action::Create { .. } | Action::Clone { .. } | Action::Rollback { .. }
            ) && record.working() == Some(name)
                && record.outcome != Outcome::Skipped
        });
        let deleted = self.records.iter().any(|record| {
            matches!(record.action, Action::Delete { .. })
                && record.working() == Some(name)
                && record.outcome != Outcome::Skipped
        });
        deleted || made.count() > 1
    }

    /// Whether no client but that of `record` can have had the lock of a name then.
    fn is_free_for(&self, record: &Record, name: Number) -> bool {
        !self.records.iter().any(|open| {
            let takes = matches!(
                open.action,
                Action::Open { .. } | Action::Snapshot { .. } | Action::Rollback { .. }
            );
            takes
                && open.client != record.client
                && open.begin < record.end_or_never()
                && open.working() == Some(name)
                && open.outcome != Outcome::Skipped
                && !self.has_closed(open.client, name)
        })
    }

    /// Whether the client's last close of the name succeeded, and nothing of it was given up.
    fn has_closed(&self, client: ClientId, name: Number) -> bool {
        let of = |record: &&Record| record.client == client && record.working() == Some(name);
        let opens = self.records.iter().filter(of).filter(|record| {
            matches!(
                record.action,
                Action::Open { .. } | Action::Snapshot { .. } | Action::Rollback { .. }
            ) && record.outcome != Outcome::Skipped
        });
        let given_up = opens.clone().any(|open| !open.is_definite());
        let last = opens.map(|open| open.begin).max().unwrap_or(0);
        let closed = self.records.iter().filter(of).any(|close| {
            matches!(close.action, Action::Close { .. })
                && close.alone
                && close.is_done()
                && close.begin > last
        });
        closed && !given_up
    }

    fn all_let_go(&self) -> bool {
        let clients: BTreeSet<ClientId> = self.records.iter().map(|record| record.client).collect();
        self.all_names().into_iter().all(|name| {
            clients.iter().all(|client| {
                let used = self.records.iter().any(|record| {
                    record.client == *client
                        && record.working() == Some(name)
                        && matches!(
                            record.action,
                            Action::Open { .. } | Action::Snapshot { .. } | Action::Rollback { .. }
                        )
                        && record.outcome != Outcome::Skipped
                });
                !used || self.has_closed(*client, name)
            })
        })
    }

    // --- The servers at rest ---

    /// Where a snapshot meets another client's map update, servers may undo the update and not what
    /// it released, or forget the reference that the snapshot has to the object (the update clears
    /// it after the snapshot has counted it): then whoever discards or deletes the one takes the
    /// object from the other. No client can prevent that.
    ///
    /// The same where a discard, or a resize, reaches a snapshot within one round trip (7.2).
    ///
    /// Nor that of several resizes beside a snapshot one counts that was not the last, or that of
    /// one nothing is left where the snapshot is deleted by its id before it is told of.
    ///
    /// Nor that a lock stays whose answer was lost (5.15).
    ///
    /// Nor that a node which dies while an object is removed has the removal done once more, when
    /// another object may be in its place.
    fn pardon(&mut self) {
        let releases = self.records.iter().any(|record| {
            matches!(record.action, Action::Discard { .. } | Action::Resize { .. })
                && record.outcome != Outcome::Skipped
        });
        let missing = self.violations.iter().any(|violation| violation.kind == Kind::Missing);
        if self.is_snapshot_beside_resizes() {
            self.violations.retain(|violation| violation.kind != Kind::Size);
        }
        if self.frame.lost_lock {
            self.violations.retain(|violation| violation.kind != Kind::Lock);
        }
        if self.frame.kills && releases && missing {
            self.violations.retain(|violation| {
                !matches!(violation.kind, Kind::Missing | Kind::Refused | Kind::Content)
            });
        }
        if !self.frame.hazards || !self.is_snapshot_beside_change() {
            return;
        }
        let deletes = self.records.iter().any(|record| {
            matches!(
                record.action,
                Action::DeleteSnap { .. } | Action::Delete { .. } | Action::Rollback { .. }
            ) && record.outcome != Outcome::Skipped
        });
        self.violations.retain(|violation| match violation.kind {
            Kind::Missing | Kind::Refused => false,
            Kind::Content | Kind::Snapshot => !deletes && !releases,
            _ => true,
        });
    }

    fn is_snapshot_beside_resizes(&self) -> bool {
        let beside = |snapshot: &Record, other: &Record| {
            other.client != snapshot.client
                && other.outcome != Outcome::Skipped
                && !self.is_over(other, snapshot)
                && !self.is_over(snapshot, other)
        };
        let snapshots = self.records.iter();
        snapshots.filter(|record| matches!(record.action, Action::Snapshot { .. })).any(
            |snapshot| {
                let others = || self.records.iter().filter(|other| beside(snapshot, other));
                let resizes = others().filter(|resize| {
                    matches!(resize.action, Action::Resize { .. })
                        && resize.working() == snapshot.action.name()
                });
                let deleted = others().any(|delete| {
                    matches!(delete.action, Action::DeleteSnap { which: Which::Id(_), .. })
                        && delete.action.name() == snapshot.action.name()
                });
                resizes.count() > usize::from(!deleted)
            },
        )
    }

    fn is_snapshot_beside_change(&self) -> bool {
        let snapshots = self.records.iter().filter(|record| {
            matches!(record.action, Action::Snapshot { .. } | Action::Rollback { .. })
        });
        snapshots.into_iter().any(|snapshot| {
            self.records.iter().any(|change| {
                let changes = matches!(
                    change.action,
                    Action::Write { .. } | Action::Discard { .. } | Action::Resize { .. }
                );
                changes
                    && change.client != snapshot.client
                    && change.working() == snapshot.working()
                    && !self.is_over(change, snapshot)
                    && !self.is_over(snapshot, change)
            })
        })
    }

    /// Whether a write may have met another client's deletion: servers look at the map, and write it
    /// back some time later (4.11). Where that undoes an update nobody can tell what the entry was.
    fn is_written_beside_deletion(&self) -> bool {
        self.records.iter().any(|delete| {
            matches!(delete.action, Action::Delete { .. })
                && self.records.iter().any(|write| {
                    matches!(write.action, Action::Write { .. })
                        && write.client != delete.client
                        && write.working() == delete.working()
                        && !self.is_over(write, delete)
                        && !self.is_over(delete, write)
                })
        })
    }

    fn rest(&mut self, rest: &Rest) {
        for what in &rest.missing {
            self.fail(Kind::Missing, what.clone());
        }
        for vid in &rest.locks {
            if self.all_let_go() {
                self.fail(Kind::Lock, format!("{vid:06x} is locked, and every client closed"));
            }
        }
        // What was given up, or met the death of a server, may leave objects; so may another
        // client's snapshot (docs/hazards.md).
        let broken_off = self.records.iter().any(|record| match record.outcome {
            // What it made before it was refused goes again.
            Outcome::Failed(code, _) if REFUSALS.iter().any(|r| r.0 as i32 == code) => {
                self.frame.faults && !record.is_definite()
            }
            Outcome::Failed(..) | Outcome::Open => true,
            Outcome::Done(_) | Outcome::Skipped => false,
        });
        let moved = self.frame.clients > 1
            && self.records.iter().any(|record| {
                matches!(record.action, Action::Snapshot { .. } | Action::Rollback { .. })
            });
        if !broken_off && !moved && !self.frame.kills && !self.frame.lies {
            let beside = self.is_written_beside_deletion();
            for what in rest.left.iter().chain(rest.unnamed.iter().filter(|_| !beside)) {
                self.fail(Kind::Leak, what.clone());
            }
        }
    }
}

fn text(record: &Record) -> String {
    format!("{} ({}, client {})", record.id, record.action, record.client)
}
