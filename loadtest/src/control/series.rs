//! The time series: every worker's ticks and the watched processes' usage, put on one axis.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::shard::Tick;
use crate::measure::latency::Latency;
use crate::measure::procfs::Usage;
use crate::measure::stats::Counters;

/// One interval of the run, all workers together.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// End of the interval, in seconds since the start.
    pub at_s: f64,
    pub open: u64,
    pub connected_per_s: f64,
    pub sent_per_s: f64,
    pub received_per_s: f64,
    pub failed_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// CPU use of the watched processes: 100 is one core.
    pub cpu_percent: Option<f64>,
    pub rss_anon_bytes: Option<u64>,
}

#[derive(Default)]
pub struct Series {
    /// Per interval, then per worker: totals so far.
    counters: BTreeMap<u64, BTreeMap<u32, Counters>>,
    latency: BTreeMap<u64, Latency>,
    usage: BTreeMap<u64, (u64, Usage)>,
    latest: BTreeMap<u32, Counters>,
}

impl Series {
    pub fn tick(&mut self, worker: u32, tick: &Tick) {
        self.counters.entry(tick.index).or_default().insert(worker, tick.counters);
        self.latency.entry(tick.index).or_default().merge(&tick.latency);
        self.latest.insert(worker, tick.counters);
    }

    pub fn usage(&mut self, index: u64, at_ns: u64, usage: Usage) {
        self.usage.insert(index, (at_ns, usage));
    }

    /// Totals of all workers as last heard.
    pub fn totals(&self) -> Counters {
        sum(&self.latest)
    }

    /// The latest interval's latency, for the progress line.
    pub fn latest_latency(&self) -> Option<&Latency> {
        // The last one may still be missing some workers' ticks.
        self.latency.values().next_back()
    }

    pub fn points(&self, interval_ms: u64) -> Vec<Point> {
        let interval_s = interval_ms as f64 / 1e3;
        let mut latest: BTreeMap<u32, Counters> = BTreeMap::new();
        let mut before = Counters::default();
        let mut usage_before: Option<(u64, Usage)> = None;
        let mut points = Vec::new();
        for (index, workers) in &self.counters {
            // A worker that has ended keeps its last totals.
            latest.extend(workers);
            let now = sum(&latest);
            let change = now.since(&before);
            let empty = Latency::default();
            let latency = self.latency.get(index).unwrap_or(&empty);
            let usage = self.usage.get(index);
            let cpu_percent = match (usage, usage_before) {
                (Some((at, now)), Some((from, before))) if *at > from => {
                    let busy = now.cpu_ns.saturating_sub(before.cpu_ns);
                    Some(busy as f64 / (at - from) as f64 * 100.0)
                }
                _ => None,
            };
            points.push(Point {
                at_s: (index + 1) as f64 * interval_s,
                open: now.open,
                connected_per_s: change.connected as f64 / interval_s,
                sent_per_s: change.sent as f64 / interval_s,
                received_per_s: change.received as f64 / interval_s,
                failed_per_s: (change.connect_failed + change.broken) as f64 / interval_s,
                p50_us: latency.quantile_us(0.5),
                p99_us: latency.quantile_us(0.99),
                max_us: latency.quantile_us(1.0),
                cpu_percent,
                rss_anon_bytes: usage.map(|(_, usage)| usage.rss_anon_bytes),
            });
            before = now;
            usage_before = usage.copied().or(usage_before);
        }
        points
    }
}

fn sum(workers: &BTreeMap<u32, Counters>) -> Counters {
    let mut total = Counters::default();
    workers.values().for_each(|counters| total.add(counters));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(index: u64, received: u64, ns: u64) -> Tick {
        let counters = Counters { received, open: 1, ..Counters::default() };
        let mut latency = Latency::default();
        latency.record(ns);
        Tick { index, counters, latency }
    }

    #[test]
    fn totals_become_rates_and_workers_add_up() {
        let mut series = Series::default();
        series.tick(0, &tick(0, 100, 1_000_000));
        series.tick(1, &tick(0, 50, 3_000_000));
        series.tick(0, &tick(1, 300, 1_000_000));
        // Worker 1 has ended: its total stands, its rate is zero.
        let points = series.points(500);
        assert_eq!(points.len(), 2);
        assert_eq!(points[0].received_per_s, 300.0);
        assert_eq!(points[1].received_per_s, 400.0);
        assert_eq!(points[1].open, 2);
        assert!(points[0].max_us > 2_900.0);
        assert_eq!(series.totals().received, 350);
    }

    #[test]
    fn cpu_use_is_time_used_over_time_passed() {
        let mut series = Series::default();
        for index in 0..2 {
            series.tick(0, &tick(index, 0, 1));
            let usage = Usage { cpu_ns: index * 250_000_000, rss_anon_bytes: 7, ..Usage::default() };
            series.usage(index, index * 500_000_000, usage);
        }
        let points = series.points(500);
        assert_eq!(points[0].cpu_percent, None);
        assert_eq!(points[1].cpu_percent, Some(50.0));
        assert_eq!(points[1].rss_anon_bytes, Some(7));
    }
}
