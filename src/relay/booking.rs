//! What a session holds at its backend and at its pool, to be given back once.

use std::num::NonZeroU64;

use super::balance;
use crate::table::state::{BackendState, PoolState};
use crate::table::{Backend, Table};

/// A place among the sessions of a backend, and for as long as it shakes hands, among its handshakes. Exists exactly from the
/// choice of the backend to the close of the socket.
#[derive(Debug)]
#[must_use = "a booking must be released"]
pub(super) struct Booking {
    /// Under which it counts there, if it does.
    key: Option<NonZeroU64>,
    /// Plain HTTP never does.
    is_handshaking: bool,
}

impl Booking {
    pub fn new(key: Option<NonZeroU64>, is_handshaking: bool) -> Self {
        Booking { key, is_handshaking }
    }

    pub fn key(&self) -> Option<NonZeroU64> {
        self.key
    }

    /// It no longer counts among the handshakes. Returns whether it has.
    pub fn end_handshake(&mut self, backend: &BackendState) -> bool {
        let has_counted = std::mem::take(&mut self.is_handshaking);
        if has_counted {
            balance::handshake_ended(backend);
        }
        has_counted
    }

    pub fn release(mut self, backend: &Backend, pool: &PoolState, table: &Table) {
        self.end_handshake(&backend.state);
        if let Some(key) = self.key {
            pool.keys.leave(key.get(), &backend.state);
        }
        balance::release(&backend.state, pool, table);
    }
}

/// The breaker of the pool waits for this session.
#[derive(Debug)]
#[must_use = "the breaker waits for its probes"]
pub(super) struct Probe(());

impl Probe {
    pub fn new() -> Self {
        Probe(())
    }

    /// The breaker has been told how it went.
    pub fn reported(self) {}

    /// Nothing has been learnt of the pool.
    pub fn withdraw(self, pool: &PoolState) {
        pool.breaker.withdraw();
    }
}
