//! Relaying frames, until both sides have had a Close and TCP has ended: who began that, and what the other side hears.

use super::close::{self, Heard, Told};
use super::context::Context;
use super::feedback::Failure;
use super::flow::{Event, Flow};
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::port::{Link, Receiving};
use super::refusal::Refusal;
use super::session::{Grace, Session, State};
use crate::op::{Lease, Side};

/// How long a peer may go on answering valid messages after the other side has failed.
const FAIL_GRACE_MS: u64 = 1000;

impl Session {
    /// Frames of this side, in a lease or copied.
    pub fn absorb(&mut self, from: Side, bytes: &[u8], lease: Option<Lease>, cx: &mut Context<'_>) {
        let policy = self.policy.as_deref().expect("an open session has a policy");
        let (flow, sink) = match from {
            Side::Client => (&mut self.to_backend, &mut self.backend),
            Side::Backend => (&mut self.to_client, &mut self.client),
        };
        match flow.absorb(bytes, lease, sink, policy, cx) {
            Event::None => {}
            Event::Close => self.closed_by(from, cx),
            Event::Fault(notice) => self.fail(from, notice, cx),
        }
    }

    /// A Close frame of this side has come.
    pub fn closed_by(&mut self, side: Side, cx: &mut Context<'_>) {
        if matches!(self.state, State::Open) {
            self.backend_left(false, cx);
        }
        self.outcome.set(side, Cause::Close);
        self.begin_close(Grace::Peers, self.waits().close, cx);
    }

    /// This side has sent FIN or RST, or cannot be reached.
    pub fn lost(&mut self, side: Side, cause: Cause, cx: &mut Context<'_>) {
        self.port(side).finished = true;
        if matches!(self.state, State::Open) {
            self.backend_left(side == Side::Backend, cx);
        }
        self.outcome.set(side, cause);
        self.begin_close(Grace::Peers, self.waits().close, cx);
    }

    /// This side has broken a rule. What it sent before has been forwarded, and the other side may still answer that: so
    /// the other side is told now, and the offender once the answers are through.
    pub fn fail(&mut self, side: Side, notice: Notice, cx: &mut Context<'_>) {
        self.outcome.set(side, notice);
        cx.shared.metrics.frame_faults.add(1);
        let told_other = if side == Side::Client { notice } else { Notice::BackendFault };
        // If the other side has broken a rule before, it hears of that.
        let told_other = self.flow_from(side).0.ending.instead.take().unwrap_or(told_other);
        let codes = self.policy().close_codes;
        let (flow, sink) = self.flow_from(side);
        flow.tell(told_other, codes, sink, cx);
        let (to_offender, _) = self.flow_to(side);
        if to_offender.ending.told.is_over() {
            return self.begin_close(Grace::Peers, self.waits().close, cx);
        }
        to_offender.ending.instead = Some(notice);
        self.begin_close(Grace::Answers, FAIL_GRACE_MS.min(self.waits().close), cx);
    }

    /// Ringway ends the session: both sides hear why at their next frame boundary, and may answer.
    pub fn go_away(&mut self, notice: Notice, cx: &mut Context<'_>) {
        self.outcome.set(EndedBy::Ringway, notice);
        let codes = self.policy().close_codes;
        self.to_backend.tell(notice, codes, &mut self.backend, cx);
        self.to_client.tell(notice, codes, &mut self.client, cx);
        self.begin_close(Grace::Peers, self.waits().close, cx);
    }

    /// What a probed send has got through is too little for the time that it took.
    pub fn is_too_slow(&mut self, side: Side, sent: usize) -> bool {
        // In less than that a peer may just have been about to read.
        const WAITED_MS_MIN: u64 = 10_000;
        let waited = u64::from(self.port(side).probed_after);
        let wanted = self.policy().receiver_min.saturating_mul(waited) / 1000;
        waited >= WAITED_MS_MIN && (sent as u64) < wanted
    }

    /// A send has found the connection reset.
    pub fn reset_by(&mut self, side: Side, cx: &mut Context<'_>) {
        if matches!(self.state, State::Open) {
            self.backend_left(side == Side::Backend, cx);
        }
        self.send_failed(side, Cause::ConnectionReset, cx);
    }

    /// Nothing more can go to this side.
    pub fn send_failed(&mut self, side: Side, cause: Cause, cx: &mut Context<'_>) {
        self.port(side).broken = true;
        match &self.state {
            State::Open | State::Closing(_) => {
                self.outcome.set(side, cause);
                self.port(side).break_off(cx);
                self.begin_close(Grace::Peers, self.waits().close, cx);
            }
            State::Answering(_) if side == Side::Backend => {
                self.bad_answer(Failure::Request, Refusal::BackendClosedEarly, cx);
            }
            _ => {
                self.outcome.set(side, cause);
                self.terminate(cx);
            }
        }
    }

