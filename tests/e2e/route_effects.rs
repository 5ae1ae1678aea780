//! What a route does to the requests it takes: the path, headers both ways, what is said of the client, limits, timeouts.

use crate::harness::{close, refusal};
use crate::site::{Site, ask};
use crate::wire::*;

#[test]
fn paths_are_rewritten_and_queries_are_not() {
    let routes = r#"
[[routes]]
path_segments = "/chat"
rewrite = "/socket"
pool = "chat"
[[routes]]
path = "/old"
rewrite = "/new/place"
pool = "chat"
[[routes]]
path_prefix = "/v1-"
rewrite = "/v2/"
pool = "chat"
[[routes]]
path_segments = "/strip"
rewrite = "/"
pool = "chat"
[[routes]]
path_segments = "/keep"
pool = "chat"
"#;
    let site = Site::new(&["chat"], routes);
    for (asked, seen) in [
        ("/chat", "/socket"),
        ("/chat/", "/socket/"),
        ("/chat/room/chat", "/socket/room/chat"),
        ("/chat?", "/socket?"),
        ("/chat/room?id=1&at=/chat&x=%20", "/socket/room?id=1&at=/chat&x=%20"),
        ("/old", "/new/place"),
        ("/old?a=b?c", "/new/place?a=b?c"),
        ("/v1-room", "/v2/room"),
        ("/v1-", "/v2/"),
        ("/strip", "/"),
        ("/strip?x", "/?x"),
        ("/strip/a//b", "/a//b"),
        ("/strip//a", "/a"),
        ("/keep/x?y", "/keep/x?y"),
        ("http://a/chat/room?x", "/socket/room?x"),
    ] {
        assert_eq!(site.goes_to("chat", ask("a", asked, &[])).start(), format!("GET {seen} HTTP/1.1"), "{asked}");
    }
    // No dot segment before, one behind.
    for target in ["/v1-../admin", "/v1-.", "/v1-%2e%2e"] {
        site.refused(ask("a", target, &[]), &[400]);
    }
}

/// Edits on one route, none on the other.
const EDITS: &str = r#"
[[routes]]
path_segments = "/as-it-is"
plain_http = "forward"
pool = "chat"
[[routes]]
pool = "chat"
plain_http = "forward"
[routes.request_headers]
remove = ["x-debug", "Cookie", "X-Twice"]
set = { "X-Env" = "prod", "Origin" = "https://chat.example" }
add = { "Via" = "1.1 ringway", "x-twice" = "again" }
[routes.response_headers]
remove = ["server", "X-Powered-By"]
set = { "Cache-Control" = "no-store" }
add = { "Vary" = "Origin", "Set-Cookie" = "a=1" }
"#;
const ASKED: [&str; 6] =
    ["X-Debug: 1", "Cookie: a=b", "X-Twice: 1", "Via: 1.0 other", "Origin: https://evil.example", "X-Kept: ä ,b"];
const ANSWERED: [&str; 5] =
    ["Server: x/1", "x-powered-by: y", "cache-control: public", "Vary: Accept", "Set-Cookie: b=2"];

fn assert_edited_request(seen: &Head) {
    for gone in ["X-Debug", "Cookie"] {
        assert_eq!(seen.get(gone), None, "{}", seen.text());
    }
    for (name, values) in [
        ("X-Env", &["prod"][..]),
        ("Origin", &["https://chat.example"]),
        ("Via", &["1.0 other", "1.1 ringway"]),
        ("X-Twice", &["again"]),
        ("X-Kept", &["ä ,b"]),
    ] {
        assert_eq!(seen.all(name), values, "{}", seen.text());
    }
}

fn assert_edited_answer(heard: &Head) {
    for (name, values) in [
        ("Server", &[][..]),
        ("X-Powered-By", &[]),
        ("Cache-Control", &["no-store"]),
        ("Vary", &["Accept", "Origin"]),
        ("Set-Cookie", &["b=2", "a=1"]),
    ] {
        assert_eq!(heard.all(name), values, "{}", heard.text());
    }
}

fn assert_has(head: &Head, lines: &[&str]) {
    for line in lines {
        assert!(head.text().contains(&format!("\r\n{line}\r\n")), "no {line:?} in {}", head.text());
    }
}

/// The answer of a backend that says 403 or 200.
fn page(status: &str, lines: &[&str]) -> String {
    format!("HTTP/1.1 {status}\r\n{}\r\nContent-Length: 2\r\n\r\nno", lines.join("\r\n"))
}

