//! A pool of backends: who they are, how one is chosen, and what happens when they are not well.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::options::Kind::{Count, Flag, Seconds, Statuses, Text, Words};
use super::options::{
    Balance, Check, Grammar, HashKeep, Kind, OnLoss, SameSite, Secure, StickyValue, Unresolved, WAIT, WAIT_OR_ZERO,
    options,
};
use super::{Address, Target, text};

/// More than one relay can have.
const CONNECTIONS: Kind = Count(1..=1 << 30);
const MILLION: RangeInclusive<u64> = 1..=1_000_000;
const PERCENT: Kind = Count(0..=100);
const STATUS: Kind = Count(100..=599);
/// So that no interval becomes zero.
const JITTER: Kind = Count(0..=90);
/// In a row.
const CHECKS: Kind = Count(1..=1000);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HASH: Kind =
    Text(Grammar { what: "what is hashed", such_as: "header:X-Room", check: |text| text.parse::<HashKey>().map(drop) });

options! {
    /// Backends, which are plain WebSocket servers, and how they are used.
    pub struct PoolConfig {
        /// How the backend of a session is chosen: `"round-robin"`, `"least-connections"`, `"power-of-two"` (the less
        /// loaded of two random ones), `"random"`, `"ip-hash"` (by the client's address) or `"consistent-hash"` (by
        /// `hash`).
        balance: Balance = Balance::RoundRobin, Words(Balance::WORDS);
        /// What consistent-hash looks at: `"client-ip"`, `"path"` (in its normal form, without the query), `"path:N"`
        /// (its segment of this number, from 1), `"header:NAME"`, `"cookie:NAME"` or `"query:NAME"`. A request without
        /// it goes by the client's address.
        hash: HashKey = HashKey::ClientIp, HASH;
        /// With consistent-hash no backend takes more than this many percent of the average load, but of those who join
        /// the open sessions of their key. `"off"`: no bound.
        hash_load_percent_max: Option<u32> = Some(125), Count(101..=10_000), off;
        /// With consistent-hash of anything but the address, where newcomers go whose key has open sessions at another
        /// backend than the one the hash leads to: `"on"` (to those sessions, until their backend is drained, down or
        /// ejected), `"off"` (where the hash leads), `"home"` (where the hash leads, without a bound on the load, and
        /// those sessions are told to come there too, with 1012 over `sessions.close_spread`).
        hash_keep: HashKeep = HashKeep::On, Words(HashKeep::WORDS);
        /// Sessions of one backend at a time, unless the backend says otherwise. `"off"`: no limit.
        connections_max: Option<u32> = None, CONNECTIONS, off;
        /// A backend that has come up gets its full share only after this time. `"off"`: at once.
        slow_start: Option<Duration> = None, WAIT, off;
    }
    fields {
        pub name: String = String::new(),
        /// Those that the file names. Discovery adds to them.
        pub backends: Vec<Backend> = Vec::new(),
        pub sticky: Sticky = Sticky::default(),
        pub admission: Admission = Admission::default(),
        pub health: Health = Health::default(),
        pub eject: Ejection = Ejection::default(),
        pub breaker: Breaker = Breaker::default(),
        pub sessions: Sessions = Sessions::default(),
        pub discovery: Discovery = Discovery::default(),
    }
}

options! {
    /// A backend of a pool, in the longer form.
    pub struct Backend {
        /// Share of new sessions against that of others.
        weight: u32 = 1, Count(1..=256);
        /// Sessions at a time. `"pool"`: as the pool says.
        connections_max: Option<u32> = None, CONNECTIONS, pool;
        /// Its slow start. `"pool"`: as the pool says.
        slow_start: Option<Duration> = None, WAIT, pool;
        /// Used only when no other backend of the pool is usable.
        backup: bool = false, Flag;
        /// Gets no new sessions.
        drain: bool = false, Flag;
    }
    fields {
        /// Stable, unique in its pool: the value of cookies, and what logs call it. The address unless it is given.
        pub name: String = String::new(),
        /// Nowhere by default: for what is not yet looked up.
        pub address: Address = Address::Unix(PathBuf::new()),
    }
}

