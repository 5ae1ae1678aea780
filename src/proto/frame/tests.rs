use super::*;

/// What came out of a scanner, whatever the splits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    bytes: Vec<u8>,
    messages: u32,
    controls: u32,
    end: Option<ScanEnd>,
}

fn run(scanner: &mut Scanner, pieces: &[&[u8]], limits: &FrameLimits) -> Outcome {
    let mut outcome = Outcome::default();
    for piece in pieces {
        let scan = scanner.scan(piece, limits);
        outcome.bytes.extend(scan.head.as_slice());
        outcome.bytes.extend(&piece[..scan.pass]);
        outcome.messages += scan.messages;
        outcome.controls += scan.controls;
        if scan.end.is_some() {
            outcome.end = scan.end;
            break;
        }
    }
    outcome
}

fn whole(masked: bool, deflate: bool, bytes: &[u8], limits: &FrameLimits) -> Outcome {
    run(&mut Scanner::new(masked, deflate), &[bytes], limits)
}

/// Every piece size, and every single cut: the outcome may not depend on how the bytes came.
fn at_every_split(masked: bool, deflate: bool, bytes: &[u8], limits: &FrameLimits) -> Outcome {
    let expected = whole(masked, deflate, bytes, limits);
    for size in 1..bytes.len().min(64) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(run(&mut Scanner::new(masked, deflate), &pieces, limits), expected, "pieces of {size}");
    }
    for cut in 0..bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(run(&mut Scanner::new(masked, deflate), &[a, b], limits), expected, "cut at {cut}");
    }
    expected
}

/// A frame with the shortest length encoding, masked with a fixed key or not.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(mask_bit | n as u8),
        n @ 126..=0xFFFF => {
            frame.push(mask_bit | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(mask_bit | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    if masked {
        frame.extend([0x11, 0x22, 0x33, 0x44]);
    }
    let at = frame.len();
    frame.extend(payload);
    if masked {
        close::unmask(&mut frame[at..], [0x11, 0x22, 0x33, 0x44]);
    }
    frame
}

#[test]
fn valid_streams_pass_whole_at_every_split() {
    for masked in [false, true] {
        let mut stream = Vec::new();
        stream.extend(frame(0x81, masked, b"hello"));
        stream.extend(frame(0x02, masked, &[7; 130]));
        stream.extend(frame(0x89, masked, b"ping between fragments"));
        stream.extend(frame(0x00, masked, b""));
        stream.extend(frame(0x8A, masked, b""));
        stream.extend(frame(0x80, masked, &[9; 3]));
        stream.extend(frame(0x82, masked, b""));
        let outcome = at_every_split(masked, false, &stream, &FrameLimits::NONE);
        assert_eq!(outcome, Outcome { bytes: stream, messages: 3, controls: 2, end: None });
    }
}

#[test]
fn lengths_at_the_borders_of_their_encodings_pass() {
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536] {
        for masked in [false, true] {
            let stream = frame(0x82, masked, &vec![1; len]);
            let outcome = whole(masked, false, &stream, &FrameLimits::NONE);
            assert_eq!((outcome.bytes.len(), outcome.messages), (stream.len(), 1), "{len}");
            let cuts = 0..stream.len().min(20);
            for cut in cuts {
                let (a, b) = stream.split_at(cut);
                let outcome = run(&mut Scanner::new(masked, false), &[a, b], &FrameLimits::NONE);
                assert!(outcome.bytes == stream, "{len} cut at {cut}");
            }
        }
    }
}

#[test]
fn length_must_be_minimal_and_63_bits() {
    let cases: [(&[u8], Option<Fault>); 7] = [
        (&[0x82, 126, 0, 125], Some(Fault::LengthNotMinimal)),
        (&[0x82, 126, 0, 126], None),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], Some(Fault::LengthNotMinimal)),
        (&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], None),
        (&[0x82, 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], None),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Some(Fault::LengthOutOfRange)),
        (&[0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Some(Fault::LengthOutOfRange)),
    ];
    for (bytes, fault) in cases {
        let outcome = at_every_split(false, false, bytes, &FrameLimits::NONE);
        assert_eq!(outcome.end, fault.map(ScanEnd::Fault), "{bytes:x?}");
        assert_eq!(outcome.bytes, if fault.is_none() { bytes } else { &[] }, "{bytes:x?}");
    }
}

