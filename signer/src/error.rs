//! Why a command failed: the stage's error, its stable code, and what to do next.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use formats::reason::Reason;
use formats::release::ReleaseError;
use storage::interrupt::{Signal, Stands};

use crate::attachment::AttachmentError;
use crate::image::ImageError;
use crate::journal::JournalError;
use crate::key::KeyError;
use crate::plan::clock::ClockError;
use crate::plan::{ExpiryError, PlanError};
use crate::policy::PolicyError;
use crate::published::PublishedError;
use crate::repository::RegistryError;
use crate::signing::SigningError;
use crate::stage::StageError;
use crate::state::StateError;
use crate::verify::VerifyError;

/// The failure of a command.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Building an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An SBOM or a provenance.
    #[error(transparent)]
    Attachment(#[from] AttachmentError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Reaching the repository.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its metadata.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// Signing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its content.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The log of what was signed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A staged change.
    #[error("{path}")]
    Stage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StageError,
    },
    /// A staged change that was finished is not of its form.
    #[error(transparent)]
    Staged(#[from] StageError),
    /// A role that a staged change was made on was published meanwhile.
    #[error("{role} was published by somebody else since this change was staged; stage it again")]
    StageMoved {
        /// The role.
        role: String,
    },
    /// Who was asked said no.
    #[error("not signed: declined")]
    Declined,
    /// Nothing to verify against.
    #[error("{0}")]
    NoTrustRoot(String),
    /// `signer.toml`.
    #[error("{path}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PolicyError,
    },
    /// A trust root.
    #[error("trust root {path}")]
    TrustRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StateError,
    },
    /// A release document cannot be made of what was given.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A file of the operator's cannot be read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The repository or key directory is in use.
    #[error("{0}")]
    Exists(String),
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A trust root with a published key.
    #[error(
        "{path} trusts the example key of the {role} role ({keyid}), whose secret half is published"
    )]
    ExampleKey {
        /// The file.
        path: PathBuf,
        /// The role.
        role: &'static str,
        /// The key's id.
        keyid: String,
    },
    /// The machine's clock is behind what is known to have happened.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The repository lets no bundle outlast its timestamp.
    #[error("{0}")]
    Offline(String),
    /// A path that leads nowhere.
    #[error(
        "{0} does not exist: is the name right, and the medium mounted? A registry is written docker://HOST[:PORT][/NS]"
    )]
    NoSuchPlace(String),
    /// Somebody ended the command.
    #[error("ended by {signal}: {}", stands.what)]
    Interrupted {
        /// Who asked for it.
        signal: Signal,
        /// What is so, and what to do next.
        stands: Stands,
    },
    /// Something ends too soon.
    #[error("{0}")]
    Expires(String),
    /// The first disk of a node.
    #[cfg(feature = "factory")]
    #[error(transparent)]
    Factory(#[from] crate::factory::error::FactoryError),
}

impl From<SigningError> for SignerError {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Plan(error) => SignerError::Plan(error),
            SigningError::Key(error) => SignerError::Key(error),
        }
    }
}

impl From<ExpiryError> for SignerError {
    fn from(error: ExpiryError) -> Self {
        match error {
            ExpiryError::Period { .. }
            | ExpiryError::Policy { .. }
            | ExpiryError::Offline { .. } => SignerError::Plan(PlanError::Expiry(error)),
            _ => SignerError::Usage(error.to_string()),
        }
    }
}

/// How `storage::secret` begins to say that a secret may have got out.
const READABLE: &str = "can be read";

