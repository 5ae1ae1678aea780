//! A relay on a scripted kernel: it does what the script says when it says so, and what follows from that in `flush`.
//! Once warm it allocates nothing of its own. Shared by scripted tests, benches and the allocation test.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::config::{Address, Config, OnLoss, Plan, PoolConfig};
use ringway::metrics::Metrics;
use ringway::op::{Accepted, Completion, ConnId, Group, InFlight, Lease, Op, Piece, ReceiveEnd};
use ringway::relay::{Leave, Relay};
use ringway::table::state::BackendState;
use ringway::table::{Found, Table};

pub struct Stage {
    pub relay: Relay,
    pub metrics: Arc<Metrics>,
    pub now: Instant,
    /// The newest.
    pub table: Arc<Table>,
    ops: Vec<Op>,
    /// By [`ConnId::index`].
    sockets: Vec<Socket>,
    /// Sockets that `flush` has to look at.
    touched: Vec<ConnId>,
    pools: [Buffers; 2],
    /// Per listener.
    accepting: Vec<Accepting>,
    /// What is to be copied out of its buffers.
    copies: Vec<(ConnId, Vec<Piece>)>,
    /// Ports of the backends that were connected to, in order.
    pub dialled: Vec<u16>,
    /// Keep what is sent, for `Stage::out`.
    pub records: bool,
    /// The address of the next clients.
    pub peer: IpAddr,
    /// The last client that has got a session.
    adopted: Option<ConnId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    Idle,
    Armed,
    Stopping,
    Closed,
}

#[derive(Default)]
struct Socket {
    conn: Option<ConnId>,
    connecting: bool,
    receive: Option<(Group, usize)>,
    send: Option<Vec<Piece>>,
    cancelled: Cancelled,
    shut: Option<Shutdown>,
    /// Its close is a reset.
    aborted: bool,
    /// A backend's.
    port: u16,
    /// Sends get nowhere by themselves; a cancelled one has got rid of so many bytes.
    stuck: Option<usize>,
    out: Vec<u8>,
}

#[derive(Default)]
struct Cancelled {
    connect: bool,
    receive: bool,
    send: bool,
}

struct Buffers {
    size: usize,
    memory: Vec<u8>,
    free: Vec<u16>,
}

/// RFC 6455, 1.3.
pub const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The defaults, one listener, and so many backends, on ports 1, 2, 3.
pub fn config(backends: u16) -> Config {
    let address = |port| Address::Inet(([127, 0, 0, 1], port).into());
    let backends = (1..=backends).map(|port| address(port).into()).collect();
    Config {
        listeners: vec![address(8080).into()],
        pools: vec![PoolConfig { backends, ..PoolConfig::named("chat") }],
        default_pool: Some(0),
        ..Config::default()
    }
}

impl Stage {
    pub fn new(config: Config, sessions_max: usize) -> Stage {
        let plan =
            Plan { sessions_max, refusals_max: 1, small_count: (20 * sessions_max).clamp(256, 32_768), bulk_count: 64 };
        Stage::with_plan(config, plan)
    }

    pub fn with_plan(config: Config, plan: Plan) -> Stage {
        let now = Instant::now();
        Stage::with_table(Table::first(Arc::new(config), now), plan, now)
    }

    /// Another worker, with the same table.
    pub fn beside(&self, sessions_max: usize) -> Stage {
        let plan = Plan { sessions_max, refusals_max: 1, small_count: 256, bulk_count: 64 };
        Stage::with_table(self.table.clone(), plan, self.now)
    }

    fn with_table(table: Arc<Table>, plan: Plan, now: Instant) -> Stage {
        let config = &table.config;
        let metrics = Arc::new(Metrics::default());
        let pools = [
            Buffers::new(config.buffers.small_bytes, plan.small_count),
            Buffers::new(config.buffers.bulk_bytes, plan.bulk_count),
        ];
        let listeners: Vec<u32> = (0..config.listeners.len() as u32).collect();
        let relay = Relay::new(table.clone(), plan, metrics.clone(), 1);
        let mut stage = Stage {
            relay,
            metrics,
            now,
            table: table.clone(),
            // Once in a while all sessions use up their credit in the same batch.
            ops: Vec::with_capacity(8 * plan.sessions_max),
            sockets: Vec::new(),
            touched: Vec::new(),
            pools,
            accepting: Vec::new(),
            copies: Vec::new(),
            dialled: Vec::new(),
            records: true,
            peer: IpAddr::from([192, 0, 2, 1]),
            adopted: None,
        };
        stage.adopt(table, &listeners);
        stage
    }

    /// What the control plane does with another config, in a batch of its own or, after `put`, at the end of one.
    pub fn reload(&mut self, config: Config) {
        let listeners: Vec<u32> = (0..config.listeners.len() as u32).collect();
        self.reload_with(config, &listeners);
    }

