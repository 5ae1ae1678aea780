//! Signals: SIGTERM and SIGQUIT drain, SIGINT stops at once, and so does a second SIGTERM or SIGQUIT.
//! SIGHUP reads the configuration again, unless it comes from the terminal that this was started in: then it is as SIGINT.
//!
//! They must reach the main thread only. The handler writes to a descriptor, and the kernel may run it on any thread that
//! does not block the signal; on a worker, whose descriptor table is its own, that number is perhaps a client's socket.

use std::fmt;
use std::io::{self, IsTerminal};

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
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Quit => "SIGQUIT",
            Signal::Interrupt => "SIGINT",
            Signal::Hangup | Signal::TerminalGone => "SIGHUP",
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
    let signals: SigSet = [Number::SIGTERM, Number::SIGQUIT, Number::SIGINT, Number::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    Ok(Held { signals })
}

pub(super) struct Signals {
    terminate: Stream,
    quit: Stream,
    interrupt: Stream,
    hangup: Stream,
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
            Some(()) = self.hangup.recv() => if self.terminal { Signal::TerminalGone } else { Signal::Hangup },
            else => std::future::pending().await,
        }
    }
}

/// What to do next.
pub(super) fn meaning(phase: Phase, signal: Signal) -> Phase {
    match (phase, signal) {
        (phase, Signal::Hangup) => phase,
        (Phase::Serving, Signal::Terminate | Signal::Quit) => Phase::Draining,
        (Phase::Serving, Signal::Interrupt | Signal::TerminalGone) | (Phase::Draining | Phase::Stopping, _) => {
            Phase::Stopping
        }
    }
}

pub(super) fn describe(signal: Signal, phase: Phase, next: Phase) -> &'static str {
    match next {
        Phase::Serving if signal == Signal::Hangup => "reloading",
        _ if signal == Signal::Hangup => "ignored, as the end has come",
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
            assert_eq!(meaning(phase, Signal::TerminalGone), Stopping);
            assert_eq!(meaning(phase, Signal::Hangup), phase);
        }
    }
}
