//! Who waits for a backend, for how long, and who is next.

use std::sync::atomic::Ordering::Relaxed;

use ringway::config::{Config, PlainHttp, Route};

use super::*;
use crate::stage::{ANSWER, REQUEST, config};

/// One backend that takes one session at a time; so many may wait, 5 seconds.
pub fn narrow(queue_max: u32) -> Config {
    let mut config = config(1);
    config.pools[0].connections_max = Some(1);
    config.pools[0].admission.queue_max = queue_max;
    config
}

pub fn waiting(stage: &Stage) -> u32 {
    stage.table.pools.iter().map(|pool| pool.state.waiting.load(Relaxed)).sum()
}

/// Who has a backend connected, or being connected to.
pub fn served(stage: &Stage, clients: &[ConnId]) -> Vec<bool> {
    clients.iter().map(|client| stage.is_open(client.peer())).collect()
}

/// The backend that is being connected to answers.
pub fn answer(stage: &mut Stage, client: ConnId) {
    stage.connected(client.peer(), Ok(()));
    assert!(stage.out(client.peer()).starts_with(b"GET "));
    stage.give(client.peer(), ANSWER);
    assert!(stage.out(client).starts_with(ANSWER));
}

/// A 503 that says when to come back.
#[track_caller]
pub fn assert_turned_away(stage: &mut Stage, client: ConnId) {
    let out = String::from_utf8(stage.out(client)).unwrap();
    assert!(out.starts_with("HTTP/1.1 503 "), "{out}");
    let seconds = out.split("Retry-After: ").nth(1).and_then(|rest| rest.split('\r').next()).map(str::parse::<u64>);
    assert!(matches!(seconds, Some(Ok(3..=8))), "5 seconds give or take a half: {out}");
    assert!(stage.has_fin(client));
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let mut stage = Stage::new(narrow(10), 8);
    let (mut last, _) = stage.open();
    let clients: Vec<_> = (0..4).map(|_| stage.request().0).collect();
    assert_eq!((served(&stage, &clients), waiting(&stage)), (vec![false; 4], 4));
    for (number, client) in clients.iter().enumerate() {
        end(&mut stage, last);
        let expected: Vec<bool> = (0..4).map(|other| other == number).collect();
        assert_eq!(served(&stage, &clients), expected);
        assert_eq!(waiting(&stage), 3 - number as u32);
        answer(&mut stage, *client);
        last = *client;
    }
    end(&mut stage, last);
    assert_over(&stage, [last, last.peer()]);
    assert_eq!(stage.metrics.queued.get(), 4);
}

#[test]
fn waiting_has_an_end() {
    let mut stage = Stage::new(narrow(10), 8);
    let (open, backend) = stage.open();
    let first = stage.request().0;
    stage.pass(ms(2000));
    let second = stage.request().0;
    stage.pass(ms(2999));
    assert!(stage.out(first).is_empty());
    stage.pass(ms(2));
    let out = String::from_utf8(stage.out(first)).unwrap();
    assert!(out.starts_with("HTTP/1.1 503 ") && out.contains("\r\nRetry-After: "), "{out}");
    assert!(out.ends_with("No backend of this pool had room in time.\n"), "{out}");
    assert!(stage.out(second).is_empty(), "it has come later");
    assert_eq!((waiting(&stage), stage.metrics.queue_timeouts.get()), (1, 1));
    end(&mut stage, open);
    answer(&mut stage, second);
    stage.eof(first);
    end(&mut stage, second);
    for conn in [open, backend, first] {
        assert!(!stage.is_open(conn));
    }
    assert_over(&stage, [second, second.peer()]);
}

#[test]
fn who_goes_leaves_its_place_to_the_others() {
    let mut stage = Stage::new(narrow(2), 8);
    let (open, _) = stage.open();
    let (first, second) = (stage.request().0, stage.request().0);
    let third = stage.request().0;
    assert_turned_away(&mut stage, third);
    stage.eof(third);
    end(&mut stage, first);
    assert!(!stage.is_open(first));
    assert_eq!(waiting(&stage), 1);
    let fourth = stage.request().0;
    assert_eq!(waiting(&stage), 2);
    end(&mut stage, open);
    assert_eq!(served(&stage, &[second, fourth]), [true, false]);
    answer(&mut stage, second);
    end(&mut stage, second);
    answer(&mut stage, fourth);
    end(&mut stage, fourth);
    assert_over(&stage, [fourth, fourth.peer()]);
}

/// Who has asked for an upgrade and sends FIN has gone; who asked for a page may still want it.
#[test]
fn fin_ends_the_wait_for_an_upgrade_but_not_for_a_page() {
    let mut config = narrow(2);
    let mut route = Route::catch_all("pages", 0, &config);
    route.plain_http = PlainHttp::Forward;
    config.routes.push(route);
    let mut stage = Stage::new(config, 8);
    let (open, _) = stage.open();
    let gone = stage.request().0;
    let page = stage.ask(b"GET /page HTTP/1.1\r\nHost: chat.example\r\n\r\n").0;
    stage.eof(gone);
    stage.eof(page);
    assert!(!stage.is_open(gone));
    assert_eq!(waiting(&stage), 1);
    end(&mut stage, open);
    stage.connected(page.peer(), Ok(()));
    assert!(stage.out(page.peer()).starts_with(b"GET /page "));
    stage.give(page.peer(), b"HTTP/1.1 204 No Content\r\n\r\n");
    assert!(stage.out(page).starts_with(b"HTTP/1.1 204 "));
    assert_over(&stage, [page, page.peer()]);
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let mut stage = Stage::new(narrow(2), 8);
    let (open, backend) = stage.open();
    let first = stage.request().0;
    let late = stage.accept();
    // In one batch a session ends and somebody else comes. The newcomer is looked at first.
    stage.put(open, &c(CLOSE, &close_of(1000)));
    stage.give(backend, &s(CLOSE, &close_of(1000)));
    stage.eof(backend);
    stage.put(late, REQUEST);
    stage.eof(open);
    assert_eq!(served(&stage, &[first, late]), [true, false]);
    answer(&mut stage, first);
    end(&mut stage, first);
    answer(&mut stage, late);
    end(&mut stage, late);
    assert_over(&stage, [late, late.peer()]);
}

