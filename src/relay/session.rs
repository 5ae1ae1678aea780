//! One session: two ports, two flows, one state.
//!
//! ```text
//!                               Queued <-- no room --+
//!                                  +-- its turn --+  |
//!                                                 v  |
//!   Free --accept--> Head --head ok--> Connecting --connected--> Answering --101 ok--> Open --Close / EOF / fault--> Closing
//!                     |  400..431, 408    | ^ refused: next one     | \                                             |
//!                     |                   | +-+  502 503 504        |  +-- other status --> Responding              |
//!                     +-------------------+-----------------------+-----------------------> Lingering              |
//!                                                                                                v                   v
//!                                                     Free <-- nothing in flight, both closed -- Ending <------------+
//! ```
//!
//! Events only change state; [`Session::reconcile`], once per batch, asks the kernel for what the state now wants.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::booking::{Booking, Probe};
use super::context::Context;
use super::flow::Flow;
use super::handshake::Handshake;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy, Outcome};
use super::policy::{Policy, Waits};
use super::port::{Link, Port};
use super::respond::Response;
use crate::op::{ConnId, Side};
use crate::table::Backend;

/// Small: an idle connection has one, and nothing else in user space.
#[derive(Debug)]
pub(super) struct Session {
    pub state: State,
    pub client: Port,
    pub backend: Port,
    pub to_backend: Flow,
    pub to_client: Flow,
    /// What the current state waits for at most, in milliseconds since the relay's start. `u64::MAX`: for ever.
    pub deadline: u64,
    /// When the session's timer fires; `u64::MAX`: it is not armed.
    pub timer_at: u64,
    /// When the last byte came, from either side.
    pub active_at: u64,
    pub began_at: u64,
    /// When the tunnel opened.
    pub opened_at: u64,
    /// When it began to close.
    pub closing_at: u64,
    pub client_ip: Option<IpAddr>,
    /// `None` exactly when the slot is free.
    pub policy: Option<Rc<Policy>>,
    /// Who the backend is, once one is chosen.
    pub chosen: Option<Arc<Backend>>,
    /// Its place at that backend, if it has one: exactly while there is a socket towards it.
    pub booking: Option<Booking>,
    /// Exactly while the breaker of its pool waits for it.
    pub probe: Option<Probe>,
    /// When an open session is to leave, and what both sides hear then.
    pub leave: Option<(u64, Notice)>,
    /// True exactly when the session is on the list of those to reconcile.
    pub dirty: bool,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum State {
    Free,
    /// Reading the client's request head.
    Head(Box<Handshake>),
    /// Waiting until the pool has room for it.
    Queued(Box<Handshake>),
    /// Connecting to a backend, or between two attempts.
    Connecting(Box<Handshake>),
    /// The request is on its way; reading the backend's response head.
    Answering(Box<Handshake>),
    /// Relaying a response other than 101.
    Responding(Box<Response>),
    /// Relaying frames.
    Open,
    /// Relaying the last frames, until both sides have had a Close and TCP has ended.
    Closing(Grace),
    /// The client's last bytes are on their way; whatever it still sends is dropped.
    Lingering,
    /// Both sockets are being given up.
    Ending,
}

/// What happens when the deadline of a closing session comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grace {
    /// The peer of a failed side has had its second to answer what came before: tell the failed side why.
    Answers,
    /// Both have had their time: tell those who heard nothing yet, and give that a moment to arrive.
    Peers,
    /// Over.
    None,
}

impl Session {
    pub fn new(index: u32, generation: u16) -> Self {
        Session {
            state: State::Free,
            client: Port::absent(ConnId::new(index, Side::Client, generation)),
            backend: Port::absent(ConnId::new(index, Side::Backend, generation)),
            to_backend: Flow::new(Side::Client, false),
            to_client: Flow::new(Side::Backend, false),
            deadline: u64::MAX,
            timer_at: u64::MAX,
            active_at: 0,
            began_at: 0,
            opened_at: 0,
            closing_at: 0,
            client_ip: None,
            policy: None,
            chosen: None,
            booking: None,
            probe: None,
            leave: None,
            dirty: false,
            outcome: Outcome::default(),
        }
    }

    /// Takes the slot for a client that has just been accepted.
    pub fn begin(&mut self, handshake: Box<Handshake>, client_ip: Option<IpAddr>, policy: Rc<Policy>, now: u64) {
        debug_assert!(matches!(self.state, State::Free));
        *self = Session::new(self.index(), self.generation().wrapping_add(1));
        self.state = State::Head(handshake);
        self.client_ip = client_ip;
        self.policy = Some(policy);
        self.began_at = now;
        self.active_at = now;
    }

