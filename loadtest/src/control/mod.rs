//! The coordinator: starts workers and processes, moves the run through its phases, watches, injects
//! faults, and makes one result of it all.

pub mod conduct;
pub mod crew;
pub mod environment;
pub mod preflight;
pub mod series;
pub mod upstream_process;
