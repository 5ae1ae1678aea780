//! Requests that are no upgrades: refused, or forwarded one per connection. What they may say, and what the backend is told.

use crate::harness::close;
use crate::site::{Site, ask};
use crate::wire::*;

/// One route that forwards, and one that does not.
pub fn site() -> Site {
    site_with("")
}

/// `settings` of the route that forwards.
pub fn site_with(settings: &str) -> Site {
    Site::new(&["chat", "web"], &format!("{ROUTES}{settings}"))
}

/// The same where a backend's first failure takes it out.
pub fn touchy(settings: &str) -> Site {
    let options = "eject.failures = 1\neject.available_percent_min = 0\n";
    Site::with_pools(&["chat", "web"], options, &format!("{ROUTES}{settings}"))
}

const ROUTES: &str = r#"
[[routes]]
path_segments = "/ws"
pool = "chat"
[[routes]]
pool = "web"
plain_http = "forward"
"#;

/// A request that is no upgrade, body included.
pub fn plain(start: &str, lines: &[&str], body: &str) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{start} HTTP/1.1\r\nHost: chat.example\r\n{lines}\r\n{body}")
}

/// A request that goes on: the client, the backend's end, and what that was told.
pub fn forwarded(site: &Site, request: impl AsRef<[u8]>) -> (Wire, Wire, Head) {
    let mut client = site.client();
    client.send(request);
    let mut backend = site.backend("web").accept();
    let head = backend.head();
    (client, backend, head)
}

pub const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The answer arrives, and is the last that happens on either connection.
pub fn answered(client: &mut Wire, backend: &mut Wire) {
    backend.send(ANSWER);
    let head = client.head();
    assert_eq!(head.start(), "HTTP/1.1 200 OK");
    assert_eq!(head.get("Connection").as_deref(), Some("close"));
    assert_eq!(client.bytes(5), b"hello");
    client.expect_fin();
    client.finish();
    backend.expect_end();
}

#[test]
fn refused_unless_the_route_forwards() {
    let site = site();
    let head = site.refused(plain("GET /ws", &[], ""), &[426]);
    assert_eq!(head.get("Upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.get("Sec-WebSocket-Version").as_deref(), Some("13"));
    site.refused(plain("GET /ws/", &["Connection: Upgrade", "Upgrade: h2c"], ""), &[426, 400]);
    site.refused(plain("POST /ws", &["Content-Length: 5"], "hello"), &[405]);
    site.refused(plain("DELETE /ws", &[], ""), &[405]);
    site.refused(plain("GET /ws", &["Content-Length: 5"], "hello"), &[400]);
    // No content in what a HEAD is answered.
    let mut client = site.client();
    client.send(plain("HEAD /ws", &[], ""));
    assert_eq!(client.head().status(), 405);
    client.expect_fin();
    site.is_quiet();
    // An upgrade that is wrong stays wrong on a route that forwards: what is no 101 must not look like one asked for.
    let asked = ask("chat.example", "/", &[]);
    site.refused(asked.replace("Version: 13", "Version: 8"), &[426]);
    site.refused(asked.replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), &[400]);
    site.refused(asked.replace("GET", "POST"), &[405]);
    site.refused(asked.replace("Connection: Upgrade\r\n", ""), &[400]);
}

#[test]
fn a_page_is_fetched_once() {
    let site = site();
    let lines = ["User-Agent: x", "Connection: keep-alive", "Accept: */*", "Accept-Encoding: gzip", "Cookie: a=b"];
    let (mut client, mut backend, seen) = forwarded(&site, plain("GET /page?x=1", &lines, ""));
    assert_eq!(seen.start(), "GET /page?x=1 HTTP/1.1");
    for (name, value) in [
        ("Host", Some("chat.example")),
        ("Connection", Some("close")),
        ("User-Agent", Some("x")),
        ("Accept-Encoding", Some("gzip")),
        ("Cookie", Some("a=b")),
        ("X-Forwarded-For", Some("127.0.0.1")),
        ("Content-Length", None),
        ("Transfer-Encoding", None),
        ("Keep-Alive", None),
    ] {
        assert_eq!(seen.get(name).as_deref(), value, "{}", seen.text());
    }
    answered(&mut client, &mut backend);
    site.is_quiet();
}

#[test]
fn each_method_has_its_way() {
    let site = site();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let (mut client, mut backend, seen) = forwarded(&site, plain(&format!("{method} /"), &[], ""));
        assert_eq!(seen.start(), format!("{method} / HTTP/1.1"));
        answered(&mut client, &mut backend);
    }
    for method in ["TRACE", "CONNECT", "get", "PROPFIND", "G@T"] {
        let head = site.refused(plain(&format!("{method} /"), &[], ""), &[405, 400]);
        assert!(head.status() == 400 || head.get("Allow").is_some());
    }
    site.refused(plain("OPTIONS *", &[], ""), &[400]);
}

