//! RFC 6455 section 4: the opening handshake, both ends, strictly.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const HEADERS_MAX: usize = 64;
/// A head that has not ended by here is refused.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub host: String,
    pub path: String,
    pub subprotocols: Vec<String>,
    /// Extra headers, cookies included, as they go on the wire.
    pub headers: Vec<(String, String)>,
}

/// Why a handshake did not lead to a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A well-formed answer other than 101.
    Status {
        code: u16,
        reason: String,
    },
    Malformed(&'static str),
    HeadTooLarge,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Status { code, reason } => {
                write!(f, "answered {code} {reason} instead of 101 Switching Protocols")
            }
            Refusal::Malformed(what) => write!(f, "answered an invalid handshake: {what}"),
            Refusal::HeadTooLarge => write!(f, "answered a head of more than {HEAD_BYTES_MAX} bytes"),
        }
    }
}

/// A fresh `Sec-WebSocket-Key`: 16 random bytes in base64.
pub fn key(rng: &mut fastrand::Rng) -> String {
    STANDARD.encode(rng.u128(..).to_ne_bytes())
}

/// The `Sec-WebSocket-Accept` that answers a key (4.2.2).
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    STANDARD.encode(hash.finalize())
}

impl Request {
    pub fn encode(&self, key: &str) -> Vec<u8> {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n",
            self.path, self.host
        );
        if !self.subprotocols.is_empty() {
            head += &format!("Sec-WebSocket-Protocol: {}\r\n", self.subprotocols.join(", "));
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// Judges the answer: `Ok(None)` asks for more bytes, `Ok(Some(n))` says that the
    /// WebSocket is open and its first frame begins at `n`.
    pub fn check(&self, key: &str, input: &[u8]) -> Result<Option<usize>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let bytes = match response.parse(input) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if input.len() >= HEAD_BYTES_MAX => {
                return Err(Refusal::HeadTooLarge);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Refusal::Malformed("not an HTTP/1.1 response")),
        };
        let code = response.code.unwrap_or(0);
        if code != 101 {
            let reason = response.reason.unwrap_or("").to_owned();
            return Err(Refusal::Status { code, reason });
        }
        if response.version != Some(1) {
            return Err(Refusal::Malformed("101 in HTTP/1.0"));
        }
        let headers = &*response.headers;
        if !has_token(headers, "Upgrade", "websocket") {
            return Err(Refusal::Malformed("no Upgrade: websocket"));
        }
        if !has_token(headers, "Connection", "upgrade") {
            return Err(Refusal::Malformed("no Connection: Upgrade"));
        }
        let mut accepts = values(headers, "Sec-WebSocket-Accept");
        if accepts.next() != Some(accept(key).as_str()) || accepts.next().is_some() {
            return Err(Refusal::Malformed("Sec-WebSocket-Accept does not answer the key"));
        }
        if values(headers, "Sec-WebSocket-Extensions").any(|value| !value.is_empty()) {
            return Err(Refusal::Malformed("an extension that was not offered"));
        }
        let mut chosen = values(headers, "Sec-WebSocket-Protocol");
        if let Some(protocol) = chosen.next()
            && (!self.subprotocols.iter().any(|offered| offered == protocol) || chosen.next().is_some())
        {
            return Err(Refusal::Malformed("a subprotocol that was not offered"));
        }
        Ok(Some(bytes))
    }
}

/// A client's upgrade request, accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    pub path: String,
    /// The response, ready to send.
    pub response: Vec<u8>,
    /// Where the first frame begins.
    pub bytes: usize,
}

