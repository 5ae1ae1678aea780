//! A ring, sockets to put into it, and completions in an owned form that can be compared.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::config::{Config, Plan};
use crate::engine::Engine;
use crate::io::queue::Queue;
use crate::io::{Features, Ring, Waker, probe};
use crate::op::{Accepted, Completion, ConnId, Group, InFlight, Lease, Op, Piece, ReceiveEnd, Side};

/// A completion that borrows nothing.
#[derive(Debug)]
pub enum Heard {
    Accepted { socket: Accepted, peer: Option<SocketAddr>, local: Option<SocketAddr> },
    AcceptEnded(Option<i32>),
    Released { conn: ConnId, socket: Accepted },
    Connected(ConnId, Result<(), i32>),
    Data { conn: ConnId, lease: Lease, bytes: Vec<u8>, more: bool },
    Ended(ConnId, &'static str),
    Sent { conn: ConnId, result: Result<usize, i32>, pieces: Vec<Piece> },
    Copied { conn: ConnId, bytes: Box<[u8]>, pieces: Vec<Piece> },
    Woken,
}

pub struct Kit {
    pub ring: Ring,
    pub features: Features,
    pub waker: Waker,
}

pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn conn(session: u32) -> ConnId {
    ConnId::new(session, Side::Client, 7)
}

/// What tests change about the engine.
pub struct Setup {
    pub small_bytes: usize,
    pub small_count: usize,
    pub listeners: Vec<OwnedFd>,
    pub without_credit: bool,
    /// Queues of so few entries that every burst overflows them.
    pub tiny: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { small_bytes: 1024, small_count: 64, listeners: Vec::new(), without_credit: false, tiny: false }
    }
}

/// A ring for this thread, or `None` (and why) where io_uring is forbidden.
pub fn kit_with(setup: Setup) -> Option<Kit> {
    let mut features = match probe() {
        Ok(features) => features,
        Err(error) => {
            println!("SKIPPED: {error}");
            return None;
        }
    };
    features.byte_credit &= !setup.without_credit;
    let mut config = Config::default();
    config.buffers.small_bytes = setup.small_bytes;
    let plan = Plan { sessions_max: 4000, refusals_max: 4, small_count: setup.small_count, bulk_count: 4 };
    let waker = Waker::new().unwrap();
    let wake = waker.duplicate();
    let queue = if setup.tiny { Queue::sized(8, 16) } else { Queue::new() }.unwrap();
    let mut ring = Ring::on(queue, &config, &plan, features, wake).unwrap();
    for (number, listener) in setup.listeners.into_iter().enumerate() {
        ring.listen(number as u16, listener);
    }
    Some(Kit { ring, features, waker })
}

pub fn kit() -> Option<Kit> {
    kit_with(Setup::default())
}

impl Kit {
    pub fn push(&mut self, op: Op) {
        self.ring.push([op]);
    }

    /// One turn: submit, wait for at most `wait`, hand over everything.
    pub fn turn(&mut self, wait: Duration) -> Vec<Heard> {
        self.ring.submit_and_wait(Some(Instant::now() + wait)).unwrap();
        let mut heard = Vec::new();
        while let Some(completion) = self.ring.next() {
            heard.push(own(completion));
        }
        heard
    }

    /// Turns until `count` completions have come.
    pub fn hear(&mut self, count: usize) -> Vec<Heard> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while heard.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} of {count} completions came: {heard:?}", heard.len());
            heard.extend(self.turn(left));
        }
        heard
    }

    pub fn hear_one(&mut self) -> Heard {
        let mut heard = self.hear(1);
        assert_eq!(heard.len(), 1, "one completion was due: {heard:?}");
        heard.remove(0)
    }

    /// Nothing completes for a while.
    pub fn hear_nothing(&mut self) {
        let heard = self.turn(Duration::from_millis(50));
        assert!(heard.is_empty(), "nothing was due: {heard:?}");
    }

    /// A socket of the ring, and its peer.
    pub fn pair(&mut self, session: u32) -> (ConnId, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (self.adopt(session, ours), theirs)
    }

    pub fn tcp_pair(&mut self, session: u32) -> (ConnId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (self.adopt(session, listener.accept().unwrap().0), theirs)
    }

    pub fn adopt(&mut self, session: u32, socket: impl IntoRawFd) -> ConnId {
        let conn = conn(session);
        self.push(Op::Adopt { conn, socket: Accepted(socket.into_raw_fd()) });
        conn
    }

    pub fn receive(&mut self, conn: ConnId, credit: u32) {
        self.push(Op::Receive { conn, group: Group::SMALL, credit });
    }

    pub fn cancel(&mut self, conn: ConnId, what: InFlight) {
        self.push(Op::Cancel { conn, what });
    }

    pub fn recycle(&mut self, lease: Lease) {
        self.push(Op::Recycle { lease });
    }

    /// Takes in what a socket receives until the receive ends, and says with how many bytes and how.
    pub fn receive_all(&mut self) -> (Vec<u8>, &'static str) {
        let mut all = Vec::new();
        loop {
            match self.hear_some() {
                Heard::Data { lease, bytes, more, .. } => {
                    all.extend(bytes);
                    self.recycle(lease);
                    if !more {
                        return (all, "credit");
                    }
                }
                Heard::Ended(_, why) => return (all, why),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next single completion, however many are there.
    pub fn hear_some(&mut self) -> Heard {
        if let Some(completion) = self.ring.next() {
            return own(completion);
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.ring.submit_and_wait(Some(deadline)).unwrap();
            if let Some(completion) = self.ring.next() {
                return own(completion);
            }
        }
        panic!("nothing completed");
    }
}

fn own(completion: Completion<'_>) -> Heard {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap();
    match completion {
        Completion::Accepted { socket, peer, local, .. } => Heard::Accepted { socket, peer, local },
        Completion::AcceptEnded { error, .. } => Heard::AcceptEnded(error.map(errno)),
        Completion::Connected { conn, result } => Heard::Connected(conn, result.map_err(errno)),
        Completion::Received { conn, lease, bytes, wire_bytes, more } => {
            let lease = lease.expect("the ring lends what it receives");
            assert_eq!((lease.len(), wire_bytes as usize), (bytes.len(), bytes.len()));
            Heard::Data { conn, lease, bytes: bytes.to_vec(), more }
        }
        Completion::ReceiveEnded { conn, why } => {
            let why = match why {
                ReceiveEnd::Eof => "eof",
                ReceiveEnd::Cancelled => "cancelled",
                ReceiveEnd::NoBuffers => "no buffers",
                ReceiveEnd::Failed(error) if error.raw_os_error() == Some(libc::ECONNRESET) => "reset",
                ReceiveEnd::Failed(_) => "failed",
            };
            Heard::Ended(conn, why)
        }
        Completion::Copied { conn, bytes, pieces } => Heard::Copied { conn, bytes, pieces },
        Completion::Sent { conn, result, pieces } => Heard::Sent { conn, result: result.map_err(errno), pieces },
        Completion::Released { conn, socket } => Heard::Released { conn, socket },
        Completion::Woken => Heard::Woken,
    }
}

/// Writes without waiting for a reader; panics if it does not fit into the socket.
pub fn write(mut to: &UnixStream, bytes: &[u8]) {
    to.set_nonblocking(true).unwrap();
    to.write_all(bytes).unwrap();
    to.set_nonblocking(false).unwrap();
}
