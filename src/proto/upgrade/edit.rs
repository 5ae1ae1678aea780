//! Changes to the header lines of a head on its way, request or response: what is said about the client, what a route wants.

use std::borrow::Cow;

use crate::proto::http::trim;
use crate::proto::text;

/// What is done to one header. Edits of the same header are applied in their order; they say nothing about any other.
///
/// Values must not have line ends in them. The headers that a handshake or a body's end depend on must not be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Joins what is there and this value into one line, at the place of the first.
    Append { name: &'a str, value: Cow<'a, str> },
    /// Sets this value, whatever is there.
    Replace { name: &'a str, value: Cow<'a, str> },
    /// Removes what is there.
    Remove { name: &'a str },
    /// A further line at the head's end, beside what is there.
    Add { name: &'a str, value: Cow<'a, str> },
}

impl Edit<'_> {
    pub(super) fn is_of(&self, header: &str) -> bool {
        self.name().eq_ignore_ascii_case(header)
    }

    fn name(&self) -> &str {
        match self {
            Edit::Append { name, .. } | Edit::Replace { name, .. } | Edit::Remove { name } | Edit::Add { name, .. } => {
                name
            }
        }
    }
}

/// A header line as it stands in a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// With value and line end.
    pub whole: &'a [u8],
    pub name: &'a str,
    pub value: &'a [u8],
}

/// A complete and checked head with its header lines edited, and everything else as it came. For a 101, which is relayed
/// as it is, and for a response that has been rebuilt.
pub fn edit_head(head: &[u8], edits: &[Edit<'_>]) -> Vec<u8> {
    let mut lines = head.split_inclusive(|&byte| byte == b'\n');
    let mut edited = Vec::with_capacity(head.len() + 128);
    edited.extend_from_slice(lines.next().unwrap_or_default());
    write_edited(lines.filter_map(line), edits, &mut edited);
    edited.extend_from_slice(b"\r\n");
    edited
}

/// `None` for the empty line at the head's end.
fn line(whole: &[u8]) -> Option<Line<'_>> {
    let text = whole.strip_suffix(b"\r\n")?;
    let colon = text.iter().position(|&byte| byte == b':')?;
    Some(Line { whole, name: str::from_utf8(&text[..colon]).ok()?, value: trim(&text[colon + 1..]) })
}

/// Writes header lines as the edits leave them: what they do not touch in its place and spelling.
pub(super) fn write_edited<'l>(lines: impl Iterator<Item = Line<'l>> + Clone, edits: &[Edit<'_>], head: &mut Vec<u8>) {
    debug_assert!(
        !edits.iter().any(|edit| text::is_of_the_handshake(edit.name())),
        "an edit that no route may have: {edits:?}"
    );
    let named = |name: &str| lines.clone().find(|line| line.name.eq_ignore_ascii_case(name));
    for line in lines.clone() {
        let is_first = || named(line.name).is_some_and(|first| std::ptr::eq(first.whole, line.whole));
        match settling(edits, line.name) {
            None => head.extend_from_slice(line.whole),
            Some(last) if is_first() => write_settled(lines.clone(), &edits[..=last], head),
            Some(_) => {}
        }
    }
    for (at, edit) in edits.iter().enumerate() {
        let last = settling(edits, edit.name());
        match edit {
            Edit::Add { name, value } if last.is_none_or(|last| last < at) => {
                write_line(name, [value.as_bytes()], head)
            }
            _ if last == Some(at) && named(edit.name()).is_none() => {
                write_settled(lines.clone(), &edits[..=at], head);
            }
            _ => {}
        }
    }
}

