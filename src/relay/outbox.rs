//! What is on its way to a socket; and the memory for that, used again and again so that no message allocates.

use crate::op::Piece;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What waits behind the send in flight, in order.
    pub queue: Vec<Piece>,
    /// Bytes queued or in flight.
    pub held_bytes: u32,
    /// Buffers queued or in flight, counted in small ones: a slow reader is charged for the room its bytes take.
    pub held_buffers: u16,
    /// The first of the bytes held lie in memory of their own, copied out of their buffers: so many.
    pub kept_bytes: u32,
    /// When the Send in flight was asked for or last got some bytes through.
    pub sending_since: u64,
    /// How long it had been under way when it was cancelled to see how far it got, in milliseconds.
    pub probed_after: u32,
}

#[derive(Debug, Default)]
pub(super) struct Spare {
    #[expect(clippy::vec_box, reason = "ports hold boxes, which are to be used again as they are")]
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
        self.keep_pieces(std::mem::take(&mut outbox.queue));
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
