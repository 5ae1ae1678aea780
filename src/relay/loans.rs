//! The buffers that the engine has lent: how many, who waits for one, and what has been copied out of them.

use std::collections::VecDeque;

use crate::config::Plan;
use crate::op::{ConnId, Group, Lease};

/// A bulk buffer is charged as this many small ones, so that one connection cannot hold many of them.
pub(super) const BULK_WEIGHT: u16 = 8;

#[derive(Debug)]
pub(super) struct Loans {
    /// By group: buffers on loan, and how many there are.
    lent: [usize; Group::COUNT],
    counts: [usize; Group::COUNT],
    /// Bytes that have been copied out of buffers, as their receivers are slow, and how many they may be.
    pub kept_bytes: usize,
    kept_max: usize,
    /// Sockets that wait for a small buffer, first come, first served.
    pub starved: VecDeque<ConnId>,
}

impl Loans {
    pub fn new(plan: &Plan, small_bytes: usize) -> Self {
        Loans {
            lent: [0; Group::COUNT],
            counts: [plan.small_count, plan.bulk_count],
            kept_bytes: 0,
            // As much again as the small buffers are.
            kept_max: plan.small_count * small_bytes,
            starved: VecDeque::new(),
        }
    }

    pub fn lent(&mut self, lease: &Lease) {
        self.lent[lease.group().index()] += 1;
    }

    pub fn returned(&mut self, lease: &Lease) {
        self.lent[lease.group().index()] -= 1;
    }

    /// More than so many quarters of the group's buffers are on loan.
    fn exceeds(&self, group: Group, quarters: usize) -> bool {
        self.lent[group.index()] * 4 > self.counts[group.index()] * quarters
    }

    /// So few are left that slow readers may not take another.
    pub fn small_is_scarce(&self) -> bool {
        self.exceeds(Group::SMALL, 3)
    }

    pub fn small_is_out(&self) -> bool {
        self.small_left() == 0
    }

    pub fn small_left(&self) -> usize {
        self.counts[Group::SMALL.index()].saturating_sub(self.lent[Group::SMALL.index()])
    }

    /// So many buffers are in use that those of slow readers are wanted back.
    pub fn is_pressed(&self) -> bool {
        self.exceeds(Group::SMALL, 1) || self.exceeds(Group::BULK, 1)
    }

    /// So many are that others have to do with fewer.
    pub fn is_short(&self) -> bool {
        self.small_is_scarce() || !self.bulk_is_plentiful()
    }

    pub fn may_keep(&self, bytes: usize) -> bool {
        self.kept_bytes + bytes <= self.kept_max
    }

    /// Somebody waits for a buffer, and there is one.
    pub fn can_rearm(&self) -> bool {
        !self.starved.is_empty() && !self.small_is_out()
    }

    pub fn bulk_is_plentiful(&self) -> bool {
        self.lent[Group::BULK.index()] * 2 < self.counts[Group::BULK.index()]
    }

    pub fn total(&self) -> usize {
        self.lent.iter().sum()
    }
}
