//! Sends in flight: who owns the bytes until the kernel is done with them.

use std::ptr;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use socket2::SockAddr;

use super::buffers::Pools;
use crate::op::Piece;

/// The pieces of every send in flight, and what submitting takes besides.
///
/// The kernel holds two kinds of pointers. To the payload, until the completion: it lies in a lent buffer, in the heap
/// memory of an `Owned` piece, or (`Inline`) in the heap memory of the `Vec<Piece>` itself. None of these moves or changes
/// while the `Vec` lies untouched in its slot, which it does from [`Sends::start`] to [`Sends::finish`]; when `slots` grows,
/// it moves the `Vec`s' three words, not what they point to. And to message headers, I/O vectors and addresses, until the
/// entry is submitted (IORING_FEAT_SUBMIT_STABLE): these are scratch, filled up for a batch and reset after it.
pub(super) struct Sends {
    slots: Vec<Vec<Piece>>,
    free: Vec<u32>,
    headers: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
    addresses: Vec<Arc<SockAddr>>,
}

/// UIO_MAXIOV: the most pieces that one message may have.
pub(super) const PIECES_MAX: usize = 1024;
const HEADERS: usize = 256;
const VECTORS: usize = 4 * PIECES_MAX;
const ADDRESSES: usize = 256;

// MSG_WAITALL: one completion per send, however many turns it takes. MSG_NOSIGNAL: a dead peer is an error, not SIGPIPE.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

impl Sends {
    pub fn new() -> Self {
        Sends {
            slots: Vec::new(),
            free: Vec::new(),
            headers: Vec::with_capacity(HEADERS),
            vectors: Vec::with_capacity(VECTORS),
            addresses: Vec::with_capacity(ADDRESSES),
        }
    }

    /// Whether the scratch memory has room for any one more operation.
    pub fn has_room(&self) -> bool {
        self.headers.len() < HEADERS && self.vectors.len() + PIECES_MAX <= VECTORS && self.addresses.len() < ADDRESSES
    }

    /// Everything built so far has been submitted.
    pub fn submitted(&mut self) {
        self.headers.clear();
        self.vectors.clear();
        self.addresses.clear();
    }

    /// Takes the pieces in, and builds the entry that sends them (the first [`PIECES_MAX`] of them). The entry's pointers
    /// are good until `submitted` or `finish`, as the type's comment says. Needs [`Sends::has_room`].
    pub fn start(&mut self, fd: i32, pieces: Vec<Piece>, pools: &Pools) -> (u32, squeue::Entry) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::new());
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = pieces;
        // The addresses are taken only now that the pieces are where they stay.
        let entry = match &self.slots[slot as usize][..] {
            [piece] => {
                let (start, len) = locate(piece, pools);
                opcode::Send::new(types::Fd(fd), start, len as u32).flags(FLAGS).build()
            }
            _ => self.vectored(fd, slot, pools),
        };
        (slot, entry)
    }

    /// Hands the pieces back; their send has completed.
    pub fn finish(&mut self, slot: u32) -> Vec<Piece> {
        self.free.push(slot);
        std::mem::take(&mut self.slots[slot as usize])
    }

    /// Builds the entry that connects `fd`. Needs [`Sends::has_room`].
    pub fn connect(&mut self, fd: i32, address: Arc<SockAddr>) -> squeue::Entry {
        let entry = opcode::Connect::new(types::Fd(fd), address.as_ptr().cast(), address.len()).build();
        self.addresses.push(address);
        entry
    }

    fn vectored(&mut self, fd: i32, slot: u32, pools: &Pools) -> squeue::Entry {
        debug_assert!(self.has_room(), "a growing vector would move what the kernel is about to read");
        let first = self.vectors.len();
        for piece in self.slots[slot as usize].iter().filter(|piece| !piece.is_empty()).take(PIECES_MAX) {
            let (start, len) = locate(piece, pools);
            self.vectors.push(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len });
        }
        // SAFETY: all-zero is a valid `msghdr` (null pointers, zero lengths); the type has no public constructor.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors[first..].as_mut_ptr();
        header.msg_iovlen = self.vectors.len() - first;
        self.headers.push(header);
        let header = self.headers.last().map_or(ptr::null(), ptr::from_ref);
        opcode::SendMsg::new(types::Fd(fd), header).flags(FLAGS as u32).build()
    }
}

fn locate(piece: &Piece, pools: &Pools) -> (*const u8, usize) {
    let bytes = match piece {
        Piece::Lease(lease) => return pools[lease.group().index()].locate(lease),
        Piece::Inline { bytes, start, end } => &bytes[usize::from(*start)..usize::from(*end)],
        Piece::Owned(bytes) => bytes,
    };
    (bytes.as_ptr(), bytes.len())
}
