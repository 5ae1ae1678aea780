//! What is measured: latencies, deliveries, and what a process costs.

pub mod latency;
pub mod procfs;
pub mod stats;
pub mod tally;
