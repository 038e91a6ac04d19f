//! `package-root --check`: may this trust root be shipped?

use std::path::{Path, PathBuf};

use formats::example_keys;
use formats::tuf::{Role, UnixTime};
use serde::Serialize;

use super::{ROOT_FILE, Report, counted, read_trust_root, time};
use crate::error::SignerError;
use crate::state::self_signed;

/// A trust root that may be shipped.
#[derive(Debug, Serialize)]
pub struct PackageReport {
    trust_root: PathBuf,
    version: u64,
    root_threshold: u32,
    root_keys: usize,
    expires: String,
}

impl Report for PackageReport {
    fn text(&self) -> String {
        format!(
            "{}: root version {}, {} of {}, expires {}",
            self.trust_root.display(),
            self.version,
            self.root_threshold,
            counted(self.root_keys as u64, "key"),
            self.expires
        )
    }
}

/// Refuses a trust root that is not signed by its own keys, has expired, or lists a published key
/// for any role.
pub fn check_package_root(path: &Path, now: UnixTime) -> Result<PackageReport, SignerError> {
    let bytes = read_trust_root(path)?;
    let root = self_signed(&bytes, ROOT_FILE)
        .map_err(|source| SignerError::TrustRoot { path: path.to_owned(), source })?;
    if let Some(known) = example_keys::first_in(&root) {
        return Err(SignerError::ExampleKey {
            path: path.to_owned(),
            role: known.role,
            keyid: known.keyid.to_owned(),
        });
    }
    if now >= root.header.expires {
        let text = format!("{} expired at {}", path.display(), root.header.expires);
        return Err(SignerError::Expires(text));
    }
    let keys = root.role(&Role::Root);
    Ok(PackageReport {
        trust_root: path.to_owned(),
        version: root.header.version,
        root_threshold: keys.map_or(0, |keys| keys.threshold),
        root_keys: keys.map_or(0, |keys| keys.keyids.len()),
        expires: time(root.header.expires),
    })
}
