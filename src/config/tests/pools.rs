//! Pools and their backends: what a file may say of them, and what it may not.

use super::*;

/// A file with a pool of these lines, which begin at line 3, at fault.
#[track_caller]
fn pool_faults(lines: &str, expected: &[&str]) {
    faults(&format!("[[pools]]\nname = \"chat\"\n{lines}\n"), &[], expected);
}

const BACKENDS: &str = "backends = [\"10.0.0.5:9000\"]";

#[test]
fn a_pool_may_say_everything() {
    let config = accepted(
        r#"
        config_watch = "on"
        nameservers = ["192.0.2.53:5353", "192.0.2.54", "::1", "[::1]:54"]
        [[pools]]
        name = "chat"
        balance = "consistent-hash"
        hash = "header:X-Room"
        hash_load_percent_max = "off"
        hash_keep = "home"
        connections_max = 5000
        slow_start = "30s"
        backends = [
            "10.0.0.1:9000",
            { address = "10.0.0.2:9000", name = "b", weight = 2, connections_max = 100, slow_start = "10s", backup = true },
            { address = "unix:/run/chat.sock", drain = true },
        ]
        [pools.sticky]
        cookie = "backend"
        value = "name"
        same_site = "none"
        secure = "always"
        path = "/chat"
        domain = "example.com"
        secret = "0123456789abcdef"
        [pools.admission]
        queue_max = 10
        [pools.health]
        check = "http"
        path = "/health?full=1"
        host = "chat.example.com:80"
        [pools.eject]
        failures = "off"
        [pools.breaker]
        failures_percent = 50
        [pools.sessions]
        on_down = "restart"
        on_drain = "going-away"
        close_spread = 0
        [pools.discovery]
        dns = "chat.example.com:9000"
        srv = "_ws._tcp.chat.example.com"
        file = "/run/backends.toml"
        "#,
        &[],
    );
    let mut expected = PoolConfig::named("chat");
    expected.balance = Balance::ConsistentHash;
    expected.hash = HashKey::Header("X-Room".into());
    expected.hash_load_percent_max = None;
    expected.hash_keep = HashKeep::Home;
    expected.connections_max = Some(5000);
    expected.slow_start = Some(Duration::from_secs(30));
    expected.backends = vec![
        address("10.0.0.1:9000").into(),
        Backend {
            name: "b".into(),
            weight: 2,
            connections_max: Some(100),
            slow_start: Some(Duration::from_secs(10)),
            backup: true,
            ..address("10.0.0.2:9000").into()
        },
        Backend { drain: true, ..address("unix:/run/chat.sock").into() },
    ];
    expected.sticky.cookie = Some("backend".into());
    expected.sticky.value = StickyValue::Name;
    expected.sticky.same_site = SameSite::None;
    expected.sticky.secure = Secure::Always;
    expected.sticky.path = "/chat".into();
    expected.sticky.domain = Some("example.com".into());
    expected.sticky.secret = Some("0123456789abcdef".into());
    expected.admission.queue_max = 10;
    expected.health.check = Check::Http;
    expected.health.path = "/health?full=1".into();
    expected.health.host = Some("chat.example.com:80".into());
    expected.eject.failures = None;
    expected.breaker.failures_percent = Some(50);
    expected.sessions.on_down = OnLoss::Restart;
    expected.sessions.on_drain = OnLoss::GoingAway;
    expected.sessions.close_spread = Duration::ZERO;
    expected.discovery.dns = Some("chat.example.com:9000".into());
    expected.discovery.srv = Some("_ws._tcp.chat.example.com".into());
    expected.discovery.file = Some("/run/backends.toml".into());
    assert_eq!(config.pools, [expected]);
    let servers = ["192.0.2.53:5353", "192.0.2.54:53", "[::1]:53", "[::1]:54"].map(|text| text.parse().unwrap());
    assert_eq!((config.config_watch, config.nameservers), (Watch::On, Some(servers.to_vec())));
}

