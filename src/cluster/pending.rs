//! What may still happen: requests that were sent and then given up, by a deadline, a cancellation
//! or the end of their connection, while some server may carry them out yet (protocol.md 5.15).
//!
//! Nothing that touches the same as one of them goes out before it is over: carried out late, it
//! would undo what came after it. Reads of an inode wait as well, since what they show is relied
//! upon. Whatever touches nothing of that goes on.
//!
//! ```text
//! queued --given up--> gone
//!   | sent
//! waiting --reply--> over
//!   |- given up --> OPEN --late reply--> over
//!   '- link ends, or under OPEN --> CLOSED --2 s--> over
//!                               '-> VANISHED --epoch and node list: CLOSED
//! OPEN, VANISHED --120 s--> over
//! ```
//!
//! CLOSED: the server's end of the stream came. Servers close a connection once its requests have
//! ended, or are dead themselves; then only their peers may be at it, for [`SETTLE`] at most.
//! VANISHED: nothing is heard any more of the gateway's machine. The gateway is dead where another
//! one answers with a later epoch and a node list without it; its peers refuse it from then on.
//! A gateway that is only silent is never taken for dead; that nobody is kept from its own data for
//! ever is the one assumption here, [`FORGET`].
//!
//! What a request touches is derived from the request, so that no caller can forget it.

use std::net::SocketAddr;
use std::time::Duration;

use sheepdog_proto::hash::vid_of_name;
use sheepdog_proto::inode::{INODE_LEN, MAP_END, MAP_OFFSET};
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::{NAME_LEN, Oid, Request, Response, Vid, field_text, op};

use super::LinkId;
use crate::clock::Instant;
use crate::exec::WaitList;
use crate::net::SendBuf;
use crate::wire::Id;

/// The time in which nodes are done with what they took over from a gateway that ended.
const SETTLE: Duration = Duration::from_secs(2);
/// After this a request of a gateway that says nothing more is taken for over.
const FORGET: Duration = Duration::from_secs(120);
/// With more than this, nothing changes any more before some are over.
const MAX: usize = 4096;

/// Part of what servers store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Space {
    /// Bytes of a VDI's inode. A data object counts as its map entry: what becomes of one depends
    /// on the other.
    Inode(Vid),
    /// What a name stands for, by its hash; names that share it wait for each other.
    Name(Vid),
    /// The locks of a name's VDIs.
    Lock(Vid),
    /// A name's attributes.
    Attr(Vid),
    /// Who knows.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Touch {
    space: Space,
    start: u64,
    end: u64,
    /// Or only asks.
    changes: bool,
}

impl Touch {
    fn whole(space: Space, changes: bool) -> Touch {
        Touch { space, start: 0, end: u64::MAX, changes }
    }

    fn inode(vid: Vid, start: u64, len: u64, changes: bool) -> Touch {
        Touch { space: Space::Inode(vid), start, end: start + len, changes }
    }

    /// Whether one must not go out before the other is over.
    fn meets(&self, pending: &Touch) -> bool {
        let same = self.space == pending.space;
        let all = self.space == Space::All || pending.space == Space::All;
        pending.changes && (all || same && self.start < pending.end && pending.start < self.end)
    }
}

/// All that a request touches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Touches([Option<Touch>; 3]);

