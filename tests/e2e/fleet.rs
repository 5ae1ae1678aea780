//! Backends that come, go and misbehave when a test says so, each on a loopback address of its own, and a relay in front of
//! them whose file can change. For tests that care who serves a client, not how the bytes look.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::harness::{Ringway, Setup, refusal, until};
use crate::wire::*;

/// What a host does with those who come.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// Answers handshakes with 101 and checks with 200, and echoes.
    Well,
    /// Answers everything with this status.
    Status(u16),
    /// Answers with something else than HTTP.
    Garbage,
    /// Takes connections, and says nothing.
    Silent,
    /// Closes instead of answering.
    HangUp,
    /// Answers well, and then ends the connection without a Close.
    Drop,
    /// The same the hard way.
    Reset,
    /// Each handshake waits until the test lets it go on, first come, first served.
    Held,
}

/// A backend with a thread per connection.
pub struct Host {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    mood: Mutex<Mood>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Handshakes that may go on; those from then on wait.
    released: AtomicUsize,
    /// The value of X-Id of each handshake, in the order in which they came.
    asked: Mutex<Vec<String>>,
    checks: AtomicUsize,
    handshaking: Gauge,
    open: Gauge,
}

/// How many there are, and the most there ever were.
#[derive(Default)]
struct Gauge(AtomicUsize, AtomicUsize);

impl Gauge {
    fn add(&self) {
        let now = self.0.fetch_add(1, SeqCst) + 1;
        self.1.fetch_max(now, SeqCst);
    }

    fn sub(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A loopback address that nothing else uses, so that its ports stay free when their owner has gone.
pub fn own_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, SeqCst);
    let process = std::process::id();
    Ipv4Addr::new(
        127,
        1 + (process % 200) as u8,
        (process / 200 % 32 * 8 + number / 250) as u8,
        (1 + number % 250) as u8,
    )
    .into()
}

/// An address that nobody listens on, and nobody else will.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    stop_listening(&listener);
    address
}

impl Host {
    pub fn new() -> Host {
        Host::at((own_ip(), 0).into())
    }

    pub fn many(count: usize) -> Vec<Host> {
        (0..count).map(|_| Host::new()).collect()
    }

    pub fn at(address: SocketAddr) -> Host {
        Host::in_mood(address, Mood::Well)
    }

    pub fn in_mood(address: SocketAddr, mood: Mood) -> Host {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mood: Mutex::new(mood),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            released: AtomicUsize::new(0),
            asked: Mutex::default(),
            checks: AtomicUsize::new(0),
            handshaking: Gauge::default(),
            open: Gauge::default(),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Host { address, shared, accepting: Some(accepting) }
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        self.shared.changed.notify_all();
    }

    /// Lets so many more held handshakes go on.
    pub fn release(&self, count: usize) {
        let _mood = self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.released.fetch_add(count, SeqCst);
        self.shared.changed.notify_all();
    }

    /// Open sessions.
    pub fn open(&self) -> usize {
        self.shared.open.0.load(SeqCst)
    }

    pub fn open_peak(&self) -> usize {
        self.shared.open.1.load(SeqCst)
    }

    /// Handshakes that have begun and are not answered.
    pub fn handshaking(&self) -> usize {
        self.shared.handshaking.0.load(SeqCst)
    }

    pub fn handshaking_peak(&self) -> usize {
        self.shared.handshaking.1.load(SeqCst)
    }

    /// Handshakes that have ever begun: the X-Id of each.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn checks(&self) -> usize {
        self.shared.checks.load(SeqCst)
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Nobody listens any more. Its sessions stay.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        // Wakes the thread that waits in accept.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.set(Mood::HangUp);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(SeqCst) {
            return stop_listening(listener);
        }
        let Ok(stream) = stream else { continue };
        let shared = shared.clone();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(stream, address, &shared));
    }
}

fn serve(stream: TcpStream, address: SocketAddr, shared: &Shared) {
    let mut wire = Wire::new(stream, true);
    wire.stream.set_read_timeout(None).unwrap();
    // A TCP check sends nothing.
    let Some(head) = wire.try_head() else { return };
    if head.get("User-Agent").as_deref() == Some("ringway-health") {
        shared.checks.fetch_add(1, SeqCst);
        let mood = shared.mood.lock().unwrap().clone();
        return match mood {
            Mood::Well | Mood::Held | Mood::Drop if head.get("Upgrade").is_none() => wire.send_or_lose(status(200)),
            mood => act(&mood, &head, wire, address, shared),
        };
    }
    let place = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push(head.get("X-Id").unwrap_or_default());
        asked.len()
    };
    shared.handshaking.add();
    let mood = shared.mood.lock().unwrap();
    let held = |mood: &mut Mood| *mood == Mood::Held && place > shared.released.load(SeqCst);
    let mood = shared.changed.wait_while(mood, held).unwrap().clone();
    act(&mood, &head, wire, address, shared);
}

