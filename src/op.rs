//! The seam between the relay (state, no I/O) and the engine (the kernel, no state machine).
//!
//! The relay asks with [`Op`], the engine answers with [`Completion`]. Both are plain values, so that a recorded list of
//! them is a test oracle, a fuzz input and a trace.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use socket2::SockAddr;

/// Which end of a session a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Backend,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }
}

/// Names one socket everywhere. A session's two sockets are neighbours: the client's index is even, the backend's is
/// the next one. The generation is the session slot's and changes each time the slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    index: u32,
    generation: u16,
}

impl ConnId {
    /// The largest number of sessions one worker can name (indices are 24 bits wide in the ring's `user_data`).
    pub const SESSIONS_MAX: usize = 1 << 23;

    pub fn new(session: u32, side: Side, generation: u16) -> Self {
        debug_assert!((session as usize) < Self::SESSIONS_MAX);
        ConnId { index: session << 1 | side as u32, generation }
    }

    /// The dense number of this socket: `2 * session + side`.
    pub fn index(self) -> usize {
        self.index as usize
    }

    pub fn session(self) -> u32 {
        self.index >> 1
    }

    pub fn side(self) -> Side {
        if self.index & 1 == 0 { Side::Client } else { Side::Backend }
    }

    pub fn generation(self) -> u16 {
        self.generation
    }

    /// The other socket of the same session.
    pub fn peer(self) -> Self {
        ConnId { index: self.index ^ 1, ..self }
    }
}

/// One listener from the moment it is bound until it is closed; given by whoever binds it.
pub type ListenerId = u32;

/// A group of provided buffers, all of one size: the number of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group(u8);

impl Group {
    /// For everyone: handshakes and chat messages.
    pub const SMALL: Group = Group(0);
    /// For connections that have shown bulk, so that a large message is not cut into many pieces.
    pub const BULK: Group = Group(1);
    /// How many there are.
    pub const COUNT: usize = 2;

