//! `loadtest run SCENARIO`: each scenario's own options and defaults.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use super::common::{Common, Defaults, Fragments, WHOLE, positive};
use crate::sizes::{Sizes, parse_bytes};
use crate::spec::{Arrivals, Closing, FaultKind, RunSpec, Scenario};

#[derive(Subcommand, Debug)]
pub enum Run {
    /// Echoes: closed loop, or open loop with --rate
    Echo(Echo),
    /// Add connections at a rate until a target stands or failures begin
    Ramp(Ramp),
    /// One publisher per room, everyone else listens
    FanOut(Rooms),
    /// One listener per room, everyone else publishes
    FanIn(Rooms),
    /// Rooms in which everyone speaks after a think time and hears everyone
    ChatRoom(Chat),
    /// Hold connections that do nothing, then wake all at once
    Idle(Idle),
    /// Connect, exchange a few messages, close in every way, repeat
    Churn(Churn),
    /// Some connections read slowly: who pays?
    SlowReader(Slow),
    /// Every connection sends several messages at the same moment, periodically
    Burst(Burst),
    /// Echoes of large messages, up to 64 MiB
    Large(Large),
    /// Echoes of fragmented messages, with a ping between the fragments of each
    Fragmented(Fragmented),
    /// Kill, stop, reset or cut in the middle of a run, and account for every message
    Faults(Faults),
}

#[derive(Args, Debug)]
pub struct Echo {
    #[command(flatten)]
    pub common: Common,
    /// Closed loop: messages under way per connection. Open loop: the most that may be
    /// unanswered per connection before sending waits [default: 1, or no limit with --rate]
    #[arg(long)]
    pub depth: Option<u32>,
    /// Open loop: messages per second in all, due at fixed times whatever the answers do
    #[arg(long)]
    pub rate: Option<f64>,
    /// Open loop: how arrivals are spaced
    #[arg(long, value_enum, default_value_t = Arrivals::Fixed)]
    pub arrivals: Arrivals,
}

#[derive(Args, Debug)]
pub struct Ramp {
    #[command(flatten)]
    pub common: Common,
    /// New connections per second
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// End the ramp after this many failures
    #[arg(long, default_value_t = 10)]
    pub failures_max: u32,
    /// Count a handshake that takes longer as a failure
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub handshake_max: Duration,
}

#[derive(Args, Debug)]
pub struct Rooms {
    #[command(flatten)]
    pub common: Common,
    /// Number of rooms
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// Messages published per second, over all publishers
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
}

#[derive(Args, Debug)]
pub struct Chat {
    #[command(flatten)]
    pub common: Common,
    /// Members per room
    #[arg(long, default_value_t = 10)]
    pub room_size: u32,
    /// Mean pause between two messages of a member (exponential)
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub think: Duration,
}

#[derive(Args, Debug)]
pub struct Idle {
    #[command(flatten)]
    pub common: Common,
    /// Send a ping on each connection this often while it is held [default: never]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub ping: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct Churn {
    #[command(flatten)]
    pub common: Common,
    /// Echoes per visit
    #[arg(long, default_value_t = 1)]
    pub messages: u32,
    /// Ways to close, in turn; repeat or separate by commas [default: normal]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub close: Vec<Closing>,
    /// All ways to close, in turn (server and cut included)
    #[arg(long, conflicts_with = "close")]
    pub close_all: bool,
}

#[derive(Args, Debug)]
pub struct Slow {
    #[command(flatten)]
    pub common: Common,
    /// Slow connections, in percent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub slow_percent: u32,
    /// What a slow connection reads per second
    #[arg(long, default_value = "64KiB", value_parser = parse_bytes)]
    pub read_rate: u64,
    /// What a slow connection sends ahead of its reading
    #[arg(long, default_value = "4MiB", value_parser = parse_bytes)]
    pub window: u64,
}

#[derive(Args, Debug)]
pub struct Burst {
    #[command(flatten)]
    pub common: Common,
    /// Messages per connection and burst
    #[arg(long, default_value_t = 10)]
    pub messages: u32,
    /// From one burst to the next
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub period: Duration,
}

#[derive(Args, Debug)]
pub struct Large {
    #[command(flatten)]
    pub common: Common,
    /// Messages under way per connection
    #[arg(long, default_value_t = 1)]
    pub depth: u32,
}

#[derive(Args, Debug)]
pub struct Fragmented {
    #[command(flatten)]
    pub common: Common,
    /// Frames per message
    #[arg(long, default_value_t = 8)]
    pub fragments: u32,
    /// No ping between the fragments
    #[arg(long)]
    pub no_pings: bool,
    /// Messages under way per connection
    #[arg(long, default_value_t = 1)]
    pub depth: u32,
}

#[derive(Args, Debug)]
pub struct Faults {
    #[command(flatten)]
    pub common: Common,
    /// What happens in the middle of the run
    #[arg(long, value_enum)]
    pub fault: FaultKind,
    /// How long kill and stop last
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub outage: Duration,
    /// How often it happens, evenly over the run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub times: u32,
    /// Start our own upstream here, for the relay under test to connect to. Faults of the upstream
    /// need it; without --url the clients connect to it directly
    #[arg(long, value_name = "ADDRESS")]
    pub upstream_listen: Option<SocketAddr>,
    /// CPUs of that upstream
    #[arg(long, value_delimiter = ',')]
    pub upstream_cpus: Vec<u32>,
}