impl Touches {
    /// `also`: a VDI that the request changes without naming it.
    pub fn of(request: &Request, payload: &SendBuf, also: Option<Vid>) -> Touches {
        let name = || {
            let field = payload.head::<NAME_LEN>();
            vid_of_name(field_text(&field))
        };
        let whole = |vid, changes| Touch::whole(Space::Inode(vid), changes);
        let also = also.map(|vid| whole(vid, true));
        let none = Touches::default();
        match request.opcode {
            op::READ_OBJ => {
                let (oid, arm) = (Oid(request.obj().oid.get()), request.obj());
                let (start, len) = (arm.offset.get().into(), request.data_length.get().into());
                match oid.kind() {
                    Some(OidKind::Inode) => {
                        Touches([Some(Touch::inode(oid.vid(), start, len, false)), None, None])
                    }
                    Some(OidKind::Btree) => Touches([Some(index(oid.vid(), false)), None, None]),
                    Some(OidKind::Attr) => {
                        Touches([Some(Touch::whole(Space::Attr(oid.vid()), false)), None, None])
                    }
                    _ => none,
                }
            }
            // An empty write only asks for what is decided by others.
            op::WRITE_OBJ if payload.len() == 0 => none,
            op::WRITE_OBJ | op::CREATE_AND_WRITE_OBJ | op::REMOVE_OBJ | op::DISCARD_OBJ => {
                let oid = Oid(request.obj().oid.get());
                let (start, len) = (request.obj().offset.get().into(), payload.len() as u64);
                let touch = match oid.kind() {
                    Some(OidKind::Data) => {
                        let at = u64::from(MAP_OFFSET) + 4 * u64::from(oid.index());
                        Touch::inode(oid.vid(), at, 4, true)
                    }
                    Some(OidKind::Inode) if request.opcode == op::WRITE_OBJ => {
                        Touch::inode(oid.vid(), start, len, true)
                    }
                    Some(OidKind::Btree) => index(oid.vid(), true),
                    Some(OidKind::Attr) => Touch::whole(Space::Attr(oid.vid()), true),
                    _ => whole(oid.vid(), true),
                };
                Touches([Some(touch), None, None])
            }
            op::NEW_VDI => {
                let base = Vid::new(request.vdi().base_vdi_id.get()).filter(|vid| !vid.is_none());
                let base = base.map(|vid| whole(vid, true));
                Touches([Some(Touch::whole(Space::Name(name()), true)), base, also])
            }
            op::DEL_VDI => Touches([Some(Touch::whole(Space::Name(name()), true)), also, None]),
            op::GET_VDI_INFO => {
                Touches([Some(Touch::whole(Space::Name(name()), false)), None, None])
            }
            op::LOCK_VDI => Touches([
                Some(Touch::whole(Space::Name(name()), false)),
                Some(Touch::whole(Space::Lock(name()), true)),
                None,
            ]),
            // Whoever has the lock next must not meet anything of ours.
            op::RELEASE_VDI => Touches([
                Vid::new(request.vdi().base_vdi_id.get()).map(|vid| whole(vid, false)),
                Some(Touch::whole(Space::Lock(name()), true)),
                None,
            ]),
            op::GET_VDI_ATTR => {
                let changes = request.flags.get() & (op::FLAG_ATTR_CREAT | op::FLAG_ATTR_DEL) != 0;
                let attr = Touch::whole(Space::Attr(name()), changes);
                Touches([Some(Touch::whole(Space::Name(name()), false)), Some(attr), None])
            }
            op::FLUSH_VDI
            | op::READ_VDIS
            | op::READ_DEL_VDIS
            | op::GET_CLUSTER_DEFAULT
            | op::GET_NODE_LIST => none,
            _ => Touches([Some(Touch::whole(Space::All, true)), None, None]),
        }
    }

    /// Of whoever wants to know that nothing may happen to a VDI any more.
    pub fn vdi(vid: Vid) -> Touches {
        Touches([Some(Touch::whole(Space::Inode(vid), false)), None, None])
    }

    /// Of whoever wants to know that nothing may happen at all.
    pub fn everything() -> Touches {
        Touches([Some(Touch::whole(Space::All, false)), None, None])
    }

    fn iter(&self) -> impl Iterator<Item = &Touch> {
        self.0.iter().flatten()
    }

    pub fn change_anything(&self) -> bool {
        self.iter().any(|touch| touch.changes)
    }
}

/// The index of a hypervolume: its nodes depend on each other (3.9).
fn index(vid: Vid, changes: bool) -> Touch {
    Touch::inode(vid, MAP_OFFSET.into(), u64::from(MAP_END - MAP_OFFSET), changes)
}

const _: () = assert!(MAP_END < INODE_LEN);

/// Names a call, so that what is sent again does not wait for its own earlier copies.
pub(super) type CallId = u64;

/// How the connection of a pending request ended.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum End {
    /// Not at all: its reply may come.
    Open,
    /// By the server, then.
    Closed(Instant),
    /// Without a word from the server, whose latest epoch was this.
    Vanished { address: Option<SocketAddr>, epoch: u32 },
}

pub(super) struct Entry {
    pub touches: Touches,
    pub call: CallId,
    pub opcode: u8,
    pub link: LinkId,
    pub gateway: usize,
    pub id: Id,
    pub since: Instant,
    pub end: End,
    /// What was sent, where its late success is of interest.
    pub sent: Option<(Request, SendBuf)>,
}

