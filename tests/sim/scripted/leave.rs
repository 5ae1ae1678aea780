//! Sessions that are to leave a backend which is down or drained.

use std::sync::Arc;

use ringway::config::OnLoss;
use ringway::table::state::BackendState;

use super::*;
use crate::stage::{ANSWER, config};

fn backend_at(stage: &Stage, port: u16) -> Arc<BackendState> {
    stage.table.pools[0].members[usize::from(port) - 1].state.clone()
}

#[test]
fn both_sides_hear_why_and_only_those_of_that_backend() {
    for (on_loss, code) in [(OnLoss::Restart, 1012), (OnLoss::GoingAway, 1001)] {
        let mut stage = Stage::new(config(2), 4);
        let sessions = [stage.open(), stage.open()];
        let leaves = backend_at(&stage, stage.port(sessions[0].1));
        stage.move_away(&leaves, on_loss, ms(0));
        let (client, backend) = sessions[0];
        assert_close(&mut stage, client, code);
        assert_close(&mut stage, backend, code);
        let (other, other_backend) = sessions[1];
        assert_eq!((stage.out(other), stage.out(other_backend)), (vec![], vec![]));
        stage.give(client, &c(CLOSE, &close_of(code)));
        stage.give(backend, &s(CLOSE, &close_of(code)));
        stage.eof(backend);
        stage.eof(client);
        assert!(!stage.is_open(client) && !stage.is_open(backend) && stage.is_open(other));
        end(&mut stage, other);
        assert_over(&stage, [other, other_backend]);
    }
}

#[test]
fn those_who_are_kept_hear_nothing() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.move_away(&backend_at(&stage, 1), OnLoss::Keep, ms(0));
    stage.pass(ms(20_000));
    assert_eq!((stage.out(client), stage.out(backend)), (vec![], vec![]));
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn a_frame_that_is_under_way_is_ended_first() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let message = s(TEXT, b"a message");
    stage.give(backend, &message[..5]);
    stage.out(client);
    stage.move_away(&backend_at(&stage, 1), OnLoss::Restart, ms(0));
    assert_close(&mut stage, backend, 1012);
    assert_eq!(stage.out(client), b"", "inside the backend's frame");
    stage.give(backend, &[&message[5..], &s(TEXT, b"too late")].concat());
    let out = stage.out(client);
    assert_eq!(out[..message.len() - 5], message[5..]);
    assert_eq!(close_code(&out[message.len() - 5..], false), Some(1012));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn they_are_told_one_after_the_other() {
    let mut stage = Stage::new(config(1), 64);
    let sessions: Vec<_> = (0..64).map(|_| stage.open()).collect();
    stage.move_away(&backend_at(&stage, 1), OnLoss::Restart, ms(1000));
    let told = |stage: &mut Stage| sessions.iter().filter(|(client, _)| !stage.out(*client).is_empty()).count();
    let mut steps = vec![told(&mut stage)];
    for _ in 0..10 {
        stage.pass(ms(100));
        steps.push(told(&mut stage));
    }
    assert!(steps.iter().all(|count| *count < 20), "{steps:?} of 64 at once");
    assert_eq!(steps.iter().sum::<usize>(), 64, "{steps:?}: not all of them in time");
    stage.pass(ms(10_000));
    assert_over(&stage, [sessions[0].0, sessions[0].1]);
}

/// A second command, or a drain, does not put off what the first has begun.
#[test]
fn who_is_leaving_is_told_once() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    let leaves = backend_at(&stage, 1);
    stage.move_away(&leaves, OnLoss::Restart, ms(1000));
    for _ in 0..10 {
        stage.pass(ms(100));
        stage.move_away(&leaves, OnLoss::GoingAway, ms(1000));
    }
    stage.pass(ms(1));
    assert_close(&mut stage, client, 1012);
    assert_close(&mut stage, backend, 1012);
    stage.move_away(&leaves, OnLoss::GoingAway, ms(0));
    assert_eq!(stage.out(client), b"");
    assert_ends(&mut stage, [client, backend]);
}

/// What a session was to hear from its backend's end is over when the relay itself ends, also if that was put off for long.
#[test]
fn field_c04_who_is_leaving_its_backend_leaves_with_the_relay() {
    for on_loss in [OnLoss::Restart, OnLoss::GoingAway] {
        for spread in [ms(60_000), ms(500)] {
            let mut config = config(1);
            config.timeouts.drain_spread = ms(1000);
            let mut stage = Stage::new(config, 8);
            let sessions = [stage.open(), stage.open(), stage.open()];
            stage.move_away(&backend_at(&stage, 1), on_loss, spread);
            stage.drain();
            stage.pass(ms(1000));
            for (client, backend) in sessions {
                for conn in [client, backend] {
                    let told = stage.out(conn);
                    assert!(told.ends_with(b"relay is shutting down") || conn == backend, "{}", told.escape_ascii());
                    assert_eq!(close_code(&told, conn == backend), Some(1001));
                }
                stage.give(client, &c(CLOSE, &close_of(1001)));
                stage.give(backend, &s(CLOSE, &close_of(1001)));
                stage.eof(backend);
                stage.eof(client);
            }
            assert!(stage.relay.is_drained());
        }
    }
}

/// Wherever it is, it goes on, and leaves as soon as it is open: else nobody would ever tell it.
#[test]
fn a_handshake_that_is_under_way_goes_on_and_leaves_then() {
    for is_connected in [false, true] {
        let mut stage = Stage::new(config(1), 4);
        let (client, backend) = stage.request();
        let leaves = backend_at(&stage, 1);
        if !is_connected {
            stage.move_away(&leaves, OnLoss::Restart, ms(1000));
        }
        stage.connected(backend, Ok(()));
        stage.out(backend);
        if is_connected {
            stage.move_away(&leaves, OnLoss::Restart, ms(1000));
        }
        stage.pass(ms(2000));
        stage.give(backend, ANSWER);
        assert_eq!(stage.out(client), ANSWER);
        stage.pass(ms(1000));
        assert_close(&mut stage, client, 1012);
        assert_close(&mut stage, backend, 1012);
        assert_ends(&mut stage, [client, backend]);
    }
}

/// Another backend than the one to be left is kept.
#[test]
fn a_handshake_that_has_gone_on_to_another_backend_stays_there() {
    let mut stage = Stage::new(config(2), 4);
    let (client, backend) = stage.request();
    let leaves = backend_at(&stage, stage.port(backend));
    stage.move_away(&leaves, OnLoss::Restart, ms(0));
    stage.connected(backend, Err(libc::ECONNREFUSED));
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, ANSWER);
    assert_eq!(stage.out(client), ANSWER);
    stage.pass(ms(1000));
    assert_eq!(stage.out(client), b"");
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

/// One that was to leave later, and whose backend has closed before: its client reads nothing, which is found as ever.
#[test]
fn a_session_that_closes_by_itself_leaves_no_more() {
    let mut config = config(1);
    config.timeouts.send_stall = ms(1000);
    config.timeouts.close = ms(60_000);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    stage.stick(client, Some(0));
    stage.give(backend, &s(TEXT, b"not read"));
    stage.move_away(&backend_at(&stage, 1), OnLoss::Restart, ms(500));
    stage.give(backend, &s(CLOSE, &close_of(1000)));
    stage.pass(ms(2000));
    assert!(!stage.receives(client), "it cannot be sent anything");
    stage.pass(ms(120_000));
    assert!(!stage.is_open(client) && !stage.is_open(backend));
}
