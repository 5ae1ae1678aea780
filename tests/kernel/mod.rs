//! The one fake kernel: it keeps the contract of `src/op.rs`, and panics if it is asked for what that forbids.
//!
//! By itself it does nothing: a driver says what happens, and gets the [`Completion`] that says so to the relay. There are
//! three of them: `stage` (what a script says, at once), `temper` (what the dice say, in any order) and the fuzz target
//! `operations` (what the input says).

mod pool;

use std::io;
use std::net::{Shutdown, SocketAddr};

use ringway::op::{Accepted, Completion, ConnId, Group, InFlight, Lease, Op, Piece, ReceiveEnd};

pub use pool::Pool;

pub struct Kernel {
    /// By [`ConnId::index`].
    pub sockets: Vec<Option<Socket>>,
    /// By slot.
    pub listeners: Vec<Accepting>,
    pub pools: [Pool; Group::COUNT],
    /// Accepted or released, and neither adopted nor refused yet.
    pending: Vec<i32>,
    /// Leases that the relay has been told of and has not given back.
    pub lent: usize,
}

/// What is in flight on a socket, as far as the relay can know: from the operation until its last completion.
pub struct Socket {
    pub conn: ConnId,
    /// It is being connected to.
    pub connect: Option<Connect>,
    pub receive: Option<Receive>,
    pub send: Option<Send>,
    pub shut_read: bool,
    pub shut_write: bool,
    /// Its close is a reset.
    pub aborted: bool,
    /// What it was accepted as; 0: it has been connected.
    pub token: i32,
}

pub struct Connect {
    /// `None`: a unix socket.
    pub address: Option<SocketAddr>,
    pub cancelled: bool,
}

#[derive(Clone, Copy)]
pub struct Receive {
    pub group: Group,
    pub credit: usize,
    pub cancelled: bool,
}

pub struct Send {
    pub pieces: Vec<Piece>,
    pub total: usize,
    /// Its pieces are to be copied, not sent.
    pub copies: bool,
    pub cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    Idle,
    Armed,
    Stopping,
    Closed,
}

/// What an operation has changed, for the driver.
pub enum Effect {
    None,
    /// Something of the socket may go on now.
    Moved(ConnId),
    Opened(ConnId),
    Closed(Socket),
    Refused(i32),
    Released(ConnId),
    ListenerClosed(u16),
    Recycled(Group, u16),
}

impl Kernel {
    pub fn new(pools: [Pool; Group::COUNT]) -> Self {
        Kernel { sockets: Vec::new(), listeners: Vec::new(), pools, pending: Vec::new(), lent: 0 }
    }

    /// A listener that has been bound, in the slot that the relay has given it.
    pub fn listen(&mut self, slot: u16) {
        let slot = usize::from(slot);
        assert!(slot <= self.listeners.len(), "slots are given in order");
        if slot == self.listeners.len() {
            self.listeners.push(Accepting::Closed);
        }
        assert_eq!(self.listeners[slot], Accepting::Closed, "a slot is used again before its listener is closed");
        self.listeners[slot] = Accepting::Idle;
    }

    pub fn get(&self, conn: ConnId) -> Option<&Socket> {
        self.sockets.get(conn.index())?.as_ref().filter(|socket| socket.conn == conn)
    }

    pub fn socket(&mut self, conn: ConnId) -> &mut Socket {
        open_one(&mut self.sockets, conn)
    }

    pub fn open_sockets(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    pub fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        piece.bytes(|lease| self.pools[lease.group().index()].bytes(lease))
    }

    /// Nothing is left of anything.
    pub fn assert_at_rest(&self) {
        assert_eq!(self.open_sockets(), 0, "sockets are left open");
        assert!(self.pending.is_empty(), "an accepted socket is forgotten");
        assert!(self.pools.iter().all(|pool| pool.lent() == 0), "buffers are missing");
        assert_eq!(self.lent, 0);
        assert!(self.listeners.iter().all(|listener| *listener == Accepting::Closed), "a listener is left open");
    }

