//! Sessions on a kernel whose answers are read from the input: what completes when, how much of it, and with which error.
//! The kernel checks what it is asked; at the end everything must have been given back.
#![no_main]

#[path = "operations/kernel.rs"]
mod kernel;

use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringway::config::{Address, Config, Plan, PoolConfig};
use ringway::metrics::Metrics;
use ringway::op::{Completion, Side};
use ringway::relay::Relay;
use ringway::table::Table;

use kernel::Kernel;

const PLAN: Plan = Plan { sessions_max: 3, refusals_max: 1, small_count: 6, bulk_count: 2 };

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
    config.buffers.small_bytes = kernel::SMALL_BYTES;
    config.buffers.bulk_bytes = kernel::BULK_BYTES;
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
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let table = Table::first(Arc::new(config()), now);
        let mut relay = Relay::new(table.clone(), PLAN, Arc::new(Metrics::default()), 1);
        let mut kernel = Kernel::new(&PLAN);
        let mut ops = Vec::new();
        relay.adopt(table, &[1], now, &mut ops);
        kernel.carry_out(ops);
        World { relay, kernel, now }
    }

    /// One thing that happens: three bits say what, the others to which session and side, further bytes how.
    fn step(&mut self, step: u8, input: &mut impl Iterator<Item = u8>) {
        let session = usize::from(step >> 3 & 3);
        let side = if step & 0x20 == 0 { Side::Client } else { Side::Backend };
        let socket = session * 2 + side as usize;
        match step & 7 {
            0 => self.accept(),
            1 => self.receive(socket, side, input),
            2 => self.complete(|kernel| {
                let sent = kernel.sent(socket, step & 0x40 != 0, step & 0x80 != 0);
                sent.or_else(|| kernel.copied(socket))
            }),
            3 => self.complete(|kernel| kernel.receive_ended(socket, step >> 6)),
            4 => self.complete(|kernel| kernel.connected(session * 2 + 1, step & 0x40 == 0)),
            5 => self.settle(Duration::from_millis(1 << (step >> 3 & 15))),
            6 => self.settle(Duration::ZERO),
            _ => self.rare(step >> 3),
        }
    }

    fn accept(&mut self) {
        if let Some(socket) = self.kernel.accepted() {
            self.handle(Completion::Accepted { listener: 0, socket, peer: Some(([192, 0, 2, 1], 4000).into()), local: None });
        }
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
            while let Some((lease, mut bytes, more)) = self.kernel.received(socket, rest) {
                let conn = self.kernel.conn(socket);
                rest = &rest[bytes.len()..];
                let wire_bytes = bytes.len() as u32;
                self.handle(Completion::Received { conn, lease: Some(lease), bytes: &mut bytes, wire_bytes, more });
            }
        }
    }

    fn rare(&mut self, what: u8) {
        match what {
            0 => self.complete(|kernel| kernel.accept_failed()),
            1 => self.complete(|kernel| kernel.accept_stopped()),
            2 => self.with_ops(|relay, now, ops| relay.drain(now, ops)),
            3 => self.with_ops(|relay, now, ops| relay.stop(now, ops)),
            _ => self.handle(Completion::Woken),
        }
    }

    fn complete(&mut self, answer: impl FnOnce(&mut Kernel) -> Option<Completion<'static>>) {
        if let Some(completion) = answer(&mut self.kernel) {
            self.handle(completion);
        }
    }

    /// The operations go to the kernel at once, as if each completion were a batch of its own.
    fn handle(&mut self, completion: Completion<'_>) {
        self.with_ops(|relay, now, ops| relay.handle(completion, now, ops));
    }

    fn settle(&mut self, later: Duration) {
        self.now += later;
        self.with_ops(|relay, now, ops| relay.handle_timeout(now, ops));
    }

    fn with_ops(&mut self, act: impl FnOnce(&mut Relay, Instant, &mut Vec<ringway::op::Op>)) {
        let mut ops = Vec::new();
        act(&mut self.relay, self.now, &mut ops);
        self.kernel.carry_out(ops);
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
            while let Some(completion) = self.kernel.overdue() {
                self.handle(completion);
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
