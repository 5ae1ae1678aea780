//! Workers: the loop that carries values between the kernel and the relay, here; their threads, in `fleet`.
//!
//! A turn of the loop is one `io_uring_enter`. There are other system calls only
//!
//! - where a connection begins or ends: getpeername and getsockname behind an accept; socket, setsockopt and on unix sockets
//!   fcntl and connect for a connect, and again every few milliseconds while a unix socket's backlog is full; shutdown,
//!   setsockopt before a reset, close;
//! - when a batch is longer than the submission queue, or than the memory that its entries point to: a further enter for each
//!   part of it;
//! - when the kernel has no memory for a request (EAGAIN, EBUSY): a sleep of 100 µs;
//! - with a new table that has new listeners: recvmsg, and close for those that are gone;
//! - after a stop of the process: enters that do not wait, until nothing more comes.
//!
//! (The allocator, and the log's queue when it wakes its writer, may make some of their own.)

mod error;
mod fleet;
mod stall;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use crate::config::Plan;
use crate::engine::Engine;
use crate::io::FdReceiver;
use crate::metrics::Metrics;
use crate::op::{Completion, ListenerId, Op};
use crate::relay::Relay;
use crate::table::Table;

pub use crate::io::{ListenError, ListenerChange, probe};
pub use crate::relay::Leave;
pub use error::{StartError, WorkerError};
pub use fleet::{Workers, derived, shortfall};
use stall::Stops;

/// What the control plane may ask of the workers.
#[derive(Clone, Debug)]
pub enum Command {
    /// The sessions of one backend are to leave it.
    Leave(Leave),
    /// Accept no more, end every session politely, then end.
    Drain,
    /// End at once.
    Stop,
    #[cfg(test)]
    Panic,
}

/// What a worker finds in its mailbox.
enum Message {
    Command(Command),
    /// The newest table, and all listeners of its config.
    Adopt {
        table: Arc<Table>,
        listeners: Vec<ListenerId>,
        /// Those of them whose descriptors have been passed.
        new: Vec<ListenerId>,
    },
}

/// What a worker's loop works with, in its thread.
struct Worker<E> {
    index: usize,
    table: Arc<Table>,
    plan: Plan,
    metrics: Arc<Metrics>,
    engine: E,
    messages: Receiver<Message>,
    fds: FdReceiver,
}

impl<E: Engine> Worker<E> {
    /// Until the relay is drained, or the engine fails. `serving` is called once its first listeners are armed.
    fn run(self, serving: impl FnOnce()) -> Result<(), std::io::Error> {
        let Worker { index, table, plan, metrics, mut engine, messages, fds } = self;
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let mut relay = Relay::new(table, plan, metrics.clone(), seed);
        let mut ops: Vec<Op> = Vec::with_capacity(256);
        let mut now = Instant::now();
        let mut stops = Stops::new(now);
        apply(&messages, &fds, &mut relay, &mut engine, now, &mut ops);
        serving();
        loop {
            engine.push(ops.drain(..)); // 1. what the relay wants, in one batch
            if relay.is_drained() {
                break;
            }
            let due = stops.due(relay.poll_timeout(), now);
            engine.submit_and_wait(due)?; // 2. the system call of this turn
            now = Instant::now();
            let mut woken = handle(&mut engine, &mut relay, now, &mut ops).woken; // 3. what the kernel answered, a bounded batch
            if stops.has_stopped(due, now) {
                (now, woken) = catch_up(&mut engine, &mut relay, &mut ops, woken)?;
            }
            if woken {
                apply(&messages, &fds, &mut relay, &mut engine, now, &mut ops);
            }
            match stops.may_expire(now) {
                true => relay.handle_timeout(now, &mut ops), // 4. deadlines last: progress above may have met them
                false => relay.flush(now, &mut ops),
            }
            metrics.turns.add(1);
            publish(&metrics, &engine);
        }
        publish(&metrics, &engine);
        account(index, &metrics, engine.leases());
        Ok(())
    }
}

/// What one batch of completions was.
struct Batch {
    is_empty: bool,
    woken: bool,
}

fn handle(engine: &mut impl Engine, relay: &mut Relay, now: Instant, ops: &mut Vec<Op>) -> Batch {
    let mut batch = Batch { is_empty: true, woken: false };
    while let Some(completion) = engine.next() {
        batch.is_empty = false;
        batch.woken |= matches!(completion, Completion::Woken);
        relay.handle(completion, now, ops);
    }
    batch
}

/// Takes in all that has come while the worker did not run: the kernel hands it over in small batches.
fn catch_up(
    engine: &mut impl Engine,
    relay: &mut Relay,
    ops: &mut Vec<Op>,
    mut woken: bool,
) -> Result<(Instant, bool), std::io::Error> {
    const BATCHES_MAX: usize = 10_000;
    let mut now = Instant::now();
    for _ in 0..BATCHES_MAX {
        relay.flush(now, ops);
        engine.push(ops.drain(..));
        engine.submit_and_wait(Some(now))?;
        now = Instant::now();
        let batch = handle(engine, relay, now, ops);
        woken |= batch.woken;
        if batch.is_empty {
            break;
        }
    }
    Ok((now, woken))
}

fn apply(
    messages: &Receiver<Message>,
    fds: &FdReceiver,
    relay: &mut Relay,
    engine: &mut impl Engine,
    now: Instant,
    ops: &mut Vec<Op>,
) {
    while let Ok(message) = messages.try_recv() {
        match message {
            Message::Command(Command::Leave(leave)) => relay.move_away(&leave, now, ops),
            Message::Command(Command::Drain) => relay.drain(now, ops),
            Message::Command(Command::Stop) => relay.stop(now, ops),
            #[cfg(test)]
            Message::Command(Command::Panic) => panic!("as the test wants it"),
            Message::Adopt { table, listeners, new } => {
                // What the engine has been told before must be done before a slot is used again.
                engine.push(ops.drain(..));
                let slots = relay.adopt(table, &listeners, now, ops);
                install_listeners(&new, &slots, fds, engine);
            }
        }
    }
}

/// Gives the engine the listeners that are new, and closes those that the relay does not want, being about to end.
fn install_listeners(new: &[ListenerId], slots: &[(ListenerId, u16)], fds: &FdReceiver, engine: &mut impl Engine) {
    let descriptors = match fds.receive(new.len()) {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tracing::error!(%error, "a worker has not got its new listeners; the others serve them");
            return;
        }
    };
    for (id, descriptor) in new.iter().zip(descriptors) {
        if let Some((_, slot)) = slots.iter().find(|(known, _)| known == id) {
            engine.listen(*slot, descriptor);
        }
    }
}

fn publish(metrics: &Metrics, engine: &impl Engine) {
    let (leases, known) = (engine.leases() as u64, metrics.leases.get());
    metrics.leases.add(leases.wrapping_sub(known));
}

/// A worker that has ended has every buffer home, or there is a leak.
fn account(worker: usize, metrics: &Metrics, leases: usize) {
    let (opened, ended) = (metrics.opened.get(), metrics.ended.get());
    tracing::debug!(worker, opened, ended, leases, "worker stopped");
    debug_assert_eq!(leases, 0, "worker {worker} has lost buffers");
    if leases > 0 {
        tracing::error!(worker, leases, "buffers lost");
    }
}
