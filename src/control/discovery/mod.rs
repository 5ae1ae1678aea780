//! Discovery: backends that the config does not name, from DNS and from watched files. One task per source; what they find
//! is merged on a merge, and the supervisor hears when the merged result has changed.

mod dns;
mod file;
mod merge;
mod read;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::task::{Task, random};
use crate::config::{Backend, Config, Discovery, Named};
use crate::table::Found;
pub use dns::system_nameservers;
use merge::{LeftOut, Merge};

/// DNS queries under way at a time: each holds a socket.
const QUERIES_MAX: usize = 64;
/// From one look at a watched file to the next.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 1000 });

/// Where backends of a pool come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// The target of a backend that the file names.
    Name(String),
    Dns(String),
    Srv(String),
    File(PathBuf),
}

/// Every source of the newest config.
#[derive(Debug)]
pub struct Discoveries {
    shared: Arc<Shared>,
    /// By their pool's name.
    running: HashMap<(String, Source), Running>,
}

#[derive(Debug)]
struct Shared {
    merge: Mutex<Merge>,
    found: UnboundedSender<()>,
    /// Some source has reported.
    reported: Notify,
    queries: Arc<Semaphore>,
}

#[derive(Debug)]
struct Running {
    settings: Discovery,
    nameservers: Option<Vec<SocketAddr>>,
    _task: Task,
}

impl Discoveries {
    /// Sends on `found` whenever something else has been found than before. Somebody may have taken it meanwhile.
    pub fn new(found: UnboundedSender<()>) -> Self {
        let queries = Arc::new(Semaphore::new(QUERIES_MAX));
        let shared = Shared { merge: Mutex::default(), found, reported: Notify::new(), queries };
        Discoveries { shared: Arc::new(shared), running: HashMap::new() }
    }

    /// Asks the sources of this config from now on, and no others. What those that stay have found is kept; what a replaced
    /// one has found stays until its pool's new ones have reported. Sends nothing by itself.
    ///
    /// To be called on the control plane's runtime.
    pub fn follow(&mut self, config: &Arc<Config>) {
        self.shared.merge().follow(config);
        self.shared.tell_left_out();
        let mut before = std::mem::take(&mut self.running);
        for pool in &config.pools {
            for source in sources(&pool.discovery) {
                let key = (pool.name.clone(), source);
                let running = match before.remove(&key) {
                    Some(same) if same.is_still(&key.1, &pool.discovery, config) => same,
                    other => {
                        // Ends the old task before there is another one for the same source.
                        drop(other);
                        self.start(&key, &pool.discovery, config)
                    }
                };
                self.running.insert(key, running);
            }
        }
    }

    /// What has been found until now, by pool. Equal answers give equal results.
    pub fn found(&self) -> Found {
        self.shared.merge().take_found()
    }

    /// Something else has been found since [`Discoveries::found`] was last asked.
    pub fn has_news(&self) -> bool {
        self.shared.merge().has_news()
    }

    /// Follows the config, and waits until every source has answered or failed, but no longer than `patience`: so that a
    /// relay need not start with pools that would be filled a moment later.
    pub fn first(&mut self, config: &Arc<Config>, patience: Duration) -> impl Future<Output = ()> + use<> {
        self.follow(config);
        let deadline = Instant::now() + patience;
        let shared = self.shared.clone();
        async move {
            if timeout_at(deadline, shared.complete()).await.is_err() {
                warn!("discovery has not answered within {patience:?}; going on without");
            }
        }
    }

    fn start(&self, (pool, source): &(String, Source), settings: &Discovery, config: &Config) -> Running {
        let reporter =
            Reporter { shared: self.shared.clone(), pool: pool.clone(), source: source.clone(), failing: false };
        let nameservers = config.nameservers.clone();
        let task = match source {
            Source::File(path) => Task::spawn(watch(file::Watched::new(path.clone()), reporter)),
            Source::Name(target) => {
                let Some(named) = settings.names.iter().find(|named| named.target == *target) else {
                    unreachable!("it is one of these")
                };
                Task::spawn(resolve(named.clone(), settings.clone(), reporter))
            }
            Source::Dns(name) | Source::Srv(name) => {
                let asker = dns::Asker::new(nameservers.clone(), self.shared.queries.clone());
                Task::spawn(ask(asker, name.clone(), settings.clone(), reporter))
            }
        };
        Running { settings: settings.clone(), nameservers, _task: task }
    }
}

/// In the order in which they win over each other.
fn sources(settings: &Discovery) -> Vec<Source> {
    let names = settings.names.iter().map(|named| Source::Name(named.target.clone()));
    let dns = settings.dns.clone().map(Source::Dns);
    let srv = settings.srv.clone().map(Source::Srv);
    names.chain(dns).chain(srv).chain(settings.file.clone().map(Source::File)).collect()
}

impl Running {
    /// The pool's other sources are none of its business.
    fn is_still(&self, source: &Source, settings: &Discovery, config: &Config) -> bool {
        if let Source::Name(target) = source {
            let named = |settings: &Discovery| settings.names.iter().find(|named| named.target == *target).cloned();
            return named(&self.settings).zip(named(settings)).is_some_and(|(before, now)| before.is_like(&now));
        }
        let schedule = |settings: &Discovery| (settings.interval_min, settings.interval_max, settings.jitter_percent);
        schedule(&self.settings) == schedule(settings) && self.nameservers == config.nameservers
    }
}

