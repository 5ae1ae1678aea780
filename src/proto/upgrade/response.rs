//! Is the backend's answer the right one for this client (RFC 6455, 4.1)? If it is no upgrade, it is rebuilt for the client,
//! whose connection ends with it; so is every answer to a request that is none.

use crate::proto::http::{Body, Connection, Fields, HeadKind, HeadLimits, Rejection, head_end};

use super::Offer;
use super::extensions::{self, Deflate};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A 1xx other than 101: not the last word.
    Informational,
    /// A 101, right in every point: the client gets it as it came, or `mended` where a strict client would stumble over it.
    Switched { agreement: Agreement, mended: Option<Vec<u8>> },
    /// No upgrade. `head` is what the client gets, then the body follows, as it comes.
    Response { status: u16, head: Vec<u8>, body: Body },
}

/// Why an answer is no right one. Every fault is a 502 for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Whoever had asked.
    Answer(Rejection),
    /// Client and backend read the client's offer in two ways: another client's offer would have done no harm.
    Agreement(Rejection),
}

impl From<Rejection> for Wrong {
    fn from(fault: Rejection) -> Self {
        Wrong::Answer(fault)
    }
}

impl Wrong {
    pub fn fault(&self) -> &Rejection {
        match self {
            Wrong::Answer(fault) | Wrong::Agreement(fault) => fault,
        }
    }
}

/// What client and backend agreed on, as far as it changes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub deflate: bool,
}

/// Holds a head that [`head_end`] has found, and exactly that, against the offer.
pub fn answer(head: &[u8], offer: &Offer, limits: &HeadLimits) -> Result<Answer, Wrong> {
    let received = Received::of(head, limits)?;
    match received.line.status {
        101 => {
            let agreement = switched(&received.line, &received.fields, &received.connection, offer)?;
            Ok(Answer::Switched { agreement, mended: mended(head, &received.fields) })
        }
        100..=199 => Ok(Answer::Informational),
        _ => Ok(received.response("GET", false)?),
    }
}

/// The same for the answer to a request that is no upgrade, and has this method. For a client of HTTP/1.0 the head speaks of
/// no chunks: the body is unchunked on its way.
pub fn plain_answer(head: &[u8], method: &str, is_http10: bool, limits: &HeadLimits) -> Result<Answer, Rejection> {
    let received = Received::of(head, limits)?;
    match received.line.status {
        // RFC 9110, 7.8: "A server MUST NOT switch to a protocol that was not indicated by the client".
        101 => Err(Rejection::backend("is a 101 to a request that is no upgrade")),
        100..=199 => Ok(Answer::Informational),
        _ => received.response(method, is_http10),
    }
}

struct Received<'a> {
    line: StatusLine<'a>,
    fields: Fields<'a>,
    connection: Connection<'a>,
}

impl<'a> Received<'a> {
    fn of(head: &'a [u8], limits: &HeadLimits) -> Result<Self, Rejection> {
        if head_end(head, 0, HeadKind::Response, limits)? != Some(head.len()) {
            return Err(Rejection::backend("has a head with more than one end, or none"));
        }
        let fields = Fields::of(head, HeadKind::Response, limits)?;
        let line = StatusLine::of(head);
        if !matches!(line.version, b"HTTP/1.1" | b"HTTP/1.0") {
            return Err(Rejection::backend("is neither HTTP/1.1 nor HTTP/1.0"));
        }
        // RFC 9110, 15: "Values outside the range 100..599 are invalid."
        if !(100..=599).contains(&line.status) {
            return Err(Rejection::backend("has a status that does not exist"));
        }
        let connection = fields.connection();
        let connection =
            connection.ok_or_else(|| Rejection::backend("has a Connection header with too many options"))?;
        Ok(Received { line, fields, connection })
    }

    /// A last word: the head for the client, and where the body ends.
    fn response(&self, method: &str, is_http10: bool) -> Result<Answer, Rejection> {
        let body = body(&self.line, &self.fields, method)?;
        let head = rebuilt(&self.line, &self.fields, &self.connection, body, is_http10);
        Ok(Answer::Response { status: self.line.status, head, body })
    }
}

/// A status line that `head_end` has checked.
struct StatusLine<'a> {
    version: &'a [u8],
    status: u16,
    reason: &'a [u8],
}

impl<'a> StatusLine<'a> {
    fn of(head: &'a [u8]) -> Self {
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let status = line[9..12].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        StatusLine { version: &line[..8], status, reason: line.get(13..).unwrap_or_default() }
    }
}

