//! What was meant by a word that is not known: one of ours with a slip in it, or another program's.

/// Longer ones are no slip, and comparing them would cost.
const BYTES_MAX: usize = 64;

use Program::{Envoy, Haproxy, Nginx};

#[derive(Clone, Copy, Debug)]
enum Program {
    Envoy,
    Haproxy,
    Nginx,
}

/// Keys that others have, and what is said here instead, as paths from the root. In lower case, with `_` for what joins words.
const KEYS: &[(Program, &str, &str)] = &[
    (Haproxy, "backend", "[[pools]]"),
    (Haproxy, "bind", "listeners.address"),
    (Haproxy, "cpu_map", "cpus"),
    (Haproxy, "default_backend", "default_pool"),
    (Haproxy, "frontend", "[[listeners]] with [[routes]]"),
    (Haproxy, "hash_type", "pools.balance = \"consistent-hash\""),
    (Haproxy, "inter", "pools.health.interval"),
    (Haproxy, "maxconn", "pools.connections_max for a backend, limits.sessions_max for a worker"),
    (Haproxy, "maxqueue", "pools.admission.queue_max"),
    (Haproxy, "nbthread", "workers"),
    (Haproxy, "retries", "pools.admission.tries_max"),
    (Haproxy, "server", "a line of pools.backends"),
    (Haproxy, "timeout_client", "timeouts.idle"),
    (Haproxy, "timeout_connect", "timeouts.connect"),
    (Haproxy, "timeout_http_request", "timeouts.head"),
    (Haproxy, "timeout_queue", "pools.admission.queue_timeout"),
    (Haproxy, "timeout_server", "timeouts.answer for handshakes, timeouts.idle for open sessions"),
    (Haproxy, "timeout_tunnel", "timeouts.idle"),
    (Haproxy, "use_backend", "routes.pool"),
    (Nginx, "add_header", "routes.response_headers"),
    (Nginx, "client_header_timeout", "timeouts.head"),
    (Nginx, "client_max_body_size", "limits.request_body_bytes_max"),
    (Nginx, "error_log", "log_level"),
    (Nginx, "fail_timeout", "pools.eject.time"),
    (Nginx, "keepalive_timeout", "timeouts.idle, as nothing but open sessions is kept alive"),
    (Nginx, "large_client_header_buffers", "limits.head_bytes_max and limits.header_bytes_max"),
    (Nginx, "listen", "listeners.address"),
    (Nginx, "location", "routes.path, routes.path_segments or routes.path_prefix"),
    (Nginx, "max_conns", "pools.backends.connections_max"),
    (Nginx, "max_fails", "pools.eject.failures"),
    (Nginx, "proxy_connect_timeout", "timeouts.connect"),
    (Nginx, "proxy_hide_header", "routes.response_headers"),
    (Nginx, "proxy_next_upstream_tries", "pools.admission.tries_max"),
    (Nginx, "proxy_pass", "routes.pool"),
    (Nginx, "proxy_read_timeout", "timeouts.answer for handshakes, timeouts.idle for open sessions"),
    (Nginx, "proxy_send_timeout", "timeouts.send_stall"),
    (Nginx, "proxy_set_header", "routes.request_headers"),
    (Nginx, "resolver", "nameservers"),
    (Nginx, "server_name", "routes.host"),
    (Nginx, "upstream", "[[pools]]"),
    (Nginx, "worker_connections", "limits.sessions_max"),
    (Nginx, "worker_cpu_affinity", "cpus"),
    (Nginx, "worker_processes", "workers"),
    (Nginx, "worker_shutdown_timeout", "timeouts.drain"),
    (Envoy, "base_ejection_time", "pools.eject.time"),
    (Envoy, "circuit_breakers", "pools.connections_max and [pools.breaker]"),
    (Envoy, "cluster", "routes.pool"),
    (Envoy, "clusters", "[[pools]]"),
    (Envoy, "concurrency", "workers"),
    (Envoy, "connect_timeout", "timeouts.connect"),
    (Envoy, "consecutive_5xx", "pools.eject.failures"),
    (Envoy, "domains", "routes.host"),
    (Envoy, "hash_policy", "pools.hash"),
    (Envoy, "health_checks", "[pools.health]"),
    (Envoy, "healthy_threshold", "pools.health.rise"),
    (Envoy, "idle_timeout", "timeouts.idle"),
    (Envoy, "lb_endpoints", "pools.backends"),
    (Envoy, "lb_policy", "pools.balance"),
    (Envoy, "max_connections", "pools.connections_max"),
    (Envoy, "max_ejection_time", "pools.eject.time_max"),
    (Envoy, "max_request_headers_kb", "limits.head_bytes_max"),
    (Envoy, "outlier_detection", "[pools.eject]"),
    (Envoy, "prefix", "routes.path_prefix or routes.path_segments"),
    (Envoy, "prefix_rewrite", "routes.rewrite"),
    (Envoy, "unhealthy_threshold", "pools.health.fall"),
    (Envoy, "virtual_hosts", "[[routes]]"),
];

