//! Raw file and flags -> checked [`Config`]: every option, its default, limit and unit in one place.

mod address;
mod check;
mod diagnostic;
mod draft;
mod effective;
mod file;
mod flags;
mod pool;
mod route;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod units;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::proto::close;
use draft::Draft;

pub use address::{Address, Target};
pub use check::{DEFAULT_LISTENER, Machine};
pub use diagnostic::{Diagnostic, Diagnostics, Place};
pub use flags::{Cpus, Flags};
pub use pool::{
    Admission, Backend, Balance, Breaker, Check, Discovery, Ejection, HashKeep, HashKey, Health, Named, OnLoss,
    PoolConfig, SameSite, Secure, Sessions, Sticky, StickyValue, Unresolved,
};
pub use route::{HeaderEdits, HeaderMatch, HostMatch, PathMatch, Paths, PlainHttp, Route, ValueMatch};
pub use units::millis;
#[cfg(feature = "control")]
pub(crate) use units::parse_time;

/// A file of more is no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the file, lets the flags win over it, and checks the whole.
pub fn load(file: Option<&Path>, flags: &Flags, machine: &Machine) -> Result<Config, Diagnostics> {
    let draft = match file.map(read_text) {
        None => Ok(Draft::default()),
        Some(Ok(text)) => Ok(file::read(&text)),
        Some(Err(fault)) => Err(vec![fault]),
    };
    let checked = draft.and_then(|mut draft| {
        draft.apply(flags);
        check::check(draft, machine)
    });
    checked.map_err(|list| Diagnostics { file: file.map(|path| path.display().to_string()), list })
}

fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let fault = |place, message| Diagnostic { place, option: String::new(), message };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fault(Place::Whole, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(Place::Whole, format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        fault(file::Lines::new(&valid).place(valid.len()), "is not UTF-8 from here on".into())
    })
}

/// The configuration as a file: every option, the defaults included.
pub fn print(config: &Config) -> String {
    effective::print(config)
}

/// What is allowed, and perhaps not meant.
pub fn warnings(config: &Config) -> Vec<String> {
    let unresolved = |pool: &PoolConfig| {
        let told =
            |named: &Named| format!("pool \"{}\": {}; it is looked up again until it can be", pool.name, named.fault);
        pool.discovery.names.iter().map(told).collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(unresolved).collect()
}

/// Everything Ringway may be told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listeners: Vec<ListenerConfig>,
    pub pools: Vec<PoolConfig>,
    /// In the order in which they are tried: the most specific first.
    pub routes: Vec<Route>,
    /// The pool of requests that no route takes: an index into `pools`. `None`: they hear 404.
    pub default_pool: Option<usize>,
    /// Whether the file is read again when it changes, as on SIGHUP.
    pub config_watch: Watch,
    /// Whom discovery asks. `None`: those of /etc/resolv.conf.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// `None`: one worker per CPU the process may use.
    pub workers: Option<usize>,
    /// The CPUs to pin the workers to, in turn. `None`: those the process may use.
    pub cpus: Option<Vec<usize>>,
    pub log_level: LogLevel,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub close_codes: CloseCodes,
    pub forward: Forward,
    pub tcp: Tcp,
    pub buffers: Buffers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// For routes and logs. The address unless it is given.
    pub name: String,
    pub address: Address,
    /// Of a unix socket's file.
    pub rights: Rights,
}

/// Who may connect to a unix socket. `None`: as the process's umask, user and group have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub mode: Option<u32>,
    pub owner: Option<Account>,
    pub group: Option<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As it was given: a name, or the number itself.
    pub name: String,
    pub id: u32,
}

