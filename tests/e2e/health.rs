//! Active checks: backends that are killed, stopped, slow or flapping, whoever wrote them, and what becomes of sessions.

use std::net::SocketAddr;

use crate::fleet::*;
use crate::harness::{Process, peer, refusal, until};
use crate::wire::*;

/// Quick checks of this kind; `more` are further lines of [pools.health].
fn checks(check: &str, more: &str) -> String {
    format!(
        "[pools.health]\ncheck = \"{check}\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\nfall = 3\nrise = 1\n{more}"
    )
}

fn foreign(server: &str, address: SocketAddr) -> Process {
    let mut process = peer(server, &["--listen", &address.to_string()]);
    process.line(&["port "]);
    process
}

/// A backend that others wrote, through everything that can happen to it.
fn comes_and_goes(server: &str, check: &str, more: &str) {
    eprintln!("case {server} {check}");
    let address: SocketAddr = (own_ip(), 7000).into();
    let process = foreign(server, address);
    let pool = format!("[[pools]]\nname = \"chat\"\nbackends = [\"{address}\"]\n");
    let edge = Edge::start(2, &(pool + &checks(check, more)));
    let open = || {
        let mut client = edge.ask(&[]);
        assert_eq!(client.head().status(), 101);
        says_back(&mut client, "hello");
        client
    };
    let mut live = open();
    let mut fallen = 0;
    // The kernel takes connections for a process that is stopped, which is all that a tcp check asks for.
    if check != "tcp" {
        crate::harness::send_signal(process.pid(), "STOP");
        fallen += 1;
        edge.until_lines(fallen, &["backend is down", &address.to_string(), "within 500ms"]);
        // Without the check this would be a 504, much later.
        says_when(&edge.refused(503), 5);
        crate::harness::send_signal(process.pid(), "CONT");
        edge.until_lines(fallen, &["backend is up again", &address.to_string()]);
        says_back(&mut live, "still here");
        leave(&mut open());
    }
    drop(process);
    live.expect_close(&[1011]);
    edge.until_lines(fallen.max(1), &["backend is down", &address.to_string()]);
    until("nobody is left", || edge.status() == 503);
    let _process = foreign(server, address);
    until("it is back", || edge.status() == 101);
    leave(&mut open());
}

#[test]
fn checks_of_a_python_backend() {
    comes_and_goes("server.py", "tcp", "");
    comes_and_goes("server.py", "websocket", "path = \"/echo\"\n");
    comes_and_goes("server.py", "ping", "path = \"/echo\"\n");
    // What `websockets` answers to a GET that is no upgrade.
    comes_and_goes("server.py", "http", "status_min = 426\nstatus_max = 426\n");
}

#[test]
fn checks_of_a_node_backend() {
    comes_and_goes("server.js", "tcp", "");
    comes_and_goes("server.js", "websocket", "path = \"/echo\"\n");
    comes_and_goes("server.js", "ping", "path = \"/echo\"\n");
    comes_and_goes("server.js", "http", "status_min = 426\nstatus_max = 426\n");
}

#[test]
fn http_checks_see_what_they_can() {
    see(&[
        (Mood::Status(500), "http", "answered 500"),
        (Mood::Status(404), "http", "answered 404"),
        (Mood::Garbage, "http", "no HTTP"),
        (Mood::HangUp, "http", "closed without an answer"),
        (Mood::Silent, "http", "no answer within 500ms"),
    ]);
}

#[test]
fn websocket_checks_see_what_they_can() {
    see(&[
        (Mood::Status(503), "websocket", "answered 503"),
        (Mood::Status(200), "ping", "answered 200"),
        (Mood::Garbage, "websocket", "reason="),
        (Mood::HangUp, "ping", "reason="),
        (Mood::Silent, "websocket", "no handshake within 500ms"),
        (Mood::Drop, "ping", "reason="),
    ]);
}

/// Whatever is wrong with it, the check that can see it does, in words, and sees the end of it.
fn see(cases: &[(Mood, &str, &str)]) {
    for (mood, check, reason) in cases {
        eprintln!("case {check} {mood:?}");
        let [bad, good] = [Host::new(), Host::new()];
        let edge = Edge::start(1, &(pool(&[&bad, &good], "") + &checks(check, "")));
        until("it is checked", || bad.checks() > 0 && good.checks() > 0);
        bad.set(mood.clone());
        edge.until_lines(1, &["WARN", "backend is down", &bad.name(), reason, "pool=\"chat\""]);
        let asked = bad.asked().len();
        for _ in 0..6 {
            assert_eq!(edge.who(&[]), good.name());
        }
        assert_eq!(bad.asked().len(), asked, "one that is down gets no new sessions");
        bad.set(Mood::Well);
        edge.until_lines(1, &["backend is up again", &bad.name()]);
        until("it serves again", || edge.who(&[]) == bad.name());
        assert_eq!(edge.lines(&["backend is down"]), 1, "a line per change");
        assert_eq!(edge.lines(&["backend is up again"]), 1, "a line per change");
        assert_eq!(edge.lines(&["flaps"]), 0, "one change each way is no flapping");
    }
}

