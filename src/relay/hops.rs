//! Relays that are each other's backends, which one alone cannot see: a request tells how many of them it has passed.

use std::net::IpAddr;

use super::refusal::Refusal;
use crate::proto::upgrade::Head;

/// Counts the Ringways that a request has passed.
pub(super) const HOPS: &str = "X-Ringway-Hops";

/// How many there were before this one, as far as that can be believed: other Ringways stand on this machine or in a network
/// that is not public. The count of anybody else is not looked at, and never goes on. More than there may be: two relays are
/// each other's backends, and the request would go round for ever.
pub(super) fn passed(asking: &Head, client: Option<IpAddr>, max: Option<u32>) -> Result<u32, Refusal> {
    let Some(max) = max.filter(|_| client.is_none_or(is_near)) else { return Ok(0) };
    let mut counts = asking.header(HOPS).map(|value| str::from_utf8(value).ok()?.parse::<u32>().ok());
    let hops = counts.next().flatten().unwrap_or(0);
    if hops < max {
        return Ok(hops);
    }
    Err(Refusal::TooManyHops(hops))
}

/// Loopback, private (RFC 1918), shared (RFC 6598), link-local and unique local (RFC 4193) addresses.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || first == 100 && second & 0xC0 == 64
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_a15_counts_of_strangers_are_not_believed() {
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.127.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0"]
        {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
