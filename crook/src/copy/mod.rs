//! crook cp: between files, pipes, VDIs and snapshots.
//!
//! Pieces come from an [`Input`] and go to an [`Output`], many at once. What is a VDI is read and
//! written by requests in flight in this thread; what is a file or a pipe, by a thread of its own,
//! which may block.

mod buffers;
mod files;
mod input;
mod target;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::{Either, LocalBoxFuture};
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use serde_json::json;

use crate::cli::Copy;
use crate::failure::{Failure, Result};
use crate::output::{self, Output};
use crate::place::Place;
use crate::progress::Progress;
use crate::session::{Readable, Session};

use buffers::Buffers;
use input::Input;
use target::Target;

/// A part of what is copied.
pub enum Piece {
    Data {
        offset: u64,
        bytes: Vec<u8>,
    },
    Zeros {
        offset: u64,
        len: u64,
    },
    /// What a VDI has there is to be read.
    Ask {
        offset: u64,
        len: u64,
    },
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Data { bytes, .. } => bytes.len() as u64,
            Piece::Zeros { len, .. } | Piece::Ask { len, .. } => *len,
        }
    }

    fn end(&self) -> u64 {
        let (Piece::Data { offset, .. } | Piece::Zeros { offset, .. } | Piece::Ask { offset, .. }) =
            self;
        offset + self.len()
    }
}

/// How a copy is made.
pub struct Plan {
    pub requests: usize,
    pub request_size: u64,
    pub sparse: bool,
}

/// How far it has come.
#[derive(Default)]
struct Tally {
    copied: Cell<u64>,
    /// Of these, what was not zeros.
    data: Cell<u64>,
    /// What there is of the destination, for whoever has to be told that it is not whole.
    begun: RefCell<String>,
}

pub fn run(session: &Session, output: &Output, args: Copy) -> Result<()> {
    check(&args)?;
    let tally = Tally::default();
    let (from, to) = (args.source.to_string(), args.destination.to_string());
    let copied = session.run_until(copy(session, output, &args, &tally), |signal| {
        Failure::interrupted(signal, "interrupted")
    });
    let begun = tally.begun.borrow();
    let time = copied.map_err(|failure| match begun.as_str() {
        "" => failure.and(format!("nothing of {to} was changed")),
        begun => {
            let size = output::size(tally.copied.get());
            failure.and(format!("{begun}: {to} is not whole, {size} of {from} were copied"))
        }
    })?;
    report(output, &args, &tally, time)
}

fn check(args: &Copy) -> Result<()> {
    let is_vdi = |place: &Place| matches!(place, Place::Vdi(_));
    if !is_vdi(&args.source) && !is_vdi(&args.destination) {
        return Err(Failure::usage("neither end is a VDI, which is vdi:NAME"));
    }
    if let Place::Vdi(target) = &args.destination
        && target.snapshot.is_some()
    {
        return Err(Failure::usage(format!("{target} is a snapshot, and stays as it is")));
    }
    if args.source == args.destination {
        return Err(Failure::usage("both ends are the same"));
    }
    Ok(())
}

fn report(output: &Output, args: &Copy, tally: &Tally, time: Duration) -> Result<()> {
    let (copied, data) = (tally.copied.get(), tally.data.get());
    let value = json!({
        "from": args.source.to_string(),
        "to": args.destination.to_string(),
        "copied": copied,
        "data": data,
        "seconds": time.as_secs_f64(),
        "bytes_per_second": copied as f64 / time.as_secs_f64().max(1e-9),
    });
    let text = format!(
        "copied {}, {} of them data, in {:.1} s, {}",
        output::size(copied),
        output::size(data),
        time.as_secs_f64(),
        output::rate(copied, time)
    );
    match args.destination {
        // Where that is the copy, nothing else belongs there.
        Place::Pipe => output.aside(value, &text),
        _ => output.done(value, &text),
    }
}

