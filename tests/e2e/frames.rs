//! Rows F of the wire cases: frames, good and bad, from clients (C) and from backends (S).

use crate::harness::{Stage, close, until};
use crate::wire::*;

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate";

/// What a fault costs: the offender hears `code`, and none of its bytes from there on arrive. Valid frames before it do,
/// and so does what the other side answers to them; that side's own Close is swallowed, so that ours tells the offender why.
fn client_fault(stage: &Stage, deflate: &[&str], bad: &[u8], code: u16) {
    eprintln!("case C {}", bad[..bad.len().min(40)].escape_ascii());
    let (mut client, mut backend) = stage.open_with(deflate, deflate);
    let good = frame(FIN | TEXT, Some(MASK), b"good");
    client.send([&good, bad, &good].concat());
    assert_eq!(backend.frame().raw, good);
    backend.expect_close(&[code]);
    backend.server_frame(FIN | TEXT, "last words").server_frame(FIN | CLOSE, close_payload(1000, ""));
    backend.finish();
    client.expect_frame(FIN | TEXT, "last words");
    client.expect_close(&[code]);
    client.expect_end();
    backend.expect_end();
}

/// From the backend: the client hears 1011, as the fault is not its own.
fn backend_fault(stage: &Stage, deflate: &[&str], bad: &[u8], code: u16) {
    eprintln!("case S {}", bad[..bad.len().min(40)].escape_ascii());
    let (mut client, mut backend) = stage.open_with(deflate, deflate);
    let good = frame(FIN | TEXT, None, b"good");
    backend.send([&good, bad, &good].concat());
    assert_eq!(client.frame().raw, good);
    client.expect_close(&[1011]);
    client.client_frame(FIN | TEXT, "last words").client_frame(FIN | CLOSE, close_payload(1011, ""));
    backend.expect_frame(FIN | TEXT, "last words");
    backend.expect_close(&[code]);
    backend.finish();
    client.expect_fin();
    backend.expect_end();
}

/// Payloads of a fault in either direction: what comes before the bad frame, and the bad frame.
struct Bad {
    before: Vec<(u8, Vec<u8>)>,
    first: u8,
    payload: Vec<u8>,
}

fn bad(first: u8) -> Bad {
    Bad { before: vec![], first, payload: b"bad".to_vec() }
}

/// The same behind a fragment that opened a message.
fn bad_in_message(opening: u8, first: u8) -> Bad {
    Bad { before: vec![(opening, b"begin".to_vec())], first, payload: b"bad".to_vec() }
}

fn bad_close(payload: Vec<u8>) -> Bad {
    Bad { before: vec![], first: FIN | CLOSE, payload }
}

fn faults(deflate: &[&str], cases: &[Bad], code: u16) {
    let stage = Stage::new();
    for case in cases {
        for mask in [Some(MASK), None] {
            let bytes = frame(case.first, mask, &case.payload);
            match (mask, case.before.as_slice()) {
                (Some(_), []) => client_fault(&stage, deflate, &bytes, code),
                (None, []) => backend_fault(&stage, deflate, &bytes, code),
                (_, before) => fault_inside(&stage, deflate, before, &bytes, mask, code),
            }
            stage.check();
        }
    }
}

/// A fault behind valid fragments: they arrive, it does not.
fn fault_inside(
    stage: &Stage,
    deflate: &[&str],
    before: &[(u8, Vec<u8>)],
    bad: &[u8],
    mask: Option<[u8; 4]>,
    code: u16,
) {
    eprintln!("case in a message {} {mask:?}", bad.escape_ascii());
    let (client, backend) = stage.open_with(deflate, deflate);
    let (mut from, mut to) = if mask.is_some() { (client, backend) } else { (backend, client) };
    for (first, payload) in before {
        from.send(frame(*first, mask, payload));
    }
    from.send(bad);
    for (first, payload) in before {
        to.expect_frame(*first, payload);
    }
    to.expect_close(&[if mask.is_some() { code } else { 1011 }]);
    to.send(frame(FIN | CLOSE, mask.xor(Some(MASK)), &close_payload(1000, "")));
    to.finish();
    from.expect_close(&[code]);
    from.finish();
    from.expect_end();
    to.expect_end();
}

#[test]
fn f01_unmasked_frame_from_the_client() {
    let stage = Stage::new();
    for first in [FIN | TEXT, FIN | BINARY, TEXT, FIN | PING, FIN | CLOSE] {
        client_fault(&stage, &[], &frame(first, None, b"\x03\xe8"), 1002);
        stage.check();
    }
}

