//! Reload, row L25 and what an operator sees of L24: what is new holds for new sessions, what is wrong changes nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::fleet::*;
use crate::harness::{Ringway, Setup, refusal, run, scratch, until};
use crate::wire::*;

/// A relay that has its listeners, like everything else, from its file.
fn start(config: &str) -> Edge {
    Edge { relay: Ringway::start(&Setup { settings: config.into(), workers: 2, ..Setup::default() }) }
}

fn listeners(addresses: &[String]) -> String {
    addresses.iter().map(|address| format!("[[listeners]]\naddress = \"{address}\"\n")).collect()
}

fn at(address: SocketAddr) -> (Wire, String) {
    let mut client = Wire::connect(address);
    client.send(request(&[]));
    opened(client)
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, DEADLINE).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Writes the file and asks for a reload that has to be refused.
fn refused_reload(edge: &Edge, config: &str) {
    let before = edge.lines(&["reload refused, nothing has changed"]);
    std::fs::write(&edge.relay.config, config).unwrap();
    edge.relay.signal("HUP");
    edge.until_lines(before + 1, &["reload refused, nothing has changed"]);
}

#[test]
fn routes_pools_and_limits_are_those_of_the_time_when_a_session_came() {
    let (a, b) = (Host::new(), Host::new());
    let before = format!("[limits]\nframe_bytes_max = 300\nmessage_bytes_max = 300\n{}", pool(&[&a], ""));
    let edge = Edge::start(2, &before);
    let (mut old, host) = edge.open(&[]);
    assert_eq!(host, a.name());
    let after = format!(
        "[limits]\nframe_bytes_max = 125\nmessage_bytes_max = 125\n[[pools]]\nname = \"other\"\nbackends = [\"{}\"]\n\
         [[routes]]\npath = \"/chat\"\npool = \"other\"\n",
        b.address
    );
    edge.reload(&after);
    let (mut new, host) = edge.open(&[]);
    assert_eq!(host, b.name());
    // A message of 200 bytes, in two frames.
    old.client_frame(TEXT, [b'x'; 100]).expect_frame(TEXT, [b'x'; 100]);
    old.client_frame(FIN, [b'y'; 100]).expect_frame(FIN, [b'y'; 100]);
    new.client_frame(TEXT, [b'x'; 100]).expect_frame(TEXT, [b'x'; 100]);
    new.client_frame(FIN, [b'y'; 100]).expect_close(&[1009]);
    old.client_frame(FIN | TEXT, [b'x'; 301]).expect_close(&[1009]);
}

#[test]
fn timeouts_are_those_of_the_time_when_a_session_came() {
    let host = Host::new();
    let edge = Edge::start(1, &format!("{}[timeouts]\nidle = \"1h\"\n", pool(&[&host], "")));
    let (mut old, _) = edge.open(&[]);
    edge.reload(&format!("{}[timeouts]\nidle = \"100ms\"\n", pool(&[&host], "")));
    let (mut new, _) = edge.open(&[]);
    new.expect_close(&[1001]);
    says_back(&mut old, "not idle for an hour");
}

#[test]
fn l25_every_fault_is_told_with_its_place_and_nothing_changes() {
    let host = Host::new();
    let good = pool(&[&host], "");
    let edge = Edge::start(2, &good);
    let (mut client, _) = edge.open(&[]);
    let path = edge.relay.config.display().to_string();
    for (bad, places) in [
        ("[limits\n", &[":1:"][..]),
        ("[limits]\nno_such_option = 1\n\n[timeouts]\n  idle = \"soon\"\n", &[":2:1", ":5:10"]),
        (&format!("default_pool = \"nowhere\"\n{good}"), &[":1:16"]),
        ("", &[]),
    ] {
        refused_reload(&edge, bad);
        for place in places {
            edge.until_lines(1, &["ERROR", "nothing has changed", &format!("{path}{place}")]);
        }
        says_back(&mut client, "untouched");
        assert_eq!(edge.who(&[]), host.name());
    }
    // A file that is gone.
    std::fs::remove_file(&edge.relay.config).unwrap();
    edge.relay.signal("HUP");
    edge.until_lines(1, &["nothing has changed", &path, "No such file"]);
    assert_eq!(edge.who(&[]), host.name());
    edge.reload(&good);
    says_back(&mut client, "untouched");
    expect_errors(edge);
}

