//! What all sessions of a worker share, and the handle with which they reach it.

use std::sync::Arc;

use super::current::Current;
use super::loans::Loans;
use super::outbox::Spare;
use super::timers::Timers;
use crate::config::{Config, Plan};
use crate::metrics::Metrics;
use crate::op::{ConnId, Lease, Op};
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
    pub spare: Spare,
    pub draining: bool,
    /// Of bodies that are too large.
    pub too_large: LogThrottle,
    random_state: u64,
}

/// What a session works with while something happens to it: the shared part, the operations asked for in this batch, and the
/// time in milliseconds since the start.
pub(super) struct Context<'a> {
    /// The session's client; its backend is the [peer](ConnId::peer).
    pub client: ConnId,
    pub shared: &'a mut Shared,
    pub ops: &'a mut Vec<Op>,
    pub now: u64,
}

impl Shared {
    pub fn new(current: Current, plan: Plan, metrics: Arc<Metrics>, seed: u64) -> Self {
        let small_bytes = current.table.config.buffers.small_bytes;
        Shared {
            small_bytes: small_bytes as u32,
            current,
            timers: Timers::new(plan.sessions_max + plan.refusals_max),
            room: false,
            loans: Loans::new(&plan, small_bytes),
            dirty: Vec::new(),
            spare: Spare::default(),
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

impl Context<'_> {
    pub fn lent(&mut self, lease: &Lease) {
        self.shared.loans.lent(lease);
    }

    pub fn recycle(&mut self, lease: Lease) {
        self.shared.loans.returned(&lease);
        self.ops.push(Op::Recycle { lease });
    }
}
