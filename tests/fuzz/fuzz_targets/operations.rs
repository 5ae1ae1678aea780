//! Sessions on a kernel whose answers are read from the input: what completes when, how much of it, and with which error.
//! The kernel checks what it is asked; at the end everything must have been given back.
#![no_main]

#[allow(dead_code)] // the simulation uses the rest
#[path = "../../kernel/mod.rs"]
mod kernel;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringway::config::{Address, Config, Plan, PoolConfig};
use ringway::metrics::Metrics;
use ringway::op::{Completion, ConnId, Group, Op, ReceiveEnd, Side};
use ringway::relay::Relay;
use ringway::table::Table;

use kernel::{Accepting, Kernel, Pool};

const PLAN: Plan = Plan { sessions_max: 3, refusals_max: 1, small_count: 6, bulk_count: 2 };
/// Linux, on every architecture that Ringway runs on.
const EMFILE: i32 = 24;
const EPIPE: i32 = 32;
const ECONNREFUSED: i32 = 111;
const SMALL_BYTES: usize = 128;
const BULK_BYTES: usize = 1024;

fn config() -> Config {
    let mut config = Config::default();
    let backend = |port| Address::Inet(([127, 0, 0, 1], port).into());
    config.listeners = vec![backend(1).into()];
    config.pools = vec![PoolConfig { backends: vec![backend(2).into(), backend(3).into()], ..PoolConfig::named("p") }];
    config.default_pool = Some(0);
    config.limits.window_bytes = 1024;
    config.limits.message_bytes_max = Some(4096);
    config.limits.response_body_bytes_max = 256;
    config.timeouts.idle = Some(Duration::from_secs(60));
    config.buffers.small_bytes = SMALL_BYTES;
    config.buffers.bulk_bytes = BULK_BYTES;
    config
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut input = input.iter().copied();
    while let Some(step) = input.next() {
        world.step(step, &mut input);
    }
    world.finish();
});

