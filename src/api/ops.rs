//! The operations, each of them stated once, to be waited for or started.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::session::{Handle, Session, Task, Work};
use super::types::{CreateOptions, Info, Name, SnapshotId};
use crate::cluster::Op;
use crate::error::{Error, Result};
use crate::vdi::{self, Client, Extent, Key, Space, UNDO_LIMIT};

/// A task without time beyond its deadline.
fn task<T, A, F>(
    session: &Arc<Session>,
    about: String,
    arguments: Result<A>,
    work: impl FnOnce(Arc<Client>, Op, A) -> F + Send + 'static,
) -> Task<T>
where
    A: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let client = session.client.clone();
    let work = arguments
        .map(|arguments| -> Work<T> { Box::new(move |op| Box::pin(work(client, op, arguments))) });
    Task { session: session.clone(), about, beyond: Duration::ZERO, work }
}

fn about(name: &[u8]) -> String {
    format!("VDI \"{}\"", String::from_utf8_lossy(name))
}

fn about_snapshot(name: &[u8], snapshot: &SnapshotId) -> String {
    format!("snapshot {snapshot} of {}", about(name))
}

type Opened = Arc<Handle>;

/// A handle on what was opened. An operation does not keep the session: where the program has let go
/// of that, it is being closed, and what is open in it with it.
fn handle(session: &Weak<Session>, vdi: Arc<vdi::Vdi>) -> Result<Opened> {
    Ok(Handle::new(session.upgrade().ok_or(Error::Canceled)?, vdi))
}

pub(super) fn connect(session: &Arc<Session>, addr: &[u8]) -> Task<()> {
    let about = String::from_utf8_lossy(addr).into_owned();
    task(session, about, Ok(()), |client, op, ()| async move { client.cluster.connect(&op).await })
}

pub(super) fn list(session: &Arc<Session>) -> Task<Vec<Name>> {
    task(session, String::new(), Ok(()), |client, op, ()| async move {
        Ok(client.list(&op).await?.iter().map(|name| Name::new(name)).collect())
    })
}

pub(super) fn snapshots(session: &Arc<Session>, name: &[u8]) -> Task<Vec<Info>> {
    task(session, about(name), vdi::Name::new(name), |client, op, name| async move {
        let opened = client.snapshots(&op, name).await?;
        let mut infos = Vec::new();
        let mut failed = None;
        for vdi in &opened {
            match vdi.info(&client.cluster, &op).await {
                Ok(info) => infos.push(Info::new(&info)),
                // Deleted just now.
                result if vdi::inode::is_gone(&result) => {}
                Err(error) => failed = Some(error),
            }
        }
        opened.iter().for_each(|vdi| client.close_snapshot(vdi));
        failed.map_or(Ok(infos), Err)
    })
}

pub(super) fn create(session: &Arc<Session>, name: &[u8], options: CreateOptions) -> Task<()> {
    let arguments = vdi::Name::new(name).map(|name| (name, options.0));
    let task = task(session, about(name), arguments, |client, op, (name, options)| async move {
        let _patient = if options.prealloc { client.cluster.be_patient(&op) } else { None };
        client.create(&op, name, &options).await
    });
    Task { beyond: UNDO_LIMIT, ..task }
}

pub(super) fn open(session: &Arc<Session>, name: &[u8], read_only: bool) -> Task<Opened> {
    let opener = Arc::downgrade(session);
    task(session, about(name), vdi::Name::new(name), move |client, op, name| async move {
        let vdi = match read_only {
            true => client.open_read_only(&op, name).await?,
            false => client.open(&op, name).await?,
        };
        handle(&opener, vdi)
    })
}

pub(super) fn open_snapshot(session: &Arc<Session>, name: &[u8], of: &SnapshotId) -> Task<Opened> {
    let arguments = vdi::Name::new(name).and_then(|name| Ok((name, of.which()?)));
    let opener = Arc::downgrade(session);
    task(session, about_snapshot(name, of), arguments, move |client, op, (name, of)| async move {
        handle(&opener, client.open_snapshot(&op, name, of).await?)
    })
}

pub(super) fn delete(session: &Arc<Session>, name: &[u8]) -> Task<()> {
    task(session, about(name), vdi::Name::new(name), |client, op, name| async move {
        client.delete(&op, name).await
    })
}

pub(super) fn delete_snapshot(session: &Arc<Session>, name: &[u8], of: &SnapshotId) -> Task<()> {
    let arguments = vdi::Name::new(name).and_then(|name| Ok((name, of.which()?)));
    task(session, about_snapshot(name, of), arguments, |client, op, (name, of)| async move {
        client.delete_snapshot(&op, name, of).await
    })
}

