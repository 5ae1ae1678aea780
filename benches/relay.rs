//! What relaying costs above the kernel: nanoseconds per piece through `Relay` (received, sent, reconciled), the scripted
//! kernel of the simulation included.
//! `cargo bench --bench relay`; with `--test` or RINGWAY_BENCH_SMOKE=1 it only shows that it runs.

#[allow(dead_code)] // the simulation's scripts use the rest
#[path = "../tests/kernel/mod.rs"]
mod kernel;
#[allow(dead_code)]
#[path = "../tests/kernel/stage.rs"]
mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::config::{Address, Balance, Config, HostMatch, PathMatch, PoolConfig, Route};
use ringway::op::ConnId;
use ringway::table::Found;
use stage::{Stage, config};

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test")
        || std::env::var_os("RINGWAY_BENCH_SMOKE").is_some_and(|value| value == "1");
    let pieces = if smoke { 2000 } else { 20_000 };
    let ask = message(true, 64);
    let answer = message(false, 64);
    for sessions in [1, 64, 1000] {
        let name = format!("echo of 64 B/{sessions} sessions");
        print(&format!("{name}/all in one batch"), sessions, pieces, |stage, open| {
            open.iter().for_each(|(client, _)| stage.put(*client, &ask));
            next_batch(stage);
            open.iter().for_each(|(_, backend)| stage.put(*backend, &answer));
            next_batch(stage);
            2 * open.len()
        });
        print(&format!("{name}/each in a batch of its own"), sessions, pieces, |stage, open| {
            for (client, backend) in open {
                stage.give(*client, &ask);
                stage.give(*backend, &answer);
            }
            2 * open.len()
        });
    }
    print("64 B, 16 pieces in one send/64 sessions", 64, pieces, |stage, open| {
        for (client, _) in open {
            (0..16).for_each(|_| stage.put(*client, &ask));
        }
        next_batch(stage);
        16 * open.len()
    });
    let (head, rest) = ask.split_at(3);
    print("64 B, header split/64 sessions", 64, pieces, |stage, open| {
        open.iter().for_each(|(client, _)| stage.put(*client, head));
        next_batch(stage);
        open.iter().for_each(|(client, _)| stage.put(*client, rest));
        next_batch(stage);
        2 * open.len()
    });
    reload(if smoke { 2 } else { 50 });
}

/// What a reload of 1,000 routes and 10,000 backends costs: the control plane, which builds the table, and a worker with
/// open sessions, which adopts it and routes the next one.
fn reload(rounds: u32) {
    let mut stage = Stage::new(large(), 64);
    for _ in 0..32 {
        stage.open();
    }
    let (mut build, mut adopt) = (Duration::ZERO, Duration::ZERO);
    // As the control plane does, so that no worker frees one.
    let mut tables = vec![stage.table.clone()];
    for _ in 0..rounds {
        let config = Arc::new(large());
        let begin = Instant::now();
        tables.push(stage.table.next(config, &Found::new(), stage.now));
        build += begin.elapsed();
        let begin = Instant::now();
        stage.adopt(tables.last().expect("just built").clone(), &[0]);
        stage.end_batch();
        adopt += begin.elapsed();
    }
    println!("reload of 1,000 routes, 10,000 backends/control plane: {:?}", build / rounds);
    println!("reload of 1,000 routes, 10,000 backends/worker: {:?}", adopt / rounds);
}

fn large() -> Config {
    let mut config = config(1);
    for number in 0..100_u8 {
        let address = |host| Address::Inet(([10, 0, number, host], 9000).into());
        let mut pool = PoolConfig::named(format!("pool-{number}"));
        pool.backends = (0..100).map(|host| address(host).into()).collect();
        pool.balance = if number % 5 == 0 { Balance::ConsistentHash } else { Balance::LeastConnections };
        config.pools.push(pool);
    }
    for number in 0..1000 {
        let mut route = Route::catch_all(format!("route-{number}"), number % 100, &config);
        route.hosts = vec![HostMatch::Exact(format!("h{}.example.com", number % 250))];
        route.path = PathMatch::Segments(format!("/room-{number}"));
        config.routes.push(route);
    }
    config
}

/// A binary message of less than 126 bytes.
fn message(masked: bool, len: u8) -> Vec<u8> {
    let header: &[u8] = if masked { &[0x82, 0x80 | len, 1, 2, 3, 4] } else { &[0x82, len] };
    [header, &vec![7; usize::from(len)]].concat()
}

fn next_batch(stage: &mut Stage) {
    stage.end_batch();
    stage.flush();
}

/// The best of many short runs: what disturbs a run only ever makes it slower.
fn print(name: &str, sessions: usize, pieces: usize, mut round: impl FnMut(&mut Stage, &[(ConnId, ConnId)]) -> usize) {
    let mut stage = Stage::new(config(1), sessions);
    let open: Vec<_> = (0..sessions).map(|_| stage.open()).collect();
    stage.records = false;
    let mut best = Duration::MAX;
    let mut relayed = 0;
    for _ in 0..100 {
        relayed = 0;
        let start = Instant::now();
        while relayed < pieces {
            relayed += round(&mut stage, &open);
        }
        best = best.min(start.elapsed());
    }
    assert_eq!(stage.relay.leases(), 0);
    println!("{name:<52} {:>8.1} ns/piece", best.as_nanos() as f64 / relayed as f64);
}