    pub fn index(&self) -> u32 {
        self.client.conn().session()
    }

    pub fn generation(&self) -> u16 {
        self.client.conn().generation()
    }

    pub fn port(&mut self, side: Side) -> &mut Port {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    /// The flow from this side, and where it goes.
    pub fn flow_from(&mut self, side: Side) -> (&mut Flow, &mut Port) {
        match side {
            Side::Client => (&mut self.to_backend, &mut self.backend),
            Side::Backend => (&mut self.to_client, &mut self.client),
        }
    }

    pub fn flow_to(&mut self, side: Side) -> (&mut Flow, &mut Port) {
        self.flow_from(side.other())
    }

    pub fn policy(&self) -> &Policy {
        self.policy.as_deref().expect("a session that is not free has a policy")
    }

    pub fn waits(&self) -> Waits {
        self.policy().waits
    }

    /// Asks the kernel for everything that the state now wants. Returns whether the slot has become free.
    pub fn reconcile(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.state, State::Closing(_)) {
            self.progress_close(cx);
        }
        // Receives first: a send that is in flight now was not finished at once, so its peer is slow.
        self.reconcile_receive(Side::Client, cx);
        self.reconcile_receive(Side::Backend, cx);
        for side in [Side::Client, Side::Backend] {
            if self.port(side).flush(cx) && matches!(self.state, State::Lingering) {
                self.outcome.set(EndedBy::Backend, Cause::Answered);
                self.deadline = cx.now + self.waits().linger;
            }
            if self.port(side).close(cx) && side == Side::Backend {
                self.release_backend(cx);
            }
        }
        let may_end = self.client.finished || self.client.abort;
        if matches!(self.state, State::Lingering) && may_end && self.client.is_flushed() {
            self.terminate(cx);
        }
        if matches!(self.state, State::Connecting(_)) && self.backend.link == Link::Absent {
            self.connect_next(cx);
        }
        if matches!(self.state, State::Ending) && self.client.link == Link::Absent && self.backend.link == Link::Absent
        {
            self.free(cx);
            return true;
        }
        self.arm_timer(cx);
        self.check();
        false
    }

    /// What holds once all that has come has been taken in. In debug only.
    fn check(&self) {
        debug_assert_eq!(self.booking.is_some(), self.backend.link != Link::Absent, "a booking is one of a socket");
        for (flow, port) in [(&self.to_backend, &self.backend), (&self.to_client, &self.client)] {
            debug_assert!(port.is_consistent(), "{port:?}");
            match &self.state {
                State::Closing(_) => debug_assert!(flow.ending.is_legal(), "{:?}", flow.ending),
                State::Ending | State::Free => {}
                _ => debug_assert!(flow.ending.is_none(), "{:?} in {:?}", flow.ending, self.state),
            }
        }
    }

    /// A send got bytes through: the client of a response or of a refusal, or the backend of an upload, is worth waiting for.
    pub fn made_progress(&mut self, side: Side, cx: &mut Context<'_>) {
        self.active_at = cx.now;
        match (&self.state, side) {
            (State::Lingering, Side::Client) if !self.client.shut => {
                self.deadline = cx.now + self.waits().send_stall;
            }
            (State::Responding(response), Side::Client) => self.deadline = response.deadline(cx.now),
            (State::Answering(handshake), Side::Backend) if handshake.uploads() => {
                self.deadline = (cx.now + self.waits().plain_http).min(handshake.until);
            }
            _ => {}
        }
    }

    fn reconcile_receive(&mut self, from: Side, cx: &mut Context<'_>) {
        let credit = self.receive_credit(from, cx);
        // A handshake is granted a few kilobytes, of which one bulk buffer would be a multiple.
        let streams = match &self.state {
            State::Open | State::Closing(_) | State::Responding(_) => true,
            State::Answering(handshake) => handshake.uploads(),
            _ => false,
        };
        let is_sink_sluggish = self.port(from.other()).sluggish;
        let port = self.port(from);
        port.bulk &= streams;
        port.receive(credit, !is_sink_sluggish, cx);
    }

