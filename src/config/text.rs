//! Texts that have a grammar: names of headers and cookies, hosts, paths. Each function says what is wrong with one.
//!
//! Routes are held against requests that the handshake has accepted, so what no accepted request can have is refused here:
//! such a condition could never be met.

use crate::proto::text::{
    LABEL_BYTES_MAX, NAME_BYTES_MAX, PathFault, ambiguity, bad_escape, is_folded, is_hop_by_hop, is_token,
};
pub(super) use crate::proto::text::{is_cookie_value, is_host};
use crate::proto::upgrade;

type Checked = Result<(), String>;

/// A secret that is short can be guessed.
const SECRET_CHARACTERS_MIN: usize = 16;

/// As much as requests may have by default.
const TARGET_BYTES_MAX: usize = 8 << 10;

fn wrong<T>(text: &str, what: &str) -> Result<T, String> {
    Err(format!("\"{}\" {what}", text.escape_debug()))
}

pub(super) fn subprotocol(text: &str) -> Checked {
    if is_token(text.as_bytes()) { Ok(()) } else { wrong(text, "is no subprotocol; it has to be an HTTP token") }
}

pub(super) fn cookie_name(text: &str) -> Checked {
    if is_token(text.as_bytes()) { Ok(()) } else { wrong(text, "is no cookie's name; it has to be an HTTP token") }
}

/// RFC 6265, 4.1.1: a path-value has no semicolon, which would end it.
pub(super) fn cookie_path(text: &str) -> Checked {
    path(text)?;
    match text.contains(';') {
        true => wrong(text, "has a semicolon, which ends a cookie's path"),
        false => Ok(()),
    }
}

pub(super) fn header_name(text: &str) -> Checked {
    if is_token(text.as_bytes()) { Ok(()) } else { wrong(text, "is no header's name; it has to be an HTTP token") }
}

/// The name of a header that a request is asked for.
pub(super) fn request_header_name(text: &str) -> Checked {
    header_name(text)?;
    if is_hop_by_hop(text) {
        return wrong(
            text,
            "is for Ringway alone and never among the headers looked at; for Host there is routes.host",
        );
    }
    match is_folded(text) {
        true => wrong(
            text,
            "has a character other than letters, digits and hyphens; such headers are dropped before anyone can look at them",
        ),
        false => Ok(()),
    }
}

pub(super) fn header_value(text: &str) -> Checked {
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t') {
        return wrong(text, "is no header's value; it may have visible ASCII, spaces and tabs");
    }
    match text.trim_matches([' ', '\t']) == text {
        true => Ok(()),
        false => wrong(text, "begins or ends with a blank, which is no part of a header's value"),
    }
}

/// Of a query's parameter, as it stands in the request.
pub(super) fn query_name(text: &str) -> Checked {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"&=#".contains(&b)) {
        true => Ok(()),
        false => wrong(text, "is no parameter's name; it may have visible ASCII but for &, = and #"),
    }
}

/// Of a route: no query, and nothing that requests are refused for.
pub(super) fn path(text: &str) -> Checked {
    if !text.starts_with('/') {
        return wrong(text, "is no path; it has to begin with /");
    }
    let ambiguity = ambiguity(text);
    if ambiguity == Some(PathFault::TwoSlashes) {
        return wrong(text, "begins with two slashes; no request may");
    }
    if text.contains(['?', '#']) {
        return wrong(text, "has a query or a fragment; write the path alone");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong(text, "has a character that no path may have; write it percent-encoded");
    }
    match bad_escape(text).or(ambiguity) {
        None => Ok(()),
        Some(PathFault::BrokenEscape) => wrong(text, "has a broken percent-encoding"),
        Some(PathFault::DotSegment) => wrong(text, "has a segment of dots; no request may"),
        Some(_) => wrong(text, "has an encoded NUL, slash or backslash; no request may"),
    }
}

/// Of a route's condition: as paths are compared, and without what other programs' patterns have.
pub(super) fn matched_path(text: &str) -> Checked {
    path(text)?;
    if let Some((before, _)) = text.split_once('*') {
        let segments = before.trim_end_matches('/');
        return match segments.contains('/') {
            true => wrong(
                text,
                &format!(
                    "has a star, which stands for itself here; for what is below, write path_segments = \"{segments}\""
                ),
            ),
            false => wrong(text, "has a star, which stands for itself here; for every path, leave the condition out"),
        };
    }
    match upgrade::normal_form(text) {
        normal if normal == text => Ok(()),
        normal => wrong(text, &format!("is not how paths are compared; write \"{normal}\"")),
    }
}

