//! [`Ring`]: operations in, completions out.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{cqueue, opcode, squeue};
use socket2::SockAddr;

use super::buffers::{BufferPool, Layout, Pools};
use super::entry::{self, Kind, Tag};
use super::probe::{Features, SetupError};
use super::queue::Queue;
use super::sends::Sends;
use super::socket;
use crate::config::{Config, Plan, Tcp};
use crate::engine::Engine;
use crate::op::{Accepted, Completion, ConnId, Group, InFlight, Lease, Op, Piece, ReceiveEnd};

/// One worker's engine: its ring, sockets and buffers. It never leaves the thread that made it.
pub struct Ring {
    queue: Queue,
    /// These three hold memory that the kernel has pointers to. They are dropped by `Ring::drop`, once nothing is in flight.
    pools: ManuallyDrop<Pools>,
    sends: ManuallyDrop<Sends>,
    wake: ManuallyDrop<Wake>,
    sockets: Vec<Socket>,
    listeners: Vec<ListenerSlot>,
    /// Connects to unix sockets whose backlog is full. The ring would give each of them a thread of the kernel's to wait on.
    waiting: VecDeque<(ConnId, Arc<SockAddr>)>,
    /// Completions that the engine itself has to give, before those in the queue.
    ready: VecDeque<Completion<'static>>,
    /// Completions of this batch not yet handed over.
    batch: usize,
    /// Why the ring can no longer be used.
    broken: Option<io::Error>,
    tcp: Tcp,
    features: Features,
}

/// What the engine knows of a socket, found by [`ConnId::index`].
#[derive(Clone, Copy)]
struct Socket {
    /// -1: none.
    fd: i32,
    /// The slot in `Sends`, while `in_flight` has `SEND`.
    send: u32,
    generation: u16,
    in_flight: u8,
    /// Of the last receive.
    group: Group,
}

const CONNECT: u8 = 1;
const SEND: u8 = 2;
const RECEIVE: u8 = 4;

const NO_SOCKET: Socket = Socket { fd: -1, send: 0, generation: 0, in_flight: 0, group: Group::SMALL };

struct ListenerSlot {
    fd: Option<OwnedFd>,
    /// True exactly when an accept is in flight.
    armed: bool,
    /// StopAccept was asked; the next end of the accept is final.
    stopping: bool,
}

/// The eventfd by which another thread wakes this one, and what is read from it.
struct Wake {
    fd: OwnedFd,
    armed: bool,
    /// Boxed: the kernel writes here, wherever the ring moves.
    count: Box<u64>,
}

/// How often connects to unix sockets whose backlog is full are tried again, and how many of them at a time.
const WAITING_RETRY: Duration = Duration::from_millis(5);
const WAITING_TRIES_MAX: usize = 32;

impl Ring {
    /// Sets up the engine of this thread. Whoever adds to `wake` (an eventfd) makes [`Completion::Woken`].
    pub fn new(config: &Config, plan: &Plan, features: Features, wake: OwnedFd) -> Result<Self, SetupError> {
        Self::on(Queue::new().map_err(SetupError::ring)?, config, plan, features, wake)
    }

    pub(super) fn on(
        queue: Queue,
        config: &Config,
        plan: &Plan,
        features: Features,
        wake: OwnedFd,
    ) -> Result<Self, SetupError> {
        let buffers = &config.buffers;
        let pools = [
            BufferPool::new(Group::SMALL, Layout::small(buffers.small_bytes, plan.small_count))
                .map_err(SetupError::memory)?,
            BufferPool::new(Group::BULK, Layout::bulk(buffers.bulk_bytes, plan.bulk_count))
                .map_err(SetupError::memory)?,
        ];
        for pool in &pools {
            // SAFETY: the pool moves into the ring (its mappings stay where they are), whose Drop lets go of it only when
            // nothing is in flight. If this function fails below, nothing has been submitted yet.
            unsafe { pool.register(&queue.submitter()) }.map_err(SetupError::buffers)?;
        }
        Ok(Ring {
            queue,
            pools: ManuallyDrop::new(pools),
            sends: ManuallyDrop::new(Sends::new()),
            wake: ManuallyDrop::new(Wake { fd: wake, armed: false, count: Box::new(0) }),
            // Reserved, not filled: what is never used is never touched, and what is used never moves.
            sockets: Vec::with_capacity(2 * (plan.sessions_max + plan.refusals_max)),
            listeners: Vec::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::with_capacity(64),
            batch: 0,
            broken: None,
            tcp: config.tcp.clone(),
            features,
        })
    }
}

