//! Stage: relaying frames, until both sides have had a Close and TCP has ended: who began that, and what the other side hears.

use std::convert::Infallible;

use super::close::{self, Heard, Told};
use super::context::Context;
use super::flow::{self, Flow};
use super::life::Life;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy, Relayed};
use super::port::{Backing, Link, Port, Ports, Receiving};
use super::stage::{Event, Step};
use crate::config::millis;
use crate::op::Side;

/// How long a peer may go on answering valid messages after the other side has failed.
const FAIL_GRACE_MS: u64 = 1000;

/// Inline in the session: an idle connection has this, and nothing else in user space.
#[derive(Debug)]
pub(super) struct Tunnel {
    to_backend: Flow,
    to_client: Flow,
    phase: Phase,
    /// While it is open: when it opened. Then: when it began to close.
    since: u64,
}

/// And what happens when the deadline comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The peer of a failed side has its second to answer what came before. Then the failed side is told why.
    Answers,
    /// Both have had a Close, or will. Then those who heard nothing yet are told, and that has a moment to arrive.
    Peers,
    /// Then it is over.
    Last,
}

impl Tunnel {
    /// The 101 has been checked: from here on there are frames.
    pub fn open(deflate: bool, life: &mut Life, cx: &Context<'_>) -> Self {
        life.deadline = u64::MAX;
        life.active_at = cx.now;
        Tunnel {
            to_backend: Flow::new(Side::Client, deflate),
            to_client: Flow::new(Side::Backend, deflate),
            phase: Phase::Open,
            since: cx.now,
        }
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The flow from this side, and where it goes.
    fn flow_from<'a>(&'a mut self, side: Side, ports: &'a mut Ports) -> (&'a mut Flow, &'a mut Port) {
        match side {
            Side::Client => (&mut self.to_backend, &mut ports.backend),
            Side::Backend => (&mut self.to_client, &mut ports.client),
        }
    }

    /// How many more bytes of this side may be read; 0: stop reading.
    pub fn credit(&self, from: Side, ports: &Ports, life: &Life, cx: &Context<'_>) -> u32 {
        let flow = match from {
            Side::Client => &self.to_backend,
            Side::Backend => &self.to_client,
        };
        flow.credit(ports.get(from.other()), ports.get(from).bulk, life.policy(), cx.shared)
    }

    pub fn on(
        &mut self,
        event: Event<'_>,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Infallible> {
        match event {
            Event::Bytes(from, bytes, backing) => self.absorb(from, bytes, backing, ports, life, cx),
            Event::Unsendable(side, cause) => self.send_failed(side, cause, ports, life, cx),
            Event::End(side, None) => self.lost(side, Cause::ConnectionClosed, life, cx),
            Event::End(side, Some(_)) => self.lost(side, Cause::ConnectionReset, life, cx),
            Event::Deadline => return self.timed_out(ports, life, cx),
            Event::Drain => self.drain(ports, life, cx),
            Event::Move(notice, spread) => self.leave(notice, spread, ports, life, cx),
            Event::Progress(_) | Event::Connected(_) => {}
        }
        Step::Stay
    }

    /// Frames of this side.
    pub fn absorb(
        &mut self,
        from: Side,
        bytes: &[u8],
        backing: Backing,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) {
        let (flow, sink) = self.flow_from(from, ports);
        match flow.absorb(bytes, backing, sink, life.policy(), cx) {
            flow::Event::None => {}
            flow::Event::Close => self.closed_by(from, life, cx),
            flow::Event::Fault(notice) => self.fail(from, notice, ports, life, cx),
        }
    }

    /// A Close frame of this side has come.
    fn closed_by(&mut self, side: Side, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(side, Cause::Close);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
    }

    /// This side has sent FIN or RST, or cannot be reached.
    pub fn lost(&mut self, side: Side, cause: Cause, life: &mut Life, cx: &mut Context<'_>) {
        self.left_by(side, life, cx);
        life.outcome.set(side, cause);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
    }

    /// What a backend has to answer for that drops a session soon after it has begun.
    fn left_by(&self, side: Side, life: &mut Life, cx: &mut Context<'_>) {
        if self.is_open() && side == Side::Backend {
            life.backend_left(self.since, cx);
        }
    }

    /// This side has broken a rule. What it sent before has been forwarded, and the other side may still answer that: so
    /// the other side is told now, and the offender once the answers are through.
    fn fail(&mut self, side: Side, notice: Notice, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(side, notice);
        cx.shared.metrics.frame_faults.add(1);
        let codes = life.policy().close_codes;
        let told_other = if side == Side::Client { notice } else { Notice::BackendFault };
        let (flow, sink) = self.flow_from(side, ports);
        // If the other side has broken a rule before, it hears of that.
        let told_other = flow.ending.instead.take().unwrap_or(told_other);
        flow.tell(told_other, codes, sink, cx);
        let (to_offender, _) = self.flow_from(side.other(), ports);
        if to_offender.ending.told.is_over() {
            return self.begin_close(Phase::Peers, life.waits().close, life, cx);
        }
        to_offender.ending.instead = Some(notice);
        self.begin_close(Phase::Answers, FAIL_GRACE_MS.min(life.waits().close), life, cx);
    }

    /// SIGTERM.
    fn drain(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        if !self.is_open() {
            return;
        }
        let spread = millis(cx.shared.config().timeouts.drain_spread);
        // Also if it was to leave its backend: that is over with the relay.
        life.leave = None;
        self.leave(Notice::Draining, spread, ports, life, cx);
    }

    /// The session is to end, but not all at the same moment.
    pub fn leave(&mut self, notice: Notice, spread: u64, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        if !self.is_open() || life.leave.is_some() {
            return;
        }
        if spread == 0 {
            return self.go_away(notice, ports, life, cx);
        }
        life.leave = Some(Box::new((cx.now + cx.shared.random() % spread, notice)));
    }