const COOKIE: Kind = Text(Grammar { what: "a cookie's name", such_as: "backend", check: text::cookie_name });
const COOKIE_PATH: Kind = Text(Grammar { what: "a path", such_as: "/chat", check: text::cookie_path });
const COOKIE_DOMAIN: Kind = Text(Grammar { what: "a domain", such_as: "example.com", check: text::dns_name });
const SECRET: Kind =
    Text(Grammar { what: "a random text", such_as: "the output of `openssl rand -hex 32`", check: text::secret });

options! {
    /// A cookie that brings a client back to its backend, set with the 101.
    pub struct Sticky {
        /// The cookie's name. `"off"`: no cookie.
        cookie: Option<String> = None, COOKIE, off;
        /// `"opaque"`: signed (an HMAC of the backend's name), and tells nobody anything. `"name"`: the backend's name.
        value: StickyValue = StickyValue::Opaque, Words(StickyValue::WORDS);
        /// The cookie's SameSite. `"none"` needs `secure = "always"`.
        same_site: SameSite = SameSite::Lax, Words(SameSite::WORDS);
        /// Whether the cookie has Secure. `"auto"`: if the client has come over TLS. `"always"`: for a relay behind a
        /// TLS terminator.
        secure: Secure = Secure::Auto, Words(Secure::WORDS);
        /// The cookie's Path. Of two pools that set one cookie for the same hosts each has to have another.
        path: String = "/".into(), COOKIE_PATH;
        /// The cookie's Domain, for hosts below it too. `"off"`: the very host.
        domain: Option<String> = None, COOKIE_DOMAIN, off;
        /// Signs opaque values; at least 16 characters. `"file:/PATH"`: what that file has. `"auto"`: a random one at each
        /// start, after which old cookies mean nothing.
        secret: Option<String> = None, SECRET, auto, secret;
    }
}

options! {
    /// How many handshakes the pool and its backends take. Plain HTTP on routes that forward it is none:
    /// `connections_max` bounds it, and it waits in the same queue.
    pub struct Admission {
        /// Handshakes of the pool, over all workers. `"off"`: no limit.
        handshakes_per_second_max: Option<u32> = None, Count(MILLION), off;
        /// So many handshakes may come at once. `"auto"`: as many as in one second.
        handshakes_burst: Option<u32> = None, Count(MILLION), auto;
        /// Handshakes under way with one backend, over all workers. `"off"`: no limit.
        backend_handshakes_max: Option<u32> = None, Count(MILLION), off;
        /// Handshakes and plain HTTP requests of one worker that wait for their turn. 0: none does. More: 503.
        queue_max: u32 = 0, Count(0..=1_000_000);
        /// How long one waits for its turn. Longer: 503.
        queue_timeout: Duration = seconds(5), WAIT;
        /// What those who hear 503 are told in Retry-After, give or take a half.
        retry_after: Duration = seconds(5), Seconds(1..=86_400);
        /// Backends that one request is tried at until one accepts the connection. The last try is a backup's, if there
        /// is one: primaries may all have died just now.
        tries_max: u32 = 3, Count(1..=100);
    }
}

const PATH: Kind = Text(Grammar { what: "a path", such_as: "/health", check: text::target });
const HOST: Kind = Text(Grammar { what: "a host", such_as: "chat.example.com", check: text::authority });

