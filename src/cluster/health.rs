//! Whether a gateway still answers (protocol.md 5.15): one that owes answers and is quiet is asked
//! something that it answers from itself, and passed over while it does not. It is not taken for
//! dead, whatever it does: its link stays, and it comes back with the first byte that it sends.

use std::task::Waker;
use std::time::Duration;

use sheepdog_proto::header::ObjArm;
use sheepdog_proto::{Request, SdResult, Vid, op};

use super::{Core, Link, LinkId, LinkState, Op};
use crate::clock::Instant;
use crate::net::SendBuf;
use crate::wire::{Dest, Id};

/// How long a link may owe answers and say nothing.
const QUIET: Duration = Duration::from_secs(3);
/// How long the answer to a probe may take.
const PROBE: Duration = Duration::from_secs(1);

/// A request that touches nothing, and that a gateway answers without asking any other node: not
/// even one that hangs delays it. Of VDI 0, which no cluster has (3.3).
pub(super) fn probe() -> Request {
    let arm = ObjArm { oid: Vid::NONE.inode().0.into(), ..Default::default() };
    Request::new(op::FLUSH_VDI, 0, arm)
}

/// Whether an answer to [`probe`] is that of a formatted cluster. A server without a cache calls
/// the request invalid (4.8); one that is not formatted looks at nothing before that (4.1).
pub(super) fn is_well(result: SdResult) -> bool {
    matches!(result, SdResult::SUCCESS | SdResult::INVALID_PARMS | SdResult::NO_OBJ)
}

impl Link {
    /// Queues a request of an operation.
    pub(super) fn submit(
        &mut self,
        op: &Op,
        request: Request,
        payload: SendBuf,
        dest: Dest,
    ) -> Option<Id> {
        if self.wire.awaiting() == 0 {
            // Too early where the operation has waited for something else: that costs a probe.
            self.asked = op.started;
        }
        self.wire.submit(request, payload, dest)
    }

    /// When it is to be looked at, if nothing comes until then.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.silent || !matches!(self.state, LinkState::Up) || self.wire.awaiting() == 0 {
            return None;
        }
        Some(match self.probed {
            Some(at) => at + PROBE,
            None => self.asked.max(self.last_received) + QUIET,
        })
    }
}

impl Core {
    /// When something is to be done though nothing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let links = self.links.iter().filter_map(|(_, link)| link.due());
        links.chain(self.timers.next_at()).min()
    }

    /// Does what is due by now. When something is due next.
    pub(super) fn look_at_the_time(
        &mut self,
        now: Instant,
        woken: &mut Vec<Waker>,
    ) -> Option<Instant> {
        let next = self.next_at();
        if next.is_none_or(|at| at > now) {
            self.timer_fired(now);
            return next;
        }
        self.timers.take_due(now, woken);
        let due = self.links.iter().filter(|(_, link)| link.due().is_some_and(|at| at <= now));
        let due: Vec<usize> = due.map(|(key, _)| key).collect();
        for key in due {
            self.look_at(key, now, woken);
        }
        self.timer_fired(now);
        self.next_at()
    }

    fn look_at(&mut self, key: usize, now: Instant, woken: &mut Vec<Waker>) {
        let link = &mut self.links[key];
        if link.probed.is_none() {
            link.probed = Some(now);
            link.wire.notify(probe());
            return;
        }
        link.silent = true;
        // Those who may ask another gateway do.
        link.wire.wake_all();
        link.wire.take_woken(woken);
        if self.current == Some(LinkId { key, serial: link.serial }) {
            self.current = None;
        }
    }

    /// Something came on a link.
    pub(super) fn heard(&mut self, id: LinkId, woken: &mut Vec<Waker>) {
        let current = self.current.and_then(|current| self.get(current)).map(|link| link.gateway);
        let Some(link) = self.get(id) else { return };
        link.last_received = Instant::now();
        (link.probed, link.silent) = (None, false);
        // One that was passed over is back; gateways are preferred in the order of their list.
        let usable = !link.greeting && matches!(link.state, LinkState::Up);
        if usable && current.is_none_or(|current| link.gateway < current) {
            self.make_current(id);
            woken.append(&mut self.connect_waiters.take());
        }
    }
}