impl Shared {
    fn merge(&self) -> MutexGuard<'_, Merge> {
        // A panic elsewhere leaves whole answers behind.
        self.merge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every source has answered or failed.
    async fn complete(&self) {
        loop {
            // Made before the question, so that no report between the two is missed.
            let reported = self.reported.notified();
            if self.merge().all_have_reported() {
                return;
            }
            reported.await;
        }
    }

    fn tell_left_out(&self) {
        let left_out = self.merge().take_left_out();
        for LeftOut { pool, backend } in left_out {
            let reason = format!("{} is this relay itself: it listens there", backend.address);
            warn!(pool, backend = backend.name, reason, "backend left out");
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Name(target) => write!(f, "name {target}"),
            Source::Dns(name) => write!(f, "dns {name}"),
            Source::Srv(name) => write!(f, "srv {name}"),
            Source::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// The way of one source's findings to the merge and to the log.
struct Reporter {
    shared: Arc<Shared>,
    pool: String,
    source: Source,
    failing: bool,
}

impl Reporter {
    /// `backends`: what to use from now on; `None`: what it was before. `fault`: why that is not all it should be.
    fn report(&mut self, backends: Option<Vec<Backend>>, fault: Option<String>) {
        let (pool, source) = (&*self.pool, &self.source);
        match (&fault, self.failing) {
            (Some(reason), false) => warn!(pool, %source, reason, "discovery fails; the last good answer stays"),
            (Some(reason), true) if backends.as_ref().is_some_and(Vec::is_empty) => {
                warn!(pool, %source, reason, "nothing has been found for discovery.empty_after; its backends are gone");
            }
            (None, true) => info!(pool, %source, "discovery works again"),
            (Some(_), true) | (None, false) => (),
        }
        self.failing = fault.is_some();
        let changed = self.shared.merge().report(pool, source, backends);
        self.shared.tell_left_out();
        self.shared.reported.notify_waiters();
        if changed {
            // Without the supervisor there is nobody to tell, and soon no runtime.
            let _ = self.shared.found.send(());
        }
    }
}

/// Asks DNS for ever.
async fn ask(mut asker: dns::Asker, name: String, settings: Discovery, mut reporter: Reporter) {
    let mut failures: u32 = 0;
    // Since when DNS has been saying that there is nothing.
    let mut nothing_since: Option<Instant> = None;
    loop {
        let answer = match reporter.source {
            Source::Srv(_) => asker.services(&name).await,
            Source::Name(_) | Source::Dns(_) | Source::File(_) => asker.addresses(&name).await,
        };
        let wait = match answer {
            Ok(answer) => {
                failures = 0;
                nothing_since = None;
                reporter.report(Some(answer.backends), answer.fault);
                schedule::after_answer(answer.ttl, &settings, random())
            }
            Err(none) => {
                failures = failures.saturating_add(1);
                let wait = schedule::after_failure(failures, &settings, random());
                // A name may be missing for the moment of a mistaken edit, but not for ever.
                let left = match &none {
                    dns::NoAnswer::Failed(_) => None,
                    dns::NoAnswer::Nothing(_) => {
                        let since = *nothing_since.get_or_insert_with(Instant::now);
                        Some(settings.empty_after.saturating_sub(since.elapsed()))
                    }
                };
                let is_gone = left.is_some_and(|left| left.is_zero());
                reporter.report(is_gone.then(Vec::new), Some(none.reason().to_owned()));
                left.filter(|left| !left.is_zero()).map_or(wait, |left| wait.min(left))
            }
        };
        sleep(wait).await;
    }
}

/// Looks up the name of a backend, which could not be resolved, until it can. Then what it has found stays, as for all names of
/// the file, until that is read again.
async fn resolve(named: Named, settings: Discovery, mut reporter: Reporter) {
    let mut fault = named.fault.clone();
    for failures in 1.. {
        reporter.report(None, Some(fault));
        sleep(schedule::after_failure(failures, &settings, random())).await;
        let named = named.clone();
        match aside(move || named.resolve()).await {
            Ok(Ok(backends)) => return reporter.report(Some(backends), None),
            Ok(Err(reason)) | Err(reason) => fault = reason,
        }
    }
}

/// On a thread of its own: a resolver, a disk or a mount that hangs, or a file of many megabytes, holds up this source alone.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    let work = move || drop(done.send(work()));
    let started = Builder::new().name("discovery".into()).spawn(work);
    started.map_err(|error| format!("no thread for it: {error}"))?;
    result.await.map_err(|_| "its thread has panicked".into())
}

/// Looks at a file for ever.
async fn watch(mut file: file::Watched, mut reporter: Reporter) {
    loop {
        let look = move || {
            let seen = file.look();
            (file, seen)
        };
        let seen = match aside(look).await {
            Ok((back, seen)) => {
                file = back;
                seen
            }
            Err(reason) => return reporter.report(None, Some(reason)),
        };
        match seen {
            file::Seen::Same => (),
            file::Seen::Backends(backends) => reporter.report(Some(backends), None),
            file::Seen::Fault(fault) => reporter.report(None, Some(fault)),
        }
        sleep(LOOK).await;
    }
}
