//! A kernel that does what it is told to, and asserts that nothing is asked of it that the real one would not bear.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::net::Shutdown;

use ringway::config::Plan;
use ringway::op::{Accepted, Completion, ConnId, Group, InFlight, Lease, Op, Piece, ReceiveEnd};

pub const SMALL_BYTES: usize = 128;
pub const BULK_BYTES: usize = 1024;

pub struct Kernel {
    sockets: Vec<Option<Socket>>,
    small_free: BTreeSet<u16>,
    bulk_free: BTreeSet<u16>,
    listener: Listener,
    /// Accepted, and neither adopted nor refused yet.
    pending: BTreeSet<i32>,
    token: i32,
    buffers: usize,
}

#[derive(PartialEq)]
enum Listener {
    Idle,
    Armed,
    Stopping,
    Closed,
}

struct Socket {
    conn: ConnId,
    /// In flight, and whether it is cancelled.
    connecting: Option<bool>,
    receiving: Option<Receive>,
    sending: Option<Send>,
    copying: Option<Vec<Piece>>,
    shut_read: bool,
    shut_write: bool,
    /// The peer has sent FIN or RST: nothing more comes.
    ended: bool,
}

struct Receive {
    group: Group,
    credit: u32,
    cancelled: bool,
}

struct Send {
    pieces: Vec<Piece>,
    cancelled: bool,
}

impl Kernel {
    pub fn new(plan: &Plan) -> Self {
        Kernel {
            sockets: (0..2 * (plan.sessions_max + plan.refusals_max)).map(|_| None).collect(),
            small_free: (0..plan.small_count as u16).collect(),
            bulk_free: (0..plan.bulk_count as u16).collect(),
            listener: Listener::Idle,
            pending: BTreeSet::new(),
            token: 0,
            buffers: plan.small_count + plan.bulk_count,
        }
    }

    pub fn carry_out(&mut self, ops: Vec<Op>) {
        for op in ops {
            self.carry_out_one(op);
        }
    }

    fn carry_out_one(&mut self, op: Op) {
        match op {
            Op::Accept { .. } => self.listener.change(&[Listener::Idle], Listener::Armed),
            Op::StopAccept { .. } => self.listener.change(&[Listener::Armed], Listener::Stopping),
            Op::CloseListener { .. } => self.listener.change(&[Listener::Idle], Listener::Closed),
            Op::Adopt { conn, socket } => {
                assert!(self.pending.remove(&socket.token()));
                self.open(conn, None);
            }
            Op::Refuse { socket } => assert!(self.pending.remove(&socket.token())),
            Op::Connect { conn, .. } => self.open(conn, Some(false)),
            Op::Receive { conn, group, credit } => {
                let socket = self.socket(conn);
                assert!(socket.receiving.is_none() && socket.connecting.is_none() && credit > 0);
                socket.receiving = Some(Receive { group, credit, cancelled: false });
            }
            Op::Send { conn, pieces } => {
                let socket = self.socket(conn);
                assert!(socket.sending.is_none() && socket.copying.is_none());
                assert!(socket.connecting.is_none() && !socket.shut_write);
                assert!(!pieces.is_empty() && pieces.iter().all(|piece| !piece.is_empty()));
                socket.sending = Some(Send { pieces, cancelled: false });
            }
            Op::Copy { conn, pieces } => {
                let socket = self.socket(conn);
                assert!(socket.sending.is_none() && socket.copying.is_none() && socket.connecting.is_none());
                assert!(pieces.iter().any(|piece| matches!(piece, Piece::Lease(_))));
                socket.copying = Some(pieces);
            }
            Op::Cancel { conn, what } => self.cancel(conn, what),
            Op::Shutdown { conn, how } => {
                let socket = self.socket(conn);
                socket.shut_read |= how != Shutdown::Write;
                socket.shut_write |= how != Shutdown::Read;
            }
            Op::Abort { .. } => {}
            Op::Close { conn } => {
                let socket = self.socket(conn);
                assert!(socket.connecting.is_none() && socket.receiving.is_none() && socket.sending.is_none());
                assert!(socket.copying.is_none());
                self.sockets[conn.index()] = None;
            }
            Op::Release { conn } => panic!("{conn:?} is given away"),
            Op::Recycle { lease } => self.recycle(lease),
        }
    }

    fn open(&mut self, conn: ConnId, connecting: Option<bool>) {
        let slot = &mut self.sockets[conn.index()];
        assert!(slot.is_none(), "{conn:?} is open already");
        *slot = Some(Socket {
            conn,
            connecting,
            receiving: None,
            sending: None,
            copying: None,
            shut_read: false,
            shut_write: false,
            ended: false,
        });
    }

    fn cancel(&mut self, conn: ConnId, what: InFlight) {
        let socket = self.socket(conn);
        match what {
            InFlight::Connect => socket.connecting = socket.connecting.map(|_| true),
            InFlight::Receive => socket.receiving.iter_mut().for_each(|receive| receive.cancelled = true),
            InFlight::Send => socket.sending.iter_mut().for_each(|send| send.cancelled = true),
        }
    }

    fn recycle(&mut self, lease: Lease) {
        let (group, buffer) = lease.end();
        assert!(self.free(group).insert(buffer), "a buffer came back twice");
    }

