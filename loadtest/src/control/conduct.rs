//! A run from its first connection to its last answer.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::crew::Crew;
use super::series::Series;
use super::upstream_process::UpstreamProcess;
use crate::clock::now_ns;
use crate::load::shard::{Phase, Report};
use crate::measure::procfs::{self, Usage};
use crate::measure::stats::{Counters, Stats};
use crate::report::progress::{Live, Progress};
use crate::report::result::{FaultEvent, Frame, INTERRUPTED, RunResult, Watched};
use crate::spec::{FaultKind, RunSpec, Scenario};
use crate::upstream::Command;

/// After the drain deadline connections are ended; workers then have this long to report.
const LAST_WORDS: Duration = Duration::from_secs(10);

pub struct Conductor {
    spec: RunSpec,
    crew: Crew,
    series: Series,
    progress: Progress,
    watch: Vec<u32>,
    upstream: Option<UpstreamProcess>,
    epoch_ns: u64,
    ready: u32,
    finished: u32,
    /// Workers that have reported their numbers, or failed.
    done: BTreeSet<u32>,
    stats: Stats,
    ended_early: Option<String>,
    faults: Vec<FaultEvent>,
    live_before: Counters,
    /// The interval in which the last progress line was written.
    live_at: u64,
    phase_began: Instant,
}

/// What a phase waits for besides its time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Ready,
    Finished,
    Done,
}

/// CPU and memory of the watched processes and of this one, at one moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    at_ns: u64,
    watched: Usage,
    own: Usage,
}

impl Conductor {
    pub fn new(
        spec: RunSpec,
        watch: Vec<u32>,
        progress: Progress,
        upstream: Option<UpstreamProcess>,
    ) -> Result<Conductor> {
        procfs::usage(&watch).context("reading the watched process (is its id right?)")?;
        let epoch_ns = now_ns();
        Ok(Conductor {
            crew: Crew::start(&spec, epoch_ns)?,
            spec,
            series: Series::default(),
            progress,
            watch,
            upstream,
            epoch_ns,
            ready: 0,
            finished: 0,
            done: BTreeSet::new(),
            stats: Stats::default(),
            ended_early: None,
            faults: Vec::new(),
            live_before: Counters::default(),
            live_at: 0,
            phase_began: Instant::now(),
        })
    }

    pub async fn run(mut self, label: String) -> Result<RunResult> {
        let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let before = self.sample();
        self.phase("connect", Duration::ZERO, Some(Until::Ready)).await;
        // Lets the last ticks arrive and memory settle before it is read.
        let settle = Duration::from_millis(2 * self.spec.interval_ms.min(500));
        self.phase("settle", settle, None).await;
        let connected = self.sample();
        let at_ready = self.series.totals();
        self.crew.enter(Phase::Warm);
        self.phase("warm-up", Duration::from_millis(self.spec.warmup_ms), None).await;
        self.crew.enter(Phase::Measure);
        let start = self.sample();
        self.measure().await?;
        let end = self.sample();
        self.crew.enter(Phase::Drain);
        self.phase("drain", Duration::from_millis(self.spec.drain_ms), Some(Until::Done)).await;
        self.crew.enter(Phase::End);
        self.phase("end", LAST_WORDS, Some(Until::Done)).await;
        self.progress.finish();
        if let Some(mut upstream) = self.upstream.take() {
            // Waited for, so that the next run can listen where this one did.
            upstream.kill().await?;
        }
        if self.done.len() < self.crew.workers as usize && self.ended_early.is_none() {
            self.ended_early = Some("a worker did not report its numbers".into());
        }
        self.stats.settle_rooms();
        let watched = self.watched(before, connected, start, end, &at_ready);
        let measured_s = (end.at_ns - start.at_ns) as f64 / 1e9;
        let own_cpu = end.own.cpu_ns.saturating_sub(start.own.cpu_ns) as f64;
        let frame = Frame {
            label,
            started_at,
            ended_early: self.ended_early,
            measured_s,
            connect_s: (connected.at_ns - before.at_ns) as f64 / 1e9 - settle.as_secs_f64(),
            watched,
            generator_cpu_percent: own_cpu / 1e9 / measured_s.max(1e-9) * 100.0,
            faults: self.faults,
            series: self.series.points(self.spec.interval_ms),
        };
        Ok(RunResult::new(self.spec, &self.stats, &at_ready, frame))
    }

