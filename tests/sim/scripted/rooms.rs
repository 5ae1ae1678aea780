//! Sessions of one key stay together while backends come and go (`hash_keep`).

use std::sync::atomic::Ordering::Relaxed;

use ringway::config::{Balance, Config, HashKeep, HashKey};
use ringway::table::state::Checked;

use super::plain::asked;
use super::*;
use crate::stage::{ANSWER, config};

fn rooms(hash: &str, keep: HashKeep) -> Config {
    let mut config = config(4);
    config.pools[0].balance = Balance::ConsistentHash;
    config.pools[0].hash = hash.parse().unwrap();
    config.pools[0].hash_keep = keep;
    config.pools[0].sessions.close_spread = ms(2000);
    config.pools[0].eject.available_percent_min = 0;
    config
}

fn request(room: &str) -> Vec<u8> {
    format!(
        "GET /rooms/{room}?room={room} HTTP/1.1\r\nHost: chat.example\r\nX-Room: {room}\r\nCookie: a=b; room={room}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Somebody opens a session in this room.
fn enter(stage: &mut Stage, room: &str) -> ConnId {
    let (client, backend) = asked(stage, &request(room));
    stage.give(backend, ANSWER);
    assert!(stage.out(client).starts_with(b"HTTP/1.1 101 "));
    stage.out(backend);
    client
}

fn at(stage: &Stage, client: ConnId) -> u16 {
    stage.port(client.peer())
}

fn check(stage: &Stage, port: u16, checked: Checked) {
    let pool = &stage.table.pools[0];
    pool.members[usize::from(port) - 1].state.set_checked(checked);
    pool.state.changed();
}

/// A room whose home has come back while two sit elsewhere: the two, where they are, and the home.
fn away(stage: &mut Stage) -> ([ConnId; 2], u16, u16) {
    let first = enter(stage, "red");
    let home = at(stage, first);
    end(stage, first);
    check(stage, home, Checked::Down);
    let two = [enter(stage, "red"), enter(stage, "red")];
    let other = at(stage, two[0]);
    assert!(other != home && at(stage, two[1]) == other);
    check(stage, home, Checked::Up);
    (two, other, home)
}

fn leave(stage: &mut Stage, clients: &[ConnId]) {
    clients.iter().for_each(|client| end(stage, *client));
    assert!(stage.table.pools[0].state.keys.is_empty());
    assert_over(stage, [clients[0], clients[0].peer()]);
}

#[test]
fn field_b02_newcomers_join_those_who_are_there() {
    for hash in ["query:room", "header:X-Room", "cookie:room", "path", "path:2"] {
        for (keep, joins) in [(HashKeep::On, true), (HashKeep::Off, false), (HashKeep::Home, false)] {
            let mut config = rooms(hash, keep);
            config.pools[0].hash_load_percent_max = Some(125).filter(|_| keep != HashKeep::Off);
            let mut stage = Stage::new(config, 8);
            let ([one, two], other, home) = away(&mut stage);
            let third = enter(&mut stage, "red");
            assert_eq!(at(&stage, third), if joins { other } else { home }, "{hash} {keep:?}");
            stage.wake();
            stage.pass(ms(2000));
            for client in [one, two] {
                match keep {
                    HashKeep::Home => assert_close(&mut stage, client, 1012),
                    _ => assert_eq!(stage.out(client), b"", "nobody is sent away"),
                }
            }
            assert_eq!(stage.out(third), b"");
            leave(&mut stage, &[one, two, third]);
        }
    }
    // By the address there are no rooms.
    let mut config = rooms("client-ip", HashKeep::On);
    config.pools[0].hash_load_percent_max = None;
    let mut stage = Stage::new(config, 8);
    let (_, _, home) = away(&mut stage);
    let third = enter(&mut stage, "red");
    assert_eq!(at(&stage, third), home);
    assert!(stage.table.pools[0].state.keys.is_empty());
}

#[test]
fn field_b02_a_room_that_has_emptied_goes_home() {
    let mut stage = Stage::new(rooms("query:room", HashKeep::On), 8);
    let ([one, two], _, home) = away(&mut stage);
    end(&mut stage, one);
    end(&mut stage, two);
    let third = enter(&mut stage, "red");
    assert_eq!(at(&stage, third), home);
    leave(&mut stage, &[third]);
}

#[test]
fn field_b02_nobody_joins_at_a_backend_that_is_drained_down_ejected_or_full() {
    for what in ["drained", "down", "ejected", "full", "gone"] {
        let mut stage = Stage::new(rooms("query:room", HashKeep::On), 8);
        let (two, other, home) = away(&mut stage);
        let member = usize::from(other) - 1;
        let mut after = rooms("query:room", HashKeep::On);
        match what {
            "drained" => after.pools[0].backends[member].drain = true,
            "full" => after.pools[0].backends[member].connections_max = Some(2),
            "gone" => drop(after.pools[0].backends.remove(member)),
            "down" => check(&stage, other, Checked::Down),
            _ => {
                let pool = &stage.table.pools[0];
                pool.members[member].state.ejected_until.store(1 << 40, Relaxed);
                pool.state.changed();
            }
        }
        stage.reload(after);
        let third = enter(&mut stage, "red");
        assert_eq!(at(&stage, third), home, "{what}");
        let fourth = enter(&mut stage, "red");
        assert_eq!(at(&stage, fourth), home, "{what}");
        leave(&mut stage, &[two[0], two[1], third, fourth]);
    }
}

#[test]
fn field_b02_the_larger_part_of_a_room_is_joined() {
    let mut stage = Stage::new(rooms("query:room", HashKeep::On), 16);
    let ([one, two], other, home) = away(&mut stage);
    check(&stage, other, Checked::Down);
    let mut all = vec![one, two];
    all.extend((0..3).map(|_| enter(&mut stage, "red")));
    assert!(all[2..].iter().all(|client| at(&stage, *client) == home));
    check(&stage, other, Checked::Up);
    all.push(enter(&mut stage, "red"));
    assert_eq!(at(&stage, all[5]), home);
    leave(&mut stage, &all);
}

#[test]
fn field_b02_rooms_are_those_of_all_workers_and_tables() {
    for keep in [HashKeep::On, HashKeep::Home] {
        let mut stage = Stage::new(rooms("query:room", keep), 8);
        let ([one, two], other, home) = away(&mut stage);
        let mut beside = stage.beside(8);
        let third = enter(&mut beside, "red");
        assert_eq!(at(&beside, third), if keep == HashKeep::On { other } else { home });
        // This worker has heard of it from the other only.
        stage.wake();
        stage.pass(ms(2000));
        match keep {
            HashKeep::Home => assert_close(&mut stage, one, 1012),
            _ => assert_eq!(stage.out(one), b""),
        }
        // A table that only this worker has yet.
        let mut after = rooms("query:room", keep);
        after.pools[0].backends.rotate_left(1);
        after.pools[0].connections_max = Some(100);
        stage.reload(after);
        let fourth = enter(&mut beside, "red");
        assert_eq!(at(&beside, fourth), at(&beside, third));
        let fifth = enter(&mut stage, "red");
        assert_eq!(at(&stage, fifth), at(&beside, third));
        [third, fourth].into_iter().for_each(|client| end(&mut beside, client));
        leave(&mut stage, &[one, two, fifth]);
    }
}

/// The bound on the load is for keys that nobody has yet.
#[test]
fn field_b02_a_large_room_stays_one() {
    for (keep, together) in [(HashKeep::On, true), (HashKeep::Off, false), (HashKeep::Home, true)] {
        let mut stage = Stage::new(rooms("query:room", keep), 50);
        let all: Vec<_> = (0..40).map(|_| enter(&mut stage, "red")).collect();
        assert_eq!(all.iter().all(|client| at(&stage, *client) == at(&stage, all[0])), together, "{keep:?}");
        stage.wake();
        stage.pass(ms(2000));
        assert!(all.iter().all(|client| stage.out(*client).is_empty()));
        leave(&mut stage, &all);
    }
}

/// Who cannot come home must not be sent there again and again.
#[test]
fn field_b02_nobody_is_sent_home_where_there_is_no_room() {
    let mut config = rooms("query:room", HashKeep::Home);
    config.pools[0].connections_max = Some(3);
    let mut stage = Stage::new(config, 16);
    let all: Vec<_> = (0..5).map(|_| enter(&mut stage, "red")).collect();
    assert!(at(&stage, all[3]) != at(&stage, all[0]) && at(&stage, all[4]) == at(&stage, all[3]));
    for _ in 0..3 {
        stage.wake();
        stage.pass(ms(3000));
    }
    assert!(all.iter().all(|client| stage.out(*client).is_empty()));
    leave(&mut stage, &all);
}

/// Whoever fails on the way leaves no trace.
#[test]
fn field_b02_handshakes_that_fail_are_in_no_room() {
    let mut stage = Stage::new(rooms("query:room", HashKeep::On), 8);
    let (client, backend) = stage.ask(&request("red"));
    stage.connected(backend, Err(libc::ECONNREFUSED));
    stage.connected(backend, Ok(()));
    assert_ne!(stage.dialled[0], stage.dialled[1]);
    stage.give(backend, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    stage.eof(client);
    let (client, backend) = stage.ask(&request("blue"));
    stage.reset(client);
    assert!(stage.table.pools[0].state.keys.is_empty());
    assert_over(&stage, [client, backend]);
    assert_eq!("query:room".parse(), Ok(HashKey::Query("room".into())));
}
