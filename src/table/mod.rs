//! The table of one configuration: routes, pools and their backends, built by the control plane, shared by all workers and
//! never changed. A reload or a discovery builds the next one; what is counted about a pool or a backend lives in
//! [`state`] and goes on from table to table, which is what `known` is for; [`eject`], [`breaker`] and [`rate`] say how it
//! changes. [`router`] finds the route of a request; [`ring`], [`bounds`], [`keys`] and [`hash`] are what balancing looks up.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod breaker;
pub mod eject;
pub mod hash;
pub mod keys;
mod known;
pub mod rate;
pub mod ring;
pub mod router;
pub mod state;
mod sticky;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use crate::config::{self, Address, Balance, Config, millis};
use bounds::Bounds;
use known::{Known, KnownPool, Left};
use ring::Ring;
use router::Router;
use state::{BackendState, Checked, PoolState, Refusals};
use sticky::Sticky;

/// Backends that discovery has found, by their pool's name.
pub type Found = HashMap<String, Vec<config::Backend>>;

#[derive(Debug)]
pub struct Table {
    pub config: Arc<Config>,
    /// Counts from 1.
    pub generation: u32,
    /// All times in the states are milliseconds since this moment, which is the same for every table.
    pub epoch: Instant,
    /// Signs stickiness cookies where the config gives no secret.
    secret: [u8; 32],
    /// Shared by all tables of one config; its routes, by all tables in which they are the same.
    pub router: Arc<Router>,
    /// In the config's order.
    pub pools: Vec<Pool>,
    /// Of requests that no pool is to blame for.
    pub refusals: Arc<Refusals>,
    /// Backends that it has not, but earlier tables had.
    left: Vec<Left>,
}

#[derive(Debug)]
pub struct Pool {
    /// Without its backends, which are the members. Shared by all tables in which it is the same.
    pub config: Arc<config::PoolConfig>,
    /// Those of the config first, then those that were found. Numbered by their place here.
    pub members: Vec<Member>,
    /// If clients come back by a cookie.
    pub sticky: Option<Sticky>,
    /// With `ip-hash` and `consistent-hash`.
    pub ring: Option<Ring>,
    /// With `least-connections`; otherwise of no groups.
    pub bounds: Bounds,
    pub state: Arc<PoolState>,
}

/// A backend, as one pool uses it.
#[derive(Debug)]
pub struct Member {
    pub backend: Arc<Backend>,
    /// The backend's, one step nearer.
    pub state: Arc<BackendState>,
    /// 1 to 256.
    pub weight: u32,
    /// `u32::MAX`: no limit.
    pub connections_max: u32,
    pub slow_start: Option<Duration>,
    pub backup: bool,
    pub drain: bool,
}

/// Who a backend is, as long as that is the same: its sessions keep this, and no table.
#[derive(Debug)]
pub struct Backend {
    pub name: Box<str>,
    pub address: Arc<SockAddr>,
    pub state: Arc<BackendState>,
}

impl Table {
    /// The first table of a process. `secret` must be one that nobody can guess.
    pub fn start(config: Arc<Config>, found: &Found, epoch: Instant, secret: [u8; 32]) -> Arc<Table> {
        let router = Arc::new(Router::new(&config, None));
        let table = Self::build(config, router, found, 1, (epoch, secret), &Known::default());
        table.place();
        Arc::new(table)
    }

    /// For tests and benchmarks: nothing found, no secret.
    pub fn first(config: Arc<Config>, epoch: Instant) -> Arc<Table> {
        Self::start(config, &Found::new(), epoch, [0; 32])
    }

