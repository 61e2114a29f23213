//! The second tier: what a gateway asks of the nodes that hold an object.
//!
//! Every holder gets a task of its own, which goes on when the gateway dies. An object's bytes are
//! held once for all of them: a change is made when the first holder that lives has carried it
//! out, or when that one has died and another had carried it out.

use std::cell::RefCell;
use std::rc::Rc;

use sheepdog_proto::{Oid, SdResult, hash};

use super::store::Sparse;
use super::wait::Signal;
use super::{Answer, Cluster, ledger};
use crate::host::NodeId;

/// What is asked of the holders of an object.
#[derive(Clone)]
pub enum PeerOp {
    /// All there is of it.
    Read,
    Write {
        offset: u64,
        data: Rc<[u8]>,
    },
    /// The object holds this and nothing else, whether it existed or not.
    Create(Sparse),
    /// As `Create`, of an object that exists.
    Replace(Sparse),
    Remove,
    /// Takes a reference back in the ledger of this data object (3.7).
    Release {
        generation: i32,
        count: i32,
    },
}

/// What became of one holder's part.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Open,
    Executed,
    /// A create met another one of the same object: it reports success and writes nothing (4.4).
    Skipped,
    /// It knew a newer epoch than the gateway, or is dead.
    Lost,
}

/// One request to all holders of an object.
struct Attempt {
    cluster: Rc<Cluster>,
    oid: Oid,
    op: PeerOp,
    parts: RefCell<Vec<Part>>,
    answer: RefCell<Option<Answer<Sparse>>>,
    over: Signal,
}

/// A holder's part of an attempt; dropped with the holder's task, it is lost.
struct Share(Rc<Attempt>, usize);

impl Attempt {
    fn settle(&self, holder: usize, part: Part) {
        let mut parts = self.parts.borrow_mut();
        if parts[holder] != Part::Open {
            return;
        }
        parts[holder] = part;
        if self.answer.borrow().is_none() {
            let answer = match parts.iter().find(|part| **part != Part::Lost) {
                Some(Part::Executed) => Some(self.cluster.execute(self.oid, &self.op)),
                Some(Part::Skipped) => Some(Ok(Sparse::default())),
                _ => None,
            };
            *self.answer.borrow_mut() = answer;
        }
        let over = !parts.contains(&Part::Open);
        drop(parts);
        if over {
            self.over.set();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.settle(self.1, Part::Lost);
    }
}

/// A node is creating an object, in a temporary file, while this lives.
struct Creating(Rc<Cluster>, (NodeId, Oid));

impl Drop for Creating {
    fn drop(&mut self) {
        self.0.creating.borrow_mut().remove(&self.1);
    }
}

impl Cluster {
    /// Has an operation carried out, again and again while the epoch rises beneath it.
    pub(super) async fn ask(
        self: &Rc<Self>,
        gateway: NodeId,
        oid: Oid,
        op: PeerOp,
    ) -> Answer<Sparse> {
        loop {
            match self.ask_once(gateway, oid, op.clone()).await {
                Err(SdResult::OLD_NODE_VER) => self.next_epoch(gateway).await,
                answer => return answer,
            }
        }
    }

    pub(super) async fn next_epoch(&self, gateway: NodeId) {
        self.host.pause(gateway, "waits for the next epoch").await;
    }

    /// OLD_NODE_VER where a holder knew a newer epoch or died: the others may have done it.
    pub(super) async fn ask_once(
        self: &Rc<Self>,
        gateway: NodeId,
        oid: Oid,
        op: PeerOp,
    ) -> Answer<Sparse> {
        let mut holders = self.holders(oid);
        if matches!(op, PeerOp::Read) {
            let own = holders.iter().position(|&holder| holder == gateway);
            holders = vec![holders[own.unwrap_or(0)]];
        }
        // A gateway that was left out of the cluster has not heard of the epoch that says so.
        let members = self.host.members();
        let epoch = self.host.epoch() - u32::from(!members.contains(&gateway));
        let attempt = Rc::new(Attempt {
            cluster: self.clone(),
            oid,
            op,
            parts: RefCell::new(vec![Part::Open; holders.len()]),
            answer: RefCell::default(),
            over: Signal::default(),
        });
        for (i, &holder) in holders.iter().enumerate() {
            let task = Share(attempt.clone(), i).serve(holder, epoch);
            self.host.spawn(holder, Box::pin(task));
        }
        attempt.over.wait().await;
        if attempt.parts.borrow().contains(&Part::Lost) {
            return Err(SdResult::OLD_NODE_VER);
        }
        let answer = attempt.answer.borrow_mut().take();
        answer.unwrap_or(Err(SdResult::OLD_NODE_VER))
    }

    /// The nodes that hold an object or would; a change of members moves no more than it must.
    fn holders(&self, oid: Oid) -> Vec<NodeId> {
        let mut members = self.host.members();
        members.sort_by_key(|&node| hash::fnv1a_from(oid.0 ^ node as u64, &oid.0.to_le_bytes()));
        members.truncate(usize::from(self.copies_of(oid)).max(1));
        members
    }

    /// Carries out what all holders of an object do, at once.
    fn execute(&self, oid: Oid, op: &PeerOp) -> Answer<Sparse> {
        let mut objects = self.objects.borrow_mut();
        match op {
            PeerOp::Read => return objects.get(&oid).cloned().ok_or(SdResult::NO_OBJ),
            PeerOp::Write { offset, data } => {
                self.check_late_write(oid)?;
                objects.get_mut(&oid).ok_or(SdResult::NO_OBJ)?.write(*offset, data);
            }
            PeerOp::Create(content) => {
                self.check_late_write(oid)?;
                objects.insert(oid, content.clone());
            }
            PeerOp::Replace(content) => {
                *objects.get_mut(&oid).ok_or(SdResult::NO_OBJ)? = content.clone();
            }
            PeerOp::Remove => {
                objects.remove(&oid).ok_or(SdResult::NO_OBJ)?;
            }
            PeerOp::Release { generation, count } => {
                let book = objects.entry(oid.ledger()).or_insert_with(ledger::of_a_new_object);
                ledger::release(book, *generation, *count);
                if book.is_zero() {
                    objects.remove(&oid.ledger());
                }
            }
        }
        Ok(Sparse::default())
    }
}

impl Share {
    async fn serve(self, holder: NodeId, epoch: u32) {
        let Share(attempt, part) = &self;
        let cluster = &attempt.cluster;
        cluster.host.pause(holder, "takes a peer's request").await;
        if cluster.host.epoch() > epoch {
            return;
        }
        let _creating = match attempt.op {
            PeerOp::Create(_) => {
                let key = (holder, attempt.oid);
                if !cluster.creating.borrow_mut().insert(key) {
                    return attempt.settle(*part, Part::Skipped);
                }
                Some(Creating(cluster.clone(), key))
            }
            _ => None,
        };
        cluster.host.pause(holder, "carries out a peer's request").await;
        attempt.settle(*part, Part::Executed);
    }
}
