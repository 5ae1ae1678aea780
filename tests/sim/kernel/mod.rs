//! A kernel of values only: it keeps the contract of `src/op.rs`, and within it is as nasty as the dice allow.
//!
//! It also is the first oracle: an operation that the contract forbids panics here.

mod operate;
mod pool;
mod progress;
mod wire;

use std::io;
use std::time::Instant;

use ringway::op::{Accepted, Completion, ConnId, Lease, Op, Piece, ReceiveEnd};
use ringway::relay::Relay;

use crate::dice::Dice;

pub use pool::BufferPool;
pub use wire::Wire;

/// How likely each kind of trouble is, of 1000, and how large things are.
#[derive(Clone, Debug)]
pub struct Temper {
    /// Receives count their credit (Linux 6.17 and later) or ignore it.
    pub credit: bool,
    /// A socket with something to do gets on with it in one step.
    pub progress: u32,
    /// A receive takes all there is; else any part of it.
    pub whole_receive: u32,
    /// A receive ends although nothing asked it to.
    pub receive_ends: u32,
    pub spurious_no_buffers: u32,
    /// A send takes all that fits; else any part of it, and goes on later.
    pub whole_send: u32,
    /// A send ends early with what it has got rid of.
    pub send_ends: u32,
    /// A cancelled operation gets on before the cancel arrives.
    pub cancel_loses: u32,
    /// A completion comes before another socket's older one.
    pub reorder: u32,
    pub accept_fails: u32,
    pub connect_fails: u32,
    /// A connect never ends by itself.
    pub connect_hangs: u32,
    /// What the kernel holds for a peer that does not read.
    pub send_room: usize,
}

/// Received pieces of one socket that the relay has not heard of yet.
pub const UNHEARD_MAX: usize = 4;
/// Pieces that still come when a receive has been cancelled.
pub const LATE_MAX: usize = 3;

pub struct Kernel {
    pub dice: Dice,
    pub temper: Temper,
    pub wires: Vec<Wire>,
    pub pools: [BufferPool; 2],
    /// By [`ConnId::index`].
    pub sockets: Vec<Option<Socket>>,
    pub listeners: Vec<Listener>,
    /// Completions not yet handed over, oldest first.
    queue: Vec<Event>,
    /// Sockets in the order in which they were connected, to this port, or closed.
    pub log: Vec<(ConnId, Option<u16>)>,
    /// Backends that have just been connected to: the socket, its wire, and the port.
    pub links: Vec<(ConnId, usize, u16)>,
    /// Counts everything that happens.
    pub activity: u64,
    /// Leases the relay has been told of and not given back.
    pub lent: usize,
    /// NoBuffers in a row, without a buffer lent or come back between them.
    pub starving: usize,
    pub trace: bool,
}

pub struct Socket {
    pub conn: ConnId,
    pub wire: usize,
    connect: Option<Connect>,
    receive: Option<Receive>,
    send: Option<Sending>,
    /// In flight as far as the relay can know: from the operation to its last completion.
    connect_busy: bool,
    receive_busy: bool,
    send_busy: bool,
    shut_read: bool,
    shut_write: bool,
    unheard: usize,
}

struct Connect {
    port: u16,
    hangs: bool,
    cancelled: bool,
}

struct Receive {
    bulk: bool,
    credit: usize,
    cancelled: bool,
    /// Pieces that came nevertheless.
    late: usize,
}

struct Sending {
    pieces: Vec<Piece>,
    total: usize,
    done: usize,
    cancelled: bool,
}

#[derive(Default)]
pub struct Listener {
    pub id: u32,
    /// Wires of clients that wait to be accepted.
    pub backlog: Vec<usize>,
    armed: bool,
    busy: bool,
    stopping: bool,
    pub closed: bool,
}

#[derive(Debug)]
enum Event {
    Accepted { listener: u16, wire: usize },
    AcceptEnded { listener: u16, error: Option<i32> },
    Connected { conn: ConnId, result: Result<(), i32> },
    Received { conn: ConnId, lease: Lease, more: bool },
    ReceiveEnded { conn: ConnId, why: End },
    Sent { conn: ConnId, result: Result<usize, i32>, pieces: Vec<Piece> },
    Copied { conn: ConnId, bytes: Box<[u8]>, pieces: Vec<Piece> },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Eof,
    Cancelled,
    NoBuffers,
    Failed(i32),
}

/// What completes in order. A peer answers only what it has got, so one socket's completions are never swapped.
#[derive(PartialEq, Eq)]
enum Order {
    Listener(u16),
    Socket(ConnId),
}

impl Kernel {
    pub fn new(dice: Dice, temper: Temper, pools: [BufferPool; 2], trace: bool) -> Self {
        Kernel {
            dice,
            temper,
            wires: Vec::new(),
            pools,
            sockets: Vec::new(),
            listeners: Vec::new(),
            queue: Vec::new(),
            log: Vec::new(),
            links: Vec::new(),
            activity: 0,
            lent: 0,
            starving: 0,
            trace,
        }
    }

    /// A listener that has been bound, in the slot that the relay has given it.
    pub fn listen(&mut self, slot: u16, id: u32) {
        let slot = usize::from(slot);
        assert!(slot <= self.listeners.len(), "slots are given in order");
        let listener = Listener { id, ..Listener::default() };
        if slot == self.listeners.len() {
            self.listeners.push(listener);
        } else {
            assert!(self.listeners[slot].closed, "a slot is used again before its listener is closed");
            self.listeners[slot] = listener;
        }
    }