    /// The same with these ids for the config's listeners.
    pub fn reload_with(&mut self, config: Config, listeners: &[u32]) {
        self.operate();
        let table = self.table.next(Arc::new(config), &Found::new(), self.now);
        self.adopt(table, listeners);
        self.end_batch();
        self.flush();
    }

    pub fn adopt(&mut self, table: Arc<Table>, listeners: &[u32]) {
        for (_, slot) in self.relay.adopt(table.clone(), listeners, self.now, &mut self.ops) {
            let slot = usize::from(slot);
            self.accepting.resize(self.accepting.len().max(slot + 1), Accepting::Closed);
            assert_eq!(self.accepting[slot], Accepting::Closed, "a slot is used again before its listener is closed");
            self.accepting[slot] = Accepting::Idle;
        }
        self.table = table;
        self.operate();
    }

    /// The sessions of a backend are to leave it.
    pub fn move_away(&mut self, backend: &Arc<BackendState>, on_loss: OnLoss, spread: Duration) {
        let leave = Leave { backend: backend.clone(), on_loss, spread };
        self.relay.move_away(&leave, self.now, &mut self.ops);
        self.end_batch();
        self.flush();
    }

    /// A batch after a stop, of which there may be more before deadlines count.
    pub fn catch_up(&mut self) {
        self.relay.flush(self.now, &mut self.ops);
        self.operate();
    }

    /// What the control plane does about once a second.
    pub fn wake(&mut self) {
        self.handle(Completion::Woken);
        self.end_batch();
        self.flush();
    }

    /// A client connects.
    pub fn accept(&mut self) -> ConnId {
        let peer = Some((self.peer, 4000).into());
        self.handle(Completion::Accepted { listener: 0, socket: Accepted::fake(0), peer, local: None });
        self.end_batch();
        self.adopted.take().expect("an accepted client has a session")
    }

    /// A client connects and sends a good request; its backend is being connected to.
    pub fn request(&mut self) -> (ConnId, ConnId) {
        self.ask(REQUEST)
    }

    /// A client connects and sends this.
    pub fn ask(&mut self, request: &[u8]) -> (ConnId, ConnId) {
        let client = self.accept();
        self.give(client, request);
        (client, client.peer())
    }

    /// A session after its 101.
    pub fn open(&mut self) -> (ConnId, ConnId) {
        let (client, backend) = self.request();
        self.connected(backend, Ok(()));
        self.give(backend, ANSWER);
        assert_eq!(self.out(client), ANSWER);
        assert!(self.out(backend).starts_with(b"GET /chat HTTP/1.1\r\n"));
        (client, backend)
    }

    /// Bytes come from this peer, and everything that follows happens.
    pub fn give(&mut self, conn: ConnId, bytes: &[u8]) {
        self.put(conn, bytes);
        self.end_batch();
        self.flush();
    }

