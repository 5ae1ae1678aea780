//! Echo in a closed loop: each connection keeps `depth` messages under way.

use std::rc::Rc;

use super::conn::{Conn, Lane};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;
use crate::spec::Closing;

pub async fn run(shard: Rc<Shard>, depth: u32) {
    let tasks: Vec<_> =
        shard.connections().map(|index| tokio_uring::spawn(connection(shard.clone(), index, depth))).collect();
    super::worker::join(tasks).await;
}

async fn connection(shard: Rc<Shard>, index: u32, depth: u32) {
    let opened = shard.open(index, "").await;
    shard.ready();
    let Ok(mut conn) = opened else {
        return;
    };
    shard.wait_for(Phase::Warm).await;
    let mut lane = Lane::new(index);
    let result = keep_busy(&shard, &mut conn, &mut lane, depth).await;
    finish(&shard, conn, lane, result).await;
}

/// Runs until the drain has brought every outstanding answer, or the connection breaks.
pub async fn keep_busy(shard: &Shard, conn: &mut Conn, lane: &mut Lane, depth: u32) -> Result<(), Fault> {
    if !shard.is_draining() {
        for _ in 0..depth.max(1) {
            conn.sender.send(lane, now_ns());
        }
    }
    while lane.outstanding() > 0 {
        let message = conn.next().await?;
        conn.receive(&message, lane);
        while !shard.is_draining() && lane.outstanding() < u64::from(depth) {
            // False: the connection is gone, which the next read will report.
            if !conn.sender.send(lane, now_ns()) {
                break;
            }
        }
    }
    Ok(())
}

/// One message there and back.
pub async fn echo_once(conn: &mut Conn, lane: &mut Lane) -> Result<(), Fault> {
    conn.sender.send(lane, now_ns());
    while lane.outstanding() > 0 {
        let message = conn.next().await?;
        conn.receive(&message, lane);
    }
    Ok(())
}

/// Settles what the connection owes and ends it.
pub async fn finish(shard: &Shard, conn: Conn, mut lane: Lane, result: Result<(), Fault>) {
    settle(shard, &mut lane, result.as_ref().err());
    match result {
        Ok(()) => {
            conn.close(Closing::Normal).await;
        }
        Err(fault) => shard.broken(&fault),
    }
}

/// Everything sent was owed one answer. Answers beyond the last one that came are in doubt if the
/// connection broke; they are lost if it stood and nothing came.
pub fn settle(shard: &Shard, lane: &mut Lane, fault: Option<&Fault>) {
    let mut stats = shard.stats.borrow_mut();
    stats.tally.expected += lane.sent;
    match fault {
        None | Some(Fault::GivenUp) => {}
        Some(_) => stats.tally.in_doubt += lane.sent.saturating_sub(lane.tracker.next()),
    }
}
