//! Where a request goes: its target, its Host, and that the two agree. Routes act on the very bytes that are forwarded, so
//! whatever a backend might read as another path is refused.

use std::net::Ipv6Addr;

use crate::proto::http::Fault;

/// The target in origin-form (RFC 9112, 3.2.1), which is how it is forwarded.
pub(super) fn origin_form(target: &[u8], host: &Host<'_>) -> Result<Box<str>, Fault> {
    let target = str::from_utf8(target).map_err(|_| Fault::request(400, "has a target beyond ASCII"))?;
    if target.starts_with('/') {
        check_path(target)?;
        return Ok(target.into());
    }
    // RFC 9112, 3.2.2: absolute-form must be accepted. Authority-form is for CONNECT and `*` for OPTIONS.
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(Fault::request(400, "has a target that is not a path"));
    };
    let default_port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => 80,
        _ if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return Err(Fault::request(400, "has a target whose scheme is not http")),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let same = Host::parse(authority.as_bytes()).is_some_and(|target| target.is_same(host, default_port));
    if !same {
        return Err(Fault::request(400, "has a target for another host than its Host header"));
    }
    // RFC 9110, 4.2.3: "an empty path component is equivalent to an absolute path of "/"".
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
    check_path(&path)?;
    Ok(path.into())
}

/// `target` with `replacement` in place of the first `matched` bytes of its path. It starts with one slash, and one is put
/// between the two where neither has one.
///
/// What is left of a path may be a dot segment where it was none before (`/chat..` without `/chat`), so the result is
/// held against the same rules as what clients send.
pub fn rewrite(target: &str, matched: usize, replacement: &str) -> Result<String, Fault> {
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
    check_path(&rewritten)?;
    rewritten.push_str(query);
    Ok(rewritten)
}

fn check_path(target: &str) -> Result<(), Fault> {
    let refuse = |what| Err(Fault::request(400, what));
    let path = target.split('?').next().unwrap_or_default();
    if path.starts_with("//") {
        return refuse("has a path that starts with two slashes");
    }
    for escape in path.split('%').skip(1) {
        let digits = escape.as_bytes().get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.map(|digits| digits.to_ascii_lowercase()).as_deref() {
            None => return refuse("has a broken percent-encoding in its path"),
            Some(b"00") => return refuse("has an encoded NUL in its path"),
            Some(b"2f" | b"5c") => return refuse("has an encoded slash or backslash in its path"),
            Some(_) => {}
        }
    }
    if path.split('/').any(is_dot_segment) {
        return refuse("has a dot segment in its path");
    }
    Ok(())
}

/// `.` and `..`, also percent-encoded, and also with parameters behind them: some servers drop `;x` first.
fn is_dot_segment(segment: &str) -> bool {
    let mut name = segment.split(';').next().unwrap_or_default();
    let mut dots = 0;
    while let Some(rest) = [".", "%2e", "%2E"].iter().find_map(|dot| name.strip_prefix(dot)) {
        name = rest;
        dots += 1;
    }
    name.is_empty() && (1..=2).contains(&dots)
}

/// A checked Host header (RFC 9110, 7.2): a name or an address, and a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    pub text: &'a str,
    pub name: &'a str,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Narrower than RFC 3986, 3.2: no userinfo, no percent-encoding and no punctuation that no host name has.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?;
        let name_end = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest[..end].parse::<Ipv6Addr>().ok()?;
                end + 2
            }
            None => text.find(':').unwrap_or(text.len()),
        };
        let (name, port) = text.split_at(name_end);
        let is_name = |name: &str| {
            let labels = name.strip_suffix('.').unwrap_or(name);
            labels.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~'))
            })
        };
        if !name.starts_with('[') && !is_name(name) {
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
        origin_form(target.as_bytes(), &host).map(String::from).map_err(|fault| fault.status)
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
            let rewritten = rewrite(target, matched.len(), replacement);
            assert_eq!(rewritten.as_deref(), Ok(expected), "{target} without {matched} behind {replacement}");
        }
        for target in ["/chat..", "/chat../x", "/chat.%2e;x/y", "/chat."] {
            for replacement in ["/", "/v2", "/v2/"] {
                let rewritten = rewrite(target, "/chat".len(), replacement);
                assert_eq!(rewritten.map_err(|fault| fault.status), Err(400), "{target} behind {replacement}");
            }
        }
    }
}
