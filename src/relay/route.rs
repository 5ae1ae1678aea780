//! From a checked request to a connected backend: its route, its place in the pool's queue, a backend, and the next one if
//! that cannot be reached.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::balance::{Ask, Unavailable, hash_bytes};
use super::booking::{Booking, Probe};
use super::context::Context;
use super::handshake::Handshake;
use super::hops;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::policy::{PoolView, Routed, Waiting};
use super::port::{Link, Port};
use super::refusal::Refusal;
use super::session::{Session, State};
use super::waiting::ADMIT_MS;
use crate::config::millis;
use crate::config::{self, Balance, HashKeep, HashKey, HeaderEdits, PlainHttp, ValueMatch};
use crate::op::Side;
use crate::proto::http::Body;
use crate::proto::upgrade::{Edit, Head, Incoming, ambiguity, normal_form, rewrite};
use crate::table::breaker::Admitted;
use crate::table::state::{BackendState, is_local_exhaustion};
use crate::table::{Pool, router::RequestView};

/// Why a handshake cannot go to a backend now.
enum Denial {
    /// It will not.
    Refused(Refusal),
    /// It may wait for its turn, and ask again after so many milliseconds.
    Busy(Refusal, u64),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Denial::Refused(refusal)
    }
}

/// What of this machine a connect lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalExhaustion {
    /// A port towards this one backend (EADDRNOTAVAIL): towards others there are some.
    Port,
    /// Descriptors or memory, which no other connect finds either.
    Everything,
}

impl Session {
    /// Connects to the next backend, waits for its turn, or tells the client why not.
    pub fn connect_next(&mut self, cx: &mut Context<'_>) {
        match self.routed(cx).and_then(|()| self.choose(false, cx)) {
            Ok((number, booking)) => self.connect(number, booking, cx),
            Err(Denial::Busy(refusal, _)) => self.enqueue(refusal, cx),
            Err(denial) => self.deny(denial, cx),
        }
    }

    fn deny(&mut self, (Denial::Refused(refusal) | Denial::Busy(refusal, _)): Denial, cx: &mut Context<'_>) {
        let is_unwell = matches!(refusal, Refusal::NoBackend | Refusal::ConnectTimeout);
        let has_asked = |handshake: &Handshake| !handshake.tried.is_empty() && handshake.exhausted.is_none();
        if is_unwell && matches!(&self.state, State::Connecting(handshake) if has_asked(handshake)) {
            self.handshake_judged(false, cx);
        }
        self.refuse(refusal, cx);
    }

