//! Host, path and the rest of a request -> the route that takes it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, HeaderMatch, HostMatch, PathMatch, Route, ValueMatch};
use crate::proto::upgrade::{normal_form, raw_len};

/// All routes, the most specific first, and an index over their hosts: routes are ranked by host before anything else, so
/// those of the exact host, of each suffix and of any host are asked one group after the other.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Entry>,
    exact: HashMap<String, Vec<u32>>,
    suffixes: HashMap<String, Vec<u32>>,
    any: Vec<u32>,
    /// Dots of the suffix that has most of them: no more of a host's are looked at.
    suffix_dots_max: usize,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Route>,
    /// Paths that a backend may read as others are refused.
    strict: bool,
    /// Numbers in the config. Empty: all.
    listeners: Vec<usize>,
}

/// What routes look at.
pub trait RequestView {
    /// In lower case, without port and without a dot at the end.
    fn host_name(&self) -> Cow<'_, str>;
    fn path(&self) -> &str;
    /// Whether there is such a line, with such a value.
    fn has_header(&self, name: &str, value: &ValueMatch) -> bool;
    fn offers_subprotocol(&self, name: &str) -> bool;
}

impl Router {
    /// The config's routes in their order, and behind them one that takes the rest, if there is a pool for it. Those that
    /// are in the router `before` too are that one's.
    pub fn new(config: &Config, before: Option<&Router>) -> Self {
        let before: HashMap<&str, &Arc<Route>> = before
            .map(|before| before.routes.iter().map(|entry| (&*entry.route.name, &entry.route)).collect())
            .unwrap_or_default();
        let rest = config.default_pool.map(|pool| Route::catch_all("default", pool, config));
        let number = |name: &String| config.listeners.iter().position(|listener| listener.name == *name);
        let entry = |route: Route| Entry {
            listeners: route.listeners.iter().filter_map(number).collect(),
            strict: route.is_strict(&config.routes),
            route: match before.get(&*route.name) {
                Some(before) if ***before == route => (*before).clone(),
                _ => Arc::new(route),
            },
        };
        let mut router = Router {
            routes: config.routes.iter().cloned().chain(rest).map(entry).collect(),
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            any: Vec::new(),
            suffix_dots_max: 0,
        };
        // Among those of one host the file's order decides where nothing else does, and so does the sort.
        let mut order: Vec<usize> = (0..router.routes.len()).collect();
        order.sort_by_cached_key(|number| router.routes[*number].route.rank_within_host());
        for number in order {
            for host in &router.routes[number].route.hosts {
                let group = match host {
                    HostMatch::Exact(host) => router.exact.entry(host.clone()).or_default(),
                    HostMatch::Suffix(suffix) => {
                        let dots = suffix.bytes().filter(|byte| *byte == b'.').count();
                        router.suffix_dots_max = router.suffix_dots_max.max(dots);
                        router.suffixes.entry(suffix.clone()).or_default()
                    }
                    HostMatch::Any => &mut router.any,
                };
                group.push(number as u32);
            }
        }
        router
    }

