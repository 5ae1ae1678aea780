//! Stage: the request is on its way to the backend, and its answer's head is read. A right 101 opens the tunnel, anything else
//! is relayed as the response it is.

use bytes::{Buf, BytesMut};

use super::context::Context;
use super::exchange::Exchange;
use super::feedback::Failure;
use super::hops;
use super::life::Life;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::port::{Backing, Ports};
use super::refusal::Refusal;
use super::request::ClientRequest;
use super::route;
use super::stage::{Event, Step};
use super::tunnel::Tunnel;
use super::upload::Upload;
use crate::config::Limits;
use crate::op::{Piece, Side};
use crate::proto::http::{Body, HeadKind, head_end};
use crate::proto::upgrade::{self, Agreement, Edit, Incoming, Wrong};

#[derive(Debug)]
pub(super) struct Answer {
    request: ClientRequest,
    /// The cookie that brings this client back to this backend.
    set_cookie: Option<String>,
    /// The backend is to be left, with this notice, within so many milliseconds of the 101.
    leaves: Option<(Notice, u64)>,
    /// The response as far as it has come.
    answer: BytesMut,
    /// How much of it has been searched for the end of its head.
    searched: usize,
    /// 1xx responses skipped.
    informational: u32,
    /// The body of a request that is plain HTTP.
    upload: Option<Upload>,
}

#[derive(Debug)]
pub(super) enum Next {
    Tunnel(Tunnel),
    Exchange(Box<Exchange>),
}

