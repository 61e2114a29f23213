//! Single requests about VDIs and their inodes: what goes out, what the answer means. No state.

use std::mem::size_of;

use sheepdog_proto::header::{ObjArm, VdiArm};
use sheepdog_proto::inode::{
    InodeHeader, STORE_ARRAY, STORE_BTREE, gref_offset, map_entry_offset, max_size, object_count,
};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{
    DEFAULT_BLOCK_SIZE_SHIFT, MAX_DATA_OBJECTS, NAME_LEN, Oid, Request, Response, SdResult,
    VDI_BITMAP_LEN, Vid, field_text, name_field, op,
};

use super::outcome::{Outcome, Step};
use super::strays::Stray;
use crate::clock::Instant;
use crate::cluster::{Backoff, Call, Cluster, Late, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::join;
use crate::net::SendBuf;
use crate::wire::Dest;

/// A valid VDI name, in its field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// 1.0 servers accept the empty name and lose the VDI, and truncate longer ones (0.7).
    pub fn new(name: &[u8]) -> Result<Name> {
        if name.is_empty() {
            return Err(Error::Invalid("the name is empty"));
        }
        name_field(name).map(Name).ok_or(Error::Invalid("the name is longer than 255 bytes"))
    }

    pub fn field(&self) -> &[u8; NAME_LEN] {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        field_text(&self.0).escape_ascii().fmt(f)
    }
}

/// Which VDI of a name: the working one, or a snapshot by its tag or id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Which {
    tag: [u8; NAME_LEN],
    snap_id: u32,
}

impl Which {
    pub const WORKING: Which = Which { tag: [0; NAME_LEN], snap_id: 0 };

    /// The snapshot with this tag, or where it is empty the one with this id. Never both: a server
    /// takes either for enough (3.4).
    pub fn snapshot(tag: &[u8], snap_id: u32) -> Result<Which> {
        if tag.is_empty() && snap_id == 0 {
            return Err(Error::Invalid("neither a tag nor an id of a snapshot"));
        }
        let tag = name_field(tag).ok_or(Error::Invalid("the tag is longer than 255 bytes"))?;
        Ok(Which { snap_id: if tag[0] == 0 { snap_id } else { 0 }, tag })
    }

    pub fn snap_id(snap_id: u32) -> Which {
        Which { tag: [0; NAME_LEN], snap_id }
    }

    pub fn tag(&self) -> &[u8; NAME_LEN] {
        &self.tag
    }
}

/// The payload that names a VDI: 512 bytes (4.9).
fn name_and_tag(name: &Name, which: &Which) -> SendBuf {
    [name.0, which.tag].concat().into()
}

/// What a server says of a name or tag that is in use.
pub const IN_USE: Error = Error::Server { opcode: op::NEW_VDI, result: SdResult::VDI_EXIST };
/// What a server says where a name has no such snapshot.
pub const NO_TAG: Error = Error::Server { opcode: op::GET_VDI_INFO, result: SdResult::NO_TAG };
/// What a server says where a name has no working VDI.
pub const NO_VDI: Error = Error::Server { opcode: op::GET_VDI_INFO, result: SdResult::NO_VDI };

/// Whether a server said so.
pub fn answered<T>(result: &Result<T>, code: SdResult) -> bool {
    result.as_ref().err().and_then(Error::server_result) == Some(code)
}

/// Whether a server said that there is no such VDI or snapshot.
pub fn is_gone<T>(result: &Result<T>) -> bool {
    answered(result, SdResult::NO_VDI) || answered(result, SdResult::NO_TAG)
}

/// None where a server said so.
pub fn unless<T>(result: Result<T>, code: SdResult) -> Result<Option<T>> {
    if answered(&result, code) { Ok(None) } else { result.map(Some) }
}

/// None where a server said that there is no such VDI or snapshot.
pub fn unless_gone<T>(result: Result<T>) -> Result<Option<T>> {
    if is_gone(&result) { Ok(None) } else { result.map(Some) }
}

fn vid_of(header: &Response) -> Result<Vid> {
    header.vdi().vid().ok_or(Error::BadReply("a VDI id that cannot be"))
}

/// GET_VDI_INFO (4.9).
pub async fn lookup(cluster: &Cluster, op: &Op, name: &Name, which: &Which) -> Result<Vid> {
    let arm = VdiArm { snapid: which.snap_id.into(), ..Default::default() };
    let request = Request::new(op::GET_VDI_INFO, op::FLAG_WRITE, arm);
    let call = Call::new(request).payload(name_and_tag(name, which)).resendable();
    vid_of(&cluster.call(op, call).await?.header)
}

