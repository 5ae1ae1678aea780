//! A loop that does not turn: what it does itself once it runs again, and how others notice meanwhile.

use std::time::{Duration, Instant};

/// Notices that the worker has not run for some time, whoever stopped it: SIGSTOP, a hypervisor, a suspended machine. Then
/// many deadlines have passed at once, and it is not the peers who were late. What they have sent is read first, and who has
/// been stopped along with this machine has a moment to say something.
pub(super) struct Stops {
    /// Until then no deadline comes.
    held_until: Instant,
    /// Deadlines have come since the last time that they were held: a worker that is late because it has too much to do
    /// must not put them off for ever.
    has_expired: bool,
    told_at: Option<Instant>,
}

impl Stops {
    /// So much later than asked for is no busy machine.
    const LATE: Duration = Duration::from_millis(500);
    /// No more than this is waited for what peers say.
    const GRACE_MAX: Duration = Duration::from_secs(1);
    const QUIET: Duration = Duration::from_secs(10);

    pub(super) fn new(now: Instant) -> Self {
        Stops { held_until: now, has_expired: true, told_at: None }
    }

    /// When to wake up, where the relay wants this.
    pub(super) fn due(&self, relay: Option<Instant>, now: Instant) -> Option<Instant> {
        // Those who wait for a buffer or a backend are looked at meanwhile.
        const TURN: Duration = Duration::from_millis(10);
        if self.has_expired || now >= self.held_until { relay } else { Some((now + TURN).min(self.held_until)) }
    }

    /// It was to wake up when something was `due`.
    pub(super) fn has_stopped(&mut self, due: Option<Instant>, now: Instant) -> bool {
        let late = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if late < Self::LATE || !self.has_expired {
            return false;
        }
        (self.held_until, self.has_expired) = (now + late.min(Self::GRACE_MAX), false);
        if self.told_at.is_none_or(|told| now - told >= Self::QUIET) {
            self.told_at = Some(now);
            tracing::warn!("this process did not run for {late:?}; deadlines wait for what has come meanwhile");
        }
        true
    }

    pub(super) fn may_expire(&mut self, now: Instant) -> bool {
        self.has_expired |= now >= self.held_until;
        self.has_expired
    }
}

/// Whether a loop turns. It is woken after each look, so between two looks it has to.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    turns: u64,
    /// Looks in a row that have found it where it was. Counted, not timed: a process that was stopped has not looked either.
    still: u32,
}

/// What is worth a line in the log, with the seconds that it has stood still.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Hangs(u32),
    Turns(u32),
}

impl Watchdog {
    /// Looks in a row until it is told; then each time that they have doubled.
    const TOLD_AT: u32 = 3;

    pub(super) fn look(&mut self, turns: u64) -> Option<Look> {
        let still = self.still;
        if turns != self.turns {
            *self = Watchdog { turns, still: 0 };
            return (still >= Self::TOLD_AT).then_some(Look::Turns(still));
        }
        self.still += 1;
        let is_told = self.still.is_multiple_of(Self::TOLD_AT) && (self.still / Self::TOLD_AT).is_power_of_two();
        is_told.then_some(Look::Hangs(self.still))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn field_a04_deadlines_are_held_after_a_stop_and_only_for_a_moment() {
        let start = Instant::now();
        let mut stops = Stops::new(start);
        assert!(!stops.has_stopped(Some(start), start + ms(499)), "a busy machine");
        assert!(!stops.has_stopped(None, start + ms(60_000)), "nothing was due");
        assert!(stops.may_expire(start));
        // Four seconds late: held for one.
        let now = start + ms(10_000);
        assert!(stops.has_stopped(Some(now - ms(4000)), now));
        assert!(!stops.may_expire(now) && !stops.may_expire(now + ms(999)));
        assert!(!stops.has_stopped(Some(now), now + ms(700)), "not put off while they are held");
        assert!(stops.may_expire(now + ms(1000)));
        // Less than a second late: held for as long.
        let now = start + ms(20_000);
        assert!(stops.has_stopped(Some(now - ms(600)), now));
        assert!(!stops.may_expire(now + ms(599)) && stops.may_expire(now + ms(600)));
    }

    /// A worker that is late with every turn, because it has too much to do, still lets deadlines come each time.
    #[test]
    fn field_a04_deadlines_come_on_a_worker_that_is_always_late() {
        let mut now = Instant::now();
        let mut stops = Stops::new(now);
        let mut expired = 0;
        for _ in 0..20 {
            let due = now;
            now += ms(700);
            stops.has_stopped(Some(due), now);
            expired += u32::from(stops.may_expire(now));
        }
        assert!(expired >= 8, "{expired} of 20");
    }

    #[test]
    fn field_a18_a_loop_that_stands_still_is_told_and_so_is_its_end() {
        let mut watchdog = Watchdog::default();
        assert_eq!([1, 2, 3].map(|turns| watchdog.look(turns)), [None, None, None]);
        let told: Vec<_> = (0..13).map(|_| watchdog.look(3)).collect();
        let hangs: Vec<_> = told.iter().flatten().collect();
        assert_eq!(hangs, [&Look::Hangs(3), &Look::Hangs(6), &Look::Hangs(12)]);
        assert_eq!([watchdog.look(4), watchdog.look(5)], [Some(Look::Turns(13)), None]);
        // Two looks in a row may well come before a turn.
        assert_eq!([5, 5, 6].map(|turns| watchdog.look(turns)), [None, None, None]);
    }
}