/// The rules of RFC 6455, 5.2 to 5.5, on two bytes, written a second time in another way.
fn reference(first: u8, second: u8, masked: bool, deflate: bool, in_message: bool) -> bool {
    let (fin, rsv1, rsv23, opcode) = (first >> 7 == 1, first >> 6 & 1 == 1, first >> 4 & 3, first & 15);
    let known = [0, 1, 2, 8, 9, 10].contains(&opcode);
    let control = opcode > 7;
    let starts = opcode == 1 || opcode == 2;
    known
        && rsv23 == 0
        && (!rsv1 || deflate && starts)
        && (!control || fin && second & 0x7F < 126)
        && (control || starts != in_message)
        && (second >= 128) == masked
}

/// F37: all 65,536 first two bytes, from both sides, with and without deflate, inside a fragmented message and not.
#[test]
fn f37_every_first_two_bytes() {
    for bits in 0..8 {
        let (masked, deflate, in_message) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        for header in 0..=u16::MAX {
            let [first, second] = header.to_be_bytes();
            let mut scanner = Scanner::new(masked, deflate);
            if in_message {
                scanner.scan(&frame(0x01, masked, b""), &FrameLimits::NONE);
            }
            let outcome = run(&mut scanner, &[&[first, second]], &FrameLimits::NONE);
            let faulty = matches!(outcome.end, Some(ScanEnd::Fault(_)));
            assert_eq!(!faulty, reference(first, second, masked, deflate, in_message), "{header:04x} {bits:03b}");
        }
    }
}

#[test]
fn nothing_of_a_bad_frame_goes_out_and_all_before_it_does() {
    let good = frame(0x81, true, b"kept");
    let cases: [(&[u8], Fault); 9] = [
        (&[0x81, 0x04], Fault::Unmasked),
        (&[0xC1, 0x84], Fault::ReservedBits),
        (&[0x91, 0x84], Fault::ReservedBits),
        (&[0x83, 0x84], Fault::ReservedOpcode),
        (&[0x8F, 0x84], Fault::ReservedOpcode),
        (&[0x09, 0x80], Fault::FragmentedControl),
        (&[0x89, 0xFE, 0, 200], Fault::LongControl),
        (&[0x80, 0x80], Fault::NothingToContinue),
        (b"GET / HTTP/1.1", Fault::ReservedBits),
    ];
    for (bad, fault) in cases {
        let stream = [&good[..], bad, &good].concat();
        let outcome = at_every_split(true, false, &stream, &FrameLimits::NONE);
        assert_eq!(outcome.end, Some(ScanEnd::Fault(fault)));
        assert_eq!(outcome.bytes, good);
    }
    let interrupted = [frame(0x01, true, b"a"), frame(0x81, true, b"b")].concat();
    let outcome = at_every_split(true, false, &interrupted, &FrameLimits::NONE);
    assert_eq!(outcome.end, Some(ScanEnd::Fault(Fault::MessageInterrupted)));
    assert_eq!(outcome.bytes, frame(0x01, true, b"a"));
    assert_eq!(
        at_every_split(false, false, &frame(0x81, true, b"x"), &FrameLimits::NONE).end,
        Some(ScanEnd::Fault(Fault::Masked))
    );
}

