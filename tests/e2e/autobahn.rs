//! The Autobahn test suite, in both directions: the verdicts through the relay are those of a direct run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Process, Ringway, Setup, peer, repository, scratch};
use crate::wire::DEADLINE;

/// 247 cases, and two of 9, which moves hundreds of megabytes. scripts/autobahn.sh runs all of them.
const CASES: &str = "1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.* 9.1.1 9.2.1";
/// Samples of the cases on compression.
const DEFLATE_CASES: &str = "12.1.1 12.2.5 12.5.3 13.1.1 13.5.2 13.7.3";

/// Which peer is under test: our strict echo, which cannot compress, or a library that can.
#[derive(Clone, Copy)]
enum Under {
    Strict,
    Deflate,
}

impl Under {
    fn cases(self) -> Vec<String> {
        let (variable, default) = match self {
            Under::Strict => ("RINGWAY_AUTOBAHN_CASES", CASES),
            Under::Deflate => ("RINGWAY_AUTOBAHN_DEFLATE_CASES", DEFLATE_CASES),
        };
        let given = std::env::var(variable).unwrap_or(default.into());
        given.split_whitespace().map(str::to_string).collect()
    }

    fn server(self) -> Process {
        match self {
            Under::Strict => peer("strict_echo.py", &["server"]),
            Under::Deflate => peer("server.py", &[]),
        }
    }

    fn client(self, address: &str, authority: &str) -> Process {
        match self {
            Under::Strict => peer("strict_echo.py", &["client", address, authority]),
            Under::Deflate => peer("autobahn_client.py", &[address, authority]),
        }
    }
}

fn kosoku(under: Under, arguments: &[&str], reports: &Path) -> Process {
    let mut command = std::process::Command::new(repository(".deps/venv/bin/kosoku"));
    command.args(arguments).env("PYTHONUNBUFFERED", "1");
    for case in under.cases() {
        command.args(["-i", &case]);
    }
    command.arg("-o").arg(reports);
    Process::start(command)
}

fn relay_to(backend: &str) -> Ringway {
    let listen = vec!["127.0.0.1:0".into()];
    Ringway::start(&Setup { listen, backends: vec![backend.into()], ..Setup::default() })
}

/// How long all cases may take.
fn limit() -> Duration {
    DEADLINE * if std::env::var_os("RINGWAY_AUTOBAHN_LONG").is_some() { 200 } else { 10 }
}

type Verdicts = BTreeMap<String, String>;

/// The suite as client, `address` as server.
fn client_verdicts(under: Under, address: &str) -> Verdicts {
    let reports = scratch("autobahn");
    // It exits with 1 when a case is not strict; the comparison judges.
    let mut suite = kosoku(under, &["-m", "fuzzingclient", address], &reports);
    suite.wait_for(limit());
    verdicts(&suite, &reports)
}

/// The suite as server, reached directly or through a relay.
fn server_verdicts(under: Under, relayed: bool) -> Verdicts {
    let reports = scratch("autobahn");
    let mut suite = kosoku(under, &["-m", "fuzzingserver", "127.0.0.1:0"], &reports);
    let line = suite.line(&["listening on ws://"]);
    let authority = line.split("ws://").nth(1).unwrap().trim();
    let relay = relayed.then(|| relay_to(authority));
    let address = relay.as_ref().map_or(authority.to_string(), |r| r.address.to_string());
    under.client(&address, authority).line_within(limit(), &["ok "]);
    suite.wait_for(limit());
    verdicts(&suite, &reports)
}

/// `"1.1.1": {"behavior": "OK", "behaviorClose": "OK", ...}` for each case, of one agent.
fn verdicts(suite: &Process, reports: &Path) -> Verdicts {
    let text = std::fs::read_to_string(reports.join("index.json"));
    let text = text.unwrap_or_else(|e| panic!("no report ({e}), the suite says {:?}", suite.log()));
    let mut verdicts = BTreeMap::new();
    let mut case = String::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ") else { continue };
        let (name, value) = (name.trim_matches('"'), value.trim_matches('"'));
        match name {
            "behavior" | "behaviorClose" => {
                verdicts.insert(format!("{case} {name}"), value.to_string());
            }
            _ if value == "{" => case = name.to_string(),
            _ => {}
        }
    }
    verdicts
}

fn compare(direct: Verdicts, relayed: Verdicts) {
    let differing: Vec<_> = direct.iter().filter(|(case, verdict)| relayed.get(*case) != Some(verdict)).collect();
    for (case, verdict) in &differing {
        eprintln!("{case}: {verdict} directly, {:?} through the relay", relayed.get(*case));
    }
    let strict = direct.values().filter(|v| *v == "OK").count();
    println!("{} verdicts, {strict} of them OK directly, {} differ", direct.len(), differing.len());
    assert!(differing.is_empty() && direct.len() == relayed.len() && strict > direct.len() / 2);
}

fn suite_as_client(under: Under) {
    let mut server = under.server();
    let address = format!("127.0.0.1:{}", server.line(&["port "]).split_whitespace().nth(1).unwrap());
    let direct = client_verdicts(under, &address);
    let relay = relay_to(&address);
    compare(direct, client_verdicts(under, &relay.address.to_string()));
}

fn suite_as_server(under: Under) {
    compare(server_verdicts(under, false), server_verdicts(under, true));
}

#[test]
fn suite_is_the_client() {
    suite_as_client(Under::Strict);
}

#[test]
fn suite_is_the_server() {
    suite_as_server(Under::Strict);
}

#[test]
fn suite_is_the_client_with_deflate() {
    suite_as_client(Under::Deflate);
}

#[test]
fn suite_is_the_server_with_deflate() {
    suite_as_server(Under::Deflate);
}
