//! Slow peers, floods, and too little of something.

use ringway::config::Plan;
use ringway::op::ReceiveEnd;

use super::*;
use crate::stage::{Accepting, config};

#[test]
fn l05_a_slow_reader_stops_its_writer() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(0));
    let message = s(0x82, &[7; 2000]);
    while stage.receives(backend) {
        stage.give(backend, &message);
        assert!(stage.relay.leases() < 100, "no end of it");
    }
    assert!(stage.receives(client), "the other direction goes on");
    stage.stick(client, None);
    stage.flush();
    assert!(stage.receives(backend));
    assert_eq!(stage.relay.leases(), 0);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_send_that_gets_somewhere_is_no_stall() {
    let mut config = config(1);
    config.limits.receiver_bytes_per_second_min = None;
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(5));
    let message = s(0x82, &[7; 98]);
    stage.give(backend, &message);
    // Every 30 s it is cancelled to see how far it has got.
    for _ in 0..5 {
        stage.pass(ms(30_001));
        assert!(stage.is_open(client));
    }
    assert_eq!(stage.out(client), message[..25]);
    stage.stick(client, None);
    stage.flush();
    assert_eq!(stage.out(client), message[25..]);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

/// A few bytes now and then are no living: they hold buffers that others need. Both ways, and for pages too.
#[test]
fn field_a06_field_a13_l07_a_receiver_takes_a_least_rate() {
    for (taken, lives) in [(5, false), (959, false), (961, true), (4000, true)] {
        for to_backend in [false, true] {
            let mut stage = Stage::new(config(1), 4);
            let (client, backend) = stage.open();
            let (slow, other, masked) = if to_backend { (backend, client, true) } else { (client, backend, false) };
            stage.stick(slow, Some(taken));
            let message = if masked { c(0x82, &[7; 20_000]) } else { s(0x82, &[7; 20_000]) };
            stage.give(other, &message);
            stage.pass(ms(30_001));
            assert_eq!(!stage.out(other).is_empty(), !lives, "{taken} bytes in 30 s");
            assert_eq!(stage.is_open(slow) && stage.receives(slow), lives, "{taken} bytes in 30 s");
            stage.stick(slow, None);
            stage.flush();
            for conn in [client, backend] {
                if stage.is_open(conn) && stage.receives(conn) {
                    stage.reset(conn);
                }
            }
            stage.pass(ms(60_000));
            assert_over(&stage, [client, backend]);
        }
    }
}

/// A body that comes a byte at a time is ended; one that the backend does not take is not.
#[test]
fn field_a13_a_body_comes_at_a_least_rate_and_all_of_it_in_time() {
    let plain = || {
        let mut config = config(1);
        let mut route = ringway::config::Route::catch_all("pages", 0, &config);
        route.plain_http = ringway::config::PlainHttp::Forward;
        config.routes.push(route);
        config
    };
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    for (bytes, every, status) in [(1, 60_000, 408), (900, 30_000, 408), (1000, 30_000, 0), (100, 1000, 0)] {
        let mut stage = Stage::new(plain(), 4);
        let (client, backend) = stage.ask(post);
        stage.connected(backend, Ok(()));
        for _ in 0..40 {
            stage.pass(ms(every));
            if stage.is_open(client) && stage.receives(client) {
                stage.give(client, &vec![b'x'; bytes]);
            }
        }
        let heard = String::from_utf8(stage.out(client)).unwrap();
        if stage.is_open(client) && stage.receives(client) {
            stage.reset(client);
        }
        assert_ends(&mut stage, [client, backend]);
        match status {
            0 => assert_eq!(heard, "", "{bytes} every {every} ms"),
            _ => assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("per_second_min"), "{heard}"),
        }
    }
    // The backend takes nothing: that is not the client's slowness.
    let mut stage = Stage::new(plain(), 4);
    let (client, backend) = stage.ask(post);
    stage.connected(backend, Ok(()));
    stage.stick(backend, Some(0));
    stage.give(client, b"x");
    stage.pass(ms(20_000));
    stage.give(client, b"x");
    stage.pass(ms(20_000));
    assert!(!String::from_utf8(stage.out(client)).unwrap().contains("408"));
    stage.stick(backend, None);
    stage.flush();
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
    // A stream that never ends ends after a day.
    let mut stage = Stage::new(plain(), 4);
    let (client, backend) = stage.ask(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.connected(backend, Ok(()));
    stage.give(backend, b"HTTP/1.1 200 OK\r\n\r\n");
    for hour in 0..23 {
        for _ in 0..60 {
            stage.pass(ms(60_000));
            stage.give(backend, b": still here\n\n");
        }
        assert!(stage.is_open(client), "in hour {hour}");
    }
    for _ in 0..61 {
        stage.pass(ms(60_000));
        if stage.is_open(backend) && stage.receives(backend) {
            stage.give(backend, b": still here\n\n");
        }
    }
    assert!(!stage.is_open(client) && !stage.is_open(backend));
}