/// Whole segments: a slash at the end would ask for an empty one.
pub(super) fn path_segments(text: &str) -> Checked {
    matched_path(text)?;
    match text.len() > 1 && text.ends_with('/') {
        true => wrong(text, "ends with a slash; without it, it takes what is below it too"),
        false => Ok(()),
    }
}

/// What we ask for ourselves: a query is allowed.
pub(super) fn target(text: &str) -> Checked {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    path(before)?;
    if text.len() > TARGET_BYTES_MAX {
        return Err(format!("has {} bytes; it may have {TARGET_BYTES_MAX}", text.len()));
    }
    // RFC 3986 has no place for them, and what asks for us does not send them.
    if text.contains(['"', '<', '>', '`']) {
        return wrong(text, "has a character that no target may have; write it percent-encoded");
    }
    match query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        true => Ok(()),
        false => wrong(text, "has a query with a character that none may have; write it percent-encoded"),
    }
}

/// The value of a Host header.
pub(super) fn authority(text: &str) -> Checked {
    match upgrade::is_authority(text) {
        true => Ok(()),
        false => wrong(text, "is no host; write it as chat.example.com or chat.example.com:8080"),
    }
}

/// `name:port`, to be looked up.
pub(super) fn name_and_port(text: &str) -> Checked {
    match split_name(text) {
        Some((name, port)) if port != 0 => dns_name(name),
        _ => wrong(text, "is no name with a port; write it as chat.example.com:9000"),
    }
}

/// `None`: this has not even the form.
pub(super) fn split_name(text: &str) -> Option<(&str, u16)> {
    let (name, port) = text.split_once(':')?;
    let port = port.parse().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit()))?;
    // What is all digits and dots was meant as an IPv4 address, and is not one. With "unix:" sockets begin.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (has_form_of_name(name) && !numeric && name != "unix").then_some((name, port))
}

/// Of the characters that DNS and /etc/hosts know.
fn has_form_of_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// What has the form of a name, and is to be one that can be asked for. A dot at its end says that it is whole.
pub(super) fn dns_name(text: &str) -> Checked {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name has {} bytes; in DNS it may have {NAME_BYTES_MAX}", name.len()));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong(text, "has nothing between two dots or before the first; no name in DNS may");
        }
        if label.starts_with('-') {
            return wrong(text, "has a hyphen at the beginning of a label; no name in DNS may");
        }
        if label.len() > LABEL_BYTES_MAX {
            let bytes = label.len();
            return wrong(text, &format!("has a label of {bytes} bytes; in DNS it may have {LABEL_BYTES_MAX}"));
        }
    }
    Ok(())
}

/// RFC 2782: `_service._protocol.name`.
pub(super) fn service(text: &str) -> Checked {
    let labels = || text.strip_suffix('.').unwrap_or(text).split('.');
    let underscores = labels().take_while(|label| label.starts_with('_')).count();
    match has_form_of_name(text) && underscores >= 2 && labels().count() > underscores {
        true => dns_name(text),
        false => wrong(text, "is no service's name; write it as _ws._tcp.chat.example.com"),
    }
}

pub(super) fn file(text: &str) -> Checked {
    if text.contains('\0') { wrong(text, "is no path of a file") } else { Ok(()) }
}

