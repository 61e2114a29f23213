//! Which requests of a client the servers must not have at once: the conflicts of
//! tests/common/rules.rs, with requests that were given up and are not over. And which they must
//! not have at all: of what tests/common/rules.rs looks at, what does no harm in most schedules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use sheepdog_proto::inode::{MAP_END, MAP_OFFSET, STORE_ARRAY, VDI_SIZE_OFFSET};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{Oid, Request, Vid, op};

use crate::check::{Frame, Kind, Record, Violation, gave_up};
use crate::model::Cluster;
use crate::ops::{Action, OpId, Place, SECTOR, Value, value};
use crate::world::Observer;

/// An answer to whether a VDI is still the working one is so new, at least, when something is done
/// that relies on it, where nothing goes wrong.
const NEW: Duration = Duration::from_millis(300);

/// Until then a deletion that stands still is its client's (src/vdi/lifecycle.rs, less a little).
const BROKEN_OFF: Duration = Duration::from_millis(1800);

pub struct Rules {
    servers: Rc<Cluster>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What is being carried out, by a number of its own.
    in_flight: BTreeMap<u64, Change>,
    broken: Vec<(Change, Change)>,
    /// Questions whether a VDI is still the working one, and when they were answered last.
    asking: BTreeMap<u64, (Place, Oid)>,
    answered: BTreeMap<(Place, Oid), Duration>,
    /// Who has begun to delete a snapshot, and who was the last to empty any of it.
    doomed: BTreeSet<(Place, Vid)>,
    emptied: BTreeMap<Vid, (Place, Duration)>,
    /// Entries that name what they must not.
    foreign: Vec<String>,
    /// Entries that were emptied without a look at what others do.
    unasked: Vec<String>,
}

#[derive(Clone)]
struct Change {
    client: Place,
    name: &'static str,
    doing: Doing,
    payload: Vec<u8>,
}

/// What a request changes.
#[derive(Clone, PartialEq, Debug)]
enum Doing {
    /// Or removes.
    Create(Oid),
    Write(Oid, Range<u64>),
    /// Entries of the map.
    Map(Oid, Range<u64>),
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Doing {
    fn of(request: &Request, payload: &[u8]) -> Option<Doing> {
        let oid = Oid(request.obj().oid.get());
        let start = u64::from(request.obj().offset.get());
        let range = start..start + payload.len() as u64;
        match request.opcode {
            op::CREATE_AND_WRITE_OBJ | op::REMOVE_OBJ => Some(Doing::Create(oid)),
            op::WRITE_OBJ if payload.is_empty() => None,
            op::WRITE_OBJ => {
                let map = u64::from(MAP_OFFSET)..u64::from(MAP_END);
                match oid.kind() == Some(OidKind::Inode) && overlap(&map, &range) {
                    true => Some(Doing::Map(oid, range)),
                    false => Some(Doing::Write(oid, range)),
                }
            }
            _ => None,
        }
    }

    /// Whether servers, which order nothing, must not have both at once (0.5, 3.7).
    fn conflicts(&self, other: &Doing) -> bool {
        match (self, other) {
            (Doing::Create(a), Doing::Create(b) | Doing::Write(b, _)) => a == b,
            (Doing::Write(a, _), Doing::Create(b)) => a == b,
            (Doing::Write(a, x), Doing::Write(b, y)) => a == b && overlap(x, y),
            (Doing::Map(a, x), Doing::Map(b, y)) => a == b && overlap(x, y),
            _ => false,
        }
    }
}

impl Change {
    /// The operation whose data it carries.
    fn writer(&self) -> Option<OpId> {
        let (Doing::Write(oid, range) | Doing::Map(oid, range)) = &self.doing else { return None };
        (oid.kind() == Some(OidKind::Data) && range.start % SECTOR == 0).then_some(())?;
        let first = self.payload.get(..SECTOR as usize)?;
        // Its place in the VDI is in the data itself.
        let at = u64::from_le_bytes(first.get(8..16)?.try_into().ok()?);
        match value(first, at) {
            Value::Of(id) => Some(id),
            _ => None,
        }
    }
}

impl Observer for Rules {
    fn sent(&self, now: Duration, number: u64, client: Place, request: &Request, payload: &[u8]) {
        let oid = Oid(request.obj().oid.get());
        if request.opcode == op::WRITE_OBJ && payload.is_empty() {
            self.state.borrow_mut().asking.insert(number, (client, oid));
        }
        let Some(doing) = Doing::of(request, payload) else { return };
        match &doing {
            Doing::Map(oid, range) => self.map_update(now, client, *oid, range.start, payload),
            Doing::Write(oid, range)
                if oid.kind() == Some(OidKind::Inode)
                    && range.start == u64::from(VDI_SIZE_OFFSET)
                    && payload == [0; 8] =>
            {
                let state = &mut *self.state.borrow_mut();
                state.doomed.insert((client, oid.vid()));
                state.emptied.insert(oid.vid(), (client, now));
            }
            _ => {}
        }
        let (name, payload) = (op::name(request.opcode), payload.to_vec());
        let change = Change { client, name, doing, payload };
        let state = &mut *self.state.borrow_mut();
        let others = state
            .in_flight
            .values()
            .filter(|other| other.client == client && change.doing.conflicts(&other.doing));
        state.broken.extend(others.map(|other| (other.clone(), change.clone())));
        state.in_flight.insert(number, change);
    }

