//! A worker's numbers: plain fields that one thread writes, sent away whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::tally::Tally;

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Handshakes that succeeded.
    pub connected: u64,
    /// Attempts that failed.
    pub connect_failed: u64,
    /// Connections open now.
    pub open: u64,
    /// The most that were open at once; summed over workers, whose peaks may differ in time.
    pub open_max: u64,
    pub sent: u64,
    pub received: u64,
    /// Payload bytes.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Connections that ended against the plan.
    pub broken: u64,
}

impl Counters {
    pub fn add(&mut self, other: &Counters) {
        self.connected += other.connected;
        self.connect_failed += other.connect_failed;
        self.open += other.open;
        self.open_max += other.open_max;
        self.sent += other.sent;
        self.received += other.received;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.broken += other.broken;
    }

    /// What happened since `earlier`; `open` and `open_max` stay as they are.
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            connected: self.connected - earlier.connected,
            connect_failed: self.connect_failed - earlier.connect_failed,
            open: self.open,
            open_max: self.open_max,
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            received_bytes: self.received_bytes - earlier.received_bytes,
            broken: self.broken - earlier.broken,
        }
    }
}

/// Everything that a worker knows at its end.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    pub counters: Counters,
    /// What fell into the measured window.
    pub window: Counters,
    pub tally: Tally,
    /// From the intended send time to the answer.
    pub latency: Latency,
    /// From the actual send time to the answer: what coordinated omission would show.
    pub service: Latency,
    /// From the first SYN to the 101.
    pub connect: Latency,
    /// From our close frame, or the end of our sending, to the end of the connection.
    pub close: Latency,
    /// From noticing a broken connection to the first answer on its successor.
    pub recovery: Latency,
    /// How late the generator itself was with what was due.
    pub lateness: Latency,
    pub errors: BTreeMap<String, u64>,
    /// Close codes that clients saw, "none" for an empty close frame.
    pub close_codes: BTreeMap<String, u64>,
    /// How each way of closing ended.
    pub closings: BTreeMap<String, u64>,
    pub pongs: u64,
    /// Rooms: messages published and members listening, multiplied only when all workers are summed.
    pub published: BTreeMap<u32, u64>,
    pub members: BTreeMap<u32, u64>,
}

impl Stats {
    pub fn error(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Stats) {
        self.counters.add(&other.counters);
        self.window.add(&other.window);
        self.tally.add(&other.tally);
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        self.connect.merge(&other.connect);
        self.close.merge(&other.close);
        self.recovery.merge(&other.recovery);
        self.lateness.merge(&other.lateness);
        self.pongs += other.pongs;
        add_maps(&mut self.errors, &other.errors);
        add_maps(&mut self.close_codes, &other.close_codes);
        add_maps(&mut self.closings, &other.closings);
        add_maps(&mut self.published, &other.published);
        add_maps(&mut self.members, &other.members);
    }

    /// Deliveries owed in rooms: each message to each member.
    pub fn settle_rooms(&mut self) {
        for (room, published) in std::mem::take(&mut self.published) {
            self.tally.expected += published * self.members.get(&room).copied().unwrap_or(0);
        }
    }
}

fn add_maps<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_owe_each_message_to_each_member_across_workers() {
        let mut publisher = Stats::default();
        publisher.published.insert(1, 10);
        publisher.members.insert(1, 2);
        let mut listener = Stats::default();
        listener.members.insert(1, 3);
        listener.members.insert(2, 7);
        publisher.merge(&listener);
        publisher.settle_rooms();
        assert_eq!(publisher.tally.expected, 50);
    }

    #[test]
    fn stats_survive_the_trip_between_processes() {
        let mut stats = Stats::default();
        stats.latency.record(5_000_000);
        stats.error("refused".into());
        stats.published.insert(3, 4);
        let text = serde_json::to_string(&stats).unwrap();
        let back: Stats = serde_json::from_str(&text).unwrap();
        assert_eq!(back.latency.count(), 1);
        assert_eq!((back.errors, back.published), (stats.errors, stats.published));
    }
}
