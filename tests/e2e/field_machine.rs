//! Cases from the field: what the machine does to the process, and what the process makes of the machine's limits.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::fleet::{Edge, Host, Mood, pool, says_back};
use crate::harness::{
    Process, Ringway, Setup, Stage, answer_drain, close, program, repository, ringway, run, scratch, send_signal, until,
};
use crate::wire::*;

/// Everything that has come while the process stood still counts before any deadline does.
#[test]
fn field_a04_a_process_that_was_stopped_reads_before_it_judges() {
    let stage = Stage::with("[timeouts]\nhead = \"3s\"\nidle = \"3s\"\nanswer = \"3s\"\n");
    let mut open: Vec<(Wire, Wire)> = (0..200).map(|_| stage.open()).collect();
    let whole = request(&[]);
    let (first, second) = whole.split_at(60);
    let mut heads: Vec<Wire> = (0..100).map(|_| stage.client()).collect();
    for client in &mut heads {
        client.send(first);
    }
    let mut asked: Vec<(Wire, Wire)> = (0..40)
        .map(|_| {
            let mut client = stage.client();
            client.send(&whole);
            let mut backend = stage.backend.accept();
            backend.head();
            (client, backend)
        })
        .collect();
    stage.relay.signal("STOP");
    for (client, _) in &mut open {
        client.client_frame(FIN | TEXT, "still here");
    }
    for client in &mut heads {
        client.send(second);
    }
    for (_, backend) in &mut asked {
        backend.send("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    }
    // As long as it takes all deadlines to pass.
    std::thread::sleep(Duration::from_secs(4));
    stage.relay.signal("CONT");
    for (client, backend) in &mut open {
        backend.expect_frame(FIN | TEXT, "still here");
        backend.server_frame(FIN | TEXT, "good");
        client.expect_frame(FIN | TEXT, "good");
    }
    for (client, _) in &mut asked {
        assert_eq!(client.head().status(), 101);
    }
    // In whatever order they come there.
    let backends: Vec<Wire> = heads.iter().map(|_| stage.backend.upgrade(&[])).collect();
    for client in &mut heads {
        assert_eq!(client.head().status(), 101);
    }
    let log = stage.relay.process.log();
    assert!(log.iter().any(|line| line.contains("WARN") && line.contains("did not run for")), "it says so");
    assert!(!log.iter().any(|line| line.contains("ejected")), "and holds it against nobody");
    drop((open, asked, heads, backends));
}

/// Deadlines come, a moment later than otherwise.
#[test]
fn field_a04_who_says_nothing_after_a_stop_is_idle_after_all() {
    let stage = Stage::with("[timeouts]\nidle = \"1s\"\n");
    let (mut client, mut backend) = stage.open();
    stage.relay.signal("STOP");
    std::thread::sleep(Duration::from_secs(2));
    stage.relay.signal("CONT");
    client.expect_close(&[1001]);
    backend.expect_close(&[1001]);
}

/// Health checks that a stop has cut short say nothing about the backends.
#[test]
fn field_a04_health_checks_across_a_stop_have_no_result() {
    let hosts = Host::many(4);
    let health = "[pools.health]\ncheck = \"http\"\ninterval = \"300ms\"\ntimeout = \"300ms\"\nfall = 1\n[pools.sessions]\non_down = \"restart\"\nclose_spread = \"0s\"\n";
    let edge = Edge::start(1, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + health));
    until("all are checked", || hosts.iter().all(|host| host.checks() > 1));
    let mut sessions: Vec<Wire> = (0..40).map(|_| edge.open(&[]).0).collect();
    for _ in 0..2 {
        edge.relay.signal("STOP");
        std::thread::sleep(Duration::from_millis(1500));
        edge.relay.signal("CONT");
        let before: Vec<usize> = hosts.iter().map(Host::checks).collect();
        until("all are checked again", || hosts.iter().zip(&before).all(|(host, before)| host.checks() > before + 1));
    }
    assert_eq!(edge.lines(&["backend is down"]), 0);
    sessions.iter_mut().for_each(|client| says_back(client, "here"));
}

/// This machine has no descriptors left for checks: that is not the backends' illness.
#[test]
fn field_a03_a_check_that_this_machine_cannot_make_has_no_result() {
    let hosts = Host::many(3);
    let health = "[pools.health]\ncheck = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nfall = 1\nrise = 1\n[pools.sessions]\non_down = \"restart\"\nclose_spread = \"0s\"\n";
    let edge = Edge::start(1, &(pool(&hosts.iter().collect::<Vec<_>>(), "") + health));
    let mut sessions: Vec<Wire> = (0..41).map(|_| edge.open(&[]).0).collect();
    // Of the control plane alone: each worker has a table of its own.
    let limit = edge.relay.control_descriptors();
    edge.relay.limit("nofile", limit.min(8));
    edge.until_lines(
        1,
        &["WARN", "a health check has no result: this machine lacks what it needs", "Too many open files"],
    );
    std::thread::sleep(Duration::from_millis(300));
    sessions.iter_mut().for_each(|client| says_back(client, "here"));
    edge.relay.limit("nofile", 20_000);
    assert_eq!(edge.lines(&["backend is down"]), 0);
    assert!(edge.lines(&["a health check has no result"]) <= 3, "told now and then");
    // A backend that is really gone is found out as before.
    hosts[0].set(Mood::Well);
    let gone = hosts.into_iter().next().unwrap().stop();
    edge.until_lines(1, &["backend is down", &gone.to_string()]);
}

/// Started before its backends: the first check marks them down, the first good one brings them up.
#[test]
fn field_b04_backends_that_start_after_the_relay() {
    let addresses: Vec<_> = (0..2).map(|_| crate::fleet::free_address()).collect();
    let backends: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let edge = Edge::start(
        1,
        &format!(
            "[[pools]]\nname = \"chat\"\nbackends = [{}]\n[pools.health]\ncheck = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1000\n",
            backends.join(", ")
        ),
    );
    edge.until_lines(2, &["backend is down"]);
    let hosts: Vec<Host> = addresses.into_iter().map(Host::at).collect();
    edge.until_lines(2, &["backend is up again"]);
    edge.who(&[]);
    drop(hosts);
}

/// The words that an operator needs, from the program itself.
#[test]
fn field_c01_io_uring_is_refused() {
    for (errno, words) in [
        (libc::EPERM, &["Operation not permitted", "seccomp", "--security-opt"][..]),
        (libc::EACCES, &["Permission denied", "seccomp", "--security-opt"]),
        (libc::ENOSYS, &["Function not implemented", "gVisor", "Linux 6.1"]),
        (libc::ENOMEM, &["RLIMIT_MEMLOCK", "ulimit -l"]),
        (libc::EINVAL, &["older than 6.1", "uname -r"]),
    ] {
        let launcher = repository("tests/peers/seccomp.py");
        let (errno, program) = (errno.to_string(), program());
        let arguments = [
            launcher.to_str().unwrap(),
            &errno,
            program.to_str().unwrap(),
            "--backend",
            "127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
        ];
        let output = run(&PathBuf::from("python3"), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in [&["ERROR", "cannot set up io_uring", "Try: "], words].concat() {
            assert!(said.contains(word), "errno {errno}: {word:?} is missing in: {said}");
        }
    }
}

#[test]
fn field_c02_more_sessions_than_descriptors_allow() {
    let file = scratch("many.toml");
    std::fs::write(&file, "[limits]\nsessions_max = 100000\n[[pools]]\nname = \"p\"\nbackends = [\"127.0.0.1:9\"]\n")
        .unwrap();
    let arguments =
        ["-c", "ulimit -n 1000 && exec \"$0\" -t -c \"$1\"", program().to_str().unwrap(), file.to_str().unwrap()]
            .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&PathBuf::from("sh"), &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for word in ["warning", "sessions_max is 100000", "RLIMIT_NOFILE is 1000", "allows 451", "LimitNOFILE=200097"] {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    let setup = Setup {
        settings: "[limits]\nsessions_max = 100000\n".into(),
        backends: vec!["127.0.0.1:9".into()],
        listen: vec!["127.0.0.1:0".into()],
        before: "ulimit -n 1000".into(),
        ..Setup::default()
    };
    let mut relay = Ringway::start(&setup);
    relay.process.line(&["WARN", "sessions_max is 100000", "RLIMIT_NOFILE is 1000"]);
    let (_, _, said) = ringway(&["-t", "--backend", "127.0.0.1:9"]);
    assert!(!said.contains("warning"), "auto asks for nothing: {said}");
}

/// A control group's quota of one CPU. Without the right to make one there is nothing to be shown.
#[test]
fn field_r18_workers_follow_the_cpu_quota() {
    let group = PathBuf::from(format!("/sys/fs/cgroup/cpu/ringway-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() || std::fs::write(group.join("cpu.cfs_quota_us"), "100000").is_err() {
        let _ = std::fs::remove_dir(&group);
        println!("SKIPPED: no cpu control group (version 1) can be made here");
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&group).arg(program());
    command.args(["--backend", "127.0.0.1:9", "--listen", "127.0.0.1:0"]).env("NO_COLOR", "1");
    let mut process = Process::start(command);
    let ready = process.line(&[" ready "]);
    assert!(ready.contains("workers=1"), "{ready}");
    let status = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().flatten().find_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        status.starts_with("Name:\tworker-0").then_some(status)
    });
    let status = status.expect("a worker's thread");
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    assert!(
        allowed.contains(['-', ',']) || std::thread::available_parallelism().unwrap().get() == 1,
        "pinned: {allowed}"
    );
    send_signal(process.pid(), "TERM");
    process.wait();
    drop(process);
    until("the group is empty", || std::fs::remove_dir(&group).is_ok());
}

/// A control group's limit on memory. Without the right to make one there is nothing to be shown.
#[test]
fn field_r18_the_plan_fits_into_the_memory_limit() {
    let group = PathBuf::from(format!("/sys/fs/cgroup/memory/ringway-{}", std::process::id()));
    let limit = group.join("memory.limit_in_bytes");
    if std::fs::create_dir(&group).is_err() || std::fs::write(limit, (64 << 20).to_string()).is_err() {
        let _ = std::fs::remove_dir(&group);
        println!("SKIPPED: no memory control group (version 1) can be made here");
        return;
    }
    let start = |more: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&group).arg(program());
        command.args(["--backend", "127.0.0.1:9", "--listen", "127.0.0.1:0", "--workers", "2"]).args(more);
        Process::start({
            command.env("NO_COLOR", "1");
            command
        })
    };
    let mut process = start(&[]);
    // Of 32 MiB each: half for sessions of 10 KiB, an eighth for buffers of 4 KiB.
    let told = process.line(&[" io_uring ", "memory_max_mib=64"]);
    for figure in ["sessions_max=1638", "small_buffers=1024", "bulk_buffers=32"] {
        assert!(told.contains(figure), "{told}");
    }
    send_signal(process.pid(), "TERM");
    assert_eq!(process.wait().code(), Some(0));
    let file = scratch("memory.toml");
    std::fs::write(&file, "[limits]\nsessions_max = 5000\n").unwrap();
    let mut process = start(&["-t", "-c", file.to_str().unwrap()]);
    process.line(&["warning: limits.sessions_max is 5000", "limit on memory is 64 MiB", "1638 sessions"]);
    assert_eq!(process.wait().code(), Some(0));
    drop(process);
    until("the group is empty", || std::fs::remove_dir(&group).is_ok());
}

