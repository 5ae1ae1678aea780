//! State: values in, operations out. No I/O, no clock, no dice of its own.
//!
//! [`session`] is what all of it is about: it goes through stages, which own their data and say what follows. The stages, in
//! data-path order: [`listener`] admits, [`head`] reads the request, [`dial`] finds a backend, [`answer`] asks it, and
//! [`tunnel`] moves frames, or [`exchange`] another answer than 101, until [`linger`]. All stand on [`port`] (a socket and what
//! waits for it) and [`life`] (what holds whatever the stage).
//! [`crate::table`] is what the control plane hands over: routes, pools and backends.
#![forbid(unsafe_code)]

mod listener;

mod session;

mod stage;

mod life;

mod head;

mod dial;

mod answer;

mod tunnel;

mod exchange;

mod linger;

mod request;

mod route;

mod hops;

mod upload;

mod feedback;

mod policy;

mod current;

pub mod balance;

mod queue;

mod shortage;

mod flow;

mod close;

mod port;

mod booking;

mod notice;

mod refusal;

mod outcome;

mod context;

mod loans;

mod outbox;

mod timers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{OnLoss, Plan, millis};
use crate::metrics::Metrics;
use crate::op::{Accepted, Completion, ConnId, ListenerId, Op};
use crate::table::Table;
use crate::table::state::BackendState;
use context::{Context, Shared};
use current::Current;
use listener::{Line, Listeners};
use notice::Notice;
use outcome::{Cause, EndedBy};
use session::Session;
use stage::Event;

/// One worker's sessions.
///
/// Calling order: [`adopt`](Relay::adopt) the first table, and later each newer one; for each batch of completions [`handle`](Relay::handle) each and
/// [`handle_timeout`](Relay::handle_timeout) last, which also asks for what the batch has made necessary, so that what
/// arrived together leaves together. Wait no longer than [`poll_timeout`](Relay::poll_timeout).
/// [`drain`](Relay::drain) and [`stop`](Relay::stop) count as completions.
#[derive(Debug)]
pub struct Relay {
    sessions: Vec<Session>,
    /// Slots that are free, most recently used last.
    free: Vec<u32>,
    occupied: usize,
    /// Who has been accepted and has not said anything yet, and who has been told that all slots are taken.
    silent: Line,
    refused: Line,
    plan: Plan,
    listeners: Listeners,
    shared: Shared,
    /// Time is counted in milliseconds from here.
    epoch: Instant,
    last_seen: Instant,
    now: u64,
    /// When draining ends, whatever is still open.
    drain_until: u64,
    /// When slow readers are looked for next, and when the next of them may be cut.
    reclaim_at: u64,
    cut_at: u64,
    /// When those who wait for a backend ask again.
    admit_at: u64,
}

/// Sessions that are to leave a backend.
#[derive(Clone, Debug)]
pub struct Leave {
    pub backend: Arc<BackendState>,
    pub on_loss: OnLoss,
    /// Over which time their Closes are spread.
    pub spread: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slots {
    Free,
    Taken,
}

impl Relay {
    pub fn new(table: Arc<Table>, plan: Plan, metrics: Arc<Metrics>, seed: u64) -> Relay {
        let slots = plan.sessions_max + plan.refusals_max;
        assert!(slots <= ConnId::SESSIONS_MAX, "the plan names more sessions than a ConnId can");
        Relay {
            // Reserved, not touched: memory is used as sessions come.
            sessions: Vec::with_capacity(slots),
            free: Vec::new(),
            occupied: 0,
            silent: Line::new(Session::is_silent),
            refused: Line::new(Session::is_lingering),
            plan,
            listeners: Listeners::new(),
            epoch: table.epoch,
            last_seen: table.epoch,
            shared: Shared::new(Current::new(table, &[], None), plan, metrics, seed),
            now: 0,
            drain_until: u64::MAX,
            reclaim_at: 0,
            cut_at: 0,
            admit_at: 0,
        }
    }

    /// The newest table, the first one included, and the listeners of its config in the config's order. Returns in which
    /// slots those are that are new: the engine must know them before it sees these operations.
    ///
    /// New sessions use it. Those that are open keep what they were routed with; those that wait are routed once more.
    pub fn adopt(
        &mut self,
        table: Arc<Table>,
        listeners: &[ListenerId],
        now: Instant,
        ops: &mut Vec<Op>,
    ) -> Vec<(ListenerId, u16)> {
        self.set_clock(now);
        let waiting = self.shared.current.disband();
        self.shared.current = Current::new(table, listeners, Some(&self.shared.current));
        self.requeue(waiting, ops);
        if self.shared.draining {
            return Vec::new();
        }
        let new = self.listeners.adopt(listeners, ops);
        if self.slots() == Slots::Free {
            self.listeners.accept(ops);
        }
        new
    }

