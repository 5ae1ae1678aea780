//! Fan-out (one publishes, many listen) and fan-in (many publish, one listens).
//!
//! Rooms are paths that `loadtest upstream` serves: `/pub/N` publishes, `/sub/N` listens, `/chat/N` does both.
//! A publisher's last message is an end mark, so a listener knows by itself when it has heard everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use super::conn::{Conn, Lane, Message, Sender};
use super::open_loop::record_lateness;
use super::pacer::{Alarm, Schedule};
use super::shard::{Phase, Shard};
use crate::clock::now_ns;
use crate::measure::tally::Tracker;
use crate::net::Fault;
use crate::spec::{Arrivals, Closing};

/// The due time that marks the last message of a stream.
pub const END_MARK: u64 = u64::MAX;

pub async fn fan_out(shard: Rc<Shard>, rooms: u32, rate: f64) {
    run(shard, rooms, rate, |index, rooms| index < rooms).await;
}

pub async fn fan_in(shard: Rc<Shard>, rooms: u32, rate: f64) {
    run(shard, rooms, rate, |index, rooms| index >= rooms).await;
}

struct Post {
    sender: Sender,
    lane: RefCell<Lane>,
    room: u32,
    /// The end mark is queued: nothing follows but the close frame.
    ended: Notify,
}

type Posts = Rc<RefCell<Vec<Rc<Post>>>>;

async fn run(shard: Rc<Shard>, rooms: u32, rate: f64, publishes: fn(u32, u32) -> bool) {
    let posts: Posts = Rc::default();
    let all = 0..shard.spec.connections_total;
    let publishers = all.clone().filter(|index| publishes(*index, rooms));
    let mut publishers_of: BTreeMap<u32, u32> = BTreeMap::new();
    publishers.for_each(|index| *publishers_of.entry(index % rooms).or_default() += 1);
    let tasks: Vec<_> = shard
        .connections()
        .map(|index| {
            let room = index % rooms;
            if publishes(index, rooms) {
                tokio_uring::spawn(publisher(shard.clone(), index, room, posts.clone()))
            } else {
                let ends = publishers_of.get(&room).copied().unwrap_or(0);
                tokio_uring::spawn(listener(shard.clone(), index, room, ends))
            }
        })
        .collect();
    shard.wait_for(Phase::Warm).await;
    let total: u32 = publishers_of.values().sum();
    if let Err(error) = pace(&shard, &posts, rate, total).await {
        shard.stats.borrow_mut().error(format!("timer: {error}"));
    }
    super::worker::join(tasks).await;
}

/// Lets this worker's publishers speak in turn, at their share of the rate.
async fn pace(shard: &Shard, posts: &Posts, rate: f64, publishers: u32) -> std::io::Result<()> {
    let own = posts.borrow().len();
    if own > 0 {
        let share = rate * own as f64 / f64::from(publishers.max(1));
        let seed = shard.spec.seed;
        let mut schedule = Schedule::new(now_ns(), share, Arrivals::Fixed, 0.0, seed);
        let alarm = Alarm::new()?;
        let mut turn = 0;
        while !shard.is_draining() {
            if now_ns() < schedule.peek() {
                alarm.until(schedule.peek().min(now_ns() + 50_000_000)).await?;
                continue;
            }
            let due_ns = schedule.pop();
            speak(shard, &posts.borrow(), &mut turn, due_ns);
            tokio::task::yield_now().await;
        }
    }
    for post in posts.borrow().iter() {
        publish(shard, post, END_MARK);
        post.ended.notify_one();
    }
    Ok(())
}

/// One message from the publisher whose turn it is.
fn speak(shard: &Shard, posts: &[Rc<Post>], turn: &mut usize, due_ns: u64) {
    if !posts.is_empty() {
        *turn = (*turn + 1) % posts.len();
        publish(shard, &posts[*turn], due_ns);
        record_lateness(shard, due_ns, now_ns());
    }
}

