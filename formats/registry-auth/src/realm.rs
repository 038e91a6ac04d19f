//! Which token server may see a credential: one rule for both programs.
//!
//! | the token server is | it gets |
//! |---|---|
//! | the registry's own origin | the credential |
//! | HTTPS on the registry's host, any port | the credential |
//! | HTTPS on the host that the operator named | the credential |
//! | HTTPS on the token server of a registry that everybody knows | the credential |
//! | plain HTTP on loopback, named by the operator, of a registry on loopback | the credential |
//! | HTTPS anywhere else | requests without a credential |
//! | anything else | nothing |
//!
//! A neighbour below the same parent domain is another host: of `registry.co.uk` that would be
//! everybody below `co.uk`.

use crate::hub;
use crate::url::{Origin, Scheme, Url};

/// Registries of other people, and the host of their token server.
const KNOWN: [(&str, &str); 2] =
    [(hub::REGISTRY, "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// A token server, and whether it may see the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenServer {
    /// Where it is.
    pub url: Url,
    /// Whether it is the registry's own.
    pub trusted: bool,
}

/// Why a token server is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RealmError {
    /// No URL we would ask.
    #[error("{registry} names the token server {realm:?}, which is no http or https URL")]
    Url {
        /// Who named it.
        registry: String,
        /// What was named, shortened.
        realm: String,
    },
    /// Tokens would come in the clear.
    #[error("{registry} names the token server {realm}, which is plain HTTP{}", other_name(.loopback))]
    PlainHttp {
        /// Who named it.
        registry: String,
        /// What was named, shortened.
        realm: String,
        /// Its host, when it is this machine under another name or port than the registry's.
        loopback: Option<String>,
    },
    /// The credential is for another host.
    #[error(
        "{registry} names the token server {realm}; it is on another host and gets no credentials"
    )]
    Foreign {
        /// Who named it.
        registry: String,
        /// What was named, shortened.
        realm: String,
        /// The token server's host.
        host: String,
    },
}

impl RealmError {
    /// The host to name as token server, if that would help.
    pub fn token_host(&self) -> Option<&str> {
        match self {
            RealmError::Foreign { host, .. } => Some(host),
            RealmError::PlainHttp { loopback, .. } => loopback.as_deref(),
            RealmError::Url { .. } => None,
        }
    }
}

fn other_name(loopback: &Option<String>) -> String {
    match loopback {
        Some(_) => ", on this machine under another name or port than the registry's".to_owned(),
        None => ": tokens come over https".to_owned(),
    }
}

/// The token server that `registry` names by `realm`. `token_host` is the operator's word.
pub fn token_server(
    realm: &str,
    registry: &Origin,
    token_host: Option<&str>,
) -> Result<TokenServer, RealmError> {
    let (name, shown) = (registry.to_string(), shorten(realm));
    let Ok(url) = Url::parse(realm) else {
        return Err(RealmError::Url { registry: name, realm: shown });
    };
    let origin = url.origin();
    let named = token_host.is_some_and(|host| host.eq_ignore_ascii_case(origin.host()));
    let on_loopback = origin.is_loopback() && registry.is_loopback();
    let trusted = origin == registry
        || match origin.scheme() {
            Scheme::Https => {
                named || origin.host() == registry.host() || is_known(registry, origin)
            }
            Scheme::Http => named && on_loopback && registry.scheme() == Scheme::Http,
        };
    if !trusted && origin.scheme() == Scheme::Http {
        let loopback = on_loopback && registry.scheme() == Scheme::Http;
        let loopback = loopback.then(|| origin.host().to_owned());
        return Err(RealmError::PlainHttp { registry: name, realm: shown, loopback });
    }
    Ok(TokenServer { url, trusted })
}

fn is_known(registry: &Origin, token: &Origin) -> bool {
    let ports = (registry.port(), token.port()) == (443, 443);
    ports && KNOWN.contains(&(registry.host(), token.host()))
}

