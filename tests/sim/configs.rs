//! Configs that the dice make, and what they say of a request, read without Ringway's help.

use std::time::Duration;

use ringway::config::{
    Address, Backend, Balance, Config, HashKeep, HashKey, Limits, ListenerConfig, PathMatch, PlainHttp, PoolConfig,
    Route, StickyValue, Timeouts,
};

use crate::shadow;
use crate::temper::Dice;

/// What clients ask for. In a gentle run the last is always forwarded if it is plain HTTP.
pub const PATHS: [&str; 4] = ["/chat", "/room", "/news", PAGE];
pub const PAGE: &str = "/page";

pub const COOKIE: &str = "rw";

/// What must hold in each config of a run.
#[derive(Clone, Copy)]
pub struct Frame {
    /// Nobody misbehaves and nothing breaks: then everything must arrive.
    pub gentle: bool,
    pub clients: usize,
}

/// `listeners` are the ids of those that it has.
pub fn roll(frame: Frame, listeners: &[u32], dice: &mut Dice) -> Config {
    let mut config = Config { listeners: listeners.iter().map(|id| listener(*id)).collect(), ..Config::default() };
    config.limits.head_bytes_max = if frame.gentle { 16 << 10 } else { dice.pick(&[512, 2048, 16 << 10]) };
    config.limits.early_bytes_max = dice.pick(&[1, 100, 16 << 10]);
    config.limits.window_bytes = dice.pick(&[1 << 10, 4 << 10, 32 << 10, 128 << 10]);
    config.buffers.small_bytes = dice.pick(&[64, 512, 4 << 10]);
    config.buffers.bulk_bytes = dice.pick(&[1 << 10, 4 << 10, 16 << 10]);
    if frame.gentle {
        be_patient(&mut config);
    } else {
        be_strict(&mut config, dice);
    }
    config.pools = (0..dice.within(1..=3)).map(|number| pool(number, frame, dice)).collect();
    config.default_pool = (frame.gentle || dice.chance(800)).then(|| dice.below(config.pools.len()));
    for path in PATHS {
        if path == PAGE || dice.chance(600) {
            let route = route(path, frame, &config, dice);
            config.routes.push(route);
        }
    }
    config
}

fn listener(id: u32) -> ListenerConfig {
    let address = Address::Inet(([127, 0, 0, 1], 8000 + id as u16).into());
    ListenerConfig { name: listener_name(id), ..address.into() }
}

fn listener_name(id: u32) -> String {
    format!("listener-{id}")
}

fn pool(number: usize, frame: Frame, dice: &mut Dice) -> PoolConfig {
    let mut pool = PoolConfig::named(format!("pool-{number}"));
    let all = 10 * number as u16 + 1..=10 * number as u16 + 4;
    let mut ports: Vec<u16> = all.clone().filter(|_| dice.chance(600)).collect();
    if ports.is_empty() {
        ports.push(*all.start());
    }
    pool.backends = ports.into_iter().map(|port| backend(port, dice)).collect();
    if frame.gentle {
        pool.backends[0].drain = false;
    }
    pool.balance = dice.pick(&[
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::PowerOfTwo,
        Balance::Random,
        Balance::IpHash,
        Balance::ConsistentHash,
    ]);
    pool.hash = match dice.below(3) {
        0 => HashKey::ClientIp,
        1 => HashKey::Header("Sec-WebSocket-Key".into()),
        _ => HashKey::Path(None),
    };
    pool.hash_keep = dice.pick(&[HashKeep::On, HashKeep::Off, HashKeep::Home]);
    if frame.gentle && pool.hash_keep == HashKeep::Home {
        // It ends sessions in which all is well.
        pool.hash_keep = HashKeep::On;
    }
    pool.hash_load_percent_max = dice.pick(&[None, Some(100), Some(125)]);
    pool.connections_max = dice.pick(&[None, None, Some(1), Some(2)]);
    pool.slow_start = dice.pick(&[None, Some(Duration::from_millis(500))]);
    if dice.chance(300) {
        pool.sticky.cookie = Some(COOKIE.into());
        pool.sticky.value = dice.pick(&[StickyValue::Opaque, StickyValue::Name]);
    }
    admit(&mut pool, frame, dice);
    pool.eject.failures = dice.pick(&[None, Some(1), Some(3)]);
    pool.eject.time = Duration::from_millis(dice.pick(&[5, 500]));
    pool.eject.time_max = 4 * pool.eject.time;
    pool.eject.available_percent_min = dice.pick(&[0, 50]) as u32;
    pool.eject.early_close = dice.pick(&[None, Some(Duration::from_millis(20))]);
    pool.breaker.failures_percent = dice.pick(&[None, None, Some(50)]);
    pool.breaker.handshakes_min = 2;
    pool.breaker.open = Duration::from_millis(dice.pick(&[10, 1000]));
    pool.breaker.probes = dice.pick(&[1, 3]);
    pool
}

