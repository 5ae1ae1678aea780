//! What a handshake costs, heads only: find the end, check, rebuild, hold the answer against the offer.
//! `cargo bench --bench upgrade`; with `--test` or RINGWAY_BENCH_SMOKE=1 it only shows that it runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringway::proto::http::{HeadKind, HeadLimits, head_end};
use ringway::proto::upgrade::{Answer, Edit, Incoming, answer, request};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 16 << 10, header_bytes_max: 16 << 10, headers_max: 100, target_bytes_max: 8 << 10 };

/// As small as it gets: the sample of RFC 6455, 1.3.
const SMALL: &[u8] = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// As a browser sends it.
const BROWSER: &[u8] = b"GET /chat?room=42&since=2026-01-01T00:00:00Z HTTP/1.1\r\nHost: chat.example.com\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: https://chat.example.com\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=5f2c7d0e9b8a4c6d8e1f2a3b4c5d6e7f; theme=dark; consent=all\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n";

const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nServer: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What a stranger may fill a head with: the line's beginning, and what is repeated behind it.
const LARGE: [(&str, [&str; 3]); 8] = [
    ("host", ["Host: ", "a.", "a"]),
    ("target", ["GET /", "%41;/", " HTTP/1.1"]),
    ("headers", ["", "A: b\r\n", "B: c"]),
    ("cookies", ["Cookie: ", "a=b; ", "c=d"]),
    ("connection", ["Connection: ", "a, ", "upgrade"]),
    ("subprotocols", ["Sec-WebSocket-Protocol: ", "a,", "b"]),
    ("extensions", ["Sec-WebSocket-Extensions: ", "permessage-deflate;", "x"]),
    ("value", ["X: ", "\t ,;=", "y"]),
];

fn large([start, repeated, end]: [&str; 3], size: usize) -> Vec<u8> {
    let small = str::from_utf8(SMALL).expect("ASCII");
    let line = format!("{start}{}{end}", repeated.repeat(size / repeated.len()));
    let head = match start {
        "GET /" => small.replacen("GET /chat HTTP/1.1", &line, 1),
        "Host: " => small.replacen("Host: server.example.com", &line, 1),
        "Connection: " => small.replacen("Connection: Upgrade", &line, 1),
        _ => small.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1),
    };
    head.into_bytes()
}

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test")
        || std::env::var_os("RINGWAY_BENCH_SMOKE").is_some_and(|value| value == "1");
    let rounds = if smoke { 100 } else { 100_000 };
    for (name, head) in [("small", SMALL), ("browser", BROWSER)] {
        let size = head.len();
        print(&format!("request/end/{name} ({size} bytes)"), rounds, || {
            assert_eq!(head_end(black_box(head), 0, HeadKind::Request, &LIMITS), Ok(Some(size)));
        });
        print(&format!("request/check/{name} ({size} bytes)"), rounds, || {
            black_box(request(black_box(head), &LIMITS)).expect("a good request");
        });
        let checked = request(head, &LIMITS).and_then(Incoming::into_upgrade).expect("a good request");
        print(&format!("request/rebuild/{name} ({size} bytes)"), rounds, || {
            let edits = [
                Edit::Replace { name: "X-Forwarded-For", value: "192.0.2.1".into() },
                Edit::Replace { name: "X-Forwarded-Proto", value: "http".into() },
                Edit::Remove { name: "Forwarded" },
            ];
            black_box(checked.forward(black_box(&edits), None));
        });
    }
    for (name, part) in LARGE {
        // Twice the bytes, twice the time: what grows faster is a way to stop a worker with a few kilobytes.
        for size in [3 << 10, 6 << 10] {
            let head = large(part, size);
            let read = || request(black_box(&head), &LIMITS).map(|incoming| incoming.forward(&[], None).len());
            print(&format!("request/large/{name} ({} bytes)", head.len()), rounds / 50, || {
                let _ = black_box(read());
            });
        }
    }
    let offer = request(SMALL, &LIMITS).and_then(Incoming::into_upgrade).expect("a good request").offer;
    print(&format!("answer/check/101 ({} bytes)", ANSWER.len()), rounds, || {
        assert!(matches!(answer(black_box(ANSWER), &offer, &LIMITS), Ok(Answer::Switched { .. })));
    });
}

/// The best of five runs: what disturbs a run only ever makes it slower.
fn print(name: &str, rounds: u32, mut run: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            run();
        }
        best = best.min(start.elapsed());
    }
    println!("{name:<40} {:>8.1} ns", best.as_nanos() as f64 / f64::from(rounds));
}
