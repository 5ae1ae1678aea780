//! A run, checked and complete: what the command line became, what a worker process is told,
//! and what `result.json` repeats.

use std::path::PathBuf;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sizes::Sizes;
use crate::wire::payload::Kind;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunSpec {
    /// The scenario's name on the command line.
    pub name: String,
    pub scenario: Scenario,
    pub target: TargetSpec,
    pub message: MessageSpec,
    /// Connections of the whole run.
    pub connections_total: u32,
    /// The first connection of this share; shares are contiguous.
    pub first_connection: u32,
    /// Connections of this share (the run, a process or a worker).
    pub connections: u32,
    /// Threads of each process.
    pub workers: u32,
    /// CPUs that workers are pinned to, in turn; empty: not pinned.
    pub cpus: Vec<u32>,
    /// New connections per second over the whole run; none: as fast as they come.
    pub connect_rate: Option<f64>,
    /// Handshakes in progress at once, per worker.
    pub connecting_max: u32,
    pub warmup_ms: u64,
    pub duration_ms: u64,
    /// How long to wait for outstanding answers at the end.
    pub drain_ms: u64,
    /// Spacing of the time series.
    pub interval_ms: u64,
    pub seed: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TargetSpec {
    pub url: String,
    pub subprotocols: Vec<String>,
    pub headers: Vec<(String, String)>,
    pub cookies: Vec<String>,
    pub ca: Option<PathBuf>,
    pub insecure: bool,
    pub connect_timeout_ms: u64,
    /// Loopback source addresses to use in turn; none: as many as the connections need.
    pub source_addresses: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageSpec {
    pub size: Sizes,
    pub payload: Kind,
    pub mask: MaskKind,
    /// Frames per message.
    pub fragments: u32,
    /// A ping behind the first fragment of each message.
    pub ping_between: bool,
    /// Writes to the socket are cut to this many bytes.
    pub write_bytes_max: Option<u64>,
    /// A longer answer is a fault.
    pub answer_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MaskKind {
    /// A new key for each frame, as the RFC demands
    Random,
    /// All-zero keys: legal on the wire, and free to apply
    Zero,
    /// One key throughout
    Fixed,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scenario {
    /// Each connection keeps `depth` messages under way.
    Closed {
        depth: u32,
    },
    /// Messages are due at fixed times, whatever the answers do.
    Open {
        /// Messages per second over the whole run.
        rate: f64,
        arrivals: Arrivals,
        /// Unanswered messages per connection beyond which sending waits; 0: never.
        depth_max: u32,
    },
    Burst {
        /// Messages per connection and burst.
        messages: u32,
        period_ms: u64,
    },
    Ramp {
        /// New connections per second.
        rate: f64,
        /// Failures that end the ramp.
        failures_max: u32,
        /// A handshake slower than this counts as a failure; 0: none does.
        handshake_ms_max: u64,
    },
    FanOut {
        rooms: u32,
        rate: f64,
    },
    FanIn {
        rooms: u32,
        rate: f64,
    },
    Chat {
        room_size: u32,
        think_ms: u64,
    },
    Idle {
        ping_ms: u64,
    },
    Churn {
        messages: u32,
        closings: Vec<Closing>,
    },
    SlowReader {
        /// Slow connections in percent.
        slow_percent: u32,
        /// What a slow connection reads per second.
        read_bytes_per_s: u64,
        /// What a slow connection sends ahead of its reading.
        window_bytes: u64,
    },
    Faults {
        fault: FaultKind,
        outage_ms: u64,
        times: u32,
    },
}

impl Scenario {
    /// Messages, not connecting or waiting, are what the measured window is about.
    pub fn is_steady(&self) -> bool {
        !matches!(self, Scenario::Churn { .. } | Scenario::Ramp { .. } | Scenario::Idle { .. })
    }

    /// The unit that `throughput` counts is a round trip rather than a delivery.
    pub fn is_echo(&self) -> bool {
        !matches!(self, Scenario::FanOut { .. } | Scenario::FanIn { .. } | Scenario::Chat { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Evenly spaced
    Fixed,
    /// Random gaps of the same mean, as independent users make them
    Poisson,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    /// Close frame 1000, answered, then the end of TCP
    Normal,
    /// Close frame 1001
    GoingAway,
    /// Close frame with code 4000 and a reason
    Application,
    /// Close frame without a code
    Empty,
    /// The server begins: needs `loadtest upstream` behind the URL
    Server,
    /// End of TCP without a close frame
    Fin,
    /// TCP reset
    Rst,
    /// Half-close: end of sending, then reading to the end
    HalfClose,
    /// End of TCP in the middle of a frame
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Kill the upstream and start it again after the outage
    Kill,
    /// Stop the upstream (SIGSTOP) and continue it after the outage
    Stop,
    /// The upstream resets every connection
    Rst,
    /// The upstream ends its sending half of every connection
    HalfClose,
    /// The upstream ends every connection in the middle of a frame
    Cut,
    /// The upstream closes every connection with code 1012
    Restart,
    /// Every client resets its connection and comes back at once
    Storm,
    /// Half of the clients reset, the others must not notice
    ClientRst,
    /// Half of the clients end in the middle of a frame, the others must not notice
    ClientCut,
}

impl FaultKind {
    /// Half of the clients misbehave, and the other half must not notice.
    pub fn spares_the_others(self) -> bool {
        matches!(self, FaultKind::ClientRst | FaultKind::ClientCut)
    }

    pub fn is_clients_own(self) -> bool {
        matches!(self, FaultKind::Storm | FaultKind::ClientRst | FaultKind::ClientCut)
    }
}
