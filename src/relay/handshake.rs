//! The handshake: client head in -> verdict; backend head out and back.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;

use super::context::Context;
use super::feedback::Failure;
use super::hops;
use super::listener::ListenerId;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::plain::{Pace, Upload};
use super::refusal::{Refusal, RetryAfter};
use super::respond::Response;
use super::route::{self, LocalExhaustion};
use super::session::{Session, State};
use crate::config::{Forward, ForwardMode, Limits, millis};
use crate::op::{Piece, Side};
use crate::proto::http::{Body, HeadKind, head_end};
use crate::proto::upgrade::{self, Agreement, Answer, Edit, Incoming, Wrong};

/// What a session needs until its 101, and not a byte longer.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// The request head as far as it has come.
    head: Vec<u8>,
    /// How much of `head`, or of `answer`, has been searched for its end.
    searched: usize,
    /// What the client sent behind its head. No byte of it leaves before a right 101 (CVE-2026-2833).
    early: Vec<u8>,
    pub incoming: Option<Incoming>,
    /// The one it came to.
    pub listener: ListenerId,
    /// The backend's response as far as it has come.
    answer: Vec<u8>,
    /// 1xx responses skipped.
    informational: u32,
    /// The target as the route has rewritten it.
    pub target: Option<String>,
    /// Of plain HTTP: the end of all patience (timeouts.plain_http_total).
    pub until: u64,
    /// Ringways that it has passed before this one.
    pub hops: u32,
    /// What hashing policies go by, and the same if newcomers are to meet those who came by it.
    pub key: u64,
    pub kept_key: Option<NonZeroU64>,
    /// The backend that the client's cookie asks for, until it has been asked.
    pub wanted: Option<u16>,
    /// The backend that the client's cookie names.
    pub came_with: Option<u16>,
    /// The cookie that brings this client back to the backend that is asked, if it has not brought it itself.
    pub set_cookie: Option<String>,
    /// The table in which all these numbers are; 0: none yet.
    pub generation: u32,
    /// The pool has let it in: it passes the breaker, and a handshake counts in the rate, only once.
    pub admitted: bool,
    /// When waiting for its turn ends.
    pub queued_until: u64,
    /// Backends that could not be connected to.
    pub tried: Vec<u16>,
    /// How many connects there have been, those of earlier tables included.
    pub tries: u32,
    /// What is left of the time for all of them, and when the last began.
    pub dial_left: u64,
    pub dialled_at: u64,
    /// One of them had not answered in time.
    pub timed_out: bool,
    /// This machine lacked what a connect needs: that says nothing of the pool.
    pub exhausted: Option<LocalExhaustion>,
    /// Its backend is to be left, with this notice, within so many milliseconds of the 101.
    pub leaves: Option<(Notice, u64)>,
    /// The body of a request that is plain HTTP, once a backend is there to take it.
    pub upload: Option<Upload>,
    /// The answer may have no body.
    is_head: bool,
}

