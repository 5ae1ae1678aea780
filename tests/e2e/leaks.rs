//! After thousands of sessions of every kind of ending: all buffers home, all descriptors closed, memory flat. That the
//! counters balance is checked at the end of every test (`Ringway::ended`).

use std::time::{Duration, Instant};

use crate::harness::{Ringway, Setup, Stage, close, until};
use crate::wire::*;

/// One session, ended in the way that `kind` says.
fn session(stage: &Stage, kind: usize) {
    let bulk = frame(FIN | BINARY, Some(MASK), &[1; 30_000]);
    match kind % 14 {
        0 => {
            let (mut client, mut backend) = stage.open();
            close(&mut client, &mut backend);
        }
        1 => {
            let (mut client, mut backend) = stage.open();
            backend.server_frame(FIN | CLOSE, close_payload(1000, ""));
            client.expect_close(&[1000]);
            client.client_frame(FIN | CLOSE, close_payload(1000, ""));
        }
        2 => stage.open().0.reset(),
        3 => stage.open().1.reset(),
        4 => drop(stage.open()),
        5 => {
            // Dies with unread bytes on both sides.
            let (mut client, mut backend) = stage.open();
            client.send(bulk.repeat(4));
            backend.server_frame(FIN | BINARY, vec![1; 100_000]);
        }
        6 => {
            let (mut client, mut backend) = stage.open();
            client.send(&bulk[..1000]);
            backend.bytes(1000);
            backend.reset();
        }
        7 => {
            // Faults on either side.
            let (mut client, mut backend) = stage.open();
            client.send(b"\xff\x80\0\0\0\0");
            backend.expect_close(&[1001, 1002]);
        }
        8 => {
            let (mut client, mut backend) = stage.open();
            backend.send(b"\xff\x00");
            client.expect_close(&[1011]);
        }
        9 => _ = stage.client().send("POST / HTTP/1.1\r\n\r\n").head(),
        10 => _ = stage.client().send("GET / HT"),
        11 => {
            let mut client = stage.client();
            client.send(request(&[]));
            let mut backend = stage.backend.accept();
            backend.head();
            backend.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            assert_eq!(client.head().status(), 403);
        }
        12 => {
            // Goes away while the backend is thinking.
            let mut client = stage.client();
            client.send([request(&[]).as_bytes(), &bulk].concat());
            stage.backend.accept().head();
            client.reset();
        }
        _ => {
            let mut client = stage.client();
            client.send(request(&[]));
            drop(stage.backend.accept());
            assert_eq!(client.head().status(), 502);
        }
    }
}

fn round(stage: &Stage, sessions: usize) {
    for i in 0..sessions {
        session(stage, i);
    }
    stage.check();
}

/// Rounds of sessions, until `enough`: after each, descriptors are what they were, and memory does not grow.
fn rounds(workers: usize, sessions: usize, mut enough: impl FnMut(usize) -> bool) {
    let backend = Backend::new();
    let setup = Setup {
        listen: vec!["127.0.0.1:0".into()],
        backends: vec![backend.address.to_string()],
        workers,
        ..Setup::default()
    };
    let stage = Stage { relay: Ringway::start(&setup), backend };
    let before = stage.relay.descriptors();
    // Everything that is sized by use is touched by the first rounds.
    round(&stage, sessions);
    round(&stage, sessions);
    let (settled, control) = (stage.relay.resident_kib(), stage.relay.control_descriptors());
    let mut done = 0;
    while !enough(done) {
        round(&stage, sessions);
        done += 1;
        until("all descriptors are closed", || stage.relay.descriptors() <= before);
    }
    assert_eq!(stage.relay.control_descriptors(), control);
    let grown = stage.relay.resident_kib().saturating_sub(settled);
    assert!(grown < 512, "{grown} KiB more after {done} rounds of {sessions} sessions");
}

#[test]
fn thousands_of_sessions_leave_nothing_behind() {
    rounds(1, 700, |done| done == 4);
}

#[test]
fn nor_with_several_workers() {
    rounds(3, 700, |done| done == 2);
}

/// L37. `RINGWAY_SOAK_SECONDS=3600 cargo test --release --test e2e -- l37 --nocapture`
#[test]
fn l37_soak() {
    let seconds = std::env::var("RINGWAY_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let start = Instant::now();
    rounds(2, 1400, |done| done > 0 && start.elapsed() > Duration::from_secs(seconds));
}

/// At rest an open session costs next to nothing, before and after it has carried a message.
#[test]
fn idle_sessions_hold_no_buffers() {
    let stage = Stage::new();
    round(&stage, 140);
    let count = 1500;
    // The kernel may give memory in huge pages.
    const HUGE_KIB: usize = 2048;
    let before = stage.relay.resident_kib();
    let mut sessions: Vec<_> = (0..count).map(|_| stage.open()).collect();
    for (client, backend) in &mut sessions {
        client.client_frame(FIN | BINARY, [1; 1024]);
        backend.expect_frame(FIN | BINARY, [1; 1024]);
        backend.server_frame(FIN | BINARY, [2; 1024]);
        client.expect_frame(FIN | BINARY, [2; 1024]);
    }
    // 0.5 KiB each is the goal of the release build, which the benchmarks measure; here only that no buffer is held.
    let grown = stage.relay.resident_kib().saturating_sub(before);
    assert!(grown < count * 2 + HUGE_KIB, "{grown} KiB for {count} idle sessions");
}
