//! What has been seen of one wire, in both directions.

use std::sync::Arc;
use std::time::Duration;

use ringway::op::Side;
use ringway::table::state::BackendState;

use crate::causes::{Rules, Times};
use crate::peer::Peer;
use crate::script::FROM_BACKEND;
use crate::shadow::{Follower, Limits, Output};
use crate::temper::Wire;

pub struct Track {
    pub side: Side,
    /// The wire of the session's other side.
    pub partner: Option<usize>,
    /// The frames that the peer sends.
    pub source: Option<Follower>,
    fed: usize,
    /// How much of what the relay sends has been looked at.
    checked: usize,
    /// Where the head that the relay sends ends, and its status if it is a response.
    pub head_end: Option<usize>,
    pub status: u16,
    /// What comes before the head that counts: a 100 of Ringway's own.
    pub continued: usize,
    /// The head is that of a backend's answer other than 101.
    pub is_page: bool,
    /// What its session's route forbids.
    pub limits: Limits,
    pub rules: Option<Rules>,
    pub backend: Option<Arc<BackendState>>,
    pub times: Times,
    pub began_at: Duration,
    /// The Close, or the status, has been held against its causes.
    pub is_judged: bool,
    pub output: Output,
    /// Where the Close ends that the relay has sent.
    pub close_end: Option<usize>,
}

impl Track {
    pub fn new(side: Side, now: Duration) -> Self {
        Track {
            side,
            partner: None,
            source: None,
            fed: 0,
            checked: 0,
            head_end: None,
            status: 0,
            continued: 0,
            is_page: false,
            limits: Limits { frame: u64::MAX, message: u64::MAX, fragments: u32::MAX },
            rules: None,
            backend: None,
            times: Times::begin(now),
            began_at: now,
            is_judged: false,
            output: Output::default(),
            close_end: None,
        }
    }
}

/// Looks at the bytes that have come out on wire `at` since the last time.
pub fn judge(at: usize, tracks: &mut [Track], wires: &[Wire], peers: &[Option<Peer>]) -> Result<(), String> {
    let bytes = &wires[at].to_peer.bytes;
    if tracks[at].checked == bytes.len() {
        return Ok(());
    }
    let Some(head_end) = head_end(&mut tracks[at], bytes) else { return Ok(()) };
    let from = tracks[at].checked.max(head_end);
    tracks[at].checked = bytes.len();
    let Some(partner) = tracks[at].partner else {
        let is_relayed = tracks[at].status == 101 || tracks[at].is_page;
        return if is_relayed { Err("an answer out of nothing".into()) } else { Ok(()) };
    };
    let (client, backend) = if tracks[at].side == Side::Client { (at, partner) } else { (partner, at) };
    if tracks[at].is_page || tracks[at].side == Side::Backend && peers[client].as_ref().is_some_and(|peer| peer.plain) {
        return judge_body(&tracks[at], at, partner, wires, peers);
    }
    if tracks[at].side == Side::Client && tracks[at].status != 101 || from == bytes.len() && from > head_end {
        return Ok(());
    }
    if from == bytes.len() && tracks[at].side == Side::Backend {
        return Ok(());
    }
    if !is_open(backend, wires, peers) {
        return Err("bytes behind a head, or a 101, before a right 101 has come".into());
    }
    follow_both(at, tracks, wires, peers);
    let source = tracks[partner].source.take().expect("just followed");
    let verdict = tracks[at].output.judge(&bytes[from..], &source);
    tracks[partner].source = Some(source);
    if tracks[at].output.closed.is_some() {
        tracks[at].close_end.get_or_insert(bytes.len());
    }
    verdict
}

/// Behind the head of a plain request, and behind that of an answer other than 101, there is what the other peer has sent
/// behind its own, and nothing else.
fn judge_body(track: &Track, at: usize, partner: usize, wires: &[Wire], peers: &[Option<Peer>]) -> Result<(), String> {
    let out = body_out(track, at, wires);
    let source = body_in(partner, wires, peers);
    match source.starts_with(out) {
        true => Ok(()),
        false => Err(format!("a body that its sender has not sent: {} bytes, of {}", out.len(), source.len())),
    }
}

/// Of a body, what has come out on this wire.
pub fn body_out<'a>(track: &Track, at: usize, wires: &'a [Wire]) -> &'a [u8] {
    &wires[at].to_peer.bytes[track.head_end.unwrap_or(wires[at].to_peer.bytes.len())..]
}

/// Of a body, what this wire's peer has sent and may pass.
pub fn body_in<'a>(at: usize, wires: &'a [Wire], peers: &'a [Option<Peer>]) -> &'a [u8] {
    match &peers[at] {
        Some(peer) if peer.side == Side::Client => &peer.body,
        Some(Peer { answered_from: Some(from), .. }) => &wires[at].to_relay.bytes[*from..],
        _ => &[],
    }
}

fn head_end(track: &mut Track, bytes: &[u8]) -> Option<usize> {
    if track.head_end.is_some() {
        return track.head_end;
    }
    let end = |from: usize| bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
    let is_client = track.side == Side::Client;
    if is_client && track.continued == 0 && bytes.starts_with(b"HTTP/1.1 100 ") {
        track.continued = end(0)?;
    }
    let head = track.continued..end(track.continued)?;
    track.head_end = Some(head.end);
    if is_client {
        let head = std::str::from_utf8(&bytes[head]).expect("heads are text");
        track.status = head[9..12].parse().expect("a status of three digits");
        track.is_page = head.contains(FROM_BACKEND);
    }
    track.head_end
}

/// The relay has got the right answer of this backend.
fn is_open(backend: usize, wires: &[Wire], peers: &[Option<Peer>]) -> bool {
    let answer = peers[backend].as_ref().and_then(|peer| peer.right_answer);
    answer.is_some_and(|end| wires[backend].heard >= end)
}

/// Reads what both peers of an open session have sent since the last time.
pub fn follow_both(at: usize, tracks: &mut [Track], wires: &[Wire], peers: &[Option<Peer>]) {
    let Some(partner) = tracks[at].partner else { return };
    let backend = if tracks[at].side == Side::Backend { at } else { partner };
    if !is_open(backend, wires, peers) {
        return;
    }
    let deflate = [at, partner].iter().all(|wire| peers[*wire].as_ref().is_some_and(|peer| peer.deflate));
    follow(at, tracks, wires, peers, deflate);
    follow(partner, tracks, wires, peers, deflate);
}

/// Reads what the peer of this wire has sent since the last time.
fn follow(at: usize, tracks: &mut [Track], wires: &[Wire], peers: &[Option<Peer>], deflate: bool) {
    let Some(from) = peers[at].as_ref().and_then(|peer| peer.frames_from) else { return };
    let track = &mut tracks[at];
    let sent = &wires[at].to_relay.bytes;
    let limits = track.limits;
    let source = track.source.get_or_insert_with(|| Follower::new(track.side == Side::Client, deflate, limits));
    let from = from.max(track.fed).min(sent.len());
    source.feed(&sent[from..]);
    track.fed = sent.len();
}
