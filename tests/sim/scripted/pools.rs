//! Backends and pools that are not well: the next one, ejection, the circuit breaker.

use std::sync::atomic::Ordering::Relaxed;

use ringway::config::{PlainHttp, Route};

use super::queues::{assert_turned_away, served};
use super::*;
use crate::stage::{ANSWER, config};

const NO: &[u8] = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
const OOPS: &[u8] = b"HTTP/1.1 503 Oops\r\nContent-Length: 0\r\n\r\n";

/// One handshake that the backend answers so. Returns which backend that was.
fn handshake(stage: &mut Stage, answer: &[u8]) -> u16 {
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, answer);
    if answer == ANSWER {
        end(stage, client);
    } else {
        stage.eof(client);
    }
    assert!(!stage.is_open(client) && !stage.is_open(backend));
    stage.port(backend)
}

#[test]
fn each_backend_is_tried_once_and_none_twice() {
    let mut stage = Stage::new(config(3), 4);
    let (client, backend) = stage.request();
    for tried in 1..=3 {
        assert_eq!(stage.dialled.len(), tried);
        assert!(stage.out(client).is_empty());
        stage.connected(backend, Err(libc::ECONNREFUSED));
    }
    stage.dialled.sort_unstable();
    assert_eq!(stage.dialled, [1, 2, 3]);
    assert_turned_away(&mut stage, client);
    assert_ends(&mut stage, [client, backend]);
    let count = |at: usize| stage.table.pools[0].members[at].state.sessions.load(Relaxed);
    assert_eq!((count(0), count(1), count(2)), (0, 0, 0));
}

/// Who has failed at one backend waits for room at another, in its old place or not, but does not go to the first again.
#[test]
fn who_was_refused_waits_for_the_others() {
    let mut config = config(2);
    config.pools[0].connections_max = Some(1);
    config.pools[0].admission.queue_max = 4;
    let mut stage = Stage::new(config, 8);
    let (open, open_backend) = stage.open();
    let (client, backend) = stage.request();
    assert_eq!(turns(&stage), [1, 2]);
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert!(stage.out(client).is_empty());
    assert_eq!(served(&stage, &[client]), [false]);
    stage.pass(ms(100));
    assert_eq!(served(&stage, &[client]), [false], "the one with room is the one that has refused it");
    end(&mut stage, open);
    assert_eq!(turns(&stage), [1, 2, 1]);
    end(&mut stage, client);
    assert_over(&stage, [open, open_backend]);
}

