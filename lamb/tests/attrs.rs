//! GET_VDI_ATTR (4.14), and attributes that end with their VDI.

mod common;

use common::{Client, Lamb, vid};
use sheepdog_proto::attr::{self, ATTR_LEN, AttrHeader, get_vdi_attr};
use sheepdog_proto::op::{FLAG_ATTR_CREAT as CREAT, FLAG_ATTR_DEL as DEL, FLAG_ATTR_EXCL as EXCL};
use sheepdog_proto::{Oid, SdResult, name_field};

const OK: SdResult = SdResult::SUCCESS;
const GET: u16 = 0;

struct Attr<'a> {
    name: &'a str,
    tag: &'a str,
    snap_id: u32,
    key: &'a str,
}

fn of(name: &str) -> Attr<'_> {
    Attr { name, tag: "", snap_id: 0, key: "k1" }
}

impl Attr<'_> {
    fn header(&self) -> AttrHeader {
        let field = |text: &str| name_field(text.as_bytes()).unwrap();
        AttrHeader {
            name: field(self.name),
            tag: field(self.tag),
            snap_id: self.snap_id.into(),
            key: field(self.key),
            ..AttrHeader::default()
        }
    }

    /// The result, and the object that the answer names.
    fn call(&self, c: &mut Client, flags: u16, value: &[u8]) -> (SdResult, Oid) {
        let payload = attr::encode(self.header(), value).unwrap();
        let (response, data) = c.call(get_vdi_attr(flags, self.snap_id), &payload);
        assert_eq!(data.len(), 0);
        let oid = vid(response.vdi().vdi_id.get()).attr(response.vdi().attr_id.get());
        (response.result(), oid)
    }

    fn value(&self, c: &mut Client) -> Result<Vec<u8>, SdResult> {
        match self.call(c, GET, b"") {
            (OK, oid) => {
                let object = c.read(oid, 0, ATTR_LEN as u32).unwrap();
                let (header, value) = attr::parse(&object).unwrap();
                assert!(header.same_key(&self.header()));
                Ok(value.to_vec())
            }
            (result, _) => Err(result),
        }
    }
}

#[test]
fn each_combination_of_flags_does_what_the_real_server_does() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    let a = of("alpha");
    let slot = vid(0xed202b).attr(0x4e21358d);
    assert_eq!(a.call(&mut c, GET, b""), (SdResult::NO_OBJ, slot));
    assert_eq!(a.call(&mut c, EXCL, b""), (SdResult::NO_OBJ, slot));
    assert_eq!(a.call(&mut c, DEL, b""), (SdResult::NO_OBJ, slot));
    assert_eq!(a.call(&mut c, CREAT | EXCL, b"one"), (OK, slot));
    assert_eq!(a.value(&mut c), Ok(b"one".to_vec()));
    assert_eq!(a.call(&mut c, CREAT | EXCL, b"two"), (SdResult::VDI_EXIST, slot));
    assert_eq!(a.call(&mut c, EXCL, b""), (SdResult::VDI_EXIST, slot));
    assert_eq!(a.value(&mut c), Ok(b"one".to_vec()));
    assert_eq!(a.call(&mut c, CREAT, b"three"), (OK, slot));
    assert_eq!(a.call(&mut c, CREAT | DEL, b"four"), (OK, slot));
    assert_eq!(a.value(&mut c), Ok(b"four".to_vec()));
    let object = c.read(slot, 0, ATTR_LEN as u32).unwrap();
    let (header, _) = attr::parse(&object).unwrap();
    assert_eq!(header.ctime, c.header(v).create_time, "filled in by the server");
    assert_eq!(a.call(&mut c, DEL, b""), (OK, slot));
    assert_eq!(c.read(slot, 0, 1), Ok(vec![0]), "what is deleted has no name");
    let after = vid(0xed202b).attr(0x4e21358e);
    assert_eq!(a.call(&mut c, GET, b""), (SdResult::NO_OBJ, after));
    assert_eq!(a.call(&mut c, CREAT, b"five"), (OK, slot));
    assert_eq!(a.value(&mut c), Ok(b"five".to_vec()));
}

#[test]
fn an_attribute_needs_its_vdi() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    assert_eq!(of("alpha").call(&mut c, CREAT, b"").0, SdResult::NO_VDI);
    c.vdi("alpha", 1);
    let tagged = Attr { tag: "s", ..of("alpha") };
    assert_eq!(tagged.call(&mut c, CREAT, b"").0, SdResult::NO_TAG);
    let (response, _) = c.call(get_vdi_attr(CREAT, 0), &[0; 783]);
    assert_eq!(response.result(), SdResult::INVALID_PARMS);
    let (response, _) = c.call(get_vdi_attr(CREAT, 0), &[0; ATTR_LEN + 1]);
    assert_eq!(response.result(), SdResult::INVALID_PARMS);
}

