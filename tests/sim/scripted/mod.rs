//! Scripts for rules that are hard to hit from outside a process. Names begin with rows of the wire cases.

mod blame;
mod choice;
mod closing;
mod handshakes;
mod leave;
mod limits;
mod patience;
mod plain;
mod pools;
mod queues;
mod reload;
mod rooms;
mod unlent;

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

/// The client vanishes, and its backend, told so, ends the connection: the session is over.
#[track_caller]
fn end(stage: &mut Stage, client: ConnId) {
    stage.reset(client);
    let backend = client.peer();
    if stage.is_open(backend) && stage.receives(backend) {
        stage.eof(backend);
    }
    assert!(!stage.is_open(client) && !stage.is_open(backend), "a socket is still open");
}

#[track_caller]
fn assert_over(stage: &Stage, conns: [ConnId; 2]) {
    assert!(conns.iter().all(|conn| !stage.is_open(*conn)), "a socket is still open");
    assert_eq!(stage.metrics.sessions.get(), 0);
    assert_eq!(stage.metrics.accepted.get(), stage.metrics.ended.get());
    assert_eq!(stage.relay.leases(), 0);
}

/// The backends that were connected to, numbered in the order of their first time: round robin begins anywhere.
fn turns(stage: &Stage) -> Vec<usize> {
    let mut known = Vec::new();
    let number = |port: &u16| {
        let at = known.iter().position(|other| other == port);
        at.unwrap_or_else(|| {
            known.push(*port);
            known.len() - 1
        }) + 1
    };
    stage.dialled.iter().map(number).collect()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
