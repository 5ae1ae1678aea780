//! Bytes: what peers may say and how Ringway says it. No connections, no time, no I/O.
#![forbid(unsafe_code)]

pub mod close;
pub mod frame;
pub mod http;
pub mod text;
pub mod upgrade;
