use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use socket2::SockAddr;

use super::kit::{Heard, conn, kit};
use crate::op::{InFlight, Op, Piece};

fn inet(address: std::net::SocketAddr) -> Arc<SockAddr> {
    Arc::new(address.into())
}

#[test]
fn connects_and_fails_to() {
    let Some(mut kit) = kit() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = inet(listener.local_addr().unwrap());
    kit.push(Op::Connect { conn: conn(1), address: address.clone() });
    assert!(matches!(kit.hear_one(), Heard::Connected(of, Ok(())) if of == conn(1)));
    kit.push(Op::Send { conn: conn(1), pieces: vec![Piece::inline(b"hi")] });
    assert!(matches!(kit.hear_one(), Heard::Sent { result: Ok(2), .. }));
    kit.push(Op::Close { conn: conn(1) });

    drop(listener);
    for _ in 0..2 {
        // The same ConnId again after a Close: that is how the relay tries the next backend.
        kit.push(Op::Connect { conn: conn(1), address: address.clone() });
        assert!(matches!(kit.hear_one(), Heard::Connected(_, Err(libc::ECONNREFUSED))));
        kit.push(Op::Close { conn: conn(1) });
    }
}

/// The kernel copies the address at submission: the caller's may go.
#[test]
fn many_connects_in_one_batch() {
    let Some(mut kit) = kit() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for session in 0..700 {
        kit.push(Op::Connect { conn: conn(session), address: inet(listener.local_addr().unwrap()) });
        if session % 50 == 49 {
            for _ in 0..50 {
                assert!(matches!(kit.hear_some(), Heard::Connected(_, Ok(()))));
                listener.accept().unwrap();
            }
        }
    }
}

#[test]
fn connects_over_ipv6_and_unix() {
    let Some(mut kit) = kit() else { return };
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        kit.push(Op::Connect { conn: conn(1), address: inet(listener.local_addr().unwrap()) });
        assert!(matches!(kit.hear_one(), Heard::Connected(_, Ok(()))));
    }
    let path = std::env::temp_dir().join(format!("ringway-connect-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let address = Arc::new(SockAddr::unix(&path).unwrap());
    kit.push(Op::Connect { conn: conn(2), address: address.clone() });
    assert!(matches!(kit.hear_one(), Heard::Connected(_, Ok(()))));
    drop(listener);
    kit.push(Op::Connect { conn: conn(3), address: address.clone() });
    assert!(matches!(kit.hear_one(), Heard::Connected(_, Err(libc::ECONNREFUSED))));
    std::fs::remove_file(&path).unwrap();
    kit.push(Op::Connect { conn: conn(4), address });
    assert!(matches!(kit.hear_one(), Heard::Connected(_, Err(libc::ENOENT))));
}

/// A unix socket whose backlog is full takes no thread of the kernel's per connect: they wait, go on when there is room, and
/// can be cancelled.
#[test]
fn field_r46_a_full_backlog_takes_no_threads() {
    let Some(mut kit) = kit() else { return };
    let path = std::env::temp_dir().join(format!("ringway-full-{}.sock", std::process::id()));
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let address = Arc::new(SockAddr::unix(&path).unwrap());
    listener.bind(&address).unwrap();
    listener.listen(1).unwrap();
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .filter(|task| {
                std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("iou-wrk"))
            })
            .count()
    };
    for session in 0..100 {
        kit.push(Op::Connect { conn: conn(session), address: address.clone() });
    }
    let mut connected = 0;
    while kit.turn(std::time::Duration::from_millis(50)).into_iter().inspect(|_| connected += 1).count() > 0 {}
    assert!((1..10).contains(&connected), "{connected} fit into the backlog");
    assert!(threads() < 10, "{} threads of the kernel's", threads());
    kit.cancel(conn(99), InFlight::Connect);
    assert!(matches!(kit.hear_one(), Heard::Connected(of, Err(libc::ECANCELED)) if of == conn(99)));
    kit.push(Op::Close { conn: conn(99) });
    // As they are accepted, the others get their turn.
    let mut accepted = Vec::new();
    for _ in connected..99 {
        accepted.push(listener.accept().unwrap());
        assert!(matches!(kit.hear_some(), Heard::Connected(_, Ok(()))));
    }
    kit.push(Op::Send { conn: conn(0), pieces: vec![Piece::inline(b"hi")] });
    assert!(matches!(kit.hear_one(), Heard::Sent { result: Ok(2), .. }), "it blocks again, as the ring wants it");
    std::fs::remove_file(&path).unwrap();
}

/// A connect that nobody answers can be cancelled, and says so once.
#[test]
fn a_connect_can_be_cancelled() {
    let Some(mut kit) = kit() else { return };
    // A listener whose backlog is full does not answer further connects.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = Arc::new(listener.local_addr().unwrap());
    for session in 0..4 {
        kit.push(Op::Connect { conn: conn(session), address: address.clone() });
    }
    while !kit.turn(std::time::Duration::from_millis(50)).is_empty() {}
    kit.cancel(conn(3), InFlight::Connect);
    assert!(matches!(kit.hear_one(), Heard::Connected(of, Err(libc::ECANCELED)) if of == conn(3)));
    kit.push(Op::Close { conn: conn(3) });
    kit.hear_nothing();
}

/// A socket that could not be created is an answer, and closing it does nothing.
#[test]
fn an_address_of_no_family_is_an_answer() {
    let Some(mut kit) = kit() else { return };
    // SAFETY: the initialiser leaves the storage zeroed, which is an address of the family AF_UNSPEC, and says its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|_, len| {
            *len = 16;
            Ok(())
        })
    }
    .unwrap();
    kit.push(Op::Connect { conn: conn(1), address: Arc::new(address) });
    assert!(matches!(kit.hear_one(), Heard::Connected(_, Err(libc::EAFNOSUPPORT))));
    kit.push(Op::Close { conn: conn(1) });
    kit.hear_nothing();
}
