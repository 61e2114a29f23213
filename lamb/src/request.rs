//! One request to its operation, and the operation's answer to a response (4.1).

use std::net::SocketAddr;

use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::op::{self, FLAG_PIGGYBACK, FLAG_WRITE};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{CLIENT_VERSION_MAX, INTERNAL_VERSION, Request, Response, SdResult};

use crate::admin::Hashing;
use crate::buf::{Buf, SMALL};
use crate::cluster::{Cluster, count};
use crate::object::Part;
use crate::read;
use crate::store::Data;

/// Bytes of the longest answer other than a READ's: what a client has room for beyond that is not
/// a reason to make it longer.
const MAX_ANSWER: usize = 16 << 20;

/// The cluster's epoch: its one node never leaves, so it stays what formatting makes it.
pub const EPOCH: u32 = 1;

/// What an operation answers besides its payload. `?` turns a plain failure into one.
pub struct Answer {
    pub result: SdResult,
    pub arm: [u8; 28],
}

impl Answer {
    /// Success, without anything else to say.
    pub const OK: Answer = Answer { result: SdResult::SUCCESS, arm: [0; 28] };

    pub fn success(arm: impl Into<[u8; 28]>) -> Answer {
        Answer { result: SdResult::SUCCESS, arm: arm.into() }
    }
}

impl From<SdResult> for Answer {
    fn from(result: SdResult) -> Answer {
        Answer { result, arm: [0; 28] }
    }
}

/// The payload of the response that is being made: never more than the client has room for, or it
/// would lose its place in the stream (0.3).
pub struct Out<'a> {
    buf: &'a mut Buf,
    start: usize,
    room: usize,
}

impl Out<'_> {
    pub fn room(&self) -> usize {
        self.room
    }

    /// Appends `n` bytes for the caller to overwrite.
    pub fn grow(&mut self, n: usize) -> Result<&mut [u8], SdResult> {
        if self.len() + n > self.room {
            return Err(SdResult::BUFFER_SMALL);
        }
        Ok(self.buf.grow(n))
    }

    pub fn push(&mut self, data: &[u8]) -> Result<(), SdResult> {
        self.grow(data.len())?.copy_from_slice(data);
        Ok(())
    }

    pub fn zeros(&mut self, n: usize) -> Result<(), SdResult> {
        self.grow(n)?.fill(0);
        Ok(())
    }

    fn len(&self) -> usize {
        self.buf.len() - self.start
    }
}

/// The connection a request came in on, as far as answers depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Where the client reaches this node (6.2).
    pub node: SocketAddr,
}

/// What the program has to do on behalf of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Nothing,
    /// SHUTDOWN or KILL_NODE: answer, then end.
    Stop,
}

/// How far a request is that is executed slice by slice.
#[derive(Default)]
pub enum Progress {
    #[default]
    New,
    Hash(Box<Hashing>),
    /// So many bytes of OIDS_EXIST are answered.
    Exist(usize, bool),
}

impl Cluster {
    /// Executes a request whose payload has arrived, and appends the whole response to `out`.
    pub fn execute(&self, request: &Request, payload: Data, peer: Peer, out: &mut Buf) -> Wish {
        let start = out.len();
        out.grow(HEADER_LEN).fill(0);
        // What is asked about node and cluster is no work of a gateway's (3.11).
        let counts = is_of_objects(request.opcode);
        if counts {
            count(&self.stat.total, 1);
            count(&self.stat.active, 1);
            count(&self.stat.rx, payload.len());
        }
        let start_of_data = out.len();
        let mut data = Out { buf: out, start: start_of_data, room: room_of_answer(request) };
        let answer = self.perform(request, payload, peer, &mut data);
        if counts {
            self.stat.active.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }

        if !answer.result.is_success() && request.opcode != op::OIDS_EXIST {
            out.truncate(start_of_data);
        }
        if counts {
            count(&self.stat.tx, out.len() - start_of_data);
        }
        finish(request, &answer, out, start);
        log::trace!("{} -> {:?}", op::name(request.opcode), answer.result);
        let stop = matches!(request.opcode, op::SHUTDOWN | op::KILL_NODE);
        if stop && answer.result.is_success() { Wish::Stop } else { Wish::Nothing }
    }

    /// Whether a request may take so long that it is executed by [`Self::execute_slice`]: it goes
    /// through whole objects, or through all of them.
    pub fn is_long(&self, request: &Request) -> bool {
        let opcode = request.opcode;
        (is_of_all(opcode) || is_sliced(opcode)) && version_is_known(request)
    }