    /// The table that follows this one. Pools are the same if they have the same name, backends if in the same pool they
    /// have the same address. Backends that are new in a pool that is not are new from `now` on.
    pub fn next(&self, config: Arc<Config>, found: &Found, now: Instant) -> Arc<Table> {
        let known = Known::of(self);
        // Discovery changes no routes.
        let router = match Arc::ptr_eq(&config, &self.config) {
            true => self.router.clone(),
            false => Arc::new(Router::new(&config, Some(&self.router))),
        };
        let mut table = Self::build(config, router, found, self.generation + 1, (self.epoch, self.secret), &known);
        let now = millis(now.saturating_duration_since(self.epoch)).max(1);
        for pool in table.pools.iter().filter(|pool| known.pool(&pool.config.name).is_some()) {
            for member in pool.members.iter().filter(|member| member.state.place_in(self.generation).is_none()) {
                // Of one that is back nobody knows any more whether it is well.
                member.state.set_checked(Checked::Unknown);
                if member.slow_start.is_some() {
                    member.state.up_since.store(now, Relaxed);
                }
            }
        }
        table.place();
        table.refusals = self.refusals.clone();
        table.left = known.left(self.generation, table.generation);
        Arc::new(table)
    }

    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.config.name == name)
    }

    fn build(
        config: Arc<Config>,
        router: Arc<Router>,
        found: &Found,
        generation: u32,
        (epoch, secret): (Instant, [u8; 32]),
        known: &Known<'_>,
    ) -> Table {
        let pools = config
            .pools
            .iter()
            .map(|pool| {
                let found = found.get(&pool.name).map_or(&[][..], Vec::as_slice);
                Pool::build(pool, found, &secret, known.pool(&pool.name))
            })
            .collect();
        Table { config, generation, epoch, secret, router, pools, refusals: Arc::default(), left: Vec::new() }
    }

    /// From here on everybody knows where in the newest table they are.
    fn place(&self) {
        for (pool_number, pool) in self.pools.iter().enumerate() {
            for (number, member) in pool.members.iter().enumerate() {
                member.state.place(self.generation, pool_number, number);
            }
        }
    }
}

impl Pool {
    fn build(
        config: &config::PoolConfig,
        found: &[config::Backend],
        secret: &[u8; 32],
        known: Option<&KnownPool<'_>>,
    ) -> Pool {
        let mut members: Vec<Member> = Vec::with_capacity(config.backends.len() + found.len());
        let mut seen = HashSet::new();
        for backend in config.backends.iter().chain(found) {
            // What is both named and found is meant once, as it is named.
            if seen.insert(&backend.address) {
                let who = who(backend, known);
                members.push(Member {
                    state: who.state.clone(),
                    backend: who,
                    weight: backend.weight,
                    connections_max: backend.connections_max.or(config.connections_max).unwrap_or(u32::MAX),
                    slow_start: backend.slow_start.or(config.slow_start),
                    backup: backend.backup,
                    drain: backend.drain,
                });
            }
        }
        let state = known.map_or_else(Arc::default, |known| known.state.clone());
        let names = members.iter().map(|member| &*member.backend.name);
        let sticky = config.sticky.cookie.as_ref().map(|_| Sticky::new(&config.sticky, names, secret));
        let is_hashed = matches!(config.balance, Balance::IpHash | Balance::ConsistentHash);
        let ring = is_hashed.then(|| Ring::build(members.iter().map(|member| (&*member.backend.name, member.weight))));
        let is_counted = config.balance == Balance::LeastConnections;
        let bounds = Bounds::new(if is_counted { members.len() } else { 0 });
        let own = config::PoolConfig { backends: Vec::new(), ..config.clone() };
        let before = known.and_then(|known| known.config).filter(|before| ***before == own).cloned();
        Pool { config: before.unwrap_or_else(|| Arc::new(own)), members, sticky, ring, bounds, state }
    }
}

/// The same as before, if it still has that name.
fn who(backend: &config::Backend, known: Option<&KnownPool<'_>>) -> Arc<Backend> {
    let name = &*backend.name;
    let address = sock_addr(&backend.address);
    match known.and_then(|known| known.backend(&address)) {
        Some(known) if *known.name == *name => known.clone(),
        Some(known) => {
            Arc::new(Backend { name: name.into(), address: known.address.clone(), state: known.state.clone() })
        }
        None => Arc::new(Backend { name: name.into(), address: Arc::new(address), state: Arc::default() }),
    }
}

