//! Bytes only: frames, handshakes and payloads. No sockets, no clocks.

pub mod frame;
pub mod handshake;
pub mod message;
pub mod payload;
