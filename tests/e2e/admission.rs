//! How many a pool lets in: limits of sessions and handshakes, the queue before them, and who is told to come back later.

use std::sync::Barrier;
use std::time::Instant;

use crate::fleet::*;
use crate::harness::{close, refusal, until};
use crate::plain::{answered, forwarded, plain};
use crate::site::{Site, ask};
use crate::wire::*;

/// A pool of these hosts, and `[pools.admission]`.
fn limited(hosts: &[&Host], options: &str, admission: &str) -> String {
    pool(hosts, options) + "[pools.admission]\n" + admission
}

#[test]
fn backends_have_no_more_sessions_than_they_may() {
    let hosts = Host::many(3);
    let (first, others) = (&hosts[0], [&hosts[1], &hosts[2]]);
    let own = format!("[[pools.backends]]\naddress = \"{}\"\nconnections_max = 1\n", first.address);
    let tables: String =
        others.iter().map(|host| format!("[[pools.backends]]\naddress = \"{}\"\n", host.address)).collect();
    let edge = Edge::start(2, &format!("[[pools]]\nname = \"chat\"\nconnections_max = 2\n{own}{tables}"));
    let mut sessions: Vec<_> = (0..5).map(|_| edge.open(&[])).collect();
    assert_eq!([first.open(), others[0].open(), others[1].open()], [1, 2, 2]);
    for _ in 0..5 {
        says_when(&edge.refused(503), 5);
    }
    let (mut client, host) = sessions.pop().unwrap();
    leave(&mut client);
    drop(client);
    // The only room there is.
    let mut session = None;
    until("there is room again", || {
        let mut client = edge.ask(&[]);
        let head = client.head();
        let found = head.status() == 101;
        if found {
            session = Some((client, head.get("X-Backend").unwrap()));
        }
        found
    });
    assert_eq!(session.unwrap().1, host);
    assert_eq!([first.open_peak(), others[0].open_peak(), others[1].open_peak()], [1, 2, 2]);
}

#[test]
fn a_pool_takes_so_many_handshakes_per_second() {
    let host = Host::new();
    let edge = Edge::start(
        2,
        &limited(&[&host], "", "handshakes_per_second_max = 1\nhandshakes_burst = 5\nretry_after = \"20s\"\n"),
    );
    let began = Instant::now();
    let mut came_through = 0;
    let mut hints = Vec::new();
    for _ in 0..40 {
        let mut client = edge.ask(&[]);
        let head = client.head();
        match head.status() {
            101 => came_through += 1,
            503 => hints.push(says_when(&head, 20)),
            other => panic!("{other}"),
        }
    }
    let allowed = 5 + began.elapsed().as_secs() as usize + 1;
    assert!((5..=allowed).contains(&came_through), "{came_through} of {allowed}");
    assert_eq!(host.asked().len(), came_through, "no backend heard of the others");
    hints.dedup();
    assert!(hints.len() > 1, "not everybody is to come back at the same moment: {hints:?}");
}

#[test]
fn handshakes_beyond_the_rate_wait_for_their_turn() {
    let host = Host::new();
    let edge = Edge::start(
        2,
        &limited(
            &[&host],
            "",
            "handshakes_per_second_max = 50\nhandshakes_burst = 1\nqueue_max = 100\nqueue_timeout = \"1m\"\n",
        ),
    );
    let clients: Vec<_> = (0..50).map(|_| edge.ask(&[])).collect();
    let mut sessions: Vec<_> = clients.into_iter().map(opened).collect();
    assert_eq!(host.asked().len(), 50);
    sessions.iter_mut().for_each(|(client, _)| leave(client));
}

