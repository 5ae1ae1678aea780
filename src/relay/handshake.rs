//! The handshake: client head in -> verdict; backend head out and back.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

use super::close::name;
use super::pipe::Event;
use super::respond::Response;
use super::session::{End, Link, Session, State};
use super::shared::Context;
use crate::config::{Forward, ForwardMode, Limits};
use crate::op::{Op, Piece, Side};
use crate::proto::http::{Fault, HeadKind, head_end};
use crate::proto::upgrade::{self, Agreement, Answer, Edit, Request};

/// What a session needs until its 101, and not a byte longer.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// The request head as far as it has come.
    head: Vec<u8>,
    /// How much of `head`, or of `answer`, has been searched for its end.
    searched: usize,
    /// What the client sent behind its head. No byte of it leaves before a right 101 (CVE-2026-2833).
    early: Vec<u8>,
    request: Option<Request>,
    /// The backend's response as far as it has come.
    answer: Vec<u8>,
    /// 1xx responses skipped.
    informational: u32,
    /// Backends that could not be connected to.
    tried: Vec<u16>,
    /// One of them had not answered in time.
    timed_out: bool,
    /// All slots for sessions are taken: this one exists to say so.
    over_limit: bool,
}

impl Handshake {
    pub fn new(over_limit: bool) -> Box<Self> {
        Box::new(Handshake { over_limit, ..Handshake::default() })
    }

    /// How many more bytes of the client's may come; 0: stop reading.
    pub fn client_credit(&self, limits: &Limits) -> u32 {
        let held = self.head.len() + self.early.len();
        let room = if self.request.is_some() { limits.early_bytes_max } else { limits.head_bytes_max + 1 };
        room.saturating_sub(held) as u32
    }

    pub fn backend_credit(&self, limits: &Limits) -> u32 {
        (limits.head_bytes_max + 1).saturating_sub(self.answer.len()) as u32
    }
}

impl Session {
    /// Bytes of the client in state `Head`.
    pub fn client_head(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let State::Head(handshake) = &mut self.state else { unreachable!("asked in state Head only") };
        handshake.head.extend_from_slice(bytes);
        let limits = cx.shared.head_limits;
        let end = match head_end(&handshake.head, handshake.searched, HeadKind::Request, &limits) {
            Ok(Some(end)) => end,
            Ok(None) => {
                handshake.searched = handshake.head.len();
                return;
            }
            Err(fault) => return self.refuse(fault, cx),
        };
        handshake.early = handshake.head.split_off(end);
        let head = std::mem::take(&mut handshake.head);
        handshake.searched = 0;
        match upgrade::request(&head, &limits) {
            Err(fault) if head.starts_with(b"HEAD ") => self.refuse_with(&fault, fault.response_to_head(), cx),
            Err(fault) => self.refuse(fault, cx),
            Ok(_) if handshake.over_limit => self.refuse(Fault::new(503, "All sessions are taken."), cx),
            Ok(_) if cx.shared.draining => self.refuse(Fault::new(503, "The relay is shutting down."), cx),
            Ok(request) => {
                handshake.request = Some(request);
                self.set_connecting();
            }
        }
    }

    /// Bytes of the client between its request and the backend's answer.
    pub fn client_early(&mut self, bytes: &[u8]) {
        let (State::Connecting(handshake) | State::Answering(handshake)) = &mut self.state else {
            unreachable!("asked between request and answer only")
        };
        handshake.early.extend_from_slice(bytes);
    }

    fn set_connecting(&mut self) {
        self.deadline = u64::MAX;
        self.state = match std::mem::replace(&mut self.state, State::Ending) {
            State::Head(handshake) => State::Connecting(handshake),
            state => unreachable!("{state:?} does not lead to a connect"),
        };
    }

    /// Connects to the next backend, or refuses the client if all have been tried.
    pub fn connect_next(&mut self, cx: &mut Context<'_>) {
        let State::Connecting(handshake) = &mut self.state else { unreachable!("asked in state Connecting only") };
        let random = cx.shared.random();
        let pool = cx.shared.config.default_pool.unwrap_or(0);
        let Some(number) = cx.shared.balancer.choose(pool, &handshake.tried, cx.now, random) else {
            let fault = if handshake.timed_out {
                Fault::new(504, "No backend accepted the connection in time.")
            } else {
                Fault::new(503, "No backend is reachable.")
            };
            return self.refuse(fault, cx);
        };
        handshake.tried.push(number);
        self.backend_number = Some(number);
        self.backend = End::absent();
        self.backend.link = Link::Connecting;
        self.deadline = cx.now + cx.shared.waits.connect;
        let address = cx.shared.balancer.address(number);
        cx.ops.push(Op::Connect { conn: self.conn(Side::Backend), address });
    }

