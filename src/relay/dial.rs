//! Stage: from a checked request to a connected backend: its route, its place in the pool's queue, a backend, and the next one
//! if that cannot be reached.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::answer::Answer;
use super::balance::{Ask, Unavailable};
use super::booking::{Booking, Probe};
use super::context::Context;
use super::current::PoolView;
use super::hops;
use super::life::Life;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::policy::Routed;
use super::port::{Link, Port, Ports};
use super::queue::{ADMIT_MS, Waiting};
use super::refusal::Refusal;
use super::request::ClientRequest;
use super::route::{self, address_key, named_key};
use super::stage::{Event, Step};
use super::upload;
use crate::config::{HashKeep, PlainHttp, millis};
use crate::op::Side;
use crate::proto::upgrade::{Incoming, ambiguity, rewrite};
use crate::table::breaker::Admitted;
use crate::table::state::{BackendState, is_local_exhaustion};

#[derive(Debug)]
pub(super) struct Dial {
    /// Until it goes on to the stage that follows.
    request: Option<ClientRequest>,
    /// It waits until the pool has room for it.
    is_queued: bool,
    /// What hashing policies go by, and the same if newcomers are to meet those who came by it.
    key: u64,
    kept_key: Option<NonZeroU64>,
    /// The backend that the client's cookie asks for, until it has been asked.
    wanted: Option<u16>,
    /// The backend that the client's cookie names.
    came_with: Option<u16>,
    /// The cookie that brings this client back to the backend that is asked, if it has not brought it itself.
    set_cookie: Option<String>,
    /// The table in which all these numbers are; 0: none yet.
    generation: u32,
    /// The pool has let it in: it passes the breaker, and a handshake counts in the rate, only once.
    admitted: bool,
    /// When waiting for its turn ends.
    queued_until: u64,
    /// Backends that could not be connected to.
    tried: Vec<u16>,
    /// How many connects there have been, those of earlier tables included.
    tries: u32,
    /// What is left of the time for all of them, and when the last began.
    dial_left: u64,
    dialled_at: u64,
    /// One of them had not answered in time.
    timed_out: bool,
    /// This machine lacked what a connect needs: that says nothing of the pool.
    exhausted: Option<LocalExhaustion>,
    /// Its backend is to be left, with this notice, within so many milliseconds of the 101.
    leaves: Option<(Notice, u64)>,
}

/// Why a request cannot go to a backend now.
enum Denial {
    /// It will not.
    Refused(Refusal),
    /// It may wait for its turn, and ask again after so many milliseconds.
    Busy(Refusal, u64),
}

/// What of this machine a connect lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocalExhaustion {
    /// A port towards this one backend (EADDRNOTAVAIL): towards others there are some.
    Port,
    /// Descriptors or memory, which no other connect finds either.
    Everything,
}

type Next = Step<Box<Answer>>;

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Denial::Refused(refusal)
    }
}

impl Dial {
    pub fn new(request: ClientRequest) -> Box<Self> {
        Box::new(Dial {
            request: Some(request),
            is_queued: false,
            key: 0,
            kept_key: None,
            wanted: None,
            came_with: None,
            set_cookie: None,
            generation: 0,
            admitted: false,
            queued_until: u64::MAX,
            tried: Vec::new(),
            tries: 0,
            dial_left: u64::MAX,
            dialled_at: 0,
            timed_out: false,
            exhausted: None,
            leaves: None,
        })
    }

    fn request(&self) -> &ClientRequest {
        self.request.as_ref().expect("it goes on with the stage")
    }

    pub fn credit(&self, cx: &Context<'_>) -> u32 {
        self.request().credit(&cx.shared.config().limits)
    }

