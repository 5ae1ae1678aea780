//! Those who wait: for a receive buffer, because slow readers hold them all, or for a backend, because their pool is full.

use super::{Receiving, Relay};
use crate::op::{ConnId, Op, Side};

/// How long those who wait for a buffer wait for their turn while there are buffers.
pub(super) const FEED_MS: u64 = 1;
/// How often those who wait for a backend ask whether there is one, if nothing tells them when there will be.
pub(super) const ADMIT_MS: u64 = 10;
/// So many of a queue who wait for some backends only are asked in vain before the rest of them is passed over.
const PICKY_MAX: usize = 32;
/// With no buffer left: how often one slow reader is cut.
const RELIEVE_MS: u64 = 20;

impl Relay {
    /// Those who found no buffer try again, as many as there are buffers back.
    pub(super) fn feed_starved(&mut self, ops: &mut Vec<Op>) {
        self.forget_starved();
        if self.shared.loans.is_exhausted() {
            self.relieve(ops);
        }
        let mut room = self.shared.loans.small_left();
        while room > 0
            && let Some(conn) = self.shared.loans.starved.pop_front()
        {
            if self.is_starved(conn) {
                let (session, mut cx) = self.enter(conn.session(), ops);
                session.end(conn.side()).receiving = Receiving::Idle;
                cx.unsettle(session);
                room -= 1;
            }
        }
    }

    /// Those at the front who have gone meanwhile need no buffer.
    fn forget_starved(&mut self) {
        while let Some(&conn) = self.shared.loans.starved.front()
            && !self.is_starved(conn)
        {
            self.shared.loans.starved.pop_front();
        }
    }

    fn is_starved(&mut self, conn: ConnId) -> bool {
        let session = &mut self.sessions[conn.session() as usize];
        session.generation == conn.generation() && session.end(conn.side()).receiving == Receiving::Starved
    }

    /// Everybody waits because slow readers hold all buffers: the one that holds most gives them back.
    fn relieve(&mut self, ops: &mut Vec<Op>) {
        if self.now < self.relieve_at {
            return;
        }
        self.relieve_at = self.now + RELIEVE_MS;
        let slowest = self.sessions.iter().filter_map(|session| session.hoarding(self.now)).max();
        if let Some((_, index, is_backend)) = slowest {
            let (session, mut cx) = self.enter(index, ops);
            let side = if is_backend { Side::Backend } else { Side::Client };
            session.send_failed(side, "too slow while buffers are short", &mut cx);
            cx.unsettle(session);
        }
    }

    /// Lets those in who wait at pools that have room again: the first of each queue, as long as that succeeds. Other workers
    /// make room too, so those who wait also ask from time to time, and as soon as a rate allows more.
    pub(super) fn admit_waiting(&mut self, ops: &mut Vec<Op>) {
        while !self.shared.current.crowded.is_empty()
            && (std::mem::take(&mut self.shared.room) || self.admit_at <= self.now)
        {
            self.admit_at = self.now + ADMIT_MS;
            for pool in self.shared.current.crowded.clone() {
                self.admit_from(pool, ops);
            }
            self.settle(ops);
        }
    }

    /// Who waits for some backends only, in vain, keeps its place, but nobody behind it.
    fn admit_from(&mut self, pool: usize, ops: &mut Vec<Op>) {
        let mut kept = 0;
        while let Some(&who) = self.shared.current.view(pool).queue.get(kept) {
            if who.picky && kept >= PICKY_MAX {
                kept += 1;
                continue;
            }
            let (session, mut cx) = self.enter(who.session, ops);
            let Err(wait) = session.take_turn(&mut cx) else { continue };
            self.admit_at = self.admit_at.min(self.now.saturating_add(wait));
            if !who.picky {
                break;
            }
            kept += 1;
        }
    }
}
