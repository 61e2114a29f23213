//! Threads for what may have to wait, with fair shares: whoever asks for much waits for itself.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lock;

/// How long a thread waits for work before it ends.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes of a thread's stack.
const STACK: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// Threads start when they are needed; one stays until the last handle is dropped.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

struct Handle(Arc<Queue>);

struct Queue {
    name: &'static str,
    max_threads: usize,
    /// Threads that jobs of the second rank may take.
    max_long: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// Jobs that no thread has begun with.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    short: Lane,
    long: Lane,
    /// Jobs of `long` that run.
    running_long: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Jobs by whom they are for, each of whom has one turn after the other.
#[derive(Default)]
struct Lane {
    jobs: HashMap<u64, VecDeque<Job>>,
    turns: VecDeque<u64>,
}

impl Lane {
    fn push(&mut self, owner: u64, job: Job) {
        let jobs = self.jobs.entry(owner).or_default();
        if jobs.is_empty() {
            self.turns.push_back(owner);
        }
        jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let owner = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&owner)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        job
    }
}

impl Pool {
    /// A pool with its first thread, without which nothing would be done.
    pub fn start(name: &'static str, max_threads: usize, max_long: usize) -> io::Result<Pool> {
        let queue = Arc::new(Queue {
            name,
            max_threads,
            max_long,
            state: Mutex::default(),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
        });
        lock(&queue.state).threads = 1;
        queue.spawn()?;
        Ok(Pool(Arc::new(Handle(queue))))
    }

    /// Runs `job` on some thread. Those of one owner begin in the order of their submission.
    pub fn run(&self, owner: u64, job: impl FnOnce() + Send + 'static) {
        self.submit(|state| state.short.push(owner, Box::new(job)));
    }

    /// The same for a slice of long work, which leaves most threads to others.
    pub fn run_long(&self, owner: u64, job: impl FnOnce() + Send + 'static) {
        self.submit(|state| state.long.push(owner, Box::new(job)));
    }

    /// Whether there is more to do than there are threads.
    pub fn is_pressed(&self) -> bool {
        self.0.0.waiting.load(Ordering::Relaxed) > 0
    }

    fn submit(&self, push: impl FnOnce(&mut State)) {
        let queue = &self.0.0;
        let mut state = lock(&queue.state);
        push(&mut state);
        let waiting = queue.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        if waiting <= state.idle || state.threads >= queue.max_threads {
            drop(state);
            queue.changed.notify_one();
            return;
        }
        // Whoever is there goes on without it if the system has no more threads.
        state.threads += 1;
        drop(state);
        if let Err(err) = queue.spawn() {
            log::warn!("no further thread for {}: {err}", queue.name);
            lock(&queue.state).threads -= 1;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn spawn(self: &Arc<Self>) -> io::Result<()> {
        let queue = self.clone();
        let builder = thread::Builder::new().name(self.name.into()).stack_size(STACK);
        builder.spawn(move || queue.work()).map(drop)
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.short.pop() {
                state = self.run(state, job);
            } else if state.running_long < self.max_long
                && let Some(job) = state.long.pop()
            {
                state.running_long += 1;
                state = self.run(state, job);
                state.running_long -= 1;
            } else if state.closed {
                break;
            } else {
                state.idle += 1;
                let (guard, waited) = self
                    .changed
                    .wait_timeout(state, LINGER)
                    .unwrap_or_else(PoisonError::into_inner);
                state = guard;
                state.idle -= 1;
                // What came just now would not find this thread any more.
                let idle = self.waiting.load(Ordering::Relaxed) == 0;
                if waited.timed_out() && idle && state.threads > 1 {
                    break;
                }
            }
        }
        state.threads -= 1;
    }

    fn run<'a>(&'a self, state: MutexGuard<'a, State>, job: Job) -> MutexGuard<'a, State> {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(state);
        job();
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    use super::*;

    const THREADS: usize = 16;

    #[test]
    fn jobs_run_side_by_side() {
        let pool = Pool::start("test", THREADS, 4).unwrap();
        let barrier = Arc::new(Barrier::new(THREADS));
        let (done, finished) = channel();
        for _ in 0..THREADS {
            let (barrier, done) = (barrier.clone(), done.clone());
            // Each waits for all the others.
            pool.run(0, move || {
                barrier.wait();
                done.send(()).unwrap();
            });
        }
        assert_eq!(finished.iter().take(THREADS).count(), THREADS);
    }

    #[test]
    fn every_job_runs_though_there_are_more_than_threads() {
        let pool = Pool::start("test", 3, 1).unwrap();
        let (done, finished) = channel();
        for i in 0..1000 {
            let done = done.clone();
            match i % 2 {
                0 => pool.run(0, move || done.send(i).unwrap()),
                _ => pool.run_long(0, move || done.send(i).unwrap()),
            }
        }
        drop(done);
        assert_eq!(finished.iter().sum::<u32>(), 499_500);
    }

    #[test]
    fn each_owner_has_its_turn() {
        let pool = Pool::start("test", 1, 1).unwrap();
        let (open, gate) = channel::<()>();
        let (done, finished) = channel();
        pool.run(9, move || gate.recv().unwrap());
        for (owner, n) in [(0, 100), (1, 2)] {
            for i in 0..n {
                let done = done.clone();
                pool.run(owner, move || done.send((owner, i)).unwrap());
            }
        }
        open.send(()).unwrap();
        drop(done);
        let order: Vec<_> = finished.iter().take(4).collect();
        assert_eq!(order, [(0, 0), (1, 0), (0, 1), (1, 1)]);
    }

    #[test]
    fn long_work_leaves_threads_to_others() {
        let pool = Pool::start("test", 3, 2).unwrap();
        let gate = Arc::new(Barrier::new(3));
        for _ in 0..4 {
            let gate = gate.clone();
            pool.run_long(0, move || _ = gate.wait());
        }
        let (done, finished) = channel();
        pool.run(0, move || done.send(()).unwrap());
        finished.recv().unwrap();
        // Two at a time wait for this.
        gate.wait();
        gate.wait();
    }
}