    pub fn on(&mut self, event: Event<'_>, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Next {
        match event {
            Event::Bytes(Side::Client, bytes, backing) => {
                if let Some(request) = &mut self.request {
                    request.early.extend_from_slice(bytes);
                }
                backing.release(cx);
                Step::Stay
            }
            // It may still hear the answer of the backend that is being asked, but no other one is tried for it. Who waits
            // for its turn has nothing to come for, unless it asks for a page.
            Event::End(Side::Client, None) if !self.is_queued || self.request().is_plain() => Step::Stay,
            Event::End(Side::Client, _) => Step::End(EndedBy::Client, Cause::LeftBeforeAnswer),
            Event::Connected(result) => self.connected(result, ports, life, cx),
            Event::Unsendable(side, cause) => Step::End(side.into(), cause),
            Event::Deadline if self.is_queued => {
                cx.shared.metrics.queue_timeouts.add(1);
                Step::Refuse(Refusal::QueueTimeout)
            }
            Event::Deadline => {
                self.timed_out = true;
                self.connect_failed(&"no connection in time (timeouts.connect, timeouts.dial)", life, cx);
                ports.backend.retire(cx);
                Step::Stay
            }
            Event::Drain => Step::Refuse(Refusal::Draining),
            Event::Move(notice, spread) => {
                if !self.is_queued {
                    self.leaves = Some((notice, spread));
                }
                Step::Stay
            }
            other => other.ignore(cx),
        }
    }

