//! One plain HTTP request through a route that forwards those: the request's body on its way up. The rest is shared with
//! upgrades: the connect, the answer's head, and the answer's body.

use super::context::Context;
use super::outcome::{Cause, EndedBy};
use super::refusal::Refusal;
use super::session::{Session, State};
use crate::op::{Lease, Piece, Side};
use crate::proto::http::Body;

/// The body of the request, as far as it has gone up.
#[derive(Debug)]
pub(super) struct Upload {
    pub body: Body,
    /// Bytes of the body, framing included, that may still pass.
    pub room: u64,
    pub pace: Pace,
}

/// How fast the client sends, over half minutes: who sends a byte now and then holds two sockets for nothing.
#[derive(Debug)]
pub(super) struct Pace {
    per_second_min: u64,
    since: u64,
    bytes: u64,
}

impl Pace {
    const WINDOW_MS: u64 = 30_000;

    pub fn new(per_second_min: u64, now: u64) -> Self {
        Pace { per_second_min, since: now, bytes: 0 }
    }

    /// Begins anew: the client had to wait for the backend.
    fn restart(&mut self, now: u64) {
        (self.since, self.bytes) = (now, 0);
    }

    /// So many bytes have come. False: they are too few for the time that they took.
    fn takes(&mut self, bytes: usize, now: u64) -> bool {
        self.bytes += bytes as u64;
        let ms = now - self.since;
        if ms < Self::WINDOW_MS {
            return true;
        }
        let wanted = self.per_second_min.saturating_mul(ms) / 1000;
        let is_enough = self.bytes >= wanted;
        self.restart(now);
        is_enough
    }
}

impl Session {
    /// Bytes of a client whose request is plain HTTP. What comes behind the request's body is not looked at: there is one
    /// request per connection.
    pub fn upload(&mut self, bytes: &[u8], lease: Option<Lease>, cx: &mut Context<'_>) {
        let patience = self.waits().plain_http;
        let max = self.policy().limits().request_body_bytes_max;
        let is_backend_slow = self.backend.sending;
        let (until, upload) = match &mut self.state {
            State::Answering(handshake) => (handshake.until, handshake.upload.as_mut()),
            State::Responding(response) => (response.until(), response.upload.as_mut()),
            _ => (u64::MAX, None),
        };
        let Some(upload) = upload.filter(|_| !self.backend.finished) else { return cx.recycle(lease) };
        let taken = match upload.body.take(bytes) {
            Ok((taken, _)) => taken,
            Err(rejection) => {
                cx.recycle(lease);
                return self.stop_upload(rejection.into(), cx);
            }
        };
        if taken as u64 > upload.room {
            cx.recycle(lease);
            self.tell_too_large(cx);
            return self.stop_upload(Refusal::BodyTooLarge(max.unwrap_or(u64::MAX)), cx);
        }
        upload.room -= taken as u64;
        if is_backend_slow {
            upload.pace.restart(cx.now);
        } else if !upload.body.is_complete() && !upload.pace.takes(taken, cx.now) {
            cx.recycle(lease);
            return self.stop_upload(Refusal::BodyTooSlow, cx);
        }
        if taken > 0 {
            self.deadline = (cx.now + patience).min(until);
        }
        self.backend.forward(&bytes[..taken], lease, cx);
    }

    /// An operator wants to know which option stands in the way of an upload, and a stranger must not fill the log with it.
    pub fn tell_too_large(&self, cx: &mut Context<'_>) {
        let Some(left_out) = cx.shared.too_large.tell(cx.now) else { return };
        let route = self.policy().route().map(|route| &*route.name);
        let path = match &self.state {
            State::Connecting(handshake) | State::Answering(handshake) => {
                handshake.incoming.as_ref().map(|incoming| incoming.head().path())
            }
            _ => None,
        };
        tracing::warn!(route, path, left_out, "413: a body is larger than limits.request_body_bytes_max");
    }

    /// The body cannot go on. A client whose answer has begun already can only be cut off.
    fn stop_upload(&mut self, refusal: Refusal, cx: &mut Context<'_>) {
        match self.state {
            State::Answering(_) => self.refuse(refusal, cx),
            _ => {
                self.outcome.set(EndedBy::Client, Cause::BadBody(refusal.text()));
                self.terminate(cx);
            }
        }
    }

    /// RFC 9110, 10.1.1: the client waits for this before it sends its body, and we are who it asked.
    pub fn invite_body(&mut self, cx: &mut Context<'_>) {
        self.client.push(Piece::owned(*b"HTTP/1.1 100 Continue\r\n\r\n"), cx);
    }

    /// The client has sent FIN. Behind a whole request that is its right, and the backend may go on or, as most do, take it
    /// for somebody who has gone: so it hears of it. Else nothing can be made of the request.
    pub fn upload_ended(&mut self, cx: &mut Context<'_>) {
        self.client.finished = true;
        match self.uploading().map(|upload| upload.body.is_complete()) {
            None => {}
            Some(true) => self.backend.fin = true,
            Some(false) => self.stop_upload(Refusal::BodyCutShort, cx),
        }
    }

    /// The rest of the request's body has yet to come: no backend can be expected to answer.
    pub fn owes_body(&self) -> bool {
        self.backend.is_flushed() && self.uploading().is_some_and(|upload| !upload.body.is_complete())
    }

    /// This side is a backend that may answer before it has the whole request.
    pub fn is_uploading_to(&self, side: Side) -> bool {
        side == Side::Backend && self.uploading().is_some()
    }

    fn uploading(&self) -> Option<&Upload> {
        match &self.state {
            State::Answering(handshake) => handshake.upload.as_ref(),
            State::Responding(response) => response.upload.as_ref(),
            _ => None,
        }
    }
}