/// The last edit that does more to this header than to add to it. There is at most one line of it up to there.
fn settling(edits: &[Edit<'_>], name: &str) -> Option<usize> {
    edits.iter().rposition(|edit| edit.is_of(name) && !matches!(edit, Edit::Add { .. }))
}

/// The one line, or none, that these edits make of the header that the last of them names.
fn write_settled<'l>(lines: impl Iterator<Item = Line<'l>>, edits: &[Edit<'_>], head: &mut Vec<u8>) {
    let Some(name) = edits.last().map(Edit::name) else { return };
    let present = lines.filter(|line| line.name.eq_ignore_ascii_case(name) && !line.value.is_empty());
    let mut values: Vec<&[u8]> = present.map(|line| line.value).collect();
    for edit in edits.iter().filter(|edit| edit.is_of(name)) {
        if matches!(edit, Edit::Replace { .. } | Edit::Remove { .. }) {
            values.clear();
        }
        if let Edit::Append { value, .. } | Edit::Replace { value, .. } | Edit::Add { value, .. } = edit {
            values.push(value.as_bytes());
        }
    }
    if !values.is_empty() {
        write_line(name, values, head);
    }
}

fn write_line<'v>(name: &str, values: impl IntoIterator<Item = &'v [u8]>, head: &mut Vec<u8>) {
    head.extend_from_slice(name.as_bytes());
    for (at, value) in values.into_iter().enumerate() {
        debug_assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "a line end in {name}");
        head.extend_from_slice(if at == 0 { b": " } else { b", " });
        head.extend_from_slice(value);
    }
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 Fine\r\nServer:x\r\nset-cookie: a=1; Path=/\r\nX-A:  1 \r\n\
                          Set-Cookie: b=2\r\nx-a: \xff\r\nX-Empty:\r\n\r\n";

    fn set<'a>(name: &'a str, value: &'a str) -> Edit<'a> {
        Edit::Replace { name, value: value.into() }
    }

    fn add<'a>(name: &'a str, value: &'a str) -> Edit<'a> {
        Edit::Add { name, value: value.into() }
    }

    fn append<'a>(name: &'a str, value: &'a str) -> Edit<'a> {
        Edit::Append { name, value: value.into() }
    }

    #[track_caller]
    fn check(edits: &[Edit<'_>], lines: &[u8]) {
        let expected = [b"HTTP/1.1 200 Fine\r\n", lines, b"\r\n"].concat();
        let edited = edit_head(HEAD, edits);
        assert_eq!(edited.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn what_is_not_edited_stays_as_it_is() {
        assert_eq!(edit_head(HEAD, &[]), HEAD);
        assert_eq!(edit_head(HEAD, &[Edit::Remove { name: "X-B" }]), HEAD);
        assert_eq!(edit_head(b"HTTP/1.1 101 \r\n\r\n", &[add("A", "b")]), b"HTTP/1.1 101 \r\nA: b\r\n\r\n");
    }

    #[test]
    fn each_kind_of_edit() {
        let (server, cookies) = (b"Server:x\r\n".as_slice(), b"set-cookie: a=1; Path=/\r\n".as_slice());
        let (second, empty) = (b"Set-Cookie: b=2\r\n".as_slice(), b"X-Empty:\r\n".as_slice());
        let remove = [server, cookies, second, empty].concat();
        check(&[Edit::Remove { name: "X-a" }], &remove);
        check(&[set("X-A", "9")], &[server, cookies, b"X-A: 9\r\n", second, empty].concat());
        check(&[set("X-A", "")], &[server, cookies, b"X-A: \r\n", second, empty].concat());
        check(&[append("X-A", "9")], &[server, cookies, b"X-A: 1, \xff, 9\r\n", second, empty].concat());
        check(&[set("X-B", "9"), append("X-C", "8")], &[&HEAD[19..HEAD.len() - 2], b"X-B: 9\r\nX-C: 8\r\n"].concat());
        check(&[append("X-Empty", "1")], &[&HEAD[19..HEAD.len() - 12], b"X-Empty: 1\r\n"].concat());
    }

    #[test]
    fn added_lines_stand_beside_the_others() {
        let all = &HEAD[19..HEAD.len() - 2];
        check(
            &[add("Set-Cookie", "c=3"), add("X-B", "1"), add("set-cookie", "d=4"), add("X-B", "1")],
            &[all, b"Set-Cookie: c=3\r\nX-B: 1\r\nset-cookie: d=4\r\nX-B: 1\r\n"].concat(),
        );
    }

    #[test]
    fn edits_of_one_header_follow_each_other() {
        let before = &HEAD[19..HEAD.len() - 2 - b"X-Empty:\r\n".len()];
        for (edits, lines) in [
            (vec![Edit::Remove { name: "X-Empty" }, add("X-Empty", "1")], "X-Empty: 1\r\n"),
            (
                vec![set("X-Empty", "1"), add("x-empty", "2"), add("X-Empty", "3")],
                "X-Empty: 1\r\nx-empty: 2\r\nX-Empty: 3\r\n",
            ),
            (vec![append("X-Empty", "1"), Edit::Remove { name: "X-Empty" }], ""),
            (vec![add("X-Empty", "1"), set("X-Empty", "2")], "X-Empty: 2\r\n"),
            (vec![add("X-Empty", "1"), append("X-Empty", "2"), add("X-Empty", "3")], "X-Empty: 1, 2\r\nX-Empty: 3\r\n"),
            (vec![Edit::Remove { name: "X-Empty" }, append("X-Empty", "1")], "X-Empty: 1\r\n"),
            (vec![set("X-Empty", "1"), set("X-Empty", "2"), append("X-Empty", "3")], "X-Empty: 2, 3\r\n"),
        ] {
            check(&edits, &[before, lines.as_bytes()].concat());
        }
        // The same for a header that is not there yet.
        let all = &HEAD[19..HEAD.len() - 2];
        check(&[add("X-B", "1"), append("X-B", "2"), add("X-B", "3")], &[all, b"X-B: 1, 2\r\nX-B: 3\r\n"].concat());
        check(&[set("X-B", "1"), Edit::Remove { name: "X-B" }], all);
    }
}
