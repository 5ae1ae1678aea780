use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use super::kit::{Heard, Setup, kit, kit_with};
use crate::engine::Engine;
use crate::op::{Group, InFlight, Op, Piece};

fn recycle_all(kit: &mut super::kit::Kit, pieces: Vec<Piece>) {
    for piece in pieces {
        if let Piece::Lease(lease) = piece {
            kit.recycle(lease);
        }
    }
}

#[test]
fn every_kind_of_piece_is_sent_from_where_it_is() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.pair(1);
    kit.receive(conn, 1000);
    super::kit::write(&peer, b"0123456789");
    let Heard::Data { mut lease, .. } = kit.hear_one() else { panic!() };
    lease.advance(2);
    lease.truncate(5);
    let mut owned = Piece::owned(*b"xyz");
    owned.advance(1);
    let pieces = vec![Piece::inline(b"<"), Piece::Lease(lease), owned, Piece::inline(b""), Piece::inline(b">")];
    kit.push(Op::Send { conn, pieces });
    let Heard::Sent { result, pieces, .. } = kit.hear_one() else { panic!() };
    assert_eq!((result, pieces.len()), (Ok(9), 5));
    let mut told = [0; 9];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"<23456yz>");
    recycle_all(&mut kit, pieces);

    for alone in [Piece::inline(b"inline"), Piece::owned(*b"owned!")] {
        kit.push(Op::Send { conn, pieces: vec![alone] });
        let Heard::Sent { result: Ok(6), pieces, .. } = kit.hear_one() else { panic!() };
        assert_eq!(pieces.len(), 1);
    }
    let mut told = [0; 12];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"inlineowned!");
}

/// What a slow peer has not taken is copied, and can still be sent when the buffers are others'.
#[test]
fn pieces_are_copied_out_of_their_buffers() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.pair(1);
    kit.receive(conn, 1000);
    super::kit::write(&peer, b"0123456789");
    let Heard::Data { mut lease, .. } = kit.hear_one() else { panic!() };
    lease.advance(2);
    lease.truncate(5);
    let mut owned = Piece::owned(*b"xyz");
    owned.advance(1);
    kit.push(Op::Copy { conn, pieces: vec![Piece::inline(b"<"), Piece::Lease(lease), owned, Piece::inline(b">")] });
    let Heard::Copied { conn: copied, bytes, pieces } = kit.hear_one() else { panic!() };
    assert_eq!((copied, &*bytes, pieces.len()), (conn, &b"<23456yz>"[..], 4));
    recycle_all(&mut kit, pieces);
    assert_eq!(kit.ring.leases(), 0);
    kit.push(Op::Send { conn, pieces: vec![Piece::owned(bytes)] });
    let Heard::Sent { result: Ok(9), .. } = kit.hear_one() else { panic!() };
    let mut told = [0; 9];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"<23456yz>");
}

/// A free buffer holds what has none, with what a record layer puts around it.
#[test]
fn a_borrowed_buffer_is_written_to_and_sent() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.pair(1);
    let mut lease = kit.ring.borrow(Group::SMALL).unwrap();
    lease.truncate(5);
    kit.ring.bytes_mut(&mut lease).copy_from_slice(b"bytes");
    lease.widen(2, 1);
    let whole = kit.ring.bytes_mut(&mut lease);
    whole[..2].copy_from_slice(b"<<");
    whole[7] = b'>';
    assert_eq!(kit.ring.leases(), 1);
    kit.push(Op::Send { conn, pieces: vec![Piece::Lease(lease)] });
    let Heard::Sent { result: Ok(8), pieces, .. } = kit.hear_one() else { panic!() };
    let mut told = [0; 8];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"<<bytes>");
    recycle_all(&mut kit, pieces);
    assert_eq!(kit.ring.leases(), 0);
}

