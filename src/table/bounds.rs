//! Where the least loaded members of a pool may be: what least-connections knows without looking at all of them.
//!
//! Members stand in groups of [`GROUP`], by number. For every group there is a lower bound of its members' loads, shared
//! by all workers. Whoever looks for the least loaded looks into the group of the lowest bound. What has been seen there
//! may raise the bound; a session that ends lowers it. Nobody may raise it by what is no longer so, therefore every
//! lowering also changes a stamp, and a bound is raised only if the stamp is still that from before looking.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

pub const GROUP: usize = 16;
const PLACE_MASK: u64 = GROUP as u64 - 1;

/// Full weight, in the unit of effective weights: slow start goes in tenths.
pub const WEIGHT_UNIT: u32 = 10;

/// A bound's low bits are the stamp. It comes round after 16 million lowerings of one group, between a look and the
/// raising a moment later.
const STAMP_BITS: u32 = 24;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;
const _: () = assert!(u16::MAX as u64 / GROUP as u64 <= STAMP_MASK, "a group's number fits where its stamp is");
/// What a packed load lacks in precision: a load of one session at weight 1 is 1 << 32, packed 1 << 16.
const COARSE_BITS: u32 = 16;
const KEY_MAX: u64 = u64::MAX >> STAMP_BITS;

#[derive(Debug)]
pub struct Bounds(Box<[AtomicU64]>);

/// A bound as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(u64);

/// Sessions, the next one included, by weight. The least loaded has the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(u64);

impl Load {
    /// Of a member that is full.
    pub const FULL: Load = Load(u64::MAX);

    /// With a place in its lowest bits, which are far below one session's price: the least of them also tells where.
    pub fn marked(self, place: u64) -> Load {
        Load(self.0 & !PLACE_MASK | place & PLACE_MASK)
    }

    pub fn place(self) -> usize {
        (self.0 & PLACE_MASK) as usize
    }

    pub fn is_full(self) -> bool {
        self.0 | PLACE_MASK == u64::MAX
    }

    pub fn new(sessions: u32, price: u64) -> Load {
        Load((u64::from(sessions) + 1).saturating_mul(price))
    }

    /// What one session adds to the load of a member of this effective weight.
    pub fn price(weight: u32) -> u64 {
        (u64::from(WEIGHT_UNIT) << 32) / u64::from(weight.max(1))
    }

    /// In the precision of bounds: what is equal there is equally loaded.
    pub fn packed(self) -> u64 {
        (self.0 >> COARSE_BITS).min(KEY_MAX)
    }
}

impl Bound {
    pub fn is_full(self) -> bool {
        self.key() == KEY_MAX
    }

    /// Nobody in the group has less than this load, as far as the bound can tell.
    pub fn holds_off(self, load: Load) -> bool {
        load.packed() <= self.key()
    }

    pub fn key(self) -> u64 {
        self.0 >> STAMP_BITS
    }
}

impl Bounds {
    /// For so many members.
    pub fn new(members: usize) -> Bounds {
        Bounds((0..members.div_ceil(GROUP)).map(|_| AtomicU64::new(0)).collect())
    }

    pub fn groups(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, group: usize) -> Bound {
        // Acquire: whoever sees a lowering sees what it was lowered for.
        Bound(self.0[group].load(Acquire))
    }

    /// The group of the lowest bound, but for those to skip. Of equals, the first from `start` on. `None`: nobody has room.
    pub fn lowest(&self, start: usize, skip: impl Fn(usize) -> bool) -> Option<usize> {
        // Every decision comes along here, and bounds are in no order: a minimum needs no branches. In place of the
        // stamp stands whose bound it is.
        let (before, from) = self.0.split_at(start);
        let (mut lowest, mut place) = (u64::MAX, 0);
        for (first, bounds) in [(start, from), (0, before)] {
            for (group, bound) in (first..).zip(bounds) {
                let bound = bound.load(Relaxed) & !STAMP_MASK | place;
                lowest = lowest.min(if skip(group) { u64::MAX } else { bound });
                place += 1;
            }
        }
        if Bound(lowest).is_full() {
            return None;
        }
        let place = start + (lowest & STAMP_MASK) as usize;
        Some(if place < self.groups() { place } else { place - self.groups() })
    }

