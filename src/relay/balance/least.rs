//! Least connections: the least loaded member over all workers, without looking at all of them. See
//! [`bounds`](crate::relay::table::bounds).

use std::sync::atomic::Ordering::Relaxed;

use super::view::{View, scale};
use super::{Ask, reserve};
use crate::relay::table::bounds::{Bound, Bounds, GROUP, Load};
use crate::relay::table::{Member, Pool};

#[derive(Debug, Default)]
pub(super) struct Least {
    /// The view's members, group by group.
    entries: Vec<Entry>,
    /// Where each group begins, and behind the last the end.
    starts: Vec<usize>,
    /// Groups that this search has looked into.
    visited: Vec<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u16,
    price: u64,
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
    entry: Entry,
    sessions: u32,
    load: Load,
    /// The least of all others in the group.
    others: Load,
}

impl Least {
    pub fn update(&mut self, view: &View, pool: &Pool) {
        let entry = |number: &u16| Entry { number: *number, price: Load::price(view.weight(*number)) };
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
        self.visited.fill(false);
        let mut best: Option<Found> = None;
        while let Some((group, bound)) = self.least_bound(&pool.bounds, ask.random) {
            if best.is_some_and(|best| bound.holds_off(best.load)) {
                break;
            }
            if !view.is_current(pool, ask.now) {
                return Search::Stale;
            }
            self.visited[group] = true;
            let (found, least) = self.look(group, bound, pool, ask);
            let bound = pool.bounds.raise(group, bound, least);
            if let Some(found) = found.filter(|found| best.is_none_or(|best| found.load < best.load)) {
                best = Some(Found { bound, ..found });
            }
        }
        best.map_or(Search::Nobody, |best| take(pool, &best))
    }

    /// Of the groups not yet looked into. Equals come in another order each time.
    fn least_bound(&self, bounds: &Bounds, random: u64) -> Option<(usize, Bound)> {
        let start = scale(random, self.visited.len());
        let groups = (start..self.visited.len()).chain(0..start).filter(|group| !self.visited[*group]);
        let least = groups.map(|group| (group, bounds.get(group))).min_by_key(|(_, bound)| bound.key())?;
        (!least.1.is_full()).then_some(least)
    }

    /// The least loaded member that may be taken, and the least load of all, those included that only this request, or
    /// only at this moment, may not take.
    fn look(&self, group: usize, bound: Bound, pool: &Pool, ask: &Ask<'_>) -> (Option<Found>, Load) {
        let entries = &self.entries[self.starts[group]..self.starts[group + 1]];
        let handshakes_max = pool.config.admission.backend_handshakes_max.unwrap_or(u32::MAX);
        let (mut best, mut others): (Option<Found>, Load) = (None, Load::FULL);
        // Other bits than those that the groups were rotated by.
        let (before, from) = entries.split_at(scale(ask.random.rotate_left(32), entries.len()));
        for entry in from.iter().chain(before) {
            let member = &pool.members[usize::from(entry.number)];
            let sessions = member.state.sessions.load(Relaxed);
            let load = load(member, sessions, entry.price);
            let is_better = best.is_none_or(|best| load < best.load)
                && load < Load::FULL
                && member.state.handshakes.load(Relaxed) < handshakes_max
                && !ask.tried.contains(&entry.number);
            if is_better {
                others = best.map_or(others, |best| others.min(best.load));
                best = Some(Found { group, bound, entry: *entry, sessions, load, others });
            } else {
                others = others.min(load);
            }
        }
        let least = best.map_or(others, |best| best.load.min(others));
        (best.map(|best| Found { others, ..best }), least)
    }
}

/// With what was seen, the next search can be spared a look that finds nothing.
fn take(pool: &Pool, best: &Found) -> Search {
    if !reserve(pool, best.entry.number, u32::MAX) {
        return Search::Raced;
    }
    let member = &pool.members[usize::from(best.entry.number)];
    let load = load(member, best.sessions + 1, best.entry.price);
    pool.bounds.raise(best.group, best.bound, load.min(best.others));
    Search::Taken(best.entry.number)
}

fn load(member: &Member, sessions: u32, price: u64) -> Load {
    if sessions >= member.connections_max { Load::FULL } else { Load::new(sessions, price) }
}