impl Engine for Ring {
    fn leases(&self) -> usize {
        self.pools.iter().map(BufferPool::lent).sum()
    }

    fn borrow(&mut self, group: Group) -> Option<Lease> {
        self.pools[group.index()].borrow()
    }

    fn bytes_mut(&mut self, lease: &mut Lease) -> &mut [u8] {
        self.pools[lease.group().index()].bytes_mut(lease)
    }

    fn listen(&mut self, number: u16, fd: OwnedFd) {
        let number = usize::from(number);
        while self.listeners.len() <= number {
            self.listeners.push(ListenerSlot { fd: None, armed: false, stopping: false });
        }
        debug_assert!(self.listeners[number].fd.is_none(), "listener {number} is still open");
        self.listeners[number] = ListenerSlot { fd: Some(fd), armed: false, stopping: false };
    }

    fn push(&mut self, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            match op {
                Op::Receive { conn, group, credit } => self.receive(conn, group, credit),
                Op::Send { conn, pieces } => self.send(conn, pieces),
                Op::Recycle { lease } => self.recycle(lease),
                Op::Copy { conn, pieces } => self.copy(conn, pieces),
                Op::Connect { conn, address } => self.connect(conn, address),
                Op::Cancel { conn, what } => self.cancel(conn, what),
                Op::Shutdown { conn, how } => self.shutdown(conn, how),
                Op::Abort { conn } => self.abort(conn),
                Op::Close { conn } => self.close(conn),
                Op::Release { conn } => self.release(conn),
                Op::Adopt { conn, socket } => self.adopt(conn, socket.0),
                Op::Refuse { socket } => socket::close(socket.0),
                Op::Accept { listener } => self.accept(listener),
                Op::StopAccept { listener } => self.stop_accept(listener),
                Op::CloseListener { listener } => self.close_listener(listener),
            }
        }
    }

    /// One system call, but for connects to unix sockets whose backlog is full, which are tried again behind it. `push` makes none for what is sent and
    /// received, unless the submission queue is full; what it makes for other operations is in `operate`.
    fn submit_and_wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.arm_wake();
        self.offer_buffers();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = match self.waiting.is_empty() {
            true => timeout,
            false => Some(timeout.map_or(WAITING_RETRY, |timeout| timeout.min(WAITING_RETRY))),
        };
        let idle = self.ready.is_empty() && !timeout.is_some_and(|timeout| timeout.is_zero());
        let (want, timeout) = if idle { (1, timeout) } else { (0, None) };
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.queue.submit_and_wait(want, timeout)?;
        self.note_submitted();
        self.retry_waiting();
        self.batch = self.queue.completed();
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<'_>> {
        if let Some(completion) = self.ready.pop_front() {
            return Some(completion);
        }
        while self.batch > 0 {
            self.batch -= 1;
            let cqe = self.queue.pop()?;
            match self.complete(&cqe) {
                Some(Answer::Plain(completion)) => return Some(completion),
                Some(Answer::Data { conn, mut lease, more }) => {
                    let bytes = self.pools[lease.group().index()].bytes_mut(&mut lease);
                    let wire_bytes = bytes.len() as u32;
                    return Some(Completion::Received { conn, lease: Some(lease), bytes, wire_bytes, more });
                }
                None => {}
            }
        }
        None
    }
}

/// A completion, before the bytes are lent out with it.
enum Answer {
    Plain(Completion<'static>),
    Data { conn: ConnId, lease: Lease, more: bool },
}

mod complete;
mod operate;
mod quiesce;

impl Drop for Ring {
    /// Ends everything in flight before the memory it uses goes, then closes what is still open.
    fn drop(&mut self) {
        match self.quiesce() {
            // SAFETY: nothing is in flight, so the kernel has no pointer into any of them, and none is used after this:
            // they are dropped here only, and `drop` runs once.
            Ok(()) => unsafe {
                ManuallyDrop::drop(&mut self.pools);
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.wake);
            },
            // The kernel could not even be entered. Leaking is sound, and this worker is at its end.
            Err(error) => tracing::error!(%error, "the ring's operations could not be ended; its memory is leaked"),
        }
        for socket in self.sockets.iter().filter(|socket| socket.fd >= 0) {
            socket::close(socket.fd);
        }
    }
}
