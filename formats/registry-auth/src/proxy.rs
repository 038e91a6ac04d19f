//! Which proxy carries a request.
//!
//! | what is asked | goes |
//! |---|---|
//! | plain HTTP, whatever is set | directly: a proxy would read it, credentials and all |
//! | this machine, whatever is set | directly: a proxy's loopback is another one |
//! | what `no_proxy` lists | directly |
//! | HTTPS elsewhere | through `https_proxy`, else `all_proxy`, by `CONNECT` |
//!
//! So a proxy is a carrier and never a party: TLS is with the registry, and credentials and tokens
//! are inside it. What proves us to the proxy is sent to the proxy alone. `http_proxy` is of no use
//! here, and `HTTP_PROXY`, which a CGI request can set (CVE-2016-5385), is not looked at.
//!
//! `no_proxy` is read as the union of what curl and Go take, because people copy it from one to the other:
//!
//! | entry | means |
//! |---|---|
//! | `*` | everything |
//! | `example.org`, `.example.org`, `*.example.org` | the host and all below it |
//! | `10.0.0.7`, `2001:db8::1`, `[2001:db8::1]` | the address |
//! | `10.0.0.0/8`, `2001:db8::/32` | the network; hosts that are written as addresses |
//! | any but a network, with `:PORT` | the same, at that port only |
//!
//! Entries are separated by commas or white space. Names are not resolved: the proxy may know them when
//! this machine does not. The matcher of `hyper-util` knows neither ports nor white space.

use core::fmt;
use core::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use crate::credential::Secret;
use crate::url::{Origin, Scheme, Url};

/// A proxy. Its `Debug` and `Display` do not show its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    origin: Origin,
    /// `user:password`, decoded.
    user: Option<Secret>,
}

/// Why a text names no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {shown:?}: {why}", .variable.unwrap_or("proxy"))]
pub struct ProxyError {
    /// The variable of the environment that holds it; `None` when somebody named it here.
    pub variable: Option<&'static str>,
    /// The text without user and password, shortened.
    pub shown: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.user.is_some() { " (with a password)" } else { "" };
        write!(f, "{}{secret}", self.origin)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)
    }
}

