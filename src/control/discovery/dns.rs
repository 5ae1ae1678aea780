//! Backends from DNS: A and AAAA records of a name, or SRV records and the addresses of their targets.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, MAX_TTL, TokioResolver};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Address, Backend, Target};

/// For one attempt of one query, when the nameservers are the config's; resolv.conf has an option for its own.
const ATTEMPT: Duration = Duration::from_secs(2);
/// For one query with all its attempts, also over TCP and along CNAMEs.
const QUERY: Duration = Duration::from_secs(20);
const WEIGHT_MAX: u32 = 256;
/// Queries of one source under way at a time.
const OWN_QUERIES_MAX: usize = 8;

/// Those of /etc/resolv.conf; none if it cannot be read.
pub fn system_nameservers() -> Vec<SocketAddr> {
    let system = read_system_conf().map(|(config, _)| config);
    let servers = system.iter().flat_map(|config| config.name_servers());
    // Each is asked on all of its connections, which are on one port unless the file says otherwise.
    let address = |server: &NameServerConfig| {
        server.connections.first().map(|connection| SocketAddr::new(server.ip, connection.port))
    };
    servers.filter_map(address).collect()
}

/// Asks on behalf of one source.
pub(super) struct Asker {
    /// `None`: those of /etc/resolv.conf.
    nameservers: Option<Vec<SocketAddr>>,
    /// Of all sources, and of this one: one whose names nobody answers for leaves slots to the others.
    slots: Arc<Semaphore>,
    own_slots: Arc<Semaphore>,
    /// The last good answers, by name: when one family of a name cannot be asked for, it stays as it was.
    known: HashMap<Name, Known>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) backends: Vec<Backend>,
    pub(super) ttl: Duration,
    /// Why this is not all there is to know.
    pub(super) fault: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

