//! Admit or refuse: one worker's listening sockets.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use super::outcome::{Cause, EndedBy};
use super::refusal::Refusal;
use super::session::Session;
use super::{Relay, Slots};
use crate::op::{Accepted, ListenerId, Op};
use crate::table::state::LogThrottle;

/// How long accepting pauses when the kernel has run out of something (EMFILE, ENFILE, ENOMEM, ENOBUFS).
const RETRY_MS: u64 = 200;

#[derive(Debug)]
pub(super) struct Listeners {
    /// Numbered as in operations. A slot is used again once its listener is closed.
    slots: Vec<Slot>,
    /// When to arm accept again after a failure; `u64::MAX`: nothing to retry.
    pub retry_at: u64,
    warnings: LogThrottle,
}

#[derive(Debug)]
struct Slot {
    accepting: Accepting,
    /// Names the listener for as long as it lives, whatever its place in the config.
    id: ListenerId,
    /// The config has it no longer: closed as soon as accept is not armed.
    removed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Idle,
    Armed,
    Stopping,
    Closed,
}

impl Listeners {
    pub fn new() -> Self {
        Listeners { slots: Vec::new(), retry_at: u64::MAX, warnings: LogThrottle::default() }
    }

    /// Those that a new config has: the others stop accepting. Returns the slots of the ones that are new.
    pub fn adopt(&mut self, ids: &[ListenerId], ops: &mut Vec<Op>) -> Vec<(ListenerId, u16)> {
        let is_known = |slot: &Slot, id| slot.id == id && slot.accepting != Accepting::Closed;
        let unknown = ids.iter().filter(|id| !self.slots.iter().any(|slot| is_known(slot, **id)));
        let unknown: Vec<ListenerId> = unknown.copied().collect();
        // Before any is closed: the close of a slot that is used again at once would hit the new listener.
        let new: Vec<_> = unknown.into_iter().map(|id| (id, self.allot_slot(id))).collect();
        for slot in &mut self.slots {
            slot.removed = !ids.contains(&slot.id);
        }
        self.stop(|slot| slot.removed, ops);
        new
    }

    fn allot_slot(&mut self, id: ListenerId) -> u16 {
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
    pub fn ended(
        &mut self,
        listener: u16,
        error: Option<io::Error>,
        (slots, draining): (Slots, bool),
        now: u64,
        ops: &mut Vec<Op>,
    ) {
        let slot = &mut self.slots[usize::from(listener)];
        slot.accepting = Accepting::Idle;
        if draining || slot.removed {
            slot.accepting = Accepting::Closed;
            ops.push(Op::CloseListener { listener });
        } else if let Some(error) = error {
            self.retry_at = now + RETRY_MS;
            self.warn(&error, now);
        } else if slots == Slots::Free {
            self.accept(ops);
        }
    }

    fn warn(&mut self, error: &io::Error, now: u64) {
        if let Some(suppressed) = self.warnings.tell(now) {
            tracing::warn!(%error, suppressed, "accept refused; trying again in {RETRY_MS} ms");
        }
    }

    /// Clients wait in the backlog now; the operator must know.
    pub fn warn_full(&mut self, sessions_max: usize, now: u64) {
        if self.warnings.opens(now) {
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
            session.refuse(Refusal::SessionsTaken, &mut cx);
            self.refused.join(index, &self.sessions);
        } else {
            self.silent.join(index, &self.sessions);
        }
        if self.slots() == Slots::Taken {
            self.shed_refused(ops);
            self.listeners.pause(ops);
        }
    }

    /// Ends the session of the client that has been silent for longest, if there is one. Returns whether there was.
    fn shed_silent(&mut self, ops: &mut Vec<Op>) -> bool {
        let Some(index) = self.silent.pop(&self.sessions) else { return false };
        let (session, mut cx) = self.enter(index, ops);
        session.end(EndedBy::Ringway, Cause::NoRequestAndOthersWait, &mut cx);
        true
    }

    /// The slots of those who have been refused are needed for others: whoever has had longest to read it ends, but for the
    /// one that has just come.
    fn shed_refused(&mut self, ops: &mut Vec<Op>) {
        if self.refused.len() > 1
            && let Some(index) = self.refused.pop(&self.sessions)
        {
            let (session, mut cx) = self.enter(index, ops);
            session.terminate(&mut cx);
        }
    }
}

/// Sessions that are in some state, or have been: whoever has joined first is the oldest.
#[derive(Debug)]
pub(super) struct Line {
    is_in: fn(&Session) -> bool,
    /// By slot and generation. Who has gone on is still in it, and passed over.
    joined: VecDeque<(u32, u16)>,
}

impl Line {
    pub fn new(is_in: fn(&Session) -> bool) -> Self {
        Line { is_in, joined: VecDeque::new() }
    }

    /// No more are kept than join while the oldest stays, however many come and go.
    fn join(&mut self, index: u32, sessions: &[Session]) {
        self.pass_over(sessions);
        self.joined.push_back((index, sessions[index as usize].generation()));
    }

    /// The oldest, which is in the line no more.
    fn pop(&mut self, sessions: &[Session]) -> Option<u32> {
        self.pass_over(sessions);
        self.joined.pop_front().map(|(index, _)| index)
    }

    fn pass_over(&mut self, sessions: &[Session]) {
        let has_gone_on = |(index, generation): &(u32, u16)| {
            let session = &sessions[*index as usize];
            session.generation() != *generation || !(self.is_in)(session)
        };
        while self.joined.front().is_some_and(has_gone_on) {
            self.joined.pop_front();
        }
    }

    fn len(&self) -> usize {
        self.joined.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strangers drive this: it must not grow with all who have ever come.
    #[test]
    fn field_a11_a_line_keeps_no_more_than_come_while_its_oldest_stays() {
        let lingering = |index, generation| Session::new(index, generation).lingers();
        let mut sessions: Vec<Session> = (0..3).map(|index| Session::new(index, 0)).collect();
        let mut line = Line::new(Session::is_lingering);
        for generation in 0..10_000 {
            sessions[0] = lingering(0, generation);
            line.join(0, &sessions);
            assert_eq!(line.len(), 1);
            sessions[0] = Session::new(0, generation + 1);
        }
        assert_eq!(line.pop(&sessions), None);
        for index in 0..3 {
            sessions[index as usize] = lingering(index, 20_000);
            line.join(index, &sessions);
        }
        sessions[1] = Session::new(1, 20_001);
        assert_eq!([(); 3].map(|()| line.pop(&sessions)), [Some(0), Some(2), None], "the oldest first");
    }
}
