//! Backends that come from DNS, asked of Debian's dnsmasq, and from files. The log says what changes, clients see where
//! they end up.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::fleet::*;
use crate::harness::{Process, Ringway, Setup, scratch, send_signal, until};

/// A nameserver for chat.test that knows what its hosts file and its arguments say.
struct Nameserver {
    address: SocketAddr,
    hosts: PathBuf,
    process: Option<Process>,
}

impl Nameserver {
    fn start(hosts: &str, services: &[String]) -> Nameserver {
        let mut nameserver = Nameserver { address: (own_ip(), 10053).into(), hosts: scratch("hosts"), process: None };
        std::fs::write(&nameserver.hosts, hosts).unwrap();
        nameserver.restart(services);
        nameserver
    }

    fn restart(&mut self, services: &[String]) {
        self.process = None;
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
        command.args(["--local=/chat.test/", "--local-ttl=1", "--pid-file=", "--cache-size=0"]);
        command.arg(format!("--port={}", self.address.port())).arg(format!("--listen-address={}", self.address.ip()));
        command.arg(format!("--addn-hosts={}", self.hosts.display()));
        command.args(services.iter().map(|service| format!("--srv-host=_ws._tcp.chat.test,{service}")));
        let mut process = Process::start(command);
        process.line(&["read ", "hosts"]);
        self.process = Some(process);
    }

    /// Other answers from now on.
    fn set(&self, hosts: &str) {
        let process = self.process.as_ref().expect("it runs");
        let reads = || process.log().iter().filter(|line| line.contains(" read ") || line.contains("read /")).count();
        let before = reads();
        std::fs::write(&self.hosts, hosts).unwrap();
        send_signal(process.pid(), "HUP");
        until("it has read the file again", || reads() > before);
    }

    fn stop(&mut self) {
        self.process = None;
    }

    /// The first lines of a relay's file.
    fn config(&self) -> String {
        format!("nameservers = [\"{}\"]\n", self.address)
    }
}

/// Hosts on addresses of their own and one port.
fn neighbours(count: usize) -> Vec<Host> {
    (0..count).map(|_| Host::at((own_ip(), 7001).into())).collect()
}

/// Lines of a hosts file.
fn records<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> String {
    hosts.into_iter().map(|host| format!("{} chat.test\n", host.address.ip())).collect()
}

/// Asked often.
fn discover(source: &str) -> String {
    format!(
        "[[pools]]\nname = \"chat\"\n[pools.discovery]\n{source}interval_min = \"100ms\"\ninterval_max = \"300ms\"\n"
    )
}

/// Exactly these serve, each of them.
fn serve(edge: &Edge, hosts: &[&Host]) {
    let names: Vec<String> = hosts.iter().map(|host| host.name()).collect();
    for _ in 0..2 * names.len() {
        let who = edge.who(&[]);
        assert!(names.contains(&who), "{who} is none of {names:?}");
    }
    let mut missing = names.clone();
    until("everybody serves", || {
        let who = edge.who(&[]);
        missing.retain(|name| *name != who);
        missing.is_empty()
    });
}

#[test]
fn l34_addresses_that_come_and_go() {
    let hosts = neighbours(4);
    let [a, b, c, d] = [&hosts[0], &hosts[1], &hosts[2], &hosts[3]];
    let nameserver = Nameserver::start(&records([a, b]), &[]);
    let edge = Edge::start(2, &(nameserver.config() + &discover("dns = \"chat.test:7001\"\n")));
    // Known before anybody is served.
    let mut sessions: Vec<_> = (0..6).map(|_| edge.open(&[])).collect();
    serve(&edge, &[a, b]);
    // More.
    nameserver.set(&records([a, b, c]));
    edge.until_lines(1, &["backend found", &c.name(), "pool=\"chat\""]);
    serve(&edge, &[a, b, c]);
    // Fewer: new sessions go to the others, old ones stay.
    nameserver.set(&records([b, c]));
    edge.until_lines(1, &["backend gone; its sessions stay", &a.name()]);
    serve(&edge, &[b, c]);
    // All others.
    nameserver.set(&records([d]));
    edge.until_lines(1, &["backend gone; its sessions stay", &b.name()]);
    serve(&edge, &[d]);
    for host in [a, b] {
        let its = sessions.iter().filter(|(_, who)| *who == host.name()).count();
        until("its old sessions are all it has", || host.open() == its);
    }
    sessions.iter_mut().for_each(|(client, _)| says_back(client, "still here"));
    // Back again, with its sessions still counted.
    nameserver.set(&records([a, d]));
    edge.until_lines(1, &["backend found", &a.name()]);
    serve(&edge, &[a, d]);
    sessions.iter_mut().for_each(|(client, _)| leave(client));
    assert_eq!((edge.lines(&["backend found"]), edge.lines(&["backend gone"])), (3, 3), "a line per change");
}