async fn copy(session: &Session, output: &Output, args: &Copy, tally: &Tally) -> Result<Duration> {
    let plan = Plan {
        requests: args.requests.into(),
        request_size: args.request_size,
        sparse: !args.no_sparse,
    };
    let buffers = Buffers::new();
    let mut input = Input::open(session, &args.source, &plan).await?;
    let size = input.size();
    let target = Target::open(session, args, size, &buffers).await?;
    tally.begun.replace(target.begun().to_owned());
    input.begin(&plan, &buffers).await?;
    let mut progress = Progress::new(output, "copying", size);
    let moved = {
        let account = |moved: Moved| {
            tally.copied.set(tally.copied.get() + moved.len);
            tally.data.set(tally.data.get() + if moved.zeros { 0 } else { moved.len });
            progress.add(moved.len);
        };
        match &target {
            Target::Vdi(_) => scattered(&mut input, &target, &plan, &buffers, account).await,
            Target::File(_) => in_order(&mut input, &target, &plan, &buffers, account).await,
        }
    };
    // What a thread met on the way says more than that it is gone.
    let finished = target.finish(moved.is_ok(), tally.copied.get()).await;
    progress.end();
    finished.and(moved)?;
    tally.begun.take();
    Ok(progress.elapsed())
}

struct Moved {
    len: u64,
    zeros: bool,
}

impl Moved {
    fn of(piece: &Piece) -> Moved {
        Moved { len: piece.len(), zeros: matches!(piece, Piece::Zeros { .. }) }
    }
}

/// To a VDI, in whatever order.
async fn scattered(
    input: &mut Input,
    target: &Target,
    plan: &Plan,
    buffers: &Buffers,
    mut account: impl FnMut(Moved),
) -> Result<()> {
    let mut under_way = FuturesUnordered::<LocalBoxFuture<'_, Result<Moved>>>::new();
    let mut ended = false;
    loop {
        let room = !ended && under_way.len() < plan.requests;
        let next = async { if room { input.next().await } else { std::future::pending().await } };
        if !room && under_way.is_empty() {
            return Ok(());
        }
        match next_of(next, &mut under_way).await {
            Either::Left(None) => ended = true,
            Either::Left(Some(piece)) => {
                let piece = piece?;
                target.make_room(&piece).await?;
                let reader = input.reader();
                under_way.push(Box::pin(async move {
                    let piece = resolve(reader, piece, plan.sparse, buffers).await?;
                    let moved = Moved::of(&piece);
                    target.put(piece).await?;
                    Ok(moved)
                }));
            }
            Either::Right(moved) => account(moved?),
        }
    }
}

/// What comes first: the next piece, or the end of one that is under way.
async fn next_of<P>(
    next: impl Future<Output = P>,
    under_way: &mut FuturesUnordered<LocalBoxFuture<'_, Result<Moved>>>,
) -> Either<P, Result<Moved>> {
    if under_way.is_empty() {
        return Either::Left(next.await);
    }
    let next = std::pin::pin!(next);
    match futures_util::future::select(under_way.select_next_some(), next).await {
        Either::Left((moved, _)) => Either::Right(moved),
        Either::Right((piece, _)) => Either::Left(piece),
    }
}

/// To a file or a pipe: read ahead, written in order.
async fn in_order(
    input: &mut Input,
    target: &Target,
    plan: &Plan,
    buffers: &Buffers,
    mut account: impl FnMut(Moved),
) -> Result<()> {
    let mut under_way = FuturesOrdered::<LocalBoxFuture<'_, Result<Piece>>>::new();
    let mut ended = false;
    loop {
        while !ended && under_way.len() < plan.requests {
            match input.next().await {
                None => ended = true,
                Some(piece) => {
                    let resolved = resolve(input.reader(), piece?, plan.sparse, buffers);
                    under_way.push_back(Box::pin(resolved));
                }
            }
        }
        let Some(piece) = under_way.next().await else { return Ok(()) };
        let piece = piece?;
        let moved = Moved::of(&piece);
        target.put(piece).await?;
        account(moved);
    }
}

/// Reads what is asked for, and finds out what is zeros.
async fn resolve(
    reader: Option<Readable>,
    piece: Piece,
    sparse: bool,
    buffers: &Buffers,
) -> Result<Piece> {
    let piece = match (piece, reader) {
        (Piece::Ask { offset, len }, Some(reader)) => {
            let (result, bytes) = reader.read_at(buffers.take(len as usize), offset).await;
            result?;
            Piece::Data { offset, bytes }
        }
        (piece, _) => piece,
    };
    match piece {
        Piece::Data { offset, bytes } if sparse && is_zero(&bytes) => {
            let len = bytes.len() as u64;
            buffers.give(bytes);
            Ok(Piece::Zeros { offset, len })
        }
        piece => Ok(piece),
    }
}

/// Mostly the first bytes tell.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(1024).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_told_from_anything_else() {
        let mut bytes = vec![0; 5000];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in [0, 1023, 1024, 4999] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }
}
