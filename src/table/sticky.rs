//! The cookie that brings a client back to its backend: what it says of whom. Pure: no request, no response.

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{self, SameSite, Secure, StickyValue};

/// Of one pool in one table. Values depend on the secret and the backends' names only, so that they stay good from table to
/// table and, with a secret of the config's, from process to process.
#[derive(Debug)]
pub struct Sticky {
    cookie: String,
    /// What stands behind the value.
    attributes: String,
    secure: Secure,
    /// By the backend's number.
    values: Vec<Box<str>>,
    numbers: HashMap<Box<[u8]>, u16>,
}

/// 144 bits: 24 characters without padding, and nobody finds another's by trying.
const OPAQUE_BYTES: usize = 18;

impl Sticky {
    /// `names` are the pool's backends in the table's order. `fallback_secret` signs where the config has no secret.
    pub fn new<'a>(
        config: &config::Sticky,
        names: impl Iterator<Item = &'a str>,
        fallback_secret: &[u8; 32],
    ) -> Sticky {
        let secret = config.secret.as_ref().map_or(fallback_secret.as_slice(), |secret| secret.as_bytes());
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is good for an HMAC");
        let value = |name: &str| match config.value {
            StickyValue::Opaque => opaque(mac.clone(), name),
            StickyValue::Name => cookie_octets(name),
        };
        let values: Vec<Box<str>> = names.map(value).map(String::into_boxed_str).collect();
        let mut numbers = HashMap::with_capacity(values.len());
        for (value, number) in values.iter().zip(0..=u16::MAX) {
            // Of two backends with one name the first is meant.
            numbers.entry(value.as_bytes().into()).or_insert(number);
        }
        let same_site = match config.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let domain = config.domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let attributes = format!("; Path={}{domain}; HttpOnly; SameSite={same_site}", config.path);
        Sticky { cookie: config.cookie.clone().unwrap_or_default(), attributes, secure: config.secure, values, numbers }
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The backend that a client's cookie means, if it is one of ours.
    pub fn find(&self, value: &[u8]) -> Option<u16> {
        self.numbers.get(value).copied()
    }

    /// The value of the Set-Cookie that brings a client back to this backend. `tls`: the client came over TLS.
    pub fn set_cookie(&self, number: u16, tls: bool) -> String {
        let secure = match self.secure {
            Secure::Auto if !tls => "",
            Secure::Auto | Secure::Always => "; Secure",
        };
        let value = self.values.get(usize::from(number)).map_or("", |value| value);
        format!("{}={value}{}{secure}", self.cookie, self.attributes)
    }
}

fn opaque(mac: Hmac<Sha256>, name: &str) -> String {
    let digest = mac.chain_update("ringway sticky").chain_update(name).finalize().into_bytes();
    URL_SAFE_NO_PAD.encode(&digest[..OPAQUE_BYTES])
}

/// The name itself, but for what no cookie may have in it (RFC 6265, 4.1.1): names that discovery finds may be anything.
fn cookie_octets(name: &str) -> String {
    let mut value = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'!'..=b'~' if !b"\",;\\%".contains(&byte) => value.push(char::from(byte)),
            _ => write!(value, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["10.0.0.1:9000", "10.0.0.2:9000", "b"];

    fn config(secret: Option<&str>) -> config::Sticky {
        config::Sticky { cookie: Some("route".into()), secret: secret.map(str::to_owned), ..config::Sticky::default() }
    }

    fn sticky(config: &config::Sticky, names: &[&str]) -> Sticky {
        Sticky::new(config, names.iter().copied(), &[7; 32])
    }

    /// What the client sends back.
    fn value(sticky: &Sticky, number: u16) -> String {
        let cookie = sticky.set_cookie(number, false);
        cookie.split(['=', ';']).nth(1).unwrap().to_owned()
    }

    #[test]
    fn cookies_are_whole() {
        let mut config = config(Some("secret"));
        let cookie = |config: &config::Sticky, tls| sticky(config, &NAMES).set_cookie(2, tls);
        let opaque = "route=hwfStFcMBmzW_gsPjZaI2ILB";
        assert_eq!(cookie(&config, false), format!("{opaque}; Path=/; HttpOnly; SameSite=Lax"));
        assert_eq!(cookie(&config, true), format!("{opaque}; Path=/; HttpOnly; SameSite=Lax; Secure"));
        config.secure = Secure::Always;
        config.same_site = SameSite::None;
        config.value = StickyValue::Name;
        assert_eq!(cookie(&config, false), "route=b; Path=/; HttpOnly; SameSite=None; Secure");
        config.same_site = SameSite::Strict;
        assert_eq!(cookie(&config, true), "route=b; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(sticky(&config, &NAMES).cookie(), "route");
    }

    #[test]
    fn every_backend_is_found_by_its_own_value() {
        for kind in [StickyValue::Opaque, StickyValue::Name] {
            let sticky = sticky(&config::Sticky { value: kind, ..config(None) }, &NAMES);
            for number in 0..3 {
                assert_eq!(sticky.find(value(&sticky, number).as_bytes()), Some(number));
            }
        }
    }

    #[test]
    fn values_that_are_not_ours_are_not_found() {
        let sticky = sticky(&config(None), &NAMES);
        let good = value(&sticky, 1);
        assert_eq!(good.len(), 24);
        for at in 0..good.len() {
            let mut forged = good.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sticky.find(&forged), None);
            assert_eq!(sticky.find(&good.as_bytes()[..at]), None);
        }
        for other in [format!("{good}A"), format!("\"{good}\""), good.to_lowercase(), "10.0.0.2:9000".into()] {
            assert_eq!(sticky.find(other.as_bytes()), None, "{other}");
        }
        let foreign = Sticky::new(&config(None), NAMES.into_iter(), &[8; 32]);
        let ours = Sticky::new(&config(Some("ours")), NAMES.into_iter(), &[7; 32]);
        for number in 0..3 {
            assert_eq!(sticky.find(value(&foreign, number).as_bytes()), None);
            assert_eq!(sticky.find(value(&ours, number).as_bytes()), None);
        }
    }

    #[test]
    fn values_stay_from_table_to_table() {
        let first = sticky(&config(Some("secret")), &NAMES);
        // Another order, other backends, another process.
        let next = Sticky::new(&config(Some("secret")), ["new", "b", "10.0.0.1:9000"].into_iter(), &[9; 32]);
        assert_eq!(next.find(value(&first, 0).as_bytes()), Some(2));
        assert_eq!(next.find(value(&first, 1).as_bytes()), None);
        assert_eq!(next.find(value(&first, 2).as_bytes()), Some(1));
    }

    #[test]
    fn names_cannot_break_out_of_their_cookie() {
        let config = config::Sticky { value: StickyValue::Name, ..config(None) };
        let sticky = sticky(&config, &["a b;c,d\"e\\f%\r\ng\u{e4}", "unix:/run/chat=1.sock", "a", "a"]);
        let encoded = "a%20b%3Bc%2Cd%22e%5Cf%25%0D%0Ag%C3%A4";
        assert_eq!(sticky.set_cookie(0, false), format!("route={encoded}; Path=/; HttpOnly; SameSite=Lax"));
        assert_eq!(sticky.find(encoded.as_bytes()), Some(0));
        assert_eq!(sticky.find(b"unix:/run/chat=1.sock"), Some(1));
        assert_eq!(sticky.find(b"a"), Some(2), "the first of two");
    }
}
