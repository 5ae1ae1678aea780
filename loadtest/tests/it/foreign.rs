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
