//! Raw file and flags -> checked [`Config`]. Every option is declared once, with its default, limit, unit and text: see
//! [`options`]. An `Option` that is `None` is the file's `off`, `auto` or `pool`, whichever the option knows.

mod address;
mod check;
mod diagnostic;
mod docs;
mod draft;
mod effective;
mod environment;
mod file;
mod flags;
mod global;
mod hints;
mod options;
mod pool;
mod route;
#[cfg(test)]
mod tests;
mod text;
mod units;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use draft::Draft;
use environment::Environment;

pub use address::{Address, Target};
pub use check::{DEFAULT_LISTENER, Machine};
pub use diagnostic::{Diagnostic, Diagnostics, Place};
pub use docs::{example, options};
pub use flags::{Cpus, Flags};
pub use global::{Buffers, CloseCodes, Config, Forward, Limits, Tcp, Timeouts};
pub use options::{
    Balance, Check, ForwardMode, HashKeep, LogLevel, OnLoss, Paths, PlainHttp, SameSite, Secure, StickyValue,
    Unresolved, Watch,
};
pub use pool::{
    Admission, Backend, Breaker, Discovery, Ejection, HashKey, Health, Named, PoolConfig, Sessions, Sticky,
};
pub use route::{HeaderEdits, HeaderMatch, HostMatch, PathMatch, Route, ValueMatch};
pub use units::millis;
#[cfg(feature = "control")]
pub(crate) use {crate::proto::text::is_cookie_value, options::Given};

/// A file of more is no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the file, lets the environment win over it and the flags over both, and checks the whole.
pub fn load(file: Option<&Path>, flags: &Flags, machine: &Machine) -> Result<Config, Diagnostics> {
    let environment = Environment::of_this_process();
    let draft = match file.map(read_text) {
        None => Ok(Draft::of(&environment)),
        Some(Ok(text)) => Ok(file::read(&text, &environment)),
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

/// The configuration as a file: every option, the defaults included, secrets not. Where the file says `auto`, what that comes
/// to stands behind it, as far as `derived` tells.
pub fn print(config: &Config, derived: Option<&Derived>) -> String {
    effective::print(config, derived)
}

/// Sets an option of a backend that something else than the file tells of. Its name and its address are for the caller.
#[cfg(feature = "control")]
pub(crate) fn set_backend_option(backend: &mut Backend, key: &str, given: &Given<'_>) -> Result<(), String> {
    use options::{BACKEND, BACKEND_KEYS};
    let Some(setting) = BACKEND.iter().find(|setting| setting.path == key) else {
        let keys = BACKEND_KEYS.iter().map(|key| key.name).chain(BACKEND.iter().map(|setting| setting.path.as_str()));
        let keys: Vec<&str> = keys.collect();
        return Err(format!("is unknown{}; the keys are {}", hints::of_key(key, &keys), keys.join(", ")));
    };
    setting.parse(given).map(|value| setting.write(backend, value))
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

/// What `auto` comes to on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    pub workers: usize,
    /// Empty: workers are not pinned.
    pub cpus: Vec<usize>,
    /// `None`: there is not enough for one session.
    pub plan: Option<Plan>,
    pub nameservers: Vec<SocketAddr>,
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
