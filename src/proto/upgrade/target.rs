//! Where a request goes: its target, its Host, and that the two agree. The very bytes are forwarded; routes look at their
//! [`normal_form`], and what a backend might still read as another path is told as an ambiguity, which a route that
//! guards paths refuses.

use std::borrow::Cow;

use crate::proto::http::{Rejection, Status};
use crate::proto::text::{self, PathFault};

/// The target in origin-form (RFC 9112, 3.2.1), which is how it is forwarded.
pub(super) fn origin_form(target: &[u8], host: &Host<'_>) -> Result<Box<str>, Rejection> {
    let target =
        str::from_utf8(target).map_err(|_| Rejection::request(Status::BadRequest, "has a target beyond ASCII"))?;
    if target.starts_with('/') {
        check_escapes(target)?;
        return Ok(target.into());
    }
    // RFC 9112, 3.2.2: absolute-form must be accepted. Authority-form is for CONNECT and `*` for OPTIONS.
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(Rejection::request(Status::BadRequest, "has a target that is not a path"));
    };
    let default_port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => 80,
        _ if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return Err(Rejection::request(Status::BadRequest, "has a target whose scheme is not http")),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let same = Host::parse(authority.as_bytes()).is_some_and(|target| target.is_same(host, default_port));
    if !same {
        return Err(Rejection::request(Status::BadRequest, "has a target for another host than its Host header"));
    }
    // RFC 9110, 4.2.3: "an empty path component is equivalent to an absolute path of "/"".
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
    check_escapes(&path)?;
    Ok(path.into())
}

/// `target` with `replacement` in place of the first `matched` bytes of its path. It starts with one slash, and one is put
/// between the two where neither has one.
///
/// What is left of a path may be a dot segment where it was none before (`/chat..` without `/chat`), so the result is
/// held against the same rules as what clients send, where the route is `strict`.
pub fn rewrite(target: &str, matched: usize, replacement: &str, strict: bool) -> Result<String, Rejection> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut rest = path.get(matched..).unwrap_or_default();
    let mut rewritten = format!("/{}", replacement.trim_start_matches('/'));
    if rewritten == "/" {
        rest = rest.trim_start_matches('/');
    } else if rewritten.ends_with('/') {
        rest = rest.strip_prefix('/').unwrap_or(rest);
    } else if !rest.is_empty() && !rest.starts_with('/') {
        rewritten.push('/');
    }
    rewritten.push_str(rest);
    if let Some(fault) = ambiguity(&rewritten).filter(|_| strict) {
        return Err(fault);
    }
    rewritten.push_str(query);
    Ok(rewritten)
}

fn check_escapes(target: &str) -> Result<(), Rejection> {
    text::bad_escape(path_of(target)).map_or(Ok(()), |fault| Err(refusal(fault)))
}

