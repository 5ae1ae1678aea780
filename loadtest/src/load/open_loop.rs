//! Messages due at fixed times, whatever the answers do. Latency counts from when a message was due,
//! so a target that stalls cannot hide the messages that it kept from being sent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::conn::{Conn, Lane, Sender};
use super::echo::settle;
use super::pacer::{Alarm, Schedule};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::net::Fault;
use crate::spec::{Arrivals, Closing};

/// A connection as the pacer sees it.
struct Post {
    sender: Sender,
    lane: RefCell<Lane>,
    /// Due, but held back by `depth_max`.
    waiting: RefCell<VecDeque<u64>>,
    /// Actual send times of what is unanswered, oldest first.
    sent_at: RefCell<VecDeque<(u64, u64)>>,
    depth_max: u64,
}

impl Post {
    /// A message is due: it goes out at once, or waits for its turn.
    fn due(&self, due_ns: u64) {
        let outstanding = self.lane.borrow().outstanding();
        if self.depth_max > 0 && outstanding >= self.depth_max {
            self.waiting.borrow_mut().push_back(due_ns);
        } else {
            self.send(due_ns);
        }
    }

    fn send(&self, due_ns: u64) {
        let mut lane = self.lane.borrow_mut();
        let sequence = lane.sent;
        if self.sender.send(&mut lane, due_ns) {
            self.sent_at.borrow_mut().push_back((sequence, now_ns()));
        }
    }

    fn is_idle(&self) -> bool {
        self.lane.borrow().outstanding() == 0 && self.waiting.borrow().is_empty()
    }

    /// From the actual send to now, which is what a naive measurement would report.
    fn service_ns(&self, sequence: u64, now: u64) -> Option<u64> {
        let mut sent_at = self.sent_at.borrow_mut();
        while let Some((first, at)) = sent_at.pop_front() {
            if first == sequence {
                return Some(now.saturating_sub(at));
            }
            if first > sequence {
                sent_at.push_front((first, at));
                return None;
            }
        }
        None
    }
}

impl Post {
    /// What was due and never sent waited at least until now: leaving it out would flatter.
    fn own_up(&self, shard: &Shard) {
        let now = now_ns();
        for due_ns in self.waiting.borrow_mut().drain(..) {
            shard.record_latency(due_ns, now);
            shard.stats.borrow_mut().error("due, but never sent: the target was too slow".into());
        }
    }
}

/// When messages are due, over this worker's connections.
pub enum Plan {
    /// `rate` per second over all workers, one connection after another.
    Rate { rate: f64, arrivals: Arrivals },
    /// Every connection sends `messages` at once, every period.
    Burst { messages: u32, period_ms: u64 },
}

pub async fn run(shard: Rc<Shard>, plan: Plan, depth_max: u32) {
    let posts: Rc<RefCell<Vec<Rc<Post>>>> = Rc::default();
    let tasks: Vec<_> = shard
        .connections()
        .map(|index| tokio_uring::spawn(connection(shard.clone(), index, depth_max, posts.clone())))
        .collect();
    shard.wait_for(Phase::Warm).await;
    let paced = match plan {
        Plan::Rate { rate, arrivals } => pace(&shard, &posts, rate, arrivals).await,
        Plan::Burst { messages, period_ms } => burst(&shard, &posts, messages, period_ms).await,
    };
    if let Err(error) = paced {
        shard.stats.borrow_mut().error(format!("timer: {error}"));
    }
    super::worker::join(tasks).await;
}

