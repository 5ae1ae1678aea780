//! The run while it lasts: a bar with live rates on a terminal, a plain line per second otherwise.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::time;
use crate::measure::stats::Counters;

pub enum Progress {
    Silent,
    Bar(ProgressBar),
    Lines { phase: &'static str },
}

/// What changed since the last update.
pub struct Live {
    pub totals: Counters,
    pub sent_per_s: f64,
    pub received_per_s: f64,
    pub p99_us: f64,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        if quiet {
            return Progress::Silent;
        }
        let target = ProgressDrawTarget::stderr();
        if target.is_hidden() {
            return Progress::Lines { phase: "" };
        }
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = "{prefix:>10} {bar:30.cyan/blue} {elapsed_precise} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress::Bar(bar)
    }

    /// A new phase of known length, or of unknown length if that is zero.
    pub fn phase(&mut self, name: &'static str, length: Duration) {
        match self {
            Progress::Silent => {}
            Progress::Bar(bar) => {
                bar.set_prefix(name);
                bar.set_length(length.as_millis() as u64);
                bar.set_position(0);
            }
            Progress::Lines { phase } => {
                if *phase != name {
                    eprintln!("{name} ...");
                }
                *phase = name;
            }
        }
    }

    pub fn note(&self, text: &str) {
        match self {
            Progress::Silent => {}
            Progress::Bar(bar) => bar.println(text),
            Progress::Lines { .. } => eprintln!("{text}"),
        }
    }

    pub fn update(&self, passed: Duration, live: &Live) {
        match self {
            Progress::Silent => {}
            Progress::Bar(bar) => {
                bar.set_position(passed.as_millis() as u64);
                bar.set_message(live.line());
            }
            Progress::Lines { phase } => eprintln!("{phase:>10} {}", live.line()),
        }
    }

    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Live {
    fn line(&self) -> String {
        let totals = &self.totals;
        let failures = totals.connect_failed + totals.broken;
        format!(
            "{} open, {} sent/s, {} received/s, p99 {}{}",
            HumanCount(totals.open),
            HumanCount(self.sent_per_s as u64),
            HumanCount(self.received_per_s as u64),
            time(self.p99_us),
            if failures == 0 { String::new() } else { format!(", {failures} failures") }
        )
    }
}