fn publish(shard: &Shard, post: &Post, due_ns: u64) {
    if post.sender.send(&mut post.lane.borrow_mut(), due_ns) {
        *shard.stats.borrow_mut().published.entry(post.room).or_default() += 1;
    }
}

async fn publisher(shard: Rc<Shard>, index: u32, room: u32, posts: Posts) {
    let opened = shard.open(index, &format!("/pub/{room}")).await;
    let Ok(mut conn) = opened else {
        shard.ready();
        return;
    };
    let lane = RefCell::new(Lane::new(index));
    let post = Rc::new(Post { sender: conn.sender.clone(), lane, room, ended: Notify::new() });
    posts.borrow_mut().push(post.clone());
    shard.ready();
    let fault = tokio::select! {
        fault = silence(&mut conn) => Some(fault),
        () = post.ended.notified() => None,
    };
    match fault {
        Some(fault) => {
            shard.broken(&fault);
            posts.borrow_mut().retain(|other| !Rc::ptr_eq(other, &post));
        }
        None => {
            conn.close(Closing::Normal).await;
        }
    }
}

/// A publisher hears nothing but control frames.
async fn silence(conn: &mut Conn) -> Fault {
    loop {
        match conn.next().await {
            Ok(message) => {
                let bytes = conn.payload(&message);
                conn.arrive(message.text, bytes);
            }
            Err(fault) => return fault,
        }
    }
}

async fn listener(shard: Rc<Shard>, index: u32, room: u32, ends: u32) {
    let opened = shard.open(index, &format!("/sub/{room}")).await;
    let Ok(mut conn) = opened else {
        shard.ready();
        return;
    };
    let mut ear = Receiver::new(shard.clone(), room, ends);
    shard.ready();
    let result = loop {
        match conn.next().await {
            Ok(message) => ear.hear(&conn, &message),
            Err(fault) => break Err(fault),
        }
        if ear.has_heard_all() {
            break Ok(());
        }
    };
    ear.finish(conn, result).await;
}

/// What one member of a room has heard.
pub struct Receiver {
    shard: Rc<Shard>,
    room: u32,
    streams: BTreeMap<u32, Tracker>,
    ends_left: u32,
    heard: u64,
}

impl Receiver {
    pub fn new(shard: Rc<Shard>, room: u32, ends: u32) -> Receiver {
        *shard.stats.borrow_mut().members.entry(room).or_default() += 1;
        Receiver { shard, room, streams: BTreeMap::new(), ends_left: ends, heard: 0 }
    }

    pub fn has_heard_all(&self) -> bool {
        self.ends_left == 0
    }

    pub fn hear(&mut self, conn: &Conn, message: &Message) {
        let now = now_ns();
        let stamp = conn.arrive(message.text, conn.payload(message));
        let mut stats = self.shard.stats.borrow_mut();
        let Some(stamp) = stamp else {
            stats.tally.altered += 1;
            self.heard += 1;
            return;
        };
        if stamp.stream >= self.shard.spec.connections_total {
            stats.tally.misdelivered += 1;
            return;
        }
        let before = stats.tally.received;
        stats.tally.arrived(self.streams.entry(stamp.stream).or_default().see(stamp.sequence));
        if stats.tally.received == before {
            return;
        }
        self.heard += 1;
        drop(stats);
        if stamp.due_ns == END_MARK {
            self.ends_left = self.ends_left.saturating_sub(1);
        } else {
            self.shard.record_latency(stamp.due_ns, now);
        }
    }

    /// A member that broke away is owed no more than it heard.
    pub async fn finish(self, conn: Conn, result: Result<(), Fault>) {
        match result {
            Ok(()) => {
                conn.close(Closing::Normal).await;
            }
            Err(Fault::GivenUp) => self.shard.broken(&Fault::GivenUp),
            Err(fault) => {
                self.shard.broken(&fault);
                let mut stats = self.shard.stats.borrow_mut();
                stats.tally.expected += self.heard;
                if let Some(members) = stats.members.get_mut(&self.room) {
                    *members -= 1;
                }
            }
        }
    }
}
