//! Is this a valid upgrade, or another request that may pass? Everything that another parser might read differently is
//! refused, before anything else is looked at.

use std::ops::Deref;

use crate::proto::http::{Connection, Fields, HeadKind, HeadLimits, Rejection, Status, head_end, is_token, trim};

use super::edit::Edit;
use super::extensions::{self, Deflate};
use super::head::Head;
use super::lines::Lines;
use super::plain::PlainRequest;
use super::response::{Answer, Wrong, answer, plain_answer};
use super::target::{Host, origin_form};
use super::{Offer, accept, is_key};

/// A checked upgrade request, ready to be forwarded.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub offer: Offer,
}

impl Deref for Request {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Incoming {
    Upgrade(Request),
    /// No upgrade at all, and what its sender hears where those are refused.
    Plain(PlainRequest, Rejection),
}

impl Incoming {
    pub fn head(&self) -> &Head {
        match self {
            Incoming::Upgrade(request) => request,
            Incoming::Plain(request, _) => request,
        }
    }

    /// The whole head for the backend. `target` stands in place of the client's.
    pub fn forward(&self, edits: &[Edit<'_>], target: Option<&str>) -> Vec<u8> {
        match self {
            Incoming::Upgrade(request) => request.forward(edits, target),
            Incoming::Plain(request, _) => request.forward(edits, target),
        }
    }

    /// What the backend's answer, a head that [`head_end`] has found, means for this request.
    pub fn answer(&self, head: &[u8], limits: &HeadLimits) -> Result<Answer, Wrong> {
        match self {
            Incoming::Upgrade(request) => answer(head, &request.offer, limits),
            Incoming::Plain(request, _) => Ok(plain_answer(head, request.method, request.is_http10, limits)?),
        }
    }

    /// Where only upgrades are served.
    pub fn into_upgrade(self) -> Result<Request, Rejection> {
        match self {
            Incoming::Upgrade(request) => Ok(request),
            Incoming::Plain(_, fault) => Err(fault),
        }
    }
}

/// Checks a head that [`head_end`] has found, and exactly that.
///
/// Whoever names websocket in Upgrade wants an upgrade, and what is wrong with it is what they hear.
pub fn request(head: &[u8], limits: &HeadLimits) -> Result<Incoming, Rejection> {
    // Again, though the caller has been there: the checks below stand on it, and a head is read once per connection.
    if head_end(head, 0, HeadKind::Request, limits)? != Some(head.len()) {
        return Err(Rejection::request(Status::BadRequest, "has a head with more than one end, or none"));
    }
    let fields = Fields::of(head, HeadKind::Request, limits)?;
    let line = RequestLine::of(head);
    match Request::of(&line, &fields) {
        Ok(request) => Ok(Incoming::Upgrade(request)),
        Err(fault) if names_websocket(&fields) => Err(fault),
        Err(fault) => Ok(Incoming::Plain(PlainRequest::of(&line, &fields)?, fault)),
    }
}

impl Request {
    /// The order is that of certainty: what is no HTTP, or two requests to two readers, is a 400 whatever else it says;
    /// then the method and the version; then what the upgrade itself needs.
    fn of(line: &RequestLine<'_>, fields: &Fields<'_>) -> Result<Request, Rejection> {
        check_framing(fields)?;
        if line.method != b"GET" {
            return Err(Rejection::request(Status::MethodNotAllowed, "has a method other than GET"));
        }
        // RFC 9110, 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
        line.check_version()?;
        if fields.only("Content-Length").is_some_and(|length| length != b"0") {
            return Err(Rejection::request(Status::BadRequest, "has a body, which an upgrade cannot have"));
        }

        let host = host(fields)?;
        let target = origin_form(line.target, &host)?;
        let connection = check_upgrade(fields)?;
        check_version(fields)?;
        let key = fields.only("Sec-WebSocket-Key").filter(|key| is_key(key));
        let key = key.ok_or_else(|| {
            Rejection::request(Status::BadRequest, "has no Sec-WebSocket-Key that is base64 of 16 bytes, or several")
        })?;
        let offer = Offer { accept: accept(key), subprotocols: subprotocols(fields)?, deflate: deflate(fields) };
        Ok(Request { head: Head { host: host.text.into(), target, lines: Lines::of(fields, &connection) }, offer })
    }
}

/// The three parts of a request line that [`head_end`] has checked.
pub(super) struct RequestLine<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub version: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn of(head: &'a [u8]) -> Self {
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let mut part = || parts.next().unwrap_or_default();
        RequestLine { method: part(), target: part(), version: part() }
    }