/// LOCK_VDI of the working VDI, for one writer (4.10). A lookup where the cluster has no locks.
pub async fn lock(cluster: &Cluster, op: &Op, name: &Name) -> Result<Vid> {
    let arm = VdiArm { lock_type: op::LOCK_NORMAL.into(), ..Default::default() };
    let request = Request::new(op::LOCK_VDI, op::FLAG_WRITE, arm);
    // Sent again after a loss it may meet its own lock, which looks like another's: busy (5.15).
    let payload = name_and_tag(name, &Which::WORKING);
    let call = Call::new(request).payload(payload).resendable().keep_late();
    vid_of(&cluster.call(op, call).await?.header)
}

/// What an answer that came too late has left: the lock that [`lock`] asked for, or the VDI of
/// [`new_vdi`].
pub fn late_vdi(late: &Late) -> Option<Stray> {
    let name = Name(late.payload.head());
    let vid = vid_of(&late.reply).ok()?;
    if late.request.opcode == op::LOCK_VDI {
        return Some(Stray::Lock(name, vid));
    }
    made(late.request.vdi(), name, vid, late.since)
}

/// What is to be looked at of a VDI that a NEW_VDI with `arm` has made, if it was made of another.
pub fn made(arm: &VdiArm, name: Name, vid: Vid, since: Instant) -> Option<Stray> {
    let base = Vid::new(arm.base_vdi_id.get()).filter(|base| !base.is_none())?;
    Some(Stray::Made { name, vid, base, size: arm.vdi_size.get(), since })
}

/// RELEASE_VDI of a lock of that kind. It goes out once nothing can happen to the VDI any more
/// that was given up: whoever has the lock next must not meet it.
pub async fn release(cluster: &Cluster, op: &Op, name: &Name, vid: Vid, kind: u32) -> Result<()> {
    let arm =
        VdiArm { base_vdi_id: vid.get().into(), lock_type: kind.into(), ..Default::default() };
    // Servers take no notice of the name; it tells ourselves whose lock this is.
    let request = Request::new(op::RELEASE_VDI, op::FLAG_WRITE, arm);
    cluster.call(op, Call::new(request).payload(name.0.to_vec()).resendable()).await.map(drop)
}

/// What came of a NEW_VDI.
#[derive(Clone, Copy)]
pub enum NewVdi {
    /// The server's answer.
    Made(Vid),
    /// The answer was lost, and the name stands for this now, which is as it was to be: another
    /// client's NEW_VDI may have made it.
    Found(Vid),
}

impl NewVdi {
    pub fn vid(self) -> Vid {
        match self {
            Self::Made(vid) | Self::Found(vid) => vid,
        }
    }
}