    fn free(&mut self, group: Group) -> &mut BTreeSet<u16> {
        match group {
            _ if group == Group::SMALL => &mut self.small_free,
            _ => &mut self.bulk_free,
        }
    }

    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        let socket = self.sockets[conn.index()].as_mut().unwrap_or_else(|| panic!("{conn:?} is closed"));
        assert_eq!(socket.conn, conn);
        socket
    }

    pub fn conn(&self, index: usize) -> ConnId {
        self.sockets[index].as_ref().expect("just received from").conn
    }

    pub fn accepted(&mut self) -> Option<Accepted> {
        if !matches!(self.listener, Listener::Armed | Listener::Stopping) {
            return None;
        }
        self.token += 1;
        self.pending.insert(self.token);
        Some(Accepted::fake(self.token))
    }

    pub fn accept_failed(&mut self) -> Option<Completion<'static>> {
        let armed = self.listener == Listener::Armed;
        armed.then(|| {
            self.listener = Listener::Idle;
            Completion::AcceptEnded { listener: 0, error: Some(Error::from_raw_os_error(24)) }
        })
    }

    pub fn accept_stopped(&mut self) -> Option<Completion<'static>> {
        let stopping = self.listener == Listener::Stopping;
        stopping.then(|| {
            self.listener = Listener::Idle;
            Completion::AcceptEnded { listener: 0, error: None }
        })
    }

    /// As much of the bytes as one receive takes; `None` if there is no receive to take any, or no buffer.
    pub fn received(&mut self, index: usize, bytes: &[u8]) -> Option<(Lease, Vec<u8>, bool)> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        let receive = socket.receiving.as_mut().filter(|_| !bytes.is_empty() && !socket.ended && !socket.shut_read)?;
        let group = receive.group;
        let (free, size) = match group {
            _ if group == Group::SMALL => (&mut self.small_free, SMALL_BYTES),
            _ => (&mut self.bulk_free, BULK_BYTES),
        };
        let buffer = free.pop_first()?;
        let len = size.min(bytes.len());
        receive.credit = receive.credit.saturating_sub(len as u32);
        let more = receive.credit > 0;
        if !more {
            socket.receiving = None;
        }
        Some((Lease::lend(group, buffer, 0..len as u32), bytes[..len].to_vec(), more))
    }

    pub fn receive_ended(&mut self, index: usize, how: u8) -> Option<Completion<'static>> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        let receive = socket.receiving.as_ref()?;
        let out_of_buffers = match receive.group {
            _ if group == Group::SMALL => self.small_free.is_empty(),
            _ => self.bulk_free.is_empty(),
        };
        let why = match how {
            _ if receive.cancelled => ReceiveEnd::Cancelled,
            _ if socket.shut_read => ReceiveEnd::Eof,
            0 | 1 if out_of_buffers && !socket.ended => ReceiveEnd::NoBuffers,
            0 | 3 => ReceiveEnd::Eof,
            1 => return None,
            _ => ReceiveEnd::Failed(ErrorKind::ConnectionReset.into()),
        };
        socket.ended |= matches!(why, ReceiveEnd::Eof | ReceiveEnd::Failed(_));
        socket.receiving = None;
        Some(Completion::ReceiveEnded { conn: socket.conn, why })
    }

    /// In whole; or in part, which only a cancelled send is; or not at all.
    pub fn sent(&mut self, index: usize, part: bool, fail: bool) -> Option<Completion<'static>> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        let send = socket.sending.take()?;
        let len: usize = send.pieces.iter().map(Piece::len).sum();
        let result = match (send.cancelled, part, fail) {
            (_, _, true) => Err(ErrorKind::BrokenPipe.into()),
            (true, true, _) => Ok(len / 2),
            (_, _, _) => Ok(len),
        };
        Some(Completion::Sent { conn: socket.conn, result, pieces: send.pieces })
    }

    pub fn copied(&mut self, index: usize) -> Option<Completion<'static>> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        let pieces = socket.copying.take()?;
        // This kernel knows no bytes that were received.
        let bytes = vec![0; pieces.iter().map(Piece::len).sum()].into();
        Some(Completion::Copied { conn: socket.conn, bytes, pieces })
    }

    pub fn connected(&mut self, index: usize, well: bool) -> Option<Completion<'static>> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        socket.connecting.take()?;
        let result = if well { Ok(()) } else { Err(ErrorKind::ConnectionRefused.into()) };
        Some(Completion::Connected { conn: socket.conn, result })
    }

    /// What the kernel cannot hold back: the ends of what was cancelled or shut down.
    pub fn overdue(&mut self) -> Option<Completion<'static>> {
        if let Some(stopped) = self.accept_stopped() {
            return Some(stopped);
        }
        (0..self.sockets.len()).find_map(|index| {
            let socket = self.sockets[index].as_ref()?;
            let shut = socket.shut_read && socket.shut_write;
            if socket.connecting == Some(true) {
                self.connected(index, false)
            } else if socket.receiving.as_ref().is_some_and(|receive| receive.cancelled || socket.shut_read) {
                self.receive_ended(index, 0)
            } else if socket.sending.as_ref().is_some_and(|send| send.cancelled || shut) {
                self.sent(index, true, shut)
            } else {
                self.copied(index)
            }
        })
    }

    pub fn assert_at_rest(&self) {
        assert!(self.sockets.iter().all(Option::is_none), "a socket was left open");
        assert!(self.pending.is_empty(), "an accepted socket was forgotten");
        assert_eq!(self.small_free.len() + self.bulk_free.len(), self.buffers, "a buffer is missing");
        assert!(self.listener == Listener::Closed);
    }
}

impl Listener {
    fn change(&mut self, from: &[Listener], to: Listener) {
        assert!(from.contains(self));
        *self = to;
    }
}
