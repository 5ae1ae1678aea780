//! Passive health: what sessions meet at a backend ejects it, and what they meet in a whole pool opens its breaker.

use crate::fleet::*;
use crate::harness::until;

/// `[pools.eject]`
fn eject(failures: usize, time: &str, more: &str) -> String {
    format!("[pools.eject]\nfailures = {failures}\ntime = \"{time}\"\ntime_max = \"10h\"\n{more}")
}

/// Not the relay's default, or a silent backend would take 10 s to be noticed. All others have that time.
const IMPATIENT: &str = "[timeouts]\nanswer = \"1s\"\n";

/// What a backend can do wrong, what the client of such a handshake hears, and how often it takes until the backend is
/// ejected: what counts by clients has met all of them when it has met the only one.
const FAULTS: &[(Mood, u16, &str, usize)] = &[
    (Mood::Status(500), 500, "it answered 500", 1),
    (Mood::Status(503), 503, "it answered 503", 3),
    (Mood::Garbage, 502, "error=", 1),
    (Mood::HangUp, 502, "without an answer", 1),
    (Mood::Silent, 504, "no answer in time", 3),
    (Mood::Drop, 101, "dropped a session soon after the handshake", 1),
    (Mood::Reset, 101, "dropped a session soon after the handshake", 1),
];

#[test]
fn what_sessions_meet_ejects_a_backend() {
    for (mood, status, reason, failures) in FAULTS {
        eprintln!("case {mood:?}");
        let hosts = Host::many(3);
        let config = if *mood == Mood::Silent { IMPATIENT } else { "" }.to_string()
            + &pool(&hosts.iter().collect::<Vec<_>>(), "")
            + &eject(3, "1h", "early_close = \"1h\"\nclients_min = 1\n");
        let edge = Edge::start(1, &config);
        let bad = &hosts[1];
        bad.set(mood.clone());
        let mut met = 0;
        while edge.lines(&["backend is ejected"]) == 0 && met < 10 {
            let before = bad.asked().len();
            let mut client = edge.ask(&[]);
            let got = client.head().status();
            match bad.asked().len() > before && got == 101 {
                // The end of the session is the failure.
                true => drop(client.rest()),
                false if got == 101 => leave(&mut client),
                false => {}
            }
            if bad.asked().len() > before {
                met += 1;
                assert_eq!(got, *status);
            }
        }
        assert_eq!(met, *failures, "failures until it was ejected");
        edge.until_lines(1, &["WARN", "backend is ejected for", &bad.name(), reason, "pool=\"chat\""]);
        for _ in 0..12 {
            assert_ne!(edge.who(&[]), bad.name());
        }
        assert_eq!(bad.asked().len(), *failures, "it is left alone");
    }
}

#[test]
fn who_cannot_be_connected_to_is_ejected_and_no_client_hears_of_it() {
    let hosts = Host::many(3);
    let config = pool(&hosts.iter().collect::<Vec<_>>(), "") + &eject(3, "1h", "");
    let edge = Edge::start(1, &config);
    let [first, second, third] = <[Host; 3]>::try_from(hosts).ok().unwrap();
    let gone = second.stop();
    for _ in 0..12 {
        edge.who(&[]);
    }
    edge.until_lines(1, &["backend is ejected for", &gone.to_string(), "onnection refused"]);
    let back = Host::at(gone);
    for _ in 0..12 {
        edge.who(&[]);
    }
    assert!(back.asked().is_empty(), "it is ejected for an hour");
    assert_eq!(edge.lines(&["backend is ejected"]), 1);
    drop((first, third));
}

/// Answers other than 5xx are the backend's good right, and one that answers in between starts anew.
#[test]
fn what_is_no_failure_ejects_nobody() {
    let host = Host::new();
    let other = Host::new();
    let edge = Edge::start(1, &(pool(&[&host, &other], "") + &eject(3, "1h", "early_close = \"10ms\"\n")));
    for status in [200, 302, 401, 403, 404, 429] {
        host.set(Mood::Status(status));
        until("it is asked four times more", || {
            edge.status();
            host.asked().len().is_multiple_of(4)
        });
    }
    for _ in 0..4 {
        let well = host.asked().len() + 3;
        host.set(Mood::Status(503));
        until("two failures", || {
            edge.status();
            host.asked().len() + 1 >= well
        });
        host.set(Mood::Well);
        until("a good one", || edge.who(&[]) == host.name());
    }
    assert_eq!(edge.lines(&["backend is ejected"]), 0);
}