/// Stops a relay whose log must have errors in it.
fn expect_errors(edge: Edge) {
    assert!(edge.lines(&[" ERROR "]) > 0);
    edge.relay.signal("TERM");
    edge.relay.ended_with_errors();
}

#[test]
fn l25_a_port_that_another_process_has_changes_nothing() {
    let (host, other) = (Host::new(), Host::new());
    let (stays, comes) = (free_address(), free_address());
    let edge = start(&format!("{}{}", listeners(&[stays.to_string()]), pool(&[&host], "")));
    let foreign = TcpListener::bind((own_ip(), 0)).unwrap();
    let taken = foreign.local_addr().unwrap();
    // One that could be bound, too: it must not be left behind.
    let wanted = listeners(&[comes.to_string(), taken.to_string()]);
    refused_reload(&edge, &format!("{wanted}{}", pool(&[&other], "")));
    edge.until_lines(
        1,
        &["nothing has changed", &format!("cannot listen on {taken}"), "Another process listens there"],
    );
    assert_eq!(at(stays).1, host.name());
    assert!(refuses(comes));
    expect_errors(edge);
}

#[test]
fn listeners_come_and_go_and_their_sessions_stay() {
    let host = Host::new();
    let unix = scratch("relay.sock");
    let [first, second] = [free_address(), free_address()].map(|address| address.to_string());
    let file = format!("unix:{}", unix.display());
    let config = |addresses: &[&String]| {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).clone()).collect();
        format!("{}{}", listeners(&addresses), pool(&[&host], ""))
    };
    let edge = start(&config(&[&first]));
    let (mut old, _) = at(first.parse().unwrap());
    edge.reload(&config(&[&first, &second, &file]));
    let (mut young, _) = at(second.parse().unwrap());
    let mut local = unix_client(&unix);
    says_back_locally(&mut local, "one");
    edge.reload(&config(&[&second]));
    assert!(!unix.exists(), "the socket's file goes with it");
    until("the removed one refuses", || refuses(first.parse().unwrap()));
    says_back(&mut old, "of a listener that is gone");
    says_back_locally(&mut local, "two");
    for _ in 0..20 {
        says_back(&mut at(second.parse().unwrap()).0, "hello");
    }
    // Both come back, where they were. Right after the other is gone, whose sockets may not be closed yet.
    for _ in 0..10 {
        edge.reload(&config(&[&file, &first]));
        edge.reload(&config(&[&second]));
    }
    edge.reload(&config(&[&first, &second, &file]));
    for client in [&mut old, &mut young, &mut at(first.parse().unwrap()).0] {
        says_back(client, "and again");
    }
    says_back_locally(&mut local, "three");
    says_back_locally(&mut unix_client(&unix), "four");
}

fn unix_client(path: &Path) -> UnixStream {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request(&[]).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

fn says_back_locally(stream: &mut UnixStream, text: &str) {
    use std::io::{Read, Write};
    stream.write_all(&frame(FIN | TEXT, Some(MASK), text.as_bytes())).unwrap();
    let wanted = frame(FIN | TEXT, None, text.as_bytes());
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, wanted);
}

#[test]
fn a_listener_opens_up_to_all_addresses_on_its_port() {
    let host = Host::new();
    // Free on every address: the kernel gives nobody one below 32768 unasked.
    let port = 12_000 + (std::process::id() % 20_000) as u16;
    let (loopback, everywhere) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    let config = |address: &String| format!("{}{}", listeners(std::slice::from_ref(address)), pool(&[&host], ""));
    let edge = start(&config(&loopback));
    let (mut old, _) = at(loopback.parse().unwrap());
    let elsewhere = SocketAddr::new(own_ip(), port);
    assert!(refuses(elsewhere));
    edge.reload(&config(&everywhere));
    says_back(&mut at(elsewhere).0, "from elsewhere");
    until("the old sockets are closed", || {
        let mut client = Wire::connect(loopback.parse().unwrap());
        client.try_send(request(&[]).as_bytes()) && client.stream.peek(&mut [0]).is_ok_and(|count| count > 0)
    });
    edge.reload(&config(&loopback));
    until("nobody listens elsewhere", || refuses(elsewhere));
    says_back(&mut at(loopback.parse().unwrap()).0, "at home");
    says_back(&mut old, "all along");
}

