//! What a session is from accept to close, whatever its stage.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::booking::{Booking, Probe};
use super::context::Context;
use super::outcome::{Cause, Outcome};
use super::policy::{Policy, Waits};
use crate::table::Backend;

#[derive(Debug)]
pub(super) struct Life {
    /// What the stage waits for at most, in milliseconds since the relay's start. `u64::MAX`: for ever.
    pub deadline: u64,
    /// When the last byte came, from either side.
    pub active_at: u64,
    began_at: u64,
    pub client_ip: Option<IpAddr>,
    /// `None` exactly when the slot is free.
    policy: Option<Rc<Policy>>,
    /// Who the backend is, once one is chosen.
    pub chosen: Option<Arc<Backend>>,
    /// Its place at that backend, if it has one: exactly while there is a socket towards it.
    pub booking: Option<Booking>,
    /// Exactly while the breaker of its pool waits for it.
    pub probe: Option<Probe>,
    /// The answer may have no body: it is one to HEAD.
    pub is_head: bool,
    pub outcome: Outcome,
}

impl Life {
    pub fn none() -> Self {
        Life {
            deadline: u64::MAX,
            active_at: 0,
            began_at: 0,
            client_ip: None,
            policy: None,
            chosen: None,
            booking: None,
            probe: None,
            is_head: false,
            outcome: Outcome::default(),
        }
    }

    pub fn new(client_ip: Option<IpAddr>, policy: Rc<Policy>, now: u64) -> Self {
        Life { active_at: now, began_at: now, client_ip, policy: Some(policy), ..Life::none() }
    }

    /// The slot is free.
    pub fn end(&mut self, cx: &Context<'_>) {
        debug_assert!(self.booking.is_none(), "the backend's socket is closed, and with it the booking");
        debug_assert!(self.probe.is_none(), "the breaker knows how its probe went");
        self.report(cx);
        *self = Life::none();
    }

    pub fn policy(&self) -> &Policy {
        in_force(&self.policy)
    }

    /// It is routed, or routed anew. Only without a booking, which is one at the policy's pool.
    pub fn set_policy(&mut self, policy: Rc<Policy>) {
        debug_assert!(self.booking.is_none(), "routed while it has a backend");
        self.policy = Some(policy);
    }

    pub fn policy_and_probe(&mut self) -> (&Policy, &mut Option<Probe>) {
        (in_force(&self.policy), &mut self.probe)
    }

    pub fn waits(&self) -> Waits {
        self.policy().waits
    }

    /// It no longer counts among the backend's handshakes.
    pub fn end_handshake(&mut self, cx: &mut Context<'_>) {
        if let (Some(booking), Some(chosen)) = (&mut self.booking, &self.chosen) {
            cx.shared.room |= booking.end_handshake(&chosen.state);
        }
    }

    /// The backend's socket is closed.
    pub fn release_backend(&mut self, cx: &mut Context<'_>) {
        if let Some(booking) = self.booking.take() {
            let backend = self.chosen.as_ref().expect("a booking is one at the backend that was chosen");
            booking.release(backend, &self.policy().pool().state, &cx.shared.current.table);
            cx.shared.room = true;
        }
    }

    /// The session's line in the log.
    fn report(&self, cx: &Context<'_>) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let backend = self.chosen.as_ref().map(|chosen| &*chosen.name);
        let route = self.policy().route().map(|route| &*route.name);
        let relayed = self.outcome.relayed();
        tracing::debug!(
            client = self.client_ip.map(tracing::field::display),
            route = route.map(tracing::field::display),
            backend = backend.map(tracing::field::display),
            ended_by = self.outcome.ended_by().name(),
            cause = self.outcome.cause().map(Cause::label),
            reason = %self.outcome.cause().map(Cause::text).unwrap_or_default(),
            status = self.outcome.status(),
            client_close = relayed.client_close,
            backend_close = relayed.backend_close,
            messages_in = relayed.messages_in,
            messages_out = relayed.messages_out,
            bytes_in = relayed.bytes_in,
            bytes_out = relayed.bytes_out,
            duration_ms = cx.now - self.began_at,
            "session ended"
        );
    }
}

fn in_force(policy: &Option<Rc<Policy>>) -> &Policy {
    policy.as_deref().expect("a session that is not free has a policy")
}
