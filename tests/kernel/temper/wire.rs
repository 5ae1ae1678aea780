//! One TCP connection between the relay and a peer, as bytes in two directions.

/// One direction: everything that was ever written, and how much of it has been read.
#[derive(Debug, Default)]
pub struct Stream {
    pub bytes: Vec<u8>,
    pub read: usize,
}

impl Stream {
    pub fn unread(&self) -> usize {
        self.bytes.len() - self.read
    }
}

#[derive(Debug, Default)]
pub struct Wire {
    pub to_relay: Stream,
    pub to_peer: Stream,
    /// The peer has sent FIN, or RST.
    pub peer_fin: bool,
    pub peer_reset: bool,
    /// The relay has shut its side down for sending.
    pub relay_fin: bool,
    /// The relay has closed the socket; `relay_reset`: with bytes unread, so that the peer may lose what it has not read.
    pub relay_closed: bool,
    pub relay_reset: bool,
    /// The listener has been closed before this client was accepted.
    pub turned_away: bool,
    /// The id of the listener that a client has come to.
    pub listener: u32,
    /// Bytes of `to_relay` that the relay has been told of.
    pub heard: usize,
    /// Bytes of `to_relay` in buffers that the relay has not given back.
    pub held: usize,
}
