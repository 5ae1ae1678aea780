//! State: values in, operations out.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Plan};
use crate::metrics::Metrics;
use crate::op::{Completion, Op};

pub struct Relay {}

impl Relay {
    pub fn new(_config: Arc<Config>, _plan: Plan, _metrics: Arc<Metrics>, _seed: u64, _now: Instant) -> Relay {
        Relay {}
    }
    pub fn start(&mut self, _ops: &mut Vec<Op>) {}
    pub fn handle(&mut self, _completion: Completion<'_>, _now: Instant, _ops: &mut Vec<Op>) {}
    pub fn handle_timeout(&mut self, _now: Instant, _ops: &mut Vec<Op>) {}
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn drain(&mut self, _now: Instant, _ops: &mut Vec<Op>) {}
    pub fn stop(&mut self, _now: Instant, _ops: &mut Vec<Op>) {}
    pub fn is_drained(&self) -> bool {
        true
    }
}