#[test]
fn headers_are_edited_on_the_way_of_an_upgrade() {
    let site = Site::new(&["chat"], EDITS);
    for (target, edited) in [("/", true), ("/as-it-is", false)] {
        let mut client = site.client();
        client.send(ask("a", target, &ASKED));
        let mut backend = site.backend("chat").accept();
        let seen = backend.head();
        backend.send(answer(&seen, &ANSWERED));
        let heard = client.head();
        assert_eq!(heard.status(), 101);
        match edited {
            true => {
                assert_edited_request(&seen);
                assert_edited_answer(&heard);
            }
            false => {
                assert_has(&seen, &ASKED);
                assert_has(&heard, &ANSWERED);
            }
        }
        // The first frame stands right behind the edited head.
        backend.server_frame(FIN | TEXT, "hello");
        client.expect_frame(FIN | TEXT, "hello");
        close(&mut client, &mut backend);
    }
}

#[test]
fn headers_are_edited_on_answers_that_are_no_101() {
    let site = Site::new(&["chat"], EDITS);
    for upgrade in [true, false] {
        for (target, edited) in [("/", true), ("/as-it-is", false)] {
            let mut client = site.client();
            match upgrade {
                true => client.send(ask("a", target, &ASKED)),
                false => client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", ASKED.join("\r\n"))),
            };
            let mut backend = site.backend("chat").accept();
            let seen = backend.head();
            backend.send(page("403 No", &ANSWERED));
            let heard = client.head();
            assert_eq!(heard.start(), "HTTP/1.1 403 No");
            match edited {
                true => {
                    assert_edited_request(&seen);
                    assert_edited_answer(&heard);
                }
                false => {
                    assert_has(&seen, &ASKED);
                    assert_has(&heard, &ANSWERED);
                }
            }
            assert_eq!(client.bytes(2), b"no");
            client.expect_fin();
        }
    }
}

#[test]
fn what_is_said_of_the_client_is_a_matter_of_the_route() {
    let routes = r#"
[[routes]]
path = "/trusting"
pool = "chat"
[routes.forward]
x_forwarded_for = "append"
x_forwarded_proto = "append"
forwarded = "append"
[[routes]]
path = "/silent"
pool = "chat"
[routes.forward]
x_forwarded_for = "off"
x_forwarded_proto = "off"
x_forwarded_host = "off"
[[routes]]
pool = "chat"
[forward]
forwarded = "replace"
"#;
    let site = Site::new(&["chat"], routes);
    let asked = [
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "Forwarded: for=192.0.2.1",
        "X-Real-IP: 192.0.2.1",
    ];
    let ours = "for=127.0.0.1;host=\"a:81\";proto=http";
    let appended = format!("for=192.0.2.1, {ours}");
    for (target, seen) in [
        (
            "/trusting",
            [Some("192.0.2.1, 127.0.0.1"), Some("https, http"), Some("a:81"), Some(&*appended), Some("192.0.2.1")],
        ),
        ("/silent", [None, None, None, Some(ours), None]),
        ("/", [Some("127.0.0.1"), Some("http"), Some("a:81"), Some(ours), None]),
    ] {
        let head = site.goes_to("chat", ask("a:81", target, &asked));
        for (line, value) in asked.iter().zip(seen) {
            let name = line.split(':').next().unwrap();
            assert_eq!(head.get(name).as_deref(), value, "{name} of {target}");
        }
    }
}