/// A success that came after its call was given up.
pub struct Late {
    pub request: Request,
    pub payload: SendBuf,
    pub reply: Response,
    /// When the call was given up.
    pub since: Instant,
}

impl Entry {
    /// When it is over without anybody's doing.
    fn over_at(&self) -> Instant {
        match self.end {
            End::Closed(at) => at + SETTLE,
            End::Open | End::Vanished { .. } => self.since + FORGET,
        }
    }
}

/// What keeps a request from going out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Blocked {
    /// When the first of those in the way is over without anybody's doing.
    pub until: Instant,
    /// A gateway that vanished with one of them, and its epoch.
    pub vanished: Option<(Option<SocketAddr>, u32)>,
}

/// The registry. Empty as long as all goes well: then it costs one test for each request.
#[derive(Default)]
pub(super) struct Pending {
    entries: Vec<Entry>,
    pub late: Vec<Late>,
    pub waiters: WaitList,
    /// Who waits: when its operation began, and for what. For those who ask why.
    pub waiting: Vec<(Instant, Touches, CallId)>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something is in the way of what touches this. The earlier copies of `call` are not.
    pub fn blocks(&self, touches: &Touches, call: CallId) -> Option<Blocked> {
        self.in_the_way(touches, call).fold(None, |found: Option<Blocked>, entry| {
            let vanished = match entry.end {
                End::Vanished { address, epoch } => Some((address, epoch)),
                End::Open | End::Closed(_) => None,
            };
            Some(Blocked {
                until: found.map_or(entry.over_at(), |found| found.until.min(entry.over_at())),
                vanished: found.and_then(|found| found.vanished).or(vanished),
            })
        })
    }

    fn in_the_way(&self, touches: &Touches, call: CallId) -> impl Iterator<Item = &Entry> {
        let full = self.entries.len() >= MAX && touches.change_anything();
        self.entries.iter().filter(move |entry| {
            full || entry.call != call
                && touches.iter().any(|touch| entry.touches.iter().any(|it| touch.meets(it)))
        })
    }

    /// The oldest of what the operation waits for that began at `started`.
    pub fn waited_for(&self, started: Instant) -> Option<&Entry> {
        let (_, touches, call) = self.waiting.iter().find(|(at, ..)| *at == started)?;
        self.in_the_way(touches, *call).min_by_key(|entry| entry.since)
    }

    /// Whether a reply on this link would end something.
    pub fn has_open(&self, link: LinkId) -> bool {
        self.entries.iter().any(|entry| entry.link == link && entry.end == End::Open)
    }

    /// A request that only asked does no harm, however late it is carried out.
    pub fn add(&mut self, entry: Entry) {
        if entry.touches.change_anything() {
            self.entries.push(entry);
        }
    }

    /// The reply came.
    pub fn answered(&mut self, link: LinkId, id: Id, reply: Response) {
        let is_it = |entry: &Entry| entry.link == link && entry.id == id;
        let Some(at) = self.entries.iter().position(is_it) else { return };
        let Entry { sent, since, .. } = self.entries.swap_remove(at);
        if let Some((request, payload)) = sent
            && reply.result().is_success()
        {
            self.late.push(Late { request, payload, reply, since });
        }
    }

    /// The connection ended.
    pub fn ended(&mut self, link: LinkId, end: End) {
        let open = |entry: &&mut Entry| entry.link == link && entry.end == End::Open;
        self.entries.iter_mut().filter(open).for_each(|entry| entry.end = end);
    }

    /// A gateway that had vanished is dead.
    pub fn dead(&mut self, dead: SocketAddr, epoch: u32, now: Instant) {
        for entry in &mut self.entries {
            if let End::Vanished { address, epoch: last } = entry.end
                && address == Some(dead)
                && last < epoch
            {
                entry.end = End::Closed(now);
            }
        }
    }

    /// Forgets what is over by now. The opcodes of those that only time has ended.
    pub fn expire(&mut self, now: Instant) -> Vec<u8> {
        let mut forgotten = Vec::new();
        self.entries.retain(|entry| {
            let over = entry.over_at() <= now;
            if over && !matches!(entry.end, End::Closed(_)) {
                forgotten.push(entry.opcode);
            }
            !over
        });
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use sheepdog_proto::SdResult;
    use sheepdog_proto::header::{ObjArm, VdiArm};

    use super::*;
    use crate::wire::{Dest, Wire};

    const LINK: LinkId = LinkId { key: 0, serial: 1 };

    fn vid(n: u32) -> Vid {
        Vid::new(n).unwrap()
    }

    fn object(opcode: u8, oid: Oid, offset: u32, len: usize) -> Touches {
        let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..Default::default() };
        Touches::of(&Request::new(opcode, op::FLAG_WRITE, arm), &vec![1; len].into(), None)
    }