/// Beyond 1024 pieces only the first 1024 are sent, and the count says so.
#[test]
fn too_many_pieces_are_sent_short() {
    let Some(mut kit) = kit() else { return };
    let (conn, mut peer) = kit.tcp_pair(1);
    let pieces = (0..1500u32).map(|i| Piece::inline(&i.to_be_bytes())).collect();
    kit.push(Op::Send { conn, pieces });
    let Heard::Sent { result, pieces, .. } = kit.hear_one() else { panic!() };
    assert_eq!((result, pieces.len()), (Ok(4096), 1500));
    let mut told = vec![0; 4096];
    peer.read_exact(&mut told).unwrap();
    assert!(told.chunks(4).zip(0u32..).all(|(bytes, i)| bytes == i.to_be_bytes()));
}

/// More vectored sends in one batch than scratch memory holds.
#[test]
fn a_batch_of_sends_may_outgrow_the_scratch_memory() {
    let Some(mut kit) = kit() else { return };
    let mut peers = Vec::new();
    for session in 0..600u32 {
        let (conn, peer) = kit.pair(session);
        let count = 2 + session % 50;
        let pieces = (0..count).map(|i| Piece::inline(&[session as u8, i as u8])).collect();
        kit.push(Op::Send { conn, pieces });
        peers.push((peer, count));
    }
    for _ in 0..600 {
        let Heard::Sent { result: Ok(_), .. } = kit.hear_some() else { panic!() };
    }
    for (session, (mut peer, count)) in peers.into_iter().enumerate() {
        let mut told = vec![0; 2 * count as usize];
        peer.read_exact(&mut told).unwrap();
        let expected: Vec<u8> = (0..count).flat_map(|i| [session as u8, i as u8]).collect();
        assert_eq!(told, expected, "session {session}");
    }
}

/// A batch that outgrows the submission queue is submitted in parts. What an entry points to must stay as it is until its own
/// part is, whatever comes before it and how much: else a peer gets what another's send was to send.
#[test]
fn a_batch_of_sends_may_outgrow_the_queue() {
    for before in 0..8 {
        let Some(mut kit) = kit_with(Setup { tiny: true, ..Setup::default() }) else { return };
        let mut pairs: Vec<_> = (0..100).map(|session| kit.pair(session)).collect();
        let mut ops = Vec::new();
        for (session, (conn, _)) in pairs.iter().enumerate() {
            if session < before {
                ops.push(Op::Receive { conn: *conn, group: Group::SMALL, credit: 100 });
            }
            let pieces = (0..1 + session % 3).map(|part| Piece::inline(&[session as u8, part as u8])).collect();
            ops.push(Op::Send { conn: *conn, pieces });
        }
        kit.ring.push(ops);
        for _ in 0..100 {
            let Heard::Sent { conn, result, .. } = kit.hear_some() else { panic!() };
            assert_eq!(result, Ok(2 * (1 + conn.session() as usize % 3)), "{conn:?}, {before} receives before");
        }
        for (session, (_, peer)) in pairs.iter_mut().enumerate() {
            let expected: Vec<u8> = (0..1 + session % 3).flat_map(|part| [session as u8, part as u8]).collect();
            let mut told = vec![0; expected.len()];
            peer.read_exact(&mut told).unwrap();
            assert_eq!(told, expected, "session {session}, {before} receives before");
        }
    }
}

