//! Another table in the middle of things: who is touched by it, and who is not.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ringway::config::{Address, Config, PlainHttp, PoolConfig, Route};

use super::plain::asked;
use super::queues::{answer, assert_turned_away, narrow, served, waiting};
use super::*;
use crate::stage::{ANSWER, Accepting, REQUEST, config};

/// As the stage's, but with other backends: on these ports, in this pool.
fn pool_of(name: &str, ports: &[u16]) -> PoolConfig {
    let backends = ports.iter().map(|port| Address::Inet(([127, 0, 0, 1], *port).into()).into()).collect();
    PoolConfig { backends, ..PoolConfig::named(name) }
}

#[test]
fn those_who_wait_keep_their_order() {
    // The first, the second or the last of them has just sent something, or nobody has.
    for busy in [None, Some(0), Some(1), Some(2)] {
        let mut stage = Stage::new(narrow(10), 8);
        let (mut last, _) = stage.open();
        let clients: Vec<_> = (0..3).map(|_| stage.request().0).collect();
        if let Some(busy) = busy {
            stage.put(clients[busy], &c(TEXT, b"early"));
        }
        stage.reload(narrow(10));
        assert_eq!((served(&stage, &clients), waiting(&stage)), (vec![false; 3], 3), "{busy:?}");
        for (number, client) in clients.iter().enumerate() {
            end(&mut stage, last);
            let expected: Vec<bool> = (0..3).map(|other| other == number).collect();
            assert_eq!(served(&stage, &clients), expected, "{busy:?}");
            answer(&mut stage, *client);
            last = *client;
        }
        end(&mut stage, last);
        assert_over(&stage, [last, last.peer()]);
    }
}

#[test]
fn those_who_wait_are_routed_anew() {
    let mut stage = Stage::new(narrow(10), 8);
    let (open, _) = stage.open();
    let clients: Vec<_> = (0..3).map(|_| stage.request().0).collect();
    let mut wider = narrow(10);
    wider.pools = vec![PoolConfig { connections_max: Some(1), ..pool_of("other", &[7, 8]) }];
    wider.pools[0].admission.queue_max = 10;
    stage.reload(wider);
    assert_eq!(served(&stage, &clients), [true, true, false], "in the order in which they waited");
    assert_eq!(stage.dialled[1..], [7, 8]);
    // Into a config that has nothing for the last one.
    let nothing = Config { default_pool: None, ..narrow(10) };
    stage.reload(nothing);
    assert!(stage.out(clients[2]).starts_with(b"HTTP/1.1 404 "));
    stage.eof(clients[2]);
    for client in [open, clients[0], clients[1]] {
        end(&mut stage, client);
    }
    assert_over(&stage, [clients[0], clients[2]]);
}

#[test]
fn those_who_wait_do_not_wait_longer_for_it() {
    let mut stage = Stage::new(narrow(10), 8);
    let (open, _) = stage.open();
    let client = stage.request().0;
    stage.pass(ms(3000));
    stage.reload(narrow(10));
    stage.pass(ms(1999));
    assert!(stage.out(client).is_empty());
    stage.pass(ms(2));
    assert_turned_away(&mut stage, client);
    stage.eof(client);
    end(&mut stage, open);
    assert_over(&stage, [open, client]);
}

#[test]
fn a_shorter_queue_turns_the_last_away() {
    let mut stage = Stage::new(narrow(10), 8);
    let (open, _) = stage.open();
    let clients: Vec<_> = (0..3).map(|_| stage.request().0).collect();
    stage.reload(narrow(1));
    assert_eq!(waiting(&stage), 1);
    for client in &clients[1..] {
        assert_turned_away(&mut stage, *client);
        stage.eof(*client);
    }
    end(&mut stage, open);
    answer(&mut stage, clients[0]);
    end(&mut stage, clients[0]);
    assert_over(&stage, [clients[0], clients[1]]);
}

