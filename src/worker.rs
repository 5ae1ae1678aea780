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
use crate::relay::table::Table;

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
        let mut launch = Launch::default();
        for index in 0..count {
            let cpu = cpus[index % cpus.len()];
            let (metrics, ended) = (Arc::default(), ended.clone());
            let core = Core { index, cpu, plan, features, config: config.clone(), metrics, ended };
            launch.spawn(core, listeners.of_worker(index))?;
        }
        let workers = launch.go(|| listeners.hand_over())?;
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

/// Workers that have been spawned and do not serve yet. Dropping it ends them.
#[derive(Default)]
struct Launch {
    workers: Vec<Worker>,
    gates: Vec<Gate>,
}

/// The starting thread's side of the handshake with one worker.
struct Gate {
    ready: Receiver<Result<(), SetupError>>,
    go: Sender<()>,
}

impl Launch {
    /// Spawns a worker, which takes copies of `listeners` into a descriptor table of its own.
    fn spawn(&mut self, core: Core, listeners: Vec<RawFd>) -> Result<(), StartError> {
        let waker = Waker::new()?;
        let (mailbox, letters) = mpsc::channel();
        let (is_ready, ready) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let metrics = core.metrics.clone();
        let wake = waker.descriptor();
        let thread = Builder::new().name(format!("worker-{}", core.index)).spawn(move || {
            let ring = core.set_up(listeners, wake);
            let (ring, told) = ring.map_or_else(|error| (None, Err(error)), |ring| (Some(ring), Ok(())));
            let _ = is_ready.send(told);
            match (ring, may_go.recv()) {
                (Some(ring), Ok(())) => core.serve(ring, &letters),
                _ => Ok(()), // it or another worker could not start
            }
        })?;
        self.workers.push(Worker { thread, mailbox, waker, metrics });
        self.gates.push(Gate { ready, go });
        Ok(())
    }

    /// Waits until all are ready, and lets them go.
    fn go(mut self, all_ready: impl FnOnce()) -> Result<Vec<Worker>, StartError> {
        for gate in &self.gates {
            gate.ready.recv().map_err(|_| std::io::Error::other("a worker panicked while it started"))??;
        }
        all_ready();
        for gate in self.gates.drain(..) {
            let _ = gate.go.send(()); // a worker that has ended since is `exited`
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
    cpu: usize,
    config: Arc<Config>,
    plan: Plan,
    features: Features,
    metrics: Arc<Metrics>,
    ended: Sender<usize>,
}

impl Core {
    fn set_up(&self, listeners: Vec<RawFd>, wake: RawFd) -> Result<Ring, SetupError> {
        io::pin(self.cpu)?;
        let mut keep = listeners;
        keep.push(wake);
        let mut own = io::private_table(&keep)?;
        let wake = own.pop().expect("as many as were kept");
        Ring::new(&self.config, &self.plan, self.features, own, wake)
    }

    fn serve(&self, mut ring: Ring, letters: &Receiver<Command>) -> Result<(), std::io::Error> {
        let _end = End { index: self.index, ended: self.ended.clone() };
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let now = Instant::now();
        let table = Table::first(self.config.clone(), now);
        let mut relay = Relay::new(table, self.plan, self.metrics.clone(), seed, now);
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
                    Completion::Woken => self.obey(letters, &mut relay, now, &mut ops),
                    completion => relay.handle(completion, now, &mut ops), // 3. what the kernel answered, a bounded batch
                }
            }
            relay.handle_timeout(now, &mut ops); // 4. deadlines last: progress above may have met them
            self.publish(&ring);
        }
        self.publish(&ring);
        self.account(ring.leases());
        Ok(())
    }

    fn obey(&self, letters: &Receiver<Command>, relay: &mut Relay, now: Instant, ops: &mut Vec<Op>) {
        while let Ok(command) = letters.try_recv() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pool;
    use std::net::TcpStream;
    use std::sync::Mutex;

    fn config(listener: &str) -> Config {
        let backend: Address = "127.0.0.1:9".parse().unwrap();
        let pool = Pool { backends: vec![backend.into()], ..Pool::named("echo") };
        let listener: Address = listener.parse().unwrap();
        let mut config = Config { pools: vec![pool], listeners: vec![listener.into()], ..Config::default() };
        config.workers = Some(2);
        config
    }

    /// The workers, or `None` (and why) where io_uring is forbidden.
    fn start(config: Config) -> Option<Result<Workers, StartError>> {
        match io::probe() {
            Ok(_) => Some(Workers::start(Arc::new(config), |_| {})),
            Err(error) => {
                println!("SKIPPED: {error}");
                None
            }
        }
    }

    fn port(workers: &Workers) -> std::net::SocketAddr {
        let Address::Inet(address) = &workers.addresses()[0] else { panic!() };
        *address
    }

    #[test]
    fn workers_listen_and_stop_when_told() {
        for command in [Command::Stop, Command::Drain] {
            let exited = Arc::new(Mutex::new(Vec::new()));
            let tell = exited.clone();
            let Some(Ok(other)) = start(config("127.0.0.1:0")) else { return };
            stop(other);
            let exit = move |worker| tell.lock().unwrap().push(worker);
            let workers = Workers::start(Arc::new(config("127.0.0.1:0")), exit).unwrap();
            let address = port(&workers);
            assert_ne!(address.port(), 0);
            drop(TcpStream::connect(address).unwrap());
            workers.send(command);
            workers.join().unwrap();
            exited.lock().unwrap().sort_unstable();
            assert_eq!(*exited.lock().unwrap(), [0, 1]);
            assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
        }
    }

    fn stop(workers: Workers) {
        workers.send(Command::Stop);
        workers.join().unwrap();
    }

    /// Even by another Ringway, which would share the port if it were not asked first.
    #[test]
    fn an_address_in_use_is_told_and_leaves_nothing_behind() {
        let Some(first) = start(config("127.0.0.1:0")) else { return };
        let first = first.unwrap();
        let address = port(&first);
        let mut second = config("127.0.0.1:0");
        second.listeners.push(Address::Inet(address).into());
        let Some(Err(error)) = start(second) else { panic!("both listen on {address}") };
        let told = error.to_string();
        assert!(told.contains(&format!("cannot listen on {address}")) && told.contains("ss -ltnp"), "{told}");
        stop(first);
        stop(start(config(&address.to_string())).unwrap().unwrap());
    }

    #[test]
    fn a_cpu_that_is_not_there_is_told_and_leaves_nothing_behind() {
        let mut wrong = config("127.0.0.1:0");
        wrong.cpus = Some(vec![io::cpus()[0], 1000]);
        let Some(result) = start(wrong) else { return };
        let told = result.err().expect("CPU 1000 was found").to_string();
        assert!(told.contains("CPU 1000"), "{told}");
    }

    #[test]
    fn unix_sockets_are_shared_and_removed() {
        let path = std::env::temp_dir().join(format!("ringway-worker-{}.sock", std::process::id()));
        let Some(workers) = start(config(&format!("unix:{}", path.display()))) else { return };
        let workers = workers.unwrap();
        drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
        stop(workers);
        assert!(!path.exists());
    }
}
