//! From accept to the 101.

use ringway::op::ReceiveEnd;

use super::*;
use crate::stage::{ANSWER, REQUEST, config};

#[track_caller]
fn assert_status(stage: &mut Stage, client: ConnId, status: &str) {
    let out = String::from_utf8(stage.out(client)).unwrap();
    assert!(out.starts_with(&format!("HTTP/1.1 {status} ")), "{out}");
    assert!(out.contains("Connection: close\r\n"), "{out}");
    assert!(stage.has_fin(client));
}

#[test]
fn h47_early_frames_wait_for_the_101() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    let backend = client.peer();
    let early = c(TEXT, b"early");
    stage.give(client, &[REQUEST, &early[..3]].concat());
    stage.give(client, &early[3..]);
    stage.connected(backend, Ok(()));
    assert!(stage.out(backend).ends_with(b"\r\n\r\n"), "not one byte behind the head");
    let first = s(TEXT, b"first");
    stage.give(backend, &[ANSWER, &first].concat());
    assert_eq!(stage.out(backend), early);
    assert_eq!(stage.out(client), [ANSWER, &first].concat());
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn h48_a_pipelined_request_is_a_bad_frame() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    let backend = client.peer();
    stage.give(client, &[REQUEST, b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, ANSWER);
    assert_close(&mut stage, backend, 1002);
    assert_eq!(stage.out(client), ANSWER);
    stage.give(backend, &s(CLOSE, &close_of(1002)));
    assert_close(&mut stage, client, 1002);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn h50_early_bytes_are_bounded() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    stage.give(client, &c(0x82, &[7; 16_000]));
    assert!(stage.receives(client));
    stage.give(client, &c(0x82, &[7; 400]));
    assert!(!stage.receives(client), "more than early_bytes_max is held");
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, ANSWER);
    assert_eq!(stage.out(backend).len(), 16_008 + 408);
    assert!(stage.receives(client), "reading goes on after the 101");
    stage.reset(backend);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn early_bytes_die_with_any_other_answer() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    let backend = client.peer();
    stage.give(client, &[REQUEST, &c(TEXT, b"early")].concat());
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(stage.out(backend), b"");
    let out = String::from_utf8(stage.out(client)).unwrap();
    assert!(out.starts_with("HTTP/1.1 403 Forbidden\r\n") && out.ends_with("\r\n\r\nno"), "{out}");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn h54_a_client_that_has_sent_fin_gets_its_answer() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    stage.eof(client);
    stage.connected(backend, Ok(()));
    stage.out(backend);
    stage.give(backend, ANSWER);
    assert!(stage.out(client).starts_with(ANSWER));
    assert_close(&mut stage, backend, 1001);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn h55_a_client_resets_while_its_backend_is_asked() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    stage.reset(client);
    assert_over(&stage, [client, backend]);

    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.reset(client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn b24_an_answer_before_the_whole_request() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    let backend = client.peer();
    stage.give(client, REQUEST);
    stage.stick(backend, Some(10));
    stage.connected(backend, Ok(()));
    assert!(stage.sends(backend) > 0);
    stage.give(backend, ANSWER);
    assert_status(&mut stage, client, "502");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn connects_are_tried_on_the_next_backend() {
    let mut stage = Stage::new(config(3), 4);
    let (client, backend) = stage.request();
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert!(stage.out(client).is_empty());
    // The second does not answer at all.
    stage.pass(ms(5001));
    assert_eq!(turns(&stage), [1, 2, 3]);
    stage.connected(backend, Ok(()));
    assert!(stage.out(backend).starts_with(b"GET "), "the head is sent once, to the one that is there");
    stage.give(backend, ANSWER);
    assert_eq!(stage.out(client), ANSWER);
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l11_all_backends_are_down() {
    let mut stage = Stage::new(config(2), 4);
    let (client, backend) = stage.request();
    stage.connected(backend, Err(libc::ECONNREFUSED));
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert_status(&mut stage, client, "503");
    assert_ends(&mut stage, [client, backend]);

    // Those that are down are tried nevertheless when there is nobody else.
    let (client, backend) = stage.request();
    assert_eq!(stage.dialled.len(), 3);
    stage.pass(ms(10_001));
    assert_status(&mut stage, client, "504");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn h52_h53_heads_have_a_deadline_however_they_trickle() {
    let mut stage = Stage::new(config(1), 4);
    let (slow, silent) = (stage.accept(), stage.accept());
    for byte in &REQUEST[..9] {
        stage.pass(ms(1100));
        stage.give(slow, &[*byte]);
    }
    assert!(stage.is_open(slow));
    stage.pass(ms(200));
    assert_status(&mut stage, slow, "408");
    assert!(!stage.is_open(silent), "who asks nothing hears nothing");
    // It may go on sending for a moment, but not for ever.
    stage.give(slow, b"still here");
    stage.pass(ms(2001));
    assert_over(&stage, [slow, silent]);
}

#[test]
fn b22_a_silent_backend() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.request();
    stage.connected(backend, Ok(()));
    stage.pass(ms(10_001));
    assert_status(&mut stage, client, "504");
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn l15_receives_that_end_by_themselves_are_armed_again_once() {
    let mut stage = Stage::new(config(1), 4);
    let (client, backend) = stage.open();
    for conn in [client, backend] {
        stage.end_receive(conn, ReceiveEnd::Cancelled);
        assert!(stage.receives(conn), "nobody had asked for the cancel");
        stage.end_receive(conn, ReceiveEnd::NoBuffers);
        assert!(stage.receives(conn), "there are buffers");
    }
    stage.reset(client);
    assert_ends(&mut stage, [client, backend]);
}

#[test]
fn a_request_that_is_cut_short_is_told_so_and_none_at_all_is_not() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    stage.give(client, b"GET /chat HTTP/1.1\r\nHost: a\r\n");
    stage.eof(client);
    let out = String::from_utf8(stage.out(client)).unwrap();
    assert!(out.starts_with("HTTP/1.1 400 ") && out.ends_with("The request is cut short.\n"), "{out}");
    let silent = stage.accept();
    stage.eof(silent);
    assert!(stage.out(silent).is_empty());
    assert!(!stage.is_open(client) && !stage.is_open(silent));
}

/// The refusal comes in the batch in which the time for it has passed as well.
#[test]
fn a_connect_fails_once() {
    let mut config = config(1);
    config.timeouts.connect = ms(100);
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.request();
    stage.now += ms(200);
    stage.connected(backend, Err(libc::ECONNREFUSED));
    assert_eq!(stage.metrics.connect_failures.get(), 1);
    assert!(stage.out(client).starts_with(b"HTTP/1.1 503 "), "refused, and not late");
    stage.eof(client);
    assert_over(&stage, [client, backend]);
}
