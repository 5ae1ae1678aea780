//! One client of the upstream: handshake, role by path, messages, and a close by the book.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_uring::net::TcpStream;

use super::liar::{Liar, Lies};
use super::rooms::{Hub, Inbox, Listeners, Post};
use super::{Command, Stall, TlsConfig, UpstreamSpec};
use crate::net::Fault;
use crate::net::inbound::Inbound;
use crate::net::link::Link;
use crate::net::outbox::Outbox;
use crate::wire::frame::{Opcode, close_payload, put_frame, put_head};
use crate::wire::handshake;
use crate::wire::message::{Event, Role};

/// Reading stops while this much waits to be sent, so that TCP tells the client to slow down.
const QUEUED_BYTES_MAX: usize = 1 << 20;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a peer may take to end TCP after the close frames.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// One worker's share of the upstream.
pub struct Server {
    tls: TlsConfig,
    hub: Hub,
    number: usize,
    listeners: Listeners,
    lies: Lies,
    message_bytes_max: usize,
    clients: RefCell<Vec<Weak<Client>>>,
    first_message: Notify,
    messages_seen: Cell<bool>,
}

struct Client {
    link: Rc<Link>,
    out: Rc<Outbox>,
}

/// What a path asks for.
enum Part {
    Echo,
    Sink,
    Close { code: u16, after: u64 },
    Room { room: Arc<str>, publishes: bool, listens: bool },
}

impl Part {
    fn of(path: &str) -> Part {
        let path = path.split('?').next().unwrap_or_default();
        let mut words = path.rsplit('/');
        let last = words.next().unwrap_or_default();
        let before = words.next().unwrap_or_default();
        let room = |publishes, listens| Part::Room { room: last.into(), publishes, listens };
        match before {
            "pub" => room(true, false),
            "sub" => room(false, true),
            "chat" => room(true, true),
            _ if last == "sink" => Part::Sink,
            code if words.next() == Some("close") => match (code.parse(), last.parse()) {
                (Ok(code), Ok(after)) => Part::Close { code, after },
                _ => Part::Echo,
            },
            _ => Part::Echo,
        }
    }
}

impl Server {
    pub fn new(spec: &UpstreamSpec, tls: TlsConfig, hub: Hub, number: usize) -> Rc<Server> {
        Rc::new(Server {
            tls,
            hub,
            number,
            listeners: Listeners::default(),
            lies: spec.lies,
            message_bytes_max: spec.message_bytes_max,
            clients: RefCell::default(),
            first_message: Notify::new(),
            messages_seen: Cell::new(false),
        })
    }

    pub fn greet(self: Rc<Self>, tcp: TcpStream) {
        let Ok(mut link) = Link::from_accepted(tcp) else {
            return;
        };
        if let Some(config) = &self.tls {
            let Ok(mut session) = rustls::ServerConnection::new(config.clone()) else {
                return;
            };
            session.set_buffer_limit(None);
            link = link.with_tls(session.into());
        }
        let link = Rc::new(link);
        tokio_uring::spawn(async move {
            let opened = timeout(HANDSHAKE_TIME_MAX, upgrade(&link)).await;
            match opened {
                Ok(Some((path, response, early))) => self.session(link, &path, response, early).await,
                _ => link.end(),
            }
        });
    }

    async fn session(self: Rc<Self>, link: Rc<Link>, path: &str, response: Vec<u8>, early: Vec<u8>) {
        let out = Outbox::new(None);
        let part = Part::of(path);
        // Before the 101 leaves: whoever has seen it hears everything that is said from then on.
        if let Part::Room { room, listens: true, .. } = &part {
            self.listeners.join(room, &out);
        }
        out.append(|bytes| bytes.extend_from_slice(&response));
        let writer = tokio_uring::spawn(out.clone().run(link.clone()));
        let client = Rc::new(Client { link: link.clone(), out: out.clone() });
        self.remember(&client);
        let mut inbound = Inbound::new(link.clone(), Role::Server, self.message_bytes_max, early);
        let fault = self.talk(&mut inbound, &out, &part).await;
        if let Part::Room { room, listens: true, .. } = &part {
            self.listeners.leave(room, &out);
        }
        farewell(&link, &out, fault).await;
        out.close();
        link.end();
        let _ = writer.await;
    }

    async fn talk(&self, inbound: &mut Inbound, out: &Outbox, part: &Part) -> Fault {
        let mut liar = Liar::new(self.lies);
        let mut count = 0;
        loop {
            let event = match inbound.next().await {
                Ok(event) => event,
                Err(fault) => return fault,
            };
            match event {
                Event::Fragment | Event::Pong(_) => {}
                Event::Ping(range) => {
                    let payload = inbound.bytes(&range);
                    out.append(|bytes| put_frame(bytes, true, Opcode::Pong, None, payload));
                }
                Event::Close { code, reason } => {
                    let reason = String::from_utf8_lossy(inbound.bytes(&reason)).into_owned();
                    return Fault::Closed { code, reason };
                }
                Event::Message { text, place } => {
                    self.note_message();
                    count += 1;
                    self.answer(text, inbound.message(&place), out, part, &mut liar);
                    if let Part::Close { code, after } = part
                        && count >= *after
                    {
                        return self.close_first(inbound, out, *code).await;
                    }
                }
            }
            out.below(QUEUED_BYTES_MAX).await;
        }
    }

