//! Which requests a route takes: listener, host, path, headers, subprotocol, and the most specific first.

use crate::harness::{ringway, scratch};
use crate::site::{Site, ask};

#[test]
fn hosts_are_exact_a_suffix_or_any() {
    let routes = r#"
[[routes]]
pool = "rest"
[[routes]]
host = "*.chat.example"
pool = "suffix"
[[routes]]
host = "*.eu.chat.example"
pool = "longer"
[[routes]]
host = "Chat.Example."
pool = "exact"
[[routes]]
host = "[::1]"
pool = "six"
"#;
    let site = Site::new(&["rest", "suffix", "longer", "exact", "six"], routes);
    for (host, pool) in [
        ("chat.example", "exact"),
        ("cHAT.EXAMPLE", "exact"),
        ("chat.example:8080", "exact"),
        ("chat.example.", "exact"),
        ("chat.example.:80", "exact"),
        ("a.chat.example", "suffix"),
        ("A.B.Chat.Example.:443", "suffix"),
        ("eu.chat.example", "suffix"),
        ("a.eu.chat.example", "longer"),
        ("b.a.eu.chat.example", "longer"),
        ("[::1]", "six"),
        ("[::1]:80", "six"),
        ("example", "rest"),
        ("notchat.example", "rest"),
        ("chat.example.org", "rest"),
        ("127.0.0.1:80", "rest"),
    ] {
        site.goes_to(pool, ask(host, "/", &[]));
    }
}

#[test]
fn paths_are_exact_segments_or_a_prefix() {
    let routes = r#"
[[routes]]
path_prefix = "/cha"
pool = "prefix"
[[routes]]
path_segments = "/chat"
pool = "below"
[[routes]]
path_segments = "/chat/room"
pool = "room"
[[routes]]
path = "/chat"
pool = "exact"
"#;
    let site = Site::new(&["prefix", "below", "room", "exact"], routes);
    for (target, pool) in [
        ("/chat", "exact"),
        ("/chat?x=/chat/room", "exact"),
        ("/chat?", "exact"),
        ("/chat/", "below"),
        ("/chat/x", "below"),
        ("/chat/rooms", "below"),
        ("/chat/room", "room"),
        ("/chat/room/7?y=1", "room"),
        ("/chatter", "prefix"),
        ("/cha", "prefix"),
        ("/chat;x", "exact"),
        ("/%63hat", "exact"),
    ] {
        assert_eq!(site.goes_to(pool, ask("a", target, &[])).start(), format!("GET {target} HTTP/1.1"));
    }
    for target in ["/", "/ch", "/CHAT", "/x/chat", "/?/chat"] {
        site.refused(ask("a", target, &[]), &[404]);
    }
}

#[test]
fn headers_and_subprotocols_are_conditions() {
    let routes = r#"
[[routes]]
pool = "rest"
[[routes]]
headers = { "X-Env" = "beta" }
pool = "beta"
[[routes]]
headers = { "X-Env" = "beta", "X-Token" = "*" }
pool = "token"
[[routes]]
subprotocol = "chat.v2"
pool = "v2"
"#;
    let site = Site::new(&["rest", "beta", "token", "v2"], routes);
    for (lines, pool) in [
        (&["x-env: beta"][..], "beta"),
        (&["X-Env: alpha", "X-Env:  beta "], "beta"),
        (&["X-Env: beta", "X-Token: 1"], "token"),
        (&["X-Token:", "X-Env: beta"], "token"),
        (&["X-Env: beta", "Sec-WebSocket-Protocol: chat.v2"], "beta"),
        (&["Sec-WebSocket-Protocol: chat, chat.v2"], "v2"),
        (&["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat.v2"], "v2"),
        (&["Sec-WebSocket-Protocol: Chat.V2, chat.v22"], "rest"),
        (&["X-Env: Beta"], "rest"),
        (&["X-Env: beta, alpha"], "rest"),
        (&["X-Token: 1"], "rest"),
        // Dropped before anyone looks: the backend could not tell it from the right one.
        (&["X_Env: beta"], "rest"),
    ] {
        site.goes_to(pool, ask("a", "/", lines));
    }
    // What the client takes away again with Connection is not there.
    let taken = ask("a", "/", &["X-Env: beta"]).replace("Connection: Upgrade", "Connection: Upgrade, X-Env");
    assert_eq!(site.goes_to("rest", taken).get("X-Env"), None);
}

