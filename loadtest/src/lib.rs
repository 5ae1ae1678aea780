//! A load generator for WebSocket relays and backends. Read in this order:
//!
//! 1. `cli` - the command line, and from it a checked `spec::RunSpec`
//! 2. `control` - one coordinator: phases, workers and processes, faults, watching
//! 3. `load` - many workers: a runtime per core, a task per connection, one file per scenario
//! 4. `net` - one connection: connect, TLS, the two directions
//! 5. `wire` - bytes: frames, handshakes, payloads with sequence numbers and checksums
//! 6. `measure` - numbers: histograms, the tally of messages, what a process costs
//! 7. `report` - what people see
//! 8. `upstream` - the backend to test against
//!
//! It shares no code with the relay: it is the judge.

pub mod cli;
pub mod clock;
pub mod control;
pub mod load;
pub mod measure;
pub mod net;
pub mod report;
pub mod sizes;
pub mod spec;
pub mod upstream;
pub mod wire;
