//! Clients that write, take snapshots, and know what was acknowledged to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use super::{Client, Dice, OBJECT, Program};
use sheepdog_proto::header::VdiArm;
use sheepdog_proto::inode::{INODE_LEN, TAG_OFFSET, map_entry_offset};
use sheepdog_proto::op::{self, FLAG_COW, FLAG_WRITE};
use sheepdog_proto::zerocopy::FromBytes;
use sheepdog_proto::{InodeHeader, Request, SdResult, Vid, name_field};

pub const OBJECTS: u32 = 12;
const BLOCK: usize = 4096;
/// Snapshots that a VDI has at most.
const KEPT: u32 = 2;

/// What one client knows of its VDI.
#[derive(Default)]
struct Known {
    name: String,
    /// The stamp last acknowledged at each block, by object and block.
    acked: BTreeMap<(u32, u32), u64>,
    /// What was on its way when the server died.
    pending: Option<((u32, u32), u64)>,
    snapshots: u32,
    /// Of those, the first ones that were deleted.
    deleted: u32,
}

/// A client that stops at the first sign of the server's death.
struct Writer<'a> {
    c: Client,
    vid: Vid,
    map: Vec<u32>,
    known: &'a mut Known,
}

type Dead = ();

impl Writer<'_> {
    fn call(&mut self, request: Request, payload: &[u8]) -> Result<SdResult, Dead> {
        use sheepdog_proto::zerocopy::IntoBytes;
        use std::io::Write;
        let request = request.with_length(payload.len() as u32);
        let frame = [request.as_bytes(), payload].concat();
        self.c.stream.write_all(&frame).map_err(|_| ())?;
        let (response, _) = self.c.receive().map_err(|_| ())?;
        if response.opcode == op::NEW_VDI && response.result().is_success() {
            self.vid = response.vdi().vid().unwrap();
        }
        Ok(response.result())
    }

    fn must(&mut self, request: Request, payload: &[u8]) -> Result<(), Dead> {
        let result = self.call(request, payload)?;
        assert_eq!(result, SdResult::SUCCESS);
        Ok(())
    }

    fn write(&mut self, index: u32, block: u32, stamp: u64) -> Result<(), Dead> {
        let data = stamp.to_le_bytes().repeat(BLOCK / 8);
        let offset = block * BLOCK as u32;
        let own = self.vid.data(index);
        self.known.pending = Some(((index, block), stamp));
        let owner = self.map[index as usize];
        if owner == self.vid.get() {
            self.must(super::obj(op::WRITE_OBJ, FLAG_WRITE, own, offset), &data)?;
        } else {
            let mut request = super::obj(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, own, offset);
            if let Some(base) = Vid::new(owner).filter(|vid| !vid.is_none()) {
                let mut arm = *request.obj();
                arm.cow_oid = base.data(index).0.into();
                request = Request::new(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE | FLAG_COW, arm);
            }
            self.must(request, &data)?;
            let entry = self.vid.get().to_le_bytes();
            let at = map_entry_offset(index);
            self.must(super::obj(op::WRITE_OBJ, FLAG_WRITE, self.vid.inode(), at), &entry)?;
            self.map[index as usize] = self.vid.get();
        }
        self.known.acked.insert((index, block), stamp);
        self.known.pending = None;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), Dead> {
        let tag = name_field(format!("s{}", self.known.snapshots).as_bytes()).unwrap();
        let inode = self.vid.inode();
        self.must(super::obj(op::WRITE_OBJ, FLAG_WRITE, inode, TAG_OFFSET), &tag)?;
        let arm = VdiArm {
            vdi_size: (u64::from(OBJECTS) * OBJECT).into(),
            base_vdi_id: self.vid.get().into(),
            snapid: 1.into(),
            copies: 1,
            block_size_shift: 22,
            ..VdiArm::default()
        };
        let name = name_field(self.known.name.as_bytes()).unwrap();
        self.must(Request::new(op::NEW_VDI, FLAG_WRITE, arm), &name)?;
        self.known.snapshots += 1;
        if self.known.snapshots - self.known.deleted > KEPT {
            self.delete_oldest()?;
        }
        Ok(())
    }

    fn delete_oldest(&mut self) -> Result<(), Dead> {
        let tag = name_field(format!("s{}", self.known.deleted).as_bytes()).unwrap();
        let name = name_field(self.known.name.as_bytes()).unwrap();
        let request = Request::new(op::DEL_VDI, FLAG_WRITE, VdiArm::default());
        // The server may have died between the deletion and the answer.
        let result = self.call(request, &[name, tag].concat())?;
        assert!(matches!(result, SdResult::SUCCESS | SdResult::NO_TAG), "{result:?}");
        self.known.deleted += 1;
        Ok(())
    }

    fn run(&mut self, dice: &mut Dice) -> Result<(), Dead> {
        loop {
            if dice.roll(60) == 0 {
                self.snapshot()?;
            }
            let (index, block) = (dice.roll(OBJECTS as usize) as u32, dice.roll(1024) as u32);
            self.write(index, block, dice.next() | 1)?;
        }
    }
}