#[test]
fn open_sessions_keep_their_limits_and_timeouts() {
    let mut before = config(1);
    before.limits.frame_bytes_max = Some(1000);
    before.timeouts.idle = Some(ms(10_000));
    before.timeouts.close = ms(4000);
    let mut stage = Stage::new(before.clone(), 4);
    let (old, old_backend) = stage.open();
    let mut after = before;
    after.limits.frame_bytes_max = Some(10);
    after.timeouts.idle = Some(ms(1000));
    after.timeouts.close = ms(100);
    stage.reload(after);
    let (new, new_backend) = stage.open();
    let message = c(TEXT, &[b'x'; 100]);
    stage.give(old, &message);
    assert_eq!(stage.out(old_backend), message);
    stage.give(new, &message);
    assert_close(&mut stage, new_backend, 1009);
    stage.pass(ms(3000));
    assert!(!stage.is_open(new) && stage.is_open(old), "the new one has been closed, by the new times");
    stage.pass(ms(6900));
    assert_eq!(stage.out(old), b"");
    stage.pass(ms(200));
    assert_close(&mut stage, old, 1001);
    stage.pass(ms(3800));
    assert!(stage.is_open(old), "it has its 4 seconds to answer");
    stage.pass(ms(4000));
    assert_over(&stage, [old, old_backend]);
}

#[test]
fn a_new_timeout_holds_for_new_sessions() {
    let mut stage = Stage::new(config(1), 4);
    let (old, _) = stage.request();
    let mut after = config(1);
    after.timeouts.connect = ms(100);
    stage.reload(after);
    let (new, _) = stage.request();
    stage.pass(ms(101));
    assert!(stage.out(new).starts_with(b"HTTP/1.1 504 "));
    assert!(stage.is_open(old.peer()), "it began to connect under the old one");
    stage.eof(new);
    end(&mut stage, old);
    assert_over(&stage, [old, new]);
}

#[test]
fn the_next_attempt_to_connect_asks_the_new_table() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    let mut after = config(1);
    after.pools = vec![pool_of("other", &[9])];
    stage.reload(after);
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert_eq!(stage.dialled, [1, 9]);
    answer(&mut stage, client);
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn backends_that_stay_keep_their_counts() {
    let mut stage = Stage::new(narrow(0), 8);
    let (open, _) = stage.open();
    let mut after = narrow(0);
    after.pools[0].backends.insert(0, Address::Inet(([127, 0, 0, 1], 5).into()).into());
    after.limits.frame_bytes_max = Some(77);
    stage.reload(after);
    let sessions = |stage: &Stage, at: usize| stage.table.pools[0].members[at].state.sessions.load(Relaxed);
    assert_eq!((sessions(&stage, 0), sessions(&stage, 1)), (0, 1));
    let (other, _) = stage.open();
    assert_eq!(stage.dialled, [1, 5], "the first is still full");
    let late = stage.request().0;
    assert_turned_away(&mut stage, late);
    stage.eof(late);
    end(&mut stage, open);
    assert_eq!((sessions(&stage, 0), sessions(&stage, 1)), (1, 0));
    end(&mut stage, other);
    assert_over(&stage, [open, other]);
}

/// Discovery may lose a backend for a moment.
#[test]
fn a_backend_that_comes_back_still_has_its_sessions() {
    let mut stage = Stage::new(narrow(0), 8);
    let (open, _) = stage.open();
    for without in 1..=2 {
        let mut other = narrow(0);
        other.pools[0].backends = pool_of("chat", &[5]).backends;
        (0..without).for_each(|_| stage.reload(other.clone()));
        stage.reload(narrow(0));
        let late = stage.request().0;
        assert_turned_away(&mut stage, late);
        stage.eof(late);
    }
    end(&mut stage, open);
    assert_eq!(stage.table.pools[0].members[0].state.sessions.load(Relaxed), 0);
    assert_over(&stage, [open, open.peer()]);
}

