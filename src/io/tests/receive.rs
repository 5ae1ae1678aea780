use std::io::Write;
use std::net::Shutdown;

use super::kit::{Heard, Setup, kit, kit_with, write};
use crate::engine::Engine;
use crate::op::{Group, InFlight, Op};

#[test]
fn one_receive_goes_on() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.pair(1);
    kit.receive(conn, 1 << 20);
    for text in ["one", "two", "three"] {
        write(&peer, text.as_bytes());
        let Heard::Data { conn: of, lease, bytes, more } = kit.hear_one() else { panic!() };
        assert_eq!((of, &bytes[..], more), (conn, text.as_bytes(), true));
        assert_eq!(kit.ring.leases(), 1);
        kit.recycle(lease);
        assert_eq!(kit.ring.leases(), 0);
    }
    drop(peer);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "eof")));
    kit.push(Op::Close { conn });
}

#[test]
fn more_than_a_buffer_comes_in_order() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.pair(1);
    let sent: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    write(&peer, &sent);
    peer.shutdown(Shutdown::Write).unwrap();
    kit.receive(conn, 1 << 20);
    assert_eq!(kit.receive_all(), (sent, "eof"));
}

/// The credit ends the receive with the last data, less than one buffer late, and never early.
#[test]
fn credit_ends_a_receive() {
    let Some(mut kit) = kit() else { return };
    if !kit.features.byte_credit {
        return println!("SKIPPED: this kernel has no byte credit (6.17)");
    }
    for credit in [1, 999, 1024, 1025, 3000] {
        let (conn, peer) = kit.pair(credit);
        write(&peer, &[7; 8000]);
        kit.receive(conn, credit);
        let (bytes, why) = kit.receive_all();
        assert_eq!(why, "credit");
        let range = credit as usize..credit as usize + 1024;
        assert!(range.contains(&bytes.len()), "{} bytes for a credit of {credit}", bytes.len());
        kit.hear_nothing();
        kit.receive(conn, 1 << 20);
        drop(peer);
        let (rest, why) = kit.receive_all();
        assert_eq!((bytes.len() + rest.len(), why), (8000, "eof"));
        kit.push(Op::Close { conn });
    }
}

/// The kernel ends a receive with a credit of 2^31 or more at its first data, so the engine bounds it.
#[test]
fn any_credit_works() {
    let Some(mut kit) = kit() else { return };
    for (session, credit) in [1 << 30, i32::MAX as u32, 1 << 31, u32::MAX].into_iter().enumerate() {
        let (conn, peer) = kit.pair(session as u32);
        kit.receive(conn, credit);
        kit.hear_nothing();
        write(&peer, b"x");
        let Heard::Data { lease, more, .. } = kit.hear_one() else { panic!() };
        kit.recycle(lease);
        assert!(more, "{credit}");
        drop(peer);
        assert!(matches!(kit.hear_one(), Heard::Ended(_, "eof")));
    }
}

#[test]
fn without_credit_it_goes_on_until_cancelled() {
    let Some(mut kit) = kit_with(Setup { without_credit: true, ..Setup::default() }) else { return };
    let (conn, peer) = kit.pair(1);
    kit.receive(conn, 1);
    for _ in 0..2 {
        write(&peer, b"more than one");
        let Heard::Data { lease, more: true, .. } = kit.hear_one() else { panic!() };
        kit.recycle(lease);
    }
    kit.cancel(conn, InFlight::Receive);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "cancelled")));
}

/// A cancel answers through the operation only, be it in time or too late.
#[test]
fn cancel_answers_once() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.pair(1);
    kit.receive(conn, 100);
    kit.cancel(conn, InFlight::Receive);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "cancelled")));
    kit.cancel(conn, InFlight::Receive);
    kit.hear_nothing();

    // Armed and ready at the same time as the cancel: either may win, and the bytes are not lost.
    for round in 0..50 {
        write(&peer, &[round; 10]);
        kit.receive(conn, 100);
        kit.cancel(conn, InFlight::Receive);
        let (mut bytes, why) = kit.receive_all();
        assert!(matches!(why, "cancelled" | "credit"), "{why}");
        if bytes.is_empty() {
            kit.receive(conn, 10);
            bytes = kit.receive_all().0;
        }
        assert_eq!(bytes, [round; 10]);
    }
    kit.hear_nothing();
}

