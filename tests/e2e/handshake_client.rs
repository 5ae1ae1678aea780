//! Rows H of the wire cases, first part: what a request may say, and what the backend is told of it.

use crate::harness::{Stage, Verdict, close};
use crate::wire::*;

/// Each of these lines, put behind a good request's, makes it a 400.
fn refuses_lines(lines: &[&str]) {
    let stage = Stage::new();
    for line in lines {
        eprintln!("case {line:?}");
        stage.refused(request(&[line]), &[400]);
    }
}

/// Each of these, in place of the good request's line that starts with `name`, gets one of these statuses.
fn refuses_instead(name: &str, lines: &[&str], statuses: &[u16]) -> Vec<Head> {
    let stage = Stage::new();
    let refuse = |line: &&str| {
        eprintln!("case {line:?}");
        stage.refused(request_with(name, line), statuses)
    };
    lines.iter().map(refuse).collect()
}

fn targets(lines: &[&str], statuses: &[u16]) {
    let lines: Vec<_> = lines.iter().map(|t| format!("GET {t} HTTP/1.1")).collect();
    refuses_instead("GET", &lines.iter().map(String::as_str).collect::<Vec<_>>(), statuses);
}

/// Each of these, in place of the good request's line, is a good request too; returns what the backend was sent.
fn accepts_instead(name: &str, lines: &[&str]) -> Vec<Head> {
    let stage = Stage::new();
    let accept = |line: &&str| {
        eprintln!("case {line:?}");
        accepted(&stage, &request_with(name, line))
    };
    lines.iter().map(accept).collect()
}

pub fn accepted(stage: &Stage, request: &str) -> Head {
    let mut client = stage.client();
    client.send(request);
    let mut backend = stage.backend.accept();
    let head = backend.head();
    backend.send(answer(&head, &[]));
    assert_eq!(client.head().status(), 101);
    close(&mut client, &mut backend);
    head
}

#[test]
fn h01_good_request() {
    let extra = [
        "Cookie: a=b; c=\"d\"",
        "X-Before: 1",
        "Sec-WebSocket-Protocol: chat.v2, chat",
        "Origin: https://chat.example",
        "x-UPPER-lower: Kept As It Is",
        "Cookie: e=f",
        "Authorization: Bearer abc.def==",
    ];
    let stage = Stage::new();
    let seen = accepted(&stage, &request(&extra));
    assert_eq!(seen.start(), "GET /chat HTTP/1.1");
    for (name, value) in [
        ("Host", "chat.example"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "chat.v2, chat"),
    ] {
        assert_eq!(seen.get(name).as_deref(), Some(value));
    }
    assert_eq!(seen.get("Connection").unwrap().to_ascii_lowercase(), "upgrade");
    let text = seen.text();
    let at: Vec<_> = extra.iter().map(|line| text.find(&format!("\r\n{line}\r\n"))).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "verbatim and in order: {text}");
    stage.check();
}

#[test]
fn h02_one_byte_per_write() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.send_in_pieces(request(&[]), 1);
    let mut backend = stage.backend.upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    close(&mut client, &mut backend);
}

#[test]
fn h03_split_at_every_offset() {
    let stage = Stage::new();
    let bytes = request(&["Cookie: a=b"]).into_bytes();
    for at in 1..bytes.len() {
        let mut client = stage.client();
        client.send_in_pieces(&bytes, at);
        let mut backend = stage.backend.upgrade(&[]);
        assert_eq!(client.head().status(), 101, "split at {at}");
        close(&mut client, &mut backend);
    }
}

#[test]
fn h04_bare_lf_line_ends() {
    Stage::new().refused(request(&[]).replace("\r\n", "\n"), &[400]);
}

#[test]
fn h05_mixed_line_ends_hide_a_field() {
    refuses_lines(&["X: a\nTransfer-Encoding: chunked", "X: a\n\nTransfer-Encoding: chunked", "X: a\n"]);
}

#[test]
fn h06_bare_cr() {
    refuses_lines(&["X: a\rb", "X\rY: a", "X: a\r\n\rY: b", "X: a\r", "X: a\r\r"]);
}

