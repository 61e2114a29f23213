//! Where pieces go.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use sheepdog::ErrorKind;
use sheepdog::aio::Vdi;

use super::buffers::Buffers;
use super::files::{self, Sink, Writer};
use super::{Copy, Piece};
use crate::commands::create;
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::place::Place;
use crate::session::Session;

pub enum Target {
    Vdi(ToVdi),
    File(ToFile),
}

pub struct ToVdi {
    vdi: Vdi,
    buffers: Buffers,
    /// What was never written to is zeros.
    is_new: bool,
    sparse: bool,
    /// It grows with what comes, and is cut to that in the end.
    grows: bool,
    size: Cell<u64>,
    begun: String,
}

pub struct ToFile {
    writer: Writer,
    name: String,
    begun: String,
}

/// The size that a VDI has at first where nobody knows which it will have.
const FIRST_SIZE: u64 = 64 << 20;

impl Target {
    pub async fn open(
        session: &Session,
        args: &Copy,
        size: Option<u64>,
        buffers: &Buffers,
    ) -> Result<Target> {
        match &args.destination {
            Place::Vdi(target) => {
                let vdi = ToVdi::open(session, args, &target.name, size, buffers).await?;
                Ok(Target::Vdi(vdi))
            }
            Place::Pipe => {
                let copy = rustix::io::dup(io::stdout());
                let copy = copy.map_err(|error| Failure::io("standard output", error.into()))?;
                let writer = Writer::start(copy.into(), Sink::Pipe, buffers.clone());
                let (name, begun) = ("standard output".into(), "it has begun".into());
                Ok(Target::File(ToFile { writer, name, begun }))
            }
            Place::Path(path) => Ok(Target::File(ToFile::open(args, path, size, buffers)?)),
        }
    }

    /// What there is of it that was not there before.
    pub fn begun(&self) -> &str {
        match self {
            Target::Vdi(vdi) => &vdi.begun,
            Target::File(file) => &file.begun,
        }
    }

    pub async fn make_room(&self, piece: &Piece) -> Result<()> {
        match self {
            Target::Vdi(vdi) => vdi.make_room(piece).await,
            Target::File(_) => Ok(()),
        }
    }

    pub async fn put(&self, piece: Piece) -> Result<()> {
        match self {
            Target::Vdi(vdi) => vdi.put(piece).await,
            Target::File(file) => file.writer.put(piece).await,
        }
    }

    /// Makes what was copied stable, where all of it was: `copied` bytes.
    pub async fn finish(self, whole: bool, copied: u64) -> Result<()> {
        match self {
            Target::Vdi(vdi) => vdi.finish(whole, copied).await,
            Target::File(ToFile { writer, name, .. }) => {
                writer.end().map_err(|error| Failure::io(name, error))
            }
        }
    }
}

impl ToVdi {
    async fn open(
        session: &Session,
        args: &Copy,
        name: &str,
        size: Option<u64>,
        buffers: &Buffers,
    ) -> Result<ToVdi> {
        let cluster = &session.cluster;
        let grows = size.is_none() && args.size.is_none();
        let wanted = args.size.or(size).unwrap_or(FIRST_SIZE);
        if let (Some(size), Some(wanted)) = (size, args.size)
            && size > wanted
        {
            let size = output::size(size);
            return Err(Failure::usage(format!("{} has {size}, more than that", args.source)));
        }
        let options = create::options(wanted, &args.create);
        let is_new = match cluster.create_with(name, &options).await {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !args.no_clobber => false,
            Err(error) => return Err(error.into()),
        };
        let begun = match is_new {
            true => format!("VDI \"{name}\" was created"),
            false => format!("VDI \"{name}\" was written to"),
        };
        // From here on there is something that may have to be told of.
        let opened = ToVdi::begin(session, args, name, (size, is_new), buffers).await;
        let mut vdi = opened.map_err(|failure| match is_new {
            true => failure.and(&begun),
            false => failure,
        })?;
        vdi.grows = grows && is_new;
        vdi.begun = begun;
        Ok(vdi)
    }