#[test]
fn what_needs_a_restart_is_named_each_time() {
    let host = Host::new();
    let good = pool(&[&host], "");
    let edge = Edge::start(1, &good);
    let fixed = "cpus = \"0\"\n[limits]\nsessions_max = 7\n[tcp]\nbacklog = 17\n[buffers]\nsmall_bytes = \"8KiB\"\n";
    for round in 1..=2 {
        edge.reload(&format!("{fixed}{good}"));
        for option in ["cpus", "limits.sessions_max", "tcp", "buffers"] {
            edge.until_lines(round, &["WARN", &format!("{option} has changed"), "at the next start"]);
        }
    }
    assert_eq!(edge.lines(&["has changed; that takes effect"]), 8);
    // Back to what is in effect: nothing waits any more.
    edge.reload(&good);
    assert_eq!(edge.lines(&["has changed; that takes effect"]), 8);
    assert_eq!(edge.who(&[]), host.name());
}

#[test]
fn the_log_level_applies() {
    let host = Host::new();
    let narrow = "connections_max = 1\n[pools.admission]\nqueue_max = 1\n";
    let config = |level: &str| format!("log_level = \"{level}\"\n{}", pool(&[&host], narrow));
    let listen = vec!["127.0.0.1:0".into()];
    let setup = Setup { settings: config("debug"), listen, logs_as_told: true, ..Setup::default() };
    let edge = Edge { relay: Ringway::start(&setup) };
    edge.who(&[]);
    edge.until_lines(1, &["session ended"]);
    edge.reload(&config("info"));
    edge.who(&[]);
    // It has ended when there is room for another one.
    let (mut next, _) = edge.open(&[]);
    edge.reload(&config("debug"));
    leave(&mut next);
    drop(next);
    edge.until_lines(2, &["session ended"]);
    assert_eq!(edge.lines(&["session ended"]), 2, "the one under info is not told");
}

#[test]
fn a_watched_file_is_read_when_it_is_replaced() {
    let (a, b) = (Host::new(), Host::new());
    let config = |host: &Host, watch: &str| format!("config_watch = \"{watch}\"\n{}", pool(&[host], ""));
    let edge = Edge::start(1, &config(&a, "on"));
    assert_eq!(edge.who(&[]), a.name());
    replace(&edge.relay.config, &config(&b, "off"));
    edge.until_lines(1, &[" reloaded "]);
    assert_eq!(edge.who(&[]), b.name());
    // And from then on it is not.
    replace(&edge.relay.config, &config(&a, "on"));
    edge.relay.signal("HUP");
    edge.until_lines(2, &[" reloaded "]);
    assert_eq!(edge.lines(&["file has changed"]), 1);
    // A fault in it changes nothing, and what comes then is read.
    replace(&edge.relay.config, "nonsense");
    edge.until_lines(1, &["nothing has changed"]);
    assert_eq!(edge.who(&[]), a.name());
    replace(&edge.relay.config, &config(&b, "on"));
    edge.until_lines(3, &[" reloaded "]);
    assert_eq!(edge.who(&[]), b.name());
    expect_errors(edge);
}

/// As whoever writes such files should: another file in its place, all at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_drain_is_not_interrupted() {
    let host = Host::new();
    let edge = Edge::start(2, &pool(&[&host], ""));
    let (mut client, _) = edge.open(&[]);
    edge.relay.signal("TERM");
    client.expect_close(&[1001]);
    edge.relay.signal("HUP");
    edge.until_lines(1, &["SIGHUP: ignored"]);
    assert_eq!(edge.lines(&[" reloaded "]), 0);
    client.client_frame(FIN | CLOSE, close_payload(1001, ""));
    client.expect_end();
    edge.relay.ended();
}