    fn answer(&self, text: bool, payload: &[u8], out: &Outbox, part: &Part, liar: &mut Liar) {
        let opcode = |text| if text { Opcode::Text } else { Opcode::Binary };
        match part {
            Part::Echo | Part::Close { .. } => liar.pass(text, payload, |text, payload| {
                out.append(|bytes| put_frame(bytes, true, opcode(text), None, payload));
            }),
            Part::Room { room, publishes: true, .. } => liar.pass(text, payload, |text, payload| {
                let mut frame = Vec::with_capacity(payload.len() + 10);
                put_frame(&mut frame, true, opcode(text), None, payload);
                let post = Post { room: room.clone(), frame: frame.into() };
                self.hub.publish(&post, self.number, &self.listeners);
            }),
            Part::Sink | Part::Room { .. } => {}
        }
    }

    /// This side begins the closing handshake, and waits for the answer.
    async fn close_first(&self, inbound: &mut Inbound, out: &Outbox, code: u16) -> Fault {
        out.append(|bytes| {
            let payload = close_payload(Some(code), "as the path asks");
            put_frame(bytes, true, Opcode::Close, None, &payload);
        });
        out.flush().await;
        let wait = async {
            loop {
                match inbound.next().await {
                    Ok(Event::Close { .. }) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = timeout(CLOSE_TIME_MAX, wait).await;
        Fault::EndWithoutClose
    }

    fn note_message(&self) {
        if !self.messages_seen.replace(true) {
            self.first_message.notify_one();
        }
    }

    fn remember(&self, client: &Rc<Client>) {
        let mut clients = self.clients.borrow_mut();
        if clients.len() == clients.capacity() {
            clients.retain(|client| client.strong_count() > 0);
        }
        clients.push(Rc::downgrade(client));
    }

    /// Messages that other workers' publishers sent to this worker's listeners.
    pub async fn deliver(self: Rc<Self>, mut inbox: Inbox) {
        while let Some(post) = inbox.recv().await {
            self.listeners.deliver(&post);
        }
    }

    /// Blocks the whole worker, as a long garbage collection or a swapped-out process would.
    pub async fn stall(self: Rc<Self>, stall: Stall) {
        self.first_message.notified().await;
        tokio::time::sleep(stall.after).await;
        std::thread::sleep(stall.length);
    }

    pub fn obey(&self, command: Command) {
        for client in self.clients.borrow().iter().filter_map(Weak::upgrade) {
            tokio_uring::spawn(client.suffer(command));
        }
    }
}

impl Client {
    async fn suffer(self: Rc<Self>, command: Command) {
        match command {
            Command::Rst => {
                if self.link.reset_on_close().is_ok() {
                    self.out.close();
                    self.link.end();
                }
            }
            Command::HalfClose => {
                self.out.flush().await;
                self.link.shutdown(Shutdown::Write);
            }
            Command::Cut => {
                self.out.append(|bytes| {
                    put_head(bytes, true, Opcode::Binary, None, 1000);
                    bytes.resize(bytes.len() + 500, 0);
                });
                self.out.flush().await;
                self.link.shutdown(Shutdown::Both);
            }
            Command::Restart => {
                let payload = close_payload(Some(1012), "restart");
                self.out.append(|bytes| put_frame(bytes, true, Opcode::Close, None, &payload));
                self.out.flush().await;
                self.out.close();
            }
        }
    }
}

/// Reads a request and returns path, response and what came behind it; refuses what is no upgrade.
async fn upgrade(link: &Link) -> Option<(String, Vec<u8>, Vec<u8>)> {
    link.handshake().await.ok()?;
    let mut request = Vec::with_capacity(1024);
    loop {
        if request.len() == request.capacity() {
            request.reserve(request.capacity());
        }
        let (result, bytes) = link.read(request).await;
        request = bytes;
        if !matches!(result, Ok(1..)) {
            return None;
        }
        match handshake::answer(&request) {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                request.drain(..accepted.bytes);
                return Some((accepted.path, accepted.response, request));
            }
            Err(refusal) => {
                let _ = link.write_all(refusal).await;
                return None;
            }
        }
    }
}

/// Answers a close frame or a violation, ends the sending side, and lets the peer end the other.
async fn farewell(link: &Link, out: &Outbox, fault: Fault) {
    let payload = match fault {
        Fault::Closed { code, .. } => close_payload(code, ""),
        Fault::Violation(violation) => close_payload(Some(violation.close_code()), &violation.to_string()),
        _ => {
            out.flush().await;
            return;
        }
    };
    out.append(|bytes| put_frame(bytes, true, Opcode::Close, None, &payload));
    out.flush().await;
    link.shutdown(Shutdown::Write);
    // Closing with unread bytes would reset the connection and could destroy the close frame on its way.
    let rest = async {
        let mut scrap = Vec::with_capacity(4096);
        loop {
            scrap.clear();
            let (result, buffer) = link.read(scrap).await;
            scrap = buffer;
            if !matches!(result, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(CLOSE_TIME_MAX, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_parts_wherever_they_are_mounted() {
        assert!(matches!(Part::of("/"), Part::Echo));
        assert!(matches!(Part::of("/a/b"), Part::Echo));
        assert!(matches!(Part::of("/x/sink?y"), Part::Sink));
        assert!(matches!(Part::of("/close/1001/3"), Part::Close { code: 1001, after: 3 }));
        let Part::Room { room, publishes, listens } = Part::of("/app/chat/7?t=1") else {
            panic!("a room");
        };
        assert_eq!((&*room, publishes, listens), ("7", true, true));
    }
}