    /// Whether this route refuses paths that a backend may read as others.
    pub fn is_strict(&self, number: u32) -> bool {
        self.routes[number as usize].strict
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub fn route(&self, number: u32) -> &Arc<Route> {
        &self.routes[number as usize].route
    }

    /// The first route that takes this request, and how many bytes of the path it has matched. `listener`: the number in
    /// the config of the one that the client came to; `None` if the config has lost it since.
    pub fn find(&self, asked: &impl RequestView, listener: Option<usize>) -> Option<(u32, usize)> {
        let host = asked.host_name();
        let host = &*host;
        let exact = self.exact.get(host).into_iter();
        // From the longest suffix to the shortest. A name without anything before the first dot has none.
        let first = host.rmatch_indices('.').take(self.suffix_dots_max).last().map_or(host.len(), |(at, _)| at);
        let dots = host[first..].match_indices('.').map(|(at, _)| first + at).filter(|at| *at > 0);
        let suffixes = dots.filter_map(|at| self.suffixes.get(&host[at..]));
        let path = normal_form(asked.path());
        exact.chain(suffixes).chain([&self.any]).flatten().find_map(|&number| {
            let entry = &self.routes[number as usize];
            let matched = entry.route.path.matched(&path)?;
            entry.takes(asked, listener).then(|| (number, raw_len(asked.path(), matched)))
        })
    }
}

impl Entry {
    fn takes(&self, asked: &impl RequestView, listener: Option<usize>) -> bool {
        let Route { headers, subprotocol, listeners, .. } = &*self.route;
        (listeners.is_empty() || listener.is_some_and(|listener| self.listeners.contains(&listener)))
            && headers.iter().all(|HeaderMatch { name, value }| asked.has_header(name, value))
            && subprotocol.as_ref().is_none_or(|name| asked.offers_subprotocol(name))
    }
}

impl PathMatch {
    /// How many bytes of this path, in its normal form, it matches; `None` if it does not.
    fn matched(&self, path: &str) -> Option<usize> {
        let prefix = match self {
            PathMatch::Any => return Some(0),
            PathMatch::Exact(wanted) => return (path == wanted).then_some(path.len()),
            PathMatch::Segments(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
            PathMatch::Prefix(prefix) => prefix,
        };
        let rest = path.strip_prefix(prefix)?;
        let whole = matches!(self, PathMatch::Prefix(_)) || rest.is_empty() || rest.starts_with('/');
        whole.then_some(prefix.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Paths, PoolConfig};

    struct Request {
        host: &'static str,
        path: &'static str,
        headers: &'static [(&'static str, &'static str)],
        subprotocol: &'static str,
    }

    impl RequestView for Request {
        fn host_name(&self) -> Cow<'_, str> {
            self.host.into()
        }

        fn path(&self) -> &str {
            self.path
        }

        fn has_header(&self, name: &str, value: &ValueMatch) -> bool {
            self.headers.iter().any(|header| header.0 == name && value.takes(header.1.as_bytes()))
        }

        fn offers_subprotocol(&self, name: &str) -> bool {
            self.subprotocol == name
        }
    }

    const ASKED: Request = Request { host: "a.example", path: "/chat", headers: &[], subprotocol: "" };

    /// Routes in the order of their ranks, as the config's checks leave them.
    fn router(edits: Vec<fn(&mut Route)>, default: bool) -> Router {
        let mut config = Config {
            pools: vec![PoolConfig::named("chat")],
            listeners: vec!["127.0.0.1:1", "127.0.0.1:2"]
                .into_iter()
                .map(|address| address.parse::<crate::config::Address>().unwrap().into())
                .collect(),
            default_pool: default.then_some(0),
            ..Config::default()
        };
        config.routes = edits
            .into_iter()
            .enumerate()
            .map(|(number, edit)| {
                let mut route = Route::catch_all(number.to_string(), 0, &config);
                edit(&mut route);
                route
            })
            .collect();
        config.routes.sort_by_key(Route::rank);
        Router::new(&config, None)
    }

    fn found(router: &Router, asked: &Request, listener: Option<usize>) -> Option<(String, usize)> {
        router.find(asked, listener).map(|(number, matched)| (router.route(number).name.clone(), matched))
    }

    #[track_caller]
    fn expect(router: &Router, asked: &Request, name: &str) {
        assert_eq!(found(router, asked, Some(0)).map(|found| found.0).as_deref(), Some(name));
    }

    #[test]
    fn the_more_specific_host_comes_first() {
        let router = router(
            vec![
                |_| {},
                |route| route.hosts = vec![HostMatch::Suffix(".example".into())],
                |route| route.hosts = vec![HostMatch::Suffix(".a.example".into())],
                |route| route.hosts = vec![HostMatch::Exact("a.example".into())],
            ],
            false,
        );
        for (host, name) in [
            ("a.example", "3"),
            ("b.a.example", "2"),
            ("c.b.a.example", "2"),
            ("b.example", "1"),
            ("example", "0"),
            (".example", "0"),
            ("aexample", "0"),
        ] {
            expect(&router, &Request { host, ..ASKED }, name);
        }
    }

    #[test]
    fn the_more_specific_path_comes_first() {
        let router = router(
            vec![
                |route| route.path = PathMatch::Prefix("/ch".into()),
                |route| route.path = PathMatch::Segments("/chat".into()),
                |route| route.path = PathMatch::Exact("/chat".into()),
                |route| route.path = PathMatch::Segments("/chat/room/".into()),
                |_| {},
            ],
            false,
        );
        for (path, name, matched) in [
            ("/chat", "2", 5),
            ("/chat/", "1", 5),
            ("/chat/x", "1", 5),
            ("/chatter", "0", 3),
            ("/chat/room", "3", 10),
            ("/chat/room/1", "3", 10),
            ("/chat/rooms", "1", 5),
            ("/CHAT", "4", 0),
            ("/", "4", 0),
        ] {
            assert_eq!(found(&router, &Request { path, ..ASKED }, None), Some((name.into(), matched)), "{path}");
        }
    }

    #[test]
    fn a_host_outranks_a_path_and_a_path_a_header() {
        let router = router(
            vec![
                |route| route.path = PathMatch::Exact("/chat".into()),
                |route| route.hosts = vec![HostMatch::Exact("a.example".into())],
                |route| route.headers = vec![HeaderMatch { name: "X".into(), value: ValueMatch::Any }],
            ],
            false,
        );
        let asked = Request { headers: &[("X", "1")], ..ASKED };
        expect(&router, &asked, "1");
        expect(&router, &Request { host: "b", ..asked }, "0");
        expect(&router, &Request { host: "b", path: "/", ..asked }, "2");
    }

    #[test]
    fn every_condition_must_hold() {
        let router = router(
            vec![
                |route| route.headers = vec![HeaderMatch { name: "X".into(), value: ValueMatch::Exact("1".into()) }],
                |route| route.subprotocol = Some("v2".into()),
                |route| {
                    route.subprotocol = Some("v2".into());
                    route.listeners = vec!["127.0.0.1:2".into()];
                },
            ],
            false,
        );
        let found = |headers, subprotocol, listener| {
            found(&router, &Request { headers, subprotocol, ..ASKED }, listener).map(|found| found.0)
        };
        assert_eq!(found(&[("X", "1")], "", None).as_deref(), Some("0"));
        assert_eq!(found(&[("X", "2")], "", None), None);
        assert_eq!(found(&[], "v2", Some(0)).as_deref(), Some("1"));
        assert_eq!(found(&[], "v2", Some(1)).as_deref(), Some("2"));
        assert_eq!(found(&[], "v2", None).as_deref(), Some("1"), "the listener is gone");
    }

    #[test]
    fn the_default_pool_takes_the_rest() {
        let exact: fn(&mut Route) = |route| route.path = PathMatch::Exact("/x".into());
        assert_eq!(found(&router(vec![exact], false), &ASKED, None), None);
        expect(&router(vec![exact], true), &ASKED, "default");
    }

    #[test]
    fn field_a01_no_more_labels_are_looked_up_than_suffixes_have() {
        let router = router(vec![|route| route.hosts = vec![HostMatch::Suffix(".b.example".into())]], true);
        assert_eq!(router.suffix_dots_max, 2);
        let taken = |host: &'static str| router.find(&Request { host, ..ASKED }, None).unwrap().0;
        for host in ["a.b.example", "x.a.b.example", "a.b.example.b.example", ".b.example.b.example"] {
            assert_eq!(taken(host), 0, "{host}");
        }
        for host in ["b.example", ".b.example", "a.b.example.x", "ab.example", "example", ""] {
            assert_eq!(taken(host), 1, "{host}");
        }
    }

    #[test]
    fn field_b05_a_route_of_several_hosts_has_its_rank_with_each() {
        let router = router(
            vec![
                |route| {
                    route.hosts = vec![HostMatch::Exact("a.example".into()), HostMatch::Any];
                },
                |route| route.path = PathMatch::Segments("/chat".into()),
            ],
            false,
        );
        let taken =
            |host: &'static str, path: &'static str| router.find(&Request { host, path, ..ASKED }, None).unwrap().0;
        assert_eq!([taken("a.example", "/chat"), taken("b.example", "/chat"), taken("b.example", "/")], [0, 1, 0]);
    }

    #[test]
    fn field_r01_paths_are_guarded_where_there_is_something_to_get_around() {
        let strict = |edits: Vec<fn(&mut Route)>| {
            let router = router(edits, true);
            (0..router.len() as u32).map(|number| router.is_strict(number)).collect::<Vec<_>>()
        };
        let host = |route: &mut Route| route.hosts = vec![HostMatch::Exact("a.example".into())];
        assert_eq!(strict(vec![]), [false]);
        assert_eq!(strict(vec![host]), [false, false]);
        assert_eq!(strict(vec![|route| route.path = PathMatch::Exact("/admin".into())]), [true, true]);
        assert_eq!(
            strict(vec![
                |route| {
                    route.hosts = vec![HostMatch::Exact("a.example".into())];
                    route.path = PathMatch::Prefix("/admin".into());
                },
                |route| route.hosts = vec![HostMatch::Exact("b.example".into())],
                |route| route.hosts = vec![HostMatch::Suffix(".example".into())],
                |route| {
                    route.hosts = vec![HostMatch::Suffix(".example".into())];
                    route.paths = Some(Paths::AsIs);
                },
            ]),
            [true, false, true, false, true]
        );
    }
}