/// Slots of their own for those who are refused: each is told at once, and the oldest of them makes room for the next.
#[test]
fn field_a11_whoever_comes_beyond_the_limit_is_told_at_accept() {
    let plan = Plan { sessions_max: 4, refusals_max: 8, small_count: 256, bulk_count: 1 };
    let mut stage = Stage::with_plan(config(1), plan);
    let open: Vec<_> = (0..4).map(|_| stage.open()).collect();
    let mut refused = Vec::new();
    for _ in 0..100 {
        let client = stage.accept();
        stage.flush();
        let out = String::from_utf8(stage.out(client)).unwrap();
        assert!(out.starts_with("HTTP/1.1 503 ") && out.contains("\r\nRetry-After: "), "{out}");
        assert_eq!(stage.accepting(), Accepting::Armed, "the next one is told too");
        refused.push(client);
    }
    let left: Vec<_> = refused.iter().filter(|client| stage.is_open(**client)).collect();
    assert!((1..=8).contains(&left.len()) && left.contains(&&refused[99]), "{} are still read to", left.len());
    stage.pass(ms(60_000));
    for (client, backend) in &open {
        assert!(stage.is_open(*client) && stage.is_open(*backend), "those who are served are left alone");
    }
}

/// Strangers who connect and say nothing use up no slots that others need: the one that is silent for longest goes.
#[test]
fn field_a11_silent_clients_make_room_for_others() {
    let plan = Plan { sessions_max: 4, refusals_max: 8, small_count: 256, bulk_count: 1 };
    let mut stage = Stage::with_plan(config(1), plan);
    let (kept, kept_backend) = stage.open();
    let silent: Vec<_> = (0..3).map(|_| stage.accept()).collect();
    stage.flush();
    // Not silent any more, if only just.
    stage.give(silent[0], b"G");
    let (client, backend) = stage.open();
    assert!(!stage.is_open(silent[1]) && stage.is_open(silent[0]) && stage.is_open(silent[2]));
    let next = stage.accept();
    stage.flush();
    assert!(!stage.is_open(silent[2]) && stage.out(next).is_empty());
    // With nobody silent left, who comes next hears why.
    stage.give(next, b"GET");
    let late = stage.accept();
    stage.flush();
    assert!(stage.out(late).starts_with(b"HTTP/1.1 503 "));
    for conn in [kept, kept_backend, client, backend] {
        assert!(stage.is_open(conn));
    }
}

/// What a client sends before its answer is bounded by the limit and one small buffer, also in bursts.
#[test]
fn field_a05_early_bytes_are_bounded() {
    for burst in [1000, 4096, 20_000, 200_000] {
        let mut stage = Stage::new(config(1), 4);
        let (client, backend) = stage.request();
        stage.connected(backend, Ok(()));
        let mut taken = 0;
        for _ in 0..40 {
            let mut left = burst;
            while left > 0 && stage.receives(client) {
                let now = left.min(4096);
                stage.give(client, &vec![0x55; now]);
                taken += now;
                left -= now;
            }
        }
        assert!(taken <= (16 << 10) + 4096, "{taken} bytes");
        assert_eq!(stage.relay.leases(), 0, "copied, not kept in buffers");
        stage.eof(backend);
        assert!(stage.out(client).starts_with(b"HTTP/1.1 502 "));
        assert_ends(&mut stage, [client, backend]);
    }
}

#[test]
fn a_send_that_gets_nowhere_ends_the_session() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(0));
    stage.give(backend, &s(0x82, &[7; 98]));
    stage.pass(ms(29_999));
    assert!(stage.is_open(client) && stage.out(backend).is_empty());
    stage.pass(ms(2));
    assert_close(&mut stage, backend, 1001);
    stage.give(backend, &s(CLOSE, &close_of(1001)));
    assert_ends(&mut stage, [client, backend]);
}

pub fn with_buffers(small_count: usize) -> Stage {
    let plan = Plan { sessions_max: 8, refusals_max: 1, small_count, bulk_count: 1 };
    Stage::with_plan(config(1), plan)
}

