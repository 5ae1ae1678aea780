//! Row L24: reload after reload, with every kind of change in turn, under sessions that talk all the time and others that
//! come and go. None is lost, no byte is altered, nobody is refused, and nothing is left of what was replaced.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use crate::fleet::{Edge, free_address};
use crate::harness::{Process, Ringway, Setup, peer, scratch, send_signal};
use crate::wire::*;

const RELOADS: usize = 100;
/// Of each library, and ours.
const SESSIONS: [usize; 3] = [50, 50, 100];
/// From the end of the first changes of every kind to the end of all.
const GROWTH_KIB_MAX: usize = 8 << 10;

/// What the file says after so many reloads. Each reload turns one of these around, one after the other.
struct Turns([bool; 12]);

impl Turns {
    fn after(reloads: usize) -> Turns {
        let mut turns = [false; 12];
        (0..reloads).for_each(|reload| turns[reload % 12] ^= true);
        Turns(turns)
    }

    fn config(&self, backends: &[String], listeners: &[String; 3]) -> String {
        let Turns([more, drained, weighted, port, unix, routes, pool, frames, times, hashed, cookies, bounds]) = *self;
        let pick = |on: bool, yes: &str, no: &str| if on { yes } else { no }.to_owned();
        let mut text = pick(frames, "[limits]\nframe_bytes_max = \"1MiB\"\nmessage_bytes_max = \"2MiB\"\n", "");
        text += &pick(times, "[timeouts]\nidle = \"1h\"\nclose = \"3s\"\nsend_stall = \"20s\"\n", "");
        text += &format!("[[listeners]]\naddress = \"{}\"\n", listeners[0]);
        for (there, address) in [(port, &listeners[1]), (unix, &listeners[2])] {
            text += &pick(there, &format!("[[listeners]]\naddress = \"{address}\"\n"), "");
        }
        // The sessions' pool, or another one that is new each time.
        text += &format!("[[pools]]\nname = \"{}\"\n", pick(pool, "other", "chat"));
        text += &pick(hashed, "balance = \"consistent-hash\"\n", "balance = \"least-connections\"\n");
        text += &pick(bounds, "connections_max = 1000\nslow_start = \"1s\"\n", "");
        text += &pick(cookies, "[pools.sticky]\ncookie = \"edge\"\nsecret = \"0123456789abcdef\"\n", "");
        text += &pick(bounds, "[pools.admission]\nqueue_max = 100\nbackend_handshakes_max = 50\n", "");
        for (number, address) in backends[..if more { 4 } else { 3 }].iter().enumerate() {
            text += &format!("[[pools.backends]]\naddress = \"{address}\"\n");
            text += &pick(drained && number == 1, "drain = true\n", "");
            text += &pick(weighted && number == 0, "weight = 7\n", "");
        }
        let many = if routes { 400 } else { 1 };
        for number in 0..many {
            text += &format!("[[routes]]\npath = \"/room-{number}\"\npool = \"{}\"\n", pick(pool, "other", "chat"));
        }
        text + &format!("[[routes]]\npool = \"{}\"\n", pick(pool, "other", "chat"))
            + &pick(cookies, "[routes.response_headers]\nset = { X-Edge = \"new\" }\n", "")
    }
}

/// A backend of a foreign library, and where it is.
fn backend(script: &str) -> (Process, String) {
    let mut process = peer(script, &[]);
    let port = process.line(&["port "]).split_whitespace().nth(1).unwrap().to_owned();
    (process, format!("127.0.0.1:{port}"))
}

fn pattern(session: usize, number: usize) -> Vec<u8> {
    let size = [0, 1, 50, 125, 126, 500, 4096, 70_000][(session + number) % 8];
    let body = (0..size).map(|at| (session * 7 + number + at) as u8);
    format!("{session} {number} ").into_bytes().into_iter().chain(body).collect()
}

