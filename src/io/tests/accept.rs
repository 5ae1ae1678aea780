use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

use super::kit::{Heard, Kit, Setup, conn, kit_with};
use crate::config::{Address, Config, Tcp};
use crate::io::{ListenError, Listeners, unshare_fd_table};
use crate::op::Op;

/// A kit that listens on one address as the program does.
fn listening(address: Address, tcp: &Tcp) -> Option<(Kit, Listeners, Address)> {
    listening_with(Setup::default(), address, tcp)
}

fn listening_with(setup: Setup, address: Address, tcp: &Tcp) -> Option<(Kit, Listeners, Address)> {
    let listeners = bind(&[address], tcp, 1).unwrap();
    let (_, fd) = listeners.new_for(0)[0];
    // SAFETY: `listeners` keeps the descriptor open while it is duplicated.
    let own = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap();
    let kit = kit_with(Setup { listeners: vec![own], ..setup })?;
    let address = listeners.addresses().remove(0);
    Some((kit, listeners, address))
}

fn bind(addresses: &[Address], tcp: &Tcp, workers: usize) -> Result<Listeners, ListenError> {
    let mut listeners = Listeners::new(workers);
    let wanted: Vec<_> = addresses.iter().cloned().map(Into::into).collect();
    listeners.change(listeners.prepare(&wanted, tcp)?);
    Ok(listeners)
}

fn inet(address: &Address) -> SocketAddr {
    let Address::Inet(address) = address else { panic!() };
    *address
}

fn tcp() -> Tcp {
    Config::default().tcp
}

fn loopback() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn accepts_adopts_and_refuses() {
    let Some((mut kit, _listeners, address)) = listening(loopback(), &tcp()) else { return };
    kit.push(Op::Accept { listener: 0 });
    let mut clients = Vec::new();
    for session in 0..40 {
        let client = TcpStream::connect(inet(&address)).unwrap();
        let Heard::Accepted { socket, peer, local } = kit.hear_one() else { panic!() };
        assert_eq!((peer, local), (client.local_addr().ok(), client.peer_addr().ok()));
        clients.push(client);
        if session % 2 == 0 {
            kit.push(Op::Adopt { conn: conn(session), socket });
        } else {
            kit.push(Op::Refuse { socket });
            let mut byte = [0];
            assert_eq!(std::io::Read::read(&mut clients.last().unwrap(), &mut byte).unwrap(), 0, "refused");
        }
    }
}

/// The end is told once, after every socket that was accepted. A client that is still in the backlog may or may not be.
#[test]
fn stops_accepting_when_asked() {
    for _ in 0..20 {
        let Some((mut kit, mut listeners, address)) = listening(loopback(), &tcp()) else { return };
        kit.push(Op::Accept { listener: 0 });
        kit.hear_nothing();
        let _client = TcpStream::connect(inet(&address)).unwrap();
        kit.push(Op::StopAccept { listener: 0 });
        loop {
            match kit.hear_some() {
                Heard::Accepted { socket, .. } => kit.push(Op::Refuse { socket }),
                Heard::AcceptEnded(None) => break,
                other => panic!("{other:?}"),
            }
        }
        kit.push(Op::CloseListener { listener: 0 });
        listeners.hand_over();
        assert!(kit.turn(Duration::ZERO).is_empty());
        assert!(TcpStream::connect(inet(&address)).is_err(), "nobody listens any more");
    }
}

/// More clients at once than the completion queue has entries: the accept ends by itself and is armed again.
#[test]
fn a_flood_of_clients_ends_no_accept() {
    let setup = Setup { tiny: true, ..Setup::default() };
    let Some((mut kit, _listeners, address)) = listening_with(setup, loopback(), &tcp()) else { return };
    let clients: Vec<_> = (0..500).map(|_| TcpStream::connect(inet(&address)).unwrap()).collect();
    kit.push(Op::Accept { listener: 0 });
    for _ in 0..clients.len() {
        let Heard::Accepted { socket, .. } = kit.hear_some() else { panic!() };
        kit.push(Op::Refuse { socket });
    }
    kit.push(Op::StopAccept { listener: 0 });
    assert!(matches!(kit.hear_some(), Heard::AcceptEnded(None)));
}

