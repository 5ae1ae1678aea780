//! Ringway: a WebSocket edge relay for Linux on io_uring. This is the map; read it first.
//!
//! ```text
//!              client                                                      backend
//!                |  accept, receive, send                connect, receive, send  |
//!   io           v                                                               v
//!   -----------------------------  op: Op / Completion  ---------------------------------
//!   relay     listener -> handshake -> route -> balance -> pipe (each way) -> close
//!   proto          http, upgrade                            frame              close
//! ```
//!
//! | plane | modules |
//! |---|---|
//! | data | [`worker`]: one thread per CPU, its loop around [`io`] (the kernel) and [`relay`] (the state), which reads bytes with [`proto`] |
//! | control | [`control`]: signals, reload, discovery, health checks, logs, the demo, on an async runtime of its own |
//! | both | [`config`], [`metrics`], [`op`] (the seam between `relay` and `io`), [`relay::table`] (routes, pools and backends: built by the control plane, used by all workers) |
//!
//! Import rule (arrow = may import):
//!
//! ```text
//! main -> control, config                             control -> config, metrics, worker, relay::table
//! worker -> relay, io, config, metrics, op
//! relay -> proto, op, config, metrics                  io -> op, config
//! config -> proto, for what a file and the wire write alike
//! proto, op and metrics import nothing of ours. relay and io never import each other.
//! ```

pub mod config;
#[cfg(feature = "control")]
pub mod control;
pub mod io;
pub mod metrics;
pub mod op;
pub mod proto;
pub mod relay;
pub mod worker;