/// Answers the next check; the one behind it shows that this one has been judged.
struct Examined {
    backend: Backend,
    check: Wire,
}

impl Examined {
    fn next(backend: &Backend) -> Wire {
        let mut check = backend.accept();
        let head = check.head();
        assert_eq!(head.get("User-Agent").as_deref(), Some("ringway-health"), "{}", head.text());
        assert_eq!(head.start(), "GET /health?deep=1 HTTP/1.1");
        assert_eq!(head.get("Host").as_deref(), Some("chat.example"));
        check
    }

    fn answers(&mut self, status: u16) {
        self.check.send(format!("HTTP/1.1 {status} As Told\r\nContent-Length: 0\r\n\r\n"));
        self.check = Examined::next(&self.backend);
    }
}

#[test]
fn rise_and_fall_count_checks_in_a_row() {
    let backend = Backend::new();
    let config = format!(
        "[[pools]]\nname = \"chat\"\nbackends = [\"{}\"]\n[pools.health]\ncheck = \"http\"\npath = \"/health?deep=1\"\n\
         host = \"chat.example\"\nstatus_min = 200\nstatus_max = 204\ninterval = \"1s\"\ntimeout = \"1s\"\nrise = 2\n\
         fall = 3\n",
        backend.address
    );
    let edge = Edge::start(1, &config);
    let check = Examined::next(&backend);
    let mut examined = Examined { backend, check };
    for (status, up) in [
        (200, true),
        (205, true),
        (500, true),
        (204, true),
        (500, true),
        (302, true),
        (199, false),
        (200, false),
        (500, false),
        (200, false),
        (204, true),
        (500, true),
    ] {
        examined.answers(status);
        let mut client = edge.ask(&[]);
        match up {
            true => {
                let mut session = examined.backend.upgrade(&[]);
                assert_eq!(client.head().status(), 101);
                crate::harness::close(&mut client, &mut session);
            }
            false => drop(refusal(&mut client, &[503])),
        }
        assert!(examined.backend.accept_now().is_none(), "one that is down is not contacted");
    }
    assert_eq!((edge.lines(&["backend is down"]), edge.lines(&["backend is up again"])), (1, 1));
}

/// Its first check decides: a backend that is down from the beginning gets no session to find that out.
#[test]
fn the_first_check_decides() {
    let bad = Host::in_mood((own_ip(), 0).into(), Mood::Status(500));
    let edge = Edge::start(1, &(pool(&[&bad], "") + &checks("http", "")));
    edge.until_lines(1, &["backend is down", &bad.name(), "answered 500"]);
    edge.refused(503);
    assert!(bad.asked().is_empty());
}

#[test]
fn l10_flapping_within_the_thresholds_changes_nothing() {
    let (backend, config) = flapping(2);
    let edge = Edge::start(1, &config);
    let mut examined = Examined { check: Examined::next(&backend), backend };
    examined.answers(200);
    let mut live = edge.ask(&[]);
    let mut session = examined.backend.upgrade(&[]);
    assert_eq!(live.head().status(), 101);
    for _ in 0..6 {
        examined.answers(500);
        examined.answers(200);
        let mut client = edge.ask(&[]);
        let mut own = examined.backend.upgrade(&[]);
        assert_eq!(client.head().status(), 101);
        crate::harness::close(&mut client, &mut own);
    }
    assert_eq!(edge.lines(&["backend is down"]) + edge.lines(&["backend is up"]), 0);
    crate::harness::close(&mut live, &mut session);
}

#[test]
fn l10_flapping_does_not_fill_the_log_nor_touch_sessions() {
    let (backend, config) = flapping(1);
    let edge = Edge::start(1, &config);
    let mut examined = Examined { check: Examined::next(&backend), backend };
    examined.answers(200);
    let mut live = edge.ask(&[]);
    let mut session = examined.backend.upgrade(&[]);
    assert_eq!(live.head().status(), 101);
    for _ in 0..6 {
        examined.answers(500);
        edge.refused(503);
        examined.answers(200);
        live.client_frame(FIN | TEXT, "on");
        session.expect_frame(FIN | TEXT, "on");
    }
    let lines = edge.lines(&["backend is down"]) + edge.lines(&["backend is up"]);
    assert!((2..8).contains(&lines), "{lines} lines about 12 changes");
    crate::harness::close(&mut live, &mut session);
}