fn open<'a>(c: Client, known: &'a mut Known) -> Writer<'a> {
    let mut c = c;
    let vid = c.info(&known.name, "", 0).unwrap();
    let map = c.entries(vid, OBJECTS);
    Writer { c, vid, map, known }
}

fn verify(c: &mut Client, known: &mut Known) {
    let vid = c.info(&known.name, "", 0).expect("a working VDI survives a crash");
    let map = c.entries(vid, OBJECTS);
    for (&(index, block), &stamp) in &known.acked {
        let owner = Vid::new(map[index as usize]).filter(|vid| !vid.is_none());
        let owner = owner.unwrap_or_else(|| panic!("{}: object {index} is lost", known.name));
        let data = c.read(owner.data(index), block * BLOCK as u32, BLOCK as u32).unwrap();
        let found = u64::from_le_bytes(data[..8].try_into().unwrap());
        assert_eq!(data, found.to_le_bytes().repeat(BLOCK / 8), "torn");
        let pending = known.pending == Some(((index, block), found));
        assert!(found == stamp || pending, "{}: object {index}, block {block}", known.name);
    }
    if let Some(((index, block), _)) = known.pending.take() {
        // From now on what is there counts, whichever it is.
        let found = Vid::new(map[index as usize])
            .filter(|vid| !vid.is_none())
            .map(|owner| c.read(owner.data(index), block * BLOCK as u32, 8).unwrap());
        match found.map(|data| u64::from_le_bytes(data.try_into().unwrap())) {
            Some(stamp) if stamp != 0 => known.acked.insert((index, block), stamp),
            _ => known.acked.remove(&(index, block)),
        };
    }
}

/// Every file is a whole object, and none is without a name.
pub fn verify_store(dir: &Path) {
    assert_eq!(std::fs::read_dir(dir.join("temp")).unwrap().count(), 0);
    let mut named = Vec::new();
    for entry in std::fs::read_dir(dir.join("inode")).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().len(), u64::from(INODE_LEN));
        let bytes = std::fs::read(entry.path()).unwrap();
        let (header, _) = InodeHeader::ref_from_prefix(&bytes).unwrap();
        let map = bytes[4664..4664 + 4 * OBJECTS as usize].chunks_exact(4);
        for (index, entry) in (0..).zip(map) {
            let owner = u32::from_le_bytes(entry.try_into().unwrap());
            if owner != 0 && !header.is_deleted() {
                named.push((owner, index));
            }
        }
    }
    named.sort_unstable();
    named.dedup();
    assert_eq!(super::objects_in(&dir.join("data")), named);
    for (vid, index) in named {
        let path = dir.join("data").join(format!("{vid:06x}")).join(format!("{index:08x}"));
        assert_eq!(std::fs::metadata(path).unwrap().len(), OBJECT);
    }
}

/// Several such clients.
pub struct Load(Vec<Known>);

impl Load {
    pub fn begin(program: &Program) -> Load {
        let known = |i| Known { name: format!("vdi{i}"), ..Known::default() };
        let clients: Vec<Known> = (0..3).map(known).collect();
        for known in &clients {
            program.client().vdi(&known.name, OBJECTS.into());
        }
        Load(clients)
    }

    /// Runs until the server is dead, which `end` sees to.
    pub fn run(&mut self, program: &Program, round: u64, end: impl FnOnce()) {
        // The server may end as soon as the first of them is at work.
        let open = |known| open(program.client(), known);
        let writers: Vec<Writer> = self.0.iter_mut().map(open).collect();
        thread::scope(|scope| {
            for (i, mut writer) in writers.into_iter().enumerate() {
                let mut dice = Dice(round * 100 + i as u64);
                scope.spawn(move || writer.run(&mut dice));
            }
            end();
        });
    }

    /// Looks for everything that was acknowledged.
    pub fn verify(&mut self, program: &Program) {
        let mut c = program.client();
        self.0.iter_mut().for_each(|known| verify(&mut c, known));
    }

    pub fn assert_busy(&self) {
        assert!(self.0.iter().all(|known| !known.acked.is_empty()), "the load did nothing");
    }
}

/// How often, as the environment says.
pub fn rounds(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |n| n.parse().unwrap())
}
