//! Raw bytes on sockets, for both roles: a client that is not a library, and a backend whose script is the test itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bounds every wait of the suite, so that a hang is a failure that says where. No test depends on how much of it is used.
pub const DEADLINE: Duration = Duration::from_secs(15);

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
pub const FIN: u8 = 0x80;

/// One end of a connection, with the bytes that were read but not yet looked at.
pub struct Wire {
    pub stream: TcpStream,
    held: Vec<u8>,
    /// What this end must see: backends hear masked frames, clients unmasked ones (RFC 6455, 5.1).
    hears_masked: bool,
}

/// How the other side ended the TCP connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    Fin,
    Reset,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        Wire::new(TcpStream::connect_timeout(&address, DEADLINE).expect("connect"), false)
    }

    /// From a local address other than the usual one.
    pub fn connect_from(local: std::net::IpAddr, address: SocketAddr) -> Wire {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
        socket.connect_timeout(&address.into(), DEADLINE).expect("connect");
        Wire::new(socket.into(), false)
    }

    pub fn new(stream: TcpStream, hears_masked: bool) -> Wire {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Wire { stream, held: Vec::new(), hears_masked }
    }

    /// A second handle of the same socket, to read in one thread and write in another.
    pub fn split(&self) -> Wire {
        Wire::new(self.stream.try_clone().unwrap(), self.hears_masked)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire {
        self.stream.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// For bytes the other side may refuse to take: it may have answered and closed before it saw them all.
    pub fn send_or_lose(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Whether the other side still takes them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// One byte now and then, for as long as the other side takes them.
    pub fn trickle(mut self, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            for byte in bytes {
                if !self.try_send(&[byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    }

    /// In pieces of `size`, each a segment of its own.
    pub fn send_in_pieces(&mut self, bytes: impl AsRef<[u8]>, size: usize) {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece);
            // Only so that the kernel does not glue the segments together; nothing depends on it.
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    pub fn client_frame(&mut self, first: u8, payload: impl AsRef<[u8]>) -> &mut Wire {
        self.send(frame(first, Some(MASK), payload.as_ref()))
    }

    pub fn server_frame(&mut self, first: u8, payload: impl AsRef<[u8]>) -> &mut Wire {
        self.send(frame(first, None, payload.as_ref()))
    }

    fn more(&mut self) -> Result<(), End> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(End::Fin),
            Ok(n) => {
                self.held.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Err(End::Reset),
            Err(e) => panic!("nothing more came ({e}) after {:?}", Printable(&self.held)),
        }
    }

    fn need(&mut self, size: usize, what: &str) {
        while self.held.len() < size {
            if let Err(end) = self.more() {
                panic!("{what} wanted, but {end:?} after {:?}", Printable(&self.held));
            }
        }
    }

    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        self.need(size, "bytes");
        self.held.drain(..size).collect()
    }

    /// The next request or response head.
    pub fn head(&mut self) -> Head {
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                return Head { raw: self.held.drain(..end + 4).collect() };
            }
            let size = self.held.len() + 1;
            self.need(size, "a head");
        }
    }

    pub fn frame(&mut self) -> Frame {
        self.need(2, "a frame");
        let masked = self.held[1] & 0x80 != 0;
        assert_eq!(masked, self.hears_masked, "mask of {:?}", Printable(&self.held));
        let extra = match self.held[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = 2 + extra + if masked { 4 } else { 0 };
        self.need(head, "a frame's header");
        let length = match extra {
            0 => (self.held[1] & 0x7f) as usize,
            _ => self.held[2..2 + extra].iter().fold(0, |n, b| n << 8 | *b as usize),
        };
        self.need(head + length, "a frame's payload");
        let raw: Vec<u8> = self.held.drain(..head + length).collect();
        let mut payload = raw[head..].to_vec();
        if masked {
            let mask = [raw[head - 4], raw[head - 3], raw[head - 2], raw[head - 1]];
            apply_mask(&mut payload, mask);
        }
        Frame { first: raw[0], payload, raw }
    }

    pub fn expect_frame(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        let got = self.frame();
        assert!(
            got.first == first && got.payload == payload.as_ref(),
            "wanted {first:#04x} {:?}, got {got:?}",
            Printable(payload.as_ref())
        );
    }

    /// The next frame must be a Close with one of these codes.
    pub fn expect_close(&mut self, codes: &[u16]) -> Frame {
        let got = self.frame();
        assert!(got.first == FIN | CLOSE && codes.contains(&got.code()), "wanted Close {codes:?}, got {got:?}");
        got
    }

    /// Nothing more but the end of the connection.
    pub fn expect_end(&mut self) -> End {
        let (rest, end) = self.rest();
        assert!(rest.is_empty(), "wanted the end, got {:?}", Printable(&rest));
        end
    }

    pub fn expect_fin(&mut self) {
        assert_eq!(self.expect_end(), End::Fin);
    }

    /// Everything to the end of the connection.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.more() {
                return (std::mem::take(&mut self.held), end);
            }
        }
    }

    /// Everything to the end, as frames; a last piece of a frame is an error.
    pub fn frames_to_end(&mut self) -> (Vec<Frame>, End) {
        let (bytes, end) = self.rest();
        self.held = bytes;
        let mut frames = Vec::new();
        while !self.held.is_empty() {
            frames.push(self.frame());
        }
        (frames, end)
    }

    /// FIN: no more bytes from here.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// RST.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A request or response head as it was on the wire.
