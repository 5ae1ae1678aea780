//! Stage: relaying a backend's answer other than 101, to an upgrade or to plain HTTP, with its body; then both connections end.

use std::convert::Infallible;

use bytes::Bytes;

use super::context::Context;
use super::life::Life;
use super::outcome::{Cause, EndedBy};
use super::port::{Backing, Ports};
use super::stage::{Event, Step};
use super::upload::{self, Upload};
use crate::config::Limits;
use crate::op::{Piece, Side};
use crate::proto::http::Body;

#[derive(Debug)]
pub(super) struct Exchange {
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
    upload: Option<Upload>,
}

impl Exchange {
    /// To an upgrade: an excuse, not a page.
    pub fn new(body: Body, limits: &Limits, patience: u64, until: u64) -> Box<Self> {
        Box::new(Exchange {
            body,
            room: limits.response_body_bytes_max,
            dechunked: false,
            patience,
            until,
            upload: None,
        })
    }

    /// To plain HTTP, up to the end of the time that one request may take.
    pub fn plain(body: Body, is_http10: bool, upload: Upload, patience: u64) -> Box<Self> {
        let dechunked = is_http10 && matches!(body, Body::Chunked(_));
        let until = upload.until;
        Box::new(Exchange { body, room: u64::MAX, dechunked, patience, until, upload: Some(upload) })
    }

    /// The head has been rebuilt for the client; `rest` came behind it.
    pub fn begin(
        mut self: Box<Self>,
        head: Vec<u8>,
        rest: Bytes,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Box<Self>> {
        ports.client.push(Piece::owned(head), cx);
        match self.take(&rest.clone(), Backing::Owned(rest), ports, life, cx) {
            Step::Stay => Step::Enter(self),
            step => step.map(|never| match never {}),
        }
    }

    /// The client knows that it has all of it by the connection's end, and by nothing else.
    pub fn ends_with_connection(&self) -> bool {
        self.dechunked || matches!(self.body, Body::UntilClose)
    }

    /// Of the next bytes, if the last ones have moved now.
    fn deadline(&self, now: u64) -> u64 {
        (now + self.patience).min(self.until)
    }

    pub fn on(
        &mut self,
        event: Event<'_>,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Infallible> {
        match event {
            Event::Bytes(Side::Backend, bytes, backing) => self.take(bytes, backing, ports, life, cx),
            Event::Bytes(Side::Client, bytes, backing) => {
                let Some(upload) = &mut self.upload else {
                    backing.release(cx);
                    return Step::Stay;
                };
                match upload.take(bytes, backing, None, (ports, life), cx) {
                    Ok(()) => Step::Stay,
                    Err(refusal) => upload::cut_off(&refusal),
                }
            }
            Event::Progress(Side::Client) => {
                life.deadline = self.deadline(cx.now);
                Step::Stay
            }
            // What it has said before can still be received, and is the end of an answer.
            Event::Unsendable(Side::Backend, Cause::ConnectionReset) if self.upload.is_some() => Step::Stay,
            Event::Unsendable(side, cause) => Step::End(side.into(), cause),
            Event::End(Side::Backend, error) => {
                if error.is_some() || !matches!(self.body, Body::UntilClose) {
                    return self.cut(EndedBy::Backend, Cause::AnswerCutShort, ports, life);
                }
                Step::Linger
            }
            Event::End(Side::Client, Some(_)) => Step::End(EndedBy::Client, Cause::ConnectionReset),
            Event::End(Side::Client, None) => match self.upload.as_ref().map(|upload| upload.end(ports)) {
                None | Some(Ok(())) => Step::Stay,
                Some(Err(refusal)) => upload::cut_off(&refusal),
            },
            Event::Deadline => self.timed_out(ports, life, cx),
            other => other.ignore(cx),
        }
    }

    /// Bytes of the backend.
    fn take(
        &mut self,
        bytes: &[u8],
        backing: Backing,
        ports: &mut Ports,
        life: &mut Life,
        cx: &mut Context<'_>,
    ) -> Step<Infallible> {
        let mut data = Vec::new();
        let taken = match self.dechunked {
            true => self.body.take_data(bytes, |run| data.extend_from_slice(run)),
            false => self.body.take(bytes),
        };
        let (taken, complete) = match taken {
            Ok(taken) => taken,
            Err(rejection) => {
                backing.release(cx);
                return self.cut(EndedBy::Backend, Cause::BadBody(rejection.text), ports, life);
            }
        };
        let passed = (taken as u64).min(self.room);
        self.room -= passed;
        let over = passed < taken as u64 || self.room == 0 && !complete;
        life.deadline = self.deadline(cx.now);
        if self.dechunked {
            backing.release(cx);
            if !data.is_empty() {
                ports.client.push(Piece::owned(data), cx);
            }
        } else {
            ports.client.forward(&bytes[..passed as usize], backing, cx);
        }
        if over {
            return self.cut(EndedBy::Ringway, Cause::AnswerTooLarge, ports, life);
        }
        if complete { Step::Linger } else { Step::Stay }
    }

    /// Nothing has come for some time, or it takes too long in all. While the client takes its time over what it has been
    /// sent already, nothing can come: how long that may be is timeouts.send_stall.
    fn timed_out(&self, ports: &Ports, life: &mut Life, cx: &Context<'_>) -> Step<Infallible> {
        if ports.client.sending && cx.now < self.until {
            life.deadline = self.deadline(cx.now);
            return Step::Stay;
        }
        let cause = if cx.now < self.until { Cause::AnswerStopped } else { Cause::AnswerTooLong };
        Step::End(EndedBy::Ringway, cause)
    }

    /// The client gets no more of it, and must not take it for the whole: where only the connection's end says that it is, the
    /// end is a reset.
    fn cut(&self, by: EndedBy, cause: Cause, ports: &mut Ports, life: &mut Life) -> Step<Infallible> {
        ports.client.abort = self.ends_with_connection();
        life.outcome.set(by, cause);
        Step::Linger
    }
}
