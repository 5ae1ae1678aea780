//! Rows B of the wire cases: what backends answer.

use std::net::TcpStream;
use std::time::Duration;

use crate::fleet::free_address;
use crate::harness::{Ringway, Setup, Stage, close, refusal, scratch};
use crate::wire::*;

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A 101 with these lines after the status line.
fn switching(lines: &[&str]) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\n{}\r\n\r\n", lines.join("\r\n"))
}

/// The right 101, with more lines.
fn right(extra: &[&str]) -> String {
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    switching(&[&["Upgrade: websocket", "Connection: Upgrade", &accept], extra].concat())
}

/// To this request the backend gives this answer; the client hears one of these statuses, and the tunnel never opens.
fn bad_answer(stage: &Stage, asked: &[&str], answer: impl AsRef<[u8]>, statuses: &[u16]) {
    let answer = answer.as_ref();
    eprintln!("case {}", answer[..answer.len().min(300)].escape_ascii());
    let mut client = stage.client();
    // An early frame, which must never arrive.
    client.send([request(asked).as_bytes(), &frame(FIN | TEXT, Some(MASK), b"early")].concat());
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send_or_lose(answer);
    refusal(&mut client, statuses);
    backend.expect_end();
    stage.check();
}

fn bad_answers(asked: &[&str], answers: &[String]) {
    let stage = Stage::new();
    for answer in answers {
        bad_answer(&stage, asked, answer, &[502]);
    }
}

#[test]
fn b01_good_101_in_pieces() {
    let stage = Stage::new();
    let extra = ["X-Backend: Kept", "Set-Cookie: a=1", "Set-Cookie: b=2"];
    let whole = right(&extra);
    for size in [1, 2, 3, 7, 16, 40, whole.len() - 1, whole.len()] {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send_in_pieces(&whole, size);
        let head = client.head();
        assert_eq!(head.text(), whole, "relayed as it came, in pieces of {size}");
        close(&mut client, &mut backend);
    }
}

#[test]
fn b02_frames_in_the_segment_of_the_101() {
    let stage = Stage::new();
    let frames =
        [frame(FIN | TEXT, None, b"one"), frame(FIN | PING, None, b"two"), frame(FIN | BINARY, None, &[3; 300])]
            .concat();
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send([right(&[]).as_bytes(), &frames].concat());
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(frames.len()), frames);
    close(&mut client, &mut backend);

    // They are validated as any other.
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send([right(&[]).as_bytes(), &frame(FIN | TEXT, Some(MASK), b"masked")].concat());
    assert_eq!(client.head().status(), 101);
    client.expect_close(&[1011]);
    backend.expect_close(&[1002]);
    drop((client, backend));
    stage.check();
}

#[test]
fn b03_half_a_frame_header_behind_the_101() {
    let stage = Stage::new();
    let bytes = frame(FIN | BINARY, None, &[9; 70_000]);
    for cut in [1, 2, 5, 9, 10, 11] {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send([right(&[]).as_bytes(), &bytes[..cut]].concat());
        assert_eq!(client.head().status(), 101);
        backend.send(&bytes[cut..]);
        assert!(client.bytes(bytes.len()) == bytes);
        close(&mut client, &mut backend);
    }
}

