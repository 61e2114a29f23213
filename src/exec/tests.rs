//! [`block_on`] with several threads: who leads, who follows, and that nobody is forgotten.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::*;
use crate::net::poll_fds;

/// How long anything here may take before it counts as stuck. No test waits for that to pass.
const STUCK: Duration = Duration::from_secs(60);

/// Runs each of `threads`; panics where one does, or does not end.
fn run_all(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let (done, ends) = mpsc::channel();
    let count = threads.len();
    for body in threads {
        let done = done.clone();
        thread::spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(body)).is_ok();
            let _ = done.send(end);
        });
    }
    for _ in 0..count {
        assert!(ends.recv_timeout(STUCK).expect("no thread is forgotten"), "a thread panicked");
    }
}

/// A peer that answers in its own order, and the state of a connection to it.
struct FakeReactor {
    lead: Lead,
    tasks: Tasks,
    wake: Arc<WakeFd>,
    state: Mutex<FakeState>,
    turning: AtomicBool,
    turns: AtomicUsize,
}

#[derive(Default)]
struct FakeState {
    /// Requests without an answer.
    asked: VecDeque<Arc<Request>>,
    polling: bool,
}

#[derive(Default)]
struct Request(Mutex<(bool, Option<Waker>)>);

impl FakeReactor {
    fn new() -> FakeReactor {
        FakeReactor {
            lead: Lead::default(),
            tasks: Tasks::default(),
            wake: Arc::new(WakeFd::new().unwrap()),
            state: Mutex::default(),
            turning: AtomicBool::new(false),
            turns: AtomicUsize::new(0),
        }
    }