/// Values that others have, and ours.
const WORDS: &[(Program, &str, &str)] = &[
    (Haproxy, "alert", "error"),
    (Haproxy, "crit", "error"),
    (Haproxy, "emerg", "error"),
    (Haproxy, "err", "error"),
    (Haproxy, "hdr", "consistent-hash"),
    (Haproxy, "httpchk", "http"),
    (Haproxy, "leastconn", "least-connections"),
    (Haproxy, "notice", "info"),
    (Haproxy, "roundrobin", "round-robin"),
    (Haproxy, "source", "ip-hash"),
    (Haproxy, "static_rr", "round-robin"),
    (Haproxy, "uri", "consistent-hash"),
    (Haproxy, "url_param", "consistent-hash"),
    (Haproxy, "warning", "warn"),
    (Nginx, "hash", "consistent-hash"),
    (Nginx, "least_conn", "least-connections"),
    (Envoy, "critical", "error"),
    (Envoy, "least_request", "least-connections"),
    (Envoy, "maglev", "consistent-hash"),
    (Envoy, "ring_hash", "consistent-hash"),
];

/// For a fault about this key, behind "is not known here". Empty if nothing comes to mind.
pub(super) fn of_key(key: &str, known: &[&str]) -> String {
    let ours = || Some(format!(" (did you mean {}?)", nearest(key, known)?));
    let others = || {
        let (program, name, ours) = find(KEYS, key)?;
        Some(format!(" ({}'s {name} is {ours} here)", program.name()))
    };
    // Another program's is no slip, however near it is to one of ours.
    others().or_else(ours).unwrap_or_default()
}

/// For a fault about this value, behind "is not known".
pub(super) fn of_word(word: &str, known: &[&str]) -> String {
    let ours = || Some(format!(" (did you mean \"{}\"?)", nearest(word, known)?));
    let others = || {
        let (program, name, ours) = find(WORDS, word).filter(|(.., ours)| known.contains(ours))?;
        Some(format!(" ({}'s {name} is \"{ours}\" here)", program.name()))
    };
    others().or_else(ours).unwrap_or_default()
}

fn find(table: &'static [(Program, &str, &str)], word: &str) -> Option<&'static (Program, &'static str, &'static str)> {
    let word = normal(word)?;
    table.iter().find(|(_, name, _)| *name == word)
}

/// `None`: too long to be worth a look.
fn normal(word: &str) -> Option<String> {
    (word.len() <= BYTES_MAX).then(|| word.to_lowercase().replace(['-', ' ', '.'], "_"))
}

/// The one that the fewest slips lead to: a letter too many, too few or wrong, or two in the wrong order. One in a word of up
/// to five letters, else two; shorter ones than three are too near to everything.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = normal(word)?;
    let slips_max = match word.chars().count() {
        ..3 => 0,
        3..6 => 1,
        _ => 2,
    };
    let slips = known.iter().filter_map(|known| Some((slips(&word, &normal(known)?), *known)));
    slips.filter(|(slips, _)| *slips <= slips_max).min_by_key(|(slips, _)| *slips).map(|(_, known)| known)
}

/// The edit distance, with neighbours that were swapped as one edit.
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Row by row: the distance of the first `i` characters of one to the first `j` of the other.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let is_swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if is_swapped { least.min(rows[i - 2][j - 2] + 1) } else { least }
            };
        }
    }
    rows[a.len()][b.len()]
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Envoy => "Envoy",
            Haproxy => "HAProxy",
            Nginx => "nginx",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::docs;
    use crate::config::{Balance, Check, LogLevel};

    #[test]
    fn slips_are_counted() {
        for (a, b, count) in [
            ("", "", 0),
            ("", "ab", 2),
            ("host", "host", 0),
            ("hosts", "host", 1),
            ("caht", "chat", 1),
            ("abc", "ca", 3),
        ] {
            assert_eq!((slips(a, b), slips(b, a)), (count, count), "{a} {b}");
        }
        assert_eq!(slips("ä", "a"), 1);
    }

    #[test]
    fn the_nearest_is_meant_and_only_if_it_is_near() {
        let known = ["head_bytes_max", "headers_max", "host", "idle"];
        for (word, meant) in [
            ("head_byte_max", Some("head_bytes_max")),
            ("Head-Bytes-Max", Some("head_bytes_max")),
            ("header_max", Some("headers_max")),
            ("hots", Some("host")),
            ("idel", Some("idle")),
            ("hedr", None),
            ("id", None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
        // Costs nothing, whatever it is.
        assert_eq!(nearest(&"x".repeat(4 << 20), &known), None);
    }

    #[test]
    fn what_is_said_instead_is_there() {
        let options = docs::options();
        for (program, name, ours) in KEYS {
            assert_eq!(normal(name).as_deref(), Some(*name), "{program:?}");
            assert!(!options.contains(&format!(".{name}` | ")), "{name} is a key of ours as well");
            let paths = ours.split([' ', ',']).filter(|word| word.contains(['.', '[']) || *word == *ours);
            for path in paths {
                let is_table = path.starts_with('[') && options.contains(&format!("\n## {path}\n"));
                assert!(is_table || options.contains(&format!("\n| `{path}` | ")), "{name}: {path}");
            }
        }
        let words = [LogLevel::WORDS, Balance::WORDS, Check::WORDS].concat();
        for (program, name, ours) in WORDS {
            assert_eq!(normal(name).as_deref(), Some(*name), "{program:?}");
            assert!(words.contains(ours) && !words.contains(name), "{name}");
        }
    }
}