impl From<Address> for ListenerConfig {
    fn from(address: Address) -> Self {
        ListenerConfig { name: address.to_string(), address, rights: Rights::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    #[default]
    Off,
    On,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Sizes and counts. Every one is a bound that holds per connection unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Sessions per worker; beyond it clients hear 503. `None`: what RLIMIT_NOFILE allows.
    pub sessions_max: Option<usize>,
    /// Request or response head, request line included.
    pub head_bytes_max: usize,
    /// One header line of a request.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub target_bytes_max: usize,
    /// Ringways that a request may have passed before this one. `None`: nobody counts.
    pub hops_max: Option<u32>,
    /// Bytes a client may send behind its request before the backend has answered 101.
    pub early_bytes_max: usize,
    /// 1xx responses skipped before the final one.
    pub informational_max: u32,
    /// Body of a response to an upgrade other than 101.
    pub response_body_bytes_max: u64,
    /// Body of a request that is no upgrade, on a route that forwards those. `None`: no limit.
    pub request_body_bytes_max: Option<u64>,
    /// Its average over half minutes, while the backend takes it. `None`: no limit.
    pub request_body_bytes_per_second_min: Option<u64>,
    /// Payload of one frame, as on the wire. `None`: no limit.
    pub frame_bytes_max: Option<u64>,
    /// Payload of all frames of one message, as on the wire (compressed, if the peers compress). `None`: no limit.
    pub message_bytes_max: Option<u64>,
    /// The same for messages from clients alone. `None`: as `message_bytes_max`.
    pub client_message_bytes_max: Option<u64>,
    /// Average of what a receiver takes, while there is something to send. `None`: any progress will do.
    pub receiver_bytes_per_second_min: Option<u64>,
    /// Fragments of one message. `None`: no limit.
    pub message_fragments_max: Option<u32>,
    /// Pings and pongs per second and direction. `None`: no limit.
    pub control_frames_per_second_max: Option<u32>,
    /// Per direction: bytes received and not yet sent, beyond which reading stops.
    pub window_bytes: usize,
}

/// Every wait has one. `None` where the option says `off`.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// From accept to the end of the request head. 408.
    pub head: Duration,
    /// One connect to one backend; then the next is tried. 504 after the last.
    pub connect: Duration,
    /// All connects of one request together. 504.
    pub dial: Duration,
    /// From the forwarded request to the end of the backend's response head. 504.
    pub answer: Duration,
    /// A send that makes no progress for this long ends the session.
    pub send_stall: Duration,
    /// An open session without a byte either way for this long is ended with 1001.
    pub idle: Option<Duration>,
    /// From the first Close (or FIN) to the end of both TCP connections.
    pub close: Duration,
    /// How long a refused client may go on sending before the connection is closed.
    pub linger: Duration,
    /// From SIGTERM to the end, whatever is still open then.
    pub drain: Duration,
    /// SIGTERM's Close frames are spread over this time. Zero: all at once.
    pub drain_spread: Duration,
    /// Between two bytes of a request or response that is no upgrade, on a route that forwards those.
    pub plain_http: Duration,
    /// From the forwarded request to the end of its response, where that is no upgrade.
    pub plain_http_total: Duration,
}

/// The codes of Closes that Ringway sends for what is no fault of their receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCodes {
    /// To the client: its backend is gone, or has broken the protocol.
    pub backend_lost: u16,
    /// To both: the backend is down or drained, and `sessions.on_down` or `on_drain` says `restart`.
    pub backend_restarts: u16,
}

/// The headers that tell the backend who the client is.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    pub x_forwarded_for: ForwardMode,
    pub x_forwarded_proto: ForwardMode,
    pub x_forwarded_host: ForwardMode,
    pub forwarded: ForwardMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardMode {
    /// Add ours behind what the client sent. For a relay behind another trusted proxy.
    Append,
    /// Drop what the client sent, set ours.
    Replace,
    /// Drop what the client sent, set nothing.
    Off,
}

