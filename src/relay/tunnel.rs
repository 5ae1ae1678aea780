//! Stage: relaying frames, until both sides have had a Close and TCP has ended: who began that, and what the other side hears.

use std::convert::Infallible;

use super::close::{self, Ending, Heard, Told};
use super::context::Context;
use super::flow::{self, Direction, Flow};
use super::life::Life;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy, Relayed};
use super::port::{Backing, Link, Ports, Receiving};
use super::stage::{Event, Step};
use crate::config::millis;
use crate::op::Side;
use crate::proto::frame::Close;

/// How long a peer may go on answering valid messages after the other side has failed.
const FAIL_GRACE_MS: u64 = 1000;

/// Inline in the session: an idle connection has this, and nothing else in user space.
#[derive(Debug)]
pub(super) struct Tunnel {
    to_backend: Flow,
    to_client: Flow,
    opened_at: u64,
    /// `None` while it is open. Boxed, as it soon ends then.
    closing: Option<Box<Closing>>,
}

/// What there is of a tunnel once one side has said or done something that ends it.
#[derive(Debug)]
struct Closing {
    to_backend: Ending,
    to_client: Ending,
    phase: Phase,
    since: u64,
}

/// How far that has come, and what happens when the deadline comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
            opened_at: cx.now,
            closing: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// The direction from this side, of a tunnel that closes.
    fn closing_from<'a>(&'a mut self, side: Side, ports: &'a mut Ports) -> Option<Direction<'a>> {
        let closing = self.closing.as_mut()?;
        Some(match side {
            Side::Client => {
                Direction { flow: &mut self.to_backend, ending: &mut closing.to_backend, sink: &mut ports.backend }
            }
            Side::Backend => {
                Direction { flow: &mut self.to_client, ending: &mut closing.to_client, sink: &mut ports.client }
            }
        })
    }

    /// How many more bytes of this side may be read; 0: stop reading.
    pub fn credit(&self, from: Side, ports: &Ports, life: &Life, cx: &Context<'_>) -> u32 {
        let policy = life.policy();
        match &self.closing {
            // None of it is relayed.
            Some(closing) if closing.from(from).is_deaf() => policy.window_bytes,
            _ => ports.get(from.other()).credit(ports.get(from).bulk, policy, cx.shared),
        }
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
        let policy = life.policy();
        let event = match (self.closing_from(from, ports), from) {
            (Some(mut direction), _) => direction.absorb(bytes, backing, policy, cx),
            // The way of nearly all bytes.
            (None, Side::Client) => self.to_backend.relay(bytes, backing, &mut ports.backend, policy, cx),
            (None, Side::Backend) => self.to_client.relay(bytes, backing, &mut ports.client, policy, cx),
        };
        match event {
            flow::Event::None => {}
            flow::Event::Close(close) => self.closed_by(from, close, ports, life, cx),
            flow::Event::Fault(notice) => self.fail(from, notice, ports, life, cx),
        }
    }

    /// A Close frame of this side has come.
    fn closed_by(&mut self, side: Side, close: Close, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(side, Cause::Close);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
        if let Some(mut direction) = self.closing_from(side, ports) {
            direction.pass_close(close, life.policy().close_codes, cx);
        }
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
            life.backend_left(self.opened_at, cx);
        }
    }

    /// This side has broken a rule. What it sent before has been forwarded, and the other side may still answer that: so
    /// the other side is told now, and the offender once the answers are through.
    fn fail(&mut self, side: Side, notice: Notice, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(side, notice);
        cx.shared.metrics.frame_faults.add(1);
        let codes = life.policy().close_codes;
        let told_other = if side == Side::Client { notice } else { Notice::BackendFault };
        let is_told = self.closing.as_ref().is_some_and(|closing| closing.from(side.other()).told.is_over());
        match is_told {
            true => self.begin_close(Phase::Peers, life.waits().close, life, cx),
            false => self.begin_close(Phase::Answers, FAIL_GRACE_MS.min(life.waits().close), life, cx),
        }
        if let Some(mut to_other) = self.closing_from(side, ports) {
            if matches!(notice, Notice::Fault(_)) {
                to_other.ending.heard = Heard::Fault;
            }
            // If the other side has broken a rule before, it hears of that.
            let told_other = to_other.ending.instead.take().unwrap_or(told_other);
            to_other.tell(told_other, codes, cx);
        }
        if let Some(to_offender) = self.closing_from(side.other(), ports).filter(|_| !is_told) {
            to_offender.ending.instead = Some(notice);
        }
    }

    /// SIGTERM.
    fn drain(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        if !self.is_open() {
            return;
        }
        let spread = millis(cx.shared.config().timeouts.drain_spread);
        // Also if it was to leave its backend: that is over with the relay.
        life.outcome.set_leave(None);
        self.leave(Notice::Draining, spread, ports, life, cx);
    }

    /// The session is to end, but not all at the same moment.
    pub fn leave(&mut self, notice: Notice, spread: u64, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        if !self.is_open() || life.outcome.leave().is_some() {
            return;
        }
        if spread == 0 {
            return self.go_away(notice, ports, life, cx);
        }
        life.outcome.set_leave(Some((cx.now + cx.shared.random() % spread, notice)));
    }

    /// Ringway ends the session: both sides hear why at their next frame boundary, and may answer.
    fn go_away(&mut self, notice: Notice, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        life.outcome.set(EndedBy::Ringway, notice);
        self.begin_close(Phase::Peers, life.waits().close, life, cx);
        for side in [Side::Client, Side::Backend] {
            if let Some(mut direction) = self.closing_from(side, ports) {
                direction.tell(notice, life.policy().close_codes, cx);
            }
        }
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
        match &mut self.closing {
            None => self.closing = Some(Box::new(Closing::begin(phase, cx.now))),
            // Sooner than what it waits for.
            Some(closing) if closing.phase == Phase::Peers && phase == Phase::Answers => closing.phase = phase,
            Some(_) => return,
        }
        life.deadline = cx.now + wait;
    }

    /// Draws the consequences of what has been heard and told so far.
    pub fn progress(&mut self, ports: &mut Ports, life: &Life, cx: &mut Context<'_>) -> Step<Infallible> {
        let codes = life.policy().close_codes;
        for side in [Side::Client, Side::Backend] {
            let port = ports.of(side);
            let is_idle = matches!(port.receiving, Receiving::Idle | Receiving::Starved);
            let has_finished = port.finished || port.broken && is_idle;
            let Some(mut direction) = self.closing_from(side, ports) else { return Step::Stay };
            if has_finished {
                let ending = &mut *direction.ending;
                if ending.heard == Heard::No {
                    ending.heard = Heard::Gone;
                }
                let due = match ending.told {
                    Told::Due(notice) => Some(notice),
                    _ => None,
                };
                let notice = ending.instead.take().or(due).unwrap_or(Notice::lost(side));
                direction.tell_or_cut(notice, codes, cx);
                ports.of(side).finished = true;
            }
        }
        let Some(closing) = &self.closing else { return Step::Stay };
        let Ports { client, backend } = ports;
        let due = close::fin_due((&closing.to_backend, client.finished), (&closing.to_client, backend.finished));
        client.fin |= due.client;
        backend.fin |= due.backend;
        let is_flushed = [&*client, backend].iter().all(|port| port.is_flushed() || port.broken);
        match client.finished && backend.finished && is_flushed {
            true => Step::Over,
            false => Step::Stay,
        }
    }

    /// It is open, and the time has come when it is to leave.
    pub fn is_leaving(&self, life: &Life, now: u64) -> bool {
        self.is_open() && life.outcome.leave().is_some_and(|(at, _)| at <= now)
    }

    /// When it ends without a word from anybody: it leaves, or it has been idle for too long. While something is being sent it
    /// is not idle; a send that stalls has its own deadline.
    pub fn next_deadline(&self, ports: &Ports, life: &Life) -> u64 {
        if !self.is_open() {
            return u64::MAX;
        }
        let leave = life.outcome.leave().map_or(u64::MAX, |(at, _)| at);
        let is_sending = ports.client.sending || ports.backend.sending;
        let idle = if is_sending { u64::MAX } else { life.active_at.saturating_add(life.waits().idle) };
        leave.min(idle)
    }

    /// That has come.
    pub fn expire(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) {
        let leave = life.outcome.leave().filter(|(at, _)| *at <= cx.now);
        self.go_away(leave.map_or(Notice::Idle, |(_, notice)| notice), ports, life, cx);
    }

    fn timed_out(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Infallible> {
        let Some(Closing { phase, since, .. }) = self.closing.as_deref_mut() else { return Step::Stay };
        let (was, since) = (*phase, *since);
        if was != Phase::Answers && is_flushing(since, ports, life, cx) {
            life.deadline = cx.now + life.waits().close;
            return Step::Stay;
        }
        *phase = match was {
            Phase::Answers => Phase::Peers,
            Phase::Peers => Phase::Last,
            Phase::Last => return Step::Over,
        };
        let codes = life.policy().close_codes;
        for side in [Side::Client, Side::Backend] {
            let Some(mut direction) = self.closing_from(side, ports) else { continue };
            if was == Phase::Peers {
                direction.tell_or_cut(Notice::lost(side), codes, cx);
                direction.sink.fin = true;
            } else if let Some(notice) = direction.ending.instead.take() {
                direction.tell(notice, codes, cx);
            }
        }
        let wait = if was == Phase::Peers { life.waits().linger } else { life.waits().close };
        life.deadline = cx.now + wait;
        Step::Stay
    }

    /// What holds once all that has come has been taken in.
    pub fn is_consistent(&self) -> bool {
        let closing = self.closing.as_ref();
        closing.is_none_or(|closing| closing.to_backend.is_legal() && closing.to_client.is_legal())
    }

    pub fn relayed(&self) -> Relayed {
        // RFC 6455, 7.1.5: "If this Close control frame contains no status code, _The WebSocket Connection Close Code_ is
        // considered to be 1005."
        let close_code = |side| match self.closing.as_ref()?.from(side).heard {
            Heard::Close(code) => Some(code.unwrap_or(1005)),
            _ => None,
        };
        Relayed {
            client_close: close_code(Side::Client),
            backend_close: close_code(Side::Backend),
            messages_in: self.to_backend.messages,
            messages_out: self.to_client.messages,
            bytes_in: self.to_backend.bytes,
            bytes_out: self.to_client.bytes,
        }
    }
}

impl Closing {
    fn begin(phase: Phase, now: u64) -> Self {
        Closing { to_backend: Ending::NONE, to_client: Ending::NONE, phase, since: now }
    }

    /// How far the end of the direction from this side has come.
    fn from(&self, side: Side) -> &Ending {
        match side {
            Side::Client => &self.to_backend,
            Side::Backend => &self.to_client,
        }
    }
}

/// A slow but living peer may still get what was read for it, as long as a stalled send would be waited for. A probe now makes
/// sure that it lives: without progress the send has failed.
fn is_flushing(since: u64, ports: &mut Ports, life: &Life, cx: &mut Context<'_>) -> bool {
    if cx.now >= since.saturating_add(life.waits().send_stall) {
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
