//! HTTP/1.1 heads (RFC 9112): where one ends, what cannot be one, its fields, its body, and what a peer is told that
//! sent a wrong one.
//!
//! Strict on purpose: whatever two parsers could read in two ways is refused, not mended. httparse splits the fields;
//! everything that it accepts and a relay must not is checked here and in [`upgrade`](super::upgrade).

mod body;
mod fields;
mod rejection;

pub use body::{Body, Chunked};
pub use fields::is_token;
pub(super) use fields::{Connection, Fields, trim};
pub use rejection::{Rejection, Status};

/// What a head may be at most. All counts are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, from the start line to the empty line.
    pub head_bytes_max: usize,
    /// One header line of a request, without its end: some backends' libraries hang up on longer ones.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub target_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// From a client: faults are 4xx and 505.
    Request,
    /// From a backend: every fault is a 502 for the client.
    Response,
}

impl HeadKind {
    /// A sentence about the peer that sent the head. `status` is what a client hears about its own request.
    pub(super) fn fault(self, status: Status, what: &str) -> Rejection {
        match self {
            HeadKind::Request => Rejection::request(status, what),
            HeadKind::Response => Rejection::backend(what),
        }
    }
}

/// Longer than any registered method (RFC 9110, 16.1): what goes on beyond it is no HTTP.
const METHOD_BYTES_MAX: usize = 24;

const CRLFCRLF: &[u8] = b"\r\n\r\n";

/// Finds the end of the head: the index behind its empty line, or `None` as long as more is needed. Refuses as soon as
/// it is certain that this can never become a head, so that nobody has to wait for a deadline.
///
/// `searched` says how many of these bytes earlier calls have seen and found nothing in; the verdict is the same at
/// every split.
pub fn head_end(
    bytes: &[u8],
    searched: usize,
    kind: HeadKind,
    limits: &HeadLimits,
) -> Result<Option<usize>, Rejection> {
    let seen = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let start_line = &seen[..seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(seen.len())];
    if searched <= start_line.len() {
        let ended = start_line.len() < seen.len();
        match kind {
            HeadKind::Request => check_request_line(start_line, ended, limits)?,
            HeadKind::Response => check_status_line(start_line, ended)?,
        }
    }

    let mut at = searched.max(start_line.len()).min(seen.len());
    if at > 0 && seen[at - 1] == b'\r' {
        at -= 1; // what follows it had not come yet
    }
    while let Some(plain) = seen[at..].iter().position(|&byte| !is(FIELD, byte)) {
        at += plain;
        match &seen[at..] {
            [b'\r'] => break,
            [b'\r', b'\n', ..] => at += 2,
            // RFC 9112, 2.2: a recipient of a bare CR "MUST consider that element to be invalid or replace" it.
            [b'\r', ..] => return Err(kind.fault(Status::BadRequest, "has a CR that is not followed by LF")),
            [b'\n', ..] => return Err(kind.fault(Status::BadRequest, "has a line that ends without CR")),
            _ => return Err(kind.fault(Status::BadRequest, "has a control byte in its head")),
        }
        if seen[..at].ends_with(CRLFCRLF) {
            return Ok(Some(at));
        }
    }
    if bytes.len() >= limits.head_bytes_max {
        return Err(kind
            .fault(Status::HeaderFieldsTooLarge, &format!("has a head of more than {} bytes", limits.head_bytes_max)));
    }
    Ok(None)
}

