//! Who waits at a pool for a backend, because all are taken: first come, first served.

use super::Relay;
use crate::op::Op;

/// How often those who wait ask whether there is one, if nothing tells them when there will be.
pub(super) const ADMIT_MS: u64 = 10;
/// So many of a queue who wait for some backends only are asked in vain before the rest of them is passed over.
const RETRYING_MAX: usize = 32;

/// Somebody in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub session: u32,
    /// It has failed at some of the pool's backends and waits for the others: that these are full says nothing to those
    /// behind it.
    pub retrying: bool,
}

impl Relay {
    /// Lets those in who wait at pools that have room again: the first of each queue, as long as that succeeds. Other workers
    /// make room too, so those who wait also ask from time to time, and as soon as a rate allows more.
    pub(super) fn admit_waiting(&mut self, ops: &mut Vec<Op>) {
        while !self.shared.current.pools_with_waiters.is_empty()
            && (std::mem::take(&mut self.shared.room) || self.admit_at <= self.now)
        {
            self.admit_at = self.now + ADMIT_MS;
            for pool in self.shared.current.pools_with_waiters.clone() {
                self.admit_from(pool, ops);
            }
            self.reconcile(ops);
        }
    }

    /// Who waits for some backends only, in vain, keeps its place, but nobody behind it.
    fn admit_from(&mut self, pool: usize, ops: &mut Vec<Op>) {
        let mut kept = 0;
        while let Some(&who) = self.shared.current.view(pool).queue.get(kept) {
            if who.retrying && kept >= RETRYING_MAX {
                kept += 1;
                continue;
            }
            let (session, mut cx) = self.enter(who.session, ops);
            let Err(wait) = session.take_turn(&mut cx) else { continue };
            self.admit_at = self.admit_at.min(self.now.saturating_add(wait));
            if !who.retrying {
                break;
            }
            kept += 1;
        }
    }
}
