//! One worker's side of a run: a runtime pinned to a core, its connections, the scenarios they play.
//!
//! A scenario is a file with one entry, `run(shard)`, that returns when its share of the connections is done.

pub mod chat;
pub mod churn;
pub mod conn;
pub mod echo;
pub mod faults;
pub mod idle;
pub mod open_loop;
pub mod pacer;
pub mod ramp;
pub mod rooms;
pub mod shard;
pub mod slow;
pub mod worker;
