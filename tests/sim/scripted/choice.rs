//! Which backends are tried for one request, and which failures are held against them.

use std::net::IpAddr;

use ringway::config::Config;

use super::queues::assert_turned_away;
use super::*;
use crate::stage::{ANSWER, REQUEST, config};

const GARBAGE: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";

/// The first so many are backups.
fn with_backups(backends: u16, backups: usize) -> Config {
    let mut config = config(backends);
    config.pools[0].backends[..backups].iter_mut().for_each(|backend| backend.backup = true);
    config
}

/// All connects fail, but for those to backends of these ports; tells which were tried.
fn dial(stage: &mut Stage, well: &[u16]) -> (ConnId, Vec<u16>) {
    let before = stage.dialled.len();
    let (client, backend) = stage.request();
    loop {
        let tried = stage.dialled.len();
        let is_well = well.contains(stage.dialled.last().unwrap());
        stage.connected(backend, if is_well { Ok(()) } else { Err(libc::ECONNREFUSED) });
        if is_well || stage.dialled.len() == tried {
            return (client, stage.dialled[before..].to_vec());
        }
    }
}

fn opens(stage: &mut Stage, client: ConnId) {
    stage.out(client.peer());
    stage.give(client.peer(), ANSWER);
    assert_eq!(stage.out(client), ANSWER);
    end(stage, client);
}

/// However many primaries are dead, and known to be or not, a live backup serves from the first handshake on.
#[test]
fn field_b01_a_live_backup_is_reached_whatever_is_dead() {
    for dead in 1..=5 {
        let mut stage = Stage::new(with_backups(dead + 1, 1), 4);
        for _ in 0..14 {
            let (client, tried) = dial(&mut stage, &[1]);
            assert_eq!(tried.last(), Some(&1), "with {dead} dead primaries");
            opens(&mut stage, client);
            stage.pass(ms(700));
        }
    }
}

/// Two that are restarted one after the other: the first is well again while it is still ejected.
#[test]
fn field_b01_who_is_ejected_is_asked_when_nobody_else_is_left() {
    let mut stage = Stage::new(config(2), 4);
    while stage.metrics.ejections.get() == 0 {
        let (client, tried) = dial(&mut stage, &[2]);
        assert_eq!(tried.last(), Some(&2));
        opens(&mut stage, client);
    }
    // Now the first is back, and the second is gone.
    for _ in 0..6 {
        let (client, tried) = dial(&mut stage, &[1]);
        assert_eq!(tried.last(), Some(&1));
        opens(&mut stage, client);
    }
    // Backups before those who are ejected, and these in their classes too.
    let mut config = with_backups(4, 2);
    config.pools[0].eject.available_percent_min = 0;
    config.pools[0].eject.failures = Some(1);
    let mut stage = Stage::new(config, 4);
    let (client, tried) = dial(&mut stage, &[]);
    assert_eq!((tried.len(), tried[..2].iter().max(), tried[2] <= 2), (3, Some(&4), true), "{tried:?}");
    assert_turned_away(&mut stage, client);
    stage.eof(client);
    let left = 3 - tried[2];
    let (client, tried) = dial(&mut stage, &[3]);
    assert_eq!(
        (tried[0], tried.last()),
        (left, Some(&3)),
        "{tried:?}: the backup that is well, then ejected primaries"
    );
    opens(&mut stage, client);
}

/// A last try at a primary that has not failed is better than one at somebody who has.
#[test]
fn field_b01_the_last_try_is_no_ejected_one_while_there_are_others() {
    let mut config = config(8);
    config.pools[0].eject.failures = Some(1);
    let mut stage = Stage::new(config, 4);
    for _ in 0..4 {
        let (client, tried) = dial(&mut stage, &[]);
        let known = stage.dialled.len() - tried.len();
        let again = tried.iter().filter(|port| stage.dialled[..known].contains(port)).count();
        assert_eq!(again, 0, "{:?}", stage.dialled);
        assert_turned_away(&mut stage, client);
        stage.eof(client);
        if stage.dialled.len() >= 6 {
            return;
        }
    }
}

