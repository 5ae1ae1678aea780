//! Rows L of the wire cases: peers that die, read slowly, come in crowds, and a machine that runs out of things.

use std::thread::JoinHandle;

use crate::fleet::free_address;
use crate::harness::{Ringway, Setup, Stage, close, refusal, until};
use crate::wire::*;

const BIG: usize = 32 << 20;

/// Ends a connection the hard or the soft way.
fn die(wire: Wire, reset: bool) {
    match reset {
        true => wire.reset(),
        false => drop(wire),
    }
}

#[test]
fn l01_backend_dies_inside_a_frame() {
    let stage = Stage::new();
    for reset in [false, true] {
        let (mut client, mut backend) = stage.open();
        let bytes = frame(FIN | BINARY, None, &[1; 1000]);
        backend.send(&bytes[..500]);
        assert_eq!(client.bytes(500), &bytes[..500]);
        die(backend, reset);
        // No Close can be put into the frame, so there is only the end.
        client.expect_end();
    }
    stage.check();
    until("both ends are in the log", || {
        let log = stage.relay.process.log();
        log.iter().filter(|l| l.contains("session ended") && l.contains("ended_by=\"backend\"")).count() >= 2
    });
}

#[test]
fn l02_backend_dies_between_frames() {
    let stage = Stage::new();
    for reset in [false, true] {
        for inside_message in [false, true] {
            let (mut client, mut backend) = stage.open();
            backend.server_frame(if inside_message { TEXT } else { FIN | TEXT }, "last");
            client.expect_frame(if inside_message { TEXT } else { FIN | TEXT }, "last");
            die(backend, reset);
            client.expect_close(&[1011]);
            client.expect_fin();
        }
    }
    stage.check();
}

#[test]
fn l03_client_dies() {
    let stage = Stage::new();
    for reset in [false, true] {
        let (mut client, mut backend) = stage.open();
        let bytes = frame(FIN | BINARY, Some(MASK), &[1; 1000]);
        client.send(&bytes[..500]);
        assert_eq!(backend.bytes(500), &bytes[..500]);
        die(client, reset);
        backend.expect_end();

        let (mut client, mut backend) = stage.open();
        client.client_frame(FIN | TEXT, "last");
        backend.expect_frame(FIN | TEXT, "last");
        die(client, reset);
        backend.expect_close(&[1001]);
        backend.expect_end();
    }
    stage.check();
}

#[test]
fn l04_half_close_after_close() {
    let stage = Stage::new();
    let last = frame(FIN | BINARY, None, &[5; 300_000]);
    let (mut client, mut backend) = stage.open();
    client.client_frame(FIN | CLOSE, close_payload(1000, ""));
    client.finish();
    backend.expect_close(&[1000]);
    backend.send(&last).server_frame(FIN | CLOSE, close_payload(1000, ""));
    backend.finish();
    assert!(client.frame().raw == last, "what was queued is delivered");
    client.expect_close(&[1000]);
    client.expect_fin();
    backend.expect_end();

    let (mut client, mut backend) = stage.open();
    backend.server_frame(FIN | CLOSE, close_payload(1000, ""));
    backend.finish();
    client.expect_close(&[1000]);
    client.expect_end();
    stage.check();
}

#[test]
fn l04_half_close_without_close() {
    let stage = Stage::with("[timeouts]\nclose = \"2s\"\n");
    let (mut client, mut backend) = stage.open();
    client.finish();
    backend.expect_close(&[1001]);
    // The backend goes on as if nothing were: it is not let to for ever.
    let mut writer = backend.split();
    let writing = std::thread::spawn(move || while writer.try_send(b"\x81\x04more") {});
    client.rest();
    backend.rest();
    writing.join().unwrap();
    let (mut client, mut backend) = stage.open();
    backend.finish();
    client.expect_close(&[1011]);
    client.expect_end();
    // It may be told what became of the client.
    assert!(backend.frames_to_end().0.iter().all(|f| f.first == FIN | CLOSE));
    stage.check();
}

/// `bytes` from one side in a thread of its own.
fn send_all(wire: &Wire, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut writer = wire.split();
    writer.stream.set_write_timeout(None).unwrap();
    std::thread::spawn(move || writer.send_or_lose(bytes))
}

#[test]
fn l05_slow_consumers_hold_back_their_producer_alone() {
    let stage = Stage::new();
    stage.check();
    let before = stage.relay.peak_kib();
    let (mut client, mut backend) = stage.open();
    let up = frame(FIN | BINARY, Some(MASK), &[1; 60_000]).repeat(BIG / 60_000);
    let down = frame(FIN | BINARY, None, &[2; 60_000]).repeat(BIG / 60_000);
    let writers = [send_all(&client, up.clone()), send_all(&backend, down.clone())];
    for _ in 0..50 {
        stage.check();
    }
    assert!(stage.relay.peak_kib() < before + (8 << 10), "memory grew");
    // More than the sockets' buffers hold, so neither producer can have finished.
    assert!(writers.iter().all(|w| !w.is_finished()));
    assert!(backend.bytes(up.len()) == up && client.bytes(down.len()) == down);
    writers.into_iter().for_each(|w| w.join().unwrap());
    close(&mut client, &mut backend);
}