#[test]
fn h07_folded_lines() {
    refuses_lines(&["X: a\r\n b", "X: a\r\n\tb", "X:\r\n "]);
}

#[test]
fn h08_whitespace_before_the_colon() {
    refuses_lines(&["X : a", "X\t: a", "Content-Length : 5", " X: a"]);
    refuses_instead("Host", &["Host : chat.example"], &[400]);
}

#[test]
fn h09_empty_field_name() {
    refuses_lines(&[": a", ":"]);
}

#[test]
fn h10_line_without_a_colon() {
    refuses_lines(&["X", "X a", "GET / HTTP/1.1"]);
}

#[test]
fn h11_control_bytes() {
    let stage = Stage::new();
    // Tab is legal in values, CR and LF have rows of their own.
    for byte in (0..32).chain([127]).filter(|b| !b"\t\r\n".contains(b)).map(char::from) {
        eprintln!("case {byte:?}");
        stage.refused(request(&[&format!("X: a{byte}b")]), &[400]);
        stage.refused(request(&[&format!("X{byte}Y: a")]), &[400]);
        stage.refused(request_with("GET", &format!("GET /a{byte}b HTTP/1.1")), &[400]);
    }
}

#[test]
fn h13_two_hosts() {
    refuses_lines(&["Host: chat.example", "Host: other.example", "host: chat.example"]);
}

#[test]
fn h14_no_host() {
    refuses_instead("Host", &["", "Host:", "Host: "], &[400]);
}

#[test]
fn h15_host_is_not_an_authority() {
    let hosts = [
        "user@chat.example",
        "chat.example/path",
        "chat example",
        "a.example, b.example",
        "[::1",
        "::1",
        "[::1]x",
        "chat.example:0",
        "chat.example:70000",
        "chat.example:x",
        "chat.example:-1",
        "chat.example?x",
        "chat.example#x",
        "chat\\example",
        "http://chat.example",
    ];
    let lines: Vec<_> = hosts.iter().map(|h| format!("Host: {h}")).collect();
    refuses_instead("Host", &lines.iter().map(String::as_str).collect::<Vec<_>>(), &[400]);
    accepts_instead("Host", &["Host: chat.example:8080", "Host: [::1]:8080", "Host: [::1]", "Host: 127.0.0.1"]);
}

#[test]
fn h16_absolute_form_of_the_same_authority() {
    let lines = [
        ("GET http://chat.example/chat?room=1 HTTP/1.1", "GET /chat?room=1 HTTP/1.1"),
        ("GET http://chat.example HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://chat.example?room=1 HTTP/1.1", "GET /?room=1 HTTP/1.1"),
        ("GET HTTP://CHAT.example/ HTTP/1.1", "GET / HTTP/1.1"),
    ];
    for (seen, (_, wanted)) in accepts_instead("GET", &lines.map(|l| l.0)).iter().zip(lines) {
        assert_eq!(seen.start(), wanted);
        assert!(seen.get("Host").unwrap().eq_ignore_ascii_case("chat.example"));
    }
}

#[test]
fn h17_absolute_form_of_another_authority() {
    targets(
        &["http://other.example/chat", "http://chat.example:81/chat", "http://chat.example.evil/chat", "http:///chat"],
        &[400],
    );
}

#[test]
fn h18_absolute_form_with_userinfo_or_a_bad_scheme() {
    targets(
        &[
            "http://user@chat.example/chat",
            "http://user:pw@chat.example/",
            "file://chat.example/chat",
            "ws://chat.example/chat",
        ],
        &[400],
    );
}

#[test]
fn h19_other_forms_of_target() {
    targets(&["chat.example:80", "*", "chat", "", "?x", "#x"], &[400]);
}