#[test]
fn frames_are_limited_by_the_route() {
    let routes = r#"
[[routes]]
path = "/messages"
pool = "chat"
limits.message_bytes_max = "1KiB"
[[routes]]
path = "/frames"
pool = "chat"
limits.frame_bytes_max = "1KiB"
[[routes]]
path = "/fragments"
pool = "chat"
limits.message_fragments_max = 3
[[routes]]
path = "/pings"
pool = "chat"
limits.control_frames_per_second_max = 5
[[routes]]
pool = "chat"
"#;
    let site = Site::new(&["chat"], routes);
    let fragments = |sizes: &[usize]| -> Vec<u8> {
        let last = sizes.len() - 1;
        let first = |at| if at == 0 { BINARY } else { 0 } | if at == last { FIN } else { 0 };
        sizes.iter().enumerate().flat_map(|(at, size)| frame(first(at), Some(MASK), &vec![7; *size])).collect()
    };
    let pings = frame(FIN | PING, Some(MASK), b"?").repeat(100);
    for (target, good, bad, code) in [
        ("/messages", fragments(&[1024]), fragments(&[1000, 25]), 1009),
        ("/frames", fragments(&[1024, 1024]), fragments(&[1025]), 1009),
        ("/fragments", fragments(&[9000, 1, 1]), fragments(&[1, 1, 1, 1]), 1008),
        ("/pings", fragments(&[9000]), pings, 1008),
    ] {
        let (mut client, mut backend) = site.open("chat", ask("a", target, &[]));
        client.send(&good);
        assert_eq!(backend.bytes(good.len()), good, "{target}");
        client.send(&bad);
        loop {
            let got = backend.frame();
            if got.first == FIN | CLOSE {
                assert_eq!(got.code(), code, "{target}");
                break;
            }
        }
        backend.finish();
        client.expect_close(&[code]);
        client.expect_end();
        // The same on a route of no such limit.
        let (mut client, mut backend) = site.open("chat", ask("a", "/", &[]));
        let both = [good, bad].concat();
        client.send(&both);
        assert_eq!(backend.bytes(both.len()), both);
        close(&mut client, &mut backend);
    }
}

#[test]
fn idle_sessions_end_by_their_route() {
    let routes = r#"
[[routes]]
path = "/short"
pool = "chat"
timeouts.idle = "200ms"
[[routes]]
path = "/never"
pool = "chat"
timeouts.idle = "off"
[[routes]]
pool = "chat"
[timeouts]
idle = "1h"
"#;
    let site = Site::new(&["chat"], routes);
    let mut long: Vec<_> = ["/never", "/"].iter().map(|target| site.open("chat", ask("a", target, &[]))).collect();
    let (mut client, mut backend) = site.open("chat", ask("a", "/short", &[]));
    client.expect_close(&[1001]);
    backend.expect_close(&[1001]);
    client.client_frame(FIN | CLOSE, close_payload(1001, ""));
    backend.server_frame(FIN | CLOSE, close_payload(1001, ""));
    backend.finish();
    client.expect_fin();
    for (client, backend) in &mut long {
        client.client_frame(FIN | TEXT, "still here");
        backend.expect_frame(FIN | TEXT, "still here");
        close(client, backend);
    }
}

#[test]
fn answers_are_waited_for_by_their_route() {
    let routes =
        "[[routes]]\npath = \"/short\"\npool = \"chat\"\ntimeouts.answer = \"200ms\"\n[[routes]]\npool = \"chat\"\n";
    let site = Site::new(&["chat"], routes);
    let asking = |target: &str| {
        let mut client = site.client();
        client.send(ask("a", target, &[]));
        let mut backend = site.backend("chat").accept();
        let head = backend.head();
        (client, backend, head)
    };
    let (mut patient, mut backend, head) = asking("/");
    let (mut hasty, mut silent, _) = asking("/short");
    refusal(&mut hasty, &[504]);
    silent.expect_end();
    backend.send(answer(&head, &[]));
    assert_eq!(patient.head().status(), 101);
    close(&mut patient, &mut backend);
}

#[test]
fn the_log_names_the_route() {
    let site = Site::new(&["chat"], "[[routes]]\nname = \"lobby\"\npath = \"/lobby\"\npool = \"chat\"\n");
    site.goes_to("chat", ask("a", "/lobby", &[]));
    let Site { mut relay, .. } = site;
    relay.process.line(&["session ended", "route=lobby"]);
}

#[test]
fn answers_are_limited_by_the_route() {
    let routes = r#"
[[routes]]
path = "/short"
pool = "chat"
limits.response_body_bytes_max = "4B"
limits.informational_max = 1
[[routes]]
pool = "chat"
"#;
    let site = Site::new(&["chat"], routes);
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2);
    let no = page("403 No", &["X: y"]).replace("Content-Length: 2\r\n\r\nno", "Content-Length: 10\r\n\r\n0123456789");
    for (target, answer, status, body) in [
        ("/short", no.clone(), 403, "0123"),
        ("/short", format!("{hints}{no}"), 502, "The backend sent too many 1xx responses.\n"),
        ("/", no.clone(), 403, "0123456789"),
        ("/", format!("{hints}{no}"), 403, "0123456789"),
    ] {
        let mut client = site.client();
        client.send(ask("a", target, &[]));
        let mut backend = site.backend("chat").accept();
        backend.head();
        backend.send(&answer);
        assert_eq!(client.head().status(), status);
        assert_eq!(String::from_utf8(client.rest().0).unwrap(), body, "{target}");
    }
}
