//! The control plane: everything that may wait for something else than the kernel's answer to a worker. One thread, the
//! main one, on a `tokio-uring` runtime: signals, the end of workers, the demo.

pub mod demo;
pub mod logs;
mod signals;

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::metrics::Totals;
use crate::worker::{Command, Workers};
use demo::Demo;
use signals::Signals;

pub use signals::{Held, hold};

/// How long workers may take beyond what they were given. They never should: this bounds the wait for one that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// Why the process ends with 1.
#[derive(Debug)]
pub enum ControlError {
    Runtime(io::Error),
    Signals(io::Error),
    Demo(io::Error),
    WorkerEnded(usize),
    WorkersHang,
    Worker(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Runtime(error) => write!(f, "the control plane's io_uring cannot be set up: {error}"),
            ControlError::Signals(error) => write!(f, "signals cannot be received: {error}"),
            ControlError::Demo(error) => write!(f, "the demo cannot be started: {error}"),
            ControlError::WorkerEnded(worker) => write!(f, "worker {worker} ended unasked"),
            ControlError::WorkersHang => write!(f, "workers did not end in time"),
            ControlError::Worker(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for ControlError {}

/// Serves until a signal or a fault ends it. Returns when no worker is left.
///
/// The order before it: [`hold`] the signals, start the logs, start the workers, whose `exited` feeds `exits`.
pub fn run(
    config: &Config,
    workers: Workers,
    exits: UnboundedReceiver<usize>,
    held: Held,
    demo: Option<Demo>,
) -> Result<(), ControlError> {
    let ended = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => runtime.block_on(serve(config, &workers, exits, held, demo)),
        Err(error) => {
            workers.send(Command::Stop);
            Err(ControlError::Runtime(error))
        }
    };
    report(&workers.metrics());
    if let Err(ControlError::WorkersHang) = ended {
        // Joining would hang as well; the process's end takes them along.
        std::mem::forget(workers);
        return ended;
    }
    let joined = workers.join().map_err(|error| ControlError::Worker(error.to_string()));
    ended.and(joined)
}

async fn serve(
    config: &Config,
    workers: &Workers,
    exits: UnboundedReceiver<usize>,
    held: Held,
    demo: Option<Demo>,
) -> Result<(), ControlError> {
    let started = async {
        let signals = Signals::receive(held).map_err(ControlError::Signals)?;
        let relay = workers.addresses().first().map(ToString::to_string).unwrap_or_default();
        demo.map_or(Ok(()), |demo| demo.start(&relay)).map_err(ControlError::Demo)?;
        Ok(signals)
    };
    match started.await {
        Ok(signals) => Supervisor { config, workers, phase: Phase::Serving, deadline: None }.run(signals, exits).await,
        Err(error) => {
            workers.send(Command::Stop);
            Err(error)
        }
    }
}

/// Only ever goes downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Stopping,
}

struct Supervisor<'a> {
    config: &'a Config,
    workers: &'a Workers,
    phase: Phase,
    /// When to lose patience with workers that were told to end.
    deadline: Option<Instant>,
}

impl Supervisor<'_> {
    /// Until every worker's end of `exits` is closed.
    async fn run(mut self, mut signals: Signals, mut exits: UnboundedReceiver<usize>) -> Result<(), ControlError> {
        let mut result = Ok(());
        loop {
            let deadline = self.deadline;
            tokio::select! {
                signal = signals.next() => {
                    let next = signals::meaning(self.phase, signal);
                    info!("{signal}: {}", signals::describe(signal, self.phase, next));
                    self.enter(next);
                }
                exited = exits.recv() => match exited {
                    Some(worker) if self.phase == Phase::Serving => {
                        error!("worker {worker} ended unasked; stopping the others");
                        result = Err(ControlError::WorkerEnded(worker));
                        self.enter(Phase::Stopping);
                    }
                    Some(_) => (),
                    None => return result,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if self.phase == Phase::Stopping {
                        return result.and(Err(ControlError::WorkersHang));
                    }
                    warn!("not drained within timeouts.drain; stopping");
                    self.enter(Phase::Stopping);
                }
            }
        }
    }

    fn enter(&mut self, next: Phase) {
        if next == self.phase {
            return;
        }
        self.phase = next;
        self.deadline = match next {
            Phase::Serving => None,
            Phase::Draining => {
                self.workers.send(Command::Drain);
                Some(Instant::now() + self.config.timeouts.drain + GRACE)
            }
            Phase::Stopping => {
                self.workers.send(Command::Stop);
                Some(Instant::now() + GRACE)
            }
        };
    }
}

/// At rest `accepted` equals `ended`, and `sessions` and `leases` are 0: what is not was lost.
fn report(totals: &Totals) {
    info!(
        accepted = totals.accepted,
        refused = totals.refused,
        opened = totals.opened,
        ended = totals.ended,
        sessions = totals.sessions,
        messages_in = totals.messages_in,
        messages_out = totals.messages_out,
        bytes_in = totals.bytes_in,
        bytes_out = totals.bytes_out,
        control_frames = totals.control_frames,
        frame_faults = totals.frame_faults,
        connect_failures = totals.connect_failures,
        buffer_starvations = totals.buffer_starvations,
        leases = totals.leases,
        "stopped"
    );
}