    /// The measured window, with whatever the scenario wants to happen inside it.
    async fn measure(&mut self) -> Result<()> {
        let length = Duration::from_millis(self.spec.duration_ms);
        match self.spec.scenario.clone() {
            Scenario::Idle { .. } => {
                self.phase("hold", length, None).await;
                self.crew.event();
                let patience = Duration::from_millis(self.spec.drain_ms);
                self.phase("wake", patience, Some(Until::Finished)).await;
                Ok(())
            }
            Scenario::Faults { fault, outage_ms, times } => {
                let part = length / (times + 1);
                let outage = Duration::from_millis(outage_ms).min(part / 2);
                for _ in 0..times {
                    self.phase("calm", part, None).await;
                    if self.ended_early.is_none() {
                        self.inject(fault, outage).await?;
                    }
                }
                self.phase("recover", part, None).await;
                Ok(())
            }
            _ => {
                self.phase("measure", length, Some(Until::Finished)).await;
                Ok(())
            }
        }
    }

    async fn inject(&mut self, fault: FaultKind, outage: Duration) -> Result<()> {
        self.note_fault(format!("{fault:?}"));
        if fault.is_clients_own() {
            self.crew.event();
            return Ok(());
        }
        let upstream = self.upstream.as_mut().context("this fault needs an upstream of our own")?;
        match fault {
            FaultKind::Kill => {
                upstream.kill().await?;
                self.phase("outage", outage, None).await;
                if let Some(upstream) = &mut self.upstream {
                    upstream.restart().await?;
                }
                self.note_fault("upstream started again".into());
            }
            FaultKind::Stop => {
                upstream.signal(rustix::process::Signal::STOP)?;
                self.phase("outage", outage, None).await;
                if let Some(upstream) = &self.upstream {
                    upstream.signal(rustix::process::Signal::CONT)?;
                }
                self.note_fault("upstream continued".into());
            }
            FaultKind::Rst => upstream.command(Command::Rst).await?,
            FaultKind::HalfClose => upstream.command(Command::HalfClose).await?,
            FaultKind::Cut => upstream.command(Command::Cut).await?,
            _ => upstream.command(Command::Restart).await?,
        }
        Ok(())
    }

    fn note_fault(&mut self, what: String) {
        let at_s = (now_ns() - self.epoch_ns) as f64 / 1e9;
        self.progress.note(&format!("fault at {at_s:.3} s: {what}"));
        self.faults.push(FaultEvent { at_s, what });
    }

    /// Takes reports and samples until `length` has passed (zero: no limit) or what it waits for is
    /// there. Ctrl-C or a failed worker cuts every phase short but the drain.
    async fn phase(&mut self, name: &'static str, length: Duration, until: Option<Until>) {
        let draining = until == Some(Until::Done);
        if self.ended_early.is_some() && !draining {
            return;
        }
        if length.is_zero() && until.is_none() {
            return;
        }
        self.progress.phase(name, length);
        self.phase_began = Instant::now();
        let forever = Duration::from_secs(365 * 86_400);
        let deadline = self.phase_began + if length.is_zero() { forever } else { length };
        let interval = Duration::from_millis(self.spec.interval_ms);
        let every = |offset| {
            let mut every = interval_at(Instant::now() + self.to_next_interval(offset), interval);
            every.set_missed_tick_behavior(MissedTickBehavior::Skip);
            every
        };
        let mut samples = every(Duration::ZERO);
        // A quarter later, when every worker has told of the interval that has ended.
        let mut lines = every(interval / 4);
        while !until.is_some_and(|until| self.has(until)) {
            tokio::select! {
                biased;
                Some((worker, report)) = self.crew.reports.recv() => self.take(worker, report),
                () = sleep_until(deadline) => return,
                _ = samples.tick() => self.note_usage(),
                _ = lines.tick() => self.show(),
                _ = tokio::signal::ctrl_c() => self.end_early(INTERRUPTED.into()),
            }
            if self.ended_early.is_some() && !draining {
                return;
            }
        }
    }

    /// Until `offset` after the beginning of an interval.
    fn to_next_interval(&self, offset: Duration) -> Duration {
        let interval_ns = self.interval_ns();
        let since = now_ns() - self.epoch_ns + interval_ns - offset.as_nanos() as u64;
        Duration::from_nanos(interval_ns - since % interval_ns)
    }

