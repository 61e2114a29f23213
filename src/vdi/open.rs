//! Opening and closing: handles, and locks on the servers (4.10, 5.2, 5.16).

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sheepdog_proto::{Vid, op};

use super::displaced::{Family, PUT_BACK};
use super::strays::Stray;
use super::{Client, Name, Vdi, Which, inode};
use crate::clock::Instant;
use crate::cluster::{Backoff, Cluster, Op};
use crate::error::{Error, Refusal, Result};
use crate::exec::{WaitList, lock};

/// Waits between two looks at a name whose VDI was frozen grow up to this, then it stays so.
const FROZEN: Duration = Duration::from_millis(400);

/// What a program has open.
#[derive(Default)]
pub(super) struct OpenVdis {
    /// In an order, so that a close is the same each time.
    pub working: BTreeMap<Name, Opened>,
    /// Handles of snapshots, by their VDI ids.
    pub snapshots: HashMap<Vid, usize>,
    /// One for each handle that only reads.
    readers: Vec<Reader>,
    waiters: WaitList,
}

/// A working VDI that is only read from.
struct Reader {
    vdi: Arc<Vdi>,
    /// The same VDI, open for writing as well.
    writer: Option<Arc<Vdi>>,
}

/// A working VDI of which handles are open, or are being opened, closed, or kept from it.
pub(super) enum Opened {
    /// Some operation is opening, closing or deleting it: the others wait.
    InTransition,
    Open {
        vdi: Arc<Vdi>,
        handles: usize,
    },
    /// It has no handle any more, but its close did not come to its end: whoever comes next ends
    /// it first.
    Left(Arc<Vdi>),
}

impl Client {
    /// Opens the working VDI `name` for reading and writing, or shares it where it is open.
    pub async fn open(&self, op: &Op, name: Name) -> Result<Arc<Vdi>> {
        let turn = match self.turn(op, name).await? {
            Turn::Shared(vdi) => return Ok(vdi),
            Turn::Mine(turn) => turn,
        };
        let vdi = Arc::new(self.open_working(op, name).await?);
        turn.finish(Opened::Open { vdi: vdi.clone(), handles: 1 });
        // So that they see what is written from now on.
        self.have_readers_follow(op, &name).await;
        lock(&self.open).join_readers(&name);
        Ok(vdi)
    }

    /// Opens the working VDI `name` for reading, whoever has it locked.
    pub async fn open_read_only(&self, op: &Op, name: Name) -> Result<Arc<Vdi>> {
        let cluster = &self.cluster;
        self.generation(op).await?;
        let mut backoff = Backoff::default();
        let (vid, header) = loop {
            let vid = inode::lookup(cluster, op, &name, &Which::WORKING).await?;
            match Vdi::read_checked(cluster, op, vid, &name, &Which::WORKING).await {
                Ok(header) => break (vid, header),
                Err(error) => look_again(error, &mut backoff, cluster, op).await?,
            }
        };
        let vdi = Vdi::new(self, name, Which::WORKING, header, vid);
        let vdi = Arc::new(Vdi { read_only: true, ..vdi });
        let mut open = lock(&self.open);
        open.readers.push(Reader { vdi: vdi.clone(), writer: None });
        open.join_readers(&name);
        Ok(vdi)
    }

    /// What a handle reads from: a reader's from the one that is open for writing, where there is
    /// one, so that what is written there is seen at once.
    pub fn to_read(&self, vdi: Arc<Vdi>) -> Arc<Vdi> {
        if !vdi.read_only {
            return vdi;
        }
        let mut open = lock(&self.open);
        // It may have come to be the same VDI by a refresh.
        open.join_readers(&vdi.name);
        let reader = open.readers.iter().find(|reader| Arc::ptr_eq(&reader.vdi, &vdi));
        let writer = reader.and_then(|reader| reader.writer.as_ref());
        match (open.working.get(&vdi.name), writer) {
            (Some(Opened::Open { vdi, .. }), Some(writer)) if Arc::ptr_eq(vdi, writer) => {
                writer.clone()
            }
            _ => vdi,
        }
    }

    /// The VDIs of that name that are only read from.
    pub(super) fn readers_of(&self, name: &Name) -> Vec<Arc<Vdi>> {
        let open = lock(&self.open);
        let readers = open.readers.iter().filter(|reader| reader.vdi.name == *name);
        readers.map(|reader| reader.vdi.clone()).collect()
    }

    /// Has them go on as what the name stands for now. Where one cannot, it finds out itself.
    pub(super) async fn have_readers_follow(&self, op: &Op, name: &Name) {
        for reader in self.readers_of(name) {
            if let Err(error) = reader.follow(&self.cluster, op).await {
                log::info!("VDI {name}: a handle that only reads stays behind: {error}");
            }
        }
    }