    fn write(oid: Oid, offset: u32, len: usize) -> Touches {
        object(op::WRITE_OBJ, oid, offset, len)
    }

    fn read(oid: Oid, offset: u32, len: u32) -> Touches {
        Touches::of(&Request::read(oid, offset, len), &SendBuf::EMPTY, None)
    }

    fn named(opcode: u8, name: &str, base: u32, also: Option<Vid>) -> Touches {
        let mut payload = name.as_bytes().to_vec();
        payload.resize(NAME_LEN, 0);
        let arm = VdiArm { base_vdi_id: base.into(), ..Default::default() };
        Touches::of(&Request::new(opcode, op::FLAG_WRITE, arm), &payload.into(), also)
    }

    fn entry(touches: Touches, call: CallId) -> Entry {
        let id = Wire::new().submit(Request::default(), SendBuf::EMPTY, Dest::None).unwrap();
        let (opcode, since) = (op::WRITE_OBJ, Instant::now());
        Entry {
            touches,
            call,
            opcode,
            link: LINK,
            gateway: 0,
            id,
            since,
            end: End::Open,
            sent: None,
        }
    }

    /// Whether `later` waits while `pending` may still happen.
    fn waits(later: Touches, pending: Touches) -> bool {
        let mut registry = Pending::default();
        registry.add(entry(pending, 1));
        registry.blocks(&later, 2).is_some()
    }

    #[test]
    fn what_touches_the_same_object_or_its_entry_waits_and_nothing_else() {
        let (a, map) = (vid(0xa), |index: u32| MAP_OFFSET + 4 * index);
        let pending = write(a.data(3), 4096, 512);
        let create = |index| object(op::CREATE_AND_WRITE_OBJ, a.data(index), 0, 512);
        for later in [
            write(a.data(3), 0, 1),
            create(3),
            object(op::REMOVE_OBJ, a.data(3), 0, 0),
            write(a.inode(), map(3), 4),
            write(a.inode(), map(0), 16),
            read(a.inode(), map(0), 4096),
            named(op::NEW_VDI, "x", 0xa, None),
            named(op::DEL_VDI, "x", 0, Some(a)),
            named(op::RELEASE_VDI, "x", 0xa, None),
            Touches::vdi(a),
            Touches::everything(),
        ] {
            assert!(waits(later, pending), "{later:?}");
        }
        for later in [
            read(a.data(3), 0, 512),
            write(a.data(3), 0, 0),
            write(a.data(4), 0, 1),
            create(2),
            write(a.inode(), map(4), 4),
            write(a.inode(), 536, 8),
            read(a.inode(), 0, MAP_OFFSET),
            write(vid(0xb).data(3), 0, 1),
            named(op::NEW_VDI, "x", 0xb, None),
            named(op::LOCK_VDI, "x", 0, None),
        ] {
            assert!(!waits(later, pending), "{later:?}");
        }
    }

    #[test]
    fn names_locks_and_attributes_wait_for_their_own() {
        let of = |opcode| named(opcode, "a", 0, None);
        let (new, delete) = (of(op::NEW_VDI), named(op::DEL_VDI, "a", 0, Some(vid(7))));
        for pending in [new, delete] {
            for later in [op::NEW_VDI, op::DEL_VDI, op::GET_VDI_INFO, op::LOCK_VDI] {
                assert!(waits(of(later), pending));
                assert!(!waits(named(later, "b", 0, None), pending), "another name");
            }
        }
        assert!(waits(write(vid(7).data(0), 0, 1), delete));
        let release = named(op::RELEASE_VDI, "a", 7, None);
        assert!(waits(of(op::LOCK_VDI), release) && waits(release, of(op::LOCK_VDI)));
        assert!(!waits(of(op::GET_VDI_INFO), of(op::LOCK_VDI)));
        assert!(!waits(write(vid(7).data(0), 0, 1), release), "it only asks about the VDI");
        let (hash, get) = (vid_of_name(b"a"), of(op::GET_VDI_ATTR));
        let value = write(hash.attr(1), 520, 8);
        assert!(waits(value, value) && waits(get, value), "what it finds is relied upon");
        assert!(waits(read(hash.attr(1), 0, 784), value) && !waits(value, get));
        assert!(!waits(of(op::GET_VDI_INFO), value));
    }

