//! The file, the flags and the checks together: what is accepted, and what is said about the rest.

mod docs;
mod effective;
mod environment;
mod pools;
mod routes;

use std::time::Duration;

use super::*;
use options::{BACKEND, GLOBAL, Key, POOL_KEYS, ROOT_KEYS, ROUTE, Setting, change_all};

const MACHINE: [usize; 4] = [0, 1, 2, 3];
const POOL: &str = "[[pools]]\nname = \"chat\"\nbackends = [\"10.0.0.5:9000\"]\n";

fn machine() -> Machine {
    Machine { cpus: MACHINE.to_vec() }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn flags(args: &[&str]) -> Flags {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }
    use clap::Parser;
    Cli::parse_from(["ringway"].iter().chain(args)).flags
}

fn read(text: &str, args: &[&str]) -> Result<Config, String> {
    read_with(&[], text, args)
}

/// With these variables in the environment.
fn read_with(variables: &[(&str, &str)], text: &str, args: &[&str]) -> Result<Config, String> {
    let mut draft = file::read(text, &Environment::of(variables));
    draft.apply(&flags(args));
    let checked = check::check(draft, &machine());
    checked.map_err(|list| Diagnostics { file: Some("f".into()), list }.to_string())
}

#[track_caller]
fn accepted(text: &str, args: &[&str]) -> Config {
    read(text, args).unwrap_or_else(|faults| panic!("refused:\n{faults}"))
}

