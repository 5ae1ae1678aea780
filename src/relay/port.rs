//! One byte end of a session: a socket, what waits to be sent to it, what is in flight on it, and how it is given up. Nobody
//! else asks the kernel for anything of a socket.

use std::net::Shutdown;
use std::sync::Arc;

use bytes::Bytes;
use socket2::SockAddr;

use super::context::{Context, Shared};
use super::loans::BULK_WEIGHT;
use super::outbox::Outbox;
use super::policy::Policy;
use crate::op::{Accepted, ConnId, Group, InFlight, Lease, Op, Piece, Side};

#[derive(Debug)]
pub(super) struct Port {
    side: Side,
    pub link: Link,
    pub receiving: Receiving,
    /// What is sent to it, or waits; `None` while there is nothing, as for an idle connection.
    outbox: Option<Box<Outbox>>,
    /// True exactly while a Send is in flight, or what it is to send is being copied.
    pub sending: bool,
    /// That Send has been cancelled to see how far it got.
    pub probing: bool,
    /// That Send has been cancelled to have its buffers back.
    pub reclaiming: bool,
    /// It has lately taken so long that its buffers were wanted back: it gets little at a time until it is fast again.
    pub sluggish: bool,
    /// No more bytes will come from it: FIN, RST, or given up.
    pub finished: bool,
    /// No more bytes can go to it.
    pub broken: bool,
    /// It is to have FIN when all is sent.
    pub fin: bool,
    /// FIN has been sent to it.
    pub shut: bool,
    /// It is to hear RST instead of FIN: what it has been sent is not all, and nothing else would tell.
    pub abort: bool,
    /// This peer sends more at a time than fits into a small buffer.
    pub bulk: bool,
    /// How sure that is.
    score: i8,
    /// The group of the armed receive.
    pub group: Group,
}

/// What a source that has not shown bulk is granted at a time, in small buffers.
const CHAT_BUFFERS: u32 = 4;

/// What bytes lie in that came.
#[derive(Debug)]
pub(super) enum Backing {
    Lease(Lease),
    /// They came with a head.
    Owned(Bytes),
    /// Memory of the engine's: what is to be kept of them is copied.
    Engine,
}

impl From<Option<Lease>> for Backing {
    fn from(lease: Option<Lease>) -> Self {
        lease.map_or(Backing::Engine, Backing::Lease)
    }
}

impl Backing {
    pub fn release(self, cx: &mut Context<'_>) {
        if let Backing::Lease(lease) = self {
            cx.recycle(lease);
        }
    }
}

/// Both ends of a session.
#[derive(Debug)]
pub(super) struct Ports {
    pub client: Port,
    pub backend: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// No socket.
    Absent,
    /// Exactly while a Connect is in flight and still wanted.
    Connecting,
    Live,
    /// Shut down; closed as soon as nothing is in flight. `connecting`: a cancelled Connect is.
    Retiring {
        connecting: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Idle,
    Armed,
    /// Armed, and a Cancel is on its way.
    Cancelling,
    /// Not armed: no buffer was free. On the list of those who wait for one.
    Starved,
}

impl Ports {
    /// Of a slot that is free.
    pub fn absent() -> Self {
        Ports { client: Port::absent(Side::Client), backend: Port::absent(Side::Backend) }
    }

    pub fn of(&mut self, side: Side) -> &mut Port {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    pub fn get(&self, side: Side) -> &Port {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }
}

impl Port {
    /// Without a socket.
    pub fn absent(side: Side) -> Self {
        Port {
            side,
            link: Link::Absent,
            receiving: Receiving::Idle,
            outbox: None,
            sending: false,
            probing: false,
            reclaiming: false,
            sluggish: false,
            finished: false,
            broken: false,
            fin: false,
            shut: false,
            abort: false,
            bulk: false,
            score: 0,
            group: Group::SMALL,
        }
    }

    /// Its name at the seam: the session's, and the side.
    fn conn(&self, cx: &Context<'_>) -> ConnId {
        match self.side {
            Side::Client => cx.client,
            Side::Backend => cx.client.peer(),
        }
    }

    pub fn adopt(&mut self, socket: Accepted, cx: &mut Context<'_>) {
        self.link = Link::Live;
        cx.ops.push(Op::Adopt { conn: self.conn(cx), socket });
    }

    pub fn connect(&mut self, address: Arc<SockAddr>, cx: &mut Context<'_>) {
        debug_assert_eq!(self.link, Link::Absent);
        self.link = Link::Connecting;
        cx.ops.push(Op::Connect { conn: self.conn(cx), address });
    }

