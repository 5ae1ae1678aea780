//! Who gets the next session, over several workers and across reloads. The policies themselves are tested beside them; here
//! it is counted where sessions have arrived.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fleet::*;
use crate::harness::until;
use crate::wire::*;

fn refer(hosts: &[Host]) -> Vec<&Host> {
    hosts.iter().collect()
}

/// `[[pools]]` with a table for each backend.
fn tables(hosts: &[(&Host, &str)], options: &str) -> String {
    let table = |(host, more): &(&Host, &str)| format!("[[pools.backends]]\naddress = \"{}\"\n{more}", host.address);
    format!("[[pools]]\nname = \"chat\"\n{options}{}", hosts.iter().map(table).collect::<String>())
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn least_connections_stays_even_after_a_scale_out_under_churn() {
    let hosts = Host::many(6);
    let config = |hosts: &[Host]| pool(&refer(hosts), "balance = \"least-connections\"\n");
    let edge = Edge::start(2, &config(&hosts[..2]));
    let mut sessions: Vec<(Wire, String)> = (0..40).map(|_| edge.open(&[])).collect();
    assert_eq!([hosts[0].open(), hosts[1].open()], [20, 20]);
    edge.reload(&config(&hosts));
    let counts = || hosts.iter().map(Host::open).collect::<Vec<_>>();
    let mut dice = Dice(7);
    let mut ended = 0;
    for step in 0..300 {
        if sessions.len() > 30 && dice.below(2) == 0 {
            let (mut client, _) = sessions.swap_remove(dice.below(sessions.len()));
            leave(&mut client);
            drop(client);
            ended += 1;
            edge.until_lines(ended, &["session ended"]);
            until("the backend knows", || counts().iter().sum::<usize>() == sessions.len());
        } else {
            let before = counts();
            let (client, host) = edge.open(&[]);
            let chosen = hosts.iter().position(|other| other.name() == host).unwrap();
            assert_eq!(Some(&before[chosen]), before.iter().min(), "step {step}: number {chosen} of {before:?}");
            sessions.push((client, host));
        }
    }
    // Whatever the churn has left uneven, the next ones fill up.
    while counts().iter().max().unwrap() * hosts.len() > sessions.len() + hosts.len() {
        sessions.push(edge.open(&[]));
    }
    let counts = counts();
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), sessions.len());
}

/// All at once, so that both workers choose at the same time.
#[test]
fn least_connections_counts_over_all_workers() {
    let hosts = Host::many(5);
    let edge = Edge::start(2, &pool(&refer(&hosts), "balance = \"least-connections\"\n"));
    let clients: Vec<_> = (0..200).map(|_| edge.ask(&[])).collect();
    let sessions: Vec<_> = clients.into_iter().map(opened).collect();
    let counts: Vec<_> = hosts.iter().map(Host::open).collect();
    assert_eq!(counts.iter().sum::<usize>(), sessions.len());
    assert!(counts.iter().all(|count| (39..=41).contains(count)), "{counts:?}");
}

#[test]
fn round_robin_follows_weights() {
    let hosts = Host::many(3);
    let config = tables(&[(&hosts[0], "weight = 5\n"), (&hosts[1], "weight = 2\n"), (&hosts[2], "")], "");
    let edge = Edge::start(1, &config);
    let mut got = HashMap::<String, usize>::new();
    for _ in 0..10 {
        let turn: Vec<String> = (0..8).map(|_| edge.who(&[])).collect();
        turn.iter().for_each(|host| *got.entry(host.clone()).or_default() += 1);
        // Smooth: nobody has all of its turns in one row.
        assert!(!turn.windows(4).any(|four| four.iter().all(|host| *host == hosts[0].name())), "{turn:?}");
    }
    assert_eq!([got[&hosts[0].name()], got[&hosts[1].name()], got[&hosts[2].name()]], [50, 20, 10]);
}

/// Where each of these keys goes, asked twice.
fn places(edge: &Edge, keys: &[String], ask: impl Fn(&Edge, &str) -> String) -> Vec<String> {
    let first: Vec<String> = keys.iter().map(|key| ask(edge, key)).collect();
    let again: Vec<String> = keys.iter().map(|key| ask(edge, key)).collect();
    assert_eq!(first, again, "the same key goes to the same backend");
    first
}