    /// At once and in their order: what else has happened to them in this batch must not change that, and nobody who has
    /// come in it may be before them.
    fn requeue(&mut self, waiting: Vec<u32>, ops: &mut Vec<Op>) {
        for index in waiting {
            let (session, mut cx) = self.enter(index, ops);
            session.requeue();
            if session.reconcile(&mut cx) {
                self.free_slot(index, ops);
            }
        }
    }

    /// The sessions of a backend that is down or drained end, spread over so many milliseconds.
    pub fn move_away(&mut self, leave: &Leave, now: Instant, ops: &mut Vec<Op>) {
        self.set_clock(now);
        let notice = match leave.on_loss {
            OnLoss::Keep => return,
            OnLoss::Restart => Notice::BackendRestarts,
            OnLoss::GoingAway => Notice::BackendLeaves,
        };
        for index in 0..self.sessions.len() as u32 {
            let session = &self.sessions[index as usize];
            if session.life.booking.is_some()
                && session.life.chosen.as_ref().is_some_and(|chosen| Arc::ptr_eq(&chosen.state, &leave.backend))
            {
                let (session, mut cx) = self.enter(index, ops);
                session.on(Event::Move(notice, millis(leave.spread)), &mut cx);
            }
        }
    }

    /// Of pools where newcomers have gone home past others of their key, those others follow.
    fn bring_home(&mut self, ops: &mut Vec<Op>) {
        for number in self.shared.current.split_pools(self.now) {
            for index in 0..self.sessions.len() as u32 {
                let (session, mut cx) = self.enter(index, ops);
                if session.is_away(number, &mut cx) {
                    let spread = cx.shared.current.table.pools[number].config.sessions.close_spread;
                    session.on(Event::Move(Notice::Home, millis(spread)), &mut cx);
                }
            }
        }
    }

    /// Takes in what the kernel answered.
    pub fn handle(&mut self, completion: Completion<'_>, now: Instant, ops: &mut Vec<Op>) {
        self.set_clock(now);
        match completion {
            Completion::Received { conn, lease, bytes, wire_bytes, more } => {
                let (session, mut cx) = self.enter_conn(conn, ops);
                if let Some(lease) = &lease {
                    cx.lent(lease);
                }
                session.received(conn.side(), bytes, lease.into(), (wire_bytes, more), &mut cx);
            }
            Completion::Sent { conn, result, pieces } => {
                let (session, mut cx) = self.enter_conn(conn, ops);
                session.sent(conn.side(), result, pieces, &mut cx);
            }
            Completion::Copied { conn, bytes, pieces } => {
                let (session, mut cx) = self.enter_conn(conn, ops);
                session.copied(conn.side(), bytes, pieces, &mut cx);
            }
            Completion::ReceiveEnded { conn, why } => {
                let (session, mut cx) = self.enter_conn(conn, ops);
                session.receive_ended(conn.side(), why, &mut cx);
            }
            Completion::Connected { conn, result } => {
                let (session, mut cx) = self.enter_conn(conn, ops);
                session.connected(result, &mut cx);
            }
            Completion::Accepted { listener, socket, peer, .. } => {
                self.accepted(listener, socket, peer.map(|peer| peer.ip()), ops);
            }
            Completion::AcceptEnded { listener, error } => {
                let slots = self.slots();
                self.listeners.ended(listener, error, (slots, self.shared.draining), self.now, ops);
            }
            // Nobody has asked for that.
            Completion::Released { socket, .. } => ops.push(Op::Refuse { socket }),
            Completion::Woken => self.bring_home(ops),
        }
    }

    /// Lets deadlines come, and asks for everything that this batch has made necessary.
    pub fn handle_timeout(&mut self, now: Instant, ops: &mut Vec<Op>) {
        self.expire(now, ops);
        self.reclaim_from_slow(ops);
        self.flush(now, ops);
    }

    /// Asks for everything that this batch has made necessary, and lets no deadline come: for a worker that has not run for
    /// some time, and does not know yet what has come meanwhile.
    pub fn flush(&mut self, now: Instant, ops: &mut Vec<Op>) {
        self.set_clock(now);
        self.rearm_starved(ops);
        self.reconcile(ops);
        self.admit_waiting(ops);
    }

    fn expire(&mut self, now: Instant, ops: &mut Vec<Op>) {
        self.set_clock(now);
        while let Some(index) = self.shared.timers.pop(self.now) {
            let (session, mut cx) = self.enter(index, ops);
            session.handle_timeout(&mut cx);
        }
        if self.listeners.retry_at <= self.now && !self.shared.draining {
            // With all slots taken, the next one to become free arms accept.
            self.listeners.retry_at = u64::MAX;
            if self.slots() == Slots::Free {
                self.listeners.accept(ops);
            }
        }
        if self.drain_until <= self.now {
            self.terminate_all(ops);
        }
    }

