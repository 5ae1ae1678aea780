//! The answers to requests that are no upgrades: where their bodies end, how long they may take, and who goes away first.

use crate::harness::refusal;
use crate::plain::{ANSWER, answered, forwarded, plain, site, site_with, touchy};
use crate::site::ask;
use crate::wire::*;

/// One request, this answer in pieces of `size`, and the end of the backend's connection if it says so. Returns the head
/// and all that the client heard behind it.
fn heard(site: &crate::site::Site, answer: &str, size: usize, ends: bool) -> (Head, Vec<u8>) {
    let (mut client, mut backend, _) = forwarded(site, plain("GET /", &[], ""));
    for piece in answer.as_bytes().chunks(size) {
        // Behind the answer's end nobody listens any more.
        backend.send_or_lose(piece);
    }
    if ends {
        backend.finish();
    }
    let head = client.head();
    let (body, end) = client.rest();
    assert_eq!(end, End::Fin, "{answer:?}");
    (head, body)
}

#[test]
fn bodies_end_where_their_framing_says() {
    let site = site();
    let chunks = "5;x=y\r\nhello\r\n6 \r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    for (answer, body, ends) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more", "hello", false),
        (&*format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), chunks, false),
        ("HTTP/1.1 200 OK\r\n\r\nall there is", "all there is", true),
        ("HTTP/1.1 200 OK\r\n\r\n", "", true),
        ("HTTP/1.0 200 OK\r\n\r\nold", "old", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", "old", false),
        ("HTTP/1.1 404 None\r\nContent-Length: 4\r\n\r\nnone", "none", false),
        ("HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy", "busy", false),
        ("HTTP/1.1 302 \r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "", false),
    ] {
        for size in [usize::MAX, 1, 7] {
            let (head, got) = heard(&site, answer, size, ends);
            let start = answer.lines().next().unwrap().replace("HTTP/1.0", "HTTP/1.1");
            assert_eq!(head.start(), start);
            assert_eq!(got.escape_ascii().to_string(), body.as_bytes().escape_ascii().to_string(), "{answer:?}");
            assert_eq!(head.get("Connection").as_deref(), Some("close"));
            for line in ["Content-Length", "Transfer-Encoding", "Location", "Retry-After"] {
                let wanted = answer.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(": "));
                assert_eq!(head.get(line).as_deref(), wanted, "{line} of {answer:?}");
            }
        }
    }
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    let site = site();
    for answer in [
        "HTTP/1.1 204 Nothing\r\n\r\n",
        "HTTP/1.1 204 Nothing\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 304 Same\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let (head, body) = heard(&site, answer, usize::MAX, false);
        assert_eq!((head.start(), body.len()), (answer.lines().next().unwrap().to_string(), 0));
        assert_eq!(head.get("Transfer-Encoding"), None);
        // RFC 9110, 8.6: not in a 204, but a 304 may tell how long the body would be.
        let is_told = answer.contains("304") && answer.contains("Length");
        assert_eq!(head.get("Content-Length").is_some(), is_told);
    }
}

#[test]
fn what_comes_before_the_answer_is_skipped() {
    let site = site();
    for early in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"] {
        for (size, times) in [(usize::MAX, 1), (usize::MAX, 10), (3, 2)] {
            let (head, body) = heard(&site, &(early.repeat(times) + ANSWER), size, false);
            assert_eq!((head.start().as_str(), &body[..]), ("HTTP/1.1 200 OK", &b"hello"[..]));
            assert_eq!(head.get("Link"), None);
        }
        let (head, _) = heard(&site, &(early.repeat(11) + ANSWER), usize::MAX, false);
        assert_eq!(head.status(), 502);
    }
}

#[test]
fn answers_that_are_none_are_502() {
    let site = site();
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 600 No\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "",
        "HTTP/1.1 200 O",
    ] {
        let (head, _) = heard(&site, answer, usize::MAX, true);
        assert_eq!(head.status(), 502, "{answer:?}");
    }
}

#[test]
fn a_body_cut_short_looks_cut_short() {
    let site = site();
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nhello\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n", ""),
    ] {
        let (head, got) = heard(&site, answer, usize::MAX, true);
        assert_eq!((head.status(), got.as_slice()), (200, body.as_bytes()));
    }
}