#[test]
fn a_head_request_is_answered_with_a_head() {
    let site = site();
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked", "X: y"] {
        let (mut client, mut backend, seen) = forwarded(&site, plain("HEAD /", &[], ""));
        assert_eq!(seen.start(), "HEAD / HTTP/1.1");
        backend.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.status(), 200);
        if framing.starts_with("Content") {
            assert_eq!(head.get("Content-Length").as_deref(), Some("1000"));
        }
        // Nobody waits for a body that will not come.
        client.expect_fin();
        client.finish();
        backend.expect_end();
    }
    // Nor has what Ringway says itself a body.
    let (mut client, backend, _) = forwarded(&site, plain("HEAD /", &[], ""));
    drop(backend);
    assert_eq!(client.head().status(), 502);
    client.expect_fin();
}

#[test]
fn a_second_request_on_the_connection_goes_nowhere() {
    let site = site();
    let first = plain("GET /first", &["Connection: keep-alive"], "");
    let post = plain("POST /first", &["Content-Length: 5"], "hello");
    let chunked = plain("POST /first", &["Transfer-Encoding: chunked"], "5\r\nhello\r\n0\r\n\r\n");
    let second = plain("GET /second", &[], "") + &"x".repeat(100_000);
    for (request, body) in [(first, 0), (post, 5), (chunked, 15)] {
        for pieces in [usize::MAX, request.len(), request.len() + 10] {
            let all = format!("{request}{second}");
            let (now, later) = all.split_at(pieces.min(all.len()));
            let (mut client, mut backend, seen) = forwarded(&site, now);
            assert!(seen.start().contains(" /first "));
            client.send(later);
            backend.bytes(body);
            backend.send(ANSWER);
            assert_eq!(client.head().get("Connection").as_deref(), Some("close"));
            assert_eq!(client.bytes(5), b"hello");
            client.expect_fin();
            client.finish();
            // Of the second request nothing has come.
            backend.expect_end();
            site.is_quiet();
        }
    }
}

#[test]
fn upgrades_work_on_the_same_route() {
    let site = site();
    for _ in 0..3 {
        let (mut client, mut backend, _) = forwarded(&site, plain("GET /chat", &[], ""));
        answered(&mut client, &mut backend);
        site.goes_to("web", ask("chat.example", "/chat", &[]));
    }
    // And an upgrade that its backend refuses is relayed as ever.
    let mut client = site.client();
    client.send(ask("chat.example", "/chat", &[]));
    let mut backend = site.backend("web").accept();
    backend.head();
    backend.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.head().status(), 403);
    client.expect_fin();
}

#[test]
fn h44_requests_with_two_readings_reach_nobody() {
    let site = site();
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for lines in [
        &["Content-Length: 5", "Transfer-Encoding: chunked"][..],
        &["Transfer-Encoding: chunked", "Content-Length: 15"],
        &["Content-Length: 5", "Content-Length: 6"],
        &["Content-Length: 5", "Content-Length: 5"],
        &["Content-Length: 5, 5"],
        &["Content-Length: +5"],
        &["Content-Length: -5"],
        &["Content-Length: 0x5"],
        &["Content-Length: 5 5"],
        &["Content-Length: 5;"],
        &["Content-Length: \"5\""],
        &["Content-Length:"],
        &["Content-Length: 18446744073709551616"],
        &["Content-Length : 5"],
        &["Content-Length: 5\r\n 6"],
        &["Content-Length: 5", "Transfer-Encoding: identity"],
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "transfer-encoding: identity"],
        &["Transfer-Encoding: chunked, chunked"],
        &["Transfer-Encoding: gzip, chunked"],
        &["Transfer-Encoding: chunked, identity"],
        &["Transfer-Encoding: ,chunked"],
        &["Transfer-Encoding: chunked;q=1"],
        &["Transfer-Encoding: \"chunked\""],
        &["Transfer-Encoding: xchunked"],
        &["Transfer-Encoding: chunke"],
        &["Transfer-Encoding: x"],
        &["Transfer-Encoding:"],
        &["Transfer-Encoding: \x0bchunked"],
        &["Transfer-Encoding : chunked"],
        &["Transfer-Encoding:\r\n chunked"],
        &[" Transfer-Encoding: chunked"],
        &["X: y\nTransfer-Encoding: chunked"],
        &["X: y\rTransfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "Upgrade: websocket", "Connection: Upgrade"],
    ] {
        for method in ["GET", "POST"] {
            site.refused(plain(&format!("{method} /"), lines, chunked), &[400]);
        }
    }
    site.refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400, 505]);
}