#[test]
fn listeners_have_routes_of_their_own() {
    let settings = r#"
[[listeners]]
name = "public"
address = "127.0.0.1:0"
[[listeners]]
name = "internal"
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
[[routes]]
pool = "everyone"
[[routes]]
listeners = ["internal"]
path_segments = "/admin"
pool = "admin"
[[routes]]
listeners = ["internal", "public"]
path = "/both"
pool = "both"
"#;
    let site = Site::new(&["everyone", "admin", "both"], settings);
    let listeners = site.addresses();
    let [public, internal, unnamed] = listeners[..] else { panic!("three listeners, not {listeners:?}") };
    for (listener, target, pool) in [
        (public, "/admin", "everyone"),
        (internal, "/admin", "admin"),
        (unnamed, "/admin", "everyone"),
        (public, "/both", "both"),
        (internal, "/both", "both"),
        (unnamed, "/both", "everyone"),
        (internal, "/", "everyone"),
    ] {
        site.goes_from(listener, pool, ask("a", target, &[]));
    }
}

/// From the least to the most specific; each takes what those behind it take.
const LADDER: &str = r#"
[[routes]]
name = "any"
pool = "any"
[[routes]]
name = "condition"
headers = { "X-A" = "*" }
pool = "condition"
[[routes]]
name = "prefix"
path_prefix = "/chat"
pool = "prefix"
[[routes]]
name = "segments"
path_segments = "/chat"
pool = "segments"
[[routes]]
name = "longer"
path_prefix = "/chat/"
pool = "longer"
[[routes]]
name = "exact-path"
path = "/chat/x"
pool = "exact-path"
[[routes]]
name = "suffix"
host = "*.example"
pool = "suffix"
[[routes]]
name = "longer-suffix"
host = "*.b.example"
pool = "longer-suffix"
[[routes]]
name = "host"
host = "a.b.example"
pool = "host"
[[routes]]
name = "host-and-path"
host = "a.b.example"
path_prefix = "/"
pool = "host-and-path"
[[routes]]
name = "host-path-and-condition"
host = "a.b.example"
path_prefix = "/"
subprotocol = "chat"
pool = "host-path-and-condition"
"#;

/// The LADDER's names, most specific first.
fn ladder() -> Vec<String> {
    let names = LADDER.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let mut names: Vec<_> = names.map(str::to_string).collect();
    names.reverse();
    names
}

#[test]
fn the_most_specific_route_is_asked_first() {
    let names = ladder();
    let request = ask("a.b.example", "/chat/x", &["X-A: 1", "Sec-WebSocket-Protocol: chat"]);
    // Without the most specific one the next takes the request, whatever the file's order.
    let tables: Vec<_> =
        LADDER.split_inclusive("\n[[routes]]").map(|t| t.trim_end_matches("[[routes]]")).skip(1).collect();
    assert_eq!(tables.len(), names.len());
    for missing in 0..tables.len() {
        let mut left: Vec<_> = tables[..tables.len() - missing].to_vec();
        let count = left.len();
        left.rotate_left(missing % count);
        let routes: String = left.iter().map(|table| format!("[[routes]]{table}")).collect();
        let pools: Vec<_> = names.iter().map(String::as_str).collect();
        Site::new(&pools, &routes).goes_to(&names[missing], &request);
    }
}

