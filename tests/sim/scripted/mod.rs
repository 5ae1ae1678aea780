//! Scripts for rules that are hard to hit from outside a process. Names begin with rows of the wire cases.

mod blame;
mod closing;
mod handshakes;
mod limits;
mod patience;

use std::time::Duration;

use ringway::op::ConnId;

use crate::script::encode;
use crate::shadow::close_code;
use crate::stage::Stage;

/// A frame of the client's.
fn c(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, payload, Some([1, 2, 3, 4]))
}

/// A frame of the backend's.
fn s(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, payload, None)
}

fn close_of(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

const TEXT: u8 = 0x81;
const BEGIN: u8 = 0x01;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const BAD: u8 = 0x83;

/// What this peer has been sent is one Close with this code.
#[track_caller]
fn assert_close(stage: &mut Stage, conn: ConnId, code: u16) {
    let out = stage.out(conn);
    let masked = out.get(1).is_some_and(|second| second & 0x80 != 0);
    assert_eq!(out.first(), Some(&CLOSE), "{out:02x?}");
    assert_eq!(masked, conn.side() == ringway::op::Side::Backend, "{out:02x?}");
    assert_eq!(close_code(&out, masked), Some(code), "{out:02x?}");
    let whole = 2 + if masked { 4 } else { 0 } + usize::from(out[1] & 0x7F);
    assert_eq!(out.len(), whole, "something behind the Close: {out:02x?}");
}

/// Both peers send FIN if the relay still listens; then nothing may be left.
#[track_caller]
fn assert_ends(stage: &mut Stage, conns: [ConnId; 2]) {
    for conn in conns {
        if stage.is_open(conn) && stage.receives(conn) {
            stage.eof(conn);
        }
    }
    assert_over(stage, conns);
}

#[track_caller]
fn assert_over(stage: &Stage, conns: [ConnId; 2]) {
    assert!(conns.iter().all(|conn| !stage.is_open(*conn)), "a socket is still open");
    assert_eq!(stage.metrics.sessions.get(), 0);
    assert_eq!(stage.metrics.accepted.get(), stage.metrics.ended.get());
    assert_eq!(stage.relay.leases(), 0);
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
