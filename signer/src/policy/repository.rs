//! `[repository]`: where the repository is, how it is reached, and with which keys.

use std::path::{Path, PathBuf};

use formats::reference::Reference;
use serde::Deserialize;

use super::{PolicyError, parse_size};
use crate::plan::parse_duration;

/// Pieces of uploads: from 64 KiB to 1 GiB. Registries refuse smaller ones, and a larger one is no
/// piece.
const CHUNK_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

/// One repository, as a command reaches it that names no other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPolicy {
    /// Where it is.
    pub url: Reference,
    /// Directory with keys, `root.json` and `signer.log`.
    pub keys: Option<PathBuf>,
    /// Trust root, instead of `root.json` with the keys.
    pub root: Option<PathBuf>,
    /// Trust only these certificates (PEM) instead of the system's.
    pub ca: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Client certificate (PEM).
    pub client_cert: Option<PathBuf>,
    /// Its key (PEM).
    pub client_key: Option<PathBuf>,
    /// Host of the registry's token server, if it is another one.
    pub token_host: Option<String>,
    /// HTTP without TLS; loopback addresses only.
    pub plain_http: bool,
    /// Blobs are sent in pieces of so many bytes; absent: whole.
    pub chunk_size: Option<u64>,
    /// Seconds without progress after which a transfer is given up.
    pub stall_limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryForm {
    url: String,
    keys: Option<PathBuf>,
    root: Option<PathBuf>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    token_host: Option<String>,
    #[serde(default)]
    plain_http: bool,
    chunk_size: Option<String>,
    stall_limit: Option<String>,
}

impl RepositoryForm {
    pub(super) fn read(self) -> Result<RepositoryPolicy, PolicyError> {
        let wrong = |key, why: String| PolicyError::Repository { key, why };
        let url = self.url.parse().map_err(|error| wrong("url", format!("{error}")))?;
        let pair = [&self.client_cert, &self.client_key].map(Option::is_some);
        if pair[0] != pair[1] {
            let key = if pair[0] { "client_cert" } else { "client_key" };
            return Err(wrong(key, "give client_cert and client_key, or neither".to_owned()));
        }
        let chunk_size = self.chunk_size.as_deref().map(chunk_size).transpose();
        let chunk_size = chunk_size.map_err(|why| wrong("chunk_size", why))?;
        let stall_limit = self.stall_limit.as_deref().map(parse_duration).transpose();
        let stall_limit = stall_limit.map_err(|error| wrong("stall_limit", error.to_string()))?;
        if stall_limit == Some(0) {
            return Err(wrong("stall_limit", "give at least a second".to_owned()));
        }
        Ok(RepositoryPolicy {
            url,
            keys: self.keys,
            root: self.root,
            ca: self.ca,
            token_file: self.token_file,
            client_cert: self.client_cert,
            client_key: self.client_key,
            token_host: self.token_host,
            plain_http: self.plain_http,
            chunk_size,
            stall_limit,
        })
    }
}

impl RepositoryPolicy {
    /// Whether a text names this repository. Another one gets neither its credentials nor its keys.
    pub fn is(&self, text: &str) -> bool {
        text.parse() == Ok(self.url.clone())
    }

    /// The same with its paths relative to a directory.
    pub(super) fn below(mut self, directory: &Path) -> Self {
        let files = [
            &mut self.keys,
            &mut self.root,
            &mut self.ca,
            &mut self.token_file,
            &mut self.client_cert,
            &mut self.client_key,
        ];
        for path in files.into_iter().flatten() {
            *path = directory.join(&path);
        }
        if let Reference::Layout { path, .. } | Reference::Archive { path, .. } = &mut self.url {
            *path = directory.join(&path);
        }
        self
    }
}

/// Bytes of a piece, as `8MiB`.
///
/// Errors: what to write instead.
pub fn chunk_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).ok().filter(|size| CHUNK_SIZES.contains(size));
    size.ok_or_else(|| format!("{text:?}: give a size from 64KiB to 1GiB, like 8MiB"))
}

#[cfg(test)]
mod tests {
    use super::super::Policy;

    fn read(lines: &str) -> Result<Policy, String> {
        let text = format!("[repository]\n{lines}");
        Policy::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let policy = read("url = \"oci:repo\"\nkeys = \"k\"\nca = \"/etc/ca.pem\"").unwrap();
        let section = policy.below("/srv".as_ref()).repository.unwrap();
        assert_eq!(section.url.to_string(), "oci:/srv/repo");
        assert_eq!(section.keys.as_deref(), Some("/srv/k".as_ref()));
        assert_eq!(section.ca.as_deref(), Some("/etc/ca.pem".as_ref()));
        assert!(section.is("oci:/srv/repo") && !section.is("oci:/srv/other"));
    }

    #[test]
    fn one_mistake_is_one_error() {
        let url = "url = \"docker://updates.example/racklet\"\n";
        for (lines, said) in [
            ("keys = \"keys\"", "missing field `url`"),
            ("url = \"https://updates.example\"", "[repository] url: "),
            ("url = \"keys\"", "[repository] url: "),
            (&format!("{url}tokenfile = \"t\""), "unknown field `tokenfile`"),
            (&format!("{url}client_cert = \"c.pem\""), "[repository] client_cert: "),
            (&format!("{url}client_key = \"c.key\""), "[repository] client_key: "),
            (&format!("{url}chunk_size = \"8M\""), "[repository] chunk_size: "),
            (&format!("{url}chunk_size = \"2GiB\""), "[repository] chunk_size: "),
            (&format!("{url}stall_limit = \"soon\""), "[repository] stall_limit: "),
            (&format!("{url}stall_limit = \"0s\""), "[repository] stall_limit: "),
        ] {
            let error = read(lines).expect_err(lines);
            assert!(error.contains(said), "{lines}: {error}");
        }
    }
}