    /// A request and its answer.
    async fn exchange(&self) {
        let request = Arc::new(Request::default());
        {
            let mut state = lock(&self.state);
            state.asked.push_back(request.clone());
            if state.polling {
                self.wake.set();
            }
        }
        poll_fn(|cx| {
            let mut request = lock(&request.0);
            if request.0 {
                return Poll::Ready(());
            }
            request.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn leaders_and_users(&self) -> (bool, usize) {
        let state = lock(&self.lead.state);
        (state.led, state.users)
    }
}

impl Reactor for FakeReactor {
    fn lead(&self) -> &Lead {
        &self.lead
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn turn(&self, me: &Parker, alone: bool) -> Turn {
        assert!(!self.turning.swap(true, Ordering::Relaxed), "one leader at a time");
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let answered = {
            let mut state = lock(&self.state);
            // Not all at once, and not in their order.
            let count = state.asked.len().min(1 + turn % 3);
            let answered: Vec<_> = match turn % 2 {
                0 => state.asked.drain(..count).collect(),
                _ => (0..count).filter_map(|_| state.asked.pop_back()).collect(),
            };
            state.polling = answered.is_empty();
            answered
        };
        if answered.is_empty() {
            let mut stuck = false;
            me.interruptible(&self.wake, || {
                let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
                poll_fds(&mut fds, STUCK / 2).unwrap();
                stuck = fds[0].revents().is_empty();
                self.wake.clear();
            });
            lock(&self.state).polling = false;
            assert!(!stuck, "nobody woke the leader; alone: {alone}");
        }
        self.turning.store(false, Ordering::Relaxed);
        for request in answered {
            let waker = {
                let mut request = lock(&request.0);
                request.0 = true;
                request.1.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
        Turn::Done
    }
}

#[test]
fn nobody_is_forgotten_among_threads_that_come_and_go() {
    const THREADS: usize = 4;
    const CALLS: usize = 1500;
    let reactor = Arc::new(FakeReactor::new());
    let threads = (0..THREADS).map(|thread| {
        let reactor = reactor.clone();
        let body = move || {
            for call in 0..CALLS {
                let exchanges = (thread + call) % 4;
                block_on(&*reactor, async {
                    for _ in 0..exchanges {
                        join(reactor.exchange(), reactor.exchange()).await;
                    }
                });
            }
        };
        Box::new(body) as Box<dyn FnOnce() + Send>
    });
    run_all(threads.collect());
    assert_eq!(reactor.leaders_and_users(), (false, 0));
}

#[test]
fn threads_that_wake_each_other_need_no_event_for_it() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 1000;
    let reactor = Arc::new(FakeReactor::new());
    // Passed around in a circle: its holder gives it on, whether it leads or not.
    let token = Arc::new(Mutex::new((0, WaitList::default())));
    let threads = (0..THREADS).map(|thread| {
        let (reactor, token) = (reactor.clone(), token.clone());
        let body = move || {
            for round in 0..ROUNDS {
                block_on(&*reactor, async {
                    poll_fn(|cx| {
                        let mut token = lock(&token);
                        if token.0 == round * THREADS + thread {
                            return Poll::Ready(());
                        }
                        token.1.register(cx);
                        Poll::Pending
                    })
                    .await;
                    if round % 3 == 0 {
                        reactor.exchange().await;
                    }
                    let waiters = {
                        let mut token = lock(&token);
                        token.0 += 1;
                        token.1.take()
                    };
                    waiters.into_iter().for_each(Waker::wake);
                });
            }
        };
        Box::new(body) as Box<dyn FnOnce() + Send>
    });
    run_all(threads.collect());
    assert_eq!(lock(&token).0, THREADS * ROUNDS);
    assert_eq!(reactor.leaders_and_users(), (false, 0));
}

/// A reactor whose every turn is a step of a script.
struct Scripted<F> {
    lead: Lead,
    tasks: Tasks,
    turn: F,
}

impl<F: Fn(&Lead, &Parker, bool)> Scripted<F> {
    fn new(turn: F) -> Arc<Scripted<F>> {
        Arc::new(Scripted { lead: Lead::default(), tasks: Tasks::default(), turn })
    }
}

impl<F: Fn(&Lead, &Parker, bool)> Reactor for Scripted<F> {
    fn lead(&self) -> &Lead {
        &self.lead
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn turn(&self, me: &Parker, alone: bool) -> Turn {
        (self.turn)(&self.lead, me, alone);
        Turn::Done
    }
}

/// Who has been told that it is done, and who waits to be.
#[derive(Default)]
struct Done(Mutex<(Vec<ThreadId>, WaitList)>);

impl Done {
    fn tell(&self, threads: &[ThreadId]) {
        let waiters = {
            let mut done = lock(&self.0);
            done.0.extend(threads);
            done.1.take()
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    async fn wait(&self) {
        let me = thread::current().id();
        poll_fn(|cx| {
            let mut done = lock(&self.0);
            if done.0.contains(&me) {
                return Poll::Ready(());
            }
            done.1.register(cx);
            Poll::Pending
        })
        .await
    }
}

fn followers(lead: &Lead) -> usize {
    lock(&lead.state).followers.len()
}

#[test]
fn the_lead_goes_to_a_follower_when_the_leaders_own_future_is_ready() {
    let done = Arc::new(Done::default());
    let leaders = Arc::new(Mutex::new(Vec::new()));
    let reactor = {
        let (done, leaders) = (done.clone(), leaders.clone());
        Scripted::new(move |lead: &Lead, _: &Parker, _| {
            let me = thread::current().id();
            let nth = {
                let mut leaders = lock(&leaders);
                if !leaders.contains(&me) {
                    leaders.push(me);
                }
                leaders.len()
            };
            // Each leads until all the others follow, so that the lead must be handed on.
            while followers(lead) < 3 - nth {
                thread::yield_now();
            }
            done.tell(&[me]);
        })
    };
    let threads = (0..3).map(|_| {
        let (reactor, done) = (reactor.clone(), done.clone());
        Box::new(move || block_on(&*reactor, done.wait())) as Box<dyn FnOnce() + Send>
    });
    run_all(threads.collect());
    assert_eq!(lock(&leaders).len(), 3, "everybody led, and so everybody got the lead");
}

#[test]
fn a_follower_that_leaves_while_nobody_leads_offers_the_lead_to_the_next() {
    let lead = Lead::default();
    let parkers: [Arc<Parker>; 3] = Default::default();
    parkers.iter().for_each(|_| lead.enter());
    assert!(lead.take(&parkers[0]));
    assert!(!lead.take(&parkers[1]) && !lead.take(&parkers[2]) && !lead.take(&parkers[2]));
    assert_eq!(followers(&lead), 2, "each stands in line once");
    lead.give_up();
    let nudged = |n: usize| std::mem::take(&mut lock(&parkers[n].state).nudged);
    assert!(nudged(1) && !nudged(2));
    // Its own future is ready, so it leaves instead of leading.
    lead.leave(&parkers[1]);
    assert!(nudged(2));
    assert!(lead.take(&parkers[2]));
    lead.leave(&parkers[0]);
    assert!(lead.alone());
    lead.give_up();
    lead.leave(&parkers[2]);
}

#[test]
fn a_thread_that_was_woken_does_not_begin_to_wait() {
    let (parker, fd) = (Arc::new(Parker::default()), Arc::new(WakeFd::new().unwrap()));
    parker.wake_by_ref();
    parker.interruptible(&fd, || panic!("it waits"));
    parker.wait();
    assert!(parker.is_woken() && parker.take_woken() && !parker.is_woken());
}

#[test]
fn a_wake_up_during_a_wait_interrupts_it_and_only_then() {
    let (parker, fd) = (Arc::new(Parker::default()), Arc::new(WakeFd::new().unwrap()));
    let readable = || {
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        poll_fds(&mut fds, Duration::ZERO).unwrap();
        !fds[0].revents().is_empty()
    };
    parker.interruptible(&fd, || {
        assert!(!readable());
        parker.wake_by_ref();
        assert!(readable());
        fd.clear();
    });
    assert!(parker.take_woken());
    parker.wake_by_ref();
    assert!(!readable(), "nobody waits there any more");
}

#[test]
fn a_future_that_panics_takes_nothing_with_it() {
    let reactor = FakeReactor::new();
    for _ in 0..2 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            block_on(&reactor, async {
                reactor.exchange().await;
                panic!("expected by this test");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(reactor.leaders_and_users(), (false, 0));
        block_on(&reactor, reactor.exchange());
    }
}

#[test]
fn a_turn_that_panics_gives_the_lead_up() {
    let turns = AtomicUsize::new(0);
    let done = Arc::new(Done::default());
    let reactor = {
        let done = done.clone();
        Scripted::new(move |_: &Lead, _: &Parker, _| {
            assert_ne!(turns.fetch_add(1, Ordering::Relaxed), 0, "expected by this test");
            done.tell(&[thread::current().id()]);
        })
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| block_on(&*reactor, done.wait())));
    assert!(panicked.is_err());
    block_on(&*reactor, done.wait());
    assert_eq!(lock(&reactor.lead.state).users, 0);
}

#[test]
fn a_blocking_call_inside_a_poll_has_a_parker_of_its_own() {
    let reactor = FakeReactor::new();
    let mut inner = 0;
    block_on(&reactor, async {
        reactor.exchange().await;
        // As a program's callback may do, in the thread of a blocking call.
        inner = block_on(&reactor, async {
            reactor.exchange().await;
            7
        });
        reactor.exchange().await;
    });
    assert_eq!(inner, 7);
    assert_eq!(reactor.leaders_and_users(), (false, 0));
}

#[test]
fn only_a_thread_by_itself_is_told_that_it_is_alone() {
    let done = Arc::new(Done::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reactor = {
        let (done, seen) = (done.clone(), seen.clone());
        Scripted::new(move |lead: &Lead, _: &Parker, alone| {
            let users = lock(&lead.state).users;
            lock(&seen).push((users, alone));
            done.tell(&[thread::current().id()]);
        })
    };
    block_on(&*reactor, done.wait());
    reactor.lead.enter();
    lock(&done.0).0.clear();
    block_on(&*reactor, done.wait());
    assert_eq!(*lock(&seen), [(1, true), (2, false)]);
}