/// Out of descriptors: told, and not armed again, or it would spin.
#[test]
fn running_out_of_descriptors_ends_the_accept() {
    // On a thread with a table of its own, which can be used up without harm to other tests.
    let alone = std::thread::spawn(|| {
        unshare_fd_table(&[]).unwrap();
        let Some((mut kit, _listeners, address)) = listening(loopback(), &tcp()) else { return };
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(inet(&address)).unwrap()).collect();
        let filler: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let Some(mut fillers) = super::thread::exhaust(&filler) else {
            return println!("SKIPPED: RLIMIT_NOFILE is too high to use up");
        };
        kit.push(Op::Accept { listener: 0 });
        assert!(matches!(kit.hear_one(), Heard::AcceptEnded(Some(libc::EMFILE))));
        kit.hear_nothing();
        fillers.clear();
        kit.push(Op::Accept { listener: 0 });
        for _ in 0..3 {
            let Heard::Accepted { socket, .. } = kit.hear_some() else { panic!() };
            kit.push(Op::Refuse { socket });
        }
    });
    alone.join().unwrap();
}

/// Options are set once, on the listener.
#[test]
fn accepted_sockets_inherit_the_listeners_options() {
    let tcp = Tcp {
        keepalive: Some(Duration::from_secs(33)),
        keepalive_interval: Duration::from_secs(11),
        keepalive_probes: 3,
        user_timeout: Some(Duration::from_millis(12_345)),
        notsent_bytes_max: Some(54_321),
        send_buffer_bytes: Some(50_000),
        receive_buffer_bytes: Some(60_000),
        ..tcp()
    };
    let Some((mut kit, _listeners, address)) = listening(loopback(), &tcp) else { return };
    kit.push(Op::Accept { listener: 0 });
    let _client = TcpStream::connect(inet(&address)).unwrap();
    let Heard::Accepted { socket, .. } = kit.hear_one() else { panic!() };
    // SAFETY: the engine has handed the socket over, and it is adopted only below.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket.token()) };
    let accepted = SockRef::from(&fd);
    assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
    assert!(!accepted.nonblocking().unwrap(), "the ring would answer EAGAIN instead of waiting");
    assert_eq!(option(&accepted, libc::TCP_KEEPIDLE), 33);
    assert_eq!(option(&accepted, libc::TCP_KEEPINTVL), 11);
    assert_eq!(option(&accepted, libc::TCP_KEEPCNT), 3);
    assert_eq!(option(&accepted, libc::TCP_USER_TIMEOUT), 12_345);
    assert_eq!(option(&accepted, libc::TCP_NOTSENT_LOWAT), 54_321);
    // The kernel doubles what it is told, for its own book-keeping.
    assert_eq!((accepted.send_buffer_size().unwrap(), accepted.recv_buffer_size().unwrap()), (100_000, 120_000));
    kit.push(Op::Adopt { conn: conn(1), socket });
}

fn option(socket: &SockRef<'_>, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4);
    let to = std::ptr::from_mut(&mut value).cast();
    // SAFETY: `value` is writable and `len` long.
    assert_eq!(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, to, &mut len) }, 0);
    value
}

#[test]
fn a_unix_listener_is_found_removed_and_replaced() {
    let path = std::env::temp_dir().join(format!("ringway-accept-{}.sock", std::process::id()));
    let address = Address::Unix(path.clone());
    // Left over from a process that did not clean up: closed, but not removed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let Some((mut kit, listeners, _)) = listening(address.clone(), &tcp()) else { return };
    kit.push(Op::Accept { listener: 0 });
    let _client = UnixStream::connect(&path).unwrap();
    let Heard::Accepted { socket, peer: None, local: None } = kit.hear_one() else { panic!() };
    kit.push(Op::Refuse { socket });

    let error = bind(std::slice::from_ref(&address), &tcp(), 1).unwrap_err().to_string();
    assert!(error.contains("unix:") && error.contains("A process listens there"), "{error}");
    drop(listeners);
    assert!(!path.exists(), "the file goes with the listeners");

    std::fs::write(&path, "no socket").unwrap();
    let error = bind(&[address], &tcp(), 1).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert!(path.exists(), "a file that is no socket is not ours to remove");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn workers_share_a_port_and_nobody_else_does() {
    let bound = bind(&[loopback()], &tcp(), 3).unwrap();
    let address = bound.addresses().remove(0);
    assert_ne!(inet(&address).port(), 0);
    let fds = bound.new_for(0).len() + bound.new_for(2).len();
    assert_eq!(fds, 2);
    let error = bind(&[address], &tcp(), 3).unwrap_err().to_string();
    assert!(error.contains("os error 98") && error.contains("ss -ltnp"), "{error}");

    let error = bind(&["192.0.2.1:80".parse().unwrap()], &tcp(), 1).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1:80") && error.contains("ip address"), "{error}");
}