fn act(mood: &Mood, head: &Head, mut wire: Wire, address: SocketAddr, shared: &Shared) {
    let is_check = head.get("User-Agent").as_deref() == Some("ringway-health");
    // Before the answer: whoever has read it must not still be counted.
    if !is_check && *mood != Mood::Silent {
        shared.handshaking.sub();
    }
    match mood {
        Mood::Well | Mood::Held => {
            if !is_check {
                shared.open.add();
            }
            wire.send_or_lose(answer(head, &[&format!("X-Backend: {address}")]));
            echo(&mut wire);
            // Before the connection ends, or the next session might be counted with it.
            if !is_check {
                shared.open.sub();
            }
        }
        Mood::Drop => wire.send_or_lose(answer(head, &[&format!("X-Backend: {address}")])),
        Mood::Reset => {
            wire.send_or_lose(answer(head, &[&format!("X-Backend: {address}")]));
            wire.reset();
        }
        Mood::Status(code) => {
            wire.send_or_lose(status(*code));
            _ = wire.stream.shutdown(Shutdown::Write);
            wire.discard();
        }
        Mood::Garbage => {
            wire.send_or_lose("220 mail.example ESMTP\r\n\r\n");
            wire.discard();
        }
        Mood::HangUp => {}
        Mood::Silent => {
            wire.discard();
            if !is_check {
                shared.handshaking.sub();
            }
        }
    }
}

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} As Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Frames of less than 126 bytes, until a Close or the end.
fn echo(wire: &mut Wire) {
    while let Some(frame) = wire.try_frame() {
        let first = if frame.first == FIN | PING { FIN | PONG } else { frame.first };
        wire.send_or_lose(crate::wire::frame(first, None, &frame.payload));
        if frame.first == FIN | CLOSE {
            return;
        }
    }
}

/// A relay with a file that can change.
pub struct Edge {
    pub relay: Ringway,
}

impl Edge {
    pub fn start(workers: usize, config: &str) -> Edge {
        let setup = Setup { settings: config.into(), listen: vec!["127.0.0.1:0".into()], workers, ..Setup::default() };
        Edge { relay: Ringway::start(&setup) }
    }

    /// Lines of the log with all these parts.
    pub fn lines(&self, parts: &[&str]) -> usize {
        self.matching(parts).len()
    }

    pub fn matching(&self, parts: &[&str]) -> Vec<String> {
        self.relay.process.log().into_iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
    }

    pub fn until_lines(&self, count: usize, parts: &[&str]) {
        until(&format!("{count} lines with {parts:?}"), || self.lines(parts) >= count);
    }

    pub fn reload(&self, config: &str) {
        let before = self.lines(&[" reloaded "]);
        std::fs::write(&self.relay.config, config).unwrap();
        self.relay.signal("HUP");
        self.until_lines(before + 1, &[" reloaded "]);
    }

    /// Begins a handshake.
    pub fn ask(&self, extra: &[&str]) -> Wire {
        let mut client = self.relay.client();
        client.send(request(extra));
        client
    }

    /// An open session, and the name of the host that has it.
    pub fn open(&self, extra: &[&str]) -> (Wire, String) {
        opened(self.ask(extra))
    }

    /// Opens a session, tells who has it, and ends it.
    pub fn who(&self, extra: &[&str]) -> String {
        let (mut client, host) = self.open(extra);
        leave(&mut client);
        host
    }

    /// A handshake that gets this answer, whoever gives it.
    pub fn refused(&self, status: u16) -> Head {
        refusal(&mut self.ask(&[]), &[status])
    }

    /// The status of one more handshake.
    pub fn status(&self) -> u16 {
        self.ask(&[]).head().status()
    }
}

/// The answer to a handshake has to be a 101.
pub fn opened(mut client: Wire) -> (Wire, String) {
    let head = client.head();
    assert_eq!(head.status(), 101, "{}", head.text());
    let host = head.get("X-Backend").expect("a host of the fleet");
    (client, host)
}

/// The session lives.
pub fn says_back(client: &mut Wire, text: &str) {
    client.client_frame(FIN | TEXT, text);
    client.expect_frame(FIN | TEXT, text);
}

/// The closing handshake, begun by the client.
pub fn leave(client: &mut Wire) {
    client.client_frame(FIN | CLOSE, close_payload(1000, ""));
    client.expect_close(&[1000]);
    client.expect_fin();
}

/// A 503 that says when to come back, about `seconds` from now.
pub fn says_when(head: &Head, seconds: u64) -> u64 {
    let after: u64 = head.get("Retry-After").expect("Retry-After").parse().unwrap();
    assert!((seconds.div_ceil(2)..=seconds.div_ceil(2) + seconds).contains(&after), "Retry-After: {after}");
    after
}

/// `[[pools]]` with these backends, and further lines. Subtables come behind them.
pub fn pool(hosts: &[&Host], more: &str) -> String {
    let backends: Vec<String> = hosts.iter().map(|host| format!("\"{}\"", host.address)).collect();
    format!("[[pools]]\nname = \"chat\"\nbackends = [{}]\n{more}", backends.join(", "))
}

impl Wire {
    /// `None`: the connection ended before there was one.
    fn try_head(&mut self) -> Option<Head> {
        let mut raw = Vec::new();
        let mut byte = [0];
        while !raw.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => raw.push(byte[0]),
                _ => return None,
            }
        }
        Some(Head { raw })
    }

    /// A short masked frame.
    fn try_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 6];
        self.stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        self.stream.read_exact(&mut payload).ok()?;
        apply_mask(&mut payload, [head[2], head[3], head[4], head[5]]);
        Some(Frame { first: head[0], payload, raw: Vec::new() })
    }

    /// Something can be read from it, if only its end.
    pub fn has_come(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let come = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        come
    }

    fn discard(&mut self) {
        let mut rest = [0; 4096];
        while matches!(self.stream.read(&mut rest), Ok(1..)) {}
    }
}
