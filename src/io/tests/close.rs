use std::io::Read;
use std::net::Shutdown;

use super::kit::{Heard, kit};
use crate::op::{Accepted, ConnId, InFlight, Op, Side};

/// shutdown(2), not close(2), ends an armed receive.
#[test]
fn shutdown_ends_a_receive() {
    let Some(mut kit) = kit() else { return };
    for (session, how) in [(1, Shutdown::Both), (2, Shutdown::Read)] {
        let (conn, mut peer) = kit.tcp_pair(session);
        kit.receive(conn, 1000);
        kit.hear_nothing();
        kit.push(Op::Shutdown { conn, how });
        assert!(matches!(kit.hear_one(), Heard::Ended(_, "eof")));
        kit.push(Op::Close { conn });
        assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0);
    }
}

#[test]
fn the_peer_sees_a_half_close_and_can_still_send() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.tcp_pair(1);
    kit.receive(conn, 1000);
    kit.push(Op::Shutdown { conn, how: Shutdown::Write });
    assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0);
    std::io::Write::write_all(&mut peer, b"last words").unwrap();
    drop(peer);
    assert_eq!(kit.receive_all(), (b"last words".to_vec(), "eof"));
}

/// A slot's next socket is another one: what was asked for the old one does not touch it.
#[test]
fn a_slot_is_used_again_with_another_generation() {
    let Some(mut kit) = kit() else { return };
    let (old, _peer) = kit.pair(1);
    kit.push(Op::Close { conn: old });
    let new = ConnId::new(1, Side::Client, 8);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    kit.push(Op::Adopt { conn: new, socket: Accepted(std::os::fd::IntoRawFd::into_raw_fd(ours)) });
    kit.push(Op::Shutdown { conn: old, how: Shutdown::Both });
    kit.push(Op::Close { conn: old });
    kit.receive(new, 1000);
    super::kit::write(&theirs, b"still there");
    let Heard::Data { conn, lease, .. } = kit.hear_one() else { panic!() };
    assert_eq!(conn, new);
    kit.recycle(lease);
}

/// What is given away lives on, under whatever name it is adopted next; its slot is free.
#[test]
fn a_released_socket_is_as_alive_as_before() {
    let Some(mut kit) = kit() else { return };
    let (old, peer) = kit.pair(1);
    kit.receive(old, 1000);
    kit.push(Op::Cancel { conn: old, what: InFlight::Receive });
    assert!(matches!(kit.hear_one(), Heard::Ended(_, "cancelled")));
    super::kit::write(&peer, b"meanwhile");
    kit.push(Op::Release { conn: old });
    let Heard::Released { conn, socket } = kit.hear_one() else { panic!() };
    assert_eq!(conn, old);
    let new = ConnId::new(2, Side::Backend, 3);
    kit.push(Op::Adopt { conn: new, socket });
    kit.receive(new, 1000);
    let Heard::Data { conn, lease, bytes, .. } = kit.hear_one() else { panic!() };
    assert_eq!((conn, &bytes[..]), (new, &b"meanwhile"[..]));
    kit.recycle(lease);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    kit.push(Op::Adopt { conn: old, socket: Accepted(std::os::fd::IntoRawFd::into_raw_fd(ours)) });
}
