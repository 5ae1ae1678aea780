//! A pool of backends: who they are, how one is chosen, and what happens when they are not well.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Address, Target, text};

#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    pub name: String,
    /// Those that the file names. Discovery adds to them.
    pub backends: Vec<Backend>,
    pub balance: Balance,
    /// What `consistent-hash` hashes.
    pub hash: HashKey,
    /// With `consistent-hash`: no backend takes more than this many percent of the average load. `None`: no bound. Those who
    /// join the open sessions of their key are not turned away by it.
    pub hash_load_percent_max: Option<u32>,
    /// With `consistent-hash` of anything but the address: what the open sessions of a key are to newcomers with that key.
    pub hash_keep: HashKeep,
    /// Sessions of one backend, unless the backend says otherwise. `None`: no limit.
    pub connections_max: Option<u32>,
    /// A backend that has come up gets its full share only after this time. `None`: at once.
    pub slow_start: Option<Duration>,
    pub sticky: Sticky,
    pub admission: Admission,
    pub health: Health,
    pub eject: Ejection,
    pub breaker: Breaker,
    pub sessions: Sessions,
    pub discovery: Discovery,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Stable, unique in its pool: the value of cookies, and what logs call it. The address unless it is given.
    pub name: String,
    pub address: Address,
    /// Share of new sessions, 1 to 256.
    pub weight: u32,
    /// Sessions at a time. `None`: as the pool says.
    pub connections_max: Option<u32>,
    /// `None`: as the pool says.
    pub slow_start: Option<Duration>,
    /// Used only when no other backend of the pool is usable.
    pub backup: bool,
    /// Gets no new sessions.
    pub drain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth and weighted.
    #[default]
    RoundRobin,
    /// Weighted, counted over all workers.
    LeastConnections,
    /// The less loaded of two random ones.
    PowerOfTwo,
    Random,
    /// The same client address goes to the same backend.
    IpHash,
    /// The same key goes to the same backend, within the bound on its load.
    ConsistentHash,
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

/// Where newcomers go whose key has open sessions at a backend that is not the one the hash leads to, as that was away when
/// they came, or is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashKeep {
    /// To the open sessions, until their backend is drained, down or ejected.
    #[default]
    On,
    /// Where the hash leads, whoever is elsewhere.
    Off,
    /// Where the hash leads, and the sessions that are elsewhere are told to come there.
    Home,
}

/// A cookie that brings a client back to its backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Sticky {
    /// The cookie's name. `None`: no stickiness.
    pub cookie: Option<String>,
    pub value: StickyValue,
    pub same_site: SameSite,
    pub secure: Secure,
    /// For which paths and hosts the client brings it back. `domain`: `None` for the very host.
    pub path: String,
    pub domain: Option<String>,
    /// Signs opaque values. `None`: a random one at each start, after which old cookies mean nothing.
    pub secret: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StickyValue {
    /// An HMAC of the backend's name: tells nobody anything, and nobody can make one up.
    #[default]
    Opaque,
    /// The backend's name.
    Name,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    #[default]
    Lax,
    Strict,
    /// Needs `Secure` with today's browsers.
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secure {
    /// When the client has come over TLS.
    #[default]
    Auto,
    /// For a relay behind a TLS terminator.
    Always,
}

/// How many handshakes a pool and its backends take, and what happens to the others. Plain HTTP is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Of the pool, over all workers. `None`: no limit.
    pub handshakes_per_second_max: Option<u32>,
    /// So many may come at once. `None`: as many as in one second.
    pub handshakes_burst: Option<u32>,
    /// Handshakes under way with one backend, over all workers. `None`: no limit.
    pub backend_handshakes_max: Option<u32>,
    /// Handshakes and plain HTTP requests of one worker that wait for their turn. 0: none, they hear 503 at once.
    pub queue_max: u32,
    /// How long one waits; then 503.
    pub queue_timeout: Duration,
    /// What a refused client is told in Retry-After, give or take a half.
    pub retry_after: Duration,
    /// Backends that one request is tried at until one accepts the connection. The last of them is a backup, if there is
    /// one.
    pub tries_max: u32,
}

/// Active checks of every backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    pub check: Check,
    /// From one check to the next.
    pub interval: Duration,
    /// Each interval is up to this many percent longer or shorter.
    pub jitter_percent: u32,
    pub timeout: Duration,
    /// Good checks in a row until a backend that is down is up.
    pub rise: u32,
    /// Bad ones in a row until it is down.
    pub fall: u32,
    /// The target of `http`, `websocket` and `ping`.
    pub path: String,
    /// Their Host. `None`: the backend's address.
    pub host: Option<String>,
    /// With `http`: the lowest and the highest status that is good.
    pub status_min: u32,
    pub status_max: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    #[default]
    Off,
    /// A connection can be made.
    Tcp,
    /// A GET is answered with a good status.
    Http,
    /// A WebSocket handshake succeeds.
    Websocket,
    /// A WebSocket handshake succeeds, and a ping is answered.
    Ping,
}