#[test]
fn field_r37_signals_without_a_meaning_end_nothing() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    for name in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR"] {
        stage.relay.signal(name);
        until("it is told", || {
            stage
                .relay
                .process
                .log()
                .iter()
                .any(|line| line.contains("WARN") && line.contains(&format!("SIG{name}: means nothing here")))
        });
    }
    for name in ["PIPE", "WINCH", "CHLD", "URG", "CONT"] {
        stage.relay.signal(name);
    }
    client.client_frame(FIN | TEXT, "alive");
    backend.expect_frame(FIN | TEXT, "alive");
    close(&mut client, &mut backend);
    stage.check();
}

/// `script` gives the program a terminal of its own; killed, it takes the terminal away.
#[test]
fn field_r48_hangup_with_a_terminal_reloads_until_the_terminal_is_gone() {
    let backend = Backend::new();
    let file = scratch("terminal.toml");
    let config = format!("[[pools]]\nname = \"p\"\nbackends = [\"{}\"]\n", backend.address);
    std::fs::write(&file, &config).unwrap();
    let mut command = Command::new("script");
    let inner = format!("exec '{}' -c '{}' --listen 127.0.0.1:0", program().display(), file.display());
    command
        .args(["-q", "-f", "-e", "-c", &inner, scratch("typescript").to_str().unwrap()])
        .env("SHELL", "/bin/sh")
        .env("NO_COLOR", "1");
    let mut terminal = Process::start(command);
    let line = terminal.line(&[" listening "]);
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    terminal.line(&[" ready "]);
    let pid = pid_of(&file);
    let mut client = Wire::connect(address);
    client.send(request(&[]));
    let mut session = backend.upgrade(&[]);
    assert_eq!(client.head().status(), 101);
    send_signal(pid, "HUP");
    terminal.line(&["SIGHUP: reloading"]);
    terminal.line(&[" reloaded "]);
    client.client_frame(FIN | TEXT, "alive");
    session.expect_frame(FIN | TEXT, "alive");
    // Now it is really gone, and both sides hear why.
    send_signal(terminal.pid(), "KILL");
    answer_drain(&mut client, &mut session);
    until("it has ended", || !PathBuf::from(format!("/proc/{pid}")).exists());
}

/// The process that has this file on its command line, and is the program.
fn pid_of(file: &std::path::Path) -> u32 {
    let is_it = |directory: &std::path::Path| {
        let line = std::fs::read(directory.join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments.first().is_some_and(|first| *first == program().as_os_str().as_encoded_bytes())
            && arguments.contains(&file.as_os_str().as_encoded_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let found = processes
        .filter(|directory| is_it(directory))
        .find_map(|directory| directory.file_name()?.to_str()?.parse().ok());
    found.expect("the program runs")
}
