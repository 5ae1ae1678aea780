//! `loadtest upstream`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::sizes::{MESSAGE_BYTES_MAX, parse_bytes};
use crate::upstream::liar::Lies;
use crate::upstream::{Stall, UpstreamSpec};

/// Paths: .../pub/N publishes to room N, .../sub/N listens, .../chat/N does both, .../sink swallows,
/// .../close/CODE/K closes after K messages, anything else echoes.
#[derive(Args, Debug)]
pub struct UpstreamArgs {
    /// Address to listen on; port 0 picks a free one and prints it
    #[arg(long, default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// Threads, each with its own io_uring
    #[arg(long, short, default_value_t = 1)]
    pub workers: u32,
    /// CPUs to pin the workers to, in turn
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<u32>,
    /// Certificate chain (PEM): serves wss
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// A longer message is answered with close code 1009
    #[arg(long, default_value_t = MESSAGE_BYTES_MAX, value_parser = parse_bytes)]
    pub message_max: u64,
    /// Err on purpose, every N-th message: lose=N,alter=N,repeat=N,swap=N
    #[arg(long)]
    pub lie: Option<Lies>,
    /// Stop once for this long ...
    #[arg(long, value_parser = humantime::parse_duration)]
    pub stall: Option<Duration>,
    /// ... this long after the first message
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub stall_after: Duration,
    /// Take the commands rst, half-close, cut and restart on standard input, and end when it ends
    #[arg(long)]
    pub control: bool,
}

impl From<UpstreamArgs> for UpstreamSpec {
    fn from(args: UpstreamArgs) -> UpstreamSpec {
        let after = args.stall_after;
        UpstreamSpec {
            listen: args.listen,
            workers: args.workers.clamp(1, 1024),
            cpus: args.cpus,
            certificate: args.cert.zip(args.key),
            message_bytes_max: args.message_max as usize,
            lies: args.lie.unwrap_or_default(),
            stall: args.stall.map(|length| Stall { after, length }),
            control: args.control,
        }
    }
}
