//! The options of the file's root and its sections.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::Kind;
use super::{AUTO, GIB, KIB, MIB, OFF, Setting, WAIT, WAIT_OR_ZERO, setting};
use crate::config::{Config, ForwardMode, LogLevel, Watch};

/// The kernel's bound on keep-alive times (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL in net/tcp.h).
const KEEPALIVE: Kind = Kind::Seconds(1..=32_767);
/// Buffers of one ring: ids are 16 bits wide, and io_uring takes at most half of them.
const RING_BUFFERS: RangeInclusive<u64> = 1..=32_768;

// Those of a route too.
pub(super) const INFORMATIONAL_MAX: Kind = Kind::Count(0..=1000);
pub(super) const RESPONSE_BODY_BYTES_MAX: Kind = Kind::Bytes(0..=1 << 40);
pub(super) const REQUEST_BODY_BYTES_MAX: Kind = Kind::Bytes(0..=1 << 50);
/// A control frame's payload may have 125 bytes (RFC 6455, 5.5), and control frames are not for this limit to forbid.
pub(super) const FRAME_BYTES_MAX: Kind = Kind::Bytes(125..=1 << 50);
pub(super) const MESSAGE_BYTES_MAX: Kind = Kind::Bytes(125..=1 << 50);
pub(super) const PER_SECOND_MIN: Kind = Kind::Bytes(1..=GIB);
pub(super) const MESSAGE_FRAGMENTS_MAX: Kind = Kind::Count(1..=u32::MAX as u64);
pub(super) const CONTROL_FRAMES_PER_SECOND_MAX: Kind = Kind::Count(1..=1_000_000);

/// In the order in which they are documented and printed.
#[rustfmt::skip]
pub(in crate::config) static GLOBAL: &[Setting<Config>] = &[
    setting!("workers", workers, Kind::Count(1..=1024), AUTO),
    setting!("cpus", cpus, Kind::Cpus, AUTO),
    setting!("log_level", log_level, Kind::Words(LogLevel::WORDS)),
    setting!("config_watch", config_watch, Kind::Words(Watch::WORDS)),
    setting!("nameservers", nameservers, Kind::Servers, AUTO),

    setting!("limits.sessions_max", limits.sessions_max, Kind::Count(1..=1 << 23), AUTO),
    setting!("limits.head_bytes_max", limits.head_bytes_max, Kind::Bytes(256..=MIB)),
    setting!("limits.header_bytes_max", limits.header_bytes_max, Kind::Bytes(256..=MIB)),
    setting!("limits.headers_max", limits.headers_max, Kind::Count(8..=1000)),
    setting!("limits.target_bytes_max", limits.target_bytes_max, Kind::Bytes(1..=MIB)),
    setting!("limits.hops_max", limits.hops_max, Kind::Count(1..=100), OFF),
    setting!("limits.early_bytes_max", limits.early_bytes_max, Kind::Bytes(1..=GIB)),
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
    setting!("limits.window_bytes", limits.window_bytes, Kind::Bytes(KIB..=GIB)),

    setting!("timeouts.head", timeouts.head, WAIT),
    setting!("timeouts.connect", timeouts.connect, WAIT),
    setting!("timeouts.dial", timeouts.dial, WAIT),
    setting!("timeouts.answer", timeouts.answer, WAIT),
    setting!("timeouts.send_stall", timeouts.send_stall, WAIT),
    setting!("timeouts.idle", timeouts.idle, WAIT, OFF),
    setting!("timeouts.close", timeouts.close, WAIT),
    setting!("timeouts.linger", timeouts.linger, WAIT),
    setting!("timeouts.drain", timeouts.drain, WAIT),
    setting!("timeouts.drain_spread", timeouts.drain_spread, WAIT_OR_ZERO),
    setting!("timeouts.plain_http", timeouts.plain_http, WAIT),
    setting!("timeouts.plain_http_total", timeouts.plain_http_total, WAIT),

    setting!("close_codes.backend_lost", close_codes.backend_lost, Kind::CloseCode),
    setting!("close_codes.backend_restarts", close_codes.backend_restarts, Kind::CloseCode),

    setting!("forward.x_forwarded_for", forward.x_forwarded_for, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_proto", forward.x_forwarded_proto, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_host", forward.x_forwarded_host, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.forwarded", forward.forwarded, Kind::Words(ForwardMode::WORDS)),

    setting!("tcp.backlog", tcp.backlog, Kind::Count(1..=65_535)),
    setting!("tcp.keepalive", tcp.keepalive, KEEPALIVE, OFF),
    setting!("tcp.keepalive_interval", tcp.keepalive_interval, KEEPALIVE),
    setting!("tcp.keepalive_probes", tcp.keepalive_probes, Kind::Count(1..=127)),
    // The kernel takes it as a positive C int of milliseconds.
    setting!("tcp.user_timeout", tcp.user_timeout, Kind::Time(Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64)), OFF),
    setting!("tcp.notsent_bytes_max", tcp.notsent_bytes_max, Kind::Bytes(1..=GIB), OFF),
    setting!("tcp.send_buffer_bytes", tcp.send_buffer_bytes, Kind::Bytes(4 * KIB..=GIB), AUTO),
    setting!("tcp.receive_buffer_bytes", tcp.receive_buffer_bytes, Kind::Bytes(4 * KIB..=GIB), AUTO),

    setting!("buffers.small_bytes", buffers.small_bytes, Kind::Bytes(512..=MIB)),
    setting!("buffers.small_count", buffers.small_count, Kind::Count(RING_BUFFERS), AUTO),
    setting!("buffers.bulk_bytes", buffers.bulk_bytes, Kind::Bytes(512..=16 * MIB)),
    setting!("buffers.bulk_count", buffers.bulk_count, Kind::Count(RING_BUFFERS)),
];