    fn interval_ns(&self) -> u64 {
        self.spec.interval_ms * 1_000_000
    }

    fn has(&self, until: Until) -> bool {
        let count = match until {
            Until::Ready => self.ready,
            Until::Finished => self.finished,
            Until::Done => self.done.len() as u32,
        };
        count >= self.crew.workers
    }

    fn end_early(&mut self, why: String) {
        self.ended_early.get_or_insert(why);
    }

    fn take(&mut self, worker: u32, report: Report) {
        match report {
            Report::Ready => self.ready += 1,
            Report::Finished => self.finished += 1,
            Report::Tick(tick) => self.series.tick(worker, &tick),
            Report::Done(stats) => {
                self.done.insert(worker);
                self.stats.merge(&stats);
            }
            // The end of a process that has reported is no failure.
            Report::Failed(_) if self.done.contains(&worker) => {}
            Report::Failed(why) => {
                self.done.insert(worker);
                self.end_early(format!("worker {worker} failed: {why}"));
            }
        }
    }

    fn note_usage(&mut self) {
        if !self.watch.is_empty() {
            let sample = self.sample();
            let index = (sample.at_ns - self.epoch_ns) / self.interval_ns();
            self.series.usage(index.saturating_sub(1), sample.at_ns, sample.watched);
        }
    }

    /// A progress line. The totals are those at the end of the last interval, so that what has changed belongs to whole
    /// intervals, however late this line is.
    fn show(&mut self) {
        let index = (now_ns() - self.epoch_ns) / self.interval_ns();
        let totals = self.series.totals();
        let change = totals.since(&self.live_before);
        let passed_s = index.saturating_sub(self.live_at).max(1) as f64 * self.spec.interval_ms as f64 / 1e3;
        let live = Live {
            totals,
            sent_per_s: change.sent as f64 / passed_s,
            received_per_s: change.received as f64 / passed_s,
            p99_us: self.series.latest_latency().map_or(0.0, |latency| latency.quantile_us(0.99)),
        };
        (self.live_before, self.live_at) = (totals, index);
        let since_its_end = Duration::from_nanos((now_ns() - self.epoch_ns) % self.interval_ns());
        // An interval that was over when this phase began says nothing about it.
        if self.phase_began.elapsed() >= since_its_end {
            self.progress.update(self.phase_began.elapsed(), &live);
        }
    }

    /// A watched process that has ended counts as zero from then on.
    fn sample(&self) -> Sample {
        Sample { at_ns: now_ns(), watched: procfs::usage(&self.watch).unwrap_or_default(), own: self.crew.usage() }
    }

    fn watched(
        &self,
        before: Sample,
        connected: Sample,
        start: Sample,
        end: Sample,
        at_ready: &Counters,
    ) -> Option<Watched> {
        if self.watch.is_empty() {
            return None;
        }
        let window = &self.stats.window;
        let cpu_us = end.watched.cpu_ns.saturating_sub(start.watched.cpu_ns) as f64 / 1e3;
        let connect_us = connected.watched.cpu_ns.saturating_sub(before.watched.cpu_ns) as f64 / 1e3;
        let grown = connected.watched.rss_anon_bytes as f64 - before.watched.rss_anon_bytes as f64;
        // Where coming and going is the load, connecting happens inside the window.
        let (handshake_us, handshakes) = match self.spec.scenario {
            Scenario::Churn { .. } | Scenario::Ramp { .. } => (cpu_us, window.connected),
            _ => (connect_us, at_ready.connected),
        };
        let over = |value: f64, count: u64| if count == 0 { 0.0 } else { value / count as f64 };
        Some(Watched {
            pids: self.watch.clone(),
            names: self.watch.iter().map(|pid| procfs::name(*pid)).collect(),
            before: before.watched,
            connected: connected.watched,
            after: end.watched,
            cpu_us_per_message: over(cpu_us, window.sent + window.received),
            cpu_us_per_round_trip: over(cpu_us, window.received),
            cpu_percent: cpu_us * 1e3 / (end.at_ns - start.at_ns).max(1) as f64 * 100.0,
            cpu_us_per_handshake: over(handshake_us, handshakes),
            rss_anon_bytes_per_connection: over(grown, at_ready.open),
        })
    }
}