    /// Queues `bytes`, the first of what came, in what they lie in.
    pub fn forward(&mut self, bytes: &[u8], backing: Backing, cx: &mut Context<'_>) {
        match backing {
            backing if bytes.is_empty() => backing.release(cx),
            Backing::Lease(mut lease) => {
                lease.truncate(bytes.len());
                self.push(Piece::Lease(lease), cx);
            }
            Backing::Owned(mut owned) => {
                owned.truncate(bytes.len());
                self.push(Piece::Owned(owned), cx);
            }
            Backing::Engine => self.push(Piece::owned(bytes), cx),
        }
    }

    pub fn push(&mut self, piece: Piece, cx: &mut Context<'_>) {
        let outbox = self.outbox.get_or_insert_with(|| cx.shared.spare.outbox());
        outbox.held_bytes += piece.len() as u32;
        outbox.held_buffers += weight(&piece);
        if outbox.queue.capacity() == 0 {
            outbox.queue = cx.shared.spare.pieces();
        }
        outbox.queue.push(piece);
    }

    /// Sends what waits, and FIN behind the last of it. Returns whether FIN has gone out just now.
    pub fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        if self.link != Link::Live || self.sending {
            return false;
        }
        let conn = self.conn(cx);
        if self.broken {
            self.discard(cx);
        } else if let Some(outbox) = &mut self.outbox {
            self.sending = true;
            outbox.sending_since = cx.now;
            cx.ops.push(Op::Send { conn, pieces: std::mem::take(&mut outbox.queue) });
        } else if self.fin && !self.shut && !self.abort {
            self.shut = true;
            cx.ops.push(Op::Shutdown { conn, how: Shutdown::Write });
            return true;
        }
        false
    }

    /// The pieces of a send come back; the first `sent` bytes are on their way, the rest goes back to the front.
    pub fn sent(&mut self, mut pieces: Vec<Piece>, sent: usize, cx: &mut Context<'_>) {
        let Some(outbox) = &mut self.outbox else { return debug_assert!(false, "nothing was sent") };
        let mut left = sent;
        let mut whole = 0;
        keep(outbox, outbox.kept_bytes.saturating_sub(sent as u32), cx);
        for piece in &mut pieces {
            let len = piece.len().min(left);
            left -= len;
            outbox.held_bytes -= len as u32;
            if len < piece.len() {
                piece.advance(len);
                break;
            }
            whole += 1;
        }
        for piece in pieces.drain(..whole) {
            outbox.held_buffers -= weight(&piece);
            release(piece, cx);
        }
        if pieces.is_empty() {
            cx.shared.spare.keep_pieces(pieces);
        } else {
            pieces.append(&mut outbox.queue);
            let emptied = std::mem::replace(&mut outbox.queue, pieces);
            cx.shared.spare.keep_pieces(emptied);
        }
        self.put_away(cx);
    }

    /// An outbox is kept only while there is something in it.
    fn put_away(&mut self, cx: &mut Context<'_>) {
        if let Some(outbox) = self.outbox.take_if(|outbox| outbox.queue.is_empty()) {
            debug_assert_eq!((outbox.held_bytes, outbox.held_buffers, outbox.kept_bytes), (0, 0, 0));
            cx.shared.spare.keep_outbox(outbox);
        }
    }

    /// A send has been under way for a long time: cancelling it tells whether it got any further.
    pub fn probe(&mut self, cx: &mut Context<'_>) {
        if let Some(outbox) = &mut self.outbox {
            outbox.probed_after = u32::try_from(cx.now - outbox.sending_since).unwrap_or(u32::MAX);
            outbox.sending_since = cx.now;
        }
        self.probing = true;
        cx.ops.push(Op::Cancel { conn: self.conn(cx), what: InFlight::Send });
    }

    /// It is slow, and others need the buffers that wait for it: they are to come back.
    pub fn reclaim(&mut self, cx: &mut Context<'_>) {
        self.reclaiming = true;
        self.sluggish = true;
        cx.ops.push(Op::Cancel { conn: self.conn(cx), what: InFlight::Send });
    }

    /// The cancelled send has come back: what it has left is copied out of its buffers.
    pub fn copy_out(&mut self, cx: &mut Context<'_>) {
        let conn = self.conn(cx);
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.held_buffers > 0) else { return };
        self.sending = true;
        self.reclaiming = true;
        cx.ops.push(Op::Copy { conn, pieces: std::mem::take(&mut outbox.queue) });
    }

    /// The bytes of the pieces have been copied: their buffers go back.
    pub fn copied(&mut self, bytes: Box<[u8]>, mut pieces: Vec<Piece>, cx: &mut Context<'_>) {
        (self.sending, self.reclaiming) = (false, false);
        let Some(outbox) = &mut self.outbox else { return debug_assert!(false, "nothing was copied") };
        for piece in pieces.drain(..) {
            outbox.held_buffers -= weight(&piece);
            release(piece, cx);
        }
        cx.shared.spare.keep_pieces(pieces);
        keep(outbox, bytes.len() as u32, cx);
        outbox.queue.insert(0, Piece::owned(bytes));
    }

