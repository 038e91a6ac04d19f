//! Proxies: which one to use for an origin, and the way through it.
//!
//! A proxy is a carrier, never a party: TLS is with the origin, through `CONNECT`, and the origin's
//! credentials and tokens are inside it. Plain HTTP, which needs an explicit `plain_http`, is asked
//! for by absolute URL. What proves this node to the proxy is sent to the proxy alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::HttpError;
use super::url::{Distance, Origin, Scheme, Url};

/// 8 KiB: the head of a proxy's answer.
const HEAD: usize = 8 << 10;

/// A proxy. Its `Debug` does not show its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is; `http`.
    pub(super) origin: Origin,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.authorization.is_some() { " (with a password)" } else { "" };
        write!(f, "{}{secret}", self.origin)
    }
}

impl Proxy {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT]`; without a scheme it is `http`, too.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        // What is shown must not hold the password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let refuse = |why| HttpError::Url { url: shown.chars().take(120).collect(), why };
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(refuse("TLS to a proxy is not supported: use http://"));
            }
            Some(_) => return Err(refuse("a proxy is http://HOST[:PORT]")),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let url = Url::parse(&format!("http://{host}/"))
            .map_err(|_| refuse("a proxy is http://HOST[:PORT]"))?;
        if url.path != "/" {
            return Err(refuse("a proxy has no path"));
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let plain = percent_decode(user).ok_or_else(|| refuse("its user or password"))?;
                Some(format!("Basic {}", STANDARD.encode(plain)))
            }
        };
        Ok(Proxy { origin: url.origin, authorization })
    }

    /// Opens a tunnel to `origin` on a connection to the proxy.
    pub(super) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        origin: &Origin,
    ) -> Result<(), HttpError> {
        let host = if origin.host().contains(':') {
            format!("[{}]", origin.host())
        } else {
            origin.host().to_owned()
        };
        let target = format!("{host}:{}", origin.port());
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(secret) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {secret}\r\n"));
        }
        request.push_str("\r\n");
        let broken = |error: std::io::Error| HttpError::Broken {
            origin: self.origin.to_string(),
            why: format!("the proxy: {error}"),
        };
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut head = Vec::new();
        // One by one: what follows the head belongs to the tunnel.
        while !head.ends_with(b"\r\n\r\n") {
            let protocol = |why: &str| HttpError::Protocol {
                origin: self.origin.to_string(),
                why: format!("the proxy {why}"),
            };
            if head.len() >= HEAD {
                return Err(protocol("sends an endless head"));
            }
            let mut byte = [0];
            if stream.read(&mut byte).await.map_err(broken)? == 0 {
                return Err(protocol("ends the connection instead of answering"));
            }
            head.extend_from_slice(&byte);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line: String = String::from_utf8_lossy(line).chars().take(80).collect();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        match status {
            Some("200") => Ok(()),
            Some("407") => Err(HttpError::Unreachable {
                origin: origin.to_string(),
                why: format!(
                    "the proxy {} wants a user and password: http://USER:PASSWORD@HOST:PORT",
                    self.origin
                ),
            }),
            _ => Err(HttpError::Unreachable {
                origin: origin.to_string(),
                why: format!("the proxy {} answers {line:?}", self.origin),
            }),
        }
    }
}

/// Which proxy to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    /// `no_proxy`: hosts, domains, addresses; `*` is all.
    direct: Vec<String>,
}

impl Proxies {
    /// One for everything but this machine.
    pub fn only(proxy: Proxy) -> Self {
        Proxies { https: Some(proxy.clone()), http: Some(proxy), direct: Vec::new() }
    }

    /// What `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy` say, in lower or upper case.
    /// `HTTP_PROXY` in upper case is not looked at: a CGI request can set it (CVE-2016-5385).
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HttpError> {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| variable(name)).filter(|value| !value.is_empty())
        };
        let all = || first(&["all_proxy", "ALL_PROXY"]);
        let parse = |text: Option<String>| text.map(|text| Proxy::parse(&text)).transpose();
        let direct = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        Ok(Proxies {
            https: parse(first(&["https_proxy", "HTTPS_PROXY"]).or_else(all))?,
            http: parse(first(&["http_proxy"]).or_else(all))?,
            direct: direct
                .split(',')
                .map(|entry| entry.trim().to_ascii_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        })
    }

    /// The proxy for an origin; none for this machine, whatever is set.
    pub fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let host = origin.host();
        let own = host == "localhost"
            || host.parse().is_ok_and(|ip| Distance::of(ip) == Distance::Loopback);
        let listed = self.direct.iter().any(|entry| {
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => (name, port.parse::<u16>().ok()),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let domain = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
            name == "*" || ((host == name || domain) && port.is_none_or(|p| p == origin.port()))
        });
        match origin.scheme() {
            _ if own || listed => None,
            Scheme::Https => self.https.as_ref(),
            Scheme::Http => self.http.as_ref(),
        }
    }
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    out.iter().all(|byte| !byte.is_ascii_control()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_parsed_without_showing_their_password() {
        let plain = Proxy::parse("http://proxy.example:3128/").unwrap();
        assert_eq!(plain.origin.to_string(), "http://proxy.example:3128");
        assert_eq!(plain.authorization, None);
        assert_eq!(Proxy::parse("proxy.example:3128").unwrap(), plain);
        let secret = Proxy::parse("http://us%40er:p%3Aw@proxy.example:3128").unwrap();
        let expected = format!("Basic {}", STANDARD.encode("us@er:p:w"));
        assert_eq!(secret.authorization.as_deref(), Some(expected.as_str()));
        assert!(!format!("{secret:?}").contains("p:w"));
        for bad in ["https://p:1", "socks5://p:1", "http://", "http://p/path", "http://u:%zz@p", ""]
        {
            let error = Proxy::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("%zz"), "{error}");
        }
    }

    #[test]
    fn the_environment_says_which() {
        let set = |pairs: &'static [(&'static str, &'static str)]| {
            Proxies::from_environment(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
            .unwrap()
        };
        let proxies = set(&[
            ("https_proxy", "http://p:1"),
            ("HTTP_PROXY", "http://evil:1"),
            ("no_proxy", "corp.example, .site.example,10.0.0.7,h.example:5000"),
        ]);
        // (origin, through a proxy)
        let rows = [
            ("https://updates.example", true),
            ("http://updates.example", false),
            ("https://corp.example", false),
            ("https://a.corp.example", false),
            ("https://xcorp.example", true),
            ("https://a.site.example", false),
            ("https://10.0.0.7", false),
            ("https://10.0.0.70", true),
            ("https://h.example:5000", false),
            ("https://h.example", true),
            ("https://127.0.0.1:5443", false),
            ("https://localhost", false),
            ("https://[::1]:5443", false),
        ];
        for (origin, through) in rows {
            let origin = Url::parse(origin).unwrap().origin;
            assert_eq!(proxies.of(&origin).is_some(), through, "{origin}");
        }
        let all = set(&[("ALL_PROXY", "p:1"), ("no_proxy", "*")]);
        assert_eq!(all.of(&Url::parse("https://a.example").unwrap().origin), None);
        assert_eq!(set(&[("https_proxy", "")]), Proxies::default());
    }
}
