//! Pool -> backend. Pure policy: time and randomness are arguments.
//!
//! A policy proposes; what it proposes is taken if it may be. If nothing that it proposes may be, the least loaded of all
//! that may be is taken, so that nobody is refused for the sake of a policy.

mod alias;
mod least;
mod stride;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::{Balance, HashKeep};
use crate::table::bounds::{GROUP, Load, WEIGHT_UNIT};
use crate::table::hash::nth;
use crate::table::state::{BackendState, PoolState};
use crate::table::{Member, Pool, Table};
use alias::Alias;
use least::{Least, Search};
use stride::Stride;
use view::{Class, View};

pub use crate::table::hash::hash_bytes;

/// Chooses the backends of one pool for one worker.
#[derive(Debug)]
pub struct Balancer {
    view: View,
    policy: Policy,
}

/// A request's question.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The hash of the request's key, for `ip-hash` and `consistent-hash`.
    pub key: u64,
    /// Members that have failed it.
    pub tried: &'a [u16],
    /// Some have failed it, and it will ask for nobody else after this one.
    pub is_last: bool,
    /// Milliseconds since the table's epoch.
    pub now: u64,
    pub random: u64,
    /// It counts as a handshake of the one that is chosen. Plain HTTP does not: it may take as long as it likes.
    pub is_handshake: bool,
}

/// Why nobody was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Nobody is usable, or all who are have been tried.
    Down,
    /// Those that are usable have all the sessions or handshakes that they may have.
    Full,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(Stride),
    LeastConnections(Least),
    PowerOfTwo(Alias),
    Random(Alias),
    Hash {
        /// The bound on a member's load, in percent of its share.
        percent_max: Option<u32>,
        keep: HashKeep,
    },
}

/// How often a policy proposes somebody else before all are looked at.
const PROPOSALS_MAX: u64 = 16;
/// How often the search starts again because other workers took what it had found.
const RACES_MAX: u32 = 16;

impl Balancer {
    pub fn new(pool: &Pool) -> Self {
        let policy = match pool.config.balance {
            Balance::RoundRobin => Policy::RoundRobin(Stride::default()),
            Balance::LeastConnections => Policy::LeastConnections(Least::default()),
            Balance::PowerOfTwo => Policy::PowerOfTwo(Alias::default()),
            Balance::Random => Policy::Random(Alias::default()),
            Balance::IpHash => Policy::Hash { percent_max: None, keep: HashKeep::Off },
            Balance::ConsistentHash => {
                let keep = pool.config.hash_keep;
                // A bound would send away from home who has been told to go there.
                let percent_max = pool.config.hash_load_percent_max.filter(|_| keep != HashKeep::Home);
                Policy::Hash { percent_max, keep }
            }
        };
        Balancer { view: View::default(), policy }
    }

    /// Chooses and reserves: the member has a session more, and a handshake if the request is one, the pool a session.
    /// They end with [`handshake_ended`] and [`release`].
    pub fn choose(&mut self, pool: &Pool, ask: &Ask<'_>) -> Result<u16, Unavailable> {
        self.refresh(pool, ask);
        // Primaries may all be dead and not yet known to be: so the last try is not one of them, if there is a backup. One
        // that is ejected is no better than a primary that has not been tried.
        if ask.is_last
            && let Ok(number) = self.beyond_view(pool, ask, Class::Backup)
        {
            return Ok(number);
        }
        if let Some(number) = self.propose(pool, ask) {
            return Ok(number);
        }
        match self.least_loaded(pool, ask) {
            Err(Unavailable::Down) => self.beyond_view(pool, ask, Class::EjectedBackup),
            other => other,
        }
    }

    /// Who is not in the view, untried: the least loaded of the first class that has anybody, up to the `worst`.
    fn beyond_view(&self, pool: &Pool, ask: &Ask<'_>, worst: Class) -> Result<u16, Unavailable> {
        let order = |number: &u16| {
            let member = &pool.members[usize::from(*number)];
            let load = Load::new(member.state.sessions.load(Relaxed), Load::price(member.weight * WEIGHT_UNIT));
            (view::class(member, ask.now), load)
        };
        let is_one = |(number, member): &(u16, &Member)| {
            view::may_be_used(member) && !self.view.has(*number) && !ask.tried.contains(number)
        };
        let mut others: Vec<u16> = (0..).zip(&pool.members).filter(is_one).map(|(number, _)| number).collect();
        others.retain(|number| order(number).0 <= worst);
        others.sort_by_cached_key(order);
        let nobody = if others.is_empty() { Unavailable::Down } else { Unavailable::Full };
        others.into_iter().find(|number| reserve(pool, ask, *number, u32::MAX)).ok_or(nobody)
    }