    /// Drops what is queued: it cannot be delivered any more.
    fn discard(&mut self, cx: &mut Context<'_>) {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| !outbox.queue.is_empty()) else { return };
        keep(outbox, 0, cx);
        let mut pieces = std::mem::take(&mut outbox.queue);
        for piece in pieces.drain(..) {
            outbox.held_bytes -= piece.len() as u32;
            outbox.held_buffers -= weight(&piece);
            release(piece, cx);
        }
        cx.shared.spare.keep_pieces(pieces);
        self.put_away(cx);
    }

    /// Keeps the receive in step with how many bytes are wanted of it; 0: none. `in_bulk`: bulk buffers may be used for it.
    pub fn receive(&mut self, credit: u32, in_bulk: bool, cx: &mut Context<'_>) {
        if self.link != Link::Live || self.finished {
            return;
        }
        let wants_bulk = self.bulk && in_bulk;
        match (self.receiving, credit) {
            (Receiving::Idle, credit @ 1..) => {
                self.group = if wants_bulk && cx.shared.loans.bulk_is_plentiful() { Group::BULK } else { Group::SMALL };
                self.receiving = Receiving::Armed;
                cx.ops.push(Op::Receive { conn: self.conn(cx), group: self.group, credit });
            }
            (Receiving::Armed, 0) => self.cancel_receive(cx),
            (Receiving::Armed, _) if !wants_bulk && self.group == Group::BULK => self.cancel_receive(cx),
            (Receiving::Armed, _)
                if wants_bulk && self.group == Group::SMALL && cx.shared.loans.bulk_is_plentiful() =>
            {
                self.cancel_receive(cx);
            }
            _ => {}
        }
    }

    /// The receive has ended because no buffer was left: the port waits for one, if there is none.
    pub fn starve(&mut self, cx: &mut Context<'_>) {
        if self.group == Group::SMALL && cx.shared.loans.small_is_out() {
            self.receiving = Receiving::Starved;
            cx.shared.loans.starved.push_back(self.conn(cx));
        }
    }

    /// How many more bytes may be read to be sent to it; 0: none. If a send is in flight to it, it has not taken that at once.
    /// `bulk`: their source sends much at a time. Others get little at once, as what is granted cannot be taken back before
    /// the next batch, by when this port may have turned out to be slow.
    pub fn credit(&self, bulk: bool, policy: &Policy, shared: &Shared) -> u32 {
        let window = policy.window_bytes;
        let (held_bytes, held_buffers) = self.held();
        let room = window.saturating_sub(held_bytes);
        if shared.loans.small_is_scarce() {
            // Nobody takes a second buffer before the first has left.
            return if held_buffers > 0 { 0 } else { room.min(shared.small_bytes) };
        }
        let little = room.min(CHAT_BUFFERS * shared.small_bytes);
        if self.sluggish {
            // What it holds is little, and all of it leaves before there is more.
            return if held_bytes > 0 { 0 } else { little };
        }
        let room = if bulk { room } else { little };
        if !self.sending {
            // What is held leaves with this batch; only a flood that came all at once can be too much.
            let flooded = held_bytes >= 2 * window || held_buffers >= 2 * policy.window_buffers;
            return if flooded { 0 } else { room.max(1) };
        }
        if held_buffers >= policy.window_buffers { 0 } else { room }
    }

    fn cancel_receive(&mut self, cx: &mut Context<'_>) {
        self.receiving = Receiving::Cancelling;
        cx.ops.push(Op::Cancel { conn: self.conn(cx), what: InFlight::Receive });
    }

    /// Nothing more can go to it. Ends an armed receive too, and with it the session.
    pub fn break_off(&mut self, cx: &mut Context<'_>) {
        self.broken = true;
        cx.ops.push(Op::Shutdown { conn: self.conn(cx), how: Shutdown::Both });
    }

    /// Gives up the socket: its operations are made to end, and it is closed once they have.
    pub fn retire(&mut self, cx: &mut Context<'_>) {
        let conn = self.conn(cx);
        self.finished = true;
        match self.link {
            Link::Absent | Link::Retiring { .. } => return,
            Link::Connecting => {
                self.link = Link::Retiring { connecting: true };
                cx.ops.push(Op::Cancel { conn, what: InFlight::Connect });
            }
            Link::Live => {
                self.link = Link::Retiring { connecting: false };
                // A shutdown would send FIN.
                cx.ops.push(match self.abort {
                    true => Op::Abort { conn },
                    false => Op::Shutdown { conn, how: Shutdown::Both },
                });
                if self.receiving == Receiving::Armed {
                    self.cancel_receive(cx);
                }
                if self.sending {
                    cx.ops.push(Op::Cancel { conn, what: InFlight::Send });
                }
            }
        }
        if self.receiving == Receiving::Starved {
            self.receiving = Receiving::Idle;
        }
    }