#[test]
fn without_a_queue_a_full_pool_refuses_at_once() {
    let mut stage = Stage::new(narrow(0), 8);
    let (open, _) = stage.open();
    let late = stage.request().0;
    assert_turned_away(&mut stage, late);
    stage.eof(late);
    end(&mut stage, open);
    assert_over(&stage, [open, late]);
}

#[test]
fn a_backend_is_asked_by_so_many_at_once_and_no_more() {
    let mut config = config(1);
    config.pools[0].admission.backend_handshakes_max = Some(2);
    config.pools[0].admission.queue_max = 10;
    let mut stage = Stage::new(config, 8);
    let clients: Vec<_> = (0..5).map(|_| stage.request().0).collect();
    assert_eq!(served(&stage, &clients), [true, true, false, false, false]);
    answer(&mut stage, clients[1]);
    assert_eq!(served(&stage, &clients), [true, true, true, false, false], "open sessions do not count");
    // Neither do those who have been told no.
    stage.connected(clients[0].peer(), Ok(()));
    stage.give(clients[0].peer(), b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(served(&stage, &clients)[2..], [true, true, false]);
    end(&mut stage, clients[2]);
    assert_eq!(served(&stage, &clients)[2..], [false, true, true]);
    for client in &clients {
        if stage.is_open(*client) {
            end(&mut stage, *client);
        }
    }
    assert_over(&stage, [clients[4], clients[4].peer()]);
    assert_eq!(stage.table.pools[0].members[0].state.handshakes.load(Relaxed), 0);
}

#[test]
fn a_pool_is_asked_so_often_per_second_and_no_more() {
    let mut config = config(1);
    config.pools[0].admission.handshakes_per_second_max = Some(2);
    config.pools[0].admission.handshakes_burst = Some(1);
    config.pools[0].admission.queue_max = 10;
    let mut stage = Stage::new(config, 8);
    stage.pass(ms(1000));
    let clients: Vec<_> = (0..3).map(|_| stage.request().0).collect();
    assert_eq!(served(&stage, &clients), [true, false, false]);
    stage.pass(ms(480));
    assert_eq!(served(&stage, &clients), [true, false, false]);
    stage.pass(ms(40));
    assert_eq!(served(&stage, &clients), [true, true, false]);
    stage.pass(ms(500));
    assert_eq!(served(&stage, &clients), [true, true, true]);
    clients.iter().for_each(|client| end(&mut stage, *client));
    assert_over(&stage, [clients[0], clients[1]]);
}

#[test]
fn those_who_wait_hear_that_the_relay_shuts_down() {
    let mut stage = Stage::new(narrow(2), 8);
    let (open, backend) = stage.open();
    let first = stage.request().0;
    stage.drain();
    assert!(stage.out(first).starts_with(b"HTTP/1.1 503 "));
    assert_eq!(waiting(&stage), 0);
    stage.eof(first);
    assert_ends(&mut stage, [open, backend]);
    assert!(stage.relay.is_drained());
}

/// One who has failed at a backend waits for another one. That keeps nobody from the first, who it would answer.
#[test]
fn who_waits_for_some_backends_only_keeps_nobody_from_the_others() {
    let mut config = config(2);
    config.pools[0].backends[1].connections_max = Some(1);
    config.pools[0].admission.queue_max = 10;
    let mut stage = Stage::new(config, 8);
    let mut opened = Vec::new();
    // Until the second backend is full and it is the first one's turn.
    while opened.iter().all(|(_, port)| *port != 2) {
        let (client, backend) = stage.open();
        opened.push((client, stage.port(backend)));
    }
    let (failed, backend) = stage.request();
    assert_eq!(stage.port(backend), 1);
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert_eq!((served(&stage, &[failed]), waiting(&stage)), (vec![false], 1));
    let late = stage.request().0;
    stage.pass(ms(50));
    assert_eq!(served(&stage, &[failed, late]), [false, true], "the first backend has all the room there is");
}

#[test]
fn a_rate_holds_for_those_who_wait_too() {
    let mut config = config(1);
    config.pools[0].admission.handshakes_per_second_max = Some(1000);
    config.pools[0].admission.handshakes_burst = Some(1);
    config.pools[0].admission.queue_max = 500;
    let mut stage = Stage::new(config, 600);
    stage.pass(ms(1000));
    let clients: Vec<_> = (0..400).map(|_| stage.request().0).collect();
    stage.pass(ms(200));
    let served = served(&stage, &clients).into_iter().filter(|served| *served).count();
    assert!((195..=205).contains(&served), "{served} in 200 ms at 1000 per second");
}