#[test]
fn f02_masked_frame_from_the_backend() {
    let stage = Stage::new();
    for first in [FIN | TEXT, FIN | BINARY, TEXT, FIN | PONG, FIN | CLOSE] {
        backend_fault(&stage, &[], &frame(first, Some([0; 4]), b"\x03\xe8"), 1002);
        stage.check();
    }
}

#[test]
fn f03_rsv_bits_without_an_extension() {
    let mut cases: Vec<_> = [0x40, 0x20, 0x10, 0x70].map(|rsv| bad(rsv | FIN | TEXT)).into();
    cases.extend([0x40, 0x20, 0x10].map(|rsv| bad(rsv | FIN | PING)));
    cases.push(bad_in_message(TEXT, 0x40 | FIN));
    faults(&[], &cases, 1002);
}

#[test]
fn f04_rsv_bits_with_permessage_deflate() {
    let cases = [
        bad(0x20 | FIN | TEXT),
        bad(0x10 | FIN | TEXT),
        bad(0x40 | FIN | PING),
        bad(0x60 | FIN | BINARY),
        bad_in_message(0x40 | TEXT, 0x40 | FIN),
        bad_in_message(0x40 | TEXT, 0x40),
    ];
    faults(&[DEFLATE], &cases, 1002);
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open_with(&[DEFLATE], &[DEFLATE]);
    for first in [0x40 | FIN | TEXT, 0x40 | BINARY, FIN, FIN | TEXT, 0x40 | TEXT, FIN | PING, FIN] {
        client.client_frame(first, "x");
        backend.expect_frame(first, "x");
        backend.server_frame(first, "y");
        client.expect_frame(first, "y");
    }
    close(&mut client, &mut backend);
}

#[test]
fn f05_rsv1_when_deflate_was_offered_but_not_accepted() {
    let stage = Stage::new();
    for _ in 0..2 {
        let (mut client, mut backend) = stage.open_with(&[DEFLATE], &[]);
        client.client_frame(0x40 | FIN | TEXT, "bad");
        backend.expect_close(&[1002]);
        backend.finish();
        client.expect_close(&[1002]);
        client.expect_end();
    }
    stage.check();
}

#[test]
fn f06_unknown_opcodes() {
    let cases: Vec<_> = [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map(|opcode| bad(FIN | opcode)).into();
    faults(&[], &cases, 1002);
}

/// A frame header that claims a length, in the encoding asked for, and no payload.
fn claim(first: u8, masked: bool, bytes: usize, length: u64) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut out = vec![first, bit | if bytes == 2 { 126 } else { 127 }];
    out.extend_from_slice(&length.to_be_bytes()[8 - bytes..]);
    if masked {
        out.extend_from_slice(&MASK);
    }
    out
}

#[test]
fn f08_lengths_that_cannot_be() {
    let stage = Stage::new();
    // The most significant bit must be 0, and the shortest encoding must be used (RFC 6455, 5.2).
    for (bytes, length) in [(8, 1 << 63), (8, u64::MAX), (2, 125), (2, 0), (8, 65535), (8, 125), (8, 0)] {
        client_fault(&stage, &[], &claim(FIN | BINARY, true, bytes, length), 1002);
        backend_fault(&stage, &[], &claim(FIN | BINARY, false, bytes, length), 1002);
        stage.check();
    }
}

#[test]
fn f08_lengths_beyond_the_limit() {
    let stage = Stage::with("[limits]\nframe_bytes_max = \"64KiB\"\n");
    for length in [65537, 1 << 31, 1 << 32, 1 << 53, i64::MAX as u64] {
        client_fault(&stage, &[], &claim(FIN | BINARY, true, 8, length), 1009);
        backend_fault(&stage, &[], &claim(FIN | BINARY, false, 8, length), 1009);
        stage.check();
    }
}

#[test]
fn f08_huge_lengths_without_a_limit_cost_nothing() {
    let stage = Stage::with("[limits]\nclient_message_bytes_max = \"off\"\n");
    stage.check();
    let before = stage.relay.peak_kib();
    let (mut client, mut backend) = stage.open();
    let header = claim(FIN | BINARY, true, 8, i64::MAX as u64);
    client.send([&header[..], b"first bytes"].concat());
    assert_eq!(backend.bytes(header.len() + 11), [&header[..], b"first bytes"].concat());
    client.reset();
    assert!(backend.expect_end() == End::Fin || backend.rest().0.is_empty());
    assert!(stage.relay.peak_kib() < before + 1024);
}

