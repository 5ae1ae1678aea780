//! Routes: whether what they name is there, and whether each can ever take a request.

use std::collections::{HashMap, HashSet};

use super::{Findings, pools, repeated};
use crate::config::diagnostic::Place;
use crate::config::draft::{Draft, DraftRoute};
use crate::config::{HostMatch, PathMatch, Route, ValueMatch};

/// Tells the pool of each route, which means something only if there was no fault.
pub(super) fn check(draft: &Draft, found: &mut Findings) -> Vec<usize> {
    let names = draft.routes.iter().map(|route| (path_of(route), route.route.name.as_str()));
    found.another_each(draft, "route", names);
    listeners(draft, found);
    conditions(draft, found);
    pools(draft, found)
}

fn path_of(route: &DraftRoute) -> String {
    format!("routes[{}]", route.number)
}

fn pools(draft: &Draft, found: &mut Findings) -> Vec<usize> {
    let names = draft.pools.iter().enumerate().map(|(index, pool)| (pool.pool.name.as_str(), index));
    let numbers: HashMap<&str, usize> = names.collect();
    let mut pools = Vec::with_capacity(draft.routes.len());
    for route in &draft.routes {
        let number = route.pool.as_deref().and_then(|name| numbers.get(name));
        pools.push(number.copied().unwrap_or(usize::MAX));
        if let (None, Some(name)) = (number, &route.pool)
            && !pools::may_be_there(draft)
        {
            found.fault(format!("{}.pool", path_of(route)), format!("there is no pool of the name \"{name}\""));
        }
    }
    pools
}

fn listeners(draft: &Draft, found: &mut Findings) {
    if draft.broken {
        return;
    }
    let names: HashSet<&str> = draft.listeners.iter().map(|listener| listener.value.name.as_str()).collect();
    let replaced = draft.places.get("listeners[0].address") == Some(&Place::Flag("--listen"));
    let why = if replaced { "; --listen has replaced those of the file" } else { "" };
    for route in &draft.routes {
        for (number, name) in route.route.listeners.iter().enumerate() {
            if !name.is_empty() && !names.contains(name.as_str()) {
                let path = format!("{}.listeners[{number}]", path_of(route));
                found.fault(path, format!("there is no listener of the name \"{name}\"{why}"));
            }
        }
    }
}

/// Of two routes with the same conditions the second would never be asked.
fn conditions(draft: &Draft, found: &mut Findings) {
    // What was refused left no condition behind.
    let at_fault: HashSet<&str> =
        draft.faults.iter().filter_map(|fault| fault.option.split_once('.')).map(|(route, _)| route).collect();
    let sound: Vec<&DraftRoute> =
        draft.routes.iter().filter(|route| !at_fault.contains(path_of(route).as_str())).collect();
    // A route of several hosts is one for each of them.
    let (owners, each): (Vec<usize>, Vec<Conditions<'_>>) = (0..)
        .zip(&sound)
        .flat_map(|(index, route)| {
            route.route.hosts.iter().map(move |host| (index, Conditions::of(&route.route, host)))
        })
        .unzip();
    let mut told = HashSet::new();
    for (first, again) in repeated(each.into_iter()) {
        let (first, again) = (owners[first], owners[again]);
        if told.insert(again) {
            let message = format!("has the conditions of \"{}\", and so would never be used", sound[first].route.name);
            found.fault(path_of(sound[again]), message);
        }
    }
}

/// Equal if the same requests meet them.
#[derive(PartialEq, Eq, Hash)]
struct Conditions<'r> {
    listeners: Vec<&'r str>,
    host: &'r HostMatch,
    path: &'r PathMatch,
    headers: Vec<(String, &'r ValueMatch)>,
    subprotocol: Option<&'r str>,
}

impl<'r> Conditions<'r> {
    fn of(route: &'r Route, host: &'r HostMatch) -> Self {
        let mut listeners: Vec<&str> = route.listeners.iter().map(String::as_str).collect();
        listeners.sort_unstable();
        listeners.dedup();
        let name_and_value = |header: &'r crate::config::HeaderMatch| (header.name.to_ascii_lowercase(), &header.value);
        let mut headers: Vec<_> = route.headers.iter().map(name_and_value).collect();
        headers.sort_unstable();
        Conditions { listeners, host, path: &route.path, headers, subprotocol: route.subprotocol.as_deref() }
    }
}
