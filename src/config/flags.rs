//! The flags that change the configuration. `main` hands them on; what they mean is decided here, beside the file.

use std::str::FromStr;

use super::LogLevel;
use super::address::{Address, Target};
use super::units;

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Listen here: IP:PORT, [IPv6]:PORT or unix:/PATH. May be repeated; replaces the file's listeners
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Address>,
    /// Relay to this backend: IP:PORT, [IPv6]:PORT, NAME:PORT or unix:/PATH. May be repeated; replaces the backends of
    /// the file's default pool, or of its first
    #[arg(long, value_name = "ADDR")]
    pub backend: Vec<Target>,
    /// Workers to run, one thread each; one per usable CPU if not given
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,
    /// CPUs to pin the workers to, such as 0,2-5
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<Cpus>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "L", env = "RINGWAY_LOG", hide_env_values = true)]
    pub log_level: Option<LogLevel>,
}

/// A list of CPUs as one value; a bare `Vec` would tell clap that the flag may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        units::parse_cpus(text).map(Cpus)
    }
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=1024) => Ok(workers),
        _ => Err("the number of workers may be 1 to 1024".into()),
    }
}
