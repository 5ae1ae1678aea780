//! What the control plane does while the relay runs: it obeys signals, and builds the next table when the configuration,
//! discovery or a drained backend asks for it.

use std::pin::pin;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant as Clock};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{error, info, warn};

use super::discovery::Discoveries;
use super::health::{Checks, HealthChange};
use super::news::{News, tell_difference};
use super::reload::{Source, Stamp, keep_addresses, keep_what_is_fixed};
use super::signals::{self, Signal, Signals};
use super::tables::Tables;
use super::{ControlError, Phase};
use crate::config::{Config, Diagnostics};
use crate::control::logs::Level;
use crate::table::Table;
use crate::worker::{Command, ListenError, ListenerChange, Workers};

/// How long workers may take beyond what they were given. They never should: this bounds the wait for one that hangs.
const GRACE: Duration = Duration::from_secs(10);
/// How long a start or a reload waits for the first answers of discovery.
pub(super) const DISCOVERY_PATIENCE: Duration = Duration::from_secs(3);
/// How often the file is looked at, with config_watch.
const WATCH: Duration = Duration::from_secs(1);
/// What has been read for so long is not going to be: a mount that hangs, a pipe that nobody writes to.
const GIVEN_UP: Duration = Duration::from_secs(30);
/// So many threads may be left behind like that.
const LEFT_BEHIND_MAX: u32 = 4;
/// Reading the configuration takes less, or it waits for something.
const SLOW: Duration = Duration::from_secs(1);
/// How long workers may take to close a listener.
const CLOSING: Duration = Duration::from_secs(1);

pub(super) struct Supervisor<'a> {
    source: Source,
    level: Level,
    workers: &'a mut Workers,
    tables: Tables,
    /// When the workers were last given a table.
    adopted: Instant,
    discoveries: Discoveries,
    found: UnboundedReceiver<()>,
    checks: Checks,
    checked: UnboundedReceiver<HealthChange>,
    /// When the last reload was begun.
    asked: Clock,
    /// The file is being read.
    loading: Option<oneshot::Receiver<Result<Config, Diagnostics>>>,
    /// Threads that read the file and never came back.
    left_behind: u32,
    /// Somebody asked for a reload during a reload.
    again: bool,
    /// The file as it was when it was last looked at.
    stamp: Option<Stamp>,
    news: News,
    phase: Phase,
    /// When to lose patience with workers that were told to end.
    deadline: Option<Instant>,
}

/// Discovery, before there are workers.
pub(super) struct DiscoveryStart {
    pub discoveries: Discoveries,
    found: UnboundedReceiver<()>,
}

