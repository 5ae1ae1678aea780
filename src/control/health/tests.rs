//! Checks against real sockets on loopback. Nothing here waits for time to pass: where a check has to run out of time, the
//! clock is stopped first, and then Tokio turns it to the next deadline as soon as nobody has anything left to do.

mod follow;
mod probe;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Check, Health, PoolConfig};

fn health(check: Check) -> Health {
    Health { check, path: "/health".into(), timeout: Duration::from_secs(30), ..PoolConfig::named("a").health }
}

/// The path of a socket that goes with the test.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        SocketPath(std::env::temp_dir().join(format!("ringway-health-{name}-{}.sock", std::process::id())))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
