//! Which repository, how it is reached, and what it is verified against.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::signing::KEYS;
use crate::plan::parse_duration;
use crate::policy::chunk_size;
use crate::progress;
use crate::repository::{ClientOptions, Patience};

/// Heading of options that many commands share.
const REGISTRY: &str = "How the registry is reached";

#[derive(Debug, Args)]
pub(in crate::cli) struct RepoArgs {
    /// The repository; by default SIGNER_REPO, or that of signer.toml
    #[arg(long, value_name = "REF")]
    pub(in crate::cli) repo: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
}

/// A repository to look at.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(in crate::cli) struct RefArgs {
    /// The repository; by default SIGNER_REPO, or that of signer.toml
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// The repository, as for commands that change it
    #[arg(long, value_name = "REF")]
    repo: Option<String>,
}

impl RefArgs {
    pub(in crate::cli) fn get(&self) -> Option<&str> {
        self.reference.as_deref().or(self.repo.as_deref())
    }
}

/// What is listed: all in a repository, or what is of one product.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) reference: RefArgs,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    /// Only those of this product
    #[arg(long)]
    pub(in crate::cli) product: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct TrustArgs {
    /// Trust root to verify against
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(in crate::cli) root: Option<PathBuf>,
    /// Directory with root.json to verify against
    #[arg(long, help_heading = KEYS, value_name = "DIR", conflicts_with = "root")]
    pub(in crate::cli) keys: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct RegistryArgs {
    /// Trust only these certificates (PEM) instead of the system's
    #[arg(long, help_heading = REGISTRY, value_name = "FILE")]
    pub(in crate::cli) ca: Option<PathBuf>,
    /// File with a bearer token. By default the credentials of `docker login` and `podman login` are
    /// used
    #[arg(long, help_heading = REGISTRY, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// Client certificate (PEM), for a registry that requires one
    #[arg(long, help_heading = REGISTRY, value_name = "FILE", requires = "client_key")]
    pub(in crate::cli) client_cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, help_heading = REGISTRY, value_name = "FILE", requires = "client_cert")]
    pub(in crate::cli) client_key: Option<PathBuf>,
    /// Host of the registry's token server that may see the credentials, if it is another one
    #[arg(long, help_heading = REGISTRY, value_name = "HOST")]
    pub(in crate::cli) token_host: Option<String>,
    /// HTTP without TLS, on this machine only
    #[arg(long, help_heading = REGISTRY)]
    pub(in crate::cli) plain_http: bool,
    /// Send blobs in pieces of this size (64KiB to 1GiB), for a proxy that refuses or cuts off large
    /// requests. By default blobs are sent whole, and in smaller pieces when that is refused
    #[arg(long, help_heading = REGISTRY, value_name = "SIZE", value_parser = size)]
    pub(in crate::cli) chunk_size: Option<u64>,
    /// Give up a transfer that makes no progress for this long (2m by default), however long it takes
    /// in all
    #[arg(long, help_heading = REGISTRY, value_name = "DURATION", value_parser = stall_limit)]
    pub(in crate::cli) stall_limit: Option<Duration>,
}

impl RegistryArgs {
    pub(in crate::cli) fn options(&self) -> ClientOptions {
        let usual = Patience::default();
        let patience = Patience { stall: self.stall_limit.unwrap_or(usual.stall), ..usual };
        ClientOptions {
            ca: self.ca.clone(),
            token_file: self.token_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            token_host: self.token_host.clone(),
            plain_http: self.plain_http,
            patience,
            chunk_size: self.chunk_size,
            tell: Some(progress::say),
            ..ClientOptions::default()
        }
    }
}

/// Bytes of a piece, as `8MiB`; `8M` says the same.
fn size(text: &str) -> Result<u64, String> {
    let spelled = match text.strip_suffix(['K', 'M', 'G']) {
        Some(_) => format!("{text}iB"),
        None => text.to_owned(),
    };
    chunk_size(&spelled).map_err(|_| "give a size from 64KiB to 1GiB, like 8MiB".to_owned())
}

fn stall_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        0 => Err("give at least a second".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("64KiB", 65_536), ("8M", 8 << 20), ("1GiB", 1 << 30), ("70000", 70_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "8MB", "8m", "8 M", "KK", "1KM", "0", "63K", "2G", "-1M", "+1M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
