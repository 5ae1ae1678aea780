//! What is counted and known about a pool and about a backend, over all workers and from one table to the next.
//!
//! Workers change these once or twice per handshake and at a session's end, never per message. Every field is an atomic of
//! its own: nobody needs two of them to agree.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::breaker::Breaker;
use super::eject::Clients;
use super::keys::Keys;
use super::rate::Rate;

/// On cache lines of its own, as every worker writes to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendState {
    /// Sessions that use it, those still connecting included.
    pub sessions: AtomicU32,
    /// Handshakes under way with it: from the choice to the answer. Plain HTTP is none.
    pub handshakes: AtomicU32,
    /// Failures in a row that sessions met.
    pub failures: AtomicU32,
    /// Whom it has failed, and whom it has answered, where the failures may be of the clients' making.
    pub clients: Clients,
    /// How often in a row it has been ejected, without a good answer in between.
    pub ejections: AtomicU32,
    /// It is ejected until then; 0: it never was, or has answered since.
    pub ejected_until: AtomicU64,
    /// When it last came up, or came into the pool; slow start counts from here. 0: it was there from the beginning.
    pub up_since: AtomicU64,
    /// Active checks have found it well at least once.
    pub was_up: AtomicBool,
    checked: AtomicU8,
    /// In the newest table, and in the one before: workers learn of a table a moment after it is made.
    places: [AtomicU64; 2],
    /// The log has been told that it fails, and not yet that it answers again.
    is_told: AtomicBool,
    /// When that began, and when it answered again: 0, not yet.
    failing_since: AtomicU64,
    answered_at: AtomicU64,
    /// What changes before this moment is not told: a backend that flaps must not flood the log.
    quiet_until: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolState {
    /// Changes with every change of who is usable. Whoever keeps a view of the pool keeps this beside it.
    pub version: AtomicU64,
    /// Sessions of all its backends.
    pub sessions: AtomicU32,
    /// Requests that wait for their turn, over all workers.
    pub waiting: AtomicU32,
    /// Those of them who have failed at some backends and wait for the others.
    pub retrying: AtomicU32,
    /// The latest time at which a worker made a view of the pool. No worker's view may lag behind another's.
    pub seen: AtomicU64,
    /// Of its requests.
    pub refusals: Refusals,
    /// Handshakes per second.
    pub rate: Rate,
    pub breaker: Breaker,
    /// Of sessions that came by one, with `hash_keep`.
    pub keys: Keys,
}

/// Requests that Ringway has answered itself, by status, since they were last told.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU32; REFUSALS.len() + 1]);

/// Those that tell of more than one client's mistake, and the last for all others.
const REFUSALS: [u16; 6] = [404, 408, 413, 502, 503, 504];

impl Refusals {
    pub fn count(&self, status: u16) {
        let at = REFUSALS.iter().position(|known| *known == status).unwrap_or(REFUSALS.len());
        self.0[at].fetch_add(1, Relaxed);
    }

    /// "3 x 502, 12 x 503". `None`: there were none.
    pub fn take(&self) -> Option<String> {
        let names = REFUSALS.iter().map(u16::to_string).chain(["others".into()]);
        let counts = self.0.iter().map(|count| count.swap(0, Relaxed)).zip(names);
        let told: Vec<String> =
            counts.filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} x {name}")).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

/// What may happen all the time is told at most once in this time.
const QUIET_MS: u64 = 10_000;

/// Keeps one kind of line from filling the log, whoever drives what it tells.
#[derive(Debug, Default)]
pub struct LogThrottle {
    quiet_until: AtomicU64,
    left_out: AtomicU32,
}

impl LogThrottle {
    /// `Some`: tell it now, and how many were left out since the last time.
    pub fn tell(&self, now: u64) -> Option<u32> {
        if !self.opens(now) {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Relaxed))
    }

    /// For what does not count: whether to tell it now.
    pub fn opens(&self, now: u64) -> bool {
        let opens = now >= self.quiet_until.load(Relaxed);
        if opens {
            self.quiet_until.store(now + QUIET_MS, Relaxed);
        }
        opens
    }
}

/// What active checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing yet, or nobody checks: sessions may try.
    Unknown,
    Up,
    Down,
}

/// EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL: this machine is at a limit, which says nothing about the backend that
/// somebody wanted to connect to.
pub fn is_local_exhaustion(error: &io::Error) -> bool {
    const LACKS: [i32; 4] = [24, 23, 12, 105];
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error().is_some_and(|errno| LACKS.contains(&errno))
}

impl BackendState {
    pub fn checked(&self) -> Checked {
        match self.checked.load(Relaxed) {
            0 => Checked::Unknown,
            1 => Checked::Up,
            _ => Checked::Down,
        }
    }

