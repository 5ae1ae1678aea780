//! Once a session is warm, relaying allocates nothing: neither for whole messages nor for split ones, neither for one at
//! a time nor for many at once.

#[allow(dead_code)] // the simulation's scripts use the rest
#[path = "kernel/mod.rs"]
mod kernel;
#[allow(dead_code)]
#[path = "kernel/stage.rs"]
mod stage;

use allocation_counter::measure;
use ringway::config::{Address, Config};
use ringway::op::ConnId;
use ringway::table::Found;
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

/// What so many sessions hold that come one after the other, with something in between each time.
fn held(config: Config, mut between: impl FnMut(&mut Stage, u16)) -> i64 {
    let mut stage = Stage::new(config, 1100);
    for _ in 0..50 {
        stage.open();
    }
    measure(|| {
        for number in 0..GENERATIONS {
            between(&mut stage, number);
            stage.open();
        }
    })
    .bytes_current
}

/// So many backends make a table of some 40 KiB.
fn many_backends(first: u16) -> Config {
    let addresses = (first..first + 100).map(|port| Address::Inet(([127, 0, 0, 1], port).into()));
    let mut config = config(1);
    config.pools[0].backends = addresses.map(Into::into).collect();
    config
}

const GENERATIONS: u16 = 1000;

/// Sessions last for days, and the answers of DNS for seconds.
#[test]
fn field_a09_sessions_of_many_tables_hold_little_more_than_those_of_one() {
    let of_one = held(many_backends(1), |_, _| {});
    let more_than = |of_one: i64, between: &mut dyn FnMut(&mut Stage, u16)| {
        (held(many_backends(1), between) - of_one) / i64::from(GENERATIONS)
    };
    let same = more_than(of_one, &mut |stage, _| stage.reload(many_backends(1)));
    assert!(same < 16, "{same} bytes more per session and reload of the same");
    let discovered = more_than(of_one, &mut |stage, number| {
        let found = (number..number + 100).map(|port| Address::Inet(([127, 0, 0, 2], port).into()).into()).collect();
        let found = Found::from([("chat".into(), found)]);
        let table = stage.table.next(stage.table.config.clone(), &found, stage.now);
        stage.adopt(table, &[0]);
    });
    assert!(discovered < 1024, "{discovered} bytes more per session and answer of DNS");
    let moved = more_than(of_one, &mut |stage, number| stage.reload(many_backends(number * 2 + 1)));
    assert!(moved < 1536, "{moved} bytes more per session and reload with other backends");
    let limited = more_than(of_one, &mut |stage, number| {
        let mut config = many_backends(1);
        config.limits.frame_bytes_max = Some(1000 + u64::from(number));
        config.pools[0].eject.clients_min = 1 + u32::from(number);
        stage.reload(config);
    });
    assert!(limited < 4096, "{limited} bytes more per session and reload with other limits");
    let renamed = more_than(of_one, &mut |stage, number| {
        let mut config = many_backends(1);
        config.pools[0].name = format!("chat {number}");
        stage.reload(config);
    });
    assert!(renamed < 8192, "{renamed} bytes more per session and reload with another pool");
}