#[test]
fn an_ejected_backend_comes_back_and_says_so() {
    let (bad, good) = (Host::new(), Host::new());
    let edge = Edge::start(2, &(pool(&[&bad, &good], "") + &eject(1, "200ms", "")));
    bad.set(Mood::Status(503));
    until("it is ejected", || {
        edge.status();
        edge.lines(&["backend is ejected", &bad.name()]) > 0
    });
    bad.set(Mood::Well);
    until("it serves again", || edge.who(&[]) == bad.name());
    until("it is told, once it is no flapping", || {
        edge.who(&[]);
        edge.lines(&["INFO", "backend answers again", &bad.name(), "pool=\"chat\""]) > 0
    });
    assert_eq!(edge.lines(&["backend answers again"]), 1);
}

#[test]
fn the_last_share_of_a_pool_is_never_ejected() {
    for (percent, broken, ejected) in [(50, 2, 1), (0, 2, 2), (100, 2, 0), (70, 4, 1)] {
        eprintln!("case {percent} % of {broken}");
        let hosts = Host::many(broken);
        let minimum = format!("available_percent_min = {percent}\n");
        let edge = Edge::start(2, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + &eject(1, "1h", &minimum)));
        hosts.iter().for_each(|host| host.set(Mood::Status(503)));
        // Each of them fails on either worker.
        for _ in 0..40 {
            edge.status();
        }
        let asked: usize = hosts.iter().map(|host| host.asked().len()).sum();
        for _ in 0..10 {
            assert_eq!(edge.status(), 503, "of those who are left");
        }
        // Also if that is nobody: better one more failure than none that could succeed.
        let now: usize = hosts.iter().map(|host| host.asked().len()).sum();
        assert_eq!(now - asked, 10);
        assert_eq!(edge.lines(&["backend is ejected"]), ejected);
    }
}

/// By what the log says, as the times themselves are nobody's promise on a busy machine.
#[test]
fn each_ejection_lasts_twice_as_long_up_to_the_maximum() {
    let (bad, good) = (Host::new(), Host::new());
    let times = "[pools.eject]\nfailures = 1\ntime = \"100ms\"\ntime_max = \"300ms\"\n";
    let edge = Edge::start(1, &(pool(&[&bad, &good], "") + times));
    bad.set(Mood::Status(503));
    until("it is ejected five times", || {
        edge.status();
        edge.lines(&["backend is ejected for"]) >= 5
    });
    let said = |line: &String| line.split("ejected for ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let times: Vec<u64> = edge.matching(&["backend is ejected for"]).iter().filter_map(said).collect();
    for (time, wanted) in times.iter().zip([100, 200, 300, 300, 300]) {
        assert!((wanted - wanted / 10..=wanted + wanted / 10).contains(time), "{times:?}");
    }
    // One good answer ends the row.
    bad.set(Mood::Well);
    until("it serves again", || edge.who(&[]) == bad.name());
    bad.set(Mood::Status(503));
    until("it is ejected anew", || {
        edge.status();
        edge.lines(&["backend is ejected for"]) > times.len()
    });
    let again = edge.matching(&["backend is ejected for"]).iter().filter_map(said).nth(times.len());
    assert!((90..=110).contains(&again.unwrap()), "{again:?}: as long as the first");
}

/// Half of at least 4 within an hour; ejection does not interfere.
fn breaker(open: &str, probes: usize) -> String {
    format!(
        "[pools.eject]\nfailures = \"off\"\n[pools.breaker]\nfailures_percent = 50\nhandshakes_min = 4\nwindow = \"1h\"\n\
         open = \"{open}\"\nprobes = {probes}\n"
    )
}

#[test]
fn an_open_breaker_leaves_the_backends_alone() {
    let hosts = Host::many(2);
    let edge = Edge::start(2, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + &breaker("1h", 1)));
    let (mut live, _) = edge.open(&[]);
    hosts.iter().for_each(|host| host.set(Mood::Status(503)));
    for _ in 0..3 {
        assert_eq!(edge.status(), 503, "three of four have failed when it opens");
    }
    edge.until_lines(1, &["WARN", "circuit breaker opens for 3600s", "pool=\"chat\""]);
    hosts.iter().for_each(|host| host.set(Mood::Well));
    for _ in 0..20 {
        let head = edge.refused(503);
        says_when(&head, 5);
    }
    let asked: usize = hosts.iter().map(|host| host.asked().len()).sum();
    assert_eq!(asked, 4, "no backend was contacted");
    assert_eq!(edge.lines(&["WARN", "circuit breaker"]), 1);
    says_back(&mut live, "still here");
}

