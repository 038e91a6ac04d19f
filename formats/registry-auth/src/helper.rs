//! The protocol of docker's credential helpers: `docker-credential-NAME get`, the server's name on
//! its standard input, an answer or an error on its standard output (docker-credential-helpers).

use serde::Deserialize;

use crate::credential::{Credential, Secret};

/// 64 KiB: far more than a user and a secret.
pub const ANSWER_LIMIT: u64 = 64 << 10;

/// What a helper prints.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Why a helper gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// It says why.
    #[error("{0}")]
    Failed(String),
    /// Its answer has another form.
    #[error("its answer is not what credential helpers say")]
    Form,
}

/// The program's name; `None` for names that no helper has.
pub fn program(name: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good = !name.is_empty() && name.bytes().all(good);
    good.then(|| format!("docker-credential-{name}"))
}

/// What a helper's end means: a credential, or that it has none for this server. An answer without
/// user and secret is what some say for anonymous.
pub fn parse(success: bool, stdout: &[u8]) -> Result<Option<Credential>, HelperError> {
    if !success {
        // It says so on stdout, in these words, by protocol.
        let text = String::from_utf8_lossy(stdout);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        // An answer, in spite of all: there may be a secret in it.
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let line = line.filter(|line| !line.starts_with('{')).unwrap_or_default();
        let shown: String = line.chars().take(200).collect();
        return Err(HelperError::Failed(shown.escape_debug().to_string()));
    }
    let answer: Answer = serde_json::from_slice(stdout).map_err(|_| HelperError::Form)?;
    let secret = Secret::new(&answer.secret);
    Ok(match (answer.username.as_str(), answer.secret.as_str()) {
        ("", "") => None,
        ("<token>", _) => Some(Credential::Identity(secret)),
        (user, _) => Some(Credential::Basic { user: user.to_owned(), password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helpers_say() {
        let said = |user: &str, secret: &str| {
            format!("{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}")
        };
        let secret = || Secret::new("s");
        let failed = |text: &str| Err(HelperError::Failed(text.to_owned()));
        for (name, success, stdout, wanted) in [
            (
                "a user",
                true,
                said("u", "s"),
                Ok(Some(Credential::Basic { user: "u".to_owned(), password: secret() })),
            ),
            ("an identity", true, said("<token>", "s"), Ok(Some(Credential::Identity(secret())))),
            ("anonymous", true, said("", ""), Ok(None)),
            (
                "nothing known",
                false,
                "credentials not found in native keychain\n".to_owned(),
                Ok(None),
            ),
            (
                "a reason",
                false,
                "\n gpg: decryption failed: No secret key\nmore\n".to_owned(),
                failed("gpg: decryption failed: No secret key"),
            ),
            ("tricks", false, "a\u{1b}[2J".to_owned(), failed("a\\u{1b}[2J")),
            ("an answer that failed", false, said("u", "s"), failed("")),
            ("no reason", false, String::new(), failed("")),
            ("no answer", true, String::new(), Err(HelperError::Form)),
            ("prose", true, "hello".to_owned(), Err(HelperError::Form)),
        ] {
            assert_eq!(parse(success, stdout.as_bytes()), wanted, "{name}");
        }
    }

    #[test]
    fn odd_helpers_have_no_program() {
        assert_eq!(program("pass").as_deref(), Some("docker-credential-pass"));
        for odd in ["", "../x", "a b", "a;b", "/bin/sh"] {
            assert_eq!(program(odd), None, "{odd}");
        }
    }
}
