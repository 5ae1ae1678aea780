//! One check of one backend, on a connection of its own.

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use socket2::SockAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::config::{Check, Health};
use crate::table::state::is_local_exhaustion;

const USER_AGENT: &str = "ringway-health";
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 128;
/// A backend may greet before it answers a ping.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Why a check has not found the backend well, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The backend has shown that it is not.
    Unwell(String),
    /// This machine has not let the check happen: that says nothing about the backend.
    Machine(String),
}

impl From<&str> for Failed {
    fn from(reason: &str) -> Self {
        Failed::Unwell(reason.into())
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Failed::Unwell(reason)
    }
}

type Checked<T> = Result<T, Failed>;

/// A check that ends so much later than it was to has not been waiting, this process was stopped: by SIGSTOP, by a
/// hypervisor, by a machine that was suspended.
const STOPPED: Duration = Duration::from_secs(1);

pub(super) async fn probe(address: &SockAddr, health: &Health, random: u64) -> Checked<()> {
    let within = Within { deadline: Instant::now() + health.timeout, patience: health.timeout };
    if let Some(address) = address.as_socket() {
        let stream = within.io("connection", TcpStream::connect(address)).await?;
        let host = health.host.clone().unwrap_or_else(|| address.to_string());
        check(stream, health, &host, within, random).await
    } else if let Some(path) = address.as_pathname() {
        let stream = within.io("connection", UnixStream::connect(path)).await?;
        check(stream, health, health.host.as_deref().unwrap_or("localhost"), within, random).await
    } else {
        Err("has an address that cannot be checked".into())
    }
}

async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    health: &Health,
    host: &str,
    within: Within,
    random: u64,
) -> Checked<()> {
    match health.check {
        Check::Off | Check::Tcp => Ok(()),
        Check::Http => http(stream, health, host, within).await,
        Check::Websocket => {
            let socket = handshake(stream, health, host, within).await?;
            leave(socket, within).await;
            Ok(())
        }
        Check::Ping => {
            let mut socket = handshake(stream, health, host, within).await?;
            within.wait("pong", ping(&mut socket, random)).await?;
            leave(socket, within).await;
            Ok(())
        }
    }
}

/// The time that all steps of a check have together.
#[derive(Clone, Copy)]
struct Within {
    deadline: Instant,
    patience: Duration,
}

impl Within {
    async fn wait<T>(&self, what: &str, step: impl Future<Output = Checked<T>>) -> Checked<T> {
        match timeout_at(self.deadline, step).await {
            Ok(result) => result,
            Err(_) if Instant::now() > self.deadline + STOPPED => {
                Err(Failed::Machine("this process was stopped".into()))
            }
            Err(_) => Err(format!("no {what} within {:?}", self.patience).into()),
        }
    }

    async fn io<T>(&self, what: &str, step: impl Future<Output = io::Result<T>>) -> Checked<T> {
        self.wait(what, async { step.await.map_err(|error| describe(&error)) }).await
    }
}

async fn http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    health: &Health,
    host: &str,
    within: Within,
) -> Checked<()> {
    let path = &health.path;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nConnection: close\r\n\r\n");
    let answer = async {
        stream.write_all(request.as_bytes()).await.map_err(|error| describe(&error))?;
        read_status(&mut stream).await
    };
    let status = within.wait("answer", answer).await?;
    if (health.status_min..=health.status_max).contains(&u32::from(status)) {
        Ok(())
    } else {
        Err(format!("answered {status}").into())
    }
}

/// The status of the final response. Interim ones before it are skipped.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Checked<u16> {
    let mut bytes = Vec::new();
    loop {
        match status(&bytes)? {
            Status::Final(status) => return Ok(status),
            Status::Interim(length) => drop(bytes.drain(..length)),
            Status::Partial if bytes.len() >= HEAD_BYTES_MAX => return Err("answered with an endless head".into()),
            Status::Partial => {
                let room = (HEAD_BYTES_MAX - bytes.len()) as u64;
                let read = stream.take(room).read_buf(&mut bytes).await.map_err(|error| describe(&error))?;
                if read == 0 {
                    return Err("closed without an answer".into());
                }
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Status {
    Partial,
    /// The length of the whole head of a 1xx.
    Interim(usize),
    Final(u16),
}

fn status(bytes: &[u8]) -> Checked<Status> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| Failed::from("answered no HTTP"))?;
    // The status is known before its line has ended, but only then it is sure that the line is one.
    Ok(match (response.code, parsed) {
        (Some(100 | 102..=199), httparse::Status::Complete(length)) => Status::Interim(length),
        (Some(100 | 102..=199) | None, _) => Status::Partial,
        (Some(code), _) if response.reason.is_some() => Status::Final(code),
        (Some(_), _) => Status::Partial,
    })
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    health: &Health,
    host: &str,
    within: Within,
) -> Checked<WebSocketStream<S>> {
    // The scheme only has to be one of a WebSocket; what is sent of the URI is its path.
    let request = Request::builder()
        .uri(format!("ws://localhost{}", health.path))
        .header("Host", host)
        .header("User-Agent", USER_AGENT)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .map_err(|error| Failed::from(format!("cannot be asked: {error}")))?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let shaken = async {
        client_async_with_config(request, stream, Some(config)).await.map_err(|error| match error {
            Error::Http(response) => format!("answered {}", response.status().as_u16()).into(),
            error => explain(&error),
        })
    };
    let (socket, _) = within.wait("handshake", shaken).await?;
    Ok(socket)
}

/// Until the pong that answers this ping.
async fn ping(socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>, random: u64) -> Checked<()> {
    let payload = random.to_be_bytes();
    socket.send(Message::Ping(payload.to_vec().into())).await.map_err(|error| explain(&error))?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Pong(answer))) if *answer == payload => return Ok(()),
            Some(Ok(Message::Close(_))) | None => return Err("closed without a pong".into()),
            Some(Ok(_)) => (),
            Some(Err(error)) => return Err(explain(&error)),
        }
    }
}

/// Closes politely, so that the backend's log has nothing to complain about. How that goes is no part of the check.
async fn leave(mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>, within: Within) {
    let goodbye = async {
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    };
    let _ = within.wait("close", goodbye).await;
}

fn explain(error: &Error) -> Failed {
    match error {
        Error::Io(error) => describe(error),
        error => error.to_string().into(),
    }
}

/// As people say it, "connection refused", instead of with its number.
fn describe(error: &io::Error) -> Failed {
    if is_local_exhaustion(error) {
        return Failed::Machine(error.to_string());
    }
    let reason = match error.kind() {
        // Of all that is done here, only the connect to a UNIX socket looks for something by its name.
        ErrorKind::NotFound => "no such socket".into(),
        ErrorKind::Other => error.to_string(),
        kind => match kind.to_string() {
            // What has no kind of its own yet.
            nameless if nameless == "uncategorized error" => error.to_string(),
            name => name,
        },
    };
    Failed::Unwell(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_taken_only_from_a_whole_line() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        for end in 0..text.len() {
            let expected = if end < 17 { Status::Partial } else { Status::Final(200) };
            assert_eq!(status(&text[..end]), Ok(expected), "{end}");
        }
        let interim = b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP";
        assert_eq!(status(&interim[..30]), Ok(Status::Partial));
        assert_eq!(status(interim), Ok(Status::Interim(31)));
    }
}
