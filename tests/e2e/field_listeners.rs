//! Cases from the field: who listens, who may connect, and what happens when two want the same place.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::fleet::free_address;
use crate::harness::{Process, Ringway, Setup, program, scratch, send_signal, until};
use crate::wire::*;

fn on(path: &Path, backend: &Backend) -> Setup {
    Setup {
        backends: vec![backend.address.to_string()],
        listen: vec![format!("unix:{}", path.display())],
        ..Setup::default()
    }
}

fn serves(path: &Path, backend: &Backend) {
    use std::io::{Read, Write};
    let mut client = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    client.write_all(request(&[]).as_bytes()).unwrap();
    let _session = backend.upgrade(&[]);
    let mut status = [0; 12];
    client.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
}

/// A relay that drains leaves the path to its successor, and takes nothing away at its end.
#[test]
fn field_a08_a_successor_keeps_its_socket() {
    let backend = Backend::new();
    let path = scratch("successor.sock");
    let old = Ringway::start(&on(&path, &backend));
    // A session holds the drain up.
    let mut held = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut held, request(&[]).as_bytes()).unwrap();
    let _session = backend.upgrade(&[]);
    old.signal("TERM");
    until("the path is free", || !path.exists());
    let new = Ringway::start(&on(&path, &backend));
    serves(&path, &backend);
    let inode = path.symlink_metadata().unwrap().ino();
    drop((held, _session));
    old.ended();
    assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "the successor's file is there");
    serves(&path, &backend);
    new.signal("TERM");
    new.ended();
    assert!(!path.exists(), "and goes with it");
}

/// What somebody else has put in its place stays.
#[test]
fn field_a08_a_file_that_is_no_longer_ours_is_left_alone() {
    let backend = Backend::new();
    let path = scratch("replaced.sock");
    let relay = Ringway::start(&on(&path, &backend));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody else's").unwrap();
    relay.signal("TERM");
    relay.ended();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
}

/// Of many that start at once on a path that a dead process has left behind, one listens there, and the others say why not.
#[test]
fn field_a08_one_of_many_starters_gets_the_path() {
    let backend = Backend::new();
    for _ in 0..3 {
        let path = scratch("race.sock");
        // Left behind: bound, and nobody there.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut starters: Vec<Process> = (0..4)
            .map(|_| {
                let mut command = Command::new(program());
                command.args([
                    "--listen",
                    &format!("unix:{}", path.display()),
                    "--backend",
                    &backend.address.to_string(),
                    "--workers",
                    "1",
                ]);
                command.env("NO_COLOR", "1");
                Process::start(command)
            })
            .collect();
        let ready = |process: &Process| process.log().iter().any(|line| line.contains(" ready "));
        let refused = |process: &Process| process.log().iter().any(|line| line.contains("cannot listen on"));
        until("each has its verdict", || starters.iter().all(|process| ready(process) || refused(process)));
        assert_eq!(starters.iter().filter(|process| ready(process)).count(), 1);
        serves(&path, &backend);
        for process in starters.iter_mut().filter(|process| ready(process)) {
            send_signal(process.pid(), "TERM");
            process.wait();
        }
    }
}

/// Killed with sessions open, and started again at once.
#[test]
fn field_r47_a_start_right_after_a_kill() {
    for unix in [false, true] {
        let backend = Backend::new();
        let (address, path) = (free_address(), scratch("killed.sock"));
        let listen = if unix { format!("unix:{}", path.display()) } else { address.to_string() };
        let setup = Setup { backends: vec![backend.address.to_string()], listen: vec![listen], ..Setup::default() };
        let mut sessions = Vec::new();
        let mut relay = Ringway::start(&setup);
        for _ in 0..4 {
            for _ in 0..100 {
                if unix {
                    let mut client = UnixStream::connect(&path).unwrap();
                    std::io::Write::write_all(&mut client, request(&[]).as_bytes()).unwrap();
                    sessions.push((Some(client), None, backend.upgrade(&[])));
                } else {
                    let mut client = Wire::connect(address);
                    client.send(request(&[]));
                    let session = backend.upgrade(&[]);
                    assert_eq!(client.head().status(), 101);
                    sessions.push((None, Some(client), session));
                }
            }
            send_signal(relay.process.pid(), "KILL");
            relay.killed();
            relay = Ringway::start(&setup);
        }
        drop(sessions);
    }
}

/// "Another process" is said of one that is there.
#[test]
fn field_r47_another_process_is_one_that_listens() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (exit, out, err) = crate::harness::ringway(&["--listen", &address, "--backend", "127.0.0.1:9"]);
    let said = out + &err;
    assert_eq!(exit, Some(1));
    assert!(said.contains("Another process listens there") && said.contains("ss -ltnp"), "{said}");
}

#[test]
fn field_r19_rights_of_a_unix_socket() {
    let backend = Backend::new();
    let (one, other) = (scratch("mode.sock"), scratch("usual.sock"));
    let settings = |mode: &str, group: &str| {
        format!(
            "[[listeners]]\naddress = \"unix:{}\"\nmode = \"{mode}\"\nowner = \"root\"\ngroup = \"{group}\"\n[[listeners]]\naddress = \"unix:{}\"\n[[pools]]\nname = \"p\"\nbackends = [\"{}\"]\n",
            one.display(),
            other.display(),
            backend.address
        )
    };
    let setup = Setup { settings: settings("0660", "12"), before: "umask 022".into(), ..Setup::default() };
    let relay = Ringway::start(&setup);
    let rights = |path: &Path| {
        let file = path.symlink_metadata().unwrap();
        (file.permissions().mode() & 0o777, file.uid(), file.gid())
    };
    assert_eq!((rights(&one), rights(&other).0), ((0o660, 0, 12), 0o755));
    serves(&one, &backend);
    // A reload changes them on the very socket.
    let inode = one.symlink_metadata().unwrap().ino();
    std::fs::write(&relay.config, settings("0600", "daemon")).unwrap();
    relay.signal("HUP");
    until("it is reloaded", || relay.process.log().iter().any(|line| line.contains(" reloaded ")));
    assert_eq!((rights(&one), one.symlink_metadata().unwrap().ino()), ((0o600, 0, 1), inode));
    serves(&one, &backend);
}
