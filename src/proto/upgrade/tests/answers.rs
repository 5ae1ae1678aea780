//! Answers: the one that opens the tunnel, those that are relayed, and those that are no answer.

use super::*;
use crate::proto::http::{Body, Chunked, HeadKind};

fn answered(head: &str) -> Result<Answer, Rejection> {
    answered_to(GOOD, head)
}

fn answered_to(request: &str, head: &str) -> Result<Answer, Rejection> {
    answer(head.as_bytes(), &checked(request).unwrap().offer, &LIMITS).map_err(|wrong| wrong.fault().clone())
}

#[track_caller]
fn refused(head: &str) {
    let fault = answered(head).expect_err(head);
    assert_eq!(fault.status.code(), 502);
    assert!(fault.text.starts_with("The backend's answer "), "{}", fault.text);
}

#[track_caller]
fn switched(head: &str) {
    assert_eq!(answered(head), as_it_came(false), "{head}");
}

fn as_it_came(deflate: bool) -> Result<Answer, Rejection> {
    Ok(Answer::Switched { agreement: Agreement { deflate }, mended: None })
}

/// The 101 opens the tunnel, and the client gets this head instead of it.
#[track_caller]
fn mended(head: &str, expected: &str) {
    match answered(head) {
        Ok(Answer::Switched { mended: Some(mended), .. }) => assert_eq!(String::from_utf8(mended).unwrap(), expected),
        other => panic!("{head}: {other:?}"),
    }
}

/// The head the client gets, and the body's framing.
#[track_caller]
fn relayed(head: &str) -> (String, Body) {
    match answered(head) {
        Ok(Answer::Response { head, body, .. }) => (String::from_utf8(head).unwrap(), body),
        other => panic!("{other:?}"),
    }
}

#[test]
fn b01_the_sample_of_the_rfc() {
    switched(SWITCHED);
    switched(&but(SWITCHED, "Sec-WebSocket-Protocol: chat\r\n", ""));
    switched(&but(
        SWITCHED,
        "Upgrade: websocket\r\nConnection: Upgrade",
        "UPGRADE: WebSocket\r\nconnection: keep-alive, upgrade",
    ));
    switched(&but(SWITCHED, "Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Accept:\ts3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t"));
    switched(&but(SWITCHED, "Switching Protocols", ""));
    switched(&plus(SWITCHED, "Server: x\r\nSet-Cookie: a\r\nSet-Cookie: b"));
}

#[test]
fn b04_accept() {
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    refused(&but(SWITCHED, &format!("{accept}\r\n"), ""));
    for value in [
        "",
        "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "s3pplmbitxaq9kygzzhzrbk+xoo=",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo==",
        "\"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\"",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=, x",
    ] {
        refused(&but(SWITCHED, accept, &format!("Sec-WebSocket-Accept: {value}")));
    }
    refused(&plus(SWITCHED, accept));
}

#[test]
fn b05_upgrade_and_connection() {
    for by in [
        "",
        "Upgrade: h2c\r\n",
        "Upgrade: foo\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: websocket\r\n",
        "Upgrade:\r\n",
    ] {
        refused(&but(SWITCHED, "Upgrade: websocket\r\n", by));
    }
    for by in ["", "Connection: close\r\n", "Connection: upgraded\r\n", "Connection:\r\n"] {
        refused(&but(SWITCHED, "Connection: Upgrade\r\n", by));
    }
}

#[test]
fn b07_subprotocols() {
    let protocol = "Sec-WebSocket-Protocol: chat\r\n";
    switched(&but(SWITCHED, protocol, "Sec-WebSocket-Protocol: superchat\r\n"));
    for value in
        ["other", "Chat", "chat, superchat", "chat,superchat", "", "cha", "chat\r\nSec-WebSocket-Protocol: superchat"]
    {
        refused(&but(SWITCHED, protocol, &format!("Sec-WebSocket-Protocol: {value}\r\n")));
    }
    let unasked = but(GOOD, "Sec-WebSocket-Protocol: chat, superchat\r\n", "");
    assert!(answered_to(&unasked, SWITCHED).is_err());
    assert!(answered_to(&unasked, &but(SWITCHED, "l: chat", "l:")).is_err());
    assert!(answered_to(&unasked, &but(SWITCHED, protocol, "")).is_ok());
}