impl SignerError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            SignerError::Image(error) => error.reason(),
            SignerError::Attachment(error) => error.reason(),
            SignerError::Key(error) => error.reason(),
            SignerError::Registry(error) => error.reason(),
            SignerError::Published(error) => error.reason(),
            SignerError::Plan(error) => error.reason(),
            SignerError::Verify(error) => error.reason(),
            SignerError::Journal(error) => error.reason(),
            SignerError::Stage { source, .. } | SignerError::Staged(source) => source.reason(),
            SignerError::StageMoved { .. } => Reason::Busy,
            SignerError::Declined => Reason::Declined,
            SignerError::NoTrustRoot(_) | SignerError::Policy { .. } => Reason::Config,
            SignerError::TrustRoot { source, .. } => source.reason(),
            SignerError::Release(_) => Reason::BundleFormat,
            SignerError::File { .. } | SignerError::Exists(_) | SignerError::Offline(_) => {
                Reason::Config
            }
            SignerError::NoSuchPlace(_) => Reason::Unreachable,
            SignerError::Usage(_) => Reason::Usage,
            SignerError::ExampleKey { .. } => Reason::ExampleKey,
            SignerError::Clock(_) => Reason::ClockUntrusted,
            SignerError::Interrupted { .. } => Reason::Interrupted,
            SignerError::Expires(_) => Reason::Expired,
            #[cfg(feature = "factory")]
            SignerError::Factory(error) => error.reason(),
        }
    }

    /// What the repository's side of it was.
    fn registry(&self) -> Option<&RegistryError> {
        match self {
            SignerError::Registry(error)
            | SignerError::Published(PublishedError::Registry(error))
            | SignerError::Verify(VerifyError::Registry(error)) => Some(error),
            _ => None,
        }
    }

    /// What to do next, for those who do not know the codes; empty when the error says it all.
    pub fn hint(&self) -> Cow<'static, str> {
        if let Some(advice) = storage::refused::advice(self) {
            return Cow::Borrowed(advice);
        }
        match self {
            SignerError::Image(error) => error.hint().map(Cow::Owned),
            SignerError::Interrupted { stands, .. } => Some(stands.next.clone()),
            #[cfg(feature = "factory")]
            SignerError::Factory(error) => Some(Cow::Owned(error.hint())),
            _ => match self.registry() {
                Some(RegistryError::Client { hint, .. }) => Some(Cow::Owned(hint.clone())),
                _ => None,
            },
        }
        .unwrap_or(Cow::Borrowed(self.fixed_hint()))
    }

    fn fixed_hint(&self) -> &'static str {
        match self {
            SignerError::Journal(_) => return "`signer log` shows what was signed from here",
            SignerError::Plan(PlanError::Lint(_)) => return "`signer lint` shows everything found",
            SignerError::Attachment(error) => return error.hint(),
            SignerError::Key(KeyError::Permissions { why, .. }) if !why.starts_with(READABLE) => {
                return "then check that its content is unchanged";
            }
            SignerError::StageMoved { .. }
            | SignerError::NoSuchPlace(_)
            | SignerError::Expires(_) => return "",
            SignerError::Plan(PlanError::NoChannel { .. }) => {
                return "spell it as `signer channel list` does; `signer channel set` makes a new one";
            }
            SignerError::Plan(PlanError::NotPromoted { .. }) => {
                return "end its hold, or name a release: `signer channel set --release VERSION`";
            }
            SignerError::Registry(RegistryError::NoRepository { .. })
            | SignerError::Published(PublishedError::Registry(RegistryError::NoRepository {
                ..
            })) => {
                return "create it there, with NS/tuf and one repository per product; nothing \
                        became visible, run again";
            }
            SignerError::Registry(RegistryError::TagTaken { .. })
            | SignerError::Published(PublishedError::Registry(RegistryError::TagTaken {
                ..
            })) => {
                return "let the registry move the tags latest and staged-*, or stage into files: \
                        `signer stage --out FILE`";
            }
            _ => {}
        }
        if let Some(error @ RegistryError::Layout(_)) = self.registry() {
            match error.missing_place() {
                Some(path) if path.starts_with("~") => {
                    return "a shell replaces ~ only where a word begins: write oci:$HOME/…";
                }
                Some(_) => return "is the path right? `signer init` makes a new repository",
                None if self.reason() == Reason::Unreachable => {
                    return "is the medium still there, and readable?";
                }
                None => {}
            }
        }
        match self.reason() {
            Reason::Busy => "run the command again: it starts from what is published now",
            Reason::SigThreshold => {
                "the keys at hand are not those of this repository, or too few of them"
            }
            Reason::ClockUntrusted => {
                "nothing was signed; when the clock is right and was ahead before, follow \
                 docs/runbooks/wrong-clock.md"
            }
            Reason::Expired => "renew it: `signer refresh`, or for targets and root sign again",
            Reason::VersionRollback => {
                "publish under a new, higher version; docs/versions.md has the order"
            }
            Reason::SecverFloor => "give at least the security version of what the channel offers",
            Reason::InsecurePerms => "replace a secret that others may have read",
            Reason::ExampleKey => "make fresh keys with `signer init`",
            Reason::Tls => "docs/server.md makes a CA, a server certificate and a push token",
            Reason::Unreachable | Reason::Timeout | Reason::HttpStatus => {
                "check address, --ca and --token-file; nothing became visible, run again"
            }
            Reason::HashMismatch | Reason::LengthMismatch | Reason::BundleFormat => {
                "the copy is damaged or incomplete: copy or publish it again"
            }
            Reason::TargetNotFound => "`signer inspect REF` shows what there is",
            Reason::StoreIo => {
                "free some space or mount it writable; nothing became visible, run again"
            }
            _ => "",
        }
    }
}
