//! One session: two ports, a life, and the stage that it is in.
//!
//! ```text
//!                              its turn
//!                            +-- queue <-- no room
//!                            v            |
//!   Free --accept--> Head --ok--> Dialing-+-connected--> Answering --101 ok--> Tunnel --both closed, or lost---+
//!                     | 400..431, 408  | ^ refused: next   |   \                                             |
//!                     |                | +--+ 502 503 504  |    +-- other status --> Exchange                |
//!                     +----------------+-------------------+----------------------> Lingering                |
//!                                                                                       v                    v
//!                                           Free <-- nothing in flight, both closed -- Ending <--------------+
//! ```
//!
//! A stage owns its data and says what follows; only this file changes the state. What the kernel is asked for follows from
//! the state, once per batch, in [`Session::reconcile`]; a stage asks by itself only for what it ends or begins: a connect, the
//! cancelling of a send.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::answer::{self, Answer};
use super::balance::Ask;
use super::booking::Booking;
use super::context::Context;
use super::current::PoolView;
use super::dial::Dial;
use super::exchange::Exchange;
use super::head::Head;
use super::life::Life;
use super::linger;
use super::outcome::{Cause, EndedBy};
use super::policy::Policy;
use super::port::{Backing, Link, Ports, Receiving};
use super::refusal::{Refusal, RetryAfter};
use super::shortage::SLOW_MS;
use super::stage::{Event, Step};
use super::tunnel::Tunnel;
use crate::config::millis;
use crate::op::{Accepted, ConnId, ListenerId, Piece, ReceiveEnd, Side};

#[derive(Debug)]
pub(super) struct Session {
    index: u32,
    /// Of those that have had this slot.
    generation: u16,
    state: State,
    pub ports: Ports,
    pub life: Life,
    /// When the session's timer fires; `u64::MAX`: it is not armed.
    timer_at: u64,
    /// What has moved since the last reconcile; `NOTHING` exactly when the session is not on the list of those to reconcile.
    moved: u8,
}

/// Stages that end soon are boxed; the tunnel, in which sessions are for nearly all of their time, lies inline.
#[derive(Debug)]
enum State {
    Free,
    Head(Box<Head>),
    Dialing(Box<Dial>),
    Answering(Box<Answer>),
    Tunnel(Tunnel),
    Exchange(Box<Exchange>),
    Lingering,
    /// Both sockets are being given up.
    Ending,
}

impl From<answer::Next> for State {
    fn from(next: answer::Next) -> Self {
        match next {
            answer::Next::Tunnel(tunnel) => State::Tunnel(tunnel),
            answer::Next::Exchange(exchange) => State::Exchange(exchange),
        }
    }
}

/// What a reconcile has to look at: of an open tunnel just the directions in which something has come or left.
const NOTHING: u8 = 0;
const TO_BACKEND: u8 = 1;
const TO_CLIENT: u8 = 2;
const ALL: u8 = 4;

/// Linux, on every architecture that Ringway runs on.
const ECANCELED: i32 = 125;

impl Session {
    pub fn new(index: u32, generation: u16) -> Self {
        Session {
            index,
            generation,
            state: State::Free,
            ports: Ports::absent(),
            life: Life::none(),
            timer_at: u64::MAX,
            moved: NOTHING,
        }
    }

    /// Takes the slot for a client that has just been accepted.
    pub fn begin(
        &mut self,
        listener: ListenerId,
        socket: Accepted,
        (client_ip, entry): (Option<IpAddr>, Rc<Policy>),
        cx: &mut Context<'_>,
    ) {
        debug_assert!(matches!(self.state, State::Free));
        *self = Session::new(self.index, self.generation.wrapping_add(1));
        cx.client = self.client();
        self.life = Life::new(client_ip, entry, cx.now);
        self.life.deadline = cx.now + self.life.waits().head;
        self.state = State::Head(Head::new(listener));
        self.ports.client.adopt(socket, cx);
        self.mark_dirty(cx);
    }

    /// The client's name at the seam.
    pub fn client(&self) -> ConnId {
        ConnId::new(self.index, Side::Client, self.generation)
    }

    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// A client that has not begun a request.
    pub fn is_silent(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }

