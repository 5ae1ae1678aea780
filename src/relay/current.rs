//! The newest table, with what this worker keeps beside it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::balance::{self, Balancer};
use super::policy::{Policy, Routed};
use super::queue::Waiting;
use crate::config::millis;
use crate::config::{Balance, Config, HashKeep, Route};
use crate::op::ListenerId;
use crate::proto::http::HeadLimits;
use crate::table::{Backend, Pool, Table};

/// The newest table. New sessions use it.
#[derive(Debug)]
pub(super) struct Current {
    pub table: Arc<Table>,
    /// For sessions that have no route yet.
    pub entry: Rc<Policy>,
    pub head_limits: HeadLimits,
    /// Made when first used, as most of many routes and pools are not used by every worker.
    policies: Vec<Option<Rc<Policy>>>,
    views: Vec<Option<PoolView>>,
    /// The listeners of its config, in the config's order.
    listeners: Vec<ListenerId>,
    /// Pools with `hash_keep = "home"`.
    homes: Vec<Home>,
    /// Pools in whose queues somebody waits.
    pub pools_with_waiters: Vec<usize>,
}

/// What a worker keeps of a pool.
#[derive(Debug)]
pub(super) struct PoolView {
    pub balancer: Balancer,
    /// Sessions that wait for their turn, first come, first served.
    pub queue: VecDeque<Waiting>,
}

/// A pool whose sessions are to be where the hash leads.
#[derive(Debug)]
struct Home {
    pool: usize,
    /// Its [`Keys::splits`], of which nothing need be done.
    splits: u64,
    /// Not again before.
    look_at: u64,
}

impl Home {
    fn of((number, pool): (usize, &Pool)) -> Option<Home> {
        let is_one = pool.config.balance == Balance::ConsistentHash && pool.config.hash_keep == HashKeep::Home;
        is_one.then_some(Home { pool: number, splits: 0, look_at: 0 })
    }
}

impl Current {
    /// `before`: what was current until now.
    pub fn new(table: Arc<Table>, listeners: &[ListenerId], before: Option<&Current>) -> Self {
        let Config { limits, timeouts, close_codes, .. } = &*table.config;
        for pool in &table.pools {
            balance::reset(pool);
        }
        Current {
            entry: Policy::new(&table.config, None, (limits, timeouts, *close_codes)),
            head_limits: HeadLimits {
                head_bytes_max: limits.head_bytes_max,
                header_bytes_max: limits.header_bytes_max,
                headers_max: limits.headers_max,
                target_bytes_max: limits.target_bytes_max,
            },
            policies: before.map_or_else(|| vec![None; table.router.len()], |before| before.policies_for(&table)),
            views: table.pools.iter().map(|_| None).collect(),
            listeners: listeners.into(),
            homes: table.pools.iter().enumerate().filter_map(Home::of).collect(),
            pools_with_waiters: Vec::new(),
            table,
        }
    }

    /// Those that stay the same in that table.
    fn policies_for(&self, table: &Table) -> Vec<Option<Rc<Policy>>> {
        let made = self.policies.iter().flatten();
        let by_route: HashMap<*const Route, &Rc<Policy>> =
            made.filter_map(|policy| Some((std::ptr::from_ref(policy.route()?), policy))).collect();
        let same = |route: &Arc<Route>| by_route.get(&Arc::as_ptr(route)).filter(|policy| policy.is_of(route, table));
        (0..table.router.len() as u32)
            .map(|number| same(table.router.route(number)).map(|policy| (*policy).clone()))
            .collect()
    }

    /// Its number in the config, if that still has it.
    pub fn listener(&self, id: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|listener| *listener == id)
    }

    pub fn policy(&mut self, route: u32) -> Rc<Policy> {
        let policy = &mut self.policies[route as usize];
        let table = &self.table;
        let make = || {
            let route = table.router.route(route);
            let pool = &table.pools[route.pool];
            let routed = Routed { route: route.clone(), config: pool.config.clone(), state: pool.state.clone() };
            Policy::new(&table.config, Some(routed), (&route.limits, &route.timeouts, route.close_codes))
        };
        policy.get_or_insert_with(make).clone()
    }

    pub fn view(&mut self, pool: usize) -> &mut PoolView {
        self.pool_and_view(pool).1
    }

    pub fn pool_and_view(&mut self, pool: usize) -> (&Pool, &mut PoolView) {
        let Current { table, views, .. } = self;
        let (pool, view) = (&table.pools[pool], &mut views[pool]);
        (pool, view.get_or_insert_with(|| PoolView { balancer: Balancer::new(pool), queue: VecDeque::new() }))
    }

    /// The backend's pool, and its number there, unless it has left.
    pub fn place(&self, backend: &Backend) -> Option<(&Pool, u16)> {
        let (pool, number) = backend.state.place_in(self.table.generation)?;
        Some((self.table.pools.get(pool)?, number as u16))
    }

    /// Pools of which some sessions may be away from home, not more often than such sessions leave.
    pub fn split_pools(&mut self, now: u64) -> Vec<usize> {
        let table = &self.table;
        let is_split = |home: &mut Home| {
            let pool = &table.pools[home.pool];
            let splits = pool.state.keys.splits();
            if splits == home.splits || now < home.look_at {
                return None;
            }
            home.splits = splits;
            home.look_at = now + millis(pool.config.sessions.close_spread).max(1000);
            Some(home.pool)
        };
        self.homes.iter_mut().filter_map(is_split).collect()
    }

    /// Puts a session at the end of the pool's queue; false if that is full.
    pub fn enqueue(&mut self, pool: usize, who: Waiting) -> bool {
        let max = self.table.pools[pool].config.admission.queue_max as usize;
        let queue = &mut self.view(pool).queue;
        if queue.len() >= max {
            return false;
        }
        queue.push_back(who);
        if queue.len() == 1 {
            self.pools_with_waiters.push(pool);
        }
        let state = &self.table.pools[pool].state;
        state.waiting.fetch_add(1, Relaxed);
        state.retrying.fetch_add(u32::from(who.retrying), Relaxed);
        true
    }

    pub fn dequeue(&mut self, pool: usize, session: u32) {
        let queue = &mut self.view(pool).queue;
        let Some(at) = queue.iter().position(|waiting| waiting.session == session) else { return };
        let retrying = queue.remove(at).is_some_and(|who| who.retrying);
        if queue.is_empty() {
            self.pools_with_waiters.retain(|number| *number != pool);
        }
        let state = &self.table.pools[pool].state;
        state.waiting.fetch_sub(1, Relaxed);
        state.retrying.fetch_sub(u32::from(retrying), Relaxed);
    }

    /// Everybody who waits, queue by queue, in order. They wait no longer.
    pub fn disband(&mut self) -> Vec<u32> {
        let mut waiting = Vec::new();
        for pool in std::mem::take(&mut self.pools_with_waiters) {
            let queue = std::mem::take(&mut self.view(pool).queue);
            let state = &self.table.pools[pool].state;
            state.waiting.fetch_sub(queue.len() as u32, Relaxed);
            state.retrying.fetch_sub(queue.iter().filter(|who| who.retrying).count() as u32, Relaxed);
            waiting.extend(queue.iter().map(|who| who.session));
        }
        waiting
    }
}
