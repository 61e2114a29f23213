//! The two forms of a call: one waits for its operation, the other is told of its end by a
//! callback. Each operation is stated once, and run in the form that the program has called.

use std::ffi::{c_int, c_void};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::sd_t;
use super::last::{self, Kept};
use super::program;
use crate::cluster::Op;
use crate::error::{Error, Result};
use crate::exec::{Completion, Share};
use crate::vdi::Client;

/// cbindgen:ignore
pub type sd_callback_fn =
    Option<unsafe extern "C-unwind" fn(sd: sd_t, result: c_int, opaque: *mut c_void)>;

/// What the program wants to be told, and how.
pub struct Notice {
    sd: sd_t,
    callback: unsafe extern "C-unwind" fn(sd: sd_t, result: c_int, opaque: *mut c_void),
    opaque: *mut c_void,
}

// SAFETY: the program's function and pointer, to be used in the thread that dispatches; the handle
// is a number.
unsafe impl Send for Notice {}

impl Notice {
    pub fn new(sd: sd_t, callback: sd_callback_fn, opaque: *mut c_void) -> Result<Notice> {
        let callback = callback.ok_or(Error::Invalid("a pointer is NULL"))?;
        Ok(Notice { sd, callback, opaque })
    }

    pub fn sd(&self) -> sd_t {
        self.sd
    }

    pub fn give(self, about: Kept, result: Result<()>) {
        let result = last::of_request(about, result);
        // SAFETY: the program's function, called as the header says.
        program::call(|| unsafe { (self.callback)(self.sd, result, self.opaque) });
    }
}

/// How a call ends.
pub enum Form {
    /// By returning.
    Blocking,
    /// By a callback.
    Asynchronous(Notice),
}

impl Form {
    pub fn asynchronous(sd: sd_t, callback: sd_callback_fn, opaque: *mut c_void) -> Result<Form> {
        Notice::new(sd, callback, opaque).map(Form::Asynchronous)
    }

    pub fn is_asynchronous(&self) -> bool {
        matches!(self, Form::Asynchronous(_))
    }

    /// Takes what an operation with `bytes` of memory needs of the limit.
    pub fn begin(self, client: &Arc<Client>, bytes: usize) -> Result<Begun> {
        let told = match self {
            Form::Blocking => None,
            Form::Asynchronous(notice) => {
                Some(Told { notice, share: share(client, bytes)?, about: last::keep() })
            }
        };
        Ok(Begun { client: client.clone(), told, beyond: Duration::ZERO })
    }
}

/// What an asynchronous request with so many bytes takes of the limit.
pub fn share(client: &Client, bytes: usize) -> Result<Share> {
    client.cluster.budget.take(bytes).ok_or(Error::NoMem("the buffer limit"))
}

/// For an operation that gives the program nothing but its result.
pub fn nothing(_: ()) -> Result<()> {
    Ok(())
}

/// What an asynchronous request has until its callback.
struct Told {
    notice: Notice,
    share: Share,
    about: Kept,
}

/// An operation that can be started.
pub struct Begun {
    client: Arc<Client>,
    told: Option<Told>,
    beyond: Duration,
}

impl Begun {
    /// The operation keeps to its deadline by itself, and has so much time beyond it for what must
    /// not stay as it is then.
    pub fn beyond(self, time: Duration) -> Begun {
        Begun { beyond: time, ..self }
    }

    /// Runs `work`, or starts it. `done` gives the program what came of it: before the call
    /// returns, or in the thread that dispatches, before the callback.
    pub fn run<T, F>(
        self,
        work: impl FnOnce(Op) -> F + Send + 'static,
        done: impl FnOnce(T) -> Result<()> + Send + 'static,
    ) -> Result<()>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Begun { client, told, beyond } = self;
        let Some(Told { notice, share, about }) = told else {
            return done(client.cluster.run_beyond(beyond, async |op| work(*op).await)?);
        };
        let bounded = {
            let client = client.clone();
            move |op: Op| {
                let all = op.extended(beyond);
                async move { client.cluster.bounded(&all, pin!(work(op))).await }
            }
        };
        client.cluster.spawn(bounded, move |result| {
            let completion: Completion = Box::new(move || {
                let result = result.and_then(done);
                // Before the callback, so that it can submit the next one.
                drop(share);
                notice.give(about, result);
            });
            Some(completion)
        })
    }
}
