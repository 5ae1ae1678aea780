//! Grammars that the wire and the configuration share: what no request may have, no route need be asked for.

use std::net::Ipv6Addr;

pub use super::http::is_token;

/// Hop-by-hop (RFC 9110, 7.6.1), or written anew, or of no use behind us.
const NOT_FORWARDED: [&str; 13] = [
    "Connection",
    "Content-Length", // 0 in an upgrade, as was checked; else written anew
    "Expect",         // a 100 is ours to send, and before a 101 nobody waits for one
    "Host",
    "HTTP2-Settings", // RFC 9113, 3.1: belongs to Upgrade: h2c
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// A request's header that is taken out, or written anew, before routes, pools and backends see it.
pub fn is_hop_by_hop(name: &str) -> bool {
    NOT_FORWARDED.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Backends that read headers as CGI variables (RFC 3875, 4.1.18) or as properties fold every character that these cannot
/// have into `_`, the hyphen too: `X_Forwarded_For`, and with some of them `X.Forwarded.For` or `X~Forwarded~For`, could not
/// be told from `X-Forwarded-For`. So a name that goes on has letters, digits and hyphens.
pub fn is_folded(name: &str) -> bool {
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Headers that say where a message goes, what it opens or where it ends. Routes may not edit them.
pub fn is_of_the_handshake(name: &str) -> bool {
    const PROTECTED: [&str; 5] = ["Connection", "Content-Length", "Host", "Transfer-Encoding", "Upgrade"];
    PROTECTED.iter().any(|other| other.eq_ignore_ascii_case(name))
        || name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("Sec-WebSocket-"))
}

/// RFC 6265, 4.1.1, cookie-octet: visible ASCII without quotes, commas, semicolons and backslashes.
pub fn is_cookie_value(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte))
}

/// RFC 1035, 2.3.4: 63 octets of a label, 255 of a name, which are two more on the wire than in a text.
pub const LABEL_BYTES_MAX: usize = 63;
pub const NAME_BYTES_MAX: usize = 253;

/// A name without a dot at its end, an IPv4 address, or an IPv6 address in brackets; no port. Narrower than RFC 3986, 3.2.2:
/// no percent-encoding, no punctuation that no host name has, and no more than DNS allows.
pub fn is_host(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label),
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~'))
}

/// What of a path two readers may take for two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    BrokenEscape,
    EncodedNul,
    TwoSlashes,
    EncodedSlash,
    DotSegment,
}

/// Escapes that no two readers agree on, whatever the path is for.
pub fn bad_escape(path: &str) -> Option<PathFault> {
    path.split('%').skip(1).find_map(|escape| match escape.as_bytes().get(..2) {
        Some(b"00") => Some(PathFault::EncodedNul),
        Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => None,
        _ => Some(PathFault::BrokenEscape),
    })
}

/// What of this path a backend may read as another path than the one that routes see: slashes that are encoded or stand twice
/// at the beginning, and dot segments.
pub fn ambiguity(path: &str) -> Option<PathFault> {
    let is_slash = |escape: &str| {
        escape.get(..2).is_some_and(|digits| ["2f", "5c"].iter().any(|slash| slash.eq_ignore_ascii_case(digits)))
    };
    if path.starts_with("//") {
        Some(PathFault::TwoSlashes)
    } else if path.split('%').skip(1).any(is_slash) {
        Some(PathFault::EncodedSlash)
    } else if path.split('/').any(is_dot_segment) {
        Some(PathFault::DotSegment)
    } else {
        None
    }
}

/// `.` and `..`, also percent-encoded, and also with parameters behind them: some servers drop `;x` first.
fn is_dot_segment(segment: &str) -> bool {
    let mut name = segment.split(';').next().unwrap_or_default();
    let mut dots = 0;
    while let Some(rest) = [".", "%2e", "%2E"].iter().find_map(|dot| name.strip_prefix(dot)) {
        name = rest;
        dots += 1;
    }
    name.is_empty() && (1..=2).contains(&dots)
}