#[test]
fn a_storm_never_asks_more_of_a_backend_than_it_takes() {
    const CLIENTS: usize = 200;
    let hosts = Host::many(2);
    hosts.iter().for_each(|host| host.set(Mood::Held));
    let all: Vec<&Host> = hosts.iter().collect();
    let edge =
        Edge::start(2, &limited(&all, "", "backend_handshakes_max = 3\nqueue_max = 200\nqueue_timeout = \"1m\"\n"));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| edge.ask(&[])).collect();
    let asked = || hosts.iter().map(|host| host.asked().len()).sum::<usize>();
    // One at a time goes on, and each makes room for exactly one more.
    for done in 0..CLIENTS {
        let (before, host) = (asked(), &hosts[done % 2]);
        until("as many as may", || asked() >= (done + 6).min(CLIENTS));
        assert!(before <= done + 6);
        // Near the end one may have had all of its own.
        let host = if host.handshaking() > 0 { host } else { &hosts[1 - done % 2] };
        host.release(1);
        until("it is answered", || hosts.iter().map(Host::open).sum::<usize>() > done);
    }
    assert_eq!([hosts[0].handshaking_peak(), hosts[1].handshaking_peak()], [3, 3]);
    for client in &mut clients {
        assert_eq!(client.head().status(), 101);
    }
}

/// One worker, a backend that lets handshakes go one by one, and a session that shows when the worker has seen all that came
/// before.
struct Line {
    /// Gone before the relay is, which would wait for its Close.
    witness: Wire,
    edge: Edge,
    host: Host,
}

impl Line {
    fn new(admission: &str) -> Line {
        let host = Host::new();
        let edge = Edge::start(1, &limited(&[&host], "", &format!("backend_handshakes_max = 1\n{admission}")));
        let (witness, _) = edge.open(&[]);
        host.set(Mood::Held);
        host.release(1);
        Line { witness, edge, host }
    }

    /// A client whose place in the line is the one behind all others'.
    fn join(&mut self, name: &str) -> Wire {
        let mut client = self.edge.relay.client();
        let request = request(&[&format!("X-Id: {name}")]);
        // It is accepted when it is first heard of, and has to be known before the end of its request comes.
        let (first, rest) = request.split_at(30);
        client.send(first);
        self.settle();
        client.send(rest);
        self.settle();
        client
    }

    fn settle(&mut self) {
        says_back(&mut self.witness, "settled");
    }

    /// Who has asked, but for the witness.
    fn asked(&self) -> Vec<String> {
        self.host.asked()[1..].to_vec()
    }
}

#[test]
fn the_queue_is_first_come_first_served() {
    let mut line = Line::new("queue_max = 20\nqueue_timeout = \"1m\"\n");
    let names: Vec<String> = (0..12).map(|number| format!("client-{number}")).collect();
    let clients: Vec<_> = names.iter().map(|name| line.join(name)).collect();
    for (number, client) in clients.into_iter().enumerate() {
        until("its turn has come", || line.asked().len() > number);
        line.settle();
        assert_eq!(line.asked(), names[..=number]);
        line.host.release(1);
        opened(client);
    }
}

#[test]
fn the_queue_has_an_end() {
    let mut line = Line::new("queue_max = 3\nqueue_timeout = \"1m\"\nretry_after = \"8s\"\n");
    let held = line.join("held");
    until("it is asked", || line.asked() == ["held"]);
    let waiting: Vec<_> = (0..3).map(|_| line.join("waiting")).collect();
    for _ in 0..5 {
        let head = refusal(&mut line.join("late"), &[503]);
        says_when(&head, 8);
    }
    assert_eq!(line.asked(), ["held"]);
    line.host.set(Mood::Well);
    for client in [held].into_iter().chain(waiting) {
        opened(client);
    }
}

#[test]
fn who_has_waited_too_long_is_told_when_to_come_back() {
    let mut line = Line::new("queue_max = 10\nqueue_timeout = \"200ms\"\nretry_after = \"30s\"\n");
    let held = line.join("held");
    until("it is asked", || line.asked() == ["held"]);
    for _ in 0..3 {
        let head = refusal(&mut line.join("late"), &[503]);
        says_when(&head, 30);
    }
    line.host.set(Mood::Well);
    opened(held);
    assert_eq!(line.asked(), ["held"], "no backend hears of those who gave up");
    assert_eq!(line.edge.status(), 101);
}

