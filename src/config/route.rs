//! A route: which requests it takes, where they go, and how they are changed on the way.

use std::fmt;
use std::str::FromStr;

use super::options::Kind::{Text, Words};
use super::options::{Grammar, Kind, Paths, PlainHttp, options};
use super::{CloseCodes, Forward, Limits, Timeouts, text};

const SUBPROTOCOL: Kind = Text(Grammar { what: "a subprotocol", such_as: "chat.v2", check: text::subprotocol });
const REWRITE: Kind = Text(Grammar { what: "a path", such_as: "/chat", check: text::path });

options! {
    /// Which requests go where.
    pub struct Route {
        /// A subprotocol that the client has to have offered. Left out: any or none.
        subprotocol: Option<String> = None, SUBPROTOCOL;
        /// What becomes of paths that a backend may read as others, with dot segments, encoded slashes or two slashes
        /// at the beginning. `"strict"`: 400. `"as-is"`: they go on as they came. `"auto"`: strict if a route for the
        /// same hosts has a path condition, which such a path could get around.
        paths: Option<Paths> = None, Words(Paths::WORDS), auto;
        /// Takes the place of the part of the path that was matched. Left out: the path stays.
        rewrite: Option<String> = None, REWRITE;
        /// What becomes of requests that are no upgrades. `"refuse"`: 426. `"forward"`: one request per connection goes
        /// on to the pool.
        plain_http: PlainHttp = PlainHttp::Refuse, Words(PlainHttp::WORDS);
    }
    fields {
        /// For logs.
        pub name: String = String::new(),
        /// Names of listeners. Empty: all.
        pub listeners: Vec<String> = Vec::new(),
        /// One of them. Never empty.
        pub hosts: Vec<HostMatch> = vec![HostMatch::Any],
        pub path: PathMatch = PathMatch::Any,
        /// All of them must be there.
        pub headers: Vec<HeaderMatch> = Vec::new(),
        /// An index into the config's pools.
        pub pool: usize = usize::MAX,
        pub request_headers: HeaderEdits = HeaderEdits::default(),
        pub response_headers: HeaderEdits = HeaderEdits::default(),
        /// The config's own, but for what the route says otherwise. Only what concerns one routed request is looked at.
        pub limits: Limits = Limits::default(),
        pub timeouts: Timeouts = Timeouts::default(),
        pub close_codes: CloseCodes = CloseCodes::default(),
        pub forward: Forward = Forward::default(),
    }
}

/// Held against the name in the Host header, without the port and in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostMatch {
    #[default]
    Any,
    /// In lower case, without a dot at the end.
    Exact(String),
    /// Of `*.example.com` this is `.example.com`: any name that ends so, with at least one label before it.
    Suffix(String),
}

/// Held against the path's normal form (`proto::upgrade::normal_form`), without the query. Case counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathMatch {
    #[default]
    Any,
    Exact(String),
    /// Whole segments: `/chat` takes `/chat` and `/chat/room`, not `/chatter`.
    Segments(String),
    /// Plain text: `/chat` takes `/chatter` too.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    pub name: String,
    pub value: ValueMatch,
}

/// Held against a header's value. Case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueMatch {
    Any,
    Exact(String),
    Prefix(String),
    Suffix(String),
}

/// In this order: removed, set (in place of what was there), added (beside it).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub remove: Vec<String>,
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostMatch::Any => f.write_str("*"),
            HostMatch::Exact(name) => f.write_str(name),
            HostMatch::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl FromStr for HostMatch {
    type Err = String;

    /// In any case, and with or without a dot at the end.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (suffix, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        match (text, suffix) {
            ("*", _) => Ok(HostMatch::Any),
            (_, false) if text::is_host(name) => Ok(HostMatch::Exact(name.into())),
            (_, true) if text::is_host(name) && !name.starts_with('[') => Ok(HostMatch::Suffix(format!(".{name}"))),
            _ => Err(format!(
                "\"{}\" is not a host; write it as chat.example.com, *.example.com or *, without a port",
                text.escape_debug()
            )),
        }
    }
}

impl HostMatch {
    /// Whether there may be a host that both take.
    pub fn overlaps(&self, other: &HostMatch) -> bool {
        match (self, other) {
            (HostMatch::Any, _) | (_, HostMatch::Any) => true,
            (HostMatch::Exact(one), HostMatch::Exact(other)) => one == other,
            (HostMatch::Suffix(suffix), HostMatch::Exact(name))
            | (HostMatch::Exact(name), HostMatch::Suffix(suffix)) => {
                name.len() > suffix.len() && name.ends_with(suffix)
            }
            (HostMatch::Suffix(one), HostMatch::Suffix(other)) => one.ends_with(other) || other.ends_with(one),
        }
    }
}

