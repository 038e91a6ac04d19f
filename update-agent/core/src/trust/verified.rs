//! From received bytes to a document that is what its listing and its keys say.

use std::sync::Arc;

use formats::tuf::{Envelope, Header, MetaFile, Metadata, Role, TufError, UnixTime};

use super::error::refused;
use super::{Fetch, Reply, TrustError};

/// A document that enough keys signed, and the bytes it came as.
#[derive(Debug, Clone)]
pub(super) struct Verified<T> {
    pub(super) bytes: Arc<[u8]>,
    pub(super) document: T,
}

/// Who decides about signatures: a root or a delegation.
pub(super) type Signed<'a> = &'a dyn Fn(&Envelope) -> Result<(), TufError>;

impl<T: Metadata> Verified<T> {
    /// Reads a document after its signatures are verified, never before.
    pub(super) fn read(bytes: Arc<[u8]>, signed: Signed<'_>) -> Result<Self, TufError> {
        let envelope = Envelope::parse(&bytes)?;
        signed(&envelope)?;
        // The text goes before the document is made beside its tree.
        let document = T::parse(&envelope.into_signed())?;
        Ok(Verified { bytes, document })
    }

    /// The one way by which metadata that another document lists is accepted: length and hashes
    /// before anything is parsed, then signatures, then the version.
    pub(super) fn read_listed(
        role: &Role,
        file: &str,
        listed: &MetaFile,
        bytes: Arc<[u8]>,
        signed: Signed<'_>,
    ) -> Result<Self, TrustError> {
        listed.check(file, &bytes).map_err(refused(file))?;
        let verified = Self::read(bytes, signed).map_err(refused(file))?;
        check_version(role, verified.version(), listed.version)?;
        Ok(verified)
    }

    pub(super) fn header(&self) -> &Header {
        self.document.header()
    }

    pub(super) fn version(&self) -> u64 {
        self.header().version
    }

    pub(super) fn check_expiry(&self, role: &Role, now: UnixTime) -> Result<(), TrustError> {
        let Header { version, expires, .. } = *self.header();
        if self.header().is_alive(now) {
            return Ok(());
        }
        Err(TrustError::Expired { role: role.clone(), version, expires, now })
    }
}

/// Refuses any version but the one that belongs there.
pub(super) fn check_version(role: &Role, offered: u64, listed: u64) -> Result<(), TrustError> {
    let role = || role.clone();
    match offered.cmp(&listed) {
        std::cmp::Ordering::Less => {
            Err(TrustError::Rollback { role: role(), offered, trusted: listed })
        }
        std::cmp::Ordering::Greater => {
            Err(TrustError::VersionMismatch { role: role(), offered, listed })
        }
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Refuses a version below the trusted one.
pub(super) fn not_older(role: &Role, offered: u64, trusted: u64) -> Result<(), TrustError> {
    if offered < trusted {
        return Err(TrustError::Rollback { role: role.clone(), offered, trusted });
    }
    Ok(())
}

/// What to ask for, and how a wrong answer is named.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) fetch: Fetch,
    /// Whether `fetch.max_len` is the signed length.
    signed_len: bool,
}

impl Wanted {
    /// A file without a signed length.
    pub(super) fn unlisted(file_name: String, max_len: u64, optional: bool) -> Self {
        Wanted { fetch: Fetch { file_name, max_len, optional }, signed_len: false }
    }

    /// A file another document lists, of at most `cap` bytes whatever is signed.
    pub(super) fn listed(
        file_name: String,
        listed: &MetaFile,
        cap: u64,
    ) -> Result<Self, TrustError> {
        let max_len = listed.length.unwrap_or(cap);
        if max_len > cap {
            return Err(TrustError::TooLong { file: file_name, limit: cap, signed: false });
        }
        let fetch = Fetch { file_name, max_len, optional: false };
        Ok(Wanted { fetch, signed_len: listed.length.is_some() })
    }

    /// The bytes of the answer; `None` if there is no such file.
    pub(super) fn bytes(&self, reply: Reply) -> Result<Option<Arc<[u8]>>, TrustError> {
        match reply {
            Reply::Bytes(bytes) if bytes.len() as u64 <= self.fetch.max_len => {
                Ok(Some(bytes.into()))
            }
            Reply::Bytes(_) | Reply::TooLong => Err(TrustError::TooLong {
                file: self.fetch.file_name.clone(),
                limit: self.fetch.max_len,
                signed: self.signed_len,
            }),
            Reply::NotFound => Ok(None),
        }
    }

    /// The bytes of a file that must be there.
    pub(super) fn required(&self, reply: Reply) -> Result<Arc<[u8]>, TrustError> {
        let file = || self.fetch.file_name.clone();
        self.bytes(reply)?.ok_or_else(|| TrustError::NotServed { file: file() })
    }
}