    /// Somebody has looked into the group after `seen` was read, and found this to be its least load.
    pub fn raise(&self, group: usize, seen: Bound, load: Load) -> Bound {
        let raised = Bound(load.packed() << STAMP_BITS | seen.0 & STAMP_MASK);
        if raised.0 > seen.0 && self.0[group].compare_exchange(seen.0, raised.0, AcqRel, Relaxed).is_ok() {
            return raised;
        }
        seen
    }

    /// A member of the group now has this load, and had more before.
    pub fn lower(&self, group: usize, load: Load) {
        if let Some(bound) = self.0.get(group) {
            let lowered = |bound: u64| {
                let key = (bound >> STAMP_BITS).min(load.packed());
                key << STAMP_BITS | (bound + 1) & STAMP_MASK
            };
            // The stamp changes even if the bound does not: somebody may be about to raise it by what it was before.
            let _ = bound.fetch_update(AcqRel, Relaxed, |bound| Some(lowered(bound)));
        }
    }

    /// Nothing is known any more: weights have changed, or who is usable.
    pub fn reset(&self) {
        (0..self.groups()).for_each(|group| self.lower(group, Load(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sessions: u32) -> Load {
        Load::new(sessions, Load::price(WEIGHT_UNIT))
    }

    #[test]
    fn what_was_seen_before_a_lowering_raises_nothing() {
        let bounds = Bounds::new(GROUP + 1);
        assert_eq!(bounds.groups(), 2);
        let seen = bounds.get(1);
        bounds.lower(1, load(9));
        assert_eq!(bounds.raise(1, seen, load(5)), seen);
        assert_eq!(bounds.get(1).key(), 0);
        let seen = bounds.get(1);
        let raised = bounds.raise(1, seen, load(5));
        assert_eq!(bounds.get(1), raised);
        assert!(raised.holds_off(load(5)) && !raised.holds_off(load(6)));
    }

    #[test]
    fn bounds_only_rise_by_raising_and_only_fall_by_lowering() {
        let bounds = Bounds::new(1);
        let high = bounds.raise(0, bounds.get(0), load(7));
        assert_eq!(bounds.raise(0, high, load(3)), high);
        bounds.lower(0, load(8));
        assert_eq!(bounds.get(0).key(), high.key());
        bounds.lower(0, load(4));
        assert!(bounds.get(0).holds_off(load(4)) && !bounds.get(0).holds_off(load(5)));
        bounds.reset();
        assert_eq!(bounds.get(0).key(), 0);
    }

    #[test]
    fn the_lowest_is_found_and_equals_in_turn() {
        let bounds = Bounds::new(5 * GROUP);
        for (group, sessions) in [7, 3, 9, 3, 4].into_iter().enumerate() {
            bounds.raise(group, bounds.get(group), load(sessions));
        }
        assert_eq!([0, 1, 2, 3, 4].map(|start| bounds.lowest(start, |_| false)), [1, 1, 3, 3, 1].map(Some));
        assert_eq!(bounds.lowest(0, |group| group == 1), Some(3));
        assert_eq!(bounds.lowest(2, |group| [1, 3].contains(&group)), Some(4));
        assert_eq!(bounds.lowest(2, |_| true), None);
        (0..5).for_each(|group| assert!(bounds.raise(group, bounds.get(group), Load::FULL).is_full()));
        assert_eq!(bounds.lowest(3, |_| false), None);
        assert_eq!(Bounds::new(0).lowest(0, |_| false), None);
    }

    #[test]
    fn the_stamp_comes_round_without_touching_the_bound() {
        let bounds = Bounds(Box::new([AtomicU64::new(load(3).packed() << STAMP_BITS | STAMP_MASK)]));
        bounds.lower(0, load(4));
        assert_eq!(bounds.get(0), Bound(load(3).packed() << STAMP_BITS));
    }

    #[test]
    fn a_full_group_is_told_from_any_other() {
        let bounds = Bounds::new(1);
        assert!(!bounds.raise(0, bounds.get(0), load(1 << 20)).is_full());
        assert!(bounds.raise(0, bounds.get(0), Load::FULL).is_full());
    }

    #[test]
    fn loads_order_by_sessions_per_weight() {
        let at = |sessions, weight| Load::new(sessions, Load::price(weight * WEIGHT_UNIT));
        assert!(at(9, 10) < at(1, 1) && at(1, 1) < at(29, 10));
        assert_eq!(at(3, 2), at(1, 1));
        assert!(Load::new(0, Load::price(1)) > at(8, 1), "at a tenth of the weight the first session counts as ten");
    }
}
