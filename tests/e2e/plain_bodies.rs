//! The bodies of requests that are no upgrades: how they go up, how large they may be, and when they end too early.

use crate::harness::{refusal, until};
use crate::plain::{ANSWER, answered, forwarded, plain, site, site_with, touchy};
use crate::site::ask;

const CHUNKS: &str = "5;a=\"b c\"\r\nhello\r\n000C\r\n big, world!\r\n0\r\n\r\n";

#[test]
fn bodies_arrive_whole_at_every_split() {
    let site = site();
    for (line, body) in [("Content-Length: 11", "hello world"), ("Transfer-Encoding: chunked", CHUNKS)] {
        let request = plain("POST /", &["Content-Type: text/plain", line], body);
        for at in request.len() - body.len() - 4..=request.len() {
            let (now, later) = request.split_at(at);
            let mut client = site.client();
            client.send(now);
            // With the whole head there is a backend before the rest of the body.
            let early = (at >= request.len() - body.len()).then(|| site.backend("web").accept());
            client.send(later);
            let mut backend = early.unwrap_or_else(|| site.backend("web").accept());
            let seen = backend.head();
            assert!(seen.text().to_ascii_lowercase().contains(&line.to_ascii_lowercase()));
            assert_eq!(backend.bytes(body.len()), body.as_bytes(), "split at {at}");
            answered(&mut client, &mut backend);
        }
        let mut client = site.client();
        client.send_in_pieces(&request, 1);
        let mut backend = site.backend("web").accept();
        backend.head();
        assert_eq!(backend.bytes(body.len()), body.as_bytes());
        answered(&mut client, &mut backend);
    }
}

#[test]
fn large_bodies_reach_a_slow_backend_whole() {
    let site = site_with("limits.request_body_bytes_max = \"off\"\n");
    let body: Vec<u8> = (0..6_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let mut chunked = Vec::new();
    for chunk in body.chunks(70_001) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    // What a warm relay has without them.
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /", &[], ""));
    answered(&mut client, &mut backend);
    let before = site.relay.peak_kib();
    for (line, body) in
        [(format!("Content-Length: {}", body.len()), &body), ("Transfer-Encoding: chunked".into(), &chunked)]
    {
        let (mut client, mut backend, _) = forwarded(&site, plain("POST /", &[&line], ""));
        let mut writer = client.split();
        let sent = body.clone();
        let writing = std::thread::spawn(move || _ = writer.send(sent));
        // Somebody else is served while the backend has read nothing.
        let (mut other, mut others, _) = forwarded(&site, plain("GET /", &[], ""));
        answered(&mut other, &mut others);
        assert!(backend.bytes(body.len()) == *body, "the body changed");
        writing.join().unwrap();
        answered(&mut client, &mut backend);
    }
    let grown = site.relay.peak_kib() - before;
    assert!(grown < 4 << 10, "12 MB of bodies cost {grown} KiB");
}

#[test]
fn who_waits_for_100_gets_it_from_the_relay() {
    let site = site_with("limits.request_body_bytes_max = \"1MiB\"\n");
    for (line, body) in [("Content-Length: 11", "hello world"), ("Transfer-Encoding: chunked", CHUNKS)] {
        let (mut client, mut backend, seen) = forwarded(&site, plain("POST /", &[line, "Expect: 100-Continue"], ""));
        assert_eq!(seen.get("Expect"), None);
        assert_eq!(client.head().start(), "HTTP/1.1 100 Continue");
        client.send(body);
        assert_eq!(backend.bytes(body.len()), body.as_bytes());
        // The backend's own is not passed on as well.
        backend.send("HTTP/1.1 100 Continue\r\n\r\n");
        answered(&mut client, &mut backend);
    }
    // Nobody who has begun already, or has nothing to send, is told to begin.
    for (line, body) in
        [("Content-Length: 5", "hello"), ("Content-Length: 5", "h"), ("Content-Length: 0", ""), ("X: y", "")]
    {
        let (mut client, mut backend, _) = forwarded(&site, plain("POST /", &[line, "Expect: 100-continue"], body));
        if line == "Content-Length: 5" {
            client.send(&"hello"[body.len()..]);
            assert_eq!(backend.bytes(5), b"hello");
        }
        answered(&mut client, &mut backend);
    }
    for expected in ["200-ok", "100-continue, x", "100-continue=1"] {
        let expect = format!("Expect: {expected}");
        site.refused(plain("POST /", &["Content-Length: 5", &expect], ""), &[417]);
    }
    // Nor is anyone invited whose body would not be taken.
    let huge = ["Content-Length: 1048577", "Expect: 100-continue"];
    site.refused(plain("POST /", &huge, ""), &[413]);
}

#[test]
fn bodies_beyond_the_limit_are_413() {
    let site = site_with(
        "limits.request_body_bytes_max = \"20B\"\n[[routes]]\npath = \"/more\"\npool = \"web\"\nplain_http = \"forward\"\n",
    );
    let length = |path: &str, size: usize| {
        plain(&format!("POST {path}"), &[&format!("Content-Length: {size}")], &"x".repeat(size))
    };
    let chunked = |path: &str, size: usize| {
        let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        plain(&format!("POST {path}"), &["Transfer-Encoding: chunked"], &body)
    };
    let body_of = |request: &str| request.split_once("\r\n\r\n").unwrap().1.len();
    for good in [length("/", 20), length("/more", 2000), chunked("/", 10), chunked("/more", 2000)] {
        let (mut client, mut backend, _) = forwarded(&site, &good);
        backend.bytes(body_of(&good));
        answered(&mut client, &mut backend);
    }
    for size in [21, 1000, 1_000_000_000] {
        site.refused(plain("POST /", &[&format!("Content-Length: {size}")], "x"), &[413]);
    }
    // Without a length the backend may hear of it, but never the end: framing counts.
    for size in [11, 1000, 100_000] {
        for at_once in [true, false] {
            let request = chunked("/", size);
            let (now, later) =
                request.split_at(if at_once { request.len() } else { request.len() - body_of(&request) + 6 });
            let mut client = site.client();
            client.send_or_lose(now);
            let mut backend = site.backend("web").accept();
            if !at_once {
                backend.head();
                assert_eq!(backend.bytes(6), now.as_bytes()[now.len() - 6..]);
                client.send_or_lose(later);
            }
            refusal(&mut client, &[413]);
            let (heard, _) = backend.rest();
            let body = heard.split(|byte| *byte == b'\n').next_back().unwrap();
            assert!(body.len() <= 20 && !heard.ends_with(b"x\r\n0\r\n\r\n"), "{}", heard.escape_ascii());
        }
    }
}

#[test]
fn h45_broken_chunks_end_the_request_where_they_are() {
    let site = site();
    for bad in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nhello",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
    ] {
        for pieces in [1, usize::MAX] {
            let mut client = site.client();
            client.send(plain("POST /", &["Transfer-Encoding: chunked"], ""));
            let mut backend = site.backend("web").accept();
            backend.head();
            for piece in bad.as_bytes().chunks(pieces) {
                client.send_or_lose(piece);
            }
            eprintln!("case {bad:?}");
            refusal(&mut client, &[400]);
            let (heard, _) = backend.rest();
            assert!(bad.as_bytes().starts_with(&heard) && heard.len() < bad.len(), "{}", heard.escape_ascii());
        }
    }
    site.goes_to("web", ask("chat.example", "/", &[]));
}

