//! Against servers that others wrote: Python `websockets` and npm `ws`. `scripts/env.sh` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{BRIEF, Server, run_clean};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers").join(name)
}

pub fn python(mode: &str) -> Server {
    let python = root().join(".deps/venv/bin/python");
    assert!(python.exists(), "run scripts/env.sh first: {} is missing", python.display());
    Server::start(Command::new(python).arg(peer("echo.py")).arg(mode))
}

fn node() -> Server {
    let modules = root().join(".deps/node/node_modules");
    assert!(modules.exists(), "run scripts/env.sh first: {} is missing", modules.display());
    Server::start(Command::new("node").arg(peer("echo.js")).env("NODE_PATH", modules))
}

fn all(server: &Server) {
    let url = server.url();
    for words in [
        "echo -c 8 --depth 2",
        "echo -c 4 --rate 200 --payload unicode --size 60..3000",
        "fragmented -c 3 --fragments 7 --size 1KiB --payload text",
        "large -c 1 --size 4MiB",
        "churn -c 4 --messages 2 --close normal,application,going-away,fin,rst,half-close,cut",
        "burst -c 4 --messages 5 --period 50ms",
    ] {
        run_clean(&format!("{words} {BRIEF}"), &url);
    }
    let result = run_clean(&format!("echo -c 2 --subprotocol chat --subprotocol other {BRIEF}"), &url);
    assert_eq!(result.connections.opened, 2);
}

#[test]
fn python_websockets() {
    all(&python("echo"));
}

#[test]
fn npm_ws() {
    all(&node());
}

/// The Autobahn suite's cases on framing, pings, reserved bits, opcodes, fragmentation, UTF-8 and closing, run
/// against our upstream: who judges must be right itself.
#[test]
fn autobahn_finds_nothing_in_the_upstream() {
    let upstream = Server::upstream(&[]);
    let reports = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", upstream.port);
    let mut suite = Command::new(root().join(".deps/venv/bin/kosoku"));
    suite.args(["-m", "fuzzingclient", &address, "-o"]).arg(reports.path());
    for case in ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "9.1.1", "9.2.1"] {
        suite.args(["-i", case]);
    }
    suite.output().expect("run scripts/env.sh first");
    let index = std::fs::read_to_string(reports.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let cases: Vec<_> = index.as_object().unwrap().values().filter_map(|v| v.as_object()).flatten().collect();
    assert!(cases.len() >= 240, "{} cases", cases.len());
    for (case, verdict) in cases {
        let (behaviour, close) = (&verdict["behavior"], &verdict["behaviorClose"]);
        // 6.4.3 and 6.4.4 would like bad UTF-8 refused in the middle of a frame; the RFC leaves that open.
        let fine = ["OK", "INFORMATIONAL"].contains(&behaviour.as_str().unwrap_or_default());
        assert!(fine || case.starts_with("6.4."), "case {case}: {behaviour}");
        assert_ne!(close, "FAILED", "case {case}");
    }
}
