//! Admit or refuse: one worker's listening sockets.

use std::io;
use std::net::IpAddr;

use super::session::State;
use super::shared::Context;
use super::{Relay, Slots};
use crate::op::{Accepted, Op};

/// How long accepting pauses when the kernel has run out of something (EMFILE, ENFILE, ENOMEM, ENOBUFS).
const RETRY_MS: u64 = 200;
/// A warning about that is written at most once in this time.
const WARN_MS: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Listeners {
    /// Numbered as in operations. A slot is used again once its listener is closed.
    slots: Vec<Slot>,
    /// When to arm accept again after a failure; `u64::MAX`: nothing to retry.
    pub retry_at: u64,
    quiet_until: u64,
    suppressed: u32,
}

#[derive(Debug)]
struct Slot {
    accepting: Accepting,
    /// Names the listener for as long as it lives, whatever its place in the config.
    id: ListenerId,
    /// The config has it no longer: closed as soon as accept is not armed.
    removed: bool,
}

/// One listener from the moment it is bound until it is closed; given by whoever binds it.
pub type ListenerId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Idle,
    Armed,
    Stopping,
    Closed,
}

impl Listeners {
    pub fn new() -> Self {
        Listeners { slots: Vec::new(), retry_at: u64::MAX, quiet_until: 0, suppressed: 0 }
    }

    /// Those that a new config has: the others stop accepting. Returns the slots of the ones that are new.
    pub fn adopt(&mut self, ids: &[ListenerId], ops: &mut Vec<Op>) -> Vec<(ListenerId, u16)> {
        let is_known = |slot: &Slot, id| slot.id == id && slot.accepting != Accepting::Closed;
        let unknown = ids.iter().filter(|id| !self.slots.iter().any(|slot| is_known(slot, **id)));
        let unknown: Vec<ListenerId> = unknown.copied().collect();
        // Before any is closed: the close of a slot that is used again at once would hit the new listener.
        let new: Vec<_> = unknown.into_iter().map(|id| (id, self.seat(id))).collect();
        for slot in &mut self.slots {
            slot.removed = !ids.contains(&slot.id);
        }
        self.stop(|slot| slot.removed, ops);
        new
    }

    fn seat(&mut self, id: ListenerId) -> u16 {
        let slot = Slot { accepting: Accepting::Idle, id, removed: false };
        match self.slots.iter().position(|slot| slot.accepting == Accepting::Closed) {
            Some(free) => {
                self.slots[free] = slot;
                free as u16
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u16 - 1
            }
        }
    }

