//! Options that every scenario understands.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use bytesize::ByteSize;
use clap::Args;

use crate::net::connect::parse_url;
use crate::sizes::{MESSAGE_BYTES_MAX, Sizes, parse_bytes};
use crate::spec::{MaskKind, MessageSpec, RunSpec, Scenario, TargetSpec};
use crate::wire::payload::Kind;

/// Answers may be a little longer than what was sent before that is called a fault.
const ANSWER_BYTES_SPARE: u64 = 1024;

#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Where to connect: ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
    #[arg(long, short)]
    pub url: Option<String>,

    /// Length of the measured part
    #[arg(long, short, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Load before the measured part
    #[arg(long, value_parser = humantime::parse_duration)]
    pub warmup: Option<Duration>,
    /// How long to wait for outstanding answers at the end
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// Spacing of the time series
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,

    /// Connections in all
    #[arg(long, short)]
    pub connections: Option<u32>,
    /// New connections per second before the run [default: as fast as they come]
    #[arg(long)]
    pub connect_rate: Option<f64>,
    /// Handshakes in progress at once, per worker
    #[arg(long, default_value_t = 64)]
    pub connecting_max: u32,
    /// Time limit of one connection's handshakes
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    /// Loopback source addresses to use in turn [default: one per 20,000 connections]
    #[arg(long)]
    pub source_addresses: Option<u32>,

    /// Threads, each with its own io_uring [default: one per --cpus entry, or 1]
    #[arg(long, short)]
    pub workers: Option<u32>,
    /// CPUs to pin the workers to, in turn, like 1 or 1,3
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<u32>,

    /// Message size: 64, 4KiB, a range 64..4KiB, or a weighted mix 64:9,64KiB:1
    #[arg(long, short)]
    pub size: Option<Sizes>,
    /// What fills the messages
    #[arg(long, value_enum, default_value_t = Kind::Random)]
    pub payload: Kind,
    /// Keys that the frames are masked with
    #[arg(long, value_enum, default_value_t = MaskKind::Random)]
    pub mask: MaskKind,
    /// Cut writes to the socket to this size, so that frames arrive in pieces
    #[arg(long, value_parser = parse_bytes)]
    pub write_size: Option<u64>,

    /// Subprotocol to offer; repeat for several
    #[arg(long)]
    pub subprotocol: Vec<String>,
    /// Extra request header "Name: value"; repeat for several
    #[arg(long, short = 'H', value_parser = parse_header)]
    pub header: Vec<(String, String)>,
    /// Cookie "name=value"; repeat for several
    #[arg(long)]
    pub cookie: Vec<String>,
    /// Trust this certificate authority (PEM) and no other
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Accept any certificate
    #[arg(long)]
    pub insecure: bool,

    /// Report CPU time and memory of this process; repeat to sum several
    #[arg(long, value_name = "PID")]
    pub watch_pid: Vec<u32>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Name of this run in comparisons [default: the scenario]
    #[arg(long)]
    pub label: Option<String>,
    /// Directory for result.json, latency.hlog and report.html
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Print result.json instead of the table
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// What a scenario prefers where the user says nothing.
pub struct Defaults {
    pub connections: u32,
    pub size: Sizes,
    pub duration: Duration,
    pub warmup: Duration,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            connections: 64,
            size: Sizes::Fixed(64),
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
        }
    }
}

/// Where a message gets its frames from.
#[derive(Clone, Copy)]
pub struct Fragments {
    pub count: u32,
    pub ping_between: bool,
}

pub const WHOLE: Fragments = Fragments { count: 1, ping_between: false };

impl Common {
    pub fn spec(
        &self,
        name: &str,
        url: String,
        scenario: Scenario,
        defaults: Defaults,
        fragments: Fragments,
    ) -> Result<RunSpec> {
        let connections = self.connections.unwrap_or(defaults.connections);
        let size = self.size.clone().unwrap_or(defaults.size);
        if connections == 0 {
            bail!("--connections must be at least 1");
        }
        if connections > 2_000_000 {
            bail!("--connections {connections}: this program counts up to 2,000,000");
        }
        self.check_size(&size)?;
        parse_url(&url)?;
        let message = MessageSpec {
            answer_bytes_max: size.max() + ANSWER_BYTES_SPARE,
            size,
            payload: self.payload,
            mask: self.mask,
            fragments: fragments.count.max(1),
            ping_between: fragments.ping_between,
            write_bytes_max: self.write_size,
        };
        let spec = RunSpec {
            name: name.to_owned(),
            scenario,
            target: self.target(url)?,
            message,
            connections_total: connections,
            first_connection: 0,
            connections,
            workers: self.workers.unwrap_or(self.cpus.len() as u32).clamp(1, 1024),
            cpus: self.cpus.clone(),
            connect_rate: self.connect_rate,
            connecting_max: self.connecting_max.max(1),
            warmup_ms: self.warmup.unwrap_or(defaults.warmup).as_millis() as u64,
            duration_ms: (self.duration.unwrap_or(defaults.duration).as_millis() as u64).max(1),
            drain_ms: (self.drain.as_millis() as u64).max(1),
            interval_ms: (self.interval.as_millis() as u64).max(10),
            seed: self.seed,
        };
        positive("--connect-rate", spec.connect_rate.unwrap_or(1.0))?;
        Ok(spec)
    }

    fn check_size(&self, size: &Sizes) -> Result<()> {
        let min = self.payload.bytes_min() as u64;
        if size.min() < min {
            bail!(
                "--size {size}: a {} message carries a sequence number and a checksum and has at least {min} bytes",
                if self.payload.is_text() { "text" } else { "binary" }
            );
        }
        if size.max() > MESSAGE_BYTES_MAX {
            bail!("--size {size}: messages go up to {}", ByteSize(MESSAGE_BYTES_MAX));
        }
        Ok(())
    }

    fn target(&self, url: String) -> Result<TargetSpec> {
        for text in self.subprotocol.iter().chain(&self.cookie) {
            if text.is_empty() || text.chars().any(char::is_control) {
                bail!("{text:?} cannot stand in a header");
            }
        }
        Ok(TargetSpec {
            url,
            subprotocols: self.subprotocol.clone(),
            headers: self.header.clone(),
            cookies: self.cookie.clone(),
            ca: self.ca.clone(),
            insecure: self.insecure,
            connect_timeout_ms: (self.connect_timeout.as_millis() as u64).max(1),
            source_addresses: self.source_addresses,
        })
    }
}

/// A rate or another number that must be above zero.
pub fn positive(option: &str, value: f64) -> Result<f64> {
    if !value.is_finite() || value <= 0.0 {
        bail!("{option} must be above 0");
    }
    Ok(value)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not \"Name: value\""))?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("{name:?} is not a header name"));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("{value:?} cannot stand in a header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}
