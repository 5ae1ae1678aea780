//! Cases from the field: what backends answer that is right enough, and what their clients hear when they fail.

use std::time::Duration;

use crate::harness::{Stage, close, ringway, scratch, until};
use crate::wire::*;

const LINES: &str =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn field_r05_status_lines_that_end_behind_the_code() {
    let stage = Stage::new();
    for (sent, heard) in [
        ("HTTP/1.1 101\r\n", "HTTP/1.1 101 \r\n"),
        ("HTTP/1.1 101 \r\n", "HTTP/1.1 101 \r\n"),
        ("HTTP/1.1 100\r\n\r\nHTTP/1.1 101\r\n", "HTTP/1.1 101 \r\n"),
    ] {
        for size in [1, 14, 400] {
            let mut client = stage.client();
            client.send(request(&[]));
            let mut backend = stage.backend.accept();
            backend.head();
            backend.send_in_pieces(format!("{sent}{LINES}\r\n"), size);
            assert_eq!(client.head().text(), format!("{heard}{LINES}\r\n"));
            close(&mut client, &mut backend);
        }
    }
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send("HTTP/1.1 403\r\nContent-Length: 2\r\n\r\nno");
    let head = client.head();
    assert_eq!(head.text(), "HTTP/1.1 403 \r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
}

#[test]
fn field_c08_a_101_of_no_length() {
    let stage = Stage::new();
    for length in
        ["Content-Length: 0\r\n", "content-length:0\r\nX-A: 1\r\n", "Content-Length: 0\r\nContent-Length: 0\r\n"]
    {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send(
            [format!("HTTP/1.1 101 S\r\n{length}{LINES}\r\n").as_bytes(), &frame(FIN | TEXT, None, b"hi")].concat(),
        );
        let kept = if length.contains("X-A") { "X-A: 1\r\n" } else { "" };
        assert_eq!(client.head().text(), format!("HTTP/1.1 101 S\r\n{kept}{LINES}\r\n"));
        client.expect_frame(FIN | TEXT, b"hi");
        close(&mut client, &mut backend);
    }
}

/// Both who sent it and who was to have it: whole, in pieces, and with a mask that hides it.
#[test]
fn field_c06_close_reasons_that_are_not_utf8() {
    let stage = Stage::new();
    for reason in [&b"caf\xe9"[..], b"cut \xf0\x9f\x98", b"\xc1\x81", b"\xed\xbf\xbf", b"\xf5\x80\x80\x80"] {
        for size in [1, 5, 200] {
            let (mut client, mut backend) = stage.open();
            client.send_in_pieces(frame(FIN | CLOSE, Some(MASK), &[&[3, 232], reason].concat()), size);
            backend.expect_close(&[1007]);
            backend.send(frame(FIN | CLOSE, None, &close_payload(1007, "")));
            client.expect_close(&[1007]);
            client.finish();
            backend.finish();
            client.expect_end();
            backend.expect_end();
            // A backend's: to its client the session has failed through no fault of the client's.
            let (mut client, mut backend) = stage.open();
            backend.send_in_pieces(frame(FIN | CLOSE, None, &[&[3, 232], reason].concat()), size);
            client.expect_close(&[1011]);
            client.send(frame(FIN | CLOSE, Some(MASK), &close_payload(1011, "")));
            backend.expect_close(&[1007]);
            backend.finish();
            client.expect_end();
            client.finish();
            backend.expect_end();
        }
    }
    stage.check();
}

/// A backend that ends by FIN, by RST or by a bad frame: 1011, or what the config says, the route's word first.
#[test]
fn field_r39_a_lost_backend() {
    for (settings, code) in [
        ("", 1011),
        ("[close_codes]\nbackend_lost = 1014", 1014),
        ("[close_codes]\nbackend_lost = 4500", 4500),
        (
            "[close_codes]\nbackend_lost = 4500\n[[pools]]\nname = \"p\"\nbackends = [\"127.0.0.1:9\"]\n[[routes]]\npool = \"p\"\n\
             [routes.close_codes]\nbackend_lost = 1013",
            1013,
        ),
    ] {
        let stage = Stage::with(settings);
        let (mut client, backend) = stage.open();
        backend.finish();
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        client.expect_end();

        let (mut client, backend) = stage.open();
        backend.reset();
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        client.expect_end();

        let (mut client, mut backend) = stage.open();
        backend.send(frame(0x83, None, b"a reserved opcode"));
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        backend.expect_close(&[1002]);
        backend.finish();
        client.expect_end();
        stage.check();
    }
    for code in ["1000", "1002", "1005", "1006", "1007", "1009", "1010", "1015", "2999", "5000", "0", "-1", "\"1011\""]
    {
        let file = scratch("codes.toml");
        std::fs::write(&file, format!("[close_codes]\nbackend_lost = {code}\n")).unwrap();
        let (exit, _, said) = ringway(&["-t", "-c", file.to_str().unwrap(), "--backend", "127.0.0.1:9"]);
        assert_eq!(exit, Some(1), "{code}");
        assert!(said.contains("write 1001, 1008, 1011 to 1014 or 3000 to 4999"), "{said}");
    }
}

/// One route that forwards everything, to a pool of the harness's backend.
fn forwarding(more: &str, top: &str) -> Stage {
    Stage::with(&format!(
        "{top}[[pools]]\nname = \"p\"\nbackends = [\"127.0.0.1:9\"]\n[[routes]]\nname = \"files\"\npool = \"p\"\nplain_http = \"forward\"\n{more}"
    ))
}

/// A client of HTTP/1.0, as nginx is by default: no chunks, and the end of the connection ends the body.
#[test]
fn field_r10_plain_http_in_http_1_0() {
    let stage = forwarding("", "");
    for (request, method) in [
        ("GET /page HTTP/1.0\r\nHost: chat.example\r\n\r\n", "GET /page HTTP/1.1"),
        ("GET /page HTTP/1.0\r\nHost: chat.example\r\nConnection: close\r\nX-A: 1\r\n\r\n", "GET /page HTTP/1.1"),
        (
            "POST /poll HTTP/1.0\r\nHost: chat.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
            "POST /poll HTTP/1.1",
        ),
    ] {
        for (answered, head, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
                "ok",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-B: 2\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: 1\r\n\r\n",
                "HTTP/1.1 200 OK\r\nX-B: 2\r\nConnection: close\r\n\r\n",
                "hello world",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "until the end"),
        ] {
            for size in [1, 1000] {
                let mut client = stage.client();
                client.send(request);
                let mut backend = stage.backend.accept();
                assert_eq!(backend.head().start(), method);
                if request.ends_with("hi") {
                    assert_eq!(backend.bytes(2), b"hi");
                }
                backend.send_in_pieces(answered, size);
                backend.finish();
                assert_eq!(client.head().text(), head);
                let (rest, end) = client.rest();
                assert_eq!((String::from_utf8(rest).unwrap().as_str(), end), (body, End::Fin));
            }
        }
    }
    // Nobody in HTTP/1.0 is invited to send (RFC 9110, 10.1.1), also if its body has not begun to come.
    let mut client = stage.client();
    client.send("POST /poll HTTP/1.0\r\nHost: chat.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    let mut backend = stage.backend.accept();
    assert_eq!(backend.head().get("Expect"), None);
    client.send("hi");
    assert_eq!(backend.bytes(2), b"hi");
    backend.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.head().status(), 204);
    client.rest();
    // An upgrade in HTTP/1.0 is none, and without a Host nobody knows where it goes.
    for (request, status) in [
        (request(&[]).replace("HTTP/1.1", "HTTP/1.0"), 505),
        ("GET / HTTP/1.0\r\n\r\n".into(), 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
    ] {
        let mut client = stage.client();
        client.send(&request);
        assert_eq!(client.head().status(), status, "{request}");
        client.rest();
    }
    assert!(stage.backend.accept_now().is_none());
}

/// An answer whose end only the connection's end tells: cut, it ends in a reset; whole, in FIN.
#[test]
fn field_a10_a_cut_answer_does_not_look_whole() {
    let stage = forwarding("[routes.timeouts]\nplain_http = \"300ms\"\n", "");
    let open_ended = "HTTP/1.1 200 OK\r\n\r\nthe first half";
    for (answered, cut, expected) in [
        (open_ended, "reset", End::Reset),
        (open_ended, "silence", End::Reset),
        (open_ended, "fin", End::Fin),
        // Here the length tells.
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nthe first half", "fin", End::Fin),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\nthe first half", "reset", End::Fin),
    ] {
        let mut client = stage.client();
        client.send("GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n");
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send(answered);
        client.head();
        let first = answered.split("\r\n\r\n").nth(1).unwrap();
        assert_eq!(client.bytes(first.len()), first.as_bytes());
        let held = match cut {
            "reset" => {
                backend.reset();
                None
            }
            "fin" => {
                backend.finish();
                Some(backend)
            }
            _ => Some(backend),
        };
        assert_eq!(client.rest(), (Vec::new(), expected), "{answered:?} {cut}");
        drop(held);
    }
    // To HTTP/1.0 a chunked body is one of these.
    let mut client = stage.client();
    client.send("GET / HTTP/1.0\r\nHost: chat.example\r\n\r\n");
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo");
    client.head();
    assert_eq!(client.bytes(7), b"hellowo");
    backend.finish();
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
    let log = stage.relay.process.log();
    let ended =
        |reason: &str| log.iter().filter(|line| line.contains("session ended") && line.contains(reason)).count();
    until("the last is told", || {
        stage.relay.process.log().iter().filter(|line| line.contains("cut short")).count() >= 4
    });
    assert_eq!((ended("the response has stopped"), ended("answered with another status")), (1, 1));
}