#[test]
fn b08_extensions() {
    let to = |offer: &str, lines: &str| answered_to(&plus(GOOD, offer), &plus(SWITCHED, lines));
    let deflate = as_it_came(true);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits";
    for params in [
        "",
        "; server_max_window_bits=10",
        "; server_no_context_takeover; client_no_context_takeover",
        "; client_max_window_bits=9",
    ] {
        assert_eq!(to(offer, &format!("Sec-WebSocket-Extensions: permessage-deflate{params}")), deflate, "{params}");
    }
    assert_eq!(to(offer, "X: y"), as_it_came(false));
    for lines in [
        "Sec-WebSocket-Extensions: x-foo",
        "Sec-WebSocket-Extensions: permessage-deflate, x-foo",
        "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate",
        "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Extensions: permessage-deflate; x",
        "Sec-WebSocket-Extensions:",
        "Sec-WebSocket-Extensions: ,",
    ] {
        assert!(to(offer, lines).is_err(), "{lines}");
    }
    let answer = "Sec-WebSocket-Extensions: permessage-deflate";
    assert!(to("X: y", answer).is_err(), "not offered");
    assert!(to("Sec-WebSocket-Extensions: permessage-deflate; bad", answer).is_err(), "an offer that was dropped");
}

#[test]
fn b09_a_101_has_no_body() {
    for line in ["Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding:"]
    {
        refused(&plus(SWITCHED, line));
    }
}

#[test]
fn field_c08_no_length_at_all_is_left_out() {
    for line in
        ["Content-Length: 0", "content-length:0", "Content-Length: \t0 ", "Content-Length: 0\r\nContent-Length: 0"]
    {
        mended(&plus(SWITCHED, line), SWITCHED);
    }
    // In its place between others, which stay as they came.
    let around = |length: &str| {
        SWITCHED.replace("Upgrade: ", &format!("Content-Lengths: 0\r\n{length}upgrade-by:x\r\nUpgrade: "))
    };
    mended(&around("CONTENT-LENGTH: 0\r\n"), &around(""));
    for line in ["00", "+0", "-0", "0x0", "0, 0", "", "0;", "1", "0\r\nContent-Length: 1"] {
        refused(&plus(SWITCHED, &format!("Content-Length: {line}")));
    }
    refused(&plus(SWITCHED, "Content-Length: 0\r\nTransfer-Encoding: chunked"));
}

#[test]
fn field_r05_a_status_line_may_end_behind_the_code() {
    mended(&but(SWITCHED, " Switching Protocols", ""), &but(SWITCHED, "Switching Protocols", ""));
    mended(
        &plus(&but(SWITCHED, " Switching Protocols", ""), "Content-Length: 0"),
        &but(SWITCHED, "Switching Protocols", ""),
    );
    assert_eq!(answered("HTTP/1.1 100\r\n\r\n"), Ok(Answer::Informational));
    for (status, sent) in
        [("403", "HTTP/1.1 403 "), ("503", "HTTP/1.1 503 "), ("204", "HTTP/1.1 204 "), ("403 ", "HTTP/1.1 403 ")]
    {
        let (head, _) = relayed(&format!("HTTP/1.1 {status}\r\nX-A: 1\r\n\r\n"));
        assert_eq!(head, format!("{sent}\r\nX-A: 1\r\nConnection: close\r\n\r\n"));
    }
    for line in ["HTTP/1.1 10\r\n", "HTTP/1.1\r\n", "HTTP/1.1 \r\n", "HTTP/1.1 101\tx\r\n", "HTTP/1.1 1011\r\n"] {
        refused(&but(SWITCHED, "HTTP/1.1 101 Switching Protocols\r\n", line));
    }
}

#[test]
fn b11_informational_answers_are_not_the_last() {
    for head in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 \r\nLink: </a>\r\n\r\n", "HTTP/1.1 199 x\r\n\r\n"] {
        assert_eq!(answered(head), Ok(Answer::Informational));
    }
}

