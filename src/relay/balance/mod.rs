//! Pool -> backend. Pure policy: time and randomness are arguments.

use std::sync::Arc;

use socket2::SockAddr;

use super::table::Table;
use crate::config::Balance;

/// All backends of all pools, numbered through.
#[derive(Debug)]
pub(super) struct Balancer {
    backends: Vec<Backend>,
    pools: Vec<Pool>,
    down_ms: u64,
}

#[derive(Debug)]
struct Pool {
    policy: Balance,
    first: u16,
    count: u16,
    /// Round robin: whose turn it is.
    turn: u16,
}

#[derive(Debug)]
struct Backend {
    name: String,
    address: Arc<SockAddr>,
    /// Sessions that use it, those still connecting included.
    sessions: u32,
    /// It has failed: until then it is tried last.
    down_until: u64,
    /// It was told to be down, and not yet to be up again.
    is_down: bool,
    /// What changes before this moment is not told: a backend that flaps must not flood the log.
    quiet_until: u64,
}

/// A backend's changes are told at most once in this time.
const QUIET_MS: u64 = 10_000;

impl Balancer {
    pub fn new(table: &Table) -> Self {
        let mut balancer = Balancer { backends: Vec::new(), pools: Vec::new(), down_ms: 5000 };
        for pool in &table.pools {
            balancer.pools.push(Pool {
                policy: pool.config.balance,
                first: balancer.backends.len() as u16,
                count: pool.members.len() as u16,
                turn: 0,
            });
            balancer.backends.extend(pool.members.iter().map(|member| Backend {
                name: member.name.to_string(),
                address: member.address.clone(),
                sessions: 0,
                down_until: 0,
                is_down: false,
                quiet_until: 0,
            }));
        }
        balancer
    }

    /// The next backend to try for a request to this pool; `None` when all have been tried. Those that are down come
    /// last: better one more refusal than an outage because everybody was marked down.
    pub fn choose(&mut self, pool: usize, tried: &[u16], now: u64, random: u64) -> Option<u16> {
        let pool = &mut self.pools[pool];
        let candidates = || (pool.first..pool.first + pool.count).filter(|number| !tried.contains(number));
        let is_up = |number: &u16| self.backends[usize::from(*number)].down_until <= now;
        let any_up = candidates().any(|number| is_up(&number));
        let usable = || candidates().filter(|number| !any_up || is_up(number));
        let chosen = match pool.policy {
            Balance::RoundRobin => {
                let turn = pool.first + pool.turn;
                usable().find(|number| *number >= turn).or_else(|| usable().next())?
            }
            Balance::LeastConnections => {
                // Ties are broken by a random start, or the first backend would get every lone session.
                let offset = (random % u64::from(pool.count.max(1))) as u16;
                let rotated = |number: &u16| (number - pool.first + pool.count - offset) % pool.count;
                usable().min_by_key(|number| (self.backends[usize::from(*number)].sessions, rotated(number)))?
            }
            _ => {
                let count = usable().count() as u64;
                usable().nth((random % count.max(1)) as usize)?
            }
        };
        pool.turn = (chosen - pool.first + 1) % pool.count;
        self.backends[usize::from(chosen)].sessions += 1;
        Some(chosen)
    }

    /// A session no longer uses the backend that was chosen for it.
    pub fn release(&mut self, number: u16) {
        self.backends[usize::from(number)].sessions -= 1;
    }

    /// It could not be connected to, or gave no answer. Returns whether that is news.
    pub fn failed(&mut self, number: u16, now: u64) -> bool {
        let backend = &mut self.backends[usize::from(number)];
        backend.down_until = now + self.down_ms;
        let news = !backend.is_down && now >= backend.quiet_until;
        if news {
            backend.is_down = true;
            backend.quiet_until = now + QUIET_MS;
        }
        news
    }

    /// It has answered. Returns whether that is news: after every "down" that was told there is one "up".
    pub fn answered(&mut self, number: u16, now: u64) -> bool {
        let backend = &mut self.backends[usize::from(number)];
        backend.down_until = 0;
        let news = backend.is_down && now >= backend.quiet_until;
        backend.is_down &= !news;
        news
    }

    pub fn address(&self, number: u16) -> Arc<SockAddr> {
        self.backends[usize::from(number)].address.clone()
    }

    pub fn name(&self, number: u16) -> &str {
        &self.backends[usize::from(number)].name
    }
}
