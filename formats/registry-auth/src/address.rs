//! How far away an address or a name is, and whether a redirect may lead there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far away an address is. The order matters: near is less than far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// This machine; also multicast, broadcast and reserved addresses, which nobody may name.
    Loopback,
    /// This wire, for instance the metadata service of a cloud.
    Link,
    /// This site (RFC 1918, RFC 6598, RFC 4193).
    Site,
    /// Anywhere.
    Public,
}

impl Distance {
    /// The distance of an address, seen through the forms of IPv6 that carry one of IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Distance::of_v4(ip),
            IpAddr::V6(ip) => Distance::of_v6(ip),
        }
    }

    /// The distance of a host as far as its text tells, for hosts that a proxy resolves: addresses
    /// in every spelling that resolvers take (`127.1`, `0x7f000001`), and names that are never
    /// public (RFC 6761, RFC 6762, RFC 8375, `internal`, names without a dot).
    ///
    /// A public name whose address is near cannot be told from others here: whoever runs the proxy
    /// has to refuse those.
    pub fn of_host(host: &str) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(ip) = host.parse() {
            return Distance::of(ip);
        }
        if let Some(ip) = inet_aton(&host) {
            return Distance::of_v4(ip);
        }
        let last = host.rsplit('.').next().unwrap_or_default();
        match last {
            "localhost" => Distance::Loopback,
            "local" => Distance::Link,
            "internal" | "lan" | "home" | "corp" | "localdomain" | "intranet" | "private" => {
                Distance::Site
            }
            _ if !host.contains('.') || host.ends_with(".home.arpa") => Distance::Site,
            _ => Distance::Public,
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        if ip.is_loopback() || a == 0 || a >= 224 {
            Distance::Loopback
        } else if ip.is_link_local() {
            Distance::Link
        } else if ip.is_private()
            || (a == 100 && (b & 0xc0) == 64)
            // RFC 2544, RFC 6890: measuring and protocol addresses are routed on a site at most.
            || (a == 198 && (b & 0xfe) == 18)
            || (a, b, c) == (192, 0, 0)
        {
            Distance::Site
        } else {
            Distance::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h] = ip.segments();
        match (a, b, c, d, e, f) {
            _ if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() => Distance::Loopback,
            // IPv4-mapped, IPv4-compatible, SIIT (RFC 2765), NAT64 (RFC 6052).
            (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => {
                Distance::of_v4(v4(g, h))
            }
            // RFC 8215: a site's own translation, of any prefix length (RFC 6052 §2.2), so each
            // place where the address may be counts.
            (0x64, 0xff9b, 1, ..) => {
                let shifted = v4((d << 8) | (e >> 8), (e << 8) | (f >> 8));
                let split = v4(d, ((e & 0xff) << 8) | (f >> 8));
                let found = [v4(g, h), v4(f << 8 | g >> 8, g << 8 | h >> 8), shifted, split];
                found.into_iter().map(Distance::of_v4).fold(Distance::Site, Ord::min)
            }
            // 6to4 (RFC 3056): a router on the way unpacks it.
            (0x2002, ..) => Distance::of_v4(v4(b, c)),
            // Teredo (RFC 4380): the server, and the client's address upside down. Never public.
            (0x2001, 0, ..) => {
                let ends = [v4(c, d), v4(!g, !h)].map(Distance::of_v4);
                ends.into_iter().fold(Distance::Site, Ord::min)
            }
            _ if (a & 0xffc0) == 0xfe80 => Distance::Link,
            _ if (a & 0xfe00) == 0xfc00 || (a & 0xffc0) == 0xfec0 => Distance::Site,
            // RFC 4291 §2.4: the rest of 2000::/3 is public; outside of it nothing is.
            _ if (a & 0xe000) == 0x2000 => Distance::Public,
            _ => Distance::Loopback,
        }
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

/// An IPv4 address of one to four numbers, decimal, octal or hexadecimal, the last of which fills
/// the rest (inet_aton(3)).
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| {
        let (digits, base) = match (part.strip_prefix("0x"), part.strip_prefix('0')) {
            (Some(hex), _) => (hex, 16),
            (None, Some(octal)) if !octal.is_empty() => (octal, 8),
            _ => (part, 10),
        };
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        u32::from_str_radix(digits, base).ok().filter(|_| plain)
    };
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    let free = 4_usize.checked_sub(bytes.len()).filter(|free| *free > 0)?;
    let mut address = u64::from(*last);
    (address >> (8 * free) == 0).then_some(())?;
    for (nth, byte) in bytes.iter().enumerate() {
        (*byte < 256).then_some(())?;
        address |= u64::from(*byte) << (8 * (3 - nth));
    }
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

/// Whether a host is this machine by its very name: `localhost`, 127.0.0.0/8, ::1. IPv6 addresses
/// without brackets.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether the host of `host` or `host:port` is this machine, see [`is_loopback`].
pub fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    is_loopback(host)
}

/// Whether a redirect of an origin at distance `from` may lead to an address at distance `to`:
/// never nearer, or any server could make this node knock at doors of its own network.
pub fn may_connect(from: Distance, to: Distance) -> Result<(), &'static str> {
    if to < from { Err("it leads into the node's own network") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::Distance::{Link, Loopback, Public, Site};
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (authority, loopback) in [
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("localhost:80", true),
            ("LOCALHOST", true),
            ("[::1]:5000", true),
            ("[::ffff:127.0.0.1]", true),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("[ff02::1]", false),
            ("[4000::1]", false),
            ("192.0.2.1:5000", false),
            ("127.0.0.1.example:5000", false),
            ("registry.example", false),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(is_loopback_authority(authority), loopback, "{authority}");
        }
    }

    #[test]
    fn case_92_redirects_never_lead_nearer() {
        for (ip, distance) in [
            ("127.0.0.1", Loopback),
            ("127.9.9.9", Loopback),
            ("0.0.0.0", Loopback),
            ("255.255.255.255", Loopback),
            ("224.0.0.1", Loopback),
            ("::1", Loopback),
            ("::", Loopback),
            ("ff02::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("169.254.169.254", Link),
            ("fe80::1", Link),
            ("::ffff:169.254.169.254", Link),
            ("10.0.0.1", Site),
            ("172.16.0.1", Site),
            ("192.168.1.1", Site),
            ("100.64.0.1", Site),
            ("198.18.0.1", Site),
            ("192.0.0.8", Site),
            ("fd00::1", Site),
            ("172.32.0.1", Public),
            ("100.128.0.1", Public),
            ("198.20.0.1", Public),
            ("93.184.216.34", Public),
            ("2606:2800::1", Public),
        ] {
            assert_eq!(Distance::of(ip.parse().unwrap()), distance, "{ip}");
        }
        for (from, to, good) in [
            (Public, Public, true),
            (Public, Site, false),
            (Public, Link, false),
            (Public, Loopback, false),
            (Site, Site, true),
            (Site, Public, true),
            (Site, Loopback, false),
            (Loopback, Loopback, true),
            (Loopback, Public, true),
        ] {
            assert_eq!(may_connect(from, to).is_ok(), good, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn case_92_addresses_inside_addresses_are_judged_by_what_they_carry() {
        for (ip, distance) in [
            // 6to4: 2002:AABB:CCDD::/48
            ("2002:7f00:1::1", Loopback),
            ("2002:a9fe:a9fe::", Link),
            ("2002:c0a8:101::1", Site),
            ("2002:5db8:d822::1", Public),
            // Teredo: client 192.168.1.1, 127.0.0.1, 8.8.8.8; server 65.54.227.120
            ("2001:0:4136:e378:8000:63bf:3f57:fefe", Site),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", Loopback),
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", Site),
            ("2001:0:7f00:1:8000:63bf:f7f7:f7f7", Loopback),
            // NAT64 of a site: /96, and /48 (bits 48 to 63 and 72 to 87)
            ("64:ff9b:1::7f00:1", Loopback),
            ("64:ff9b:1::a9fe:a9fe", Loopback),
            ("64:ff9b:1:7f00:0:100::", Loopback),
            ("64:ff9b:1:ffff:ffff:ffff:808:808", Loopback),
            // IPv4-compatible and SIIT
            ("::10.0.0.1", Site),
            ("::ffff:0:10.0.0.1", Site),
            ("::ffff:0:8.8.8.8", Public),
            // Outside of 2000::/3
            ("100::1", Loopback),
            ("4000::1", Loopback),
            ("2001:1::1", Public),
        ] {
            assert_eq!(Distance::of(ip.parse().unwrap()), distance, "{ip}");
        }
        // Of a site's own translation nothing is public, whatever it carries.
        for text in ["64:ff9b:1:808:8:800:808:808", "64:ff9b:1::808:808"] {
            assert!(Distance::of(text.parse().unwrap()) <= Site, "{text}");
        }
    }

    #[test]
    fn case_92_names_are_judged_before_a_proxy_resolves_them() {
        for (host, distance) in [
            ("localhost", Loopback),
            ("localhost.", Loopback),
            ("a.LocalHost", Loopback),
            ("127.0.0.1", Loopback),
            ("127.0.0.1.", Loopback),
            ("127.1", Loopback),
            ("2130706433", Loopback),
            ("0x7f000001", Loopback),
            ("0177.0.0.1", Loopback),
            ("0xa9fe.0xa9fe", Public),
            ("169.254.43518", Link),
            ("10.1", Site),
            ("printer.local", Link),
            ("metadata.google.internal", Site),
            ("nas", Site),
            ("router.home.arpa", Site),
            ("db.corp", Site),
            ("::1", Loopback),
            ("2002:7f00:1::1", Loopback),
            ("updates.example.org", Public),
            ("localhost.example.org", Public),
            ("1.2.3.4.example.org", Public),
            ("93.184.216.34", Public),
        ] {
            assert_eq!(Distance::of_host(host), distance, "{host}");
        }
    }
}