/// Without its query, which may carry somebody's secret, and not endless.
pub(crate) fn shorten(text: &str) -> String {
    text.split('?').next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin().clone()
    }

    /// What a realm gets: the credential, requests without, or nothing.
    fn gets(registry: &str, realm: &str, token_host: Option<&str>) -> &'static str {
        match token_server(realm, &origin(registry), token_host) {
            Ok(TokenServer { trusted: true, .. }) => "credential",
            Ok(TokenServer { trusted: false, .. }) => "requests",
            Err(_) => "nothing",
        }
    }

    #[test]
    fn case_100_a_credential_goes_to_its_host_only() {
        let r = "https://registry.example:5000";
        let l = "http://127.0.0.1:5000";
        // (name, registry, realm, token host of the operator, what the realm gets)
        let rows = [
            ("same origin", r, "https://registry.example:5000/token", None, "credential"),
            ("same host, other port", r, "https://registry.example/token", None, "credential"),
            ("same host without TLS", r, "http://registry.example/token", None, "nothing"),
            ("other host", r, "https://evil.example/token", None, "requests"),
            ("named host", r, "https://auth.example/t", Some("auth.example"), "credential"),
            ("named in capitals", r, "https://auth.example/t", Some("Auth.Example"), "credential"),
            ("named, without TLS", r, "http://auth.example/t", Some("auth.example"), "nothing"),
            ("suffix of the host", r, "https://evil-registry.example/t", None, "requests"),
            ("host as a label", r, "https://registry.example.evil.com/", None, "requests"),
            ("user in the realm", r, "https://registry.example@evil.example/", None, "nothing"),
            ("file", r, "file:///etc/passwd", None, "nothing"),
            ("sibling", "https://r.example.com", "https://auth.example.com/t", None, "requests"),
            ("parent", "https://r.example.com", "https://example.com/t", None, "requests"),
            ("public suffix", "https://registry.co.uk", "https://evil.co.uk/", None, "requests"),
            ("shared domain", "https://x.github.io", "https://y.github.io/", None, "requests"),
            ("address", "https://192.0.2.1", "https://198.0.2.1/", None, "requests"),
            (
                "Docker Hub",
                "https://registry-1.docker.io",
                "https://auth.docker.io/token",
                None,
                "credential",
            ),
            (
                "GitLab",
                "https://registry.gitlab.com",
                "https://gitlab.com/jwt/auth",
                None,
                "credential",
            ),
            ("Hub's server for others", r, "https://auth.docker.io/token", None, "requests"),
            (
                "Hub's server, other port",
                "https://registry-1.docker.io",
                "https://auth.docker.io:8443/token",
                None,
                "requests",
            ),
            ("loopback, same origin", l, "http://127.0.0.1:5000/token", None, "credential"),
            ("loopback, other port", l, "http://127.0.0.1:5001/token", None, "nothing"),
            ("loopback, named", l, "http://127.0.0.1:5001/t", Some("127.0.0.1"), "credential"),
            ("loopback, other name", l, "http://localhost:5000/t", None, "nothing"),
            (
                "loopback, other name named",
                l,
                "http://localhost:5000/t",
                Some("localhost"),
                "credential",
            ),
            ("from TLS to loopback", r, "http://127.0.0.1:1/t", Some("127.0.0.1"), "nothing"),
            ("from loopback elsewhere", l, "http://192.0.2.1/t", Some("192.0.2.1"), "nothing"),
        ];
        for (name, registry, realm, token_host, wanted) in rows {
            assert_eq!(gets(registry, realm, token_host), wanted, "{name}");
        }
    }

    #[test]
    fn errors_name_the_host_that_would_have_to_be_named() {
        let loopback = origin("http://127.0.0.1:5000");
        let error = token_server("http://localhost:5000/t?x=secret", &loopback, None).unwrap_err();
        assert_eq!(error.token_host(), Some("localhost"));
        let text = error.to_string();
        assert!(text.contains("http://localhost:5000/t") && !text.contains("secret"), "{text}");
        let error = token_server("http://192.0.2.1/t", &loopback, None).unwrap_err();
        assert_eq!(error.token_host(), None);
    }
}