    async fn begin(
        session: &Session,
        args: &Copy,
        name: &str,
        (size, is_new): (Option<u64>, bool),
        buffers: &Buffers,
    ) -> Result<ToVdi> {
        let vdi = session.cluster.open(name).await?;
        let has = vdi.size();
        if let Some(size) = size
            && size > has
        {
            let (has, size) = (output::size(has), output::size(size));
            let message = format!("VDI \"{name}\" has {has}, and {} {size}", args.source);
            return Err(Failure::usage(message));
        }
        if let Some(size) = size
            && !is_new
            && has > size
        {
            // It is to be what the source is, and zeros.
            vdi.discard(size, has - size).await?;
        }
        Ok(ToVdi {
            vdi,
            buffers: buffers.clone(),
            is_new: is_new && !args.create.preallocate,
            sparse: !args.no_sparse,
            grows: false,
            size: Cell::new(has),
            begun: String::new(),
        })
    }

    async fn make_room(&self, piece: &Piece) -> Result<()> {
        let end = piece.end();
        let mut size = self.size.get();
        if end <= size {
            return Ok(());
        }
        if !self.grows {
            let (has, more) = (output::size(size), output::size(end));
            return Err(Failure::new(Kind::NoSpace, format!("the VDI has {has}, and {more} came")));
        }
        while size < end {
            size *= 2;
        }
        self.vdi.resize(size).await?;
        self.size.set(size);
        Ok(())
    }

    async fn put(&self, piece: Piece) -> Result<()> {
        match piece {
            Piece::Data { offset, bytes } => {
                let (result, bytes) = self.vdi.write_at(bytes, offset).await;
                self.buffers.give(bytes);
                Ok(result?)
            }
            Piece::Zeros { offset, len } if !self.sparse => self.write_zeros(offset, len).await,
            Piece::Zeros { .. } if self.is_new => Ok(()),
            Piece::Zeros { offset, len } => Ok(self.vdi.discard(offset, len).await?),
            Piece::Ask { .. } => Ok(()),
        }
    }

    /// As data, so that there are objects afterwards.
    async fn write_zeros(&self, mut offset: u64, mut len: u64) -> Result<()> {
        while len > 0 {
            let part = len.min(4 << 20);
            let mut bytes = self.buffers.take(part as usize);
            bytes.fill(0);
            let (result, bytes) = self.vdi.write_at(bytes, offset).await;
            self.buffers.give(bytes);
            result?;
            offset += part;
            len -= part;
        }
        Ok(())
    }

    async fn finish(self, whole: bool, copied: u64) -> Result<()> {
        if whole && self.grows && copied == 0 {
            return Err(Failure::new(Kind::Failed, "nothing came, and a VDI has a byte at least"));
        }
        if whole && self.grows {
            self.vdi.resize(copied).await?;
        }
        if whole && !self.is_new && !self.grows && copied < self.size.get() {
            self.vdi.discard(copied, self.size.get() - copied).await?;
        }
        self.vdi.flush().await?;
        Ok(self.vdi.close().await?)
    }
}

impl ToFile {
    fn open(args: &Copy, path: &Path, size: Option<u64>, buffers: &Buffers) -> Result<ToFile> {
        let name = path.display().to_string();
        let open = || -> io::Result<(File, Sink, bool)> {
            let existed = path.try_exists()?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).create_new(args.no_clobber);
            let file = options.open(path)?;
            let kind = file.metadata()?.file_type();
            if kind.is_file() {
                file.set_len(0)?;
                file.set_len(size.unwrap_or(0))?;
                let sink = if args.no_sparse { Sink::Dense } else { Sink::Sparse };
                return Ok((file, sink, existed));
            }
            if !kind.is_block_device() {
                return Ok((file, Sink::Pipe, existed));
            }
            if files::size(&file)? < size {
                return Err(io::Error::other("the device is smaller than that"));
            }
            Ok((file, Sink::Dense, existed))
        };
        let (file, sink, existed) = open().map_err(|error| Failure::io(&name, error))?;
        let begun = if existed { "it was written to" } else { "it was created" };
        let writer = Writer::start(file, sink, buffers.clone());
        Ok(ToFile { writer, name, begun: begun.into() })
    }
}
