//! URLs, origins, and which scheme a redirect may have.

use std::fmt;

use formats::userinfo::hidden;

use crate::address;

/// 4 KiB: registries sign query strings of about 1 KiB into their redirects.
const URL_LIMIT: usize = 4096;

/// Why a text is no URL that we would ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not an http or https URL: {why}")]
pub struct UrlError {
    /// The URL, shortened.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

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
        address::is_loopback(&self.host)
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
    origin: Origin,
    /// Starts with `/`; visible ASCII only.
    path: String,
}

impl Url {
    /// Path and query below an origin.
    pub fn new(origin: &Origin, path: &str) -> Result<Self, UrlError> {
        Url::parse(&format!("{origin}{path}"))
    }

    /// Parses an absolute URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refuse = |why| UrlError { url: hidden(text).chars().take(120).collect(), why };
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

    /// Path and query, starting with `/`; visible ASCII only.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// All of it, with the query, which may carry somebody's signature or token: to be sent, not
    /// to be shown.
    pub fn to_request(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    /// The URL a `Location` header means here (RFC 3986 §5.2, without dot segments, which no
    /// registry sends).
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
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

/// Whether `from` may send us to `to`, by what the two URLs say. [`may_connect`](crate::address::may_connect)
/// decides by the address once the name is resolved.
pub fn may_redirect(from: &Origin, to: &Origin) -> Result<(), &'static str> {
    if from.scheme == Scheme::Https && to.scheme == Scheme::Http {
        return Err("it leaves TLS");
    }
    Ok(())
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
    fn redirects_stay_within_tls() {
        let https = Origin::new(Scheme::Https, "h", None);
        let http = Origin::new(Scheme::Http, "h", None);
        assert!(may_redirect(&https, &http).is_err());
        assert!(may_redirect(&http, &https).is_ok());
        assert!(may_redirect(&https, &https).is_ok());
    }
}
