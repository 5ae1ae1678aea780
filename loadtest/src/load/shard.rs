//! What all connections of one worker share: the spec, the phase of the run, and the numbers.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::conn::Conn;
use crate::clock::now_ns;
use crate::measure::latency::Latency;
use crate::measure::stats::{Counters, Stats};
use crate::net::Fault;
use crate::net::connect::Connector;
use crate::net::link::Link;
use crate::spec::RunSpec;
use crate::wire::payload::Filler;

/// Where the run stands; the coordinator moves it forward, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    Connect,
    /// Load, not recorded.
    Warm,
    Measure,
    /// No new messages; outstanding answers are waited for.
    Drain,
    /// Whatever is still open is given up.
    End,
}

/// What the coordinator tells all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    pub phase: Phase,
    /// Counts the events inside a phase: faults injected, wake-ups.
    pub event: u32,
}

/// What workers tell the coordinator.
#[derive(Serialize, Deserialize)]
pub enum Report {
    /// All of this worker's connections have been attempted.
    Ready,
    /// This worker has nothing more to do, though time is left.
    Finished,
    Tick(Tick),
    Done(Box<Stats>),
    Failed(String),
}

#[derive(Serialize, Deserialize)]
pub struct Tick {
    /// Which interval since the epoch has ended.
    pub index: u64,
    pub counters: Counters,
    /// Latencies of this interval alone.
    pub latency: Latency,
}

pub struct Shard {
    pub spec: Arc<RunSpec>,
    pub connector: Connector,
    pub filler: Filler,
    pub stats: RefCell<Stats>,
    pub rng: RefCell<fastrand::Rng>,
    interval_latency: RefCell<Latency>,
    signal: watch::Receiver<Signal>,
    /// The same for the hot path, which must not wait until a busy runtime gets round to a task of
    /// its own for signals: with thousands of connections ready that takes longer than a phase.
    fresh: RefCell<watch::Receiver<Signal>>,
    phase: Cell<Phase>,
    window_start: Cell<Option<(u64, Counters)>>,
    links: RefCell<Vec<Weak<Link>>>,
    connecting: Semaphore,
    not_ready: Cell<u32>,
    born_ns: u64,
    report: Box<dyn Fn(Report)>,
}

