//! `-T`: the effective configuration as a file that, read back, gives the same [`Config`] but for its secrets.

use super::options::{BACKEND, GLOBAL, POOL, Paths, ROUTE, Setting, Value, outside, quote};
use super::units::print_cpus;
use super::{Backend, Config, Derived, HeaderEdits, HeaderMatch, ListenerConfig, PathMatch, PoolConfig, Rights, Route};

pub(super) fn print(config: &Config, derived: Option<&Derived>) -> String {
    let note = |path: &str| derived.and_then(|derived| global_note(config, derived, path));
    let mut lines = vec![format!("# The effective configuration of ringway {}", env!("CARGO_PKG_VERSION"))];
    if !config.routes.is_empty() {
        lines.push(
            "# Routes are in the order in which they are tried, and show what they do otherwise than all.".into(),
        );
    }
    // Root keys must come before the first table.
    options(&mut lines, outside(&GLOBAL), config, &note, |_| true);
    if let Some(pool) = config.default_pool.map(|pool| &config.pools[pool]) {
        lines.push(format!("default_pool = {}", quote(&pool.name)));
    }
    config.listeners.iter().for_each(|of| listener(&mut lines, of));
    config.pools.iter().for_each(|of| pool(&mut lines, of, derived.is_some()));
    config.routes.iter().for_each(|of| route(&mut lines, of, config, derived.is_some()));
    sections(&mut lines, "", &GLOBAL, config, &note, |_| true);
    lines.push(String::new());
    lines.join("\n")
}

/// What `auto` comes to, or what is less than was asked for.
fn global_note(config: &Config, derived: &Derived, path: &str) -> Option<String> {
    let plan = derived.plan;
    // Without a plan not one session can be served.
    let planned = |asked: Option<usize>, got: Option<usize>| (asked != got).then(|| got.unwrap_or(0).to_string());
    match path {
        "workers" => config.workers.is_none().then(|| derived.workers.to_string()),
        "cpus" if config.cpus.is_some() => None,
        "cpus" if derived.cpus.is_empty() => Some("none: a quota rules".into()),
        "cpus" => Some(print_cpus(&derived.cpus)),
        "nameservers" if config.nameservers.is_some() => None,
        "nameservers" => {
            let servers: Vec<String> = derived.nameservers.iter().map(ToString::to_string).collect();
            Some(if servers.is_empty() { "none in /etc/resolv.conf".into() } else { servers.join(", ") })
        }
        "limits.sessions_max" => planned(config.limits.sessions_max, plan.map(|plan| plan.sessions_max)),
        "buffers.small_count" => planned(config.buffers.small_count, plan.map(|plan| plan.small_count)),
        "buffers.bulk_count" => planned(Some(config.buffers.bulk_count), plan.map(|plan| plan.bulk_count)),
        "tcp.send_buffer_bytes" => config.tcp.send_buffer_bytes.is_none().then(|| "sized by the kernel".into()),
        "tcp.receive_buffer_bytes" => config.tcp.receive_buffer_bytes.is_none().then(|| "sized by the kernel".into()),
        _ => None,
    }
}

fn pool_note(pool: &PoolConfig, path: &str) -> Option<String> {
    let admission = &pool.admission;
    match path {
        "sticky.secret" => Some("a random one at each start".into()),
        "health.host" if pool.health.host.is_none() => Some("each backend's address".into()),
        "admission.handshakes_burst" if admission.handshakes_burst.is_none() => {
            Some(admission.handshakes_per_second_max.map_or("no limit".into(), |most| most.to_string()))
        }
        _ => None,
    }
}

fn listener(lines: &mut Vec<String>, listener: &ListenerConfig) {
    lines.push("\n[[listeners]]".into());
    // A name that was not given need not differ from others.
    if listener.name != listener.address.to_string() {
        lines.push(format!("name = {}", quote(&listener.name)));
    }
    lines.push(format!("address = {}", quote(&listener.address.to_string())));
    let Rights { mode, owner, group } = &listener.rights;
    lines.extend(mode.map(|mode| format!("mode = \"{mode:04o}\"")));
    lines.extend(owner.iter().map(|owner| format!("owner = {}", quote(&owner.name))));
    lines.extend(group.iter().map(|group| format!("group = {}", quote(&group.name))));
}

fn pool(lines: &mut Vec<String>, pool: &PoolConfig, has_notes: bool) {
    let note = |path: &str| pool_note(pool, path).filter(|_| has_notes);
    lines.push(format!("\n[[pools]]\nname = {}", quote(&pool.name)));
    options(lines, outside(&POOL), pool, &note, |_| true);
    let mut backends: Vec<String> = pool.backends.iter().map(backend).collect();
    backends.extend(pool.discovery.names.iter().map(|named| {
        let name = named.name.as_ref().unwrap_or(&named.target);
        written(&named.target, name, &named.model)
    }));
    lines.push(format!("backends = [{}]", backends.join(", ")));
    sections(lines, "pools.", &POOL, pool, &note, |_| true);
}

