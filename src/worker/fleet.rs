//! All workers of the process: started, told of what is new, watched, and joined.
//!
//! Starting is a handshake, so that what cannot work is told before anything has begun:
//!
//! ```text
//!   starting thread                      worker thread
//!   probe, plan, bind every listener
//!   spawn ----------------------------->  pin, take its own file descriptor table, set up the ring
//!         <---------------------- ready or error
//!   pass each worker its listeners
//!   go -------------------------------->  take them
//!         <------------------------ ready, accept
//! ```

#[cfg(test)]
mod tests;

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::error::{StartError, WorkerError};
use super::stall::{Look, Watchdog};
use super::{Command, Message, Worker};
use crate::config::{Address, Config, Derived, Plan};
use crate::io::{
    self, FdReceiver, FdSender, Features, ListenError, ListenerChange, Listeners, Ring, SetupError, Waker,
};
use crate::metrics::{Metrics, Totals};
use crate::table::Table;

/// All workers of the process.
pub struct Workers {
    workers: Vec<Handle>,
    /// Tells the owner about workers that have ended. It has the process's file descriptors, which workers do not.
    exit_watcher: JoinHandle<()>,
    listeners: Listeners,
}

/// One worker, as the control plane knows it.
struct Handle {
    thread: JoinHandle<Result<(), std::io::Error>>,
    mailbox: Sender<Message>,
    waker: Waker,
    fd_sender: FdSender,
    metrics: Arc<Metrics>,
    watchdog: Watchdog,
}

impl Workers {
    /// Binds every listener and starts one pinned thread per worker. On return all of them serve; on an error nothing is
    /// left behind. `features` is what [`probe`](super::probe) has found, `exited` is called with its number when a worker has ended, of its own or by a panic.
    pub fn start(
        table: &Arc<Table>,
        features: Features,
        exited: impl Fn(usize) + Clone + Send + 'static,
    ) -> Result<Workers, StartError> {
        let config = &table.config;
        let Placement { cpus, count, must_pin } = Placement::of(config);
        let plan = io::plan(config, count)?;
        for warning in io::shortfall(config, count) {
            tracing::warn!("{warning}");
        }
        let mut listeners = Listeners::new(count);
        let bound = prepare_patiently(&listeners, config)?;
        io::report(features, &plan);

        let (ended, ends) = mpsc::channel();
        let exit_watcher =
            Builder::new().name("exit-watcher".into()).spawn(move || ends.into_iter().for_each(exited))?;
        let mut launch = Launch::default();
        for index in 0..count {
            let cpu = cpus.get(index % cpus.len().max(1)).copied();
            let (metrics, ended) = (Arc::default(), ended.clone());
            launch.spawn(Core { index, cpu, must_pin, plan, features, table: table.clone(), metrics, ended })?;
        }
        listeners.change(bound);
        let workers = launch.go(|workers| adopt(workers, table, &mut listeners))?;
        let workers = Workers { workers, exit_watcher, listeners };
        for address in workers.addresses() {
            tracing::info!(%address, "listening");
        }
        tracing::info!(workers = count, sessions_max = plan.sessions_max, "ready");
        Ok(workers)
    }

    /// Binds what another config has and this one has not. Nothing has changed yet, and nothing has on an error.
    pub fn prepare(&self, config: &Config) -> Result<ListenerChange, ListenError> {
        self.listeners.prepare(&config.listeners, &config.tcp)
    }

    /// The newest table, and the listeners that were prepared for its config. They end when it has none of them.
    pub fn adopt(&mut self, table: &Arc<Table>, change: ListenerChange) -> Result<(), std::io::Error> {
        let before = self.addresses();
        self.listeners.change(change);
        let after = self.addresses();
        for address in after.iter().filter(|address| !before.contains(address)) {
            tracing::info!(%address, "listening");
        }
        for address in before.iter().filter(|address| !after.contains(address)) {
            tracing::info!(%address, "no longer listening; its sessions stay");
        }
        adopt(&self.workers, table, &mut self.listeners)
    }

    /// The newest table, whose config has the same listeners.
    pub fn update(&mut self, table: &Arc<Table>) -> Result<(), std::io::Error> {
        adopt(&self.workers, table, &mut self.listeners)
    }

