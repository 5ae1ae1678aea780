//! How long the slow are waited for, and at whose expense.

use ringway::op::ReceiveEnd;

use super::limits::with_buffers;
use super::*;
use crate::stage::config;

/// Everybody goes; then nothing may be left of any session.
#[track_caller]
fn assert_all_end(stage: &mut Stage, sessions: &[(ConnId, ConnId)]) {
    for conn in sessions.iter().flat_map(|(client, backend)| [*client, *backend]) {
        if stage.is_open(conn) && stage.receives(conn) {
            stage.reset(conn);
        }
    }
    for (client, backend) in sessions {
        assert_over(stage, [*client, *backend]);
    }
}

/// Slow readers give the buffers back that others want, and still get all that was in them.
#[test]
fn field_a06_buffers_of_the_slow_come_back() {
    for (taken, patient) in [(0, false), (7, false), (0, true)] {
        let mut stage = with_buffers(4);
        let sessions: Vec<_> = (0..3).map(|_| stage.open()).collect();
        let [(modest, modest_backend), (greedy, greedy_backend), (starved, starved_backend)] = sessions[..] else {
            unreachable!()
        };
        stage.stick(modest_backend, Some(taken));
        stage.stick(greedy_backend, Some(taken));
        let texts = [&b"in one buffer"[..], b"in another", b"and", b"more"];
        stage.give(modest, &c(TEXT, texts[0]));
        texts[1..].iter().for_each(|text| stage.give(greedy, &c(TEXT, text)));
        stage.end_receive(starved, ReceiveEnd::NoBuffers);
        stage.pass(ms(99));
        assert!(!stage.receives(starved));
        stage.pass(ms(60));
        assert!(stage.receives(starved), "there are buffers again");
        assert_eq!(stage.relay.leases(), 0);
        assert!(!stage.receives(greedy), "who is slow gets no more before it has taken what it has");
        let message = c(TEXT, b"served");
        stage.give(starved, &message);
        assert_eq!(stage.out(starved_backend), message);
        if patient {
            // It has the same time as ever.
            stage.pass(ms(29_500));
        }
        for backend in [modest_backend, greedy_backend] {
            stage.stick(backend, None);
        }
        stage.flush();
        assert_eq!(stage.out(modest_backend), c(TEXT, texts[0]));
        assert_eq!(stage.out(greedy_backend), texts[1..].iter().flat_map(|text| c(TEXT, text)).collect::<Vec<_>>());
        assert!(stage.receives(greedy));
        stage.give(greedy, &message);
        assert_eq!(stage.out(greedy_backend), message);
        assert_all_end(&mut stage, &sessions);
    }
}

/// Slow backends and clients, of sessions and of answers, in all their ends.
#[test]
fn field_a06_whoever_ends_while_its_buffers_come_back_leaves_none() {
    for end in ["client", "backend", "drain", "stop", "stall", "nothing"] {
        let mut stage = with_buffers(4);
        let sessions: Vec<_> = (0..2).map(|_| stage.open()).collect();
        let [(client, backend), (other, other_backend)] = sessions[..] else { unreachable!() };
        stage.stick(client, Some(0));
        stage.stick(other_backend, Some(0));
        stage.give(backend, &s(TEXT, b"slow client"));
        stage.give(other, &c(TEXT, b"slow backend"));
        stage.pass(ms(200));
        assert_eq!(stage.relay.leases(), 0);
        match end {
            "client" => stage.reset(client),
            "backend" => stage.reset(other_backend),
            "drain" => stage.drain(),
            "stop" => stage.stop(),
            "stall" => stage.pass(ms(30_500)),
            _ => [client, other_backend].into_iter().for_each(|conn| stage.stick(conn, None)),
        }
        stage.flush();
        if end == "nothing" {
            assert_eq!(stage.out(client), s(TEXT, b"slow client"));
            assert_eq!(stage.out(other_backend), c(TEXT, b"slow backend"));
        }
        stage.pass(ms(40_000));
        assert_all_end(&mut stage, &sessions);
    }
}

