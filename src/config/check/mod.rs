//! What must hold between the options, and between them and this machine.

use std::collections::HashSet;

use super::draft::Draft;
use super::fault::{Fault, Place};
use super::units::{self, print_size, print_time};
use super::{Address, Backend, Config};

/// Where the relay listens if nothing says so: reachable from this machine alone, so that no one exposes it unasked.
pub const DEFAULT_LISTENER: &str = "127.0.0.1:8080";

/// What of this machine a configuration is checked against.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The CPUs this process may use. Empty if that cannot be known.
    pub cpus: Vec<usize>,
}

impl Machine {
    pub fn this() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        Machine { cpus: units::parse_cpus(list).unwrap_or_default() }
    }
}

/// The finished configuration, or all faults in the order of the file.
pub(super) fn check(mut draft: Draft, machine: &Machine) -> Result<Config, Vec<Fault>> {
    if draft.config.listeners.is_empty() {
        let address: Address = DEFAULT_LISTENER.parse().expect("the default is an address");
        draft.config.listeners.push(address.into());
    }
    // A value that was refused left its default behind, which nobody compared with anything.
    let refused: Vec<String> = draft.faults.iter().map(|fault| fault.option.clone()).collect();
    orders(&mut draft, &refused);
    listeners(&mut draft);
    pools(&mut draft);
    cpus(&mut draft, machine);
    if draft.faults.is_empty() {
        return Ok(draft.config);
    }
    draft.faults.sort_by_key(|fault| fault.place);
    draft.faults.dedup();
    Err(draft.faults)
}

fn listeners(draft: &mut Draft) {
    let listeners = draft.config.listeners.clone();
    for (index, listener) in listeners.iter().enumerate() {
        // Port 0 is another port each time.
        let listener = &listener.address;
        let any_port = matches!(listener, Address::Inet(address) if address.port() == 0);
        if !any_port && listeners[..index].iter().any(|other| other.address == *listener) {
            let path = format!("listeners[{index}].address");
            fault(draft, &path, format!("{listener} is listened on twice"));
        }
    }
    if listeners.len() > usize::from(u16::MAX) {
        fault(draft, "listeners", format!("{} listeners are too many; there may be {}", listeners.len(), u16::MAX));
    }
}

fn pools(draft: &mut Draft) {
    let pools = draft.config.pools.clone();
    for (index, pool) in pools.iter().enumerate() {
        let path = format!("pools[{index}].name");
        if !pool.name.is_empty() && pools[..index].iter().any(|other| other.name == pool.name) {
            fault(draft, &path, format!("\"{}\" is the name of another pool already", pool.name));
        }
        backends(draft, index, &pool.backends);
    }
    let count: usize = pools.iter().map(|pool| pool.backends.len()).sum();
    if count > usize::from(u16::MAX) {
        fault(draft, "pools", format!("{count} backends are too many; there may be {}", u16::MAX));
    }
    default_pool(draft);
}

fn backends(draft: &mut Draft, pool: usize, backends: &[Backend]) {
    let mut seen = HashSet::new();
    for (index, Backend { address: backend, .. }) in backends.iter().enumerate() {
        let path = format!("pools[{pool}].backends[{index}]");
        if !seen.insert(backend) {
            fault(draft, &path, format!("{backend} is listed twice"));
        }
        if draft.config.listeners.iter().any(|listener| backend.reaches(&listener.address)) {
            fault(draft, &path, format!("{backend} is this relay itself: it listens there"));
        }
    }
}

fn default_pool(draft: &mut Draft) {
    match (draft.default_pool_index(), &draft.default_pool) {
        (Some(index), _) => draft.config.default_pool = Some(index),
        // A broken file may well name it where it is broken.
        (None, _) if draft.broken || draft.faults.iter().any(|fault| fault.option == "pools") => (),
        (None, Some(name)) if !draft.config.pools.is_empty() => {
            let message = format!("there is no pool of the name \"{name}\"");
            fault(draft, "default_pool", message);
        }
        (None, _) => {
            let message = match draft.missing {
                Place::Whole => "there is no backend; give --backend ADDR or -c FILE, or try `ringway demo`",
                _ => "there is no backend; write [[pools]] with a name and backends, or give --backend",
            };
            fault(draft, "pools", message);
        }
    }
}

/// What may not be larger than something else.
fn orders(draft: &mut Draft, refused: &[String]) {
    let Config { limits, timeouts, buffers, .. } = draft.config.clone();
    let small = buffers.small_bytes as u64;
    let window = limits.window_bytes as u64;
    let message = limits.message_bytes_max.unwrap_or(u64::MAX);
    let pairs = [
        ("buffers.small_bytes", small, "limits.window_bytes", window),
        ("buffers.small_bytes", small, "buffers.bulk_bytes", buffers.bulk_bytes as u64),
        ("limits.early_bytes_max", limits.early_bytes_max as u64, "limits.window_bytes", window),
        (
            "limits.target_bytes_max",
            limits.target_bytes_max as u64,
            "limits.head_bytes_max",
            limits.head_bytes_max as u64,
        ),
        ("limits.frame_bytes_max", limits.frame_bytes_max.unwrap_or(0), "limits.message_bytes_max", message),
    ];
    let is_judged = |low: &str, high: &str| !refused.iter().any(|option| option == low || option == high);
    for (low_path, low, high_path, high) in pairs {
        if low > high && is_judged(low_path, high_path) {
            not_above(draft, (low_path, print_size(low)), (high_path, print_size(high)));
        }
    }
    let (low_path, low, high_path, high) =
        ("timeouts.drain_spread", timeouts.drain_spread, "timeouts.drain", timeouts.drain);
    if low > high && is_judged(low_path, high_path) {
        not_above(draft, (low_path, print_time(low)), (high_path, print_time(high)));
    }
}

fn cpus(draft: &mut Draft, machine: &Machine) {
    let listed = draft.config.cpus.clone().unwrap_or_default();
    let strange: Vec<usize> = listed.into_iter().filter(|cpu| !machine.cpus.contains(cpu)).collect();
    if !strange.is_empty() && !machine.cpus.is_empty() {
        let (strange, usable) = (units::print_cpus(&strange), units::print_cpus(&machine.cpus));
        fault(draft, "cpus", format!("this process may not use CPU {strange}; it may use {usable}"));
    }
}

/// Names the option that was given and the one it breaks against; if both were given, the later one.
fn not_above(draft: &mut Draft, low: (&str, String), high: (&str, String)) {
    let (low_place, high_place) = (draft.places.get(low.0), draft.places.get(high.0));
    let (path, message) = if low_place >= high_place {
        (low.0, format!("{} is not allowed; it may be no more than {}, which is {}", low.1, high.0, high.1))
    } else {
        (high.0, format!("{} is not allowed; it may be no less than {}, which is {}", high.1, low.0, low.1))
    };
    fault(draft, path, message);
}

/// A fault where the option was given.
fn fault(draft: &mut Draft, path: &str, message: impl Into<String>) {
    let place = draft.places.get(path).copied().unwrap_or(draft.missing);
    draft.fault(place, path, message);
}
