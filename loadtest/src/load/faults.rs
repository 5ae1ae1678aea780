//! Clients that live through a fault: they echo, lose their connection, come back, and keep account.

use std::rc::Rc;
use std::time::Duration;

use super::conn::{Conn, Lane};
use super::echo::{echo_once, keep_busy, settle};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;
use crate::spec::{Closing, FaultKind};

/// The pause between two attempts to come back, the same for everyone: a storm is meant to be one.
const RETRY: Duration = Duration::from_millis(20);

pub async fn run(shard: Rc<Shard>, fault: FaultKind) {
    let tasks: Vec<_> =
        shard.connections().map(|index| tokio_uring::spawn(client(shard.clone(), index, fault))).collect();
    super::worker::join(tasks).await;
}

/// How a session ended.
enum End {
    Drained,
    /// This client broke its own connection, as the fault asks.
    OwnDoing,
    Broken(Fault),
}

async fn client(shard: Rc<Shard>, index: u32, kind: FaultKind) {
    let mut opened = shard.open(index, "").await;
    shard.ready();
    shard.wait_for(Phase::Warm).await;
    let mut broken_at_ns = None;
    let mut seen = 0;
    loop {
        if let Ok(conn) = opened {
            let end = session(&shard, conn, index, kind, broken_at_ns, &mut seen).await;
            match end {
                End::Drained => return,
                End::OwnDoing => {}
                End::Broken(fault) => shard.broken(&fault),
            }
            broken_at_ns = Some(now_ns());
        } else {
            tokio::time::sleep(RETRY).await;
        }
        // Coming back late is coming back: the drain deadline decides.
        if shard.phase() >= Phase::End {
            shard.stats.borrow_mut().error("not recovered when the run ended".into());
            return;
        }
        opened = shard.open(index, "").await;
    }
}

async fn session(
    shard: &Rc<Shard>,
    mut conn: Conn,
    index: u32,
    kind: FaultKind,
    broken_at_ns: Option<u64>,
    seen: &mut u32,
) -> End {
    let mut lane = Lane::new(index);
    let own_turn = match kind {
        FaultKind::Storm => true,
        FaultKind::ClientRst | FaultKind::ClientCut => index.is_multiple_of(2),
        _ => false,
    };
    let end = tokio::select! {
        biased;
        event = wait_own_turn(shard, own_turn, *seen) => { *seen = event; End::OwnDoing }
        result = exchange(shard, &mut conn, &mut lane, broken_at_ns) => match result {
            Ok(()) => End::Drained,
            Err(fault) => End::Broken(fault),
        },
    };
    match end {
        End::Drained => {
            settle(shard, &mut lane, None);
            conn.close(Closing::Normal).await;
        }
        End::OwnDoing => {
            // What was under way is in doubt, as with any broken connection.
            settle(shard, &mut lane, Some(&Fault::EndWithoutClose));
            let closing = match kind {
                FaultKind::ClientCut => Closing::Cut,
                _ => Closing::Rst,
            };
            conn.close(closing).await;
        }
        End::Broken(ref fault) => settle(shard, &mut lane, Some(fault)),
    }
    end
}

async fn wait_own_turn(shard: &Shard, own_turn: bool, seen: u32) -> u32 {
    if own_turn {
        let event = shard.wait_event(seen).await;
        if event > seen && !shard.is_draining() {
            return event;
        }
    }
    std::future::pending().await
}

async fn exchange(shard: &Shard, conn: &mut Conn, lane: &mut Lane, broken_at_ns: Option<u64>) -> Result<(), Fault> {
    if let Some(broken_at_ns) = broken_at_ns {
        echo_once(conn, lane).await?;
        shard.stats.borrow_mut().recovery.record(now_ns() - broken_at_ns);
    }
    keep_busy(shard, conn, lane, 1).await
}