#[test]
fn l05_consumers_that_never_read_are_cut() {
    let stage = Stage::with("[timeouts]\nsend_stall = \"1s\"\n");
    for to_client in [true, false] {
        let (client, backend) = stage.open();
        let (from, mut to, mask) = if to_client { (backend, client, None) } else { (client, backend, Some(MASK)) };
        let bytes = frame(FIN | BINARY, mask, &[1; 60_000]).repeat(BIG / 60_000);
        let whole = bytes.len();
        // Ends because the relay ends the session; `to` has not read a byte until then.
        send_all(&from, bytes).join().unwrap();
        assert!(to.rest().0.len() < whole);
    }
    stage.check();
}

#[test]
fn l06_many_slow_consumers() {
    let stage = Stage::new();
    stage.check();
    let bytes = frame(FIN | BINARY, None, &[3; 60_000]).repeat(5);
    let mut held: Vec<_> = (0..1000)
        .map(|_| {
            let (client, mut backend) = stage.open();
            backend.stream.set_nonblocking(true).unwrap();
            backend.send_or_lose(&bytes);
            (client, backend)
        })
        .collect();
    // All that is not in the kernel's buffers: by far less than a window each.
    assert!(stage.relay.peak_kib() < 96 << 10, "{} KiB", stage.relay.peak_kib());
    for _ in 0..20 {
        stage.check();
    }
    for (client, _) in &mut held {
        assert_eq!(client.frame().payload, [3; 60_000]);
    }
}

#[test]
fn l09_storm_of_resets() {
    let stage = Stage::new();
    stage.check();
    let before = stage.relay.descriptors();
    for i in 0..3000 {
        let mut client = stage.client();
        match i % 3 {
            0 => {}
            1 => _ = client.send("GET /chat HTTP/1.1\r\nHost: "),
            _ => _ = client.send(request(&[])),
        }
        client.reset();
        while stage.backend.accept_now().is_some() {}
    }
    until("all sockets are closed", || {
        while stage.backend.accept_now().is_some() {}
        stage.relay.descriptors() <= before
    });
    stage.check();
}

#[test]
fn l11_all_backends_down_and_back() {
    let address = free_address();
    let setup = Setup { backends: vec![address.to_string()], listen: vec!["127.0.0.1:0".into()], ..Setup::default() };
    let relay = Ringway::start(&setup);
    let refuse = || {
        let mut client = relay.client();
        client.send(request(&[]));
        refusal(&mut client, &[503]);
    };
    (0..10).for_each(|_| refuse());
    let backend = Backend::at(address);
    let stage = Stage { relay, backend };
    stage.check();
    let Stage { relay, backend } = stage;
    drop(backend);
    let mut client = relay.client();
    client.send(request(&[]));
    refusal(&mut client, &[503]);
}

/// Clients that find no room: each is served, refused with a 503, or left in the queue, and nothing else breaks.
#[test]
fn l13_no_descriptor_for_a_client_or_its_backend() {
    for free in 0..=1 {
        let stage = Stage::new();
        let (mut client, mut backend) = stage.open();
        // One descriptor free: none for the backend (L14). None free: none for the client.
        stage.relay.limit("nofile", stage.relay.limit_that_leaves(free));
        let mut late: Vec<_> = (0..5).map(|_| stage.client()).collect();
        for late in &mut late {
            late.send(request(&[]));
        }
        client.client_frame(FIN | TEXT, "still");
        backend.expect_frame(FIN | TEXT, "still");
        backend.server_frame(FIN | TEXT, "here");
        client.expect_frame(FIN | TEXT, "here");
        until("the log tells", || {
            stage
                .relay
                .process
                .log()
                .iter()
                .any(|l| (l.contains(" WARN ") || l.contains(" ERROR ")) && l.contains("os error 24"))
        });
        stage.relay.limit("nofile", 20_000);
        close(&mut client, &mut backend);
        // Whoever was not refused is served now, without a new connect.
        for mut late in late {
            let Some(mut backend) = stage.forwarded(&late) else {
                refusal(&mut late, &[503]);
                continue;
            };
            let head = backend.head();
            backend.send(answer(&head, &[]));
            assert_eq!(late.head().status(), 101);
            close(&mut late, &mut backend);
        }
        stage.check();
    }
}