    /// Reserves a member that is wanted, if it is usable, untried and not full.
    pub fn claim(&mut self, pool: &Pool, number: u16, ask: &Ask<'_>) -> bool {
        self.refresh(pool, ask);
        let Some(member) = pool.members.get(usize::from(number)) else { return false };
        // A backup that has taken sessions keeps them. Ejected ones are in the view if there is nobody else.
        let is_usable = view::is_usable(member, ask.now) || self.view.has(number);
        is_usable && !ask.tried.contains(&number) && reserve(pool, ask, number, u32::MAX)
    }

    /// Reserves a member for a key that has open sessions at these.
    pub fn join(&mut self, pool: &Pool, there: &[u16], ask: &Ask<'_>) -> Option<u16> {
        let goes_home = matches!(self.policy, Policy::Hash { keep: HashKeep::Home, .. }) && !there.is_empty();
        let home = if goes_home { self.home(pool, ask) } else { None };
        home.into_iter().chain(there.iter().copied()).find(|number| self.claim(pool, *number, ask))
    }

    /// Where the hash leads, if there is room.
    pub fn home(&mut self, pool: &Pool, ask: &Ask<'_>) -> Option<u16> {
        self.refresh(pool, ask);
        let ring = pool.ring.as_ref()?;
        let is_one = |number: &u16| self.view.has(*number) && !ask.tried.contains(number);
        let proposed = (0..PROPOSALS_MAX).filter_map(|proposal| ring.find(nth(ask.key, proposal))).find(is_one);
        let suited =
            || self.view.numbers().iter().copied().filter(is_one).max_by_key(|one| ring.affinity(ask.key, *one));
        proposed.or_else(suited).filter(|number| has_room(pool, ask, *number))
    }

    fn refresh(&mut self, pool: &Pool, ask: &Ask<'_>) {
        if self.view.is_current(pool, ask.now) {
            return;
        }
        self.view.rebuild(pool, ask.now);
        match &mut self.policy {
            Policy::RoundRobin(stride) => stride.update(&self.view, ask.random),
            Policy::LeastConnections(least) => {
                least.update(&self.view, pool);
                reset(pool);
            }
            Policy::PowerOfTwo(alias) | Policy::Random(alias) => alias.update(&self.view),
            Policy::Hash { .. } => (),
        }
    }

    fn propose(&mut self, pool: &Pool, ask: &Ask<'_>) -> Option<u16> {
        if let Policy::LeastConnections(_) = &self.policy {
            return self.least_connections(pool, ask);
        }
        let Balancer { view, policy } = self;
        let mut proposals = 0..PROPOSALS_MAX;
        match policy {
            Policy::RoundRobin(stride) => proposals.find_map(|_| {
                let number = stride.next(view)?;
                take(view, pool, ask, number)
            }),
            Policy::Random(alias) => proposals.find_map(|proposal| {
                let number = alias.pick(nth(ask.random, proposal))?;
                take(view, pool, ask, number)
            }),
            Policy::PowerOfTwo(alias) => proposals.find_map(|proposal| {
                let (one, other) = alias.pick_two(nth(ask.random, proposal))?;
                let load = |number| view.load(pool, number);
                let (less, more) = if load(other) < load(one) { (other, one) } else { (one, other) };
                take(view, pool, ask, less).or_else(|| take(view, pool, ask, more))
            }),
            Policy::Hash { percent_max, .. } => hashed(view, pool, ask, *percent_max),
            Policy::LeastConnections(_) => None,
        }
    }

    fn least_connections(&mut self, pool: &Pool, ask: &Ask<'_>) -> Option<u16> {
        for _ in 0..RACES_MAX {
            let Policy::LeastConnections(least) = &mut self.policy else { return None };
            match least.search(&self.view, pool, ask) {
                Search::Taken(number) => return Some(number),
                Search::Nobody => return None,
                Search::Stale => self.refresh(pool, ask),
                Search::Raced => (),
            }
        }
        None
    }

    /// Looks at everybody. Fails only if nobody may be taken.
    fn least_loaded(&self, pool: &Pool, ask: &Ask<'_>) -> Result<u16, Unavailable> {
        for _ in 0..RACES_MAX {
            let untried = || self.view.rotated(ask.random).filter(|number| !ask.tried.contains(number));
            let roomy = untried().filter(|number| has_room(pool, ask, *number));
            let least = roomy.min_by_key(|number| self.view.load(pool, *number));
            match least {
                Some(number) if reserve(pool, ask, number, u32::MAX) => return Ok(number),
                Some(_) => (),
                None if untried().next().is_none() => return Err(Unavailable::Down),
                None => break,
            }
        }
        Err(Unavailable::Full)
    }
}