#[test]
fn f09_sizes_at_the_limits() {
    let stage = Stage::with("[limits]\nframe_bytes_max = 70000\nmessage_bytes_max = 100000\n");
    let (mut client, mut backend) = stage.open();
    for (first, size) in
        [(FIN | BINARY, 70_000), (TEXT, 50_000), (FIN | PING, 125), (FIN, 50_000), (FIN | TEXT, 70_000)]
    {
        client.client_frame(first, vec![1; size]);
        backend.expect_frame(first, vec![1; size]);
        backend.server_frame(first, vec![2; size]);
        client.expect_frame(first, vec![2; size]);
    }
    close(&mut client, &mut backend);
    client_fault(&stage, &[], &claim(FIN | BINARY, true, 8, 70_001), 1009);
    backend_fault(&stage, &[], &claim(FIN | BINARY, false, 8, 70_001), 1009);
    for last in [FIN, 0] {
        let begin = vec![(TEXT, vec![1; 50_000]), (0, vec![1; 50_000])];
        fault_inside(&stage, &[], &begin, &frame(last, Some(MASK), b"x"), Some(MASK), 1009);
        fault_inside(&stage, &[], &begin, &frame(last, None, b"x"), None, 1009);
    }
    stage.check();
}

const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 128, 65535, 65536, 300_000];

#[test]
fn f10_lengths() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    for length in LENGTHS {
        for first in [FIN | TEXT, FIN | BINARY] {
            client.client_frame(first, vec![b'a'; length]);
            backend.expect_frame(first, vec![b'a'; length]);
            backend.server_frame(first, vec![b'b'; length]);
            client.expect_frame(first, vec![b'b'; length]);
        }
    }
    close(&mut client, &mut backend);
}

#[test]
fn f11_headers_one_byte_at_a_time() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    for length in LENGTHS {
        let bytes = frame(FIN | BINARY, Some(MASK), &vec![5; length]);
        client.send_in_pieces(&bytes[..bytes.len().min(14)], 1);
        client.send(&bytes[bytes.len().min(14)..]);
        assert!(backend.frame().raw == bytes);
        let bytes = frame(FIN | BINARY, None, &vec![6; length]);
        backend.send_in_pieces(&bytes[..bytes.len().min(10)], 1);
        backend.send(&bytes[bytes.len().min(10)..]);
        assert!(client.frame().raw == bytes);
    }
    // Control frames too, whose payload is read and not only passed on.
    for (first, payload) in
        [(FIN | PING, vec![1; 125]), (FIN | PONG, vec![]), (FIN | CLOSE, close_payload(4000, &"x".repeat(123)))]
    {
        client.send_in_pieces(frame(first, Some(MASK), &payload), 1);
        backend.expect_frame(first, &payload);
        backend.send_in_pieces(frame(first, None, &payload), 1);
        client.expect_frame(first, &payload);
    }
    backend.finish();
    client.expect_fin();
}

#[test]
fn f13_payload_is_forwarded_before_its_frame_is_complete() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    let bytes = frame(FIN | BINARY, Some(MASK), &[7; 100_000]);
    for piece in [&bytes[..15], &bytes[15..1000], &bytes[1000..60_000], &bytes[60_000..]] {
        client.send(piece);
        assert!(backend.bytes(piece.len()) == piece);
    }
    let bytes = frame(FIN | BINARY, None, &[8; 100_000]);
    for piece in [&bytes[..11], &bytes[11..1000], &bytes[1000..60_000], &bytes[60_000..]] {
        backend.send(piece);
        assert!(client.bytes(piece.len()) == piece);
    }
    close(&mut client, &mut backend);
}

#[test]
fn f14_fragmented_control_frames() {
    faults(&[], &[bad(PING), bad(PONG), bad(CLOSE), bad_in_message(TEXT, PING)], 1002);
}

#[test]
fn f15_long_control_frames() {
    let long = |first, size| Bad { payload: vec![0; size], ..bad(first) };
    faults(
        &[],
        &[
            long(FIN | PING, 126),
            long(FIN | PONG, 65536),
            Bad { payload: close_payload(1000, &"x".repeat(124)), ..bad(FIN | CLOSE) },
        ],
        1002,
    );
}

#[test]
fn f16_fragments_out_of_order() {
    let cases = [
        bad(FIN),
        bad(0),
        bad_in_message(TEXT, FIN | TEXT),
        bad_in_message(BINARY, TEXT),
        bad_in_message(TEXT, FIN | BINARY),
    ];
    faults(&[], &cases, 1002);
}

