//! The backend to put behind a relay: a strict RFC 6455 server that echoes, serves rooms, and on request
//! lies, stalls or breaks its connections.
//!
//! | path ends with | what it does |
//! |---|---|
//! | `/pub/N` | every message goes to the listeners of room N |
//! | `/sub/N` | listens to room N |
//! | `/chat/N` | both |
//! | `/sink` | takes messages and answers none |
//! | `/close/CODE/K` | echoes K messages, then closes with CODE |
//! | anything else | echoes |

pub mod liar;
mod rooms;
mod session;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio_uring::net::TcpListener;

use crate::load::worker::{pin, start_runtime};
use crate::net::tls;
use liar::Lies;
use rooms::Hub;
use session::Server;

const BACKLOG: i32 = 4096;

#[derive(Clone, Debug)]
pub struct UpstreamSpec {
    pub listen: SocketAddr,
    pub workers: u32,
    pub cpus: Vec<u32>,
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub message_bytes_max: usize,
    pub lies: Lies,
    pub stall: Option<Stall>,
    /// Takes commands on standard input, and ends when that ends.
    pub control: bool,
}

/// The whole server stops once, this long after its first message.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    pub after: Duration,
    pub length: Duration,
}

/// What `--control` understands, one word a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Rst,
    HalfClose,
    Cut,
    Restart,
}

impl Command {
    pub fn word(self) -> &'static str {
        match self {
            Command::Rst => "rst",
            Command::HalfClose => "half-close",
            Command::Cut => "cut",
            Command::Restart => "restart",
        }
    }

    fn parse(word: &str) -> Option<Command> {
        [Command::Rst, Command::HalfClose, Command::Cut, Command::Restart]
            .into_iter()
            .find(|command| command.word() == word.trim())
    }
}

/// Serves until a signal, or until standard input ends under `--control`.
pub fn run(spec: UpstreamSpec) -> Result<()> {
    let listeners = bind(&spec)?;
    let address = listeners[0].local_addr().context("reading the listening address")?;
    let scheme = if spec.certificate.is_some() { "wss" } else { "ws" };
    let tls = match &spec.certificate {
        Some((certificate, key)) => Some(tls::server(certificate, key)?),
        None => None,
    };
    let (hub, inboxes) = Hub::new(listeners.len());
    let (commands, command) = watch::channel((0u32, None));
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    for (number, (listener, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
        let (spec, tls, hub) = (spec.clone(), tls.clone(), hub.clone());
        let (command, failed) = (command.clone(), failed.clone());
        std::thread::Builder::new()
            .name(format!("upstream-{number}"))
            .spawn(move || {
                let cpu = spec.cpus.get(number % spec.cpus.len().max(1)).copied();
                let result = pin(cpu).and_then(|()| {
                    start_runtime(async move {
                        let server = Server::new(&spec, tls, hub, number);
                        serve(server, listener, inbox, command, spec.stall).await
                    })
                });
                let _ = failed.send(result);
            })
            .context("starting a thread")?;
    }
    // Scripts wait for this line and read the port from it.
    println!("listening on {scheme}://{address}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = terminated.recv() => Ok(()),
            result = read_commands(&commands), if spec.control => result,
            result = failures.recv() => match result {
                Some(Err(error)) => Err(error),
                _ => bail!("a worker ended"),
            },
        }
    })?;
    // Dropping the runtime would wait for its blocked reading of standard input.
    runtime.shutdown_background();
    Ok(())
}

fn bind(spec: &UpstreamSpec) -> Result<Vec<StdListener>> {
    let mut listeners: Vec<StdListener> = Vec::new();
    for _ in 0..spec.workers.max(1) {
        let address = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => spec.listen,
        };
        let listener = listen(address, spec.workers > 1).with_context(|| format!("cannot listen on {address}"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Only when asked for: two upstreams on one port by mistake should be told.
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve(
    server: Rc<Server>,
    listener: StdListener,
    inbox: rooms::Inbox,
    mut command: watch::Receiver<(u32, Option<Command>)>,
    stall: Option<Stall>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener);
    tokio_uring::spawn(server.clone().deliver(inbox));
    if let Some(stall) = stall {
        tokio_uring::spawn(server.clone().stall(stall));
    }
    let obeying = server.clone();
    tokio_uring::spawn(async move {
        while command.changed().await.is_ok() {
            let (_, wanted) = *command.borrow_and_update();
            if let Some(wanted) = wanted {
                obeying.obey(wanted);
            }
        }
    });
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => server.clone().greet(tcp),
            // Out of descriptors, or the client left the queue: neither ends the server.
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn read_commands(commands: &watch::Sender<(u32, Option<Command>)>) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match Command::parse(&line) {
            Some(command) => commands.send_modify(|(count, last)| {
                *count += 1;
                *last = Some(command);
            }),
            None => eprintln!("unknown command {line:?}"),
        }
    }
    Ok(())
}

/// What the generator's TLS arrangement is, shared by all workers.
type TlsConfig = Option<Arc<rustls::ServerConfig>>;
