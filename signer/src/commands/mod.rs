//! What the commands do, one function each: collaborators and a request in, a report out.
//!
//! A report is data: `--json` prints it as one object, otherwise [`Report::text`] is shown.

mod bundle;
mod ceremony;
mod change;
mod channel;
mod component;
mod delta;
mod download;
mod dry_run;
#[cfg(feature = "factory")]
mod factory;
mod files;
mod fleet;
mod init;
mod inspect;
mod key;
mod lint;
mod package;
mod prune;
mod publish;
mod release;
mod room;
mod select;
mod session;
mod sign;
mod signing;
mod stage;
mod state_report;
mod status;
mod verify;

pub use bundle::{BundleReport, BundleRequest, Form, Selection, bundle, form_of};
pub use change::{ChangeOptions, ChangeReport, change, refresh, renew};
pub use channel::{ChannelPreview, ChannelReport, ChannelsReport, SEEN, channel, list as channels};
pub use component::ComponentInput;
pub use download::{DownloadReport, DownloadRequest, download};
pub use dry_run::DryRunReport;
#[cfg(feature = "factory")]
pub use factory::{FactoryReport, FactoryRequest, factory, source_date_epoch};
pub use fleet::{AffectedReport, AffectedRequest, FleetReport, fleet_affected, fleet_status};
pub use init::{InitReport, InitRequest, init};
pub use inspect::{InspectReport, inspect};
pub use key::{KeyReport, KeysReport, Protect, example, import_key, list, new, passphrase, pkcs11};
pub use lint::{LintReport, lint, lint_staged};
pub use package::{PackageReport, check_package_root};
pub use prune::{PruneReport, PruneRequest, prune};
pub use publish::{PublishReport, PublishRequest, publish};
pub use release::{ReleaseReport, ReleasesReport, releases};
pub use session::Delivery;
pub use sign::{AbandonReport, CommitReport, LogReport, abandon, commit, log, sign, stage_status};
pub use signing::Signing;
pub use stage::{RequirementReport, StageReport};
pub use state_report::PublishedState;
pub use status::{StatusReport, status};
pub use verify::{VerifyReport, verify};

use std::path::Path;

use formats::example_keys;
use formats::tuf::{Root, UnixTime};
use serde::Serialize;
use storage::StoreError;
use storage::secret::{self, Readers, Rule};

use crate::error::SignerError;
use crate::key::KeyError;
use crate::plan::counted;
use crate::progress::bytes;
use crate::state::self_signed;

/// Name of the trust root beside the keys.
pub const ROOT_FILE: &str = "root.json";

/// What a command has to say.
pub trait Report: Serialize {
    /// For people; ends without a line break.
    fn text(&self) -> String;

    /// Whether the repository trusts published keys, which is to be said loudly.
    fn example_keys(&self) -> bool {
        false
    }
}

/// What a change that can be staged ends with.
#[derive(Debug)]
pub enum Answer<T> {
    /// It is public.
    Done(T),
    /// It waits for signatures.
    Staged(StageReport),
    /// It was a dry run.
    Described(Box<DryRunReport>),
}

/// 1 MiB: twice the longest root that nodes take; bounds what a wrong path makes us read.
const TRUSTED_LIMIT: u64 = 1 << 20;

/// A file that decides whom the signer believes, or what it signs: nobody else may change it. The
/// user's own group does not count, so that a umask of 002 does no harm.
pub fn read_trusted(path: &Path, what: &'static str) -> Result<Vec<u8>, SignerError> {
    let rule = Rule::of(Readers::Everybody).or_pipe();
    match secret::read(path, TRUSTED_LIMIT, rule) {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(StoreError::InsecurePerms { path, why, remedy }) => {
            Err(KeyError::Permissions { what, path, why, remedy }.into())
        }
        Err(error) => {
            let source = match error {
                StoreError::Read(error) => error.into(),
                other => std::io::Error::other(other),
            };
            Err(SignerError::File { action: "read", path: path.to_owned(), source })
        }
    }
}

/// Reads a trust root and checks that its own keys signed it.
pub fn read_trust_root(path: &Path) -> Result<Vec<u8>, SignerError> {
    let bytes = read_trusted(path, "trust root")?;
    self_signed(&bytes, ROOT_FILE)
        .map_err(|source| SignerError::TrustRoot { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Whether any role of a root may be signed for with a published key.
pub fn has_example_key(root: &Root) -> bool {
    example_keys::first_in(root).is_some()
}

/// A time as reports write it.
fn time(time: UnixTime) -> String {
    time.to_string()
}
