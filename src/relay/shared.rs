//! What all sessions of a worker share, and the handle with which they reach it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::policy::Current;
use super::session::Session;
use super::timers::Timers;
use crate::config::{Config, Plan};
use crate::metrics::Metrics;
use crate::op::{ConnId, Group, Lease, Op, Piece};
use crate::table::state::LogThrottle;

#[derive(Debug)]
pub(super) struct Shared {
    /// The newest table.
    pub current: Current,
    pub metrics: Arc<Metrics>,
    /// The engine's, fixed at start.
    pub small_bytes: u32,
    pub timers: Timers,
    /// A backend has room again that somebody may be waiting for.
    pub room: bool,
    pub loans: Loans,
    /// Sessions that something has happened to in this batch.
    pub dirty: Vec<u32>,
    /// Empty vectors for the next sends.
    pub spare: Vec<Vec<Piece>>,
    pub draining: bool,
    /// Of bodies that are too large.
    pub too_large: LogThrottle,
    random_state: u64,
}

/// The buffers on loan from the engine.
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

/// One batch's view: the shared part, the operations asked for, and the time in milliseconds since the start.
pub(super) struct Context<'a> {
    pub shared: &'a mut Shared,
    pub ops: &'a mut Vec<Op>,
    pub now: u64,
}

/// A bulk buffer is charged as this many small ones, so that one connection cannot hold many of them.
pub(super) const BULK_WEIGHT: u16 = 8;

/// Vectors of pieces kept for reuse, and the largest kept: what a burst has grown goes back to the allocator.
const SPARE_MAX: usize = 256;
const SPARE_PIECES_MAX: usize = 64;

impl Shared {
    pub fn new(current: Current, plan: Plan, metrics: Arc<Metrics>, seed: u64) -> Self {
        let small_bytes = current.table.config.buffers.small_bytes;
        Shared {
            small_bytes: small_bytes as u32,
            current,
            timers: Timers::new(plan.sessions_max + plan.refusals_max),
            room: false,
            loans: Loans {
                small: 0,
                small_max: plan.small_count,
                bulk: 0,
                bulk_max: plan.bulk_count,
                kept_bytes: 0,
                // As much again as the small buffers are.
                kept_max: plan.small_count * small_bytes,
                starved: VecDeque::new(),
            },
            dirty: Vec::new(),
            spare: Vec::new(),
            draining: false,
            too_large: LogThrottle::default(),
            random_state: seed,
            metrics,
        }
    }

    /// The newest configuration.
    pub fn config(&self) -> &Config {
        &self.current.table.config
    }

    /// SplitMix64: for spreading load and for masks of Ringway's own Close frames, which hold nothing secret.
    pub fn random(&mut self) -> u64 {
        self.random_state = self.random_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random_state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Loans {
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

impl Context<'_> {
    pub fn lent(&mut self, lease: &Lease) {
        *self.shared.loans.count(lease.group()) += 1;
    }

    pub fn recycle(&mut self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            *self.shared.loans.count(lease.group()) -= 1;
            self.ops.push(Op::Recycle { lease });
        }
    }

    pub fn keep_spare(&mut self, pieces: Vec<Piece>) {
        debug_assert!(pieces.is_empty());
        let kept = 1..=SPARE_PIECES_MAX;
        if kept.contains(&pieces.capacity()) && self.shared.spare.len() < SPARE_MAX {
            self.shared.spare.push(pieces);
        }
    }

    /// Puts the session on the list of those to reconcile at the end of the batch.
    pub fn mark_dirty(&mut self, session: &mut Session) {
        if !session.dirty {
            session.dirty = true;
            self.shared.dirty.push(session.index());
        }
    }
}