    /// Gives the lock of the working VDI `name` back, whosever it is (4.10).
    pub async fn break_lock(&self, op: &Op, name: Name) -> Result<()> {
        let cluster = &self.cluster;
        let vid = inode::lookup(cluster, op, &name, &Which::WORKING).await?;
        for kind in [op::LOCK_NORMAL, op::LOCK_SHARED] {
            inode::release(cluster, op, &name, vid, kind).await?;
        }
        // Ours is gone as well: released again, it would be that of whoever has it by then.
        if let Some(Opened::Open { vdi, .. } | Opened::Left(vdi)) =
            lock(&self.open).working.get(&name)
        {
            lock(&vdi.state).locked.retain(|held| *held != vid);
        }
        Ok(())
    }

    /// Closes one handle of a VDI; the last one waits for its writes and releases its lock.
    pub async fn close(&self, op: &Op, vdi: Arc<Vdi>) -> Result<()> {
        if vdi.which != Which::WORKING {
            self.close_snapshot(&vdi);
            return Ok(());
        }
        {
            let mut open = lock(&self.open);
            if vdi.read_only {
                open.readers.retain(|reader| !Arc::ptr_eq(&reader.vdi, &vdi));
                return Ok(());
            }
            match open.working.get_mut(&vdi.name) {
                Some(Opened::Open { handles, .. }) if *handles > 1 => {
                    *handles -= 1;
                    return Ok(());
                }
                Some(entry @ Opened::Open { .. }) => *entry = Opened::InTransition,
                _ => return Ok(()),
            }
            open.tell_readers(&vdi);
        }
        let name = vdi.name;
        MyTurn::new(self, name, Some(Opened::Left(vdi))).end_close(op).await.map(drop)
    }

    /// Ends the use of a VDI: refuses new operations, waits for those under way and for what they
    /// have the servers remove, and gives the lock back. Given up, it can be begun again.
    async fn close_working(&self, op: &Op, vdi: &Vdi) -> Result<()> {
        let cluster = &self.cluster;
        vdi.operations.shut();
        drop(vdi.operations.close().await);
        lock(&self.open).part_readers(vdi);
        let going = self.servers.removals.of(vdi.view().vid);
        self.servers.await_removals(cluster, op, going).await?;
        lock(&vdi.state).closed = true;
        loop {
            let Some(vid) = lock(&vdi.state).locked.last().copied() else { break };
            inode::release(cluster, op, &vdi.name, vid, op::LOCK_NORMAL).await?;
            lock(&vdi.state).locked.retain(|other| *other != vid);
        }
        self.servers.strays.release(cluster, op).await
    }

    /// Closes one handle of a snapshot.
    pub fn close_snapshot(&self, vdi: &Vdi) {
        let vid = vdi.view().vid;
        let mut open = lock(&self.open);
        if let Some(handles) = open.snapshots.get_mut(&vid) {
            *handles -= 1;
            if *handles == 0 {
                open.snapshots.remove(&vid);
            }
        }
    }

    /// Closes all VDIs, whatever handles they have: the program closes the connection. The first
    /// error, where there are several: the others are closed all the same.
    pub async fn close_all(&self, op: &Op) -> Result<()> {
        // Operations that were opening or closing something are ending as cancelled.
        let vdis: Vec<Arc<Vdi>> = poll_fn(|cx| {
            let mut open = lock(&self.open);
            let vdis = open.working.values().map(|entry| match entry {
                Opened::Open { vdi, .. } | Opened::Left(vdi) => Some(vdi.clone()),
                Opened::InTransition => None,
            });
            let Some(vdis) = vdis.collect() else {
                open.waiters.register(cx);
                return Poll::Pending;
            };
            Poll::Ready(vdis)
        })
        .await;
        let mut result = Ok(());
        for vdi in vdis {
            result = result.and(self.close_working(op, &vdi).await);
        }
        // A lock that was asked for may still be given to us.
        result = result.and(self.cluster.settle_all(op).await);
        result.and(self.servers.strays.release(&self.cluster, op).await)
    }

    /// Locks and reads a working VDI (5.2).
    async fn open_working(&self, op: &Op, name: Name) -> Result<Vdi> {
        let cluster = &self.cluster;
        self.generation(op).await?;
        let family = Family { cluster, op, name: &name };
        let (mut backoff, limit) = (Backoff::default(), Instant::now() + PUT_BACK);
        loop {
            let vid = self.servers.strays.lock(cluster, op, &name).await?;
            let guard = self.servers.strays.guard(Stray::Lock(name, vid));
            let error = match Vdi::read_checked(cluster, op, vid, &name, &Which::WORKING).await {
                Ok(header) => match family.lost_by(&header).await? {
                    Some(lost)
                        if family.restore(vid, lost, limit, self.servers.are_older()).await? =>
                    {
                        None
                    }
                    _ => {
                        guard.keep();
                        let vdi = Vdi::new(self, name, Which::WORKING, header, vid);
                        lock(&vdi.state).locked.push(vid);
                        return Ok(vdi);
                    }
                },
                Err(error) => Some(error),
            };
            drop(guard);
            if let Err(e) = self.servers.strays.release(cluster, op).await {
                log::warn!("VDI {name}: its lock may remain: {e}");
            }
            if let Some(error) = error {
                look_again(error, &mut backoff, cluster, op).await?;
            }
        }
    }

