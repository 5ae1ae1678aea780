//! wss: a private authority is trusted when named, a stranger's only with --insecure.

use std::fs;

use crate::support::{BRIEF, Server, program, run_clean};

#[test]
fn wss_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let upstream = Server::upstream(&["--cert", cert, "--key", key]);
    let url = format!("wss://127.0.0.1:{}/", upstream.port);
    run_clean(&format!("echo -c 4 --ca {cert} {BRIEF}"), &url);
    run_clean(&format!("large -c 2 --size 1MiB --insecure {BRIEF}"), &url);
    run_clean(&format!("churn -c 3 --insecure {BRIEF}"), &url);
    let output = program(&["run", "echo", "-u", &url]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TLS handshake failed"));
}