/// A request line as far as it has come: a method, a target and `HTTP/1.x`, one space between them (RFC 9112, 3).
/// An empty line before it is refused too: that courtesy (RFC 9112, 2.2) is for clients that send a second request.
fn check_request_line(line: &[u8], ended: bool, limits: &HeadLimits) -> Result<(), Rejection> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let method = parts.next().unwrap_or_default();
    let target = parts.next();
    if is_tls(method) {
        return Err(Rejection::request(Status::BadRequest, "is TLS, and this port speaks plain HTTP"));
    }
    let no_method = method.is_empty() && (ended || target.is_some());
    if no_method || method.len() > METHOD_BYTES_MAX || !method.iter().all(|&byte| is(TOKEN, byte)) {
        return Err(Rejection::request(Status::BadRequest, "does not start with an HTTP request line"));
    }

    let version = parts.next();
    if let Some(target) = target {
        let within = &target[..target.len().min(limits.target_bytes_max)];
        let (path, query) = within.split_at(within.iter().position(|&byte| byte == b'?').unwrap_or(within.len()));
        if !path.iter().all(|&byte| is(TARGET, byte)) || !query.iter().all(|&byte| is(QUERY, byte)) {
            return Err(Rejection::request(Status::BadRequest, "has a byte in its target that no URI may have"));
        }
        if within.len() < target.len() {
            return Err(Rejection::request(
                Status::UriTooLong,
                &format!("has a target of more than {} bytes", limits.target_bytes_max),
            ));
        }
        if target.is_empty() && (ended || version.is_some()) {
            return Err(Rejection::request(Status::BadRequest, "has an empty target"));
        }
    }

    let version = version.unwrap_or_default();
    if version.starts_with(b"HTTP/") && version.get(5).is_some_and(|major| major.is_ascii_digit() && *major != b'1') {
        return Err(Rejection::request(Status::VersionNotSupported, "is not HTTP/1.1"));
    }
    if !follows(version, b"HTTP/9.9") || version.len() > 8 || (ended && version.len() < 8) {
        return Err(Rejection::request(Status::BadRequest, "has no HTTP version at the end of its first line"));
    }
    Ok(())
}

/// A status line as far as it has come. RFC 9112, 4, wants a space behind the code even without a reason, but backends
/// leave it out, and "a client SHOULD ignore the reason-phrase content": without the space there is none.
fn check_status_line(line: &[u8], ended: bool) -> Result<(), Rejection> {
    const START: &[u8] = b"HTTP/1.9 999 ";
    const CODE_END: usize = START.len() - 1;
    if is_tls(line) {
        return Err(Rejection::backend("is TLS, and plain HTTP is spoken with it"));
    }
    if !follows(line, START) || (ended && line.len() < CODE_END) {
        return Err(Rejection::backend("does not start with an HTTP/1.1 status line"));
    }
    match line.iter().all(|&byte| is(FIELD, byte)) {
        true => Ok(()),
        false => Err(Rejection::backend("has a control byte in its head")),
    }
}

/// The content types of TLS alerts and handshakes (RFC 8446, 5.1), which no HTTP message starts with.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x15 | 0x16))
}

/// Whether `bytes` match the pattern as far as both go; `9` stands for any digit.
fn follows(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes.iter().zip(pattern).all(|(byte, want)| if *want == b'9' { byte.is_ascii_digit() } else { byte == want })
}

/// tchar (RFC 9110, 5.6.2): methods, field names, tokens.
const TOKEN: u8 = 1;
/// What a request target may consist of. RFC 3986 has no place for `" < > \ ^ { | }`, the backtick and bytes beyond
/// ASCII; `#` starts a fragment, which is never sent (RFC 9112, 3.2).
const TARGET: u8 = 2;
/// The same behind the `?`, where browsers leave some of these as they are (WHATWG URL, query percent-encode set).
const QUERY: u8 = 8;
/// What a line of the head may consist of (RFC 9110, 5.5): visible characters, space, tab and obs-text.
const FIELD: u8 = 4;

fn is(class: u8, byte: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || contains(b"!#$%&'*+-.^_`|~", b) {
            classes[byte] |= TOKEN;
        }
        if b.is_ascii_graphic() && !contains(b"\"#<>\\^`{|}", b) {
            classes[byte] |= TARGET;
        }
        if b.is_ascii_graphic() && !contains(b"\"#<>", b) {
            classes[byte] |= QUERY;
        }
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            classes[byte] |= FIELD;
        }
        byte += 1;
    }
    classes
};

const fn contains(bytes: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests;
