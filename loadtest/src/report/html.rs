//! Self-contained pages: one run's report, and the comparison of several. No scripts, nothing to load.

use std::path::Path;

use anyhow::{Context, Result};
use bytesize::ByteSize;

use super::compare::Comparison;
use super::plots::{Line, by_percentile, over_time};
use super::result::RunResult;
use super::table::{self, time};
use crate::control::series::Point;
use crate::measure::latency::Latency;

const STYLE: &str = include_str!("style.css");

pub fn write(result: &RunResult, path: &Path) -> Result<()> {
    let title = format!("{}: {}", result.label, result.spec.name);
    let mut body = tiles(result);
    for (heading, svg) in plots(result)? {
        body += &figure(&heading, &svg);
    }
    body += &section("In figures", &format!("<pre>{}</pre>", escape(&table::render(result))));
    body += &section("Where and how", &environment(result));
    save(path, &title, &subtitle(result), &body)
}

pub fn write_comparison(comparison: &Comparison, results: &[RunResult], path: &Path) -> Result<()> {
    let mut body = String::new();
    for part in &comparison.sections {
        body += &section(&part.workload, &comparison_table(comparison, part));
        let curves: Vec<(String, Latency)> = part
            .rows
            .iter()
            .filter_map(|row| Some((row.label.clone(), merged(results, &row.label, &part.workload)?)))
            .collect();
        if !curves.is_empty() {
            body += &figure("Latency by percentile, all rounds", &by_percentile(&curves)?);
        }
        let rates = rates_over_time(results, part);
        if rates.iter().any(|line| line.points.iter().any(|point| point.1 > 0.0)) {
            let svg = over_time("received per second", &rates, |y| format!("{y:.0}"))?;
            body += &figure("Throughput over time, last round", &svg);
        }
    }
    if let Some(first) = results.first() {
        body += &section("Where and how", &environment(first));
    }
    let subtitle = format!("ratios are to {}, round by round: median (min-max)", comparison.reference);
    save(path, "Comparison", &subtitle, &body)
}

fn rates_over_time(results: &[RunResult], part: &super::compare::Section) -> Vec<Line> {
    let last_round = |label: &str| {
        let of_it = |result: &&RunResult| result.label == label && super::compare::workload(result) == part.workload;
        results.iter().filter(of_it).max_by(|a, b| a.started_at.cmp(&b.started_at))
    };
    let line = |result: &RunResult| Line {
        name: result.label.clone(),
        points: result.series.iter().map(|point| (point.at_s, point.received_per_s)).collect(),
    };
    part.rows.iter().filter_map(|row| last_round(&row.label)).map(line).collect()
}

fn merged(results: &[RunResult], label: &str, workload: &str) -> Option<Latency> {
    let mut sum = Latency::default();
    let of_it = results.iter().filter(|r| r.label == label && super::compare::workload(r) == workload);
    of_it.filter_map(|result| result.latency.histogram()).for_each(|one| sum.merge(&one));
    (!sum.is_empty()).then_some(sum)
}

fn save(path: &Path, title: &str, subtitle: &str, body: &str) -> Result<()> {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head>\n\
         <body><main><header><h1>{0}</h1><p>{1}</p></header>\n{body}</main></body></html>\n",
        escape(title),
        escape(subtitle)
    );
    std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))
}

fn subtitle(result: &RunResult) -> String {
    format!(
        "{} · {} connections · {} per message · {:.1} s measured · {}{}",
        result.spec.target.url,
        result.spec.connections_total,
        result.spec.message.size,
        result.measured_s,
        result.started_at,
        result.ended_early.as_ref().map_or(String::new(), |why| format!(" · {why}"))
    )
}

fn tiles(result: &RunResult) -> String {
    let summary = &result.latency.summary;
    let mut tiles = vec![
        ("received per second", format!("{:.0}", result.throughput.received_per_s)),
        ("p50", time(summary.p50_us)),
        ("p99", time(summary.p99_us)),
        ("p99.9", time(summary.p999_us)),
        ("max", time(summary.max_us)),
    ];
    if let Some(watched) = &result.watched {
        tiles.push(("CPU per message", format!("{:.2} us", watched.cpu_us_per_message)));
        let per_connection = watched.rss_anon_bytes_per_connection / 1024.0;
        tiles.push(("memory per connection", format!("{per_connection:.2} KiB")));
    }
    let verdict = &result.verdict;
    let (class, word) = if verdict.pass { ("good", "PASS") } else { ("bad", "FAIL") };
    let mut html = format!(
        "<div class=\"verdict {class}\"><b>{word}</b> sent {}, received {}, lost {}, altered {}, \
         duplicated {}, out of order {}, in doubt {}</div>\n<div class=\"tiles\">",
        verdict.tally.sent,
        verdict.tally.received,
        verdict.lost,
        verdict.tally.altered,
        verdict.tally.duplicated,
        verdict.tally.out_of_order,
        verdict.tally.in_doubt
    );
    for (name, value) in tiles {
        html += &format!("<div><b>{}</b><span>{}</span></div>", escape(&value), escape(name));
    }
    html + "</div>\n"
}

