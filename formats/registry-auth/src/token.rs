//! Asking a token server, and keeping what it gave.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credential::{Credential, Secret};
use crate::realm::{RealmError, shorten, token_server};
use crate::url::{Origin, Url};

/// 64 KiB: the largest answer of a token server. Tokens are signed lists of rights.
pub const ANSWER_LIMIT: usize = 64 << 10;

/// What stays as it is in a query (RFC 3986 §3.4) or form.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',');

/// What to send to a token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// `GET`, perhaps with `Authorization` (distribution-spec "token authentication").
    Get {
        /// Where, with service and scopes.
        url: Url,
        /// The value of `Authorization`.
        authorization: Option<Secret>,
    },
    /// `POST` of a form, for identity tokens (distribution's `docs/spec/auth/oauth.md`).
    Post {
        /// Where.
        url: Url,
        /// The body, `application/x-www-form-urlencoded`.
        form: Secret,
    },
}

/// Who asks, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The registry that wants a token.
    pub registry: &'a Origin,
    /// What its token server is called, in the operator's words.
    pub token_host: Option<&'a str>,
    /// One or several scopes (`repository:a/b:pull`), with a space between.
    pub scope: &'a str,
    /// The program's name, for OAuth 2.
    pub client_id: &'a str,
}

impl Asking<'_> {
    /// The request for a token.
    ///
    /// A credential goes along where [`token_server`] allows it; where it does not, having one is an
    /// error, so that nobody is taken for anonymous without a word. A token that is sent as it is
    /// ([`Credential::Bearer`]) is never exchanged for another.
    pub fn request(
        &self,
        realm: &str,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<TokenRequest, RealmError> {
        let server = token_server(realm, self.registry, self.token_host)?;
        if credential.is_some() && !server.trusted {
            return Err(RealmError::Foreign {
                registry: self.registry.to_string(),
                realm: shorten(realm),
                host: server.url.origin().host().to_owned(),
            });
        }
        let wanted = service.filter(|it| !it.is_empty()).map(|service| ("service", service));
        let scopes = self.scope.split(' ').filter(|it| !it.is_empty());
        let wanted = wanted.into_iter().chain(scopes.map(|scope| ("scope", scope)));
        if let Some(Credential::Identity(identity)) = credential {
            let fixed = [("grant_type", "refresh_token"), ("client_id", self.client_id)];
            let secret = [("refresh_token", identity.expose())];
            let form = Zeroizing::new(pairs(fixed.into_iter().chain(wanted).chain(secret)));
            return Ok(TokenRequest::Post { url: server.url, form: Secret::new(&form) });
        }
        let query = pairs(wanted);
        let separator = match (query.is_empty(), server.url.path().contains('?')) {
            (true, _) => "",
            (false, true) => "&",
            (false, false) => "?",
        };
        let path = format!("{}{separator}{query}", server.url.path());
        let url = Url::new(server.url.origin(), &path).map_err(|_| RealmError::Url {
            registry: self.registry.to_string(),
            realm: shorten(realm),
        })?;
        let authorization = match credential {
            Some(basic @ Credential::Basic { .. }) => basic.header(),
            _ => None,
        };
        Ok(TokenRequest::Get { url, authorization })
    }
}

/// `a=b&c=d`, percent-encoded.
fn pairs<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encoded = all.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, KEEP)));
    encoded.collect::<Vec<_>>().join("&")
}

/// The token in a token server's answer, if it is one that fits into a header.
pub fn parse_token(body: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let some = |text: Option<String>| text.filter(|it| !it.is_empty()).map(Zeroizing::new);
    let token = some(answer.token).or_else(|| some(answer.access_token))?;
    token.bytes().all(|byte| byte.is_ascii_graphic()).then(|| Secret::new(&token))
}

/// Tokens by the registry and the scope they are for.
///
/// A token is kept until the registry refuses it: only the registry knows when it runs out.
#[derive(Debug, Default)]
pub struct TokenCache(Mutex<BTreeMap<(Origin, String), Secret>>);

