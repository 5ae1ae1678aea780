//! The result as a table for people.

use bytesize::ByteSize;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use super::result::{Distribution, RunResult};
use crate::spec::Scenario;

pub fn render(result: &RunResult) -> String {
    let mut text = String::new();
    text += &format!("{}\n", heading(result));
    text += &format!("{}\n", rates(result));
    if let Some(latencies) = latencies(result) {
        text += &format!("{latencies}\n");
    }
    if let Some(watched) = watched(result) {
        text += &format!("{watched}\n");
    }
    for (title, counts) in
        [("errors", &result.errors), ("close codes received", &result.close_codes), ("closings", &result.closings)]
    {
        if !counts.is_empty() {
            text += &format!("{title}:\n");
            for (kind, count) in counts {
                text += &format!("  {count:>10}  {kind}\n");
            }
        }
    }
    text + &verdict(result)
}

fn heading(result: &RunResult) -> String {
    let spec = &result.spec;
    format!(
        "{} {}, {} connections, {} per message, {:.1} s measured{}",
        spec.name,
        spec.target.url,
        spec.connections_total,
        spec.message.size,
        result.measured_s,
        result.ended_early.as_ref().map_or(String::new(), |why| format!(" ({why})"))
    )
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        if i > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn rates(result: &RunResult) -> Table {
    let throughput = &result.throughput;
    let connections = &result.connections;
    let mut table = new_table(&["", "per second", "bytes per second"]);
    let bytes = |per_s: f64| format!("{}", ByteSize(per_s as u64));
    let count = |per_s: f64| format!("{per_s:.0}");
    table.add_row(["sent", &count(throughput.sent_per_s), &bytes(throughput.sent_bytes_per_s)]);
    let received = count(throughput.received_per_s);
    table.add_row(["received", &received, &bytes(throughput.received_bytes_per_s)]);
    let connecting = count(connections.connect_per_s.max(throughput.handshakes_per_s));
    let opened = format!(
        "{} opened, {} failed, {} broken, peak {}",
        connections.opened, connections.failed, connections.broken, connections.peak
    );
    table.add_row(["handshakes", &connecting, &opened]);
    table
}

fn latencies(result: &RunResult) -> Option<Table> {
    let rows: [(&str, &Distribution); 6] = [
        ("latency", &result.latency),
        ("from actual send", &result.service),
        ("connect", &result.connect),
        ("close", &result.close),
        ("recovery", &result.recovery),
        ("generator late by", &result.lateness),
    ];
    let mut table = new_table(&["", "count", "p50", "p90", "p99", "p99.9", "max"]);
    let mut any = false;
    for (name, distribution) in rows {
        let summary = &distribution.summary;
        if summary.count == 0 {
            continue;
        }
        any = true;
        table.add_row([
            name.to_owned(),
            summary.count.to_string(),
            time(summary.p50_us),
            time(summary.p90_us),
            time(summary.p99_us),
            time(summary.p999_us),
            time(summary.max_us),
        ]);
    }
    any.then_some(table)
}

/// Microseconds in the unit that reads best.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Where a ramp ended, and why.
pub fn breaking_point(result: &RunResult) -> Option<String> {
    if !matches!(result.spec.scenario, Scenario::Ramp { .. }) {
        return None;
    }
    let target = result.spec.connections_total;
    let opened = result.connections.opened;
    let first = result.series.iter().find(|point| point.failed_per_s > 0.0);
    Some(match first {
        None if opened >= u64::from(target) => format!("ramp: all {target} connections stand"),
        None => format!("ramp: {opened} of {target} connections stood when time was up"),
        Some(point) => format!(
            "ramp: failures began at {:.1} s with {} connections open; {opened} of {target} were opened",
            point.at_s, point.open
        ),
    })
}

fn watched(result: &RunResult) -> Option<Table> {
    let watched = result.watched.as_ref()?;
    let mut table = new_table(&["watched process", &watched.names.join(", ")]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let scenario = &result.spec.scenario;
    if scenario.is_steady() {
        row("CPU per message (sent + received)", format!("{:.2} us", watched.cpu_us_per_message));
    }
    if scenario.is_steady() && scenario.is_echo() {
        row("CPU per round trip", format!("{:.2} us", watched.cpu_us_per_round_trip));
    }
    row("CPU per handshake", format!("{:.1} us", watched.cpu_us_per_handshake));
    row("CPU, of one core", format!("{:.0} %", watched.cpu_percent));
    let memory = |bytes: u64| format!("{}", ByteSize(bytes));
    row("memory before (RssAnon)", memory(watched.before.rss_anon_bytes));
    row("memory connected", memory(watched.connected.rss_anon_bytes));
    row("memory after", memory(watched.after.rss_anon_bytes));
    let per_connection = watched.rss_anon_bytes_per_connection / 1024.0;
    row("memory per connection", format!("{per_connection:.2} KiB"));
    Some(table)
}

fn verdict(result: &RunResult) -> String {
    let verdict = &result.verdict;
    let tally = &verdict.tally;
    let mut text = format!(
        "verdict: {}  sent {}, expected {}, received {}, lost {}\n  \
         altered {}, duplicated {}, out of order {}, misdelivered {}, in doubt {}\n",
        if verdict.pass { "PASS" } else { "FAIL" },
        tally.sent,
        tally.expected,
        tally.received,
        verdict.lost,
        tally.altered,
        tally.duplicated,
        tally.out_of_order,
        tally.misdelivered,
        tally.in_doubt
    );
    for reason in &verdict.reasons {
        text += &format!("  because of {reason}\n");
    }
    if result.generator_cpu_percent > 85.0 * f64::from(result.spec.workers) {
        text += &format!(
            "note: the load generator itself used {:.0} % of a core; the numbers may be its own limit\n",
            result.generator_cpu_percent
        );
    }
    text
}