    /// A Connect that was still wanted has ended.
    pub fn connected(&mut self, result: io::Result<()>, cx: &mut Context<'_>) {
        if let Err(error) = result {
            self.connect_failed(&error, cx);
            self.backend.link = Link::Retiring { connecting: false };
            return;
        }
        self.backend.link = Link::Live;
        self.deadline = cx.now + cx.shared.waits.answer;
        let state = std::mem::replace(&mut self.state, State::Ending);
        let State::Connecting(handshake) = state else { unreachable!("a wanted connect is one of state Connecting") };
        let request = handshake.request.as_ref().expect("a request is checked before anything connects");
        let edits = edits(&cx.shared.config.forward, self.client_ip, &request.host);
        let head = request.forward(&edits);
        self.state = State::Answering(handshake);
        self.up.push(Piece::owned(head), cx);
    }

    fn connect_failed(&mut self, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        cx.shared.metrics.connect_failures.add(1);
        self.backend_failed(error, cx);
        if let Some(number) = self.backend_number.take() {
            cx.shared.balancer.release(number);
        }
    }

    /// The backend has shown that it is not well: others are tried before it for a while.
    fn backend_failed(&mut self, error: &dyn std::fmt::Display, cx: &mut Context<'_>) {
        if let Some(number) = self.backend_number
            && cx.shared.balancer.failed(number, cx.now)
        {
            tracing::warn!(backend = cx.shared.balancer.name(number), %error, "backend is down");
        }
    }

    /// It has answered, whatever it said.
    fn backend_answered(&mut self, cx: &mut Context<'_>) {
        if let Some(number) = self.backend_number
            && cx.shared.balancer.answered(number, cx.now)
        {
            tracing::info!(backend = cx.shared.balancer.name(number), "backend is up again");
        }
    }

    pub fn connect_timed_out(&mut self, cx: &mut Context<'_>) {
        if let State::Connecting(handshake) = &mut self.state {
            handshake.timed_out = true;
        }
        self.connect_failed(&"no connection within timeouts.connect", cx);
        self.retire(Side::Backend, cx);
    }

    /// Bytes of the backend in state `Answering`.
    pub fn backend_answer(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let sending = self.backend.sending;
        let State::Answering(handshake) = &mut self.state else { unreachable!("asked in state Answering only") };
        handshake.answer.extend_from_slice(bytes);
        let limits = cx.shared.head_limits;
        loop {
            let end = match head_end(&handshake.answer, handshake.searched, HeadKind::Response, &limits) {
                Ok(Some(end)) => end,
                Ok(None) => {
                    handshake.searched = handshake.answer.len();
                    return;
                }
                Err(fault) => return self.bad_gateway(fault.text, cx),
            };
            if sending {
                return self.bad_gateway("The backend answered before it had the whole request.", cx);
            }
            let request = handshake.request.as_ref().expect("an answer follows a request");
            match upgrade::answer(&handshake.answer[..end], &request.offer, &limits) {
                Err(fault) => return self.bad_gateway(fault.text, cx),
                Ok(Answer::Informational) => {
                    handshake.informational += 1;
                    if handshake.informational > cx.shared.config.limits.informational_max {
                        return self.bad_gateway("The backend sent too many 1xx responses.", cx);
                    }
                    handshake.answer.drain(..end);
                    handshake.searched = 0;
                }
                Ok(Answer::Switched(agreement)) => {
                    self.backend_answered(cx);
                    return self.open(end, agreement, cx);
                }
                Ok(Answer::Response { head, body }) => {
                    let rest = handshake.answer.split_off(end);
                    self.backend_answered(cx);
                    let until = cx.now + cx.shared.waits.answer + cx.shared.waits.send_stall;
                    self.state = State::Responding(Response::new(body, &cx.shared.config.limits, until));
                    return self.respond(head, &rest, cx);
                }
            }
        }
    }

    /// The backend's 101 is right: it is relayed as it came, and everything behind it is frames.
    fn open(&mut self, end: usize, agreement: Agreement, cx: &mut Context<'_>) {
        let State::Answering(mut handshake) = std::mem::replace(&mut self.state, State::Open) else {
            unreachable!("a 101 is an answer")
        };
        let behind = handshake.answer.split_off(end);
        cx.shared.metrics.opened.add(1);
        self.deadline = u64::MAX;
        self.active_at = cx.now;
        self.up.open(agreement.deflate);
        self.down.open(agreement.deflate);
        self.down.push(Piece::owned(handshake.answer), cx);
        self.absorb(Side::Client, &handshake.early, None, cx);
        self.absorb(Side::Backend, &behind, None, cx);
        if self.client.finished {
            self.lost(Side::Client, "connection closed", cx);
        }
    }

    /// Frames of this side, in a lease or copied.
    pub fn absorb(&mut self, from: Side, bytes: &[u8], lease: Option<crate::op::Lease>, cx: &mut Context<'_>) {
        match self.pipe_from(from).absorb(bytes, lease, cx) {
            Event::None => {}
            Event::Close => self.closed_by(from, cx),
            Event::Fault(notice) => self.fail(from, notice, cx),
        }
    }

