//! Every byte arrives, in order, unchanged: many connections at once, random sizes, random splits, both ways.

use std::hash::{DefaultHasher, Hasher};
use std::thread::JoinHandle;

use crate::harness::{Ringway, Setup, Stage};
use crate::wire::*;

/// SplitMix64: a seed in, the same bytes out.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound) as usize
    }
}

/// A legal stream of frames: messages of every size class, fragmented or not, with control frames in between.
fn stream(random: &mut Random, masked: bool, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < size {
        let fragments = [1, 1, 1, 2, 5][random.below(5)];
        for i in 0..fragments {
            let bound = [1, 126, 130, 5000, 70_000, 200_000][random.below(6)];
            let length = random.below(bound + 1).min(size);
            let mut payload = vec![0; length];
            for piece in payload.chunks_mut(8) {
                piece.copy_from_slice(&random.next().to_be_bytes()[..piece.len()]);
            }
            let opcode = if i == 0 { BINARY } else { 0 };
            let fin = if i == fragments - 1 { FIN } else { 0 };
            let mask = masked.then(|| (random.next() as u32).to_be_bytes());
            out.extend(frame(fin | opcode, mask, &payload));
            if random.below(4) == 0 {
                out.extend(frame(FIN | PING, mask, &payload[..length.min(125)]));
            }
        }
    }
    out
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Sends `bytes` in random pieces and returns their hash.
fn send(mut wire: Wire, bytes: Vec<u8>, mut random: Random) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut at = 0;
        while at < bytes.len() {
            let bound = [1, 3, 20, 1500, 100_000][random.below(5)];
            let end = (at + 1 + random.below(bound)).min(bytes.len());
            wire.send(&bytes[at..end]);
            at = end;
            if random.below(8) == 0 {
                std::thread::yield_now();
            }
        }
        hash(&bytes)
    })
}

fn receive(mut wire: Wire, size: usize) -> JoinHandle<u64> {
    std::thread::spawn(move || hash(&wire.bytes(size)))
}

fn exchange(workers: usize, connections: u64, size: usize, settings: &str) {
    let seed = seed();
    eprintln!("seed {seed}");
    let backend = Backend::new();
    let setup = Setup {
        listen: vec!["127.0.0.1:0".into()],
        backends: vec![backend.address.to_string()],
        settings: format!("[limits]\ncontrol_frames_per_second_max = \"off\"\n{settings}"),
        workers,
        ..Setup::default()
    };
    let stage = Stage { relay: Ringway::start(&setup), backend };
    let sessions: Vec<_> = (0..connections)
        .map(|i| {
            let (client, backend) = stage.open();
            let mut random = Random(seed ^ i << 32);
            let (up, down) = (stream(&mut random, true, size), stream(&mut random, false, size));
            let receivers = [receive(backend.split(), up.len()), receive(client.split(), down.len())];
            let senders =
                [send(client.split(), up, Random(random.next())), send(backend.split(), down, Random(random.next()))];
            (client, backend, senders, receivers)
        })
        .collect();
    for (mut client, mut backend, senders, receivers) in sessions {
        let sent = senders.map(|t| t.join().unwrap());
        let received = receivers.map(|t| t.join().unwrap());
        assert!(sent == received, "a stream changed on its way (seed {seed})");
        crate::harness::close(&mut client, &mut backend);
    }
}

fn seed() -> u64 {
    let given = std::env::var("RINGWAY_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64)
}

#[test]
fn one_worker() {
    exchange(1, 40, 500_000, "");
}

#[test]
fn several_workers() {
    exchange(3, 60, 250_000, "");
}

#[test]
fn many_small_connections() {
    exchange(2, 300, 20_000, "");
}

#[test]
fn small_window() {
    exchange(
        1,
        20,
        300_000,
        "window_bytes = 1024\nearly_bytes_max = 1024\n[buffers]\nsmall_bytes = 512\nbulk_bytes = 1024\n",
    );
}

/// Far fewer buffers than connections: receives that find none wait their turn.
#[test]
fn few_buffers() {
    exchange(1, 60, 200_000, "[buffers]\nsmall_count = 4\nbulk_count = 2\n");
}

#[test]
fn small_socket_buffers() {
    exchange(
        1,
        20,
        300_000,
        "[tcp]\nsend_buffer_bytes = 4096\nreceive_buffer_bytes = 4096\nnotsent_bytes_max = 4096\n",
    );
}

#[test]
fn one_saturated_direction_does_not_starve_a_quiet_session() {
    let stage = Stage::new();
    let bytes = frame(FIN | BINARY, Some(MASK), &[9; 16_000]).repeat(60);
    let busy: Vec<_> = (0..50)
        .map(|_| {
            let (client, backend) = stage.open();
            let receiver = receive(backend.split(), bytes.len());
            let sender = send(client.split(), bytes.clone(), Random(1));
            (client, backend, sender, receiver)
        })
        .collect();
    let (mut client, mut backend) = stage.open();
    for i in 0..200u32 {
        client.client_frame(FIN | TEXT, i.to_be_bytes());
        backend.expect_frame(FIN | TEXT, i.to_be_bytes());
        backend.server_frame(FIN | TEXT, i.to_be_bytes());
        client.expect_frame(FIN | TEXT, i.to_be_bytes());
    }
    for (_client, _backend, sender, receiver) in busy {
        assert_eq!(sender.join().unwrap(), receiver.join().unwrap());
    }
}