fn plots(result: &RunResult) -> Result<Vec<(String, String)>> {
    let series = &result.series;
    let line = |name: &str, value: fn(&Point) -> f64| Line {
        name: name.to_owned(),
        points: series.iter().map(|point| (point.at_s, value(point))).collect(),
    };
    let count: fn(f64) -> String = |y| format!("{y:.0}");
    let mut plots = Vec::new();
    let curves: Vec<(String, Latency)> = [
        ("latency", &result.latency),
        ("from the actual send (hides stalls)", &result.service),
        ("connect", &result.connect),
    ]
    .into_iter()
    .filter_map(|(name, part)| Some((name.to_owned(), part.histogram()?)))
    .collect();
    if !curves.is_empty() {
        plots.push(("Latency by percentile".to_owned(), by_percentile(&curves)?));
    }
    let messages = [line("received", |p| p.received_per_s), line("sent", |p| p.sent_per_s)];
    plots.push(("Throughput over time".into(), over_time("messages per second", &messages, count)?));
    let latencies = [line("p50", |p| p.p50_us), line("p99", |p| p.p99_us), line("max", |p| p.max_us)];
    plots.push(("Latency over time".into(), over_time("latency", &latencies, time)?));
    let open = [line("open", |p| p.open as f64)];
    plots.push(("Connections over time".into(), over_time("connections", &open, count)?));
    if result.watched.is_some() {
        let cpu = [line("CPU", |p| p.cpu_percent.unwrap_or(0.0))];
        let percent: fn(f64) -> String = |y| format!("{y:.0} %");
        let name = "CPU of the watched process";
        plots.push((name.into(), over_time("of one core", &cpu, percent)?));
        let memory = [line("memory", |p| p.rss_anon_bytes.unwrap_or(0) as f64)];
        let bytes: fn(f64) -> String = |y| format!("{}", ByteSize(y as u64));
        let name = "Memory of the watched process (anonymous)";
        plots.push((name.into(), over_time("resident", &memory, bytes)?));
    }
    Ok(plots)
}

fn figure(heading: &str, svg: &str) -> String {
    // The drawing scales with the page instead of insisting on its pixels.
    let svg = svg.replacen("<svg width=\"860\" height=\"340\"", "<svg", 1);
    format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(heading))
}

fn section(heading: &str, html: &str) -> String {
    format!("<section><h2>{}</h2>{html}</section>\n", escape(heading))
}

fn environment(result: &RunResult) -> String {
    let env = &result.environment;
    let rows = [
        ("kernel", env.kernel.clone()),
        ("CPU", format!("{} x {}", env.cpus, env.cpu)),
        ("memory", format!("{}", ByteSize(env.memory_bytes))),
        ("open files", env.open_files_max.to_string()),
        ("local ports", env.local_ports.clone()),
        ("load average before the report", env.load_average.clone()),
        ("loadtest", env.loadtest_version.clone()),
        ("command line", env.command_line.join(" ")),
        ("CPU of the load generator", format!("{:.0} % of a core", result.generator_cpu_percent)),
    ];
    let mut html = String::from("<table class=\"facts\">");
    for (name, value) in rows {
        html += &format!("<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    for event in &result.faults {
        let what = escape(&event.what);
        html += &format!("<tr><th>fault at {:.3} s</th><td>{what}</td></tr>", event.at_s);
    }
    html + "</table>"
}

fn comparison_table(comparison: &Comparison, part: &super::compare::Section) -> String {
    let mut html = String::from("<table class=\"ratios\"><tr><th></th><th>rounds</th>");
    for metric in &part.metrics {
        html += &format!("<th colspan=\"2\">{}</th>", metric.title());
    }
    html += "</tr>";
    for row in &part.rows {
        let class = if row.label == comparison.reference { " class=\"reference\"" } else { "" };
        html += &format!("<tr{class}><th>{}</th><td>{}</td>", escape(&row.label), row.rounds_text());
        for metric in &part.metrics {
            match row.cells.get(metric) {
                None => html += "<td>-</td><td></td>",
                Some(cell) => {
                    let ratio = cell.ratio.map_or(String::new(), |ratio| ratio.to_string());
                    html += &format!("<td>{}</td><td>{ratio}</td>", metric.show(cell.median));
                }
            }
        }
        html += "</tr>";
    }
    html + "</table>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
