//! One core: its thread, and the loop that carries values between the kernel and the relay.
//!
//! Starting is a handshake, so that what cannot work is told before anything has begun:
//!
//! ```text
//!   starting thread                      worker thread
//!   probe, plan, bind every listener
//!   spawn ----------------------------->  pin, take its own file descriptor table, set up the ring
//!         <---------------------- ready or error
//!   close its copies of the listeners
//!   go -------------------------------->  accept
//! ```

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crate::config::{Address, Config, Plan};
use crate::io::{self, Features, ListenError, Listeners, Ring, SetupError, Waker};
use crate::metrics::{Metrics, Totals};
use crate::op::{Completion, Op};
use crate::relay::Relay;

/// What the control plane may ask of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept no more, end every session politely, then end.
    Drain,
    /// End at once.
    Stop,
}

/// All workers of the process.
pub struct Workers {
    workers: Vec<Worker>,
    /// Tells the owner about workers that have ended. It has the process's file descriptors, which workers do not.
    herald: JoinHandle<()>,
    listeners: Listeners,
    addresses: Vec<Address>,
}

/// One of them, as the control plane knows it.
struct Worker {
    thread: JoinHandle<Result<(), std::io::Error>>,
    mailbox: Sender<Command>,
    waker: Waker,
    metrics: Arc<Metrics>,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    Listen(ListenError),
    Setup(SetupError),
    Thread(std::io::Error),
}

/// How a worker ended that should not have.
#[derive(Debug)]
pub enum WorkerError {
    Panicked { worker: usize },
    Failed { worker: usize, cause: std::io::Error },
}

impl Workers {
    /// Binds every listener and starts one pinned thread per worker. On return all of them serve; on an error nothing is
    /// left behind. `exited` is called with its number when a worker has ended, of its own or by a panic.
    pub fn start(config: Arc<Config>, exited: impl Fn(usize) + Clone + Send + 'static) -> Result<Workers, StartError> {
        let features = io::probe()?;
        let plan = io::plan(&config)?;
        let cpus = config.cpus.clone().unwrap_or_else(io::cpus);
        let count = config.workers.unwrap_or(cpus.len()).max(1);
        let mut listeners = Listeners::bind(&config.listeners, &config.tcp, count)?;
        io::report(features, &plan);

        let (ended, ends) = mpsc::channel();
        let herald = Builder::new().name("herald".into()).spawn(move || ends.into_iter().for_each(exited))?;
        let mut workers = Vec::with_capacity(count);
        let mut starting = Vec::with_capacity(count);
        for index in 0..count {
            let waker = Waker::new()?;
            let (mailbox, letters) = mpsc::channel();
            let (ready, is_ready) = mpsc::channel();
            let (go, gone) = mpsc::channel();
            let metrics = Arc::new(Metrics::default());
            let core = Core {
                index,
                cpu: cpus[index % cpus.len()],
                config: config.clone(),
                plan,
                features,
                listeners: listeners.of_worker(index),
                wake: waker.descriptor(),
                metrics: metrics.clone(),
                letters,
            };
            let end = End { index, ended: ended.clone() };
            let thread = Builder::new().name(format!("worker-{index}")).spawn(move || core.run(ready, gone, end))?;
            workers.push(Worker { thread, mailbox, waker, metrics });
            starting.push((is_ready, go));
        }
        // Returning early drops every `go`, and with it ends the workers that are ready.
        for (is_ready, _) in &starting {
            is_ready.recv().map_err(|_| std::io::Error::other("a worker panicked while it started"))??;
        }
        listeners.hand_over();
        for (_, go) in starting {
            let _ = go.send(()); // a worker that has ended since is `exited`
        }
        let addresses = listeners.addresses();
        for address in &addresses {
            tracing::info!(%address, "listening");
        }
        tracing::info!(workers = count, sessions_max = plan.sessions_max, "ready");
        Ok(Workers { workers, herald, listeners, addresses })
    }

    /// Where they listen, ports resolved, in the config's order.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub fn send(&self, command: Command) {
        for worker in &self.workers {
            let _ = worker.mailbox.send(command); // one that has ended needs no command
            worker.waker.wake();
        }
    }

    pub fn metrics(&self) -> Totals {
        Totals::of(self.workers.iter().map(|worker| &*worker.metrics))
    }

    /// Waits until every worker has ended, and tells of the first that ended badly.
    pub fn join(self) -> Result<(), WorkerError> {
        let ends: Vec<_> = self.workers.into_iter().map(|worker| worker.thread.join()).collect();
        let heralded = self.herald.join();
        drop(self.listeners);
        for (worker, end) in ends.into_iter().enumerate() {
            match end {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => return Err(WorkerError::Failed { worker, cause }),
                Err(_) => return Err(WorkerError::Panicked { worker }),
            }
        }
        debug_assert!(heralded.is_ok(), "the `exited` callback panicked");
        Ok(())
    }
}