#[test]
fn b12_a_200_opens_no_tunnel() {
    let (head, body) = relayed(&but(SWITCHED, "101 Switching Protocols", "200 OK"));
    let expected = "HTTP/1.1 200 OK\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nConnection: close\r\n\r\n";
    assert_eq!((head.as_str(), body), (expected, Body::UntilClose));
}

#[test]
fn b13_b15_other_answers_are_relayed() {
    let (head, body) = relayed(
        "HTTP/1.1 401 Who are you\r\nDate: x\r\nSet-Cookie: a=1\r\nwww-authenticate: Basic, Digest\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\n\
         WWW-Authenticate: Bearer\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 12\r\nX-Empty:\r\n\r\n",
    );
    let expected = "HTTP/1.1 401 Who are you\r\nDate: x\r\nSet-Cookie: a=1\r\nwww-authenticate: Basic, Digest\r\nSet-Cookie: b=2\r\n\
                    WWW-Authenticate: Bearer\r\nContent-Length: 12\r\nX-Empty: \r\nConnection: close\r\n\r\n";
    assert_eq!((head.as_str(), body), (expected, Body::Length(12)));
}

#[test]
fn bodies_are_framed_as_they_came() {
    let with = |status: u16, lines: &str| relayed(&format!("HTTP/1.1 {status} X\r\n{lines}\r\n"));
    let head = |status: u16, lines: &str| format!("HTTP/1.1 {status} X\r\n{lines}Connection: close\r\n\r\n");
    let (length, chunked) = ("Content-Length: 7\r\n", "Transfer-Encoding: Chunked\r\n");
    for (status, lines, kept, body) in [
        (200, length, length, Body::Length(7)),
        (200, chunked, chunked, Body::Chunked(Chunked::of(HeadKind::Response))),
        (503, "", "", Body::UntilClose),
        (204, length, "", Body::None),
        (304, length, length, Body::None),
        (304, chunked, "", Body::None),
        (200, "Connection: content-length\r\nContent-Length: 7\r\n", length, Body::Length(7)),
    ] {
        assert_eq!(with(status, lines), (head(status, kept), body), "{status} {lines}");
    }
    let (head, body) = relayed("HTTP/1.0 200 OK\r\nA: b\r\n\r\n");
    assert_eq!((head.as_str(), body), ("HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n", Body::UntilClose));
}

#[test]
fn bodies_that_could_end_in_two_places() {
    for lines in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1, 1",
        "Content-Length: x",
        "Content-Length: +1",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:",
    ] {
        refused(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"));
    }
    refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn b17_a_426_keeps_what_it_asks_for() {
    let (head, _) = relayed(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13, 8\r\nContent-Length: 0\r\n\r\n",
    );
    let expected = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13, 8\r\nContent-Length: 0\r\n\
                    Connection: close, Upgrade\r\n\r\n";
    assert_eq!(head, expected);
    let (head, _) = relayed("HTTP/1.1 403 No\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(head, "HTTP/1.1 403 No\r\nConnection: close\r\n\r\n");
}

#[test]
fn b19_b20_no_answers() {
    refused(&but(SWITCHED, "HTTP/1.1", "HTTP/1.0"));
    refused(&but(SWITCHED, "HTTP/1.1", "HTTP/1.2"));
    refused(&but(SWITCHED, "HTTP/1.1", "HTTP/2.0"));
    for status in ["000", "099", "600", "999", "1", "10 1"] {
        refused(&but(SWITCHED, "101", status));
    }
    refused(&SWITCHED.replace("\r\n", "\n"));
    refused(&plus(SWITCHED, "A: b\r\n c"));
    refused(&plus(SWITCHED, "A : b"));
    refused(&plus(SWITCHED, "A: \0"));
    refused(&plus(SWITCHED, &["A: b"; 17].join("\r\n")));
    refused(&plus(SWITCHED, &format!("A: {}", "b".repeat(5000))));
    refused("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    refused("\x15\x03\x01\0\x02\x02\n");
    refused("");
    refused(&SWITCHED[..SWITCHED.len() - 1]);
    refused(&format!("{SWITCHED}\r\n"));
}
