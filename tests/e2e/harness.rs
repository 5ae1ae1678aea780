//! The real process on ephemeral ports, its log, and what it must look like when it ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::{Backend, CLOSE, DEADLINE, FIN, Head, KEY, TEXT, Wire, accept_for, close_payload, request};

/// The program under test. Another build of it can be named, for instance a release build.
pub fn program() -> PathBuf {
    std::env::var_os("RINGWAY_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ringway")), PathBuf::from)
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A fresh path for a file of this test run.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("e2e-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Runs a command that ends by itself.
pub fn run(program: &Path, arguments: &[&str]) -> Output {
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    child.unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

/// Runs `ringway` with arguments that make it end by itself, for instance `-t`.
pub fn ringway(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(&program(), arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// To all processes of a pipeline that `setsid` started.
pub fn send_signal_to_group(leader: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} -{leader}")]).status();
    assert!(status.unwrap().success(), "kill -{name} -{leader}");
}

/// Polls until `what` holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "still not true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child process whose output lines can be waited for.
pub struct Process {
    child: Child,
    lines: Lines,
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

impl Process {
    /// It ends with the test, even if the test is killed.
    pub fn start(wanted: Command) -> Process {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(wanted.get_program()).args(wanted.get_args());
        command.envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", wanted.get_program()));
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        collect(child.stdout.take().unwrap(), lines.clone());
        collect(child.stderr.take().unwrap(), lines.clone());
        Process { child, lines }
    }

    /// Also after a test has failed while it looked at them.
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> Vec<String> {
        self.lines().clone()
    }

    /// The first line with all these parts, now or later.
    pub fn line(&mut self, parts: &[&str]) -> String {
        self.line_within(DEADLINE, parts)
    }

    pub fn line_within(&mut self, limit: Duration, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let exited = self.child.try_wait().unwrap();
            let lines = self.lines();
            if let Some(line) = lines.iter().find(|l| parts.iter().all(|p| l.contains(p))) {
                return line.clone();
            }
            let late = start.elapsed() > limit;
            // After the exit its last lines may still be on their way here.
            let gone = exited.is_some() && start.elapsed() > Duration::from_secs(1);
            assert!(!late && !gone, "no line with {parts:?} (exit: {exited:?}) in:\n{}", tail(&lines));
            drop(self.lines.1.wait_timeout(lines, Duration::from_millis(50)).unwrap());
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.wait_for(DEADLINE)
    }

    pub fn wait_for(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < limit, "it does not end; its log:\n{}", tail(&self.lines()));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of pid {}:\n{}", self.child.id(), tail(&self.lines()));
        }
    }
}

fn collect(source: impl std::io::Read + Send + 'static, lines: Lines) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            lines.1.notify_all();
        }
    });
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A helper program of tests/peers, with the libraries that scripts/env.sh installed.
pub fn peer(script: &str, arguments: &[&str]) -> Process {
    let interpreter = if script.ends_with(".py") { repository(PYTHON) } else { PathBuf::from("node") };
    assert!(repository(PYTHON).exists() && repository(NODE_PATH).exists(), "run scripts/env.sh first");
    let mut command = Command::new(interpreter);
    command.arg(repository("tests/peers").join(script)).args(arguments);
    command.env("NODE_PATH", repository(NODE_PATH)).env("PYTHONUNBUFFERED", "1");
    Process::start(command)
}

const PYTHON: &str = ".deps/venv/bin/python";
const NODE_PATH: &str = ".deps/node/node_modules";

/// How a relay is started: settings are config file text, for instance `[timeouts]\nanswer = "300ms"`.
#[derive(Default, Clone)]
pub struct Setup {
    pub settings: String,
    pub backends: Vec<String>,
    pub listen: Vec<String>,
    pub workers: usize,
    /// The file says what is logged; else it is everything down to `debug`.
    pub logs_as_told: bool,
    /// A shell line that runs before the program replaces the shell, for instance `ulimit -n 64`.
    pub before: String,
}

/// A running relay. When it goes out of scope in a test that has not failed, it is stopped and must end clean: every test
/// is a leak test.
pub struct Ringway {
    pub process: Process,
    pub address: SocketAddr,
    /// Its configuration's file.
    pub config: PathBuf,
    stopped: bool,
}

impl Ringway {
    pub fn start(setup: &Setup) -> Ringway {
        let config = scratch("ringway.toml");
        std::fs::write(&config, &setup.settings).unwrap();
        let mut command = Command::new("sh");
        let before = if setup.before.is_empty() { ":" } else { &setup.before };
        command.args(["-c", &format!("{before} && exec \"$0\" \"$@\"")]);
        command.arg(program()).env("NO_COLOR", "1").arg("-c").arg(&config);
        if !setup.logs_as_told {
            command.args(["--log-level", "debug"]);
        }
        command.args(["--workers", &setup.workers.max(1).to_string()]);
        for listen in &setup.listen {
            command.args(["--listen", listen]);
        }
        for backend in &setup.backends {
            command.args(["--backend", backend]);
        }
        let mut process = Process::start(command);
        process.line(&["ready"]);
        let address = listening(&process.log()).unwrap_or("127.0.0.1:0".parse().unwrap());
        Ringway { process, address, config, stopped: false }
    }

