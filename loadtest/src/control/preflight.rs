//! One connection before the run, so that a dead or wrong target is named at once and clearly.

use std::io;

use anyhow::{Result, anyhow};

use crate::load::worker::start_runtime;
use crate::net::Fault;
use crate::net::connect::Connector;
use crate::spec::{RunSpec, Scenario};

/// The target cannot be used as it is.
#[derive(Debug)]
pub struct Unusable(String);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

pub fn check(spec: &RunSpec) -> Result<()> {
    let spec = spec.clone();
    let thread = std::thread::spawn(move || {
        start_runtime(async move {
            let connector = Connector::new(&spec, spec.seed)?;
            let suffix = match spec.scenario {
                Scenario::FanOut { .. } | Scenario::FanIn { .. } => "/sub/preflight",
                Scenario::Chat { .. } => "/chat/preflight",
                _ => "",
            };
            match connector.open(0, suffix).await {
                Ok(opened) => {
                    // A masked close frame 1000, so that the target sees an orderly visit.
                    let close = vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
                    let _ = opened.link.write_all(close).await;
                    opened.link.end();
                    Ok(())
                }
                Err(fault) => Err(explain(&spec, &connector, &fault)),
            }
        })
    });
    thread.join().map_err(|_| anyhow!("the check of the target panicked"))?
}

fn explain(spec: &RunSpec, connector: &Connector, fault: &Fault) -> anyhow::Error {
    let hint = match fault {
        Fault::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            ": is the target running, and is this its port?"
        }
        Fault::Tls(_) => ": give its authority with --ca, or skip the check with --insecure",
        Fault::Handshake(_) => ": is this the path of a WebSocket?",
        _ => "",
    };
    let address = connector.address();
    anyhow::Error::new(Unusable(format!("{} ({address}): {fault}{hint}", spec.target.url)))
}
