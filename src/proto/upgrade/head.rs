//! What every request has that is forwarded, upgrade or not: where it goes and what it says. Routes are chosen by this.

use std::borrow::Cow;

use crate::proto::http::trim;

use super::lines::Lines;
use super::target::Host;

#[derive(Clone, Debug)]
pub struct Head {
    /// As the client spelled it: a name or an address, and perhaps a port.
    pub host: Box<str>,
    /// Path and query, as they are forwarded.
    pub target: Box<str>,
    pub(super) lines: Lines,
}

impl Head {
    /// The host in lower case, without a port and without the dot that may end a name.
    pub fn host_name(&self) -> Cow<'_, str> {
        let name = Host::parse(self.host.as_bytes()).map_or(&*self.host, |host| host.name);
        let name = name.strip_suffix('.').unwrap_or(name);
        match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        }
    }

    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The value of the first `name=value` in the query. Nothing is decoded.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        let pairs = self.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The values of every line of this name that is forwarded. Host is not among them, nor is any other header that is
    /// written anew or meant for us only.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    }

    /// The first cookie of this name (RFC 6265, 4.2), as it came. Case counts.
    pub fn cookie(&self, name: &str) -> Option<&[u8]> {
        let pairs = self.header("Cookie").flat_map(|line| line.split(|&byte| byte == b';'));
        pairs.into_iter().find_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            (trim(&pair[..equals]) == name.as_bytes()).then(|| trim(&pair[equals + 1..]))
        })
    }

    /// Case counts (RFC 6455, 4.1).
    pub fn offers_subprotocol(&self, name: &str) -> bool {
        let mut offers = self.header("Sec-WebSocket-Protocol").flat_map(|line| line.split(|&byte| byte == b','));
        offers.any(|offer| trim(offer) == name.as_bytes())
    }
}
