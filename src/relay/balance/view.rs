//! Who is usable, and with what weight, as one worker sees it until that changes.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::table::bounds::{Load, WEIGHT_UNIT};
use crate::table::state::Checked;
use crate::table::{Member, Pool};

#[derive(Debug, Default)]
pub(super) struct View {
    /// The pool's, when this was made.
    version: u64,
    /// When it changes by time alone: an ejection ends, or a step of slow start. 0: it was never made.
    until: u64,
    /// Those that are usable.
    numbers: Vec<u16>,
    /// Effective weights by number, in tenths. 0: not usable.
    weights: Vec<u32>,
    total_weight: u64,
}

/// Slow start begins with a tenth and goes in as many steps.
const STEPS: u64 = WEIGHT_UNIT as u64;

impl View {
    pub fn is_current(&self, pool: &Pool, now: u64) -> bool {
        // Where one worker's clock has come to, no other's is behind: their views would differ.
        let now = now.max(pool.state.seen.load(Acquire));
        // Acquire: whoever sees the version sees the states it stands for.
        self.version == pool.state.version.load(Acquire) && now < self.until
    }

    pub fn rebuild(&mut self, pool: &Pool, now: u64) {
        let now = now.max(pool.state.seen.fetch_max(now, AcqRel));
        // Before the states: what changes meanwhile has another version.
        self.version = pool.state.version.load(Acquire);
        self.until = u64::MAX;
        self.choose_numbers(pool, now);
        self.weights.clear();
        self.weights.resize(pool.members.len(), 0);
        self.total_weight = 0;
        for number in &self.numbers {
            let (weight, until) = effective_weight(&pool.members[usize::from(*number)], now);
            self.weights[usize::from(*number)] = weight;
            self.total_weight += u64::from(weight);
            self.until = self.until.min(until);
        }
        let ejections = pool.members.iter().map(|member| member.state.ejected_until.load(Relaxed));
        self.until = ejections.filter(|until| *until > now).fold(self.until, u64::min);
    }

    /// Those of the first class that has anybody.
    fn choose_numbers(&mut self, pool: &Pool, now: u64) {
        let usable = || (0u16..).zip(&pool.members).filter(|(_, member)| may_be_used(member));
        let first = usable().map(|(_, member)| class(member, now)).min();
        self.numbers.clear();
        self.numbers.extend(usable().filter(|(_, member)| Some(class(member, now)) == first).map(|(number, _)| number));
    }

    pub fn has(&self, number: u16) -> bool {
        self.weight(number) > 0
    }

    pub fn weight(&self, number: u16) -> u32 {
        self.weights.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// In ascending order.
    pub fn numbers(&self) -> &[u16] {
        &self.numbers
    }

    /// All of them, from a random one on: whoever takes the first of equals takes another each time.
    pub fn rotated(&self, random: u64) -> impl Iterator<Item = u16> {
        let (before, from) = self.numbers.split_at(scale(random, self.numbers.len()));
        from.iter().chain(before).copied()
    }

    pub fn load(&self, pool: &Pool, number: u16) -> Load {
        let sessions = pool.members[usize::from(number)].state.sessions.load(Relaxed);
        Load::new(sessions, Load::price(self.weight(number)))
    }

    /// The member's share of the pool's sessions, the next one included, times so many percent, rounded up.
    pub fn share(&self, pool: &Pool, number: u16, percent: u32) -> u32 {
        let sessions = u64::from(pool.state.sessions.load(Relaxed)) + 1;
        let weighted = sessions.saturating_mul(u64::from(percent)).saturating_mul(u64::from(self.weight(number)));
        let share = weighted.div_ceil(100 * self.total_weight.max(1));
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// It may have new sessions now.
pub(super) fn is_usable(member: &Member, now: u64) -> bool {
    may_be_used(member) && member.state.ejected_until.load(Relaxed) <= now
}

/// Backups only if no other is usable. Ejected ones only if nobody is: better one more refusal than an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Primary,
    Backup,
    EjectedPrimary,
    EjectedBackup,
}

pub(super) fn class(member: &Member, now: u64) -> Class {
    match (is_usable(member, now), member.backup) {
        (true, false) => Class::Primary,
        (true, true) => Class::Backup,
        (false, false) => Class::EjectedPrimary,
        (false, true) => Class::EjectedBackup,
    }
}

/// It may have new sessions if all who are well are gone.
pub(super) fn may_be_used(member: &Member) -> bool {
    !member.drain && member.state.checked() != Checked::Down
}

/// Its weight in tenths, and until when it is that.
fn effective_weight(member: &Member, now: u64) -> (u32, u64) {
    let full = member.weight * WEIGHT_UNIT;
    let up_since = member.state.up_since.load(Relaxed);
    let Some(slow_start) = member.slow_start.filter(|_| up_since != 0) else { return (full, u64::MAX) };
    let span = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::MAX / STEPS);
    let step = now.saturating_sub(up_since).saturating_mul(STEPS) / span;
    if step >= STEPS {
        return (full, u64::MAX);
    }
    let next = up_since.saturating_add((span * (step + 1)).div_ceil(STEPS));
    (member.weight * step.max(1) as u32, next)
}

/// A random number as one below `count`; 0 if there is none.
pub(super) fn scale(random: u64, count: usize) -> usize {
    ((u128::from(random) * count as u128) >> 64) as usize
}
