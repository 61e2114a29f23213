//! Operations whose work grows with a VDI: the time that an operation may take bounds how long they
//! may go without an answer, and not how long they take.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cluster, Core, Op};
use crate::clock::Instant;
use crate::exec::lock;

/// Of one such operation, which its beginning names.
pub(super) struct Patience {
    started: Instant,
    /// Its deadline, had it no patience.
    first: Instant,
    /// Its deadline, unless an answer comes.
    until: Instant,
}

impl Patience {
    fn allowance(&self) -> Duration {
        self.first - self.started
    }
}

/// As long as it lives the operation's deadline moves with every answer that it gets.
pub struct Patient<'a> {
    cluster: &'a Cluster,
    started: Instant,
}

impl Cluster {
    /// For an operation that takes the longer the larger a VDI is.
    pub fn be_patient(&self, op: &Op) -> Option<Patient<'_>> {
        let first = op.deadline.filter(|_| !op.bounded)?;
        let started = op.started;
        let mut core = lock(&self.core);
        if core.patience_of(op).is_some() {
            return None;
        }
        core.patience.push(Patience { started, first, until: first });
        self.patient.fetch_add(1, Ordering::Relaxed);
        Some(Patient { cluster: self, started })
    }

    fn is_anybody_patient(&self) -> bool {
        self.patient.load(Ordering::Relaxed) > 0
    }

    /// When an operation is given up, as things stand.
    pub(super) fn deadline(&self, op: &Op) -> Option<Instant> {
        let deadline = op.deadline?;
        if op.bounded || !self.is_anybody_patient() {
            return Some(deadline);
        }
        let mut core = lock(&self.core);
        let moved = core.patience_of(op).map(|it| it.until + deadline.duration_since(it.first));
        Some(moved.unwrap_or(deadline))
    }

    /// How long a patient operation may repeat one thing.
    pub(super) fn allowance(&self, op: &Op) -> Option<Duration> {
        if !self.is_anybody_patient() {
            return None;
        }
        lock(&self.core).patience_of(op).map(|patience| patience.allowance())
    }

    /// An answer came.
    pub(super) fn progress(&self, op: &Op) {
        if self.is_anybody_patient()
            && let Some(patience) = lock(&self.core).patience_of(op)
        {
            patience.until = Instant::now() + patience.allowance();
        }
    }
}

impl Core {
    fn patience_of(&mut self, op: &Op) -> Option<&mut Patience> {
        self.patience.iter_mut().find(|patience| patience.started == op.started)
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        lock(&self.cluster.core).patience.retain(|patience| patience.started != self.started);
        self.cluster.patient.fetch_sub(1, Ordering::Relaxed);
    }
}