#[test]
fn b04_wrong_accept() {
    let with = |accept: &[&str]| switching(&[&["Upgrade: websocket", "Connection: Upgrade"], accept].concat());
    let line = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let answers = [
        with(&[]),
        with(&["Sec-WebSocket-Accept:"]),
        with(&["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
        with(&[&line, &line]),
        with(&[&line, "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
        with(&[&format!("Sec-WebSocket-Accept: {}", ACCEPT.to_ascii_uppercase())]),
        with(&[&format!("{line}=")]),
        with(&[line.trim_end_matches('=')]),
        with(&[&format!("Sec-WebSocket-Accept: \"{ACCEPT}\"")]),
        with(&[&format!("Sec-WebSocket-Accept: {KEY}")]),
    ];
    bad_answers(&[], &answers);
}

#[test]
fn b05_no_upgrade_in_the_101() {
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let with = |lines: &[&str]| switching(&[lines, &[&accept]].concat());
    let answers = [
        with(&["Connection: Upgrade"]),
        with(&["Upgrade: h2c", "Connection: Upgrade"]),
        with(&["Upgrade: foo", "Connection: Upgrade"]),
        with(&["Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade"]),
        with(&["Upgrade: websocket"]),
        with(&["Upgrade: websocket", "Connection: close"]),
        with(&["Upgrade: websocket", "Connection: upgraded"]),
    ];
    bad_answers(&[], &answers);
}

#[test]
fn b07_subprotocol_nobody_offered() {
    bad_answers(&[], &[right(&["Sec-WebSocket-Protocol: chat"])]);
    let answers = [
        right(&["Sec-WebSocket-Protocol: other"]),
        right(&["Sec-WebSocket-Protocol: CHAT"]),
        right(&["Sec-WebSocket-Protocol: chat, superchat"]),
        right(&["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: superchat"]),
        right(&["Sec-WebSocket-Protocol: cha"]),
        right(&["Sec-WebSocket-Protocol:"]),
    ];
    bad_answers(&["Sec-WebSocket-Protocol: chat, superchat"], &answers);
}

#[test]
fn b07_subprotocol_that_was_offered() {
    let stage = Stage::new();
    for (asked, answered) in [("chat, superchat", "superchat"), ("chat", "chat"), ("chat", "")] {
        let answered = if answered.is_empty() { vec![] } else { vec![format!("Sec-WebSocket-Protocol: {answered}")] };
        let asked = format!("Sec-WebSocket-Protocol: {asked}");
        let (mut client, mut backend) =
            stage.open_with(&[&asked], &answered.iter().map(String::as_str).collect::<Vec<_>>());
        close(&mut client, &mut backend);
    }
}

#[test]
fn b08_extensions_nobody_offered() {
    bad_answers(
        &[],
        &[right(&["Sec-WebSocket-Extensions: permessage-deflate"]), right(&["Sec-WebSocket-Extensions: x-foo"])],
    );
    let bad = [
        "x-foo",
        "permessage-deflate, x-foo",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; unknown",
        "permessage-deflate; =",
        ";",
    ];
    let answers: Vec<_> = bad.iter().map(|e| right(&[&format!("Sec-WebSocket-Extensions: {e}")])).collect();
    bad_answers(&["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-foo"], &answers);
    // RFC 7692, 7.1.2.2: client_max_window_bits only if the client offered it.
    bad_answers(
        &["Sec-WebSocket-Extensions: permessage-deflate"],
        &[right(&["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10"])],
    );
}

#[test]
fn b08_extensions_that_were_offered() {
    let stage = Stage::new();
    let good = [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; client_max_window_bits=15; server_max_window_bits=8",
        "permessage-deflate;server_max_window_bits=\"10\"",
    ];
    for answered in good {
        let asked = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
        let (mut client, mut backend) = stage.open_with(&[asked], &[&format!("Sec-WebSocket-Extensions: {answered}")]);
        close(&mut client, &mut backend);
    }
}

#[test]
fn b09_body_announced_with_the_101() {
    bad_answers(&[], &[right(&["Content-Length: 5"]), right(&["Transfer-Encoding: chunked"])]);
}

#[test]
fn b11_informational_responses_before_the_101() {
    let stage = Stage::new();
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let informational = [
        "HTTP/1.1 100 Continue\r\n\r\n".to_string(),
        hint.into(),
        hint.repeat(10),
        "HTTP/1.1 102 Processing\r\n\r\n".into(),
    ];
    for (i, before) in informational.iter().enumerate() {
        for together in [true, false] {
            let mut client = stage.client();
            client.send(request(&[]));
            let mut backend = stage.backend.accept();
            backend.head();
            match together {
                true => _ = backend.send(before.clone() + &right(&[])),
                false => {
                    backend.send_in_pieces(before, hint.len());
                    backend.send(right(&[]));
                }
            }
            assert_eq!(client.head().status(), 101, "case {i}, together: {together}");
            close(&mut client, &mut backend);
        }
    }
    bad_answer(&stage, &[], hint.repeat(11) + &right(&[]), &[502]);
    bad_answer(&stage, &[], hint.repeat(100_000), &[502]);
}

/// The head and the body as the client received them, up to the end of the connection.
fn relayed(stage: &Stage, answer: impl AsRef<[u8]>, then_end: bool) -> (Head, Vec<u8>) {
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send_or_lose(answer);
    if then_end {
        backend.finish();
    }
    let head = client.head();
    let (body, end) = client.rest();
    assert_eq!(end, End::Fin);
    assert_eq!(head.get("Connection").as_deref(), Some("close"), "{}", head.text());
    assert!(backend.rest().0.is_empty());
    drop(client);
    stage.check();
    (head, body)
}

#[test]
fn b12_200_with_the_fields_of_a_101() {
    let stage = Stage::new();
    let answer = right(&["Content-Length: 2"]).replace("101 Switching Protocols", "200 OK") + "ok";
    let (head, body) = relayed(&stage, answer, false);
    assert_eq!((head.status(), &*body), (200, &b"ok"[..]));
}

#[test]
fn b13_other_statuses_are_relayed_with_their_body() {
    let stage = Stage::new();
    for status in [
        "200 OK",
        "301 Moved Permanently",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "500 Oops",
        "503 Service Unavailable",
    ] {
        let fields = "Location: /x\r\nX-Backend: Kept\r\nContent-Type: text/html";
        let text = "no chat here".repeat(1000);
        let answer = format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let (head, body) = relayed(&stage, answer, false);
        assert_eq!(head.start(), format!("HTTP/1.1 {status}"));
        assert!(head.text().contains(fields) && body == text.as_bytes(), "{}", head.text());
    }
}

#[test]
fn b13_bodies_of_every_framing() {
    let stage = Stage::new();
    let chunked = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let (head, body) = relayed(&stage, chunked, false);
    match head.get("Transfer-Encoding") {
        Some(_) => assert_eq!(body, &chunked.as_bytes()[find(chunked.as_bytes(), b"5\r\n").unwrap()..]),
        None => assert_eq!(body, b"hello world"),
    }
    let (_, body) = relayed(&stage, "HTTP/1.1 403 Forbidden\r\n\r\nuntil the end", true);
    assert_eq!(body, b"until the end");
    let (head, body) = relayed(&stage, "HTTP/1.1 204 No Content\r\n\r\n", false);
    assert_eq!((head.status(), body.len()), (204, 0));
    let (head, body) = relayed(&stage, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false);
    assert_eq!((head.status(), body.len()), (304, 0));
    // What comes behind the body is not part of the answer.
    let (_, body) =
        relayed(&stage, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false);
    assert_eq!(body, b"ok");
}

#[test]
fn b15_repeated_fields_stay_apart() {
    let stage = Stage::new();
    let fields =
        "Set-Cookie: a=1; Path=/\r\nWWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: b=2\r\nWWW-Authenticate: Bearer";
    let (head, _) =
        relayed(&stage, format!("HTTP/1.1 401 Unauthorized\r\n{fields}\r\nContent-Length: 0\r\n\r\n"), false);
    assert_eq!(head.all("Set-Cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(head.all("WWW-Authenticate"), ["Basic realm=\"x\"", "Bearer"]);
}

#[test]
fn b16_body_beyond_the_limit() {
    let stage = Stage::with("[limits]\nresponse_body_bytes_max = \"64KiB\"\n");
    let body = "x".repeat(10 << 20);
    for head in [
        "HTTP/1.1 403 Forbidden\r\n\r\n".to_string(),
        format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len()),
    ] {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        let mut writer = backend.split();
        let bytes = head + &body;
        let writing = std::thread::spawn(move || writer.send_or_lose(bytes));
        let head = client.head();
        assert!([403, 502].contains(&head.status()));
        assert!(client.rest().0.len() <= 64 << 10);
        backend.expect_end();
        writing.join().unwrap();
        stage.check();
    }
}

#[test]
fn b17_426_with_versions_of_its_own() {
    let stage = Stage::new();
    let (head, _) = relayed(
        &stage,
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8, 7\r\nContent-Length: 0\r\n\r\n",
        false,
    );
    assert_eq!((head.status(), head.get("Sec-WebSocket-Version").as_deref()), (426, Some("8, 7")));
}

#[test]
fn b18_only_checked_requests_can_be_answered_with_a_101() {
    let stage = Stage::new();
    stage.refused("GET /reflect?101 HTTP/1.1\r\nHost: chat.example\r\n\r\n", &[400, 426]);
    stage.refused(request_with("GET", "POST /reflect HTTP/1.1"), &[405]);
    // And a 101 that was made for another key is not ours.
    let other = right(&[]).replace(ACCEPT, &accept_for("AAAAAAAAAAAAAAAAAAAAAA=="));
    bad_answer(&stage, &[], other, &[502]);
}

#[test]
fn b19_head_beyond_the_limits() {
    let many: String = (0..1000).map(|i| format!("X-{i}: 1\r\n")).collect();
    bad_answers(&[], &[right(&[&format!("X: {}", "a".repeat(256 << 10))]), right(&[many.trim_end()])]);
}

#[test]
fn b20_garbage() {
    let mut answers = vec![
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_string(),
        "\x15\x03\x01\x00\x02\x02\x46\r\n\r\n".into(),
        "\r\n\r\n".into(),
        "HTTP/1.1 1011 x\r\n\r\n".into(),
        "HTTP/1.1 10 x\r\n\r\n".into(),
        "HTTP/1.1 000 x\r\n\r\n".into(),
        "HTTP/1.1 999 x\r\n\r\n".into(),
        "HTTP/1.1 abc x\r\n\r\n".into(),
        "HTTP/2 200 OK\r\n\r\n".into(),
        "ICY 200 OK\r\n\r\n".into(),
        right(&["X: a\rb"]),
        right(&["X: a\0b"]),
        right(&["X : a"]),
        right(&["X: a\r\n b"]),
        right(&["X: a\nY: b"]),
    ];
    answers.push(right(&[]).replace("HTTP/1.1", "HTTP/1.0"));
    answers.push(right(&[]).replace("\r\n", "\n"));
    bad_answers(&[], &answers);
}

#[test]
fn b21_backend_ends_before_it_has_answered() {
    let stage = Stage::new();
    for sent in ["", "HTTP/1.1 10", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs"] {
        for reset in [false, true] {
            eprintln!("case {sent:?}, reset: {reset}");
            let mut client = stage.client();
            client.send(request(&[]));
            let mut backend = stage.backend.accept();
            backend.head();
            backend.send(sent);
            match reset {
                true => backend.reset(),
                false => drop(backend),
            }
            refusal(&mut client, &[502]);
            drop(client);
            stage.check();
        }
    }
}

fn relay_to(backends: &[String], settings: &str) -> Ringway {
    let listen = vec!["127.0.0.1:0".into()];
    Ringway::start(&Setup { backends: backends.to_vec(), listen, settings: settings.into(), ..Setup::default() })
}

#[test]
fn b21_backend_cannot_be_reached() {
    let refused = free_address().to_string();
    // A broadcast address: the kernel refuses at once, and nothing leaves the machine.
    let unreachable = "255.255.255.255:9".to_string();
    let absent = format!("unix:{}", scratch("absent.sock").display());
    for backends in
        [vec![refused.clone()], vec![unreachable.clone()], vec![absent.clone()], vec![refused, unreachable, absent]]
    {
        eprintln!("case {backends:?}");
        let relay = relay_to(&backends, "");
        for _ in 0..3 {
            let mut client = relay.client();
            client.send(request(&[]));
            refusal(&mut client, &[503]);
        }
    }
}

/// A listener whose queue is full: the kernel drops further SYNs, so a connect to it hangs.
pub fn full_listener() -> (socket2::Socket, Vec<TcpStream>, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    (socket, held, address.to_string())
}

#[test]
fn b21_connect_times_out() {
    let (_listener, _held, address) = full_listener();
    let relay = relay_to(&[address], "[timeouts]\nconnect = \"1s\"\n");
    let mut client = relay.client();
    client.send(request(&[]));
    refusal(&mut client, &[504]);
}

#[test]
fn b21_the_next_backend_is_tried_while_nothing_was_sent() {
    let (_listener, _held, hangs) = full_listener();
    let refused = free_address().to_string();
    let backend = Backend::new();
    let good = backend.address.to_string();
    let relay = relay_to(&[refused, hangs, good.clone()], "[timeouts]\nconnect = \"1s\"\n");
    for _ in 0..6 {
        let mut client = relay.client();
        client.send(request(&[]));
        let mut backend = backend.upgrade(&[]);
        assert_eq!(client.head().status(), 101);
        close(&mut client, &mut backend);
    }
    // Once the request went out, there is no second try: it may have had an effect.
    let other = Backend::new();
    let relay = relay_to(&[good, other.address.to_string()], "");
    let mut client = relay.client();
    client.send(request(&[]));
    let mut seen = None;
    crate::harness::until("one of the two is contacted", || {
        seen = backend.accept_now().or_else(|| other.accept_now());
        seen.is_some()
    });
    seen.take().unwrap().head();
    refusal(&mut client, &[502]);
    assert!(backend.accept_now().is_none() && other.accept_now().is_none(), "tried twice");
}

#[test]
fn b22_silent_backend() {
    let stage = Stage::with("[timeouts]\nanswer = \"2s\"\n");
    for sent in ["", "HTTP/1.1 101 Switching", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send(sent);
        refusal(&mut client, &[504]);
        backend.expect_end();
        drop(client);
        stage.check();
    }
    // The deadline is absolute: a byte now and then does not move it.
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    let writing = backend.split().trickle(right(&[&format!("X: {}", "a".repeat(1000))]).into());
    refusal(&mut client, &[504]);
    writing.join().unwrap();
    drop((client, backend));
    stage.check();
}

#[test]
fn b24_101_before_the_request_was_written() {
    let backend = Backend::with_small_window();
    let relay = relay_to(&[backend.address.to_string()], "[tcp]\nsend_buffer_bytes = \"4KiB\"\n");
    let mut client = relay.client();
    let line = |name: &str| format!("{name}: {}", "a".repeat(7_500));
    client.send(request(&[&line("X"), &line("Y")]));
    let mut wire = backend.accept();
    wire.send(right(&[]));
    refusal(&mut client, &[502]);
    wire.rest();
}

#[test]
fn b26_a_backend_connection_serves_one_client() {
    let stage = Stage::new();
    for _ in 0..3 {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send("HTTP/1.1 403 Forbidden\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nno");
        assert_eq!(client.head().status(), 403);
        client.rest();
        backend.expect_end();
        stage.check();
    }
}