#[test]
fn who_finds_no_buffer_waits_for_one() {
    let mut stage = with_buffers(1);
    let (client, backend) = stage.open();
    let (other, other_backend) = stage.open();
    stage.stick(backend, Some(0));
    stage.give(client, &c(TEXT, b"in the only buffer"));
    stage.end_receive(other, ReceiveEnd::NoBuffers);
    assert!(!stage.receives(other), "armed again although there is no buffer: it would spin");
    assert_eq!(stage.metrics.buffer_starvations.get(), 1);
    stage.stick(backend, None);
    stage.flush();
    assert!(stage.receives(other));
    for conn in [client, other, backend, other_backend] {
        stage.reset(conn);
    }
    assert_over(&stage, [client, backend]);
    assert_over(&stage, [other, other_backend]);
}

/// The first in line may have nothing to receive; then no completion makes room for the next.
#[test]
fn who_waits_for_a_buffer_gets_a_turn_even_if_those_before_have_no_use_for_it() {
    let mut stage = with_buffers(1);
    let sessions: Vec<_> = (0..4).map(|_| stage.open()).collect();
    let (client, backend) = sessions[0];
    stage.stick(backend, Some(0));
    stage.give(client, &c(TEXT, b"in the only buffer"));
    for (other, _) in &sessions[1..] {
        stage.end_receive(*other, ReceiveEnd::NoBuffers);
    }
    stage.stick(backend, None);
    stage.flush();
    stage.pass(ms(10));
    assert!(sessions.iter().all(|(client, _)| stage.receives(*client)));
}

#[test]
fn l33_an_idle_session_is_ended_only_if_the_config_says_so() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.pass(Duration::from_secs(86_400 * 400));
    assert!(stage.is_open(client) && stage.out(client).is_empty());
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);

    let mut config = config(1);
    config.timeouts.idle = Some(ms(1000));
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    stage.pass(ms(900));
    stage.give(client, &c(PING, b""));
    stage.pass(ms(900));
    stage.out(backend);
    assert_eq!(stage.out(client), b"", "a byte either way is enough");
    stage.pass(ms(101));
    assert!(stage.out(client).ends_with(b"idle for too long"));
    assert_close(&mut stage, backend, 1001);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn f27_too_many_pings() {
    let mut config = config(1);
    config.limits.control_frames_per_second_max = Some(10);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    for _ in 0..5 {
        stage.give(client, &c(PING, b"").repeat(10));
        stage.pass(ms(1000));
    }
    assert!(stage.out(client).is_empty(), "as many as are allowed");
    stage.out(backend);
    stage.give(client, &c(PING, b"").repeat(11));
    let out = stage.out(backend);
    assert_eq!(close_code(&out[11 * 6..], true), Some(1008), "behind the eleventh: {out:02x?}");
    stage.give(backend, &s(CLOSE, &close_of(1008)));
    assert_close(&mut stage, client, 1008);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn messages_count_one_by_one_however_they_come() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let fragmented = [c(BEGIN, b"a"), c(PING, b""), c(0x80, b"b")].concat();
    stage.give(client, &[c(TEXT, b"one"), fragmented, c(TEXT, b"three")].concat());
    stage.give(backend, &s(TEXT, b"x").repeat(4));
    let metrics = &stage.metrics;
    assert_eq!((metrics.messages_in.get(), metrics.messages_out.get(), metrics.control_frames.get()), (3, 4, 1));
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn f28_too_many_fragments() {
    let mut config = config(1);
    config.limits.message_fragments_max = Some(3);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    let three = [c(BEGIN, b""), c(0, b""), c(0x80, b"")].concat();
    stage.give(client, &three);
    assert_eq!(stage.out(backend), three);
    stage.give(client, &[c(BEGIN, b""), c(0, b""), c(0, b""), c(0, b"")].concat());
    let out = stage.out(backend);
    assert_eq!(close_code(&out[18..], true), Some(1008), "after three valid fragments: {out:02x?}");
    stage.give(backend, &s(CLOSE, b""));
    assert_close(&mut stage, client, 1008);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l13_accept_pauses_when_there_are_no_descriptors() {
    let mut stage = Stage::new(config(1), 4);
    stage.accept_ended(libc::EMFILE);
    assert_eq!(stage.accepting(), Accepting::Idle);
    stage.pass(ms(199));
    assert_eq!(stage.accepting(), Accepting::Idle);
    stage.pass(ms(2));
    assert_eq!(stage.accepting(), Accepting::Armed);
}

#[test]
fn l35_more_clients_than_sessions() {
    let mut stage = Stage::new(config(1), 1);
    let (client, backend) = stage.open();
    let other = stage.accept();
    stage.flush();
    assert_eq!(stage.accepting(), Accepting::Idle, "even the slot for refusals is taken");
    stage.give(other, crate::stage::REQUEST);
    assert!(stage.out(other).starts_with(b"HTTP/1.1 503 "));
    stage.eof(other);
    assert_eq!(stage.accepting(), Accepting::Armed);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
    let (client, backend) = stage.open();
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}
