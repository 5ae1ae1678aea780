//! Active checks: one task per backend asks it at intervals whether it is well, and writes the verdict where all workers
//! read it.

mod probe;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::task::{Task, random};
use crate::config::{self, Check};
use crate::table::state::{BackendState, Checked, LogThrottle, PoolState};
use crate::table::{Backend, Member, Pool, Table};
use probe::Failed;
use state::{FlapThrottle, Judge};

/// Checks under way at a time: each holds a descriptor. More of them wait for their turn, and their timeout waits too.
const UNDER_WAY_MAX: usize = 512;
/// So many of them are of one pool.
const POOL_UNDER_WAY_MAX: usize = 128;

/// A backend has got another verdict.
#[derive(Clone, Debug)]
pub struct HealthChange {
    pub pool: String,
    pub state: Arc<BackendState>,
    pub checked: Checked,
}

/// Every check of the newest table.
#[derive(Debug)]
pub struct Checks {
    changed: UnboundedSender<HealthChange>,
    slots: Arc<Semaphore>,
    /// Of each pool, by the address of its state: a pool whose backends all hang leaves slots to the others.
    pool_slots: HashMap<usize, Arc<Semaphore>>,
    /// Of checks that this machine has not let happen, which may be all of them at once.
    lacks: Arc<LogThrottle>,
    /// By the address of the backend's state. A state belongs to one address in one pool, and cannot move while `Running`
    /// holds it.
    running: HashMap<usize, Running>,
}

#[derive(Debug)]
struct Running {
    subject: Arc<Subject>,
    _task: Task,
}

/// What one task checks.
#[derive(Debug)]
struct Subject {
    pool: Arc<config::PoolConfig>,
    backend: Arc<Backend>,
    pool_state: Arc<PoolState>,
    /// What the table's times count from.
    epoch: std::time::Instant,
}

impl Checks {
    /// Tells `changed` of every new verdict.
    pub fn new(changed: UnboundedSender<HealthChange>) -> Self {
        let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Checks { changed, slots, pool_slots: HashMap::new(), lacks: Arc::default(), running: HashMap::new() }
    }

    /// Checks the backends of this table from now on, and no others. Checks that stay the same go on undisturbed.
    ///
    /// To be called on the control plane's runtime.
    pub fn follow(&mut self, table: &Arc<Table>) {
        let mut before = std::mem::take(&mut self.running);
        let mut starting = Vec::new();
        for pool in table.pools.iter().filter(|pool| pool.config.health.check != Check::Off) {
            for member in &pool.members {
                let key = key(member);
                match before.remove(&key) {
                    Some(same) if same.subject.is_still(pool, member) => {
                        self.running.insert(key, same);
                    }
                    other => {
                        // Ends the old task before there is another one for the same backend.
                        drop(other);
                        starting.push((key, pool, member));
                    }
                }
            }
        }
        before.into_values().for_each(Running::stop);
        let pools: HashSet<usize> = table.pools.iter().map(|pool| Arc::as_ptr(&pool.state) as usize).collect();
        self.pool_slots.retain(|pool, _| pools.contains(pool));
        self.start(starting, table.epoch);
    }

    /// Backends that are being checked.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.running.len()
    }

    fn start(&mut self, starting: Vec<(usize, &Pool, &Member)>, epoch: std::time::Instant) {
        let count = starting.len();
        for (key, pool, member) in starting {
            let subject = Arc::new(Subject {
                pool: pool.config.clone(),
                backend: member.backend.clone(),
                pool_state: pool.state.clone(),
                epoch,
            });
            let of_pool = self.pool_slots.entry(Arc::as_ptr(&pool.state) as usize);
            let of_pool = of_pool.or_insert_with(|| Arc::new(Semaphore::new(POOL_UNDER_WAY_MAX))).clone();
            let slots = [of_pool, self.slots.clone()];
            let watch = watch(subject.clone(), count, slots, self.lacks.clone(), self.changed.clone());
            let task = Task::spawn(watch);
            self.running.insert(key, Running { subject, _task: task });
        }
    }
}

fn key(member: &Member) -> usize {
    Arc::as_ptr(&member.state) as usize
}

