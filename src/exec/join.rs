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
