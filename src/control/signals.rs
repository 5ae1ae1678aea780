//! Signals: SIGTERM and SIGQUIT drain, SIGINT stops at once, and so does a second SIGTERM or SIGQUIT.
//! SIGHUP reads the configuration again, unless the terminal that this was started in is gone: then it is as SIGTERM.
//! Those that would end the process and mean nothing here are told, and nothing else.
//!
//! They must reach the main thread only. The handler writes to a descriptor, and the kernel may run it on any thread that
//! does not block the signal; on a worker, whose descriptor table is its own, that number is perhaps a client's socket.

use std::fmt;
use std::io::{self, IsTerminal};
use std::task::Poll;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::Phase;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Quit,
    Interrupt,
    /// From a supervisor.
    Hangup,
    /// From the terminal that this was started in, and that has been closed.
    TerminalGone,
    Meaningless(&'static str),
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Quit => "SIGQUIT",
            Signal::Interrupt => "SIGINT",
            Signal::Hangup | Signal::TerminalGone => "SIGHUP",
            Signal::Meaningless(name) => name,
        })
    }
}

/// Signals held back on this thread, and on every thread it starts from now on.
#[must_use = "signals stay held back until they are received"]
pub struct Held {
    signals: SigSet,
}

/// To be called before the first thread is started. What arrives meanwhile is received later.
pub fn hold() -> io::Result<Held> {
    let meant = [Number::SIGTERM, Number::SIGQUIT, Number::SIGINT, Number::SIGHUP];
    let signals: SigSet = meant.into_iter().chain(MEANINGLESS).collect();
    signals.thread_block()?;
    Ok(Held { signals })
}

/// Their default is to end the process, and they come from log rotation, profilers, and habits of other servers. (SIGPIPE is
/// ignored from the start; SIGWINCH, SIGCONT and the like do nothing by default.)
const MEANINGLESS: [Number; 8] = [
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGALRM,
    Number::SIGVTALRM,
    Number::SIGPROF,
    Number::SIGIO,
    Number::SIGPWR,
    Number::SIGSTKFLT,
];

pub(super) struct Signals {
    terminate: Stream,
    quit: Stream,
    interrupt: Stream,
    hangup: Stream,
    meaningless: Vec<(Number, Stream)>,
    /// Whether stderr was one at the start.
    terminal: bool,
}

impl Signals {
    /// On this thread, from now on.
    pub(super) fn receive(held: Held) -> io::Result<Self> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            meaningless: MEANINGLESS
                .into_iter()
                .map(|number| Ok((number, signal(SignalKind::from_raw(number as i32))?)))
                .collect::<io::Result<_>>()?,
            terminal: io::stderr().is_terminal(),
        };
        held.signals.thread_unblock()?;
        Ok(signals)
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.quit.recv() => Signal::Quit,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            // A terminal that has been closed is none any more: asking it fails with EIO.
            Some(()) = self.hangup.recv() => match self.terminal && !io::stderr().is_terminal() {
                true => Signal::TerminalGone,
                false => Signal::Hangup,
            },
            number = any(&mut self.meaningless) => Signal::Meaningless(number.as_str()),
            else => std::future::pending().await,
        }
    }
}

async fn any(signals: &mut [(Number, Stream)]) -> Number {
    std::future::poll_fn(|cx| {
        let mut came = signals.iter_mut().filter_map(|(number, stream)| match stream.poll_recv(cx) {
            Poll::Ready(Some(())) => Some(*number),
            Poll::Ready(None) | Poll::Pending => None,
        });
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// What to do next.
pub(super) fn meaning(phase: Phase, signal: Signal) -> Phase {
    match (phase, signal) {
        (phase, Signal::Hangup | Signal::Meaningless(_)) => phase,
        (Phase::Serving, Signal::Terminate | Signal::Quit | Signal::TerminalGone) => Phase::Draining,
        // The shell that goes with its terminal sends one as well.
        (phase, Signal::TerminalGone) => phase,
        (Phase::Serving, Signal::Interrupt) | (Phase::Draining | Phase::Stopping, _) => Phase::Stopping,
    }
}

pub(super) fn describe(signal: Signal, phase: Phase, next: Phase) -> &'static str {
    match next {
        Phase::Serving if signal == Signal::Hangup => "reloading",
        _ if signal == Signal::Hangup => "ignored, as the end has come",
        _ if matches!(signal, Signal::Meaningless(_)) => "means nothing here; ignored",
        Phase::Draining if signal == Signal::TerminalGone => "the terminal is gone; draining",
        Phase::Draining => "draining; once more to stop at once",
        Phase::Stopping if phase == Phase::Stopping => "stopping already",
        Phase::Stopping => "stopping at once",
        Phase::Serving => "serving",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_asks_and_the_second_insists() {
        use Phase::{Draining, Serving, Stopping};
        for asks in [Signal::Terminate, Signal::Quit] {
            assert_eq!(meaning(Serving, asks), Draining);
            assert_eq!(meaning(Draining, asks), Stopping);
            assert_eq!(meaning(Stopping, asks), Stopping);
        }
        for phase in [Serving, Draining, Stopping] {
            assert_eq!(meaning(phase, Signal::Interrupt), Stopping);
            assert_eq!(meaning(phase, Signal::Hangup), phase);
            assert_eq!(meaning(phase, Signal::Meaningless("SIGUSR1")), phase);
        }
        assert_eq!(meaning(Serving, Signal::TerminalGone), Draining);
        assert_eq!(meaning(Draining, Signal::TerminalGone), Draining);
        assert_eq!(meaning(Stopping, Signal::TerminalGone), Stopping);
    }
}
