//! How sessions end.

use super::*;
use crate::stage::{Accepting, config};

#[test]
fn failing_a_client_keeps_the_order_of_the_wire_cases() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let good = c(TEXT, b"hello");
    stage.give(client, &[good.clone(), c(BAD, b"never seen")].concat());
    // 1. what was valid, 2. a Close for the backend, and nothing for the client yet.
    let out = stage.out(backend);
    assert_eq!(out[..good.len()], good);
    assert_eq!(close_code(&out[good.len()..], true), Some(1002));
    assert_eq!(stage.out(client), b"");
    // 3. the backend's answers still pass, its Close does not.
    let echo = s(TEXT, b"hello");
    stage.give(backend, &echo);
    assert_eq!(stage.out(client), echo);
    assert!(!stage.has_fin(client));
    stage.give(backend, &s(CLOSE, &close_of(3999)));
    // 4. the client hears Ringway's code, then FIN; the backend's FIN is propagated.
    assert_close(&mut stage, client, 1002);
    assert!(stage.has_fin(client));
    assert_eq!(stage.out(backend), b"");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn failing_a_client_waits_for_the_backend_a_second_at_most() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(client, &c(BAD, b""));
    assert_close(&mut stage, backend, 1002);
    stage.pass(ms(999));
    assert_eq!(stage.out(client), b"");
    stage.pass(ms(2));
    assert_close(&mut stage, client, 1002);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn failing_a_client_tells_the_backend_nothing_inside_a_frame() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let half = &s(TEXT, b"a message")[..5];
    stage.give(backend, half);
    assert_eq!(stage.out(client), half);
    stage.give(client, &c(BAD, b""));
    assert_close(&mut stage, backend, 1002);
    stage.pass(ms(1001));
    assert_eq!(stage.out(client), b"", "inside the backend's frame");
    stage.give(backend, &s(TEXT, b"a message")[5..]);
    let out = stage.out(client);
    assert_eq!(out[..6], s(TEXT, b"a message")[5..]);
    assert_eq!(close_code(&out[6..], false), Some(1002));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn failing_a_backend_tells_both() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(backend, &c(TEXT, b"masked"));
    assert_close(&mut stage, client, 1011);
    stage.give(client, &c(CLOSE, &close_of(1011)));
    assert_close(&mut stage, backend, 1002);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn f20_closes_pass_as_they_came_and_tcp_ends_in_order() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let close = c(CLOSE, &[&close_of(4001)[..], b"bye"].concat());
    stage.give(client, &close);
    assert_eq!(stage.out(backend), close);
    let answer = s(CLOSE, &close_of(1000));
    stage.give(backend, &answer);
    assert_eq!(stage.out(client), answer);
    // To the client Ringway is the server, which ends first; to the backend it is the client, which waits.
    assert!(stage.has_fin(client));
    assert!(!stage.has_fin(backend));
    stage.eof(backend);
    assert!(stage.has_fin(backend));
    stage.eof(client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn f23_nothing_follows_a_close() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let close = c(CLOSE, &close_of(1000));
    stage.give(client, &[close.clone(), c(TEXT, b"same segment")].concat());
    assert_eq!(stage.out(backend), close);
    stage.give(client, &[c(TEXT, b"later"), close].concat());
    assert_eq!(stage.out(backend), b"");
    stage.give(backend, &s(CLOSE, b""));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn f25_a_close_that_is_never_answered() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(client, &c(CLOSE, &close_of(1000)));
    stage.pass(ms(4999));
    assert!(stage.is_open(client) && stage.is_open(backend) && stage.out(client).is_empty());
    stage.pass(ms(2));
    assert_close(&mut stage, client, 1011);
    assert!(stage.has_fin(client) && stage.has_fin(backend));
    // Then there are two seconds for the last bytes.
    stage.pass(ms(2001));
    assert_over(&stage, [client, backend]);
}