impl Running {
    /// Nobody checks it any more, so nobody could ever say that it is up again.
    fn stop(self) {
        let Subject { backend, pool_state, .. } = &*self.subject;
        let state = &backend.state;
        if state.checked() != Checked::Unknown {
            state.set_checked(Checked::Unknown);
            pool_state.changed();
        }
    }
}

impl Subject {
    fn is_still(&self, pool: &Pool, member: &Member) -> bool {
        self.pool.health == pool.config.health
            && Arc::ptr_eq(&self.backend, &member.backend)
            && Arc::ptr_eq(&self.pool_state, &pool.state)
    }

    fn now_ms(&self) -> u64 {
        // Tokio's clock, so that tests can turn it.
        let since = Instant::now().into_std().saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes the verdict where the workers read it.
    fn publish(&self, was: Checked, checked: Checked) {
        if was == Checked::Down && checked == Checked::Up {
            // 0 would mean that it has been there from the beginning.
            self.backend.state.up_since.store(self.now_ms().max(1), Relaxed);
        }
        if checked == Checked::Up {
            self.backend.state.was_up.store(true, Relaxed);
        }
        self.backend.state.set_checked(checked);
        self.pool_state.changed();
    }

    fn log(&self, down: bool, reason: &str, left_out: u32) {
        let (pool, backend) = (&*self.pool.name, &*self.backend.name);
        match (down, left_out) {
            (true, 0) => warn!(pool, backend, reason, "backend is down"),
            (true, _) => warn!(pool, backend, reason, left_out, "backend is down, and flaps"),
            (false, 0) => info!(pool, backend, "backend is up again"),
            (false, _) => info!(pool, backend, left_out, "backend is up again, and flaps"),
        }
    }
}

/// Checks one backend for ever.
async fn watch(
    subject: Arc<Subject>,
    starting: usize,
    [of_pool, of_all]: [Arc<Semaphore>; 2],
    lacks: Arc<LogThrottle>,
    changed: UnboundedSender<HealthChange>,
) {
    let health = &subject.pool.health;
    let mut judge = Judge::new(subject.backend.state.checked(), subject.backend.state.was_up.load(Relaxed));
    let mut flaps = FlapThrottle::new(judge.verdict() == Checked::Down);
    sleep(state::first_delay(health.interval, starting, random())).await;
    loop {
        let next = Instant::now() + state::delay(health.interval, health.jitter_percent, random());
        let result = {
            // Never closed. The pool's first: who waits for that holds none of the others'.
            let Ok(_of_pool) = of_pool.acquire().await else { return };
            let Ok(_slot) = of_all.acquire().await else { return };
            // Boxed, so that the thousands of tasks that wait need no room for what few are doing.
            Box::pin(probe::probe(&subject.backend.address, health, random())).await
        };
        if let Err(Failed::Machine(reason)) = &result {
            if let Some(left_out) = lacks.tell(subject.now_ms()) {
                let (pool, backend) = (&*subject.pool.name, &*subject.backend.name);
                warn!(
                    pool,
                    backend, reason, left_out, "a health check has no result: this machine lacks what it needs"
                );
            }
            sleep_until(next).await;
            continue;
        }
        let was = judge.verdict();
        let verdict = judge.judge(result.is_ok(), health.rise, health.fall);
        if let Some(checked) = verdict {
            subject.publish(was, checked);
            // Without the supervisor there is nobody to tell, and soon no runtime.
            let _ = changed.send(HealthChange {
                pool: subject.pool.name.clone(),
                state: subject.backend.state.clone(),
                checked,
            });
        }
        // That it is well at first is no change that anybody was to hear of.
        let (was_down, down) = (was == Checked::Down, judge.verdict() == Checked::Down);
        if let Some(left_out) = flaps.tell(down, was_down != down, subject.now_ms()) {
            let reason = match &result {
                Err(Failed::Unwell(reason) | Failed::Machine(reason)) => reason,
                Ok(()) => "checks failed",
            };
            subject.log(down, reason, left_out);
        }
        sleep_until(next).await;
    }
}