#[test]
fn the_order_is_printed() {
    let names = ladder();
    let pools = names.iter().map(|name| format!("[[pools]]\nname = \"{name}\"\nbackends = [\"127.0.0.1:9000\"]\n"));
    let file = scratch("routes.toml");
    std::fs::write(&file, pools.collect::<String>() + LADDER).unwrap();
    let (code, printed, errors) = ringway(&["-T", "-c", file.to_str().unwrap()]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let routes =
        printed.split("[[routes]]").skip(1).filter_map(|route| route.split("name = \"").nth(1)?.split('"').next());
    assert_eq!(routes.collect::<Vec<_>>(), names);
}

#[test]
fn without_a_route_there_is_404() {
    let routes = "[[routes]]\npath = \"/chat\"\npool = \"chat\"\n";
    let site = Site::new(&["chat"], routes);
    let plain = |method: &str| format!("{method} /other HTTP/1.1\r\nHost: a\r\n\r\n");
    site.goes_to("chat", ask("a", "/chat", &[]));
    site.refused(ask("a", "/other", &[]), &[404]);
    site.refused(plain("GET"), &[404]);
    site.refused(plain("DELETE"), &[404]);
    drop(site);

    let site = Site::new(&["chat", "rest"], &format!("default_pool = \"rest\"\n{routes}"));
    site.goes_to("chat", ask("a", "/chat", &[]));
    site.goes_to("rest", ask("a", "/other", &[]));
    site.refused(plain("GET"), &[426]);
}

/// One pool is for few: by host, and by path.
const ADMIN: &str = r#"
default_pool = "chat"
[[routes]]
host = "admin.example"
pool = "admin"
[[routes]]
path_segments = "/admin"
pool = "admin"
"#;

#[test]
fn h17_requests_that_name_two_hosts_reach_neither() {
    let site = Site::new(&["chat", "admin"], ADMIN);
    for lines in [
        &["Host: chat.example", "Host: admin.example"][..],
        &["Host: admin.example", "Host: chat.example"],
        &["Host: chat.example", "host: chat.example"],
        &["Host: chat.example", "Host : admin.example"],
        &["Host: chat.example, admin.example"],
        &["Host: chat.example admin.example"],
        &["Host: chat.example@admin.example"],
        &["Host: chat.example/admin.example"],
        &["Host: admin.example:0"],
        &["Host: admin.example:70000"],
        &["Host: admin.example.."],
        &["Host: .admin.example"],
        &["Host:"],
        &[],
    ] {
        let good = ask("HERE", "/", &[]);
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        site.refused(good.replace("Host: HERE\r\n", &lines), &[400]);
    }
    for (target, host) in [
        ("http://admin.example/", "chat.example"),
        ("http://chat.example/", "admin.example"),
        ("http://admin.example:81/", "admin.example"),
        ("http://admin.example/", "admin.example:81"),
        ("http://chat.example@admin.example/", "chat.example"),
        ("http://chat.example@admin.example/", "admin.example"),
        ("http://chat.example\\@admin.example/", "chat.example"),
        ("ws://admin.example/", "admin.example"),
        ("file:///admin", "chat.example"),
        ("admin.example:80", "chat.example"),
        ("*", "admin.example"),
        ("admin", "chat.example"),
        ("?/admin", "chat.example"),
    ] {
        site.refused(ask(host, target, &[]), &[400]);
    }
}

#[test]
fn h16_absolute_targets_are_routed_as_what_they_name() {
    let site = Site::new(&["chat", "admin"], ADMIN);
    for (target, host, pool, seen) in [
        ("http://admin.example/", "admin.example", "admin", "/"),
        ("HTTP://Admin.Example:80", "admin.example", "admin", "/"),
        ("http://chat.example/admin?x", "chat.example", "admin", "/admin?x"),
        ("http://chat.example/", "chat.example", "chat", "/"),
        ("http://chat.example?/admin", "chat.example", "chat", "/?/admin"),
    ] {
        assert_eq!(site.goes_to(pool, ask(host, target, &[])).start(), format!("GET {seen} HTTP/1.1"));
    }
    // Others that say something of a host do not count.
    for line in ["X-Forwarded-Host: admin.example", "Forwarded: host=admin.example", "X-Host: admin.example"] {
        site.goes_to("chat", ask("chat.example", "/", &[line]));
    }
}

#[test]
fn h22_paths_cannot_get_around_a_route() {
    let site = Site::new(&["chat", "admin"], ADMIN);
    for target in [
        "/chat/../admin",
        "/chat/..",
        "/./admin",
        "/.",
        "/chat/%2e%2e/admin",
        "/chat/.%2E/admin",
        "/%2e/admin",
        "/chat/..;x=1/admin",
        "/chat%2f..%2fadmin",
        "/chat%2Fadmin",
        "/chat%5c..%5cadmin",
        "//admin",
        "//chat.example/admin",
        "/%00/admin",
        "/admin%00",
        "/admin%",
        "/admin%4",
        "/chat\\..\\admin",
        "/chat#/admin",
        "/admin\t",
    ] {
        site.refused(ask("chat.example", target, &[]), &[400]);
    }
    // Another name for other bytes: what a route has not taken goes on as it came, to another pool.
    for target in ["/ADMIN", "/administrator", "/chat?/../admin", "/chat//admin", "/...", "/admin..", "/%2561dmin"] {
        assert_eq!(site.goes_to("chat", ask("chat.example", target, &[])).start(), format!("GET {target} HTTP/1.1"));
    }
    for target in ["/admin", "/admin/", "/admin//x", "/admin?x=..", "/admin/%2541", "/%61dmin", "/admin;x"] {
        assert_eq!(site.goes_to("admin", ask("chat.example", target, &[])).start(), format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn h48_a_pipelined_request_gets_no_route() {
    let site = Site::new(&["chat", "admin"], ADMIN);
    let mut client = site.client();
    client.send(ask("chat.example", "/", &[]) + &ask("admin.example", "/admin", &[]));
    let mut backend = site.backend("chat").upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    // It is bytes of the first session: 'G' is 0x47, RSV1, no FIN, opcode 7.
    backend.expect_close(&[1002]);
    backend.finish();
    client.expect_close(&[1002]);
    client.expect_end();
    site.is_quiet();
}
