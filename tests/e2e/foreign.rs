//! Clients and backends that others wrote: Python `websockets` and npm `ws`, every pair of them, with and without
//! permessage-deflate. The checks themselves are in tests/peers/client.py and client.js.

use crate::harness::{Ringway, Setup, peer};
use crate::wire::DEADLINE;

/// Both libraries as client against this one as backend.
fn pairs(server: &str, server_options: &[&str], client_options: &[&str]) {
    let mut backend = peer(server, server_options);
    let port = backend.line(&["port "]).split_whitespace().nth(1).unwrap().to_string();
    let relay = Ringway::start(&Setup {
        listen: vec!["127.0.0.1:0".into()],
        backends: vec![format!("127.0.0.1:{port}")],
        workers: 2,
        // The suites of pings are quick, not rude.
        settings: "[limits]\ncontrol_frames_per_second_max = 100000\n".into(),
        ..Setup::default()
    });
    let url = format!("ws://{}", relay.address);
    for client in ["client.py", "client.js"] {
        eprintln!("case {client} {client_options:?} -> {server} {server_options:?}");
        let mut client = peer(client, &[&[&*url], client_options].concat());
        client.line_within(DEADLINE * 8, &["ok "]);
        assert_eq!(client.wait().code(), Some(0));
    }
}

#[test]
fn python_backend_with_deflate() {
    pairs("server.py", &[], &[]);
}

#[test]
fn python_backend_without_deflate() {
    pairs("server.py", &["--no-deflate"], &["--no-deflate"]);
}

#[test]
fn python_backend_deflate_on_one_side() {
    pairs("server.py", &["--no-deflate"], &[]);
    pairs("server.py", &[], &["--no-deflate"]);
}

#[test]
fn node_backend_with_deflate() {
    pairs("server.js", &[], &[]);
}

#[test]
fn node_backend_without_deflate() {
    pairs("server.js", &["--no-deflate"], &["--no-deflate"]);
}

#[test]
fn node_backend_deflate_on_one_side() {
    pairs("server.js", &["--no-deflate"], &[]);
    pairs("server.js", &[], &["--no-deflate"]);
}
