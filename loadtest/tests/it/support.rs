//! Starts the program under test and the servers that it is tested against.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use loadtest::report::result::RunResult;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// A server in a process of its own, killed when the test ends.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a command whose first line of output ends with its port.
    pub fn start(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starting a server");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a piped output");
        BufReader::new(stdout).read_line(&mut line).expect("the server's first line");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Server { child, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) }
    }

    pub fn upstream(options: &[&str]) -> Server {
        let arguments = ["upstream", "--listen", "127.0.0.1:0"];
        Server::start(Command::new(PROGRAM).args(arguments).args(options))
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end.
pub fn program(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("running the program")
}

/// `loadtest run WORDS --url URL --json`, and the result with the exit code.
pub fn run(words: &str, url: &str) -> (RunResult, i32) {
    let mut arguments = vec!["run"];
    arguments.extend(words.split_whitespace());
    arguments.extend(["--url", url, "--json", "--quiet"]);
    let output = program(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let result = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {text:?}, stderr {:?}", String::from_utf8_lossy(&output.stderr)));
    (result, output.status.code().unwrap_or(-1))
}

/// The same, and everything must be in order.
pub fn run_clean(words: &str, url: &str) -> RunResult {
    let (result, code) = run(words, url);
    assert_eq!((code, &result.verdict.reasons), (0, &Vec::new()), "{words}");
    let tally = &result.verdict.tally;
    assert!(tally.sent > 0 || result.spec.name == "fan-out", "{words}: nothing was sent");
    assert_eq!(tally.received, tally.expected, "{words}");
    result
}

pub const BRIEF: &str = "--warmup 50ms --duration 300ms --interval 50ms";
