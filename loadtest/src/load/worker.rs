//! One worker: a thread with its own io_uring runtime, pinned if asked, that plays its share of a scenario.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::open_loop::{self, Plan};
use super::shard::{Phase, Report, Shard, Signal};
use super::{chat, churn, echo, faults, idle, ramp, rooms, slow};
use crate::spec::{RunSpec, Scenario};

/// Submission entries; more operations than this are simply submitted in several goes.
const RING_ENTRIES: u32 = 1024;
/// Completions of one round beyond this overflow into the kernel's slower list, without loss.
const COMPLETION_ENTRIES: u32 = 16 * 1024;

/// Where and when a worker runs.
#[derive(Clone)]
pub struct Place {
    pub number: u32,
    pub cpu: Option<u32>,
    pub epoch_ns: u64,
}

/// The worker's thread body. Every outcome reaches `reports`, failure to start included.
pub fn run(
    spec: RunSpec,
    place: Place,
    signal: watch::Receiver<Signal>,
    reports: mpsc::UnboundedSender<(u32, Report)>,
) {
    let number = place.number;
    let sender = reports.clone();
    let report = Box::new(move |report| {
        // The coordinator may have stopped listening: then nobody needs to know.
        let _ = sender.send((number, report));
    });
    if let Err(error) = pin(place.cpu) {
        let _ = reports.send((number, Report::Failed(format!("{error:#}"))));
        return;
    }
    let outcome = start_runtime(play(Arc::new(spec), place.epoch_ns, signal, report));
    if let Err(error) = outcome {
        let _ = reports.send((number, Report::Failed(format!("{error:#}"))));
    }
}

/// Runs a future on a fresh ring, with the likely cause if the kernel refuses one.
pub fn start_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETION_ENTRIES);
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder).context(
        "starting io_uring (containers often forbid it, see kernel.io_uring_disabled and seccomp; \
         RLIMIT_MEMLOCK may be too low)",
    )?;
    runtime.block_on(future)
}

pub fn pin(cpu: Option<u32>) -> Result<()> {
    let Some(cpu) = cpu else {
        return Ok(());
    };
    let mut set = rustix::thread::CpuSet::new();
    anyhow::ensure!((cpu as usize) < rustix::thread::CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("pinning to CPU {cpu}"))
}

async fn play(
    spec: Arc<RunSpec>,
    epoch_ns: u64,
    signal: watch::Receiver<Signal>,
    report: Box<dyn Fn(Report)>,
) -> Result<()> {
    let shard = Shard::new(spec.clone(), signal, report)?;
    let signals = tokio_uring::spawn(shard.clone().follow_signals());
    let ticks = tokio_uring::spawn(shard.clone().tick(epoch_ns));
    match &spec.scenario {
        Scenario::Closed { depth } => echo::run(shard.clone(), *depth).await,
        Scenario::Open { rate, arrivals, depth_max } => {
            let plan = Plan::Rate { rate: *rate, arrivals: *arrivals };
            open_loop::run(shard.clone(), plan, *depth_max).await;
        }
        Scenario::Burst { messages, period_ms } => {
            let plan = Plan::Burst { messages: *messages, period_ms: *period_ms };
            open_loop::run(shard.clone(), plan, 0).await;
        }
        Scenario::Ramp { rate, failures_max, handshake_ms_max } => {
            ramp::run(shard.clone(), *rate, *failures_max, *handshake_ms_max).await;
        }
        Scenario::FanOut { rooms, rate } => rooms::fan_out(shard.clone(), *rooms, *rate).await,
        Scenario::FanIn { rooms, rate } => rooms::fan_in(shard.clone(), *rooms, *rate).await,
        Scenario::Chat { room_size, think_ms } => {
            chat::run(shard.clone(), *room_size, *think_ms).await;
        }
        Scenario::Idle { ping_ms } => idle::run(shard.clone(), *ping_ms).await,
        Scenario::Churn { messages, closings } => {
            churn::run(shard.clone(), *messages, closings.clone()).await;
        }
        Scenario::SlowReader { slow_percent, read_bytes_per_s, window_bytes } => {
            let slow =
                slow::Slow { percent: *slow_percent, read_bytes_per_s: *read_bytes_per_s, window_bytes: *window_bytes };
            slow::run(shard.clone(), slow).await;
        }
        Scenario::Faults { fault, .. } => faults::run(shard.clone(), *fault).await,
    }
    if shard.phase() < Phase::Drain {
        shard.report(Report::Finished);
        shard.wait_for(Phase::Drain).await;
    }
    ticks.abort();
    // The window closes when the drain begins, which the signal task must have seen.
    while !shard.is_draining() {
        tokio::task::yield_now().await;
    }
    signals.abort();
    let stats = std::mem::take(&mut *shard.stats.borrow_mut());
    shard.report(Report::Done(Box::new(stats)));
    Ok(())
}

/// Waits for all tasks. A task that panicked is this program's bug and is passed on.
pub async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The share of one part out of several: contiguous, and as even as it goes.
pub fn share(spec: &RunSpec, part: u32, parts: u32) -> RunSpec {
    let at = |part: u32| (u64::from(spec.connections) * u64::from(part) / u64::from(parts.max(1))) as u32;
    RunSpec { first_connection: spec.first_connection + at(part), connections: at(part + 1) - at(part), ..spec.clone() }
}
