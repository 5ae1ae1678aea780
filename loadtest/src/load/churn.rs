//! Connections that come, exchange a few messages and go, in every way a connection can go.

use std::rc::Rc;

use super::conn::Lane;
use super::echo::{echo_once, settle};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;
use crate::spec::Closing;

pub async fn run(shard: Rc<Shard>, messages: u32, closings: Vec<Closing>) {
    let closings: Rc<[Closing]> = closings.into();
    let tasks: Vec<_> = shard
        .connections()
        .map(|index| tokio_uring::spawn(visitor(shard.clone(), index, messages, closings.clone())))
        .collect();
    // Nothing is connected beforehand: coming and going is the load.
    for _ in shard.connections() {
        shard.ready();
    }
    super::worker::join(tasks).await;
}

/// One place in the crowd: as soon as its visitor has gone, the next one comes.
async fn visitor(shard: Rc<Shard>, index: u32, messages: u32, closings: Rc<[Closing]>) {
    shard.wait_for(Phase::Warm).await;
    let mut visit = index;
    while !shard.is_draining() {
        let closing = closings[visit as usize % closings.len()];
        if !stay(&shard, visit, messages, closing).await {
            // A target that refuses is not hammered in a tight loop.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // Another source port each time, and in turn another source address.
        visit = visit.wrapping_add(shard.spec.connections_total.max(1) + 1) & 0x7FFF_FFFF;
    }
}

async fn stay(shard: &Rc<Shard>, visit: u32, messages: u32, closing: Closing) -> bool {
    let suffix = match closing {
        Closing::Server => format!("/close/1001/{messages}"),
        _ => String::new(),
    };
    let Ok(mut conn) = shard.open(visit, &suffix).await else {
        return false;
    };
    let mut lane = Lane::new(visit);
    let mut result = Ok(());
    for _ in 0..messages {
        result = echo_once(&mut conn, &mut lane).await;
        if result.is_err() {
            break;
        }
    }
    settle(shard, &mut lane, result.as_ref().err());
    if let Err(fault) = result {
        shard.broken(&fault);
        return true;
    }
    let start_ns = now_ns();
    let fault = conn.close(closing).await;
    note(shard, closing, &fault, now_ns() - start_ns);
    true
}

fn note(shard: &Shard, closing: Closing, fault: &Fault, took_ns: u64) {
    let mut stats = shard.stats.borrow_mut();
    stats.close.record(took_ns);
    *stats.closings.entry(format!("{closing:?} -> {}", fault.kind())).or_default() += 1;
    if !is_expected(closing, fault) {
        stats.error(format!("{closing:?} close ended oddly: {}", fault.kind()));
    }
}

/// How a peer may end what we began. An endpoint answers a close frame with one; what it does about a
/// connection that ends without a close frame is its own affair, as long as it ends.
fn is_expected(closing: Closing, fault: &Fault) -> bool {
    match (closing, fault) {
        (_, Fault::GivenUp) => false,
        (Closing::Normal, Fault::Closed { code, .. }) => *code == Some(1000),
        (Closing::GoingAway, Fault::Closed { code, .. }) => matches!(code, Some(1000 | 1001)),
        (Closing::Application, Fault::Closed { code, .. }) => matches!(code, Some(1000 | 4000)),
        (Closing::Empty, Fault::Closed { code, .. }) => matches!(code, None | Some(1000)),
        (Closing::Server, Fault::Closed { code, .. }) => *code == Some(1001),
        (Closing::Rst | Closing::Fin, Fault::EndWithoutClose) => true,
        (Closing::HalfClose | Closing::Cut, _) => true,
        _ => false,
    }
}
