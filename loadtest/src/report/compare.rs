//! Several results side by side: the median of each candidate's rounds, and its ratio to the
//! reference round by round, so that what the machine did to both cancels out.

use std::collections::BTreeMap;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table};

use super::result::RunResult;
use super::table::time;
use crate::spec::Scenario;

pub struct Comparison {
    pub reference: String,
    pub sections: Vec<Section>,
}

/// One workload: the same scenario, connections and size.
pub struct Section {
    pub workload: String,
    pub rows: Vec<Row>,
    /// The metrics that at least one row has.
    pub metrics: Vec<Metric>,
}

pub struct Row {
    pub label: String,
    pub rounds: usize,
    pub failed_rounds: usize,
    pub cells: BTreeMap<Metric, Cell>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub median: f64,
    /// To the reference; the reference itself has none.
    pub ratio: Option<Spread>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    CpuPerMessage,
    CpuPerHandshake,
    Messages,
    Handshakes,
    P50,
    P99,
    MemoryPerConnection,
}

impl Metric {
    pub const ALL: [Metric; 7] = [
        Metric::CpuPerMessage,
        Metric::CpuPerHandshake,
        Metric::Messages,
        Metric::Handshakes,
        Metric::P50,
        Metric::P99,
        Metric::MemoryPerConnection,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Metric::CpuPerMessage => "CPU us/message",
            Metric::CpuPerHandshake => "CPU us/handshake",
            Metric::Messages => "messages/s",
            Metric::Handshakes => "handshakes/s",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::MemoryPerConnection => "KiB/connection",
        }
    }

    /// `None`: this run says nothing about it.
    fn of(self, result: &RunResult) -> Option<f64> {
        let watched = result.watched.as_ref();
        let scenario = &result.spec.scenario;
        let connects = matches!(scenario, Scenario::Churn { .. } | Scenario::Ramp { .. });
        let idles = matches!(scenario, Scenario::Idle { .. });
        let value = match self {
            Metric::CpuPerMessage if !connects && !idles => watched?.cpu_us_per_message,
            Metric::CpuPerHandshake if connects => watched?.cpu_us_per_handshake,
            Metric::Messages if !connects && !idles => result.throughput.sent_per_s + result.throughput.received_per_s,
            Metric::Handshakes if connects => result.throughput.handshakes_per_s,
            Metric::P50 if !connects => result.latency.summary.p50_us,
            Metric::P99 if !connects => result.latency.summary.p99_us,
            Metric::MemoryPerConnection if idles => watched?.rss_anon_bytes_per_connection / 1024.0,
            _ => return None,
        };
        (value.is_finite() && value > 0.0).then_some(value)
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Metric::P50 | Metric::P99 => time(value),
            Metric::Messages | Metric::Handshakes => format!("{value:.0}"),
            _ => format!("{value:.2}"),
        }
    }
}

/// What must be equal for two results to be comparable.
pub fn workload(result: &RunResult) -> String {
    let spec = &result.spec;
    let how = match &spec.scenario {
        Scenario::Closed { depth: 1 } => String::new(),
        Scenario::Closed { depth } => format!(", depth {depth}"),
        // Rates are rounded in the name: they often come from a measured capacity.
        Scenario::Open { rate, .. } => format!(", {rate:.0}/s"),
        Scenario::Ramp { rate, .. } => format!(", {rate:.0}/s"),
        Scenario::FanOut { rooms, rate } | Scenario::FanIn { rooms, rate } => {
            format!(", {rooms} rooms, {rate:.0}/s")
        }
        Scenario::Chat { room_size, think_ms } => format!(", rooms of {room_size}, {think_ms} ms"),
        Scenario::Burst { messages, period_ms } => format!(", {messages} each {period_ms} ms"),
        Scenario::Churn { messages, .. } => format!(", {messages} messages"),
        Scenario::SlowReader { slow_percent, .. } => format!(", {slow_percent} % slow"),
        Scenario::Faults { fault, .. } => format!(", {fault:?}"),
        Scenario::Idle { .. } => String::new(),
    };
    format!("{}, {} connections, {}{how}", spec.name, spec.connections_total, spec.message.size)
}