    #[cfg(test)]
    pub fn lingers(self) -> Self {
        Session { state: State::Lingering, ..self }
    }

    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering)
    }

    /// Tells the stage what has happened, and does what it says follows.
    pub fn on(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        let Session { state, ports, life, .. } = self;
        let step = match state {
            State::Tunnel(tunnel) => tunnel.on(event, ports, life, cx).map(|never| match never {}),
            State::Head(head) => head.on(event, life, cx).map(State::Dialing),
            State::Dialing(dial) => dial.on(event, ports, life, cx).map(State::Answering),
            State::Answering(answer) => answer.on(event, ports, life, cx).map(State::from),
            State::Exchange(exchange) => exchange.on(event, ports, life, cx).map(|never| match never {}),
            State::Lingering => linger::on(event, ports, life, cx).map(|never| match never {}),
            // Nobody is there to be told.
            State::Free => return,
            State::Ending => event.ignore(cx),
        };
        self.step(step, cx);
        self.mark_dirty(cx);
    }

    fn step(&mut self, step: Step<State>, cx: &mut Context<'_>) {
        match step {
            Step::Stay => {}
            Step::Enter(state) => self.state = state,
            Step::Refuse(refusal) => self.refuse(refusal, cx),
            Step::Linger => self.linger(cx),
            Step::End(by, cause) => self.end(by, cause, cx),
            Step::Over => self.terminate(cx),
        }
    }

    /// Bytes have come, for which there were so many on the wire. `more`: the receive is still armed.
    pub fn received(
        &mut self,
        side: Side,
        bytes: &[u8],
        backing: Backing,
        (wire_bytes, more): (u32, bool),
        cx: &mut Context<'_>,
    ) {
        self.life.active_at = cx.now;
        let port = self.ports.of(side);
        port.learn(wire_bytes as usize, cx.shared.small_bytes as usize);
        if !more {
            port.receiving = Receiving::Idle;
        }
        if let State::Tunnel(tunnel) = &mut self.state {
            // The way of nearly all bytes.
            tunnel.absorb(side, bytes, backing, &mut self.ports, &mut self.life, cx);
            return self.mark_moved(side, cx);
        }
        self.on(Event::Bytes(side, bytes, backing), cx);
    }

    /// A send has ended.
    pub fn sent(&mut self, side: Side, result: std::io::Result<usize>, pieces: Vec<Piece>, cx: &mut Context<'_>) {
        let port = self.ports.of(side);
        port.sending = false;
        let probing = std::mem::replace(&mut port.probing, false);
        let reclaiming = std::mem::replace(&mut port.reclaiming, false);
        let took = port.sending_for(cx.now);
        let is_retiring = port.link != Link::Live || port.broken;
        let waited = port.probed_after();
        let sent = *result.as_ref().unwrap_or(&0);
        port.sent(pieces, sent, cx);
        self.mark_moved(side.other(), cx);
        match result {
            _ if is_retiring => {}
            Ok(_) | Err(_) if reclaiming && is_cut_short(&result) => {
                if sent > 0 {
                    self.made_progress(side, cx);
                }
                self.ports.of(side).copy_out(cx);
            }
            Ok(sent @ 1..) if probing && self.is_too_slow(waited, sent) => self.unsendable(side, Cause::TooSlow, cx),
            Ok(1..) => {
                self.ports.of(side).sluggish &= took >= SLOW_MS;
                self.made_progress(side, cx);
            }
            _ if probing => self.unsendable(side, Cause::Stalled, cx),
            Ok(_) => self.unsendable(side, Cause::SendRefused, cx),
            Err(_) => self.unsendable(side, Cause::ConnectionReset, cx),
        }
    }

    /// A send got bytes through.
    fn made_progress(&mut self, side: Side, cx: &mut Context<'_>) {
        self.life.active_at = cx.now;
        if !matches!(self.state, State::Tunnel(_)) {
            self.on(Event::Progress(side), cx);
        }
    }

    /// Nothing more can go to this side.
    pub fn unsendable(&mut self, side: Side, cause: Cause, cx: &mut Context<'_>) {
        self.ports.of(side).broken = true;
        self.on(Event::Unsendable(side, cause), cx);
    }

    /// What a probed send has got through is too little for the time that it took.
    fn is_too_slow(&self, waited: u64, sent: usize) -> bool {
        // In less than that a peer may just have been about to read.
        const WAITED_MS_MIN: u64 = 10_000;
        let wanted = self.life.policy().receiver_min.saturating_mul(waited) / 1000;
        waited >= WAITED_MS_MIN && (sent as u64) < wanted
    }

    pub fn copied(&mut self, side: Side, bytes: Box<[u8]>, pieces: Vec<Piece>, cx: &mut Context<'_>) {
        self.ports.of(side).copied(bytes, pieces, cx);
        self.mark_dirty(cx);
    }

    /// A receive is no longer armed, and has brought nothing.
    pub fn receive_ended(&mut self, side: Side, why: ReceiveEnd, cx: &mut Context<'_>) {
        self.mark_dirty(cx);
        let port = self.ports.of(side);
        port.receiving = Receiving::Idle;
        let is_live = port.link == Link::Live && !port.finished;
        let error = match why {
            ReceiveEnd::Cancelled => return,
            ReceiveEnd::NoBuffers => {
                cx.shared.metrics.buffer_starvations.add(1);
                return if is_live {
                    port.starve(cx)
                };
            }
            ReceiveEnd::Eof => None,
            ReceiveEnd::Failed(error) => Some(error),
        };
        if is_live {
            port.finished = true;
            port.broken |= error.is_some();
            self.on(Event::End(side, error), cx);
        }
    }

    pub fn connected(&mut self, result: std::io::Result<()>, cx: &mut Context<'_>) {
        match self.ports.backend.link {
            Link::Connecting => self.on(Event::Connected(result), cx),
            Link::Retiring { .. } => self.ports.backend.link = Link::Retiring { connecting: false },
            Link::Absent | Link::Live => debug_assert!(false, "a connect completed that was not in flight"),
        }
        self.mark_dirty(cx);
    }

    /// Asks the kernel for everything that the state now wants. Returns whether the slot has become free.
    pub fn reconcile(&mut self, cx: &mut Context<'_>) -> bool {
        let moved = std::mem::replace(&mut self.moved, NOTHING);
        if moved & ALL == NOTHING && self.is_open() {
            self.reconcile_moved(moved, cx);
            return false;
        }
        if let State::Tunnel(tunnel) = &mut self.state {
            let step = tunnel.progress(&mut self.ports, &self.life, cx).map(|never| match never {});
            self.step(step, cx);
        }
        // Receives first: a send that is in flight now was not finished at once, so its peer is slow.
        self.reconcile_receive(Side::Client, cx);
        self.reconcile_receive(Side::Backend, cx);
        for side in [Side::Client, Side::Backend] {
            if self.ports.of(side).flush(cx) && matches!(self.state, State::Lingering) {
                linger::has_shut(&mut self.life, cx);
            }
            if self.ports.of(side).close(cx) && side == Side::Backend {
                self.life.release_backend(cx);
            }
        }
        if matches!(self.state, State::Lingering) && linger::is_over(&self.ports) {
            self.terminate(cx);
        }
        if let State::Dialing(dial) = &mut self.state {
            let step = dial.next(&mut self.ports, &mut self.life, cx).map(State::Answering);
            self.step(step, cx);
        }
        let is_absent = |side| self.ports.get(side).link == Link::Absent;
        if matches!(self.state, State::Ending) && is_absent(Side::Client) && is_absent(Side::Backend) {
            self.free(cx);
            return true;
        }
        self.arm_timer(cx);
        self.check();
        false
    }

    /// Of an open tunnel, in which nothing else can have changed.
    fn reconcile_moved(&mut self, moved: u8, cx: &mut Context<'_>) {
        // Receives first, as below.
        for (direction, from) in [(TO_BACKEND, Side::Client), (TO_CLIENT, Side::Backend)] {
            if moved & direction != NOTHING {
                self.reconcile_receive(from, cx);
                self.ports.of(from.other()).flush(cx);
            }
        }
        self.arm_timer(cx);
        self.check();
    }

    /// What holds once all that has come has been taken in. In debug only.
    fn check(&self) {
        let Ports { client, backend } = &self.ports;
        debug_assert!(client.is_consistent() && backend.is_consistent(), "{self:?}");
        debug_assert_eq!(self.life.booking.is_some(), backend.link != Link::Absent, "a booking is one of a socket");
        if let State::Tunnel(tunnel) = &self.state {
            debug_assert!(tunnel.is_consistent(), "{tunnel:?}");
        }
    }

    fn reconcile_receive(&mut self, from: Side, cx: &mut Context<'_>) {
        let (credit, may_be_bulk) = self.receive_credit(from, cx);
        let is_sink_sluggish = self.ports.get(from.other()).sluggish;
        let port = self.ports.of(from);
        port.bulk &= may_be_bulk;
        port.receive(credit, !is_sink_sluggish, cx);
    }

    /// How many bytes of this side are wanted now; 0: stop reading. And whether bulk buffers may be used for it: a handshake is
    /// granted a few kilobytes, of which one of those would be a multiple.
    fn receive_credit(&self, from: Side, cx: &Context<'_>) -> (u32, bool) {
        let limits = &cx.shared.config().limits;
        let to = self.ports.get(from.other());
        let through = || to.credit(self.ports.get(from).bulk, self.life.policy(), cx.shared);
        match (&self.state, from) {
            (State::Tunnel(tunnel), _) => (tunnel.credit(from, &self.ports, &self.life, cx), true),
            (State::Head(head), Side::Client) => (head.credit(limits), false),
            (State::Dialing(dial), Side::Client) => (dial.credit(cx), false),
            (State::Answering(answer), Side::Client) if answer.uploads() => (through(), true),
            (State::Answering(answer), Side::Client) => (answer.client_credit(limits), false),
            (State::Answering(answer), Side::Backend) => (answer.backend_credit(limits), answer.uploads()),
            (State::Exchange(_), _) => (through(), true),
            (State::Lingering, Side::Client) => (self.life.policy().window_bytes, false),
            (State::Head(_) | State::Dialing(_) | State::Lingering, Side::Backend) => (0, false),
            (State::Free | State::Ending, _) => (0, false),
        }
    }

    /// Puts the session on the list of those to reconcile at the end of the batch.
    pub fn mark_dirty(&mut self, cx: &mut Context<'_>) {
        self.mark(ALL, cx);
    }

    /// Something has come from this side, or left for its peer.
    fn mark_moved(&mut self, from: Side, cx: &mut Context<'_>) {
        let direction = if from == Side::Client { TO_BACKEND } else { TO_CLIENT };
        self.mark(if self.is_open() { direction } else { ALL }, cx);
    }

    fn mark(&mut self, moved: u8, cx: &mut Context<'_>) {
        if self.moved == NOTHING {
            cx.shared.dirty.push(self.index);
        }
        self.moved |= moved;
    }

    fn is_open(&self) -> bool {
        matches!(&self.state, State::Tunnel(tunnel) if tunnel.is_open())
    }

    /// Answers the client in Ringway's own name, and gives up the backend.
    pub fn refuse(&mut self, refusal: Refusal, cx: &mut Context<'_>) {
        let policy = self.life.policy();
        let wait = match refusal.retry_after() {
            RetryAfter::Unsaid => None,
            RetryAfter::Pool => Some(millis(policy.pool().config.admission.retry_after)),
            RetryAfter::Ms(ms) => Some(ms),
        };
        // Give or take a half, as those who were refused together should not come back together; in whole seconds.
        let seconds = wait.map(|ms| (ms / 2 + cx.shared.random() % ms.max(1)).div_ceil(1000).max(1));
        let lines = seconds.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        cx.shared.metrics.refused.add(1);
        match policy.route() {
            Some(_) => policy.pool().state.refusals.count(refusal.status()),
            None => cx.shared.current.table.refusals.count(refusal.status()),
        }
        self.ports.client.push(Piece::owned(refusal.response(&lines, self.life.is_head)), cx);
        self.life.outcome.set(EndedBy::Ringway, refusal);
        self.linger(cx);
    }

    /// What is queued for the client is the last it hears.
    fn linger(&mut self, cx: &mut Context<'_>) {
        self.leave_stage(cx);
        self.ports.backend.retire(cx);
        self.ports.client.fin = true;
        self.state = State::Lingering;
        self.life.deadline = cx.now + self.life.waits().send_stall;
        self.mark_dirty(cx);
    }

    pub fn end(&mut self, by: EndedBy, cause: Cause, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Free) {
            self.life.outcome.set(by, cause);
            self.terminate(cx);
        }
    }

    /// Gives up both sockets.
    pub fn terminate(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Free | State::Ending) {
            return;
        }
        self.leave_stage(cx);
        let client = &mut self.ports.client;
        client.abort |= match &self.state {
            State::Exchange(exchange) => exchange.ends_with_connection(),
            // What is left has not been sent.
            State::Lingering => !client.shut,
            _ => false,
        };
        self.state = State::Ending;
        self.life.deadline = u64::MAX;
        self.ports.client.retire(cx);
        self.ports.backend.retire(cx);
        self.mark_dirty(cx);
    }

    fn leave_stage(&mut self, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Dialing(dial) => dial.leave_queue(&self.life, cx),
            State::Tunnel(tunnel) => self.life.outcome.set_relayed(tunnel.relayed()),
            _ => {}
        }
        self.life.withdraw_probe();
    }

    fn free(&mut self, cx: &mut Context<'_>) {
        debug_assert!(self.ports.client.is_flushed() && self.ports.backend.is_flushed());
        cx.shared.timers.clear(self.index);
        self.timer_at = u64::MAX;
        self.life.end(cx);
        self.state = State::Free;
    }

    fn arm_timer(&mut self, cx: &mut Context<'_>) {
        // An armed timer that comes too early is looked at again when it fires: no work per message.
        let wanted = self.next_deadline();
        if wanted < self.timer_at {
            self.timer_at = wanted;
            cx.shared.timers.set(self.index, wanted);
        }
    }

    /// The earliest of all that this session waits for.
    fn next_deadline(&self) -> u64 {
        let own = match &self.state {
            State::Tunnel(tunnel) => tunnel.next_deadline(&self.ports, &self.life),
            State::Exchange(_) => u64::MAX,
            _ => return self.life.deadline,
        };
        let Ports { client, backend } = &self.ports;
        let stall = self.life.waits().send_stall;
        let stalled = client.waits_since().min(backend.waits_since()).saturating_add(stall);
        self.life.deadline.min(own).min(stalled)
    }

    /// The timer has fired: a deadline may have come.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.mark_dirty(cx);
        self.timer_at = u64::MAX;
        if self.next_deadline() > cx.now {
            return;
        }
        if self.life.deadline <= cx.now {
            self.life.deadline = u64::MAX;
            return self.on(Event::Deadline, cx);
        }
        if let State::Tunnel(tunnel) = &mut self.state
            && tunnel.is_leaving(&self.life, cx.now)
        {
            return tunnel.expire(&mut self.ports, &mut self.life, cx);
        }
        let stall = self.life.waits().send_stall;
        for port in [&mut self.ports.client, &mut self.ports.backend] {
            if port.waits_since().saturating_add(stall) <= cx.now {
                return port.probe(cx);
            }
        }
        if let State::Tunnel(tunnel) = &mut self.state {
            tunnel.expire(&mut self.ports, &mut self.life, cx);
        }
    }

    /// First in its queue. Fails if it cannot leave it yet: then it may ask again after so many milliseconds.
    pub fn take_turn(&mut self, cx: &mut Context<'_>) -> Result<(), u64> {
        let State::Dialing(dial) = &mut self.state else { return Ok(()) };
        let step = dial.take_turn(&mut self.ports, &mut self.life, cx)?.map(State::Answering);
        self.step(step, cx);
        self.mark_dirty(cx);
        Ok(())
    }

    /// The queue is gone, because there is a newer table.
    pub fn requeue(&mut self) {
        if let State::Dialing(dial) = &mut self.state {
            dial.requeue(&mut self.life);
        }
    }

    /// How many buffers wait for this side, if that has taken so long over the last send.
    pub fn slow_sink_buffers(&self, side: Side, now: u64, patience: u64) -> u16 {
        let port = self.ports.get(side);
        if port.is_slow(now, patience) { port.held_buffers() } else { 0 }
    }

    /// It is of this pool of the newest table, and its key's home is another backend, which has room.
    pub fn is_away(&self, number: usize, cx: &mut Context<'_>) -> bool {
        let key = self.life.booking.as_ref().and_then(Booking::key);
        let (Some(key), Some(chosen)) = (key, &self.life.chosen) else { return false };
        let random = cx.shared.random();
        let (pool, PoolView { balancer, .. }) = cx.shared.current.pool_and_view(number);
        if !Arc::ptr_eq(&self.life.policy().pool().state, &pool.state) {
            return false;
        }
        let ask = Ask { key: key.get(), tried: &[], is_last: false, now: cx.now, random, is_handshake: true };
        balancer
            .home(pool, &ask)
            .is_some_and(|home| !Arc::ptr_eq(&pool.members[usize::from(home)].state, &chosen.state))
    }
}

/// A cancelled send got so far, which may be nowhere.
fn is_cut_short(result: &std::io::Result<usize>) -> bool {
    result.as_ref().map_or_else(|error| error.raw_os_error() == Some(ECANCELED), |_| true)
}
#[cfg(test)]
mod tests {
    use super::*;

    /// There are millions of them, and nearly all are idle.
    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() <= 296, "{} bytes", size_of::<Session>());
    }
}
