//! What the servers' model needs of the world that it runs in: time, tasks that live and die with
//! a node, and who the cluster's members are. The model knows nothing else of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
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

/// A world without time or faults: pauses are over at once, and what an operation left to do is
/// done before the next one.
pub struct Still {
    nodes: usize,
    tasks: RefCell<VecDeque<Task>>,
}

impl Still {
    pub fn new(nodes: usize) -> Still {
        Still { nodes, tasks: RefCell::default() }
    }

    /// Runs a future, and all tasks that it started.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(Waker::noop());
        let mut future = pin!(future);
        let mut output = None;
        loop {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(&mut context)
            {
                output = Some(value);
            }
            let next = self.tasks.borrow_mut().pop_front();
            match (next, output) {
                (None, Some(output)) => return output,
                (next, open) => {
                    output = open;
                    if let Some(mut task) = next
                        && task.as_mut().poll(&mut context).is_pending()
                    {
                        self.tasks.borrow_mut().push_back(task);
                    }
                }
            }
        }
    }
}

impl Host for Still {
    fn pause(&self, _: NodeId, _: &'static str) -> Task {
        Box::pin(async {})
    }

    fn spawn(&self, _: NodeId, task: Task) {
        self.tasks.borrow_mut().push_back(task);
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn members(&self) -> Vec<NodeId> {
        (0..self.nodes).collect()
    }
}