impl Comparison {
    /// The first result's label is the reference, unless another is named.
    pub fn new(results: &[RunResult], reference: Option<&str>) -> Comparison {
        let first = results.first().map(|result| result.label.as_str());
        let reference = reference.or(first).unwrap_or_default().to_owned();
        let mut workloads: Vec<String> = Vec::new();
        for result in results {
            let workload = workload(result);
            if !workloads.contains(&workload) {
                workloads.push(workload);
            }
        }
        let sections = workloads
            .into_iter()
            .map(|name| {
                let of_it: Vec<&RunResult> = results.iter().filter(|result| workload(result) == name).collect();
                Section::new(name, &of_it, &reference)
            })
            .collect();
        Comparison { reference, sections }
    }

    pub fn table(&self, markdown: bool) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let marks = if markdown { "### " } else { "" };
            text += &format!("{marks}{}\n\n", section.workload);
            text += &format!("{}\n\n", section.table(markdown, &self.reference));
        }
        text
    }
}

impl Section {
    fn new(workload: String, results: &[&RunResult], reference: &str) -> Section {
        let mut labels: Vec<&str> = Vec::new();
        // The reference leads, the others follow as they came.
        for label in std::iter::once(reference).chain(results.iter().map(|r| r.label.as_str())) {
            if !labels.contains(&label) && results.iter().any(|result| result.label == label) {
                labels.push(label);
            }
        }
        let rounds = |label: &str| -> Vec<&RunResult> {
            let mut rounds: Vec<&RunResult> = results.iter().copied().filter(|result| result.label == label).collect();
            rounds.sort_by(|a, b| a.started_at.cmp(&b.started_at));
            rounds
        };
        let base = rounds(reference);
        let rows: Vec<Row> = labels.iter().map(|label| Row::new(label, &rounds(label), &base)).collect();
        let metrics =
            Metric::ALL.into_iter().filter(|metric| rows.iter().any(|row| row.cells.contains_key(metric))).collect();
        Section { workload, rows, metrics }
    }

    fn table(&self, markdown: bool, reference: &str) -> Table {
        let mut table = Table::new();
        table.load_preset(if markdown { ASCII_MARKDOWN } else { UTF8_BORDERS_ONLY });
        let mut header = vec!["".to_owned(), "rounds".to_owned()];
        for metric in &self.metrics {
            header.push(metric.title().into());
            header.push(format!("ratio to {reference} (min-max)"));
        }
        table.set_header(header);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let mut cells = vec![row.label.clone(), row.rounds_text()];
            for metric in &self.metrics {
                let cell = row.cells.get(metric);
                cells.push(cell.map_or("-".into(), |cell| metric.show(cell.median)));
                let ratio = cell.and_then(|cell| cell.ratio);
                cells.push(ratio.map_or("-".into(), |ratio| ratio.to_string()));
            }
            table.add_row(cells);
        }
        table
    }
}

impl Row {
    fn new(label: &str, rounds: &[&RunResult], base: &[&RunResult]) -> Row {
        let mut cells = BTreeMap::new();
        for metric in Metric::ALL {
            let values: Vec<f64> = rounds.iter().filter_map(|result| metric.of(result)).collect();
            let Some(spread) = Spread::of(values) else {
                continue;
            };
            let ratios = rounds.iter().zip(base).filter(|(own, base)| !std::ptr::eq(**own, **base));
            let ratios = ratios.filter_map(|(own, base)| Some(metric.of(own)? / metric.of(base)?)).collect();
            cells.insert(metric, Cell { median: spread.median, ratio: Spread::of(ratios) });
        }
        let failed_rounds = rounds.iter().filter(|result| !result.verdict.pass).count();
        Row { label: label.to_owned(), rounds: rounds.len(), failed_rounds, cells }
    }

    pub fn rounds_text(&self) -> String {
        match self.failed_rounds {
            0 => self.rounds.to_string(),
            failed => format!("{} ({failed} failed)", self.rounds),
        }
    }
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Spread { min, median, max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            return write!(f, "{:.2}", self.median);
        }
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        assert_eq!(Spread::of(vec![]), None);
        let odd = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }
}