    /// Completions that wait to be handed over.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    pub fn open_sockets(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Hands one completion to the relay: the oldest, or another that may overtake it.
    pub fn hand_over(&mut self, relay: &mut Relay, now: Instant, ops: &mut Vec<Op>) {
        let mut at = 0;
        if self.dice.chance(self.temper.reorder) {
            at = self.dice.below(self.queue.len());
            let order = self.queue[at].order();
            at = self.queue.iter().position(|event| event.order() == order).expect("at least itself");
        }
        let event = self.queue.remove(at);
        self.activity += 1;
        if self.trace {
            println!("      <- {}", event.show());
        }
        match event {
            Event::Accepted { listener, wire } => {
                let peer = Some(([192, 0, 2, wire as u8], 4000).into());
                let socket = Accepted::fake(wire as i32);
                relay.handle(Completion::Accepted { listener, socket, peer, local: None }, now, ops);
            }
            Event::AcceptEnded { listener, error } => {
                self.listeners[usize::from(listener)].busy = false;
                let error = error.map(io::Error::from_raw_os_error);
                relay.handle(Completion::AcceptEnded { listener, error }, now, ops);
            }
            Event::Connected { conn, result } => {
                self.socket(conn).connect_busy = false;
                let result = result.map_err(io::Error::from_raw_os_error);
                relay.handle(Completion::Connected { conn, result }, now, ops);
            }
            Event::Received { conn, lease, more } => self.hand_over_bytes(conn, lease, more, relay, now, ops),
            Event::ReceiveEnded { conn, why } => {
                self.socket(conn).receive_busy = false;
                relay.handle(Completion::ReceiveEnded { conn, why: why.into() }, now, ops);
            }
            Event::Sent { conn, result, pieces } => {
                self.socket(conn).send_busy = false;
                let result = result.map_err(io::Error::from_raw_os_error);
                relay.handle(Completion::Sent { conn, result, pieces }, now, ops);
            }
            Event::Copied { conn, bytes, pieces } => {
                self.socket(conn).send_busy = false;
                relay.handle(Completion::Copied { conn, bytes, pieces }, now, ops);
            }
        }
    }

    fn hand_over_bytes(
        &mut self,
        conn: ConnId,
        mut lease: Lease,
        more: bool,
        relay: &mut Relay,
        now: Instant,
        ops: &mut Vec<Op>,
    ) {
        let socket = self.socket(conn);
        socket.receive_busy = more;
        socket.unheard -= 1;
        let wire = socket.wire;
        self.wires[wire].heard += lease.len();
        self.wires[wire].held += lease.len();
        self.lent += 1;
        let bytes = self.pools[lease.group().index()].bytes_mut(&mut lease);
        let wire_bytes = bytes.len() as u32;
        relay.handle(Completion::Received { conn, lease: Some(lease), bytes, wire_bytes, more }, now, ops);
    }

    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        let socket = self.sockets.get_mut(conn.index()).and_then(Option::as_mut);
        socket.filter(|socket| socket.conn == conn).unwrap_or_else(|| panic!("{conn:?} is not open"))
    }

    fn post(&mut self, event: Event) {
        self.activity += 1;
        self.queue.push(event);
    }
}

fn bytes_of<'a>(pools: &'a [BufferPool; 2], piece: &'a Piece) -> &'a [u8] {
    piece.bytes(|lease| pools[lease.group().index()].bytes(lease))
}

impl Event {
    fn order(&self) -> Order {
        match self {
            Event::Accepted { listener, .. } | Event::AcceptEnded { listener, .. } => Order::Listener(*listener),
            Event::Connected { conn, .. }
            | Event::Received { conn, .. }
            | Event::ReceiveEnded { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Copied { conn, .. } => Order::Socket(*conn),
        }
    }

    fn show(&self) -> String {
        match self {
            Event::Received { conn, lease, more } => {
                format!("{} received {} of {:?}, more: {more}", name(*conn), lease.len(), lease.group())
            }
            Event::ReceiveEnded { conn, why } => format!("{} receive ended: {why:?}", name(*conn)),
            Event::Sent { conn, result, pieces } => {
                let total: usize = pieces.iter().map(Piece::len).sum();
                format!("{} sent {result:?} of {total}", name(*conn))
            }
            Event::Copied { conn, bytes, .. } => format!("{} copied {}", name(*conn), bytes.len()),
            Event::Connected { conn, result } => format!("{} connected: {result:?}", name(*conn)),
            event => format!("{event:?}"),
        }
    }
}

/// `3.client#1`: session 3, generation 1.
pub fn name(conn: ConnId) -> String {
    format!("{}.{:?}#{}", conn.session(), conn.side(), conn.generation())
}

impl From<End> for ReceiveEnd {
    fn from(end: End) -> Self {
        match end {
            End::Eof => ReceiveEnd::Eof,
            End::Cancelled => ReceiveEnd::Cancelled,
            End::NoBuffers => ReceiveEnd::NoBuffers,
            End::Failed(code) => ReceiveEnd::Failed(io::Error::from_raw_os_error(code)),
        }
    }
}
