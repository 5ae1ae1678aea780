//! What a request says of where it goes, and how its head is changed on the way.

use std::borrow::Cow;
use std::net::IpAddr;

use super::balance::hash_bytes;
use crate::config::{self, Balance, Forward, ForwardMode, HashKey, HeaderEdits, ValueMatch};
use crate::proto::upgrade::{Edit, Head, normal_form};
use crate::table::{Pool, router::RequestView};

/// The backend that the client's cookie names: of several cookies the first that names one.
pub(super) fn wanted(pool: &Pool, asking: &Head) -> Option<u16> {
    let sticky = pool.sticky.as_ref()?;
    asking.cookies(sticky.cookie()).find_map(|value| sticky.find(value))
}

/// What the request says of where consistent hashing is to send it.
pub(super) fn named_key(pool: &config::PoolConfig, asking: &Head) -> Option<u64> {
    if pool.balance != Balance::ConsistentHash {
        return None;
    }
    match &pool.hash {
        HashKey::ClientIp => None,
        HashKey::Header(name) => asking.header(name).next().map(hash_bytes),
        HashKey::Cookie(name) => asking.cookie(name).map(hash_bytes),
        HashKey::Query(name) => asking.query_value(name).map(str::as_bytes).map(hash_bytes),
        HashKey::Path(None) => Some(hash_bytes(normal_form(asking.path()).as_bytes())),
        HashKey::Path(Some(number)) => segment(&normal_form(asking.path()), *number).map(hash_bytes),
    }
}

/// What decides where hashing policies send a request that says nothing. `None`: there is nothing to tell clients apart by.
pub(super) fn address_key(pool: &config::PoolConfig, client: Option<IpAddr>) -> Option<u64> {
    if !matches!(pool.balance, Balance::ConsistentHash | Balance::IpHash) {
        return Some(0);
    }
    client.map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()),
    })
}

/// The segment of this number, from 1, of a path in its normal form.
fn segment(path: &str, number: usize) -> Option<&[u8]> {
    path.split('/').filter(|segment| !segment.is_empty()).nth(number - 1).map(str::as_bytes)
}

impl RequestView for Head {
    fn host_name(&self) -> Cow<'_, str> {
        Head::host_name(self)
    }

    fn path(&self) -> &str {
        Head::path(self)
    }

    fn has_header(&self, name: &str, value: &ValueMatch) -> bool {
        self.header(name).any(|found| value.takes(found))
    }

    fn offers_subprotocol(&self, name: &str) -> bool {
        Head::offers_subprotocol(self, name)
    }
}

/// A route's header edits, in the order in which they apply.
pub(super) fn edits(edits: &HeaderEdits) -> impl Iterator<Item = Edit<'_>> {
    let removed = edits.remove.iter().map(|name| Edit::Remove { name });
    let set = edits.set.iter().map(|(name, value)| Edit::Replace { name, value: value.into() });
    let added = edits.add.iter().map(|(name, value)| Edit::Add { name, value: value.into() });
    removed.chain(set).chain(added)
}

/// The headers that tell the backend who asked, as the config wants them.
pub(super) fn forwarded<'a>(forward: &Forward, client: Option<IpAddr>, host: &'a str) -> Vec<Edit<'a>> {
    let client = client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_canonical().to_string());
    // RFC 7239, 6: an IPv6 address stands in brackets and quotes.
    let node = if client.contains(':') { format!("\"[{client}]\"") } else { client.clone() };
    let forwarded = format!("for={node};host=\"{host}\";proto=http");
    let fields: [(ForwardMode, &'static str, Cow<'a, str>); 4] = [
        (forward.x_forwarded_for, "X-Forwarded-For", client.into()),
        (forward.x_forwarded_proto, "X-Forwarded-Proto", "http".into()),
        (forward.x_forwarded_host, "X-Forwarded-Host", host.into()),
        (forward.forwarded, "Forwarded", forwarded.into()),
    ];
    fields.into_iter().map(|(mode, name, value)| edit(mode, name, value)).collect()
}

fn edit<'a>(mode: ForwardMode, name: &'static str, value: Cow<'a, str>) -> Edit<'a> {
    match mode {
        ForwardMode::Append => Edit::Append { name, value },
        ForwardMode::Replace => Edit::Replace { name, value },
        ForwardMode::Off => Edit::Remove { name },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_follow_the_config() {
        let forward = Forward {
            x_forwarded_for: ForwardMode::Append,
            x_forwarded_proto: ForwardMode::Off,
            x_forwarded_host: ForwardMode::Replace,
            forwarded: ForwardMode::Append,
        };
        let edits = forwarded(&forward, Some("2001:db8::7".parse().unwrap()), "chat.example:8080");
        assert!(matches!(&edits[0], Edit::Append { name: "X-Forwarded-For", value } if value == "2001:db8::7"));
        assert!(matches!(&edits[1], Edit::Remove { name: "X-Forwarded-Proto" }));
        assert!(matches!(&edits[2], Edit::Replace { value, .. } if value == "chat.example:8080"));
        let wanted = "for=\"[2001:db8::7]\";host=\"chat.example:8080\";proto=http";
        assert!(matches!(&edits[3], Edit::Append { value, .. } if value == wanted));
    }
}
