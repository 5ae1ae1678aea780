//! The circuit breaker of a pool, over all workers.
//!
//! ```text
//!            too many of a window's handshakes failed
//!   Closed ------------------------------------------> Open <------------+
//!      ^                                                 | time is over  | a probe failed
//!      +------------------------- HalfOpen <-------------+               |
//!        all probes succeeded        +-----------------------------------+
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::{self, millis};

/// The state, packed: two bits say which, the others hold its numbers.
#[derive(Debug, Default)]
pub struct Breaker(AtomicU64);

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerChange {
    Opened,
    Closed,
}

/// As what a handshake is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The breaker is closed, or there is none.
    Freely,
    /// What becomes of it decides whether the breaker closes.
    Probe,
    /// The same, and with it the breaker has become half open.
    FirstProbe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Handshakes since the window's start. Windows are numbered, in 22 bits.
    Closed {
        window: u64,
        failures: u64,
        total: u64,
    },
    Open {
        until: u64,
    },
    /// Probes that were let through `since` it began to wait for them.
    HalfOpen {
        issued: u64,
        succeeded: u64,
        since: u64,
    },
}

const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const WINDOW_MAX: u64 = (1 << 22) - 1;
const PROBE_BITS: u32 = 12;
const PROBES_MAX: u64 = (1 << PROBE_BITS) - 1;
/// Eight years of milliseconds.
const TIME_MAX: u64 = (1 << 38) - 1;

impl Breaker {
    /// A handshake would not be let through now. Changes nothing.
    pub fn refuses(&self, config: &config::Breaker, now: u64) -> bool {
        config.failures_percent.is_some() && State::unpack(self.0.load(Relaxed)).admit(config, now).is_err()
    }

    /// May a handshake go to the pool? If not: how many milliseconds until it may be asked again.
    pub fn admit(&self, config: &config::Breaker, now: u64) -> Result<Admitted, u64> {
        if config.failures_percent.is_none() {
            return Ok(Admitted::Freely);
        }
        let mut packed = self.0.load(Relaxed);
        loop {
            let before = State::unpack(packed);
            let after = before.admit(config, now)?;
            // Told by the very step that counted it: another worker may close the breaker right behind it.
            let admitted = match before {
                State::Closed { .. } => return Ok(Admitted::Freely),
                State::Open { .. } => Admitted::FirstProbe,
                State::HalfOpen { .. } => Admitted::Probe,
            };
            match self.0.compare_exchange_weak(packed, after.pack(), Relaxed, Relaxed) {
                Ok(_) => return Ok(admitted),
                Err(other) => packed = other,
            }
        }
    }

    /// A probe has found nobody to ask, or its client has gone: another one may go.
    pub fn withdraw(&self) {
        let next = |packed| match State::unpack(packed) {
            State::HalfOpen { issued, succeeded, since } if issued > succeeded => {
                Some(State::HalfOpen { issued: issued - 1, succeeded, since }.pack())
            }
            _ => None,
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, next); // none is counted in other states
    }

    /// A handshake that was admitted has succeeded, or failed.
    pub fn report(&self, config: &config::Breaker, ok: bool, now: u64) -> Option<BreakerChange> {
        let percent = config.failures_percent?;
        let next = |packed| Some(State::unpack(packed).report(config, percent, ok, now).pack());
        let before = self.0.fetch_update(Relaxed, Relaxed, next).map(State::unpack).ok()?;
        match (before, before.report(config, percent, ok, now)) {
            (State::Closed { .. } | State::HalfOpen { .. }, State::Open { .. }) => Some(BreakerChange::Opened),
            (State::HalfOpen { .. }, State::Closed { .. }) => Some(BreakerChange::Closed),
            _ => None,
        }
    }
}

impl State {
    fn admit(self, config: &config::Breaker, now: u64) -> Result<State, u64> {
        let first_probe = State::HalfOpen { issued: 1, succeeded: 0, since: now.min(TIME_MAX) };
        match self {
            State::Closed { .. } => Ok(self),
            State::Open { until } if now < until => Err(until - now),
            State::Open { .. } => Ok(first_probe),
            State::HalfOpen { issued, succeeded, since } if issued < probes(config) => {
                Ok(State::HalfOpen { issued: issued + 1, succeeded, since })
            }
            State::HalfOpen { since, .. } => {
                // Probes may have been lost: refused for another reason, or ended by the client. Others go after a while.
                let again = since.saturating_add(millis(config.open));
                if now < again { Err(again - now) } else { Ok(first_probe) }
            }
        }
    }