/// What is copied is bounded by as much as the small buffers are. Then the one that holds most is cut.
#[test]
fn field_a06_the_slowest_is_cut_when_there_is_no_memory_for_it() {
    let mut stage = with_buffers(4);
    let sessions: Vec<_> = (0..4).map(|_| stage.open()).collect();
    let [(first, first_backend), (greedy, greedy_backend), (modest, modest_backend), (starved, starved_backend)] =
        sessions[..]
    else {
        unreachable!()
    };
    for backend in [first_backend, greedy_backend, modest_backend] {
        stage.stick(backend, Some(0));
    }
    let large = c(0x82, &[7; 4087]);
    (0..4).for_each(|_| stage.give(first, &large));
    stage.pass(ms(200));
    assert_eq!(stage.relay.leases(), 0, "all memory is used");
    (0..3).for_each(|_| stage.give(greedy, &c(TEXT, b"hello")));
    stage.give(modest, &c(TEXT, b"in one buffer"));
    stage.end_receive(starved, ReceiveEnd::NoBuffers);
    // A tenth of send_stall.
    stage.pass(ms(2900));
    assert!(!stage.receives(starved));
    stage.pass(ms(200));
    assert!(stage.receives(starved), "there are buffers again");
    assert_close(&mut stage, greedy, 1011);
    assert_eq!((stage.out(first), stage.out(modest)), (vec![], vec![]));
    let message = c(TEXT, b"served");
    stage.give(starved, &message);
    assert_eq!(stage.out(starved_backend), message);
    for backend in [first_backend, modest_backend] {
        stage.stick(backend, None);
    }
    stage.flush();
    assert_eq!(stage.out(first_backend), large.repeat(4));
    assert_eq!(stage.out(modest_backend), c(TEXT, b"in one buffer"));
    assert_all_end(&mut stage, &sessions);
}

/// After a stop of the worker nobody is slow before what has come meanwhile is taken in.
#[test]
fn field_a04_a_stop_makes_nobody_slow() {
    let mut stage = with_buffers(4);
    let sessions: Vec<_> = (0..2).map(|_| stage.open()).collect();
    let (client, backend) = sessions[0];
    stage.stick(backend, Some(0));
    (0..2).for_each(|_| stage.give(client, &c(TEXT, b"hello")));
    stage.now += ms(4000);
    stage.catch_up();
    assert_eq!((stage.relay.leases(), stage.sends(backend)), (2, 11), "its send has not been cancelled");
    stage.end_batch();
    stage.flush();
    assert_eq!(stage.relay.leases(), 0);
    stage.stick(backend, None);
    stage.flush();
    assert_eq!(stage.out(backend), c(TEXT, b"hello").repeat(2));
    assert_all_end(&mut stage, &sessions);
}

#[test]
fn nobody_is_cut_while_nobody_starves() {
    let mut stage = with_buffers(1);
    let (client, backend) = stage.open();
    stage.stick(backend, Some(0));
    stage.give(client, &c(TEXT, b"in the only buffer"));
    stage.pass(ms(29_000));
    assert_eq!(stage.out(client), b"");
    stage.stick(backend, None);
    stage.flush();
    assert_eq!(stage.out(backend), c(TEXT, b"in the only buffer"));
    assert_all_end(&mut stage, &[(client, backend)]);
}

#[test]
fn with_few_buffers_left_nobody_is_granted_a_second_one() {
    let mut stage = with_buffers(8);
    let sessions: Vec<_> = (0..3).map(|_| stage.open()).collect();
    let [(first, first_backend), (second, second_backend), (third, third_backend)] = sessions[..] else {
        unreachable!()
    };
    stage.stick(first_backend, Some(0));
    stage.stick(second_backend, Some(0));
    for _ in 0..6 {
        stage.give(first, &c(TEXT, b"hello"));
    }
    assert!(stage.receives(first), "a quarter is left");
    stage.give(second, &c(TEXT, b"hello"));
    assert!(!stage.receives(second), "it holds one of the last");
    // One buffer for the third, which holds none.
    stage.end_receive(third, ReceiveEnd::Cancelled);
    let message = c(0x82, &[7; 4088]);
    stage.put(third, &message);
    assert!(!stage.receives(third), "granted more than one buffer");
    stage.end_batch();
    stage.flush();
    assert_eq!(stage.out(third_backend), message);
    assert!(stage.receives(third), "it has left");
    for backend in [first_backend, second_backend] {
        stage.stick(backend, None);
    }
    stage.flush();
    assert_eq!(stage.relay.leases(), 0);
    assert!(stage.receives(second));
    assert_all_end(&mut stage, &sessions);
}