#[test]
fn who_leaves_the_queue_frees_its_place() {
    for reset in [true, false] {
        let mut line = Line::new("queue_max = 1\nqueue_timeout = \"1m\"\n");
        let held = line.join("held");
        until("it is asked", || line.asked() == ["held"]);
        let leaver = line.join("leaver");
        refusal(&mut line.join("late"), &[503]);
        match reset {
            true => leaver.reset(),
            false => drop(leaver),
        }
        // Not before the relay has seen it: closing may take a moment, as long as another test is starting a process.
        line.edge.until_lines(1, &["session ended", "ended_by=\"client\""]);
        let waiting = line.join("waiting");
        line.host.release(1);
        opened(held);
        until("it is asked", || line.asked() == ["held", "waiting"]);
        line.host.release(1);
        opened(waiting);
    }
}

/// Also to those who wait at another worker than the one that has the session.
#[test]
fn slots_are_handed_on_when_sessions_end() {
    let host = Host::new();
    let edge = Edge::start(2, &limited(&[&host], "connections_max = 1\n", "queue_max = 20\nqueue_timeout = \"1m\"\n"));
    let mut holder = edge.open(&[]).0;
    let mut waiting: Vec<_> = (0..16).map(|_| edge.ask(&[])).collect();
    while !waiting.is_empty() {
        assert_eq!(host.asked().len(), 17 - waiting.len());
        leave(&mut holder);
        drop(holder);
        until("the next one is served", || waiting.iter().any(Wire::has_come));
        let next = waiting.iter().position(Wire::has_come).unwrap();
        holder = opened(waiting.swap_remove(next)).0;
    }
    assert_eq!(host.open_peak(), 1);
}

/// They hold their connections as long as they like, and neither the only handshake there may be nor the rate.
#[test]
fn long_polls_keep_no_upgrade_waiting() {
    let admission =
        "[pools.admission]\nbackend_handshakes_max = 1\nhandshakes_per_second_max = 1\nhandshakes_burst = 2\n";
    let site = Site::with_pools(&["web"], admission, "[[routes]]\npool = \"web\"\nplain_http = \"forward\"\n");
    let mut polls: Vec<_> = (0..6).map(|_| forwarded(&site, plain("GET /poll", &[], ""))).collect();
    let mut sessions = [(); 2].map(|()| site.open("web", ask("chat.example", "/", &[])));
    for (client, backend, _) in &mut polls {
        answered(client, backend);
    }
    for (client, backend) in &mut sessions {
        close(client, backend);
    }
}

/// Everybody was connected when the backend died, and comes back in the same moment.
#[test]
fn l12_reconnect_herd() {
    const CLIENTS: usize = 200;
    let host = Host::new();
    let admission = "handshakes_per_second_max = 150\nhandshakes_burst = 20\nbackend_handshakes_max = 4\nqueue_max = 40\n\
        queue_timeout = \"300ms\"\nretry_after = \"4s\"\n";
    let calm = pool(&[&host], "");
    let edge = Edge::start(2, &calm);
    let sessions: Vec<_> = (0..CLIENTS).map(|_| edge.open(&[]).0).collect();
    edge.reload(&(calm + "[pools.admission]\n" + admission));
    let address = host.stop();
    let before = edge.lines(&["session ended"]);
    sessions.into_iter().for_each(drop);
    edge.until_lines(before + CLIENTS, &["session ended"]);
    let host = Host::at(address);
    let start = Barrier::new(CLIENTS);
    let hints: Vec<u64> = std::thread::scope(|scope| {
        let come = || {
            start.wait();
            let mut hints = Vec::new();
            // A real client would wait as long as it is told to; this one is worse.
            loop {
                let mut client = edge.ask(&[]);
                let head = client.head();
                match head.status() {
                    101 => return (client, hints),
                    503 => hints.push(says_when(&head, 4)),
                    other => panic!("{other}"),
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(come)).collect();
        let mut back: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        back.iter_mut().for_each(|(client, _)| says_back(client, "back"));
        back.into_iter().flat_map(|(_, hints)| hints).collect()
    });
    assert_eq!(host.asked().len(), CLIENTS);
    assert!(host.handshaking_peak() <= 4, "{} handshakes at once", host.handshaking_peak());
    let different: std::collections::BTreeSet<_> = hints.iter().collect();
    assert!(different.len() > 1, "{} hints, all the same", hints.len());
}
