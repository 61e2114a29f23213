//! Several futures of one task at once: the pieces of one call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// How many pieces of one call are under way at once.
const MAX_CONCURRENT: usize = 32;

/// Runs the futures that `next` gives, a bounded number of them at once, until all are done.
/// Returns the first error; once there is one, no more are started, and those under way are
/// waited for, so that nothing of the call goes on after it.
pub async fn try_for_each_concurrent<E, F>(mut next: impl Iterator<Item = F>) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    // The common case, a range inside one object, needs no list.
    let Some(first) = next.next() else { return Ok(()) };
    let Some(second) = next.next() else { return first.await };
    let mut running: Vec<Pin<Box<F>>> = vec![Box::pin(first), Box::pin(second)];
    let mut failed = None;
    poll_fn(|cx| {
        loop {
            while failed.is_none() && running.len() < MAX_CONCURRENT {
                let Some(future) = next.next() else { break };
                running.push(Box::pin(future));
            }
            let before = running.len();
            running.retain_mut(|future| match future.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(e)) => {
                    failed.get_or_insert(e);
                    false
                }
            });
            if running.is_empty() {
                // `next` may still have some, unless one failed.
                if failed.is_some() {
                    break;
                }
                match next.next() {
                    Some(future) => running.push(Box::pin(future)),
                    None => break,
                }
            } else if running.len() == before {
                return Poll::Pending;
            }
            // Some ended: there may be room for more, which must be polled once to start.
        }
        Poll::Ready(())
    })
    .await;
    match failed {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Runs two futures at once; the results of both.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::task::{Context, Waker};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls until the future ends; how many polls that took, and its output.
    fn run<T>(future: impl Future<Output = T>) -> (usize, T) {
        let mut future = pin!(future);
        for polls in 1..100_000 {
            if let Poll::Ready(output) = poll(future.as_mut()) {
                return (polls, output);
            }
        }
        panic!("it does not end");
    }

    /// Pieces that need a number of polls each, and what became of them.
    #[derive(Default)]
    struct Pieces {
        running: Cell<usize>,
        most: Cell<usize>,
        started: RefCell<Vec<usize>>,
        ended: RefCell<Vec<usize>>,
    }

    /// Counts a piece as running, from its first poll until it ends or is dropped.
    struct Running<'a>(&'a Pieces);

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.running.set(self.0.running.get() - 1);
        }
    }

    impl Pieces {
        async fn piece(
            &self,
            n: usize,
            polls: usize,
            result: Result<(), usize>,
        ) -> Result<(), usize> {
            self.started.borrow_mut().push(n);
            self.running.set(self.running.get() + 1);
            self.most.set(self.most.get().max(self.running.get()));
            let _running = Running(self);
            let mut left = polls;
            poll_fn(|_| {
                assert_ne!(left, 0, "polled after its end");
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            self.ended.borrow_mut().push(n);
            result
        }
    }

    #[test]
    fn all_pieces_run_a_bounded_number_of_them_at_once() {
        for count in [0, 1, 2, MAX_CONCURRENT, MAX_CONCURRENT + 1, 500] {
            let pieces = Pieces::default();
            // Some end at once, some take their time, in no order.
            let futures = (0..count).map(|n| pieces.piece(n, 1 + n * 7 % 5, Ok(())));
            assert_eq!(run(try_for_each_concurrent(futures)).1, Ok(()));
            assert_eq!(*pieces.started.borrow(), (0..count).collect::<Vec<_>>(), "in order");
            assert_eq!(pieces.ended.borrow().len(), count);
            assert_eq!(pieces.running.get(), 0);
            assert!(pieces.most.get() <= MAX_CONCURRENT);
        }
    }

    #[test]
    fn as_many_pieces_are_under_way_as_may_be() {
        let pieces = Pieces::default();
        let futures = (0..5 * MAX_CONCURRENT).map(|n| pieces.piece(n, 3, Ok(())));
        let (polls, _) = run(try_for_each_concurrent(futures));
        assert_eq!(pieces.most.get(), MAX_CONCURRENT);
        assert!(polls <= 5 * 3, "{polls} polls: they did not overlap");
    }

    #[test]
    fn the_first_error_is_returned_once_those_under_way_have_ended() {
        let pieces = Pieces::default();
        let futures = (0..500).map(|n| match n {
            40 => pieces.piece(n, 2, Err(n)),
            // Under way by then, and worse, but later.
            41 => pieces.piece(n, 5, Err(n)),
            _ => pieces.piece(n, 3, Ok(())),
        });
        assert_eq!(run(try_for_each_concurrent(futures)).1, Err(40));
        assert_eq!(pieces.running.get(), 0);
        let (started, ended) = (pieces.started.borrow().len(), pieces.ended.borrow().len());
        assert_eq!(started, ended, "nothing goes on afterwards");
        assert!(started < 40 + 2 * MAX_CONCURRENT, "no more are started after an error");
    }

    #[test]
    fn the_error_of_an_only_piece_and_of_a_last_piece_are_returned() {
        let pieces = Pieces::default();
        assert_eq!(
            run(try_for_each_concurrent([pieces.piece(0, 2, Err(0))].into_iter())).1,
            Err(0)
        );
        let futures = (0..100).map(|n| pieces.piece(n, 2, if n == 99 { Err(n) } else { Ok(()) }));
        assert_eq!(run(try_for_each_concurrent(futures)).1, Err(99));
    }

    #[test]
    fn pieces_end_with_the_call_that_is_given_up() {
        let pieces = Pieces::default();
        {
            let futures = (0..100).map(|n| pieces.piece(n, 10, Ok(())));
            let mut future = pin!(try_for_each_concurrent(futures));
            assert!(poll(future.as_mut()).is_pending());
            assert_eq!(pieces.running.get(), MAX_CONCURRENT);
        }
        assert_eq!(pieces.running.get(), 0);
    }

    #[test]
    fn join_gives_both_results_and_polls_neither_after_its_end() {
        for (a, b) in [(1, 1), (1, 4), (4, 1), (3, 3)] {
            let pieces = Pieces::default();
            let (polls, results) =
                run(join(pieces.piece(0, a, Ok(())), pieces.piece(1, b, Err(7))));
            assert_eq!((polls, results), (a.max(b), (Ok(()), Err(7))));
        }
    }
}