/// The handshake with it has ended, answered or failed. The session may go on.
pub fn handshake_ended(state: &BackendState) {
    let before = state.handshakes.fetch_sub(1, Relaxed);
    debug_assert!(before > 0, "a handshake ended that had not begun");
}

/// A session no longer uses it. `pool` is the one it was chosen from, `current` the newest table that this worker has:
/// what least-connections knows there has to learn of it.
pub fn release(state: &BackendState, pool: &PoolState, current: &Table) {
    let before = state.sessions.fetch_sub(1, Relaxed);
    debug_assert!(before > 0, "a session ended that had not begun");
    pool.sessions.fetch_sub(1, Relaxed);
    let place = state.place_in(current.generation);
    if let Some((pool, number)) = place.and_then(|(pool, number)| Some((current.pools.get(pool)?, number)))
        && let Some(member) = pool.members.get(number)
    {
        // As light as it can be: with less weight, in slow start, its load is higher, and bounds are lower bounds.
        let price = Load::price(member.weight * WEIGHT_UNIT);
        pool.bounds.lower(number / GROUP, Load::new(before.saturating_sub(1), price));
    }
}

/// Forgets what all workers know about the pool's loads. For a worker that adopts a new table: what it has released
/// before did not reach that table's bounds.
pub fn reset(pool: &Pool) {
    pool.bounds.reset();
}

/// The key's own member, or if that may not be taken the one that another hash of the key leads to, so that the keys of
/// a member that is down spread over all others.
fn hashed(view: &View, pool: &Pool, ask: &Ask<'_>, percent_max: Option<u32>) -> Option<u16> {
    let ring = pool.ring.as_ref()?;
    let sessions_max = |number| percent_max.map_or(u32::MAX, |percent| view.share(pool, number, percent));
    for proposal in 0..PROPOSALS_MAX {
        let number = ring.find(nth(ask.key, proposal))?;
        if view.has(number) && !ask.tried.contains(&number) && reserve(pool, ask, number, sessions_max(number)) {
            return Some(number);
        }
    }
    let has_share = |number: u16| pool.members[usize::from(number)].state.sessions.load(Relaxed) < sessions_max(number);
    let untried = view.numbers().iter().copied().filter(|number| !ask.tried.contains(number));
    let best = untried
        .filter(|number| has_room(pool, ask, *number) && has_share(*number))
        .max_by_key(|number| ring.affinity(ask.key, *number))?;
    reserve(pool, ask, best, sessions_max(best)).then_some(best)
}

fn take(view: &View, pool: &Pool, ask: &Ask<'_>, number: u16) -> Option<u16> {
    (view.has(number) && !ask.tried.contains(&number) && reserve(pool, ask, number, u32::MAX)).then_some(number)
}

fn has_room(pool: &Pool, ask: &Ask<'_>, number: u16) -> bool {
    let member = &pool.members[usize::from(number)];
    member.state.sessions.load(Relaxed) < member.connections_max
        && member.state.handshakes.load(Relaxed) < handshakes_max(pool, ask)
}

/// How many handshakes whoever is chosen may have then.
fn handshakes_max(pool: &Pool, ask: &Ask<'_>) -> u32 {
    pool.config.admission.backend_handshakes_max.filter(|_| ask.is_handshake).unwrap_or(u32::MAX)
}

/// Counts a session, and a handshake if the request is one, if the member may have more of them.
fn reserve(pool: &Pool, ask: &Ask<'_>, number: u16, sessions_max: u32) -> bool {
    let member = &pool.members[usize::from(number)];
    if ask.is_handshake && !count(&member.state.handshakes, handshakes_max(pool, ask)) {
        return false;
    }
    // Behind the handshakes: sessions fall in release() alone, which tells the bounds.
    if !count(&member.state.sessions, member.connections_max.min(sessions_max)) {
        if ask.is_handshake {
            member.state.handshakes.fetch_sub(1, Relaxed);
        }
        return false;
    }
    pool.state.sessions.fetch_add(1, Relaxed);
    true
}

/// Never above the maximum, not even for a moment: another worker would see somebody full who is not.
fn count(counter: &AtomicU32, max: u32) -> bool {
    if max == u32::MAX {
        counter.fetch_add(1, Relaxed);
        return true;
    }
    counter.fetch_update(Relaxed, Relaxed, |count| (count < max).then(|| count + 1)).is_ok()
}
