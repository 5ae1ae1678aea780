//! What fails, who is told so, and who is asked next time.

use super::*;
use crate::stage::{self, Accepting, REQUEST, config};

/// Two backends, of which one is ejected by its first failure (`eject.failures`), for less than 5 seconds.
fn easily_ejected() -> ringway::config::Config {
    let mut config = stage::config(2);
    config.pools[0].eject.failures = Some(1);
    config.pools[0].eject.clients_min = 1;
    config.pools[0].eject.time = ms(4500);
    config
}

/// Three more clients: which backends do they get?
fn next_three(stage: &mut Stage) -> [usize; 3] {
    let before = stage.dialled.len();
    for _ in 0..2 {
        stage.open();
    }
    stage.pass(ms(5001));
    stage.open();
    turns(stage)[before..].try_into().unwrap()
}

#[test]
fn a_backend_that_hangs_up_instead_of_answering_is_ejected() {
    for is_reset in [false, true] {
        let mut stage = Stage::new(easily_ejected(), 8);
        let (client, backend) = stage.request();
        stage.connected(backend, Ok(()));
        if is_reset {
            stage.reset(backend)
        } else {
            stage.eof(backend)
        }
        assert!(stage.out(client).starts_with(b"HTTP/1.1 502 "));
        assert_ends(&mut stage, [client, backend]);
        assert_eq!(stage.dialled.len(), 1);
        assert_eq!(next_three(&mut stage), [2, 2, 1], "until its ejection is over");
    }
}

#[test]
fn a_backend_that_stays_silent_is_ejected() {
    let mut stage = Stage::new(easily_ejected(), 8);
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.pass(ms(10_001));
    assert!(stage.out(client).starts_with(b"HTTP/1.1 504 "));
    assert_ends(&mut stage, [client, backend]);
    assert_eq!(next_three(&mut stage), [2, 2, 1], "until its ejection is over");
}

#[test]
fn a_backend_that_says_no_is_well() {
    let mut stage = Stage::new(config(2), 8);
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.give(backend, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_ends(&mut stage, [client, backend]);
    assert_eq!(next_three(&mut stage), [2, 1, 2]);
}

#[test]
fn a_client_hears_of_its_own_fault_even_if_the_backend_commits_one_too() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    stage.give(client, &c(BAD, b""));
    assert_close(&mut stage, backend, 1002);
    stage.pass(ms(500));
    stage.give(backend, &c(TEXT, b"masked"));
    assert_close(&mut stage, client, 1002);
    assert!(stage.has_fin(client));
    assert_eq!(stage.out(backend), b"", "it has had its Close");
    assert_ends(&mut stage, [client, backend]);
}

/// With the only session and the slot for refusals taken: time does not arm accept, a free slot does.
#[track_caller]
fn assert_accepts_again_when_a_slot_is_free(stage: &mut Stage, refused: ConnId) {
    for _ in 0..5 {
        stage.pass(ms(201));
        assert_eq!(stage.accepting(), Accepting::Idle, "there is no slot for another client");
    }
    stage.give(refused, REQUEST);
    assert!(stage.out(refused).starts_with(b"HTTP/1.1 503 "));
    stage.eof(refused);
    assert_eq!(stage.accepting(), Accepting::Armed);
}

#[test]
fn accept_is_not_tried_again_while_all_slots_are_taken() {
    // It fails on one listener, and the last client comes through the other.
    let mut config = config(1);
    config.listeners.push(config.listeners[0].clone());
    let mut stage = Stage::new(config, 1);
    let (client, backend) = stage.open();
    stage.accept_ended(libc::EMFILE);
    let refused = stage.accept();
    stage.flush();
    assert_accepts_again_when_a_slot_is_free(&mut stage, refused);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn accept_that_fails_while_it_is_being_stopped_is_not_tried_again() {
    let mut stage = Stage::new(config(1), 1);
    let (client, backend) = stage.open();
    let refused = stage.accept();
    assert_eq!(stage.accepting(), Accepting::Stopping);
    stage.accept_ended(libc::EMFILE);
    stage.flush();
    assert_accepts_again_when_a_slot_is_free(&mut stage, refused);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_body_that_is_cut_short_arrives_as_far_as_it_came() {
    for is_reset in [false, true] {
        let mut stage = Stage::new(config(1), 4);
        let (client, backend) = stage.request();
        stage.connected(backend, Ok(()));
        stage.give(backend, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\nnot all");
        assert!(!stage.has_fin(client));
        if is_reset {
            stage.reset(backend)
        } else {
            stage.eof(backend)
        }
        let out = String::from_utf8(stage.out(client)).unwrap();
        assert!(out.starts_with("HTTP/1.1 403 Forbidden\r\n") && out.ends_with("\r\n\r\nnot all"), "{out}");
        assert!(stage.has_fin(client));
        assert!(!stage.is_open(backend));
        // The client need not do anything for the end to come.
        stage.pass(ms(2001));
        assert_over(&stage, [client, backend]);
    }
}
