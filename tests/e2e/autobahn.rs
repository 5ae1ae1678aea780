//! The Autobahn test suite, in both directions: the verdicts through the relay are those of a direct run.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::{Process, Ringway, Setup, peer, repository, scratch};
use crate::wire::DEADLINE;

/// 247 cases. 9, 12 and 13 move hundreds of megabytes: scripts/autobahn.sh runs them all, this a few of them.
const CASES: [&str; 12] =
    ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "9.1.1", "9.2.1", "12.1.1", "13.1.1"];

fn kosoku(arguments: &[&str], reports: &Path) -> Process {
    let mut command = std::process::Command::new(repository(".deps/venv/bin/kosoku"));
    command.args(arguments).env("PYTHONUNBUFFERED", "1");
    let cases = std::env::var("RINGWAY_AUTOBAHN_CASES").ok();
    let cases: Vec<&str> = cases.as_deref().map_or(CASES.to_vec(), |c| c.split_whitespace().collect());
    for case in cases {
        command.args(["-i", case]);
    }
    command.arg("-o").arg(reports);
    Process::start(command)
}

fn port(server: &mut Process) -> String {
    format!("127.0.0.1:{}", server.line(&["port "]).split_whitespace().nth(1).unwrap())
}

fn relay_to(backend: &str) -> Ringway {
    // Ping floods belong to the suite (2.10 and 2.11 send ten at once), limits on them do not.
    let settings = "[limits]\ncontrol_frames_per_second_max = \"off\"\n".into();
    let listen = vec!["127.0.0.1:0".into()];
    Ringway::start(&Setup { listen, backends: vec![backend.into()], settings, ..Setup::default() })
}

/// How long all cases may take.
fn limit() -> std::time::Duration {
    DEADLINE * if std::env::var_os("RINGWAY_AUTOBAHN_CASES").is_some() { 100 } else { 10 }
}

/// The suite as client, `address` as server.
fn client_verdicts(address: &str) -> BTreeMap<String, String> {
    let reports = scratch("autobahn");
    // It exits with 1 when a case is not strict; the comparison judges.
    kosoku(&["-m", "fuzzingclient", address], &reports).wait_for(limit());
    verdicts(&reports)
}

/// The suite as server, reached directly or through a relay.
fn server_verdicts(relayed: bool) -> BTreeMap<String, String> {
    let reports = scratch("autobahn");
    let mut suite = kosoku(&["-m", "fuzzingserver", "127.0.0.1:0"], &reports);
    let line = suite.line(&["listening on ws://"]);
    let suite_address = line.split("ws://").nth(1).unwrap().trim();
    let relay = relayed.then(|| relay_to(suite_address));
    let address = relay.as_ref().map_or(suite_address.to_string(), |r| r.address.to_string());
    let mut client = peer("strict_echo.py", &["client", &address, suite_address]);
    client.line_within(limit(), &["ok "]);
    suite.wait_for(limit());
    verdicts(&reports)
}

/// `"1.1.1": {"behavior": "OK", "behaviorClose": "OK", ...}` for each case, of one agent.
fn verdicts(reports: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(reports.join("index.json")).expect("the suite wrote no report");
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

fn compare(direct: BTreeMap<String, String>, relayed: BTreeMap<String, String>) {
    let differing: Vec<_> = direct.iter().filter(|(case, verdict)| relayed.get(*case) != Some(verdict)).collect();
    for (case, verdict) in &differing {
        eprintln!("{case}: {verdict} directly, {:?} through the relay", relayed.get(*case));
    }
    let strict = direct.values().filter(|v| *v == "OK").count();
    println!("{} verdicts, {strict} of them OK directly, {} differ", direct.len(), differing.len());
    assert!(differing.is_empty() && direct.len() == relayed.len() && strict > 0);
}

#[test]
fn suite_as_client() {
    let mut echo = peer("strict_echo.py", &["server"]);
    let address = port(&mut echo);
    let direct = client_verdicts(&address);
    let relay = relay_to(&address);
    compare(direct, client_verdicts(&relay.address.to_string()));
}

#[test]
fn suite_as_server() {
    compare(server_verdicts(false), server_verdicts(true));
}