    /// Closes a retired socket once nothing is in flight on it. Returns whether it has.
    pub fn close(&mut self, cx: &mut Context<'_>) -> bool {
        let is_ready = self.link == Link::Retiring { connecting: false }
            && !self.sending
            && matches!(self.receiving, Receiving::Idle | Receiving::Starved);
        if is_ready {
            self.discard(cx);
            debug_assert!(self.is_flushed());
            *self = Port::absent(self.side);
            cx.ops.push(Op::Close { conn: self.conn(cx) });
        }
        is_ready
    }

    /// Bytes queued or in flight, and buffers, counted in small ones.
    fn held(&self) -> (u32, u16) {
        self.outbox.as_ref().map_or((0, 0), |outbox| (outbox.held_bytes, outbox.held_buffers))
    }

    /// Buffers queued or in flight, counted in small ones.
    pub fn held_buffers(&self) -> u16 {
        self.held().1
    }

    /// What copying all that is held would add to what is kept already.
    pub fn unkept_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| (outbox.held_bytes - outbox.kept_bytes) as usize)
    }

    /// Nothing queued, nothing in flight.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_none()
    }

    /// When the send in flight was asked for or last got some bytes through. `u64::MAX`: none is, or none is waited for.
    pub fn waits_since(&self) -> u64 {
        let waiting = self.outbox.as_ref().filter(|_| self.waits_for_peer());
        waiting.map_or(u64::MAX, |outbox| outbox.sending_since)
    }

    /// How long the send in flight has been under way.
    pub fn sending_for(&self, now: u64) -> u64 {
        self.outbox.as_ref().map_or(0, |outbox| now.saturating_sub(outbox.sending_since))
    }

    /// How long the last probed send had been under way, in milliseconds.
    pub fn probed_after(&self) -> u64 {
        self.outbox.as_ref().map_or(0, |outbox| outbox.probed_after.into())
    }

    /// What is in flight is so on a socket, and what has ended stays so.
    pub fn is_consistent(&self) -> bool {
        let is_idle = !self.sending && matches!(self.receiving, Receiving::Idle);
        let has_socket = matches!(self.link, Link::Live | Link::Retiring { .. });
        (is_idle || has_socket)
            && (self.sending || !self.probing && !self.reclaiming)
            && (!self.shut || self.outbox.is_none())
            && (!self.sending || self.outbox.is_some())
    }

    /// A send is in flight, and nobody has cancelled it to see how far it got.
    fn waits_for_peer(&self) -> bool {
        self.sending && !self.probing && !self.reclaiming
    }

    /// The send in flight has been under way for that long.
    pub fn is_slow(&self, now: u64, patience: u64) -> bool {
        let is_live = self.link == Link::Live && !self.broken;
        is_live && now >= self.waits_since().saturating_add(patience)
    }

    /// Learns from the size of a receive which group suits this peer. A message a little longer than a small buffer shows
    /// as full, rest, full, rest: hence steps of different size.
    pub fn learn(&mut self, received: usize, small_bytes: usize) {
        const STEP: i8 = 4;
        const SCORE_MAX: i8 = 16;
        if self.bulk {
            let step = if received > small_bytes { STEP } else { -1 };
            self.score = (self.score + step).clamp(0, SCORE_MAX);
            self.bulk = self.score > 0;
        } else {
            let step = if received == small_bytes { STEP } else { -1 };
            self.score = (self.score + step).max(0);
            if self.score >= 2 * STEP {
                self.bulk = true;
                self.score = SCORE_MAX;
            }
        }
    }
}

/// So many of its bytes lie in memory of their own now.
fn keep(outbox: &mut Outbox, bytes: u32, cx: &mut Context<'_>) {
    cx.shared.loans.kept_bytes += bytes as usize;
    cx.shared.loans.kept_bytes -= std::mem::replace(&mut outbox.kept_bytes, bytes) as usize;
}

fn weight(piece: &Piece) -> u16 {
    match piece {
        Piece::Lease(lease) if lease.group() == Group::BULK => BULK_WEIGHT,
        Piece::Lease(_) => 1,
        Piece::Inline { .. } | Piece::Owned(_) => 0,
    }
}

fn release(piece: Piece, cx: &mut Context<'_>) {
    match piece {
        Piece::Lease(lease) => cx.recycle(lease),
        Piece::Inline { .. } | Piece::Owned(_) => {}
    }
}