/// Every send completes while it is submitted, so the completion queue overflows many times: nothing is lost.
#[test]
fn an_overflow_of_completions_loses_nothing() {
    let Some(mut kit) = kit_with(Setup { tiny: true, ..Setup::default() }) else { return };
    let peers: Vec<_> = (0..300).map(|session| kit.pair(session)).collect();
    let sends: Vec<_> =
        peers.iter().map(|(conn, _)| Op::Send { conn: *conn, pieces: vec![Piece::inline(b"hello")] }).collect();
    kit.ring.push(sends);
    let mut heard = std::collections::HashSet::new();
    for _ in 0..300 {
        let Heard::Sent { conn, result: Ok(5), .. } = kit.hear_some() else { panic!() };
        heard.insert(conn);
    }
    assert_eq!(heard.len(), 300);

    // The same for receives: those whose completion does not fit end, and say so.
    for (conn, peer) in &peers {
        kit.receive(*conn, 1 << 20);
        super::kit::write(peer, &[3; 5000]);
    }
    let mut left = 300 * 5000;
    while left > 0 {
        match kit.hear_some() {
            Heard::Data { conn, lease, bytes, more } => {
                left -= bytes.len();
                kit.recycle(lease);
                if !more {
                    kit.receive(conn, 1 << 20);
                }
            }
            Heard::Ended(conn, "no buffers") => kit.receive(conn, 1 << 20),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kit.ring.leases(), 0);
}

/// WAITALL: one completion, however slowly the peer reads.
#[test]
fn a_large_send_completes_once_and_whole() {
    let Some(mut kit) = kit() else { return };
    for pieces in [1, 40] {
        let (conn, mut peer) = kit.tcp_pair(pieces);
        let size = 32_000_000 / pieces as usize;
        let piece = |i| Piece::owned(vec![i as u8; size]);
        kit.push(Op::Send { conn, pieces: (0..pieces).map(piece).collect() });
        kit.hear_nothing();
        let reader = std::thread::spawn(move || {
            let mut told = vec![0; size];
            for i in 0..pieces {
                peer.read_exact(&mut told).unwrap();
                assert!(told.iter().all(|&byte| byte == i as u8));
            }
            peer
        });
        let Heard::Sent { result, .. } = kit.hear_one() else { panic!() };
        assert_eq!(result, Ok(size * pieces as usize));
        drop(reader.join().unwrap());
        kit.push(Op::Close { conn });
    }
}

/// A cancelled send tells how much went out.
#[test]
fn a_cancelled_send_is_short() {
    let Some(mut kit) = kit() else { return };
    for pieces in [1, 40] {
        let (conn, mut peer) = kit.tcp_pair(pieces);
        let piece = |_| Piece::owned(vec![1; 32_000_000 / pieces as usize]);
        kit.push(Op::Send { conn, pieces: (0..pieces).map(piece).collect() });
        kit.hear_nothing();
        kit.cancel(conn, InFlight::Send);
        let Heard::Sent { result: Ok(sent), .. } = kit.hear_one() else { panic!("not a count") };
        assert!(sent > 0 && sent < 32_000_000, "{sent}");
        kit.push(Op::Shutdown { conn, how: Shutdown::Write });
        let mut told = Vec::new();
        peer.read_to_end(&mut told).unwrap();
        assert_eq!(told.len(), sent);
        kit.push(Op::Close { conn });
    }
}

/// No SIGPIPE, an error.
#[test]
fn sending_to_a_peer_that_is_gone_fails() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.pair(1);
    drop(peer);
    kit.push(Op::Send { conn, pieces: vec![Piece::inline(b"x")] });
    let Heard::Sent { result, pieces, .. } = kit.hear_one() else { panic!() };
    assert_eq!((result, pieces.len()), (Err(libc::EPIPE), 1));
}

/// Leases of sends that a dying ring still held are ended with it, or debug builds would panic here.
#[test]
fn a_ring_may_be_dropped_with_everything_in_flight() {
    let Some(mut kit) = kit() else { return };
    let (conn, peer) = kit.tcp_pair(1);
    kit.receive(conn, 1000);
    std::io::Write::write_all(&mut &peer, &[1; 500]).unwrap();
    let Heard::Data { lease, .. } = kit.hear_one() else { panic!() };
    kit.push(Op::Send { conn, pieces: vec![Piece::owned(vec![0; 32_000_000]), Piece::Lease(lease)] });
    kit.turn(Duration::ZERO);
    kit.waker.wake();
    drop(kit);
    // The socket is closed: with data unread at the peer's side it may be a reset, but it ends.
    let mut rest = Vec::new();
    let _ = (&peer).read_to_end(&mut rest);
}
