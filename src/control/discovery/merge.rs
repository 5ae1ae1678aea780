//! What all sources have found, merged per pool. Pure.

use std::collections::{HashMap, HashSet};

use super::{Source, sources};
use crate::config::{self, Address, Backend, Config};
use crate::table::Found;

/// The table numbers the members of a pool with 16 bits.
const MEMBERS_MAX: usize = u16::MAX as usize;

#[derive(Debug, Default)]
pub(super) struct Merge {
    /// Those that have sources.
    pools: HashMap<String, MergedPool>,
    /// Where the relay listens itself.
    listeners: Vec<Address>,
    /// Not yet taken.
    left_out: Vec<LeftOut>,
    /// A report has made a difference since what is found was last taken.
    has_news: bool,
}

/// A backend that would be this relay itself: one request would go round through it until there are no sessions left.
#[derive(Debug, PartialEq)]
pub(super) struct LeftOut {
    pub(super) pool: String,
    pub(super) backend: Backend,
}

#[derive(Debug, Default)]
struct MergedPool {
    /// Those of the config, which win over what is found.
    named: Vec<Backend>,
    /// In the order in which they win over each other.
    by_source: Vec<SourceBackends>,
    /// What replaced sources had found, until their successors have reported.
    inherited: Vec<Backend>,
    merged: Vec<Backend>,
    /// What was found and is this relay itself.
    own: HashSet<Address>,
}

#[derive(Debug)]
struct SourceBackends {
    source: Source,
    /// It has answered or failed at least once.
    reported: bool,
    /// Its last good answer.
    backends: Vec<Backend>,
}

impl Merge {
    pub(super) fn follow(&mut self, config: &Config) {
        self.listeners = config.listeners.iter().map(|listener| listener.address.clone()).collect();
        let mut before = std::mem::take(&mut self.pools);
        for config in config.pools.iter().filter(|pool| pool.discovery.is_on()) {
            let mut pool = before.remove(&config.name).unwrap_or_default().followed_by(config);
            let left_out = pool.renew(&self.listeners);
            self.leave_out(&config.name, left_out);
            self.pools.insert(config.name.clone(), pool);
        }
    }

    /// `None`: the source has failed. Returns whether that makes a difference to [`Merge::found`].
    pub(super) fn report(&mut self, name: &str, source: &Source, backends: Option<Vec<Backend>>) -> bool {
        let Some(pool) = self.pools.get_mut(name) else { return false };
        let Some(entry) = pool.by_source.iter_mut().find(|entry| entry.source == *source) else { return false };
        entry.reported = true;
        if let Some(backends) = backends {
            entry.backends = backends;
        }
        let before = std::mem::take(&mut pool.merged);
        let left_out = pool.renew(&self.listeners);
        let changed = pool.merged != before;
        self.has_news |= changed;
        self.leave_out(name, left_out);
        changed
    }

    fn leave_out(&mut self, pool: &str, backends: Vec<Backend>) {
        self.left_out.extend(backends.into_iter().map(|backend| LeftOut { pool: pool.into(), backend }));
    }

    /// What is left out since this was last asked. Each is told again only if it was gone meanwhile.
    pub(super) fn take_left_out(&mut self) -> Vec<LeftOut> {
        std::mem::take(&mut self.left_out)
    }

    pub(super) fn all_have_reported(&self) -> bool {
        self.pools.values().flat_map(|pool| &pool.by_source).all(|entry| entry.reported)
    }

    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    pub(super) fn take_found(&mut self) -> Found {
        self.has_news = false;
        self.found()
    }

    fn found(&self) -> Found {
        self.pools.iter().map(|(name, pool)| (name.clone(), pool.merged.clone())).collect()
    }
}

impl MergedPool {
    fn followed_by(self, config: &config::PoolConfig) -> MergedPool {
        let MergedPool { by_source: mut before, mut inherited, own, .. } = self;
        let mut by_source = Vec::new();
        for source in sources(&config.discovery) {
            let known = before.iter().position(|entry| entry.source == source).map(|index| before.remove(index));
            by_source.push(known.unwrap_or(SourceBackends { source, reported: false, backends: Vec::new() }));
        }
        inherited.extend(before.into_iter().flat_map(|entry| entry.backends));
        MergedPool { named: config.backends.clone(), by_source, inherited, merged: Vec::new(), own }
    }