    /// Executes a part of a long request; true if that was the last, and the response is complete.
    pub fn execute_slice(
        &self,
        request: &Request,
        payload: Data,
        peer: Peer,
        progress: &mut Progress,
        out: &mut Buf,
    ) -> bool {
        if !is_sliced(request.opcode) {
            self.execute(request, payload, peer, out);
            return true;
        }
        if let Progress::New = progress {
            out.grow(HEADER_LEN).fill(0);
        }
        let mut data = Out { buf: out, start: HEADER_LEN, room: room_of_answer(request) };
        let payload = payload.bytes().unwrap_or_default();
        let _format = read(&self.format);
        let done = match request.opcode {
            op::GET_HASH => self.get_hash(request, progress),
            _ => self.oids_exist(payload, progress, &mut data),
        };
        let Some(answer) = done.unwrap_or_else(|result| Some(result.into())) else { return false };
        finish(request, &answer, out, 0);
        true
    }

    /// Answers a READ that takes no wait for a disk; otherwise false, and nothing has happened.
    pub fn read_cached(&self, request: &Request, out: &mut Buf) -> bool {
        let (start, len) = (out.len(), room(request));
        if self.mimic.is_some()
            || request.opcode != op::READ_OBJ
            || len > SMALL
            || !version_is_known(request)
        {
            return false;
        }
        let _format = read(&self.format);
        let Ok(part) = self.part_to_read(request) else { return false };
        out.grow(HEADER_LEN);
        let read = part.object.read_now(out, part.offset, len);
        if read {
            self.count_read(len);
            finish(request, &Answer::OK, out, start);
        } else {
            out.truncate(start);
        }
        read
    }

    /// Answers a READ up to its data, which the caller sends; or completely, if it fails.
    pub fn begin_stream(&self, request: &Request, out: &mut Buf) -> Option<Part> {
        let _format = read(&self.format);
        let start = out.len();
        out.grow(HEADER_LEN);
        let part = match version_is_known(request) {
            true => self.part_to_read(request),
            false => Err(SdResult::VER_MISMATCH),
        };
        let mut response =
            Response::to(request, EPOCH, part.as_ref().err().copied().unwrap_or(SdResult::SUCCESS));
        let len = part.as_ref().map_or(0, |part| part.len);
        self.count_read(len);
        response.data_length = (len as u32).into();
        put(&response, out, start);
        part.ok()
    }

    fn count_read(&self, len: usize) {
        count(&self.stat.total, 1);
        count(&self.stat.reads, 1);
        count(&self.stat.tx, len);
    }

    /// Whether a request is done before another thread could begin with it.
    pub fn is_quick(&self, request: &Request) -> bool {
        request.opcode == op::WRITE_OBJ
            && self.mimic.is_none()
            && !self.store.syncs()
            && request.data_length.get() as usize <= SMALL
    }

    /// Whether a request usually waits for a disk: reads find their data in memory.
    pub fn may_wait(&self, request: &Request) -> bool {
        request.opcode != op::READ_OBJ && !self.is_quick(request)
    }

    fn perform(&self, request: &Request, payload: Data, peer: Peer, out: &mut Out) -> Answer {
        if !version_is_known(request) {
            return SdResult::VER_MISMATCH.into();
        }
        if request.opcode == op::MAKE_FS {
            let payload = payload.bytes().unwrap_or_default();
            return self.make_fs(request, payload).unwrap_or_else(Answer::from);
        }
        // Formatting, and all that comes behind it, must not wait for what only looks, and long.
        let _format = (!is_of_all(request.opcode)).then(|| read(&self.format));
        self.dispatch(request, payload, peer, out).unwrap_or_else(Answer::from)
    }

