//! The fake kernel itself: what it must notice, and what nothing asks of it yet.

use ringway::op::{Completion, ConnId, Group, Lease, Op, Piece, Side};

use crate::kernel::{Effect, Kernel, Pool};

/// With one socket, accepted.
fn kernel() -> (Kernel, ConnId) {
    let mut kernel = Kernel::new([Pool::new(Group::SMALL, 64, 4, None), Pool::new(Group::BULK, 1024, 1, None)]);
    kernel.listen(0);
    kernel.perform(Op::Accept { listener: 0 });
    let Completion::Accepted { socket, .. } = kernel.accepted(0, 7, None) else { panic!() };
    let conn = ConnId::new(1, Side::Client, 1);
    kernel.perform(Op::Adopt { conn, socket });
    (kernel, conn)
}

fn send(conn: ConnId) -> Op {
    Op::Send { conn, pieces: vec![Piece::owned(*b"bytes")] }
}

#[test]
fn a_released_socket_may_be_adopted_again() {
    let (mut kernel, conn) = kernel();
    assert!(matches!(kernel.perform(Op::Release { conn }), Effect::Released(released) if released == conn));
    assert!(kernel.get(conn).is_none());
    let Completion::Released { socket, .. } = kernel.released(conn) else { panic!() };
    let next = ConnId::new(2, Side::Backend, 4);
    kernel.perform(Op::Adopt { conn: next, socket });
    assert_eq!(kernel.get(next).map(|socket| socket.token), Some(7));
}

#[test]
#[should_panic(expected = "with something in flight")]
fn nothing_that_sends_is_closed() {
    let (mut kernel, conn) = kernel();
    kernel.perform(send(conn));
    kernel.perform(Op::Close { conn });
}

#[test]
#[should_panic(expected = "with something in flight")]
fn nothing_that_receives_is_released() {
    let (mut kernel, conn) = kernel();
    kernel.perform(Op::Receive { conn, group: Group::SMALL, credit: 1 });
    kernel.perform(Op::Release { conn });
}

#[test]
#[should_panic(expected = "two sends in flight")]
fn nobody_sends_twice_at_a_time() {
    let (mut kernel, conn) = kernel();
    kernel.perform(send(conn));
    kernel.perform(send(conn));
}

#[test]
#[should_panic(expected = "is not open")]
fn a_name_of_before_names_nothing() {
    let (mut kernel, conn) = kernel();
    kernel.perform(send(ConnId::new(conn.session(), conn.side(), conn.generation() - 1)));
}

#[test]
#[should_panic(expected = "given back twice")]
fn a_buffer_comes_back_once() {
    let (mut kernel, conn) = kernel();
    kernel.perform(Op::Receive { conn, group: Group::SMALL, credit: 100 });
    let (lease, _) = kernel.receive(conn, b"bytes");
    let Completion::Received { lease: Some(lease), .. } = kernel.received(conn, lease, true) else { panic!() };
    let forged = Lease::lend(lease.group(), lease.buffer(), 0..5);
    kernel.perform(Op::Recycle { lease });
    kernel.lent += 1;
    kernel.perform(Op::Recycle { lease: forged });
}
