//! What must hold between the options, and between them and this machine.

mod orders;
mod pools;
mod routes;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use super::diagnostic::{Diagnostic, Place};
use super::draft::{Draft, Numbered};
use super::units;
use super::{Address, Config, ListenerConfig};

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
pub(super) fn check(mut draft: Draft, machine: &Machine) -> Result<Config, Vec<Diagnostic>> {
    if draft.listeners.is_empty() {
        let address: Address = DEFAULT_LISTENER.parse().expect("the default is an address");
        draft.listeners.push(Numbered { number: 0, value: address.into() });
    }
    draft.config.default_pool = draft.default_pool_index();
    let mut found = Findings::default();
    orders::check(&draft, &mut found);
    listeners(&draft, &mut found);
    pools::check(&draft, &mut found);
    let pools_of_routes = routes::check(&draft, &mut found);
    cpus(&draft, machine, &mut found);
    for (path, message) in found.0 {
        let place = place(&draft, &path);
        if !draft.unknown.contains(&place) {
            draft.fault(place, &path, message);
        }
    }
    if draft.faults.is_empty() {
        for (route, pool) in draft.routes.iter_mut().zip(pools_of_routes) {
            route.route.pool = pool;
        }
        return Ok(draft.finish());
    }
    draft.faults.sort_by_key(|fault| fault.place);
    draft.faults.dedup();
    Err(draft.faults)
}

/// What is wrong: options and messages.
#[derive(Default)]
struct Findings(Vec<(String, String)>);

impl Findings {
    fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push((path.into(), message.into()));
    }

    /// Each of `names`, which are told with the path of what they name, has to be another one.
    fn another_each<'n>(&mut self, draft: &Draft, what: &str, names: impl Iterator<Item = (String, &'n str)> + Clone) {
        let paths: Vec<(String, &str)> = names.clone().collect();
        for (first, again) in repeated(names.map(|(_, name)| name)) {
            // The one that was given: names that nobody gave differ, or are of listeners on any port.
            let given = [again, first].into_iter().map(|index| format!("{}.name", paths[index].0));
            if let Some(path) = given.into_iter().find(|path| draft.places.contains_key(path)) {
                self.fault(path, format!("\"{}\" is the name of another {what} already", paths[again].1));
            }
        }
    }
}

/// The indexes of what was there before: where it was first, and where it is again.
fn repeated<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> Vec<(usize, usize)> {
    let mut first = HashMap::new();
    let indexed = keys.enumerate().map(|(index, key)| (*first.entry(key).or_insert(index), index));
    indexed.filter(|(first, index)| first != index).collect()
}

/// Where the option was given, or what it is an option of.
fn place(draft: &Draft, path: &str) -> Place {
    let mut path = path;
    loop {
        if let Some(place) = draft.places.get(path) {
            return *place;
        }
        match path.rsplit_once('.') {
            Some((owner, _)) => path = owner,
            None => return draft.missing,
        }
    }
}

fn listeners(draft: &Draft, found: &mut Findings) {
    // Port 0 is another port each time.
    let any_port = |address: &Address| matches!(address, Address::Inet(address) if address.port() == 0);
    let addresses: Vec<_> = draft.listeners.iter().filter(|listener| !any_port(&listener.value.address)).collect();
    for (_, again) in repeated(addresses.iter().map(|listener| &listener.value.address)) {
        let Numbered { number, value } = addresses[again];
        found.fault(format!("listeners[{number}].address"), format!("{} is listened on twice", value.address));
    }
    wide_listeners(draft, found);
    let names = draft.listeners.iter().map(|l| (format!("listeners[{}]", l.number), l.value.name.as_str()));
    found.another_each(draft, "listener", names);
    let count = draft.listeners.len();
    if count > usize::from(u16::MAX) {
        found.fault("listeners", format!("{count} listeners are too many; there may be {}", u16::MAX));
    }
}

/// One on all addresses of its family has those of the others too: `0.0.0.0:80` and `127.0.0.1:80` cannot both be bound.
fn wide_listeners(draft: &Draft, found: &mut Findings) {
    let inet = |listener: &Numbered<ListenerConfig>| match listener.value.address {
        Address::Inet(address) if address.port() != 0 => Some((listener.number, address)),
        Address::Inet(_) | Address::Unix(_) => None,
    };
    let (wide, narrow): (Vec<_>, Vec<_>) =
        draft.listeners.iter().filter_map(inet).partition(|(_, address)| address.ip().is_unspecified());
    let key = |address: &SocketAddr| (address.is_ipv4(), address.port());
    let wide: HashMap<_, _> = wide.into_iter().map(|(number, address)| (key(&address), (number, address))).collect();
    for (number, address) in narrow {
        if let Some((wide_number, wide)) = wide.get(&key(&address)) {
            let path = format!("listeners[{}].address", number.max(*wide_number));
            found.fault(path, format!("{wide} is {address} too; listen on one of them"));
        }
    }
}

fn cpus(draft: &Draft, machine: &Machine, found: &mut Findings) {
    let listed = draft.config.cpus.iter().flatten().copied();
    let strange: Vec<usize> = listed.filter(|cpu| !machine.cpus.contains(cpu)).collect();
    if !strange.is_empty() && !machine.cpus.is_empty() {
        let (strange, usable) = (units::print_cpus(&strange), units::print_cpus(&machine.cpus));
        found.fault("cpus", format!("this process may not use CPU {strange}; it may use {usable}"));
    }
}
