//! The options of a pool and of a backend, but for their names and addresses.

use std::ops::RangeInclusive;

use super::kind::{Grammar, Kind};
use super::{AUTO, OFF, Setting, WAIT, WAIT_OR_ZERO, setting};
use crate::config::{
    Backend, Balance, Check, HashKeep, HashKey, OnLoss, PoolConfig, SameSite, Secure, StickyValue, Unresolved, text,
};

/// The word for `None` where a backend leaves it to its pool.
const AS_POOL: Option<&str> = Some("pool");

/// More than one relay can have.
const CONNECTIONS: Kind = Kind::Count(1..=1 << 30);
const MILLION: RangeInclusive<u64> = 1..=1_000_000;
const PERCENT: Kind = Kind::Count(0..=100);
const STATUS: Kind = Kind::Count(100..=599);
/// So that no interval becomes zero.
const JITTER: Kind = Kind::Count(0..=90);
/// In a row.
const CHECKS: Kind = Kind::Count(1..=1000);

const HASH: Kind = Kind::Text(Grammar {
    what: "what is hashed",
    such_as: "header:X-Room",
    check: |text| text.parse::<HashKey>().map(drop),
});
const COOKIE: Kind = Kind::Text(Grammar { what: "a cookie's name", such_as: "backend", check: text::cookie_name });
const COOKIE_PATH: Kind = Kind::Text(Grammar { what: "a path", such_as: "/chat", check: text::cookie_path });
const COOKIE_DOMAIN: Kind = Kind::Text(Grammar { what: "a domain", such_as: "example.com", check: text::dns_name });
const SECRET: Kind =
    Kind::Text(Grammar { what: "a random text", such_as: "the output of `openssl rand -hex 32`", check: text::secret });
const PATH: Kind = Kind::Text(Grammar { what: "a path", such_as: "/health", check: text::target });
const HOST: Kind = Kind::Text(Grammar { what: "a host", such_as: "chat.example.com", check: text::authority });
const DNS: Kind =
    Kind::Text(Grammar { what: "a name and a port", such_as: "chat.example.com:9000", check: text::name_and_port });
const SRV: Kind =
    Kind::Text(Grammar { what: "a service's name", such_as: "_ws._tcp.chat.example.com", check: text::service });
const FILE: Kind =
    Kind::Text(Grammar { what: "a file's path", such_as: "/run/ringway/backends.toml", check: text::file });

/// In the order in which they are documented and printed.
#[rustfmt::skip]
pub(in crate::config) static POOL: &[Setting<PoolConfig>] = &[
    setting!("balance", balance, Kind::Words(Balance::WORDS)),
    setting!("hash", hash, HASH),
    setting!("hash_load_percent_max", hash_load_percent_max, Kind::Count(101..=10_000), OFF),
    setting!("hash_keep", hash_keep, Kind::Words(HashKeep::WORDS)),
    setting!("connections_max", connections_max, CONNECTIONS, OFF),
    setting!("slow_start", slow_start, WAIT, OFF),

    setting!("sticky.cookie", sticky.cookie, COOKIE, OFF),
    setting!("sticky.value", sticky.value, Kind::Words(StickyValue::WORDS)),
    setting!("sticky.same_site", sticky.same_site, Kind::Words(SameSite::WORDS)),
    setting!("sticky.secure", sticky.secure, Kind::Words(Secure::WORDS)),
    setting!("sticky.path", sticky.path, COOKIE_PATH),
    setting!("sticky.domain", sticky.domain, COOKIE_DOMAIN, OFF),
    setting!("sticky.secret", sticky.secret, SECRET, AUTO),

    setting!("admission.handshakes_per_second_max", admission.handshakes_per_second_max, Kind::Count(MILLION), OFF),
    setting!("admission.handshakes_burst", admission.handshakes_burst, Kind::Count(MILLION), AUTO),
    setting!("admission.backend_handshakes_max", admission.backend_handshakes_max, Kind::Count(MILLION), OFF),
    setting!("admission.queue_max", admission.queue_max, Kind::Count(0..=1_000_000)),
    setting!("admission.queue_timeout", admission.queue_timeout, WAIT),
    setting!("admission.retry_after", admission.retry_after, Kind::Seconds(1..=86_400)),
    setting!("admission.tries_max", admission.tries_max, Kind::Count(1..=100)),

    setting!("health.check", health.check, Kind::Words(Check::WORDS)),
    setting!("health.interval", health.interval, WAIT),
    setting!("health.jitter_percent", health.jitter_percent, JITTER),
    setting!("health.timeout", health.timeout, WAIT),
    setting!("health.rise", health.rise, CHECKS),
    setting!("health.fall", health.fall, CHECKS),
    setting!("health.path", health.path, PATH),
    setting!("health.host", health.host, HOST, AUTO),
    setting!("health.status_min", health.status_min, STATUS),
    setting!("health.status_max", health.status_max, STATUS),

    setting!("eject.failures", eject.failures, Kind::Count(MILLION), OFF),
    setting!("eject.statuses", eject.statuses, Kind::Statuses),
    setting!("eject.clients_min", eject.clients_min, Kind::Count(1..=64)),
    setting!("eject.clients_percent", eject.clients_percent, Kind::Count(1..=100)),
    setting!("eject.time", eject.time, WAIT),
    setting!("eject.time_max", eject.time_max, WAIT),
    setting!("eject.available_percent_min", eject.available_percent_min, PERCENT),
    setting!("eject.early_close", eject.early_close, WAIT, OFF),

    setting!("breaker.failures_percent", breaker.failures_percent, Kind::Count(1..=100), OFF),
    setting!("breaker.handshakes_min", breaker.handshakes_min, Kind::Count(MILLION)),
    setting!("breaker.window", breaker.window, WAIT),
    setting!("breaker.open", breaker.open, WAIT),
    setting!("breaker.probes", breaker.probes, Kind::Count(1..=1000)),

    setting!("sessions.on_down", sessions.on_down, Kind::Words(OnLoss::WORDS)),
    setting!("sessions.on_drain", sessions.on_drain, Kind::Words(OnLoss::WORDS)),
    setting!("sessions.close_spread", sessions.close_spread, WAIT_OR_ZERO),

    setting!("discovery.dns", discovery.dns, DNS, OFF),
    setting!("discovery.srv", discovery.srv, SRV, OFF),
    setting!("discovery.file", discovery.file, FILE, OFF),
    setting!("discovery.interval_min", discovery.interval_min, WAIT),
    setting!("discovery.interval_max", discovery.interval_max, WAIT),
    setting!("discovery.jitter_percent", discovery.jitter_percent, PERCENT),
    setting!("discovery.empty_after", discovery.empty_after, WAIT_OR_ZERO),
    setting!("discovery.unresolved", discovery.unresolved, Kind::Words(Unresolved::WORDS)),
];

#[rustfmt::skip]
pub(in crate::config) static BACKEND: &[Setting<Backend>] = &[
    setting!("weight", weight, Kind::Count(1..=256)),
    setting!("connections_max", connections_max, CONNECTIONS, AS_POOL),
    setting!("slow_start", slow_start, WAIT, AS_POOL),
    setting!("backup", backup, Kind::Flag),
    setting!("drain", drain, Kind::Flag),
];