#[test]
fn f18_control_frames_between_fragments() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    let frames = [(TEXT, "a"), (FIN | PING, "1"), (0, "b"), (FIN | PONG, "2"), (FIN, "c"), (BINARY, "d")];
    for (first, payload) in frames {
        client.client_frame(first, payload);
        backend.server_frame(first, payload);
    }
    for (first, payload) in frames {
        backend.expect_frame(first, payload);
        client.expect_frame(first, payload);
    }
    // The last message is still open: a Close may come between its fragments too.
    close(&mut client, &mut backend);
}

#[test]
fn f19_close_codes_that_may_not_be_sent() {
    let codes = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    let mut cases: Vec<_> = codes.map(|code| bad_close(close_payload(code, "why"))).into();
    cases.push(bad_close(vec![3]));
    faults(&[], &cases, 1002);
}

#[test]
fn f20_close_codes_that_may_be_sent() {
    let stage = Stage::new();
    let codes = (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]);
    let mut payloads: Vec<_> = codes.map(|code| close_payload(code, "because \u{fc}")).collect();
    payloads.push(vec![]);
    payloads.push(close_payload(1000, &"x".repeat(123)));
    for payload in payloads {
        let (mut client, mut backend) = stage.open();
        client.client_frame(FIN | CLOSE, &payload);
        backend.expect_frame(FIN | CLOSE, &payload);
        backend.server_frame(FIN | CLOSE, &payload);
        backend.finish();
        client.expect_frame(FIN | CLOSE, &payload);
        client.expect_fin();
        backend.expect_end();

        let (mut client, mut backend) = stage.open();
        backend.server_frame(FIN | CLOSE, &payload);
        client.expect_frame(FIN | CLOSE, &payload);
        client.client_frame(FIN | CLOSE, &payload);
        backend.expect_frame(FIN | CLOSE, &payload);
        backend.finish();
        client.expect_fin();
        backend.expect_end();
    }
}

#[test]
fn f22_close_reasons_that_are_not_utf8() {
    let reasons = [&b"\xff"[..], b"ok \xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"];
    let cases = reasons.map(|reason| bad_close([&1000u16.to_be_bytes(), reason].concat()));
    faults(&[], &cases, 1007);
}

#[test]
fn f23_nothing_is_relayed_after_a_close() {
    let stage = Stage::new();
    let ends = [
        (FIN | CLOSE, close_payload(1000, "")),
        (FIN | TEXT, b"late".to_vec()),
        (FIN | CLOSE, close_payload(1001, "")),
    ];
    for together in [true, false] {
        let (mut client, mut backend) = stage.open();
        let bytes: Vec<_> = ends.iter().map(|(first, payload)| frame(*first, Some(MASK), payload)).collect();
        match together {
            true => _ = client.send(bytes.concat()),
            false => bytes.iter().for_each(|b| client.send_in_pieces(b, b.len())),
        }
        backend.expect_close(&[1000]);
        // The backend may still finish what it was saying (RFC 6455, 5.5.1).
        backend.server_frame(FIN | TEXT, "last words").server_frame(FIN | CLOSE, close_payload(1000, ""));
        client.expect_frame(FIN | TEXT, "last words");
        client.expect_close(&[1000]);
        backend.finish();
        backend.expect_end();
        client.expect_end();

        let (mut client, mut backend) = stage.open();
        for (first, payload) in &ends {
            backend.server_frame(*first, payload);
        }
        client.expect_close(&[1000]);
        client.client_frame(FIN | CLOSE, close_payload(1000, ""));
        backend.expect_close(&[1000]);
        backend.finish();
        client.expect_end();
        backend.expect_end();
    }
    stage.check();
}

#[test]
fn f25_close_that_is_never_answered() {
    let stage = Stage::with("[timeouts]\nclose = \"2s\"\n");
    for by_client in [true, false] {
        let (mut client, mut backend) = stage.open();
        match by_client {
            true => client.client_frame(FIN | CLOSE, close_payload(1000, "")),
            false => backend.server_frame(FIN | CLOSE, close_payload(1000, "")),
        };
        let (mut from, mut to) = if by_client { (client, backend) } else { (backend, client) };
        to.expect_close(&[1000]);
        to.expect_end();
        // It may be told that no answer came, and why, before it is cut.
        let (frames, _) = from.frames_to_end();
        assert!(frames.len() <= 1 && frames.iter().all(|f| f.first == FIN | CLOSE), "{frames:?}");
    }
    stage.check();
}