    pub fn client(&self) -> Wire {
        Wire::connect(self.address)
    }

    pub fn signal(&self, name: &str) {
        send_signal(self.process.pid(), name);
    }

    /// Waits for the end that a signal began. The exit code is 0, and nothing is left.
    pub fn ended(mut self) {
        self.check_end();
    }

    /// The same for a relay that was given reasons to complain.
    pub fn ended_with_errors(mut self) {
        self.check_balance();
    }

    /// After a SIGKILL, which leaves nobody to say anything.
    pub fn killed(&mut self) {
        self.stopped = true;
        self.process.wait();
    }

    fn check_balance(&mut self) {
        self.stopped = true;
        let status = self.process.wait_for(DEADLINE * 3);
        assert_eq!(status.code(), Some(0), "exit code after a stop");
        assert_balanced(&self.process.line(&[" stopped accepted="]));
    }

    fn check_end(&mut self) {
        self.check_balance();
        let log = self.process.log();
        // A pool without backends is what some tests are about; nothing else is to be called an error.
        let is_error = |line: &str| line.contains(" ERROR ") && !line.contains("no backend of this pool is up");
        let bad = log.iter().find(|line| line.contains("panicked") || is_error(line));
        assert!(bad.is_none(), "in the log: {}", bad.unwrap());
    }

    /// The descriptor table of each thread, with the thread's name: the workers have tables of their own.
    fn tables(&self) -> Vec<(String, BTreeMap<usize, PathBuf>)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.pid())).unwrap();
        let entry = |file: std::fs::DirEntry| {
            Some((file.file_name().to_str()?.parse().ok()?, std::fs::read_link(file.path()).ok()?))
        };
        let table = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let files = std::fs::read_dir(task.path().join("fd")).ok()?;
            Some((name.trim().to_string(), files.flatten().filter_map(entry).collect()))
        };
        tasks.flatten().filter_map(table).collect()
    }

    /// Open descriptors of the workers. (The control plane may still be opening its own when they serve.)
    pub fn descriptors(&self) -> usize {
        self.tables().iter().filter(|(name, _)| name.starts_with("worker-")).map(|(_, table)| table.len()).sum()
    }

    /// Of all others, who share one table.
    pub fn control_descriptors(&self) -> usize {
        self.tables().iter().find(|(name, _)| !name.starts_with("worker-")).expect("the main thread").1.len()
    }

    /// The resource limit that leaves this many descriptors free to the first worker.
    pub fn limit_that_leaves(&self, free: usize) -> usize {
        let tables = self.tables();
        let (_, worker) = tables.iter().find(|(name, _)| name == "worker-0").expect("a worker's thread");
        (0..).filter(|number| !worker.contains_key(number)).nth(free).unwrap()
    }

    /// Sets a resource limit of the running process.
    pub fn limit(&self, resource: &str, value: usize) {
        // The soft limit alone: a lowered hard one cannot be raised again by everyone.
        let (pid, limit) = (self.process.pid().to_string(), format!("--{resource}={value}:"));
        assert!(run(Path::new("prlimit"), &["--pid", &pid, &limit]).status.success(), "prlimit {limit}");
    }

    pub fn resident_kib(&self) -> usize {
        self.memory("VmRSS")
    }

    /// The most it ever had.
    pub fn peak_kib(&self) -> usize {
        self.memory("VmHWM")
    }

    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        if !self.stopped && !std::thread::panicking() {
            self.signal("TERM");
            self.check_end();
        }
    }
}

