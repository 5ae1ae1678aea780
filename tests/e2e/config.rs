//! The command line and the file, as a person meets them; and addresses of every family.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::harness::{Ringway, Setup, Stage, program, repository, ringway, scratch};
use crate::wire::{Backend, FIN, TEXT, request};

fn file(text: &str) -> String {
    let path = scratch("test.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

const GOOD: &str =
    "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[pools]]\nname = \"chat\"\nbackends = [\"127.0.0.1:9000\"]\n";

#[test]
fn test_flag_on_good_files() {
    let example = repository("ringway.example.toml");
    for path in [file(GOOD), example.to_str().unwrap().into()] {
        let (code, _, errors) = ringway(&["-t", "-c", &path]);
        assert_eq!(code, Some(0), "{errors}");
    }
}

#[test]
fn test_flag_on_bad_files() {
    // Each with the line and column of its fault, and a word of the message.
    for (text, place, word) in [
        ("[limits]\nwindow = 5\n", "2:1", "window"),
        ("[timeouts]\nhead = \"0s\"\n", "2:8", "0"),
        ("[timeouts]\nhead = \"soon\"\n", "2:8", "soon"),
        ("[limits]\nhead_bytes_max = -1\n", "2:18", "-1"),
        ("[limits]\nhead_bytes_max = \"many\"\n", "2:18", "many"),
        ("workers = 0\n", "1:11", "0"),
        ("[limits\n", "1:8", ""),
        ("nonsense = 1\n", "1:1", "nonsense"),
    ] {
        let path = file(&(text.to_string() + GOOD));
        let (code, output, errors) = ringway(&["-t", "-c", &path]);
        let all = output + &errors;
        let found = all.contains(&format!("{path}:{place}:")) && all.contains(word);
        assert!(code == Some(1) && found, "{text:?}: {code:?} {all}");
    }
    // All faults of a file are told at once.
    let path = file("nonsense = 1\n[timeouts]\nhead = \"0s\"\n");
    let (code, output, errors) = ringway(&["-t", "-c", &path]);
    let all = output + &errors;
    assert!(code == Some(1) && all.contains(":1:1:") && all.contains(":3:8:"), "{all}");
    let (code, _, errors) = ringway(&["-t", "-c", "/nonexistent.toml"]);
    assert!(code == Some(1) && errors.contains("/nonexistent.toml"), "{errors}");
}

#[test]
fn effective_config_is_a_file_that_means_the_same() {
    let path = file(&format!("workers = 3\n[timeouts]\nidle = \"5m\"\n{GOOD}"));
    let (code, first, errors) = ringway(&["-T", "-c", &path]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(first.contains("workers = 3") && first.contains("idle = \"5m\""), "{first}");
    let (code, second, errors) = ringway(&["-T", "-c", &file(&first)]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(first, second);
    // Flags win over the file.
    let (_, flagged, _) = ringway(&["-T", "-c", &path, "--workers", "5", "--listen", "127.0.0.1:4711"]);
    assert!(flagged.contains("workers = 5") && flagged.contains("127.0.0.1:4711"), "{flagged}");
}

#[test]
fn wrong_flags() {
    for arguments in [
        &["--nonsense"][..],
        &["--workers", "none"],
        &["--workers", "0"],
        &["--listen", "nowhere"],
        &["--cpus", "x"],
        &["-c"],
    ] {
        let (code, _, errors) = ringway(arguments);
        assert!(code == Some(2) && errors.contains(arguments[0]), "{arguments:?}: {code:?} {errors}");
    }
    for (arguments, word) in [
        (&["--listen", "127.0.0.1:0"][..], "backend"),
        (&["--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9", "--cpus", "900"], "900"),
    ] {
        let (code, _, errors) = ringway(arguments);
        assert!(code == Some(1) && errors.contains(word), "{arguments:?}: {code:?} {errors}");
    }
}

#[test]
fn version_and_help() {
    let (code, output, _) = ringway(&["-V"]);
    assert!(code == Some(0) && output.trim() == concat!("ringway ", env!("CARGO_PKG_VERSION")), "{output}");
    let (code, output, _) = ringway(&["--help"]);
    assert!(code == Some(0) && output.contains("--backend") && output.contains("demo"), "{output}");
}

#[test]
fn address_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, errors) = ringway(&["--listen", &address, "--backend", "127.0.0.1:9"]);
    assert!(code == Some(1) && errors.contains(&address), "{code:?} {errors}");
}

/// Carries bytes both ways between two sockets, so that the TCP wires of the tests can speak to a unix socket.
fn splice(tcp: TcpStream, unix: UnixStream) {
    let (mut tcp2, mut unix2) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
    let (mut tcp, mut unix) = (tcp, unix);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut tcp, &mut unix);
        let _ = unix.flush();
        let _ = unix.shutdown(std::net::Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut unix2, &mut tcp2);
        let _ = tcp2.shutdown(std::net::Shutdown::Write);
    });
}

