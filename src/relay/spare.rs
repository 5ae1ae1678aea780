//! What is used again and again while messages pass, so that none of them allocates.

use super::port::Outbox;
use crate::op::Piece;

#[derive(Debug, Default)]
pub(super) struct Spare {
    outboxes: Vec<Box<Outbox>>,
    pieces: Vec<Vec<Piece>>,
}

/// How many of each are kept, and the largest vectors: what a burst has grown goes back to the allocator.
const KEPT_MAX: usize = 256;
const PIECES_MAX: usize = 64;

impl Spare {
    pub fn outbox(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_default()
    }

    /// It is empty.
    pub fn keep_outbox(&mut self, mut outbox: Box<Outbox>) {
        outbox.take_pieces(self);
        if self.outboxes.len() < KEPT_MAX {
            self.outboxes.push(outbox);
        }
    }

    pub fn pieces(&mut self) -> Vec<Piece> {
        self.pieces.pop().unwrap_or_default()
    }

    pub fn keep_pieces(&mut self, pieces: Vec<Piece>) {
        debug_assert!(pieces.is_empty());
        if (1..=PIECES_MAX).contains(&pieces.capacity()) && self.pieces.len() < KEPT_MAX {
            self.pieces.push(pieces);
        }
    }
}