    /// Ringway ends the session: both sides hear why at their next frame boundary, and may answer.
    fn go_away(&mut self, notice: Notice, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(EndedBy::Ringway, notice);
        let codes = life.policy().close_codes;
        self.to_backend.tell(notice, codes, &mut ports.backend, cx);
        self.to_client.tell(notice, codes, &mut ports.client, cx);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
    }

    /// Nothing more can go to this side.
    fn send_failed(&mut self, side: Side, cause: Cause, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        if cause == Cause::ConnectionReset {
            self.left_by(side, life, cx);
        }
        life.outcome.set(side, cause);
        ports.of(side).break_off(cx);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
    }

    fn begin_close(&mut self, phase: Phase, wait: u64, life: &mut Life, cx: &Context<'_>) {
        let is_sooner = self.phase == Phase::Peers && phase == Phase::Answers;
        if self.is_open() {
            self.since = cx.now;
        } else if !is_sooner {
            return;
        }
        self.phase = phase;
        life.deadline = cx.now + wait;
    }

    /// Draws the consequences of what has been heard and told so far.
    pub fn progress(&mut self, ports: &mut Ports, life: &Life, cx: &mut Context<'_>) -> Step<Infallible> {
        if self.is_open() {
            return Step::Stay;
        }
        let codes = life.policy().close_codes;
        for side in [Side::Client, Side::Backend] {
            let port = ports.of(side);
            port.finished |= port.broken && matches!(port.receiving, Receiving::Idle | Receiving::Starved);
            if port.finished {
                let (flow, sink) = self.flow_from(side, ports);
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
        let Ports { client, backend } = ports;
        let due =
            close::fin_due((&self.to_backend.ending, client.finished), (&self.to_client.ending, backend.finished));
        client.fin |= due.client;
        backend.fin |= due.backend;
        let is_flushed = [&*client, backend].iter().all(|port| port.is_flushed() || port.broken);
        match client.finished && backend.finished && is_flushed {
            true => Step::Over,
            false => Step::Stay,
        }
    }

    /// When it ends without a word from anybody: it leaves, or it has been idle for too long. While something is being sent it
    /// is not idle; a send that stalls has its own deadline.
    pub fn next_deadline(&self, ports: &Ports, life: &Life) -> u64 {
        if !self.is_open() {
            return u64::MAX;
        }
        let leave = life.leave.as_ref().map_or(u64::MAX, |leave| leave.0);
        let is_sending = ports.client.sending || ports.backend.sending;
        let idle = if is_sending { u64::MAX } else { life.active_at.saturating_add(life.waits().idle) };
        leave.min(idle)
    }

    /// That has come.
    pub fn expire(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        let leave = life.leave.take_if(|leave| leave.0 <= cx.now);
        self.go_away(leave.map_or(Notice::Idle, |leave| leave.1), ports, life, cx);
    }

    fn timed_out(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Infallible> {
        if self.phase != Phase::Answers && self.is_flushing(ports, life, cx) {
            life.deadline = cx.now + life.waits().close;
            return Step::Stay;
        }
        let codes = life.policy().close_codes;
        match self.phase {
            Phase::Open => {}
            Phase::Answers => {
                for side in [Side::Client, Side::Backend] {
                    let (flow, sink) = self.flow_from(side, ports);
                    if let Some(notice) = flow.ending.instead.take() {
                        flow.tell(notice, codes, sink, cx);
                    }
                }
                self.phase = Phase::Peers;
                life.deadline = cx.now + life.waits().close;
            }
            Phase::Peers => {
                self.to_backend.tell_or_cut(Notice::ClientLost, codes, &mut ports.backend, cx);
                self.to_client.tell_or_cut(Notice::BackendLost, codes, &mut ports.client, cx);
                ports.backend.fin = true;
                ports.client.fin = true;
                self.phase = Phase::Last;
                life.deadline = cx.now + life.waits().linger;
            }
            Phase::Last => return Step::Over,
        }
        Step::Stay
    }

    /// A slow but living peer may still get what was read for it, as long as a stalled send would be waited for. A probe
    /// now makes sure that it lives: without progress the send has failed.
    fn is_flushing(&self, ports: &mut Ports, life: &Life, cx: &mut Context<'_>) -> bool {
        if self.is_open() || cx.now >= self.since.saturating_add(life.waits().send_stall) {
            return false;
        }
        let mut flushing = false;
        for port in [&mut ports.client, &mut ports.backend] {
            if port.link == Link::Live && port.sending && !port.broken {
                flushing = true;
                if !port.probing {
                    port.probe(cx);
                }
            }
        }
        flushing
    }

    /// What holds once all that has come has been taken in.
    pub fn is_consistent(&self) -> bool {
        let endings = [&self.to_backend.ending, &self.to_client.ending];
        endings.into_iter().all(|ending| if self.is_open() { ending.is_none() } else { ending.is_legal() })
    }

    pub fn relayed(&self) -> Relayed {
        // RFC 6455, 7.1.5: "If this Close control frame contains no status code, _The WebSocket Connection Close Code_ is
        // considered to be 1005."
        let close_code = |flow: &Flow| match flow.ending.heard {
            Heard::Close(code) => Some(code.unwrap_or(1005)),
            _ => None,
        };
        Relayed {
            client_close: close_code(&self.to_backend),
            backend_close: close_code(&self.to_client),
            messages_in: self.to_backend.messages,
            messages_out: self.to_client.messages,
            bytes_in: self.to_backend.bytes,
            bytes_out: self.to_client.bytes,
        }
    }
}