impl ValueMatch {
    pub fn takes(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Any => true,
            ValueMatch::Exact(wanted) => value == wanted.as_bytes(),
            ValueMatch::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            ValueMatch::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueMatch::Any => f.write_str("*"),
            ValueMatch::Exact(value) => f.write_str(value),
            ValueMatch::Prefix(value) => write!(f, "{value}*"),
            ValueMatch::Suffix(value) => write!(f, "*{value}"),
        }
    }
}

impl FromStr for ValueMatch {
    type Err = String;

    /// A star at one end stands for anything.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text == "*" => return Ok(ValueMatch::Any),
            (Some(rest), _) => ValueMatch::Suffix(rest.into()),
            (None, Some(rest)) => ValueMatch::Prefix(rest.into()),
            (None, None) => ValueMatch::Exact(text.into()),
        };
        match &found {
            ValueMatch::Prefix(rest) | ValueMatch::Suffix(rest) | ValueMatch::Exact(rest) if rest.contains('*') => {
                let (start, end) = text.split_once('*').unwrap_or_default();
                let (start, end) = (start.escape_debug(), end.trim_start_matches('*').escape_debug());
                Err(format!(
                    "\"{}\" has a star inside, which would stand for itself; one may begin or end a value: \"{start}*\" or \"*{end}\"",
                    text.escape_debug()
                ))
            }
            _ => Ok(found),
        }
    }
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

impl Route {
    /// Takes every request, changes nothing, and has the limits, timeouts and forwarding of `config`.
    pub fn catch_all(name: impl Into<String>, pool: usize, config: &super::Config) -> Self {
        Route {
            name: name.into(),
            pool,
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            close_codes: config.close_codes,
            forward: config.forward.clone(),
            ..Route::default()
        }
    }

    /// Whether it refuses paths that a backend may read as others, of which one could get around a condition on paths: of this
    /// route, or of another one that takes the same hosts.
    pub fn is_strict(&self, routes: &[Route]) -> bool {
        let overlaps =
            |other: &Route| self.hosts.iter().any(|host| other.hosts.iter().any(|other| host.overlaps(other)));
        match self.paths {
            Some(paths) => paths == Paths::Strict,
            None => routes.iter().any(|other| other.path != PathMatch::Any && overlaps(other)),
        }
    }

    /// Sorts routes: the smaller is the more specific. Host first (of several the most specific one), then path, then
    /// the number of other conditions; the file's order decides the rest.
    pub fn rank(&self) -> impl Ord + use<> {
        let host = |host: &HostMatch| match host {
            HostMatch::Exact(_) => (0, 0),
            HostMatch::Suffix(suffix) => (1, usize::MAX - suffix.len()),
            HostMatch::Any => (2, 0),
        };
        (self.hosts.iter().map(host).min(), self.rank_within_host())
    }

    /// Among those that take the same host.
    pub fn rank_within_host(&self) -> impl Ord + use<> {
        let path = match &self.path {
            PathMatch::Exact(_) => (0, 0, 0),
            PathMatch::Segments(path) => (1, usize::MAX - path.len(), 0),
            PathMatch::Prefix(path) => (1, usize::MAX - path.len(), 1),
            PathMatch::Any => (2, 0, 0),
        };
        let conditions =
            self.headers.len() + usize::from(self.subprotocol.is_some()) + usize::from(!self.listeners.is_empty());
        (path, usize::MAX - conditions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_lower_case() {
        let exact = |name: &str| Ok(HostMatch::Exact(name.into()));
        assert_eq!("Chat.Example.COM.".parse(), exact("chat.example.com"));
        assert_eq!("[::A]".parse(), exact("[::a]"));
        assert_eq!("10.0.0.1".parse(), exact("10.0.0.1"));
        assert_eq!("*.Example.com".parse(), Ok(HostMatch::Suffix(".example.com".into())));
        assert_eq!("*".parse(), Ok(HostMatch::Any));
        for text in ["", ".", "a:80", "[::1]:80", "*.", "*..", "*a.b", "a.*", "*.*", "**", "*.[::1]", "http://a", "a/b"]
        {
            assert!(text.parse::<HostMatch>().is_err(), "{text}");
        }
        for text in ["*", "*.a.b", "a.b", "[::1]"] {
            assert_eq!(text.parse::<HostMatch>().unwrap().to_string(), text);
        }
    }
}
