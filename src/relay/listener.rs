//! Admit or refuse: one worker's listening sockets.

use std::io;
use std::net::IpAddr;

use super::shared::Context;
use super::{Relay, Slots};
use crate::op::{Accepted, Op};

/// How long accepting pauses when the kernel has run out of something (EMFILE, ENFILE, ENOMEM, ENOBUFS).
const RETRY_MS: u64 = 200;
/// A warning about that is written at most once in this time.
const WARN_MS: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Listeners {
    accepting: Vec<Accepting>,
    /// When to arm accept again after a failure; `u64::MAX`: nothing to retry.
    pub retry_at: u64,
    quiet_until: u64,
    suppressed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Idle,
    Armed,
    Stopping,
    Closed,
}

impl Listeners {
    pub fn new(count: usize) -> Self {
        Listeners { accepting: vec![Accepting::Idle; count], retry_at: u64::MAX, quiet_until: 0, suppressed: 0 }
    }

    /// Arms every listener that is not.
    pub fn accept(&mut self, ops: &mut Vec<Op>) {
        self.retry_at = u64::MAX;
        for (number, accepting) in self.accepting.iter_mut().enumerate() {
            if *accepting == Accepting::Idle {
                *accepting = Accepting::Armed;
                ops.push(Op::Accept { listener: number as u16 });
            }
        }
    }

    /// Stops accepting for the moment, or for good.
    pub fn pause(&mut self, draining: bool, ops: &mut Vec<Op>) {
        for (number, accepting) in self.accepting.iter_mut().enumerate() {
            let listener = number as u16;
            match *accepting {
                Accepting::Armed => {
                    *accepting = Accepting::Stopping;
                    ops.push(Op::StopAccept { listener });
                }
                Accepting::Idle if draining => {
                    *accepting = Accepting::Closed;
                    ops.push(Op::CloseListener { listener });
                }
                Accepting::Idle | Accepting::Stopping | Accepting::Closed => {}
            }
        }
    }

    pub fn all_closed(&self) -> bool {
        self.accepting.iter().all(|accepting| *accepting == Accepting::Closed)
    }

    /// Accept is not armed any more.
    pub fn ended(&mut self, listener: u16, error: Option<io::Error>, slots: Slots, cx: &mut Context<'_>) {
        let accepting = &mut self.accepting[usize::from(listener)];
        *accepting = Accepting::Idle;
        if cx.shared.draining {
            *accepting = Accepting::Closed;
            cx.ops.push(Op::CloseListener { listener });
        } else if let Some(error) = error {
            if slots == Slots::Free {
                self.retry_at = cx.now + RETRY_MS;
            }
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
    pub(super) fn accepted(&mut self, socket: Accepted, peer: Option<IpAddr>, ops: &mut Vec<Op>) {
        let slot = if self.shared.draining { None } else { self.take_slot() };
        let Some(index) = slot else {
            ops.push(Op::Refuse { socket });
            return;
        };
        let over_limit = self.occupied > self.plan.sessions_max;
        if over_limit {
            self.listeners.warn_full(self.plan.sessions_max, self.now);
        }
        if self.slots() == Slots::Taken {
            self.listeners.pause(false, ops);
        }
        self.begin_session(index, socket, peer, over_limit, ops);
    }
}