    /// Looks up the route, unless the newest table has been asked already.
    fn routed(&mut self, cx: &mut Context<'_>) -> Result<(), Denial> {
        let State::Connecting(handshake) = &mut self.state else { unreachable!("asked in state Connecting only") };
        let generation = cx.shared.current.table.generation;
        if handshake.generation == generation {
            return Ok(());
        }
        let policy = self.policy.as_deref().expect("a session that is not free has a policy");
        let before = policy.route().map(|_| policy.pool().state.clone());
        let incoming = handshake.incoming.as_ref().expect("a request is checked before it is routed");
        let asking = incoming.head();
        let listener = cx.shared.current.listener(handshake.listener);
        let Some((number, matched)) = cx.shared.current.table.router.find(asking, listener) else {
            return Err(Refusal::NoRoute.into());
        };
        let strict = cx.shared.current.table.router.is_strict(number);
        if let Some(rejection) = ambiguity(&asking.target).filter(|_| strict) {
            return Err(Refusal::Request(rejection).into());
        }
        handshake.hops = hops::passed(asking, self.client_ip, cx.shared.config().limits.hops_max)?;
        let policy = cx.shared.current.policy(number);
        let route = policy.route().expect("made for this route");
        if let (Incoming::Plain(_, rejection), PlainHttp::Refuse) = (incoming, route.plain_http) {
            return Err(Refusal::Request(rejection.clone()).into());
        }
        if let Incoming::Plain(request, _) = incoming {
            let fits = fits(&request.body, route.limits.request_body_bytes_max);
            if let Err(refusal) = fits {
                self.policy = Some(policy.clone());
                self.tell_too_large(cx);
                return Err(refusal.into());
            }
        }
        let rewritten = route.rewrite.as_ref().map(|replacement| rewrite(&asking.target, matched, replacement, strict));
        handshake.target = rewritten.transpose().map_err(Refusal::Request)?;
        let pool = policy.pool();
        let named = named_key(&pool.config, asking);
        handshake.key =
            named.or_else(|| address_key(&pool.config, self.client_ip)).unwrap_or_else(|| cx.shared.random());
        handshake.kept_key = match pool.config.hash_keep {
            HashKeep::Off => None,
            HashKeep::On | HashKeep::Home => named.and_then(NonZeroU64::new),
        };
        handshake.wanted = wanted(&cx.shared.current.table.pools[route.pool], asking);
        handshake.came_with = handshake.wanted;
        handshake.tried.clear();
        handshake.generation = generation;
        // Another table's pool may be the same one, which has let it in and counted it already.
        handshake.admitted &= before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &pool.state));
        if let Some(before) = before.filter(|_| !handshake.admitted)
            && let Some(probe) = self.probe.take()
        {
            probe.withdraw(&before);
        }
        self.chosen = None;
        self.policy = Some(policy);
        Ok(())
    }

    /// A backend, reserved. `its_turn`: nobody waits before this one.
    fn choose(&mut self, its_turn: bool, cx: &mut Context<'_>) -> Result<(u16, Booking), Denial> {
        let (State::Connecting(handshake) | State::Queued(handshake)) = &mut self.state else {
            unreachable!("asked before there is a backend")
        };
        let pool = self.policy.as_deref().expect("a routed session").pool();
        let is_handshake = !handshake.is_plain();
        let tries_max = pool.config.admission.tries_max;
        // A client that has ended its half may still wait for an answer, but who can tell; it has had its try.
        let has_gone = self.client.finished && is_handshake && handshake.tries > 0;
        if handshake.exhausted == Some(LocalExhaustion::Everything) {
            return Err(Refusal::LocalExhaustion.into());
        }
        if handshake.tries >= tries_max || handshake.dial_left == 0 || has_gone {
            return Err(nobody(handshake).into());
        }
        if !handshake.admitted {
            let queue_max = pool.config.admission.queue_max;
            // Who waits for some backends only is not overtaken by somebody who goes to another.
            let others = || pool.state.waiting.load(Relaxed) > pool.state.retrying.load(Relaxed);
            if !its_turn && queue_max > 0 && others() {
                return Err(Denial::Busy(Refusal::QueueFull, ADMIT_MS));
            }
            self.probe = admit(pool, is_handshake, cx.now)?;
            handshake.admitted = true;
        }
        let random = cx.shared.random();
        let is_last = handshake.tries > 0 && handshake.tries + 1 == tries_max;
        let ask = Ask { key: handshake.key, tried: &handshake.tried, is_last, now: cx.now, random, is_handshake };
        let (pool, PoolView { balancer, .. }) = cx.shared.current.pool_and_view(pool.number());
        let wanted = handshake.wanted.take().filter(|wanted| balancer.claim(pool, *wanted, &ask));
        let held = handshake.kept_key.map(|key| pool.state.keys.hold(key.get()));
        let join = || {
            let place = |backend: &Arc<BackendState>| backend.place_in(handshake.generation);
            let there: Vec<u16> =
                held.as_ref()?.backends().iter().filter_map(place).map(|(_, number)| number as u16).collect();
            balancer.join(pool, &there, &ask)
        };
        let chosen = match wanted.or_else(join) {
            Some(number) => Ok(number),
            None => balancer.choose(pool, &ask),
        };
        if let (Ok(number), Some(held)) = (chosen, held) {
            held.join(&pool.members[usize::from(number)].state);
        }
        let booking = |number| (number, Booking::new(handshake.kept_key, is_handshake));
        chosen.map(booking).map_err(|unavailable| match unavailable {
            Unavailable::Full => Denial::Busy(Refusal::PoolFull, ADMIT_MS),
            Unavailable::Down => nobody(handshake).into(),
        })
    }

    fn connect(&mut self, number: u16, booking: Booking, cx: &mut Context<'_>) {
        let (State::Connecting(handshake) | State::Queued(handshake)) = &mut self.state else {
            unreachable!("a backend is chosen before there is one")
        };
        handshake.tried.push(number);
        handshake.tries += 1;
        handshake.leaves = None;
        handshake.dialled_at = cx.now;
        let policy = self.policy.as_deref().expect("a routed session");
        let waits = policy.waits;
        let pool = &cx.shared.current.table.pools[policy.pool().number()];
        let backend = &pool.members[usize::from(number)].backend;
        let cookie = pool.sticky.as_ref().filter(|_| handshake.came_with != Some(number));
        // Clients come over plain TCP only, until there is TLS.
        handshake.set_cookie = cookie.map(|sticky| sticky.set_cookie(number, false));
        handshake.dial_left = handshake.dial_left.min(waits.dial);
        // Each of those that may still be tried has its share of the time, so that the last one has some.
        let untried = (pool.members.len() + 1).saturating_sub(handshake.tried.len()).max(1) as u64;
        let tries_left = u64::from(pool.config.admission.tries_max.saturating_sub(handshake.tries) + 1).min(untried);
        self.deadline = cx.now + waits.connect.min((handshake.dial_left / tries_left).max(1));
        self.chosen = Some(backend.clone());
        self.booking = Some(booking);
        self.backend = Port::absent(self.backend.conn());
        let address = backend.address.clone();
        self.backend.connect(address, cx);
    }

    /// A WebSocket's client that has ended its half of the connection cannot use what it would wait for.
    fn enqueue(&mut self, refusal: Refusal, cx: &mut Context<'_>) {
        if self.client.finished && !matches!(&self.state, State::Connecting(handshake) if handshake.is_plain()) {
            self.outcome.set(EndedBy::Client, Cause::LeftBeforeAnswer);
            return self.terminate(cx);
        }
        let pool = self.policy().pool();
        let until = cx.now + millis(pool.config.admission.queue_timeout);
        let retrying = matches!(&self.state, State::Connecting(handshake) if !handshake.tried.is_empty());
        if !cx.shared.current.enqueue(pool.number(), Waiting { session: self.index(), retrying }) {
            return self.refuse(refusal, cx);
        }
        let State::Connecting(mut handshake) = std::mem::replace(&mut self.state, State::Ending) else {
            unreachable!("who waits has not chosen yet")
        };
        // A reload sends everybody to the queues once more, but gives nobody more time.
        handshake.queued_until = handshake.queued_until.min(until);
        self.deadline = handshake.queued_until;
        self.state = State::Queued(handshake);
        cx.shared.metrics.queued.add(1);
    }

    /// First in its queue. Fails if it cannot leave it yet: then it may ask again after so many milliseconds.
    pub fn take_turn(&mut self, cx: &mut Context<'_>) -> Result<(), u64> {
        let chosen = self.choose(true, cx);
        if let Err(Denial::Busy(_, wait)) = chosen {
            return Err(wait);
        }
        self.leave_queue(cx);
        self.resume();
        match chosen {
            Ok((number, booking)) => self.connect(number, booking, cx),
            Err(denial) => self.deny(denial, cx),
        }
        self.mark_dirty(cx);
        Ok(())
    }

    /// The queue is gone, because there is a newer table.
    pub fn requeue(&mut self) {
        self.resume();
        self.deadline = u64::MAX;
    }

    fn resume(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Ending) {
            State::Queued(handshake) => State::Connecting(handshake),
            state => unreachable!("{state:?} is not in a queue"),
        };
    }

    /// Before the state is left.
    pub fn leave_queue(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Queued(_)) {
            cx.shared.current.dequeue(self.policy().pool().number(), self.index());
        }
    }

    pub fn queue_timed_out(&mut self, cx: &mut Context<'_>) {
        cx.shared.metrics.queue_timeouts.add(1);
        self.refuse(Refusal::QueueTimeout, cx);
    }

    /// A Connect that was still wanted has ended.
    pub fn connected(&mut self, result: io::Result<()>, cx: &mut Context<'_>) {
        if let Err(error) = result {
            match local_exhaustion(&error) {
                Some(what) => self.connect_exhausted(what, &error, cx),
                None => self.connect_failed(&error, cx),
            }
            self.backend.link = Link::Retiring { connecting: false };
            return;
        }
        self.backend.link = Link::Live;
        self.ask_backend(cx);
    }

    fn connect_failed(&mut self, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        self.connect_ended(cx.now);
        cx.shared.metrics.connect_failures.add(1);
        self.backend_failed(error, cx);
        self.end_handshaking(cx);
    }

    fn connect_ended(&mut self, now: u64) {
        if let State::Connecting(handshake) = &mut self.state {
            handshake.dial_left = handshake.dial_left.saturating_sub(now - handshake.dialled_at);
        }
    }

    /// That is nothing that the backend could have done better.
    fn connect_exhausted(&mut self, what: LocalExhaustion, error: &io::Error, cx: &mut Context<'_>) {
        self.connect_ended(cx.now);
        if let State::Connecting(handshake) = &mut self.state {
            handshake.exhausted = Some(what);
        }
        cx.shared.metrics.connect_failures.add(1);
        if let Some(chosen) = &self.chosen
            && chosen.state.failure_is_news(cx.now)
        {
            tracing::warn!(backend = &*chosen.name, %error, "this machine lacks what a connect needs");
        }
        self.end_handshaking(cx);
    }

    pub fn connect_timed_out(&mut self, cx: &mut Context<'_>) {
        if let State::Connecting(handshake) = &mut self.state {
            handshake.timed_out = true;
        }
        self.connect_failed(&"no connection in time (timeouts.connect, timeouts.dial)", cx);
        self.retire(Side::Backend, cx);
    }

    /// It no longer counts among the backend's handshakes.
    pub fn end_handshaking(&mut self, cx: &mut Context<'_>) {
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

    /// It is of this pool of the newest table, and its key's home is another backend, which has room.
    pub fn is_away(&self, number: usize, cx: &mut Context<'_>) -> bool {
        let key = self.booking.as_ref().and_then(Booking::key);
        let (Some(key), Some(chosen)) = (key, &self.chosen) else { return false };
        let random = cx.shared.random();
        let (pool, PoolView { balancer, .. }) = cx.shared.current.pool_and_view(number);
        if !Arc::ptr_eq(&self.policy().pool().state, &pool.state) {
            return false;
        }
        let ask = Ask { key: key.get(), tried: &[], is_last: false, now: cx.now, random, is_handshake: true };
        balancer
            .home(pool, &ask)
            .is_some_and(|home| !Arc::ptr_eq(&pool.members[usize::from(home)].state, &chosen.state))
    }

    /// Its backend is down or drained: leave, but not all at the same moment. A handshake that is under way goes on, as only
    /// an open session can be told to come back.
    pub fn move_away(&mut self, notice: Notice, spread: u64, cx: &mut Context<'_>) {
        if let State::Connecting(handshake) | State::Answering(handshake) = &mut self.state {
            handshake.leaves = Some((notice, spread));
        }
        if !matches!(self.state, State::Open) || self.leave.is_some() {
            return;
        }
        if spread == 0 {
            return self.go_away(notice, cx);
        }
        self.leave = Some((cx.now + cx.shared.random() % spread, notice));
        self.mark_dirty(cx);
    }
}