#[test]
fn h22_paths_are_forwarded_byte_for_byte_or_refused() {
    let stage = Stage::new();
    let paths = [
        "/ws/../admin",
        "//ws",
        "/%2e%2e/",
        "/%2E%2e/x",
        "/ws%2f..",
        "/ws;x",
        "/ws/%00",
        "/WS",
        "/./ws",
        "/ws/.",
        "/ws//x",
        "/ws?x=/../y",
        "/%zz",
        "/%",
        "/a%5cb",
        "/ws?a=b&c=%20",
        "/~a/!$&'()*+,;=:@",
    ];
    for path in paths {
        eprintln!("case {path:?}");
        if let Verdict::Forwarded { request, .. } = stage.verdict(request_with("GET", &format!("GET {path} HTTP/1.1")))
        {
            assert_eq!(request.start(), format!("GET {path} HTTP/1.1"));
        }
        stage.check();
    }
    // What no URI may hold (RFC 3986, 2): httparse lets these through.
    let bad = ["/a#b", "/a\"b", "/a<b", "/a>b", "/a\\b", "/a^b", "/a{b", "/a}b", "/a`b", "/a|b", "/\u{e4}"];
    targets(&bad, &[400]);
}

#[test]
fn h23_other_http_versions() {
    let lines = ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/1.10", "http/1.1", "HTTP/1,1", "HTTP/1.1 x", ""];
    let lines = lines.map(|version| format!("GET /chat {version}"));
    refuses_instead("GET", &lines.each_ref().map(String::as_str), &[400, 505]);
}

#[test]
fn h25_http2_preface() {
    Stage::new().refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]);
}

#[test]
fn h26_other_methods() {
    let known = ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"].map(|m| format!("{m} /chat HTTP/1.1"));
    for head in refuses_instead("GET", &known.each_ref().map(String::as_str), &[405]) {
        assert_eq!(head.get("Allow").as_deref(), Some("GET"));
    }
    let bad = [
        "get /chat HTTP/1.1",
        "G@T /chat HTTP/1.1",
        "GE\tT /chat HTTP/1.1",
        "GET/chat HTTP/1.1",
        "CONNECT chat.example:80 HTTP/1.1",
    ];
    refuses_instead("GET", &bad, &[400, 405]);
}

#[test]
fn h26_head_is_answered_without_a_body() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.send(request_with("GET", "HEAD /chat HTTP/1.1"));
    let head = client.head();
    assert_eq!((head.status(), head.get("Allow").as_deref()), (405, Some("GET")));
    // RFC 9110, 9.3.2: "the server MUST NOT send content in the response".
    client.expect_fin();
    stage.check();
}

#[test]
fn h27_leading_empty_lines() {
    let stage = Stage::new();
    for count in [1, 2] {
        if let Verdict::Forwarded { mut client, mut backend, request: head } =
            stage.verdict("\r\n".repeat(count) + &request(&[]))
        {
            backend.send(answer(&head, &[]));
            assert_eq!(client.head().status(), 101);
        }
        stage.check();
    }
    stage.refused("\r\n".repeat(50_000) + &request(&[]), &[400, 431]);
}

#[test]
fn h28_keys_that_are_not_16_bytes_in_base64() {
    let keys = [
        "",
        "abc",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZX==",
        "dGhlIHNhbXBsZSBub25jZQ= =",
        "dGhlIHNhbXBsZSBub25-ZQ==",
        "dGhlIHNhbXBsZSBub25jZWVl",
        "!!!!!!!!!!!!!!!!!!!!!!==",
    ];
    let mut lines: Vec<_> = keys.iter().map(|k| format!("Sec-WebSocket-Key: {k}")).collect();
    lines.push(String::new());
    refuses_instead("Sec-WebSocket-Key", &lines.iter().map(String::as_str).collect::<Vec<_>>(), &[400]);
}

