//! Plain per-worker counters: one writer (the worker), any reader.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One number. Only its worker writes it, so an increment needs no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one worker, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Metrics { $($(#[$doc])* pub $name: Counter,)* }

        /// The same numbers, added up over all workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Totals {
            pub fn of<'a>(workers: impl IntoIterator<Item = &'a Metrics>) -> Self {
                let mut totals = Totals::default();
                for worker in workers {
                    $(totals.$name = totals.$name.wrapping_add(worker.$name.get());)*
                }
                totals
            }
        }
    };
}

counters! {
    /// Turns of the loop. One that stands still while the worker is woken has a worker that hangs.
    turns,
    /// Sockets accepted from clients.
    accepted,
    /// Clients answered with a status other than 101 by Ringway itself.
    refused,
    /// Sessions that reached the 101.
    opened,
    /// Slots taken at this moment: handshakes, open and closing sessions.
    sessions,
    /// Sessions ended, of any kind: at rest, `accepted` equals `ended`.
    ended,
    /// Data messages from clients to backends.
    messages_in,
    /// Data messages from backends to clients.
    messages_out,
    /// Bytes from clients to backends, frame headers included.
    bytes_in,
    /// Bytes from backends to clients, frame headers included.
    bytes_out,
    /// Pings and pongs relayed, both ways.
    control_frames,
    /// Peers failed with 1002, 1008 or 1009.
    frame_faults,
    /// Connects to backends that failed or timed out.
    connect_failures,
    /// Backends ejected because of what sessions met there.
    ejections,
    /// Requests that waited for their turn at a pool.
    queued,
    /// Those of them that waited in vain.
    queue_timeouts,
    /// Receives that found no free buffer.
    buffer_starvations,
    /// Buffers on loan at this moment.
    leases,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_workers() {
        let (a, b) = (Metrics::default(), Metrics::default());
        a.accepted.add(2);
        b.accepted.add(3);
        b.leases.add(5);
        b.leases.sub(4);
        let totals = Totals::of([&a, &b]);
        assert_eq!((totals.accepted, totals.leases), (5, 1));
    }
}
