//! Requests that are no upgrades: one of them per connection goes on, with its body, where a route wants that.

use std::ops::Deref;

use crate::proto::http::{Body, Fields, HeadKind, Rejection, Status};

use super::edit::Edit;
use super::head::Head;
use super::lines::Lines;
use super::request::{RequestLine, connection, host};
use super::target::origin_form;

/// A checked request that is no upgrade, ready to be forwarded.
#[derive(Clone, Debug)]
pub struct PlainRequest {
    pub head: Head,
    pub method: &'static str,
    /// Goes on as it comes, chunk headers included.
    pub body: Body,
    /// It came in HTTP/1.0: its client knows neither chunks nor a 1xx, and the answer's body ends with the connection.
    pub is_http10: bool,
    /// The client waits for a 100 before it sends the body. The backend does not hear of that.
    pub expects_continue: bool,
}

impl Deref for PlainRequest {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// Those that every HTTP server knows, but for CONNECT, which asks for a tunnel, and TRACE, which shows a client what was
/// added to its request.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

impl PlainRequest {
    pub(super) fn of(line: &RequestLine<'_>, fields: &Fields<'_>) -> Result<PlainRequest, Rejection> {
        let body = Body::framed(fields, HeadKind::Request, line.version)?.unwrap_or(Body::None);
        let method = METHODS.into_iter().find(|method| method.as_bytes() == line.method);
        let method = method
            .ok_or_else(|| Rejection::request(Status::MethodNotAllowed, "has a method that is not served here"))?;
        let is_http10 = line.version == b"HTTP/1.0";
        if !is_http10 {
            line.check_version()?;
        }
        let host = host(fields)?;
        let target = origin_form(line.target, &host)?;
        let connection = connection(fields)?;
        // RFC 9110, 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore" it.
        let expects_continue = expects_continue(fields)? && !body.is_complete() && !is_http10;
        let head = Head { host: host.text.into(), target, lines: Lines::of(fields, &connection) };
        Ok(PlainRequest { head, method, body, is_http10, expects_continue })
    }

    /// The whole head for the backend, whose connection ends with the answer. `target` stands in place of the client's.
    pub fn forward(&self, edits: &[Edit<'_>], target: Option<&str>) -> Vec<u8> {
        // The body's framing is said once and in one spelling, whatever the client's was.
        let framing = match self.body {
            Body::Length(length) => format!("Content-Length: {length}\r\n"),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Body::None | Body::UntilClose => String::new(),
        };
        self.head.rebuild(self.method, target, &format!("Connection: close\r\n{framing}"), edits)
    }
}

/// RFC 9110, 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY respond
/// with a 417".
fn expects_continue(fields: &Fields<'_>) -> Result<bool, Rejection> {
    match fields.elements("Expect").all(|expected| expected.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(fields.has("Expect")),
        false => Err(Rejection::request(Status::ExpectationFailed, "expects something other than 100-continue")),
    }
}
