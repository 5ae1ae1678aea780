//! A relay on a scripted kernel: it does what the script says when it says so, and what follows from that in `flush`.
//! Once warm it allocates nothing of its own. Shared by scripted tests, benches and the allocation test.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::config::{Address, Config, OnLoss, Plan, PoolConfig};
use ringway::metrics::Metrics;
use ringway::op::{Completion, ConnId, Group, Op, ReceiveEnd};
use ringway::relay::{Leave, Relay};
use ringway::table::state::BackendState;
use ringway::table::{Found, Table};

pub use crate::kernel::Accepting;
use crate::kernel::{Effect, Kernel, Pool, Socket};

pub struct Stage {
    pub relay: Relay,
    pub metrics: Arc<Metrics>,
    pub now: Instant,
    /// The newest.
    pub table: Arc<Table>,
    ops: Vec<Op>,
    kernel: Kernel,
    /// By [`ConnId::index`]; kept when the socket is closed.
    peers: Vec<Peer>,
    /// Sockets that `flush` has to look at.
    touched: Vec<ConnId>,
    /// Ports of the backends that were connected to, in order.
    pub dialled: Vec<u16>,
    /// Keep what is sent, for `Stage::out`.
    pub records: bool,
    /// The address of the next clients.
    pub peer: IpAddr,
    /// The last client that has got a session.
    adopted: Option<ConnId>,
}

/// Who is at the other end of a socket.
#[derive(Default)]
struct Peer {
    /// A backend's.
    port: u16,
    /// Sends get nowhere by themselves; a cancelled one has got rid of so many bytes.
    stuck: Option<usize>,
    out: Vec<u8>,
    /// When its socket was closed: it has had FIN, or RST.
    shut: bool,
    aborted: bool,
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
        let kernel = Kernel::new([
            Pool::new(Group::SMALL, config.buffers.small_bytes, plan.small_count, None),
            Pool::new(Group::BULK, config.buffers.bulk_bytes, plan.bulk_count, None),
        ]);
        let listeners: Vec<u32> = (0..config.listeners.len() as u32).collect();
        let relay = Relay::new(table.clone(), plan, metrics.clone(), 1);
        let mut stage = Stage {
            relay,
            metrics,
            now,
            table: table.clone(),
            // Once in a while all sessions use up their credit in the same batch.
            ops: Vec::with_capacity(8 * plan.sessions_max),
            kernel,
            peers: Vec::new(),
            touched: Vec::new(),
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
            self.kernel.listen(slot);
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

    /// A client connects, through the first listener that accepts.
    pub fn accept(&mut self) -> ConnId {
        let peer = Some((self.peer, 4000).into());
        let accepts = |listener: &Accepting| matches!(listener, Accepting::Armed | Accepting::Stopping);
        let listener = self.kernel.listeners.iter().position(accepts).expect("some listener accepts");
        let accepted = self.kernel.accepted(listener as u16, 0, peer);
        self.relay.handle(accepted, self.now, &mut self.ops);
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
            if !self.receives(conn) {
                self.end_batch();
            }
            let (lease, credit) = self.kernel.receive(conn, bytes);
            bytes = &bytes[lease.len()..];
            let received = self.kernel.received(conn, lease, credit > 0);
            self.relay.handle(received, self.now, &mut self.ops);
        }
    }

    /// Bytes come that lie in no buffer; their memory is used again at once. So many came on the wire for them.
    pub fn give_unlent(&mut self, conn: ConnId, bytes: &[u8], wire_bytes: u32) {
        let mut memory = bytes.to_vec();
        let received = self.kernel.received_unlent(conn, &mut memory, wire_bytes);
        self.relay.handle(received, self.now, &mut self.ops);
        memory.fill(0xDD);
        self.end_batch();
        self.flush();
    }

    /// The group that the armed receive takes its buffers from.
    pub fn group(&self, conn: ConnId) -> Option<Group> {
        self.kernel.get(conn)?.receive.map(|receive| receive.group)
    }

    pub fn connected(&mut self, conn: ConnId, result: Result<(), i32>) {
        let connected = self.kernel.connected(conn, result);
        self.handle(connected);
        self.end_batch();
        self.flush();
    }

    /// FIN, RST, or no buffer.
    pub fn end_receive(&mut self, conn: ConnId, why: ReceiveEnd) {
        let ended = self.kernel.receive_ended(conn, why);
        self.handle(ended);
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
        let ended = self.kernel.accept_ended(0, Some(error));
        self.handle(ended);
        self.end_batch();
    }

    /// From now on sends to this peer get nowhere by themselves, and a cancelled one has got rid of so many bytes.
    pub fn stick(&mut self, conn: ConnId, stuck: Option<usize>) {
        self.peers[conn.index()].stuck = stuck;
        self.touched.push(conn);
    }

    /// Ends the send in flight after so many bytes.
    pub fn end_send(&mut self, conn: ConnId, most: usize) {
        let send = self.kernel.socket(conn).send.as_ref().unwrap_or_else(|| panic!("{conn:?} does not send"));
        let sent = send.total.min(most);
        if self.records {
            self.record(conn, sent);
        }
        let sent = self.kernel.sent(conn, if sent > 0 { Ok(sent) } else { Err(libc::ECANCELED) });
        self.handle(sent);
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
        std::mem::take(&mut self.peers[conn.index()].out)
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        self.kernel.get(conn).is_some()
    }

