//! Pool -> backend. Pure policy: time and randomness are arguments.

use std::sync::Arc;

use socket2::SockAddr;

use super::shared::millis;
use crate::config::{Address, Balance, Config};

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
    pub fn new(config: &Config) -> Self {
        let mut balancer =
            Balancer { backends: Vec::new(), pools: Vec::new(), down_ms: millis(config.timeouts.backend_down) };
        for pool in &config.pools {
            balancer.pools.push(Pool {
                policy: pool.balance,
                first: balancer.backends.len() as u16,
                count: pool.backends.len() as u16,
                turn: 0,
            });
            balancer.backends.extend(pool.backends.iter().map(|address| Backend {
                name: address.to_string(),
                address: Arc::new(sock_addr(address)),
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
            Balance::Random => {
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

fn sock_addr(address: &Address) -> SockAddr {
    match address {
        Address::Inet(address) => (*address).into(),
        Address::Unix(path) => SockAddr::unix(path).expect("the config accepts only paths that fit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pool as PoolConfig;

    fn balancer(balance: Balance, backends: u16) -> Balancer {
        let address = |port| Address::Inet(([127, 0, 0, 1], port).into());
        let pool = PoolConfig { name: "chat".into(), backends: (1..=backends).map(address).collect(), balance };
        Balancer::new(&Config { pools: vec![pool], ..Config::default() })
    }

    #[test]
    fn round_robin_takes_turns_and_skips_the_tried() {
        let mut balancer = balancer(Balance::RoundRobin, 3);
        let turns: Vec<_> = (0..4).map(|_| balancer.choose(0, &[], 0, 0)).collect();
        assert_eq!(turns, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(balancer.choose(0, &[1], 0, 0), Some(2));
        assert_eq!(balancer.choose(0, &[0, 1, 2], 0, 0), None);
    }

    #[test]
    fn backends_that_are_down_come_last_until_their_time_is_over() {
        let mut balancer = balancer(Balance::RoundRobin, 2);
        assert!(balancer.failed(0, 100));
        assert!(!balancer.failed(0, 100), "known already");
        assert_eq!(balancer.choose(0, &[], 100, 0), Some(1));
        assert_eq!(balancer.choose(0, &[], 100, 0), Some(1));
        assert_eq!(balancer.choose(0, &[1], 100, 0), Some(0), "better than none");
        assert!(!balancer.answered(0, 101), "too soon to be told");
        assert!(balancer.answered(0, 100 + QUIET_MS));
        assert_eq!(balancer.choose(0, &[1], 100, 0), Some(0));
        balancer.failed(1, 100);
        let later = 100 + millis(Config::default().timeouts.backend_down);
        assert_eq!(balancer.choose(0, &[0], later, 0), Some(1));
    }

    #[test]
    fn least_connections_counts_what_is_released() {
        let mut balancer = balancer(Balance::LeastConnections, 2);
        assert_eq!(balancer.choose(0, &[], 0, 0), Some(0));
        assert_eq!(balancer.choose(0, &[], 0, 0), Some(1));
        assert_eq!(balancer.choose(0, &[], 0, 1), Some(1), "a tie");
        balancer.release(1);
        balancer.release(1);
        assert_eq!(balancer.choose(0, &[], 0, 0), Some(1));
    }

    #[test]
    fn random_reaches_all_usable() {
        let mut balancer = balancer(Balance::Random, 3);
        let mut seen: Vec<_> = (0..9).filter_map(|random| balancer.choose(0, &[1], 0, random)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 2]);
    }
}