/// Whatever state a session is in, it holds no table: one is as large as all its backends and routes.
#[test]
fn field_a09_a_table_lives_as_long_as_it_is_the_newest() {
    const UPLOAD: &[u8] = b"POST /up HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 100\r\n\r\n";
    let mut sticky = config(1);
    sticky.routes = vec![Route { plain_http: PlainHttp::Forward, ..Route::catch_all("all", 0, &sticky) }];
    sticky.pools[0].sticky.cookie = Some("seat".into());
    sticky.pools[0].eject.failures = Some(1);
    let mut renamed = sticky.clone();
    renamed.pools[0].name = "other".into();
    let gone = Config { pools: vec![pool_of("late", &[9])], ..sticky.clone() };
    let mut limited = sticky.clone();
    limited.routes[0].limits.frame_bytes_max = Some(1000);
    for after in [sticky.clone(), renamed, gone, limited, Config { routes: Vec::new(), ..sticky.clone() }] {
        let mut stage = Stage::new(sticky.clone(), 16);
        let first = Arc::downgrade(&stage.table);
        let backend_state = Arc::downgrade(&stage.table.pools[0].members[0].state);
        let silent = stage.accept();
        let (connecting, _) = stage.request();
        let (lost, _) = stage.request();
        let (answering, _) = stage.request();
        stage.connected(answering.peer(), Ok(()));
        let (failing, _) = stage.request();
        stage.connected(failing.peer(), Ok(()));
        let (uploading, _) = stage.ask(UPLOAD);
        stage.connected(uploading.peer(), Ok(()));
        let (open, _) = asked(&mut stage, REQUEST);
        stage.give(open.peer(), ANSWER);
        assert!(String::from_utf8(stage.out(open)).unwrap().contains("Set-Cookie: seat="));
        let (closing, _) = asked(&mut stage, REQUEST);
        stage.give(closing.peer(), ANSWER);
        stage.out(closing);
        stage.give(closing, &c(CLOSE, &1000_u16.to_be_bytes()));
        stage.reload(after);
        assert_eq!(first.strong_count(), 0);
        assert!(backend_state.strong_count() > 0);
        // Everybody goes on with what it had.
        let message = c(TEXT, b"still here");
        stage.out(open.peer());
        stage.give(open, &message);
        assert_eq!(stage.out(open.peer()), message);
        for client in [connecting, answering] {
            if client == connecting {
                stage.connected(client.peer(), Ok(()));
            }
            stage.give(client.peer(), ANSWER);
            let head = String::from_utf8(stage.out(client)).unwrap();
            assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Set-Cookie: seat="), "{head}");
        }
        stage.give(failing.peer(), b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
        stage.give(uploading, &[b'x'; 100]);
        stage.give(uploading.peer(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(stage.out(uploading).starts_with(b"HTTP/1.1 200 "));
        stage.connected(lost.peer(), Err(libc::ECONNREFUSED));
        for client in [silent, connecting, lost, answering, failing, uploading, open, closing] {
            if stage.is_open(client) {
                end(&mut stage, client);
            }
        }
        stage.pass(ms(60_000));
        assert_over(&stage, [open, closing]);
    }
}

#[test]
fn who_has_sent_half_a_request_is_routed_by_the_new_table() {
    let mut stage = Stage::new(config(1), 8);
    let client = stage.accept();
    stage.give(client, &REQUEST[..20]);
    let mut after = config(1);
    after.pools = vec![pool_of("other", &[9])];
    stage.reload(after);
    stage.give(client, &REQUEST[20..]);
    assert_eq!(stage.dialled, [9]);
    answer(&mut stage, client);
    end(&mut stage, client);
    assert_over(&stage, [client, client.peer()]);
}

fn listening(count: u16) -> Config {
    let address = |port| Address::Inet(([127, 0, 0, 1], 8000 + port).into());
    Config { listeners: (0..count).map(|port| address(port).into()).collect(), ..config(1) }
}

#[test]
fn listeners_come_and_go() {
    use Accepting::{Armed, Closed};
    let mut stage = Stage::new(listening(2), 8);
    let (open, backend) = stage.open();
    assert_eq!(stage.listeners(), [Armed, Armed]);
    // The first goes, and a third comes, which needs a slot of its own: the first is not closed yet.
    stage.reload_with(listening(2), &[1, 2]);
    assert_eq!(stage.listeners(), [Closed, Armed, Armed]);
    let message = c(TEXT, b"still here");
    stage.give(open, &message);
    assert_eq!(stage.out(backend), message);
    // A slot whose listener is closed is used again.
    stage.reload_with(listening(3), &[2, 3, 1]);
    assert_eq!(stage.listeners(), [Armed, Armed, Armed]);
    // The same ones in another order: nothing happens to them.
    stage.reload_with(listening(3), &[1, 2, 3]);
    stage.reload_with(listening(1), &[3]);
    assert_eq!(stage.listeners(), [Armed, Closed, Closed]);
    let (late, _) = stage.open();
    end(&mut stage, open);
    end(&mut stage, late);
    assert_over(&stage, [open, late]);
}

#[test]
fn a_listener_that_comes_while_all_slots_are_taken_waits_for_one() {
    use Accepting::{Armed, Closed, Idle};
    let mut stage = Stage::new(listening(1), 1);
    let (open, backend) = stage.open();
    let refused = stage.accept();
    stage.flush();
    assert_eq!(stage.listeners(), [Idle]);
    stage.reload_with(listening(1), &[7]);
    assert_eq!(stage.listeners(), [Closed, Idle], "the old one is closed at once, as it does not accept");
    stage.give(refused, REQUEST);
    stage.eof(refused);
    assert_eq!(stage.listeners(), [Closed, Armed]);
    end(&mut stage, open);
    assert_over(&stage, [open, backend]);
}

/// Routes may name listeners; a session whose own is gone is of none.
#[test]
fn a_request_is_routed_by_its_listener_as_long_as_that_is_there() {
    let by_listener = |names: &[&str]| {
        let mut config = listening(names.len() as u16);
        config.listeners.iter_mut().zip(names).for_each(|(listener, name)| listener.name = (*name).into());
        config.pools.push(pool_of("inner", &[9]));
        let mut route = ringway::config::Route::catch_all("inner", 1, &config);
        route.listeners = vec!["a".into()];
        config.routes.push(route);
        config
    };
    let mut stage = Stage::new(by_listener(&["a", "b"]), 8);
    let waiting: Vec<_> = (0..2).map(|_| stage.accept()).collect();
    stage.give(waiting[0], REQUEST);
    assert_eq!(stage.dialled, [9]);
    // "a" is another listener now, and the one that this client has come to is gone.
    stage.reload_with(by_listener(&["b", "a"]), &[1, 5]);
    stage.give(waiting[1], REQUEST);
    assert_eq!(stage.dialled, [9, 1]);
    waiting.iter().for_each(|client| end(&mut stage, *client));
    assert_over(&stage, [waiting[0], waiting[1]]);
}

/// Who has been let in and waits for room only is not counted again.
#[test]
fn who_has_been_let_in_is_not_counted_again() {
    let mut before = narrow(10);
    before.pools[0].admission.handshakes_per_second_max = Some(1);
    before.pools[0].admission.handshakes_burst = Some(3);
    let mut stage = Stage::new(before.clone(), 8);
    stage.pass(ms(1000));
    let (open, _) = stage.open();
    let waits = stage.request().0;
    stage.reload(before.clone());
    stage.reload(before);
    end(&mut stage, open);
    answer(&mut stage, waits);
    end(&mut stage, waits);
    let third = stage.request().0;
    assert_eq!(served(&stage, &[third]), [true], "it is the third of three");
    end(&mut stage, third);
}