#[test]
fn rsv1_marks_only_the_first_frame_of_a_compressed_message() {
    let good = [frame(0x41, false, b"a"), frame(0x80, false, b"b")].concat();
    assert_eq!(at_every_split(false, true, &good, &FrameLimits::NONE).end, None);
    for bad in [[frame(0x41, false, b"a"), frame(0xC0, false, b"b")].concat(), frame(0xC9, false, b"")] {
        let outcome = at_every_split(false, true, &bad, &FrameLimits::NONE);
        assert_eq!(outcome.end, Some(ScanEnd::Fault(Fault::ReservedBits)));
    }
}

#[test]
fn limits_hold_to_the_byte_before_any_payload() {
    let limits = FrameLimits { frame_bytes_max: 10, message_bytes_max: 15, message_fragments_max: 3 };
    let fits = [frame(0x02, true, &[0; 10]), frame(0x00, true, &[0; 5]), frame(0x80, true, b"")].concat();
    assert_eq!(at_every_split(true, false, &fits, &limits).end, None);
    let cases = [
        (frame(0x82, true, &[0; 11]), 0, Fault::FrameTooBig),
        ([frame(0x02, true, &[0; 10]), frame(0x80, true, &[0; 6])].concat(), 16, Fault::MessageTooBig),
        (
            [frame(0x02, true, b""), frame(0, true, b""), frame(0, true, b""), frame(0x80, true, b"")].concat(),
            18,
            Fault::TooManyFragments,
        ),
    ];
    for (stream, passed, fault) in cases {
        let outcome = at_every_split(true, false, &stream, &limits);
        assert_eq!((outcome.bytes.len(), outcome.end), (passed, Some(ScanEnd::Fault(fault))));
    }
    let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert_eq!(whole(true, false, &huge, &limits).end, Some(ScanEnd::Fault(Fault::FrameTooBig)));
    assert_eq!(Fault::FrameTooBig.code(), 1009);
}

#[test]
fn close_frames_are_handed_over_whole_and_end_the_scan() {
    for masked in [false, true] {
        let close = frame(0x88, masked, b"\x0b\xb8bye");
        let before = frame(0x81, masked, b"last words");
        let stream = [&before[..], &close, b"anything"].concat();
        let outcome = at_every_split(masked, false, &stream, &FrameLimits::NONE);
        assert_eq!(outcome.bytes, before);
        assert_eq!(outcome.end, Some(ScanEnd::Close(Close { frame: close.into(), code: Some(3000) })));
        let empty = frame(0x88, masked, b"");
        let outcome = at_every_split(masked, false, &empty, &FrameLimits::NONE);
        assert_eq!(outcome.end, Some(ScanEnd::Close(Close { frame: empty.into(), code: None })));
    }
}

#[test]
fn bad_close_payloads_are_faults() {
    let cases: [(&[u8], CloseFault); 3] = [
        (b"\x03", CloseFault::OneByte),
        (b"\x03\xed", CloseFault::Code(1005)),
        (b"\x03\xe8\xff", CloseFault::ReasonNotUtf8),
    ];
    for (payload, fault) in cases {
        for masked in [false, true] {
            let outcome = at_every_split(masked, false, &frame(0x88, masked, payload), &FrameLimits::NONE);
            assert_eq!(outcome.bytes, b"");
            assert_eq!(outcome.end, Some(ScanEnd::Fault(Fault::Close(fault))));
        }
    }
}

#[test]
fn boundaries_are_where_a_frame_may_be_put() {
    let mut scanner = Scanner::new(true, false);
    assert!(scanner.is_between_frames());
    let stream = frame(0x81, true, b"abc");
    scanner.scan(&stream[..3], &FrameLimits::NONE);
    assert!(scanner.is_between_frames(), "a withheld header has not gone out");
    scanner.scan(&stream[3..7], &FrameLimits::NONE);
    assert!(!scanner.is_between_frames());
    assert_eq!(scanner.payload_left(), 2);
    scanner.scan(&stream[7..], &FrameLimits::NONE);
    assert!(scanner.is_between_frames());
}

#[test]
fn stays_small() {
    assert!(std::mem::size_of::<Scanner>() <= 56, "{}", std::mem::size_of::<Scanner>());
}
