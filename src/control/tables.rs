//! The versions of the table: the newest one, which workers are given, and those before it that somebody still reads.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::health::HealthChange;
use crate::config::{Config, OnLoss};
use crate::table::state::Checked;
use crate::table::{Found, Member, Pool, Table};
use crate::worker::Leave;

pub(super) struct Tables {
    newest: Arc<Table>,
    /// Before it, and perhaps still with a worker.
    older: Vec<Arc<Table>>,
}

impl Tables {
    pub(super) fn new(first: Arc<Table>) -> Self {
        Tables { newest: first, older: Vec::new() }
    }

    pub(super) fn newest(&self) -> &Arc<Table> {
        &self.newest
    }

    /// Builds the next one. Returns the one before.
    pub(super) fn replace(&mut self, config: Arc<Config>, found: &Found) -> Arc<Table> {
        let next = self.newest.next(config, found, Instant::now());
        let before = std::mem::replace(&mut self.newest, next);
        self.free_older();
        self.older.push(before.clone());
        before
    }

    /// Frees those that no worker has any more: here, as it takes a while, and workers have none.
    pub(super) fn free_older(&mut self) {
        self.older.retain(|table| {
            let is_used = Arc::strong_count(table) > 1;
            if !is_used {
                debug!(generation = table.generation, "table freed");
            }
            is_used
        });
    }

    /// What the sessions of backends do that are drained now and were not in the table before.
    pub(super) fn drained_since(&self, before: &Table) -> Vec<Leave> {
        let mut leaves = Vec::new();
        for pool in &self.newest.pools {
            if pool.config.sessions.on_drain == OnLoss::Keep {
                continue;
            }
            let old = before.pool(&pool.config.name).into_iter().flat_map(|old| &old.members);
            let known: HashSet<_> = old.filter(|old| old.drain).map(|old| Arc::as_ptr(&old.state)).collect();
            let drained = pool.members.iter().filter(|member| member.drain);
            let new = drained.filter(|member| !known.contains(&Arc::as_ptr(&member.state)));
            leaves.extend(new.filter_map(|member| leave(pool, member, pool.config.sessions.on_drain)));
        }
        leaves
    }

    /// What the sessions of a backend do that a health check has found down.
    pub(super) fn lost(&self, change: &HealthChange) -> Option<Leave> {
        let pool = self.newest.pool(&change.pool).filter(|_| change.checked == Checked::Down)?;
        let member = pool.members.iter().find(|member| Arc::ptr_eq(&member.state, &change.state))?;
        leave(pool, member, pool.config.sessions.on_down)
    }
}

fn leave(pool: &Pool, member: &Member, on_loss: OnLoss) -> Option<Leave> {
    if on_loss == OnLoss::Keep {
        return None;
    }
    let spread = pool.config.sessions.close_spread;
    info!(pool = pool.config.name, backend = &*member.backend.name, "its sessions are told to leave, over {spread:?}");
    Some(Leave { backend: member.state.clone(), on_loss, spread })
}