#[test]
fn h29_two_keys() {
    refuses_lines(&[&format!("Sec-WebSocket-Key: {KEY}"), "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]);
}

#[test]
fn h30_no_upgrade_to_websocket() {
    let lines = [
        "",
        "Upgrade:",
        "Upgrade: h2c",
        "Upgrade: websocket/13",
        "Upgrade: foo",
        "Upgrade: websockets",
        "Upgrade: web socket",
    ];
    for head in refuses_instead("Upgrade", &lines, &[400, 426]) {
        // RFC 9110, 15.5.22: "The server MUST send an Upgrade header field in a 426 response".
        assert!(head.status() == 400 || head.get("Upgrade").as_deref() == Some("websocket"), "{}", head.text());
    }
    Stage::new().refused("GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n", &[400, 426]);
}

#[test]
fn h31_upgrade_in_any_case() {
    accepts_instead(
        "Upgrade",
        &["Upgrade: WebSocket", "upgrade: WEBSOCKET", "UPGRADE:websocket", "Upgrade: \twebsocket \t"],
    );
}

#[test]
fn h32_upgrade_with_other_protocols() {
    let stage = Stage::new();
    for line in [
        "Upgrade: h2c, websocket",
        "Upgrade: websocket, h2c",
        "Upgrade: websocket\r\nUpgrade: h2c",
        "Upgrade: h2c\r\nUpgrade: websocket",
    ] {
        eprintln!("case {line:?}");
        if let Verdict::Forwarded { request, .. } = stage.verdict(request_with("Upgrade", line)) {
            assert_eq!(request.get("Upgrade").as_deref(), Some("websocket"));
        }
        stage.check();
    }
}

#[test]
fn h34_connection_lists_upgrade_among_others() {
    let lines = [
        "Connection: keep-alive, Upgrade",
        "Connection: keep-alive\r\nConnection: upgrade",
        "connection: UPGRADE",
        "Connection: , ,Upgrade,,",
        "Connection: Upgrade , keep-alive",
        "Connection:Upgrade",
    ];
    for seen in accepts_instead("Connection", &lines) {
        assert_eq!(seen.get("Connection").unwrap().to_ascii_lowercase(), "upgrade", "{}", seen.text());
    }
}

#[test]
fn h34_fields_named_by_connection_are_not_forwarded() {
    let stage = Stage::new();
    let lines =
        "Connection: Upgrade, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: trailers";
    let seen = accepted(&stage, &request_with("Connection", lines));
    for name in ["X-Hop", "Keep-Alive", "Proxy-Connection", "TE"] {
        assert_eq!(seen.get(name), None, "{}", seen.text());
    }
}

#[test]
fn h35_connection_without_upgrade() {
    let lines = [
        "",
        "Connection:",
        "Connection: keep-alive",
        "Connection: upgraded",
        "Connection: x-upgrade",
        "Connection: \"upgrade\"",
        "Connection: upgrade x",
    ];
    refuses_instead("Connection", &lines, &[400]);
}

#[test]
fn h36_other_versions() {
    let lines = ["", "8", "12", "0", "1337", "13, 8", "013", "13.0", "+13", "14"].map(|v| match v {
        "" => String::new(),
        version => format!("Sec-WebSocket-Version: {version}"),
    });
    let twice = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8";
    let lines: Vec<_> = lines.iter().map(String::as_str).chain([twice]).collect();
    for head in refuses_instead("Sec-WebSocket-Version", &lines, &[426]) {
        assert_eq!(head.get("Sec-WebSocket-Version").as_deref(), Some("13"));
    }
}

#[test]
fn h38_underscore_twins() {
    let stage = Stage::new();
    let seen = accepted(
        &stage,
        &request(&["X_Forwarded_For: 6.6.6.6", "X_Auth_User: root", "Content_Length: 5", "X-Kept: 1"]),
    );
    assert!(seen.fields().iter().all(|(name, _)| !name.contains('_')), "{}", seen.text());
    assert!(!seen.text().contains("6.6.6.6") && seen.get("X-Kept").is_some(), "{}", seen.text());
}

const SPOOFED: [&str; 5] = [
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "Forwarded: for=6.6.6.6;host=evil.example",
    "X-Real-IP: 6.6.6.6",
];

#[test]
fn h39_client_identity_is_replaced() {
    let stage = Stage::new();
    let seen = accepted(&stage, &request(&SPOOFED));
    assert_eq!(seen.get("X-Forwarded-For").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.get("X-Forwarded-Proto").as_deref(), Some("http"));
    assert_eq!(seen.get("X-Forwarded-Host").as_deref(), Some("chat.example"));
    assert!(!seen.text().contains("6.6.6.6") && !seen.text().contains("evil"), "{}", seen.text());
}

#[test]
fn h39_client_identity_is_appended_or_off() {
    let stage = Stage::with(
        "[forward]\nx_forwarded_for = \"append\"\nx_forwarded_proto = \"off\"\nx_forwarded_host = \"off\"\nforwarded = \"append\"\n",
    );
    let seen = accepted(&stage, &request(&SPOOFED));
    let list = seen.all("X-Forwarded-For").join(", ");
    assert_eq!(list, "6.6.6.6, 127.0.0.1");
    let forwarded = seen.all("Forwarded").join(", ");
    assert!(forwarded.starts_with("for=6.6.6.6;host=evil.example, for=127.0.0.1"), "{forwarded}");
    assert_eq!((seen.get("X-Forwarded-Proto"), seen.get("X-Forwarded-Host")), (None, None));
}

#[test]
fn h40_empty_body_is_accepted_and_not_announced() {
    let stage = Stage::new();
    let seen = accepted(&stage, &request(&["Content-Length: 0"]));
    assert_eq!(seen.get("Content-Length"), None);
}

#[test]
fn h42_body_on_the_get() {
    let stage = Stage::new();
    let inner = "GET /admin HTTP/1.1\r\nHost: chat.example\r\n\r\n";
    for (line, body) in [
        ("Content-Length: 5", "hello"),
        (&*format!("Content-Length: {}", inner.len()), inner),
        ("Content-Length: 00000005", "hello"),
        ("Content-Length: -1", ""),
        ("Content-Length: 0, 5", "hello"),
        ("Content-Length: 0\r\nContent-Length: 5", "hello"),
        ("Content-Length: 99999999999999999999999", ""),
        ("Content-Length: x", ""),
        ("Content-Length: 0x5", "hello"),
        ("Content-Length: ", ""),
    ] {
        eprintln!("case {line:?}");
        stage.refused(request(&[line]) + body, &[400]);
    }
}

#[test]
fn h44_any_transfer_encoding() {
    refuses_lines(&[
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity",
        "transfer-encoding: CHUNKED",
        "Transfer-Encoding:",
        "Transfer-Encoding: \tchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: gzip, chunked",
        "X: a\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunk\u{e9}d",
    ]);
}

#[test]
fn h45_content_length_and_transfer_encoding() {
    refuses_lines(&[
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ]);
}

#[test]
fn h46_expect_100_continue() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.send(request(&["Expect: 100-continue"]));
    let mut backend = stage.backend.accept();
    let head = backend.head();
    assert_eq!(head.get("Expect"), None);
    backend.send(answer(&head, &[]));
    // The first thing the client hears is the 101, not a 100.
    assert_eq!(client.head().status(), 101);
    close(&mut client, &mut backend);
}

#[test]
fn h58_unknown_extensions_are_not_offered_on() {
    let stage = Stage::new();
    let deflate = "permessage-deflate; client_max_window_bits; server_no_context_takeover";
    let line = format!("Sec-WebSocket-Extensions: x-foo; a=\"b,c\", {deflate}, permessage-bzip2");
    let seen = accepted(&stage, &request(&[&line]));
    assert_eq!(seen.get("Sec-WebSocket-Extensions").as_deref(), Some(deflate));
    let seen =
        accepted(&stage, &request(&["Sec-WebSocket-Extensions: x-foo", "Sec-WebSocket-Extensions: permessage-bzip2"]));
    assert_eq!(seen.get("Sec-WebSocket-Extensions"), None);
    let seen = accepted(
        &stage,
        &request(&[
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Sec-WebSocket-Extensions: x-foo, permessage-deflate",
        ]),
    );
    assert_eq!(seen.all("Sec-WebSocket-Extensions").join(", "), "permessage-deflate, permessage-deflate");
}
