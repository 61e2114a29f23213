//! A connection and its handles, shared by both forms: who closes what, and when.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{Error, Result};
use super::operation::Operation;
use crate::cluster::{Closer, Op};
use crate::error as core;
use crate::exec::Completion;
use crate::vdi::{Client, Vdi};

/// A connection. Closed when its last user goes, if not before.
pub(super) struct Session {
    pub client: Arc<Client>,
    /// The close has begun.
    closed: AtomicBool,
    /// And has come to its end.
    over: AtomicBool,
}

/// An open VDI or snapshot.
pub(super) struct Handle {
    pub session: Arc<Session>,
    pub vdi: Arc<Vdi>,
    closed: AtomicBool,
}

/// What an operation does, once it has begun.
pub(super) type Work<T> =
    Box<dyn FnOnce(Op) -> Pin<Box<dyn Future<Output = core::Result<T>> + Send>> + Send>;

/// An operation that can be waited for, or started.
pub(super) struct Task<T> {
    pub session: Arc<Session>,
    pub about: String,
    /// What it may take beyond its deadline, to which it keeps by itself then.
    pub beyond: Duration,
    pub work: core::Result<Work<T>>,
}

impl Session {
    pub fn new(client: Arc<Client>) -> Arc<Session> {
        let (closed, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Session { client, closed, over })
    }

    pub fn check(&self) -> core::Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(core::Error::Canceled),
            false => Ok(()),
        }
    }

    pub fn error(&self, about: String, error: core::Error) -> Error {
        Error::new(about, error, Some(&self.client))
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Begins the close; false where it has begun.
    fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub fn close(&self) -> Result<()> {
        if !self.begin_close() {
            return Ok(());
        }
        let client = &self.client;
        let result = client.cluster.close(async |op| client.close_all(op).await);
        self.over.store(true, Ordering::Release);
        result.map_err(|error| self.error(String::new(), error))
    }

    pub fn start_close(self: &Arc<Session>) -> Operation<Result<()>> {
        if !self.begin_close() {
            return Operation::ready(Ok(()));
        }
        let (operation, promise) = Operation::new();
        let (client, session) = (self.client.clone(), self.clone());
        let done = move |result: core::Result<()>| -> Completion {
            Box::new(move || {
                session.over.store(true, Ordering::Release);
                session.client.cluster.end_waits();
                let error = |error| session.error(String::new(), error);
                promise.keep(result.map_err(error));
            })
        };
        let end = move || async move {
            client.cluster.end(Closer::Task, async |op: &Op| client.close_all(op).await).await
        };
        self.client.cluster.spawn_end(end, done);
        operation
    }

    /// Starts `work`, with `bytes` of memory of the program's; `done` is given what came of it by a
    /// thread that dispatches. Err where nothing was started.
    pub fn spawn<T, F>(
        &self,
        bytes: usize,
        work: impl FnOnce(Op) -> F,
        done: impl FnOnce(core::Result<T>) + Send + 'static,
    ) -> core::Result<()>
    where
        T: Send + 'static,
        F: Future<Output = core::Result<T>> + Send + 'static,
    {
        let share = self.client.cluster.budget.take(bytes);
        let share = share.ok_or(core::Error::NoMem("the buffer limit"))?;
        self.client.cluster.spawn(work, move |result| {
            let completion: Completion = Box::new(move || {
                // Before it is told, so that the next one can be started.
                drop(share);
                done(result);
            });
            Some(completion)
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("the connection was dropped: {error}");
        }
    }
}

impl<T> Task<T> {
    pub fn wait(self) -> Result<T> {
        let Task { session, about, beyond, work } = self;
        let result = session
            .check()
            .and(work)
            .and_then(|work| session.client.cluster.run_beyond(beyond, async |op| work(*op).await));
        result.map_err(|error| session.error(about, error))
    }

    /// `map` is called before the operation is done, in the thread that dispatches.
    pub fn start<U>(self, map: impl FnOnce(T) -> U + Send + 'static) -> Operation<Result<U>>
    where
        T: Send + 'static,
        U: Send + 'static,
    {
        let Task { session, about, beyond, work } = self;
        let work = match session.check().and(work) {
            Ok(work) => work,
            Err(error) => return Operation::ready(Err(session.error(about, error))),
        };
        let (operation, promise) = Operation::new();
        let bounded = {
            let client = session.client.clone();
            move |op: Op| {
                let all = op.extended(beyond);
                async move { client.cluster.bounded(&all, pin!(work(op))).await }
            }
        };
        let (told, words) = (session.client.clone(), about.clone());
        let done = move |result: core::Result<T>| {
            promise.keep(result.map(map).map_err(|error| Error::new(words, error, Some(&told))));
        };
        match session.spawn(0, bounded, done) {
            Ok(()) => operation,
            Err(error) => Operation::ready(Err(session.error(about, error))),
        }
    }
}

/// What an error of an operation on it is about.
pub(super) fn about(vdi: &Vdi) -> String {
    format!("VDI \"{}\"", vdi.name())
}

impl Handle {
    pub fn new(session: Arc<Session>, vdi: Arc<Vdi>) -> Arc<Handle> {
        Arc::new(Handle { session, vdi, closed: AtomicBool::new(false) })
    }

    /// What to read from; an error where it is closed.
    pub fn readable(&self) -> core::Result<Arc<Vdi>> {
        Ok(self.session.client.to_read(self.open()?.clone()))
    }

    pub fn open(&self) -> core::Result<&Arc<Vdi>> {
        self.session.check()?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(core::Error::Invalid("the VDI is closed")),
            false => Ok(&self.vdi),
        }
    }

    pub fn about(&self) -> String {
        about(&self.vdi)
    }

    pub fn error(&self, error: core::Error) -> Error {
        self.session.error(self.about(), error)
    }

    /// The end of the handle; None where it has ended.
    pub fn end(&self) -> Option<Task<()>> {
        if self.closed.swap(true, Ordering::AcqRel) || self.session.check().is_err() {
            return None;
        }
        let (client, vdi) = (self.session.client.clone(), self.vdi.clone());
        let work: Work<()> =
            Box::new(move |op| Box::pin(async move { client.close(&op, vdi).await }));
        let (session, about) = (self.session.clone(), self.about());
        Some(Task { session, about, beyond: Duration::ZERO, work: Ok(work) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end().map(Task::wait) {
            log::warn!("a handle was dropped: {error}");
        }
    }
}
