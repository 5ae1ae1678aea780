//! The body of a request that is plain HTTP, on its way to the backend.

use super::context::Context;
use super::life::Life;
use super::outcome::{Cause, EndedBy};
use super::port::{Backing, Ports};
use super::refusal::Refusal;
use super::stage::Step;
use crate::config::Limits;
use crate::op::Piece;
use crate::proto::http::Body;
use crate::proto::upgrade::PlainRequest;

/// As far as it has gone up. What comes behind it is not looked at: there is one request per connection.
#[derive(Debug)]
pub(super) struct Upload {
    body: Body,
    /// Bytes of the body, framing included, that may still pass.
    room: u64,
    pace: Pace,
    /// The end of all patience (timeouts.plain_http_total).
    pub until: u64,
}

/// How fast the client sends, over half minutes: who sends a byte now and then holds two sockets for nothing.
#[derive(Debug)]
struct Pace {
    per_second_min: u64,
    since: u64,
    bytes: u64,
}

impl Pace {
    const WINDOW_MS: u64 = 30_000;

    fn new(per_second_min: u64, now: u64) -> Self {
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

/// A body that says how long it is can be refused before any of it has come.
pub(super) fn fits(body: &Body, bytes_max: Option<u64>) -> Result<(), Refusal> {
    match (body, bytes_max) {
        (Body::Length(length), Some(max)) if *length > max => Err(Refusal::BodyTooLarge(max)),
        _ => Ok(()),
    }
}

/// An operator wants to know which option stands in the way of an upload, and a stranger must not fill the log with it.
pub(super) fn tell_too_large(route: &str, path: Option<&str>, cx: &mut Context<'_>) {
    if let Some(left_out) = cx.shared.too_large.tell(cx.now) {
        tracing::warn!(route, path, left_out, "413: a body is larger than limits.request_body_bytes_max");
    }
}

impl Upload {
    pub fn new(request: &PlainRequest, limits: &Limits, until: u64, now: u64) -> Self {
        let room = limits.request_body_bytes_max.unwrap_or(u64::MAX);
        let per_second_min = limits.request_body_bytes_per_second_min.unwrap_or(0);
        Upload { body: request.body, room, pace: Pace::new(per_second_min, now), until }
    }

    pub fn is_complete(&self) -> bool {
        self.body.is_complete()
    }

    /// RFC 9110, 10.1.1: the client waits for this before it sends its body, and we are who it asked.
    pub fn invite(ports: &mut Ports, cx: &mut Context<'_>) {
        ports.client.push(Piece::owned(*b"HTTP/1.1 100 Continue\r\n\r\n"), cx);
    }

    /// Bytes of the client. `path`: of the request, for the log.
    pub fn take(
        &mut self,
        bytes: &[u8],
        backing: Backing,
        path: Option<&str>,
        (ports, life): (&mut Ports, &mut Life),
        cx: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        if ports.backend.finished {
            backing.release(cx);
            return Ok(());
        }
        let taken = match self.check(bytes, ports.backend.sending, life, cx) {
            Ok(taken) => taken,
            Err(refusal) => {
                backing.release(cx);
                if matches!(refusal, Refusal::BodyTooLarge(_))
                    && let Some(route) = life.policy().route()
                {
                    tell_too_large(&route.name, path, cx);
                }
                return Err(refusal);
            }
        };
        if taken > 0 {
            life.deadline = (cx.now + life.waits().plain_http).min(self.until);
        }
        ports.backend.forward(&bytes[..taken], backing, cx);
        Ok(())
    }

    /// How many of them are the body's.
    fn check(&mut self, bytes: &[u8], is_backend_slow: bool, life: &Life, cx: &Context<'_>) -> Result<usize, Refusal> {
        let (taken, _) = self.body.take(bytes)?;
        if taken as u64 > self.room {
            let max = life.policy().limits().request_body_bytes_max;
            return Err(Refusal::BodyTooLarge(max.unwrap_or(u64::MAX)));
        }
        self.room -= taken as u64;
        if is_backend_slow {
            self.pace.restart(cx.now);
        } else if !self.body.is_complete() && !self.pace.takes(taken, cx.now) {
            return Err(Refusal::BodyTooSlow);
        }
        Ok(taken)
    }

    /// The client has sent FIN. Behind a whole request that is its right, and the backend may go on or, as most do, take it
    /// for somebody who has gone: so it hears of it. Else nothing can be made of the request.
    pub fn end(&self, ports: &mut Ports) -> Result<(), Refusal> {
        match self.body.is_complete() {
            true => ports.backend.fin = true,
            false => return Err(Refusal::BodyCutShort),
        }
        Ok(())
    }
}

/// The body cannot go on, and the answer has begun: the client can only be cut off.
pub(super) fn cut_off<N>(refusal: &Refusal) -> Step<N> {
    Step::End(EndedBy::Client, Cause::BadBody(refusal.text()))
}