options! {
    /// Active checks of every backend.
    pub struct Health {
        /// `"off"`, `"tcp"` (a connection can be made), `"http"` (a GET is answered with a good status), `"websocket"`
        /// (a handshake succeeds) or `"ping"` (and then a ping is answered).
        check: Check = Check::Off, Words(Check::WORDS);
        /// From one check to the next.
        interval: Duration = seconds(5), WAIT;
        /// Each interval is up to this many percent longer or shorter.
        jitter_percent: u32 = 20, JITTER;
        /// One check may take so long.
        timeout: Duration = seconds(2), WAIT, at_most("health.interval");
        /// Good checks in a row until a backend that is down is up.
        rise: u32 = 2, CHECKS;
        /// Bad checks in a row until a backend is down.
        fall: u32 = 3, CHECKS;
        /// What `"http"`, `"websocket"` and `"ping"` ask for.
        path: String = "/".into(), PATH;
        /// The Host of `"http"`, `"websocket"` and `"ping"`. `"auto"`: the backend's address.
        host: Option<String> = None, HOST, auto;
        /// With `"http"`: the lowest status that is good.
        status_min: u32 = 200, STATUS, at_most("health.status_max");
        /// With `"http"`: the highest status that is good.
        status_max: u32 = 399, STATUS;
    }
}

options! {
    /// Outlier detection: what sessions meet at a backend takes it out for a while.
    pub struct Ejection {
        /// So many failures in a row: no connection, no answer, or one of `statuses`. `"off"`: never.
        failures: Option<u32> = Some(3), Count(MILLION), off;
        /// What an answer to a handshake says about the backend, whoever asked. Any other 5xx, a wrong answer, and a
        /// connection that is closed instead of an answer may be the fault of the request: these count by clients.
        statuses: Vec<u16> = vec![502, 503, 504], Statuses;
        /// So many different clients (IPv6: networks of 64 bits) must have met one of these within a minute...
        clients_min: u32 = 5, Count(1..=64);
        /// ...and so many percent of all clients that the backend has answered or failed in that minute.
        clients_percent: u32 = 50, Count(1..=100);
        /// How long a backend is out the first time, give or take a tenth; doubled each time in a row, which one good
        /// answer ends.
        time: Duration = seconds(5), WAIT, at_most("eject.time_max");
        /// The longest of these times.
        time_max: Duration = seconds(300), WAIT;
        /// So many percent of the pool are never ejected.
        available_percent_min: u32 = 50, PERCENT;
        /// A session that the backend ends without a Close within this time is a failure that counts by clients.
        /// `"off"`: it is none.
        early_close: Option<Duration> = None, WAIT, off;
    }
}

options! {
    /// Circuit breaker: sends no handshakes to a pool that fails as a whole.
    pub struct Breaker {
        /// Opens the circuit when so many percent of the handshakes of a window have failed. `"off"`: never.
        failures_percent: Option<u32> = None, Count(1..=100), off;
        /// In a window of fewer handshakes it does not open.
        handshakes_min: u32 = 20, Count(MILLION);
        /// How long handshakes are counted together.
        window: Duration = seconds(10), WAIT;
        /// How long it stays open; then it is half open.
        open: Duration = seconds(10), WAIT;
        /// Handshakes that half open lets through. If all succeed it closes; if one fails it opens again.
        probes: u32 = 3, Count(1..=1000);
    }
}

options! {
    /// What happens to the live sessions of a backend.
    pub struct Sessions {
        /// When active checks find it down: `"keep"` them, `"restart"` (Close 1012) or `"going-away"` (Close 1001).
        on_down: OnLoss = OnLoss::Keep, Words(OnLoss::WORDS);
        /// When it is drained: as above.
        on_drain: OnLoss = OnLoss::Keep, Words(OnLoss::WORDS);
        /// The Closes of both are spread over this time, so that clients do not all come back at once. 0: all at once.
        close_spread: Duration = seconds(10), WAIT_OR_ZERO;
    }
}

const DNS: Kind =
    Text(Grammar { what: "a name and a port", such_as: "chat.example.com:9000", check: text::name_and_port });
const SRV: Kind =
    Text(Grammar { what: "a service's name", such_as: "_ws._tcp.chat.example.com", check: text::service });
const FILE: Kind = Text(Grammar { what: "a file's path", such_as: "/run/ringway/backends.toml", check: text::file });