impl Answer {
    /// The backend is connected: it gets the request.
    pub fn ask(
        request: ClientRequest,
        set_cookie: Option<String>,
        leaves: Option<(Notice, u64)>,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Box<Answer>> {
        let policy = life.policy();
        let route = policy.route().expect("routed before it connects");
        let asking = request.incoming.head();
        let hops = match cx.shared.config().limits.hops_max {
            Some(_) => Edit::Replace { name: hops::HOPS, value: (request.hops + 1).to_string().into() },
            None => Edit::Remove { name: hops::HOPS },
        };
        let edits: Vec<_> = route::forwarded(&route.forward, life.client_ip, &asking.host)
            .into_iter()
            .chain(route::edits(&route.request_headers))
            .chain([hops])
            .collect();
        let head = request.incoming.forward(&edits, request.target.as_deref());
        let until = cx.now.saturating_add(policy.waits.plain_http_total);
        let mut answer = Box::new(Answer {
            request,
            set_cookie,
            leaves,
            answer: BytesMut::new(),
            searched: 0,
            informational: 0,
            upload: None,
        });
        let mut wait = policy.waits.answer;
        let mut is_invited = false;
        if let Incoming::Plain(plain, _) = &answer.request.incoming {
            let upload = Upload::new(plain, policy.limits(), until, cx.now);
            is_invited = plain.expects_continue && answer.request.early.is_empty() && !upload.is_complete();
            wait = policy.waits.plain_http.min(policy.waits.plain_http_total);
            answer.upload = Some(upload);
        }
        life.deadline = cx.now + wait;
        ports.backend.push(Piece::owned(head), cx);
        if is_invited {
            Upload::invite(ports, cx);
        }
        let mut fed = Ok(());
        if answer.uploads() && !answer.request.early.is_empty() {
            let early = answer.request.early.split().freeze();
            fed = answer.feed(&early.clone(), Backing::Owned(early), ports, life, cx);
        }
        if let Some(upload) = answer.upload.as_ref().filter(|_| ports.client.finished) {
            fed = fed.and_then(|()| upload.end(ports));
        }
        match fed {
            Ok(()) => Step::Enter(answer),
            Err(refusal) => Step::Refuse(refusal),
        }
    }

    /// The client's bytes go up as they come.
    pub fn uploads(&self) -> bool {
        self.upload.is_some()
    }

    pub fn client_credit(&self, limits: &Limits) -> u32 {
        self.request.credit(limits)
    }

    pub fn backend_credit(&self, limits: &Limits) -> u32 {
        (limits.head_bytes_max + 1).saturating_sub(self.answer.len()) as u32
    }

    pub fn on(&mut self, event: Event<'_>, ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Next> {
        match event {
            Event::Bytes(Side::Client, bytes, backing) if self.uploads() => {
                or_refuse(self.feed(bytes, backing, ports, life, cx))
            }
            Event::Bytes(Side::Client, bytes, backing) => {
                self.request.early.extend_from_slice(bytes);
                backing.release(cx);
                Step::Stay
            }
            Event::Bytes(Side::Backend, bytes, backing) => {
                let step = self.take(bytes, ports, life, cx);
                backing.release(cx);
                step
            }
            Event::Progress(Side::Backend) => {
                if let Some(upload) = &self.upload {
                    life.deadline = (cx.now + life.waits().plain_http).min(upload.until);
                }
                Step::Stay
            }
            // What it has said before can still be received, and is an answer.
            Event::Unsendable(Side::Backend, Cause::ConnectionReset) if self.uploads() => Step::Stay,
            Event::Unsendable(Side::Backend, _) => bad_answer(Failure::Request, Refusal::BackendClosedEarly, life, cx),
            Event::Unsendable(side, cause) => Step::End(side.into(), cause),
            // A client that has said all it wants to say may still want the answer.
            Event::End(Side::Client, None) => match &self.upload {
                Some(upload) => or_refuse(upload.end(ports)),
                None => Step::Stay,
            },
            Event::End(Side::Client, Some(_)) => Step::End(EndedBy::Client, Cause::LeftBeforeAnswer),
            // It has heard that the client is done, and need not answer somebody who has gone.
            Event::End(Side::Backend, _) if ports.client.finished && self.uploads() => {
                Step::Refuse(Refusal::BackendClosed)
            }
            Event::End(Side::Backend, error) => {
                let refusal = match (self.answer.is_empty(), error) {
                    (_, Some(_)) => Refusal::BackendReset,
                    (true, None) => Refusal::BackendClosed,
                    (false, None) => Refusal::AnswerCutShort,
                };
                bad_answer(Failure::Request, refusal, life, cx)
            }
            Event::Deadline => self.timed_out(ports, life, cx),
            // A backend is carrying it out, and nobody knows whether it may be sent again.
            Event::Drain if self.request.is_plain() => Step::Stay,
            Event::Drain => Step::Refuse(Refusal::Draining),
            Event::Move(notice, spread) => {
                self.leaves = Some((notice, spread));
                Step::Stay
            }
            other => other.ignore(cx),
        }
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        backing: Backing,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let Some(upload) = &mut self.upload else {
            backing.release(cx);
            return Ok(());
        };
        upload.take(bytes, backing, Some(self.request.incoming.head().path()), (ports, life), cx)
    }

    fn timed_out(&self, ports: &Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Next> {
        // The rest of the request's body has yet to come: no backend can be expected to answer.
        if ports.backend.is_flushed() && self.upload.as_ref().is_some_and(|upload| !upload.is_complete()) {
            return Step::Refuse(Refusal::BodyTimeout);
        }
        // How long a page takes is its own affair.
        let failure = if self.request.is_plain() { Failure::Offer } else { Failure::Backend };
        life.handshake_failed(failure, &"no answer in time", cx);
        Step::Refuse(Refusal::AnswerTimeout)
    }

    /// Bytes of the backend.
    fn take(&mut self, bytes: &[u8], ports: &mut Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Next> {
        self.answer.extend_from_slice(bytes);
        let limits = cx.shared.current.head_limits;
        loop {
            let end = match head_end(&self.answer, self.searched, HeadKind::Response, &limits) {
                Ok(Some(end)) => end,
                Ok(None) => {
                    self.searched = self.answer.len();
                    return Step::Stay;
                }
                Err(rejection) => return bad_answer(Failure::Request, Refusal::Answer(rejection), life, cx),
            };
            // To plain HTTP a backend may well say no before it has seen all of it.
            if ports.backend.sending && !self.request.is_plain() {
                return bad_answer(Failure::Request, Refusal::AnsweredEarly, life, cx);
            }
            match self.request.incoming.answer(&self.answer[..end], &limits) {
                Err(Wrong::Answer(rejection)) => {
                    return bad_answer(Failure::Request, Refusal::Answer(rejection), life, cx);
                }
                Err(Wrong::Agreement(rejection)) => {
                    return bad_answer(Failure::Offer, Refusal::Answer(rejection), life, cx);
                }
                Ok(upgrade::Answer::Informational) => {
                    self.informational += 1;
                    if self.informational > life.policy().limits().informational_max {
                        return bad_answer(Failure::Request, Refusal::TooManyInformational, life, cx);
                    }
                    self.answer.advance(end);
                    self.searched = 0;
                }
                Ok(upgrade::Answer::Switched { agreement, mended }) => {
                    life.backend_answered(cx);
                    life.handshake_judged(true, cx);
                    return Step::Enter(Next::Tunnel(self.open(end, mended, &agreement, ports, life, cx)));
                }
                Ok(upgrade::Answer::Response { status, head, body }) => {
                    return self.relay(status, head, end, body, ports, life, cx);
                }
            }
        }
    }

    /// The answer is no 101. Behind `end` its body has begun.
    #[expect(clippy::too_many_arguments)]
    fn relay(
        &mut self,
        status: u16,
        head: Vec<u8>,
        end: usize,
        body: Body,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Next> {
        let is_plain = self.request.is_plain();
        // What a page answers is its own affair. A handshake that is answered with 502 to 504 says that the backend is not
        // well; another 5xx may say that about the request.
        let counts_at_once = life.policy().pool().config.eject.statuses.contains(&status);
        let failure = match (status, is_plain) {
            (500.., true) => None,
            _ if is_plain || !counts_at_once && status < 500 => {
                life.backend_answered(cx);
                None
            }
            _ if counts_at_once => Some(Failure::Backend),
            _ => Some(Failure::Request),
        };
        match failure {
            Some(failure) => life.handshake_failed(failure, &format_args!("it answered {status}"), cx),
            None => life.handshake_judged(true, cx),
        }
        life.end_handshake(cx);
        let cookie = self.set_cookie.take().filter(|_| is_plain);
        let head = edited(head, cookie, life);
        let waits = life.waits();
        let exchange = match (&self.request.incoming, self.upload.take()) {
            (Incoming::Plain(plain, _), Some(upload)) => {
                Exchange::plain(body, plain.is_http10, upload, waits.plain_http)
            }
            _ => Exchange::new(body, life.policy().limits(), waits.answer, cx.now + waits.answer + waits.send_stall),
        };
        exchange.begin(head, self.answer.split_off(end).freeze(), ports, life, cx).map(Next::Exchange)
    }

    /// The backend's 101 is right: it is relayed as it came, or mended, but for the route's edits and the cookie, and
    /// everything behind it is frames.
    fn open(
        &mut self,
        end: usize,
        mended: Option<Vec<u8>>,
        agreement: &Agreement,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Tunnel {
        life.end_handshake(cx);
        let behind = self.answer.split_off(end).freeze();
        let early = self.request.early.split().freeze();
        let head = mended.unwrap_or_else(|| self.answer.to_vec());
        let head = edited(head, self.set_cookie.take(), life);
        cx.shared.metrics.opened.add(1);
        ports.client.push(Piece::owned(head), cx);
        let mut tunnel = Tunnel::open(agreement.deflate, life, cx);
        tunnel.absorb(Side::Client, &early.clone(), Backing::Owned(early), ports, life, cx);
        tunnel.absorb(Side::Backend, &behind.clone(), Backing::Owned(behind), ports, life, cx);
        if ports.client.finished {
            tunnel.lost(Side::Client, Cause::ConnectionClosed, life, cx);
        }
        if let Some((notice, spread)) = self.leaves {
            tunnel.leave(notice, spread, ports, life, cx);
        }
        tunnel
    }
}

/// The answer's head as the route wants it.
fn edited(head: Vec<u8>, cookie: Option<String>, life: &Life) -> Vec<u8> {
    let route = life.policy().route().expect("routed before anything is answered");
    let cookie = cookie.map(|value| Edit::Add { name: "Set-Cookie", value: value.into() });
    let edits: Vec<_> = route::edits(&route.response_headers).chain(cookie).collect();
    if edits.is_empty() { head } else { upgrade::edit_head(&head, &edits) }
}

/// The backend has hung up, or its answer is wrong.
fn bad_answer(failure: Failure, refusal: Refusal, life: &mut Life, cx: &mut Context<'_>) -> Step<Next> {
    let text = refusal.text();
    life.handshake_failed(failure, &text, cx);
    let backend = life.chosen.as_ref().map(|chosen| &*chosen.name);
    tracing::debug!(backend, fault = %text, "bad answer");
    Step::Refuse(refusal)
}

fn or_refuse<N>(fed: Result<(), Refusal>) -> Step<N> {
    match fed {
        Ok(()) => Step::Stay,
        Err(refusal) => Step::Refuse(refusal),
    }
}
