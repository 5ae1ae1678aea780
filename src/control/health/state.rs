//! What checks mean: how many of them change a verdict, when the next one is due, and which changes are worth a line.

use std::time::Duration;

use crate::control::task::share;
use crate::table::state::Checked;

/// Backends whose checks start together get this much time each to spread over.
const START_EACH: Duration = Duration::from_millis(1);

/// The verdict on one backend.
///
/// ```text
///            first good             `fall` bad ones in a row
///   Unknown ------------> Up <-------------------------------> Down <---- Unknown
///                              `rise` good ones in a row           first bad
/// ```
///
/// One that has never been up comes up with its first good check: it was not yet there when it was asked first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    verdict: Checked,
    was_up: bool,
    /// Results in a row that speak against it.
    against: u32,
}

impl Judge {
    /// Goes on from what earlier checks have found.
    pub(super) fn new(verdict: Checked, was_up: bool) -> Self {
        Judge { verdict, was_up: was_up || verdict == Checked::Up, against: 0 }
    }

    pub(super) fn verdict(&self) -> Checked {
        self.verdict
    }

    /// Takes the result of one check. Returns the new verdict if it changes.
    pub(super) fn judge(&mut self, ok: bool, rise: u32, fall: u32) -> Option<Checked> {
        let (other, needed) = match (self.verdict, ok) {
            (Checked::Unknown, true) => (Checked::Up, 1),
            (Checked::Unknown, false) => (Checked::Down, 1),
            (Checked::Up, false) => (Checked::Down, fall),
            (Checked::Down, true) => (Checked::Up, if self.was_up { rise } else { 1 }),
            (Checked::Up, true) | (Checked::Down, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        *self = Judge::new(other, self.was_up);
        Some(other)
    }
}

/// From the start of one check to the start of the next: `interval`, up to `jitter_percent` longer or shorter.
pub(super) fn delay(interval: Duration, jitter_percent: u32, random: u64) -> Duration {
    let jitter = f64::from(jitter_percent.min(100)) / 100.0;
    interval.mul_f64(1.0 - jitter + 2.0 * jitter * share(random))
}

/// Until the first check of a backend, when checks of so many start at once. A single one is checked at once, and no
/// number of them takes longer than an interval.
pub(super) fn first_delay(interval: Duration, starting: usize, random: u64) -> Duration {
    let starting = u32::try_from(starting).unwrap_or(u32::MAX);
    START_EACH.saturating_mul(starting - starting.min(1)).min(interval).mul_f64(share(random))
}

/// Keeps a flapping backend from filling the log: one line per [`FlapThrottle::QUIET_MS`] each way, and the last word is always
/// told.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlapThrottle {
    /// What was told last.
    told_down: bool,
    /// When each way was told, by `down as usize`.
    told_at: [Option<u64>; 2],
    /// Changes that nobody was told of.
    untold: u32,
}

impl FlapThrottle {
    pub(super) const QUIET_MS: u64 = 10_000;

    /// What is so at first needs no line, unless it is bad news.
    pub(super) fn new(down: bool) -> Self {
        FlapThrottle { told_down: down, told_at: [None; 2], untold: 0 }
    }

    /// To be called after every check. `Some`: say now that it is down (or up), and how many changes were left out.
    pub(super) fn tell(&mut self, down: bool, changed: bool, now_ms: u64) -> Option<u32> {
        self.untold += u32::from(changed);
        let recent = |at: u64| now_ms.saturating_sub(at) < Self::QUIET_MS;
        if down == self.told_down || self.told_at[usize::from(down)].is_some_and(recent) {
            return None;
        }
        self.told_down = down;
        self.told_at[usize::from(down)] = Some(now_ms);
        Some(std::mem::take(&mut self.untold).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(from: Checked, results: &str, rise: u32, fall: u32) -> String {
        let mut judge = Judge::new(from, from == Checked::Down);
        let verdict = |result| match judge.judge(result == '+', rise, fall) {
            None => '.',
            Some(Checked::Up) => 'U',
            Some(Checked::Down) => 'D',
            Some(Checked::Unknown) => '?',
        };
        results.chars().map(verdict).collect()
    }

    /// It was started after the relay: what made it down was that it was not there yet.
    #[test]
    fn field_b04_who_was_never_up_comes_up_at_once() {
        assert_eq!(verdicts(Checked::Unknown, "-+", 9, 9), "DU");
        assert_eq!(verdicts(Checked::Unknown, "---+", 2, 3), "D..U");
        assert_eq!(verdicts(Checked::Unknown, "-+---+++", 3, 3), "DU..D..U", "and after that it has to show more");
        assert_eq!(verdicts(Checked::Unknown, "+--+++", 3, 2), "U.D..U");
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(verdicts(Checked::Unknown, "+", 9, 9), "U");
        assert_eq!(verdicts(Checked::Unknown, "-", 9, 9), "D");
    }

    #[test]
    fn changes_need_results_in_a_row() {
        assert_eq!(verdicts(Checked::Unknown, "+--+---+-++", 2, 3), "U.....D...U");
        assert_eq!(verdicts(Checked::Up, "-+--+---", 1, 3), ".......D");
        assert_eq!(verdicts(Checked::Down, "+-++-", 2, 1), "...UD");
        assert_eq!(verdicts(Checked::Down, "----", 1, 1), "....");
    }

    #[test]
    fn delays_are_within_the_jitter() {
        let interval = Duration::from_secs(5);
        for (jitter, random, expected) in [
            (0, 77, 5000),
            (20, 0, 4000),
            (20, 500_000, 5000),
            (20, 1_000_000, 6000),
            (500, 0, 0),
            (500, 1_000_000, 10_000),
        ] {
            assert_eq!(delay(interval, jitter, random), Duration::from_millis(expected), "{jitter} {random}");
        }
    }

    #[test]
    fn first_checks_are_spread_over_at_most_an_interval() {
        let interval = Duration::from_secs(5);
        for (starting, random, expected) in [
            (0, 1_000_000, 0),
            (1, 1_000_000, 0),
            (101, 0, 0),
            (101, 1_000_000, 100),
            (1001, 500_000, 500),
            (10_000, 1_000_000, 5000),
            (usize::MAX, 1_000_000, 5000),
        ] {
            assert_eq!(first_delay(interval, starting, random), Duration::from_millis(expected), "{starting} {random}");
        }
    }

    #[test]
    fn good_news_at_first_is_no_news() {
        assert_eq!(FlapThrottle::new(false).tell(false, true, 0), None);
        assert_eq!(FlapThrottle::new(false).tell(true, true, 0), Some(0));
        assert_eq!(FlapThrottle::new(true).tell(true, false, 0), None);
    }

    #[test]
    fn flapping_is_told_seldom_and_its_end_always() {
        let mut flaps = FlapThrottle::new(false);
        assert_eq!(flaps.tell(true, true, 1000), Some(0));
        assert_eq!(flaps.tell(false, true, 2000), Some(0));
        assert_eq!(flaps.tell(true, true, 3000), None);
        assert_eq!(flaps.tell(false, true, 4000), None);
        assert_eq!(flaps.tell(true, true, 5000), None);
        // It has been down since, so this has to be told although nothing has changed: two changes in between were not.
        assert_eq!(flaps.tell(true, false, 10_999), None);
        assert_eq!(flaps.tell(true, false, 11_000), Some(2));
        assert_eq!(flaps.tell(true, false, 60_000), None);
        assert_eq!(flaps.tell(false, true, 60_001), Some(0));
    }
}