    fn dispatch(
        &self,
        request: &Request,
        data: Data,
        peer: Peer,
        out: &mut Out,
    ) -> Result<Answer, SdResult> {
        match request.opcode {
            op::CREATE_AND_WRITE_OBJ => return self.create_object(request, data),
            op::WRITE_OBJ => return self.write_object(request, data),
            _ => {}
        }
        // Nothing else is so long that it is in a file.
        let payload = data.bytes().ok_or(SdResult::INVALID_PARMS)?;
        match request.opcode {
            op::READ_OBJ => self.read_object(request, out),
            op::REMOVE_OBJ => self.remove_object(request),
            op::DISCARD_OBJ => self.discard_object(request),
            op::FLUSH_VDI => self.flush(request),

            op::NEW_VDI => self.new_vdi(request, payload),
            op::GET_VDI_INFO => self.get_vdi_info(request, payload),
            op::LOCK_VDI => self.lock_vdi(request, payload),
            op::RELEASE_VDI => self.release_vdi(request),
            op::DEL_VDI => self.del_vdi(request, payload),
            op::READ_VDIS => self.read_vdis(out, |_| true),
            op::READ_DEL_VDIS => self.read_vdis(out, |state| state.deleted),
            op::GET_VDI_ATTR => self.get_vdi_attr(request, payload),

            op::GET_CLUSTER_DEFAULT => self.get_cluster_default(),
            op::GET_NODE_LIST => self.get_node_list(peer, out),
            op::STAT_SHEEP => self.stat_sheep(),
            op::STAT_CLUSTER => self.stat_cluster(request, peer, out),
            op::CLUSTER_INFO => self.cluster_info(peer, out),
            op::GET_STORE_LIST => self.get_store_list(out),
            op::GET_EPOCH => self.get_epoch(request, peer, out),
            op::GET_OBJ_LIST => self.get_obj_list(out),
            op::GET_VDI_COPIES => self.get_vdi_copies(peer, out),
            op::NOTIFY_VDI_ADD => self.notify_vdi_add(request),
            op::MD_INFO => self.md_info(out),
            op::EXIST => self.exist(request),
            op::STAT => self.stat(out),
            op::STAT_RECOVERY => self.stat_recovery(out),
            op::GET_RECOVERY => self.get_recovery(out),
            op::SET_RECOVERY => self.set_recovery(payload),
            op::GET_LOGLEVEL => self.get_loglevel(out),
            op::SET_LOGLEVEL => self.set_loglevel(payload),
            op::GET_VNODES => self.get_vnodes(out),
            op::SET_VNODES => Err(SdResult::INVALID_VNODES_STRATEGY),
            op::ALTER_CLUSTER_COPY => self.alter_cluster_copy(request),
            op::ALTER_VDI_COPY => self.alter_vdi_copy(request),
            op::ENABLE_RECOVER => self.disable_recovery(false),
            op::DISABLE_RECOVER => self.disable_recovery(true),
            // Nothing to do: no object cache, one node, nothing to recover or to weigh.
            op::DELETE_CACHE
            | op::FLUSH_DEL_CACHE
            | op::REWEIGHT
            | op::CLEANUP
            | op::INODE_COHERENCE
            | op::SHUTDOWN
            | op::KILL_NODE => Ok(Answer::OK),
            op::FORCE_RECOVER => Err(SdResult::FORCE_RECOVER),
            op::NOTIFY_VDI_DEL | op::DECREF_OBJ | op::REPAIR_REPLICA => Err(SdResult::NO_SUPPORT),
            _ => Err(SdResult::INVALID_PARMS),
        }
    }
}

/// Whether an operation looks at every object there is.
fn is_of_all(opcode: u8) -> bool {
    matches!(opcode, op::STAT_SHEEP | op::MD_INFO | op::GET_OBJ_LIST)
}

fn is_sliced(opcode: u8) -> bool {
    matches!(opcode, op::GET_HASH | op::OIDS_EXIST)
}

fn is_of_objects(opcode: u8) -> bool {
    matches!(
        opcode,
        op::READ_OBJ
            | op::CREATE_AND_WRITE_OBJ
            | op::WRITE_OBJ
            | op::REMOVE_OBJ
            | op::DISCARD_OBJ
            | op::FLUSH_VDI
    )
}

/// Completes the response that starts at `start` and whose payload follows its header.
fn finish(request: &Request, answer: &Answer, out: &mut Buf, start: usize) {
    let mut response = Response::to(request, EPOCH, answer.result);
    response.data_length = ((out.len() - start - HEADER_LEN) as u32).into();
    response.arm = answer.arm;
    put(&response, out, start);
}

fn put(response: &Response, out: &mut Buf, start: usize) {
    if let Some(header) = out.tail_mut(start).get_mut(..HEADER_LEN) {
        header.copy_from_slice(response.as_bytes());
    }
}

/// Whether the server speaks the version that the request states (0.4).
fn version_is_known(request: &Request) -> bool {
    if op::is_internal(request.opcode) {
        request.proto_ver == INTERNAL_VERSION
    } else {
        request.proto_ver <= CLIENT_VERSION_MAX
    }
}

/// Bytes of response payload that the client has room for (0.3).
pub fn room(request: &Request) -> usize {
    match request.flags.get() & (FLAG_WRITE | FLAG_PIGGYBACK) {
        FLAG_WRITE => 0,
        _ => request.data_length.get() as usize,
    }
}

/// The same, as far as there is a use for it.
fn room_of_answer(request: &Request) -> usize {
    match request.opcode {
        op::READ_OBJ => room(request),
        _ => room(request).min(MAX_ANSWER),
    }
}
