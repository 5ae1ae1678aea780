//! Each fault, injected into a run: clients come back, and no acknowledged message is lost.

use loadtest::report::result::RunResult;

use crate::support::{Server, program, run};

fn faults(fault: &str) -> RunResult {
    let output = program(&[
        "run",
        "faults",
        "--fault",
        fault,
        "-c",
        "6",
        "--warmup",
        "50ms",
        "--duration",
        "1200ms",
        "--outage",
        "200ms",
        "--json",
        "--quiet",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result: RunResult = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert_eq!((output.status.code(), &result.verdict.reasons), (Some(0), &Vec::new()), "{fault}");
    assert!(!result.faults.is_empty());
    result
}

#[test]
fn everyone_comes_back_from_what_breaks_connections() {
    for (fault, seen) in [
        ("kill", None),
        ("rst", Some("reset by peer")),
        ("cut", Some("ended inside a frame")),
        ("half-close", Some("ended without a close frame")),
        ("restart", Some("closed by peer with 1012")),
    ] {
        let result = faults(fault);
        assert_eq!(result.recovery.summary.count, 6, "{fault}: {:?}", result.errors);
        assert_eq!(result.connections.broken, 6, "{fault}");
        assert_eq!((result.verdict.lost, result.verdict.tally.altered), (0, 0));
        if let Some(seen) = seen {
            assert_eq!(result.errors.get(seen), Some(&6), "{fault}: {:?}", result.errors);
        }
    }
}

#[test]
fn a_stopped_upstream_delays_and_breaks_nothing() {
    let result = faults("stop");
    assert_eq!((result.connections.broken, result.recovery.summary.count), (0, 0));
    // The outage is inside somebody's latency, by construction.
    assert!(result.latency.summary.max_us >= 150_000.0);
}

#[test]
fn clients_that_break_away_come_back_and_leave_the_others_alone() {
    let upstream = Server::upstream(&[]);
    for (fault, breaking) in [("storm", 6), ("client-rst", 3), ("client-cut", 3)] {
        let words = format!("faults --fault {fault} -c 6 --warmup 50ms --duration 800ms");
        let (result, code) = run(&words, &upstream.url());
        assert_eq!((code, &result.verdict.reasons), (0, &Vec::new()), "{fault}");
        assert_eq!(result.recovery.summary.count, breaking, "{fault}");
        assert_eq!((result.connections.broken, result.verdict.lost), (0, 0), "{fault}");
    }
}
