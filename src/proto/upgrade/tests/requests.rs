//! Requests: what is refused and how, what is forwarded and how.

use super::*;

#[track_caller]
fn refused(head: impl AsRef<[u8]>, status: u16) {
    let head = head.as_ref();
    let fault = checked(head).err().unwrap_or_else(|| panic!("accepted: {}", head.escape_ascii()));
    assert_eq!(fault.status.code(), status, "{} for {}", fault.text, head.escape_ascii());
}

#[track_caller]
fn accepted(head: &str) {
    forwarded(head, &[]);
}

#[test]
fn h01_the_sample_of_the_rfc() {
    let request = checked(GOOD).unwrap();
    assert_eq!((&*request.host, &*request.target), ("server.example.com", "/chat"));
    assert_eq!(&request.offer.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(&*request.offer.subprotocols, "chat,superchat");
    let expected = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
                    Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(forwarded(GOOD, &[]), expected);
}

#[test]
fn a_head_has_exactly_one_end() {
    refused(&GOOD[..GOOD.len() - 1], 400);
    refused(format!("{GOOD}\r\n"), 400);
    refused(format!("{GOOD}{GOOD}"), 400);
    refused("", 400);
}

#[test]
fn h04_to_h11_bytes() {
    refused(GOOD.replace("\r\n", "\n"), 400);
    refused(plus(GOOD, "X: y\nTransfer-Encoding: chunked"), 400);
    for line in [
        "A: b\rc",
        "A\r: b",
        "A : b",
        ": b",
        "no colon",
        "A: b\r\n c",
        " A: b",
        "A: \0",
        "A: \x0b",
        "A: \x0c",
        "A: \x7f",
        "A\x01: b",
    ] {
        refused(plus(GOOD, line), 400);
    }
}

#[test]
fn h13_h14_h15_host() {
    let host = "Host: server.example.com";
    refused(but(GOOD, "Host: server.example.com\r\n", ""), 400);
    for lines in [
        "Host: a\r\nHost: a",
        "Host: a\r\nHost: b",
        "Host: a\r\nhost: a",
        "Host:",
        "Host: u@a",
        "Host: a/b",
        "Host: a b",
        "Host: a,b",
        "Host: [::1",
        "Host: a:0",
        "Host: a:70000",
        "Host: a:",
        "Host: :80",
    ] {
        refused(but(GOOD, host, lines), 400);
    }
    for line in ["Host:a", "host: A.b:8080 ", "HOST: [::1]:80"] {
        accepted(&but(GOOD, host, line));
    }
}

#[test]
fn h16_to_h22_targets() {
    let query = but(GOOD, "/chat", "/chat?{|}^`\\");
    assert!(forwarded(&query, &[]).starts_with("GET /chat?{|}^`\\ HTTP/1.1\r\n"), "browsers send these as they are");
    let absolute = but(GOOD, "/chat", "http://SERVER.example.com:80/chat?x");
    assert!(forwarded(&absolute, &[]).starts_with("GET /chat?x HTTP/1.1\r\nHost: server.example.com\r\n"));
    for target in [
        "http://other.example/chat",
        "http://server.example.com:81/chat",
        "http://u@server.example.com/chat",
        "file:///chat",
        "ws://server.example.com/",
        "server.example.com:80",
        "*",
        "chat",
        "/%00",
        "/a#b",
        "/a\"b",
        "/a\\b",
        "/a{b",
        "/a?b\"c",
        "/a?b<c",
        "/a?b#c",
        "/a?é",
        "/é",
    ] {
        refused(but(GOOD, "/chat", target), 400);
    }
    // What a backend may read as another path: for the route to judge.
    for target in ["/a/../b", "//a", "/%2e%2e/", "/a%2f.."] {
        assert!(forwarded(&but(GOOD, "/chat", target), &[]).starts_with(&format!("GET {target} HTTP/1.1\r\n")));
        assert_eq!(ambiguity(target).map(|fault| fault.status.code()), Some(400), "{target}");
    }
    refused(but(GOOD, "/chat ", ""), 400);
    refused(but(GOOD, "/chat", ""), 400);
    refused(but(GOOD, "/chat", &format!("/{}", "a".repeat(256))), 414);
}

#[test]
fn h23_h26_version_and_method() {
    refused(but(GOOD, "HTTP/1.1", "HTTP/1.0"), 505);
    refused(but(GOOD, "HTTP/1.1", "HTTP/2.0"), 505);
    refused(but(GOOD, "HTTP/1.1", "HTTP/0.9"), 505);
    for line in
        ["POST /chat", "get /chat", "HEAD /chat", "CONNECT server.example.com:80", "OPTIONS *", "GETS /chat", "PRI *"]
    {
        refused(but(GOOD, "GET /chat", line), 405);
    }
    refused(but(&but(GOOD, "GET", "POST"), "HTTP/1.1", "HTTP/1.0"), 405);
    refused(plus(&but(GOOD, "GET", "POST"), "Content-Length: 5"), 405);
    refused(but(GOOD, "GET", "G@T"), 400);
    // What frames a message twice is refused whatever the method.
    refused(plus(&but(GOOD, "GET", "POST"), "Content-Length: 5\r\nTransfer-Encoding: chunked"), 400);
}

#[test]
fn h28_h29_key() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    refused(but(GOOD, &format!("{key}\r\n"), ""), 400);
    for value in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25jZQA=",
        "dGhlIHNhbXBsZSBub25j*Q==",
        "dGhlIHNhbXBsZSB-b25jZQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
    ] {
        refused(but(GOOD, key, &format!("Sec-WebSocket-Key: {value}")), 400);
    }
    refused(plus(GOOD, key), 400);
    refused(plus(GOOD, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="), 400);
    accepted(&but(GOOD, key, "SEC-WEBSOCKET-KEY:\t AAAAAAAAAAAAAAAAAAAAAA== \t"));
}

#[test]
fn h30_h31_h32_upgrade() {
    let upgrade = "Upgrade: websocket\r\n";
    refused(but(GOOD, upgrade, ""), 426);
    for value in ["h2c", "websocket/13", "foo", "", ",", "websocketx", "web socket", "\"websocket\""] {
        refused(but(GOOD, upgrade, &format!("Upgrade: {value}\r\n")), 426);
    }
    for lines in
        ["Upgrade: h2c, websocket\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n", "Upgrade: websocket, websocket\r\n"]
    {
        refused(but(GOOD, upgrade, lines), 400);
    }
    for line in ["Upgrade: WebSocket\r\n", "UPGRADE: WEBSOCKET\r\n", "Upgrade: , websocket,\r\n"] {
        let head = forwarded(&but(GOOD, upgrade, line), &[]);
        assert!(head.contains("\r\nUpgrade: websocket\r\n") && head.matches("pgrade:").count() == 1, "{head}");
    }
}

#[test]
fn h34_h35_connection() {
    let connection = "Connection: Upgrade\r\n";
    for lines in [
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\n",
        "Connection: ,, UPGRADE ,\r\n",
        "Connection: close, Upgrade\r\n",
    ] {
        let head = forwarded(&but(GOOD, connection, lines), &[]);
        assert!(head.contains("\r\nConnection: Upgrade\r\n") && head.matches("onnection:").count() == 1, "{head}");
    }
    for lines in [
        "",
        "Connection:\r\n",
        "Connection: upgraded\r\n",
        "Connection: x-upgrade\r\n",
        "Connection: keep-alive\r\n",
        "Connection: up grade\r\n",
    ] {
        refused(but(GOOD, connection, lines), 400);
    }
    for named in
        ["host", "Sec-WebSocket-Key", "sec-websocket-version", "Sec-WebSocket-Protocol", "sec-websocket-extensions"]
    {
        refused(but(GOOD, connection, &format!("Connection: Upgrade, {named}\r\n")), 400);
    }
    refused(but(GOOD, connection, &format!("Connection: Upgrade{}\r\n", ", x".repeat(32))), 400);
    accepted(&but(GOOD, connection, &format!("Connection: Upgrade{}\r\n", ", x".repeat(31))));
}

#[test]
fn h36_version_13_only() {
    let version = "Sec-WebSocket-Version: 13";
    refused(but(GOOD, &format!("{version}\r\n"), ""), 426);
    for lines in [
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Version: 12",
        "Sec-WebSocket-Version: 1337",
        "Sec-WebSocket-Version: 13, 8",
        "Sec-WebSocket-Version: 013",
        "Sec-WebSocket-Version:",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13",
    ] {
        refused(but(GOOD, version, lines), 426);
    }
}

#[test]
fn h40_to_h45_bodies() {
    let head = forwarded(&plus(GOOD, "Content-Length: 0"), &[]);
    assert_eq!(head, forwarded(GOOD, &[]));
    for lines in [
        "Content-Length: 5",
        "Content-Length: 00",
        "Content-Length: -0",
        "Content-Length: +0",
        "Content-Length:",
        "Content-Length: 0, 0",
        "Content-Length: 0x0",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0\r\ncontent-length: 5",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding:",
        "transfer-encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
    ] {
        refused(plus(GOOD, lines), 400);
    }
}

#[test]
fn h51_too_many_headers_and_too_long_a_head() {
    accepted(&plus(GOOD, &["A: b"; 13].join("\r\n")));
    refused(plus(GOOD, &["A: b"; 14].join("\r\n")), 431);
    refused(plus(GOOD, &format!("A: {}", "b".repeat(4096))), 431);
    refused(plus(GOOD, &format!("{}: b", "A".repeat(4096))), 431);
}

#[test]
fn subprotocols_are_different_tokens() {
    let protocols = "Sec-WebSocket-Protocol: chat, superchat";
    for value in ["a, a", "a b", "a;b", "\"a\"", "a/b", "ä"] {
        refused(but(GOOD, protocols, &format!("Sec-WebSocket-Protocol: {value}")), 400);
    }
    let head = but(GOOD, protocols, "Sec-WebSocket-Protocol: a,,b\r\nSec-WebSocket-Protocol: c , A");
    assert_eq!(&*checked(&head).unwrap().offer.subprotocols, "a,b,c,A");
    assert!(forwarded(&head, &[]).contains("\r\nSec-WebSocket-Protocol: a,,b\r\nSec-WebSocket-Protocol: c , A\r\n"));
}

#[test]
fn forwarded_lines_keep_their_order_and_spelling() {
    let lines = "cookie: a=\"b\"; c=d\r\nX-UNKNOWN:  v \t\r\nCookie: e\r\nAuthorization: Bearer x\r\nX-Empty:\r\nSec-WebSocket-Foo: 1";
    let tail = "\r\ncookie: a=\"b\"; c=d\r\nX-UNKNOWN: v\r\nCookie: e\r\nAuthorization: Bearer x\r\nX-Empty: \r\nSec-WebSocket-Foo: 1\r\n\r\n";
    assert!(forwarded(&plus(GOOD, lines), &[]).ends_with(tail));

    let obs_text = [&GOOD.as_bytes()[..GOOD.len() - 2], b"Cookie: \xfc=\x80\xff\r\n\r\n"].concat();
    assert!(checked(&obs_text).unwrap().forward(&[], None).ends_with(b"\r\nCookie: \xfc=\x80\xff\r\n\r\n"));
}

#[test]
fn h38_h46_lines_that_are_not_forwarded() {
    for line in [
        "X_Forwarded_For: 1",
        "X_Auth_User: root",
        "Content_Length: 5",
        "Expect: 100-continue",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "Proxy-Authenticate: Basic",
        "TE: trailers",
        "Trailer: X",
    ] {
        assert_eq!(forwarded(&plus(GOOD, line), &[]), forwarded(GOOD, &[]), "{line}");
    }
    let named = but(GOOD, "Connection: Upgrade", "Connection: x-one, Upgrade\r\nX-One: 1\r\nConnection: X-TWO");
    assert_eq!(forwarded(&plus(&named, "x-two: 2\r\nX-ONE: 1"), &[]), forwarded(GOOD, &[]));
}

#[test]
fn h58_only_understood_extensions_are_offered() {
    for (offered, kept) in [
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits"),
        ("x-foo", ""),
        ("permessage-bzip2, x-foo; a=\"b, permessage-deflate\"", ""),
        (
            "x-foo, permessage-deflate;server_max_window_bits=10 , permessage-deflate",
            "permessage-deflate;server_max_window_bits=10, permessage-deflate",
        ),
        ("permessage-deflate; server_max_window_bits=7, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; unknown", ""),
        ("x-webkit-deflate-frame", ""),
        (",", ""),
    ] {
        let head = forwarded(&plus(GOOD, &format!("Sec-WebSocket-extensions: {offered}")), &[]);
        let expected = match kept {
            "" => forwarded(GOOD, &[]),
            kept => plus(&forwarded(GOOD, &[]), &format!("Sec-WebSocket-extensions: {kept}")),
        };
        assert_eq!(head, expected, "{offered}");
    }
    let head =
        forwarded(&plus(GOOD, "Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions: permessage-deflate"), &[]);
    assert!(head.ends_with("13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "{head}");
}

#[test]
fn h39_who_the_client_is() {
    let head = plus(
        GOOD,
        "x-forwarded-for: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nA: b\r\nX-Forwarded-For: 2.2.2.2,3.3.3.3\r\nX-Forwarded-For:",
    );
    let name = "X-Forwarded-For";
    let edited = |edits: &[Edit<'_>]| {
        let head = forwarded(&head, edits);
        head.split_once("Version: 13\r\n").unwrap().1.to_owned()
    };
    let value = || "10.0.0.1".into();
    assert_eq!(
        edited(&[Edit::Append { name, value: value() }]),
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2,3.3.3.3, 10.0.0.1\r\nX-Real-IP: 1.1.1.1\r\nA: b\r\n\r\n"
    );
    assert_eq!(edited(&[Edit::Replace { name, value: value() }]), "X-Forwarded-For: 10.0.0.1\r\nA: b\r\n\r\n");
    assert_eq!(edited(&[Edit::Remove { name }]), "A: b\r\n\r\n");

    let edits = [
        Edit::Append { name: "Forwarded", value: "for=10.0.0.1".into() },
        Edit::Remove { name: "X-Forwarded-Host" },
        Edit::Replace { name: "X-Forwarded-Proto", value: "http".into() },
    ];
    assert_eq!(
        forwarded(GOOD, &edits),
        plus(&forwarded(GOOD, &[]), "Forwarded: for=10.0.0.1\r\nX-Forwarded-Proto: http")
    );
    // Naming them in Connection only loses what the client itself said.
    let named = but(&head, "Connection: Upgrade", "Connection: Upgrade, X-Forwarded-For");
    let forwarded = forwarded(&named, &[Edit::Append { name, value: value() }]);
    assert!(forwarded.ends_with("X-Real-IP: 1.1.1.1\r\nA: b\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"), "{forwarded}");
}

#[test]
fn edits_of_a_route_follow_those_about_the_client() {
    let head = plus(GOOD, "X-Real-IP: 1.1.1.1\r\nA: 1\r\nB: 2\r\nA: 3");
    let add = |name, value: &'static str| Edit::Add { name, value: value.into() };
    let edits = [
        Edit::Replace { name: "X-Forwarded-For", value: "10.0.0.1".into() },
        Edit::Remove { name: "origin" },
        Edit::Replace { name: "b", value: "4".into() },
        add("A", "5"),
        add("X-Real-IP", "10.0.0.1"),
        add("A", "6"),
    ];
    let expected = format!(
        "{}A: 1\r\nb: 4\r\nA: 3\r\nX-Forwarded-For: 10.0.0.1\r\nA: 5\r\nX-Real-IP: 10.0.0.1\r\nA: 6\r\n\r\n",
        but(GOOD, "Origin: http://example.com\r\n", "").strip_suffix("\r\n").unwrap()
    );
    assert_eq!(forwarded(&head, &edits), expected);
}

#[test]
fn another_target_may_stand_in_place_of_the_clients() {
    let head = checked(GOOD).unwrap().forward(&[], Some("/v2/chat?x"));
    assert_eq!(String::from_utf8(head).unwrap(), but(GOOD, "/chat", "/v2/chat?x"));
}
