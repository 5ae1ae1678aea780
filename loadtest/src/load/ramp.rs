//! Connections added at a rate, until the target number stands or failures say that this was too much.

use std::cell::Cell;
use std::rc::Rc;

use super::conn::Lane;
use super::echo::{echo_once, finish};
use super::pacer::{Alarm, Schedule};
use super::shard::{Phase, Report, Shard};
use crate::clock::now_ns;
use crate::spec::Arrivals;

pub async fn run(shard: Rc<Shard>, rate: f64, failures_max: u32, handshake_ms_max: u64) {
    // Nothing is connected beforehand: connecting is the load.
    shard.report(Report::Ready);
    shard.wait_for(Phase::Measure).await;
    let spec = &shard.spec;
    let share = f64::from(spec.connections) / f64::from(spec.connections_total.max(1));
    let limits = Rc::new(Limits {
        // Each worker may see its share of the failures.
        failures_left: Cell::new(((f64::from(failures_max) * share).ceil() as u32).max(1)),
        handshake_ns_max: handshake_ms_max * 1_000_000,
    });
    let (tasks, error) = add(&shard, rate * share, &limits).await;
    if let Some(error) = error {
        shard.stats.borrow_mut().error(format!("timer: {error}"));
    }
    shard.report(Report::Finished);
    super::worker::join(tasks).await;
}

struct Limits {
    failures_left: Cell<u32>,
    handshake_ns_max: u64,
}

impl Limits {
    fn failed(&self) {
        self.failures_left.set(self.failures_left.get().saturating_sub(1));
    }

    fn are_reached(&self) -> bool {
        self.failures_left.get() == 0
    }
}

async fn add(
    shard: &Rc<Shard>,
    rate: f64,
    limits: &Rc<Limits>,
) -> (Vec<tokio::task::JoinHandle<()>>, Option<std::io::Error>) {
    let mut tasks = Vec::new();
    let alarm = match Alarm::new() {
        Ok(alarm) => alarm,
        Err(error) => return (tasks, Some(error)),
    };
    let mut schedule = Schedule::new(now_ns(), rate, Arrivals::Fixed, 0.0, shard.spec.seed);
    let mut indices = shard.connections();
    while !shard.is_draining() && !limits.are_reached() {
        if now_ns() < schedule.peek() {
            if let Err(error) = alarm.until(schedule.peek().min(now_ns() + 50_000_000)).await {
                return (tasks, Some(error));
            }
            continue;
        }
        let Some(index) = indices.next() else {
            break;
        };
        tasks.push(tokio_uring::spawn(newcomer(shard.clone(), index, schedule.pop(), limits.clone())));
        tokio::task::yield_now().await;
    }
    // The last attempts are still under way; their outcome belongs to the ramp.
    while shard.attempts() < tasks.len() as u64 && !shard.is_draining() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    (tasks, None)
}

/// Opens, proves with one echo that the connection works, and holds it to the end.
async fn newcomer(shard: Rc<Shard>, index: u32, due_ns: u64, limits: Rc<Limits>) {
    let Ok(mut conn) = shard.open(index, "").await else {
        limits.failed();
        return;
    };
    if limits.handshake_ns_max > 0 && now_ns() - due_ns > limits.handshake_ns_max {
        shard.stats.borrow_mut().error("handshake: slower than the limit".into());
        limits.failed();
    }
    let mut lane = Lane::new(index);
    let result = match echo_once(&mut conn, &mut lane).await {
        Ok(()) => tokio::select! {
            message = conn.next() => message.map(|message| { conn.receive(&message, &mut lane); }),
            () = shard.wait_for(Phase::Drain) => Ok(()),
        },
        broken => broken,
    };
    if result.is_err() && !shard.is_draining() {
        limits.failed();
    }
    finish(&shard, conn, lane, result).await;
}
