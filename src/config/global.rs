//! The options of the file's root and of its sections.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::options::Kind::{Bytes, CloseCode, Count, Cpus, Seconds, Servers, Time, Words};
use super::options::{ForwardMode, GIB, KIB, Kind, LogLevel, MIB, WAIT, WAIT_OR_ZERO, Watch, options};
use super::{ListenerConfig, PoolConfig, Route};
use crate::proto::close;

options! {
    /// Everything Ringway may be told, checked.
    pub struct Config {
        /// Worker threads. `"auto"`: one per CPU in `cpus`, and no more than a control group's quota allows.
        workers: Option<usize> = None, Count(1..=1024), auto;
        /// The CPUs to pin the workers to, in turn. `"auto"`: all that this process may use; with a quota, or where
        /// pinning is refused, none.
        cpus: Option<Vec<usize>> = None, Cpus, auto;
        /// `"debug"` has one line per session. `--log-level`, and the environment's `RINGWAY_LOG`, win.
        log_level: LogLevel = LogLevel::Info, Words(LogLevel::WORDS);
        /// Whether this file is read again when it changes, as on SIGHUP.
        config_watch: Watch = Watch::Off, Words(Watch::WORDS);
        /// The DNS servers that discovery asks. `"auto"`: those of /etc/resolv.conf.
        nameservers: Option<Vec<SocketAddr>> = None, Servers, auto;
    }
    fields {
        pub listeners: Vec<ListenerConfig> = Vec::new(),
        pub pools: Vec<PoolConfig> = Vec::new(),
        /// In the order in which they are tried: the most specific first.
        pub routes: Vec<Route> = Vec::new(),
        /// The pool of requests that no route takes: an index into `pools`. `None`: they hear 404.
        pub default_pool: Option<usize> = None,
        pub limits: Limits = Limits::default(),
        pub timeouts: Timeouts = Timeouts::default(),
        pub close_codes: CloseCodes = CloseCodes::default(),
        pub forward: Forward = Forward::default(),
        pub tcp: Tcp = Tcp::default(),
        pub buffers: Buffers = Buffers::default(),
    }
}

/// The average of half minutes.
const PER_SECOND_MIN: Kind = Bytes(1..=GIB);
/// A control frame's payload may have 125 bytes (RFC 6455, 5.5), and control frames are not for this limit to forbid.
const PAYLOAD: Kind = Bytes(125..=1 << 50);