    /// How many bytes of this side are wanted now; 0: stop reading.
    fn receive_credit(&self, from: Side, cx: &Context<'_>) -> u32 {
        let (flow, source, sink) = match from {
            Side::Client => (&self.to_backend, &self.client, &self.backend),
            Side::Backend => (&self.to_client, &self.backend, &self.client),
        };
        let limits = &cx.shared.config().limits;
        let through = || flow.credit(sink, source.bulk, self.policy(), cx.shared);
        match &self.state {
            State::Free | State::Ending => 0,
            State::Answering(handshake) if handshake.uploads() && from == Side::Client => through(),
            State::Head(handshake)
            | State::Queued(handshake)
            | State::Connecting(handshake)
            | State::Answering(handshake) => match from {
                Side::Client => handshake.client_credit(limits),
                Side::Backend => handshake.backend_credit(limits),
            },
            State::Lingering => match from {
                Side::Client => self.policy().window_bytes,
                Side::Backend => 0,
            },
            State::Responding(_) | State::Open | State::Closing(_) => through(),
        }
    }

    /// Puts the session on the list of those to reconcile at the end of the batch.
    pub fn mark_dirty(&mut self, cx: &mut Context<'_>) {
        if !self.dirty {
            self.dirty = true;
            cx.shared.dirty.push(self.index());
        }
    }

    /// Gives up one socket.
    pub fn retire(&mut self, side: Side, cx: &mut Context<'_>) {
        if self.port(side).retire(cx) {
            self.mark_dirty(cx);
        }
    }

    /// Gives up both sockets.
    pub fn terminate(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Free | State::Ending) {
            return;
        }
        self.leave_queue(cx);
        self.withdraw_probe();
        self.client.abort |= match &self.state {
            State::Responding(response) => response.ends_with_connection(),
            // What is left has not been sent.
            State::Lingering => !self.client.shut,
            _ => false,
        };
        self.state = State::Ending;
        self.deadline = u64::MAX;
        self.retire(Side::Client, cx);
        self.retire(Side::Backend, cx);
        self.mark_dirty(cx);
    }

    fn free(&mut self, cx: &mut Context<'_>) {
        self.report(cx);
        cx.shared.timers.clear(self.index());
        self.state = State::Free;
        debug_assert!(self.backend.is_flushed() && self.client.is_flushed());
        debug_assert!(self.booking.is_none(), "the backend's socket is closed, and with it the booking");
        debug_assert!(self.probe.is_none(), "the breaker knows how its probe went");
        self.policy = None;
        self.chosen = None;
    }

    fn arm_timer(&mut self, cx: &mut Context<'_>) {
        // An armed timer that comes too early is looked at again when it fires: no work per message.
        let wanted = self.next_deadline();
        if wanted < self.timer_at {
            self.timer_at = wanted;
            cx.shared.timers.set(self.index(), wanted);
        }
    }

    /// The earliest of all that this session waits for.
    pub fn next_deadline(&self) -> u64 {
        let mut earliest = self.deadline;
        if matches!(self.state, State::Responding(_) | State::Open | State::Closing(_)) {
            for port in [&self.client, &self.backend] {
                if port.waits_for_peer() {
                    earliest = earliest.min(port.sending_since + self.waits().send_stall);
                }
            }
        }
        // While something is being sent the session is not idle; a send that stalls has its own deadline.
        if matches!(self.state, State::Open) {
            earliest = earliest.min(self.leave.map_or(u64::MAX, |(when, _)| when));
        }
        if matches!(self.state, State::Open) && !self.client.sending && !self.backend.sending {
            earliest = earliest.min(self.active_at.saturating_add(self.waits().idle));
        }
        earliest
    }

    /// The timer has fired: a deadline may have come.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        self.timer_at = u64::MAX;
        if self.next_deadline() > now {
            return;
        }
        if self.deadline <= now {
            self.deadline = u64::MAX;
            match &self.state {
                State::Free | State::Ending => {}
                State::Head(_) => self.head_timed_out(cx),
                State::Queued(_) => self.queue_timed_out(cx),
                State::Connecting(_) => self.connect_timed_out(cx),
                State::Answering(_) => self.answer_timed_out(cx),
                State::Responding(_) => self.response_timed_out(cx),
                State::Lingering => {
                    self.outcome.set(EndedBy::Client, Cause::AnswerNotTaken);
                    self.terminate(cx);
                }
                State::Open => {}
                State::Closing(_) => self.close_timed_out(cx),
            }
            return;
        }
        if matches!(self.state, State::Open)
            && let Some((_, notice)) = self.leave.take_if(|(when, _)| *when <= now)
        {
            return self.go_away(notice, cx);
        }
        for side in [Side::Client, Side::Backend] {
            if self.port(side).waits_for_peer() && self.port(side).sending_since + self.waits().send_stall <= now {
                return self.port(side).probe(cx);
            }
        }
        if matches!(self.state, State::Open) {
            self.go_away(Notice::Idle, cx);
        }
    }
}
