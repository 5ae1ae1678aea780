//! `result.json`: the whole of a run. Its schema is generated from these types (`loadtest schema`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::environment::Environment;
use crate::control::series::Point;
use crate::measure::latency::{Latency, Summary};
use crate::measure::procfs::Usage;
use crate::measure::stats::{Counters, Stats};
use crate::measure::tally::Tally;
use crate::spec::RunSpec;

/// Changes whenever a reader of older results would misread newer ones.
pub const FORMAT: &str = "loadtest-result/1";

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    pub format: String,
    /// What to call this run in a comparison.
    pub label: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub environment: Environment,
    pub spec: RunSpec,
    /// Ctrl-C, or a worker that failed, ended the run early.
    pub ended_early: Option<String>,
    /// Length of the measured window.
    pub measured_s: f64,
    pub throughput: Throughput,
    pub connections: Connections,
    /// From the intended send time to the answer or delivery.
    pub latency: Distribution,
    /// From the actual send time to the answer (open loop only).
    pub service: Distribution,
    /// From the first SYN to the end of the 101.
    pub connect: Distribution,
    /// From the beginning of our closing to the end of the connection.
    pub close: Distribution,
    /// From a broken connection to the first answer on its successor.
    pub recovery: Distribution,
    /// How late the load generator itself was with what was due.
    pub lateness: Distribution,
    pub verdict: Verdict,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// Close codes that clients received.
    pub close_codes: BTreeMap<String, u64>,
    /// How each way of closing ended.
    pub closings: BTreeMap<String, u64>,
    pub watched: Option<Watched>,
    /// The load generator's own CPU use in the measured window: 100 is one core.
    pub generator_cpu_percent: f64,
    pub faults: Vec<FaultEvent>,
    pub series: Vec<Point>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Throughput {
    pub sent_per_s: f64,
    pub received_per_s: f64,
    pub sent_bytes_per_s: f64,
    pub received_bytes_per_s: f64,
    pub handshakes_per_s: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    pub opened: u64,
    pub failed: u64,
    pub broken: u64,
    pub peak: u64,
    /// Handshakes per second while connecting.
    pub connect_per_s: f64,
}

/// A histogram and its summary; `hdr` is its standard encoded form, empty if nothing was recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    pub summary: Summary,
    pub hdr: String,
}

impl From<&Latency> for Distribution {
    fn from(latency: &Latency) -> Distribution {
        if latency.is_empty() {
            return Distribution::default();
        }
        Distribution { summary: latency.summary(), hdr: latency.encode() }
    }
}

impl Distribution {
    pub fn histogram(&self) -> Option<Latency> {
        Latency::decode(&self.hdr)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    #[serde(flatten)]
    pub tally: Tally,
    pub lost: u64,
    /// Every message that was not in doubt arrived once, intact and in order, and nothing broke
    /// that was not meant to.
    pub pass: bool,
    /// Why not, if not.
    pub reasons: Vec<String>,
}

/// What the watched processes cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Watched {
    pub pids: Vec<u32>,
    pub names: Vec<String>,
    /// Before the first connection, with all connections open, and at the end of the measured window.
    pub before: Usage,
    pub connected: Usage,
    pub after: Usage,
    /// CPU time of the measured window over the messages sent plus received in it.
    pub cpu_us_per_message: f64,
    /// The same over answers received: for an echo, one round trip.
    pub cpu_us_per_round_trip: f64,
    pub cpu_percent: f64,
    /// CPU time per handshake: while connecting, or in the measured window of churn and ramp (where it
    /// includes the messages and the closing).
    pub cpu_us_per_handshake: f64,
    /// Growth of anonymous memory per connection.
    pub rss_anon_bytes_per_connection: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FaultEvent {
    pub at_s: f64,
    pub what: String,
}

/// The parts of a result that counting workers alone do not know.
pub struct Frame {
    pub label: String,
    pub started_at: String,
    pub ended_early: Option<String>,
    pub measured_s: f64,
    pub connect_s: f64,
    pub watched: Option<Watched>,
    pub generator_cpu_percent: f64,
    pub faults: Vec<FaultEvent>,
    pub series: Vec<Point>,
}

impl RunResult {
    pub fn new(spec: RunSpec, stats: &Stats, connected: &Counters, frame: Frame) -> RunResult {
        let per_s = |count: u64| count as f64 / frame.measured_s.max(1e-9);
        RunResult {
            format: FORMAT.into(),
            environment: Environment::read(),
            throughput: Throughput {
                sent_per_s: per_s(stats.window.sent),
                received_per_s: per_s(stats.window.received),
                sent_bytes_per_s: per_s(stats.window.sent_bytes),
                received_bytes_per_s: per_s(stats.window.received_bytes),
                handshakes_per_s: per_s(stats.window.connected),
            },
            connections: Connections {
                opened: stats.counters.connected,
                failed: stats.counters.connect_failed,
                broken: stats.counters.broken,
                peak: stats.counters.open_max,
                connect_per_s: connected.connected as f64 / frame.connect_s.max(1e-9),
            },
            latency: (&stats.latency).into(),
            service: (&stats.service).into(),
            connect: (&stats.connect).into(),
            close: (&stats.close).into(),
            recovery: (&stats.recovery).into(),
            lateness: (&stats.lateness).into(),
            verdict: Verdict::new(&spec, stats, frame.ended_early.as_deref()),
            errors: stats.errors.clone(),
            close_codes: stats.close_codes.clone(),
            closings: stats.closings.clone(),
            label: frame.label,
            started_at: frame.started_at,
            ended_early: frame.ended_early,
            measured_s: frame.measured_s,
            watched: frame.watched,
            generator_cpu_percent: frame.generator_cpu_percent,
            faults: frame.faults,
            series: frame.series,
            spec,
        }
    }

