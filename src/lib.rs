//! Ringway: a WebSocket edge relay for Linux on io_uring. This is the map; read it first.
//!
//! ```text
//!              client                                                      backend
//!                |  accept, receive, send                connect, receive, send  |
//!   io           v                                                               v
//!   -----------------------------  op: Op / Completion  ---------------------------------
//!   relay     listener -> head -> dial -> answer -> tunnel (a flow each way) -> close
//!   table                         routes, pools
//!   proto                http, upgrade   upgrade    frame                       close
//! ```
//!
//! What a request does that is answered with another status than 101: answer -> exchange -> linger. `docs/architecture.md` has
//! the long form.
//!
//! | plane | modules |
//! |---|---|
//! | data | [`worker`]: one thread per CPU, its loop around [`io`] (the kernel) and [`relay`] (the state), which reads bytes with [`proto`] |
//! | control | [`control`]: signals, reload, discovery, health checks, logs, the demo, on an async runtime of its own |
//! | both | [`table`] (routes, pools and backends: built by the control plane, used by all workers), [`config`], [`metrics`], [`op`] (the seam between `relay` and `io`) |
//!
//! Import rule (arrow = may import):
//!
//! ```text
//! main -> control, worker, config                      control -> worker, table, config, metrics
//! worker -> relay, io, engine, table, config, metrics, op
//! relay -> table, proto, op, config, metrics           io -> engine, op, config
//! table -> config, proto                               engine -> op
//! config -> proto, for what a file and the wire write alike
//! proto, op and metrics import nothing of ours. relay and io never import each other.
//! ```

// The thread of a core, and the loop in it.
pub mod worker;

// The kernel.
pub mod io;

// What the kernel and the state say to each other, and what the loop needs of a kernel.
pub mod op;

pub mod engine;

// The state of all sessions of a worker.
pub mod relay;

// Bytes.
pub mod proto;

// Routes, pools and backends, of which every worker reads the same.
pub mod table;

// Everything that may wait.
#[cfg(feature = "control")]
pub mod control;

// The options.
pub mod config;

// What is counted.
pub mod metrics;
