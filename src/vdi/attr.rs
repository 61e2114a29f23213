//! Attributes: values under keys that belong to a VDI's name (4.14).

use std::mem::{offset_of, size_of};

use sheepdog_proto::attr::{self, AttrHeader, VALUE_LEN};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{Request, SdResult, name_field, op};

use super::Client;
use super::inode::{self, Name, repeat, unless, write_request};
use crate::cluster::{Backoff, Call, Op};
use crate::error::{Error, Result};

/// Bytes of the header.
const HEADER: usize = size_of::<AttrHeader>();
/// Where the value's length stands, and after it the key and the value: what a replacement writes.
const LENGTH_AT: usize = offset_of!(AttrHeader, value_len);

fn failed(result: SdResult) -> Error {
    Error::Server { opcode: op::GET_VDI_ATTR, result }
}

fn success(result: SdResult) -> Result<()> {
    if result.is_success() { Ok(()) } else { Err(failed(result)) }
}

/// An attribute of a VDI, by its key.
pub struct Key {
    header: AttrHeader,
}

impl Key {
    pub fn new(name: &Name, key: &[u8]) -> Result<Key> {
        if key.is_empty() {
            return Err(Error::Invalid("the key is empty"));
        }
        let key = name_field(key).ok_or(Error::Invalid("the key is longer than 255 bytes"))?;
        Ok(Key { header: AttrHeader { name: *name.field(), key, ..Default::default() } })
    }

    /// The record that asks for it, without a value.
    fn record(&self) -> Result<Vec<u8>> {
        attr::encode(self.header, &[]).ok_or(Error::Internal("length of an attribute"))
    }
}

impl Client {
    /// Creates or replaces an attribute.
    pub async fn set_attr(&self, op: &Op, key: &Key, value: &[u8]) -> Result<()> {
        let record = attr::encode(key.header, value)
            .ok_or(Error::Invalid("the value is longer than 64 KiB"))?;
        let id = match self.attr_op(op, 0, key.record()?).await? {
            (SdResult::NO_OBJ, _) => {
                let flags = op::FLAG_ATTR_CREAT | self.exclusive_if_taken(op, key).await?;
                match self.attr_op(op, flags, record.clone()).await? {
                    // Created by another client just now, or by an attempt that looked lost.
                    (SdResult::VDI_EXIST, id) => id,
                    (result, _) => return success(result),
                }
            }
            (result, id) => success(result).map(|()| id)?,
        };
        let end = HEADER + value.len();
        let oid = key.header.oid(id);
        let request = write_request(op::WRITE_OBJ, oid, None, LENGTH_AT as u32);
        repeat(&self.cluster, op, request, record[LENGTH_AT..end].to_vec().into()).await
    }

    /// The flag that makes a create look for a place of its own, where the first one is another
    /// attribute's with the same hash: a create without it overwrites whatever is there (3.8).
    /// Nor is it asked for needlessly: it passes over what was deleted, and leaves that for others
    /// to create again.
    async fn exclusive_if_taken(&self, op: &Op, key: &Key) -> Result<u16> {
        let oid = key.header.oid(key.header.first_id());
        let found = inode::read_object(&self.cluster, op, oid, 0, HEADER as u32).await;
        let Some(found) = unless(found, SdResult::NO_OBJ)? else { return Ok(0) };
        let taken = AttrHeader::read_from_bytes(&found).is_ok_and(|header| !header.is_deleted());
        Ok(if taken { op::FLAG_ATTR_EXCL } else { 0 })
    }

    /// The value, cut after `room` bytes, and its whole length.
    pub async fn get_attr(&self, op: &Op, key: &Key, room: usize) -> Result<(Vec<u8>, usize)> {
        let (result, id) = self.attr_op(op, 0, key.record()?).await?;
        success(result)?;
        let len = HEADER + room.min(VALUE_LEN);
        let oid = key.header.oid(id);
        let object = inode::read_object(&self.cluster, op, oid, 0, len as u32).await?;
        let (header, value) =
            attr::parse(&object).ok_or(Error::Internal("length of an attribute"))?;
        if header.is_deleted() || header.key != key.header.key {
            // Deleted between the two requests.
            return Err(failed(SdResult::NO_OBJ));
        }
        Ok((value.to_vec(), (header.value_len.get() as usize).min(VALUE_LEN)))
    }

    pub async fn delete_attr(&self, op: &Op, key: &Key) -> Result<()> {
        success(self.attr_op(op, op::FLAG_ATTR_DEL, key.record()?).await?.0)
    }

    /// GET_VDI_ATTR: its result, and the id of the attribute, which failures that know it tell too.
    async fn attr_op(&self, op: &Op, flags: u16, record: Vec<u8>) -> Result<(SdResult, u32)> {
        let version = self.generation(op).await?.internal_version();
        let request = Request { proto_ver: version, ..attr::get_vdi_attr(flags, 0) };
        let mut lost = false;
        let mut backoff = Backoff::default();
        loop {
            let call = Call::new(request).payload(record.clone());
            let error = match self.cluster.call_any(op, call).await {
                Ok(reply) => {
                    let (result, id) = (reply.header.result(), reply.header.vdi().attr_id.get());
                    if lost && flags == op::FLAG_ATTR_DEL && result == SdResult::NO_OBJ {
                        // Deleted by the attempt whose answer was lost.
                        return Ok((SdResult::SUCCESS, id));
                    }
                    match success(result) {
                        Err(error) if error.is_ambiguous() => error,
                        _ => return Ok((result, id)),
                    }
                }
                Err(error) => error,
            };
            backoff.wait_after(error, &self.cluster, op).await?;
            lost = true;
        }
    }
}
