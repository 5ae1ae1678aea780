//! What is done while receive buffers are short: who found none waits for one, and slow readers give theirs back.

use super::Relay;
use super::outcome::Cause;
use super::port::Receiving;
use crate::op::{ConnId, Op, Side};

/// How long those who wait for a buffer wait for their turn while there are buffers.
pub(super) const REARM_MS: u64 = 1;
/// Who has not taken a send in this time is slow.
pub(super) const SLOW_MS: u64 = 100;
/// While buffers are wanted back, how often slow readers are looked for, and what so many of them hold is copied at a time: that
/// is some milliseconds of nothing else.
const RECLAIM_MS: u64 = 50;
const COPIES_MAX: u32 = 64;
/// How often one slow reader is cut, if there is no memory to copy to. It has had this part of timeouts.send_stall.
const CUT_MS: u64 = 20;
const CUT_PART: u64 = 10;

impl Relay {
    /// Those who found no buffer try again, as many as there are buffers back.
    pub(super) fn rearm_starved(&mut self, ops: &mut Vec<Op>) {
        self.forget_starved();
        let mut room = self.shared.loans.small_left();
        while room > 0
            && let Some(conn) = self.shared.loans.starved.pop_front()
        {
            if self.is_starved(conn) {
                let (session, mut cx) = self.enter(conn.session(), ops);
                session.ports.of(conn.side()).receiving = Receiving::Idle;
                session.mark_dirty(&mut cx);
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
        session.generation() == conn.generation() && session.ports.of(conn.side()).receiving == Receiving::Starved
    }

    /// Slow readers hold buffers that others want: what waits for these readers is copied out of them, so that they keep no more
    /// than memory of their own, which is bounded too. Where that is used up, the one that holds most is cut.
    pub(super) fn reclaim_from_slow(&mut self, ops: &mut Vec<Op>) {
        if !self.shared.loans.is_pressed() || self.now < self.reclaim_at {
            return;
        }
        self.reclaim_at = self.now + RECLAIM_MS;
        let (mut copies, mut bytes) = (0, 0);
        let mut worst = None;
        for index in 0..self.sessions.len() as u32 {
            for side in [Side::Client, Side::Backend] {
                let (session, mut cx) = self.enter(index, ops);
                let buffers = session.slow_sink_buffers(side, cx.now, SLOW_MS);
                if buffers == 0 {
                    continue;
                }
                let more = session.ports.of(side).unkept_bytes();
                if !cx.shared.loans.may_keep(bytes + more) {
                    if session.slow_sink_buffers(side, cx.now, session.life.waits().send_stall / CUT_PART) > 0 {
                        worst = worst.max(Some((buffers, index, side == Side::Backend)));
                    }
                } else if copies < COPIES_MAX {
                    (copies, bytes) = (copies + 1, bytes + more);
                    session.ports.of(side).reclaim(&mut cx);
                    // What is granted to the other side was meant for a fast one.
                    session.mark_dirty(&mut cx);
                } else {
                    self.reclaim_at = self.now + REARM_MS;
                }
            }
        }
        if let Some((_, index, is_backend)) = worst.filter(|_| self.shared.loans.is_short() && self.now >= self.cut_at)
        {
            self.cut_at = self.now + CUT_MS;
            let (session, mut cx) = self.enter(index, ops);
            let side = if is_backend { Side::Backend } else { Side::Client };
            session.unsendable(side, Cause::SlowWhileShort, &mut cx);
        }
    }
}