    /// Waits until nobody opens, closes or deletes the VDI `name`. Then a handle of the open VDI,
    /// or the right to be the one who does.
    async fn turn(&self, op: &Op, name: Name) -> Result<Turn<'_>> {
        let turn = poll_fn(|cx| {
            let mut open = lock(&self.open);
            match open.working.get_mut(&name) {
                Some(Opened::InTransition) => {
                    open.waiters.register(cx);
                    return Poll::Pending;
                }
                Some(Opened::Open { vdi, handles }) => {
                    *handles += 1;
                    return Poll::Ready(Turn::Shared(vdi.clone()));
                }
                Some(Opened::Left(_)) | None => {}
            }
            let end = open.working.insert(name, Opened::InTransition);
            Poll::Ready(Turn::Mine(MyTurn::new(self, name, end)))
        })
        .await;
        match turn {
            Turn::Mine(turn) => Ok(Turn::Mine(turn.end_close(op).await?)),
            shared => Ok(shared),
        }
    }

    /// As [`Client::turn`], for an operation that no open handle must see.
    pub(super) async fn turn_if_closed(&self, op: &Op, name: Name) -> Result<MyTurn<'_>> {
        match self.turn(op, name).await? {
            Turn::Mine(turn) => Ok(turn),
            Turn::Shared(vdi) => {
                self.close(op, vdi).await?;
                Err(Error::Refused(Refusal::Open))
            }
        }
    }
}

impl OpenVdis {
    /// Whether the working VDI `name` is only read from.
    pub fn is_read(&self, name: &Name) -> bool {
        self.readers.iter().any(|reader| reader.vdi.name == *name)
    }

    /// Readers of a VDI that is open for writing read from that, wherever it goes on. Only of the
    /// very same: nobody follows into another VDI of the name.
    fn join_readers(&mut self, name: &Name) {
        let Some(Opened::Open { vdi, .. }) = self.working.get(name) else { return };
        let vid = vdi.view().vid;
        let readers = self.readers.iter_mut().filter(|reader| reader.vdi.name == *name);
        for reader in readers.filter(|reader| reader.writer.is_none()) {
            if reader.vdi.view().vid == vid {
                reader.writer = Some(vdi.clone());
            }
        }
    }

    /// The readers of a VDI that is being closed go on with what it is now.
    fn tell_readers(&self, closed: &Vdi) {
        for reader in &self.readers {
            if reader.writer.as_deref().is_some_and(|writer| std::ptr::eq(writer, closed)) {
                reader.vdi.adopt(closed);
            }
        }
    }

    /// As [`OpenVdis::tell_readers`], for the last time.
    fn part_readers(&mut self, closed: &Vdi) {
        self.tell_readers(closed);
        for reader in &mut self.readers {
            reader.writer.take_if(|writer| std::ptr::eq(&**writer, closed));
        }
    }
}

/// After an open has found another VDI than it looked for: mostly a snapshot came between, and the
/// name stands for another one by now.
async fn look_again(error: Error, backoff: &mut Backoff, cluster: &Cluster, op: &Op) -> Result<()> {
    let is_frozen = matches!(error, Error::Refused(Refusal::NoVdi));
    match is_frozen && backoff.wait_at_most(FROZEN, cluster, op).await? {
        true => Ok(()),
        false => Err(error),
    }
}

enum Turn<'a> {
    Mine(MyTurn<'a>),
    Shared(Arc<Vdi>),
}

/// The right to open, close or delete a working VDI, which one operation has at a time.
pub(super) struct MyTurn<'a> {
    client: &'a Client,
    name: Box<Name>,
    /// What the VDI is in the end; None: closed.
    end: Option<Opened>,
}

impl<'a> MyTurn<'a> {
    fn new(client: &'a Client, name: Name, end: Option<Opened>) -> MyTurn<'a> {
        MyTurn { client, name: Box::new(name), end }
    }

    /// Comes to the end of a close, where there is one left; who gives up leaves it to the next.
    async fn end_close(mut self, op: &Op) -> Result<MyTurn<'a>> {
        if let Some(Opened::Left(vdi)) = &self.end {
            let vdi = vdi.clone();
            self.client.close_working(op, &vdi).await?;
            self.end = None;
        }
        Ok(self)
    }

    fn finish(mut self, end: Opened) {
        self.end = Some(end);
    }
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        let wakers = {
            let mut open = lock(&self.client.open);
            match self.end.take() {
                Some(end) => open.working.insert(*self.name, end),
                None => open.working.remove(&self.name),
            };
            open.waiters.take()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
