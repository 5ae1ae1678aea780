//! What choosing a backend costs: nanoseconds per decision of one worker, its reservation included, under churn.
//! `cargo bench --bench balance [-- PART_OF_A_NAME]`; with `--test` or RINGWAY_BENCH_SMOKE=1 it only shows that it runs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::config::{Address, Backend, Balance, Config, PoolConfig};
use ringway::relay::balance::{Ask, Balancer, handshake_ended, release};
use ringway::table::Table;
use ringway::table::hash::nth;

/// Sessions per backend, and how many of all end and begin between two measurements.
const SESSIONS: usize = 20;
const CHURN: usize = 1000;

const POLICIES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::PowerOfTwo,
    Balance::Random,
    Balance::IpHash,
    Balance::ConsistentHash,
];

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test")
        || std::env::var_os("RINGWAY_BENCH_SMOKE").is_some_and(|value| value == "1");
    let rounds = if smoke { 2 } else { 500 };
    let part = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for balance in POLICIES.into_iter().filter(|balance| format!("{balance:?}").contains(&part)) {
        for backends in [10, 1000] {
            for weights in [1, 8] {
                decisions(balance, backends, weights, rounds);
            }
        }
    }
    println!();
    if !"build".contains(&part) {
        return;
    }
    for (pools, backends) in [(1000, 10), (1, 1000), (1, 10_000)] {
        for balance in [Balance::RoundRobin, Balance::ConsistentHash] {
            build(balance, pools, backends, if smoke { 1 } else { 10 });
        }
    }
}

/// The best and the median of many rounds: what disturbs a round only ever makes it slower.
fn decisions(balance: Balance, backends: usize, weights: u32, rounds: usize) {
    let table = table(balance, 1, backends, weights);
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let mut dice = Dice(1);
    let mut choose = |dice: &mut Dice| {
        let (key, random) = (dice.roll(), dice.roll());
        let ask = Ask { key, tried: &[], is_last: false, now: 1, random, is_handshake: true };
        balancer.choose(pool, &ask).expect("nobody is full")
    };
    let mut open: Vec<u16> = (0..backends * SESSIONS + CHURN).map(|_| choose(&mut dice)).collect();
    open.iter().for_each(|number| handshake_ended(&pool.members[usize::from(*number)].state));
    let mut times = Vec::new();
    let mut releases = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..CHURN {
            let number = open.swap_remove((dice.roll() % open.len() as u64) as usize);
            release(&pool.members[usize::from(number)].state, &pool.state, &table);
        }
        releases.push(start.elapsed());
        let first = open.len();
        let start = Instant::now();
        open.extend((0..CHURN).map(|_| black_box(choose(&mut dice))));
        times.push(start.elapsed());
        open[first..].iter().for_each(|number| handshake_ended(&pool.members[usize::from(*number)].state));
    }
    let name = format!("{balance:?}/{backends} backends/weights 1 to {weights}");
    let nanos = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        [times[0], times[times.len() / 2]].map(|time| time.as_nanos() as f64 / CHURN as f64)
    };
    let ([best, median], [_, release]) = (nanos(&mut times), nanos(&mut releases));
    println!("{name:<52} {best:>7.1} ns/decision, median {median:>7.1}; release {release:>6.1}");
}

/// A table of many pools, as a reload builds it.
fn build(balance: Balance, pools: usize, backends: usize, rounds: usize) {
    let first = table(balance, pools, backends, 1);
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(first.next(first.config.clone(), &Default::default(), first.epoch));
        best = best.min(start.elapsed());
    }
    let name = format!("build/{balance:?}/{pools} pools of {backends} backends");
    println!("{name:<52} {:>7.2} ms/table", best.as_secs_f64() * 1e3);
}

fn table(balance: Balance, pools: usize, backends: usize, weights: u32) -> Arc<Table> {
    let backend = |number: usize| {
        let address: Address = format!("10.0.{}.{}:9000", number / 250, number % 250).parse().expect("an address");
        Backend { weight: 1 + number as u32 % weights, ..address.into() }
    };
    let pool = |number: usize| {
        let backends = (0..backends).map(backend).collect();
        PoolConfig { backends, balance, ..PoolConfig::named(format!("pool {number}")) }
    };
    let config = Config { pools: (0..pools).map(pool).collect(), ..Config::default() };
    Table::first(Arc::new(config), Instant::now())
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 += 1;
        nth(0, self.0)
    }
}