    /// Bytes come from this peer, in as many buffers as they need. The batch goes on, unless the credit does not suffice.
    pub fn put(&mut self, conn: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.socket(conn).receive.is_none() {
                self.end_batch();
            }
            let socket = self.socket(conn);
            let (group, credit) = socket.receive.unwrap_or_else(|| panic!("{conn:?} does not receive"));
            let buffers = &mut self.pools[group.index()];
            let now = bytes.len().min(buffers.size);
            let mut lease = buffers.lend(group, &bytes[..now]);
            let left = credit.saturating_sub(now);
            self.socket(conn).receive = (left > 0).then_some((group, left));
            let memory = self.pools[group.index()].bytes_mut(&mut lease);
            let wire_bytes = memory.len() as u32;
            let lease = Some(lease);
            let completion = Completion::Received { conn, lease, bytes: memory, wire_bytes, more: left > 0 };
            self.relay.handle(completion, self.now, &mut self.ops);
            bytes = &bytes[now..];
        }
    }

    pub fn connected(&mut self, conn: ConnId, result: Result<(), i32>) {
        self.socket(conn).connecting = false;
        let result = result.map_err(io::Error::from_raw_os_error);
        self.handle(Completion::Connected { conn, result });
        self.end_batch();
        self.flush();
    }

    /// FIN, RST, or no buffer.
    pub fn end_receive(&mut self, conn: ConnId, why: ReceiveEnd) {
        assert!(self.socket(conn).receive.take().is_some(), "{conn:?} does not receive");
        self.handle(Completion::ReceiveEnded { conn, why });
        self.end_batch();
        self.flush();
    }

    pub fn eof(&mut self, conn: ConnId) {
        self.end_receive(conn, ReceiveEnd::Eof);
    }

    pub fn reset(&mut self, conn: ConnId) {
        self.end_receive(conn, ReceiveEnd::Failed(io::Error::from_raw_os_error(libc::ECONNRESET)));
    }

    pub fn accept_ended(&mut self, error: i32) {
        self.accepting[0] = Accepting::Idle;
        let error = Some(io::Error::from_raw_os_error(error));
        self.handle(Completion::AcceptEnded { listener: 0, error });
        self.end_batch();
    }

    /// From now on sends to this peer get nowhere by themselves, and a cancelled one has got rid of so many bytes.
    pub fn stick(&mut self, conn: ConnId, stuck: Option<usize>) {
        self.socket(conn).stuck = stuck;
        self.touched.push(conn);
    }

    /// Ends the send in flight after so many bytes.
    pub fn end_send(&mut self, conn: ConnId, most: usize) {
        let pieces = self.socket(conn).send.take().unwrap_or_else(|| panic!("{conn:?} does not send"));
        self.socket(conn).cancelled.send = false;
        let total: usize = pieces.iter().map(Piece::len).sum();
        let sent = total.min(most);
        if self.records {
            self.record(conn, &pieces, sent);
        }
        let result = if sent > 0 { Ok(sent) } else { Err(io::Error::from_raw_os_error(libc::ECANCELED)) };
        self.handle(Completion::Sent { conn, result, pieces });
    }

    pub fn drain(&mut self) {
        self.relay.drain(self.now, &mut self.ops);
        self.end_batch();
        self.flush();
    }

    pub fn stop(&mut self) {
        self.relay.stop(self.now, &mut self.ops);
        self.end_batch();
        self.flush();
    }

    /// Time goes by, from deadline to deadline.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.relay.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.end_batch();
            self.flush();
        }
        self.now = end;
        self.end_batch();
        self.flush();
    }

    /// What this peer has been sent since the last time.
    pub fn out(&mut self, conn: ConnId) -> Vec<u8> {
        std::mem::take(&mut self.socket(conn).out)
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        self.sockets.get(conn.index()).is_some_and(|socket| socket.conn == Some(conn))
    }

    pub fn receives(&self, conn: ConnId) -> bool {
        self.sockets[conn.index()].receive.is_some()
    }

    /// Of a backend's socket that is or was open: where it was connected to.
    pub fn port(&self, conn: ConnId) -> u16 {
        self.sockets[conn.index()].port
    }

    pub fn sends(&self, conn: ConnId) -> usize {
        self.sockets[conn.index()].send.iter().flatten().map(Piece::len).sum()
    }

    pub fn has_fin(&self, conn: ConnId) -> bool {
        self.sockets[conn.index()].shut.is_some()
    }

    /// Its connection ends in a reset: of one that is or was open.
    pub fn is_aborted(&self, conn: ConnId) -> bool {
        self.sockets[conn.index()].aborted
    }

    pub fn accepting(&self) -> Accepting {
        self.accepting[0]
    }

    /// By slot.
    pub fn listeners(&self) -> &[Accepting] {
        &self.accepting
    }

    pub fn end_batch(&mut self) {
        self.relay.handle_timeout(self.now, &mut self.ops);
        self.operate();
    }

    /// Completes what nothing holds up, until nothing is left of that.
    pub fn flush(&mut self) {
        while !self.touched.is_empty() || !self.copies.is_empty() || self.accepting.contains(&Accepting::Stopping) {
            for (conn, pieces) in std::mem::take(&mut self.copies) {
                let bytes = pieces.iter().flat_map(|piece| self.bytes(piece)).copied().collect();
                self.handle(Completion::Copied { conn, bytes, pieces });
            }
            while let Some(conn) = self.touched.pop() {
                if self.is_open(conn) {
                    self.complete(conn);
                }
            }
            for listener in 0..self.accepting.len() {
                if self.accepting[listener] == Accepting::Stopping {
                    self.accepting[listener] = Accepting::Idle;
                    self.handle(Completion::AcceptEnded { listener: listener as u16, error: None });
                }
            }
            self.end_batch();
        }
    }

    fn complete(&mut self, conn: ConnId) {
        let socket = self.socket(conn);
        let ended = socket.shut == Some(Shutdown::Both);
        let sends = socket.send.is_some() && (socket.stuck.is_none() || ended || socket.cancelled.send);
        let most = if ended { 0 } else { socket.stuck.unwrap_or(usize::MAX) };
        let (receives, cancelled) = (socket.receive.is_some(), std::mem::take(&mut socket.cancelled.receive));
        let connect_cancelled = std::mem::take(&mut socket.cancelled.connect) && socket.connecting;
        if connect_cancelled {
            self.socket(conn).connecting = false;
            let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
            self.handle(Completion::Connected { conn, result });
        }
        if receives && (cancelled || ended) {
            self.socket(conn).receive = None;
            let why = if ended { ReceiveEnd::Eof } else { ReceiveEnd::Cancelled };
            self.handle(Completion::ReceiveEnded { conn, why });
        }
        if sends {
            self.end_send(conn, most);
        }
    }

    fn handle(&mut self, completion: Completion<'_>) {
        self.relay.handle(completion, self.now, &mut self.ops);
    }

    fn operate(&mut self) {
        let mut ops = std::mem::take(&mut self.ops);
        for op in ops.drain(..) {
            self.carry_out(op);
        }
        self.ops = ops;
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Receive { conn, group, credit } => {
                let before = self.socket(conn).receive.replace((group, credit as usize));
                assert!(before.is_none(), "{conn:?} has two receives in flight");
            }
            Op::Send { conn, pieces } => {
                let before = self.socket(conn).send.replace(pieces);
                assert!(before.is_none(), "{conn:?} has two sends in flight");
                self.touched.push(conn);
            }
            Op::Copy { conn, pieces } => {
                assert!(self.socket(conn).send.is_none(), "{conn:?} copies while it sends");
                self.copies.push((conn, pieces));
            }
            Op::Release { conn } => panic!("{conn:?} is given away"),
            Op::Recycle { lease } => {
                let (group, buffer) = lease.end();
                self.pools[group.index()].free.push(buffer);
            }
            Op::Cancel { conn, what } => {
                let cancelled = &mut self.socket(conn).cancelled;
                match what {
                    InFlight::Connect => cancelled.connect = true,
                    InFlight::Receive => cancelled.receive = true,
                    InFlight::Send => cancelled.send = true,
                }
                self.touched.push(conn);
            }
            Op::Shutdown { conn, how } => {
                let socket = self.socket(conn);
                assert!(how != Shutdown::Write || socket.send.is_none(), "{conn:?} is shut down before its send");
                socket.shut = Some(how);
                self.touched.push(conn);
            }
            Op::Abort { conn } => self.socket(conn).aborted = true,
            Op::Adopt { conn, .. } => {
                self.open_socket(conn, false);
                self.adopted = Some(conn);
            }
            Op::Refuse { .. } => {}
            Op::Connect { conn, address } => {
                let port = address.as_socket().expect("backends have ports here").port();
                self.dialled.push(port);
                self.open_socket(conn, true);
                self.socket(conn).port = port;
            }
            Op::Close { conn } => {
                let socket = self.socket(conn);
                let busy = socket.connecting || socket.receive.is_some() || socket.send.is_some();
                assert!(!busy, "{conn:?} is closed with something in flight");
                socket.conn = None;
            }
            Op::Accept { listener } => self.accepting[usize::from(listener)] = Accepting::Armed,
            Op::StopAccept { listener } => self.accepting[usize::from(listener)] = Accepting::Stopping,
            Op::CloseListener { listener } => self.accepting[usize::from(listener)] = Accepting::Closed,
        }
    }

    fn open_socket(&mut self, conn: ConnId, connecting: bool) {
        while self.sockets.len() <= conn.index() {
            self.sockets.push(Socket::default());
        }
        let socket = &mut self.sockets[conn.index()];
        assert!(socket.conn.is_none(), "{conn:?} is open already");
        *socket = Socket { conn: Some(conn), connecting, ..Socket::default() };
        self.touched.push(conn);
    }

    /// Also one that has been closed since, for what it was sent.
    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        &mut self.sockets[conn.index()]
    }

    fn record(&mut self, conn: ConnId, pieces: &[Piece], mut left: usize) {
        let mut out = std::mem::take(&mut self.sockets[conn.index()].out);
        for piece in pieces {
            let bytes = self.bytes(piece);
            let sent = left.min(bytes.len());
            out.extend_from_slice(&bytes[..sent]);
            left -= sent;
        }
        self.sockets[conn.index()].out = out;
    }

    fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        piece.bytes(|lease| self.pools[lease.group().index()].bytes(lease))
    }
}

impl Buffers {
    fn new(size: usize, count: usize) -> Self {
        Buffers { size, memory: vec![0; size * count], free: (0..count as u16).collect() }
    }

    fn lend(&mut self, group: Group, bytes: &[u8]) -> Lease {
        let buffer = self.free.pop().expect("a script uses no more buffers than there are");
        let start = usize::from(buffer) * self.size;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        Lease::lend(group, buffer, 0..bytes.len() as u32)
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        let start = usize::from(lease.buffer()) * self.size;
        &self.memory[start..start + self.size][lease.range()]
    }

    fn bytes_mut(&mut self, lease: &mut Lease) -> &mut [u8] {
        let start = usize::from(lease.buffer()) * self.size;
        &mut self.memory[start..start + self.size][lease.range()]
    }
}