#[test]
fn field_c03_tries_are_counted() {
    for (max, most) in [(3, 3), (1, 1), (2, 2), (100, 20)] {
        let mut config = config(20);
        config.pools[0].admission.tries_max = max;
        config.pools[0].eject.failures = None;
        let mut stage = Stage::new(config.clone(), 4);
        let (client, mut tried) = dial(&mut stage, &[]);
        assert_eq!(tried.len(), most);
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), most, "nobody twice");
        assert_turned_away(&mut stage, client);
        assert_ends(&mut stage, [client, client.peer()]);
    }
}

/// A reload in between begins no new row of tries.
#[test]
fn field_c03_tries_are_counted_over_a_reload() {
    let mut stage = Stage::new(config(20), 4);
    let (client, backend) = stage.request();
    for _ in 0..2 {
        stage.reload(config(20));
        stage.connected(backend, Err(libc::ECONNREFUSED));
    }
    assert_eq!(stage.dialled.len(), 3);
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert_eq!(stage.dialled.len(), 3);
    assert_turned_away(&mut stage, client);
    assert_ends(&mut stage, [client, backend]);
}

/// Nobody answers: `timeouts.connect` ends each try, `timeouts.dial` all of them, and each has its share.
#[test]
fn field_c03_all_tries_together_have_one_deadline() {
    for (connect, dial, tries_max, shares) in [
        (5000, 15_000, 3, vec![5000, 5000, 5000]),
        (5000, 3000, 3, vec![1000, 1000, 1000]),
        (1000, 3_600_000, 3, vec![1000, 1000, 1000]),
        (60_000, 9000, 2, vec![4500, 4500]),
        (5000, 7000, 1, vec![5000]),
    ] {
        let mut config = config(20);
        (config.timeouts.connect, config.timeouts.dial) = (ms(connect), ms(dial));
        config.pools[0].admission.tries_max = tries_max;
        let mut stage = Stage::new(config, 4);
        let (client, backend) = stage.request();
        for (at, share) in shares.iter().enumerate() {
            assert_eq!(stage.dialled.len(), at + 1);
            stage.pass(ms(share - 10));
            assert_eq!(stage.dialled.len(), at + 1, "connect {connect}, dial {dial}: not before its time");
            stage.pass(ms(10));
        }
        assert_eq!(stage.dialled.len(), shares.len());
        assert!(stage.out(client).starts_with(b"HTTP/1.1 504 "), "connect {connect}, dial {dial}");
        assert_ends(&mut stage, [client, backend]);
    }
    // One backend alone has all of the time.
    let mut config = config(1);
    (config.timeouts.connect, config.timeouts.dial) = (ms(60_000), ms(9000));
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.request();
    stage.pass(ms(8998));
    assert!(stage.out(client).is_empty());
    stage.pass(ms(3));
    assert!(stage.out(client).starts_with(b"HTTP/1.1 504 "));
    assert_ends(&mut stage, [client, backend]);
}

/// The try that is under way goes on for a client that has only ended its half; there is no other.
#[test]
fn field_c03_nobody_else_is_tried_for_a_client_that_has_gone() {
    for error in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
        let mut stage = Stage::new(config(20), 4);
        let (client, backend) = stage.request();
        stage.eof(client);
        assert_eq!(stage.dialled.len(), 1);
        stage.connected(backend, Err(error));
        assert_eq!(stage.dialled.len(), 1);
        assert_over(&stage, [client, backend]);
    }
    let mut stage = Stage::new(config(20), 4);
    let (client, backend) = stage.request();
    stage.reset(client);
    stage.flush();
    assert_eq!(stage.dialled.len(), 1);
    assert_over(&stage, [client, backend]);
    // One that is in time hears its answer.
    let (client, backend) = stage.request();
    stage.eof(client);
    stage.connected(backend, Ok(()));
    stage.give(backend, ANSWER);
    assert!(stage.out(client).starts_with(ANSWER));
    assert_ends(&mut stage, [client, backend]);
}

