//! A chat room: every member speaks after a random think time and hears everyone, itself included.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::conn::{Conn, Lane};
use super::rooms::{END_MARK, Receiver};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;

pub async fn run(shard: Rc<Shard>, room_size: u32, think_ms: u64) {
    let tasks: Vec<_> = shard
        .connections()
        .map(|index| tokio_uring::spawn(member(shard.clone(), index, room_size, think_ms)))
        .collect();
    super::worker::join(tasks).await;
}

async fn member(shard: Rc<Shard>, index: u32, room_size: u32, think_ms: u64) {
    let room = index / room_size;
    let opened = shard.open(index, &format!("/chat/{room}")).await;
    let Ok(mut conn) = opened else {
        shard.ready();
        return;
    };
    let first = room * room_size;
    let members = room_size.min(shard.spec.connections_total - first);
    let mut ear = Receiver::new(shard.clone(), room, members);
    let mut mouth = Publisher { shard: shard.clone(), room, lane: Lane::new(index), think_ms };
    shard.ready();
    shard.wait_for(Phase::Warm).await;
    let result = converse(&shard, &mut conn, &mut ear, &mut mouth).await;
    ear.finish(conn, result).await;
}

struct Publisher {
    shard: Rc<Shard>,
    room: u32,
    lane: Lane,
    think_ms: u64,
}

impl Publisher {
    fn say(&mut self, conn: &Conn, due_ns: u64) {
        if conn.sender.send(&mut self.lane, due_ns) {
            *self.shard.stats.borrow_mut().published.entry(self.room).or_default() += 1;
        }
    }

    /// Exponential around the mean, as people are; cut so that no one sleeps through the run.
    fn think(&self) -> Instant {
        let mean = self.think_ms as f64;
        let pause = -mean * (1.0 - self.shard.rng.borrow_mut().f64()).ln();
        Instant::now() + Duration::from_micros((pause.min(10.0 * mean) * 1e3) as u64)
    }
}

async fn converse(shard: &Shard, conn: &mut Conn, ear: &mut Receiver, mouth: &mut Publisher) -> Result<(), Fault> {
    let mut speak_at = mouth.think();
    let mut speaking = true;
    let drain = shard.wait_for(Phase::Drain);
    tokio::pin!(drain);
    while !ear.has_heard_all() {
        tokio::select! {
            biased;
            message = conn.next() => ear.hear(conn, &message?),
            () = &mut drain, if speaking => {
                mouth.say(conn, END_MARK);
                speaking = false;
            }
            () = tokio::time::sleep_until(speak_at), if speaking => {
                mouth.say(conn, now_ns());
                speak_at = mouth.think();
            }
        }
    }
    Ok(())
}