    fn over(&self, now: Duration, number: u64) {
        let state = &mut *self.state.borrow_mut();
        state.in_flight.remove(&number);
        if let Some(question) = state.asking.remove(&number) {
            state.answered.insert(question, now);
        }
    }
}

impl Rules {
    pub fn new(servers: Rc<Cluster>) -> Rules {
        Rules { servers, state: RefCell::default() }
    }

    fn map_update(&self, now: Duration, client: Place, oid: Oid, start: u64, payload: &[u8]) {
        let vid = oid.vid();
        let Some(header) = self.servers.stored_header(vid.get()) else { return };
        if header.store_policy != STORE_ARRAY {
            return;
        }
        let state = &mut *self.state.borrow_mut();
        let first = (start.saturating_sub(MAP_OFFSET.into()) / 4) as u32;
        let words = payload.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        for (index, entry) in (first..).zip(words.clone()) {
            // A reference is only ever let go of; who writes gets an object of his own (3.7).
            if entry != 0 && entry != vid.get() {
                state.foreign.push(format!("entry {index} of {vid} becomes {entry:06x} (3.7)"));
            }
        }
        let empties = words.clone().all(|entry| entry == 0);
        if empties && header.is_snapshot() && header.vdi_size.get() == 0 {
            let last = state.emptied.insert(vid, (client, now));
            if last.is_some_and(|(other, at)| other != client && now < at + BROKEN_OFF)
                && !state.doomed.contains(&(client, vid))
            {
                let what = format!("{vid} is emptied while another client deletes it (3.7)");
                state.unasked.push(what);
            }
        }
        let is_working = !header.is_snapshot() && !header.is_deleted();
        if is_working && empties {
            let answered = state.answered.get(&(client, vid.data(first)));
            if answered.is_none_or(|answered| now > *answered + NEW) {
                let what = format!("entry {first} of {vid} is emptied without a question (7.2)");
                state.unasked.push(what);
            }
        }
    }

    /// What of it is the library's doing, and not that of a program that writes twice at once.
    pub fn judge(&self, records: &[Record], frame: Frame) -> Vec<Violation> {
        // A client that came in another's place knows nothing of it.
        if records.iter().any(|record| record.action == Action::Renew) {
            return Vec::new();
        }
        let find = |id: Option<OpId>| records.iter().find(|record| Some(record.id) == id);
        let state = self.state.borrow();
        let broken = state.broken.iter().filter(|(old, new)| match (&old.doing, &new.doing) {
            (Doing::Write(oid, _), Doing::Write(..)) => {
                // The same again.
                if old.payload == new.payload {
                    return false;
                }
                match (find(old.writer()), find(new.writer())) {
                    (Some(old), Some(new)) => old.end.is_some_and(|end| end < new.begin),
                    _ => oid.kind() == Some(OidKind::Inode),
                }
            }
            _ => true,
        });
        let text = |(old, new): &(Change, Change)| {
            format!("{} {:x?} beside {} {:x?} (0.5, 3.7)", new.name, new.doing, old.name, old.doing)
        };
        let mut all: Vec<String> = broken.map(text).collect();
        all.extend(state.foreign.iter().cloned());
        // Else it may have been asked, and then something else was waited for.
        if !frame.faults && !frame.slow_servers && !gave_up(records) {
            all.extend(state.unasked.iter().cloned());
        }
        all.into_iter().map(|what| Violation { kind: Kind::Rule, what }).collect()
    }
}