    /// Merges again. Returns what is this relay itself now and was not before.
    fn renew(&mut self, listeners: &[Address]) -> Vec<Backend> {
        if self.by_source.iter().all(|entry| entry.reported) {
            self.inherited = Vec::new();
        }
        let (own, others): (Vec<Backend>, Vec<Backend>) =
            self.by_address().partition(|backend| listeners.iter().any(|listener| backend.address.reaches(listener)));
        self.merged = self.merge(others);
        let known = std::mem::replace(&mut self.own, own.iter().map(|backend| backend.address.clone()).collect());
        own.into_iter().filter(|backend| !known.contains(&backend.address)).collect()
    }

    /// Every address once, without those that the config names.
    fn by_address(&self) -> impl Iterator<Item = Backend> {
        let mut addresses: HashSet<&Address> = self.named.iter().map(|backend| &backend.address).collect();
        let found = self.by_source.iter().flat_map(|entry| &entry.backends).chain(&self.inherited);
        found.filter(move |backend| addresses.insert(&backend.address)).cloned()
    }

    /// Every name once, in the order of their addresses.
    fn merge(&self, found: Vec<Backend>) -> Vec<Backend> {
        let mut names: HashSet<String> = self.named.iter().map(|backend| backend.name.clone()).collect();
        let (mut merged, mut nameless): (Vec<Backend>, Vec<Backend>) =
            found.into_iter().partition(|backend| names.insert(backend.name.clone()));
        // Whatever the order in which they were found.
        nameless.sort_by(|a, b| order(&a.address).cmp(&order(&b.address)));
        for mut backend in nameless {
            backend.name = free_name(&backend.address, &names);
            names.insert(backend.name.clone());
            merged.push(backend);
        }
        merged.sort_by(|a, b| order(&a.address).cmp(&order(&b.address)));
        merged.truncate(MEMBERS_MAX.saturating_sub(self.named.len()));
        merged
    }
}

/// The address, or, if the config gives that name to something else, the address with the first number that is free.
fn free_name(address: &Address, names: &HashSet<String>) -> String {
    let numbered = (2..).map(|number: u64| format!("{address}-{number}"));
    let mut candidates = std::iter::once(address.to_string()).chain(numbered);
    candidates.find(|name| !names.contains(name)).expect("there are more numbers than names")
}

