//! The judge must notice: a lying upstream, and a stall that the naive measure hides.

use crate::support::{BRIEF, Server, run};

#[test]
fn each_lie_is_found_and_named() {
    type Count = fn(&loadtest::report::result::Verdict) -> u64;
    let cases: [(&str, Count); 4] = [
        ("lose=10", |verdict| verdict.lost),
        ("alter=10", |verdict| verdict.tally.altered),
        ("repeat=10", |verdict| verdict.tally.duplicated),
        ("swap=10", |verdict| verdict.tally.out_of_order),
    ];
    for (lie, count) in cases {
        let upstream = Server::upstream(&["--lie", lie]);
        let words = format!("echo -c 2 --rate 2000 --drain 300ms {BRIEF}");
        let (result, code) = run(&words, &upstream.url());
        assert_eq!((code, result.verdict.pass), (1, false), "{lie}");
        assert!(count(&result.verdict) > 0, "{lie}: {:?}", result.verdict);
        for (other, foreign) in cases {
            // A swap whose second half never came leaves one message unanswered per connection.
            let allowed = if lie.starts_with("swap") && other.starts_with("lose") { 2 } else { 0 };
            let seen = foreign(&result.verdict);
            assert!(other == lie || seen <= allowed, "{lie} was also taken for {other}: {seen}");
        }
    }
}

#[test]
fn lies_in_rooms_are_found_too() {
    let upstream = Server::upstream(&["--lie", "lose=7"]);
    let words = format!("fan-out -c 6 --rate 300 --drain 300ms {BRIEF}");
    let (result, code) = run(&words, &upstream.url());
    assert_eq!(code, 1);
    assert!(result.verdict.lost >= 5 && result.verdict.lost.is_multiple_of(5));
}

#[test]
fn text_answered_as_binary_is_altered() {
    // Hears text, sees a checksum in order, but the type is part of the message.
    let upstream = crate::foreign::python("retype");
    let words = format!("echo -c 1 --payload text --size 100 {BRIEF}");
    let (result, _) = run(&words, &upstream.url());
    assert!(result.verdict.tally.altered > 0);
}

#[test]
fn the_intended_send_time_shows_a_stall_that_the_actual_send_time_hides() {
    // With one message under way, a stall of 400 ms keeps about 40 of 100 messages from being sent.
    let stall = ["--stall", "400ms", "--stall-after", "200ms"];
    let upstream = Server::upstream(&stall);
    let words = "echo -c 1 --rate 100 --depth 1 --warmup 0s --duration 1s";
    let (result, code) = run(words, &upstream.url());
    assert_eq!(code, 0);
    let waited = result.latency.histogram().unwrap().share_above(100_000_000);
    let naive = result.service.histogram().unwrap();
    let slow_sends = (naive.share_above(100_000_000) * naive.count() as f64).round() as u64;
    // Arithmetic, not speed: about 30 of 100 were due early enough to wait for more than 100 ms, and a
    // slow machine only adds to them; the naive measure can see no more than what was under way.
    assert!(waited > 0.15, "{waited}");
    assert!(slow_sends as f64 <= waited * naive.count() as f64 / 2.0, "{slow_sends} of {}", naive.count());
}
