//! Every scenario once, briefly, against the program's own upstream: all messages accounted for.

use crate::support::{BRIEF, Server, run, run_clean};

#[test]
fn echo_in_a_closed_loop() {
    let upstream = Server::upstream(&[]);
    for extra in ["", "--depth 4", "--payload unicode --size 100..5000", "--workers 2 --mask zero"] {
        let result = run_clean(&format!("echo -c 8 {BRIEF} {extra}"), &upstream.url());
        assert_eq!(result.connections.opened, 8);
        assert!(result.latency.summary.count > 0);
    }
}

#[test]
fn echo_in_an_open_loop_sends_what_was_due() {
    let upstream = Server::upstream(&[]);
    for extra in ["", "--arrivals poisson", "--depth 1"] {
        let words = format!("echo -c 8 --rate 400 --warmup 0s --duration 500ms {extra}");
        let result = run_clean(&words, &upstream.url());
        // 200 are due; a slow machine delays messages, it does not cancel them.
        assert!((100..320).contains(&result.verdict.tally.sent), "{}", result.verdict.tally.sent);
        assert!(result.service.summary.count > 0 && result.lateness.summary.count > 0);
    }
}

#[test]
fn rooms_deliver_each_message_to_each_member() {
    for workers in ["1", "2"] {
        let upstream = Server::upstream(&["--workers", workers]);
        let result = run_clean(&format!("fan-out -c 11 --rate 200 {BRIEF}"), &upstream.url());
        let tally = &result.verdict.tally;
        assert_eq!(tally.expected, tally.sent * 10);
        let result = run_clean(&format!("fan-in -c 12 --rooms 2 --rate 500 --workers 2 {BRIEF}"), &upstream.url());
        assert_eq!(result.verdict.tally.expected, result.verdict.tally.sent);
        let result = run_clean(
            &format!("chat-room -c 10 --room-size 5 --think 30ms --payload text --size 200 {BRIEF}"),
            &upstream.url(),
        );
        assert_eq!(result.verdict.tally.expected, result.verdict.tally.sent * 5);
    }
}

#[test]
fn a_ramp_that_reaches_its_target_says_so() {
    let upstream = Server::upstream(&[]);
    let result = run_clean("ramp -c 60 --rate 1000 --duration 20s", &upstream.url());
    assert_eq!((result.connections.opened, result.connections.peak >= 60), (60, true));
    assert_eq!(result.connect.summary.count, 60);
}

#[test]
fn idle_connections_cost_memory_and_wake_at_once() {
    let upstream = Server::upstream(&[]);
    let pid = upstream.pid();
    let words = format!("idle -c 50 --duration 300ms --ping 100ms --watch-pid {pid}");
    let result = run_clean(&words, &upstream.url());
    assert_eq!(result.verdict.tally.sent, 50);
    let watched = result.watched.unwrap();
    assert!(watched.connected.rss_anon_bytes > 0 && watched.cpu_us_per_handshake > 0.0);
}

#[test]
fn churn_closes_in_every_way() {
    let upstream = Server::upstream(&[]);
    let words = format!("churn -c 9 --close-all --messages 2 --source-addresses 3 {BRIEF}");
    let result = run_clean(&words, &upstream.url());
    assert!(result.verdict.tally.sent >= 18);
    for way in ["Normal -> closed by peer with 1000", "Empty -> closed by peer without a code"] {
        assert!(result.closings.contains_key(way), "{way}: {:?}", result.closings);
    }
    assert!(result.closings.contains_key("Server -> closed by peer with 1001"));
}

#[test]
fn slow_readers_get_everything_in_the_end() {
    let upstream = Server::upstream(&[]);
    let words = format!("slow-reader -c 10 --slow-percent 30 --read-rate 100KiB --window 256KiB {BRIEF}");
    let result = run_clean(&words, &upstream.url());
    // Only the quick ones' latencies count.
    assert!(result.latency.summary.count < result.verdict.tally.received);
}

#[test]
fn bursts_large_and_fragmented_messages() {
    let upstream = Server::upstream(&[]);
    run_clean(&format!("burst -c 5 --messages 7 --period 50ms {BRIEF}"), &upstream.url());
    let result = run_clean(&format!("large -c 1 --size 8MiB {BRIEF}"), &upstream.url());
    assert!(result.verdict.tally.received > 0);
    let words = format!("fragmented -c 3 --fragments 5 --write-size 100 --size 300 {BRIEF}");
    run_clean(&words, &upstream.url());
    run_clean(&format!("fragmented -c 3 --fragments 200 --size 50 --payload text {BRIEF}"), &upstream.url());
}

#[test]
fn the_largest_message_goes_there_and_back() {
    let upstream = Server::upstream(&[]);
    let words = "large -c 1 --size 64MiB --warmup 0s --duration 100ms --drain 50s --mask fixed";
    let result = run_clean(words, &upstream.url());
    assert!(result.verdict.tally.received >= 1);
}

#[test]
fn several_processes_share_a_run() {
    let upstream = Server::upstream(&[]);
    // Enough descriptors for 50 connections per process, on top of the program's own.
    let shell = format!(
        "ulimit -n 250; exec {} run echo -c 120 --url {} --json --quiet {BRIEF}",
        crate::support::PROGRAM,
        upstream.url()
    );
    let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    let result: loadtest::report::result::RunResult = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((result.connections.opened, result.verdict.pass), (120, true));
    assert!(!result.series.is_empty());
}

#[test]
fn a_run_of_no_length_is_still_judged() {
    let upstream = Server::upstream(&[]);
    let (result, code) = run("echo -c 2 --warmup 0s --duration 1ms", &upstream.url());
    assert_eq!((result.verdict.lost, code), (0, 0));
}
