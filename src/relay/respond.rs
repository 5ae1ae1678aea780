//! A backend's answer other than 101, to an upgrade or to plain HTTP: relayed with its body, then both connections end.

use super::plain::Upload;
use super::session::{Session, State};
use super::shared::Context;
use crate::config::Limits;
use crate::op::{Lease, Piece};
use crate::proto::http::Body;

#[derive(Debug)]
pub(super) struct Response {
    body: Body,
    /// Bytes of the body, framing included, that may still pass.
    room: u64,
    /// How long the next bytes may take.
    patience: u64,
    /// The end of all patience with a slow backend or client.
    until: u64,
    /// The request's body, if that may still be on its way.
    pub upload: Option<Upload>,
}

impl Response {
    /// To an upgrade: an excuse, not a page.
    pub fn new(body: Body, limits: &Limits, patience: u64, until: u64) -> Box<Self> {
        Box::new(Response { body, room: limits.response_body_bytes_max, patience, until, upload: None })
    }

    /// To plain HTTP: as long as it takes.
    pub fn plain(body: Body, upload: Option<Upload>, patience: u64) -> Box<Self> {
        Box::new(Response { body, room: u64::MAX, patience, until: u64::MAX, upload })
    }

    /// Of the next bytes, if the last ones have moved now.
    pub fn deadline(&self, now: u64) -> u64 {
        (now + self.patience).min(self.until)
    }
}

impl Session {
    /// The head has been rebuilt for the client; `rest` came behind it.
    pub fn respond(&mut self, head: Vec<u8>, rest: &[u8], cx: &mut Context<'_>) {
        self.outcome.set("backend", "answered with another status than 101");
        self.down.push(Piece::owned(head), cx);
        self.response_body(rest, None, cx);
    }

    /// Bytes of the backend in state `Responding`.
    pub fn response_body(&mut self, bytes: &[u8], lease: Option<Lease>, cx: &mut Context<'_>) {
        let State::Responding(response) = &mut self.state else { unreachable!("asked in state Responding only") };
        let (taken, complete) = response.body.take(bytes).unwrap_or_else(|fault| {
            self.outcome.reason = fault.text;
            (0, true)
        });
        let passed = (taken as u64).min(response.room);
        response.room -= passed;
        let over = passed < taken as u64 || response.room == 0 && !complete;
        self.deadline = response.deadline(cx.now);
        self.down.forward(&bytes[..passed as usize], lease, cx);
        if over {
            self.outcome.reason = "response body larger than the limit".into();
        }
        if over || complete {
            self.linger(cx);
        }
    }

    /// Nothing has come for some time. While the client takes its time over what it has been sent already, nothing can:
    /// how long that may be is timeouts.send_stall.
    pub fn response_timed_out(&mut self, cx: &mut Context<'_>) {
        let State::Responding(response) = &self.state else { unreachable!("asked in state Responding only") };
        if self.client.sending && cx.now < response.until {
            self.deadline = response.deadline(cx.now);
            return;
        }
        self.terminate(cx);
    }

    /// The backend has sent FIN, or RST.
    pub fn response_ended(&mut self, reset: bool, cx: &mut Context<'_>) {
        let State::Responding(response) = &self.state else { unreachable!("asked in state Responding only") };
        if reset || !matches!(response.body, Body::UntilClose) {
            self.outcome.reason = "the backend's answer is cut short".into();
        }
        self.linger(cx);
    }
}