/// As short as it can be said.
fn backend(backend: &Backend) -> String {
    written(&backend.address.to_string(), &backend.name, backend)
}

fn written(address: &str, name: &str, backend: &Backend) -> String {
    let usual = Backend::default();
    let mut pairs = Vec::new();
    if name != address {
        pairs.push(format!("name = {}", quote(name)));
    }
    options(&mut pairs, &BACKEND, backend, &|_| None, |option| option.read(backend) != option.read(&usual));
    if pairs.is_empty() {
        return quote(address);
    }
    format!("{{ address = {}, {} }}", quote(address), pairs.join(", "))
}

fn route(lines: &mut Vec<String>, route: &Route, config: &Config, has_notes: bool) {
    let paths = || if route.is_strict(&config.routes) { Paths::Strict } else { Paths::AsIs };
    let note =
        |path: &str| (has_notes && path == "paths" && route.paths.is_none()).then(|| format!("\"{}\"", paths().word()));
    lines.push(format!("\n[[routes]]\nname = {}", quote(&route.name)));
    if !route.listeners.is_empty() {
        lines.push(format!("listeners = [{}]", list(&route.listeners)));
    }
    let hosts: Vec<String> = route.hosts.iter().map(|host| quote(&host.to_string())).collect();
    match hosts.as_slice() {
        [host] => lines.push(format!("host = {host}")),
        hosts => lines.push(format!("host = [{}]", hosts.join(", "))),
    }
    match &route.path {
        PathMatch::Any => (),
        PathMatch::Exact(path) => lines.push(format!("path = {}", quote(path))),
        PathMatch::Segments(path) => lines.push(format!("path_segments = {}", quote(path))),
        PathMatch::Prefix(path) => lines.push(format!("path_prefix = {}", quote(path))),
    }
    if !route.headers.is_empty() {
        let pair = |HeaderMatch { name, value }: &HeaderMatch| (name.clone(), value.to_string());
        lines.push(format!("headers = {}", table(&route.headers.iter().map(pair).collect::<Vec<_>>())));
    }
    options(lines, outside(&ROUTE), route, &note, |_| true);
    lines.push(format!("pool = {}", quote(&config.pools[route.pool].name)));
    edits(lines, "request_headers", &route.request_headers);
    edits(lines, "response_headers", &route.response_headers);
    let usual = Route::catch_all("", route.pool, config);
    sections(lines, "routes.", &ROUTE, route, &note, |option| option.read(route) != option.read(&usual));
}

fn edits(lines: &mut Vec<String>, section: &str, edits: &HeaderEdits) {
    if edits.is_empty() {
        return;
    }
    lines.push(format!("\n[routes.{section}]"));
    if !edits.remove.is_empty() {
        lines.push(format!("remove = [{}]", list(&edits.remove)));
    }
    for (key, headers) in [("set", &edits.set), ("add", &edits.add)] {
        if !headers.is_empty() {
            lines.push(format!("{key} = {}", table(headers)));
        }
    }
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(", ")
}

fn table(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{} = {}", quote(name), quote(value))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// Told of a path: what goes behind the option's line, as a comment.
type Note<'n> = &'n dyn Fn(&str) -> Option<String>;

/// `key = value` for each that is wanted and can be written, under its last name.
fn options<T>(
    lines: &mut Vec<String>,
    options: &[Setting<T>],
    owner: &T,
    note: Note<'_>,
    wanted: impl Fn(&Setting<T>) -> bool,
) {
    for option in options.iter().filter(|option| wanted(option)) {
        let value = option.read(owner);
        let key = option.place().1;
        if option.is_secret && value != Value::Absent {
            lines.push(format!("# {key} is set, and not shown"));
        } else if option.is_written(&value) {
            let note = note(&option.path).map(|note| format!(" # {note}")).unwrap_or_default();
            lines.push(format!("{key} = {}{note}", option.print(&value)));
        }
    }
}

/// A table for each section with something in it that is wanted.
fn sections<T>(
    lines: &mut Vec<String>,
    prefix: &str,
    all: &[Setting<T>],
    owner: &T,
    note: Note<'_>,
    wanted: impl Fn(&Setting<T>) -> bool,
) {
    for of_section in super::options::sections(all) {
        if of_section.iter().any(&wanted) {
            lines.push(format!("\n[{prefix}{}]", of_section[0].place().0));
            options(lines, of_section, owner, note, &wanted);
        }
    }
}