impl Proxy {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT]`; without a scheme it is `http`, too.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        // What is shown must not hold the password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let refuse =
            |why| ProxyError { variable: None, shown: shown.chars().take(120).collect(), why };
        let form = || refuse("a proxy is http://[USER:PASSWORD@]HOST[:PORT]");
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(refuse("TLS to a proxy is not supported: use http://"));
            }
            Some(_) => return Err(refuse("only HTTP proxies are supported: http://HOST[:PORT]")),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let url = Url::parse(&format!("http://{host}/")).map_err(|_| form())?;
        if url.path() != "/" {
            return Err(refuse("a proxy has no path"));
        }
        let user = match user {
            None => None,
            Some(user) => {
                let odd = || refuse("its user or password is not percent-encoded");
                let plain = percent_decode_str(user).decode_utf8().map_err(|_| odd())?;
                if plain.contains(|c: char| c.is_control()) || is_cut(user) {
                    return Err(odd());
                }
                Some(Secret::new(&plain))
            }
        };
        Ok(Proxy { origin: url.origin().clone(), user })
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<Secret> {
        let user = self.user.as_ref()?;
        Some(Secret::new(&format!("Basic {}", STANDARD.encode(user.expose()))))
    }

    /// User and password, as they are.
    pub fn user(&self) -> Option<(String, Secret)> {
        let (user, password) = self.user.as_ref()?.expose().split_once(':').unwrap_or_default();
        Some((user.to_owned(), Secret::new(password)))
    }
}

/// Whether a `%` is not followed by two hexadecimal digits.
fn is_cut(text: &str) -> bool {
    let digits = |rest: &str| {
        let mut bytes = rest.bytes();
        (0..2).all(|_| bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit()))
    };
    text.split('%').skip(1).any(|rest| !digits(rest))
}

/// Which proxy to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    /// The variable of the environment that names it.
    variable: Option<&'static str>,
    /// `no_proxy`: hosts, domains, addresses; `*` is all.
    direct: Vec<String>,
}

impl Proxies {
    /// One for everything that goes through a proxy.
    pub fn only(proxy: Proxy) -> Self {
        Proxies { https: Some(proxy), ..Proxies::default() }
    }

    /// What `https_proxy`, `all_proxy` and `no_proxy` say, in lower or upper case.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let first = |names: &[&'static str]| {
            let values = names.iter().map(|name| (*name, variable(name).unwrap_or_default()));
            values.into_iter().find(|(_, value)| !value.is_empty())
        };
        let named = first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
        let variable = named.as_ref().map(|(name, _)| *name);
        let proxy = named
            .map(|(name, text)| {
                Proxy::parse(&text).map_err(|error| ProxyError { variable: Some(name), ..error })
            })
            .transpose()?;
        let (_, direct) = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        let entries = direct.split(|c: char| c == ',' || c.is_whitespace());
        let direct = entries.map(str::to_ascii_lowercase);
        let direct = direct.filter(|entry| !entry.is_empty()).collect();
        Ok(Proxies { https: proxy, variable, direct })
    }

    /// The variable of the environment that names a proxy, and the proxy.
    pub fn named(&self) -> Option<(&'static str, &Proxy)> {
        self.variable.zip(self.https.as_ref())
    }

    /// The proxy for an origin; none for plain HTTP and for this machine, whatever is set.
    pub fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let direct = origin.scheme() == Scheme::Http
            || origin.is_loopback()
            || self.direct.iter().any(|entry| lists(entry, origin));
        self.https.as_ref().filter(|_| !direct)
    }
}

/// Whether an entry of `no_proxy` means an origin, by the table above.
fn lists(entry: &str, origin: &Origin) -> bool {
    if entry == "*" {
        return true;
    }
    let host = origin.host();
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse::<u16>().ok())
        }
        _ => (entry, None),
    };
    if port.is_some_and(|port| port != origin.port()) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let (Some(address), Ok(listed)) = (address, name.parse::<IpAddr>()) {
        return address == listed.to_canonical();
    }
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let below = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    !name.is_empty() && (host == name || (below && address.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_environment(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin().clone()
    }

    #[test]
    fn proxies_are_parsed_without_showing_their_password() {
        let plain = Proxy::parse("http://proxy.example:3128/").unwrap();
        assert_eq!(plain.to_string(), "http://proxy.example:3128");
        assert_eq!(plain.authorization(), None);
        assert_eq!(Proxy::parse("proxy.example:3128").unwrap(), plain);
        let secret = Proxy::parse("http://us%40er:p%3Aw@proxy.example:3128").unwrap();
        let expected = format!("Basic {}", STANDARD.encode("us@er:p:w"));
        assert_eq!(secret.authorization(), Some(Secret::new(&expected)));
        assert!(!format!("{secret:?} {secret}").contains("p:w"));
        for bad in [
            "https://p:1",
            "socks5://p:1",
            "http://",
            "http://p/path",
            "http://u:%zz@p",
            "http://u:%4@p",
            "http://u:%0a@p",
            "",
        ] {
            let error = Proxy::parse(bad).unwrap_err().to_string();
            assert!(!error.contains('%'), "{error}");
        }
    }

    #[test]
    fn the_environment_says_which() {
        let proxies = set(&[
            ("https_proxy", "http://p:1"),
            ("http_proxy", "http://plain:1"),
            ("HTTP_PROXY", "http://evil:1"),
            (
                "no_proxy",
                "corp.example, .site.example,10.0.0.7 h.example:5000,[2001:db8::1]:5000\t*.wild.example\n\
                 172.16.0.0/12,2001:db8:5::/48 , 2001:db8:6::0:1,.7",
            ),
        ]);
        // (origin, through a proxy)
        let rows = [
            ("https://updates.example", true),
            ("https://corp.example", false),
            ("https://a.corp.example", false),
            ("https://xcorp.example", true),
            ("https://a.site.example", false),
            ("https://10.0.0.7", false),
            ("https://10.0.0.70", true),
            ("https://h.example:5000", false),
            ("https://h.example", true),
            ("https://[2001:db8::1]:5000", false),
            ("https://[2001:db8::1]", true),
            ("https://a.wild.example", false),
            ("https://wild.example", false),
            ("https://172.20.1.1", false),
            ("https://[::ffff:172.20.1.1]", false),
            ("https://172.32.1.1", true),
            ("https://172.20.example", true),
            ("https://[2001:db8:5::9]", false),
            ("https://[2001:db8:7::9]", true),
            ("https://[2001:db8:6::1]", false),
            ("https://192.0.2.7", true),
            ("https://127.0.0.1:5443", false),
            ("https://localhost", false),
            ("https://[::1]:5443", false),
            ("https://[::ffff:127.0.0.1]", false),
        ];
        for (text, through) in rows {
            let found = proxies.of(&origin(text)).map(Proxy::to_string);
            assert_eq!(found.as_deref(), through.then_some("http://p:1"), "{text}");
        }
        let all = set(&[("ALL_PROXY", "p:1"), ("no_proxy", "*")]);
        assert_eq!(all.of(&origin("https://a.example")), None);
        assert_eq!(set(&[("https_proxy", "")]), Proxies::default());
        for upper in ["HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            assert!(set(&[(upper, "p:1")]).of(&origin("https://a.example")).is_some(), "{upper}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_named() {
        for (name, value, said) in [
            (
                "ALL_PROXY",
                "socks5h://127.0.0.1:9050",
                "ALL_PROXY \"socks5h://127.0.0.1:9050\": only HTTP proxies are supported",
            ),
            (
                "https_proxy",
                "https://u:secret@p:1",
                "https_proxy \"p:1\": TLS to a proxy is not supported: use http://",
            ),
        ] {
            let of = |asked: &str| (asked == name).then(|| value.to_owned());
            let error = Proxies::from_environment(of).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
    }

    /// A proxy reads plain HTTP, credentials and all, and its loopback is not ours.
    #[test]
    fn loopback_and_plain_http_are_never_proxied() {
        let all = ["https_proxy", "http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"];
        let all = all.map(|name| (name, "http://proxy.example:3128"));
        for proxies in [set(&all), Proxies::only(Proxy::parse("proxy.example").unwrap())] {
            for text in [
                "http://127.0.0.1:5000",
                "http://localhost",
                "http://registry.example",
                "http://10.0.0.1",
                "https://127.0.0.1",
                "https://localhost:5443",
            ] {
                assert_eq!(proxies.of(&origin(text)), None, "{text}");
            }
            assert!(proxies.of(&origin("https://registry.example")).is_some());
        }
    }
}
