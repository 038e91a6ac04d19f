//! Certificates, tokens, and where they may go.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use formats::reason::Reason;
use reqwest::Certificate;

use super::super::RegistryError;

/// 16 KiB: larger than any token we know of; bounds what a wrong path makes us read.
const TOKEN_LIMIT: u64 = 16 << 10;

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn read_ca(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let failed = |why: String| RegistryError::Credential {
        what: "certificate file",
        path: path.to_owned(),
        why,
        reason: Reason::Config,
    };
    let data = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    if !data.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(failed("holds no PEM certificate".to_owned()));
    }
    Certificate::from_pem_bundle(&data).map_err(|error| failed(error.to_string()))
}

pub(super) fn read_token(path: &Path) -> Result<String, RegistryError> {
    let failed = |why: String, reason| RegistryError::Credential {
        what: "token file",
        path: path.to_owned(),
        why,
        reason,
    };
    let open = |error: io::Error| failed(error.to_string(), Reason::Config);
    let file = File::open(path).map_err(open)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| open(error.into()))?;
    if stat.st_mode & 0o007 != 0 {
        let why = format!("open to everybody (mode {:03o}); chmod 600", stat.st_mode & 0o777);
        return Err(failed(why, Reason::InsecurePerms));
    }
    let mut text = String::new();
    file.take(TOKEN_LIMIT).read_to_string(&mut text).map_err(open)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("holds no token".to_owned(), Reason::Config));
    }
    Ok(token.to_owned())
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