fn switched(
    line: &StatusLine<'_>,
    fields: &Fields<'_>,
    connection: &Connection<'_>,
    offer: &Offer,
) -> Result<Agreement, Wrong> {
    let wrong = |what| Err(Wrong::Answer(Rejection::backend(what)));
    if line.version != b"HTTP/1.1" {
        return wrong("is a 101 in HTTP/1.0");
    }
    // RFC 9110, 8.6 and RFC 9112, 6.1: neither may be in a 1xx, and a client that believed them would lose frames. Of no
    // length at all, as some frameworks put on every answer, nothing can be lost; it is left out.
    if fields.all("Content-Length").any(|length| length != b"0") || fields.has("Transfer-Encoding") {
        return wrong("is a 101 with a body");
    }
    let mut protocols = fields.elements("Upgrade");
    let is_websocket = protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if !is_websocket || protocols.next().is_some() {
        return wrong("is a 101 whose Upgrade is not websocket");
    }
    if !connection.lists("upgrade") {
        return wrong("is a 101 whose Connection does not list upgrade");
    }
    if fields.only("Sec-WebSocket-Accept") != Some(&offer.accept) {
        return wrong("is a 101 whose Sec-WebSocket-Accept does not belong to the key");
    }
    if fields.has("Sec-WebSocket-Protocol") && !is_offered(fields.only("Sec-WebSocket-Protocol"), offer) {
        let what = "is a 101 with a subprotocol that was not offered, or several";
        return Err(Wrong::Agreement(Rejection::backend(what)));
    }
    Ok(Agreement { deflate: deflate(fields, offer)? })
}

/// A right 101 without what is right only for those who read leniently: a `Content-Length: 0`, and a status line that ends
/// behind the code. `None`: there is nothing of the kind.
fn mended(head: &[u8], fields: &Fields<'_>) -> Option<Vec<u8>> {
    let mut lines = head.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let is_bare = first.len() == b"HTTP/1.1 101\r\n".len();
    if !is_bare && !fields.has("Content-Length") {
        return None;
    }
    let mut mended = Vec::with_capacity(head.len() + 1);
    mended.extend_from_slice(if is_bare { b"HTTP/1.1 101 \r\n" } else { first });
    let is_length = |line: &&[u8]| {
        line.split(|&byte| byte == b':').next().is_some_and(|name| name.eq_ignore_ascii_case(b"Content-Length"))
    };
    lines.filter(|line| !is_length(line)).for_each(|line| mended.extend_from_slice(line));
    Some(mended)
}

/// RFC 6455, 4.1: "if ... the value is not present in the client's handshake ... MUST Fail". Case counts.
fn is_offered(subprotocol: Option<&[u8]>, offer: &Offer) -> bool {
    subprotocol.is_some_and(|chosen| {
        !chosen.is_empty() && offer.subprotocols.split(',').any(|offered| offered.as_bytes() == chosen)
    })
}

/// Whether permessage-deflate was agreed on. Anything else in the answer's extensions is a fault.
fn deflate(fields: &Fields<'_>, offer: &Offer) -> Result<bool, Wrong> {
    if !fields.has("Sec-WebSocket-Extensions") {
        return Ok(false);
    }
    let mut extensions = fields.all("Sec-WebSocket-Extensions").flat_map(extensions::elements);
    let agreed = extensions.next().and_then(Deflate::answer);
    match agreed {
        Some(agreed) if extensions.next().is_none() && offer.deflate.iter().any(|offer| offer.allows(&agreed)) => {
            Ok(true)
        }
        _ => Err(Wrong::Agreement(Rejection::backend("is a 101 with extensions that were not offered like this"))),
    }
}

/// RFC 9112, 6.3.
fn body(line: &StatusLine<'_>, fields: &Fields<'_>, method: &str) -> Result<Body, Rejection> {
    let framed = Body::framed(fields, HeadKind::Response, line.version)?;
    match line.status {
        204 | 304 => Ok(Body::None),
        _ if method == "HEAD" => Ok(Body::None),
        _ => Ok(framed.unwrap_or(Body::UntilClose)),
    }
}

/// The head for the client: ours in version and connection, the backend's in everything else.
fn rebuilt(
    line: &StatusLine<'_>,
    fields: &Fields<'_>,
    connection: &Connection<'_>,
    body: Body,
    is_http10: bool,
) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} ", line.status).into_bytes();
    head.extend_from_slice(line.reason);
    head.extend_from_slice(b"\r\n");
    // RFC 9110, 15.5.22: a 426 "MUST send an Upgrade header field", and 7.8: with it the connection option.
    let upgrade = line.status == 426 && fields.has("Upgrade");
    for header in fields.iter() {
        let name = header.name;
        let is_framing = name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("Transfer-Encoding");
        let keep = match is_framing {
            // Without a body it is the length that the body would have, but for a 204 (RFC 9110, 8.6).
            // RFC 9112, 6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding
            // request indicates HTTP/1.1 (or later minor revisions)."
            true if is_http10 && name.eq_ignore_ascii_case("Transfer-Encoding") => false,
            true => body != Body::None || line.status != 204 && name.eq_ignore_ascii_case("Content-Length"),
            false if name.eq_ignore_ascii_case("Upgrade") => upgrade,
            false => !HOP_BY_HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name)) && !connection.lists(name),
        };
        if keep {
            for part in [name.as_bytes(), b": ", header.value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
    }
    head.extend_from_slice(if upgrade { b"Connection: close, Upgrade\r\n\r\n" } else { b"Connection: close\r\n\r\n" });
    head
}

/// RFC 9110, 7.6.1. Framing headers are not among them: the body goes on as it is, chunks and all.
const HOP_BY_HOP: [&str; 6] = ["Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "TE", "Trailer"];