    fn report(self, config: &config::Breaker, percent: u32, ok: bool, now: u64) -> State {
        let open = State::Open { until: now.saturating_add(millis(config.open)).min(TIME_MAX) };
        let current = (now / millis(config.window).max(1)) & WINDOW_MAX;
        match self {
            State::Closed { window, failures, total } => {
                let (failures, total) = match (window == current, total) {
                    (false, _) => (0, 0),
                    // So many are enough to know the ratio; the newer half counts from here on.
                    (true, COUNT_MAX) => (failures / 2, total / 2),
                    (true, _) => (failures, total),
                };
                let (failures, total) = (failures + u64::from(!ok), total + 1);
                let is_enough = total >= u64::from(config.handshakes_min).min(COUNT_MAX);
                if !ok && is_enough && failures * 100 >= u64::from(percent) * total {
                    return open;
                }
                State::Closed { window: current, failures, total }
            }
            // From before it opened.
            State::Open { .. } => self,
            State::HalfOpen { .. } if !ok => open,
            State::HalfOpen { issued, succeeded, since } => {
                // What was under way before it opened cannot be told from probes, but there are no more successes than
                // probes.
                let succeeded = (succeeded + 1).min(issued);
                if succeeded >= probes(config) {
                    return State::Closed { window: current, failures: 0, total: 0 };
                }
                State::HalfOpen { issued, succeeded, since }
            }
        }
    }

    fn pack(self) -> u64 {
        match self {
            State::Closed { window, failures, total } => (window << COUNT_BITS | failures) << COUNT_BITS | total,
            State::Open { until } => 1 << 62 | until,
            State::HalfOpen { issued, succeeded, since } => {
                2 << 62 | (since << PROBE_BITS | issued) << PROBE_BITS | succeeded
            }
        }
    }

    fn unpack(packed: u64) -> State {
        match packed >> 62 {
            0 => State::Closed {
                window: packed >> (2 * COUNT_BITS),
                failures: packed >> COUNT_BITS & COUNT_MAX,
                total: packed & COUNT_MAX,
            },
            1 => State::Open { until: packed & TIME_MAX },
            _ => State::HalfOpen {
                issued: packed >> PROBE_BITS & PROBES_MAX,
                succeeded: packed & PROBES_MAX,
                since: packed >> (2 * PROBE_BITS) & TIME_MAX,
            },
        }
    }
}

