//! Waiting for the gateways: what the thread that leads does for everybody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::{Cluster, Core, End, Link, LinkId, LinkState, pending};
use crate::clock::Instant;
use crate::exec::{Lead, Parker, Reactor, Tasks, Turn, lock};
use crate::net::{Interest, Socket, interest, is_fault, is_retry, poll_sockets};

/// How long a blocking receive waits at most. Nothing can interrupt it, so this bounds how late
/// its thread learns of a deadline, or of a request that another thread could not send at once.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How long a wait in poll takes at most: it is interrupted by whatever happens.
const POLL_LIMIT: Duration = Duration::from_secs(60);
/// One receive call takes up to this much; what is larger goes to the caller's buffer directly.
const INBOX_LEN: usize = 64 * 1024;
/// After so much from one link others get a turn: the program's callbacks, and threads that want
/// to send.
const MAX_RECEIVED: usize = 2 << 20;

/// What the leader receives into, and whom it has to wake.
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    woken: Vec<Waker>,
}

impl Inbox {
    pub fn new() -> Inbox {
        Inbox { bytes: vec![0; INBOX_LEN].into(), woken: Vec::new() }
    }

    fn wake(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
    }
}

/// How the leader waits.
enum Plan {
    /// Somebody was woken without waiting.
    None,
    /// Not at all: a dispatch will come.
    Leave,
    /// In a receive on the only socket there is: one system call for wait and data.
    Recv(LinkId, Arc<Socket>),
    Poll(Vec<(LinkId, Arc<Socket>, Interest)>, Duration),
}

impl Reactor for Cluster {
    fn lead(&self) -> &Lead {
        &self.lead
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn turn(&self, me: &Parker, alone: bool) -> Turn {
        let mut inbox = lock(&self.inbox);
        let inbox = &mut *inbox;
        let plan = self.plan(inbox, alone);
        inbox.wake();
        match plan {
            Plan::None => {}
            Plan::Leave => return Turn::Leave,
            Plan::Recv(..) if me.is_woken() => {}
            Plan::Recv(link, socket) => {
                let received = socket.recv(&mut inbox.bytes, true);
                self.received(link, received, inbox);
            }
            Plan::Poll(links, timeout) => {
                let mut events = Vec::new();
                me.interruptible(&self.wake, || events = self.poll(&links, timeout));
                lock(&self.core).polling = None;
                if events.iter().any(|ready| ready.contains(Interest::IN)) && self.is_anothers() {
                    return Turn::Leave;
                }
                for ((link, socket, _), ready) in links.iter().zip(events) {
                    self.ready(*link, socket, ready, inbox);
                }
            }
        }
        inbox.wake();
        Turn::Done
    }

    fn left(&self, seen_to: bool) {
        let missed = match seen_to {
            true => 0,
            false => (2 * self.missed.load(Ordering::Relaxed)).clamp(MISSED_MIN, MISSED_MAX),
        };
        self.missed.store(missed, Ordering::Relaxed);
        if !seen_to {
            let dispatches = self.dispatches.load(Ordering::Relaxed);
            self.courteous_from.store(dispatches + missed, Ordering::Relaxed);
        }
    }
}

/// Dispatches that must come before one is waited for again where one did not come: the more, the
/// more often that has happened.
const MISSED_MIN: usize = 8;
const MISSED_MAX: usize = 8192;

impl Cluster {
    /// Whether what has come is better received by a dispatch than by a leader: as long as there are
    /// asynchronous requests, and somebody dispatches. What a leader receives of them a dispatch has
    /// to be woken for, and that goes on in bits: each answer that is received at once makes a
    /// request that is sent alone.
    fn is_anothers(&self) -> bool {
        let dispatches = self.dispatches.load(Ordering::Relaxed);
        dispatches > self.courteous_from.load(Ordering::Relaxed)
            && self.tasks.are_there()
            && !self.tasks.agenda.is_calling_here()
    }

