//! Heads at every split, and every byte that none may have.

use super::*;

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 1024, header_bytes_max: 1024, headers_max: 8, target_bytes_max: 64 };

const REQUEST: &[u8] = b"GET /chat?a=b HTTP/1.1\r\nHost: a.example\r\nX-Y: \xffz\t1\r\nEmpty:\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

fn whole(bytes: &[u8], kind: HeadKind) -> Result<Option<usize>, Rejection> {
    head_end(bytes, 0, kind, &LIMITS)
}

fn status(bytes: &[u8]) -> Result<Option<usize>, u16> {
    whole(bytes, HeadKind::Request).map_err(|fault| fault.status.code())
}

/// The verdict on `bytes` fed in pieces of `step`; at every prefix, it must be the one on the prefix as a whole.
fn check_splits(bytes: &[u8], kind: HeadKind, step: usize) {
    let mut searched = 0;
    let mut verdict = Ok(None);
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        if verdict == Ok(None) {
            verdict = head_end(&bytes[..end], searched, kind, &LIMITS);
            searched = end;
        }
        assert_eq!(whole(&bytes[..end], kind), verdict, "{kind:?} {:?}", bytes[..end].escape_ascii().to_string());
    }
}

#[test]
fn h03_b01_heads_end_at_every_split() {
    for (head, kind) in [(REQUEST, HeadKind::Request), (RESPONSE, HeadKind::Response)] {
        let with_more = [head, b"\x81\x85rest\r\n\r\n"].concat();
        assert_eq!(whole(&with_more, kind), Ok(Some(head.len())));
        for first in 0..head.len() {
            assert_eq!(whole(&head[..first], kind), Ok(None), "{first}");
            for end in first..=with_more.len() {
                let expected = (end >= head.len()).then_some(head.len());
                assert_eq!(head_end(&with_more[..end], first, kind, &LIMITS), Ok(expected), "{first} {end}");
            }
        }
    }
}

#[test]
fn verdicts_on_wrong_heads_are_the_same_at_every_split() {
    for (head, kind) in [(REQUEST, HeadKind::Request), (RESPONSE, HeadKind::Response)] {
        for at in 0..head.len() {
            for &byte in b"\0\t\n\r\x15\x16 !\"#/.:019;@AP\\|\x7f\x80\xff" {
                let mut wrong = head.to_vec();
                wrong[at] = byte;
                check_splits(&wrong, kind, 1);
                wrong.insert(at, byte);
                check_splits(&wrong, kind, 3);
            }
        }
    }
}

#[test]
fn h04_h05_h06_h11_line_ends_and_control_bytes() {
    for bytes in [
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n",
        "GET / HTTP/1.1\r\nA\rB: c\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n",
        "GET / HTTP/1.1\r\n\rX",
        "GET / HTTP/1.1\r\r\n",
        "GET / HTTP/1.1\r\nA: b\0",
        "GET / HTTP/1.1\r\nA: b\x0b",
        "GET / HTTP/1.1\r\nA\x0c",
        "GET / HTTP/1.1\r\nA: b\x7f",
        "GET /\0",
        "GET /\x7f",
        "GET /\t",
    ] {
        assert_eq!(status(bytes.as_bytes()), Err(400), "{bytes:?}");
    }
}

#[test]
fn h25_h26_h27_h63_what_is_no_request_is_refused_at_once() {
    for (bytes, expected) in [
        (b"\x16\x03\x01\x02\x00\x01\x00".as_slice(), 400),
        (b"\x16", 400),
        (b"PRI * HTTP/2", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/3", 505),
        (b"\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\n", 400),
        (b"\n", 400),
        (b" GET", 400),
        (b"G\xc3", 400),
        (b"G(T", 400),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 400),
        (b"GET\r\n", 400),
        (b"GET /\r\n", 400),
        (b"GET  ", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET / HTTP/1.\r\n", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / http/1", 400),
        (b"GET / X", 400),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", 400),
        (b"\r\n\r\n\x00\r\nQUIT\n", 400),
    ] {
        assert_eq!(status(bytes), Err(expected), "{:?}", bytes.escape_ascii().to_string());
    }
    // The version is judged with the rest of the request: another method is the greater fault.
    assert_eq!(status(b"POST / HTTP/1.0\r\n"), Ok(None));
}

