//! Listeners: bound by the control plane, given to the workers, and closed when a config has them no more.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::{set_options, share_port};
use crate::config::{self, Account, Address, Rights, Tcp};

/// The listeners of all workers, as the control plane knows them: it binds them, the workers use them.
///
/// All that are new are bound before any worker hears of them, so that what cannot be bound is told before anything has
/// changed. A unix socket's file is removed when nobody is to listen there any more, if it is still ours.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<OpenListener>,
    workers: usize,
    next_id: u32,
}

#[derive(Debug)]
struct OpenListener {
    id: u32,
    bound: Bound,
}

/// What another config makes of the listeners; nothing has changed yet.
#[derive(Debug)]
pub struct ListenerChange {
    /// In the config's order.
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
enum Wanted {
    /// Where it is now, and the rights that it is to have.
    Kept(usize, Rights),
    New(Bound),
}

#[derive(Debug)]
struct Bound {
    /// As the config has it, where port 0 is any.
    wanted: Address,
    address: Address,
    rights: Rights,
    /// One per worker; of a unix socket just one, which they share. Empty once the workers have theirs.
    sockets: Vec<Socket>,
    file: Option<UnixFile>,
}

/// A unix socket's file, by its path and by what it is: another process may have put its own in that place.
#[derive(Debug)]
struct UnixFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl UnixFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(UnixFile { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        // Under the lock, or the file could become another's between the look and the removal.
        let _lock = lock_directory(&self.path);
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Of several processes that take over one path at the same time each would find the other's socket without anybody who
/// listens, and remove it. The lock is on the directory: it needs no file of its own, no right to write, and ends with the
/// process. Where it cannot be had, or somebody holds it for long, things go as they would without.
fn lock_directory(path: &Path) -> Option<File> {
    const TRIES: u32 = 100;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(directory).ok()?;
    for _ in 0..TRIES {
        match lock.try_lock() {
            Ok(()) => return Some(lock),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: Address,
    cause: io::Error,
}

impl Listeners {
    /// None yet, for so many workers.
    pub fn new(workers: usize) -> Self {
        Listeners { listeners: Vec::new(), workers, next_id: 0 }
    }

    /// Binds those that are new. Clients are queued from here on, and served once a worker accepts.
    pub fn prepare(&self, wanted: &[config::ListenerConfig], tcp: &Tcp) -> Result<ListenerChange, ListenError> {
        let mut kept = Vec::new();
        let place = |listener: &config::ListenerConfig| {
            let is_it =
                |(at, known): &(usize, &OpenListener)| known.bound.wanted == listener.address && !kept.contains(at);
            if let Some((at, _)) = self.listeners.iter().enumerate().find(is_it) {
                kept.push(at);
                return Ok(Wanted::Kept(at, listener.rights.clone()));
            }
            self.bind(listener, tcp).map(Wanted::New)
        };
        Ok(ListenerChange { wanted: wanted.iter().map(place).collect::<Result<_, _>>()? })
    }

    fn bind(&self, listener: &config::ListenerConfig, tcp: &Tcp) -> Result<Bound, ListenError> {
        let wanted = &listener.address;
        let bound = match wanted {
            // A listener of ours on this port may be about to be removed.
            Address::Inet(address) => bind_inet(*address, tcp, self.workers, self.has_port(address.port())),
            Address::Unix(path) => bind_unix(path, &listener.rights, tcp),
        };
        bound.map_err(|cause| ListenError { address: wanted.clone(), cause })
    }

    fn has_port(&self, port: u16) -> bool {
        self.listeners.iter().any(|known| matches!(&known.bound.wanted, Address::Inet(known) if known.port() == port))
    }

    /// From here on these are the listeners, and those that are not among them are no more.
    pub fn change(&mut self, change: ListenerChange) {
        let mut before: Vec<Option<OpenListener>> = self.listeners.drain(..).map(Some).collect();
        for wanted in change.wanted {
            let listener = match wanted {
                Wanted::Kept(at, rights) => {
                    let mut kept = before[at].take().expect("each is kept at most once");
                    let bound = &mut kept.bound;
                    if let Some(file) = bound.file.as_ref().filter(|_| bound.rights != rights)
                        && let Err(error) = give_rights(&file.path, &rights)
                    {
                        tracing::error!(path = %file.path.display(), %error, "the socket's rights cannot be changed");
                    }
                    bound.rights = rights;
                    kept
                }
                Wanted::New(bound) => {
                    self.next_id += 1;
                    OpenListener { id: self.next_id, bound }
                }
            };
            self.listeners.push(listener);
        }
    }

    /// Their names among workers, in the config's order.
    pub fn ids(&self) -> Vec<u32> {
        self.listeners.iter().map(|listener| listener.id).collect()
    }

    /// The real addresses, with the port that the kernel chose instead of 0.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().map(|listener| listener.bound.address.clone()).collect()
    }

    /// Those that the workers do not have yet, with the descriptor that is for this worker.
    pub fn new_for(&self, worker: usize) -> Vec<(u32, RawFd)> {
        let new = self.listeners.iter().filter(|listener| !listener.bound.sockets.is_empty());
        let socket = |sockets: &[Socket]| sockets[worker % sockets.len()].as_raw_fd();
        new.map(|listener| (listener.id, socket(&listener.bound.sockets))).collect()
    }

    /// Nobody is to connect any more: a successor finds the paths free.
    pub fn remove_files(&mut self) {
        for listener in &mut self.listeners {
            listener.bound.file = None;
        }
    }

    /// Closes this side's descriptors, now that every worker has its own or will find it on its way. The unix sockets' files
    /// stay.
    pub fn hand_over(&mut self) {
        for listener in &mut self.listeners {
            listener.bound.sockets.clear();
        }
    }
}

fn bind_inet(wanted: SocketAddr, tcp: &Tcp, workers: usize, shared: bool) -> io::Result<Bound> {
    let mut address = wanted;
    let mut sockets = Vec::with_capacity(workers);
    for worker in 0..workers {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier run that are still closing do not stand in the way.
        socket.set_reuse_address(true)?;
        // The first binds alone, so that another process that listens here is an error even if it would share.
        if worker > 0 || shared {
            share_port(&socket)?;
        }
        socket.bind(&address.into())?;
        if worker == 0 {
            share_port(&socket)?;
            address = socket.local_addr()?.as_socket().unwrap_or(address);
        }
        // Accepted sockets inherit all of them.
        set_options(&socket, tcp)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.listen(backlog(tcp))?;
    }
    Ok(Bound {
        wanted: Address::Inet(wanted),
        address: Address::Inet(address),
        rights: Rights::default(),
        sockets,
        file: None,
    })
}

fn bind_unix(path: &Path, rights: &Rights, tcp: &Tcp) -> io::Result<Bound> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Until somebody listens: so far it looks like one that is left over.
    let _lock = lock_directory(path);
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(&address) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let file = UnixFile::of(path)?;
    // Before anybody can connect.
    give_rights(path, rights)?;
    socket.listen(backlog(tcp))?;
    let address = Address::Unix(path.to_owned());
    Ok(Bound { wanted: address.clone(), address, rights: rights.clone(), sockets: vec![socket], file: Some(file) })
}

fn give_rights(path: &Path, rights: &Rights) -> io::Result<()> {
    let id = |account: &Option<Account>| account.as_ref().map(|account| account.id);
    if rights.owner.is_some() || rights.group.is_some() {
        std::os::unix::fs::chown(path, id(&rights.owner), id(&rights.group))?;
    }
    if let Some(mode) = rights.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a socket file is left over from a process that is gone. Files that are no sockets refuse as well, but with
/// another error than ECONNREFUSED only if they cannot be opened: so ask first.
fn is_stale(address: &SockAddr) -> bool {
    let is_socket = address.as_pathname().is_some_and(|path| {
        use std::os::unix::fs::FileTypeExt;
        std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
    });
    let refused = || {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?; // a live one whose backlog is full must not hold us up
        probe.connect(address)
    };
    is_socket && refused().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn backlog(tcp: &Tcp) -> i32 {
    i32::try_from(tcp.backlog).unwrap_or(i32::MAX)
}

impl ListenError {
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.cause)?;
        match (self.cause.kind(), &self.address) {
            (io::ErrorKind::AddrInUse, Address::Inet(address)) if is_listened_on(address.port()) => {
                write!(f, ". Another process listens there; `ss -ltnp 'sport = :{}'` names it", address.port())
            }
            (io::ErrorKind::AddrInUse, Address::Inet(_)) => {
                write!(f, ". Nobody listens there; a connection or a process that has just ended still holds it")
            }
            (io::ErrorKind::AddrInUse, Address::Unix(path)) => {
                write!(f, ". A process listens there, or the file is no socket; see `ss -lxp src {}`", path.display())
            }
            (io::ErrorKind::PermissionDenied, Address::Inet(address)) => write!(
                f,
                ". Ports below {} need CAP_NET_BIND_SERVICE; `setcap cap_net_bind_service=+ep` on the program, or \
                 `sysctl net.ipv4.ip_unprivileged_port_start={}`",
                unprivileged_port_start(),
                address.port()
            ),
            (io::ErrorKind::PermissionDenied, Address::Unix(path)) => {
                let directory = path.parent().unwrap_or(Path::new("."));
                write!(f, ". The user must be able to write to {}", directory.display())
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                write!(f, ". This machine has no such address; `ip address` lists its own")
            }
            (io::ErrorKind::NotFound, Address::Unix(_)) => write!(f, ". The directory does not exist"),
            _ => Ok(()),
        }
    }
}

/// As /proc/net/tcp has it: the local address and port in hexadecimal digits, and state 0A for those who listen.
fn is_listened_on(port: u16) -> bool {
    let port = format!(":{port:04X}");
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    };
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .any(|table| table.lines().any(listens))
}

fn unprivileged_port_start() -> String {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    std::fs::read_to_string(path).map_or_else(|_| "1024".into(), |value| value.trim().into())
}