    /// When `handle_timeout` is due, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let listeners = if self.shared.draining { u64::MAX } else { self.listeners.retry_at };
        // Those who got their turn may have had nothing to receive: then the next ones come without any completion.
        let starved = if self.shared.loans.can_rearm() { self.now + shortage::REARM_MS } else { u64::MAX };
        let relief =
            if self.shared.loans.is_pressed() { self.reclaim_at.max(self.now + shortage::REARM_MS) } else { u64::MAX };
        let queues = if self.shared.current.pools_with_waiters.is_empty() { u64::MAX } else { self.admit_at };
        let timers = self.shared.timers.next().unwrap_or(u64::MAX);
        let next = [timers, listeners, self.drain_until, starved, relief, queues].into_iter().min().unwrap_or(u64::MAX);
        (next != u64::MAX).then(|| self.epoch + Duration::from_millis(next))
    }

    /// SIGTERM: accept no more, tell everybody, and end when the last has gone or time is up.
    pub fn drain(&mut self, now: Instant, ops: &mut Vec<Op>) {
        self.set_clock(now);
        if self.shared.draining {
            return;
        }
        self.shared.draining = true;
        self.drain_until = self.now + millis(self.shared.config().timeouts.drain);
        self.listeners.close(ops);
        for index in 0..self.sessions.len() as u32 {
            let (session, mut cx) = self.enter(index, ops);
            session.on(Event::Drain, &mut cx);
        }
    }

    /// SIGINT, or a second SIGTERM: everything ends now.
    pub fn stop(&mut self, now: Instant, ops: &mut Vec<Op>) {
        self.drain(now, ops);
        self.terminate_all(ops);
    }

    /// Nothing is left to do: the worker may end.
    pub fn is_drained(&self) -> bool {
        self.shared.draining && self.occupied == 0 && self.listeners.all_closed()
    }

    /// Buffers that are the engine's and not yet back with it.
    pub fn leases(&self) -> usize {
        self.shared.loans.total()
    }

    fn begin_session(
        &mut self,
        index: u32,
        (listener, socket, peer): (ListenerId, Accepted, Option<IpAddr>),
        ops: &mut Vec<Op>,
    ) {
        self.shared.metrics.accepted.add(1);
        self.shared.metrics.sessions.add(1);
        let (session, mut cx) = self.enter(index, ops);
        let entry = cx.shared.current.entry.clone();
        session.begin(listener, socket, (peer, entry), &mut cx);
    }

    fn take_slot(&mut self) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.sessions.len() < self.plan.sessions_max + self.plan.refusals_max => {
                self.sessions.push(Session::new(self.sessions.len() as u32, 0));
                self.sessions.len() as u32 - 1
            }
            None => return None,
        };
        self.occupied += 1;
        Some(index)
    }

    fn slots(&self) -> Slots {
        if self.occupied < self.plan.sessions_max + self.plan.refusals_max { Slots::Free } else { Slots::Taken }
    }

    fn reconcile(&mut self, ops: &mut Vec<Op>) {
        while let Some(index) = self.shared.dirty.pop() {
            let (session, mut cx) = self.enter(index, ops);
            if session.reconcile(&mut cx) {
                self.free_slot(index, ops);
            }
        }
    }

    fn free_slot(&mut self, index: u32, ops: &mut Vec<Op>) {
        self.shared.metrics.ended.add(1);
        self.shared.metrics.sessions.sub(1);
        let was_full = self.slots() == Slots::Taken;
        self.free.push(index);
        self.occupied -= 1;
        if was_full && !self.shared.draining {
            self.listeners.accept(ops);
        }
    }

    fn terminate_all(&mut self, ops: &mut Vec<Op>) {
        self.drain_until = u64::MAX;
        for index in 0..self.sessions.len() as u32 {
            let (session, mut cx) = self.enter(index, ops);
            session.end(EndedBy::Ringway, Cause::Stopped, &mut cx);
        }
    }

    fn set_clock(&mut self, now: Instant) {
        if now != self.last_seen {
            self.last_seen = now;
            self.now = millis(now.saturating_duration_since(self.epoch)).max(self.now);
        }
    }

    fn enter<'a>(&'a mut self, index: u32, ops: &'a mut Vec<Op>) -> (&'a mut Session, Context<'a>) {
        let session = &mut self.sessions[index as usize];
        let client = session.client();
        (session, Context { client, shared: &mut self.shared, ops, now: self.now })
    }

    fn enter_conn<'a>(&'a mut self, conn: ConnId, ops: &'a mut Vec<Op>) -> (&'a mut Session, Context<'a>) {
        let (session, cx) = self.enter(conn.session(), ops);
        assert!(session.generation() == conn.generation(), "completion for {conn:?}, a socket that was closed");
        (session, cx)
    }
}
