//! Who we are to a registry: what it asks for (`WWW-Authenticate`), and what it is told.
//!
//! ```text
//!  request ─► 401, Basic                        ─► user and password with every request
//!          └► 401, Bearer realm=…,service=…     ─► token for exactly these repositories ─► request
//! ```
//!
//! Credentials go to the registry itself and to a realm that belongs to it (the same host, or a
//! neighbour below the same parent domain), over TLS or within this machine; to nobody else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::credentials::is_loopback;
use super::failure::Failure;
use super::http::read_limited;

/// 64 KiB: tokens are signed lists of rights.
const ANSWER_LIMIT: usize = 64 << 10;

/// Something that is never shown.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Secret(Zeroizing::new(text.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What somebody gave us.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    /// Nothing.
    None,
    /// User and password.
    Basic { user: String, password: Secret },
    /// What tokens are got for.
    Identity(Secret),
    /// A token as it is.
    Bearer(Secret),
}

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads `WWW-Authenticate` (RFC 9110 §11.6.1); `None` for schemes we do not know.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let find = |name: &str| {
            let mut all = parameters.iter();
            all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        Some(Challenge::Bearer { realm: find("realm")?, service: find("service") })
    }
}

/// `a="x, \"y\"", b=z`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| *c == ',' || c.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != ',') {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        found.push((name.trim().to_owned(), value.trim().to_owned()));
    }
}

/// Whether credentials for `registry` may go to `realm`.
fn belongs(realm: &Url, registry: &Url, plain_http: bool) -> bool {
    let (Some(there), Some(here)) = (realm.host_str(), registry.host_str()) else { return false };
    let safe = match realm.scheme() {
        "https" => true,
        "http" => plain_http && is_loopback(there),
        _ => false,
    };
    // `registry-1.docker.io` and `auth.docker.io`; an address has no parent.
    let parent = |host: &str| {
        let (_, rest) = host.split_once('.')?;
        let name = rest.contains('.') && rest.bytes().any(|byte| byte.is_ascii_alphabetic());
        name.then(|| rest.to_owned())
    };
    let family = parent(here).is_some_and(|parent_here| {
        there == parent_here || parent(there).as_ref() == Some(&parent_here)
    });
    safe && (there == here || family)
}

/// What we are, and the tokens we got for it.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) credentials: Credentials,
    registry: Url,
    plain_http: bool,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<String, Secret>>,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Auth {
    pub(super) fn new(credentials: Credentials, registry: Url, plain_http: bool) -> Self {
        let (challenge, tokens) = (Mutex::default(), Mutex::default());
        Auth { credentials, registry, plain_http, challenge, tokens }
    }

    /// What the registry said it wants; forgets the token that it refused for `scope`.
    pub(super) fn learn(&self, challenge: Challenge, scope: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
    }

    /// What to say in `Authorization` for requests within `scope`.
    pub(super) async fn header(
        &self,
        client: &reqwest::Client,
        scope: &str,
    ) -> Result<Option<Secret>, Failure> {
        if let Credentials::Bearer(token) = &self.credentials {
            return Ok(Some(Secret::new(&format!("Bearer {}", token.expose()))));
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(Challenge::Bearer { realm, service }) => {
                let known = {
                    let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.get(scope).cloned()
                };
                let token = match known {
                    Some(token) => token,
                    None => self.token(client, &realm, service.as_deref(), scope).await?,
                };
                Ok(Some(Secret::new(&format!("Bearer {}", token.expose()))))
            }
        }
    }

    fn basic(&self) -> Option<Secret> {
        let Credentials::Basic { user, password } = &self.credentials else { return None };
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        Some(Secret::new(&format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }

    async fn token(
        &self,
        client: &reqwest::Client,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<Secret, Failure> {
        let refused = |why: &str| Failure::Token(format!("{realm:?} {why}"));
        let mut url: Url = realm.parse().map_err(|_| refused("is no address for tokens"))?;
        let ours = belongs(&url, &self.registry, self.plain_http);
        if !ours && !matches!(self.credentials, Credentials::None) {
            return Err(refused("is not the registry's own: it gets no credentials"));
        }
        if !ours && url.scheme() != "https" {
            return Err(refused("is plain HTTP: tokens come over TLS"));
        }
        let service = service.unwrap_or_default();
        let request = if let Credentials::Identity(identity) = &self.credentials {
            // OAuth 2: distribution's docs/spec/auth/oauth.md.
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("client_id", "racklet-signer");
            form.append_pair("service", service);
            form.extend_pairs(scope.split(' ').map(|scope| ("scope", scope)));
            form.append_pair("refresh_token", identity.expose());
            let kind = "application/x-www-form-urlencoded";
            client.post(url).header("content-type", kind).body(form.finish())
        } else {
            {
                let mut query = url.query_pairs_mut();
                if !service.is_empty() {
                    query.append_pair("service", service);
                }
                query.extend_pairs(scope.split(' ').map(|scope| ("scope", scope)));
            }
            let request = client.get(url);
            match self.basic() {
                Some(basic) => request.header("authorization", basic.expose()),
                None => request,
            }
        };
        let answer = request.send().await.map_err(Failure::Transport)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(refused(&format!("gives no token: {status}; are the credentials right?")));
        }
        let body = read_limited(answer, ANSWER_LIMIT).await?;
        let granted: Granted =
            serde_json::from_slice(&body).map_err(|_| refused("answers without a token"))?;
        let text = if granted.token.is_empty() { granted.access_token } else { granted.token };
        let text = Zeroizing::new(text);
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("answers without a token"));
        }
        let token = Secret::new(&text);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(scope.to_owned(), token.clone());
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| {
            let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
            Some(Challenge::Bearer { realm, service })
        };
        for (header, wanted) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"a,b\"",
                bearer("https://auth.example/token", Some("r.example")),
            ),
            ("bearer service=s, realm=https://a/", bearer("https://a/", Some("s"))),
            ("Bearer realm=\"a\\\"b\"", bearer("a\"b", None)),
            ("Bearer realm=\"never ends", bearer("never ends", None)),
            ("Bearer service=\"x\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), wanted, "{header}");
        }
    }

    #[test]
    fn credentials_stay_in_the_family() {
        for (registry, realm, wanted) in [
            ("https://r.example.com", "https://r.example.com/token", true),
            ("https://r.example.com", "https://auth.example.com/token", true),
            ("https://r.example.com", "https://example.com/token", true),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://r.example.com", "http://r.example.com/token", false),
            ("https://r.example.com", "https://evil.com/token", false),
            ("https://r.example.com", "https://r.example.com.evil.com/", false),
            ("https://example.com", "https://evil.com/", false),
            ("https://192.0.2.1", "https://198.0.2.1/", false),
            ("https://r.example.com", "file:///etc/passwd", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("http://127.0.0.1:5000", "http://192.0.2.1/token", false),
        ] {
            let (registry, realm) = (registry.parse().unwrap(), realm.parse().unwrap());
            assert_eq!(belongs(&realm, &registry, true), wanted, "{registry} {realm}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Basic { user: "u".into(), password: Secret::new("hidden") };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