/// What a backend is carrying out at SIGTERM goes on; what it has not heard of does not.
#[test]
fn field_a07_a_request_under_way_survives_the_drain() {
    let stage = forwarding("", "");
    let mut asked: Vec<(Wire, Wire)> = [
        "POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "GET /report HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .iter()
    .map(|request| {
        let mut client = stage.client();
        client.send(request);
        let mut backend = stage.backend.accept();
        backend.head();
        (client, backend)
    })
    .collect();
    // One whose body has yet to come.
    let mut uploading = stage.client();
    uploading.send("PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst");
    let mut taking = stage.backend.accept();
    taking.head();
    let mut upgrade = stage.client();
    upgrade.send(request(&[]));
    let mut asked_to_switch = stage.backend.accept();
    asked_to_switch.head();
    stage.relay.signal("TERM");
    assert_eq!(upgrade.head().status(), 503, "a handshake can be tried again");
    uploading.send("-last");
    assert_eq!(taking.bytes(10), b"first-last");
    asked.push((uploading, taking));
    for (client, backend) in &mut asked {
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.bytes(4), b"done");
    }
    drop((asked, upgrade));
    stage.relay.ended();
}

/// Streamed bodies have no limit unless the config has one; then the refusal names it.
#[test]
fn field_b03_uploads() {
    let stage = forwarding("", "");
    let body = vec![b'x'; 1_500_000];
    let mut client = stage.client();
    client.send(format!("POST /upload?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    let sending = std::thread::spawn({
        let mut client = client.split();
        let body = body.clone();
        move || {
            client.send(body);
        }
    });
    let mut backend = stage.backend.accept();
    backend.head();
    assert!(backend.bytes(body.len()) == body);
    sending.join().unwrap();
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.head().status(), 200);

    let stage = forwarding("[routes.limits]\nrequest_body_bytes_max = \"1KiB\"\n", "");
    for request in [
        "POST /upload?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n".to_owned(),
        format!(
            "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n500\r\n{}\r\n",
            "x".repeat(0x500)
        ),
    ] {
        let mut client = stage.client();
        client.send(&request);
        let head = client.head();
        assert_eq!(head.status(), 413);
        let (text, _) = client.rest();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("limits.request_body_bytes_max, which is 1024 bytes"), "{text}");
    }
    let lines = || -> Vec<String> {
        let log = stage.relay.process.log();
        log.into_iter().filter(|line| line.contains("WARN") && line.contains("413")).collect()
    };
    until("it is told", || !lines().is_empty());
    let told = lines();
    assert_eq!(told.len(), 1, "once in a while: {told:?}");
    for part in ["route=\"files\"", "path=\"/upload\"", "limits.request_body_bytes_max"] {
        assert!(told[0].contains(part), "{told:?}");
    }
}