    /// With no socket towards a backend: connects to the next one, waits for its turn, or tells the client why not.
    pub fn next(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Next {
        if self.is_queued || ports.backend.link != Link::Absent {
            return Step::Stay;
        }
        let chosen = self.find_route(life, cx).and_then(|()| self.choose(false, ports, life, cx));
        match chosen {
            Ok((number, booking)) => self.connect(number, booking, ports, life, cx),
            Err(Denial::Busy(refusal, _)) => self.enqueue(refusal, ports, life, cx),
            Err(denial) => self.deny(denial, life, cx),
        }
    }

    fn deny(&self, denial: Denial, life: &mut Life, cx: &mut Context<'_>) -> Next {
        let (Denial::Refused(refusal) | Denial::Busy(refusal, _)) = denial;
        let is_unwell = matches!(refusal, Refusal::NoBackend | Refusal::ConnectTimeout);
        if is_unwell && !self.tried.is_empty() && self.exhausted.is_none() {
            life.handshake_judged(false, cx);
        }
        Step::Refuse(refusal)
    }

    /// Looks up the route, unless the newest table has been asked already.
    fn find_route(&mut self, life: &mut Life, cx: &mut Context<'_>) -> Result<(), Denial> {
        let generation = cx.shared.current.table.generation;
        if self.generation == generation {
            return Ok(());
        }
        let before = life.policy().route().map(|_| life.policy().pool().state.clone());
        let Some(request) = &mut self.request else { return Ok(()) };
        let asking = request.incoming.head();
        let listener = cx.shared.current.listener(request.listener);
        let Some((number, matched)) = cx.shared.current.table.router.find(asking, listener) else {
            return Err(Refusal::NoRoute.into());
        };
        let strict = cx.shared.current.table.router.is_strict(number);
        if let Some(rejection) = ambiguity(&asking.target).filter(|_| strict) {
            return Err(Refusal::Request(rejection).into());
        }
        request.hops = hops::passed(asking, life.client_ip, cx.shared.config().limits.hops_max)?;
        let policy = cx.shared.current.policy(number);
        let route = policy.route().expect("made for this route");
        if let (Incoming::Plain(_, rejection), PlainHttp::Refuse) = (&request.incoming, route.plain_http) {
            return Err(Refusal::Request(rejection.clone()).into());
        }
        if let Incoming::Plain(plain, _) = &request.incoming
            && let Err(refusal) = upload::fits(&plain.body, route.limits.request_body_bytes_max)
        {
            let path = asking.path();
            upload::tell_too_large(&route.name, Some(path), cx);
            life.set_policy(policy);
            return Err(refusal.into());
        }
        let rewritten = route.rewrite.as_ref().map(|replacement| rewrite(&asking.target, matched, replacement, strict));
        let target = rewritten.transpose().map_err(Refusal::Request)?;
        let pool = policy.pool();
        let named = named_key(&pool.config, asking);
        self.key = named.or_else(|| address_key(&pool.config, life.client_ip)).unwrap_or_else(|| cx.shared.random());
        self.kept_key = match pool.config.hash_keep {
            HashKeep::Off => None,
            HashKeep::On | HashKeep::Home => named.and_then(NonZeroU64::new),
        };
        self.wanted = route::wanted(&cx.shared.current.table.pools[route.pool], asking);
        self.came_with = self.wanted;
        self.tried.clear();
        self.generation = generation;
        // Another table's pool may be the same one, which has let it in and counted it already.
        self.admitted &= before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &pool.state));
        if let Some(before) = before.filter(|_| !self.admitted)
            && let Some(probe) = life.probe.take()
        {
            probe.withdraw(&before);
        }
        request.target = target;
        life.chosen = None;
        life.set_policy(policy);
        Ok(())
    }

    /// A backend, reserved. `its_turn`: nobody waits before this one.
    fn choose(
        &mut self,
        its_turn: bool,
        ports: &Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Result<(u16, Booking), Denial> {
        let is_handshake = !self.request().is_plain();
        let (policy, probe) = life.policy_and_probe();
        let pool = policy.pool();
        let tries_max = pool.config.admission.tries_max;
        // A client that has ended its half may still wait for an answer, but who can tell; it has had its try.
        let has_gone = ports.client.finished && is_handshake && self.tries > 0;
        if self.exhausted == Some(LocalExhaustion::Everything) {
            return Err(Refusal::LocalExhaustion.into());
        }
        if self.tries >= tries_max || self.dial_left == 0 || has_gone {
            return Err(self.nobody().into());
        }
        if !self.admitted {
            let queue_max = pool.config.admission.queue_max;
            // Who waits for some backends only is not overtaken by somebody who goes to another.
            let others = || pool.state.waiting.load(Relaxed) > pool.state.retrying.load(Relaxed);
            if !its_turn && queue_max > 0 && others() {
                return Err(Denial::Busy(Refusal::QueueFull, ADMIT_MS));
            }
            *probe = admit(pool, is_handshake, cx.now)?;
            self.admitted = true;
        }
        let random = cx.shared.random();
        let is_last = self.tries > 0 && self.tries + 1 == tries_max;
        let ask = Ask { key: self.key, tried: &self.tried, is_last, now: cx.now, random, is_handshake };
        let (pool, PoolView { balancer, .. }) = cx.shared.current.pool_and_view(pool.number());
        let wanted = self.wanted.take().filter(|wanted| balancer.claim(pool, *wanted, &ask));
        let held = self.kept_key.map(|key| pool.state.keys.hold(key.get()));
        let join = || {
            let place = |backend: &Arc<BackendState>| backend.place_in(self.generation);
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
        match chosen {
            Ok(number) => Ok((number, Booking::new(self.kept_key, is_handshake))),
            Err(Unavailable::Full) => Err(Denial::Busy(Refusal::PoolFull, ADMIT_MS)),
            Err(Unavailable::Down) => Err(self.nobody().into()),
        }
    }

    /// Nobody is left to be tried.
    fn nobody(&self) -> Refusal {
        match self.timed_out {
            true => Refusal::ConnectTimeout,
            false => Refusal::NoBackend,
        }
    }

    fn connect(
        &mut self,
        number: u16,
        booking: Booking,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Next {
        self.tried.push(number);
        self.tries += 1;
        self.leaves = None;
        self.dialled_at = cx.now;
        let waits = life.waits();
        let pool = &cx.shared.current.table.pools[life.policy().pool().number()];
        let backend = pool.members[usize::from(number)].backend.clone();
        let cookie = pool.sticky.as_ref().filter(|_| self.came_with != Some(number));
        // Clients come over plain TCP only, until there is TLS.
        self.set_cookie = cookie.map(|sticky| sticky.set_cookie(number, false));
        self.dial_left = self.dial_left.min(waits.dial);
        // Each of those that may still be tried has its share of the time, so that the last one has some.
        let untried = (pool.members.len() + 1).saturating_sub(self.tried.len()).max(1) as u64;
        let tries_left = u64::from(pool.config.admission.tries_max.saturating_sub(self.tries) + 1).min(untried);
        life.deadline = cx.now + waits.connect.min((self.dial_left / tries_left).max(1));
        let address = backend.address.clone();
        life.chosen = Some(backend);
        life.booking = Some(booking);
        ports.backend = Port::absent(Side::Backend);
        ports.backend.connect(address, cx);
        Step::Stay
    }

    /// A WebSocket's client that has ended its half of the connection cannot use what it would wait for.
    fn enqueue(&mut self, refusal: Refusal, ports: &Ports, life: &mut Life, cx: &mut Context<'_>) -> Next {
        if ports.client.finished && !self.request().is_plain() {
            return Step::End(EndedBy::Client, Cause::LeftBeforeAnswer);
        }
        let pool = life.policy().pool();
        let until = cx.now + millis(pool.config.admission.queue_timeout);
        let who = Waiting { session: cx.client.session(), retrying: !self.tried.is_empty() };
        if !cx.shared.current.enqueue(pool.number(), who) {
            return Step::Refuse(refusal);
        }
        // A reload sends everybody to the queues once more, but gives nobody more time.
        self.queued_until = self.queued_until.min(until);
        life.deadline = self.queued_until;
        self.is_queued = true;
        cx.shared.metrics.queued.add(1);
        Step::Stay
    }

    /// First in its queue. Fails if it cannot leave it yet: then it may ask again after so many milliseconds.
    pub fn take_turn(&mut self, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Result<Next, u64> {
        let chosen = self.choose(true, ports, life, cx);
        if let Err(Denial::Busy(_, wait)) = chosen {
            return Err(wait);
        }
        self.leave_queue(life, cx);
        Ok(match chosen {
            Ok((number, booking)) => self.connect(number, booking, ports, life, cx),
            Err(denial) => self.deny(denial, life, cx),
        })
    }

    /// The queue is gone, because there is a newer table.
    pub fn requeue(&mut self, life: &mut Life) {
        self.is_queued = false;
        life.deadline = u64::MAX;
    }

    /// Also before the stage is left.
    pub fn leave_queue(&mut self, life: &Life, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.is_queued) {
            cx.shared.current.dequeue(life.policy().pool().number(), cx.client.session());
        }
    }

    fn connected(&mut self, result: io::Result<()>, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Next {
        if let Err(error) = result {
            // That may have passed in this very batch: then this is the failure that counts, and the only one.
            life.deadline = u64::MAX;
            match local_exhaustion(&error) {
                Some(what) => self.connect_exhausted(what, &error, life, cx),
                None => self.connect_failed(&error, life, cx),
            }
            ports.backend.link = Link::Retiring { connecting: false };
            return Step::Stay;
        }
        ports.backend.link = Link::Live;
        let Some(request) = self.request.take() else { return Step::Stay };
        Answer::ask(request, self.set_cookie.take(), self.leaves, ports, life, cx)
    }

    fn connect_failed(&mut self, error: &dyn std::fmt::Display, life: &mut Life, cx: &mut Context<'_>) {
        self.connect_ended(cx);
        life.backend_failed(error, cx);
    }

    /// That is nothing that the backend could have done better.
    fn connect_exhausted(&mut self, what: LocalExhaustion, error: &io::Error, life: &mut Life, cx: &mut Context<'_>) {
        self.connect_ended(cx);
        self.exhausted = Some(what);
        if let Some(chosen) = &life.chosen
            && chosen.state.failure_is_news(cx.now)
        {
            tracing::warn!(backend = &*chosen.name, %error, "this machine lacks what a connect needs");
        }
    }

    fn connect_ended(&mut self, cx: &mut Context<'_>) {
        self.dial_left = self.dial_left.saturating_sub(cx.now - self.dialled_at);
        cx.shared.metrics.connect_failures.add(1);
    }
}

fn local_exhaustion(error: &io::Error) -> Option<LocalExhaustion> {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => Some(LocalExhaustion::Port),
        _ if is_local_exhaustion(error) => Some(LocalExhaustion::Everything),
        _ => None,
    }
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