/// One name and record type.
pub(super) enum Records<T> {
    Some(Vec<T>, Duration),
    /// DNS knows that there are none.
    None(&'static str),
    /// DNS knows nothing, or could not be asked.
    Failed(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NoAnswer {
    /// DNS knows that there is nothing (RFC 2308): no such name, or no such records.
    Nothing(String),
    /// DNS knows nothing, or could not be asked: what was known before may well be so still.
    Failed(String),
}

impl From<String> for NoAnswer {
    fn from(reason: String) -> Self {
        NoAnswer::Failed(reason)
    }
}

impl NoAnswer {
    pub(super) fn reason(&self) -> &str {
        match self {
            NoAnswer::Nothing(reason) | NoAnswer::Failed(reason) => reason,
        }
    }
}

/// The addresses of one name.
struct Addresses {
    list: Vec<IpAddr>,
    ttl: Duration,
    fault: Option<String>,
}

impl Asker {
    pub(super) fn new(nameservers: Option<Vec<SocketAddr>>, slots: Arc<Semaphore>) -> Self {
        Asker { nameservers, slots, own_slots: Arc::new(Semaphore::new(OWN_QUERIES_MAX)), known: HashMap::new() }
    }

    /// `name:port`: every address of both families.
    pub(super) async fn addresses(&mut self, target: &str) -> Result<Answer, NoAnswer> {
        let (host, port) = match target.parse::<Target>()? {
            Target::Name { host, port } => (parse_name(&host)?, port),
            // Needs no DNS, and never changes.
            Target::Address(address) => {
                return Ok(Answer { backends: vec![address.into()], ttl: Duration::MAX, fault: None });
            }
        };
        let client = self.client()?;
        let (v4, v6) = client.families(&host).await;
        let Addresses { mut list, ttl, fault } = self.known.entry(host).or_default().learn(v4, v6)?;
        list.sort_unstable();
        list.dedup();
        let backends = list.into_iter().map(|ip| Address::Inet((ip, port).into()).into()).collect();
        Ok(Answer { backends, ttl, fault })
    }

    /// The targets of SRV records, with their weights and priorities.
    pub(super) async fn services(&mut self, name: &str) -> Result<Answer, NoAnswer> {
        let client = self.client()?;
        let services = client.ask(parse_name(name)?, RecordType::SRV, |data| match data {
            // RFC 2782: "A Target of "." means that the service is decidedly not available at this domain."
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(srv.clone()),
            _ => None,
        });
        let (services, mut ttl) = match services.await {
            Records::Some(services, ttl) => (services, ttl),
            Records::None(fault) => return Err(NoAnswer::Nothing(fault.into())),
            Records::Failed(fault) => return Err(NoAnswer::Failed(fault)),
        };
        let targets = services.iter().map(|srv| srv.target.clone()).collect::<HashSet<Name>>();
        self.known.retain(|name, _| targets.contains(name));

        let mut found: HashMap<Name, Vec<IpAddr>> = HashMap::new();
        let mut fault = None;
        for (target, v4, v6) in client.all_families(targets).await {
            let known = self.known.entry(target.clone()).or_default();
            let list = match known.learn(v4, v6) {
                Ok(addresses) => {
                    ttl = ttl.min(addresses.ttl);
                    fault = fault.or(addresses.fault);
                    addresses.list
                }
                Err(none) => {
                    fault = fault.or_else(|| Some(format!("{target}: {}", none.reason())));
                    known.all()
                }
            };
            found.insert(target, list);
        }
        let backends = serving(&services, &found);
        match (backends.is_empty(), fault) {
            (true, fault) => Err(fault.unwrap_or_else(|| "no target has an address".into()).into()),
            (false, fault) => Ok(Answer { backends, ttl, fault }),
        }
    }

    /// A new one each time: it keeps no answers of its own, and sees what has changed in /etc/resolv.conf and /etc/hosts.
    fn client(&self) -> Result<Client, String> {
        let (config, options) = match &self.nameservers {
            None => read_system_conf().map_err(|error| format!("DNS cannot be asked: {error}"))?,
            Some(servers) => {
                let servers = servers.iter().map(|address| nameserver(*address)).collect();
                let mut options = ResolverOpts::default();
                options.timeout = ATTEMPT;
                (ResolverConfig::from_parts(None, Vec::new(), servers), options)
            }
        };
        Client::new(config, options, [self.own_slots.clone(), self.slots.clone()])
    }
}

/// For one question and those that follow from it.
#[derive(Clone)]
pub(super) struct Client {
    resolver: TokioResolver,
    hosts: Arc<Hosts>,
    /// The narrower first.
    slots: [Arc<Semaphore>; 2],
}

impl Client {
    pub(super) fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        slots: [Arc<Semaphore>; 2],
    ) -> Result<Self, String> {
        options.cache_size = 0;
        // Ours, below: theirs would still ask for the family that the file does not have.
        options.use_hosts_file = ResolveHosts::Never;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver =
            builder.with_options(options).build().map_err(|error| format!("DNS cannot be asked: {error}"))?;
        Ok(Client { resolver, hosts: Arc::new(Hosts::from_system().unwrap_or_default()), slots })
    }

    /// The IPv4 and the IPv6 addresses of a name. A name in /etc/hosts is not asked for anywhere else.
    pub(super) async fn families(&self, name: &Name) -> (Records<IpAddr>, Records<IpAddr>) {
        let [v4, v6] = [RecordType::A, RecordType::AAAA]
            .map(|family| self.hosts.lookup_static_host(&Query::query(name.clone(), family)));
        if v4.is_some() || v6.is_some() {
            let records = |lookup: Option<_>| match lookup {
                Some(lookup) => select(hickory_resolver::lookup::Lookup::answers(&lookup), RData::ip_addr),
                None => Records::None("not in the hosts file"),
            };
            return (records(v4), records(v6));
        }
        tokio::join!(
            self.ask(name.clone(), RecordType::A, RData::ip_addr),
            self.ask(name.clone(), RecordType::AAAA, RData::ip_addr)
        )
    }

    async fn all_families(&self, names: HashSet<Name>) -> Vec<(Name, Records<IpAddr>, Records<IpAddr>)> {
        let mut tasks = JoinSet::new();
        for name in names {
            let client = self.clone();
            tasks.spawn(async move {
                let (v4, v6) = client.families(&name).await;
                (name, v4, v6)
            });
        }
        tasks.join_all().await
    }

    async fn ask<T>(&self, name: Name, of: RecordType, take: impl Fn(&RData) -> Option<T>) -> Records<T> {
        // Never closed.
        let [own, all] = &self.slots;
        let Ok(_own) = own.acquire().await else { return Records::Failed("stopped".into()) };
        let Ok(_slot) = all.acquire().await else { return Records::Failed("stopped".into()) };
        match timeout(QUERY, self.resolver.lookup(name, of)).await {
            Ok(Ok(lookup)) => select(lookup.answers(), take),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => match none.response_code {
                ResponseCode::NXDomain => Records::None("there is no such name"),
                _ => Records::None("the name has no such records"),
            },
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Records::Failed(format!("DNS answers: {code}")),
            Ok(Err(NetError::Timeout)) | Err(_) => Records::Failed("DNS does not answer".into()),
            Ok(Err(error)) => Records::Failed(error.to_string()),
        }
    }
}

/// Those of the wanted type; the CNAMEs on the way to them count for the TTL.
fn select<T>(records: &[Record], take: impl Fn(&RData) -> Option<T>) -> Records<T> {
    let taken: Vec<T> = records.iter().filter_map(|record| take(&record.data)).collect();
    if taken.is_empty() {
        return Records::None("the name has no such records");
    }
    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(MAX_TTL);
    Records::Some(taken, Duration::from_secs(ttl.into()))
}

impl Known {
    /// Takes what was answered. Without a single address in the answers nothing changes, and it is a failure.
    fn learn(&mut self, v4: Records<IpAddr>, v6: Records<IpAddr>) -> Result<Addresses, NoAnswer> {
        let (mut ttl, mut fault) = (None::<Duration>, None);
        let fresh = [v4, v6].map(|records| match records {
            Records::Some(list, its) => {
                ttl = Some(ttl.map_or(its, |ttl| ttl.min(its)));
                Some(list)
            }
            Records::None(reason) => {
                // One that fails says more than one that has nothing.
                fault = fault.take().or(Some((reason.to_owned(), false)));
                Some(Vec::new())
            }
            Records::Failed(reason) => {
                fault = Some((reason, true));
                None
            }
        });
        let Some(ttl) = ttl else {
            let (reason, failed) = fault.unwrap_or_default();
            return Err(if failed { NoAnswer::Failed(reason) } else { NoAnswer::Nothing(reason) });
        };
        let [v4, v6] = fresh;
        self.v4 = v4.unwrap_or_else(|| std::mem::take(&mut self.v4));
        self.v6 = v6.unwrap_or_else(|| std::mem::take(&mut self.v6));
        // A name of one family is nothing to complain about.
        let fault = fault.and_then(|(reason, failed)| failed.then_some(reason));
        Ok(Addresses { list: self.all(), ttl, fault })
    }

    fn all(&self) -> Vec<IpAddr> {
        self.v4.iter().chain(&self.v6).copied().collect()
    }
}

/// The lowest priority serves, all others are backups. Every address of a target has the target's weight.
fn serving(services: &[SRV], found: &HashMap<Name, Vec<IpAddr>>) -> Vec<Backend> {
    let first = services.iter().map(|srv| srv.priority).min();
    let heaviest = |backup: bool| {
        let group = services.iter().filter(|srv| (Some(srv.priority) != first) == backup);
        group.map(|srv| srv.weight).max().unwrap_or(0)
    };
    let heaviest = [heaviest(false), heaviest(true)];
    let mut backends: Vec<(SocketAddr, Backend)> = Vec::new();
    for srv in services {
        let backup = Some(srv.priority) != first;
        let weight = scale(srv.weight, heaviest[usize::from(backup)]);
        for ip in found.get(&srv.target).into_iter().flatten() {
            let address = SocketAddr::new(*ip, srv.port);
            backends.push((address, Backend { weight, backup, ..Address::Inet(address).into() }));
        }
    }
    // What is there twice serves rather than waits, with the larger of its weights.
    backends.sort_by_key(|(address, backend)| (*address, backend.backup, u32::MAX - backend.weight));
    backends.dedup_by_key(|(address, _)| *address);
    backends.into_iter().map(|(_, backend)| backend).collect()
}

/// To 1..=256. RFC 2782: "In the presence of records containing weights greater than 0, records with weight 0 should have
/// a very small chance of being selected."
fn scale(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let scaled = if heaviest > WEIGHT_MAX { (weight * WEIGHT_MAX + heaviest / 2) / heaviest } else { weight };
    scaled.max(1)
}

/// As it is: of a host's name in Unicode the underscores of `chat_1` would be no part. One with a dot at its end is asked
/// for alone, any other also below the search domains of /etc/resolv.conf.
pub(super) fn parse_name(text: &str) -> Result<Name, String> {
    Name::from_ascii(text).map_err(|error| format!("\"{text}\" is not a name: {error}"))
}

fn nameserver(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn some(list: &[&str], ttl: u64) -> Records<IpAddr> {
        Records::Some(ips(list), Duration::from_secs(ttl))
    }

    fn failed() -> Records<IpAddr> {
        Records::Failed("lost".into())
    }

    #[test]
    fn every_name_that_a_config_may_have_can_be_asked_for() {
        let label = "x".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        for name in ["chat_1.a", "a-.1", "_a.b", "xn--a.b", "Chat", &label, &long] {
            for (name, whole) in [(name.to_owned(), false), (format!("{name}."), true)] {
                assert!(format!("{name}:1").parse::<Target>().is_ok(), "{name}");
                assert_eq!(parse_name(&name).map(|name| name.is_fqdn()), Ok(whole), "{name}");
            }
        }
        for name in [format!("{label}x"), format!("{long}x"), "a..b".into(), ".a".into(), "-a".into()] {
            assert!(parse_name(&name).is_err() && format!("{name}:1").parse::<Target>().is_err(), "{name}");
        }
    }

    #[test]
    fn weights_keep_their_ratios() {
        for (weight, heaviest, expected) in [
            (0, 0, 1),
            (0, 10, 1),
            (1, 1, 1),
            (100, 256, 100),
            (256, 256, 256),
            (257, 257, 256),
            (500, 1000, 128),
            (u16::MAX, u16::MAX, 256),
            (1, u16::MAX, 1),
            (0, u16::MAX, 1),
        ] {
            assert_eq!(scale(weight, heaviest), expected, "{weight} of {heaviest}");
        }
    }

    #[test]
    fn a_family_that_fails_stays_as_it_was() {
        let mut known = Known::default();
        let learned = known.learn(some(&["10.0.0.1"], 30), some(&["::1"], 20)).unwrap();
        assert_eq!(
            (learned.list, learned.ttl, learned.fault),
            (ips(&["10.0.0.1", "::1"]), Duration::from_secs(20), None)
        );
        let learned = known.learn(some(&["10.0.0.2"], 30), failed()).unwrap();
        assert_eq!((learned.list, learned.fault.as_deref()), (ips(&["10.0.0.2", "::1"]), Some("lost")));
        let learned = known.learn(some(&["10.0.0.2"], 30), Records::None("none")).unwrap();
        assert_eq!((learned.list, learned.fault), (ips(&["10.0.0.2"]), None));
    }

    #[test]
    fn without_an_address_it_is_a_failure_and_nothing_changes() {
        let mut known = Known::default();
        known.learn(some(&["10.0.0.1"], 30), Records::None("none")).unwrap();
        for (v4, v6, reason) in [
            (Records::None("none"), Records::None("none"), "none"),
            (failed(), Records::None("none"), "lost"),
            (Records::None("none"), failed(), "lost"),
            (failed(), failed(), "lost"),
        ] {
            let expected = match reason {
                "none" => NoAnswer::Nothing(reason.into()),
                _ => NoAnswer::Failed(reason.into()),
            };
            assert_eq!(known.learn(v4, v6).err(), Some(expected));
            assert_eq!(known.all(), ips(&["10.0.0.1"]));
        }
    }

    #[test]
    fn the_lowest_priority_serves_and_the_others_back_it_up() {
        let name = |text: &str| Name::from_utf8(text).unwrap();
        let services = [
            SRV::new(20, 5, 1, name("b.")),
            SRV::new(10, 0, 1, name("a.")),
            SRV::new(10, 512, 2, name("a.")),
            SRV::new(30, 7, 1, name("a.")),
            SRV::new(10, 1, 1, name("unknown.")),
        ];
        let found = HashMap::from([(name("a."), ips(&["10.0.0.2", "::2"])), (name("b."), ips(&["10.0.0.1"]))]);
        let backends: Vec<_> =
            serving(&services, &found).into_iter().map(|b| (b.address.to_string(), b.weight, b.backup)).collect();
        let expected = [
            ("10.0.0.1:1", 5, true),
            // Also at priority 30, where it is not needed.
            ("10.0.0.2:1", 1, false),
            ("10.0.0.2:2", 256, false),
            ("[::2]:1", 1, false),
            ("[::2]:2", 256, false),
        ];
        assert_eq!(backends, expected.map(|(address, weight, backup)| (address.to_owned(), weight, backup)));
    }
}
