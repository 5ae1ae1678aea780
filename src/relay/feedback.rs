//! What ejection and the circuit breaker hear of a session, and the log of them.

use super::context::Context;
use super::life::Life;
use super::policy::Routed;
use crate::config::millis;
use crate::table::breaker::BreakerChange;
use crate::table::eject;

/// Whose failure it is that a handshake has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Backend,
    /// A request of another kind may fare better: counts if many clients meet it.
    Request,
    /// It comes from what this client wants or offers, and says nothing about the backend.
    Offer,
}

impl Life {
    /// The backend has shown that it is not well.
    pub fn backend_failed(&mut self, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        let random = cx.shared.random();
        let Some(chosen) = &self.chosen else { return };
        let place = cx.shared.current.place(chosen);
        let ejected = place.and_then(|(pool, number)| eject::failed(pool, number, cx.now, random));
        self.tell_failure(ejected, error, cx);
    }

    /// The backend has failed this client, perhaps for what this client has sent. Returns whether so many others meet the
    /// same that it is the backend's.
    fn backend_suspected(&mut self, error: &dyn std::fmt::Display, cx: &mut Context<'_>) -> bool {
        let random = cx.shared.random();
        let Some((pool, number)) = self.chosen.as_ref().and_then(|chosen| cx.shared.current.place(chosen)) else {
            return false;
        };
        let client = eject::client_of(self.client_ip);
        let suspicion = eject::suspected(pool, number, client, cx.now, random);
        if suspicion.is_widespread {
            self.tell_failure(suspicion.ejected, error, cx);
        }
        suspicion.is_widespread
    }

    /// The handshake has failed at its backend, after the connect.
    pub fn handshake_failed(&mut self, failure: Failure, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        let is_the_backends = match failure {
            Failure::Backend => {
                self.backend_failed(error, cx);
                true
            }
            Failure::Request => self.backend_suspected(error, cx),
            Failure::Offer => false,
        };
        match is_the_backends {
            true => self.handshake_judged(false, cx),
            false => self.withdraw_probe(),
        }
    }

    /// It has dropped a session, which may have been the client's doing. One that it drops at once is a failure if it does
    /// so to many.
    pub fn backend_left(&mut self, opened_at: u64, cx: &mut Context<'_>) {
        let early = self.policy().pool().config.eject.early_close.map(millis);
        if early.is_some_and(|early| cx.now < opened_at.saturating_add(early)) {
            self.backend_suspected(&"it dropped a session soon after the handshake", cx);
        }
    }

    fn tell_failure(&self, ejected: Option<u64>, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        let Some(chosen) = &self.chosen else { return };
        let (pool, backend) = (&*self.policy().pool().config.name, &*chosen.name);
        let is_news = chosen.state.failure_is_news(cx.now);
        match ejected {
            Some(ms) => {
                cx.shared.metrics.ejections.add(1);
                tracing::warn!(pool, backend, %error, "backend is ejected for {ms} ms");
            }
            None if is_news => tracing::warn!(pool, backend, %error, "backend fails"),
            None => {}
        }
    }

    /// It has answered, and well.
    pub fn backend_answered(&mut self, cx: &mut Context<'_>) {
        let Some(chosen) = &self.chosen else { return };
        let pool = &self.policy().pool().state;
        eject::succeeded(pool, &chosen.state, eject::client_of(self.client_ip), cx.now);
        chosen.state.answered(cx.now);
    }

    /// The handshake is over, for the pool's circuit breaker: once for each that was admitted.
    pub fn handshake_judged(&mut self, good: bool, cx: &mut Context<'_>) {
        if let Some(probe) = self.probe.take() {
            probe.reported();
        }
        let pool = self.policy().pool();
        tell(pool, pool.state.breaker.report(&pool.config.breaker, good, cx.now));
    }

    /// The handshake is over, and nobody has learnt anything about the pool.
    pub fn withdraw_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.withdraw(&self.policy().pool().state);
        }
    }
}

fn tell(pool: &Routed, change: Option<BreakerChange>) {
    let name = &pool.config.name;
    match change {
        None => {}
        Some(BreakerChange::Opened) => {
            tracing::warn!(pool = name, "circuit breaker opens for {:?}", pool.config.breaker.open);
        }
        Some(BreakerChange::Closed) => tracing::info!(pool = name, "circuit breaker closes"),
    }
}