#[test]
fn backends_may_be_tables_of_their_own() {
    let text = "[[pools]]\nname = \"a\"\n[[pools.backends]]\naddress = \"10.0.0.1:1\"\nweight = 256\n[[pools.backends]]\naddress = \"10.0.0.2:1\"\n";
    let backend = Backend { weight: 256, ..address("10.0.0.1:1").into() };
    assert_eq!(accepted(text, &[]).pools[0].backends, [backend, address("10.0.0.2:1").into()]);
}

#[test]
fn a_pool_whose_backends_are_found_needs_none() {
    for text in ["dns = \"a:1\"", "srv = \"_a._tcp.b\"", "file = \"/a\""] {
        for backends in ["", "backends = []\n"] {
            let text = format!("[[pools]]\nname = \"a\"\n{backends}[pools.discovery]\n{text}\n");
            assert!(accepted(&text, &[]).pools[0].backends.is_empty());
        }
    }
    // What was not understood is not missing as well.
    pool_faults(
        "[pools.discovery]\ndns = \"a\"",
        &["f:4:7: pools[0].discovery.dns: \"a\" is no name with a port; write it as chat.example.com:9000"],
    );
    pool_faults(
        "[pools.discovery]\ninterval_min = \"1s\"\nbackends = []",
        &[&format!(
            "f:5:1: pools[0].discovery.backends: is not known here; {}",
            known(&options::POOL, "discovery", &[])
        )],
    );
}

#[test]
fn values_out_of_range() {
    pool_faults(
        &format!(
            "{BACKENDS}\nhash_load_percent_max = 100\nconnections_max = 0\nslow_start = \"0s\"\n[pools.health]\nrise = 0\nfall = 1001\njitter_percent = 91\nstatus_min = 99\nstatus_max = 600\n[pools.eject]\navailable_percent_min = 101\n[pools.breaker]\nfailures_percent = 0\n[pools.admission]\nretry_after = \"1500ms\""
        ),
        &[
            "f:4:25: pools[0].hash_load_percent_max: 100 is not allowed; it may be 101 to 10000, or \"off\"",
            "f:5:19: pools[0].connections_max: 0 is not allowed; it may be 1 to 1073741824, or \"off\"",
            "f:6:14: pools[0].slow_start: 0 is not allowed; write a time such as \"30s\" or \"off\"",
            "f:8:8: pools[0].health.rise: 0 is not allowed; it may be 1 to 1000",
            "f:9:8: pools[0].health.fall: 1001 is not allowed; it may be 1 to 1000",
            "f:10:18: pools[0].health.jitter_percent: 91 is not allowed; it may be 0 to 90",
            "f:11:14: pools[0].health.status_min: 99 is not allowed; it may be 100 to 599",
            "f:12:14: pools[0].health.status_max: 600 is not allowed; it may be 100 to 599",
            "f:14:25: pools[0].eject.available_percent_min: 101 is not allowed; it may be 0 to 100",
            "f:16:20: pools[0].breaker.failures_percent: 0 is not allowed; it may be 1 to 100, or \"off\"",
            "f:18:15: pools[0].admission.retry_after: \"1500ms\" is not allowed; this is counted in whole seconds",
        ],
    );
}