    /// Carries out what the relay asks, as far as it happens at once.
    pub fn perform(&mut self, op: Op) -> Effect {
        match op {
            Op::Accept { listener } => self.turn(listener, Accepting::Idle, Accepting::Armed),
            // It may come when accept has just ended by itself.
            Op::StopAccept { listener } if self.listeners[usize::from(listener)] == Accepting::Idle => Effect::None,
            Op::StopAccept { listener } => self.turn(listener, Accepting::Armed, Accepting::Stopping),
            Op::CloseListener { listener } => {
                self.turn(listener, Accepting::Idle, Accepting::Closed);
                Effect::ListenerClosed(listener)
            }
            Op::Adopt { conn, socket } => {
                self.take_pending(socket.token());
                self.open(conn, None, socket.token())
            }
            Op::Refuse { socket } => {
                self.take_pending(socket.token());
                Effect::Refused(socket.token())
            }
            Op::Connect { conn, address } => {
                self.open(conn, Some(Connect { address: address.as_socket(), cancelled: false }), 0)
            }
            Op::Receive { conn, group, credit } => {
                let socket = self.socket(conn);
                assert!(socket.connect.is_none(), "{conn:?} receives before it is connected");
                assert!(socket.receive.is_none(), "{conn:?} has two receives in flight");
                assert!(credit > 0, "{conn:?} receives without credit");
                socket.receive = Some(Receive { group, credit: credit as usize, cancelled: false });
                Effect::None
            }
            Op::Send { conn, pieces } => {
                let socket = self.socket(conn);
                assert!(!socket.shut_write, "{conn:?} sends behind its FIN");
                socket.begin_send(pieces, false)
            }
            Op::Copy { conn, pieces } => {
                let of_leases = |piece: &Piece| matches!(piece, Piece::Lease(_));
                assert!(pieces.iter().any(of_leases), "{conn:?} copies what lies in no buffer");
                self.socket(conn).begin_send(pieces, true)
            }
            Op::Cancel { conn, what } => {
                let socket = self.socket(conn);
                match what {
                    InFlight::Connect => socket.connect.iter_mut().for_each(|connect| connect.cancelled = true),
                    InFlight::Receive => {
                        if let Some(receive) = &mut socket.receive {
                            // The kernel would bear it, but who asks twice has forgotten that it has asked.
                            assert!(!receive.cancelled, "{conn:?} cancels its receive twice");
                            receive.cancelled = true;
                        }
                    }
                    InFlight::Send => socket.send.iter_mut().for_each(|send| send.cancelled = true),
                }
                Effect::Moved(conn)
            }
            Op::Shutdown { conn, how } => {
                let socket = self.socket(conn);
                assert!(socket.connect.is_none(), "{conn:?} is shut down before it is connected");
                assert!(how != Shutdown::Write || socket.send.is_none(), "{conn:?} is shut down before its send");
                socket.shut_read |= how != Shutdown::Write;
                socket.shut_write |= how != Shutdown::Read;
                Effect::Moved(conn)
            }
            Op::Abort { conn } => {
                self.socket(conn).aborted = true;
                Effect::None
            }
            Op::Close { conn } => Effect::Closed(self.give_up(conn)),
            Op::Release { conn } => {
                let socket = self.give_up(conn);
                self.pending.push(socket.token);
                Effect::Released(conn)
            }
            Op::Recycle { lease } => {
                let group = lease.group();
                let buffer = self.pools[group.index()].recycle(lease);
                self.lent -= 1;
                Effect::Recycled(group, buffer)
            }
        }
    }

    fn turn(&mut self, listener: u16, from: Accepting, to: Accepting) -> Effect {
        let state = &mut self.listeners[usize::from(listener)];
        assert_eq!(*state, from, "listener {listener} cannot become {to:?}");
        *state = to;
        Effect::None
    }

    fn take_pending(&mut self, token: i32) {
        let at = self.pending.iter().position(|pending| *pending == token);
        self.pending.swap_remove(at.expect("a socket is adopted or refused once, and only if it was accepted"));
    }

    fn open(&mut self, conn: ConnId, connect: Option<Connect>, token: i32) -> Effect {
        while self.sockets.len() <= conn.index() {
            self.sockets.push(None);
        }
        let slot = &mut self.sockets[conn.index()];
        assert!(slot.is_none(), "{conn:?} has a socket already");
        let (receive, send) = (None, None);
        let (shut_read, shut_write, aborted) = (false, false, false);
        *slot = Some(Socket { conn, connect, receive, send, shut_read, shut_write, aborted, token });
        Effect::Opened(conn)
    }

    fn give_up(&mut self, conn: ConnId) -> Socket {
        let socket = self.socket(conn);
        let busy = socket.connect.is_some() || socket.receive.is_some() || socket.send.is_some();
        assert!(!busy, "{conn:?} is closed or released with something in flight");
        self.sockets[conn.index()].take().expect("just looked at")
    }

