//! Requests that are no upgrades, and the answers to them.

use super::*;
use crate::proto::http::{Body, Chunked, HeadKind};

/// As socket.io's long polling sends it.
const POST: &str = "POST /poll?sid=1 HTTP/1.1\r\nHost: server.example.com\r\nContent-Type: text/plain\r\n\
                    Content-Length: 5\r\nConnection: keep-alive\r\nCookie: a=b\r\n\r\n";

const GET: &str = "GET / HTTP/1.1\r\nHost: server.example.com\r\n\r\n";

fn plain(head: &str) -> Result<(PlainRequest, Rejection), Rejection> {
    match request(head.as_bytes(), &LIMITS)? {
        Incoming::Plain(request, fault) => Ok((request, fault)),
        Incoming::Upgrade(_) => panic!("an upgrade: {head}"),
    }
}

#[track_caller]
fn forwarded(head: &str) -> String {
    let (request, _) = plain(head).unwrap_or_else(|fault| panic!("{}\n{head}", fault.text));
    String::from_utf8(request.forward(&[], None)).unwrap()
}

#[track_caller]
fn refused(head: &str, status: u16) {
    match plain(head) {
        Err(fault) => assert_eq!(fault.status.code(), status, "{} for {head}", fault.text),
        Ok(_) => panic!("accepted: {head}"),
    }
}

#[test]
fn a_request_is_rebuilt() {
    let expected = "POST /poll?sid=1 HTTP/1.1\r\nHost: server.example.com\r\nConnection: close\r\nContent-Length: 5\r\n\
                    Content-Type: text/plain\r\nCookie: a=b\r\n\r\n";
    assert_eq!(forwarded(POST), expected);
    let (request, _) = plain(POST).unwrap();
    assert_eq!((request.method, request.body, request.expects_continue), ("POST", Body::Length(5), false));
    assert_eq!(
        (&*request.host_name(), request.path(), request.query_value("sid")),
        ("server.example.com", "/poll", Some("1"))
    );
    assert_eq!(request.cookie("a"), Some(b"b".as_slice()));

    let edits = [Edit::Remove { name: "Cookie" }, Edit::Add { name: "X-A", value: "1".into() }];
    let head = String::from_utf8(request.forward(&edits, Some("/v2"))).unwrap();
    assert_eq!(head, but(&but(expected, "/poll?sid=1", "/v2"), "Cookie: a=b", "X-A: 1"));
}

#[test]
fn h16_absolute_form_is_forwarded_in_origin_form() {
    let head = forwarded(&but(GET, "GET /", "GET http://SERVER.example.com/x?y"));
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\nHost: server.example.com\r\n"), "{head}");
}

#[test]
fn lines_that_are_not_forwarded() {
    let base = forwarded(GET);
    assert_eq!(base, "GET / HTTP/1.1\r\nHost: server.example.com\r\nConnection: close\r\n\r\n");
    for lines in [
        "Connection: keep-alive",
        "Connection: close, X-Hop\r\nX-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "TE: trailers",
        "Trailer: X",
        "Expect: 100-continue",
        "X_Forwarded_For: 1",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Upgrade: h2c, foo/1",
        "Upgrade:",
    ] {
        assert_eq!(forwarded(&plus(GET, lines)), base, "{lines}");
    }
}

#[test]
fn methods() {
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let head = forwarded(&but(GET, "GET", method));
        assert_eq!(head, but(&forwarded(GET), "GET", method));
    }
    for method in ["CONNECT", "TRACE", "get", "GETS", "PROPFIND"] {
        refused(&but(GET, "GET", method), 405);
    }
    refused(&but(GET, "GET /", "CONNECT server.example.com:80"), 405);
    refused(&but(GET, "GET /", "OPTIONS *"), 400);
    refused(&but(GET, "GET", "G@T"), 400);
}

