//! A client of few words for tests: it says exactly what it is told, and sees exactly what comes.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod load;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamb::{Address, Options, Server};
use sheepdog_proto::header::{ObjArm, VdiArm};
use sheepdog_proto::inode::{InodeHeader, MAP_OFFSET, TAG_OFFSET, map_entry_offset};
use sheepdog_proto::op::{self, FLAG_COW, FLAG_WRITE};
use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{Oid, Request, Response, SdResult, VDI_BITMAP_LEN, Vid, name_field};

pub const SHIFT: u8 = 22;
pub const OBJECT: u64 = 1 << SHIFT;

/// A server on a free port, over a directory that goes with it.
pub struct Lamb {
    pub dir: tempfile::TempDir,
    pub server: Option<Server>,
    pub options: Options,
}

impl Lamb {
    pub fn start() -> Lamb {
        Lamb::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Lamb {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("store"));
        // Tests look at what a crash of the process leaves; syncing would only make them slow.
        options.sync = false;
        change(&mut options);
        let server = Some(Server::start(&options).unwrap());
        Lamb { dir, server, options }
    }

    pub fn restart(&mut self) {
        drop(self.server.take());
        self.server = Some(Server::start(&self.options).unwrap());
    }

    pub fn address(&self) -> SocketAddr {
        match self.server.as_ref().unwrap().addresses() {
            [Address::Tcp(address), ..] => *address,
            other => panic!("no TCP address in {other:?}"),
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// The data objects there are, by owner and index.
    pub fn data_objects(&self) -> Vec<(u32, u32)> {
        objects_in(&self.options.dir.join("data"))
    }
}

pub fn objects_in(dir: &Path) -> Vec<(u32, u32)> {
    let number =
        |name: std::ffi::OsString| u32::from_str_radix(name.to_str().unwrap(), 16).unwrap();
    let mut objects = Vec::new();
    for vid in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        for index in std::fs::read_dir(vid.path()).unwrap().map(Result::unwrap) {
            objects.push((number(vid.file_name()), number(index.file_name())));
        }
    }
    objects.sort_unstable();
    objects
}

pub struct Client {
    pub stream: TcpStream,
    next_id: u32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    pub fn over(stream: TcpStream) -> Client {
        // A server that hangs fails the test instead of stopping it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { stream, next_id: 1 }
    }

    /// Sends a request; returns its id.
    pub fn send(&mut self, mut request: Request, payload: &[u8]) -> u32 {
        self.next_id += 1;
        request.id = self.next_id.into();
        if !payload.is_empty() {
            request.data_length = (payload.len() as u32).into();
            request.flags = (request.flags.get() | FLAG_WRITE).into();
        }
        self.stream.write_all(&[request.as_bytes(), payload].concat()).unwrap();
        self.next_id
    }

    /// Receives whatever answer comes next.
    pub fn receive(&mut self) -> std::io::Result<(Response, Vec<u8>)> {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header)?;
        let response = Response::read_from_bytes(&header).unwrap();
        let mut payload = vec![0; response.data_length.get() as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((response, payload))
    }

    /// One request and its answer.
    pub fn call(&mut self, request: Request, payload: &[u8]) -> (Response, Vec<u8>) {
        let id = self.send(request, payload);
        let (response, data) = self.receive().unwrap();
        assert_eq!((response.id.get(), response.opcode), (id, request.opcode));
        assert_eq!((response.proto_ver, response.flags.get()), (0, 0));
        (response, data)
    }

    pub fn result(&mut self, request: Request, payload: &[u8]) -> SdResult {
        let (response, data) = self.call(request, payload);
        let piggyback = request.flags.get() & op::FLAG_PIGGYBACK != 0;
        if request.flags.get() & FLAG_WRITE != 0 && !piggyback {
            assert_eq!(data.len(), 0, "an answer to a write has no payload");
        }
        if !response.result().is_success() && !piggyback {
            assert_eq!(data.len(), 0, "a failure has no payload");
        }
        response.result()
    }

    pub fn read(&mut self, oid: Oid, offset: u32, len: u32) -> Result<Vec<u8>, SdResult> {
        let (response, data) = self.call(Request::read(oid, offset, len), &[]);
        if !response.result().is_success() {
            assert_eq!(data.len(), 0, "a failure has no payload");
            return Err(response.result());
        }
        assert_eq!(data.len(), len as usize, "a read is never short");
        Ok(data)
    }

    pub fn write(&mut self, oid: Oid, offset: u32, data: &[u8]) -> SdResult {
        self.result(obj(op::WRITE_OBJ, FLAG_WRITE, oid, offset), data)
    }

    pub fn create(&mut self, oid: Oid, offset: u32, data: &[u8]) -> SdResult {
        self.result(obj(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, oid, offset), data)
    }