struct World {
    relay: Relay,
    kernel: Kernel,
    now: Instant,
    /// Of accepted sockets, each another.
    token: i32,
    /// The peer has sent FIN or RST: nothing more comes. By socket.
    ended: Vec<Option<ConnId>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let table = Table::first(Arc::new(config()), now);
        let mut relay = Relay::new(table.clone(), PLAN, Arc::new(Metrics::default()), 1);
        let mut kernel = Kernel::new([
            Pool::new(Group::SMALL, SMALL_BYTES, PLAN.small_count, None),
            Pool::new(Group::BULK, BULK_BYTES, PLAN.bulk_count, None),
        ]);
        let mut ops = Vec::new();
        for (_, slot) in relay.adopt(table, &[1], now, &mut ops) {
            kernel.listen(slot);
        }
        let ended = vec![None; 2 * (PLAN.sessions_max + PLAN.refusals_max)];
        let mut world = World { relay, kernel, now, token: 0, ended };
        world.carry_out(ops);
        world
    }

    /// One thing that happens: three bits say what, the others to which session and side, further bytes how.
    fn step(&mut self, step: u8, input: &mut impl Iterator<Item = u8>) {
        let session = usize::from(step >> 3 & 3);
        let side = if step & 0x20 == 0 { Side::Client } else { Side::Backend };
        let socket = session * 2 + side as usize;
        match step & 7 {
            0 => self.accept(),
            1 => self.receive(socket, side, input),
            2 => self.end_send(socket, step & 0x40 != 0, step & 0x80 != 0),
            3 => self.end_receive(socket, step >> 6),
            4 => self.end_connect(session * 2 + 1, step & 0x40 == 0),
            5 => self.settle(Duration::from_millis(1 << (step >> 3 & 15))),
            6 => self.settle(Duration::ZERO),
            _ => self.rare(step >> 3),
        }
    }

    fn accept(&mut self) {
        if matches!(self.kernel.listeners[0], Accepting::Armed | Accepting::Stopping) {
            self.token += 1;
            let peer = Some(([192, 0, 2, 1], 4000).into());
            let accepted = self.kernel.accepted(0, self.token, peer);
            self.with_ops(|relay, now, ops| relay.handle(accepted, now, ops));
        }
    }

    fn socket(&self, index: usize) -> Option<&kernel::Socket> {
        self.kernel.sockets.get(index)?.as_ref()
    }

    fn has_ended(&self, conn: ConnId) -> bool {
        self.ended[conn.index()] == Some(conn)
    }

    /// Something that a peer of that side might say, in whole or in part.
    fn receive(&mut self, socket: usize, side: Side, input: &mut impl Iterator<Item = u8>) {
        let what = input.next().unwrap_or_default();
        let said: Vec<u8> = match (what & 7, side) {
            (0 | 1, Side::Client) => REQUEST.to_vec(),
            (0 | 1, Side::Backend) => SWITCHED.to_vec(),
            (2, Side::Client) => b"\x81\x82\0\0\0\0hi\x89\x80\0\0\0\0".to_vec(),
            (2, Side::Backend) => b"\x81\x02hi\x8a\x00".to_vec(),
            (3, Side::Client) => b"\x88\x82\0\0\0\0\x03\xe8".to_vec(),
            (3, Side::Backend) => b"\x88\x02\x03\xe8".to_vec(),
            (4, Side::Client) => [b"\x82\xfe\x02\x00abcd".as_slice(), &[7; 512]].concat(),
            (4, Side::Backend) => {
                b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
            }
            _ => input.by_ref().take(usize::from(what >> 3)).collect(),
        };
        // Frames and heads may come cut at any place, and several together.
        let cut = if what & 1 == 0 { said.len() } else { said.len() * usize::from(what >> 3) / 31 };
        for piece in [&said[..cut], &said[cut..]] {
            let mut rest = piece;
            while !rest.is_empty()
                && let Some(conn) = self.receiving(socket)
            {
                let (lease, credit) = self.kernel.receive(conn, rest);
                rest = &rest[lease.len()..];
                let received = self.kernel.received(conn, lease, credit > 0);
                let mut ops = Vec::new();
                self.relay.handle(received, self.now, &mut ops);
                self.carry_out(ops);
            }
        }
    }

    /// The socket, if it can receive something now.
    fn receiving(&self, index: usize) -> Option<ConnId> {
        let socket = self.socket(index).filter(|socket| !socket.shut_read && !self.has_ended(socket.conn))?;
        let receive = socket.receive?;
        (!self.kernel.pools[receive.group.index()].is_empty()).then_some(socket.conn)
    }

    fn end_receive(&mut self, index: usize, how: u8) {
        let Some(socket) = self.socket(index) else { return };
        let (conn, Some(receive)) = (socket.conn, socket.receive) else { return };
        let out_of_buffers = self.kernel.pools[receive.group.index()].is_empty();
        let why = match how {
            _ if receive.cancelled => ReceiveEnd::Cancelled,
            _ if socket.shut_read => ReceiveEnd::Eof,
            0 | 1 if out_of_buffers && !self.has_ended(conn) => ReceiveEnd::NoBuffers,
            0 | 3 => ReceiveEnd::Eof,
            1 => return,
            _ => ReceiveEnd::Failed(ErrorKind::ConnectionReset.into()),
        };
        if matches!(why, ReceiveEnd::Eof | ReceiveEnd::Failed(_)) {
            self.ended[index] = Some(conn);
        }
        self.complete(|kernel| kernel.receive_ended(conn, why));
    }

    /// In whole; or in part, which only a cancelled send is; or not at all.
    fn end_send(&mut self, index: usize, part: bool, fail: bool) {
        let Some(socket) = self.socket(index) else { return };
        let (conn, Some(send)) = (socket.conn, &socket.send) else { return };
        let result = match (send.cancelled, part, fail) {
            (_, _, true) => Err(EPIPE),
            (true, true, _) => Ok(send.total / 2),
            (_, _, _) => Ok(send.total),
        };
        match send.copies {
            true => self.complete(|kernel| kernel.copied(conn)),
            false => self.complete(|kernel| kernel.sent(conn, result)),
        }
    }

    fn end_connect(&mut self, index: usize, well: bool) {
        let Some(socket) = self.socket(index).filter(|socket| socket.connect.is_some()) else { return };
        let conn = socket.conn;
        self.complete(|kernel| kernel.connected(conn, if well { Ok(()) } else { Err(ECONNREFUSED) }));
    }

    /// What the kernel cannot hold back: the ends of what was cancelled or shut down. False: there is nothing of that.
    fn end_what_is_overdue(&mut self) -> bool {
        if self.kernel.listeners[0] == Accepting::Stopping {
            self.complete(|kernel| kernel.accept_ended(0, None));
            return true;
        }
        for index in 0..self.kernel.sockets.len() {
            let Some(socket) = self.socket(index) else { continue };
            let shut = socket.shut_read && socket.shut_write;
            if socket.connect.as_ref().is_some_and(|connect| connect.cancelled) {
                self.end_connect(index, false);
            } else if socket.receive.is_some_and(|receive| receive.cancelled || socket.shut_read) {
                self.end_receive(index, 0);
            } else if socket.send.as_ref().is_some_and(|send| send.cancelled || send.copies || shut) {
                self.end_send(index, true, shut);
            } else {
                continue;
            }
            return true;
        }
        false
    }

    fn rare(&mut self, what: u8) {
        match what {
            0 if self.kernel.listeners[0] == Accepting::Armed => {
                self.complete(|kernel| kernel.accept_ended(0, Some(EMFILE)))
            }
            1 if self.kernel.listeners[0] == Accepting::Stopping => {
                self.complete(|kernel| kernel.accept_ended(0, None))
            }
            2 => self.with_ops(|relay, now, ops| relay.drain(now, ops)),
            3 => self.with_ops(|relay, now, ops| relay.stop(now, ops)),
            _ => self.with_ops(|relay, now, ops| relay.handle(Completion::Woken, now, ops)),
        }
    }

    /// The operations go to the kernel at once, as if each completion were a batch of its own.
    fn complete(&mut self, answer: impl FnOnce(&mut Kernel) -> Completion<'static>) {
        let completion = answer(&mut self.kernel);
        self.with_ops(|relay, now, ops| relay.handle(completion, now, ops));
    }

    fn settle(&mut self, later: Duration) {
        self.now += later;
        self.with_ops(|relay, now, ops| relay.handle_timeout(now, ops));
    }

    fn with_ops(&mut self, act: impl FnOnce(&mut Relay, Instant, &mut Vec<Op>)) {
        let mut ops = Vec::new();
        act(&mut self.relay, self.now, &mut ops);
        self.carry_out(ops);
    }

    fn carry_out(&mut self, ops: Vec<Op>) {
        for op in ops {
            self.kernel.perform(op);
        }
    }

    /// Peers go silent, the relay drains: whatever state it is in, it must come to an end in bounded time.
    fn finish(mut self) {
        self.settle(Duration::ZERO);
        self.with_ops(|relay, now, ops| relay.drain(now, ops));
        for _ in 0..1000 {
            self.settle(Duration::ZERO);
            if self.relay.is_drained() {
                break;
            }
            let mut answered = false;
            while self.end_what_is_overdue() {
                answered = true;
            }
            match self.relay.poll_timeout() {
                _ if answered => {}
                Some(at) => self.now = self.now.max(at),
                None => panic!("nothing in flight, no deadline, and not drained"),
            }
        }
        assert!(self.relay.is_drained(), "still not drained");
        assert_eq!(self.relay.leases(), 0);
        self.kernel.assert_at_rest();
    }
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