pub(super) fn secret(text: &str) -> Checked {
    match text.chars().count() >= SECRET_CHARACTERS_MIN {
        true => Ok(()),
        // Not shown: it may end up in a log.
        false => Err(format!("is too short for a secret; it needs {SECRET_CHARACTERS_MIN} characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tells(check: fn(&str) -> Checked, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_tokens() {
        for check in [subprotocol, cookie_name, header_name] {
            tells(
                check,
                &["a", "chat.v2", "X-A_b!#$%&'*+-.^`|~"],
                &["", "a b", "a:b", "a=b", "ä", "a\n", "(a)", "a/b"],
            );
        }
        tells(query_name, &["room", "a[b]", "%20"], &["", "a=b", "a&b", "a#", "a b", "ä"]);
        tells(request_header_name, &["X-Room", "Cookie"], &["X_Room", "", "X Room", "Host", "upgrade"]);
    }

    #[test]
    fn values_of_headers_and_cookies() {
        tells(header_value, &["", "a", "a b\tc", "~\"\\"], &["a\r\nB: c", "a\n", "\0", "ä", " a", "a\t"]);
        assert!(is_cookie_value("10.0.0.1:9000") && is_cookie_value("[::1]:80") && is_cookie_value("unix:/a"));
        for text in ["a b", "a;b", "a,b", "a\"", "a\\b", "ä", "a\n"] {
            assert!(!is_cookie_value(text), "{text}");
        }
    }

    #[test]
    fn paths() {
        let good = ["/", "/chat", "/chat/", "/a//b", "/%41;x=1", "/...", "/a.b", "/.well-known", "/~a\"|"];
        let bad = [
            "", "chat", "*", "//a", "/a?b", "/a?", "/a#b", "/a b", "/ä", "/a\n", "/%", "/%4", "/%4g", "/%2F", "/%5c",
            "/%00", "/.", "/..", "/a/../b", "/a/.", "/%2e", "/.%2E/x", "/..;x/",
        ];
        tells(path, &good, &bad);
        tells(path_segments, &["/", "/chat", "/a/b"], &["/chat/", "//", "chat"]);
        tells(
            target,
            &["/", "/health?full=1&x=%20", "/a?"],
            &["?a", "/a?b c", "/a?b#c", "/../?x", "/a#b", "/a<b", "/a>", "/`", "/?\"", "/a?b=<"],
        );
    }

    #[test]
    fn hosts() {
        for text in ["a", "chat.example.com", "10.0.0.1", "[::1]", "a_b-c"] {
            assert!(is_host(text), "{text}");
        }
        assert!(!is_host(&"a".repeat(64)), "no request may have it");
        for text in ["", ".", "a.", ".a", "a..b", "a:80", "::1", "[a]", "[::1", "*", "ä", "a b"] {
            assert!(!is_host(text), "{text}");
        }
        tells(
            authority,
            &["a", "a.", "a.b:80", "[::1]", "[::1]:80"],
            &["", "a:", "a:x", "a:0", "a:080", "a:70000", "::1", "a b", "a\r\n", ":80", "a:+8"],
        );
        tells(
            name_and_port,
            &["chat.example.com:9000", "a:1", "chat.svc.cluster.local.:9000", "chat_1-b:80"],
            &["a", "a:0", "10.0.0.1:80", "10.0.0.1.:80", "[::1]:80", "unix:/a", "unix:80", "a..b:80", "a:x", ".:80"],
        );
        tells(
            service,
            &["_ws._tcp.chat.example", "_x._tcp.a", "_ws._tcp.a."],
            &[
                "ws._tcp.a",
                "_ws._tcp",
                "_ws._tcp.",
                "_ws.a",
                "_ws._tcp..a",
                "_ws._tcp.a..",
                "_ws._tcp.a:80",
                "",
                ".",
                "_ws._tcp.a b",
                "_ws._tcp.a~b",
            ],
        );
    }

    #[test]
    fn names_that_dns_cannot_have() {
        let label = "x".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        assert_eq!(long.len(), 253);
        for name in [&label, &long, &format!("{long}."), &format!("{label}.a"), "a-.b", "_a.1"] {
            assert_eq!(dns_name(name), Ok(()), "{name}");
            assert_eq!(name_and_port(&format!("{name}:9000")), Ok(()), "{name}");
        }
        for (name, fault) in [
            (format!("{label}x"), "has a label of 64 bytes; in DNS it may have 63"),
            (format!("a.{label}x.b"), "has a label of 64 bytes"),
            (format!("{long}x"), "the name has 254 bytes; in DNS it may have 253"),
            (format!("{long}x."), "the name has 254 bytes"),
            ("a..b".into(), "\"a..b\" has nothing between two dots"),
            ("a..".into(), "\"a..\" has nothing between two dots"),
            (".a".into(), "\".a\" has nothing between two dots or before the first"),
            ("a.-b".into(), "\"a.-b\" has a hyphen at the beginning of a label"),
        ] {
            for found in [dns_name(&name), name_and_port(&format!("{name}:9000"))] {
                assert!(found.as_ref().is_err_and(|found| found.contains(fault)), "{name}: {found:?}");
            }
        }
        let found = service(&format!("_ws._tcp.{label}x")).unwrap_err();
        assert!(found.ends_with("has a label of 64 bytes; in DNS it may have 63"), "{found}");
        assert!(service(&format!("_ws._tcp.{long}")).unwrap_err().starts_with("the name has 262 bytes"));
    }

    #[test]
    fn a_refused_secret_is_not_shown() {
        let fault = secret("hunter2").unwrap_err();
        assert!(!fault.contains("hunter2"), "{fault}");
        assert_eq!(secret("0123456789abcdef"), Ok(()));
    }
}