#[test]
fn failures_in_a_row_eject_and_one_success_forgets_them() {
    let mut config = config(2);
    config.pools[0].eject.time = ms(4500);
    let mut stage = Stage::new(config, 4);
    // Each second handshake goes to the first backend, which fails twice, answers, and fails twice again.
    for answer in [OOPS, NO, OOPS, NO, NO, NO, OOPS, NO, OOPS, NO] {
        handshake(&mut stage, answer);
    }
    assert_eq!(turns(&stage), [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
    let first = stage.dialled[0];
    assert_eq!(stage.metrics.ejections.get(), 0);
    assert_eq!(handshake(&mut stage, OOPS), first);
    assert_eq!(stage.metrics.ejections.get(), 1, "the third in a row");
    assert!(![0; 3].map(|_| handshake(&mut stage, ANSWER)).contains(&first));
    stage.pass(ms(5000));
    let after = [0; 2].map(|_| handshake(&mut stage, ANSWER));
    assert!(after.contains(&first), "its ejection is over");
}

/// A page that could not be served says neither that its backend is unwell nor that it is well again.
#[test]
fn a_bad_answer_to_a_page_ends_no_ejection() {
    let mut config = config(2);
    (config.pools[0].eject.failures, config.pools[0].eject.time) = (Some(1), ms(60_000));
    let mut route = Route::catch_all("pages", 0, &config);
    route.plain_http = PlainHttp::Forward;
    config.routes.push(route);
    let mut stage = Stage::new(config, 4);
    let (page, backend) = stage.ask(b"GET /page HTTP/1.1\r\nHost: chat.example\r\n\r\n");
    stage.connected(backend, Ok(()));
    let unwell = stage.port(backend);
    assert_ne!(handshake(&mut stage, NO), unwell);
    assert_eq!(handshake(&mut stage, OOPS), unwell);
    assert!(![0; 4].map(|_| handshake(&mut stage, NO)).contains(&unwell));
    stage.give(backend, b"HTTP/1.1 503 Overloaded\r\nContent-Length: 0\r\n\r\n");
    assert!(stage.out(page).starts_with(b"HTTP/1.1 503 "));
    stage.eof(page);
    assert!(![0; 4].map(|_| handshake(&mut stage, NO)).contains(&unwell));
}

#[test]
fn a_backend_that_drops_its_sessions_soon_is_ejected() {
    let mut config = config(2);
    config.pools[0].eject.clients_min = 1;
    config.pools[0].eject.early_close = Some(ms(1000));
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    let (late, late_backend) = stage.open();
    stage.pass(ms(999));
    stage.eof(backend);
    assert_ends_alone(&mut stage, client, backend);
    assert_eq!(stage.metrics.ejections.get(), 1);
    stage.pass(ms(1));
    stage.eof(late_backend);
    assert_ends_alone(&mut stage, late, late_backend);
    assert_eq!(stage.metrics.ejections.get(), 1, "after that time it is its own affair");
    assert_eq!(stage.metrics.sessions.get(), 0);
}

#[track_caller]
fn assert_ends_alone(stage: &mut Stage, client: ConnId, backend: ConnId) {
    assert_close(stage, client, 1011);
    stage.eof(client);
    assert!(!stage.is_open(client) && !stage.is_open(backend));
}

/// Opens at half of at least 4 handshakes; 2 probes.
fn breaking() -> ringway::config::Config {
    let mut config = config(1);
    config.pools[0].eject.failures = None;
    let breaker = &mut config.pools[0].breaker;
    (breaker.failures_percent, breaker.handshakes_min, breaker.probes) = (Some(50), 4, 2);
    (breaker.window, breaker.open) = (ms(60_000), ms(5000));
    config
}

#[test]
fn a_pool_that_fails_is_left_alone_for_a_while() {
    let mut stage = Stage::new(breaking(), 8);
    for answer in [OOPS, ANSWER, ANSWER, OOPS] {
        handshake(&mut stage, answer);
    }
    for wait in [0, 4900] {
        stage.pass(ms(wait));
        let (client, _) = stage.request();
        assert_eq!(stage.dialled.len(), 4, "the breaker is open");
        assert_turned_away(&mut stage, client);
        stage.eof(client);
    }
    stage.pass(ms(101));
    // Half open: two may try, a third may not.
    let probes = [stage.request().0, stage.request().0];
    let third = stage.request().0;
    assert_eq!(served(&stage, &probes), [true, true]);
    assert_turned_away(&mut stage, third);
    stage.eof(third);
    for probe in probes {
        stage.connected(probe.peer(), Ok(()));
        stage.give(probe.peer(), ANSWER);
        end(&mut stage, probe);
    }
    // Closed: one failure among many is nothing.
    for answer in [OOPS, ANSWER, ANSWER, ANSWER, ANSWER] {
        handshake(&mut stage, answer);
    }
    assert_eq!(stage.metrics.sessions.get(), 0);
}

#[test]
fn a_probe_that_fails_opens_the_breaker_again() {
    let mut stage = Stage::new(breaking(), 8);
    for _ in 0..4 {
        handshake(&mut stage, OOPS);
    }
    stage.pass(ms(5001));
    handshake(&mut stage, OOPS);
    let (client, _) = stage.request();
    assert_turned_away(&mut stage, client);
    stage.eof(client);
    // A reload changes nothing about that.
    stage.reload(breaking());
    let (client, _) = stage.request();
    assert_turned_away(&mut stage, client);
    stage.eof(client);
    stage.pass(ms(5001));
    assert_eq!(handshake(&mut stage, ANSWER), 1);
    assert_eq!(stage.metrics.sessions.get(), 0);
}

/// Clients that go away, or say nothing to the end, cannot keep a breaker half open.
#[test]
fn a_probe_whose_client_gives_up_is_followed_by_another_at_once() {
    let mut stage = Stage::new(breaking(), 8);
    for _ in 0..4 {
        handshake(&mut stage, OOPS);
    }
    stage.pass(ms(5001));
    for _ in 0..6 {
        let (client, backend) = stage.request();
        assert!(stage.is_open(backend), "a probe may go");
        stage.connected(backend, Ok(()));
        end(&mut stage, client);
    }
    let clients = [stage.request().0, stage.request().0, stage.request().0];
    assert_eq!(served(&stage, &clients), [true, true, false], "no more than two at a time");
}

/// Nobody could have been asked: when somebody can, nothing is in the way.
#[test]
fn a_pool_of_nobody_opens_no_breaker() {
    let mut nobody = breaking();
    nobody.pools[0].backends[0].drain = true;
    let mut stage = Stage::new(nobody.clone(), 8);
    let turn_away = |stage: &mut Stage, times: usize| {
        for _ in 0..times {
            let (client, _) = stage.request();
            assert_turned_away(stage, client);
            stage.eof(client);
        }
    };
    turn_away(&mut stage, 6);
    stage.reload(breaking());
    handshake(&mut stage, ANSWER);

    // Nor does it use up the probes of one that is half open.
    for _ in 0..3 {
        handshake(&mut stage, OOPS);
    }
    stage.pass(ms(5001));
    stage.reload(nobody);
    turn_away(&mut stage, 6);
    stage.reload(breaking());
    for _ in 0..2 {
        handshake(&mut stage, ANSWER);
    }
    assert_eq!(stage.metrics.sessions.get(), 0);
}

/// A handshake whose client has gone says nothing about the pool.
#[test]
fn a_client_that_gives_up_is_no_failure_of_the_pool() {
    let mut stage = Stage::new(breaking(), 8);
    for _ in 0..6 {
        let (client, backend) = stage.request();
        stage.connected(backend, Ok(()));
        end(&mut stage, client);
        assert_over(&stage, [client, backend]);
    }
    assert_eq!(handshake(&mut stage, ANSWER), 1);
}

#[test]
fn what_this_machine_lacks_is_no_failure_of_the_pool() {
    let mut stage = Stage::new(breaking(), 8);
    for _ in 0..6 {
        let (client, backend) = stage.request();
        assert!(stage.is_open(backend), "the breaker is open");
        stage.connected(backend, Err(libc::EADDRNOTAVAIL));
        assert_turned_away(&mut stage, client);
        stage.eof(client);
    }
    assert_eq!(handshake(&mut stage, ANSWER), 1);
}