fn order(address: &Address) -> impl Ord + use<'_> {
    match address {
        Address::Inet(address) => (Some(*address), None),
        Address::Unix(path) => (None, Some(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(port: u16, name: &str) -> Backend {
        let address = Address::Inet(([10, 0, 0, 1], port).into());
        Backend { name: if name.is_empty() { address.to_string() } else { name.into() }, ..Backend::from(address) }
    }

    fn config(dns: Option<&str>, srv: Option<&str>, named: &[Backend]) -> Config {
        let mut pool = config::PoolConfig::named("chat");
        pool.discovery.dns = dns.map(Into::into);
        pool.discovery.srv = srv.map(Into::into);
        pool.backends = named.to_vec();
        Config { pools: vec![config::PoolConfig::named("static"), pool], ..Config::default() }
    }

    fn dns(name: &str) -> Source {
        Source::Dns(name.into())
    }

    fn srv(name: &str) -> Source {
        Source::Srv(name.into())
    }

    fn ports(merge: &Merge) -> Vec<u16> {
        let port = |backend: &Backend| match backend.address {
            Address::Inet(address) => address.port(),
            Address::Unix(_) => 0,
        };
        merge.found().get("chat").map(|found| found.iter().map(port).collect()).unwrap_or_default()
    }

    #[test]
    fn sources_are_merged_in_one_order() {
        let mut merge = Merge::default();
        merge.follow(&config(Some("a:1"), Some("b"), &[backend(9, "nine")]));
        assert_eq!(merge.found().keys().collect::<Vec<_>>(), ["chat"]);
        assert!(merge.report("chat", &srv("b"), Some(vec![backend(3, "x"), backend(2, "nine"), backend(9, "")])));
        assert!(merge.report("chat", &dns("a:1"), Some(vec![backend(3, "y"), backend(1, "x")])));
        // DNS wins over SRV, the config over both; a name that is taken gives way to the address.
        assert_eq!(names(&merge), ["x", "10.0.0.1:2", "y"]);
        assert_eq!(ports(&merge), [1, 2, 3]);
    }

    fn names(merge: &Merge) -> Vec<String> {
        merge.found()["chat"].iter().map(|backend| backend.name.clone()).collect()
    }

    #[test]
    fn no_two_members_share_a_name() {
        // The config's names are the addresses of others.
        let named = [backend(9, "10.0.0.1:2"), backend(8, "10.0.0.1:3"), backend(7, "10.0.0.1:3-2")];
        let found = [backend(1, "10.0.0.1:2-2"), backend(2, ""), backend(3, ""), backend(4, "")];
        let expected = ["10.0.0.1:2-2", "10.0.0.1:2-3", "10.0.0.1:3-3", "10.0.0.1:4"];
        let reversed = found.iter().rev().cloned().collect();
        for found in [found.to_vec(), reversed] {
            let mut merge = Merge::default();
            merge.follow(&config(Some("a:1"), None, &named));
            merge.report("chat", &dns("a:1"), Some(found));
            assert_eq!(names(&merge), expected);
            // And nothing has changed if it is found again.
            assert!(!merge.report("chat", &dns("a:1"), None));
        }
    }

    fn listening(config: Config, listeners: &[&str]) -> Config {
        let listeners = listeners.iter().map(|address| address.parse::<Address>().unwrap().into()).collect();
        Config { listeners, ..config }
    }

    /// What is newly left out.
    fn left_out(merge: &mut Merge) -> Vec<String> {
        let left_out = merge.take_left_out().into_iter();
        left_out.map(|LeftOut { pool, backend }| format!("{pool} {} {}", backend.name, backend.address)).collect()
    }

    #[test]
    fn the_relays_own_listeners_are_left_out() {
        let mut merge = Merge::default();
        let sources = config(Some("a:1"), Some("b"), &[backend(9, "nine")]);
        merge.follow(&listening(sources, &["127.0.0.1:5", "10.0.0.1:2", "0.0.0.0:80"]));
        let inet = |text: &str| Backend::from(text.parse::<Address>().unwrap());
        let found = vec![backend(1, "x"), backend(2, "y"), backend(5, ""), inet("127.0.0.2:80")];
        assert!(merge.report("chat", &dns("a:1"), Some(found.clone())));
        assert_eq!(ports(&merge), [1, 5], "everything else serves");
        assert_eq!(left_out(&mut merge), ["chat y 10.0.0.1:2", "chat 127.0.0.2:80 127.0.0.2:80"]);
        // Once per change, not once per answer, and whoever else finds it.
        assert!(!merge.report("chat", &dns("a:1"), Some(found)));
        assert!(merge.report("chat", &srv("b"), Some(vec![backend(2, ""), backend(4, "y")])));
        assert_eq!(left_out(&mut merge), [""; 0]);
        // What is left out keeps no name from others.
        assert_eq!(names(&merge), ["x", "y", "10.0.0.1:5"]);
        // Gone and back.
        assert!(merge.report("chat", &dns("a:1"), Some(Vec::new())));
        assert_eq!(left_out(&mut merge), [""; 0]);
        assert!(!merge.report("chat", &dns("a:1"), Some(vec![inet("127.0.0.2:80")])));
        assert_eq!(left_out(&mut merge), ["chat 127.0.0.2:80 127.0.0.2:80"]);
    }

    #[test]
    fn listeners_that_come_and_go_with_a_config() {
        let mut merge = Merge::default();
        let config = |listeners: &[&str]| listening(config(Some("a:1"), None, &[]), listeners);
        merge.follow(&config(&["10.0.0.1:1"]));
        merge.report("chat", &dns("a:1"), Some(vec![backend(1, ""), backend(2, "")]));
        assert_eq!((ports(&merge), left_out(&mut merge).len()), (vec![2], 1));
        merge.follow(&config(&["10.0.0.1:1"]));
        assert_eq!((ports(&merge), left_out(&mut merge).len()), (vec![2], 0));
        merge.follow(&config(&["10.0.0.1:2"]));
        assert_eq!((ports(&merge), left_out(&mut merge)), (vec![1], vec!["chat 10.0.0.1:2 10.0.0.1:2".into()]));
        merge.follow(&config(&[]));
        assert_eq!((ports(&merge), left_out(&mut merge).len()), (vec![1, 2], 0));
    }

    #[test]
    fn only_differences_are_told() {
        let mut merge = Merge::default();
        merge.follow(&config(Some("a:1"), Some("b"), &[]));
        assert!(merge.report("chat", &dns("a:1"), Some(vec![backend(1, ""), backend(2, "")])));
        assert!(!merge.report("chat", &dns("a:1"), Some(vec![backend(2, ""), backend(1, "")])));
        assert!(!merge.report("chat", &srv("b"), Some(vec![backend(1, "")])));
        assert!(!merge.report("chat", &dns("a:1"), None), "a failure keeps the last answer");
        assert!(!merge.report("chat", &dns("gone:1"), Some(vec![backend(7, "")])));
        assert!(!merge.report("gone", &dns("a:1"), Some(vec![backend(7, "")])));
        assert!(merge.report("chat", &dns("a:1"), Some(Vec::new())));
        assert_eq!(ports(&merge), [1]);
    }

    #[test]
    fn a_weight_is_a_difference() {
        let mut merge = Merge::default();
        merge.follow(&config(Some("a:1"), None, &[]));
        assert!(merge.report("chat", &dns("a:1"), Some(vec![backend(1, "")])));
        assert!(merge.report("chat", &dns("a:1"), Some(vec![Backend { weight: 7, ..backend(1, "") }])));
    }

    #[test]
    fn failing_counts_as_having_reported() {
        let mut merge = Merge::default();
        assert!(merge.all_have_reported(), "where there is nothing to wait for");
        merge.follow(&config(Some("a:1"), Some("b"), &[]));
        merge.report("chat", &dns("a:1"), None);
        assert!(!merge.all_have_reported());
        merge.report("chat", &srv("b"), Some(Vec::new()));
        assert!(merge.all_have_reported());
    }

    #[test]
    fn what_stays_is_kept_and_what_goes_is_forgotten() {
        let mut merge = Merge::default();
        merge.follow(&config(Some("a:1"), Some("b"), &[]));
        merge.report("chat", &dns("a:1"), Some(vec![backend(1, "")]));
        merge.report("chat", &srv("b"), Some(vec![backend(2, "")]));
        merge.follow(&config(Some("a:1"), None, &[backend(3, "")]));
        assert_eq!(ports(&merge), [1]);
        assert!(merge.all_have_reported());
        merge.follow(&config(None, None, &[]));
        assert!(merge.found().is_empty());
    }

    #[test]
    fn a_new_source_takes_over_when_it_has_reported() {
        for (answer, expected) in [(Some(vec![backend(5, "")]), &[5][..]), (None, &[])] {
            let mut merge = Merge::default();
            merge.follow(&config(Some("a:1"), None, &[]));
            merge.report("chat", &dns("a:1"), Some(vec![backend(1, "")]));
            merge.follow(&config(Some("other:1"), None, &[]));
            assert_eq!(ports(&merge), [1]);
            assert!(!merge.all_have_reported());
            assert!(merge.report("chat", &dns("other:1"), answer));
            assert_eq!(ports(&merge), expected);
        }
    }

    #[test]
    fn a_pool_never_outgrows_its_numbers() {
        let mut merge = Merge::default();
        merge.follow(&config(Some("a:1"), None, &[backend(1, ""), backend(2, "")]));
        let many = |count: u32| {
            let address = |n: u32| Address::Inet((std::net::Ipv4Addr::from_bits(n), 80).into());
            (0..count).map(|n| Backend::from(address(n))).collect::<Vec<_>>()
        };
        merge.report("chat", &dns("a:1"), Some(many(70_000)));
        assert_eq!(merge.found()["chat"], many(65_533));
    }
}