    pub fn create_cow(&mut self, oid: Oid, from: Oid, offset: u32, data: &[u8]) -> SdResult {
        let arm = ObjArm {
            oid: oid.0.into(),
            cow_oid: from.0.into(),
            offset: offset.into(),
            ..ObjArm::default()
        };
        self.result(Request::new(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE | FLAG_COW, arm), data)
    }

    pub fn remove(&mut self, oid: Oid) -> SdResult {
        self.result(obj(op::REMOVE_OBJ, 0, oid, 0), &[])
    }

    pub fn discard(&mut self, oid: Oid) -> SdResult {
        self.result(obj(op::DISCARD_OBJ, 0, oid, 0), &[])
    }

    /// Updates map entries from `index` on.
    pub fn map(&mut self, vid: Vid, index: u32, owners: &[Vid]) -> SdResult {
        let entries: Vec<u8> = owners.iter().flat_map(|vid| vid.get().to_le_bytes()).collect();
        self.write(vid.inode(), map_entry_offset(index), &entries)
    }

    /// Creates and maps one object, as a client does that writes to a new part of its VDI.
    pub fn allocate(&mut self, vid: Vid, index: u32, data: &[u8]) {
        assert_eq!(self.create(vid.data(index), 0, data), SdResult::SUCCESS);
        assert_eq!(self.map(vid, index, &[vid]), SdResult::SUCCESS);
    }

    pub fn header(&mut self, vid: Vid) -> InodeHeader {
        let bytes = self.read(vid.inode(), 0, size_of::<InodeHeader>() as u32).unwrap();
        InodeHeader::read_from_bytes(&bytes).unwrap()
    }

    /// The first `n` entries of a map.
    pub fn entries(&mut self, vid: Vid, n: u32) -> Vec<u32> {
        let bytes = self.read(vid.inode(), MAP_OFFSET, 4 * n).unwrap();
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn vdi_op(&mut self, opcode: u8, arm: VdiArm, payload: &[u8]) -> Result<Vid, SdResult> {
        let (response, data) = self.call(Request::new(opcode, FLAG_WRITE, arm), payload);
        assert_eq!(data.len(), 0);
        match response.result() {
            SdResult::SUCCESS => Ok(response.vdi().vid().unwrap()),
            result => Err(result),
        }
    }

    pub fn new_vdi(&mut self, name: &str, arm: VdiArm) -> Result<Vid, SdResult> {
        self.vdi_op(op::NEW_VDI, arm, &name_field(name.as_bytes()).unwrap())
    }

    /// A new VDI of so many objects of the usual size.
    pub fn vdi(&mut self, name: &str, objects: u64) -> Vid {
        self.new_vdi(name, VdiArm { vdi_size: (objects * OBJECT).into(), ..VdiArm::default() })
            .unwrap()
    }

    pub fn look_up(
        &mut self,
        opcode: u8,
        name: &str,
        tag: &str,
        snapid: u32,
    ) -> Result<Vid, SdResult> {
        let payload = [name, tag].map(|text| name_field(text.as_bytes()).unwrap()).concat();
        self.vdi_op(opcode, VdiArm { snapid: snapid.into(), ..VdiArm::default() }, &payload)
    }

    pub fn info(&mut self, name: &str, tag: &str, snapid: u32) -> Result<Vid, SdResult> {
        self.look_up(op::GET_VDI_INFO, name, tag, snapid)
    }

    pub fn delete(&mut self, name: &str, tag: &str, snapid: u32) -> Result<Vid, SdResult> {
        self.look_up(op::DEL_VDI, name, tag, snapid)
    }

    /// Freezes the working VDI `vid` under `tag` (5.8); returns its successor.
    pub fn snapshot(&mut self, name: &str, vid: Vid, tag: &str) -> Vid {
        let field = name_field(tag.as_bytes()).unwrap();
        assert_eq!(self.write(vid.inode(), TAG_OFFSET, &field), SdResult::SUCCESS);
        self.branch(name, vid, 1).unwrap()
    }

    /// NEW_VDI with a base: snapshot, clone or rebase (4.2).
    pub fn branch(&mut self, name: &str, base: Vid, snapid: u32) -> Result<Vid, SdResult> {
        let header = self.header(base);
        let arm = VdiArm {
            vdi_size: header.vdi_size,
            base_vdi_id: base.get().into(),
            copies: header.nr_copies,
            copy_policy: header.copy_policy,
            store_policy: header.store_policy,
            block_size_shift: header.block_size_shift,
            snapid: snapid.into(),
            ..VdiArm::default()
        };
        self.new_vdi(name, arm)
    }

    /// READ_VDIS or READ_DEL_VDIS as a list.
    pub fn vdis(&mut self, opcode: u8) -> Vec<u32> {
        let (response, bitmap) =
            self.call(Request::new(opcode, 0, [0; 32]).with_length(VDI_BITMAP_LEN as u32), &[]);
        assert_eq!(response.result(), SdResult::SUCCESS);
        let bytes = (0..).zip(&bitmap).filter(|(_, byte)| **byte != 0);
        bytes
            .flat_map(|(i, byte)| {
                (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| 8 * i + bit)
            })
            .collect()
    }
}

pub fn obj(opcode: u8, flags: u16, oid: Oid, offset: u32) -> Request {
    let arm = ObjArm { oid: oid.0.into(), offset: offset.into(), ..ObjArm::default() };
    Request::new(opcode, flags, arm)
}

pub fn vid(vid: u32) -> Vid {
    Vid::new(vid).unwrap()
}

/// The program itself, in a process that can be killed.
pub struct Program {
    pub child: std::process::Child,
    pub address: SocketAddr,
    /// What it said on stdout before it served.
    pub lines: Vec<String>,
}

impl Program {
    pub fn start(dir: &Path, args: &[&str]) -> Program {
        Program::run(Program::command(dir, args))
    }