/// Passive health: what sessions meet at a backend takes it out for a while (outlier detection).
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    /// So many failures in a row. `None`: never.
    pub failures: Option<u32>,
    /// Answers to a handshake that count at once, as no connection and silence do. Any other 5xx counts as hang-ups and
    /// wrong answers do: by clients.
    pub statuses: Vec<u16>,
    /// So many different clients at least must have met these...
    pub clients_min: u32,
    /// ...and so many percent of those seen.
    pub clients_percent: u32,
    /// For how long the first time, give or take a tenth; then doubled each time.
    pub time: Duration,
    pub time_max: Duration,
    /// So much of the pool is never ejected, in percent.
    pub available_percent_min: u32,
    /// A session that the backend ends without a Close within this time is a failure. `None`: it is none.
    pub early_close: Option<Duration>,
}

/// Stops sending handshakes to a pool that fails as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Opens when so many percent of a window's handshakes failed. `None`: never.
    pub failures_percent: Option<u32>,
    /// In windows of fewer handshakes it does not open.
    pub handshakes_min: u32,
    pub window: Duration,
    /// How long it is open; then half open.
    pub open: Duration,
    /// Handshakes that half open lets through. If all succeed it closes, if one fails it opens again.
    pub probes: u32,
}

/// What happens to the live sessions of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// When active checks have found it down.
    pub on_down: OnLoss,
    /// When it is drained.
    pub on_drain: OnLoss,
    /// Their Closes are spread over this time. Zero: all at once.
    pub close_spread: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    #[default]
    Keep,
    /// Close 1012: come back, another backend will serve you.
    Restart,
    /// Close 1001.
    GoingAway,
}

/// Where backends come from that the file does not name.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// A and AAAA records of a name, and the port.
    pub dns: Option<String>,
    /// SRV records: `_ws._tcp.chat.example`.
    pub srv: Option<String>,
    /// A TOML or JSON file that something else writes.
    pub file: Option<PathBuf>,
    /// DNS is asked again when its TTL is over, but no sooner than this.
    pub interval_min: Duration,
    /// And no later than this, also after a failure.
    pub interval_max: Duration,
    /// Each of these waits is up to this many percent longer.
    pub jitter_percent: u32,
    /// How long the last answer stays when DNS says that there is nothing.
    pub empty_after: Duration,
    /// What a backend of the file's is whose name cannot be resolved.
    pub unresolved: Unresolved,
    /// Those of them that are looked up again.
    pub names: Vec<Named>,
    /// What the file's other names were resolved to: should that fail at a reload, these addresses stay.
    pub resolved: Vec<(String, Vec<Address>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unresolved {
    /// The pool does without it until its name can be resolved.
    #[default]
    Retry,
    /// A fault of the configuration.
    Refuse,
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
        let seconds = Duration::from_secs;
        PoolConfig {
            name: name.into(),
            backends: Vec::new(),
            balance: Balance::default(),
            hash: HashKey::default(),
            hash_load_percent_max: Some(125),
            hash_keep: HashKeep::default(),
            connections_max: None,
            slow_start: None,
            sticky: Sticky {
                cookie: None,
                value: StickyValue::default(),
                same_site: SameSite::default(),
                secure: Secure::default(),
                path: "/".into(),
                domain: None,
                secret: None,
            },
            admission: Admission {
                handshakes_per_second_max: None,
                handshakes_burst: None,
                backend_handshakes_max: None,
                queue_max: 0,
                queue_timeout: seconds(5),
                retry_after: seconds(5),
                tries_max: 3,
            },
            health: Health {
                check: Check::default(),
                interval: seconds(5),
                jitter_percent: 20,
                timeout: seconds(2),
                rise: 2,
                fall: 3,
                path: "/".into(),
                host: None,
                status_min: 200,
                status_max: 399,
            },
            eject: Ejection {
                failures: Some(3),
                statuses: vec![502, 503, 504],
                clients_min: 5,
                clients_percent: 50,
                time: seconds(5),
                time_max: seconds(300),
                available_percent_min: 50,
                early_close: None,
            },
            breaker: Breaker {
                failures_percent: None,
                handshakes_min: 20,
                window: seconds(10),
                open: seconds(10),
                probes: 3,
            },
            sessions: Sessions { on_down: OnLoss::Keep, on_drain: OnLoss::Keep, close_spread: seconds(10) },
            discovery: Discovery {
                dns: None,
                srv: None,
                file: None,
                interval_min: seconds(5),
                interval_max: seconds(60),
                jitter_percent: 10,
                empty_after: seconds(60),
                unresolved: Unresolved::default(),
                names: Vec::new(),
                resolved: Vec::new(),
            },
        }
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
        Backend {
            name: address.to_string(),
            address,
            weight: 1,
            connections_max: None,
            slow_start: None,
            backup: false,
            drain: false,
        }
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
    /// The backends at this target, whose name is looked up: may block on DNS. None are if it cannot be resolved, and is to be
    /// looked up again.
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
