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
        let mut pairs = self.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The values of every line of this name that is forwarded. Host is not among them, nor is any other header that is
    /// written anew or meant for us only.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    }

    /// The first cookie of this name (RFC 6265, 4.2), as it came. Case counts.
    pub fn cookie(&self, name: &str) -> Option<&[u8]> {
        self.cookies(name).next()
    }

    /// All of them: a browser sends one for each path and domain that it has heard of, in no order that is to be relied on
    /// (RFC 6265, 5.4).
    pub fn cookies(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let pairs = self.header("Cookie").flat_map(|line| line.split(|&byte| byte == b';'));
        pairs.filter_map(move |pair| {
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

#[cfg(test)]
mod tests {
    use crate::proto::http::HeadLimits;
    use crate::proto::upgrade::{Incoming, Request, request};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, header_bytes_max: 4096, headers_max: 20, target_bytes_max: 256 };

    fn asked(target: &str, host: &str, lines: &[u8]) -> Request {
        let start = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Hop\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        request(&[start.as_bytes(), lines, b"\r\n"].concat(), &LIMITS).and_then(Incoming::into_upgrade).unwrap()
    }

    #[test]
    fn host_names_are_compared_without_port_dot_and_case() {
        for (host, name) in [
            ("a.example", "a.example"),
            ("Chat.EXAMPLE.com.:8080", "chat.example.com"),
            ("a.:80", "a"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(asked("/", host, b"").host_name(), name);
        }
    }

    #[test]
    fn targets_are_a_path_and_perhaps_a_query() {
        let parts = |target| {
            let asked = asked(target, "a", b"");
            (asked.path().to_owned(), asked.query().map(str::to_owned))
        };
        assert_eq!(parts("/a/b"), ("/a/b".into(), None));
        assert_eq!(parts("/a?"), ("/a".into(), Some("".into())));
        assert_eq!(parts("http://a?b?c"), ("/".into(), Some("b?c".into())));
    }

    #[test]
    fn query_values_are_the_first_and_raw() {
        let request = asked("/?room&x=1&room=a%20b=c&room=d&=e&rooms=f", "a", b"");
        assert_eq!(request.query_value("room"), Some("a%20b=c"));
        assert_eq!(request.query_value("rooms"), Some("f"));
        assert_eq!(request.query_value(""), Some("e"));
        assert_eq!(request.query_value("ROOM"), None);
        assert_eq!(asked("/room=1", "a", b"").query_value("room"), None);
        assert_eq!(asked("/?room=", "a", b"").query_value("room"), Some(""));
    }

    #[test]
    fn headers_are_those_that_are_forwarded() {
        let lines = b"X-A: 1\r\nx-a:\t\xfc \r\nX_A: 3\r\nX-Hop: 4\r\nX-Empty:\r\n";
        let request = asked("/", "a", lines);
        assert_eq!(request.header("X-a").collect::<Vec<_>>(), [b"1".as_slice(), b"\xfc"]);
        assert_eq!(request.header("X-Empty").collect::<Vec<_>>(), [b""]);
        for dropped in ["X_A", "X-Hop", "Host", "Upgrade", "Connection"] {
            assert_eq!(request.header(dropped).count(), 0, "{dropped}");
        }
    }

    #[test]
    fn cookies_are_found_in_every_line_by_their_exact_name() {
        let lines = b"Cookie: flag; xsid=0;sid =\"a=b\" ; sid=2\r\ncookie: \xfc=\xff\x80; last = \r\nCookie: sid=3; other=4\r\n";
        let request = asked("/", "a", lines);
        assert_eq!(request.cookie("sid"), Some(b"\"a=b\"".as_slice()));
        assert_eq!(request.cookie("other"), Some(b"4".as_slice()));
        assert_eq!(request.cookie("last"), Some(b"".as_slice()));
        for none in ["SID", "flag", "id", ""] {
            assert_eq!(request.cookie(none), None, "{none}");
        }
        assert_eq!(asked("/", "a", b"Cookie: a=\x80\xff; b=1\r\n").cookie("a"), Some(b"\x80\xff".as_slice()));
    }

    #[test]
    fn subprotocols_are_offered_in_any_line() {
        let request = asked("/", "a", b"Sec-WebSocket-Protocol: chat.v2 , chat\r\nSec-WebSocket-Protocol: other\r\n");
        assert!(["chat", "chat.v2", "other"].iter().all(|name| request.offers_subprotocol(name)));
        assert!(!["chat.v", "Chat", "chat.v2 , chat", ""].iter().any(|name| request.offers_subprotocol(name)));
        assert!(!asked("/", "a", b"").offers_subprotocol("chat"));
    }
}
