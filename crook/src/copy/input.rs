//! Where pieces come from.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use async_channel::Receiver;
use sheepdog::{Extent, ExtentKind};

use super::buffers::Buffers;
use super::{Piece, Plan, files};
use crate::failure::{Failure, Result};
use crate::place::Place;
use crate::session::{Readable, Session};

pub enum Input {
    Vdi {
        reader: Readable,
        /// What is to be read, or is zeros.
        left: VecDeque<Extent>,
        request_size: u64,
    },
    File {
        name: String,
        /// Until it is begun.
        file: Option<File>,
        /// None of a pipe.
        size: Option<u64>,
        pieces: Option<Receiver<Result<Piece>>>,
    },
}

impl Input {
    pub async fn open(session: &Session, place: &Place, plan: &Plan) -> Result<Input> {
        let request_size = plan.request_size;
        match place {
            Place::Vdi(target) => {
                let reader = session.open_readable(target).await?;
                Ok(Input::Vdi { reader, left: VecDeque::new(), request_size })
            }
            Place::Pipe => {
                let copy = rustix::io::dup(io::stdin());
                let copy = copy.map_err(|error| Failure::io("standard input", error.into()))?;
                Input::file("standard input".into(), copy.into())
            }
            Place::Path(path) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|error| Failure::io(&name, error))?;
                Input::file(name, file)
            }
        }
    }

    fn file(name: String, file: File) -> Result<Input> {
        let size = files::size(&file).map_err(|error| Failure::io(&name, error))?;
        Ok(Input::File { name, file: Some(file), size, pieces: None })
    }

    /// Bytes, where that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Input::Vdi { reader, .. } => Some(reader.size()),
            Input::File { size, .. } => *size,
        }
    }

    /// Now that there is somewhere to copy to.
    pub async fn begin(&mut self, plan: &Plan, buffers: &Buffers) -> Result<()> {
        match self {
            Input::Vdi { reader, left, .. } => {
                *left = reader.block_status(0, reader.size()).await?.into();
            }
            Input::File { name, file, size, pieces } => {
                let Some(file) = file.take() else { return Ok(()) };
                *pieces = Some(files::read(name.clone(), file, *size, plan, buffers.clone()));
            }
        }
        Ok(())
    }

    /// What [`Piece::Ask`] is to be asked of.
    pub fn reader(&self) -> Option<Readable> {
        match self {
            Input::Vdi { reader, .. } => Some(reader.clone()),
            Input::File { .. } => None,
        }
    }

    pub async fn next(&mut self) -> Option<Result<Piece>> {
        match self {
            Input::Vdi { left, request_size, .. } => {
                let extent = left.front_mut()?;
                let offset = extent.offset;
                if extent.kind == ExtentKind::Hole {
                    let len = extent.len;
                    left.pop_front();
                    return Some(Ok(Piece::Zeros { offset, len }));
                }
                // Up to where all requests end, so that none crosses an object's border.
                let len = extent.len.min(*request_size - offset % *request_size);
                extent.offset += len;
                extent.len -= len;
                if extent.len == 0 {
                    left.pop_front();
                }
                Some(Ok(Piece::Ask { offset, len }))
            }
            // Its end is that of the file.
            Input::File { pieces, .. } => pieces.as_ref()?.recv().await.ok(),
        }
    }
}
