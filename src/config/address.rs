//! Addresses as people write them: `192.0.2.1:8080`, `[2001:db8::1]:8080`, `unix:/run/chat.sock`, and for backends a
//! name with a port, which is looked up once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::text;

/// `sun_path` has 108 bytes, and the kernel wants the last one for the NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where to listen or to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `192.0.2.1:8080` or `[2001:db8::1]:8080`
    Inet(SocketAddr),
    /// `unix:/run/chat.sock`
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => unix(path),
            None => text.parse().map(Address::Inet).map_err(|_| {
                format!("\"{text}\" is not an address; write it as 192.0.2.1:8080, [2001:db8::1]:8080 or unix:/path")
            }),
        }
    }
}

impl Address {
    /// Would a connection to `self` reach a listener on `listener`? Then a backend of that address is ourselves.
    pub(crate) fn reaches(&self, listener: &Address) -> bool {
        match (self, listener) {
            (Address::Inet(to), Address::Inet(on)) => {
                // The kernel takes "no address" as the loopback one.
                let to_ip = match to.ip().to_canonical() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                let loopback = to_ip.is_loopback() && on.ip().is_unspecified() && to_ip.is_ipv4() == on.is_ipv4();
                to.port() == on.port() && (to_ip == on.ip().to_canonical() || loopback)
            }
            (to, on) => to == on,
        }
    }
}

fn unix(path: &str) -> Result<Address, String> {
    if path.is_empty() || path.contains('\0') {
        return Err("\"unix:\" needs the path of a socket, as in unix:/run/chat.sock".into());
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("the path has {} bytes; a socket's may have {UNIX_PATH_BYTES_MAX}", path.len()));
    }
    Ok(Address::Unix(Path::new(path).to_path_buf()))
}

/// A backend as it is written: an address, or a name that is still to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(Address),
    Name { host: String, port: u16 },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = match (text.parse::<Address>(), text::split_name(text)) {
            (Ok(address), _) => Target::Address(address),
            (Err(_), Some((name, port))) => {
                text::dns_name(name)?;
                Target::Name { host: name.into(), port }
            }
            (Err(fault), None) if text.starts_with("unix:") => return Err(fault),
            (Err(_), None) => {
                return Err(format!(
                    "\"{text}\" is not a backend; write it as 192.0.2.1:9000, [2001:db8::1]:9000, name:9000 or unix:/path"
                ));
            }
        };
        match &target {
            Target::Address(Address::Inet(address)) if address.port() == 0 => {
                Err("port 0 cannot be connected to".into())
            }
            Target::Name { port: 0, .. } => Err("port 0 cannot be connected to".into()),
            _ => Ok(target),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Target {
    /// The addresses behind it, in the resolver's order. A name may block on DNS: for the time before the start.
    pub(super) fn resolve(&self) -> Result<Vec<Address>, String> {
        match self {
            Target::Address(address) => Ok(vec![address.clone()]),
            Target::Name { host, port } => match (host.as_str(), *port).to_socket_addrs() {
                Ok(found) => {
                    let mut addresses = Vec::new();
                    for address in found.map(Address::Inet) {
                        if !addresses.contains(&address) {
                            addresses.push(address);
                        }
                    }
                    Ok(addresses)
                }
                Err(error) => Err(format!("\"{host}\" cannot be resolved: {error}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_written() {
        for text in ["127.0.0.1:8080", "[::1]:80", "[fe80::1%3]:80", "unix:/run/chat.sock", "0.0.0.0:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "8080", ":8080", "127.0.0.1", "::1:80", "[::1]", "127.0.0.1:65536", "localhost:80", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert!(format!("unix:/{}", "x".repeat(106)).parse::<Address>().is_ok());
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<Address>().unwrap_err().contains("108 bytes"));
    }

    #[test]
    fn backends_may_be_names() {
        assert_eq!("chat_1.local:9000".parse(), Ok(Target::Name { host: "chat_1.local".into(), port: 9000 }));
        for text in
            ["", "chat", "chat:", "chat:0", "chat:+80", "chat:70000", "10.0.0:80", "a b:80", "1.2.3.4:0", "[::1]:0"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert_eq!("chat.:80".parse(), Ok(Target::Name { host: "chat.".into(), port: 80 }));
        // Told when they are read, not when they are looked up.
        for (name, fault) in [("a..b", "has nothing between two dots"), (&"x".repeat(64), "has a label of 64 bytes")] {
            let found = format!("{name}:80").parse::<Target>().unwrap_err();
            assert!(found.contains(fault), "{found}");
        }
    }

    #[test]
    fn a_name_gives_every_address_once() {
        let found = "localhost:9000".parse::<Target>().unwrap().resolve().unwrap();
        assert!(found.contains(&Address::Inet(([127, 0, 0, 1], 9000).into())) || found.len() == 1, "{found:?}");
    }

    #[test]
    fn a_name_that_is_nobodys_is_a_fault() {
        // A label of 64 letters is refused before anyone is asked, so that this needs no network.
        let host = "x".repeat(64);
        let fault = Target::Name { host: host.clone(), port: 80 }.resolve().unwrap_err();
        assert!(fault.starts_with(&format!("\"{host}\" cannot be resolved: ")), "{fault}");
    }

    #[test]
    fn a_loop_is_seen() {
        let reaches = |to: &str, on: &str| to.parse::<Address>().unwrap().reaches(&on.parse().unwrap());
        assert!(reaches("127.0.0.1:80", "127.0.0.1:80"));
        assert!(reaches("127.0.0.1:80", "0.0.0.0:80") && reaches("[::1]:80", "[::]:80"));
        assert!(reaches("127.0.0.1:80", "[::ffff:127.0.0.1]:80"));
        assert!(!reaches("127.0.0.1:81", "0.0.0.0:80") && !reaches("10.0.0.1:80", "0.0.0.0:80"));
        // Listeners on IPv6 take no IPv4.
        assert!(!reaches("127.0.0.1:80", "[::]:80") && !reaches("[::1]:80", "0.0.0.0:80"));
        assert!(reaches("[::ffff:127.0.0.1]:80", "0.0.0.0:80"));
        // Where connections to no address go.
        assert!(reaches("0.0.0.0:80", "127.0.0.1:80") && reaches("0.0.0.0:80", "0.0.0.0:80"));
        assert!(
            reaches("[::]:80", "[::1]:80")
                && reaches("[::]:80", "[::]:80")
                && reaches("[::ffff:0.0.0.0]:80", "0.0.0.0:80")
        );
        assert!(!reaches("0.0.0.0:80", "10.0.0.1:80") && !reaches("0.0.0.0:80", "[::1]:80"));
        assert!(reaches("unix:/a", "unix:/a") && !reaches("unix:/a", "unix:/b"));
    }
}
