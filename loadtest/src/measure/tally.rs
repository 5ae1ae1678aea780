//! Who is owed what: sequence numbers in, and the verdict on every message out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of one arriving message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    InOrder,
    /// Ahead of others that are still missing.
    Early,
    /// One of those that were missing: it was overtaken.
    Late,
    Duplicate,
}

/// The receiving end of one stream of numbered messages.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    /// The lowest number never seen, nor skipped.
    next: u64,
    /// Skipped numbers as ranges: start to end, the end excluded.
    missing: BTreeMap<u64, u64>,
}

impl Tracker {
    pub fn see(&mut self, sequence: u64) -> Arrival {
        if sequence == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        if sequence > self.next {
            self.missing.insert(self.next, sequence);
            self.next = sequence.saturating_add(1);
            return Arrival::Early;
        }
        let found = self.missing.range(..=sequence).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = found.filter(|(_, end)| sequence < *end) else {
            return Arrival::Duplicate;
        };
        self.missing.remove(&start);
        if start < sequence {
            self.missing.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.missing.insert(sequence + 1, end);
        }
        Arrival::Late
    }

    /// The lowest number beyond everything seen.
    pub fn next(&self) -> u64 {
        self.next
    }
}

/// Sums over streams. `lost` is what remains when everything else is accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Deliveries owed for them: one each for an echo, one per member in a room.
    pub expected: u64,
    /// Different messages that arrived intact.
    pub received: u64,
    /// Arrived, but not with the content that was sent.
    pub altered: u64,
    pub duplicated: u64,
    /// Overtaken by a later message of the same stream.
    pub out_of_order: u64,
    /// Intact, but meant for another connection.
    pub misdelivered: u64,
    /// Unanswered when their connection broke: nobody promised anything about them.
    pub in_doubt: u64,
}

impl Tally {
    pub fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::InOrder | Arrival::Early => self.received += 1,
            Arrival::Late => {
                self.received += 1;
                self.out_of_order += 1;
            }
            Arrival::Duplicate => self.duplicated += 1,
        }
    }

    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received + self.altered + self.in_doubt)
    }

    /// Whether every message that was not in doubt arrived once, intact and in order.
    pub fn is_clean(&self) -> bool {
        let faults = [self.altered, self.duplicated, self.out_of_order, self.misdelivered];
        self.lost() == 0 && faults.iter().all(|count| *count == 0)
    }

    pub fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.altered += other.altered;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.misdelivered += other.misdelivered;
        self.in_doubt += other.in_doubt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, arrivals: &[u64]) -> Tally {
        let (mut tracker, mut tally) = (Tracker::default(), Tally::default());
        (tally.sent, tally.expected) = (sent, sent);
        for sequence in arrivals {
            tally.arrived(tracker.see(*sequence));
        }
        tally
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let clean = tally(5, &[0, 1, 2, 3, 4]);
        assert!(clean.is_clean());
        let lost = tally(5, &[0, 1, 4]);
        assert_eq!((lost.lost(), lost.out_of_order, lost.duplicated), (2, 0, 0));
        let swapped = tally(4, &[0, 2, 1, 3]);
        assert_eq!((swapped.lost(), swapped.out_of_order, swapped.duplicated), (0, 1, 0));
        let repeated = tally(3, &[0, 1, 1, 2, 0]);
        assert_eq!((repeated.lost(), repeated.out_of_order, repeated.duplicated), (0, 0, 2));
        assert!(![lost, swapped, repeated].iter().any(Tally::is_clean));
    }

    #[test]
    fn an_altered_message_is_not_also_a_lost_one() {
        let mut altered = tally(3, &[0, 2]);
        altered.altered = 1;
        assert_eq!(altered.lost(), 0);
        assert!(!altered.is_clean());
    }

    #[test]
    fn any_order_of_arrival_adds_up() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut order: Vec<u64> = (0..64).collect();
            rng.shuffle(&mut order);
            let seen = tally(64, &order);
            assert_eq!((seen.received, seen.lost(), seen.duplicated), (64, 0, 0));
            // Late ones are exactly those that a higher number preceded.
            let overtaken = (0..64).filter(|i| order[..*i].iter().any(|s| *s > order[*i])).count() as u64;
            assert_eq!(seen.out_of_order, overtaken);
            let twice: Vec<u64> = order.iter().chain(&order).copied().collect();
            assert_eq!(tally(64, &twice).duplicated, 64);
        }
    }
}
