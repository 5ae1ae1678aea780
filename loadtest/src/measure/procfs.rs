//! What a process costs, read from /proc: CPU time to the nanosecond, and memory that is its own.

use std::fs;
use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sums over the watched processes at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// On-CPU time of all threads, user and kernel (schedstat).
    pub cpu_ns: u64,
    /// Anonymous resident memory: what the process itself allocated and touched.
    pub rss_anon_bytes: u64,
    /// All resident memory, mapped files included.
    pub rss_bytes: u64,
    pub threads: u64,
}

pub fn usage(pids: &[u32]) -> io::Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        let one = usage_of(*pid)?;
        sum.cpu_ns += one.cpu_ns;
        sum.rss_anon_bytes += one.rss_anon_bytes;
        sum.rss_bytes += one.rss_bytes;
        sum.threads += one.threads;
    }
    Ok(sum)
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            usage.cpu_ns += first_number(&text);
            usage.threads += 1;
        }
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    usage.rss_anon_bytes = kilobytes(&status, "RssAnon:") * 1024;
    usage.rss_bytes = kilobytes(&status, "VmRSS:") * 1024;
    Ok(usage)
}

pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn kilobytes(status: &str, key: &str) -> u64 {
    status.lines().find_map(|line| line.strip_prefix(key)).map_or(0, first_number)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_has_memory_and_threads() {
        let usage = usage(&[std::process::id()]).unwrap();
        assert!(usage.rss_anon_bytes > 0 && usage.rss_bytes >= usage.rss_anon_bytes);
        assert!(usage.threads > 0);
        assert!(!name(std::process::id()).is_empty());
    }

    #[test]
    fn status_lines_are_found_by_their_whole_key() {
        let status = "VmRSS:\t  2048 kB\nRssAnon:\t     12 kB\n";
        assert_eq!(kilobytes(status, "RssAnon:"), 12);
        assert_eq!(kilobytes(status, "VmRSS:"), 2048);
        assert_eq!(kilobytes(status, "RssShmem:"), 0);
    }
}
