//! Least connections: the least loaded member over all workers, without looking at all of them. See
//! [`bounds`](crate::table::bounds).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::view::{View, scale};
use super::{Ask, handshakes_max, reserve};
use crate::table::Pool;
use crate::table::bounds::{Bound, GROUP, Load};
use crate::table::state::BackendState;

#[derive(Debug, Default)]
pub(super) struct Least {
    /// The view's members, group by group.
    entries: Vec<Entry>,
    /// Where each group begins, and behind the last the end.
    starts: Vec<usize>,
    /// Groups that this search has looked into.
    visited: Vec<bool>,
}

/// What a look needs to know of a member, side by side.
#[derive(Debug)]
struct Entry {
    state: Arc<BackendState>,
    price: u64,
    connections_max: u32,
    number: u16,
}

pub(super) enum Search {
    Taken(u16),
    Nobody,
    /// The view is out of date.
    Stale,
    /// Another worker was faster.
    Raced,
}

/// What a look into a group has found.
#[derive(Clone, Copy)]
struct Found {
    group: usize,
    bound: Bound,
    /// The entry's index.
    entry: usize,
    load: Load,
    /// The least of all others in the group.
    others: Load,
}

impl Least {
    pub fn update(&mut self, view: &View, pool: &Pool) {
        let entry = |number: &u16| {
            let member = &pool.members[usize::from(*number)];
            Entry {
                state: member.state.clone(),
                price: Load::price(view.weight(*number)),
                connections_max: member.connections_max,
                number: *number,
            }
        };
        self.entries.clear();
        self.entries.extend(view.numbers().iter().map(entry));
        self.starts.clear();
        let start = |group: usize| self.entries.partition_point(|entry| usize::from(entry.number) / GROUP < group);
        self.starts.extend((0..=pool.bounds.groups()).map(start));
        self.visited.resize(pool.bounds.groups(), false);
    }

    /// In this order: a bound is read, the view is found to be current, the group is looked into, the bound is raised if
    /// nobody has lowered it. Thus whoever has changed the view after that, and reset the bounds, has the last word.
    pub fn search(&mut self, view: &View, pool: &Pool, ask: &Ask<'_>) -> Search {
        let mut best: Option<Found> = None;
        let start = scale(ask.random, self.visited.len());
        let mut lowest = pool.bounds.lowest(start, |_| false);
        self.visited.fill(false);
        while let Some(group) = lowest {
            let bound = pool.bounds.get(group);
            if best.is_some_and(|best| bound.holds_off(best.load)) {
                break;
            }
            if !view.is_current(pool, ask.now) {
                return Search::Stale;
            }
            self.visited[group] = true;
            let (found, least) = self.look(group, bound, pool, ask);
            if let Some(found) = found.filter(|found| bound.holds_off(found.load)) {
                // The usual case: the bound was exact. It learns what is left when this one has been taken.
                return self.take(pool, ask, &found);
            }
            let bound = pool.bounds.raise(group, bound, least);
            let found = found.filter(|found| best.is_none_or(|best| found.load < best.load));
            best = found.map(|found| Found { bound, ..found }).or(best);
            lowest = pool.bounds.lowest(start, |group| self.visited[group]);
        }
        best.map_or(Search::Nobody, |best| self.take(pool, ask, &best))
    }

    /// The least loaded member that may be taken, and the least load of all, those included that only this request, or
    /// only at this moment, may not take.
    fn look(&self, group: usize, bound: Bound, pool: &Pool, ask: &Ask<'_>) -> (Option<Found>, Load) {
        let handshakes_max = handshakes_max(pool, ask);
        let may_be_taken =
            |entry: &Entry| entry.state.handshakes.load(Relaxed) < handshakes_max && !ask.tried.contains(&entry.number);
        let (found, least) = self.least_of(group, bound, ask, |_| true);
        match found {
            Some(found) if !may_be_taken(&self.entries[found.entry]) => self.least_of(group, bound, ask, may_be_taken),
            _ => (found, least),
        }
    }

    fn least_of(
        &self,
        group: usize,
        bound: Bound,
        ask: &Ask<'_>,
        may_be_taken: impl Fn(&Entry) -> bool,
    ) -> (Option<Found>, Load) {
        let first = self.starts[group];
        let entries = &self.entries[first..self.starts[group + 1]];
        let (mut best, mut others, mut place) = (Load::FULL, Load::FULL, 0);
        // Other bits than those that the groups were rotated by.
        let start = scale(ask.random.rotate_left(32), entries.len());
        let (before, from) = entries.split_at(start);
        for entries in [from, before] {
            for entry in entries {
                let load = entry.load().marked(place);
                place += 1;
                if may_be_taken(entry) {
                    // Minima alone, as loads are in no order and wrong guesses would cost more than the rest.
                    others = others.min(best.max(load));
                    best = best.min(load);
                } else {
                    others = others.min(load);
                }
            }
        }
        let place = start + best.place();
        let entry = first + if place < entries.len() { place } else { place - entries.len() };
        let found = Found { group, bound, entry, load: best, others };
        ((!best.is_full()).then_some(found), best.min(others))
    }

    /// With what was seen, the next search can be spared a look that finds nothing.
    fn take(&self, pool: &Pool, ask: &Ask<'_>, best: &Found) -> Search {
        let entry = &self.entries[best.entry];
        if !reserve(pool, ask, entry.number, u32::MAX) {
            return Search::Raced;
        }
        pool.bounds.raise(best.group, best.bound, entry.load().min(best.others));
        Search::Taken(entry.number)
    }
}

impl Entry {
    fn load(&self) -> Load {
        let sessions = self.state.sessions.load(Relaxed);
        if sessions >= self.connections_max { Load::FULL } else { Load::new(sessions, self.price) }
    }
}
