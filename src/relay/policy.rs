//! What holds for a session: the limits and waits of its route, as they were when it was routed. And the newest table, with
//! what this worker keeps beside it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::balance::{self, Balancer};
use super::loans::BULK_WEIGHT;
use crate::config::millis;
use crate::config::{self, Balance, CloseCodes, Config, HashKeep, Limits, Route, Timeouts};
use crate::op::{ListenerId, Side};
use crate::proto::frame::FrameLimits;
use crate::proto::http::HeadLimits;
use crate::table::state::PoolState;
use crate::table::{Backend, Pool, Table};

/// One per route; its sessions share it, those of several tables too if nothing of it has changed. It holds parts of a table
/// and never a whole one, which is as large as all its backends and routes: sessions last much longer than tables.
#[derive(Debug)]
pub(super) struct Policy {
    /// `None` before there is a route.
    routed: Option<Routed>,
    limits: Limits,
    pub waits: Waits,
    pub close_codes: CloseCodes,
    /// Of what clients send, and of what backends do.
    client_frames: FrameLimits,
    backend_frames: FrameLimits,
    /// Bytes per second; 0: any progress will do.
    pub receiver_min: u64,
    pub controls_max: Option<u32>,
    /// limits.window_bytes, and the same in small buffers.
    pub window_bytes: u32,
    pub window_buffers: u16,
}

/// A route and its pool, without the backends.
#[derive(Debug)]
pub(super) struct Routed {
    route: Arc<Route>,
    pub config: Arc<config::PoolConfig>,
    pub state: Arc<PoolState>,
}

impl Routed {
    /// The pool's number in the table that it was routed with, which tells nothing in any other.
    pub fn number(&self) -> usize {
        self.route.pool
    }
}

/// The timeouts, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pub head: u64,
    pub connect: u64,
    pub dial: u64,
    pub answer: u64,
    pub send_stall: u64,
    /// `u64::MAX`: none.
    pub idle: u64,
    pub close: u64,
    pub linger: u64,
    pub plain_http: u64,
    pub plain_http_total: u64,
}

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

/// Somebody in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub session: u32,
    /// It has failed at some of the pool's backends and waits for the others: that these are full says nothing to those
    /// behind it.
    pub retrying: bool,
}

impl Policy {
    fn new(
        config: &Config,
        routed: Option<Routed>,
        (limits, timeouts, close_codes): (&Limits, &Timeouts, CloseCodes),
    ) -> Rc<Self> {
        let window = config.limits.window_bytes;
        let of_all = FrameLimits {
            frame_bytes_max: limits.frame_bytes_max.unwrap_or(u64::MAX),
            message_bytes_max: limits.message_bytes_max.unwrap_or(u64::MAX),
            message_fragments_max: limits.message_fragments_max.unwrap_or(u32::MAX),
        };
        Rc::new(Policy {
            routed,
            limits: limits.clone(),
            waits: Waits::new(timeouts),
            close_codes,
            client_frames: FrameLimits {
                message_bytes_max: of_all.message_bytes_max.min(limits.client_message_bytes_max.unwrap_or(u64::MAX)),
                ..of_all
            },
            backend_frames: of_all,
            receiver_min: limits.receiver_bytes_per_second_min.unwrap_or(0),
            controls_max: limits.control_frames_per_second_max,
            window_bytes: window as u32,
            window_buffers: window_buffers(window, config.buffers.small_bytes),
        })
    }

    /// Of frames from this side.
    pub fn frame_limits(&self, from: Side) -> &FrameLimits {
        match from {
            Side::Client => &self.client_frames,
            Side::Backend => &self.backend_frames,
        }
    }

    /// The route it was made for.
    pub fn route(&self) -> Option<&Route> {
        self.routed.as_ref().map(|routed| &*routed.route)
    }

    /// The route's pool.
    pub fn pool(&self) -> &Routed {
        self.routed.as_ref().expect("asked of routed sessions only")
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// It would be made just so for this route of this table.
    fn is_of(&self, route: &Arc<Route>, table: &Table) -> bool {
        let pool = &table.pools[route.pool];
        let is_same = |routed: &Routed| {
            Arc::ptr_eq(&routed.route, route)
                && Arc::ptr_eq(&routed.config, &pool.config)
                && Arc::ptr_eq(&routed.state, &pool.state)
        };
        self.routed.as_ref().is_some_and(is_same) && self.window_bytes == table.config.limits.window_bytes as u32
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

impl Waits {
    fn new(timeouts: &Timeouts) -> Self {
        Waits {
            head: millis(timeouts.head),
            connect: millis(timeouts.connect),
            dial: millis(timeouts.dial),
            answer: millis(timeouts.answer),
            send_stall: millis(timeouts.send_stall),
            idle: timeouts.idle.map_or(u64::MAX, millis),
            close: millis(timeouts.close),
            linger: millis(timeouts.linger),
            plain_http: millis(timeouts.plain_http),
            plain_http_total: millis(timeouts.plain_http_total),
        }
    }
}

/// No less than one bulk buffer weighs, or a peer of bulk could never send.
fn window_buffers(window_bytes: usize, small_bytes: usize) -> u16 {
    let buffers = window_bytes / small_bytes;
    u16::try_from(buffers).unwrap_or(u16::MAX / 4).clamp(BULK_WEIGHT, u16::MAX / 4)
}