#[test]
fn targets_have_uri_bytes_only() {
    for byte in 0..=255_u8 {
        let line = [b"GET /".as_slice(), &[byte], b" HTTP/1.1\r\n"].concat();
        let allowed = byte == b' ' || (byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte));
        if byte != b' ' {
            assert_eq!(status(&line).is_ok(), allowed, "{byte:#x}");
        }
    }
}

#[test]
fn h51_b19_too_long_is_known_at_the_limit() {
    let target = |len: usize| [b"GET /".as_slice(), &vec![b'a'; len - 1]].concat();
    assert_eq!(status(&target(64)), Ok(None));
    assert_eq!(status(&target(65)), Err(414));

    let head = |len: usize| {
        let start = b"GET / HTTP/1.1\r\nA: ".as_slice();
        [start, &vec![b'a'; len - start.len() - 4], b"\r\n\r\n"].concat()
    };
    assert_eq!(status(&head(1024)), Ok(Some(1024)));
    assert_eq!(status(&head(1025)), Err(431));
    assert_eq!(status(&head(1024)[..1023]), Ok(None));
    assert_eq!(status(&head(9999)[..1024]), Err(431));

    let backend = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'a'; 2000]].concat();
    assert_eq!(whole(&backend, HeadKind::Response).map_err(|fault| fault.status.code()), Err(502));
}

#[test]
fn b20_what_is_no_response_is_refused_at_once() {
    for bytes in [
        b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
        b"S",
        b"\x15\x03\x01\x00\x02\x02\x0a",
        b"\x00\x00\x12\x04",
        b"HTTP/2.0 200 ",
        b"HTTP/1.1 20 ",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 20\r\n",
        b"HTTP/1.1  200",
        b"HTTP/1.1 -20",
        b"http/1.1",
        b"\r\n",
        b"\nHTTP",
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1 200 OK\0",
        b"HTTP/1.1 200 OK\r\nA: b\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc",
    ] {
        let fault = whole(bytes, HeadKind::Response).unwrap_err();
        assert_eq!(fault.status.code(), 502, "{:?}", bytes.escape_ascii().to_string());
        assert!(fault.text.starts_with("The backend"), "{}", fault.text);
    }
    assert_eq!(whole(b"HTTP/1.1 200 \r\n\r\n", HeadKind::Response), Ok(Some(17)));
}

#[test]
fn fields_are_split_and_trimmed() {
    let head = b"GET / HTTP/1.1\r\nA: b,, c \r\na:\t\tD\t\r\nB:\r\n\r\n";
    let fields = Fields::of(head, HeadKind::Request, &LIMITS).unwrap();
    assert_eq!(fields.all("a").collect::<Vec<_>>(), [b"b,, c".as_slice(), b"D"]);
    assert_eq!(fields.elements("A").collect::<Vec<_>>(), [b"b".as_slice(), b"c", b"D"]);
    assert_eq!((fields.only("A"), fields.only("b"), fields.only("c")), (None, Some(b"".as_slice()), None));
}

#[test]
fn h08_h09_h10_h51_fields_that_are_refused() {
    for (lines, expected) in [
        ("A : b\r\n", 400),
        ("A\t: b\r\n", 400),
        (": b\r\n", 400),
        ("A\r\n", 400),
        ("A b: c\r\n", 400),
        (" A: b\r\n", 400),
        ("A: b\r\n c\r\n", 400),
        ("A: b\r\n\tc: d\r\n", 400),
        ("A(b): c\r\n", 400),
        ("Ä: c\r\n", 400),
        (&"A: b\r\n".repeat(9), 431),
    ] {
        let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let fields = Fields::of(head.as_bytes(), HeadKind::Request, &LIMITS);
        assert_eq!(fields.err().map(|fault| fault.status.code()), Some(expected), "{lines:?}");
    }
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(8));
    assert!(Fields::of(head.as_bytes(), HeadKind::Request, &LIMITS).is_ok());
}
