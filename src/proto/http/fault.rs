//! What a client is told before its connection is closed.

use std::borrow::Cow;

/// What is wrong with a head: the status for the client, and one sentence that names the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    pub text: Cow<'static, str>,
}

impl Fault {
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Fault { status, text: text.into() }
    }

    /// "The request has no Host." and the like.
    pub(in crate::proto) fn request(status: u16, what: &str) -> Self {
        Fault::new(status, format!("The request {what}."))
    }

    /// "The backend's answer is no answer to this key." and the like: always a 502, whoever else may be at fault.
    pub(in crate::proto) fn backend(what: &str) -> Self {
        Fault::new(502, format!("The backend's answer {what}."))
    }

    /// The whole response, ready to be sent as the connection's last bytes. `lines`: further header lines, each with its
    /// line end.
    pub fn response(&self, lines: &str) -> Vec<u8> {
        let Fault { status, text } = self;
        // What the status obliges us to say beside it, and what it allows us to list under `Connection`.
        let (connection, extra) = match status {
            // RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
            405 => ("close", "Allow: GET\r\n"),
            // RFC 9110, 15.5.22: "The server MUST send an Upgrade header field in a 426 response", and 7.8: with it an
            // upgrade connection option. RFC 6455, 4.2.2: the version header names what is understood.
            426 => ("close, Upgrade", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            _ => ("close", ""),
        };
        let (reason, length) = (reason(*status), text.len() + 1);
        format!(
            "HTTP/1.1 {status} {reason}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n\
             Connection: {connection}\r\n\
             {extra}{lines}\r\n\
             {text}\n"
        )
        .into_bytes()
    }

    /// The same for a HEAD request. RFC 9110, 9.3.2: "the server MUST NOT send content in the response".
    pub fn response_to_head(&self, lines: &str) -> Vec<u8> {
        let mut response = self.response(lines);
        response.truncate(response.len() - self.text.len() - 1);
        response
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        // The phrase may be empty; the space before it may not be missing.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_whole_response() {
        let response = Fault::new(503, "No backend can be reached.").response("");
        let expected = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Length: 27\r\nConnection: close\r\n\r\nNo backend can be reached.\n";
        assert_eq!(String::from_utf8(response).unwrap(), expected);
    }

    #[test]
    fn some_statuses_bring_their_headers() {
        let lines = |status| String::from_utf8(Fault::new(status, "Why.").response("")).unwrap();
        assert!(lines(405).contains("\r\nConnection: close\r\nAllow: GET\r\n\r\n"));
        assert!(
            lines(426)
                .contains("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
        );
        assert!(lines(599).starts_with("HTTP/1.1 599 \r\n"));
    }
}
