//! The client's header lines that go on to the backend.

use std::borrow::Cow;

use crate::proto::http::{Connection, Fields};
use crate::proto::text;

use super::edit::Line;
use super::extensions;

/// In the client's order and spelling, but for those that were meant for us or are written anew.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    text: Box<[u8]>,
    index: Box<[Place]>,
}

/// Where a line `Name: value` CRLF stands in the text.
#[derive(Clone, Debug)]
struct Place {
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
                true => Cow::Owned(extensions::understood(header.value)),
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
            index.push(Place { start, name_end, end: text.len() });
        }
        Lines { text: text.into(), index: index.into() }
    }

    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Line<'_>> + Clone {
        self.index.iter().map(|place| Line {
            whole: &self.text[place.start..place.end],
            name: str::from_utf8(&self.text[place.start..place.name_end]).expect("names are tokens"),
            value: &self.text[place.name_end + ": ".len()..place.end - "\r\n".len()],
        })
    }
}

fn is_forwarded(name: &str, connection: &Connection<'_>) -> bool {
    !text::is_folded(name) && !text::is_hop_by_hop(name) && !connection.lists(name)
}