fn local_exhaustion(error: &io::Error) -> Option<LocalExhaustion> {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => Some(LocalExhaustion::Port),
        _ if is_local_exhaustion(error) => Some(LocalExhaustion::Everything),
        _ => None,
    }
}

/// Nobody is left to be tried.
fn nobody(handshake: &Handshake) -> Refusal {
    match handshake.timed_out {
        true => Refusal::ConnectTimeout,
        false => Refusal::NoBackend,
    }
}

/// A body that says how long it is can be refused before any of it has come.
fn fits(body: &Body, bytes_max: Option<u64>) -> Result<(), Refusal> {
    match (body, bytes_max) {
        (Body::Length(length), Some(max)) if *length > max => Err(Refusal::BodyTooLarge(max)),
        _ => Ok(()),
    }
}

/// The backend that the client's cookie names: of several cookies the first that names one.
fn wanted(pool: &Pool, asking: &Head) -> Option<u16> {
    let sticky = pool.sticky.as_ref()?;
    asking.cookies(sticky.cookie()).find_map(|value| sticky.find(value))
}

/// Whether the pool takes another request now, and whether that is a probe of its breaker. The rate is one of handshakes;
/// the breaker asks about plain HTTP too.
fn admit(pool: &Routed, is_handshake: bool, now: u64) -> Result<Option<Probe>, Denial> {
    if pool.state.breaker.refuses(&pool.config.breaker, now) {
        return Err(Refusal::BreakerOpen.into());
    }
    // Before the breaker counts it as a probe, which nobody could be who still has to wait.
    let admission = &pool.config.admission;
    if let Some(per_second) = admission.handshakes_per_second_max.filter(|_| is_handshake) {
        let burst = admission.handshakes_burst.unwrap_or(per_second);
        let taken = pool.state.rate.take(per_second, burst, now);
        taken.map_err(|wait| Denial::Busy(Refusal::HandshakeRate, wait))?;
    }
    let admitted = pool.state.breaker.admit(&pool.config.breaker, now).map_err(|_| Refusal::BreakerOpen)?;
    if admitted == Admitted::FirstProbe {
        tracing::info!(pool = pool.config.name, "circuit breaker is half open");
    }
    Ok((admitted != Admitted::Freely).then(Probe::new))
}

