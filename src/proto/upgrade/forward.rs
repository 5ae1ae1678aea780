//! The request as the backend gets it: the client's own lines in their order, without those that were meant for us, and
//! with what the relay has to say about the client.

use std::borrow::Cow;

use crate::proto::http::{Connection, Fields};

use super::request::{Request, forwarded_offers};

/// What is done to one header that describes the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Joins what the client sent and this value into one line, at the place of the client's first.
    Append { name: &'static str, value: Cow<'a, str> },
    /// Sets this value, whatever the client sent.
    Replace { name: &'static str, value: Cow<'a, str> },
    /// Removes what the client sent.
    Remove { name: &'static str },
}

impl Edit<'_> {
    fn name(&self) -> &'static str {
        match self {
            Edit::Append { name, .. } | Edit::Replace { name, .. } | Edit::Remove { name } => name,
        }
    }
}

impl Request {
    /// The whole head for the backend. Values must not have line ends in them.
    pub fn forward(&self, edits: &[Edit<'_>]) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.target.len() + self.host.len() + self.lines.text.len() + 256);
        for part in ["GET ", &self.target, " HTTP/1.1\r\nHost: ", &self.host] {
            head.extend_from_slice(part.as_bytes());
        }
        head.extend_from_slice(b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");

        for line in &self.lines.index {
            let name = self.lines.name(line);
            match edits.iter().find(|edit| edit.name().eq_ignore_ascii_case(name)) {
                None if is_untrusted(name, edits) => {}
                None => head.extend_from_slice(self.lines.whole(line)),
                Some(edit) if self.lines.is_first(line) => self.write(edit, &mut head),
                Some(_) => {}
            }
        }
        for edit in edits {
            if self.lines.values(edit.name()).next().is_none() {
                self.write(edit, &mut head);
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn write(&self, edit: &Edit<'_>, head: &mut Vec<u8>) {
        let (name, value, client) = match edit {
            Edit::Append { name, value } => (name, value, Some(self.lines.values(name))),
            Edit::Replace { name, value } => (name, value, None),
            Edit::Remove { .. } => return,
        };
        debug_assert!(!value.contains(['\r', '\n', '\0']), "a line end in {name}");
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        for value in client.into_iter().flatten().filter(|value| !value.is_empty()) {
            head.extend_from_slice(value);
            head.extend_from_slice(b", ");
        }
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
}

/// `X-Real-IP` says the same as `X-Forwarded-For`: where the client is not believed in the one, it is not in the other.
fn is_untrusted(name: &str, edits: &[Edit<'_>]) -> bool {
    let is_replaced =
        |edit: &Edit<'_>| edit.name().eq_ignore_ascii_case("X-Forwarded-For") && !matches!(edit, Edit::Append { .. });
    name.eq_ignore_ascii_case("X-Real-IP") && edits.iter().any(is_replaced)
}

/// The client's header lines that are forwarded, but for Host, Upgrade and Connection, which are written anew.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    text: Box<[u8]>,
    index: Box<[Line]>,
}

/// Where a line `Name: value` CRLF stands in the text.
#[derive(Clone, Debug)]
struct Line {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Lines {
    pub fn of(fields: &Fields<'_>, connection: &Connection<'_>) -> Self {
        let mut text = Vec::new();
        let mut index = Vec::new();
        for header in fields.iter().filter(|header| is_forwarded(header.name, connection)) {
            let value = match header.name.eq_ignore_ascii_case("Sec-WebSocket-Extensions") {
                true => Cow::Owned(forwarded_offers(header.value)),
                false => Cow::Borrowed(header.value),
            };
            if value.is_empty() && !header.value.is_empty() {
                continue;
            }
            let start = text.len();
            text.extend_from_slice(header.name.as_bytes());
            let name_end = text.len();
            for part in [b": ", &*value, b"\r\n"] {
                text.extend_from_slice(part);
            }
            index.push(Line { start, name_end, end: text.len() });
        }
        Lines { text: text.into(), index: index.into() }
    }

    /// Name, colon, value and line end.
    fn whole(&self, line: &Line) -> &[u8] {
        &self.text[line.start..line.end]
    }

    fn name(&self, line: &Line) -> &str {
        str::from_utf8(&self.text[line.start..line.name_end]).expect("names are tokens")
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.index.iter().filter(move |line| self.name(line).eq_ignore_ascii_case(name));
        named.map(|line| &self.text[line.name_end + ": ".len()..line.end - "\r\n".len()])
    }

    fn is_first(&self, line: &Line) -> bool {
        let same = self.index.iter().find(|other| self.name(other).eq_ignore_ascii_case(self.name(line)));
        same.is_some_and(|first| first.start == line.start)
    }
}

/// Hop-by-hop (RFC 9110, 7.6.1), or written anew, or of no use behind us.
const NOT_FORWARDED: [&str; 13] = [
    "Connection",
    "Content-Length", // 0, as was checked
    "Expect",         // a 100 before the 101 would be the backend's, and nobody waits for it
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

/// Names with an underscore are dropped as well: a backend that reads headers as CGI variables could not tell
/// `X_Forwarded_For` from `X-Forwarded-For`.
fn is_forwarded(name: &str, connection: &Connection<'_>) -> bool {
    !name.contains('_')
        && !NOT_FORWARDED.iter().any(|other| other.eq_ignore_ascii_case(name))
        && !connection.lists(name)
}