    /// Where they listen, ports resolved, in the config's order.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.addresses()
    }

    /// Nobody is to connect any more: the files of unix sockets go, so that a successor can have theirs.
    pub fn remove_files(&mut self) {
        self.listeners.remove_files();
    }

    pub fn send(&self, command: Command) {
        for worker in &self.workers {
            worker.deliver(Message::Command(command.clone()));
        }
    }

    /// To be called about once a second: tells of a worker whose loop does not turn, and that it does again.
    pub fn look_after(&mut self) {
        for (index, worker) in self.workers.iter_mut().enumerate().filter(|(_, worker)| !worker.thread.is_finished()) {
            let turns = worker.metrics.turns.get();
            match worker.watchdog.look(turns) {
                Some(Look::Hangs(seconds)) => {
                    tracing::error!(
                        worker = index,
                        "its loop has not turned for {seconds} s; its sessions stand still"
                    );
                }
                Some(Look::Turns(seconds)) => tracing::info!(worker = index, "its loop turns again, after {seconds} s"),
                None => {}
            }
            // One that has nothing to do turns only if it is woken.
            worker.waker.wake();
        }
    }

    pub fn metrics(&self) -> Totals {
        Totals::of(self.workers.iter().map(|worker| &*worker.metrics))
    }

    /// Waits until every worker has ended, and tells of the first that ended badly.
    pub fn join(self) -> Result<(), WorkerError> {
        let ends: Vec<_> = self.workers.into_iter().map(|worker| worker.thread.join()).collect();
        let watched = self.exit_watcher.join();
        drop(self.listeners);
        for (worker, end) in ends.into_iter().enumerate() {
            match end {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => return Err(WorkerError::Failed { worker, cause }),
                Err(_) => return Err(WorkerError::Panicked { worker }),
            }
        }
        debug_assert!(watched.is_ok(), "the `exited` callback panicked");
        Ok(())
    }
}

/// What a process that was killed listened on may be its own for a moment longer: its ring lives until all of its operations
/// have ended.
fn prepare_patiently(listeners: &Listeners, config: &Config) -> Result<ListenerChange, ListenError> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let start = Instant::now();
    loop {
        match listeners.prepare(&config.listeners, &config.tcp) {
            Err(error) if error.is_in_use() && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(50));
            }
            prepared => return prepared,
        }
    }
}

/// What the config asks for and this machine does not allow.
pub fn shortfall(config: &Config) -> Vec<String> {
    io::shortfall(config, Placement::of(config).count)
}

/// What `auto` comes to here, but for what is not the workers'.
pub fn derived(config: &Config) -> Derived {
    let Placement { cpus, count, .. } = Placement::of(config);
    Derived { workers: count, cpus, plan: io::plan(config, count).ok(), nameservers: Vec::new() }
}

/// How many workers there are, and where they run.
struct Placement {
    /// In turn; empty: wherever the kernel likes.
    cpus: Vec<usize>,
    count: usize,
    must_pin: bool,
}

impl Placement {
    fn of(config: &Config) -> Self {
        if let Some(cpus) = &config.cpus {
            return Placement {
                count: config.workers.unwrap_or(cpus.len()).max(1),
                cpus: cpus.clone(),
                must_pin: true,
            };
        }
        let cpus = io::cpus();
        // The standard library knows the quotas of control groups, of every one above this process.
        let allowed = std::thread::available_parallelism().map_or(cpus.len(), usize::from).clamp(1, cpus.len().max(1));
        let count = config.workers.unwrap_or(allowed).max(1);
        // A quota is spent on whatever CPU: pinned, two that share one would leave another idle.
        let has_quota = allowed < cpus.len();
        if has_quota {
            tracing::info!(cpus = cpus.len(), allowed, workers = count, "a CPU quota rules; workers are not pinned");
        }
        Placement { cpus: if has_quota { Vec::new() } else { cpus }, count, must_pin: false }
    }
}

/// Tells all workers of the newest table, and passes them the listeners they have not got yet.
fn adopt(workers: &[Handle], table: &Arc<Table>, listeners: &mut Listeners) -> Result<(), std::io::Error> {
    for (index, worker) in workers.iter().enumerate() {
        let (new, descriptors): (Vec<_>, Vec<_>) = listeners.new_for(index).into_iter().unzip();
        worker.fd_sender.send(&descriptors)?;
        worker.deliver(Message::Adopt { table: table.clone(), listeners: listeners.ids(), new });
    }
    listeners.hand_over();
    Ok(())
}

