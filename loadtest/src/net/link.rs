//! One connection's byte transport: a TCP socket on io_uring, with or without TLS over it.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

/// TLS records are at most this long, so one read takes at least one whole record.
const CIPHER_BYTES: usize = 16 * 1024 + 512;

pub struct Link {
    tcp: TcpStream,
    tls: Option<RefCell<Tls>>,
    /// True exactly when the run's drain deadline, not the peer, ended the reading.
    given_up: Cell<bool>,
    /// True exactly when the coming close is to be a reset.
    resets: Cell<bool>,
}

struct Tls {
    session: rustls::Connection,
    cipher: Vec<u8>,
    /// Plaintext that came in the same read as the end of the TLS handshake.
    early: Vec<u8>,
}

impl Link {
    /// The ring waits for sockets by itself, which a non-blocking descriptor would prevent.
    pub fn from_std(tcp: StdStream) -> io::Result<Link> {
        tcp.set_nonblocking(false)?;
        tcp.set_nodelay(true)?;
        Ok(Link { tcp: TcpStream::from_std(tcp), tls: None, given_up: Cell::new(false), resets: Cell::new(false) })
    }

    pub fn from_accepted(tcp: TcpStream) -> io::Result<Link> {
        tcp.set_nodelay(true)?;
        Ok(Link { tcp, tls: None, given_up: Cell::new(false), resets: Cell::new(false) })
    }

    pub fn with_tls(self, session: rustls::Connection) -> Link {
        let tls = Tls { session, cipher: Vec::with_capacity(CIPHER_BYTES), early: Vec::new() };
        Link { tls: Some(RefCell::new(tls)), ..self }
    }

    /// Reads into the spare capacity behind `buf`'s bytes. `Ok(0)` is the end of the stream.
    pub async fn read(&self, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match &self.tls {
            None => {
                let filled = buf.len();
                let (result, slice) = self.tcp.read(buf.slice(filled..)).await;
                (result, slice.into_inner())
            }
            Some(tls) => self.read_tls(tls, buf).await,
        }
    }

    /// Takes the buffer and gives it back, as io_uring must own it meanwhile.
    pub async fn write_all(&self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match &self.tls {
            None => self.tcp.write_all(buf).await,
            Some(tls) => {
                let sealed = seal(&mut tls.borrow_mut().session, &buf);
                match sealed {
                    Ok(cipher) => (self.tcp.write_all(cipher).await.0, buf),
                    Err(error) => (Err(error), buf),
                }
            }
        }
    }

    /// Runs the TLS handshake; at once done on a plain link.
    pub async fn handshake(&self) -> Result<(), String> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        loop {
            let cipher = seal(&mut tls.borrow_mut().session, &[]).map_err(|e| e.to_string())?;
            if !cipher.is_empty() {
                self.tcp.write_all(cipher).await.0.map_err(|e| e.to_string())?;
            }
            if !tls.borrow().session.is_handshaking() {
                return Ok(());
            }
            let (result, early) = self.read_tls(tls, Vec::new()).await;
            tls.borrow_mut().early = early;
            let handshaking = tls.borrow().session.is_handshaking();
            if let Err(error) = result {
                // The alert that says why is worth sending.
                let alert = seal(&mut tls.borrow_mut().session, &[]).unwrap_or_default();
                let _ = self.tcp.write_all(alert).await;
                return Err(error.to_string());
            }
            if matches!(result, Ok(0)) && handshaking && !tls.borrow().session.wants_write() {
                return Err("the peer ended the connection".into());
            }
        }
    }

    /// One read of ciphertext while handshaking; otherwise reads until there is plaintext.
    async fn read_tls(&self, tls: &RefCell<Tls>, mut buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            let before = buf.len();
            buf.append(&mut tls.borrow_mut().early);
            if let Err(error) = drain(&mut tls.borrow_mut().session, &mut buf) {
                return (Err(error), buf);
            }
            if buf.len() > before {
                return (Ok(buf.len() - before), buf);
            }
            let mut cipher = std::mem::take(&mut tls.borrow_mut().cipher);
            cipher.clear();
            cipher.reserve(CIPHER_BYTES);
            let (result, cipher) = self.tcp.read(cipher).await;
            let received = match result {
                Ok(0) => return (Ok(0), buf),
                Ok(bytes) => bytes,
                Err(error) => return (Err(error), buf),
            };
            let mut tls = tls.borrow_mut();
            let handshaking = tls.session.is_handshaking();
            let opened = open(&mut tls.session, &cipher[..received], &mut buf);
            tls.cipher = cipher;
            match opened {
                Err(error) => return (Err(error), buf),
                Ok(()) if handshaking => return (Ok(received), buf),
                Ok(()) if buf.len() > before => return (Ok(buf.len() - before), buf),
                Ok(()) => {}
            }
        }
    }

    pub fn shutdown(&self, how: Shutdown) {
        // A socket that the peer has already reset has nothing left to shut down.
        let _ = self.tcp.shutdown(how);
    }

    /// Ends both directions, so that no pending operation keeps the socket open. If the close is to
    /// be a reset, only the reading side is ended: a FIN must not come first.
    pub fn end(&self) {
        let resets = self.resets.get();
        self.shutdown(if resets { Shutdown::Read } else { Shutdown::Both });
    }

    /// Ends a wait for the peer: the pending read sees the end of the stream.
    pub fn give_up(&self) {
        self.given_up.set(true);
        self.shutdown(Shutdown::Both);
    }

    pub fn was_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// Makes the coming close a reset instead of an orderly end.
    ///
    /// The ring's stream lends no borrowed descriptor, and making one from a number is unsafe code.
    /// `pidfd_getfd` on this very process duplicates it through a safe door; the option belongs to
    /// the socket, so it holds for both descriptors.
    pub fn reset_on_close(&self) -> io::Result<()> {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
        let socket =
            rustix::process::pidfd_getfd(&own, self.tcp.as_raw_fd(), rustix::process::PidfdGetfdFlags::empty())?;
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        self.resets.set(true);
        Ok(())
    }
}

/// Encrypts `plain` and takes everything that is due to be sent.
fn seal(session: &mut rustls::Connection, plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut cipher = Vec::with_capacity(plain.len() + plain.len() / 64 + 64);
    session.writer().write_all(plain)?;
    while session.wants_write() {
        session.write_tls(&mut cipher)?;
    }
    Ok(cipher)
}

fn open(session: &mut rustls::Connection, mut cipher: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !cipher.is_empty() {
        session.read_tls(&mut cipher)?;
        session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        drain(session, plain)?;
    }
    Ok(())
}

fn drain(session: &mut rustls::Connection, plain: &mut Vec<u8>) -> io::Result<()> {
    match session.reader().read_to_end(plain) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        // TCP ended without close_notify: the frame layer decides whether that was too early.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}