/// What of this target's path a backend may read as another path than the one that routes see.
pub fn ambiguity(target: &str) -> Option<Rejection> {
    text::ambiguity(path_of(target)).map(refusal)
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

fn refusal(fault: PathFault) -> Rejection {
    let what = match fault {
        PathFault::BrokenEscape => "has a broken percent-encoding in its path",
        PathFault::EncodedNul => "has an encoded NUL in its path",
        PathFault::TwoSlashes => "has a path that starts with two slashes",
        PathFault::EncodedSlash => "has an encoded slash or backslash in its path",
        PathFault::DotSegment => "has a dot segment in its path",
    };
    Rejection::request(Status::BadRequest, what)
}

/// A path as those backends read it that read the most into it: escapes of unreserved characters decoded and the digits
/// of others in upper case (RFC 3986, 6.2.2), parameters (`;` to the end of a segment) left out, empty segments joined.
/// Two paths that any backend takes for one have the same. Borrowed where that is the path as it came.
pub fn normal_form(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', ';']) && !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len());
    units(path).for_each(|(_, text)| normal.push_str(&text));
    Cow::Owned(normal)
}

/// How many bytes of the path itself the first `len` bytes of its normal form are, with the parameters behind them.
pub fn raw_len(path: &str, len: usize) -> usize {
    let (mut normal, mut raw) = (0, 0);
    for (bytes, text) in units(path) {
        if normal >= len && !text.is_empty() {
            break;
        }
        (normal, raw) = (normal + text.len(), raw + bytes);
    }
    raw
}

/// The path in pieces: how many bytes of it one is, and what stands for it in the normal form.
fn units(path: &str) -> impl Iterator<Item = (usize, Cow<'_, str>)> {
    let (mut at, mut is_after_slash) = (0, false);
    std::iter::from_fn(move || {
        let rest = path.get(at..)?;
        let (bytes, text) = match rest.as_bytes() {
            [] => return None,
            [b'/', ..] if is_after_slash => (1, Cow::Borrowed("")),
            [b';', ..] => (rest.find('/').unwrap_or(rest.len()), Cow::Borrowed("")),
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => (3, unescaped(&rest[..3])),
            // Other bytes are ASCII, as the head's check has it; whatever came instead, a piece is a whole character.
            _ => {
                let end = rest.chars().next().map_or(1, char::len_utf8);
                (end, Cow::Borrowed(&rest[..end]))
            }
        };
        at += bytes;
        is_after_slash = if text.is_empty() { is_after_slash } else { &*text == "/" };
        Some((bytes, text))
    })
}

/// `%41` is `A`; `%2f` is `%2F`, which is not `/`.
fn unescaped(escape: &str) -> Cow<'_, str> {
    match u8::from_str_radix(&escape[1..], 16) {
        Ok(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => Cow::Owned(char::from(byte).into()),
        _ => Cow::Owned(escape.to_ascii_uppercase()),
    }
}

/// A checked Host header (RFC 9110, 7.2): a name or an address, and a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    pub text: &'a str,
    pub name: &'a str,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Narrower than RFC 3986, 3.2: no userinfo, and of hosts only what [`text::is_host`] takes, with a dot at the end or not.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?;
        let name_end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (name, port) = text.split_at(name_end);
        if !text::is_host(name.strip_suffix('.').unwrap_or(name)) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Host { text, name, port })
    }

    fn is_same(&self, other: &Host<'_>, default_port: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// The value of a Host header.
pub fn is_authority(text: &str) -> bool {
    Host::parse(text.as_bytes()).is_some()
}

/// 1 to 65535, without a sign and without leading zeros.
fn parse_port(port: &str) -> Option<u16> {
    let plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    plain.then(|| port.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(target: &str, host: &str) -> Result<String, u16> {
        let host = Host::parse(host.as_bytes()).unwrap();
        let target = origin_form(target.as_bytes(), &host).map_err(|fault| fault.status.code())?;
        ambiguity(&target).map_or(Ok(target.into()), |fault| Err(fault.status.code()))
    }

    #[test]
    fn hosts() {
        for good in [
            "a",
            "example.com",
            "example.com.",
            "EXAMPLE.com:80",
            "10.0.0.1:65535",
            "[::1]",
            "[2001:db8::1]:8080",
            "my_service:1",
        ] {
            assert!(Host::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:70000",
            "a:65536",
            "a:+80",
            "a:080",
            "a:8x",
            "user@a",
            "a/b",
            "a b",
            "a,b",
            "[::1",
            "::1",
            "[::1]x",
            "[::g]",
            "[]",
            "[v1.x]",
            "a..b",
            ".",
            ".a",
            "a%2eb",
            "a\\b",
            "a?b",
            "a#b",
            "a:80:80",
            "ä.example",
        ] {
            assert!(Host::parse(bad.as_bytes()).is_none(), "H15: {bad}");
        }
    }

    #[test]
    fn h16_absolute_form_becomes_origin_form() {
        for (given, host, forwarded) in [
            ("http://a.example/x?y", "a.example", "/x?y"),
            ("HTTP://A.Example:80/", "a.example", "/"),
            ("https://a.example/", "a.example:443", "/"),
            ("http://a.example", "a.example", "/"),
            ("http://a.example?q=/..", "a.example", "/?q=/.."),
            ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ] {
            assert_eq!(target(given, host).as_deref(), Ok(forwarded), "{given}");
        }
    }

    #[test]
    fn h17_h18_h19_targets_that_are_refused() {
        for given in [
            "http://b.example/",
            "http://a.example:81/",
            "https://a.example:80/",
            "http://user@a.example/",
            "http:///x",
            "http://a.example,b/",
            "file:///etc/passwd",
            "ws://a.example/",
            "wss://a.example/",
            "://a.example/",
            "a.example:80",
            "*",
            "ws",
            "",
            "http:/a.example/",
            "http://a.example//x",
            "http://a.example/../x",
        ] {
            assert_eq!(target(given, "a.example"), Err(400), "{given}");
        }
    }

    #[test]
    fn h22_paths_that_another_could_read_differently() {
        for given in [
            "//ws",
            "/ws/../admin",
            "/..",
            "/.",
            "/./ws",
            "/ws/.",
            "/%2e%2e/",
            "/%2E./x",
            "/.%2e",
            "/ws%2f..",
            "/ws%2Fx",
            "/ws%5cx",
            "/ws%5Cx",
            "/ws/..;/admin",
            "/ws/.;x=1/",
            "/%00",
            "/ws%",
            "/ws%2",
            "/ws%zz",
            "/%%2e",
        ] {
            assert_eq!(target(given, "a"), Err(400), "{given}");
        }
        for given in [
            "/",
            "/ws",
            "/WS/",
            "/ws;x",
            "/...",
            "/.well-known/x",
            "/a..b/..c",
            "/a//b",
            "/%20",
            "/%252e",
            "/?a=/../%00%2f//&b=%",
            "/~x:@!$&'()*+,=",
        ] {
            assert_eq!(target(given, "a").as_deref(), Ok(given));
        }
    }

    #[test]
    fn field_a01_names_and_labels_are_those_of_dns() {
        let label = |len| "a".repeat(len);
        let name = |labels: usize| vec!["a"; labels].join(".");
        for (host, good) in [
            (label(63), true),
            (label(64), false),
            (format!("{}.example", label(64)), false),
            (name(127), true),
            (name(127) + ".", true),
            (name(128), false),
            (name(7800), false),
            (vec![label(61); 4].join(".") + ".aaaaa", true),
            (vec![label(61); 4].join(".") + ".aaaaaa", false),
        ] {
            assert_eq!(Host::parse(host.as_bytes()).is_some(), good, "{} bytes", host.len());
        }
    }

    #[test]
    fn field_a12_paths_that_are_one_have_one_normal_form() {
        for (path, normal) in [
            ("/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%61%64%6D%69%6e", "/admin"),
            ("/admin;x=1", "/admin"),
            ("/admin;", "/admin"),
            ("/admin;x=1;y/b;z", "/admin/b"),
            ("/a//b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("/a/;x/b", "/a/b"),
            ("/;x//a", "/a"),
            ("/%7euser", "/~user"),
            ("/%2d%5F%2e", "/-_."),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b%3B", "/a%20b%3B"),
            ("/%2561", "/%2561"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(normal_form(path), normal, "{path}");
            assert_eq!(normal_form(normal), normal, "once is enough");
            // Whatever is cut off a path stands in front of the rest of its normal form.
            let is_inside_escape = |len: usize| normal[..len].rfind('%').is_some_and(|at| len - at < 3);
            for len in (0..=normal.len()).filter(|len| !is_inside_escape(*len)) {
                let rest = &path[raw_len(path, len)..];
                assert!(normal_form(rest).ends_with(normal[len..].trim_start_matches('/')), "{path}: {len}: {rest}");
            }
            assert_eq!(raw_len(path, normal.len()), path.len(), "{path}");
        }
        assert_eq!(raw_len("/%61dmin;x/b", "/admin".len()), "/%61dmin;x".len());
        assert_eq!(raw_len("/a//b", "/a".len()), 2);
        assert_eq!(raw_len("/a//b", "/a/".len()), 4);
    }

    #[test]
    fn rewritten_paths() {
        for (target, matched, replacement, expected) in [
            ("/chat/x", "/chat", "/", "/x"),
            ("/chat", "/chat", "/v2", "/v2"),
            ("/chat", "/chat", "/", "/"),
            ("/chat", "/chat", "", "/"),
            ("/chat", "/chat", "v2", "/v2"),
            ("/chat/room", "/chat", "/v2", "/v2/room"),
            ("/chat/room", "/chat", "/v2/", "/v2/room"),
            ("/chat/room", "/chat/", "/v2", "/v2/room"),
            ("/chat/room", "/chat/", "/v2/", "/v2/room"),
            ("/chatroom", "/chat", "/v2", "/v2/room"),
            ("/chatroom", "/chat", "/", "/room"),
            ("/chat/", "/chat", "/v2", "/v2/"),
            ("/chat/", "/chat", "/", "/"),
            ("/chat//x", "/chat", "/", "/x"),
            ("/chat//x", "/chat", "//", "/x"),
            ("/chat//x", "/chat", "/v2", "/v2//x"),
            ("/chat//x", "/chat", "/v2/", "/v2//x"),
            ("/chat?a=/chat", "/chat", "/v2", "/v2?a=/chat"),
            ("/chat/x?", "/chat", "/", "/x?"),
            ("/?//..", "/", "/v2", "/v2?//.."),
            ("/chat?x", "/chat?x, which is more than the path", "/v2", "/v2?x"),
        ] {
            let rewritten = rewrite(target, matched.len(), replacement, true);
            assert_eq!(rewritten.as_deref(), Ok(expected), "{target} without {matched} behind {replacement}");
        }
        for target in ["/chat..", "/chat../x", "/chat.%2e;x/y", "/chat."] {
            for replacement in ["/", "/v2", "/v2/"] {
                let rewritten = rewrite(target, "/chat".len(), replacement, true);
                assert_eq!(rewritten.map_err(|fault| fault.status.code()), Err(400), "{target} behind {replacement}");
            }
        }
    }
}