/// What a worker's thread is given.
struct Core {
    index: usize,
    cpu: usize,
    config: Arc<Config>,
    plan: Plan,
    features: Features,
    listeners: Vec<RawFd>,
    wake: RawFd,
    metrics: Arc<Metrics>,
    letters: Receiver<Command>,
}

impl Core {
    fn run(self, ready: Sender<Result<(), SetupError>>, go: Receiver<()>, end: End) -> Result<(), std::io::Error> {
        let ring = self.set_up();
        let failed = ring.is_err();
        let (ring, told) = ring.map_or_else(|error| (None, Err(error)), |ring| (Some(ring), Ok(())));
        let _ = ready.send(told);
        let (Some(mut ring), false) = (ring, failed) else { return Ok(()) };
        if go.recv().is_err() {
            return Ok(()); // another worker could not start
        }
        let _end = end;
        self.serve(&mut ring)
    }

    fn set_up(&self) -> Result<Ring, SetupError> {
        io::pin(self.cpu)?;
        let keep: Vec<RawFd> = self.listeners.iter().copied().chain([self.wake]).collect();
        let mut own = io::private_table(&keep)?;
        let wake = own.pop().expect("as many as were kept");
        Ring::new(&self.config, &self.plan, self.features, own, wake)
    }

    fn serve(&self, ring: &mut Ring) -> Result<(), std::io::Error> {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let now = Instant::now();
        let mut relay = Relay::new(self.config.clone(), self.plan, self.metrics.clone(), seed, now);
        let mut ops: Vec<Op> = Vec::with_capacity(256);
        relay.start(&mut ops);
        loop {
            ring.push(ops.drain(..)); // 1. what the relay wants, in one batch
            if relay.is_drained() {
                break;
            }
            ring.submit_and_wait(relay.poll_timeout())?; // 2. the only system call
            let now = Instant::now();
            while let Some(completion) = ring.next() {
                match completion {
                    Completion::Woken => self.obey(&mut relay, now, &mut ops),
                    completion => relay.handle(completion, now, &mut ops), // 3. what the kernel answered, a bounded batch
                }
            }
            relay.handle_timeout(now, &mut ops); // 4. deadlines last: progress above may have met them
            self.publish(ring);
        }
        self.publish(ring);
        self.account(ring.leases());
        Ok(())
    }

    fn obey(&self, relay: &mut Relay, now: Instant, ops: &mut Vec<Op>) {
        while let Ok(command) = self.letters.try_recv() {
            match command {
                Command::Drain => relay.drain(now, ops),
                Command::Stop => relay.stop(now, ops),
            }
        }
    }

    fn publish(&self, ring: &Ring) {
        let (leases, known) = (ring.leases() as u64, self.metrics.leases.get());
        self.metrics.leases.add(leases.wrapping_sub(known));
    }

    /// A worker that has ended has every buffer home, or there is a leak.
    fn account(&self, leases: usize) {
        let (opened, ended) = (self.metrics.opened.get(), self.metrics.ended.get());
        tracing::debug!(worker = self.index, opened, ended, leases, "worker stopped");
        debug_assert_eq!(leases, 0, "worker {} has lost buffers", self.index);
        if leases > 0 {
            tracing::error!(worker = self.index, leases, "buffers lost");
        }
    }
}

/// Reports the end of a worker's thread, by a panic too. Not by calling `exited` itself: that may write to a descriptor,
/// say of a runtime's wake-up, whose number means another file in the worker's own table.
struct End {
    index: usize,
    ended: Sender<usize>,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.ended.send(self.index);
    }
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        StartError::Listen(error)
    }
}

impl From<SetupError> for StartError {
    fn from(error: SetupError) -> Self {
        StartError::Setup(error)
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        StartError::Thread(error)
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(error) => error.fmt(f),
            StartError::Setup(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "cannot start a worker's thread: {error}"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Panicked { worker } => write!(f, "worker {worker} panicked"),
            WorkerError::Failed { worker, cause } => {
                write!(f, "worker {worker} stopped: io_uring_enter failed: {cause}")
            }
        }
    }
}
