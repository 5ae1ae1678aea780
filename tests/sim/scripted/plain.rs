//! Plain HTTP through a route that forwards it: the body up, the answer down, and who waits for whom.

use std::sync::atomic::Ordering::Relaxed;

use ringway::config::{Config, PlainHttp, Route};

use super::queues::{answer, assert_turned_away, served, waiting};
use super::*;
use crate::stage::{REQUEST, config};

/// One backend, and a route that forwards.
fn forwarding() -> Config {
    let mut config = config(1);
    let mut route = Route::catch_all("pages", 0, &config);
    route.plain_http = PlainHttp::Forward;
    config.routes.push(route);
    config
}

fn post(framing: &str) -> Vec<u8> {
    format!("POST /page HTTP/1.1\r\nHost: chat.example\r\n{framing}\r\n").into_bytes()
}

/// The client's request goes up; what the backend gets behind the head is not taken yet.
pub fn asked(stage: &mut Stage, request: &[u8]) -> (ConnId, ConnId) {
    let (client, backend) = stage.ask(request);
    stage.connected(backend, Ok(()));
    (client, backend)
}

#[track_caller]
fn assert_status(stage: &mut Stage, client: ConnId, status: &str) {
    let out = String::from_utf8(stage.out(client)).unwrap();
    assert!(out.starts_with(&format!("HTTP/1.1 {status} ")), "{out}");
    assert!(stage.has_fin(client));
}

fn split_head(bytes: Vec<u8>) -> (String, Vec<u8>) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

