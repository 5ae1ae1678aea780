//! Connections that are held and do nothing, then all wake at once.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::conn::{Conn, Lane};
use super::echo::{echo_once, finish};
use super::shard::{Phase, Shard};
use crate::net::Fault;

pub async fn run(shard: Rc<Shard>, ping_ms: u64) {
    let tasks: Vec<_> =
        shard.connections().map(|index| tokio_uring::spawn(sleeper(shard.clone(), index, ping_ms))).collect();
    super::worker::join(tasks).await;
}

async fn sleeper(shard: Rc<Shard>, index: u32, ping_ms: u64) {
    let opened = shard.open(index, "").await;
    shard.ready();
    let Ok(mut conn) = opened else {
        return;
    };
    let mut lane = Lane::new(index);
    shard.wait_for(Phase::Measure).await;
    let result = sleep_and_wake(&shard, &mut conn, &mut lane, ping_ms).await;
    finish(&shard, conn, lane, result).await;
}

async fn sleep_and_wake(shard: &Shard, conn: &mut Conn, lane: &mut Lane, ping_ms: u64) -> Result<(), Fault> {
    {
        let woken = shard.wait_event(0);
        tokio::pin!(woken);
        let mut ping_at = Instant::now() + Duration::from_millis(ping_ms.max(1));
        loop {
            tokio::select! {
                biased;
                _ = &mut woken => break,
                // Only pings and the end can come: nothing was asked.
                message = conn.next() => { conn.receive(&message?, lane); }
                () = tokio::time::sleep_until(ping_at), if ping_ms > 0 => {
                    conn.ping();
                    ping_at += Duration::from_millis(ping_ms);
                }
            }
        }
    }
    if shard.is_draining() {
        return Ok(());
    }
    echo_once(conn, lane).await
}