#[test]
fn l14_no_descriptor_for_the_backend_is_a_503() {
    let stage = Stage::new();
    let before = stage.relay.descriptors();
    let mut client = stage.client();
    client.send("GET /chat HTTP/1.1\r\n");
    until("accepted", || stage.relay.descriptors() > before);
    stage.relay.limit("nofile", stage.relay.limit_that_leaves(0));
    client.send(&request(&[])["GET /chat HTTP/1.1\r\n".len()..]);
    refusal(&mut client, &[503]);
    stage.relay.limit("nofile", 20_000);
    stage.check();
}

#[test]
fn l19_no_memory_at_start() {
    for limit in ["ulimit -v 60000", "ulimit -n 12"] {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(crate::harness::program());
        command.args(["--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9", "--workers", "1"]);
        let mut process = crate::harness::Process::start(command);
        let code = process.wait().code();
        let log = process.log().join("\n");
        assert!(code == Some(1) && log.len() > 20 && !log.contains("panicked"), "{limit}: {code:?} {log}");
    }
}

/// In a network namespace of its own with four ephemeral ports: the test calls itself there.
#[test]
fn l20_no_port_left_towards_a_backend() {
    const INSIDE: &str = "RINGWAY_TEST_FEW_PORTS";
    if std::env::var_os(INSIDE).is_none() {
        let script =
            "echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range && ip link set lo up && exec \"$0\" \"$@\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "lifecycle::l20_no_port_left_towards_a_backend", "--nocapture"]).env(INSIDE, "1");
        let output = command.output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
        return;
    }
    let backend = Backend::at("127.0.0.1:5001".parse().unwrap());
    let setup = Setup {
        backends: vec![backend.address.to_string()],
        listen: vec!["127.0.0.1:5000".into()],
        ..Setup::default()
    };
    let stage = Stage { relay: Ringway::start(&setup), backend };
    // The clients come from another address, or they would be short of ports themselves.
    let clients = || Wire::connect_from("127.0.0.2".parse().unwrap(), stage.relay.address);
    let mut open = Vec::new();
    let refused = loop {
        let mut client = clients();
        client.send(request(&[]));
        let Some(mut backend) = stage.forwarded(&client) else { break client };
        let head = backend.head();
        backend.send(answer(&head, &[]));
        assert_eq!(client.head().status(), 101);
        open.push((client, backend));
    };
    let mut refused = refused;
    refusal(&mut refused, &[503]);
    assert!(!open.is_empty() && open.len() <= 4, "{} sessions", open.len());
    for (client, backend) in &mut open {
        client.client_frame(FIN | TEXT, "still here");
        backend.expect_frame(FIN | TEXT, "still here");
        close(client, backend);
    }
}

#[test]
fn l21_crowds_of_silent_connects() {
    let stage = Stage::with("[timeouts]\nhead = \"3s\"\n");
    let crowd: Vec<_> = (0..3000).map(|_| stage.client()).collect();
    stage.check();
    for mut client in crowd {
        client.rest();
    }
    stage.check();
}

/// The log's reader is gone, or never reads: sessions do not notice.
#[test]
fn l31_nobody_takes_the_log() {
    for sink in ["2>/dev/full", "2>&1 | true", "2>&1 | sleep 600"] {
        let backend = Backend::new();
        // A port that was free a moment ago, as no log will tell which it is.
        let address = free_address();
        let script = format!(
            "{} --log-level debug --workers 1 --listen {address} --backend {} {sink}",
            crate::harness::program().display(),
            backend.address
        );
        let mut shell = std::process::Command::new("setsid").args(["sh", "-c", &script]).spawn().unwrap();
        until("it listens", || std::net::TcpStream::connect(address).is_ok());
        // More lines than a pipe holds.
        for _ in 0..400 {
            let mut client = Wire::connect(address);
            client.send(request(&[]));
            let mut backend = backend.upgrade(&[]);
            assert_eq!(client.head().status(), 101);
            close(&mut client, &mut backend);
        }
        // The shell and its children are one process group.
        crate::harness::send_signal_to_group(shell.id(), "TERM");
        until("it ends", || shell.try_wait().unwrap().is_some());
        until("the listener is gone", || std::net::TcpStream::connect(address).is_err());
    }
}

#[test]
fn l33_idle_sessions_end_at_their_limit() {
    let stage = Stage::with("[timeouts]\nidle = \"500ms\"\n");
    let (mut client, mut backend) = stage.open();
    client.expect_close(&[1001]);
    backend.expect_close(&[1001]);
    backend.finish();
    client.finish();
    client.expect_end();
    backend.expect_end();
}

#[test]
fn l35_sessions_beyond_the_limit() {
    let stage = Stage::with("[limits]\nsessions_max = 10\n");
    for _ in 0..3 {
        let mut open: Vec<_> = (0..10).map(|_| stage.open()).collect();
        for _ in 0..5 {
            let mut client = stage.client();
            client.send_or_lose(request(&[]));
            refusal(&mut client, &[503]);
        }
        for (client, backend) in &mut open {
            close(client, backend);
        }
    }
    stage.check();
}