    /// That of the pool with this number, if there is one.
    pub fn of(number: u8) -> Option<Group> {
        (usize::from(number) < Group::COUNT).then_some(Group(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A received buffer on loan from the engine, narrowed to the bytes that are still wanted.
///
/// The kernel lends it in [`Completion::Received`], it leaves in [`Op::Send`] or [`Op::Copy`], comes back in [`Completion::Sent`] or [`Completion::Copied`], and
/// exactly one [`Op::Recycle`] ends it. Dropping one anywhere else loses a buffer for good, hence the panic in debug.
#[derive(Debug)]
#[must_use = "a lease must be sent or recycled"]
pub struct Lease {
    group: Group,
    buffer: u16,
    start: u32,
    end: u32,
}

impl Lease {
    /// Bytes of a buffer in front of what the kernel puts into it, and behind that. Enough for the header of a TLS record (5 bytes),
    /// the explicit nonce of TLS 1.2 (8) and a WebSocket frame's header (14); and for a record's type and tag.
    pub const ROOM: usize = 32;

    /// For the engine (and its fakes) alone: a new loan of these bytes of the whole buffer.
    pub fn lend(group: Group, buffer: u16, wanted: Range<u32>) -> Self {
        Lease { group, buffer, start: wanted.start, end: wanted.end }
    }

    /// For the engine (and its fakes) alone: ends the loan, and says whose it was.
    pub fn end(self) -> (Group, u16) {
        let (group, buffer) = (self.group, self.buffer);
        std::mem::forget(self);
        (group, buffer)
    }

    pub fn group(&self) -> Group {
        self.group
    }

    pub fn buffer(&self) -> u16 {
        self.buffer
    }

    /// The wanted bytes, as a range of the whole buffer.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Keeps the first `len` of the wanted bytes.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len(), "a lease cannot grow");
        self.end = self.start + len as u32;
    }

    /// Drops the first `len` of the wanted bytes.
    pub fn advance(&mut self, len: usize) {
        assert!(len <= self.len(), "a lease cannot grow");
        self.start += len as u32;
    }

    /// Wants so many bytes in front and behind as well: what a record layer adds. There are [`Lease::ROOM`] of each to begin with,
    /// and more where the lease has been narrowed; past the buffer's end the engine refuses it.
    pub fn widen(&mut self, front: usize, back: usize) {
        assert!(front <= self.start as usize, "a lease begins in its buffer");
        self.start -= front as u32;
        self.end += back as u32;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            panic!("lease {:?}/{} dropped without Recycle", self.group, self.buffer);
        }
    }
}

/// One run of bytes to send.
#[derive(Debug)]
pub enum Piece {
    /// Bytes that a peer sent, in the buffer they arrived in.
    Lease(Lease),
    /// A few bytes, typically a frame header that arrived in two parts.
    Inline { bytes: [u8; Piece::INLINE_MAX], start: u8, end: u8 },
    /// Bytes that lie in memory of the relay: heads, refusals, close frames, and what came with a head.
    Owned(Bytes),
}

impl Piece {
    /// The longest frame header: 2 bytes, 8 of length, 4 of mask (RFC 6455, 5.2).
    pub const INLINE_MAX: usize = 14;

    pub fn owned(bytes: impl Into<Box<[u8]>>) -> Self {
        Piece::Owned(Bytes::from(bytes.into()))
    }

    pub fn inline(from: &[u8]) -> Self {
        let mut bytes = [0; Piece::INLINE_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Piece::Inline { bytes, start: 0, end: from.len() as u8 }
    }

    pub fn len(&self) -> usize {
        match self {
            Piece::Lease(lease) => lease.len(),
            Piece::Inline { start, end, .. } => usize::from(end - start),
            Piece::Owned(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is left to be sent; `lent` finds the bytes of a lease.
    pub fn bytes<'a>(&'a self, lent: impl FnOnce(&'a Lease) -> &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Lease(lease) => lent(lease),
            Piece::Inline { bytes, start, end } => &bytes[usize::from(*start)..usize::from(*end)],
            Piece::Owned(bytes) => bytes,
        }
    }

    /// Drops the first `len` bytes: they have been sent.
    pub fn advance(&mut self, len: usize) {
        assert!(len <= self.len(), "more sent than asked");
        match self {
            Piece::Lease(lease) => lease.advance(len),
            Piece::Inline { start, .. } => *start += len as u8,
            Piece::Owned(bytes) => bytes.advance(len),
        }
    }
}

/// A socket fresh from accept, or released by a session: owned by the engine until [`Op::Adopt`] or [`Op::Refuse`] says what
/// becomes of it.
#[derive(Debug)]
#[must_use = "a socket must be adopted or refused"]
pub struct Accepted(pub(crate) i32);

impl Accepted {
    /// For fake kernels in tests; `token` is theirs to choose.
    pub fn fake(token: i32) -> Self {
        Accepted(token)
    }

    pub fn token(&self) -> i32 {
        self.0
    }
}

/// What the relay asks of the kernel. Operations of one batch are carried out in order.
#[derive(Debug)]
#[must_use]
pub enum Op {
    /// Arm accept on the listener in this slot, which [`Relay::adopt`](crate::relay::Relay::adopt) has named, until
    /// [`Op::StopAccept`] or a failure.
    Accept {
        listener: u16,
    },
    /// Ends in [`Completion::AcceptEnded`], if accept is still armed; sockets accepted meanwhile are still handed over
    /// before it.
    StopAccept {
        listener: u16,
    },
    /// Close the listening socket; only while accept is not armed.
    CloseListener {
        listener: u16,
    },
    /// The accepted socket is from now on `conn`.
    Adopt {
        conn: ConnId,
        socket: Accepted,
    },
    /// Close an accepted socket that has no session.
    Refuse {
        socket: Accepted,
    },
    /// Create a socket and connect it. Ends in exactly one [`Completion::Connected`].
    Connect {
        conn: ConnId,
        address: Arc<SockAddr>,
    },
    /// Arm a receive that goes on until `credit` bytes have come (where the kernel can count them: an overshoot of less
    /// than one buffer is possible, and without that ability it goes on until cancelled).
    Receive {
        conn: ConnId,
        group: Group,
        credit: u32,
    },
    /// Send the pieces in order, in one system call. At most one per socket. Ends in exactly one [`Completion::Sent`].
    Send {
        conn: ConnId,
        pieces: Vec<Piece>,
    },
    /// Copy these bytes out of the buffers that they lie in, for a send that takes long. At most one per socket, and no send
    /// meanwhile. Ends in exactly one [`Completion::Copied`].
    Copy {
        conn: ConnId,
        pieces: Vec<Piece>,
    },
    /// Cancel the operation of that kind, if it is still under way; its own completion follows in every case.
    Cancel {
        conn: ConnId,
        what: InFlight,
    },
    Shutdown {
        conn: ConnId,
        how: Shutdown,
    },
    /// Let the close of the socket reset the connection (RST): what its peer has of a message is not all of it, and nothing
    /// else would say so. Operations in flight go on until they are cancelled.
    Abort {
        conn: ConnId,
    },
    /// Close the socket; only when nothing of it is in flight.
    Close {
        conn: ConnId,
    },
    /// Give the socket away, alive; only when nothing of it is in flight. Ends in exactly one [`Completion::Released`].
    Release {
        conn: ConnId,
    },
    /// Give a buffer back.
    Recycle {
        lease: Lease,
    },
}

/// The operations that can be in flight on a session's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InFlight {
    Connect,
    Receive,
    Send,
}

/// What the kernel answered.
#[derive(Debug)]
pub enum Completion<'a> {
    /// A client connected: from `peer`, to `local`. Both are `None` on unix sockets, and may be for a client that has left again.
    Accepted {
        listener: u16,
        socket: Accepted,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
    },
    /// Accept is no longer armed: cancelled (`None`) or failed.
    AcceptEnded {
        listener: u16,
        error: Option<io::Error>,
    },
    Connected {
        conn: ConnId,
        result: io::Result<()>,
    },
    /// Never empty. `more` is true exactly when the receive is still armed.
    Received {
        conn: ConnId,
        /// What the bytes lie in; `None`: in memory that is not the relay's to keep.
        lease: Option<Lease>,
        bytes: &'a mut [u8],
        /// What came over the network for them, which tells how much this peer sends at a time.
        wire_bytes: u32,
        more: bool,
    },
    /// The receive is no longer armed, and this completion carries no bytes.
    ReceiveEnded {
        conn: ConnId,
        why: ReceiveEnd,
    },
    /// `result` is the number of bytes sent, which is less than asked only if the send was cancelled or the kernel
    /// stopped early; the pieces come back untouched in every case.
    Sent {
        conn: ConnId,
        result: io::Result<usize>,
        pieces: Vec<Piece>,
    },
    /// The bytes of the pieces, which come back untouched.
    Copied {
        conn: ConnId,
        bytes: Box<[u8]>,
        pieces: Vec<Piece>,
    },
    /// The socket is nobody's `conn` any more, and its connection goes on.
    Released {
        conn: ConnId,
        socket: Accepted,
    },
    /// The control plane has put something into the worker's mailbox.
    Woken,
}

#[derive(Debug)]
pub enum ReceiveEnd {
    /// The peer has finished sending (FIN), or this side was shut down.
    Eof,
    Cancelled,
    /// The group had no buffer left; nothing was lost.
    NoBuffers,
    /// The connection is gone (RST, timeout) or the receive itself was refused.
    Failed(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conn_ids_pair_up() {
        let client = ConnId::new(77, Side::Client, 9);
        let backend = client.peer();
        assert_eq!((client.session(), client.side()), (77, Side::Client));
        assert_eq!((backend.session(), backend.side()), (77, Side::Backend));
        assert_eq!(backend.peer(), client);
        assert_eq!(backend.index(), client.index() + 1);
    }

    #[test]
    fn pieces_shrink_from_the_front() {
        let mut piece = Piece::inline(&[1, 2, 3]);
        piece.advance(2);
        assert_eq!(piece.len(), 1);
        let mut lease = Lease::lend(Group::SMALL, 3, 32..132);
        lease.advance(10);
        lease.truncate(5);
        assert_eq!(lease.range(), 42..47);
        lease.widen(42, 10);
        assert_eq!(lease.range(), 0..57);
        assert_eq!(lease.end(), (Group::SMALL, 3));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "dropped without Recycle")]
    fn a_lost_lease_panics_in_debug() {
        drop(Lease::lend(Group::BULK, 1, 0..1));
    }
}