pub struct Head {
    pub raw: Vec<u8>,
}

impl Head {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    pub fn start(&self) -> String {
        self.text().lines().next().unwrap().to_string()
    }

    pub fn status(&self) -> u16 {
        let start = self.start();
        assert!(start.starts_with("HTTP/1.1 "), "not a response: {start:?}");
        start[9..12].parse().unwrap_or_else(|_| panic!("no status in {start:?}"))
    }

    pub fn fields(&self) -> Vec<(String, String)> {
        let text = self.text();
        let fields = text.lines().skip(1).filter_map(|l| l.split_once(':'));
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string())).collect()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let name = name.to_ascii_lowercase();
        self.fields().into_iter().filter(|f| f.0 == name).map(|f| f.1).collect()
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times", all.len());
        all.into_iter().next()
    }
}

pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
    pub raw: Vec<u8>,
}

impl Frame {
    pub fn code(&self) -> u16 {
        match self.payload.len() {
            0 => 0,
            1 => panic!("a Close with one byte"),
            _ => u16::from_be_bytes([self.payload[0], self.payload[1]]),
        }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "frame {:#04x} of {:?}", self.first, Printable(&self.payload))
    }
}

struct Printable<'a>(&'a [u8]);

impl std::fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(300)];
        write!(f, "{} bytes \"{}\"", self.0.len(), shown.escape_ascii())
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
}

/// A frame with the shortest length encoding; `first` is FIN, RSV and opcode.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        n @ ..126 => out.push(bit | n as u8),
        n @ ..65536 => {
            out.push(bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let start = out.len() + if mask.is_some() { 4 } else { 0 };
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
    out
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// RFC 6455, 4.2.2: "base64-encode the SHA-1 hash of the concatenation" of key and GUID.
pub fn accept_for(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// The lines of a good upgrade request. Tests take it apart to make bad ones.
pub fn good_lines() -> Vec<String> {
    let lines = [
        "GET /chat HTTP/1.1",
        "Host: chat.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        &format!("Sec-WebSocket-Key: {KEY}"),
        "Sec-WebSocket-Version: 13",
    ];
    lines.map(str::to_string).to_vec()
}

pub fn join(lines: &[String]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

/// A good request with these header lines at the end.
pub fn request(extra: &[&str]) -> String {
    let mut lines = good_lines();
    lines.extend(extra.iter().map(|l| l.to_string()));
    join(&lines)
}

/// A good request in which the line that starts with `name` is replaced, or taken out when `line` is empty.
pub fn request_with(name: &str, line: &str) -> String {
    let mut lines = good_lines();
    let at = lines.iter().position(|l| l.starts_with(name)).expect("a line of the good request");
    match line {
        "" => drop(lines.remove(at)),
        _ => lines[at] = line.to_string(),
    }
    join(&lines)
}

/// The right answer to this request, with these header lines at the end.
pub fn answer(request: &Head, extra: &[&str]) -> String {
    let accept = accept_for(&request.get("Sec-WebSocket-Key").expect("a key"));
    let mut text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    for line in extra {
        text += line;
        text += "\r\n";
    }
    text + "\r\n"
}

/// A listening socket; the test accepts from it and plays the backend's part.
pub struct Backend {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Drop for Backend {
    fn drop(&mut self) {
        stop_listening(&self.listener);
    }
}

/// From here on connections to it are refused. Closing it alone is not enough: a child process that another test is starting
/// has its descriptor too, until the child's own program runs.
pub fn stop_listening(listener: &TcpListener) {
    let _ = socket2::SockRef::from(listener).shutdown(Shutdown::Both);
}

impl Backend {
    pub fn new() -> Backend {
        Backend::at("127.0.0.1:0".parse().unwrap())
    }

    /// Accepts connections that take few bytes before they are read from.
    pub fn with_small_window() -> Backend {
        let backend = Backend::new();
        socket2::SockRef::from(&backend.listener).set_recv_buffer_size(2048).unwrap();
        backend
    }

    pub fn at(address: SocketAddr) -> Backend {
        let listener = TcpListener::bind(address).expect("bind");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Backend { listener, address }
    }

    pub fn accept(&self) -> Wire {
        let start = Instant::now();
        loop {
            if let Some(wire) = self.accept_now() {
                return wire;
            }
            assert!(start.elapsed() < DEADLINE, "no connection reached the backend");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The connection that is waiting, if one is.
    pub fn accept_now(&self) -> Option<Wire> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Some(Wire::new(stream, true))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("accept: {e}"),
        }
    }

    /// Accept, read the request, answer it rightly.
    pub fn upgrade(&self, extra: &[&str]) -> Wire {
        let mut wire = self.accept();
        let head = wire.head();
        wire.send(answer(&head, extra));
        wire
    }
}
