//! How threads hand the executor to each other: who leads, who follows, who delivers callbacks.
//! A model that finds a thread waiting for ever fails as a deadlock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use loom::thread;
use loom_tests::exec::{Completion, Lead, Parker, Reactor, Tasks, Turn, WaitList, block_on, lock};
use loom_tests::net::WakeFd;
use loom_tests::sync::Mutex;

/// Runs `f` in every order of its threads' steps with at most `preemptions` switches away from a
/// thread that could go on.
fn check(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

/// The state of a connection to a peer that answers what it is asked, and the executor on it.
struct Peer {
    lead: Lead,
    tasks: Arc<Tasks>,
    wake: Arc<WakeFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: VecDeque<Arc<Request>>,
    /// The leader waits, or is about to.
    polling: bool,
    turning: bool,
    /// How often a leader leaves what there is to a dispatch.
    courtesies: usize,
}

#[derive(Default)]
struct Request(Mutex<(bool, Option<Waker>)>);

impl Peer {
    fn new() -> Arc<Peer> {
        Arc::new(Peer {
            lead: Lead::default(),
            tasks: Arc::default(),
            wake: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// What a close does, after it has cancelled all.
    fn end(&self) {
        self.tasks.refuse();
        block_on(self, async {
            self.tasks.ended(0).await;
            self.lead.left(1).await;
        });
    }

    /// A request and its answer.
    async fn exchange(&self) {
        let request = Arc::new(Request::default());
        {
            let mut state = lock(&self.state);
            state.asked.push_back(request.clone());
            // The answer makes the leader's descriptors readable.
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

    /// Answers what there is, and wakes who asked.
    fn answer(&self) -> bool {
        let asked = std::mem::take(&mut lock(&self.state).asked);
        let any = !asked.is_empty();
        for request in asked {
            let waker = {
                let mut request = lock(&request.0);
                request.0 = true;
                request.1.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
        any
    }

    /// What an event loop's thread does when the descriptor is readable.
    fn dispatch(&self) {
        let mut hold = self.tasks.agenda.hold();
        if let Some(_term) = self.lead.try_take() {
            self.begin_turn();
            self.answer();
            lock(&self.state).turning = false;
        }
        self.tasks.run_woken();
        self.tasks.deliver(&mut hold, usize::MAX);
    }

    fn begin_turn(&self) {
        let mut state = lock(&self.state);
        assert!(!state.turning, "one leader at a time");
        state.turning = true;
    }
}

impl Reactor for Peer {
    fn lead(&self) -> &Lead {
        &self.lead
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn turn(&self, me: &Parker, _alone: bool) -> Turn {
        self.begin_turn();
        {
            let mut state = lock(&self.state);
            if !state.asked.is_empty() && state.courtesies > 0 {
                state.courtesies -= 1;
                state.turning = false;
                return Turn::Leave;
            }
        }
        if !self.answer() {
            let nothing = {
                let mut state = lock(&self.state);
                state.polling = state.asked.is_empty();
                state.polling
            };
            if nothing {
                me.interruptible(&self.wake, || {
                    self.wake.wait();
                    self.wake.clear();
                });
                lock(&self.state).polling = false;
            }
        }
        lock(&self.state).turning = false;
        Turn::Done
    }
}

/// What one call holds and another waits for, as calls on one VDI do.
#[derive(Default)]
struct Gate(Mutex<(bool, WaitList)>);

impl Gate {
    fn open(&self) {
        let waiters = {
            let mut gate = lock(&self.0);
            gate.0 = true;
            gate.1.take()
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    async fn pass(&self) {
        poll_fn(|cx| {
            let mut gate = lock(&self.0);
            if gate.0 {
                return Poll::Ready(());
            }
            gate.1.register(cx);
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn two_threads_that_wait_at_once_both_get_their_answers() {
    check(3, || {
        let peer = Peer::new();
        let other = {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, peer.exchange()))
        };
        block_on(&*peer, peer.exchange());
        other.join().unwrap();
    });
}

/// A leader that leaves what there is to a dispatch goes on, whether that comes or not.
#[test]
fn a_leader_leaves_its_answers_to_a_dispatch() {
    check(2, || {
        let peer = Peer::new();
        lock(&peer.state).courtesies = 2;
        let other = {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, peer.exchange()))
        };
        let dispatching = {
            let peer = peer.clone();
            thread::spawn(move || peer.dispatch())
        };
        block_on(&*peer, peer.exchange());
        other.join().unwrap();
        dispatching.join().unwrap();
    });
}

#[test]
fn the_lead_is_passed_on_among_three_threads() {
    check(2, || {
        let peer = Peer::new();
        let others = [(); 2].map(|()| {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, peer.exchange()))
        });
        block_on(&*peer, peer.exchange());
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// The leader can be woken by a follower, and must not go on waiting for the peer.
#[test]
fn a_leader_is_woken_by_what_another_thread_does() {
    check(3, || {
        let peer = Peer::new();
        let gate = Arc::new(Gate::default());
        let other = {
            let (peer, gate) = (peer.clone(), gate.clone());
            thread::spawn(move || {
                block_on(&*peer, async {
                    peer.exchange().await;
                    gate.open();
                });
            })
        };
        block_on(&*peer, gate.pass());
        other.join().unwrap();
    });
}

/// A request whose future panics ends like any other: the lead is not lost with it.
#[test]
fn a_panic_gives_the_lead_back() {
    check(2, || {
        let peer = Peer::new();
        let other = {
            let peer = peer.clone();
            thread::spawn(move || {
                let failing = async {
                    peer.exchange().await;
                    // Without the hook's message for each of the many runs.
                    std::panic::resume_unwind(Box::new("on purpose"))
                };
                let call = AssertUnwindSafe(|| -> () { block_on(&*peer, failing) });
                assert!(catch_unwind(call).is_err());
            })
        };
        block_on(&*peer, peer.exchange());
        other.join().unwrap();
    });
}

/// A completion that counts itself.
fn counted(delivered: &Arc<AtomicUsize>) -> Completion {
    let delivered = delivered.clone();
    Box::new(move || {
        delivered.fetch_add(1, Ordering::Relaxed);
    })
}

/// Submits a request, and has what it ends in counted.
fn submit(peer: &Arc<Peer>, delivered: &Arc<AtomicUsize>) {
    let (of, completion) = (peer.clone(), counted(delivered));
    peer.tasks.spawn(async move { of.exchange().await }, move |_| Some(completion));
    peer.tasks.run_woken();
}

/// A descriptor that tells an event loop of what there is to deliver.
fn told(peer: &Peer) -> WakeFd {
    let descriptor = WakeFd::default();
    peer.tasks.agenda.tell(Arc::new(descriptor.clone()));
    descriptor
}

/// A call that blocks may wait for what an asynchronous request holds.
#[test]
fn a_leader_runs_what_it_may_be_waiting_for() {
    check(3, || {
        let peer = Peer::new();
        let gate = Arc::new(Gate::default());
        let other = {
            let (peer, gate) = (peer.clone(), gate.clone());
            thread::spawn(move || block_on(&*peer, gate.pass()))
        };
        let of = peer.clone();
        let opening = async move {
            of.exchange().await;
            gate.open();
        };
        peer.tasks.spawn(opening, |_| None);
        other.join().unwrap();
    });
}

/// And the other way round: what a call holds to its very end.
#[test]
fn what_waits_for_the_end_of_a_call_goes_on_after_it() {
    check(3, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let delivered = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Gate::default());
        let (completion, passing) = (counted(&delivered), gate.clone());
        peer.tasks.spawn(async move { passing.pass().await }, move |_| Some(completion));
        let other = {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, async { gate.open() }))
        };
        descriptor.wait();
        peer.dispatch();
        assert_eq!(delivered.load(Ordering::Relaxed), 1);
        other.join().unwrap();
    });
}

/// A loop's thread and a thread that blocks share one connection: whichever receives the answers,
/// the callbacks come, on the loop's thread, and it need not be woken by anything else.
#[test]
fn callbacks_come_beside_a_thread_that_blocks() {
    check(2, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let delivered = Arc::new(AtomicUsize::new(0));
        let other = {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, peer.exchange()))
        };
        submit(&peer, &delivered);
        // The loop: readable is the socket, while nobody else has received what is there, or the
        // signal.
        while delivered.load(Ordering::Relaxed) == 0 {
            if lock(&peer.state).asked.is_empty() {
                descriptor.wait();
            }
            peer.dispatch();
            thread::yield_now();
        }
        other.join().unwrap();
    });
}

/// Another thread's request ends while the loop's thread delivers: it is delivered too, by the same
/// dispatch or by one that the signal asks for.
#[test]
fn what_finishes_during_a_delivery_is_delivered() {
    check(3, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let delivered = Arc::new(AtomicUsize::new(0));
        let spawn = |completion| peer.tasks.spawn(async {}, move |_| Some(completion));
        let other = {
            let (tasks, completion) = (peer.tasks.clone(), counted(&delivered));
            thread::spawn(move || tasks.spawn(async {}, move |_| Some(completion)))
        };
        spawn(counted(&delivered));
        while delivered.load(Ordering::Relaxed) < 2 {
            descriptor.wait();
            peer.dispatch();
        }
        other.join().unwrap();
        peer.dispatch();
        assert!(!descriptor.is_set(), "an event loop would turn for ever");
    });
}

/// What is asked for while another thread dispatches is seen by that, or told of.
#[test]
fn what_is_asked_for_beside_a_dispatch_is_not_lost() {
    check(3, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let work = Arc::new(Mutex::new(0));
        let other = {
            let (peer, work) = (peer.clone(), work.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut work = lock(&work);
                    *work += 1;
                    peer.tasks.agenda.set_unsent(true);
                }
            })
        };
        let mut done = 0;
        while done < 2 {
            descriptor.wait();
            let hold = peer.tasks.agenda.hold();
            {
                let mut work = lock(&work);
                done += std::mem::take(&mut *work);
                peer.tasks.agenda.set_unsent(false);
            }
            drop(hold);
        }
        other.join().unwrap();
        assert!(!descriptor.is_set(), "an event loop would turn for ever");
    });
}

/// A callback that waits for another completion, as in a nested event loop, while other threads
/// finish requests and dispatch as well.
#[test]
fn a_callback_can_wait_for_the_next_one() {
    check(2, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let delivered = Arc::new(AtomicUsize::new(0));
        let nested: Completion = {
            let (peer, delivered, descriptor) =
                (peer.clone(), delivered.clone(), descriptor.clone());
            Box::new(move || {
                while delivered.load(Ordering::Relaxed) == 0 {
                    descriptor.wait();
                    peer.dispatch();
                    thread::yield_now();
                }
            })
        };
        let spawn = |peer: &Peer, completion| peer.tasks.spawn(async {}, move |_| Some(completion));
        spawn(&peer, nested);
        let other = {
            let (peer, completion) = (peer.clone(), counted(&delivered));
            thread::spawn(move || spawn(&peer, completion))
        };
        peer.dispatch();
        while delivered.load(Ordering::Relaxed) == 0 {
            descriptor.wait();
            peer.dispatch();
        }
        other.join().unwrap();
    });
}

