//! Whose counters go on: pools and backends of a table are the next one's too, and those that have left are remembered as long
//! as they have sessions, so that who comes back still has the sessions that it had.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use socket2::SockAddr;

use super::state::PoolState;
use super::{Backend, Table};
use crate::config;

/// A backend that a table has not, but an earlier one had.
#[derive(Debug)]
pub(super) struct Left {
    pool: Box<str>,
    pool_state: Arc<PoolState>,
    backend: Arc<Backend>,
}

/// What a table hands on to the next one, by names of pools.
#[derive(Default)]
pub(super) struct Known<'a>(HashMap<&'a str, KnownPool<'a>>);

pub(super) struct KnownPool<'a> {
    pub state: &'a Arc<PoolState>,
    /// `None`: only some that have left it are known.
    pub config: Option<&'a Arc<config::PoolConfig>>,
    backends: HashMap<&'a SockAddr, &'a Arc<Backend>>,
}

impl<'a> Known<'a> {
    pub fn of(table: &'a Table) -> Self {
        let mut known = Known::default();
        for left in &table.left {
            known.add(&left.pool, &left.pool_state).insert(&left.backend);
        }
        for pool in &table.pools {
            let its = known.add(&pool.config.name, &pool.state);
            its.config = Some(&pool.config);
            for member in &pool.members {
                its.insert(&member.backend);
            }
        }
        known
    }

    fn add(&mut self, name: &'a str, state: &'a Arc<PoolState>) -> &mut KnownPool<'a> {
        self.0.entry(name).or_insert_with(|| KnownPool { state, config: None, backends: HashMap::new() })
    }

    pub fn pool(&self, name: &str) -> Option<&KnownPool<'a>> {
        self.0.get(name)
    }

    /// Whom the table `next`, in which everybody has a place by now, has not. Of those that the table `last` had not either,
    /// only who still has sessions; somebody may just be choosing one of the others.
    pub fn left(&self, last: u32, next: u32) -> Vec<Left> {
        let mut left = Vec::new();
        for (&name, pool) in &self.0 {
            for &backend in pool.backends.values() {
                let state = &backend.state;
                let is_used = state.place_in(last).is_some() || state.sessions.load(Relaxed) > 0;
                if state.place_in(next).is_none() && is_used {
                    let (pool, pool_state) = (name.into(), pool.state.clone());
                    left.push(Left { pool, pool_state, backend: backend.clone() });
                }
            }
        }
        left
    }
}

impl<'a> KnownPool<'a> {
    fn insert(&mut self, backend: &'a Arc<Backend>) {
        self.backends.insert(&backend.address, backend);
    }

    pub fn backend(&self, address: &SockAddr) -> Option<&'a Arc<Backend>> {
        self.backends.get(address).copied()
    }
}
