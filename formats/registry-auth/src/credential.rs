//! Secrets, and what proves to a registry who we are.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A text that is never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    pub fn new(text: &str) -> Self {
        Secret(Zeroizing::new(text.to_owned()))
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What proves to a registry who we are. Its `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An identity token, for which a token server gives tokens (OAuth 2 `refresh_token`).
    Identity(Secret),
    /// A token, sent as it is.
    Bearer(Secret),
}

impl Credential {
    /// Reads the line of a token file: `user:password`, or a token.
    pub fn parse_line(line: &str) -> Result<Self, &'static str> {
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if line.is_empty() || !line.bytes().all(visible) {
            return Err("must hold one line: user:password, or a token");
        }
        Ok(match line.split_once(':') {
            Some((user, password)) => {
                Credential::Basic { user: user.to_owned(), password: Secret::new(password) }
            }
            None => Credential::Bearer(Secret::new(line)),
        })
    }

    /// The value of `Authorization`; an identity has none, it is exchanged for a token.
    pub fn header(&self) -> Option<Secret> {
        match self {
            Credential::Basic { user, password } => Some(basic(user, password)),
            Credential::Bearer(token) => Some(bearer(token)),
            Credential::Identity(_) => None,
        }
    }
}

/// `Basic …` (RFC 7617).
fn basic(user: &str, password: &Secret) -> Secret {
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Secret::new(&format!("Basic {}", encoded.as_str()))
}

/// `Bearer …` (RFC 6750).
pub fn bearer(token: &Secret) -> Secret {
    Secret::new(&format!("Bearer {}", token.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_pair_or_a_token() {
        for (line, header) in
            [("user:se:cret", "Basic dXNlcjpzZTpjcmV0"), ("a-token", "Bearer a-token")]
        {
            let found = Credential::parse_line(line).unwrap().header();
            assert_eq!(found, Some(Secret::new(header)), "{line}");
        }
        for bad in ["", "a\nb", "t\u{e4}", "a\0"] {
            assert!(Credential::parse_line(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = || Secret::new("hidden");
        for credential in [
            Credential::Basic { user: "u".to_owned(), password: secret() },
            Credential::Identity(secret()),
            Credential::Bearer(secret()),
        ] {
            assert!(!format!("{credential:?}").contains("hidden"));
        }
    }
}
