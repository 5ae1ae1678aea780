//! `-T`: what `auto` comes to, and what is not shown.

use super::*;

fn derived(cpus: &[usize]) -> Derived {
    Derived {
        workers: 3,
        cpus: cpus.to_vec(),
        plan: Some(Plan { sessions_max: 1000, refusals_max: 8, small_count: 2000, bulk_count: 32 }),
        nameservers: vec!["192.0.2.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()],
    }
}

/// With routes of which one is strict.
fn config() -> Config {
    let routes =
        "[[routes]]\nhost = \"a\"\npath = \"/b\"\npool = \"chat\"\n[[routes]]\nhost = \"c\"\npool = \"chat\"\n";
    accepted(&format!("{POOL}admission.handshakes_per_second_max = 50\n{routes}"), &[])
}

#[test]
fn every_auto_is_told() {
    let printed = print(&config(), Some(&derived(&[0, 2, 3])));
    for line in [
        "workers = \"auto\" # 3",
        "cpus = \"auto\" # 0,2-3",
        "nameservers = \"auto\" # 192.0.2.53:53, [::1]:53",
        "sessions_max = \"auto\" # 1000",
        "small_count = \"auto\" # 2000",
        "bulk_count = 64 # 32",
        "send_buffer_bytes = \"auto\" # sized by the kernel",
        "handshakes_burst = \"auto\" # 50",
        "host = \"auto\" # each backend's address",
        "secret = \"auto\" # a random one at each start",
        "paths = \"auto\" # \"strict\"",
        "paths = \"auto\" # \"as-is\"",
    ] {
        assert!(printed.lines().any(|other| other == line), "{line}");
    }
    // Of sticky.secure it is a word, and not left to anybody.
    let untold: Vec<&str> =
        printed.lines().filter(|line| line.ends_with("\"auto\"") && !line.starts_with("secure")).collect();
    assert!(untold.is_empty(), "{untold:?}");
    assert!(print(&config(), Some(&derived(&[]))).contains("cpus = \"auto\" # none: a quota rules\n"));
    // It is a file all the same.
    assert_eq!(accepted(&printed, &[]), config());
}

#[test]
fn what_was_asked_for_is_not_told_again() {
    let mut config = config();
    (config.workers, config.cpus, config.nameservers) = (Some(3), Some(vec![1]), Some(vec![]));
    (config.limits.sessions_max, config.buffers.small_count) = (Some(1000), Some(2000));
    config.buffers.bulk_count = 32;
    let printed = print(&config, Some(&derived(&[1])));
    for line in ["workers = 3", "cpus = \"1\"", "sessions_max = 1000", "small_count = 2000", "bulk_count = 32"] {
        assert!(printed.lines().any(|other| other == line), "{line}");
    }
    // Less than that is.
    config.limits.sessions_max = Some(5000);
    assert!(print(&config, Some(&derived(&[]))).contains("sessions_max = 5000 # 1000\n"));
}

#[test]
fn no_secret_is_shown() {
    let text = format!("{POOL}sticky.cookie = \"c\"\nsticky.secret = \"0123456789abcdef\"\n");
    let mut config = accepted(&text, &[]);
    for derived in [None, Some(&derived(&[]))] {
        let printed = print(&config, derived);
        assert!(printed.contains("\n# secret is set, and not shown\n") && !printed.contains("0123456789"), "{printed}");
        config.pools[0].sticky.secret = None;
        assert_eq!(accepted(&printed, &[]), config);
        config.pools[0].sticky.secret = Some("0123456789abcdef".into());
    }
}
