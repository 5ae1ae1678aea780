//! Signals, rows L22 and L23, and F30: where Ringway puts a Close of its own.

use std::net::TcpStream;

use crate::harness::{Ringway, Stage, answer_drain, close, until};
use crate::wire::*;

#[test]
fn l22_term_and_quit_drain() {
    for signal in ["TERM", "QUIT"] {
        let Stage { relay, backend } = Stage::new();
        let address = relay.address;
        let stage = Stage { relay, backend };
        let mut sessions: Vec<_> = (0..20).map(|_| stage.open()).collect();
        stage.relay.signal(signal);
        // While the last session is held open, the listener is closed already.
        for (client, backend) in sessions.iter_mut().skip(1) {
            answer_drain(client, backend);
        }
        until("connects are refused", || TcpStream::connect_timeout(&address, DEADLINE).is_err());
        let (client, backend) = &mut sessions[0];
        answer_drain(client, backend);
        stage.relay.ended();
    }
}

#[test]
fn l22_sessions_in_their_own_closing_handshake_finish_it() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    client.client_frame(FIN | CLOSE, close_payload(4000, "mine"));
    backend.expect_close(&[4000]);
    stage.relay.signal("TERM");
    backend.server_frame(FIN | CLOSE, close_payload(4000, "mine"));
    backend.finish();
    client.expect_close(&[4000]);
    client.finish();
    client.expect_end();
    backend.expect_end();
    stage.relay.ended();
}

#[test]
fn l22_the_deadline_holds_when_nobody_answers() {
    let stage = Stage::with("[timeouts]\ndrain = \"1s\"\n");
    let mut sessions: Vec<_> = (0..20).map(|_| stage.open()).collect();
    stage.relay.signal("TERM");
    stage.relay.ended();
    for (client, backend) in &mut sessions {
        client.expect_close(&[1001]);
        backend.expect_close(&[1001]);
        client.expect_end();
        backend.expect_end();
    }
}

#[test]
fn l22_spread_drain_closes_everyone() {
    let stage = Stage::with("[timeouts]\ndrain_spread = \"500ms\"\n");
    let mut sessions: Vec<_> = (0..50).map(|_| stage.open()).collect();
    stage.relay.signal("TERM");
    for (client, backend) in &mut sessions {
        answer_drain(client, backend);
    }
    stage.relay.ended();
}

#[test]
fn l22_int_and_a_second_term_end_at_once() {
    for signals in [&["INT"][..], &["TERM", "TERM"], &["TERM", "INT"], &["QUIT", "TERM"]] {
        let stage = Stage::with("[timeouts]\ndrain = \"10m\"\nclose = \"10m\"\n");
        let mut sessions: Vec<_> = (0..20).map(|_| stage.open()).collect();
        for (i, signal) in signals.iter().enumerate() {
            if i > 0 {
                // The first one has arrived, so that the two are not merged.
                sessions[0].0.expect_close(&[1001]);
            }
            stage.relay.signal(signal);
        }
        stage.relay.ended();
        for (client, backend) in &mut sessions {
            for wire in [client, backend] {
                let (frames, _) = wire.frames_to_end();
                assert!(frames.iter().all(|f| f.first == FIN | CLOSE && f.code() == 1001), "{frames:?}");
            }
        }
    }
}

#[test]
fn l23_term_during_handshakes_slow_consumers_and_closes() {
    let stage = Stage::with("[timeouts]\ndrain = \"2s\"\n");
    let silent = stage.client();
    let mut half = stage.client();
    half.send("GET /chat HTTP/1.1\r\nHost: ch");
    let mut waiting = stage.client();
    waiting.send(request(&[]));
    let mut waiting_backend = stage.backend.accept();
    waiting_backend.head();
    let (slow, slow_backend) = stage.open();
    let mut writer = slow_backend.split();
    let flood = frame(FIN | BINARY, None, &[1; 60_000]).repeat(300);
    let writing = std::thread::spawn(move || writer.send_or_lose(flood));
    let (mut closing, mut closing_backend) = stage.open();
    closing.client_frame(FIN | CLOSE, close_payload(1000, ""));
    closing_backend.expect_close(&[1000]);
    stage.relay.signal("TERM");
    stage.relay.ended();
    writing.join().unwrap();
    for mut wire in [silent, half, waiting, waiting_backend, slow, slow_backend, closing, closing_backend] {
        wire.rest();
    }
}

