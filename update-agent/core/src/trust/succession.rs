//! What one document says of the one that it succeeds, or that another lists.

use std::sync::Arc;

use formats::tuf::{Envelope, MetaFile, Metadata, Role, Root, Snapshot, TufError};

use super::TrustError;
use super::error::refused;
use super::verified::{Signed, Verified, check_version, not_older};

pub(super) fn self_signed_root(bytes: Arc<[u8]>) -> Result<Verified<Root>, TufError> {
    let envelope = Envelope::parse(&bytes)?;
    let document = Root::parse(envelope.signed())?;
    document.verify(&Role::Root, &envelope)?;
    Ok(Verified { bytes, document })
}

/// The successor of `old`: signed by the keys of both, of exactly the next version (TUF
/// §5.3.4, §5.3.5).
pub(super) fn next_root(
    old: &Root,
    file: &str,
    bytes: Arc<[u8]>,
) -> Result<Verified<Root>, TrustError> {
    let newer = Verified::<Root>::read(bytes.clone(), &|e| old.verify(&Role::Root, e))
        .map_err(refused(file))?;
    self_signed_root(bytes).map_err(refused(file))?;
    check_version(&Role::Root, newer.version(), old.header.version + 1)?;
    Ok(newer)
}

pub(super) fn load<T: Metadata>(
    stored: &Option<Arc<[u8]>>,
    signed: Signed<'_>,
) -> Option<Verified<T>> {
    Verified::read(stored.clone()?, signed).ok()
}

/// Whether a stored document is exactly the listed one, so that it need not be fetched.
pub(super) fn is_listed<T: Metadata>(known: &Verified<T>, listed: &MetaFile) -> bool {
    known.version() == listed.version && listed.check("", &known.bytes).is_ok()
}

/// No role of the old snapshot is gone from the new one or older in it (TUF §5.5.5).
pub(super) fn nothing_went_back(old: &Snapshot, new: &Snapshot) -> Result<(), TrustError> {
    for (file, known) in &old.meta {
        let Some(offered) = new.meta.get(file) else {
            return Err(TrustError::RoleRemoved { file: file.clone(), trusted: known.version });
        };
        let role = match file.strip_suffix(".json") {
            Some("targets") => Role::Targets,
            name => Role::Delegated(name.unwrap_or(file).to_owned()),
        };
        not_older(&role, offered.version, known.version)?;
    }
    Ok(())
}