#[test]
fn l01_backend_dies_inside_a_frame() {
    for is_reset in [false, true] {
        let mut stage = Stage::new(config(1), 4);
        let (client, backend) = stage.open();
        let half = &s(TEXT, b"a message")[..7];
        stage.give(backend, half);
        if is_reset {
            stage.reset(backend)
        } else {
            stage.eof(backend)
        }
        assert_eq!(stage.out(client), half, "no Close inside a frame");
        assert!(stage.has_fin(client));
        assert_ends(&mut stage, [client, backend]);
    }
}

#[test]
fn l01_a_header_cut_in_two_is_no_frame_yet() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(backend, &s(TEXT, &[7; 300])[..3]);
    stage.eof(backend);
    assert_close(&mut stage, client, 1011);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l02_backend_dies_between_frames() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(backend, &s(BEGIN, b"first fragment"));
    stage.out(client);
    stage.eof(backend);
    assert_close(&mut stage, client, 1011);
    assert!(stage.has_fin(client));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l03_client_dies() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.reset(client);
    assert_close(&mut stage, backend, 1001);
    assert_ends(&mut stage, [client, backend]);

    let (client, backend) = stage.open();
    let half = &c(TEXT, b"a message")[..9];
    stage.give(client, half);
    stage.eof(client);
    assert_eq!(stage.out(backend), half, "no Close inside a frame");
    assert!(stage.has_fin(backend));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l04_half_close_after_a_close() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(client, &c(CLOSE, &close_of(1000)));
    stage.eof(client);
    stage.out(backend);
    // What the backend still has to say arrives.
    let last = [s(TEXT, b"one more"), s(CLOSE, &close_of(1000))].concat();
    stage.give(backend, &last);
    assert_eq!(stage.out(client), last);
    assert!(stage.has_fin(client));
    stage.eof(backend);
    assert_over(&stage, [client, backend]);
}

#[test]
fn l22_drain_tells_everybody_at_the_next_boundary() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let message = c(TEXT, b"a message");
    stage.give(client, &message[..8]);
    stage.out(backend);
    stage.drain();
    assert_eq!(stage.accepting(), Accepting::Closed);
    assert_close(&mut stage, client, 1001);
    assert_eq!(stage.out(backend), b"", "inside the client's frame");
    stage.give(client, &[&message[8..], &c(TEXT, b"too late")].concat());
    let out = stage.out(backend);
    assert_eq!(out[..message.len() - 8], message[8..]);
    assert_eq!(close_code(&out[message.len() - 8..], true), Some(1001));
    stage.give(client, &c(CLOSE, &close_of(1001)));
    stage.give(backend, &s(CLOSE, &close_of(1001)));
    assert_eq!((stage.out(client), stage.out(backend)), (vec![], vec![]), "nothing behind a Close");
    assert_ends(&mut stage, [client, backend]);
    assert!(stage.relay.is_drained());
}

#[test]
fn f30_a_close_may_stand_between_fragments() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(backend, &s(BEGIN, b"first fragment"));
    stage.out(client);
    stage.drain();
    assert_close(&mut stage, client, 1001);
    assert_close(&mut stage, backend, 1001);
    stage.pass(ms(30_001));
    assert_over(&stage, [client, backend]);
    assert!(stage.relay.is_drained());
}

#[test]
fn drain_is_spread() {
    let mut config = config(1);
    config.timeouts.drain_spread = ms(1000);
    let mut stage = Stage::new(config, 64);
    let sessions: Vec<_> = (0..64).map(|_| stage.open()).collect();
    stage.drain();
    let told = |stage: &mut Stage| sessions.iter().filter(|(client, _)| !stage.out(*client).is_empty()).count();
    let mut most = told(&mut stage);
    for _ in 0..10 {
        stage.pass(ms(100));
        most = most.max(told(&mut stage));
    }
    assert!(most < 20, "{most} of 64 at once");
    stage.pass(ms(30_000));
    assert!(stage.relay.is_drained());
    assert_eq!(stage.metrics.sessions.get(), 0);
}
