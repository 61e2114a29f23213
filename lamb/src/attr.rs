//! Attributes: GET_VDI_ATTR (4.14), and which of them end with their VDI.

use sheepdog_proto::attr::{ATTR_LEN, AttrHeader};
use sheepdog_proto::hash::vid_of_name;
use sheepdog_proto::header::VdiReply;
use sheepdog_proto::oid::OidKind;
use sheepdog_proto::op::{FLAG_ATTR_CREAT, FLAG_ATTR_DEL, FLAG_ATTR_EXCL, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{InodeHeader, Oid, Request, SdResult, field_text};

use crate::cluster::{Cluster, disk};
use crate::request::Answer;
use crate::{lock, read};

/// Where an attribute is, or where it would go.
struct Slot {
    attr_id: u32,
    found: bool,
    /// The first deleted attribute on the way, which a new one may replace.
    free: Option<u32>,
}

impl Cluster {
    pub fn get_vdi_attr(&self, request: &Request, payload: &[u8]) -> Result<Answer, SdResult> {
        let flags = request.flags.get();
        let (mut header, value) =
            AttrHeader::read_from_prefix(payload).map_err(|_| SdResult::INVALID_PARMS)?;
        if flags & FLAG_WRITE == 0 || payload.len() > ATTR_LEN {
            return Err(SdResult::INVALID_PARMS);
        }
        let _order = lock(&self.order);
        let vdi = self.resolve(header.name, header.tag, request.vdi().snapid.get())?;
        let (ctime, copies) = {
            let state = read(&vdi.state);
            (state.header.create_time, state.header.nr_copies)
        };
        header.ctime = ctime;

        let mut slot = self.find_attr(&header).map_err(disk)?;
        let (create, exclusive) = (flags & FLAG_ATTR_CREAT != 0, flags & FLAG_ATTR_EXCL != 0);
        let result = match slot.found {
            true if exclusive => Err(SdResult::VDI_EXIST),
            false if !create => Err(SdResult::NO_OBJ),
            _ if create => {
                if !slot.found {
                    slot.attr_id = slot.free.unwrap_or(slot.attr_id);
                }
                self.store
                    .create_for_good(header.oid(slot.attr_id), ATTR_LEN as u64, |object| {
                        object.fill(header.as_bytes(), 0)?;
                        object.fill(value, size_of::<AttrHeader>() as u64)
                    })
                    .map_err(disk)
            }
            _ if flags & FLAG_ATTR_DEL != 0 => self.bury_attr(header.oid(slot.attr_id)),
            _ => Ok(()),
        };
        let vid = vid_of_name(field_text(&header.name));
        Ok(Answer {
            result: result.err().unwrap_or(SdResult::SUCCESS),
            arm: VdiReply {
                vdi_id: vid.get().into(),
                attr_id: slot.attr_id.into(),
                copies,
                ..VdiReply::default()
            }
            .into(),
        })
    }

    /// Follows the collisions from the attribute's hash on (3.8).
    fn find_attr(&self, wanted: &AttrHeader) -> std::io::Result<Slot> {
        let mut slot = Slot { attr_id: wanted.first_id(), found: false, free: None };
        while let Some(header) = self.attr_header(wanted.oid(slot.attr_id))? {
            if header.same_key(wanted) {
                slot.found = true;
                break;
            }
            if header.is_deleted() && slot.free.is_none() {
                slot.free = Some(slot.attr_id);
            }
            slot.attr_id = slot.attr_id.wrapping_add(1);
        }
        Ok(slot)
    }

    fn attr_header(&self, oid: Oid) -> std::io::Result<Option<AttrHeader>> {
        let Some(object) = self.store.get(oid)? else { return Ok(None) };
        let mut header = AttrHeader::default();
        object.read(header.as_mut_bytes(), 0)?;
        Ok(Some(header))
    }

    /// Deletes an attribute and keeps its object, without its value, so that those behind it are
    /// still found (4.14).
    fn bury_attr(&self, oid: Oid) -> Result<(), SdResult> {
        let object = self.store.get(oid).map_err(disk)?.ok_or(SdResult::NO_OBJ)?;
        self.store.write_for_good(&object, &[0], 0).map_err(disk)?;
        object.punch(size_of::<AttrHeader>() as u64..object.len()).map_err(disk)
    }

    /// Removes deleted attributes from `oid` on backwards, if nothing follows it.
    fn trim_attrs(&self, mut oid: Oid) -> Result<(), SdResult> {
        let neighbour = |oid: Oid, step| oid.vid().attr(oid.index().wrapping_add(step));
        while !self.store.exists(neighbour(oid, 1)).map_err(disk)? {
            match self.attr_header(oid).map_err(disk)? {
                Some(header) if header.is_deleted() => {}
                _ => break,
            }
            self.store.remove(oid, false).map_err(disk)?;
            oid = neighbour(oid, u32::MAX);
        }
        Ok(())
    }

    /// Removes the attributes of a VDI's name that `which` says.
    pub fn remove_attrs(
        &self,
        vdi: &InodeHeader,
        which: impl Fn(&AttrHeader) -> bool,
    ) -> Result<(), SdResult> {
        let hash = vid_of_name(vdi.name());
        for attr_id in self.store.indexes(OidKind::Attr, hash).map_err(disk)? {
            let oid = hash.attr(attr_id);
            let Some(header) = self.attr_header(oid).map_err(disk)? else { continue };
            if field_text(&header.name) == vdi.name() && which(&header) {
                self.bury_attr(oid)?;
                self.trim_attrs(oid)?;
            } else if header.is_deleted() {
                self.trim_attrs(oid)?;
            }
        }
        self.store.remove_dir(OidKind::Attr, hash);
        Ok(())
    }

    /// Removes attributes that a crash kept from going with what they belong to.
    pub fn reclaim_attrs(&self) -> std::io::Result<()> {
        for hash in self.store.vids(OidKind::Attr)? {
            for attr_id in self.store.indexes(OidKind::Attr, hash)? {
                let oid = hash.attr(attr_id);
                let Some(header) = self.attr_header(oid)? else { continue };
                let removed = match header.is_deleted() {
                    true => self.trim_attrs(oid),
                    false if self.belongs(&header) => Ok(()),
                    false => self.bury_attr(oid).and_then(|()| self.trim_attrs(oid)),
                };
                removed.map_err(|result| std::io::Error::other(format!("{oid}: {result}")))?;
            }
            self.store.remove_dir(OidKind::Attr, hash);
        }
        Ok(())
    }

    /// Whether an attribute is one of a VDI or a snapshot that there is.
    fn belongs(&self, attr: &AttrHeader) -> bool {
        let any = self.knows_name(field_text(&attr.name));
        let untagged = attr.tag[0] == 0 && attr.snap_id.get() == 0;
        any && (untagged || self.resolve(attr.name, attr.tag, attr.snap_id.get()).is_ok())
    }
}