async fn pace(shard: &Shard, posts: &RefCell<Vec<Rc<Post>>>, rate: f64, arrivals: Arrivals) -> std::io::Result<()> {
    let spec = &shard.spec;
    let share = f64::from(spec.connections) / f64::from(spec.connections_total.max(1));
    let phase = f64::from(spec.first_connection) / f64::from(spec.connections_total.max(1));
    let seed = spec.seed ^ u64::from(spec.first_connection);
    let mut schedule = Schedule::new(now_ns(), rate * share, arrivals, phase, seed);
    let alarm = Alarm::new()?;
    let mut turn = 0;
    while !shard.is_draining() {
        // Long gaps are slept in parts, so that the end of the run is noticed.
        alarm.until(schedule.peek().min(now_ns() + 50_000_000)).await?;
        let now = now_ns();
        while schedule.peek() <= now && !shard.is_draining() {
            let due_ns = schedule.pop();
            let posts = posts.borrow();
            if posts.is_empty() {
                continue;
            }
            turn = (turn + 1) % posts.len();
            posts[turn].due(due_ns);
            record_lateness(shard, due_ns, now_ns());
        }
        // Answers are read between two batches, even when the pacer is behind.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn burst(shard: &Shard, posts: &RefCell<Vec<Rc<Post>>>, messages: u32, period_ms: u64) -> std::io::Result<()> {
    let mut schedule = Schedule::new(now_ns(), 1e3 / period_ms as f64, Arrivals::Fixed, 0.0, shard.spec.seed);
    let alarm = Alarm::new()?;
    while !shard.is_draining() {
        if now_ns() < schedule.peek() {
            alarm.until(schedule.peek().min(now_ns() + 50_000_000)).await?;
            continue;
        }
        let due_ns = schedule.pop();
        record_lateness(shard, due_ns, now_ns());
        for post in posts.borrow().iter() {
            for _ in 0..messages {
                post.due(due_ns);
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

pub fn record_lateness(shard: &Shard, due_ns: u64, now: u64) {
    if shard.measures(due_ns) {
        shard.stats.borrow_mut().lateness.record(now.saturating_sub(due_ns));
    }
}

async fn connection(shard: Rc<Shard>, index: u32, depth_max: u32, posts: Rc<RefCell<Vec<Rc<Post>>>>) {
    let opened = shard.open(index, "").await;
    let Ok(mut conn) = opened else {
        shard.ready();
        return;
    };
    let post = Rc::new(Post {
        sender: conn.sender.clone(),
        lane: RefCell::new(Lane::new(index)),
        waiting: RefCell::default(),
        sent_at: RefCell::default(),
        depth_max: u64::from(depth_max),
    });
    posts.borrow_mut().push(post.clone());
    shard.ready();
    let result = answer(&shard, &mut conn, &post).await;
    posts.borrow_mut().retain(|other| !Rc::ptr_eq(other, &post));
    settle(&shard, &mut post.lane.borrow_mut(), result.as_ref().err());
    post.own_up(&shard);
    match result {
        Ok(()) => {
            conn.close(Closing::Normal).await;
        }
        Err(fault) => shard.broken(&fault),
    }
}

/// Takes answers until the drain has brought the last one.
async fn answer(shard: &Shard, conn: &mut Conn, post: &Post) -> Result<(), Fault> {
    let drain = shard.wait_for(Phase::Drain);
    tokio::pin!(drain);
    let mut drained = false;
    loop {
        let message = tokio::select! {
            biased;
            message = conn.next() => message?,
            () = &mut drain, if !drained => {
                drained = true;
                // Signals reach the phase cell and this task in no fixed order.
                while !shard.is_draining() {
                    tokio::task::yield_now().await;
                }
                if post.is_idle() {
                    return Ok(());
                }
                continue;
            }
        };
        let stamp = conn.receive(&message, &mut post.lane.borrow_mut());
        if let Some(stamp) = stamp
            && let Some(service_ns) = post.service_ns(stamp.sequence, now_ns())
            && shard.measures(stamp.due_ns)
        {
            shard.stats.borrow_mut().service.record(service_ns);
        }
        let next = post.waiting.borrow_mut().pop_front();
        if let Some(due_ns) = next {
            post.send(due_ns);
        }
        if shard.is_draining() && post.is_idle() {
            return Ok(());
        }
    }
}
