//! URLs, origins, and where a redirect may lead.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::HttpError;

/// 4 KiB: registries sign query strings of about 1 KiB into their redirects.
const URL_LIMIT: usize = 4096;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// Scheme, host and port: what a credential belongs to (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: Scheme,
    /// Lower case; an IPv6 address without brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of a host, which is lower-cased; IPv6 addresses without brackets.
    pub fn new(scheme: Scheme, host: &str, port: Option<u16>) -> Self {
        let default = if scheme == Scheme::Https { 443 } else { 80 };
        Origin { scheme, host: host.to_ascii_lowercase(), port: port.unwrap_or(default) }
    }

    /// With or without TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is this machine by its very name: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse().is_ok_and(|ip| Distance::of(ip) == Distance::Loopback)
    }

    /// `host`, or `host:port` unless the port is the scheme's own.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (Scheme::Https, 443) | (Scheme::Http, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// An absolute URL without user information and without fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// Where to connect.
    pub(crate) origin: Origin,
    /// Path and query, starting with `/`; visible ASCII only.
    pub(crate) path: String,
}

impl Url {
    /// Path and query below an origin.
    pub fn new(origin: &Origin, path: &str) -> Result<Self, HttpError> {
        Url::parse(&format!("{origin}{path}"))
    }

    /// Parses an absolute URL.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let refuse = |why| HttpError::Url { url: text.chars().take(120).collect(), why };
        if text.len() > URL_LIMIT {
            return Err(refuse("longer than 4096 bytes"));
        }
        let text = text.split('#').next().unwrap_or_default();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("a character that must be percent-encoded"));
        }
        let uri: http::Uri = text.parse().map_err(|_| refuse("not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(refuse("the scheme is another one")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("user names and passwords in URLs are refused"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(refuse("no host"));
        }
        let digits = authority.as_str().rsplit_once(':').map(|(_, port)| port);
        let port = match (authority.port_u16(), digits) {
            (Some(0), _) => return Err(refuse("port 0")),
            (Some(port), _) => Some(port),
            (None, Some(rest)) if !rest.ends_with(']') => return Err(refuse("the port")),
            (None, _) => None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Url { origin: Origin::new(scheme, host, port), path })
    }

    /// Where this URL is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The URL a `Location` header means here (RFC 3986 §5.2, without dot segments, which no
    /// registry sends).
    pub fn join(&self, location: &str) -> Result<Self, HttpError> {
        let has_scheme = location
            .split_once(':')
            .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains(['/', '?', '#']));
        if has_scheme {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.origin.scheme == Scheme::Https { "https" } else { "http" };
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        if location.starts_with('/') {
            return Url::new(&self.origin, location);
        }
        let path = self.path.split('?').next().unwrap_or("/");
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Url::new(&self.origin, &format!("{folder}/{location}"))
    }
}

impl fmt::Display for Url {
    /// Without the query, which may carry somebody's signature or token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path.split('?').next().unwrap_or_default())
    }
}

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
    /// The distance of an address, seen through IPv4-mapped and NAT64 forms.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Distance::of_v4(ip),
            IpAddr::V6(ip) => Distance::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        if ip.is_loopback() || a == 0 || a >= 224 {
            Distance::Loopback
        } else if ip.is_link_local() {
            Distance::Link
        } else if ip.is_private() || (a == 100 && (b & 0xc0) == 64) {
            Distance::Site
        } else {
            Distance::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h] = ip.segments();
        let tail = || {
            let [g0, g1] = g.to_be_bytes();
            let [h0, h1] = h.to_be_bytes();
            Ipv4Addr::new(g0, g1, h0, h1)
        };
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            Distance::Loopback
        } else if ip.to_ipv4_mapped().is_some() || (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0)
        {
            Distance::of_v4(tail())
        } else if (a & 0xffc0) == 0xfe80 {
            Distance::Link
        } else if (a & 0xfe00) == 0xfc00 || (a & 0xffc0) == 0xfec0 {
            Distance::Site
        } else {
            Distance::Public
        }
    }
}

/// Whether `from` may send us to `to`, by what the two URLs say. [`may_connect`] decides by the
/// address once the name is resolved.
pub(crate) fn may_redirect(from: &Origin, to: &Origin) -> Result<(), &'static str> {
    if from.scheme == Scheme::Https && to.scheme == Scheme::Http {
        return Err("it leaves TLS");
    }
    Ok(())
}

/// Whether a redirect of an origin at distance `from` may lead to an address at distance `to`:
/// never nearer, or any server could make this node knock at doors of its own network.
pub(crate) fn may_connect(from: Distance, to: Distance) -> Result<(), &'static str> {
    if to < from { Err("it leads into the node's own network") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_with_a_host_and_nothing_secret() {
        let good = [
            ("https://Example.ORG/v2/", "https://example.org", "/v2/"),
            ("http://h:8080", "http://h:8080", "/"),
            ("https://[::1]:5000/a?b=c#d", "https://[::1]:5000", "/a?b=c"),
            ("https://[::1]/a", "https://[::1]", "/a"),
            ("https://h:443/a", "https://h", "/a"),
            ("https://h?x=1", "https://h", "/?x=1"),
        ];
        for (text, origin, path) in good {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.origin.to_string().as_str(), url.path.as_str()), (origin, path));
        }
        let long = format!("https://h/{}", "a".repeat(URL_LIMIT));
        for bad in [
            "",
            "h",
            "/a",
            "ftp://h/",
            "file:///etc/passwd",
            "https://",
            "https://u:p@h/",
            "https://h:99999/",
            "https://h:0/",
            "https://h:/",
            "https://h/a b",
            "https://h/\r\nX: y",
            "https://h/\u{e4}",
            &long,
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = Url::parse("https://h:5000/v2/a/blobs/x?q=1").unwrap();
        for (location, expected) in [
            ("https://o/y", "https://o/y"),
            ("//o/y", "https://o/y"),
            ("/y?z", "https://h:5000/y?z"),
            ("y", "https://h:5000/v2/a/blobs/y"),
            ("HTTP://o/", "http://o/"),
        ] {
            let url = base.join(location).unwrap();
            assert_eq!(format!("{}{}", url.origin, url.path), expected);
        }
        for bad in ["file:///etc/passwd", "javascript:x", "https:///x", "//u@h/"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(Url::parse("https://h/a?token=secret").unwrap().to_string(), "https://h/a");
    }

    #[test]
    fn case_92_redirects_never_lead_nearer() {
        use Distance::{Link, Loopback, Public, Site};
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
            ("fd00::1", Site),
            ("172.32.0.1", Public),
            ("100.128.0.1", Public),
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
        let https = Origin::new(Scheme::Https, "h", None);
        let http = Origin::new(Scheme::Http, "h", None);
        assert!(may_redirect(&https, &http).is_err());
        assert!(may_redirect(&http, &https).is_ok());
    }
}