pub(super) fn break_lock(session: &Arc<Session>, name: &[u8]) -> Task<()> {
    task(session, about(name), vdi::Name::new(name), |client, op, name| async move {
        client.break_lock(&op, name).await
    })
}

fn key(name: &[u8], key: &[u8]) -> Result<Key> {
    Key::new(&vdi::Name::new(name)?, key)
}

pub(super) fn attribute(session: &Arc<Session>, name: &[u8], of: &[u8]) -> Task<Vec<u8>> {
    task(session, about(name), key(name, of), |client, op, key| async move {
        Ok(client.get_attr(&op, &key, usize::MAX).await?.0)
    })
}

pub(super) fn set_attribute(
    session: &Arc<Session>,
    name: &[u8],
    of: &[u8],
    value: &[u8],
) -> Task<()> {
    let arguments = key(name, of).map(|key| (key, value.to_vec()));
    task(session, about(name), arguments, |client, op, (key, value)| async move {
        client.set_attr(&op, &key, &value).await
    })
}

pub(super) fn remove_attribute(session: &Arc<Session>, name: &[u8], of: &[u8]) -> Task<()> {
    task(session, about(name), key(name, of), |client, op, key| async move {
        client.delete_attr(&op, &key).await
    })
}

pub(super) fn info(handle: &Handle) -> Task<Info> {
    task(&handle.session, handle.about(), handle.readable(), |client, op, vdi| async move {
        Ok(Info::new(&vdi.info(&client.cluster, &op).await?))
    })
}

pub(super) fn flush(handle: &Handle) -> Task<()> {
    let vdi = handle.open().cloned();
    task(&handle.session, handle.about(), vdi, |client, op, vdi| async move {
        vdi.flush(&client.cluster, &op).await
    })
}

pub(super) fn zero(handle: &Handle, offset: u64, len: u64, space: Space) -> Task<()> {
    let vdi = handle.open().cloned();
    task(&handle.session, handle.about(), vdi, move |client, op, vdi| async move {
        vdi.zero(&client.cluster, &op, offset, len, space).await
    })
}

pub(super) fn resize(handle: &Handle, size: u64) -> Task<()> {
    let vdi = handle.open().cloned();
    task(&handle.session, handle.about(), vdi, move |client, op, vdi| async move {
        vdi.resize(&client.cluster, &op, size).await
    })
}

pub(super) fn block_status(handle: &Handle, offset: u64, len: u64) -> Task<Vec<Extent>> {
    task(&handle.session, handle.about(), handle.readable(), move |client, op, vdi| async move {
        vdi.block_status(&client.cluster, &op, offset, len).await
    })
}

pub(super) fn refresh(handle: &Handle) -> Task<()> {
    task(&handle.session, handle.about(), handle.readable(), |client, op, vdi| async move {
        vdi.reload(&client.cluster, &op).await
    })
}

pub(super) fn take_snapshot(of: &Handle, tag: &[u8]) -> Task<Opened> {
    let about = about_snapshot(of.name().as_bytes(), &tag.into());
    let arguments = of.open().map(|vdi| (vdi.clone(), tag.to_vec()));
    let opener = Arc::downgrade(&of.session);
    let task = task(&of.session, about, arguments, move |client, op, (vdi, tag)| async move {
        let vid = client.snapshot(&op, &vdi, &tag).await?;
        let opened = pin!(client.open_snapshot_vid(&op, *vdi.name(), vid));
        handle(&opener, client.cluster.bounded(&op, opened).await?)
    });
    Task { beyond: UNDO_LIMIT, ..task }
}

pub(super) fn roll_back(handle: &Handle) -> Task<()> {
    let vdi = handle.open().cloned();
    task(&handle.session, handle.about(), vdi, |client, op, vdi| async move {
        client.rollback(&op, &vdi).await
    })
}

pub(super) fn clone(handle: &Handle, name: &[u8], copies: u8) -> Task<()> {
    let about = format!("{} from {}", about(name), handle.about());
    let arguments = handle.open().and_then(|vdi| Ok((vdi.clone(), vdi::Name::new(name)?)));
    task(&handle.session, about, arguments, move |client, op, (vdi, name)| async move {
        client.clone_vdi(&op, &vdi, None, name, copies).await
    })
}

impl Handle {
    pub fn name(&self) -> Name {
        Name::new(sheepdog_proto::field_text(self.vdi.name().field()))
    }
}