options! {
    /// Where backends come from that are not listed above.
    pub struct Discovery {
        /// The A and AAAA records of a name, and the port. With a dot behind it the name is whole, and no search domain
        /// of /etc/resolv.conf is tried: `"chat.svc.cluster.local.:9000"`.
        dns: Option<String> = None, DNS, off;
        /// SRV records of a name, which may end with a dot too.
        srv: Option<String> = None, SRV, off;
        /// A TOML or JSON file that something else writes.
        file: Option<PathBuf> = None, FILE, off;
        /// DNS is asked again when its TTL is over, but no sooner than this.
        interval_min: Duration = seconds(5), WAIT, at_most("discovery.interval_max");
        /// DNS is asked again no later than this, also after a failure.
        interval_max: Duration = seconds(60), WAIT;
        /// Each wait until DNS is asked again is up to this many percent longer.
        jitter_percent: u32 = 10, PERCENT;
        /// How long the last answer stays when DNS says that there is no such name, or no such records. No answer, or
        /// SERVFAIL, says nothing of the kind. 0: it goes at once.
        empty_after: Duration = seconds(60), WAIT_OR_ZERO;
        /// A backend of the file's whose name cannot be resolved: `"retry"` (a warning; the pool does without it, and
        /// it is looked up again, after `interval_min` and then ever more rarely, until it can be; at a reload its last
        /// addresses stay), `"refuse"` (the configuration is refused).
        unresolved: Unresolved = Unresolved::Retry, Words(Unresolved::WORDS);
    }
    fields {
        /// Backends of the file's that are looked up again.
        pub names: Vec<Named> = Vec::new(),
        /// What the file's other names were resolved to: should that fail at a reload, these addresses stay.
        pub resolved: Vec<(String, Vec<Address>)> = Vec::new(),
    }
}

/// What `consistent-hash` looks at. A request without it is balanced by the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    #[default]
    ClientIp,
    Header(String),
    Cookie(String),
    Query(String),
    /// The whole path, or its segment of this number, from 1.
    Path(Option<usize>),
}

/// Backends of the file's behind a name: one for each of its addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// `host:port`
    pub target: String,
    /// What the first is called, and with a number behind it the others. `None`: each is called by its address.
    pub name: Option<String>,
    /// Of all of them, but for their names and addresses.
    pub model: Backend,
    /// Why it could not be resolved.
    pub fault: String,
}

impl PoolConfig {
    /// Defaults everywhere, no backend.
    pub fn named(name: impl Into<String>) -> Self {
        PoolConfig { name: name.into(), ..PoolConfig::default() }
    }
}

impl Named {
    /// May block on DNS.
    pub fn resolve(&self) -> Result<Vec<Backend>, String> {
        let addresses = self.target.parse::<Target>()?.resolve()?;
        Ok(self.at(&addresses))
    }

    pub fn at(&self, addresses: &[Address]) -> Vec<Backend> {
        let backend = |(index, address): (usize, &Address)| {
            let name = match (&self.name, index) {
                (None, _) => address.to_string(),
                (Some(name), 0) => name.clone(),
                (Some(name), index) => format!("{name}-{}", index + 1),
            };
            Backend { name, address: address.clone(), ..self.model.clone() }
        };
        addresses.iter().enumerate().map(backend).collect()
    }

    /// The same backends are wanted.
    pub fn is_like(&self, other: &Named) -> bool {
        (&self.target, &self.name, &self.model) == (&other.target, &other.name, &other.model)
    }
}

impl From<Address> for Backend {
    fn from(address: Address) -> Self {
        Backend { name: address.to_string(), address, ..Backend::default() }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::ClientIp => f.write_str("client-ip"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
            HashKey::Query(name) => write!(f, "query:{name}"),
            HashKey::Path(None) => f.write_str("path"),
            HashKey::Path(Some(segment)) => write!(f, "path:{segment}"),
        }
    }
}

