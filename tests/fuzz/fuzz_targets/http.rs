//! Heads and bodies. The first byte chooses: `a`, an answer; `c` and `d`, the chunked body of a response or a request;
//! anything else, a request. The second says where the rest is split.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use ringway::proto::http::{Body, Chunked, HeadKind, HeadLimits, Rejection, head_end};
use ringway::proto::upgrade::{
    Answer, Edit, Head, Incoming, PlainRequest, answer, edit_head, plain_answer, request, rewrite,
};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 4096, header_bytes_max: 4096, headers_max: 24, target_bytes_max: 256 };

/// For heads that have been rebuilt, and may have grown.
const GENEROUS: HeadLimits =
    HeadLimits { head_bytes_max: 8192, header_bytes_max: 8192, headers_max: 40, target_bytes_max: 256 };

const EDITS: [Edit<'static>; 4] = [
    Edit::Append { name: "X-Forwarded-For", value: Cow::Borrowed("192.0.2.1") },
    Edit::Replace { name: "X-Forwarded-Proto", value: Cow::Borrowed("http") },
    Edit::Remove { name: "Forwarded" },
    Edit::Add { name: "X-Added", value: Cow::Borrowed("1") },
];

const OFFER: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=12\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let [kind, split, bytes @ ..] = data else { return };
    let split = usize::from(*split) % (bytes.len() + 1);
    match kind {
        b'a' => answers(bytes, split),
        b'c' => chunks(bytes, split, HeadKind::Response),
        b'd' => chunks(bytes, split, HeadKind::Request),
        _ => requests(bytes, split),
    }
});

/// The end of the head; the same in one piece, in two, and (short ones, as it takes its time) byte by byte.
fn end(bytes: &[u8], split: usize, kind: HeadKind) -> Result<Option<usize>, Rejection> {
    let whole = head_end(bytes, 0, kind, &LIMITS);
    let in_two = match head_end(&bytes[..split], 0, kind, &LIMITS) {
        Ok(None) => head_end(bytes, split, kind, &LIMITS),
        verdict => verdict,
    };
    assert_eq!(whole, in_two);
    if bytes.len() <= 600 {
        let mut verdicts = (0..bytes.len()).map(|seen| head_end(&bytes[..seen + 1], seen, kind, &LIMITS));
        assert_eq!(whole, verdicts.find(|verdict| *verdict != Ok(None)).unwrap_or(Ok(None)));
    }
    whole
}

fn requests(bytes: &[u8], split: usize) {
    let end = match end(bytes, split, HeadKind::Request) {
        Ok(end) => end.unwrap_or(bytes.len()),
        Err(fault) => return assert!(matches!(fault.status.code(), 400 | 414 | 431 | 505)),
    };
    let checked = match request(&bytes[..end], &LIMITS) {
        Ok(Incoming::Upgrade(checked)) => checked,
        Ok(Incoming::Plain(checked, fault)) => {
            assert!(matches!(fault.status.code(), 400 | 405 | 426 | 505));
            return plain(&checked);
        }
        Err(fault) => return assert!(matches!(fault.status.code(), 400 | 405 | 414 | 417 | 426 | 431 | 505)),
    };
    // What is forwarded is itself a good request, which says the same and is forwarded as it is.
    let forward = checked.forward(&EDITS, None);
    let again = request(&forward, &GENEROUS).and_then(Incoming::into_upgrade).expect("what is forwarded passes");
    assert_eq!((&again.host, &again.target, &again.offer), (&checked.host, &checked.target, &checked.offer));
    assert_eq!(again.forward(&[], None), forward);
    route(&checked);
}

/// The same for a request that is no upgrade.
fn plain(checked: &PlainRequest) {
    let forward = checked.forward(&EDITS, None);
    let Ok(Incoming::Plain(again, _)) = request(&forward, &GENEROUS) else { panic!("what is forwarded passes") };
    assert_eq!((&again.host, &again.target, again.method), (&checked.host, &checked.target, checked.method));
    assert_eq!((again.body, again.expects_continue), (checked.body, false));
    assert_eq!(again.forward(&[], None), forward);
    route(checked);
}

/// What routes ask, and that no rewritten path is one that a client could not have sent.
fn route(head: &Head) {
    assert!(!head.host_name().ends_with('.') && head.path().starts_with('/'));
    let _ = (head.query_value("a"), head.cookie("a"), head.header("Cookie").count(), head.offers_subprotocol("chat"));
    for matched in 0..=head.path().len() {
        if let Ok(target) = rewrite(&head.target, matched, "/v2", true) {
            assert!(target.starts_with("/v2") && !target.split('?').next().unwrap_or_default().contains("/../"));
        }
    }
}

fn answers(bytes: &[u8], split: usize) {
    let offer = request(OFFER, &LIMITS).and_then(Incoming::into_upgrade).expect("a good request").offer;
    let end = match end(bytes, split, HeadKind::Response) {
        Ok(end) => end.unwrap_or(bytes.len()),
        Err(fault) => return assert_eq!(fault.status.code(), 502),
    };
    let plain = plain_answer(&bytes[..end], "GET", false, &LIMITS);
    match answer(&bytes[..end], &offer, &LIMITS) {
        Ok(Answer::Response { status, head, mut body }) => {
            let again = answer(&head, &offer, &GENEROUS).expect("what is relayed passes");
            let Answer::Response { body: again, .. } = again else { panic!("{again:?} of a relayed response") };
            assert!(again == body || body == Body::None);
            let edited = edit_head(&head, &EDITS);
            assert_eq!(head_end(&edited, 0, HeadKind::Response, &GENEROUS), Ok(Some(edited.len())));
            assert_eq!(edit_head(&head, &[]), head);
            assert_eq!(plain, Ok(Answer::Response { status, head, body }));
            if let Ok((taken, complete)) = body.take(&bytes[end..]) {
                assert!(taken <= bytes.len() - end && complete == body.is_complete());
            }
        }
        Ok(Answer::Switched { .. }) => {
            assert!(bytes.starts_with(b"HTTP/1.1 101") && plain.is_err());
            assert_eq!(edit_head(&bytes[..end], &[]), &bytes[..end]);
        }
        Ok(Answer::Informational) => assert!(bytes[9] == b'1' && plain == Ok(Answer::Informational)),
        Err(wrong) => assert!(wrong.fault().status.code() == 502 && plain.is_err()),
    }
}

fn chunks(bytes: &[u8], split: usize, kind: HeadKind) {
    let [mut whole, mut in_two, mut trickled] = [Body::Chunked(Chunked::of(kind)); 3];
    let verdict = whole.take(bytes);
    let (first, second) = bytes.split_at(split);
    assert_eq!(verdict, in_two.take(first).and_then(|(a, _)| in_two.take(second).map(|(b, done)| (a + b, done))));
    let one = |so_far: Result<(usize, bool), Rejection>, byte: &u8| {
        so_far.and_then(|(sum, _)| trickled.take(&[*byte]).map(|(taken, done)| (sum + taken, done)))
    };
    assert_eq!(verdict, bytes.iter().fold(Ok((0, false)), one));
}
