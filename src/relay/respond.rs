//! A backend's answer other than 101, to an upgrade or to plain HTTP: relayed with its body, then both connections end.

use super::context::Context;
use super::outcome::{Cause, EndedBy};
use super::plain::Upload;
use super::session::{Session, State};
use crate::config::Limits;
use crate::op::{Lease, Piece};
use crate::proto::http::Body;

#[derive(Debug)]
pub(super) struct Response {
    body: Body,
    /// Bytes of the body, framing included, that may still pass.
    room: u64,
    /// The client is to get the data of a chunked body, without its chunks: it speaks HTTP/1.0.
    dechunked: bool,
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
        Box::new(Response {
            body,
            room: limits.response_body_bytes_max,
            dechunked: false,
            patience,
            until,
            upload: None,
        })
    }

    /// To plain HTTP, up to the end of the time that one request may take.
    pub fn plain(body: Body, dechunked: bool, upload: Option<Upload>, patience: u64, until: u64) -> Box<Self> {
        let dechunked = dechunked && matches!(body, Body::Chunked(_));
        Box::new(Response { body, room: u64::MAX, dechunked, patience, until, upload })
    }

    /// The client knows that it has all of it by the connection's end, and by nothing else.
    pub fn ends_with_connection(&self) -> bool {
        self.dechunked || matches!(self.body, Body::UntilClose)
    }

    pub fn until(&self) -> u64 {
        self.until
    }

    /// Of the next bytes, if the last ones have moved now.
    pub fn deadline(&self, now: u64) -> u64 {
        (now + self.patience).min(self.until)
    }
}

impl Session {
    /// The head has been rebuilt for the client; `rest` came behind it.
    pub fn respond(&mut self, head: Vec<u8>, rest: &[u8], cx: &mut Context<'_>) {
        self.client.push(Piece::owned(head), cx);
        self.response_body(rest, None, cx);
    }

    /// Bytes of the backend in state `Responding`.
    pub fn response_body(&mut self, bytes: &[u8], lease: Option<Lease>, cx: &mut Context<'_>) {
        let State::Responding(response) = &mut self.state else { unreachable!("asked in state Responding only") };
        let mut data = Vec::new();
        let taken = match response.dechunked {
            true => response.body.take_data(bytes, |run| data.extend_from_slice(run)),
            false => response.body.take(bytes),
        };
        let (taken, complete) = match taken {
            Ok(taken) => taken,
            Err(rejection) => {
                cx.recycle(lease);
                return self.cut_response(EndedBy::Backend, Cause::BadBody(rejection.text), cx);
            }
        };
        let passed = (taken as u64).min(response.room);
        response.room -= passed;
        let over = passed < taken as u64 || response.room == 0 && !complete;
        self.deadline = response.deadline(cx.now);
        if response.dechunked {
            self.client.forward(&data, None, cx);
            cx.recycle(lease);
        } else {
            self.client.forward(&bytes[..passed as usize], lease, cx);
        }
        if over {
            self.cut_response(EndedBy::Ringway, Cause::AnswerTooLarge, cx);
        } else if complete {
            self.linger(cx);
        }
    }

    /// Nothing has come for some time, or it takes too long in all. While the client takes its time over what it has been
    /// sent already, nothing can come: how long that may be is timeouts.send_stall.
    pub fn response_timed_out(&mut self, cx: &mut Context<'_>) {
        let State::Responding(response) = &self.state else { unreachable!("asked in state Responding only") };
        if self.client.sending && cx.now < response.until {
            self.deadline = response.deadline(cx.now);
            return;
        }
        let cause = if cx.now < response.until { Cause::AnswerStopped } else { Cause::AnswerTooLong };
        self.outcome.set(EndedBy::Ringway, cause);
        self.terminate(cx);
    }

    /// The backend has sent FIN, or RST.
    pub fn response_ended(&mut self, reset: bool, cx: &mut Context<'_>) {
        let State::Responding(response) = &self.state else { unreachable!("asked in state Responding only") };
        if reset || !matches!(response.body, Body::UntilClose) {
            return self.cut_response(EndedBy::Backend, Cause::AnswerCutShort, cx);
        }
        self.linger(cx);
    }

    /// The client gets no more of it, and must not take it for the whole: where only the connection's end says that it is, the
    /// end is a reset.
    fn cut_response(&mut self, by: EndedBy, cause: Cause, cx: &mut Context<'_>) {
        let State::Responding(response) = &self.state else { unreachable!("asked in state Responding only") };
        self.client.abort = response.ends_with_connection();
        self.outcome.set(by, cause);
        self.linger(cx);
    }
}