fn flapping(threshold: u32) -> (Backend, String) {
    let backend = Backend::new();
    let config = format!(
        "[[pools]]\nname = \"chat\"\nbackends = [\"{}\"]\n[pools.health]\ncheck = \"http\"\npath = \"/health?deep=1\"\n\
         host = \"chat.example\"\ninterval = \"1s\"\ntimeout = \"1s\"\nrise = {threshold}\nfall = {threshold}\n",
        backend.address
    );
    (backend, config)
}

#[test]
fn l11_all_backends_down_and_back_without_being_asked() {
    let hosts = Host::many(3);
    let all: Vec<&Host> = hosts.iter().collect();
    let edge = Edge::start(2, &(pool(&all, "") + &checks("http", "") + "[pools.admission]\nqueue_max = 100\n"));
    until("they are checked", || all.iter().all(|host| host.checks() > 0));
    let (mut live, _) = edge.open(&[]);
    hosts.iter().for_each(|host| host.set(Mood::Status(500)));
    edge.until_lines(3, &["backend is down"]);
    let asked = |hosts: &[Host]| hosts.iter().map(|host| host.asked().len()).sum::<usize>();
    let before = asked(&hosts);
    // At once: nobody waits in the queue for a pool that is down, or this would take its whole timeout each.
    for _ in 0..20 {
        says_when(&edge.refused(503), 5);
    }
    assert_eq!(asked(&hosts), before);
    says_back(&mut live, "still here");
    hosts.iter().for_each(|host| host.set(Mood::Well));
    until("it recovers alone", || edge.status() == 101);
    assert_eq!(edge.lines(&["backend is down"]), 3, "a line per change");
}

/// What sessions of a backend that is down or drained hear, by the options of [pools.sessions].
#[test]
fn sessions_of_a_lost_backend_are_kept_or_moved() {
    for (on_loss, code) in [("keep", 0), ("restart", 1012), ("going-away", 1001)] {
        for drained in [false, true] {
            eprintln!("case {on_loss} drained: {drained}");
            let (lost, other) = (Host::new(), Host::new());
            let option = if drained { "on_drain" } else { "on_down" };
            let fates = format!("[pools.sessions]\n{option} = \"{on_loss}\"\nclose_spread = \"100ms\"\n");
            let config = pool(&[&lost, &other], "") + &checks("http", "") + &fates;
            let edge = Edge::start(2, &config);
            let mut sessions: Vec<_> = (0..20).map(|_| edge.open(&[])).collect();
            match drained {
                true => {
                    let backend = format!("\"{}\"", lost.address);
                    let table = format!("{{ address = {backend}, drain = true }}");
                    edge.reload(&config.replace(&backend, &table));
                }
                false => {
                    lost.set(Mood::Status(500));
                    edge.until_lines(1, &["backend is down", &lost.name()]);
                }
            }
            for (client, host) in &mut sessions {
                if code == 0 || *host == other.name() {
                    says_back(client, "still here");
                    continue;
                }
                client.expect_close(&[code]);
                client.client_frame(FIN | CLOSE, close_payload(code, ""));
                client.expect_fin();
            }
            assert_eq!(edge.lines(&["its sessions are told to leave", &lost.name()]), usize::from(code != 0));
            let asked = lost.asked().len();
            for _ in 0..4 {
                assert_eq!(edge.who(&[]), other.name());
            }
            assert_eq!(lost.asked().len(), asked);
            if code != 0 {
                until("its sessions have gone", || lost.open() == 0);
            }
        }
    }
}

/// A spread of an hour leaves nearly everybody where they are for now, so that they do not come back all at once.
#[test]
fn closes_are_spread() {
    let (lost, other) = (Host::new(), Host::new());
    let fates = "[pools.sessions]\non_down = \"restart\"\nclose_spread = \"1h\"\n";
    let edge = Edge::start(2, &(pool(&[&lost, &other], "") + &checks("http", "") + fates));
    let mut sessions: Vec<_> = (0..40).map(|_| edge.open(&[])).collect();
    lost.set(Mood::Status(500));
    edge.until_lines(1, &["its sessions are told to leave, over 3600s", &lost.name()]);
    sessions.iter_mut().for_each(|(client, _)| says_back(client, "still here"));
}
