//! What following the frames costs: nanoseconds per frame header, payloads skipped.
//! `cargo bench --bench frame`; with `--test` or RINGWAY_BENCH_SMOKE=1 it only shows that it runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringway::proto::frame::{FrameLimits, Scanner};

/// What a small receive buffer holds, and a bulk one.
const SMALL: usize = 4 << 10;
const BULK: usize = 128 << 10;

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test")
        || std::env::var_os("RINGWAY_BENCH_SMOKE").is_some_and(|value| value == "1");
    let rounds = if smoke { 10 } else { 500 };
    for (side, masked) in [("client (masked)", true), ("backend", false)] {
        print(&format!("{side}/64 B frames/packed in 4 KiB"), masked, rounds, &pack(masked, 64, SMALL));
        print(&format!("{side}/64 B frames/one per piece"), masked, rounds, &vec![frame(masked, 64); 60]);
        print(&format!("{side}/empty frames/packed in 4 KiB"), masked, rounds / 10 + 1, &pack(masked, 0, SMALL));
        print(&format!("{side}/200 B frames/packed in 4 KiB"), masked, rounds, &pack(masked, 200, SMALL));
        print(&format!("{side}/64 B frames/header split after 1"), masked, rounds, &split(masked, 64, 1));
        print(&format!("{side}/200 B frames/header split after 3"), masked, rounds, &split(masked, 200, 3));
        print(&format!("{side}/64 KiB frames/in 128 KiB"), masked, rounds, &pack(masked, 64 << 10, BULK));
    }
}

/// A binary message.
fn frame(masked: bool, len: usize) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    match len {
        0..=125 => frame.push(bit | len as u8),
        126..=0xFFFF => {
            frame.push(bit | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        _ => {
            frame.push(bit | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    if masked {
        frame.extend([1, 2, 3, 4]);
    }
    frame.extend(std::iter::repeat_n(7, len));
    frame
}

/// One piece of as many frames as fit.
fn pack(masked: bool, len: usize, piece: usize) -> Vec<Vec<u8>> {
    let frame = frame(masked, len);
    vec![frame.repeat(piece / frame.len())]
}

/// Pieces that all end so many bytes into a header.
fn split(masked: bool, len: usize, at: usize) -> Vec<Vec<u8>> {
    let frame = frame(masked, len);
    let middle = [&frame[at..], &frame[..at]].concat();
    let first = frame[..at].to_vec();
    [vec![first], vec![middle; 60], vec![frame[at..].to_vec()]].concat()
}

/// The best of many short runs: what disturbs a run only ever makes it slower.
fn print(name: &str, masked: bool, rounds: u32, pieces: &[Vec<u8>]) {
    let mut best = Duration::MAX;
    let mut frames = 0;
    for _ in 0..200 {
        let mut scanner = Scanner::new(masked, false);
        frames = 0;
        let start = Instant::now();
        for _ in 0..rounds {
            for piece in pieces {
                let scan = scanner.scan(black_box(piece), &FrameLimits::NONE);
                frames += u64::from(scan.messages);
                assert!(scan.end.is_none());
            }
        }
        best = best.min(start.elapsed());
    }
    println!("{name:<48} {:>8.2} ns/frame", best.as_nanos() as f64 / frames as f64);
}
