//! Round robin: smooth and weighted, by stride scheduling. The next is always the one whose pass is least; its pass then
//! grows by a stride, which is the smaller the larger its weight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::view::{View, scale};

#[derive(Debug, Default)]
pub(super) struct Stride {
    /// Pass and number of those that are usable.
    heap: BinaryHeap<Reverse<(u64, u16)>>,
    /// The pass of the last one whose turn it was.
    pass: u64,
}

/// A turn of effective weight 1. Passes are counted anew long before they overflow.
const STRIDE: u64 = 1 << 32;
const PASS_MAX: u64 = 1 << 62;

impl Stride {
    pub fn next(&mut self, view: &View) -> Option<u16> {
        if self.pass >= PASS_MAX {
            self.rebase();
        }
        let mut top = self.heap.peek_mut()?;
        let Reverse((pass, number)) = *top;
        self.pass = pass;
        let weight = view.weight(number);
        if weight == 0 {
            // Cannot be: the heap was made from the view.
            PeekMut::pop(top);
            return None;
        }
        *top = Reverse((pass + stride(weight), number));
        Some(number)
    }

    /// Whoever stays keeps its pass. Whoever comes is given one in the round that has begun, spread over it by number,
    /// so that turns alternate from the first one on. Random is where the first of all rounds begins: with many
    /// workers of few sessions, the first member would get most.
    pub fn update(&mut self, view: &View, random: u64) {
        const ABSENT: u64 = u64::MAX;
        self.rebase();
        let mut passes = vec![ABSENT; view.numbers().last().map_or(0, |last| usize::from(*last) + 1)];
        let start = if self.heap.is_empty() { scale(random, view.numbers().len()) } else { 0 };
        for Reverse((pass, number)) in self.heap.drain() {
            if let Some(kept) = passes.get_mut(usize::from(number)) {
                *kept = pass;
            }
        }
        let count = view.numbers().len() as u64;
        let entries = (0u64..).zip(view.numbers()).map(|(rank, number)| {
            let stride = stride(view.weight(*number));
            let kept = passes[usize::from(*number)];
            let rank = (rank + count - start as u64) % count;
            let pass = if kept == ABSENT { stride * rank / count } else { kept.min(stride) };
            Reverse((pass, *number))
        });
        self.heap = entries.collect();
    }

    fn rebase(&mut self) {
        let base = std::mem::take(&mut self.pass);
        let entries = std::mem::take(&mut self.heap).into_iter();
        self.heap = entries.map(|Reverse((pass, number))| Reverse((pass.saturating_sub(base), number))).collect();
    }
}

fn stride(weight: u32) -> u64 {
    STRIDE / u64::from(weight.max(1))
}
