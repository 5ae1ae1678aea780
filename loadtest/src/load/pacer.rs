//! Times at which things are due, and a clock that wakes for them to the microsecond.
//!
//! Tokio's timers round to a millisecond, which would itself be most of a loopback latency. A timerfd does not.

use std::io;

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio_uring::fs::File;

use crate::clock::now_ns;
use crate::spec::Arrivals;

/// The due times of a stream of events. Pure: it reads no clock.
pub struct Schedule {
    gap_ns: f64,
    arrivals: Arrivals,
    rng: fastrand::Rng,
    next_ns: f64,
    start_ns: u64,
}

impl Schedule {
    /// `phase` in 0..1 shifts evenly spaced events by that part of a gap, so that workers interleave.
    pub fn new(start_ns: u64, per_s: f64, arrivals: Arrivals, phase: f64, seed: u64) -> Schedule {
        let gap_ns = 1e9 / per_s.max(1e-6);
        let rng = fastrand::Rng::with_seed(seed);
        Schedule { gap_ns, arrivals, rng, next_ns: gap_ns * phase, start_ns }
    }

    /// When the next event is due.
    pub fn peek(&self) -> u64 {
        self.start_ns + self.next_ns as u64
    }

    pub fn pop(&mut self) -> u64 {
        let due = self.peek();
        self.next_ns += match self.arrivals {
            Arrivals::Fixed => self.gap_ns,
            // Exponential gaps; 1 - f64() is never 0.
            Arrivals::Poisson => -self.gap_ns * (1.0 - self.rng.f64()).ln(),
        };
        due
    }
}

pub struct Alarm {
    timer: OwnedFd,
    /// The same timer, for the ring to read.
    expirations: File,
}

impl Alarm {
    pub fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let expirations = File::from_std(timer.try_clone()?.into());
        Ok(Alarm { timer, expirations })
    }

    /// Sleeps until the monotonic clock shows `at_ns`; not at all if it already does.
    pub async fn until(&self, at_ns: u64) -> io::Result<()> {
        if now_ns() >= at_ns {
            return Ok(());
        }
        let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        self.expirations.read_at(Vec::with_capacity(8), 0).await.0.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_arrivals_do_not_drift() {
        let mut schedule = Schedule::new(1000, 3.0, Arrivals::Fixed, 0.0, 1);
        let due: Vec<u64> = (0..3_000_001).map(|_| schedule.pop()).collect();
        assert_eq!(due[0], 1000);
        let million_seconds = 1_000_000 * 1_000_000_000u64;
        assert!(due[3_000_000].abs_diff(1000 + million_seconds) < 1_000_000);
        assert!(due.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn poisson_arrivals_have_the_asked_mean_and_exponential_gaps() {
        let mut schedule = Schedule::new(0, 1000.0, Arrivals::Poisson, 0.0, 42);
        let due: Vec<u64> = (0..100_001).map(|_| schedule.pop()).collect();
        let mean_ns = due[100_000] as f64 / 100_000.0;
        assert!((mean_ns - 1e6).abs() < 2e4, "{mean_ns}");
        // An exponential gap is longer than its mean with probability 1/e.
        let longer = due.windows(2).filter(|pair| pair[1] - pair[0] > 1_000_000).count();
        assert!((longer as f64 / 1e5 - (-1f64).exp()).abs() < 0.01, "{longer}");
    }
}