impl Shard {
    pub fn new(spec: Arc<RunSpec>, signal: watch::Receiver<Signal>, report: Box<dyn Fn(Report)>) -> Result<Rc<Shard>> {
        let phase = Cell::new(signal.borrow().phase);
        let seed = spec.seed.wrapping_add(u64::from(spec.first_connection) << 20);
        Ok(Rc::new(Shard {
            connector: Connector::new(&spec, seed)?,
            filler: Filler::new(spec.message.payload, spec.message.size.max() as usize, spec.seed),
            stats: RefCell::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed ^ 0x5EED)),
            interval_latency: RefCell::default(),
            phase,
            fresh: RefCell::new(signal.clone()),
            signal,
            window_start: Cell::new(None),
            links: RefCell::default(),
            connecting: Semaphore::new(spec.connecting_max.max(1) as usize),
            not_ready: Cell::new(spec.connections),
            born_ns: now_ns(),
            report,
            spec,
        }))
    }

    /// The numbers of this share's connections in the whole run.
    pub fn connections(&self) -> std::ops::Range<u32> {
        self.spec.first_connection..self.spec.first_connection + self.spec.connections
    }

    pub fn phase(&self) -> Phase {
        // One atomic load while nothing has changed.
        if self.fresh.borrow().has_changed().unwrap_or(false) {
            self.enter();
        }
        self.phase.get()
    }

    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Drain
    }

    pub fn report(&self, report: Report) {
        (self.report)(report);
    }

    /// Follows the coordinator's signals for as long as the worker lives.
    pub async fn follow_signals(self: Rc<Self>) {
        let mut signal = self.signal.clone();
        while signal.changed().await.is_ok() {
            signal.mark_unchanged();
            self.phase();
        }
        // The coordinator is gone: nobody wants the rest.
        self.switch(Phase::End);
    }

    fn enter(&self) {
        let phase = self.fresh.borrow_mut().borrow_and_update().phase;
        if phase != self.phase.get() {
            self.switch(phase);
        }
    }

    fn switch(&self, phase: Phase) {
        let counters = self.stats.borrow().counters;
        if phase == Phase::Measure {
            self.window_start.set(Some((now_ns(), counters)));
        }
        if phase >= Phase::Drain
            && let Some((_, start)) = self.window_start.take()
        {
            self.stats.borrow_mut().window = counters.since(&start);
        }
        if phase == Phase::End {
            for link in self.links.borrow().iter().filter_map(Weak::upgrade) {
                link.give_up();
            }
        }
        self.phase.set(phase);
    }

    pub async fn wait_for(&self, phase: Phase) {
        let mut signal = self.signal.clone();
        // An error means that the coordinator is gone, which ends every phase.
        let _ = signal.wait_for(|signal| signal.phase >= phase).await;
    }

    /// Waits for an event beyond `seen`, or for the drain. Returns the number of the last event.
    pub async fn wait_event(&self, seen: u32) -> u32 {
        let mut signal = self.signal.clone();
        match signal.wait_for(|now| now.event > seen || now.phase >= Phase::Drain).await {
            Ok(now) => now.event,
            Err(_) => seen,
        }
    }

    pub fn events(&self) -> u32 {
        self.signal.borrow().event
    }

    /// Opens a connection, at most `connecting_max` at once, and counts how that went.
    pub async fn open(self: &Rc<Self>, index: u32, suffix: &str) -> Result<Conn, Fault> {
        self.wait_turn(index).await;
        let opened = match self.connecting.acquire().await {
            Ok(_permit) => self.connector.open(index, suffix).await,
            Err(_) => Err(Fault::GivenUp),
        };
        let mut stats = self.stats.borrow_mut();
        match opened {
            Ok(opened) => {
                stats.counters.connected += 1;
                stats.counters.open += 1;
                stats.counters.open_max = stats.counters.open_max.max(stats.counters.open);
                stats.connect.record(opened.took_ns);
                drop(stats);
                self.remember(&opened.link);
                Ok(Conn::new(self.clone(), opened))
            }
            Err(fault) => {
                stats.counters.connect_failed += 1;
                stats.error(fault.kind());
                Err(fault)
            }
        }
    }

    /// Attempts to connect that have an outcome.
    pub fn attempts(&self) -> u64 {
        let counters = self.stats.borrow().counters;
        counters.connected + counters.connect_failed
    }

    /// At a limited rate, the n-th connection of this share waits for its turn.
    async fn wait_turn(&self, index: u32) {
        let Some(rate) = self.spec.connect_rate.filter(|_| self.phase() == Phase::Connect) else {
            return;
        };
        let share = f64::from(self.spec.connections) / f64::from(self.spec.connections_total);
        let turn = f64::from(index - self.spec.first_connection) / (rate * share);
        let wait_ns = (self.born_ns + (turn * 1e9) as u64).saturating_sub(now_ns());
        tokio::time::sleep(std::time::Duration::from_nanos(wait_ns)).await;
    }

    fn remember(&self, link: &Rc<Link>) {
        let mut links = self.links.borrow_mut();
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
        }
        links.push(Rc::downgrade(link));
    }

    /// One more connection has been attempted; the last one lets the run begin.
    pub fn ready(&self) {
        self.not_ready.set(self.not_ready.get().saturating_sub(1));
        if self.not_ready.get() == 0 {
            self.report(Report::Ready);
        }
    }

    /// An established connection ended against the plan.
    pub fn broken(&self, fault: &Fault) {
        let mut stats = self.stats.borrow_mut();
        stats.counters.broken += 1;
        stats.error(fault.kind());
    }

    /// A delivery that was due at `due_ns` is complete.
    pub fn record_latency(&self, due_ns: u64, now: u64) {
        let latency = now.saturating_sub(due_ns);
        self.interval_latency.borrow_mut().record(latency);
        if self.measures(due_ns) {
            self.stats.borrow_mut().latency.record(latency);
        }
    }

    /// Whether a message due then belongs to the measured window. Answers that come during the drain
    /// still count: leaving the slowest out would flatter.
    pub fn measures(&self, due_ns: u64) -> bool {
        match self.phase() {
            Phase::Connect | Phase::Warm => false,
            Phase::Measure => self.window_start.get().is_some_and(|(start, _)| due_ns >= start),
            Phase::Drain | Phase::End => true,
        }
    }

    /// Sends the time series, one tick per interval, on the coordinator's epoch.
    pub async fn tick(self: Rc<Self>, epoch_ns: u64) {
        let interval_ns = self.spec.interval_ms * 1_000_000;
        loop {
            let next = (now_ns() - epoch_ns) / interval_ns + 1;
            let wait_ns = (epoch_ns + next * interval_ns).saturating_sub(now_ns());
            tokio::time::sleep(std::time::Duration::from_nanos(wait_ns)).await;
            self.send_tick(next - 1);
        }
    }

    fn send_tick(&self, index: u64) {
        let latency = self.interval_latency.replace(Latency::default());
        let counters = self.stats.borrow().counters;
        self.report(Report::Tick(Tick { index, counters, latency }));
    }
}