#[test]
fn texts_that_are_none_of_theirs() {
    pool_faults(
        &format!(
            "{BACKENDS}\nhash = \"header:X_Room\"\n[pools.sticky]\ncookie = \"a b\"\nsecret = \"hunter2\"\nvalue = \"\"\n[pools.health]\npath = \"health\"\nhost = \"a b\"\n[pools.discovery]\nsrv = \"ws\"\nfile = \"\"\ndns = 53\n[[pools]]\nname = \"b\"\nhash = \"room\"\n{BACKENDS}\nsticky = \"on\""
        ),
        &[
            "f:4:8: pools[0].hash: \"X_Room\" has a character other than letters, digits and hyphens; such headers are dropped before anyone can look at them",
            "f:6:10: pools[0].sticky.cookie: \"a b\" is no cookie's name; it has to be an HTTP token",
            "f:7:10: pools[0].sticky.secret: is too short for a secret; it needs 16 characters",
            "f:8:9: pools[0].sticky.value: \"\" is not known; write \"opaque\" or \"name\"",
            "f:10:8: pools[0].health.path: \"health\" is no path; it has to begin with /",
            "f:11:8: pools[0].health.host: \"a b\" is no host; write it as chat.example.com or chat.example.com:8080",
            "f:13:7: pools[0].discovery.srv: \"ws\" is no service's name; write it as _ws._tcp.chat.example.com",
            "f:14:8: pools[0].discovery.file: is empty",
            "f:15:7: pools[0].discovery.dns: 53 is not allowed; write a name and a port such as \"chat.example.com:9000\" or \"off\"",
            "f:18:8: pools[1].hash: \"room\" is not known; write \"client-ip\", \"path\", \"path:N\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"",
            "f:20:10: pools[1].sticky: \"on\" is not allowed; [pools.sticky] is a table",
        ],
    );
    faults_of(
        "nameservers = []\nconfig_watch = true",
        &[
            "f:1:15: nameservers: a list is not allowed; write a list of addresses such as [\"192.0.2.53:53\"] or \"auto\"",
            "f:2:16: config_watch: true is not allowed; write \"off\" or \"on\"",
        ],
    );
    for wrong in ["[\"dns.example:53\"]", "[\"192.0.2.53:0\"]", "[53]", "\"192.0.2.53\""] {
        assert!(read(&format!("nameservers = {wrong}\n{POOL}"), &[]).is_err(), "{wrong}");
    }
}

#[test]
fn relations_within_a_pool() {
    pool_faults(
        &format!(
            "{BACKENDS}\n[pools.health]\ntimeout = \"6s\"\nstatus_min = 404\nstatus_max = 403\n[pools.eject]\ntime_max = \"1s\"\n[pools.discovery]\ninterval_max = \"4s\"\n[[pools]]\nname = \"b\"\n{BACKENDS}\n[pools.health]\ninterval = \"1s\"\ntimeout = \"0s\""
        ),
        &[
            "f:5:11: pools[0].health.timeout: 6s is not allowed; it may be no more than pools[0].health.interval, which is 5s",
            "f:7:14: pools[0].health.status_max: 403 is not allowed; it may be no less than pools[0].health.status_min, which is 404",
            "f:9:12: pools[0].eject.time_max: 1s is not allowed; it may be no less than pools[0].eject.time, which is 5s",
            "f:11:16: pools[0].discovery.interval_max: 4s is not allowed; it may be no less than pools[0].discovery.interval_min, which is 5s",
            "f:17:11: pools[1].health.timeout: 0 is not allowed; write a time such as \"30s\"",
        ],
    );
}

#[test]
fn backends_at_fault() {
    pool_faults(
        "backends = [\n\"10.0.0.1:1\",\n{ name = \"b\" },\n{ address = \"10.0.0.1:1\", weight = 0 },\n{ address = \"10.0.0.2:1\", name = \"10.0.0.1:1\", color = 1 },\n{ address = \"10.0.0.3:1\", name = \"b\", backup = 1 },\n{ address = \"10.0.0.4:1\", name = \"b\" },\n{ address = \"10.0.0.5\" } ]",
        &[
            "f:5:1: pools[0].backends[1].address: is missing; write address = \"127.0.0.1:9000\"",
            "f:6:1: pools[0].backends[2]: 10.0.0.1:1 is listed twice",
            "f:6:36: pools[0].backends[2].weight: 0 is not allowed; it may be 1 to 256",
            "f:7:34: pools[0].backends[3].name: \"10.0.0.1:1\" is the name of another backend already",
            &format!(
                "f:7:48: pools[0].backends[3].color: is not known here; {}",
                known(&BACKEND, "", options::BACKEND_KEYS)
            ),
            "f:8:48: pools[0].backends[4].backup: 1 is not allowed; write true or false",
            "f:9:34: pools[0].backends[5].name: \"b\" is the name of another backend already",
            "f:10:13: pools[0].backends[6].address: \"10.0.0.5\" is not a backend; write it as 192.0.2.1:9000, [2001:db8::1]:9000, name:9000 or unix:/path",
        ],
    );
    pool_faults(
        "backends = 7",
        &["f:3:12: pools[0].backends: 7 is not allowed; write a list such as [\"127.0.0.1:9000\"]"],
    );
}