#[test]
fn bodies_are_framed_once_and_in_one_spelling() {
    for (lines, framing, body) in [
        ("Content-Length: 0", "Content-Length: 0\r\n", Body::Length(0)),
        ("content-length:\t007 ", "Content-Length: 7\r\n", Body::Length(7)),
        ("Content-Length: 7\r\nConnection: Content-Length", "Content-Length: 7\r\n", Body::Length(7)),
        ("Content-Length: 18446744073709551615", "Content-Length: 18446744073709551615\r\n", Body::Length(u64::MAX)),
        (
            "transfer-encoding: CHUNKED\r\nConnection: transfer-encoding",
            "Transfer-Encoding: chunked\r\n",
            Body::Chunked(Chunked::of(HeadKind::Request)),
        ),
        ("A_B: c", "", Body::None),
    ] {
        for head in [GET.to_owned(), but(GET, "GET", "POST")] {
            let head = plus(&head, lines);
            assert_eq!(plain(&head).unwrap().0.body, body, "{lines}");
            let expected = but(&forwarded(GET), "close\r\n", &format!("close\r\n{framing}"));
            assert_eq!(forwarded(&head), but(&expected, "GET", head.split(' ').next().unwrap()), "{lines}");
        }
    }
}

#[test]
fn h40_to_h45_requests_that_could_be_two() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\ncontent-length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 5\x0b",
        "Content-Length:",
        "Content-Length : 5",
        "Content-Length: 5\r\n 5",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: chun\tked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Host: server.example.com",
        "Host: other.example.com",
    ] {
        for head in [GET.to_owned(), but(GET, "GET", "POST")] {
            refused(&plus(&head, lines), 400);
        }
        refused(&plus(GOOD, lines), 400);
    }
    refused(&plus(&but(POST, "HTTP/1.1", "HTTP/1.0"), "Transfer-Encoding: chunked"), 400);
    refused(&plus(&but(GET, "HTTP/1.1", "HTTP/1.0"), "Transfer-Encoding: chunked"), 400);
}

#[test]
fn h13_to_h23_hosts_targets_and_versions() {
    refused(&but(GET, "Host: server.example.com\r\n", ""), 400);
    refused(&but(GET, "server.example.com", "a/b"), 400);
    for target in ["http://other.example/", "http://u@server.example.com/", "/%00", "x", "*"] {
        refused(&but(GET, "GET /", &format!("GET {target}")), 400);
    }
    for method in ["GET", "POST"] {
        let head = but(GET, "GET", method);
        refused(&but(&head, "HTTP/1.1", "HTTP/1.2"), 505);
    }
    refused(&plus(GET, &format!("Connection: x{}", ", x".repeat(32))), 400);
}

#[test]
fn h46_expectations() {
    let waits = |lines: &str| plain(&plus(GET, lines)).map(|(request, _)| request.expects_continue);
    assert_eq!(waits("Expect: 100-Continue\r\nContent-Length: 5"), Ok(true));
    assert_eq!(waits("Expect: 100-continue\r\nTransfer-Encoding: chunked"), Ok(true));
    // RFC 9110, 10.1.1: the server "MAY omit sending a 100" if "the framing indicates that there is no content".
    assert_eq!(waits("Expect: 100-continue\r\nContent-Length: 0"), Ok(false));
    assert_eq!(waits("Expect: 100-continue"), Ok(false));
    assert_eq!(waits("Content-Length: 5"), Ok(false));
    for value in ["x", "100-continue, x", "100-continued", "100-continue;a"] {
        refused(&plus(GET, &format!("Content-Length: 5\r\nExpect: {value}")), 417);
    }
}

