//! Log lines to stderr, through a queue: a worker that logs puts a line into it or drops the line, but never waits for
//! whoever reads stderr.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogLevel;

/// Lines that wait for a slow stderr. Beyond it they are dropped and counted.
const LINES_MAX: usize = 8192;
/// How long the process's end may wait for a stderr that nobody reads.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Ends with [`Logs::finish`].
#[must_use = "lines that are still queued are lost without finish"]
pub struct Logs {
    guard: WorkerGuard,
    dropped: ErrorCounter,
    level: Level,
}

/// What is logged, which a reload may change.
#[derive(Clone)]
pub struct Level(Handle<Targets, Registry>);

/// Once per process.
pub fn start(level: LogLevel) -> Logs {
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("logs");
    let (writer, guard) = queue.finish(stderr());
    let dropped = writer.error_counter();
    // no-color.org: "when present and not an empty string (regardless of its value), prevents the addition of ANSI color".
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = stderr().is_terminal() && !no_color;
    let format = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi).with_target(false);
    let (targets, handle) = reload::Layer::new(targets(level));
    tracing_subscriber::registry().with(targets).with(format).init();
    Logs { guard, dropped, level: Level(handle) }
}

/// The level is ours; libraries of the control plane only speak up when something is wrong.
fn targets(level: LogLevel) -> Targets {
    let level = filter(level);
    Targets::new().with_target("ringway", level).with_default(level.min(LevelFilter::WARN))
}

impl Level {
    pub fn set(&self, level: LogLevel) {
        // It fails only if the subscriber is gone, and then nobody logs.
        let _ = self.0.reload(targets(level));
    }
}

impl Logs {
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// Says how many lines were dropped, and waits a bounded time until the queue is written out.
    pub fn finish(self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            warn!("{dropped} log lines were dropped, because stderr did not take them in time");
        }
        // On a thread of its own: with the queue full, dropping the guard prints to stdout, which may be stuck as well.
        let (done, wait) = mpsc::channel();
        thread::spawn(move || {
            drop(self.guard);
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(FLUSH_MAX);
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