    /// Arms every listener that is not.
    pub fn accept(&mut self, ops: &mut Vec<Op>) {
        self.retry_at = u64::MAX;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.accepting == Accepting::Idle && !slot.removed {
                slot.accepting = Accepting::Armed;
                ops.push(Op::Accept { listener: number as u16 });
            }
        }
    }

    /// Stops accepting for the moment.
    pub fn pause(&mut self, ops: &mut Vec<Op>) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.accepting == Accepting::Armed {
                slot.accepting = Accepting::Stopping;
                ops.push(Op::StopAccept { listener: number as u16 });
            }
        }
    }

    /// Stops accepting for good.
    pub fn close(&mut self, ops: &mut Vec<Op>) {
        self.stop(|_| true, ops);
    }

    fn stop(&mut self, which: impl Fn(&Slot) -> bool, ops: &mut Vec<Op>) {
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| which(slot)) {
            let listener = number as u16;
            match slot.accepting {
                Accepting::Armed => {
                    slot.accepting = Accepting::Stopping;
                    ops.push(Op::StopAccept { listener });
                }
                Accepting::Idle => {
                    slot.accepting = Accepting::Closed;
                    ops.push(Op::CloseListener { listener });
                }
                Accepting::Stopping | Accepting::Closed => {}
            }
        }
    }

    pub fn all_closed(&self) -> bool {
        self.slots.iter().all(|slot| slot.accepting == Accepting::Closed)
    }

    pub fn id(&self, listener: u16) -> ListenerId {
        self.slots[usize::from(listener)].id
    }

    /// Accept is not armed any more.
    pub fn ended(&mut self, listener: u16, error: Option<io::Error>, slots: Slots, cx: &mut Context<'_>) {
        let slot = &mut self.slots[usize::from(listener)];
        slot.accepting = Accepting::Idle;
        if cx.shared.draining || slot.removed {
            slot.accepting = Accepting::Closed;
            cx.ops.push(Op::CloseListener { listener });
        } else if let Some(error) = error {
            self.retry_at = cx.now + RETRY_MS;
            self.warn(&error, cx.now);
        } else if slots == Slots::Free {
            self.accept(cx.ops);
        }
    }

    fn warn(&mut self, error: &io::Error, now: u64) {
        if now < self.quiet_until {
            self.suppressed += 1;
            return;
        }
        self.quiet_until = now + WARN_MS;
        tracing::warn!(%error, suppressed = self.suppressed, "accept refused; trying again in {RETRY_MS} ms");
        self.suppressed = 0;
    }

    /// Clients wait in the backlog now; the operator must know.
    pub fn warn_full(&mut self, sessions_max: usize, now: u64) {
        if now >= self.quiet_until {
            self.quiet_until = now + WARN_MS;
            tracing::warn!(
                sessions_max,
                "all sessions of this worker are taken; raise limits.sessions_max or RLIMIT_NOFILE"
            );
        }
    }
}

impl Relay {
    /// A client has connected: it gets a session, if only to be told 503.
    pub(super) fn accepted(&mut self, listener: u16, socket: Accepted, peer: Option<IpAddr>, ops: &mut Vec<Op>) {
        let slot = if self.shared.draining { None } else { self.take_slot() };
        let Some(index) = slot else {
            ops.push(Op::Refuse { socket });
            return;
        };
        // Whoever has said nothing yet has less of a claim than somebody who is new.
        let over_limit = self.occupied > self.plan.sessions_max && !self.shed_silent(ops);
        let listener = self.listeners.id(listener);
        self.begin_session(index, (listener, socket, peer), ops);
        if over_limit {
            self.listeners.warn_full(self.plan.sessions_max, self.now);
            let (session, mut cx) = self.enter(index, ops);
            session.refuse_at_accept(&mut cx);
            self.refused.push_back((index, self.sessions[index as usize].generation));
        } else {
            // So that no more of them are kept than come within timeouts.head.
            while self.silent.front().is_some_and(|(index, generation)| {
                let session = &self.sessions[*index as usize];
                session.generation != *generation || !session.is_silent()
            }) {
                self.silent.pop_front();
            }
            self.silent.push_back((index, self.sessions[index as usize].generation));
        }
        if self.slots() == Slots::Taken {
            self.shed_refused(ops);
            self.listeners.pause(ops);
        }
    }

    /// Ends the session of the client that has been silent for longest, if there is one. Returns whether there was.
    fn shed_silent(&mut self, ops: &mut Vec<Op>) -> bool {
        while let Some((index, generation)) = self.silent.pop_front() {
            let (session, mut cx) = self.enter(index, ops);
            if session.generation == generation && session.is_silent() {
                session.outcome.set("ringway", "no request, and others wait");
                session.terminate(&mut cx);
                return true;
            }
        }
        false
    }

    /// The slots of those who have been refused are needed for others: whoever has had longest to read it ends, but for the
    /// one that has just come.
    fn shed_refused(&mut self, ops: &mut Vec<Op>) {
        while self.refused.len() > 1
            && let Some((index, generation)) = self.refused.pop_front()
        {
            let (session, mut cx) = self.enter(index, ops);
            if session.generation == generation && matches!(session.state, State::Lingering) {
                session.terminate(&mut cx);
                return;
            }
        }
    }
}