#[test]
fn a_route_without_plain_http_refuses_with_what_the_upgrade_lacks() {
    for (head, status) in [
        (GET.to_owned(), 426),
        (but(GOOD, "Upgrade: websocket\r\n", ""), 426),
        (but(GOOD, "Upgrade: websocket", "Upgrade: h2c"), 426),
        (but(GOOD, "Upgrade: websocket", "Upgrade: h2c, foo"), 400),
        (POST.to_owned(), 405),
        (but(GET, "GET", "HEAD"), 405),
        (but(POST, "POST", "GET"), 400),
        (plus(GET, "Transfer-Encoding: chunked"), 400),
        (but(POST, "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
    ] {
        let (_, fault) = plain(&head).unwrap();
        assert_eq!(fault.status.code(), status, "{head}");
        assert_eq!(checked(&head).err(), Some(fault));
    }
}

#[test]
fn whoever_names_websocket_wants_an_upgrade() {
    for (head, status) in [
        (but(GOOD, "GET", "POST"), 405),
        (but(GOOD, "HTTP/1.1", "HTTP/1.0"), 505),
        (but(GOOD, "Version: 13", "Version: 8"), 426),
        (but(GOOD, "dGhl", "dGh"), 400),
        (but(GOOD, "Connection: Upgrade\r\n", ""), 400),
        (but(GOOD, "Upgrade: websocket", "Upgrade: websocket/13"), 426),
        (but(GOOD, "Upgrade: websocket", "Upgrade: h2c, WebSocket"), 400),
        (but(GOOD, "Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"), 400),
        (plus(GOOD, "Content-Length: 5"), 400),
        (plus(GET, "Upgrade: websocket"), 400),
    ] {
        refused(&head, status);
    }
    assert!(matches!(request(GOOD.as_bytes(), &LIMITS), Ok(Incoming::Upgrade(request)) if request.path() == "/chat"));
}

fn answered(method: &str, head: &str) -> Result<Answer, Rejection> {
    plain_answer(head.as_bytes(), method, false, &LIMITS)
}

#[test]
fn answers_are_rebuilt_and_end_the_connection() {
    let length = "Content-Length: 7\r\n";
    for (method, status, lines, kept, body) in [
        ("GET", 200, length, length, Body::Length(7)),
        (
            "POST",
            404,
            "A: b\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: max=5\r\n",
            "A: b\r\n",
            Body::UntilClose,
        ),
        ("GET", 200, "Upgrade: h2c\r\nConnection: Upgrade\r\n", "", Body::UntilClose),
        (
            "GET",
            200,
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
            Body::Chunked(Chunked::of(HeadKind::Response)),
        ),
        ("HEAD", 200, length, length, Body::None),
        ("HEAD", 200, "Transfer-Encoding: chunked\r\n", "", Body::None),
        ("HEAD", 200, "", "", Body::None),
        ("HEAD", 204, length, "", Body::None),
        ("POST", 204, length, "", Body::None),
        ("GET", 304, length, length, Body::None),
    ] {
        let head = format!("HTTP/1.1 {status} X\r\n{kept}Connection: close\r\n\r\n").into_bytes();
        let answer = answered(method, &format!("HTTP/1.1 {status} X\r\n{lines}\r\n"));
        assert_eq!(answer, Ok(Answer::Response { status, head, body }), "{method} {status} {lines}");
    }
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    assert_eq!(
        answered("GET", "HTTP/1.0 200 OK\r\n\r\n"),
        Ok(Answer::Response { status: 200, head, body: Body::UntilClose })
    );
}

#[test]
fn b18_a_101_that_nobody_asked_for() {
    let fault = answered("GET", SWITCHED).unwrap_err();
    assert_eq!(
        (fault.status.code(), &*fault.text),
        (502, "The backend's answer is a 101 to a request that is no upgrade.")
    );
    for head in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 \r\nLink: </a>\r\n\r\n"] {
        assert_eq!(answered("POST", head), Ok(Answer::Informational));
    }
    for lines in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 5"] {
        let fault = answered("HEAD", &format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n")).unwrap_err();
        assert_eq!(fault.status.code(), 502, "{}", fault.text);
    }
    for line in ["HTTP/1.1 600 X", "HTTP/1.1 099 X", "HTTP/1.2 200 OK", "SSH-2.0"] {
        assert_eq!(answered("GET", &format!("{line}\r\n\r\n")).unwrap_err().status.code(), 502);
    }
}
