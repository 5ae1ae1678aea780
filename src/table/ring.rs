//! The ring of consistent hashing: which member a key belongs to.
//!
//! Members own points on a circle, many each, as many more as their weight is larger, placed by their names alone. A key
//! is placed at several spots; of the points that follow these, the nearest has it. A member that comes or goes thus
//! brings or takes its own points, and moves no key between the others. (A Maglev table is more even still, but moves
//! some of the others' keys with every change, and all of them whenever the table has to grow.)

use super::hash::{hash_bytes, mix, nth};

/// Spots of a key. With one, a member's share would follow the gaps before its points, which differ widely; the nearest
/// of several evens that out. Even, as they are made in pairs.
const SPOTS: u64 = 8;
/// Points of a member of weight 1 when no weight is above 4, and of the heaviest of all weights.
const POINTS: u32 = 64;
const POINTS_MAX: u32 = 256;

#[derive(Debug)]
pub struct Ring {
    /// Where the points stand, in ascending order, and the end of the circle, where every search stops.
    places: Box<[u32]>,
    /// Whose they are.
    owners: Box<[u16]>,
    /// The circle in equal parts: for each, the first point that stands in it or behind it.
    parts: Box<[u32]>,
    /// From a place to its part.
    shift: u32,
    /// What the members' names are hashed to.
    seeds: Box<[u64]>,
}

impl Ring {
    /// From names and weights, in the order of their numbers.
    pub fn build<'a>(members: impl Iterator<Item = (&'a str, u32)> + Clone) -> Ring {
        let heaviest = members.clone().map(|(_, weight)| weight).max().unwrap_or(1);
        let mut points = Vec::new();
        let mut seeds = Vec::new();
        for (number, (name, weight)) in members.enumerate() {
            let seed = hash_bytes(name.as_bytes());
            seeds.push(seed);
            points.extend((1..=count(weight, heaviest)).map(|point| (nth(seed, u64::from(point)), number as u16)));
        }
        // By all 64 bits: where places collide, who is first must not depend on the numbers.
        points.sort_unstable();
        let mut places: Vec<u32> = points.iter().map(|(hash, _)| (hash >> 32) as u32).collect();
        let owners = points.iter().map(|(_, owner)| *owner).collect();
        let (parts, shift) = divide(&places);
        places.push(u32::MAX);
        Ring { places: places.into(), owners, parts, shift, seeds: seeds.into() }
    }

    /// Whose key it is. `None`: there are no members.
    pub fn find(&self, key: u64) -> Option<u16> {
        let (mut nearest, mut nearest_distance) = (0, u32::MAX);
        for pair in 1..=SPOTS / 2 {
            let spots = nth(key, pair);
            for spot in [(spots >> 32) as u32, spots as u32] {
                let (point, distance) = self.behind(spot);
                if distance < nearest_distance {
                    (nearest, nearest_distance) = (point, distance);
                }
            }
        }
        self.owners.get(nearest).copied()
    }

    /// How well a key and a member suit each other, for when the ring leads to nobody who can be used: the best of those
    /// who can is again the same one for the same key.
    pub fn affinity(&self, key: u64, number: u16) -> u64 {
        mix(key ^ self.seeds[usize::from(number)])
    }

    /// The first point at the spot or behind it, and how far that is.
    fn behind(&self, spot: u32) -> (usize, u32) {
        let mut point = self.parts[(spot >> self.shift) as usize] as usize;
        // Nearly always it is the part's first or second point: two steps that need no guess of the processor.
        point += usize::from(self.places[point] < spot);
        point += usize::from(self.places[point] < spot);
        while self.places[point] < spot {
            point += 1;
        }
        // Behind the end comes the first.
        let point = if point == self.owners.len() { 0 } else { point };
        (point, self.places[point].wrapping_sub(spot))
    }
}

