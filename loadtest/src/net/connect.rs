//! From an address to an open WebSocket: TCP from a chosen source address, TLS, upgrade.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use url::Url;

use super::link::Link;
use super::{Fault, tls};
use crate::clock::now_ns;
use crate::spec::{RunSpec, TargetSpec};
use crate::wire::handshake::{self, Request};

/// One source address and one target leave about 28,000 ports; beyond this the next address is used.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;

pub struct Connector {
    address: SocketAddr,
    sources: Vec<Ipv4Addr>,
    request: Request,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
    rng: RefCell<fastrand::Rng>,
}

/// An open WebSocket, before anything was sent on it.
pub struct Opened {
    pub link: Rc<Link>,
    /// What came behind the 101.
    pub early: Vec<u8>,
    /// From the first SYN to the end of the 101.
    pub took_ns: u64,
}

impl Connector {
    pub fn new(spec: &RunSpec, seed: u64) -> Result<Connector> {
        let target = &spec.target;
        let url = parse_url(&target.url)?;
        let address = resolve(&url)?;
        let tls = match url.scheme() {
            "wss" => Some((tls::client(target.ca.as_deref(), target.insecure)?, server_name(&url)?)),
            _ => None,
        };
        Ok(Connector {
            address,
            sources: sources(target, address, spec.connections_total),
            request: request(target, &url),
            tls,
            timeout: Duration::from_millis(target.connect_timeout_ms),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `index` chooses the source address; `suffix` is appended to the URL's path.
    pub async fn open(&self, index: u32, suffix: &str) -> Result<Opened, Fault> {
        let start_ns = now_ns();
        let tcp = match timeout(self.timeout, self.tcp(index)).await {
            Ok(result) => result.map_err(Fault::Connect)?,
            Err(_) => return Err(Fault::ConnectTimeout),
        };
        let mut link = Link::from_std(tcp).map_err(Fault::Connect)?;
        if let Some((config, name)) = &self.tls {
            let mut session = rustls::ClientConnection::new(config.clone(), name.clone())
                .map_err(|error| Fault::Tls(error.to_string()))?;
            session.set_buffer_limit(None);
            link = link.with_tls(session.into());
        }
        let link = Rc::new(link);
        let result = match timeout(self.timeout, self.upgrade(&link, suffix)).await {
            Ok(result) => result,
            Err(_) => Err(Fault::ConnectTimeout),
        };
        match result {
            Ok(early) => Ok(Opened { link, early, took_ns: now_ns() - start_ns }),
            Err(fault) => {
                // A pending read would keep the socket open behind our back.
                link.shutdown(std::net::Shutdown::Both);
                Err(fault)
            }
        }
    }

    async fn tcp(&self, index: u32) -> io::Result<std::net::TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if !self.sources.is_empty() {
            let source = self.sources[index as usize % self.sources.len()];
            socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
        }
        socket.connect(self.address).await?.into_std()
    }

    async fn upgrade(&self, link: &Link, suffix: &str) -> Result<Vec<u8>, Fault> {
        link.handshake().await.map_err(Fault::Tls)?;
        let key = handshake::key(&mut self.rng.borrow_mut());
        let head = if suffix.is_empty() {
            self.request.encode(&key)
        } else {
            let path = join_path(&self.request.path, suffix);
            Request { path, ..self.request.clone() }.encode(&key)
        };
        link.write_all(head).await.0.map_err(Fault::Io)?;
        let mut answer = Vec::with_capacity(1024);
        loop {
            if answer.len() == answer.capacity() {
                answer.reserve(answer.capacity());
            }
            let (result, bytes) = link.read(answer).await;
            answer = bytes;
            if result.map_err(Fault::Io)? == 0 {
                return Err(Fault::HandshakeCut);
            }
            if let Some(end) = self.request.check(&key, &answer).map_err(Fault::Handshake)? {
                answer.drain(..end);
                return Ok(answer);
            }
        }
    }
}

pub fn parse_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).with_context(|| format!("{text:?} is not an address"))?;
    if !matches!(url.scheme(), "ws" | "wss") {
        bail!("{text:?} is not a WebSocket address: it must begin with ws:// or wss://");
    }
    if url.fragment().is_some() {
        bail!("{text:?} has a fragment, which a WebSocket address may not have");
    }
    Ok(url)
}

fn resolve(url: &Url) -> Result<SocketAddr> {
    let host = host_without_brackets(url);
    let port = url.port_or_known_default().unwrap_or(80);
    (host.as_str(), port)
        .to_socket_addrs()
        .with_context(|| format!("looking up {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))
}

fn host_without_brackets(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn server_name(url: &Url) -> Result<ServerName<'static>> {
    let host = host_without_brackets(url);
    ServerName::try_from(host.clone()).with_context(|| format!("{host:?} is no name for TLS"))
}

fn request(target: &TargetSpec, url: &Url) -> Request {
    let mut path = url.path().to_owned();
    if let Some(query) = url.query() {
        path += &format!("?{query}");
    }
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut headers = target.headers.clone();
    if !target.cookies.is_empty() {
        headers.push(("Cookie".into(), target.cookies.join("; ")));
    }
    let host = match headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("host")) {
        Some(at) => headers.remove(at).1,
        None => host,
    };
    Request { host, path, subprotocols: target.subprotocols.clone(), headers }
}

/// Appends to the path and leaves the query where it belongs.
fn join_path(path: &str, suffix: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (path, String::new()),
    };
    format!("{}{suffix}{query}", path.trim_end_matches('/'))
}

/// Loopback owns all of 127.0.0.0/8, so a loopback target can be reached from many addresses.
fn sources(target: &TargetSpec, address: SocketAddr, connections: u32) -> Vec<Ipv4Addr> {
    let wanted = match target.source_addresses {
        Some(count) => count,
        None => connections.div_ceil(CONNECTIONS_PER_SOURCE),
    };
    let IpAddr::V4(ip) = address.ip() else {
        return Vec::new();
    };
    if !ip.is_loopback() || wanted <= 1 {
        return Vec::new();
    }
    // 127.0.0.1 is left to everyone else.
    (0..wanted.min(65_000)).map(|i| Ipv4Addr::from(0x7F00_0002 + i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_go_before_the_query() {
        assert_eq!(join_path("/", "/pub/1"), "/pub/1");
        assert_eq!(join_path("/app/?token=x", "/sub/1"), "/app/sub/1?token=x");
    }

    #[test]
    fn only_websocket_addresses_are_taken() {
        assert!(parse_url("ws://[::1]:80/x").is_ok());
        for bad in ["http://a/", "127.0.0.1:80", "ws://a/#b", ""] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
