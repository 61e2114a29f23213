//! Threads for requests that may have to wait for a disk while their connection goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::lock;

/// Threads at most: enough to let one sync of the disk serve many requests.
const THREADS: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Threads start when they are needed, and end with the last handle.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

struct Handle(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub fn new() -> Pool {
        Pool(Arc::new(Handle(Arc::default())))
    }

    /// Runs `job` on some thread; jobs begin in the order of their submission.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let queue = &self.0.0;
        let mut state = lock(&queue.state);
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle || state.threads >= THREADS {
            drop(state);
            queue.changed.notify_one();
            return;
        }
        let worker = queue.clone();
        let spawned =
            thread::Builder::new().name("lamb-worker".into()).spawn(move || work(&worker));
        match spawned {
            Ok(_) => state.threads += 1,
            // Whoever waits for this job would wait for good if there were no thread at all.
            Err(err) if state.threads == 0 => {
                log::error!("no thread for requests: {err}");
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                jobs.into_iter().for_each(|job| job());
            }
            Err(err) => log::warn!("no further thread for requests: {err}"),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

fn work(queue: &Queue) {
    let mut state = lock(&queue.state);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = lock(&queue.state);
        } else if state.closed {
            return;
        } else {
            state.idle += 1;
            state = queue.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_run_side_by_side() {
        let pool = Pool::new();
        let barrier = Arc::new(Barrier::new(THREADS));
        let (done, finished) = channel();
        for _ in 0..THREADS {
            let (barrier, done) = (barrier.clone(), done.clone());
            // Each waits for all the others.
            pool.run(move || {
                barrier.wait();
                done.send(()).unwrap();
            });
        }
        assert_eq!(finished.iter().take(THREADS).count(), THREADS);
    }

    #[test]
    fn every_job_runs_though_there_are_more_than_threads() {
        let pool = Pool::new();
        let (done, finished) = channel();
        for i in 0..1000 {
            let done = done.clone();
            pool.run(move || done.send(i).unwrap());
        }
        drop(done);
        assert_eq!(finished.iter().sum::<u32>(), 499_500);
    }
}
