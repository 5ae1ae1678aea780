//! What a client is told before its connection is closed.

use std::borrow::Cow;

/// The statuses that Ringway itself answers with (RFC 9110, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    ExpectationFailed,
    UpgradeRequired,
    HeaderFieldsTooLarge,
    BadGateway,
    ServiceUnavailable,
    GatewayTimeout,
    VersionNotSupported,
    LoopDetected,
}

/// What is wrong with a head or a body: the status for the client, and one sentence that names the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub status: Status,
    pub text: Cow<'static, str>,
}

impl Status {
    /// The number, the reason phrase, and the name in logs and metrics.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Status::BadRequest => (400, "Bad Request", "bad_request"),
            Status::NotFound => (404, "Not Found", "not_found"),
            Status::MethodNotAllowed => (405, "Method Not Allowed", "method_not_allowed"),
            Status::RequestTimeout => (408, "Request Timeout", "request_timeout"),
            Status::ContentTooLarge => (413, "Content Too Large", "content_too_large"),
            Status::UriTooLong => (414, "URI Too Long", "uri_too_long"),
            Status::ExpectationFailed => (417, "Expectation Failed", "expectation_failed"),
            Status::UpgradeRequired => (426, "Upgrade Required", "upgrade_required"),
            Status::HeaderFieldsTooLarge => (431, "Request Header Fields Too Large", "header_fields_too_large"),
            Status::BadGateway => (502, "Bad Gateway", "bad_gateway"),
            Status::ServiceUnavailable => (503, "Service Unavailable", "service_unavailable"),
            Status::GatewayTimeout => (504, "Gateway Timeout", "gateway_timeout"),
            Status::VersionNotSupported => (505, "HTTP Version Not Supported", "version_not_supported"),
            Status::LoopDetected => (508, "Loop Detected", "loop_detected"),
        }
    }

    pub const fn code(self) -> u16 {
        self.row().0
    }

    pub const fn label(self) -> &'static str {
        self.row().2
    }

    /// The whole response, ready to be sent as the connection's last bytes. `lines`: further header lines, each with its
    /// line end. `is_head`: to a HEAD request, to which "the server MUST NOT send content in the response" (RFC 9110, 9.3.2).
    pub fn response(self, text: &str, lines: &str, is_head: bool) -> Vec<u8> {
        // What the status obliges us to say beside it, and what it allows us to list under `Connection`.
        let (connection, extra) = match self {
            // RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
            Status::MethodNotAllowed => ("close", "Allow: GET\r\n"),
            // RFC 9110, 15.5.22: "The server MUST send an Upgrade header field in a 426 response", and 7.8: with it an
            // upgrade connection option. RFC 6455, 4.2.2: the version header names what is understood.
            Status::UpgradeRequired => ("close, Upgrade", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            _ => ("close", ""),
        };
        let (code, reason, _) = self.row();
        let length = text.len() + 1;
        let mut response = format!(
            "HTTP/1.1 {code} {reason}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n\
             Connection: {connection}\r\n\
             {extra}{lines}\r\n"
        );
        if !is_head {
            response.push_str(text);
            response.push('\n');
        }
        response.into_bytes()
    }
}

impl Rejection {
    /// "The request has no Host." and the like.
    pub(in crate::proto) fn request(status: Status, what: &str) -> Self {
        Rejection { status, text: format!("The request {what}.").into() }
    }

    /// "The backend's answer is no answer to this key." and the like: always a 502, whoever else may be at fault.
    pub(in crate::proto) fn backend(what: &str) -> Self {
        Rejection { status: Status::BadGateway, text: format!("The backend's answer {what}.").into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Vec<u8>) -> String {
        String::from_utf8(response).unwrap()
    }

    #[test]
    fn a_response_is_whole() {
        let response = Status::ServiceUnavailable.response("No backend can be reached.", "", false);
        let expected = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Length: 27\r\nConnection: close\r\n\r\nNo backend can be reached.\n";
        assert_eq!(text(response), expected);
        let to_head = Status::ServiceUnavailable.response("No backend can be reached.", "", true);
        assert_eq!(text(to_head), expected.trim_end_matches("No backend can be reached.\n"));
    }

    #[test]
    fn some_statuses_bring_their_headers() {
        let lines = |status: Status| text(status.response("Why.", "", false));
        assert!(lines(Status::MethodNotAllowed).contains("\r\nConnection: close\r\nAllow: GET\r\n\r\n"));
        assert!(
            lines(Status::UpgradeRequired)
                .contains("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
        );
    }
}
