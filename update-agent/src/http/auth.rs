//! Credentials and registry tokens (distribution-spec "token authentication").
//!
//! A credential belongs to one origin. It is sent to that origin, and to the token server this
//! origin names only when that is the same origin, or HTTPS on the same host or on the host that
//! the operator configured.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::secret::{self, Readers, Rule};

use super::HttpError;
use super::url::{Origin, Scheme, Url};

/// 64 KiB: larger than any token; bounds a file named by mistake.
const TOKEN_LIMIT: u64 = 64 << 10;

/// What proves to a registry who we are. Its `Debug` shows only the kind.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// `user:password`.
    Basic(String),
    /// A token as such.
    Bearer(String),
}

impl Credential {
    /// Reads a token file: one line, `user:password` or a bare token.
    ///
    /// Only its owner may read the file, see [`storage::secret`].
    pub fn from_file(path: &Path) -> Result<Self, HttpError> {
        let fail =
            |why: String| HttpError::Setup { what: format!("token file {}", path.display()), why };
        let bytes = secret::read(path, TOKEN_LIMIT, Rule::of(Readers::Nobody))
            .map_err(|error| HttpError::unread("token file", path, error))?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let line = text.trim_end_matches(['\r', '\n']);
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if line.is_empty() || !line.bytes().all(visible) {
            return Err(fail("must hold one line: user:password, or a token".to_owned()));
        }
        Ok(match line.contains(':') {
            true => Credential::Basic(line.to_owned()),
            false => Credential::Bearer(line.to_owned()),
        })
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        match self {
            Credential::Basic(pair) => format!("Basic {}", STANDARD.encode(pair)),
            Credential::Bearer(token) => format!("Bearer {token}"),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Basic(_) => "Basic(…)",
            Credential::Bearer(_) => "Bearer(…)",
        })
    }
}

/// `WWW-Authenticate: Bearer realm="…",service="…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The token server's URL.
    pub(crate) realm: String,
    /// What the token is for, in the token server's words.
    pub(crate) service: Option<String>,
}

impl Challenge {
    /// Parses one header value; `None` when it asks for something else than a token.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (scheme, parameters) = value.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = (None, None);
        let mut rest = parameters.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (text, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => challenge.0 = Some(text.to_owned()),
                "service" => challenge.1 = Some(text.to_owned()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Challenge { realm: challenge.0?, service: challenge.1 })
    }

    /// The token request for one scope, and whether our credential may go with it.
    pub(crate) fn token_request(
        &self,
        home: &Origin,
        token_host: Option<&str>,
        scope: &str,
        have_secret: bool,
    ) -> Result<(Url, bool), HttpError> {
        let refuse =
            |why| HttpError::Redirect { from: home.to_string(), to: shorten(&self.realm), why };
        let realm = Url::parse(&self.realm).map_err(|_| refuse("it is no http or https URL"))?;
        let origin = realm.origin();
        let https = origin.scheme() == Scheme::Https;
        let known = origin.host() == home.host() || token_host == Some(origin.host());
        let trusted = origin == home || (https && known);
        if !trusted && !https {
            return Err(refuse("a token server on another origin must use https"));
        }
        if !trusted && have_secret {
            return Err(refuse(
                "the credential is for another host; if this is its token server, set token_host",
            ));
        }
        let mut path = realm.path.clone();
        let mut separator = if path.contains('?') { '&' } else { '?' };
        let service = self.service.as_deref().map(|service| ("service", service));
        for (name, value) in service.into_iter().chain([("scope", scope)]) {
            path.push(separator);
            path.push_str(name);
            path.push('=');
            path.push_str(&percent_encode(value));
            separator = '&';
        }
        Ok((Url::new(origin, &path)?, trusted && have_secret))
    }
}

/// The token in a token server's answer, if it is one that fits into a header.
pub(crate) fn parse_token(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token)?;
    let good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    good.then_some(token)
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&formats::digest::hex(&[byte]).to_ascii_uppercase());
        }
    }
    out
}

fn shorten(text: &str) -> String {
    text.split('?').next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let full = Challenge {
            realm: "https://auth.example/token".to_owned(),
            service: Some("a, b".to_owned()),
        };
        for text in [
            r#"Bearer realm="https://auth.example/token",service="a, b",scope="repository:x:pull""#,
            r#"bearer scope=x, service="a, b" , realm="https://auth.example/token""#,
        ] {
            assert_eq!(Challenge::parse(text).as_ref(), Some(&full), "{text}");
        }
        for other in ["", "Bearer", "Basic realm=\"x\"", "Bearer service=\"x\"", "Bearer realm=\"x"]
        {
            assert_eq!(Challenge::parse(other), None, "{other}");
        }
    }

    #[test]
    fn case_100_a_credential_goes_to_its_host_only() {
        let home = Origin::new(Scheme::Https, "registry.example", Some(5000));
        // (name, realm, configured token host, refused with a secret, refused without)
        let rows = [
            ("same origin", "https://registry.example:5000/token", None, false, false),
            ("same host, other port", "https://registry.example/token", None, false, false),
            ("same host without TLS", "http://registry.example/token", None, true, true),
            ("other host", "https://evil.example/token", None, true, false),
            ("configured host", "https://auth.example/t", Some("auth.example"), false, false),
            (
                "configured host without TLS",
                "http://auth.example/t",
                Some("auth.example"),
                true,
                true,
            ),
            ("suffix of the host", "https://evil-registry.example/t", None, true, false),
            ("user in the realm", "https://registry.example@evil.example/", None, true, true),
            ("file", "file:///etc/passwd", None, true, true),
        ];
        for (name, realm, token_host, with, without) in rows {
            let challenge = Challenge { realm: realm.to_owned(), service: None };
            let ask = |secret| challenge.token_request(&home, token_host, "s", secret);
            assert_eq!(ask(true).is_err(), with, "{name}, with a secret");
            assert_eq!(ask(false).is_err(), without, "{name}, without");
            assert!(ask(false).is_ok_and(|(_, send)| !send) || without, "{name}");
        }
    }

    #[test]
    fn the_token_request_names_service_and_scope() {
        let home = Origin::new(Scheme::Https, "h", None);
        let challenge =
            Challenge { realm: "https://h/t?a=b".to_owned(), service: Some("x y&".to_owned()) };
        let (url, _) = challenge.token_request(&home, None, "repository:a/b:pull", false).unwrap();
        assert_eq!(url.path, "/t?a=b&service=x%20y%26&scope=repository:a/b:pull");
    }

    #[test]
    fn tokens_fit_into_a_header() {
        assert_eq!(parse_token(br#"{"token":"abc","expires_in":60}"#), Some("abc".to_owned()));
        assert_eq!(parse_token(br#"{"access_token":"abc"}"#), Some("abc".to_owned()));
        for bad in [&b""[..], b"{}", br#"{"token":""}"#, br#"{"token":"a\r\nX: y"}"#] {
            assert_eq!(parse_token(bad), None);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Credential::Basic("u:secret".to_owned())), "Basic(…)");
    }
}