impl TokenCache {
    /// The token for a scope.
    pub fn token(&self, registry: &Origin, scope: &str) -> Option<Secret> {
        self.lock().get(&(registry.clone(), scope.to_owned())).cloned()
    }

    /// Keeps a token.
    pub fn keep(&self, registry: &Origin, scope: &str, token: Secret) {
        self.lock().insert((registry.clone(), scope.to_owned()), token);
    }

    /// Forgets a token that was refused.
    pub fn forget(&self, registry: &Origin, scope: &str) {
        self.lock().remove(&(registry.clone(), scope.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Origin, String), Secret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Scheme;

    fn asked(realm: &str, credential: Option<&Credential>) -> Result<TokenRequest, RealmError> {
        let registry = Origin::new(Scheme::Https, "h", None);
        let scope = "repository:a/b:pull,push repository:c:pull";
        let asking = Asking { registry: &registry, token_host: None, scope, client_id: "racklet" };
        asking.request(realm, Some("x y&"), credential)
    }

    #[test]
    fn the_request_names_service_and_scopes() {
        let user = Credential::parse_line("alice:secret").unwrap();
        let TokenRequest::Get { url, authorization } =
            asked("https://h/t?a=b", Some(&user)).unwrap()
        else {
            panic!("a password is sent in a header")
        };
        let query = "service=x%20y%26&scope=repository:a/b:pull,push&scope=repository:c:pull";
        assert_eq!(url.path(), format!("/t?a=b&{query}"));
        assert_eq!(authorization, user.header());
        let Ok(TokenRequest::Get { authorization: None, .. }) = asked("https://other/t", None)
        else {
            panic!("without a credential anybody may be asked")
        };
    }

    #[test]
    fn an_identity_goes_into_a_form_and_a_token_nowhere() {
        let identity = Credential::Identity(Secret::new("a+b"));
        let TokenRequest::Post { url, form } = asked("https://h/t", Some(&identity)).unwrap()
        else {
            panic!("an identity is posted")
        };
        assert_eq!(url.path(), "/t");
        let form = form.expose();
        assert!(form.starts_with("grant_type=refresh_token&client_id=racklet&service="), "{form}");
        assert!(form.ends_with("&refresh_token=a%2Bb"), "{form}");
        let token = Credential::Bearer(Secret::new("t"));
        let found = asked("https://h/t", Some(&token)).unwrap();
        assert!(matches!(found, TokenRequest::Get { authorization: None, .. }), "{found:?}");
    }

    #[test]
    fn having_a_credential_for_a_stranger_is_an_error() {
        for credential in [
            Credential::parse_line("alice:secret").unwrap(),
            Credential::Identity(Secret::new("i")),
            Credential::Bearer(Secret::new("t")),
        ] {
            let error = asked("https://evil.example/t", Some(&credential)).unwrap_err();
            assert_eq!(error.token_host(), Some("evil.example"));
        }
    }

    #[test]
    fn tokens_fit_into_a_header() {
        let abc = Some(Secret::new("abc"));
        for good in [
            &br#"{"token":"abc","expires_in":60}"#[..],
            br#"{"access_token":"abc"}"#,
            br#"{"token":"","access_token":"abc"}"#,
            br#"{"token":null,"access_token":"abc"}"#,
        ] {
            assert_eq!(parse_token(good), abc, "{}", String::from_utf8_lossy(good));
        }
        for bad in [&b""[..], b"{}", br#"{"token":""}"#, br#"{"token":"a\r\nX: y"}"#, b"[]"] {
            assert_eq!(parse_token(bad), None);
        }
    }

    #[test]
    fn a_token_is_for_one_registry_and_scope() {
        let (cache, https) = (TokenCache::default(), Origin::new(Scheme::Https, "h", None));
        cache.keep(&https, "a", Secret::new("t"));
        assert_eq!(cache.token(&https, "a"), Some(Secret::new("t")));
        assert_eq!(cache.token(&https, "b"), None);
        assert_eq!(cache.token(&Origin::new(Scheme::Http, "h", None), "a"), None);
        cache.forget(&https, "a");
        assert_eq!(cache.token(&https, "a"), None);
    }
}
