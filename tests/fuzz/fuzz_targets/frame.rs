//! Frames. The first byte sets the direction, the extension and the limits, the next two the splits. Whatever the pieces,
//! the same bytes go out, the same is counted, and the end is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::proto::frame::{FrameLimits, ScanEnd, Scanner};

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    out: Vec<u8>,
    messages: u32,
    controls: u32,
    end: Option<ScanEnd>,
    payload_left: u64,
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mode: u8) -> Outcome {
    let limits = match mode & 4 {
        0 => FrameLimits::NONE,
        _ => FrameLimits { frame_bytes_max: 200, message_bytes_max: 300, message_fragments_max: 4 },
    };
    let mut scanner = Scanner::new(mode & 1 != 0, mode & 2 != 0);
    let mut outcome = Outcome::default();
    for piece in pieces {
        let scan = scanner.scan(piece, &limits);
        outcome.out.extend_from_slice(scan.head.as_slice());
        outcome.out.extend_from_slice(&piece[..scan.pass]);
        outcome.messages += scan.messages;
        outcome.controls += scan.controls;
        outcome.end = scan.end;
        if outcome.end.is_some() {
            break;
        }
    }
    outcome.payload_left = scanner.payload_left();
    assert_eq!(scanner.is_between_frames(), outcome.payload_left == 0);
    outcome
}

fuzz_target!(|data: &[u8]| {
    let [mode, first, second, bytes @ ..] = data else { return };
    let whole = scan([bytes], *mode);
    assert!(bytes.starts_with(&whole.out));
    if let Some(ScanEnd::Close(close)) = &whole.end {
        assert!(bytes[whole.out.len()..].starts_with(&close.frame));
    }
    // Three pieces at any two places, pieces of one size, single bytes.
    let first = usize::from(*first) % (bytes.len() + 1);
    let second = first + usize::from(*second) % (bytes.len() - first + 1);
    assert_eq!(scan([&bytes[..first], &bytes[first..second], &bytes[second..]], *mode), whole);
    assert_eq!(scan(bytes.chunks(first % 16 + 1), *mode), whole);
    assert_eq!(scan(bytes.chunks(1), *mode), whole);
});
