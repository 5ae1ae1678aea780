//! Endings at awkward moments: with the handshake, at the same time, with bytes still queued, with a side that is stuck.

use crate::handshake_backend::full_listener;
use crate::harness::{Ringway, Setup, Stage, until};
use crate::wire::*;

const QUEUED: usize = 10 << 20;

fn bulk(mask: Option<[u8; 4]>) -> Vec<u8> {
    frame(FIN | BINARY, mask, &[7; 60_000]).repeat(QUEUED / 60_000)
}

/// Accepts the request and answers it with these bytes behind the 101, then ends.
fn switch_and_end(stage: &Stage, client: &mut Wire, behind: &[u8]) -> Wire {
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    let head = backend.head();
    backend.send([answer(&head, &[]).as_bytes(), behind].concat());
    backend.finish();
    assert_eq!(client.head().status(), 101);
    backend
}

#[test]
fn backend_ends_with_its_101() {
    let stage = Stage::new();
    let mut client = stage.client();
    let _backend = switch_and_end(&stage, &mut client, b"");
    client.expect_close(&[1011]);
    client.expect_fin();

    let mut client = stage.client();
    let last = frame(FIN | TEXT, None, b"only word");
    let mut backend = switch_and_end(&stage, &mut client, &last);
    client.expect_frame(FIN | TEXT, "only word");
    client.expect_close(&[1011]);
    drop(client);
    backend.rest();

    let mut client = stage.client();
    let mut backend = switch_and_end(&stage, &mut client, &frame(FIN | CLOSE, None, &close_payload(4001, "no room")));
    client.expect_close(&[4001]);
    client.client_frame(FIN | CLOSE, close_payload(4001, ""));
    client.expect_fin();
    backend.expect_close(&[4001]);
    backend.expect_end();
    drop(client);
    stage.check();
}

#[test]
fn client_closes_before_the_101() {
    let stage = Stage::new();
    let mut client = stage.client();
    let early = [frame(FIN | TEXT, Some(MASK), b"only word"), frame(FIN | CLOSE, Some(MASK), &close_payload(1000, ""))]
        .concat();
    client.send([request(&[]).as_bytes(), &early].concat());
    let mut backend = stage.backend.upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    assert_eq!(backend.bytes(early.len()), early);
    backend.server_frame(FIN | CLOSE, close_payload(1000, ""));
    backend.finish();
    client.expect_close(&[1000]);
    client.expect_fin();
    drop(client);
    stage.check();
}

#[test]
fn what_the_log_tells_of_a_session() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    for first in [FIN | TEXT, BINARY, FIN | PING, FIN] {
        client.client_frame(first, "1234");
        backend.expect_frame(first, "1234");
    }
    backend.server_frame(FIN | TEXT, "12").server_frame(FIN | CLOSE, close_payload(4000, "enough"));
    client.expect_frame(FIN | TEXT, "12");
    client.expect_close(&[4000]);
    client.client_frame(FIN | CLOSE, close_payload(4001, ""));
    backend.expect_close(&[4001]);
    backend.finish();
    client.expect_fin();
    drop(client);
    let mut relay = stage.relay;
    let backend_address = format!("backend={}", stage.backend.address);
    let line = relay.process.line(&["session ended"]);
    // Four frames of 4 bytes and a Close of 2 with 6-byte headers; one of 2 and a Close of 8 with 2-byte headers.
    for field in [
        "DEBUG",
        "client=127.0.0.1",
        &backend_address,
        "ended_by=\"backend\"",
        "cause=\"close\"",
        "client_close=4001",
        "backend_close=4000",
        "messages_in=2",
        "messages_out=1",
        "bytes_in=48",
        "bytes_out=14",
        "duration_ms=",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}

#[test]
fn both_sides_close_at_once() {
    let stage = Stage::new();
    for _ in 0..50 {
        let (mut client, mut backend) = stage.open();
        client.client_frame(FIN | CLOSE, close_payload(4001, ""));
        backend.server_frame(FIN | CLOSE, close_payload(4002, ""));
        backend.expect_close(&[4001]);
        client.expect_close(&[4002]);
        backend.finish();
        client.expect_fin();
        client.finish();
        backend.expect_end();
    }
    stage.check();
}

