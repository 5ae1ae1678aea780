//! The machine and the program, so that a result can be judged later.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    pub kernel: String,
    pub hostname: String,
    pub cpu: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub open_files_max: u64,
    pub local_ports: String,
    pub somaxconn: String,
    pub load_average: String,
    pub loadtest_version: String,
    pub command_line: Vec<String>,
}

impl Environment {
    pub fn read() -> Environment {
        let uname = rustix::system::uname();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Environment {
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory_bytes: memory_bytes(),
            open_files_max: limit.unwrap_or(u64::MAX),
            local_ports: read("/proc/sys/net/ipv4/ip_local_port_range"),
            somaxconn: read("/proc/sys/net/core/somaxconn"),
            load_average: read("/proc/loadavg"),
            loadtest_version: env!("CARGO_PKG_VERSION").into(),
            command_line: std::env::args().collect(),
        }
    }
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
}

fn memory_bytes() -> u64 {
    let text = field("/proc/meminfo", "MemTotal");
    text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
}
