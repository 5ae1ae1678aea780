//! Where the sessions of each key of consistent hashing are, over all workers and from table to table: rooms stay together
//! while backends come and go.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::hash::mix;
use super::state::BackendState;

/// The keys of one pool's open sessions and handshakes: nobody can make more of them than there are sessions. Workers come here
/// once at the begin and once at the end of a session.
#[derive(Debug, Default)]
pub struct Keys {
    /// Made with the first key: most pools have none.
    shards: OnceLock<Box<[Mutex<Shard>]>>,
    /// How often somebody has come to another backend than others of its key.
    splits: AtomicU64,
}

type Shard = HashMap<u64, Vec<Place>>;

/// So many workers rarely wait for each other.
const SHARDS: usize = 64;

/// Sessions of a key at a backend.
#[derive(Debug)]
struct Place {
    backend: Arc<BackendState>,
    sessions: u32,
}

/// One key, for which nobody else chooses meanwhile: two that open a room at once must meet in it.
#[derive(Debug)]
pub struct Held<'a> {
    keys: &'a Keys,
    key: u64,
    shard: MutexGuard<'a, Shard>,
}

impl Keys {
    pub fn hold(&self, key: u64) -> Held<'_> {
        Held { keys: self, key, shard: self.shard(key) }
    }

    /// A session of this key has ended there, or has never begun.
    pub fn leave(&self, key: u64, backend: &BackendState) {
        let mut shard = self.shard(key);
        let Entry::Occupied(mut places) = shard.entry(key) else { return debug_assert!(false, "it had not joined") };
        let Some(at) = places.get().iter().position(|place| std::ptr::eq(&*place.backend, backend)) else {
            return debug_assert!(false, "it had not joined there");
        };
        places.get_mut()[at].sessions -= 1;
        if places.get()[at].sessions == 0 {
            places.get_mut().swap_remove(at);
        }
        if places.get().is_empty() {
            places.remove();
        }
    }

    /// Changes when a key's sessions have come to be at several backends.
    pub fn splits(&self) -> u64 {
        self.splits.load(Relaxed)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        let shards = self.shards.get().into_iter().flatten();
        shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let shards = self.shards.get_or_init(|| (0..SHARDS).map(|_| Mutex::default()).collect());
        // A worker that has panicked has left it whole: nothing in here panics half way.
        shards[mix(key) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held<'_> {
    /// Where its sessions are, most of them first.
    pub fn backends(&self) -> Vec<Arc<BackendState>> {
        let mut places: Vec<&Place> = self.shard.get(&self.key).into_iter().flatten().collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.sessions));
        places.into_iter().map(|place| place.backend.clone()).collect()
    }

    /// One more has come to this backend.
    pub fn join(mut self, backend: &Arc<BackendState>) {
        // Nearly all keys are at one backend.
        let places = self.shard.entry(self.key).or_insert_with(|| Vec::with_capacity(1));
        match places.iter_mut().find(|place| Arc::ptr_eq(&place.backend, backend)) {
            Some(place) => place.sessions += 1,
            None => places.push(Place { backend: backend.clone(), sessions: 1 }),
        }
        if places.len() > 1 {
            self.keys.splits.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn is_at(keys: &Keys, key: u64, expected: &[&Arc<BackendState>]) -> bool {
        let backends = keys.hold(key).backends();
        backends.len() == expected.len() && backends.iter().zip(expected).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    #[test]
    fn a_key_is_where_most_of_its_sessions_are() {
        let keys = Keys::default();
        let (one, other) = (Arc::default(), Arc::default());
        assert!(keys.is_empty() && is_at(&keys, 7, &[]));
        keys.hold(7).join(&one);
        assert!(is_at(&keys, 7, &[&one]) && is_at(&keys, 8, &[]));
        assert_eq!(keys.splits(), 0);
        keys.hold(7).join(&other);
        keys.hold(7).join(&other);
        assert!(is_at(&keys, 7, &[&other, &one]) && keys.splits() > 0);
        keys.leave(7, &other);
        keys.leave(7, &other);
        assert!(is_at(&keys, 7, &[&one]));
        keys.leave(7, &one);
        assert!(keys.is_empty());
        assert_eq!(Arc::strong_count(&one), 1);
    }

    #[test]
    fn those_who_open_a_room_at_once_meet_in_it() {
        let keys = Keys::default();
        let backends: Vec<Arc<BackendState>> = (0..4).map(|_| Arc::default()).collect();
        thread::scope(|scope| {
            for own in &backends {
                scope.spawn(|| {
                    for key in 0..1000 {
                        let held = keys.hold(key);
                        let there = held.backends();
                        held.join(there.first().unwrap_or(own));
                    }
                });
            }
        });
        assert_eq!((keys.len(), keys.splits()), (1000, 0));
        for key in 0..1000 {
            let there = keys.hold(key).backends();
            (0..4).for_each(|_| keys.leave(key, &there[0]));
        }
        assert!(keys.is_empty());
    }
}