options! {
    /// Sizes and counts, each a bound that holds per connection unless it says otherwise.
    pub struct Limits {
        /// Sessions of one worker at a time, handshakes included; further clients hear 503. `"auto"`: what
        /// RLIMIT_NOFILE allows and, at 10 KiB each, half of what the control groups' limit on memory leaves to a
        /// worker.
        sessions_max: Option<usize> = None, Count(1..=1 << 23), auto;
        /// Request or response head, request line included. More: 431 to the client, 502 if it was the backend's.
        head_bytes_max: usize = 16 << 10, Bytes(256..=MIB);
        /// One header line of a request. More: 431. Many backends' libraries hang up on longer ones.
        header_bytes_max: usize = 8 << 10, Bytes(256..=MIB), at_most("limits.head_bytes_max");
        /// Headers of one head. More: as above.
        headers_max: usize = 100, Count(8..=1000);
        /// Request target. More: 414.
        target_bytes_max: usize = 8 << 10, Bytes(1..=MIB), at_most("limits.head_bytes_max");
        /// Ringways that a request may have passed before this one. More: 508, as two of them are each other's
        /// backends. They are counted in X-Ringway-Hops, which is believed if it comes from this machine or from an
        /// address that is not public. `"off"`: neither counted nor told.
        hops_max: Option<u32> = Some(8), Count(1..=100), off;
        /// What a client may send behind its request before the backend has answered; then reading stops until it has.
        early_bytes_max: usize = 16 << 10, Bytes(1..=GIB), at_most("limits.window_bytes");
        /// 1xx responses skipped before the final one. More: 502.
        informational_max: u32 = 10, Count(0..=1000), per_route;
        /// Body of a backend's answer to an upgrade other than 101. It is cut there.
        response_body_bytes_max: u64 = 1 << 20, Bytes(0..=1 << 40), per_route;
        /// Body of a request that is no upgrade, where a route forwards those. More: 413. `"off"`: no limit, as bodies
        /// are streamed and never kept.
        request_body_bytes_max: Option<u64> = None, Bytes(0..=1 << 50), off, per_route;
        /// Its average over half minutes, while the backend takes it. Less: 408. `"off"`: no limit.
        request_body_bytes_per_second_min: Option<u64> = Some(32), PER_SECOND_MIN, off, per_route;
        /// Payload of one frame, as on the wire. More: 1009. `"off"`: no limit.
        frame_bytes_max: Option<u64> = None, PAYLOAD, off, per_route, at_most("limits.message_bytes_max");
        /// Payload of all frames of one message, as on the wire: compressed, if the peers compress. More: 1009.
        /// `"off"`: no limit.
        message_bytes_max: Option<u64> = None, PAYLOAD, off, per_route;
        /// The same for messages from clients alone, who are strangers: one that never ends holds its backend's memory.
        /// `"off"`: as `message_bytes_max`.
        client_message_bytes_max: Option<u64> = Some(16 << 20), PAYLOAD, off, per_route;
        /// What a receiver has to take on average while there is something to send, over the time of
        /// `timeouts.send_stall`. Less: its connection is cut. `"off"`: any progress will do.
        receiver_bytes_per_second_min: Option<u64> = Some(32), PER_SECOND_MIN, off, per_route;
        /// Frames of one message. More: 1008. `"off"`: no limit.
        message_fragments_max: Option<u32> = Some(1 << 20), Count(1..=u32::MAX as u64), off, per_route;
        /// Pings and pongs per second and direction. More: 1008. `"off"`: no limit.
        control_frames_per_second_max: Option<u32> = Some(10_000), Count(1..=1_000_000), off, per_route;
        /// Bytes received and not yet sent, per direction. Beyond it reading from the sender stops until the receiver
        /// has taken some.
        window_bytes: usize = 128 << 10, Bytes(KIB..=GIB);
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

options! {
    /// Every wait has an end.
    pub struct Timeouts {
        /// From accept to the end of the request head. Later: 408.
        head: Duration = seconds(10), WAIT;
        /// One connect to one backend; then the next backend is tried (`admission.tries_max`). After the last: 504, or
        /// 503 if none could be reached.
        connect: Duration = seconds(5), WAIT, per_route;
        /// All connects of one request together; each has its share of what is left. Later: 504.
        dial: Duration = seconds(15), WAIT, per_route;
        /// From the forwarded request to the end of the backend's response head. Later: 504.
        answer: Duration = seconds(10), WAIT, per_route;
        /// A receiver that takes nothing for this long while there is something to send ends its session. It measures
        /// progress: no timer of a peer's runs against it.
        send_stall: Duration = seconds(30), WAIT, per_route;
        /// An open session without a byte either way for this long is ended with 1001. `"off"`: never.
        idle: Option<Duration> = None, WAIT, off, per_route;
        /// From the first Close frame (or FIN) to the end of both connections; then they are cut.
        close: Duration = seconds(5), WAIT, per_route;
        /// How long a refused client may go on sending, so that it can read the refusal before the connection is
        /// closed.
        linger: Duration = seconds(2), WAIT, per_route;
        /// From SIGTERM to the end, whatever is still open then. Orchestrators kill after 30 s.
        drain: Duration = seconds(25), WAIT;
        /// SIGTERM's Close frames are spread over this time, so that clients do not all reconnect at once. 0: all at
        /// once.
        drain_spread: Duration = Duration::ZERO, WAIT_OR_ZERO, at_most("timeouts.drain");
        /// Between two bytes of a request or response that is no upgrade, where a route forwards those. Beyond the
        /// minute or two after which long polls are answered.
        plain_http: Duration = seconds(125), WAIT, per_route;
        /// From the forwarded request to the end of the response, where that is no upgrade.
        plain_http_total: Duration = seconds(86_400), WAIT, per_route;
    }
}

options! {
    /// What Ringway says in a Close for what is no fault of those who hear it.
    #[derive(Copy, Eq)]
    pub struct CloseCodes {
        /// To the client: its backend is gone, or has broken the protocol. 1014 (bad gateway) says it better, but
        /// gorilla/websocket, tungstenite, Starscream and older versions of ws and netty take that for a protocol
        /// error.
        backend_lost: u16 = close::code::INTERNAL_ERROR, CloseCode, per_route;
        /// To both: the backend is taken out of service, where `sessions.on_down` or `sessions.on_drain` says
        /// `"restart"`.
        backend_restarts: u16 = close::code::SERVICE_RESTART, CloseCode, per_route;
    }
}

options! {
    /// The headers that tell the backend who the client is. `"replace"`: what the client sent is dropped, ours is set.
    /// `"append"`: ours is added behind what the client sent; only right behind another trusted proxy. `"off"`: what
    /// the client sent is dropped, nothing is set.
    pub struct Forward {
        /// The client's address. X-Real-IP, which cannot be appended to, is dropped unless this is `"append"`.
        x_forwarded_for: ForwardMode = ForwardMode::Replace, Words(ForwardMode::WORDS), per_route;
        /// How the client connected: http.
        x_forwarded_proto: ForwardMode = ForwardMode::Replace, Words(ForwardMode::WORDS), per_route;
        /// The request's Host.
        x_forwarded_host: ForwardMode = ForwardMode::Replace, Words(ForwardMode::WORDS), per_route;
        /// RFC 7239: all of these in one header.
        forwarded: ForwardMode = ForwardMode::Off, Words(ForwardMode::WORDS), per_route;
    }
}

/// The kernel's bound on keep-alive times (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL in net/tcp.h).
const KEEPALIVE: Kind = Seconds(1..=32_767);
/// The kernel takes it as a positive C int of milliseconds.
const USER_TIMEOUT: Kind = Time(Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64));

options! {
    /// Socket options, towards clients and backends.
    pub struct Tcp {
        /// Connections that wait to be accepted, per listener and worker. The kernel's net.core.somaxconn caps it.
        backlog: u32 = 4096, Count(1..=65_535);
        /// Silence before the first keep-alive probe. Balancers and NATs forget connections after a minute. `"off"`: no
        /// probes.
        keepalive: Option<Duration> = Some(seconds(45)), KEEPALIVE, off;
        /// Between two probes.
        keepalive_interval: Duration = seconds(10), KEEPALIVE;
        /// Probes without an answer before the connection is given up.
        keepalive_probes: u32 = 6, Count(1..=127);
        /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged, or a receiver's window shut. With the
        /// kernel's default (`"off"`) a peer that has vanished is found out after 15 minutes.
        user_timeout: Option<Duration> = Some(seconds(30)), USER_TIMEOUT, off;
        /// TCP_NOTSENT_LOWAT: unsent bytes that the kernel may queue per socket. `"off"`: the kernel's default.
        notsent_bytes_max: Option<u32> = Some(128 << 10), Bytes(1..=GIB), off;
        /// SO_SNDBUF. `"auto"`: the kernel sizes it.
        send_buffer_bytes: Option<u32> = None, Bytes(4 * KIB..=GIB), auto;
        /// SO_RCVBUF. `"auto"`: the kernel sizes it.
        receive_buffer_bytes: Option<u32> = None, Bytes(4 * KIB..=GIB), auto;
    }
}

/// Buffers of one ring: ids are 16 bits wide, and io_uring takes at most half of them.
const RING_BUFFERS: RangeInclusive<u64> = 1..=32_768;

options! {
    /// Receive buffers of one worker, shared by its connections. Reserved at start, touched when first used.
    pub struct Buffers {
        /// For everyone.
        small_bytes: usize = 4 << 10, Bytes(512..=MIB), at_most("limits.window_bytes", "buffers.bulk_bytes");
        /// How many of these. `"auto"`: two for each of `limits.sessions_max`, as far as an eighth of the control
        /// groups' limit on memory goes.
        small_count: Option<usize> = None, Count(RING_BUFFERS), auto;
        /// For connections that have shown bulk, so that a large message is not cut into many pieces.
        bulk_bytes: usize = 128 << 10, Bytes(512..=16 * MIB);
        /// How many of these; fewer where an eighth of the control groups' limit on memory holds no more.
        bulk_count: usize = 64, Count(RING_BUFFERS);
    }
}