#[test]
fn pages_of_failure_are_no_failures_of_the_backend() {
    let site = touchy("");
    for _ in 0..5 {
        let (head, _) = heard(&site, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", usize::MAX, false);
        assert_eq!(head.status(), 500);
    }
    site.goes_to("web", ask("a", "/", &[]));
    // A handshake that is answered so is one.
    let mut client = site.client();
    client.send(ask("a", "/", &[]));
    let mut backend = site.backend("web").accept();
    backend.head();
    backend.send("HTTP/1.1 503 Oops\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.head().status(), 503);
    assert_eq!(site.ejections(), 1);
}

#[test]
fn a_long_poll_waits_longer_than_a_handshake() {
    // Each of two clocks that have nothing to do with it has run out meanwhile.
    let site = site_with("timeouts.answer = \"1s\"\ntimeouts.idle = \"200ms\"\n");
    let (mut poll, mut polled, _) = forwarded(&site, plain("GET /poll", &[], ""));
    let mut client = site.client();
    client.send(ask("a", "/", &[]));
    let mut silent = site.backend("web").accept();
    silent.head();
    refusal(&mut client, &[504]);
    let (mut client, mut backend) = site.open("web", ask("a", "/", &[]));
    client.expect_close(&[1001]);
    backend.expect_close(&[1001]);
    drop((client, backend));
    answered(&mut poll, &mut polled);
}

#[test]
fn a_longer_poll_than_allowed_is_504() {
    let site = site_with("timeouts.plain_http = \"1s\"\n");
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /poll", &[], ""));
    refusal(&mut client, &[504]);
    backend.expect_end();
    // Nor do bytes behind the request keep it waiting.
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /poll", &[], ""));
    let writing = client.split().trickle(vec![b'x'; 10_000]);
    refusal(&mut client, &[504]);
    backend.expect_end();
    drop(client);
    writing.join().unwrap();
    // An answer that has begun is cut where it stops.
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /poll", &[], ""));
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.rest().0, b"hello");
    backend.expect_end();
}

#[test]
fn bytes_now_and_then_keep_an_answer_going() {
    let site = site_with("timeouts.plain_http = \"2s\"\ntimeouts.send_stall = \"2s\"\n");
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /events", &[], ""));
    backend.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    // Longer than any of its waits, in all.
    let event = b"data: x\n\n".to_vec();
    for _ in 0..40 {
        backend.send(&event);
        assert_eq!(client.bytes(event.len()), event, "at once, not when it is complete");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    backend.finish();
    client.expect_fin();
}

#[test]
fn an_upgrades_refusal_ends_whatever_the_client_goes_on_sending() {
    let site = site_with("timeouts.answer = \"1s\"\ntimeouts.send_stall = \"300ms\"\ntimeouts.linger = \"300ms\"\n");
    let mut client = site.client();
    client.send(ask("a", "/", &[]));
    let mut backend = site.backend("web").accept();
    backend.head();
    backend.send("HTTP/1.1 403 No\r\nContent-Length: 50\r\n\r\nbut");
    assert_eq!(client.head().status(), 403);
    let writing = client.split().trickle(vec![b'x'; 10_000]);
    backend.expect_end();
    drop(client);
    writing.join().unwrap();
}

#[test]
fn a_client_that_goes_away_takes_its_poll_with_it() {
    // A backend that hears of it may stop; one that does not care may still answer whoever has only stopped sending.
    let site = touchy("");
    for request in [plain("GET /poll", &[], ""), plain("POST /poll", &["Content-Length: 5"], "hello")] {
        let (client, mut backend, _) = forwarded(&site, &request);
        client.reset();
        backend.rest();
        let (client, mut backend, _) = forwarded(&site, &request);
        drop(client);
        assert_eq!(backend.rest().1, End::Fin);
        drop(backend);
        let (mut client, mut backend, _) = forwarded(&site, &request);
        client.finish();
        assert_eq!(backend.rest().1, End::Fin);
        backend.send(ANSWER);
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.rest(), (b"hello".to_vec(), End::Fin));
        // And in the middle of the answer.
        let (mut client, mut backend, _) = forwarded(&site, &request);
        backend.send("HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(client.head().status(), 200);
        drop(client);
        assert_eq!(backend.rest().1, End::Fin);
        drop(backend);
    }
    // None of this was the backend's fault.
    assert_eq!(site.ejections(), 0);
}

#[test]
fn a_client_that_has_said_all_before_there_is_a_backend() {
    let site = site();
    for body in ["", "hello"] {
        let mut client = site.client();
        client.send(plain("POST /", &[&format!("Content-Length: {}", body.len())], body));
        client.finish();
        let mut backend = site.backend("web").accept();
        backend.head();
        assert_eq!(backend.rest(), (body.as_bytes().to_vec(), End::Fin));
        backend.send(ANSWER);
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.rest(), (b"hello".to_vec(), End::Fin));
    }
}

#[test]
fn a_huge_answer_passes_whole_through_a_slow_reader() {
    let site = site_with("limits.response_body_bytes_max = \"1KiB\"\n");
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /", &[], ""));
    answered(&mut client, &mut backend);
    let before = site.relay.peak_kib();
    let body: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    for framing in [format!("Content-Length: {}", body.len()), "X: until-close".into()] {
        let (mut client, mut backend, _) = forwarded(&site, plain("GET /huge", &[], ""));
        backend.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
        let sent = body.clone();
        let writing = std::thread::spawn(move || {
            backend.send(sent);
            backend.finish();
        });
        assert_eq!(client.head().status(), 200);
        // While it reads nothing, another is served.
        let (mut other, mut others, _) = forwarded(&site, plain("GET /", &[], ""));
        answered(&mut other, &mut others);
        for piece in body.chunks(250_000) {
            assert!(client.bytes(piece.len()) == piece, "the body changed");
        }
        client.expect_fin();
        writing.join().unwrap();
    }
    let grown = site.relay.peak_kib() - before;
    assert!(grown < 4 << 10, "16 MB of answers cost {grown} KiB");
}

#[test]
fn a_relay_that_stops_lets_answers_finish() {
    let site = site();
    let (mut waiting, mut silent, _) = forwarded(&site, plain("GET /poll", &[], ""));
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /", &[], ""));
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.head().status(), 200);
    site.relay.signal("TERM");
    // Those without an answer have been asked, and may not be asked twice; the others get the rest of theirs.
    silent.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((waiting.head().status(), waiting.bytes(2)), (200, b"hi".to_vec()));
    waiting.expect_fin();
    backend.send("lo");
    assert_eq!(client.bytes(5), b"hello");
    client.expect_fin();
    drop((client, waiting));
    site.relay.ended();
}