impl Run {
    pub fn common(&self) -> &Common {
        match self {
            Run::Echo(args) => &args.common,
            Run::Ramp(args) => &args.common,
            Run::FanOut(args) | Run::FanIn(args) => &args.common,
            Run::ChatRoom(args) => &args.common,
            Run::Idle(args) => &args.common,
            Run::Churn(args) => &args.common,
            Run::SlowReader(args) => &args.common,
            Run::Burst(args) => &args.common,
            Run::Large(args) => &args.common,
            Run::Fragmented(args) => &args.common,
            Run::Faults(args) => &args.common,
        }
    }

    /// `own` is the address of an upstream that this program has started, if it has.
    pub fn spec(&self, own: Option<SocketAddr>) -> Result<RunSpec> {
        let own = own.map(|address| format!("ws://{address}/"));
        let url = self.common().url.clone().or(own);
        let url = url.context("--url is missing: where should the load go?")?;
        let (name, scenario, defaults, fragments) = self.plan()?;
        let spec = self.common().spec(name, url, scenario, defaults, fragments)?;
        check(&spec)?;
        Ok(spec)
    }

    fn plan(&self) -> Result<(&'static str, Scenario, Defaults, Fragments)> {
        let usual = Defaults::default();
        Ok(match self {
            Run::Echo(args) => ("echo", args.scenario()?, usual, WHOLE),
            Run::Ramp(args) => ("ramp", args.scenario()?, args.defaults(), WHOLE),
            Run::FanOut(args) => {
                let rate = positive("--rate", args.rate)?;
                ("fan-out", Scenario::FanOut { rooms: args.rooms, rate }, usual, WHOLE)
            }
            Run::FanIn(args) => {
                let rate = positive("--rate", args.rate)?;
                ("fan-in", Scenario::FanIn { rooms: args.rooms, rate }, usual, WHOLE)
            }
            Run::ChatRoom(args) => {
                let think_ms = (args.think.as_millis() as u64).max(1);
                let room_size = args.room_size.max(1);
                ("chat-room", Scenario::Chat { room_size, think_ms }, usual, WHOLE)
            }
            Run::Idle(args) => {
                let ping_ms = args.ping.map_or(0, |ping| (ping.as_millis() as u64).max(1));
                let defaults = Defaults { connections: 1000, warmup: Duration::ZERO, ..usual };
                ("idle", Scenario::Idle { ping_ms }, defaults, WHOLE)
            }
            Run::Churn(args) => ("churn", args.scenario(), usual, WHOLE),
            Run::SlowReader(args) => ("slow-reader", args.scenario(), args.defaults(), WHOLE),
            Run::Burst(args) => {
                let period_ms = (args.period.as_millis() as u64).max(1);
                let messages = args.messages.max(1);
                ("burst", Scenario::Burst { messages, period_ms }, usual, WHOLE)
            }
            Run::Large(args) => {
                let defaults = Defaults { connections: 4, size: Sizes::Fixed(16 << 20), ..usual };
                ("large", Scenario::Closed { depth: args.depth.max(1) }, defaults, WHOLE)
            }
            Run::Fragmented(args) => {
                let fragments = Fragments { count: args.fragments, ping_between: !args.no_pings };
                let defaults = Defaults { size: Sizes::Fixed(4096), ..usual };
                ("fragmented", Scenario::Closed { depth: args.depth.max(1) }, defaults, fragments)
            }
            Run::Faults(args) => {
                let outage_ms = args.outage.as_millis() as u64;
                let (fault, times) = (args.fault, args.times);
                ("faults", Scenario::Faults { fault, outage_ms, times }, usual, WHOLE)
            }
        })
    }
}

impl Echo {
    fn scenario(&self) -> Result<Scenario> {
        Ok(match self.rate {
            None => Scenario::Closed { depth: self.depth.unwrap_or(1).max(1) },
            Some(rate) => Scenario::Open {
                rate: positive("--rate", rate)?,
                arrivals: self.arrivals,
                depth_max: self.depth.unwrap_or(0),
            },
        })
    }
}

impl Ramp {
    fn scenario(&self) -> Result<Scenario> {
        Ok(Scenario::Ramp {
            rate: positive("--rate", self.rate)?,
            failures_max: self.failures_max.max(1),
            handshake_ms_max: self.handshake_max.as_millis() as u64,
        })
    }

    /// Long enough for the target to be reached, and then some.
    fn defaults(&self) -> Defaults {
        let connections = self.common.connections.unwrap_or(5000);
        let duration = Duration::from_secs_f64(f64::from(connections) / self.rate.max(1e-3) + 10.0);
        Defaults { connections: 5000, duration, warmup: Duration::ZERO, ..Defaults::default() }
    }
}

impl Churn {
    fn scenario(&self) -> Scenario {
        use clap::ValueEnum;
        let closings = match (self.close_all, self.close.is_empty()) {
            (true, _) => Closing::value_variants().to_vec(),
            (false, true) => vec![Closing::Normal],
            (false, false) => self.close.clone(),
        };
        Scenario::Churn { messages: self.messages.max(1), closings }
    }
}

impl Slow {
    fn scenario(&self) -> Scenario {
        Scenario::SlowReader {
            slow_percent: self.slow_percent,
            read_bytes_per_s: self.read_rate.max(1),
            window_bytes: self.window.max(1),
        }
    }

    fn defaults(&self) -> Defaults {
        Defaults { size: Sizes::Fixed(4096), ..Defaults::default() }
    }
}

fn check(spec: &RunSpec) -> Result<()> {
    match &spec.scenario {
        Scenario::FanOut { rooms, .. } | Scenario::FanIn { rooms, .. }
            if *rooms == 0 || spec.connections_total < 2 * rooms =>
        {
            bail!("--rooms {rooms}: every room needs a speaker and a listener, so at least two connections")
        }
        _ => Ok(()),
    }
}