/// What no other connect would find either ends the tries; a port that is lacking towards one backend does not.
#[test]
fn field_c03_a_lack_of_this_machine_ends_the_tries() {
    for (error, tries) in
        [(libc::EMFILE, 1), (libc::ENFILE, 1), (libc::ENOMEM, 1), (libc::ENOBUFS, 1), (libc::EADDRNOTAVAIL, 3)]
    {
        let mut stage = Stage::new(config(20), 4);
        let (client, backend) = stage.request();
        for _ in 0..tries {
            assert!(stage.out(client).is_empty());
            stage.connected(backend, Err(error));
        }
        assert_eq!(stage.dialled.len(), tries, "errno {error}");
        assert_turned_away(&mut stage, client);
        assert_eq!(stage.metrics.ejections.get(), 0);
        assert_ends(&mut stage, [client, backend]);
    }
}

/// How a backend fails a request that it does not like.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Answers(&'static [u8]),
    HangsUp,
    Resets,
}

/// Clients can make a backend do all of these. The last two are of an offer that it reads otherwise than the relay.
const PROVOKED: [Fails; 7] = [
    Fails::Answers(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    Fails::Answers(b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n"),
    Fails::Answers(GARBAGE),
    Fails::HangsUp,
    Fails::Resets,
    Fails::Answers(
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: x-webkit\r\n\r\n",
    ),
    Fails::Answers(
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: unasked\r\n\r\n",
    ),
];

/// Four backends and a breaker that opens when half of ten have failed.
fn delicate() -> Config {
    let mut config = config(4);
    let breaker = &mut config.pools[0].breaker;
    (breaker.failures_percent, breaker.handshakes_min, breaker.window) = (Some(50), 10, ms(600_000));
    config
}

fn fail(stage: &mut Stage, fails: Fails) {
    let (client, backend) = stage.ask(REQUEST);
    stage.connected(backend, Ok(()));
    stage.out(backend);
    match fails {
        Fails::Answers(answer) => stage.give(backend, answer),
        Fails::HangsUp => stage.eof(backend),
        Fails::Resets => stage.reset(backend),
    }
    assert!(stage.out(client).starts_with(b"HTTP/1.1 5"));
    assert_ends(stage, [client, backend]);
}

#[test]
fn field_a02_field_r41_one_client_takes_no_backend_and_no_pool_away() {
    for fails in PROVOKED {
        let mut stage = Stage::new(delicate(), 8);
        for _ in 0..40 {
            fail(&mut stage, fails);
            stage.pass(ms(50));
        }
        assert_eq!((stage.dialled.len(), stage.metrics.ejections.get()), (40, 0), "{fails:?}");
        let (client, backend) = stage.open();
        end(&mut stage, client);
        assert_over(&stage, [client, backend]);
    }
}

/// Many clients that meet the same are believed, but for what follows from the offers that they all make.
#[test]
fn field_a02_many_clients_are_believed() {
    for (at, fails) in PROVOKED.into_iter().enumerate() {
        let mut stage = Stage::new(delicate(), 8);
        for client in 0..24 {
            stage.peer = IpAddr::from([192, 0, 2, client]);
            if stage.metrics.ejections.get() == 0 {
                fail(&mut stage, fails);
            }
        }
        let is_of_the_offer = at >= 5;
        assert_eq!(stage.metrics.ejections.get() > 0, !is_of_the_offer, "{fails:?}");
    }
}

/// Silence and 502 to 504 count at once, whoever meets them, or what `eject.statuses` says.
#[test]
fn field_r41_statuses_that_count_at_once() {
    for (statuses, status, counts) in [
        (vec![502, 503, 504], "502", true),
        (vec![502, 503, 504], "504", true),
        (vec![502, 503, 504], "505", false),
        (vec![500], "500", true),
        (vec![500], "503", false),
        (vec![429], "429", true),
        (vec![], "502", false),
    ] {
        let mut config = config(4);
        config.pools[0].eject.statuses = statuses;
        let mut stage = Stage::new(config, 4);
        for _ in 0..12 {
            let (client, backend) = stage.request();
            stage.connected(backend, Ok(()));
            stage.give(backend, format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes());
            stage.eof(client);
        }
        assert_eq!(stage.metrics.ejections.get() > 0, counts, "{status}");
    }
}