fn probes(config: &config::Breaker) -> u64 {
    u64::from(config.probes).clamp(1, PROBES_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Opens at half of at least 4 within a second, for 5 seconds; 2 probes.
    fn config() -> config::Breaker {
        config::Breaker {
            failures_percent: Some(50),
            handshakes_min: 4,
            window: Duration::from_secs(1),
            open: Duration::from_secs(5),
            probes: 2,
        }
    }

    fn opened_at(now: u64) -> Breaker {
        let breaker = Breaker::default();
        let reports: Vec<_> = (0..4).map(|_| breaker.report(&config(), false, now)).collect();
        assert_eq!(reports, [None, None, None, Some(BreakerChange::Opened)]);
        breaker
    }

    #[test]
    fn it_opens_at_the_share_of_failures_once_there_are_enough() {
        let breaker = Breaker::default();
        for ok in [true, false, true, true, false] {
            assert_eq!(breaker.report(&config(), ok, 100), None);
        }
        assert_eq!(breaker.admit(&config(), 100), Ok(Admitted::Freely));
        assert_eq!(breaker.report(&config(), false, 200), Some(BreakerChange::Opened), "3 of 6");
        assert_eq!(breaker.admit(&config(), 200), Err(5000));
        assert_eq!(breaker.admit(&config(), 5199), Err(1));
        assert_eq!(breaker.report(&config(), false, 300), None, "it is open already");
    }

    #[test]
    fn another_window_starts_from_nothing() {
        let breaker = Breaker::default();
        for now in [997, 998, 999, 1000, 1001, 1002] {
            assert_eq!(breaker.report(&config(), false, now), None, "at {now}");
        }
        assert_eq!(breaker.report(&config(), false, 1003), Some(BreakerChange::Opened));
    }

    #[test]
    fn half_open_lets_so_many_probes_through_and_closes_when_all_succeed() {
        let breaker = opened_at(0);
        assert_eq!(breaker.admit(&config(), 5000), Ok(Admitted::FirstProbe));
        assert_eq!(breaker.admit(&config(), 5001), Ok(Admitted::Probe));
        assert_eq!(breaker.admit(&config(), 5002), Err(4998));
        assert_eq!(breaker.report(&config(), true, 5100), None);
        assert_eq!(breaker.admit(&config(), 5100), Err(4900));
        assert_eq!(breaker.report(&config(), true, 5200), Some(BreakerChange::Closed));
        assert_eq!(breaker.admit(&config(), 5200), Ok(Admitted::Freely));
        for _ in 0..3 {
            assert_eq!(breaker.report(&config(), false, 5300), None, "the old failures are forgotten");
        }
    }

    #[test]
    fn one_probe_that_fails_opens_it_again() {
        let breaker = opened_at(0);
        assert_eq!(breaker.admit(&config(), 6000), Ok(Admitted::FirstProbe));
        assert_eq!(breaker.report(&config(), false, 6500), Some(BreakerChange::Opened));
        assert_eq!(breaker.admit(&config(), 6500), Err(5000));
    }

    #[test]
    fn lost_probes_are_followed_by_others() {
        let breaker = opened_at(0);
        assert_eq!(breaker.admit(&config(), 5000), Ok(Admitted::FirstProbe));
        assert_eq!(breaker.admit(&config(), 5000), Ok(Admitted::Probe));
        assert_eq!(breaker.admit(&config(), 9999), Err(1));
        assert_eq!(breaker.admit(&config(), 10_000), Ok(Admitted::Probe));
        assert_eq!(breaker.admit(&config(), 10_000), Ok(Admitted::Probe));
        assert_eq!(breaker.admit(&config(), 10_001), Err(4999));
    }

    #[test]
    fn successes_from_before_it_opened_do_not_close_it() {
        let breaker = opened_at(0);
        assert_eq!(breaker.report(&config(), true, 10), None);
        assert_eq!(breaker.admit(&config(), 10), Err(4990));
        assert_eq!(breaker.admit(&config(), 5000), Ok(Admitted::FirstProbe));
        for _ in 0..5 {
            assert_eq!(breaker.report(&config(), true, 5001), None, "only one probe is under way");
        }
    }

    #[test]
    fn a_probe_that_was_none_is_followed_by_another() {
        let breaker = opened_at(0);
        breaker.withdraw();
        assert_eq!(breaker.admit(&config(), 10), Err(4990), "open it stays open");
        assert_eq!(breaker.admit(&config(), 5000), Ok(Admitted::FirstProbe));
        breaker.withdraw();
        breaker.withdraw();
        assert_eq!([breaker.admit(&config(), 5000), breaker.admit(&config(), 5000)], [Ok(Admitted::Probe); 2]);
        assert_eq!(breaker.admit(&config(), 5000), Err(5000));
        assert_eq!(breaker.report(&config(), true, 5001), None);
        breaker.withdraw();
        breaker.withdraw();
        assert_eq!(breaker.admit(&config(), 5002), Ok(Admitted::Probe), "the one that succeeded still counts");
        assert_eq!(breaker.report(&config(), true, 5003), Some(BreakerChange::Closed));
    }

    #[test]
    fn without_a_share_it_never_opens() {
        let off = config::Breaker { failures_percent: None, ..config() };
        let breaker = opened_at(0);
        assert_eq!(breaker.admit(&off, 1), Ok(Admitted::Freely));
        assert_eq!(breaker.report(&off, false, 1), None);
    }

    #[test]
    fn more_handshakes_than_it_can_count_keep_their_ratio() {
        let state = State::Closed { window: 0, failures: COUNT_MAX / 4, total: COUNT_MAX };
        let State::Closed { failures, total, .. } = state.report(&config(), 50, false, 0) else { panic!("it opened") };
        assert_eq!((failures, total), (COUNT_MAX / 8 + 1, COUNT_MAX / 2 + 1));
    }

    #[test]
    fn packing_loses_nothing() {
        for state in [
            State::Closed { window: 0, failures: 0, total: 0 },
            State::Closed { window: WINDOW_MAX, failures: COUNT_MAX - 1, total: COUNT_MAX },
            State::Open { until: TIME_MAX },
            State::HalfOpen { issued: PROBES_MAX, succeeded: PROBES_MAX - 1, since: TIME_MAX },
            State::HalfOpen { issued: 1, succeeded: 0, since: 0 },
        ] {
            assert_eq!(State::unpack(state.pack()), state);
        }
        assert_eq!(State::unpack(0), State::Closed { window: 0, failures: 0, total: 0 });
    }

    /// Who is admitted is told so by the step that counts it, whatever other workers do right behind that: of as many as
    /// are told that they are probes none is missing and none too many.
    #[test]
    fn field_c07_probes_are_told_by_the_look_that_counts_them() {
        let config = config::Breaker { probes: 1, ..config() };
        for round in 0..200 {
            let breaker = opened_at(0);
            let now = 5000 + round;
            let worker = || match breaker.admit(&config, now) {
                Ok(Admitted::Probe | Admitted::FirstProbe) => {
                    breaker.report(&config, true, now);
                    1
                }
                Ok(Admitted::Freely) | Err(_) => 0,
            };
            let probes: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).sum()
            });
            assert_eq!(probes, 1, "in round {round}");
        }
    }

    #[test]
    fn workers_together_issue_as_many_probes_as_one() {
        let breaker = opened_at(0);
        let config = config::Breaker { probes: 100, ..config() };
        let probe = || (0..200).filter(|_| breaker.admit(&config, 5000).is_ok()).count();
        let issued: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(probe)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(issued, 100);
    }
}
