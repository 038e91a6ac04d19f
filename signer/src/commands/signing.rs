//! What a command signs with: keys, a trust root, the policy, the signing log.

use std::cell::RefCell;
use std::path::PathBuf;

use formats::tuf::{Role, UnixTime};

use super::ROOT_FILE;
use super::ceremony::repository_name;
use super::channel::ChannelPreview;
use super::files::replace;
use crate::error::SignerError;
use crate::journal::{Event, Journal, Roles};
use crate::key::KeyStore;
use crate::plan::clock::{self, Evidence};
use crate::plan::{Expiry, Finding, Proposal, check_at_hand};
use crate::policy::Policy;
use crate::published::{self, Published};
use crate::repository::Registry;
use crate::retention;
use crate::state::State;

/// What a command signs with: keys, a trust root, the policy, the signing log.
#[derive(Debug, Default)]
pub struct Signing {
    /// Keys at hand.
    pub keys: KeyStore,
    /// The trust root; absent before the first repository.
    pub trust_root: Option<Vec<u8>>,
    /// Where the trust root lies, to go forward with the repository; absent: it stays.
    pub trust_root_file: Option<PathBuf>,
    /// What `signer.toml` says.
    pub policy: Policy,
    /// The log; absent in programs that keep their own.
    pub journal: Option<Journal>,
    /// Receives warnings before a key is used; absent: they are dropped.
    pub tell: Option<fn(&Finding)>,
    /// The clock, for what is signed long after a command began; absent: the time of the command's
    /// begin is used throughout.
    pub clock: Option<fn() -> UnixTime>,
    /// Shows a channel as it would be signed, and says whether to go on; asked before a key is used.
    /// Absent: it is signed without asking. What is staged is shown by `sign`.
    pub preview: Option<fn(&ChannelPreview) -> bool>,
    /// What was loaded last from the trust root.
    pub known: RefCell<Option<Published>>,
}

impl Signing {
    /// A signer of keys and a trust root, without log and policy.
    pub fn of(keys: KeyStore, trust_root: Vec<u8>) -> Self {
        Signing { keys, trust_root: Some(trust_root), ..Signing::default() }
    }

    /// The trust root, without which nothing that is there is signed upon.
    pub(super) fn root(&self) -> Result<&[u8], SignerError> {
        let missing = || {
            let folder = self.trust_root_file.as_deref().and_then(std::path::Path::parent);
            let text = match folder.filter(|folder| !folder.exists()) {
                Some(folder) => {
                    format!("there is no folder {}: name yours with --keys", folder.display())
                }
                None => format!(
                    "no trust root: give --root FILE, or put it as {ROOT_FILE} with the keys"
                ),
            };
            SignerError::NoTrustRoot(text)
        };
        self.trust_root.as_deref().ok_or_else(missing)
    }

    pub(super) fn record(&mut self, events: &[Event]) -> Result<(), SignerError> {
        match &mut self.journal {
            Some(journal) => Ok(journal.record(events)?),
            None => Ok(()),
        }
    }

    /// Refuses to sign with a clock that is behind what is known to have happened: by the build of
    /// this program, the log, what is published and what is staged. Says when it may be ahead.
    pub fn check_clock(
        &self,
        state: Option<&State>,
        staged: Option<&Proposal>,
        now: UnixTime,
    ) -> Result<(), SignerError> {
        let mut evidence = vec![Evidence::of_program()];
        if let Some(state) = state {
            evidence.extend(clock::evidence_of(state, &self.policy));
        }
        if let Some(proposal) = staged {
            evidence.extend(clock::evidence_of_staged(proposal, &self.policy));
        }
        if let Some(journal) = &self.journal {
            evidence.extend(journal.newest().map(|time| Evidence::of_log(journal.path(), time)));
        }
        clock::judge(&evidence, now)?;
        let finding = state.and_then(|state| clock::may_be_ahead(&evidence, state, now));
        if let (Some(finding), Some(tell)) = (finding, self.tell) {
            tell(&finding);
        }
        Ok(())
    }

    /// The time of a command that began at `begun`.
    pub(super) fn now(&self, begun: UnixTime) -> UnixTime {
        self.clock.map_or(begun, |clock| clock())
    }

    /// Periods as given, with those of `signer.toml` for the rest.
    pub(super) fn periods(&self, given: &Expiry) -> Result<Expiry, SignerError> {
        Ok(given.clone().within(&self.policy.expiry()?)?)
    }

    pub(super) fn remembers(
        &self,
        repository: &str,
        state: &State,
        roles: Roles,
    ) -> Result<(), SignerError> {
        match &self.journal {
            Some(journal) => Ok(journal.check_published(repository, state, roles)?),
            None => Ok(()),
        }
    }

    /// Refuses to begin what the keys at hand could not finish: a change of these roles.
    pub(super) fn can_sign(&self, state: &State, role: &Role) -> Result<(), SignerError> {
        for role in [role, &Role::Snapshot, &Role::Timestamp] {
            check_at_hand(state, role, &self.keys.ids())?;
        }
        Ok(())
    }

    /// The newest state of a repository, verified, and not older than what was published from
    /// here.
    pub fn load(&self, registry: &dyn Registry) -> Result<Published, SignerError> {
        let mut known = self.known.borrow_mut();
        let published = published::load_again(registry, self.root()?, known.as_ref())?;
        *known = Some(published.clone());
        self.remembers(&repository_name(registry), &published.state, Roles::All)?;
        Ok(published)
    }

    /// Removes states that are old now that this one is public; what is to be said of it.
    pub(super) fn retire(
        &self,
        registry: &dyn Registry,
        state: &State,
        now: UnixTime,
    ) -> Option<Finding> {
        let newest = state.timestamp.data.header.version;
        retention::retire(registry, self.policy.retention, newest, now).1
    }

    /// Lets the trust root with the keys go forward to the newest root of a state verified from it.
    pub(super) fn advance_trust_root(&mut self, state: &State) -> Result<(), SignerError> {
        let Some(path) = &self.trust_root_file else { return Ok(()) };
        let newest = state.roots.values().next_back().cloned().unwrap_or_default();
        if self.trust_root.as_deref() != Some(newest.as_slice()) {
            replace(path, &newest, 0o644)?;
            self.trust_root = Some(newest);
            self.known.replace(None);
        }
        Ok(())
    }
}