/// After a close no callback runs, whichever thread was to deliver it, but the one it is made in.
#[test]
fn a_close_waits_for_the_callbacks_of_other_threads() {
    check(3, || {
        let peer = Peer::new();
        let _descriptor = told(&peer);
        let (running, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..2 {
            let (running, closed) = (running.clone(), closed.clone());
            let completion: Completion = Box::new(move || {
                running.fetch_add(1, Ordering::Relaxed);
                assert_eq!(closed.load(Ordering::Relaxed), 0, "the program's context is gone");
                // Another thread's turn may come here.
                thread::yield_now();
                running.fetch_sub(1, Ordering::Relaxed);
            });
            peer.tasks.spawn(async {}, move |_| Some(completion));
        }
        let other = {
            let peer = peer.clone();
            thread::spawn(move || peer.dispatch())
        };
        peer.tasks.agenda.close();
        peer.end();
        peer.tasks.agenda.deliver_last();
        assert_eq!(running.load(Ordering::Relaxed), 0);
        closed.store(1, Ordering::Relaxed);
        other.join().unwrap();
    });
}

#[test]
fn a_close_inside_a_callback_does_not_wait_for_itself() {
    check(3, || {
        let peer = Peer::new();
        let closing: Completion = {
            let peer = peer.clone();
            Box::new(move || {
                peer.tasks.agenda.close();
                peer.end();
                peer.tasks.agenda.deliver_last();
            })
        };
        peer.tasks.spawn(async {}, move |_| Some(closing));
        let other = {
            let peer = peer.clone();
            thread::spawn(move || block_on(&*peer, peer.exchange()))
        };
        peer.dispatch();
        other.join().unwrap();
    });
}

/// A close waits for all asynchronous requests: it polls those that are woken, and waits for those
/// that another thread is polling.
#[test]
fn a_close_waits_for_requests_that_other_threads_are_at() {
    for other_polls in [false, true] {
        check(3, move || {
            let peer = Peer::new();
            let delivered = Arc::new(AtomicUsize::new(0));
            submit(&peer, &delivered);
            submit(&peer, &delivered);
            let other = {
                let peer = peer.clone();
                thread::spawn(move || {
                    peer.answer();
                    if other_polls {
                        peer.tasks.run_woken();
                    }
                })
            };
            peer.end();
            peer.tasks.agenda.deliver_last();
            assert_eq!(delivered.load(Ordering::Relaxed), 2);
            other.join().unwrap();
        });
    }
}

/// A close that is told of by a callback: that comes last, whoever dispatches, and somebody is told
/// to.
#[test]
fn the_last_callback_comes_when_no_other_runs() {
    check(2, || {
        let peer = Peer::new();
        let descriptor = told(&peer);
        let (others, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..2 {
            let (others, closed) = (others.clone(), closed.clone());
            let completion: Completion = Box::new(move || {
                thread::yield_now();
                assert_eq!(closed.load(Ordering::Relaxed), 0, "the program's context is gone");
                others.fetch_add(1, Ordering::Relaxed);
            });
            peer.tasks.spawn(async {}, move |_| Some(completion));
        }
        let last: Completion = {
            let (peer, others, closed) = (peer.clone(), others.clone(), closed.clone());
            Box::new(move || {
                assert_eq!(others.load(Ordering::Relaxed), 2);
                closed.fetch_add(1, Ordering::Relaxed);
                // Whoever else waits is to find that out.
                peer.tasks.agenda.close();
            })
        };
        let other = {
            let peer = peer.clone();
            thread::spawn(move || peer.dispatch())
        };
        peer.tasks.agenda.end();
        {
            let end = peer.clone();
            let ended = async move {
                end.tasks.ended(1).await;
                end.lead.left(0).await;
            };
            peer.tasks.spawn_last(ended, move |_| last);
        }
        while closed.load(Ordering::Relaxed) == 0 {
            descriptor.wait();
            peer.dispatch();
            thread::yield_now();
        }
        other.join().unwrap();
        assert_eq!(closed.load(Ordering::Relaxed), 1);
    });
}