fn tcp_for_unix_listener(path: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, path) = (listener.local_addr().unwrap(), path.to_path_buf());
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|tcp| splice(tcp, UnixStream::connect(&path).unwrap()))
    });
    address
}

fn unix_for_tcp_listener(path: &Path, address: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|unix| splice(TcpStream::connect(address).unwrap(), unix))
    });
}

#[test]
fn unix_sockets_on_both_sides() {
    let (front, back) = (scratch("front.sock"), scratch("back.sock"));
    let backend = Backend::new();
    unix_for_tcp_listener(&back, backend.address);
    let setup = Setup {
        listen: vec![format!("unix:{}", front.display())],
        backends: vec![format!("unix:{}", back.display())],
        workers: 2,
        ..Setup::default()
    };
    let mut stage = Stage { relay: Ringway::start(&setup), backend };
    stage.relay.address = tcp_for_unix_listener(&front);
    stage.check();
    stage.check();
    let Stage { relay, backend } = stage;
    drop(relay);
    // The next start finds the socket file where it was, or gone; both are fine.
    let mut stage = Stage { relay: Ringway::start(&setup), backend };
    stage.relay.address = tcp_for_unix_listener(&front);
    stage.check();
}

#[test]
fn backends_take_turns() {
    let backends = [Backend::new(), Backend::new(), Backend::new()];
    let setup = Setup {
        listen: vec!["127.0.0.1:0".into()],
        backends: backends.iter().map(|b| b.address.to_string()).collect(),
        ..Setup::default()
    };
    let relay = Ringway::start(&setup);
    let mut clients: Vec<_> = (0..9).map(|_| relay.client()).collect();
    for client in &mut clients {
        client.send(request(&[]));
    }
    for backend in &backends {
        for _ in 0..3 {
            backend.upgrade(&[]).server_frame(FIN | TEXT, "mine");
        }
    }
    for mut client in clients {
        assert_eq!(client.head().status(), 101);
        client.expect_frame(FIN | TEXT, "mine");
    }
}

#[test]
fn ipv6_on_both_sides() {
    let backend = Backend::at("[::1]:0".parse().unwrap());
    let setup =
        Setup { listen: vec!["[::1]:0".into()], backends: vec![backend.address.to_string()], ..Setup::default() };
    let stage = Stage { relay: Ringway::start(&setup), backend };
    stage.check();
    stage.check();
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let path = file(&format!("workers = 3\nlog_level = \"${{LEVEL}}\"\n{GOOD}"));
    let ringway = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = std::process::Command::new(program());
        command.args(["-T", "-c", &path]).args(arguments).env("LEVEL", "warn").envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, output) = ringway(&[], &[]);
    assert!(
        code == Some(0) && output.contains("workers = 3\n") && output.contains("log_level = \"warn\"\n"),
        "{output}"
    );
    let (code, output) = ringway(&[("RINGWAY_WORKERS", "5"), ("RINGWAY_SERVICE_HOST", "10.0.0.1")], &[]);
    assert!(code == Some(0) && output.contains("workers = 5\n"), "{output}");
    let (code, output) = ringway(&[("RINGWAY_WORKERS", "5")], &["--workers", "7"]);
    assert!(code == Some(0) && output.contains("workers = 7\n"), "{output}");
    let (code, output) = ringway(&[("RINGWAY_WORKERS", "none"), ("RINGWAY_TCP_BACKLOK", "1")], &[]);
    assert!(code == Some(1) && output.contains("RINGWAY_WORKERS: \"none\""), "{output}");
    assert!(output.contains("RINGWAY_TCP_BACKLOK: is not known (did you mean RINGWAY_TCP_BACKLOG?)"), "{output}");
}

#[test]
fn the_program_prints_its_documents() {
    for (flag, document) in [("--options", "docs/options.md"), ("--example", "ringway.example.toml")] {
        let (code, output, errors) = ringway(&[flag]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert!(output == std::fs::read_to_string(repository(document)).unwrap(), "ringway {flag} > {document}");
    }
}