#[test]
fn f26_text_is_not_decoded() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    client.client_frame(FIN | TEXT, b"\xff\xfe\xed\xa0\x80");
    backend.expect_frame(FIN | TEXT, b"\xff\xfe\xed\xa0\x80");
    backend.server_frame(FIN | CLOSE, close_payload(1007, ""));
    client.expect_close(&[1007]);
    client.client_frame(FIN | CLOSE, close_payload(1007, ""));
    backend.expect_close(&[1007]);
    backend.finish();
    client.expect_fin();
}

/// Reads and forgets, so that the other side is never held up.
fn drain(mut wire: Wire) -> std::thread::JoinHandle<Vec<Frame>> {
    std::thread::spawn(move || wire.frames_to_end().0)
}

fn flood(settings: &str, begin: &[u8], unit: &[u8], count: usize) {
    let stage = Stage::with(settings);
    let (mut other_client, mut other_backend) = stage.open();
    let (client, backend) = stage.open();
    let draining = drain(backend.split());
    let mut writer = client.split();
    let bytes = [begin, &unit.repeat(count)].concat();
    let writing = std::thread::spawn(move || writer.send_or_lose(bytes));
    let mut client = client;
    client.expect_close(&[1008]);
    client.expect_end();
    let frames = draining.join().unwrap();
    assert_eq!(frames.last().map(|f| f.first), Some(FIN | CLOSE));
    assert!(frames.len() < count, "{} of {count} frames passed", frames.len());
    writing.join().unwrap();
    drop((client, backend));
    other_client.client_frame(FIN | TEXT, "not me");
    other_backend.expect_frame(FIN | TEXT, "not me");
    close(&mut other_client, &mut other_backend);
    stage.check();
}

#[test]
fn f27_ping_and_pong_floods() {
    for opcode in [PING, PONG] {
        flood("", b"", &frame(FIN | opcode, Some(MASK), b"?"), 100_000);
    }
}

#[test]
fn f28_flood_of_empty_fragments() {
    let settings = "[limits]\nmessage_fragments_max = 1000\n";
    flood(settings, &frame(TEXT, Some(MASK), b""), &frame(0, Some(MASK), b""), 100_000);
    // Without a limit they are relayed, at a constant cost in memory.
    let stage = Stage::new();
    stage.check();
    let before = stage.relay.peak_kib();
    let (client, mut backend) = stage.open();
    let bytes = [frame(TEXT, Some(MASK), b""), frame(0, Some(MASK), b"").repeat(200_000)].concat();
    let (mut writer, sent) = (client.split(), bytes.clone());
    let writing = std::thread::spawn(move || _ = writer.send(sent));
    assert!(backend.bytes(bytes.len()) == bytes);
    writing.join().unwrap();
    assert!(stage.relay.peak_kib() < before + (2 << 10), "memory grew");
}

#[test]
fn f29_flood_of_one_byte_fragments() {
    let settings = "[limits]\nmessage_fragments_max = 1000\n";
    flood(settings, &frame(BINARY, Some(MASK), b"x"), &frame(0, Some(MASK), b"x"), 100_000);
}

#[test]
fn f34_masks_are_not_interpreted() {
    let stage = Stage::new();
    let (mut client, mut backend) = stage.open();
    let http = *b"GET ";
    let mut looks_like_http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    apply_mask(&mut looks_like_http, http);
    for bytes in [
        frame(FIN | TEXT, Some([0; 4]), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        frame(FIN | TEXT, Some(http), &[0; 64]),
        frame(FIN | BINARY, Some(http), &looks_like_http),
        frame(FIN | BINARY, Some([0xff; 4]), &[0xff; 64]),
    ] {
        client.send(&bytes);
        assert_eq!(backend.frame().raw, bytes);
    }
    close(&mut client, &mut backend);
}

#[test]
fn f35_compressed_bombs_are_relayed_as_they_are() {
    // 1000 : 1 when inflated: one deflate block of a long match, over and over. The limit is on wire bytes.
    let stage = Stage::with("[limits]\nmessage_bytes_max = \"64KiB\"\n");
    let (mut client, mut backend) = stage.open_with(&[DEFLATE], &[DEFLATE]);
    let bomb = [&[0xec, 0xc1, 0x01, 0x01][..], &[0; 64_000]].concat();
    client.client_frame(0x40 | FIN | BINARY, &bomb);
    backend.expect_frame(0x40 | FIN | BINARY, &bomb);
    close(&mut client, &mut backend);
    until("the session has ended", || stage.relay.process.log().iter().any(|l| l.contains("session ended")));
}