    pub fn run(mut command: std::process::Command) -> Program {
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        // One line for the port, one for the socket.
        let lines: Vec<String> =
            std::io::BufRead::lines(stdout).take(2).map(Result::unwrap).collect();
        let address = lines
            .first()
            .and_then(|line| line.strip_prefix("lamb: listening on "))
            .unwrap_or_else(|| panic!("{lines:?}"));
        Program { child, address: address.parse().unwrap(), lines }
    }

    pub fn command(dir: &Path, args: &[&str]) -> std::process::Command {
        Program::command_within(&[], dir, args)
    }

    /// The same, run by another program: one that sets limits, for instance. LAMB_PROGRAM in the
    /// environment is another lamb to test.
    pub fn command_within(by: &[&str], dir: &Path, args: &[&str]) -> std::process::Command {
        let lamb = std::env::var_os("LAMB_PROGRAM");
        let lamb = lamb.unwrap_or_else(|| env!("CARGO_BIN_EXE_lamb").into());
        let mut words = by.iter().map(std::ffi::OsString::from).chain([lamb]);
        let mut command = std::process::Command::new(words.next().unwrap());
        command.args(words).args(["--listen", "127.0.0.1:0"]).args(args).arg(dir);
        command
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        self.signal("-TERM");
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }

    /// Bytes of memory that the process uses.
    pub fn memory(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    pub fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server is dead");
        let request = Request::new(op::GET_CLUSTER_DEFAULT, 0, [0; 32]);
        assert_eq!(self.client().result(request, &[]), SdResult::SUCCESS);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small generator (SplitMix64), so that a failure can be repeated from its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        (self.next() % sides as u64) as usize
    }
}

/// A file system of its own for a test, gone afterwards.
pub struct Mount {
    place: PathBuf,
    /// Of its own, if it has one.
    _dir: Option<tempfile::TempDir>,
}

impl Mount {
    /// One in memory, with `options` of mount; None where nobody may mount.
    pub fn tmpfs(options: &str) -> Option<Mount> {
        Mount::with(&["-t", "tmpfs", "-o", options, "none"])
    }

    /// The file system in an image, which is made if it is missing.
    pub fn image(image: &Path) -> Option<Mount> {
        if !image.exists() {
            std::fs::File::create(image).unwrap().set_len(1 << 30).unwrap();
            let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(image).status();
            if !made.is_ok_and(|status| status.success()) {
                eprintln!("SKIPPED: there is no mkfs.ext4 here");
                return None;
            }
        }
        Mount::with(&["-o", "loop", image.to_str().unwrap()])
    }

    /// One in memory in the place of what is in a directory.
    pub fn over(place: &Path) -> Option<Mount> {
        Mount::at(&["-t", "tmpfs", "none"], place.to_owned(), None)
    }

    fn with(args: &[&str]) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        Mount::at(args, dir.path().to_owned(), Some(dir))
    }

    fn at(args: &[&str], place: PathBuf, dir: Option<tempfile::TempDir>) -> Option<Mount> {
        let output = std::process::Command::new("mount").args(args).arg(&place).output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Mount { place, _dir: dir });
        }
        eprintln!("SKIPPED: it takes root to mount a file system");
        None
    }

    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Leaves no space at all.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        let mut len = 1 << 20;
        while len > 0 {
            match file.write(&vec![1; len]) {
                Ok(n) if n > 0 => {}
                _ => len /= 2,
            }
        }
        let _ = file.sync_all();
    }

    pub fn unfill(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.place).status();
    }
}