    pub fn receives(&self, conn: ConnId) -> bool {
        self.kernel.get(conn).is_some_and(|socket| socket.receive.is_some())
    }

    /// Of a backend's socket that is or was open: where it was connected to.
    pub fn port(&self, conn: ConnId) -> u16 {
        self.peers[conn.index()].port
    }

    pub fn sends(&self, conn: ConnId) -> usize {
        self.kernel.get(conn).and_then(|socket| socket.send.as_ref()).map_or(0, |send| send.total)
    }

    pub fn has_fin(&self, conn: ConnId) -> bool {
        self.kernel.get(conn).map_or(self.peers[conn.index()].shut, Socket::is_shut)
    }

    /// Its connection ends in a reset: of one that is or was open.
    pub fn is_aborted(&self, conn: ConnId) -> bool {
        self.kernel.get(conn).map_or(self.peers[conn.index()].aborted, |socket| socket.aborted)
    }

    pub fn accepting(&self) -> Accepting {
        self.kernel.listeners[0]
    }

    /// By slot.
    pub fn listeners(&self) -> &[Accepting] {
        &self.kernel.listeners
    }

    pub fn end_batch(&mut self) {
        self.relay.handle_timeout(self.now, &mut self.ops);
        self.operate();
    }

    /// Completes what nothing holds up, until nothing is left of that.
    pub fn flush(&mut self) {
        while !self.touched.is_empty() || self.kernel.listeners.contains(&Accepting::Stopping) {
            while let Some(conn) = self.touched.pop() {
                self.complete(conn);
            }
            for listener in 0..self.kernel.listeners.len() {
                if self.kernel.listeners[listener] == Accepting::Stopping {
                    let ended = self.kernel.accept_ended(listener as u16, None);
                    self.handle(ended);
                }
            }
            self.end_batch();
        }
    }

    fn complete(&mut self, conn: ConnId) {
        let Some(socket) = self.kernel.get(conn) else { return };
        let stuck = self.peers[conn.index()].stuck;
        let ended = socket.shut_read && socket.shut_write;
        let connect_cancelled = socket.connect.as_ref().is_some_and(|connect| connect.cancelled);
        let receive_ended = socket.receive.as_ref().is_some_and(|receive| receive.cancelled || ended);
        let copies = socket.send.as_ref().is_some_and(|send| send.copies);
        let sends = socket.send.as_ref().is_some_and(|send| stuck.is_none() || ended || send.cancelled);
        if connect_cancelled {
            let connected = self.kernel.connected(conn, Err(libc::ECANCELED));
            self.handle(connected);
        }
        if receive_ended {
            let why = if ended { ReceiveEnd::Eof } else { ReceiveEnd::Cancelled };
            let ended = self.kernel.receive_ended(conn, why);
            self.handle(ended);
        }
        if copies {
            let copied = self.kernel.copied(conn);
            self.handle(copied);
        } else if sends {
            self.end_send(conn, if ended { 0 } else { stuck.unwrap_or(usize::MAX) });
        }
    }

    fn handle(&mut self, completion: Completion<'_>) {
        self.relay.handle(completion, self.now, &mut self.ops);
    }

    fn operate(&mut self) {
        let mut ops = std::mem::take(&mut self.ops);
        for op in ops.drain(..) {
            match self.kernel.perform(op) {
                Effect::Moved(conn) => self.touched.push(conn),
                Effect::Opened(conn) => self.opened(conn),
                Effect::Closed(socket) => {
                    let peer = &mut self.peers[socket.conn.index()];
                    (peer.shut, peer.aborted) = (socket.is_shut(), socket.aborted);
                }
                Effect::Released(conn) => panic!("{conn:?} is given away, which nothing asks for"),
                Effect::None | Effect::Refused(_) | Effect::ListenerClosed(_) | Effect::Recycled(..) => {}
            }
        }
        self.ops = ops;
    }

    fn opened(&mut self, conn: ConnId) {
        let socket = self.kernel.socket(conn);
        let mut peer = Peer::default();
        match &socket.connect {
            Some(connect) => {
                peer.port = connect.address.expect("backends have ports here").port();
                self.dialled.push(peer.port);
            }
            None => self.adopted = Some(conn),
        }
        self.peers.resize_with(self.kernel.sockets.len(), Peer::default);
        self.peers[conn.index()] = peer;
        self.touched.push(conn);
    }

    fn record(&mut self, conn: ConnId, mut left: usize) {
        let send = self.kernel.get(conn).and_then(|socket| socket.send.as_ref());
        let out = &mut self.peers[conn.index()].out;
        for piece in &send.expect("asked only if there is one").pieces {
            let bytes = self.kernel.bytes(piece);
            let sent = left.min(bytes.len());
            out.extend_from_slice(&bytes[..sent]);
            left -= sent;
        }
    }
}
