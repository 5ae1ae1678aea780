//! Sockets: made and given their options here; used through the ring.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket, Type};

use crate::config::Tcp;

/// A socket to connect to `address` with. Not bound: the kernel picks a port per connection, and ports are used for as
/// many connections as differ in the other end. Blocking, as the ring wants it: it answers EAGAIN instead of waiting for
/// sockets that are not.
pub(super) fn for_connect(address: &SockAddr, tcp: &Tcp) -> io::Result<OwnedFd> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    if !address.is_unix() {
        set_options(&socket, tcp)?;
    }
    Ok(socket.into())
}

/// For one call.
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the engine owns the descriptor by this number, and keeps it open beyond the call.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Connects without waiting: WouldBlock if the other side's backlog is full.
pub(super) fn connect_now(fd: RawFd, address: &SockAddr) -> io::Result<()> {
    let fd = borrow(fd);
    let socket = SockRef::from(&fd);
    socket.set_nonblocking(true)?;
    let connected = socket.connect(address);
    // The ring answers EAGAIN instead of waiting for sockets that are not blocking.
    socket.set_nonblocking(false)?;
    connected
}

pub(super) fn set_options(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = tcp.keepalive {
        socket.set_keepalive(true)?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(idle))?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(tcp.keepalive_interval))?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, tcp.keepalive_probes as i32)?;
    }
    if let Some(timeout) = tcp.user_timeout {
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms)?;
    }
    if let Some(bytes) = tcp.notsent_bytes_max {
        set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes as i32)?;
    }
    if let Some(bytes) = tcp.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = tcp.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    Ok(())
}

/// Whole seconds, as the keep-alive options take them; at least one.
fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

pub(super) fn share_port(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

fn set(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is readable and `len` long, and outlives the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Who is at the other end of an accepted socket; `None` on unix sockets, and if it is gone already.
pub(super) fn peer(fd: RawFd) -> Option<SocketAddr> {
    SockRef::from(&borrow(fd)).peer_addr().ok()?.as_socket()
}

/// Which address it has come to.
pub(super) fn local(fd: RawFd) -> Option<SocketAddr> {
    SockRef::from(&borrow(fd)).local_addr().ok()?.as_socket()
}

pub(super) fn shutdown(fd: RawFd, how: Shutdown) {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // It fails only if the connection is gone, which its receive tells. SAFETY: no memory is passed.
    unsafe { libc::shutdown(fd, how) };
}

/// Its close sends RST and drops what the kernel has not sent. On unix sockets, which have none, it changes nothing.
pub(super) fn reset_on_close(fd: RawFd) {
    // It fails only if the connection is gone.
    let _ = SockRef::from(&borrow(fd)).set_linger(Some(Duration::ZERO));
}

/// Closes a descriptor that the engine owns by number.
pub(super) fn close(fd: RawFd) {
    debug_assert!(fd >= 0);
    // SAFETY: the engine gets each number from accept or connect, keeps it in one place (an `Accepted` or a socket slot),
    // and clears that place when it passes the number here. So this is its only owner.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}