    /// Sends what can be sent, fires what is due, and says how to wait for more.
    fn plan(&self, inbox: &mut Inbox, alone: bool) -> Plan {
        let mut core = lock(&self.core);
        let now = Instant::now();
        let mut next = core.look_at_the_time(now, &mut inbox.woken);
        if self.flush_all(&mut core, &mut inbox.woken) {
            next = core.next_at();
        }
        if !inbox.woken.is_empty() {
            return Plan::None;
        }
        // To be woken together with whoever dispatches, and to find that out, costs both.
        if self.is_anothers() {
            return Plan::Leave;
        }
        let until = next.map_or(now + POLL_LIMIT, |at| at.min(now + POLL_LIMIT));
        let mut links = core.links.iter().filter(|(_, l)| !matches!(l.state, LinkState::Down(..)));
        if alone
            && until >= now + TICK
            && let (Some((key, link)), None) = (links.next(), links.next())
            && matches!(link.state, LinkState::Up)
            && !link.stuck
            && core.events.is_none()
        {
            return Plan::Recv(LinkId { key, serial: link.serial }, link.socket.clone());
        }
        let links = core.links.iter().filter_map(|(key, link)| {
            let interest = match link.state {
                LinkState::Connecting(_) => interest(false, true),
                LinkState::Up => interest(true, link.stuck),
                LinkState::Draining(_) => interest(true, false),
                LinkState::Down(..) => return None,
            };
            Some((LinkId { key, serial: link.serial }, link.socket.clone(), interest))
        });
        let links = links.collect();
        core.polling = Some(until);
        Plan::Poll(links, until - now)
    }

    /// Which of `links` are ready, in their order.
    fn poll(&self, links: &[(LinkId, Arc<Socket>, Interest)], timeout: Duration) -> Vec<Interest> {
        let sockets = links.iter().map(|(_, socket, interest)| (&**socket, *interest));
        match poll_sockets(&self.wake, sockets, timeout) {
            Ok(ready) => ready,
            Err(e) => {
                // Out of memory, at worst: a receive tells for itself whether there is something.
                log::error!("poll: {e}");
                links.iter().map(|(_, _, interest)| *interest & Interest::IN).collect()
            }
        }
    }

    /// Does what there is to do without waiting.
    pub(super) fn turn_now(&self) {
        let mut inbox = lock(&self.inbox);
        let inbox = &mut *inbox;
        let links: Vec<(LinkId, Arc<Socket>, bool)> = {
            let mut core = lock(&self.core);
            let now = Instant::now();
            core.look_at_the_time(now, &mut inbox.woken);
            self.flush_all(&mut core, &mut inbox.woken);
            let links = core.links.iter().filter_map(|(key, link)| {
                let up = match link.state {
                    LinkState::Up | LinkState::Draining(_) => true,
                    LinkState::Connecting(_) => false,
                    LinkState::Down(..) => return None,
                };
                Some((LinkId { key, serial: link.serial }, link.socket.clone(), up))
            });
            links.collect()
        };
        for (link, socket, up) in links {
            if up {
                let mut total = 0;
                loop {
                    let received = socket.recv(&mut inbox.bytes, false);
                    let full = received.as_ref().is_ok_and(|n| *n == INBOX_LEN);
                    total += self.received(link, received, inbox);
                    if !full || total >= MAX_RECEIVED {
                        break;
                    }
                }
            } else {
                let polled = poll_sockets(
                    &self.wake,
                    [(&*socket, Interest::OUT)].into_iter(),
                    Duration::ZERO,
                );
                if let Ok(events) = polled {
                    self.ready(link, &socket, events[0], inbox);
                }
            }
        }
        inbox.wake();
    }

