//! Once a session is warm, relaying allocates nothing: neither for whole messages nor for split ones, neither for one at
//! a time nor for many at once.

#[allow(dead_code)] // the simulation's scripts use the rest
#[path = "sim/stage.rs"]
mod stage;

use allocation_counter::measure;
use ringway::op::ConnId;
use stage::{Stage, config};

const WARM_UP: u32 = 200;
const ROUNDS: u32 = 2000;

/// A binary message of up to 65,535 bytes.
fn message(masked: bool, len: usize) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    if len < 126 {
        frame.push(bit | len as u8);
    } else {
        frame.push(bit | 126);
        frame.extend((len as u16).to_be_bytes());
    }
    if masked {
        frame.extend([1, 2, 3, 4]);
    }
    frame.extend(std::iter::repeat_n(7, len));
    frame
}

#[track_caller]
fn assert_allocates_nothing(sessions: usize, mut round: impl FnMut(&mut Stage, &[(ConnId, ConnId)])) {
    let mut stage = Stage::new(config(1), sessions);
    let open: Vec<_> = (0..sessions).map(|_| stage.open()).collect();
    stage.records = false;
    (0..WARM_UP).for_each(|_| round(&mut stage, &open));
    let before = stage.metrics.messages_in.get() + stage.metrics.messages_out.get();
    let counted = measure(|| (0..ROUNDS).for_each(|_| round(&mut stage, &open)));
    let relayed = stage.metrics.messages_in.get() + stage.metrics.messages_out.get() - before;
    assert!(relayed >= u64::from(ROUNDS), "only {relayed} messages");
    assert_eq!(counted.count_total, 0, "{relayed} messages, {counted:?}");
    assert_eq!(stage.relay.leases(), 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1_u8; 100]))).count_total, 1);
}

#[test]
fn whole_messages() {
    let (ask, answer) = (message(true, 64), message(false, 64));
    assert_allocates_nothing(1, |stage, open| {
        let (client, backend) = open[0];
        stage.give(client, &ask);
        stage.give(backend, &answer);
    });
}

#[test]
fn many_sessions_in_one_batch() {
    let (ask, answer) = (message(true, 64), message(false, 64));
    assert_allocates_nothing(100, |stage, open| {
        for (client, backend) in open {
            stage.put(*client, &ask);
            stage.put(*backend, &answer);
        }
        stage.end_batch();
        stage.flush();
    });
}

#[test]
fn split_headers() {
    let (ask, answer) = (message(true, 300), message(false, 300));
    assert_allocates_nothing(1, |stage, open| {
        let (client, backend) = open[0];
        for at in 1..8 {
            stage.give(client, &ask[..at]);
            stage.give(client, &ask[at..]);
        }
        for at in 1..4 {
            stage.give(backend, &answer[..at]);
            stage.give(backend, &answer[at..]);
        }
    });
}

/// A send is vectored when several pieces came in one batch, or while another send was in flight.
#[test]
fn vectored_batches() {
    let ask = message(true, 64);
    assert_allocates_nothing(1, |stage, open| {
        let (client, backend) = open[0];
        for _ in 0..8 {
            stage.put(client, &ask);
        }
        stage.end_batch();
        for _ in 0..8 {
            stage.put(client, &ask);
            stage.end_batch();
        }
        stage.end_send(backend, 100);
        stage.end_batch();
        stage.flush();
    });
}

#[test]
fn bulk() {
    let answer = message(false, 65_535);
    assert_allocates_nothing(1, |stage, open| {
        let (_, backend) = open[0];
        stage.give(backend, &answer);
    });
}

/// More is held than the window: reading stops, and goes on when the queue has drained.
#[test]
fn stop_and_go() {
    let answer = message(false, 4000);
    assert_allocates_nothing(1, |stage, open| {
        let (client, backend) = open[0];
        stage.stick(client, Some(0));
        while stage.receives(backend) {
            stage.put(backend, &answer);
            stage.end_batch();
        }
        stage.stick(client, None);
        stage.flush();
    });
}