impl Handshake {
    pub fn new(listener: ListenerId) -> Box<Self> {
        Box::new(Handshake {
            listener,
            queued_until: u64::MAX,
            dial_left: u64::MAX,
            until: u64::MAX,
            ..Handshake::default()
        })
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.incoming, Some(Incoming::Plain(..)))
    }

    /// The client's bytes go up as they come.
    pub fn uploads(&self) -> bool {
        self.upload.is_some()
    }

    /// Of a plain request, the body begins. Returns whether the client waits to be told so.
    fn begin_upload(&mut self, limits: &Limits, now: u64) -> bool {
        let Some(Incoming::Plain(request, _)) = &self.incoming else { return false };
        let room = limits.request_body_bytes_max.unwrap_or(u64::MAX);
        let invited = request.expects_continue && self.early.is_empty() && !request.body.is_complete();
        let per_second_min = limits.request_body_bytes_per_second_min.unwrap_or(0);
        self.upload = Some(Upload { body: request.body, room, pace: Pace::new(per_second_min, now) });
        invited
    }

    /// How many more bytes of the client's may come; 0: stop reading.
    pub fn client_credit(&self, limits: &Limits) -> u32 {
        let held = self.head.len() + self.early.len();
        let room = if self.incoming.is_some() { limits.early_bytes_max } else { limits.head_bytes_max + 1 };
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
        let limits = cx.shared.current.head_limits;
        let end = match head_end(&handshake.head, handshake.searched, HeadKind::Request, &limits) {
            Ok(Some(end)) => end,
            Ok(None) => {
                handshake.searched = handshake.head.len();
                return;
            }
            Err(rejection) => return self.refuse(rejection, cx),
        };
        handshake.early = handshake.head.split_off(end);
        let head = std::mem::take(&mut handshake.head);
        handshake.searched = 0;
        handshake.is_head = head.starts_with(b"HEAD ");
        match upgrade::request(&head, &limits) {
            Err(rejection) => self.refuse(rejection, cx),
            Ok(_) if cx.shared.draining => self.refuse(Refusal::Draining, cx),
            Ok(incoming) => {
                handshake.incoming = Some(incoming);
                self.set_connecting();
            }
        }
    }

    /// All slots for sessions are taken: this one exists to say so, whatever the client is going to ask.
    pub fn refuse_at_accept(&mut self, cx: &mut Context<'_>) {
        self.refuse(Refusal::SessionsTaken, cx);
    }

    /// A client that has not begun a request.
    pub fn is_silent(&self) -> bool {
        matches!(&self.state, State::Head(handshake) if handshake.head.is_empty())
    }

    /// Bytes of the client between its request and the backend's answer.
    pub fn client_early(&mut self, bytes: &[u8]) {
        let (State::Queued(handshake) | State::Connecting(handshake) | State::Answering(handshake)) = &mut self.state
        else {
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

    /// The backend is connected: it gets the request.
    pub fn ask_backend(&mut self, cx: &mut Context<'_>) {
        let state = std::mem::replace(&mut self.state, State::Ending);
        let State::Connecting(mut handshake) = state else {
            unreachable!("a wanted connect is one of state Connecting")
        };
        let policy = self.policy();
        let route = policy.route().expect("routed before it connects");
        let incoming = handshake.incoming.as_ref().expect("a request is checked before anything connects");
        let asking = incoming.head();
        let hops = match cx.shared.config().limits.hops_max {
            Some(_) => Edit::Replace { name: hops::HOPS, value: (handshake.hops + 1).to_string().into() },
            None => Edit::Remove { name: hops::HOPS },
        };
        let edits: Vec<_> = edits(&route.forward, self.client_ip, &asking.host)
            .into_iter()
            .chain(route::edits(&route.request_headers))
            .chain([hops])
            .collect();
        let head = incoming.forward(&edits, handshake.target.as_deref());
        let wait = if handshake.is_plain() { policy.waits.plain_http } else { policy.waits.answer };
        let invited = handshake.begin_upload(policy.limits(), cx.now);
        if handshake.is_plain() {
            handshake.until = cx.now.saturating_add(policy.waits.plain_http_total);
        }
        self.deadline = (cx.now + wait).min(handshake.until);
        let early = if handshake.is_plain() { std::mem::take(&mut handshake.early) } else { Vec::new() };
        self.state = State::Answering(handshake);
        self.backend.push(Piece::owned(head), cx);
        if invited {
            self.invite_body(cx);
        }
        if !early.is_empty() {
            self.upload(&early, None, cx);
        }
        if self.client.finished {
            self.upload_ended(cx);
        }
    }

    /// Bytes of the backend in state `Answering`.
    pub fn backend_answer(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let sending = self.backend.sending;
        let informational_max = self.policy().limits().informational_max;
        let State::Answering(handshake) = &mut self.state else { unreachable!("asked in state Answering only") };
        handshake.answer.extend_from_slice(bytes);
        let limits = cx.shared.current.head_limits;
        loop {
            let end = match head_end(&handshake.answer, handshake.searched, HeadKind::Response, &limits) {
                Ok(Some(end)) => end,
                Ok(None) => {
                    handshake.searched = handshake.answer.len();
                    return;
                }
                Err(rejection) => return self.bad_answer(Failure::Request, Refusal::Answer(rejection), cx),
            };
            // To plain HTTP a backend may well say no before it has seen all of it.
            if sending && !handshake.is_plain() {
                return self.bad_answer(Failure::Request, Refusal::AnsweredEarly, cx);
            }
            let incoming = handshake.incoming.as_ref().expect("an answer follows a request");
            match incoming.answer(&handshake.answer[..end], &limits) {
                Err(Wrong::Answer(rejection)) => {
                    return self.bad_answer(Failure::Request, Refusal::Answer(rejection), cx);
                }
                Err(Wrong::Agreement(rejection)) => {
                    return self.bad_answer(Failure::Offer, Refusal::Answer(rejection), cx);
                }
                Ok(Answer::Informational) => {
                    handshake.informational += 1;
                    if handshake.informational > informational_max {
                        return self.bad_answer(Failure::Request, Refusal::TooManyInformational, cx);
                    }
                    handshake.answer.drain(..end);
                    handshake.searched = 0;
                }
                Ok(Answer::Switched { agreement, mended }) => {
                    self.backend_answered(cx);
                    self.handshake_judged(true, cx);
                    return self.open(end, mended, agreement, cx);
                }
                Ok(Answer::Response { status, head, body }) => return self.answered(status, head, end, body, cx),
            }
        }
    }

    /// The backend's answer is no 101. Behind `end` its body has begun.
    fn answered(&mut self, status: u16, head: Vec<u8>, end: usize, body: Body, cx: &mut Context<'_>) {
        let State::Answering(mut handshake) = std::mem::replace(&mut self.state, State::Ending) else {
            unreachable!("what answers has been asked")
        };
        // What a page answers is its own affair. A handshake that is answered with 502 to 504 says that the backend is not
        // well; another 5xx may say that about the request.
        let counts_at_once = self.policy().pool().config.eject.statuses.contains(&status);
        let failure = match (status, handshake.is_plain()) {
            (500.., true) => None,
            _ if handshake.is_plain() || !counts_at_once && status < 500 => {
                self.backend_answered(cx);
                None
            }
            _ if counts_at_once => Some(Failure::Backend),
            _ => Some(Failure::Request),
        };
        match failure {
            Some(failure) => self.handshake_failed(failure, &format_args!("it answered {status}"), cx),
            None => self.handshake_judged(true, cx),
        }
        self.end_handshaking(cx);
        let cookie = if handshake.is_plain() { handshake.set_cookie.take() } else { None };
        let head = self.edited(head, cookie);
        let response = if handshake.is_plain() {
            let is_http10 = matches!(&handshake.incoming, Some(Incoming::Plain(request, _)) if request.is_http10);
            let waits = self.waits();
            let until = handshake.until;
            Response::plain(body, is_http10, handshake.upload.take(), waits.plain_http, until)
        } else {
            let waits = self.waits();
            Response::new(body, self.policy().limits(), waits.answer, cx.now + waits.answer + waits.send_stall)
        };
        self.state = State::Responding(response);
        self.respond(head, &handshake.answer[end..], cx);
    }

    /// The answer's head as the route wants it.
    fn edited(&self, head: Vec<u8>, cookie: Option<String>) -> Vec<u8> {
        let route = self.policy().route().expect("routed before anything is answered");
        let cookie = cookie.map(|value| Edit::Add { name: "Set-Cookie", value: value.into() });
        let edits: Vec<_> = route::edits(&route.response_headers).chain(cookie).collect();
        if edits.is_empty() { head } else { upgrade::edit_head(&head, &edits) }
    }

    /// The backend's 101 is right: it is relayed as it came, or mended, but for the route's edits and the cookie, and
    /// everything behind it is frames.
    fn open(&mut self, end: usize, mended: Option<Vec<u8>>, agreement: Agreement, cx: &mut Context<'_>) {
        let State::Answering(mut handshake) = std::mem::replace(&mut self.state, State::Open) else {
            unreachable!("a 101 is an answer")
        };
        self.end_handshaking(cx);
        let behind = handshake.answer.split_off(end);
        let head = mended.unwrap_or(std::mem::take(&mut handshake.answer));
        let head = self.edited(head, handshake.set_cookie.take());
        cx.shared.metrics.opened.add(1);
        self.deadline = u64::MAX;
        self.active_at = cx.now;
        self.opened_at = cx.now;
        self.to_backend.open(agreement.deflate);
        self.to_client.open(agreement.deflate);
        self.client.push(Piece::owned(head), cx);
        self.absorb(Side::Client, &handshake.early, None, cx);
        self.absorb(Side::Backend, &behind, None, cx);
        if self.client.finished {
            self.lost(Side::Client, Cause::ConnectionClosed, cx);
        }
        if let Some((notice, spread)) = handshake.leaves {
            self.move_away(notice, spread, cx);
        }
    }

    pub fn head_timed_out(&mut self, cx: &mut Context<'_>) {
        let silent = matches!(&self.state, State::Head(handshake) if handshake.head.is_empty());
        if silent {
            self.outcome.set(EndedBy::Client, Cause::NoRequest);
            return self.terminate(cx);
        }
        self.refuse(Refusal::RequestTimeout, cx);
    }

    pub fn answer_timed_out(&mut self, cx: &mut Context<'_>) {
        if self.owes_body() {
            return self.refuse(Refusal::BodyTimeout, cx);
        }
        let is_plain = matches!(&self.state, State::Answering(handshake) if handshake.is_plain());
        // How long a page takes is its own affair.
        let failure = if is_plain { Failure::Offer } else { Failure::Backend };
        self.handshake_failed(failure, &"no answer in time", cx);
        self.refuse(Refusal::AnswerTimeout, cx);
    }

    /// FIN or RST before the 101.
    pub fn lost_in_handshake(&mut self, side: Side, error: Option<io::Error>, cx: &mut Context<'_>) {
        let reset = error.is_some();
        match (side, &self.state) {
            (Side::Client, State::Head(handshake)) if !reset && !handshake.head.is_empty() => {
                self.refuse(Refusal::RequestCutShort, cx);
            }
            // A client that has said all it wants to say may still want the answer.
            (Side::Client, State::Answering(handshake)) if !reset && handshake.uploads() => self.upload_ended(cx),
            (Side::Client, State::Queued(handshake)) if !reset && handshake.is_plain() => self.client.finished = true,
            // It may still hear the answer of the backend that is being asked, but no other one is tried for it.
            (Side::Client, State::Connecting(_) | State::Answering(_)) if !reset => self.client.finished = true,
            (Side::Client, _) => {
                self.outcome.set(side, Cause::LeftBeforeAnswer);
                self.terminate(cx);
            }
            // It has heard that the client is done, and need not answer somebody who has gone.
            (Side::Backend, State::Answering(handshake)) if self.client.finished && handshake.uploads() => {
                self.refuse(Refusal::BackendClosed, cx);
            }
            (Side::Backend, State::Answering(handshake)) => {
                let refusal = match (handshake.answer.is_empty(), reset) {
                    (_, true) => Refusal::BackendReset,
                    (true, _) => Refusal::BackendClosed,
                    (false, _) => Refusal::AnswerCutShort,
                };
                self.bad_answer(Failure::Request, refusal, cx);
            }
            (Side::Backend, _) => {}
        }
    }

    /// The backend has hung up, or its answer is wrong.
    pub fn bad_answer(&mut self, failure: Failure, refusal: Refusal, cx: &mut Context<'_>) {
        let text = refusal.text();
        self.handshake_failed(failure, &text, cx);
        let backend = self.chosen.as_ref().map(|chosen| &*chosen.name);
        tracing::debug!(backend, fault = %text, "bad answer");
        self.refuse(refusal, cx);
    }

    /// Answers the client in Ringway's own name, and gives up the backend.
    pub fn refuse(&mut self, refusal: impl Into<Refusal>, cx: &mut Context<'_>) {
        let refusal = refusal.into();
        let is_head = match &self.state {
            State::Head(handshake)
            | State::Queued(handshake)
            | State::Connecting(handshake)
            | State::Answering(handshake) => handshake.is_head,
            _ => false,
        };
        let wait = match refusal.retry_after() {
            RetryAfter::Unsaid => None,
            RetryAfter::Pool => Some(millis(self.policy().pool().config.admission.retry_after)),
            RetryAfter::Ms(ms) => Some(ms),
        };
        // Give or take a half, as those who were refused together should not come back together; in whole seconds.
        let seconds = wait.map(|ms| (ms / 2 + cx.shared.random() % ms.max(1)).div_ceil(1000).max(1));
        let lines = seconds.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        cx.shared.metrics.refused.add(1);
        match self.policy().route() {
            Some(_) => self.policy().pool().state.refusals.count(refusal.status()),
            None => cx.shared.current.table.refusals.count(refusal.status()),
        }
        self.client.push(Piece::owned(refusal.response(&lines, is_head)), cx);
        self.outcome.set(EndedBy::Ringway, refusal);
        self.linger(cx);
    }

    /// What is queued for the client is the last it hears.
    pub fn linger(&mut self, cx: &mut Context<'_>) {
        self.leave_queue(cx);
        self.withdraw_probe();
        self.retire(Side::Backend, cx);
        self.client.fin = true;
        self.state = State::Lingering;
        self.deadline = cx.now + self.waits().send_stall;
        self.mark_dirty(cx);
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
