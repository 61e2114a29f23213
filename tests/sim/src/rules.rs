//! Which requests of a client the servers must not have at once: the conflicts of
//! tests/common/rules.rs, with requests that were given up and are not over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use sheepdog_proto::inode::{MAP_END, MAP_OFFSET};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{Oid, Request, op};

use crate::check::{Kind, Record, Violation};
use crate::ops::{Action, OpId, Place, SECTOR, Value, value};
use crate::world::Observer;

#[derive(Default)]
pub struct Rules(RefCell<State>);

#[derive(Default)]
struct State {
    /// What is being carried out, by a number of its own.
    in_flight: BTreeMap<u64, Change>,
    broken: Vec<(Change, Change)>,
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
    fn sent(&self, number: u64, client: Place, request: &Request, payload: &[u8]) {
        let Some(doing) = Doing::of(request, payload) else { return };
        let (name, payload) = (op::name(request.opcode), payload.to_vec());
        let change = Change { client, name, doing, payload };
        let state = &mut *self.0.borrow_mut();
        let others = state
            .in_flight
            .values()
            .filter(|other| other.client == client && change.doing.conflicts(&other.doing));
        state.broken.extend(others.map(|other| (other.clone(), change.clone())));
        state.in_flight.insert(number, change);
    }

    fn over(&self, number: u64) {
        self.0.borrow_mut().in_flight.remove(&number);
    }
}

impl Rules {
    /// What of it is the library's doing, and not that of a program that writes twice at once.
    pub fn judge(&self, records: &[Record]) -> Vec<Violation> {
        // A client that came in another's place knows nothing of it.
        if records.iter().any(|record| record.action == Action::Renew) {
            return Vec::new();
        }
        let find = |id: Option<OpId>| records.iter().find(|record| Some(record.id) == id);
        let state = self.0.borrow();
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
        broken.map(|both| Violation { kind: Kind::Rule, what: text(both) }).collect()
    }
}
