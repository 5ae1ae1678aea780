//! Rows H of the wire cases, second part: early bytes, limits, deadlines and clients that go away before the 101.

use crate::handshake_client::accepted;
use crate::harness::{Ringway, Setup, Stage, close, refusal, ringway, scratch};
use crate::wire::*;

#[test]
fn h47_frames_behind_the_head_wait_for_the_101() {
    let stage = Stage::new();
    let frames =
        [frame(TEXT, Some(MASK), b"he"), frame(FIN, Some(MASK), b"llo"), frame(FIN | PING, Some([0; 4]), b"?")]
            .concat();
    for early in [frames.len(), frames.len() - 3, 7, 1] {
        let mut client = stage.client();
        client.send([request(&[]).as_bytes(), &frames[..early]].concat());
        let mut backend = stage.backend.accept();
        let head = backend.head();
        backend.stream.set_nonblocking(true).unwrap();
        assert!(backend.stream.peek(&mut [0]).is_err(), "early bytes at the backend");
        backend.stream.set_nonblocking(false).unwrap();
        backend.send(answer(&head, &[]));
        assert_eq!(client.head().status(), 101);
        client.send(&frames[early..]);
        assert_eq!(backend.bytes(frames.len()), frames);
        close(&mut client, &mut backend);
    }
    // On any other answer they are dropped with the connection, and none reached the backend (CVE-2026-2833 was this).
    let mut client = stage.client();
    client.send([request(&[]).as_bytes(), &frames].concat());
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.head().status(), 403);
    client.expect_fin();
    backend.expect_end();
    stage.check();
}

#[test]
fn h48_request_pipelined_behind_the_head() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.send(request(&[]) + &request_with("GET", "GET /admin HTTP/1.1"));
    let mut backend = stage.backend.upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    // 'G' is 0x47: RSV1, no FIN, opcode 7.
    backend.expect_close(&[1002]);
    backend.finish();
    client.expect_close(&[1002]);
    client.expect_end();
    stage.check();
}

#[test]
fn h50_more_early_bytes_than_are_held() {
    let stage = Stage::new();
    stage.check();
    let before = stage.relay.peak_kib();
    let mut client = stage.client();
    let frames = frame(FIN | BINARY, Some(MASK), &[7; 60_000]).repeat(300);
    client.send(request(&[]));
    let mut writer = client.split();
    let early = frames.clone();
    let writing = std::thread::spawn(move || _ = writer.send(early));
    let mut backend = stage.backend.accept();
    let head = backend.head();
    // A second session runs its course meanwhile: the relay is neither stuck nor busy with the first.
    stage.check();
    backend.send(answer(&head, &[]));
    assert_eq!(client.head().status(), 101);
    assert!(backend.bytes(frames.len()) == frames, "early bytes changed");
    writing.join().unwrap();
    close(&mut client, &mut backend);
    let grown = stage.relay.peak_kib() - before;
    assert!(grown < 8 << 10, "18 MB of early bytes cost {grown} KiB");
}

#[test]
fn h51_heads_beyond_the_limits() {
    let stage = Stage::new();
    let many: Vec<_> = (0..101).map(|i| format!("X-{i}: 1")).collect();
    stage.refused(request(&[&format!("X: {}", "a".repeat(64 << 10))]), &[431]);
    stage.refused(request(&many.iter().map(String::as_str).collect::<Vec<_>>()), &[431]);
    stage.refused(request(&[&format!("{}: 1", "a".repeat(60 << 10))]), &[431]);
    stage.refused(request_with("GET", &format!("GET /{} HTTP/1.1", "a".repeat(8 << 10))), &[414]);
    stage.refused(format!("GET /{}", "a".repeat(1 << 20)), &[414, 431]);
    let fits: Vec<_> = (0..94).map(|i| format!("X-{i}: 1")).collect();
    accepted(&stage, &request(&fits.iter().map(String::as_str).collect::<Vec<_>>()));
    let half = "a".repeat(7 << 10);
    accepted(&stage, &request(&[&format!("X: {half}"), &format!("Y: {half}")]));
    accepted(&stage, &request_with("GET", &format!("GET /{} HTTP/1.1", "a".repeat((8 << 10) - 1))));
}

#[test]
fn h52_slow_heads_end_at_an_absolute_deadline() {
    let stage = Stage::with("[timeouts]\nhead = \"2s\"\n");
    let mut client = stage.client();
    let writing = client.split().trickle(request(&[&format!("X: {}", "a".repeat(2000))]).into());
    refusal(&mut client, &[408]);
    drop(client);
    stage.check();
    writing.join().unwrap();
}

#[test]
fn h53_silent_clients_do_not_keep_others_out() {
    let stage = Stage::with("[timeouts]\nhead = \"2s\"\n");
    let silent: Vec<_> = (0..300).map(|_| stage.client()).collect();
    stage.check();
    for mut client in silent {
        let (heard, end) = client.rest();
        assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 408 "), "{}", heard.escape_ascii());
        assert_eq!(end, End::Fin);
    }
    stage.check();
}

#[test]
fn h54_client_finishes_writing_behind_the_head() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.send(request(&[]));
    client.finish();
    if let Some(mut backend) = stage.forwarded(&client) {
        let head = backend.head();
        backend.send_or_lose(answer(&head, &[]));
        assert!([101, 400].contains(&client.head().status()));
        backend.rest();
    }
    client.rest();
    stage.check();
}

#[test]
fn h55_client_resets_before_the_101() {
    let stage = Stage::new();
    for _ in 0..20 {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        client.reset();
        backend.expect_end();
    }
    stage.check();
}

#[test]
fn h62_loops_of_relays() {
    // To itself: refused at start.
    let socket = |name| format!("unix:{}", scratch(name).display());
    let own = socket("own.sock");
    let (code, _, errors) = ringway(&["--listen", &own, "--backend", &own]);
    assert!(code == Some(1) && errors.contains("itself"), "{code:?} {errors}");

    // Through another relay: one request may cost no more sessions than the limit allows, and both go on serving.
    let (one, two) = (socket("one.sock"), socket("two.sock"));
    let relay = |listen: Vec<String>, backend: &str| {
        let settings = "[limits]\nsessions_max = 20\n[timeouts]\nanswer = \"3s\"\n".into();
        Ringway::start(&Setup { listen, backends: vec![backend.into()], settings, ..Setup::default() })
    };
    let first = relay(vec!["127.0.0.1:0".into(), one.clone()], &two);
    let _second = relay(vec![two], &one);
    for _ in 0..3 {
        let mut client = first.client();
        client.send(request(&[]));
        let status = client.head().status();
        assert!([502, 503, 504, 508].contains(&status), "{status}");
        client.rest();
    }
}

#[test]
fn h63_tls_record_on_the_plain_port() {
    let stage = Stage::new();
    let mut client = stage.client();
    let hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03".iter().copied().chain([0x5a; 41]).collect::<Vec<_>>();
    client.send(hello);
    let (heard, _) = client.rest();
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 400 "), "{}", heard.escape_ascii());
    stage.check();
}