#[test]
fn counters_of_backends_that_stay_go_on() {
    let hosts = neighbours(2);
    let nameserver = Nameserver::start(&records([&hosts[0]]), &[]);
    let source = "dns = \"chat.test:7001\"\n";
    let config = nameserver.config() + &discover(source).replace("[pools.d", "connections_max = 2\n[pools.d");
    let edge = Edge::start(2, &config);
    let _sessions = [edge.open(&[]), edge.open(&[])];
    edge.refused(503);
    nameserver.set(&records(&hosts));
    edge.until_lines(1, &["backend found", &hosts[1].name()]);
    let _others = [edge.open(&[]), edge.open(&[])];
    edge.refused(503);
    assert_eq!([hosts[0].open(), hosts[1].open()], [2, 2]);
}

#[test]
fn the_last_good_answer_stays_when_dns_fails() {
    let hosts = neighbours(2);
    let mut nameserver = Nameserver::start(&records([&hosts[0]]), &[]);
    let edge = Edge::start(2, &(nameserver.config() + &discover("dns = \"chat.test:7001\"\n")));
    serve(&edge, &[&hosts[0]]);
    // No such name any more.
    nameserver.set("");
    edge.until_lines(1, &["WARN", "discovery fails; the last good answer stays", "no such name", "dns chat.test:7001"]);
    serve(&edge, &[&hosts[0]]);
    nameserver.set(&records(&hosts));
    edge.until_lines(1, &["INFO", "discovery works again", "dns chat.test:7001"]);
    edge.until_lines(1, &["backend found"]);
    serve(&edge, &[&hosts[0], &hosts[1]]);
    // No nameserver any more.
    nameserver.stop();
    edge.until_lines(2, &["discovery fails; the last good answer stays"]);
    serve(&edge, &[&hosts[0], &hosts[1]]);
    std::fs::write(&nameserver.hosts, records([&hosts[1]])).unwrap();
    nameserver.restart(&[]);
    edge.until_lines(2, &["discovery works again"]);
    edge.until_lines(1, &["backend gone", &hosts[0].name()]);
    serve(&edge, &[&hosts[1]]);
    assert_eq!(edge.lines(&["discovery fails"]), 2, "a line per change, however often it is asked");
}

/// A name that is gone for good takes its backends along, after a time; a nameserver that says nothing does not.
#[test]
fn field_r14_names_that_are_gone() {
    let hosts = neighbours(2);
    let mut nameserver = Nameserver::start(&records(&hosts), &[]);
    for (after, wait) in [("0s", false), ("1s", true)] {
        let source = format!("dns = \"chat.test:7001\"\nempty_after = \"{after}\"\n");
        nameserver.set(&records(&hosts));
        let edge = Edge::start(1, &(nameserver.config() + &discover(&source)));
        serve(&edge, &[&hosts[0], &hosts[1]]);
        nameserver.stop();
        edge.until_lines(1, &["discovery fails; the last good answer stays", "does not answer"]);
        serve(&edge, &[&hosts[0], &hosts[1]]);
        nameserver.restart(&[]);
        edge.until_lines(1, &["discovery works again"]);
        nameserver.set("");
        if wait {
            edge.until_lines(2, &["discovery fails; the last good answer stays"]);
        }
        edge.until_lines(2, &["backend gone; its sessions stay"]);
        edge.refused(503);
        // And back again.
        nameserver.set(&records(&hosts));
        edge.until_lines(2, &["backend found"]);
        serve(&edge, &[&hosts[0], &hosts[1]]);
    }
}

#[test]
fn a_relay_starts_without_dns_and_serves_when_it_is_there() {
    let host = Host::at((own_ip(), 7001).into());
    let mut nameserver = Nameserver::start(&records([&host]), &[]);
    nameserver.stop();
    let edge = Edge::start(1, &(nameserver.config() + &discover("dns = \"chat.test:7001\"\n")));
    edge.refused(503);
    nameserver.restart(&[]);
    edge.until_lines(1, &["backend found", &host.name()]);
    serve(&edge, &[&host]);
}