impl FromStr for HashKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client-ip" => Ok(HashKey::ClientIp),
            None if text == "path" => Ok(HashKey::Path(None)),
            Some(("path", segment)) => match segment.parse() {
                Ok(segment @ 1..=100) => Ok(HashKey::Path(Some(segment))),
                _ => Err(format!("\"{}\" is not the number of a segment, 1 to 100", segment.escape_debug())),
            },
            Some(("header", name)) => text::request_header_name(name).map(|()| HashKey::Header(name.into())),
            Some(("cookie", name)) => text::cookie_name(name).map(|()| HashKey::Cookie(name.into())),
            Some(("query", name)) => text::query_name(name).map(|()| HashKey::Query(name.into())),
            _ => Err(format!(
                "\"{}\" is not known; write \"client-ip\", \"path\", \"path:N\", \"header:NAME\", \"cookie:NAME\" or \
                 \"query:NAME\"",
                text.escape_debug()
            )),
        }
    }
}

impl Discovery {
    /// The backends at this target, whose name is looked up: may block on DNS. None are if it cannot be resolved, and
    /// is to be looked up again.
    pub(super) fn resolve(&mut self, target: &Target, named: Named) -> Result<Vec<Backend>, String> {
        if self.names.iter().any(|other| other.target == named.target) {
            return Err(format!("{} is listed twice", named.target));
        }
        match target.resolve() {
            Ok(addresses) => {
                let backends = named.at(&addresses);
                if matches!(target, Target::Name { .. }) {
                    self.resolved.push((named.target, addresses));
                }
                Ok(backends)
            }
            Err(fault) if self.unresolved == Unresolved::Retry => {
                self.names.push(Named { fault, ..named });
                Ok(Vec::new())
            }
            Err(fault) => Err(fault),
        }
    }

    /// The file is not all there is to know.
    pub fn is_on(&self) -> bool {
        self.dns.is_some() || self.srv.is_some() || self.file.is_some() || !self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: Option<&str>) -> Named {
        let model = Backend { weight: 7, ..Backend::from(Address::Unix("".into())) };
        Named { target: "b.example:80".into(), name: name.map(Into::into), model, fault: String::new() }
    }

    #[test]
    fn backends_behind_one_name_are_numbered() {
        let addresses = [0, 1, 2].map(|last| Address::Inet(([10, 0, 0, last], 80).into()));
        let names = |name: Option<&str>| {
            let backends = named(name).at(&addresses).into_iter();
            backends.map(|backend| format!("{} {}", backend.name, backend.weight)).collect::<Vec<_>>()
        };
        assert_eq!(names(Some("b")), ["b 7", "b-2 7", "b-3 7"]);
        assert_eq!(names(None), ["10.0.0.0:80 7", "10.0.0.1:80 7", "10.0.0.2:80 7"]);
    }

    #[test]
    fn field_r12_a_name_that_cannot_be_resolved_is_looked_up_again_or_refused() {
        // A label of 64 letters is refused before anyone is asked, so that this needs no network.
        let target = Target::Name { host: "x".repeat(64), port: 80 };
        let mut discovery = PoolConfig::named("chat").discovery;
        assert_eq!(discovery.resolve(&target, named(Some("b"))), Ok(vec![]));
        let [kept] = &discovery.names[..] else { panic!("{:?}", discovery.names) };
        assert!(kept.is_like(&named(Some("b"))) && kept.fault.contains("cannot be resolved"), "{kept:?}");
        assert!(!kept.is_like(&named(None)) && discovery.is_on());
        assert_eq!(discovery.resolve(&target, named(Some("c"))), Err("b.example:80 is listed twice".into()));
        discovery.unresolved = Unresolved::Refuse;
        discovery.names.clear();
        assert!(discovery.resolve(&target, named(None)).unwrap_err().contains("cannot be resolved"));
        assert!(discovery.names.is_empty());
    }
}