    /// A client is accepted, from here on known by this token.
    pub fn accepted(&mut self, listener: u16, token: i32, peer: Option<SocketAddr>) -> Completion<'static> {
        let state = self.listeners[usize::from(listener)];
        assert!(matches!(state, Accepting::Armed | Accepting::Stopping), "nothing accepts");
        self.pending.push(token);
        Completion::Accepted { listener, socket: Accepted::fake(token), peer, local: None }
    }

    pub fn accept_ended(&mut self, listener: u16, error: Option<i32>) -> Completion<'static> {
        let state = &mut self.listeners[usize::from(listener)];
        assert!(matches!(state, Accepting::Armed | Accepting::Stopping), "nothing accepts");
        *state = Accepting::Idle;
        Completion::AcceptEnded { listener, error: error.map(io::Error::from_raw_os_error) }
    }

    pub fn connected(&mut self, conn: ConnId, result: Result<(), i32>) -> Completion<'static> {
        self.socket(conn).connect.take().expect("no connect is in flight");
        Completion::Connected { conn, result: result.map_err(io::Error::from_raw_os_error) }
    }

    /// The first of these bytes are received, as many as go into a buffer. Returns the credit that is left.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> (Lease, usize) {
        let receive = &mut open_one(&mut self.sockets, conn).receive;
        let receive = receive.as_mut().unwrap_or_else(|| panic!("{conn:?} does not receive"));
        let pool = &mut self.pools[receive.group.index()];
        let lease = pool.lend(&bytes[..bytes.len().min(pool.size())]);
        receive.credit = receive.credit.saturating_sub(lease.len());
        (lease, receive.credit)
    }

    /// The relay hears of that. `more`: the receive is still armed.
    pub fn received(&mut self, conn: ConnId, mut lease: Lease, more: bool) -> Completion<'_> {
        let socket = self.socket(conn);
        assert!(socket.receive.is_some(), "{conn:?} does not receive");
        if !more {
            socket.receive = None;
        }
        self.lent += 1;
        let bytes = self.pools[lease.group().index()].bytes_mut(&mut lease);
        let wire_bytes = bytes.len() as u32;
        Completion::Received { conn, lease: Some(lease), bytes, wire_bytes, more }
    }

    /// The relay hears of bytes that lie in no buffer, as from a record layer; they are no part of the credit.
    pub fn received_unlent<'a>(&mut self, conn: ConnId, bytes: &'a mut [u8], wire_bytes: u32) -> Completion<'a> {
        assert!(self.socket(conn).receive.is_some(), "{conn:?} does not receive");
        Completion::Received { conn, lease: None, bytes, wire_bytes, more: true }
    }

    pub fn receive_ended(&mut self, conn: ConnId, why: ReceiveEnd) -> Completion<'static> {
        assert!(self.socket(conn).receive.take().is_some(), "{conn:?} does not receive");
        Completion::ReceiveEnded { conn, why }
    }

    pub fn sent(&mut self, conn: ConnId, result: Result<usize, i32>) -> Completion<'static> {
        let send = self.socket(conn).send.take().unwrap_or_else(|| panic!("{conn:?} does not send"));
        assert!(!send.copies && result.is_ok_and(|sent| sent <= send.total) | result.is_err());
        Completion::Sent { conn, result: result.map_err(io::Error::from_raw_os_error), pieces: send.pieces }
    }

    pub fn copied(&mut self, conn: ConnId) -> Completion<'static> {
        let Send { pieces, copies: true, .. } = self.socket(conn).send.take().expect("nothing is copied") else {
            panic!("{conn:?} sends, and does not copy")
        };
        let bytes = pieces.iter().flat_map(|piece| self.bytes(piece)).copied().collect();
        Completion::Copied { conn, bytes, pieces }
    }

    /// Given away by [`Op::Release`].
    pub fn released(&mut self, conn: ConnId) -> Completion<'static> {
        let token = *self.pending.last().expect("a socket has been released");
        Completion::Released { conn, socket: Accepted::fake(token) }
    }
}

/// That of this name: of no socket that had the number before.
fn open_one(sockets: &mut [Option<Socket>], conn: ConnId) -> &mut Socket {
    let socket = sockets.get_mut(conn.index()).and_then(Option::as_mut);
    socket.filter(|socket| socket.conn == conn).unwrap_or_else(|| panic!("{conn:?} is not open"))
}

impl Socket {
    /// Its peer has had FIN, or RST.
    pub fn is_shut(&self) -> bool {
        self.shut_read || self.shut_write
    }

    fn begin_send(&mut self, pieces: Vec<Piece>, copies: bool) -> Effect {
        let conn = self.conn;
        assert!(self.connect.is_none(), "{conn:?} sends before it is connected");
        assert!(self.send.is_none(), "{conn:?} has two sends in flight, or copies while it sends");
        let mut total = 0;
        for piece in &pieces {
            assert!(copies || !piece.is_empty(), "{conn:?} sends an empty piece");
            total += piece.len();
        }
        assert!(total > 0, "{conn:?} sends nothing");
        self.send = Some(Send { pieces, total, copies, cancelled: false });
        Effect::Moved(conn)
    }
}
