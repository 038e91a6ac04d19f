//! Certificates, tokens, and where they may go.

use std::io;
use std::path::Path;

use formats::reason::Reason;
use reqwest::Certificate;
use storage::files::StoreError;
use storage::secret::{self, Readers, Rule};

use super::super::RegistryError;

/// 16 KiB: larger than any token we know of; bounds what a wrong path makes us read.
const TOKEN_LIMIT: u64 = 16 << 10;
/// 1 MiB: four times the largest collection of public roots.
const CA_LIMIT: u64 = 1 << 20;

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn read_ca(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let what = "certificate file";
    let failed = |why: String| failed(what, path, why);
    // Whoever could change it would be shown the token.
    let data = secret::read(path, CA_LIMIT, Rule::of(Readers::Everybody))
        .map_err(|error| unread(what, path, error))?;
    if !data.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(failed("holds no PEM certificate".to_owned()));
    }
    Certificate::from_pem_bundle(&data).map_err(|error| failed(error.to_string()))
}

pub(super) fn read_token(path: &Path) -> Result<String, RegistryError> {
    let what = "token file";
    let rule = Rule::of(Readers::Group).or_pipe();
    let bytes = secret::read(path, TOKEN_LIMIT, rule).map_err(|error| unread(what, path, error))?;
    let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(what, path, "holds no token".to_owned()));
    }
    Ok(token.to_owned())
}

fn failed(what: &'static str, path: &Path, why: String) -> RegistryError {
    RegistryError::Credential { what, path: path.to_owned(), why, reason: Reason::Config }
}

/// What kept a file from being read, with the command that mends it.
pub(super) fn unread(what: &'static str, path: &Path, error: StoreError) -> RegistryError {
    let (path, why, reason) = match error {
        StoreError::InsecurePerms { path, why, remedy } => {
            (path, format!("{why}; run `{remedy}`"), Reason::InsecurePerms)
        }
        StoreError::Read(error) => {
            (path.to_owned(), io::Error::from(error).to_string(), Reason::Config)
        }
        other => (path.to_owned(), other.to_string(), Reason::Config),
    };
    RegistryError::Credential { what, path, why, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (authority, loopback) in [
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("localhost:80", true),
            ("[::1]:5000", true),
            ("192.0.2.1:5000", false),
            ("127.0.0.1.example:5000", false),
            ("registry.example", false),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(is_loopback(authority), loopback, "{authority}");
        }
    }
}