#[test]
fn services_have_priorities_and_weights() {
    let hosts = Host::many(4);
    let names = ["a", "b", "c", "d"];
    let file: String =
        names.iter().zip(&hosts).map(|(name, host)| format!("{} {name}.chat.test\n", host.address.ip())).collect();
    let service = |number: usize, priority: u32, weight: u32| {
        format!("{}.chat.test,{},{priority},{weight}", names[number], hosts[number].address.port())
    };
    let mut nameserver = Nameserver::start(&file, &[service(0, 1, 30), service(1, 1, 10), service(2, 5, 1)]);
    let edge = Edge::start(1, &(nameserver.config() + &discover("srv = \"_ws._tcp.chat.test\"\n")));
    let who: Vec<String> = (0..40).map(|_| edge.who(&[])).collect();
    let count = |host: &Host| who.iter().filter(|who| **who == host.name()).count();
    // Weights as they are, and the worse priority only as a backup.
    assert_eq!([count(&hosts[0]), count(&hosts[1]), count(&hosts[2])], [30, 10, 0]);
    nameserver.restart(&[service(2, 5, 1), service(3, 5, 1)]);
    edge.until_lines(1, &["backend found", &hosts[3].name()]);
    serve(&edge, &[&hosts[2], &hosts[3]]);
    // One more, and with a better priority.
    nameserver.restart(&[service(0, 2, 0), service(2, 5, 1), service(3, 5, 1)]);
    edge.until_lines(1, &["backend found", &hosts[0].name()]);
    serve(&edge, &[&hosts[0]]);
    // None at all: the last good answer stays.
    nameserver.restart(&[]);
    edge.until_lines(1, &["discovery fails; the last good answer stays", "srv _ws._tcp.chat.test"]);
    serve(&edge, &[&hosts[0]]);
}

#[test]
fn what_the_file_names_and_what_is_found_serve_together() {
    let found = Host::at((own_ip(), 7001).into());
    let named = Host::new();
    let nameserver = Nameserver::start(&records([&found]), &[]);
    let config = discover("dns = \"chat.test:7001\"\n");
    let both = config.replace("name = \"chat\"\n", &format!("name = \"chat\"\nbackends = [\"{}\"]\n", named.address));
    let edge = Edge::start(1, &(nameserver.config() + &both));
    serve(&edge, &[&found, &named]);
    // A reload keeps what was found, and may do without.
    edge.reload(&(nameserver.config() + &both.replace("interval_min = \"100ms\"", "interval_min = \"200ms\"")));
    serve(&edge, &[&found, &named]);
    edge.reload(&pool(&[&named], ""));
    serve(&edge, &[&named]);
}