/// A client that is answered until the relay closes; its frames are whole to the last.
fn chat(mut client: Wire) {
    let mut sent = 0u32;
    loop {
        client.send_or_lose(frame(FIN | BINARY, Some(MASK), &sent.to_be_bytes().repeat(100)));
        let got = client.frame();
        if got.first == FIN | CLOSE {
            assert_eq!(got.code(), 1001);
            client.send_or_lose(frame(FIN | CLOSE, Some(MASK), &got.payload));
            client.rest();
            return;
        }
        assert_eq!(got.payload, sent.to_be_bytes().repeat(100));
        sent += 1;
    }
}

fn echo(mut backend: Wire) {
    loop {
        let got = backend.frame();
        backend.send_or_lose(frame(got.first, None, &got.payload));
        if got.first == FIN | CLOSE {
            backend.finish();
            backend.rest();
            return;
        }
    }
}

#[test]
fn l23_term_under_load() {
    let stage = Stage::new();
    let sessions: Vec<_> = (0..40).map(|_| stage.open()).collect();
    let threads: Vec<_> = sessions
        .into_iter()
        .flat_map(|(client, backend)| [std::thread::spawn(|| chat(client)), std::thread::spawn(|| echo(backend))])
        .collect();
    // A few thousand messages are on their way when it comes.
    for _ in 0..20 {
        let (mut client, mut backend) = stage.open();
        close(&mut client, &mut backend);
    }
    stage.relay.signal("TERM");
    stage.relay.ended();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

/// The drain's Close must wait for the end of a frame, though not of a message.
#[test]
fn f30_own_close_only_between_frames() {
    let stage = Stage::new();
    let up = frame(FIN | BINARY, Some(MASK), &[1; 1000]);
    let down = frame(FIN | BINARY, None, &[2; 1000]);

    // In the middle of a frame upwards, in the middle of a message downwards.
    let (mut client, mut backend) = stage.open();
    client.send(&up[..500]);
    assert_eq!(backend.bytes(500), &up[..500]);
    backend.server_frame(TEXT, "begin");
    client.expect_frame(TEXT, "begin");
    // The other way round.
    let (mut client2, mut backend2) = stage.open();
    backend2.send(&down[..500]);
    assert_eq!(client2.bytes(500), &down[..500]);
    client2.client_frame(BINARY, "begin");
    backend2.expect_frame(BINARY, "begin");

    stage.relay.signal("TERM");
    client.expect_close(&[1001]);
    client.send(&up[500..]);
    assert!(backend.bytes(up.len() - 500) == up[500..]);
    backend.expect_close(&[1001]);
    backend2.expect_close(&[1001]);
    backend2.send(&down[500..]);
    assert!(client2.bytes(down.len() - 500) == down[500..]);
    client2.expect_close(&[1001]);
    for (client, backend) in [(&mut client, &mut backend), (&mut client2, &mut backend2)] {
        client.client_frame(FIN | CLOSE, close_payload(1001, ""));
        backend.server_frame(FIN | CLOSE, close_payload(1001, ""));
        backend.finish();
        client.expect_end();
        client.finish();
        backend.expect_end();
    }
    stage.relay.ended();
}

#[test]
fn signals_before_any_session() {
    for signal in ["TERM", "QUIT", "INT"] {
        let Stage { relay, .. } = Stage::new();
        relay.signal(signal);
        relay.ended();
    }
}

#[test]
fn hangup_does_not_end_it() {
    let stage = Stage::new();
    stage.relay.signal("HUP");
    stage.check();
    let relay: &Ringway = &stage.relay;
    relay.signal("PIPE");
    stage.check();
}