/// Even without data: the kernel refuses a receive while the pool is empty.
#[test]
fn an_empty_pool_refuses_and_recovers() {
    let Some(mut kit) = kit_with(Setup { small_count: 2, ..Setup::default() }) else { return };
    let (first, peer) = kit.pair(1);
    let (second, other) = kit.pair(2);
    write(&peer, &[1; 4096]);
    kit.receive(first, 1 << 20);
    let mut leases = Vec::new();
    loop {
        match kit.hear_some() {
            Heard::Data { lease, bytes, .. } => {
                assert_eq!(bytes, [1; 1024]);
                leases.push(lease);
            }
            Heard::Ended(conn, why) => break assert_eq!((conn, why), (first, "no buffers")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((leases.len(), kit.ring.leases()), (2, 2));
    kit.receive(second, 1 << 20);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "no buffers")), "nothing was sent to it");

    write(&other, b"x");
    leases.into_iter().for_each(|lease| kit.recycle(lease));
    kit.receive(second, 1);
    assert_eq!(kit.receive_all().0, b"x");
    kit.receive(first, 2048);
    assert_eq!(kit.receive_all().0, [1; 2048]);
    assert_eq!(kit.ring.leases(), 0);
}

#[test]
fn a_pool_with_free_buffers_is_offered_again() {
    let Some(mut kit) = kit_with(Setup { small_bytes: 64, small_count: 1000, ..Setup::default() }) else { return };
    let (conn, peer) = kit.pair(1);
    // 512 buffers of data, while 64 are offered at a time: starved, and then served from a longer offer.
    write(&peer, &[5; 512 * 64]);
    let (mut total, mut starved) = (0, 0);
    while total < 512 * 64 {
        kit.receive(conn, 1 << 20);
        loop {
            match kit.hear_some() {
                Heard::Data { lease, bytes, more, .. } => {
                    total += bytes.len();
                    kit.recycle(lease);
                    if !more {
                        break;
                    }
                    if total == 512 * 64 {
                        break;
                    }
                }
                Heard::Ended(_, "no buffers") => break starved += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    println!("starved {starved} times");
    assert!(starved <= 5, "{starved}");
}

#[test]
fn a_reset_is_told() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.tcp_pair(1);
    kit.receive(conn, 1000);
    kit.hear_nothing();
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "reset")));
}

#[test]
fn both_groups_deliver() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.pair(1);
    peer.write_all(&[9; 50_000]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    kit.push(Op::Receive { conn, group: Group::BULK, credit: 1 << 20 });
    let Heard::Data { lease, bytes, more: true, .. } = kit.hear_some() else { panic!() };
    assert_eq!((lease.group(), bytes.len()), (Group::BULK, 50_000));
    kit.recycle(lease);
    assert_eq!(kit.receive_all(), (vec![], "eof"));
    let (conn, _peer) = kit.pair(2);
    kit.push(Op::Receive { conn, group: Group::BULK, credit: 1 << 20 });
    kit.cancel(conn, InFlight::Receive);
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "cancelled")), "cancel finds the receive of the other group");
}

/// More receives than the queues have entries, in one batch.
#[test]
fn a_batch_may_be_longer_than_the_queue() {
    let Some(mut kit) = kit() else { return };
    const SOCKETS: u32 = 1500;
    let mut peers = Vec::new();
    for session in 0..SOCKETS {
        let (conn, peer) = kit.pair(session);
        kit.receive(conn, 1000);
        peers.push(peer);
    }
    kit.hear_nothing();
    for peer in &peers {
        write(peer, b"hello");
    }
    for _ in 0..SOCKETS {
        let Heard::Data { lease, bytes, .. } = kit.hear_some() else { panic!() };
        assert_eq!(bytes, b"hello");
        kit.recycle(lease);
    }
}
