//! Sockets: one connection's transport (plain or TLS), its two directions, and how it comes to be.

pub mod connect;
pub mod inbound;
pub mod link;
pub mod outbox;
pub mod tls;

use std::fmt;
use std::io;

use crate::wire::frame::Violation;
use crate::wire::handshake::Refusal;

/// Why a connection, or an attempt at one, ended other than as planned.
#[derive(Debug)]
pub enum Fault {
    Connect(io::Error),
    ConnectTimeout,
    Tls(String),
    Handshake(Refusal),
    /// The peer went away in the middle of the handshake.
    HandshakeCut,
    Violation(Violation),
    /// TCP ended between two frames, without a close frame.
    EndWithoutClose,
    /// TCP ended inside a frame: `bytes` of it had come.
    EndInsideFrame {
        bytes: usize,
    },
    /// The peer sent a close frame.
    Closed {
        code: Option<u16>,
        reason: String,
    },
    Io(io::Error),
    /// The run's drain deadline ended the wait.
    GivenUp,
}

impl Fault {
    /// A short name to count by; details that differ each time stay out of it.
    pub fn kind(&self) -> String {
        match self {
            Fault::Connect(error) => format!("connect: {}", io_kind(error)),
            Fault::ConnectTimeout => "connect: timed out".into(),
            Fault::Tls(_) => "TLS handshake failed".into(),
            Fault::Handshake(Refusal::Status { code, .. }) => format!("handshake: status {code}"),
            Fault::Handshake(_) => "handshake: invalid answer".into(),
            Fault::HandshakeCut => "handshake: connection ended".into(),
            Fault::Violation(violation) => format!("protocol violation: {violation}"),
            Fault::EndWithoutClose => "ended without a close frame".into(),
            Fault::EndInsideFrame { .. } => "ended inside a frame".into(),
            Fault::Closed { code: Some(code), .. } => format!("closed by peer with {code}"),
            Fault::Closed { code: None, .. } => "closed by peer without a code".into(),
            Fault::Io(error) => io_kind(error),
            Fault::GivenUp => "no answer before the drain deadline".into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Connect(error) => write!(f, "cannot connect: {error}"),
            Fault::ConnectTimeout => write!(f, "no connection before the time limit"),
            Fault::Tls(reason) => write!(f, "TLS handshake failed: {reason}"),
            Fault::Handshake(refusal) => refusal.fmt(f),
            Fault::HandshakeCut => write!(f, "closed the connection during the handshake"),
            Fault::EndInsideFrame { bytes } => {
                write!(f, "ended the connection inside a frame, {bytes} bytes into it")
            }
            Fault::Closed { code, reason } => {
                write!(f, "closed with code {code:?}, reason {reason:?}")
            }
            Fault::Io(error) => error.fmt(f),
            other => f.write_str(&other.kind()),
        }
    }
}

fn io_kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::ConnectionReset => "reset by peer".into(),
        io::ErrorKind::BrokenPipe => "broken pipe".into(),
        io::ErrorKind::AddrNotAvailable => "no free source port".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        kind => kind.to_string(),
    }
}
