//! What is written: JSON that matches its published schema, the standard histogram form, pages without scripts.

use std::fs;

use loadtest::measure::latency::Latency;

use crate::support::{BRIEF, Server, program};

#[test]
fn results_match_the_schema_and_can_be_compared() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Server::upstream(&[]);
    let (pid, url) = (upstream.pid().to_string(), upstream.url());
    let mut paths = Vec::new();
    for (label, round) in [("base", 1), ("other", 1), ("base", 2), ("other", 2)] {
        let path = directory.path().join(format!("{label}-{round}"));
        let path = path.to_str().unwrap().to_owned();
        let mut arguments = vec!["run", "echo", "-c", "2", "-u", &url, "-o", &path, "-q"];
        arguments.extend(["--label", label, "--watch-pid", &pid]);
        arguments.extend(BRIEF.split(' '));
        assert_eq!(program(&arguments).status.code(), Some(0));
        paths.push(path);
    }
    let json = fs::read_to_string(format!("{}/result.json", paths[0])).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let schema = program(&["schema"]).stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<String> = validator.iter_errors(&json).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let histogram = Latency::decode(json["latency"]["hdr"].as_str().unwrap()).unwrap();
    assert_eq!(Some(histogram.count()), json["latency"]["summary"]["count"].as_u64());
    let log = fs::read_to_string(format!("{}/latency.hlog", paths[0])).unwrap();
    assert!(log.contains(",HISTF"));
    check_page(&fs::read_to_string(format!("{}/report.html", paths[0])).unwrap());

    let page = directory.path().join("compare.html");
    let page = page.to_str().unwrap();
    let mut arguments = vec!["compare", "--html", page, "--markdown"];
    arguments.extend(paths.iter().map(String::as_str));
    let output = program(&arguments);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(table.contains("echo, 2 connections") && table.contains("| other"), "{table}");
    check_page(&fs::read_to_string(page).unwrap());
}

fn check_page(page: &str) {
    assert!(page.contains("<svg") && page.trim_end().ends_with("</html>"));
    for outside in ["<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
}

#[test]
fn the_published_schema_is_current() {
    let published = include_str!("../../result.schema.json");
    let current = String::from_utf8(program(&["schema"]).stdout).unwrap();
    assert_eq!(published, current, "write it anew: loadtest schema > loadtest/result.schema.json");
}

#[test]
fn results_of_other_programs_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    fs::write(&path, "{}").unwrap();
    let path = path.to_str().unwrap();
    let output = program(&["report", path]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a result"));
}

/// A line that tells of an interval before its phase would say nothing was sent, and the next one twice too much.
#[test]
fn field_l01_progress_is_of_whole_intervals_and_fits_a_terminal() {
    let upstream = Server::upstream(&[]);
    let url = upstream.url();
    let words = ["run", "echo", "-c", "4", "--warmup", "1500ms", "-d", "1500ms", "--interval", "500ms", "-u", &url];
    let output = program(&words);
    assert!(output.status.success());
    let (table, progress) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for phase in ["warm-up", "measure"] {
        let lines: Vec<_> = progress.lines().filter(|line| line.contains(phase) && line.contains("sent/s")).collect();
        assert!(!lines.is_empty(), "{progress}");
        assert!(lines.iter().all(|line| !line.contains(" 0 sent/s")), "{progress}");
    }
    assert!(table.lines().chain(progress.lines()).all(|line| line.chars().count() <= 100), "{table}{progress}");
}