/// It waits for whoever may write into the pipe; nobody waits for it.
#[test]
fn a_reload_that_never_ends_does_not_keep_the_relay_from_ending() {
    let host = Host::new();
    let edge = Edge::start(1, &pool(&[&host], ""));
    std::fs::remove_file(&edge.relay.config).unwrap();
    assert!(run(Path::new("mkfifo"), &[edge.relay.config.to_str().unwrap()]).status.success());
    edge.relay.signal("HUP");
    edge.until_lines(1, &["SIGHUP: reloading"]);
    assert_eq!(edge.who(&[]), host.name());
    // Who asks again is told why nothing happens.
    until("it is told", || {
        edge.relay.signal("HUP");
        edge.lines(&["WARN", "is still being read", edge.relay.config.to_str().unwrap()]) > 0
    });
    edge.relay.signal("TERM");
    edge.relay.ended();
}

#[test]
fn a_reload_that_waits_for_discovery_does_not_keep_the_relay_from_ending() {
    let host = Host::new();
    let edge = Edge::start(1, &pool(&[&host], ""));
    // It is asked, and never answers.
    let nameserver = UdpSocket::bind((own_ip(), 0)).unwrap();
    nameserver.set_read_timeout(Some(DEADLINE)).unwrap();
    let discovery = "[pools.discovery]\ndns = \"chat.test:80\"\n";
    let config = format!("nameservers = [\"{}\"]\n{}", nameserver.local_addr().unwrap(), pool(&[&host], discovery));
    std::fs::write(&edge.relay.config, config).unwrap();
    edge.relay.signal("HUP");
    nameserver.recv(&mut [0; 512]).unwrap();
    edge.relay.signal("INT");
    edge.until_lines(1, &["SIGINT"]);
    assert_eq!(edge.lines(&["reloaded"]), 0, "it did not wait");
    edge.relay.ended();
}

/// Signals of one kind are not counted while they wait, and reloads that are asked for during one are one.
#[test]
fn many_signals_at_once_are_few_reloads_and_the_last_file_wins() {
    let hosts = Host::many(2);
    let edge = Edge::start(2, &pool(&[&hosts[0]], ""));
    // So much that reading it takes a while.
    let routes: String = (0..3000).map(|n| format!("[[routes]]\npath = \"/{n}\"\npool = \"chat\"\n")).collect();
    std::fs::write(&edge.relay.config, format!("{}{routes}", pool(&[&hosts[0]], ""))).unwrap();
    let pid = edge.relay.process.pid();
    let burst = |count: usize| {
        let line = format!("for i in $(seq {count}); do kill -HUP {pid}; done");
        assert!(std::process::Command::new("sh").args(["-c", &line]).status().unwrap().success());
    };
    burst(200);
    replace(&edge.relay.config, &pool(&[&hosts[1]], ""));
    burst(1);
    edge.until_lines(1, &[" reloaded ", "routes=1 "]);
    let reloads = edge.lines(&[" reloaded "]);
    assert!(reloads < 100, "{reloads} reloads for 201 signals");
    assert_eq!(edge.who(&[]), hosts[1].name());
}

#[test]
fn those_who_wait_are_served_by_the_new_configuration() {
    let (full, roomy) = (Host::new(), Host::new());
    let narrow = "connections_max = 1\n[pools.admission]\nqueue_max = 10\nqueue_timeout = \"1h\"\n";
    let edge = Edge::start(1, &pool(&[&full], narrow));
    let (mut first, _) = edge.open(&[]);
    let waiting: Vec<_> = (0..3).map(|_| edge.ask(&[])).collect();
    edge.reload(&pool(&[&roomy], ""));
    for client in waiting {
        let (mut client, host) = opened(client);
        assert_eq!(host, roomy.name());
        says_back(&mut client, "at last");
    }
    says_back(&mut first, "here");
}

#[test]
fn a_request_that_no_route_takes_any_more_hears_404() {
    let host = Host::new();
    let edge = Edge::start(1, &pool(&[&host], ""));
    let (mut old, _) = edge.open(&[]);
    let routed = format!("{}[[routes]]\npath = \"/elsewhere\"\npool = \"chat\"\n", pool(&[&host], ""));
    edge.reload(&routed);
    refusal(&mut edge.ask(&[]), &[404]);
    says_back(&mut old, "here");
}
