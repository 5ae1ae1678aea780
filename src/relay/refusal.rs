//! Why Ringway answers a request itself: status, label, Retry-After and text of each, in one table.

use std::borrow::Cow;

use crate::proto::http::{Rejection, Status};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request breaks a rule; [`proto`](crate::proto) says which.
    Request(Rejection),
    RequestTimeout,
    RequestCutShort,
    BodyTimeout,
    BodyTooSlow,
    BodyCutShort,
    /// It may have so many bytes.
    BodyTooLarge(u64),
    NoRoute,
    /// It has passed so many Ringways.
    TooManyHops(u32),
    /// SIGTERM.
    Draining,
    SessionsTaken,
    /// Descriptors, memory or ports: nothing that a backend could help.
    LocalExhaustion,
    /// Others wait for the pool, and no more may.
    QueueFull,
    PoolFull,
    QueueTimeout,
    HandshakeRate,
    BreakerOpen,
    NoBackend,
    ConnectTimeout,
    AnswerTimeout,
    BackendClosed,
    BackendReset,
    /// Before it had the whole request.
    BackendClosedEarly,
    AnsweredEarly,
    AnswerCutShort,
    TooManyInformational,
    /// The backend's answer breaks a rule; [`proto`](crate::proto) says which.
    Answer(Rejection),
}

/// When the client may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// Nobody can say, or never with this request.
    Unsaid,
    /// As the pool has it (`admission.retry_after`).
    Pool,
    /// In so many milliseconds.
    Ms(u64),
}

impl Refusal {
    /// The status, the name in logs and metrics, when to come back, and what the client reads.
    fn row(&self) -> (Status, &'static str, RetryAfter, &'static str) {
        use RetryAfter::{Ms, Pool, Unsaid};
        use Status::{
            BadGateway, BadRequest, ContentTooLarge, GatewayTimeout, LoopDetected, NotFound, RequestTimeout,
            ServiceUnavailable,
        };
        match self {
            Refusal::Request(rejection) => (rejection.status, rejection.status.label(), Unsaid, ""),
            Refusal::RequestTimeout => {
                (RequestTimeout, "request_timeout", Unsaid, "The request did not arrive in time.")
            }
            Refusal::RequestCutShort => (BadRequest, "request_cut_short", Unsaid, "The request is cut short."),
            Refusal::BodyTimeout => {
                (RequestTimeout, "body_timeout", Unsaid, "The request's body did not arrive in time.")
            }
            Refusal::BodyTooSlow => (
                RequestTimeout,
                "body_too_slow",
                Unsaid,
                "The request's body comes slower than limits.request_body_bytes_per_second_min.",
            ),
            Refusal::BodyCutShort => (BadRequest, "body_cut_short", Unsaid, "The request's body is cut short."),
            Refusal::BodyTooLarge(_) => (ContentTooLarge, "body_too_large", Unsaid, ""),
            Refusal::NoRoute => (NotFound, "no_route", Unsaid, "No route takes this request."),
            Refusal::TooManyHops(_) => (LoopDetected, "too_many_hops", Unsaid, ""),
            Refusal::Draining => (ServiceUnavailable, "draining", Unsaid, "The relay is shutting down."),
            Refusal::SessionsTaken => (ServiceUnavailable, "sessions_taken", Ms(5000), "All sessions are taken."),
            Refusal::LocalExhaustion => (
                ServiceUnavailable,
                "local_exhaustion",
                Pool,
                "The relay's machine lacks what another connection needs.",
            ),
            Refusal::QueueFull => (ServiceUnavailable, "queue_full", Pool, "Too many requests wait for this pool."),
            Refusal::PoolFull => {
                (ServiceUnavailable, "pool_full", Pool, "Every backend of this pool has all it can take.")
            }
            Refusal::QueueTimeout => {
                (ServiceUnavailable, "queue_timeout", Pool, "No backend of this pool had room in time.")
            }
            Refusal::HandshakeRate => {
                (ServiceUnavailable, "handshake_rate", Pool, "This pool takes no more handshakes per second.")
            }
            Refusal::BreakerOpen => {
                (ServiceUnavailable, "breaker_open", Pool, "This pool fails too often; its circuit breaker is open.")
            }
            Refusal::NoBackend => (ServiceUnavailable, "no_backend", Pool, "No backend is reachable."),
            Refusal::ConnectTimeout => {
                (GatewayTimeout, "connect_timeout", Pool, "No backend accepted the connection in time.")
            }
            Refusal::AnswerTimeout => (GatewayTimeout, "answer_timeout", Unsaid, "The backend did not answer in time."),
            Refusal::BackendClosed => {
                (BadGateway, "backend_closed", Unsaid, "The backend closed the connection without an answer.")
            }
            Refusal::BackendReset => {
                (BadGateway, "backend_reset", Unsaid, "The backend reset the connection instead of answering.")
            }
            Refusal::BackendClosedEarly => (
                BadGateway,
                "backend_closed_early",
                Unsaid,
                "The backend closed the connection while the request was sent.",
            ),
            Refusal::AnsweredEarly => {
                (BadGateway, "answered_early", Unsaid, "The backend answered before it had the whole request.")
            }
            Refusal::AnswerCutShort => (BadGateway, "answer_cut_short", Unsaid, "The backend's answer is cut short."),
            Refusal::TooManyInformational => {
                (BadGateway, "too_many_informational", Unsaid, "The backend sent too many 1xx responses.")
            }
            Refusal::Answer(rejection) => (rejection.status, "bad_answer", Unsaid, ""),
        }
    }

    pub fn status(&self) -> u16 {
        self.row().0.code()
    }

    pub fn label(&self) -> &'static str {
        self.row().1
    }

    pub fn retry_after(&self) -> RetryAfter {
        self.row().2
    }

    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Refusal::Request(rejection) | Refusal::Answer(rejection) => rejection.text.clone(),
            // Names the option, and how much it allows; which route that is of stands in the log.
            Refusal::BodyTooLarge(max) => {
                format!("The request's body is larger than limits.request_body_bytes_max, which is {max} bytes.").into()
            }
            Refusal::TooManyHops(hops) => {
                format!("The request has passed {hops} relays; are they each other's backends?").into()
            }
            other => other.row().3.into(),
        }
    }

    /// The response that ends the connection. `lines`, `is_head`: as [`Status::response`] takes them.
    pub fn response(&self, lines: &str, is_head: bool) -> Vec<u8> {
        self.row().0.response(&self.text(), lines, is_head)
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Refusal::Request(rejection)
    }
}
