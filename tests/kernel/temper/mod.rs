//! The fake kernel, as nasty as the dice and the contract allow: what is asked of it gets on when the dice agree, in parts, and
//! is told to the relay in any order.

mod dice;
mod operate;
mod progress;
mod wire;

use std::io;
use std::time::Instant;

use ringway::op::{ConnId, Group, Lease, Op, ReceiveEnd};
use ringway::relay::Relay;

use crate::kernel::{Accepting, Kernel, Pool};

pub use dice::Dice;
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

/// Received pieces of one socket that the relay has not heard of yet, at most.
pub const UNHEARD_MAX: usize = 4;
/// Pieces that still come when a receive has been cancelled.
pub const LATE_MAX: usize = 3;

/// What a buffer holds that nobody may read.
const POISON: u8 = 0xDD;

pub struct Tempered {
    pub kernel: Kernel,
    pub dice: Dice,
    pub temper: Temper,
    pub wires: Vec<Wire>,
    /// By [`ConnId::index`], of open sockets.
    underway: Vec<Option<Underway>>,
    pub listeners: Vec<Listener>,
    /// By group and buffer, of those on loan: the wire whose bytes it holds, and how many.
    owners: [Vec<Option<(usize, usize)>>; Group::COUNT],
    /// Completions not yet handed over, oldest first.
    queue: Vec<Event>,
    /// Sockets in the order in which they were connected, to this port, or closed.
    pub log: Vec<(ConnId, Option<u16>)>,
    /// Backends that have just been connected to: the socket, its wire, and the port.
    pub links: Vec<(ConnId, usize, u16)>,
    /// Counts everything that happens.
    pub activity: u64,
    /// NoBuffers in a row, without a buffer lent or come back between them.
    pub starving: usize,
    pub trace: bool,
}

/// How far what is in flight on a socket has come, which the relay may not have heard of yet.
#[derive(Default)]
struct Underway {
    wire: usize,
    /// Its connect never ends by itself.
    hangs: bool,
    connected: bool,
    /// Received pieces that the relay has not heard of.
    unheard: usize,
    /// Pieces that came although the receive was cancelled.
    late: usize,
    receive_ended: bool,
    /// Bytes of the send that are on their way.
    sent: usize,
    send_ended: bool,
}

#[derive(Default)]
pub struct Listener {
    pub id: u32,
    /// Wires of clients that wait to be accepted.
    pub backlog: Vec<usize>,
    /// The relay has not heard yet that accept has ended.
    ended: bool,
}

#[derive(Debug)]
enum Event {
    Accepted { listener: u16, wire: usize },
    AcceptEnded { listener: u16, error: Option<i32> },
    Connected { conn: ConnId, result: Result<(), i32> },
    Received { conn: ConnId, lease: Lease, more: bool },
    ReceiveEnded { conn: ConnId, why: End },
    Sent { conn: ConnId, result: Result<usize, i32> },
    Copied { conn: ConnId },
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

impl Tempered {
    /// Buffers of each group: how large, and how many.
    pub fn new(dice: Dice, temper: Temper, [small, bulk]: [(usize, usize); Group::COUNT], trace: bool) -> Self {
        let pool = |group, (size, count)| Pool::new(group, size, count, Some(POISON));
        Tempered {
            kernel: Kernel::new([pool(Group::SMALL, small), pool(Group::BULK, bulk)]),
            dice,
            temper,
            wires: Vec::new(),
            underway: Vec::new(),
            listeners: Vec::new(),
            owners: [vec![None; small.1], vec![None; bulk.1]],
            queue: Vec::new(),
            log: Vec::new(),
            links: Vec::new(),
            activity: 0,
            starving: 0,
            trace,
        }
    }

    /// A listener that has been bound, in the slot that the relay has given it.
    pub fn listen(&mut self, slot: u16, id: u32) {
        self.kernel.listen(slot);
        self.listeners.resize_with(self.kernel.listeners.len(), Listener::default);
        self.listeners[usize::from(slot)] = Listener { id, ..Listener::default() };
    }

    pub fn is_closed(&self, listener: usize) -> bool {
        self.kernel.listeners[listener] == Accepting::Closed
    }

    /// Completions that wait to be handed over.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// That of an open socket.
    pub fn wire_of(&self, conn: ConnId) -> Option<usize> {
        self.kernel.get(conn)?;
        Some(self.underway[conn.index()].as_ref()?.wire)
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
        let completion = match event {
            Event::Accepted { listener, wire } => {
                let peer = Some(([192, 0, 2, wire as u8], 4000).into());
                self.kernel.accepted(listener, wire as i32, peer)
            }
            Event::AcceptEnded { listener, error } => {
                self.listeners[usize::from(listener)].ended = false;
                self.kernel.accept_ended(listener, error)
            }
            Event::Connected { conn, result } => self.kernel.connected(conn, result),
            Event::Received { conn, lease, more } => {
                let underway = self.underway(conn);
                underway.unheard -= 1;
                underway.receive_ended &= more;
                let wire = underway.wire;
                self.wires[wire].heard += lease.len();
                self.wires[wire].held += lease.len();
                self.kernel.received(conn, lease, more)
            }
            Event::ReceiveEnded { conn, why } => {
                self.underway(conn).receive_ended = false;
                self.kernel.receive_ended(conn, why.into())
            }
            Event::Sent { conn, result } => {
                let underway = self.underway(conn);
                (underway.sent, underway.send_ended) = (0, false);
                self.kernel.sent(conn, result)
            }
            Event::Copied { conn } => {
                self.underway(conn).send_ended = false;
                self.kernel.copied(conn)
            }
        };
        relay.handle(completion, now, ops);
    }

    fn underway(&mut self, conn: ConnId) -> &mut Underway {
        self.underway[conn.index()].as_mut().unwrap_or_else(|| panic!("{conn:?} is not open"))
    }

    fn post(&mut self, event: Event) {
        self.activity += 1;
        self.queue.push(event);
    }
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
            Event::Sent { conn, result } => format!("{} sent {result:?}", name(*conn)),
            Event::Copied { conn } => format!("{} copied", name(*conn)),
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