    /// How many buffers wait for this side, if that has taken so long over the last send.
    pub fn slow_sink_buffers(&self, side: Side, now: u64, patience: u64) -> u16 {
        let port = match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        };
        if port.is_slow(now, patience) { port.held_buffers() } else { 0 }
    }

    /// This side is slow, and others need the buffers that wait for it.
    pub fn reclaim(&mut self, side: Side, cx: &mut Context<'_>) {
        self.port(side).reclaim(cx);
        // What is granted to the other side was meant for a fast one.
        self.mark_dirty(cx);
    }

    fn begin_close(&mut self, grace: Grace, wait: u64, cx: &mut Context<'_>) {
        let sooner = matches!(self.state, State::Closing(Grace::Peers)) && grace == Grace::Answers;
        if matches!(self.state, State::Open) || sooner {
            if matches!(self.state, State::Open) {
                self.closing_at = cx.now;
            }
            self.state = State::Closing(grace);
            self.deadline = cx.now + wait;
        }
        self.mark_dirty(cx);
    }

    /// Draws the consequences of what has been heard and told so far.
    pub fn progress_close(&mut self, cx: &mut Context<'_>) {
        let codes = self.policy().close_codes;
        for side in [Side::Client, Side::Backend] {
            let port = self.port(side);
            if port.broken && matches!(port.receiving, Receiving::Idle | Receiving::Starved) {
                port.finished = true;
            }
            if port.finished {
                let (flow, sink) = self.flow_from(side);
                if flow.ending.heard == Heard::No {
                    flow.ending.heard = Heard::Gone;
                }
                let due = match flow.ending.told {
                    Told::Due(notice) => Some(notice),
                    _ => None,
                };
                let notice = flow.ending.instead.take().or(due).unwrap_or(Notice::lost(side));
                flow.tell_or_cut(notice, codes, sink, cx);
            }
        }
        let due = close::fin_due(
            (&self.to_backend.ending, self.client.finished),
            (&self.to_client.ending, self.backend.finished),
        );
        self.client.fin |= due.client;
        self.backend.fin |= due.backend;
        let flushed =
            (self.backend.is_flushed() || self.backend.broken) && (self.client.is_flushed() || self.client.broken);
        if self.client.finished && self.backend.finished && flushed {
            self.terminate(cx);
        }
    }

    pub fn close_timed_out(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Closing(Grace::Answers)) && self.is_flushing(cx) {
            self.deadline = cx.now + self.waits().close;
            return;
        }
        let codes = self.policy().close_codes;
        match self.state {
            State::Closing(Grace::Answers) => {
                for side in [Side::Client, Side::Backend] {
                    let (flow, sink) = self.flow_from(side);
                    if let Some(notice) = flow.ending.instead.take() {
                        flow.tell(notice, codes, sink, cx);
                    }
                }
                self.state = State::Closing(Grace::Peers);
                self.deadline = cx.now + self.waits().close;
            }
            State::Closing(Grace::Peers) => {
                self.to_backend.tell_or_cut(Notice::ClientLost, codes, &mut self.backend, cx);
                self.to_client.tell_or_cut(Notice::BackendLost, codes, &mut self.client, cx);
                self.backend.fin = true;
                self.client.fin = true;
                self.state = State::Closing(Grace::None);
                self.deadline = cx.now + self.waits().linger;
            }
            _ => self.terminate(cx),
        }
    }

    /// A slow but living peer may still get what was read for it, as long as a stalled send would be waited for. A probe
    /// now makes sure that it lives: without progress the send has failed.
    fn is_flushing(&mut self, cx: &mut Context<'_>) -> bool {
        if cx.now >= self.closing_at.saturating_add(self.waits().send_stall) {
            return false;
        }
        let mut flushing = false;
        for side in [Side::Client, Side::Backend] {
            let port = self.port(side);
            if port.link == Link::Live && port.sending && !port.broken {
                flushing = true;
                if !port.probing {
                    self.port(side).probe(cx);
                }
            }
        }
        flushing
    }

    /// The session's line in the log.
    pub fn report(&self, cx: &Context<'_>) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let backend = self.chosen.as_ref().map(|chosen| &*chosen.name);
        let route = self.policy().route().map(|route| &*route.name);
        // RFC 6455, 7.1.5: "If this Close control frame contains no status code, _The WebSocket Connection Close Code_ is
        // considered to be 1005."
        let close_code = |flow: &Flow| match flow.ending.heard {
            Heard::Close(code) => Some(code.unwrap_or(1005)),
            _ => None,
        };
        tracing::debug!(
            client = self.client_ip.map(tracing::field::display),
            route = route.map(tracing::field::display),
            backend = backend.map(tracing::field::display),
            ended_by = self.outcome.ended_by().name(),
            cause = self.outcome.cause().map(Cause::label),
            reason = %self.outcome.cause().map(Cause::text).unwrap_or_default(),
            status = self.outcome.status(),
            client_close = close_code(&self.to_backend),
            backend_close = close_code(&self.to_client),
            messages_in = self.to_backend.messages,
            messages_out = self.to_client.messages,
            bytes_in = self.to_backend.bytes,
            bytes_out = self.to_client.bytes,
            duration_ms = cx.now - self.began_at,
            "session ended"
        );
    }
}
