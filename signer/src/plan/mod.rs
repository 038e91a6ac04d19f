//! What is to be signed next. Pure: the last state, a change and the time in, metadata out.
//!
//! ```text
//!  State + Change ─► decide ─► Unchanged
//!                          └─► Draft ─► sign_draft(keys) ─► next State ─► upload in order:
//!                                                                         blobs, manifests, tags,
//!                                                                         `tuf:latest` last
//! ```
//!
//! Version discipline (TUF §6.1): a role's version rises by one whenever its bytes change, and a
//! state is only ever built on one that was verified.

mod expiry;
mod lint;
mod sign;

pub use expiry::{Expiry, ExpiryError, PERIOD_MEMBER, parse_duration};
pub use lint::{Proposal, check_release};
pub use sign::{first_root, first_state, sign_draft};

use std::collections::BTreeMap;

use formats::channel::{Channel, ChannelError, Offer, Urgency};
use formats::digest::Digest;
use formats::json::Value;
use formats::reason::Reason;
use formats::release::{Summary, channel_target_name, is_word, target_name};
use formats::tuf::{Role, TargetFile, Targets, UnixTime};
use formats::version::Version;

use crate::key::KeyError;
use crate::state::{State, StateError};

/// Why a change is not signed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A product, channel or hardware id that is no word.
    #[error(
        "{what} {found:?} is not a name: 1 to 64 of a-z 0-9 . _ -, starting and ending with a letter or digit"
    )]
    Name {
        /// What it should name.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// The product name of the repository that holds the metadata.
    #[error("{0:?} cannot name a product or version: the repository uses it itself")]
    Reserved(String),
    /// The version was published with other content.
    #[error(
        "{target} is published with other content; a version never changes its meaning: choose a new one"
    )]
    SameVersion {
        /// The target.
        target: String,
    },
    /// Another spelling of a published version.
    #[error(
        "version {offered} is the same version as the published {published}; spell it alike or choose a new one"
    )]
    OtherSpelling {
        /// As it was given.
        offered: Version,
        /// As it is published.
        published: Version,
    },
    /// Older than what is published.
    #[error(
        "version {offered} of {product} is older than the published {newest}; nodes would refuse it"
    )]
    OlderVersion {
        /// The product.
        product: String,
        /// As it was given.
        offered: Version,
        /// The newest one published.
        newest: Version,
    },
    /// The security version would go down.
    #[error(
        "security version {offered} of {product} is below {published} of release {version}; nodes that confirmed that one would refuse it"
    )]
    SecurityVersion {
        /// The product.
        product: String,
        /// As it was given.
        offered: u64,
        /// The highest one published.
        published: u64,
        /// The release that has it.
        version: Version,
    },
    /// A component that no hardware takes.
    #[error(
        "component {component} fits no hardware; name its hardware ids: {component}=FILE,hw=ID or --hw ID"
    )]
    NoHardware {
        /// The component.
        component: String,
    },
    /// Two images of one component for one hardware: a node could not choose.
    #[error("component {component} is given twice for hardware {hardware}")]
    TwiceForHardware {
        /// The component.
        component: String,
        /// The hardware id.
        hardware: String,
    },
    /// More of something than the formats hold.
    #[error("{what} {found} is more than {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// What was given.
        found: u64,
        /// The most there may be.
        limit: u64,
    },
    /// A release that is not published.
    #[error("{target} is not published")]
    NoRelease {
        /// The target.
        target: String,
    },
    /// A channel document would be malformed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// An expiry outside of what is reasonable.
    #[error(transparent)]
    Expiry(#[from] ExpiryError),
    /// The root has expired: nodes refuse everything below it.
    #[error(
        "root version {version} expired at {expires}; nodes refuse all that is signed below it: rotate the root first"
    )]
    RootExpired {
        /// Its version.
        version: u64,
        /// When it ended.
        expires: UnixTime,
    },
    /// Not enough keys at hand.
    #[error(
        "{role} needs {threshold} signatures, but only {found} of its keys are in the key directory"
    )]
    KeysMissing {
        /// The role.
        role: Role,
        /// How many must sign.
        threshold: u32,
        /// How many are at hand.
        found: usize,
    },
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The result does not verify; nothing of it was published.
    #[error("verify what was signed")]
    Result(#[from] StateError),
}

impl PlanError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            PlanError::Name { .. }
            | PlanError::Reserved(_)
            | PlanError::NoHardware { .. }
            | PlanError::TwiceForHardware { .. }
            | PlanError::Limit { .. } => Reason::Config,
            PlanError::SameVersion { .. }
            | PlanError::OtherSpelling { .. }
            | PlanError::OlderVersion { .. } => Reason::VersionRollback,
            PlanError::SecurityVersion { .. } => Reason::SecverFloor,
            PlanError::NoRelease { .. } => Reason::TargetNotFound,
            PlanError::Channel(_) => Reason::MetaFormat,
            PlanError::Expiry(_) | PlanError::RootExpired { .. } => Reason::Expired,
            PlanError::KeysMissing { .. } => Reason::SigThreshold,
            PlanError::Key(error) => error.reason(),
            PlanError::Result(error) => error.reason(),
        }
    }
}