/// NEW_VDI (4.2): the arm's `snapid` and `base_vdi_id` choose among its forms. `before` is the
/// working VDI that the name had, if any.
pub async fn new_vdi(
    cluster: &Cluster,
    op: &Op,
    name: &Name,
    arm: VdiArm,
    before: Option<Vid>,
) -> Result<NewVdi> {
    let request = Request::new(op::NEW_VDI, op::FLAG_WRITE, arm);
    let mut backoff = Backoff::default();
    loop {
        // What the name stands for now is written to as well, where that is not the base.
        let call = Call::new(request).payload(name.0.to_vec()).changes(before).keep_late();
        match cluster.call(op, call).await {
            Ok(reply) => return vid_of(&reply.header).map(NewVdi::Made),
            Err(error) => backoff.wait_after(error, cluster, op).await?,
        }
        // The answer was lost: what the name stands for now tells what came of it (5.15).
        match lookup(cluster, op, name, &Which::WORKING).await {
            Ok(now) if Some(now) == before => {}
            Ok(now) => {
                let header = read_header(cluster, op, now).await?;
                let ours = header.parent_vdi_id == arm.base_vdi_id
                    && header.vdi_size == arm.vdi_size
                    && header.block_size_shift == arm.block_size_shift;
                return match ours {
                    true => Ok(NewVdi::Found(now)),
                    false => Err(IN_USE),
                };
            }
            result if before.is_none() && answered(&result, SdResult::NO_VDI) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The arm of a NEW_VDI whose VDI takes over what `base` is. A server takes nothing over by
/// itself (4.2).
pub fn derived(base: &InodeHeader, base_vid: Vid) -> VdiArm {
    VdiArm {
        vdi_size: base.vdi_size,
        base_vdi_id: base_vid.get().into(),
        copies: base.nr_copies,
        copy_policy: base.copy_policy,
        store_policy: base.store_policy,
        block_size_shift: base.block_size_shift,
        ..Default::default()
    }
}

/// Writes part of an inode that is not its map: the same again does no harm.
pub async fn write_header(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    offset: u32,
    bytes: Vec<u8>,
) -> Result<()> {
    let request = write_request(op::WRITE_OBJ, vid.inode(), None, offset);
    cluster.call(op, Call::new(request).payload(bytes).resendable()).await.map(drop)
}

/// DEL_VDI (4.11), of a VDI whose map is empty.
pub async fn del_vdi(
    cluster: &Cluster,
    op: &Op,
    name: &Name,
    which: &Which,
    vid: Vid,
) -> Result<()> {
    let arm = VdiArm { snapid: which.snap_id.into(), ..Default::default() };
    let request = Request::new(op::DEL_VDI, op::FLAG_WRITE, arm);
    let call = Call::new(request).payload(name_and_tag(name, which)).changes(Some(vid));
    cluster.call(op, call).await.map(drop)
}

/// Reads `len` bytes of an object into memory of the library's.
pub async fn read_object(
    cluster: &Cluster,
    op: &Op,
    oid: Oid,
    offset: u32,
    len: u32,
) -> Result<Vec<u8>> {
    let call = Call::new(Request::read(oid, offset, len)).dest(Dest::Bytes(len as usize));
    let mut bytes = cluster.call(op, call.resendable()).await?.bytes;
    // What a server leaves off is zero (5.3).
    bytes.resize(len as usize, 0);
    Ok(bytes)
}

pub async fn read_header(cluster: &Cluster, op: &Op, vid: Vid) -> Result<InodeHeader> {
    let bytes = read_object(cluster, op, vid.inode(), 0, size_of::<InodeHeader>() as u32).await?;
    InodeHeader::read_from_bytes(&bytes).map_err(|_| Error::Internal("header length"))
}

/// Reads `count` entries of an array inode's map.
pub async fn read_entries(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    first: u32,
    count: u32,
) -> Result<Vec<u32>> {
    let offset = map_entry_offset(first);
    let bytes = read_object(cluster, op, vid.inode(), offset, 4 * count).await?;
    Ok(bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
}

/// Whether the server counts VDIs that have an entry of this one's map from it (3.7).
pub async fn is_inherited(cluster: &Cluster, op: &Op, vid: Vid, index: u32) -> Result<bool> {
    let count = gref_offset(index) + 4;
    let bytes = read_object(cluster, op, vid.inode(), count, 4).await?;
    Ok(bytes.iter().any(|byte| *byte != 0))
}

/// WRITE_OBJ or CREATE_AND_WRITE_OBJ; `cow` is the object that a new one starts as.
pub fn write_request(opcode: u8, oid: Oid, cow: Option<Oid>, offset: u32) -> Request {
    let flags = op::FLAG_WRITE | if cow.is_some() { op::FLAG_COW } else { 0 };
    let arm = ObjArm {
        oid: oid.0.into(),
        cow_oid: cow.map_or(0, |oid| oid.0).into(),
        offset: offset.into(),
        ..Default::default()
    };
    Request::new(opcode, flags, arm)
}

/// Writes map entries. Every one of them must change by it, and none be in flight already: a 1.0
/// server forgets the references of all entries that a write covers, and releases twice what two
/// updates replace (3.7, hazards 1 and 2). For that reason it is never resent either.
pub async fn write_entries(
    cluster: &Cluster,
    op: &Op,
    vid: Vid,
    first: u32,
    entries: &[u32],
) -> Result<()> {
    let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    let request = write_request(op::WRITE_OBJ, vid.inode(), None, map_entry_offset(first));
    cluster.call(op, Call::new(request).payload(bytes)).await.map(drop)
}

/// What a VDI is after its map was changed.
#[derive(Clone, Copy)]
pub struct Standing {
    /// The index that was asked for has an object of the VDI's own.
    pub object: bool,
    pub size: u64,
}

/// Makes sure that the VDI is still the working one, after an update of its map was acknowledged,
/// and tells whether it has an object of its own at `index`.
///
/// A 1.0 server that takes a snapshot reads the whole inode and writes it back: an update in
/// between is acknowledged and lost (4.2). It marks the VDI read-only before that; so where the
/// mark is not there yet, the update was in time. An empty write is refused like any other once
/// the mark is there. The header tells of a VDI that was deleted meanwhile, which servers do not
/// mark.
pub async fn standing(cluster: &Cluster, op: &Op, vid: Vid, index: u32) -> Step<Standing> {
    let touch = write_request(op::WRITE_OBJ, vid.data(index), None, 0);
    let touch = cluster.call(op, Call::new(touch).resendable());
    let (touched, header) = join(touch, read_header(cluster, op, vid)).await;
    let object = unless(touched, SdResult::NO_OBJ)?.is_some();
    let header = header?;
    if header.is_snapshot() || header.is_deleted() {
        return Err(Outcome::Frozen);
    }
    Ok(Standing { object, size: header.vdi_size.get() })
}

/// Sends a request that may be carried out twice, though never beside a lost attempt (0.5): the next
/// one waits for that.
pub async fn repeat(cluster: &Cluster, op: &Op, request: Request, payload: SendBuf) -> Result<()> {
    let mut backoff = Backoff::default();
    loop {
        match cluster.call(op, Call::new(request).payload(payload.clone())).await {
            Ok(_) => return Ok(()),
            Err(error) => backoff.wait_after(error, cluster, op).await?,
        }
    }
}

/// Whether an object is there.
pub async fn exists(cluster: &Cluster, op: &Op, oid: Oid) -> Result<bool> {
    Ok(unless(read_object(cluster, op, oid, 0, 1).await, SdResult::NO_OBJ)?.is_some())
}

/// A request that removes an object which nothing names (4.6).
pub fn remove_request(oid: Oid) -> Request {
    Request::new(op::REMOVE_OBJ, 0, ObjArm { oid: oid.0.into(), ..Default::default() })
}

/// READ_VDIS or READ_DEL_VDIS: a bit for each VDI id (4.12).
pub async fn read_bitmap(cluster: &Cluster, op: &Op, opcode: u8) -> Result<Vec<u8>> {
    let request = Request::new(opcode, 0, ObjArm::default());
    let call = Call::new(request).dest(Dest::Bytes(VDI_BITMAP_LEN)).resendable();
    let bytes = cluster.call(op, call).await?.bytes;
    if bytes.len() == VDI_BITMAP_LEN { Ok(bytes) } else { Err(Error::BadReply("bitmap length")) }
}

/// Whether an inode is the one that was asked for, and one that this library can read (5.2). A
/// snapshot that is being deleted is none any more.
pub fn check(header: &InodeHeader, vid: Vid, name: &Name, which: &Which) -> Result<()> {
    check_any(header, vid, name, which)?;
    if is_doomed(header) { Err(NO_TAG) } else { Ok(()) }
}

/// A snapshot whose deletion has begun: its content is going. It has no size; a VDI always has one.
pub fn is_doomed(header: &InodeHeader) -> bool {
    header.is_snapshot() && header.vdi_size.get() == 0
}

/// As [`check`], for whoever goes on with a deletion.
pub fn check_any(header: &InodeHeader, vid: Vid, name: &Name, which: &Which) -> Result<()> {
    // A recycling cluster answers a lookup of a deleted working VDI with its snapshot (3.4).
    let wanted = header.name() == field_text(name.field())
        && header.vid() == Some(vid)
        && (*which != Which::WORKING || !header.is_snapshot());
    if !wanted {
        return Err(Error::Refused(Refusal::NoVdi));
    }
    let known = match header.store_policy {
        STORE_ARRAY => (9..=31).contains(&header.block_size_shift),
        // Clients take it for granted there (3.9).
        STORE_BTREE => header.block_size_shift == DEFAULT_BLOCK_SIZE_SHIFT,
        _ => false,
    };
    if known && header.vdi_size.get() <= max_size(header.store_policy, header.block_size_shift) {
        Ok(())
    } else {
        Err(Error::Refused(Refusal::NoSupport))
    }
}

/// Number of data objects of a VDI whose map is an array. [`check`] has made sure that the number
/// fits. Of a snapshot that is being deleted it is not known any more.
pub fn objects(header: &InodeHeader) -> u32 {
    if is_doomed(header) {
        return MAX_DATA_OBJECTS;
    }
    object_count(header.vdi_size.get(), header.block_size_shift).try_into().unwrap_or(u32::MAX)
}
