//! Stage: reading the client's request head.

use bytes::BytesMut;

use super::context::Context;
use super::dial::Dial;
use super::life::Life;
use super::outcome::{Cause, EndedBy};
use super::refusal::Refusal;
use super::request::ClientRequest;
use super::stage::{Event, Step};
use crate::config::Limits;
use crate::op::{ListenerId, Side};
use crate::proto::http::{HeadKind, head_end};
use crate::proto::upgrade;

#[derive(Debug)]
pub(super) struct Head {
    /// As far as it has come.
    bytes: BytesMut,
    /// How much of it has been searched for its end.
    searched: usize,
    listener: ListenerId,
}

impl Head {
    pub fn new(listener: ListenerId) -> Box<Self> {
        Box::new(Head { bytes: BytesMut::new(), searched: 0, listener })
    }

    /// The client has not begun a request.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn credit(&self, limits: &Limits) -> u32 {
        (limits.head_bytes_max + 1).saturating_sub(self.bytes.len()) as u32
    }

    pub fn on(&mut self, event: Event<'_>, life: &mut Life, cx: &mut Context<'_>) -> Step<Box<Dial>> {
        match event {
            Event::Bytes(Side::Client, bytes, backing) => {
                let step = self.take(bytes, life, cx);
                backing.release(cx);
                step
            }
            Event::End(Side::Client, None) if !self.is_empty() => Step::Refuse(Refusal::RequestCutShort),
            Event::End(Side::Client, _) => Step::End(EndedBy::Client, Cause::LeftBeforeAnswer),
            Event::Unsendable(side, cause) => Step::End(side.into(), cause),
            Event::Deadline if self.is_empty() => Step::End(EndedBy::Client, Cause::NoRequest),
            Event::Deadline => Step::Refuse(Refusal::RequestTimeout),
            Event::Drain => Step::Refuse(Refusal::Draining),
            other => other.ignore(cx),
        }
    }

    fn take(&mut self, bytes: &[u8], life: &mut Life, cx: &mut Context<'_>) -> Step<Box<Dial>> {
        self.bytes.extend_from_slice(bytes);
        let limits = cx.shared.current.head_limits;
        let end = match head_end(&self.bytes, self.searched, HeadKind::Request, &limits) {
            Ok(Some(end)) => end,
            Ok(None) => {
                self.searched = self.bytes.len();
                return Step::Stay;
            }
            Err(rejection) => return Step::Refuse(rejection.into()),
        };
        // Copied: split off, these few would keep the head in memory until the 101.
        let early = BytesMut::from(&self.bytes[end..]);
        self.bytes.truncate(end);
        life.is_head = self.bytes.starts_with(b"HEAD ");
        match upgrade::request(&self.bytes, &limits) {
            Err(rejection) => Step::Refuse(rejection.into()),
            Ok(_) if cx.shared.draining => Step::Refuse(Refusal::Draining),
            Ok(incoming) => {
                life.deadline = u64::MAX;
                let listener = self.listener;
                Step::Enter(Dial::new(ClientRequest { incoming, early, listener, target: None, hops: 0 }))
            }
        }
    }
}
