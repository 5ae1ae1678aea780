//! When to ask again. Pure: the dice are an argument.

use std::time::Duration;

use crate::config::Discovery;
use crate::control::task::share;

/// After an answer that holds for `ttl`.
pub(super) fn after_answer(ttl: Duration, settings: &Discovery, random: u64) -> Duration {
    // Not `clamp`, which panics if the bounds are crossed.
    jittered(ttl.max(settings.interval_min).min(settings.interval_max), settings, random)
}

/// After so many failures in a row: the shortest interval, doubled with each.
pub(super) fn after_failure(failures: u32, settings: &Discovery, random: u64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    jittered(settings.interval_min.saturating_mul(doubled).min(settings.interval_max), settings, random)
}

fn jittered(wait: Duration, settings: &Discovery, random: u64) -> Duration {
    wait.mul_f64(1.0 + f64::from(settings.jitter_percent.min(100)) / 100.0 * share(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PoolConfig;

    fn settings(min: u64, max: u64, jitter_percent: u32) -> Discovery {
        let (interval_min, interval_max) = (Duration::from_secs(min), Duration::from_secs(max));
        Discovery { interval_min, interval_max, jitter_percent, ..PoolConfig::named("a").discovery }
    }

    #[test]
    fn an_answer_holds_for_its_ttl_within_bounds() {
        for (ttl, expected) in [(0, 5), (5, 5), (30, 30), (60, 60), (86_400, 60)] {
            let wait = after_answer(Duration::from_secs(ttl), &settings(5, 60, 10), 0);
            assert_eq!(wait, Duration::from_secs(expected), "{ttl}");
        }
        // The config refuses it; here it must only not panic.
        assert_eq!(after_answer(Duration::ZERO, &settings(60, 5, 0), 0), Duration::from_secs(5));
    }

    #[test]
    fn failures_are_asked_about_ever_more_seldom() {
        for (failures, expected) in
            [(0, 5), (1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (32, 60), (33, 60), (u32::MAX, 60)]
        {
            let wait = after_failure(failures, &settings(5, 60, 10), 0);
            assert_eq!(wait, Duration::from_secs(expected), "{failures}");
        }
    }

    #[test]
    fn jitter_only_makes_it_longer() {
        for (jitter, random, expected) in
            [(10, 0, 20_000), (10, 500_000, 21_000), (10, 1_000_000, 22_000), (900, 1_000_000, 40_000)]
        {
            let settings = settings(20, 60, jitter);
            assert_eq!(after_answer(Duration::ZERO, &settings, random), Duration::from_millis(expected));
            assert_eq!(after_failure(1, &settings, random), Duration::from_millis(expected));
        }
    }
}
