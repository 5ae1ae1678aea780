//! Log lines to stderr, through a queue: a worker that logs puts a line into it or drops the line, but never waits for
//! whoever reads stderr.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::debug_fn;
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
    let fields = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{}", one_line(format!("{value:?}"))),
        name => write!(writer, "{name}={}", one_word(format!("{value:?}"))),
    });
    let format = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false);
    let (targets, handle) = reload::Layer::new(targets(level));
    tracing_subscriber::registry().with(targets).with(format).init();
    Logs { guard, dropped, level: Level(handle) }
}

/// Names of routes, pools and backends may be anything, and so may what peers say: none of it begins a line of its own.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    line
}

/// A value with blanks in it stands in quotes, so that a reader knows where it ends. What has them already is whole.
fn one_word(value: String) -> String {
    let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    let is_word = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if is_quoted || is_word { one_line(value) } else { format!("{value:?}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_a16_values_are_one_word_and_lines_are_one() {
        for (value, told) in [
            ("close", "close"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("Connection refused (os error 111)", "\"Connection refused (os error 111)\""),
            ("\"chat\"", "\"chat\""),
            ("a\nb", "\"a\\nb\""),
            ("a\"b", "\"a\\\"b\""),
            ("\u{1b}[31m", "\"\\u{1b}[31m\""),
            ("", "\"\""),
            ("Some(3)", "Some(3)"),
        ] {
            assert_eq!(one_word(value.into()), told);
        }
        assert_eq!(one_line("a\r\nb \u{7f}ü".into()), "a\\r\\nb \\u{7f}ü");
    }
}
