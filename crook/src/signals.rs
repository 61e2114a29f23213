//! SIGINT and SIGTERM: the first one is told to whoever is at work, the second one ends the program.

use std::future::poll_fn;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::{io, process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Clone, Default)]
pub struct Interrupts(Arc<State>);

#[derive(Default)]
struct State {
    signal: AtomicI32,
    waker: Mutex<Option<Waker>>,
}

impl Interrupts {
    pub fn watch() -> io::Result<Interrupts> {
        let interrupts = Interrupts::default();
        let state = interrupts.0.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::spawn(move || {
            for signal in signals.forever() {
                if state.signal.swap(signal, Ordering::SeqCst) != 0 {
                    process::exit(128 + signal);
                }
                let waker = state.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        });
        Ok(interrupts)
    }

    /// Waits for the first signal.
    pub async fn wait(&self) -> i32 {
        poll_fn(|cx| {
            let mut waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
            match self.0.signal.load(Ordering::SeqCst) {
                0 => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                signal => Poll::Ready(signal),
            }
        })
        .await
    }
}
