//! How a session ended: who ended it and why, for the log.

use std::borrow::Cow;

use super::notice::Notice;
use super::refusal::Refusal;
use crate::op::Side;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    Client,
    Backend,
    Ringway,
}

impl EndedBy {
    pub fn name(self) -> &'static str {
        match self {
            EndedBy::Client => "client",
            EndedBy::Backend => "backend",
            EndedBy::Ringway => "ringway",
        }
    }
}

impl From<Side> for EndedBy {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => EndedBy::Client,
            Side::Backend => EndedBy::Backend,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A Close frame.
    Close,
    ConnectionClosed,
    ConnectionReset,
    /// Nobody asked anything: a load balancer's probe, a browser's spare connection.
    NoRequest,
    /// The same, and its slot was wanted.
    NoRequestAndOthersWait,
    LeftBeforeAnswer,
    /// With another status than 101, which was relayed.
    Answered,
    AnswerNotTaken,
    AnswerStopped,
    AnswerTooLong,
    AnswerTooLarge,
    AnswerCutShort,
    /// A body that breaks a rule; [`proto`](crate::proto) says which.
    BadBody(Cow<'static, str>),
    /// It takes less than `limits.receiver_bytes_per_second_min`.
    TooSlow,
    /// It has taken nothing for `timeouts.send_stall`.
    Stalled,
    SendRefused,
    /// Slow, and the memory of what waits for it was wanted.
    SlowWhileShort,
    Stopped,
    Notice(Notice),
    Refused(Refusal),
}

impl Cause {
    /// The name in logs and metrics, and what the log says.
    fn row(&self) -> (&'static str, &'static str) {
        match self {
            Cause::Close => ("close", "close"),
            Cause::ConnectionClosed => ("connection_closed", "connection closed"),
            Cause::ConnectionReset => ("connection_reset", "connection reset"),
            Cause::NoRequest => ("no_request", "no request"),
            Cause::NoRequestAndOthersWait => ("no_request", "no request, and others wait"),
            Cause::LeftBeforeAnswer => ("left_before_answer", "connection closed before the request was answered"),
            Cause::Answered => ("answered", "answered with another status than 101"),
            Cause::AnswerNotTaken => ("answer_not_taken", "it has not taken all of the answer"),
            Cause::AnswerStopped => ("answer_stopped", "the response has stopped"),
            Cause::AnswerTooLong => ("answer_too_long", "the response takes too long"),
            Cause::AnswerTooLarge => ("answer_too_large", "response body larger than limits.response_body_bytes_max"),
            Cause::AnswerCutShort => ("answer_cut_short", "the backend's answer is cut short"),
            Cause::BadBody(_) => ("bad_body", ""),
            Cause::TooSlow => ("too_slow", "it takes less than limits.receiver_bytes_per_second_min"),
            Cause::Stalled => ("stalled", "send made no progress"),
            Cause::SendRefused => ("send_refused", "send accepted nothing"),
            Cause::SlowWhileShort => ("slow_while_short", "too slow while buffers are short"),
            Cause::Stopped => ("stopped", "stopped"),
            Cause::Notice(notice) => (notice.label(), notice.text()),
            Cause::Refused(refusal) => (refusal.label(), ""),
        }
    }

    pub fn label(&self) -> &'static str {
        self.row().0
    }

    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Cause::Refused(refusal) => refusal.text(),
            Cause::BadBody(text) => text.clone(),
            other => other.row().1.into(),
        }
    }
}

impl From<Notice> for Cause {
    fn from(notice: Notice) -> Self {
        Cause::Notice(notice)
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Cause::Refused(refusal)
    }
}

/// What a tunnel has relayed, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relayed {
    /// Codes of the Closes that have come.
    pub client_close: Option<u16>,
    pub backend_close: Option<u16>,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// How a session is to end, and has ended. Boxed, as most have nothing of that for most of their time.
#[derive(Debug, Default)]
pub(super) struct Outcome(Option<Box<End>>);

#[derive(Debug, Default)]
struct End {
    leave: Option<(u64, Notice)>,
    /// The first cause counts.
    cause: Option<(EndedBy, Cause)>,
    relayed: Relayed,
}

impl Outcome {
    fn end(&mut self) -> &mut End {
        self.0.get_or_insert_default()
    }

    pub fn set(&mut self, by: impl Into<EndedBy>, cause: impl Into<Cause>) {
        self.end().cause.get_or_insert_with(|| (by.into(), cause.into()));
    }

    /// When an open session is to leave, and what both sides hear then.
    pub fn leave(&self) -> Option<(u64, Notice)> {
        self.0.as_ref()?.leave
    }

    pub fn set_leave(&mut self, leave: Option<(u64, Notice)>) {
        self.end().leave = leave;
    }

    /// Of a tunnel that is over.
    pub fn set_relayed(&mut self, relayed: Relayed) {
        self.end().relayed = relayed;
    }

    pub fn relayed(&self) -> Relayed {
        self.0.as_ref().map_or_else(Relayed::default, |end| end.relayed)
    }

    fn first(&self) -> Option<&(EndedBy, Cause)> {
        self.0.as_ref()?.cause.as_ref()
    }

    pub fn ended_by(&self) -> EndedBy {
        self.first().map_or(EndedBy::Ringway, |(by, _)| *by)
    }

    pub fn cause(&self) -> Option<&Cause> {
        self.first().map(|(_, cause)| cause)
    }

    /// That Ringway itself has answered with.
    pub fn status(&self) -> Option<u16> {
        match self.cause() {
            Some(Cause::Refused(refusal)) => Some(refusal.status()),
            _ => None,
        }
    }
}