    /// Whoever calls this changes the pool's version behind it.
    pub fn set_checked(&self, checked: Checked) {
        let code = match checked {
            Checked::Unknown => 0,
            Checked::Up => 1,
            Checked::Down => 2,
        };
        self.checked.store(code, Relaxed);
    }

    /// A session has met a failure there. Returns whether that is news for the log.
    pub fn failure_is_news(&self, now: u64) -> bool {
        self.answered_at.store(0, Relaxed);
        if self.is_told.load(Relaxed) || now < self.quiet_until.load(Relaxed) {
            return false;
        }
        self.quiet_until.store(now + QUIET_MS, Relaxed);
        self.failing_since.store(now, Relaxed);
        !self.is_told.swap(true, Relaxed)
    }

    /// A session has been answered there.
    pub fn answered(&self, now: u64) {
        if self.is_told.load(Relaxed) && self.answered_at.load(Relaxed) == 0 {
            self.answered_at.store(now.max(1), Relaxed);
        }
    }

    /// Whether it is time to tell that it is well: behind every failure that was told there is such a word, also if nobody
    /// asks the backend for anything any more. With the milliseconds between the first failure and the first answer.
    pub fn all_clear(&self, now: u64) -> Option<u64> {
        let answered = self.answered_at.load(Relaxed);
        let is_due = self.is_told.load(Relaxed) && answered != 0 && now >= self.quiet_until.load(Relaxed);
        (is_due && self.is_told.swap(false, Relaxed)).then(|| answered.saturating_sub(self.failing_since.load(Relaxed)))
    }

    /// Where it stands in the newest table or the one before: numbers of the pool and of the member.
    pub fn place_in(&self, generation: u32) -> Option<(usize, usize)> {
        let place = self.places[generation as usize % 2].load(Relaxed);
        let (pool, member) = ((place >> 16) as u16, place as u16);
        ((place >> 32) as u32 == generation).then_some((usize::from(pool), usize::from(member)))
    }

    /// A table of more pools or members than 16 bits count is refused by the config's checks.
    pub(super) fn place(&self, generation: u32, pool: usize, member: usize) {
        self.places[generation as usize % 2]
            .store(u64::from(generation) << 32 | (pool as u64) << 16 | member as u64, Relaxed);
    }
}

impl PoolState {
    /// Who is usable has changed.
    pub fn changed(&self) {
        // Release: whoever sees the new version sees what was changed before it.
        self.version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_tells_now_and_then_and_counts_the_rest() {
        let throttle = LogThrottle::default();
        assert_eq!([0, 1, QUIET_MS - 1].map(|now| throttle.tell(now)), [Some(0), None, None]);
        assert!(!throttle.opens(QUIET_MS - 1), "and does not count this");
        assert_eq!([QUIET_MS, QUIET_MS + 1].map(|now| throttle.tell(now)), [Some(2), None]);
        assert!(throttle.opens(2 * QUIET_MS));
        assert_eq!([2 * QUIET_MS, 3 * QUIET_MS].map(|now| throttle.tell(now)), [None, Some(2)]);
    }

    #[test]
    fn a_failure_and_an_answer_are_told_once_each() {
        let state = BackendState::default();
        state.answered(0);
        assert_eq!(state.all_clear(0), None, "it never failed");
        assert!(state.failure_is_news(100));
        assert!(!state.failure_is_news(100) && !state.failure_is_news(50_000), "known already");
        assert_eq!(state.all_clear(60_000), None, "it has not answered");
        state.answered(60_100);
        state.answered(60_200);
        assert_eq!(state.all_clear(60_300), Some(60_000), "with the true times");
        assert_eq!(state.all_clear(60_300), None, "known already");
        assert!(state.failure_is_news(60_400));
        state.answered(60_500);
        assert_eq!(state.all_clear(60_400 + QUIET_MS - 1), None, "too soon");
        assert_eq!(state.all_clear(60_400 + QUIET_MS), Some(100), "nobody has asked it since");
    }

    #[test]
    fn a_place_is_one_in_one_table() {
        let state = BackendState::default();
        assert_eq!(state.place_in(1), None);
        state.place(7, 65_535, 3);
        assert_eq!((state.place_in(7), state.place_in(6)), (Some((65_535, 3)), None));
        state.place(8, 1, 2);
        assert_eq!([7, 8].map(|table| state.place_in(table)), [Some((65_535, 3)), Some((1, 2))]);
        state.place(9, 0, 0);
        assert_eq!([7, 8, 9].map(|table| state.place_in(table)), [None, Some((1, 2)), Some((0, 0))]);
    }
}