fn listening(log: &[String]) -> Option<SocketAddr> {
    let line = log.iter().find(|l| l.contains("listening address=") && !l.contains("unix:"))?;
    line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// The last line must say that every session ended and every buffer is home.
fn assert_balanced(line: &str) {
    let value = |name: &str| -> u64 {
        let after = line.split(&format!(" {name}=")).nth(1);
        let digits =
            after.and_then(|a| a.split_whitespace().next()).unwrap_or_else(|| panic!("no {name}= in {line:?}"));
        digits.parse().unwrap()
    };
    assert_eq!(value("leases"), 0, "buffers on loan: {line}");
    assert_eq!(value("sessions"), 0, "sessions left: {line}");
    assert_eq!(value("accepted"), value("ended"), "accepted and ended differ: {line}");
}

pub enum Verdict {
    Forwarded { request: Head, client: Wire, backend: Wire },
    Refused,
}

/// A relay in front of a backend that the test plays itself.
pub struct Stage {
    pub relay: Ringway,
    pub backend: Backend,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::with("")
    }

    pub fn with(settings: &str) -> Stage {
        let backend = Backend::new();
        let setup = Setup {
            settings: settings.into(),
            backends: vec![backend.address.to_string()],
            listen: vec!["127.0.0.1:0".into()],
            ..Setup::default()
        };
        Stage { relay: Ringway::start(&setup), backend }
    }

    pub fn client(&self) -> Wire {
        self.relay.client()
    }

    /// An open session: the client's end and the backend's.
    pub fn open(&self) -> (Wire, Wire) {
        self.open_with(&[], &[])
    }

    /// The same, with extra lines in the request and in the answer.
    pub fn open_with(&self, asked: &[&str], answered: &[&str]) -> (Wire, Wire) {
        let mut client = self.client();
        client.send(request(asked));
        let backend = self.backend.upgrade(answered);
        let head = client.head();
        assert_eq!(head.status(), 101, "{}", head.text());
        assert_eq!(head.get("Sec-WebSocket-Accept"), Some(accept_for(KEY)));
        (client, backend)
    }

    /// This request is refused with one of these statuses, and no backend hears of it.
    pub fn refused(&self, bytes: impl AsRef<[u8]>, statuses: &[u16]) -> Head {
        let mut client = self.client();
        client.send_or_lose(bytes.as_ref());
        let head = refusal(&mut client, statuses);
        drop(client);
        self.check();
        head
    }

    /// For requests that may be refused as well as forwarded: what became of this one.
    pub fn verdict(&self, bytes: impl AsRef<[u8]>) -> Verdict {
        let mut client = self.client();
        client.send(bytes.as_ref());
        match self.forwarded(&client) {
            Some(mut backend) => Verdict::Forwarded { request: backend.head(), client, backend },
            None => {
                refusal(&mut client, &[400]);
                Verdict::Refused
            }
        }
    }

    /// The connection that this client's request made the backend see; `None` if it was answered without one.
    pub fn forwarded(&self, client: &Wire) -> Option<Wire> {
        client.stream.set_nonblocking(true).unwrap();
        let mut forwarded = None;
        until("forwarded or refused", || {
            forwarded = self.backend.accept_now();
            forwarded.is_some() || client.stream.peek(&mut [0]).is_ok()
        });
        client.stream.set_nonblocking(false).unwrap();
        forwarded
    }

    /// A fresh session works, and it is the only one that the backend hears of.
    pub fn check(&self) {
        let (mut client, mut backend) = self.open();
        client.client_frame(FIN | TEXT, "hello");
        backend.expect_frame(FIN | TEXT, "hello");
        backend.server_frame(FIN | TEXT, "welcome");
        client.expect_frame(FIN | TEXT, "welcome");
        close(&mut client, &mut backend);
        assert!(self.backend.accept_now().is_none(), "the backend was contacted");
    }
}

/// Reads an error response of Ringway's own: status, a text that names the fault, `Connection: close`, and the end.
pub fn refusal(client: &mut Wire, statuses: &[u16]) -> Head {
    let head = client.head();
    assert!(statuses.contains(&head.status()), "wanted {statuses:?}, got {}", head.text());
    let connection = head.get("Connection").unwrap_or_default();
    assert!(connection.split(", ").any(|token| token == "close"), "{}", head.text());
    assert!(head.get("Content-Type").unwrap().starts_with("text/plain"), "{}", head.text());
    let length: usize = head.get("Content-Length").expect("a Content-Length").parse().unwrap();
    assert!(length > 0, "a refusal names the fault");
    client.bytes(length);
    client.expect_fin();
    head
}

/// Answers the drain's Close as a good peer does, from both sides, and waits for the end.
pub fn answer_drain(client: &mut Wire, backend: &mut Wire) {
    client.expect_close(&[1001]);
    backend.expect_close(&[1001]);
    client.client_frame(FIN | CLOSE, close_payload(1001, ""));
    backend.server_frame(FIN | CLOSE, close_payload(1001, ""));
    backend.finish();
    client.expect_end();
    client.finish();
    backend.expect_end();
}

/// The closing handshake, begun by the client, and the end of both TCP connections.
pub fn close(client: &mut Wire, backend: &mut Wire) {
    client.client_frame(FIN | CLOSE, close_payload(1000, ""));
    backend.expect_close(&[1000]);
    backend.server_frame(FIN | CLOSE, close_payload(1000, ""));
    client.expect_close(&[1000]);
    // RFC 6455, 7.1.1: the server closes the TCP connection first.
    backend.finish();
    client.expect_fin();
    client.finish();
    backend.expect_fin();
}
