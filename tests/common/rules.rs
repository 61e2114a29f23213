//! What no client may ask of a server, whatever comes of it: watched by a wolf between the two.
//!
//! Sections are those of docs/protocol.md. A request that breaks a rule does harm only at times,
//! on some servers; this sees it every time.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;

use sheepdog_proto::inode::{
    MAP_END, MAP_OFFSET, TAG_OFFSET, VDI_SIZE_OFFSET, map_entry_offset, object_count,
};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{self, FLAG_COW, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{InodeHeader, NAME_LEN, Oid, Request, Response, Vid};
use wolf::{Fate, Flock};

pub struct Rules {
    /// Looks at what the server has when a request comes in.
    probe: Mutex<Probe>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<(usize, u32), Doing>,
    /// Locks taken and not released, of each VDI.
    locks: HashMap<u32, i32>,
    broken: Vec<String>,
}

/// What a request changes.
#[derive(Clone, PartialEq, Debug)]
enum Doing {
    /// Or removes.
    Create(Oid),
    Write(Oid, Range<u64>),
    /// Entries of the map.
    Map(Vid, Range<u64>),
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Doing {
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

impl Rules {
    /// `server`: the server itself, for a connection that the rules have to themselves.
    pub fn new(server: SocketAddr) -> Rules {
        let stream = TcpStream::connect(server).expect("a server");
        stream.set_nodelay(true).expect("a socket");
        Rules { probe: Mutex::new(Probe { stream }), state: Mutex::default() }
    }

    /// What was broken, once no client is there any more.
    pub fn broken(&self) -> Vec<String> {
        let mut state = self.state.lock().unwrap();
        let locks = std::mem::take(&mut state.locks);
        let held = locks.into_iter().filter(|(_, count)| *count != 0);
        let held = held.map(|(vid, count)| format!("{vid:06x}: locked {count} times more (4.10)"));
        state.broken.drain(..).chain(held).collect()
    }

    fn check(&self, request: &Request, payload: &[u8]) -> Result<Option<Doing>, String> {
        let probe = &mut *self.probe.lock().unwrap();
        match request.opcode {
            op::CREATE_AND_WRITE_OBJ => probe.check_create(request, payload),
            op::WRITE_OBJ => probe.check_write(request, payload),
            op::NEW_VDI => probe.check_new(request),
            op::REMOVE_OBJ => probe.check_remove(request),
            op::DEL_VDI => probe.check_delete(request, payload),
            // Nobody can tell when the removal that it queues is over (3.7, hazard 4).
            op::DISCARD_OBJ => Err("a DISCARD_OBJ (4.7)".into()),
            _ => Ok(None),
        }
    }
}

impl Flock for Rules {
    fn request(&self, client: usize, request: &Request, payload: &[u8]) -> Fate {
        let result = self.check(request, payload);
        let mut state = self.state.lock().unwrap();
        let name = op::name(request.opcode);
        match result {
            Ok(None) => {}
            Ok(Some(doing)) => {
                if let Some(other) = state.in_flight.values().find(|other| doing.conflicts(other)) {
                    let what = format!("{name}: {doing:x?} beside {other:x?} (0.5, 3.7)");
                    state.broken.push(what);
                }
                state.in_flight.insert((client, request.id.get()), doing);
            }
            Err(what) => state.broken.push(format!("{name}: {what}")),
        }
        Fate::Pass
    }

    fn answer(&self, client: usize, request: &Request, answer: &mut Response, _: &mut Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        state.in_flight.remove(&(client, request.id.get()));
        let (vid, by) = match request.opcode {
            op::LOCK_VDI => (answer.vdi().vdi_id.get(), 1),
            op::RELEASE_VDI => (request.vdi().base_vdi_id.get(), -1),
            _ => return,
        };
        if answer.result().is_success() {
            *state.locks.entry(vid).or_default() += by;
        }
    }
}

/// A client that asks for itself.
struct Probe {
    stream: TcpStream,
}

impl Probe {
    /// The answer and its payload, where it is a success.
    fn ask(&mut self, request: Request, payload: &[u8]) -> Option<(Response, Vec<u8>)> {
        let bytes = [request.as_bytes(), payload].concat();
        self.stream.write_all(&bytes).expect("the server takes it");
        let mut answer = Response::default();
        self.stream.read_exact(answer.as_mut_bytes()).expect("an answer");
        let mut data = vec![0; answer.data_length.get() as usize];
        self.stream.read_exact(&mut data).expect("its payload");
        answer.result().is_success().then_some((answer, data))
    }

    fn read(&mut self, oid: Oid, offset: u32, len: usize) -> Option<Vec<u8>> {
        let (_, mut data) = self.ask(Request::read(oid, offset, len as u32), &[])?;
        data.resize(len, 0);
        Some(data)
    }

    fn header(&mut self, vid: Vid) -> Result<InodeHeader, String> {
        let bytes = self.read(vid.inode(), 0, size_of::<InodeHeader>());
        let bytes = bytes.ok_or(format!("{vid}: there is no such VDI"))?;
        InodeHeader::read_from_bytes(&bytes).map_err(|_| "an inode of another length".into())
    }

    fn check_create(&mut self, request: &Request, payload: &[u8]) -> Result<Option<Doing>, String> {
        let oid = Oid(request.obj().oid.get());
        let has_base = request.obj().cow_oid.get() != 0;
        if oid.kind() == Some(OidKind::Data) {
            check_bounds(&self.header(oid.vid())?, request, payload)?;
            // A removal may be on its way that takes the new one along (3.7, hazard 4).
            if self.read(oid, 0, 1).is_some() {
                return Err(format!("{oid}: there is one already (3.7)"));
            }
            if has_base != (request.flags.get() & FLAG_COW != 0) {
                return Err(format!(
                    "{oid}: a base without the flag, or the other way round (4.4)"
                ));
            }
        }
        Ok(Some(Doing::Create(oid)))
    }

    fn check_write(&mut self, request: &Request, payload: &[u8]) -> Result<Option<Doing>, String> {
        if request.flags.get() & FLAG_WRITE == 0 {
            return Err("without the flag WRITE (4.5)".into());
        }
        let oid = Oid(request.obj().oid.get());
        let start = u64::from(request.obj().offset.get());
        let range = start..start + payload.len() as u64;
        match oid.kind() {
            Some(OidKind::Data) => {
                check_bounds(&self.header(oid.vid())?, request, payload)?;
                Ok(Some(Doing::Write(oid, range)))
            }
            Some(OidKind::Inode) if start < MAP_OFFSET.into() => {
                // Others may be changing the rest of the header (5.6).
                let allowed = [(TAG_OFFSET, NAME_LEN), (VDI_SIZE_OFFSET, 8)];
                match allowed.contains(&(start as u32, payload.len())) {
                    true => Ok(Some(Doing::Write(oid, range))),
                    false => Err(format!("{oid}: {range:?} of the header (5.6)")),
                }
            }
            Some(OidKind::Inode) if range.end > MAP_END.into() || start % 4 != 0 => {
                Err(format!("{oid}: {range:?} is more than the map (5.4)"))
            }
            Some(OidKind::Inode) => {
                let vid = oid.vid();
                let (header, len) = (self.header(vid)?, payload.len());
                let old = self.read(oid, start as u32, len).ok_or("no map")?;
                for (old, new) in old.chunks(4).zip(payload.chunks(4)) {
                    // References of the whole range are forgotten (3.7, hazard 1).
                    if old == new && new != [0; 4] {
                        return Err(format!("{vid}: an entry that does not change (3.7)"));
                    }
                    // Servers do not mind, and a snapshot would change (7.2).
                    if new != [0; 4] && header.is_snapshot() {
                        return Err(format!("{vid}: an entry of a snapshot (3.7)"));
                    }
                }
                Ok(Some(Doing::Map(vid, range)))
            }
            _ => Ok(None),
        }
    }

    /// Nobody counts references here: the owner at least must not name the object (4.6).
    fn check_remove(&mut self, request: &Request) -> Result<Option<Doing>, String> {
        let oid = Oid(request.obj().oid.get());
        let Some(OidKind::Data) = oid.kind() else { return Ok(None) };
        let at = map_entry_offset(oid.index());
        let entry = self.read(oid.vid().inode(), at, 4).ok_or("no map")?;
        match entry == oid.vid().get().to_le_bytes() {
            true => Err(format!("{oid}: its VDI names it (4.6)")),
            false => Ok(Some(Doing::Create(oid))),
        }
    }

    fn check_new(&mut self, request: &Request) -> Result<Option<Doing>, String> {
        let arm = request.vdi();
        let Some(base) = Vid::new(arm.base_vdi_id.get()).filter(|vid| !vid.is_none()) else {
            return Ok(None);
        };
        let header = self.header(base)?;
        // Nothing of it is inherited (4.2).
        let same = (arm.vdi_size, arm.store_policy, arm.block_size_shift, arm.copies)
            == (header.vdi_size, header.store_policy, header.block_size_shift, header.nr_copies);
        if !same {
            return Err(format!("{arm:?} is not as its base {header:?} (4.2)"));
        }
        let is_current = header.name() == self.name_of_current(base);
        if !header.is_snapshot() && (arm.snapid.get() == 0 || !is_current) {
            return Err(format!("{base}: a clone of a working VDI (4.2)"));
        }
        Ok(None)
    }

    /// The name of a VDI that is a working one, as a lookup gives it.
    fn name_of_current(&mut self, vid: Vid) -> Vec<u8> {
        let name = self.header(vid).map(|header| header.name().to_vec()).unwrap_or_default();
        let mut field = name.clone();
        field.resize(2 * NAME_LEN, 0);
        match self.lookup(&field, 0) {
            Some(found) if found == vid => name,
            _ => Vec::new(),
        }
    }

    fn lookup(&mut self, name_and_tag: &[u8], snapid: u32) -> Option<Vid> {
        let arm = sheepdog_proto::header::VdiArm { snapid: snapid.into(), ..Default::default() };
        let request = Request::new(op::GET_VDI_INFO, FLAG_WRITE, arm);
        let request = request.with_length(name_and_tag.len() as u32);
        self.ask(request, name_and_tag)?.0.vdi().vid()
    }

    /// A 1.0 server hides a VDI whose map is not empty, and deletes nothing (4.11).
    fn check_delete(&mut self, request: &Request, payload: &[u8]) -> Result<Option<Doing>, String> {
        let Some(vid) = self.lookup(payload, request.vdi().snapid.get()) else { return Ok(None) };
        let header = self.header(vid)?;
        let count = object_count(header.vdi_size.get(), header.block_size_shift) as usize;
        let map = self.read(vid.inode(), MAP_OFFSET, 4 * count).ok_or("no map")?;
        match map.iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err(format!("{vid}: its map is not empty (4.11)")),
        }
    }
}

/// Servers write past the end of an object (7.2).
fn check_bounds(header: &InodeHeader, request: &Request, payload: &[u8]) -> Result<(), String> {
    let end = u64::from(request.obj().offset.get()) + payload.len() as u64;
    match end <= 1 << header.block_size_shift {
        true => Ok(()),
        false => Err(format!("{:?} beyond the object's end (0.6)", request.obj())),
    }
}