#[test]
fn a_body_cut_short_is_a_400() {
    let site = site();
    for (line, body) in
        [("Content-Length: 11", "hello"), ("Content-Length: 11", ""), ("Transfer-Encoding: chunked", "5\r\nhel")]
    {
        let mut client = site.client();
        // FIN may come with the head, before there is a backend.
        client.send(plain("POST /", &[line], body));
        client.finish();
        refusal(&mut client, &[400]);
        site.backend("web").accept().rest();
        let (mut client, mut backend, _) = forwarded(&site, plain("POST /", &[line], body));
        client.finish();
        refusal(&mut client, &[400]);
        backend.rest();
    }
}

#[test]
fn clients_that_stop_sending_are_no_fault_of_the_backend() {
    // One bad mark would be enough to take it out.
    let site = touchy("timeouts.plain_http = \"1s\"\n");
    for _ in 0..3 {
        let (mut client, mut backend, _) = forwarded(&site, plain("POST /", &["Content-Length: 11"], "hello"));
        refusal(&mut client, &[408]);
        backend.rest();
        let (client, mut backend, _) = forwarded(&site, plain("POST /", &["Content-Length: 11"], "hello"));
        client.reset();
        backend.rest();
    }
    let (mut client, mut backend, _) = forwarded(&site, plain("GET /", &[], ""));
    answered(&mut client, &mut backend);
    assert_eq!(site.ejections(), 0);
}

#[test]
fn a_backend_may_answer_before_it_has_the_body() {
    let site = site_with("limits.request_body_bytes_max = \"off\"\n");
    let head = plain("POST /", &["Content-Length: 4000000"], "");
    let body = vec![b'x'; 4_000_000];
    for reads_on in [true, false] {
        let (mut client, mut backend, _) = forwarded(&site, &head);
        let mut writer = client.split();
        let sent = body.clone();
        let writing = std::thread::spawn(move || writer.send_or_lose(sent));
        // The relay has more for the backend than that takes.
        until("the body is under way", || backend.stream.peek(&mut [0; 1024]).is_ok_and(|n| n == 1024));
        backend.send("HTTP/1.1 413 Too Much\r\nContent-Length: 5\r\n\r\n");
        match reads_on {
            true => _ = backend.send("sorry"),
            // With bytes that nobody has read: the kernel sends RST, right behind the answer.
            false => {
                backend.send("sorry");
                drop(backend);
            }
        }
        let heard = client.head();
        assert_eq!(heard.start(), "HTTP/1.1 413 Too Much");
        assert_eq!(client.bytes(5), b"sorry");
        writing.join().unwrap();
    }
}

#[test]
fn what_comes_behind_the_answer_of_an_unfinished_request_is_dropped() {
    let site = site();
    let (mut client, mut backend, _) = forwarded(&site, plain("POST /", &["Content-Length: 11"], "hello"));
    assert_eq!(backend.bytes(5), b"hello");
    backend.send(ANSWER);
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.bytes(5), b"hello");
    client.send_or_lose(" world");
    client.expect_fin();
    client.finish();
    let (late, _) = backend.rest();
    assert!(b" world".starts_with(late.as_slice()), "{}", late.escape_ascii());
}
