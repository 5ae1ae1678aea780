//! Weighted random picks in constant time, by the alias method: as many slots as members, all equally likely, each shared
//! by at most two members.

use super::view::View;

#[derive(Debug, Default)]
pub(super) struct Alias {
    slots: Vec<Slot>,
    total: u64,
}

#[derive(Debug)]
struct Slot {
    /// Up to here, of the total, the slot is the owner's, from here on the other's.
    border: u64,
    owner: u16,
    other: u16,
}

impl Alias {
    pub fn update(&mut self, view: &View) {
        let count = view.numbers().len() as u64;
        self.total = view.numbers().iter().map(|number| u64::from(view.weight(*number))).sum();
        let slot =
            |number: &u16| Slot { border: u64::from(view.weight(*number)) * count, owner: *number, other: *number };
        self.slots.clear();
        self.slots.extend(view.numbers().iter().map(slot));
        let (mut short, mut long): (Vec<usize>, Vec<usize>) =
            (0..self.slots.len()).partition(|index| self.slots[*index].border < self.total);
        // Who has more than a slot fills up the slots of those who have less.
        while let (Some(one), Some(rich)) = (short.pop(), long.last().copied()) {
            self.slots[one].other = self.slots[rich].owner;
            self.slots[rich].border -= self.total - self.slots[one].border;
            if self.slots[rich].border < self.total {
                long.pop();
                short.push(rich);
            }
        }
    }

    pub fn pick(&self, random: u64) -> Option<u16> {
        let slot = self.slots.get(self.index(random))?;
        let spot = (u64::from(random as u32) * self.total) >> 32;
        Some(if spot < slot.border { slot.owner } else { slot.other })
    }

    /// Two different ones if there are two.
    pub fn pick_two(&self, random: u64) -> Option<(u16, u16)> {
        let again = crate::table::hash::nth(random, 1);
        let (one, other) = (self.pick(random)?, self.pick(again)?);
        if one != other {
            return Some((one, other));
        }
        // The neighbour may be less likely than others, but is compared with only now and then.
        let index = self.slots.partition_point(|slot| slot.owner <= one);
        Some((one, self.slots.get(index).unwrap_or(&self.slots[0]).owner))
    }

    fn index(&self, random: u64) -> usize {
        (((random >> 32) * self.slots.len() as u64) >> 32) as usize
    }
}

#[cfg(test)]
impl Alias {
    /// How many of all equally likely spots are whose.
    pub fn shares(&self, members: usize) -> Vec<u64> {
        let mut shares = vec![0; members];
        for slot in &self.slots {
            shares[usize::from(slot.owner)] += slot.border;
            shares[usize::from(slot.other)] += self.total - slot.border;
        }
        shares
    }
}
