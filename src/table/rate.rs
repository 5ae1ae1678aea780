//! A limit on events per second, over all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// GCRA, a leaky bucket in one number: the moment, in nanoseconds, at which the bucket will be empty.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// Takes one of `per_second`, of which `burst` may be taken at once. If there is none: how many milliseconds until
    /// there may be one.
    pub fn take(&self, per_second: u32, burst: u32, now_ms: u64) -> Result<(), u64> {
        let interval = (NANOS_PER_SECOND / u64::from(per_second.max(1))).max(1);
        // Time comes in whole milliseconds: it may be nearly one later than `now` says.
        let slack = interval.saturating_mul(u64::from(burst.max(1)) - 1).saturating_add(NANOS_PER_MS - 1);
        let now = now_ms.saturating_mul(NANOS_PER_MS);
        // A bucket fuller than this one can be was filled at another rate, before a reload: that is forgotten. The second
        // is for workers whose clocks are behind.
        let full_at = now.saturating_add(slack).saturating_add(interval).saturating_add(NANOS_PER_SECOND);
        let start = |empty_at: u64| if empty_at > full_at { now } else { empty_at.max(now) };
        let taken = self.0.fetch_update(Relaxed, Relaxed, |empty_at| {
            let start = start(empty_at);
            (start - now <= slack).then(|| start.saturating_add(interval))
        });
        taken.map(drop).map_err(|empty_at| (start(empty_at) - now - slack).div_ceil(NANOS_PER_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_per_interval() {
        let rate = Rate::default();
        for _ in 0..3 {
            assert_eq!(rate.take(10, 3, 1000), Ok(()));
        }
        assert_eq!(rate.take(10, 3, 1000), Err(100));
        assert_eq!(rate.take(10, 3, 1099), Err(1));
        assert_eq!(rate.take(10, 3, 1100), Ok(()));
        assert_eq!(rate.take(10, 3, 1100), Err(100));
        // Rest fills the burst up again, and not more than that.
        let taken = (0..10).filter(|_| rate.take(10, 3, 60_000).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_clock_of_milliseconds_allows_the_full_rate() {
        let rate = Rate::default();
        let taken =
            (0..1000).flat_map(|now| (0..100).map(move |_| now)).filter(|now| rate.take(20_000, 1, *now).is_ok());
        assert_eq!(taken.count(), 20_000);
    }

    #[test]
    fn one_per_second_at_the_slowest() {
        let rate = Rate::default();
        assert_eq!(rate.take(1, 1, 0), Ok(()));
        assert_eq!(rate.take(1, 1, 1), Err(999));
        assert_eq!(rate.take(1, 1, 1000), Ok(()));
        assert_eq!(rate.take(0, 0, 2000), Ok(()), "no rate and no burst are taken as the least there can be");
    }

    #[test]
    fn after_the_wait_there_is_one() {
        for (per_second, burst) in [(1, 1), (3, 2), (7, 1), (333, 5), (999, 1), (40_000, 3)] {
            let rate = Rate::default();
            let mut now = 5;
            for _ in 0..500 {
                if let Err(wait) = rate.take(per_second, burst, now) {
                    assert!(wait > 0);
                    assert!(rate.take(per_second, burst, now + wait - 1).is_err(), "{wait} ms were too many");
                    now += wait;
                    assert_eq!(rate.take(per_second, burst, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_worker_whose_clock_is_behind_takes_no_more() {
        let rate = Rate::default();
        assert_eq!(rate.take(1000, 1, 500), Ok(()));
        assert_eq!(rate.take(1000, 1, 490), Err(11));
    }

    #[test]
    fn a_new_rate_does_not_wait_for_the_old() {
        let rate = Rate::default();
        (0..60).for_each(|_| rate.take(1, 60, 0).unwrap());
        assert_eq!(rate.take(1, 60, 0), Err(1000));
        assert_eq!(rate.take(1000, 1, 0), Ok(()));
        assert_eq!(rate.take(1000, 1, 0), Err(1));
    }

    #[test]
    fn times_far_out_overflow_nothing() {
        let rate = Rate::default();
        let _ = rate.take(1, u32::MAX, u64::MAX);
        let _ = rate.take(u32::MAX, u32::MAX, u64::MAX);
    }

    #[test]
    fn workers_together_take_no_more_than_one_would() {
        let rate = Rate::default();
        let take = || (0..50_000).filter(|_| rate.take(1000, 700, 3).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 700);
    }
}
