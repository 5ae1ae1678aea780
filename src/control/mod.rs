//! The control plane: everything that may wait for something else than the kernel's answer to a worker. One thread, the
//! main one, on a `tokio-uring` runtime: signals, the end of workers, reload, discovery, health checks, the demo.

pub mod demo;
mod discovery;
mod health;
pub mod logs;
mod news;
mod reload;
mod signals;
mod supervisor;
mod tables;
mod task;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::mpsc::unbounded_channel;
use tracing::info;

use crate::config::Config;
use crate::metrics::Totals;
use crate::table::Table;
use crate::worker::{self, Command, StartError, Workers};
use demo::Demo;
use logs::Level;
use signals::Signals;
use supervisor::{DISCOVERY_PATIENCE, DiscoveryStart, Supervisor};

pub use discovery::system_nameservers;
pub use reload::Source;
pub use signals::{Held, hold};

/// Why the process ends with 1.
#[derive(Debug)]
pub enum ControlError {
    Runtime(io::Error),
    Secret(io::Error),
    Start(StartError),
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
            ControlError::Secret(error) => write!(f, "/dev/urandom cannot be read: {error}"),
            ControlError::Start(error) => error.fmt(f),
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
/// The order before it: [`hold`] the signals, start the logs.
pub fn run(config: Config, source: Source, level: Level, held: Held, demo: Option<Demo>) -> Result<(), ControlError> {
    // First, as it says what forbids io_uring and what mends that: the control plane's own ring would only say no.
    let features = worker::probe().map_err(|error| ControlError::Start(error.into()))?;
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(ControlError::Runtime)?;
    let epoch = std::time::Instant::now();
    let secret = secret().map_err(ControlError::Secret)?;
    let (config, finding) = runtime.block_on(find(config));
    let table = Table::start(config, &finding.discoveries.found(), epoch, secret);
    let (exited, exits) = unbounded_channel();
    let mut workers = Workers::start(&table, features, move |worker| {
        // The control plane may have given up waiting.
        let _ = exited.send(worker);
    })
    .map_err(ControlError::Start)?;
    let ended = runtime.block_on(async {
        let signals = match started(&workers, held, demo) {
            Ok(signals) => signals,
            Err(error) => {
                workers.send(Command::Stop);
                return Err(error);
            }
        };
        Supervisor::new(source, level, &mut workers, table, finding).run(signals, exits).await
    });
    // Health checks and discovery end with it.
    drop(runtime);
    report(&workers.metrics());
    if let Err(ControlError::WorkersHang) = ended {
        // Joining would hang as well; the process's end takes them along.
        std::mem::forget(workers);
        return ended;
    }
    let joined = workers.join().map_err(|error| ControlError::Worker(error.to_string()));
    ended.and(joined)
}

/// Discovery's first answers, before anybody is served.
async fn find(config: Config) -> (Arc<Config>, DiscoveryStart) {
    let config = Arc::new(config);
    let mut finding = DiscoveryStart::new();
    finding.discoveries.first(&config, DISCOVERY_PATIENCE).await;
    (config, finding)
}

fn started(workers: &Workers, held: Held, demo: Option<Demo>) -> Result<Signals, ControlError> {
    let signals = Signals::receive(held).map_err(ControlError::Signals)?;
    let relay = workers.addresses().first().map(ToString::to_string).unwrap_or_default();
    demo.map_or(Ok(()), |demo| demo.start(&relay)).map_err(ControlError::Demo)?;
    Ok(signals)
}

/// What nobody can guess, new at each start.
fn secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

/// Only ever goes downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Stopping,
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
        ejections = totals.ejections,
        queued = totals.queued,
        queue_timeouts = totals.queue_timeouts,
        buffer_starvations = totals.buffer_starvations,
        leases = totals.leases,
        "stopped"
    );
}