fn backend(port: u16, dice: &mut Dice) -> Backend {
    let address = Address::Inet(([127, 0, 0, 1], port).into());
    Backend {
        weight: dice.pick(&[1, 1, 2, 256]),
        connections_max: dice.pick(&[None, None, None, Some(1)]),
        backup: dice.chance(200),
        drain: dice.chance(150),
        ..Backend::from(address)
    }
}

fn admit(pool: &mut PoolConfig, frame: Frame, dice: &mut Dice) {
    let admission = &mut pool.admission;
    admission.handshakes_per_second_max = dice.pick(&[None, None, None, Some(20), Some(1000)]);
    admission.handshakes_burst = dice.pick(&[None, Some(1)]);
    admission.backend_handshakes_max = dice.pick(&[None, None, Some(1), Some(2)]);
    if frame.gentle {
        admission.queue_max = frame.clients as u32;
        admission.queue_timeout = Duration::from_secs(3600);
    } else {
        admission.queue_max = dice.pick(&[0, 1, 4]);
        admission.queue_timeout = Duration::from_millis(dice.pick(&[1, 100, 5000]));
    }
}

fn route(path: &str, frame: Frame, config: &Config, dice: &mut Dice) -> Route {
    let mut route = Route::catch_all(path, dice.below(config.pools.len()), config);
    route.path = PathMatch::Exact(path.into());
    if dice.chance(if frame.gentle && path == PAGE { 1000 } else { 500 }) {
        route.plain_http = PlainHttp::Forward;
    }
    if dice.chance(200) {
        route.rewrite = Some("/elsewhere".into());
    }
    if dice.chance(300) {
        route.response_headers.set.push(("X-Route".into(), path.into()));
    }
    if !frame.gentle {
        if dice.chance(200) {
            let id = dice.below(4) as u32;
            route.listeners = vec![listener_name(id)];
            // A route of a listener that the config does not name is refused by its checks.
            route.listeners.retain(|name| config.listeners.iter().any(|listener| listener.name == *name));
        }
        be_strict_with(&mut route.limits, dice);
        route.timeouts.answer = Duration::from_millis(dice.pick(&[1, 50, 1000]));
    }
    route
}

fn be_patient(config: &mut Config) {
    config.limits.control_frames_per_second_max = None;
    config.limits.request_body_bytes_max = None;
    let timeouts = &mut config.timeouts;
    let long = Duration::from_secs(3600);
    (timeouts.head, timeouts.connect, timeouts.answer, timeouts.send_stall) = (long, long, long, long);
    (timeouts.close, timeouts.linger, timeouts.plain_http) = (long, long, long);
}

fn be_strict(config: &mut Config, dice: &mut Dice) {
    be_strict_with(&mut config.limits, dice);
    let timeouts = &mut config.timeouts;
    let mut wait = || Duration::from_millis(dice.pick(&[1, 50, 1000, 10_000]));
    (timeouts.head, timeouts.connect, timeouts.answer) = (wait(), wait(), wait());
    (timeouts.send_stall, timeouts.close, timeouts.linger) = (wait(), wait(), wait());
    (timeouts.drain, timeouts.drain_spread, timeouts.plain_http) = (wait(), wait(), wait());
    if dice.chance(500) {
        timeouts.drain_spread = Duration::ZERO;
    }
    timeouts.idle = dice.pick(&[None, Some(Duration::from_millis(20)), Some(Duration::from_secs(60))]);
}

fn be_strict_with(limits: &mut Limits, dice: &mut Dice) {
    limits.control_frames_per_second_max = dice.pick(&[None, Some(5), Some(1000)]);
    limits.frame_bytes_max = dice.pick(&[None, None, Some(1000)]);
    limits.message_bytes_max = dice.pick(&[None, None, Some(3000)]);
    limits.message_fragments_max = dice.pick(&[None, None, Some(3)]);
    limits.response_body_bytes_max = dice.pick(&[0, 5, 1 << 20]);
    limits.request_body_bytes_max = dice.pick(&[None, Some(0), Some(300)]);
    limits.informational_max = dice.pick(&[0, 10]);
}

/// The pool of a request, its limits and its timeouts. `None`: no route takes it.
pub fn routed<'a>(config: &'a Config, path: &str, listener: u32) -> Option<(usize, &'a Limits, &'a Timeouts)> {
    let name = listener_name(listener);
    let takes = |route: &&Route| {
        route.path == PathMatch::Exact(path.into()) && (route.listeners.is_empty() || route.listeners.contains(&name))
    };
    let route = config.routes.iter().find(takes).map(|route| (route.pool, &route.limits, &route.timeouts));
    route.or_else(|| config.default_pool.map(|pool| (pool, &config.limits, &config.timeouts)))
}

pub fn frame_limits(limits: &Limits) -> shadow::Limits {
    shadow::Limits {
        frame: limits.frame_bytes_max.unwrap_or(u64::MAX),
        message: limits.message_bytes_max.unwrap_or(u64::MAX),
        fragments: limits.message_fragments_max.unwrap_or(u32::MAX),
    }
}