#[test]
fn a_body_goes_up_as_it_comes_and_the_answer_down() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = stage.ask(&[&post("Content-Length: 10\r\n")[..], b"abc"].concat());
    stage.give(client, b"def");
    stage.connected(backend, Ok(()));
    let (head, body) = split_head(stage.out(backend));
    assert!(head.starts_with("POST /page HTTP/1.1\r\n") && head.contains("Connection: close\r\n"), "{head}");
    assert!(head.contains("Content-Length: 10\r\n"), "{head}");
    assert_eq!(body, b"abcdef", "what has come before there was a backend");
    stage.give(client, b"ghij and what stands behind the body");
    assert_eq!(stage.out(backend), b"ghij", "there is one request per connection");
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour");
    assert!(stage.out(client).ends_with(b"\r\n\r\nfour") && !stage.has_fin(client));
    stage.give(backend, b"teen");
    assert_eq!(stage.out(client), b"teen");
    assert!(stage.has_fin(client) && !stage.is_open(backend));
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn an_answer_may_come_before_the_body_is_complete() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = asked(&mut stage, &[&post("Content-Length: 10\r\n")[..], b"abc"].concat());
    stage.out(backend);
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfo");
    assert!(stage.out(client).ends_with(b"\r\n\r\nfo"));
    // The rest still goes up, as the backend is still there.
    stage.give(client, b"defg");
    assert_eq!(stage.out(backend), b"defg");
    stage.give(backend, b"ur");
    assert_eq!(stage.out(client), b"ur");
    assert!(!stage.is_open(backend), "nobody is left who wants the rest");
    stage.give(client, b"hij");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_backend_that_does_not_read_stops_the_client() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = asked(&mut stage, &post("Content-Length: 1000000\r\n"));
    stage.out(backend);
    stage.stick(backend, Some(0));
    let mut given = 0;
    while stage.receives(client) && given < 1_000_000 {
        stage.give(client, &[b'x'; 4096]);
        given += 4096;
    }
    let window = stage.table.config.limits.window_bytes;
    assert!(given < 3 * window, "{given} bytes were taken, of a window of {window}");
    stage.stick(backend, None);
    stage.flush();
    assert_eq!(stage.out(backend).len(), given);
    assert!(stage.receives(client), "reading goes on");
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = asked(&mut stage, &post("Content-Length: 0\r\n"));
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    stage.out(client);
    stage.stick(client, Some(0));
    let mut given = 0;
    while stage.receives(backend) && given < 1_000_000 {
        stage.give(backend, &[b'x'; 4096]);
        given += 4096;
    }
    let window = stage.table.config.limits.window_bytes;
    assert!(given < 3 * window, "{given} bytes were taken, of a window of {window}");
    stage.stick(client, None);
    stage.flush();
    assert_eq!(stage.out(client).len(), given);
    assert!(stage.receives(backend), "reading goes on");
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = stage.ask(&post("Content-Length: 3\r\nExpect: 100-continue\r\n"));
    assert!(stage.out(client).is_empty(), "there is nobody yet to take it");
    stage.connected(backend, Ok(()));
    assert_eq!(stage.out(client), b"HTTP/1.1 100 Continue\r\n\r\n");
    let (head, _) = split_head(stage.out(backend));
    assert!(!head.contains("Expect"), "{head}");
    stage.give(client, b"abc");
    assert_eq!(stage.out(backend), b"abc");
    stage.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_status(&mut stage, client, "204");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_body_that_is_too_large_is_refused_as_soon_as_that_is_known() {
    let mut config = forwarding();
    config.routes[0].limits.request_body_bytes_max = Some(20);
    let mut stage = Stage::new(config.clone(), 4);
    let (client, backend) = stage.ask(&post("Content-Length: 21\r\n"));
    assert_status(&mut stage, client, "413");
    assert!(stage.dialled.is_empty());
    assert_ends(&mut stage, [client, backend]);

    let mut stage = Stage::new(config, 4);
    let (client, backend) = asked(&mut stage, &post("Transfer-Encoding: chunked\r\n"));
    stage.out(backend);
    stage.give(client, b"5\r\nabcde\r\n");
    assert_eq!(stage.out(backend), b"5\r\nabcde\r\n");
    stage.give(client, b"5\r\nfghij\r\n0\r\n\r\n");
    assert_eq!(stage.out(backend), b"");
    assert_status(&mut stage, client, "413");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_body_that_is_cut_short_or_wrong_is_the_clients_fault() {
    let bad_chunk: &[u8] = b"5\r\nabcdef\r\n";
    for (framing, body) in [("Content-Length: 10\r\n", &b"abc"[..]), ("Transfer-Encoding: chunked\r\n", bad_chunk)] {
        let mut stage = Stage::new(forwarding(), 4);
        let (client, backend) = asked(&mut stage, &post(framing));
        stage.give(client, body);
        if stage.receives(client) && stage.is_open(backend) {
            stage.eof(client);
        }
        assert_status(&mut stage, client, "400");
        assert!(!stage.is_open(backend));
        assert_ends(&mut stage, [client, backend]);
    }
}

/// Behind a whole request a FIN says nothing but that.
#[test]
fn a_client_may_send_fin_behind_its_request() {
    let mut stage = Stage::new(forwarding(), 4);
    let (client, backend) = asked(&mut stage, &[&post("Content-Length: 3\r\n")[..], b"abc"].concat());
    stage.eof(client);
    stage.give(backend, b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
    stage.eof(backend);
    assert!(stage.out(client).ends_with(b"\r\n\r\nuntil the end"));
    assert!(stage.has_fin(client));
    assert_over(&stage, [client, backend]);
}

#[test]
fn a_page_takes_as_long_as_its_bytes_move() {
    let mut config = forwarding();
    config.routes[0].timeouts.plain_http = ms(1000);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = asked(&mut stage, &post("Content-Length: 5\r\n"));
    for byte in b"abcde" {
        stage.pass(ms(900));
        stage.give(client, &[*byte]);
    }
    stage.pass(ms(900));
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    for byte in b"fghi" {
        stage.pass(ms(900));
        stage.give(backend, &[*byte]);
    }
    assert!(stage.out(client).ends_with(b"\r\n\r\nfghi"));
    stage.pass(ms(1001));
    assert_over(&stage, [client, backend]);

    // The backend is to blame for what it owes, the client for what it owes.
    for (body, status) in [("abcde", "504"), ("abc", "408")] {
        let (client, backend) = asked(&mut stage, &[&post("Content-Length: 5\r\n"), body.as_bytes()].concat());
        stage.pass(ms(1001));
        assert_status(&mut stage, client, status);
        assert_ends(&mut stage, [client, backend]);
    }
}

#[test]
fn where_it_is_not_forwarded_it_is_refused() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.ask(b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n");
    assert_status(&mut stage, client, "426");
    assert!(stage.dialled.is_empty());
    assert_ends(&mut stage, [client, backend]);
}

/// A client that takes its time, but takes something all the time.
#[test]
fn a_slow_client_of_a_long_page_is_waited_for() {
    let mut config = forwarding();
    config.routes[0].timeouts.plain_http = ms(10_000);
    config.routes[0].timeouts.send_stall = ms(25_000);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = asked(&mut stage, &post("Content-Length: 0\r\n"));
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    stage.out(client);
    stage.stick(client, Some(1000));
    while stage.receives(backend) {
        stage.give(backend, &[b'x'; 4096]);
    }
    stage.pass(ms(60_000));
    assert!(stage.is_open(client), "it has taken a thousand bytes each time");
    // It takes nothing any more.
    stage.stick(client, Some(0));
    stage.pass(ms(60_000));
    assert_over(&stage, [client, backend]);

    // Nor is a backend waited for that has nothing more to say.
    let (client, backend) = asked(&mut stage, &post("Content-Length: 0\r\n"));
    stage.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    stage.pass(ms(10_001));
    assert_over(&stage, [client, backend]);
}

const POLL: &[u8] = b"GET /poll HTTP/1.1\r\nHost: chat.example\r\n\r\n";

/// The backend that this client's poll has reached answers.
fn end_poll(stage: &mut Stage, client: ConnId) {
    if stage.out(client.peer()).is_empty() {
        stage.connected(client.peer(), Ok(()));
    }
    stage.give(client.peer(), b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_status(stage, client, "204");
    stage.eof(client);
    assert!(!stage.is_open(client) && !stage.is_open(client.peer()));
}

/// A poll is answered when there is something to say. That is no reason to keep a backend from handshakes.
#[test]
fn long_polls_take_no_handshakes() {
    let mut config = forwarding();
    config.pools[0].admission.backend_handshakes_max = Some(1);
    config.pools[0].admission.queue_max = 10;
    let mut stage = Stage::new(config, 16);
    // Some are connected, one is not yet.
    let mut polls: Vec<_> = (0..4).map(|_| asked(&mut stage, POLL).0).collect();
    polls.push(stage.ask(POLL).0);
    assert_eq!(served(&stage, &polls), [true; 5]);
    let handshakes = |stage: &Stage| stage.table.pools[0].members[0].state.handshakes.load(Relaxed);
    assert_eq!(handshakes(&stage), 0);

    let upgrades = [stage.request().0, stage.request().0];
    assert_eq!((served(&stage, &upgrades), handshakes(&stage)), (vec![true, false], 1));
    // A poll that ends makes no room for a handshake.
    end_poll(&mut stage, polls.pop().unwrap());
    assert_eq!((served(&stage, &upgrades), handshakes(&stage)), (vec![true, false], 1));
    answer(&mut stage, upgrades[0]);
    assert_eq!((served(&stage, &upgrades), handshakes(&stage)), (vec![true, true], 1));
    answer(&mut stage, upgrades[1]);
    assert_eq!(handshakes(&stage), 0);
    polls.into_iter().for_each(|poll| end_poll(&mut stage, poll));
    upgrades.into_iter().for_each(|client| end(&mut stage, client));
    assert_over(&stage, upgrades);
}

#[test]
fn plain_http_uses_up_no_rate() {
    let mut config = forwarding();
    config.pools[0].admission.handshakes_per_second_max = Some(1);
    config.pools[0].admission.handshakes_burst = Some(1);
    let mut stage = Stage::new(config, 16);
    stage.pass(ms(1000));
    let before: Vec<_> = (0..3).map(|_| stage.ask(POLL).0).collect();
    let (client, _) = stage.open();
    let late = stage.request().0;
    assert_turned_away(&mut stage, late);
    stage.eof(late);
    let behind: Vec<_> = (0..3).map(|_| stage.ask(POLL).0).collect();
    for poll in before.into_iter().chain(behind) {
        assert_eq!(served(&stage, &[poll]), [true]);
        end_poll(&mut stage, poll);
    }
    end(&mut stage, client);
    assert_over(&stage, [client, late]);
}

#[test]
fn plain_http_counts_among_the_connections_of_a_backend() {
    let mut config = forwarding();
    config.pools[0].connections_max = Some(2);
    let mut stage = Stage::new(config.clone(), 16);
    let polls = [stage.ask(POLL).0, stage.ask(POLL).0];
    let late = stage.ask(POLL).0;
    assert_turned_away(&mut stage, late);
    stage.eof(late);
    polls.into_iter().for_each(|poll| end_poll(&mut stage, poll));
    assert_over(&stage, polls);

    // Both kinds wait in one line, the last of it for a connection alone.
    config.pools[0].admission.queue_max = 10;
    config.pools[0].admission.backend_handshakes_max = Some(1);
    let mut stage = Stage::new(config, 16);
    let polls = [stage.ask(POLL).0, stage.ask(POLL).0];
    let line = [stage.ask(POLL).0, stage.request().0, stage.ask(POLL).0];
    assert_eq!((served(&stage, &line), waiting(&stage)), (vec![false; 3], 3));
    end_poll(&mut stage, polls[0]);
    assert_eq!(served(&stage, &line), [true, false, false]);
    end_poll(&mut stage, polls[1]);
    assert_eq!(served(&stage, &line), [true, true, false]);
    end_poll(&mut stage, line[0]);
    assert_eq!(served(&stage, &line), [false, true, true]);
    end_poll(&mut stage, line[2]);
    answer(&mut stage, line[1]);
    end(&mut stage, line[1]);
    assert_over(&stage, [line[1], line[1].peer()]);
}

/// It could go, as it needs no more than a connection: but it has come later.
#[test]
fn plain_http_does_not_overtake_handshakes_that_wait() {
    let mut config = forwarding();
    config.pools[0].admission.backend_handshakes_max = Some(1);
    config.pools[0].admission.queue_max = 10;
    let mut stage = Stage::new(config, 16);
    let first = stage.request().0;
    let line = [stage.request().0, stage.ask(POLL).0, stage.request().0, stage.ask(POLL).0];
    stage.pass(ms(50));
    assert_eq!((served(&stage, &line), waiting(&stage)), (vec![false; 4], 4));
    answer(&mut stage, first);
    assert_eq!(served(&stage, &line), [true, true, false, false]);
    end_poll(&mut stage, line[1]);
    assert_eq!(served(&stage, &line), [true, false, false, false]);
    answer(&mut stage, line[0]);
    assert_eq!(served(&stage, &line), [true, false, true, true]);
    assert_eq!(waiting(&stage), 0);
}

#[test]
fn a_breaker_that_is_open_stops_plain_http_too() {
    let mut config = forwarding();
    let breaker = &mut config.pools[0].breaker;
    (breaker.failures_percent, breaker.handshakes_min, breaker.open) = (Some(50), 1, ms(5000));
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.give(backend, b"HTTP/1.1 503 Oops\r\nContent-Length: 0\r\n\r\n");
    stage.eof(client);
    let poll = stage.ask(POLL).0;
    assert_turned_away(&mut stage, poll);
    stage.eof(poll);
    stage.pass(ms(5001));
    let poll = stage.ask(POLL).0;
    end_poll(&mut stage, poll);
    assert_over(&stage, [client, poll]);
}

/// Who has not been sent all of an answer must not take the connection's end for its end, also if the backend has long gone.
#[test]
fn field_a10_what_was_not_sent_is_not_the_whole() {
    const OPEN_ENDED: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 403 No\r\n\r\nwhy";
    let http10 = b"GET /poll HTTP/1.0\r\nHost: chat.example\r\n\r\n";
    for (request, answer) in [(POLL, OPEN_ENDED), (http10, CHUNKED), (REQUEST, REFUSED)] {
        for end in ["stall", "drain", "stop", "none"] {
            let mut config = forwarding();
            config.timeouts.drain = ms(5000);
            let mut stage = Stage::new(config, 4);
            let (client, backend) = asked(&mut stage, request);
            stage.stick(client, Some(0));
            stage.give(backend, answer.as_bytes());
            if stage.is_open(backend) {
                stage.eof(backend);
            }
            assert!(!stage.is_open(backend) && stage.is_open(client) && stage.sends(client) > 0);
            match end {
                "stall" => stage.pass(ms(31_000)),
                "drain" => {
                    stage.drain();
                    stage.pass(ms(5001));
                }
                "stop" => stage.stop(),
                _ => {
                    stage.stick(client, None);
                    stage.flush();
                    assert!(stage.has_fin(client));
                    stage.pass(ms(31_000));
                }
            }
            assert_eq!(stage.is_aborted(client), end != "none", "{answer:?}, {end}");
            assert_over(&stage, [client, backend]);
        }
    }
}

/// Of an answer whose end only the connection tells: what its backend has not finished must not look whole.
#[test]
fn field_a10_a_backend_that_resets_an_open_ended_answer_resets_the_client() {
    for (answer, aborted) in
        [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false)]
    {
        let mut stage = Stage::new(forwarding(), 4);
        let (client, backend) = asked(&mut stage, POLL);
        stage.give(backend, format!("{answer}hello").as_bytes());
        stage.reset(backend);
        assert!(stage.out(client).ends_with(b"hello"));
        if stage.is_open(client) {
            assert!(!aborted && stage.has_fin(client), "{answer:?}");
            stage.eof(client);
        }
        assert_eq!(stage.is_aborted(client), aborted, "{answer:?}");
        assert!(!stage.is_open(client));
    }
}
