//! Deadlines of sessions: a hierarchical timing wheel. Arming and cancelling are O(1) and allocate nothing; the entries
//! are linked by session number. Times are milliseconds since the relay's start.

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// As many as it takes to tell any two `u64` apart, so that no deadline is too far away.
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Timers {
    /// Everything due before this moment has fired.
    elapsed: u64,
    /// Heads of the slots' lists, level by level.
    heads: [[u32; SLOTS]; LEVELS],
    /// One bit per slot that is not empty.
    occupied: [u64; LEVELS],
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// When it fires, and in the lowest byte at which level it is in a slot's list, or [`UNARMED`].
    at_and_level: u64,
    previous: u32,
    next: u32,
}

const LEVEL_BITS: u32 = u8::BITS;
const UNARMED: u64 = u8::MAX as u64;
/// Some two million years.
const AT_MAX: u64 = u64::MAX >> LEVEL_BITS;

impl Entry {
    fn at(&self) -> u64 {
        self.at_and_level >> LEVEL_BITS
    }

    fn level(&self) -> Option<usize> {
        let level = self.at_and_level & UNARMED;
        (level != UNARMED).then_some(level as usize)
    }
}

fn slot(at: u64, level: usize) -> usize {
    (at >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1)
}

impl Timers {
    pub fn new(sessions_max: usize) -> Self {
        Timers {
            elapsed: 0,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            entries: Vec::with_capacity(sessions_max),
        }
    }

    /// Arms the timer of this session, or moves it. A time that has passed fires at the next look.
    pub fn set(&mut self, session: u32, at: u64) {
        self.clear(session);
        while self.entries.len() <= session as usize {
            self.entries.push(Entry { at_and_level: UNARMED, previous: NONE, next: NONE });
        }
        self.link(session, at.clamp(self.elapsed, AT_MAX));
    }

    pub fn clear(&mut self, session: u32) {
        self.unlink(session);
    }

    /// When to look again: never later than the earliest deadline, sometimes earlier.
    pub fn next(&self) -> Option<u64> {
        self.earliest().map(|(_, _, at)| at)
    }

    /// Takes out one session whose deadline has come. Call until `None`.
    pub fn pop(&mut self, now: u64) -> Option<u32> {
        while let Some((level, slot, at)) = self.earliest() {
            if at > now {
                break;
            }
            self.elapsed = at;
            let session = self.heads[level][slot];
            if level == 0 {
                self.unlink(session);
                return Some(session);
            }
            self.cascade(level, slot);
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// Moves a slot whose time has begun to the levels below: all of it at once, as what moved hides what stayed.
    fn cascade(&mut self, level: usize, slot: usize) {
        while self.heads[level][slot] != NONE {
            let session = self.heads[level][slot];
            self.unlink(session);
            self.link(session, self.entries[session as usize].at());
        }
    }

    /// The first slot that has to be looked at, and when its time begins.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let current = (self.elapsed >> shift) as u32 & (SLOTS as u32 - 1);
        let distance = self.occupied[level].rotate_right(current).trailing_zeros();
        let begins = ((self.elapsed >> shift) + u64::from(distance)) << shift;
        let slot = (current + distance) as usize % SLOTS;
        Some((level, slot, begins.max(self.elapsed)))
    }

    fn link(&mut self, session: u32, at: u64) {
        // The highest bit in which the deadline differs from now tells the level.
        let differing = (self.elapsed ^ at) | (SLOTS as u64 - 1);
        let level = (differing.ilog2() / SLOT_BITS) as usize;
        let slot = slot(at, level);
        let head = self.heads[level][slot];
        let at_and_level = at << LEVEL_BITS | level as u64;
        self.entries[session as usize] = Entry { at_and_level, previous: NONE, next: head };
        if head != NONE {
            self.entries[head as usize].previous = session;
        }
        self.heads[level][slot] = session;
        self.occupied[level] |= 1 << slot;
    }

    /// If it is in a list.
    fn unlink(&mut self, session: u32) {
        let Some(entry) = self.entries.get_mut(session as usize) else { return };
        let Some(level) = entry.level() else { return };
        let slot = slot(entry.at(), level);
        entry.at_and_level |= UNARMED;
        let Entry { previous, next, .. } = *entry;
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn fire(timers: &mut Timers, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop(now)).collect()
    }

    #[test]
    fn fires_at_its_time_and_not_before() {
        for distance in [0, 1, 63, 64, 65, 4095, 4096, 300_000, 1 << 30] {
            let mut timers = Timers::new(1);
            fire(&mut timers, 12_345);
            timers.set(0, 12_345 + distance);
            if distance > 0 {
                assert_eq!(fire(&mut timers, 12_344 + distance), [0_u32; 0], "{distance}");
            }
            assert!(timers.next().unwrap() <= 12_345 + distance);
            assert_eq!(fire(&mut timers, 12_345 + distance), [0], "{distance}");
            assert_eq!(timers.next(), None);
        }
    }

    #[test]
    fn agrees_with_a_sorted_map_under_random_use() {
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut timers = Timers::new(50);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..200_000 {
            let session = random(50) as u32;
            match random(4) {
                0 | 1 => {
                    let at = now + [random(10), random(1000), random(1 << 20), random(1 << 33)][random(4) as usize];
                    timers.set(session, at);
                    model.insert(session, at);
                }
                2 => {
                    timers.clear(session);
                    model.remove(&session);
                }
                _ => {
                    now += [0, random(5), random(5000), random(1 << 22)][random(4) as usize];
                    let mut fired = fire(&mut timers, now);
                    fired.sort_unstable();
                    let expected: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(s, _)| *s).collect();
                    assert_eq!(fired, expected, "at {now}");
                    model.retain(|_, at| *at > now);
                }
            }
            let earliest = model.values().min().copied();
            assert_eq!(timers.next().is_some(), earliest.is_some());
            assert!(timers.next() <= earliest);
        }
    }
}
