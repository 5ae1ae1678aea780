//! Slow readers among others: they send ahead of a reading rate that they never raise, so somebody must
//! hold back. The question is who pays: their neighbours' latency, or the target's memory.

use std::rc::Rc;

use super::conn::{Conn, Lane};
use super::echo::{finish, keep_busy};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;

#[derive(Clone, Copy)]
pub struct Slow {
    pub percent: u32,
    pub read_bytes_per_s: u64,
    pub window_bytes: u64,
}

impl Slow {
    /// Spreads the slow ones evenly over the connections.
    fn picks(self, index: u32) -> bool {
        let percent = u64::from(self.percent);
        u64::from(index) * percent % 100 < percent
    }
}

pub async fn run(shard: Rc<Shard>, slow: Slow) {
    let tasks: Vec<_> =
        shard.connections().map(|index| tokio_uring::spawn(connection(shard.clone(), index, slow))).collect();
    super::worker::join(tasks).await;
}

async fn connection(shard: Rc<Shard>, index: u32, slow: Slow) {
    let opened = shard.open(index, "").await;
    shard.ready();
    let Ok(mut conn) = opened else {
        return;
    };
    shard.wait_for(Phase::Warm).await;
    let mut lane = Lane::new(index);
    let result = if slow.picks(index) {
        lane.slow = true;
        dawdle(&shard, &mut conn, &mut lane, slow).await
    } else {
        keep_busy(&shard, &mut conn, &mut lane, 1).await
    };
    finish(&shard, conn, lane, result).await;
}

async fn dawdle(shard: &Shard, conn: &mut Conn, lane: &mut Lane, slow: Slow) -> Result<(), Fault> {
    conn.set_throttle(Some(slow.read_bytes_per_s));
    let ahead = (slow.window_bytes / shard.spec.message.size.max().max(1)).max(1);
    loop {
        while !shard.is_draining() && lane.outstanding() < ahead {
            if !conn.sender.send(lane, now_ns()) {
                break;
            }
        }
        if shard.is_draining() {
            // What is owed is now taken at full speed, so that the verdict is complete.
            conn.set_throttle(None);
            if lane.outstanding() == 0 {
                return Ok(());
            }
        }
        let message = tokio::select! {
            biased;
            message = conn.next() => message?,
            () = shard.wait_for(Phase::Drain), if !shard.is_draining() => {
                while !shard.is_draining() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
        };
        conn.receive(&message, lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_slow_connections_is_as_asked() {
        for percent in [1, 10, 33, 50, 100] {
            let slow = Slow { percent, read_bytes_per_s: 1, window_bytes: 1 };
            let picked = (0..1000).filter(|index| slow.picks(*index)).count() as u32;
            assert_eq!(picked, percent * 10);
        }
    }
}