    #[test]
    fn the_index_of_a_hypervolume_is_one_thing() {
        let a = vid(0xa);
        let (node, root) = (write(a.btree(1), 0, 4096), write(a.inode(), MAP_OFFSET - 4, 64));
        assert!(waits(root, node) && waits(write(a.btree(2), 0, 8), node));
        assert!(waits(read(a.btree(1), 0, 8192), root) && waits(read(a.inode(), 568, 8192), node));
        // Past the objects that an array can have.
        assert!(!waits(write(a.data(u32::MAX), 0, 1), node));
        assert!(waits(write(a.data(u32::MAX), 0, 1), write(a.data(u32::MAX), 0, 1)));
    }

    #[test]
    fn what_is_sent_again_does_not_wait_for_its_own_copies_and_what_asks_is_not_kept() {
        let touches = write(vid(1).data(0), 0, 512);
        let mut registry = Pending::default();
        registry.add(entry(read(vid(1).inode(), 0, 8), 1));
        assert!(registry.is_empty());
        registry.add(entry(touches, 5));
        assert!(registry.blocks(&touches, 5).is_none());
        registry.add(entry(touches, 6));
        assert!(registry.blocks(&touches, 5).is_some());
    }

    #[test]
    fn an_answer_ends_it_and_an_end_of_the_connection_only_after_a_while() {
        let touches = write(vid(1).data(0), 0, 512);
        let (mut registry, now) = (Pending::default(), Instant::now());
        let one = entry(touches, 1);
        let id = one.id;
        registry.add(one);
        registry.answered(LinkId { serial: 2, ..LINK }, id, Response::default());
        assert!(registry.has_open(LINK), "of another connection");
        registry.answered(LINK, id, Response::default());
        assert!(registry.is_empty());

        registry.add(entry(touches, 1));
        registry.ended(LINK, End::Closed(now));
        assert_eq!(registry.blocks(&touches, 2).unwrap().until, now + SETTLE);
        assert!(registry.expire(now + SETTLE / 2).is_empty() && !registry.is_empty());
        assert!(registry.expire(now + SETTLE).is_empty(), "it needs no word");
        assert!(registry.is_empty());
    }

    #[test]
    fn a_gateway_that_vanished_is_dead_once_a_later_epoch_is_without_it() {
        let touches = write(vid(1).data(0), 0, 512);
        let (mut registry, now) = (Pending::default(), Instant::now());
        registry.add(entry(touches, 1));
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        registry.ended(LINK, End::Vanished { address: Some(at(2)), epoch: 7 });
        assert_eq!(registry.blocks(&touches, 2).unwrap().vanished, Some((Some(at(2)), 7)));
        registry.dead(at(1), 8, now);
        registry.dead(at(2), 7, now);
        assert!(registry.expire(now + SETTLE).is_empty() && !registry.is_empty());
        registry.dead(at(2), 8, now);
        registry.expire(now + SETTLE);
        assert!(registry.is_empty());
        // Or nobody ever knows.
        registry.add(entry(touches, 1));
        assert_eq!(registry.expire(now + 2 * FORGET), [op::WRITE_OBJ], "to be logged");
    }

    #[test]
    fn a_late_success_is_kept_for_whoever_asked_for_that() {
        let mut registry = Pending::default();
        for (result, kept) in [(SdResult::VDI_LOCKED, 0), (SdResult::SUCCESS, 1)] {
            let lock = named(op::LOCK_VDI, "a", 0, None);
            let entry =
                Entry { sent: Some((Request::default(), SendBuf::EMPTY)), ..entry(lock, 1) };
            let id = entry.id;
            registry.add(entry);
            registry.answered(LINK, id, Response::to(&Request::default(), 1, result));
            assert_eq!(registry.late.len(), kept);
        }
    }

    #[test]
    fn past_the_limit_changes_wait_and_questions_do_not() {
        let mut registry = Pending::default();
        for n in 0..MAX as u32 {
            registry.add(entry(write(vid(1).data(n), 0, 1), 1));
        }
        assert!(registry.blocks(&write(vid(2).data(0), 0, 1), 2).is_some());
        assert!(registry.blocks(&read(vid(2).inode(), 0, 8), 2).is_none());
    }
}