    /// Wakes whom the time concerns.
    pub(super) fn look_at_the_time(&self) {
        let mut woken = Vec::new();
        lock(&self.core).look_at_the_time(Instant::now(), &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }

    /// What the callbacks of a dispatch asked for goes out together.
    pub(super) fn send_all(&self) {
        let mut woken = Vec::new();
        {
            let mut core = lock(&self.core);
            self.flush_all(&mut core, &mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Sends what the peers take now. Whether anything happened to any link.
    fn flush_all(&self, core: &mut Core, woken: &mut Vec<Waker>) -> bool {
        if std::mem::take(&mut core.unsent) {
            self.tasks.agenda.set_unsent(false);
        }
        // Mostly there is one, which has nothing to say.
        let current = core.current.map(|current| current.key);
        let is_quiet = |key, link: &Link| {
            Some(key) == current && !link.wire.has_outgoing() && !link.wire.has_news()
        };
        let busy = core.links.iter().filter(|(key, link)| !is_quiet(*key, link));
        let busy: Vec<usize> = busy.map(|(key, _)| key).collect();
        for key in &busy {
            core.flush(*key);
            core.collect(*key, woken);
        }
        !busy.is_empty()
    }

    /// Has the event loop call dispatch.
    pub(super) fn ask_for_dispatch(&self, core: &mut Core) {
        if !std::mem::replace(&mut core.unsent, true) {
            self.tasks.agenda.set_unsent(true);
        }
    }

    fn ready(&self, id: LinkId, socket: &Arc<Socket>, events: Interest, inbox: &mut Inbox) {
        if events.is_empty() {
            return;
        }
        let mut core = lock(&self.core);
        let Some(link) = core.get(id) else { return };
        match &mut link.state {
            LinkState::Connecting(waiters) => {
                let waiters = waiters.take();
                match socket.finish_connect(TICK) {
                    Ok(()) => {
                        link.state = LinkState::Up;
                        core.watch(id.key);
                        inbox.woken.extend(waiters);
                    }
                    Err(e) => {
                        inbox.woken.extend(waiters);
                        core.fail(id.key, e.into());
                        core.collect(id.key, &mut inbox.woken);
                    }
                }
            }
            // What can be sent is sent by the next plan.
            LinkState::Up if events == Interest::OUT => {}
            LinkState::Up | LinkState::Draining(_) => {
                drop(core);
                let received = socket.recv(&mut inbox.bytes, false);
                self.received(id, received, inbox);
            }
            LinkState::Down(..) => {}
        }
    }

    /// Bytes have come in on a link, or its end. How many, with those that were received directly
    /// then.
    fn received(&self, id: LinkId, received: io::Result<usize>, inbox: &mut Inbox) -> usize {
        let mut core = lock(&self.core);
        let Some(link) = core.get(id) else { return 0 };
        let up = matches!(link.state, LinkState::Up);
        if received.as_ref().is_ok_and(|n| *n > 0) {
            core.heard(id, &mut inbox.woken);
        }
        let fed = match received {
            Ok(0) => Err(End::Closed),
            Ok(n) if up => {
                let fed = core.links[id.key].wire.feed(&inbox.bytes[..n]);
                fed.map(|()| n).map_err(End::Corrupt)
            }
            // Nobody waits for it any more.
            Ok(n) => Ok(n),
            Err(e) if is_retry(&e) => return 0,
            Err(e) => Err(e.into()),
        };
        let result = fed.and_then(|n| Ok(n + core.receive_direct(id.key, &mut inbox.bytes)?));
        let total = result.unwrap_or_else(|end| {
            core.fail(id.key, end);
            0
        });
        core.note_epoch(id.key);
        core.collect(id.key, &mut inbox.woken);
        total
    }
}

impl Core {
    fn note_epoch(&mut self, key: usize) {
        let epoch = self.links[key].wire.epoch();
        if epoch > self.epoch {
            let is_first = std::mem::replace(&mut self.epoch, epoch) == 0;
            self.epoch_changed = if is_first { None } else { Some(Instant::now()) };
        }
    }

    /// While large payloads are coming in, receives them where they belong. How many bytes.
    fn receive_direct(&mut self, key: usize, scratch: &mut [u8]) -> Result<usize, End> {
        let link = &mut self.links[key];
        let mut total = 0;
        while total < MAX_RECEIVED {
            let Some((buf, range)) = link.wire.direct() else { break };
            let wanted = range.len();
            match link.socket.recv_scattered(buf, range, scratch) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => {
                    total += n;
                    link.wire.filled(n.min(wanted));
                    if n > wanted {
                        link.wire.feed(&scratch[..n - wanted]).map_err(End::Corrupt)?;
                    }
                }
                Err(e) if is_retry(&e) => break,
                Err(e) if is_fault(&e) => link.wire.fault_body(),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(total)
    }

    /// After anything happened to a link: takes the wakers of its finished requests, notes which
    /// of those that were given up are over, and lets go of a link that is of no more use.
    pub(super) fn collect(&mut self, key: usize, woken: &mut Vec<Waker>) {
        let link = &mut self.links[key];
        let id = LinkId { key, serial: link.serial };
        let late = link.wire.take_late();
        if !late.is_empty() {
            for (request, reply) in late {
                self.pending.answered(id, request, reply);
            }
            woken.append(&mut self.pending.waiters.take());
        }
        let link = &mut self.links[key];
        link.wire.take_woken(woken);
        let of_no_use = match link.state {
            LinkState::Up => self.current.is_some_and(|current| current != id) && !link.greeting,
            LinkState::Draining(_) => true,
            LinkState::Connecting(_) | LinkState::Down(..) => false,
        };
        if of_no_use && link.wire.in_flight() == 0 && !self.pending.has_open(id) {
            link.socket.shutdown();
            link.state = LinkState::Down("not needed".into(), pending::End::Closed(Instant::now()));
            self.watch(key);
        }
        self.forget_if_done(key);
    }
}