/// As careful writers do it: beside the file, then in its place.
fn replace(path: &PathBuf, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn list(hosts: &[&Host], json: bool) -> String {
    let addresses: Vec<String> = hosts.iter().map(|host| format!("\"{}\"", host.address)).collect();
    match json {
        true => format!("{{\"backends\": [{}]}}", addresses.join(", ")),
        false => format!("backends = [{}]\n", addresses.join(", ")),
    }
}

#[test]
fn a_file_in_toml_is_followed() {
    file_is_followed(false);
}

#[test]
fn a_file_in_json_is_followed() {
    file_is_followed(true);
}

fn file_is_followed(json: bool) {
    let hosts = Host::many(3);
    let path = scratch(if json { "backends.json" } else { "backends.toml" });
    replace(&path, &list(&[&hosts[0]], json));
    let edge = Edge::start(2, &discover(&format!("file = \"{}\"\n", path.display())));
    let (mut live, _) = edge.open(&[]);
    serve(&edge, &[&hosts[0]]);
    replace(&path, &list(&[&hosts[1], &hosts[2]], json));
    edge.until_lines(2, &["backend found"]);
    serve(&edge, &[&hosts[1], &hosts[2]]);
    // What is wrong is told with file and reason, and changes nothing.
    let name = path.to_str().unwrap();
    let faulty = list(&[&hosts[0]], json).replace("7", "seven").replace(':', "?");
    for (text, reason) in [(faulty.as_str(), "reason="), ("", "reason="), ("\n\n{", "line 3")] {
        let fails = edge.lines(&["discovery fails; the last good answer stays"]);
        replace(&path, text);
        edge.until_lines(fails + 1, &["discovery fails; the last good answer stays", name]);
        assert!(edge.lines(&["discovery fails", name, reason]) > 0, "{reason}");
        serve(&edge, &[&hosts[1], &hosts[2]]);
        let works = edge.lines(&["discovery works again"]);
        replace(&path, &list(&[&hosts[1], &hosts[2]], json));
        edge.until_lines(works + 1, &["discovery works again"]);
    }
    std::fs::remove_file(&path).unwrap();
    edge.until_lines(4, &["discovery fails", name]);
    assert_eq!(edge.lines(&["discovery fails", name, "cannot be read"]), 1);
    serve(&edge, &[&hosts[1], &hosts[2]]);
    replace(&path, &list(&[&hosts[0]], json));
    edge.until_lines(2, &["backend gone"]);
    serve(&edge, &[&hosts[0]]);
    says_back(&mut live, "still here");
}

/// A pipe that nobody writes to, in a file's place: neither the other pool's backends nor signals wait for it.
#[test]
fn field_a14_files_that_hang_hold_up_nobody() {
    let hosts = Host::many(3);
    let (ours, other) = (scratch("ours.toml"), scratch("other.toml"));
    let pipe = |path: &PathBuf| {
        let new = path.with_extension("pipe");
        assert!(Command::new("mkfifo").arg(&new).status().unwrap().success());
        std::fs::rename(new, path).unwrap();
    };
    pipe(&other);
    replace(&ours, &list(&[&hosts[0]], false));
    let pool = |path: &PathBuf| discover(&format!("file = \"{}\"\n", path.display()));
    let edge = Edge::start(1, &(pool(&ours) + &pool(&other).replace("\"chat\"", "\"other\"")));
    edge.until_lines(1, &["discovery fails", "other.toml", "it is not a file"]);
    serve(&edge, &[&hosts[0]]);
    // Now the configuration itself.
    pipe(&edge.relay.config);
    until("the reading hangs", || {
        edge.relay.signal("HUP");
        edge.lines(&["is still being read"]) > 0
    });
    replace(&ours, &list(&[&hosts[1]], false));
    edge.until_lines(1, &["backend gone"]);
    serve(&edge, &[&hosts[1]]);
    replace(&other, &list(&[&hosts[2]], false));
    edge.until_lines(1, &["discovery works again"]);
    edge.relay.signal("TERM");
    edge.relay.ended();
}

/// All that a backend can be told, through a file: names, weights, limits, backups, drains.
#[test]
fn a_file_says_more_than_addresses() {
    let hosts = Host::many(3);
    let path = scratch("backends.toml");
    let table = |host: &Host, more: &str| format!("[[backends]]\naddress = \"{}\"\n{more}", host.address);
    replace(
        &path,
        &(table(&hosts[0], "weight = 3\nname = \"big\"\n")
            + &table(&hosts[1], "")
            + &table(&hosts[2], "backup = true\n")),
    );
    let edge = Edge::start(1, &discover(&format!("file = \"{}\"\n", path.display())));
    let who: Vec<String> = (0..20).map(|_| edge.who(&[])).collect();
    let count = |host: &Host| who.iter().filter(|who| **who == host.name()).count();
    assert_eq!([count(&hosts[0]), count(&hosts[1]), count(&hosts[2])], [15, 5, 0]);
    let (mut live, _) = edge.open(&[]);
    replace(
        &path,
        &(table(&hosts[0], "drain = true\n")
            + &table(&hosts[1], "connections_max = 1\ndrain = true\n")
            + &table(&hosts[2], "connections_max = 1\n")),
    );
    // The first that is taken stays: one that has left might still be counted when the next one comes.
    let mut held = None;
    until("only the last one takes sessions", || {
        let (mut client, host) = edge.open(&[]);
        if host != hosts[2].name() {
            leave(&mut client);
            return false;
        }
        held = Some(client);
        true
    });
    edge.refused(503);
    says_back(&mut live, "still here");
}

/// Sessions would go round through the relay until there are none left.
#[test]
fn the_relay_itself_is_no_backend() {
    let host = Host::new();
    let [public, other] = [free_address(), free_address()];
    let path = scratch("backends.toml");
    let listed = |addresses: &[SocketAddr]| {
        let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        replace(&path, &format!("backends = [{}]\n", addresses.join(", ")));
    };
    let config = |listeners: &[SocketAddr]| -> String {
        let listeners = listeners.iter().map(|address| format!("[[listeners]]\naddress = \"{address}\"\n"));
        listeners.collect::<String>() + &discover(&format!("file = \"{}\"\n", path.display()))
    };
    let left_out = |address: SocketAddr| {
        let reason = format!("{address} is this relay itself: it listens there");
        ["WARN", "backend left out", "pool=\"chat\"", &format!("backend=\"{address}\""), &reason].map(str::to_owned)
    };
    let told = |edge: &Edge, address| edge.lines(&left_out(address).each_ref().map(String::as_str));
    listed(&[host.address, public]);
    let setup = Setup { settings: config(&[public, other]), ..Setup::default() };
    let edge = Edge { relay: Ringway::start(&setup) };
    serve(&edge, &[&host]);
    assert_eq!((told(&edge, public), told(&edge, other)), (1, 0));
    // A look a second at a file so young, and each finds the same.
    listed(&[host.address, public, other]);
    until("the other listener is found", || told(&edge, other) == 1);
    std::thread::sleep(Duration::from_millis(2500));
    serve(&edge, &[&host]);
    assert_eq!(edge.lines(&["backend left out"]), 2, "a line per change");
    // It is a backend like any other when the relay does not listen there any more.
    edge.reload(&config(&[public]));
    assert_eq!(edge.lines(&[" reloaded ", "backends=2"]), 1);
    until("the listener is closed", || TcpStream::connect(other).is_err());
    let another = Host::at(other);
    serve(&edge, &[&host, &another]);
    // And none when it does again.
    another.stop();
    edge.reload(&config(&[public, other]));
    until("the other listener is found", || told(&edge, other) == 2);
    serve(&edge, &[&host]);
    assert_eq!(edge.lines(&["backend left out"]), 3, "a line per change");
}

/// A name that nobody knows yet, in a pool beside another. The system's resolver knows what /etc/hosts says, which is the test's
/// own.
#[test]
fn field_r12_a_name_that_cannot_be_resolved_yet() {
    let (good, late) = (Host::new(), Host::new());
    let (hosts, resolv) = (scratch("hosts"), scratch("resolv.conf"));
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let knows = |names: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{names}")).unwrap();
    let known = format!("{} late.test\n", late.address.ip());
    let within = |program: &str| {
        let (hosts, resolv) = (hosts.display(), resolv.display());
        format!(
            "exec unshare --mount sh -c 'mount --bind {hosts} /etc/hosts && mount --bind {resolv} /etc/resolv.conf && \
             exec {program}' \"$0\" \"$@\""
        )
    };
    let config = |more: &str| {
        format!(
            "default_pool = \"chat\"\n{}[[pools]]\nname = \"late\"\nbackends = [{{ address = \"late.test:{}\", name = \"late\", \
             weight = 3 }}]\n[pools.discovery]\ninterval_min = \"100ms\"\n{more}[[routes]]\nname = \"late\"\npool = \"late\"\n\
             path_segments = \"/late\"\n",
            pool(&[&good], ""),
            late.address.port()
        )
    };
    knows("");
    let settings = config("");
    let before = within("\"$0\" \"$@\"");
    let listen = vec!["127.0.0.1:0".into()];
    let setup = Setup { settings, listen, workers: 2, before, ..Setup::default() };
    let edge = Edge { relay: Ringway::start(&setup) };
    let asks = |path: &str| {
        let mut client = edge.relay.client();
        client.send(crate::wire::request_with("GET", &format!("GET {path} HTTP/1.1")));
        client
    };
    let serves = || {
        let (mut client, host) = opened(asks("/late"));
        leave(&mut client);
        assert_eq!(host, late.name());
    };
    assert_eq!(edge.lines(&["WARN", "discovery fails", "name late.test", "cannot be resolved"]), 1);
    assert_eq!(edge.who(&[]), good.name());
    assert!(asks("/late").head().start().starts_with("HTTP/1.1 503 "));

    knows(&known);
    edge.until_lines(1, &["backend found", "backend=\"late\"", "pool=\"late\""]);
    serves();
    // What was found stays, as what a name of the file is resolved to always does.
    knows("");
    edge.reload(&config("jitter_percent = 11\n"));
    serves();
    // Now it is known from the beginning of a reload, and at the next it is not.
    knows(&known);
    edge.reload(&config("jitter_percent = 12\n"));
    serves();
    knows("");
    edge.reload(&config("jitter_percent = 13\n"));
    edge.until_lines(1, &["WARN", "late.test", "its last addresses stay"]);
    serves();

    // What an operator hears beforehand, and one who wants it to be a fault.
    let test = |more: &str| {
        let file = scratch("test.toml");
        std::fs::write(&file, config(more)).unwrap();
        let line = within(&format!("{} -t -c {}", crate::harness::program().display(), file.display()));
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = test("");
    assert!(code == Some(0) && said.contains("warning: pool \"late\": \"late.test\" cannot be resolved"), "{said}");
    let (code, said) = test("unresolved = \"refuse\"\n");
    assert!(
        code == Some(1) && said.contains("pools[1].backends[0].address: \"late.test\" cannot be resolved"),
        "{said}"
    );
}