/// A browser may bring cookies of the name that are not ours, or not any more, in any order.
#[test]
fn field_r21_the_first_cookie_that_names_a_member() {
    let hosts = crate::fleet::Host::many(3);
    let sticky = "[pools.sticky]\ncookie = \"rw\"\npath = \"/\"\ndomain = \"chat.example\"\n";
    let edge = crate::fleet::Edge::start(1, &(crate::fleet::pool(&hosts.iter().collect::<Vec<_>>(), "") + sticky));
    let mut client = edge.ask(&[]);
    let head = client.head();
    let cookie = head.get("Set-Cookie").unwrap();
    assert!(cookie.contains("; Path=/; Domain=chat.example; HttpOnly; SameSite=Lax"), "{cookie}");
    let good = cookie.split(';').next().unwrap().to_owned();
    let owner = head.get("X-Backend").unwrap();
    for sent in [
        format!("rw=stale; {good}"),
        format!("{good}; rw=stale"),
        format!("rw=; rw=x; other=1; {good}; rw=y"),
        format!("rw=stale\r\nCookie: a=b; {good}"),
    ] {
        for _ in 0..6 {
            let mut client = edge.ask(&[&format!("Cookie: {sent}")]);
            let head = client.head();
            assert_eq!((head.get("X-Backend").as_ref(), head.get("Set-Cookie")), (Some(&owner), None), "{sent}");
        }
    }
}