fn sock_addr(address: &Address) -> SockAddr {
    match address {
        Address::Inet(address) => (*address).into(),
        Address::Unix(path) => SockAddr::unix(path).expect("the config accepts only paths that fit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(backends: &[&str]) -> Arc<Config> {
        let mut pool = config::PoolConfig::named("chat");
        pool.slow_start = Some(Duration::from_secs(10));
        pool.backends = backends.iter().map(|address| address.parse::<Address>().unwrap().into()).collect();
        Arc::new(Config { pools: vec![pool], ..Config::default() })
    }

    #[test]
    fn backends_that_stay_keep_their_state_and_new_ones_start_slowly() {
        let epoch = Instant::now();
        let first = Table::first(config(&["10.0.0.1:1", "10.0.0.2:1"]), epoch);
        first.pools[0].members[1].state.sessions.store(7, Relaxed);
        let found = config::Backend::from("10.0.0.4:1".parse::<Address>().unwrap());
        let named_too = config::Backend::from("10.0.0.2:1".parse::<Address>().unwrap());
        let found = Found::from([("chat".into(), vec![named_too, found])]);
        let now = epoch + Duration::from_millis(500);
        let next = first.next(config(&["10.0.0.3:1", "10.0.0.2:1"]), &found, now);
        let seen: Vec<_> = next.pools[0]
            .members
            .iter()
            .map(|member| {
                (&*member.backend.name, member.state.sessions.load(Relaxed), member.state.up_since.load(Relaxed))
            })
            .collect();
        assert_eq!(seen, [("10.0.0.3:1", 0, 500), ("10.0.0.2:1", 7, 0), ("10.0.0.4:1", 0, 500)]);
        assert!(Arc::ptr_eq(&next.pools[0].state, &first.pools[0].state));
        assert_eq!(next.pools[0].members[1].state.place_in(2), Some((0, 1)));
        assert_eq!(first.pools[0].members[1].state.place_in(1), Some((0, 1)), "some workers may still have that table");
    }

    /// A pool of two with so many sessions each, and the same after so many tables without the second of them, or without
    /// the pool.
    fn back_after(missing: usize, sessions: u32, with_pool: bool) -> (Arc<Table>, Arc<Table>) {
        let epoch = Instant::now();
        let first = Table::first(config(&["10.0.0.1:1", "10.0.0.2:1"]), epoch);
        for member in &first.pools[0].members {
            member.state.sessions.store(sessions, Relaxed);
            member.state.set_checked(Checked::Down);
        }
        let without = if with_pool { config(&["10.0.0.1:1"]) } else { Arc::default() };
        let mut table = first.clone();
        for _ in 0..missing {
            table = table.next(without.clone(), &Found::new(), epoch);
        }
        let now = epoch + Duration::from_millis(500);
        let back = table.next(config(&["10.0.0.1:1", "10.0.0.2:1"]), &Found::new(), now);
        (first, back)
    }

    #[test]
    fn who_comes_back_still_has_its_sessions() {
        for missing in [1, 2, 5] {
            for with_pool in [true, false] {
                let (first, back) = back_after(missing, 7, with_pool);
                assert!(Arc::ptr_eq(&first.pools[0].state, &back.pools[0].state));
                for (stayed, (first, back)) in
                    [with_pool, false].into_iter().zip(first.pools[0].members.iter().zip(&back.pools[0].members))
                {
                    assert!(Arc::ptr_eq(&first.state, &back.state));
                    let checked = if stayed { Checked::Down } else { Checked::Unknown };
                    let up_since = if stayed { 0 } else { 500 };
                    assert_eq!((back.state.checked(), back.state.up_since.load(Relaxed)), (checked, up_since));
                }
            }
        }
    }

    #[test]
    fn who_has_left_is_forgotten_when_its_sessions_have_ended() {
        let is_remembered = |missing| {
            let (first, back) = back_after(missing, 0, true);
            Arc::ptr_eq(&first.pools[0].members[1].state, &back.pools[0].members[1].state)
        };
        assert!(is_remembered(1), "a worker may just be choosing it");
        assert!(!is_remembered(2));
    }
}
