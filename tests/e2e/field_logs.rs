//! Cases from the field: what stands in the log, what does not, and what is its last word.

use crate::fleet::*;
use crate::harness::{Ringway, Setup, until};
use crate::wire::*;

/// A line end in a name begins no line of its own, and values with blanks are quoted.
#[test]
fn field_a16_names_cannot_forge_lines() {
    let backend = Backend::new();
    let route = "a\\n2026-01-01T00:00:00Z WARN forged";
    let settings = format!(
        "[[pools]]\nname = \"p q\"\nbackends = [{{ name = \"b\\u001b[31m c\", address = \"{}\" }}]\n[[routes]]\nname = \"{route}\"\npool = \"p q\"\n",
        backend.address
    );
    let relay = Ringway::start(&Setup { settings, listen: vec!["127.0.0.1:0".into()], ..Setup::default() });
    let mut client = relay.client();
    client.send(request(&[]));
    backend.upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    drop(client);
    until("the session is told", || relay.process.log().iter().any(|line| line.contains("session ended")));
    let log = relay.process.log();
    assert!(!log.iter().any(|line| line.starts_with("2026-01-01") || line.contains('\u{1b}')), "{log:#?}");
    let line = log.iter().find(|line| line.contains("session ended")).unwrap();
    for part in
        [r#"route="a\\n2026-01-01T00:00:00Z WARN forged""#, r#"backend="b\\u{1b}[31m c""#, r#"reason="connection"#]
    {
        assert!(line.contains(&part.replace("\\\\", "\\")), "{part} is missing in {line}");
    }
}

/// Thousands of backends that come and go are a few lines and a number.
#[test]
fn field_a16_bursts_are_capped() {
    let host = Host::new();
    let file = crate::harness::scratch("found.json");
    let write = |count: usize| {
        let backends: Vec<String> =
            (0..count).map(|n| format!("\"10.{}.{}.{}:9\"", n >> 16, n >> 8 & 255, n & 255)).collect();
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, format!("{{\"backends\": [{}]}}", backends.join(", "))).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
    };
    write(1);
    let edge = Edge::start(1, &(pool(&[&host], "") + &format!("[pools.discovery]\nfile = \"{}\"\n", file.display())));
    write(5000);
    edge.until_lines(1, &["INFO", "backend found: 4979 more", "pool=\"chat\""]);
    assert_eq!(edge.lines(&["backend found", "backend="]), 20);
    write(1);
    edge.until_lines(1, &["INFO", "backend gone", "4979 more"]);
    assert_eq!(edge.lines(&["backend gone", "backend="]), 20);
    // And a signal's line is among them.
    edge.relay.signal("HUP");
    edge.until_lines(1, &["SIGHUP: reloading"]);
}

/// A backend that was gone for a moment: the log's last word is that it is well, also if nobody has asked it since.
#[test]
fn field_c05_an_all_clear_follows_every_failure() {
    let (flaky, steady) = (Host::new(), Host::new());
    let edge = Edge::start(1, &pool(&[&flaky, &steady], "balance = \"round-robin\"\n"));
    let gone = flaky.stop();
    until("it is met", || {
        edge.who(&[]);
        edge.lines(&["WARN", "backend fails", &gone.to_string()]) > 0
    });
    let back = Host::at(gone);
    until("it answers", || edge.who(&[]) == back.name());
    // Nobody asks any more.
    edge.until_lines(1, &["INFO", "backend answers again, after ", " ms", &gone.to_string(), "pool=\"chat\""]);
    let (warn, clear) = (edge.matching(&["backend fails"]), edge.matching(&["backend answers again"]));
    assert!(warn.last() < clear.last(), "{warn:?} {clear:?}");
}

/// The line that somebody is called for, and its end.
#[test]
fn field_c05_the_last_backend_of_a_pool() {
    let hosts = Host::many(2);
    let health = "[pools.health]\ncheck = \"http\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 1\nrise = 1\n";
    let edge = Edge::start(1, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + health));
    until("they are checked", || hosts.iter().all(|host| host.checks() > 0));
    hosts[0].set(Mood::Status(500));
    edge.until_lines(1, &["WARN", "backend is down"]);
    assert_eq!(edge.lines(&["ERROR"]), 0, "one is left");
    hosts[1].set(Mood::Status(500));
    edge.until_lines(1, &["ERROR", "no backend of this pool is up", "pool=\"chat\""]);
    hosts[0].set(Mood::Well);
    edge.until_lines(1, &["INFO", "this pool has backends again, after ", "pool=\"chat\""]);
    hosts[1].set(Mood::Well);
    edge.who(&[]);
    assert_eq!((edge.lines(&["ERROR"]), edge.lines(&["this pool has backends again"])), (1, 1));
}