#[track_caller]
fn faults(text: &str, args: &[&str], expected: &[&str]) {
    let found = read(text, args).expect_err("accepted");
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

/// A file that is good but for these lines, which begin at line 1.
#[track_caller]
fn faults_of(lines: &str, expected: &[&str]) {
    faults(&format!("{lines}\n{POOL}"), &[], expected);
}

/// What is told of a key that is not there: the keys that are, of this section or outside of sections.
fn known<T>(settings: &[Setting<T>], section: &str, keys: &[Key]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (of, name) in settings.iter().map(Setting::place) {
        let name = if section.is_empty() && !of.is_empty() { of } else { name };
        if (section.is_empty() || of == section) && !names.contains(&name) {
            names.push(name);
        }
    }
    names.extend(keys.iter().map(|key| key.name));
    format!("known are {}", names.join(", "))
}

#[test]
fn the_smallest_file_gives_the_defaults() {
    let expected = Config {
        listeners: vec![address("127.0.0.1:8080").into()],
        pools: vec![PoolConfig { backends: vec![address("10.0.0.5:9000").into()], ..PoolConfig::named("chat") }],
        default_pool: Some(0),
        ..Config::default()
    };
    assert_eq!(accepted(POOL, &[]), expected);
}

#[test]
fn a_file_may_say_everything() {
    let config = accepted(
        r#"
        workers = 3
        cpus = "0,2-3"
        log_level = "debug"
        default_pool = "second"
        listeners = [{ address = "[::1]:80" }, { address = "unix:/run/ringway.sock" }]
        pools = [
            { name = "first", backends = ["10.0.0.5:9000"] },
            { name = "second", balance = "least-connections", backends = ["unix:/run/chat.sock", "[2001:db8::1]:9000"] },
        ]
        limits.frame_bytes_max = "1MiB"
        limits.window_bytes = 131_072
        limits.control_frames_per_second_max = "off"
        [timeouts]
        idle = "1h30m"
        drain_spread = 0
        [tcp]
        keepalive = "off"
        send_buffer_bytes = "64KiB"
        [forward]
        forwarded = "append"
        "#,
        &[],
    );
    assert_eq!((config.workers, config.cpus, config.log_level), (Some(3), Some(vec![0, 2, 3]), LogLevel::Debug));
    assert_eq!(config.listeners, [address("[::1]:80").into(), address("unix:/run/ringway.sock").into()]);
    assert_eq!((config.default_pool, config.pools[1].balance), (Some(1), Balance::LeastConnections));
    assert_eq!(config.pools[1].backends[1].address.to_string(), "[2001:db8::1]:9000");
    assert_eq!((config.limits.frame_bytes_max, config.limits.window_bytes), (Some(1 << 20), 128 << 10));
    assert_eq!(config.limits.control_frames_per_second_max, None);
    assert_eq!(config.timeouts.idle, Some(Duration::from_secs(5400)));
    assert_eq!((config.tcp.keepalive, config.tcp.send_buffer_bytes), (None, Some(64 << 10)));
    assert_eq!((config.forward.forwarded, config.forward.x_forwarded_for), (ForwardMode::Append, ForwardMode::Replace));
}

#[test]
fn every_fault_is_told_with_its_place() {
    faults(
        "wörkers = 1\nlog_level = \"loud\"\n\n[timeouts]\n  head = 0\nidle = \"0s\"\n[limits]\nheaders_max = 5000 # ü\n",
        &[],
        &[
            "f:1:2: invalid unquoted key, expected letters, numbers, `-`, `_`",
            "f:2:13: log_level: \"loud\" is not known; write \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"",
            "f:5:10: timeouts.head: 0 is not allowed; write a time such as \"30s\"",
            "f:6:8: timeouts.idle: 0 is not allowed; write a time such as \"30s\" or \"off\"",
            "f:8:15: limits.headers_max: 5000 is not allowed; it may be 8 to 1000",
        ],
    );
}

#[test]
fn values_of_the_wrong_kind() {
    faults_of(
        "workers = \"many\"\ncpus = 3\n[limits]\nhead_bytes_max = \"64K\"\nwindow_bytes = -1\nframe_bytes_max = \"100B\"\n[timeouts]\nconnect = 5\nanswer = \"5\"\n[tcp]\nbacklog = 1.5\nkeepalive = \"1500ms\"\n[forward]\nforwarded = true",
        &[
            "f:1:11: workers: \"many\" is not allowed; write a whole number or \"auto\"",
            "f:2:8: cpus: 3 is not allowed; write a list of CPUs such as \"0,2-5\" or \"auto\"",
            "f:4:18: limits.head_bytes_max: \"64K\" is not a size; write it as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"",
            "f:5:16: limits.window_bytes: -1 is not allowed; write a size such as \"64KiB\"",
            "f:6:19: limits.frame_bytes_max: 100B is not allowed; it may be 125B to 1024TiB, or \"off\"",
            "f:8:11: timeouts.connect: 5 is not allowed; write a time such as \"30s\"",
            "f:9:10: timeouts.answer: \"5\" is not a time; write it as \"500ms\", \"30s\", \"5m\", \"2h\", \"1d\" or \"1h30m\"",
            "f:11:11: tcp.backlog: 1.5 is not allowed; write a whole number",
            "f:12:13: tcp.keepalive: \"1500ms\" is not allowed; this is counted in whole seconds",
            "f:14:13: forward.forwarded: true is not allowed; write \"append\" or \"replace\" or \"off\"",
        ],
    );
}

#[test]
fn only_drain_spread_may_be_zero() {
    for setting in GLOBAL.iter().filter(|setting| setting.path.starts_with("timeouts.")) {
        for zero in ["0", "\"0\"", "\"0s\""] {
            let found = read(&format!("{} = {zero}\n{POOL}", setting.path), &[]);
            assert_eq!(found.is_ok(), setting.path == "timeouts.drain_spread", "{} = {zero}", setting.path);
        }
    }
}

#[test]
fn unknown_keys() {
    // As a person reads it, for a section that is not likely to grow.
    assert_eq!(known(&GLOBAL, "close_codes", &[]), "known are backend_lost, backend_restarts");
    assert!(known(&GLOBAL, "", ROOT_KEYS).starts_with("known are workers, cpus, "));
    assert!(known(&GLOBAL, "", ROOT_KEYS).ends_with(", buffers, default_pool, listeners, pools, routes"));
    let tables = "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = true\n[[pools]]\nname = \"a\"\nbackends = [\"127.0.0.1:2\"]\nweight = 3\n";
    faults(
        &format!("listen = \"127.0.0.1:80\"\n[tcp]\nnodelay = true\n{tables}"),
        &[],
        &[
            &format!(
                "f:1:1: listen: is not known here (nginx's listen is listeners.address here); {}",
                known(&GLOBAL, "", ROOT_KEYS)
            ),
            &format!("f:3:1: tcp.nodelay: is not known here; {}", known(&GLOBAL, "tcp", &[])),
            "f:6:1: listeners[0].tls: is not known here; known are name, address, mode, owner, group",
            &format!("f:10:1: pools[0].weight: is not known here; {}", known(&options::POOL, "", POOL_KEYS)),
        ],
    );
}

#[test]
fn words_with_a_slip_and_words_of_other_programs() {
    let told = |lines: &str, hint: &str| {
        let found = read(&format!("{lines}\n{POOL}"), &[]).unwrap_err();
        assert!(found.lines().count() == 1 && found.contains(hint), "{lines}: {found}");
    };
    told("worker = 2", "worker: is not known here (did you mean workers?); known are workers, ");
    told("limits.head_bytes_min = 1", "limits.head_bytes_min: is not known here (did you mean head_bytes_max?); known");
    told("log_level = \"wran\"", "\"wran\" is not known (did you mean \"warn\"?); write \"error\" or ");
    told("log_level = \"WARN\"", "(did you mean \"warn\"?)");
    told("log_level = \"warning\"", "\"warning\" is not known (HAProxy's warning is \"warn\" here); write ");
    for (key, ours) in [
        (
            "maxconn",
            "(HAProxy's maxconn is pools.connections_max for a backend, limits.sessions_max for a worker here)",
        ),
        ("server", "(HAProxy's server is a line of pools.backends here)"),
        ("upstream", "(nginx's upstream is [[pools]] here)"),
        ("client_max_body_size", "(nginx's client_max_body_size is limits.request_body_bytes_max here)"),
        (
            "keepalive_timeout",
            "(nginx's keepalive_timeout is timeouts.idle, as nothing but open sessions is kept alive here)",
        ),
        ("proxy_read_timeout", "(nginx's proxy_read_timeout is timeouts.answer for handshakes, timeouts.idle for "),
        ("\"timeout tunnel\"", "(HAProxy's timeout_tunnel is timeouts.idle here)"),
        ("lb_policy", "(Envoy's lb_policy is pools.balance here)"),
    ] {
        told(&format!("{key} = 1"), ours);
        told(&format!("[limits]\n{key} = 1"), ours);
    }
    for (word, ours) in [
        ("roundrobin", "(HAProxy's roundrobin is \"round-robin\" here)"),
        ("leastconn", "(HAProxy's leastconn is \"least-connections\" here)"),
        ("least_conn", "(nginx's least_conn is \"least-connections\" here)"),
        ("source", "(HAProxy's source is \"ip-hash\" here)"),
        ("LEAST_REQUEST", "(Envoy's least_request is \"least-connections\" here)"),
        ("ROUND_ROBIN", "(did you mean \"round-robin\"?)"),
    ] {
        let found = read(&format!("{POOL}balance = \"{word}\""), &[]).unwrap_err();
        assert!(found.contains(&format!("\"{word}\" is not known {ours}; write \"round-robin\" or ")), "{found}");
    }
}

#[test]
fn listeners_and_pools() {
    faults(
        "tcp = 4\ndefault_pool = \"d\"\n[[listeners]]\n[[listeners]]\naddress = \"localhost:80\"\n[[listeners]]\naddress = \"1.2.3.4:80\"\n[[listeners]]\naddress = \"1.2.3.4:80\"\n\
         [[pools]]\nname = \"\"\n[[pools]]\nname = \"b\"\nbalance = \"best\"\nbackends = [\"1.2.3.4:81\", \"chat\", 7,\n  \"1.2.3.4:81\", \"1.2.3.4:80\", \"1.2.3.4:0\"]\n[[pools]]\nname = \"b\"\nbackends = []\n",
        &[],
        &[
            "f:1:7: tcp: 4 is not allowed; [tcp] is a table",
            "f:2:16: default_pool: there is no pool of the name \"d\"",
            "f:3:1: listeners[0].address: is missing; write address = \"127.0.0.1:8080\"",
            "f:5:11: listeners[1].address: \"localhost:80\" is not an address; write it as 192.0.2.1:8080, [2001:db8::1]:8080 or unix:/path",
            "f:9:11: listeners[3].address: 1.2.3.4:80 is listened on twice",
            "f:10:1: pools[0].backends: is missing; write backends = [\"127.0.0.1:9000\"], or [pools.discovery]",
            "f:11:8: pools[0].name: is empty",
            "f:14:11: pools[1].balance: \"best\" is not known; write \"round-robin\" or \"least-connections\" or \"power-of-two\" or \"random\" or \"ip-hash\" or \"consistent-hash\"",
            "f:15:27: pools[1].backends[1]: \"chat\" is not a backend; write it as 192.0.2.1:9000, [2001:db8::1]:9000, name:9000 or unix:/path",
            "f:15:35: pools[1].backends[2]: 7 is not allowed; write a string, or a table with address",
            "f:16:3: pools[1].backends[3]: 1.2.3.4:81 is listed twice",
            "f:16:17: pools[1].backends[4]: 1.2.3.4:80 is this relay itself: it listens there",
            "f:16:31: pools[1].backends[5]: port 0 cannot be connected to",
            "f:18:8: pools[2].name: \"b\" is the name of another pool already",
            "f:19:12: pools[2].backends: is empty; a pool needs at least one backend, or [pools.discovery] to find it",
        ],
    );
    faults(
        "pools = 1\n[listeners]",
        &[],
        &[
            "f:1:9: pools: write it as [[pools]], once for each",
            "f:2:1: listeners: write it as [[listeners]], once for each",
        ],
    );
}

#[test]
fn listeners_that_are_in_each_others_way() {
    let listeners = |addresses: &[&str]| -> String {
        addresses.iter().map(|address| format!("[[listeners]]\naddress = \"{address}\"\n")).collect()
    };
    faults_of(
        &listeners(&["0.0.0.0:80", "1.2.3.4:80", "[::1]:81", "[::]:81"]),
        &[
            "f:4:11: listeners[1].address: 0.0.0.0:80 is 1.2.3.4:80 too; listen on one of them",
            "f:8:11: listeners[3].address: [::]:81 is [::1]:81 too; listen on one of them",
        ],
    );
    let apart = ["0.0.0.0:80", "1.2.3.4:81", "[::]:80", "[::]:0", "127.0.0.1:0", "0.0.0.0:0", "unix:/a"];
    accepted(&(listeners(&apart) + POOL), &[]);
}

#[test]
fn a_fault_is_one_line_whatever_was_given() {
    faults_of(
        "default_pool = \"a\\nb\"\n[timeouts]\nhead = \"1\\n\\u001b[31m\"\n\"a\\rb\" = 1",
        &[
            "f:1:16: default_pool: there is no pool of the name \"a\\nb\"",
            "f:3:8: timeouts.head: \"1\\n\\u{1b}[31m\" is not a time; write it as \"500ms\", \"30s\", \"5m\", \"2h\", \"1d\" or \"1h30m\"",
            &format!("f:4:1: timeouts.a\\rb: is not known here; {}", known(&GLOBAL, "timeouts", &[])),
        ],
    );
}

#[test]
fn names_are_looked_up() {
    let config = accepted("[[pools]]\nname = \"a\"\nbackends = [\"localhost:9000\"]\n", &[]);
    assert!(
        config.pools[0]
            .backends
            .iter()
            .all(|backend| matches!(backend.address, Address::Inet(a) if a.ip().is_loopback()))
    );
}

#[test]
fn relations_point_at_the_later_option() {
    faults_of(
        "[limits]\nwindow_bytes = \"8KiB\"\nearly_bytes_max = \"9KiB\"\nhead_bytes_max = \"4KiB\"\nframe_bytes_max = \"2KiB\"\nmessage_bytes_max = \"1KiB\"\n[buffers]\nsmall_bytes = \"16KiB\"\nbulk_bytes = \"8KiB\"\n[timeouts]\ndrain = \"10s\"\ndrain_spread = \"1m\"",
        &[
            "f:3:19: limits.early_bytes_max: 9KiB is not allowed; it may be no more than limits.window_bytes, which is 8KiB",
            "f:4:18: limits.head_bytes_max: 4KiB is not allowed; it may be no less than limits.header_bytes_max, which is 8KiB",
            "f:4:18: limits.head_bytes_max: 4KiB is not allowed; it may be no less than limits.target_bytes_max, which is 8KiB",
            "f:6:21: limits.message_bytes_max: 1KiB is not allowed; it may be no less than limits.frame_bytes_max, which is 2KiB",
            "f:8:15: buffers.small_bytes: 16KiB is not allowed; it may be no more than limits.window_bytes, which is 8KiB",
            "f:9:14: buffers.bulk_bytes: 8KiB is not allowed; it may be no less than buffers.small_bytes, which is 16KiB",
            "f:12:16: timeouts.drain_spread: 1m is not allowed; it may be no more than timeouts.drain, which is 10s",
        ],
    );
    // A refused value is not compared, and neither is its default.
    faults_of(
        "limits.window_bytes = \"8K\"\nlimits.early_bytes_max = \"256KiB\"",
        &["f:1:23: limits.window_bytes: \"8K\" is not a size; write it as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\""],
    );
}

#[test]
fn cpus_must_be_this_process_s() {
    faults_of("cpus = \"2-5\"", &["f:1:8: cpus: this process may not use CPU 4-5; it may use 0-3"]);
    faults(POOL, &["--cpus", "9"], &["--cpus: this process may not use CPU 9; it may use 0-3"]);
    assert!(!Machine::this().cpus.is_empty());
}

#[test]
fn a_broken_file_is_told_once() {
    faults(
        "[timeouts]\nhead = 10s\nconnect = \"0s\"\n[limits\nheaders_max = 9\n",
        &[],
        &[
            "f:2:8: string values must be quoted, expected literal string",
            "f:3:11: timeouts.connect: 0 is not allowed; write a time such as \"30s\"",
            "f:4:8: unclosed table, expected `]`",
        ],
    );
    faults("tcp.backlog = 1\ntcp.backlog = 2\n", &[], &["f:2:5: duplicate key"]);
    faults(
        "",
        &[],
        &["f:1:1: pools: there is no backend; write [[pools]] with a name and backends, or give --backend"],
    );
}

#[test]
fn flags_win_over_the_file() {
    let file = format!(
        "workers = 2\ncpus = \"0\"\nlog_level = \"warn\"\ndefault_pool = \"b\"\n[[listeners]]\naddress = \"1.2.3.4:80\"\n{POOL}[[pools]]\nname = \"b\"\nbalance = \"random\"\nbackends = [\"1.2.3.4:81\"]\n"
    );
    let config = accepted(
        &file,
        &[
            "--listen",
            "[::1]:0",
            "--listen=unix:/a",
            "--backend",
            "10.0.0.9:1",
            "--workers=4",
            "--cpus=1-2",
            "--log-level=error",
        ],
    );
    assert_eq!(config.listeners, [address("[::1]:0").into(), address("unix:/a").into()]);
    assert_eq!((config.workers, config.cpus, config.log_level), (Some(4), Some(vec![1, 2]), LogLevel::Error));
    assert_eq!(config.pools[0].backends, [address("10.0.0.5:9000").into()]);
    assert_eq!(
        (config.pools[1].backends.as_slice(), config.pools[1].balance),
        (&[address("10.0.0.9:1").into()][..], Balance::Random)
    );
    // Without a pool they make one.
    let config = accepted("", &["--backend", "10.0.0.9:1", "--backend", "unix:/b"]);
    assert_eq!((config.pools[0].name.as_str(), config.pools[0].backends.len()), ("default", 2));
    // But they hide no fault of the file.
    assert!(read("workers = 0", &["--backend", "10.0.0.9:1", "--workers=4"]).is_err());
    faults("", &["--backend", "10.0.0.9:1", "--backend", "10.0.0.9:1"], &["--backend: 10.0.0.9:1 is listed twice"]);
    faults(
        "",
        &["--backend", "127.0.0.1:80", "--listen", "0.0.0.0:80"],
        &["--backend: 127.0.0.1:80 is this relay itself: it listens there"],
    );
}

#[test]
fn two_listeners_may_take_any_port() {
    assert_eq!(
        accepted("", &["--backend=1.2.3.4:1", "--listen=127.0.0.1:0", "--listen=127.0.0.1:0"]).listeners.len(),
        2
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = std::env::temp_dir().join(format!("ringway-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let load = |name: &str, bytes: Option<&[u8]>| {
        let path = folder.join(name);
        bytes.inspect(|bytes| std::fs::write(&path, bytes).unwrap());
        let faults = load(Some(&path), &Flags::default(), &machine()).unwrap_err().to_string();
        faults.replace(folder.to_str().unwrap(), "")
    };
    assert!(load("none.toml", None).starts_with("/none.toml: cannot be read: No such file"));
    assert_eq!(load("bytes.toml", Some(b"a = 1\n# \xff")), "/bytes.toml:2:3: is not UTF-8 from here on");
    assert_eq!(load("large.toml", Some(&[b'\n'; 4 << 20 | 1])), "/large.toml: has more than 4194304 bytes");
    std::fs::remove_dir_all(&folder).unwrap();
    let faults = super::load(None, &Flags::default(), &machine()).unwrap_err().to_string();
    assert!(faults.starts_with("command line: pools: there is no backend; give --backend ADDR"), "{faults}");
}

#[test]
fn the_effective_config_reads_back_as_the_same() {
    let mut config = accepted(POOL, &[]);
    assert_eq!(accepted(&print(&config, None), &[]), config);
    // And with every option changed.
    change_all(&GLOBAL, &mut config);
    config.listeners = vec![
        ListenerConfig {
            name: "ü \"a\"".into(),
            address: address("unix:/a \"b\" \\ \u{7f}"),
            rights: Rights {
                mode: Some(0o660),
                owner: Some(Account { name: "root".into(), id: 0 }),
                group: Some(Account { name: "12".into(), id: 12 }),
            },
        },
        address("[::1]:0").into(),
        address("[::1]:0").into(),
    ];
    let mut backend = Backend { name: "b\n".into(), ..address("unix:/c").into() };
    change_all(&BACKEND, &mut backend);
    let mut pool =
        PoolConfig { backends: vec![backend, address("10.0.0.5:9000").into()], ..PoolConfig::named("ü\n\"") };
    change_all(&options::POOL, &mut pool);
    pool.sticky.value = StickyValue::Opaque;
    // Which is not printed.
    pool.sticky.secret = None;
    config.pools.insert(0, pool);
    config.default_pool = Some(1);
    assert_eq!(accepted(&print(&config, None), &[]), config);
    // Every route has a look of its own.
    let mut route = Route::catch_all("ö\"", 0, &config);
    change_all(&ROUTE, &mut route);
    route.listeners = vec!["[::1]:0".into(), "ü \"a\"".into()];
    route.hosts = vec![HostMatch::Exact("chat.example.com".into())];
    route.path = PathMatch::Exact("/a\"".into());
    let header = |name: &str, value: Option<&str>| HeaderMatch {
        name: name.into(),
        value: value.map_or(ValueMatch::Any, |value| value.parse().unwrap()),
    };
    route.headers = vec![header("X-A", Some("\\\t\"")), header("X-B", None), header("X-C", Some(""))];
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    route.request_headers = HeaderEdits {
        remove: vec!["X-D".into(), "x-a".into()],
        set: vec![pair("X-E", ""), pair("X-F", "\"")],
        add: vec![pair("X-E", "a b")],
    };
    route.response_headers = HeaderEdits { remove: vec!["Server".into()], ..HeaderEdits::default() };
    let mut segments = Route::catch_all("segments", 1, &config);
    segments.hosts = vec![HostMatch::Suffix(".example.com".into()), HostMatch::Suffix(".example.org".into())];
    segments.path = PathMatch::Segments("/chat".into());
    segments.response_headers.add = vec![pair("X-G", "1")];
    let mut prefix = Route::catch_all("prefix", 1, &config);
    prefix.path = PathMatch::Prefix("/chat".into());
    prefix.limits.message_fragments_max = None;
    config.routes = vec![route, segments, prefix, Route::catch_all("rest", 0, &config)];
    config.default_pool = None;
    assert_eq!(accepted(&print(&config, None), &[]), config);
}

#[test]
fn field_r19_rights_are_of_unix_sockets_and_of_accounts_that_there_are() {
    let listener = |lines: &str| format!("{POOL}[[listeners]]\n{lines}\n");
    faults(
        &listener("address = \"127.0.0.1:1\"\nmode = \"0660\"\nowner = \"root\""),
        &[],
        &["f:6:8: listeners[0].mode: is for unix sockets", "f:7:9: listeners[0].owner: is for unix sockets"],
    );
    for (line, message) in [
        ("mode = \"660x\"", "mode: \"660x\" is no mode; write it as \"0660\""),
        ("mode = \"1777\"", "mode: \"1777\" is no mode; write it as \"0660\""),
        ("mode = \"+66\"", "mode: \"+66\" is no mode; write it as \"0660\""),
        ("mode = 660", "mode: 660 is not allowed; write a string"),
        ("owner = \"no such user\"", "owner: \"no such user\" is not known on this machine"),
        ("group = \"no such group\"", "group: \"no such group\" is not known on this machine"),
    ] {
        let column = line.find('=').unwrap() + 3;
        faults(
            &listener(&format!("address = \"unix:/a\"\n{line}")),
            &[],
            &[&format!("f:6:{column}: listeners[0].{message}")],
        );
    }
    let config = accepted(&listener("address = \"unix:/a\"\nmode = \"600\"\nowner = \"root\"\ngroup = \"0\""), &[]);
    let Rights { mode, owner, group } = &config.listeners[0].rights;
    assert_eq!((*mode, owner.as_ref().unwrap().id, group.as_ref().unwrap().id), (Some(0o600), 0, 0));
}