#[test]
fn who_has_shown_no_bulk_is_granted_four_buffers() {
    let mut stage = with_buffers(64);
    let (client, backend) = stage.open();
    stage.end_receive(client, ReceiveEnd::Cancelled);
    let message = c(0x82, &[7; 16_376]);
    stage.put(client, &message);
    assert!(!stage.receives(client), "granted more");
    stage.end_batch();
    stage.flush();
    assert_eq!(stage.out(backend), message);
    assert!(stage.receives(client));
    assert_all_end(&mut stage, &[(client, backend)]);
}

/// The backend has said its last, and its client takes so many bytes of that each time it is looked at.
fn closing_slowly(taken: usize) -> (Stage, [ConnId; 2], Vec<u8>) {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(taken));
    let last = [s(0x82, &[7; 98]), s(CLOSE, &close_of(1000))].concat();
    stage.give(backend, &last);
    stage.eof(backend);
    (stage, [client, backend], last)
}

#[test]
fn a_closing_session_waits_for_a_client_that_still_takes_bytes() {
    let (mut stage, [client, backend], last) = closing_slowly(5);
    stage.pass(ms(20_001));
    assert!(stage.is_open(client), "timeouts.close was over four times");
    assert_eq!(stage.out(client), last[..20]);
    stage.stick(client, None);
    stage.flush();
    assert_eq!(stage.out(client), last[20..]);
    assert!(stage.has_fin(client));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_closing_session_does_not_wait_for_a_client_that_takes_nothing() {
    let (mut stage, conns, _) = closing_slowly(0);
    stage.pass(ms(4999));
    assert!(stage.is_open(conns[0]));
    stage.pass(ms(2));
    assert_over(&stage, conns);
}

#[test]
fn a_closing_session_does_not_wait_longer_than_for_a_stalled_send() {
    let (mut stage, conns, _) = closing_slowly(1);
    stage.pass(ms(29_999));
    assert!(stage.is_open(conns[0]));
    // And timeouts.linger.
    stage.pass(ms(2002));
    assert_over(&stage, conns);
}

#[test]
fn a_send_in_flight_is_not_idleness() {
    let mut config = config(1);
    config.timeouts.idle = Some(ms(1000));
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(0));
    let message = s(TEXT, b"on its way");
    stage.give(backend, &message);
    stage.pass(ms(29_000));
    assert_eq!(stage.out(backend), b"");
    stage.stick(client, None);
    stage.flush();
    assert_eq!(stage.out(client), message);
    stage.pass(ms(999));
    assert_eq!(stage.out(backend), b"", "idle since the send has ended");
    stage.pass(ms(2));
    assert_close(&mut stage, client, 1001);
    assert_close(&mut stage, backend, 1001);
    assert_ends(&mut stage, [client, backend]);
}

/// A session whose backend has answered something else than 101, with this much of a body of 40 bytes.
fn responding(body: &[u8]) -> (Stage, [ConnId; 2]) {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.stick(client, Some(0));
    stage.give(backend, &[b"HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n", body].concat());
    (stage, [client, backend])
}

#[test]
fn a_body_may_trickle() {
    let (mut stage, [client, backend]) = responding(&[b'x'; 37]);
    stage.stick(client, None);
    stage.flush();
    for _ in 0..3 {
        stage.pass(ms(9900));
        stage.give(backend, b"x");
    }
    assert!(stage.out(client).ends_with(&[b'x'; 40]));
    assert!(stage.has_fin(client));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_body_may_not_trickle_for_ever() {
    let (mut stage, [client, backend]) = responding(b"");
    stage.stick(client, None);
    stage.flush();
    for _ in 0..4 {
        stage.pass(ms(9900));
        stage.give(backend, b"x");
    }
    // timeouts.answer and timeouts.send_stall are over.
    stage.pass(ms(401));
    assert_over(&stage, [client, backend]);
}

#[test]
fn the_client_of_a_response_is_waited_for_while_it_takes_bytes() {
    let (mut stage, [client, backend]) = responding(&[b'x'; 40]);
    for _ in 0..3 {
        stage.pass(ms(29_000));
        assert!(stage.is_open(client));
        stage.end_send(client, 5);
        stage.end_batch();
    }
    stage.pass(ms(29_999));
    assert_eq!(stage.out(client), b"HTTP/1.1 403 Fo");
    assert!(stage.is_open(client));
    stage.pass(ms(2));
    assert_over(&stage, [client, backend]);
}
