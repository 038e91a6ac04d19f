//! Whether an offline statement stands in for the expiry of timestamp and snapshot.
//!
//! | a statement counts if | otherwise |
//! |---|---|
//! | the trusted targets allow statements | [`OfflineError::NotAllowed`] |
//! | the keys of targets, or of the one role that targets name, signed it for this repository | [`OfflineError::Refused`] |
//! | it names exactly the timestamp and snapshot at hand | [`OfflineError::OtherMetadata`] |
//! | it was issued while both were alive | [`OfflineError::IssuedLate`] |
//! | it lasts no longer than the rule in targets allows | [`OfflineError::TooLong`] |
//! | it has not ended | [`OfflineError::Ended`] |
//!
//! It replaces nothing else: root and targets must be alive, no version goes back, and every length
//! and hash is checked as ever. While both are alive a statement is judged only to say until when a
//! bundle is good; one that does not count is no error then.

use std::collections::BTreeMap;

use formats::reason::Reason;
use formats::tuf::{
    DelegatedTo, Envelope, Offline, OfflineRule, Role, Root, Snapshot, TargetFile, Targets,
    Timestamp, TufError, UnixTime,
};

use super::TrustError;
use super::verified::Verified;

/// Why an offline statement does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfflineError {
    /// The repository allows none.
    #[error("the repository's targets allow no offline validity")]
    NotAllowed,
    /// The role that targets name is not delegated by them.
    #[error("targets name {0:?} for offline statements and do not delegate to it")]
    NoRole(String),
    /// It is malformed, or not signed by those who may.
    #[error("the offline statement is refused")]
    Refused(#[source] TufError),
    /// It was made for other metadata.
    #[error("the offline statement was made for {file} version {named}, not for this one")]
    OtherMetadata {
        /// Which file.
        file: String,
        /// The version it names.
        named: u64,
    },
    /// It was made when the metadata had expired.
    #[error("the offline statement was issued at {issued}, when the {role} had expired")]
    IssuedLate {
        /// Whose metadata.
        role: Role,
        /// When.
        issued: UnixTime,
    },
    /// It lasts longer than targets allow.
    #[error(
        "the offline statement lasts {seconds} s, and the repository's targets allow {longest} s"
    )]
    TooLong {
        /// From issue to end.
        seconds: i64,
        /// What is allowed.
        longest: u64,
    },
    /// It has ended.
    #[error("the offline statement ended at {expires}")]
    Ended {
        /// When.
        expires: UnixTime,
    },
}

impl OfflineError {
    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            OfflineError::Refused(source) => source.reason(),
            // Without a statement that counts, the metadata has expired.
            _ => Reason::Expired,
        }
    }
}

/// That a bundle may be used after its timestamp: until when, and for what.
///
/// Made by the verification of a statement alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineValidity {
    expires: UnixTime,
    targets: BTreeMap<String, TargetFile>,
}

impl OfflineValidity {
    /// From this second on it is worth nothing.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// Whether it is good for a target, with that content.
    pub(super) fn check(&self, name: &str, file: &TargetFile) -> Result<(), TrustError> {
        let same = |listed: &TargetFile| {
            listed.length == file.length && listed.hashes.as_sha256() == file.hashes.as_sha256()
        };
        if self.targets.get(name).is_some_and(same) {
            return Ok(());
        }
        Err(TrustError::NotOffline { name: name.to_owned(), expires: self.expires })
    }
}

/// The trusted documents a statement is judged by.
pub(super) struct Documents<'a> {
    pub(super) root: &'a Root,
    pub(super) timestamp: &'a Verified<Timestamp>,
    pub(super) snapshot: &'a Verified<Snapshot>,
    pub(super) targets: &'a Targets,
}

/// Whether the statement stands in for the expiry of timestamp and snapshot at `now`.
pub(super) fn judge(
    statement: &[u8],
    by: &Documents<'_>,
    now: UnixTime,
) -> Result<OfflineValidity, OfflineError> {
    let rule = OfflineRule::of(&by.targets.unknown).map_err(OfflineError::Refused)?;
    let rule = rule.filter(|rule| rule.longest > 0).ok_or(OfflineError::NotAllowed)?;
    let envelope = Envelope::parse(statement).map_err(OfflineError::Refused)?;
    signed(&envelope, by, &rule)?;
    let said = Offline::parse(envelope.signed()).map_err(OfflineError::Refused)?;

    let files = [
        (Role::Timestamp, &said.timestamp, &by.timestamp.bytes, by.timestamp.header()),
        (Role::Snapshot, &said.snapshot, &by.snapshot.bytes, by.snapshot.header()),
    ];
    for (role, named, bytes, header) in files {
        let file = role.file_name(None);
        if named.version != header.version || named.check(&file, bytes).is_err() {
            return Err(OfflineError::OtherMetadata { file, named: named.version });
        }
        if said.issued >= header.expires {
            return Err(OfflineError::IssuedLate { role, issued: said.issued });
        }
    }
    let seconds = said.expires.secs().saturating_sub(said.issued.secs());
    if i64::try_from(rule.longest).is_ok_and(|longest| seconds > longest) {
        return Err(OfflineError::TooLong { seconds, longest: rule.longest });
    }
    if now >= said.expires {
        return Err(OfflineError::Ended { expires: said.expires });
    }
    Ok(OfflineValidity { expires: said.expires, targets: said.targets })
}

/// Whether those signed who may, for this repository.
fn signed(envelope: &Envelope, by: &Documents<'_>, rule: &OfflineRule) -> Result<(), OfflineError> {
    let Some(name) = &rule.role else {
        return by.root.verify(&Role::Targets, envelope).map_err(OfflineError::Refused);
    };
    let missing = || OfflineError::NoRole(name.clone());
    let delegations = by.targets.delegations.as_ref().ok_or_else(missing)?;
    let DelegatedTo::Roles(roles) = &delegations.to else { return Err(missing()) };
    let role = roles.iter().find(|role| role.role.name() == name).ok_or_else(missing)?;
    role.keys
        .verify(&delegations.keys, &role.role, envelope)
        .and_then(|()| by.root.check_repository(envelope))
        .map_err(OfflineError::Refused)
}
