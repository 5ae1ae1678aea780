//! Many heads that are almost right: none may panic, and whatever passes must hold what is promised of it.

use super::*;
use crate::proto::http::{Body, Chunked, HeadKind, head_end};

/// xorshift64*: the same heads in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

/// What tends to be near a parser's edges.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"%",
    b"..",
    b"//",
    b"\xff",
    b"0",
    b"13",
    b"h2c",
    b"Connection: x, upgrade\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"X_Y: z\r\n",
    b"X-Forwarded-For: 1.1.1.1\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    b"http://server.example.com",
    b"HTTP/1.1 200 ",
    b"chat",
    b"close",
];

fn mutated(head: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let end = bytes.len().min(at + dice.below(12));
        match dice.below(5) {
            0 => bytes[at] = dice.below(256) as u8,
            1 => drop(bytes.splice(at..end, [])),
            2 => drop(bytes.splice(at..end, dice.pick(PIECES).iter().copied())),
            3 => drop(bytes.splice(at..at, dice.pick(PIECES).iter().copied())),
            _ => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

const ROUNDS: usize = if cfg!(miri) { 100 } else { 60_000 };

#[test]
fn mutated_requests() {
    let mut dice = Dice(0x5eed_0001);
    let rich = plus(
        GOOD,
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10, x-y\r\nCookie: a=b\r\nX-Real-IP: 1.2.3.4",
    );
    let edits = [Edit::Append { name: "X-Forwarded-For", value: "10.0.0.1".into() }];
    let mut passed = 0;
    for _ in 0..ROUNDS {
        let head = mutated(&rich, &mut dice);
        let Ok(request) = checked(&head) else { continue };
        passed += 1;
        // What is forwarded is itself a good request, which says the same and is forwarded as it is.
        let forward = request.forward(&edits, None);
        let again = checked(&forward).unwrap_or_else(|fault| panic!("{}: {}", fault.text, forward.escape_ascii()));
        assert_eq!((&again.host, &again.target, &again.offer), (&request.host, &request.target, &request.offer));
        assert_eq!(again.forward(&[], None), forward, "{}", head.escape_ascii());
        let lines = forward.split(|&byte| byte == b'\n').map(<[u8]>::to_ascii_lowercase);
        assert_eq!(lines.filter(|line| line.starts_with(b"host:") || line.starts_with(b"upgrade:")).count(), 2);
    }
    assert!(passed > ROUNDS / 20, "only {passed} passed: the mutations are too wild to show anything");
}

#[test]
fn mutated_plain_requests() {
    let mut dice = Dice(0x5eed_0004);
    let rich = "POST /poll?sid=1 HTTP/1.1\r\nHost: server.example.com\r\nTransfer-Encoding: chunked\r\nConnection: x, close\r\n\
                X-Y: z\r\nUpgrade: h2c\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\nCookie: a=b\r\n\r\n";
    let edits = [Edit::Add { name: "X-Added", value: "1".into() }];
    let mut passed = 0;
    for round in 0..ROUNDS {
        let rich = if round % 2 == 0 { rich } else { &but(rich, "Transfer-Encoding: chunked", "Content-Length: 5") };
        let head = mutated(rich, &mut dice);
        let Ok(Incoming::Plain(plain, _)) = request(&head, &LIMITS) else { continue };
        passed += 1;
        let forward = plain.forward(&edits, None);
        let Ok(Incoming::Plain(again, _)) = request(&forward, &LIMITS) else { panic!("{}", forward.escape_ascii()) };
        assert_eq!((&again.host, &again.target, again.body), (&plain.host, &plain.target, plain.body));
        assert_eq!(again.forward(&[], None), forward, "{}", head.escape_ascii());
        let lines = forward.split(|&byte| byte == b'\n').map(<[u8]>::to_ascii_lowercase);
        let framing = |line: &Vec<u8>| line.starts_with(b"content-length:") || line.starts_with(b"transfer-encoding:");
        assert_eq!(lines.filter(framing).count(), usize::from(plain.body != Body::None));
    }
    assert!(passed > ROUNDS / 20, "only {passed} passed");
}

#[test]
fn mutated_answers() {
    let mut dice = Dice(0x5eed_0002);
    let offer =
        checked(plus(GOOD, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")).unwrap().offer;
    let deflate = plus(SWITCHED, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12");
    let other = "HTTP/1.1 401 No\r\nConnection: x, upgrade\r\nX: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut relayed = 0;
    for round in 0..ROUNDS {
        let head = mutated(if round % 2 == 0 { &deflate } else { other }, &mut dice);
        match answer(&head, &offer, &LIMITS) {
            Ok(Answer::Response { head, body, .. }) => {
                relayed += 1;
                assert_eq!(head_end(&head, 0, HeadKind::Response, &LIMITS), Ok(Some(head.len())));
                match answer(&head, &offer, &LIMITS) {
                    Ok(Answer::Response { body: again, .. }) => assert!(again == body || body == Body::None),
                    other => panic!("{other:?}: {}", head.escape_ascii()),
                }
            }
            Ok(Answer::Switched { .. } | Answer::Informational) => {}
            Err(wrong) => assert_eq!(wrong.fault().status.code(), 502),
        }
    }
    assert!(relayed > ROUNDS / 20, "only {relayed} relayed");
}

#[test]
fn mutated_chunks() {
    let mut dice = Dice(0x5eed_0003);
    for _ in 0..ROUNDS {
        let bytes = mutated("5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: u\r\n\r\n", &mut dice);
        let kind = [HeadKind::Request, HeadKind::Response][dice.below(2)];
        let [mut whole, mut split] = [Body::Chunked(Chunked::of(kind)); 2];
        let (first, second) = bytes.split_at(dice.below(bytes.len()));
        let in_two = split.take(first).and_then(|(a, _)| split.take(second).map(|(b, done)| (a + b, done)));
        assert_eq!(whole.take(&bytes), in_two, "{}", bytes.escape_ascii());
    }
}