    pub fn head_timed_out(&mut self, cx: &mut Context<'_>) {
        let silent = matches!(&self.state, State::Head(handshake) if handshake.head.is_empty());
        if silent {
            // Nobody asked anything: a load balancer's probe, a browser's spare connection.
            self.outcome.set("client", "no request");
            return self.terminate(cx);
        }
        self.refuse(Fault::new(408, "The request did not arrive in time."), cx);
    }

    pub fn answer_timed_out(&mut self, cx: &mut Context<'_>) {
        self.backend_failed(&"no answer within timeouts.answer", cx);
        self.refuse(Fault::new(504, "The backend did not answer in time."), cx);
    }

    /// FIN or RST before the 101.
    pub fn lost_in_handshake(&mut self, side: Side, error: Option<io::Error>, cx: &mut Context<'_>) {
        let reset = error.is_some();
        match (side, &self.state) {
            (Side::Client, State::Head(handshake)) if !reset && !handshake.head.is_empty() => {
                self.refuse(Fault::new(400, "The request is cut short."), cx);
            }
            // A client that has said all it wants to say may still want the answer.
            (Side::Client, State::Connecting(_) | State::Answering(_)) if !reset => self.client.finished = true,
            (Side::Client, _) => {
                self.outcome.set(name(side), "connection closed before the request was answered");
                self.terminate(cx);
            }
            (Side::Backend, State::Answering(handshake)) => {
                let text = match (handshake.answer.is_empty(), reset) {
                    (_, true) => "The backend reset the connection instead of answering.",
                    (true, _) => "The backend closed the connection without an answer.",
                    (false, _) => "The backend's answer is cut short.",
                };
                self.backend_failed(&text, cx);
                self.bad_gateway(text, cx);
            }
            (Side::Backend, _) => {}
        }
    }

    pub fn bad_gateway(&mut self, text: impl Into<Cow<'static, str>>, cx: &mut Context<'_>) {
        let text = text.into();
        let backend = self.backend_number.map_or("", |number| cx.shared.balancer.name(number));
        tracing::debug!(backend, fault = %text, "bad answer");
        self.refuse(Fault::new(502, text), cx);
    }

    /// Answers the client in Ringway's own name, and gives up the backend.
    pub fn refuse(&mut self, fault: Fault, cx: &mut Context<'_>) {
        self.refuse_with(&fault, fault.response(), cx);
    }

    fn refuse_with(&mut self, fault: &Fault, response: Vec<u8>, cx: &mut Context<'_>) {
        cx.shared.metrics.refused.add(1);
        self.outcome.set("ringway", fault.text.clone());
        self.outcome.status = fault.status;
        self.down.push(Piece::owned(response), cx);
        self.linger(cx);
    }

    /// What is queued for the client is the last it hears.
    pub fn linger(&mut self, cx: &mut Context<'_>) {
        self.retire(Side::Backend, cx);
        self.down.finish = true;
        self.state = State::Lingering;
        self.deadline = cx.now + cx.shared.waits.send_stall;
        cx.unsettle(self);
    }
}

/// The headers that tell the backend who asked, as the config wants them.
fn edits<'a>(forward: &Forward, client: Option<IpAddr>, host: &'a str) -> Vec<Edit<'a>> {
    let client = client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_canonical().to_string());
    // RFC 7239, 6: an IPv6 address stands in brackets and quotes.
    let node = if client.contains(':') { format!("\"[{client}]\"") } else { client.clone() };
    let forwarded = format!("for={node};host=\"{host}\";proto=http");
    let fields: [(ForwardMode, &'static str, Cow<'a, str>); 4] = [
        (forward.x_forwarded_for, "X-Forwarded-For", client.into()),
        (forward.x_forwarded_proto, "X-Forwarded-Proto", "http".into()),
        (forward.x_forwarded_host, "X-Forwarded-Host", host.into()),
        (forward.forwarded, "Forwarded", forwarded.into()),
    ];
    fields.into_iter().map(|(mode, name, value)| edit(mode, name, value)).collect()
}

fn edit<'a>(mode: ForwardMode, name: &'static str, value: Cow<'a, str>) -> Edit<'a> {
    match mode {
        ForwardMode::Append => Edit::Append { name, value },
        ForwardMode::Replace => Edit::Replace { name, value },
        ForwardMode::Off => Edit::Remove { name },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_follow_the_config() {
        let forward = Forward {
            x_forwarded_for: ForwardMode::Append,
            x_forwarded_proto: ForwardMode::Off,
            x_forwarded_host: ForwardMode::Replace,
            forwarded: ForwardMode::Append,
        };
        let edits = edits(&forward, Some("2001:db8::7".parse().unwrap()), "chat.example:8080");
        assert!(matches!(&edits[0], Edit::Append { name: "X-Forwarded-For", value } if value == "2001:db8::7"));
        assert!(matches!(&edits[1], Edit::Remove { name: "X-Forwarded-Proto" }));
        assert!(matches!(&edits[2], Edit::Replace { value, .. } if value == "chat.example:8080"));
        let wanted = "for=\"[2001:db8::7]\";host=\"chat.example:8080\";proto=http";
        assert!(matches!(&edits[3], Edit::Append { value, .. } if value == wanted));
    }
}