/// What the request says of where consistent hashing is to send it.
fn named_key(pool: &config::PoolConfig, asking: &Head) -> Option<u64> {
    if pool.balance != Balance::ConsistentHash {
        return None;
    }
    match &pool.hash {
        HashKey::ClientIp => None,
        HashKey::Header(name) => asking.header(name).next().map(hash_bytes),
        HashKey::Cookie(name) => asking.cookie(name).map(hash_bytes),
        HashKey::Query(name) => asking.query_value(name).map(str::as_bytes).map(hash_bytes),
        HashKey::Path(None) => Some(hash_bytes(normal_form(asking.path()).as_bytes())),
        HashKey::Path(Some(number)) => segment(&normal_form(asking.path()), *number).map(hash_bytes),
    }
}

/// What decides where hashing policies send a request that says nothing. `None`: there is nothing to tell clients apart by.
fn address_key(pool: &config::PoolConfig, client: Option<IpAddr>) -> Option<u64> {
    if !matches!(pool.balance, Balance::ConsistentHash | Balance::IpHash) {
        return Some(0);
    }
    client.map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()),
    })
}

/// The segment of this number, from 1, of a path in its normal form.
fn segment(path: &str, number: usize) -> Option<&[u8]> {
    path.split('/').filter(|segment| !segment.is_empty()).nth(number - 1).map(str::as_bytes)
}

impl RequestView for Head {
    fn host_name(&self) -> Cow<'_, str> {
        Head::host_name(self)
    }

    fn path(&self) -> &str {
        Head::path(self)
    }

    fn has_header(&self, name: &str, value: &ValueMatch) -> bool {
        self.header(name).any(|found| value.takes(found))
    }

    fn offers_subprotocol(&self, name: &str) -> bool {
        Head::offers_subprotocol(self, name)
    }
}

/// A route's header edits, in the order in which they apply.
pub(super) fn edits(edits: &HeaderEdits) -> impl Iterator<Item = Edit<'_>> {
    let removed = edits.remove.iter().map(|name| Edit::Remove { name });
    let set = edits.set.iter().map(|(name, value)| Edit::Replace { name, value: value.into() });
    let added = edits.add.iter().map(|(name, value)| Edit::Add { name, value: value.into() });
    removed.chain(set).chain(added)
}