/// Sessions of our own. They end when told to, in order, and tell how many messages have come back.
fn talk(relay: &Ringway, sessions: std::ops::Range<usize>, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let mut clients: Vec<(usize, Wire)> = sessions.map(|number| (number, open(&mut relay.client()))).collect();
    std::thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Relaxed) {
            for (session, client) in &mut clients {
                client.client_frame(FIN | BINARY, pattern(*session, number));
            }
            for (session, client) in &mut clients {
                client.expect_frame(FIN | BINARY, pattern(*session, number));
            }
            number += 1;
            // The load, not a wait for anything.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        clients.iter_mut().for_each(|(_, client)| leave(client));
        number * clients.len()
    })
}

fn open(client: &mut Wire) -> Wire {
    client.send(request(&[]));
    let head = client.head();
    assert_eq!(head.status(), 101, "{}", head.text());
    client.split()
}

fn leave(client: &mut Wire) {
    client.client_frame(FIN | CLOSE, close_payload(1000, ""));
    client.expect_close(&[1000]);
    client.expect_end();
}

/// Opens a session, says something, and ends it; again and again.
fn come_and_go(relay: &Ringway, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> JoinHandle<()> {
    let address = relay.address;
    std::thread::spawn(move || {
        while !stop.load(Relaxed) {
            let mut client = open(&mut Wire::connect(address));
            client.client_frame(FIN | TEXT, "hello");
            client.expect_frame(FIN | TEXT, "hello");
            leave(&mut client);
            count.fetch_add(1, Relaxed);
        }
    })
}

/// Those that listeners name when they are there.
fn listeners() -> [String; 3] {
    let free = || free_address().to_string();
    [free(), free(), format!("unix:{}", scratch("load.sock").display())]
}

#[test]
fn l24_reload_under_load_loses_nobody_and_nothing() {
    let backends = ["server.py", "server.js", "server.py", "server.js"].map(backend);
    let addresses = backends.each_ref().map(|(_, address)| address.clone());
    let listeners = listeners();
    let config = |reloads: usize| Turns::after(reloads).config(&addresses, &listeners);
    let edge = Edge { relay: Ringway::start(&Setup { settings: config(0), workers: 2, ..Setup::default() }) };

    let url = format!("ws://{}/echo", edge.relay.address);
    let mut foreign = ["steady.py", "steady.js"].map(|script| peer(script, &[&url, &SESSIONS[0].to_string()]));
    for (process, count) in foreign.iter_mut().zip(SESSIONS) {
        process.line(&[&format!("open {count}")]);
    }
    let (stop, come) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let ours: Vec<_> =
        (0..SESSIONS[2]).step_by(10).map(|first| talk(&edge.relay, first..first + 10, stop.clone())).collect();
    // Those of them that end by a panic end the test.
    let guests: Vec<_> = (0..2).map(|_| come_and_go(&edge.relay, stop.clone(), come.clone())).collect();

    let mut warm_kib = 0;
    for reload in 1..=RELOADS {
        let before = come.load(Relaxed);
        edge.reload(&config(reload));
        crate::harness::until("somebody comes and goes", || {
            assert!(!ours.iter().any(JoinHandle::is_finished), "a session of ours is lost");
            assert!(!guests.iter().any(JoinHandle::is_finished), "somebody was refused");
            come.load(Relaxed) > before
        });
        if reload == 24 {
            warm_kib = edge.relay.resident_kib();
        }
    }
    let grown = edge.relay.resident_kib().saturating_sub(warm_kib);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more than {warm_kib}");

    stop.store(true, Relaxed);
    guests.into_iter().for_each(|guest| guest.join().unwrap());
    // All but the newest, also the first, whose sessions have been here all the time.
    edge.until_lines(RELOADS, &["table freed"]);
    let messages: usize = ours.into_iter().map(|session| session.join().unwrap()).sum();
    assert!(messages > SESSIONS[2], "{messages} messages");
    for process in &mut foreign {
        send_signal(process.pid(), "TERM");
        process.line(&["ok "]);
        assert_eq!(process.wait().code(), Some(0));
    }
    assert!(!Path::new(listeners[2].trim_start_matches("unix:")).exists() || RELOADS / 12 % 2 == 1);
    assert_eq!(edge.lines(&[" reloaded "]), RELOADS);
    assert_eq!(edge.lines(&["nothing has changed"]), 0);
}