/// Socket options, on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    pub backlog: u32,
    /// Idle time before the first keep-alive probe. `None`: keep-alive off.
    pub keepalive: Option<Duration>,
    /// Between two probes.
    pub keepalive_interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub keepalive_probes: u32,
    /// TCP_USER_TIMEOUT. `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
    /// TCP_NOTSENT_LOWAT: unsent bytes the kernel may queue per socket. `None`: the kernel's default.
    pub notsent_bytes_max: Option<u32>,
    /// SO_SNDBUF. `None`: the kernel sizes it.
    pub send_buffer_bytes: Option<u32>,
    /// SO_RCVBUF. `None`: the kernel sizes it.
    pub receive_buffer_bytes: Option<u32>,
}

/// Receive buffers of one worker. They are reserved at start and touched when first used.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffers {
    pub small_bytes: usize,
    /// `None`: derived from the number of sessions.
    pub small_count: Option<usize>,
    pub bulk_bytes: usize,
    pub bulk_count: usize,
}

/// What one worker may use, derived from the config and RLIMIT_NOFILE. Sized once, at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Sessions that are served.
    pub sessions_max: usize,
    /// Further slots in which a client is told 503 instead of being left to wonder.
    pub refusals_max: usize,
    pub small_count: usize,
    pub bulk_count: usize,
}

impl Default for Config {
    /// The defaults of every option; no listener and no backend yet.
    fn default() -> Self {
        Config {
            listeners: Vec::new(),
            pools: Vec::new(),
            routes: Vec::new(),
            default_pool: None,
            config_watch: Watch::Off,
            nameservers: None,
            workers: None,
            cpus: None,
            log_level: LogLevel::Info,
            limits: Limits {
                sessions_max: None,
                head_bytes_max: 16 << 10,
                header_bytes_max: 8 << 10,
                headers_max: 100,
                target_bytes_max: 8 << 10,
                hops_max: Some(8),
                early_bytes_max: 16 << 10,
                informational_max: 10,
                response_body_bytes_max: 1 << 20,
                request_body_bytes_max: None,
                request_body_bytes_per_second_min: Some(32),
                frame_bytes_max: None,
                message_bytes_max: None,
                client_message_bytes_max: Some(16 << 20),
                receiver_bytes_per_second_min: Some(32),
                message_fragments_max: Some(1 << 20),
                control_frames_per_second_max: Some(10_000),
                window_bytes: 128 << 10,
            },
            timeouts: Timeouts {
                head: Duration::from_secs(10),
                connect: Duration::from_secs(5),
                dial: Duration::from_secs(15),
                answer: Duration::from_secs(10),
                send_stall: Duration::from_secs(30),
                idle: None,
                close: Duration::from_secs(5),
                linger: Duration::from_secs(2),
                // Orchestrators kill after 30 s.
                drain: Duration::from_secs(25),
                drain_spread: Duration::ZERO,
                // Long polls are answered after a minute, or two: beyond what peers use.
                plain_http: Duration::from_secs(125),
                plain_http_total: Duration::from_secs(86_400),
            },
            close_codes: CloseCodes {
                backend_lost: close::code::INTERNAL_ERROR,
                backend_restarts: close::code::SERVICE_RESTART,
            },
            forward: Forward {
                x_forwarded_for: ForwardMode::Replace,
                x_forwarded_proto: ForwardMode::Replace,
                x_forwarded_host: ForwardMode::Replace,
                forwarded: ForwardMode::Off,
            },
            tcp: Tcp {
                backlog: 4096,
                // Balancers and NATs forget connections after a minute.
                keepalive: Some(Duration::from_secs(45)),
                keepalive_interval: Duration::from_secs(10),
                keepalive_probes: 6,
                user_timeout: Some(Duration::from_secs(30)),
                notsent_bytes_max: Some(128 << 10),
                send_buffer_bytes: None,
                receive_buffer_bytes: None,
            },
            buffers: Buffers { small_bytes: 4 << 10, small_count: None, bulk_bytes: 128 << 10, bulk_count: 64 },
        }
    }
}