impl DiscoveryStart {
    pub(super) fn new() -> Self {
        let (tell, found) = unbounded_channel();
        DiscoveryStart { discoveries: Discoveries::new(tell), found }
    }
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        source: Source,
        level: Level,
        workers: &'a mut Workers,
        table: Arc<Table>,
        finding: DiscoveryStart,
    ) -> Self {
        let (tell, checked): (UnboundedSender<HealthChange>, _) = unbounded_channel();
        let mut checks = Checks::new(tell);
        checks.follow(&table);
        Supervisor {
            stamp: source.stamp(),
            source,
            level,
            workers,
            tables: Tables::new(table),
            adopted: Instant::now(),
            discoveries: finding.discoveries,
            found: finding.found,
            checks,
            checked,
            asked: Clock::now(),
            loading: None,
            left_behind: 0,
            again: false,
            phase: Phase::Serving,
            deadline: None,
            news: News::new(),
        }
    }

    /// Until every worker's end of `exits` is closed.
    pub(super) async fn run(
        mut self,
        mut signals: Signals,
        mut exits: UnboundedReceiver<usize>,
    ) -> Result<(), ControlError> {
        let mut result = Ok(());
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.deadline;
            tokio::select! {
                signal = signals.next() => self.apply(signal),
                loaded = async { self.loading.as_mut().expect("asked for while it loads only").await }, if self.loading.is_some() => {
                    self.loading = None;
                    match loaded {
                        Ok(Ok(config)) => self.reload(config, &mut signals).await,
                        Ok(Err(faults)) => refuse_each(&faults),
                        Err(_) => refuse(&"the thread that read it has panicked"),
                    }
                    if std::mem::take(&mut self.again) {
                        self.load();
                    }
                }
                Some(()) = self.found.recv() => self.refresh(),
                Some(change) = self.checked.recv() => {
                    if let Some(leave) = self.tables.lost(&change) {
                        self.workers.send(Command::Leave(leave));
                    }
                    self.news.checked(self.tables.newest(), &change.pool);
                }
                _ = watch.tick() => {
                    self.tables.free_older();
                    self.look_at_file();
                    self.workers.look_after();
                    self.news.tell(self.tables.newest());
                }
                exited = exits.recv() => match exited {
                    Some(worker) if self.phase == Phase::Serving => {
                        error!("worker {worker} ended unasked; its sessions are lost, those of the others are drained");
                        result = Err(ControlError::WorkerEnded(worker));
                        self.enter(Phase::Draining);
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

    fn apply(&mut self, signal: Signal) {
        let next = signals::meaning(self.phase, signal);
        match (signal, signals::describe(signal, self.phase, next)) {
            (Signal::Meaningless(_), what) => warn!("{signal}: {what}"),
            (_, what) => info!("{signal}: {what}"),
        }
        if signal == Signal::Hangup && self.phase == Phase::Serving {
            return self.load();
        }
        self.enter(next);
    }

    fn enter(&mut self, next: Phase) {
        if next == self.phase {
            return;
        }
        self.phase = next;
        if next != Phase::Serving {
            self.workers.remove_files();
        }
        self.deadline = match next {
            Phase::Serving => None,
            Phase::Draining => {
                self.workers.send(Command::Drain);
                Some(Instant::now() + self.tables.newest().config.timeouts.drain + GRACE)
            }
            Phase::Stopping => {
                self.workers.send(Command::Stop);
                Some(Instant::now() + GRACE)
            }
        };
    }

    fn look_at_file(&mut self) {
        if self.tables.newest().config.config_watch == crate::config::Watch::Off || self.phase != Phase::Serving {
            return;
        }
        // While it is being replaced it may not be there.
        let Some(stamp) = self.source.stamp() else { return };
        if self.stamp.replace(stamp) != Some(stamp) {
            info!("the configuration's file has changed: reloading");
            self.load();
        }
    }

    /// Reads the configuration again, on another thread: it may have to wait for a name, or for ever, if the file is now a
    /// pipe. Not on one of the runtime's own, whose end would wait for it too.
    fn load(&mut self) {
        if self.loading.is_some() {
            let since = self.asked.elapsed();
            if since > SLOW {
                warn!(
                    "{} is still being read, since {since:.0?}; it will be read again after that",
                    self.source.name()
                );
            }
            if since < GIVEN_UP || self.left_behind >= LEFT_BEHIND_MAX {
                self.again = true;
                return;
            }
            error!(
                "reading {} has not ended within {GIVEN_UP:?}; it is tried anew, and the thread is left behind",
                self.source.name()
            );
            self.left_behind += 1;
        }
        self.asked = Clock::now();
        self.stamp = self.source.stamp();
        let source = self.source.clone();
        let (loaded, loading) = oneshot::channel();
        // Who has ended meanwhile needs no configuration.
        match Builder::new().name("reload".into()).spawn(move || drop(loaded.send(source.load()))) {
            Ok(_) => self.loading = Some(loading),
            Err(error) => refuse(&error),
        }
    }

    /// A configuration that is good as a whole. What can still fail comes first.
    async fn reload(&mut self, mut config: Config, signals: &mut Signals) {
        if self.phase != Phase::Serving {
            return;
        }
        let asked = self.asked;
        let fixed = keep_what_is_fixed(&self.tables.newest().config, &mut config);
        let kept = keep_addresses(&self.tables.newest().config, &mut config);
        let change = match self.prepare(&config).await {
            Ok(change) => change,
            Err(error) => return refuse(&error),
        };
        let config = Arc::new(config);
        let mut answered = pin!(self.discoveries.first(&config, DISCOVERY_PATIENCE));
        loop {
            tokio::select! {
                () = &mut answered => break,
                signal = signals.next() => self.apply(signal),
            }
            if self.phase != Phase::Serving {
                return;
            }
        }
        for kept in kept {
            warn!("{kept}");
        }
        for option in fixed {
            warn!("{option} has changed; that takes effect at the next start");
        }
        self.level.set(config.log_level);
        let before = self.replace(config);
        if let Err(error) = self.workers.adopt(self.tables.newest(), change) {
            error!(%error, "a worker could not be told of the new configuration");
        }
        self.follow(&before);
        let (routes, pools) = (self.tables.newest().router.len(), self.tables.newest().pools.len());
        let backends: usize = self.tables.newest().pools.iter().map(|pool| pool.members.len()).sum();
        info!(routes, pools, backends, ms = asked.elapsed().as_millis() as u64, "reloaded");
    }

    /// Binds the listeners that are new. One that was removed a moment ago may not be closed yet by every worker, and be
    /// wanted again: that is no reason to refuse.
    async fn prepare(&self, config: &Config) -> Result<ListenerChange, ListenError> {
        loop {
            match self.workers.prepare(config) {
                Err(error) if error.is_in_use() && self.adopted.elapsed() < CLOSING => sleep(CLOSING / 100).await,
                prepared => return prepared,
            }
        }
    }

    /// Builds the next table, for the workers to be told of. Returns the one before.
    fn replace(&mut self, config: Arc<Config>) -> Arc<Table> {
        self.adopted = Instant::now();
        self.tables.replace(config, &self.discoveries.found())
    }

    /// The workers have been told of the newest table: what goes by it otherwise.
    fn follow(&mut self, before: &Table) {
        self.checks.follow(self.tables.newest());
        for leave in self.tables.drained_since(before) {
            self.workers.send(Command::Leave(leave));
        }
    }

    /// Discovery has found other backends.
    fn refresh(&mut self) {
        while self.found.try_recv().is_ok() {}
        // What the start or a reload has waited for is in the table already. Balancing would begin anew with another.
        if !self.discoveries.has_news() {
            return;
        }
        let before = self.replace(self.tables.newest().config.clone());
        if let Err(error) = self.workers.update(self.tables.newest()) {
            error!(%error, "a worker could not be told of other backends");
        }
        self.follow(&before);
        for (old, new) in before.pools.iter().zip(&self.tables.newest().pools) {
            tell_difference(old, new);
        }
    }
}

/// The old configuration stays.
fn refuse(error: &dyn std::fmt::Display) {
    error!("reload refused, nothing has changed: {error}");
}

/// A line per fault.
fn refuse_each(faults: &Diagnostics) {
    for fault in faults.to_string().lines() {
        refuse(&fault);
    }
}
