//! The options of a route that are one value: some of its own, and those in which it may differ from the rest.

use super::global::{
    CONTROL_FRAMES_PER_SECOND_MAX, FRAME_BYTES_MAX, INFORMATIONAL_MAX, MESSAGE_BYTES_MAX, MESSAGE_FRAGMENTS_MAX,
    PER_SECOND_MIN, REQUEST_BODY_BYTES_MAX, RESPONSE_BODY_BYTES_MAX,
};
use super::kind::{Grammar, Kind};
use super::{AUTO, OFF, Setting, WAIT, setting};
use crate::config::{ForwardMode, Paths, PlainHttp, Route, text};

const SUBPROTOCOL: Kind = Kind::Text(Grammar { what: "a subprotocol", such_as: "chat.v2", check: text::subprotocol });
const REWRITE: Kind = Kind::Text(Grammar { what: "a path", such_as: "/chat", check: text::path });

/// In the order in which they are documented and printed.
#[rustfmt::skip]
pub(in crate::config) static ROUTE: &[Setting<Route>] = &[
    setting!("subprotocol", subprotocol, SUBPROTOCOL),
    setting!("paths", paths, Kind::Words(Paths::WORDS), AUTO),
    setting!("rewrite", rewrite, REWRITE),
    setting!("plain_http", plain_http, Kind::Words(PlainHttp::WORDS)),

    setting!("limits.informational_max", limits.informational_max, INFORMATIONAL_MAX),
    setting!("limits.response_body_bytes_max", limits.response_body_bytes_max, RESPONSE_BODY_BYTES_MAX),
    setting!("limits.request_body_bytes_max", limits.request_body_bytes_max, REQUEST_BODY_BYTES_MAX, OFF),
    setting!("limits.request_body_bytes_per_second_min", limits.request_body_bytes_per_second_min, PER_SECOND_MIN, OFF),
    setting!("limits.frame_bytes_max", limits.frame_bytes_max, FRAME_BYTES_MAX, OFF),
    setting!("limits.message_bytes_max", limits.message_bytes_max, MESSAGE_BYTES_MAX, OFF),
    setting!("limits.client_message_bytes_max", limits.client_message_bytes_max, MESSAGE_BYTES_MAX, OFF),
    setting!("limits.receiver_bytes_per_second_min", limits.receiver_bytes_per_second_min, PER_SECOND_MIN, OFF),
    setting!("limits.message_fragments_max", limits.message_fragments_max, MESSAGE_FRAGMENTS_MAX, OFF),
    setting!("limits.control_frames_per_second_max", limits.control_frames_per_second_max, CONTROL_FRAMES_PER_SECOND_MAX, OFF),

    setting!("timeouts.connect", timeouts.connect, WAIT),
    setting!("timeouts.dial", timeouts.dial, WAIT),
    setting!("timeouts.answer", timeouts.answer, WAIT),
    setting!("timeouts.send_stall", timeouts.send_stall, WAIT),
    setting!("timeouts.idle", timeouts.idle, WAIT, OFF),
    setting!("timeouts.close", timeouts.close, WAIT),
    setting!("timeouts.linger", timeouts.linger, WAIT),
    setting!("timeouts.plain_http", timeouts.plain_http, WAIT),
    setting!("timeouts.plain_http_total", timeouts.plain_http_total, WAIT),

    setting!("close_codes.backend_lost", close_codes.backend_lost, Kind::CloseCode),
    setting!("close_codes.backend_restarts", close_codes.backend_restarts, Kind::CloseCode),

    setting!("forward.x_forwarded_for", forward.x_forwarded_for, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_proto", forward.x_forwarded_proto, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_host", forward.x_forwarded_host, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.forwarded", forward.forwarded, Kind::Words(ForwardMode::WORDS)),
];
