//! Cases from the field: backends that are dead, come back, or are asked for what they do not like.

use std::net::{IpAddr, Ipv4Addr};

use crate::fleet::*;
use crate::handshake_backend::full_listener;
use crate::wire::*;

/// A pool of such backends, dead ones first, and of such backups.
fn mixed(dead: usize, well: &[&Host], backups: &[&Host]) -> String {
    let mut backends: Vec<String> = (0..dead).map(|_| format!("\"{}\"", free_address())).collect();
    backends.extend(well.iter().map(|host| format!("\"{}\"", host.address)));
    backends.extend(backups.iter().map(|host| format!("{{ address = \"{}\", backup = true }}", host.address)));
    format!("[[pools]]\nname = \"chat\"\nbackends = [{}]\n", backends.join(", "))
}

#[test]
fn field_b01_a_live_backup_serves_from_the_first_handshake_on() {
    for dead in [1, 2, 3] {
        let backup = Host::new();
        let edge = Edge::start(1, &mixed(dead, &[], &[&backup]));
        for _ in 0..14 {
            assert_eq!(edge.who(&[]), backup.name(), "with {dead} dead primaries");
        }
    }
}

/// Handshakes all the while: the one that is back is still ejected when the other one goes.
#[test]
fn field_b01_two_backends_are_restarted_one_after_the_other() {
    let (first, second) = (Host::new(), Host::new());
    let edge = Edge::start(1, &(pool(&[&first, &second], "") + "[pools.eject]\ntime = \"1h\"\ntime_max = \"1h\"\n"));
    let mut serving = second;
    let mut gone = first.stop();
    for _ in 0..4 {
        for _ in 0..8 {
            assert_eq!(edge.who(&[]), serving.name());
        }
        let back = Host::at(gone);
        gone = serving.stop();
        serving = back;
    }
}

/// Connects that neither succeed nor fail: the listener's queue is full, and nobody accepts.
#[test]
fn field_c03_a_pool_that_swallows_connects() {
    let holes: Vec<_> = (0..20).map(|_| full_listener()).collect();
    let backends: Vec<String> = holes.iter().map(|(_, _, address)| format!("\"{address}\"")).collect();
    let config = format!(
        "[timeouts]\nconnect = \"100ms\"\n[[pools]]\nname = \"chat\"\nbackends = [{}]\n[pools.eject]\nfailures = \"off\"\n",
        backends.join(", ")
    );
    let edge = Edge::start(1, &config);
    for _ in 0..6 {
        edge.refused(504);
    }
    // One that leaves ends its tries with it.
    let client = edge.ask(&[]);
    drop(client);
    edge.relay.signal("TERM");
    edge.until_lines(1, &[" stopped accepted="]);
    let stopped = &edge.matching(&[" stopped accepted="])[0];
    let failures: usize =
        stopped.split("connect_failures=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(
        (18..=21).contains(&failures),
        "three each for six, and no more than that for the one that left: {stopped}"
    );
}

/// Each client has an address of its own, as far as the relay can see.
fn ask_from(edge: &Edge, last: u8) -> Wire {
    let mut client = Wire::connect_from(IpAddr::V4(Ipv4Addr::new(127, 9, 9, last)), edge.relay.address);
    client.send(request(&[]));
    client
}

#[test]
fn field_a02_field_r41_a_client_that_provokes_failures_ejects_nobody() {
    for mood in [Mood::Status(500), Mood::HangUp, Mood::Garbage, Mood::Status(501)] {
        let hosts = Host::many(4);
        let breaker = "[pools.breaker]\nfailures_percent = 50\n";
        let edge = Edge::start(1, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + breaker));
        hosts.iter().for_each(|host| host.set(mood.clone()));
        for _ in 0..40 {
            let status = ask_from(&edge, 1).head().status();
            assert!((500..503).contains(&status), "{mood:?}: {status}");
        }
        hosts.iter().for_each(|host| host.set(Mood::Well));
        let mut seen: Vec<String> = (0..12).map(|_| edge.who(&[])).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{mood:?}: all of them are asked");
        assert_eq!(edge.lines(&["backend is ejected"]) + edge.lines(&["circuit breaker"]), 0, "{mood:?}");
        // But many who meet the same are believed.
        hosts[0].set(mood.clone());
        for last in 1..=24 {
            ask_from(&edge, last).head();
        }
        edge.until_lines(1, &["backend is ejected", &hosts[0].name()]);
        assert_eq!(edge.lines(&["backend is ejected"]), 1, "{mood:?}");
    }
}
