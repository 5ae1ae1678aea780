//! What the log is told of pools and backends: who comes and goes, who is well again, what clients have heard. Each line is
//! bounded in number, whoever drives what it tells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::table::state::Checked;
use crate::table::{Member, Pool, Table};

pub(super) struct News {
    /// Pools without a backend that is up, and since when.
    lost: HashMap<String, Instant>,
    refusals_told: Instant,
}

impl News {
    const REFUSALS_EVERY: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Self {
        News { lost: HashMap::new(), refusals_told: Instant::now() }
    }

    /// To be called about once a second.
    pub(super) fn tell(&mut self, table: &Table) {
        tell_all_clears(table);
        if self.refusals_told.elapsed() >= Self::REFUSALS_EVERY {
            self.refusals_told = Instant::now();
            tell_refusals(table);
        }
    }

    /// A backend of this pool has another verdict. That the last one is down, or the first is up again, is the line that an
    /// operator is called for.
    pub(super) fn checked(&mut self, table: &Table, name: &str) {
        let Some(pool) = table.pool(name) else { return };
        let is_lost = pool.members.iter().all(|member| member.drain || member.state.checked() == Checked::Down);
        match (self.lost.get(name), is_lost) {
            (None, true) => {
                error!(pool = name, "no backend of this pool is up");
                self.lost.insert(name.to_owned(), Instant::now());
            }
            (Some(since), false) => {
                info!(pool = name, "this pool has backends again, after {} ms", since.elapsed().as_millis());
                self.lost.remove(name);
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

/// Backends that sessions have found failing, and that have answered since.
fn tell_all_clears(table: &Table) {
    let now = u64::try_from(table.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
    for pool in &table.pools {
        for member in &pool.members {
            if let Some(ms) = member.state.all_clear(now) {
                info!(pool = pool.config.name, backend = &*member.backend.name, "backend answers again, after {ms} ms");
            }
        }
    }
}

fn tell_refusals(table: &Table) {
    for pool in &table.pools {
        if let Some(refused) = pool.state.refusals.take() {
            info!(pool = pool.config.name, "refused in the last minute: {refused}");
        }
    }
    if let Some(refused) = table.refusals.take() {
        info!("refused in the last minute, for no pool: {refused}");
    }
}

pub(super) fn tell_difference(old: &Pool, new: &Pool) {
    let states = |pool: &Pool| pool.members.iter().map(|member| Arc::as_ptr(&member.state)).collect::<HashSet<_>>();
    let (before, after) = (states(old), states(new));
    let pool = &new.config.name;
    let found = new.members.iter().filter(|member| !before.contains(&Arc::as_ptr(&member.state)));
    tell_some(pool, "backend found", found);
    let gone = old.members.iter().filter(|member| !after.contains(&Arc::as_ptr(&member.state)));
    tell_some(pool, "backend gone; its sessions stay", gone);
}

/// A line for each of a few, and their number if there are more: thousands of them would push other lines out of the queue.
fn tell_some<'m>(pool: &str, what: &str, members: impl Iterator<Item = &'m Member>) {
    const LINES_MAX: usize = 20;
    let mut untold: usize = 0;
    for (number, member) in members.enumerate() {
        match number < LINES_MAX {
            true => info!(pool, backend = &*member.backend.name, "{what}"),
            false => untold += 1,
        }
    }
    if untold > 0 {
        info!(pool, "{what}: {untold} more");
    }
}
