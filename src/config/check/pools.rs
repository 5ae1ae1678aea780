//! Pools, their backends, and the pool of requests that no route takes.

use std::collections::HashMap;

use super::{Findings, repeated};
use crate::config::diagnostic::Place;
use crate::config::draft::{Draft, DraftPool};
use crate::config::{HostMatch, SameSite, Secure, StickyValue, text};

/// Workers number pools and the backends of one in 16 bits.
const COUNT_MAX: usize = u16::MAX as usize;

pub(super) fn check(draft: &Draft, found: &mut Findings) {
    let names = draft.pools.iter().map(|pool| (format!("pools[{}]", pool.number), pool.pool.name.as_str()));
    // An empty one was refused already.
    found.another_each(draft, "pool", names.filter(|(_, name)| !name.is_empty()));
    for pool in &draft.pools {
        backends(draft, pool, found);
        sticky(pool, found);
    }
    cookies(draft, found);
    let count = draft.pools.len();
    if count > COUNT_MAX {
        found.fault("pools", format!("{count} pools are too many; there may be {COUNT_MAX}"));
    }
    default_pool(draft, found);
}

fn backends(draft: &Draft, pool: &DraftPool, found: &mut Findings) {
    let pool_path = format!("pools[{}].backends", pool.number);
    let path = |index: usize| format!("{pool_path}[{}]", pool.backends[index].number);
    let backends = || pool.backends.iter().map(|backend| &backend.value);
    for (_, again) in repeated(backends().map(|backend| &backend.address)) {
        found.fault(path(again), format!("{} is listed twice", pool.backends[again].value.address));
    }
    for (index, backend) in backends().enumerate() {
        if draft.listeners.iter().any(|listener| backend.address.reaches(&listener.value.address)) {
            found.fault(path(index), format!("{} is this relay itself: it listens there", backend.address));
        }
    }
    let names = backends().enumerate().map(|(index, backend)| (path(index), backend.name.as_str()));
    found.another_each(draft, "backend", names);
    let count = pool.backends.len();
    if count > COUNT_MAX {
        found.fault(pool_path, format!("{count} backends are too many; there may be {COUNT_MAX}"));
    }
}

fn sticky(pool: &DraftPool, found: &mut Findings) {
    let sticky = &pool.pool.sticky;
    if sticky.same_site == SameSite::None && sticky.secure != Secure::Always {
        let path = format!("pools[{}].sticky.same_site", pool.number);
        found.fault(path, "\"none\" needs secure = \"always\"; browsers drop the cookie otherwise");
    }
    if sticky.cookie.is_some() && sticky.value == StickyValue::Name {
        for backend in pool.backends.iter().filter(|backend| !text::is_cookie_value(&backend.value.name)) {
            let path = format!("pools[{}].backends[{}].name", pool.number, backend.number);
            let name = backend.value.name.escape_debug();
            found.fault(path, format!("\"{name}\" cannot be the value of a cookie, which sticky.value asks for"));
        }
    }
}

/// A client keeps one cookie of a name for a host and path: of two pools that set it each would undo what the other did.
fn cookies(draft: &Draft, found: &mut Findings) {
    let mut by_cookie: HashMap<_, Vec<&DraftPool>> = HashMap::new();
    for pool in &draft.pools {
        let sticky = &pool.pool.sticky;
        if let Some(cookie) = &sticky.cookie {
            let domain = sticky.domain.as_ref().map(|domain| domain.to_ascii_lowercase());
            by_cookie.entry((cookie, &sticky.path, domain)).or_default().push(pool);
        }
    }
    let all = [HostMatch::Any];
    let hosts_of = |pool: &DraftPool| -> Vec<&HostMatch> {
        let name = pool.pool.name.as_str();
        let routes = draft.routes.iter().filter(|route| route.pool.as_deref() == Some(name));
        let is_default = draft.config.default_pool.is_some_and(|default| draft.pools[default].pool.name == name);
        routes.flat_map(|route| &route.route.hosts).chain(all.iter().filter(|_| is_default)).collect()
    };
    for ((_, _, domain), pools) in by_cookie.into_iter().filter(|(_, pools)| pools.len() > 1) {
        let hosts: Vec<Vec<&HostMatch>> = pools.iter().map(|pool| hosts_of(pool)).collect();
        for (later, pool) in pools.iter().enumerate() {
            // With a domain, hosts that have it in common share the cookie (RFC 6265, 5.3); without, it is the very host's.
            let is_reached = |pool: usize| !hosts[pool].is_empty();
            let overlap =
                |before: usize| hosts[before].iter().any(|one| hosts[later].iter().any(|other| one.overlaps(other)));
            let meets = |before: &usize| match domain {
                Some(_) => is_reached(*before) && is_reached(later),
                None => overlap(*before),
            };
            if let Some(before) = (0..later).find(meets) {
                let message = format!(
                    "pool \"{}\" sets this cookie for the same hosts, and each would overwrite the other's; give them \
                     other names, or a sticky.path each",
                    pools[before].pool.name
                );
                found.fault(format!("pools[{}].sticky.cookie", pool.number), message);
            }
        }
    }
}

/// What is missing may well be in a broken file where it is broken.
pub(super) fn may_be_there(draft: &Draft) -> bool {
    draft.broken || draft.faults.iter().any(|fault| fault.option == "pools")
}

fn default_pool(draft: &Draft, found: &mut Findings) {
    if draft.config.default_pool.is_some() || may_be_there(draft) {
        return;
    }
    if draft.pools.is_empty() {
        let message = match draft.missing {
            Place::Whole => "there is no backend; give --backend ADDR or -c FILE, or try `ringway demo`",
            _ => "there is no backend; write [[pools]] with a name and backends, or give --backend",
        };
        found.fault("pools", message);
    } else if let Some(name) = &draft.default_pool {
        found.fault("default_pool", format!("there is no pool of the name \"{name}\""));
    }
}