/// The backend that a request for this target reaches.
fn who_at(edge: &Edge, target: &str) -> String {
    let mut client = edge.relay.client();
    client.send(request_with("GET", &format!("GET {target} HTTP/1.1")));
    let (mut client, host) = opened(client);
    leave(&mut client);
    host
}

/// Each time another one.
fn another() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn consistent_hash_keeps_keys_together() {
    type By = (&'static str, fn(&Edge, &str) -> String);
    let by: [By; 5] = [
        ("header:X-Room", |edge, key| edge.who(&[&format!("X-Room: {key}")])),
        ("cookie:room", |edge, key| edge.who(&[&format!("Cookie: a=b; room={key}; c=d")])),
        ("query:room", |edge, key| who_at(edge, &format!("/chat?a=b&room={key}"))),
        ("path", |edge, key| who_at(edge, &format!("/chat/{key}?at={}", another()))),
        ("path:2", |edge, key| {
            // The same segment, now and then escaped, and not at the same keys each time around.
            let key = if another() % 7 < 3 { key.replace('r', "%72") } else { key.to_owned() };
            who_at(edge, &format!("/chat/{key}/{}", another()))
        }),
    ];
    let keys: Vec<String> = (0..60).map(|number| format!("room-{number}")).collect();
    for (hash, ask) in by {
        eprintln!("case {hash}");
        let hosts = Host::many(5);
        let options = format!("balance = \"consistent-hash\"\nhash = \"{hash}\"\nhash_load_percent_max = \"off\"\n");
        let edge = Edge::start(2, &pool(&refer(&hosts[..4]), &options));
        let before = places(&edge, &keys, ask);
        assert!(hosts[..4].iter().all(|host| before.contains(&host.name())), "everybody has some: {before:?}");
        // A fifth one takes about a fifth, and none moves between the others.
        edge.reload(&pool(&refer(&hosts), &options));
        let after = places(&edge, &keys, ask);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == hosts[4].name()), "{moved:?}");
        assert!((1..=30).contains(&moved.len()), "{} of 60 moved", moved.len());
        // When it goes again, everything is as it was.
        edge.reload(&pool(&refer(&hosts[..4]), &options));
        assert_eq!(places(&edge, &keys, ask), before);
    }
}

/// One key for everybody, so that without the bound one backend would get all.
#[test]
fn consistent_hash_bounds_the_load() {
    let hosts = Host::many(4);
    let options = "balance = \"consistent-hash\"\nhash = \"header:X-Room\"\nhash_load_percent_max = 150\n";
    let edge = Edge::start(2, &pool(&refer(&hosts), &format!("{options}hash_keep = \"off\"\n")));
    let _sessions: Vec<_> = (0..40).map(|_| edge.open(&["X-Room: lobby"])).collect();
    let most = hosts.iter().map(Host::open).max().unwrap();
    assert!((11..=15).contains(&most), "{most} of 40, and 15 are one and a half shares");
}

/// The home of a room comes back while two sit elsewhere, and others come to it.
#[test]
fn field_b02_a_room_stays_together() {
    for keep in ["on", "home"] {
        let hosts = Host::many(3);
        let options = format!(
            "balance = \"consistent-hash\"\nhash = \"header:X-Room\"\nhash_keep = \"{keep}\"\n\
             [pools.sessions]\nclose_spread = \"1s\"\n"
        );
        let config = |drained: &str| {
            let drain = |host: &Host| if host.name() == drained { "drain = true\n" } else { "" };
            tables(&[0, 1, 2].map(|number| (&hosts[number], drain(&hosts[number]))), &options)
        };
        let edge = Edge::start(2, &config(""));
        let room = ["X-Room: red"];
        let home = edge.who(&room);
        edge.reload(&config(&home));
        let mut two: Vec<_> = (0..2).map(|_| edge.open(&room)).collect();
        assert!(two[0].1 != home && two[1].1 == two[0].1);
        edge.reload(&config(""));
        // Many, so that both workers have some.
        let newcomers: Vec<_> = (0..8).map(|_| edge.open(&room)).collect();
        let meets = if keep == "home" { &home } else { &two[0].1 };
        assert!(newcomers.iter().all(|(_, host)| host == meets), "{keep}");
        for (client, _) in &mut two {
            match keep {
                "home" => drop(client.expect_close(&[1012])),
                _ => says_back(client, "still here"),
            }
        }
    }
}