impl Handle {
    fn deliver(&self, message: Message) {
        let _ = self.mailbox.send(message); // one that has ended needs none
        self.waker.wake();
    }
}

/// Workers that have been spawned and do not serve yet. Dropping it ends them.
#[derive(Default)]
struct Launch {
    workers: Vec<Handle>,
    gates: Vec<Gate>,
}

/// The starting thread's side of the handshake with one worker.
struct Gate {
    ready: Receiver<Result<(), SetupError>>,
    go: Sender<()>,
    /// Kept open until the worker has its own.
    _passed: UnixStream,
}

impl Launch {
    /// Spawns a worker, which takes its ends of the wake-up and of the passing into a descriptor table of its own.
    fn spawn(&mut self, core: Core) -> Result<(), StartError> {
        let waker = Waker::new()?;
        let (mailbox, messages) = mpsc::channel();
        let (is_ready, ready) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let metrics = core.metrics.clone();
        let (fd_sender, passed) = io::fd_channel()?;
        let wake = waker.descriptor();
        let keep = [wake, passed.as_raw_fd()];
        let thread = Builder::new().name(format!("worker-{}", core.index)).spawn(move || {
            let engine = core.set_up(keep);
            let (engine, told) = engine.map_or_else(|error| (None, Err(error)), |engine| (Some(engine), Ok(())));
            let _ = is_ready.send(told);
            match (engine, may_go.recv()) {
                (Some((engine, fds)), Ok(())) => {
                    let Core { index, table, plan, metrics, ended, .. } = core;
                    let _exit = ExitGuard { index, ended };
                    let worker = Worker { index, table, plan, metrics, engine, messages, fds };
                    worker.run(|| drop(is_ready.send(Ok(())))) // who does not wait for it needs no answer
                }
                _ => Ok(()), // it or another worker could not start
            }
        })?;
        self.workers.push(Handle { thread, mailbox, waker, fd_sender, metrics, watchdog: Watchdog::default() });
        self.gates.push(Gate { ready, go, _passed: passed });
        Ok(())
    }

    /// Waits until all are ready, and lets them go.
    fn go(
        mut self,
        all_ready: impl FnOnce(&[Handle]) -> Result<(), std::io::Error>,
    ) -> Result<Vec<Handle>, StartError> {
        for gate in &self.gates {
            gate.ready.recv().map_err(|_| std::io::Error::other("a worker panicked while it started"))??;
        }
        all_ready(&self.workers)?;
        for gate in &self.gates {
            let _ = gate.go.send(()); // a worker that has ended since is `exited`
        }
        for gate in self.gates.drain(..) {
            let _ = gate.ready.recv();
        }
        Ok(std::mem::take(&mut self.workers))
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.gates.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.thread.join();
        }
    }
}

/// What a worker's thread is given.
struct Core {
    index: usize,
    /// `None`: the kernel chooses.
    cpu: Option<usize>,
    /// The config names the CPUs: then another one is none of them.
    must_pin: bool,
    table: Arc<Table>,
    plan: Plan,
    features: Features,
    metrics: Arc<Metrics>,
    ended: Sender<usize>,
}

impl Core {
    fn set_up(&self, keep: [RawFd; 2]) -> Result<(Ring, FdReceiver), SetupError> {
        if let Some(cpu) = self.cpu {
            match io::pin(cpu) {
                Err(error) if self.must_pin => return Err(error),
                Err(error) if self.index == 0 => tracing::warn!("workers are not pinned: {error}"),
                Err(_) | Ok(()) => {}
            }
        }
        let mut own = io::unshare_fd_table(&keep)?.into_iter();
        let mut next = || own.next().expect("as many as were kept");
        let (wake, passed) = (next(), next());
        Ok((Ring::new(&self.table.config, &self.plan, self.features, wake)?, FdReceiver::new(passed)))
    }
}

/// Reports the end of a worker's thread, by a panic too. Not by calling `exited` itself: that may write to a descriptor,
/// say of a runtime's wake-up, whose number means another file in the worker's own table.
struct ExitGuard {
    index: usize,
    ended: Sender<usize>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let _ = self.ended.send(self.index);
    }
}
