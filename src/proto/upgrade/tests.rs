//! The handshake rows of the wire cases, by their ids: requests, what is forwarded of them, answers.

mod answers;
mod mutations;
mod plain;
mod requests;

use super::*;
use crate::proto::http::{HeadLimits, Rejection};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 4096, header_bytes_max: 4096, headers_max: 20, target_bytes_max: 256 };

/// The sample handshake of RFC 6455, 1.3.
const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
                    Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// `head` with one piece of it, which must be there, replaced.
fn but(head: &str, piece: &str, by: &str) -> String {
    assert!(head.contains(piece), "{piece:?}");
    head.replacen(piece, by, 1)
}

/// `head` with more header lines at its end.
fn plus(head: &str, lines: &str) -> String {
    let head = head.strip_suffix("\r\n").unwrap();
    format!("{head}{lines}\r\n\r\n")
}

fn checked(head: impl AsRef<[u8]>) -> Result<Request, Rejection> {
    request(head.as_ref(), &LIMITS).and_then(Incoming::into_upgrade)
}

fn forwarded(head: &str, edits: &[Edit<'_>]) -> String {
    let request = checked(head).unwrap_or_else(|fault| panic!("{}\n{head}", fault.text));
    String::from_utf8(request.forward(edits, None)).unwrap()
}