/// The server's side: `Ok(None)` asks for more bytes, `Err` holds the response that refuses.
pub fn answer(input: &[u8]) -> Result<Option<Accepted>, Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let bytes = match request.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() >= HEAD_BYTES_MAX => {
            return Err(refuse("431 Request Header Fields Too Large", ""));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(refuse("400 Bad Request", "")),
    };
    let headers = &*request.headers;
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(refuse("405 Method Not Allowed", "Allow: GET\r\n"));
    }
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return Err(refuse("426 Upgrade Required", "Upgrade: websocket\r\n"));
    }
    if values(headers, "Host").count() != 1 {
        return Err(refuse("400 Bad Request", ""));
    }
    if values(headers, "Sec-WebSocket-Version").collect::<Vec<_>>() != ["13"] {
        return Err(refuse("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"));
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(refuse("400 Bad Request", ""));
    };
    if STANDARD.decode(key).map(|bytes| bytes.len()) != Ok(16) {
        return Err(refuse("400 Bad Request", ""));
    }
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        accept(key)
    );
    // The first offer is taken: a load target has no preferences.
    if let Some(offer) = values(headers, "Sec-WebSocket-Protocol").next()
        && let Some(first) = offer.split(',').map(str::trim).find(|name| !name.is_empty())
    {
        response += &format!("Sec-WebSocket-Protocol: {first}\r\n");
    }
    response += "\r\n";
    let path = request.path.unwrap_or("/").to_owned();
    Ok(Some(Accepted { path, response: response.into_bytes(), bytes }))
}

fn refuse(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("\u{FFFD}").trim())
}

fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request() -> Request {
        Request {
            host: "example.com".into(),
            path: "/chat?a=b".into(),
            subprotocols: vec!["chat".into(), "superchat".into()],
            headers: vec![("Cookie".into(), "a=b".into())],
        }
    }

    #[test]
    fn the_rfc_sample_key_gets_the_rfc_sample_answer() {
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn both_ends_agree_at_every_split() {
        let sent = request().encode(KEY);
        for cut in 0..sent.len() {
            assert_eq!(answer(&sent[..cut]), Ok(None), "request cut at {cut}");
        }
        let accepted = answer(&sent).unwrap().unwrap();
        assert_eq!((accepted.path.as_str(), accepted.bytes), ("/chat?a=b", sent.len()));
        let response = accepted.response;
        for cut in 0..response.len() {
            assert_eq!(request().check(KEY, &response[..cut]), Ok(None), "cut at {cut}");
        }
        let mut with_frame = response.clone();
        with_frame.extend([0x81, 0]);
        assert_eq!(request().check(KEY, &with_frame), Ok(Some(response.len())));
    }

    #[test]
    fn a_wrong_answer_is_named() {
        let good = String::from_utf8(answer(&request().encode(KEY)).unwrap().unwrap().response).unwrap();
        let cases = [
            (good.replace("s3pPL", "AAAAA"), "does not answer the key"),
            (good.replace("Upgrade: websocket\r\n", ""), "no Upgrade"),
            (good.replace("Connection: Upgrade\r\n", ""), "no Connection"),
            (good.replace("Protocol: chat", "Protocol: soup"), "subprotocol"),
            (good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"), "extension"),
            ("HTTP/1.1 503 Busy\r\n\r\n".into(), "answered 503 Busy"),
            ("SSH-2.0-OpenSSH\r\n".into(), "not an HTTP/1.1 response"),
        ];
        for (response, expected) in cases {
            let refusal = request().check(KEY, response.as_bytes()).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn requests_that_are_no_upgrade_are_refused_with_a_status() {
        let good = String::from_utf8(request().encode(KEY)).unwrap();
        let cases = [
            (good.replace("GET", "POST"), "405"),
            (good.replace("Upgrade: websocket\r\n", ""), "426"),
            (good.replace("Version: 13", "Version: 8"), "426"),
            (good.replace(KEY, "short"), "400"),
            (good.replace("Host: example.com\r\n", ""), "400"),
            (format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(HEAD_BYTES_MAX)), "431"),
        ];
        for (request, status) in cases {
            let response = String::from_utf8(answer(request.as_bytes()).unwrap_err()).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
        }
    }
}
