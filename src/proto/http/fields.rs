//! The fields of a complete head, in order.

use httparse::{EMPTY_HEADER, Header};

use super::{HeadKind, HeadLimits, Rejection, Status, TOKEN, is};

/// All fields of one head, borrowed from it. Values have no whitespace around them and may hold obs-text.
pub(in crate::proto) struct Fields<'a>(Vec<Header<'a>>);

impl<'a> Fields<'a> {
    /// `head` has passed [`head_end`](super::head_end), with this end.
    pub fn of(head: &'a [u8], kind: HeadKind, limits: &HeadLimits) -> Result<Self, Rejection> {
        let start = head.iter().position(|&byte| byte == b'\n').map_or(head.len(), |at| at + 1);
        let lines = &head[start..];
        let mut headers = vec![EMPTY_HEADER; limits.headers_max];
        match httparse::parse_headers(lines, &mut headers) {
            Ok(httparse::Status::Complete((end, parsed))) if end == lines.len() => {
                let count = parsed.len();
                headers.truncate(count);
                let is_long = |line: &&[u8]| line.len() > limits.header_bytes_max + b"\r\n".len();
                if kind == HeadKind::Request && lines.split_inclusive(|&byte| byte == b'\n').any(|line| is_long(&line))
                {
                    let what = format!("has a header of more than {} bytes", limits.header_bytes_max);
                    return Err(kind.fault(Status::HeaderFieldsTooLarge, &what));
                }
                Ok(Fields(headers))
            }
            Ok(_) => Err(kind.fault(Status::BadRequest, "has a head with more than one end, or none")),
            Err(error) => Err(fault(error, kind, limits)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Header<'a>> {
        self.0.iter()
    }

    /// The values of every line of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The one value of this name; `None` if there is none, or if there are several.
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The elements of a comma-separated list over all its lines. RFC 9110, 5.6.1.2: "A recipient MUST parse and ignore
    /// a reasonable number of empty list elements".
    pub fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim)
            .filter(|element| !element.is_empty())
    }

    /// What `Connection` lists. `None` beyond any reasonable number, as every header is held against every option.
    pub fn connection(&self) -> Option<Connection<'a>> {
        const OPTIONS_MAX: usize = 32;
        let options: Vec<_> = self.elements("Connection").take(OPTIONS_MAX + 1).collect();
        (options.len() <= OPTIONS_MAX).then_some(Connection(options))
    }
}

/// The options of all `Connection` lines: `upgrade`, `close` and the like, and names of headers meant for the next hop only.
pub(in crate::proto) struct Connection<'a>(Vec<&'a [u8]>);

impl Connection<'_> {
    pub fn lists(&self, option: &str) -> bool {
        self.0.iter().any(|listed| listed.eq_ignore_ascii_case(option.as_bytes()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().copied()
    }
}

fn fault(error: httparse::Error, kind: HeadKind, limits: &HeadLimits) -> Rejection {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => {
            kind.fault(Status::HeaderFieldsTooLarge, &format!("has more than {} headers", limits.headers_max))
        }
        // Also no colon, whitespace before it, and a folded line: "A server MUST reject, with a response status code of
        // 400, any received request message that contains whitespace between a header field name and colon" (RFC 9112, 5.1).
        Error::HeaderName => {
            kind.fault(Status::BadRequest, "has a header line that does not start with a name and a colon")
        }
        Error::HeaderValue => kind.fault(Status::BadRequest, "has a header whose value no header may have"),
        _ => kind.fault(Status::BadRequest, "has a malformed head"),
    }
}

/// RFC 9110, 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(TOKEN, byte))
}

/// Without the spaces and tabs around it (OWS; RFC 9110, 5.6.3).
pub(in crate::proto) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
