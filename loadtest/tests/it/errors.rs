//! What goes wrong is said clearly, with an exit code of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::{PROGRAM, Server, program};

fn fails(arguments: &[&str], code: i32, expected: &str) {
    let output = program(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
}

#[test]
fn wrong_input_is_refused_before_anything_is_sent() {
    let url = "ws://127.0.0.1:1/";
    fails(&["run", "echo"], 2, "--url is missing");
    fails(&["run", "echo", "-u", "http://x/"], 2, "must begin with ws://");
    fails(&["run", "echo", "-u", url, "--size", "10"], 2, "at least 24 bytes");
    fails(&["run", "echo", "-u", url, "--size", "24", "--payload", "text"], 2, "at least 48 bytes");
    fails(&["run", "echo", "-u", url, "--size", "65MiB"], 2, "64");
    fails(&["run", "echo", "-u", url, "--rate", "0"], 2, "--rate must be above 0");
    fails(&["run", "echo", "-u", url, "--connections", "0"], 2, "at least 1");
    fails(&["run", "echo", "-u", url, "--header", "no colon"], 2, "is not \"Name: value\"");
    fails(&["run", "fan-out", "-u", url, "-c", "1"], 2, "at least two connections");
    fails(&["run", "nonsense"], 2, "unrecognized subcommand");
}

#[test]
fn a_dead_target_is_named() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("ws://127.0.0.1:{port}/");
    fails(&["run", "echo", "-u", &url], 3, "is the target running");
    fails(&["run", "echo", "-u", "ws://no-such-host.invalid/"], 4, "looking up no-such-host.invalid");
}

/// Answers every connection with the same bytes.
fn answer_all(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(bytes);
        }
    });
    port
}

#[test]
fn an_answer_other_than_101_is_quoted() {
    let cases: [(&'static [u8], &str); 4] = [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503 Busy"),
        (b"SSH-2.0-x\r\n", "not an HTTP/1.1 response"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "no Upgrade: websocket"),
        (b"", "during the handshake"),
    ];
    for (bytes, expected) in cases {
        let url = format!("ws://127.0.0.1:{}/", answer_all(bytes));
        fails(&["run", "echo", "-u", &url], 3, expected);
    }
}

#[test]
fn a_process_that_is_not_there_cannot_be_watched() {
    let upstream = Server::upstream(&[]);
    let url = upstream.url();
    fails(&["run", "echo", "-u", &url, "--watch-pid", "999999999"], 4, "is its id right");
}

#[test]
fn two_upstreams_on_one_port_are_noticed() {
    let upstream = Server::upstream(&[]);
    let listen = format!("127.0.0.1:{}", upstream.port);
    fails(&["upstream", "--listen", &listen], 4, "cannot listen");
}

#[test]
fn an_interrupt_ends_the_run_and_still_reports() {
    let upstream = Server::upstream(&[]);
    let child = Command::new(PROGRAM)
        .args(["run", "echo", "-c", "4", "-d", "600s", "--json", "--interval", "50ms", "-u"])
        .arg(upstream.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    // The progress lines say when it is under way.
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("measure") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap() > 0, "ended early");
    }
    let drained = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    drained.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let result: loadtest::report::result::RunResult = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result.ended_early.as_deref(), Some("interrupted"));
    assert!(result.verdict.pass && result.verdict.tally.sent > 0);
}