/// A release that was built and uploaded, but is not visible yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// The product.
    pub product: String,
    /// What the signed target will say.
    pub summary: Summary,
    /// The bytes of the release index.
    pub index: Vec<u8>,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new release, and if named the channel that offers it.
    Publish {
        /// The release.
        release: NewRelease,
        /// The channel.
        channel: Option<String>,
    },
    /// What a channel offers and how. Absent fields stay as they are.
    SetChannel {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// The release it offers from now on.
        release: Option<Version>,
        /// How urgent it is.
        urgency: Option<Urgency>,
        /// Whether nobody installs for now.
        hold: Option<bool>,
    },
    /// Nothing but new expiries of snapshot and timestamp.
    Refresh,
}

/// Metadata to be signed on top of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The targets, if they change; version and expiry are set when they are signed.
    pub targets: Option<BTreeMap<String, TargetFile>>,
    /// Channel documents by target name that change.
    pub channels: BTreeMap<String, Channel>,
}

/// What follows from a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The repository already says so.
    Unchanged,
    /// This is to be signed.
    Sign(Draft),
}

/// What a change means for a state, or why it is refused.
pub fn decide(state: &State, change: &Change, now: UnixTime) -> Result<Decision, PlanError> {
    let header = &state.root.header;
    if now >= header.expires {
        return Err(PlanError::RootExpired { version: header.version, expires: header.expires });
    }
    let mut draft = Drafting { targets: state.targets.data.clone(), channels: BTreeMap::new() };
    match change {
        Change::Refresh => {
            return Ok(Decision::Sign(Draft { targets: None, channels: BTreeMap::new() }));
        }
        Change::Publish { release, channel } => {
            check_release(state, &Proposal::of(&release.product, &release.summary))?;
            draft.publish(release)?;
            if let Some(channel) = channel {
                let version = Some(release.summary.version.clone());
                draft.set_channel(state, &release.product, channel, version, None, None)?;
            }
        }
        Change::SetChannel { product, channel, release, urgency, hold } => {
            draft.set_channel(state, product, channel, release.clone(), *urgency, *hold)?;
        }
    }
    if draft.targets == state.targets.data {
        return Ok(Decision::Unchanged);
    }
    Ok(Decision::Sign(Draft { targets: Some(draft.targets.targets), channels: draft.channels }))
}

struct Drafting {
    targets: Targets,
    channels: BTreeMap<String, Channel>,
}

impl Drafting {
    fn publish(&mut self, release: &NewRelease) -> Result<(), PlanError> {
        let target = target_name(&release.product, &release.summary.version);
        let custom = Value::parse(&release.summary.to_custom()).expect(
            "its numbers are lengths, and a security version that the lint held below 2^63",
        );
        let file = TargetFile::of(&release.index, Some(custom));
        match self.targets.targets.get(&target) {
            Some(published) if *published == file => Ok(()),
            Some(_) => Err(PlanError::SameVersion { target }),
            None => {
                self.targets.targets.insert(target, file);
                Ok(())
            }
        }
    }

    fn set_channel(
        &mut self,
        state: &State,
        product: &str,
        channel: &str,
        release: Option<Version>,
        urgency: Option<Urgency>,
        hold: Option<bool>,
    ) -> Result<(), PlanError> {
        check_word("product", product)?;
        check_word("channel", channel)?;
        let target = channel_target_name(product, channel);
        let mut document = match state.channels.get(&target) {
            Some(published) => published.data.clone(),
            None => Channel::new(product, channel),
        };
        if let Some(version) = release {
            let name = target_name(product, &version);
            let listed = self.targets.targets.get(&name).and_then(|file| file.hashes.as_sha256());
            let sha256 = listed.ok_or(PlanError::NoRelease { target: name })?;
            document.release = Some(Offer { version, sha256 });
        }
        document.urgency = urgency.unwrap_or(document.urgency);
        document.hold = hold.unwrap_or(document.hold);
        document.check()?;
        let file = TargetFile::of(&document.to_bytes(), None);
        if self.targets.targets.get(&target) != Some(&file) {
            self.targets.targets.insert(target.clone(), file);
            self.channels.insert(target, document);
        }
        Ok(())
    }
}

/// The digest a release's target has, as OCI writes it.
pub fn release_digest(file: &TargetFile) -> Option<Digest> {
    file.hashes.as_sha256().map(Digest::Sha256)
}

pub(crate) fn check_word(what: &'static str, text: &str) -> Result<(), PlanError> {
    if is_word(text, 64) {
        Ok(())
    } else {
        Err(PlanError::Name { what, found: text.chars().take(80).collect() })
    }
}
