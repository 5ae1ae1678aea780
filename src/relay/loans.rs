//! The buffers that the engine has lent: how many, who waits for one, and what has been copied out of them.

use std::collections::VecDeque;

use crate::config::Plan;
use crate::op::{ConnId, Group, Lease};

/// A bulk buffer is charged as this many small ones, so that one connection cannot hold many of them.
pub(super) const BULK_WEIGHT: u16 = 8;

#[derive(Debug)]
pub(super) struct Loans {
    small: usize,
    small_max: usize,
    bulk: usize,
    bulk_max: usize,
    /// Bytes that have been copied out of buffers, as their receivers are slow, and how many they may be.
    pub kept_bytes: usize,
    kept_max: usize,
    /// Sockets that wait for a small buffer, first come, first served.
    pub starved: VecDeque<ConnId>,
}

impl Loans {
    pub fn new(plan: &Plan, small_bytes: usize) -> Self {
        Loans {
            small: 0,
            small_max: plan.small_count,
            bulk: 0,
            bulk_max: plan.bulk_count,
            kept_bytes: 0,
            // As much again as the small buffers are.
            kept_max: plan.small_count * small_bytes,
            starved: VecDeque::new(),
        }
    }

    pub fn lent(&mut self, lease: &Lease) {
        *self.count(lease.group()) += 1;
    }

    pub fn returned(&mut self, lease: &Lease) {
        *self.count(lease.group()) -= 1;
    }

    fn count(&mut self, group: Group) -> &mut usize {
        match group {
            Group::Small => &mut self.small,
            Group::Bulk => &mut self.bulk,
        }
    }

    /// So few are left that slow readers may not take another.
    pub fn small_is_scarce(&self) -> bool {
        self.small * 4 > self.small_max * 3
    }

    pub fn small_is_out(&self) -> bool {
        self.small_left() == 0
    }

    pub fn small_left(&self) -> usize {
        self.small_max.saturating_sub(self.small)
    }

    /// So many buffers are in use that those of slow readers are wanted back.
    pub fn is_pressed(&self) -> bool {
        self.small * 4 > self.small_max || self.bulk * 4 > self.bulk_max
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
        self.bulk * 2 < self.bulk_max
    }

    pub fn total(&self) -> usize {
        self.small + self.bulk
    }
}