/// In proportion to the weight, without rounding: weights go to 256, so the divisor divides [`POINTS_MAX`].
fn count(weight: u32, heaviest: u32) -> u32 {
    let scale = heaviest.next_power_of_two().clamp(POINTS_MAX / POINTS, POINTS_MAX);
    (weight * (POINTS_MAX / scale)).max(1)
}

fn divide(places: &[u32]) -> (Box<[u32]>, u32) {
    let parts = places.len().next_power_of_two().max(2);
    let shift = 32 - parts.trailing_zeros();
    let mut first = 0;
    let parts = (0..parts as u32).map(|part| {
        while places.get(first).is_some_and(|place| place >> shift < part) {
            first += 1;
        }
        first as u32
    });
    (parts.collect(), shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("10.0.{}.{}:9000", number / 250, number % 250)).collect()
    }

    fn ring(names: &[String]) -> Ring {
        Ring::build(names.iter().map(|name| (name.as_str(), 1)))
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|number| hash_bytes(&number.to_le_bytes()))
    }

    #[test]
    fn one_more_takes_its_share_and_moves_no_other_key() {
        // From any number to the next, so that no size is a step at which everything moves.
        for count in (1..=40).chain([63, 64, 65, 127, 128, 255, 256, 500]) {
            let names = names(count + 1);
            let (few, more) = (ring(&names[..count]), ring(&names));
            let moved = keys().filter(|key| few.find(*key) != more.find(*key)).collect::<Vec<_>>();
            assert!(
                moved.iter().all(|key| more.find(*key) == Some(count as u16)),
                "{count}: a key moved between others"
            );
            let share = moved.len() as f64 / KEYS as f64 * (count + 1) as f64;
            assert!((0.6..=1.4).contains(&share), "{count}: the new one took {share} of its share");
        }
    }

    #[test]
    fn one_less_leaves_the_keys_of_others_where_they_were() {
        let names = names(50);
        let all = ring(&names);
        for gone in [0, 17, 49] {
            let mut rest = names.clone();
            rest.remove(gone);
            let few = ring(&rest);
            for key in keys() {
                let before = usize::from(all.find(key).unwrap());
                let after = usize::from(few.find(key).unwrap());
                assert!(before == gone || names[before] == rest[after], "the key {key:x} moved from another");
            }
        }
    }

    #[test]
    fn everybody_has_about_the_same_number_of_keys() {
        for count in [2, 10, 100] {
            let ring = ring(&names(count));
            let mut shares = vec![0.0; count];
            let keys = 2000 * count as u64;
            (0..keys).for_each(|key| shares[usize::from(ring.find(hash_bytes(&key.to_le_bytes())).unwrap())] += 1.0);
            for share in shares {
                assert!((0.84..=1.16).contains(&(share / 2000.0)), "{count}: a share of {share} instead of 2000");
            }
        }
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [[1, 2, 4], [10, 30, 60], [256, 128, 64], [1, 1, 2]] {
            let names = names(3);
            let ring = Ring::build(names.iter().map(String::as_str).zip(weights));
            let mut shares = [0.0; 3];
            keys().for_each(|key| shares[usize::from(ring.find(key).unwrap())] += 1.0);
            let total: u32 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(weights) {
                let fair = f64::from(weight) / f64::from(total) * KEYS as f64;
                assert!((0.82..=1.18).contains(&(share / fair)), "{weights:?}: {share} instead of {fair}");
            }
        }
    }

    #[test]
    fn points_are_exactly_in_proportion() {
        assert_eq!([count(1, 1), count(2, 2), count(4, 4)], [64, 128, 256]);
        assert_eq!([count(1, 256), count(7, 256), count(256, 256)], [1, 7, 256]);
        assert_eq!([count(10, 30), count(30, 30)], [80, 240]);
    }

    #[test]
    fn a_ring_of_nobody_finds_nobody() {
        assert_eq!(ring(&[]).find(7), None);
        assert_eq!(ring(&names(1)).find(7), Some(0));
    }
}