#[test]
fn pools_that_can_have_no_backend() {
    let missing = "is missing; write backends = [\"127.0.0.1:9000\"], or [pools.discovery]";
    let empty = "is empty; a pool needs at least one backend, or [pools.discovery] to find it";
    pool_faults("[pools.discovery]\ninterval_min = \"1s\"", &[&format!("f:1:1: pools[0].backends: {missing}")]);
    pool_faults("backends = []\n[pools.discovery]", &[&format!("f:3:12: pools[0].backends: {empty}")]);
    // A source that was not understood is one fault, not two.
    let fault = "pools[0].discovery.dns: \"a.\" is no name with a port; write it as chat.example.com:9000";
    pool_faults("backends = []\n[pools.discovery]\ndns = \"a.\"", &[&format!("f:5:7: {fault}")]);
    pool_faults("[pools.discovery]\ndns = \"a.\"", &[&format!("f:4:7: {fault}")]);
}

#[test]
fn names_that_can_never_be_looked_up() {
    let (label, name) = ("x".repeat(64), "x.".repeat(127));
    pool_faults(
        &format!(
            "backends = [\"a..b:80\", {{ address = \"{label}:80\" }}]\n[pools.discovery]\ndns = \"{name}x:80\"\nsrv = \"_ws._tcp.{label}\""
        ),
        &[
            "f:3:13: pools[0].backends[0]: \"a..b\" has nothing between two dots or before the first; no name in DNS may",
            &format!(
                "f:3:36: pools[0].backends[1].address: \"{label}\" has a label of 64 bytes; in DNS it may have 63"
            ),
            "f:5:7: pools[0].discovery.dns: the name has 255 bytes; in DNS it may have 253",
            &format!(
                "f:6:7: pools[0].discovery.srv: \"_ws._tcp.{label}\" has a label of 64 bytes; in DNS it may have 63"
            ),
        ],
    );
    // Whole names, which no search domain is for.
    let text = "dns = \"chat.svc.cluster.local.:9000\"\nsrv = \"_ws._tcp.chat.svc.cluster.local.\"";
    let config = accepted(&format!("[[pools]]\nname = \"a\"\n[pools.discovery]\n{text}\n"), &[]);
    assert_eq!(config.pools[0].discovery.dns.as_deref(), Some("chat.svc.cluster.local.:9000"));
    assert_eq!(accepted(&print(&config, None), &[]), config);
}

#[test]
fn cookies_that_browsers_would_not_take() {
    pool_faults(
        "backends = [{ address = \"10.0.0.1:1\", name = \"a b\" }, \"unix:/a,b\", \"10.0.0.2:1\"]\n[pools.sticky]\ncookie = \"b\"\nvalue = \"name\"\nsame_site = \"none\"",
        &[
            "f:3:46: pools[0].backends[0].name: \"a b\" cannot be the value of a cookie, which sticky.value asks for",
            "f:3:55: pools[0].backends[1].name: \"unix:/a,b\" cannot be the value of a cookie, which sticky.value asks for",
            "f:7:13: pools[0].sticky.same_site: \"none\" needs secure = \"always\"; browsers drop the cookie otherwise",
        ],
    );
    // Opaque ones may stand for any name.
    let names = "backends = [{ address = \"10.0.0.1:1\", name = \"a b\" }]";
    accepted(&format!("[[pools]]\nname = \"a\"\n{names}\n[pools.sticky]\ncookie = \"b\"\n"), &[]);
}