#[test]
fn h38_framing_is_said_once_whatever_the_client_said_of_it() {
    let site = site();
    for (lines, framing) in [
        (&["Content-Length: 5"][..], "content-length: 5"),
        (&["content-length:  005 "], "content-length: 5"),
        (&["Content-Length: 5", "Connection: Content-Length"], "content-length: 5"),
        (&["Content-Length: 5", "Transfer_Encoding: chunked", "Content_Length: 50"], "content-length: 5"),
        (&["Transfer-Encoding: Chunked", "Connection: close, transfer-encoding"], "transfer-encoding: chunked"),
    ] {
        let body = if framing.starts_with('t') { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" };
        // A GET may have a body too; if it has, the backend hears of it.
        for method in ["POST", "GET"] {
            let (mut client, mut backend, seen) = forwarded(&site, plain(&format!("{method} /"), lines, body));
            let fields = seen.fields();
            let said: Vec<_> =
                fields.iter().filter(|(name, _)| name.contains("length") || name.contains("encod")).collect();
            assert_eq!(said.len(), 1, "{}", seen.text());
            assert_eq!(format!("{}: {}", said[0].0, said[0].1), framing);
            assert_eq!(backend.bytes(body.len()), body.as_bytes());
            answered(&mut client, &mut backend);
        }
    }
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    let site = site();
    let lines = [
        "Connection: keep-alive, X-Hop,x-other",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "X-Hop: 1",
        "X-Other: 2",
        "X-Kept: 3",
        "TE: trailers",
        "Trailer: X",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ];
    let (mut client, mut backend, seen) = forwarded(&site, plain("GET /", &lines, ""));
    for name in ["Keep-Alive", "Proxy-Connection", "X-Hop", "X-Other", "TE", "Trailer", "Upgrade"] {
        assert_eq!(seen.get(name), None, "{}", seen.text());
    }
    assert_eq!(seen.get("Connection").as_deref(), Some("close"));
    assert_eq!(seen.get("X-Kept").as_deref(), Some("3"));
    backend.send(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Kept: 2\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    );
    let heard = client.head();
    for name in ["Keep-Alive", "X-Hop", "Proxy-Connection", "Upgrade"] {
        assert_eq!(heard.get(name), None, "{}", heard.text());
    }
    assert_eq!(heard.get("Connection").as_deref(), Some("close"));
    assert_eq!(heard.get("X-Kept").as_deref(), Some("2"));
    client.expect_fin();
}

#[test]
fn paths_and_hosts_are_held_to_the_same_rules() {
    let site = site();
    for target in ["/../x", "//x", "/%2e%2e", "/x%2fy", "/%00", "http://other.example/", "*", "x"] {
        site.refused(plain(&format!("GET {target}"), &[], ""), &[400]);
    }
    for lines in ["Host: a\r\nHost: b", "Host: a, b", "Host:", "X: y"] {
        site.refused(format!("POST / HTTP/1.1\r\n{lines}\r\nContent-Length: 0\r\n\r\n"), &[400]);
    }
    let (mut client, mut backend, seen) = forwarded(&site, plain("GET http://chat.example/a?b", &[], ""));
    assert_eq!(seen.start(), "GET /a?b HTTP/1.1");
    answered(&mut client, &mut backend);
}

#[test]
fn a_session_behind_a_page_closes_as_ever() {
    // A page and a session at the same time share nothing.
    let site = site();
    let (mut page, mut slow, _) = forwarded(&site, plain("GET /", &[], ""));
    let (mut client, mut backend) = site.open("web", ask("chat.example", "/", &[]));
    answered(&mut page, &mut slow);
    client.client_frame(FIN | TEXT, "hello");
    backend.expect_frame(FIN | TEXT, "hello");
    close(&mut client, &mut backend);
}