#[test]
fn ip_hash_goes_by_the_clients_address() {
    let hosts = Host::many(3);
    let edge = Edge::start(2, &pool(&refer(&hosts), "balance = \"ip-hash\"\n"));
    let from = |_: &Edge, key: &str| {
        let mut client = Wire::connect_from(key.parse::<IpAddr>().unwrap(), edge.relay.address);
        client.send(request(&[]));
        let (mut client, host) = opened(client);
        leave(&mut client);
        host
    };
    let keys: Vec<String> = (1..=30).map(|number| Ipv4Addr::new(127, 0, 9, number).to_string()).collect();
    let places = places(&edge, &keys, from);
    assert!(hosts.iter().all(|host| places.contains(&host.name())), "{places:?}");
}

#[test]
fn backups_serve_only_when_all_others_are_down() {
    let hosts = Host::many(3);
    let config = tables(&[(&hosts[0], ""), (&hosts[1], ""), (&hosts[2], "backup = true\n")], "")
        + "[pools.health]\ncheck = \"http\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\nfall = 3\nrise = 1\n";
    let edge = Edge::start(2, &config);
    until("they are checked", || hosts.iter().all(|host| host.checks() > 0));
    let backup = hosts[2].name();
    (0..10).for_each(|_| assert_ne!(edge.who(&[]), backup));
    hosts[0].set(Mood::Status(500));
    edge.until_lines(1, &["backend is down", &hosts[0].name()]);
    (0..10).for_each(|_| assert_eq!(edge.who(&[]), hosts[1].name()));
    hosts[1].set(Mood::Status(500));
    edge.until_lines(1, &["backend is down", &hosts[1].name()]);
    (0..10).for_each(|_| assert_eq!(edge.who(&[]), backup));
    hosts[0].set(Mood::Well);
    edge.until_lines(1, &["backend is up again", &hosts[0].name()]);
    (0..10).for_each(|_| assert_eq!(edge.who(&[]), hosts[0].name()));
}

#[test]
fn a_drained_backend_keeps_its_sessions_and_gets_no_others() {
    for balance in ["round-robin", "least-connections", "power-of-two", "random", "ip-hash", "consistent-hash"] {
        let hosts = Host::many(3);
        let options = format!("balance = \"{balance}\"\nhash_load_percent_max = \"off\"\nhash = \"header:X-Room\"\n");
        let config = |drained: &str| tables(&[(&hosts[0], drained), (&hosts[1], ""), (&hosts[2], "")], &options);
        let edge = Edge::start(2, &config(""));
        let room = |number: usize| format!("X-Room: {number}");
        // By address all go to one backend: that one is as good as any.
        let mut sessions: Vec<_> = (0..30).map(|number| edge.open(&[&room(number)])).collect();
        let had = hosts[0].asked().len();
        edge.reload(&config("drain = true\n"));
        for number in 0..30 {
            assert_ne!(edge.who(&[&room(number)]), hosts[0].name(), "{balance}");
        }
        assert_eq!(hosts[0].asked().len(), had);
        sessions.iter_mut().for_each(|(client, _)| says_back(client, "still here"));
        assert_eq!(hosts[0].open(), had);
        // Only the keys of the drained one have moved.
        if balance == "consistent-hash" {
            for (number, (_, host)) in sessions.iter().enumerate().filter(|(_, (_, host))| *host != hosts[0].name()) {
                assert_eq!(edge.who(&[&room(number)]), *host);
            }
        }
        edge.reload(&config(""));
        if balance != "ip-hash" {
            until("it serves again", || (0..30).any(|number| edge.who(&[&room(number)]) == hosts[0].name()));
        }
    }
}