#[test]
fn listeners_have_names() {
    let listener = |name: &str, address: &str| format!("[[listeners]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let text = listener("public", "1.2.3.4:80") + "[[listeners]]\naddress = \"1.2.3.4:81\"\n" + POOL;
    let names: Vec<String> = accepted(&text, &[]).listeners.into_iter().map(|listener| listener.name).collect();
    assert_eq!(names, ["public", "1.2.3.4:81"]);
    faults(
        &(listener("a", "1.2.3.4:80") + &listener("a", "1.2.3.4:81") + &listener("", "1.2.3.4:82") + POOL),
        &[],
        &[
            "f:5:8: listeners[1].name: \"a\" is the name of another listener already",
            "f:8:8: listeners[2].name: is empty",
        ],
    );
    // The one that was given is to blame.
    faults(
        &(listener("1.2.3.4:81", "1.2.3.4:80") + "[[listeners]]\naddress = \"1.2.3.4:81\"\n" + POOL),
        &[],
        &["f:2:8: listeners[0].name: \"1.2.3.4:81\" is the name of another listener already"],
    );
}

#[test]
fn pools_and_backends_are_counted_in_sixteen_bits() {
    let backends = |count: u32| -> Vec<_> {
        let address = |n: u32| Address::Unix(n.to_string().into());
        (0..count).map(|n| draft::Numbered { number: n as usize, value: address(n).into() }).collect()
    };
    let check = |draft: draft::Draft| {
        check::check(draft, &machine()).map_err(|faults| {
            faults.into_iter().map(|fault| format!("{}: {}", fault.option, fault.message)).collect::<Vec<_>>()
        })
    };
    let mut draft = file::read(POOL, &Environment::default());
    draft.pools[0].backends = backends(65_535);
    assert!(check(draft).is_ok());
    let mut draft = file::read(POOL, &Environment::default());
    draft.pools[0].backends = backends(65_536);
    assert_eq!(check(draft).unwrap_err(), ["pools[0].backends: 65536 backends are too many; there may be 65535"]);
    let mut draft = file::read(POOL, &Environment::default());
    draft.pools.clear();
    for number in 0..65_536 {
        let pool = PoolConfig::named(number.to_string());
        draft.pools.push(draft::DraftPool { number, pool, backends: backends(1) });
    }
    assert_eq!(check(draft).unwrap_err(), ["pools: 65536 pools are too many; there may be 65535"]);
}

#[test]
fn field_r21_pools_must_not_overwrite_each_others_cookies() {
    let file = |a: &str, b: &str, more: &str| {
        let pool = |name: &str, sticky: &str| {
            format!(
                "[[pools]]\nname = \"{name}\"\nbackends = [\"10.0.0.1:9\"]\nsticky = {{ cookie = \"rw\"{sticky} }}\n"
            )
        };
        format!("{}{}{more}", pool("a", a), pool("b", b))
    };
    let routes = |a: &str, b: &str| {
        format!("[[routes]]\nhost = {a}\npool = \"a\"\n[[routes]]\nhost = {b}\npath = \"/b\"\npool = \"b\"\n")
    };
    let fault = "f:8:21: pools[1].sticky.cookie: pool \"a\" sets this cookie for the same hosts, and each would overwrite the other's; give them other names, or a sticky.path each";
    for (a, b) in [
        ("\"x.example\"", "\"x.example\""),
        ("\"*\"", "\"x.example\""),
        ("\"*.example\"", "\"x.example\""),
        ("[\"y.example\", \"*.a.example\"]", "[\"*.example\"]"),
    ] {
        faults(&file("", "", &routes(a, b)), &[], &[fault]);
    }
    let with_default = "[[routes]]\nhost = \"x.example\"\npool = \"b\"\n";
    faults(&format!("default_pool = \"a\"\n{}", file("", "", with_default)), &[], &[&fault.replace("f:8:", "f:9:")]);
    // A domain is the same for all hosts below it, however it is written.
    let domains = file(", domain = \"Example\"", ", domain = \"example\"", &routes("\"x.example\"", "\"y.example\""));
    faults(&domains, &[], &[fault]);
    accepted(&file(", domain = \"a.example\"", ", domain = \"b.example\"", &routes("\"*\"", "\"*\"")), &[]);
    accepted(&file(", domain = \"example\"", ", domain = \"example\"", "[[routes]]\npool = \"a\"\n"), &[]);
    // Apart by host, by path, by domain, or never reached at all.
    accepted(&file("", "", &routes("\"x.example\"", "\"y.example\"")), &[]);
    accepted(&file("", ", path = \"/b\"", &routes("\"*\"", "\"*\"")), &[]);
    accepted(&file("", ", domain = \"example\"", &routes("\"*\"", "\"*\"")), &[]);
    accepted(&file("", "", "[[routes]]\npool = \"a\"\n"), &[]);
}
