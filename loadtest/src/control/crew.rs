//! The workers of a run: threads of this process while one descriptor table is enough, otherwise
//! threads of several processes that talk in lines of JSON.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use crate::load::shard::{Phase, Report, Signal};
use crate::load::worker::{self, Place};
use crate::measure::procfs::{self, Usage};
use crate::spec::RunSpec;

/// What one process is meant to hold; each connection costs a descriptor, a buffer and a task.
pub const CONNECTIONS_PER_PROCESS: u32 = 10_000;
/// Descriptors that are not connections: rings, timers, standard streams, files.
const SPARE_DESCRIPTORS: u64 = 200;

pub type Reports = mpsc::UnboundedReceiver<(u32, Report)>;

pub struct Crew {
    pub workers: u32,
    pub reports: Reports,
    signal: watch::Sender<Signal>,
    /// The other processes; they end with this one.
    children: Vec<Child>,
}

/// What a worker process is told in its first line.
#[derive(Serialize, Deserialize)]
struct Assignment {
    spec: RunSpec,
    first_worker: u32,
    epoch_ns: u64,
}

impl Crew {
    pub fn start(spec: &RunSpec, epoch_ns: u64) -> Result<Crew> {
        let start = Signal { phase: Phase::Connect, event: 0 };
        let (signal, signals) = watch::channel(start);
        let (sender, reports) = mpsc::unbounded_channel();
        let processes = spec.connections.div_ceil(per_process()?).max(1);
        let mut children = Vec::new();
        let mut workers = 0;
        for number in 0..processes {
            let share = worker::share(spec, number, processes);
            let assignment = Assignment { spec: share, first_worker: workers, epoch_ns };
            workers += assignment.workers();
            if processes == 1 {
                assignment.start_threads(&signals, &sender)?;
            } else {
                children.push(start_process(assignment, signals.clone(), sender.clone())?);
            }
        }
        Ok(Crew { workers, reports, signal, children })
    }

    pub fn enter(&self, phase: Phase) {
        self.signal.send_modify(|signal| signal.phase = phase);
    }

    /// What the load generator itself costs, all of its processes together.
    pub fn usage(&self) -> Usage {
        let mut pids = vec![std::process::id()];
        pids.extend(self.children.iter().filter_map(Child::id));
        procfs::usage(&pids).unwrap_or_default()
    }

    pub fn event(&self) {
        self.signal.send_modify(|signal| signal.event += 1);
    }
}

impl Assignment {
    fn workers(&self) -> u32 {
        self.spec.workers.clamp(1, self.spec.connections.max(1))
    }

    fn start_threads(
        &self,
        signals: &watch::Receiver<Signal>,
        reports: &mpsc::UnboundedSender<(u32, Report)>,
    ) -> Result<()> {
        for i in 0..self.workers() {
            let number = self.first_worker + i;
            let spec = worker::share(&self.spec, i, self.workers());
            let cpus = &spec.cpus;
            let cpu = cpus.get(number as usize % cpus.len().max(1)).copied();
            let place = Place { number, cpu, epoch_ns: self.epoch_ns };
            let (signals, reports) = (signals.clone(), reports.clone());
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker::run(spec, place, signals, reports))
                .context("starting a worker thread")?;
        }
        Ok(())
    }
}

fn per_process() -> Result<u32> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS);
    if descriptors == 0 {
        bail!("the limit on open files is too low to run at all: raise it with ulimit -n");
    }
    Ok(descriptors.min(u64::from(CONNECTIONS_PER_PROCESS)) as u32)
}

fn start_process(
    assignment: Assignment,
    signals: watch::Receiver<Signal>,
    reports: mpsc::UnboundedSender<(u32, Report)>,
) -> Result<Child> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut child = Command::new(program)
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting a worker process")?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("a worker process without pipes");
    };
    let line = serde_json::to_string(&assignment)?;
    tokio::spawn(tell(stdin, line, signals));
    let (first, last) = (assignment.first_worker, assignment.first_worker + assignment.workers());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let report = serde_json::from_str(&line);
            let report = report.unwrap_or((first, Report::Failed("a worker process spoke nonsense".into())));
            if reports.send(report).is_err() {
                return;
            }
        }
        for number in first..last {
            let _ = reports.send((number, Report::Failed("a worker process ended".into())));
        }
    });
    Ok(child)
}

async fn tell(mut stdin: ChildStdin, assignment: String, mut signals: watch::Receiver<Signal>) {
    let mut line = assignment;
    loop {
        line.push('\n');
        // A process that has ended reports so by its closed output.
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
        if signals.changed().await.is_err() {
            return;
        }
        let signal = *signals.borrow_and_update();
        line = serde_json::to_string(&signal).unwrap_or_default();
    }
}

/// The body of `loadtest worker`, which only `start_process` calls.
pub fn run_process() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Ctrl-C goes to the whole group; the coordinator decides what it means.
        tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let first = lines.next_line().await?.context("no assignment on standard input")?;
        let assignment: Assignment = serde_json::from_str(&first).context("reading the assignment")?;
        let start = Signal { phase: Phase::Connect, event: 0 };
        let (signal, signals) = watch::channel(start);
        let (sender, mut reports) = mpsc::unbounded_channel();
        assignment.start_threads(&signals, &sender)?;
        let mut running = assignment.workers();
        while running > 0 {
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => { signal.send_replace(serde_json::from_str(&line)?); }
                    None => bail!("the coordinator is gone"),
                },
                Some(report) = reports.recv() => {
                    if matches!(report.1, Report::Done(_) | Report::Failed(_)) {
                        running -= 1;
                    }
                    println!("{}", serde_json::to_string(&report)?);
                }
            }
        }
        Ok(())
    })?;
    runtime.shutdown_background();
    Ok(())
}
