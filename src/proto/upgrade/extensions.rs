//! `Sec-WebSocket-Extensions` (RFC 6455, 9.1), of which only permessage-deflate (RFC 7692, 7) is understood: the meaning of
//! the RSV bits of any other could not be checked.

use crate::proto::http::trim;

/// The parameters of one offer of permessage-deflate, or of the answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deflate {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Bits>,
    client_max_window_bits: Option<Bits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    /// Without a value: "this side understands the parameter". Only in an offer, only for the client's window.
    Bare,
    Value(u8),
}

const WINDOW_BITS_MAX: u8 = 15;

/// Cuts a header value into its extensions, at commas outside quoted strings; empty elements are left out.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let is_comma = move |byte: &u8| {
        match (*byte, quoted) {
            _ if escaped => escaped = false,
            (b'\\', true) => escaped = true,
            (b'"', _) => quoted = !quoted,
            (b',', false) => return true,
            _ => {}
        }
        false
    };
    value.split(is_comma).map(trim).filter(|element| !element.is_empty())
}

/// What is left of one line of offers: those that are understood.
pub(super) fn understood(value: &[u8]) -> Vec<u8> {
    let offers: Vec<&[u8]> = elements(value).filter(|offer| Deflate::offer(offer).is_some()).collect();
    offers.join(b", ".as_slice())
}

impl Deflate {
    /// RFC 7692, 7.1: an offer with an unknown parameter, an invalid value or a parameter twice must be declined.
    pub fn offer(element: &[u8]) -> Option<Self> {
        Self::parse(element).filter(|offer| offer.server_max_window_bits != Some(Bits::Bare))
    }

    /// RFC 7692, 7.1.2: in an answer, a window size has a value.
    pub fn answer(element: &[u8]) -> Option<Self> {
        Self::parse(element).filter(|answer| {
            answer.server_max_window_bits != Some(Bits::Bare) && answer.client_max_window_bits != Some(Bits::Bare)
        })
    }

    /// Whether a server that understood `self`, an offer, may give this answer.
    pub fn allows(&self, answer: &Deflate) -> bool {
        // 7.1.1.1: a server accepts an offer with this parameter "by including" it in the answer. It may also volunteer.
        let takeover = answer.server_no_context_takeover || !self.server_no_context_takeover;
        // 7.1.2.1: "with the same or smaller value". Where 15 is offered, nothing is asked, and silence is as good.
        let server_bits = bits(answer.server_max_window_bits) <= bits(self.server_max_window_bits);
        // 7.1.2.2: without it in the offer, the answer "MUST NOT include" it. The client may be told any size: it keeps
        // to its own bound by itself.
        let client_bits = answer.client_max_window_bits.is_none() || self.client_max_window_bits.is_some();
        takeover && server_bits && client_bits
    }

    fn parse(element: &[u8]) -> Option<Self> {
        let mut parts = element.split(|&byte| byte == b';').map(trim);
        parts.next().filter(|name| *name == b"permessage-deflate")?;
        let mut deflate = Deflate::default();
        for part in parts {
            let mut halves = part.splitn(2, |&byte| byte == b'=').map(trim);
            match (halves.next()?, halves.next()) {
                (b"server_no_context_takeover", None) => set(&mut deflate.server_no_context_takeover)?,
                (b"client_no_context_takeover", None) => set(&mut deflate.client_no_context_takeover)?,
                (b"server_max_window_bits", value) => set_bits(&mut deflate.server_max_window_bits, value)?,
                (b"client_max_window_bits", value) => set_bits(&mut deflate.client_max_window_bits, value)?,
                _ => return None,
            }
        }
        Some(deflate)
    }
}

fn bits(bits: Option<Bits>) -> u8 {
    match bits {
        Some(Bits::Value(bits)) => bits,
        Some(Bits::Bare) | None => WINDOW_BITS_MAX,
    }
}

/// `None` if it is set already: no parameter may be there twice.
fn set(flag: &mut bool) -> Option<()> {
    (!std::mem::replace(flag, true)).then_some(())
}

/// 7.1.2: "a decimal integer value without leading zeroes between 8 to 15, inclusive"; RFC 6455, 9.1 lets it be quoted.
fn set_bits(bits: &mut Option<Bits>, value: Option<&[u8]>) -> Option<()> {
    let value = match value {
        None => Bits::Bare,
        Some([digit @ b'8'..=b'9'] | [b'"', digit @ b'8'..=b'9', b'"']) => Bits::Value(digit - b'0'),
        Some([b'1', digit @ b'0'..=b'5'] | [b'"', b'1', digit @ b'0'..=b'5', b'"']) => Bits::Value(10 + digit - b'0'),
        Some(_) => return None,
    };
    bits.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_outside_quotes() {
        let cut = |value: &'static str| {
            elements(value.as_bytes()).map(|element| std::str::from_utf8(element).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(cut("a, b;c=1 ,, d"), ["a", "b;c=1", "d"]);
        assert_eq!(cut(r#"a;x="1,2", b;y="\",", c"#), [r#"a;x="1,2""#, r#"b;y="\",""#, "c"]);
        assert_eq!(cut(r#"a;x="open, b"#), [r#"a;x="open, b"#]);
        assert_eq!(cut(" , ,"), [""; 0]);
    }

    #[test]
    fn offers() {
        for good in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
            "permessage-deflate ; server_max_window_bits = 8 ; client_max_window_bits=\"15\"",
        ] {
            assert!(Deflate::offer(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "permessage-bzip2",
            "permessage-deflate2",
            "Permessage-Deflate",
            "permessage-deflate;",
            "permessage-deflate; x",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=99",
            "permessage-deflate; server_max_window_bits=1\"0\"",
            "permessage-deflate; server_max_window_bits=\"",
            "permessage-deflate; client_max_window_bits=10; client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ] {
            assert_eq!(Deflate::offer(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn answers_to_offers() {
        let allows = |offer: &str, answer: &str| {
            let element = |params: &str| format!("permessage-deflate{params}").into_bytes();
            let offer = Deflate::offer(&element(offer)).unwrap();
            Deflate::answer(&element(answer)).is_some_and(|answer| offer.allows(&answer))
        };
        for (offer, answer) in [
            ("", ""),
            ("", ";server_no_context_takeover"),
            ("", ";client_no_context_takeover"),
            ("", ";server_max_window_bits=9"),
            (";client_max_window_bits", ""),
            (";client_max_window_bits", ";client_max_window_bits=8"),
            (";client_max_window_bits=10", ";client_max_window_bits=12"),
            (";client_no_context_takeover", ""),
            (";server_max_window_bits=12", ";server_max_window_bits=12"),
            (";server_max_window_bits=15", ""),
            (";server_no_context_takeover", ";server_no_context_takeover"),
        ] {
            assert!(allows(offer, answer), "{offer} -> {answer}");
        }
        for (offer, answer) in [
            ("", ";client_max_window_bits=15"),
            (";client_max_window_bits", ";client_max_window_bits"),
            (";server_max_window_bits=12", ""),
            (";server_max_window_bits=12", ";server_max_window_bits=13"),
            (";server_max_window_bits=12", ";server_max_window_bits"),
            (";server_no_context_takeover", ""),
            ("", ";server_max_window_bits=99"),
            ("", ";unknown"),
        ] {
            assert!(!allows(offer, answer), "{offer} -> {answer}");
        }
    }
}