    pub fn check_version(&self) -> Result<(), Rejection> {
        match self.version {
            b"HTTP/1.1" => Ok(()),
            _ => Err(Rejection::request(Status::VersionNotSupported, "is not HTTP/1.1")),
        }
    }
}

/// Also `websocket/13`, which is wrong, but meant.
fn names_websocket(fields: &Fields<'_>) -> bool {
    let mut names = fields.elements("Upgrade").filter_map(|protocol| protocol.split(|&byte| byte == b'/').next());
    names.any(|name| trim(name).eq_ignore_ascii_case(b"websocket"))
}

/// Nothing that two readers could frame in two ways (RFC 9112, 6.3 and 11.2). Whether there is a body is asked later.
fn check_framing(fields: &Fields<'_>) -> Result<(), Rejection> {
    if fields.has("Transfer-Encoding") {
        return Err(Rejection::request(Status::BadRequest, "has a Transfer-Encoding, which an upgrade cannot have"));
    }
    let length = fields.only("Content-Length");
    let is_number = length.is_some_and(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit));
    if fields.has("Content-Length") && !is_number {
        return Err(Rejection::request(Status::BadRequest, "has a Content-Length that is not one number"));
    }
    Ok(())
}

/// RFC 9112, 3.2: "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header
/// field and to any request message that contains more than one Host header field line or a Host header field with an
/// invalid field value."
pub(super) fn host<'a>(fields: &Fields<'a>) -> Result<Host<'a>, Rejection> {
    let value =
        fields.only("Host").ok_or_else(|| Rejection::request(Status::BadRequest, "has no Host header, or several"))?;
    Host::parse(value)
        .ok_or_else(|| Rejection::request(Status::BadRequest, "has a Host that is not a name or an address"))
}

/// `Upgrade` and `Connection` (RFC 6455, 4.2.1, 3 and 4).
fn check_upgrade<'a>(fields: &Fields<'a>) -> Result<Connection<'a>, Rejection> {
    let mut protocols = fields.elements("Upgrade");
    let protocol = protocols.next();
    // RFC 9110, 7.8 has a list here, in order of preference. Only we could choose from it, and there is but one choice.
    if protocols.next().is_some() {
        return Err(Rejection::request(Status::BadRequest, "asks for more than one protocol in its Upgrade header"));
    }
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        return Err(Rejection::request(
            Status::UpgradeRequired,
            "is no WebSocket upgrade: its Upgrade header is not websocket",
        ));
    }
    let connection = connection(fields)?;
    if !connection.lists("upgrade") {
        return Err(Rejection::request(Status::BadRequest, "has no Connection header with the option upgrade"));
    }
    // What Connection names is removed on the way. These may not be, and nobody means it honestly.
    let is_needed = |name: &[u8]| {
        let name = name.to_ascii_lowercase();
        name == b"host" || name.starts_with(b"sec-websocket-")
    };
    if connection.iter().any(is_needed) {
        return Err(Rejection::request(Status::BadRequest, "names a header in Connection that the upgrade needs"));
    }
    Ok(connection)
}

pub(super) fn connection<'a>(fields: &Fields<'a>) -> Result<Connection<'a>, Rejection> {
    fields
        .connection()
        .ok_or_else(|| Rejection::request(Status::BadRequest, "has a Connection header with too many options"))
}

/// RFC 6455, 4.4: "the server MUST respond with ... HTTP response code (such as 426 Upgrade Required)" and the version it
/// can speak.
fn check_version(fields: &Fields<'_>) -> Result<(), Rejection> {
    match fields.only("Sec-WebSocket-Version") {
        Some(b"13") => Ok(()),
        _ => Err(Rejection::request(Status::UpgradeRequired, "has a Sec-WebSocket-Version other than 13, or none")),
    }
}

/// RFC 6455, 4.1: "non-empty strings with characters in the range U+0021 to U+007E not including separator characters
/// ... and MUST all be unique strings."
fn subprotocols(fields: &Fields<'_>) -> Result<Box<str>, Rejection> {
    const SUBPROTOCOLS_MAX: usize = 100;
    let mut tokens: Vec<&str> = Vec::new();
    for element in fields.elements("Sec-WebSocket-Protocol") {
        match str::from_utf8(element) {
            Ok(token) if tokens.len() < SUBPROTOCOLS_MAX && is_token(element) && !tokens.contains(&token) => {
                tokens.push(token);
            }
            _ => {
                return Err(Rejection::request(
                    Status::BadRequest,
                    "has a Sec-WebSocket-Protocol that is no list of different tokens",
                ));
            }
        }
    }
    Ok(tokens.join(",").into())
}

/// Offers that are right. Wrong ones must be declined (RFC 7692, 7.1), so the backend need not see them.
fn deflate(fields: &Fields<'_>) -> Box<[Deflate]> {
    fields.all("Sec-WebSocket-Extensions").flat_map(extensions::elements).filter_map(Deflate::offer).collect()
}
