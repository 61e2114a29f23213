//! What the servers' model needs of the world that it runs in: time, tasks that live and die with
//! a node, and who the cluster's members are. The model knows nothing else of it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A node's number, from 0; its store survives the node's death.
pub type NodeId = usize;

pub type Task = Pin<Box<dyn Future<Output = ()>>>;

pub trait Host {
    /// The virtual time that `step` takes on that node: never over while the node is stopped,
    /// dropped with it.
    fn pause(&self, at: NodeId, step: &'static str) -> Task;

    /// Starts a task of that node: dropped when the node is killed, it stands still while the node
    /// is stopped. A task for a node that is not a member is dropped at once.
    fn spawn(&self, at: NodeId, task: Task);

    /// Virtual time since the world began.
    fn now(&self) -> Duration;

    /// Raised whenever the cluster notices that a node died or joined.
    fn epoch(&self) -> u32;

    /// The nodes of that epoch, in ascending order.
    fn members(&self) -> Vec<NodeId>;
}