#[test]
fn a_collision_moves_on_to_the_next_object() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    c.vdi("alpha", 1);
    let a = of("alpha");
    let (first, second) = (vid(0xed202b).attr(0x4e21358d), vid(0xed202b).attr(0x4e21358e));
    // An attribute of another VDI, where this one would go.
    let other = attr::encode(of("other").header(), b"other").unwrap();
    assert_eq!(c.create(first, 0, &other), OK);
    assert_eq!(a.call(&mut c, CREAT, b"mine"), (OK, second));
    assert_eq!(a.value(&mut c), Ok(b"mine".to_vec()));
    assert!(c.read(first, 0, ATTR_LEN as u32).unwrap() == other, "not overwritten");
    // Behind one that is deleted it is still found.
    assert_eq!(c.write(first, 0, &[0]), OK);
    assert_eq!(a.call(&mut c, CREAT, b"again"), (OK, second));
    assert_eq!(c.delete("alpha", "", 0).map(|_| ()), Ok(()));
    assert_eq!(c.read(second, 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn the_id_comes_from_the_name_not_from_the_vdi() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    c.vdi("alpha", 1);
    assert_eq!(c.vdi("vol7646017", 1), vid(0xed202c));
    let (result, oid) = of("vol7646017").call(&mut c, CREAT, b"v");
    assert_eq!((result, oid.vid()), (OK, vid(0xed202b)));
    // The neighbours under the same hash do not mind when one of them is deleted.
    assert_eq!(of("alpha").call(&mut c, CREAT, b"a").0, OK);
    c.delete("vol7646017", "", 0).unwrap();
    assert_eq!(of("alpha").value(&mut c), Ok(b"a".to_vec()));
    assert_eq!(c.read(oid, 0, 1), Err(SdResult::NO_OBJ));
}

#[test]
fn tag_and_number_address_different_attributes_of_one_snapshot() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    assert_eq!(of("alpha").call(&mut c, CREAT, b"working").0, OK);
    let w = c.snapshot("alpha", v, "s");
    let tagged = Attr { tag: "s", ..of("alpha") };
    let numbered = Attr { snap_id: 1, ..of("alpha") };
    assert_eq!(tagged.call(&mut c, CREAT, b"tagged").0, OK);
    assert_eq!(numbered.value(&mut c), Err(SdResult::NO_OBJ));
    assert_eq!(numbered.call(&mut c, CREAT, b"numbered").0, OK);
    assert_eq!(of("alpha").value(&mut c), Ok(b"working".to_vec()), "survives the snapshot");
    assert_eq!(tagged.value(&mut c), Ok(b"tagged".to_vec()));

    // They go with the snapshot; the others stay.
    c.delete("alpha", "s", 0).unwrap();
    c.snapshot("alpha", w, "s");
    assert_eq!(tagged.value(&mut c), Err(SdResult::NO_OBJ));
    assert_eq!(of("alpha").value(&mut c), Ok(b"working".to_vec()));
}

#[test]
fn a_rollback_keeps_attributes_and_a_new_vdi_has_none() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    assert_eq!(of("alpha").call(&mut c, CREAT, b"mine").0, OK);
    c.snapshot("alpha", v, "s");
    // As dog does it (5.10).
    c.delete("alpha", "", 0).unwrap();
    c.branch("alpha", v, 0).unwrap();
    assert_eq!(of("alpha").value(&mut c), Ok(b"mine".to_vec()));

    c.delete("alpha", "", 0).unwrap();
    c.vdi("alpha", 1);
    assert_eq!(of("alpha").value(&mut c), Err(SdResult::NO_OBJ), "not the same VDI");

    assert_eq!(of("alpha").call(&mut c, CREAT, b"mine").0, OK);
    c.delete("alpha", "", 0).unwrap();
    c.delete("alpha", "s", 0).unwrap();
    let attrs = lamb.options.dir.join("attr");
    assert_eq!(std::fs::read_dir(attrs).unwrap().count(), 0);
}

fn files(lamb: &Lamb) -> Vec<std::path::PathBuf> {
    let dirs = std::fs::read_dir(lamb.options.dir.join("attr")).unwrap();
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn deleted_attributes_take_no_space_and_go_with_their_vdi() {
    use std::os::unix::fs::MetadataExt;
    let lamb = Lamb::start();
    let mut c = lamb.client();
    c.vdi("alpha", 1);
    let keys: Vec<String> = (0..50).map(|i| format!("key{i}")).collect();
    for key in &keys {
        let a = Attr { key, ..of("alpha") };
        assert_eq!(a.call(&mut c, CREAT, &[7; 60_000]).0, OK);
        assert_eq!(a.call(&mut c, DEL, b"").0, OK);
    }
    let used: u64 = files(&lamb).iter().map(|path| path.metadata().unwrap().blocks() * 512).sum();
    assert!(used <= 50 * 8192, "{used}");
    c.delete("alpha", "", 0).unwrap();
    assert_eq!(files(&lamb).len(), 0);
}

/// As after a crash between the end of the VDIs and that of their attributes.
#[test]
fn attributes_do_not_outlive_their_vdis_by_a_crash() {
    let mut lamb = Lamb::start();
    let mut c = lamb.client();
    let v = c.vdi("alpha", 1);
    c.snapshot("alpha", v, "s");
    c.vdi("beta", 1);
    let tagged = Attr { tag: "s", ..of("alpha") };
    assert_eq!(tagged.call(&mut c, CREAT, b"old").0, OK);
    assert_eq!(of("alpha").call(&mut c, CREAT, b"old").0, OK);
    assert_eq!(of("beta").call(&mut c, CREAT, b"mine").0, OK);
    let kept: Vec<_> =
        files(&lamb).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    assert_eq!(kept.len(), 3);
    c.delete("alpha", "", 0).unwrap();
    c.delete("alpha", "s", 0).unwrap();
    assert_eq!(files(&lamb).len(), 1);
    drop(lamb.server.take());
    for (data, path) in kept {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }
    lamb.restart();
    assert_eq!(files(&lamb).len(), 1);
    let mut c = lamb.client();
    assert_eq!(of("beta").value(&mut c), Ok(b"mine".to_vec()));
    let v = c.vdi("alpha", 1);
    c.snapshot("alpha", v, "s");
    assert_eq!(tagged.value(&mut c), Err(SdResult::NO_OBJ));
}
