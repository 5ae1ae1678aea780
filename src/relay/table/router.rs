//! Host, path and the rest of a request -> the route that takes it.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::{Config, HeaderMatch, HostMatch, PathMatch, Route};

/// All routes, the most specific first, and an index over their hosts: routes are ranked by host before anything else, so
/// those of the exact host, of each suffix and of any host are asked one group after the other.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Entry>,
    exact: HashMap<String, Vec<u32>>,
    suffixes: HashMap<String, Vec<u32>>,
    any: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    route: Route,
    /// Numbers in the config. Empty: all.
    listeners: Vec<usize>,
}

/// What routes look at.
pub trait Asked {
    /// In lower case, without port and without a dot at the end.
    fn host_name(&self) -> Cow<'_, str>;
    fn path(&self) -> &str;
    /// Whether there is such a line, with this value if one is wanted.
    fn has_header(&self, name: &str, value: Option<&str>) -> bool;
    fn offers_subprotocol(&self, name: &str) -> bool;
}

impl Router {
    /// The config's routes in their order, and behind them one that takes the rest, if there is a pool for it.
    pub fn new(config: &Config) -> Self {
        let rest = config.default_pool.map(|pool| Route::catch_all("default", pool, config));
        let number = |name: &String| config.listeners.iter().position(|listener| listener.name == *name);
        let entry = |route: Route| Entry { listeners: route.listeners.iter().filter_map(number).collect(), route };
        let mut router = Router {
            routes: config.routes.iter().cloned().chain(rest).map(entry).collect(),
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            any: Vec::new(),
        };
        for (number, entry) in router.routes.iter().enumerate() {
            let group = match &entry.route.host {
                HostMatch::Exact(host) => router.exact.entry(host.clone()).or_default(),
                HostMatch::Suffix(suffix) => router.suffixes.entry(suffix.clone()).or_default(),
                HostMatch::Any => &mut router.any,
            };
            group.push(number as u32);
        }
        router
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub fn route(&self, number: u32) -> &Route {
        &self.routes[number as usize].route
    }

    /// The first route that takes this request, and how many bytes of the path it has matched. `listener`: the number in
    /// the config of the one that the client came to; `None` if the config has lost it since.
    pub fn find(&self, asked: &impl Asked, listener: Option<usize>) -> Option<(u32, usize)> {
        let host = asked.host_name();
        let host = &*host;
        let exact = self.exact.get(host).into_iter();
        // From the longest suffix to the shortest. A name without anything before the first dot has none.
        let suffixes =
            host.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| self.suffixes.get(&host[at..]));
        exact.chain(suffixes).chain([&self.any]).flatten().find_map(|&number| {
            let entry = &self.routes[number as usize];
            let matched = entry.route.path.matched(asked.path())?;
            entry.takes(asked, listener).then_some((number, matched))
        })
    }
}

impl Entry {
    fn takes(&self, asked: &impl Asked, listener: Option<usize>) -> bool {
        let Route { headers, subprotocol, listeners, .. } = &self.route;
        (listeners.is_empty() || listener.is_some_and(|listener| self.listeners.contains(&listener)))
            && headers.iter().all(|HeaderMatch { name, value }| asked.has_header(name, value.as_deref()))
            && subprotocol.as_ref().is_none_or(|name| asked.offers_subprotocol(name))
    }
}

impl PathMatch {
    /// How many bytes of this path it matches; `None` if it does not.
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
    use crate::config::Pool;

    struct Request {
        host: &'static str,
        path: &'static str,
        headers: &'static [(&'static str, &'static str)],
        subprotocol: &'static str,
    }

    impl Asked for Request {
        fn host_name(&self) -> Cow<'_, str> {
            self.host.into()
        }

        fn path(&self) -> &str {
            self.path
        }

        fn has_header(&self, name: &str, value: Option<&str>) -> bool {
            self.headers.iter().any(|header| header.0 == name && value.is_none_or(|value| value == header.1))
        }

        fn offers_subprotocol(&self, name: &str) -> bool {
            self.subprotocol == name
        }
    }

    const ASKED: Request = Request { host: "a.example", path: "/chat", headers: &[], subprotocol: "" };

    /// Routes in the order of their ranks, as the config's checks leave them.
    fn router(edits: Vec<fn(&mut Route)>, default: bool) -> Router {
        let mut config = Config {
            pools: vec![Pool::named("chat")],
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
        Router::new(&config)
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
                |route| route.host = HostMatch::Suffix(".example".into()),
                |route| route.host = HostMatch::Suffix(".a.example".into()),
                |route| route.host = HostMatch::Exact("a.example".into()),
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
                |route| route.host = HostMatch::Exact("a.example".into()),
                |route| route.headers = vec![HeaderMatch { name: "X".into(), value: None }],
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
                |route| route.headers = vec![HeaderMatch { name: "X".into(), value: Some("1".into()) }],
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
}
