//! What has been seen of one wire, in both directions.

use ringway::op::Side;

use crate::kernel::Wire;
use crate::peer::Peer;
use crate::shadow::{Follower, Limits, Output};

pub struct Track {
    side: Side,
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
    pub output: Output,
    /// Where the Close ends that the relay has sent.
    pub close_end: Option<usize>,
}

impl Track {
    pub fn new(side: Side) -> Self {
        Track {
            side,
            partner: None,
            source: None,
            fed: 0,
            checked: 0,
            head_end: None,
            status: 0,
            output: Output::default(),
            close_end: None,
        }
    }
}

/// Looks at the bytes that have come out on wire `at` since the last time.
pub fn judge(
    at: usize,
    tracks: &mut [Track],
    wires: &[Wire],
    peers: &[Option<Peer>],
    limits: Limits,
) -> Result<(), String> {
    let bytes = &wires[at].to_peer.bytes;
    if tracks[at].checked == bytes.len() {
        return Ok(());
    }
    let Some(head_end) = head_end(&mut tracks[at], bytes) else { return Ok(()) };
    let from = tracks[at].checked.max(head_end);
    tracks[at].checked = bytes.len();
    let Some(partner) = tracks[at].partner else {
        return if tracks[at].status == 101 { Err("a 101 out of nothing".into()) } else { Ok(()) };
    };
    let (client, backend) = if tracks[at].side == Side::Client { (at, partner) } else { (partner, at) };
    if tracks[at].side == Side::Client && tracks[at].status != 101 || from == bytes.len() && from > head_end {
        return Ok(());
    }
    let answer = peers[backend].as_ref().and_then(|peer| peer.right_answer);
    let is_open = answer.is_some_and(|end| wires[backend].heard >= end);
    if from == bytes.len() && tracks[at].side == Side::Backend {
        return Ok(());
    }
    if !is_open {
        return Err("bytes behind a head, or a 101, before a right 101 has come".into());
    }
    let deflate = [client, backend].iter().all(|wire| peers[*wire].as_ref().is_some_and(|peer| peer.deflate));
    follow(partner, tracks, wires, peers, deflate, limits);
    follow(at, tracks, wires, peers, deflate, limits);
    let source = tracks[partner].source.take().expect("just followed");
    let verdict = tracks[at].output.judge(&bytes[from..], &source);
    tracks[partner].source = Some(source);
    if tracks[at].output.closed.is_some() {
        tracks[at].close_end.get_or_insert(bytes.len());
    }
    verdict
}

fn head_end(track: &mut Track, bytes: &[u8]) -> Option<usize> {
    if track.head_end.is_none() {
        track.head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if track.head_end.is_some() && track.side == Side::Client {
            track.status = std::str::from_utf8(&bytes[9..12]).ok()?.parse().ok()?;
        }
    }
    track.head_end
}

/// Reads what the peer of this wire has sent since the last time.
fn follow(at: usize, tracks: &mut [Track], wires: &[Wire], peers: &[Option<Peer>], deflate: bool, limits: Limits) {
    let Some(from) = peers[at].as_ref().and_then(|peer| peer.frames_from) else { return };
    let track = &mut tracks[at];
    let sent = &wires[at].to_relay.bytes;
    let source = track.source.get_or_insert_with(|| Follower::new(track.side == Side::Client, deflate, limits));
    let from = from.max(track.fed).min(sent.len());
    source.feed(&sent[from..]);
    track.fed = sent.len();
}