/// What a side sent before it went away without a Close arrives in full, however slow the other side reads.
#[test]
fn queued_bytes_are_delivered_after_the_end_of_their_sender() {
    let stage = Stage::new();
    for to_client in [true, false] {
        let (client, backend) = stage.open();
        let (from, mut to, mask) = if to_client { (backend, client, None) } else { (client, backend, Some(MASK)) };
        let bytes = bulk(mask);
        let (mut writer, sent) = (from.split(), bytes.clone());
        let writing = std::thread::spawn(move || {
            writer.send(sent);
            writer.finish();
        });
        // Nothing is read until another session has run its course.
        stage.check();
        assert!(to.bytes(bytes.len()) == bytes);
        writing.join().unwrap();
        to.expect_close(&[if to_client { 1011 } else { 1001 }]);
        if to_client {
            to.expect_fin();
        }
    }
    stage.check();
}

/// The same when the sender does not FIN, but resets: what arrives is the beginning of what was sent, and then the end.
#[test]
fn a_reset_sender_leaves_a_prefix() {
    let stage = Stage::new();
    for to_client in [true, false] {
        let (client, backend) = stage.open();
        let (mut from, mut to, mask) = if to_client { (backend, client, None) } else { (client, backend, Some(MASK)) };
        let bytes = frame(FIN | BINARY, mask, &[7; 200_000]);
        from.send(&bytes);
        from.reset();
        let (got, _) = to.rest();
        let end = got.len().min(bytes.len());
        assert!(got[..end] == bytes[..end], "something else arrived");
        assert!(got.len() <= end || got[end] == FIN | CLOSE, "what follows a whole frame is a Close");
    }
    stage.check();
}

#[test]
fn close_of_a_side_that_does_not_read() {
    let stage = Stage::with("[timeouts]\nclose = \"2s\"\nlinger = \"1s\"\n");
    for by_client in [true, false] {
        let (client, backend) = stage.open();
        let (mut closing, other, mask) =
            if by_client { (client, backend, None) } else { (backend, client, Some(MASK)) };
        let mut writer = other.split();
        let writing = std::thread::spawn(move || writer.send_or_lose(bulk(mask)));
        closing.send(frame(FIN | CLOSE, mask.xor(Some(MASK)), &close_payload(1000, "")));
        // It is over within the close deadline, though neither side ever reads.
        until("the session has ended", || {
            stage.relay.process.log().iter().any(|l| l.contains("session ended") && l.contains("reason=close"))
        });
        drop((closing, other));
        writing.join().unwrap();
    }
    stage.check();
}

#[test]
fn response_body_that_never_ends() {
    let stage = Stage::with("[timeouts]\nanswer = \"2s\"\nlinger = \"1s\"\nsend_stall = \"1s\"\n");
    for head in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send(head.to_string() + "5");
        assert_eq!(client.head().status(), 403);
        client.rest();
        backend.expect_end();
        drop(client);
        stage.check();
    }
}

#[test]
fn large_response_body_to_a_slow_client() {
    let stage = Stage::new();
    let body = vec![b'x'; 1 << 20];
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut writer = backend.split();
    let bytes = [head.as_bytes(), &body].concat();
    let writing = std::thread::spawn(move || _ = writer.send(bytes));
    stage.check();
    assert_eq!(client.head().status(), 403);
    assert!(client.rest().0 == body);
    writing.join().unwrap();
}

fn relay_to_nowhere() -> (impl Drop, Ringway) {
    let (listener, held, address) = full_listener();
    let setup = Setup { backends: vec![address], listen: vec!["127.0.0.1:0".into()], ..Setup::default() };
    (Held(Some((listener, held))), Ringway::start(&setup))
}

/// Keeps a full listener full.
struct Held(Option<(socket2::Socket, Vec<std::net::TcpStream>)>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.take();
    }
}

#[test]
fn client_goes_away_during_the_connect() {
    let (_held, relay) = relay_to_nowhere();
    let before = relay.descriptors();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = relay.client();
            client.send(request(&[]));
            client
        })
        .collect();
    until("all connect", || relay.descriptors() == before + 40);
    // A reset ends it; a mere FIN may be a client that still wants its answer.
    clients.into_iter().for_each(Wire::reset);
    until("all is closed", || relay.descriptors() == before);
}

#[test]
fn signals_during_the_connect() {
    for signal in ["TERM", "INT"] {
        let (_held, relay) = relay_to_nowhere();
        let before = relay.descriptors();
        let mut client = relay.client();
        client.send(request(&[]));
        until("it connects", || relay.descriptors() == before + 2);
        relay.signal(signal);
        client.rest();
        relay.ended();
    }
}