/// No default sits on a number that peers use: a poll that is answered after a minute, or two, gets through.
#[test]
fn field_r30_defaults_leave_peers_their_time() {
    let (_, printed, _) = ringway(&["-T", "--backend", "127.0.0.1:9"]);
    let time = |option: &str| -> Duration {
        let line = printed
            .lines()
            .find(|line| line.starts_with(&format!("{option} = ")))
            .unwrap_or_else(|| panic!("{option}"));
        let text = line.split('"').nth(1).unwrap();
        let minutes: u64 =
            text.split_once('m').filter(|_| !text.ends_with("ms")).map_or(0, |(m, _)| m.parse().unwrap());
        let seconds = text.split_once('m').map_or(text, |(_, rest)| rest).trim_end_matches('s').parse().unwrap_or(0);
        Duration::from_secs(60 * minutes + seconds)
    };
    assert!(time("plain_http") > Duration::from_secs(120), "BOSH and other long polls wait for one or two minutes");
    assert!(time("drain") < Duration::from_secs(30), "orchestrators kill then");
    assert!(time("keepalive") < Duration::from_secs(60), "balancers forget then");
    let used = [15, 20, 30, 55, 60, 90, 100, 120, 300].map(Duration::from_secs);
    for option in ["plain_http", "drain", "keepalive"] {
        assert!(!used.contains(&time(option)), "{option}");
    }
}

/// A client's message that never ends holds its backend's memory; what backends send is the operator's own affair.
#[test]
fn field_a19_messages_of_clients_have_a_bound_of_their_own() {
    let stage = Stage::new();
    let claim = |len: u64, mask: bool| {
        [&[0x82, if mask { 0xFF } else { 0x7F }][..], &len.to_be_bytes(), if mask { &MASK[..] } else { &[] }].concat()
    };
    let (mut client, mut backend) = stage.open();
    client.send(claim((16 << 20) + 1, true));
    backend.expect_close(&[1009]);
    backend.server_frame(FIN | CLOSE, close_payload(1009, ""));
    backend.finish();
    client.expect_close(&[1009]);
    for (settings, len) in [("", 16 << 20), ("[limits]\nclient_message_bytes_max = \"off\"\n", 1 << 40)] {
        let stage = Stage::with(settings);
        let (mut client, mut backend) = stage.open();
        client.send(claim(len, true));
        assert_eq!(backend.bytes(14), claim(len, true), "that is allowed");
        client.reset();
        let (mut client, mut backend) = stage.open();
        backend.send(claim(1 << 40, false));
        assert_eq!(client.bytes(10), claim(1 << 40, false), "of a backend's there is no limit");
        backend.reset();
    }
    let stage = Stage::with("[limits]\nmessage_bytes_max = 200\n");
    let (mut client, mut backend) = stage.open();
    client.send(claim(70_000, true));
    backend.expect_close(&[1009]);
    drop((client, backend));
}