    pub fn read(path: &Path) -> Result<RunResult> {
        let path = if path.is_dir() { path.join("result.json") } else { path.to_owned() };
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let result: RunResult = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a result of this program", path.display()))?;
        if result.format != FORMAT {
            bail!("{} has format {:?}, this program reads {FORMAT:?}", path.display(), result.format);
        }
        Ok(result)
    }
}

impl Verdict {
    fn new(spec: &RunSpec, stats: &Stats, ended_early: Option<&str>) -> Verdict {
        let tally = stats.tally;
        let counted = [
            (tally.lost(), "lost"),
            (tally.altered, "altered"),
            (tally.duplicated, "duplicated"),
            (tally.out_of_order, "out of order"),
            (tally.misdelivered, "misdelivered"),
        ];
        let mut reasons: Vec<String> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        for (kind, count) in &stats.errors {
            if !is_part_of_the_plan(spec, kind) {
                reasons.push(format!("{count} x {kind}"));
            }
        }
        if let Some(why) = ended_early.filter(|why| *why != INTERRUPTED) {
            reasons.push(why.to_owned());
        }
        if stats.counters.connected == 0 && ended_early.is_none() {
            reasons.push("no connection was opened".into());
        }
        Verdict { tally, lost: tally.lost(), pass: reasons.is_empty(), reasons }
    }
}

/// `ended_early` of a run that the user ended, which is no fault of the target.
pub const INTERRUPTED: &str = "interrupted";

/// Faults are injected to break connections, and a ramp is meant to find where they fail.
fn is_part_of_the_plan(spec: &RunSpec, kind: &str) -> bool {
    use crate::spec::Scenario;
    match &spec.scenario {
        Scenario::Faults { fault, .. } => {
            !fault.spares_the_others() && !kind.starts_with("protocol violation") && !kind.starts_with("not recovered")
        }
        Scenario::Ramp { .. } => !kind.starts_with("protocol violation"),
        _ => false,
    }
}

impl RunResult {
    /// Writes result.json and the latency histogram as an interval log, which HdrHistogram's own
    /// tools and plotters read.
    pub fn write(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let json = serde_json::to_string_pretty(self)?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("result.json", &json)?;
        write("latency.hlog", &self.interval_log())
    }

    fn interval_log(&self) -> String {
        let max_ms = self.latency.summary.max_us / 1e3;
        format!(
            "#[Histogram log format version 1.3]\n#[Unit: nanoseconds; the maximum below in milliseconds]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
             0.000,{:.3},{max_ms:.3},{}\n",
            self.measured_s, self.latency.hdr
        )
    }
}