#[test]
fn fewer_failures_than_the_share_open_no_breaker() {
    let hosts = Host::many(4);
    let edge = Edge::start(1, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + &breaker("1h", 1)));
    hosts[0].set(Mood::Status(503));
    // A quarter of all; two of the first five at most, as the others come between.
    for _ in 0..40 {
        edge.status();
    }
    assert_eq!((hosts[0].asked().len(), edge.lines(&["circuit breaker"])), (10, 0));
}

#[test]
fn a_half_open_breaker_lets_probes_through_and_then_closes() {
    let host = Host::new();
    let edge = Edge::start(2, &(pool(&[&host], "") + &breaker("3s", 2)));
    host.set(Mood::Status(503));
    (0..4).for_each(|_| assert_eq!(edge.status(), 503));
    edge.until_lines(1, &["circuit breaker opens"]);
    host.set(Mood::Held);
    // Those who come while it is open are refused; in the end two are let through and wait at the backend.
    let mut probes = Vec::new();
    until("two probes", || {
        let client = edge.ask(&[]);
        until("asked or refused", || client.has_come() || host.handshaking() > probes.len());
        if !client.has_come() {
            probes.push(client);
        }
        probes.len() == 2
    });
    edge.until_lines(1, &["INFO", "circuit breaker is half open", "pool=\"chat\""]);
    // Others are refused meanwhile, and that says nothing about the pool.
    for _ in 0..5 {
        says_when(&edge.refused(503), 5);
    }
    assert_eq!(host.handshaking(), 2);
    host.set(Mood::Well);
    for probe in probes {
        leave(&mut opened(probe).0);
    }
    edge.until_lines(1, &["INFO", "circuit breaker closes", "pool=\"chat\""]);
    (0..10).for_each(|_| assert_eq!(edge.who(&[]), host.name()));
    assert_eq!(edge.lines(&["circuit breaker opens"]), 1);
}

/// Those who wait for their turn in a limited pool are no probes.
#[test]
fn a_half_open_breaker_closes_however_few_handshakes_a_second_there_may_be() {
    let host = Host::new();
    let rate = "[pools.admission]\nhandshakes_per_second_max = 20\nhandshakes_burst = 1\nqueue_max = 100\n";
    let edge = Edge::start(1, &(pool(&[&host], "") + rate + &breaker("100ms", 4)));
    host.set(Mood::Status(503));
    // No more than open it: one that comes when it is half open, before the log has been read, would open it again.
    (0..4).for_each(|_| assert_eq!(edge.status(), 503));
    edge.until_lines(1, &["circuit breaker opens"]);
    host.set(Mood::Well);
    until("it closes", || {
        let clients: Vec<_> = (0..8).map(|_| edge.ask(&[])).collect();
        clients.into_iter().for_each(|mut client| drop(client.head()));
        edge.lines(&["circuit breaker closes"]) == 1
    });
    assert_eq!(edge.lines(&["circuit breaker opens"]), 1);
}

#[test]
fn a_failed_probe_opens_the_breaker_again() {
    let host = Host::new();
    let edge = Edge::start(2, &(pool(&[&host], "") + &breaker("200ms", 3)));
    host.set(Mood::Status(503));
    until("it opens three times", || {
        edge.status();
        edge.lines(&["circuit breaker opens"]) >= 3
    });
    // Four opened it first.
    until("one probe for each further time", || host.asked().len() == 3 + edge.lines(&["circuit breaker opens"]));
    assert_eq!(edge.lines(&["circuit breaker closes"]), 0);
    host.set(Mood::Well);
    until("it closes", || {
        edge.status();
        edge.lines(&["circuit breaker closes"]) == 1
    });
}
